//! `kind: postgres`: a Postgres database, and the session with it.

use std::path::PathBuf;
use std::time::Duration;

use flumen_core::boxed;
use flumen_core::secret::{ExposeSecret as _, Secret};
use flumen_core::{Error, ErrorKind, Result};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres_rustls::MakeRustlsConnect;
use url::Url;

use super::{Check, Config, Field, Kind, Takes, Values};
use crate::store::innermost;
use crate::tls::{self, Trust};

/// See the module.
pub const KIND: Kind = Kind {
    name: "postgres",
    about: "a Postgres database",
    fields: &[
        Field::optional(
            "url",
            Takes::Url,
            "the whole as postgresql://user@host:5432/database; other fields go before it",
        ),
        Field::optional("host", Takes::Text, "the host, or the folder of its socket; localhost by default"),
        Field::optional("port", Takes::Number, "the port; 5432 by default"),
        Field::optional("user", Takes::Text, "the user; postgres by default"),
        Field::optional("password", Takes::Secret, "the password"),
        Field::optional("database", Takes::Text, "the database; called as the user by default"),
        Field::optional("sslmode", Takes::Text, "disable, prefer (default), require, verify-ca or verify-full"),
        Field::optional("sslrootcert", Takes::Text, "the file of the authorities to trust; relative to the project"),
        Field::optional("options", Takes::Text, "options for the server, such as -c statement_timeout=60s"),
    ],
    configure,
};

/// How long a server may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A Postgres database.
#[derive(Debug, Clone)]
pub struct PostgresConfig {
    /// The host's name or address, or the folder of its socket.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The user.
    pub user: String,
    /// The password.
    pub password: Option<Secret>,
    /// The database.
    pub database: String,
    /// Whether the connection is encrypted, and whom it trusts.
    pub sslmode: SslMode,
    /// The PEM file of the authorities to trust; by default the system's.
    pub sslrootcert: Option<PathBuf>,
    /// Options for the server: `-c statement_timeout=60s`.
    pub options: Option<String>,
    /// What the server shows in its list of sessions.
    pub application_name: String,
}

/// Whether a connection is encrypted, and whom it trusts: as libpq has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SslMode {
    /// Never encrypted.
    Disable,
    /// Encrypted if the server can; no certificate is checked.
    #[default]
    Prefer,
    /// Encrypted; no certificate is checked.
    Require,
    /// Encrypted, by a server that an authority vouches for.
    VerifyCa,
    /// Encrypted, by a server that an authority vouches for under this host's name.
    VerifyFull,
}

impl SslMode {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            SslMode::Disable => "disable",
            SslMode::Prefer => "prefer",
            SslMode::Require => "require",
            SslMode::VerifyCa => "verify-ca",
            SslMode::VerifyFull => "verify-full",
        }
    }
}

impl std::str::FromStr for SslMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "disable" => SslMode::Disable,
            "allow" | "prefer" => SslMode::Prefer,
            "require" => SslMode::Require,
            "verify-ca" => SslMode::VerifyCa,
            "verify-full" => SslMode::VerifyFull,
            _ => {
                return Err(Error::invalid(format!("there is no sslmode '{text}'"))
                    .hint("the modes are disable, prefer, require, verify-ca and verify-full"));
            }
        })
    }
}

impl Default for PostgresConfig {
    /// The user `postgres` on this machine.
    fn default() -> Self {
        Self {
            host: "localhost".to_owned(),
            port: 5432,
            user: "postgres".to_owned(),
            password: None,
            database: "postgres".to_owned(),
            sslmode: SslMode::default(),
            sslrootcert: None,
            options: None,
            application_name: "flumen".to_owned(),
        }
    }
}

fn configure(values: &Values) -> Result<Config> {
    let base = match values.text("url") {
        Some(url) => PostgresConfig::from_url(&url).map_err(|error| error.within("url"))?,
        None => PostgresConfig { database: String::new(), ..PostgresConfig::default() },
    };
    let user = values.text("user").unwrap_or(base.user);
    let database = values.text("database").unwrap_or(base.database);
    let sslrootcert = values.text("sslrootcert").map(PathBuf::from).or(base.sslrootcert);
    Ok(Config::Postgres(PostgresConfig {
        host: values.text("host").unwrap_or(base.host),
        port: values.number("port")?.unwrap_or(base.port),
        password: values.secret("password").or(base.password),
        database: if database.is_empty() { user.clone() } else { database },
        user,
        sslmode: values.text("sslmode").map_or(Ok(base.sslmode), |text| text.parse())?,
        sslrootcert: sslrootcert.map(|path| values.project_dir().join(path)),
        options: values.text("options").or(base.options),
        application_name: base.application_name,
    }))
}

impl PostgresConfig {
    /// What a URL says: `postgresql://user:password@host:5432/database?sslmode=require`.
    ///
    /// Errors: `Invalid` for what is no such URL, or has a parameter that is not known. The message shows no password.
    pub fn from_url(text: &str) -> Result<Self> {
        let form = "write it as postgresql://user@host:5432/database";
        let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "postgres" | "postgresql"));
        let url = url.ok_or_else(|| Error::invalid("this is not the address of a Postgres database").hint(form))?;
        let mut config = Self::default();
        if let Some(host) = url.host_str().filter(|host| !host.is_empty()) {
            config.host = decoded(host).trim_matches(['[', ']']).to_owned();
        }
        config.port = url.port().unwrap_or(config.port);
        if !url.username().is_empty() {
            config.user = decoded(url.username());
        }
        config.password = url.password().map(|password| Secret::from(decoded(password)));
        config.database = Some(decoded(url.path().trim_start_matches('/')))
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| config.user.clone());
        for (name, value) in url.query_pairs() {
            match &*name {
                "sslmode" => config.sslmode = value.parse()?,
                "sslrootcert" => config.sslrootcert = Some(PathBuf::from(&*value)),
                "options" => config.options = Some(value.into_owned()),
                "application_name" => config.application_name = value.into_owned(),
                "host" => config.host = value.into_owned(),
                "user" => config.user = value.into_owned(),
                "password" => config.password = Some(Secret::from(value.into_owned())),
                "dbname" => config.database = value.into_owned(),
                "connect_timeout" | "channel_binding" => {}
                other => {
                    let known = ["sslmode", "sslrootcert", "options", "application_name", "host", "user", "dbname"];
                    return Err(Error::invalid(format!("the parameter '{other}' is not known"))
                        .hint(format!("known are {}", known.join(", ")))
                        .did_you_mean(other, known));
                }
            }
        }
        Ok(config)
    }

    /// Where it is, for messages: `user@host:5432/database`.
    pub fn address(&self) -> String {
        format!("{}@{}:{}/{}", self.user, self.host, self.port, self.database)
    }

    /// The same for the driver.
    pub fn to_driver(&self) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config
            .host(&self.host)
            .port(self.port)
            .user(&self.user)
            .dbname(&self.database)
            .application_name(&self.application_name)
            .connect_timeout(CONNECT_TIMEOUT)
            .ssl_mode(match self.sslmode {
                SslMode::Disable => tokio_postgres::config::SslMode::Disable,
                SslMode::Prefer => tokio_postgres::config::SslMode::Prefer,
                SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => tokio_postgres::config::SslMode::Require,
            });
        if let Some(password) = &self.password {
            config.password(password.expose_secret());
        }
        if let Some(options) = &self.options {
            config.options(options);
        }
        config
    }

    /// How the connection is encrypted, for the driver.
    pub fn tls(&self) -> Result<MakeRustlsConnect> {
        let trust = match self.sslmode {
            SslMode::Disable | SslMode::Prefer | SslMode::Require => Trust::Anyone,
            SslMode::VerifyCa => Trust::Authority,
            SslMode::VerifyFull => Trust::Host,
        };
        Ok(MakeRustlsConnect::new(tls::client_config(trust, self.sslrootcert.as_deref())?))
    }

    /// A session. Its connection runs as a task of the current runtime, and ends when the client is dropped.
    ///
    /// Errors: `Unavailable` when nothing answers, `Invalid` for a wrong user, password or TLS mode, `NotFound` for a
    /// database that is not there; each with its remedy.
    #[boxed]
    pub async fn connect(&self) -> Result<Client> {
        let (client, connection) =
            self.to_driver().connect(self.tls()?).await.map_err(|error| self.connect_error(error))?;
        tokio::spawn(async move {
            // The client gets the error of a broken connection with its next request.
            let _ = connection.await;
        });
        Ok(client)
    }

    /// What a failed attempt to connect means.
    fn connect_error(&self, error: tokio_postgres::Error) -> Error {
        let place = self.address();
        let (kind, what, hint) = match error.code() {
            Some(code) => self.refusal(code, &error),
            None => self.no_connection(&error),
        };
        Error::new(kind, format!("{place}: {what}")).hint(hint).caused_by(error)
    }

    /// The server answered, and said no.
    fn refusal(&self, code: &SqlState, error: &tokio_postgres::Error) -> (ErrorKind, String, String) {
        let said = error.as_db_error().map(|error| error.message().to_owned()).unwrap_or_default();
        let (user, database) = (&self.user, &self.database);
        let (kind, hint) = match *code {
            SqlState::INVALID_PASSWORD => (
                ErrorKind::Invalid,
                format!("check the password of the user '{user}'; it can be set with secret_env('…') and .env"),
            ),
            SqlState::INVALID_AUTHORIZATION_SPECIFICATION if said.contains("pg_hba") => (
                ErrorKind::Invalid,
                format!(
                    "the server's pg_hba.conf lets '{user}' not in from here; try another sslmode, or ask its administrator"
                ),
            ),
            SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
                (ErrorKind::Invalid, format!("check the user; the server may not know '{user}'"))
            }
            SqlState::INVALID_CATALOG_NAME => (
                ErrorKind::NotFound,
                format!(
                    "check the database, or make it: createdb -h {} -p {} -U {user} {database}",
                    self.host, self.port
                ),
            ),
            SqlState::INSUFFICIENT_PRIVILEGE => {
                (ErrorKind::Invalid, format!("grant connect on database {database} to {user}"))
            }
            SqlState::TOO_MANY_CONNECTIONS => {
                (ErrorKind::Unavailable, "wait, or raise max_connections of the server".to_owned())
            }
            SqlState::CANNOT_CONNECT_NOW => (ErrorKind::Unavailable, "wait a moment and try again".to_owned()),
            _ => (ErrorKind::Unavailable, "see the server's log".to_owned()),
        };
        (kind, said, hint)
    }

    /// No server answered as Postgres does.
    fn no_connection(&self, error: &tokio_postgres::Error) -> (ErrorKind, String, String) {
        use std::io::ErrorKind as Io;
        let text = error.to_string();
        let cause = innermost(error);
        let (host, port) = (&self.host, self.port);
        if text.contains("TLS") || cause.contains("ertificate") || cause.contains("handshake") {
            let hint = if cause.contains("does not support TLS") {
                "the server speaks no TLS: set 'sslmode: disable' or 'prefer'".to_owned()
            } else if cause.contains("CaUsedAsEndEntity") {
                "the server shows a certificate that is its own authority: have one made by an authority, or set \
                 'sslmode: require'"
                    .to_owned()
            } else if cause.contains("not valid for name") {
                format!("'{host}' is not the name in the certificate: use that name, or set 'sslmode: verify-ca'")
            } else if matches!(self.sslmode, SslMode::VerifyCa | SslMode::VerifyFull) {
                "name the authority's certificate with sslrootcert, or set 'sslmode: require'".to_owned()
            } else {
                "set 'sslmode: disable' if the way to the server is safe".to_owned()
            };
            return (ErrorKind::Invalid, format!("TLS failed ({cause})"), hint);
        }
        if text.contains("password missing") || cause.contains("password missing") {
            let hint = "set 'password' in the connection, with secret_env('…') and .env".to_owned();
            return (ErrorKind::Invalid, "the server wants a password, and none is given".to_owned(), hint);
        }
        let io = std::iter::successors(std::error::Error::source(error), |inner| inner.source())
            .find_map(|inner| inner.downcast_ref::<std::io::Error>())
            .map(std::io::Error::kind);
        let (what, hint) = match io {
            Some(Io::ConnectionRefused) => (
                format!("nothing listens on {host}, port {port}"),
                format!("check host and port, and that the server runs: pg_isready -h {host} -p {port}"),
            ),
            Some(Io::TimedOut) => (
                format!("{host} does not answer on port {port}"),
                "check host and port, and the firewalls on the way".to_owned(),
            ),
            Some(Io::NotFound) if host.starts_with('/') => (
                format!("there is no socket of a server in {host}"),
                format!("check host and port, and that the server runs: pg_isready -h {host} -p {port}"),
            ),
            _ if cause.contains("lookup") || cause.contains("Name or service") || cause.contains("resolve") => {
                (format!("there is no host called '{host}'"), "check the host".to_owned())
            }
            Some(Io::UnexpectedEof | Io::ConnectionReset) => (
                "the server hung up".to_owned(),
                format!("check that what listens on port {port} is Postgres, and see its log"),
            ),
            _ if cause.contains("timed out") => (
                format!("{host} does not answer on port {port}"),
                "check host and port, and the firewalls on the way".to_owned(),
            ),
            _ => (format!("no connection ({cause})"), "check host and port, and that the server runs".to_owned()),
        };
        (ErrorKind::Unavailable, what, hint)
    }

    /// Connects, and asks who is there.
    #[boxed]
    pub(super) async fn test(&self) -> Vec<Check> {
        let what = format!("connect to {}", self.address());
        let client = match self.connect().await {
            Ok(client) => client,
            Err(error) => return vec![Check { what, outcome: Err(error) }],
        };
        let asked = "select current_setting('server_version'), \
            (select ssl from pg_stat_ssl where pid = pg_backend_pid()), \
            has_database_privilege(current_database(), 'create')";
        let row = match client.query_one(asked, &[]).await {
            Ok(row) => row,
            Err(error) => {
                let error = Error::unavailable(format!("{}: {}", self.address(), innermost(&error))).caused_by(error);
                return vec![Check { what, outcome: Err(error) }];
            }
        };
        let version: String = row.try_get(0).unwrap_or_default();
        let encrypted = row.try_get::<_, Option<bool>>(1).ok().flatten().unwrap_or(false);
        let may_create: bool = row.try_get(2).unwrap_or(false);
        let tls = if encrypted { "encrypted" } else { "not encrypted" };
        let rights = if may_create { "it may make schemas" } else { "it may not make schemas" };
        vec![
            Check { what, outcome: Ok(format!("Postgres {version}, {tls}")) },
            Check { what: format!("ask for the rights of '{}'", self.user), outcome: Ok(rights.to_owned()) },
        ]
    }
}

/// Text of a URL without its percent signs.
fn decoded(text: &str) -> String {
    super::http::decoded(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, expect: &str) {
        let got = match PostgresConfig::from_url(url) {
            Ok(config) => format!(
                "{} {:?} {}",
                config.address(),
                config.sslmode,
                config.password.map(|secret| secret.expose_secret().to_owned()).unwrap_or_default()
            ),
            Err(error) => format!("error {error}"),
        };
        assert_eq!(got, expect, "{url}");
    }

    #[test]
    fn urls() {
        check("postgresql://me:p%40ss+1@db:5433/taxi?sslmode=verify-full", "me@db:5433/taxi VerifyFull p@ss+1");
        check("postgres://db", "postgres@db:5432/postgres Prefer ");
        check("postgres:///x?host=/var/run/postgresql", "postgres@/var/run/postgresql:5432/x Prefer ");
        check("postgres://me@[::1]/x", "me@::1:5432/x Prefer ");
        check("mysql://me:secret@db/x", "error this is not the address of a Postgres database");
        check("postgres://me:secret@db/x?sslmod=1", "error the parameter 'sslmod' is not known");
        check("postgres://db/x?sslmode=on", "error there is no sslmode 'on'");
    }

    #[tokio::test]
    async fn a_port_where_nobody_listens_is_told() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        let config = PostgresConfig { host: "127.0.0.1".to_owned(), port, ..PostgresConfig::default() };
        let error = config.connect().await.expect_err("nobody listens");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().ends_with(&format!("nothing listens on 127.0.0.1, port {port}")), "{error}");
        assert!(error.remedy().is_some_and(|hint| hint.contains("pg_isready")));
    }

    #[tokio::test]
    async fn a_server_that_is_not_postgres_is_told() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let server = tokio::spawn(async move { drop(listener.accept().await) });
        let config = PostgresConfig { host: "127.0.0.1".to_owned(), port, ..PostgresConfig::default() };
        let error = config.connect().await.expect_err("it hangs up");
        server.await.expect("it ended");
        assert!(error.to_string().contains("hung up"), "{error}");
    }
}
