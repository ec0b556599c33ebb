//! Backfills, as commands see them: what one would do, and how it is made, paused, resumed and cancelled.
//!
//! A backfill is one row. Its runs are made by and by, along the flow's timetable, by `backfills.rs`.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use flumen_core::boxed;
use flumen_core::clock::Ids;
use flumen_core::flow::store::{Advance, Backfill, BackfillState, MetaStore, RunFilter};
use flumen_core::flow::{Interval, RunRecord, RunState, Signal};
use flumen_core::{Error, ErrorKind, Result};
use flumen_flow::timetable::Timetable;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::roster::{Entry, Roster, params};
use crate::schedules::line::{read, text};

/// Intervals that are looked at together.
pub(crate) const CHUNK: usize = 256;
/// Runs that are read at once.
const PAGE: usize = 500;
/// Intervals that a plan shows.
const SHOWN: usize = 10;

/// What of the intervals that have a run already is run again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reprocess {
    /// None of them.
    #[default]
    None,
    /// Those whose last run failed or was cancelled.
    Failed,
    /// All of them.
    All,
}

impl Reprocess {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::None, Self::Failed, Self::All];

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Failed => "failed",
            Self::All => "all",
        }
    }

    /// What a word means.
    ///
    /// Errors: `Invalid`, with the nearest word.
    pub fn parse(text: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|one| one.name() == text);
        found.ok_or_else(|| {
            Error::invalid(format!("'{text}' is not what a backfill does with runs that there are"))
                .did_you_mean(text, Self::ALL.map(Self::name))
        })
    }

    /// Whether an interval is run whose last run is in this state.
    fn wants(self, last: Option<RunState>) -> bool {
        match (self, last) {
            (Self::All, _) | (_, None) => true,
            (Self::Failed, Some(state)) => matches!(state, RunState::Failed | RunState::Cancelled),
            (Self::None, Some(_)) => false,
        }
    }
}

/// A wish for a backfill.
#[derive(Debug, Clone, PartialEq)]
pub struct Wish {
    /// The first start of an interval.
    pub from: DateTime<Utc>,
    /// The last start of an interval.
    pub to: DateTime<Utc>,
    /// What of the intervals that have a run already is run again.
    pub reprocess: Reprocess,
    /// Whether the last comes first.
    pub reverse: bool,
    /// How many of its runs are active at once; no more than the flow allows in any case.
    pub max_active: Option<u32>,
    /// Parameters of its runs, beside those that a scheduled run has.
    pub params: Map<String, Value>,
    /// Who asks for it.
    pub by: String,
}

/// What a backfill would do.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// How many intervals there are.
    pub intervals: u64,
    /// How many of them are run.
    pub runs: u64,
    /// The first ones that are run, in the order in which they are.
    pub first: Vec<Interval>,
    /// The parameters of the runs.
    pub params: Map<String, Value>,
}

/// What a backfill of this flow would do now. Changes nothing.
///
/// Errors: `Invalid` for a flow without intervals, parameters that do not fit, and an order that the flow rules out; those of
/// the store.
#[boxed]
pub async fn plan(
    store: &dyn MetaStore,
    roster: &dyn Roster,
    entry: &Entry,
    wish: &Wish,
    now: DateTime<Utc>,
) -> Result<Plan> {
    check(entry, wish)?;
    let params = params(roster, entry, &wish.params).await?;
    let mut plan = Plan { intervals: 0, runs: 0, first: Vec::new(), params };
    let mut along = Along { from: wish.from, to: wish.to, until: now, reverse: wish.reverse, last: None };
    while let Some(chunk) = along.next_chunk(&entry.timetable, CHUNK) {
        plan.intervals += chunk.len() as u64;
        let wanted = wanted(store, entry, &chunk, wish.reprocess).await?;
        plan.runs += wanted.len() as u64;
        let missing = SHOWN - plan.first.len();
        plan.first.extend(wanted.into_iter().take(missing));
    }
    Ok(plan)
}

/// Makes a backfill: its runs follow.
///
/// Errors: those of [`plan`].
#[boxed]
pub async fn create(
    store: &dyn MetaStore,
    roster: &dyn Roster,
    ids: &dyn Ids,
    entry: &Entry,
    wish: &Wish,
    now: DateTime<Utc>,
) -> Result<Backfill> {
    let plan = plan(store, roster, entry, wish, now).await?;
    let most = entry.flow.flow.max_active_runs;
    let backfill = Backfill {
        id: ids.next().simple().to_string(),
        flow: entry.name(),
        version: entry.version.clone(),
        deployment: entry.deployment.clone(),
        from: wish.from,
        to: wish.to,
        reprocess: wish.reprocess.name().to_owned(),
        reverse: wish.reverse,
        max_active: wish.max_active.unwrap_or(most).clamp(1, most.max(1)),
        params: plan.params,
        state: BackfillState::Running,
        total: plan.runs,
        by: wish.by.clone(),
        created: now,
    };
    store.save_backfill(&backfill).await?;
    Ok(backfill)
}

/// The backfill with this id, or whose id is the only one that begins like this.
///
/// Errors: `NotFound`; `Invalid` where several begin like this.
#[boxed]
pub async fn find(store: &dyn MetaStore, id: &str) -> Result<Backfill> {
    let mut found: Vec<Backfill> = store.backfills().await?;
    found.retain(|backfill| backfill.id.starts_with(id));
    if let Some(exact) = found.iter().position(|backfill| backfill.id == id) {
        return Ok(found.swap_remove(exact));
    }
    match (found.pop(), found.is_empty()) {
        (Some(only), true) if !id.is_empty() => Ok(only),
        (Some(_), _) => Err(Error::invalid(format!("several backfills begin with '{id}'")).hint("write more of it")),
        (None, _) => {
            Err(Error::not_found(format!("there is no backfill '{id}'")).hint("'flumen backfill list' shows them"))
        }
    }
}

/// Makes no more runs for now. Those that there are go on.
///
/// Errors: `NotFound`; `Invalid` where it has ended.
#[boxed]
pub async fn pause(store: &dyn MetaStore, id: &str) -> Result<Backfill> {
    turn(store, id, BackfillState::Paused).await
}

/// Goes on making runs.
///
/// Errors: `NotFound`; `Invalid` where it has ended.
#[boxed]
pub async fn resume(store: &dyn MetaStore, id: &str) -> Result<Backfill> {
    turn(store, id, BackfillState::Running).await
}

/// Makes no more runs, and cancels those that have not ended. Asked again, it does what is left of that.
///
/// Errors: `NotFound`; `Invalid` where it is done.
#[boxed]
pub async fn cancel(store: &dyn MetaStore, id: &str, by: &str, now: DateTime<Utc>) -> Result<Backfill> {
    let backfill = turn(store, id, BackfillState::Cancelled).await?;
    close(store, &backfill, by, now).await?;
    Ok(backfill)
}

async fn turn(store: &dyn MetaStore, id: &str, to: BackfillState) -> Result<Backfill> {
    let mut backfill = find(store, id).await?;
    let state = backfill.state;
    if state == BackfillState::Done || (state == BackfillState::Cancelled && to != BackfillState::Cancelled) {
        let word = if state == BackfillState::Done { "done" } else { "cancelled" };
        return Err(Error::invalid(format!("backfill '{}' is {word} already", backfill.id)));
    }
    backfill.state = to;
    store.save_backfill(&backfill).await?;
    Ok(backfill)
}

/// Sees to it that no more runs are made, and cancels those that have not ended.
pub(crate) async fn close(store: &dyn MetaStore, backfill: &Backfill, by: &str, now: DateTime<Utc>) -> Result<()> {
    let schedule = cursor_of(&backfill.id);
    // Whoever is making runs fails where the cursor was moved: afterwards there are none but those that are found below.
    loop {
        let from = store.cursor(&schedule).await?;
        let at = position(&schedule, from.as_deref())?;
        if at.stopped {
            break;
        }
        let to = text(&Reached { stopped: true, ..at })?;
        match store.advance(&Advance { schedule: schedule.clone(), from, to, runs: Vec::new() }, now).await {
            Err(error) if error.kind() == ErrorKind::Conflict => {}
            done => break done.map(drop)?,
        }
    }
    let mut after = None;
    loop {
        let runs = store.runs(&RunFilter { after, ..open_runs(backfill, PAGE) }).await?;
        for run in runs.iter().filter(|run| run.cancelling.is_none()) {
            store.send(run.id, &Signal::Cancel { by: by.to_owned() }).await?;
        }
        after = runs.last().map(|run| run.id);
        if runs.len() < PAGE {
            return Ok(());
        }
    }
}

/// Runs of a backfill that have not ended.
pub(crate) fn open_runs(backfill: &Backfill, limit: usize) -> RunFilter {
    RunFilter {
        backfill: Some(backfill.id.clone()),
        states: vec![RunState::Queued, RunState::Running, RunState::Paused],
        oldest_first: true,
        limit: Some(limit),
        ..RunFilter::default()
    }
}

fn check(entry: &Entry, wish: &Wish) -> Result<()> {
    let flow = entry.label();
    if entry.timetable.all().next().is_none() {
        return Err(Error::invalid(format!("flow '{flow}' has no intervals that could be filled"))
            .hint("give it a schedule, or run it with --interval"));
    }
    let past = entry.flow.flow.tasks.iter().find(|task| task.depends_on_past);
    if let Some(task) = past.filter(|_| wish.reverse) {
        return Err(Error::invalid(format!(
            "flow '{flow}' cannot be filled from the end: task '{}' depends on the run before",
            task.id
        ))
        .hint("leave out --reverse"));
    }
    Ok(())
}

/// How far a backfill has come: what its cursor says, as JSON.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reached {
    /// The last interval that was decided.
    #[serde(default)]
    pub last: Option<Interval>,
    /// How many runs were made.
    #[serde(default)]
    pub made: u64,
    /// Whether all intervals were decided.
    #[serde(default)]
    pub all: bool,
    /// Whether it is cancelled.
    #[serde(default)]
    pub stopped: bool,
}

/// The name of a backfill's cursor.
pub(crate) fn cursor_of(id: &str) -> String {
    format!("backfill:{id}")
}

/// What the text of a cursor says.
pub(crate) fn position(schedule: &str, cursor: Option<&str>) -> Result<Reached> {
    cursor.map_or(Ok(Reached::default()), |cursor| read(schedule, cursor))
}

/// How many runs a backfill has made.
///
/// Errors: those of the store.
pub async fn made(store: &dyn MetaStore, backfill: &Backfill) -> Result<u64> {
    let schedule = cursor_of(&backfill.id);
    Ok(position(&schedule, store.cursor(&schedule).await?.as_deref())?.made)
}

/// What is left of the way along a timetable.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Along {
    /// The first start of an interval.
    pub from: DateTime<Utc>,
    /// The last start of an interval.
    pub to: DateTime<Utc>,
    /// Intervals that end later are not complete.
    pub until: DateTime<Utc>,
    /// Whether it goes backwards.
    pub reverse: bool,
    /// The last interval on the way so far.
    pub last: Option<Interval>,
}

impl Along {
    /// The way of a backfill that has come as far as `last`.
    pub fn of(backfill: &Backfill, last: Option<Interval>) -> Self {
        let Backfill { from, to, created, reverse, .. } = *backfill;
        Self { from, to, until: created, reverse, last }
    }

    /// The next intervals, up to `size`; `None` at the end.
    pub fn next_chunk(&mut self, timetable: &Timetable, size: usize) -> Option<Vec<Interval>> {
        // Two intervals may start together, where the first is a moment: those that were passed are known by their ends.
        let chunk: Vec<Interval> = match self.reverse {
            true => {
                let to = self.last.map_or(self.to, |last| last.start);
                let is_passed = |next: &Interval| self.last.is_some_and(|last| next.end >= last.end);
                timetable.starting(self.from, to).ended_by(self.until).rev().skip_while(is_passed).take(size).collect()
            }
            false => {
                let from = self.last.map_or(self.from, |last| last.start);
                let is_passed = |next: &Interval| self.last.is_some_and(|last| next.end <= last.end);
                timetable.starting(from, self.to).ended_by(self.until).skip_while(is_passed).take(size).collect()
            }
        };
        self.last = Some(*chunk.last()?);
        Some(chunk)
    }
}

/// Those of `chunk` that are to be run, in the same order.
pub(crate) async fn wanted(
    store: &dyn MetaStore,
    entry: &Entry,
    chunk: &[Interval],
    reprocess: Reprocess,
) -> Result<Vec<Interval>> {
    if reprocess == Reprocess::All {
        return Ok(chunk.to_vec());
    }
    let mut last: HashMap<(DateTime<Utc>, bool), RunState> = HashMap::new();
    // An interval is known by its start, and by whether it is a moment: its end may have been another once.
    let key = |interval: &Interval| (interval.start, interval.is_moment());
    let mut after = None;
    loop {
        let filter = RunFilter {
            flow: Some(entry.name()),
            deployment: Some(entry.deployment.clone().unwrap_or_default()),
            from: chunk.iter().map(|interval| interval.start).min(),
            to: chunk.iter().map(|interval| interval.start).max(),
            after,
            limit: Some(PAGE),
            ..RunFilter::default()
        };
        // The latest run of an interval comes first.
        let runs: Vec<RunRecord> = store.runs(&filter).await?;
        for run in &runs {
            last.entry(key(&run.interval)).or_insert(run.state);
        }
        if runs.len() < PAGE {
            break;
        }
        after = runs.last().map(|run| run.id);
    }
    let is_wanted = |interval: &&Interval| reprocess.wants(last.get(&key(interval)).copied());
    Ok(chunk.iter().filter(is_wanted).copied().collect())
}
