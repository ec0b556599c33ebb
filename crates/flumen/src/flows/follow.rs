//! A run, followed to its end: what happens is shown as it happens, by this process or another.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::time::Duration;

use chrono::{DateTime, Utc};
use flumen_core::flow::store::Wake;
use flumen_core::flow::{Change, Event, RunId, RunRecord, RunState, Signal, TaskId, TaskKey, TaskRun, TaskState};
use flumen_core::{Error, Result};
use flumen_worker::log::Stream;
use flumen_worker::logs::{LogLine, LogReader};
use futures::StreamExt as _;
use indicatif::{ProgressBar, ProgressStyle};

use super::names::person;
use super::runtime::Flowing;
use super::show;
use crate::context::Context;
use crate::output::{Color, count, duration, paint, printable};

/// Events that are read at once.
const EVENTS: usize = 1_000;
/// Tasks of a run from which only those are shown that did not go well.
const MANY_TASKS: usize = 60;
/// Lines of a failed attempt that are shown.
const LOG_LINES: usize = 20;
/// How often the log of a run is read again while something runs.
const LOGS_EVERY: Duration = Duration::from_millis(300);
/// How often a run is looked at without being woken: for wakes that get lost.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// What is shown besides the states of tasks.
#[derive(Debug, Clone, Copy, Default)]
pub struct FollowOptions {
    /// The lines that tasks print.
    pub logs: bool,
    /// The last event that is not shown any more.
    pub after: u64,
    /// Whether whoever follows only looks: Ctrl-C ends the looking and not the run.
    pub only_looks: bool,
}

/// Follows a run to its end. Ctrl-C asks it to stop, and waits for that.
///
/// Errors: those of the store. How the run ends is none.
pub async fn follow(run: RunId, options: FollowOptions, flowing: &Flowing, context: &Context) -> Result<RunRecord> {
    let mut wakes = flowing.store.wakes();
    let mut view = View::new(run, options.after, flowing, context);
    let mut logs = options.logs.then(|| LogReader::new(flowing.kept.clone(), run));
    let mut told_to_stop = false;
    loop {
        view.look().await?;
        if let Some(logs) = &mut logs {
            view.print_logs(logs).await?;
        }
        let record = flowing.store.run(run).await?;
        if record.state.is_terminal() {
            view.look().await?;
            if let Some(logs) = &mut logs {
                view.print_logs(logs).await?;
            }
            view.end(&record);
            return Ok(record);
        }
        let every = if logs.is_some() { LOGS_EVERY } else { LOOK_EVERY };
        let looked_at = tokio::time::Instant::now();
        loop {
            tokio::select! {
                wake = wakes.next() => match wake {
                    Some(Wake::Run) | None => break,
                    Some(_) => {}
                },
                () = tokio::time::sleep_until(looked_at + every) => break,
                () = context.cancel.cancelled(), if options.only_looks => return Err(Error::cancelled()),
                () = context.cancel.cancelled(), if !told_to_stop && !options.only_looks => {
                    told_to_stop = true;
                    context.output.note("stopping the run; Ctrl-C once more leaves it to itself");
                    flowing.store.send(run, &Signal::Cancel { by: person() }).await?;
                    break;
                }
            }
        }
    }
}

/// What a person sees.
struct View<'a> {
    run: RunId,
    flowing: &'a Flowing,
    context: &'a Context,
    bar: Option<ProgressBar>,
    seen: u64,
    running: BTreeMap<TaskKey, DateTime<Utc>>,
    done: usize,
    total: usize,
    named: bool,
}

impl<'a> View<'a> {
    fn new(run: RunId, seen: u64, flowing: &'a Flowing, context: &'a Context) -> Self {
        let output = &context.output;
        let is_live = std::io::stderr().is_terminal() && !output.quiet && !output.json;
        let bar = is_live.then(|| {
            let style = ProgressStyle::with_template("{spinner:.cyan} {wide_msg}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner());
            let bar = ProgressBar::new_spinner().with_style(style);
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self { run, flowing, context, bar, seen, running: BTreeMap::new(), done: 0, total: 0, named: false }
    }

    /// Shows what has happened since the last look.
    async fn look(&mut self) -> Result<()> {
        if !self.named {
            let record = self.flowing.store.run(self.run).await?;
            let version = self.flowing.library.version(&record.version, &*self.flowing.store).await?;
            self.total = version.graph.nodes().len();
            self.named = true;
            self.note(&format!(
                "run {} of {} for {}",
                show::short(record.id),
                record.flow,
                show::interval(&record.interval)
            ));
        }
        loop {
            let events = self.flowing.store.events(self.run, self.seen, EVENTS).await?;
            let Some((last, _)) = events.last() else { break };
            self.seen = *last;
            for (_, event) in &events {
                self.happened(event).await?;
            }
        }
        self.say_what_runs();
        Ok(())
    }

    async fn happened(&mut self, event: &Event) -> Result<()> {
        let (is_told_of, what) = match &event.change {
            Change::Run { from, to } => (from == to, None),
            Change::Task { from, to, key, .. } => (from == to, Some(key)),
        };
        if is_told_of {
            // It stays what it is, and somebody should know.
            let what = what.map_or_else(|| "the run".to_owned(), ToString::to_string);
            let sign = paint("!", Color::Yellow, self.context.output.stderr_colors);
            self.note(&format!("{sign} {what}: {}", event.cause));
            return Ok(());
        }
        let Change::Task { key, to, attempt, .. } = &event.change else { return Ok(()) };
        match to {
            TaskState::Running => drop(self.running.insert(key.clone(), event.at)),
            to => {
                let began = self.running.remove(key);
                self.done += usize::from(to.is_terminal() && key.index.is_none());
                let took = began.map(|began| (event.at - began).to_std().unwrap_or_default());
                self.changed(key, *to, *attempt, took, &event.cause).await?;
            }
        }
        Ok(())
    }

    async fn changed(
        &self,
        key: &TaskKey,
        to: TaskState,
        attempt: u32,
        took: Option<Duration>,
        cause: &str,
    ) -> Result<()> {
        let is_shown = match to {
            TaskState::Failed | TaskState::UpForRetry | TaskState::Cancelled | TaskState::Paused => true,
            TaskState::Success | TaskState::Skipped | TaskState::UpstreamFailed => {
                self.total <= MANY_TASKS && key.index.is_none()
            }
            TaskState::Deferred => self.total <= MANY_TASKS,
            _ => false,
        };
        if !is_shown || self.context.output.quiet || self.context.output.json {
            return Ok(());
        }
        let colors = self.context.output.stderr_colors;
        let mut line = format!("{} {key}", show::mark(to, colors));
        if let Some(took) = took {
            line.push_str(&format!("  {}", paint(&duration(took), Color::Dim, colors)));
        }
        match to {
            TaskState::Success => {
                if let Some(rows) = self.rows(key).await? {
                    line.push_str(&format!("  {} rows", count(rows)));
                }
            }
            _ => line.push_str(&format!("  {to}: {cause}")),
        }
        self.note(&line);
        if matches!(to, TaskState::Failed | TaskState::UpForRetry) && took.is_some() {
            self.print_end_of_log(key, attempt).await?;
        }
        Ok(())
    }

    /// The rows that a task says it wrote.
    async fn rows(&self, key: &TaskKey) -> Result<Option<u64>> {
        let tasks: Vec<TaskRun> = self.flowing.store.tasks_of(self.run, &[TaskId::from(key.task.as_str())]).await?;
        let task = tasks.iter().find(|task| task.key == *key);
        Ok(task.and_then(|task| task.output.as_ref()?.get("rows")?.as_u64()))
    }

    async fn print_end_of_log(&self, key: &TaskKey, attempt: u32) -> Result<()> {
        let mut reader = LogReader::new(self.flowing.kept.clone(), self.run);
        let lines = reader.more(|of, number| of == key && number == attempt).await?;
        let lines: Vec<_> = lines.iter().filter(|line| line.stream != Stream::Note).collect();
        let from = lines.len().saturating_sub(LOG_LINES);
        if from > 0 {
            self.note(&format!(
                "    … {from} lines before; all of them: flumen run logs {}/{key}",
                show::short(self.run)
            ));
        }
        for line in &lines[from..] {
            self.note(&format!("    {}", self.printable(line)));
        }
        Ok(())
    }

    async fn print_logs(&self, logs: &mut LogReader) -> Result<()> {
        for line in logs.more(|_, _| true).await? {
            self.note(&format!("{} | {}", line.key, self.printable(&line)));
        }
        Ok(())
    }

    fn printable(&self, line: &LogLine) -> String {
        printable(&line.text, self.context.output.stderr_colors)
    }

    fn say_what_runs(&self) {
        let Some(bar) = &self.bar else { return };
        let names: Vec<String> = self.running.keys().take(6).map(ToString::to_string).collect();
        let more = self.running.len().saturating_sub(names.len());
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        bar.set_message(format!("{} of {} tasks  {}{more}", self.done, self.total, names.join(", ")));
    }

    fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| self.context.output.note(text)),
            None => self.context.output.note(text),
        }
    }

    fn end(&mut self, record: &RunRecord) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        let took = record.started.zip(record.ended).map(|(began, ended)| (ended - began).to_std().unwrap_or_default());
        let took = took.map(|took| format!(" in {}", duration(took))).unwrap_or_default();
        let tasks = if self.total == 1 { "1 task".to_owned() } else { format!("{} tasks", count(self.total as u64)) };
        match record.state {
            RunState::Success => self.note(&format!("{} succeeded{took}: {tasks}", record.flow)),
            _ => self.note(&format!("{} {}{took}: {}", record.flow, record.state, record.cause)),
        }
    }
}

/// The last event of a run so far.
///
/// Errors: those of the store.
pub async fn last_event(run: RunId, flowing: &Flowing) -> Result<u64> {
    let mut last = 0;
    loop {
        let events = flowing.store.events(run, last, EVENTS).await?;
        match events.last() {
            Some((id, _)) => last = *id,
            None => return Ok(last),
        }
    }
}

/// The error of a run that did not end well.
pub fn verdict(record: &RunRecord) -> Result<()> {
    let short = show::short(record.id);
    match record.state {
        RunState::Success => Ok(()),
        RunState::Cancelled => {
            Err(Error::new(flumen_core::ErrorKind::Cancelled, format!("run {short} of {} was cancelled", record.flow)))
        }
        state => Err(Error::new(
            flumen_core::ErrorKind::Failed,
            format!("run {short} of {} is {state}: {}", record.flow, record.cause),
        )
        .hint(format!("'flumen why {short}/TASK' tells why; 'flumen run retry {short}' does again what failed"))),
    }
}
