//! `empty`: nothing is done. It holds other tasks together.

use async_trait::async_trait;
use flumen_core::Result;
use flumen_core::flow::Outcome;
use flumen_core::task_kind::{TaskKind, is_template, schema_of};
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

    fn given(&self, config: &Value) -> Option<Value> {
        let output = &config["output"];
        (!has_template(output)).then(|| output.clone())
    }
}

/// Whether a worker has to render something.
fn has_template(value: &Value) -> bool {
    match value {
        Value::String(text) => is_template(text),
        Value::Array(items) => items.iter().any(has_template),
        Value::Object(fields) => fields.iter().any(|(name, value)| is_template(name) || has_template(value)),
        _ => false,
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
