//! The rows of `information_schema`.

use super::Fields;
use crate::catalog::Value;
use crate::catalog::listing::{Column, Key, KeyKind, Relation, RelationKind, Snapshot};
use crate::catalog::types;
use crate::pg::types as wire;
use postgres_types::{Kind, Type};

fn text(text: impl AsRef<str>) -> Value {
    Value::text(text)
}

fn yes(yes: bool) -> Value {
    text(if yes { "YES" } else { "NO" })
}

/// The rows of the view `name`; none for what a lake has not.
pub(super) fn rows(name: &str, snapshot: &Snapshot) -> Vec<Fields> {
    let database = || text(&snapshot.database);
    let of = |relation: &Relation| {
        vec![
            ("table_catalog", database()),
            ("table_schema", text(&relation.namespace)),
            ("table_name", text(&relation.name)),
        ]
    };
    match name {
        "information_schema_catalog_name" => vec![vec![("catalog_name", database())]],
        "schemata" => {
            let row = |(_, name): &(i64, String)| {
                vec![("catalog_name", database()), ("schema_name", text(name)), ("schema_owner", text("flumen"))]
            };
            snapshot.namespaces.iter().map(row).collect()
        }
        "tables" => snapshot
            .relations
            .iter()
            .map(|relation| {
                let kind = match relation.kind {
                    RelationKind::Table => "BASE TABLE",
                    RelationKind::View => "VIEW",
                };
                let mut fields = of(relation);
                fields.extend([
                    ("table_type", text(kind)),
                    ("is_insertable_into", yes(relation.kind == RelationKind::Table)),
                    ("is_typed", yes(false)),
                ]);
                fields
            })
            .collect(),
        "columns" => snapshot
            .relations
            .iter()
            .flat_map(|relation| {
                relation.columns.iter().zip(1..).map(move |(column, number)| (relation, column, number))
            })
            .map(|(relation, column, number)| {
                let mut fields = of(relation);
                fields.extend(column_fields(column, number, &snapshot.database));
                fields
            })
            .collect(),
        "views" => snapshot
            .relations
            .iter()
            .filter(|relation| relation.kind == RelationKind::View)
            .map(|relation| {
                let mut fields = of(relation);
                fields.extend([
                    ("view_definition", Value::maybe_text(relation.definition.as_deref())),
                    ("check_option", text("NONE")),
                    ("is_updatable", yes(false)),
                    ("is_insertable_into", yes(false)),
                ]);
                fields
            })
            .collect(),
        "table_constraints" => snapshot
            .keys()
            .map(|(relation, key)| {
                let kind = match key.kind {
                    KeyKind::Primary => "PRIMARY KEY",
                    KeyKind::Unique => "UNIQUE",
                    KeyKind::Foreign { .. } => "FOREIGN KEY",
                    KeyKind::Check(_) => "CHECK",
                };
                let mut fields = of(relation);
                fields.extend(constraint(relation, key, &snapshot.database));
                fields.extend([
                    ("constraint_type", text(kind)),
                    ("is_deferrable", yes(false)),
                    ("initially_deferred", yes(false)),
                    ("enforced", yes(matches!(key.kind, KeyKind::Check(_)))),
                ]);
                fields
            })
            .collect(),
        "key_column_usage" => {
            let keys = snapshot.keys().filter(|(_, key)| !matches!(key.kind, KeyKind::Check(_)));
            let columns =
                keys.flat_map(|(relation, key)| key.columns.iter().zip(1..).map(move |column| (relation, key, column)));
            columns
                .map(|(relation, key, (column, number))| {
                    let mut fields = of(relation);
                    fields.extend(constraint(relation, key, &snapshot.database));
                    let target =
                        if matches!(key.kind, KeyKind::Foreign { .. }) { Value::Int(number) } else { Value::Null };
                    fields.extend([
                        ("column_name", text(column)),
                        ("ordinal_position", Value::Int(number)),
                        ("position_in_unique_constraint", target),
                    ]);
                    fields
                })
                .collect()
        }
        "constraint_column_usage" => snapshot
            .keys()
            .flat_map(|(relation, key)| {
                let (schema, table, columns) = match &key.kind {
                    KeyKind::Foreign { namespace, table, columns } => (namespace, table, columns),
                    _ => (&relation.namespace, &relation.name, &key.columns),
                };
                columns.iter().map(move |column| (relation, key, schema, table, column))
            })
            .map(|(relation, key, schema, table, column)| {
                let mut fields = vec![
                    ("table_catalog", database()),
                    ("table_schema", text(schema)),
                    ("table_name", text(table)),
                    ("column_name", text(column)),
                ];
                fields.extend(constraint(relation, key, &snapshot.database));
                fields
            })
            .collect(),
        "referential_constraints" => snapshot
            .keys()
            .filter_map(|(relation, key)| {
                let KeyKind::Foreign { namespace, table, columns } = &key.kind else { return None };
                let other =
                    snapshot.relations.iter().find(|other| other.namespace == *namespace && other.name == *table);
                let target =
                    other.and_then(|other| other.keys.iter().find(|key| key.is_index() && key.columns == *columns));
                let mut fields = constraint(relation, key, &snapshot.database);
                fields.extend([
                    ("unique_constraint_catalog", database()),
                    ("unique_constraint_schema", text(namespace)),
                    ("unique_constraint_name", Value::maybe_text(target.map(|key| key.name.as_str()))),
                    ("match_option", text("NONE")),
                    ("update_rule", text("NO ACTION")),
                    ("delete_rule", text("NO ACTION")),
                ]);
                Some(fields)
            })
            .collect(),
        _ => Vec::new(),
    }
}

fn constraint(relation: &Relation, key: &Key, database: &str) -> Fields {
    vec![
        ("constraint_catalog", text(database)),
        ("constraint_schema", text(&relation.namespace)),
        ("constraint_name", text(&key.name)),
    ]
}

fn column_fields(column: &Column, number: i64, database: &str) -> Fields {
    let described =
        wire::column(&arrow::datatypes::Field::new(&column.name, column.data_type.clone(), column.nullable));
    let kind = &described.kind;
    let name = match kind.kind() {
        Kind::Array(_) => "ARRAY".to_owned(),
        _ => types::format(kind.oid().into(), None),
    };
    let (precision, radix, scale) = match *kind {
        Type::INT2 => (Some(16), Some(2), Some(0)),
        Type::INT4 => (Some(32), Some(2), Some(0)),
        Type::INT8 => (Some(64), Some(2), Some(0)),
        Type::FLOAT4 => (Some(24), Some(2), None),
        Type::FLOAT8 => (Some(53), Some(2), None),
        Type::NUMERIC if described.modifier >= 4 => {
            let modifier = i64::from(described.modifier) - 4;
            (Some(modifier >> 16), Some(10), Some(modifier & 0xffff))
        }
        _ => (None, None, None),
    };
    let maybe = |value: Option<i64>| value.map_or(Value::Null, Value::Int);
    let is_time = matches!(*kind, Type::TIMESTAMP | Type::TIMESTAMPTZ | Type::TIME | Type::INTERVAL);
    vec![
        ("column_name", text(&column.name)),
        ("ordinal_position", Value::Int(number)),
        ("column_default", Value::maybe_text(column.default.as_deref())),
        ("is_nullable", yes(column.nullable)),
        ("data_type", text(name)),
        ("numeric_precision", maybe(precision)),
        ("numeric_precision_radix", maybe(radix)),
        ("numeric_scale", maybe(scale)),
        ("datetime_precision", maybe(is_time.then_some(6))),
        ("udt_catalog", text(database)),
        ("udt_schema", text("pg_catalog")),
        ("udt_name", text(kind.name())),
        ("dtd_identifier", text(number.to_string())),
        ("is_self_referencing", yes(false)),
        ("is_identity", yes(false)),
        ("is_generated", text("NEVER")),
        ("is_updatable", yes(true)),
    ]
}
