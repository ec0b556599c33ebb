//! What Postgres calls the columns that a query does not name.

use datafusion::sql::sqlparser::ast::{Expr, Query, SelectItem, SetExpr};

use super::types::Column;

/// Gives the columns of `query` that have no name of their own the names that Postgres would give them.
pub(super) fn rename(query: &Query, columns: &mut [Column]) {
    let SetExpr::Select(select) = first(&query.body) else { return };
    // A star stands for an unknown number of columns.
    if select.projection.len() != columns.len() {
        return;
    }
    for (item, column) in select.projection.iter().zip(columns) {
        if let SelectItem::UnnamedExpr(expression) = item
            && let Some(name) = of(expression)
        {
            column.name = name;
        }
    }
}

fn first(body: &SetExpr) -> &SetExpr {
    match body {
        SetExpr::SetOperation { left, .. } => first(left),
        SetExpr::Query(query) => first(&query.body),
        other => other,
    }
}

/// The name of `expression`; none for a column, whose spelling is the table's.
pub(crate) fn of(expression: &Expr) -> Option<String> {
    Some(match expression {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => return None,
        Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => return of(inner),
        Expr::Function(function) => function.name.0.last()?.as_ident()?.value.to_lowercase(),
        Expr::Cast { expr, data_type, .. } => match expr.as_ref() {
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) => return None,
            inner => match of(inner)?.as_str() {
                "?column?" => type_name(&data_type.to_string()),
                name => name.to_owned(),
            },
        },
        Expr::Case { .. } => "case".to_owned(),
        Expr::Exists { .. } => "exists".to_owned(),
        Expr::Array(_) => "array".to_owned(),
        Expr::Extract { .. } => "extract".to_owned(),
        Expr::Substring { .. } => "substring".to_owned(),
        Expr::Trim { .. } => "btrim".to_owned(),
        Expr::Position { .. } => "position".to_owned(),
        Expr::Ceil { .. } => "ceil".to_owned(),
        Expr::Floor { .. } => "floor".to_owned(),
        Expr::TypedString(string) => type_name(&string.data_type.to_string()),
        Expr::Subquery(query) => match first(&query.body) {
            SetExpr::Select(select) => match select.projection.first()? {
                SelectItem::UnnamedExpr(inner) => of(inner).or_else(|| last_name(inner))?,
                SelectItem::ExprWithAlias { alias, .. } => alias.value.clone(),
                _ => return None,
            },
            _ => "?column?".to_owned(),
        },
        _ => "?column?".to_owned(),
    })
}

/// The name of a column without its table.
pub(crate) fn last_name(expression: &Expr) -> Option<String> {
    match expression {
        Expr::Identifier(ident) => Some(ident.value.clone()),
        Expr::CompoundIdentifier(idents) => idents.last().map(|ident| ident.value.clone()),
        Expr::Nested(inner) | Expr::Cast { expr: inner, .. } => last_name(inner),
        _ => None,
    }
}

fn type_name(written: &str) -> String {
    let base = written.split('(').next().unwrap_or_default().trim().to_lowercase();
    let short = base.rsplit('.').next().unwrap_or_default();
    match short {
        "int" | "integer" => "int4",
        "bigint" => "int8",
        "smallint" => "int2",
        "boolean" => "bool",
        "double precision" | "double" => "float8",
        "real" => "float4",
        "decimal" => "numeric",
        "character varying" => "varchar",
        other => other,
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use postgres_types::Type;

    #[test]
    fn names_as_postgres_gives_them() {
        let sql = "select count(*), a.b, 1 + 1, x::text, 'y'::date, case when true then 1 end, (select max(z)), \
                   lower('A')::varchar, named as n";
        let query = crate::statement::parse(sql).expect("a query");
        let mut columns: Vec<Column> = (0..9).map(|n| Column::new(n.to_string(), Type::TEXT)).collect();
        rename(&query, &mut columns);
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(names, ["count", "1", "?column?", "3", "date", "case", "max", "lower", "8"]);
    }
}
