//! The rows of an insert: as the statement gives them, with what it leaves out.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::{Expr as LogicalExpr, LogicalPlan, LogicalPlanBuilder, cast, lit};
use datafusion::sql::sqlparser::ast::{Expr, Ident, Insert, Query, SelectItem, SetExpr, Value};
use flumen_core::words::counted;
use flumen_core::{Error, Result};

use super::draft::Draft;
use super::{Statement, TARGET, name_of};
use crate::engine::columns::{self, Assigned, quoted};
use crate::engine::defaults::ColumnDefault;
use crate::engine::functions::{self, postgres};
use crate::engine::labels;
use crate::engine::lake_table::LakeTable;

/// The column that numbers the rows of an insert in the order in which it gives them.
const NUMBER: &str = "_flumen_number";

/// The rows that an insert gives.
pub(super) struct Given {
    /// The query for them.
    pub query: Query,
    /// The columns of the table that they are for.
    pub names: Vec<String>,
    /// Whether the last column of the query numbers the rows.
    numbered: bool,
    /// Whether the query has a column that is for nothing.
    empty: bool,
}

impl Given {
    /// What `insert` gives to the table of `draft`. A value DEFAULT is one that is left out.
    ///
    /// Errors: `NotFound` for a column that is not there; `Invalid` for one that is named twice.
    pub fn of(insert: &Insert, draft: &Draft) -> Result<Self> {
        let table = draft.table().address();
        let visible = columns::visible(draft.schema());
        let names: Vec<String> = match insert.columns.as_slice() {
            [] => visible.iter().map(|field| field.name().clone()).collect(),
            listed => listed
                .iter()
                .map(|name| columns::spelled(draft.schema(), &name_of(name)?, &table))
                .collect::<Result<_>>()?,
        };
        let again = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name));
        if let Some((_, twice)) = again {
            return Err(Error::invalid(format!("the column '{twice}' is listed twice")));
        }
        let Some(source) = &insert.source else {
            let query = crate::engine::pivot::template("SELECT 1 AS _flumen_nothing")?;
            return Ok(Self { query, names: Vec::new(), numbered: false, empty: true });
        };
        let mut given = Self { query: source.as_ref().clone(), names, numbered: false, empty: false };
        labels::alias_placed(&mut given.query);
        given.spell_values(draft)?;
        given.number(draft);
        Ok(given)
    }

    /// Leaves DEFAULT out, and makes bytes of texts such as `\xdead` where bytes are wanted.
    fn spell_values(&mut self, draft: &Draft) -> Result<()> {
        let SetExpr::Values(values) = self.query.body.as_mut() else { return Ok(()) };
        if values.rows.iter().any(|row| row.len() != self.names.len()) {
            // What is wrong with it is said when it is planned.
            return Ok(());
        }
        for place in (0..self.names.len()).rev() {
            let name = self.names[place].clone();
            let left_out = values.rows.iter().filter(|row| is_default(&row[place])).count();
            if left_out == values.rows.len() {
                values.rows.iter_mut().for_each(|row| drop(row.remove(place)));
                self.names.remove(place);
                continue;
            }
            let is_bytes =
                draft.schema().field_with_name(&name).is_ok_and(|field| field.data_type() == &DataType::Binary);
            for row in &mut values.rows {
                let value = &mut row[place];
                if is_default(value) {
                    *value = default_value(draft, &name)?;
                } else if let (true, Some(text)) = (is_bytes, text_of(value)) {
                    *value = postgres::bytes(&text)?;
                }
            }
        }
        if self.names.is_empty() {
            let one = Expr::Value(Value::Number("1".to_owned(), false).into());
            values.rows.iter_mut().for_each(|row| row.push(one.clone()));
            self.empty = true;
        }
        Ok(())
    }

    /// Numbers the rows of a query that says in which order they are wanted, if a column is going to be numbered.
    fn number(&mut self, draft: &Draft) {
        let visible = columns::visible(draft.schema());
        let mut left_out = visible.iter().filter(|field| !self.names.contains(field.name()));
        if !left_out.any(|field| ColumnDefault::of(draft.properties(), field.name()) == Some(ColumnDefault::Serial)) {
            return;
        }
        let Some(order) = self.query.order_by.as_ref().map(ToString::to_string) else { return };
        let SetExpr::Select(select) = self.query.body.as_mut() else { return };
        let has_star = select
            .projection
            .iter()
            .any(|item| !matches!(item, SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. }));
        if has_star || select.distinct.is_some() {
            return;
        }
        if let Ok(expr) = functions::filled(&format!("row_number() OVER ({order})"), &[]) {
            select.projection.push(SelectItem::ExprWithAlias { expr, alias: Ident::new(NUMBER) });
            self.numbered = true;
        }
    }

    /// Errors: `Invalid` if there are more values than columns, or fewer.
    pub fn check_count(&self, plan: &LogicalPlan, draft: &Draft) -> Result<()> {
        let extra = usize::from(self.numbered) + usize::from(self.empty);
        let given = plan.schema().fields().len().saturating_sub(extra);
        if given == self.names.len() {
            return Ok(());
        }
        // A table that has more columns than rows were given for is no guesswork: they are named.
        Err(Error::invalid(format!(
            "the insert gives {} for {} of {}",
            counted(given as u64, "value"),
            counted(self.names.len() as u64, "column"),
            draft.table().address()
        ))
        .hint(format!(
            "name the columns: insert into {} (…) …; the table has {}",
            draft.table().name(),
            self.names.join(", ")
        )))
    }

    /// `plan`, which is that of the query, with what is left out; and what goes into which column.
    pub async fn filled(
        &self,
        statement: &Statement<'_>,
        draft: &mut Draft,
        plan: LogicalPlan,
    ) -> Result<(LogicalPlan, Vec<Assigned>)> {
        let mut assigned: Vec<Assigned> =
            self.names.iter().enumerate().map(|(at, name)| Assigned { name: name.clone(), at }).collect();
        let left_out = left_out(draft, &self.names);
        if left_out.is_empty() {
            return Ok((plan, assigned));
        }
        let explained = |error| statement.explained(error);
        let mut plan = plan;
        let mut numbers: Option<LogicalExpr> = None;
        if left_out.iter().any(|(_, default)| *default == ColumnDefault::Serial) {
            if !self.numbered {
                let numbered = LogicalPlanBuilder::from(plan).window([row_number().alias(NUMBER)]);
                plan = numbered.and_then(LogicalPlanBuilder::build).map_err(explained)?;
            }
            numbers = plan.schema().columns().pop().map(LogicalExpr::Column);
        }
        let mut exprs: Vec<LogicalExpr> = plan.schema().columns().into_iter().map(LogicalExpr::Column).collect();
        for (number, (name, default)) in left_out.into_iter().enumerate() {
            let expr = match default {
                ColumnDefault::Serial => {
                    let number = numbers.clone().ok_or_else(|| Error::internal("rows were not numbered"))?;
                    lit(largest(statement, draft, &name).await?) + cast(number, DataType::Int64)
                }
                ColumnDefault::Expression(text) => expression(statement, &text).await?,
            };
            assigned.push(Assigned { name, at: exprs.len() });
            exprs.push(expr.alias(format!("_flumen_default_{number}")));
        }
        let plan = LogicalPlanBuilder::from(plan).project(exprs).and_then(LogicalPlanBuilder::build);
        Ok((plan.map_err(explained)?, assigned))
    }

    /// A query whose columns are those that are given and those that have a default.
    pub async fn whole(&self, statement: &Statement<'_>, draft: &mut Draft) -> Result<(String, Vec<String>)> {
        let mut names = self.names.clone();
        let mut shown: Vec<String> = names.iter().map(|name| quoted(name)).collect();
        for (name, default) in left_out(draft, &self.names) {
            let text = match default {
                ColumnDefault::Serial => {
                    let order = if self.numbered { NUMBER.to_owned() } else { "row_number() OVER ()".to_owned() };
                    format!("{} + {order}", largest(statement, draft, &name).await?)
                }
                ColumnDefault::Expression(text) => format!("({text})"),
            };
            shown.push(format!("{text} AS {}", quoted(&name)));
            names.push(name);
        }
        let mut given: Vec<String> = self.names.iter().map(|name| quoted(name)).collect();
        if self.numbered || self.empty {
            given.push(NUMBER.to_owned());
        }
        let text = format!("SELECT {} FROM ({}) AS _flumen_given ({})", shown.join(", "), self.query, given.join(", "));
        Ok((text, names))
    }
}

/// The columns that `names` leaves out and that have a default.
fn left_out(draft: &Draft, names: &[String]) -> Vec<(String, ColumnDefault)> {
    let visible = columns::visible(draft.schema());
    let left_out = visible.iter().filter(|field| !names.contains(field.name()));
    let with_default =
        |name: &String| ColumnDefault::of(draft.properties(), name).map(|default| (name.clone(), default));
    left_out.filter_map(|field| with_default(field.name())).collect()
}

/// The largest number of a column; 0 if there is none. Whoever asks decides upon the rows that are there.
async fn largest(statement: &Statement<'_>, draft: &mut Draft, column: &str) -> Result<i64> {
    draft.look();
    let table = Arc::new(LakeTable::new(draft.contents()?)?);
    let query = format!("SELECT CAST(max({}) AS BIGINT) FROM {TARGET}", quoted(column));
    let (context, plan) = statement.plan(&query, vec![(TARGET.to_owned(), table)]).await?;
    let frame = context.execute_logical_plan(plan).await.map_err(|error| statement.explained(error))?;
    let rows = frame.collect().await.map_err(|error| statement.explained(error))?;
    let first = rows.iter().find(|batch| batch.num_rows() > 0);
    let values = first.and_then(|batch| batch.column(0).as_primitive_opt::<Int64Type>());
    Ok(values.and_then(|values| values.iter().next().flatten()).unwrap_or(0))
}

/// The expression that `text` is.
async fn expression(statement: &Statement<'_>, text: &str) -> Result<LogicalExpr> {
    let (_, plan) = statement.plan(&format!("SELECT {text}"), Vec::new()).await?;
    match &plan {
        LogicalPlan::Projection(projection) if projection.expr.len() == 1 => {
            Ok(projection.expr[0].clone().unalias_nested().data)
        }
        _ => Err(Error::internal(format!("the default '{text}' is no expression"))),
    }
}

/// Whether a default can be what it says: it is looked up once.
///
/// Errors: `Invalid` for an expression that names a column or gives no value of the column's type.
pub(super) async fn check(statement: &Statement<'_>, field: &Field, default: &ColumnDefault) -> Result<()> {
    let ColumnDefault::Expression(text) = default else { return Ok(()) };
    let looked_up = async {
        let (context, plan) = statement.plan(&format!("SELECT {text}"), Vec::new()).await?;
        let field = field.clone().with_nullable(true);
        let wanted: SchemaRef = Arc::new(Schema::new(vec![field.clone()]));
        let plan = statement.cast(plan, &wanted, vec![Assigned { name: field.name().clone(), at: 0 }])?;
        let frame = context.execute_logical_plan(plan).await.map_err(|error| statement.explained(error))?;
        frame.collect().await.map_err(|error| statement.explained(error))
    };
    looked_up.await.map(drop).map_err(|error| {
        Error::invalid(format!("the default of '{}' ({text}) cannot be used: {error}", field.name()))
            .hint("a default is a constant, or an expression without columns, such as now()")
    })
}

/// Puts nulls in the places of DEFAULT.
pub(super) fn without_defaults(insert: &mut Insert) {
    let Some(source) = &mut insert.source else { return };
    let SetExpr::Values(values) = source.body.as_mut() else { return };
    for value in values.rows.iter_mut().flat_map(|row| row.iter_mut()).filter(|value| is_default(value)) {
        *value = Expr::Value(Value::Null.into());
    }
}

fn is_default(value: &Expr) -> bool {
    matches!(value, Expr::Identifier(ident) if ident.quote_style.is_none() && ident.value.eq_ignore_ascii_case("default"))
}

fn text_of(value: &Expr) -> Option<String> {
    match value {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => Some(text.clone()),
            _ => None,
        },
        _ => None,
    }
}

/// What stands for DEFAULT in a row, where other rows have a value.
fn default_value(draft: &Draft, name: &str) -> Result<Expr> {
    match ColumnDefault::of(draft.properties(), name) {
        None => Ok(Expr::Value(Value::Null.into())),
        Some(ColumnDefault::Expression(text)) => functions::filled(&text, &[]),
        Some(ColumnDefault::Serial) => {
            Err(Error::invalid(format!("some rows leave the number '{name}' to the table and some do not"))
                .hint("insert those that have a number, and then the others"))
        }
    }
}
