use std::time::Duration;

use chrono::TimeDelta;
use flumen_core::clock::Clock as _;
use flumen_core::flow::outcome::TIMEOUT;
use flumen_core::flow::{Outcome, Signal, TaskRun, Wait, WaitFor};
use serde_json::json;

use crate::world::*;

const MOMENT: Duration = Duration::from_secs(1);

fn check(every_seconds: u64) -> WaitFor {
    WaitFor::Check { every_seconds, what: json!({ "light": "green" }) }
}

/// A project whose flow `waiting` has one task, which waits.
fn waiting(world: &World, on: WaitFor, minutes: Option<i64>) {
    world.project.put(["waiting", "other", "broken"].map(|name| entry(flow(name, None))));
    let until = minutes.map(|minutes| world.clock.now() + TimeDelta::minutes(minutes));
    world.bench.waits.lock().unwrap().insert("waiting".to_owned(), Wait { on, until });
}

/// The only task of the first run of a flow.
async fn task(world: &World, flow: &str) -> TaskRun {
    let runs = world.runs(flow).await;
    world.store.tasks(runs[0].id).await.unwrap().remove(0)
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_run_ends_a_wait_for_it() {
    for (other, expect) in [("other", "success"), ("broken", "failed")] {
        let world = World::in_memory();
        waiting(&world, check(1), None);
        let _running = (world.scheduler(), world.scheduler(), world.worker());
        world.hold_only(other);
        let run = world.ask(other, 1).await;
        waiting(&world, WaitFor::Run { run }, None);
        world.ask("waiting", 1).await;
        world.pass(hours(1)).await;
        assert_eq!(world.said("waiting").await, ["04 01:00 running"]);
        if other == "broken" {
            world.store.send(run, &Signal::Cancel { by: "ann".to_owned() }).await.unwrap();
        } else {
            world.finish_one().await;
        }
        world.pass(Duration::from_millis(20)).await;
        assert_eq!(world.said("waiting").await, [format!("04 01:00 {expect}")], "at once");
        let task = task(&world, "waiting").await;
        match expect {
            "success" => assert_eq!(task.output.unwrap(), json!({ "run_id": run, "state": "success" })),
            _ => assert!(task.cause.ends_with("of 'broken' is cancelled: ann cancelled the run"), "{}", task.cause),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_ended_before_or_is_not_there_is_not_waited_for() {
    let world = World::in_memory();
    waiting(&world, check(1), None);
    let _running = (world.scheduler(), world.worker());
    let run = world.ask("other", 1).await;
    world.pass(MOMENT).await;
    waiting(&world, WaitFor::Run { run }, None);
    world.ask("waiting", 1).await;
    world.pass(MOMENT).await;
    assert_eq!(world.said("waiting").await, ["04 01:00 success"]);
    let gone = flumen_core::flow::RunId::new(uuid::Uuid::from_u128(99));
    waiting(&world, WaitFor::Run { run: gone }, None);
    world.ask("waiting", 2).await;
    world.pass(MOMENT).await;
    assert_eq!(world.said("waiting").await, ["04 01:00 success", "04 02:00 failed"]);
}

#[tokio::test(start_paused = true)]
async fn an_update_of_a_data_set_ends_a_wait_for_it() {
    let world = World::in_memory();
    let since = first_day() + TimeDelta::hours(2);
    waiting(&world, WaitFor::Dataset { dataset: "lake.other".to_owned(), since }, None);
    let _running = (world.scheduler(), world.worker());
    world.ask("other", 1).await;
    world.ask("waiting", 1).await;
    world.pass(hours(2)).await;
    assert_eq!(world.said("waiting").await, ["04 01:00 running"], "an earlier update does not count");
    world.ask("broken", 2).await;
    world.pass(MOMENT).await;
    assert_eq!(world.said("waiting").await, ["04 01:00 running"], "nor does one of another");
    world.ask("other", 2).await;
    world.pass(MOMENT).await;
    assert_eq!(world.said("waiting").await, ["04 01:00 success"]);
    world.ask("waiting", 2).await;
    world.pass(MOMENT).await;
    assert_eq!(world.said("waiting").await[1], "04 02:00 success", "it was updated since then");
}

#[tokio::test(start_paused = true)]
async fn waits_end_when_they_have_waited_long_enough() {
    let moment = WaitFor::Time { at: first_day() + TimeDelta::minutes(30) };
    let never = WaitFor::Dataset { dataset: "lake.never".to_owned(), since: first_day() };
    for (on, minutes, expect) in [
        (moment.clone(), None, "success"),
        (moment, Some(20), TIMEOUT),
        (never, Some(20), TIMEOUT),
        (WaitFor::Run { run: flumen_core::flow::RunId::new(uuid::Uuid::from_u128(7)) }, Some(20), TIMEOUT),
        (check(60), Some(20), TIMEOUT),
        (WaitFor::Person { question: "well?".to_owned() }, Some(20), TIMEOUT),
    ] {
        let world = World::in_memory();
        waiting(&world, on.clone(), minutes);
        if let WaitFor::Run { run } = on {
            // A run that never begins.
            let mut new = crate::turns::asked("nobody", 1);
            new.id = run;
            world.store.create_runs(&[new], first_day()).await.unwrap();
        }
        let _running = (world.scheduler(), world.worker());
        world.ask("waiting", 1).await;
        world.pass(hours(1)).await;
        let task = task(&world, "waiting").await;
        let said = task.failure.map_or(task.state.name().to_owned(), |failure| failure.kind);
        assert_eq!(said, expect, "{on}");
        assert_eq!(world.store.waits(0, 10).await.unwrap(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn a_light_is_looked_at_now_and_then_by_one_scheduler() {
    let world = World::in_memory();
    waiting(&world, check(30), None);
    let schedulers = (world.scheduler(), world.scheduler(), world.scheduler(), world.worker());
    world.ask("waiting", 1).await;
    world.pass(Duration::from_secs(301)).await;
    let looks = world.outside.looks.lock().unwrap().clone();
    assert!((10..=11).contains(&looks.len()), "{looks:?}");
    let gaps: Vec<i64> = looks.windows(2).map(|pair| (pair[1].1 - pair[0].1).num_seconds()).collect();
    assert!(gaps.iter().all(|gap| (29..=31).contains(gap)), "{gaps:?}");
    *world.outside.light.lock().unwrap() = Some(Err("no light".to_owned()));
    world.pass(30 * MOMENT).await;
    assert_eq!(world.diary.take(), ["look fails: no light"]);
    *world.outside.light.lock().unwrap() = Some(Ok(Outcome::success(json!("green"))));
    world.pass(30 * MOMENT).await;
    assert_eq!(world.said("waiting").await, ["04 01:00 success"]);
    let count = world.outside.looks.lock().unwrap().len();
    world.pass(hours(1)).await;
    assert_eq!(world.outside.looks.lock().unwrap().len(), count, "nobody looks any more");
    drop(schedulers);
}

#[tokio::test(start_paused = true)]
async fn another_scheduler_looks_where_one_is_gone() {
    let world = World::in_memory();
    waiting(&world, check(10), None);
    let _worker = world.worker();
    let first = world.scheduler();
    world.ask("waiting", 1).await;
    world.pass(60 * MOMENT).await;
    let second = world.scheduler();
    drop(first);
    let before = world.outside.looks.lock().unwrap().len();
    assert!(before >= 5);
    world.pass(200 * MOMENT).await;
    let after = world.outside.looks.lock().unwrap().len();
    assert!((before + 8..=before + 16).contains(&after), "{before} {after}: after a minute and a half");
    // One that stops as it should leaves the looks at once.
    let third = world.scheduler();
    second.end().await;
    world.pass(100 * MOMENT).await;
    let last = world.outside.looks.lock().unwrap().len();
    assert!(last >= after + 3, "{after} {last}");
    drop(third);
}

#[tokio::test(start_paused = true)]
async fn looks_that_hang_hold_up_no_others() {
    let world = World::in_memory();
    waiting(&world, check(5), None);
    let _running = (world.scheduler(), world.worker());
    for hour in 0..30 {
        world.ask("waiting", hour).await;
    }
    world.pass(Duration::from_millis(100)).await;
    let waits = world.store.waits(0, 100).await.unwrap();
    world.outside.hangs.lock().unwrap().extend(waits.iter().take(8).map(|wait| wait.id));
    *world.outside.light.lock().unwrap() = Some(Ok(Outcome::success(json!("green"))));
    world.pass(10 * MOMENT).await;
    let runs = world.runs("waiting").await;
    assert_eq!((runs.len(), open(&runs)), (30, 8));
    world.outside.hangs.lock().unwrap().clear();
    world.pass(60 * MOMENT).await;
    assert_eq!(open(&world.runs("waiting").await), 0, "they were given up, and taken again");
    let told = world.diary.take();
    assert!(told.len() == 8 && told[0] == "look fails: a look took longer than 30 s", "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn waits_are_taken_up_by_a_scheduler_that_is_started_again() {
    let world = World::in_memory();
    waiting(&world, WaitFor::Dataset { dataset: "lake.other".to_owned(), since: first_day() }, None);
    let _worker = world.worker();
    let scheduler = world.scheduler();
    world.ask("waiting", 1).await;
    world.pass(MOMENT).await;
    scheduler.end().await;
    let _scheduler = world.scheduler();
    world.ask("other", 1).await;
    world.pass(MOMENT).await;
    assert_eq!(world.said("waiting").await, ["04 01:00 success"]);
}

#[tokio::test]
async fn waits_end_in_sqlite() {
    let world = World::in_sqlite().await;
    waiting(&world, WaitFor::Dataset { dataset: "lake.other".to_owned(), since: first_day() }, None);
    let _running = (world.scheduler(), world.scheduler(), world.worker());
    world.ask("waiting", 1).await;
    world.until(|| async { !world.store.waits(0, 1).await.unwrap().is_empty() }).await;
    world.ask("other", 1).await;
    world.until(|| world.all_ended("waiting", 1)).await;
    let run = world.ask("other", 2).await;
    waiting(&world, WaitFor::Run { run }, None);
    world.ask("waiting", 2).await;
    world.until(|| world.all_ended("waiting", 2)).await;
    waiting(&world, check(1), None);
    *world.outside.light.lock().unwrap() = Some(Ok(Outcome::success(json!("green"))));
    world.ask("waiting", 3).await;
    world.until(|| world.all_ended("waiting", 3)).await;
    assert_eq!(world.said("waiting").await, ["04 01:00 success", "04 02:00 success", "04 03:00 success"]);
}
