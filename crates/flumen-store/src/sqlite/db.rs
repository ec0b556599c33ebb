//! A connection, and statements in one line.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flumen_core::{Error, Result};
use rusqlite::types::FromSql;
use rusqlite::{Connection, ErrorCode, Params, Row};
use tokio::sync::Semaphore;

/// How long a connection waits for another one, perhaps of another process.
const PATIENCE: Duration = Duration::from_secs(30);
/// Statements that a connection keeps prepared.
const PREPARED: usize = 128;
/// Connections that read at once.
const READERS: usize = 4;

/// A connection to the file.
#[derive(Debug)]
pub(super) struct Db {
    pub connection: Connection,
    place: Arc<str>,
}

impl Db {
    /// Opens the file, which is made if it is not there.
    ///
    /// Errors: those of the file.
    pub fn open(path: &Path, place: &Arc<str>) -> Result<Self> {
        let opened = Connection::open(path).and_then(|connection| {
            connection.busy_timeout(PATIENCE)?;
            connection.set_prepared_statement_cache_capacity(PREPARED);
            // What was acknowledged is on the disk.
            connection.execute_batch("pragma journal_mode = wal; pragma synchronous = full;")?;
            Ok(connection)
        });
        match opened {
            Ok(connection) => Ok(Self { connection, place: Arc::clone(place) }),
            Err(error) => Err(failed(place, error)),
        }
    }

    pub fn failed(&self, error: rusqlite::Error) -> Error {
        failed(&self.place, error)
    }

    /// Executes a statement; how many rows it changed.
    pub fn execute(&self, sql: &str, params: impl Params) -> Result<usize> {
        let done = self.connection.prepare_cached(sql).and_then(|mut statement| statement.execute(params));
        done.map_err(|error| self.failed(error))
    }

    /// The rows of a query, each read by `read`.
    pub fn rows<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>> {
        let rows = self.connection.prepare_cached(sql).and_then(|mut statement| {
            let rows = statement.query_map(params, read)?;
            rows.collect()
        });
        rows.map_err(|error| self.failed(error))
    }

    /// The first column of a query's rows.
    pub fn column<T: FromSql>(&self, sql: &str, params: impl Params) -> Result<Vec<T>> {
        self.rows(sql, params, |row| row.get(0))
    }

    /// The only row of a query, if there is one.
    pub fn row<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>> {
        Ok(self.rows(sql, params, read)?.into_iter().next())
    }

    /// The first column of a query's only row, if there is one.
    pub fn value<T: FromSql>(&self, sql: &str, params: impl Params) -> Result<Option<T>> {
        self.row(sql, params, |row| row.get(0))
    }

    /// The first column of the row that a query always has.
    pub fn one<T: FromSql>(&self, sql: &str, params: impl Params) -> Result<T> {
        self.value(sql, params)?.ok_or_else(|| self.failed(rusqlite::Error::QueryReturnedNoRows))
    }
}

/// What an error of SQLite means.
fn failed(place: &str, error: rusqlite::Error) -> Error {
    let (what, hint) = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => (
            "the disk is full".to_owned(),
            "make room there: nothing that was acknowledged is lost, and work goes on by itself",
        ),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => (
            format!("another process has kept it for {} s", PATIENCE.as_secs()),
            "one that was stopped in the middle of a change (Ctrl-Z) does that: let it go on, or end it",
        ),
        _ => return Error::unavailable(format!("{place}: {error}")).caused_by(error),
    };
    Error::unavailable(format!("{place}: {what}")).hint(hint).caused_by(error)
}

/// Connections that read, side by side with the one that writes.
#[derive(Debug)]
pub(super) struct Readers {
    path: std::path::PathBuf,
    place: Arc<str>,
    free: Mutex<Vec<Db>>,
    room: Semaphore,
}

impl Readers {
    pub fn new(path: &Path, place: &Arc<str>) -> Self {
        let room = Semaphore::new(READERS);
        Self { path: path.to_owned(), place: Arc::clone(place), free: Mutex::default(), room }
    }

    /// Reads by a connection that nobody else has meanwhile. Several statements see one moment in a transaction only.
    pub async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Db) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        // The semaphore is never closed.
        let _room = self.room.acquire().await;
        let readers = Arc::clone(self);
        let reading = tokio::task::spawn_blocking(move || {
            let free = readers.free().pop();
            let db = match free {
                Some(db) => db,
                None => Db::open(&readers.path, &readers.place)?,
            };
            let answer = read(&db);
            readers.free().push(db);
            answer
        });
        reading.await.map_err(|error| Error::internal("a query of the store ended early").caused_by(error))?
    }

    fn free(&self) -> MutexGuard<'_, Vec<Db>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
