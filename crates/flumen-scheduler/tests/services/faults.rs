//! What services do while the store fails, and how little they ask of it while it does not.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use flumen_core::flow::{Wait, WaitFor};
use flumen_flow::definition::{Catchup, DatasetRule, Flow, OnOverlap, ScheduleSpec};
use flumen_store::memory::MemoryStore;

use crate::gate::{Gate, Gated};
use crate::world::*;

const MOMENT: Duration = Duration::from_secs(1);

/// A project, and the gate before what its schedulers see of the store; everybody else sees all.
fn gated() -> (World, Arc<Gated>) {
    let store = Arc::new(MemoryStore::new());
    let world = World::over(Arc::clone(&store) as _);
    (world, Arc::new(Gated::new(store, Gate::default())))
}

fn hourly(name: &str, start: Option<&str>) -> Flow {
    Flow { max_active_runs: 2, ..flow(name, Some(cron("0 * * * *", start, Catchup::All))) }
}

/// Flows by the clock and by data sets, and a wait, over a store that loses calls and answers.
#[tokio::test(start_paused = true)]
async fn a_store_that_fails_now_and_then_loses_nothing() {
    for every in [3, 5, 7, 11, 29] {
        let (world, gated) = gated();
        let after = DatasetRule::One("lake.hourly".to_owned());
        let after = ScheduleSpec { rules: Vec::new(), datasets: Some(after), ..cron("", None, Catchup::Last) };
        world.project.put([
            entry(hourly("hourly", Some("2024-10-03T20:00"))),
            entry(Flow { max_active_runs: 9, ..flow("after", Some(after)) }),
            entry(flow("waiting", None)),
        ]);
        let until = WaitFor::Dataset { dataset: "lake.hourly".to_owned(), since: first_day() };
        world.bench.waits.lock().unwrap().insert("waiting".to_owned(), Wait { on: until, until: None });
        world.ask("waiting", 1).await;
        gated.gate.every.store(every, Ordering::SeqCst);
        let _running = (world.scheduler_over(&gated), world.scheduler_over(&gated), world.worker());
        world.pass(hours(6)).await;
        let hourly = world.runs("hourly").await;
        assert!(are_distinct(&hourly), "{every}");
        assert_eq!((hourly.len(), open(&hourly)), (9, 0), "{every}");
        assert_eq!(world.said("waiting").await, ["04 01:00 success"], "{every}");
        let after = world.runs("after").await;
        assert!((3..=9).contains(&after.len()) && open(&after) == 0, "{every}: {}", after.len());
        assert!(world.diary.take().iter().all(|told| told == "store: the store is away"), "{every}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_is_waited_for() {
    let (world, gated) = gated();
    world.project.put([entry(hourly("flow", None))]);
    let _running = (world.scheduler_over(&gated), world.worker());
    world.pass(hours(1) + MOMENT).await;
    gated.gate.closed.store(true, Ordering::SeqCst);
    world.pass(hours(3)).await;
    assert_eq!(world.runs("flow").await.len(), 1);
    let told = world.diary.take().len();
    assert!((100..20_000).contains(&told), "it is tried, but not all the time: {told}");
    gated.gate.closed.store(false, Ordering::SeqCst);
    world.pass(12 * MOMENT).await;
    assert_eq!(world.runs("flow").await.len(), 4, "soon after it is back");
    assert_eq!(open(&world.runs("flow").await), 0);
}

/// Whichever call fails while a flow is seen for the first time: it runs on.
#[tokio::test(start_paused = true)]
async fn a_flow_that_is_new_while_the_store_fails_is_not_forgotten() {
    for seed in 0..40 {
        let (world, gated) = gated();
        gated.gate.count.store(seed * 1_000, Ordering::SeqCst);
        gated.gate.every.store(3, Ordering::SeqCst);
        world.project.put([entry(hourly("flow", Some("2024-10-03T22:00")))]);
        let _running = (world.scheduler_over(&gated), world.worker());
        world.pass(60 * MOMENT).await;
        gated.gate.every.store(0, Ordering::SeqCst);
        world.pass(hours(2)).await;
        assert_eq!(world.runs("flow").await.len(), 4, "{seed}");
    }
}

/// Whatever fails after the newer run was made: the older one makes room for it.
#[tokio::test(start_paused = true)]
async fn a_run_makes_room_though_the_store_fails() {
    for seed in 0..20 {
        let (world, gated) = gated();
        gated.gate.count.store(seed * 1_000, Ordering::SeqCst);
        let hourly = flow("flow", Some(cron("0 * * * *", None, Catchup::Last)));
        world.project.put([entry(Flow { max_active_runs: 1, on_overlap: OnOverlap::CancelRunning, ..hourly })]);
        *world.bench.does.lock().unwrap() = Does::Hold;
        let _running = (world.scheduler_over(&gated), world.worker());
        world.pass(hours(2) - MOMENT).await;
        gated.gate.every.store(3, Ordering::SeqCst);
        world.pass(300 * MOMENT).await;
        gated.gate.every.store(0, Ordering::SeqCst);
        world.pass(60 * MOMENT).await;
        assert_eq!(world.said("flow").await, ["04 00:00 cancelled", "04 01:00 running"], "{seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_while_nothing_is_due() {
    let (world, gated) = gated();
    world.project.put((0..1_000).map(|number| {
        let at = format!("{} 3 1 1 *", number % 60);
        entry(flow(&format!("flow{number}"), Some(cron(&at, None, Catchup::Last))))
    }));
    let _running = (world.scheduler_over(&gated), world.worker());
    world.pass(10 * MOMENT).await;
    gated.gate.calls.lock().unwrap().clear();
    world.pass(hours(1)).await;
    let calls = gated.gate.calls.lock().unwrap().clone();
    let all: u64 = calls.values().sum();
    // A look a minute, for whatever may have been missed.
    assert!(all <= 60 * 12, "{calls:?}");
}
