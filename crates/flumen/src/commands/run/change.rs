//! What can be asked of a run: to stop, to go on, to do something again.

use std::sync::Arc;

use flumen_core::flow::store::Wake;
use flumen_core::flow::{RunId, RunRecord, RunState, Signal, TaskKey, TaskState};
use flumen_core::{Error, Result};
use flumen_worker::worker::Only;
use futures::StreamExt as _;

use crate::context::Context;
use crate::flows::follow::{FollowOptions, follow, last_event};
use crate::flows::names::{self, person};
use crate::flows::runtime::{Flowing, Told, Wishes, with_local};
use crate::flows::{show, situation};

/// Stop a run: what runs is stopped, and nothing else begins
#[derive(Debug, clap::Args)]
pub struct CancelCommand {
    /// The run
    run: String,
}

/// Do again what failed in a run, and everything after it, with the version of the flow that the run began with
#[derive(Debug, clap::Args)]
pub struct RetryCommand {
    /// The run
    run: String,
}

/// Do tasks of a run again, whatever became of them
#[derive(Debug, clap::Args)]
pub struct ClearCommand {
    /// The run, or RUN/TASK
    run: String,
    /// Only these tasks, and not those that come after them
    #[arg(long)]
    only: bool,
}

/// Take a task of a run for a success, a failure, or skipped
#[derive(Debug, clap::Args)]
pub struct MarkCommand {
    /// RUN/TASK
    task: String,
    /// success, failed or skipped
    state: String,
}

/// Begin no more tasks of a run for now
#[derive(Debug, clap::Args)]
pub struct PauseCommand {
    /// The run
    run: String,
}

/// Let a run go on
#[derive(Debug, clap::Args)]
pub struct ResumeCommand {
    /// The run
    run: String,
}

/// Answer a task that waits for a person
#[derive(Debug, clap::Args)]
pub struct ApproveCommand {
    /// RUN/TASK
    task: String,
    /// Say no
    #[arg(long)]
    no: bool,
    /// What else there is to say
    #[arg(long, value_name = "TEXT", default_value = "")]
    note: String,
}

impl CancelCommand {
    pub async fn run(self, context: &Context) -> Result<()> {
        let flowing = Flowing::open(context).await?;
        let run = names::run(&*flowing.store, &self.run).await?;
        if run.state.is_terminal() {
            return Err(refused(&run, "there is nothing to cancel"));
        }
        tell(run.id, Signal::Cancel { by: person() }, false, &flowing, context).await
    }
}

impl RetryCommand {
    pub async fn run(self, context: &Context) -> Result<()> {
        let flowing = Flowing::open(context).await?;
        let run = names::run(&*flowing.store, &self.run).await?;
        let is_bad = |state| matches!(state, TaskState::Failed | TaskState::UpstreamFailed | TaskState::Cancelled);
        if run.state.is_terminal() && !flowing.store.tasks(run.id).await?.iter().any(|task| is_bad(task.state)) {
            return Err(refused(&run, "there is nothing to try again")
                .hint(format!("'flumen run clear {}' does all of it once more", show::short(run.id))));
        }
        tell(run.id, Signal::Retry { by: person() }, true, &flowing, context).await
    }
}

impl ClearCommand {
    pub async fn run(self, context: &Context) -> Result<()> {
        let flowing = Flowing::open(context).await?;
        let (run, keys) = match self.run.split_once('/') {
            Some(_) => {
                let (run, key) = names::run_and_task(&*flowing.store, &self.run).await?;
                (run, vec![key])
            }
            None => {
                let run = names::run(&*flowing.store, &self.run).await?;
                let tasks = flowing.store.tasks(run.id).await?;
                let whole = tasks.into_iter().filter(|task| task.key.index.is_none());
                (run, whole.map(|task| task.key).collect())
            }
        };
        let signal = Signal::Clear { keys, downstream: !self.only, by: person() };
        tell(run.id, signal, true, &flowing, context).await
    }
}

impl MarkCommand {
    pub async fn run(self, context: &Context) -> Result<()> {
        let flowing = Flowing::open(context).await?;
        let (run, key) = names::run_and_task(&*flowing.store, &self.task).await?;
        let to: TaskState = self.state.parse()?;
        if !matches!(to, TaskState::Success | TaskState::Failed | TaskState::Skipped) {
            return Err(
                Error::invalid(format!("a task cannot be taken for {to}")).hint("write success, failed or skipped")
            );
        }
        tell(run.id, Signal::Mark { key, to, by: person() }, false, &flowing, context).await
    }
}

impl PauseCommand {
    pub async fn run(self, context: &Context) -> Result<()> {
        let flowing = Flowing::open(context).await?;
        let run = names::run(&*flowing.store, &self.run).await?;
        if run.state != RunState::Running {
            return Err(refused(&run, "there is nothing to pause"));
        }
        tell(run.id, Signal::Pause { by: person() }, false, &flowing, context).await
    }
}

impl ResumeCommand {
    pub async fn run(self, context: &Context) -> Result<()> {
        let flowing = Flowing::open(context).await?;
        let run = names::run(&*flowing.store, &self.run).await?;
        if run.state.is_terminal() {
            let hint = format!("'flumen run retry {}' tries again what failed", show::short(run.id));
            return Err(refused(&run, "there is nothing to go on with").hint(hint));
        }
        tell(run.id, Signal::Resume { by: person() }, true, &flowing, context).await
    }
}

impl ApproveCommand {
    pub async fn run(self, context: &Context) -> Result<()> {
        let flowing = Flowing::open(context).await?;
        let (run, key) = names::run_and_task(&*flowing.store, &self.task).await?;
        let signal = Signal::Approve { key, yes: !self.no, by: person(), note: self.note };
        tell(run.id, signal, true, &flowing, context).await
    }
}

/// What is asked of a run does not fit its state.
fn refused(run: &RunRecord, why: &str) -> Error {
    Error::conflict(format!("run {} of '{}' is {}: {why}", show::short(run.id), run.flow, run.state))
}

/// Tells a run something. Where no server works on the project, it is told here: with `work`, what follows is done too.
async fn tell(run: RunId, signal: Signal, work: bool, flowing: &Arc<Flowing>, context: &Context) -> Result<()> {
    let keys = match &signal {
        Signal::Mark { key, .. } | Signal::Approve { key, .. } => vec![key.clone()],
        Signal::Clear { keys, .. } => keys.clone(),
        _ => Vec::new(),
    };
    for key in &keys {
        known(run, key, flowing).await?;
    }
    if let Signal::Approve { key, .. } = &signal {
        asks(run, key, flowing).await?;
    }
    let done = done(&signal);
    let after = last_event(run, flowing).await?;
    let before = flowing.store.inbox(run).await?.0;
    flowing.store.send(run, &signal).await?;
    if situation::server(flowing, context.clock.now()).await?.is_some() {
        taken(run, before, flowing).await?;
        return said(run, &done, flowing, context).await;
    }
    let only = Arc::new(Only::default());
    only.add(run);
    let host = flowing.host(context, Arc::new(Told::new(context.output)), Wishes::default())?;
    let slots = if work { None } else { Some(0) };
    let working = async {
        taken(run, before, flowing).await?;
        let state = flowing.store.run(run).await?.state;
        if work && state == RunState::Running {
            context.output.note(&done);
            let record =
                follow(run, FollowOptions { after, is_local: true, ..FollowOptions::default() }, flowing, context)
                    .await?;
            return super::ended(flowing, &record, context).await;
        }
        said(run, &done, flowing, context).await
    };
    with_local(&host, only, slots, flowing, context, working).await
}

/// Errors: `NotFound` for a task that the flow of the run does not have.
pub(super) async fn known(run: RunId, key: &TaskKey, flowing: &Flowing) -> Result<()> {
    let record = flowing.store.run(run).await?;
    let version = flowing.library.version(&record.version, &*flowing.store).await?;
    let flow = &version.compiled.flow;
    if flow.task(key.task.as_str()).is_some() {
        return Ok(());
    }
    Err(Error::not_found(format!("flow '{}' has no task '{}'", flow.name, key.task))
        .did_you_mean(key.task.as_str(), flow.tasks.iter().map(|task| task.id.as_str())))
}

/// Errors: `Conflict` for a task that waits for nobody.
async fn asks(run: RunId, key: &TaskKey, flowing: &Flowing) -> Result<()> {
    let tasks = flowing.store.tasks_of(run, std::slice::from_ref(&key.task)).await?;
    let state = tasks.iter().find(|task| task.key == *key).map_or(TaskState::None, |task| task.state);
    match state {
        TaskState::Paused => Ok(()),
        state => Err(Error::conflict(format!("task '{key}' waits for nobody: it is {state}"))
            .hint(format!("'flumen why {}/{key}' tells more", show::short(run)))),
    }
}

/// Waits until a run has been stepped.
async fn taken(run: RunId, before: u64, flowing: &Flowing) -> Result<()> {
    let mut wakes = flowing.store.wakes();
    loop {
        let (version, letters) = flowing.store.inbox(run).await?;
        if version > before && letters.is_empty() {
            return Ok(());
        }
        while !matches!(wakes.next().await, Some(Wake::Run) | None) {}
    }
}

/// What was asked for, in words.
fn done(signal: &Signal) -> String {
    let named = |keys: &[TaskKey]| match keys {
        [only] => format!("task {only}"),
        many => format!("{} tasks", many.len()),
    };
    match signal {
        Signal::Approve { key, yes: true, .. } => format!("{key} is approved"),
        Signal::Approve { key, .. } => format!("{key} is refused"),
        Signal::Mark { key, to, .. } => format!("{key} is taken for {to}"),
        Signal::Clear { keys, .. } => format!("{} to be done again", named(keys)),
        Signal::Cancel { .. } => "the run is to stop".to_owned(),
        Signal::Retry { .. } => {
            "what failed is to be done again, by the version of the flow that the run keeps".to_owned()
        }
        Signal::Pause { .. } => "no more tasks begin".to_owned(),
        _ => "the run goes on".to_owned(),
    }
}

async fn said(run: RunId, done: &str, flowing: &Flowing, context: &Context) -> Result<()> {
    let record = flowing.store.run(run).await?;
    if context.output.json {
        return context.output.json(&show::run_json(&record, &flowing.secret_params(&record).await));
    }
    context.output.note(format_args!(
        "{done}; run {} of {} is {}: {}",
        show::short(run),
        record.flow,
        record.state,
        record.cause
    ));
    Ok(())
}
