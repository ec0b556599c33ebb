//! Splits rows by the values of the partition columns, which stand in the names of folders, or in a log, and not in the files.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::error::{Error, Result};

/// The values of the partition columns, by column, as Hive and Delta write them; `None` for null.
pub type Partition = Arc<[(String, Option<String>)]>;

/// Which columns divide the rows.
#[derive(Debug)]
pub struct Partitioning {
    /// Name and place of each partition column, in the table's order.
    by: Vec<(String, usize)>,
    /// The places of the others.
    kept: Vec<usize>,
}

impl Partitioning {
    /// How rows with the columns of `schema` are divided by the columns `partition_by`; and the columns that are left for
    /// the files.
    ///
    /// Errors: `Invalid` if such a column is not there, cannot divide rows, or if none is left.
    pub fn new(schema: &SchemaRef, partition_by: &[String]) -> Result<(Self, SchemaRef)> {
        let mut by = Vec::new();
        for name in partition_by {
            let wanted = name.to_lowercase();
            let Some(place) = schema.fields().iter().position(|field| field.name().to_lowercase() == wanted) else {
                let names = schema.fields().iter().map(|field| field.name().as_str());
                return Err(
                    Error::invalid(format!("there is no column '{name}' to partition by")).did_you_mean(name, names)
                );
            };
            let field = schema.field(place);
            if field.data_type().is_nested() || *field.data_type() == DataType::Binary {
                return Err(Error::invalid(format!(
                    "the column '{name}' ({}) cannot partition rows",
                    field.data_type()
                ))
                .hint("partition by a column of text, numbers, dates or truth values"));
            }
            by.push((field.name().clone(), place));
        }
        let kept: Vec<usize> =
            (0..schema.fields().len()).filter(|place| !by.iter().any(|(_, partition)| partition == place)).collect();
        if kept.is_empty() {
            return Err(Error::invalid("there is no column beside those to partition by"));
        }
        let columns = Arc::new(Schema::new(kept.iter().map(|place| schema.field(*place).clone()).collect::<Vec<_>>()));
        Ok((Self { by, kept }, columns))
    }

    /// Whether there are partitions at all.
    pub fn is_partitioned(&self) -> bool {
        !self.by.is_empty()
    }

    /// The rows of each partition, without the partition columns.
    pub fn split(&self, columns: &[ArrayRef]) -> Result<Vec<(Partition, Vec<ArrayRef>)>> {
        if self.by.is_empty() {
            return Ok(vec![(Arc::from([]), columns.to_vec())]);
        }
        let mut rows: HashMap<Vec<Option<String>>, Vec<u32>> = HashMap::new();
        let keys =
            self.by.iter().filter_map(|(_, place)| columns.get(*place)).map(Keys::new).collect::<Result<Vec<_>>>()?;
        let count = columns.first().map_or(0, |column| column.len());
        for row in 0..count {
            let key: Vec<Option<String>> = keys.iter().map(|key| key.value(row)).collect();
            rows.entry(key).or_default().push(u32::try_from(row).unwrap_or(u32::MAX));
        }
        let kept: Vec<&ArrayRef> = self.kept.iter().filter_map(|place| columns.get(*place)).collect();
        let mut parts = Vec::with_capacity(rows.len());
        let whole = rows.len() == 1;
        for (key, rows) in rows {
            let rows = UInt32Array::from(rows);
            let part =
                kept.iter().map(|column| if whole { Ok(Arc::clone(column)) } else { Ok(take(column, &rows, None)?) });
            let names = self.by.iter().map(|(name, _)| name.clone());
            parts.push((names.zip(key).collect(), part.collect::<Result<Vec<_>>>()?));
        }
        Ok(parts)
    }
}

/// What stands for null in the name of a folder.
/// Source: Hive, `hive.exec.default.partition.name`.
pub const NULL_FOLDER: &str = "__HIVE_DEFAULT_PARTITION__";

/// `column=value` as Hive, Spark and Polars spell it: what a file system or an object store might not like is written as `%20`.
/// Name and value are cut where they are longer than `most` bytes.
pub fn folder(column: &str, value: Option<&str>, most: usize) -> String {
    let escaped = |text: &str| {
        let mut escaped = String::with_capacity(text.len());
        for byte in text.bytes() {
            if escaped.len() >= most {
                break;
            }
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => escaped.push(char::from(byte)),
                _ => escaped.push_str(&format!("%{byte:02X}")),
            }
        }
        escaped
    };
    format!("{}={}", escaped(column), value.map_or_else(|| NULL_FOLDER.to_owned(), escaped))
}

/// The values of one partition column as text.
struct Keys<'a> {
    column: &'a ArrayRef,
    text: ArrayFormatter<'a>,
}

/// How dates and times are written as values of partitions.
const FORMAT: FormatOptions<'static> = FormatOptions::new()
    .with_timestamp_format(Some("%Y-%m-%d %H:%M:%S%.6f"))
    .with_timestamp_tz_format(Some("%Y-%m-%dT%H:%M:%S%.6fZ"));

impl<'a> Keys<'a> {
    fn new(column: &'a ArrayRef) -> Result<Self> {
        Ok(Self { column, text: ArrayFormatter::try_new(column.as_ref(), &FORMAT)? })
    }

    fn value(&self, row: usize) -> Option<String> {
        self.column.is_valid(row).then(|| self.text.value(row).to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Date32Array, Int32Array, RecordBatch, StringArray};

    /// The values and the number of rows of each partition.
    fn split_batch(batch: &RecordBatch, by: &[String]) -> Result<Vec<String>> {
        let (partitioning, _) = Partitioning::new(&batch.schema(), by)?;
        let parts = partitioning.split(batch.columns())?;
        let rows = |columns: &[ArrayRef]| columns.first().map_or(0, |column| column.len());
        let mut found: Vec<String> =
            parts.iter().map(|(partition, columns)| format!("{:?} {}", partition.as_ref(), rows(columns))).collect();
        found.sort();
        Ok(found)
    }

    #[test]
    fn rows_go_to_their_partition() {
        let batch = RecordBatch::try_from_iter([
            ("day", Arc::new(Date32Array::from(vec![Some(0), Some(1), None, Some(0)])) as ArrayRef),
            ("n", Arc::new(Int32Array::from(vec![1, 2, 3, 4])) as ArrayRef),
            ("s", Arc::new(StringArray::from(vec!["", "a", "b", ""])) as ArrayRef),
        ])
        .unwrap();
        let split = split_batch(&batch, &["DAY".to_owned(), "s".to_owned()]).unwrap();
        assert_eq!(
            split,
            [
                r#"[("day", None), ("s", Some("b"))] 1"#,
                r#"[("day", Some("1970-01-01")), ("s", Some(""))] 2"#,
                r#"[("day", Some("1970-01-02")), ("s", Some("a"))] 1"#,
            ]
        );
        assert!(
            split_batch(&batch, &["dya".to_owned()]).unwrap_err().remedy().is_some_and(|hint| hint.contains("day"))
        );
    }
}
