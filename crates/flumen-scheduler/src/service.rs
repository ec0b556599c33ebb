//! The loop of a scheduler.
//!
//! It sleeps until it is woken, or until a timer rings or a lease ends. Where the store cannot be reached, or its disk is full, it waits
//! and goes on where it was: nothing is lost by that, since whatever is to be done lies in the store.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use flumen_core::boxed;
use flumen_core::clock::Clock;
use flumen_core::flow::store::{MetaStore, PendingWait, Rung, Wake};
use flumen_core::flow::{Interval, Notice, RunId, TaskKey};
use flumen_core::{Error, ErrorKind, Result};
use futures::StreamExt as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::alarm::Endings;
use crate::steps::{Flows, Steps};

/// Runs that are taken at once.
const RUNS: usize = 64;
/// Runs that are stepped side by side: their transactions share a wait for the disk.
const SIDE_BY_SIDE: usize = 16;
/// Timers and leases whose time has come, in one transaction.
const RINGS: usize = 1_000;
/// How long a run is held: a scheduler that dies with it holds it up for so long. A step that takes longer may be done twice, and one
/// of the two comes to nothing.
const HOLD: TimeDelta = TimeDelta::seconds(2);
/// How long after something came another look is taken, once: at what a scheduler that has died held meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(2_100);
/// How old what is known of the leases may be where something happens: a worker may have been given a shorter one than those before.
const LEASES_KNOWN: Duration = Duration::from_secs(1);
/// How long a scheduler sleeps at the most. It is woken when there is something to do; this is for wakes that get lost.
pub(crate) const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// How long it waits after the first failure of the store; twice as long after the next, up to [`LONGEST_WAIT`].
pub(crate) const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The longest wait for a store that cannot be reached.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Is told what a person may want to know. Called from the loop: it must be quick.
pub trait Watcher: Send + Sync {
    /// The store cannot be used now; it is tried again.
    fn store_fails(&self, error: &Error);
    /// A run cannot be stepped, such as one whose flow is of a newer version. It stays as it is.
    fn run_fails(&self, run: RunId, error: &Error);
    /// A signal changed nothing, and why.
    fn refused(&self, run: RunId, task: Option<&TaskKey>, cause: &str);
    /// Something else that is worth a line in a log.
    fn told(&self, _news: &News<'_>) {}
}

/// What happened beside the runs themselves.
#[derive(Debug)]
pub enum News<'a> {
    /// No run of a flow can be made, such as for a wrong parameter. It is tried again when the flow changes.
    FlowFails {
        /// The flow and, after an `@`, its deployment.
        flow: &'a str,
        /// Why.
        error: &'a Error,
    },
    /// Intervals were missed, and are not run, as the flow's `catchup` says.
    Missed {
        /// The flow and, after an `@`, its deployment.
        flow: &'a str,
        /// The first of them.
        first: Interval,
        /// The last of them.
        last: Interval,
    },
    /// Intervals were left out, since as many runs were active as may be, and the flow's `on_overlap` is `skip`.
    LeftOut {
        /// The flow and, after an `@`, its deployment.
        flow: &'a str,
        /// The first of them.
        first: Interval,
        /// The last of them.
        last: Interval,
    },
    /// A look at what a task waits for failed. It is looked again.
    LookFails {
        /// The wait.
        wait: &'a PendingWait,
        /// Why.
        error: &'a Error,
    },
    /// A run or a task is later than its `deadline`, or takes longer than its `warn_after`.
    Late {
        /// What is said of it.
        notice: &'a Notice,
    },
    /// A notice could not be passed on. It is tried again, or given up.
    NoticeFails {
        /// The notice.
        notice: &'a Notice,
        /// Why.
        error: &'a Error,
        /// Whether it is given up.
        is_last: bool,
    },
}

/// Steps runs.
pub struct Scheduler {
    store: Arc<dyn MetaStore>,
    clock: Arc<dyn Clock>,
    watcher: Arc<dyn Watcher>,
    steps: Steps,
}

/// When timers and leases are to be looked at.
#[derive(Debug, Clone, Copy, Default)]
struct Due {
    timers: Option<DateTime<Utc>>,
    leases: Option<DateTime<Utc>>,
    /// When the leases were looked at last.
    looked: Option<Instant>,
}

impl Scheduler {
    /// A scheduler over `store`.
    pub fn new(
        store: Arc<dyn MetaStore>,
        flows: Arc<dyn Flows>,
        clock: Arc<dyn Clock>,
        watcher: Arc<dyn Watcher>,
    ) -> Self {
        let steps = Steps::new(Arc::clone(&store), flows, Arc::clone(&clock), Arc::clone(&watcher));
        Self { store, clock, watcher, steps }
    }

    /// Where it tells which runs it saw end.
    pub(crate) fn endings(&self) -> &Endings {
        &self.steps.endings
    }

    /// Works until `stop`, or until the store is closed.
    #[boxed]
    pub async fn run(&self, stop: &CancellationToken) {
        let mut wakes = self.store.wakes();
        // What came before anybody listened is there to be found.
        let mut new = vec![Wake::Inbox, Wake::Timer];
        let (mut due, mut wait) = (Due::default(), FIRST_WAIT);
        let mut again = Some(Instant::now() + LOOK_AGAIN);
        loop {
            let sleep = match self.work(&new, &mut due).await {
                Ok(()) => {
                    new.clear();
                    wait = FIRST_WAIT;
                    self.until(due)
                }
                Err(error) => {
                    self.watcher.store_fails(&error);
                    let sleep = wait;
                    wait = (wait * 2).min(LONGEST_WAIT);
                    sleep
                }
            };
            let until = Instant::now() + sleep;
            let until = again.map_or(until, |again| again.min(until));
            // In this order, so that the same things happening are the same history. Whatever it is, all is looked at.
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                wake = wakes.next() => match wake {
                    Some(wake) => {
                        new.push(wake);
                        again = Some(Instant::now() + LOOK_AGAIN);
                    }
                    None => return,
                },
                () = tokio::time::sleep_until(until) => {
                    again = again.filter(|again| *again > Instant::now());
                    new.push(Wake::Inbox);
                }
            }
        }
    }

    /// Does all there is to do.
    ///
    /// Errors: those of the store.
    async fn work(&self, new: &[Wake], due: &mut Due) -> Result<()> {
        let now = self.clock.now();
        if new.contains(&Wake::Timer) || due.timers.is_some_and(|at| at <= now) {
            due.timers = self.ring(|limit| self.store.ring_timers(now, limit)).await?;
        }
        let is_old = due.looked.is_none_or(|looked| looked.elapsed() >= LEASES_KNOWN);
        if is_old || due.leases.is_none_or(|at| at <= now) {
            due.leases = self.ring(|limit| self.store.expire_leases(now, limit)).await?;
            due.looked = Some(Instant::now());
        }
        loop {
            let taken = self.store.take_runs(now, now + HOLD, RUNS).await?;
            let is_last = taken.len() < RUNS;
            let stepped =
                futures::stream::iter(taken).map(|taken| self.steps.step(taken)).buffer_unordered(SIDE_BY_SIDE);
            let results: Vec<Result<()>> = stepped.collect().await;
            results.into_iter().collect::<Result<()>>()?;
            // Letters that came meanwhile have woken us again.
            if is_last {
                return Ok(());
            }
        }
    }

    /// Rings until nothing more is due; when the next one is.
    async fn ring<F: Future<Output = Result<Rung>>>(&self, ring: impl Fn(usize) -> F) -> Result<Option<DateTime<Utc>>> {
        loop {
            let Rung { count, next } = ring(RINGS).await?;
            if count < RINGS {
                return Ok(next);
            }
        }
    }

    fn until(&self, due: Due) -> Duration {
        let first = [due.timers, due.leases].into_iter().flatten().min();
        let left = first.map(|at| (at - self.clock.now()).to_std().unwrap_or_default());
        left.unwrap_or(LONGEST_SLEEP).min(LONGEST_SLEEP)
    }
}

/// Whether an error is the store's, and may be gone the next time.
pub(crate) fn is_of_store(error: &Error) -> bool {
    error.kind() == ErrorKind::Unavailable
}
