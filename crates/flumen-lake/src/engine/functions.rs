//! The functions that people of other warehouses miss, each in a file of its own with one line here.
//!
//! Some are functions of DataFusion's kind. The others are written in SQL: a call is replaced by an expression before the query
//! is planned, so that types and push-down are those of what stands there then. Calls that other dialects write in another
//! way (a unit without quotes, arguments in another order) are given the one form that is planned.

mod conditions;
mod count_if;
mod date_add;
mod date_diff;
mod date_parts;
mod date_series;
mod extremes;
mod json;
mod last_day;
mod listagg;
mod mode;
pub(super) mod postgres;
mod surrogate_key;
mod to_timestamp;
mod unit;
mod words;

use std::ops::{ControlFlow, RangeInclusive};
use std::sync::Arc;

use datafusion::common::DataFusionError;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::ScalarUDF;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Query, SelectItem, SetExpr, Statement as Sql,
    Value, VisitMut, VisitorMut,
};
use flumen_core::{Error, Result};

use super::{statements, visit};

/// Makes the functions known to `state`.
pub(super) fn register(state: &mut SessionState) -> datafusion::common::Result<()> {
    for function in [date_diff::function(), date_add::function(), conditions::coalesce()] {
        state.register_udf(Arc::new(function))?;
    }
    for function in [listagg::function(), mode::function()] {
        state.register_udaf(Arc::new(function))?;
    }
    json::register(state)?;
    for function in to_timestamp::functions(state) {
        state.register_udf(Arc::new(function))?;
    }
    state.register_udtf(date_series::NAME, Arc::new(date_series::DateSeries));
    Ok(())
}

/// The functions that are written in SQL.
const WRITTEN: &[&[Written]] = &[
    conditions::WRITTEN,
    count_if::WRITTEN,
    date_parts::WRITTEN,
    extremes::WRITTEN,
    json::WRITTEN,
    last_day::WRITTEN,
    surrogate_key::WRITTEN,
    words::WRITTEN,
];

/// What gives a call the form that is planned, where its name is one that it knows.
const FORMS: &[fn(&str, &mut Function) -> Result<()>] = &[unit::spell, listagg::spell, mode::spell, postgres::patterns];

/// A function that is written in SQL.
struct Written {
    names: &'static [&'static str],
    arguments: RangeInclusive<usize>,
    /// How it is called, for who calls it otherwise.
    usage: &'static str,
    /// The expression, in which `$1` is the first argument. Each argument should stand in it once: it may be costly, or give
    /// another value each time.
    sql: Text,
}

enum Text {
    Same(&'static str),
    /// For who must see the arguments.
    Of(fn(&[Expr]) -> Result<String>),
}

/// The names of the functions that are written in SQL, and what each takes.
pub(super) fn written() -> impl Iterator<Item = (&'static str, &'static str)> {
    WRITTEN.iter().flat_map(|of_file| of_file.iter()).flat_map(|written| {
        let arguments = written.usage.split_once('(').and_then(|(_, rest)| rest.split_once(')'));
        let arguments = arguments.map_or("", |(arguments, _)| arguments);
        written.names.iter().map(move |name| (*name, arguments))
    })
}

/// Replaces the calls in `statement` that DataFusion would not understand.
///
/// Errors: `Invalid` for a call with too few or too many arguments.
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

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        // Before what is in it: what it becomes is looked at as well.
        match rewritten(expr) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

fn rewritten(expr: &mut Expr) -> Result<()> {
    let Expr::Function(call) = expr else {
        json::spell(expr)?;
        return postgres::spell(expr);
    };
    let [part] = call.name.0.as_slice() else { return Ok(()) };
    let Some(name) = part.as_ident().map(super::write::name_of_ident) else { return Ok(()) };
    for form in FORMS {
        form(&name, call)?;
    }
    let made = match date_add::plus_interval(&name, call) {
        Some(made) => Some(made),
        None => json::aggregate(&name, call)?,
    };
    if let Some(made) = made {
        *expr = made;
        return Ok(());
    }
    let mut written = WRITTEN.iter().flat_map(|of_file| of_file.iter());
    let Some(written) = written.find(|written| written.names.contains(&name.as_str())) else { return Ok(()) };
    *expr = written.call(&name, call)?;
    Ok(())
}

impl Written {
    fn call(&self, name: &str, call: &Function) -> Result<Expr> {
        let given = arguments(call).filter(|given| self.arguments.contains(&given.len()));
        let given = given.ok_or_else(|| {
            Error::invalid(format!("{name} is called in a way that it does not have"))
                .hint(format!("write {}", self.usage))
        })?;
        let text = match &self.sql {
            Text::Same(text) => (*text).to_owned(),
            Text::Of(make) => make(&given)?,
        };
        let mut made = filled(&text, &given)?;
        match &mut made {
            // An aggregate keeps what stands behind the call.
            Expr::Function(made) => {
                if call.filter.is_some() {
                    made.filter.clone_from(&call.filter);
                }
                made.over.clone_from(&call.over);
            }
            _ if call.over.is_some() || call.filter.is_some() => {
                return Err(Error::invalid(format!("{name} is about one row: it takes no OVER and no FILTER")));
            }
            _ => made = Expr::Nested(Box::new(made)),
        }
        Ok(made)
    }
}

/// The expression `text`, with `given` in the places of `$1`, `$2`, ….
pub(super) fn filled(text: &str, given: &[Expr]) -> Result<Expr> {
    let mut made = expression(text)?;
    fill(&mut made, given);
    Ok(made)
}

/// Puts `given` in the places of `$1`, `$2`, … in `made`.
pub(super) fn fill(made: &mut impl VisitMut, given: &[Expr]) {
    visit::change(made, &mut Filler { given });
}

struct Filler<'a> {
    given: &'a [Expr],
}

impl VisitorMut for Filler<'_> {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let Expr::Value(value) = expr else { return ControlFlow::Continue(()) };
        let Value::Placeholder(place) = &value.value else { return ControlFlow::Continue(()) };
        let number = place.strip_prefix('$').and_then(|digits| digits.parse::<usize>().ok());
        if let Some(given) = number.and_then(|number| self.given.get(number.checked_sub(1)?)) {
            *expr = match given {
                Expr::Value(_) | Expr::Identifier(_) | Expr::CompoundIdentifier(_) | Expr::Function(_) => given.clone(),
                other => Expr::Nested(Box::new(other.clone())),
            };
        }
        ControlFlow::Continue(())
    }
}

/// The arguments of a call; none if they are more than expressions one after the other.
fn arguments(call: &Function) -> Option<Vec<Expr>> {
    let FunctionArguments::List(list) = &call.args else { return None };
    if list.duplicate_treatment.is_some() || !list.clauses.is_empty() || !call.within_group.is_empty() {
        return None;
    }
    let of_argument = |argument: &FunctionArg| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    };
    list.args.iter().map(of_argument).collect()
}

/// Gives a call these arguments.
fn set_arguments(call: &mut Function, arguments: Vec<Expr>) {
    if let FunctionArguments::List(list) = &mut call.args {
        list.args = arguments.into_iter().map(|expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))).collect();
    }
}

/// A text in quotes as an expression.
fn literal(text: &str) -> Expr {
    Expr::Value(Value::SingleQuotedString(text.to_owned()).into())
}

/// An expression from its text.
fn expression(text: &str) -> Result<Expr> {
    let wrong = || Error::internal(format!("'{text}' is not one expression"));
    let Statement::Statement(statement) = statements::parse_any(&format!("SELECT {text}"))? else {
        return Err(wrong());
    };
    let Sql::Query(query) = *statement else { return Err(wrong()) };
    let Query { body, .. } = *query;
    let SetExpr::Select(mut select) = *body else { return Err(wrong()) };
    match (select.projection.pop(), select.projection.is_empty()) {
        (Some(SelectItem::UnnamedExpr(expr)), true) => Ok(expr),
        _ => Err(wrong()),
    }
}

/// An error of ours on its way through DataFusion.
fn travelling(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// A function of DataFusion's, under more names.
fn renamed(function: Arc<ScalarUDF>, names: &[&'static str]) -> ScalarUDF {
    function.as_ref().clone().with_aliases(names.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sql: &str, expect: &str) {
        let mut statement = statements::parse(sql).expect(sql);
        let text = match rewrite(&mut statement) {
            Ok(()) => statement.to_string(),
            Err(error) => format!("{error} ({})", error.remedy().unwrap_or("-")),
        };
        assert_eq!(text, expect, "{sql}");
    }

    #[test]
    fn units_are_words_and_come_first() {
        check("SELECT datediff(day, a, b)", "SELECT datediff('day', a, b)");
        check("SELECT date_diff(b, a, MONTH)", "SELECT date_diff('MONTH', a, b)");
        check("SELECT datediff(b, a)", "SELECT datediff('day', a, b)");
        check("SELECT datediff(dya, a, b)", "SELECT datediff('dya', a, b)");
        check(
            "SELECT date_trunc(month, d), date_trunc(d, month)",
            "SELECT date_trunc('month', d), date_trunc('month', d)",
        );
        check("SELECT date_trunc('month', day)", "SELECT date_trunc('month', day)");
        check(
            "SELECT datediff('day', s, d), datediff(d, s, day)",
            "SELECT datediff('day', s, d), datediff('d', s, day)",
        );
        check("SELECT date_diff(d, s, day)", "SELECT date_diff('day', s, d)");
        check("SELECT dateadd(hour, 1 + 2, d)", "SELECT dateadd('hour', 1 + 2, d)");
        check("SELECT date_add(d, 3), date_sub(d, 3)", "SELECT date_add('day', 3, d), date_add('day', -(3), d)");
        check("SELECT date_add(d, INTERVAL 1 DAY)", "SELECT (d + INTERVAL 1 DAY)");
        check("SELECT date_sub(d, INTERVAL '1' DAY)", "SELECT (d - INTERVAL '1' DAY)");
    }

    #[test]
    fn calls_become_expressions() {
        check("SELECT iff(a > 1, 'x', b)", "SELECT (CASE WHEN (a > 1) THEN 'x' ELSE b END)");
        check("SELECT zeroifnull(iff(a, 1, null))", "SELECT coalesce((CASE WHEN a THEN 1 ELSE NULL END), 0)");
        check("SELECT year(d), len(s)", "SELECT date_part('year', d), length(s)");
        check(
            "SELECT count_if(a > 1) OVER (PARTITION BY b)",
            "SELECT count(CASE WHEN (a > 1) THEN 1 END) OVER (PARTITION BY b)",
        );
        check("SELECT iff(a)", "iff is called in a way that it does not have (write iff(condition, then, otherwise))");
        check("SELECT listagg(a) WITHIN GROUP (ORDER BY b DESC)", "SELECT listagg(a, '' ORDER BY b DESC)");
        check("SELECT mode() WITHIN GROUP (ORDER BY a)", "SELECT mode(a)");
        check("SELECT j -> 'a' ->> 'b'", "SELECT json_as_text((json_get_json(j, 'a')), 'b')");
        check("SELECT j #>> '{a, 0}'", "SELECT json_as_text(j, 'a', '0')");
        check("SELECT json_extract(j, '$.a[0]')", "SELECT json_get_json(j, 'a', 0)");
        check(
            "SELECT json_agg(a ORDER BY b) FILTER (WHERE a > 1)",
            "SELECT ('[' || array_to_string(array_agg(coalesce(to_json(a), 'null') ORDER BY b) FILTER (WHERE a > 1), ',') || ']')",
        );
    }
}
