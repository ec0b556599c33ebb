//! CHECK constraints: conditions that every row of a table must meet, kept as Delta keeps them
//! (`delta.constraints.<name>` among the table's properties).
//!
//! A row for which a condition is null passes, as in SQL.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::SchemaRef;
use arrow::util::display::array_value_to_string;
use datafusion::common::DFSchema;
use datafusion::physical_plan::PhysicalExpr;
use datafusion::prelude::{SessionConfig, SessionContext};
use flumen_core::{Error, Result};

/// How a table property that holds a constraint begins.
pub(crate) const CONSTRAINT_PREFIX: &str = "delta.constraints.";
/// Values of a row that an error shows.
const VALUES_SHOWN: usize = 12;

/// The constraints of a table, ready to be checked.
pub(crate) struct Constraints {
    checks: Vec<Check>,
    /// All columns of the table.
    schema: SchemaRef,
}

struct Check {
    name: String,
    text: String,
    condition: Arc<dyn PhysicalExpr>,
}

impl Constraints {
    /// Those among `properties`, on a table with the columns of `schema`. None if there are none.
    ///
    /// Errors: `Invalid` if one cannot be understood: nothing may be written then.
    pub(crate) fn of(properties: &BTreeMap<String, String>, schema: &SchemaRef) -> Result<Option<Arc<Self>>> {
        let mut checks = Vec::new();
        for (property, text) in properties {
            if let Some(name) = property.strip_prefix(CONSTRAINT_PREFIX) {
                checks.push(Check { name: name.to_owned(), text: text.clone(), condition: condition(text, schema)? });
            }
        }
        Ok((!checks.is_empty()).then(|| Arc::new(Self { checks, schema: Arc::clone(schema) })))
    }

    /// Looks at rows with the columns of `schema` (some of the table's; the others are null).
    ///
    /// Errors: `Data`, with the row, for the first one that breaks a constraint.
    pub(crate) fn check(&self, schema: &SchemaRef, columns: &[ArrayRef]) -> Result<()> {
        let rows = columns.first().map_or(0, Array::len);
        let column = |name: &str, of: &arrow::datatypes::DataType| match schema.index_of(name) {
            Ok(place) if columns[place].data_type() == of => Ok(Arc::clone(&columns[place])),
            Ok(place) => arrow::compute::cast(&columns[place], of),
            Err(_) => Ok(new_null_array(of, rows)),
        };
        let fields = self.schema.fields().iter();
        let all = fields.map(|field| column(field.name(), field.data_type())).collect::<Result<Vec<_>, _>>()?;
        // Whether a column may be null is checked elsewhere.
        let nullable: Vec<_> =
            self.schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let schema = Arc::new(arrow::datatypes::Schema::new(nullable));
        let batch = RecordBatch::try_new_with_options(schema, all, &options)?;
        for check in &self.checks {
            let failed = |error: datafusion::error::DataFusionError| {
                Error::data(format!(
                    "the constraint '{}' ({}) fails: {}",
                    check.name,
                    check.text,
                    error.strip_backtrace()
                ))
            };
            let value = check.condition.evaluate(&batch).and_then(|value| value.into_array(rows)).map_err(failed)?;
            let Some(holds) = value.as_boolean_opt() else { continue };
            if let Some(row) = (0..rows).find(|row| holds.is_valid(*row) && !holds.value(*row)) {
                return Err(Error::data(format!(
                    "a row breaks the constraint '{}' ({}): {}",
                    check.name,
                    check.text,
                    describe_row(&batch, row)
                ))
                .hint("correct the row, or drop the constraint: alter table … drop constraint …"));
            }
        }
        Ok(())
    }
}

/// `text` as a condition on the columns of `schema`.
///
/// Errors: `Invalid` if it cannot be understood, or is no condition.
pub(crate) fn condition(text: &str, schema: &SchemaRef) -> Result<Arc<dyn PhysicalExpr>> {
    let wrong = |error: datafusion::error::DataFusionError| {
        Error::invalid(format!("the condition '{text}' cannot be understood: {}", error.strip_backtrace()))
            .hint("write a SQL condition on the table's columns, for example amount >= 0")
    };
    let columns = DFSchema::try_from(schema.as_ref().clone()).map_err(wrong)?;
    // SQL folds names to lower case; where the table spells a name otherwise, it is meant as it stands.
    let parse = |fold: bool| {
        let config = SessionConfig::new().set_bool("datafusion.sql_parser.enable_ident_normalization", fold);
        let session = SessionContext::new_with_config(config);
        session.parse_sql_expr(text, &columns).and_then(|parsed| session.create_physical_expr(parsed, &columns))
    };
    let condition = parse(true).or_else(|_| parse(false)).map_err(wrong)?;
    let kind = condition.data_type(schema).map_err(wrong)?;
    if kind != arrow::datatypes::DataType::Boolean {
        return Err(Error::invalid(format!("'{text}' is {kind}, not a condition")));
    }
    Ok(condition)
}

/// A row, for people: `id = 3, amount = -1`.
pub(crate) fn describe_row(batch: &RecordBatch, row: usize) -> String {
    let schema = batch.schema();
    let shown = schema.fields().iter().zip(batch.columns()).filter(|(field, _)| !field.name().starts_with("_flumen_"));
    let mut values: Vec<String> = shown
        .clone()
        .take(VALUES_SHOWN)
        .map(|(field, column)| {
            let value = match column.is_null(row) {
                true => "null".to_owned(),
                false => array_value_to_string(column, row).unwrap_or_else(|_| "?".to_owned()),
            };
            format!("{} = {value}", field.name())
        })
        .collect();
    if shown.count() > VALUES_SHOWN {
        values.push("…".to_owned());
    }
    values.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};

    fn checked(condition: &str) -> Result<()> {
        let schema: SchemaRef = Arc::new(Schema::new(vec![
            Field::new("Amount", DataType::Int64, true),
            Field::new("name", DataType::Utf8, true),
        ]));
        let properties = BTreeMap::from([(format!("{CONSTRAINT_PREFIX}c"), condition.to_owned())]);
        let amounts: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(-3)]));
        let names: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "c"]));
        Constraints::of(&properties, &schema)?.unwrap().check(&schema, &[amounts, names])
    }

    #[test]
    fn a_violation_names_the_row_and_null_passes() {
        assert!(checked("name <> 'x'").is_ok());
        assert!(checked("Amount > -4").is_ok());
        let error = checked("Amount >= 0").unwrap_err();
        assert_eq!(error.message(), "a row breaks the constraint 'c' (Amount >= 0): Amount = -3, name = c");
    }

    #[test]
    fn what_is_no_condition_is_refused() {
        assert!(checked("Amount + 1").unwrap_err().message().contains("not a condition"));
        assert!(checked("nothing > 0").unwrap_err().message().contains("cannot be understood"));
    }
}
