//! Backfills: their runs are made by and by, never more than may be active at once.
//!
//! Each has a cursor, which moves on in the transaction that makes the runs. When it is cancelled, the cursor is what stops whoever
//! is making runs at that moment.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use flumen_core::flow::store::{Advance, Backfill, BackfillState, NewRun, Wake};
use flumen_core::flow::{Interval, Origin, RunId};
use flumen_core::{ErrorKind, Result};

use crate::alarm::{Pace, Rung, Service};
use crate::backfill::{Along, CHUNK, Reached, Reprocess, close, cursor_of, open_runs, position, wanted};
use crate::roster::{Entry, label};
use crate::schedules::line::{text, unique};
use crate::service::{News, is_of_store};
use crate::services::Shared;

/// The shortest time between two looks at all backfills.
const LOOKS: Duration = Duration::from_secs(1);

/// The fewest intervals that are looked at together.
const FEW: usize = 64;

/// Makes runs of backfills.
pub(crate) struct Backfills {
    shared: Arc<Shared>,
    /// Those that are not done with, by id.
    open: HashMap<String, Backfill>,
    /// Those whose cancellation is carried out.
    closed: BTreeSet<String>,
    /// Those that are to be looked at.
    due: BTreeSet<String>,
    looks: Pace,
}

/// What is left of a backfill after a look at it.
enum Left {
    /// It waits: for the end of a run, or until somebody resumes it.
    Waits,
    /// More, at once.
    More,
    /// Nothing.
    Nothing,
}

impl Backfills {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, open: HashMap::new(), closed: BTreeSet::new(), due: BTreeSet::new(), looks: Pace::new(LOOKS) }
    }

    /// Reads all backfills; what is not done with is due.
    async fn read_all(&mut self) -> Result<()> {
        let all = self.shared.store.backfills().await?;
        let is_open = |backfill: &Backfill| match backfill.state {
            BackfillState::Running => true,
            BackfillState::Cancelled => !self.closed.contains(&backfill.id),
            BackfillState::Paused | BackfillState::Done => false,
        };
        self.open = all.into_iter().filter(is_open).map(|backfill| (backfill.id.clone(), backfill)).collect();
        self.due = self.open.keys().cloned().collect();
        Ok(())
    }
}

#[async_trait]
impl Service for Backfills {
    fn hear(&mut self, rung: Rung) -> bool {
        match rung {
            Rung::Wake(Wake::Run) | Rung::Roster | Rung::Sweep => return self.looks.want(),
            Rung::Ended(run) => match &run.origin {
                Origin::Backfill { id } if self.open.contains_key(id) => drop(self.due.insert(id.clone())),
                _ => return false,
            },
            Rung::Wake(_) | Rung::Due | Rung::Knock => return false,
        }
        true
    }

    async fn work(&mut self) -> Result<Option<Duration>> {
        if self.looks.take() {
            self.looks.wanted = true;
            self.read_all().await?;
            self.looks.wanted = false;
        }
        for id in std::mem::take(&mut self.due) {
            let Some(backfill) = self.open.get(&id) else { continue };
            match look(&self.shared, backfill).await {
                Ok(Left::Waits) => {}
                Ok(Left::More) => drop(self.due.insert(id)),
                Ok(Left::Nothing) => {
                    if backfill.state == BackfillState::Cancelled {
                        self.closed.insert(id.clone());
                    }
                    self.open.remove(&id);
                }
                Err(error) if is_of_store(&error) => {
                    self.looks.wanted = true;
                    return Err(error);
                }
                Err(error) => {
                    let flow = label(backfill.flow.as_str(), backfill.deployment.as_deref());
                    self.shared.watcher.told(&News::FlowFails { flow: &flow, error: &error });
                    self.open.remove(&id);
                }
            }
        }
        Ok(if self.due.is_empty() { self.looks.left() } else { Some(Duration::ZERO) })
    }
}

/// Looks at a backfill, and makes the runs for which there is room.
async fn look(shared: &Shared, backfill: &Backfill) -> Result<Left> {
    let now = shared.clock.now();
    if backfill.state == BackfillState::Cancelled {
        close(shared.store.as_ref(), backfill, &backfill.by, now).await?;
        return Ok(Left::Nothing);
    }
    let Some(entry) = shared.roster.find(&backfill.flow, backfill.deployment.as_deref()) else {
        return Ok(Left::Waits);
    };
    let schedule = cursor_of(&backfill.id);
    let from = shared.store.cursor(&schedule).await?;
    let reached = position(&schedule, from.as_deref())?;
    if reached.stopped {
        return Ok(Left::Nothing);
    }
    let open = shared.store.runs(&open_runs(backfill, backfill.max_active as usize)).await?.len();
    if reached.all {
        return end(shared, backfill, open).await;
    }
    let room = (backfill.max_active as usize).saturating_sub(open);
    if room == 0 {
        return Ok(Left::Waits);
    }
    let (to, intervals) = choose(shared, backfill, &entry, reached, room).await?;
    let runs: Vec<NewRun> = intervals.iter().map(|interval| new_run(shared, backfill, interval)).collect();
    let made = match shared.store.advance(&Advance { schedule, from, to: text(&to)?, runs }, now).await {
        // Another scheduler made them, or it was cancelled.
        Err(error) if error.kind() == ErrorKind::Conflict => return Ok(Left::More),
        made => made?.iter().filter(|made| made.new).count(),
    };
    if made > 0 {
        shared.turns.begin(&backfill.flow).await?;
    }
    // Where there is room left, others are looked at next, or all were decided.
    Ok(if made < room { Left::More } else { Left::Waits })
}

/// The intervals that are run next, of one chunk, and how far the backfill has come then.
async fn choose(
    shared: &Shared,
    backfill: &Backfill,
    entry: &Entry,
    reached: Reached,
    room: usize,
) -> Result<(Reached, Vec<Interval>)> {
    let reprocess = Reprocess::parse(&backfill.reprocess)?;
    let size = room.clamp(FEW, CHUNK);
    let Some(chunk) = Along::of(backfill, reached.last).next_chunk(&entry.timetable, size) else {
        return Ok((Reached { all: true, ..reached }, Vec::new()));
    };
    let mut chosen = wanted(shared.store.as_ref(), entry, &chunk, reprocess).await?;
    let last = match chosen.len() > room {
        true => chosen.get(room - 1),
        false => chunk.last(),
    };
    let last = last.copied().or(reached.last);
    chosen.truncate(room);
    Ok((Reached { last, made: reached.made + chosen.len() as u64, ..reached }, chosen))
}

/// All runs were made: it is done when they have ended.
async fn end(shared: &Shared, backfill: &Backfill, open: usize) -> Result<Left> {
    if open > 0 {
        return Ok(Left::Waits);
    }
    // Somebody may have cancelled it meanwhile.
    let now = shared.store.backfills().await?.into_iter().find(|other| other.id == backfill.id);
    if now.is_some_and(|now| now.state == BackfillState::Running) {
        shared.store.save_backfill(&Backfill { state: BackfillState::Done, ..backfill.clone() }).await?;
    }
    Ok(Left::Nothing)
}

fn new_run(shared: &Shared, backfill: &Backfill, interval: &Interval) -> NewRun {
    let unique = match backfill.reprocess.as_str() {
        // The schedule does not run it a second time, nor does this where the schedule did.
        "none" => unique(interval),
        _ => format!("{} {}", unique(interval), backfill.id),
    };
    NewRun {
        id: RunId::fresh(shared.ids.next()),
        flow: backfill.flow.clone(),
        version: backfill.version.clone(),
        deployment: backfill.deployment.clone(),
        interval: *interval,
        params: backfill.params.clone(),
        origin: Origin::Backfill { id: backfill.id.clone() },
        unique: Some(unique),
        start: false,
    }
}
