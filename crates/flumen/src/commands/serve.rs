//! `flumen serve`: the doors for SQL clients.

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
use serde_json::json;

use super::sql;
use crate::context::Context;
use crate::door_files::DoorFiles;
use crate::{destination, metadata};

/// Serve the lake to SQL clients: psql, SQLAlchemy, JDBC, pandas and whatever else speaks Postgres
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Without users ('flumen user add') nobody has to log in, and only this computer is listened to. With --tls-cert, every
client must use TLS.

Examples:
  flumen serve
  flumen serve --flight 127.0.0.1:5440
  flumen serve --pg 0.0.0.0:5439 --tls-cert server.crt --tls-key server.key
  psql -h 127.0.0.1 -p 5439 lake
")]
pub struct ServeCommand {
    /// Where Postgres' clients come to; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:5439")]
    pg: SocketAddr,
    /// Where Arrow Flight SQL's clients (ADBC) come to; port 0 takes a free one [default: nowhere]
    #[arg(long, value_name = "ADDRESS")]
    flight: Option<SocketAddr>,
    /// The server's certificate, with those between it and a root (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The key of the certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Sessions at once
    #[arg(long, value_name = "N", default_value_t = limits::CONNECTIONS)]
    max_connections: usize,
    /// Memory for all sessions, such as 4GB [default: half of what is free, at least 1 GB]
    #[arg(long, value_name = "SIZE", value_parser = sql::size)]
    memory: Option<usize>,
    /// Memory for one session [default: half of that for all]
    #[arg(long, value_name = "SIZE", value_parser = sql::size)]
    session_memory: Option<usize>,
    /// Cores that one query uses [default: all]
    #[arg(long, value_name = "N")]
    threads: Option<std::num::NonZeroUsize>,
    /// Leave the lake as it is: no retention of rows, no compaction in the background
    #[arg(long)]
    no_maintenance: bool,
    /// Write the addresses to this file as soon as they can be reached; removed at the end
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

impl ServeCommand {
    /// Serves until it is cancelled, which is its normal end.
    pub async fn run(self, context: &Context) -> Result<()> {
        // What an earlier server left behind when it was killed must not be taken for this one's addresses.
        if let Some(stale) = self.ready_file.as_deref().filter(|path| path.is_file()) {
            std::fs::remove_file(stale).map_err(|error| Error::io(stale.display(), error))?;
        }
        let project = context.project()?;
        let tls = match (&self.tls_cert, &self.tls_key) {
            (Some(certificate), Some(key)) => Some(Tls::load(certificate, key)?),
            _ => None,
        };
        let catalog = destination::catalog(context)?;
        let memory = self.memory.unwrap_or_else(sql::default_memory);
        let engines = DoorEngines {
            catalog: catalog.clone(),
            environment: context.environment.clone(),
            clock: Arc::clone(&context.clock),
            ids: Arc::clone(&context.ids),
            databases: Arc::new(ProjectDatabases::new(Arc::clone(&project))),
            files: Arc::new(DoorFiles::new(&project, crate::origin::files(context)?)?),
            shared: Shared::new(memory, self.session_memory.unwrap_or(memory / 2))?,
            threads: self.threads.map(usize::from),
        };
        let server = Server::bind(ServerSettings {
            pg: Some(self.pg),
            flight: self.flight,
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
        if let Some(path) = &self.ready_file {
            announce(path, &addresses)?;
        }
        addresses.tell(context)?;
        if server.is_open_to_all() {
            context.output.note("there are no users: nobody has to log in, and only this computer is listened to");
        }
        let maintained = async {
            if self.no_maintenance {
                std::future::pending::<()>().await;
            }
            keep_up(context, &catalog).await;
        };
        tokio::select! {
            () = server.serve(context.cancel.clone()) => {}
            () = maintained => {}
        }
        if let Some(path) = &self.ready_file {
            std::fs::remove_file(path).map_err(|error| Error::io(path.display(), error))?;
        }
        Ok(())
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
struct Addresses {
    pg: Option<String>,
    flight: Option<String>,
}

impl Addresses {
    fn lines(&self) -> String {
        self.pg.iter().chain(&self.flight).map(|address| format!("{address}\n")).collect()
    }

    fn tell(&self, context: &Context) -> Result<()> {
        if context.output.json {
            return context.output.json(&json!({ "pg": self.pg, "flight": self.flight }));
        }
        context.output.line(self.lines().trim_end())?;
        if let Some(pg) = &self.pg {
            context.output.note(format_args!("connect with: psql {pg}; Ctrl-C ends the server"));
        }
        Ok(())
    }
}

/// Writes the addresses in one step, so that whoever waits for the file never reads half of one.
fn announce(path: &Path, addresses: &Addresses) -> Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    std::fs::write(&partial, addresses.lines())
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
            // What files a session may read is for the reader to say.
            files_allowed: true,
            external_tables: false,
            destinations: None,
            databases: Some(Arc::clone(&self.databases)),
        };
        Engine::sharing(settings, &self.shared)
    }
}
