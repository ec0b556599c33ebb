//! One story: what its seed makes of it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta};
use flumen_core::clock::Clock as _;
use flumen_core::flow::store::NewRun;
use flumen_core::flow::{Answer, Ask, FlowVersion, Interval, Origin, RunId, RunRecord, TaskKey};
use flumen_core::testkit::seeds::Random;
use flumen_core::{Error, Result};
use flumen_flow::definition::{Catchup, OnOverlap};
use flumen_flow::machine::{Graph, Run};
use flumen_scheduler::{Flows, News, Parts, Watcher};
use serde_json::Map;
use uuid::Uuid;

use super::facts::{self, Definition, Era, Facts, FlowFacts, Life, Span};
use super::tables::{Moment, Place, Table};
use super::workers::Worker;
use crate::gate::{Deed, Gate, Gated, Log};
use crate::world::{self, Process, TokioClock, World, first_day};

/// A clock that is moved on by more than this, while nothing else happens, shows that the machine slept.
const JUMP: std::ops::RangeInclusive<i64> = 210..=10_000;
/// One that is moved on by less than this does not.
const STEP: std::ops::RangeInclusive<i64> = 1..=100;
/// How long the clock is left alone after it was moved.
const CALM: TimeDelta = TimeDelta::seconds(150);
/// How often the end of everything is looked for, and how long it takes from one look to the next.
const LOOKS: (usize, Duration) = (60, Duration::from_secs(30));

/// The flows in all their editions.
#[derive(Default)]
struct Editions(Mutex<HashMap<FlowVersion, Arc<Graph>>>);

#[async_trait]
impl Flows for Editions {
    async fn graph(&self, record: &RunRecord) -> Result<Arc<Graph>> {
        let graph = self.0.lock().unwrap().get(&record.version).cloned();
        graph.ok_or_else(|| Error::not_found(format!("there is no such edition of '{}'", record.flow)))
    }

    async fn answer(&self, _: &Run, _: &Graph, _: &TaskKey, _: Ask) -> Option<Answer> {
        None
    }
}

/// Keeps what schedulers say.
struct Chronicle {
    clock: Arc<TokioClock>,
    news: Mutex<Vec<facts::News>>,
    /// What should never be said.
    wrong: Mutex<Vec<String>>,
}

struct Teller {
    by: usize,
    chronicle: Arc<Chronicle>,
}

impl Watcher for Teller {
    fn store_fails(&self, _: &Error) {}
    fn run_fails(&self, run: RunId, error: &Error) {
        self.chronicle.wrong.lock().unwrap().push(format!("run {run} fails: {error}"));
    }
    fn refused(&self, _: RunId, _: Option<&TaskKey>, _: &str) {}
    fn told(&self, news: &News<'_>) {
        let (missed, flow, first, last) = match news {
            News::Missed { flow, first, last } => (true, *flow, *first, *last),
            News::LeftOut { flow, first, last } => (false, *flow, *first, *last),
            news => return self.chronicle.wrong.lock().unwrap().push(format!("{news:?}")),
        };
        let (by, at, flow) = (self.by, self.chronicle.clock.now(), flow.to_owned());
        self.chronicle.news.lock().unwrap().push(facts::News { by, at, flow, missed, first, last });
    }
}

struct Scheduler {
    number: usize,
    store: Arc<Gated>,
    process: Process,
}

pub struct Story {
    random: Random,
    seed: u64,
    place: Place,
    world: World,
    editions: Arc<Editions>,
    chronicle: Arc<Chronicle>,
    log: Log,
    schedulers: Vec<Scheduler>,
    /// Whether stores fail in it.
    has_faults: bool,
    facts: Facts,
    marks: u64,
    trace: Vec<String>,
}

impl Story {
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let (place, world) = (Place::random(&mut random), World::in_memory());
        world.clock.jump((place.base - first_day()).to_std().unwrap());
        let chronicle = Chronicle { clock: Arc::clone(&world.clock), news: Mutex::default(), wrong: Mutex::default() };
        Self {
            has_faults: random.percent(50),
            random,
            seed,
            place,
            world,
            editions: Arc::default(),
            chronicle: Arc::new(chronicle),
            log: Log::default(),
            schedulers: Vec::new(),
            facts: Facts::default(),
            marks: 0,
            trace: Vec::new(),
        }
    }

    /// Tells it. What happened, and the facts.
    pub async fn play(mut self) -> (Vec<String>, std::result::Result<Facts, String>) {
        for number in 0..2 + self.random.below(4) {
            let definition = self.definition(format!("flow{number}"));
            self.facts.flows.push(FlowFacts { name: definition.name.clone(), ..FlowFacts::default() });
            self.put(number, definition);
        }
        let hurries = Arc::new(AtomicBool::new(false));
        let worker = Worker {
            seed: self.seed,
            store: Arc::clone(&self.world.store),
            clock: Arc::clone(&self.world.clock),
            hurries: Arc::clone(&hurries),
        };
        let worker = tokio::spawn(worker.work());
        for _ in 0..10 + self.random.below(18) {
            self.wait().await;
            self.act().await;
        }
        hurries.store(true, Ordering::SeqCst);
        let ended = self.finish().await;
        worker.abort();
        self.collect().await;
        let wrong = std::mem::take(&mut *self.chronicle.wrong.lock().unwrap());
        let result = match wrong.first() {
            Some(wrong) => Err(format!("somebody said: {wrong}")),
            None => ended,
        };
        (self.trace, result.map(|()| self.facts))
    }

    fn now(&self) -> Moment {
        self.world.clock.now()
    }

    fn note(&mut self, what: String) {
        self.trace.push(format!("{} {what}", self.now().format("%d %H:%M:%S%.3f")));
    }

    fn definition(&mut self, name: String) -> Definition {
        let random = &mut self.random;
        self.marks += 1;
        Definition {
            name,
            table: Table::random(random, &self.place),
            catchup: *random.pick(&[Catchup::All, Catchup::Last, Catchup::None]),
            overlap: *random.pick(&[OnOverlap::Queue, OnOverlap::Skip, OnOverlap::CancelRunning]),
            limit: *random.pick(&[1, 1, 2, 2, 3, 4]),
            mark: self.marks,
        }
    }

    /// The file of a flow is written.
    fn put(&mut self, flow: usize, definition: Definition) {
        let entry = world::entry(definition.flow());
        self.note(format!("{definition:?}"));
        let version = entry.version.clone();
        self.editions.0.lock().unwrap().insert(version.clone(), Arc::new(entry.flow.graph.clone()));
        self.world.project.put([entry]);
        self.take_out(flow);
        let span = Span::since(self.now());
        self.facts.flows[flow].eras.push(Era { definition, version, span });
    }

    /// What a flow's file says, while it is there.
    fn current(&self, flow: usize) -> Option<&Era> {
        self.facts.flows[flow].eras.last().filter(|era| era.span.to.is_none())
    }

    fn take_out(&mut self, flow: usize) {
        let now = self.now();
        if let Some(era) = self.facts.flows[flow].eras.last_mut() {
            era.span.to.get_or_insert(now);
        }
    }

    /// Lets time pass: a little, a lot, or until a flow is about to fire.
    async fn wait(&mut self) {
        let now = self.now();
        let time = match self.random.below(5) {
            0 => TimeDelta::milliseconds(self.random.between(1, 60_000)),
            1..=2 => {
                let flow = self.random.below(self.facts.flows.len());
                let table = self.facts.flows[flow].eras.last().map(|era| era.definition.table.clone()).unwrap();
                let next = table.intervals(now + TimeDelta::seconds(3), now + TimeDelta::minutes(30));
                let next = next.first().map_or(now + TimeDelta::minutes(1), |interval| interval.end);
                next - now + TimeDelta::milliseconds(*self.random.pick(&[-1_500, -700, -1, 0, 0, 1, 5, 900, 2_500]))
            }
            _ => TimeDelta::milliseconds(self.random.between(30_000, 700_000)),
        };
        self.world.pass(time.to_std().unwrap()).await;
    }

    /// Something happens.
    async fn act(&mut self) {
        let flow = self.random.below(self.facts.flows.len());
        match self.random.below(20) {
            _ if self.schedulers.is_empty() && self.random.percent(60) => self.start(),
            0..=2 if self.schedulers.len() < 3 => self.start(),
            3..=4 => self.end_one().await,
            5..=7 => self.crash_one().await,
            8..=9 => self.pause(flow, true).await,
            10..=11 => self.pause(flow, false).await,
            12 => self.change(flow),
            13 => {
                // The one on the heels of the other.
                self.pause(flow, false).await;
                self.change(flow);
            }
            14 if self.random.percent(50) => {
                let name = self.facts.flows[flow].name.clone();
                self.note(format!("{name} is taken out"));
                self.world.project.remove(&name);
                self.take_out(flow);
            }
            15 => self.move_clock(),
            16 => self.ask(flow).await,
            17..=19 if self.has_faults => self.trouble(),
            _ => {}
        }
    }

    fn start(&mut self) {
        let number = self.facts.lives.len();
        let gate = Gate {
            twice: AtomicBool::new(true),
            slow: AtomicBool::new(self.random.percent(50)),
            count: AtomicU64::new(self.random.number() >> 20),
            ..Gate::default()
        };
        let (clock, log) = (Arc::clone(&self.world.clock), Arc::clone(&self.log));
        let store = Gated::logged(Arc::clone(&self.world.store), gate, number, log, move || clock.now());
        let store = Arc::new(store);
        let process = self.world.start(Parts {
            store: Arc::clone(&store) as _,
            flows: Arc::clone(&self.editions) as _,
            watcher: Arc::new(Teller { by: number, chronicle: Arc::clone(&self.chronicle) }),
            ..self.world.parts()
        });
        self.note(format!("scheduler {number} starts"));
        let span = Span::since(self.now());
        self.facts.lives.push(Life { span, away: Vec::new(), lossy: Vec::new() });
        self.schedulers.push(Scheduler { number, store, process });
    }

    fn take_one(&mut self) -> Option<Scheduler> {
        let count = self.schedulers.len();
        (count > 0).then(|| self.schedulers.remove(self.random.below(count)))
    }

    async fn end_one(&mut self) {
        let Some(scheduler) = self.take_one() else { return };
        self.note(format!("scheduler {} is stopped", scheduler.number));
        scheduler.process.end().await;
        self.facts.lives[scheduler.number].span.to = Some(self.now());
    }

    /// A scheduler is killed in the middle of whatever it does.
    async fn crash_one(&mut self) {
        let Some(scheduler) = self.take_one() else { return };
        for _ in 0..self.random.below(60) {
            tokio::task::yield_now().await;
        }
        drop(scheduler.process);
        self.note(format!("scheduler {} is killed", scheduler.number));
        self.facts.lives[scheduler.number].span.to = Some(self.now());
    }

    async fn pause(&mut self, flow: usize, paused: bool) {
        let now = self.now();
        let facts = &mut self.facts.flows[flow];
        let is_paused = facts.pauses.last().is_some_and(|pause| pause.to.is_none());
        if is_paused == paused {
            return;
        }
        match paused {
            true => facts.pauses.push(Span::since(now)),
            false => facts::end(&mut facts.pauses, now),
        }
        let name = facts.name.clone();
        self.note(format!("{name} {}", if paused { "is paused" } else { "goes on" }));
        self.world.store.set_paused(&name.as_str().into(), paused).await.unwrap();
    }

    /// A flow's file is changed, or comes back.
    fn change(&mut self, flow: usize) {
        let fresh = self.definition(self.facts.flows[flow].name.clone());
        let last = self.facts.flows[flow].eras.last().map(|era| era.definition.clone()).unwrap();
        let (mark, table) = (fresh.mark, fresh.table.clone());
        let changed = match self.random.below(4) {
            0 => Definition { mark, ..last },
            1 => Definition { limit: fresh.limit, mark, ..last },
            2 => Definition { mark, table, ..last },
            _ => fresh,
        };
        self.put(flow, changed);
    }

    /// The clock is set, or the machine was off.
    fn move_clock(&mut self) {
        let before = self.now();
        if self.facts.jumps.last().is_some_and(|(_, after)| before - *after < CALM) {
            return;
        }
        let by = if self.random.percent(30) { STEP } else { JUMP };
        let by = self.random.between(*by.start(), *by.end());
        self.note(format!("the clock jumps by {by} s"));
        self.world.clock.jump(Duration::from_secs(by as u64));
        self.facts.jumps.push((before, self.now()));
    }

    /// Somebody runs a flow.
    async fn ask(&mut self, flow: usize) {
        let (now, id) = (self.now(), self.random.number());
        let Some(era) = self.current(flow) else { return };
        let new = NewRun {
            id: RunId::new(Uuid::from_u128(u128::from(id))),
            flow: era.definition.name.as_str().into(),
            version: era.version.clone(),
            deployment: None,
            interval: Interval::at(now),
            params: Map::new(),
            origin: Origin::Person { name: "ann".to_owned() },
            unique: None,
            start: false,
        };
        self.note(format!("ann runs {}", new.flow));
        self.world.store.create_runs(&[new], now).await.unwrap();
    }

    /// What a scheduler sees of the store begins to fail, or stands again.
    fn trouble(&mut self) {
        let (now, count) = (self.now(), self.schedulers.len());
        if count == 0 {
            return;
        }
        let Scheduler { number, store, .. } = &self.schedulers[self.random.below(count)];
        let (number, gate, life) = (*number, &store.gate, &mut self.facts.lives[*number]);
        let is_lossy = gate.every.load(Ordering::SeqCst) > 0;
        let is_closed = gate.closed.load(Ordering::SeqCst);
        let what = if is_lossy || is_closed {
            gate.every.store(0, Ordering::SeqCst);
            gate.closed.store(false, Ordering::SeqCst);
            facts::end(&mut life.lossy, now);
            facts::end(&mut life.away, now);
            "reaches the store again"
        } else if self.random.percent(35) {
            gate.closed.store(true, Ordering::SeqCst);
            life.away.push(Span::since(now));
            "cannot reach the store"
        } else {
            gate.every.store(*self.random.pick(&[4, 5, 7, 11, 29]), Ordering::SeqCst);
            life.lossy.push(Span::since(now));
            "loses calls and answers"
        };
        self.note(format!("scheduler {number} {what}"));
    }

    /// All goes well again, and everything ends.
    async fn finish(&mut self) -> std::result::Result<(), String> {
        for flow in 0..self.facts.flows.len() {
            self.pause(flow, false).await;
            if self.current(flow).is_none() {
                self.change(flow);
            }
        }
        while self.schedulers.len() > 1 {
            self.end_one().await;
        }
        if self.schedulers.is_empty() {
            self.start();
        }
        let now = self.now();
        let Scheduler { number, store, .. } = &self.schedulers[0];
        store.gate.every.store(0, Ordering::SeqCst);
        store.gate.closed.store(false, Ordering::SeqCst);
        facts::end(&mut self.facts.lives[*number].lossy, now);
        facts::end(&mut self.facts.lives[*number].away, now);
        self.note("all goes well".to_owned());
        self.world.pass(Duration::from_secs(150)).await;
        let mut left = Vec::new();
        for _ in 0..LOOKS.0 {
            self.world.pass(LOOKS.1).await;
            left.clear();
            for flow in &self.facts.flows {
                let runs = self.world.runs(&flow.name).await;
                let open = runs.into_iter().filter(|run| !run.state.is_terminal());
                left.extend(open.map(|run| format!("{} {} {}", run.flow, world::short(run.interval), run.state)));
            }
            if left.is_empty() {
                return Ok(());
            }
        }
        Err(format!("these do not end: {left:?}"))
    }

    /// Gathers what is known now.
    async fn collect(&mut self) {
        self.schedulers.clear();
        self.facts.end = self.now();
        self.facts.deeds = self.log.lock().unwrap().clone();
        self.facts.news = self.chronicle.news.lock().unwrap().clone();
        let shown = |moment: DateTime<chrono::Utc>| moment.format("%d %H:%M:%S%.3f").to_string();
        for done in &self.facts.deeds {
            let answered = if done.answered { "" } else { ", and does not know" };
            self.trace.push(match &done.deed {
                Deed::Advanced(to) => {
                    let runs: Vec<String> = to.runs.iter().map(|run| world::short(run.interval)).collect();
                    let (at, by) = (shown(done.at), done.by);
                    format!("{at} scheduler {by} makes {runs:?}, {} to {}{answered}", to.schedule, to.to)
                }
                Deed::Cancelled(run) => format!("{} scheduler {} cancels {run}", shown(done.at), done.by),
            });
        }
        for news in &self.facts.news {
            self.trace.push(format!("{} {news:?}", shown(news.at)));
        }
        for flow in &mut self.facts.flows {
            flow.runs = self.world.runs(&flow.name).await;
            for run in &flow.runs {
                self.trace.push(format!(
                    "{} of {} {}: made {}, begun {:?}, ended {:?} {}, {}",
                    run.id,
                    run.flow,
                    world::short(run.interval),
                    shown(run.created),
                    run.started.map(shown),
                    run.ended.map(shown),
                    run.state,
                    run.cause
                ));
            }
        }
    }
}
