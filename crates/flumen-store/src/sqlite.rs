//! The metadata in a SQLite file: for one machine, with any number of processes.

use std::borrow::Cow;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use chrono::DateTime;
use flumen_core::user::{User, UserStore, Verifiers, name_taken, no_user};
use flumen_core::{Error, Result};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow};
use sqlx::{Row as _, SqlSafeStr as _};

/// How the tables came to be, step by step. A step that was published never changes.
const MIGRATIONS: &[(i64, &str, &str)] = &[(1, "users", include_str!("../migrations/0001_users.sql"))];
/// How long a writer waits for another one.
const PATIENCE: Duration = Duration::from_secs(30);
/// Connections to the file at once.
const CONNECTIONS: u32 = 4;

/// A store in a file.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    pool: SqlitePool,
    place: String,
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
        private(path)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .busy_timeout(PATIENCE);
        let pool = SqlitePoolOptions::new().max_connections(CONNECTIONS).connect_with(options).await;
        let pool = pool.map_err(|error| failed(&place, error))?;
        let store = Self { pool, place };
        store.migrate().await?;
        Ok(store)
    }

    async fn migrate(&self) -> Result<()> {
        let steps = MIGRATIONS.iter().map(|(version, name, sql)| {
            let sql = sqlx::AssertSqlSafe(*sql).into_sql_str();
            Migration::new(*version, Cow::Borrowed(name), MigrationType::Simple, sql, false)
        });
        let migrator = Migrator { migrations: Cow::Owned(steps.collect()), ..Migrator::DEFAULT };
        migrator.run(&self.pool).await.map_err(|error| match error {
            sqlx::migrate::MigrateError::VersionMissing(_) => {
                Error::invalid(format!("{}: a newer version of flumen has changed this file", self.place))
                    .hint("use that version, or move the file away to begin with an empty one")
            }
            other => Error::internal(format!("{}: the tables could not be made", self.place)).caused_by(other),
        })
    }

    fn failed(&self, error: sqlx::Error) -> Error {
        failed(&self.place, error)
    }
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

fn user(row: &SqliteRow) -> sqlx::Result<User> {
    Ok(User {
        name: row.try_get("name")?,
        read_only: row.try_get("read_only")?,
        created: DateTime::from_timestamp_micros(row.try_get("created_us")?).unwrap_or_default(),
    })
}

#[async_trait]
impl UserStore for SqliteStore {
    async fn add(&self, user: &User, verifiers: &Verifiers) -> Result<()> {
        let added = sqlx::query("insert into users (name, read_only, created_us, scram, web) values (?, ?, ?, ?, ?)")
            .bind(&user.name)
            .bind(user.read_only)
            .bind(user.created.timestamp_micros())
            .bind(&verifiers.scram)
            .bind(&verifiers.web)
            .execute(&self.pool)
            .await;
        match added {
            Ok(_) => Ok(()),
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Err(name_taken(&user.name)),
            Err(error) => Err(self.failed(error)),
        }
    }

    async fn set_verifiers(&self, name: &str, verifiers: &Verifiers) -> Result<()> {
        let changed = sqlx::query("update users set scram = ?, web = ? where name = ?")
            .bind(&verifiers.scram)
            .bind(&verifiers.web)
            .bind(name)
            .execute(&self.pool)
            .await
            .map_err(|error| self.failed(error))?;
        if changed.rows_affected() == 0 { Err(no_user(name)) } else { Ok(()) }
    }

    async fn set_read_only(&self, name: &str, read_only: bool) -> Result<()> {
        let changed = sqlx::query("update users set read_only = ? where name = ?")
            .bind(read_only)
            .bind(name)
            .execute(&self.pool)
            .await
            .map_err(|error| self.failed(error))?;
        if changed.rows_affected() == 0 { Err(no_user(name)) } else { Ok(()) }
    }

    async fn list(&self) -> Result<Vec<User>> {
        let rows = sqlx::query("select name, read_only, created_us from users order by name").fetch_all(&self.pool);
        let rows = rows.await.map_err(|error| self.failed(error))?;
        rows.iter().map(user).collect::<sqlx::Result<_>>().map_err(|error| self.failed(error))
    }

    async fn find(&self, name: &str) -> Result<Option<(User, Verifiers)>> {
        let row = sqlx::query("select name, read_only, created_us, scram, web from users where name = ?")
            .bind(name)
            .fetch_optional(&self.pool)
            .await
            .map_err(|error| self.failed(error))?;
        let parts =
            |row: &SqliteRow| Ok((user(row)?, Verifiers { scram: row.try_get("scram")?, web: row.try_get("web")? }));
        row.as_ref().map(parts).transpose().map_err(|error: sqlx::Error| self.failed(error))
    }

    async fn remove(&self, name: &str) -> Result<()> {
        let removed = sqlx::query("delete from users where name = ?")
            .bind(name)
            .execute(&self.pool)
            .await
            .map_err(|error| self.failed(error))?;
        if removed.rows_affected() == 0 { Err(no_user(name)) } else { Ok(()) }
    }
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
