//! The functions that queries about the catalog call.

mod about;
mod plain;
mod privileges;
mod sets;

use std::fmt;

use postgres_types::Type;

use super::expression::{Ex, Node};
use super::{Context, Value};
use crate::failure::Failure;

/// What a function does with its arguments.
type Body = fn(&[Value], &Context) -> Result<Value, Failure>;

/// What a function gives.
enum Gives {
    This(Type),
    /// The type of its argument with this place.
    Argument(usize),
}

/// A function.
pub(super) struct Spec {
    name: &'static str,
    gives: Gives,
    /// Whether it is null if an argument is.
    strict: bool,
    /// Whether it tells about the session or the catalog: who calls it means us, and not the engine.
    ours: bool,
    body: Body,
}

/// A function that is known.
#[derive(Clone, Copy)]
pub(super) struct Function(&'static Spec);

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name)
    }
}

/// A function about the session or the catalog.
const fn ours(name: &'static str, gives: Type, body: Body) -> Spec {
    Spec { name, gives: Gives::This(gives), strict: true, ours: true, body }
}

/// The same, for one that makes something of null.
const fn ours_null(name: &'static str, gives: Type, body: Body) -> Spec {
    Spec { name, gives: Gives::This(gives), strict: false, ours: true, body }
}

/// A function that the engine has too.
const fn plain(name: &'static str, gives: Type, body: Body) -> Spec {
    Spec { name, gives: Gives::This(gives), strict: true, ours: false, body }
}

/// The same, for one that makes something of null.
const fn plain_null(name: &'static str, gives: Gives, body: Body) -> Spec {
    Spec { name, gives, strict: false, ours: false, body }
}

impl Function {
    /// Its name.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// Whether a call does something, or gives another value each time.
    pub fn acts(self) -> bool {
        matches!(self.0.name, "set_config" | "pg_cancel_backend" | "pg_terminate_backend" | "clock_timestamp")
    }

    /// The type of what it gives for arguments of these types.
    pub fn kind(self, arguments: &[Type]) -> Type {
        match &self.0.gives {
            Gives::This(kind) => kind.clone(),
            Gives::Argument(place) => {
                let known = arguments.get(*place).filter(|kind| **kind != Type::UNKNOWN);
                let any = || arguments.iter().find(|kind| **kind != Type::UNKNOWN);
                known.or_else(any).cloned().unwrap_or(Type::TEXT)
            }
        }
    }

    /// What it gives.
    pub fn call(self, arguments: &[Value], context: &Context) -> Result<Value, Failure> {
        if self.0.strict && arguments.iter().any(Value::is_null) {
            return Ok(Value::Null);
        }
        (self.0.body)(arguments, context)
    }
}

fn all() -> impl Iterator<Item = &'static Spec> {
    about::FUNCTIONS.iter().chain(plain::FUNCTIONS).chain(privileges::FUNCTIONS).chain(sets::FUNCTIONS)
}

/// The function called `name`.
pub(super) fn find(name: &str) -> Option<Function> {
    all().find(|spec| spec.name == name).map(Function)
}

/// The functions that are ours and give one value. A column may be called `user`, and is not meant then.
pub(super) fn single() -> impl Iterator<Item = Function> {
    let ours = about::FUNCTIONS.iter().chain(privileges::FUNCTIONS).filter(|spec| spec.ours && spec.name != "user");
    ours.map(Function)
}

/// Whether a call of `name` means us, and not the engine.
pub(super) fn is_ours(name: &str) -> bool {
    all().any(|spec| spec.ours && spec.name == name)
}

/// The words that stand for a function without parentheses.
const WORDS: &[&str] = &[
    "current_user",
    "session_user",
    "user",
    "current_role",
    "current_catalog",
    "current_schema",
    "current_timestamp",
    "current_date",
    "localtimestamp",
];

/// The function that the word `name` stands for.
pub(super) fn find_word(name: &str) -> Option<Function> {
    if WORDS.contains(&name) { find(name) } else { None }
}

/// Whether the word `name` means us, and not the engine.
pub(super) fn is_our_word(name: &str) -> bool {
    WORDS.contains(&name) && is_ours(name)
}

/// Whether `name` gives several values.
pub(super) fn is_set(name: &str) -> bool {
    sets::FUNCTIONS.iter().any(|spec| spec.name == name)
}

/// The fields of the rows that a call gives, if it gives rows.
pub(super) fn row_of(call: &Ex) -> Option<&'static [(&'static str, Type)]> {
    match &call.node {
        Node::Call(function, _) => sets::fields(function.0.name),
        _ => None,
    }
}

/// The field called `name` of a row of `kind`.
pub(super) fn field_of(_kind: &Type, name: &str) -> Option<(usize, Type)> {
    // The rows that are columns in practice are what these give; no two of them share a field.
    ["_pg_expandarray", "aclexplode", "pg_options_to_table"].into_iter().filter_map(sets::fields).find_map(|fields| {
        fields.iter().position(|(known, _)| *known == name).map(|place| (place, fields[place].1.clone()))
    })
}

/// The names of all functions that are ours, for `pg_proc`.
pub(super) fn names() -> impl Iterator<Item = (&'static str, Type)> {
    all().filter(|spec| spec.ours).map(|spec| (spec.name, Function(spec).kind(&[])))
}

/// An argument; null where there is none.
fn at(arguments: &[Value], place: usize) -> &Value {
    static NULL: Value = Value::Null;
    arguments.get(place).unwrap_or(&NULL)
}

/// The text of an argument.
fn text(arguments: &[Value], place: usize, context: &Context) -> String {
    arguments.get(place).and_then(|value| value.shown(&context.snapshot)).unwrap_or_default()
}

/// The number of an argument.
fn int(arguments: &[Value], place: usize) -> i64 {
    arguments.get(place).and_then(Value::int).unwrap_or_default()
}

/// Whether `name` is a word that must be quoted to be a name.
pub(super) fn reserved(name: &str) -> bool {
    sets::RESERVED.contains(&name)
}
