//! `approve`: somebody has to say yes. It waits without a worker.

use async_trait::async_trait;
use chrono::TimeDelta;
use flumen_core::Result;
use flumen_core::flow::{Outcome, Wait, WaitFor};
use flumen_core::task_kind::units::Period;
use flumen_core::task_kind::{TaskKind, schema_of};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::Kind;
use crate::attempt::Attempt;

/// The kind `approve`.
#[derive(Debug)]
pub struct Approve;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Fields {
    /// What somebody is asked.
    question: String,
    /// How long to wait for the answer before the task fails. For ever by default.
    patience: Option<Period>,
}

impl TaskKind for Approve {
    fn name(&self) -> &'static str {
        "approve"
    }

    fn about(&self) -> &'static str {
        "Waits until somebody says yes; it fails if they say no. Its output is who answered, and what they noted."
    }

    fn schema(&self) -> Value {
        schema_of::<Fields>()
    }

    fn bare_field(&self) -> Option<&'static str> {
        Some("question")
    }
}

#[async_trait]
impl Kind for Approve {
    async fn run(&self, attempt: &Attempt<'_>) -> Result<Outcome> {
        let Fields { question, patience } = attempt.fields()?;
        let until = match patience {
            Some(Period(patience)) => {
                let patience = TimeDelta::from_std(patience).unwrap_or(TimeDelta::MAX);
                attempt.began().await?.checked_add_signed(patience)
            }
            None => None,
        };
        // What everybody may read has no secrets in it.
        let question = attempt.masks.apply(&question).into_owned();
        Ok(Outcome::Deferred { wait: Wait { on: WaitFor::Person { question }, until } })
    }

    fn starts_programs(&self) -> bool {
        false
    }
}
