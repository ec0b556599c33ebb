//! The table of trigger rules, against the documentation's own words for it.

use flumen_core::flow::TriggerRule;

use super::*;
use crate::machine::rule::{Counts, Verdict, judge, judge_teardown};

/// The table as it is documented: when a task runs, becomes upstream_failed, becomes skipped. A failure is told before a skip.
const TABLE: &[(&str, &str, &str, &str)] = &[
    ("all_success", "s = n", "f+u > 0", "k > 0"),
    ("all_failed", "f+u = n", "", "s+k > 0"),
    ("all_done", "done", "", ""),
    ("all_done_min_one_success", "done & k = 0 & s > 0", "done & s = 0 & k = 0", "k > 0"),
    ("one_success", "s > 0", "done & s = 0 & k < n", "done & k = n"),
    ("one_failed", "f+u > 0", "", "done & f+u = 0"),
    ("one_done", "s+f > 0", "", "done & s+f = 0"),
    ("none_failed", "s+k = n", "f+u > 0", ""),
    ("none_failed_min_one_success", "s+k = n & k < n", "f+u > 0", "k = n"),
    ("none_skipped", "done & k = 0", "", "k > 0"),
    ("all_skipped", "k = n", "", "s+f+u > 0"),
    ("always", "always", "", ""),
];

/// Whether a condition of the table holds for these states.
fn holds(condition: &str, states: &[TaskState]) -> bool {
    let count = |letter: &str| -> usize {
        let belongs = |state: &&TaskState| match letter {
            "s" => matches!(state, TaskState::Success | TaskState::Removed),
            "k" => matches!(state, TaskState::Skipped),
            "f" => matches!(state, TaskState::Failed | TaskState::Cancelled),
            "u" => matches!(state, TaskState::UpstreamFailed),
            "n" => true,
            other => panic!("{other}"),
        };
        states.iter().filter(belongs).count()
    };
    let value = |text: &str| text.parse().unwrap_or_else(|_| text.split('+').map(count).sum::<usize>());
    let one = |part: &str| match part.split_whitespace().collect::<Vec<_>>().as_slice() {
        ["always"] => true,
        ["done"] => states.iter().all(|state| state.is_terminal()),
        [left, "=", right] => value(left) == value(right),
        [left, "<", right] => value(left) < value(right),
        [left, ">", right] => value(left) > value(right),
        other => panic!("{other:?}"),
    };
    !condition.is_empty() && condition.split('&').all(|part| one(part.trim()))
}

/// Every combination of `count` states.
fn combinations(count: usize) -> Vec<Vec<TaskState>> {
    let mut all = vec![Vec::new()];
    for _ in 0..count {
        all = all
            .into_iter()
            .flat_map(|states| {
                TaskState::ALL.iter().map(move |state| {
                    let mut more = states.clone();
                    more.push(*state);
                    more
                })
            })
            .collect();
    }
    all
}

#[test]
fn the_table_holds_for_every_combination_of_states() {
    assert_eq!(TABLE.len(), TriggerRule::ALL.len());
    for (name, runs, fails, skips) in TABLE {
        let rule: TriggerRule = name.parse().expect("a rule");
        for count in 0..=3 {
            for states in combinations(count) {
                let mut counts = Counts::default();
                for state in &states {
                    counts.shift(TaskState::None, *state);
                }
                let expected = if count == 0 || holds(runs, &states) {
                    Verdict::Run
                } else if holds(fails, &states) {
                    Verdict::UpstreamFailed
                } else if holds(skips, &states) {
                    Verdict::Skip
                } else {
                    Verdict::Wait
                };
                assert_eq!(judge(rule, count as u32, &counts), expected, "{name} of {states:?}");
            }
        }
    }
}

#[test]
fn every_rule_decides_once_all_is_done() {
    for rule in TriggerRule::ALL {
        for states in combinations(2).into_iter().filter(|states| states.iter().all(|state| state.is_terminal())) {
            let mut counts = Counts::default();
            states.iter().for_each(|state| counts.shift(TaskState::Running, *state));
            assert_ne!(judge(*rule, 2, &counts), Verdict::Wait, "{rule} of {states:?}");
        }
    }
}

#[test]
fn a_teardown_follows_what_was_set_up() {
    use TaskState::{Failed, Skipped, Success};
    for (setups, expected) in [
        (vec![Success], Verdict::Run),
        (vec![Failed, Success], Verdict::Run),
        (vec![Failed, Skipped], Verdict::UpstreamFailed),
        (vec![Skipped], Verdict::Skip),
    ] {
        let mut counts = Counts::default();
        setups.iter().for_each(|state| counts.shift(TaskState::None, *state));
        let all = setups.len() as u32;
        assert_eq!(judge_teardown(all, &counts, setups.clone()), expected, "{setups:?}");
        assert_eq!(judge_teardown(all + 1, &counts, setups), Verdict::Wait);
    }
}

#[test]
fn a_task_leaves_a_run_by_its_rule() {
    Story::of(nodes("a, b, c < a b one_success, d < a b, e < a b none_failed"))
        .ok("a")
        .expect("running: a success, b queued, c queued, d none, e none")
        .fails("b")
        .expect("running: a success, b failed, c queued, d upstream_failed, e upstream_failed");
}
