//! `to_timestamp(x, pattern)` and its kin over columns: DataFusion's promise a time with a zone and give one without, wherever a
//! session has a zone, which ends the query. Here the zone is put back.
//!
//! The instants are right: they were read in the session's zone, and are counted in UTC.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::{Result, ScalarValue};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

const NAMES: [&str; 5] =
    ["to_timestamp", "to_timestamp_seconds", "to_timestamp_millis", "to_timestamp_micros", "to_timestamp_nanos"];

/// The functions, made of those that `state` has.
pub(super) fn functions(state: &SessionState) -> Vec<ScalarUDF> {
    let known = NAMES.iter().filter_map(|name| state.scalar_functions().get(*name));
    known.map(|inner| ScalarUDF::new_from_impl(Zoned { inner: inner.as_ref().clone() })).collect()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Zoned {
    inner: ScalarUDF,
}

impl ScalarUDFImpl for Zoned {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn with_updated_config(&self, config: &ConfigOptions) -> Option<ScalarUDF> {
        let inner = self.inner.inner().with_updated_config(config)?;
        Some(ScalarUDF::new_from_impl(Self { inner }))
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let promised = args.return_field.data_type().clone();
        // Not by way of the function itself, which holds it to its promise.
        Ok(match self.inner.inner().invoke_with_args(args)? {
            ColumnarValue::Array(values) => ColumnarValue::Array(zoned(values, &promised)?),
            ColumnarValue::Scalar(value) if value.data_type() != promised => {
                ColumnarValue::Scalar(ScalarValue::try_from_array(&zoned(value.to_array()?, &promised)?, 0)?)
            }
            scalar => scalar,
        })
    }
}

/// `values`, which are counted in UTC, as `promised`.
fn zoned(values: ArrayRef, promised: &DataType) -> Result<ArrayRef> {
    if values.data_type() == promised {
        return Ok(values);
    }
    match (values.data_type(), promised) {
        // By way of numbers, so that nothing is taken for a time in another zone.
        (DataType::Timestamp(unit, None), DataType::Timestamp(wanted, _)) if unit == wanted => {
            Ok(cast(&cast(&values, &DataType::Int64)?, promised)?)
        }
        _ => Ok(Arc::clone(&values)),
    }
}
