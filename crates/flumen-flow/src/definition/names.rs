//! Whether the names in templates are there: parameters, outputs of tasks, connections, vars.

use flumen_core::task_kind::shape::list;
use flumen_core::task_kind::{Path, Problem, is_template};
use serde_json::Value;

use super::graph::Order;
use super::mistake::Place;
use super::params::ParamSpec;
use super::reading::Reading;
use super::surroundings::{ProjectFile, References, Surroundings, SyntaxProblem, Texts};
use super::tasks::Draft;
use crate::template;

/// Names that only the templates of a task with `for_each` have.
const OF_ITEMS: &[&str] = &["item", "map_index"];
/// Names that only the templates of hooks have.
pub(super) const OF_HOOKS: &[&str] = &["state", "error", "hook"];

/// The names that one template may use.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scope<'a> {
    /// Whose template it is, as messages say it.
    pub context: &'a str,
    /// Whether it is that of a task with `for_each`.
    pub has_item: bool,
    /// Names besides those of all templates.
    pub more: &'a [&'a str],
    /// Which outputs it may use.
    pub outputs: Outputs,
}

/// Which outputs a template may use.
#[derive(Debug, Clone, Copy)]
pub(super) enum Outputs {
    /// Those of all tasks.
    All,
    /// Those of the tasks before this one.
    Before(usize),
    /// Its own too.
    OfAndBefore(usize),
    /// None.
    None,
}

/// Checks the names in templates of one flow.
pub(super) struct Names<'a> {
    pub texts: &'a dyn Texts,
    pub around: &'a Surroundings,
    pub params: &'a [ParamSpec],
    pub drafts: &'a [Draft],
    pub order: &'a Order,
    /// The text of the flow's file.
    pub source: &'a str,
}

impl Names<'_> {
    /// Every template in `value`, which stands at `base`.
    pub fn check_all(
        &self,
        value: &Value,
        base: &Path,
        scope: &Scope<'_>,
        is_ours: &dyn Fn(&Path) -> bool,
        reading: &mut Reading<'_>,
    ) {
        let mut open = vec![(Path::top(), value)];
        while let Some((path, value)) = open.pop() {
            match value {
                Value::String(text) if is_template(text) && is_ours(&path) => {
                    self.check(text, &base.join(&path), scope, reading);
                }
                Value::Array(items) => {
                    open.extend(items.iter().enumerate().map(|(index, item)| (path.index(index), item)));
                }
                Value::Object(map) => open.extend(map.iter().map(|(key, value)| (path.key(key), value))),
                _ => {}
            }
        }
    }

    /// A template at `path`.
    pub fn check(&self, text: &str, path: &Path, scope: &Scope<'_>, reading: &mut Reading<'_>) {
        self.found(text, self.texts.references(text), "template", path, scope, reading);
    }

    /// An expression at `path`.
    pub fn check_expression(&self, text: &str, path: &Path, scope: &Scope<'_>, reading: &mut Reading<'_>) {
        self.found(text, self.texts.expression(text), "expression", path, scope, reading);
    }

    fn found(
        &self,
        text: &str,
        references: Result<References, SyntaxProblem>,
        what: &str,
        path: &Path,
        scope: &Scope<'_>,
        reading: &mut Reading<'_>,
    ) {
        let mut note = |place: Option<Place>, message: String, hint: Option<String>| {
            let place = place.and_then(|place| self.place_in(text, place, path, reading));
            reading.note_at(scope.context, place, Problem { path: path.clone(), at_key: false, message, hint });
        };
        let broken = |problem: &SyntaxProblem| format!("the {what} is broken: {}", problem.message);
        let of = |problem: &SyntaxProblem| Some(Place { line: problem.line, column: problem.column });
        match references {
            Ok(references) => {
                // A version that is kept is one that was checked.
                for problem in references.problems.iter().filter(|_| !self.around.trusting) {
                    note(of(problem), broken(problem), None);
                }
                for name in &references.names {
                    if let Some((message, hint)) = self.wrong(name, scope) {
                        note(references.places.get(name).copied(), message, hint);
                    }
                }
            }
            Err(syntax) => note(of(&syntax), broken(&syntax), None),
        }
    }

    /// Where a place in the text of a field is in the file, where the field has several lines there: its lines are looked for, since they
    /// are cut to size when they are read.
    fn place_in(&self, text: &str, place: Place, path: &Path, reading: &Reading<'_>) -> Option<Place> {
        let line = text.contains('\n').then(|| text.lines().nth(place.line.saturating_sub(1)))??;
        let bare = line.trim();
        let begin = reading.root.place_of(path, false);
        if bare.is_empty() {
            return None;
        }
        let mut lines = self.source.lines().enumerate().skip(begin.line.saturating_sub(1));
        let (number, before) = lines.find_map(|(number, of_file)| Some((number, of_file.split_once(bare)?.0)))?;
        let indent = line.chars().take_while(|c| c.is_whitespace()).count();
        Some(Place { line: number + 1, column: before.chars().count() + place.column.saturating_sub(indent) })
    }

    /// A file that a task names at `path`: whether it is there, and the names in it.
    pub fn check_file(&self, file: &str, is_template: bool, path: &Path, scope: &Scope<'_>, reading: &mut Reading<'_>) {
        let text = match self.texts.file(file) {
            ProjectFile::Unread => return,
            ProjectFile::Missing => {
                let problem = Problem::new(path.clone(), format!("there is no file '{file}'"));
                let hint = "paths start in the project's folder";
                return reading.note(scope.context, &Path::top(), problem.hint(hint));
            }
            ProjectFile::Text(text) => text,
        };
        if !is_template {
            return;
        }
        match self.texts.references(&text) {
            Ok(references) => {
                for problem in references.problems.iter().filter(|_| !self.around.trusting) {
                    let message = format!("{}: the template is broken: {}", scope.context, problem.message);
                    let place = Place { line: problem.line, column: problem.column };
                    reading.note_in(file, place, message, None);
                }
                for name in &references.names {
                    if let Some((message, hint)) = self.wrong(name, scope) {
                        reading.note_in(file, locate(&text, name), format!("{}: {message}", scope.context), hint);
                    }
                }
            }
            Err(syntax) => {
                let message = format!("{}: the template is broken: {}", scope.context, syntax.message);
                reading.note_in(file, Place { line: syntax.line, column: syntax.column }, message, None);
            }
        }
    }

    /// What is wrong with a name in a template, and the remedy.
    fn wrong(&self, name: &[String], scope: &Scope<'_>) -> Option<(String, Option<String>)> {
        let (root, rest) = name.split_first()?;
        let next = rest.first().map(String::as_str);
        let params = || self.params.iter().map(|spec| spec.name.as_str());
        match (root.as_str(), next) {
            ("params", Some(param)) if params().all(|known| known != param) => {
                Some(unknown("there is no parameter", param, params(), "the parameters are"))
            }
            ("conn", Some(conn)) if !self.around.has_connection(conn) => {
                let known = self.around.connections.iter().map(String::as_str);
                Some(unknown("there is no connection", conn, known, "the connections are"))
            }
            ("conn", Some(conn)) => rest.get(1).and_then(|field| self.wrong_field(conn, field)),
            ("var", Some("value" | "json")) => rest.get(1).and_then(|var| self.wrong_var(var)),
            ("var", Some(var)) => self.wrong_var(var),
            ("outputs", Some(task)) => self.wrong_output(task, scope),
            _ => self.wrong_root(root, scope).or_else(|| {
                let is_own = scope.more.contains(&root.as_str());
                template::wrong_member(name).filter(|_| !is_own && !self.around.trusting)
            }),
        }
    }

    /// What is wrong with a field of a connection.
    fn wrong_field(&self, conn: &str, field: &str) -> Option<(String, Option<String>)> {
        let known = self.around.connection_fields.get(conn).filter(|known| !known.contains(field))?;
        let what = format!("connection '{conn}' has no field");
        Some(unknown(&what, field, known.iter().map(String::as_str), "it has"))
    }

    fn wrong_var(&self, var: &str) -> Option<(String, Option<String>)> {
        if self.around.has_var(var) || var == "get" {
            return None;
        }
        let known = self.around.vars.iter().map(String::as_str);
        Some(unknown("there is no var", var, known, "the vars are"))
    }

    fn wrong_output(&self, task: &str, scope: &Scope<'_>) -> Option<(String, Option<String>)> {
        let Some(number) = self.order.find("", task) else {
            let known = self.drafts.iter().map(|draft| draft.id.as_str());
            return Some(unknown("there is no task", task, known, "the tasks are"));
        };
        let is_known = match scope.outputs {
            Outputs::All => true,
            Outputs::Before(own) => self.order.comes_before(number, own),
            Outputs::OfAndBefore(own) => number == own || self.order.comes_before(number, own),
            Outputs::None => false,
        };
        if is_known {
            return None;
        }
        let message = format!("'outputs.{task}' is not known here: task '{task}' does not come before");
        Some((message, Some(format!("add '{task}' to its 'needs'"))))
    }

    fn wrong_root(&self, root: &str, scope: &Scope<'_>) -> Option<(String, Option<String>)> {
        let globals = template::globals();
        let of_items = if scope.has_item { OF_ITEMS } else { &[] };
        if globals.contains(&root) || of_items.contains(&root) || scope.more.contains(&root) {
            return None;
        }
        if OF_ITEMS.contains(&root) {
            let message = format!("'{root}' is only there in a task with 'for_each'");
            return Some((message, None));
        }
        let names = globals.iter().chain(of_items).chain(scope.more).copied();
        let (message, hint) = unknown("templates have no", root, names, "");
        if let Some(task) = self.order.find("", root) {
            return Some((message, Some(format!("write outputs.{}", self.drafts[task].id))));
        }
        if self.params.iter().any(|spec| spec.name == root) {
            return Some((message, Some(format!("write params.{root}"))));
        }
        // All the names would be more than anybody reads.
        Some((message, hint.filter(|hint| hint.starts_with("did"))))
    }
}

fn unknown<'a>(
    what: &str,
    name: &str,
    known: impl IntoIterator<Item = &'a str> + Clone,
    otherwise: &str,
) -> (String, Option<String>) {
    let problem = Problem::new(Path::top(), format!("{what} '{name}'")).nearest(name, known, otherwise);
    (problem.message, problem.hint)
}

/// Where a name stands in a text: as well as one can tell by looking for it.
fn locate(text: &str, name: &[String]) -> Place {
    let dotted = name.join(".");
    let last = name.last().map_or("", String::as_str);
    let Some(offset) = text.find(&dotted).or_else(|| text.find(last)) else { return Place::START };
    let before = &text[..offset];
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    Place { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
}

/// The templates that the default of a parameter may be made of: what is known before a run begins.
pub(super) fn check_default(text: &str, path: &Path, context: &str, texts: &dyn Texts, reading: &mut Reading<'_>) {
    const KNOWN: [&str; 4] = ["var", "env_var", "secret", "secret_env"];
    let problem = match texts.references(text) {
        Err(syntax) => Problem::new(path.clone(), format!("the template is broken: {}", syntax.message)),
        Ok(references) => {
            let root = |name: &Vec<String>| name.first().cloned().unwrap_or_default();
            let Some(wrong) = references.names.iter().map(root).find(|root| !KNOWN.contains(&root.as_str())) else {
                return;
            };
            let message = format!("a default cannot use '{wrong}'");
            Problem::new(path.clone(), message).hint(format!("it can use {}", list(&KNOWN.map(str::to_owned))))
        }
    };
    reading.note(context, &Path::top(), problem);
}
