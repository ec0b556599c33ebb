//! `flumen task`: one task of a flow by itself.

use std::sync::Arc;

use flumen_core::Result;
use flumen_core::flow::{RunState, Signal, TaskKey, TaskState};
use flumen_worker::host::Unwatched;
use flumen_worker::worker::Only;

use crate::context::Context;
use crate::flows::follow::{FollowOptions, follow};
use crate::flows::names::person;
use crate::flows::runtime::{Flowing, with_local};
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
    /// Run one task here, as if all before it had succeeded, and show what it prints
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
        let (run, flow) = start::new_run(&flow, &options, &flowing, context).await?;
        if flow.task(&task).is_none() {
            return Err(flumen_core::Error::not_found(format!("flow '{}' has no task '{task}'", flow.name))
                .did_you_mean(&task, flow.tasks.iter().map(|task| task.id.as_str())));
        }
        let only = Arc::new(Only::default());
        only.add(run.id);
        let host = flowing.host(context, Arc::new(Unwatched), false)?;
        let work = async {
            flowing.store.create_runs(std::slice::from_ref(&run), context.clock.now()).await?;
            // Everything else is taken for done before anything can begin.
            let others = flow.tasks.iter().filter(|other| other.id != task);
            for other in others {
                let key = TaskKey::new(&other.id);
                flowing.store.send(run.id, &Signal::Mark { key, to: TaskState::Success, by: person() }).await?;
            }
            flowing.store.send(run.id, &Signal::Start).await?;
            follow(run.id, FollowOptions { logs: true, after: 0 }, &flowing, context).await
        };
        let record = with_local(&host, only, None, &flowing, context, work).await?;
        let tasks = flowing.store.tasks(record.id).await?;
        let output = tasks.iter().find(|one| one.key.task.as_str() == task).and_then(|one| one.output.clone());
        if record.state == RunState::Success
            && let Some(output) = output.filter(|output| !output.is_null() && !context.output.json)
        {
            context.output.line(output)?;
        }
        super::run::ended(&flowing, &record, context).await
    }
}
