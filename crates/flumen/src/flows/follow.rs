//! A run, followed to its end: what happens is shown as it happens, by this process or another.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal as _;
use std::time::Duration;

use chrono::{DateTime, Utc};
use flumen_core::flow::store::Wake;
use flumen_core::flow::{Change, Event, RunId, RunRecord, RunState, Signal, TaskId, TaskKey, TaskRun, TaskState};
use flumen_core::{Error, Result};
use flumen_worker::log::Stream;
use flumen_worker::logs::{LogLine, LogReader};
use futures::StreamExt as _;

use super::live::{self, Known, Live};
use super::names::person;
use super::runtime::Flowing;
use super::{show, situation};
use crate::context::Context;
use crate::output::{Color, counted, duration, paint, printable};

/// Events that are read at once.
const EVENTS: usize = 1_000;
/// Tasks of a run from which only those are shown that did not go well.
const MANY_TASKS: usize = 60;
/// Lines of a failed attempt that are shown.
const LOG_LINES: usize = 20;
/// How often the log of a run is read again while something runs.
const LOGS_EVERY: Duration = Duration::from_millis(300);
/// How long nothing happens before it is told what a run waits for.
const PATIENCE: Duration = Duration::from_secs(1);
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
    /// Whether this process does the run itself: then there is a worker that nobody else knows of.
    pub is_local: bool,
}

/// Follows a run to its end. Ctrl-C asks it to stop, and waits for that.
///
/// Errors: those of the store. How the run ends is none.
pub async fn follow(run: RunId, options: FollowOptions, flowing: &Flowing, context: &Context) -> Result<RunRecord> {
    let mut wakes = flowing.store.wakes();
    let mut view = View::new(run, options, flowing, context);
    let mut logs = options.logs.then(|| LogReader::new(flowing.kept.clone(), run));
    let mut told_to_stop = false;
    let mut quiet = Some(tokio::time::Instant::now() + PATIENCE);
    loop {
        if view.look().await? {
            quiet = Some(tokio::time::Instant::now() + PATIENCE);
        }
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
            let is_quiet = async move {
                match quiet {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                wake = wakes.next() => match wake {
                    Some(Wake::Run) | None => break,
                    Some(_) => {}
                },
                () = tokio::time::sleep_until(looked_at + every) => break,
                () = is_quiet => {
                    quiet = None;
                    view.say_what_it_waits_for().await?;
                }
                () = tokio::time::sleep(live::EVERY), if view.live.is_some() => view.draw(),
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
    is_local: bool,
    /// The tree, where there is a terminal that shows it.
    live: Option<Live>,
    seen: u64,
    running: BTreeMap<TaskKey, DateTime<Utc>>,
    total: usize,
    named: bool,
    /// What it was said to wait for.
    told: BTreeSet<String>,
}

impl<'a> View<'a> {
    fn new(run: RunId, options: FollowOptions, flowing: &'a Flowing, context: &'a Context) -> Self {
        let (running, told) = (BTreeMap::new(), BTreeSet::new());
        let FollowOptions { after: seen, is_local, .. } = options;
        Self { run, flowing, context, is_local, live: None, seen, running, total: 0, named: false, told }
    }

    /// Shows what has happened since the last look; whether anything has.
    async fn look(&mut self) -> Result<bool> {
        if !self.named {
            self.begin().await?;
        }
        let before = self.seen;
        loop {
            let events = self.flowing.store.events(self.run, self.seen, EVENTS).await?;
            let Some((last, _)) = events.last() else { break };
            self.seen = *last;
            for (_, event) in &events {
                self.happened(event).await?;
            }
        }
        self.draw();
        Ok(self.seen > before)
    }

    async fn begin(&mut self) -> Result<()> {
        let record = self.flowing.store.run(self.run).await?;
        let version = self.flowing.library.version(&record.version, &*self.flowing.store).await?;
        self.total = version.graph.nodes().len();
        self.named = true;
        let interval = show::interval(&record.interval);
        let title = format!("run {} of {} for {interval}", show::short(record.id), record.flow);
        self.note(&title);
        let output = &self.context.output;
        if std::io::stderr().is_terminal() && !output.quiet && !output.json {
            self.live = Some(Live::new(version, record.flow.to_string(), output.stderr_colors));
        }
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
        let began = match to {
            TaskState::Running => {
                self.running.insert(key.clone(), event.at);
                None
            }
            _ => self.running.remove(key),
        };
        let took = began.map(|began| (event.at - began).to_std().unwrap_or_default());
        let words = self.words(key, *to, took, &event.cause).await?;
        if let Some(live) = &mut self.live {
            let first = words.lines().next().unwrap_or_default().to_owned();
            live.know(key.clone(), Known { state: *to, since: event.at, words: first });
        }
        self.changed(key, *to, *attempt, took.is_some(), &words).await
    }

    /// What is said of a task run beside its name.
    async fn words(&self, key: &TaskKey, to: TaskState, took: Option<Duration>, cause: &str) -> Result<String> {
        // Of items that go well nothing is shown.
        let is_shown = !(key.index.is_some() && to == TaskState::Success) && self.total <= MANY_TASKS;
        let mut words = Vec::new();
        let colors = self.context.output.stderr_colors;
        words.extend(took.map(|took| paint(&duration(took), Color::Dim, colors)));
        match to {
            TaskState::Success if is_shown => words.extend(self.result(key).await?),
            TaskState::Success | TaskState::Running => {}
            _ => words.push(format!("{to}: {cause}")),
        }
        Ok(words.join("  "))
    }

    async fn changed(&self, key: &TaskKey, to: TaskState, attempt: u32, has_begun: bool, words: &str) -> Result<()> {
        // The tree shows the others.
        let is_shown = match to {
            TaskState::Failed | TaskState::UpForRetry | TaskState::Cancelled | TaskState::Paused => true,
            TaskState::Success | TaskState::Skipped | TaskState::UpstreamFailed => {
                self.live.is_none() && self.total <= MANY_TASKS && key.index.is_none()
            }
            TaskState::Deferred => self.live.is_none() && self.total <= MANY_TASKS,
            _ => false,
        };
        if !is_shown || self.context.output.quiet || self.context.output.json {
            return Ok(());
        }
        let words = if words.is_empty() { String::new() } else { format!("  {words}") };
        self.note(&format!("{} {key}{words}", show::mark(to, self.context.output.stderr_colors)));
        if to == TaskState::Paused {
            let short = show::short(self.run);
            self.note(&format!("    to answer: flumen run approve {short}/{key}   (--no refuses it)"));
        }
        if matches!(to, TaskState::Failed | TaskState::UpForRetry) && has_begun {
            self.print_end_of_log(key, attempt).await?;
        }
        Ok(())
    }

    /// What a task says that it wrote.
    async fn result(&self, key: &TaskKey) -> Result<Option<String>> {
        let tasks: Vec<TaskRun> = self.flowing.store.tasks_of(self.run, &[TaskId::from(key.task.as_str())]).await?;
        let output = tasks.into_iter().find(|task| task.key == *key).and_then(|task| task.output);
        let number = |name: &str| output.as_ref()?.get(name)?.as_u64();
        Ok(match (number("rows"), number("files"), number("files_skipped")) {
            (Some(0), Some(0), Some(1..)) => Some("left out, loaded already".to_owned()),
            (Some(written), ..) => Some(counted(written, "row")),
            _ => None,
        })
    }

    async fn print_end_of_log(&self, key: &TaskKey, attempt: u32) -> Result<()> {
        let mut reader = LogReader::new(self.flowing.kept.clone(), self.run);
        let lines = reader.more(|of, number| of == key && number == attempt).await?;
        let lines: Vec<_> = lines.iter().filter(|line| line.stream != Stream::Note).collect();
        let from = lines.len().saturating_sub(LOG_LINES);
        if from > 0 {
            self.note(&format!(
                "    … {} before; all of them: flumen run logs {}/{key}",
                counted(from as u64, "line"),
                show::short(self.run)
            ));
        }
        for line in &lines[from..] {
            self.note(&format!("    {}", self.printable(line)));
        }
        Ok(())
    }

    async fn print_logs(&self, logs: &mut LogReader) -> Result<()> {
        let mut lines = logs.more(|_, _| true).await?;
        lines.sort_by_key(|line| line.at);
        for line in lines {
            self.note(&format!("{} | {}", line.key, self.printable(&line)));
        }
        Ok(())
    }

    fn printable(&self, line: &LogLine) -> String {
        printable(&line.text, self.context.output.stderr_colors)
    }

    /// Says what the run waits for, each thing once.
    async fn say_what_it_waits_for(&mut self) -> Result<()> {
        if self.context.output.quiet || self.context.output.json {
            return Ok(());
        }
        let record = self.flowing.store.run(self.run).await?;
        let waits = situation::of_waiting(&record, self.is_local, self.flowing, self.context.clock.now()).await?;
        match &mut self.live {
            Some(live) => live.waits = waits,
            None => {
                for wait in waits {
                    if self.told.insert(wait.clone()) {
                        self.note(&format!("· {wait}"));
                    }
                }
            }
        }
        self.draw();
        Ok(())
    }

    fn draw(&self) {
        if let Some(live) = &self.live {
            live.draw(self.context.clock.now());
        }
    }

    fn note(&self, text: &str) {
        match &self.live {
            Some(live) => live.above(|| self.context.output.note(text)),
            None => self.context.output.note(text),
        }
    }

    fn end(&mut self, record: &RunRecord) {
        if let Some(live) = self.live.take() {
            for line in live.end(self.context.clock.now()) {
                self.context.output.note(line);
            }
        }
        let took = record.started.zip(record.ended).map(|(began, ended)| (ended - began).to_std().unwrap_or_default());
        let took = took.map(|took| format!(" in {}", duration(took))).unwrap_or_default();
        let tasks = counted(self.total as u64, "task");
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
