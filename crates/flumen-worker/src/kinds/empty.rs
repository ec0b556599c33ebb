//! `empty`: nothing is done. It holds other tasks together.

use async_trait::async_trait;
use flumen_core::Result;
use flumen_core::flow::Outcome;
use flumen_core::task_kind::{TaskKind, schema_of};
use schemars::JsonSchema;
use serde_json::Value;

use super::Kind;
use crate::attempt::Attempt;

/// The kind `empty`.
#[derive(Debug)]
pub struct Empty;

#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Fields {
    /// Any value: what it gives to later tasks.
    #[allow(dead_code, reason = "it is read as a value, and here for its schema")]
    output: Option<Value>,
}

impl TaskKind for Empty {
    fn name(&self) -> &'static str {
        "empty"
    }

    fn about(&self) -> &'static str {
        "Does nothing: a place where other tasks meet."
    }

    fn schema(&self) -> Value {
        schema_of::<Fields>()
    }

    fn bare_field(&self) -> Option<&'static str> {
        Some("output")
    }
}

#[async_trait]
impl Kind for Empty {
    async fn run(&self, attempt: &Attempt<'_>) -> Result<Outcome> {
        Ok(Outcome::success(attempt.config["output"].clone()))
    }

    fn starts_programs(&self) -> bool {
        false
    }
}
