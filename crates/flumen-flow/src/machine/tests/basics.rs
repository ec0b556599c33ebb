//! A run from its start to its end.

use std::time::Duration;

use flumen_core::flow::{Wait, WaitFor};

use super::*;
use crate::machine::{Match, Retry};

#[test]
fn a_chain_goes_from_start_to_end() {
    let mut story = Story::queued(nodes("a, b < a, c < b"));
    story.expect("queued: a none, b none, c none");
    story.tell(Signal::Start).expect("running: a queued, b none, c none");
    story.claim("a").expect("running: a running, b none, c none");
    story.end("a", Outcome::success(json!({ "rows": 3 }))).expect("running: a success, b queued, c none");
    story.ok("b c").expect("success: a success, b success, c success");
    assert_eq!(story.run.output(&story.graph, "a"), Some(json!({ "rows": 3 })));
    assert_eq!(story.why("a"), "Task 'a' is success since 2021-01-01 00:00:02 UTC (5 s): it did what it should.");
}

#[test]
fn every_change_is_logged_with_its_cause() {
    let mut story = Story::of(nodes("a"));
    story.claim("a").fails("a");
    let mut story = Story::of(nodes("a"));
    story.claim("a");
    let mut lines = Vec::new();
    let failure = Failure { exit_code: Some(137), ..Failure::new("exit", "out of memory") };
    story.end("a", Outcome::Failure(failure));
    for action in &story.actions {
        if let Action::Log(event) = action {
            lines.push(format!("{:?} | {} | {}", event.change, event.cause, event.by));
        }
    }
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].contains("from: Running, to: Failed"), "{lines:?}");
    assert!(lines[0].ends_with("| exit code 137: out of memory | worker w1"), "{lines:?}");
    assert!(lines[1].ends_with("| task 'a' is failed: exit code 137: out of memory | scheduler"), "{lines:?}");
}

#[test]
fn an_empty_flow_succeeds() {
    Story::of(vec![]).expect("success: ");
    Story::queued(vec![]).cancel().expect("cancelled: ");
}

#[test]
fn what_comes_twice_or_too_late_is_refused() {
    let mut story = Story::of(nodes("a, b < a"));
    story.tell(Signal::Start);
    assert!(story.refused());
    story.claim("a");
    let again = Signal::Claimed { key: Story::key("a"), number: 1, worker: "w1".into(), at: story.now };
    story.tell(again);
    assert!(story.refused());
    let lost = Outcome::Lost { worker: "w1".into(), cause: by("the lease of worker w1 expired 31 s ago") };
    story.end("a", lost.clone()).expect("running: a queued, b none");
    assert_eq!(story.task("a").cause, "the lease of worker w1 expired 31 s ago");
    story.claim("a");
    let late = Signal::Ended { key: Story::key("a"), number: 1, outcome: Outcome::success(json!(1)), at: story.now };
    story.tell(late).expect("running: a running, b none");
    assert!(story.refused());
    story.end("a", Outcome::success(json!(2))).expect("running: a success, b queued");
    story.end("a", lost).expect("running: a success, b queued");
    assert!(story.refused());
    story.tell(Signal::Claimed { key: Story::key("x"), number: 9, worker: "w1".into(), at: start() });
    assert!(story.refused());
    // A lease on what is not in the queue is stopped.
    story.tell(Signal::Claimed { key: Story::key("a"), number: 99, worker: "w2".into(), at: start() });
    assert_eq!(story.stops(), ["a: the task is success, and not in the queue"]);
}

fn retries(retries: u32) -> Retry {
    Retry { retries, delays: vec![Duration::from_secs(10)], ..Retry::default() }
}

#[test]
fn a_failure_is_tried_again() {
    let mut story = Story::of(with(nodes("a"), 0, |a| a.retry = retries(2)));
    story.fails("a").expect("running: a up_for_retry");
    let failed = story.now - TimeDelta::seconds(1);
    assert_eq!(story.task("a").due, Some(failed + TimeDelta::seconds(10)));
    assert_eq!(
        story.why("a"),
        "Task 'a' is up_for_retry since 2021-01-01 00:00:02 UTC (1 s): exit code 1: it broke; attempt 2 of 3 begins at \
         2021-01-01 00:00:12 UTC. Its timer rings at 2021-01-01 00:00:12 UTC."
    );
    story.due("a").expect("running: a queued");
    assert_eq!(story.task("a").attempt, 2);
    story.fails("a").due("a").fails("a").expect("failed: a failed");
    assert_eq!(story.task("a").attempt, 3);
    assert!(story.why("a").ends_with("it broke. That was attempt 3 of 3."), "{}", story.why("a"));
}

#[test]
fn a_timer_that_was_stopped_rings_in_vain() {
    let mut story = Story::of(with(nodes("a"), 0, |a| a.retry = retries(2)));
    story.fails("a");
    let due = Signal::Due { timer: Timer::Task(Story::key("a")), at: story.task("a").due.expect("a timer") };
    story.tell(due.clone()).expect("running: a queued").tell(due).expect("running: a queued");
    assert!(story.refused());
}

#[test]
fn what_is_not_worth_it_is_not_tried_again() {
    let lasting = Failure::lasting("invalid", "a wrong option");
    let exit = |code| Failure { exit_code: Some(code), ..Failure::new("exit", "it broke") };
    let policy = |on: &[&str], not_on: &[&str]| {
        let parse = |list: &[&str]| list.iter().map(|text| text.parse().expect("a match")).collect::<Vec<Match>>();
        Retry { on: parse(on), not_on: parse(not_on), ..retries(1) }
    };
    for (policy, failure, again) in [
        (policy(&[], &[]), lasting.clone(), false),
        (policy(&["invalid"], &[]), lasting, true),
        (policy(&[], &["exit"]), exit(1), false),
        (policy(&[], &["64-78", "2"]), exit(64), false),
        (policy(&[], &["64-78", "2"]), exit(2), false),
        (policy(&[], &["64-78", "2"]), exit(3), true),
        (policy(&["timeout"], &[]), exit(3), false),
        (policy(&["timeout", "3"], &["3"]), exit(3), false),
        (policy(&["timeout"], &[]), Failure::new("timeout", "slow"), true),
    ] {
        assert_eq!(policy.covers(&failure), again, "{policy:?} {failure:?}");
    }
    assert!("".parse::<Match>().is_err() && "9-1".parse::<Match>().is_err() && "1x".parse::<Match>().is_err());
    assert_eq!("64-78".parse::<Match>().expect("a match").to_string(), "64-78");
}

#[test]
fn delays_follow_the_formula() {
    let delay = |policy: &Retry, tried| policy.delay(tried, &"taxi".into(), &Story::key("load"), start());
    let seconds = |seconds: &[u64]| seconds.iter().map(|seconds| Duration::from_secs(*seconds)).collect::<Vec<_>>();
    let plain = Retry { delays: seconds(&[10]), ..Retry::default() };
    assert_eq!((1..=3).map(|tried| delay(&plain, tried).num_seconds()).collect::<Vec<_>>(), [10, 10, 10]);
    let list = Retry { delays: seconds(&[1, 5]), ..Retry::default() };
    assert_eq!((1..=3).map(|tried| delay(&list, tried).num_seconds()).collect::<Vec<_>>(), [1, 5, 5]);
    let max_delay = Duration::from_secs(60);
    let growing = Retry { delays: seconds(&[10]), factor: 2.0, max_delay, ..Retry::default() };
    assert_eq!((1..=5).map(|tried| delay(&growing, tried).num_seconds()).collect::<Vec<_>>(), [10, 20, 40, 60, 60]);
    assert_eq!(delay(&growing, u32::MAX).num_seconds(), 60);
    assert_eq!(delay(&Retry::default(), 1), TimeDelta::zero());

    // The same task run always waits as long; others wait otherwise.
    let jittered = Retry { jitter: 0.5, ..growing };
    let delays: Vec<i64> = (1..=4).map(|tried| delay(&jittered, tried).num_milliseconds()).collect();
    assert_eq!(delays, (1..=4).map(|tried| delay(&jittered, tried).num_milliseconds()).collect::<Vec<_>>());
    for (delay, plain) in delays.iter().zip([10_000, 20_000, 40_000, 60_000]) {
        assert!((plain..plain + plain / 2).contains(delay), "{delays:?}");
    }
    let other = jittered.delay(1, &"taxi".into(), &TaskKey::item("load", 0), start());
    assert_ne!(other, delay(&jittered, 1));
    let many: Vec<i64> = (0..1_000)
        .map(|index| jittered.delay(1, &"taxi".into(), &TaskKey::item("load", index), start()).num_milliseconds())
        .collect();
    let mean = many.iter().sum::<i64>() / 1_000;
    assert!((12_300..12_700).contains(&mean), "{mean}");
}

#[test]
fn lost_workers_cost_an_attempt_only_when_there_are_too_many() {
    let lost = || Outcome::Lost { worker: "w1".into(), cause: by("gone") };
    let mut story = Story::of(with(nodes("a"), 0, |a| a.retry = retries(1)));
    for _ in 0..3 {
        story.does("a", lost()).expect("running: a queued");
        assert_eq!(story.task("a").attempt, 1);
    }
    story.does("a", lost()).expect("running: a up_for_retry");
    story.due("a").expect("running: a queued");
    assert_eq!(story.task("a").attempt, 2);
    story.does("a", lost()).expect("failed: a failed");
    assert_eq!(story.task("a").cause, "gone; 5 workers were lost under it");

    let mut story = Story::of(with(nodes("a"), 0, |a| a.retry.infra = None));
    for _ in 0..50 {
        story.does("a", lost()).expect("running: a queued");
    }
    story.ok("a").expect("success: a success");
}

#[test]
fn a_slow_attempt_fails_with_a_timeout() {
    let slow = |a: &mut Node| {
        a.timeout = Some(Duration::from_secs(60));
        a.retry = Retry { on: vec!["timeout".parse().expect("a match")], ..retries(1) };
    };
    let mut story = Story::of(with(nodes("a"), 0, slow));
    story.claim("a");
    let claimed = story.task("a").since;
    assert_eq!(story.task("a").due, Some(claimed + TimeDelta::seconds(60)));
    story.due("a").expect("running: a running");
    assert_eq!(story.stops(), ["a: it took longer than 60 s"]);
    assert!(story.why("a").ends_with("Its worker was asked to stop it: it took longer than 60 s."));
    story.end("a", Outcome::Cancelled).expect("running: a up_for_retry");
    assert_eq!(story.task("a").failure.as_ref().expect("a failure").kind, "timeout");
    // One that was done in the end is done.
    story.due("a").claim("a").due("a").end("a", Outcome::success(json!(1))).expect("success: a success");
}

#[test]
fn a_sensor_looks_again_and_again_in_one_attempt() {
    let mut story = Story::of(with(nodes("a"), 0, |a| a.timeout = Some(Duration::from_secs(60))));
    story.claim("a");
    let began = story.task("a").began.expect("it began");
    for _ in 0..2 {
        let until = story.now + TimeDelta::seconds(20);
        story.end("a", Outcome::Rescheduled { until }).expect("running: a up_for_reschedule");
        assert_eq!(story.task("a").due, Some(until));
        story.due("a").expect("running: a queued").claim("a");
        assert_eq!((story.task("a").attempt, story.task("a").began), (1, Some(began)));
    }
    let until = story.now + TimeDelta::seconds(90);
    story.end("a", Outcome::Rescheduled { until });
    assert_eq!(story.task("a").due, Some(began + TimeDelta::seconds(60)));
    story.due("a").expect("failed: a failed");
    assert_eq!(story.task("a").failure.as_ref().expect("a failure").kind, "timeout");
}

#[test]
fn a_deferred_task_waits_without_a_worker() {
    let wait = |on, until| Outcome::Deferred { wait: Wait { on, until } };
    let mut story = Story::of(nodes("a, b < a"));
    let at = story.now + TimeDelta::seconds(100);
    story.does("a", wait(WaitFor::Time { at }, None)).expect("running: a deferred, b none");
    story.due("a").expect("running: a success, b queued");

    let other = WaitFor::Dataset { dataset: by("lake.raw.trips"), since: start() };
    let mut story = Story::of(nodes("a, b < a"));
    story.does("a", wait(other.clone(), Some(start() + TimeDelta::seconds(50)))).expect("running: a deferred, b none");
    assert!(story.actions.iter().any(|action| matches!(action, Action::Wait { number: 1, .. })));
    assert!(story.why("a").contains("waits for an update of lake.raw.trips. Its timer rings at 2021-01-01 00:00:50"));
    story.end("a", Outcome::success(Value::Null)).expect("running: a success, b queued");
    assert!(story.actions.iter().any(|action| matches!(action, Action::Unwait(_))));

    let mut story = Story::of(nodes("a"));
    story.does("a", wait(other, Some(start() + TimeDelta::seconds(50)))).due("a").expect("failed: a failed");
    assert_eq!(story.task("a").failure.as_ref().expect("a failure").kind, "timeout");
}

#[test]
fn a_person_says_yes_or_no() {
    let asks = || Outcome::Deferred { wait: Wait { on: WaitFor::Person { question: by("go?") }, until: None } };
    let answer = |yes| Signal::Approve { key: Story::key("a"), yes, by: by("ann"), note: by("looks fine") };
    let mut story = Story::of(nodes("a, b < a"));
    story.tell(answer(true));
    assert!(story.refused());
    story.does("a", asks()).expect("running: a paused, b none");
    story.tell(answer(true)).expect("running: a success, b queued");
    assert_eq!(story.task("a").output, Some(json!({ "approved": true, "by": "ann", "note": "looks fine" })));
    let mut story = Story::of(with(nodes("a, b < a"), 0, |a| a.retry = retries(3)));
    story.does("a", asks()).tell(answer(false)).expect("failed: a failed, b upstream_failed");
    assert_eq!(story.task("a").cause, "ann refused it: looks fine");
}

#[test]
fn questions_are_asked_one_after_the_other() {
    let asking = |a: &mut Node| {
        a.when = true;
        a.depends_on_past = true;
    };
    let mut story = Story::of(with(nodes("a, b < a"), 0, asking));
    story.expect("running: a scheduled, b none");
    assert_eq!(story.run.questions().map(|(_, ask)| ask).collect::<Vec<_>>(), [flumen_core::flow::Ask::Past]);
    story.answer("a", Answer::Past { done: false }).expect("running: a scheduled, b none");
    assert!(story.why("a").ends_with(": it waits for itself in the run before this one."), "{}", story.why("a"));
    story.tell(Signal::PastDone { task: "a".into() }).expect("running: a scheduled, b none");
    assert_eq!(story.run.questions().map(|(_, ask)| ask).collect::<Vec<_>>(), [flumen_core::flow::Ask::When]);
    story.answer("a", Answer::Past { done: true });
    assert!(story.refused());
    story.answer("a", Answer::When { holds: true }).expect("running: a queued, b none");
    story.ok("a");
    assert!(story.actions.iter().any(|action| matches!(action, Action::TellNext(_))));

    let mut story = Story::of(with(nodes("a, b < a"), 0, |a| a.when = true));
    story.answer("a", Answer::When { holds: false }).expect("success: a skipped, b skipped");
    assert_eq!(story.task("a").cause, "its condition does not hold");
    let mut story = Story::of(with(nodes("a, b < a"), 0, |a| a.when = true));
    story.answer("a", Answer::Failed { message: by("no such name") }).expect("failed: a failed, b upstream_failed");
}

#[test]
fn a_branch_goes_one_way() {
    let flow = || with(nodes("a, b < a, c < a, d < b, e < a b c none_failed_min_one_success"), 0, |a| a.branch = true);
    Story::of(flow())
        .does("a", Outcome::success(json!("b")))
        .expect("running: a success, b queued, c skipped, d none, e none")
        .ok("b d e")
        .expect("success: a success, b success, c skipped, d success, e success");
    Story::of(flow())
        .does("a", Outcome::success(json!([])))
        .expect("success: a success, b skipped, c skipped, d skipped, e skipped");
    Story::of(flow())
        .does("a", Outcome::success(json!({ "branch": ["b", "c"] })))
        .expect("running: a success, b queued, c queued, d none, e none");
    let mut story = Story::of(flow());
    story.does("a", Outcome::success(json!("d")));
    assert_eq!(story.task("a").cause, "no task 'd' needs this one");
    story.expect("failed: a failed, b upstream_failed, c upstream_failed, d upstream_failed, e upstream_failed");
    // Where the way not taken is done again, it is skipped again.
    let mut story = Story::of(flow());
    story.does("a", Outcome::success(json!("b"))).clear("c", false);
    story.expect("running: a success, b queued, c skipped, d none, e none");
    assert_eq!(story.task("c").cause, "branch 'a' went another way");
}

#[test]
fn a_teardown_runs_whatever_happened_in_between() {
    let flow = || with(nodes("s, w < s, t < w"), 2, |t| t.tears_down = vec![0]);
    Story::of(flow())
        .ok("s")
        .fails("w")
        .expect("running: s success, w failed, t queued")
        .ok("t")
        .expect("failed: s success, w failed, t success");
    // It is no leaf.
    Story::of(flow()).ok("s w").fails("t").expect("success: s success, w success, t failed");
    Story::of(flow()).fails("s").expect("failed: s failed, w upstream_failed, t upstream_failed");
}

#[test]
fn a_run_that_is_late_before_it_begins_is_told_of_once() {
    let mut story = Story::queued(nodes("a"));
    story.graph.late = Some(Duration::from_secs(5));
    story.tell(Signal::Due { timer: Timer::Late, at: start() + TimeDelta::seconds(5) });
    assert_eq!(story.occasions(), [Occasion::RunLate]);
    story.now = start() + TimeDelta::seconds(9);
    story.tell(Signal::Start);
    assert!(!story.actions.iter().any(|action| matches!(action, Action::SetTimer(..))), "{:?}", story.actions);
}

#[test]
fn hooks_tell_whoever_wants_to_know() {
    let all = crate::machine::Hooks { failure: true, success: true, retry: true };
    let hooked = |a: &mut Node| {
        a.hooks = all;
        a.retry = retries(1);
    };
    let mut story = Story::queued(with(nodes("a"), 0, hooked));
    story.graph.hooks = all;
    story.graph.late = Some(Duration::from_secs(5));
    story.graph.long = Some(Duration::from_secs(7));
    story.tell(Signal::Start);
    let timers: Vec<Action> =
        story.actions.iter().filter(|action| matches!(action, Action::SetTimer(..))).cloned().collect();
    let set = |timer, seconds| Action::SetTimer(timer, start() + TimeDelta::seconds(seconds));
    assert_eq!(timers, [set(Timer::Late, 5), set(Timer::Long, 8)]);
    story.tell(Signal::Due { timer: Timer::Late, at: start() + TimeDelta::seconds(5) });
    assert_eq!(story.occasions(), [Occasion::RunLate]);
    story.fails("a");
    let key = Story::key("a");
    assert_eq!(story.occasions(), [Occasion::TaskRetries { key: key.clone(), attempt: 1 }]);
    story.due("a").fails("a");
    assert_eq!(story.occasions(), [Occasion::TaskFailed { key: key.clone() }, Occasion::RunFailed]);
    story.tell(Signal::Due { timer: Timer::Long, at: start() });
    assert_eq!(story.occasions(), []);
    story.clear("a", true).ok("a");
    assert_eq!(story.occasions(), [Occasion::TaskSucceeded { key }, Occasion::RunSucceeded]);
}

#[test]
fn a_flow_that_goes_in_a_circle_is_refused() {
    let circle = vec![Node::new("a", [1]), Node::new("b", [0])];
    assert!(Graph::new("x", circle).expect_err("a circle").message().contains("circle"));
    assert!(Graph::new("x", vec![Node::new("a", []), Node::new("a", [])]).is_err());
    assert!(Graph::new("x", vec![Node::new("a", [7])]).is_err());
    assert!(Graph::new("x", vec![Node::new("a", [0])]).is_err());
}

#[test]
fn a_timer_is_as_precise_as_stores_keep_it() {
    let retried = |a: &mut Node| {
        a.retry = retries(1);
        a.timeout = Some(Duration::from_nanos(1_500_000_001));
    };
    let mut story = Story::of(with(nodes("a"), 0, retried));
    story.now += TimeDelta::nanoseconds(123);
    story.claim("a").fails("a").expect("running: a up_for_retry");
    let due = story.task("a").due.expect("a timer");
    assert_eq!(due.timestamp_subsec_nanos() % 1_000, 0);
    story.tell(Signal::Due { timer: Timer::Task(Story::key("a")), at: due });
    story.expect("running: a queued");
}

#[test]
fn an_output_that_is_used_again_is_a_success_that_says_so() {
    let mut story = Story::of(nodes("a, b < a"));
    let cause = by("used the output of run 7 from 2 h ago");
    story.does("a", Outcome::Reused { output: json!(3), cause: cause.clone() });
    story.expect("running: a success, b queued");
    assert_eq!((story.task("a").output.clone(), &story.task("a").cause), (Some(json!(3)), &cause));
    assert!(!story.actions.iter().any(|action| matches!(action, Action::Touch(_))), "nothing was read or written");
}
