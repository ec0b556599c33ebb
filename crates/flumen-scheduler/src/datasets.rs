//! Schedules by data sets: updates that were logged become a run that covers them all.
//!
//! Each schedule has a cursor: how far it has read the log, and which updates it keeps until its rule is met. The cursor moves on in the
//! transaction that makes the run, so that each update counts once, however many schedulers there are. Updates that come
//! while a run still waits for its turn are kept for the next one.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use flumen_core::flow::store::{Advance, NewRun, RunFilter, Wake};
use flumen_core::flow::{FlowName, Interval, Origin, RunId, RunRecord, RunState, Signal, Touched};
use flumen_core::{ErrorKind, Result};
use flumen_flow::definition::{Catchup, DatasetRule, OnOverlap};
use serde::{Deserialize, Serialize};
use serde_json::Map;

use crate::alarm::{Pace, Rung, Service};
use crate::log;
use crate::roster::{Entry, params};
use crate::schedules::decide::BUFFER;
use crate::schedules::line::{read, text};
use crate::schedules::oldest;
use crate::service::{News, is_of_store};
use crate::services::Shared;

/// So many rows that were read in vain are noted in a cursor, so that they need not be read again.
const LAG: u64 = 1_000;
/// The shortest time between two looks whether paused flows go on.
const LOOKS: Duration = Duration::from_secs(1);
/// Who cancels a run for a newer one.
const NEWER: &str = "a newer run of its schedule";

/// Makes runs for updates of data sets.
pub(crate) struct Datasets {
    shared: Arc<Shared>,
    lines: Vec<Line>,
    /// The schedules that want to know of a data set.
    by_dataset: HashMap<String, Vec<usize>>,
    roster_changed: bool,
    looks: Pace,
    ended: BTreeSet<FlowName>,
    /// Whether some of them have something due, and wait with it.
    has_held: bool,
    /// Whether there may be new rows in the log.
    new: bool,
}

/// How far a schedule has come: what its cursor says, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Mark {
    /// The last row of the log that was read.
    after: u64,
    /// What the runs were about that updated data sets, since the last run of this schedule.
    #[serde(default)]
    seen: BTreeMap<String, Interval>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    No,
    Room,
    Paused,
    Failed,
}

#[derive(Debug)]
struct Line {
    entry: Arc<Entry>,
    rule: DatasetRule,
    name: String,
    cursor: Option<String>,
    /// What the cursor says.
    saved: Mark,
    /// What is known beyond that.
    mark: Mark,
    held: Held,
}

impl Line {
    /// The schedule of a flow that has one by data sets, as far as it has come. One that nobody has seen before begins with the next
    /// update.
    async fn load(shared: &Shared, entry: Arc<Entry>, rule: DatasetRule, now: DateTime<Utc>) -> Result<Self> {
        let name = name_of(&entry);
        let mut cursor = shared.store.cursor(&name).await?;
        if cursor.is_none() {
            let mark = Mark { after: log::end(shared.store.as_ref()).await?, seen: BTreeMap::new() };
            let to = text(&mark)?;
            let advance = Advance { schedule: name.clone(), from: None, to: to.clone(), runs: Vec::new() };
            cursor = match shared.store.advance(&advance, now).await {
                Err(error) if error.kind() == ErrorKind::Conflict => shared.store.cursor(&name).await?,
                made => made.map(|_| Some(to))?,
            };
        }
        let saved: Mark = cursor.as_deref().map_or(Ok(Mark::default()), |cursor| read(&name, cursor))?;
        Ok(Self { entry, rule, name, cursor, mark: saved.clone(), saved, held: Held::No })
    }

    /// Takes note of an update.
    fn see(&mut self, id: u64, dataset: &str, interval: Interval) {
        if id > self.mark.after {
            let seen = self.mark.seen.entry(dataset.to_owned()).or_insert(interval);
            *seen = seen.union(&interval);
        }
    }

    /// What a run would cover, if the rule is met.
    fn due(&self) -> Option<Interval> {
        let seen = &self.mark.seen;
        is_met(&self.rule, seen).then(|| seen.values().copied().reduce(|a, b| a.union(&b)))?
    }

    fn is_lagging(&self) -> bool {
        self.mark.after - self.saved.after > LAG
    }
}

fn name_of(entry: &Entry) -> String {
    format!("datasets:{}", entry.label())
}

fn rule_of(entry: &Entry) -> Option<&DatasetRule> {
    entry.schedule.as_ref()?.datasets.as_ref()
}

fn is_met(rule: &DatasetRule, seen: &BTreeMap<String, Interval>) -> bool {
    match rule {
        DatasetRule::One(name) => seen.contains_key(name),
        DatasetRule::All(rules) => !rules.is_empty() && rules.iter().all(|rule| is_met(rule, seen)),
        DatasetRule::Any(rules) => rules.iter().any(|rule| is_met(rule, seen)),
    }
}

impl Datasets {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            lines: Vec::new(),
            by_dataset: HashMap::new(),
            roster_changed: true,
            looks: Pace::new(LOOKS),
            ended: BTreeSet::new(),
            has_held: false,
            new: true,
        }
    }

    /// Takes over the flows as they are now. What is known of those that did not change stays.
    async fn read_roster(&mut self, now: DateTime<Utc>) -> Result<()> {
        let mut before: HashMap<String, Line> =
            std::mem::take(&mut self.lines).into_iter().map(|line| (line.name.clone(), line)).collect();
        self.by_dataset.clear();
        for entry in self.shared.roster.entries() {
            let Some(rule) = rule_of(&entry).cloned() else { continue };
            let line = match before.remove(&name_of(&entry)) {
                Some(line) => Line { entry, rule, held: Held::No, ..line },
                None => Line::load(&self.shared, entry, rule, now).await?,
            };
            for dataset in line.rule.names().into_iter().collect::<BTreeSet<_>>() {
                self.by_dataset.entry(dataset.to_owned()).or_default().push(self.lines.len());
            }
            self.lines.push(line);
        }
        Ok(())
    }

    /// Reads what is new in the log.
    async fn read_log(&mut self) -> Result<()> {
        let Some(mut after) = self.lines.iter().map(|line| line.mark.after).min() else { return Ok(()) };
        loop {
            let page = log::page(self.shared.store.as_ref(), after).await?;
            for (id, run, touched) in &page {
                self.take_row(*id, *run, touched).await?;
            }
            let Some((last, ..)) = page.last() else { return Ok(()) };
            after = *last;
            for line in &mut self.lines {
                line.mark.after = line.mark.after.max(after);
            }
            if page.len() < log::PAGE {
                return Ok(());
            }
        }
    }

    async fn take_row(&mut self, id: u64, run: RunId, touched: &Touched) -> Result<()> {
        if !touched.writes.iter().any(|dataset| self.by_dataset.contains_key(dataset)) {
            return Ok(());
        }
        let interval = match self.shared.store.run(run).await {
            // It was forgotten meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => Interval::at(touched.at),
            found => found?.interval,
        };
        for dataset in &touched.writes {
            for line in self.by_dataset.get(dataset).into_iter().flatten() {
                if let Some(line) = self.lines.get_mut(*line) {
                    line.see(id, dataset, interval);
                }
            }
        }
        Ok(())
    }

    /// Makes the runs that are due, and notes how far the log was read.
    async fn make(&mut self, now: DateTime<Utc>) -> Result<bool> {
        let is_due = |line: &Line| line.held == Held::No && line.due().is_some();
        let mut again = false;
        let paused: HashSet<FlowName> = match self.lines.iter().any(is_due) {
            true => self.shared.store.paused().await?.into_iter().collect(),
            false => HashSet::new(),
        };
        for line in &mut self.lines {
            let result = if is_due(line) {
                run(&self.shared, line, &paused, now).await
            } else if line.is_lagging() {
                let mark = line.mark.clone();
                advance(&self.shared, line, mark, Vec::new(), now).await
            } else {
                continue;
            };
            match result {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Conflict => {
                    *line = Line::load(&self.shared, Arc::clone(&line.entry), line.rule.clone(), now).await?;
                    again = true;
                }
                Err(error) if is_of_store(&error) => return Err(error),
                Err(error) => {
                    line.held = Held::Failed;
                    self.shared.watcher.told(&News::FlowFails { flow: &line.entry.label(), error: &error });
                }
            }
        }
        Ok(again)
    }

    /// Lets schedules go on that waited for room, or whose flow was paused.
    async fn release(&mut self, now: DateTime<Utc>) -> Result<()> {
        let ended = std::mem::take(&mut self.ended);
        for line in self.lines.iter_mut().filter(|line| line.held == Held::Room && ended.contains(&line.entry.name())) {
            line.held = Held::No;
        }
        if !self.looks.take() {
            return Ok(());
        }
        let paused: HashSet<FlowName> = match self.lines.iter().any(|line| line.held == Held::Paused) {
            true => self.shared.store.paused().await?.into_iter().collect(),
            false => HashSet::new(),
        };
        for line in &mut self.lines {
            match line.held {
                Held::Room => line.held = Held::No,
                Held::Paused if !paused.contains(&line.entry.flow.graph.flow) => {
                    line.held = Held::No;
                    let policy = line.entry.schedule.as_ref().map(|schedule| schedule.catchup);
                    if policy == Some(Catchup::None) {
                        let mark = Mark { after: line.mark.after, seen: BTreeMap::new() };
                        advance(&self.shared, line, mark, Vec::new(), now).await?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Service for Datasets {
    fn hear(&mut self, rung: Rung) -> bool {
        match rung {
            Rung::Roster => self.roster_changed = true,
            Rung::Wake(Wake::Wait) => self.new = true,
            Rung::Wake(Wake::Run) if self.has_held => return self.looks.want(),
            Rung::Sweep => (self.new, self.looks.wanted) = (true, true),
            Rung::Ended(run) if self.has_held => drop(self.ended.insert(run.flow.clone())),
            Rung::Wake(_) | Rung::Ended(_) | Rung::Due | Rung::Knock => return false,
        }
        true
    }

    async fn work(&mut self) -> Result<Option<Duration>> {
        let now = self.shared.clock.now();
        if self.roster_changed {
            self.read_roster(now).await?;
            (self.roster_changed, self.new) = (false, true);
        }
        if self.new {
            self.read_log().await?;
            self.new = false;
        }
        self.release(now).await?;
        if self.make(now).await? {
            self.new = true;
            return Ok(Some(Duration::ZERO));
        }
        self.has_held = self.lines.iter().any(|line| matches!(line.held, Held::Room | Held::Paused));
        Ok(self.looks.left().filter(|_| self.has_held))
    }
}

/// Moves a schedule on, and makes a run.
async fn advance(shared: &Shared, line: &mut Line, mark: Mark, runs: Vec<NewRun>, now: DateTime<Utc>) -> Result<()> {
    let to = text(&mark)?;
    let advance = Advance { schedule: line.name.clone(), from: line.cursor.clone(), to: to.clone(), runs };
    shared.store.advance(&advance, now).await?;
    (line.cursor, line.saved, line.mark) = (Some(to), mark.clone(), mark);
    Ok(())
}

/// Makes the run that is due, if its flow lets it.
async fn run(shared: &Shared, line: &mut Line, paused: &HashSet<FlowName>, now: DateTime<Utc>) -> Result<()> {
    let Some(interval) = line.due() else { return Ok(()) };
    let flow = line.entry.name();
    if paused.contains(&flow) {
        line.held = Held::Paused;
        return Ok(());
    }
    let limit = line.entry.flow.flow.max_active_runs.max(1) as usize;
    let filter = RunFilter {
        flow: Some(flow.clone()),
        states: vec![RunState::Queued, RunState::Running, RunState::Paused],
        oldest_first: true,
        limit: Some(limit.saturating_add(BUFFER)),
        ..RunFilter::default()
    };
    let open: Vec<RunRecord> = shared.store.runs(&filter).await?;
    let count = open.iter().filter(|run| run.cancelling.is_none()).count();
    let overlap = line.entry.flow.flow.on_overlap;
    let is_full = count >= limit;
    if is_full && overlap == OnOverlap::Queue && open.iter().any(|run| is_waiting(run, &line.entry)) {
        line.held = Held::Room;
        return Ok(());
    }
    let mark = Mark { after: line.mark.after, seen: BTreeMap::new() };
    if is_full && overlap == OnOverlap::Skip {
        advance(shared, line, mark, Vec::new(), now).await?;
        let flow = line.entry.label();
        shared.watcher.told(&News::LeftOut { flow: &flow, first: interval, last: interval });
        return Ok(());
    }
    let new = NewRun {
        id: RunId::fresh(shared.ids.next()),
        flow: flow.clone(),
        version: line.entry.version.clone(),
        deployment: line.entry.deployment.clone(),
        interval,
        params: params(shared.roster.as_ref(), &line.entry, &Map::new()).await?,
        origin: Origin::Datasets,
        unique: None,
        start: false,
    };
    advance(shared, line, mark, vec![new], now).await?;
    if overlap == OnOverlap::CancelRunning {
        for run in oldest(&open, (count + 1).saturating_sub(limit)) {
            shared.store.send(run, &Signal::Cancel { by: NEWER.to_owned() }).await?;
        }
    }
    shared.turns.begin(&flow).await
}

/// Whether it is a run of the same schedule that has not begun.
fn is_waiting(run: &RunRecord, entry: &Entry) -> bool {
    run.state == RunState::Queued && run.origin == Origin::Datasets && run.deployment == entry.deployment
}
