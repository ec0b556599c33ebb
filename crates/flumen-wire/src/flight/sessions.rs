//! The sessions of Flight SQL: one for each login, or for each connection while there are no users.

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use flumen_core::limits;
use flumen_core::sql::Answer;
use flumen_lake::engine::Engine;
use tonic::Status;

use super::put::Statement;
use crate::catalog::Catalog;
use crate::failure::{Failure, code};
use crate::login::Account;
use crate::settings::SessionSettings;
use crate::{DATABASE, Opened, Shared, sessions};

/// A session.
pub(super) struct FlightSession {
    pub engine: Arc<Engine>,
    /// Its functions are the engine's, too.
    pub catalog: Catalog,
    pub guard: sessions::Guard,
    answers: Mutex<BTreeMap<u64, Answer>>,
    prepared: Mutex<BTreeMap<u64, Statement>>,
    next: std::sync::atomic::AtomicU64,
}

impl FlightSession {
    fn next(&self) -> u64 {
        self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
    }

    /// Keeps an answer until its rows are fetched. Of those that nobody fetches, the oldest is let go.
    pub fn keep(&self, answer: Answer) -> String {
        let number = self.next();
        let mut answers = lock(&self.answers);
        answers.insert(number, answer);
        while answers.len() > limits::PORTALS {
            answers.pop_first();
        }
        number.to_string()
    }

    /// The answer that was kept as `handle`.
    pub fn take(&self, handle: &str) -> Option<Answer> {
        lock(&self.answers).remove(&handle.parse().ok()?)
    }

    /// Keeps a statement.
    pub fn prepare(&self, statement: Statement) -> String {
        let number = self.next();
        let mut prepared = lock(&self.prepared);
        prepared.insert(number, statement);
        while prepared.len() > limits::PREPARED_STATEMENTS {
            prepared.pop_first();
        }
        number.to_string()
    }

    /// The statement that was kept as `handle`.
    pub fn prepared(&self, handle: &[u8]) -> Result<Statement, Status> {
        let found = number_of(handle).and_then(|number| lock(&self.prepared).get(&number).cloned());
        found.ok_or_else(|| Status::not_found("this statement is not prepared"))
    }

    /// Keeps `statement` as `handle`, with the values that its parameters have now.
    pub fn bind(&self, handle: &[u8], statement: Statement) {
        let mut prepared = lock(&self.prepared);
        if let Some(known) = number_of(handle).and_then(|number| prepared.get_mut(&number)) {
            *known = statement;
        }
    }

    /// Lets a statement go.
    pub fn close(&self, handle: &str) {
        if let Ok(number) = handle.parse() {
            lock(&self.prepared).remove(&number);
        }
    }
}

fn number_of(handle: &[u8]) -> Option<u64> {
    std::str::from_utf8(handle).ok()?.parse().ok()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A session, and when it was used last.
type Used = (Arc<FlightSession>, DateTime<Utc>);

/// All sessions, by token or by connection.
pub(super) struct FlightSessions {
    shared: Arc<Shared>,
    open: Mutex<HashMap<String, Used>>,
}

impl FlightSessions {
    /// None yet.
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared, open: Mutex::default() }
    }

    /// Begins a session for whoever has the name and the password, and gives its token.
    pub async fn login(&self, name: &str, password: &str, address: Option<SocketAddr>) -> Result<String, Status> {
        let open = self.is_open().await?;
        let account = if open {
            Account { name: if name.is_empty() { "anonymous" } else { name }.to_owned(), read_only: false }
        } else {
            self.shared.login.check(name, password).await.map_err(|failure| refused(&failure))?
        };
        let token = self.shared.login.token();
        self.begin(token.clone(), &account, address).await?;
        Ok(token)
    }

    /// The session of `token`; without one that of the connection, while nobody has to log in.
    pub async fn find(&self, token: Option<&str>, address: Option<SocketAddr>) -> Result<Arc<FlightSession>, Status> {
        let now = self.shared.sessions.now();
        self.sweep(now);
        let key = match (token, address) {
            (Some(token), _) => token.to_owned(),
            (None, Some(address)) => format!("from {address}"),
            (None, None) => return Err(Status::unauthenticated("log in with a name and a password")),
        };
        if let Some((session, used)) = lock(&self.open).get_mut(&key) {
            if session.guard.session.end.is_cancelled() {
                return Err(Status::unauthenticated("this session was ended"));
            }
            *used = now;
            return Ok(Arc::clone(session));
        }
        let loopback = address.is_some_and(|address| address.ip().is_loopback());
        if token.is_some() || !loopback || !self.is_open().await? {
            return Err(Status::unauthenticated("log in with a name and a password"));
        }
        self.begin(key, &Account { name: "anonymous".to_owned(), read_only: false }, address).await
    }

    async fn is_open(&self) -> Result<bool, Status> {
        self.shared.login.is_open().await.map_err(|error| super::status(&error))
    }

    async fn begin(
        &self,
        key: String,
        account: &Account,
        address: Option<SocketAddr>,
    ) -> Result<Arc<FlightSession>, Status> {
        let now = self.shared.sessions.now();
        self.sweep(now);
        let address = address.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
        let opened = self.shared.open(DATABASE, account, "Flight SQL", address).await;
        let opened = opened.map_err(|failure| refused(&failure))?;
        let Opened { engine, guard } = opened;
        let (shared, engine) = (Arc::clone(&self.shared), Arc::new(engine));
        let settings = Arc::new(Mutex::new(SessionSettings::new(&account.name, !account.read_only)));
        let catalog = Catalog::new(shared, Arc::clone(&guard.session), Arc::clone(&engine), settings);
        let session = Arc::new(FlightSession {
            engine,
            catalog: catalog.map_err(|error| super::status(&error))?,
            guard,
            answers: Mutex::default(),
            prepared: Mutex::default(),
            next: std::sync::atomic::AtomicU64::new(1),
        });
        lock(&self.open).insert(key, (Arc::clone(&session), now));
        Ok(session)
    }

    /// Lets those go that were silent for long, or were ended.
    fn sweep(&self, now: DateTime<Utc>) {
        let idle = |used: DateTime<Utc>| (now - used).to_std().is_ok_and(|silent| silent > limits::FLIGHT_IDLE);
        lock(&self.open).retain(|_, (session, used)| !idle(*used) && !session.guard.session.end.is_cancelled());
    }
}

fn refused(failure: &Failure) -> Status {
    let message = match &failure.hint {
        Some(hint) => format!("{}; {hint}", failure.message),
        None => failure.message.clone(),
    };
    match failure.code {
        code::TOO_MANY_CONNECTIONS => Status::resource_exhausted(message),
        code::UNDEFINED_DATABASE => Status::not_found(message),
        _ => Status::unauthenticated(message),
    }
}
