//! Everything that a scheduler does, side by side: each service has a loop of its own, and none of them stops another.

use std::sync::Arc;

use flumen_core::boxed;
use flumen_core::clock::{Clock, Ids};
use flumen_core::flow::store::MetaStore;
use tokio_util::sync::CancellationToken;

use crate::alarm::{Alarm, Service};
use crate::backfills::Backfills;
use crate::datasets::Datasets;
use crate::notices::{Notices, Notifier};
use crate::roster::Roster;
use crate::schedules::Schedules;
use crate::service::{Scheduler, Watcher};
use crate::steps::Flows;
use crate::turns::{TurnService, Turns};
use crate::waits::{Looker, Looks, Waits};

/// What services work with.
#[derive(Clone)]
pub struct Parts {
    /// Where runs are kept.
    pub store: Arc<dyn MetaStore>,
    /// The flows of runs, in the versions that they keep.
    pub flows: Arc<dyn Flows>,
    /// The flows of the project, as they are now.
    pub roster: Arc<dyn Roster>,
    /// Looks at what tasks wait for.
    pub looker: Arc<dyn Looker>,
    /// Passes notices on.
    pub notifier: Arc<dyn Notifier>,
    /// The present.
    pub clock: Arc<dyn Clock>,
    /// The ids of new runs.
    pub ids: Arc<dyn Ids>,
    /// Who is told what a person may want to know.
    pub watcher: Arc<dyn Watcher>,
}

/// What services share.
pub(crate) struct Shared {
    pub store: Arc<dyn MetaStore>,
    pub roster: Arc<dyn Roster>,
    pub clock: Arc<dyn Clock>,
    pub ids: Arc<dyn Ids>,
    pub watcher: Arc<dyn Watcher>,
    pub turns: Arc<Turns>,
}

/// All services of a scheduler.
pub struct Services {
    scheduler: Scheduler,
    shared: Arc<Shared>,
    looker: Arc<dyn Looker>,
    notifier: Arc<dyn Notifier>,
}

impl Services {
    /// The services over these parts.
    pub fn new(parts: Parts) -> Self {
        let Parts { store, flows, roster, looker, notifier, clock, ids, watcher } = parts;
        let scheduler = Scheduler::new(Arc::clone(&store), flows, Arc::clone(&clock), Arc::clone(&watcher));
        let turns = Arc::new(Turns::new(Arc::clone(&store), Arc::clone(&roster), Arc::clone(&clock)));
        let shared = Arc::new(Shared { store, roster, clock, ids, watcher, turns });
        Self { scheduler, shared, looker, notifier }
    }

    /// Works until `stop`, or until the store is closed.
    #[boxed]
    pub async fn run(&self, stop: &CancellationToken) {
        let shared = &self.shared;
        tokio::join!(
            self.scheduler.run(stop),
            self.serve(TurnService::new(Arc::clone(&shared.turns)), stop),
            self.serve(Schedules::new(Arc::clone(shared)), stop),
            self.serve(Backfills::new(Arc::clone(shared)), stop),
            self.serve(Datasets::new(Arc::clone(shared)), stop),
            self.serve(Waits::new(Arc::clone(shared)), stop),
            self.serve(Looks::new(Arc::clone(shared), Arc::clone(&self.looker)), stop),
            self.serve(Notices::new(Arc::clone(shared), Arc::clone(&self.notifier)), stop),
        );
    }

    /// Works until `stop` on what runs need that there are, and makes none: for a process that lives as long as one run.
    #[boxed]
    pub async fn run_on_runs(&self, stop: &CancellationToken) {
        let shared = &self.shared;
        tokio::join!(
            self.scheduler.run(stop),
            self.serve(TurnService::new(Arc::clone(&shared.turns)), stop),
            self.serve(Waits::new(Arc::clone(shared)), stop),
            self.serve(Looks::new(Arc::clone(shared), Arc::clone(&self.looker)), stop),
            self.serve(Notices::new(Arc::clone(shared), Arc::clone(&self.notifier)), stop),
        );
    }

    /// Works until `stop` as [`run_on_runs`](Self::run_on_runs), and makes the runs of backfills.
    #[boxed]
    pub async fn run_backfills(&self, stop: &CancellationToken) {
        tokio::join!(self.run_on_runs(stop), self.serve(Backfills::new(Arc::clone(&self.shared)), stop));
    }

    async fn serve(&self, service: impl Service, stop: &CancellationToken) {
        let Shared { store, roster, watcher, .. } = self.shared.as_ref();
        let alarm = Alarm::new(store.as_ref(), roster.as_ref(), self.scheduler.endings(), stop);
        alarm.serve(service, watcher.as_ref()).await;
    }
}
