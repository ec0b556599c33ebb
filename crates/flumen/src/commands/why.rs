//! `flumen why`: what holds a task back, or how it came to what it is.

use flumen_core::Result;
use flumen_core::flow::{Change, TaskKey};
use flumen_flow::machine::{self, Run};
use serde_json::json;

use crate::context::Context;
use crate::flows::runtime::Flowing;
use crate::flows::{names, situation};

/// Events that are read at once.
const EVENTS: usize = 10_000;

/// Why is a task waiting, skipped or failed?
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  flumen why last/report
  flumen why yellow_taxi/load
  flumen why 0199f3a2b1c47a5/load[3]
")]
pub struct WhyCommand {
    /// RUN/TASK; RUN alone asks about the run
    task: String,
}

impl WhyCommand {
    pub async fn run(self, context: &Context) -> Result<()> {
        let flowing = Flowing::open(context).await?;
        let Some(_) = self.task.split_once('/') else { return of_run(&self.task, &flowing, context).await };
        let (record, key) = names::run_and_task(&*flowing.store, &self.task).await?;
        let version = flowing.library.version(&record.version, &*flowing.store).await?;
        let loaded = flowing.store.load(record.id).await?;
        let run = Run::restore(&version.graph, loaded.record, loaded.tasks)?;
        if run.task(&version.graph, &key).is_none() {
            let flow = &version.compiled.flow;
            return Err(flumen_core::Error::not_found(format!("run {} has no task '{key}'", record.id))
                .did_you_mean(key.task.as_str(), flow.tasks.iter().map(|task| task.id.as_str())));
        }
        let now = context.clock.now();
        let mut text = machine::why(&run, &version.graph, &key, now);
        let mut situation = situation::of_run(run.record(), &flowing, now).await?;
        if let (Some(task), Some(number)) = (run.task(&version.graph, &key), version.graph.number(key.task.as_str())) {
            let node = version.graph.node(number);
            situation.extend(situation::of_task(task, &node.pool, node.slots, &flowing, now).await?);
        }
        for sentence in situation {
            text.push(' ');
            text.push_str(&sentence);
        }
        let history = history(&flowing, record.id, &key).await?;
        if context.output.json {
            return context.output.json(&json!({ "run": record.id, "task": key, "why": text, "history": history }));
        }
        context.output.line(&text)?;
        for line in history {
            context.output.line(format_args!("  {line}"))?;
        }
        Ok(())
    }
}

/// What happened to a task run, a line each.
async fn history(flowing: &Flowing, run: flumen_core::flow::RunId, key: &TaskKey) -> Result<Vec<String>> {
    let events = flowing.store.events(run, 0, EVENTS).await?;
    let of_task = events.into_iter().filter_map(|(_, event)| match &event.change {
        Change::Task { key: of, from, to, .. } if of == key => {
            let cause = event.cause.lines().next().unwrap_or_default();
            Some(format!("{}  {from} → {to}: {cause} ({})", event.at.format("%Y-%m-%d %H:%M:%S"), event.by))
        }
        _ => None,
    });
    Ok(of_task.collect())
}

async fn of_run(text: &str, flowing: &Flowing, context: &Context) -> Result<()> {
    let record = names::run(&*flowing.store, text).await?;
    let mut why = format!("The run is {}: {}.", record.state, record.cause);
    for sentence in situation::of_run(&record, flowing, context.clock.now()).await? {
        why.push(' ');
        why.push_str(&sentence);
    }
    if context.output.json {
        return context.output.json(&json!({ "run": record.id, "state": record.state, "why": why }));
    }
    context.output.line(why)
}
