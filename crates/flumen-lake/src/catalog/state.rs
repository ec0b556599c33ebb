//! What the catalog holds, as plain data. Nothing here touches a store.
//!
//! A table that nobody registered is not in here: its folder says all there is to say. An entry is made when there is more:
//! a name that is not the folder's, a description, a key, a pin.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use chrono::{DateTime, Utc};
use flumen_core::dataset::TableName;
use flumen_core::{Error, Result};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The environment that everybody is in who says nothing else.
pub const PROD: &str = "prod";

/// The whole catalog at one version.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// How many commits made it; 0 where there is no catalog yet.
    pub version: u64,
    /// Namespaces that were made, or described. Others are just folders with tables.
    pub namespaces: BTreeMap<String, Namespace>,
    /// The tables, views and external tables of `prod` about which there is something to say.
    #[serde(with = "by_name")]
    pub entries: BTreeMap<TableName, Entry>,
    /// Places that hold what was a table: dropped, or published over. Vacuum removes them in time.
    pub dropped: Vec<Dropped>,
    /// Folders of files.
    #[serde(with = "by_name")]
    pub volumes: BTreeMap<TableName, Volume>,
    /// The environments beside `prod`.
    pub environments: BTreeMap<String, Environment>,
}

/// What people say about a thing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct About {
    /// What it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Words by which it is found.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub tags: BTreeSet<String>,
    /// Who answers for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
}

impl About {
    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A namespace that was made, or described.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Namespace {
    /// What people say about it.
    #[serde(default)]
    pub about: About,
    /// When it was made.
    pub created: DateTime<Utc>,
}

/// What a name in the lake means.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// A Delta table within the lake.
    Table(TableEntry),
    /// A query.
    View(ViewEntry),
    /// Files, or a table, that somebody else keeps.
    External(ExternalEntry),
}

impl Entry {
    /// What kind of thing it is, for people.
    pub fn kind(&self) -> Kind {
        match self {
            Entry::Table(_) => Kind::Table,
            Entry::View(_) => Kind::View,
            Entry::External(_) => Kind::External,
        }
    }

    /// What it is known by, whatever it is called.
    pub fn id(&self) -> Uuid {
        match self {
            Entry::Table(table) => table.id,
            Entry::View(view) => view.id,
            Entry::External(external) => external.id,
        }
    }

    /// What people say about it.
    pub fn about(&self) -> &About {
        match self {
            Entry::Table(table) => &table.about,
            Entry::View(view) => &view.about,
            Entry::External(external) => &external.about,
        }
    }

    /// What people say about it, to be changed.
    pub fn about_mut(&mut self) -> &mut About {
        match self {
            Entry::Table(table) => &mut table.about,
            Entry::View(view) => &mut view.about,
            Entry::External(external) => &mut external.about,
        }
    }

    /// What people say about its columns.
    pub fn columns(&self) -> &BTreeMap<String, About> {
        match self {
            Entry::Table(table) => &table.columns,
            Entry::View(view) => &view.column_notes,
            Entry::External(external) => &external.column_notes,
        }
    }

    /// What people say about its columns, to be changed.
    pub fn columns_mut(&mut self) -> &mut BTreeMap<String, About> {
        match self {
            Entry::Table(table) => &mut table.columns,
            Entry::View(view) => &mut view.column_notes,
            Entry::External(external) => &mut external.column_notes,
        }
    }

    /// The table, if it is one.
    pub fn as_table(&self) -> Option<&TableEntry> {
        match self {
            Entry::Table(table) => Some(table),
            _ => None,
        }
    }
}

/// The kinds of things that a name may mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A Delta table within the lake.
    Table,
    /// A query.
    View,
    /// Files, or a table, that somebody else keeps.
    External,
}

impl Kind {
    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Table => "table",
            Kind::View => "view",
            Kind::External => "external table",
        }
    }
}

/// A table about which there is more to say than its folder does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableEntry {
    /// What it is known by, whatever it is called.
    pub id: Uuid,
    /// Its folder within the root of the lake, with slashes: never absolute, so that a lake can be copied elsewhere.
    pub location: String,
    /// The version that readers see; the latest, if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<u64>,
    /// What people say about it.
    #[serde(default)]
    pub about: About,
    /// What people say about its columns.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub columns: BTreeMap<String, About>,
    /// How old its latest load may be, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freshness_s: Option<u64>,
    /// How long what is in it is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
    /// The declared primary key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary_key: Option<Key>,
    /// Other declared keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unique: Vec<Key>,
    /// Declared references to keys of other tables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub foreign_keys: Vec<ForeignKey>,
    /// The columns by which rewritten files are sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clustering: Vec<String>,
    /// Anything else that is to be remembered.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, String>,
    /// When the entry was made.
    pub created: DateTime<Utc>,
}

impl TableEntry {
    /// An entry that says where the table is and nothing else.
    pub fn new(id: Uuid, location: impl Into<String>, created: DateTime<Utc>) -> Self {
        Self {
            id,
            location: location.into(),
            pinned: None,
            about: About::default(),
            columns: BTreeMap::new(),
            freshness_s: None,
            retention: None,
            primary_key: None,
            unique: Vec::new(),
            foreign_keys: Vec::new(),
            clustering: Vec::new(),
            properties: BTreeMap::new(),
            created,
        }
    }
}

/// How long something is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// Seconds.
    pub keep_s: u64,
    /// With a column of dates or timestamps: rows whose value there is older are deleted by maintenance. Without: the files
    /// of earlier versions are kept that long, in place of the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
}

/// A declared key. Nobody checks it on writing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// The name of the constraint.
    pub name: String,
    /// Its columns.
    pub columns: Vec<String>,
}

/// A declared reference to the key of another table. Nobody checks it on writing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForeignKey {
    /// The name of the constraint.
    pub name: String,
    /// The columns that refer.
    pub columns: Vec<String>,
    /// The table that is referred to.
    #[serde(with = "one_name")]
    pub table: TableName,
    /// Its columns.
    pub references: Vec<String>,
}

/// A column of something that is no Delta table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its Arrow type, as Arrow spells it.
    #[serde(rename = "type")]
    pub data_type: String,
    /// Whether it may be null.
    pub nullable: bool,
}

/// `schema`, as the catalog keeps it.
pub fn columns_of(schema: &Schema) -> Vec<Column> {
    let column = |field: &Arc<Field>| Column {
        name: field.name().clone(),
        data_type: field.data_type().to_string(),
        nullable: field.is_nullable(),
    };
    schema.fields().iter().map(column).collect()
}

/// The schema that [`columns_of`] was made from.
///
/// Errors: `Data` for a type that this version of Arrow does not know.
pub fn schema_of(columns: &[Column]) -> Result<SchemaRef> {
    let field = |column: &Column| {
        let data_type: DataType = column.data_type.parse().map_err(|error| {
            Error::data(format!("the catalog gives the column '{}' a type that is not known: {error}", column.name))
                .hint("a newer flumen may have written it")
        })?;
        Ok(Field::new(&column.name, data_type, column.nullable))
    };
    Ok(Arc::new(Schema::new(columns.iter().map(field).collect::<Result<Vec<_>>>()?)))
}

/// A query with a name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ViewEntry {
    /// What it is known by, whatever it is called.
    pub id: Uuid,
    /// The query.
    pub sql: String,
    /// The columns that it had when it was made.
    pub columns: Vec<Column>,
    /// What it reads.
    #[serde(with = "names")]
    pub reads: Vec<TableName>,
    /// What people say about it.
    #[serde(default)]
    pub about: About,
    /// What people say about its columns.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub column_notes: BTreeMap<String, About>,
    /// When it was made.
    pub created: DateTime<Utc>,
}

/// Files, or a table, that somebody else keeps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExternalEntry {
    /// What it is known by, whatever it is called.
    pub id: Uuid,
    /// `csv`, `json`, `parquet`, `delta`, …
    pub format: String,
    /// Where, as the user wrote it.
    pub location: String,
    /// How to read it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
    /// The columns that it is read with; what the files say, if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<Column>>,
    /// What people say about it.
    #[serde(default)]
    pub about: About,
    /// What people say about its columns.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub column_notes: BTreeMap<String, About>,
    /// When it was made.
    pub created: DateTime<Utc>,
}

/// A place that holds what was a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dropped {
    /// What it was called.
    #[serde(with = "one_name")]
    pub name: TableName,
    /// What it was.
    pub entry: Entry,
    /// In which environment.
    pub environment: String,
    /// When it went.
    pub at: DateTime<Utc>,
    /// Why: `dropped`, `published over`, …
    pub why: String,
    /// Whether its files are being removed: it cannot come back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub removing: bool,
}

/// A folder of files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// Its folder within the root of the lake.
    pub location: String,
    /// The files, by their path within it.
    #[serde(default)]
    pub files: BTreeMap<String, VolumeFile>,
    /// What people say about it.
    #[serde(default)]
    pub about: About,
    /// When it was made.
    pub created: DateTime<Utc>,
}

/// A file of a volume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeFile {
    /// The name of the object that holds it, within the volume's folder: one that is put anew is another object, so that
    /// readers of the old one are not disturbed.
    pub object: String,
    /// Its bytes.
    pub size: u64,
    /// Its checksum: `blake3:<hex digits>`.
    pub checksum: String,
    /// What is in it: `image/png`.
    pub media_type: String,
    /// What people say about it.
    #[serde(default, skip_serializing_if = "About::is_empty")]
    pub about: About,
    /// When it was put there.
    pub created: DateTime<Utc>,
}

/// A set of tables beside `prod`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Environment {
    /// When it was made.
    pub created: DateTime<Utc>,
    /// From which environment.
    pub from: String,
    /// What it consists of.
    #[serde(with = "by_name")]
    pub entries: BTreeMap<TableName, EnvEntry>,
}

impl Environment {
    /// How many tables it has of its own.
    pub fn own_tables(&self) -> usize {
        self.entries.values().filter(|entry| matches!(entry, EnvEntry::Own(_))).count()
    }
}

/// What a name means in an environment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EnvEntry {
    /// A table of `prod` as it was: the pin of its entry is set.
    Pinned(TableEntry),
    /// A table of the environment's own.
    Own(Own),
    /// A view.
    View(ViewEntry),
    /// Files, or a table, that somebody else keeps.
    External(ExternalEntry),
    /// It was there when the environment was made; publishing drops it.
    Dropped(Base),
}

/// A table of an environment's own: a copy, or a new one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Own {
    /// The table.
    pub table: TableEntry,
    /// What it is a copy of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Base>,
}

/// One version of a table, as a place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Base {
    /// Its folder within the root of the lake; empty for what is no table of the lake.
    pub location: String,
    /// The version.
    pub version: u64,
}

/// Maps from names, as lists: a name is two words, and either may have a dot.
mod by_name {
    use std::collections::BTreeMap;

    use flumen_core::dataset::TableName;
    use serde::de::{Deserialize, DeserializeOwned, Deserializer};
    use serde::ser::{Serialize, Serializer};

    #[derive(serde::Serialize, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Named<V> {
        #[serde(with = "super::one_name")]
        name: TableName,
        is: V,
    }

    pub(super) fn serialize<V: Serialize, S: Serializer>(
        map: &BTreeMap<TableName, V>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map.iter().map(|(name, is)| Named { name: name.clone(), is }))
    }

    pub(super) fn deserialize<'de, V: DeserializeOwned, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<TableName, V>, D::Error> {
        let list = Vec::<Named<V>>::deserialize(deserializer)?;
        Ok(list.into_iter().map(|named| (named.name, named.is)).collect())
    }
}

/// A name as `[namespace, table]`, checked when it is read.
pub(super) mod one_name {
    use flumen_core::dataset::TableName;
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::{Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(name: &TableName, serializer: S) -> Result<S::Ok, S::Error> {
        (&name.namespace, &name.table).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<TableName, D::Error> {
        let (namespace, table) = <(String, String)>::deserialize(deserializer)?;
        TableName::new(namespace, table).map_err(|error| D::Error::custom(error.message()))
    }
}

mod names {
    use flumen_core::dataset::TableName;
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;

    pub(super) fn serialize<S: Serializer>(names: &[TableName], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(names.iter().map(|name| (&name.namespace, &name.table)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<TableName>, D::Error> {
        let names = Vec::<(String, String)>::deserialize(deserializer)?;
        let name = |(namespace, table)| TableName::new(namespace, table);
        names.into_iter().map(name).collect::<Result<_, _>>().map_err(|error| D::Error::custom(error.message()))
    }
}
