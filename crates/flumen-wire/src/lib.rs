//! The doors for SQL clients: Postgres' wire protocol, and Arrow Flight SQL.
//!
//! A session of either door has an engine of its own; what all share is the memory they may use, the users, and the list
//! of who is connected. [`Server`] opens the doors and closes them.
//!
//! - `pg.rs`: the door for Postgres' clients; `flight.rs`: the one for Arrow's.
//! - `catalog.rs`: `pg_catalog`, which the clients look into.
//! - `statement.rs`, `scan.rs`, `copy.rs`: what a statement is; `settings.rs`: the settings of a session.
//! - `login.rs`, `tls.rs`: who may come in; `sessions.rs`: who is in.

mod catalog;
mod copy;
mod failure;
mod flight;
mod login;
mod pg;
mod scan;
mod sessions;
mod settings;
mod statement;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use flumen_core::boxed;
use flumen_core::clock::{Clock, Ids};
use flumen_core::user::UserStore;
use flumen_core::{Error, ErrorKind, Result, limits};
use flumen_lake::engine::Engine;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use failure::{Failure, code};
use login::{Account, Login};
use sessions::Sessions;

pub use tls::Tls;

/// The name of the one database that is always there.
pub const DATABASE: &str = flumen_core::dataset::LAKE;

/// Makes the engine of each session.
#[async_trait]
pub trait Engines: Send + Sync {
    /// An engine for a session with `database`, which is `lake` or an environment of it.
    ///
    /// Errors: `NotFound` for a database that is not there.
    async fn open(&self, database: &str, read_only: bool) -> Result<Engine>;
}

/// What a server is made of.
pub struct ServerSettings {
    /// Where Postgres' clients come to.
    pub pg: Option<SocketAddr>,
    /// Where Flight SQL's clients come to.
    pub flight: Option<SocketAddr>,
    /// Who may come in.
    pub users: Arc<dyn UserStore>,
    /// The certificate. With one, nobody comes in without TLS.
    pub tls: Option<Tls>,
    /// What makes engines.
    pub engines: Arc<dyn Engines>,
    /// How many sessions there may be at once.
    pub connections: usize,
    /// The present.
    pub clock: Arc<dyn Clock>,
    /// Ids, for salts and keys too.
    pub ids: Arc<dyn Ids>,
}

/// What all sessions share.
pub(crate) struct Shared {
    pub engines: Arc<dyn Engines>,
    pub login: Login,
    pub sessions: Arc<Sessions>,
    pub tls: Option<Tls>,
}

/// A session that has begun.
pub(crate) struct Opened {
    pub engine: Engine,
    pub guard: sessions::Guard,
}

impl Shared {
    /// Begins a session.
    #[boxed]
    pub async fn open(
        &self,
        database: &str,
        account: &Account,
        application: &str,
        address: SocketAddr,
    ) -> Result<Opened, Failure> {
        let mut opened = self.engines.open(database, account.read_only).await;
        let mut database = database;
        // Clients that are told nothing ask for a database called as the user, or for Postgres' own.
        let is_default = database == account.name || database == "postgres";
        if is_default && opened.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            database = DATABASE;
            opened = self.engines.open(database, account.read_only).await;
        }
        let engine = opened.map_err(|error| match error.kind() {
            ErrorKind::NotFound => Failure { fatal: true, code: code::UNDEFINED_DATABASE, ..Failure::from(error) },
            _ => Failure { fatal: true, ..Failure::from(error) },
        })?;
        let guard = self.sessions.begin(account.clone(), database.to_owned(), application.to_owned(), address)?;
        Ok(Opened { engine, guard })
    }
}

/// Doors that are open, and not served yet.
pub struct Server {
    pg: Option<TcpListener>,
    flight: Option<TcpListener>,
    shared: Arc<Shared>,
    open_to_all: bool,
}

impl Server {
    /// Opens the doors.
    ///
    /// Errors: `Conflict` for an address that is taken; `Invalid` for one that others reach while there are no users.
    #[boxed]
    pub async fn bind(settings: ServerSettings) -> Result<Self> {
        let login = Login::new(settings.users, Arc::clone(&settings.ids));
        let open_to_all = login.is_open().await?;
        let pg = match settings.pg {
            Some(address) => {
                login::check_address(&login, &address).await?;
                Some(listen(address, "--pg").await?)
            }
            None => None,
        };
        let flight = match settings.flight {
            Some(address) => {
                login::check_address(&login, &address).await?;
                if !address.ip().is_loopback() && settings.tls.is_none() {
                    return Err(Error::invalid(format!(
                        "{address} can be reached from other machines, and passwords would go there in clear"
                    ))
                    .hint("add --tls-cert and --tls-key, or listen on 127.0.0.1"));
                }
                Some(listen(address, "--flight").await?)
            }
            None => None,
        };
        let shared = Shared {
            engines: settings.engines,
            login,
            sessions: Arc::new(Sessions::new(settings.clock, settings.ids, settings.connections)),
            tls: settings.tls,
        };
        Ok(Self { pg, flight, shared: Arc::new(shared), open_to_all })
    }

    /// Where Postgres' clients come to.
    pub fn pg_address(&self) -> Option<SocketAddr> {
        self.pg.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Where Flight SQL's clients come to.
    pub fn flight_address(&self) -> Option<SocketAddr> {
        self.flight.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Whether nobody has to log in, since there are no users.
    pub fn is_open_to_all(&self) -> bool {
        self.open_to_all
    }

    /// Serves until `stop`. Statements that run then may come to their end for a while; sessions at rest are told and
    /// closed.
    #[boxed]
    pub async fn serve(self, stop: CancellationToken) {
        // Each connection holds a sender; when all are dropped, all connections are over.
        let (held, mut over) = mpsc::channel(1);
        let shared = Arc::clone(&self.shared);
        let mut doors = Vec::new();
        if let Some(listener) = self.pg {
            doors.push(tokio::spawn(pg::serve(listener, Arc::clone(&shared), stop.clone(), held.clone())));
        }
        if let Some(listener) = self.flight {
            doors.push(tokio::spawn(flight::serve(listener, Arc::clone(&shared), stop.clone(), held.clone())));
        }
        drop(held);
        stop.cancelled().await;
        shared.sessions.end_resting();
        if tokio::time::timeout(limits::SHUTDOWN_PATIENCE, over.recv()).await.is_err() {
            shared.sessions.end_all();
            // Those who cannot even be told are dropped with the process.
            let _ = tokio::time::timeout(limits::SHUTDOWN_PATIENCE, over.recv()).await;
        }
    }
}

/// Held by a connection as long as it is open. Nothing is ever sent.
pub(crate) type Held = mpsc::Sender<std::convert::Infallible>;

async fn listen(address: SocketAddr, option: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            Error::new(ErrorKind::Conflict, format!("{address} is taken by another program"))
                .hint(format!("choose another with {option}; port 0 finds a free one"))
        }
        _ => Error::io(address, error),
    })
}
