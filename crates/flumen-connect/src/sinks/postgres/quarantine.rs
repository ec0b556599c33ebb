//! The table beside the table: rows that a load refused, with the reason.

use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;
use flumen_core::load::LoadId;
use flumen_core::write::{RefusedRows, quarantine_schema};
use flumen_core::{Result, limits};
use futures::SinkExt;
use tokio_postgres::CopyInSink;

use super::Target;
use crate::postgres::catalog::qualified;
use crate::postgres::encode::{ColumnWire, Encoder, HEADER, TRAILER};
use crate::postgres::error::explain;
use crate::postgres::types::{column_type, stored_type};
use crate::postgres::{check_name, quote, quote_all};

/// Writes `rows` as the refused rows of `load`, in place of those that were written before.
pub async fn write(target: &Target, load: &LoadId, rows: RefusedRows) -> Result<()> {
    let table = target.table.quarantine();
    check_name("quarantine table", &table.table)?;
    let failed = |error| explain(format!("postgres table {table}"), error);
    let schema = quarantine_schema();
    let mut definitions = Vec::new();
    let mut columns = Vec::new();
    for (index, field) in schema.fields().iter().enumerate() {
        let (sql, wire) = column_type(&stored_type(field.data_type())?)?;
        let null = if field.is_nullable() { "" } else { " not null" };
        definitions.push(format!("{} {sql}{null}", quote(field.name())));
        columns.push((index, ColumnWire { name: field.name().clone(), field: Arc::clone(field), wire }));
    }
    let names = quote_all(schema.fields().iter().map(|field| field.name().as_str()));
    let encoder = Encoder::new(columns);
    let name = qualified(&table);

    let mut client = target.connect(limits::RETRY_DELAY_MAX.min(target.options.patience)).await?;
    let tx = client.transaction().await.map_err(failed)?;
    let exists = tx
        .query_one("select pg_catalog.to_regclass($1) is not null", &[&name])
        .await
        .map_err(failed)?
        .get::<_, bool>(0);
    if !exists {
        let create = format!(
            "select pg_catalog.pg_advisory_xact_lock(5064665); create table if not exists {name} ({})",
            definitions.join(", ")
        );
        tx.batch_execute(&create).await.map_err(failed)?;
    }
    tx.execute(&format!("delete from {name} where \"load\" = $1"), &[&load.as_str()]).await.map_err(failed)?;
    let sink: CopyInSink<Bytes> =
        tx.copy_in(&format!("copy {name} ({names}) from stdin (format binary)")).await.map_err(failed)?;
    let mut sink = std::pin::pin!(sink);
    sink.as_mut().feed(Bytes::from_static(HEADER)).await.map_err(failed)?;
    for batch in rows {
        let mut blocks = Vec::new();
        encoder.encode(&without_nuls(&batch?)?, &mut |block| {
            blocks.push(block);
            Ok(())
        })?;
        for block in blocks {
            sink.as_mut().feed(Bytes::from(block)).await.map_err(failed)?;
        }
    }
    sink.as_mut().feed(Bytes::from_static(TRAILER)).await.map_err(failed)?;
    sink.as_mut().finish().await.map_err(failed)?;
    tx.commit().await.map_err(failed)
}

/// A row may have been refused for its NUL bytes, which text in Postgres cannot hold: they are shown as `\0`.
fn without_nuls(batch: &RecordBatch) -> Result<RecordBatch> {
    use arrow::array::{Array, ArrayRef, AsArray, StringArray};
    use arrow::datatypes::DataType;
    let shown = |column: &ArrayRef| -> ArrayRef {
        match column.data_type() {
            DataType::Utf8 if column.as_string::<i32>().values().contains(&0) => {
                let text = column.as_string::<i32>();
                let shown: StringArray = text.iter().map(|value| value.map(|text| text.replace('\0', "\\0"))).collect();
                Arc::new(shown)
            }
            _ => Arc::clone(column),
        }
    };
    Ok(RecordBatch::try_new(batch.schema(), batch.columns().iter().map(shown).collect())?)
}
