//! From a claimed task run to the outcome of its attempt.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::SecondsFormat;
use flumen_core::boxed;
use flumen_core::flow::store::{PendingWait, Work};
use flumen_core::flow::{Failure, Lease, Outcome, Queued, TaskKey, WorkerId};
use flumen_core::task_kind;
use flumen_core::{Error, Result};
use flumen_flow::definition::{Cache, ForEachSource, Task};
use flumen_flow::template::{Rendered, Renderer};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::attempt::{Attempt, OwnProcess, SCRATCH_OUTPUT};
use crate::host::Host;
use crate::kinds::Kind;
use crate::library::Version;
use crate::log::{Log, Masks, Stream};
use crate::logs::AttemptLog;
use crate::{cache, failure, outputs, templates};

/// The folder in the project for what attempts need while they run.
const WORK_FOLDER: &str = ".flumen/work";
/// The folder in the project with the files of versions of flows.
const VERSIONS_FOLDER: &str = ".flumen/versions";
/// Variables of the worker that every program sees.
const PASSED_ON: &[&str] =
    &["PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR"];
/// The longest error that is kept with a task run; the whole of it is in the log.
const ERROR_CHARS: usize = 4_000;

/// Runs one attempt to its end. Whatever goes wrong is an outcome too, but that the store is away: it is waited for.
#[boxed]
pub async fn execute(host: &Arc<Host>, work: &Work, cancel: &CancellationToken) -> Outcome {
    let host = &host.patient(cancel);
    let log = AttemptLog::new(host, work);
    logged(host, work, &log, cancel).await
}

/// Looks once more at what a deferred task waits for: how the wait ended, if it is over. What a look prints is kept when it is the
/// last.
///
/// Errors: `Unavailable`, where it could not be looked at: it is to be looked at again; `NotFound`, where the run is not there.
#[boxed]
pub async fn look(host: &Arc<Host>, wait: &PendingWait) -> Result<Option<Outcome>> {
    let PendingWait { run, key, number, .. } = wait;
    let tasks = host.store.tasks_of(*run, std::slice::from_ref(&key.task)).await?;
    let of_key = |key: &TaskKey| tasks.iter().find(|task| task.key == *key);
    let attempt = of_key(key).map_or(1, |task| task.attempt);
    let item = key.index.and_then(|index| {
        let whole = of_key(&TaskKey { index: None, ..key.clone() })?;
        whole.items.as_ref()?.get(index as usize).cloned()
    });
    // There is no lease any more, and nothing that a look does asks for one.
    let lease = Lease {
        run: *run,
        key: key.clone(),
        number: *number,
        worker: WorkerId::from("scheduler"),
        expires: host.clock.now(),
    };
    let pool = flumen_flow::definition::DEFAULT_POOL.to_owned();
    let queued = Queued { key: key.clone(), attempt, lists: false, item, pool, slots: 1, priority: 0 };
    let work = Work { lease, queued, run: host.store.run(*run).await? };
    let log = AttemptLog::of_look(host, &work);
    match logged(host, &work, &log, &CancellationToken::new()).await {
        Outcome::Deferred { .. } | Outcome::Rescheduled { .. } | Outcome::Cancelled => Ok(None),
        // Kinds wait for systems that are away: it is the store.
        Outcome::Failure(failure) if failure.kind == flumen_core::ErrorKind::Unavailable.name() => {
            Err(Error::unavailable(failure.message))
        }
        outcome => Ok(Some(outcome)),
    }
}

/// Runs one attempt, or one look of it, with this log.
async fn logged(host: &Arc<Host>, work: &Work, log: &AttemptLog<'_>, cancel: &CancellationToken) -> Outcome {
    let attempt = async {
        let outcome = match run(host, work, log, log.is_look(), cancel).await {
            Ok(outcome) => outcome,
            Err(error) if cancel.is_cancelled() || error.kind() == flumen_core::ErrorKind::Cancelled => {
                Outcome::Cancelled
            }
            Err(error) => Outcome::Failure(failure::of(&error)),
        };
        let outcome = kept(host, work, outcome).await;
        if let Outcome::Failure(failure) = &outcome {
            log.line(Stream::Note, &failure.to_string());
        }
        if log.is_look() && matches!(outcome, Outcome::Deferred { .. }) {
            log.forget();
        }
        log.close();
        outcome
    };
    let (outcome, ()) = tokio::join!(attempt, log.keep());
    outcome
}

/// The outcome as the store keeps it: large outputs are elsewhere, long messages are cut.
async fn kept(host: &Host, work: &Work, outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Success { output, reads, writes } => match outputs::keep(&host.kept, work, output).await {
            Ok(output) => Outcome::Success { output, reads, writes },
            Err(error) => Outcome::Failure(failure::of(&error)),
        },
        Outcome::Reused { output, cause } => match outputs::keep(&host.kept, work, output).await {
            Ok(output) => Outcome::Reused { output, cause },
            Err(error) => Outcome::Failure(failure::of(&error)),
        },
        Outcome::Failure(mut failure) => {
            if let Some((end, _)) = failure.message.char_indices().nth(ERROR_CHARS) {
                failure.message.truncate(end);
                failure.message.push('…');
            }
            Outcome::Failure(failure)
        }
        other => other,
    }
}

async fn run(
    host: &Arc<Host>,
    work: &Work,
    log: &dyn Log,
    is_look: bool,
    cancel: &CancellationToken,
) -> Result<Outcome> {
    let version = host.library.version(&work.run.version, &*host.store).await?;
    let id = work.queued.key.task.as_str();
    let task = version.compiled.flow.task(id).ok_or_else(|| templates::no_task(&version, id))?;
    let renderer = renderer(host, &version, work).await?;
    let scratch = Scratch::of(host.project.dir(), work);
    if work.queued.lists {
        return list(host, work, &version, task, &renderer, &scratch, log, cancel).await;
    }
    // What waits without a worker has no output of its own that could be used.
    let cache = task.cache.as_ref().filter(|_| !is_look);
    let surroundings = Surroundings { host, work, version: &version, log, cancel, cache };
    surroundings.run_task(task, &renderer, &scratch).await
}

/// What surrounds a task that is run.
pub(crate) struct Surroundings<'a> {
    pub host: &'a Arc<Host>,
    pub work: &'a Work,
    pub version: &'a Arc<Version>,
    pub log: &'a dyn Log,
    pub cancel: &'a CancellationToken,
    /// When an earlier output is used again.
    pub cache: Option<&'a Cache>,
}

impl Surroundings<'_> {
    /// Runs a task by its kind.
    ///
    /// Errors: those of its templates and of its kind, with secrets masked.
    pub(crate) async fn run_task(&self, task: &Task, renderer: &Renderer, scratch: &Scratch) -> Result<Outcome> {
        let Self { host, work, version, log, cancel, cache } = *self;
        let kind = host.library.kind(&task.kind)?;
        let config = render(&**kind, renderer, task)?;
        let (environment, mut secrets) = match kind.starts_programs() {
            true => {
                scratch.make()?;
                environment(host, work, version, task, renderer, scratch.path())?
            }
            false => (BTreeMap::new(), Vec::new()),
        };
        secrets.extend(config.secrets);
        // Those of other tasks may come with their outputs.
        secrets.extend(templates::secrets_of_run(host, work, version));
        if cache.is_some() {
            scratch.make()?;
        }
        let masks = Masks::new(secrets.iter().map(String::as_str));
        let attempt = Attempt {
            host,
            work,
            version,
            task,
            config: &config.value,
            shown: &config.shown,
            renderer,
            scratch: scratch.path(),
            environment,
            log,
            masks: masks.clone(),
            cancel,
            clears: clears(host, work).await?,
        };
        let outcome = match cache {
            Some(cache) => cache::run(&attempt, &**kind, cache).await,
            None => kind.run(&attempt).await,
        };
        // What a failure says may quote what it was given.
        outcome.map(|outcome| masked(outcome, &masks)).map_err(|error| {
            let shown = Error::new(error.kind(), masks.apply(error.message()).into_owned());
            match error.remedy() {
                Some(remedy) => shown.hint(masks.apply(remedy).into_owned()),
                None => shown,
            }
        })
    }
}

fn masked(outcome: Outcome, masks: &Masks) -> Outcome {
    match outcome {
        Outcome::Failure(failure) => {
            Outcome::Failure(Failure { message: masks.apply(&failure.message).into_owned(), ..failure })
        }
        Outcome::Skipped { cause } => Outcome::Skipped { cause: masks.apply(&cause).into_owned() },
        other => other,
    }
}

/// How often somebody asked for the task run to be done again. Asked for only where a load could be taken for an earlier one.
async fn clears(host: &Host, work: &Work) -> Result<u32> {
    if work.queued.attempt <= 1 {
        return Ok(0);
    }
    let tasks = host.store.tasks_of(work.run.id, std::slice::from_ref(&work.queued.key.task)).await?;
    Ok(tasks.iter().find(|task| task.key == work.queued.key).map_or(0, |task| task.spared))
}

/// Renders the templates of an attempt.
async fn renderer(host: &Arc<Host>, version: &Arc<Version>, work: &Work) -> Result<Renderer> {
    let key = &work.queued.key;
    let uses = version.uses(key.task.as_str());
    let names = match uses.outputs {
        Some(names) => names,
        None => version.compiled.flow.tasks.iter().map(|task| task.id.clone()).collect::<BTreeSet<_>>(),
    };
    if uses.variables {
        host.read_variables().await?;
    }
    let mut outputs = version.outputs.clone();
    outputs.extend(templates::outputs_of(&*host.store, &host.kept, work.run.id, &names).await?);
    let seen = templates::Seen { run: &work.run, version, project: &host.project, now: host.clock.now() };
    let mut context = seen.context(Some(key), work.queued.attempt, outputs)?;
    if uses.last_success {
        context.last_success = templates::last_success(&*host.store, work.run.id).await?;
    }
    if let (Some(item), Some(index)) = (&work.queued.item, key.index) {
        context.more =
            BTreeMap::from([("item".to_owned(), item.clone()), ("map_index".to_owned(), Value::from(index))]);
    }
    Ok(Renderer::new(context))
}

/// The fields of a task's kind, rendered.
pub fn render(kind: &dyn Kind, renderer: &Renderer, task: &Task) -> Result<Rendered<Value>> {
    render_at(kind, renderer, &task.kind, &task_kind::Path::top(), &task.config)
}

/// Renders the text of a file of the flow; `dir` is the folder of the project.
///
/// Errors: `NotFound`; `Invalid` for what is no text; those of the template.
pub fn render_file(version: &Version, dir: &Path, renderer: &Renderer, name: &str) -> Result<Rendered> {
    let bytes = match version.files.get(name) {
        Some(bytes) => bytes.to_vec(),
        // Its name was a template: it is not among those that the run keeps.
        None => {
            let path = dir.join(name);
            std::fs::read(&path).map_err(|error| Error::io(path.display(), error))?
        }
    };
    let text = String::from_utf8(bytes)
        .map_err(|error| Error::invalid(format!("{name}: this file is not UTF-8 text")).caused_by(error))?;
    renderer.text(name, &text)
}

/// Renders what stands at `path`, but what the kind says is no template.
pub(crate) fn render_at(
    kind: &dyn Kind,
    renderer: &Renderer,
    field: &str,
    path: &task_kind::Path,
    value: &Value,
) -> Result<Rendered<Value>> {
    match value {
        Value::Object(map) => {
            let mut all = Rendered { value: json!({}), shown: json!({}), secrets: Vec::new() };
            for (key, item) in map {
                let item = render_at(kind, renderer, &format!("{field}.{key}"), &path.key(key), item)?;
                all.value[key] = item.value;
                all.shown[key] = item.shown;
                all.secrets.extend(item.secrets);
            }
            Ok(all)
        }
        Value::Array(items) => {
            let (mut value, mut shown, mut secrets) = (Vec::new(), Vec::new(), Vec::new());
            for (index, item) in items.iter().enumerate() {
                let item = render_at(kind, renderer, &format!("{field}[{index}]"), &path.index(index), item)?;
                value.push(item.value);
                shown.push(item.shown);
                secrets.extend(item.secrets);
            }
            Ok(Rendered { value: Value::Array(value), shown: Value::Array(shown), secrets })
        }
        plain if !kind.is_template(path) => {
            Ok(Rendered { value: plain.clone(), shown: plain.clone(), secrets: Vec::new() })
        }
        plain => renderer.json(field, plain, true),
    }
}

/// The environment variables of an attempt's programs, and the secrets among them.
fn environment(
    host: &Host,
    work: &Work,
    version: &Version,
    task: &Task,
    renderer: &Renderer,
    scratch: &Path,
) -> Result<(BTreeMap<OsString, OsString>, Vec<String>)> {
    let mut all: BTreeMap<OsString, OsString> = BTreeMap::new();
    for (name, value) in std::env::vars_os() {
        let is_passed = name
            .to_str()
            .is_some_and(|name| PASSED_ON.contains(&name) || name.starts_with("LC_") || name.ends_with("_proxy"));
        if is_passed {
            all.insert(name, value);
        }
    }
    let run = &work.run;
    let moment = |moment: chrono::DateTime<chrono::Utc>| moment.to_rfc3339_opts(SecondsFormat::AutoSi, true);
    let named = [
        ("FLUMEN_FLOW", run.flow.to_string()),
        ("FLUMEN_TASK", work.queued.key.to_string()),
        ("FLUMEN_RUN_ID", run.id.to_string()),
        ("FLUMEN_ATTEMPT", work.queued.attempt.to_string()),
        ("FLUMEN_LOGICAL_DATE", moment(run.interval.start)),
        ("FLUMEN_DATA_INTERVAL_START", moment(run.interval.start)),
        ("FLUMEN_DATA_INTERVAL_END", moment(run.interval.end)),
        ("FLUMEN_ENV", host.environment.clone()),
    ];
    all.extend(named.map(|(name, value)| (name.into(), value.into())));
    all.insert("FLUMEN_PROJECT".into(), host.project.dir().into());
    all.insert("FLUMEN_OUTPUT".into(), scratch.join(SCRATCH_OUTPUT).into());
    if !version.files.is_empty() {
        all.insert("FLUMEN_FILES".into(), version.unpack(&host.project.dir().join(VERSIONS_FOLDER))?.into());
    }
    let mut secrets = Vec::new();
    for (name, text) in &task.env {
        let rendered = renderer.text(&format!("env.{name}"), text)?;
        secrets.extend(rendered.secrets);
        all.insert(name.into(), rendered.value.into());
    }
    Ok((all, secrets))
}

/// Makes the list for whose items a task runs, from a query or a pattern.
#[allow(clippy::too_many_arguments, reason = "it is what surrounds an attempt, taken apart")]
async fn list(
    host: &Arc<Host>,
    work: &Work,
    version: &Arc<Version>,
    task: &Task,
    renderer: &Renderer,
    scratch: &Scratch,
    log: &dyn Log,
    cancel: &CancellationToken,
) -> Result<Outcome> {
    let each = task.for_each.as_ref().ok_or_else(|| Error::internal(format!("task '{}' has no list", task.id)))?;
    let (config, secrets) = match &each.source {
        ForEachSource::Query { query, connection } => {
            let query = renderer.text("for_each.query", query)?;
            (
                json!({ "query": query.value, "connection": connection, "limit": u64::from(each.limit) + 1 }),
                query.secrets,
            )
        }
        ForEachSource::Glob(glob) => {
            let glob = renderer.text("for_each.glob", glob)?;
            (json!({ "glob": glob.value, "limit": u64::from(each.limit) + 1 }), glob.secrets)
        }
        // These are answered where the run is stepped.
        ForEachSource::Items(_) | ForEachSource::Expression(_) => {
            return Err(Error::internal(format!("the list of task '{}' is not for a worker", task.id)));
        }
    };
    scratch.make()?;
    let (environment, more) = environment(host, work, version, task, renderer, scratch.path())?;
    let attempt = Attempt {
        host,
        work,
        version,
        task: &Task { kind: "list".to_owned(), ..task.clone() },
        config: &config,
        shown: &config,
        renderer,
        scratch: scratch.path(),
        environment,
        log,
        masks: Masks::new(secrets.iter().chain(&more).map(String::as_str)),
        cancel,
        clears: 0,
    };
    Ok(match attempt.in_own_process(config.clone()).await? {
        OwnProcess::Done(done) => Outcome::success(done.output),
        OwnProcess::Ended(ended) => attempt.ended_badly(ended),
    })
}

/// A folder of an attempt's own, gone when it is dropped.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn of(project: &Path, work: &Work) -> Self {
        let name = format!("{}-{}-{}", work.run.id, work.queued.key, work.lease.number);
        Self(project.join(WORK_FOLDER).join(name))
    }

    fn make(&self) -> Result<()> {
        std::fs::create_dir_all(&self.0).map_err(|error| Error::io(self.0.display(), error))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It may never have been made; and what cannot be removed is in nobody's way: its name is never used again.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
