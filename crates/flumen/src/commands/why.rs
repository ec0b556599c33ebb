//! `flumen why`: what holds a task back, or how it came to what it is.

use flumen_core::Result;
use flumen_core::flow::{Change, RunId, RunRecord, TaskKey, TaskRun, TaskState};
use flumen_flow::machine::{self, Run};
use flumen_worker::kinds::NOT_YET;
use flumen_worker::log::Stream;
use flumen_worker::logs::LogReader;
use serde_json::json;

use crate::context::Context;
use crate::flows::runtime::Flowing;
use crate::flows::{names, situation};

/// Tasks that a sentence names before it only counts them.
const NAMED: usize = 5;
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
            if matches!(task.state, TaskState::Deferred | TaskState::UpForReschedule) {
                situation.extend(last_answer(&flowing, record.id, &key).await?);
            }
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

/// What the last look of a sensor saw that saw something new.
async fn last_answer(flowing: &Flowing, run: RunId, key: &TaskKey) -> Result<Option<String>> {
    let lines = LogReader::new(flowing.kept.clone(), run).more(|of, _| of == key).await?;
    let answers = lines.into_iter().filter(|line| line.stream == Stream::Note && line.text.starts_with(NOT_YET));
    let last = answers.max_by_key(|line| line.at);
    Ok(last.map(|line| {
        let saw = line.text.trim_start_matches(NOT_YET);
        format!("Since {} its looks say: {saw}.", line.at.format("%Y-%m-%d %H:%M:%S UTC"))
    }))
}

/// What happened to a task run, a line each.
async fn history(flowing: &Flowing, run: RunId, key: &TaskKey) -> Result<Vec<String>> {
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

/// What is at work in a run, and what waits, a sentence each.
async fn of_tasks(run: &RunRecord, flowing: &Flowing) -> Result<Vec<String>> {
    if run.state.is_terminal() {
        return Ok(Vec::new());
    }
    let tasks = flowing.store.tasks(run.id).await?;
    let of =
        |states: &[TaskState]| -> Vec<&TaskRun> { tasks.iter().filter(|task| states.contains(&task.state)).collect() };
    let named = |found: &[&TaskRun], with_cause: bool| {
        let name = |task: &&TaskRun| match with_cause {
            true => format!("{} ({}: {})", task.key, task.state, task.cause.lines().next().unwrap_or_default()),
            false => task.key.to_string(),
        };
        let mut names: Vec<String> = found.iter().take(NAMED).map(name).collect();
        if found.len() > NAMED {
            names.push(format!("{} more", found.len() - NAMED));
        }
        names.join(", ")
    };
    let running = of(&[TaskState::Running]);
    let waiting = of(&[
        TaskState::Scheduled,
        TaskState::Queued,
        TaskState::UpForRetry,
        TaskState::UpForReschedule,
        TaskState::Deferred,
        TaskState::Paused,
    ]);
    let mut said = Vec::new();
    if !running.is_empty() {
        said.push(format!("At work: {}.", named(&running, false)));
    }
    if !waiting.is_empty() {
        said.push(format!("Waiting: {}.", named(&waiting, true)));
    }
    Ok(said)
}

async fn of_run(text: &str, flowing: &Flowing, context: &Context) -> Result<()> {
    let record = names::run(&*flowing.store, text).await?;
    let mut why = format!("The run is {}: {}.", record.state, record.cause);
    let now = context.clock.now();
    let mut sentences = of_tasks(&record, flowing).await?;
    sentences.extend(situation::of_waiting(&record, true, flowing, now).await?);
    for sentence in sentences {
        why.push(' ');
        why.push_str(&sentence);
    }
    if context.output.json {
        return context.output.json(&json!({ "run": record.id, "state": record.state, "why": why }));
    }
    context.output.line(why)
}
