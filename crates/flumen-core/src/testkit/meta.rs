//! The contract of [`MetaStore`].

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, json};
use uuid::Uuid;

use crate::ErrorKind;
use crate::flow::store::{
    Advance, Backfill, BackfillState, Claim, Commit, Created, Held, MetaStore, NewRun, Pool, Rate, Renewal, RunFilter,
    Taken, Wake, Work, WorkerRecord,
};
use crate::flow::{
    Change, Event, FlowName, FlowVersion, Interval, Notice, Occasion, Origin, Outcome, Queued, RunId, RunState, Signal,
    TaskId, TaskKey, TaskRun, TaskState, Timer, Touched, Wait, WaitFor, WorkerId,
};

/// Holds an empty `store` to the contract of [`MetaStore`]. `again` is a second view of the same store, as another process
/// would have it.
pub async fn meta_store(store: &dyn MetaStore, again: &dyn MetaStore) {
    runs_are_made_once(store, again).await;
    a_run_is_changed_by_one_step_at_a_time(store, again).await;
    a_task_run_has_one_owner(store, again).await;
    leases_and_timers_end_in_letters(store, again).await;
    pools_have_limits_and_runs_take_turns(store).await;
    runs_of_a_flow_begin_within_a_limit(store, again).await;
    work_is_claimed_of_some_runs(store).await;
    runs_are_kept_for_one_worker(store, again).await;
    what_waits_is_found(store, again).await;
    the_runs_before_and_after_know_each_other(store).await;
    schedules_move_on_once(store, again).await;
    objects_are_kept(store, again).await;
    whoever_listens_is_woken(store).await;
    history_is_pruned(store).await;
}

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(1_700_000_000_123_456).unwrap() + TimeDelta::seconds(seconds)
}

fn new_run(flow: &str, id: u128, start: i64) -> NewRun {
    NewRun {
        id: RunId::new(Uuid::from_u128(id)),
        flow: FlowName::from(flow),
        version: FlowVersion::of(flow.as_bytes()),
        deployment: None,
        interval: Interval { start: at(start), end: at(start + 60) },
        params: Map::from_iter([("color".to_owned(), json!("yellow"))]),
        origin: Origin::Person { name: "ann".to_owned() },
        unique: None,
        start: false,
    }
}

async fn make(store: &dyn MetaStore, new: NewRun) -> RunId {
    let created = store.create_runs(std::slice::from_ref(&new), at(0)).await.unwrap();
    assert_eq!(created, [Created { id: new.id, new: true }]);
    new.id
}

/// A commit that changes nothing yet, for the run as it is now.
async fn commit(store: &dyn MetaStore, run: RunId) -> Commit {
    let loaded = store.load(run).await.unwrap();
    let mut commit = Commit::new(loaded.record, loaded.version, at(1));
    commit.read = loaded.inbox.iter().map(|letter| letter.id).collect();
    commit
}

fn queued(task: &str, pool: &str) -> Queued {
    Queued {
        key: TaskKey::new(task),
        attempt: 1,
        lists: false,
        item: Some(json!({ "a": [1, null] })),
        pool: pool.to_owned(),
        slots: 1,
        priority: 0,
    }
}

async fn enqueue(store: &dyn MetaStore, run: RunId, rows: Vec<Queued>) {
    let mut commit = commit(store, run).await;
    commit.enqueue = rows;
    store.commit(&commit).await.unwrap();
}

fn wish(worker: &str, pool: &str, limit: usize, now: i64) -> Claim {
    let (worker, pools) = (WorkerId::from(worker), vec![pool.to_owned()]);
    Claim { worker, pools, only: Vec::new(), limit, now: at(now), expires: at(now + 30) }
}

async fn claim(store: &dyn MetaStore, worker: &str, pool: &str, limit: usize, now: i64) -> Vec<Work> {
    store.claim(&wish(worker, pool, limit, now)).await.unwrap().work
}

fn names(work: &[Work]) -> Vec<String> {
    work.iter().map(|work| work.queued.key.to_string()).collect()
}

async fn runs_are_made_once(store: &dyn MetaStore, again: &dyn MetaStore) {
    let mut first = new_run("once", 1, 0);
    first.unique = Some("scheduled 2021-01".to_owned());
    first.start = true;
    let run = make(store, first.clone()).await;
    let same_id = NewRun { unique: None, ..first.clone() };
    let same_text = NewRun { id: RunId::new(Uuid::from_u128(2)), ..first.clone() };
    let elsewhere = NewRun {
        id: RunId::new(Uuid::from_u128(3)),
        deployment: Some("green".to_owned()),
        origin: Origin::Backfill { id: "b1".to_owned() },
        ..first.clone()
    };
    let created = again.create_runs(&[same_id, same_text, elsewhere.clone()], at(5)).await.unwrap();
    let there = Created { id: run, new: false };
    assert_eq!(created, [there, there, Created { id: elsewhere.id, new: true }]);

    let record = again.run(run).await.unwrap();
    assert_eq!((record.state, record.created, record.interval), (RunState::Queued, at(0), first.interval));
    assert_eq!((record.params, record.origin, record.version), (first.params, first.origin, first.version));
    assert_eq!(again.run(elsewhere.id).await.unwrap().deployment.as_deref(), Some("green"));
    let (version, letters) = store.inbox(run).await.unwrap();
    assert_eq!((version, letters.len()), (0, 1));
    assert_eq!(letters[0].signal, Signal::Start);
    for (filter, expected) in [
        (RunFilter::default(), vec![elsewhere.id, run]),
        (RunFilter { limit: Some(1), ..RunFilter::default() }, vec![elsewhere.id]),
        (RunFilter { after: Some(elsewhere.id), ..RunFilter::default() }, vec![run]),
        (RunFilter { oldest_first: true, ..RunFilter::default() }, vec![run, elsewhere.id]),
        (RunFilter { oldest_first: true, after: Some(run), ..RunFilter::default() }, vec![elsewhere.id]),
        (RunFilter { prefix: Some("000".to_owned()), limit: Some(1), ..RunFilter::default() }, vec![elsewhere.id]),
        (RunFilter { prefix: Some(run.to_string()), ..RunFilter::default() }, vec![run]),
        (RunFilter { backfill: Some("b1".to_owned()), ..RunFilter::default() }, vec![elsewhere.id]),
        (RunFilter { deployment: Some("green".to_owned()), ..RunFilter::default() }, vec![elsewhere.id]),
        (RunFilter { deployment: Some(String::new()), ..RunFilter::default() }, vec![run]),
        (RunFilter { flow: Some("other".into()), ..RunFilter::default() }, vec![]),
        (RunFilter { states: vec![RunState::Failed], ..RunFilter::default() }, vec![]),
        (
            RunFilter { from: Some(at(0)), to: Some(at(0)), limit: Some(9), ..RunFilter::default() },
            vec![elsewhere.id, run],
        ),
        (RunFilter { from: Some(at(1)), ..RunFilter::default() }, vec![]),
    ] {
        let found: Vec<RunId> = store.runs(&filter).await.unwrap().iter().map(|run| run.id).collect();
        assert_eq!(found, expected, "{filter:?}");
    }
    let nobody = RunId::new(Uuid::from_u128(99));
    for error in [
        store.run(nobody).await.unwrap_err(),
        store.load(nobody).await.unwrap_err(),
        store.inbox(nobody).await.unwrap_err(),
        store.tasks(nobody).await.unwrap_err(),
        store.send(nobody, &Signal::Start).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    }
}

/// Takes runs; what comes with them is what there is.
async fn take(store: &dyn MetaStore, now: DateTime<Utc>, until: DateTime<Utc>) -> Vec<RunId> {
    let taken = store.take_runs(now, until, 9).await.unwrap();
    for Taken { run, inbox } in &taken {
        assert_eq!(*inbox, Some(store.inbox(*run).await.unwrap()));
    }
    taken.into_iter().map(|taken| taken.run).collect()
}

async fn a_run_is_changed_by_one_step_at_a_time(store: &dyn MetaStore, again: &dyn MetaStore) {
    let run = make(store, new_run("step", 10, 0)).await;
    store.send(run, &Signal::Pause { by: "ann".to_owned() }).await.unwrap();
    store.send(run, &Signal::Resume { by: "ann".to_owned() }).await.unwrap();
    // Runs with letters are given to one scheduler at a time; the run "once" has one too.
    let taken = take(store, at(0), at(10)).await;
    assert!(taken.contains(&run), "{taken:?}");
    assert_eq!(take(again, at(9), at(10)).await, []);
    assert_eq!(take(again, at(10), at(20)).await, taken, "after its time");

    let mut first = commit(store, run).await;
    let mut second = commit(again, run).await;
    let mut task = TaskRun::new(TaskKey::item("load", 3), at(1));
    task.state = TaskState::Deferred;
    task.cause = "waits for 'x' — ok?".to_owned();
    task.output = Some(json!({ "rows": 3, "text": "ä" }));
    task.due = Some(at(7));
    task.wait = Some(Wait { on: WaitFor::Time { at: at(7) }, until: None });
    let event = |to| Event {
        run,
        at: at(1),
        change: Change::Task { key: task.key.clone(), from: TaskState::None, to, attempt: 1, number: 0 },
        cause: "because".to_owned(),
        by: "ann".to_owned(),
    };
    first.tasks = vec![task.clone()];
    first.events = vec![event(TaskState::Queued), event(TaskState::Running)];
    first.record.state = RunState::Running;
    first.record.started = Some(at(1));
    // A letter that comes while a run is stepped is there after the step.
    again.send(run, &Signal::Cancel { by: "bob".to_owned() }).await.unwrap();
    let version = store.commit(&first).await.unwrap();
    second.tasks = vec![TaskRun::new(TaskKey::new("other"), at(1))];
    second.events = vec![event(TaskState::Failed)];
    let late = again.commit(&second).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Conflict, "{late}");

    let loaded = again.load(run).await.unwrap();
    assert_eq!((loaded.version, &loaded.record), (version, &first.record));
    assert_eq!(loaded.tasks, [task.clone()]);
    assert_eq!(store.tasks(run).await.unwrap(), [task.clone()]);
    let signals: Vec<Signal> = loaded.inbox.into_iter().map(|letter| letter.signal).collect();
    assert_eq!(signals, [Signal::Cancel { by: "bob".to_owned() }]);
    assert_eq!(take(store, at(11), at(30)).await, [run], "a commit lets go of its run");
    let events = again.events(run, 0, 10).await.unwrap();
    assert_eq!(events.iter().map(|(_, event)| event.clone()).collect::<Vec<_>>(), first.events);
    assert_eq!(again.events(run, 0, 1).await.unwrap(), events[..1]);
    assert_eq!(again.events(run, events[0].0, 10).await.unwrap(), events[1..]);
    assert_eq!(store.active_runs(&FlowName::from("step")).await.unwrap(), 1);
    assert_eq!(store.active_runs(&FlowName::from("once")).await.unwrap(), 0);

    let mut change = commit(store, run).await;
    task.state = TaskState::Success;
    let items: Vec<TaskRun> = [2, 10].map(|index| TaskRun::new(TaskKey::item("b", index), at(2))).into();
    change.tasks = vec![items[1].clone(), task.clone(), items[0].clone()];
    store.commit(&change).await.unwrap();
    assert_eq!(
        again.tasks_of(run, &["b".into(), "none".into()]).await.unwrap(),
        items,
        "in the order of their numbers"
    );
    assert_eq!(again.tasks_of(run, &["load".into()]).await.unwrap(), [task]);
    assert_eq!(again.tasks(run).await.unwrap().len(), 3);
    assert_eq!(again.inbox(run).await.unwrap(), (version + 1, vec![]));
}

async fn a_task_run_has_one_owner(store: &dyn MetaStore, again: &dyn MetaStore) {
    let run = make(store, new_run("owner", 20, 0)).await;
    enqueue(store, run, vec![queued("a", "owner"), queued("b", "owner"), queued("c", "owner")]).await;
    let before = commit(store, run).await;
    let work = claim(store, "w1", "owner", 2, 2).await;
    assert_eq!(names(&work), ["a", "b"]);
    assert_eq!(work[0].queued, queued("a", "owner"));
    assert_eq!(work[0].run, store.run(run).await.unwrap());
    assert_eq!(work[0].lease.expires, at(32));
    assert!(work[1].lease.number > work[0].lease.number);
    assert!(work[0].lease.number >= 1_700_000_000_000_000, "numbers are not smaller than the time in microseconds");
    assert_eq!(again.leases(run).await.unwrap(), [work[0].lease.clone(), work[1].lease.clone()]);
    let (_, letters) = again.inbox(run).await.unwrap();
    let told = |work: &Work| Signal::Claimed {
        key: work.lease.key.clone(),
        number: work.lease.number,
        worker: "w1".into(),
        at: at(2),
    };
    assert_eq!(
        letters.iter().map(|letter| letter.signal.clone()).collect::<Vec<_>>(),
        [told(&work[0]), told(&work[1])]
    );

    // What was claimed cannot leave the queue, nor enter it.
    let mut taken_back = before.clone();
    taken_back.dequeue = vec![TaskKey::new("c"), TaskKey::new("a")];
    let error = again.commit(&taken_back).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    let mut twice = commit(store, run).await;
    twice.enqueue = vec![queued("a", "owner")];
    assert_eq!(store.commit(&twice).await.unwrap_err().kind(), ErrorKind::Internal);
    twice.enqueue = vec![queued("c", "owner")];
    assert_eq!(store.commit(&twice).await.unwrap_err().kind(), ErrorKind::Internal);
    // What was not can, and a failed commit has changed nothing.
    let mut moved = commit(store, run).await;
    moved.dequeue = vec![TaskKey::new("c")];
    moved.enqueue = vec![Queued { priority: 5, ..queued("c", "owner") }];
    moved.stops = vec![
        (TaskKey::new("a"), work[0].lease.number, "ann cancelled it".to_owned()),
        (TaskKey::new("b"), work[1].lease.number - 1, "an older one".to_owned()),
        (TaskKey::new("c"), 7, "nobody has it".to_owned()),
    ];
    store.commit(&moved).await.unwrap();

    let worker = WorkerId::from("w1");
    let held = [work[0].held(), work[1].held(), Held { number: 7, ..work[1].held() }];
    let renewed = again.renew(&worker, &held, at(60)).await.unwrap();
    let stop = Renewal::Stop { cause: "ann cancelled it".to_owned() };
    assert_eq!(renewed, [stop, Renewal::Held, Renewal::Gone]);
    assert_eq!(again.renew(&"w2".into(), &held[1..2], at(90)).await.unwrap(), [Renewal::Gone]);
    assert_eq!(store.leases(run).await.unwrap()[1].expires, at(60));

    let done = Outcome::Success { output: json!(1), reads: vec![], writes: vec!["lake.raw.trips".to_owned()] };
    let stale = again.finish(&held[2], &done, at(9)).await.unwrap_err();
    assert_eq!(stale.kind(), ErrorKind::Conflict, "{stale}");
    again.finish(&held[1], &done, at(9)).await.unwrap();
    let twice = store.finish(&held[1], &done, at(9)).await.unwrap_err();
    assert_eq!(twice.kind(), ErrorKind::Conflict, "{twice}");
    let (_, letters) = store.inbox(run).await.unwrap();
    let end = Signal::Ended { key: TaskKey::new("b"), number: work[1].lease.number, outcome: done, at: at(9) };
    assert_eq!(letters.last().unwrap().signal, end);

    assert_eq!(store.lose_worker(&worker, "its process is gone", at(10)).await.unwrap(), 1);
    assert_eq!(store.lose_worker(&worker, "its process is gone", at(10)).await.unwrap(), 0);
    let (_, letters) = store.inbox(run).await.unwrap();
    let lost = Outcome::Lost { worker, cause: "its process is gone".to_owned() };
    let end = Signal::Ended { key: TaskKey::new("a"), number: work[0].lease.number, outcome: lost, at: at(10) };
    assert_eq!(letters.last().unwrap().signal, end);
    // What ended can be queued again, and its next lease has a greater number, also if the clock goes back.
    enqueue(store, run, vec![queued("a", "owner")]).await;
    let next = claim(again, "w2", "owner", 9, -5_000).await;
    assert_eq!(names(&next), ["c", "a"], "the higher priority first");
    assert!(next.iter().all(|next| next.lease.number > work[1].lease.number));
    assert_eq!(names(&claim(store, "w3", "owner", 9, 11).await), [""; 0]);
    for work in next {
        store.finish(&work.held(), &Outcome::Cancelled, at(12)).await.unwrap();
    }
}

async fn leases_and_timers_end_in_letters(store: &dyn MetaStore, again: &dyn MetaStore) {
    let run = make(store, new_run("time", 30, 0)).await;
    enqueue(store, run, vec![queued("a", "time"), queued("b", "time")]).await;
    let first = claim(store, "w1", "time", 1, 0).await.remove(0);
    let second = claim(store, "w1", "time", 1, 5).await.remove(0);
    let rung = again.expire_leases(at(29), 10).await.unwrap();
    assert_eq!((rung.count, rung.next), (0, Some(at(30))));
    let rung = again.expire_leases(at(33), 10).await.unwrap();
    assert_eq!((rung.count, rung.next), (1, Some(at(35))));
    assert_eq!(store.leases(run).await.unwrap(), std::slice::from_ref(&second.lease));
    let (_, letters) = store.inbox(run).await.unwrap();
    let Signal::Ended { number, outcome: Outcome::Lost { worker, cause }, .. } = &letters.last().unwrap().signal else {
        panic!("{letters:?}");
    };
    assert_eq!((*number, worker.as_str()), (first.lease.number, "w1"));
    assert_eq!(cause, "the lease of worker w1 expired 3 s ago");
    let refused = store.finish(&first.held(), &Outcome::success(json!(null)), at(34)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
    // Expired, but nobody has taken it back: it still holds.
    store.finish(&second.held(), &Outcome::success(json!(null)), at(99)).await.unwrap();

    let timer = |task: &str| Timer::Task(TaskKey::new(task));
    let mut change = commit(store, run).await;
    change.timers = vec![
        (timer("a"), Some(at(100))),
        (timer("b"), Some(at(101))),
        (Timer::Late, Some(at(102))),
        (Timer::Long, None),
    ];
    store.commit(&change).await.unwrap();
    let mut change = commit(store, run).await;
    change.timers = vec![(timer("a"), Some(at(103))), (timer("b"), None)];
    store.commit(&change).await.unwrap();
    let rung = again.ring_timers(at(101), 10).await.unwrap();
    assert_eq!((rung.count, rung.next), (0, Some(at(102))));
    let rung = again.ring_timers(at(110), 1).await.unwrap();
    assert_eq!((rung.count, rung.next), (1, Some(at(103))));
    let rung = again.ring_timers(at(110), 10).await.unwrap();
    assert_eq!((rung.count, rung.next), (1, None));
    let (_, letters) = store.inbox(run).await.unwrap();
    let signals: Vec<Signal> = letters.into_iter().map(|letter| letter.signal).collect();
    let due = |timer, at| Signal::Due { timer, at };
    assert_eq!(signals, [due(Timer::Late, at(102)), due(timer("a"), at(103))]);
}

async fn pools_have_limits_and_runs_take_turns(store: &dyn MetaStore) {
    let pool = Pool { name: "narrow".to_owned(), slots: Some(3), rate: None };
    store.save_pool(&pool).await.unwrap();
    let big = make(store, new_run("big", 40, 0)).await;
    let small = make(store, new_run("small", 41, 0)).await;
    let rows = (0..5).map(|index| queued(&format!("big{index}"), "narrow")).collect();
    enqueue(store, big, rows).await;
    assert_eq!(names(&claim(store, "w", "narrow", 2, 0).await), ["big0", "big1"]);
    enqueue(store, small, vec![queued("small0", "narrow"), queued("small1", "narrow")]).await;
    enqueue(store, small, vec![Queued { priority: -1, ..queued("later", "narrow") }]).await;
    assert_eq!(names(&claim(store, "w", "narrow", 9, 0).await), ["big2"], "three slots");
    let uses = store.pools().await.unwrap();
    let narrow = uses.iter().find(|usage| usage.pool.name == "narrow").unwrap();
    assert_eq!((&narrow.pool, narrow.used, narrow.queued), (&pool, 3, 5));
    store.save_pool(&Pool { slots: Some(6), ..pool.clone() }).await.unwrap();
    let next = claim(store, "w", "narrow", 9, 0).await;
    assert_eq!(next.len(), 3);
    assert!(names(&next).contains(&"small0".to_owned()), "a run with few rows is not behind one with many: {next:?}");
    assert_eq!(store.lose_worker(&"w".into(), "gone", at(1)).await.unwrap(), 6, "slots come back with their leases");
    assert_eq!(claim(store, "w", "narrow", 9, 0).await.len(), 2);
    store.lose_worker(&"w".into(), "gone", at(1)).await.unwrap();

    // Wide ones are waited for, and the widest gets all there is.
    store.save_pool(&Pool { slots: Some(2), ..pool }).await.unwrap();
    let wide = |task, slots, priority| Queued { slots, priority, ..queued(task, "narrow") };
    enqueue(store, big, vec![wide("one", 1, 3), wide("two", 2, 2), wide("four", 4, 1), wide("last", 1, 0)]).await;
    for expected in ["one", "two", "four", "last"] {
        let work = claim(store, "w", "narrow", 9, 0).await;
        assert_eq!(names(&work), [expected]);
        store.finish(&work[0].held(), &Outcome::Cancelled, at(1)).await.unwrap();
    }
    store.remove_pool("narrow").await.unwrap();
    assert_eq!(store.remove_pool("narrow").await.unwrap_err().kind(), ErrorKind::NotFound);

    // Three in a minute: three at once, and then one every twenty seconds.
    let rate = Rate { count: 3, per: Duration::from_secs(60) };
    store.save_pool(&Pool { name: "slow".to_owned(), slots: None, rate: Some(rate) }).await.unwrap();
    enqueue(store, big, (0..5).map(|index| queued(&format!("slow{index}"), "slow")).collect()).await;
    let claimed = store.claim(&wish("w", "slow", 9, 0)).await.unwrap();
    assert_eq!((claimed.work.len(), claimed.again), (3, Some(at(20))));
    let claimed = store.claim(&wish("w", "slow", 9, 19)).await.unwrap();
    assert_eq!((claimed.work.len(), claimed.again), (0, Some(at(20))));
    let claimed = store.claim(&wish("w", "slow", 9, 40)).await.unwrap();
    assert_eq!((claimed.work.len(), claimed.again), (2, None));
    store.lose_worker(&"w".into(), "gone", at(1)).await.unwrap();
}

async fn runs_of_a_flow_begin_within_a_limit(store: &dyn MetaStore, again: &dyn MetaStore) {
    let flow = FlowName::from("limited");
    let runs: Vec<NewRun> = (0..4).map(|number| new_run("limited", 600 + number, 0)).collect();
    store.create_runs(&runs, at(0)).await.unwrap();
    let begun = NewRun { start: true, ..new_run("limited", 605, 0) };
    make(store, begun.clone()).await;
    assert_eq!(again.start_runs(&flow, 1).await.unwrap(), [], "one has begun already");
    assert_eq!(again.start_runs(&flow, 3).await.unwrap(), [runs[0].id, runs[1].id], "the oldest");
    assert_eq!(store.start_runs(&flow, 3).await.unwrap(), []);
    assert_eq!(store.inbox(runs[0].id).await.unwrap().1[0].signal, Signal::Start);
    assert_eq!(store.inbox(runs[2].id).await.unwrap().1, []);
    assert_eq!(store.start_runs(&FlowName::from("nobody"), 3).await.unwrap(), []);
    // One that ends makes room, and one that ended before its turn never gets one.
    for (run, state) in [(begun.id, RunState::Success), (runs[2].id, RunState::Cancelled)] {
        let mut end = commit(store, run).await;
        end.record.state = state;
        end.record.ended = Some(at(2));
        store.commit(&end).await.unwrap();
    }
    assert_eq!(again.start_runs(&flow, 3).await.unwrap(), [runs[3].id]);
}

async fn work_is_claimed_of_some_runs(store: &dyn MetaStore) {
    let first = make(store, new_run("some", 607, 0)).await;
    let second = make(store, new_run("some", 608, 0)).await;
    enqueue(store, first, vec![queued("a", "some"), queued("b", "other")]).await;
    enqueue(store, second, vec![queued("c", "some"), queued("d", "other")]).await;
    let of_second = Claim { only: vec![second], ..wish("w1", "some", 9, 2) };
    assert_eq!(names(&store.claim(&of_second).await.unwrap().work), ["c"]);
    let everywhere = Claim { pools: Vec::new(), ..of_second };
    assert_eq!(names(&store.claim(&everywhere).await.unwrap().work), ["d"]);
    let all = Claim { only: vec![second, first], ..everywhere };
    assert_eq!(names(&store.claim(&all).await.unwrap().work), ["a", "b"]);
}

async fn runs_are_kept_for_one_worker(store: &dyn MetaStore, again: &dyn MetaStore) {
    let (own, other) = (new_run("own", 609, 0), new_run("own", 610, 0));
    let (owner, stranger) = (WorkerId::from("owner"), WorkerId::from("stranger"));
    // Before it is there.
    store.keep_for(&owner, &[own.id]).await.unwrap();
    let (own, other) = (make(store, own).await, make(store, other).await);
    enqueue(store, own, vec![queued("a", "kept"), queued("b", "kept"), queued("c", "kept")]).await;
    enqueue(store, other, vec![queued("d", "kept"), queued("e", "kept")]).await;
    // What is kept for another is not in the way of what is not.
    assert_eq!(names(&claim(again, "stranger", "kept", 1, 0).await), ["d"]);
    let of_own = Claim { only: vec![own], ..wish("stranger", "kept", 9, 0) };
    assert_eq!(names(&store.claim(&of_own).await.unwrap().work), [""; 0]);
    assert_eq!(names(&claim(store, "owner", "kept", 2, 0).await), ["a", "b"]);
    assert_eq!(names(&claim(again, "stranger", "kept", 9, 0).await), ["e"]);
    // Another worker that is lost changes nothing.
    assert_eq!(store.lose_worker(&stranger, "gone", at(1)).await.unwrap(), 2);
    assert_eq!(names(&claim(again, "stranger", "kept", 9, 0).await), [""; 0]);
    assert_eq!(again.lose_worker(&owner, "gone", at(1)).await.unwrap(), 2);
    assert_eq!(names(&claim(store, "stranger", "kept", 9, 0).await), ["c"]);
    // Who has it already can be another.
    store.keep_for(&owner, &[own]).await.unwrap();
    store.keep_for(&stranger, &[own]).await.unwrap();
    store.lose_worker(&owner, "gone", at(1)).await.unwrap();
    enqueue(store, own, vec![queued("f", "kept")]).await;
    assert_eq!(names(&claim(store, "owner", "kept", 9, 0).await), [""; 0]);
    assert_eq!(names(&claim(store, "stranger", "kept", 9, 0).await), ["f"]);
}

async fn what_waits_is_found(store: &dyn MetaStore, again: &dyn MetaStore) {
    let run = make(store, new_run("wait", 50, 0)).await;
    let wait = |question: &str| Wait { on: WaitFor::Person { question: question.to_owned() }, until: Some(at(9)) };
    let notice = |occasion| Notice { run, occasion, at: at(1), cause: "exit code 1".to_owned() };
    let touched =
        |writes: &str| Touched { task: "a".into(), at: at(1), reads: vec![], writes: vec![writes.to_owned()] };
    let mut change = commit(store, run).await;
    change.waits = vec![
        (TaskKey::new("a"), Some((5, wait("now?")))),
        (TaskKey::new("b"), Some((6, wait("and now?")))),
        (TaskKey::new("c"), None),
    ];
    change.notices = vec![notice(Occasion::RunLate), notice(Occasion::TaskFailed { key: TaskKey::item("a", 1) })];
    change.touched = vec![touched("one"), touched("two")];
    store.commit(&change).await.unwrap();
    assert_eq!(again.touched_by(run).await.unwrap(), [touched("one"), touched("two")]);
    let another = make(store, new_run("wait", 51, 0)).await;
    assert_eq!(again.touched_by(another).await.unwrap(), []);
    let waits = again.waits(0, 10).await.unwrap();
    assert_eq!(waits.len(), 2);
    assert_eq!((&waits[0].key, waits[0].number, &waits[0].wait), (&TaskKey::new("a"), 5, &wait("now?")));
    assert_eq!(again.waits(waits[0].id, 10).await.unwrap(), waits[1..]);
    let mut change = commit(store, run).await;
    change.waits = vec![(TaskKey::new("a"), None)];
    store.commit(&change).await.unwrap();
    assert_eq!(again.waits(0, 10).await.unwrap(), waits[1..]);

    let first = store.take_notices(at(0), at(10), 1).await.unwrap();
    let second = again.take_notices(at(0), at(10), 9).await.unwrap();
    assert_eq!((first.len(), second.len()), (1, 1));
    assert_eq!(first[0].notice, notice(Occasion::RunLate));
    store.settle_notice(first[0].id).await.unwrap();
    store.settle_notice(first[0].id).await.unwrap();
    assert_eq!(store.take_notices(at(9), at(20), 9).await.unwrap(), []);
    assert_eq!(store.take_notices(at(10), at(20), 9).await.unwrap(), second, "given again after its time");
    store.settle_notice(second[0].id).await.unwrap();

    let (before, version) = (again.events(run, 0, 100).await.unwrap(), again.load(run).await.unwrap().version);
    let running = RunState::Running;
    let change = Change::Run { from: running, to: running };
    let noted = Event { run, at: at(11), change, cause: "nobody could be told".to_owned(), by: "scheduler".to_owned() };
    store.note(&noted).await.unwrap();
    let after = again.events(run, 0, 100).await.unwrap();
    assert_eq!((&after[..before.len()], &after[before.len()].1), (before.as_slice(), &noted));
    assert_eq!(again.load(run).await.unwrap().version, version, "the run is as it was");
    let nowhere = Event { run: new_run("wait", 99, 0).id, ..noted };
    assert_eq!(store.note(&nowhere).await.unwrap_err().kind(), ErrorKind::NotFound);

    let all = again.touched(0, 10).await.unwrap();
    assert_eq!(all.iter().map(|(_, _, touched)| touched.clone()).collect::<Vec<_>>(), [touched("one"), touched("two")]);
    assert_eq!(again.touched(all[0].0, 10).await.unwrap(), all[1..]);
}

async fn the_runs_before_and_after_know_each_other(store: &dyn MetaStore) {
    let june = make(store, new_run("months", 60, 600)).await;
    let april = make(store, new_run("months", 61, 400)).await;
    let may = make(store, new_run("months", 62, 500)).await;
    let other = NewRun { deployment: Some("green".to_owned()), ..new_run("months", 63, 550) };
    make(store, other).await;
    let task = TaskId::from("load");
    assert_eq!(store.past(april, &task).await.unwrap(), None);
    assert_eq!(store.past(may, &task).await.unwrap(), Some(TaskState::None));
    let mut change = commit(store, may).await;
    let mut load = TaskRun::new(TaskKey::new("load"), at(1));
    load.state = TaskState::Skipped;
    change.tasks = vec![load];
    change.to_next = vec![Signal::PastDone { task: task.clone() }];
    change.record.state = RunState::Success;
    assert_eq!(store.last_success(june).await.unwrap(), None);
    store.commit(&change).await.unwrap();
    assert_eq!(store.last_success(june).await.unwrap().unwrap().id, may);
    assert_eq!(store.last_success(may).await.unwrap(), None);
    assert_eq!(store.past(june, &task).await.unwrap(), Some(TaskState::Skipped));
    let (_, letters) = store.inbox(june).await.unwrap();
    assert_eq!(letters[0].signal, Signal::PastDone { task: task.clone() });
    assert_eq!(store.inbox(april).await.unwrap().1, []);
    let mut last = commit(store, june).await;
    last.to_next = vec![Signal::PastDone { task }];
    store.commit(&last).await.unwrap();
}

async fn schedules_move_on_once(store: &dyn MetaStore, again: &dyn MetaStore) {
    assert_eq!(store.cursor("daily").await.unwrap(), None);
    let step = |from: Option<&str>, to: &str, id| Advance {
        schedule: "daily".to_owned(),
        from: from.map(str::to_owned),
        to: to.to_owned(),
        runs: vec![NewRun { unique: Some(to.to_owned()), start: true, ..new_run("daily", id, 0) }],
    };
    let created = store.advance(&step(None, "one", 70), at(0)).await.unwrap();
    assert!(created[0].new);
    let late = again.advance(&step(None, "two", 71), at(0)).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Conflict, "{late}");
    let missing = again.run(RunId::new(Uuid::from_u128(71))).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound, "{missing}");
    assert_eq!(again.cursor("daily").await.unwrap().as_deref(), Some("one"));
    again.advance(&step(Some("one"), "two", 72), at(0)).await.unwrap();
    assert_eq!(store.cursor("daily").await.unwrap().as_deref(), Some("two"));
    assert_eq!(store.runs(&RunFilter { flow: Some("daily".into()), ..RunFilter::default() }).await.unwrap().len(), 2);
}

async fn objects_are_kept(store: &dyn MetaStore, again: &dyn MetaStore) {
    let version = FlowVersion::of(b"flow: x");
    assert_eq!(store.version(&version).await.unwrap_err().kind(), ErrorKind::NotFound);
    for _ in 0..2 {
        store.save_version(&"x".into(), &version, &Bytes::from_static(b"flow: x"), at(0)).await.unwrap();
    }
    assert_eq!(again.version(&version).await.unwrap(), "flow: x");

    store.set_paused(&"x".into(), true).await.unwrap();
    store.set_paused(&"a".into(), true).await.unwrap();
    store.set_paused(&"x".into(), true).await.unwrap();
    assert_eq!(again.paused().await.unwrap(), ["a".into(), "x".into()]);
    again.set_paused(&"a".into(), false).await.unwrap();
    assert_eq!(store.paused().await.unwrap(), ["x".into()]);

    assert!(!store.set_variable("color", Some("yellow")).await.unwrap());
    assert!(again.set_variable("color", Some("green")).await.unwrap());
    assert!(!store.set_variable("empty", Some("")).await.unwrap());
    let variables = store.variables().await.unwrap();
    assert_eq!(
        variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect::<Vec<_>>(),
        [("color", "green"), ("empty", "")]
    );
    assert!(store.set_variable("empty", None).await.unwrap());
    assert!(!again.set_variable("empty", None).await.unwrap());
    assert_eq!(again.variables().await.unwrap().len(), 1);

    let backfill = |id: &str, created| Backfill {
        id: id.to_owned(),
        flow: "x".into(),
        version: version.clone(),
        deployment: None,
        from: at(0),
        to: at(100),
        reprocess: "none".to_owned(),
        reverse: false,
        max_active: 3,
        params: Map::new(),
        state: BackfillState::Running,
        total: 100_000,
        by: "ann".to_owned(),
        created: at(created),
    };
    store.save_backfill(&backfill("first", 1)).await.unwrap();
    store.save_backfill(&backfill("second", 2)).await.unwrap();
    let stopped = Backfill { state: BackfillState::Cancelled, ..backfill("first", 1) };
    again.save_backfill(&stopped).await.unwrap();
    assert_eq!(store.backfills().await.unwrap(), [backfill("second", 2), stopped]);

    let worker = |id: &str, seen| WorkerRecord {
        id: id.into(),
        host: "here".to_owned(),
        process: 7,
        version: "0.1.0".to_owned(),
        pools: vec!["default".to_owned()],
        slots: 8,
        started: at(0),
        seen: at(seen),
        draining: false,
        schedules: true,
        commanded: false,
        boot: "a".to_owned(),
        born: 3,
    };
    store.beat(&worker("w2", 1)).await.unwrap();
    store.beat(&worker("w1", 5)).await.unwrap();
    again.beat(&worker("w2", 9)).await.unwrap();
    assert_eq!(store.workers().await.unwrap(), [worker("w1", 5), worker("w2", 9)]);
    assert_eq!(store.forget_workers(at(9)).await.unwrap(), 1);
    assert_eq!(again.workers().await.unwrap(), [worker("w2", 9)]);
}

async fn whoever_listens_is_woken(store: &dyn MetaStore) {
    use futures::StreamExt as _;
    let mut wakes = store.wakes();
    let run = make(store, NewRun { start: true, ..new_run("wake", 80, 0) }).await;
    enqueue(store, run, vec![queued("a", "wake")]).await;
    let mut missing = vec![Wake::Inbox, Wake::Queue, Wake::Run];
    while !missing.is_empty() {
        let wake = wakes.next().await.unwrap();
        missing.retain(|other| *other != wake);
    }
    let work = claim(store, "w", "wake", 1, 0).await;
    let mut change = commit(store, run).await;
    change.stops = vec![(work[0].lease.key.clone(), work[0].lease.number, "ann cancelled it".to_owned())];
    change.timers = vec![(Timer::Long, Some(at(-9_000)))];
    change.waits = vec![(TaskKey::new("b"), Some((1, Wait { on: WaitFor::Time { at: at(7) }, until: None })))];
    change.notices = vec![Notice { run, occasion: Occasion::RunLong, at: at(1), cause: "slow".to_owned() }];
    store.commit(&change).await.unwrap();
    let mut missing = vec![Wake::Stop, Wake::Timer, Wake::Wait, Wake::Notice];
    while !missing.is_empty() {
        let wake = wakes.next().await.unwrap();
        missing.retain(|other| *other != wake);
    }
    store.finish(&work[0].held(), &Outcome::Cancelled, at(1)).await.unwrap();
    let mut change = commit(store, run).await;
    change.timers = vec![(Timer::Long, None)];
    change.waits = vec![(TaskKey::new("b"), None)];
    store.commit(&change).await.unwrap();
}

async fn history_is_pruned(store: &dyn MetaStore) {
    let ended = make(store, NewRun { unique: Some("old".to_owned()), ..new_run("old", 90, 0) }).await;
    let open = make(store, new_run("old", 91, 0)).await;
    let mut change = commit(store, ended).await;
    change.record.state = RunState::Success;
    change.record.ended = Some(at(-100));
    change.timers = vec![(Timer::Late, Some(at(0)))];
    store.commit(&change).await.unwrap();
    assert_eq!(store.ended_before(at(-100)).await.unwrap(), []);
    assert_eq!(store.prune(at(-100), 10).await.unwrap(), 0);
    assert_eq!(store.ended_before(at(-99)).await.unwrap(), [ended]);
    assert_eq!(store.prune(at(-99), 10).await.unwrap(), 1);
    assert_eq!(store.run(ended).await.unwrap_err().kind(), ErrorKind::NotFound);
    store.run(open).await.unwrap();
    assert_eq!(store.ring_timers(at(1), 10).await.unwrap().count, 0);
    // A version that a run has is kept; one that is younger may be about to be used.
    store.save_version(&"old".into(), &FlowVersion::of(b"old"), &Bytes::from_static(b"old"), at(-200)).await.unwrap();
    store.save_version(&"old".into(), &FlowVersion::of(b"gone"), &Bytes::from_static(b"gone"), at(-200)).await.unwrap();
    store.prune(at(-99), 10).await.unwrap();
    store.version(&FlowVersion::of(b"old")).await.unwrap();
    store.version(&FlowVersion::of(b"flow: x")).await.unwrap();
    assert_eq!(store.version(&FlowVersion::of(b"gone")).await.unwrap_err().kind(), ErrorKind::NotFound);
    make(store, NewRun { unique: Some("old".to_owned()), ..new_run("old", 92, 0) }).await;
}
