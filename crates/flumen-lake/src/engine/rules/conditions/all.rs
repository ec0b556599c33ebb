//! The rows for which all of some conditions hold.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, NullArray, RecordBatch, RecordBatchOptions};
use arrow::buffer::{BooleanBuffer, MutableBuffer};
use arrow::compute::{FilterBuilder, prep_null_mask_filter};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::Result;
use datafusion::common::cast::as_boolean_array;
use datafusion::logical_expr::{ColumnarValue, Operator};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, CastExpr, Column, InListExpr, LikeExpr, Literal};
use datafusion::physical_expr::utils::collect_columns;

/// What it takes to copy a value that is kept, in nanoseconds.
const COPY: f64 = 1.5;
/// What it takes to find the rows that are kept, by all those before.
const FIND: f64 = 0.3;

/// All of several conditions, in this order. Where one of them is null, the answer is no: it is for filters, which keep the rows for which
/// they are told yes.
#[derive(Debug, Clone)]
pub(super) struct All {
    conditions: Vec<Arc<dyn PhysicalExpr>>,
    /// What is still to be done after each condition.
    rest: Vec<Rest>,
}

/// The conditions after one of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Rest {
    /// The columns that they need.
    columns: Vec<usize>,
    /// The schema with no other columns than these: those have no values.
    schema: SchemaRef,
    /// What they take for a row, in picoseconds.
    effort: u64,
}

impl All {
    pub fn new(conditions: Vec<Arc<dyn PhysicalExpr>>, schema: &Schema) -> Self {
        let rest = (1..=conditions.len()).map(|after| Rest::of(&conditions[after..], schema)).collect();
        Self { conditions, rest }
    }
}

impl Rest {
    fn of(conditions: &[Arc<dyn PhysicalExpr>], schema: &Schema) -> Self {
        let columns: BTreeSet<usize> =
            conditions.iter().flat_map(collect_columns).map(|column| column.index()).collect();
        let field = |(at, field): (usize, &Arc<Field>)| match columns.contains(&at) {
            true => Arc::clone(field),
            false => Arc::new(Field::new(field.name(), DataType::Null, true)),
        };
        let fields: Vec<Arc<Field>> = schema.fields().iter().enumerate().map(field).collect();
        let nanoseconds: f64 = conditions.iter().map(|condition| effort(condition, schema)).sum();
        Self {
            columns: columns.into_iter().collect(),
            schema: Arc::new(Schema::new(fields)),
            effort: (nanoseconds * 1000.0) as u64,
        }
    }

    /// Whether it is less work to copy the `kept` of `rows` than to look at all of them.
    fn pays(&self, kept: usize, rows: usize) -> bool {
        let copied = COPY * (kept * self.columns.len()) as f64 + FIND * rows as f64;
        copied < self.effort as f64 / 1000.0 * (rows - kept) as f64
    }

    /// The rows of `batch` that are in `kept`, with the columns that are needed.
    fn copied(&self, batch: &RecordBatch, kept: &BooleanBuffer, count: usize) -> Result<RecordBatch> {
        let kept = BooleanArray::new(kept.clone(), None);
        let filter = FilterBuilder::new(&kept).optimize().build();
        let nothing: ArrayRef = Arc::new(NullArray::new(count));
        let mut columns = vec![nothing; batch.num_columns()];
        for at in &self.columns {
            columns[*at] = filter.filter(batch.column(*at))?;
        }
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)
    }
}

/// What it takes to evaluate `expr` for a row: nanoseconds, roughly.
fn effort(expr: &Arc<dyn PhysicalExpr>, schema: &Schema) -> f64 {
    let below: f64 = expr.children().into_iter().map(|child| effort(child, schema)).sum();
    let width = |expr: &Arc<dyn PhysicalExpr>| expr.data_type(schema).ok().and_then(|of| of.primitive_width());
    let own = if expr.is::<Column>() || expr.is::<Literal>() {
        0.0
    } else if let Some(binary) = expr.downcast_ref::<BinaryExpr>() {
        match (binary.op(), width(binary.left())) {
            (Operator::And | Operator::Or, _) => 0.1,
            (_, Some(0..=8)) => 0.3,
            (_, Some(_)) => 1.2,
            (_, None) => 4.0,
        }
    } else if let Some(list) = expr.downcast_ref::<InListExpr>() {
        if width(list.expr()).is_some() { 2.0 } else { 6.0 }
    } else if expr.is::<CastExpr>() {
        1.0
    } else if expr.is::<LikeExpr>() {
        30.0
    } else {
        10.0
    };
    own + below
}

/// `inner`, which says something about the rows of `outer`, as something about all rows.
fn scattered(outer: &BooleanBuffer, inner: &BooleanBuffer) -> BooleanBuffer {
    let mut bytes = MutableBuffer::from_len_zeroed(outer.len().div_ceil(64) * 8);
    let words = bytes.typed_data_mut::<u64>();
    let mut next = 0;
    let inner: Vec<u64> = inner.bit_chunks().iter_padded().collect();
    for (word, mut bits) in words.iter_mut().zip(outer.bit_chunks().iter_padded()) {
        while bits != 0 {
            let lowest = bits & bits.wrapping_neg();
            if inner[next / 64] >> (next % 64) & 1 == 1 {
                *word |= lowest;
            }
            next += 1;
            bits ^= lowest;
        }
    }
    BooleanBuffer::new(bytes.into(), 0, outer.len())
}

impl PhysicalExpr for All {
    fn data_type(&self, _: &Schema) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn nullable(&self, _: &Schema) -> Result<bool> {
        Ok(false)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let mut looked_at = Cow::Borrowed(batch);
        // By which those rows were chosen, the first choice first.
        let mut choices: Vec<BooleanBuffer> = Vec::new();
        let mut kept: Option<BooleanBuffer> = None;
        for (condition, rest) in self.conditions.iter().zip(&self.rest) {
            let rows = looked_at.num_rows();
            let holds = condition.evaluate(&looked_at)?.into_array(rows)?;
            let holds = as_boolean_array(&holds)?;
            let holds = if holds.null_count() == 0 { holds.clone() } else { prep_null_mask_filter(holds) };
            let now = match kept {
                Some(kept) => &kept & holds.values(),
                None => holds.values().clone(),
            };
            let count = now.count_set_bits();
            if count == 0 {
                let none = BooleanBuffer::new_unset(batch.num_rows());
                return Ok(ColumnarValue::Array(Arc::new(BooleanArray::new(none, None))));
            }
            if rest.effort > 0 && rest.pays(count, rows) {
                looked_at = Cow::Owned(rest.copied(&looked_at, &now, count)?);
                choices.push(now);
                kept = None;
            } else {
                kept = Some(now);
            }
        }
        let all = match (kept, choices.pop()) {
            (Some(kept), Some(last)) => scattered(&last, &kept),
            (Some(only), None) | (None, Some(only)) => only,
            (None, None) => BooleanBuffer::new_set(batch.num_rows()),
        };
        let all = choices.iter().rev().fold(all, |inner, outer| scattered(outer, &inner));
        Ok(ColumnarValue::Array(Arc::new(BooleanArray::new(all, None))))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        self.conditions.iter().collect()
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        // They may be about other columns now: nothing is known about what they need.
        Ok(datafusion::physical_expr::conjunction(children))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, condition) in self.conditions.iter().enumerate() {
            f.write_str(if at == 0 { "" } else { " AND " })?;
            condition.fmt_sql(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for All {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, condition) in self.conditions.iter().enumerate() {
            write!(f, "{}{condition}", if at == 0 { "" } else { " AND " })?;
        }
        Ok(())
    }
}

impl PartialEq for All {
    fn eq(&self, other: &Self) -> bool {
        self.conditions == other.conditions
    }
}

impl Eq for All {}

impl std::hash::Hash for All {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.conditions.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Decimal128Array, Int64Array, StringViewArray};
    use datafusion::common::ScalarValue;
    use datafusion::logical_expr::Operator as Op;
    use datafusion::physical_expr::conjunction;
    use datafusion::physical_expr::expressions::{col, in_list, is_not_null, like, lit};
    use flumen_core::testkit::seeds::Random;

    use super::*;

    fn batch(random: &mut Random, rows: usize) -> RecordBatch {
        let mut numbers =
            || (0..rows).map(|_| random.below(10)).map(|n| (n != 9).then_some(n as i64)).collect::<Vec<_>>();
        let (plain, money, text) = (numbers(), numbers(), numbers());
        let money = money.into_iter().map(|n| n.map(i128::from)).collect::<Decimal128Array>();
        let text = text.into_iter().map(|n| n.map(|n| format!("a text that is long enough {n}")));
        let columns: [(&str, ArrayRef); 3] = [
            ("n", Arc::new(Int64Array::from(plain))),
            ("d", Arc::new(money.with_precision_and_scale(15, 2).unwrap())),
            ("t", Arc::new(text.collect::<StringViewArray>())),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
    }

    fn some(random: &mut Random, schema: &Schema) -> Arc<dyn PhysicalExpr> {
        let op = *random.pick(&[Op::Eq, Op::NotEq, Op::Lt, Op::LtEq, Op::Gt, Op::GtEq]);
        let number = random.below(10) as i64;
        let compared = |name: &str, value: ScalarValue| -> Arc<dyn PhysicalExpr> {
            Arc::new(BinaryExpr::new(col(name, schema).unwrap(), op, lit(value)))
        };
        let word = |number: i64| ScalarValue::Utf8View(Some(format!("a text that is long enough {number}")));
        match random.below(6) {
            0 | 1 => compared("n", ScalarValue::Int64(Some(number))),
            2 => compared("d", ScalarValue::Decimal128(Some(number.into()), 15, 2)),
            3 => in_list(col("t", schema).unwrap(), vec![lit(word(number)), lit(word(3))], &false, schema).unwrap(),
            4 => {
                let pattern = lit(ScalarValue::Utf8View(Some(format!("%long%{number}"))));
                like(false, false, col("t", schema).unwrap(), pattern, schema).unwrap()
            }
            _ => is_not_null(col("t", schema).unwrap()).unwrap(),
        }
    }

    #[test]
    fn all_conditions_together_are_those_one_after_the_other() {
        let mut random = Random::new(7);
        let mut copied = 0;
        for round in 0..2000_usize {
            let rows = [0, 1, 63, 64, 65, 300, 1000][round % 7];
            let batch = batch(&mut random, rows);
            let schema = batch.schema();
            let conditions: Vec<_> = (0..2 + round % 4).map(|_| some(&mut random, &schema)).collect();
            let all = All::new(conditions.clone(), &schema);
            copied += all.rest.iter().filter(|rest| rest.effort > 0 && rest.pays(rows / 10, rows)).count();
            let evaluated = |expr: &dyn PhysicalExpr| {
                let value = expr.evaluate(&batch).unwrap().into_array(rows).unwrap();
                let value = value.as_boolean();
                if value.null_count() == 0 { value.clone() } else { prep_null_mask_filter(value) }
            };
            let expect = evaluated(conjunction(conditions).as_ref());
            let got = evaluated(&all);
            assert_eq!(got.values(), expect.values(), "round {round}: {all}");
        }
        assert!(copied > 100, "rows were copied {copied} times");
    }

    #[test]
    fn columns_keep_their_places() {
        let batch = batch(&mut Random::new(1), 100);
        let schema = batch.schema();
        let kept = BooleanBuffer::collect_bool(100, |at| at % 10 == 3);
        let rest = Rest::of(&[is_not_null(col("t", &schema).unwrap()).unwrap()], &schema);
        let copied = rest.copied(&batch, &kept, 10).unwrap();
        assert_eq!((copied.num_rows(), rest.columns.as_slice()), (10, &[2][..]));
        assert_eq!(copied.column(2).as_string_view().value(1), batch.column(2).as_string_view().value(13));
    }
}
