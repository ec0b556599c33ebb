//! `PIVOT` and `UNPIVOT`, as queries that DataFusion has.
//!
//! `t PIVOT (sum(x) FOR k IN ('a', 'b'))` becomes one aggregate with a filter for each value, grouped by all columns that are
//! not named in it. `t UNPIVOT (x FOR k IN (a, b))` becomes `t`, each row once for each of the columns.

use std::ops::ControlFlow;

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    ExcludeSelectItem, Expr, ExprWithAlias, Ident, NullInclusion, ObjectName, ObjectNamePart, PivotValueSource, Query,
    Select, SelectItem, SetExpr, Statement as Sql, TableAlias, TableFactor, Value, Visitor, VisitorMut,
};
use flumen_core::{Error, Result};

use super::write::{name_of_ident, refuse};
use super::{functions, statements, visit};

/// The column that says which of the columns a row is for. No table has one of this name.
const PLACE: &str = "__place";

/// Replaces every PIVOT and UNPIVOT in `statement`.
///
/// Errors: `Invalid` for a form that is not run.
pub(super) fn rewrite(statement: &mut Statement) -> Result<()> {
    match statement {
        Statement::Statement(inner) => visit::try_change(inner.as_mut(), &mut Rewriter),
        Statement::Explain(explain) => rewrite(&mut explain.statement),
        _ => Ok(()),
    }
}

struct Rewriter;

impl VisitorMut for Rewriter {
    type Break = Error;

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        let made = match factor {
            TableFactor::Pivot { table, aggregate_functions, value_column, value_source, default_on_null, alias } => {
                let pivot = Pivot {
                    table,
                    aggregates: aggregate_functions,
                    columns: value_column,
                    values: value_source,
                    default: default_on_null.as_ref(),
                };
                pivot.query().map(|query| derived(query, alias.take()))
            }
            TableFactor::Unpivot { table, value, name, columns, null_inclusion, alias } => {
                let nulls = matches!(null_inclusion, Some(NullInclusion::IncludeNulls));
                unpivoted(table, value, name, columns, nulls).map(|query| derived(query, alias.take()))
            }
            _ => return ControlFlow::Continue(()),
        };
        match made {
            Ok(made) => *factor = made,
            Err(error) => return ControlFlow::Break(error),
        }
        ControlFlow::Continue(())
    }
}

/// `query` in the place of a table.
pub(super) fn derived(query: Query, alias: Option<TableAlias>) -> TableFactor {
    TableFactor::Derived { lateral: false, subquery: Box::new(query), alias, sample: None }
}

/// A PIVOT as it is written.
struct Pivot<'a> {
    table: &'a TableFactor,
    aggregates: &'a [ExprWithAlias],
    columns: &'a [Expr],
    values: &'a PivotValueSource,
    default: Option<&'a Expr>,
}

impl Pivot<'_> {
    fn query(&self) -> Result<Query> {
        let PivotValueSource::List(values) = self.values else {
            return refuse("pivot … in (any)", "list the values: for quarter in ('Q1', 'Q2')");
        };
        let mut named = Named::default();
        self.columns.iter().for_each(|column| named.look(column));
        self.aggregates.iter().for_each(|aggregate| named.look(&aggregate.expr));
        let mut query = template("SELECT * FROM t GROUP BY ALL")?;
        let select = select_of(&mut query)?;
        exclude(select, named.columns);
        for value in values {
            for aggregate in self.aggregates {
                let expr = self.filtered(&aggregate.expr, &value.expr)?;
                select.projection.push(SelectItem::ExprWithAlias { expr, alias: self.name(value, aggregate) });
            }
        }
        set_table(select, self.table)?;
        Ok(query)
    }

    /// The aggregate over the rows that have this value.
    fn filtered(&self, aggregate: &Expr, value: &Expr) -> Result<Expr> {
        let Expr::Function(call) = aggregate else {
            return Err(Error::invalid(format!("pivot wants an aggregate, not '{aggregate}'"))
                .hint("write pivot (sum(amount) for quarter in ('Q1', 'Q2'))"));
        };
        let mut call = call.clone();
        let mut condition = self.condition(value)?;
        if let Some(filter) = call.filter.take() {
            condition = functions::filled("$1 AND $2", &[*filter, condition])?;
        }
        call.filter = Some(Box::new(condition));
        match self.default {
            Some(default) => functions::filled("coalesce($1, $2)", &[Expr::Function(call), default.clone()]),
            None => Ok(Expr::Function(call)),
        }
    }

    fn condition(&self, value: &Expr) -> Result<Expr> {
        let values: Vec<&Expr> = match value {
            Expr::Tuple(values) if self.columns.len() > 1 => values.iter().collect(),
            one => vec![one],
        };
        if values.len() != self.columns.len() {
            return Err(Error::invalid(format!("pivot: '{value}' is not one value for each of the columns"))
                .hint("write for (year, quarter) in ((2026, 'Q1'), (2026, 'Q2'))"));
        }
        let mut conditions = self.columns.iter().zip(values).map(|(column, value)| {
            let null = matches!(value, Expr::Value(value) if value.value == Value::Null);
            let text = if null { "$1 IS NULL" } else { "$1 = $2" };
            functions::filled(text, &[column.clone(), value.clone()])
        });
        let first = conditions.next().ok_or_else(|| Error::invalid("pivot has no column"))??;
        conditions.try_fold(first, |all, next| functions::filled("$1 AND $2", &[all, next?]))
    }

    /// The name of a column: of the value, and of the aggregate if there are several.
    fn name(&self, value: &ExprWithAlias, aggregate: &ExprWithAlias) -> Ident {
        if let (Some(alias), [_]) = (&value.alias, self.aggregates) {
            return alias.clone();
        }
        let of_value = value.alias.as_ref().map_or_else(|| plain(&value.expr), name_of_ident);
        if self.aggregates.len() == 1 {
            return Ident::with_quote('"', of_value);
        }
        let of_aggregate =
            aggregate.alias.as_ref().map_or_else(|| aggregate.expr.to_string().to_lowercase(), name_of_ident);
        Ident::with_quote('"', format!("{of_value}_{of_aggregate}"))
    }
}

/// `table` with a row for each of `columns`.
fn unpivoted(table: &TableFactor, value: &Expr, name: &Ident, columns: &[ExprWithAlias], nulls: bool) -> Result<Query> {
    let values = parts(value).into_iter().map(|value| match value {
        Expr::Identifier(ident) => Ok(ident),
        other => Err(Error::invalid(format!("unpivot: '{other}' is not the name of a column"))),
    });
    let values = values.collect::<Result<Vec<Ident>>>()?;
    let (mut named, mut labels, mut given) = (Named::default(), Vec::new(), Vec::new());
    let mut cases = vec![String::new(); values.len()];
    for (place, column) in columns.iter().enumerate() {
        let of_row = parts(&column.expr);
        if of_row.len() != values.len() {
            return Err(Error::invalid(format!("unpivot: '{}' is not one column for each value", column.expr))
                .hint("write unpivot ((low, high) for day in ((low_1, high_1), (low_2, high_2)))"));
        }
        let label = column.alias.as_ref().map(|alias| alias.value.clone());
        let label = label.unwrap_or_else(|| of_row.iter().map(plain).collect::<Vec<_>>().join("_"));
        labels.push(format!("({place}, '{}')", label.replace('\'', "''")));
        for (case, expr) in cases.iter_mut().zip(of_row) {
            named.look(&expr);
            given.push(expr);
            case.push_str(&format!(" WHEN {place} THEN ${}", given.len()));
        }
    }
    let cases: Vec<String> = cases.into_iter().map(|case| format!("CASE {PLACE}{case} END")).collect();
    let shown: Vec<String> = cases.iter().zip(&values).map(|(case, name)| format!("{case} AS {name}")).collect();
    let missing: Vec<String> = cases.iter().map(|case| format!("{case} IS NULL")).collect();
    let kept = if nulls { String::new() } else { format!(" WHERE NOT ({})", missing.join(" AND ")) };
    let text = format!(
        "SELECT *, {} FROM t CROSS JOIN (VALUES {}) AS __unpivot ({PLACE}, {name}){kept}",
        shown.join(", "),
        labels.join(", ")
    );
    let mut query = template(&text)?;
    functions::fill(&mut query, &given);
    named.columns.push(Ident::new(PLACE));
    let select = select_of(&mut query)?;
    exclude(select, named.columns);
    set_table(select, table)?;
    Ok(query)
}

/// The parts of `(a, b)`; the one of `a`.
fn parts(expr: &Expr) -> Vec<Expr> {
    match expr {
        Expr::Tuple(parts) => parts.clone(),
        Expr::Nested(inner) => parts(inner),
        one => vec![one.clone()],
    }
}

/// A value as a name: a text without its quotes.
fn plain(expr: &Expr) -> String {
    match expr {
        Expr::Value(value) => value.value.clone().into_string().unwrap_or_else(|| value.value.to_string()),
        Expr::Identifier(ident) => name_of_ident(ident),
        Expr::CompoundIdentifier(parts) => parts.last().map(name_of_ident).unwrap_or_default(),
        Expr::TypedString(typed) => typed.value.value.clone().into_string().unwrap_or_else(|| expr.to_string()),
        Expr::Tuple(values) => values.iter().map(plain).collect::<Vec<_>>().join("_"),
        other => other.to_string(),
    }
}

/// The columns that expressions name.
#[derive(Default)]
struct Named {
    columns: Vec<Ident>,
}

impl Named {
    fn look(&mut self, expr: &Expr) {
        visit::look(expr, self);
    }
}

impl Visitor for Named {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        let found = match expr {
            Expr::Identifier(ident) => Some(ident),
            Expr::CompoundIdentifier(parts) => parts.last(),
            _ => None,
        };
        if let Some(ident) = found
            && !self.columns.iter().any(|known| name_of_ident(known) == name_of_ident(ident))
        {
            self.columns.push(ident.clone());
        }
        ControlFlow::Continue(())
    }
}

/// The query that `text` is.
pub(super) fn template(text: &str) -> Result<Query> {
    let wrong = || Error::internal(format!("'{text}' is not a query"));
    let Statement::Statement(statement) = statements::parse_any(text)? else { return Err(wrong()) };
    match *statement {
        Sql::Query(query) => Ok(*query),
        _ => Err(wrong()),
    }
}

/// The select that `query` is.
pub(super) fn select_of(query: &mut Query) -> Result<&mut Select> {
    match query.body.as_mut() {
        SetExpr::Select(select) => Ok(select),
        _ => Err(Error::internal("a template is not made of a select")),
    }
}

/// Leaves `columns` out of the star that the projection begins with.
fn exclude(select: &mut Select, columns: Vec<Ident>) {
    let names = columns.into_iter().map(|ident| ObjectName(vec![ObjectNamePart::Identifier(ident)]));
    if let Some(SelectItem::Wildcard(options)) = select.projection.first_mut() {
        options.opt_exclude = Some(ExcludeSelectItem::Multiple(names.collect()));
    }
}

/// Puts `table` in the place of the first table of `select`.
pub(super) fn set_table(select: &mut Select, table: &TableFactor) -> Result<()> {
    let from = select.from.first_mut().ok_or_else(|| Error::internal("a template has no table"))?;
    from.relation = table.clone();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sql: &str, expect: &str) {
        let mut statement = statements::parse(sql).expect(sql);
        let text = match rewrite(&mut statement) {
            Ok(()) => statement.to_string(),
            Err(error) => error.to_string(),
        };
        assert_eq!(text, expect, "{sql}");
    }

    #[test]
    fn values_become_columns() {
        check(
            "SELECT * FROM s PIVOT (sum(amount) FOR quarter IN ('Q1', 'Q2' AS second)) AS p",
            "SELECT * FROM (SELECT * EXCLUDE (quarter, amount), \
             sum(amount) FILTER (WHERE quarter = 'Q1') AS \"Q1\", \
             sum(amount) FILTER (WHERE quarter = 'Q2') AS second FROM s GROUP BY ALL) AS p",
        );
        check(
            "SELECT * FROM s PIVOT (count(*) AS n, max(a) FOR k IN (1, NULL))",
            "SELECT * FROM (SELECT * EXCLUDE (k, a), count(*) FILTER (WHERE k = 1) AS \"1_n\", \
             max(a) FILTER (WHERE k = 1) AS \"1_max(a)\", count(*) FILTER (WHERE k IS NULL) AS \"NULL_n\", \
             max(a) FILTER (WHERE k IS NULL) AS \"NULL_max(a)\" FROM s GROUP BY ALL)",
        );
        check("SELECT * FROM s PIVOT (sum(a) FOR k IN (ANY))", "'pivot … in (any)' is not run here");
    }

    #[test]
    fn columns_become_values() {
        check(
            "SELECT * FROM s UNPIVOT (amount FOR quarter IN (q1, q2 AS 'second'))",
            "SELECT * FROM (SELECT * EXCLUDE (q1, q2, __place), \
             CASE __place WHEN 0 THEN q1 WHEN 1 THEN q2 END AS amount FROM s \
             CROSS JOIN (VALUES (0, 'q1'), (1, 'second')) AS __unpivot (__place, quarter) \
             WHERE NOT (CASE __place WHEN 0 THEN q1 WHEN 1 THEN q2 END IS NULL))",
        );
    }
}
