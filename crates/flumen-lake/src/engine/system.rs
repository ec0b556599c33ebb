//! The tables `flumen.loads` and `flumen.drift`: what the ledgers of all lake tables say, read when a query asks; and
//! `flumen.quarantine`: the rows that loads refused.

use std::fmt;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, new_empty_array,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use chrono::{DateTime, Utc};
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::DataFusionError;
use datafusion::datasource::empty::EmptyTable;
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::LogicalPlanBuilder;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use flumen_core::dataset::LAKE;
use flumen_core::write::{LedgerEntry, quarantine_schema};
use flumen_core::{Error, ErrorKind, Result};
use futures::{StreamExt, TryStreamExt};

use super::lake_table::{Contents, LakeTable};
use super::tables::Tables;
use crate::lake::{QUARANTINE, Table};
use crate::ledger;

/// The namespace of the tables that nobody loads. A table of the lake with the same whole name comes first.
pub(super) const NAMESPACE: &str = "flumen";
/// Its tables.
pub(super) const TABLES: [&str; 3] = ["drift", "loads", QUARANTINE_TABLE];
/// The one that is not about loads but has rows: those that loads refused.
pub(super) const QUARANTINE_TABLE: &str = "quarantine";
/// Its column that says which table a row was meant for.
const DATASET: &str = "dataset";
/// Lake tables whose ledgers are read at once.
const TABLES_AT_ONCE: usize = 4;

/// The table called `name` in the namespace, if there is one.
pub(super) fn table(name: &str, tables: &Arc<Tables>) -> Result<Option<Arc<dyn TableProvider>>> {
    let kind = match name {
        "loads" => Kind::Loads,
        "drift" => Kind::Drift,
        _ => return Ok(None),
    };
    let schema = kind.schema();
    let part = Arc::new(Ledgers { kind, schema: Arc::clone(&schema), tables: Arc::clone(tables) });
    let table = StreamingTable::try_new(schema, vec![part]);
    Ok(Some(Arc::new(table.map_err(|error| Error::internal("a system table has two shapes").caused_by(error))?)))
}

/// The rows that loads into all tables of the lake refused.
///
/// Errors: those of the tables in which they are.
pub(super) async fn quarantine(tables: &Tables) -> Result<Arc<dyn TableProvider>> {
    let failed = |error| Error::internal("the tables of refused rows have two shapes").caused_by(error);
    let dataset = Field::new(DATASET, DataType::Utf8, true);
    let refused = quarantine_schema();
    let fields =
        std::iter::once(dataset).chain(refused.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)));
    let schema: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let mut union: Option<LogicalPlanBuilder> = None;
    for table in tables.delta_tables().await? {
        let Some(of) = table.name().table.strip_suffix(QUARANTINE) else { continue };
        let address = format!("{LAKE}.{}.{of}", table.name().namespace);
        let read = async { table.snapshot().await?.map(|snapshot| Contents::of(&snapshot)).transpose() };
        let Some(mut contents) = left_out(&table, read.await, tables)?.flatten() else { continue };
        for file in &mut contents.files {
            file.partition.insert(DATASET.to_owned(), Some(address.clone()));
        }
        contents.partition_by.push(DATASET.to_owned());
        contents.schema = Arc::clone(&schema);
        let scan = provider_as_source(Arc::new(LakeTable::new(contents)?));
        let scan = LogicalPlanBuilder::scan(QUARANTINE_TABLE, scan, None).map_err(failed)?;
        union = Some(match union {
            None => scan,
            Some(rest) => rest.union(scan.build().map_err(failed)?).map_err(failed)?,
        });
    }
    Ok(match union {
        None => Arc::new(EmptyTable::new(schema)),
        Some(union) => Arc::new(ViewTable::new(union.build().map_err(failed)?, None)),
    })
}

/// What was read of `table`; none, and a note, if it cannot be read.
///
/// Errors: the store does not answer.
fn left_out<T>(table: &Table, read: Result<T>, tables: &Tables) -> Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Cancelled) => Err(error),
        Err(error) => {
            tables.notes.say(format!("{} is left out, since it cannot be read: {error}", table.name()));
            Ok(None)
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Loads,
    Drift,
}

impl Kind {
    fn schema(self) -> SchemaRef {
        let time = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let columns: Vec<(&str, DataType)> = match self {
            Kind::Loads => vec![
                ("load", DataType::Utf8),
                ("committed", time()),
                ("dataset", DataType::Utf8),
                ("version", DataType::Int64),
                ("mode", DataType::Utf8),
                ("files", DataType::Int64),
                ("rows_read", DataType::Int64),
                ("rows_written", DataType::Int64),
                ("rows_quarantined", DataType::Int64),
                ("rows_skipped", DataType::Int64),
                ("bytes_read", DataType::Int64),
                ("started", time()),
                ("undone", DataType::Boolean),
                ("undoes", DataType::Utf8),
            ],
            Kind::Drift => vec![
                ("load", DataType::Utf8),
                ("committed", time()),
                ("dataset", DataType::Utf8),
                ("file", DataType::Utf8),
                ("column", DataType::Utf8),
                ("from", DataType::Utf8),
                ("to", DataType::Utf8),
                ("action", DataType::Utf8),
            ],
        };
        let field = |(name, data_type): (&str, DataType)| Field::new(name, data_type, true);
        Arc::new(Schema::new(columns.into_iter().map(field).collect::<Vec<_>>()))
    }

    fn columns(self, entries: &[LedgerEntry]) -> Vec<ArrayRef> {
        match self {
            Kind::Loads => vec![
                text(entries.iter().map(|entry| Some(entry.record.load.as_str()))),
                times(entries.iter().map(|entry| entry.committed)),
                text(entries.iter().map(|entry| Some(entry.record.dataset.as_str()))),
                Arc::new(
                    entries.iter().map(|entry| entry.version.map(|version| version as i64)).collect::<Int64Array>(),
                ),
                text(entries.iter().map(|entry| Some(entry.record.mode.name()))),
                numbers(entries.iter().map(|entry| entry.record.files.len() as u64)),
                numbers(entries.iter().map(|entry| entry.record.rows_read)),
                numbers(entries.iter().map(|entry| entry.record.rows_written)),
                numbers(entries.iter().map(|entry| entry.record.rows_quarantined)),
                numbers(entries.iter().map(|entry| entry.record.rows_skipped)),
                numbers(entries.iter().map(|entry| entry.record.bytes_read)),
                times(entries.iter().map(|entry| entry.record.started)),
                Arc::new(entries.iter().map(|entry| Some(entry.undone)).collect::<BooleanArray>()),
                text(entries.iter().map(|entry| entry.record.undoes.as_ref().map(|load| load.as_str()))),
            ],
            Kind::Drift => {
                let rows: Vec<_> = entries
                    .iter()
                    .flat_map(|entry| entry.record.drift.iter().map(move |drift| (entry, drift)))
                    .collect();
                vec![
                    text(rows.iter().map(|(entry, _)| Some(entry.record.load.as_str()))),
                    times(rows.iter().map(|(entry, _)| entry.committed)),
                    text(rows.iter().map(|(entry, _)| Some(entry.record.dataset.as_str()))),
                    text(rows.iter().map(|(_, drift)| Some(drift.file.as_str()))),
                    text(rows.iter().map(|(_, drift)| Some(drift.column.as_str()))),
                    text(rows.iter().map(|(_, drift)| drift.from.as_deref())),
                    text(rows.iter().map(|(_, drift)| drift.to.as_deref())),
                    text(rows.iter().map(|(_, drift)| Some(drift.action.as_str()))),
                ]
            }
        }
    }
}

fn text<'a>(values: impl Iterator<Item = Option<&'a str>>) -> ArrayRef {
    Arc::new(values.collect::<StringArray>())
}

fn numbers(values: impl Iterator<Item = u64>) -> ArrayRef {
    Arc::new(values.map(|value| i64::try_from(value).ok()).collect::<Int64Array>())
}

fn times(values: impl Iterator<Item = DateTime<Utc>>) -> ArrayRef {
    let values: TimestampMicrosecondArray = values.map(|time| Some(time.timestamp_micros())).collect();
    Arc::new(values.with_timezone("UTC"))
}

/// The ledgers of all tables, one table after the other.
struct Ledgers {
    kind: Kind,
    schema: SchemaRef,
    tables: Arc<Tables>,
}

impl fmt::Debug for Ledgers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ledgers({:?})", self.kind)
    }
}

impl PartitionStream for Ledgers {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (kind, schema, tables) = (self.kind, Arc::clone(&self.schema), Arc::clone(&self.tables));
        let listed = Arc::clone(&tables);
        let listing = {
            async move {
                Ok::<_, Error>(futures::stream::iter(listed.delta_tables().await?.into_iter().map(Ok::<_, Error>)))
            }
        };
        let batches = futures::stream::once(listing)
            .try_flatten()
            .map_ok(move |table| {
                let (schema, tables) = (Arc::clone(&schema), Arc::clone(&tables));
                async move {
                    let read = async {
                        let Some(snapshot) = table.snapshot().await? else { return Ok(Vec::new()) };
                        ledger::loads(&table, snapshot.version(), usize::MAX).await
                    };
                    let commits = left_out(&table, read.await, &tables)?.unwrap_or_default();
                    let entries: Vec<LedgerEntry> = commits.into_iter().map(|commit| commit.entry).collect();
                    let columns = if entries.is_empty() {
                        schema.fields().iter().map(|field| new_empty_array(field.data_type())).collect()
                    } else {
                        kind.columns(&entries)
                    };
                    Ok::<_, Error>(RecordBatch::try_new(schema, columns)?)
                }
            })
            .try_buffered(TABLES_AT_ONCE)
            .map_err(|error| DataFusionError::External(Box::new(error)));
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches.boxed()))
    }
}
