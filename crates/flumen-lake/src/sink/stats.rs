//! Statistics of a Parquet file as Delta writes them: from its footer, without reading a row.

use std::fmt::Write;

use arrow::datatypes::{DataType, Schema, TimeUnit};
use chrono::{DateTime, NaiveDate};
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::statistics::Statistics;
use serde_json::Value;

/// How many columns, from the first, have statistics; Delta's own default.
const INDEXED_COLUMNS: usize = 32;

/// Delta's statistics (JSON) of a file with `row_groups`, whose columns are those of `schema`.
///
/// Only columns that are not nested have them. A bound that is not known of every row group is left out.
pub(crate) fn delta_stats(schema: &Schema, row_groups: &[RowGroupMetaData]) -> String {
    let rows: i64 = row_groups.iter().map(RowGroupMetaData::num_rows).sum();
    let (mut min, mut max, mut nulls) = (Object::default(), Object::default(), Object::default());
    for field in schema.fields().iter().take(INDEXED_COLUMNS).filter(|field| !field.data_type().is_nested()) {
        let Some(bounds) = Bounds::of(field.name(), field.data_type(), row_groups) else { continue };
        if let Some((low, high)) = bounds.range {
            min.insert(field.name(), &low.json(field.data_type(), false));
            max.insert(field.name(), &high.json(field.data_type(), true));
        }
        if let Some(count) = bounds.nulls {
            nulls.insert(field.name(), &Some(count.to_string()));
        }
    }
    let (min, max, nulls) = (min.end(), max.end(), nulls.end());
    format!(r#"{{"numRecords":{rows},"minValues":{min},"maxValues":{max},"nullCount":{nulls}}}"#)
}

/// A JSON object in the making. Values are text already: a decimal keeps all its digits.
#[derive(Default)]
struct Object(String);

impl Object {
    fn insert(&mut self, name: &str, value: &Option<String>) {
        if let Some(value) = value {
            self.0.push(if self.0.is_empty() { '{' } else { ',' });
            let _ = write!(self.0, "{}:{value}", Value::from(name));
        }
    }

    fn end(mut self) -> String {
        if self.0.is_empty() {
            self.0.push('{');
        }
        self.0.push('}');
        self.0
    }
}

#[derive(Debug, Clone, PartialEq, PartialOrd)]
enum Bound {
    Boolean(bool),
    Integer(i128),
    Float(f64),
    Text(Vec<u8>),
}

impl Bound {
    fn json(&self, data_type: &DataType, upper: bool) -> Option<String> {
        let number = match self {
            Bound::Integer(number) => *number,
            Bound::Boolean(value) => return Some(value.to_string()),
            Bound::Float(value) => return value.is_finite().then(|| Value::from(*value).to_string()),
            Bound::Text(bytes) => return text_bound(bytes, upper).map(|text| Value::from(text).to_string()),
        };
        let small = i64::try_from(number).ok();
        match data_type {
            DataType::Date32 => {
                let days = NaiveDate::from_epoch_days(small?.try_into().ok()?)?;
                Some(format!("\"{}\"", days.format("%Y-%m-%d")))
            }
            DataType::Timestamp(unit, zone) => {
                let micros = match unit {
                    TimeUnit::Second => small?.checked_mul(1_000_000)?,
                    TimeUnit::Millisecond => small?.checked_mul(1_000)?,
                    TimeUnit::Microsecond => small?,
                    TimeUnit::Nanosecond => small?.div_euclid(1_000),
                };
                // A upper bound that was cut to microseconds has to be above what was cut off.
                let micros = if upper && *unit == TimeUnit::Nanosecond { micros + 1 } else { micros };
                let at = DateTime::from_timestamp_micros(micros)?.naive_utc();
                Some(format!("\"{}{}\"", at.format("%Y-%m-%dT%H:%M:%S%.6f"), if zone.is_some() { "Z" } else { "" }))
            }
            DataType::Decimal128(_, scale) => Some(decimal(number, *scale)),
            _ => Some(number.to_string()),
        }
    }
}

/// `text`, cut by the Parquet writer at a bound that may not be UTF-8 any more.
fn text_bound(bytes: &[u8], upper: bool) -> Option<String> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Some(text.to_owned()),
        // A prefix is a lower bound, but not an upper one.
        Err(error) if !upper => std::str::from_utf8(bytes.get(..error.valid_up_to())?).ok().map(str::to_owned),
        Err(_) => None,
    }
}

fn decimal(number: i128, scale: i8) -> String {
    let places = usize::try_from(scale).unwrap_or(0);
    if places == 0 {
        return number.to_string();
    }
    let digits = format!("{:0>width$}", number.unsigned_abs(), width = places + 1);
    let (whole, fraction) = digits.split_at(digits.len() - places);
    format!("{}{whole}.{fraction}", if number < 0 { "-" } else { "" })
}

struct Bounds {
    range: Option<(Bound, Bound)>,
    nulls: Option<u64>,
}

impl Bounds {
    /// The bounds of the column `name` over all row groups; `None` if the files have no such column.
    fn of(name: &str, data_type: &DataType, row_groups: &[RowGroupMetaData]) -> Option<Self> {
        let column = row_groups.first()?.columns().iter().position(|column| {
            column.column_descr().path().parts().len() == 1 && column.column_descr().name() == name
        })?;
        let (mut range, mut nulls, mut known): (Option<(Bound, Bound)>, _, _) = (None, Some(0), true);
        for group in row_groups {
            let statistics = group.columns().get(column).and_then(|column| column.statistics());
            let null_count = statistics.and_then(Statistics::null_count_opt);
            nulls = nulls.zip(null_count).map(|(sum, count)| sum + count);
            if null_count == u64::try_from(group.num_rows()).ok() {
                continue;
            }
            match (statistics.and_then(|statistics| bounds(statistics, data_type)), range.take()) {
                (None, _) => known = false,
                (Some(bounds), None) => range = Some(bounds),
                (Some((low, high)), Some((lowest, highest))) => {
                    range =
                        Some((if low < lowest { low } else { lowest }, if high > highest { high } else { highest }));
                }
            }
        }
        Some(Self { range: range.filter(|_| known), nulls })
    }
}

fn bounds(statistics: &Statistics, data_type: &DataType) -> Option<(Bound, Bound)> {
    use Bound as B;
    // Writers of old compared bytes as if they were signed.
    let bytes = matches!(statistics, Statistics::ByteArray(_) | Statistics::FixedLenByteArray(_));
    if bytes && statistics.is_min_max_deprecated() {
        return None;
    }
    Some(match statistics {
        Statistics::Boolean(of) => (B::Boolean(*of.min_opt()?), B::Boolean(*of.max_opt()?)),
        Statistics::Int32(of) => (B::Integer((*of.min_opt()?).into()), B::Integer((*of.max_opt()?).into())),
        Statistics::Int64(of) => (B::Integer((*of.min_opt()?).into()), B::Integer((*of.max_opt()?).into())),
        Statistics::Float(of) => (B::Float((*of.min_opt()?).into()), B::Float((*of.max_opt()?).into())),
        Statistics::Double(of) => (B::Float(*of.min_opt()?), B::Float(*of.max_opt()?)),
        Statistics::ByteArray(_) if matches!(data_type, DataType::Utf8) => {
            (B::Text(statistics.min_bytes_opt()?.to_vec()), B::Text(statistics.max_bytes_opt()?.to_vec()))
        }
        Statistics::FixedLenByteArray(_) if matches!(data_type, DataType::Decimal128(..)) => {
            (B::Integer(big_endian(statistics.min_bytes_opt()?)?), B::Integer(big_endian(statistics.max_bytes_opt()?)?))
        }
        _ => return None,
    })
}

/// A signed number of up to 16 bytes.
fn big_endian(bytes: &[u8]) -> Option<i128> {
    let sign = if bytes.first()? & 0x80 == 0 { 0 } else { 0xff };
    let mut wide = [sign; 16];
    wide.get_mut(16_usize.checked_sub(bytes.len())?..)?.copy_from_slice(bytes);
    Some(i128::from_be_bytes(wide))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_keep_their_digits() {
        assert_eq!(decimal(-5, 2), "-0.05");
        assert_eq!(decimal(12_345, 2), "123.45");
        assert_eq!(decimal(7, 0), "7");
        assert_eq!(big_endian(&[0xff, 0xfe]), Some(-2));
    }

    #[test]
    fn a_cut_text_bounds_from_below_only() {
        assert_eq!(text_bound("aé".as_bytes().get(..2).unwrap(), false).as_deref(), Some("a"));
        assert_eq!(text_bound("aé".as_bytes().get(..2).unwrap(), true), None);
    }
}
