//! `PIVOT (… FOR k IN (ANY))` and `IN (SELECT …)`: the values are those that the rows have when the query is planned.

use std::ops::ControlFlow;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::util::display::array_value_to_string;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    Expr, ExprWithAlias, PivotValueSource, Query, Statement as Sql, TableFactor, Value, Visitor, VisitorMut, With,
};
use flumen_core::{Error, Result};

use super::{Engine, pivot, visit};

/// Values that are looked up for one pivot: each becomes a column.
const VALUES: usize = 1000;

impl Engine {
    /// Replaces every PIVOT and UNPIVOT in `statement` by a query that DataFusion has.
    ///
    /// Errors: `Invalid` for a form that is not run; those of the queries that look for values.
    pub(super) async fn rewrite_pivots(&self, sql: &str, statement: &mut Statement) -> Result<()> {
        let mut inner = &mut *statement;
        while let Statement::Explain(explain) = inner {
            inner = &mut explain.statement;
        }
        if let Statement::Statement(inner) = inner {
            let mut open = Open::default();
            visit::look(inner.as_ref(), &mut open);
            let with = match inner.as_ref() {
                Sql::Query(query) => query.with.clone(),
                _ => None,
            };
            let mut found = Vec::new();
            for query in open.queries {
                found.push(self.pivot_values(sql, &query, with.as_ref()).await?);
            }
            let mut listing = Listing { found: found.into_iter() };
            visit::change(inner.as_mut(), &mut listing);
        }
        pivot::rewrite(statement)
    }

    /// What `query` gives, as values of a PIVOT. What `with` names may stand in it.
    async fn pivot_values(&self, sql: &str, query: &str, with: Option<&With>) -> Result<Vec<ExprWithAlias>> {
        let query = with.map_or_else(|| query.to_owned(), |with| format!("{with} {query}"));
        let explained = |error| super::errors::explain_part(error, sql);
        let (context, plan) = Box::pin(self.plan_part(sql, &query, Vec::new())).await?;
        let frame = context.execute_logical_plan(plan).await.map_err(explained)?;
        let batches = frame.limit(0, Some(VALUES + 1)).map_err(explained)?.collect().await.map_err(explained)?;
        if batches.iter().map(RecordBatch::num_rows).sum::<usize>() > VALUES {
            return Err(Error::invalid(format!(
                "the pivot has more than {VALUES} values, each of which would be a column"
            ))
            .hint("list the values that are wanted: for quarter in ('Q1', 'Q2')"));
        }
        let mut values = Vec::new();
        for batch in &batches {
            for row in 0..batch.num_rows() {
                let parts = batch.columns().iter().map(|column| literal(column, row));
                let mut parts = parts.collect::<Result<Vec<_>>>()?;
                let expr = if parts.len() == 1 { parts.remove(0) } else { Expr::Tuple(parts) };
                values.push(ExprWithAlias { expr, alias: None });
            }
        }
        if values.is_empty() {
            return Err(Error::invalid("the pivot has no values: there are no rows to take them from")
                .hint("list the values that are wanted: for quarter in ('Q1', 'Q2')"));
        }
        Ok(values)
    }
}

/// The value of `column` at `row`, as SQL writes it.
fn literal(column: &ArrayRef, row: usize) -> Result<Expr> {
    let text = array_value_to_string(column, row)?;
    let value = match column.data_type() {
        _ if column.is_null(row) => Value::Null,
        of if of.is_numeric() => Value::Number(text, false),
        arrow::datatypes::DataType::Boolean => Value::Boolean(text == "true"),
        _ => Value::SingleQuotedString(text),
    };
    Ok(Expr::Value(value.into()))
}

/// The queries for the values of pivots that list none, in the order in which they stand.
#[derive(Default)]
struct Open {
    queries: Vec<String>,
}

impl Visitor for Open {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        if let TableFactor::Pivot { table, value_column, value_source, .. } = factor {
            self.queries.extend(query_for(table, value_column, value_source));
        }
        ControlFlow::Continue(())
    }
}

fn query_for(table: &TableFactor, columns: &[Expr], source: &PivotValueSource) -> Option<String> {
    let listed = |items: Vec<String>| items.join(", ");
    match source {
        PivotValueSource::List(_) => None,
        PivotValueSource::Subquery(query) => Some(Query::to_string(query)),
        PivotValueSource::Any(order) => {
            let shown = listed(columns.iter().map(ToString::to_string).collect());
            let given: Vec<String> = columns.iter().map(|column| format!("({column}) IS NOT NULL")).collect();
            let order = match order.as_slice() {
                [] => shown.clone(),
                order => listed(order.iter().map(ToString::to_string).collect()),
            };
            Some(format!("SELECT DISTINCT {shown} FROM {table} WHERE {} ORDER BY {order}", given.join(" AND ")))
        }
    }
}

/// Puts values in their places.
struct Listing {
    found: std::vec::IntoIter<Vec<ExprWithAlias>>,
}

impl VisitorMut for Listing {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::Pivot { value_source, .. } = factor
            && !matches!(value_source, PivotValueSource::List(_))
            && let Some(values) = self.found.next()
        {
            *value_source = PivotValueSource::List(values);
        }
        ControlFlow::Continue(())
    }
}
