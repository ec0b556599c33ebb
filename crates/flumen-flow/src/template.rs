//! Templates in the fields of a flow: Jinja, over Airflow's names.
//!
//! A [`Renderer`] renders the fields of one task over a [`Context`]; `template/scope.rs` says what each name is, `dates.rs` what
//! can be done with a date. [`check`] and [`names`] look at a template before anything runs.
//!
//! A name that is not there is an error that names task, field and the nearest name, never an empty text. A secret that a
//! template uses is handed back beside the text, which also comes in a form that can be shown.
//!
//! The template engine is `minijinja`, whose values cannot say what `+` means for them. `engine.rs` therefore compiles
//! templates with its parts (`unstable_machinery`), and puts functions of ours in the place of the operators; its syntax tree
//! is also what tells names with their places.

mod check;
mod context;
mod dates;
mod engine;
mod humans;
mod json;
mod macros;
mod names;
mod place;
mod scope;
mod strftime;

use std::sync::Arc;

use flumen_core::secret::MASK;
use flumen_core::{Error, Result};
use minijinja::Value;
use serde_json::Value as Json;

pub use self::check::{Known, Mistake, check, check_expression, globals, sound, sound_expression, wrong_member};
pub use self::context::{Context, Given, Param, ParamKind, Success, Surroundings, Text};
pub use self::names::{Name, Names};
pub use self::place::Place;
use self::scope::Scope;

/// Functions that take the name of something.
const TAKES_NAME: &[&str] = &["var", "env_var", "secret", "secret_env"];

/// What a template became.
#[derive(Clone, PartialEq, Eq)]
pub struct Rendered<T = String> {
    /// The text, or the value.
    pub value: T,
    /// The same with secrets masked: what may be shown.
    pub shown: T,
    /// The secrets that are in it, each once.
    pub secrets: Vec<String>,
}

impl<T: std::fmt::Debug> std::fmt::Debug for Rendered<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Rendered").field(&self.shown).finish()
    }
}

/// Whether a text has to be rendered at all.
pub fn is_template(text: &str) -> bool {
    text.contains("{{") || text.contains("{%") || text.contains("{#")
}

/// The names that a template refers to.
///
/// Errors: `Invalid`, where it is not well formed, with line and column.
pub fn names(source: &str) -> Result<Names> {
    match is_template(source) {
        true => engine::names_of(source).map_err(|broken| broken.error()),
        false => Ok(Names::default()),
    }
}

/// The names that an expression refers to, as in `when:`.
pub fn names_in_expression(source: &str) -> Result<Names> {
    engine::names_of_expression(engine::bare(source)).map_err(|broken| broken.error())
}

/// Renders the fields of one task.
#[derive(Debug, Clone)]
pub struct Renderer {
    context: Arc<Context>,
}

/// What a rendering makes of a scope.
type Make<'a, T> = &'a dyn Fn(&Arc<Scope>) -> Result<T, engine::Broken>;

impl Renderer {
    /// A renderer over this context.
    pub fn new(context: Context) -> Self {
        Self { context: Arc::new(context) }
    }

    /// The text that `source`, the template in `field`, stands for.
    ///
    /// Errors: `Invalid`, naming task and field, the name that is unknown and the nearest known one.
    pub fn text(&self, field: &str, source: &str) -> Result<Rendered> {
        if !is_template(source) {
            return Ok(Rendered { value: source.to_owned(), shown: source.to_owned(), secrets: Vec::new() });
        }
        self.both(field, &|scope| engine::render(scope, source), &|| MASK.to_owned())
    }

    /// What the expression in `field` is, as JSON. `{{ … }}` around it makes no difference.
    pub fn value(&self, field: &str, source: &str) -> Result<Rendered<Json>> {
        let evaluate = |scope: &Arc<Scope>| {
            let value = engine::evaluate(scope, engine::bare(source))?;
            json::from_value(&value)
                .map_err(|what| engine::Broken::new(format!("the result is not a value of JSON: {what}")))
        };
        self.both(field, &evaluate, &|| Json::String(MASK.to_owned()))
    }

    /// A JSON value, with all the texts in it rendered. With `typed`, a text that is only `{{ … }}` becomes what the expression
    /// is: a number stays a number.
    pub fn json(&self, field: &str, source: &Json, typed: bool) -> Result<Rendered<Json>> {
        Ok(match source {
            Json::String(text) if typed && engine::is_single_expression(text) => self.value(field, text)?,
            Json::String(text) => {
                let Rendered { value, shown, secrets } = self.text(field, text)?;
                Rendered { value: Json::String(value), shown: Json::String(shown), secrets }
            }
            Json::Array(items) => {
                let mut all = Rendered { value: Vec::new(), shown: Vec::new(), secrets: Vec::new() };
                for (place, item) in items.iter().enumerate() {
                    let item = self.json(&format!("{field}[{place}]"), item, typed)?;
                    all.value.push(item.value);
                    all.shown.push(item.shown);
                    all.secrets.extend(item.secrets);
                }
                Rendered { value: Json::Array(all.value), shown: Json::Array(all.shown), secrets: all.secrets }.tidy()
            }
            Json::Object(map) => {
                let (mut value, mut shown, mut secrets) = (serde_json::Map::new(), serde_json::Map::new(), Vec::new());
                for (key, item) in map {
                    let item = self.json(&format!("{field}.{key}"), item, typed)?;
                    value.insert(key.clone(), item.value);
                    shown.insert(key.clone(), item.shown);
                    secrets.extend(item.secrets);
                }
                Rendered { value: Json::Object(value), shown: Json::Object(shown), secrets }.tidy()
            }
            plain => Rendered { value: plain.clone(), shown: plain.clone(), secrets: Vec::new() },
        })
    }

    /// Whether the expression in `field` is true, as Jinja has it: empty texts and lists, zero and None are not.
    pub fn truth(&self, field: &str, source: &str) -> Result<bool> {
        self.judge(field, source)?
    }

    /// As [`Self::truth`], and false where the values at hand lack a part that the expression names.
    pub fn truth_so_far(&self, field: &str, source: &str) -> Result<bool> {
        Ok(self.judge(field, source)?.unwrap_or(false))
    }

    /// Whether an expression is true, or the error that a part is missing.
    fn judge(&self, field: &str, source: &str) -> Result<Result<bool>> {
        let scope = Scope::new(self.context.clone(), field, false);
        match engine::evaluate(&scope, engine::bare(source)) {
            Ok(value) => Ok(Ok(value.is_true())),
            Err(broken) => {
                let is_missing = broken.is_missing;
                let error = self.within(field, broken.masked(&scope.secrets()));
                if is_missing { Ok(Err(error)) } else { Err(error) }
            }
        }
    }

    /// The list that the expression in `field` is.
    pub fn list(&self, field: &str, source: &str) -> Result<Rendered<Vec<Json>>> {
        let not_a_list = |value: &Json| {
            let kind = match value {
                Json::Null => "None",
                Json::String(_) => "a text",
                Json::Object(_) => "a map",
                Json::Bool(_) => "true or false",
                _ => "a number",
            };
            engine::Broken::new(format!("the expression is {kind}, not a list"))
                .hint("write a list such as ['a', 'b'], range(3), or an output that is a list")
        };
        let Rendered { value, shown, secrets } = self.value(field, source)?;
        match (value, shown) {
            (Json::Array(value), Json::Array(shown)) => Ok(Rendered { value, shown, secrets }),
            (Json::Array(value), _) => {
                let shown = vec![Json::String(MASK.to_owned()); value.len()];
                Ok(Rendered { value, shown, secrets })
            }
            (other, _) => Err(self.within(field, not_a_list(&other))),
        }
    }

    /// Renders twice where secrets are in it: as it is, and with secrets masked.
    fn both<T: Clone>(&self, field: &str, make: Make<'_, T>, masked: &dyn Fn() -> T) -> Result<Rendered<T>> {
        let scope = Scope::new(self.context.clone(), field, false);
        let value = make(&scope).map_err(|broken| self.within(field, broken.masked(&scope.secrets())))?;
        let secrets = scope.secrets();
        let shown = match secrets.is_empty() {
            true => value.clone(),
            // Where nothing can be made of masked secrets, all of it is masked.
            false => make(&Scope::new(self.context.clone(), field, true)).unwrap_or_else(|_| masked()),
        };
        Ok(Rendered { value, shown, secrets })
    }

    fn within(&self, field: &str, broken: engine::Broken) -> Error {
        let error = broken.error();
        match self.context.task.as_str() {
            "" => error.within(format!("field '{field}'")),
            task => error.within(format!("task '{task}', field '{field}'")),
        }
    }
}

impl<T> Rendered<T> {
    fn tidy(mut self) -> Self {
        self.secrets.sort_unstable();
        self.secrets.dedup();
        self
    }
}

/// What `path` leads to, as far as it does: the value, or the parts that are there and the names beside the first that is not.
fn follow(scope: &Arc<Scope>, path: &[String]) -> Option<(usize, Vec<String>)> {
    let mut at = scope::Node::value(scope, scope::Thing::Root);
    for (place, part) in path.iter().enumerate() {
        let next = at.get_attr(part).ok()?;
        if next.is_undefined() {
            let names: Vec<Value> = at.try_iter().map(Iterator::collect).unwrap_or_default();
            return Some((place, names.iter().map(Value::to_string).collect()));
        }
        at = next;
    }
    None
}
