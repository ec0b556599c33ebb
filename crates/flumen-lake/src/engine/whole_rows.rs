//! A table's name where a column's could stand means the whole row, as in Postgres and DuckDB: `json_agg(t)`, `select t from t`.
//!
//! Which columns a row has is only known to the planner. So a name that it does not find as a column, and that is one of a table
//! in its sight, is written as a struct of that table's columns, and planned once more.

use std::ops::ControlFlow;

use datafusion::common::Column;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, ObjectName, Select,
    SelectItem, Statement as Sql, Value, VisitorMut,
};

use super::visit;

/// Writes out the rows that are called `missing` in `statement`, where a table is called so that `in_sight` has columns of. Gives
/// whether there was such a thing.
pub(super) fn written_out(statement: &mut Statement, missing: &Column, in_sight: &[Column]) -> bool {
    let table = missing.name();
    let of_table = |column: &&Column| column.relation.as_ref().is_some_and(|relation| relation.table() == table);
    let names: Vec<&str> =
        in_sight.iter().filter(of_table).map(Column::name).filter(|name| !name.starts_with("_flumen_")).collect();
    if names.is_empty() || missing.relation.is_some() {
        return false;
    }
    let mut rows = Rows { table, row: row(table, &names), found: false };
    if let Some(statement) = inner(statement) {
        visit::change(statement, &mut rows);
    }
    rows.found
}

fn inner(statement: &mut Statement) -> Option<&mut Sql> {
    match statement {
        Statement::Statement(inner) => Some(inner),
        Statement::Explain(explain) => inner(&mut explain.statement),
        _ => None,
    }
}

/// The columns `names` of `table` as a struct.
fn row(table: &str, names: &[&str]) -> Expr {
    let quoted = |name: &str| Ident::with_quote('"', name);
    let pair = |name: &&str| {
        let column = Expr::CompoundIdentifier(vec![quoted(table), quoted(name)]);
        [Expr::value(Value::SingleQuotedString((*name).to_owned())), column]
    };
    let argument = |expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr));
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new("named_struct")]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: names.iter().flat_map(pair).map(argument).collect(),
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

struct Rows<'a> {
    table: &'a str,
    row: Expr,
    found: bool,
}

impl Rows<'_> {
    fn is_row(&self, expr: &Expr) -> bool {
        match expr {
            Expr::Identifier(Ident { value, quote_style: None, .. }) => value.to_lowercase() == self.table,
            Expr::Identifier(Ident { value, .. }) => value == self.table,
            _ => false,
        }
    }
}

impl VisitorMut for Rows<'_> {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        for item in &mut select.projection {
            if let SelectItem::UnnamedExpr(expr) = &*item
                && self.is_row(expr)
            {
                self.found = true;
                *item = SelectItem::ExprWithAlias { expr: self.row.clone(), alias: Ident::with_quote('"', self.table) };
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if self.is_row(expr) {
            self.found = true;
            *expr = self.row.clone();
        }
        ControlFlow::Continue(())
    }
}
