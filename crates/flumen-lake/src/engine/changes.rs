//! The table functions `history('t')`, the commits of a table, and `changes('t', from, to)`, the rows that they changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::catalog::{MemTable, TableProvider};
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::logical_expr::LogicalPlanBuilder;
use deltalake_core::kernel::Action;
use flumen_core::{Error, Result};

use super::lake_table::{Contents, LakeTable};
use crate::lake::{DataFile, Table};
use crate::ledger::{RECORD_KEY, read_commit};
use crate::types::utc_timestamp;

const CHANGE_TYPE: &str = "_change_type";
const COMMIT_VERSION: &str = "_commit_version";
const COMMIT_TIMESTAMP: &str = "_commit_timestamp";

/// The commits of `table` up to `latest`, the latest first, as far as its log reaches back.
pub(super) async fn history(table: &Table, latest: u64) -> Result<Arc<dyn TableProvider>> {
    let mut rows: Vec<Commit> = Vec::new();
    for version in (0..=latest).rev() {
        let Some(actions) = read_commit(table, version).await? else { break };
        rows.push(Commit::of(version, actions));
    }
    let text = |value: fn(&Commit) -> Option<&str>| Arc::new(rows.iter().map(value).collect::<StringArray>());
    let number = |value: fn(&Commit) -> Option<i64>| Arc::new(rows.iter().map(value).collect::<Int64Array>());
    let times: TimestampMicrosecondArray = rows.iter().map(|row| row.timestamp).collect();
    let fields = vec![
        Field::new("version", DataType::Int64, false),
        Field::new("timestamp", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
        Field::new("operation", DataType::Utf8, true),
        Field::new("parameters", DataType::Utf8, true),
        Field::new("files_added", DataType::Int64, true),
        Field::new("files_removed", DataType::Int64, true),
        Field::new("rows_added", DataType::Int64, true),
        Field::new("engine", DataType::Utf8, true),
        Field::new("load", DataType::Utf8, true),
    ];
    let schema: SchemaRef = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(
        Arc::clone(&schema),
        vec![
            number(|row| Some(row.version)),
            Arc::new(times.with_timezone("UTC")),
            text(|row| row.operation.as_deref()),
            text(|row| row.parameters.as_deref()),
            number(|row| Some(row.added)),
            number(|row| Some(row.removed)),
            number(|row| row.rows),
            text(|row| row.engine.as_deref()),
            text(|row| row.load.as_deref()),
        ],
    )?;
    let made = MemTable::try_new(schema, vec![vec![batch]]);
    Ok(Arc::new(made.map_err(|error| Error::internal("the history has two shapes").caused_by(error))?))
}

#[derive(Default)]
struct Commit {
    version: i64,
    timestamp: Option<i64>,
    operation: Option<String>,
    parameters: Option<String>,
    added: i64,
    removed: i64,
    /// Rows in the files that came, where all of them say how many they have.
    rows: Option<i64>,
    engine: Option<String>,
    load: Option<String>,
}

impl Commit {
    fn of(version: u64, actions: Vec<Action>) -> Self {
        let mut commit = Self { version: version as i64, rows: Some(0), ..Self::default() };
        for action in actions {
            match action {
                Action::Add(add) => {
                    commit.added += 1;
                    let stats: Option<serde_json::Value> =
                        add.stats.as_deref().and_then(|text| serde_json::from_str(text).ok());
                    let rows = stats.and_then(|stats| stats.get("numRecords")?.as_i64());
                    commit.rows = commit.rows.zip(rows).map(|(sum, rows)| sum + rows);
                }
                Action::Remove(_) => commit.removed += 1,
                Action::CommitInfo(info) => {
                    commit.timestamp = info.timestamp.map(|milliseconds| milliseconds * 1_000);
                    commit.operation = info.operation;
                    commit.parameters =
                        info.operation_parameters.and_then(|parameters| serde_json::to_string(&parameters).ok());
                    commit.engine = info.engine_info;
                    let load = info.info.get(RECORD_KEY).and_then(|record| record.get("load"));
                    commit.load = load.and_then(|load| load.as_str()).map(str::to_owned);
                }
                _ => {}
            }
        }
        commit
    }
}

/// The rows that the versions `from` to `to` of `table` added, changed and removed.
///
/// Errors: `Invalid` if the table did not record changes; `NotFound` for versions that are not there.
pub(super) async fn changes(table: &Table, from: u64, to: u64, latest: u64) -> Result<Arc<dyn TableProvider>> {
    if from > to {
        return Err(
            Error::invalid(format!("there are no versions from {from} to {to}")).hint("the earlier one comes first")
        );
    }
    if to > latest {
        return Err(Error::not_found(format!("{} has no version {to}", table.address()))
            .hint(format!("its latest version is {latest}")));
    }
    let first = table.snapshot_at(Some(from)).await?;
    let recorded = first.and_then(|snapshot| snapshot.property("delta.enableChangeDataFeed").map(str::to_lowercase));
    if recorded.as_deref() != Some("true") {
        return Err(Error::invalid(format!("{} did not record its changes at version {from}", table.address())).hint(
            format!("switch the change feed on: alter table {} set tblproperties ('change_feed' = 'true'); changes are recorded from then on", table.name()),
        ));
    }
    let last = table.snapshot_at(Some(to)).await?.ok_or_else(|| Error::internal("a version is gone"))?;
    let (mut whole, mut recorded) = (Vec::new(), Vec::new());
    for version in from..=to {
        let actions = read_commit(table, version).await?.ok_or_else(|| {
            Error::not_found(format!("{}: version {version} is no longer in the log", table.address()))
                .hint("ask for later versions; 'flumen lake history' lists those that are kept")
        })?;
        changed_files(version, actions, &mut whole, &mut recorded);
    }
    let schema = with_changes(&last.schema());
    let contents = |files: Vec<DataFile>, constant: &[&str]| Contents {
        table: table.clone(),
        version: Some(to),
        schema: Arc::clone(&schema),
        partition_by: last.partition_by().into_iter().chain(constant.iter().map(|name| (*name).to_owned())).collect(),
        properties: last.properties(),
        files,
    };
    let whole = LakeTable::new(contents(whole, &[CHANGE_TYPE, COMMIT_VERSION, COMMIT_TIMESTAMP]))?;
    let recorded = LakeTable::new(contents(recorded, &[COMMIT_VERSION, COMMIT_TIMESTAMP]))?;
    let failed = |error| Error::internal("the changes of a table have two shapes").caused_by(error);
    let scan = |table: LakeTable| LogicalPlanBuilder::scan("changes", provider_as_source(Arc::new(table)), None);
    let both = scan(whole).and_then(|left| left.union(scan(recorded)?.build()?)?.build()).map_err(failed)?;
    Ok(Arc::new(ViewTable::new(both, None)))
}

fn with_changes(schema: &Schema) -> SchemaRef {
    let added = [
        Field::new(CHANGE_TYPE, DataType::Utf8, true),
        Field::new(COMMIT_VERSION, DataType::Int64, true),
        Field::new(COMMIT_TIMESTAMP, utc_timestamp(), true),
    ];
    let fields = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).chain(added);
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// The files that say what `version` changed: those of its feed, or, where it has none, those that came and went.
fn changed_files(version: u64, actions: Vec<Action>, whole: &mut Vec<DataFile>, recorded: &mut Vec<DataFile>) {
    let info = actions.iter().find_map(|action| match action {
        Action::CommitInfo(info) => info.timestamp,
        _ => None,
    });
    let time = chrono::DateTime::from_timestamp_millis(info.unwrap_or_default()).unwrap_or_default();
    let constants = |kind: Option<&str>, mut partition: BTreeMap<String, Option<String>>| {
        if let Some(kind) = kind {
            partition.insert(CHANGE_TYPE.to_owned(), Some(kind.to_owned()));
        }
        partition.insert(COMMIT_VERSION.to_owned(), Some(version.to_string()));
        partition.insert(COMMIT_TIMESTAMP.to_owned(), Some(time.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()));
        partition
    };
    let file = |path: &str, size: i64, partition| DataFile {
        path: path.to_owned(),
        size: size.try_into().unwrap_or(0),
        modified_ms: 0,
        partition,
        deletion_vector: None,
        stats: None,
    };
    let feeds = |action: &Action| matches!(action, Action::Cdc(_));
    let has_feed = actions.iter().any(feeds);
    for action in actions {
        match action {
            Action::Cdc(cdc) => {
                recorded.push(file(&cdc.path, cdc.size, constants(None, cdc.partition_values.into_iter().collect())));
            }
            Action::Add(add) if !has_feed && add.data_change => {
                whole.push(file(
                    &add.path,
                    add.size,
                    constants(Some("insert"), add.partition_values.into_iter().collect()),
                ));
            }
            Action::Remove(remove) if !has_feed && remove.data_change => {
                let partition = remove.partition_values.unwrap_or_default().into_iter().collect();
                whole.push(file(&remove.path, remove.size.unwrap_or(0), constants(Some("delete"), partition)));
            }
            _ => {}
        }
    }
}
