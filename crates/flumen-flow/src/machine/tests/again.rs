//! What people ask of a run.

use super::*;

#[test]
fn a_cancelled_run_stops_what_runs_and_starts_nothing() {
    let mut story = Story::of(nodes("a, b, c < a, d < a b always"));
    story.claim("a").cancel().expect("running: a running, b cancelled, c cancelled, d cancelled");
    assert_eq!(story.stops(), ["a: ann cancelled the run"]);
    assert!(story.actions.contains(&Action::Dequeue(Story::key("b"))));
    story.end("a", Outcome::Cancelled).expect("cancelled: a cancelled, b cancelled, c cancelled, d cancelled");
    assert_eq!(story.task("a").cause, "ann cancelled the run");
    story.cancel();
    assert!(story.refused());
    Story::queued(nodes("a, b < a")).cancel().expect("cancelled: a cancelled, b cancelled");
}

#[test]
fn a_lost_worker_of_a_cancelled_task_ends_it() {
    let mut story = Story::of(nodes("a"));
    story.claim("a").cancel().end("a", Outcome::Lost { worker: "w1".into(), cause: by("gone") });
    story.expect("cancelled: a cancelled");
}

#[test]
fn what_was_set_up_is_torn_down_after_a_cancel() {
    let flow = || with(nodes("s, w < s, t < w"), 2, |t| t.tears_down = vec![0]);
    let mut story = Story::of(flow());
    story.ok("s").claim("w").cancel().expect("running: s success, w running, t none");
    story.end("w", Outcome::Cancelled).expect("running: s success, w cancelled, t queued");
    story.ok("t").expect("cancelled: s success, w cancelled, t success");
    // Asked a second time, not even that.
    let mut story = Story::of(flow());
    story.ok("s").claim("w").cancel().end("w", Outcome::Cancelled).cancel();
    story.expect("cancelled: s success, w cancelled, t cancelled");
    Story::of(flow()).cancel().expect("cancelled: s cancelled, w cancelled, t cancelled");
}

#[test]
fn a_cleared_task_is_done_again_with_all_after_it() {
    let mut story = Story::of(nodes("a, b < a, c < b, d"));
    story.ok("a b c d").expect("success: a success, b success, c success, d success");
    story.clear("b", true).expect("running: a success, b queued, c none, d success");
    assert_eq!(story.task("b").attempt, 2);
    assert_eq!(story.run.record().ended, None);
    story.ok("b c").expect("success: a success, b success, c success, d success");
    story.clear("a", false).ok("a").expect("success: a success, b success, c success, d success");
    story.clear("x", true);
    assert!(story.refused());
}

#[test]
fn a_running_task_is_cleared_once_its_worker_has_let_go() {
    let mut story = Story::of(nodes("a, b < a"));
    story.ok("a").claim("b").clear("a", true).expect("running: a queued, b running");
    assert_eq!(story.stops(), ["b: ann cleared it"]);
    story.ok("a").expect("running: a success, b running");
    story.end("b", Outcome::success(json!(1))).expect("running: a success, b queued");
    assert_eq!(story.task("b").output, None);
}

#[test]
fn retries_count_anew_after_a_clear() {
    let mut story = Story::of(with(nodes("a"), 0, |a| a.retry.retries = 1));
    story.fails("a").due("a").fails("a").expect("failed: a failed");
    story.clear("a", true).fails("a").expect("running: a up_for_retry");
    story.due("a").fails("a").expect("failed: a failed");
    assert_eq!((story.task("a").attempt, story.task("a").tries()), (4, 2));
}

#[test]
fn a_retry_does_again_what_failed_and_what_follows() {
    let mut story = Story::of(nodes("a, b < a, c < a, d < b c all_done"));
    story.ok("a c").fails("b").ok("d").expect("success: a success, b failed, c success, d success");
    story.tell(Signal::Retry { by: by("ann") }).expect("running: a success, b queued, c success, d none");
    story.ok("b d").tell(Signal::Retry { by: by("ann") });
    assert!(story.refused());
}

#[test]
fn what_is_between_setup_and_teardown_is_cleared_with_both() {
    let flow = || with(nodes("s, w < s, v < s, t < w v"), 3, |t| t.tears_down = vec![0]);
    let mut story = Story::of(flow());
    story.ok("s w v t").clear("w", true).expect("running: s queued, w none, v success, t none");
    story.ok("s").expect("running: s success, w queued, v success, t none");
    let mut story = Story::of(flow());
    story.ok("s w v t").clear("t", true).expect("running: s success, w success, v success, t queued");
}

#[test]
fn marks_are_believed() {
    let mut story = Story::of(nodes("a, b < a"));
    story.mark("a", TaskState::Success).expect("running: a success, b queued");
    assert!(story.actions.contains(&Action::Dequeue(Story::key("a"))));
    story.claim("b").mark("b", TaskState::Failed).expect("running: a success, b running");
    story.end("b", Outcome::success(json!(1))).expect("failed: a success, b failed");
    story.mark("b", TaskState::Success).expect("success: a success, b success");
    story.mark("b", TaskState::Running);
    assert!(story.refused());
}

#[test]
fn a_paused_run_starts_nothing() {
    let mut story = Story::of(with(nodes("a, b, c < a"), 1, |b| b.retry.retries = 1));
    story.claim("a").fails("b").tell(Signal::Pause { by: by("ann") });
    story.expect("paused: a running, b up_for_retry, c none");
    story.end("a", Outcome::success(json!(1))).due("b").expect("paused: a success, b scheduled, c scheduled");
    assert!(story.why("c").ends_with("the run is paused (ann paused the run)."), "{}", story.why("c"));
    story.tell(Signal::Resume { by: by("ann") }).expect("running: a success, b queued, c queued");
    assert_eq!((story.task("b").attempt, story.task("c").attempt), (2, 1));
    story.tell(Signal::Pause { by: by("ann") }).expect("paused: a success, b scheduled, c scheduled");
    assert!(story.actions.contains(&Action::Dequeue(Story::key("b"))));
    story.tell(Signal::Resume { by: by("ann") });
    assert_eq!((story.task("b").attempt, story.task("c").attempt), (2, 1), "the attempts that were begun");
    story.ok("b c").expect("success: a success, b success, c success");
}

#[test]
fn a_person_undoes_a_cancel_with_a_clear() {
    let mut story = Story::of(nodes("a, b < a"));
    story.cancel().expect("cancelled: a cancelled, b cancelled");
    story.clear("a", true).expect("running: a queued, b none").ok("a b");
    story.expect("success: a success, b success");
}

#[test]
fn why_names_what_is_waited_for() {
    let mut story = Story::of(nodes("a, b, c < a b"));
    story.ok("a");
    assert_eq!(
        story.why("c"),
        "Task 'c' has not begun: its rule is all_success, and of the 2 tasks that it needs 1 are not done: 'b' (queued)."
    );
    assert!(story.why("b").contains("is in the queue of pool 'default'"), "{}", story.why("b"));
    let mut rated = Story::of(with(nodes("a"), 0, |a| a.pool = "rate:api".to_owned()));
    rated.tell(Signal::Start);
    assert!(rated.why("a").ends_with("It waits for its turn by the rate and a worker."), "{}", rated.why("a"));
    story.fails("b");
    assert!(story.why("c").contains("not run: its rule is all_success, and task 'b' is failed"), "{}", story.why("c"));
    assert_eq!(story.why("x"), "There is no task 'x' in flow 'taxi'.");
}
