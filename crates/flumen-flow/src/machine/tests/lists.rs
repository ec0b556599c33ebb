//! Tasks that run for each of a list.

use super::*;
use crate::machine::Map;

fn mapped(by_worker: bool, at_once: Option<u32>) -> Vec<Node> {
    with(nodes("a, m < a, z < m"), 1, |m| m.map = Some(Map { by_worker, at_once, limit: Some(5) }))
}

fn items(count: usize) -> Answer {
    Answer::Items { items: list(count).as_array().expect("a list").clone() }
}

#[test]
fn a_task_runs_for_each_of_a_list() {
    let mut story = Story::of(mapped(false, Some(2)));
    story.ok("a").expect("running: a success, m scheduled, z none");
    story.answer("m", items(3)).expect("running: a success, m running, m[0] queued, m[1] queued, z none");
    let queued: Vec<Option<Value>> = story
        .actions
        .iter()
        .filter_map(|action| match action {
            Action::Enqueue(queued) => Some(queued.item.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(queued, [Some(json!(0)), Some(json!(1))]);
    assert_eq!(
        story.why("m[2]"),
        "Item m[2] was not begun yet. Task 'm' is running since 2021-01-01 00:00:04 UTC (0 s): runs for 3 items. Of its 3 \
         items 2 are at work, 0 are done (0 failed, 0 skipped)."
    );
    story.ok("m[1]").expect("running: a success, m running, m[0] queued, m[1] success, m[2] queued, z none");
    story.does("m[2]", Outcome::Skipped { cause: by("nothing new") }).ok("m[0]");
    story.expect("running: a success, m success, m[0] success, m[1] success, m[2] skipped, z queued");
    assert_eq!(story.run.output(&story.graph, "m"), Some(json!(["m[0]", "m[1]", null])));
}

#[test]
fn lists_can_be_empty_too_long_or_no_lists() {
    Story::of(mapped(false, None)).ok("a").answer("m", items(0)).expect("success: a success, m skipped, z skipped");
    let mut story = Story::of(mapped(false, None));
    story.ok("a").answer("m", items(6)).expect("failed: a success, m failed, z upstream_failed");
    assert_eq!(story.task("m").cause, "the list that it runs for has 6 items; its limit is 5");
    let mut story = Story::of(mapped(true, None));
    story.ok("a").expect("running: a success, m queued, z none");
    story.does("m", Outcome::success(json!("x"))).expect("failed: a success, m failed, z upstream_failed");
    assert_eq!(story.task("m").cause, "it should give a list to run for, and gave a text");
}

#[test]
fn a_worker_may_make_the_list() {
    let mut story = Story::of(with(mapped(true, None), 1, |m| m.retry.retries = 1));
    story.ok("a").fails("m").expect("running: a success, m up_for_retry, z none");
    story.due("m").does("m", Outcome::success(list(2)));
    story.expect("running: a success, m running, m[0] queued, m[1] queued, z none");
    // The attempt that made the list has ended.
    story.end("m", Outcome::success(list(1)));
    assert!(story.refused());
    story.fails("m[0]").ok("m[1]").due("m[0]").fails("m[0]");
    story.expect("failed: a success, m failed, m[0] failed, m[1] success, z upstream_failed");
    assert_eq!(story.task("m").cause, "1 of 2 items failed");
}

#[test]
fn one_item_can_be_done_again() {
    let mut story = Story::of(mapped(false, Some(1)));
    story.ok("a").answer("m", items(2)).ok("m[0]").fails("m[1]");
    story.expect("failed: a success, m failed, m[0] success, m[1] failed, z upstream_failed");
    story.tell(Signal::Retry { by: by("ann") });
    story.expect("running: a success, m running, m[0] success, m[1] queued, z none");
    story.ok("m[1] z").expect("success: a success, m success, m[0] success, m[1] success, z success");
    story.clear("m[0]", false).expect("running: a success, m running, m[0] queued, m[1] success, z success");
    story.ok("m[0]").expect("success: a success, m success, m[0] success, m[1] success, z success");
}

#[test]
fn a_list_that_is_made_again_may_be_shorter() {
    let mut story = Story::of(mapped(false, None));
    story.ok("a").answer("m", items(3)).ok("m[0]").claim("m[2]");
    story.clear("m", true).expect("running: a success, m none, m[0] none, m[1] none, m[2] running, z none");
    assert!(story.why("m").contains("waits for items of it that are being stopped"), "{}", story.why("m"));
    story.end("m[2]", Outcome::Cancelled);
    story.expect("running: a success, m scheduled, m[0] none, m[1] none, m[2] none, z none");
    story.answer("m", items(1));
    story.expect("running: a success, m running, m[0] queued, m[1] removed, m[2] removed, z none");
    story.ok("m[0] z");
    story.expect("success: a success, m success, m[0] success, m[1] removed, m[2] removed, z success");
    assert_eq!(story.run.output(&story.graph, "m"), Some(json!(["m[0]"])));
}

#[test]
fn a_cancelled_list_begins_no_more_items() {
    let mut story = Story::of(mapped(false, Some(2)));
    story.ok("a").answer("m", items(4)).claim("m[0]").cancel();
    story.expect("running: a success, m running, m[0] running, m[1] cancelled, z cancelled");
    story.end("m[0]", Outcome::success(json!(1)));
    story.expect("cancelled: a success, m cancelled, m[0] success, m[1] cancelled, z cancelled");
    // What was not begun is not forgotten.
    story.tell(Signal::Retry { by: by("ann") });
    story.expect("running: a success, m running, m[0] success, m[1] queued, m[2] queued, z none");
    story.ok("m[1] m[2] m[3] z");
    story.expect("success: a success, m success, m[0] success, m[1] success, m[2] success, m[3] success, z success");
}

#[test]
fn a_whole_list_can_be_marked() {
    let mut story = Story::of(mapped(false, Some(2)));
    story.ok("a").answer("m", items(4)).ok("m[0]").claim("m[1]").mark("m", TaskState::Skipped);
    story.expect("running: a success, m running, m[0] success, m[1] running, m[2] skipped, z none");
    story.end("m[1]", Outcome::Cancelled);
    story.expect("success: a success, m skipped, m[0] success, m[1] skipped, m[2] skipped, z skipped");
}

#[test]
fn an_item_that_is_marked_counts_for_the_whole() {
    let mut story = Story::of(mapped(false, Some(1)));
    story.ok("a").answer("m", items(2)).ok("m[0]").fails("m[1]");
    story.expect("failed: a success, m failed, m[0] success, m[1] failed, z upstream_failed");
    story.mark("m[1]", TaskState::Success);
    story.expect("failed: a success, m success, m[0] success, m[1] success, z upstream_failed");
    story.clear("z", true).ok("z").expect("success: a success, m success, m[0] success, m[1] success, z success");
    // Of a list that was ended early, only the item changes.
    let mut story = Story::of(mapped(false, Some(1)));
    story.ok("a").answer("m", items(3)).mark("m", TaskState::Failed);
    story.expect("failed: a success, m failed, m[0] failed, z upstream_failed");
    story.mark("m[0]", TaskState::Success).expect("failed: a success, m failed, m[0] success, z upstream_failed");
}

#[test]
fn a_long_list_costs_what_it_changes() {
    let wide = with(nodes("m, z < m"), 0, |m| m.map = Some(Map { by_worker: false, at_once: None, limit: None }));
    let mut story = Story::of(wide);
    let count = 100_000;
    story.now += TimeDelta::seconds(1);
    let answered = Signal::Answered { key: Story::key("m"), answer: items(count) };
    let actions = step(&mut story.run, &story.graph, story.now, answered);
    let enqueued = actions.iter().filter(|action| matches!(action, Action::Enqueue(_))).count();
    assert_eq!(enqueued, 2_000, "the queue stays small");
    for index in 0..count {
        let key = TaskKey::item("m", index as u32);
        let number = index as u64 + 1;
        let at = story.now;
        let claimed = Signal::Claimed { key: key.clone(), number, worker: "w1".into(), at };
        step(&mut story.run, &story.graph, at, claimed);
        let ended = Signal::Ended { key, number, outcome: Outcome::success(Value::Null), at };
        let actions = step(&mut story.run, &story.graph, at, ended);
        assert!(actions.len() < 10, "{}", actions.len());
    }
    assert_eq!(story.task("m").state, TaskState::Success);
    assert_eq!(story.task("z").state, TaskState::Queued);
}

#[test]
fn many_tasks_before_one_cost_what_they_change() {
    let count = 20_000;
    let mut wide: Vec<Node> = (0..count).map(|number| Node::new(format!("t{number}"), [])).collect();
    wide.push(Node::new("z", (0..count).collect::<Vec<_>>()));
    let mut story = Story::of(wide);
    for number in 0..count {
        let key = TaskKey::new(format!("t{number}"));
        let (lease, at) = (number as u64 + 1, story.now);
        step(
            &mut story.run,
            &story.graph,
            at,
            Signal::Claimed { key: key.clone(), number: lease, worker: "w".into(), at },
        );
        let outcome = Outcome::success(Value::Null);
        let actions = step(&mut story.run, &story.graph, at, Signal::Ended { key, number: lease, outcome, at });
        assert!(actions.len() < 10, "{}", actions.len());
    }
    assert_eq!(story.task("z").state, TaskState::Queued);
}

#[test]
fn a_long_chain_of_skips_is_no_deep_call() {
    let chain: Vec<Node> = (0..50_000)
        .map(|number: usize| Node::new(format!("t{number}"), number.checked_sub(1).into_iter().collect::<Vec<_>>()))
        .collect();
    let mut story = Story::of(chain);
    story.does("t0", Outcome::Skipped { cause: by("nothing") });
    assert_eq!(story.run.record().state, RunState::Success);
}
