//! From Postgres' syntax to a query that is understood.

use std::cell::RefCell;
use std::sync::Arc;

use datafusion::sql::sqlparser::ast::{
    Cte, Distinct as AstDistinct, Expr, GroupByExpr, Ident, Join as AstJoin, JoinConstraint, JoinOperator, LimitClause,
    ObjectName, OrderBy, OrderByExpr, OrderByKind, Query, Select as AstSelect, SelectItem,
    SelectItemQualifiedWildcardKind, SetExpr, SetOperator, SetQuantifier, TableAlias, TableFactor, TableWithJoins,
    Value as Literal,
};
use postgres_types::Type;

use super::expression::{Comparison, Ex, Node};
use super::listing::Snapshot;
use super::plan::{Body, Direction, Distinct, From, Join, Plan, Select, SetOperation, Source, Step};
use super::scope::{Scope, ScopeColumn};
use super::tables;
use crate::failure::{Failure, code};
use crate::pg::names;

/// Understands queries.
pub(super) struct Compiler<'s> {
    pub snapshot: &'s Snapshot,
    /// The queries of WITH that can be named, the latest last.
    named: RefCell<Vec<(String, Named)>>,
    recursions: RefCell<usize>,
    /// The types of parameters, where they are told.
    pub parameters: RefCell<Vec<Option<Type>>>,
}

#[derive(Clone)]
enum Named {
    Query(Arc<Plan>),
    Working(usize, Vec<(String, Type)>),
}

pub(super) fn unsupported(what: impl std::fmt::Display) -> Failure {
    Failure::new(code::FEATURE_NOT_SUPPORTED, format!("a query about the catalog cannot have this: {what}"))
}

/// A name as Postgres takes it: in lower case, unless it is quoted.
pub(super) fn folded(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

/// The parts of a name.
pub(super) fn parts(name: &ObjectName) -> Vec<String> {
    name.0.iter().filter_map(|part| part.as_ident()).map(folded).collect()
}

impl<'s> Compiler<'s> {
    /// For the catalog as `snapshot` has it.
    pub fn new(snapshot: &'s Snapshot) -> Self {
        Self { snapshot, named: RefCell::default(), recursions: RefCell::default(), parameters: RefCell::default() }
    }

    /// Understands a query within `outer`.
    pub fn query(&self, query: &Query, outer: Option<&Scope<'_>>) -> Result<Plan, Failure> {
        let known = self.named.borrow().len();
        if let Some(with) = &query.with {
            for table in &with.cte_tables {
                let plan = self.with_query(table, with.recursive, outer)?;
                self.named.borrow_mut().push((folded(&table.alias.name), Named::Query(Arc::new(plan))));
            }
        }
        let plan = self.without_with(query, outer);
        self.named.borrow_mut().truncate(known);
        plan
    }

    fn with_query(&self, table: &Cte, recursive: bool, outer: Option<&Scope<'_>>) -> Result<Plan, Failure> {
        let name = folded(&table.alias.name);
        if let (true, SetExpr::SetOperation { op: SetOperator::Union, left, right, set_quantifier }) =
            (recursive, table.query.body.as_ref())
        {
            let first = self.body(left, None, outer)?;
            let columns = renamed(first.columns.clone(), &table.alias)?;
            let number = self.recursions.replace_with(|number| *number + 1);
            let known = self.named.borrow().len();
            self.named.borrow_mut().push((name, Named::Working(number, columns.clone())));
            let again = self.body(right, None, outer);
            self.named.borrow_mut().truncate(known);
            let all = matches!(set_quantifier, SetQuantifier::All);
            let body = Body::Recursive { first: Arc::new(first), again: Arc::new(again?), all, number };
            return Ok(Plan { columns, body, order: Vec::new(), limit: None, offset: None });
        }
        let mut plan = self.query(&table.query, outer)?;
        plan.columns = renamed(plan.columns, &table.alias)?;
        Ok(plan)
    }

    fn without_with(&self, query: &Query, outer: Option<&Scope<'_>>) -> Result<Plan, Failure> {
        let mut plan = self.body(&query.body, query.order_by.as_ref(), outer)?;
        let empty = Scope::new(Vec::new(), outer);
        let number = |expr: &Expr| {
            let ex = self.expression(expr, &empty)?;
            Ok::<_, Failure>(Some(self.told(ex, &Type::INT8)))
        };
        match &query.limit_clause {
            None => {}
            Some(LimitClause::LimitOffset { limit, offset, .. }) => {
                // `LIMIT ALL` and `LIMIT NULL` are none.
                plan.limit = limit.as_ref().map_or(Ok(None), number)?;
                plan.offset = offset.as_ref().map_or(Ok(None), |offset| number(&offset.value))?;
            }
            Some(LimitClause::OffsetCommaLimit { offset, limit }) => {
                (plan.limit, plan.offset) = (number(limit)?, number(offset)?);
            }
        }
        if let Some(fetch) = &query.fetch {
            let one = || Some(Ex::constant(super::Value::Int(1), Type::INT8));
            plan.limit = fetch.quantity.as_ref().map_or_else(|| Ok(one()), number)?;
        }
        Ok(plan)
    }

    fn body(&self, body: &SetExpr, order: Option<&OrderBy>, outer: Option<&Scope<'_>>) -> Result<Plan, Failure> {
        let plan = |columns: Vec<(String, Type)>, body: Body| Plan {
            columns,
            body,
            order: Vec::new(),
            limit: None,
            offset: None,
        };
        let mut made = match body {
            SetExpr::Select(select) => return self.select(select, order, outer),
            SetExpr::Query(query) => {
                let inner = self.query(query, outer)?;
                plan(inner.columns.clone(), Body::Query(Arc::new(inner)))
            }
            SetExpr::Values(values) => {
                let empty = Scope::new(Vec::new(), outer);
                let row = |row: &Vec<Expr>| row.iter().map(|expr| self.expression(expr, &empty)).collect();
                let rows =
                    values.rows.iter().map(|parens| row(&parens.content)).collect::<Result<Vec<Vec<Ex>>, _>>()?;
                let columns = rows.first().into_iter().flatten().enumerate();
                let columns = columns.map(|(index, ex)| (format!("column{}", index + 1), ex.kind.clone())).collect();
                plan(columns, Body::Values(rows))
            }
            SetExpr::SetOperation { left, op, set_quantifier, right } => {
                let operation = match op {
                    SetOperator::Union => SetOperation::Union,
                    SetOperator::Intersect => SetOperation::Intersect,
                    SetOperator::Except | SetOperator::Minus => SetOperation::Except,
                };
                let (left, right) = (self.body(left, None, outer)?, self.body(right, None, outer)?);
                if left.columns.len() != right.columns.len() {
                    return Err(Failure::new(code::SYNTAX_ERROR, "each query must have the same number of columns"));
                }
                let kind = |(left, right): (&(String, Type), &(String, Type))| {
                    let unknown = matches!(left.1, Type::UNKNOWN);
                    (left.0.clone(), if unknown { right.1.clone() } else { left.1.clone() })
                };
                let columns = left.columns.iter().zip(&right.columns).map(kind).collect();
                let all = matches!(set_quantifier, SetQuantifier::All);
                plan(columns, Body::Set { operation, all, left: Arc::new(left), right: Arc::new(right) })
            }
            other => return Err(unsupported(other)),
        };
        for item in expressions(order)? {
            let column = match &item.expr {
                Expr::Value(value) => match &value.value {
                    Literal::Number(text, _) => text.parse::<usize>().ok().and_then(|number| number.checked_sub(1)),
                    _ => None,
                },
                Expr::Identifier(ident) => made.columns.iter().position(|(name, _)| *name == folded(ident)),
                _ => None,
            };
            let column = column.filter(|column| *column < made.columns.len()).ok_or_else(|| unsupported(&item.expr))?;
            made.order.push((column, direction(item)));
        }
        Ok(made)
    }

    fn select(&self, select: &AstSelect, order: Option<&OrderBy>, outer: Option<&Scope<'_>>) -> Result<Plan, Failure> {
        let (mut from, columns) = self.from(&select.from, outer)?;
        let scope = Scope::new(columns, outer);
        if let Some(selection) = &select.selection {
            let mut conditions = Vec::new();
            conjuncts(selection, &mut conditions);
            for condition in conditions {
                let ex = self.expression(condition, &scope)?;
                from.add_filter(ex);
            }
        }
        let mut projection = Vec::new();
        let mut columns = Vec::new();
        for item in &select.projection {
            self.item(item, &scope, &mut projection, &mut columns)?;
        }
        let output = |expr: &Expr| -> Result<Option<Ex>, Failure> {
            Ok(match expr {
                Expr::Value(value) => match &value.value {
                    Literal::Number(text, _) => {
                        let place = text.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
                        let ex = place.and_then(|place| projection.get(place)).cloned();
                        Some(ex.ok_or_else(|| Failure::new(code::SYNTAX_ERROR, format!("there is no column {text}")))?)
                    }
                    _ => None,
                },
                Expr::Identifier(ident) => {
                    let name = folded(ident);
                    let place = columns.iter().position(|(known, _): &(String, Type)| *known == name);
                    place.map(|place| projection[place].clone())
                }
                _ => None,
            })
        };
        let grouping: &[Expr] = match &select.group_by {
            GroupByExpr::Expressions(expressions, _) => expressions,
            GroupByExpr::All(_) => return Err(unsupported("GROUP BY ALL")),
        };
        let mut group = Vec::new();
        for expr in grouping {
            // A column of the tables comes before one of the answer.
            let ex = match (expr, self.expression(expr, &scope)) {
                (Expr::Value(_), _) | (_, Err(_)) => match output(expr)? {
                    Some(ex) => ex,
                    None => self.expression(expr, &scope)?,
                },
                (_, Ok(ex)) => ex,
            };
            group.push(ex);
        }
        let having = select.having.as_ref().map(|having| self.expression(having, &scope)).transpose()?;
        let mut sorting = Vec::new();
        for item in expressions(order)? {
            let ex = match output(&item.expr)? {
                Some(ex) => ex,
                None => self.expression(&item.expr, &scope)?,
            };
            sorting.push((ex, direction(item)));
        }
        let distinct = match &select.distinct {
            None | Some(AstDistinct::All) => Distinct::No,
            Some(AstDistinct::Distinct) => Distinct::Rows,
            Some(AstDistinct::On(on)) => {
                let mut exs = Vec::new();
                for expr in on {
                    exs.push(match output(expr)? {
                        Some(ex) => ex,
                        None => self.expression(expr, &scope)?,
                    });
                }
                Distinct::On(exs)
            }
        };
        let collected = scope.collected.take();
        let grouped = !group.is_empty() || !collected.aggregates.is_empty() || having.is_some();
        let body = Body::Select(Box::new(Select {
            from,
            grouped,
            group,
            aggregates: collected.aggregates,
            having,
            windows: collected.windows,
            sets: collected.sets,
            projection,
            distinct,
            order: sorting,
        }));
        Ok(Plan { columns, body, order: Vec::new(), limit: None, offset: None })
    }

    fn item(
        &self,
        item: &SelectItem,
        scope: &Scope<'_>,
        projection: &mut Vec<Ex>,
        columns: &mut Vec<(String, Type)>,
    ) -> Result<(), Failure> {
        let mut star = |fits: &dyn Fn(&ScopeColumn) -> bool| {
            let shown = |column: &ScopeColumn| !column.system && fits(column);
            for (index, column) in scope.columns.iter().enumerate().filter(|(_, column)| shown(column)) {
                projection.push(Ex { node: Node::Column { depth: 0, index }, kind: column.kind.clone() });
                columns.push((column.name.clone(), column.kind.clone()));
            }
        };
        let (expr, name) = match item {
            SelectItem::Wildcard(_) => {
                star(&|column| !column.hidden);
                return Ok(());
            }
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) => {
                let table = parts(name).pop().unwrap_or_default();
                star(&|column| column.table == table);
                return Ok(());
            }
            SelectItem::UnnamedExpr(expr) => {
                let name = names::of(expr).or_else(|| match expr {
                    Expr::Identifier(ident) => Some(folded(ident)),
                    Expr::CompoundIdentifier(idents) => idents.last().map(folded),
                    other => names::last_name(other).map(|name| name.to_lowercase()),
                });
                let name = match expr {
                    Expr::CompoundFieldAccess { .. } => super::compile_expression::field_name(expr).or(name),
                    _ => name,
                };
                (expr, name.unwrap_or_else(|| "?column?".to_owned()))
            }
            SelectItem::ExprWithAlias { expr, alias } => (expr, folded(alias)),
            other => return Err(unsupported(other)),
        };
        let ex = self.expression(expr, scope)?;
        let kind = if ex.kind == Type::UNKNOWN { Type::TEXT } else { ex.kind.clone() };
        columns.push((name, kind));
        projection.push(ex);
        Ok(())
    }

    /// The tables of FROM, joined, and their columns.
    fn from(&self, tables: &[TableWithJoins], outer: Option<&Scope<'_>>) -> Result<(From, Vec<ScopeColumn>), Failure> {
        let mut from = From::default();
        let mut columns = Vec::new();
        for table in tables {
            self.join(&table.relation, Join::Inner, None, &mut from, &mut columns, outer)?;
            for join in &table.joins {
                let (kind, constraint) = join_of(join)?;
                self.join(&join.relation, kind, constraint, &mut from, &mut columns, outer)?;
            }
        }
        Ok((from, columns))
    }

    fn join(
        &self,
        factor: &TableFactor,
        join: Join,
        constraint: Option<&JoinConstraint>,
        from: &mut From,
        columns: &mut Vec<ScopeColumn>,
        outer: Option<&Scope<'_>>,
    ) -> Result<(), Failure> {
        let left = Scope::new(columns.clone(), outer);
        let (source, mut found) = self.factor(factor, &left, outer)?;
        let width = found.len();
        let mut on = Vec::new();
        match constraint {
            None | Some(JoinConstraint::None) => columns.append(&mut found),
            Some(JoinConstraint::On(condition)) => {
                columns.append(&mut found);
                let scope = Scope::new(columns.clone(), outer);
                let mut conditions = Vec::new();
                conjuncts(condition, &mut conditions);
                for condition in conditions {
                    on.push(self.expression(condition, &scope)?);
                }
            }
            Some(constraint) => {
                let shared: Vec<String> = match constraint {
                    JoinConstraint::Using(names) => names.iter().filter_map(|name| parts(name).pop()).collect(),
                    _ => {
                        let plain = |column: &&ScopeColumn| !column.hidden && !column.system;
                        let left = |name: &String| columns.iter().filter(plain).any(|column| column.name == *name);
                        found.iter().filter(plain).map(|column| column.name.clone()).filter(left).collect()
                    }
                };
                for name in shared {
                    let place = |columns: &[ScopeColumn]| {
                        columns.iter().position(|column| column.name == name && !column.hidden)
                    };
                    let (Some(a), Some(b)) = (place(columns), place(&found)) else {
                        return Err(Failure::new(
                            code::UNDEFINED_COLUMN,
                            format!("there is no column '{name}' to join by"),
                        ));
                    };
                    let column =
                        |index: usize, kind: &Type| Ex { node: Node::Column { depth: 0, index }, kind: kind.clone() };
                    let (a, b) = (column(a, &columns[a].kind), column(columns.len() + b, &found[b].kind));
                    on.push(Ex { node: Node::Compare(Comparison::Eq, Box::new(a), Box::new(b)), kind: Type::BOOL });
                    if let Some(column) = found.iter_mut().find(|column| column.name == name) {
                        column.hidden = true;
                    }
                }
                columns.append(&mut found);
            }
        }
        from.steps.push(Step { source, width, join, on, filters: Vec::new() });
        Ok(())
    }

    /// A table of FROM, and its columns.
    fn factor(
        &self,
        factor: &TableFactor,
        left: &Scope<'_>,
        outer: Option<&Scope<'_>>,
    ) -> Result<(Source, Vec<ScopeColumn>), Failure> {
        match factor {
            TableFactor::Table { name, alias, args: Some(arguments), with_ordinality, .. } => {
                let call = self.call_in_from(name, &arguments.args, left)?;
                functions(vec![call], parts(name).pop().unwrap_or_default(), *with_ordinality, alias.as_ref())
            }
            TableFactor::Table { name, alias, .. } => self.table(name, alias.as_ref()),
            TableFactor::Function { name, args, with_ordinality, alias, .. } => {
                let call = self.call_in_from(name, args, left)?;
                functions(vec![call], parts(name).pop().unwrap_or_default(), *with_ordinality, alias.as_ref())
            }
            TableFactor::UNNEST { alias, array_exprs, with_ordinality, .. } => {
                let arrays = array_exprs.iter().map(|expr| self.expression(expr, left)).collect::<Result<_, _>>()?;
                functions(arrays, "unnest".to_owned(), *with_ordinality, alias.as_ref())
            }
            TableFactor::Derived { lateral, subquery, alias, .. } => {
                let plan = self.query(subquery, if *lateral { Some(left) } else { outer })?;
                let columns = aliased(plan.columns.clone(), "", None, alias.as_ref())?;
                Ok((Source::Query { plan: Arc::new(plan), lateral: *lateral }, columns))
            }
            TableFactor::NestedJoin { table_with_joins, alias } => {
                let (from, mut columns) = self.from(std::slice::from_ref(table_with_joins), outer)?;
                if let Some(alias) = alias {
                    let plain = columns.into_iter().map(|column| (column.name, column.kind)).collect();
                    columns = aliased(plain, "", None, Some(alias))?;
                }
                Ok((Source::Nested(Box::new(from)), columns))
            }
            other => Err(unsupported(other)),
        }
    }

    fn table(&self, name: &ObjectName, alias: Option<&TableAlias>) -> Result<(Source, Vec<ScopeColumn>), Failure> {
        let parts = parts(name);
        if let [name] = parts.as_slice() {
            let found =
                self.named.borrow().iter().rev().find(|(known, _)| known == name).map(|(_, named)| named.clone());
            match found {
                Some(Named::Query(plan)) => {
                    let columns = aliased(plan.columns.clone(), name, None, alias)?;
                    return Ok((Source::Query { plan, lateral: false }, columns));
                }
                Some(Named::Working(number, columns)) => {
                    let (body, order) = (Body::Working(number), Vec::new());
                    let plan = Plan { columns: columns.clone(), body, order, limit: None, offset: None };
                    let columns = aliased(columns, name, None, alias)?;
                    return Ok((Source::Query { plan: Arc::new(plan), lateral: false }, columns));
                }
                None => {}
            }
        }
        let table = tables::find(&parts).ok_or_else(|| {
            Failure::new(code::UNDEFINED_TABLE, format!("relation \"{}\" does not exist", parts.join(".")))
        })?;
        let columns = table.columns.iter().map(|(name, kind)| (name.clone(), kind.clone())).collect();
        let mut columns = aliased(columns, &table.name, Some(&table.schema), alias)?;
        columns.iter_mut().skip(table.shown).for_each(|column| column.system = true);
        Ok((Source::Rows(self.snapshot.rows(table)), columns))
    }
}

/// Functions in FROM, and their columns.
fn functions(
    calls: Vec<Ex>,
    name: String,
    ordinality: bool,
    alias: Option<&TableAlias>,
) -> Result<(Source, Vec<ScopeColumn>), Failure> {
    let mut columns = Vec::new();
    let mut spread = false;
    // One column is called as the table is.
    let single = alias.map_or(name.clone(), |alias| folded(&alias.name));
    for call in &calls {
        match super::functions::row_of(call) {
            Some(fields) => {
                spread = true;
                columns.extend(fields.iter().map(|(name, kind)| ((*name).to_owned(), kind.clone())));
            }
            None => columns.push((single.clone(), super::types::element_of(&call.kind))),
        }
    }
    if ordinality {
        columns.push(("ordinality".to_owned(), Type::INT8));
    }
    let columns = aliased(columns, &name, None, alias)?;
    Ok((Source::Functions { calls, ordinality, spread }, columns))
}

fn renamed(columns: Vec<(String, Type)>, alias: &TableAlias) -> Result<Vec<(String, Type)>, Failure> {
    if alias.columns.len() > columns.len() {
        let name = folded(&alias.name);
        return Err(Failure::new(code::SYNTAX_ERROR, format!("table \"{name}\" has {} columns", columns.len())));
    }
    let names = alias.columns.iter().map(|column| Some(folded(&column.name))).chain(std::iter::repeat(None));
    Ok(columns.into_iter().zip(names).map(|((name, kind), new)| (new.unwrap_or(name), kind)).collect())
}

fn aliased(
    columns: Vec<(String, Type)>,
    name: &str,
    schema: Option<&str>,
    alias: Option<&TableAlias>,
) -> Result<Vec<ScopeColumn>, Failure> {
    let (columns, table, schema) = match alias {
        Some(alias) => (renamed(columns, alias)?, folded(&alias.name), None),
        None => (columns, name.to_owned(), schema.map(str::to_owned)),
    };
    let column = |(name, kind)| ScopeColumn {
        table: table.clone(),
        schema: schema.clone(),
        name,
        kind,
        hidden: false,
        system: false,
    };
    Ok(columns.into_iter().map(column).collect())
}

fn join_of(join: &AstJoin) -> Result<(Join, Option<&JoinConstraint>), Failure> {
    Ok(match &join.join_operator {
        JoinOperator::Join(constraint) | JoinOperator::Inner(constraint) => (Join::Inner, Some(constraint)),
        JoinOperator::CrossJoin(_) => (Join::Inner, None),
        JoinOperator::Left(constraint) | JoinOperator::LeftOuter(constraint) => (Join::Left, Some(constraint)),
        JoinOperator::Right(constraint) | JoinOperator::RightOuter(constraint) => (Join::Right, Some(constraint)),
        JoinOperator::FullOuter(constraint) => (Join::Full, Some(constraint)),
        _ => return Err(unsupported(join)),
    })
}

/// The conditions that `expr` joins by AND.
fn conjuncts<'a>(expr: &'a Expr, found: &mut Vec<&'a Expr>) {
    use datafusion::sql::sqlparser::ast::BinaryOperator;
    match expr {
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            conjuncts(left, found);
            conjuncts(right, found);
        }
        Expr::Nested(inner) => conjuncts(inner, found),
        other => found.push(other),
    }
}

fn expressions(order: Option<&OrderBy>) -> Result<&[OrderByExpr], Failure> {
    match order.map(|order| &order.kind) {
        None => Ok(&[]),
        Some(OrderByKind::Expressions(expressions)) => Ok(expressions),
        Some(OrderByKind::All(_)) => Err(unsupported("ORDER BY ALL")),
    }
}

/// How rows are sorted by `item`.
pub(super) fn direction(item: &OrderByExpr) -> Direction {
    let descending = item.options.asc == Some(false);
    Direction { descending, nulls_first: item.options.nulls_first.unwrap_or(descending) }
}

impl From {
    /// Adds a condition where its columns are there.
    fn add_filter(&mut self, ex: Ex) {
        let mut last: Option<usize> = None;
        ex.columns(0, &mut |index| last = last.max(Some(index)));
        let outer = self.steps.iter().any(|step| matches!(step.join, Join::Right | Join::Full));
        let mut width = 0;
        let place = self.steps.iter().position(|step| {
            width += step.width;
            last.is_some_and(|last| last < width)
        });
        let place = if outer { self.steps.len().checked_sub(1) } else { place };
        match place.and_then(|place| self.steps.get_mut(place)) {
            Some(step) => step.filters.push(ex),
            None => self.filters.push(ex),
        }
    }
}
