use std::time::Duration;

use flumen_core::flow::{Origin, RunState};
use flumen_flow::definition::params::{ParamSpec, ParamType};
use flumen_flow::definition::{Catchup, Covers, Flow, OnOverlap, RuleSpec, ScheduleSpec};
use flumen_scheduler::Entry;
use serde_json::{Map, Value, json};

use crate::world::*;

const MOMENT: Duration = Duration::from_secs(1);

/// A flow that runs every hour.
fn hourly(name: &str, start: Option<&str>, catchup: Catchup) -> Flow {
    flow(name, Some(cron("0 * * * *", start, catchup)))
}

/// An hourly flow of which one run may be active.
fn narrow(catchup: Catchup, on_overlap: OnOverlap) -> Flow {
    Flow { max_active_runs: 1, on_overlap, ..hourly("flow", None, catchup) }
}

#[tokio::test(start_paused = true)]
async fn an_interval_is_run_when_it_ends() {
    let world = World::in_memory();
    world.project.put([entry(hourly("flow", None, Catchup::Last))]);
    let _running = (world.scheduler(), world.worker());
    world.pass(hours(3) + MOMENT).await;
    assert_eq!(world.said("flow").await, ["04 00:00 success", "04 01:00 success", "04 02:00 success"]);
    for run in world.runs("flow").await {
        assert!((run.ended.unwrap() - run.interval.end).num_milliseconds() < 100, "{run:?}");
        assert_eq!(run.origin, Origin::Schedule);
    }
    assert_eq!(world.diary.take(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn what_was_missed_is_caught_up_with_as_the_flow_says() {
    let all = ["03 20:00 success", "03 21:00 success", "03 22:00 success", "03 23:00 success"];
    for (catchup, expect, missed) in [
        (Catchup::All, &all[..], &[][..]),
        (Catchup::Last, &all[3..], &["flow missed 03 20:00..03 22:00"]),
        (Catchup::None, &[], &["flow missed 03 20:00..03 23:00"]),
    ] {
        let world = World::in_memory();
        world.pass(MOMENT).await;
        world.project.put([entry(hourly("flow", Some("2024-10-03T20:00"), catchup))]);
        let _running = (world.scheduler(), world.worker());
        world.pass(60 * MOMENT).await;
        assert_eq!(world.said("flow").await, expect, "{catchup:?}");
        assert_eq!(world.diary.take(), missed, "{catchup:?}");
        world.pass(hours(1)).await;
        assert_eq!(world.said("flow").await.len(), expect.len() + 1, "what ends while somebody watches is run");
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_never_floods_and_forgets_nothing() {
    for (catchup, expect) in [(Catchup::All, 6), (Catchup::Last, 2), (Catchup::None, 1)] {
        let world = World::in_memory();
        world.project.put([entry(hourly("flow", None, catchup))]);
        let _worker = world.worker();
        let scheduler = world.scheduler();
        world.pass(hours(1) + MOMENT).await;
        scheduler.end().await;
        world.pass(hours(5)).await;
        let _scheduler = world.scheduler();
        world.pass(MOMENT).await;
        assert_eq!(world.runs("flow").await.len(), expect, "{catchup:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_flow_that_never_ran_is_known_since_it_was_first_seen() {
    let world = World::in_memory();
    world.project.put([entry(flow("flow", Some(cron("0 12 * * *", None, Catchup::Last))))]);
    let _worker = world.worker();
    world.scheduler().end().await;
    let scheduler = world.scheduler();
    world.pass(MOMENT).await;
    scheduler.end().await;
    world.pass(hours(13)).await;
    let _scheduler = world.scheduler();
    world.pass(MOMENT).await;
    assert_eq!(world.said("flow").await, ["03 12:00 success"], "it ended while nobody was there");
}

async fn each_interval_is_made_once(world: World) {
    let many = (0..4).map(|number| {
        let start = Some("2024-10-02");
        entry(Flow { max_active_runs: 3, ..hourly(&format!("flow{number}"), start, Catchup::All) })
    });
    world.project.put(many);
    let _running = (world.scheduler(), world.scheduler(), world.scheduler(), world.worker());
    for number in 0..4 {
        let name = format!("flow{number}");
        world.until(|| world.all_ended(&name, 48)).await;
        let runs = world.runs(&name).await;
        assert!(are_distinct(&runs) && runs.len() == 48, "{name}: {}", runs.len());
    }
}

#[tokio::test(start_paused = true)]
async fn several_schedulers_make_each_interval_once_in_memory() {
    each_interval_is_made_once(World::in_memory()).await;
}

#[tokio::test]
async fn several_schedulers_make_each_interval_once_in_sqlite() {
    each_interval_is_made_once(World::in_sqlite().await).await;
}

#[tokio::test(start_paused = true)]
async fn several_schedulers_make_each_live_interval_once() {
    let world = World::in_memory();
    world.project.put((0..20).map(|number| entry(hourly(&format!("flow{number}"), None, Catchup::None))));
    let _running = (world.scheduler(), world.scheduler(), world.worker());
    world.pass(hours(10) + MOMENT).await;
    for number in 0..20 {
        let runs = world.runs(&format!("flow{number}")).await;
        assert!(are_distinct(&runs) && runs.len() == 10, "{}", runs.len());
    }
}

/// Schedulers that are killed at any moment, each time with another one in its place.
#[tokio::test(start_paused = true)]
async fn schedulers_that_are_killed_leave_no_gap_and_make_nothing_twice() {
    let world = World::in_memory();
    let start = Some("2024-09-29");
    world.project.put([entry(Flow { max_active_runs: 2, ..hourly("flow", start, Catchup::All) })]);
    let _worker = world.worker();
    for number in 0..200_u32 {
        let scheduler = world.scheduler();
        for _ in 0..number {
            tokio::task::yield_now().await;
        }
        drop(scheduler);
    }
    let _scheduler = world.scheduler();
    // A run that a dead scheduler had in hand is free after a while.
    world.pass(hours(1) + MOMENT).await;
    let runs = world.runs("flow").await;
    assert!(are_distinct(&runs));
    assert_eq!((runs.len(), open(&runs)), (121, 0));
}

#[tokio::test(start_paused = true)]
async fn runs_wait_where_the_flow_queues_them() {
    let world = World::in_memory();
    world.project.put([entry(narrow(Catchup::Last, OnOverlap::Queue))]);
    *world.bench.does.lock().unwrap() = Does::Hold;
    let _running = (world.scheduler(), world.worker());
    world.pass(hours(3) + MOMENT).await;
    assert_eq!(world.said("flow").await, ["04 00:00 running", "04 01:00 queued", "04 02:00 queued"]);
    world.finish_one().await;
    world.pass(MOMENT).await;
    assert_eq!(world.said("flow").await, ["04 00:00 success", "04 01:00 running", "04 02:00 queued"]);
    assert_eq!(*world.bench.most.lock().unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_hundred_thousand_missed_intervals_are_few_rows() {
    let world = World::in_memory();
    let flow = Flow { max_active_runs: 2, ..flow("flow", Some(cron("* * * * *", Some("2024-07-26"), Catchup::All))) };
    world.project.put([entry(flow)]);
    *world.bench.does.lock().unwrap() = Does::Hold;
    let _running = (world.scheduler(), world.worker());
    world.pass(MOMENT).await;
    let runs = world.runs("flow").await;
    assert_eq!((runs.len(), running(&runs)), (18, 2));
    for _ in 0..50 {
        world.finish_one().await;
        world.pass(Duration::from_millis(10)).await;
    }
    let runs = world.runs("flow").await;
    assert_eq!((runs.len(), open(&runs), running(&runs)), (68, 18, 2));
    assert!(are_distinct(&runs));
}

#[tokio::test(start_paused = true)]
async fn intervals_are_left_out_where_the_flow_skips_them() {
    let world = World::in_memory();
    world.project.put([entry(narrow(Catchup::Last, OnOverlap::Skip))]);
    *world.bench.does.lock().unwrap() = Does::Hold;
    let _running = (world.scheduler(), world.worker());
    world.pass(hours(3) + MOMENT).await;
    assert_eq!(world.said("flow").await, ["04 00:00 running"]);
    assert_eq!(world.diary.take(), ["flow left out 04 01:00..04 01:00", "flow left out 04 02:00..04 02:00"]);
    world.finish_one().await;
    world.pass(hours(1)).await;
    assert_eq!(world.said("flow").await, ["04 00:00 success", "04 03:00 running"]);
}

#[tokio::test(start_paused = true)]
async fn the_oldest_run_makes_room_where_the_flow_cancels() {
    let world = World::in_memory();
    world.project.put([entry(narrow(Catchup::Last, OnOverlap::CancelRunning))]);
    *world.bench.does.lock().unwrap() = Does::Hold;
    let _running = (world.scheduler(), world.worker());
    world.pass(hours(3) + MOMENT).await;
    assert_eq!(world.said("flow").await, ["04 00:00 cancelled", "04 01:00 cancelled", "04 02:00 running"]);
    assert_eq!(world.runs("flow").await[0].cause, "a newer run of its schedule cancelled the run");
    assert_eq!(*world.bench.most.lock().unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_paused_flow_makes_no_runs_and_catches_up_when_it_goes_on() {
    for (catchup, expect) in [(Catchup::All, 4), (Catchup::Last, 2), (Catchup::None, 1)] {
        let world = World::in_memory();
        world.project.put([entry(hourly("flow", None, catchup)), entry(hourly("other", None, catchup))]);
        let _running = (world.scheduler(), world.worker());
        world.pass(hours(1) + MOMENT).await;
        world.store.set_paused(&"flow".into(), true).await.unwrap();
        world.pass(hours(3)).await;
        assert_eq!(world.runs("flow").await.len(), 1);
        assert_eq!(world.runs("other").await.len(), 4);
        world.store.set_paused(&"flow".into(), false).await.unwrap();
        world.pass(60 * MOMENT).await;
        assert_eq!(world.runs("flow").await.len(), expect, "{catchup:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_paused_flow_that_is_changed_when_it_goes_on_was_not_watched_before() {
    let world = World::in_memory();
    world.project.put([entry(hourly("flow", None, Catchup::None))]);
    let _running = (world.scheduler(), world.worker());
    world.pass(MOMENT).await;
    world.store.set_paused(&"flow".into(), true).await.unwrap();
    world.pass(hours(3)).await;
    world.store.set_paused(&"flow".into(), false).await.unwrap();
    world.project.put([entry(Flow { max_active_runs: 3, ..hourly("flow", None, Catchup::None) })]);
    world.pass(60 * MOMENT).await;
    assert_eq!(world.said("flow").await, [""; 0]);
    world.pass(hours(1)).await;
    assert_eq!(world.said("flow").await, ["04 03:00 success"]);
}

#[tokio::test(start_paused = true)]
async fn once_is_once_and_always_is_always() {
    let world = World::in_memory();
    world.project.put([
        entry(flow("once", Some(cron("@once", None, Catchup::Last)))),
        entry(flow("always", Some(cron("@continuous", Some("2024-10-04T06:00"), Catchup::Last)))),
    ]);
    *world.bench.does.lock().unwrap() = Does::Hold;
    let _running = (world.scheduler(), world.scheduler(), world.worker());
    world.pass(hours(5)).await;
    assert_eq!(world.said("once").await, ["04 00:00 running"]);
    assert_eq!(world.said("always").await, [""; 0]);
    world.finish_one().await;
    world.pass(hours(1) + MOMENT).await;
    world.pass(hours(2)).await;
    assert_eq!(world.said("always").await, ["04 06:00 running"]);
    world.finish_one().await;
    world.pass(MOMENT).await;
    let runs = world.runs("always").await;
    assert_eq!((runs.len(), running(&runs)), (2, 1));
    assert_eq!(runs[1].interval.start, runs[0].interval.end, "it covers the time since then");
    assert_eq!(runs[1].started.unwrap().format("%H:%M").to_string(), "08:00");
    assert_eq!(world.said("once").await, ["04 00:00 success"]);
}

#[tokio::test(start_paused = true)]
async fn several_rules_are_one_schedule_and_triggers_are_moments() {
    let world = World::in_memory();
    let rules = ["0 2 * * *", "30 3 * * *"].map(|text| RuleSpec::Cron(text.to_owned()));
    let several = ScheduleSpec { rules: rules.to_vec(), ..cron("@daily", None, Catchup::Last) };
    let trigger = ScheduleSpec { interval: Covers::Trigger, ..cron("0 2 * * *", None, Catchup::Last) };
    let over = ScheduleSpec { end: Some("2024-10-03T23:30".to_owned()), ..cron("0 * * * *", None, Catchup::All) };
    let flows = [("several", several), ("trigger", trigger), ("over", over)];
    world.project.put(flows.map(|(name, spec)| entry(flow(name, Some(spec)))));
    let _running = (world.scheduler(), world.worker());
    world.pass(hours(4)).await;
    assert_eq!(world.said("several").await, ["03 03:30 success", "04 02:00 success"]);
    assert_eq!(world.said("trigger").await, ["04 02:00 success"]);
    assert!(world.runs("trigger").await[0].interval.is_moment());
    assert_eq!(world.said("over").await, [""; 0], "it is over");
}

fn colored(default: &str) -> Flow {
    let color = ParamSpec {
        name: "color".to_owned(),
        kind: ParamType::String,
        default: Some(default.into()),
        ..ParamSpec::default()
    };
    let size = ParamSpec { name: "size".to_owned(), default: Some("small".into()), ..color.clone() };
    Flow { params: vec![color, size], ..hourly("flow", None, Catchup::Last) }
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_deployment_is_a_copy_with_its_own_parameters_and_schedule() {
    let world = World::in_memory();
    let base = entry(colored("{{ var.color }}"));
    let schedule =
        ScheduleSpec { params: object(json!({ "size": "large" })), ..cron("0 3 * * *", None, Catchup::Last) };
    let params = object(json!({ "color": "green", "size": "middle" }));
    let copy = Entry::deployed(base.flow.clone(), base.version.clone(), "copy", params, Some(schedule)).unwrap();
    world.project.put([base, copy]);
    let _running = (world.scheduler(), world.worker());
    world.pass(hours(3) + MOMENT).await;
    let runs = world.runs("flow").await;
    let (copies, own): (Vec<_>, Vec<_>) = runs.into_iter().partition(|run| run.deployment.is_some());
    assert_eq!((copies.len(), own.len()), (1, 3));
    assert_eq!(Value::from(copies[0].params.clone()), json!({ "color": "green", "size": "large" }));
    assert_eq!(Value::from(own[0].params.clone()), json!({ "color": "rendered {{ var.color }}", "size": "small" }));
    assert_eq!(short(copies[0].interval), "03 03:00");
}

#[tokio::test(start_paused = true)]
async fn a_flow_with_a_mistake_stops_no_other_and_goes_on_when_it_is_mended() {
    let world = World::in_memory();
    world.project.put([entry(colored("{{ broken }}")), entry(hourly("other", None, Catchup::Last))]);
    let _running = (world.scheduler(), world.worker());
    world.pass(hours(2) + MOMENT).await;
    assert_eq!(world.said("flow").await, [""; 0]);
    assert_eq!(world.runs("other").await.len(), 2);
    assert_eq!(world.diary.take(), ["flow fails: there is no name 'broken'"]);
    world.project.put([entry(colored("blue"))]);
    world.pass(MOMENT).await;
    assert_eq!(world.said("flow").await, ["04 01:00 success"]);
    world.project.remove("flow");
    world.pass(hours(1)).await;
    assert_eq!(world.runs("flow").await.len(), 1);
    assert_eq!(world.runs("other").await.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_does_no_harm() {
    let world = World::in_memory();
    world.project.put([
        entry(hourly("last", None, Catchup::Last)),
        entry(hourly("none", None, Catchup::None)),
        entry(hourly("all", None, Catchup::All)),
    ]);
    let _running = (world.scheduler(), world.worker());
    world.pass(hours(1) + MOMENT).await;
    world.clock.jump(hours(10));
    world.pass(120 * MOMENT).await;
    assert_eq!(world.said("last").await, ["04 00:00 success", "04 10:00 success"]);
    assert_eq!(world.said("none").await, ["04 00:00 success"], "nobody watched");
    assert_eq!(world.runs("all").await.len(), 11);
    world.pass(hours(1)).await;
    for (name, count) in [("last", 3), ("none", 2), ("all", 12)] {
        assert_eq!(world.runs(name).await.len(), count, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_flows_sleep_until_they_are_due() {
    let world = World::in_memory();
    let sleeping = (0..10_000).map(|number| {
        let at = format!("{} {} 1 1 *", number % 60, number / 60 % 24);
        entry(flow(&format!("sleeping{number}"), Some(cron(&at, None, Catchup::Last))))
    });
    world.project.put(sleeping);
    world.project.put([entry(flow("awake", Some(cron("* * * * *", None, Catchup::Last))))]);
    let _running = (world.scheduler(), world.worker());
    world.pass(hours(1) + MOMENT).await;
    let runs = world.runs("awake").await;
    assert_eq!((runs.len(), open(&runs)), (60, 0));
    for run in runs {
        assert!((run.ended.unwrap() - run.interval.end).num_milliseconds() < 100, "{run:?}");
        assert_eq!(run.state, RunState::Success);
    }
}
