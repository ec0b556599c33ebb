//! The last step of a staged load: one transaction that makes its rows visible, with their line in the ledger.

use flumen_core::load::{LoadRecord, Mode};
use flumen_core::{Error, Result};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, GenericClient, Transaction};

use super::session::{Plan, Way, is_extra};
use super::{Target, ledger, modes, swap};
use crate::postgres::catalog::{Table, read_table};
use crate::postgres::types::column_type;
use crate::postgres::{NAME_BYTES, quote, quote_all};

/// Makes the rows of the staging table visible, all or none.
pub async fn publish(client: &mut Client, target: &Target, plan: &Plan, record: &LoadRecord) -> Result<()> {
    // What can be built before the table is locked, is.
    match plan.way {
        Way::New => make_keys_of_new(client, target, plan).await?,
        Way::Swap => swap::make_indexes(client, target, plan).await?,
        Way::Stage => {
            let analyze = format!("analyze {}", target.beside(&plan.stage));
            client.batch_execute(&analyze).await.map_err(|error| target.failed(error))?;
        }
        Way::Direct => return Err(Error::internal("a direct load has no staging table")),
    }
    match in_one_transaction(client, target, plan, record).await {
        Err(error) if code_of(&error) == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
            Err(name_holder(client, target, error).await)
        }
        result => result,
    }
}

async fn in_one_transaction(client: &mut Client, target: &Target, plan: &Plan, record: &LoadRecord) -> Result<()> {
    let tx = client.transaction().await.map_err(|error| target.failed(error))?;
    let now = read_table(&tx, &target.table).await?;
    let changed = match (&now, plan.way) {
        (None, Way::New) => {
            become_table(&tx, target, plan).await?;
            0
        }
        (Some(now), Way::Swap) if swap::still_possible(&tx, target, plan, now).await? => {
            swap::swap(&tx, target, plan, now).await?
        }
        _ => {
            let table = match now {
                Some(_) => add_columns(&tx, target, plan).await?,
                None => create(&tx, target, plan).await?,
            };
            let changed = modes::apply(&tx, target, plan, &table, record).await?;
            make_indexes(&tx, target, plan).await?;
            let drop = format!("drop table {}", target.beside(&plan.stage));
            tx.batch_execute(&drop).await.map_err(|error| target.failed(error))?;
            changed
        }
    };
    if target.options.ledger {
        ledger::write(&tx, target, &plan.request, record, changed).await?;
    }
    tx.commit().await.map_err(|error| target.failed(error))
}

/// The SQLSTATE behind an error, if Postgres sent one.
fn code_of(error: &Error) -> Option<&SqlState> {
    std::error::Error::source(error)?.downcast_ref::<tokio_postgres::Error>()?.code()
}

/// Adds to `error` who has the table locked, as far as the server tells.
async fn name_holder(client: &Client, target: &Target, error: Error) -> Error {
    let holder = client
        .query_opt(
            "select a.pid, a.usename::text, coalesce(nullif(a.application_name, ''), '?'), a.state \
             from pg_catalog.pg_locks l join pg_catalog.pg_stat_activity a on a.pid = l.pid \
             where l.relation = pg_catalog.to_regclass($1)::oid and l.granted and a.pid <> pg_catalog.pg_backend_pid() \
             order by a.xact_start limit 1",
            &[&target.sql()],
        )
        .await;
    let Ok(Some(row)) = holder else { return error };
    let (pid, user, application, state): (i32, Option<String>, Option<String>, Option<String>) =
        (row.get(0), row.get(1), row.get(2), row.get(3));
    Error::conflict(format!(
        "{}: the table is locked by process {pid} of the server (user {}, application {}, {}); it is as it was",
        target.name(),
        user.unwrap_or_default(),
        application.unwrap_or_default(),
        state.unwrap_or_default()
    ))
    .hint(format!(
        "wait until that transaction ends and run the same command again, or end it: select pg_terminate_backend({pid});"
    ))
    .caused_by(error)
}

/// The staging table becomes the table.
async fn become_table(tx: &Transaction<'_>, target: &Target, plan: &Plan) -> Result<()> {
    let mut sql = format!("alter table {} rename to {};", target.beside(&plan.stage), quote(&target.table.table));
    if !plan.request.primary_key.is_empty() {
        let name = free_name(tx, target, &key_name(target)).await?;
        sql.push_str(&format!(
            "alter table {} add constraint {} primary key using index {};",
            target.sql(),
            quote(&name),
            quote(&built_name(plan, 0))
        ));
    }
    for (number, columns) in plan.request.indexes.iter().enumerate() {
        let name = free_name(tx, target, &index_name(target, columns)).await?;
        sql.push_str(&format!(
            "alter index {} rename to {};",
            target.beside(&built_name(plan, number + 1)),
            quote(&name)
        ));
    }
    tx.batch_execute(&sql).await.map_err(|error| target.failed(error))
}

/// The name of an index on a staging table.
pub fn built_name(plan: &Plan, number: usize) -> String {
    format!("{}_i{number}", plan.stage)
}

fn key_name(target: &Target) -> String {
    shorten(&target.table.table, "_pkey")
}

/// The name that Postgres itself would give to an index on `columns`.
pub fn index_name(target: &Target, columns: &[String]) -> String {
    shorten(&format!("{}_{}", target.table.table, columns.join("_")), "_idx")
}

fn shorten(name: &str, ending: &str) -> String {
    let mut end = name.len().min(NAME_BYTES - 4 - ending.len());
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{ending}", &name[..end])
}

/// `name`, or `name` with a number behind it if something in the schema has it already.
pub async fn free_name(tx: &impl GenericClient, target: &Target, name: &str) -> Result<String> {
    let rows = tx
        .query(
            "select c.relname::text from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
             where n.nspname = $1 and starts_with(c.relname, $2)",
            &[&target.table.namespace, &name],
        )
        .await
        .map_err(|error| target.failed(error))?;
    let taken: std::collections::HashSet<String> = rows.iter().map(|row| row.get(0)).collect();
    let numbered = (1..).map(|number| format!("{name}{number}"));
    Ok(std::iter::once(name.to_owned()).chain(numbered).find(|name| !taken.contains(name)).unwrap_or_default())
}

/// Builds primary key and indexes on the staging table of a new table.
async fn make_keys_of_new(client: &Client, target: &Target, plan: &Plan) -> Result<()> {
    let stage = target.beside(&plan.stage);
    let list = |columns: &[String]| quote_all(columns.iter().map(String::as_str));
    let mut sql = String::new();
    if !plan.request.primary_key.is_empty() {
        let columns = list(&plan.request.primary_key);
        for column in &plan.request.primary_key {
            sql.push_str(&format!("alter table {stage} alter column {} set not null;", quote(column)));
        }
        let name = quote(&built_name(plan, 0));
        sql.push_str(&format!("create unique index if not exists {name} on {stage} ({columns});"));
    }
    for (number, columns) in plan.request.indexes.iter().enumerate() {
        let name = quote(&built_name(plan, number + 1));
        sql.push_str(&format!("create index if not exists {name} on {stage} ({});", list(columns)));
    }
    client.batch_execute(&sql).await.map_err(|error| target.failed(error))
}

/// Makes the indexes that were asked for and that the table does not have, under whatever name.
pub async fn make_indexes(client: &impl GenericClient, target: &Target, plan: &Plan) -> Result<()> {
    for columns in &plan.request.indexes {
        let there = client
            .query_opt(
                "select 1 from pg_catalog.pg_index i where i.indrelid = pg_catalog.to_regclass($1)::oid \
                 and i.indpred is null and i.indexprs is null and $2::text[] = ( \
                   select array_agg(a.attname::text order by k.place) \
                   from unnest(i.indkey::int2[]) with ordinality k(attnum, place) \
                   join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum) limit 1",
                &[&target.sql(), &columns],
            )
            .await
            .map_err(|error| target.failed(error))?;
        if there.is_some() {
            continue;
        }
        let name = free_name(client, target, &index_name(target, columns)).await?;
        let list = quote_all(columns.iter().map(String::as_str));
        client
            .batch_execute(&format!("create index {} on {} ({list})", quote(&name), target.sql()))
            .await
            .map_err(|error| target.failed(error))?;
    }
    Ok(())
}

/// Adds the columns that the load has and the table lacks. Returns the table with them.
async fn add_columns(tx: &Transaction<'_>, target: &Target, plan: &Plan) -> Result<Table> {
    let table = current(tx, target).await?;
    let mut added = Vec::new();
    for field in plan.fields().filter(|field| table.column(field.name()).is_none()) {
        if !is_extra(&plan.request.mode, field.name()) {
            added.push(format!("add column {} {}", quote(field.name()), column_type(field.data_type())?.0));
        }
    }
    if let Mode::Scd2 { valid_from, valid_to, .. } = &plan.request.mode {
        for column in [valid_from, valid_to] {
            if table.column(column).is_none() && plan.request.schema.column_with_name(column).is_none() {
                added.push(format!("add column {} timestamptz", quote(column)));
            }
        }
    }
    if added.is_empty() {
        return Ok(table);
    }
    tx.batch_execute(&format!("alter table {} {}", target.sql(), added.join(", ")))
        .await
        .map_err(|error| target.failed(error))?;
    current(tx, target).await
}

/// Makes the table for a load that goes there by SQL.
async fn create(tx: &Transaction<'_>, target: &Target, plan: &Plan) -> Result<Table> {
    let mut columns = Vec::new();
    for field in plan.fields().filter(|field| !is_extra(&plan.request.mode, field.name())) {
        columns.push(format!("{} {}", quote(field.name()), column_type(field.data_type())?.0));
    }
    if let Mode::Scd2 { valid_from, valid_to, .. } = &plan.request.mode {
        for column in [valid_from, valid_to] {
            if plan.request.schema.column_with_name(column).is_none() {
                columns.push(format!("{} timestamptz", quote(column)));
            }
        }
    }
    if !plan.request.primary_key.is_empty() {
        columns.push(format!("primary key ({})", quote_all(plan.request.primary_key.iter().map(String::as_str))));
    }
    tx.batch_execute(&format!("create table {} ({})", target.sql(), columns.join(", ")))
        .await
        .map_err(|error| target.failed(error))?;
    current(tx, target).await
}

async fn current(tx: &Transaction<'_>, target: &Target) -> Result<Table> {
    read_table(tx, &target.table)
        .await?
        .ok_or_else(|| Error::conflict(format!("{} was dropped while it was loaded", target.name())))
}
