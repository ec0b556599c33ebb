//! Visitors of a statement's parts, behind one type.
//!
//! The syntax tree's walk is generic in its visitor, and each kind of visitor would have some 300 KB of code generated for it. Here
//! the walk meets all of them as the same two: those that look, those that change.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, ObjectName, Query, Select, Statement, TableFactor, ValueWithSpan, Visit, VisitMut, Visitor, VisitorMut,
};
use flumen_core::{Error, Result};

/// Shows the parts of `node` to `visitor`, until it breaks off.
pub(super) fn look(node: &impl Visit, visitor: &mut dyn Visitor<Break = ()>) {
    let _: ControlFlow<()> = node.visit(&mut Looking(visitor));
}

/// [`look`] at a query, for what reads queries elsewhere.
pub fn look_at_query(query: &Query, visitor: &mut dyn Visitor<Break = ()>) {
    look(query, visitor);
}

/// Gives the parts of `node` to `visitor`, which may change them, until it breaks off.
pub(super) fn change(node: &mut impl VisitMut, visitor: &mut dyn VisitorMut<Break = ()>) {
    let _: ControlFlow<()> = node.visit(&mut Changing(visitor));
}

/// [`change`] by a visitor that may fail.
///
/// Errors: the one with which it breaks off.
pub(super) fn try_change(node: &mut impl VisitMut, visitor: &mut dyn VisitorMut<Break = Error>) -> Result<()> {
    match node.visit(&mut Changing(visitor)) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Looking<'a>(&'a mut dyn Visitor<Break = ()>);

struct Changing<'a, B>(&'a mut dyn VisitorMut<Break = B>);

/// Passes places on to the visitor within.
macro_rules! pass_on {
    ($($place:ident: $part:ty),*) => {
        $(fn $place(&mut self, part: $part) -> ControlFlow<Self::Break> {
            self.0.$place(part)
        })*
    };
}

impl Visitor for Looking<'_> {
    type Break = ();

    pass_on!(
        pre_visit_query: &Query,
        post_visit_query: &Query,
        pre_visit_select: &Select,
        post_visit_select: &Select,
        pre_visit_relation: &ObjectName,
        post_visit_relation: &ObjectName,
        pre_visit_table_factor: &TableFactor,
        post_visit_table_factor: &TableFactor,
        pre_visit_expr: &Expr,
        post_visit_expr: &Expr,
        pre_visit_statement: &Statement,
        post_visit_statement: &Statement,
        pre_visit_value: &ValueWithSpan,
        post_visit_value: &ValueWithSpan
    );
}

impl<B> VisitorMut for Changing<'_, B> {
    type Break = B;

    pass_on!(
        pre_visit_query: &mut Query,
        post_visit_query: &mut Query,
        pre_visit_select: &mut Select,
        post_visit_select: &mut Select,
        pre_visit_relation: &mut ObjectName,
        post_visit_relation: &mut ObjectName,
        pre_visit_table_factor: &mut TableFactor,
        post_visit_table_factor: &mut TableFactor,
        pre_visit_expr: &mut Expr,
        post_visit_expr: &mut Expr,
        pre_visit_statement: &mut Statement,
        post_visit_statement: &mut Statement,
        pre_visit_value: &mut ValueWithSpan,
        post_visit_value: &mut ValueWithSpan
    );
}
