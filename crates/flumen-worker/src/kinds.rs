//! The kinds of tasks: what a task of each takes, and how it runs. A new one costs its own file and a line in [`all`].

mod empty;
mod shell;

use std::sync::Arc;

use async_trait::async_trait;
use flumen_core::Result;
use flumen_core::flow::Outcome;
use flumen_core::task_kind::{Kinds, TaskKind};

use crate::attempt::Attempt;

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
    vec![Arc::new(empty::Empty), Arc::new(shell::Shell)]
}

/// All of them as far as a flow's checker has to know them.
pub fn known() -> Kinds {
    Kinds::new(all().into_iter().map(|kind| kind as Arc<dyn TaskKind>))
}
