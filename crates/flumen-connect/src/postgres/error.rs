//! What Postgres says when it refuses, in one sentence with a remedy, sorted by how a caller should react.

use flumen_core::{Error, ErrorKind};
use tokio_postgres::error::{DbError, SqlState};

/// Turns an error of the driver into ours; `what` names the table or the server.
pub fn explain(what: impl std::fmt::Display, error: tokio_postgres::Error) -> Error {
    let made = match error.as_db_error() {
        Some(db) => from_server(&what, db),
        None => from_connection(&what, &error),
    };
    made.caused_by(error)
}

/// Like [`explain`], for `map_err`.
pub fn at(what: impl std::fmt::Display) -> impl FnOnce(tokio_postgres::Error) -> Error {
    move |error| explain(what, error)
}

fn from_connection(what: &impl std::fmt::Display, error: &tokio_postgres::Error) -> Error {
    let mut causes = Vec::new();
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(one) = cause {
        causes.push(one.to_string());
        cause = one.source();
    }
    let text = error.to_string();
    if text.starts_with("error connecting") || text.starts_with("timeout") {
        let reason = causes.last().cloned().unwrap_or(text);
        return Error::unavailable(format!("{what}: no connection to the Postgres server: {reason}"))
            .hint("check host and port, and that the server runs");
    }
    if text.starts_with("invalid config") || text.starts_with("invalid connection") {
        let reason = causes.last().cloned().unwrap_or(text);
        return Error::invalid(format!("{what}: the settings of the connection are wrong: {reason}"));
    }
    if text.starts_with("authentication") {
        let reason = causes.last().cloned().unwrap_or(text);
        return Error::invalid(format!("{what}: Postgres wants a login that cannot be given: {reason}"))
            .hint("set user and password of the connection");
    }
    if text.starts_with("error performing TLS") {
        let reason = causes.last().cloned().unwrap_or(text);
        return Error::invalid(format!("{what}: no secure connection: {reason}"))
            .hint("check sslmode and the certificate of the server");
    }
    let gone = error.is_closed() || text.starts_with("error communicating") || text.starts_with("unexpected message");
    if gone {
        return Error::unavailable(format!("{what}: the Postgres server went away; the table is as it was"))
            .hint("run the same command again when the server is back");
    }
    Error::internal(format!("{what}: {text}{}", causes.last().map(|c| format!(": {c}")).unwrap_or_default()))
}

fn from_server(what: &impl std::fmt::Display, db: &DbError) -> Error {
    let code = db.code();
    let said = db.message();
    let detail = db.detail().map(|detail| format!(" ({})", detail.trim_end_matches('.'))).unwrap_or_default();
    let place = db.where_().map(|place| format!(" [{}]", place.lines().next().unwrap_or_default())).unwrap_or_default();
    let make = |kind: ErrorKind, hint: &str| Error::new(kind, format!("{what}: {said}{detail}{place}")).hint(hint);
    let class = code.code().get(..2).unwrap_or_default();
    match code {
        c if *c == SqlState::INSUFFICIENT_PRIVILEGE => {
            Error::invalid(format!("{what}: {said}")).hint(grant_for(said, db))
        }
        c if *c == SqlState::TOO_MANY_CONNECTIONS => {
            Error::unavailable(format!("{what}: Postgres has no connection left: {said}"))
                .hint("try again later, use fewer workers, or raise max_connections")
        }
        c if *c == SqlState::DISK_FULL => {
            Error::unavailable(format!("{what}: the disk of the Postgres server is full; the table is as it was"))
                .hint("free some space on the server and run the same command again")
        }
        c if *c == SqlState::UNIQUE_VIOLATION => Error::data(format!("{what}: a key is there twice{detail}"))
            .hint("remove the duplicates, or load with --mode merge and that key"),
        c if *c == SqlState::NOT_NULL_VIOLATION => {
            let column = db.column().unwrap_or("?");
            Error::data(format!("{what}: the column '{column}' must not be null{detail}"))
                .hint("drop the NOT NULL of the column, or give it a default")
        }
        c if *c == SqlState::LOCK_NOT_AVAILABLE => {
            Error::conflict(format!("{what}: the table is locked by somebody else"))
                .hint("wait until the other transaction ends, and run the same command again")
        }
        c if *c == SqlState::T_R_DEADLOCK_DETECTED || *c == SqlState::T_R_SERIALIZATION_FAILURE => {
            make(ErrorKind::Conflict, "run the same command again")
        }
        c if *c == SqlState::INVALID_SCHEMA_NAME => {
            Error::not_found(format!("{what}: {said}")).hint("create the schema first: create schema \"…\";")
        }
        c if *c == SqlState::INVALID_CATALOG_NAME => {
            Error::not_found(format!("{what}: {said}")).hint("create the database first, or name another one")
        }
        c if *c == SqlState::UNDEFINED_TABLE || *c == SqlState::UNDEFINED_COLUMN => {
            Error::not_found(format!("{what}: {said}"))
                .hint("check the names; `flumen connection test` shows what is there")
        }
        c if *c == SqlState::INVALID_PASSWORD || *c == SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
            Error::invalid(format!("{what}: {said}")).hint("check user and password of the connection")
        }
        c if *c == SqlState::READ_ONLY_SQL_TRANSACTION => {
            Error::invalid(format!("{what}: {said}")).hint("this server takes no writes; name its primary")
        }
        c if *c == SqlState::CANNOT_CONNECT_NOW => {
            Error::unavailable(format!("{what}: {said}")).hint("the server is starting or stopping; try again")
        }
        _ => match class {
            "08" | "57" => Error::unavailable(format!(
                "{what}: the Postgres server broke the connection off ({said}); the table is as it was"
            ))
            .hint("run the same command again"),
            "53" => make(ErrorKind::Unavailable, "give the server more room, and run the same command again"),
            "22" | "23" | "44" => make(ErrorKind::Data, "mend the row, or give the column a type that holds it"),
            "54" => make(ErrorKind::Invalid, "load fewer columns (--select), or into several tables"),
            "2B" => make(ErrorKind::Conflict, "drop what depends on it first"),
            "42" | "0A" | "25" => make(ErrorKind::Invalid, "check the names, types and options of the load"),
            _ => make(ErrorKind::Internal, "the log of the Postgres server says more"),
        },
    }
}

/// The GRANT that is missing, as far as the message tells: `permission denied for schema public`.
fn grant_for(said: &str, db: &DbError) -> String {
    let named = |marker: &str| said.split_once(marker).map(|(_, name)| name.trim().to_owned());
    if let Some(database) = named("for database ") {
        format!("as an administrator: grant create on database \"{database}\" to this user")
    } else if let Some(schema) = named("for schema ") {
        format!("as an administrator: grant usage, create on schema \"{schema}\" to this user")
    } else if let Some(table) = named("for table ").or_else(|| named("for relation ")) {
        format!("as its owner: grant select, insert, update, delete, truncate on table \"{table}\" to this user")
    } else if said.starts_with("must be owner") {
        "let the owner of the table run the load, or grant the owner's role to this user".to_owned()
    } else {
        db.hint().unwrap_or("ask an administrator for the right").to_owned()
    }
}
