//! `shell`: a command, as one would type it.

use std::ffi::OsString;

use async_trait::async_trait;
use flumen_core::Result;
use flumen_core::flow::{Failure, Outcome};
use flumen_core::task_kind::{TaskKind, schema_of};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{Kind, NOTHING_TO_DO, program_output};
use crate::attempt::Attempt;
use crate::process::{Ended, Program};

/// The kind `shell`.
#[derive(Debug)]
pub struct Shell;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Fields {
    /// The command, with everything that a shell understands.
    command: String,
    /// The program that reads it: `sh` by default; it is given `-c` and the command. With `bash`, `-euo pipefail` too.
    shell: Option<String>,
    /// What the command reads as its standard input.
    input: Option<String>,
}

impl TaskKind for Shell {
    fn name(&self) -> &'static str {
        "shell"
    }

    fn about(&self) -> &'static str {
        "Runs a command. Its output is what it writes into the file $FLUMEN_OUTPUT, else the last line that it prints."
    }

    fn schema(&self) -> Value {
        schema_of::<Fields>()
    }

    fn bare_field(&self) -> Option<&'static str> {
        Some("command")
    }
}

#[async_trait]
impl Kind for Shell {
    async fn run(&self, attempt: &Attempt<'_>) -> Result<Outcome> {
        let Fields { command, shell, input } = attempt.fields()?;
        let shell = shell.unwrap_or_else(|| "sh".to_owned());
        let is_bash = shell.rsplit('/').next() == Some("bash");
        let mut arguments: Vec<OsString> = if is_bash { vec!["-euo".into(), "pipefail".into()] } else { Vec::new() };
        arguments.extend(["-c".into(), command.into()]);
        let program = Program {
            program: shell.into(),
            arguments,
            folder: attempt.scratch.to_owned(),
            environment: attempt.environment.clone(),
            input: input.map(String::into_bytes),
            memory_bytes: attempt.memory_bytes(),
        };
        let log = attempt.last_line();
        let ended = attempt.watched(&log).program(&program).await?;
        Ok(match ended {
            Ended::Exited(0) => Outcome::success(program_output(attempt, log.take())?),
            Ended::Exited(NOTHING_TO_DO) => {
                Outcome::Skipped { cause: format!("exit code {NOTHING_TO_DO}: there was nothing to do") }
            }
            ended => attempt.ended_badly(ended),
        })
    }
}

impl Attempt<'_> {
    /// The failure of a program that did not end well.
    pub fn ended_badly(&self, ended: Ended) -> Outcome {
        let failure = match ended {
            Ended::Exited(code) => Failure { exit_code: Some(code), ..Failure::new("exit", "the command failed") },
            Ended::Signalled(9) if self.memory_bytes().is_some() => Failure {
                exit_code: Some(137),
                ..Failure::new("out_of_memory", "the program was killed (signal 9): most likely it ran out of memory")
            },
            Ended::Signalled(signal) => Failure {
                exit_code: Some(128 + signal),
                ..Failure::new("exit", format!("the program was ended by signal {signal}"))
            },
            Ended::TimedOut => Failure::new(flumen_core::flow::outcome::TIMEOUT, "it took too long"),
            Ended::Cancelled => return Outcome::Cancelled,
        };
        Outcome::Failure(failure)
    }
}
