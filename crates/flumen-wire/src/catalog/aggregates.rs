//! Functions over the rows of a group.

use std::collections::HashSet;

use postgres_types::Type;

use super::Context;
use super::expression::{Ex, Frame};
use super::plan::Direction;
use super::value::{Row, Value, sorted};
use crate::failure::Failure;

/// What is made of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Count,
    Sum,
    Average,
    Min,
    Max,
    Array,
    Text,
    And,
    Or,
}

/// A function over the rows of a group.
#[derive(Debug)]
pub(super) struct Aggregate {
    pub kind: Kind,
    /// Nothing for `count(*)`.
    pub arguments: Vec<Ex>,
    pub distinct: bool,
    pub filter: Option<Ex>,
    pub order: Vec<(Ex, Direction)>,
}

/// The function called `name`.
pub(super) fn find(name: &str) -> Option<Kind> {
    Some(match name {
        "count" => Kind::Count,
        "sum" => Kind::Sum,
        "avg" => Kind::Average,
        "min" => Kind::Min,
        "max" => Kind::Max,
        "array_agg" => Kind::Array,
        "string_agg" => Kind::Text,
        "bool_and" | "every" => Kind::And,
        "bool_or" => Kind::Or,
        _ => return None,
    })
}

/// The type of what comes of values of `argument`.
pub(super) fn type_of(kind: Kind, argument: Option<&Type>) -> Type {
    let argument = argument.cloned().unwrap_or(Type::INT8);
    match kind {
        Kind::Count => Type::INT8,
        Kind::Sum => match argument {
            Type::INT2 | Type::INT4 => Type::INT8,
            other => other,
        },
        Kind::Average => Type::FLOAT8,
        Kind::Min | Kind::Max => argument,
        Kind::Array => super::types::array_of(&argument),
        Kind::Text => Type::TEXT,
        Kind::And | Kind::Or => Type::BOOL,
    }
}

impl Aggregate {
    /// The expressions in it.
    pub fn expressions(&self) -> impl Iterator<Item = &Ex> {
        self.arguments.iter().chain(&self.filter).chain(self.order.iter().map(|(ex, _)| ex))
    }

    /// What comes of `rows`.
    pub fn value(&self, rows: &[Row], context: &Context, parent: Option<&Frame<'_>>) -> Result<Value, Failure> {
        let mut kept: Vec<(Row, Row)> = Vec::new();
        for row in rows {
            let frame = Frame::of(row, parent);
            if self.filter.as_ref().map_or(Ok(true), |filter| filter.holds(context, &frame))? {
                let values = self.arguments.iter().map(|ex| ex.value(context, &frame)).collect::<Result<Row, _>>()?;
                let order = self.order.iter().map(|(ex, _)| ex.value(context, &frame)).collect::<Result<Row, _>>()?;
                kept.push((values, order));
            }
        }
        kept.sort_by(|(_, a), (_, b)| {
            let parts = self.order.iter().zip(a.iter().zip(b));
            let parts =
                parts.map(|((_, direction), (a, b))| if direction.descending { sorted(b, a) } else { sorted(a, b) });
            parts.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then)
        });
        if self.distinct {
            let mut seen = HashSet::new();
            kept.retain(|(values, _)| seen.insert(values.iter().map(Value::key).collect::<Vec<_>>()));
        }
        let first = |(values, _): &(Row, Row)| values.first().cloned().unwrap_or(Value::Bool(true));
        let all: Vec<Value> = kept.iter().map(first).collect();
        let known: Vec<&Value> = all.iter().filter(|value| !value.is_null()).collect();
        let sum = || known.iter().filter_map(|value| value.float()).sum::<f64>();
        Ok(match self.kind {
            Kind::Count => Value::Int(known.len() as i64),
            Kind::Array if all.is_empty() => Value::Null,
            Kind::Array => Value::array(all),
            _ if known.is_empty() => Value::Null,
            Kind::Sum if known.iter().any(|value| matches!(value, Value::Float(_))) => Value::Float(sum()),
            Kind::Sum => Value::Int(known.iter().filter_map(|value| value.int()).sum()),
            Kind::Average => Value::Float(sum() / known.len() as f64),
            Kind::Min => known.into_iter().min_by(|a, b| sorted(a, b)).cloned().unwrap_or(Value::Null),
            Kind::Max => known.into_iter().max_by(|a, b| sorted(a, b)).cloned().unwrap_or(Value::Null),
            Kind::And => Value::Bool(known.iter().all(|value| value.truth() == Some(true))),
            Kind::Or => Value::Bool(known.iter().any(|value| value.truth() == Some(true))),
            Kind::Text => {
                let mut text = String::new();
                for (values, _) in
                    kept.iter().filter(|(values, _)| values.first().is_some_and(|value| !value.is_null()))
                {
                    let mut parts = values.iter().map(|value| value.shown(&context.snapshot).unwrap_or_default());
                    let (value, between) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
                    if !text.is_empty() {
                        text.push_str(&between);
                    }
                    text.push_str(&value);
                }
                Value::text(text)
            }
        })
    }
}
