//! Schedules: intervals that are due become runs.
//!
//! Each schedule has a cursor in the store, which moves on in the transaction that makes the runs: of several schedulers one
//! succeeds, and a scheduler that is started again goes on where any of them was. Runs are made without being begun;
//! [`Turns`](crate::turns) begins them. A schedule sleeps in a heap until it is due, and costs nothing meanwhile.
//!
//! - `schedules/decide.rs`: what becomes of the intervals that are due.
//! - `schedules/line.rs`: one schedule.

pub(crate) mod decide;
pub(crate) mod line;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use flumen_core::flow::store::{Advance, NewRun, RunFilter, Wake};
use flumen_core::flow::{FlowName, Interval, Origin, RunId, RunRecord, RunState, Signal};
use flumen_core::{ErrorKind, Result};
use flumen_flow::definition::{Catchup, OnOverlap};
use futures::StreamExt as _;
use serde_json::Map;

use self::decide::{BUFFER, Decision, Rest, Room, decide};
use self::line::{Held, Line, Position, name_of, read, text, unique};
use crate::alarm::{Pace, Rung, Service};
use crate::roster::params;
use crate::service::{News, is_of_store};
use crate::services::Shared;

/// Schedules that are dealt with side by side: their transactions share a wait for the disk.
const SIDE_BY_SIDE: usize = 32;
/// New schedules whose cursors are read before those that are due have their turn again.
const UNREAD: usize = 256;
/// The shortest time between two looks whether paused flows go on, or runs that others step have ended.
const LOOKS: Duration = Duration::from_secs(1);
/// A flow that always runs begins no more often than this.
const CONTINUOUS: TimeDelta = TimeDelta::seconds(1);
/// A pass that comes so much later than the one before was slept through: the machine was off.
const ASLEEP: TimeDelta = TimeDelta::minutes(3);
/// Who cancels a run for a newer one.
const NEWER: &str = "a newer run of its schedule";

/// Makes runs of schedules.
pub(crate) struct Schedules {
    shared: Arc<Shared>,
    lines: BTreeMap<String, Line>,
    heap: BinaryHeap<Reverse<(DateTime<Utc>, String)>>,
    /// Those whose cursors were not read yet.
    unread: Vec<String>,
    /// Those that have something due, and wait with it.
    held: BTreeSet<String>,
    roster_changed: bool,
    ended: BTreeSet<FlowName>,
    looks: Pace,
    last_pass: Option<DateTime<Utc>>,
}

impl Schedules {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            lines: BTreeMap::new(),
            heap: BinaryHeap::new(),
            unread: Vec::new(),
            held: BTreeSet::new(),
            roster_changed: true,
            ended: BTreeSet::new(),
            looks: Pace::new(LOOKS),
            last_pass: None,
        }
    }

    /// Takes over the flows as they are now. What is known of those that did not change stays.
    fn read_roster(&mut self, now: DateTime<Utc>) {
        let mut before = std::mem::take(&mut self.lines);
        for entry in self.shared.roster.entries().into_iter().filter(|entry| entry.timetable.is_scheduled()) {
            let line = match before.remove(&name_of(&entry)) {
                Some(line)
                    if line.held != Held::Failed && (Arc::ptr_eq(&line.entry, &entry) || line.entry == entry) =>
                {
                    line
                }
                // It goes on from when it is seen that its flow is no longer paused: until then nobody watched.
                Some(line) if line.held == Held::Paused => Line { entry, ..line },
                Some(line) => {
                    // Nobody watched for what another timetable said.
                    let watched = if line.entry.timetable == entry.timetable { line.watched } else { now };
                    Line { entry, watched, due: line.at.as_ref().map(|_| now), held: Held::No, ..line }
                }
                None => Line::new(entry, now),
            };
            self.lines.insert(line.name.clone(), line);
        }
        let due = self.lines.values().filter_map(|line| Some(Reverse((line.due?, line.name.clone()))));
        self.heap = due.collect();
        let held = self.lines.values().filter(|line| matches!(line.held, Held::Room | Held::Paused));
        self.held = held.map(|line| line.name.clone()).collect();
        let unread = self.lines.values().filter(|line| line.at.is_none() && line.due.is_none());
        self.unread = unread.map(|line| line.name.clone()).collect();
    }

    /// Lets schedules go on that have something due and wait with it, if they are those that `wanted` picks.
    fn release(&mut self, now: DateTime<Utc>, wanted: impl Fn(&Line) -> bool) {
        let lines = &self.lines;
        let picked: Vec<String> =
            self.held.iter().filter(|name| lines.get(*name).is_some_and(&wanted)).cloned().collect();
        for name in picked {
            self.held.remove(&name);
            if let Some(line) = self.lines.get_mut(&name) {
                if line.held == Held::Paused {
                    line.watched = now;
                }
                (line.held, line.due) = (Held::No, Some(now));
                self.heap.push(Reverse((now, name)));
            }
        }
    }

    /// A clock that was moved on, or a machine that slept: nobody watched.
    fn note_time(&mut self, now: DateTime<Utc>) {
        if self.last_pass.is_some_and(|last| now - last > ASLEEP) {
            for line in self.lines.values_mut() {
                line.watched = now;
            }
        }
        self.last_pass = Some(now);
    }

    /// The schedules that are due, and some that are new, taken out.
    fn take_due(&mut self, now: DateTime<Utc>) -> Vec<Line> {
        let mut due = Vec::new();
        while let Some(Reverse((at, name))) = self.heap.peek()
            && *at <= now
        {
            // An entry of the heap that says something else than its schedule is an old one.
            if self.lines.get(name).is_some_and(|line| line.due == Some(*at)) {
                self.held.remove(name);
                due.extend(self.lines.remove(name).map(|line| Line { held: Held::No, ..line }));
            }
            self.heap.pop();
        }
        let first = self.unread.len().saturating_sub(UNREAD);
        let new: Vec<Line> = self.unread.drain(first..).filter_map(|name| self.lines.remove(&name)).collect();
        due.extend(new);
        due
    }

    fn put_back(&mut self, line: Line) {
        match line.due {
            Some(due) => self.heap.push(Reverse((due, line.name.clone()))),
            None if line.at.is_none() && line.held == Held::No => self.unread.push(line.name.clone()),
            None => {}
        }
        if matches!(line.held, Held::Room | Held::Paused) {
            self.held.insert(line.name.clone());
        }
        self.lines.insert(line.name.clone(), line);
    }

    /// Lets those go on for which there may be room now, and those whose flows are no longer paused.
    async fn look_at_held(&mut self, now: DateTime<Utc>) -> Result<()> {
        self.release(now, |line| line.held == Held::Room);
        if self.held.is_empty() {
            return Ok(());
        }
        self.looks.wanted = true;
        let paused: HashSet<FlowName> = self.shared.store.paused().await?.into_iter().collect();
        self.looks.wanted = false;
        self.release(now, |line| !paused.contains(&line.entry.flow.graph.flow));
        Ok(())
    }
}

#[async_trait]
impl Service for Schedules {
    fn hear(&mut self, rung: Rung) -> bool {
        match rung {
            Rung::Roster => self.roster_changed = true,
            Rung::Ended(run) if !self.held.is_empty() => drop(self.ended.insert(run.flow.clone())),
            Rung::Wake(Wake::Run) if !self.held.is_empty() => return self.looks.want(),
            Rung::Sweep => self.looks.wanted = true,
            Rung::Wake(_) | Rung::Ended(_) | Rung::Due | Rung::Knock => return false,
        }
        true
    }

    async fn work(&mut self) -> Result<Option<Duration>> {
        let now = self.shared.clock.now();
        self.note_time(now);
        if std::mem::take(&mut self.roster_changed) {
            self.read_roster(now);
        }
        let ended = std::mem::take(&mut self.ended);
        self.release(now, |line| line.held == Held::Room && ended.contains(&line.entry.flow.graph.flow));
        if self.looks.take() {
            self.look_at_held(now).await?;
        }
        let due = self.take_due(now);
        let mut failed = None;
        if !due.is_empty() {
            let paused = self.shared.store.paused().await;
            let paused: HashSet<FlowName> = match paused {
                Ok(paused) => paused.into_iter().collect(),
                Err(error) => {
                    due.into_iter().for_each(|line| self.put_back(line));
                    return Err(error);
                }
            };
            let shared = Arc::clone(&self.shared);
            let passes = due.into_iter().map(|mut line| {
                let (shared, paused) = (&shared, &paused);
                async move {
                    let result = pass(shared, &mut line, paused).await;
                    (line, result)
                }
            });
            let mut passed = futures::stream::iter(passes).buffer_unordered(SIDE_BY_SIDE);
            while let Some((line, result)) = passed.next().await {
                failed = failed.or(result.err());
                self.put_back(line);
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        if !self.unread.is_empty() {
            return Ok(Some(Duration::ZERO));
        }
        let look = self.looks.left().filter(|_| !self.held.is_empty());
        let next =
            self.heap.peek().map(|Reverse((at, _))| (*at - self.shared.clock.now()).to_std().unwrap_or_default());
        Ok([look, next].into_iter().flatten().min())
    }
}

/// Deals with a schedule that may have something due.
///
/// Errors: those of the store; what is wrong with the flow is told.
async fn pass(shared: &Shared, line: &mut Line, paused: &HashSet<FlowName>) -> Result<()> {
    let now = shared.clock.now();
    match try_pass(shared, line, paused, now).await {
        // Somebody else moved it on: look where it is now.
        Err(error) if error.kind() == ErrorKind::Conflict => {
            line.at = None;
            line.due = Some(now);
            Ok(())
        }
        Err(error) if !is_of_store(&error) => {
            shared.watcher.told(&News::FlowFails { flow: &line.entry.label(), error: &error });
            (line.held, line.due) = (Held::Failed, None);
            Ok(())
        }
        // Whatever was done of it, it has its turn again: one that was new is due at no time yet.
        Err(error) => {
            line.due = line.due.or(Some(now));
            Err(error)
        }
        Ok(()) => Ok(()),
    }
}

async fn try_pass(shared: &Shared, line: &mut Line, paused: &HashSet<FlowName>, now: DateTime<Utc>) -> Result<()> {
    let at = position(shared, line, now).await?;
    let at = make_room(shared, line, at, now).await?;
    if paused.contains(&line.entry.flow.graph.flow) {
        (line.held, line.due) = (Held::Paused, None);
        return Ok(());
    }
    let watch = line.watch(&at);
    let next = line.entry.timetable.next_due(&watch, now);
    if next.is_none_or(|next| next > now) {
        line.due = next;
        return Ok(());
    }
    let open = match needs_count(line) {
        true => open_runs(shared, line).await?,
        false => Vec::new(),
    };
    if line.entry.timetable.is_continuous() {
        let first = at.last.map_or(now, |last| last.end + CONTINUOUS);
        if open.iter().any(|run| run.deployment == line.entry.deployment) {
            (line.held, line.due) = (Held::Room, None);
            return Ok(());
        }
        if first > now {
            line.due = Some(first);
            return Ok(());
        }
    }
    let room = Room { limit: line.limit(), open: open.iter().filter(|run| run.cancelling.is_none()).count() };
    let due = line.entry.timetable.due(line.policy(), &watch, now);
    let (decision, rest) = decide(due, line.policy(), line.overlap(), room, line.watched);
    let at = match decision {
        Some(decision) => carry_out(shared, line, at, &decision, &open, now).await?,
        None => at,
    };
    match rest {
        Rest::Full => (line.held, line.due) = (Held::Room, next_live(line, now)),
        Rest::More => line.due = Some(now),
        Rest::Done => line.due = line.entry.timetable.next_due(&line.watch(&at), now),
    }
    Ok(())
}

/// Whether what is decided depends on the runs that there are.
fn needs_count(line: &Line) -> bool {
    line.policy() == Catchup::All || line.overlap() != OnOverlap::Queue || line.entry.timetable.is_continuous()
}

/// When something is due that waits for no room, and takes the place of what waits.
fn next_live(line: &Line, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let takes_its_place = line.overlap() == OnOverlap::CancelRunning && line.policy() != Catchup::All;
    takes_its_place.then(|| line.entry.timetable.upcoming(now).next()).flatten().map(|next| next.end)
}

/// The runs of the flow that have not ended, oldest first; no more than it takes to see that there is no room.
async fn open_runs(shared: &Shared, line: &Line) -> Result<Vec<RunRecord>> {
    let filter = RunFilter {
        flow: Some(line.flow()),
        states: vec![RunState::Queued, RunState::Running, RunState::Paused],
        oldest_first: true,
        limit: Some(line.limit().saturating_add(BUFFER)),
        ..RunFilter::default()
    };
    shared.store.runs(&filter).await
}

/// Where a schedule is. One that nobody has seen before begins now.
async fn position(shared: &Shared, line: &mut Line, now: DateTime<Utc>) -> Result<Position> {
    if let Some(at) = &line.at {
        return Ok(at.clone());
    }
    line.cursor = shared.store.cursor(&line.name).await?;
    let at = match &line.cursor {
        Some(cursor) => read(&line.name, cursor)?,
        None => {
            let at = Position { known: now, last: None, displaced: Vec::new() };
            advance(shared, line, &at, Vec::new(), now).await?;
            at
        }
    };
    line.at = Some(at.clone());
    Ok(at)
}

/// Moves a schedule on, and makes runs.
async fn advance(shared: &Shared, line: &mut Line, to: &Position, runs: Vec<NewRun>, now: DateTime<Utc>) -> Result<()> {
    let to = text(to)?;
    let advance = Advance { schedule: line.name.clone(), from: line.cursor.clone(), to: to.clone(), runs };
    shared.store.advance(&advance, now).await?;
    line.cursor = Some(to);
    Ok(())
}

/// Makes the runs that were decided, and begins them as far as it is their turn.
async fn carry_out(
    shared: &Shared,
    line: &mut Line,
    at: Position,
    decision: &Decision,
    open: &[RunRecord],
    now: DateTime<Utc>,
) -> Result<Position> {
    let at = Position { last: Some(decision.last), displaced: oldest(open, decision.cancel), ..at };
    let runs = new_runs(shared, line, &decision.run).await?;
    let makes_runs = !runs.is_empty();
    advance(shared, line, &at, runs, now).await?;
    line.at = Some(at.clone());
    let label = line.entry.label();
    if let Some((first, last)) = decision.missed {
        shared.watcher.told(&News::Missed { flow: &label, first, last });
    }
    if let Some((first, last)) = decision.left_out {
        shared.watcher.told(&News::LeftOut { flow: &label, first, last });
    }
    let at = make_room(shared, line, at, now).await?;
    if makes_runs {
        shared.turns.begin(&line.flow()).await?;
    }
    Ok(at)
}

/// Cancels the runs that have to make room. The cursor names them from the transaction on that made the newer run, until they are
/// told: whoever reads it goes on with it, if the scheduler that decided it is gone.
async fn make_room(shared: &Shared, line: &mut Line, at: Position, now: DateTime<Utc>) -> Result<Position> {
    if at.displaced.is_empty() {
        return Ok(at);
    }
    for run in &at.displaced {
        match shared.store.send(*run, &Signal::Cancel { by: NEWER.to_owned() }).await {
            // It was forgotten meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            sent => sent?,
        }
    }
    let at = Position { displaced: Vec::new(), ..at };
    advance(shared, line, &at, Vec::new(), now).await?;
    line.at = Some(at.clone());
    Ok(at)
}

/// The first `count` runs that make room: those that run, and then those that wait.
pub(crate) fn oldest(open: &[RunRecord], count: usize) -> Vec<RunId> {
    let (active, queued): (Vec<_>, Vec<_>) =
        open.iter().filter(|run| run.cancelling.is_none()).partition(|run| run.state != RunState::Queued);
    active.into_iter().chain(queued).take(count).map(|run| run.id).collect()
}

async fn new_runs(shared: &Shared, line: &Line, intervals: &[Interval]) -> Result<Vec<NewRun>> {
    if intervals.is_empty() {
        return Ok(Vec::new());
    }
    let entry = &line.entry;
    let params = params(shared.roster.as_ref(), entry, &Map::new()).await?;
    let run = |interval: &Interval| NewRun {
        id: RunId::fresh(shared.ids.next()),
        flow: entry.name(),
        version: entry.version.clone(),
        deployment: entry.deployment.clone(),
        interval: *interval,
        params: params.clone(),
        origin: Origin::Schedule,
        unique: Some(unique(interval)),
        start: false,
    };
    Ok(intervals.iter().map(run).collect())
}
