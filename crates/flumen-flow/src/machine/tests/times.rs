//! Runs and tasks that take too long.

use std::time::Duration;

use super::*;

const HOUR: Duration = Duration::from_secs(3_600);

/// A run that may take an hour.
fn limited(nodes: Vec<Node>) -> Story {
    let mut story = Story::queued(nodes);
    story.graph.timeout = Some(HOUR);
    story.tell(Signal::Start);
    story
}

#[test]
fn a_run_that_takes_too_long_is_stopped_as_failed() {
    let mut story = limited(with(nodes("a, b, c < a, d < a b always, e"), 4, |e| e.retry.retries = 3));
    story.claim("a").fails("e").expect("running: a running, b queued, c none, d queued, e up_for_retry");
    assert_eq!(story.run.record().stop_at, Some(start() + TimeDelta::seconds(3_601)));
    story.time_out().expect("running: a running, b upstream_failed, c upstream_failed, d upstream_failed, e failed");
    assert_eq!(story.stops(), ["a: the run took longer than 1h"]);
    assert!(story.actions.contains(&Action::Dequeue(Story::key("b"))));
    assert_eq!(story.task("b").cause, "not begun: the run took longer than 1h");
    assert_eq!(story.task("e").failure.as_ref().map(|failure| failure.kind.as_str()), Some("timeout"));
    story
        .end("a", Outcome::Cancelled)
        .expect("failed: a failed, b upstream_failed, c upstream_failed, d upstream_failed, e failed");
    assert_eq!(story.run.record().cause, "the run took longer than 1h");
    assert_eq!(story.task("a").failure.as_ref().map(|failure| failure.kind.as_str()), Some("timeout"));
}

#[test]
fn a_run_that_ends_in_time_stops_its_timer() {
    let mut story = limited(nodes("a"));
    let at = story.run.record().stop_at.expect("a timer");
    assert!(story.actions.contains(&Action::SetTimer(Timer::Timeout, at)));
    story.ok("a").expect("success: a success");
    assert!(story.actions.contains(&Action::StopTimer(Timer::Timeout)));
    story.tell(Signal::Due { timer: Timer::Timeout, at }).expect("success: a success");
    assert!(story.refused());
}

#[test]
fn what_was_set_up_is_torn_down_when_time_is_over() {
    let flow = || with(nodes("s, w < s, t < w"), 2, |t| t.tears_down = vec![0]);
    let mut story = limited(flow());
    story.ok("s").claim("w").time_out().expect("running: s success, w running, t none");
    story.end("w", Outcome::Lost { worker: "w1".into(), cause: by("gone") });
    story.expect("running: s success, w failed, t queued").ok("t");
    story.expect("failed: s success, w failed, t success");
    // Before anything was set up, there is nothing to tear down.
    limited(flow()).time_out().expect("failed: s upstream_failed, w upstream_failed, t upstream_failed");
    // Teardown alone is not what takes too long.
    let mut story = limited(flow());
    story.ok("s w").claim("t").time_out().expect("running: s success, w success, t running");
    story.end("t", Outcome::success(Value::Null)).expect("success: s success, w success, t success");
}

#[test]
fn what_was_done_when_time_was_over_counts() {
    let mut story = limited(nodes("a"));
    story.claim("a").time_out().end("a", Outcome::success(json!(1))).expect("success: a success");
    let mut story = limited(nodes("a, b < a all_done"));
    story.claim("a").time_out().end("a", Outcome::Cancelled).expect("failed: a failed, b upstream_failed");
}

#[test]
fn a_failure_that_no_leaf_minds_still_fails_a_run_that_took_too_long() {
    let mut story = limited(nodes("a, b < a always"));
    story.ok("b").claim("a").time_out().end("a", Outcome::Cancelled).expect("failed: a failed, b success");
    story.mark("a", TaskState::Success).expect("success: a success, b success");
}

#[test]
fn a_run_that_took_too_long_gets_its_time_again() {
    let mut story = limited(nodes("a, b < a, c"));
    story.ok("c").claim("a").time_out().end("a", Outcome::Cancelled);
    story.expect("failed: a failed, b upstream_failed, c success");
    story.now += TimeDelta::days(1);
    story.tell(Signal::Retry { by: by("ann") }).expect("running: a queued, b none, c success");
    assert_eq!(story.run.record().stop_at, Some(story.now + TimeDelta::hours(1)));
    story.claim("a").time_out().end("a", Outcome::Cancelled).expect("failed: a failed, b upstream_failed, c success");
    story.clear("a", true).ok("a b").expect("success: a success, b success, c success");
    // Of a run that goes on anyway, a clear gives no more time.
    let mut story = limited(nodes("a, b < a"));
    let at = story.run.record().stop_at;
    story.ok("a").clear("a", true);
    assert_eq!(story.run.record().stop_at, at);
}

#[test]
fn a_clear_undoes_the_end_of_a_run_that_took_too_long() {
    let mut story = limited(nodes("a, b"));
    story.claim("a").time_out().expect("running: a running, b upstream_failed");
    story.clear("b", false).expect("running: a running, b queued");
    assert!(!story.run.record().timed_out);
    story.end("a", Outcome::Cancelled).ok("b").expect("failed: a failed, b success");
    assert_eq!(story.task("a").cause, "the run took longer than 1h");
}

#[test]
fn time_goes_on_while_a_run_is_paused() {
    let mut story = limited(nodes("a, b < a"));
    story.claim("a").tell(Signal::Pause { by: by("ann") }).time_out().expect("running: a running, b upstream_failed");
    story.end("a", Outcome::Cancelled).expect("failed: a failed, b upstream_failed");
}

#[test]
fn a_cancel_is_not_undone_when_time_is_over_nor_the_other_way_round() {
    let mut story = limited(nodes("a, b"));
    story.claim("a").cancel().time_out().end("a", Outcome::Cancelled).expect("cancelled: a cancelled, b cancelled");
    let flow = with(nodes("s, w < s, t < w"), 2, |t| t.tears_down = vec![0]);
    let mut story = limited(flow);
    story.ok("s").claim("w").time_out().cancel().expect("running: s success, w running, t cancelled");
    story.end("w", Outcome::Cancelled).expect("failed: s success, w cancelled, t cancelled");
}

#[test]
fn items_are_stopped_with_the_run() {
    let map = crate::machine::Map { by_worker: false, at_once: Some(2), limit: None };
    let mut story = limited(with(nodes("a, b < a"), 0, |a| a.map = Some(map)));
    story.answer("a", Answer::Items { items: vec![json!(1), json!(2), json!(3)] });
    story.ok("a[0]").claim("a[1]").time_out();
    story.expect("running: a running, a[0] success, a[1] running, a[2] upstream_failed, b upstream_failed");
    story.end("a[1]", Outcome::Cancelled);
    story.expect("failed: a failed, a[0] success, a[1] failed, a[2] upstream_failed, b upstream_failed");
    assert_eq!(story.task("a").cause, "the run took longer than 1h");
    story.tell(Signal::Retry { by: by("ann") });
    story.expect("running: a running, a[0] success, a[1] queued, a[2] queued, b none");
}

fn rings(story: &mut Story, timer: Timer) -> Vec<Occasion> {
    let at = story.now;
    story.tell(Signal::Due { timer, at }).occasions()
}

fn timers(story: &Story) -> Vec<String> {
    let timers = story.actions.iter().filter_map(|action| match action {
        Action::SetTimer(timer @ (Timer::TaskLate(_) | Timer::TaskLong(_)), at) => {
            Some(format!("{timer:?} {}", (*at - start()).num_seconds()))
        }
        Action::StopTimer(timer @ (Timer::TaskLate(_) | Timer::TaskLong(_))) => Some(format!("no {timer:?}")),
        _ => None,
    });
    timers.collect()
}

#[test]
fn a_task_that_is_late_is_told_of_until_it_is_done() {
    let flow = with(nodes("a, b < a"), 1, |b| b.late = Some(HOUR));
    let mut story = Story::of(flow);
    let (late, key) = (Timer::TaskLate("b".into()), Story::key("b"));
    // Counted from when the run was due, and not from its begin.
    assert_eq!(timers(&story), [r#"TaskLate(TaskId("b")) 3600"#]);
    story.now += TimeDelta::minutes(65);
    assert_eq!(rings(&mut story, late.clone()), [Occasion::TaskLate { key }]);
    let logged = story.actions.iter().find_map(|action| match action {
        Action::Log(event) => Some((event.change.clone(), event.cause.clone())),
        _ => None,
    });
    let (change, cause) = logged.expect("an event");
    let (from, to) = (TaskState::None, TaskState::None);
    assert_eq!(change, Change::Task { key: Story::key("b"), from, to, attempt: 0, number: 0 });
    let told = format!(
        "its deadline of 1h is over: it should have been done by {}, and is 5m",
        (start() + HOUR).format("%Y-%m-%d %H:%M:%S UTC")
    );
    assert!(cause.starts_with(&told), "{cause}");
    story.now -= TimeDelta::minutes(65);
    story.ok("a b").expect("success: a success, b success");
    assert_eq!(timers(&story), [r#"no TaskLate(TaskId("b"))"#]);
    assert_eq!(rings(&mut story, late), []);
    // What is done again in time may be late once more.
    story.clear("b", true);
    assert_eq!(timers(&story).last().map(String::as_str), Some(r#"TaskLate(TaskId("b")) 3600"#));
    story.ok("b").now += TimeDelta::hours(2);
    story.clear("b", true);
    assert_eq!(timers(&story), [r#"no TaskLate(TaskId("b"))"#]);
}

#[test]
fn a_task_that_takes_long_is_told_of_with_all_its_attempts() {
    let flow = with(nodes("a"), 0, |a| {
        a.long = Some(HOUR);
        a.retry.retries = 1;
    });
    let mut story = Story::of(flow);
    assert_eq!(timers(&story), [""; 0]);
    story.claim("a");
    assert_eq!(timers(&story), [r#"TaskLong(TaskId("a")) 3601"#]);
    story.end("a", Outcome::Failure(Failure::new("exit", "it broke"))).due("a").claim("a");
    assert_eq!(timers(&story), [""; 0], "the time goes on");
    assert_eq!(rings(&mut story, Timer::TaskLong("a".into())), [Occasion::TaskLong { key: Story::key("a") }]);
    story.end("a", Outcome::success(Value::Null));
    assert_eq!(timers(&story), [r#"no TaskLong(TaskId("a"))"#]);
    story.clear("a", true).claim("a");
    assert_eq!(timers(&story), [r#"TaskLong(TaskId("a")) 3608"#], "and begins anew when it is done again");
}

#[test]
fn a_task_with_many_items_takes_long_as_a_whole() {
    for by_worker in [false, true] {
        let map = crate::machine::Map { by_worker, at_once: None, limit: None };
        let mut story = Story::of(with(nodes("a"), 0, |a| {
            a.map = Some(map);
            a.long = Some(HOUR);
        }));
        let items = vec![json!(1), json!(2)];
        if by_worker {
            story.claim("a");
            assert_eq!(timers(&story).len(), 1);
            story.end("a", Outcome::success(Value::Array(items)));
            assert_eq!(timers(&story).len(), 0);
        } else {
            story.answer("a", Answer::Items { items });
            assert_eq!(timers(&story).len(), 1);
        }
        story.claim("a[0]");
        assert_eq!(timers(&story).len(), 0);
    }
}
