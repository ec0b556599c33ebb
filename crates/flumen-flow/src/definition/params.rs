//! Parameters: what a run can be told, and whether what it was told fits.
//!
//! Values come from YAML and JSON, or as text from the command line and from templates of a parent flow: a text is read as the
//! type says. Nothing here prints the value of a secret.

use std::collections::BTreeMap;

use chrono::NaiveDateTime;
use flumen_core::Error;
use flumen_core::task_kind::shape::{self, moment, type_name};
use flumen_core::task_kind::{Path, Problem, is_template};
use serde::Serialize;
use serde_json::{Map, Value};

pub use super::fields::{Bound, ParamType};

/// A parameter of a flow.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ParamSpec {
    /// Its name.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: ParamType,
    /// Its value where a run is not told another. A text with `{{ }}` is rendered first.
    pub default: Option<Value>,
    /// The only values that there are; none means that all are good.
    #[serde(rename = "enum")]
    pub choices: Vec<Value>,
    /// The least.
    pub min: Option<Bound>,
    /// The most.
    pub max: Option<Bound>,
    /// Whether a run must be told it: it has no default, and does without none.
    pub required: bool,
    /// What the items of a list are.
    pub items: Option<ParamType>,
    /// What it means.
    pub description: Option<String>,
}

/// What a run was told.
#[derive(Debug, Clone, PartialEq)]
pub enum Given {
    /// A text: from the command line.
    Text(String),
    /// A value: from a schedule, a deployment, a parent flow, the API.
    Value(Value),
}

/// The values of all parameters.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Resolved {
    /// By name. One that is not required and was not given is null.
    pub values: Map<String, Value>,
    /// Those whose value is a default that is a template: to be rendered, and then passed through [`ParamSpec::read`].
    pub templates: Vec<String>,
}

/// The values that a run has, which was told `given`; defaults fill what it was not.
///
/// Errors: everything that does not fit; the path of a problem is the parameter's name.
pub fn resolve(specs: &[ParamSpec], given: &BTreeMap<String, Given>) -> Result<Resolved, Vec<Problem>> {
    let mut resolved = Resolved::default();
    let mut problems = Vec::new();
    for name in given.keys().filter(|name| specs.iter().all(|spec| spec.name != **name)) {
        let names = specs.iter().map(|spec| spec.name.as_str());
        let problem = Problem::at_key(Path::of([name.as_str()]), format!("there is no parameter '{name}'"));
        problems.push(match specs {
            [] => problem.hint("the flow has no parameters"),
            _ => problem.nearest(name, names, "the parameters are"),
        });
    }
    for spec in specs {
        let value = match given.get(&spec.name) {
            Some(Given::Text(text)) => spec.read(text),
            Some(Given::Value(value)) => spec.accept(value),
            None => match &spec.default {
                Some(Value::String(text)) if is_template(text) => {
                    resolved.templates.push(spec.name.clone());
                    Ok(Value::String(text.clone()))
                }
                Some(value) => Ok(value.clone()),
                None if spec.required => {
                    Err(spec.problem("has no value").hint(format!("give it: -p {}=VALUE", spec.name)))
                }
                None => Ok(Value::Null),
            },
        };
        match value {
            Ok(value) => drop(resolved.values.insert(spec.name.clone(), value)),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(resolved) } else { Err(problems) }
}

/// One error that tells all of `problems` with what `what` was told: "flow 'yellow_taxi'".
pub fn explain(what: &str, problems: &[Problem]) -> Error {
    let text = |problem: &Problem| match &problem.hint {
        Some(hint) if problems.len() > 1 => format!("{} ({hint})", problem.message),
        _ => problem.message.clone(),
    };
    let all: Vec<String> = problems.iter().map(text).collect();
    let error = Error::invalid(format!("{what}: {}", all.join("; ")));
    match problems {
        [Problem { hint: Some(hint), .. }] => error.hint(hint),
        _ => error,
    }
}

impl ParamSpec {
    /// The value that `text` stands for.
    ///
    /// Errors: why it does not fit.
    pub fn read(&self, text: &str) -> Result<Value, Problem> {
        let like_default = self.items_of_default().and_then(|items| read(self.kind, Some(items), text));
        let value = like_default.or_else(|| read(self.kind, self.items, text));
        self.check_bounds(value.ok_or_else(|| self.wrong(&Value::String(text.to_owned())))?)
    }

    /// What the items of a list are by those of its default, where nothing else says it. Other items may be given all the same.
    fn items_of_default(&self) -> Option<ParamType> {
        if self.kind != ParamType::List || self.items.is_some() {
            return None;
        }
        let types: Vec<ParamType> = self.default.as_ref()?.as_array()?.iter().map(|item| type_of(item, true)).collect();
        let are_numbers = types.iter().all(|kind| matches!(kind, ParamType::Int | ParamType::Float));
        match types.split_first() {
            Some((first, rest)) if rest.iter().all(|kind| kind == first) => Some(*first),
            Some(_) if are_numbers => Some(ParamType::Float),
            _ => None,
        }
    }

    /// The value that `value` stands for: a text where the type is another is read as one.
    ///
    /// Errors: why it does not fit.
    pub fn accept(&self, value: &Value) -> Result<Value, Problem> {
        if value.is_null() && !self.required {
            return Ok(Value::Null);
        }
        let value = accept(self.kind, self.items, value).ok_or_else(|| self.wrong(value))?;
        self.check_bounds(value)
    }

    fn problem(&self, what: &str) -> Problem {
        Problem::new(Path::of([self.name.as_str()]), format!("parameter '{}' {what}", self.name))
    }

    /// A value as it may be shown.
    fn show(&self, value: &Value) -> String {
        match (self.kind, value) {
            (ParamType::Secret, _) => "that".to_owned(),
            (_, Value::String(text)) if text.chars().count() > 60 => "that".to_owned(),
            (_, Value::String(text)) => format!("'{text}'"),
            (_, Value::Array(_) | Value::Object(_)) => "that".to_owned(),
            _ => value.to_string(),
        }
    }

    fn wrong(&self, value: &Value) -> Problem {
        let noun = noun(self.kind);
        let of = self.items.filter(|_| self.kind == ParamType::List).map(|items| format!(" of {}", plural(items)));
        let problem = self.problem(&format!("must be {noun}{}, not {}", of.unwrap_or_default(), self.show(value)));
        match self.kind {
            ParamType::Date => problem.hint("write it such as 2021-01-31 or 2021-01-31T06:00"),
            ParamType::List => problem.hint("write it such as a,b,c or as JSON: [1, 2]"),
            ParamType::Object => problem.hint("write it as JSON: {\"a\": 1}"),
            _ => problem,
        }
    }

    fn check_bounds(&self, value: Value) -> Result<Value, Problem> {
        if !self.choices.is_empty() && !self.choices.contains(&value) {
            // Texts from the command line stand for choices that are numbers.
            if let Some(choice) = self.choices.iter().find(|choice| plain(choice) == plain(&value)) {
                return Ok(choice.clone());
            }
            let names: Vec<String> = self.choices.iter().map(plain).collect();
            let problem = self.problem(&format!("must be {}, not {}", shape::list(&names), self.show(&value)));
            return Err(match flumen_core::error::nearest(&plain(&value), names.iter().map(String::as_str)) {
                Some(right) if self.kind != ParamType::Secret => problem.hint(format!("did you mean '{right}'?")),
                _ => problem,
            });
        }
        for (bound, is_least) in [(&self.min, true), (&self.max, false)] {
            let Some(bound) = bound else { continue };
            let Some(order) = compare(&value, bound) else { continue };
            if order == if is_least { std::cmp::Ordering::Less } else { std::cmp::Ordering::Greater } {
                let bound = match bound {
                    Bound::Number(number) => number.to_string(),
                    Bound::Date(text) => text.clone(),
                };
                let unit = match &value {
                    Value::Array(_) => " items",
                    Value::String(_) if self.kind != ParamType::Date => " characters",
                    _ => "",
                };
                let verb = if unit.is_empty() { "must be" } else { "must have" };
                let word = if is_least { "at least" } else { "at most" };
                let got = if unit.is_empty() { format!(", not {}", self.show(&value)) } else { String::new() };
                return Err(self.problem(&format!("{verb} {word} {bound}{unit}{got}")));
            }
        }
        Ok(value)
    }

    /// What is wrong with the parameter itself; paths lead on from its own place.
    pub(super) fn check(&mut self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let ordered = !matches!(self.kind, ParamType::Bool | ParamType::Object | ParamType::Enum);
        for (key, bound) in [("min", &self.min), ("max", &self.max)] {
            let fits = match bound {
                None => true,
                Some(Bound::Date(text)) => self.kind == ParamType::Date && moment(text).is_ok(),
                Some(Bound::Number(_)) => ordered && self.kind != ParamType::Date,
            };
            if !fits {
                let message = format!("'{key}' does not fit a parameter that is {}", noun(self.kind));
                problems.push(Problem::new(Path::of([key]), message));
            }
        }
        if self.kind == ParamType::Enum && self.choices.is_empty() {
            let problem = Problem::at_key(Path::top(), "a parameter of type enum needs its values");
            problems.push(problem.hint("write them: enum: [a, b]"));
        }
        if self.items.is_some() && self.kind != ParamType::List {
            problems.push(Problem::at_key(Path::of(["items"]), "'items' is for parameters of type list"));
        }
        for index in 0..self.choices.len() {
            match accept(self.kind, self.items, &self.choices[index]) {
                Some(value) => self.choices[index] = value,
                None => {
                    let message = format!("'{}' is not {}", plain(&self.choices[index]), noun(self.kind));
                    problems.push(Problem::new(Path::of(["enum"]).index(index), message));
                }
            }
        }
        if problems.is_empty() {
            problems.extend(self.check_default());
        }
        problems
    }

    fn check_default(&mut self) -> Option<Problem> {
        let default = self.default.clone()?;
        if default.as_str().is_some_and(is_template) {
            return None;
        }
        if self.kind == ParamType::Secret {
            let problem = Problem::new(Path::of(["default"]), "a secret does not belong in this file");
            return Some(problem.hint("write default: \"{{ secret_env('NAME') }}\""));
        }
        match self.accept(&default) {
            Ok(value) => {
                self.default = Some(value);
                None
            }
            Err(problem) => {
                let own = format!("parameter '{}'", self.name);
                let message = problem.message.replacen(&own, "its default", 1);
                Some(Problem { path: Path::of(["default"]), message, ..problem })
            }
        }
    }
}

/// The type that a default has by itself. Dates are only those without quotes.
pub(super) fn type_of(value: &Value, is_quoted: bool) -> ParamType {
    match value {
        Value::Bool(_) => ParamType::Bool,
        Value::Number(_) if type_name(value) == "integer" && !value.is_f64() => ParamType::Int,
        Value::Number(_) => ParamType::Float,
        Value::Array(_) => ParamType::List,
        Value::Object(_) => ParamType::Object,
        Value::String(text) if !is_quoted && moment(text).is_ok() => ParamType::Date,
        Value::String(_) | Value::Null => ParamType::String,
    }
}

/// Whether values of a type are texts, so that what is written in YAML is one.
pub(super) fn is_text(kind: ParamType) -> bool {
    matches!(kind, ParamType::String | ParamType::Date | ParamType::Secret | ParamType::File)
}

fn read(kind: ParamType, items: Option<ParamType>, text: &str) -> Option<Value> {
    let trimmed = text.trim();
    match kind {
        ParamType::String | ParamType::Enum | ParamType::Secret | ParamType::File => Some(Value::from(text)),
        ParamType::Int => trimmed.parse::<i64>().ok().map(Value::from),
        ParamType::Float => trimmed.parse::<f64>().ok().filter(|number| number.is_finite()).map(Value::from),
        ParamType::Bool => match trimmed.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Some(Value::Bool(true)),
            "false" | "no" | "off" | "0" => Some(Value::Bool(false)),
            _ => None,
        },
        ParamType::Date => moment(trimmed).ok().map(|_| Value::from(trimmed)),
        ParamType::List if trimmed.is_empty() => Some(Value::Array(Vec::new())),
        ParamType::List if trimmed.starts_with('[') => {
            accept(kind, items, &serde_json::from_str::<Vec<Value>>(trimmed).ok()?.into())
        }
        ParamType::List => {
            let each = items.unwrap_or(ParamType::String);
            trimmed.split(',').map(|item| read(each, None, item.trim())).collect::<Option<Vec<_>>>().map(Value::Array)
        }
        ParamType::Object => serde_json::from_str::<Map<String, Value>>(trimmed).ok().map(Value::Object),
    }
}

fn accept(kind: ParamType, items: Option<ParamType>, value: &Value) -> Option<Value> {
    match (kind, value) {
        (ParamType::Enum, Value::Array(_) | Value::Object(_) | Value::Null) => None,
        (ParamType::Enum, value) => Some(value.clone()),
        (_, Value::String(text)) => read(kind, items, text),
        (ParamType::String, Value::Number(_) | Value::Bool(_)) => Some(Value::String(value.to_string())),
        (ParamType::Bool, Value::Bool(_)) => Some(value.clone()),
        (ParamType::Int, Value::Number(number)) => match number.as_i64() {
            Some(whole) => Some(Value::from(whole)),
            None => number.as_f64().filter(|n| n.fract() == 0.0 && n.abs() < 9e15).map(|n| Value::from(n as i64)),
        },
        (ParamType::Float, Value::Number(number)) => number.as_f64().map(Value::from),
        (ParamType::List, Value::Array(list)) => match items {
            None => Some(value.clone()),
            Some(each) => {
                list.iter().map(|item| accept(each, None, item)).collect::<Option<Vec<_>>>().map(Value::Array)
            }
        },
        (ParamType::Object, Value::Object(_)) => Some(value.clone()),
        _ => None,
    }
}

fn compare(value: &Value, bound: &Bound) -> Option<std::cmp::Ordering> {
    match (value, bound) {
        (Value::Number(number), Bound::Number(bound)) => number.as_f64()?.partial_cmp(bound),
        (Value::Array(items), Bound::Number(bound)) => (items.len() as f64).partial_cmp(bound),
        (Value::String(text), Bound::Number(bound)) => (text.chars().count() as f64).partial_cmp(bound),
        (Value::String(text), Bound::Date(bound)) => Some(instant(text)?.cmp(&instant(bound)?)),
        _ => None,
    }
}

fn instant(text: &str) -> Option<NaiveDateTime> {
    let (local, offset) = moment(text).ok()?;
    Some(match offset {
        Some(offset) => local - offset,
        None => local,
    })
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn noun(kind: ParamType) -> &'static str {
    match kind {
        ParamType::String => "text",
        ParamType::Int => "a whole number",
        ParamType::Float => "a number",
        ParamType::Bool => "true or false",
        ParamType::Date => "a date",
        ParamType::Enum => "one of its values",
        ParamType::List => "a list",
        ParamType::Object => "keys and values",
        ParamType::Secret => "a secret",
        ParamType::File => "a path",
    }
}

fn plural(kind: ParamType) -> &'static str {
    match kind {
        ParamType::String | ParamType::Enum => "texts",
        ParamType::Int => "whole numbers",
        ParamType::Float => "numbers",
        ParamType::Bool => "true and false",
        ParamType::Date => "dates",
        ParamType::List => "lists",
        ParamType::Object => "keys and values",
        ParamType::Secret => "secrets",
        ParamType::File => "paths",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn specs() -> Vec<ParamSpec> {
        let spec = |name: &str, kind| ParamSpec { name: name.into(), kind, ..ParamSpec::default() };
        vec![
            ParamSpec {
                default: Some("yellow".into()),
                choices: vec!["yellow".into(), "green".into()],
                ..spec("color", ParamType::String)
            },
            ParamSpec {
                min: Some(Bound::Number(1.0)),
                max: Some(Bound::Number(12.0)),
                required: true,
                ..spec("month", ParamType::Int)
            },
            spec("share", ParamType::Float),
            spec("fast", ParamType::Bool),
            ParamSpec { min: Some(Bound::Date("2019-01-01".into())), ..spec("since", ParamType::Date) },
            ParamSpec { items: Some(ParamType::Int), max: Some(Bound::Number(3.0)), ..spec("zones", ParamType::List) },
            spec("more", ParamType::Object),
            ParamSpec { min: Some(Bound::Number(8.0)), ..spec("token", ParamType::Secret) },
            ParamSpec { choices: vec![1.into(), 2.into()], ..spec("vendor", ParamType::Enum) },
            ParamSpec { default: Some("{{ var('x') }}".into()), ..spec("later", ParamType::String) },
        ]
    }

    fn check(given: &[(&str, &str)], expect: &str) {
        let given = given.iter().map(|(name, text)| ((*name).to_owned(), Given::Text((*text).to_owned()))).collect();
        let got = match resolve(&specs(), &given) {
            Ok(resolved) => {
                let set = resolved.values.iter().filter(|(_, value)| !value.is_null());
                set.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
            }
            Err(problems) => {
                let tell = |problem: &Problem| match &problem.hint {
                    Some(hint) => format!("{} ({hint})", problem.message),
                    None => problem.message.clone(),
                };
                problems.iter().map(tell).collect::<Vec<_>>().join("\n")
            }
        };
        assert_eq!(got, expect, "{given:?}");
    }

    #[test]
    fn texts_are_read_as_the_type_says() {
        check(&[("month", "7")], r#"color="yellow" later="{{ var('x') }}" month=7"#);
        check(
            &[
                ("month", "07"),
                ("color", "green"),
                ("share", "0.5"),
                ("fast", "yes"),
                ("since", "2020-02-29"),
                ("zones", "1, 2"),
                ("more", "{\"a\": [1]}"),
                ("token", "hunter2hunter2"),
                ("vendor", "2"),
                ("later", "{{ x }}"),
            ],
            r#"color="green" fast=true later="{{ x }}" month=7 more={"a":[1]} share=0.5 since="2020-02-29" token="hunter2hunter2" vendor=2 zones=[1,2]"#,
        );
        check(&[("month", "1"), ("zones", "[3]")], r#"color="yellow" later="{{ var('x') }}" month=1 zones=[3]"#);
    }

    #[test]
    fn all_that_does_not_fit_is_told_and_no_secret_is() {
        check(
            &[
                ("colr", "green"),
                ("color", "gren"),
                ("month", "13"),
                ("share", "half"),
                ("fast", "perhaps"),
                ("since", "2018-12-31"),
                ("zones", "1,2,3,4"),
                ("more", "[]"),
                ("token", "short"),
                ("vendor", "3"),
            ],
            "there is no parameter 'colr' (did you mean 'color'?)\n\
             parameter 'color' must be yellow or green, not 'gren' (did you mean 'green'?)\n\
             parameter 'month' must be at most 12, not 13\n\
             parameter 'share' must be a number, not 'half'\n\
             parameter 'fast' must be true or false, not 'perhaps'\n\
             parameter 'since' must be at least 2019-01-01, not '2018-12-31'\n\
             parameter 'zones' must have at most 3 items\n\
             parameter 'more' must be keys and values, not '[]' (write it as JSON: {\"a\": 1})\n\
             parameter 'token' must have at least 8 characters\n\
             parameter 'vendor' must be 1 or 2, not '3' (did you mean '1'?)",
        );
        check(&[], "parameter 'month' has no value (give it: -p month=VALUE)");
        check(
            &[("month", "1"), ("zones", "a")],
            "parameter 'zones' must be a list of whole numbers, not 'a' (write it such as a,b,c or as JSON: [1, 2])",
        );
    }

    #[test]
    fn values_pass_as_they_are() {
        let spec = |kind| ParamSpec { name: "x".into(), kind, ..ParamSpec::default() };
        for (kind, value, expect) in [
            (ParamType::Int, Value::from(3.0), Some(Value::from(3))),
            (ParamType::Int, Value::from(3.5), None),
            (ParamType::Int, Value::from("3"), Some(Value::from(3))),
            (ParamType::String, Value::from(3), Some(Value::from("3"))),
            (ParamType::Bool, Value::from(1), None),
            (ParamType::List, Value::from(vec![1, 2]), Some(Value::from(vec![1, 2]))),
            (ParamType::Date, Value::from("2021-13-01"), None),
        ] {
            assert_eq!(spec(kind).accept(&value).ok(), expect, "{kind:?} {value}");
        }
    }

    #[test]
    fn one_error_tells_all() {
        let problems = resolve(&specs(), &BTreeMap::new()).unwrap_err();
        let error = explain("flow 'taxi'", &problems);
        assert_eq!(error.to_string(), "flow 'taxi': parameter 'month' has no value");
        assert_eq!(error.remedy(), Some("give it: -p month=VALUE"));
    }
}
