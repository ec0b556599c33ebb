//! Queries within what is aggregated: `sum(case when x in (select …) then 1 end)`, `count(*) filter (where exists (…))`, and columns
//! that rows are grouped by. DataFusion has no queries there: they are asked for each row first, in a table of their own that has
//! the answers as columns more, and what is aggregated are those.
//!
//! Only where rows come from one table: those of several may have columns of one name, which one table cannot.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::LazyLock;

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Ident, Query, Select, SelectItem,
    TableAlias, TableFactor, Value, Visitor, VisitorMut,
};
use flumen_core::Result;

use super::pivot::{derived, select_of, template};
use super::visit;
use super::write::name_of;

/// Asks the queries within what `select` aggregates, and groups by, before it does so.
///
/// Errors: `Invalid` for a name that is none.
pub(super) fn rewrite(select: &mut Select) -> Result<()> {
    let [from] = select.from.as_slice() else { return Ok(()) };
    if !from.joins.is_empty() || select.distinct.is_some() && has_query(&select.projection) {
        return Ok(());
    }
    let Some(called) = name_of_table(&from.relation)? else { return Ok(()) };
    let mut asked = Asked::default();
    asked.groups(select);
    let having = select.having.as_mut();
    for expr in select.projection.iter_mut().filter_map(expr_of).chain(having) {
        visit::change(expr, &mut Aggregates { asked: &mut asked, depth: 0 });
    }
    if asked.0.is_empty() {
        return Ok(());
    }
    let mut query = template("SELECT * FROM t")?;
    let inner = select_of(&mut query)?;
    inner.projection.extend(asked.0.into_iter().enumerate().map(|(place, expr)| {
        let alias = column(place);
        SelectItem::ExprWithAlias { expr, alias }
    }));
    inner.from = std::mem::take(&mut select.from);
    inner.selection = select.selection.take();
    let mut outer = template("SELECT * FROM t")?;
    select.from = std::mem::take(&mut select_of(&mut outer)?.from);
    let alias = TableAlias { explicit: true, name: called, columns: Vec::new(), at: None };
    super::pivot::set_table(select, &derived(query, Some(alias)))
}

/// What a table is called; none for what is no table, nor a query.
fn name_of_table(factor: &TableFactor) -> Result<Option<Ident>> {
    Ok(match factor {
        TableFactor::Table { alias: Some(alias), .. } | TableFactor::Derived { alias: Some(alias), .. } => {
            Some(alias.name.clone())
        }
        TableFactor::Table { name, .. } => Some(Ident::with_quote('"', name_of(name)?)),
        TableFactor::Derived { .. } => Some(Ident::new("_rows")),
        _ => None,
    })
}

fn expr_of(item: &mut SelectItem) -> Option<&mut Expr> {
    match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(expr),
        _ => None,
    }
}

/// The column that has the answers to the question at `place`.
fn column(place: usize) -> Ident {
    Ident::with_quote('"', format!("_asked_{place}"))
}

/// What is asked first, each once.
#[derive(Default)]
struct Asked(Vec<Expr>);

impl Asked {
    /// Puts the column with its answers in the place of `expr`.
    fn take(&mut self, expr: &mut Expr) {
        let place = self.0.iter().position(|other| other == expr).unwrap_or_else(|| {
            self.0.push(expr.clone());
            self.0.len() - 1
        });
        *expr = Expr::Identifier(column(place));
    }

    /// The columns by which rows are grouped, whether written there or named by their places.
    fn groups(&mut self, select: &mut Select) {
        let GroupByExpr::Expressions(by, _) = &mut select.group_by else { return };
        let mut items: Vec<&mut Expr> = select.projection.iter_mut().filter_map(expr_of).collect();
        for group in by {
            let named = match group {
                Expr::Value(value) => match &value.value {
                    Value::Number(place, _) => place.parse::<usize>().ok().and_then(|place| place.checked_sub(1)),
                    _ => None,
                },
                _ => None,
            };
            match named {
                Some(place) => {
                    if let Some(item) = items.get_mut(place).filter(|item| has_query(&***item)) {
                        self.take(item);
                    }
                }
                None if has_query(group) => {
                    let same = items.iter_mut().filter(|item| ***item == *group);
                    same.for_each(|item| self.take(item));
                    self.take(group);
                }
                None => {}
            }
        }
    }
}

/// Whether there is a query within.
fn has_query(node: &impl datafusion::sql::sqlparser::ast::Visit) -> bool {
    let mut queries = Queries(false);
    visit::look(node, &mut queries);
    queries.0
}

struct Queries(bool);

impl Visitor for Queries {
    type Break = ();

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.0 = true;
        ControlFlow::Break(())
    }
}

/// Finds aggregates, outside of queries within.
struct Aggregates<'a> {
    asked: &'a mut Asked,
    depth: usize,
}

impl VisitorMut for Aggregates<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let Expr::Function(call) = expr else { return ControlFlow::Continue(()) };
        if self.depth > 0 || call.over.is_some() || !is_aggregate(call) {
            return ControlFlow::Continue(());
        }
        if let FunctionArguments::List(list) = &mut call.args {
            for argument in &mut list.args {
                if let FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) = argument
                    && has_query(expr)
                {
                    self.asked.take(expr);
                }
            }
        }
        if let Some(filter) = call.filter.as_deref_mut().filter(|filter| has_query(*filter)) {
            self.asked.take(filter);
        }
        ControlFlow::Continue(())
    }
}

/// Whether `call` puts several rows together.
fn is_aggregate(call: &Function) -> bool {
    static NAMES: LazyLock<HashSet<String>> = LazyLock::new(|| {
        let all = datafusion::functions_aggregate::all_default_aggregate_functions();
        let names =
            all.iter().flat_map(|function| function.aliases().iter().cloned().chain([function.name().to_owned()]));
        names.chain(["mode".to_owned(), "listagg".to_owned()]).collect()
    });
    call.filter.is_some() || NAMES.contains(&call.name.to_string().to_lowercase())
}
