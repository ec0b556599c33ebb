//! Whether a value has the shape that a JSON Schema describes, told as a person would.
//!
//! It knows what schemas made from types consist of: types, properties, items, constants, alternatives, references, the least
//! and the most, and the formats in [`super::units`]. Alternatives beside properties, and anything else in a schema, is for editors and means nothing here.

use std::str::FromStr;

use chrono::{NaiveDate, NaiveDateTime};
use serde_json::{Map, Value};

use super::units::{Bytes, Period};
use super::{Path, Problem, is_template};
use crate::error::{Error, nearest};

/// Where templates may stand for values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Templates {
    /// Wherever a value may.
    Anywhere,
    /// Only where any text may.
    InTexts,
}

/// How deep a schema may nest alternatives in alternatives.
const ALTERNATIVES_DEPTH: usize = 8;

/// Everything in `value` that is not as `schema` says.
pub fn check(schema: &Value, value: &Value, templates: Templates) -> Vec<Problem> {
    let mut problems = Vec::new();
    Shape::of(schema).check(value, &Path::top(), templates, &mut problems);
    problems
}

/// A schema, or a part of it that still knows the whole.
#[derive(Debug, Clone, Copy)]
pub struct Shape<'a> {
    root: &'a Value,
    node: &'a Value,
}

impl<'a> Shape<'a> {
    /// All of a schema.
    pub fn of(schema: &'a Value) -> Self {
        Self { root: schema, node: schema }
    }

    fn at(self, node: &'a Value) -> Self {
        Self { root: self.root, node }
    }

    /// What it allows, one by one: itself, or the alternatives that it consists of.
    fn alternatives(self) -> Vec<Shape<'a>> {
        let mut found = Vec::new();
        self.gather(0, &mut found);
        found
    }

    fn gather(self, depth: usize, found: &mut Vec<Shape<'a>>) {
        if depth > ALTERNATIVES_DEPTH {
            return;
        }
        if let Some(target) = self.node["$ref"].as_str().and_then(|name| self.root.pointer(name.strip_prefix('#')?)) {
            return self.at(target).gather(depth + 1, found);
        }
        for key in ["anyOf", "oneOf"].into_iter().filter(|_| self.node["properties"].is_null()) {
            if let Some(all) = self.node[key].as_array() {
                return all.iter().for_each(|one| self.at(one).gather(depth + 1, found));
            }
        }
        found.push(self);
    }

    fn has_type(self, name: &str) -> bool {
        match &self.node["type"] {
            Value::String(only) => only == name,
            Value::Array(several) => several.iter().any(|one| one == name),
            _ => match self.constants() {
                Some(constants) => constants.iter().any(|constant| type_name(constant) == name),
                None => true,
            },
        }
    }

    /// Whether it allows values of the JSON type `name`.
    pub fn allows(self, name: &str) -> bool {
        self.alternatives().iter().any(|one| one.has_type(name))
    }

    /// Whether it says nothing about the type of a value.
    pub fn allows_everything(self) -> bool {
        self.alternatives().iter().any(|one| one.node["type"].is_null() && one.constants().is_none())
    }

    /// What the value of `key` must be, if it says so.
    pub fn property(self, key: &str) -> Option<Shape<'a>> {
        self.alternatives().into_iter().find_map(|one| one.own_property(key))
    }

    fn own_property(self, key: &str) -> Option<Shape<'a>> {
        let known = self.node["properties"].get(key);
        let node = known.or_else(|| self.node.get("additionalProperties").filter(|node| node.is_object()))?;
        Some(self.at(node))
    }

    /// What the items of a list must be, if it says so.
    pub fn items(self) -> Option<Shape<'a>> {
        self.alternatives().into_iter().find_map(|one| one.node.get("items").map(|node| self.at(node)))
    }

    fn constants(self) -> Option<Vec<&'a Value>> {
        if let Some(constant) = self.node.get("const") {
            return Some(vec![constant]);
        }
        Some(self.node["enum"].as_array()?.iter().collect())
    }

    fn check(self, value: &Value, path: &Path, templates: Templates, problems: &mut Vec<Problem>) {
        if templates == Templates::Anywhere && value.as_str().is_some_and(is_template) {
            return;
        }
        let all = self.alternatives();
        let (constants, shapes): (Vec<_>, Vec<_>) = all.into_iter().partition(|one| one.constants().is_some());
        let constants: Vec<&Value> = constants.iter().filter_map(|one| one.constants()).flatten().collect();
        if constants.contains(&value) {
            return;
        }
        let typed: Vec<_> = shapes.iter().filter(|one| one.has_type_of(value)).collect();
        let best = typed
            .iter()
            .map(|one| {
                let mut found = Vec::new();
                one.check_one(value, path, templates, &mut found);
                found
            })
            .min_by_key(Vec::len);
        match best {
            Some(found) => problems.extend(found),
            None if !constants.is_empty() && (value.is_string() || shapes.is_empty()) => {
                problems.push(not_a_constant(value, path, &constants));
            }
            None => problems.push(wrong_type(value, path, &constants, &shapes)),
        }
    }

    fn has_type_of(self, value: &Value) -> bool {
        let name = type_name(value);
        self.has_type(name) || name == "integer" && self.has_type("number")
    }

    fn check_one(self, value: &Value, path: &Path, templates: Templates, problems: &mut Vec<Problem>) {
        match value {
            Value::Object(map) => self.check_map(map, path, templates, problems),
            Value::Array(items) => {
                if let Some(least) = self.node["minItems"].as_u64().filter(|least| (items.len() as u64) < *least) {
                    problems.push(Problem::new(path.clone(), format!("{} needs {least} at least", what(path))));
                }
                if let Some(each) = self.node.get("items") {
                    for (index, item) in items.iter().enumerate() {
                        self.at(each).check(item, &path.index(index), templates, problems);
                    }
                }
            }
            Value::Number(number) => {
                let number = number.as_f64().unwrap_or_default();
                for (key, wrong, word) in [
                    ("minimum", f64::lt as fn(&f64, &f64) -> bool, "at least"),
                    ("maximum", f64::gt, "at most"),
                    ("exclusiveMinimum", f64::le, "more than"),
                ] {
                    if let Some(bound) = self.node[key].as_f64().filter(|bound| wrong(&number, bound)) {
                        let message = format!("{} must be {word} {bound}, not {number}", what(path));
                        problems.push(Problem::new(path.clone(), message));
                    }
                }
                if number < 0.0 && matches!(self.node["format"].as_str(), Some("duration" | "bytes")) {
                    problems.push(Problem::new(path.clone(), format!("{} must not be negative", what(path))));
                }
            }
            Value::String(text) => problems.extend(self.check_format(text, path)),
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn check_map(self, map: &Map<String, Value>, path: &Path, templates: Templates, problems: &mut Vec<Problem>) {
        let known = self.node["properties"].as_object();
        let closed = self.node["additionalProperties"] == Value::Bool(false);
        for (key, value) in map {
            match self.own_property(key) {
                Some(shape) => shape.check(value, &path.key(key), templates, problems),
                None if closed && !self.has_pattern_for(key) => {
                    let names = known.into_iter().flatten().map(|(name, _)| name.as_str());
                    problems.push(unknown_key(path, key, names));
                }
                None => {}
            }
        }
        for name in self.node["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if map.contains_key(name) {
                continue;
            }
            let mut problem = Problem::at_key(path.clone(), format!("'{}' is missing", path.key(name)));
            problem.hint = self.own_property(name).and_then(Shape::about);
            problems.push(problem);
        }
    }

    /// Whether it takes keys that begin as this one: a pattern such as `^x-`.
    fn has_pattern_for(self, key: &str) -> bool {
        let patterns = self.node["patternProperties"].as_object();
        patterns
            .into_iter()
            .flatten()
            .filter_map(|(pattern, _)| pattern.strip_prefix('^'))
            .any(|start| key.starts_with(start))
    }

    fn about(self) -> Option<String> {
        let text = self.node["description"].as_str()?.lines().next()?.trim_end_matches('.');
        let mut letters = text.chars();
        let first = letters.next()?.to_lowercase();
        Some(first.chain(letters).collect())
    }

    fn check_format(self, text: &str, path: &Path) -> Option<Problem> {
        let outcome = match self.node["format"].as_str()? {
            "duration" => Period::from_str(text).map(drop),
            "bytes" => Bytes::from_str(text).map(drop),
            "moment" => moment(text).map(drop),
            _ => return None,
        };
        let error = outcome.err()?;
        let problem = Problem::new(path.clone(), format!("{}: {error}", what(path)));
        Some(match error.remedy() {
            Some(hint) => problem.hint(hint),
            None => problem,
        })
    }
}

/// The date, or date and time, in a text; and the offset from UTC, if it says one. For the format `moment`.
///
/// Errors: `Invalid`.
pub fn moment(text: &str) -> Result<(NaiveDateTime, Option<chrono::FixedOffset>), Error> {
    if let Ok(zoned) = chrono::DateTime::parse_from_rfc3339(text) {
        return Ok((zoned.naive_local(), Some(*zoned.offset())));
    }
    if let Ok(date) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        return Ok((date.into(), None));
    }
    for format in ["%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"] {
        if let Ok(moment) = NaiveDateTime::parse_from_str(text, format) {
            return Ok((moment, None));
        }
    }
    Err(Error::invalid(format!("'{text}' is not a date")).hint("write it such as 2021-01-31 or 2021-01-31T06:00"))
}

/// The problem of a key that is not among those that there are.
pub fn unknown_key<'a>(path: &Path, key: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> Problem {
    let place = if path.keys().is_empty() { String::new() } else { format!(" in '{path}'") };
    let problem = Problem::at_key(path.key(key), format!("unknown key '{key}'{place}"));
    match nearest(key, known.clone()) {
        Some(right) => problem.hint(format!("did you mean '{right}'?")),
        None => problem.hint(format!("there are: {}", known.into_iter().collect::<Vec<_>>().join(", "))),
    }
}

fn not_a_constant(value: &Value, path: &Path, constants: &[&Value]) -> Problem {
    let names: Vec<String> = constants.iter().map(|constant| plain(constant)).collect();
    let message = format!("{} must be {}, not '{}'", what(path), list(&names), plain(value));
    let problem = Problem::new(path.clone(), message);
    match nearest(&plain(value), names.iter().map(String::as_str)) {
        Some(right) => problem.hint(format!("did you mean '{right}'?")),
        None => problem,
    }
}

fn wrong_type(value: &Value, path: &Path, constants: &[&Value], shapes: &[Shape<'_>]) -> Problem {
    if value.is_null() {
        let message = if path.keys().is_empty() {
            "nothing is written here".to_owned()
        } else {
            format!("{} has no value", what(path))
        };
        return Problem::new(path.clone(), message);
    }
    let mut wanted: Vec<String> = constants.iter().filter(|one| !one.is_null()).map(|one| plain(one)).collect();
    for (name, word) in TYPES {
        let whole = name == "integer" && shapes.iter().any(|shape| shape.has_type("number"));
        if name != "null" && !whole && shapes.iter().any(|shape| shape.has_type(name)) {
            wanted.push(word.to_owned());
        }
    }
    let got = match value {
        Value::String(text) if text.chars().count() < 40 => format!("'{text}'"),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        _ => TYPES.iter().find(|(name, _)| *name == type_name(value)).map_or("that", |(_, word)| word).to_owned(),
    };
    Problem::new(path.clone(), format!("{} must be {}, not {got}", what(path), list(&wanted)))
}

/// What is said for JSON's types.
const TYPES: [(&str, &str); 7] = [
    ("boolean", "true or false"),
    ("integer", "a whole number"),
    ("number", "a number"),
    ("string", "text"),
    ("array", "a list"),
    ("object", "keys and values"),
    ("null", "nothing"),
];

/// The JSON type of a value. Whole numbers are integers.
pub fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() && number.as_f64().is_some_and(|number| number.fract() != 0.0) => {
            "number"
        }
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn what(path: &Path) -> String {
    if path.keys().is_empty() { "the value".to_owned() } else { format!("'{path}'") }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// "a, b or c".
pub fn list(names: &[String]) -> String {
    match names {
        [] => "nothing".to_owned(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(dead_code, reason = "fields stand for their schema")]

    use std::collections::BTreeMap;

    use schemars::JsonSchema;
    use serde_json::json;

    use super::super::schema_of;
    use super::*;

    #[derive(JsonSchema)]
    #[schemars(deny_unknown_fields)]
    struct Load {
        /// Where the rows come from.
        from: Sources,
        /// Where they go.
        to: String,
        mode: Option<Mode>,
        workers: Option<u16>,
        patience: Option<Period>,
        columns: Option<BTreeMap<String, Column>>,
    }

    #[derive(JsonSchema)]
    #[schemars(untagged)]
    enum Sources {
        One(String),
        Several(Vec<String>),
    }

    #[derive(JsonSchema)]
    #[schemars(rename_all = "kebab-case")]
    enum Mode {
        /// Adds.
        Append,
        /// Replaces some.
        ReplaceWhere,
    }

    #[derive(JsonSchema)]
    #[schemars(deny_unknown_fields)]
    struct Column {
        nulls: Option<f64>,
    }

    fn check(value: Value, expect: &str) {
        let problems = super::check(&schema_of::<Load>(), &value, Templates::Anywhere);
        let tell = |problem: &Problem| match &problem.hint {
            Some(hint) => format!("{}: {} ({hint})", problem.path, problem.message),
            None => format!("{}: {}", problem.path, problem.message),
        };
        assert_eq!(problems.iter().map(tell).collect::<Vec<_>>().join("\n"), expect, "{value}");
    }

    #[test]
    fn what_fits_passes() {
        check(json!({ "from": "a", "to": "b", "mode": null }), "");
        check(json!({ "from": ["a"], "to": "b", "mode": "replace-where", "workers": 4.0, "patience": "1h" }), "");
        check(json!({ "from": "a", "to": "b", "workers": "{{ params.n }}", "columns": "{{ params.columns }}" }), "");
    }

    #[test]
    fn what_does_not_is_told() {
        check(json!([]), ": the value must be keys and values, not a list");
        check(
            json!({ "form": "a", "to": null }),
            "form: unknown key 'form' (did you mean 'from'?)\n\
             to: 'to' has no value\n\
             : 'from' is missing (where the rows come from)",
        );
        check(
            json!({ "from": [1], "to": "b", "mode": "apend", "workers": -1, "patience": "soon" }),
            "from.0: 'from.0' must be text, not 1\n\
             mode: 'mode' must be append or replace-where, not 'apend' (did you mean 'append'?)\n\
             patience: 'patience': 'soon' is not a length of time (write it such as 10s, 5m, 1h30m or 2d)\n\
             workers: 'workers' must be at least 0, not -1",
        );
        check(
            json!({ "from": { "a": 1 }, "to": "b", "workers": 1.5, "columns": { "fare": { "nulls": "no", "null": 0 } } }),
            "columns.fare.null: unknown key 'null' in 'columns.fare' (did you mean 'nulls'?)\n\
             columns.fare.nulls: 'columns.fare.nulls' must be a number, not 'no'\n\
             from: 'from' must be text or a list, not keys and values\n\
             workers: 'workers' must be a whole number, not 1.5",
        );
        check(json!({ "from": "a", "to": "b", "mode": 3 }), "mode: 'mode' must be append or replace-where, not 3");
    }
}
