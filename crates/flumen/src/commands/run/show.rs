//! `flumen run show` and `flumen run follow`.

use flumen_core::Result;
use flumen_core::flow::{Change, RunRecord, TaskKey, TaskRun, TaskState, Touched};
use serde_json::{Value, json};

use crate::context::Context;
use crate::flows::follow::{FollowOptions, follow};
use crate::flows::runtime::Flowing;
use crate::flows::{names, show, situation};
use crate::output::{Table, duration};

/// Events that are read at once.
const EVENTS: usize = 10_000;

/// A run and its tasks
#[derive(Debug, clap::Args)]
pub struct ShowCommand {
    /// The run
    run: String,
    /// Everything that happened in it, in order
    #[arg(long)]
    events: bool,
}

impl ShowCommand {
    pub async fn run(self, context: &Context) -> Result<()> {
        let flowing = Flowing::open(context).await?;
        let run = names::run(&*flowing.store, &self.run).await?;
        if self.events {
            return events(&flowing, run.id, context).await;
        }
        let tasks = all_tasks(&run, &flowing).await?;
        let touched = flowing.store.touched_by(run.id).await?;
        let masks = flowing.masks(&run, context.clock.now()).await;
        let secrets = flowing.secret_params(&run).await;
        if context.output.json {
            let mut value = show::run_json(&run, &secrets);
            value["tasks"] = tasks.iter().map(|task| show::task_json(task, &masks)).collect();
            value["datasets"] = datasets_json(&touched);
            return context.output.json(&value);
        }
        let output = &context.output;
        output.line(format_args!("run {} of {}, version {}", run.id, run.flow, run.version.short()))?;
        output.line(format_args!("{}: {}", run.state, run.cause))?;
        output.line(format_args!(
            "for {}, asked for by {}",
            show::interval(&run.interval),
            show::origin(&run.origin)
        ))?;
        let params = show::run_json(&run, &secrets)["params"].take();
        if params.as_object().is_some_and(|params| !params.is_empty()) {
            output.line(format_args!("with {params}"))?;
        }
        let mut table = Table::new(["task", "state", "attempt", "since (UTC)", "took", "cause"]);
        for task in &tasks {
            table.row([
                task.key.to_string(),
                task.state.to_string(),
                if task.attempt > 0 { task.attempt.to_string() } else { String::new() },
                if task.state == TaskState::None {
                    String::new()
                } else {
                    task.since.format("%Y-%m-%d %H:%M:%S").to_string()
                },
                took(task, context),
                first_line(&task.cause),
            ]);
        }
        output.table(&table)?;
        for one in &touched {
            for (word, names) in [("read", &one.reads), ("wrote", &one.writes)] {
                if !names.is_empty() {
                    output.line(format_args!("{} {word} {}", one.task, names.join(", ")))?;
                }
            }
        }
        Ok(())
    }
}

/// The tasks of a run in the order of its flow, those with items before these; also those that have not begun.
async fn all_tasks(run: &RunRecord, flowing: &Flowing) -> Result<Vec<TaskRun>> {
    let mut tasks = flowing.store.tasks(run.id).await?;
    // The version may be one that this program cannot read.
    let Ok(version) = flowing.library.version(&run.version, &*flowing.store).await else { return Ok(tasks) };
    let nodes = version.graph.nodes();
    for node in nodes {
        let key = TaskKey::new(node.id.clone());
        if !tasks.iter().any(|task| task.key == key) {
            tasks.push(TaskRun::new(key, run.created));
        }
    }
    let place = |key: &TaskKey| (nodes.iter().position(|node| node.id == key.task), key.index);
    tasks.sort_by_key(|task| place(&task.key));
    Ok(tasks)
}

/// What tasks read and wrote.
fn datasets_json(touched: &[Touched]) -> Value {
    touched
        .iter()
        .map(|one| json!({ "task": one.task, "at": show::iso(one.at), "reads": one.reads, "writes": one.writes }))
        .collect()
}

fn took(task: &TaskRun, context: &Context) -> String {
    let end = if task.state.is_terminal() { task.since } else { context.clock.now() };
    task.began.map(|began| duration((end - began).to_std().unwrap_or_default())).unwrap_or_default()
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

async fn events(flowing: &Flowing, run: flumen_core::flow::RunId, context: &Context) -> Result<()> {
    let events = flowing.store.events(run, 0, EVENTS).await?;
    if context.output.json {
        return context
            .output
            .json(&events.iter().map(|(id, event)| json!({ "id": id, "event": event })).collect::<Vec<_>>());
    }
    let mut table = Table::new(["at (UTC)", "what", "from", "to", "cause", "by"]);
    for (_, event) in events {
        let (what, from, to) = match &event.change {
            Change::Run { from, to } => ("the run".to_owned(), from.to_string(), to.to_string()),
            Change::Task { key, from, to, .. } => (key.to_string(), from.to_string(), to.to_string()),
        };
        table.row([
            event.at.format("%Y-%m-%d %H:%M:%S%.3f").to_string(),
            what,
            from,
            to,
            first_line(&event.cause),
            event.by,
        ]);
    }
    context.output.table(&table)
}

/// Follow a run to its end
#[derive(Debug, clap::Args)]
pub struct FollowCommand {
    /// The run
    run: String,
    /// Show what the tasks print, as they do
    #[arg(long, short)]
    logs: bool,
}

impl FollowCommand {
    pub async fn run(self, context: &Context) -> Result<()> {
        let flowing = Flowing::open(context).await?;
        let run = names::run(&*flowing.store, &self.run).await?;
        if !run.state.is_terminal() && situation::server(&flowing, context.clock.now()).await?.is_none() {
            context.output.note("no server works on this project now: the run waits for one ('flumen up')");
        }
        let record = follow(
            run.id,
            FollowOptions { logs: self.logs, only_looks: true, ..FollowOptions::default() },
            &flowing,
            context,
        )
        .await?;
        super::ended(&flowing, &record, context).await
    }
}
