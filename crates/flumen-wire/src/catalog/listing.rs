//! What is in the lake, as the catalog shows it. This is the one place that asks the engine about tables: what it comes to
//! know besides (keys, comments, views) is filled in here.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::datatypes::DataType;
use flumen_core::dataset::TableName;
use flumen_core::{ErrorKind, Result, limits};
use flumen_lake::catalog::{Kind, Listed, TableEntry};
use flumen_lake::engine::Engine;
use flumen_lake::engine::defaults::ColumnDefault;
use flumen_lake::engine::prepare::{FunctionInfo as EngineFunction, TableInfo};
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};

use super::tables::{self, Table};
use super::types;
use super::value::{Reg, Row};
use crate::login::Account;
use crate::pg::types::pg_type;

/// The namespace of tables that live as long as the session.
pub(super) const SESSION_NAMESPACE: &str = "pg_temp";
/// The number of the user who owns everything.
pub(super) const OWNER: i64 = 10;
/// The first number that Postgres gives to what users make.
const FIRST_OID: i64 = 16_384;

/// Forms of a function that are listed.
const FORMS: usize = 12;

/// What a relation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RelationKind {
    Table,
    View,
}

/// A table or a view.
#[derive(Debug, Clone)]
pub(crate) struct Relation {
    pub oid: i64,
    pub namespace: String,
    pub name: String,
    pub kind: RelationKind,
    /// Empty where nobody asked for them.
    pub columns: Vec<Column>,
    pub comment: Option<String>,
    /// The query of a view.
    pub definition: Option<String>,
    pub keys: Vec<Key>,
    pub rows: Option<i64>,
    pub bytes: Option<i64>,
}

/// A column.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    pub name: String,
    pub data_type: DataType,
    pub nullable: bool,
    pub comment: Option<String>,
    pub default: Option<String>,
}

/// What holds for the rows of a table, or is said to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeyKind {
    Primary,
    Unique,
    Foreign { namespace: String, table: String, columns: Vec<String> },
    Check(String),
}

/// A key, or another thing that holds for the rows.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub name: String,
    pub kind: KeyKind,
    pub columns: Vec<String>,
}

impl Relation {
    /// A table of which nothing but the name is known.
    fn named(namespace: &str, name: &str) -> Self {
        Self {
            oid: 0,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            kind: RelationKind::Table,
            columns: Vec::new(),
            comment: None,
            definition: None,
            keys: Vec::new(),
            rows: None,
            bytes: None,
        }
    }

    /// Its name with its namespace, quoted where that is needed.
    pub fn qualified(&self) -> String {
        format!("{}.{}", quoted(&self.namespace), quoted(&self.name))
    }

    /// The number of one of its keys, as a constraint.
    pub fn key_oid(&self, key: &Key) -> i64 {
        hashed(&format!("key {}.{} {}", self.namespace, self.name, key.name))
    }

    /// The number of one of its keys, as an index.
    pub fn index_oid(&self, key: &Key) -> i64 {
        hashed(&format!("index {}.{} {}", self.namespace, self.name, key.name))
    }

    /// The number of the column called `name`, from 1.
    pub fn column_number(&self, name: &str) -> i64 {
        self.columns.iter().position(|column| column.name == name).map_or(0, |place| place as i64 + 1)
    }
}

impl Key {
    /// As SQL has it.
    pub fn definition(&self) -> String {
        let list = |columns: &[String]| columns.iter().map(|column| quoted(column)).collect::<Vec<_>>().join(", ");
        let columns = list(&self.columns);
        match &self.kind {
            KeyKind::Primary => format!("PRIMARY KEY ({columns})"),
            KeyKind::Unique => format!("UNIQUE ({columns})"),
            KeyKind::Check(condition) => format!("CHECK (({condition}))"),
            KeyKind::Foreign { namespace, table, columns: others } => {
                let others = list(others);
                format!("FOREIGN KEY ({columns}) REFERENCES {}.{}({others})", quoted(namespace), quoted(table))
            }
        }
    }

    /// Its index, as SQL has it.
    pub fn index_definition(&self, relation: &Relation) -> String {
        let columns: Vec<String> = self.columns.iter().map(|column| quoted(column)).collect();
        let (name, table) = (quoted(&self.name), relation.qualified());
        format!("CREATE UNIQUE INDEX {name} ON {table} USING btree ({})", columns.join(", "))
    }

    /// Whether it has an index, as Postgres sees it.
    pub fn is_index(&self) -> bool {
        matches!(self.kind, KeyKind::Primary | KeyKind::Unique)
    }
}

/// A function of the engine.
#[derive(Debug, Clone)]
pub(crate) struct FunctionInfo {
    pub oid: i64,
    pub name: String,
    /// `f`, `a` or `w`.
    pub kind: &'static str,
    pub arguments: String,
    /// The types of its arguments, where they are told.
    pub types: Vec<i64>,
    pub result: String,
}

/// A row of a table of the catalog: its columns by name; the others are null.
pub(crate) type Given = Vec<(&'static str, super::Value)>;

/// Rows that were made, by the namespace and the name of their table.
type Kept = HashMap<(String, String), Arc<Vec<Row>>>;

/// What a query wants to know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// The columns of tables, their sizes and keys, and not only their names.
    pub columns: bool,
    /// The functions.
    pub functions: bool,
}

/// The catalog as it is at one moment.
#[derive(Default)]
pub(crate) struct Snapshot {
    pub relations: Vec<Relation>,
    pub namespaces: Vec<(i64, String)>,
    pub functions: Vec<FunctionInfo>,
    pub accounts: Vec<Account>,
    pub database: String,
    /// The environments of the lake: each is a database.
    pub databases: Vec<(i64, String)>,
    /// What is said about namespaces.
    comments: HashMap<i64, String>,
    /// Rows of the catalog's tables that come from elsewhere: sessions, settings.
    pub given: HashMap<&'static str, Vec<Given>>,
    rows: RefCell<Kept>,
}

impl Snapshot {
    /// Asks the engine.
    pub(super) async fn load(engine: &Engine, needs: Needs) -> Result<Self> {
        let tables = engine.listed().await?;
        let state = engine.catalog_state().await?;
        let system = engine.system_tables();
        let session = engine.session_tables();
        let mut names: BTreeSet<String> = tables.iter().map(|listed| listed.name.namespace.clone()).collect();
        names.extend(system.iter().map(|name| name.namespace.clone()));
        names.extend(engine.namespaces().await?);
        if !session.is_empty() {
            names.insert(SESSION_NAMESPACE.to_owned());
        }
        let external: BTreeSet<TableName> =
            tables.iter().filter(|listed| listed.kind == Kind::External).map(|listed| listed.name.clone()).collect();
        let of_lake = tables.into_iter().map(|listed| Relation {
            kind: if listed.kind == Kind::View { RelationKind::View } else { RelationKind::Table },
            ..Relation::named(&listed.name.namespace, &listed.name.table)
        });
        let mut relations: Vec<Relation> = of_lake.collect();
        relations.extend(system.iter().map(|name| Relation::named(&name.namespace, &name.table)));
        relations.extend(session.iter().map(|name| Relation::named(SESSION_NAMESPACE, name)));
        if needs.columns {
            let filled = futures::stream::iter(relations).map(|relation| fill(relation, &external, engine));
            relations = filled.buffered(limits::CATALOG_TABLES_AT_ONCE).try_collect().await?;
        }
        let mut taken = BTreeSet::new();
        for relation in &mut relations {
            relation.oid = numbered(&format!("table {}.{}", relation.namespace, relation.name), &mut taken);
        }
        let mut namespaces: Vec<(i64, String)> =
            tables::NAMESPACES.iter().map(|(oid, name)| (*oid, (*name).to_owned())).collect();
        for name in names {
            let oid = if name == "public" { 2200 } else { numbered(&format!("namespace {name}"), &mut taken) };
            namespaces.push((oid, name));
        }
        let known = |name: &str| namespaces.iter().find(|(_, known)| known == name).map(|(oid, _)| *oid);
        let mut comments = HashMap::new();
        let mut databases = vec![(tables::DATABASE_OID, crate::DATABASE.to_owned())];
        if let Some(state) = state {
            for (name, namespace) in &state.namespaces {
                comments.extend(known(name).zip(namespace.about.description.clone()));
            }
            for name in state.environments.keys() {
                databases.push((numbered(&format!("database {name}"), &mut taken), name.clone()));
            }
        }
        let functions = if needs.functions { functions(engine) } else { Vec::new() };
        Ok(Self {
            relations,
            namespaces,
            functions,
            accounts: Vec::new(),
            database: String::new(),
            databases,
            comments,
            given: HashMap::new(),
            rows: RefCell::default(),
        })
    }

    /// The rows of a table of the catalog.
    pub(super) fn rows(&self, table: &Table) -> Arc<Vec<Row>> {
        let key = (table.schema.clone(), table.name.clone());
        if let Some(rows) = self.rows.borrow().get(&key) {
            return Arc::clone(rows);
        }
        let rows = Arc::new(tables::rows(table, self));
        self.rows.borrow_mut().insert(key, Arc::clone(&rows));
        rows
    }

    /// The table or view with the number `oid`.
    pub fn relation(&self, oid: i64) -> Option<&Relation> {
        self.relations.iter().find(|relation| relation.oid == oid)
    }

    /// The key with the number `oid`.
    pub fn key(&self, oid: i64) -> Option<(&Relation, &Key)> {
        self.keys().find(|(relation, key)| relation.key_oid(key) == oid)
    }

    /// The key whose index has the number `oid`.
    pub fn index(&self, oid: i64) -> Option<(&Relation, &Key)> {
        self.keys().find(|(relation, key)| key.is_index() && relation.index_oid(key) == oid)
    }

    /// All keys.
    pub fn keys(&self) -> impl Iterator<Item = (&Relation, &Key)> {
        self.relations.iter().flat_map(|relation| relation.keys.iter().map(move |key| (relation, key)))
    }

    /// The function with the number `oid`.
    pub fn function(&self, oid: i64) -> Option<&FunctionInfo> {
        self.functions.iter().find(|function| function.oid == oid)
    }

    /// The number of a namespace; 0 if there is none.
    pub fn namespace_oid(&self, name: &str) -> i64 {
        self.namespaces.iter().find(|(_, known)| known == name).map_or(0, |(oid, _)| *oid)
    }

    /// The namespace of a table of the catalog itself.
    pub fn system_namespace(&self, oid: i64) -> Option<String> {
        tables::all().iter().find(|table| table.oid == oid).map(|table| table.schema.clone())
    }

    /// What a namespace is about, if that is said.
    pub fn namespace_comment(&self, oid: i64) -> Option<&str> {
        match oid {
            11 => Some("system catalog schema"),
            _ => self.comments.get(&oid).map(String::as_str),
        }
    }

    /// The number of a database.
    pub fn oid_of_database(&self, name: &str) -> i64 {
        let found = self.databases.iter().find(|(_, known)| known == name);
        found.map_or(tables::DATABASE_OID, |(oid, _)| *oid)
    }

    /// Whether a query finds a table by its name alone.
    pub fn is_found_bare(&self, oid: i64) -> bool {
        let Some(relation) = self.relation(oid) else { return false };
        relation.namespace == SESSION_NAMESPACE
            || self.relations.iter().filter(|other| other.name == relation.name).count() == 1
    }

    /// The number of a user.
    pub fn role_oid(&self, name: &str) -> Option<i64> {
        self.accounts.iter().position(|account| account.name == name).map(|place| OWNER + place as i64)
    }

    /// Bytes of all tables.
    pub fn bytes(&self) -> i64 {
        self.relations.iter().filter_map(|relation| relation.bytes).sum()
    }

    /// What the number `oid` names.
    pub fn name_of(&self, reg: Reg, oid: i64) -> String {
        let none = || if oid == 0 { "-".to_owned() } else { oid.to_string() };
        match reg {
            Reg::Type => types::format(oid, None),
            Reg::Namespace => {
                let found = self.namespaces.iter().find(|(known, _)| *known == oid);
                found.map_or_else(none, |(_, name)| quoted(name))
            }
            Reg::Role => {
                let place = usize::try_from(oid - OWNER).ok();
                place.and_then(|place| self.accounts.get(place)).map_or_else(none, |account| account.name.clone())
            }
            Reg::Proc => {
                let of_type = || types::io_functions().find(|name| io_function_oid(name) == oid).map(str::to_owned);
                self.function(oid).map(|function| function.name.clone()).or_else(of_type).unwrap_or_else(none)
            }
            Reg::Class => {
                if let Some(relation) = self.relation(oid) {
                    return if self.is_found_bare(oid) { quoted(&relation.name) } else { relation.qualified() };
                }
                if let Some((_, key)) = self.index(oid) {
                    return quoted(&key.name);
                }
                match tables::all().iter().find(|table| table.oid == oid) {
                    Some(table) if table.schema == "pg_catalog" => table.name.clone(),
                    Some(table) => format!("{}.{}", table.schema, table.name),
                    None => none(),
                }
            }
        }
    }

    /// The number of what is called `text`.
    pub fn oid_of(&self, reg: Reg, text: &str) -> Option<i64> {
        let pieces = crate::scan::pieces(text);
        let names: Option<Vec<String>> = pieces
            .iter()
            .filter(|piece| &text[piece.at.clone()] != ".")
            .map(|piece| crate::scan::name(text, piece))
            .collect();
        match reg {
            Reg::Type => types::oid_of(text),
            Reg::Namespace => Some(self.namespace_oid(names?.last()?)).filter(|oid| *oid != 0),
            Reg::Role => self.role_oid(names?.last()?),
            Reg::Proc => {
                let names = names?;
                let name = names.last()?;
                let of_type = || types::io_functions().find(|known| known == name).map(io_function_oid);
                let found = self.functions.iter().find(|function| function.name == *name);
                found.map(|function| function.oid).or_else(of_type)
            }
            Reg::Class => match names?.as_slice() {
                [name] => {
                    let mut found = self.relations.iter().filter(|relation| relation.name == *name);
                    let first = found.next().map(|relation| relation.oid);
                    let system = || tables::find(std::slice::from_ref(name)).map(|table| table.oid);
                    let index = || self.keys().find(|(_, key)| key.is_index() && key.name == *name);
                    first.or_else(system).or_else(|| index().map(|(relation, key)| relation.index_oid(key)))
                }
                [.., namespace, name] => {
                    let found = self.relations.iter().find(|r| r.namespace == *namespace && r.name == *name);
                    let system = || tables::find(&[namespace.clone(), name.clone()]).map(|table| table.oid);
                    found.map(|relation| relation.oid).or_else(system)
                }
                [] => None,
            },
        }
    }
}

/// What is known about a table of the lake; none if it is not there. Of one that cannot be read nothing is known: it is no
/// reason not to list the others.
///
/// Errors: the store of the lake does not answer.
pub(crate) async fn known(engine: &Engine, listed: &Listed) -> Result<Option<TableInfo>> {
    match engine.table_info(&listed.name).boxed().await {
        Err(error) if error.kind() == ErrorKind::Unavailable && listed.kind != Kind::External => Err(error),
        known => Ok(known.unwrap_or_else(|_| Some(TableInfo::default()))),
    }
}

/// Adds what the engine knows about a table.
async fn fill(mut relation: Relation, external: &BTreeSet<TableName>, engine: &Engine) -> Result<Relation> {
    let column = |field: &Arc<arrow::datatypes::Field>| Column {
        name: field.name().clone(),
        data_type: field.data_type().clone(),
        nullable: field.is_nullable(),
        comment: field.metadata().get("comment").cloned(),
        default: None,
    };
    if relation.namespace != SESSION_NAMESPACE
        && let Ok(name) = TableName::new(&relation.namespace, &relation.name)
        && let kind = if external.contains(&name) { Kind::External } else { Kind::Table }
        && let Some(known) = known(engine, &Listed { name, kind }).await?
    {
        relation.columns = known.schema.fields().iter().map(column).collect();
        for (name, default) in known.defaults {
            if let Some(column) = relation.columns.iter_mut().find(|column| column.name == name) {
                column.default = Some(default_text(&relation.name, &name, default));
            }
        }
        relation.rows = known.rows.and_then(|rows| i64::try_from(rows).ok());
        relation.bytes = i64::try_from(known.bytes).ok();
        relation.comment = known.comment;
        relation.definition = known.sql;
        relation.keys = known.entry.as_ref().map(declared).unwrap_or_default();
        for (name, condition) in known.checks {
            let columns = named_columns(&condition, &relation.columns);
            relation.keys.push(Key { name, kind: KeyKind::Check(condition), columns });
        }
        return Ok(relation);
    }
    let name = match relation.namespace.as_str() {
        SESSION_NAMESPACE => always_quoted(&relation.name),
        namespace => format!("{}.{}", always_quoted(namespace), always_quoted(&relation.name)),
    };
    // A view that no longer fits what is below it has no columns that anybody could name.
    if let Ok(schema) = engine.columns(&name).await {
        relation.columns = schema.fields().iter().map(column).collect();
    }
    Ok(relation)
}

/// A default as Postgres would write it.
fn default_text(table: &str, column: &str, default: ColumnDefault) -> String {
    match default {
        ColumnDefault::Serial => format!("nextval('{table}_{column}_seq'::regclass)"),
        ColumnDefault::Expression(text) => text,
    }
}

/// The keys that are declared for a table.
fn declared(entry: &TableEntry) -> Vec<Key> {
    let key =
        |key: &flumen_lake::catalog::Key, kind| Key { name: key.name.clone(), kind, columns: key.columns.clone() };
    let primary = entry.primary_key.iter().map(|primary| key(primary, KeyKind::Primary));
    let unique = entry.unique.iter().map(|unique| key(unique, KeyKind::Unique));
    let foreign = entry.foreign_keys.iter().map(|foreign| Key {
        name: foreign.name.clone(),
        kind: KeyKind::Foreign {
            namespace: foreign.table.namespace.clone(),
            table: foreign.table.table.clone(),
            columns: foreign.references.clone(),
        },
        columns: foreign.columns.clone(),
    });
    primary.chain(unique).chain(foreign).collect()
}

/// The columns that a condition names.
fn named_columns(condition: &str, columns: &[Column]) -> Vec<String> {
    let pieces = crate::scan::pieces(condition);
    let names: BTreeSet<String> = pieces.iter().filter_map(|piece| crate::scan::name(condition, piece)).collect();
    columns.iter().map(|column| column.name.clone()).filter(|name| names.contains(name)).collect()
}

fn functions(engine: &Engine) -> Vec<FunctionInfo> {
    let mut taken = BTreeSet::new();
    // Those that the engine has from us are told about below.
    let ours = |function: &EngineFunction| super::functions::is_ours(&function.name);
    let engine = engine.functions().into_iter().filter(|function| !ours(function));
    let mut found: Vec<FunctionInfo> = engine.flat_map(|function| in_forms(&function, &mut taken)).collect();
    for (name, kind) in super::functions::names() {
        if found.iter().all(|function| function.name != name) {
            let oid = numbered(&format!("function {name}"), &mut taken);
            let result = types::format(i64::from(kind.oid()), None);
            let (arguments, types) = (String::new(), Vec::new());
            found.push(FunctionInfo { oid, name: name.to_owned(), kind: "f", arguments, types, result });
        }
    }
    found
}

/// A function of the engine, once for each of its forms that Postgres' types tell apart.
fn in_forms(function: &EngineFunction, taken: &mut BTreeSet<i64>) -> Vec<FunctionInfo> {
    let of = |data_type: &DataType| i64::from(pg_type(data_type).oid());
    let mut found: Vec<FunctionInfo> = Vec::new();
    for form in &function.forms {
        let types: Vec<i64> = form.arguments.iter().map(of).collect();
        if found.len() == FORMS || found.iter().any(|known| known.types == types) {
            continue;
        }
        let arguments: Vec<String> = types.iter().map(|oid| types::format(*oid, None)).collect();
        let arguments = arguments.join(", ");
        found.push(FunctionInfo {
            oid: numbered(&format!("function {}({arguments})", function.name), taken),
            name: function.name.clone(),
            kind: function.kind,
            arguments,
            types,
            result: types::format(of(&form.result), None),
        });
    }
    if found.is_empty() {
        found.push(FunctionInfo {
            oid: numbered(&format!("function {}", function.name), taken),
            name: function.name.clone(),
            kind: function.kind,
            arguments: function.arguments.clone(),
            types: Vec::new(),
            result: "any".to_owned(),
        });
    }
    found
}

/// A number that stays the same for `text`, whatever else there is.
fn hashed(text: &str) -> i64 {
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    FIRST_OID + (hash % (i32::MAX as u64 - 2 * FIRST_OID as u64)) as i64
}

/// The number of a function that reads or writes the values of a type; 0 for none.
pub(super) fn io_function_oid(name: &str) -> i64 {
    if name == "-" { 0 } else { hashed(&format!("type function {name}")) }
}

/// The same, but another one for those few that would share it.
fn numbered(text: &str, taken: &mut BTreeSet<i64>) -> i64 {
    let mut oid = hashed(text);
    while !taken.insert(oid) {
        oid += 1;
    }
    oid
}

fn always_quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A name, in quotes where it needs them.
pub(crate) fn quoted(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && !super::functions::reserved(name);
    if plain { name.to_owned() } else { always_quoted(name) }
}
