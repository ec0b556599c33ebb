//! What the catalog of Postgres says about a table.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use flumen_core::Result;
use flumen_core::dataset::TableName;
use tokio_postgres::GenericClient;

use super::error::explain;
use super::quote;
use super::types::PgType;

/// A table, view or the like, as it is now.
#[derive(Debug, Clone)]
pub struct Table {
    /// Its number in the catalog: another table under the same name has another.
    pub oid: u32,
    /// `r`: a table, `p`: a partitioned one, `v`: a view, …
    pub kind: char,
    /// Its columns, in order, without generated ones.
    pub columns: Vec<Column>,
    /// The columns of its primary key; empty if there is none.
    pub primary_key: Vec<String>,
}

/// A column of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type, domains resolved.
    pub pg_type: PgType,
    /// Its type as SQL writes it, domains not resolved.
    pub sql_type: String,
    /// Whether it may not be null.
    pub not_null: bool,
    /// Whether it is a `generated … as identity` column.
    pub identity: bool,
}

impl Table {
    /// Its columns in Arrow's terms.
    pub fn schema(&self) -> SchemaRef {
        let field = |column: &Column| Field::new(&column.name, column.pg_type.arrow(), !column.not_null);
        Arc::new(Schema::new(self.columns.iter().map(field).collect::<Vec<_>>()))
    }

    /// The column called `name`.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }
}

/// The table's name in SQL: `"public"."trips"`.
pub fn qualified(table: &TableName) -> String {
    format!("{}.{}", quote(&table.namespace), quote(&table.table))
}

/// The columns, keys and kind of `table`, or `None` if there is no such table.
pub async fn read_table(client: &impl GenericClient, table: &TableName) -> Result<Option<Table>> {
    let failed = |error| explain(format!("postgres table {table}"), error);
    let found = client
        .query_opt(
            "select c.oid, c.relkind from pg_catalog.pg_class c \
             join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
             where n.nspname = $1 and c.relname = $2 and c.relkind in ('r', 'p', 'v', 'm', 'f')",
            &[&table.namespace, &table.table],
        )
        .await
        .map_err(failed)?;
    let Some(row) = found else { return Ok(None) };
    let (oid, kind): (u32, i8) = (row.get(0), row.get(1));
    let columns = read_columns(client, oid).await.map_err(failed)?;
    let primary_key = client
        .query(
            "select a.attname from pg_catalog.pg_index i \
             cross join lateral unnest(i.indkey::int2[]) with ordinality k(attnum, place) \
             join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum \
             where i.indrelid = $1 and i.indisprimary order by k.place",
            &[&oid],
        )
        .await
        .map_err(failed)?
        .iter()
        .map(|row| row.get(0))
        .collect();
    Ok(Some(Table { oid, kind: kind as u8 as char, columns, primary_key }))
}

async fn read_columns(client: &impl GenericClient, table: u32) -> Result<Vec<Column>, tokio_postgres::Error> {
    let rows = client
        .query(
            "with recursive base as ( \
               select a.attnum, a.attname, a.atttypid as typ, a.atttypmod as modifier, a.attnotnull, a.attidentity, \
                      pg_catalog.format_type(a.atttypid, a.atttypmod) as written \
               from pg_catalog.pg_attribute a \
               where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped and a.attgenerated = '' \
             union all \
               select b.attnum, b.attname, t.typbasetype, \
                      case when b.modifier = -1 then t.typtypmod else b.modifier end, \
                      b.attnotnull or t.typnotnull, b.attidentity, b.written \
               from base b join pg_catalog.pg_type t on t.oid = b.typ where t.typtype = 'd') \
             select b.attname, b.typ, b.modifier, b.attnotnull, b.attidentity, b.written, \
                    case when t.typcategory = 'A' and t.typlen = -1 then t.typelem else 0 end as element, \
                    t.typtype = 'e' or t.typname = 'citext' as is_text \
             from base b join pg_catalog.pg_type t on t.oid = b.typ where t.typtype <> 'd' order by b.attnum",
            &[&table],
        )
        .await?;
    Ok(rows
        .iter()
        .map(|row| Column {
            name: row.get(0),
            pg_type: PgType { oid: row.get(1), modifier: row.get(2), element: row.get(6), is_text: row.get(7) },
            sql_type: row.get(5),
            not_null: row.get(3),
            identity: row.get::<_, i8>(4) != 0,
        })
        .collect())
}
