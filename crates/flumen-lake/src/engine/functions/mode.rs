//! `mode(x)`: the value that comes most often; of several, the least. Nulls do not count.

use std::collections::HashMap;
use std::mem::size_of;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, ListArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use datafusion::common::{DataFusionError, Result as DataFusionResult, ScalarValue};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};
use datafusion::sql::sqlparser::ast::{Function, FunctionArguments};
use flumen_core::{Error, Result};

use super::set_arguments;

/// The function.
pub(super) fn function() -> AggregateUDF {
    AggregateUDF::new_from_impl(Mode { signature: Signature::any(1, Volatility::Immutable) })
}

/// `mode() WITHIN GROUP (ORDER BY x)`, as Postgres has it, is `mode(x)`.
pub(super) fn spell(name: &str, call: &mut Function) -> Result<()> {
    if name != "mode" {
        return Ok(());
    }
    let empty = matches!(&call.args, FunctionArguments::List(list) if list.args.is_empty());
    match (std::mem::take(&mut call.within_group).as_slice(), empty) {
        ([], false) => Ok(()),
        ([by], true) => {
            set_arguments(call, vec![by.expr.clone()]);
            Ok(())
        }
        _ => Err(Error::invalid("mode is about one value").hint("write mode(x), or mode() within group (order by x)")),
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Mode {
    signature: Signature,
}

impl AggregateUDFImpl for Mode {
    fn name(&self) -> &str {
        "mode"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> DataFusionResult<DataType> {
        match types {
            [only] => Ok(only.clone()),
            _ => Err(DataFusionError::Internal("mode has one argument".to_owned())),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs) -> DataFusionResult<Vec<FieldRef>> {
        let list = |what: &str, of: DataType| {
            let item = Arc::new(Field::new_list_field(of, true));
            Arc::new(Field::new(format_state_name(args.name, what), DataType::List(item), true))
        };
        Ok(vec![list("values", args.return_field.data_type().clone()), list("counts", DataType::Int64)])
    }

    fn accumulator(&self, args: AccumulatorArgs) -> DataFusionResult<Box<dyn Accumulator>> {
        let data_type = args.return_field.data_type().clone();
        Ok(Box::new(Counts { distinct: args.is_distinct, data_type, counts: HashMap::new(), bytes: 0 }))
    }
}

/// How often each value came.
#[derive(Debug)]
struct Counts {
    distinct: bool,
    data_type: DataType,
    counts: HashMap<ScalarValue, i64>,
    /// What the values take.
    bytes: usize,
}

impl Counts {
    fn add(&mut self, value: ScalarValue, times: i64) {
        if value.is_null() {
            return;
        }
        let size = value.size() + size_of::<i64>();
        let count = self.counts.entry(value).or_insert_with(|| {
            self.bytes += size;
            0
        });
        *count = if self.distinct { 1 } else { *count + times };
    }
}

impl Accumulator for Counts {
    fn update_batch(&mut self, values: &[ArrayRef]) -> DataFusionResult<()> {
        let Some(values) = values.first() else { return Ok(()) };
        for row in 0..values.len() {
            // A copy of its own, not a part of the whole batch.
            self.add(ScalarValue::try_from_array(values, row)?.compacted(), 1);
        }
        Ok(())
    }

    fn evaluate(&mut self) -> DataFusionResult<ScalarValue> {
        let mut best: Option<(&ScalarValue, i64)> = None;
        for (value, count) in &self.counts {
            let better = best.is_none_or(|(of_best, most)| {
                *count > most || *count == most && value.partial_cmp(of_best).is_some_and(|order| order.is_lt())
            });
            if better {
                best = Some((value, *count));
            }
        }
        match best {
            Some((value, _)) => Ok(value.clone()),
            None => ScalarValue::try_from(&self.data_type),
        }
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.bytes + self.counts.capacity() * size_of::<(ScalarValue, i64)>()
    }

    fn state(&mut self) -> DataFusionResult<Vec<ScalarValue>> {
        let (values, counts): (Vec<ScalarValue>, Vec<i64>) = self.counts.drain().unzip();
        self.bytes = 0;
        let values = match values.is_empty() {
            true => arrow::array::new_empty_array(&self.data_type),
            false => ScalarValue::iter_to_array(values)?,
        };
        Ok(vec![listed(values)?, listed(Arc::new(Int64Array::from(counts)))?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> DataFusionResult<()> {
        let [values, counts] = states else {
            return Err(DataFusionError::Internal("a mode has two states".to_owned()));
        };
        let (values, counts) = (values.as_list::<i32>(), counts.as_list::<i32>());
        for row in 0..values.len() {
            let (values, counts) = (values.value(row), counts.value(row));
            let counts = counts.as_primitive::<Int64Type>();
            for place in 0..values.len() {
                self.add(ScalarValue::try_from_array(&values, place)?.compacted(), counts.value(place));
            }
        }
        Ok(())
    }
}

/// `values` as one value.
fn listed(values: ArrayRef) -> DataFusionResult<ScalarValue> {
    let item = Arc::new(Field::new_list_field(values.data_type().clone(), true));
    let list = ListArray::try_new(item, OffsetBuffer::from_lengths([values.len()]), values, None)?;
    Ok(ScalarValue::List(Arc::new(list)))
}
