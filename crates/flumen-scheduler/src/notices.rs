//! Notices: what somebody may want to be told is passed on, and tried again where that fails. Stepping never waits for it.
//!
//! A notice that this process has in hand is nobody else's until [`HOLD`] is over: where the process dies, another one passes it
//! on then. So a notice may arrive twice, and none is lost but those that are given up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::TimeDelta;
use flumen_core::flow::store::{PendingNotice, Wake};
use flumen_core::flow::{Notice, Occasion};
use flumen_core::{Error, Result};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::alarm::{Crew, Rung, Service};
use crate::service::News;
use crate::services::Shared;

/// Notices that are passed on side by side.
const SIDE_BY_SIDE: usize = 16;
/// How long passing one on may take.
const DELIVERY: Duration = Duration::from_secs(300);
/// The waits before the second try, the third, and so on. Then it is given up.
const WAITS: [Duration; 3] = [Duration::from_secs(5), Duration::from_secs(30), Duration::from_secs(180)];
/// How long a process that ends may go on passing on.
const LEAVING: Duration = Duration::from_secs(20);
/// How long a process has a notice to itself: longer than all tries.
const HOLD: TimeDelta = TimeDelta::minutes(25);

/// Passes notices on.
#[async_trait]
pub trait Notifier: Send + Sync {
    /// Passes a notice on, to whoever wants to know. It may come a second time. It is given up after five minutes.
    ///
    /// Errors: that it could not be; it is tried again.
    async fn deliver(&self, notice: &Notice) -> Result<()>;
}

/// Passes notices on, and remembers which to try again.
pub(crate) struct Notices {
    shared: Arc<Shared>,
    notifier: Arc<dyn Notifier>,
    crew: Crew<Delivered>,
    /// By the moments of their next tries.
    again: BTreeMap<(Instant, u64), (PendingNotice, usize)>,
    /// Those that were passed on, and that the store is still to be told about.
    settled: Vec<u64>,
    new: bool,
}

/// What became of a try.
struct Delivered {
    notice: PendingNotice,
    /// How many tries there were before.
    tries: usize,
    result: Result<()>,
}

impl Notices {
    pub(crate) fn new(shared: Arc<Shared>, notifier: Arc<dyn Notifier>) -> Self {
        let crew = Crew::new(SIDE_BY_SIDE);
        Self { shared, notifier, crew, again: BTreeMap::new(), settled: Vec::new(), new: true }
    }

    fn begin(&mut self, notice: PendingNotice, tries: usize) {
        let notifier = Arc::clone(&self.notifier);
        self.crew.begin(async move {
            let result = match tokio::time::timeout(DELIVERY, notifier.deliver(&notice.notice)).await {
                Ok(result) => result,
                Err(_) => Err(Error::unavailable(format!("it took longer than {} s", DELIVERY.as_secs()))),
            };
            Delivered { notice, tries, result }
        });
    }

    /// Notes what became of those that were tried.
    fn take_done(&mut self) {
        for Delivered { notice, tries, result } in self.crew.take_done() {
            let Err(error) = result else {
                self.settled.push(notice.id);
                continue;
            };
            let wait = WAITS.get(tries);
            let news = News::NoticeFails { notice: &notice.notice, error: &error, is_last: wait.is_none() };
            self.shared.watcher.told(&news);
            match wait {
                Some(wait) => drop(self.again.insert((Instant::now() + *wait, notice.id), (notice, tries + 1))),
                None => self.settled.push(notice.id),
            }
        }
    }

    async fn settle(&mut self) -> Result<()> {
        while let Some(id) = self.settled.last() {
            self.shared.store.settle_notice(*id).await?;
            self.settled.pop();
        }
        Ok(())
    }

    /// Takes notices that nobody has, as many as there is room for.
    async fn take_new(&mut self) -> Result<()> {
        while self.crew.room() > 0 {
            let (now, room) = (self.shared.clock.now(), self.crew.room());
            let taken = self.shared.store.take_notices(now, now + HOLD, room).await?;
            let is_last = taken.len() < room;
            for notice in taken {
                let occasion = &notice.notice.occasion;
                if matches!(
                    occasion,
                    Occasion::RunLate | Occasion::RunLong | Occasion::TaskLate { .. } | Occasion::TaskLong { .. }
                ) {
                    self.shared.watcher.told(&News::Late { notice: &notice.notice });
                }
                self.begin(notice, 0);
            }
            if is_last {
                self.new = false;
                return Ok(());
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Service for Notices {
    fn hear(&mut self, rung: Rung) -> bool {
        match rung {
            Rung::Wake(Wake::Notice) | Rung::Sweep => self.new = true,
            Rung::Knock => {}
            _ => return false,
        }
        true
    }

    async fn work(&mut self) -> Result<Option<Duration>> {
        self.take_done();
        self.settle().await?;
        while self.crew.room() > 0
            && let Some(first) = self.again.first_entry().filter(|first| first.key().0 <= Instant::now())
        {
            let (notice, tries) = first.remove();
            self.begin(notice, tries);
        }
        if self.new {
            self.take_new().await?;
        }
        let next = self.again.first_key_value().filter(|_| self.crew.room() > 0);
        Ok(next.map(|((at, _), _)| at.saturating_duration_since(Instant::now())))
    }

    fn knock(&self) -> Arc<Notify> {
        self.crew.knock()
    }

    /// What a run that has just ended has to say is passed on before the process ends.
    async fn leave(&mut self) {
        self.new = true;
        let knock = self.knock();
        let passing_on = async {
            while self.work().await.is_ok() && self.crew.is_busy() {
                knock.notified().await;
            }
        };
        // Whoever is next passes on what is left.
        let _ = tokio::time::timeout(LEAVING, passing_on).await;
    }
}
