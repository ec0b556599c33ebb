//! `listagg(x, separator)`: `string_agg` under the name that Snowflake, Redshift and Oracle have for it, with their
//! `WITHIN GROUP (ORDER BY …)`; and `group_concat`, as MySQL has it.

use datafusion::logical_expr::AggregateUDF;
use datafusion::sql::sqlparser::ast::{
    Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause, FunctionArguments,
};
use flumen_core::Result;

use super::literal;

/// `string_agg`, with its other names.
pub(super) fn function() -> AggregateUDF {
    datafusion::functions_aggregate::string_agg::string_agg_udaf()
        .as_ref()
        .clone()
        .with_aliases(["listagg", "group_concat"])
}

/// Gives a call a separator, and its order the place where it is looked for.
pub(super) fn spell(name: &str, call: &mut Function) -> Result<()> {
    let separator = match name {
        "listagg" => "",
        "group_concat" => ",",
        "string_agg" => "",
        _ => return Ok(()),
    };
    let FunctionArguments::List(list) = &mut call.args else { return Ok(()) };
    if list.args.len() == 1 && name != "string_agg" {
        list.args.push(FunctionArg::Unnamed(FunctionArgExpr::Expr(literal(separator))));
    }
    if !call.within_group.is_empty() {
        list.clauses.push(FunctionArgumentClause::OrderBy(std::mem::take(&mut call.within_group)));
    }
    Ok(())
}
