//! One session: its state, and its messages one after the other.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flumen_core::boxed;
use flumen_lake::engine::Engine;
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;

use super::extended::{Portal, Prepared};
use super::messages::Frontend;
use super::wire::{Broken, Wire};
use crate::catalog::Catalog;
use crate::failure::{Failure, code};
use crate::sessions::Session;
use crate::settings::{REPORTED, SessionSettings, UTC};

/// Where a transaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transaction {
    /// There is none: each statement is one by itself.
    None,
    /// A block is open.
    Open,
    /// A block is open, in which a statement failed.
    Failed,
}

impl Transaction {
    fn status(self) -> u8 {
        match self {
            Transaction::None => b'I',
            Transaction::Open => b'T',
            Transaction::Failed => b'E',
        }
    }

    fn activity(self) -> &'static str {
        match self {
            Transaction::None => "idle",
            Transaction::Open => "idle in transaction",
            Transaction::Failed => "idle in transaction (aborted)",
        }
    }
}

/// One session.
pub(super) struct Connection {
    pub wire: Wire,
    pub session: Arc<Session>,
    pub engine: Arc<Engine>,
    pub catalog: Catalog,
    settings: Arc<Mutex<SessionSettings>>,
    /// The settings as they were when the block began, and the names of those that are set for the block only.
    pub saved: Option<(SessionSettings, Vec<String>)>,
    pub transaction: Transaction,
    /// The time zone that the engine knows of.
    pub told_zone: String,
    pub statements: HashMap<String, Prepared>,
    pub portals: HashMap<String, Portal>,
}

impl Connection {
    /// A session that is logged in.
    pub fn new(
        wire: Wire,
        session: Arc<Session>,
        engine: Arc<Engine>,
        catalog: Catalog,
        settings: Arc<Mutex<SessionSettings>>,
    ) -> Self {
        Self {
            wire,
            session,
            engine,
            catalog,
            settings,
            saved: None,
            transaction: Transaction::None,
            told_zone: UTC.to_owned(),
            statements: HashMap::new(),
            portals: HashMap::new(),
        }
    }

    /// The settings.
    pub fn settings(&self) -> MutexGuard<'_, SessionSettings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves the client until it leaves, or has to.
    #[boxed]
    pub async fn serve(&mut self) {
        for name in REPORTED {
            let value = self.settings().get(name).unwrap_or_default();
            self.wire.out.parameter(name, &value);
        }
        self.wire.out.key(self.session.pid, self.session.key);
        self.ready();
        let ended = match self.wire.flush().await {
            Ok(()) => self.messages().await,
            Err(broken) => Err(broken),
        };
        if let Err(Broken::Failure(failure)) = ended {
            self.wire.out.error(&Failure { fatal: true, ..failure });
        }
        self.wire.close().await;
    }

    async fn messages(&mut self) -> Result<(), Broken> {
        // After an error in the extended protocol, everything up to the next Sync is left out.
        let mut skipping = false;
        loop {
            self.wire.flush_if_full().await?;
            let message = self.next().await?;
            match message {
                Frontend::Terminate => return Ok(()),
                Frontend::Sync => {
                    skipping = false;
                    self.end_of_block();
                    self.ready();
                    self.wire.flush().await?;
                }
                _ if skipping => {}
                Frontend::Query(sql) => {
                    self.simple(&sql).await?;
                    self.end_of_block();
                    self.ready();
                    self.wire.flush().await?;
                }
                Frontend::Flush => self.wire.flush().await?,
                // Left over from a COPY that failed.
                Frontend::CopyData(_) | Frontend::CopyDone | Frontend::CopyFail(_) => {}
                Frontend::Password(_) => {
                    return Err(Failure::fatal(code::PROTOCOL_VIOLATION, "nobody asked for a password").into());
                }
                message => {
                    if let Err(failure) = self.extended(message).await? {
                        self.fail(&failure)?;
                        skipping = true;
                        // The client may wait for this before it says more.
                        self.wire.flush().await?;
                    }
                }
            }
        }
    }

    /// The next message, unless the session is ended first.
    async fn next(&mut self) -> Result<Frontend, Broken> {
        let resting = match self.transaction {
            Transaction::None => None,
            _ => self.settings().idle_in_transaction_timeout(),
        };
        let end = self.session.end.clone();
        let wire = &mut self.wire;
        let mut wait = timer(resting);
        tokio::select! {
            biased;
            () = end.cancelled() => Err(ended().into()),
            message = wire.read() => message,
            () = expired(&mut wait) => Err(Failure::fatal(
                "25P03",
                "terminating connection due to idle-in-transaction timeout",
            )
            .into()),
        }
    }

    /// Says that the next statement may come.
    pub fn ready(&mut self) {
        // What was odd in what the statement read.
        for warning in self.engine.take_warnings() {
            self.wire.out.notice("WARNING", code::WARNING, &warning);
        }
        self.session.rest(self.transaction.activity());
        self.wire.out.ready(self.transaction.status());
    }

    /// Tells the client of an error.
    ///
    /// Errors: the connection ends with it.
    pub fn fail(&mut self, failure: &Failure) -> Result<(), Broken> {
        if failure.fatal {
            return Err(Broken::Failure(failure.clone()));
        }
        if self.transaction == Transaction::Open {
            self.transaction = Transaction::Failed;
        }
        self.wire.out.error(failure);
        Ok(())
    }

    /// What ends with a transaction, if none is open.
    fn end_of_block(&mut self) {
        if self.transaction == Transaction::None {
            self.portals.retain(|_, portal| portal.hold);
        }
    }

    /// `sql` begins to run.
    pub fn begin(&mut self, sql: &str) -> Running {
        Running {
            cancel: self.session.begin(sql),
            end: self.session.end.clone(),
            timeout: timer(self.settings().statement_timeout()),
        }
    }

    /// The values that the client knows.
    pub fn reported(&self) -> Vec<Option<String>> {
        let settings = self.settings();
        REPORTED.iter().map(|name| settings.get(name)).collect()
    }

    /// Tells the client about settings that are not what they were.
    pub fn report_changes(&mut self, before: &[Option<String>]) {
        let now = self.reported();
        let changed = REPORTED.iter().zip(before.iter().zip(&now)).filter(|(_, (before, now))| before != now);
        let changed: Vec<&str> = changed.map(|(name, _)| *name).collect();
        changed.into_iter().for_each(|name| self.report(name));
    }

    /// Tells the client about a setting that has changed.
    pub fn report(&mut self, name: &str) {
        if let Some(spelled) = REPORTED.iter().find(|known| known.eq_ignore_ascii_case(name)) {
            let value = self.settings().get(name).unwrap_or_default();
            self.wire.out.parameter(spelled, &value);
        }
    }
}

fn timer(after: Option<Duration>) -> Option<Pin<Box<Sleep>>> {
    after.map(|after| Box::pin(tokio::time::sleep(after)))
}

async fn expired(timer: &mut Option<Pin<Box<Sleep>>>) {
    match timer {
        Some(timer) => timer.as_mut().await,
        None => std::future::pending().await,
    }
}

/// The answer to a session that somebody ends.
pub(super) fn ended() -> Failure {
    Failure::fatal(code::ADMIN_SHUTDOWN, "terminating connection due to administrator command")
}

/// A statement that runs, and what can stop it.
pub(super) struct Running {
    cancel: CancellationToken,
    end: CancellationToken,
    timeout: Option<Pin<Box<Sleep>>>,
}

impl Running {
    /// What comes of `work`, unless it is stopped before. Work that is stopped is dropped.
    pub async fn run<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Failure> {
        let stopped = |why: &str| Failure::new(code::QUERY_CANCELED, format!("canceling statement due to {why}"));
        tokio::select! {
            biased;
            () = self.end.cancelled() => Err(ended()),
            () = self.cancel.cancelled() => Err(stopped("user request")),
            () = expired(&mut self.timeout) => Err(stopped("statement timeout")),
            done = work => Ok(done),
        }
    }

    /// The same for work that must be done whole once it has begun: a commit.
    pub fn check(&self) -> Result<(), Failure> {
        if self.end.is_cancelled() { Err(ended()) } else { Ok(()) }
    }
}
