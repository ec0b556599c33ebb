//! Sessions with the server: a few, kept open, each for one statement at a time.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flumen_core::{Error, ErrorKind, Result};
use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection, PgRow, Postgres};
use sqlx::{ConnectOptions as _, Row as _};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

/// Statements at once.
const SESSIONS: usize = 8;
/// How long a server may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause before a server that has no room is asked again.
const ROOM_PAUSE: Duration = Duration::from_millis(100);
/// How long a connection that nobody needs is kept: those of the server are few, and other processes need them too.
const IDLE: Duration = Duration::from_secs(60);
/// What a server says that has as many connections as it takes (`too_many_connections`).
const TOO_MANY: &str = "53300";
/// How long a statement may take in all; the server gives up a little sooner.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a statement is made that Postgres breaks off for the sake of another one.
const ATTEMPTS: usize = 10;
/// Returns when all that was seen or committed before is on the disk.
const SETTLE: &str = "select settle()";

/// A statement with its values.
pub(super) type Ask<'q> = sqlx::query::Query<'q, Postgres, PgArguments>;

/// Why a statement did not do what it should.
#[derive(Debug)]
pub(super) enum Failure {
    /// It may not: the code, which begins with `FL` or is that of a constraint, and what it says.
    Refused(String, String),
    /// Something is wrong.
    Error(Error),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(code, said) => Error::internal(format!("the store refused a change: {said} ({code})")),
            Failure::Error(error) => error,
        }
    }
}

/// Connections that are made when they are needed.
pub(super) struct Sessions {
    options: PgConnectOptions,
    place: Arc<str>,
    /// The last one given back is the last here, and the next one used.
    free: Mutex<Vec<(Instant, PgConnection)>>,
    room: Semaphore,
}

impl fmt::Debug for Sessions {
    /// Shows the place alone: the options have the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sessions").field(&self.place).finish()
    }
}

/// Opens a connection.
pub(super) async fn connect(options: &PgConnectOptions) -> sqlx::Result<PgConnection> {
    Ok(connect_unless(options, || None).await?.0)
}

/// Opens a connection, unless there is one that is `free`; says whether that was so. A server that has no room for another one
/// is asked for a while: commands are short, and one of this process may become free.
async fn connect_unless(
    options: &PgConnectOptions,
    free: impl Fn() -> Option<PgConnection>,
) -> sqlx::Result<(PgConnection, bool)> {
    let begun = Instant::now();
    loop {
        if let Some(connection) = free() {
            return Ok((connection, true));
        }
        let made = timeout(CONNECT_TIMEOUT, options.connect()).await;
        match made.unwrap_or_else(|_| Err(too_slow("no answer to a connection"))) {
            Err(error) if code(&error) == TOO_MANY && begun.elapsed() < CONNECT_TIMEOUT => sleep(ROOM_PAUSE).await,
            made => return Ok((made?, false)),
        }
    }
}

fn too_slow(what: &str) -> sqlx::Error {
    std::io::Error::new(std::io::ErrorKind::TimedOut, what).into()
}

impl Sessions {
    pub fn new(options: PgConnectOptions, place: String) -> Self {
        Self { options, place: place.into(), free: Mutex::default(), room: Semaphore::new(SESSIONS) }
    }

    pub fn failed(&self, error: sqlx::Error) -> Error {
        failed(&self.place, error)
    }

    fn free(&self) -> MutexGuard<'_, Vec<(Instant, PgConnection)>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks; returns when what it saw is on the disk.
    pub async fn read<'q>(&self, ask: impl Fn() -> Ask<'q> + Sync) -> Result<Vec<PgRow>> {
        self.execute(&ask, None).await.map_err(Error::from)
    }

    /// Makes a change that may be lost without harm, as long as nobody acts on it before a call that waits for the disk.
    pub async fn hint<'q>(&self, ask: impl Fn() -> Ask<'q> + Sync) -> Result<Vec<PgRow>> {
        self.execute(&ask, Some(|_| false)).await.map_err(Error::from)
    }

    /// Makes a change; returns when it is on the disk.
    pub async fn write<'q>(&self, ask: impl Fn() -> Ask<'q> + Sync) -> Result<Vec<PgRow>, Failure> {
        self.execute(&ask, Some(|_| true)).await
    }

    /// Makes a change, if `has_changed` says of the answer that there was one to make.
    pub async fn write_if<'q>(
        &self,
        ask: impl Fn() -> Ask<'q> + Sync,
        has_changed: fn(&[PgRow]) -> bool,
    ) -> Result<Vec<PgRow>, Failure> {
        self.execute(&ask, Some(has_changed)).await
    }

    /// A statement that changes something says of its answer whether it did.
    async fn execute<'q>(
        &self,
        ask: &(impl Fn() -> Ask<'q> + Sync),
        changes: Option<fn(&[PgRow]) -> bool>,
    ) -> Result<Vec<PgRow>, Failure> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let (error, was_kept) = match self.once(ask(), changes).await {
                Ok(rows) => return Ok(rows),
                Err(failed) => failed,
            };
            let code = code(&error);
            if code.starts_with("FL") || code.starts_with("23") {
                let said = error.into_database_error().map(|error| error.message().to_owned());
                return Err(Failure::Refused(code, said.unwrap_or_default()));
            }
            let is_lost = is_of_connection(&error) && was_kept && changes.is_none();
            if attempt == ATTEMPTS || !(is_lost || code == "40001" || code == "40P01") {
                return Err(Failure::Error(self.failed(error)));
            }
        }
    }

    /// Executes a statement; where that fails, says also whether the connection had been there before.
    async fn once(
        &self,
        ask: Ask<'_>,
        changes: Option<fn(&[PgRow]) -> bool>,
    ) -> std::result::Result<Vec<PgRow>, (sqlx::Error, bool)> {
        // It is closed with the store only, which somebody holds who calls.
        let _room = self.room.acquire().await.map_err(|_| (sqlx::Error::PoolClosed, false))?;
        let free = || self.free().pop().map(|(_, connection)| connection);
        let (mut connection, was_kept) = connect_unless(&self.options, free).await.map_err(|error| (error, false))?;
        let answer = async {
            let rows = ask.fetch_all(&mut connection).await?;
            if changes.is_none_or(|has_changed| has_changed(&rows)) {
                sqlx::query(SETTLE).execute(&mut connection).await?;
            }
            Ok(rows)
        };
        // A call that is given up in the middle drops its connection too.
        let answer = timeout(PATIENCE, answer).await.unwrap_or_else(|_| Err(too_slow("no answer to a statement")));
        match &answer {
            Err(error) if is_of_connection(error) => self.free().clear(),
            _ => self.give_back(connection),
        }
        answer.map_err(|error| (error, was_kept))
    }

    fn give_back(&self, connection: PgConnection) {
        let now = Instant::now();
        let mut free = self.free();
        free.retain(|(since, _)| now.duration_since(*since) < IDLE);
        free.push((now, connection));
    }
}

/// The first value of a row.
pub(super) fn first<'r, T>(row: &'r PgRow) -> sqlx::Result<T>
where
    T: sqlx::Decode<'r, Postgres> + sqlx::Type<Postgres>,
{
    row.try_get(0)
}

fn code(error: &sqlx::Error) -> String {
    error.as_database_error().and_then(|error| error.code()).map(|code| code.into_owned()).unwrap_or_default()
}

/// Whether the session has ended with it; those beside it most likely too.
fn is_of_connection(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(_) => {
            let code = code(error);
            code.starts_with("57P") || code.starts_with("08")
        }
        sqlx::Error::RowNotFound
        | sqlx::Error::ColumnNotFound(_)
        | sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::ColumnIndexOutOfBounds { .. }
        | sqlx::Error::Decode(_)
        | sqlx::Error::Encode(_) => false,
        _ => true,
    }
}

/// What an error of the server, or on the way to it, means.
pub(super) fn failed(place: &str, error: sqlx::Error) -> Error {
    let said = match &error {
        sqlx::Error::Database(said) => said.message().to_owned(),
        sqlx::Error::Io(error) => format!("it cannot be reached: {error}"),
        other => other.to_string(),
    };
    let code = code(&error);
    let (kind, hint) = match (&error, code.get(..2)) {
        (sqlx::Error::Configuration(_), _) => (ErrorKind::Invalid, None),
        (sqlx::Error::Database(_), Some("28")) => {
            (ErrorKind::Invalid, Some("check the user and the password, and the server's pg_hba.conf"))
        }
        (sqlx::Error::Database(_), Some("3D")) => {
            (ErrorKind::Invalid, Some("create the database, or name another one"))
        }
        (sqlx::Error::Database(_), _) if code == "42501" => {
            (ErrorKind::Invalid, Some("let the user create the schema, or create it and make it the user's own"))
        }
        (sqlx::Error::Database(_), _) if code == TOO_MANY => (
            ErrorKind::Unavailable,
            Some("wait, or raise max_connections of the server: a server of Flumen uses up to nine"),
        ),
        (sqlx::Error::Database(_), Some("08" | "25" | "40" | "53" | "55" | "57" | "58")) => {
            (ErrorKind::Unavailable, None)
        }
        (sqlx::Error::Database(_), _)
        | (sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::Encode(_), _) => {
            (ErrorKind::Internal, None)
        }
        _ => (ErrorKind::Unavailable, None),
    };
    let made = Error::new(kind, format!("{place}: {said}")).caused_by(error);
    match hint {
        Some(hint) => made.hint(hint),
        None => made,
    }
}
