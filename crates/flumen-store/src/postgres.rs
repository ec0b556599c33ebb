//! The metadata in a schema of a Postgres database: for any number of machines.
//!
//! - `sessions.rs`: connections, and what becomes of errors. Every call is one statement, made again where Postgres broke it off for
//!   the sake of another one (a deadlock).
//! - `migrations/postgres`: the tables, and functions for changes that look first and write then.
//! - `runs.rs`, `queue.rs`, `leases.rs`, `objects.rs`: what changes look like, by what they are about.
//! - `reads.rs`: looking. `meta.rs`: the seam, put together from these. `users.rs`: users.
//! - `listener.rs`: wakes, by LISTEN and NOTIFY.
//!
//! What always holds: a call returns when what it changed, or saw, is on the server's disk; but no lock is held while the disk is
//! waited for. So a statement commits without the disk, and another one (`settle`) waits for the disk to come so far. Who waits for
//! the row, or for the lock that Postgres has for NOTIFY, does not wait for the disk; and what nobody was told can be lost, the ids
//! of rows with it, without harm.
//!
//! The present is that of the caller, as in other stores: leases and timers end when one of the machines says so. Clocks that do not
//! agree make leases longer or shorter, and harm nobody: the numbers of leases, whose floor is the server's clock too, decide.

mod leases;
mod listener;
mod meta;
mod objects;
mod queue;
mod reads;
mod runs;
mod sessions;
mod users;

use std::borrow::Cow;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::str::FromStr as _;
use std::sync::Arc;

use flumen_core::boxed;
use flumen_core::secret::{ExposeSecret as _, Secret};
use flumen_core::{Error, Result};
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions as _, Connection as _, PgConnection, SqlSafeStr as _};

use listener::Listener;
use sessions::{Sessions, failed};

use crate::EXPANDS;

/// How the tables came to be, step by step. A step that was published never changes; what its name says to older versions is said at
/// [`EXPANDS`].
const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "tables", include_str!("../migrations/postgres/0001_tables.sql")),
    (2, "changes", include_str!("../migrations/postgres/0002_changes.sql")),
    (3, "kept", include_str!("../migrations/postgres/0003_kept.sql")),
];
/// The longest name of a schema: a channel is named after it.
const SCHEMA_BYTES: usize = 50;

/// The schema that a project has, unless it says otherwise.
pub const SCHEMA: &str = "flumen";

/// What every session is told. Tables here are read by their indexes alone, however small they are: plans are kept, and tables grow.
const SETTINGS: [(&str, &str); 12] = [
    // See the module: another statement waits for the disk.
    ("synchronous_commit", "off"),
    ("default_transaction_isolation", "read committed"),
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("jit", "off"),
    ("max_parallel_workers_per_gather", "0"),
    // What a client holds that went away without a word is free again soon.
    ("statement_timeout", "25s"),
    ("idle_in_transaction_session_timeout", "25s"),
    ("tcp_keepalives_idle", "20"),
    ("tcp_user_timeout", "30s"),
];

/// Where a database is, for those who have that in parts.
#[derive(Debug, Clone)]
pub struct Address {
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
    /// `disable`, `prefer`, `require`, `verify-ca` or `verify-full`.
    pub sslmode: String,
    /// The PEM file of the authorities to trust; by default the system's.
    pub sslrootcert: Option<PathBuf>,
    /// Options for the server: `-c work_mem=16MB`.
    pub options: Option<String>,
    /// What the server shows in its list of sessions.
    pub application_name: String,
}

/// A store in a schema of a Postgres database. Clones are the same store.
#[derive(Debug, Clone)]
pub struct PostgresStore {
    sessions: Arc<Sessions>,
    listener: Arc<Listener>,
    /// Where those who listen are told.
    channel: Arc<str>,
}

impl PostgresStore {
    /// The store in the schema `schema` of the database that `url` names (`postgresql://user:password@host:5432/database`). What is
    /// missing of the schema is made.
    ///
    /// Errors: `Unavailable` where the server does not answer; `Invalid` for a URL or a name of a schema that is none, where the
    /// server refuses the user, and for a schema that a newer version of Flumen has changed.
    #[boxed]
    pub async fn open(url: &str, schema: &str) -> Result<Self> {
        // The error says nothing of what is in the URL: there may be a password.
        let options = PgConnectOptions::from_str(url)
            .map_err(|error| Error::invalid(format!("this is no URL of a Postgres database: {error}")))?;
        Self::start(options, schema).await
    }

    /// Like [`open`](Self::open), for those who have the address in parts.
    ///
    /// Errors: as there.
    #[boxed]
    pub async fn connect(address: &Address, schema: &str) -> Result<Self> {
        Self::start(options(address)?, schema).await
    }

    async fn start(options: PgConnectOptions, schema: &str) -> Result<Self> {
        check_name(schema)?;
        let place = place(&options, schema);
        let options = options.options([("search_path", schema)]).options(SETTINGS).disable_statement_logging();
        migrate(&options, schema, &place).await?;
        let channel: Arc<str> = format!("{schema}_wakes").into();
        let listener = Arc::new(Listener::new(options.clone(), Arc::clone(&channel)));
        Ok(Self { sessions: Arc::new(Sessions::new(options, place)), listener, channel })
    }
}

fn check_name(schema: &str) -> Result<()> {
    let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let starts_well = schema.starts_with(|first: char| first.is_ascii_lowercase() || first == '_');
    if starts_well && schema.len() <= SCHEMA_BYTES && schema.bytes().all(is_name) && !schema.starts_with("pg_") {
        return Ok(());
    }
    Err(Error::invalid(format!("'{schema}' cannot be the schema of a store"))
        .hint(format!("use up to {SCHEMA_BYTES} small letters, digits and underscores, such as '{SCHEMA}'")))
}

/// What messages call the place. It names no password.
fn place(options: &PgConnectOptions, schema: &str) -> String {
    let database = options.get_database().unwrap_or(options.get_username());
    match options.get_socket() {
        Some(socket) => format!("Postgres at {}, database {database}, schema {schema}", socket.display()),
        None => {
            format!("Postgres at {}:{}, database {database}, schema {schema}", options.get_host(), options.get_port())
        }
    }
}

fn options(address: &Address) -> Result<PgConnectOptions> {
    // Options that are written as for libpq can only be given in a URL.
    let mut url = "postgresql://".to_owned();
    if let Some(options) = &address.options {
        url.push_str("?options=");
        for byte in options.bytes() {
            let _ = write!(url, "%{byte:02x}");
        }
    }
    let wrong = |error: sqlx::Error| Error::invalid(format!("this is no address of a Postgres database: {error}"));
    let mode: PgSslMode = address.sslmode.parse().map_err(wrong)?;
    let mut options = PgConnectOptions::from_str(&url)
        .map_err(wrong)?
        .host(&address.host)
        .port(address.port)
        .username(&address.user)
        .database(&address.database)
        .ssl_mode(mode)
        .application_name(&address.application_name);
    if let Some(password) = &address.password {
        options = options.password(password.expose_secret());
    }
    if let Some(path) = &address.sslrootcert {
        options = options.ssl_root_cert(path);
    }
    Ok(options)
}

/// Makes what is missing, one process after another.
async fn migrate(options: &PgConnectOptions, schema: &str, place: &str) -> Result<()> {
    let failed = |error| failed(place, error);
    // Another process may take its time.
    let options = options.clone().options([("statement_timeout", "0")]);
    let mut connection = sessions::connect(&options).await.map_err(failed)?;
    let lock = "select pg_advisory_lock(hashtextextended('flumen.migrations.' || $1, 0))";
    sqlx::query(lock).bind(schema).execute(&mut connection).await.map_err(failed)?;
    let there = sqlx::query("select from pg_namespace where nspname = $1").bind(schema);
    if there.fetch_optional(&mut connection).await.map_err(failed)?.is_none() {
        // The name was checked: it needs no quotes.
        let create = sqlx::AssertSqlSafe(format!("create schema {schema}"));
        sqlx::query(create).execute(&mut connection).await.map_err(failed)?;
    }
    run_migrations(&mut connection, place).await?;
    // The lock ends with the session.
    connection.close().await.map_err(failed)
}

async fn run_migrations(connection: &mut PgConnection, place: &str) -> Result<()> {
    let steps = MIGRATIONS.iter().map(|(version, name, sql)| {
        let sql = sqlx::AssertSqlSafe(*sql).into_sql_str();
        Migration::new(*version, Cow::Borrowed(name), MigrationType::Simple, sql, false)
    });
    let migrations = Cow::Owned(steps.collect());
    let migrator = Migrator { migrations, locking: false, ignore_missing: true, ..Migrator::DEFAULT };
    migrator.run_direct(None, connection, false).await.map_err(|error| match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => failed(place, error),
        other => Error::internal(format!("{place}: the tables could not be made: {other}")).caused_by(other),
    })?;
    let newest = MIGRATIONS.last().map_or(0, |(version, ..)| *version);
    let newer = "select description from _sqlx_migrations where version > $1";
    let newer = sqlx::query_scalar::<_, String>(newer).bind(newest).fetch_all(connection).await;
    match newer.map_err(|error| failed(place, error))?.iter().all(|name| name.starts_with(EXPANDS)) {
        true => Ok(()),
        false => Err(Error::invalid(format!("{place}: a newer version of flumen has changed this schema"))
            .hint("use that version, or name another schema to begin with an empty one")),
    }
}
