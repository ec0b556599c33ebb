use std::time::Duration;

use flumen_core::flow::{Occasion, TaskKey};
use flumen_core::task_kind::units::Period;
use flumen_flow::definition::{Catchup, Flow, Hook, Hooks};
use serde_json::Value;

use crate::world::*;

const MOMENT: Duration = Duration::from_secs(1);

/// A flow that wants to be told of its failures.
fn watched(name: &str) -> Flow {
    let hook = Hook {
        kind: "notify".to_owned(),
        config: Value::Null,
        timeout: Period(MOMENT),
        retries: 0,
        retry_delay: Period(MOMENT),
        path: flumen_core::task_kind::Path::top(),
    };
    Flow { hooks: Hooks { on_failure: vec![hook], ..Hooks::default() }, ..flow(name, None) }
}

/// A project whose flow fails.
fn failing() -> World {
    let world = World::in_memory();
    world.project.put([entry(watched("flow"))]);
    *world.bench.does.lock().unwrap() = Does::Fail;
    world
}

fn occasions(world: &World) -> Vec<Occasion> {
    world.outside.delivered.lock().unwrap().iter().map(|notice| notice.occasion.clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_notice_is_passed_on_once_however_many_schedulers_there_are() {
    let world = failing();
    let _running = (world.scheduler(), world.scheduler(), world.worker());
    for hour in 0..50 {
        world.ask("flow", hour).await;
    }
    world.pass(hours(1)).await;
    assert_eq!(occasions(&world), vec![Occasion::RunFailed; 50]);
    assert_eq!(world.diary.take(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_tried_again_and_given_up_in_the_end() {
    let world = failing();
    let _running = (world.scheduler(), world.worker());
    *world.outside.fails.lock().unwrap() = 2;
    world.ask("flow", 1).await;
    world.pass(hours(1)).await;
    assert_eq!(*world.outside.tries.lock().unwrap(), ["00:00:00", "00:00:05", "00:00:35"]);
    assert_eq!(occasions(&world), [Occasion::RunFailed]);
    assert_eq!(world.diary.take(), ["notice fails: the line is dead, last: false"; 2]);
    *world.outside.fails.lock().unwrap() = 1_000;
    world.ask("flow", 2).await;
    world.pass(hours(3)).await;
    assert_eq!(world.outside.tries.lock().unwrap().len(), 3 + 4, "it is given up");
    assert_eq!(world.diary.take().last().unwrap(), "notice fails: the line is dead, last: true");
}

#[tokio::test(start_paused = true)]
async fn a_notice_that_fails_holds_up_neither_runs_nor_other_notices() {
    let world = failing();
    let _running = (world.scheduler(), world.worker());
    *world.outside.fails.lock().unwrap() = 1;
    world.ask("flow", 1).await;
    world.pass(Duration::from_millis(100)).await;
    world.ask("flow", 2).await;
    world.pass(Duration::from_millis(100)).await;
    assert_eq!(open(&world.runs("flow").await), 0);
    assert_eq!(occasions(&world).len(), 1, "the second");
    world.pass(5 * MOMENT).await;
    assert_eq!(occasions(&world).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_notice_in_the_hands_of_a_process_that_dies_is_passed_on_by_another() {
    let world = failing();
    let _worker = world.worker();
    let first = world.scheduler();
    *world.outside.fails.lock().unwrap() = 1;
    world.ask("flow", 1).await;
    world.pass(MOMENT).await;
    drop(first);
    let _second = world.scheduler();
    world.pass(hours(1)).await;
    assert_eq!(occasions(&world), [Occasion::RunFailed]);
}

#[tokio::test(start_paused = true)]
async fn runs_that_are_late_or_long_are_told_of() {
    let world = World::in_memory();
    let minutes = |count: u32| Some(Period(count * 60 * MOMENT));
    let schedule = Some(cron("0 * * * *", None, Catchup::Last));
    let slow = Flow { deadline: minutes(5), warn_after: minutes(10), ..flow("slow", schedule.clone()) };
    let quick = Flow { deadline: minutes(5), warn_after: minutes(10), ..flow("quick", schedule) };
    world.project.put([entry(slow), entry(quick)]);
    world.hold_only("slow");
    let _running = (world.scheduler(), world.worker());
    world.pass(hours(1) + 20 * 60 * MOMENT).await;
    assert_eq!(occasions(&world), [Occasion::RunLate, Occasion::RunLong]);
    let times: Vec<String> = world.outside.tries.lock().unwrap().clone();
    assert_eq!(times, ["01:05:00", "01:10:00"]);
    let told = world.diary.take();
    let [late, long] = told.as_slice() else { panic!("{told:?}") };
    assert!(late.starts_with("late: its deadline of 5m is over: it should have been done by"), "{late}");
    assert_eq!(long, "late: it takes longer than 10m (warn_after)");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_has_not_begun_is_late_too_and_once() {
    let world = World::in_memory();
    let deadline = Some(Period(90 * 60 * MOMENT));
    let schedule = Some(cron("0 * * * *", None, Catchup::Last));
    world.project.put([entry(Flow { max_active_runs: 1, deadline, ..flow("slow", schedule) })]);
    world.hold_only("slow");
    let _running = (world.scheduler(), world.scheduler(), world.worker());
    world.pass(hours(3) + 45 * 60 * MOMENT).await;
    // The first one runs since one o'clock, the second waits since two.
    assert_eq!(*world.outside.tries.lock().unwrap(), ["02:30:00", "03:30:00"]);
    assert_eq!(running(&world.runs("slow").await), 1);
    world.finish_one().await;
    world.pass(30 * 60 * MOMENT).await;
    assert_eq!(
        *world.outside.tries.lock().unwrap(),
        ["02:30:00", "03:30:00"],
        "it is not told of again when it begins"
    );
    world.pass(hours(1)).await;
    assert_eq!(occasions(&world), vec![Occasion::RunLate; 3]);
}

#[tokio::test(start_paused = true)]
async fn tasks_that_are_late_or_long_are_told_of() {
    let world = World::in_memory();
    let minutes = |count: u32| Some(Period(count * 60 * MOMENT));
    let schedule = Some(cron("0 * * * *", None, Catchup::Last));
    let watched = |name: &str| {
        let mut flow = flow(name, schedule.clone());
        (flow.tasks[0].deadline, flow.tasks[0].warn_after) = (minutes(5), minutes(10));
        entry(flow)
    };
    world.project.put([watched("slow"), watched("quick")]);
    world.hold_only("slow");
    let _running = (world.scheduler(), world.worker());
    world.pass(hours(1) + 20 * 60 * MOMENT).await;
    let key = TaskKey::new("only");
    assert_eq!(occasions(&world), [Occasion::TaskLate { key: key.clone() }, Occasion::TaskLong { key }]);
    assert_eq!(*world.outside.tries.lock().unwrap(), ["01:05:00", "01:10:00"]);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_takes_too_long_is_stopped() {
    let world = World::in_memory();
    let timeout = Some(Period(10 * 60 * MOMENT));
    world.project.put([entry(Flow { timeout, ..watched("flow") })]);
    *world.bench.does.lock().unwrap() = Does::Hold;
    let _running = (world.scheduler(), world.worker());
    world.ask("flow", 1).await;
    world.pass(9 * 60 * MOMENT).await;
    assert_eq!(world.said("flow").await, ["04 01:00 running"]);
    world.pass(2 * 60 * MOMENT).await;
    let runs = world.runs("flow").await;
    assert_eq!((runs[0].state.name(), runs[0].cause.as_str()), ("failed", "the run took longer than 10m"));
    assert_eq!(occasions(&world), [Occasion::RunFailed]);
}
