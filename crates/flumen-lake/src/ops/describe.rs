//! Describe: everything that is known of a table without reading its rows; and, if asked, what only its rows tell.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use deltalake_core::kernel::StructType;
use flumen_core::boxed;
use flumen_core::dataset::TableName;
use flumen_core::load::Drift;
use flumen_core::write::LedgerEntry;
use flumen_core::{Error, Result};
use serde::Serialize;
use serde_json::Value;

use crate::catalog::{About, Catalog, Entry, EnvEntry, ForeignKey, Key, Located, Retention, State, TableEntry};
use crate::lake::{DataFile, Snapshot, Table};
use crate::ledger;
use crate::ops::history::{Happened, history};

/// Loads that are told of.
const LOADS: usize = 10;
/// Commits among which the latest that wrote rows is looked for.
const COMMITS: usize = 100;

/// What is known of a table.
#[derive(Debug, Clone, Serialize)]
pub struct Description {
    /// Its address.
    pub table: String,
    /// Its folder within the root of the lake.
    pub location: String,
    /// The version that was looked at.
    pub version: u64,
    /// Whether that version is pinned.
    pub pinned: bool,
    /// When the latest load was committed.
    pub loaded: Option<DateTime<Utc>>,
    /// Whether the latest load is older than it may be; `None` where nothing is said about that.
    pub is_stale: Option<bool>,
    /// How old the latest load may be, in seconds.
    pub freshness_s: Option<u64>,
    /// How long what is in it is kept.
    pub retention: Option<Retention>,
    /// What people say about it.
    pub about: About,
    /// Rows, where all files tell.
    pub rows: Option<u64>,
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The columns that it is partitioned by.
    pub partition_by: Vec<String>,
    /// How many partitions it has.
    pub partitions: u64,
    /// The columns by which rewritten files are sorted.
    pub clustering: Vec<String>,
    /// The declared primary key.
    pub primary_key: Option<Key>,
    /// Other declared keys.
    pub unique: Vec<Key>,
    /// Declared references.
    pub foreign_keys: Vec<ForeignKey>,
    /// The columns.
    pub columns: Vec<ColumnDescription>,
    /// Where the rows came from: the latest loads.
    pub loads: Vec<LoadDescription>,
    /// What changed between the files and the table, the latest first.
    pub drift: Vec<Drift>,
    /// The views that read it.
    pub views: Vec<String>,
    /// The properties that Delta knows.
    pub properties: BTreeMap<String, String>,
}

/// What is known of a column.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ColumnDescription {
    /// Its name.
    pub name: String,
    /// Its type, in Delta's words.
    #[serde(rename = "type")]
    pub data_type: String,
    /// Whether it may be null.
    pub nullable: bool,
    /// What people say about it.
    pub about: About,
    /// How many values are null, where all files tell.
    pub nulls: Option<u64>,
    /// A lower bound of its values.
    pub min: Option<Value>,
    /// An upper bound of its values.
    pub max: Option<Value>,
    /// About how many different values it has, where that was counted.
    pub distinct: Option<u64>,
}

/// One load, in short.
#[derive(Debug, Clone, Serialize)]
pub struct LoadDescription {
    /// The load.
    pub load: String,
    /// When it was committed.
    pub committed: DateTime<Utc>,
    /// How.
    pub mode: String,
    /// Rows that it wrote.
    pub rows: u64,
    /// From which files (or tables), no more than a few.
    pub from: Vec<String>,
    /// Whether it was taken back.
    pub undone: bool,
}

/// Describes what `name` is in `environment`, at `version` or as its readers see it.
///
/// Errors: `NotFound` if there is no such table; `Invalid` if it is a view or an external table.
#[boxed]
pub async fn describe(
    catalog: &Catalog,
    environment: &str,
    name: &TableName,
    version: Option<u64>,
) -> Result<Description> {
    let state = catalog.read().await?;
    let (table, pin, entry) = match catalog.locate(&state, environment, name)? {
        Some(Located::Table { table, version, entry }) => (table, version, entry),
        Some(_) => return Err(Error::invalid(format!("'{name}' is not a table of the lake's own"))),
        None => return Err(no_table(name)),
    };
    let snapshot = table.snapshot_at(version.or(pin)).await?.ok_or_else(|| no_table(name))?;
    let entry = entry.unwrap_or_else(|| catalog.new_entry(table.location()));
    let loads = ledger::loads(&table, snapshot.version(), LOADS).await?;
    let loads: Vec<LedgerEntry> = loads.into_iter().map(|load| load.entry).collect();
    let loaded = loads.iter().find(|load| !load.undone && load.record.undoes.is_none()).map(|load| load.committed);
    // A table may be filled by statements rather than loads.
    let written = if entry.freshness_s.is_some() { written(&table, snapshot.version()).await? } else { None };
    let is_stale = entry.freshness_s.map(|limit| {
        loaded
            .max(written)
            .is_none_or(|at| (catalog.clock().now() - at).num_seconds() > i64::try_from(limit).unwrap_or(i64::MAX))
    });
    let files = snapshot.files()?;
    let rows = files.iter().map(|file| file.stats.as_ref()?.num_records).sum::<Option<u64>>();
    let mut partitions: Vec<&BTreeMap<String, Option<String>>> = files.iter().map(|file| &file.partition).collect();
    partitions.sort();
    partitions.dedup();
    let partition_by = snapshot.partition_by();
    Ok(Description {
        table: table.address(),
        location: table.location().to_owned(),
        version: snapshot.version(),
        pinned: version.is_none() && pin.is_some(),
        loaded,
        is_stale,
        freshness_s: entry.freshness_s,
        retention: entry.retention.clone(),
        about: entry.about.clone(),
        rows,
        files: files.len() as u64,
        bytes: files.iter().map(|file| file.size).sum(),
        partitions: if partition_by.is_empty() { 0 } else { partitions.len() as u64 },
        columns: columns(&snapshot, &entry, &files),
        partition_by,
        clustering: entry.clustering.clone(),
        primary_key: entry.primary_key.clone(),
        unique: entry.unique.clone(),
        foreign_keys: entry.foreign_keys.clone(),
        drift: loads.iter().flat_map(|load| load.record.drift.iter().cloned()).take(LOADS).collect(),
        loads: loads.iter().map(in_short).collect(),
        views: views(&state, environment, name)?,
        properties: snapshot.properties(),
    })
}

/// When rows were last written, as far as the latest commits tell.
async fn written(table: &Table, version: u64) -> Result<Option<DateTime<Utc>>> {
    let happened = history(table, COMMITS).await?;
    let writes = |of: &&Happened| {
        of.version <= version
            && of.rows_added != Some(0)
            && !matches!(of.operation.as_str(), "OPTIMIZE" | "RESTORE" | "VACUUM" | "ADD COLUMNS" | "RENAME COLUMN")
    };
    Ok(happened.iter().find(writes).and_then(|of| of.at))
}

fn no_table(name: &TableName) -> Error {
    Error::not_found(format!("there is no table 'lake.{name}'")).hint("'flumen lake list' shows those there are")
}

fn in_short(load: &LedgerEntry) -> LoadDescription {
    let record = &load.record;
    LoadDescription {
        load: record.load.to_string(),
        committed: load.committed,
        mode: if record.undoes.is_some() { "undo" } else { record.mode.name() }.to_owned(),
        rows: record.rows_written,
        from: record.files.iter().take(5).map(|file| file.identity.address.clone()).collect(),
        undone: load.undone,
    }
}

/// The views that read `name`, directly or through other views.
pub fn views(state: &State, environment: &str, name: &TableName) -> Result<Vec<String>> {
    let all: Vec<(&TableName, &[TableName])> = match state.environment(environment)? {
        None => state
            .entries
            .iter()
            .filter_map(|(view, entry)| match entry {
                Entry::View(of) => Some((view, of.reads.as_slice())),
                _ => None,
            })
            .collect(),
        Some(environment) => environment
            .entries
            .iter()
            .filter_map(|(view, entry)| match entry {
                EnvEntry::View(of) => Some((view, of.reads.as_slice())),
                _ => None,
            })
            .collect(),
    };
    let mut found = vec![name];
    let mut next = 0;
    while let Some(of) = found.get(next).copied() {
        next += 1;
        for (view, reads) in &all {
            if reads.contains(of) && !found.contains(view) {
                found.push(view);
            }
        }
    }
    let mut names: Vec<String> = found.into_iter().skip(1).map(|view| format!("lake.{view}")).collect();
    names.sort();
    Ok(names)
}

fn columns(snapshot: &Snapshot, entry: &TableEntry, files: &[DataFile]) -> Vec<ColumnDescription> {
    let rows = files.iter().map(|file| file.stats.as_ref()?.num_records).sum::<Option<u64>>();
    let described = snapshot.delta_schema();
    described
        .fields()
        .map(|field| {
            let name = field.name();
            let mut column = ColumnDescription {
                name: name.clone(),
                data_type: field.data_type().to_string(),
                nullable: field.is_nullable(),
                about: entry.columns.get(name).cloned().unwrap_or_default(),
                ..ColumnDescription::default()
            };
            if snapshot.partition_by().contains(name) {
                of_partitions(&mut column, files);
            } else if rows.is_some() {
                of_files(&mut column, files);
            }
            column.distinct = counted(entry, snapshot.version(), name);
            column
        })
        .collect()
}

/// The bounds of a column, from those of its files: known only where every file that has values tells.
fn of_files(column: &mut ColumnDescription, files: &[DataFile]) {
    let mut nulls = Some(0);
    let mut bounds = Some((None, None));
    for stats in files.iter().filter_map(|file| file.stats.as_ref()) {
        let null = stats.null_count.get(&column.name).and_then(Value::as_u64);
        nulls = nulls.zip(null).map(|(sum, null)| sum + null);
        if null.is_some() && null == stats.num_records {
            continue;
        }
        let (low, high) = (stats.min_values.get(&column.name), stats.max_values.get(&column.name));
        bounds = match (bounds, low, high) {
            (Some((min, max)), Some(low), Some(high)) => Some((lower(min, low, false), lower(max, high, true))),
            _ => None,
        };
    }
    column.nulls = nulls;
    if let Some((min, max)) = bounds {
        (column.min, column.max) = (min, max);
    }
}

fn of_partitions(column: &mut ColumnDescription, files: &[DataFile]) {
    let mut values: Vec<Value> = Vec::new();
    for file in files {
        match file.partition.get(&column.name) {
            Some(Some(text)) => {
                values.push(text.parse::<i64>().map_or_else(|_| Value::from(text.as_str()), Value::from))
            }
            _ => {
                let rows = file.stats.as_ref().and_then(|stats| stats.num_records);
                column.nulls = Some(column.nulls.unwrap_or(0) + rows.unwrap_or(0));
            }
        }
    }
    for value in &values {
        column.min = lower(column.min.take(), value, false);
        column.max = lower(column.max.take(), value, true);
    }
    column.nulls = column.nulls.or(Some(0));
}

/// The lower of two values, or the `upper`.
fn lower(known: Option<Value>, other: &Value, upper: bool) -> Option<Value> {
    let Some(known) = known else { return Some(other.clone()) };
    let order = match (&known, other) {
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => a.cmp(&b),
            _ => a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(std::cmp::Ordering::Equal),
        },
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (a, b) => a.as_str().cmp(&b.as_str()),
    };
    let replace = if upper { order.is_lt() } else { order.is_gt() };
    Some(if replace { other.clone() } else { known })
}

/// Where an entry has what was counted, and of which version.
const COUNTED_KEY: &str = "flumen.distinct";

/// Distinct values of the columns of one version, as an entry keeps them.
#[derive(serde::Serialize, serde::Deserialize)]
struct Counted {
    version: u64,
    columns: BTreeMap<String, u64>,
}

fn counted(entry: &TableEntry, version: u64, column: &str) -> Option<u64> {
    let counted: Counted = serde_json::from_str(entry.properties.get(COUNTED_KEY)?).ok()?;
    // Of an earlier version: near enough for an estimate, which the caller marks as one.
    (counted.version <= version).then(|| counted.columns.get(column).copied())?
}

/// Keeps how many distinct values the columns of `version` of `name` have, for [`describe`] to tell.
///
/// Errors: those of the catalog.
#[boxed]
pub async fn keep_distinct(
    catalog: &Catalog,
    environment: &str,
    name: &TableName,
    version: u64,
    columns: BTreeMap<String, u64>,
) -> Result<()> {
    let text = serde_json::to_string(&Counted { version, columns })
        .map_err(|error| Error::internal("counts cannot be written").caused_by(error))?;
    catalog
        .edit(environment, name, &format!("statistics of {name}"), |entry| {
            if let Entry::Table(table) = entry {
                table.properties.insert(COUNTED_KEY.to_owned(), text.clone());
            }
            Ok(())
        })
        .await
}

/// How two versions, or two tables, differ.
#[derive(Debug, Clone, Serialize)]
pub struct TableDiff {
    /// The first.
    pub left: Side,
    /// The second.
    pub right: Side,
    /// Columns that only one has, or that have other types.
    pub columns: Vec<ColumnDiff>,
    /// Files that only the first has, with their rows.
    pub only_left: FilesDiff,
    /// Files that only the second has, with their rows.
    pub only_right: FilesDiff,
    /// Of two versions of one table: the loads between them.
    pub loads: Vec<LoadDescription>,
}

/// One side of a difference.
#[derive(Debug, Clone, Serialize)]
pub struct Side {
    /// The table.
    pub table: String,
    /// The version.
    pub version: u64,
    /// Rows.
    pub rows: Option<u64>,
    /// Bytes.
    pub bytes: u64,
}

/// A column that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ColumnDiff {
    /// Its name.
    pub name: String,
    /// Its type on the left.
    pub left: Option<String>,
    /// Its type on the right.
    pub right: Option<String>,
}

/// Files that only one side has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct FilesDiff {
    /// How many.
    pub files: u64,
    /// Their rows.
    pub rows: u64,
}

/// How `right` differs from `left`.
///
/// Errors: those of the logs.
#[boxed]
pub async fn diff(left: &Snapshot, right: &Snapshot) -> Result<TableDiff> {
    let (left_files, right_files) = (left.files()?, right.files()?);
    let same = left.table().location() == right.table().location();
    let only = |files: &[DataFile], others: &[DataFile]| {
        let known: std::collections::HashSet<&str> = others.iter().map(|file| file.path.as_str()).collect();
        let mut only = FilesDiff::default();
        for file in files.iter().filter(|file| !same || !known.contains(file.path.as_str())) {
            only.files += 1;
            only.rows += file.stats.as_ref().and_then(|stats| stats.num_records).unwrap_or(0);
        }
        only
    };
    let types = |snapshot: &Snapshot| -> BTreeMap<String, String> {
        let schema = snapshot.delta_schema();
        schema.fields().map(|field| (field.name().clone(), field.data_type().to_string())).collect()
    };
    let (left_types, right_types) = (types(left), types(right));
    let names: std::collections::BTreeSet<&String> = left_types.keys().chain(right_types.keys()).collect();
    let columns = names.into_iter().filter(|name| left_types.get(*name) != right_types.get(*name)).map(|name| {
        ColumnDiff { name: name.clone(), left: left_types.get(name).cloned(), right: right_types.get(name).cloned() }
    });
    let mut loads = Vec::new();
    if same {
        let (from, to) = (left.version().min(right.version()), left.version().max(right.version()));
        let all = ledger::loads(right.table(), to, usize::MAX).await?;
        loads = all.iter().filter(|load| load.version > from).map(|load| in_short(&load.entry)).collect();
    }
    Ok(TableDiff {
        columns: columns.collect(),
        only_left: only(&left_files, &right_files),
        only_right: only(&right_files, &left_files),
        left: side(left, &left_files),
        right: side(right, &right_files),
        loads,
    })
}

fn side(snapshot: &Snapshot, files: &[DataFile]) -> Side {
    Side {
        table: snapshot.table().address(),
        version: snapshot.version(),
        rows: files.iter().map(|file| file.stats.as_ref()?.num_records).sum(),
        bytes: files.iter().map(|file| file.size).sum(),
    }
}

impl Snapshot {
    /// The columns with Delta's types.
    fn delta_schema(&self) -> std::sync::Arc<StructType> {
        self.state.schema()
    }
}

/// The table that `name` means in `environment`, at `version` or as its readers see it.
///
/// Errors: `NotFound` if there is none; `Invalid` if it is a view or an external table.
#[boxed]
pub async fn snapshot(
    catalog: &Catalog,
    environment: &str,
    name: &TableName,
    version: Option<u64>,
) -> Result<(Table, Snapshot)> {
    let state = catalog.read().await?;
    match catalog.locate(&state, environment, name)? {
        Some(Located::Table { table, version: pin, .. }) => {
            let snapshot = table.snapshot_at(version.or(pin)).await?.ok_or_else(|| no_table(name))?;
            Ok((table, snapshot))
        }
        Some(_) => Err(Error::invalid(format!("'{name}' is not a table of the lake's own"))),
        None => Err(no_table(name)),
    }
}
