use std::time::Duration;

use flumen_core::flow::Origin;
use flumen_flow::definition::{Catchup, DatasetRule, Flow, OnOverlap, ScheduleSpec};

use crate::world::*;

const MOMENT: Duration = Duration::from_secs(1);

/// A flow that runs when the data sets of `rule` are updated.
fn after(name: &str, rule: DatasetRule) -> Flow {
    let schedule = ScheduleSpec { rules: Vec::new(), datasets: Some(rule), ..cron("", None, Catchup::Last) };
    flow(name, Some(schedule))
}

fn one(name: &str) -> DatasetRule {
    DatasetRule::One(format!("lake.{name}"))
}

/// The intervals of a flow's runs.
async fn covered(world: &World, flow: &str) -> Vec<String> {
    let runs = world.runs(flow).await;
    runs.iter().map(|run| format!("{}-{}", run.interval.start.format("%H"), run.interval.end.format("%H"))).collect()
}

#[tokio::test(start_paused = true)]
async fn a_run_covers_what_was_updated_and_each_update_counts_once() {
    let world = World::in_memory();
    let both = DatasetRule::All(vec![one("a"), one("b")]);
    world.project.put(["a", "b", "c"].map(|name| entry(flow(name, None))));
    world.project.put([
        entry(after("single", one("a"))),
        entry(after("both", both.clone())),
        entry(after("either", DatasetRule::Any(vec![one("c"), both]))),
    ]);
    let _running = (world.scheduler(), world.scheduler(), world.worker());
    world.pass(MOMENT).await;
    for (name, hour) in [("a", 1), ("a", 3), ("b", 2), ("c", 9), ("b", 6), ("a", 5), ("c", 7)] {
        world.ask(name, hour).await;
        world.pass(MOMENT).await;
    }
    assert_eq!(covered(&world, "single").await, ["01-02", "03-04", "05-06"]);
    assert_eq!(covered(&world, "both").await, ["01-04", "05-07"]);
    assert_eq!(covered(&world, "either").await, ["01-04", "09-10", "05-07", "07-08"]);
    assert!(world.runs("both").await.iter().all(|run| run.origin == Origin::Datasets));
    assert_eq!(world.diary.take(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn what_was_updated_before_a_schedule_was_there_does_not_count() {
    let world = World::in_memory();
    world.project.put(["a", "b"].map(|name| entry(flow(name, None))));
    let _running = (world.scheduler(), world.worker());
    for hour in 0..10 {
        world.ask("a", hour).await;
    }
    world.pass(MOMENT).await;
    world.project.put([entry(after("late", one("a")))]);
    world.pass(MOMENT).await;
    assert_eq!(covered(&world, "late").await, [""; 0]);
    world.ask("a", 12).await;
    world.pass(MOMENT).await;
    assert_eq!(covered(&world, "late").await, ["12-13"]);
}

#[tokio::test(start_paused = true)]
async fn a_restart_loses_no_update_and_counts_none_twice() {
    let world = World::in_memory();
    world.project.put(["a", "b"].map(|name| entry(flow(name, None))));
    world.project.put([entry(after("both", DatasetRule::All(vec![one("a"), one("b")])))]);
    let _worker = world.worker();
    let scheduler = world.scheduler();
    world.pass(MOMENT).await;
    world.ask("a", 1).await;
    world.pass(MOMENT).await;
    scheduler.end().await;
    for number in 0..100_u32 {
        let (first, second) = (world.scheduler(), world.scheduler());
        if number == 10 {
            world.ask("b", 4).await;
        }
        for _ in 0..number {
            tokio::task::yield_now().await;
        }
        drop((first, second));
    }
    let _scheduler = world.scheduler();
    world.pass(hours(1)).await;
    assert_eq!(covered(&world, "both").await, ["01-05"]);
    assert_eq!(world.said("both").await, ["04 01:00 success"]);
}

#[tokio::test(start_paused = true)]
async fn updates_gather_while_a_run_waits() {
    let world = World::in_memory();
    world.project.put([entry(flow("a", None))]);
    world.project.put([entry(Flow { max_active_runs: 1, ..after("slow", one("a")) })]);
    let _running = (world.scheduler(), world.worker());
    world.pass(MOMENT).await;
    world.hold_only("slow");
    for hour in 0..6 {
        world.ask("a", hour).await;
        world.pass(MOMENT).await;
    }
    assert_eq!(covered(&world, "slow").await, ["00-01", "01-02"], "one runs, one waits");
    world.finish_one().await;
    world.pass(3 * MOMENT).await;
    assert_eq!(covered(&world, "slow").await, ["00-01", "01-02", "02-06"]);
}

#[tokio::test(start_paused = true)]
async fn updates_are_left_out_or_make_room_as_the_flow_says() {
    for (on_overlap, expect) in [
        (OnOverlap::Skip, vec!["04 00:00 running"]),
        (OnOverlap::CancelRunning, vec!["04 00:00 cancelled", "04 01:00 cancelled", "04 02:00 running"]),
    ] {
        let world = World::in_memory();
        world.project.put([entry(flow("a", None))]);
        world.project.put([entry(Flow { max_active_runs: 1, on_overlap, ..after("slow", one("a")) })]);
        let _running = (world.scheduler(), world.worker());
        world.pass(MOMENT).await;
        world.hold_only("slow");
        for hour in 0..3 {
            world.ask("a", hour).await;
            world.pass(MOMENT).await;
        }
        assert_eq!(world.said("slow").await, expect);
    }
}

#[tokio::test(start_paused = true)]
async fn a_paused_flow_waits_with_its_updates() {
    for (catchup, expect) in [(Catchup::Last, vec!["01-03"]), (Catchup::None, vec![])] {
        let world = World::in_memory();
        world.project.put([entry(flow("a", None))]);
        let mut flow = after("calm", one("a"));
        flow.schedule.as_mut().unwrap().catchup = catchup;
        world.project.put([entry(flow)]);
        let _running = (world.scheduler(), world.worker());
        world.pass(MOMENT).await;
        world.store.set_paused(&"calm".into(), true).await.unwrap();
        for hour in 1..3 {
            world.ask("a", hour).await;
            world.pass(MOMENT).await;
        }
        assert_eq!(covered(&world, "calm").await, [""; 0]);
        world.store.set_paused(&"calm".into(), false).await.unwrap();
        world.pass(61 * MOMENT).await;
        assert_eq!(covered(&world, "calm").await, expect, "{catchup:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_log_is_not_read_again() {
    let world = World::in_memory();
    world.project.put(["a", "b"].map(|name| entry(flow(name, None))));
    world.project.put([entry(after("rare", one("b")))]);
    let _running = (world.scheduler(), world.worker());
    world.pass(MOMENT).await;
    for hour in 0..1_500 {
        world.ask("a", hour).await;
    }
    world.pass(MOMENT).await;
    let cursor = world.store.cursor("datasets:rare").await.unwrap().unwrap();
    let rest = world
        .store
        .touched(serde_json::from_str::<serde_json::Value>(&cursor).unwrap()["after"].as_u64().unwrap(), 2_000);
    assert!(rest.await.unwrap().len() < 1_000, "{cursor}");
    world.ask("b", 1).await;
    world.pass(MOMENT).await;
    assert_eq!(covered(&world, "rare").await, ["01-02"]);
}

#[tokio::test]
async fn several_schedulers_consume_an_update_once_in_sqlite() {
    let world = World::in_sqlite().await;
    world.project.put([entry(flow("a", None)), entry(after("next", one("a")))]);
    let _running = (world.scheduler(), world.scheduler(), world.scheduler(), world.worker());
    world.until(|| async { world.store.cursor("datasets:next").await.unwrap().is_some() }).await;
    for hour in 0..5 {
        world.ask("a", hour).await;
        world.until(|| world.all_ended("a", hour as usize + 1)).await;
        world.until(|| world.all_ended("next", hour as usize + 1)).await;
    }
    assert_eq!(covered(&world, "next").await, ["00-01", "01-02", "02-03", "03-04", "04-05"]);
}
