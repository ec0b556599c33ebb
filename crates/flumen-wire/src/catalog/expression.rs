//! Expressions that are understood: names are places, functions are known, types are told.

use std::cmp::Ordering;
use std::sync::Arc;

use postgres_types::Type;

use super::functions::Function;
use super::plan::Plan;
use super::value::{self, Key, Row, Value};
use super::{Context, patterns};
use crate::failure::{Failure, code};

/// An expression and the type of its values.
#[derive(Debug, Clone)]
pub(super) struct Ex {
    pub node: Node,
    pub kind: Type,
}

/// What an expression is.
#[derive(Debug, Clone)]
pub(super) enum Node {
    Const(Value),
    /// A column of the row at hand (depth 0), or of a query around.
    Column {
        depth: usize,
        index: usize,
    },
    /// A parameter, by its number: while a statement is described.
    Parameter(usize),
    Aggregate(usize),
    Window(usize),
    Set(usize),
    Not(Box<Ex>),
    Negative(Box<Ex>),
    And(Box<Ex>, Box<Ex>),
    Or(Box<Ex>, Box<Ex>),
    Compare(Comparison, Box<Ex>, Box<Ex>),
    Distinct {
        left: Box<Ex>,
        right: Box<Ex>,
        negated: bool,
    },
    Arithmetic(Arithmetic, Box<Ex>, Box<Ex>),
    Concat(Box<Ex>, Box<Ex>),
    /// `@>`, `<@`, `&&` between arrays.
    Contains {
        left: Box<Ex>,
        right: Box<Ex>,
        any: bool,
    },
    Match {
        text: Box<Ex>,
        pattern: Box<Ex>,
        pattern_kind: patterns::Kind,
        negated: bool,
    },
    IsNull(Box<Ex>),
    /// `IS TRUE`, `IS FALSE`, `IS UNKNOWN`.
    Is(Box<Ex>, Option<bool>),
    In(Box<Ex>, Vec<Ex>),
    /// `= ANY (array)`, `<> ALL (array)`.
    Quantified {
        left: Box<Ex>,
        comparison: Quantified,
        array: Box<Ex>,
        all: bool,
    },
    /// The same with the rows of a query.
    QuantifiedQuery {
        left: Box<Ex>,
        comparison: Quantified,
        query: Arc<Plan>,
        all: bool,
    },
    Exists(Arc<Plan>),
    Scalar(Arc<Plan>),
    ArrayQuery(Arc<Plan>),
    Array(Vec<Ex>),
    RowOf(Vec<Ex>),
    Case {
        operand: Option<Box<Ex>>,
        whens: Vec<(Ex, Ex)>,
        otherwise: Option<Box<Ex>>,
    },
    Cast(Box<Ex>),
    Call(Function, Vec<Ex>),
    Index(Box<Ex>, Box<Ex>),
    Slice(Box<Ex>, Option<Box<Ex>>, Option<Box<Ex>>),
    Field(Box<Ex>, usize),
}

/// How values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

impl Comparison {
    fn holds(self, ordering: Ordering) -> bool {
        match self {
            Comparison::Eq => ordering.is_eq(),
            Comparison::Ne => ordering.is_ne(),
            Comparison::Lt => ordering.is_lt(),
            Comparison::Le => ordering.is_le(),
            Comparison::Gt => ordering.is_gt(),
            Comparison::Ge => ordering.is_ge(),
        }
    }
}

/// What is asked of each element of an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quantified {
    Compare(Comparison),
    Match(patterns::Kind, bool),
}

/// Sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Plus,
    Minus,
    Times,
    Divide,
    Modulo,
    BitAnd,
    BitOr,
    ShiftLeft,
    ShiftRight,
}

/// The row at hand, and those of the queries around.
#[derive(Clone, Copy)]
pub(super) struct Frame<'a> {
    pub row: &'a [Value],
    pub aggregates: &'a [Value],
    pub windows: &'a [Value],
    pub sets: &'a [Value],
    pub parent: Option<&'a Frame<'a>>,
}

impl<'a> Frame<'a> {
    /// A row within `parent`.
    pub fn of(row: &'a [Value], parent: Option<&'a Frame<'a>>) -> Self {
        Self { row, aggregates: &[], windows: &[], sets: &[], parent }
    }
}

impl Ex {
    /// A value that is known.
    pub fn constant(value: Value, kind: Type) -> Self {
        Self { node: Node::Const(value), kind }
    }

    /// Its value.
    pub fn value(&self, context: &Context, frame: &Frame<'_>) -> Result<Value, Failure> {
        let value = |ex: &Ex| ex.value(context, frame);
        Ok(match &self.node {
            Node::Const(constant) => constant.clone(),
            Node::Parameter(_) => Value::Null,
            Node::Column { depth, index } => {
                let mut place = Some(frame);
                for _ in 0..*depth {
                    place = place.and_then(|frame| frame.parent);
                }
                place.and_then(|frame| frame.row.get(*index)).cloned().unwrap_or(Value::Null)
            }
            Node::Aggregate(index) => frame.aggregates.get(*index).cloned().unwrap_or(Value::Null),
            Node::Window(index) => frame.windows.get(*index).cloned().unwrap_or(Value::Null),
            Node::Set(index) => frame.sets.get(*index).cloned().unwrap_or(Value::Null),
            Node::Not(inner) => value(inner)?.truth().map_or(Value::Null, |truth| Value::Bool(!truth)),
            Node::Negative(inner) => match value(inner)? {
                Value::Float(number) => Value::Float(-number),
                other => other.int().map_or(Value::Null, |number| Value::Int(-number)),
            },
            Node::And(left, right) => match value(left)?.truth() {
                Some(false) => Value::Bool(false),
                first => match (first, value(right)?.truth()) {
                    (_, Some(false)) => Value::Bool(false),
                    (Some(true), Some(true)) => Value::Bool(true),
                    _ => Value::Null,
                },
            },
            Node::Or(left, right) => match value(left)?.truth() {
                Some(true) => Value::Bool(true),
                first => match (first, value(right)?.truth()) {
                    (_, Some(true)) => Value::Bool(true),
                    (Some(false), Some(false)) => Value::Bool(false),
                    _ => Value::Null,
                },
            },
            Node::Compare(comparison, left, right) => {
                let ordering = value(left)?.compare(&value(right)?);
                ordering.map_or(Value::Null, |ordering| Value::Bool(comparison.holds(ordering)))
            }
            Node::Distinct { left, right, negated } => {
                Value::Bool((value(left)?.key() != value(right)?.key()) != *negated)
            }
            Node::Arithmetic(operation, left, right) => arithmetic(*operation, &value(left)?, &value(right)?)?,
            Node::Concat(left, right) => concat(value(left)?, value(right)?, context),
            Node::Contains { left, right, any } => match (value(left)?, value(right)?) {
                (Value::Array(left), Value::Array(right)) => {
                    let left: Vec<Key> = left.iter().map(Value::key).collect();
                    let mut keys = right.iter().map(Value::key);
                    Value::Bool(if *any {
                        keys.any(|key| left.contains(&key))
                    } else {
                        keys.all(|key| left.contains(&key))
                    })
                }
                _ => Value::Null,
            },
            Node::Match { text, pattern, pattern_kind, negated } => {
                let found = patterns::matches(*pattern_kind, &value(text)?, &value(pattern)?, context)?;
                found.map_or(Value::Null, |found| Value::Bool(found != *negated))
            }
            Node::IsNull(inner) => Value::Bool(value(inner)?.is_null()),
            Node::Is(inner, wanted) => Value::Bool(value(inner)?.truth() == *wanted),
            Node::In(left, list) => {
                let left = value(left)?;
                let list = list.iter().map(value).collect::<Result<Vec<_>, _>>()?;
                any(&left, Quantified::Compare(Comparison::Eq), list.iter(), false, context)?
            }
            Node::Quantified { left, comparison, array, all } => match value(array)? {
                Value::Array(values) => any(&value(left)?, *comparison, values.iter(), *all, context)?,
                _ => Value::Null,
            },
            Node::QuantifiedQuery { left, comparison, query, all } => {
                let rows = query.rows(context, Some(frame))?;
                let wide = matches!(left.node, Node::RowOf(_));
                let values: Vec<Value> = rows.into_iter().map(|row| first(row, wide)).collect();
                any(&value(left)?, *comparison, values.iter(), *all, context)?
            }
            Node::Exists(query) => Value::Bool(!query.rows(context, Some(frame))?.is_empty()),
            Node::Scalar(query) => {
                let mut rows = query.rows(context, Some(frame))?;
                if rows.len() > 1 {
                    return Err(Failure::new(
                        "21000",
                        "more than one row returned by a subquery used as an expression",
                    ));
                }
                rows.pop().map_or(Value::Null, |row| first(row, false))
            }
            Node::ArrayQuery(query) => {
                let rows = query.rows(context, Some(frame))?;
                Value::array(rows.into_iter().map(|row| first(row, false)).collect())
            }
            Node::Array(values) => Value::array(values.iter().map(value).collect::<Result<_, _>>()?),
            Node::RowOf(values) => Value::Row(Arc::new(values.iter().map(value).collect::<Result<_, _>>()?)),
            Node::Case { operand, whens, otherwise } => {
                let operand = operand.as_ref().map(|operand| value(operand)).transpose()?;
                for (when, then) in whens {
                    let found = match &operand {
                        Some(operand) => operand.compare(&value(when)?).is_some_and(Ordering::is_eq),
                        None => value(when)?.truth() == Some(true),
                    };
                    if found {
                        return value(then);
                    }
                }
                otherwise.as_ref().map_or(Ok(Value::Null), |otherwise| value(otherwise))?
            }
            Node::Cast(inner) => value::cast(value(inner)?, &self.kind, &context.snapshot)?,
            Node::Call(function, arguments) => {
                let arguments = arguments.iter().map(value).collect::<Result<Vec<_>, _>>()?;
                function.call(&arguments, context)?
            }
            Node::Index(array, index) => {
                let index = value(index)?.int();
                match (value(array)?, index) {
                    (Value::Array(values), Some(index)) => {
                        // Vectors of the catalog begin with 0, arrays with 1.
                        let first = if vector(&array.kind) { 0 } else { 1 };
                        let place = usize::try_from(index - first).ok();
                        place.and_then(|place| values.get(place)).cloned().unwrap_or(Value::Null)
                    }
                    _ => Value::Null,
                }
            }
            Node::Slice(array, from, to) => {
                let bound = |ex: &Option<Box<Ex>>| ex.as_ref().map(|ex| value(ex)).transpose();
                let (from, to) = (bound(from)?.and_then(|from| from.int()), bound(to)?.and_then(|to| to.int()));
                match value(array)? {
                    Value::Array(values) => {
                        let first = if vector(&array.kind) { 0 } else { 1 };
                        let place = |index: i64| usize::try_from(index - first).unwrap_or_default().min(values.len());
                        let (from, to) = (from.map_or(0, place), to.map_or(values.len(), |to| place(to + 1)));
                        Value::array(values.get(from..to).unwrap_or_default().to_vec())
                    }
                    _ => Value::Null,
                }
            }
            Node::Field(inner, index) => match value(inner)? {
                Value::Row(values) => values.get(*index).cloned().unwrap_or(Value::Null),
                _ => Value::Null,
            },
        })
    }

    /// Whether it holds for a row.
    pub fn holds(&self, context: &Context, frame: &Frame<'_>) -> Result<bool, Failure> {
        Ok(self.value(context, frame)?.truth() == Some(true))
    }

    /// Tells `found` of the columns of the row at `depth` that it reads.
    pub fn columns(&self, depth: usize, found: &mut dyn FnMut(usize)) {
        match &self.node {
            Node::Column { depth: of, index } if *of == depth => found(*index),
            Node::QuantifiedQuery { left, query, .. } => {
                left.columns(depth, found);
                query.columns(depth, found);
            }
            Node::Exists(query) | Node::Scalar(query) | Node::ArrayQuery(query) => query.columns(depth, found),
            node => node.children(&mut |child| child.columns(depth, found)),
        }
    }
}

impl Node {
    /// Tells `each` of the expressions in it.
    fn children(&self, each: &mut dyn FnMut(&Ex)) {
        match self {
            Node::Const(_)
            | Node::Column { .. }
            | Node::Parameter(_)
            | Node::Aggregate(_)
            | Node::Window(_)
            | Node::Set(_) => {}
            Node::Exists(_) | Node::Scalar(_) | Node::ArrayQuery(_) => {}
            Node::Not(one) | Node::Negative(one) | Node::IsNull(one) | Node::Is(one, _) | Node::Cast(one) => each(one),
            Node::Field(one, _) | Node::QuantifiedQuery { left: one, .. } => each(one),
            Node::And(a, b) | Node::Or(a, b) | Node::Compare(_, a, b) | Node::Arithmetic(_, a, b) => {
                each(a);
                each(b);
            }
            Node::Concat(a, b) | Node::Index(a, b) => {
                each(a);
                each(b);
            }
            Node::Distinct { left, right, .. } | Node::Contains { left, right, .. } => {
                each(left);
                each(right);
            }
            Node::Match { text: a, pattern: b, .. } | Node::Quantified { left: a, array: b, .. } => {
                each(a);
                each(b);
            }
            Node::Slice(a, from, to) => {
                each(a);
                from.iter().chain(to).for_each(|ex| each(ex));
            }
            Node::In(left, list) => {
                each(left);
                list.iter().for_each(each);
            }
            Node::Array(list) | Node::RowOf(list) | Node::Call(_, list) => list.iter().for_each(each),
            Node::Case { operand, whens, otherwise } => {
                operand.iter().chain(otherwise).for_each(|ex| each(ex));
                for (when, then) in whens {
                    each(when);
                    each(then);
                }
            }
        }
    }
}

/// Whether arrays of `kind` begin with 0.
fn vector(kind: &Type) -> bool {
    matches!(*kind, Type::INT2_VECTOR | Type::OID_VECTOR)
}

fn first(mut row: Row, wide: bool) -> Value {
    if wide {
        return Value::Row(Arc::new(row));
    }
    if row.is_empty() { Value::Null } else { row.swap_remove(0) }
}

/// `left = ANY (values)`, or ALL, or another comparison.
fn any<'a>(
    left: &Value,
    comparison: Quantified,
    values: impl Iterator<Item = &'a Value>,
    all: bool,
    context: &Context,
) -> Result<Value, Failure> {
    let mut unknown = false;
    for value in values {
        let holds = match comparison {
            Quantified::Compare(comparison) => left.compare(value).map(|ordering| comparison.holds(ordering)),
            Quantified::Match(kind, negated) => {
                patterns::matches(kind, left, value, context)?.map(|found| found != negated)
            }
        };
        match holds {
            Some(holds) if holds != all => return Ok(Value::Bool(holds)),
            Some(_) => {}
            None => unknown = true,
        }
    }
    Ok(if unknown { Value::Null } else { Value::Bool(all) })
}

fn arithmetic(operation: Arithmetic, left: &Value, right: &Value) -> Result<Value, Failure> {
    if left.is_null() || right.is_null() {
        return Ok(Value::Null);
    }
    let zero = || Failure::new("22012", "division by zero");
    let range = || Failure::new("22003", "number out of range");
    if matches!(left, Value::Float(_)) || matches!(right, Value::Float(_)) {
        let (Some(a), Some(b)) = (left.float(), right.float()) else { return Ok(Value::Null) };
        return Ok(Value::Float(match operation {
            Arithmetic::Plus => a + b,
            Arithmetic::Minus => a - b,
            Arithmetic::Times => a * b,
            Arithmetic::Divide if b == 0.0 => return Err(zero()),
            Arithmetic::Divide => a / b,
            Arithmetic::Modulo => a % b,
            _ => return Err(Failure::new(code::UNDEFINED_FUNCTION, "bits of a number with a fraction")),
        }));
    }
    // Times count in microseconds, and what is added to them in seconds.
    let (Some(a), Some(b)) = (time_or_int(left), time_or_int(right)) else { return Ok(Value::Null) };
    let result = match operation {
        Arithmetic::Plus => a.checked_add(b),
        Arithmetic::Minus => a.checked_sub(b),
        Arithmetic::Times => a.checked_mul(b),
        Arithmetic::Divide | Arithmetic::Modulo if b == 0 => return Err(zero()),
        Arithmetic::Divide => a.checked_div(b),
        Arithmetic::Modulo => a.checked_rem(b),
        Arithmetic::BitAnd => Some(a & b),
        Arithmetic::BitOr => Some(a | b),
        Arithmetic::ShiftLeft => u32::try_from(b).ok().and_then(|b| a.checked_shl(b)),
        Arithmetic::ShiftRight => u32::try_from(b).ok().and_then(|b| a.checked_shr(b)),
    };
    result.map(Value::Int).ok_or_else(range)
}

fn time_or_int(value: &Value) -> Option<i64> {
    match value {
        Value::Time(micros) => Some(*micros),
        other => other.int(),
    }
}

fn concat(left: Value, right: Value, context: &Context) -> Value {
    match (left, right) {
        (Value::Null, Value::Array(values)) | (Value::Array(values), Value::Null) => Value::Array(values),
        (Value::Null, _) | (_, Value::Null) => Value::Null,
        (Value::Array(left), Value::Array(right)) => Value::array(left.iter().chain(right.iter()).cloned().collect()),
        (Value::Array(values), one) => Value::array(values.iter().cloned().chain([one]).collect()),
        (one, Value::Array(values)) => Value::array([one].into_iter().chain(values.iter().cloned()).collect()),
        (left, right) => {
            let shown = |value: Value| value.shown(&context.snapshot).unwrap_or_default();
            Value::text(shown(left) + &shown(right))
        }
    }
}
