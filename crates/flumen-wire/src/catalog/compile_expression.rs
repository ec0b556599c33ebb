//! Expressions, from Postgres' syntax.

use std::sync::Arc;

use datafusion::sql::sqlparser::ast::{
    AccessExpr, BinaryOperator, DataType, DuplicateTreatment, Expr, Function as AstFunction, FunctionArg,
    FunctionArgExpr, FunctionArgumentClause, FunctionArguments, Ident, ObjectName, Query, Subscript, UnaryOperator,
    Value as Literal, WindowType,
};
use postgres_types::{Kind as TypeKind, Type};

use super::aggregates::{self, Aggregate};
use super::compile::{Compiler, direction, folded, parts, unsupported};
use super::expression::{Arithmetic, Comparison, Ex, Node, Quantified};
use super::functions::{self, Function};
use super::plan::{Numbering, Window};
use super::scope::Scope;
use super::{Value, patterns, types};
use crate::failure::{Failure, code};

/// What a column is called that is a field of a row.
pub(super) fn field_name(expr: &Expr) -> Option<String> {
    let Expr::CompoundFieldAccess { access_chain, .. } = expr else { return None };
    match access_chain.last()? {
        AccessExpr::Dot(Expr::Identifier(ident)) => Some(folded(ident)),
        _ => None,
    }
}

fn boxed(ex: Ex) -> Box<Ex> {
    Box::new(ex)
}

fn boolean(node: Node) -> Ex {
    Ex { node, kind: Type::BOOL }
}

impl Compiler<'_> {
    /// Understands `expr` where `scope` is.
    pub(super) fn expression(&self, expr: &Expr, scope: &Scope<'_>) -> Result<Ex, Failure> {
        let ex = |expr: &Expr| self.expression(expr, scope);
        let not = |negated: bool, ex: Ex| if negated { boolean(Node::Not(boxed(ex))) } else { ex };
        Ok(match expr {
            Expr::Nested(inner) | Expr::Collate { expr: inner, .. } | Expr::Named { expr: inner, .. } => ex(inner)?,
            Expr::Value(value) => self.literal(&value.value)?,
            Expr::Identifier(ident) => self.name(std::slice::from_ref(ident), scope)?,
            Expr::CompoundIdentifier(idents) => self.name(idents, scope)?,
            Expr::CompoundFieldAccess { root, access_chain } => self.access(root, access_chain, scope)?,
            Expr::IsNull(inner) => boolean(Node::IsNull(boxed(ex(inner)?))),
            Expr::IsNotNull(inner) => not(true, boolean(Node::IsNull(boxed(ex(inner)?)))),
            Expr::IsTrue(inner) => boolean(Node::Is(boxed(ex(inner)?), Some(true))),
            Expr::IsNotTrue(inner) => not(true, boolean(Node::Is(boxed(ex(inner)?), Some(true)))),
            Expr::IsFalse(inner) => boolean(Node::Is(boxed(ex(inner)?), Some(false))),
            Expr::IsNotFalse(inner) => not(true, boolean(Node::Is(boxed(ex(inner)?), Some(false)))),
            Expr::IsUnknown(inner) => boolean(Node::Is(boxed(ex(inner)?), None)),
            Expr::IsNotUnknown(inner) => not(true, boolean(Node::Is(boxed(ex(inner)?), None))),
            Expr::IsDistinctFrom(a, b) => self.distinct(a, b, false, scope)?,
            Expr::IsNotDistinctFrom(a, b) => self.distinct(a, b, true, scope)?,
            Expr::InList { expr, list, negated } => {
                let left = ex(expr)?;
                let list = list.iter().map(|item| Ok(self.told(ex(item)?, &left.kind)));
                let list = list.collect::<Result<Vec<_>, Failure>>()?;
                let left = list.first().map_or(left.clone(), |first| self.told(left, &first.kind));
                not(*negated, boolean(Node::In(boxed(left), list)))
            }
            Expr::InSubquery { expr, subquery, negated } => {
                let node = self.quantified_query(expr, Comparison::Eq, subquery, false, scope)?;
                not(*negated, boolean(node))
            }
            Expr::Between { expr, negated, low, high } => {
                let at_least = self.compare(Comparison::Ge, ex(expr)?, ex(low)?);
                let at_most = self.compare(Comparison::Le, ex(expr)?, ex(high)?);
                not(*negated, boolean(Node::And(boxed(at_least), boxed(at_most))))
            }
            Expr::BinaryOp { left, op, right } => self.binary(left, op, right, scope)?,
            Expr::Like { negated, expr, pattern, .. } => {
                self.matches(patterns::Kind::Like { ignore_case: false }, *negated, ex(expr)?, ex(pattern)?)
            }
            Expr::ILike { negated, expr, pattern, .. } => {
                self.matches(patterns::Kind::Like { ignore_case: true }, *negated, ex(expr)?, ex(pattern)?)
            }
            Expr::AnyOp { left, compare_op, right, .. } => self.quantified(left, compare_op, right, false, scope)?,
            Expr::AllOp { left, compare_op, right } => self.quantified(left, compare_op, right, true, scope)?,
            Expr::UnaryOp { op: UnaryOperator::Not, expr } => not(true, ex(expr)?),
            Expr::UnaryOp { op: UnaryOperator::Minus, expr } => {
                let inner = ex(expr)?;
                let kind = inner.kind.clone();
                Ex { node: Node::Negative(boxed(inner)), kind }
            }
            Expr::UnaryOp { op: UnaryOperator::Plus, expr } => ex(expr)?,
            Expr::Cast { expr, data_type, .. } => self.cast(ex(expr)?, &type_of(data_type)?),
            Expr::TypedString(string) => {
                let kind = type_of(&string.data_type)?;
                self.cast(self.literal(&string.value.value)?, &kind)
            }
            Expr::Case { operand, conditions, else_result, .. } => {
                let operand = operand.as_ref().map(|operand| ex(operand)).transpose()?;
                let mut whens = Vec::new();
                for when in conditions {
                    let condition = ex(&when.condition)?;
                    let condition = match &operand {
                        Some(operand) => self.told(condition, &operand.kind),
                        None => condition,
                    };
                    whens.push((condition, ex(&when.result)?));
                }
                let otherwise = else_result.as_ref().map(|otherwise| ex(otherwise)).transpose()?;
                let kind = common(whens.iter().map(|(_, then)| then).chain(&otherwise));
                let otherwise = otherwise.map(boxed);
                Ex { node: Node::Case { operand: operand.map(boxed), whens, otherwise }, kind }
            }
            Expr::Exists { subquery, negated } => {
                not(*negated, boolean(Node::Exists(Arc::new(self.query(subquery, Some(scope))?))))
            }
            Expr::Subquery(query) => {
                let plan = self.query(query, Some(scope))?;
                let kind = plan.columns.first().map_or(Type::TEXT, |(_, kind)| kind.clone());
                Ex { node: Node::Scalar(Arc::new(plan)), kind }
            }
            Expr::Array(array) => {
                let values = array.elem.iter().map(ex).collect::<Result<Vec<_>, _>>()?;
                let kind = types::array_of(&common(values.iter()));
                Ex { node: Node::Array(values), kind }
            }
            Expr::Tuple(values) => {
                Ex { node: Node::RowOf(values.iter().map(ex).collect::<Result<_, _>>()?), kind: Type::RECORD }
            }
            Expr::Function(function) => self.function(function, scope)?,
            Expr::Substring { expr, substring_from, substring_for, .. } => {
                let arguments = [Some(expr), substring_from.as_ref(), substring_for.as_ref()];
                let arguments = arguments.into_iter().flatten().map(|expr| ex(expr)).collect::<Result<_, _>>()?;
                called("substring", arguments)?
            }
            Expr::Position { expr, r#in } => called("strpos", vec![ex(r#in)?, ex(expr)?])?,
            Expr::Trim { expr, trim_what, .. } => {
                let arguments = [Some(expr), trim_what.as_ref()].into_iter().flatten();
                called("btrim", arguments.map(|expr| ex(expr)).collect::<Result<_, _>>()?)?
            }
            Expr::Extract { field, expr, .. } => {
                let field = Ex::constant(Value::text(field.to_string().to_lowercase()), Type::TEXT);
                called("date_part", vec![field, ex(expr)?])?
            }
            Expr::Floor { expr, .. } => called("floor", vec![ex(expr)?])?,
            Expr::Ceil { expr, .. } => called("ceil", vec![ex(expr)?])?,
            Expr::AtTimeZone { timestamp, .. } => ex(timestamp)?,
            Expr::Interval(interval) => match ex(&interval.value)?.node {
                Node::Const(value) => {
                    let micros = value.shown(self.snapshot).and_then(|text| interval_micros(&text));
                    let micros = micros.ok_or_else(|| unsupported(expr))?;
                    Ex::constant(Value::Int(micros), Type::INTERVAL)
                }
                _ => return Err(unsupported(expr)),
            },
            other => return Err(unsupported(other)),
        })
    }

    fn literal(&self, literal: &Literal) -> Result<Ex, Failure> {
        Ok(match literal {
            Literal::Number(text, _) => match text.parse::<i64>() {
                Ok(number) if i32::try_from(number).is_ok() => Ex::constant(Value::Int(number), Type::INT4),
                Ok(number) => Ex::constant(Value::Int(number), Type::INT8),
                Err(_) => Ex::constant(
                    Value::Float(text.parse().map_err(|_| Failure::new(code::INVALID_TEXT, "this is no number"))?),
                    Type::FLOAT8,
                ),
            },
            Literal::SingleQuotedString(text)
            | Literal::EscapedStringLiteral(text)
            | Literal::NationalStringLiteral(text)
            | Literal::UnicodeStringLiteral(text) => Ex::constant(Value::text(text), Type::UNKNOWN),
            Literal::DollarQuotedString(text) => Ex::constant(Value::text(&text.value), Type::UNKNOWN),
            Literal::Boolean(value) => Ex::constant(Value::Bool(*value), Type::BOOL),
            Literal::Null => Ex::constant(Value::Null, Type::UNKNOWN),
            Literal::Placeholder(name) => {
                let number = name.trim_start_matches('$').parse::<usize>().ok().filter(|number| *number > 0);
                let number = number.ok_or_else(|| unsupported(name))?;
                let mut parameters = self.parameters.borrow_mut();
                if parameters.len() < number {
                    parameters.resize(number, None);
                }
                Ex { node: Node::Parameter(number), kind: Type::UNKNOWN }
            }
            other => return Err(unsupported(other)),
        })
    }

    /// An expression whose type nobody has told yet, now of `kind`: a text in quotes, a parameter.
    pub(super) fn told(&self, ex: Ex, kind: &Type) -> Ex {
        if ex.kind != Type::UNKNOWN || *kind == Type::UNKNOWN {
            return ex;
        }
        if let Node::Parameter(number) = ex.node {
            let mut parameters = self.parameters.borrow_mut();
            if let Some(parameter) = parameters.get_mut(number - 1) {
                parameter.get_or_insert_with(|| kind.clone());
            }
            return Ex { kind: kind.clone(), ..ex };
        }
        match (&ex.node, kind) {
            // A text that is no number stays one: it is equal to none.
            (Node::Const(value @ Value::Text(_)), kind) => match super::value::cast(value.clone(), kind, self.snapshot)
            {
                Ok(value) => Ex::constant(value, kind.clone()),
                Err(_) => ex,
            },
            _ => Ex { kind: kind.clone(), ..ex },
        }
    }

    fn cast(&self, ex: Ex, kind: &Type) -> Ex {
        match ex.kind {
            Type::UNKNOWN => {
                let told = self.told(ex, kind);
                // A text that does not fit is an error where it is used.
                if told.kind == *kind { told } else { Ex { node: Node::Cast(boxed(told)), kind: kind.clone() } }
            }
            _ => Ex { node: Node::Cast(boxed(ex)), kind: kind.clone() },
        }
    }

    /// A column, a field of a row, or a word that is a value.
    fn name(&self, idents: &[Ident], scope: &Scope<'_>) -> Result<Ex, Failure> {
        let names: Vec<String> = idents.iter().map(folded).collect();
        let borrowed: Vec<&str> = names.iter().map(String::as_str).collect();
        if let Some((depth, index, kind)) = scope.find(&borrowed) {
            return Ok(Ex { node: Node::Column { depth, index }, kind });
        }
        if let [name] = borrowed.as_slice() {
            // A table stands for its whole row, a table of one column for that.
            if let Some((depth, columns)) = scope.table(name) {
                let column = |index: usize| {
                    let kind = scope_kind(scope, depth, index);
                    Ex { node: Node::Column { depth, index }, kind }
                };
                return Ok(match columns.as_slice() {
                    [one] => column(*one),
                    several => Ex {
                        node: Node::RowOf(several.iter().map(|index| column(*index)).collect()),
                        kind: Type::RECORD,
                    },
                });
            }
            if idents[0].quote_style.is_none()
                && let Some(function) = functions::find_word(name)
            {
                return Ok(Ex { kind: function.kind(&[]), node: Node::Call(function, Vec::new()) });
            }
        }
        // `(a.b).c` without its parentheses.
        if let [first @ .., field] = borrowed.as_slice()
            && let Some((depth, index, kind)) = scope.find(first)
            && let Some((place, kind)) = functions::field_of(&kind, field)
        {
            let row = Ex { node: Node::Column { depth, index }, kind: Type::RECORD };
            return Ok(Ex { node: Node::Field(boxed(row), place), kind });
        }
        let mut failure =
            Failure::new(code::UNDEFINED_COLUMN, format!("column \"{}\" does not exist", names.join(".")));
        failure.position = None;
        Err(failure)
    }

    fn access(&self, root: &Expr, chain: &[AccessExpr], scope: &Scope<'_>) -> Result<Ex, Failure> {
        let mut chain = chain;
        // What begins with names may be a column of a table.
        let mut idents: Vec<Ident> = match root {
            Expr::Identifier(ident) => vec![ident.clone()],
            Expr::CompoundIdentifier(idents) => idents.clone(),
            _ => Vec::new(),
        };
        let mut ex = if idents.is_empty() {
            self.expression(root, scope)?
        } else {
            while let [AccessExpr::Dot(Expr::Identifier(ident)), rest @ ..] = chain {
                idents.push(ident.clone());
                chain = rest;
            }
            self.name(&idents, scope)?
        };
        for access in chain {
            ex = match access {
                AccessExpr::Subscript(Subscript::Index { index }) => {
                    let kind = types::element_of(&ex.kind);
                    Ex { node: Node::Index(boxed(ex), boxed(self.expression(index, scope)?)), kind }
                }
                AccessExpr::Subscript(Subscript::Slice { lower_bound, upper_bound, .. }) => {
                    let bound = |bound: &Option<Expr>| {
                        bound.as_ref().map(|bound| self.expression(bound, scope).map(boxed)).transpose()
                    };
                    let kind = ex.kind.clone();
                    Ex { node: Node::Slice(boxed(ex), bound(lower_bound)?, bound(upper_bound)?), kind }
                }
                AccessExpr::Dot(Expr::Identifier(field)) => {
                    let name = folded(field);
                    let fields = functions::row_of(&ex).or_else(|| {
                        let collected = scope.collected.borrow();
                        match &ex.node {
                            Node::Set(index) => collected.sets.get(*index).and_then(functions::row_of),
                            _ => None,
                        }
                    });
                    let found = match fields {
                        Some(fields) => fields
                            .iter()
                            .position(|(known, _)| **known == *name)
                            .map(|place| (place, fields[place].1.clone())),
                        None => functions::field_of(&ex.kind, &name),
                    };
                    let (place, kind) = found.ok_or_else(|| {
                        Failure::new(code::UNDEFINED_COLUMN, format!("there is no column '{name}' in this row"))
                    })?;
                    Ex { node: Node::Field(boxed(ex), place), kind }
                }
                AccessExpr::Dot(other) => return Err(unsupported(other)),
            };
        }
        Ok(ex)
    }

    fn distinct(&self, a: &Expr, b: &Expr, negated: bool, scope: &Scope<'_>) -> Result<Ex, Failure> {
        let (left, right) = self.alike(self.expression(a, scope)?, self.expression(b, scope)?);
        Ok(boolean(Node::Distinct { left: boxed(left), right: boxed(right), negated }))
    }

    /// Two sides, each of which tells the other its type if it has one.
    fn alike(&self, left: Ex, right: Ex) -> (Ex, Ex) {
        let right = self.told(right, &left.kind);
        let left = self.told(left, &right.kind);
        // What nobody tells is text.
        (self.told(left, &Type::TEXT), self.told(right, &Type::TEXT))
    }

    fn compare(&self, comparison: Comparison, left: Ex, right: Ex) -> Ex {
        let (left, right) = match (left, right) {
            // Rows are compared part by part.
            (Ex { node: Node::RowOf(a), kind }, Ex { node: Node::RowOf(b), .. }) if a.len() == b.len() => {
                let (a, b) = a.into_iter().zip(b).map(|(a, b)| self.alike(a, b)).unzip();
                (Ex { node: Node::RowOf(a), kind: kind.clone() }, Ex { node: Node::RowOf(b), kind })
            }
            (left, right) => self.alike(left, right),
        };
        boolean(Node::Compare(comparison, boxed(left), boxed(right)))
    }

    fn matches(&self, pattern_kind: patterns::Kind, negated: bool, text: Ex, pattern: Ex) -> Ex {
        let (text, pattern) = (self.told(text, &Type::TEXT), self.told(pattern, &Type::TEXT));
        boolean(Node::Match { text: boxed(text), pattern: boxed(pattern), pattern_kind, negated })
    }

    fn binary(&self, left: &Expr, op: &BinaryOperator, right: &Expr, scope: &Scope<'_>) -> Result<Ex, Failure> {
        if let Some((expr, comparison)) = quantified_right(right)
            && let (Some(Quantified::Compare(_)), Some(_)) = (comparison_of(op), Some(expr))
        {
            return self.quantified(left, op, expr, comparison, scope);
        }
        let (left, right) = (self.expression(left, scope)?, self.expression(right, scope)?);
        match op {
            BinaryOperator::And => return Ok(boolean(Node::And(boxed(left), boxed(right)))),
            BinaryOperator::Or => return Ok(boolean(Node::Or(boxed(left), boxed(right)))),
            BinaryOperator::StringConcat => {
                let kind = match (left.kind.kind(), right.kind.kind()) {
                    (TypeKind::Array(_), _) => left.kind.clone(),
                    (_, TypeKind::Array(_)) => right.kind.clone(),
                    _ => Type::TEXT,
                };
                let (left, right) = (self.told(left, &Type::TEXT), self.told(right, &Type::TEXT));
                return Ok(Ex { node: Node::Concat(boxed(left), boxed(right)), kind });
            }
            BinaryOperator::AtArrow | BinaryOperator::PGOverlap | BinaryOperator::ArrowAt => {
                let (left, right) = self.alike(left, right);
                let (left, right) = if *op == BinaryOperator::ArrowAt { (right, left) } else { (left, right) };
                let any = *op == BinaryOperator::PGOverlap;
                return Ok(boolean(Node::Contains { left: boxed(left), right: boxed(right), any }));
            }
            _ => {}
        }
        match comparison_of(op) {
            Some(Quantified::Compare(comparison)) => return Ok(self.compare(comparison, left, right)),
            Some(Quantified::Match(kind, negated)) => return Ok(self.matches(kind, negated, left, right)),
            None => {}
        }
        let arithmetic = arithmetic_of(op).ok_or_else(|| unsupported(op))?;
        let (left, right) = self.alike(left, right);
        let float = [&left, &right].iter().any(|ex| matches!(ex.kind, Type::FLOAT4 | Type::FLOAT8 | Type::NUMERIC));
        let kind = match (&left.kind, &right.kind) {
            (&Type::TIMESTAMPTZ, &Type::TIMESTAMPTZ) => Type::INTERVAL,
            (&Type::TIMESTAMPTZ, _) | (_, &Type::TIMESTAMPTZ) => Type::TIMESTAMPTZ,
            (&Type::INTERVAL, _) | (_, &Type::INTERVAL) => Type::INTERVAL,
            _ if float => Type::FLOAT8,
            (&Type::INT8, _) | (_, &Type::INT8) => Type::INT8,
            _ => Type::INT4,
        };
        Ok(Ex { node: Node::Arithmetic(arithmetic, boxed(left), boxed(right)), kind })
    }

    fn quantified(
        &self,
        left: &Expr,
        op: &BinaryOperator,
        right: &Expr,
        all: bool,
        scope: &Scope<'_>,
    ) -> Result<Ex, Failure> {
        let comparison = comparison_of(op).ok_or_else(|| unsupported(op))?;
        if let (Expr::Subquery(query), Quantified::Compare(comparison)) = (unnested(right), comparison) {
            return Ok(boolean(self.quantified_query(left, comparison, query, all, scope)?));
        }
        let (left, right) = (self.expression(left, scope)?, self.expression(right, scope)?);
        let right = self.told(right, &types::array_of(&left.kind));
        let left = self.told(left, &types::element_of(&right.kind));
        Ok(boolean(Node::Quantified { left: boxed(left), comparison, array: boxed(right), all }))
    }

    fn quantified_query(
        &self,
        left: &Expr,
        comparison: Comparison,
        query: &Query,
        all: bool,
        scope: &Scope<'_>,
    ) -> Result<Node, Failure> {
        let plan = self.query(query, Some(scope))?;
        let left = self.expression(left, scope)?;
        let left = plan.columns.first().map_or(left.clone(), |(_, kind)| self.told(left, kind));
        Ok(Node::QuantifiedQuery {
            left: boxed(left),
            comparison: Quantified::Compare(comparison),
            query: Arc::new(plan),
            all,
        })
    }

    /// A function in FROM.
    pub(super) fn call_in_from(
        &self,
        name: &ObjectName,
        arguments: &[FunctionArg],
        scope: &Scope<'_>,
    ) -> Result<Ex, Failure> {
        let arguments = self.arguments(arguments, scope)?;
        let name = parts(name).pop().unwrap_or_default();
        called(&name, arguments)
    }

    fn arguments(&self, arguments: &[FunctionArg], scope: &Scope<'_>) -> Result<Vec<Ex>, Failure> {
        let argument = |argument: &FunctionArg| {
            let value = match argument {
                FunctionArg::Unnamed(value)
                | FunctionArg::Named { arg: value, .. }
                | FunctionArg::ExprNamed { arg: value, .. } => value,
            };
            match value {
                FunctionArgExpr::Expr(expr) => self.expression(expr, scope),
                other => Err(unsupported(other)),
            }
        };
        arguments.iter().map(argument).collect()
    }

    /// A row of `table` as a JSON object.
    fn row_as_json(&self, table: &Ident, columns: &[String], scope: &Scope<'_>) -> Result<Ex, Failure> {
        let mut members = Vec::new();
        for column in columns {
            let name = Expr::Value(Literal::SingleQuotedString(column.clone()).into());
            let value = Expr::CompoundIdentifier(vec![table.clone(), Ident::with_quote('"', column)]);
            members.extend([self.expression(&name, scope)?, self.expression(&value, scope)?]);
        }
        called("json_build_object", members)
    }

    fn function(&self, function: &AstFunction, scope: &Scope<'_>) -> Result<Ex, Failure> {
        let name = parts(&function.name).pop().unwrap_or_default();
        let (list, distinct, clauses) = match &function.args {
            FunctionArguments::None => (&[][..], false, &[][..]),
            FunctionArguments::Subquery(query) if name == "array" => {
                let plan = self.query(query, Some(scope))?;
                let element = plan.columns.first().map_or(Type::TEXT, |(_, kind)| kind.clone());
                return Ok(Ex { node: Node::ArrayQuery(Arc::new(plan)), kind: types::array_of(&element) });
            }
            FunctionArguments::Subquery(query) => {
                let plan = self.query(query, Some(scope))?;
                let kind = plan.columns.first().map_or(Type::TEXT, |(_, kind)| kind.clone());
                return called(&name, vec![Ex { node: Node::Scalar(Arc::new(plan)), kind }]);
            }
            FunctionArguments::List(list) => {
                let distinct = list.duplicate_treatment == Some(DuplicateTreatment::Distinct);
                (list.args.as_slice(), distinct, list.clauses.as_slice())
            }
        };
        if let ("row_to_json", [FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Identifier(table)))]) =
            (name.as_str(), list)
            && let Some(columns) = scope.columns_of(&folded(table))
        {
            return self.row_as_json(table, &columns, scope);
        }
        // The functions that stop sessions are the ones that clients call with parameters.
        let takes = if name.ends_with("_backend") { Type::INT4 } else { Type::UNKNOWN };
        let whole = matches!(list, [FunctionArg::Unnamed(FunctionArgExpr::Wildcard)]);
        let arguments = if whole { Vec::new() } else { self.arguments(list, scope)? };
        let arguments: Vec<Ex> = arguments.into_iter().map(|ex| self.told(ex, &takes)).collect();
        if let Some(WindowType::WindowSpec(window)) = &function.over {
            let rank = match name.as_str() {
                "row_number" => Numbering::RowNumber,
                "rank" => Numbering::Rank,
                "dense_rank" => Numbering::DenseRank,
                other => return Err(unsupported(format!("{other} over a window"))),
            };
            let partition = window.partition_by.iter().map(|expr| self.expression(expr, scope));
            let partition = partition.collect::<Result<_, _>>()?;
            let order = window.order_by.iter().map(|item| Ok((self.expression(&item.expr, scope)?, direction(item))));
            let order = order.collect::<Result<_, Failure>>()?;
            let mut collected = scope.collected.borrow_mut();
            collected.windows.push(Window { rank, partition, order });
            return Ok(Ex { node: Node::Window(collected.windows.len() - 1), kind: Type::INT8 });
        }
        if let Some(kind) = aggregates::find(&name) {
            let ordered = clauses.iter().find_map(|clause| match clause {
                FunctionArgumentClause::OrderBy(order) => Some(order.as_slice()),
                _ => None,
            });
            let order = ordered.unwrap_or_default().iter();
            let order = order.map(|item| Ok((self.expression(&item.expr, scope)?, direction(item))));
            let order = order.collect::<Result<_, Failure>>()?;
            let filter = function.filter.as_ref().map(|filter| self.expression(filter, scope)).transpose()?;
            let type_of = aggregates::type_of(kind, arguments.first().map(|ex| &ex.kind));
            let mut collected = scope.collected.borrow_mut();
            collected.aggregates.push(Aggregate { kind, arguments, distinct, filter, order });
            return Ok(Ex { node: Node::Aggregate(collected.aggregates.len() - 1), kind: type_of });
        }
        let ex = called(&name, arguments)?;
        if functions::is_set(&name) {
            let kind = if functions::row_of(&ex).is_some() { Type::RECORD } else { types::element_of(&ex.kind) };
            let mut collected = scope.collected.borrow_mut();
            collected.sets.push(ex);
            return Ok(Ex { node: Node::Set(collected.sets.len() - 1), kind });
        }
        Ok(ex)
    }
}

fn called(name: &str, arguments: Vec<Ex>) -> Result<Ex, Failure> {
    let function: Function = functions::find(name)
        .ok_or_else(|| Failure::new(code::UNDEFINED_FUNCTION, format!("function {name} does not exist")))?;
    let kinds: Vec<Type> = arguments.iter().map(|ex| ex.kind.clone()).collect();
    Ok(Ex { kind: function.kind(&kinds), node: Node::Call(function, arguments) })
}

fn scope_kind(scope: &Scope<'_>, depth: usize, index: usize) -> Type {
    let mut place = Some(scope);
    for _ in 0..depth {
        place = place.and_then(|scope| scope.parent);
    }
    place.and_then(|scope| scope.columns.get(index)).map_or(Type::TEXT, |column| column.kind.clone())
}

/// The type that several values have in common.
fn common<'a>(exs: impl Iterator<Item = &'a Ex>) -> Type {
    exs.map(|ex| &ex.kind).find(|kind| **kind != Type::UNKNOWN).cloned().unwrap_or(Type::TEXT)
}

fn unnested(expr: &Expr) -> &Expr {
    match expr {
        Expr::Nested(inner) => unnested(inner),
        other => other,
    }
}

/// `ANY (…)` and `ALL (…)` where they were taken for functions.
fn quantified_right(expr: &Expr) -> Option<(&Expr, bool)> {
    let Expr::Function(function) = expr else { return None };
    let all = match parts(&function.name).as_slice() {
        [name] if name == "any" || name == "some" => false,
        [name] if name == "all" => true,
        _ => return None,
    };
    let FunctionArguments::List(list) = &function.args else { return None };
    match list.args.as_slice() {
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))] => Some((expr, all)),
        _ => None,
    }
}

fn comparison_of(op: &BinaryOperator) -> Option<Quantified> {
    let regex = |ignore_case: bool, negated: bool| Quantified::Match(patterns::Kind::Regex { ignore_case }, negated);
    let like = |ignore_case: bool, negated: bool| Quantified::Match(patterns::Kind::Like { ignore_case }, negated);
    Some(match op {
        BinaryOperator::Eq => Quantified::Compare(Comparison::Eq),
        BinaryOperator::NotEq => Quantified::Compare(Comparison::Ne),
        BinaryOperator::Lt => Quantified::Compare(Comparison::Lt),
        BinaryOperator::LtEq => Quantified::Compare(Comparison::Le),
        BinaryOperator::Gt => Quantified::Compare(Comparison::Gt),
        BinaryOperator::GtEq => Quantified::Compare(Comparison::Ge),
        BinaryOperator::PGRegexMatch => regex(false, false),
        BinaryOperator::PGRegexIMatch => regex(true, false),
        BinaryOperator::PGRegexNotMatch => regex(false, true),
        BinaryOperator::PGRegexNotIMatch => regex(true, true),
        BinaryOperator::PGLikeMatch => like(false, false),
        BinaryOperator::PGILikeMatch => like(true, false),
        BinaryOperator::PGNotLikeMatch => like(false, true),
        BinaryOperator::PGNotILikeMatch => like(true, true),
        // `OPERATOR(pg_catalog.~)`
        BinaryOperator::PGCustomBinaryOperator(name) => match name.last()?.as_str() {
            "=" => Quantified::Compare(Comparison::Eq),
            "<>" | "!=" => Quantified::Compare(Comparison::Ne),
            "<" => Quantified::Compare(Comparison::Lt),
            "<=" => Quantified::Compare(Comparison::Le),
            ">" => Quantified::Compare(Comparison::Gt),
            ">=" => Quantified::Compare(Comparison::Ge),
            "~" => regex(false, false),
            "~*" => regex(true, false),
            "!~" => regex(false, true),
            "!~*" => regex(true, true),
            "~~" => like(false, false),
            "~~*" => like(true, false),
            _ => return None,
        },
        _ => return None,
    })
}

fn arithmetic_of(op: &BinaryOperator) -> Option<Arithmetic> {
    Some(match op {
        BinaryOperator::Plus => Arithmetic::Plus,
        BinaryOperator::Minus => Arithmetic::Minus,
        BinaryOperator::Multiply => Arithmetic::Times,
        BinaryOperator::Divide => Arithmetic::Divide,
        BinaryOperator::Modulo => Arithmetic::Modulo,
        BinaryOperator::BitwiseAnd => Arithmetic::BitAnd,
        BinaryOperator::BitwiseOr => Arithmetic::BitOr,
        BinaryOperator::PGBitwiseShiftLeft => Arithmetic::ShiftLeft,
        BinaryOperator::PGBitwiseShiftRight => Arithmetic::ShiftRight,
        _ => return None,
    })
}

/// The type that is written.
fn type_of(data_type: &DataType) -> Result<Type, Failure> {
    if let DataType::Array(definition) = data_type {
        use datafusion::sql::sqlparser::ast::ArrayElemTypeDef as Definition;
        return match definition {
            Definition::SquareBracket(element, _)
            | Definition::AngleBracket(element)
            | Definition::Parenthesis(element) => Ok(types::array_of(&type_of(element)?)),
            Definition::None => Err(unsupported(data_type)),
        };
    }
    let written = data_type.to_string();
    types::named(&written).ok_or_else(|| {
        Failure::new(code::UNDEFINED_OBJECT, format!("type \"{}\" does not exist", written.to_lowercase()))
    })
}

/// `5 minutes` in microseconds.
fn interval_micros(text: &str) -> Option<i64> {
    let mut words = text.split_whitespace();
    let mut micros = 0;
    while let Some(number) = words.next() {
        let number: i64 = number.parse().ok()?;
        let unit = match words.next()?.trim_end_matches('s') {
            "second" | "sec" => 1_000_000,
            "minute" | "min" => 60_000_000,
            "hour" => 3_600_000_000,
            "day" => 86_400_000_000,
            _ => return None,
        };
        micros += number.checked_mul(unit)?;
    }
    Some(micros)
}
