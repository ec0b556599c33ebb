//! What each mode does with the rows of a staging table, in SQL. Everything here runs in the load's last transaction.

use arrow::datatypes::Field;
use flumen_core::load::{LOAD_COLUMN, LoadRecord, Mode};
use flumen_core::words::counted;
use flumen_core::{Error, Result};
use tokio_postgres::Transaction;

use super::Target;
use super::session::{Plan, is_extra};
use crate::postgres::catalog::{Column, Table};
use crate::postgres::types::{column_type, oid};
use crate::postgres::{literal, quote, quote_all};

/// The staging table and the table, with the columns that go from one to the other.
struct Move<'a> {
    tx: &'a Transaction<'a>,
    target: &'a Target,
    /// The table, for SQL.
    into: String,
    /// The staging table, for SQL.
    from: String,
    columns: Vec<Moved<'a>>,
}

/// A column of the table, and how the load's values are turned into its type.
struct Moved<'a> {
    column: &'a Column,
    conversion: String,
}

impl<'a> Moved<'a> {
    fn new(target: &Target, column: &'a Column, field: &Field) -> Result<Self> {
        match column.pg_type.conversion(field.data_type(), &column.sql_type) {
            Some(conversion) => Ok(Self { column, conversion }),
            None => Err(Error::invalid(format!(
                "{}: the column '{}' is {}, and the rows to load have {}",
                target.name(),
                column.name,
                column.sql_type,
                column_type(field.data_type()).map_or_else(|_| field.data_type().to_string(), |(name, _)| name)
            ))
            .hint(format!(
                "load the column as {} with --types, or alter the table; its type stays while other things depend on it",
                column.sql_type
            ))),
        }
    }
}

impl std::ops::Deref for Moved<'_> {
    type Target = Column;

    fn deref(&self) -> &Column {
        self.column
    }
}

/// Moves the rows. Returns how many rows that were there before were removed or changed.
pub async fn apply(
    tx: &Transaction<'_>,
    target: &Target,
    plan: &Plan,
    table: &Table,
    record: &LoadRecord,
) -> Result<i64> {
    let mode = &plan.request.mode;
    let columns = plan.fields().filter(|field| !is_extra(mode, field.name()));
    let moving = Move {
        tx,
        target,
        into: target.sql(),
        from: target.beside(&plan.stage),
        columns: columns
            .filter_map(|field| Some(Moved::new(target, table.column(field.name())?, field)))
            .collect::<Result<_>>()?,
    };
    if !matches!(mode, Mode::Append) {
        let strength = if matches!(mode, Mode::Replace) { "access exclusive" } else { "share row exclusive" };
        moving.run(&format!("lock table {} in {strength} mode", moving.into)).await?;
    }
    match mode {
        Mode::Append => {
            moving.insert("").await?;
            Ok(0)
        }
        Mode::Replace => {
            let removed = moving.empty().await?;
            moving.insert("").await?;
            Ok(removed)
        }
        Mode::Merge { keys, delete_flag } => moving.merge(keys, delete_flag.as_deref()).await,
        Mode::Scd2 { keys, valid_from, valid_to } => moving.scd2(plan, keys, valid_from, valid_to, record).await,
        Mode::ReplaceWhere { predicate } => {
            moving.check_predicate(predicate).await?;
            let removed = moving.count(&format!("delete from {} where ({predicate})", moving.into)).await?;
            moving.insert("").await?;
            Ok(removed)
        }
        Mode::ReplaceLoad { slot } => {
            let removed = moving
                .count(&format!(
                    "delete from {} where {} in (select l.load from _flumen.loads l \
                     where l.namespace = {} and l.table_name = {} and l.record->'mode'->>'slot' = {})",
                    moving.into,
                    quote(LOAD_COLUMN),
                    literal(&target.table.namespace),
                    literal(&target.table.table),
                    literal(slot)
                ))
                .await?;
            moving.insert("").await?;
            Ok(removed)
        }
    }
}

impl Move<'_> {
    async fn run(&self, sql: &str) -> Result<()> {
        self.tx.batch_execute(sql).await.map_err(|error| self.target.failed(error))
    }

    /// Runs one statement; a second one behind a semicolon is refused by the server.
    async fn count(&self, sql: &str) -> Result<i64> {
        let rows = self.tx.execute(sql, &[]).await.map_err(|error| self.target.failed(error))?;
        Ok(i64::try_from(rows).unwrap_or(i64::MAX))
    }

    /// The value of a column of the staging table, in the type that the table has.
    fn value(&self, column: &Moved<'_>) -> String {
        format!("s.{}{}", quote(&column.name), column.conversion)
    }

    /// Copies the rows of the staging table (`s`) for which `condition` (`where …`) holds.
    async fn insert(&self, condition: &str) -> Result<()> {
        self.insert_with(&[], condition).await
    }

    /// Like [`Move::insert`], with values for more columns.
    async fn insert_with(&self, more: &[(&str, String)], condition: &str) -> Result<()> {
        let own: Vec<&Moved<'_>> =
            self.columns.iter().filter(|column| more.iter().all(|(name, _)| *name != column.name)).collect();
        let names = quote_all(own.iter().map(|column| column.name.as_str()).chain(more.iter().map(|(name, _)| *name)));
        let values: Vec<String> =
            own.iter().map(|column| self.value(column)).chain(more.iter().map(|(_, value)| value.clone())).collect();
        let overriding =
            if self.columns.iter().any(|column| column.identity) { "overriding system value " } else { "" };
        self.run(&format!(
            "insert into {} ({names}) {overriding}select {} from {} s {condition}",
            self.into,
            values.join(", "),
            self.from
        ))
        .await
    }

    /// Removes all rows. Returns 1 if there were any.
    async fn empty(&self) -> Result<i64> {
        let row = self
            .tx
            .query_one(
                &format!(
                    "select exists (select from {}), exists (select from pg_catalog.pg_constraint \
                     where contype = 'f' and confrelid = pg_catalog.to_regclass($1)::oid \
                       and conrelid <> confrelid)",
                    self.into
                ),
                &[&self.into],
            )
            .await
            .map_err(|error| self.target.failed(error))?;
        let (rows, referenced): (bool, bool) = (row.get(0), row.get(1));
        // A table that foreign keys point to cannot be truncated, whether rows point there or not.
        let verb = if referenced { "delete from" } else { "truncate table" };
        self.run(&format!("{verb} {}", self.into)).await?;
        Ok(i64::from(rows))
    }

    fn key_columns(&self, keys: &[String]) -> Result<Vec<&Moved<'_>>> {
        keys.iter()
            .map(|key| {
                self.columns.iter().find(|column| column.name == *key).ok_or_else(|| {
                    Error::invalid(format!("{}: there is no column '{key}' to be a key", self.target.name()))
                })
            })
            .collect()
    }

    /// `t.key = s.key and …`
    fn same_key(&self, keys: &[&Moved<'_>]) -> String {
        let same = |column: &&Moved<'_>| format!("t.{} = {}", quote(&column.name), self.value(column));
        keys.iter().map(same).collect::<Vec<_>>().join(" and ")
    }

    /// Fails if a row of the load has no key, or two have the same.
    async fn check_keys(&self, keys: &[String]) -> Result<()> {
        let names = quote_all(keys.iter().map(String::as_str));
        let shown = keys
            .iter()
            .map(|key| format!("{} || coalesce(s.{}::text, 'null')", literal(&format!("{key} = ")), quote(key)))
            .collect::<Vec<_>>()
            .join(" || ', ' || ");
        let nulls = keys.iter().map(|key| format!("s.{} is null", quote(key))).collect::<Vec<_>>().join(" or ");
        let missing = self
            .tx
            .query_one(&format!("select count(*), min({shown}) from {} s where {nulls}", self.from), &[])
            .await
            .map_err(|error| self.target.failed(error))?;
        let (count, example): (i64, Option<String>) = (missing.get(0), missing.get(1));
        if count > 0 {
            return Err(Error::data(format!(
                "{}: no key in {}, for example {}",
                self.target.name(),
                counted(count.unsigned_abs(), "row"),
                example.unwrap_or_default()
            ))
            .hint("a merge needs every key column in every row; mend the file or choose another key"));
        }
        let twice = self
            .tx
            .query_opt(
                &format!(
                    "select min({shown}), count(*) from {} s group by {names} having count(*) > 1 limit 1",
                    self.from
                ),
                &[],
            )
            .await
            .map_err(|error| self.target.failed(error))?;
        match twice {
            Some(row) => {
                let (example, count): (Option<String>, i64) = (row.get(0), row.get(1));
                Err(Error::data(format!(
                    "{}: the key {} is there {count} times in the rows to load",
                    self.target.name(),
                    example.unwrap_or_default()
                ))
                .hint("a key may come once; remove the duplicates or add a column to the key"))
            }
            None => Ok(()),
        }
    }

    async fn merge(&self, keys: &[String], delete_flag: Option<&str>) -> Result<i64> {
        self.check_keys(keys).await?;
        let keys = self.key_columns(keys)?;
        let same = self.same_key(&keys);
        let mut changed = 0;
        let mut kept = "true".to_owned();
        if let Some(flag) = delete_flag {
            let deleted = format!("s.{} is true", quote(flag));
            kept = format!("s.{} is not true", quote(flag));
            changed += self
                .count(&format!("delete from {} t using {} s where {same} and {deleted}", self.into, self.from))
                .await?;
        }
        let set: Vec<String> = self
            .columns
            .iter()
            .filter(|column| keys.iter().all(|key| key.name != column.name))
            .map(|column| format!("{} = {}", quote(&column.name), self.value(column)))
            .collect();
        if !set.is_empty() {
            changed += self
                .count(&format!(
                    "update {} t set {} from {} s where {same} and {kept}",
                    self.into,
                    set.join(", "),
                    self.from
                ))
                .await?;
        }
        self.insert(&format!("where {kept} and not exists (select from {} t where {same})", self.into)).await?;
        Ok(changed)
    }

    async fn scd2(
        &self,
        plan: &Plan,
        keys: &[String],
        valid_from: &str,
        valid_to: &str,
        record: &LoadRecord,
    ) -> Result<i64> {
        self.check_keys(keys).await?;
        let keys = self.key_columns(keys)?;
        let same = self.same_key(&keys);
        let since = match self.columns.iter().find(|column| column.name == valid_from) {
            Some(column) if plan.request.schema.column_with_name(valid_from).is_some() => self.value(column),
            _ => format!("timestamptz {}", literal(&record.started.to_rfc3339())),
        };
        let (from, to) = (quote(valid_from), quote(valid_to));
        let overlap = self
            .tx
            .query_opt(
                &format!(
                    "select t.{from}::text, ({since})::text from {} t join {} s on {same} \
                     where t.{to} is null and t.{from} > {since} limit 1",
                    self.into, self.from
                ),
                &[],
            )
            .await
            .map_err(|error| self.target.failed(error))?;
        if let Some(row) = overlap {
            let (open, new): (Option<String>, Option<String>) = (row.get(0), row.get(1));
            return Err(Error::data(format!(
                "{}: a row holds since {}, which is later than {} in the rows to load",
                self.target.name(),
                open.unwrap_or_default(),
                new.unwrap_or_default()
            ))
            .hint("load the states of a thing in the order of their time"));
        }
        // What a thing is, without its key, its validity, and where the row came from.
        let states: Vec<&Moved<'_>> = self
            .columns
            .iter()
            .filter(|column| {
                keys.iter().all(|key| key.name != column.name)
                    && column.name != valid_from
                    && column.name != valid_to
                    && !column.name.starts_with("_flumen_")
            })
            .collect();
        let differs = |column: &&Moved<'_>| {
            // json and xml know no equality.
            let cast = if matches!(column.pg_type.oid, oid::JSON | oid::XML) { "::text" } else { "" };
            format!("t.{}{cast} is distinct from {}{cast}", quote(&column.name), self.value(column))
        };
        let different = match states.iter().map(differs).collect::<Vec<_>>().join(" or ") {
            none if none.is_empty() => "false".to_owned(),
            some => some,
        };
        let closed = self
            .count(&format!(
                "update {} t set {to} = {since} from {} s where {same} and t.{to} is null and ({different})",
                self.into, self.from
            ))
            .await?;
        // What was unchanged is still open; everything else is new or was closed just now.
        let open_to = self.columns.iter().find(|column| column.name == valid_to);
        let null =
            open_to.map_or_else(|| "null::timestamptz".to_owned(), |column| format!("null::{}", column.sql_type));
        self.insert_with(
            &[(valid_from, since), (valid_to, null)],
            &format!("where not exists (select from {} t where {same} and t.{to} is null)", self.into),
        )
        .await?;
        Ok(closed)
    }

    /// Fails if a row of the load lies outside of what it is to replace.
    async fn check_predicate(&self, predicate: &str) -> Result<()> {
        let outside = self
            .tx
            .query_opt(
                &format!(
                    "select left(row_to_json(s)::text, 300) from (select * from {}) s where ({predicate}) is not true limit 1",
                    self.from
                ),
                &[],
            )
            .await
            .map_err(|error| self.target.failed(error))?;
        match outside {
            Some(row) => Err(Error::data(format!(
                "{}: a row lies outside of what is to be replaced ({predicate}): {}",
                self.target.name(),
                row.get::<_, Option<String>>(0).unwrap_or_default()
            ))
            .hint("widen the condition, or leave such rows out of the load")),
            None => Ok(()),
        }
    }
}
