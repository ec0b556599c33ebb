//! Who is connected, what they run, and how it is stopped. `pg_stat_activity` shows it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use flumen_core::clock::{Clock, Ids};
use flumen_core::limits;
use tokio_util::sync::CancellationToken;

use crate::failure::{Failure, code};
use crate::login::Account;

/// The sessions of all doors.
pub(crate) struct Sessions {
    clock: Arc<dyn Clock>,
    ids: Arc<dyn Ids>,
    limit: usize,
    next: AtomicI32,
    open: Mutex<BTreeMap<i32, Arc<Session>>>,
    /// When the server began.
    pub started: DateTime<Utc>,
}

/// One session.
pub(crate) struct Session {
    /// Its number. Clients take it for the id of a process.
    pub pid: i32,
    /// What a request to cancel must know.
    pub key: i32,
    /// Who it is.
    pub account: Account,
    /// The database that was asked for.
    pub database: String,
    /// Where the client is.
    pub address: SocketAddr,
    /// When it began.
    pub started: DateTime<Utc>,
    /// Cancelled to end the session.
    pub end: CancellationToken,
    activity: Mutex<Activity>,
    clock: Arc<dyn Clock>,
}

/// What a session does.
#[derive(Debug, Clone)]
pub(crate) struct Activity {
    /// The name that the client gave itself.
    pub application: String,
    /// In the words of `pg_stat_activity`.
    pub state: &'static str,
    /// The statement that runs, or ran last.
    pub query: String,
    /// When it began.
    pub query_started: Option<DateTime<Utc>>,
    /// When the state changed.
    pub changed: DateTime<Utc>,
    /// When the block of the transaction began.
    pub transaction_started: Option<DateTime<Utc>>,
    cancel: CancellationToken,
    /// Whether the session ends when it rests.
    last: bool,
}

impl Sessions {
    /// None yet; no more than `limit` at once.
    pub fn new(clock: Arc<dyn Clock>, ids: Arc<dyn Ids>, limit: usize) -> Self {
        let started = clock.now();
        Self { clock, ids, limit, next: AtomicI32::new(1), open: Mutex::default(), started }
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<i32, Arc<Session>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens one.
    ///
    /// Errors: too many connections.
    pub fn begin(
        self: &Arc<Self>,
        account: Account,
        database: String,
        application: String,
        address: SocketAddr,
    ) -> Result<Guard, Failure> {
        let now = self.clock.now();
        let mut open = self.open();
        if open.len() >= self.limit {
            return Err(Failure::fatal(
                code::TOO_MANY_CONNECTIONS,
                format!("there are {} connections, and no room for more", open.len()),
            )
            .hint("close some, or start the server with a greater --max-connections"));
        }
        let session = Arc::new(Session {
            pid: self.next.fetch_add(1, Ordering::Relaxed),
            // The last bytes of an id are random.
            key: i32::from_be_bytes(last_bytes(self.ids.next().as_bytes())),
            account,
            database,
            address,
            started: now,
            end: CancellationToken::new(),
            activity: Mutex::new(Activity {
                application,
                state: "idle",
                query: String::new(),
                query_started: None,
                changed: now,
                transaction_started: None,
                cancel: CancellationToken::new(),
                last: false,
            }),
            clock: Arc::clone(&self.clock),
        });
        open.insert(session.pid, Arc::clone(&session));
        Ok(Guard { session, sessions: Arc::clone(self) })
    }

    /// All that are open.
    pub fn list(&self) -> Vec<Arc<Session>> {
        self.open().values().cloned().collect()
    }

    /// The one with the number `pid`.
    pub fn find(&self, pid: i32) -> Option<Arc<Session>> {
        self.open().get(&pid).cloned()
    }

    /// Ends those at rest now, and each of the others as soon as it rests.
    pub fn end_resting(&self) {
        for session in self.list() {
            let mut activity = session.lock();
            activity.last = true;
            if activity.state != "active" {
                session.end.cancel();
            }
        }
    }

    /// Ends all.
    pub fn end_all(&self) {
        self.list().iter().for_each(|session| session.end.cancel());
    }

    /// The present.
    pub fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }
}

fn last_bytes(id: &[u8; 16]) -> [u8; 4] {
    let [.., a, b, c, d] = *id;
    [a, b, c, d]
}

impl Session {
    fn lock(&self) -> MutexGuard<'_, Activity> {
        self.activity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it does now.
    pub fn activity(&self) -> Activity {
        self.lock().clone()
    }

    /// The client's name for itself.
    pub fn set_application(&self, name: &str) {
        self.lock().application = name.to_owned();
    }

    /// `query` begins. What is returned is cancelled when somebody asks for that.
    pub fn begin(&self, query: &str) -> CancellationToken {
        let now = self.clock.now();
        let mut activity = self.lock();
        activity.cancel = CancellationToken::new();
        activity.state = "active";
        activity.query = query.chars().take(limits::ACTIVITY_QUERY_CHARS).collect();
        activity.query_started = Some(now);
        activity.changed = now;
        activity.cancel.clone()
    }

    /// Nothing runs any more; a block of a transaction may be open, or have failed.
    pub fn rest(&self, state: &'static str) {
        let now = self.clock.now();
        let mut activity = self.lock();
        activity.state = state;
        activity.changed = now;
        activity.transaction_started = match state {
            "idle" => None,
            _ => activity.transaction_started.or(Some(now)),
        };
        if activity.last {
            self.end.cancel();
        }
    }

    /// Stops the statement that runs, if one does.
    pub fn cancel(&self) {
        let activity = self.lock();
        if activity.state == "active" {
            activity.cancel.cancel();
        }
    }
}

/// A session that is open as long as this is held.
pub(crate) struct Guard {
    /// The session.
    pub session: Arc<Session>,
    sessions: Arc<Sessions>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.sessions.open().remove(&self.session.pid);
    }
}
