//! The tables of `pg_catalog` and `information_schema`: all that Postgres 15 has, with all their columns. Those about
//! what a lake has not are empty.

mod information;
mod system;

use std::sync::LazyLock;

use postgres_types::Type;

use super::listing::Snapshot;
use super::types;
use super::value::{Row, Value};

/// The number of the database that is always there.
pub(super) const DATABASE_OID: i64 = 16_384;

/// The namespaces that are always there.
pub(super) const NAMESPACES: &[(i64, &str)] = &[(11, "pg_catalog"), (13_000, "information_schema")];

/// The numbers of tables of the catalog that clients know by heart.
const NUMBERS: &[(&str, i64)] = &[
    ("pg_type", 1247),
    ("pg_attribute", 1249),
    ("pg_proc", 1255),
    ("pg_class", 1259),
    ("pg_authid", 1260),
    ("pg_database", 1262),
    ("pg_tablespace", 1213),
    ("pg_am", 2601),
    ("pg_attrdef", 2604),
    ("pg_cast", 2605),
    ("pg_constraint", 2606),
    ("pg_description", 2609),
    ("pg_index", 2610),
    ("pg_language", 2612),
    ("pg_namespace", 2615),
    ("pg_operator", 2617),
    ("pg_rewrite", 2618),
    ("pg_trigger", 2620),
    ("pg_extension", 3079),
    ("pg_collation", 3456),
    ("pg_enum", 3501),
];

/// A table of the catalog.
pub(super) struct Table {
    pub oid: i64,
    pub schema: String,
    pub name: String,
    /// Its columns, and two that a star leaves out: `tableoid` and `xmin`.
    pub columns: Vec<(String, Type)>,
    /// How many of them a star shows.
    pub shown: usize,
}

static TABLES: LazyLock<Vec<Table>> = LazyLock::new(|| {
    let table = |(place, line): (usize, &str)| {
        let mut words = line.split(' ');
        let (schema, name) = words.next()?.split_once('.')?;
        let column = |word: &str| {
            let (name, kind) = word.split_once(':')?;
            // A type that is not listed is shown as text.
            let kind = if kind == "char" { Some(Type::CHAR) } else { types::named(kind) };
            Some((name.to_owned(), kind.unwrap_or(Type::TEXT)))
        };
        let mut columns: Vec<(String, Type)> = words.filter_map(column).collect();
        let shown = columns.len();
        columns.push(("tableoid".to_owned(), Type::OID));
        columns.push(("xmin".to_owned(), Type::INT4));
        let known = NUMBERS.iter().find(|(known, _)| *known == name).map(|(_, oid)| *oid);
        let oid = known.unwrap_or(12_000 + place as i64);
        Some(Table { oid, schema: schema.to_owned(), name: name.to_owned(), columns, shown })
    };
    include_str!("relations.txt").lines().enumerate().filter_map(table).collect()
});

/// All tables of the catalog.
pub(super) fn all() -> &'static [Table] {
    &TABLES
}

/// The table of the catalog that `parts` name.
pub(super) fn find(parts: &[String]) -> Option<&'static Table> {
    let (schema, name) = match parts {
        [name] => ("pg_catalog", name),
        [.., schema, name] => (schema.as_str(), name),
        [] => return None,
    };
    TABLES.iter().find(|table| table.schema == schema && table.name == *name)
}

/// The values of a row, by column.
pub(super) type Fields = Vec<(&'static str, Value)>;

/// The rows of `table`.
pub(super) fn rows(table: &Table, snapshot: &Snapshot) -> Vec<Row> {
    let fields = match (table.schema.as_str(), table.name.as_str()) {
        ("pg_catalog", name) => match snapshot.given.get(name) {
            Some(given) => given.clone(),
            None => system::rows(name, snapshot),
        },
        (_, name) => information::rows(name, snapshot),
    };
    fields.into_iter().map(|fields| row(table, fields)).collect()
}

fn row(table: &Table, fields: Fields) -> Row {
    let mut row = vec![Value::Null; table.columns.len()];
    for (name, value) in fields {
        let place = table.columns.iter().position(|(known, _)| known == name);
        debug_assert!(place.is_some(), "{} has no column {name}", table.name);
        if let Some(place) = place {
            row[place] = value;
        }
    }
    row[table.shown] = Value::Int(table.oid);
    row[table.shown + 1] = Value::Int(1);
    row
}
