//! How the tables came to be, step by step. A step that was published never changes.
//!
//! A step whose name begins with [`EXPANDS`] only adds what older versions do without: they go on beside the newer one that made it, also
//! when they are started again. Any other one ends them. So what is no longer needed is taken away by a step of a later version, when
//! nobody runs the older ones.
//!
//! What was done is noted in a table of the form that sqlx has for it, since the first files were made with sqlx.

use flumen_core::{Error, Result};
use rusqlite::params;
use sha2::{Digest as _, Sha384};

use super::db::Db;
use crate::EXPANDS;

const STEPS: &[(i64, &str, &str)] = &[
    (1, "users", include_str!("../../migrations/0001_users.sql")),
    (2, "runs", include_str!("../../migrations/0002_runs.sql")),
    (3, "begun", include_str!("../../migrations/0003_begun.sql")),
    (4, "kept", include_str!("../../migrations/0004_kept.sql")),
];

const NOTES: &str = "CREATE TABLE IF NOT EXISTS _sqlx_migrations (
    version BIGINT PRIMARY KEY,
    description TEXT NOT NULL,
    installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    success BOOLEAN NOT NULL,
    checksum BLOB NOT NULL,
    execution_time BIGINT NOT NULL
);";

/// Makes what is missing.
///
/// Errors: `Invalid` for a file that a newer version of Flumen has changed.
pub(super) fn migrate(db: &Db, place: &str) -> Result<()> {
    // Most often all is there, and nothing has to be written to find out.
    if is_current(db) {
        return Ok(());
    }
    let failed = |error| Error::internal(format!("{place}: the tables could not be made")).caused_by(error);
    db.connection.execute_batch("begin immediate").map_err(failed)?;
    match run(db, place) {
        Ok(()) => db.connection.execute_batch("commit").map_err(failed),
        Err(error) => {
            // What fails here was rolled back by SQLite before.
            let _ = db.connection.execute_batch("rollback");
            Err(error)
        }
    }
}

fn is_current(db: &Db) -> bool {
    let last = db.one::<Option<i64>>("select max(version) from _sqlx_migrations where success", ());
    let ours = STEPS.last().map(|(version, ..)| *version);
    // Where there is no such table yet, everything is to be done.
    last.is_ok_and(|last| last == ours)
}

fn run(db: &Db, place: &str) -> Result<()> {
    let failed = |error| Error::internal(format!("{place}: the tables could not be made")).caused_by(error);
    db.connection.execute_batch(NOTES).map_err(failed)?;
    let done = db.rows("select version, checksum, description from _sqlx_migrations", (), |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?, row.get::<_, String>(2)?))
    })?;
    let is_ours = |version: &i64| STEPS.iter().any(|(ours, ..)| ours == version);
    if done.iter().any(|(version, _, name)| !is_ours(version) && !name.starts_with(EXPANDS)) {
        return Err(Error::invalid(format!("{place}: a newer version of flumen has changed this file"))
            .hint("use that version, or move the file away to begin with an empty one"));
    }
    for (version, name, sql) in STEPS {
        let checksum = Sha384::digest(sql.as_bytes()).to_vec();
        match done.iter().find(|(known, ..)| known == version) {
            Some((_, known, _)) if *known == checksum => {}
            Some(_) => return Err(Error::internal(format!("{place}: step {version} of its tables was another one"))),
            None => {
                db.connection.execute_batch(sql).map_err(failed)?;
                let noted = "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
                    values (?, ?, true, ?, 0)";
                db.execute(noted, params![version, name, checksum])?;
            }
        }
    }
    Ok(())
}
