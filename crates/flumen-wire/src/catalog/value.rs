//! Values of the catalog's tables and of the queries over them.

use std::cmp::Ordering;
use std::sync::Arc;

use bytes::{BufMut as _, BytesMut};
use postgres_types::{Kind as TypeKind, Type};

use super::listing::Snapshot;
use crate::failure::{Failure, code};
use crate::pg::encode::array_element;

/// What a number that names something names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Reg {
    /// A table or a view.
    Class,
    /// A type.
    Type,
    /// A function.
    Proc,
    /// A namespace.
    Namespace,
    /// A user.
    Role,
}

/// A value.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Arc<str>),
    /// Microseconds since 1970, UTC.
    Time(i64),
    /// A number that is written as what it names.
    Reg(Reg, i64),
    Array(Arc<Vec<Value>>),
    Row(Arc<Vec<Value>>),
}

/// A row.
pub(crate) type Row = Vec<Value>;

impl Value {
    /// A text.
    pub fn text(text: impl AsRef<str>) -> Self {
        Value::Text(Arc::from(text.as_ref()))
    }

    /// An array.
    pub fn array(values: Vec<Value>) -> Self {
        Value::Array(Arc::new(values))
    }

    /// A text, or null.
    pub fn maybe_text(text: Option<&str>) -> Self {
        text.map_or(Value::Null, Value::text)
    }

    /// Whether it is null.
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// Whether it is true; none for null.
    pub fn truth(&self) -> Option<bool> {
        match self {
            Value::Bool(value) => Some(*value),
            Value::Int(value) => Some(*value != 0),
            Value::Text(text) => boolean(text),
            _ => None,
        }
    }

    /// As a whole number.
    pub fn int(&self) -> Option<i64> {
        match self {
            Value::Int(value) | Value::Reg(_, value) => Some(*value),
            Value::Float(value) => Some(value.round() as i64),
            Value::Bool(value) => Some(i64::from(*value)),
            Value::Text(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    /// As a number.
    pub fn float(&self) -> Option<f64> {
        match self {
            Value::Float(value) => Some(*value),
            Value::Text(text) => text.trim().parse().ok(),
            other => other.int().map(|value| value as f64),
        }
    }

    /// As text, with the names of what is named by a number.
    pub fn shown(&self, snapshot: &Snapshot) -> Option<String> {
        Some(match self {
            Value::Null => return None,
            Value::Bool(value) => if *value { "t" } else { "f" }.to_owned(),
            Value::Int(value) => value.to_string(),
            Value::Float(value) => value.to_string(),
            Value::Text(text) => text.to_string(),
            Value::Time(micros) => {
                let mut out = BytesMut::new();
                crate::pg::encode::timestamp_text(*micros, &mut out);
                String::from_utf8_lossy(&out).into_owned()
            }
            Value::Reg(reg, oid) => snapshot.name_of(*reg, *oid),
            Value::Array(values) => listed(values, b"{}", snapshot),
            Value::Row(values) => listed(values, b"()", snapshot),
        })
    }

    /// As text inside of a vector of numbers, which has no braces.
    pub fn vector(&self) -> Option<String> {
        let Value::Array(values) = self else { return None };
        Some(values.iter().filter_map(Value::int).map(|value| value.to_string()).collect::<Vec<_>>().join(" "))
    }

    /// How it compares; none with null, or with what it cannot be compared with.
    pub fn compare(&self, other: &Value) -> Option<Ordering> {
        match (self, other) {
            (Value::Null, _) | (_, Value::Null) => None,
            (Value::Text(a), Value::Text(b)) => Some(a.cmp(b)),
            (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
            (Value::Time(a), Value::Time(b)) => Some(a.cmp(b)),
            (Value::Array(a), Value::Array(b)) | (Value::Row(a), Value::Row(b)) => {
                for (a, b) in a.iter().zip(b.iter()) {
                    match sorted(a, b) {
                        Ordering::Equal => {}
                        unequal => return Some(unequal),
                    }
                }
                Some(a.len().cmp(&b.len()))
            }
            (Value::Bool(a), b @ Value::Text(_)) => Some(a.cmp(&b.truth()?)),
            (a @ Value::Text(_), Value::Bool(b)) => Some(a.truth()?.cmp(b)),
            (Value::Float(_), _) | (_, Value::Float(_)) => self.float()?.partial_cmp(&other.float()?),
            (a, b) => Some(a.int()?.cmp(&b.int()?)),
        }
    }

    /// What it is the same as, for grouping and joining.
    pub fn key(&self) -> Key {
        match self {
            Value::Null => Key::Null,
            Value::Bool(value) => Key::Bool(*value),
            Value::Int(value) | Value::Reg(_, value) => Key::Int(*value),
            Value::Float(value) if value.fract() == 0.0 && value.abs() < 1e15 => Key::Int(*value as i64),
            Value::Float(value) => Key::Float(value.to_bits()),
            Value::Text(text) => Key::Text(Arc::clone(text)),
            Value::Time(value) => Key::Time(*value),
            Value::Array(values) | Value::Row(values) => Key::List(values.iter().map(Value::key).collect()),
        }
    }
}

/// What makes values the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Key {
    Null,
    Bool(bool),
    Int(i64),
    Float(u64),
    Text(Arc<str>),
    Time(i64),
    List(Vec<Key>),
}

/// The order of sorting: nulls are last.
pub(crate) fn sorted(a: &Value, b: &Value) -> Ordering {
    match (a.is_null(), b.is_null()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) => a.compare(b).unwrap_or(Ordering::Equal),
    }
}

fn boolean(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "t" | "true" | "yes" | "y" | "on" | "1" => Some(true),
        "f" | "false" | "no" | "n" | "off" | "0" => Some(false),
        _ => None,
    }
}

fn listed(values: &[Value], braces: &[u8; 2], snapshot: &Snapshot) -> String {
    let mut out = BytesMut::new();
    out.put_u8(braces[0]);
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            out.put_u8(b',');
        }
        match value.shown(snapshot) {
            Some(text) => array_element(text.as_bytes(), &mut out),
            None if braces == b"{}" => out.put_slice(b"NULL"),
            None => {}
        }
    }
    out.put_u8(braces[1]);
    String::from_utf8_lossy(&out).into_owned()
}

/// `value` as a value of `kind`.
///
/// Errors: it is none.
pub(crate) fn cast(value: Value, kind: &Type, snapshot: &Snapshot) -> Result<Value, Failure> {
    if value.is_null() {
        return Ok(Value::Null);
    }
    let wrong = |value: &Value| {
        let shown = value.shown(snapshot).unwrap_or_default();
        Failure::new(code::INVALID_TEXT, format!("invalid input syntax for type {}: \"{shown}\"", kind.name()))
    };
    if let TypeKind::Array(element) = kind.kind() {
        let values = match &value {
            Value::Array(values) => values.as_ref().clone(),
            Value::Text(text) => match crate::pg::array_text(text) {
                Some(texts) => texts
                    .into_iter()
                    .map(|text| text.map_or(Value::Null, |text| Value::text(String::from_utf8_lossy(&text))))
                    .collect(),
                None => return Err(wrong(&value)),
            },
            _ => return Err(wrong(&value)),
        };
        let values = values.into_iter().map(|value| cast(value, element, snapshot));
        return Ok(Value::array(values.collect::<Result<_, _>>()?));
    }
    let reg = |reg: Reg| match &value {
        Value::Text(text) => match text.parse::<i64>() {
            Ok(oid) => Ok(Value::Reg(reg, oid)),
            Err(_) => snapshot.oid_of(reg, text).map(|oid| Value::Reg(reg, oid)).ok_or_else(|| missing(reg, text)),
        },
        other => other.int().map(|oid| Value::Reg(reg, oid)).ok_or_else(|| wrong(&value)),
    };
    Ok(match *kind {
        Type::REGCLASS => return reg(Reg::Class),
        Type::REGTYPE => return reg(Reg::Type),
        Type::REGPROC | Type::REGPROCEDURE => return reg(Reg::Proc),
        Type::REGNAMESPACE => return reg(Reg::Namespace),
        Type::REGROLE => return reg(Reg::Role),
        Type::BOOL => Value::Bool(value.truth().ok_or_else(|| wrong(&value))?),
        Type::INT2 | Type::INT4 | Type::INT8 | Type::OID | Type::XID | Type::CID => {
            Value::Int(value.int().ok_or_else(|| wrong(&value))?)
        }
        Type::FLOAT4 | Type::FLOAT8 | Type::NUMERIC => Value::Float(value.float().ok_or_else(|| wrong(&value))?),
        Type::CHAR => Value::text(value.shown(snapshot).unwrap_or_default().chars().take(1).collect::<String>()),
        Type::TEXT | Type::VARCHAR | Type::NAME | Type::BPCHAR => {
            Value::text(value.shown(snapshot).unwrap_or_default())
        }
        _ => value,
    })
}

fn missing(reg: Reg, name: &str) -> Failure {
    let (code, what) = match reg {
        Reg::Class => (code::UNDEFINED_TABLE, "relation"),
        Reg::Type => (code::UNDEFINED_OBJECT, "type"),
        Reg::Proc => (code::UNDEFINED_FUNCTION, "function"),
        Reg::Namespace => (code::UNDEFINED_OBJECT, "schema"),
        Reg::Role => (code::UNDEFINED_OBJECT, "role"),
    };
    Failure::new(code, format!("{what} \"{name}\" does not exist"))
}
