//! The states of runs and task runs, and the rules by which a task looks at those before it.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $what:literal { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The word for it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                Self::ALL.iter().copied().find(|one| one.name() == text).ok_or_else(|| {
                    Error::invalid(format!("'{text}' is not {}", $what))
                        .did_you_mean(text, Self::ALL.iter().map(|one| one.name()))
                })
            }
        }
    };
}

words! {
    /// Where a task run is.
    TaskState, "the state of a task run" {
        /// Tasks before it are not done.
        None = "none",
        /// Nothing before it holds it back; something else does: a question, a limit, a paused run.
        Scheduled = "scheduled",
        /// In the queue of its pool.
        Queued = "queued",
        /// A worker has it. Of a task that runs for each of a list: some of its items are not done.
        Running = "running",
        /// Done.
        Success = "success",
        /// Failed, and not tried again.
        Failed = "failed",
        /// Not to be done.
        Skipped = "skipped",
        /// Cannot be done, since a task before it was not.
        UpstreamFailed = "upstream_failed",
        /// Failed, and waiting for its next attempt.
        UpForRetry = "up_for_retry",
        /// A sensor, between two looks.
        UpForReschedule = "up_for_reschedule",
        /// Waiting for something outside, without a worker.
        Deferred = "deferred",
        /// An item of a list that has become shorter.
        Removed = "removed",
        /// Ended because somebody asked for it.
        Cancelled = "cancelled",
        /// Waiting for a person.
        Paused = "paused",
    }
}

impl TaskState {
    /// Whether nothing follows, unless a person asks for it.
    pub fn is_terminal(self) -> bool {
        use TaskState as S;
        matches!(self, S::Success | S::Failed | S::Skipped | S::UpstreamFailed | S::Removed | S::Cancelled)
    }
}

words! {
    /// Where a run is.
    RunState, "the state of a run" {
        /// Not begun: other runs come first.
        Queued = "queued",
        /// Begun, and not done.
        Running = "running",
        /// Every last task is done or skipped.
        Success = "success",
        /// A last task failed, or could not be done.
        Failed = "failed",
        /// Ended because somebody asked for it.
        Cancelled = "cancelled",
        /// Begun; nothing more starts until somebody resumes it.
        Paused = "paused",
    }
}

impl RunState {
    /// Whether nothing follows, unless a person asks for it.
    pub fn is_terminal(self) -> bool {
        matches!(self, RunState::Success | RunState::Failed | RunState::Cancelled)
    }
}

words! {
    /// What a task makes of the states of the tasks that it needs. `docs/flows.md` has the table.
    TriggerRule, "a trigger rule" {
        /// All succeeded.
        AllSuccess = "all_success",
        /// All failed, or could not be done.
        AllFailed = "all_failed",
        /// All are done, however.
        AllDone = "all_done",
        /// All are done, none was skipped, and one succeeded.
        AllDoneMinOneSuccess = "all_done_min_one_success",
        /// One succeeded; the others are not waited for.
        OneSuccess = "one_success",
        /// One failed; the others are not waited for.
        OneFailed = "one_failed",
        /// One succeeded or failed; the others are not waited for.
        OneDone = "one_done",
        /// All succeeded or were skipped.
        NoneFailed = "none_failed",
        /// All succeeded or were skipped, and one succeeded.
        NoneFailedMinOneSuccess = "none_failed_min_one_success",
        /// All are done, and none was skipped.
        NoneSkipped = "none_skipped",
        /// All were skipped.
        AllSkipped = "all_skipped",
        /// Whatever they do; nothing is waited for.
        Always = "always",
    }
}

#[allow(clippy::derivable_impls, reason = "only one of the enums that the macro makes has a default")]
impl Default for TriggerRule {
    fn default() -> Self {
        Self::AllSuccess
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_the_same_everywhere() {
        for state in TaskState::ALL {
            assert_eq!(serde_json::to_value(state).expect("text"), state.name());
            assert_eq!(state.name().parse::<TaskState>().expect("a state"), *state);
        }
        for rule in TriggerRule::ALL {
            assert_eq!(serde_json::to_value(rule).expect("text"), rule.name());
        }
        assert_eq!(TriggerRule::ALL.len(), 12);
        let error = "all_succes".parse::<TriggerRule>().expect_err("wrong");
        assert_eq!(error.remedy(), Some("did you mean 'all_success'?"));
    }
}
