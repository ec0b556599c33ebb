//! Connections to one Postgres database, and how long a server that went away is waited for.

use std::time::Duration;

use async_trait::async_trait;
use flumen_core::{Error, ErrorKind, Result, limits};
use flumen_project::connections::postgres::PostgresConfig;
use tokio_postgres::{Client, Config, NoTls};

use super::error::explain;

/// Makes connections to one database.
#[async_trait]
pub trait Connect: Send + Sync {
    /// A new connection. Its driving task runs until the client is dropped.
    ///
    /// Errors: `Unavailable` if the server does not answer, `Invalid` if it refuses the login.
    async fn connect(&self) -> Result<Client>;

    /// The server and the database, for messages, without credentials: `localhost:5432/ny_taxi`.
    fn place(&self) -> &str;
}

/// Connects without TLS: over a Unix socket, on loopback, in a trusted network.
pub struct PlainConnector {
    config: Config,
    place: String,
}

impl PlainConnector {
    /// Connections as `config` says.
    pub fn new(config: Config) -> Self {
        let place = place(&config);
        Self { config, place }
    }

    /// From a URL: `postgresql://user:password@host:5432/database`.
    ///
    /// Errors: `Invalid` if the text is not such a URL. The message does not repeat it: it holds a password.
    pub fn from_url(url: &str) -> Result<Self> {
        let config = url.parse::<Config>().map_err(|error| {
            Error::invalid("the Postgres URL cannot be read")
                .hint("write postgresql://user:password@host:5432/database")
                .caused_by(error)
        })?;
        Ok(Self::new(config))
    }
}

#[async_trait]
impl Connect for PlainConnector {
    async fn connect(&self) -> Result<Client> {
        let (client, connection) =
            self.config.connect(NoTls).await.map_err(|error| explain(format!("postgres at {}", self.place), error))?;
        tokio::spawn(async move {
            // The error of a connection reaches whoever waits for an answer from it.
            let _ = connection.await;
        });
        Ok(client)
    }

    fn place(&self) -> &str {
        &self.place
    }
}

/// Connects as a connection of the project says, TLS included.
pub struct ProjectConnector {
    config: PostgresConfig,
    place: String,
}

impl ProjectConnector {
    /// Connections as `config` says.
    pub fn new(config: PostgresConfig) -> Self {
        let place = config.address();
        Self { config, place }
    }
}

#[async_trait]
impl Connect for ProjectConnector {
    async fn connect(&self) -> Result<Client> {
        self.config.connect().await
    }

    fn place(&self) -> &str {
        &self.place
    }
}

/// The server and the database that `config` names: `localhost:5432/ny_taxi`.
pub fn place(config: &Config) -> String {
    use tokio_postgres::config::Host;
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(name)) => name.clone(),
        Some(Host::Unix(path)) => path.display().to_string(),
        None => "localhost".to_owned(),
    };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let database = config.get_dbname().or(config.get_user()).unwrap_or("postgres");
    format!("{host}:{port}/{database}")
}

/// Connects, and waits up to `patience` for a server that does not answer.
///
/// Errors: those of the last try.
pub async fn connect_patiently(connector: &dyn Connect, patience: Duration) -> Result<Client> {
    let mut last = None;
    let tries = async {
        let mut delay = limits::RETRY_DELAY;
        loop {
            match connector.connect().await {
                Ok(client) => return Ok(client),
                Err(error) if error.kind() == ErrorKind::Unavailable => last = Some(error),
                Err(error) => return Err(error),
            }
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(limits::RETRY_DELAY_MAX);
        }
    };
    match tokio::time::timeout(patience, tries).await {
        Ok(result) => result,
        Err(_) => {
            Err(last
                .unwrap_or_else(|| Error::unavailable(format!("postgres at {} does not answer", connector.place()))))
        }
    }
}
