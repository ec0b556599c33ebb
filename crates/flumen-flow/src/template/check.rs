//! What can be said about a template before it is rendered.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use flumen_core::error::nearest;

use super::context::Context;
use super::engine::{self, Broken};
use super::names::{Name, Names};
use super::place::Place;
use super::scope::{DATES, INSTANCE, RUN, TOP};
use super::{dates, is_template, macros, strftime};

/// Filters of dates, with the format of each.
pub(super) const DATE_FILTERS: &[(&str, &str)] = &[
    ("ds", "%Y-%m-%d"),
    ("ds_nodash", "%Y%m%d"),
    ("ts", ""),
    ("ts_nodash", "%Y%m%dT%H%M%S"),
    ("ts_nodash_with_tz", "tz"),
];

/// Filters of Jinja.
const FILTERS: &[&str] = &[
    "abs",
    "attr",
    "batch",
    "bool",
    "capitalize",
    "chain",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "first",
    "float",
    "format",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "lines",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "pprint",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "slice",
    "sort",
    "split",
    "string",
    "sum",
    "title",
    "tojson",
    "trim",
    "unique",
    "upper",
    "zip",
];

/// Tests of Jinja: what may stand after `is`.
const TESTS: &[&str] = &[
    "!=",
    "<",
    "<=",
    "==",
    ">",
    ">=",
    "boolean",
    "defined",
    "divisibleby",
    "endingwith",
    "eq",
    "equalto",
    "escaped",
    "even",
    "false",
    "filter",
    "float",
    "ge",
    "greaterthan",
    "gt",
    "in",
    "int",
    "integer",
    "iterable",
    "le",
    "lessthan",
    "lower",
    "lt",
    "mapping",
    "ne",
    "none",
    "number",
    "odd",
    "safe",
    "sameas",
    "sequence",
    "startingwith",
    "string",
    "test",
    "true",
    "undefined",
    "upper",
];

/// Functions of Jinja.
const FUNCTIONS: &[&str] = &["range", "dict", "namespace"];

/// What is known where a template stands. What is `None` is not checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// The parameters of the flow.
    pub params: Option<BTreeSet<String>>,
    /// The tasks whose outputs may be used.
    pub outputs: Option<BTreeSet<String>>,
    /// The variables of the project.
    pub variables: Option<BTreeSet<String>>,
    /// The connections of the project.
    pub connections: Option<BTreeSet<String>>,
    /// More names at the top, such as `item` of a mapped task.
    pub more: BTreeSet<String>,
}

/// Something wrong with a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// What, in a sentence.
    pub message: String,
    /// The remedy, if one is known.
    pub hint: Option<String>,
    /// Where in the field.
    pub place: Place,
}

impl From<Broken> for Mistake {
    fn from(broken: Broken) -> Self {
        let place = broken.place.unwrap_or(Place { line: 1, column: 1 });
        Self { message: broken.message, hint: broken.hint, place }
    }
}

/// The names that every template has at the top, whatever the flow: values, and functions.
pub fn globals() -> &'static [&'static str] {
    static GLOBALS: LazyLock<Vec<&str>> = LazyLock::new(|| TOP.iter().chain(FUNCTIONS).copied().collect());
    &GLOBALS
}

/// The names in a template, and all that is wrong with it whatever the context is: filters that there are not, formats of dates.
///
/// Errors: its syntax.
pub fn sound(source: &str) -> Result<(Names, Vec<Mistake>), Mistake> {
    if is_template(source) { sound_names(engine::names_of(source)) } else { Ok(Default::default()) }
}

/// The same of an expression.
///
/// Errors: as [`sound`].
pub fn sound_expression(source: &str) -> Result<(Names, Vec<Mistake>), Mistake> {
    sound_names(engine::names_of_expression(engine::bare(source)))
}

fn sound_names(names: Result<Names, Broken>) -> Result<(Names, Vec<Mistake>), Mistake> {
    let names = names?;
    let mistakes = structure(&names).map(Mistake::from).collect();
    Ok((names, mistakes))
}

/// What is wrong with what is asked of a date, of `macros`, `ti` or `dag_run`: the message, and the remedy.
pub fn wrong_member(parts: &[String]) -> Option<(String, Option<String>)> {
    unknown_member(parts).map(|broken| (broken.message, broken.hint))
}

/// All that is wrong with a template.
pub fn check(source: &str, known: &Known) -> Vec<Mistake> {
    if !is_template(source) {
        return Vec::new();
    }
    match engine::names_of(source) {
        Ok(names) => mistakes(&names, known),
        Err(broken) => vec![broken.into()],
    }
}

/// All that is wrong with an expression, as in `when:`. Places are in the expression without `{{` and `}}` around it.
pub fn check_expression(source: &str, known: &Known) -> Vec<Mistake> {
    match engine::names_of_expression(engine::bare(source)) {
        Ok(names) => mistakes(&names, known),
        Err(broken) => vec![broken.into()],
    }
}

fn mistakes(names: &Names, known: &Known) -> Vec<Mistake> {
    let mut mistakes: Vec<Mistake> = structure(names)
        .chain(names.used.iter().filter_map(|name| wrong_name(name, known)))
        .map(Mistake::from)
        .collect();
    mistakes.sort_by_key(|mistake| mistake.place);
    mistakes
}

/// What is wrong whatever the context is, and names at the top: checked before each rendering.
pub(super) fn at_once(names: &Names, context: &Context) -> Result<(), Broken> {
    let known = Known { more: context.more.keys().cloned().collect(), ..Known::default() };
    let first = structure(names).next().or_else(|| names.used.iter().find_map(|name| wrong_name(name, &known)));
    first.map_or(Ok(()), Err)
}

/// Filters and tests that are not there, and other templates.
fn structure(names: &Names) -> impl Iterator<Item = Broken> {
    let others = names.other_templates.iter().map(|place| {
        Broken::new("a template in a flow cannot use another template")
            .hint("write what it needs into the field")
            .at(*place)
    });
    let applied = names.applied.iter().filter_map(|it| {
        let ours = || DATE_FILTERS.iter().map(|(name, _)| *name);
        let (kind, known): (_, Vec<&str>) = match it.is_test {
            true => ("test", TESTS.to_vec()),
            false => ("filter", FILTERS.iter().copied().chain(ours()).collect()),
        };
        if known.contains(&it.name.as_str()) {
            return None;
        }
        let broken = Broken::new(format!("there is no {kind} '{}'", it.name)).at(it.place);
        Some(match nearest(&it.name, known) {
            Some(right) => broken.hint(format!("did you mean '{right}'?")),
            None => broken,
        })
    });
    let formats = names
        .formats
        .iter()
        .filter_map(|(format, place)| strftime::check(format).map(|message| Broken::new(message).at(*place)));
    others.chain(applied).chain(formats)
}

/// Something asked of a name whose members are known, that is none of them.
fn unknown_member(parts: &[String]) -> Option<Broken> {
    let (first, second) = (parts.first()?.as_str(), parts.get(1)?);
    let members = match first {
        "macros" => macros::MACROS,
        "ti" | "task_instance" => INSTANCE,
        "dag_run" => RUN,
        _ if DATES.contains(&first) => dates::MEMBERS,
        _ => return None,
    };
    (!members.contains(&second.as_str())).then(|| unknown(parts, 1, members.iter().copied()))
}

fn wrong_name(name: &Name, known: &Known) -> Option<Broken> {
    let first = name.parts[0].as_str();
    let at_top = TOP.iter().chain(FUNCTIONS).copied().chain(known.more.iter().map(String::as_str));
    if known.more.contains(first) {
        return None;
    }
    if !TOP.contains(&first) && !FUNCTIONS.contains(&first) {
        return Some(unknown(&name.parts, 0, at_top).at(name.place));
    }
    let second = name.parts.get(1)?;
    if let Some(broken) = unknown_member(&name.parts) {
        return Some(broken.at(name.place));
    }
    let given =
        |names: &Option<BTreeSet<String>>| -> Option<Vec<String>> { Some(names.as_ref()?.iter().cloned().collect()) };
    let names = match first {
        "params" => given(&known.params),
        "outputs" => given(&known.outputs),
        "var" => given(&known.variables),
        "conn" => given(&known.connections),
        _ => None,
    }?;
    // `params.get('x')`, `var.value`: what is no name of a parameter or a variable.
    let is_method = matches!(second.as_str(), "get" | "items" | "keys" | "values" | "value" | "json");
    let is_known = names.contains(second) || is_method;
    (!is_known).then(|| unknown(&name.parts, 1, names.iter().map(String::as_str)).at(name.place))
}

/// `there is no 'colr' in params`, with the nearest of what is known.
pub(super) fn unknown<'a>(parts: &[String], part: usize, known: impl IntoIterator<Item = &'a str>) -> Broken {
    let name = &parts[part];
    let known: Vec<&str> = known.into_iter().collect();
    let broken = Broken::new(match part {
        0 => format!("there is no name '{name}'"),
        _ => format!("there is no '{name}' in {}", parts[..part].join(".")),
    });
    match nearest(name, known.iter().copied()) {
        Some(right) => broken.hint(format!("did you mean '{right}'?")),
        None if (1..=10).contains(&known.len()) => broken.hint(format!("there is {}", known.join(", "))),
        None => broken,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lists above are those of the engine.
    #[test]
    fn what_is_listed_is_there() {
        let environment = engine::environment();
        for filter in FILTERS.iter().chain(DATE_FILTERS.iter().map(|(name, _)| name)) {
            let mut state = environment.empty_state();
            let error = state.apply_filter(filter, &[]).err().map(|error| error.kind());
            assert_ne!(error, Some(minijinja::ErrorKind::UnknownFilter), "{filter}");
        }
        for test in TESTS {
            let mut state = environment.empty_state();
            let error = state.perform_test(test, &[]).err().map(|error| error.kind());
            assert_ne!(error, Some(minijinja::ErrorKind::UnknownTest), "{test}");
        }
    }
}
