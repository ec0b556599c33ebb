//! `flumen task`: one task of a flow by itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use flumen_core::Result;
use flumen_core::flow::RunState;
use flumen_core::flow::store::{NewRun, RunFilter};
use flumen_worker::host::Unwatched;
use flumen_worker::library::Variant;
use flumen_worker::templates::outputs_of;
use flumen_worker::worker::Only;
use serde_json::Value;

use crate::context::Context;
use crate::flows::follow::{FollowOptions, follow};
use crate::flows::names::TEST;
use crate::flows::runtime::{Flowing, Wishes, with_local};
use crate::flows::start::{self, RunOptions};

/// One task of a flow
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true, subcommand_required = true)]
pub struct TaskCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Run one task here, alone: with the outputs that the others had in the latest run, and show what it prints
    Test {
        /// The flow
        flow: String,
        /// The task
        task: String,
        #[command(flatten)]
        options: RunOptions,
    },
}

impl TaskCommand {
    pub async fn run(self, context: &Context) -> Result<()> {
        let Action::Test { flow, task, options } = self.action;
        let flowing = Flowing::open(context).await?;
        flowing.apply_pools().await?;
        let flows = flowing.flows().await?;
        let found = flows.flow(&flow)?;
        if found.task(&task).is_none() {
            return Err(flumen_core::Error::not_found(format!("flow '{flow}' has no task '{task}'"))
                .did_you_mean(&task, found.tasks.iter().map(|task| task.id.as_str())));
        }
        let outputs = last_outputs(&flow, &task, &flowing).await?;
        let variant = Variant { only: Some(task.clone()), outputs, pool: None };
        let (run, _) = start::new_run(&flow, &options, variant, &flowing, context).await?;
        // It counts among no others: not as a run for its interval.
        let run = NewRun { deployment: Some(TEST.to_owned()), start: true, ..run };
        let only = Arc::new(Only::default());
        only.add(run.id);
        let host = flowing.host(context, Arc::new(Unwatched), Wishes { no_cache: true, keeps_runs: true })?;
        let work = async {
            flowing.store.create_runs(std::slice::from_ref(&run), context.clock.now()).await?;
            let options = FollowOptions { logs: true, is_local: true, ..FollowOptions::default() };
            follow(run.id, options, &flowing, context).await
        };
        let record = with_local(&host, only, None, &flowing, context, work).await?;
        let tasks = flowing.store.tasks(record.id).await?;
        let output = tasks.iter().find(|one| one.key.task.as_str() == task).and_then(|one| one.output.clone());
        if record.state == RunState::Success
            && let Some(output) = output.filter(|output| !output.is_null() && !context.output.json)
        {
            let masks = flowing.masks(&record, context.clock.now()).await;
            context.output.line(masks.apply(&output.to_string()))?;
        }
        super::run::ended(&flowing, &record, context).await
    }
}

/// What the other tasks gave in the latest run of the flow that succeeded, or in the latest at all.
async fn last_outputs(flow: &str, task: &str, flowing: &Flowing) -> Result<BTreeMap<String, Value>> {
    let latest = |states| RunFilter { flow: Some(flow.into()), states, limit: Some(20), ..RunFilter::default() };
    let mut runs = flowing.store.runs(&latest(vec![RunState::Success])).await?;
    runs.extend(flowing.store.runs(&latest(Vec::new())).await?);
    let Some(run) = runs.into_iter().find(|run| run.deployment.as_deref() != Some(TEST)) else {
        return Ok(BTreeMap::new());
    };
    let tasks = flowing.store.tasks(run.id).await?;
    let names = tasks.iter().map(|one| one.key.task.to_string()).filter(|name| name != task).collect();
    outputs_of(&*flowing.store, &flowing.kept, run.id, &names).await
}
