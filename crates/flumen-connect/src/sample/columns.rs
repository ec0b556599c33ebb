//! Trips as Parquet: row groups are encoded on all threads and put into the file in order.

use std::io::Write;
use std::sync::Arc;

use arrow::array::TimestampMicrosecondBuilder;
use arrow::array::{ArrayRef, Float64Builder, Int32Builder, Int64Builder, LargeStringBuilder, StringBuilder};
use arrow::datatypes::{DataType, SchemaRef};
use flumen_core::Error;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use super::ordered::in_order;
use super::text::base;
use super::trips::{Cell, Model};
use super::{Failure, Trips, Watch, layout};

/// Rows in a row group, which is what one thread makes at a time. The files depend on it.
const GROUP_ROWS: u64 = 1 << 18;
/// Rows given to the encoders at a time.
const BATCH_ROWS: u64 = 8_192;

/// Writes a month of trips to `out`.
pub(super) fn write(
    trips: &Trips,
    out: &mut (impl Write + Send),
    workers: usize,
    watch: &Watch,
) -> Result<(), Failure> {
    write_groups(trips, GROUP_ROWS, out, workers, watch)
}

/// [`write`], in row groups of `group_rows`.
pub(super) fn write_groups(
    trips: &Trips,
    group_rows: u64,
    out: &mut (impl Write + Send),
    workers: usize,
    watch: &Watch,
) -> Result<(), Failure> {
    let schema = layout::schema(trips.kind, trips.month);
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let writer = ArrowWriter::try_new(out, Arc::clone(&schema), Some(properties))?;
    let (mut file, groups) = writer.into_serialized_writer()?;
    let model = Model::new(trips);
    let rows_of = |group: u64| group * group_rows..((group + 1) * group_rows).min(trips.rows);
    let make = |group| encode(&model, &schema, &groups, group, rows_of(group), watch);
    let take = |chunks: Vec<ArrowColumnChunk>| {
        let mut group = file.next_row_group()?;
        for chunk in chunks {
            chunk.append_to_row_group(&mut group)?;
        }
        group.close()?;
        Ok(())
    };
    in_order(trips.rows.div_ceil(group_rows), workers, watch, make, take)?;
    file.close()?;
    Ok(())
}

fn encode(
    model: &Model,
    schema: &SchemaRef,
    groups: &ArrowRowGroupWriterFactory,
    group: u64,
    rows: std::ops::Range<u64>,
    watch: &Watch,
) -> Result<Vec<ArrowColumnChunk>, Failure> {
    let mut writers = groups.create_column_writers(group as usize)?;
    let mut columns: Vec<Column> =
        schema.fields().iter().map(|field| Column::new(field.data_type())).collect::<Result<_, _>>()?;
    let mut cells = Vec::with_capacity(columns.len());
    let mut first = rows.start;
    while first < rows.end {
        if watch.is_cancelled() {
            return Err(Failure::Cancelled);
        }
        let last = (first + BATCH_ROWS).min(rows.end);
        for row in first..last {
            model.row(row, &mut cells);
            columns.iter_mut().zip(&cells).for_each(|(column, cell)| column.push(*cell));
        }
        for ((column, writer), field) in columns.iter_mut().zip(&mut writers).zip(schema.fields()) {
            for leaf in compute_leaves(field, &column.finish())? {
                writer.write(&leaf)?;
            }
        }
        watch.add_rows(last - first);
        first = last;
    }
    Ok(writers.into_iter().map(|writer| writer.close()).collect::<Result<_, _>>()?)
}

/// A column that grows cell by cell.
enum Column {
    Int32(Int32Builder),
    Int64(Int64Builder),
    Double(Float64Builder),
    Time(TimestampMicrosecondBuilder),
    Text(StringBuilder),
    LargeText(LargeStringBuilder),
}

impl Column {
    fn new(of: &DataType) -> Result<Self, Failure> {
        Ok(match of {
            DataType::Int32 => Column::Int32(Int32Builder::new()),
            DataType::Int64 => Column::Int64(Int64Builder::new()),
            DataType::Float64 => Column::Double(Float64Builder::new()),
            DataType::Timestamp(_, _) => Column::Time(TimestampMicrosecondBuilder::new()),
            DataType::Utf8 => Column::Text(StringBuilder::new()),
            DataType::LargeUtf8 => Column::LargeText(LargeStringBuilder::new()),
            other => return Err(Failure::Ours(Error::internal(format!("no sample column is of type {other}")))),
        })
    }

    /// Appends `cell`, or null where it is of another nature than the column.
    fn push(&mut self, cell: Cell) {
        match (self, cell) {
            (Column::Int32(column), Cell::Int(value)) => column.append_value(value as i32),
            (Column::Int32(column), _) => column.append_null(),
            (Column::Int64(column), Cell::Int(value)) => column.append_value(value),
            (Column::Int64(column), _) => column.append_null(),
            (Column::Double(column), Cell::Int(value)) => column.append_value(value as f64),
            // A division of whole numbers gives the double nearest to the decimal, as parsing its text does.
            (Column::Double(column), Cell::Hundredths(value)) => column.append_value(value as f64 / 100.0),
            (Column::Double(column), _) => column.append_null(),
            (Column::Time(column), Cell::Time(seconds)) => column.append_value(seconds * 1_000_000),
            (Column::Time(column), _) => column.append_null(),
            (Column::Text(column), cell) => column.append_option(text(cell).as_deref()),
            (Column::LargeText(column), cell) => column.append_option(text(cell).as_deref()),
        }
    }

    /// What was appended since the last call.
    fn finish(&mut self) -> ArrayRef {
        match self {
            Column::Int32(column) => Arc::new(column.finish()),
            Column::Int64(column) => Arc::new(column.finish()),
            Column::Double(column) => Arc::new(column.finish()),
            Column::Time(column) => Arc::new(column.finish()),
            Column::Text(column) => Arc::new(column.finish()),
            Column::LargeText(column) => Arc::new(column.finish()),
        }
    }
}

fn text(cell: Cell) -> Option<std::borrow::Cow<'static, str>> {
    match cell {
        Cell::Flag(true) => Some("Y".into()),
        Cell::Flag(false) => Some("N".into()),
        Cell::Base(number) => Some(String::from_utf8_lossy(&base(number)).into_owned().into()),
        _ => None,
    }
}
