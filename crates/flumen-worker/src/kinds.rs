//! The kinds of tasks: what a task of each takes, and how it runs. A new one costs its own file and a line in [`all`].

pub mod check;
mod empty;
pub mod export;
pub mod ingest;
pub mod lake;
mod shell;
pub mod sql;

use std::sync::Arc;

use async_trait::async_trait;
use flumen_core::flow::Outcome;
use flumen_core::task_kind::{Kinds, TaskKind};
use flumen_core::{Error, Result};

use serde_json::Value;

use crate::attempt::{Attempt, OwnProcess};

/// A kind of tasks that can run.
#[async_trait]
pub trait Kind: TaskKind {
    /// Does what a task says, once. It stops soon after `attempt.cancel` is cancelled; what it answers then does not matter.
    ///
    /// Errors: whatever went wrong; it becomes the failure of the attempt, whose kind is that of the error.
    async fn run(&self, attempt: &Attempt<'_>) -> Result<Outcome>;

    /// Whether it starts programs: only then an attempt has a folder, and environment variables.
    fn starts_programs(&self) -> bool {
        true
    }
}

/// All of them.
pub fn all() -> Vec<Arc<dyn Kind>> {
    vec![
        Arc::new(check::Check),
        Arc::new(empty::Empty),
        Arc::new(export::Export),
        Arc::new(ingest::Ingest),
        Arc::new(lake::Lake),
        Arc::new(shell::Shell),
        Arc::new(sql::Sql),
    ]
}

/// All of them as far as a flow's checker has to know them.
pub fn known() -> Kinds {
    Kinds::new(all().into_iter().map(|kind| kind as Arc<dyn TaskKind>))
}

/// Runs a task in a process of its own. Where its fields name a file in `file`, the text of it, rendered, takes its place in
/// `text`.
async fn run_in_own_process(attempt: &Attempt<'_>, file: Option<(&str, &str)>) -> Result<Outcome> {
    let mut config = attempt.config.clone();
    if let (Some((file, text)), Some(fields)) = (file, config.as_object_mut())
        && let Some(name) = fields.remove(file)
    {
        let name = name.as_str().unwrap_or_default().to_owned();
        fields.insert(text.to_owned(), Value::from(attempt.file_text(&name)?));
    }
    Ok(match attempt.in_own_process(config).await? {
        OwnProcess::Done(done) => Outcome::Success { output: done.output, reads: done.reads, writes: done.writes },
        OwnProcess::Ended(ended) => attempt.ended_badly(ended),
    })
}

/// A kind whose tasks run in processes of their own: of the same program, which knows how.
macro_rules! own_process {
    ($kind:ty $(, $file:literal => $text:literal)?) => {
        #[async_trait::async_trait]
        impl super::Kind for $kind {
            async fn run(
                &self,
                attempt: &crate::attempt::Attempt<'_>,
            ) -> flumen_core::Result<flumen_core::flow::Outcome> {
                let files: &[(&str, &str)] = &[$(($file, $text))?];
                super::run_in_own_process(attempt, files.first().copied()).await
            }
        }
    };
}

use own_process;

impl Attempt<'_> {
    /// The text of a file of the flow, rendered.
    ///
    /// Errors: `NotFound`; those of the template.
    pub fn file_text(&self, name: &str) -> Result<String> {
        let bytes = match self.version.files.get(name) {
            Some(bytes) => bytes.to_vec(),
            // Its name was a template: it is not among those that the run keeps.
            None => {
                let path = self.host.project.dir().join(name);
                std::fs::read(&path).map_err(|error| Error::io(path.display(), error))?
            }
        };
        let text = String::from_utf8(bytes)
            .map_err(|error| Error::invalid(format!("{name}: this file is not UTF-8 text")).caused_by(error))?;
        Ok(self.renderer.text(name, &text)?.value)
    }
}
