//! The ledger of a database: `_flumen.loads` (one row a load), `_flumen.files` (which load brought which file) and
//! `_flumen.claims` (who holds a load).

use flumen_core::load::{LoadId, LoadRecord, LoadRequest, Mode};
use flumen_core::write::LedgerEntry;
use flumen_core::{Error, Result};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Json;
use tokio_postgres::{Client, GenericClient};

use super::Target;

const TABLES: &str = "
    create schema if not exists _flumen;
    create table if not exists _flumen.loads (
        seq bigint generated always as identity primary key,
        load text not null,
        namespace text not null,
        table_name text not null,
        dataset text not null,
        mode text not null,
        started timestamptz not null,
        committed timestamptz not null default now(),
        changed bigint not null,
        undone timestamptz,
        record jsonb not null);
    create index if not exists loads_load on _flumen.loads (load);
    create index if not exists loads_table on _flumen.loads (namespace, table_name, seq);
    create table if not exists _flumen.files (
        file text not null,
        load text not null,
        primary key (file, load));
    create table if not exists _flumen.claims (
        load text primary key,
        fence bigint not null,
        claimed timestamptz not null default now(),
        done boolean not null default false);";

/// Says what to grant when the ledger is out of reach.
fn failed(target: &Target, error: tokio_postgres::Error) -> Error {
    if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) {
        return Error::invalid(format!("{}: no right to use the ledger of loads, the schema _flumen", target.name()))
            .hint(
                "as an administrator: grant create on database … to this user; or, if the schema is there: grant usage \
                 on schema _flumen, and select, insert, update, delete on all tables in schema _flumen, to this user. \
                 --no-ledger loads without it: then nothing is skipped that was loaded before, and no load can be undone",
            )
            .caused_by(error);
    }
    target.failed(error)
}

async fn exists(client: &impl GenericClient, target: &Target) -> Result<bool> {
    let row = client
        .query_one(
            "select exists (select from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
             where n.nspname = '_flumen' and c.relname = 'claims')",
            &[],
        )
        .await
        .map_err(|error| failed(target, error))?;
    Ok(row.get(0))
}

/// Makes the ledger if it is not there.
pub async fn ensure(client: &mut Client, target: &Target) -> Result<()> {
    if exists(client, target).await? {
        return Ok(());
    }
    let tx = client.transaction().await.map_err(|error| failed(target, error))?;
    // `if not exists` alone fails when two sessions create at once.
    let made = async {
        tx.batch_execute("select pg_catalog.pg_advisory_xact_lock(5064664)").await?;
        tx.batch_execute(TABLES).await
    };
    made.await.map_err(|error| failed(target, error))?;
    tx.commit().await.map_err(|error| failed(target, error))
}

/// Which of `files` the ledger has. An id may also be that of a load.
pub async fn known(client: &Client, target: &Target, files: &[LoadId]) -> Result<Vec<bool>> {
    if !exists(client, target).await? {
        return Ok(vec![false; files.len()]);
    }
    let ids: Vec<&str> = files.iter().map(LoadId::as_str).collect();
    let rows = client
        .query(
            "select file from _flumen.files where file = any($1) \
             union select load from _flumen.loads where load = any($1) and undone is null",
            &[&ids],
        )
        .await
        .map_err(|error| failed(target, error))?;
    let known: std::collections::HashSet<String> = rows.iter().map(|row| row.get(0)).collect();
    Ok(ids.iter().map(|id| known.contains(*id)).collect())
}

/// The loads into the table, the latest first.
pub async fn loads(client: &Client, target: &Target, limit: usize) -> Result<Vec<LedgerEntry>> {
    if !exists(client, target).await? {
        return Ok(Vec::new());
    }
    let rows = client
        .query(
            "select record, committed, undone is not null from _flumen.loads \
             where namespace = $1 and table_name = $2 order by seq desc limit $3",
            &[&target.table.namespace, &target.table.table, &i64::try_from(limit).unwrap_or(i64::MAX)],
        )
        .await
        .map_err(|error| failed(target, error))?;
    rows.iter()
        .map(|row| {
            let Json(record) = row.try_get::<_, Json<LoadRecord>>(0).map_err(|error| {
                Error::data(format!("{}: the ledger has a line that cannot be read", target.name()))
                    .hint("a newer version of flumen may have written it")
                    .caused_by(error)
            })?;
            Ok(LedgerEntry { record, committed: row.get(1), version: None, undone: row.get(2) })
        })
        .collect()
}

/// How often the load was committed, whether it was undone since or not.
pub async fn times_loaded(client: &Client, target: &Target, load: &LoadId) -> Result<usize> {
    if !exists(client, target).await? {
        return Ok(0);
    }
    let row = client
        .query_one("select count(*) from _flumen.loads where load = $1", &[&load.as_str()])
        .await
        .map_err(|error| failed(target, error))?;
    Ok(usize::try_from(row.get::<_, i64>(0)).unwrap_or(usize::MAX))
}

/// Claims a load for the attempt with the request's fencing number.
///
/// Errors: `Conflict` if a later attempt holds it, or if it is done.
pub async fn claim(client: &Client, target: &Target, request: &LoadRequest, table_exists: bool) -> Result<()> {
    let load = request.load.as_str();
    let redo = request.fence.0 == 0 && request.mode == Mode::Replace || !table_exists;
    let claimed = client
        .query_opt(
            "insert into _flumen.claims as c (load, fence) values ($1, $2) on conflict (load) do update \
             set fence = excluded.fence, claimed = now(), done = false \
             where c.fence <= excluded.fence and (not c.done or $3) returning c.fence",
            &[&load, &request.fence.0, &redo],
        )
        .await
        .map_err(|error| failed(target, error))?;
    if claimed.is_some() {
        return Ok(());
    }
    let row = client
        .query_one("select fence, done from _flumen.claims where load = $1", &[&load])
        .await
        .map_err(|error| failed(target, error))?;
    let (fence, done): (i64, bool) = (row.get(0), row.get(1));
    let name = target.name();
    Err(if done {
        Error::conflict(format!("{name}: load {} is in the ledger: it is done", request.load.short()))
            .hint("there is nothing left to do; --force loads it once more, under a new id")
    } else {
        Error::conflict(format!(
            "{name}: attempt {} at load {} gives way to attempt {fence}, which took it over",
            request.fence.0,
            request.load.short()
        ))
        .hint("let the later attempt finish")
    })
}

/// Whether the ledger says that the load is committed, by this attempt.
///
/// Errors: `Conflict` if another attempt has taken it over.
pub async fn is_done(client: &Client, target: &Target, request: &LoadRequest) -> Result<bool> {
    let row = client
        .query_opt("select done, fence from _flumen.claims where load = $1", &[&request.load.as_str()])
        .await
        .map_err(|error| failed(target, error))?;
    let Some(row) = row else { return Ok(false) };
    let (done, fence): (bool, i64) = (row.get(0), row.get(1));
    if fence == request.fence.0 { Ok(done) } else { Err(taken_over(target, request)) }
}

/// That an attempt is not the last one any more.
fn taken_over(target: &Target, request: &LoadRequest) -> Error {
    Error::conflict(format!(
        "{}: attempt {} at load {} may not commit: another attempt took it over; nothing was changed",
        target.name(),
        request.fence.0,
        request.load.short()
    ))
    .hint("let the later attempt finish")
}

/// Forgets the files of a table that was dropped: their rows went with it.
pub async fn forget_dropped(client: &impl GenericClient, target: &Target) -> Result<()> {
    // The table is looked for again: a load that makes it may have committed since.
    client
        .execute(
            "delete from _flumen.files f using _flumen.loads l where l.load = f.load \
             and l.namespace = $1 and l.table_name = $2 and pg_catalog.to_regclass($3) is null",
            &[&target.table.namespace, &target.table.table, &target.sql()],
        )
        .await
        .map_err(|error| failed(target, error))?;
    Ok(())
}

/// Checks that no other load has brought one of the files: two loads that share a file may run at once.
///
/// Errors: `Conflict` if one has.
pub async fn check_files(client: &impl GenericClient, target: &Target, request: &LoadRequest) -> Result<()> {
    if !matches!(request.mode, Mode::Append | Mode::Merge { .. } | Mode::Scd2 { .. }) {
        // The others say what the table holds afterwards, however often a file is loaded.
        return Ok(());
    }
    let files: Vec<&str> = request.files.iter().filter_map(|(_, id)| id.as_ref().map(LoadId::as_str)).collect();
    let row = client
        .query_opt(
            "select file, load from _flumen.files where file = any($1) and load <> $2 limit 1",
            &[&files, &request.load.as_str()],
        )
        .await
        .map_err(|error| failed(target, error))?;
    let Some(row) = row else { return Ok(()) };
    let (file, load): (String, String) = (row.get(0), row.get(1));
    let known = request.files.iter().find(|(_, id)| id.as_ref().is_some_and(|id| id.as_str() == file));
    Err(Error::conflict(format!(
        "{}: {} was loaded meanwhile, by load {}; nothing was changed",
        target.name(),
        known.map_or("a file", |(identity, _)| identity.address.as_str()),
        load.get(..12).unwrap_or(&load)
    ))
    .hint("run the same command again: it leaves that file out"))
}

/// Writes the load's line, in the transaction of its rows. `changed` earlier rows were removed or changed by it.
///
/// Errors: `Conflict` if the claim is another's by now, the load done, or one of its files brought by another load.
pub async fn write(
    tx: &impl GenericClient,
    target: &Target,
    request: &LoadRequest,
    record: &LoadRecord,
    changed: i64,
) -> Result<()> {
    let load = request.load.as_str();
    let ours = tx
        .execute(
            "update _flumen.claims set done = true where load = $1 and fence = $2 and not done",
            &[&load, &request.fence.0],
        )
        .await
        .map_err(|error| failed(target, error))?;
    if ours != 1 {
        return Err(taken_over(target, request));
    }
    // Loads of one table go through here one after the other, so that each sees the files of the one before.
    tx.execute(
        "select pg_catalog.pg_advisory_xact_lock(5064666, pg_catalog.hashtext($1 || '.' || $2))",
        &[&target.table.namespace, &target.table.table],
    )
    .await
    .map_err(|error| failed(target, error))?;
    check_files(tx, target, request).await?;
    if request.mode == Mode::Replace {
        // Files that earlier loads brought are not in the table any more: they may come again.
        tx.execute(
            "delete from _flumen.files f using _flumen.loads l \
             where l.load = f.load and l.namespace = $1 and l.table_name = $2",
            &[&target.table.namespace, &target.table.table],
        )
        .await
        .map_err(|error| failed(target, error))?;
    }
    insert_line(tx, target, record, changed).await?;
    let files: Vec<&str> = record.files.iter().filter_map(|file| file.ledger_id.as_ref().map(LoadId::as_str)).collect();
    tx.execute(
        "insert into _flumen.files (file, load) select distinct f, $2 from unnest($1::text[]) f on conflict do nothing",
        &[&files, &load],
    )
    .await
    .map_err(|error| failed(target, error))?;
    Ok(())
}

async fn insert_line(tx: &impl GenericClient, target: &Target, record: &LoadRecord, changed: i64) -> Result<()> {
    tx.execute(
        "insert into _flumen.loads (load, namespace, table_name, dataset, mode, started, changed, record) \
         values ($1, $2, $3, $4, $5, $6, $7, $8)",
        &[
            &record.load.as_str(),
            &target.table.namespace,
            &target.table.table,
            &record.dataset,
            &record.mode.name(),
            &record.started,
            &changed,
            &Json(record),
        ],
    )
    .await
    .map_err(|error| failed(target, error))?;
    Ok(())
}

/// Checks that taking `load` back leaves the table as if it had never been.
///
/// Errors: `NotFound` if the ledger does not have it, `Invalid` if it cannot be undone.
pub async fn may_undo(tx: &impl GenericClient, target: &Target, load: &LoadId) -> Result<()> {
    let row = if exists(tx, target).await? {
        tx.query_opt(
            "select undone is not null, changed, mode from _flumen.loads \
             where load = $1 and namespace = $2 and table_name = $3 order by seq desc limit 1",
            &[&load.as_str(), &target.table.namespace, &target.table.table],
        )
        .await
        .map_err(|error| failed(target, error))?
    } else {
        None
    };
    let Some(row) = row else {
        return Err(Error::not_found(format!("{}: the ledger has no load {load}", target.name()))
            .hint("`flumen load list` shows those that it has"));
    };
    let (undone, changed, mode): (bool, i64, String) = (row.get(0), row.get(1), row.get(2));
    if undone {
        return Err(Error::invalid(format!("{}: load {} is undone already", target.name(), load.short())));
    }
    if changed > 0 {
        return Err(Error::invalid(format!(
            "{}: load {} cannot be undone: it was a {mode} that removed or changed rows, and Postgres keeps no earlier version",
            target.name(),
            load.short()
        ))
        .hint("load the earlier content again with --mode replace, or restore it from a backup"));
    }
    Ok(())
}

/// How many rows `load` wrote, as its line says.
pub async fn rows_written(tx: &impl GenericClient, target: &Target, load: &LoadId) -> Result<i64> {
    let row = tx
        .query_one(
            "select (record->>'rows_written')::bigint from _flumen.loads where load = $1 order by seq desc limit 1",
            &[&load.as_str()],
        )
        .await
        .map_err(|error| failed(target, error))?;
    Ok(row.get::<_, Option<i64>>(0).unwrap_or_default())
}

/// Marks `load` as taken back, forgets its files, and writes the undoing's own line.
pub async fn mark_undone(tx: &impl GenericClient, target: &Target, load: &LoadId, record: &LoadRecord) -> Result<()> {
    for statement in [
        "update _flumen.loads set undone = now() where load = $1 and undone is null",
        "delete from _flumen.files where load = $1",
        "delete from _flumen.claims where load = $1",
    ] {
        tx.execute(statement, &[&load.as_str()]).await.map_err(|error| failed(target, error))?;
    }
    insert_line(tx, target, record, 0).await
}
