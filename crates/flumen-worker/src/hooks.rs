//! Hooks: what is done when something happened to a run or a task, each by a kind of tasks.

use std::collections::BTreeMap;
use std::sync::Arc;

use flumen_core::Result;
use flumen_core::boxed;
use flumen_core::flow::store::Work;
use flumen_core::flow::{Change, Event, Lease, Notice, Occasion, Outcome, Queued, RunRecord, TaskKey};
use flumen_core::task_kind::units::Period;
use flumen_flow::definition::{Hook, Hooks, Task};
use flumen_flow::template::Renderer;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::execute::{Scratch, Surroundings};
use crate::host::Host;
use crate::library::{TaskUses, Version};
use crate::log::{Log as _, Stream};
use crate::logs::AttemptLog;
use crate::{failure, templates};

/// Does what the hooks for a notice say: those of the task, of the flow and of the project, one after another. One that fails is
/// tried again as often as it says; it stops no other, and changes nothing for the run, whose history says so.
///
/// Errors: those of reading the run.
#[boxed]
pub async fn deliver(host: &Arc<Host>, notice: &Notice) -> Result<()> {
    let record = host.store.run(notice.run).await?;
    let version = host.library.version(&record.version, &*host.store).await?;
    let (name, key) = occasion(&notice.occasion);
    let of_project = host.library.project_hooks();
    let mut wanted: Vec<&Hook> = Vec::new();
    if let Some(task) = key.and_then(|key| version.compiled.flow.task(key.task.as_str())) {
        wanted.extend(of(&task.hooks, name));
    }
    // A run's own end is the flow's concern; of its tasks, only their retries and delays are.
    if key.is_none() || matches!(name, "on_retry" | "on_late") {
        wanted.extend(of(&version.compiled.flow.hooks, name));
        wanted.extend(of(&of_project, name));
    }
    if wanted.is_empty() {
        return Ok(());
    }
    host.read_variables().await?;
    let attempt = attempt(host, notice, key).await?;
    for (place, hook) in wanted.into_iter().enumerate() {
        let said = Said { name, place, key, attempt, cause: &notice.cause };
        one(host, &record, &version, hook, &said).await?;
    }
    Ok(())
}

/// What is told to a hook.
struct Said<'a> {
    name: &'static str,
    place: usize,
    key: Option<&'a TaskKey>,
    /// The attempt that it is about; 1 where it is about the run.
    attempt: u32,
    cause: &'a str,
}

/// The attempt that a notice is about.
async fn attempt(host: &Arc<Host>, notice: &Notice, key: Option<&TaskKey>) -> Result<u32> {
    if let Occasion::TaskRetries { attempt, .. } = notice.occasion {
        return Ok(attempt);
    }
    let Some(key) = key else { return Ok(1) };
    let tasks = host.store.tasks_of(notice.run, std::slice::from_ref(&key.task)).await?;
    Ok(tasks.iter().find(|task| task.key == *key).map_or(1, |task| task.attempt.max(1)))
}

fn occasion(occasion: &Occasion) -> (&'static str, Option<&TaskKey>) {
    match occasion {
        Occasion::TaskFailed { key } => ("on_failure", Some(key)),
        Occasion::TaskSucceeded { key } => ("on_success", Some(key)),
        Occasion::TaskRetries { key, .. } => ("on_retry", Some(key)),
        Occasion::TaskLate { key } | Occasion::TaskLong { key } => ("on_late", Some(key)),
        Occasion::RunFailed => ("on_failure", None),
        Occasion::RunSucceeded => ("on_success", None),
        Occasion::RunLate | Occasion::RunLong => ("on_late", None),
    }
}

fn of<'a>(hooks: &'a Hooks, name: &str) -> &'a [Hook] {
    match name {
        "on_failure" => &hooks.on_failure,
        "on_success" => &hooks.on_success,
        "on_retry" => &hooks.on_retry,
        _ => &hooks.on_late,
    }
}

/// The word for what happened, as hooks' templates have it in `state`.
fn state(name: &str) -> &'static str {
    match name {
        "on_failure" => "failed",
        "on_success" => "success",
        "on_retry" => "up_for_retry",
        _ => "late",
    }
}

async fn one(host: &Arc<Host>, record: &RunRecord, version: &Arc<Version>, hook: &Hook, said: &Said<'_>) -> Result<()> {
    let name = match said.key {
        Some(key) => format!("{}-{}", key.task, said.name),
        None => said.name.to_owned(),
    };
    let work = Work {
        lease: Lease {
            run: record.id,
            key: TaskKey::new(&name),
            number: said.place as u64,
            worker: "scheduler".into(),
            expires: host.clock.now(),
        },
        queued: Queued {
            key: TaskKey::new(&name),
            attempt: said.attempt,
            lists: false,
            item: None,
            pool: String::new(),
            slots: 0,
            priority: 0,
        },
        run: record.clone(),
    };
    // A store that is away for a while is no failure of the hook. Who stops the scheduler does not wait for it.
    let host = &host.patient(&CancellationToken::new());
    let log = AttemptLog::new(host, &work);
    let trying = async {
        let mut last = None;
        for tried in 0..=hook.retries {
            let failed = match once(host, record, version, hook, said, &work, &log).await {
                Ok(Outcome::Failure(failure)) => failure.to_string(),
                Ok(_) => {
                    last = None;
                    break;
                }
                Err(error) => failure::of(&error).to_string(),
            };
            log.line(Stream::Note, &format!("{name}: {failed}"));
            last = Some(failed);
            if tried < hook.retries {
                let Period(delay) = hook.retry_delay;
                tokio::time::sleep(delay).await;
            }
        }
        log.close();
        last
    };
    let (failed, ()) = tokio::join!(trying, log.keep());
    match failed {
        Some(failed) => host.store.note(&failure_of_hook(host, record, said, &name, &failed)).await,
        None => Ok(()),
    }
}

/// What the history of a run says of a hook that failed: nothing has changed, and somebody should know.
fn failure_of_hook(host: &Host, record: &RunRecord, said: &Said<'_>, name: &str, failed: &str) -> Event {
    let first = failed.lines().next().unwrap_or_default();
    let about = said.key.map(|key| format!(" of task {key}")).unwrap_or_default();
    Event {
        run: record.id,
        at: host.clock.now(),
        change: Change::Run { from: record.state, to: record.state },
        cause: format!(
            "the hook {}{about} failed: {first} (see its log: flumen run logs {}/{name})",
            said.name, record.id
        ),
        by: "scheduler".to_owned(),
    }
}

async fn once(
    host: &Arc<Host>,
    record: &RunRecord,
    version: &Arc<Version>,
    hook: &Hook,
    said: &Said<'_>,
    work: &Work,
    log: &AttemptLog<'_>,
) -> Result<Outcome> {
    let seen = templates::Seen { run: record, version, project: &host.project, now: host.clock.now() };
    let all = || version.compiled.flow.tasks.iter().map(|task| task.id.clone()).collect();
    let names = TaskUses::of_config(&hook.config).outputs.unwrap_or_else(all);
    let outputs = templates::outputs_of(&*host.store, &host.kept, record.id, &names).await?;
    let mut context = seen.context(said.key, said.attempt, outputs)?;
    context.more = BTreeMap::from([
        ("state".to_owned(), Value::from(state(said.name))),
        ("error".to_owned(), Value::from(said.cause)),
        ("hook".to_owned(), Value::from(said.name)),
    ]);
    let renderer = Renderer::new(context);
    let task = as_task(hook, work.queued.key.task.as_str());
    let scratch = Scratch::of(host.project.dir(), work);
    let cancel = CancellationToken::new();
    let surroundings = Surroundings { host, work, version, log, cancel: &cancel, cache: None };
    let running = surroundings.run_task(&task, &renderer, &scratch);
    let Period(timeout) = hook.timeout;
    match tokio::time::timeout(timeout, running).await {
        Ok(outcome) => outcome,
        Err(_) => Ok(Outcome::Failure(flumen_core::flow::Failure::new(
            flumen_core::flow::outcome::TIMEOUT,
            format!("it took longer than {}", hook.timeout),
        ))),
    }
}

/// A hook as a task that is ordinary in everything but what it does.
fn as_task(hook: &Hook, id: &str) -> Task {
    Task { path: hook.path.clone(), ..Task::plain(id, &hook.kind, hook.config.clone()) }
}
