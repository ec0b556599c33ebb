use std::time::Duration;

use flumen_core::flow::store::NewRun;
use flumen_core::flow::{FlowVersion, Interval, Origin, RunId};
use flumen_flow::definition::Flow;
use serde_json::Map;
use uuid::Uuid;

use crate::world::*;

const MOMENT: Duration = Duration::from_secs(1);

/// A run that somebody asks for.
pub fn asked(flow: &str, number: u128) -> NewRun {
    NewRun {
        id: RunId::new(Uuid::from_u128(1_000_000 + number)),
        flow: flow.into(),
        version: FlowVersion::of(flow.as_bytes()),
        deployment: None,
        interval: Interval::at(first_day()),
        params: Map::new(),
        origin: Origin::Person { name: "ann".to_owned() },
        unique: None,
        start: false,
    }
}

async fn runs_begin_in_turn(world: World) {
    world.project.put([entry(Flow { max_active_runs: 3, ..flow("flow", None) }), entry(flow("other", None))]);
    let (_first, _second, _worker) = (world.scheduler(), world.scheduler(), world.worker());
    let wanted: Vec<NewRun> = (0..40).map(|number| asked("flow", number)).collect();
    world.store.create_runs(&wanted, first_day()).await.unwrap();
    world.store.create_runs(&[asked("other", 99)], first_day()).await.unwrap();
    world.until(|| world.all_ended("flow", 40)).await;
    world.until(|| world.all_ended("other", 1)).await;
}

#[tokio::test(start_paused = true)]
async fn runs_that_are_only_made_begin_when_there_is_room_in_memory() {
    runs_begin_in_turn(World::in_memory()).await;
}

#[tokio::test]
async fn runs_that_are_only_made_begin_when_there_is_room_in_sqlite() {
    runs_begin_in_turn(World::in_sqlite().await).await;
}

#[tokio::test(start_paused = true)]
async fn no_more_runs_are_active_than_may_be() {
    let world = World::in_memory();
    world.project.put([entry(Flow { max_active_runs: 3, ..flow("flow", None) })]);
    *world.bench.does.lock().unwrap() = Does::Hold;
    let _running = (world.scheduler(), world.scheduler(), world.worker());
    let wanted: Vec<NewRun> = (0..10).map(|number| asked("flow", number)).collect();
    world.store.create_runs(&wanted, first_day()).await.unwrap();
    for left in (0..10).rev() {
        world.pass(MOMENT).await;
        assert_eq!(running(&world.runs("flow").await), 3.min(left + 1));
        world.finish_one().await;
    }
    world.pass(MOMENT).await;
    assert_eq!(open(&world.runs("flow").await), 0);
    assert_eq!(*world.bench.most.lock().unwrap(), 3);
}

#[tokio::test(start_paused = true)]
async fn runs_of_a_flow_that_is_broken_wait_until_it_is_mended() {
    let world = World::in_memory();
    let _running = (world.scheduler(), world.worker());
    world.store.create_runs(&[asked("flow", 1)], first_day()).await.unwrap();
    world.pass(hours(1)).await;
    assert_eq!(world.said("flow").await, ["04 00:00 queued"]);
    world.project.put([entry(flow("flow", None))]);
    world.pass(MOMENT).await;
    assert_eq!(world.said("flow").await, ["04 00:00 success"]);
}

#[tokio::test(start_paused = true)]
async fn runs_made_before_a_scheduler_was_there_begin() {
    let world = World::in_memory();
    world.project.put([entry(flow("flow", None))]);
    world.store.create_runs(&[asked("flow", 1)], first_day()).await.unwrap();
    let _running = (world.scheduler(), world.worker());
    world.pass(MOMENT).await;
    assert_eq!(world.said("flow").await, ["04 00:00 success"]);
    // All runs that were known are forgotten: what is newer cannot be told by them.
    world.store.prune(first_day() + chrono::TimeDelta::days(1), 10).await.unwrap();
    world.store.create_runs(&[asked("flow", 2)], first_day()).await.unwrap();
    world.pass(MOMENT).await;
    assert_eq!(world.said("flow").await, ["04 00:00 success"]);
}
