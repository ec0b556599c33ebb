//! Replace-where: the rows for which a condition holds give way to the rows of the load, all of which must meet it.

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{filter_record_batch, not, prep_null_mask_filter};
use arrow::datatypes::SchemaRef;
use datafusion::common::DFSchema;
use datafusion::logical_expr::Expr;
use datafusion::prelude::{SessionConfig, SessionContext};
use flumen_core::{Error, Result};

use super::rewrite::Operation;

/// The replacement of the rows that meet a condition.
pub(crate) struct ReplaceWhere {
    session: SessionContext,
    condition: Expr,
    text: String,
}

impl ReplaceWhere {
    /// Replaces where `condition` (SQL, over the columns of `schema`) holds.
    ///
    /// Errors: `Invalid` if the condition cannot be understood.
    pub(crate) fn new(condition: &str, schema: &SchemaRef) -> Result<Self> {
        // Names mean what they say: columns are spelled in many ways.
        let config = SessionConfig::new().set_bool("datafusion.sql_parser.enable_ident_normalization", false);
        let session = SessionContext::new_with_config(config);
        let wrong = |error: datafusion::error::DataFusionError| {
            Error::invalid(format!("the condition '{condition}' cannot be understood: {}", error.strip_backtrace()))
                .hint("write a SQL condition on the table's columns, spelled as in the table: \"day >= '2019-01-01'\"")
        };
        let columns = DFSchema::try_from(schema.as_ref().clone()).map_err(wrong)?;
        let parsed = session.parse_sql_expr(condition, &columns).map_err(wrong)?;
        session.create_physical_expr(parsed.clone(), &columns).map_err(wrong)?;
        Ok(Self { session, condition: parsed, text: condition.to_owned() })
    }

    /// Where the condition holds; not where it is null.
    fn holds(&self, batch: &RecordBatch) -> Result<BooleanArray> {
        let failed = |error: datafusion::error::DataFusionError| {
            Error::data(format!("the condition '{}' fails: {}", self.text, error.strip_backtrace()))
        };
        let columns = DFSchema::try_from(batch.schema().as_ref().clone()).map_err(failed)?;
        let expression = self.session.create_physical_expr(self.condition.clone(), &columns).map_err(failed)?;
        let value = expression.evaluate(batch).map_err(failed)?;
        let values = value.into_array(batch.num_rows()).map_err(failed)?;
        let values = values
            .as_boolean_opt()
            .ok_or_else(|| Error::invalid(format!("'{}' is {}, not a condition", self.text, values.data_type())))?;
        Ok(if values.null_count() > 0 { prep_null_mask_filter(values) } else { values.clone() })
    }
}

impl Operation for ReplaceWhere {
    fn learn(&mut self, batch: &RecordBatch) -> Result<()> {
        let holds = self.holds(batch)?;
        match (0..holds.len()).find(|row| !holds.value(*row)) {
            None => Ok(()),
            Some(row) => Err(Error::data(format!(
                "a row of the load does not meet the condition '{}': {}",
                self.text,
                super::merge::show(batch, row)
            ))
            .hint("choose the rows of the load so that all meet it, or widen the condition")),
        }
    }

    fn probe_columns(&self) -> Vec<String> {
        self.condition.column_refs().into_iter().map(|column| column.name.clone()).collect()
    }

    fn touched(&mut self, batch: &RecordBatch) -> Result<usize> {
        Ok(self.holds(batch)?.true_count())
    }

    fn removes_touched(&self) -> bool {
        true
    }

    fn rewrite(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        Ok(filter_record_batch(batch, &not(&self.holds(batch)?)?)?)
    }
}
