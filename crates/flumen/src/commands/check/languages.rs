//! SQL and Python in flows and in the files that they name, read by what will run them.
//!
//! SQL is read where no template decides what it says; for a template that stands for a name, a value or a part of one, something of its
//! kind is put. SQL of databases is theirs alone to read. Python is read by `python3`, if there is one; not where a task names another
//! interpreter.

use std::process::Stdio;
use std::sync::Arc;

use flumen_core::error::nearest;
use flumen_core::task_kind::{Path, is_template};
use flumen_flow::definition::{Flow, ForEachSource, Mistake, Place, Task};
use flumen_lake::engine::Engine;
use flumen_project::Project;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

/// What reads Python.
const LOOK: &str = include_str!("look.py");
/// The fields with SQL of the lake, by the kinds of tasks: in the task itself, or in a file.
const SQL: [(&str, &str); 3] = [("sql", "query"), ("export", "query"), ("check", "empty")];

/// A text in another language.
struct Source<'a> {
    flow: &'a Flow,
    task: &'a Task,
    /// The file that it is in, if it has one of its own.
    file: Option<&'a str>,
    /// Where the flow has it, or its name.
    path: Path,
    text: String,
}

impl Source<'_> {
    /// Something wrong in it.
    fn mistake(&self, place: Option<Place>, message: &str, hint: Option<String>) -> Mistake {
        match self.file {
            Some(file) => {
                let place = place.unwrap_or(Place::START);
                Mistake { file: file.to_owned(), place, message: message.to_owned(), hint }
            }
            None => {
                let inner = place.map_or_else(String::new, |at| format!(", line {}, column {}", at.line, at.column));
                let message = format!("task '{}': '{}'{inner}: {message}", self.task.id, self.name());
                Mistake { file: self.flow.file.clone(), place: self.flow.place(&self.path), message, hint }
            }
        }
    }

    /// Something wrong with the field `key` of its task.
    fn mistake_at(&self, key: &str, message: &str, hint: Option<String>) -> Mistake {
        let place = self.flow.place(&self.task.config_path().key(key));
        let message = format!("task '{}': {message}", self.task.id);
        Mistake { file: self.flow.file.clone(), place, message, hint }
    }

    fn name(&self) -> &str {
        self.path.keys().last().map_or("", String::as_str)
    }
}

/// What is wrong in these flows, in files once each; and what could not be looked at.
pub async fn mistakes(flows: &[&Arc<Flow>], project: &Project) -> (Vec<Mistake>, Option<String>) {
    let tasks = || flows.iter().flat_map(|flow| flow.tasks.iter().map(move |task| (&***flow, task)));
    let mut found: Vec<Mistake> =
        tasks().flat_map(|(flow, task)| sql_of(flow, task, project)).filter_map(|source| of_sql(&source)).collect();
    let python: Vec<Source<'_>> = tasks().filter_map(|(flow, task)| python_of(flow, task, project)).collect();
    let mut left_out = None;
    match of_python(&python).await {
        Ok(mistakes) => found.extend(mistakes),
        Err(why) => left_out = Some(format!("Python was not looked at: {why}")),
    }
    found.sort_by(|a, b| (&a.file, a.place).cmp(&(&b.file, b.place)));
    found.dedup();
    (found, left_out)
}

/// The text in the field `key` of a task, or in the file that `file` names.
fn text_of<'a>(flow: &'a Flow, task: &'a Task, project: &Project, key: &str) -> Option<Source<'a>> {
    let at = |key: &str| task.config_path().key(key);
    if let Some(text) = task.config[key].as_str() {
        return Some(Source { flow, task, file: None, path: at(key), text: text.to_owned() });
    }
    let file = task.config["file"].as_str().filter(|name| !is_template(name))?;
    // One that is not there is a mistake that was told.
    let text = std::fs::read_to_string(project.dir().join(file)).ok()?;
    Some(Source { flow, task, file: Some(file), path: at("file"), text })
}

fn sql_of<'a>(flow: &'a Flow, task: &'a Task, project: &Project) -> Vec<Source<'a>> {
    let field = SQL.iter().find(|(kind, _)| *kind == task.kind).filter(|_| task.config["connection"].is_null());
    let mut sources: Vec<Source<'a>> =
        field.and_then(|(_, key)| text_of(flow, task, project, key)).into_iter().collect();
    if let Some(ForEachSource::Query { query, connection: None }) = task.for_each.as_ref().map(|each| &each.source) {
        let path = task.path.key("for_each").key("query");
        sources.push(Source { flow, task, file: None, path, text: query.clone() });
    }
    sources
}

fn of_sql(source: &Source<'_>) -> Option<Mistake> {
    let error = Engine::syntax_error(&without_templates(&source.text)?)?;
    let place = error.place.map(|(line, column)| Place { line, column });
    Some(source.mistake(place, &error.message, error.hint))
}

/// SQL with something in place of its templates, as long as they were; none where it cannot be said what they stand for.
fn without_templates(text: &str) -> Option<String> {
    if text.contains("{%") || text.contains("{#") {
        return None;
    }
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("{{") {
        let end = start + rest[start..].find("}}")? + 2;
        plain.push_str(&rest[..start]);
        // Part of a word or a text, or the value in a comparison, a list or a sum; elsewhere it may be anything.
        let is_part = |c: char| c.is_alphanumeric() || "_.'\"".contains(c);
        let joins = plain.ends_with(is_part) || rest[end..].starts_with(is_part);
        if !joins && !plain.trim_end().ends_with(['=', '<', '>', '(', ',', '+', '-', '*', '/']) {
            return None;
        }
        plain.extend(rest[start..end].chars().map(|c| if c == '\n' { '\n' } else { 'x' }));
        rest = &rest[end..];
    }
    plain.push_str(rest);
    Some(plain)
}

fn python_of<'a>(flow: &'a Flow, task: &'a Task, project: &Project) -> Option<Source<'a>> {
    let is_usual = task.config["interpreter"].is_null() && task.config["venv"].is_null();
    (task.kind == "python" && is_usual).then(|| text_of(flow, task, project, "code"))?
}

/// What Python says of a source.
#[derive(Deserialize)]
#[serde(untagged)]
enum Said {
    Broken { line: usize, column: usize, message: String },
    Missing { functions: Vec<String> },
}

/// Errors: why Python could not be asked.
async fn of_python(sources: &[Source<'_>]) -> Result<Vec<Mistake>, String> {
    if sources.is_empty() {
        return Ok(Vec::new());
    }
    let function = |source: &Source<'_>| {
        source.task.config["function"].as_str().filter(|name| !is_template(name)).map(str::to_owned)
    };
    let asked: Vec<Value> = sources
        .iter()
        .map(|source| json!({ "text": source.text, "body": source.file.is_none(), "function": function(source) }))
        .collect();
    let said: Vec<Option<Said>> = ask(&Value::from(asked)).await?;
    let mistakes = sources.iter().zip(said).filter_map(|(source, said)| {
        Some(match said? {
            Said::Broken { line, column, message } => {
                source.mistake(Some(Place { line, column }), &format!("this is no Python: {message}"), None)
            }
            Said::Missing { functions } => {
                let (name, file) = (function(source)?, source.file?);
                let near = nearest(&name, functions.iter().map(String::as_str));
                let hint = near.map(|near| format!("did you mean '{near}'?"));
                source.mistake_at("function", &format!("there is no function '{name}' in {file}"), hint)
            }
        })
    });
    Ok(mistakes.collect())
}

async fn ask(asked: &Value) -> Result<Vec<Option<Said>>, String> {
    let mut command = tokio::process::Command::new("python3");
    command
        .args(["-I", "-c", LOOK])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => "there is no python3 on the PATH".to_owned(),
        _ => format!("python3: {error}"),
    })?;
    let input = child.stdin.take();
    let feeding = async {
        if let Some(mut pipe) = input {
            // It says itself what went wrong if it did not read all.
            let _ = pipe.write_all(asked.to_string().as_bytes()).await;
        }
    };
    let (done, ()) = tokio::join!(child.wait_with_output(), feeding);
    let done = done.map_err(|error| format!("python3: {error}"))?;
    let told = String::from_utf8_lossy(&done.stderr);
    serde_json::from_slice(&done.stdout).map_err(|_| format!("python3: {}", told.lines().last().unwrap_or("no answer")))
}

#[cfg(test)]
mod tests {
    use super::without_templates;

    #[test]
    fn templates_make_room_for_what_they_stand_for() {
        for (text, plain) in [
            ("select 1", Some("select 1")),
            ("select * from lake.raw.{{ c }}_trips", Some("select * from lake.raw.xxxxxxx_trips")),
            ("where d >= '{{ a }} {{\nb }}'", Some("where d >= 'xxxxxxx xx\nxxxx'")),
            ("where n = {{ n }} and m in ({{ m }}, {{ k }})", Some("where n = xxxxxxx and m in (xxxxxxx, xxxxxxx)")),
            ("{{ query }}", None),
            ("select {{ columns }} from t", None),
            ("select 1 {% if x %}from t{% endif %}", None),
            ("select '{{'", None),
        ] {
            assert_eq!(without_templates(text).as_deref(), plain, "{text}");
        }
    }
}
