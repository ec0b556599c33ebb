//! The world of one seed: a store, schedulers, workers, people, a clock.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use flumen_core::flow::store::{Advance, MetaStore, NewRun, Pool, Rate, RunFilter};
use flumen_core::flow::{
    Answer, Ask, FlowName, FlowVersion, Interval, Origin, Outcome, RunId, RunState, Signal, TaskKey, TaskState, WaitFor,
};
use flumen_core::testkit::seeds::Random;
use flumen_core::{ErrorKind, Result as Answered};
use flumen_flow::machine::{Graph, Run};
use flumen_store::memory::MemoryStore;
use futures::FutureExt as _;
use serde_json::{Map, Value, json};

use crate::checks::Model;
use crate::flows::{POOLS, flow};
use crate::schedulers::Scheduler;
use crate::workers::Worker;

/// How long a lease is.
pub const LEASE: TimeDelta = TimeDelta::seconds(30);
/// The interval of schedules, and how many there are.
const EVERY: i64 = 60;
const INTERVALS: i64 = 3;
/// After how many rounds without faults every run must have ended.
const PATIENCE: usize = 6_000;
/// How many rounds pass from one look at whether all is over to the next.
const LOOK_EVERY: usize = 20;

pub struct World {
    pub random: Random,
    pub store: MemoryStore,
    pub now: DateTime<Utc>,
    pub flows: BTreeMap<FlowName, Arc<Graph>>,
    pub runs: Vec<RunId>,
    pub schedulers: Vec<Scheduler>,
    pub workers: Vec<Worker>,
    pub model: Model,
    pub trace: Vec<String>,
    /// Whether things go wrong.
    pub faults: bool,
    /// Letters that were read, to be delivered once more.
    pub delivered: Vec<(RunId, Signal)>,
    /// Flows whose runs are made by their schedule alone.
    scheduled: Vec<FlowName>,
    start: DateTime<Utc>,
    /// A step of a schedule that a scheduler has in hand.
    steps: Vec<Advance>,
}

/// What a call to a store that never waits answers.
pub fn at_once<T>(call: impl Future<Output = T>) -> T {
    call.now_or_never().unwrap()
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let start = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
        let mut flows = BTreeMap::new();
        for name in ["alpha", "beta"].into_iter().take(1 + random.below(2)) {
            flows.insert(FlowName::from(name), Arc::new(flow(&mut random, name)));
        }
        let scheduled = flows.keys().filter(|_| random.percent(50)).cloned().collect();
        let store = MemoryStore::new();
        for name in POOLS {
            let slots = random.percent(60).then(|| random.between(1, 4) as u32);
            let rate = (name == "slow").then_some(Rate { count: 2, per: std::time::Duration::from_secs(5) });
            at_once(store.save_pool(&Pool { name: name.to_owned(), slots, rate })).unwrap();
        }
        let schedulers = (0..1 + random.below(2)).map(Scheduler::new).collect();
        let workers = (0..1 + random.below(3)).map(Worker::new).collect();
        let model = Model::default();
        Self {
            random,
            store,
            now: start,
            flows,
            runs: Vec::new(),
            schedulers,
            workers,
            model,
            trace: Vec::new(),
            faults: true,
            delivered: Vec::new(),
            scheduled,
            start,
            steps: Vec::new(),
        }
    }

    pub fn say(&mut self, what: impl AsRef<str>) {
        let seconds = (self.now - self.start).as_seconds_f64();
        self.trace.push(format!("{seconds:7.1} {}", what.as_ref()));
    }

    pub fn play(&mut self) -> Result<(), String> {
        for (name, graph) in self.flows.clone() {
            for (number, node) in graph.nodes().iter().enumerate() {
                self.say(format!("flow {name}: {number} {node:?}"));
            }
        }
        let steps = 60 + self.random.below(200);
        for _ in 0..steps {
            self.step()?;
            self.check_pools()?;
        }
        self.say("no more faults");
        self.faults = false;
        for round in 0.. {
            if round > PATIENCE {
                return Err(format!("some runs never end: {:?}", self.open_runs()));
            }
            if round % LOOK_EVERY == 0 && self.is_quiet() {
                if self.has_run_all() && self.open_runs().is_empty() {
                    break;
                }
                self.help();
            }
            self.step()?;
        }
        self.check_pools()?;
        self.check_end()
    }

    fn step(&mut self) -> Result<(), String> {
        match self.random.below(100) {
            0..30 => {
                let scheduler = self.random.below(self.schedulers.len());
                self.schedule(scheduler)
            }
            30..60 => {
                let worker = self.random.below(self.workers.len());
                self.work(worker)
            }
            60..72 => self.pass_time(),
            72..80 => self.ring(),
            80..86 => self.watch(),
            86..91 => self.advance(),
            91..94 => self.wish(),
            94..97 if self.faults => self.deliver_twice(),
            97..100 if self.faults => self.command(),
            _ => self.pass_time(),
        }
    }

    fn pass_time(&mut self) -> Result<(), String> {
        if self.faults && self.random.percent(5) {
            let seconds = *self.random.pick(&[-40, -5, 45, 200]);
            self.now += TimeDelta::seconds(seconds);
            self.say(format!("the clock jumps by {seconds} s"));
        } else {
            self.now += TimeDelta::milliseconds(self.random.between(0, 6_000));
        }
        Ok(())
    }

    fn ring(&mut self) -> Result<(), String> {
        let timers = at_once(self.store.ring_timers(self.now, 3)).map_err(|error| error.to_string())?;
        let leases = at_once(self.store.expire_leases(self.now, 3)).map_err(|error| error.to_string())?;
        if timers.count + leases.count > 0 {
            self.say(format!("{} timers ring, {} leases have expired", timers.count, leases.count));
        }
        Ok(())
    }

    /// Ends what deferred tasks wait for.
    fn watch(&mut self) -> Result<(), String> {
        let waits = at_once(self.store.waits(0, 100)).unwrap();
        if waits.is_empty() {
            return Ok(());
        }
        let wait = self.random.pick(&waits).clone();
        if let WaitFor::Person { .. } = wait.wait.on {
            let yes = self.random.percent(70);
            let signal = Signal::Approve { key: wait.key.clone(), yes, by: "ann".to_owned(), note: String::new() };
            self.say(format!("ann answers {} of {}: {yes}", wait.key, wait.run));
            return self.send(wait.run, &signal);
        }
        let outcome = match self.random.below(10) {
            0 => Outcome::Failure(flumen_core::flow::Failure::new("sensor", "it broke")),
            1 if self.faults => Outcome::Rescheduled { until: self.now },
            _ => Outcome::success(Value::Null),
        };
        self.say(format!("what {} of {} waits for is there: {outcome:?}", wait.key, wait.run));
        self.send(wait.run, &Signal::Ended { key: wait.key, number: wait.number, outcome, at: self.now })
    }

    pub fn send(&mut self, run: RunId, signal: &Signal) -> Result<(), String> {
        at_once(self.store.send(run, signal)).map_err(|error| error.to_string())
    }

    fn new_run(&mut self, flow: &FlowName, interval: Interval) -> NewRun {
        NewRun {
            id: RunId::new(self.random.uuid()),
            flow: flow.clone(),
            version: FlowVersion::of(flow.as_str().as_bytes()),
            deployment: None,
            interval,
            params: Map::new(),
            origin: Origin::Schedule,
            unique: None,
            start: true,
        }
    }

    /// A scheduler looks which intervals are due, and makes their runs: each once, whoever else does so.
    fn advance(&mut self) -> Result<(), String> {
        if let Some(step) = self.steps.pop() {
            if self.faults && self.random.percent(15) {
                self.say(format!("a scheduler crashes before it moves {} on", step.schedule));
                return Ok(());
            }
            return match at_once(self.store.advance(&step, self.now)) {
                Ok(created) => {
                    self.say(format!("{} moves from {:?} to {}", step.schedule, step.from, step.to));
                    self.runs.extend(created.iter().filter(|created| created.new).map(|created| created.id));
                    Ok(())
                }
                Err(error) if error.kind() == ErrorKind::Conflict => Ok(()),
                Err(error) => Err(error.to_string()),
            };
        }
        let flows: Vec<FlowName> = self.scheduled.clone();
        for flow in flows {
            let cursor = at_once(self.store.cursor(flow.as_str())).unwrap();
            let done: i64 = cursor.as_ref().map_or(0, |text| text.parse().unwrap());
            let due = ((self.now - self.start).num_seconds() / EVERY).clamp(0, INTERVALS);
            if due <= done {
                continue;
            }
            let mut runs = Vec::new();
            for number in done..due {
                let begin = self.start + TimeDelta::seconds(number * EVERY);
                let interval = Interval { start: begin, end: begin + TimeDelta::seconds(EVERY) };
                runs.push(NewRun { unique: Some(number.to_string()), ..self.new_run(&flow, interval) });
            }
            let step = Advance { schedule: flow.to_string(), from: cursor, to: due.to_string(), runs };
            // Another one may come to the same conclusion, before or after.
            if self.random.percent(30) {
                self.steps.push(step.clone());
            }
            self.steps.push(step);
        }
        Ok(())
    }

    fn has_run_all(&self) -> bool {
        self.scheduled.iter().all(|flow| {
            let cursor = at_once(self.store.cursor(flow.as_str())).unwrap();
            cursor.is_some_and(|cursor| cursor == INTERVALS.to_string())
        })
    }

    /// Somebody wants a run, and perhaps asks twice.
    fn wish(&mut self) -> Result<(), String> {
        let names: Vec<FlowName> = self.flows.keys().cloned().collect();
        let flow = self.random.pick(&names).clone();
        if self.runs.len() >= 6 || self.scheduled.contains(&flow) || !self.faults {
            return Ok(());
        }
        let begin = self.start + TimeDelta::seconds(self.random.between(-100, 100));
        let new = self.new_run(&flow, Interval::at(begin));
        self.say(format!("bob wants run {} of {flow}", new.id));
        let twice = if self.random.percent(30) { vec![new.clone(), new.clone()] } else { vec![new.clone()] };
        let created = at_once(self.store.create_runs(&twice, self.now)).map_err(|error| error.to_string())?;
        if created.iter().filter(|created| created.new).count() != 1 {
            return Err(format!("run {} was made {created:?}", new.id));
        }
        self.runs.push(new.id);
        Ok(())
    }

    fn deliver_twice(&mut self) -> Result<(), String> {
        if self.delivered.is_empty() {
            return Ok(());
        }
        let (run, signal) = self.random.pick(&self.delivered).clone();
        self.say(format!("a letter comes twice: {signal:?}"));
        self.send(run, &signal)
    }

    /// A person asks something of a run.
    fn command(&mut self) -> Result<(), String> {
        if self.runs.is_empty() {
            return Ok(());
        }
        let run = *self.random.pick(&self.runs);
        let loaded = at_once(self.store.load(run)).unwrap();
        let graph = &self.flows[&loaded.record.flow];
        let mut keys: Vec<TaskKey> = loaded.tasks.iter().map(|task| task.key.clone()).collect();
        keys.extend(graph.nodes().iter().map(|node| TaskKey::new(node.id.clone())));
        let key = self.random.pick(&keys).clone();
        let by = "ann".to_owned();
        let signal = match self.random.below(12) {
            0 | 1 => Signal::Cancel { by },
            2 | 3 => Signal::Pause { by },
            4 | 5 => Signal::Resume { by },
            6 | 7 => Signal::Retry { by },
            8 | 9 => {
                let mut keys = vec![key];
                keys.extend(self.random.percent(30).then(|| TaskKey::new("t0")));
                Signal::Clear { keys, downstream: self.random.percent(70), by }
            }
            _ => {
                let to = *self.random.pick(&[TaskState::Success, TaskState::Failed, TaskState::Skipped]);
                Signal::Mark { key, to, by }
            }
        };
        self.say(format!("ann asks of {run}: {signal:?}"));
        self.send(run, &signal)
    }

    /// The answer to a question of a run; `None` where there is none yet.
    pub fn answer(&mut self, run: RunId, key: &TaskKey, ask: Ask) -> Option<Answer> {
        if self.faults && ask != Ask::Past && self.random.percent(5) {
            return None;
        }
        let wrong = self.faults && self.random.percent(3);
        Some(match ask {
            Ask::Past => {
                let past = at_once(self.store.past(run, &key.task)).unwrap();
                Answer::Past { done: past.is_none_or(|state| matches!(state, TaskState::Success | TaskState::Skipped)) }
            }
            _ if wrong => Answer::Failed { message: "unknown name 'colour'".to_owned() },
            Ask::When => Answer::When { holds: self.random.percent(75) },
            Ask::Items => Answer::Items { items: self.items() },
        })
    }

    /// A random list.
    pub fn items(&mut self) -> Vec<Value> {
        (0..self.random.below(6)).map(|index| json!(index)).collect()
    }

    // The end.

    fn open_runs(&self) -> Vec<RunId> {
        let runs = at_once(self.store.runs(&RunFilter::default())).unwrap();
        runs.iter().filter(|run| !run.state.is_terminal()).map(|run| run.id).collect()
    }

    /// Whether nothing goes on by itself any more.
    fn is_quiet(&self) -> bool {
        let has_letters = self.runs.iter().any(|run| !at_once(self.store.inbox(*run)).unwrap().1.is_empty());
        let has_leases = self.runs.iter().any(|run| !at_once(self.store.leases(*run)).unwrap().is_empty());
        let has_queue = at_once(self.store.pools()).unwrap().iter().any(|pool| pool.queued > 0);
        let has_timers = at_once(self.store.ring_timers(DateTime::<Utc>::MIN_UTC, 0)).unwrap().next.is_some();
        !(has_letters || has_leases || has_queue || has_timers || self.schedulers.iter().any(Scheduler::is_busy))
    }

    /// Somebody looks after runs that only a person brings on.
    fn help(&mut self) {
        for run in self.open_runs() {
            let record = at_once(self.store.run(run)).unwrap();
            let by = "ann".to_owned();
            let tasks = at_once(self.store.tasks(run)).unwrap();
            if record.state == RunState::Paused {
                self.say(format!("ann resumes {run}"));
                self.send(run, &Signal::Resume { by }).unwrap();
            } else if tasks.iter().any(|task| task.asked == Some(Ask::Past)) {
                self.say(format!("ann cancels {run}, which waits for one before it that failed"));
                self.send(run, &Signal::Cancel { by }).unwrap();
            }
        }
    }

    fn check_pools(&self) -> Result<(), String> {
        for pool in at_once(self.store.pools()).unwrap() {
            if pool.pool.slots.is_some_and(|slots| pool.used > slots) {
                return Err(format!("pool {pool:?} gave more than it has"));
            }
        }
        Ok(())
    }

    fn check_end(&self) -> Result<(), String> {
        for run in &self.runs {
            let loaded = at_once(self.store.load(*run)).unwrap();
            let graph = &self.flows[&loaded.record.flow];
            let restored = Run::restore(graph, loaded.record, loaded.tasks).map_err(|error| error.to_string())?;
            self.model.check_ended(graph, &restored)?;
        }
        if !at_once(self.store.waits(0, 1)).unwrap().is_empty() {
            return Err("something waits after the end".to_owned());
        }
        for flow in &self.scheduled {
            let runs =
                at_once(self.store.runs(&RunFilter { flow: Some(flow.clone()), ..RunFilter::default() })).unwrap();
            let mut starts: Vec<i64> = runs.iter().map(|run| (run.interval.start - self.start).num_seconds()).collect();
            starts.sort_unstable();
            if starts != (0..INTERVALS).map(|number| number * EVERY).collect::<Vec<_>>() {
                return Err(format!("the intervals of {flow} that were run: {starts:?}"));
            }
        }
        Ok(())
    }

    /// An answer that must not be an error.
    pub fn must<T>(answer: Answered<T>) -> Result<T, String> {
        answer.map_err(|error| format!("the store: {error}"))
    }
}
