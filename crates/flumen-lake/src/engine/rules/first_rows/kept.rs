//! The rows that are the first of their group so far.

use std::cmp::Ordering;
use std::sync::Arc;

use datafusion::arrow::array::UInt32Array;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use datafusion::arrow::compute::{SortOptions, interleave_record_batch, take_record_batch};
use datafusion::arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Date64Type, Field, Float32Type, Float64Type, Int8Type, Int16Type,
    Int32Type, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use datafusion::arrow::row::{RowConverter, Rows, SortField};
use datafusion::common::Result;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr_common::utils::evaluate_expressions_to_arrays;
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;

use super::wanted::Wanted;

/// Rows that are held for nothing before they are let go.
const WASTE_ROWS: usize = 1 << 19;

/// Where a row is, and by what it is compared.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// The value that sorts the row, in a form that compares as it sorts; 0 where rows are compared whole.
    value: u64,
    /// The batch; doubled, and odd where nulls come last and the value is null, or nulls first and it is not.
    batch: u32,
    row: u32,
}

impl Place {
    fn batch(self) -> usize {
        (self.batch >> 1) as usize
    }
}

/// The first rows of each group so far.
pub(super) struct Kept {
    wanted: Wanted,
    schema: SchemaRef,
    keys: SchemaRef,
    groups: Box<dyn GroupValues>,
    /// The first row of each group, where no more are wanted.
    single: Vec<Option<Place>>,
    /// The first rows of each group in order, where more are wanted.
    several: Vec<Vec<Place>>,
    batches: Vec<Held>,
    order: Order,
    rows: usize,
    held_rows: usize,
    held_bytes: usize,
    numbers: Vec<usize>,
}

/// A batch of which some rows are kept.
struct Held {
    batch: Option<RecordBatch>,
    /// The rows in a form that compares as it sorts, where that is needed.
    sortable: Option<Rows>,
    live: usize,
    bytes: usize,
}

/// How rows compare.
enum Order {
    /// All are equal.
    Any,
    /// By one column of plain values.
    Value(SortOptions),
    /// By whatever there is.
    Rows(RowConverter),
}

impl Kept {
    pub(super) fn new(schema: SchemaRef, wanted: &Wanted) -> Result<Self> {
        let field = |(index, key): (usize, &Arc<dyn PhysicalExpr>)| {
            Ok(Field::new(index.to_string(), key.data_type(&schema)?, true))
        };
        let keys = wanted.keys.iter().enumerate().map(field).collect::<Result<Vec<_>>>()?;
        let keys: SchemaRef = Arc::new(Schema::new(keys));
        let order = match wanted.order.as_slice() {
            [] => Order::Any,
            [one] if is_plain(&one.expr.data_type(&schema)?) => Order::Value(one.options),
            several => {
                let field = |of: &datafusion::physical_expr::PhysicalSortExpr| {
                    Ok(SortField::new_with_options(of.expr.data_type(&schema)?, of.options))
                };
                Order::Rows(RowConverter::new(several.iter().map(field).collect::<Result<_>>()?)?)
            }
        };
        let groups = new_group_values(Arc::clone(&keys), &GroupOrdering::None)?;
        Ok(Self {
            wanted: wanted.clone(),
            schema,
            keys,
            groups,
            single: Vec::new(),
            several: Vec::new(),
            batches: Vec::new(),
            order,
            rows: 0,
            held_rows: 0,
            held_bytes: 0,
            numbers: Vec::new(),
        })
    }

    /// Rows that are kept.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes in use.
    pub(super) fn bytes(&self) -> usize {
        let places = self.single.capacity() * size_of::<Option<Place>>()
            + self.several.capacity() * size_of::<Vec<Place>>()
            + if self.several.is_empty() { 0 } else { self.rows * size_of::<Place>() };
        self.held_bytes + places + self.groups.size()
    }

    /// Looks at the rows of `batch`.
    pub(super) fn add(&mut self, batch: RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let keys = evaluate_expressions_to_arrays(&self.wanted.keys, &batch)?;
        let mut groups = std::mem::take(&mut self.numbers);
        groups.clear();
        self.groups.intern(&keys, &mut groups)?;
        let order = evaluate_expressions_to_arrays(self.wanted.order.iter().map(|of| &of.expr), &batch)?;
        let number = u32::try_from(self.batches.len()).unwrap_or(u32::MAX) << 1;
        let (mut values, mut nulls, mut sortable) = (None, None, None);
        match &self.order {
            Order::Any => {}
            Order::Value(options) => {
                values = order.first().map(|column| sortable_values(column, *options));
                nulls =
                    order.first().and_then(|column| column.logical_nulls()).map(|nulls| (nulls, options.nulls_first));
            }
            Order::Rows(converter) => sortable = Some(converter.convert_columns(&order)?),
        }
        let nulls_first = matches!(&self.order, Order::Value(options) if options.nulls_first);
        let bytes = batch.get_array_memory_size() + sortable.as_ref().map_or(0, Rows::size);
        self.held_rows += batch.num_rows();
        self.held_bytes += bytes;
        self.batches.push(Held { batch: Some(batch), sortable, live: 0, bytes });
        for (row, group) in groups.iter().enumerate() {
            let is_null = nulls.as_ref().is_some_and(|(nulls, _)| nulls.is_null(row));
            let value = if is_null { 0 } else { values.as_ref().map_or(0, |values| values[row]) };
            let place = Place { value, batch: number | u32::from(is_null != nulls_first), row: row as u32 };
            self.offer(*group, place);
        }
        self.numbers = groups;
        if let Some(last) = self.batches.len().checked_sub(1) {
            self.let_go(last);
        }
        if self.held_rows > self.rows * 2 + WASTE_ROWS {
            self.compact()?;
        }
        Ok(())
    }

    fn offer(&mut self, group: usize, place: Place) {
        if self.wanted.rows == 1 {
            if group >= self.single.len() {
                self.single.resize(group + 1, None);
            }
            match self.single[group] {
                None => {
                    self.single[group] = Some(place);
                    self.rows += 1;
                }
                Some(first) if self.compare(place, first) == Ordering::Less => {
                    self.single[group] = Some(place);
                    self.forget(first);
                }
                Some(_) => return,
            }
        } else {
            if group >= self.several.len() {
                self.several.resize(group + 1, Vec::new());
            }
            let full = self.several[group].len() >= self.wanted.rows;
            if let Some(last) = self.several[group].last().filter(|_| full)
                && self.compare(place, *last) != Ordering::Less
            {
                return;
            }
            // Behind those that are equal: they came first.
            let at = self.several[group].partition_point(|other| self.compare(*other, place) != Ordering::Greater);
            if full && let Some(last) = self.several[group].pop() {
                self.forget(last);
            } else {
                self.rows += 1;
            }
            self.several[group].insert(at, place);
        }
        self.batches[place.batch()].live += 1;
    }

    fn compare(&self, left: Place, right: Place) -> Ordering {
        let sortable = |place: Place| self.batches.get(place.batch()).and_then(|held| held.sortable.as_ref());
        match &self.order {
            Order::Any => Ordering::Equal,
            Order::Value(_) => (left.batch & 1, left.value).cmp(&(right.batch & 1, right.value)),
            Order::Rows(_) => match (sortable(left), sortable(right)) {
                (Some(l), Some(r)) => l.row(left.row as usize).cmp(&r.row(right.row as usize)),
                _ => Ordering::Equal,
            },
        }
    }

    fn forget(&mut self, place: Place) {
        self.batches[place.batch()].live -= 1;
        // The newest batch is looked at when all its rows were.
        if place.batch() + 1 < self.batches.len() {
            self.let_go(place.batch());
        }
    }

    /// Frees a batch of which no row is kept.
    fn let_go(&mut self, batch: usize) {
        let held = &mut self.batches[batch];
        if held.live == 0
            && let Some(batch) = held.batch.take()
        {
            held.sortable = None;
            self.held_rows -= batch.num_rows();
            self.held_bytes -= std::mem::take(&mut held.bytes);
        }
    }

    fn places(&self) -> impl Iterator<Item = Place> {
        self.single.iter().flatten().copied().chain(self.several.iter().flatten().copied())
    }

    /// Copies the rows that are kept into batches of their own.
    fn compact(&mut self) -> Result<()> {
        let mut rows: Vec<Vec<u32>> = vec![Vec::new(); self.batches.len()];
        for place in self.places() {
            rows[place.batch()].push(place.row);
        }
        let mut moved: Vec<Vec<(u32, u32)>> = Vec::with_capacity(rows.len());
        for (held, mut rows) in self.batches.iter_mut().zip(rows) {
            rows.sort_unstable();
            moved.push(rows.iter().enumerate().map(|(new, old)| (*old, new as u32)).collect());
            let Some(batch) = held.batch.take() else { continue };
            self.held_rows -= batch.num_rows();
            self.held_bytes -= held.bytes;
            let taken = owned(&take_record_batch(&batch, &UInt32Array::from(rows))?)?;
            if let Order::Rows(converter) = &self.order {
                let order = evaluate_expressions_to_arrays(self.wanted.order.iter().map(|of| &of.expr), &taken)?;
                held.sortable = Some(converter.convert_columns(&order)?);
            }
            held.bytes = taken.get_array_memory_size() + held.sortable.as_ref().map_or(0, Rows::size);
            self.held_rows += taken.num_rows();
            self.held_bytes += held.bytes;
            held.batch = Some(taken);
        }
        let new_place = |place: &mut Place| {
            let rows = &moved[place.batch()];
            if let Ok(at) = rows.binary_search_by_key(&place.row, |(old, _)| *old) {
                place.row = rows[at].1;
            }
        };
        self.single.iter_mut().flatten().for_each(new_place);
        self.several.iter_mut().flatten().for_each(new_place);
        Ok(())
    }

    /// Everything that is kept, in no order; nothing is kept afterwards.
    pub(super) fn take_all(&mut self) -> Result<Vec<RecordBatch>> {
        let mut rows: Vec<Vec<u32>> = vec![Vec::new(); self.batches.len()];
        for place in self.places() {
            rows[place.batch()].push(place.row);
        }
        let mut batches = Vec::new();
        for (held, mut rows) in std::mem::take(&mut self.batches).into_iter().zip(rows.drain(..)) {
            let Some(batch) = held.batch.filter(|_| !rows.is_empty()) else { continue };
            if rows.len() == batch.num_rows() {
                batches.push(batch);
                continue;
            }
            rows.sort_unstable();
            batches.push(take_record_batch(&batch, &UInt32Array::from(rows))?);
        }
        self.groups = new_group_values(Arc::clone(&self.keys), &GroupOrdering::None)?;
        (self.single, self.several) = (Vec::new(), Vec::new());
        (self.rows, self.held_rows, self.held_bytes) = (0, 0, 0);
        // The first rows come last: they are taken from the end.
        batches.reverse();
        Ok(batches)
    }

    /// The rows in batches of `size`, with the number that each has within its group.
    pub(super) fn into_numbered(self, size: usize) -> impl Iterator<Item = Result<(RecordBatch, Vec<u64>)>> + Send {
        let Self { single, several, batches, schema, .. } = self;
        let empty = RecordBatch::new_empty(schema);
        let batches: Vec<RecordBatch> =
            batches.into_iter().map(|held| held.batch.unwrap_or_else(|| empty.clone())).collect();
        let first = single.into_iter().flatten().map(|place| (place, 1));
        let rest = several.into_iter().flat_map(|group| group.into_iter().zip(1_u64..));
        let mut rows = first.chain(rest);
        std::iter::from_fn(move || {
            let (places, numbers): (Vec<_>, Vec<_>) = rows.by_ref().take(size).unzip();
            if places.is_empty() {
                return None;
            }
            Some(gathered(&batches, &places).map(|batch| (batch, numbers)))
        })
    }
}

/// The rows at `places`.
fn gathered(batches: &[RecordBatch], places: &[Place]) -> Result<RecordBatch> {
    let mut used: Vec<usize> = places.iter().map(|place| place.batch()).collect();
    used.sort_unstable();
    used.dedup();
    let from: Vec<&RecordBatch> = used.iter().map(|batch| &batches[*batch]).collect();
    let index = |place: &Place| (used.partition_point(|batch| *batch < place.batch()), place.row as usize);
    let indices: Vec<(usize, usize)> = places.iter().map(index).collect();
    Ok(interleave_record_batch(&from, &indices)?)
}

/// `batch` without the buffers that its views of text do not need.
fn owned(batch: &RecordBatch) -> Result<RecordBatch> {
    let column = |column: &ArrayRef| -> ArrayRef {
        match column.data_type() {
            DataType::Utf8View => Arc::new(column.as_string_view().gc()),
            DataType::BinaryView => Arc::new(column.as_binary_view().gc()),
            _ => Arc::clone(column),
        }
    };
    Ok(RecordBatch::try_new(batch.schema(), batch.columns().iter().map(column).collect())?)
}

/// Whether values of `data_type` have a form of 64 bits that compares as they sort.
fn is_plain(data_type: &DataType) -> bool {
    use DataType as D;
    data_type.is_integer() || matches!(data_type, D::Float32 | D::Float64 | D::Date32 | D::Date64 | D::Timestamp(..))
}

/// The values of `column` in a form that compares as they sort. Nulls have any.
fn sortable_values(column: &ArrayRef, options: SortOptions) -> Vec<u64> {
    use DataType as D;
    const SIGN: u64 = 1 << 63;
    let signed = |value: i64| value as u64 ^ SIGN;
    // As `total_cmp` has it, which is how Arrow sorts.
    let float = |value: f64| {
        let bits = value.to_bits();
        if bits & SIGN == 0 { bits | SIGN } else { !bits }
    };
    let single = |value: f32| {
        let bits = value.to_bits();
        u64::from(if bits >> 31 == 0 { bits | 1 << 31 } else { !bits })
    };
    let mut values = match column.data_type() {
        D::Int8 => mapped::<Int8Type>(column, |value| signed(value.into())),
        D::Int16 => mapped::<Int16Type>(column, |value| signed(value.into())),
        D::Int32 => mapped::<Int32Type>(column, |value| signed(value.into())),
        D::Int64 => mapped::<Int64Type>(column, signed),
        D::UInt8 => mapped::<UInt8Type>(column, u64::from),
        D::UInt16 => mapped::<UInt16Type>(column, u64::from),
        D::UInt32 => mapped::<UInt32Type>(column, u64::from),
        D::UInt64 => mapped::<UInt64Type>(column, |value| value),
        D::Float32 => mapped::<Float32Type>(column, single),
        D::Float64 => mapped::<Float64Type>(column, float),
        D::Date32 => mapped::<Date32Type>(column, |value| signed(value.into())),
        D::Date64 => mapped::<Date64Type>(column, signed),
        D::Timestamp(TimeUnit::Second, _) => mapped::<TimestampSecondType>(column, signed),
        D::Timestamp(TimeUnit::Millisecond, _) => mapped::<TimestampMillisecondType>(column, signed),
        D::Timestamp(TimeUnit::Microsecond, _) => mapped::<TimestampMicrosecondType>(column, signed),
        D::Timestamp(TimeUnit::Nanosecond, _) => mapped::<TimestampNanosecondType>(column, signed),
        _ => vec![0; column.len()],
    };
    if options.descending {
        values.iter_mut().for_each(|value| *value = !*value);
    }
    values
}

fn mapped<T: ArrowPrimitiveType>(column: &ArrayRef, map: impl Fn(T::Native) -> u64) -> Vec<u64> {
    column.as_primitive::<T>().values().iter().map(|value| map(*value)).collect()
}
