//! Kinds whose tasks run in processes of their own: of the same program, which knows how.

use flumen_core::Result;
use flumen_core::flow::Outcome;
use serde_json::Value;

use crate::attempt::{Attempt, OwnProcess};
use crate::execute::render_file;

/// Runs a task in a process of its own. Where its fields name a file in `file`, the text of it, rendered, takes its place in
/// `text`.
pub(super) async fn run_in_own_process(attempt: &Attempt<'_>, file: Option<(&str, &str)>) -> Result<Outcome> {
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
                super::own_process::run_in_own_process(attempt, files.first().copied()).await
            }
        }
    };
}

pub(super) use own_process;

impl Attempt<'_> {
    /// The text of a file of the flow, rendered.
    ///
    /// Errors: `NotFound`; those of the template.
    pub fn file_text(&self, name: &str) -> Result<String> {
        Ok(render_file(self.version, self.host.project.dir(), self.renderer, name)?.value)
    }
}
