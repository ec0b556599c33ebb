//! The metadata in a SQLite file: for one machine, with any number of processes.
//!
//! - `writer.rs`: the one connection that writes: many changes in one durable transaction.
//! - `runs.rs`, `queue.rs`, `leases.rs`, `objects.rs`: what changes look like, by what they are about.
//! - `reads.rs`: looking. `meta.rs`: the seam, put together from these. `users.rs`: users.

mod leases;
mod meta;
mod objects;
mod queue;
mod reads;
mod runs;
mod users;
mod writer;

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use flumen_core::{Error, Result};
use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};

use writer::Writer;

use crate::bell::Bell;

/// How the tables came to be, step by step. A step that was published never changes.
const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "users", include_str!("../migrations/0001_users.sql")),
    (2, "runs", include_str!("../migrations/0002_runs.sql")),
    (3, "begun", include_str!("../migrations/0003_begun.sql")),
];
/// How long a writer waits for another one.
const PATIENCE: Duration = Duration::from_secs(30);
/// Connections to the file at once.
const CONNECTIONS: u32 = 4;

/// A store in a file.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    pool: SqlitePool,
    writer: Writer,
    bell: Arc<Bell>,
    place: Arc<str>,
}

impl SqliteStore {
    /// The store in the file at `path`, which is made where it is missing, with its folder, for its owner's eyes only.
    ///
    /// Errors: those of the file system; `Invalid` for a file that a newer version of Flumen has changed.
    pub async fn open(path: &Path) -> Result<Self> {
        let place = path.display().to_string();
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| Error::io(folder.display(), error))?;
        }
        // Those who make the tables of a new file take turns.
        let opening = opening(path).await?;
        private(path)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // What was acknowledged is on the disk.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(PATIENCE);
        let pool = SqlitePoolOptions::new().max_connections(CONNECTIONS).connect_with(options.clone()).await;
        let pool = pool.map_err(|error| failed(&place, error))?;
        if !is_current(&pool).await {
            migrate(&pool, &place).await?;
        }
        drop(opening);
        let place: Arc<str> = place.into();
        let bell = Arc::new(Bell::at(path));
        let writer = Writer::start(&options, Arc::clone(&place), Arc::clone(&bell)).await?;
        Ok(Self { pool, writer, bell, place })
    }

    /// Copies the store to a file that is not there yet, as it is at one moment.
    ///
    /// Errors: those of the disk.
    pub async fn backup(&self, to: &Path) -> Result<()> {
        private(to)?;
        let copied = sqlx::query("vacuum into ?").bind(to.to_string_lossy().into_owned()).execute(&self.pool).await;
        copied.map(drop).map_err(|error| failed(&to.display().to_string(), error))
    }

    fn failed(&self, error: sqlx::Error) -> Error {
        failed(&self.place, error)
    }
}

/// A lock that is held while a store is opened, given back with the file.
async fn opening(path: &Path) -> Result<std::fs::File> {
    let mut name = path.as_os_str().to_owned();
    // A file of its own: to close one of the store's would take back the locks that SQLite has on it.
    name.push("-opening");
    let locked = tokio::task::spawn_blocking(move || {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&name);
        let locked = file.and_then(|file| file.lock().map(|()| file));
        locked.map_err(|error| Error::io(name.to_string_lossy(), error))
    });
    locked.await.map_err(|error| Error::internal("a lock could not be waited for").caused_by(error))?
}

/// Whether the tables are those of this version: most often they are, and nothing has to be written to find out.
async fn is_current(pool: &SqlitePool) -> bool {
    let last = sqlx::query_scalar::<_, i64>("select max(version) from _sqlx_migrations where success");
    let ours = MIGRATIONS.last().map(|(version, ..)| *version);
    // Where there is no such table yet, everything is to be done.
    last.fetch_one(pool).await.ok() == ours
}

async fn migrate(pool: &SqlitePool, place: &str) -> Result<()> {
    let steps = MIGRATIONS.iter().map(|(version, name, sql)| {
        let sql = sqlx::AssertSqlSafe(*sql).into_sql_str();
        Migration::new(*version, Cow::Borrowed(name), MigrationType::Simple, sql, false)
    });
    let migrator = Migrator { migrations: Cow::Owned(steps.collect()), ..Migrator::DEFAULT };
    migrator.run(pool).await.map_err(|error| match error {
        sqlx::migrate::MigrateError::VersionMissing(_) => {
            Error::invalid(format!("{place}: a newer version of flumen has changed this file"))
                .hint("use that version, or move the file away to begin with an empty one")
        }
        other => Error::internal(format!("{place}: the tables could not be made")).caused_by(other),
    })
}

fn failed(place: &str, error: sqlx::Error) -> Error {
    Error::new(flumen_core::ErrorKind::Unavailable, format!("{place}: {error}")).caused_by(error)
}

/// Makes the file readable for its owner only, before anything is in it.
#[cfg(unix)]
fn private(path: &Path) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let made = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path);
    made.map(drop).map_err(|error| Error::io(path.display(), error))
}

#[cfg(not(unix))]
fn private(_path: &Path) -> Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_keeps_the_contract() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("in/flumen.db");
        let store = SqliteStore::open(&path).await.expect("made");
        let again = SqliteStore::open(&path).await.expect("opened");
        flumen_core::testkit::user_store(&store, &again).await;
        flumen_core::testkit::meta_store(&store, &again).await;
    }

    #[tokio::test]
    async fn a_file_of_a_newer_version_is_left_alone() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("flumen.db");
        let store = SqliteStore::open(&path).await.expect("made");
        let newer = "insert into _sqlx_migrations (version, description, success, checksum, execution_time) \
                     values (99, 'x', true, x'00', 0)";
        sqlx::query(newer).execute(&store.pool).await.expect("done");
        let error = SqliteStore::open(&path).await.expect_err("newer");
        assert!(error.to_string().contains("newer version"), "{error}");
    }

    #[tokio::test]
    async fn many_may_open_a_new_file_at_once() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("flumen.db");
        let opened = futures::future::join_all((0..16).map(|_| SqliteStore::open(&path))).await;
        assert_eq!(
            opened.into_iter().filter_map(Result::err).map(|error| error.to_string()).collect::<Vec<_>>(),
            [""; 0]
        );
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn nobody_else_can_read_the_file() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("flumen.db");
        SqliteStore::open(&path).await.expect("made");
        let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{mode:o}");
    }
}
