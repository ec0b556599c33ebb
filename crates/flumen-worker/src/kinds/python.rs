//! `python`: a file, a function in one, or a few lines, by an interpreter that is kept warm.

mod environment;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path as FilePath, PathBuf};

use async_trait::async_trait;
use flumen_core::flow::{Failure, Outcome};
use flumen_core::task_kind::{Named, NamedFile, Path, Problem, TaskKind, Uses, schema_of};
use flumen_core::{Error, Result};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Kind, NOTHING_TO_DO, OneOrMore, program_output};
use crate::attempt::Attempt;
use crate::process::Ended;
use crate::python::{self, Call, Way};

/// The exception of a task that wants more memory than it may have.
const MEMORY_ERROR: &str = "MemoryError";

/// The kind `python`.
#[derive(Debug)]
pub struct Python;

/// Arguments up to so many bytes of JSON are told with the task; larger ones are in a file.
const GIVEN_BYTES: usize = 16 << 10;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Fields {
    /// A Python file of the project. Without `function` it is run as a program.
    file: Option<String>,
    /// The function in the file that is called. What it returns is the output.
    function: Option<String>,
    /// The body of a function: `return x` gives the output. It is no template: give it values as `kwargs`.
    code: Option<String>,
    /// The function's arguments, or those of the program.
    args: Option<Vec<Value>>,
    /// The function's arguments by name; for `code`, the names that it has.
    kwargs: Option<Map<String, Value>>,
    /// The interpreter: a name or a path; `python3` by default.
    interpreter: Option<String>,
    /// The folder of a virtual environment, whose interpreter and packages are used.
    venv: Option<String>,
    /// The packages that it needs: a list, or the file with them. A virtual environment with them is made once, and kept.
    requirements: Option<OneOrMore<String>>,
}

impl TaskKind for Python {
    fn name(&self) -> &'static str {
        "python"
    }

    fn about(&self) -> &'static str {
        "Runs Python: a file, a function in a file, or a few lines. Its output is what the function returns."
    }

    fn schema(&self) -> Value {
        schema_of::<Fields>()
    }

    fn bare_field(&self) -> Option<&'static str> {
        Some("code")
    }

    fn check(&self, config: &Value) -> Vec<Problem> {
        let has = |key: &str| !config[key].is_null();
        let mut problems = Vec::new();
        if has("file") == has("code") {
            problems.push(Problem::at_key(Path::top(), "give either 'file' or 'code'"));
        }
        let excluded = |key: &str, message: &str, hint: &str| {
            has(key).then(|| Problem::at_key(Path::of([key]), message).hint(hint))
        };
        if has("code") {
            problems.extend(excluded("function", "'code' is a function already", "leave out 'function'"));
            problems.extend(excluded("args", "'code' has no arguments without names", "give it values as 'kwargs'"));
        } else if !has("function") {
            let message = "a file that is run as a program has no arguments by name";
            problems.extend(excluded("kwargs", message, "name the 'function' to call, or give 'args'"));
        }
        if has("venv") {
            let message = "'venv' names an environment that is there";
            let hint = "leave out one of the two";
            problems.extend(excluded("requirements", message, hint));
            problems.extend(excluded("interpreter", "'venv' has an interpreter", hint));
        }
        for name in config["kwargs"].as_object().into_iter().flatten().map(|(name, _)| name) {
            if !is_identifier(name) {
                let path = Path::of(["kwargs"]).key(name);
                problems.push(Problem::at_key(path, format!("'{name}' is not a name that Python has")));
            }
        }
        problems
    }

    fn uses(&self, config: &Value) -> Uses {
        let mut files: Vec<Named> = Named::at(config, Path::of(["file"])).into_iter().collect();
        if config["requirements"].is_string() {
            files.extend(Named::at(config, Path::of(["requirements"])));
        }
        let file = |name| NamedFile { name, is_template: false };
        Uses { files: files.into_iter().map(file).collect(), ..Uses::default() }
    }

    fn is_template(&self, path: &Path) -> bool {
        !Path::of(["code"]).holds(path)
    }
}

fn is_identifier(name: &str) -> bool {
    name.starts_with(|c: char| c.is_alphabetic() || c == '_') && name.chars().all(|c| c.is_alphanumeric() || c == '_')
}

#[async_trait]
impl Kind for Python {
    async fn run(&self, attempt: &Attempt<'_>) -> Result<Outcome> {
        let mut fields: Fields = attempt.fields()?;
        let interpreter = match interpreter(attempt, &fields).await? {
            Ok(interpreter) => interpreter,
            Err(outcome) => return Ok(outcome),
        };
        let beside =
            fields.file.as_ref().and_then(|file| attempt.host.project.dir().join(file).parent().map(PathBuf::from));
        let (file, way) = program(attempt, &mut fields)?;
        let [input, result, problem] =
            [".input.json", ".returned.json", ".problem.json"].map(|name| attempt.scratch.join(name));
        let given = json!({ "args": fields.args.unwrap_or_default(), "kwargs": fields.kwargs.unwrap_or_default() });
        let text = given.to_string();
        let given = (text.len() <= GIVEN_BYTES).then_some(given);
        if given.is_none() {
            std::fs::write(&input, text).map_err(|error| Error::io("the arguments of a task", error))?;
        }
        let is_program = matches!(way, Way::File { .. });
        let (environment, paths) = surroundings(attempt, &interpreter, beside);
        let call = Call {
            file,
            way,
            paths,
            given,
            input,
            result: result.clone(),
            problem: problem.clone(),
            folder: attempt.scratch.to_owned(),
            environment,
            memory_bytes: attempt.memory_bytes(),
        };
        let log = attempt.last_line();
        let ended = attempt.host.interpreters.call(&interpreter.program, &call, &attempt.watched(&log)).await?;
        if ended == Ended::Exited(0) {
            return Ok(Outcome::success(match is_program {
                true => program_output(attempt, log.take())?,
                false => returned(&result)?,
            }));
        }
        Ok(ended_badly(attempt, ended, raised(&problem)))
    }
}

/// What a function returned; nothing, where it ended the process itself.
fn returned(file: &FilePath) -> Result<Value> {
    match std::fs::read(file) {
        Ok(text) => serde_json::from_slice(&text)
            .map_err(|error| Error::data("what the function returned cannot be read").caused_by(error)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Value::Null),
        Err(error) => Err(Error::io("what the function returned", error)),
    }
}

fn raised(file: &FilePath) -> Option<python::Problem> {
    serde_json::from_slice(&std::fs::read(file).ok()?).ok()
}

fn ended_badly(attempt: &Attempt<'_>, ended: Ended, raised: Option<python::Problem>) -> Outcome {
    match (ended, raised) {
        (Ended::Exited(NOTHING_TO_DO), raised) => {
            let cause = raised.map(|problem| problem.message).filter(|message| !message.is_empty());
            Outcome::Skipped {
                cause: cause.unwrap_or_else(|| format!("exit code {NOTHING_TO_DO}: there was nothing to do")),
            }
        }
        (Ended::Exited(code), Some(problem)) => {
            let kind = if problem.kind == MEMORY_ERROR { "out_of_memory" } else { "exit" };
            Outcome::Failure(Failure { exit_code: Some(code), ..Failure::new(kind, problem.message) })
        }
        (ended, _) => attempt.ended_badly(ended),
    }
}

/// The file to run, and how.
fn program(attempt: &Attempt<'_>, fields: &mut Fields) -> Result<(PathBuf, Way)> {
    match (fields.file.take(), fields.code.take()) {
        (Some(file), None) => {
            let way = match fields.function.take() {
                Some(function) => Way::Function { function },
                None => Way::File { arguments: fields.args.take().unwrap_or_default().iter().map(argument).collect() },
            };
            Ok((project_file(attempt, &file)?, way))
        }
        (None, Some(code)) => {
            let file = attempt.scratch.join(format!("{}.py", attempt.task.id));
            std::fs::write(&file, code).map_err(|error| Error::io("the code of a task", error))?;
            Ok((file, Way::Body))
        }
        _ => Err(Error::invalid("give either 'file' or 'code'")),
    }
}

/// A value as an argument of a program.
fn argument(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A file that the flow names: as the version has it; one whose name is a template, as it is in the project.
fn project_file(attempt: &Attempt<'_>, name: &str) -> Result<PathBuf> {
    let kept = attempt
        .environment
        .get::<OsString>(&"FLUMEN_FILES".into())
        .filter(|_| attempt.version.files.contains_key(name));
    let path = match kept {
        Some(folder) => PathBuf::from(folder).join(name),
        None => attempt.host.project.dir().join(name),
    };
    match path.is_file() {
        true => Ok(path),
        false => Err(Error::not_found(format!("there is no file '{name}' in the project")).hint("check the path")),
    }
}

/// An interpreter, and the virtual environment that it belongs to.
struct Interpreter {
    program: PathBuf,
    venv: Option<PathBuf>,
}

/// The interpreter of a task; how making its environment ended, where that was not well.
async fn interpreter(attempt: &Attempt<'_>, fields: &Fields) -> Result<Result<Interpreter, Outcome>> {
    let project = attempt.host.project.dir();
    let named = fields.interpreter.as_deref().unwrap_or("python3");
    let base = match named.contains('/') {
        true => project.join(named),
        false => PathBuf::from(named),
    };
    let venv = match (&fields.venv, &fields.requirements) {
        (Some(venv), _) => project.join(venv),
        (None, Some(requirements)) => {
            let requirements = match requirements {
                OneOrMore::One(file) => environment::Requirements::File(project_file(attempt, file)?),
                OneOrMore::More(packages) => environment::Requirements::List(packages.clone()),
            };
            match environment::venv(attempt, &base, &requirements).await? {
                Ok(venv) => venv,
                Err(outcome) => return Ok(Err(outcome)),
            }
        }
        (None, None) => return Ok(Ok(Interpreter { program: base, venv: None })),
    };
    let program = venv.join("bin/python");
    if !program.exists() {
        return Err(Error::not_found(format!("there is no virtual environment in '{}'", venv.display()))
            .hint("make it with 'python3 -m venv', or let 'requirements' make one"));
    }
    Ok(Ok(Interpreter { program, venv: Some(venv) }))
}

/// The environment variables of a task, and the folders in which it finds modules: that of the version's files, that in the project
/// of what lies `beside` its file and is not part of the version, and the project's own.
fn surroundings(
    attempt: &Attempt<'_>,
    interpreter: &Interpreter,
    beside: Option<PathBuf>,
) -> (BTreeMap<String, String>, Vec<PathBuf>) {
    let text = |text: &OsString| text.to_string_lossy().into_owned();
    let mut environment: BTreeMap<String, String> =
        attempt.environment.iter().map(|(name, value)| (text(name), text(value))).collect();
    let own = environment.get("PYTHONPATH").map(|own| std::env::split_paths(own).collect::<Vec<_>>());
    let mut paths: Vec<PathBuf> = own.into_iter().flatten().filter(|path| !path.as_os_str().is_empty()).collect();
    paths.extend(environment.get("FLUMEN_FILES").map(PathBuf::from));
    let project = attempt.host.project.dir().to_owned();
    paths.extend(beside.filter(|folder| *folder != project));
    paths.push(project);
    // What it starts finds the same.
    if let Ok(joined) = std::env::join_paths(&paths) {
        environment.insert("PYTHONPATH".to_owned(), text(&joined));
    }
    if let Some(venv) = &interpreter.venv {
        let path = environment.get("PATH").cloned().unwrap_or_default();
        environment.insert("PATH".to_owned(), format!("{}:{path}", venv.join("bin").display()));
        environment.insert("VIRTUAL_ENV".to_owned(), venv.display().to_string());
    }
    (environment, paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_excludes_each_other_is_told() {
        let check = |config: Value| {
            let problems = Python.check(&config);
            problems.iter().map(|problem| problem.message.clone()).collect::<Vec<_>>().join("; ")
        };
        assert_eq!(check(json!({})), "give either 'file' or 'code'");
        assert_eq!(check(json!({ "file": "a.py", "code": "", "function": "f" })).split("; ").count(), 2);
        assert_eq!(check(json!({ "code": "", "args": [] })), "'code' has no arguments without names");
        assert!(check(json!({ "file": "a.py", "kwargs": { "a": 1 } })).contains("no arguments by name"));
        assert!(check(json!({ "code": "", "kwargs": { "a b": 1 } })).contains("'a b' is not a name"));
        assert!(check(json!({ "code": "", "venv": "v", "requirements": ["x"] })).contains("'venv' names"));
        assert_eq!(check(json!({ "code": "return a", "kwargs": { "a": 1 } })), "");
    }
}
