use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use flumen_core::clock::Clock as _;
use flumen_core::flow::Origin;
use flumen_core::flow::store::{Advance, Backfill, BackfillState};
use flumen_flow::definition::{Catchup, Flow, RuleSpec, ScheduleSpec};
use flumen_scheduler::backfill::{self, Reprocess, Wish};
use flumen_scheduler::{Entry, Roster as _};
use serde_json::Map;

use crate::world::*;

const MOMENT: Duration = Duration::from_secs(1);

/// A project with a flow that makes no runs by itself: filling does not care whether its schedule is paused.
async fn paused(world: &World, entry: Entry) {
    world.project.put([entry]);
    world.store.set_paused(&"flow".into(), true).await.unwrap();
}

/// An hourly flow.
fn hourly(max_active_runs: u32) -> Entry {
    let schedule = ScheduleSpec { start: Some("2024-09-01".to_owned()), ..cron("0 * * * *", None, Catchup::None) };
    entry(Flow { max_active_runs, ..flow("flow", Some(schedule)) })
}

/// The hours of the third of October from `from` to `to`.
fn wish(from: u32, to: u32) -> Wish {
    let at = |hour: u32| first_day() - TimeDelta::days(1) + TimeDelta::hours(i64::from(hour));
    Wish {
        from: at(from),
        to: at(to),
        reprocess: Reprocess::None,
        reverse: false,
        max_active: None,
        params: Map::new(),
        by: "ann".to_owned(),
    }
}

async fn create(world: &World, wish: &Wish) -> Backfill {
    let entry = world.project.find(&"flow".into(), None).unwrap();
    let (store, project, ids) = (world.store.as_ref(), world.project.as_ref(), world.ids.as_ref());
    backfill::create(store, project, ids, &entry, wish, world.clock.now()).await.unwrap()
}

async fn state(world: &World, id: &str) -> BackfillState {
    backfill::find(world.store.as_ref(), id).await.unwrap().state
}

async fn all_is_filled(world: World) {
    paused(&world, hourly(4)).await;
    let (_first, _second, _worker) = (world.scheduler(), world.scheduler(), world.worker());
    let made = create(&world, &wish(0, 23)).await;
    assert_eq!((made.total, made.max_active), (24, 4));
    // A store in memory does not say that there is a new backfill.
    let is_done = || async { state(&world, &made.id).await == BackfillState::Done };
    if tokio::time::timeout(2 * MOMENT, world.until(is_done)).await.is_err() {
        world.pass(60 * MOMENT).await;
        world.until(is_done).await;
    }
    let runs = world.runs("flow").await;
    assert!(are_distinct(&runs) && runs.len() == 24);
    let starts: Vec<_> = runs.iter().map(|run| short(run.interval)).collect();
    assert!(starts.is_sorted() && starts[0] == "03 00:00" && starts[23] == "03 23:00", "{starts:?}");
    assert!(runs.iter().all(|run| run.origin == Origin::Backfill { id: made.id.clone() }));
    assert_eq!(backfill::made(world.store.as_ref(), &made).await.unwrap(), 24);
}

#[tokio::test(start_paused = true)]
async fn every_interval_is_filled_in_memory() {
    all_is_filled(World::in_memory()).await;
}

#[tokio::test]
async fn every_interval_is_filled_in_sqlite() {
    all_is_filled(World::in_sqlite().await).await;
}

/// Runs of the first three hours, the second of which failed.
async fn three_there(world: &World) {
    paused(world, hourly(1)).await;
    for (hour, does) in [(0, Does::Succeed), (1, Does::Fail), (2, Does::Succeed)] {
        *world.bench.does.lock().unwrap() = does;
        create(world, &wish(hour, hour)).await;
        let running = (world.scheduler(), world.worker());
        world.pass(MOMENT).await;
        drop(running);
    }
    *world.bench.does.lock().unwrap() = Does::Succeed;
    assert_eq!(world.said("flow").await, ["03 00:00 success", "03 01:00 failed", "03 02:00 success"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_run_before_is_run_again_as_one_says() {
    for (reprocess, reverse, expect) in [
        (Reprocess::None, false, vec!["03 03:00 success", "03 04:00 success"]),
        (Reprocess::Failed, false, vec!["03 01:00 success", "03 03:00 success", "03 04:00 success"]),
        (Reprocess::Failed, true, vec!["03 04:00 success", "03 03:00 success", "03 01:00 success"]),
        (
            Reprocess::All,
            false,
            vec!["03 00:00 success", "03 01:00 success", "03 02:00 success", "03 03:00 success", "03 04:00 success"],
        ),
    ] {
        let world = World::in_memory();
        three_there(&world).await;
        let wish = Wish { reprocess, reverse, ..wish(0, 4) };
        let entry = world.project.find(&"flow".into(), None).unwrap();
        let plan = backfill::plan(world.store.as_ref(), world.project.as_ref(), &entry, &wish, world.clock.now())
            .await
            .unwrap();
        assert_eq!((plan.intervals, plan.runs), (5, expect.len() as u64));
        let first: Vec<_> = plan.first.iter().map(|interval| format!("{} success", short(*interval))).collect();
        assert_eq!(first, expect, "what is planned is what happens");
        let made = create(&world, &wish).await;
        let _running = (world.scheduler(), world.worker());
        world.pass(MOMENT).await;
        assert_eq!(world.said("flow").await[3..], expect, "{reprocess:?}");
        assert_eq!(state(&world, &made.id).await, BackfillState::Done);
    }
}

#[tokio::test(start_paused = true)]
async fn it_pauses_goes_on_and_is_cancelled() {
    let world = World::in_memory();
    paused(&world, hourly(8)).await;
    *world.bench.does.lock().unwrap() = Does::Hold;
    let made = create(&world, &Wish { max_active: Some(2), ..wish(0, 23) }).await;
    let _running = (world.scheduler(), world.worker());
    world.pass(MOMENT).await;
    assert_eq!(world.said("flow").await, ["03 00:00 running", "03 01:00 running"]);
    backfill::pause(world.store.as_ref(), &made.id).await.unwrap();
    world.pass(60 * MOMENT).await;
    world.finish_one().await;
    world.pass(60 * MOMENT).await;
    assert_eq!(world.said("flow").await, ["03 00:00 success", "03 01:00 running"]);
    // The first digits of its id are enough.
    backfill::resume(world.store.as_ref(), &made.id[..31]).await.unwrap();
    world.pass(60 * MOMENT).await;
    assert_eq!(world.said("flow").await, ["03 00:00 success", "03 01:00 running", "03 02:00 running"]);
    backfill::cancel(world.store.as_ref(), &made.id, "ann", world.clock.now()).await.unwrap();
    world.pass(60 * MOMENT).await;
    assert_eq!(world.said("flow").await, ["03 00:00 success", "03 01:00 cancelled", "03 02:00 cancelled"]);
    assert_eq!(state(&world, &made.id).await, BackfillState::Cancelled);
    let told = backfill::resume(world.store.as_ref(), &made.id).await.unwrap_err();
    assert!(told.to_string().ends_with("is cancelled already"), "{told}");
    assert!(backfill::cancel(world.store.as_ref(), &made.id, "ann", world.clock.now()).await.is_ok(), "again");
    assert!(backfill::find(world.store.as_ref(), "x").await.is_err());
}

/// Whoever cancels dies after the first step of it.
#[tokio::test(start_paused = true)]
async fn a_cancellation_that_was_interrupted_is_carried_out() {
    let world = World::in_memory();
    paused(&world, hourly(8)).await;
    *world.bench.does.lock().unwrap() = Does::Hold;
    let made = create(&world, &Wish { max_active: Some(2), ..wish(0, 23) }).await;
    let _running = (world.scheduler(), world.scheduler(), world.worker());
    world.pass(MOMENT).await;
    let cancelled = Backfill { state: BackfillState::Cancelled, ..made };
    world.store.save_backfill(&cancelled).await.unwrap();
    world.pass(61 * MOMENT).await;
    assert_eq!(world.said("flow").await, ["03 00:00 cancelled", "03 01:00 cancelled"]);
}

#[tokio::test(start_paused = true)]
async fn a_hundred_thousand_intervals_are_one_row_and_stop_at_once() {
    let world = World::in_memory();
    let schedule = ScheduleSpec { start: Some("2024-07-01".to_owned()), ..cron("* * * * *", None, Catchup::None) };
    paused(&world, entry(Flow { max_active_runs: 4, ..flow("flow", Some(schedule)) })).await;
    let from = first_day() - TimeDelta::days(90);
    let wish = Wish { from, to: from + TimeDelta::minutes(99_999), ..wish(0, 0) };
    let made = create(&world, &wish).await;
    assert_eq!((made.total, world.runs("flow").await.len()), (100_000, 0));
    *world.bench.does.lock().unwrap() = Does::Hold;
    let _running = (world.scheduler(), world.worker());
    world.pass(MOMENT).await;
    for _ in 0..40 {
        world.finish_one().await;
        world.pass(Duration::from_millis(10)).await;
    }
    assert_eq!(world.runs("flow").await.len(), 44, "no more than there is room for");
    backfill::cancel(world.store.as_ref(), &made.id, "ann", world.clock.now()).await.unwrap();
    world.pass(hours(1)).await;
    let runs = world.runs("flow").await;
    assert_eq!((runs.len(), open(&runs)), (44, 0));
}

#[tokio::test(start_paused = true)]
async fn schedulers_that_are_killed_make_nothing_twice() {
    let world = World::in_memory();
    paused(&world, hourly(3)).await;
    let made = create(&world, &wish(0, 23)).await;
    let _worker = world.worker();
    for number in 0..150_u32 {
        let (first, second) = (world.scheduler(), world.scheduler());
        for _ in 0..number {
            tokio::task::yield_now().await;
        }
        drop((first, second));
    }
    let _scheduler = world.scheduler();
    world.pass(hours(1) - MOMENT).await;
    let runs = world.runs("flow").await;
    assert!(are_distinct(&runs));
    assert_eq!((runs.len(), open(&runs)), (24, 0));
    assert_eq!(state(&world, &made.id).await, BackfillState::Done);
}

#[tokio::test(start_paused = true)]
async fn a_schedule_does_not_run_again_what_was_filled() {
    let world = World::in_memory();
    paused(&world, hourly(3)).await;
    create(&world, &wish(20, 23)).await;
    let running = (world.scheduler(), world.worker());
    world.pass(MOMENT).await;
    drop(running);
    let schedule = ScheduleSpec { start: Some("2024-10-03T18:00".to_owned()), ..cron("0 * * * *", None, Catchup::All) };
    let copy = entry(flow("flow", Some(schedule)));
    world.store.set_paused(&"flow".into(), false).await.unwrap();
    let again = Advance {
        schedule: "schedule:flow".to_owned(),
        from: world.store.cursor("schedule:flow").await.unwrap(),
        to: r#"{"known":"2024-10-03T00:00:00Z"}"#.to_owned(),
        runs: Vec::new(),
    };
    world.store.advance(&again, first_day()).await.unwrap();
    world.project.put([copy]);
    let _running = (world.scheduler(), world.worker());
    world.pass(MOMENT).await;
    let runs = world.runs("flow").await;
    assert!(are_distinct(&runs) && runs.len() == 6, "{:?}", world.said("flow").await);
}

fn on(text: &str) -> DateTime<Utc> {
    format!("{text}T00:00:00Z").parse().unwrap()
}

#[tokio::test]
async fn what_cannot_be_filled_is_told() {
    let world = World::in_memory();
    let plan = |flow: Flow, wish: Wish| {
        let world = &world;
        async move {
            let entry = entry(flow);
            let plan = backfill::plan(world.store.as_ref(), world.project.as_ref(), &entry, &wish, first_day()).await;
            plan.map(|plan| plan.runs).map_err(|error| format!("{error}; {}", error.remedy().unwrap_or("-")))
        }
    };
    let none = plan(flow("flow", None), wish(0, 3)).await.unwrap_err();
    assert_eq!(
        none,
        "flow 'flow' has no intervals that could be filled; give it a schedule, or run it with --interval"
    );
    let mut past = flow("flow", Some(cron("@hourly", None, Catchup::Last)));
    past.tasks[0].depends_on_past = true;
    assert_eq!(plan(past.clone(), wish(0, 3)).await, Ok(4));
    let told = plan(past, Wish { reverse: true, ..wish(0, 3) }).await.unwrap_err();
    assert_eq!(
        told,
        "flow 'flow' cannot be filled from the end: task 'only' depends on the run before; leave out --reverse"
    );
    let unknown = plan(
        flow("flow", Some(cron("@hourly", None, Catchup::Last))),
        Wish { params: serde_json::json!({ "x": 1 }).as_object().cloned().unwrap(), ..wish(0, 3) },
    );
    assert_eq!(unknown.await.unwrap_err(), "flow 'flow': there is no parameter 'x'; the flow has no parameters");
    let future = plan(flow("flow", Some(cron("@hourly", None, Catchup::Last))), wish(22, 30)).await;
    assert_eq!(future, Ok(2), "what is not complete is not filled");
    // The first interval of a list of dates is a moment, and the second starts with it.
    let dates = ["2024-09-01", "2024-09-02", "2024-09-05"].map(str::to_owned).to_vec();
    let dates = ScheduleSpec { rules: vec![RuleSpec::Dates(dates)], ..cron("", None, Catchup::Last) };
    let all = Wish { from: on("2024-08-01"), to: on("2024-10-01"), ..wish(0, 0) };
    assert_eq!(plan(flow("flow", Some(dates)), all).await, Ok(3));
    assert_eq!(Reprocess::parse("faild").unwrap_err().remedy(), Some("did you mean 'failed'?"));
}
