//! Shapes of queries that DataFusion does not plan, or passes over: samples of a table, `FETCH FIRST`, `EXISTS` and
//! `IN (SELECT …)` among the columns of an answer, and queries within what is aggregated (`asked_first.rs`).

use std::ops::ControlFlow;

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    Expr, GroupByExpr, Ident, LimitClause, Query, Select, SelectItem, SetExpr, TableAlias, TableAliasColumnDef,
    TableFactor, TableSample, TableSampleKind, TableSampleUnit, Value, Visitor, VisitorMut,
};
use flumen_core::{Error, Result};

use super::asked_first;
use super::functions::filled;
use super::pivot::{derived, select_of, set_table, template};
use super::visit;
use super::write::{name_of, refuse};

/// Rewrites what is in `statement`.
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

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        match fetched(query) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        match asked_first::rewrite(select).and_then(|()| existing(select)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        match sampled(factor) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

/// `FETCH FIRST 3 ROWS ONLY` is `LIMIT 3`.
fn fetched(query: &mut Query) -> Result<()> {
    let Some(fetch) = query.fetch.take() else { return Ok(()) };
    if fetch.with_ties || fetch.percent {
        return refuse(
            "fetch first … with ties, or of percents",
            "write a window: qualify rank() over (order by …) <= 3",
        );
    }
    let wanted = fetch.quantity.unwrap_or_else(|| Expr::Value(Value::Number("1".to_owned(), false).into()));
    match &mut query.limit_clause {
        None => {
            let (limit, limit_by) = (Some(wanted), Vec::new());
            query.limit_clause = Some(LimitClause::LimitOffset { limit, offset: None, limit_by });
        }
        Some(LimitClause::LimitOffset { limit: limit @ None, .. }) => *limit = Some(wanted),
        Some(_) => return Err(Error::invalid("a query has one limit, not limit and fetch")),
    }
    Ok(())
}

/// `EXISTS (…)` among the columns of an answer is `(SELECT count(*) …) > 0`. In conditions, DataFusion makes a join of it.
fn existing(select: &mut Select) -> Result<()> {
    for item in &mut select.projection {
        if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
            visit::try_change(expr, &mut Existing { depth: 0 })?;
        }
    }
    Ok(())
}

struct Existing {
    depth: usize,
}

impl VisitorMut for Existing {
    type Break = Error;

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<Error> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<Error> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        if self.depth > 0 {
            return ControlFlow::Continue(());
        }
        let made = match expr {
            Expr::Exists { subquery, negated } => {
                let compared = if *negated { "($1 = 0)" } else { "($1 > 0)" };
                counted(subquery).and_then(|count| filled(compared, &[Expr::Subquery(Box::new(count))]))
            }
            Expr::InSubquery { expr: value, subquery, negated } => within(value, subquery, *negated),
            _ => return ControlFlow::Continue(()),
        };
        match made {
            Ok(made) => *expr = made,
            Err(error) => return ControlFlow::Break(error),
        }
        ControlFlow::Continue(())
    }
}

/// What the query within is called in what `x IN (query)` becomes.
pub(super) const WITHIN: &str = "_in";

/// `value IN (query)` among the columns of an answer: true if a row has the value; else null if that cannot be known, because it
/// is null or a row is; else false.
fn within(value: &Expr, query: &Query, negated: bool) -> Result<Expr> {
    if matches!(value, Expr::Tuple(_)) {
        return refuse("(a, b) in (select …) among the columns", "write exists (select … where a = … and b = …)");
    }
    let (same, any, null) = match within_place(value, query) {
        // One that looks at the row outside of it can only do so from where it stands.
        Some((select, own)) => {
            let count = |condition: Option<&str>| -> Result<Expr> {
                let mut select = select.clone();
                if let Some(condition) = condition {
                    let condition = filled(condition, &[own.clone(), value.clone()])?;
                    select.selection = Some(match select.selection.take() {
                        Some(before) => filled("$1 AND $2", &[before, condition])?,
                        None => condition,
                    });
                }
                select.projection = select_of(&mut template("SELECT count(*) FROM t")?)?.projection.clone();
                let mut counting = query.clone();
                *counting.body = SetExpr::Select(Box::new(select));
                Ok(Expr::Subquery(Box::new(counting)))
            };
            (count(Some("$1 = $2"))?, count(None)?, count(Some("$1 IS NULL"))?)
        }
        None => {
            let count = |condition: &str| -> Result<Expr> {
                let mut count = template(&format!("SELECT count(*) FROM t{condition}"))?;
                let column = TableAliasColumnDef { name: Ident::new("_value"), data_type: None };
                let alias = TableAlias { explicit: true, name: Ident::new(WITHIN), columns: vec![column], at: None };
                set_table(select_of(&mut count)?, &derived(query.clone(), Some(alias)))?;
                super::functions::fill(&mut count, std::slice::from_ref(value));
                Ok(Expr::Subquery(Box::new(count)))
            };
            (count(" WHERE _in._value = $1")?, count("")?, count(" WHERE _in._value IS NULL")?)
        }
    };
    let text = "(CASE WHEN $1 > 0 THEN $5 WHEN $2 IS NULL AND $3 > 0 THEN NULL WHEN $4 > 0 THEN NULL ELSE $6 END)";
    let truth = |yes: bool| Expr::Value(Value::Boolean(yes != negated).into());
    filled(text, &[same, value.clone(), any, null, truth(true), truth(false)])
}

/// The select of a plain `query` and its one column, if `value` means the same within it: all its names say of which table they
/// are.
fn within_place<'a>(value: &Expr, query: &'a Query) -> Option<(&'a Select, &'a Expr)> {
    let SetExpr::Select(select) = query.body.as_ref() else { return None };
    let [SelectItem::UnnamedExpr(own) | SelectItem::ExprWithAlias { expr: own, .. }] = select.projection.as_slice()
    else {
        return None;
    };
    let mut bare = Bare(false);
    visit::look(value, &mut bare);
    (is_plain(query) && is_ungrouped(select) && !bare.0).then_some((select, own))
}

/// Whether there is a name without that of a table.
struct Bare(bool);

impl Visitor for Bare {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        self.0 |= matches!(expr, Expr::Identifier(_));
        ControlFlow::Continue(())
    }
}

fn is_plain(query: &Query) -> bool {
    query.with.is_none() && query.limit_clause.is_none() && query.fetch.is_none()
}

/// How many rows `query` has.
fn counted(query: &Query) -> Result<Query> {
    let mut count = template("SELECT count(*) FROM t")?;
    match query.body.as_ref() {
        // One that looks at the row outside of it can only do so from where it stands.
        SetExpr::Select(select) if is_plain(query) && is_ungrouped(select) => {
            let projection = select_of(&mut count)?.projection.clone();
            let mut select = select.clone();
            select.projection = projection;
            *count.body = SetExpr::Select(select);
        }
        _ => {
            let alias = TableAlias { explicit: true, name: Ident::new("_exists"), columns: Vec::new(), at: None };
            set_table(select_of(&mut count)?, &derived(query.clone(), Some(alias)))?;
        }
    }
    Ok(count)
}

fn is_ungrouped(select: &Select) -> bool {
    let groups = !matches!(&select.group_by, GroupByExpr::Expressions(by, more) if by.is_empty() && more.is_empty());
    let has_call = select.projection.iter().any(|item| item.to_string().contains('('));
    !groups && !has_call && select.distinct.is_none() && select.having.is_none() && select.qualify.is_none()
}

/// `t TABLESAMPLE (10 PERCENT)`: each row is kept with that probability; `(10 ROWS)`: any ten rows.
fn sampled(factor: &mut TableFactor) -> Result<()> {
    let taken = match factor {
        TableFactor::Table { sample, .. } => sample.take(),
        TableFactor::Derived { sample, .. } => sample.take(),
        _ => None,
    };
    let Some(TableSampleKind::BeforeTableAlias(sample) | TableSampleKind::AfterTableAlias(sample)) = taken else {
        return Ok(());
    };
    let text = sample_text(&sample)?;
    let mut query = template(&text)?;
    let alias = match factor {
        TableFactor::Table { name, alias, .. } => match alias.clone() {
            Some(alias) => Some(alias),
            None => Some(TableAlias {
                explicit: true,
                name: Ident::with_quote('"', name_of(name)?),
                columns: Vec::new(),
                at: None,
            }),
        },
        TableFactor::Derived { alias, .. } => alias.clone(),
        _ => None,
    };
    set_table(select_of(&mut query)?, factor)?;
    *factor = derived(query, alias);
    Ok(())
}

fn sample_text(sample: &TableSample) -> Result<String> {
    if sample.seed.is_some() || sample.bucket.is_some() || sample.offset.is_some() {
        return refuse("a sample that is the same each time", "choose rows by their key: where md5(key) < '1a'");
    }
    let quantity = sample.quantity.as_ref();
    let number = quantity.and_then(|quantity| quantity.value.to_string().parse::<f64>().ok());
    let wrong = || {
        Error::invalid("a sample wants a number of percents, or of rows")
            .hint("write: from t tablesample (10 percent), or: from t tablesample (100 rows)")
    };
    let number = number.ok_or_else(wrong)?;
    match quantity.and_then(|quantity| quantity.unit.as_ref()) {
        Some(TableSampleUnit::Rows) if number >= 0.0 && number.fract() == 0.0 => {
            Ok(format!("SELECT * FROM t LIMIT {number}"))
        }
        Some(TableSampleUnit::Percent) | None if (0.0..=100.0).contains(&number) => {
            Ok(format!("SELECT * FROM t WHERE random() * 100 < {number}"))
        }
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::statements;

    fn check(sql: &str, expect: &str) {
        let mut statement = statements::parse(sql).expect(sql);
        let text = match rewrite(&mut statement) {
            Ok(()) => statement.to_string(),
            Err(error) => error.to_string(),
        };
        assert_eq!(text, expect, "{sql}");
    }

    #[test]
    fn samples_are_conditions() {
        check(
            "SELECT t.a FROM s.t TABLESAMPLE (10 PERCENT) WHERE a > 1",
            "SELECT t.a FROM (SELECT * FROM s.t WHERE random() * 100 < 10) AS \"t\" WHERE a > 1",
        );
        check(
            "SELECT * FROM t AS x TABLESAMPLE BERNOULLI (2.5)",
            "SELECT * FROM (SELECT * FROM t AS x WHERE random() * 100 < 2.5) AS x",
        );
        check("SELECT * FROM t TABLESAMPLE (3 ROWS)", "SELECT * FROM (SELECT * FROM t LIMIT 3) AS \"t\"");
        check("SELECT * FROM t TABLESAMPLE (101 PERCENT)", "a sample wants a number of percents, or of rows");
    }

    #[test]
    fn existence_among_columns_is_counted() {
        check(
            "SELECT EXISTS (SELECT 1 FROM b WHERE b.k = a.k) AS e FROM a WHERE EXISTS (SELECT 1 FROM c)",
            "SELECT (((SELECT count(*) FROM b WHERE b.k = a.k)) > 0) AS e FROM a WHERE EXISTS (SELECT 1 FROM c)",
        );
        check(
            "SELECT NOT EXISTS (SELECT max(k) FROM b)",
            "SELECT (((SELECT count(*) FROM (SELECT max(k) FROM b) AS _exists)) = 0)",
        );
    }

    #[test]
    fn being_one_of_a_query_is_counted() {
        check(
            "SELECT NOT k IN (SELECT j FROM b) FROM a WHERE k IN (SELECT 1)",
            "SELECT NOT (CASE WHEN ((SELECT count(*) FROM (SELECT j FROM b) AS _in (_value) WHERE _in._value = k)) > 0 THEN true \
             WHEN k IS NULL AND ((SELECT count(*) FROM (SELECT j FROM b) AS _in (_value))) > 0 THEN NULL \
             WHEN ((SELECT count(*) FROM (SELECT j FROM b) AS _in (_value) WHERE _in._value IS NULL)) > 0 THEN NULL ELSE false END) \
             FROM a WHERE k IN (SELECT 1)",
        );
        check(
            "SELECT a.k IN (SELECT b.j + 1 FROM b WHERE b.i = a.i) FROM a",
            "SELECT (CASE WHEN ((SELECT count(*) FROM b WHERE (b.i = a.i) AND ((b.j + 1) = a.k))) > 0 THEN true \
             WHEN a.k IS NULL AND ((SELECT count(*) FROM b WHERE b.i = a.i)) > 0 THEN NULL \
             WHEN ((SELECT count(*) FROM b WHERE (b.i = a.i) AND ((b.j + 1) IS NULL))) > 0 THEN NULL ELSE false END) FROM a",
        );
    }

    #[test]
    fn fetching_is_limiting() {
        check(
            "SELECT a FROM t ORDER BY a OFFSET 2 ROWS FETCH NEXT 3 ROWS ONLY",
            "SELECT a FROM t ORDER BY a LIMIT 3 OFFSET 2 ROWS",
        );
        check("SELECT a FROM t FETCH FIRST ROW ONLY", "SELECT a FROM t LIMIT 1");
    }
}
