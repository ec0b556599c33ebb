//! `flumen run`: a flow, here and now; and what can be done with runs. A subcommand costs its own file under `run/`, a variant and
//! a line.

mod change;
mod list;
mod logs;
mod show;

use std::sync::Arc;

use flumen_core::Result;
use flumen_core::flow::RunId;
use flumen_core::flow::store::NewRun;
use flumen_worker::worker::Only;
use serde_json::json;

use crate::context::Context;
use crate::flows::follow::{FollowOptions, follow, verdict};
use crate::flows::runtime::{Flowing, Told, Wishes, with_local};
use crate::flows::start::{self, RunOptions};
use crate::flows::{show as shown, situation};

/// Run a flow, and look at runs
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    arg_required_else_help = true,
    after_help = "\
Examples:
  flumen run yellow_taxi
  flumen run yellow_taxi --interval 2021-01 -p color=green
  flumen run list --flow yellow_taxi
  flumen run logs last
  flumen run retry last

The run is done here, unless a server ('flumen up') works on the project: then it is handed over and followed. A run is named by
the beginning of its id, by a flow for its latest run, or 'last'.
"
)]
pub struct RunCommand {
    #[command(subcommand)]
    action: Option<Action>,
    /// The flow
    #[arg(required = true)]
    flow: Option<String>,
    #[command(flatten)]
    options: RunOptions,
    /// Run it in this process, also when a server works on the project
    #[arg(long, conflicts_with = "detach")]
    local: bool,
    /// Do every task, also where an earlier output could be used again; in this process
    #[arg(long, conflicts_with = "detach")]
    no_cache: bool,
    /// Leave the run to the server, and do not wait for its end
    #[arg(long)]
    detach: bool,
    /// Show what the tasks print, as they do
    #[arg(long, short)]
    logs: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    List(list::ListCommand),
    Show(show::ShowCommand),
    Logs(logs::LogsCommand),
    Follow(show::FollowCommand),
    Cancel(change::CancelCommand),
    Retry(change::RetryCommand),
    Clear(change::ClearCommand),
    Mark(change::MarkCommand),
    Pause(change::PauseCommand),
    Resume(change::ResumeCommand),
    Approve(change::ApproveCommand),
}

impl RunCommand {
    /// Does it.
    pub async fn run(self, context: &Context) -> Result<()> {
        match self.action {
            Some(Action::List(command)) => command.run(context).await,
            Some(Action::Show(command)) => command.run(context).await,
            Some(Action::Logs(command)) => command.run(context).await,
            Some(Action::Follow(command)) => command.run(context).await,
            Some(Action::Cancel(command)) => command.run(context).await,
            Some(Action::Retry(command)) => command.run(context).await,
            Some(Action::Clear(command)) => command.run(context).await,
            Some(Action::Mark(command)) => command.run(context).await,
            Some(Action::Pause(command)) => command.run(context).await,
            Some(Action::Resume(command)) => command.run(context).await,
            Some(Action::Approve(command)) => command.run(context).await,
            None => self.run_flow(context).await,
        }
    }

    async fn run_flow(self, context: &Context) -> Result<()> {
        let flowing = Flowing::open(context).await?;
        flowing.apply_pools().await?;
        let name = self.flow.as_deref().unwrap_or_default();
        let (run, flow) = start::new_run(name, &self.options, Default::default(), &flowing, context).await?;
        for warning in &flow.warnings {
            context.output.warning(warning);
        }
        let server = situation::server(&flowing, context.clock.now()).await?;
        if self.detach || (server.is_some() && !self.local && !self.no_cache) {
            let id = start::begin(&run, &flow, &flowing, context).await?;
            if self.detach {
                return detached(id, server.is_some(), context);
            }
            let options = FollowOptions { logs: self.logs, ..FollowOptions::default() };
            let record = follow(id, options, &flowing, context).await?;
            return ended(&flowing, &record, context).await;
        }
        let only = Arc::new(Only::default());
        only.add(run.id);
        let watcher = Local { told: Told::new(context.output), only: Arc::clone(&only) };
        let wishes = Wishes { no_cache: self.no_cache, keeps_runs: self.local || self.no_cache };
        let host = flowing.host(context, Arc::new(watcher), wishes)?;
        // It is somebody's wish here and now: it waits for no other run of the flow.
        let run = NewRun { start: true, ..run };
        let work = async {
            flowing.store.create_runs(std::slice::from_ref(&run), context.clock.now()).await?;
            let id = run.id;
            let options = FollowOptions { logs: self.logs, is_local: true, ..FollowOptions::default() };
            follow(id, options, &flowing, context).await
        };
        let record = with_local(&host, only, None, &flowing, context, work).await?;
        ended(&flowing, &record, context).await
    }
}

/// Tells what is to be told of a run that was left to a server.
fn detached(id: RunId, is_served: bool, context: &Context) -> Result<()> {
    if !is_served {
        context.output.note("no server works on this project now: the run waits for one ('flumen up')");
    }
    if context.output.json {
        return context.output.json(&json!({ "id": id }));
    }
    context.output.line(id)
}

/// Tells how a run ended.
pub(super) async fn ended(flowing: &Flowing, record: &flumen_core::flow::RunRecord, context: &Context) -> Result<()> {
    if context.output.json {
        let tasks = flowing.store.tasks(record.id).await?;
        let masks = flowing.masks(record, context.clock.now()).await;
        let mut value = shown::run_json(record, &flowing.secret_params(record).await);
        value["tasks"] = tasks.iter().map(|task| shown::task_json(task, &masks)).collect();
        context.output.json(&value)?;
    }
    verdict(record)
}

/// Watches a worker that works for one run, and for those that it begins.
struct Local {
    told: Told,
    only: Arc<Only>,
}

impl flumen_worker::host::Watcher for Local {
    fn line(&self, _: &flumen_core::flow::store::Work, _: flumen_worker::log::Stream, _: &str) {}

    fn store_fails(&self, error: &flumen_core::Error) {
        flumen_worker::host::Watcher::store_fails(&self.told, error);
    }

    fn child(&self, run: RunId) {
        self.told.child(run);
        self.only.add(run);
    }
}
