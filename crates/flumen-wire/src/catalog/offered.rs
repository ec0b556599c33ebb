//! The functions about the session and the catalog, and the catalog's tables, for statements that the engine runs:
//! `insert into t select current_user`, `select … from pg_class, raw.trips`.
//!
//! The functions are those of `functions.rs`, called with what was known of the catalog when the statement began.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, RecordBatch, new_empty_array};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion::catalog::{MemTable, TableProvider};
use datafusion::common::{DataFusionError, Result as DataFusionResult, ScalarValue};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use flumen_core::{Error, Result};
use flumen_lake::engine::Engine;
use postgres_types::{Kind, Type};

use super::functions::{self, Function};
use super::tables::Table;
use super::{Context, Value};

/// What is known of the catalog, for all functions of a session.
pub(super) type Known = Arc<Mutex<Context>>;

/// Makes the functions known to `engine`.
///
/// Errors: `Internal`.
pub(super) fn offer(engine: &Engine, known: &Known) -> Result<()> {
    let made = functions::single().map(|function| {
        let volatility = if function.acts() { Volatility::Volatile } else { Volatility::Stable };
        let signature = Signature::user_defined(volatility);
        ScalarUDF::new_from_impl(Offered { function, signature, known: Arc::clone(known) })
    });
    engine.add_functions(made)
}

/// A function for the engine.
struct Offered {
    function: Function,
    signature: Signature,
    known: Known,
}

impl fmt::Debug for Offered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.function.fmt(f)
    }
}

impl PartialEq for Offered {
    fn eq(&self, other: &Self) -> bool {
        self.function.name() == other.function.name() && Arc::ptr_eq(&self.known, &other.known)
    }
}

impl Eq for Offered {}

impl Hash for Offered {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.function.name().hash(state);
    }
}

impl ScalarUDFImpl for Offered {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> DataFusionResult<Vec<DataType>> {
        Ok(types.iter().map(taken).collect())
    }

    fn return_type(&self, _: &[DataType]) -> DataFusionResult<DataType> {
        Ok(arrow_type(&self.function.kind(&[])))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let one = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if one { 1 } else { args.number_rows };
        let arrays = args.args.iter().map(|arg| arg.to_array(rows)).collect::<DataFusionResult<Vec<_>>>()?;
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let kind = self.function.kind(&[]);
        let mut values =
            (0..rows).map(|row| self.value(&arrays, row, &kind, &known)).collect::<DataFusionResult<Vec<_>>>()?;
        if one {
            return Ok(ColumnarValue::Scalar(values.pop().unwrap_or(ScalarValue::Null)));
        }
        Ok(ColumnarValue::Array(match values.is_empty() {
            true => new_empty_array(&arrow_type(&kind)),
            false => ScalarValue::iter_to_array(values)?,
        }))
    }
}

impl Offered {
    fn value(&self, arrays: &[ArrayRef], row: usize, kind: &Type, known: &Context) -> DataFusionResult<ScalarValue> {
        let arguments = arrays.iter().map(|array| Ok(value(&ScalarValue::try_from_array(array, row)?)));
        let arguments = arguments.collect::<DataFusionResult<Vec<_>>>()?;
        let given = self.function.call(&arguments, known);
        let given = given.map_err(|failure| DataFusionError::External(Box::new(Error::invalid(failure.message))))?;
        Ok(scalar(&given, kind, known))
    }
}

/// A table of the catalog with its rows, for the engine.
///
/// Errors: `Internal`.
pub(super) fn table(table: &Table, known: &Context) -> Result<Arc<dyn TableProvider>> {
    let failed = |error| Error::internal("a table of the catalog could not be lent").caused_by(error);
    let rows = known.snapshot.rows(table);
    let shown = &table.columns[..table.shown];
    let fields = shown.iter().map(|(name, kind)| Field::new(name, arrow_type(kind), true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let columns = shown.iter().enumerate().map(|(place, (_, kind))| {
        let values = rows.iter().map(|row| scalar(row.get(place).unwrap_or(&Value::Null), kind, known));
        match rows.is_empty() {
            true => Ok(new_empty_array(&arrow_type(kind))),
            false => ScalarValue::iter_to_array(values),
        }
    });
    let columns = columns.collect::<DataFusionResult<Vec<ArrayRef>>>().map_err(failed)?;
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns)?;
    Ok(Arc::new(MemTable::try_new(schema, vec![vec![batch]]).map_err(failed)?))
}

/// The type as which an argument is taken.
fn taken(of: &DataType) -> DataType {
    match of {
        DataType::Boolean => DataType::Boolean,
        of if of.is_integer() => DataType::Int64,
        of if of.is_numeric() => DataType::Float64,
        _ => DataType::Utf8,
    }
}

/// An argument.
fn value(of: &ScalarValue) -> Value {
    match of {
        ScalarValue::Boolean(Some(value)) => Value::Bool(*value),
        ScalarValue::Int64(Some(value)) => Value::Int(*value),
        ScalarValue::Float64(Some(value)) => Value::Float(*value),
        ScalarValue::Utf8(Some(value)) => Value::text(value),
        _ => Value::Null,
    }
}

/// The engine's type for values of `kind`.
fn arrow_type(kind: &Type) -> DataType {
    if let Kind::Array(element) = kind.kind() {
        return DataType::List(Arc::new(Field::new_list_field(arrow_type(element), true)));
    }
    match *kind {
        Type::BOOL => DataType::Boolean,
        Type::INT2 | Type::INT4 => DataType::Int32,
        Type::INT8 | Type::OID => DataType::Int64,
        Type::FLOAT4 | Type::FLOAT8 => DataType::Float64,
        Type::TIMESTAMP => DataType::Timestamp(TimeUnit::Microsecond, None),
        Type::TIMESTAMPTZ => DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())),
        _ => DataType::Utf8,
    }
}

/// What a function gave. What the engine has no type for is text.
fn scalar(of: &Value, kind: &Type, known: &Context) -> ScalarValue {
    if let Kind::Array(element) = kind.kind() {
        let Value::Array(values) = of else {
            return ScalarValue::try_from(&arrow_type(kind)).unwrap_or(ScalarValue::Null);
        };
        let values: Vec<ScalarValue> = values.iter().map(|value| scalar(value, element, known)).collect();
        return ScalarValue::List(ScalarValue::new_list_nullable(&values, &arrow_type(element)));
    }
    let micros = match of {
        Value::Time(micros) => Some(*micros),
        _ => None,
    };
    match arrow_type(kind) {
        DataType::Boolean => ScalarValue::Boolean(of.truth()),
        DataType::Int32 => ScalarValue::Int32(of.int().and_then(|value| i32::try_from(value).ok())),
        DataType::Int64 => ScalarValue::Int64(of.int()),
        DataType::Float64 => ScalarValue::Float64(of.float()),
        DataType::Timestamp(_, zone) => ScalarValue::TimestampMicrosecond(micros, zone),
        _ => ScalarValue::Utf8(of.shown(&known.snapshot)),
    }
}
