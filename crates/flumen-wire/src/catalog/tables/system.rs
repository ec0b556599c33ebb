//! The rows of `pg_catalog`.

use postgres_types::Type;

use super::{Fields, Table};
use crate::catalog::Value;
use crate::catalog::listing::{Column, Key, KeyKind, OWNER, Relation, RelationKind, Snapshot, io_function_oid};
use crate::catalog::types::{self, TYPES};
use crate::catalog::value::Reg;
use crate::pg::types as wire;

/// The numbers of the tables of relations and of namespaces.
const RELATIONS_OID: i64 = 1259;
const NAMESPACES_OID: i64 = 2615;
/// The number of the tablespace that all is in.
const TABLESPACE_OID: i64 = 1663;
/// The language of functions that are built in.
const INTERNAL_LANGUAGE: i64 = 12;
/// `any`, as a type.
const ANY_TYPE: i64 = 2276;

fn text(text: impl AsRef<str>) -> Value {
    Value::text(text)
}

const NO: Value = Value::Bool(false);
const YES: Value = Value::Bool(true);

/// The rows of the table `name`; none for what a lake has not.
pub(super) fn rows(name: &str, snapshot: &Snapshot) -> Vec<Fields> {
    let relations = || snapshot.relations.iter();
    match name {
        "pg_namespace" => {
            let row = |(oid, name): &(i64, String)| {
                vec![("oid", Value::Int(*oid)), ("nspname", text(name)), ("nspowner", Value::Int(OWNER))]
            };
            snapshot.namespaces.iter().map(row).collect()
        }
        "pg_class" => {
            let indexes = snapshot.keys().filter(|(_, key)| key.is_index());
            let system = super::all().iter().map(|table| system_class(table, snapshot));
            let own = relations().map(|relation| class(relation, snapshot));
            own.chain(indexes.map(|(relation, key)| index_class(relation, key, snapshot))).chain(system).collect()
        }
        "pg_attribute" => {
            let own = relations().flat_map(|relation| {
                relation.columns.iter().zip(1..).map(|(column, number)| attribute(relation, column, number))
            });
            let indexes = snapshot
                .keys()
                .filter(|(_, key)| key.is_index())
                .flat_map(|(relation, key)| index_attributes(relation, key));
            let system = super::all().iter().flat_map(|table| {
                let columns = table.columns[..table.shown].iter().zip(1..);
                columns.map(|((name, kind), number)| attribute_of(table.oid, name, kind, -1, false, number))
            });
            own.chain(indexes).chain(system).collect()
        }
        "pg_attrdef" => relations().flat_map(defaults).collect(),
        "pg_constraint" => snapshot.keys().map(|(relation, key)| constraint(relation, key, snapshot)).collect(),
        "pg_index" => {
            snapshot.keys().filter(|(_, key)| key.is_index()).map(|(relation, key)| index(relation, key)).collect()
        }
        "pg_description" => {
            let namespaces = snapshot.namespaces.iter().filter_map(|(oid, _)| {
                let comment = snapshot.namespace_comment(*oid)?;
                Some(description(*oid, NAMESPACES_OID, 0, comment))
            });
            relations().flat_map(descriptions).chain(namespaces).collect()
        }
        "pg_type" => TYPES.iter().map(type_row).collect(),
        "pg_proc" => snapshot
            .functions
            .iter()
            .map(|function| {
                let result = types::oid_of(&function.result).unwrap_or(ANY_TYPE);
                vec![
                    ("oid", Value::Int(function.oid)),
                    ("proname", text(&function.name)),
                    ("pronamespace", Value::Int(11)),
                    ("proowner", Value::Int(OWNER)),
                    ("prolang", Value::Int(INTERNAL_LANGUAGE)),
                    ("procost", Value::Float(1.0)),
                    ("prorows", Value::Float(0.0)),
                    ("provariadic", Value::Int(0)),
                    ("prokind", text(function.kind)),
                    ("prosecdef", NO),
                    ("proleakproof", NO),
                    ("proisstrict", NO),
                    ("proretset", NO),
                    ("provolatile", text("i")),
                    ("proparallel", text("s")),
                    ("pronargs", Value::Int(function.types.len() as i64)),
                    ("pronargdefaults", Value::Int(0)),
                    ("prorettype", Value::Int(result)),
                    ("proargtypes", Value::array(function.types.iter().copied().map(Value::Int).collect())),
                    ("prosrc", text(&function.name)),
                ]
            })
            .collect(),
        "pg_database" => snapshot.databases.iter().map(database).collect(),
        "pg_roles" | "pg_authid" => roles(snapshot),
        "pg_user" | "pg_shadow" => snapshot
            .accounts
            .iter()
            .zip(OWNER..)
            .map(|(account, oid)| {
                vec![
                    ("usename", text(&account.name)),
                    ("usesysid", Value::Int(oid)),
                    ("usecreatedb", NO),
                    ("usesuper", Value::Bool(!account.read_only)),
                    ("userepl", NO),
                    ("usebypassrls", NO),
                ]
            })
            .collect(),
        "pg_tables" => relations()
            .filter(|relation| relation.kind == RelationKind::Table)
            .map(|relation| {
                vec![
                    ("schemaname", text(&relation.namespace)),
                    ("tablename", text(&relation.name)),
                    ("tableowner", text(owner(snapshot))),
                    ("hasindexes", Value::Bool(relation.keys.iter().any(Key::is_index))),
                    ("hasrules", NO),
                    ("hastriggers", NO),
                    ("rowsecurity", NO),
                ]
            })
            .collect(),
        "pg_views" => relations()
            .filter(|relation| relation.kind == RelationKind::View)
            .map(|relation| {
                vec![
                    ("schemaname", text(&relation.namespace)),
                    ("viewname", text(&relation.name)),
                    ("viewowner", text(owner(snapshot))),
                    ("definition", Value::maybe_text(relation.definition.as_deref())),
                ]
            })
            .collect(),
        "pg_indexes" => snapshot
            .keys()
            .filter(|(_, key)| key.is_index())
            .map(|(relation, key)| {
                vec![
                    ("schemaname", text(&relation.namespace)),
                    ("tablename", text(&relation.name)),
                    ("indexname", text(&key.name)),
                    ("indexdef", text(key.index_definition(relation))),
                ]
            })
            .collect(),
        "pg_stat_all_tables" | "pg_stat_user_tables" => relations()
            .map(|relation| {
                vec![
                    ("relid", Value::Int(relation.oid)),
                    ("schemaname", text(&relation.namespace)),
                    ("relname", text(&relation.name)),
                    ("n_live_tup", relation.rows.map_or(Value::Null, Value::Int)),
                    ("n_dead_tup", Value::Int(0)),
                ]
            })
            .collect(),
        "pg_am" => [(2, "heap", "t"), (403, "btree", "i")]
            .into_iter()
            .map(|(oid, name, kind)| vec![("oid", Value::Int(oid)), ("amname", text(name)), ("amtype", text(kind))])
            .collect(),
        "pg_collation" => [(100, "default", "d"), (950, "C", "c"), (951, "POSIX", "c")]
            .into_iter()
            .map(|(oid, name, provider)| {
                vec![
                    ("oid", Value::Int(oid)),
                    ("collname", text(name)),
                    ("collnamespace", Value::Int(11)),
                    ("collowner", Value::Int(OWNER)),
                    ("collprovider", text(provider)),
                    ("collisdeterministic", YES),
                    ("collencoding", Value::Int(-1)),
                ]
            })
            .collect(),
        "pg_language" => vec![vec![
            ("oid", Value::Int(INTERNAL_LANGUAGE)),
            ("lanname", text("internal")),
            ("lanowner", Value::Int(OWNER)),
            ("lanispl", NO),
            ("lanpltrusted", NO),
        ]],
        "pg_tablespace" => vec![vec![
            ("oid", Value::Int(TABLESPACE_OID)),
            ("spcname", text("pg_default")),
            ("spcowner", Value::Int(OWNER)),
        ]],
        "pg_timezone_names" => {
            vec![vec![("name", text("UTC")), ("abbrev", text("UTC")), ("utc_offset", text("00:00:00")), ("is_dst", NO)]]
        }
        _ => Vec::new(),
    }
}

fn owner(snapshot: &Snapshot) -> &str {
    snapshot.accounts.first().map_or("flumen", |account| account.name.as_str())
}

fn class_of(oid: i64, name: &str, namespace: i64, kind: &str, columns: usize) -> Fields {
    vec![
        ("oid", Value::Int(oid)),
        ("relname", text(name)),
        ("relnamespace", Value::Int(namespace)),
        ("reltype", Value::Int(0)),
        ("reloftype", Value::Int(0)),
        ("relowner", Value::Int(OWNER)),
        (
            "relam",
            Value::Int(match kind {
                "r" => 2,
                "i" => 403,
                _ => 0,
            }),
        ),
        ("relfilenode", Value::Int(0)),
        ("reltablespace", Value::Int(0)),
        ("relallvisible", Value::Int(0)),
        ("reltoastrelid", Value::Int(0)),
        ("relisshared", NO),
        ("relkind", text(kind)),
        ("relnatts", Value::Int(columns as i64)),
        ("relhasrules", Value::Bool(kind == "v")),
        ("relhassubclass", NO),
        ("relrowsecurity", NO),
        ("relforcerowsecurity", NO),
        ("relispopulated", YES),
        ("relreplident", text("d")),
        ("relispartition", NO),
        ("relrewrite", Value::Int(0)),
        ("relfrozenxid", Value::Int(0)),
        ("relminmxid", Value::Int(0)),
    ]
}

fn class(relation: &Relation, snapshot: &Snapshot) -> Fields {
    let kind = match relation.kind {
        RelationKind::Table => "r",
        RelationKind::View => "v",
    };
    let namespace = snapshot.namespace_oid(&relation.namespace);
    let mut fields = class_of(relation.oid, &relation.name, namespace, kind, relation.columns.len());
    let checks = relation.keys.iter().filter(|key| matches!(key.kind, KeyKind::Check(_))).count();
    // Postgres has triggers behind foreign keys, at both ends; psql asks for the keys only where there are some.
    let is_here = |kind: &KeyKind| match kind {
        KeyKind::Foreign { namespace, table, .. } => *namespace == relation.namespace && *table == relation.name,
        _ => false,
    };
    let refers = relation.keys.iter().any(|key| matches!(key.kind, KeyKind::Foreign { .. }))
        || snapshot.keys().any(|(_, key)| is_here(&key.kind));
    let temporary = relation.namespace == crate::catalog::listing::SESSION_NAMESPACE;
    fields.extend([
        ("relpages", Value::Int(relation.bytes.unwrap_or_default() / 8192)),
        ("reltuples", Value::Float(relation.rows.map_or(-1.0, |rows| rows as f64))),
        ("relhasindex", Value::Bool(relation.keys.iter().any(Key::is_index))),
        ("relhastriggers", Value::Bool(refers)),
        ("relpersistence", text(if temporary { "t" } else { "p" })),
        ("relchecks", Value::Int(checks as i64)),
    ]);
    fields
}

fn index_class(relation: &Relation, key: &Key, snapshot: &Snapshot) -> Fields {
    let namespace = snapshot.namespace_oid(&relation.namespace);
    let mut fields = class_of(relation.index_oid(key), &key.name, namespace, "i", key.columns.len());
    fields.extend(plain_class());
    fields
}

fn system_class(table: &Table, snapshot: &Snapshot) -> Fields {
    let namespace = snapshot.namespace_oid(&table.schema);
    let kind = if table.schema == "pg_catalog" && rows_are_kept(&table.name) { "r" } else { "v" };
    let mut fields = class_of(table.oid, &table.name, namespace, kind, table.shown);
    fields.extend(plain_class());
    fields
}

/// Whether Postgres keeps the rows of this table, which is no view there.
fn rows_are_kept(name: &str) -> bool {
    const VIEWS: &[&str] = &[
        "pg_roles",
        "pg_shadow",
        "pg_group",
        "pg_user",
        "pg_policies",
        "pg_rules",
        "pg_views",
        "pg_tables",
        "pg_matviews",
        "pg_indexes",
        "pg_sequences",
        "pg_settings",
        "pg_locks",
        "pg_cursors",
        "pg_stats",
        "pg_user_mappings",
    ];
    !VIEWS.contains(&name)
        && !name.starts_with("pg_stat")
        && !name.starts_with("pg_available")
        && !name.starts_with("pg_timezone")
}

fn plain_class() -> Fields {
    vec![
        ("relpages", Value::Int(0)),
        ("reltuples", Value::Float(-1.0)),
        ("relhasindex", NO),
        ("relhastriggers", NO),
        ("relpersistence", text("p")),
        ("relchecks", Value::Int(0)),
    ]
}

fn attribute(relation: &Relation, column: &Column, number: i64) -> Fields {
    let described =
        wire::column(&arrow::datatypes::Field::new(&column.name, column.data_type.clone(), column.nullable));
    let modifier = i64::from(described.modifier);
    let mut fields = attribute_of(relation.oid, &column.name, &described.kind, modifier, !column.nullable, number);
    if column.default.is_some() {
        fields.push(("atthasdef", YES));
    }
    fields
}

fn attribute_of(oid: i64, name: &str, kind: &Type, modifier: i64, not_null: bool, number: i64) -> Fields {
    let textual = matches!(*kind, Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME);
    vec![
        ("attrelid", Value::Int(oid)),
        ("attname", text(name)),
        ("atttypid", Value::Int(kind.oid().into())),
        ("attstattarget", Value::Int(-1)),
        ("attlen", Value::Int(wire::size(kind).into())),
        ("attnum", Value::Int(number)),
        ("attndims", Value::Int(i64::from(matches!(kind.kind(), postgres_types::Kind::Array(_))))),
        ("attcacheoff", Value::Int(-1)),
        ("atttypmod", Value::Int(modifier)),
        ("attbyval", Value::Bool((1..=8).contains(&wire::size(kind)))),
        ("attalign", text("i")),
        ("attstorage", text(if wire::size(kind) < 0 { "x" } else { "p" })),
        ("attcompression", text("")),
        ("attnotnull", Value::Bool(not_null)),
        ("atthasdef", NO),
        ("atthasmissing", NO),
        ("attidentity", text("")),
        ("attgenerated", text("")),
        ("attisdropped", NO),
        ("attislocal", YES),
        ("attinhcount", Value::Int(0)),
        ("attcollation", Value::Int(if textual { 100 } else { 0 })),
    ]
}

fn index_attributes(relation: &Relation, key: &Key) -> Vec<Fields> {
    let columns = key.columns.iter().zip(1..).filter_map(|(name, number)| {
        let column = relation.columns.iter().find(|column| column.name == *name)?;
        let kind = wire::pg_type(&column.data_type);
        Some(attribute_of(relation.index_oid(key), name, &kind, -1, false, number))
    });
    columns.collect()
}

fn defaults(relation: &Relation) -> Vec<Fields> {
    let columns = relation.columns.iter().zip(1i64..).filter_map(|(column, number)| {
        let default = column.default.as_deref()?;
        Some(vec![
            ("oid", Value::Int(relation.oid + number)),
            ("adrelid", Value::Int(relation.oid)),
            ("adnum", Value::Int(number)),
            ("adbin", text(default)),
        ])
    });
    columns.collect()
}

fn numbers(relation: &Relation, columns: &[String]) -> Value {
    Value::array(columns.iter().map(|column| Value::Int(relation.column_number(column))).collect())
}

fn constraint(relation: &Relation, key: &Key, snapshot: &Snapshot) -> Fields {
    let mut fields = vec![
        ("oid", Value::Int(relation.key_oid(key))),
        ("conname", text(&key.name)),
        ("connamespace", Value::Int(snapshot.namespace_oid(&relation.namespace))),
        (
            "contype",
            text(match key.kind {
                KeyKind::Primary => "p",
                KeyKind::Unique => "u",
                KeyKind::Foreign { .. } => "f",
                KeyKind::Check(_) => "c",
            }),
        ),
        ("condeferrable", NO),
        ("condeferred", NO),
        ("convalidated", YES),
        ("conrelid", Value::Int(relation.oid)),
        ("contypid", Value::Int(0)),
        ("conindid", Value::Int(if key.is_index() { relation.index_oid(key) } else { 0 })),
        ("conparentid", Value::Int(0)),
        ("confupdtype", text("a")),
        ("confdeltype", text("a")),
        ("confmatchtype", text("s")),
        ("conislocal", YES),
        ("coninhcount", Value::Int(0)),
        ("connoinherit", YES),
        ("conkey", numbers(relation, &key.columns)),
        ("confrelid", Value::Int(0)),
    ];
    match &key.kind {
        KeyKind::Foreign { namespace, table, columns } => {
            let other = snapshot.relations.iter().find(|other| other.namespace == *namespace && other.name == *table);
            if let Some(other) = other {
                fields.push(("confrelid", Value::Int(other.oid)));
                fields.push(("confkey", numbers(other, columns)));
                let target = other.keys.iter().find(|key| key.is_index() && key.columns == *columns);
                fields.push(("conindid", Value::Int(target.map_or(0, |key| other.index_oid(key)))));
            }
        }
        KeyKind::Check(condition) => fields.push(("conbin", text(condition))),
        _ => {}
    }
    fields
}

fn index(relation: &Relation, key: &Key) -> Fields {
    let zeros = || Value::array(key.columns.iter().map(|_| Value::Int(0)).collect());
    vec![
        ("indexrelid", Value::Int(relation.index_oid(key))),
        ("indrelid", Value::Int(relation.oid)),
        ("indnatts", Value::Int(key.columns.len() as i64)),
        ("indnkeyatts", Value::Int(key.columns.len() as i64)),
        ("indisunique", YES),
        ("indnullsnotdistinct", NO),
        ("indisprimary", Value::Bool(key.kind == KeyKind::Primary)),
        ("indisexclusion", NO),
        ("indimmediate", YES),
        ("indisclustered", NO),
        ("indisvalid", YES),
        ("indcheckxmin", NO),
        ("indisready", YES),
        ("indislive", YES),
        ("indisreplident", NO),
        ("indkey", numbers(relation, &key.columns)),
        ("indcollation", zeros()),
        ("indclass", zeros()),
        ("indoption", zeros()),
    ]
}

fn description(oid: i64, class: i64, column: i64, comment: &str) -> Fields {
    vec![
        ("objoid", Value::Int(oid)),
        ("classoid", Value::Int(class)),
        ("objsubid", Value::Int(column)),
        ("description", text(comment)),
    ]
}

fn descriptions(relation: &Relation) -> Vec<Fields> {
    let of = |number: i64, comment: &String| description(relation.oid, RELATIONS_OID, number, comment);
    let table = relation.comment.iter().map(|comment| of(0, comment));
    let columns = relation.columns.iter().zip(1..);
    let columns = columns.filter_map(|(column, number)| column.comment.as_ref().map(|comment| of(number, comment)));
    table.chain(columns).collect()
}

fn type_row(row: &types::TypeRow) -> Fields {
    const COLUMNS: [&str; 15] = [
        "typlen",
        "typbyval",
        "typtype",
        "typcategory",
        "typispreferred",
        "typdelim",
        "typelem",
        "typarray",
        "typinput",
        "typoutput",
        "typreceive",
        "typsend",
        "typcollation",
        "typalign",
        "typstorage",
    ];
    let mut fields = vec![
        ("oid", Value::Int(row.oid)),
        ("typname", text(row.name)),
        ("typnamespace", Value::Int(11)),
        ("typowner", Value::Int(OWNER)),
        ("typisdefined", YES),
        ("typrelid", Value::Int(0)),
        ("typsubscript", Value::Reg(Reg::Proc, 0)),
        ("typmodin", Value::Reg(Reg::Proc, 0)),
        ("typmodout", Value::Reg(Reg::Proc, 0)),
        ("typanalyze", Value::Reg(Reg::Proc, 0)),
        ("typnotnull", NO),
        ("typbasetype", Value::Int(0)),
        ("typtypmod", Value::Int(-1)),
        ("typndims", Value::Int(0)),
    ];
    for (column, word) in COLUMNS.into_iter().zip(&row.words) {
        let value = match column {
            "typlen" | "typelem" | "typarray" | "typcollation" => word.parse().map_or(Value::Null, Value::Int),
            "typinput" | "typoutput" | "typreceive" | "typsend" => Value::Reg(Reg::Proc, io_function_oid(word)),
            "typbyval" | "typispreferred" => Value::Bool(*word == "t"),
            _ => text(word),
        };
        fields.push((column, value));
    }
    fields
}

fn database((oid, name): &(i64, String)) -> Fields {
    vec![
        ("oid", Value::Int(*oid)),
        ("datname", text(name)),
        ("datdba", Value::Int(OWNER)),
        ("encoding", Value::Int(6)),
        ("datlocprovider", text("c")),
        ("datistemplate", NO),
        ("datallowconn", YES),
        ("datconnlimit", Value::Int(-1)),
        ("datfrozenxid", Value::Int(0)),
        ("datminmxid", Value::Int(0)),
        ("dattablespace", Value::Int(TABLESPACE_OID)),
        ("datcollate", text("C")),
        ("datctype", text("C.UTF-8")),
    ]
}

fn roles(snapshot: &Snapshot) -> Vec<Fields> {
    let role = |(account, oid): (&crate::login::Account, i64)| {
        vec![
            ("oid", Value::Int(oid)),
            ("rolname", text(&account.name)),
            ("rolsuper", Value::Bool(!account.read_only)),
            ("rolinherit", YES),
            ("rolcreaterole", NO),
            ("rolcreatedb", NO),
            ("rolcanlogin", YES),
            ("rolreplication", NO),
            ("rolconnlimit", Value::Int(-1)),
            ("rolbypassrls", NO),
        ]
    };
    snapshot.accounts.iter().zip(OWNER..).map(role).collect()
}
