//! What all services have in common: they sleep until something happens, work, and wait when the store fails.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use flumen_core::Result;
use flumen_core::flow::RunRecord;
use flumen_core::flow::store::{MetaStore, Wake};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::sync::{Notify, broadcast, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::roster::Roster;
use crate::service::{FIRST_WAIT, LONGEST_SLEEP, LONGEST_WAIT, Watcher};

/// Ends of runs that a service may be behind with. One that falls behind further looks at everything.
const ENDINGS: usize = 1_024;

/// Tells the services of this process which runs it has seen end. Ends that other processes see are found by looking.
#[derive(Debug, Clone)]
pub(crate) struct Endings(broadcast::Sender<Arc<RunRecord>>);

impl Default for Endings {
    fn default() -> Self {
        Self(broadcast::channel(ENDINGS).0)
    }
}

impl Endings {
    pub(crate) fn tell(&self, run: &RunRecord) {
        if self.0.receiver_count() > 0 {
            // It fails where nobody listens any more.
            drop(self.0.send(Arc::new(run.clone())));
        }
    }
}

/// Why a service is awake.
#[derive(Debug, Clone)]
pub(crate) enum Rung {
    /// The store has something new.
    Wake(Wake),
    /// A run ended.
    Ended(Arc<RunRecord>),
    /// Flows changed.
    Roster,
    /// It is time for what it said.
    Due,
    /// Its crew has something for it.
    Knock,
    /// It is time to look whether something was missed.
    Sweep,
}

/// A service: it is told what happened, and then works. It begins with a look at everything.
#[async_trait]
pub(crate) trait Service: Send {
    /// Notes what happened; whether that is a reason to work.
    fn hear(&mut self, rung: Rung) -> bool;

    /// Does what there is to do, and says in how long there is something again, as far as that is known.
    ///
    /// Errors: those of the store. What was not done is done the next time.
    async fn work(&mut self) -> Result<Option<Duration>>;

    /// What rings when its crew has something for it.
    fn knock(&self) -> Arc<Notify> {
        Arc::default()
    }

    /// The process stops.
    async fn leave(&mut self) {}
}

/// What wakes a service.
pub(crate) struct Alarm {
    stop: CancellationToken,
    wakes: BoxStream<'static, Wake>,
    endings: broadcast::Receiver<Arc<RunRecord>>,
    changes: BoxStream<'static, ()>,
    sweep: Instant,
}

impl Alarm {
    pub(crate) fn new(store: &dyn MetaStore, roster: &dyn Roster, endings: &Endings, stop: &CancellationToken) -> Self {
        Self {
            stop: stop.clone(),
            wakes: store.wakes(),
            endings: endings.0.subscribe(),
            // A roster that ends does not change any more.
            changes: roster.changes().chain(futures::stream::pending()).boxed(),
            sweep: Instant::now() + LONGEST_SLEEP,
        }
    }

    /// Runs a service until the process stops, or the store is closed.
    pub(crate) async fn serve(mut self, mut service: impl Service, watcher: &dyn Watcher) {
        let mut wait = FIRST_WAIT;
        let knock = service.knock();
        loop {
            let (due, failed) = match service.work().await {
                Ok(due) => (due, false),
                Err(error) => {
                    watcher.store_fails(&error);
                    (Some(wait), true)
                }
            };
            wait = if failed { (wait * 2).min(LONGEST_WAIT) } else { FIRST_WAIT };
            let due = due.map(|due| Instant::now() + due.min(LONGEST_SLEEP));
            loop {
                let Some(rung) = self.next(due, &knock).await else { return service.leave().await };
                let is_due = matches!(rung, Rung::Due);
                // A store that fails is not asked more often because something happens.
                if is_due || (service.hear(rung) && !failed) {
                    break;
                }
            }
        }
    }

    /// Sleeps until something happens; `None` at the end.
    async fn next(&mut self, due: Option<Instant>, knock: &Notify) -> Option<Rung> {
        let sweep = self.sweep;
        // In this order, so that the same things happening are the same history; what may come in floods comes last.
        tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            () = tokio::time::sleep_until(sweep) => {
                self.sweep = Instant::now() + LONGEST_SLEEP;
                Some(Rung::Sweep)
            }
            () = tokio::time::sleep_until(due.unwrap_or(sweep)), if due.is_some() => Some(Rung::Due),
            _ = self.changes.next() => Some(Rung::Roster),
            () = knock.notified() => Some(Rung::Knock),
            wake = self.wakes.next() => wake.map(Rung::Wake),
            ended = self.endings.recv() => Some(match ended {
                Ok(run) => Rung::Ended(run),
                Err(_) => Rung::Sweep,
            }),
        }
    }
}

/// Keeps looks apart that cost something and have no hurry.
#[derive(Debug)]
pub(crate) struct Pace {
    every: Duration,
    last: Option<Instant>,
    /// Whether somebody wants one.
    pub(crate) wanted: bool,
}

impl Pace {
    /// One look in so long, and one at once.
    pub(crate) fn new(every: Duration) -> Self {
        Self { every, last: None, wanted: true }
    }

    /// Wants a look; whether nobody did before.
    pub(crate) fn want(&mut self) -> bool {
        !std::mem::replace(&mut self.wanted, true)
    }

    /// Whether to look now, if anybody wants to.
    pub(crate) fn take(&mut self) -> bool {
        let is_time = self.wanted && self.left().is_none_or(|left| left.is_zero());
        if is_time {
            self.wanted = false;
            self.last = Some(Instant::now());
        }
        is_time
    }

    /// How long until a look that is wanted.
    pub(crate) fn left(&self) -> Option<Duration> {
        let last = self.last.filter(|_| self.wanted)?;
        Some((last + self.every).saturating_duration_since(Instant::now()))
    }
}

/// Does for a service what may take long, so much of it at once; what came of it is fetched by the service. What is under way is dropped
/// with it.
#[derive(Debug)]
pub(crate) struct Crew<T> {
    tasks: JoinSet<()>,
    busy: usize,
    limit: usize,
    done: mpsc::UnboundedReceiver<T>,
    tell: mpsc::UnboundedSender<T>,
    knock: Arc<Notify>,
}

impl<T: Send + 'static> Crew<T> {
    pub(crate) fn new(limit: usize) -> Self {
        let (tell, done) = mpsc::unbounded_channel();
        Self { tasks: JoinSet::new(), busy: 0, limit, done, tell, knock: Arc::default() }
    }

    /// What rings when something is done.
    pub(crate) fn knock(&self) -> Arc<Notify> {
        Arc::clone(&self.knock)
    }

    /// How much more may be begun.
    pub(crate) fn room(&self) -> usize {
        self.limit.saturating_sub(self.busy)
    }

    /// Whether something is under way.
    pub(crate) fn is_busy(&self) -> bool {
        self.busy > 0
    }

    /// Begins something.
    pub(crate) fn begin(&mut self, work: impl Future<Output = T> + Send + 'static) {
        let (tell, knock) = (self.tell.clone(), Arc::clone(&self.knock));
        self.busy += 1;
        self.tasks.spawn(async move {
            let done = work.await;
            // It fails where nobody waits for it any more.
            drop(tell.send(done));
            knock.notify_one();
        });
    }

    /// What was done since the last time.
    pub(crate) fn take_done(&mut self) -> Vec<T> {
        while let Some(ended) = self.tasks.try_join_next() {
            // One that broke down has told nothing.
            self.busy -= usize::from(ended.is_err());
        }
        let mut all = Vec::new();
        while let Ok(done) = self.done.try_recv() {
            self.busy -= 1;
            all.push(done);
        }
        all
    }
}
