//! Stats: what only reading all rows tells.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, UInt64Type};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::functions_aggregate::expr_fn::approx_distinct;
use datafusion::logical_expr::{Expr, cast};
use datafusion::prelude::SessionContext;
use flumen_core::boxed;
use flumen_core::{Error, Result};

use super::optimize::Source;
use crate::lake::Snapshot;

/// About how many different values each column has; columns with lists and the like are left out.
///
/// Errors: those of reading the files.
#[boxed]
pub async fn distinct(snapshot: &Snapshot) -> Result<BTreeMap<String, u64>> {
    let table = snapshot.table().clone();
    let schema = snapshot.schema();
    let failed = |error: datafusion::error::DataFusionError| {
        Error::data(format!("{}: its rows cannot be counted: {}", table.address(), error.strip_backtrace()))
    };
    let source = Source { table: table.clone(), schema: Arc::clone(&schema), files: snapshot.files()? };
    let rows = StreamingTable::try_new(Arc::clone(&schema), vec![Arc::new(source)]).map_err(failed)?;
    let columns: Vec<_> = schema.fields().iter().filter(|field| !field.data_type().is_nested()).collect();
    let counts = columns.iter().enumerate().map(|(place, field)| {
        let column = Expr::Column(field.name().as_str().into());
        // The sketch knows whole numbers, times and text; of others it sees the text.
        let plain = matches!(field.data_type(), DataType::Utf8 | DataType::Date32 | DataType::Timestamp(..))
            || field.data_type().is_integer();
        let column = if plain { column } else { cast(column, DataType::Utf8) };
        approx_distinct(column).alias(place.to_string())
    });
    let frame = SessionContext::new().read_table(Arc::new(rows)).map_err(failed)?;
    let batches = frame.aggregate(Vec::new(), counts.collect()).map_err(failed)?.collect().await.map_err(failed)?;
    let mut counted = BTreeMap::new();
    for batch in batches.iter().filter(|batch| batch.num_rows() > 0) {
        for (field, column) in columns.iter().zip(batch.columns()) {
            if let Some(numbers) = column.as_primitive_opt::<UInt64Type>() {
                counted.insert(field.name().clone(), numbers.value(0));
            }
        }
    }
    Ok(counted)
}
