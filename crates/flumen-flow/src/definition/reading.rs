//! A file while it is read: its tree, and what is wrong with it so far.

use flumen_core::dataset::Dataset;
use flumen_core::task_kind::shape::{self, Shape, Templates};
use flumen_core::task_kind::{Path, Problem, is_template};
use flumen_core::{Error, dataset};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::mistake::{Mistake, Place};
use super::surroundings::Surroundings;
use super::yaml::Node;

/// A file while it is read.
#[derive(Debug)]
pub(super) struct Reading<'a> {
    pub file: &'a str,
    pub root: &'a Node,
    pub mistakes: Vec<Mistake>,
    pub warnings: Vec<Mistake>,
    damaged: Vec<Path>,
}

impl<'a> Reading<'a> {
    pub fn new(file: &'a str, root: &'a Node) -> Self {
        Self { file, root, mistakes: Vec::new(), warnings: Vec::new(), damaged: Vec::new() }
    }

    /// Notes a problem with something at `base`. `context` says what it is about: "task 'load'".
    pub fn note(&mut self, context: &str, base: &Path, problem: Problem) {
        self.damaged.push(base.join(&problem.path));
        let mistake = self.mistake(context, base, problem);
        self.mistakes.push(mistake);
    }

    /// Notes a problem, which stands at `place` of the file where that is known.
    pub fn note_at(&mut self, context: &str, place: Option<Place>, problem: Problem) {
        self.note(context, &Path::top(), problem);
        if let (Some(place), Some(last)) = (place, self.mistakes.last_mut()) {
            last.place = place;
        }
    }

    /// Notes an error about the value at `path`.
    pub fn note_error(&mut self, path: &Path, error: &Error) {
        let mut problem = Problem::new(path.clone(), error.message());
        problem.hint = error.remedy().map(str::to_owned);
        self.note("", &Path::top(), problem);
    }

    /// Notes something that is perhaps not meant, and does no harm.
    pub fn warn(&mut self, context: &str, base: &Path, problem: Problem) {
        let mistake = self.mistake(context, base, problem);
        self.warnings.push(mistake);
    }

    /// Notes a mistake at a place of another file.
    pub fn note_in(&mut self, file: &str, place: Place, message: String, hint: Option<String>) {
        self.mistakes.push(Mistake { file: file.to_owned(), place, message, hint });
    }

    fn mistake(&self, context: &str, base: &Path, problem: Problem) -> Mistake {
        let message = if context.is_empty() { problem.message } else { format!("{context}: {}", problem.message) };
        let place = self.root.place_of(&base.join(&problem.path), problem.at_key);
        Mistake { file: self.file.to_owned(), place, message, hint: problem.hint }
    }

    /// Whether something is wrong with the value at `path`, in it, or round it: what is missing there may have been meant.
    pub fn is_damaged(&self, path: &Path) -> bool {
        self.damaged.iter().any(|damaged| path.holds(damaged) || damaged.holds(path))
    }

    /// The value at `path` in JSON, as far as it is as `schema` says; what is not is noted and left out.
    pub fn shaped(&mut self, context: &str, path: &Path, schema: &Value) -> Value {
        let Some(node) = self.root.find(path).filter(|node| !(path.keys().is_empty() && node.is_null())) else {
            return Value::Null;
        };
        let mut value = node.json(Some(Shape::of(schema)));
        for problem in shape::check(schema, &value, Templates::InTexts) {
            remove(&mut value, &problem);
            self.note(context, path, problem);
        }
        value
    }

    /// A value of a type, which was made fit by [`Reading::shaped`].
    pub fn typed<T: DeserializeOwned + Default>(&mut self, context: &str, path: &Path, value: Value) -> T {
        match value {
            Value::Object(_) => serde_json::from_value(value).unwrap_or_else(|error| {
                self.note(context, path, Problem::new(Path::top(), error.to_string()));
                T::default()
            }),
            _ => T::default(),
        }
    }

    /// Whether `name` is the address of a data set that can be; what is wrong with it is noted. Templates always can be.
    pub fn check_dataset(&mut self, context: &str, path: &Path, name: &str, around: &Surroundings) -> bool {
        if is_template(name) {
            return true;
        }
        let problem = match name.parse::<Dataset>() {
            Ok(Dataset::Connection { connection, .. }) if !around.has_connection(&connection) => {
                unknown_connection(path, &connection, around)
            }
            Ok(_) => return true,
            Err(error) => {
                let mut problem = Problem::new(path.clone(), error.message());
                problem.hint = error.remedy().map(str::to_owned);
                problem
            }
        };
        self.note(context, &Path::top(), problem);
        false
    }
}

/// The problem of a connection that the project does not have.
pub(super) fn unknown_connection(path: &Path, name: &str, around: &Surroundings) -> Problem {
    let known = around.connections.iter().map(String::as_str).chain([dataset::LAKE]);
    let problem = Problem::new(path.clone(), format!("there is no connection '{name}'"));
    problem.nearest(name, known, "the connections are")
}

/// Takes what a problem is about out of a value.
fn remove(value: &mut Value, problem: &Problem) {
    let parent = problem.path.parent();
    let Some(last) = problem.path.keys().last() else {
        // Something that is missing leaves the rest as it is.
        if !problem.at_key {
            *value = Value::Null;
        }
        return;
    };
    let mut place = value;
    for key in parent.keys() {
        let next = match place {
            Value::Object(map) => map.get_mut(key),
            Value::Array(items) => key.parse::<usize>().ok().and_then(|index| items.get_mut(index)),
            _ => None,
        };
        match next {
            Some(next) => place = next,
            None => return,
        }
    }
    match place {
        Value::Object(map) => drop(map.remove(last)),
        // Items keep their numbers, by which others are known: the list is left out as a whole.
        Value::Array(_) => *place = Value::Null,
        _ => {}
    }
}

/// The entries of `map` whose keys `schema` has as properties.
pub(super) fn those_of(map: &Map<String, Value>, schema: &Value) -> Value {
    let known = |(key, _): &(&String, &Value)| schema["properties"].get(key.as_str()).is_some();
    Value::Object(map.iter().filter(known).map(|(key, value)| (key.clone(), value.clone())).collect())
}
