//! `docker`: a command in a container.
//!
//! A container belongs to one attempt: it is removed when that ends, however it ends. One whose worker was killed is removed by
//! the next attempt, which finds it by its labels.

mod engine;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use async_trait::async_trait;
use flumen_core::flow::{Failure, Outcome};
use flumen_core::limits::TERMINATION_GRACE;
use flumen_core::task_kind::{Path, Problem, TaskKind, is_template, schema_of};
use flumen_core::{Error, Result};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use self::engine::{Engine, Exit};
use super::{Kind, NOTHING_TO_DO, OneOrMore, output_in};
use crate::attempt::{Attempt, SCRATCH_OUTPUT};
use crate::process::Ended;

/// The variable that says where the engine is.
const DOCKER_HOST: &str = "DOCKER_HOST";
/// Where the engine is, if nothing says so.
const DEFAULT_SOCKET: &str = "unix:///var/run/docker.sock";
/// The folder in a container that is the attempt's own.
const SHARED: &str = "/flumen";
/// The exit code of what the kernel killed.
const KILLED: i64 = 137;

/// The kind `docker`.
#[derive(Debug)]
pub struct Docker;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Fields {
    /// The image: `python:3.12-slim`.
    image: String,
    /// What runs in it: a text is read by the image's `sh`, a list is a program with its arguments. What the image says by default.
    command: Option<OneOrMore<String>>,
    /// What runs the command, in place of what the image says.
    entrypoint: Option<OneOrMore<String>>,
    /// Environment variables, besides those of the task.
    env: Option<BTreeMap<String, Value>>,
    /// Folders and files that it sees: `data:/data` or `data:/data:ro`, the first from the project's folder.
    mounts: Option<Vec<String>>,
    /// The folder in which it runs.
    workdir: Option<String>,
    /// Its network: `none`, `host`, or the name of one.
    network: Option<String>,
    /// The user as whom it runs: `1000:1000`.
    user: Option<String>,
    /// When the image is pulled: `missing` (the default), `always` or `never`.
    pull: Option<Pull>,
    /// Where the engine is: `unix:///run/docker.sock` or `tcp://host:2375`. By default what DOCKER_HOST says.
    socket: Option<String>,
}

/// When an image is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Pull {
    /// When the engine does not have it.
    Missing,
    /// Before every attempt.
    Always,
    /// Not at all.
    Never,
}

impl TaskKind for Docker {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn about(&self) -> &'static str {
        "Runs a command in a container. Its output is what it writes into the file $FLUMEN_OUTPUT, else the last line that it prints."
    }

    fn schema(&self) -> Value {
        schema_of::<Fields>()
    }

    fn bare_field(&self) -> Option<&'static str> {
        Some("image")
    }

    fn check(&self, config: &Value) -> Vec<Problem> {
        let mounts = config["mounts"].as_array().into_iter().flatten().enumerate();
        let texts = mounts.filter_map(|(index, mount)| Some((index, mount.as_str()?)));
        texts
            .filter(|(_, text)| !is_template(text))
            .filter_map(|(index, text)| {
                let error = Mount::parse(text).err()?;
                let problem = Problem::new(Path::of(["mounts"]).index(index), error.message());
                Some(problem.hint(error.remedy().unwrap_or_default()))
            })
            .collect()
    }
}

#[async_trait]
impl Kind for Docker {
    async fn run(&self, attempt: &Attempt<'_>) -> Result<Outcome> {
        let fields: Fields = attempt.fields()?;
        let place = match &fields.socket {
            Some(socket) => socket.clone(),
            None => attempt.host.project.environment().get(DOCKER_HOST).unwrap_or(DEFAULT_SOCKET).to_owned(),
        };
        let engine = Engine::at(&place)?;
        let until_started = async {
            engine.remove_labelled(&labels(attempt)).await?;
            provide(&engine, attempt, &fields).await
        };
        tokio::select! {
            ready = until_started => ready?,
            () = attempt.cancel.cancelled() => return Ok(Outcome::Cancelled),
        }
        let shared = shared_folder(attempt)?;
        let wanted = container(attempt, &fields, &shared)?;
        // From here on there is something to remove, whatever happens.
        let id = engine.create(&name(attempt), &wanted).await?;
        let outcome = in_container(&engine, attempt, &id, &shared).await;
        let removed = engine.remove(&id).await;
        let outcome = outcome?;
        if let Err(error) = removed {
            attempt.note(&format!("the container {id} is left: {}", error.message()));
        }
        Ok(outcome)
    }
}

/// The labels by which the container of a task run is found.
fn labels(attempt: &Attempt<'_>) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("flumen.run".to_owned(), attempt.work.run.id.to_string()),
        ("flumen.task".to_owned(), attempt.work.queued.key.to_string()),
    ])
}

/// The name of the attempt's container: no other has its number.
fn name(attempt: &Attempt<'_>) -> String {
    let work = attempt.work;
    let name = format!("flumen-{}-{}-{}", work.run.id, work.queued.key, work.lease.number);
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    name.chars().map(|c| if is_allowed(c) { c } else { '-' }).collect()
}

/// Sees that the engine has the image.
async fn provide(engine: &Engine, attempt: &Attempt<'_>, fields: &Fields) -> Result<()> {
    let image = &fields.image;
    let pull = match fields.pull.unwrap_or(Pull::Missing) {
        Pull::Always => true,
        Pull::Missing => !engine.has_image(image).await?,
        Pull::Never if engine.has_image(image).await? => false,
        Pull::Never => {
            return Err(Error::not_found(format!("the engine has no image '{image}'"))
                .hint("build or pull it there, or let the task pull it with 'pull: missing'"));
        }
    };
    if pull {
        attempt.note(&format!("pulls the image {image}"));
        engine.pull(image).await?;
    }
    Ok(())
}

/// A folder that the container shares, in which any user of it may write.
fn shared_folder(attempt: &Attempt<'_>) -> Result<PathBuf> {
    let folder = attempt.scratch.join("shared");
    let made = std::fs::create_dir_all(&folder)
        .and_then(|()| std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)));
    made.map_err(|error| Error::io(folder.display(), error))?;
    Ok(folder)
}

/// The container, in the words of the engine.
fn container(attempt: &Attempt<'_>, fields: &Fields, shared: &std::path::Path) -> Result<Value> {
    let project = attempt.host.project.dir();
    let mut binds = vec![format!("{}:{SHARED}", shared.display())];
    for text in fields.mounts.iter().flatten() {
        let Mount { source, target, read_only } = Mount::parse(text)?;
        let source = project.join(source);
        let mode = if read_only { ":ro" } else { "" };
        binds.push(format!("{}:{target}{mode}", clean(&source).display()));
    }
    let command = match &fields.command {
        Some(OneOrMore::One(text)) => Some(vec!["sh".to_owned(), "-c".to_owned(), text.clone()]),
        Some(OneOrMore::More(list)) => Some(list.clone()),
        None => None,
    };
    let mut host = json!({
        "Binds": binds,
        // The one whose lines can be followed on any engine.
        "LogConfig": { "Type": "json-file", "Config": { "max-size": "64m", "max-file": "2" } },
    });
    if let Some(network) = &fields.network {
        host["NetworkMode"] = json!(network);
    }
    if let Some(bytes) = attempt.memory_bytes() {
        host["Memory"] = json!(bytes);
        host["MemorySwap"] = json!(bytes);
    }
    let mut wanted = json!({
        "Image": fields.image,
        "Env": environment(attempt, fields),
        "Labels": labels(attempt),
        "HostConfig": host,
    });
    let optional = [
        ("Cmd", command.map(Value::from)),
        ("Entrypoint", fields.entrypoint.clone().map(|entrypoint| Value::from(entrypoint.into_list()))),
        ("User", fields.user.clone().map(Value::from)),
        ("WorkingDir", fields.workdir.clone().map(Value::from)),
    ];
    for (key, value) in optional {
        if let Some(value) = value {
            wanted[key] = value;
        }
    }
    Ok(wanted)
}

/// A path without `.` and `..`: the engine takes no others.
fn clean(path: &std::path::Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => drop(clean.pop()),
            std::path::Component::CurDir => {}
            part => clean.push(part),
        }
    }
    clean
}

/// The variables that a container sees: those that tell of the run, those of the task, and its own.
fn environment(attempt: &Attempt<'_>, fields: &Fields) -> Vec<String> {
    // These name places of the worker.
    let is_place = |name: &str| ["FLUMEN_OUTPUT", "FLUMEN_FILES", "FLUMEN_PROJECT"].contains(&name);
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in &attempt.environment {
        let (name, value) = (name.to_string_lossy(), value.to_string_lossy());
        if attempt.task.env.contains_key(&*name) || name.starts_with("FLUMEN_") && !is_place(&name) {
            all.insert(name.into_owned(), value.into_owned());
        }
    }
    all.insert("FLUMEN_OUTPUT".to_owned(), format!("{SHARED}/{SCRATCH_OUTPUT}"));
    for (name, value) in fields.env.iter().flatten() {
        all.insert(name.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    }
    all.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// Starts a container and sees it through to its end, or to that of the attempt.
async fn in_container(engine: &Engine, attempt: &Attempt<'_>, id: &str, shared: &std::path::Path) -> Result<Outcome> {
    engine.start(id).await?;
    let log = attempt.last_line();
    let ending = async {
        engine.follow(id, &log, &attempt.masks).await?;
        engine.wait(id).await
    };
    let exit = tokio::select! {
        exit = ending => exit?,
        () = attempt.cancel.cancelled() => {
            // It is removed by force afterwards: what it does not do now is not needed.
            if let Err(error) = engine.stop(id, TERMINATION_GRACE).await {
                attempt.note(&format!("the container does not stop: {}", error.message()));
            }
            return Ok(Outcome::Cancelled);
        }
    };
    if exit.code == 0 {
        return Ok(Outcome::success(output_in(&shared.join(SCRATCH_OUTPUT), log.take())?));
    }
    Ok(ended_badly(attempt, &exit))
}

fn ended_badly(attempt: &Attempt<'_>, exit: &Exit) -> Outcome {
    let code = i32::try_from(exit.code).unwrap_or(i32::MAX);
    if code == NOTHING_TO_DO {
        return Outcome::Skipped { cause: format!("exit code {NOTHING_TO_DO}: there was nothing to do") };
    }
    if exit.out_of_memory || exit.code == KILLED {
        return match attempt.ended_badly(Ended::Signalled(9)) {
            Outcome::Failure(failure) if exit.out_of_memory => Outcome::Failure(Failure {
                exit_code: Some(code),
                message: "the container ran out of memory".to_owned(),
                ..failure
            }),
            other => other,
        };
    }
    attempt.ended_badly(Ended::Exited(code))
}

/// What a container sees of the project or of the machine.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    source: PathBuf,
    target: String,
    read_only: bool,
}

impl Mount {
    fn parse(text: &str) -> Result<Self> {
        let wrong =
            || Error::invalid(format!("'{text}' is not a mount")).hint("write it as data:/data, or data:/data:ro");
        let (places, read_only) = match text.strip_suffix(":ro") {
            Some(places) => (places, true),
            None => (text.strip_suffix(":rw").unwrap_or(text), false),
        };
        let (source, target) = places.split_once(':').ok_or_else(wrong)?;
        if source.is_empty() || !target.starts_with('/') || target.contains(':') {
            return Err(wrong());
        }
        Ok(Self { source: source.into(), target: target.to_owned(), read_only })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts() {
        let parse = |text: &str| Mount::parse(text).ok().map(|mount| (mount.source, mount.target, mount.read_only));
        assert_eq!(parse("data:/data"), Some(("data".into(), "/data".to_owned(), false)));
        assert_eq!(parse("/x:/y:ro"), Some(("/x".into(), "/y".to_owned(), true)));
        assert_eq!(parse(".:/project:rw"), Some((".".into(), "/project".to_owned(), false)));
        for text in ["data", "data:", "data:x", ":/x", "a:/b:zz"] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(clean(std::path::Path::new("/a/./b/../c")), PathBuf::from("/a/c"));
        let config = json!({ "image": "x", "mounts": ["a:/a", "b"] });
        assert_eq!(Docker.check(&config)[0].path.to_string(), "mounts.1");
    }
}
