//! The table of trigger rules: what a task makes of the states of the tasks that it needs.

use flumen_core::flow::{TaskState, TriggerRule};

/// How many of the tasks that a task needs are done, and how. `cancelled` counts as failed, `removed` as a success.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Succeeded.
    pub success: u32,
    /// Skipped.
    pub skipped: u32,
    /// Failed.
    pub failed: u32,
    /// Not possible, since one before them failed.
    pub upstream_failed: u32,
}

impl Counts {
    /// The count to which `state` belongs; none where it is not terminal.
    pub fn of(&mut self, state: TaskState) -> Option<&mut u32> {
        match state {
            TaskState::Success | TaskState::Removed => Some(&mut self.success),
            TaskState::Skipped => Some(&mut self.skipped),
            TaskState::Failed | TaskState::Cancelled => Some(&mut self.failed),
            TaskState::UpstreamFailed => Some(&mut self.upstream_failed),
            _ => None,
        }
    }

    /// Counts one that went from one state to another.
    pub fn shift(&mut self, from: TaskState, to: TaskState) {
        if let Some(count) = self.of(from) {
            *count -= 1;
        }
        if let Some(count) = self.of(to) {
            *count += 1;
        }
    }

    /// All that are done.
    pub fn done(&self) -> u32 {
        self.success + self.skipped + self.failed + self.upstream_failed
    }
}

/// What a rule says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Not yet.
    Wait,
    /// Run it.
    Run,
    /// It is skipped.
    Skip,
    /// It cannot run.
    UpstreamFailed,
}

/// What `rule` says of a task that needs `all` tasks, of which `counts` are done.
pub fn judge(rule: TriggerRule, all: u32, counts: &Counts) -> Verdict {
    use TriggerRule as R;
    use Verdict::{Run, Skip, UpstreamFailed, Wait};
    let Counts { success: s, skipped: k, failed: f, upstream_failed: u } = *counts;
    let done = counts.done() == all;
    let first =
        |choices: &[(bool, Verdict)]| choices.iter().find(|(holds, _)| *holds).map_or(Wait, |(_, verdict)| *verdict);
    if all == 0 {
        return Run;
    }
    match rule {
        R::AllSuccess => first(&[(f + u > 0, UpstreamFailed), (k > 0, Skip), (s == all, Run)]),
        R::AllFailed => first(&[(s + k > 0, Skip), (f + u == all, Run)]),
        R::AllDone => first(&[(done, Run)]),
        R::AllDoneMinOneSuccess => first(&[(k > 0, Skip), (done && s == 0, UpstreamFailed), (done, Run)]),
        R::OneSuccess => first(&[(s > 0, Run), (k == all, Skip), (done, UpstreamFailed)]),
        R::OneFailed => first(&[(f + u > 0, Run), (done, Skip)]),
        R::OneDone => first(&[(s + f > 0, Run), (done, Skip)]),
        R::NoneFailed => first(&[(f + u > 0, UpstreamFailed), (done, Run)]),
        R::NoneFailedMinOneSuccess => first(&[(f + u > 0, UpstreamFailed), (k == all, Skip), (done, Run)]),
        R::NoneSkipped => first(&[(k > 0, Skip), (done, Run)]),
        R::AllSkipped => first(&[(s + f + u > 0, Skip), (k == all, Run)]),
        R::Always => Run,
    }
}

/// What a task that tears down says: it runs once all before it is done and something was set up.
pub fn judge_teardown(all: u32, counts: &Counts, setups: impl IntoIterator<Item = TaskState>) -> Verdict {
    if counts.done() < all {
        return Verdict::Wait;
    }
    let mut skipped = true;
    for setup in setups {
        if setup == TaskState::Success {
            return Verdict::Run;
        }
        skipped &= setup == TaskState::Skipped;
    }
    if skipped { Verdict::Skip } else { Verdict::UpstreamFailed }
}
