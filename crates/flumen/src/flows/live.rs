//! A run on a terminal: its tasks as a tree that changes in place, with states, times and bars.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use flumen_core::flow::{TaskKey, TaskState};
use flumen_worker::library::Version;
use indicatif::{ProgressBar, ProgressStyle};

use super::{show, tree};
use crate::output::{Color, duration, paint};

/// Tasks from which only those are drawn of which there is something to say.
const MANY: usize = 24;
/// Characters of a bar.
const WIDTH: usize = 20;

/// What is known of a task run.
#[derive(Debug, Clone)]
pub struct Known {
    /// Where it is.
    pub state: TaskState,
    /// Since when.
    pub since: DateTime<Utc>,
    /// What else there is to say.
    pub words: String,
}

/// A tree on the terminal.
pub struct Live {
    bar: ProgressBar,
    version: Arc<Version>,
    title: String,
    colors: bool,
    tasks: BTreeMap<TaskKey, Known>,
    /// What the run waits for.
    pub waits: Vec<String>,
}

impl Live {
    /// An empty one for a run of this version.
    pub fn new(version: Arc<Version>, title: String, colors: bool) -> Self {
        let style = ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
        let bar = ProgressBar::new_spinner().with_style(style);
        Self { bar, version, title, colors, tasks: BTreeMap::new(), waits: Vec::new() }
    }

    /// A task run is in another state.
    pub fn know(&mut self, key: TaskKey, known: Known) {
        self.waits.clear();
        self.tasks.insert(key, known);
    }

    /// Draws the tree as it is at `now`.
    pub fn draw(&self, now: DateTime<Utc>) {
        let mut lines = vec![self.head()];
        let branches = self.branches(now);
        let is_shown =
            |state: TaskState| branches.len() <= MANY || !matches!(state, TaskState::None | TaskState::Success);
        let shown: Vec<&(TaskState, String)> = branches.iter().filter(|(state, _)| is_shown(*state)).collect();
        lines.extend(shown.iter().take(MANY).map(|(_, line)| line.clone()));
        if shown.len() > MANY {
            lines.push(paint(&format!("… and {} more", shown.len() - MANY), Color::Dim, self.colors));
        }
        lines.extend(self.waits.iter().map(|wait| paint(&format!("waits: {wait}"), Color::Dim, self.colors)));
        self.bar.set_message(lines.join("\n"));
        self.bar.tick();
    }

    /// Prints something above the tree, by `print`.
    pub fn above(&self, print: impl FnOnce()) {
        self.bar.suspend(print);
    }

    /// Takes the tree away; its last lines, where they are not too many.
    pub fn end(self, now: DateTime<Utc>) -> Vec<String> {
        self.bar.finish_and_clear();
        let mut lines = vec![self.head()];
        let branches = self.branches(now);
        if branches.len() <= MANY {
            lines.extend(branches.into_iter().map(|(_, line)| line));
        }
        lines
    }

    fn head(&self) -> String {
        let all = self.version.compiled.flow.tasks.len();
        let is_done = |(key, known): &(&TaskKey, &Known)| key.index.is_none() && known.state.is_terminal();
        let done = self.tasks.iter().filter(is_done).count();
        format!("{}  {} {done} of {all} tasks", self.title, bar(done, all))
    }

    /// A line for each task, in the order of the tree.
    fn branches(&self, now: DateTime<Utc>) -> Vec<(TaskState, String)> {
        let flow = &self.version.compiled.flow;
        tree::of(flow).into_iter().map(|branch| self.branch(&branch, now)).collect()
    }

    fn branch(&self, branch: &tree::Branch<'_>, now: DateTime<Utc>) -> (TaskState, String) {
        let id = &branch.task.id;
        let known = self.tasks.get(&TaskKey::new(id.as_str()));
        let state = known.map_or(TaskState::None, |known| known.state);
        let mut line = format!("{}{} {id}", branch.lead, show::mark(state, self.colors));
        match (known, state) {
            (Some(known), TaskState::Running) => {
                let took = duration((now - known.since).to_std().unwrap_or_default());
                line.push_str(&format!("  {}", paint(&took, Color::Dim, self.colors)));
            }
            (Some(known), _) if !known.words.is_empty() => line.push_str(&format!("  {}", known.words)),
            (Some(_), state) => line.push_str(&format!("  {state}")),
            (None, _) => {}
        }
        if branch.task.for_each.is_some() {
            let items = self.tasks.iter().filter(|(key, _)| key.index.is_some() && key.task.as_str() == id);
            let (mut done, mut all) = (0, 0);
            for (_, item) in items {
                all += 1;
                done += usize::from(item.state.is_terminal());
            }
            if all > 0 {
                line.push_str(&format!("  {} {done} of {all}", bar(done, all)));
            }
        }
        (state, line)
    }
}

/// So many of all.
fn bar(done: usize, all: usize) -> String {
    let full = (done * WIDTH).checked_div(all).unwrap_or(0);
    format!("{}{}", "█".repeat(full), "░".repeat(WIDTH - full))
}

/// How often it is drawn anew, since times go on.
pub const EVERY: Duration = Duration::from_millis(500);
