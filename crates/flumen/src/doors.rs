//! The doors for SQL clients: opened by `flumen serve` and `flumen up`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use flumen_connect::postgres::database::ProjectDatabases;
use flumen_core::clock::{Clock, Ids};
use flumen_core::database::Databases;
use flumen_core::{Error, Result, limits};
use flumen_lake::catalog::Catalog;
use flumen_lake::engine::memory::Shared;
use flumen_lake::engine::{Engine, EngineSettings};
use flumen_lake::ops::maintain::maintain;
use flumen_wire::{DATABASE, Engines, Server, ServerSettings, Tls};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::commands::sql;
use crate::context::Context;
use crate::door_files::DoorFiles;
use crate::{destination, metadata};

/// How the doors are.
#[derive(Debug, clap::Args)]
pub struct DoorOptions {
    /// Where Arrow Flight SQL's clients (ADBC) come to; port 0 takes a free one [default: nowhere]
    #[arg(long, value_name = "ADDRESS", help_heading = "Doors")]
    pub flight: Option<SocketAddr>,
    /// The server's certificate, with those between it and a root (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_key", help_heading = "Doors")]
    tls_cert: Option<PathBuf>,
    /// The key of the certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert", help_heading = "Doors")]
    tls_key: Option<PathBuf>,
    /// Sessions at once
    #[arg(long, value_name = "N", default_value_t = limits::CONNECTIONS, help_heading = "Doors")]
    max_connections: usize,
    /// Memory for all sessions, such as 4GB [default: half of what is free, at least 1 GB]
    #[arg(long, value_name = "SIZE", value_parser = sql::size, help_heading = "Doors")]
    memory: Option<usize>,
    /// Memory for one session [default: half of that for all]
    #[arg(long, value_name = "SIZE", value_parser = sql::size, help_heading = "Doors")]
    session_memory: Option<usize>,
    /// Cores that one query uses [default: all]
    #[arg(long, value_name = "N", help_heading = "Doors")]
    threads: Option<std::num::NonZeroUsize>,
    /// Leave the lake as it is: no retention of rows, no compaction in the background
    #[arg(long)]
    no_maintenance: bool,
}

/// Doors that are open.
pub struct Doors {
    server: Server,
    /// Where they are.
    pub addresses: Addresses,
    /// Whether nobody has to log in.
    pub is_open_to_all: bool,
}

impl DoorOptions {
    /// Opens the doors; Postgres' clients come to `pg`.
    ///
    /// Errors: those of certificates, of the users and of the addresses.
    pub async fn open(&self, pg: Option<SocketAddr>, flight: Option<SocketAddr>, context: &Context) -> Result<Doors> {
        let project = context.project()?;
        let tls = match (&self.tls_cert, &self.tls_key) {
            (Some(certificate), Some(key)) => Some(Tls::load(certificate, key)?),
            _ => None,
        };
        let memory = self.memory.unwrap_or_else(sql::default_memory);
        let engines = DoorEngines {
            catalog: destination::catalog(context)?,
            environment: context.environment.clone(),
            clock: Arc::clone(&context.clock),
            ids: Arc::clone(&context.ids),
            databases: Arc::new(ProjectDatabases::new(Arc::clone(&project))),
            files: Arc::new(DoorFiles::new(&project, crate::origin::files(context)?, context.spool()?)?),
            shared: Shared::new(memory, self.session_memory.unwrap_or(memory / 2))?,
            threads: self.threads.map(usize::from),
        };
        let server = Server::bind(ServerSettings {
            pg,
            flight,
            users: metadata::users(&project).await?,
            tls,
            engines: Arc::new(engines),
            connections: self.max_connections,
            clock: Arc::clone(&context.clock),
            ids: Arc::clone(&context.ids),
        })
        .await?;
        let scheme = if self.tls_cert.is_some() { "grpc+tls" } else { "grpc" };
        let addresses = Addresses {
            pg: server.pg_address().map(|address| format!("postgres://{address}/{DATABASE}")),
            flight: server.flight_address().map(|address| format!("{scheme}://{address}")),
        };
        let is_open_to_all = server.is_open_to_all();
        Ok(Doors { server, addresses, is_open_to_all })
    }

    /// Looks after the lake now and then, until `stop`, unless it is to be left as it is.
    ///
    /// Errors: those of the project.
    pub async fn maintain(&self, stop: &CancellationToken, context: &Context) -> Result<()> {
        if self.no_maintenance {
            stop.cancelled().await;
            return Ok(());
        }
        let catalog = destination::catalog(context)?;
        stop.run_until_cancelled(keep_up(context, &catalog)).await;
        Ok(())
    }
}

impl Doors {
    /// Serves until `stop`.
    pub async fn serve(self, stop: CancellationToken) {
        self.server.serve(stop).await;
    }
}

/// Looks after the lake now and then, for ever.
async fn keep_up(context: &Context, catalog: &Catalog) {
    let mut rounds = tokio::time::interval(limits::MAINTAIN_EVERY);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        // What goes wrong now may go well next time, and clients are served all the same.
        match maintain(catalog, limits::MAINTAIN_BYTES).await {
            Ok(done) => {
                for (table, problem) in done.iter().filter_map(|one| Some((&one.table, one.problem.as_ref()?))) {
                    context.output.warning(format_args!("maintenance of {table}: {problem}"));
                }
            }
            Err(error) => context.output.warning(format_args!("maintenance: {error}")),
        }
    }
}

/// Where the doors are.
#[derive(Debug, Clone, Default)]
pub struct Addresses {
    /// For clients of Postgres.
    pub pg: Option<String>,
    /// For clients of Arrow Flight SQL.
    pub flight: Option<String>,
}

impl Addresses {
    /// Each of them, a line each.
    pub fn lines(&self) -> String {
        self.pg.iter().chain(&self.flight).map(|address| format!("{address}\n")).collect()
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        json!({ "pg": self.pg, "flight": self.flight })
    }
}

/// Writes the addresses in one step, so that whoever waits for the file never reads half of one.
///
/// Errors: those of the file.
pub fn announce(path: &Path, lines: &str) -> Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    std::fs::write(&partial, lines)
        .and_then(|()| std::fs::rename(&partial, path))
        .map_err(|error| Error::io(path.display(), error))
}

/// An engine for each session, over the project's lake.
struct DoorEngines {
    catalog: Catalog,
    environment: String,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn Ids>,
    files: Arc<DoorFiles>,
    databases: Arc<dyn Databases>,
    shared: Shared,
    threads: Option<usize>,
}

#[async_trait]
impl Engines for DoorEngines {
    async fn open(&self, database: &str, read_only: bool) -> Result<Engine> {
        let environment = if database == DATABASE { self.environment.as_str() } else { database };
        if self.catalog.read().await?.environment(environment).is_err() {
            return Err(Error::not_found(format!("database \"{environment}\" does not exist"))
                .hint(format!("it is {DATABASE}, or an environment: 'flumen env list' shows those there are")));
        }
        let settings = EngineSettings {
            catalog: Some(self.catalog.clone()),
            environment: environment.to_owned(),
            files: Arc::clone(&self.files) as _,
            memory_bytes: flumen_lake::engine::DEFAULT_MEMORY_BYTES,
            threads: self.threads,
            clock: Arc::clone(&self.clock),
            ids: Arc::clone(&self.ids),
            read_only,
            // What files a session may read and write is for the reader to say.
            files_allowed: true,
            external_tables: self.files.allows_folder(),
            destinations: (!read_only).then(|| Arc::clone(&self.files) as _),
            databases: Some(Arc::clone(&self.databases)),
        };
        Engine::sharing(settings, &self.shared)
    }
}
