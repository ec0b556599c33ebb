//! The loop of a worker: it claims task runs, keeps its leases, and tells how the attempts ended.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use flumen_core::boxed;
use flumen_core::flow::store::{Claim, Held, Renewal, Wake, Work, WorkerRecord};
use flumen_core::flow::{Outcome, RunId, WorkerId};
use flumen_core::{Error, ErrorKind, Result};
use flumen_flow::definition::{DEFAULT_POOL, RATE_POOL};
use futures::StreamExt as _;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::execute::execute;
use crate::host::Host;
use crate::presence::{BEAT, this_process};

/// How long a lease holds, unless told otherwise.
pub const LEASE: Duration = Duration::from_secs(30);
/// The wait after the first failure of the store; it doubles from there.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The longest wait for a store that cannot be used.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// How long a worker sleeps at the most without looking for work: for wakes that get lost.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// How long a worker that is gone is remembered.
const REMEMBERED: TimeDelta = TimeDelta::days(1);
/// The shortest time from one look for the pools of rates to the next.
const RATES: Duration = Duration::from_secs(1);

/// What a worker is.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its name, which no other has.
    pub id: WorkerId,
    /// The machine.
    pub host: String,
    /// The pools from which it takes work; all, where none is named. With the default one go those of rates.
    pub pools: Vec<String>,
    /// The runs of which it takes work; all, where none is named.
    pub only: Arc<Only>,
    /// Whether others are told that it is there: not one that lives as long as a run.
    pub announced: bool,
    /// Whether its process steps runs and makes those of schedules.
    pub schedules: bool,
    /// Whether it works for a command, on the runs of that alone.
    pub commanded: bool,
    /// How many attempts it has room for.
    pub slots: usize,
    /// How long a lease holds.
    pub lease: Duration,
    /// How long attempts may go on once it is to end.
    pub drain: Duration,
}

/// The runs of which a worker takes work: more may be added while it works.
#[derive(Debug, Default)]
pub struct Only {
    runs: Mutex<Vec<RunId>>,
    more: Notify,
}

impl Only {
    /// Takes work of this run too.
    pub fn add(&self, run: RunId) {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        if !runs.contains(&run) {
            runs.push(run);
            self.more.notify_one();
        }
    }

    /// These runs.
    pub fn runs(&self) -> Vec<RunId> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Claims and executes.
pub struct Worker {
    host: Arc<Host>,
    settings: Settings,
    started: DateTime<Utc>,
}

/// The pools of rates, as they were when they were last looked for.
#[derive(Default)]
struct Rates {
    read: Option<tokio::time::Instant>,
    pools: Vec<String>,
}

/// What is at work.
struct Running {
    cancel: CancellationToken,
    end: Arc<Mutex<End>>,
    expires: DateTime<Utc>,
}

/// Why an attempt was stopped before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It was not, or as the run wanted it.
    Told,
    /// The worker ends: another one may go on.
    Drained,
    /// The lease is somebody else's by now: there is nobody to tell.
    Gone,
}

impl Worker {
    /// A worker on this host.
    pub fn new(host: Arc<Host>, settings: Settings) -> Self {
        let started = host.clock.now();
        Self { host, settings, started }
    }

    /// Its name.
    pub fn id(&self) -> &WorkerId {
        &self.settings.id
    }

    /// Tells others that it is there, before it works.
    ///
    /// Errors: those of the store.
    #[boxed]
    pub async fn announce(&self) -> Result<()> {
        self.host.store.beat(&self.record(false)).await
    }

    /// Works until `stop`; then it takes no more, and ends when what it has has ended, or the time for that is over.
    #[boxed]
    pub async fn run(&self, stop: &CancellationToken) {
        let mut wakes = self.host.store.wakes();
        let mut running: HashMap<Held, Running> = HashMap::new();
        let mut tasks: JoinSet<Held> = JoinSet::new();
        let mut renewals = tokio::time::interval((self.settings.lease / 3).min(BEAT));
        renewals.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut look, mut wait) = (true, FIRST_WAIT);
        let mut drain: Option<tokio::time::Instant> = None;
        let mut rates = Rates::default();
        let mut again = tokio::time::Instant::now();
        self.forget_others().await;
        loop {
            if look && drain.is_none() && running.len() < self.settings.slots {
                match self.claim(self.settings.slots - running.len(), &mut rates).await {
                    Ok((work, next)) => {
                        (look, wait) = (!work.is_empty(), FIRST_WAIT);
                        again = tokio::time::Instant::now() + next;
                        for work in work {
                            let held = work.held();
                            let one = Running::of(&work);
                            tasks.spawn(attempt(
                                Arc::clone(&self.host),
                                work,
                                one.cancel.clone(),
                                Arc::clone(&one.end),
                            ));
                            running.insert(held, one);
                        }
                        if look && running.len() < self.settings.slots {
                            continue;
                        }
                    }
                    Err(error) => {
                        self.host.watcher.store_fails(&error);
                        again = tokio::time::Instant::now() + wait;
                        wait = (wait * 2).min(LONGEST_WAIT);
                    }
                }
            }
            if drain.is_some() && running.is_empty() {
                break;
            }
            let over = async {
                match drain {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(ended) = tasks.join_next() => {
                    // An attempt that panicked has told nobody; its lease expires.
                    if let Ok(held) = ended {
                        running.remove(&held);
                    }
                    look = true;
                }
                () = self.settings.only.more.notified() => look = true,
                wake = wakes.next() => match wake {
                    Some(Wake::Queue) => look = true,
                    Some(Wake::Stop) => self.renew(&mut running).await,
                    Some(_) => {}
                    None => stop.cancel(),
                },
                _ = renewals.tick() => {
                    self.beat(drain.is_some()).await;
                    self.renew(&mut running).await;
                }
                () = stop.cancelled(), if drain.is_none() => {
                    drain = Some(tokio::time::Instant::now() + self.settings.drain);
                    self.beat(true).await;
                }
                () = over => {
                    for one in running.values() {
                        one.stop(End::Drained);
                    }
                    drain = Some(tokio::time::Instant::now() + LONGEST_SLEEP);
                }
                () = tokio::time::sleep_until(again) => {
                    look = true;
                    again = tokio::time::Instant::now() + LONGEST_SLEEP;
                }
            }
        }
    }

    /// Takes work, and says in how long to look again: when a rate lets more begin, or, at the latest, in case a wake is lost.
    async fn claim(&self, limit: usize, rates: &mut Rates) -> Result<(Vec<Work>, Duration)> {
        let (pools, next) = self.pools(rates).await?;
        let now = self.host.clock.now();
        let claim = Claim {
            worker: self.settings.id.clone(),
            pools,
            only: self.settings.only.runs(),
            limit,
            now,
            expires: self.expiry(now),
        };
        let claimed = self.timely(self.host.store.claim(&claim)).await?;
        let again = claimed.again.map(|at| (at - now).to_std().unwrap_or_default().max(Duration::from_millis(1)));
        Ok((claimed.work, again.unwrap_or(LONGEST_SLEEP).min(next)))
    }

    /// The pools from which it takes work now, and in how long there may be others.
    async fn pools(&self, rates: &mut Rates) -> Result<(Vec<String>, Duration)> {
        let named = &self.settings.pools;
        if !named.iter().any(|name| name == DEFAULT_POOL) {
            return Ok((named.clone(), LONGEST_SLEEP));
        }
        let age = rates.read.map_or(RATES, |read| read.elapsed());
        let mut next = RATES.saturating_sub(age);
        if next.is_zero() {
            let known = self.timely(self.host.store.pools()).await?;
            let names = known.into_iter().map(|known| known.pool.name);
            rates.pools = names.filter(|name| name.starts_with(RATE_POOL)).collect();
            rates.read = Some(tokio::time::Instant::now());
            next = LONGEST_SLEEP;
        }
        Ok((named.iter().chain(&rates.pools).cloned().collect(), next))
    }

    fn expiry(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        now + TimeDelta::from_std(self.settings.lease).unwrap_or(TimeDelta::days(1))
    }

    /// A call of the store: whoever has leases must not wait for an answer until they have ended.
    async fn timely<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let answer = tokio::time::timeout(self.settings.lease / 3, call).await;
        answer.unwrap_or_else(|_| Err(Error::unavailable("the store does not answer")))
    }

    async fn renew(&self, running: &mut HashMap<Held, Running>) {
        if running.is_empty() {
            return;
        }
        let now = self.host.clock.now();
        let held: Vec<Held> = running.keys().cloned().collect();
        let renewals = match self.timely(self.host.store.renew(&self.settings.id, &held, self.expiry(now))).await {
            Ok(renewals) => renewals,
            Err(error) => {
                self.host.watcher.store_fails(&error);
                let now = self.host.clock.now();
                // Nobody can say whose they are: those whose time is over are given up.
                running.values().filter(|one| one.expires <= now).for_each(|one| one.stop(End::Gone));
                return;
            }
        };
        for (held, renewal) in held.into_iter().zip(renewals) {
            let Some(one) = running.get_mut(&held) else { continue };
            match renewal {
                Renewal::Held => one.expires = self.expiry(now),
                Renewal::Stop { .. } => one.stop(End::Told),
                Renewal::Gone => one.stop(End::Gone),
            }
        }
    }

    /// Workers that were not seen for long are shown to nobody any more.
    async fn forget_others(&self) {
        if self.settings.announced
            && !self.settings.commanded
            && let Err(error) = self.host.store.forget_workers(self.host.clock.now() - REMEMBERED).await
        {
            self.host.watcher.store_fails(&error);
        }
    }

    async fn beat(&self, draining: bool) {
        if self.settings.announced
            && let Err(error) = self.timely(self.host.store.beat(&self.record(draining))).await
        {
            self.host.watcher.store_fails(&error);
        }
    }

    /// What it says of itself.
    fn record(&self, draining: bool) -> WorkerRecord {
        let settings = &self.settings;
        WorkerRecord {
            pools: settings.pools.clone(),
            slots: u32::try_from(settings.slots).unwrap_or(u32::MAX),
            draining,
            schedules: settings.schedules,
            commanded: settings.commanded,
            ..this_process(settings.id.clone(), settings.host.clone(), self.started, self.host.clock.now())
        }
    }
}

impl Running {
    fn of(work: &Work) -> Self {
        Self { cancel: CancellationToken::new(), end: Arc::new(Mutex::new(End::Told)), expires: work.lease.expires }
    }

    fn stop(&self, why: End) {
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.cancel.is_cancelled() || why == End::Gone {
            *end = why;
        }
        self.cancel.cancel();
    }
}

/// Executes an attempt and tells how it ended.
async fn attempt(host: Arc<Host>, work: Work, cancel: CancellationToken, end: Arc<Mutex<End>>) -> Held {
    let held = work.held();
    let outcome = execute(&host, &work, &cancel).await;
    let end = *end.lock().unwrap_or_else(PoisonError::into_inner);
    let outcome = match (end, outcome) {
        (End::Gone, _) => return held,
        (End::Drained, Outcome::Cancelled | Outcome::Failure(_)) => Outcome::Lost {
            worker: work.lease.worker.clone(),
            cause: format!("worker {} was stopped", work.lease.worker),
        },
        (_, outcome) => outcome,
    };
    let mut wait = FIRST_WAIT;
    loop {
        match host.store.finish(&held, &outcome, host.clock.now()).await {
            Ok(()) => return held,
            Err(error) if is_refused(&error) => return held,
            Err(error) => {
                host.watcher.store_fails(&error);
                // It is told as long as it takes: the lease is renewed meanwhile, or somebody else has it.
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(LONGEST_WAIT);
            }
        }
    }
}

/// Whether nobody wants to know any more.
fn is_refused(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound)
}
