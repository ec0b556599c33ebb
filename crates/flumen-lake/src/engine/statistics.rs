//! What the Delta log knows about each file, in DataFusion's terms: row counts, null counts, bounds; and which files they rule out.
//!
//! A bound is exact only where the log holds the very value: DataFusion answers `min` and `max` from exact ones. Text may
//! be cut short in the log, timestamps may lack their microseconds, decimals went through floating point: those bounds
//! are wide enough to leave files out by, and no more.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, UInt64Array};
use arrow::datatypes::{DataType, Field, SchemaRef, TimeUnit};
use chrono::{DateTime, NaiveDate, NaiveDateTime};
use datafusion::catalog::Session;
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::stats::Precision;
use datafusion::common::{Column, ColumnStatistics, DFSchema, Result as DataFusionResult, ScalarValue, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::utils::conjunction;
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use serde_json::Value;

use crate::lake::DataFile;

/// Digits of a decimal that a floating-point number carries without loss.
const FLOAT_DIGITS: u8 = 15;
/// The microseconds that a timestamp may have lost in the log, where milliseconds are the custom.
const LOST_MICROSECONDS: i64 = 999;

/// What is known of `file`. `schema` has the columns that are in it.
pub(super) fn of_file(file: &DataFile, schema: &SchemaRef) -> Statistics {
    let known = file.stats.clone().unwrap_or_default();
    let bound = |values: &serde_json::Map<String, Value>, field: &Field, side| match values
        .get(field.name())
        .and_then(|value| scalar(value, field.data_type(), side))
    {
        Some((value, true)) => Precision::Exact(value),
        Some((value, false)) => Precision::Inexact(value),
        None => Precision::Absent,
    };
    let column = |field: &Arc<Field>| ColumnStatistics {
        null_count: count(known.null_count.get(field.name()).and_then(Value::as_u64)),
        min_value: bound(&known.min_values, field, Side::Low),
        max_value: bound(&known.max_values, field, Side::High),
        ..ColumnStatistics::new_unknown()
    };
    Statistics {
        num_rows: count(known.num_records),
        total_byte_size: Precision::Inexact(usize::try_from(file.size).unwrap_or(usize::MAX)),
        column_statistics: schema.fields().iter().map(column).collect(),
    }
}

/// The statistics of a column that has one value in the whole file.
pub(super) fn constant(value: &ScalarValue, rows: &Precision<usize>) -> ColumnStatistics {
    let nulls = if value.is_null() { *rows } else { Precision::Exact(0) };
    let bound = if value.is_null() { Precision::Absent } else { Precision::Exact(value.clone()) };
    ColumnStatistics {
        null_count: nulls,
        min_value: bound.clone(),
        max_value: bound,
        ..ColumnStatistics::new_unknown()
    }
}

fn count(known: Option<u64>) -> Precision<usize> {
    known.and_then(|count| usize::try_from(count).ok()).map_or(Precision::Absent, Precision::Exact)
}

#[derive(Clone, Copy, PartialEq)]
enum Side {
    Low,
    High,
}

/// A bound and whether it is the very value.
fn scalar(json: &Value, data_type: &DataType, side: Side) -> Option<(ScalarValue, bool)> {
    let exact = |value: ScalarValue| Some((value, true));
    let inexact = |value: ScalarValue| Some((value, false));
    match data_type {
        DataType::Boolean => exact(ScalarValue::Boolean(Some(json.as_bool()?))),
        DataType::Int8 => exact(ScalarValue::Int8(Some(json.as_i64()?.try_into().ok()?))),
        DataType::Int16 => exact(ScalarValue::Int16(Some(json.as_i64()?.try_into().ok()?))),
        DataType::Int32 => exact(ScalarValue::Int32(Some(json.as_i64()?.try_into().ok()?))),
        DataType::Int64 => exact(ScalarValue::Int64(Some(json.as_i64()?))),
        DataType::Float32 => inexact(ScalarValue::Float32(Some(json.as_f64()? as f32))),
        DataType::Float64 => inexact(ScalarValue::Float64(Some(json.as_f64()?))),
        DataType::Utf8View => inexact(ScalarValue::Utf8View(Some(json.as_str()?.to_owned()))),
        DataType::Utf8 => inexact(ScalarValue::Utf8(Some(json.as_str()?.to_owned()))),
        DataType::Date32 => {
            let date: NaiveDate = json.as_str()?.parse().ok()?;
            let days = date.signed_duration_since(NaiveDate::default()).num_days();
            exact(ScalarValue::Date32(Some(days.try_into().ok()?)))
        }
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            let low = microseconds(json.as_str()?)?;
            let bound = if side == Side::Low { low } else { low.checked_add(LOST_MICROSECONDS)? };
            inexact(ScalarValue::TimestampMicrosecond(Some(bound), zone.clone()))
        }
        DataType::Decimal128(precision, scale) if *precision <= FLOAT_DIGITS => {
            let unscaled = json.as_f64()? * 10f64.powi(i32::from(*scale));
            let bound = if side == Side::Low { unscaled.floor() - 1.0 } else { unscaled.ceil() + 1.0 };
            inexact(ScalarValue::Decimal128(Some(bound as i128), *precision, *scale))
        }
        _ => None,
    }
}

fn microseconds(text: &str) -> Option<i64> {
    let with_zone = DateTime::parse_from_rfc3339(text).ok().map(|instant| instant.timestamp_micros());
    let plain = || {
        let formats = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"];
        let parsed = formats.iter().find_map(|format| NaiveDateTime::parse_from_str(text, format).ok());
        parsed.map(|instant| instant.and_utc().timestamp_micros())
    };
    with_zone.or_else(plain)
}

/// Those of `files`, with the columns of `schema`, that may hold rows that pass `filters`. Each has statistics.
///
/// Errors: a filter that does not fit the columns.
pub(super) fn may_pass(
    session: &dyn Session,
    files: &[PartitionedFile],
    schema: &SchemaRef,
    filters: &[Expr],
) -> DataFusionResult<Vec<PartitionedFile>> {
    let Some(filter) = conjunction(filters.iter().cloned()) else { return Ok(files.to_vec()) };
    let filter = session.create_physical_expr(filter, &DFSchema::try_from(Arc::clone(schema))?)?;
    // A filter that statistics say nothing about is no error: every file is read then.
    let Ok(predicate) = PruningPredicateBuilder::new().with_file_schema(Arc::clone(schema)).try_build(filter) else {
        return Ok(files.to_vec());
    };
    let known = files.iter().filter_map(|file| file.statistics.as_deref()).collect();
    let keep = predicate.prune(&FileStatistics { files: known, schema })?;
    Ok(files.iter().zip(keep).filter(|(_, keep)| *keep).map(|(file, _)| file.clone()).collect())
}

/// The statistics of files, for leaving files out. Inexact bounds count: they are wide enough.
struct FileStatistics<'a> {
    /// One a file, with all columns of `schema`.
    files: Vec<&'a Statistics>,
    /// The columns.
    schema: &'a SchemaRef,
}

impl FileStatistics<'_> {
    fn bounds(&self, column: &Column, pick: impl Fn(&ColumnStatistics) -> &Precision<ScalarValue>) -> Option<ArrayRef> {
        let index = self.schema.index_of(column.name()).ok()?;
        let null = ScalarValue::try_from(self.schema.field(index).data_type()).ok()?;
        let value = |file: &&Statistics| {
            let statistics = file.column_statistics.get(index);
            statistics.and_then(|column| pick(column).get_value().cloned()).unwrap_or_else(|| null.clone())
        };
        ScalarValue::iter_to_array(self.files.iter().map(value)).ok()
    }
}

impl PruningStatistics for FileStatistics<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bounds(column, |statistics| &statistics.min_value)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bounds(column, |statistics| &statistics.max_value)
    }

    fn num_containers(&self) -> usize {
        self.files.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        let index = self.schema.index_of(column.name()).ok()?;
        let count = |file: &&Statistics| match file.column_statistics.get(index)?.null_count {
            Precision::Exact(count) => u64::try_from(count).ok(),
            _ => None,
        };
        Some(Arc::new(self.files.iter().map(count).collect::<UInt64Array>()))
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        let count = |file: &&Statistics| match file.num_rows {
            Precision::Exact(count) => u64::try_from(count).ok(),
            _ => None,
        };
        Some(Arc::new(self.files.iter().map(count).collect::<UInt64Array>()))
    }

    fn contained(&self, _column: &Column, _values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::FileStats;
    use arrow::datatypes::Schema;
    use std::collections::BTreeMap;

    fn file(stats: Option<FileStats>) -> DataFile {
        DataFile {
            path: "x".into(),
            size: 10,
            modified_ms: 0,
            partition: BTreeMap::new(),
            deletion_vector: None,
            stats,
        }
    }

    fn check(data_type: DataType, low: &str, high: &str, expect: &str) {
        let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("x", data_type, true)]));
        let json =
            format!(r#"{{"numRecords":3,"minValues":{{"x":{low}}},"maxValues":{{"x":{high}}},"nullCount":{{"x":1}}}}"#);
        let statistics = of_file(&file(serde_json::from_str(&json).unwrap()), &schema);
        let column = &statistics.column_statistics[0];
        let got = format!("{} {}", column.min_value, column.max_value);
        assert_eq!(got, expect);
        assert_eq!(statistics.num_rows, Precision::Exact(3));
        assert_eq!(column.null_count, Precision::Exact(1));
    }

    #[test]
    fn bounds_are_exact_only_where_the_log_has_the_very_value() {
        check(DataType::Int64, "1", "9", "Exact(Int64(1)) Exact(Int64(9))");
        check(DataType::Utf8View, r#""a""#, r#""z""#, r#"Inexact(Utf8View("a")) Inexact(Utf8View("z"))"#);
        check(
            DataType::Timestamp(TimeUnit::Microsecond, None),
            r#""2019-01-01T00:00:00.000""#,
            r#""2019-01-01T00:00:00.001""#,
            "Inexact(TimestampMicrosecond(1546300800000000, None)) Inexact(TimestampMicrosecond(1546300800001999, None))",
        );
        check(DataType::Decimal128(5, 2), "1.25", "3", "Inexact(Decimal128(1.24,5,2)) Inexact(Decimal128(3.01,5,2))");
        check(DataType::Binary, "1", "9", "Absent Absent");
    }

    #[test]
    fn a_log_without_statistics_says_nothing() {
        let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("x", DataType::Int64, true)]));
        for stats in [None, Some(FileStats::default())] {
            let statistics = of_file(&file(stats), &schema);
            assert_eq!(statistics.num_rows, Precision::Absent);
            assert_eq!(statistics.column_statistics[0].min_value, Precision::Absent);
        }
    }
}
