//! Looks at what costs little to look at, from time to time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use flumen_core::flow::store::{Advance, PendingWait, Wake};
use flumen_core::flow::{Outcome, WaitFor};
use flumen_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::alarm::{Crew, Rung, Service};
use crate::schedules::line::{read, text};
use crate::service::News;
use crate::services::Shared;

/// Waits that are read at once.
const PAGE: usize = 500;
/// Looks that are taken side by side.
const SIDE_BY_SIDE: usize = 16;
/// How long a look may take.
const LOOK: Duration = Duration::from_secs(30);
/// How long a scheduler has the looks to itself, unless it renews that. It is longer than a look.
const TERM: TimeDelta = TimeDelta::seconds(90);
/// What is left of a term when it is renewed.
const RENEW: TimeDelta = TimeDelta::seconds(75);
/// The cursor that says who looks.
const CURSOR: &str = "looks";

/// Looks at what tasks wait for. The kinds of tasks know how.
#[async_trait]
pub trait Looker: Send + Sync {
    /// How the wait ended, if it is over. It is given up after half a minute.
    ///
    /// Errors: that it could not be looked at; it is looked again.
    async fn look(&self, wait: &PendingWait) -> Result<Option<Outcome>>;
}

/// Who looks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Term {
    by: String,
    until: DateTime<Utc>,
}

/// Looks, when it is this scheduler's turn.
pub(crate) struct Looks {
    shared: Arc<Shared>,
    looker: Arc<dyn Looker>,
    /// The name of this scheduler.
    name: String,
    /// By the moments of the next looks, those that nobody looks at now.
    calendar: BTreeMap<(DateTime<Utc>, u64), PendingWait>,
    /// Those that are looked at now.
    looked_at: BTreeSet<u64>,
    crew: Crew<(PendingWait, Result<bool>)>,
    /// The last wait that was read.
    last: u64,
    everything: bool,
    new: bool,
    /// Until when this scheduler has the looks, and the cursor's text.
    term: Option<(Term, String)>,
}

impl Looks {
    pub(crate) fn new(shared: Arc<Shared>, looker: Arc<dyn Looker>) -> Self {
        let name = shared.ids.next().simple().to_string();
        Self {
            shared,
            looker,
            name,
            calendar: BTreeMap::new(),
            looked_at: BTreeSet::new(),
            crew: Crew::new(SIDE_BY_SIDE),
            last: 0,
            everything: true,
            new: false,
            term: None,
        }
    }

    /// Reads waits that began since the last time, or all.
    async fn read_waits(&mut self, now: DateTime<Utc>) -> Result<()> {
        if self.everything {
            self.last = 0;
            self.calendar.clear();
        }
        if self.everything || self.new {
            loop {
                let page = self.shared.store.waits(self.last, PAGE).await?;
                self.last = page.last().map_or(self.last, |wait| wait.id);
                let is_last = page.len() < PAGE;
                for wait in page {
                    if !self.looked_at.contains(&wait.id) {
                        self.put(wait, now);
                    }
                }
                if is_last {
                    break;
                }
            }
        }
        (self.everything, self.new) = (false, false);
        Ok(())
    }

    fn put(&mut self, wait: PendingWait, now: DateTime<Utc>) {
        if let WaitFor::Check { every_seconds, .. } = wait.wait.on {
            self.calendar.insert((next_look(wait.id, every_seconds, now), wait.id), wait);
        }
    }

    /// Whether it is this scheduler's turn to look; else, when to ask again.
    async fn take_turn(&mut self, now: DateTime<Utc>) -> Result<Option<DateTime<Utc>>> {
        if self.term.as_ref().is_some_and(|(term, _)| term.until - now > RENEW && term.until - now <= TERM) {
            return Ok(None);
        }
        let cursor = self.shared.store.cursor(CURSOR).await?;
        if let Some(cursor) = &cursor {
            let term: Term = read(CURSOR, cursor)?;
            // A term that ends too late is that of a clock that was wrong.
            if term.by != self.name && term.until > now && term.until - now <= TERM {
                self.term = None;
                return Ok(Some(term.until));
            }
        }
        self.set_turn(cursor, now + TERM, now).await
    }

    async fn set_turn(
        &mut self,
        from: Option<String>,
        until: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<Option<DateTime<Utc>>> {
        let term = Term { by: self.name.clone(), until };
        let to = text(&term)?;
        let advance = Advance { schedule: CURSOR.to_owned(), from, to: to.clone(), runs: Vec::new() };
        match self.shared.store.advance(&advance, now).await {
            // Somebody else has it now.
            Err(error) if error.kind() == ErrorKind::Conflict => {
                self.term = None;
                Ok(Some(now + TERM))
            }
            taken => {
                taken?;
                self.term = Some((term, to));
                Ok(None)
            }
        }
    }

    /// Begins the looks that are due, as many as may be taken at once.
    fn begin(&mut self, now: DateTime<Utc>) {
        while self.crew.room() > 0
            && let Some(first) = self.calendar.first_entry().filter(|first| first.key().0 <= now)
        {
            let wait = first.remove();
            self.looked_at.insert(wait.id);
            let (shared, looker) = (Arc::clone(&self.shared), Arc::clone(&self.looker));
            self.crew.begin(async move {
                let looked = look_once(&shared, looker.as_ref(), &wait).await;
                (wait, looked)
            });
        }
    }

    /// Takes in what the looks have shown.
    fn end(&mut self, now: DateTime<Utc>) -> Result<()> {
        let mut result = Ok(());
        for (wait, looked) in self.crew.take_done() {
            self.looked_at.remove(&wait.id);
            match looked {
                Ok(true) => {}
                Ok(false) => self.put(wait, now),
                Err(error) => {
                    self.put(wait, now);
                    result = Err(error);
                }
            }
        }
        result
    }
}

#[async_trait]
impl Service for Looks {
    fn hear(&mut self, rung: Rung) -> bool {
        match rung {
            Rung::Wake(Wake::Wait) => self.new = true,
            Rung::Sweep => self.everything = true,
            Rung::Knock => {}
            _ => return false,
        }
        true
    }

    async fn work(&mut self) -> Result<Option<Duration>> {
        let now = self.shared.clock.now();
        self.end(now)?;
        self.read_waits(now).await?;
        let mut next = self.calendar.first_key_value().map(|((at, _), _)| *at);
        if next.is_some_and(|next| next <= now) && self.crew.room() > 0 {
            if let Some(ask_again) = self.take_turn(now).await? {
                next = Some(ask_again);
            } else {
                self.begin(now);
                next = self.calendar.first_key_value().map(|((at, _), _)| *at);
            }
        }
        // What is due and has no room is begun when something is done.
        let next = next.filter(|_| self.crew.room() > 0);
        Ok(next.map(|next| (next - self.shared.clock.now()).to_std().unwrap_or_default()))
    }

    fn knock(&self) -> Arc<Notify> {
        self.crew.knock()
    }

    async fn leave(&mut self) {
        let now = self.shared.clock.now();
        if let Some((_, cursor)) = self.term.take() {
            // Where it fails, the others wait until the term is over.
            drop(self.set_turn(Some(cursor), now, now).await);
        }
    }
}

/// Looks once; whether the wait is over.
///
/// Errors: those of the store.
async fn look_once(shared: &Shared, looker: &dyn Looker, wait: &PendingWait) -> Result<bool> {
    // It may have ended otherwise.
    let there = shared.store.waits(wait.id - 1, 1).await?;
    if there.first().is_none_or(|there| there.id != wait.id) {
        return Ok(true);
    }
    let looked = match tokio::time::timeout(LOOK, looker.look(wait)).await {
        Ok(looked) => looked,
        Err(_) => Err(Error::unavailable(format!("a look took longer than {} s", LOOK.as_secs()))),
    };
    match looked {
        Ok(Some(outcome)) => {
            super::end(shared, wait, outcome).await?;
            Ok(true)
        }
        Ok(None) => Ok(false),
        Err(error) => {
            shared.watcher.told(&News::LookFails { wait, error: &error });
            Ok(false)
        }
    }
}

/// When a wait is looked at next: spread over time by its id, so that all of them are not looked at together, and the same
/// whoever looks.
fn next_look(id: u64, every_seconds: u64, now: DateTime<Utc>) -> DateTime<Utc> {
    let every = i64::try_from(every_seconds.max(1)).unwrap_or(i64::MAX).saturating_mul(1_000);
    // Multiples of the golden ratio lie evenly in any interval.
    let place = (id.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as i64;
    let phase = ((i128::from(place) * i128::from(every)) >> 32) as i64;
    let past = (now.timestamp_millis() - phase).rem_euclid(every);
    let left = TimeDelta::milliseconds(every.saturating_sub(past).max(1));
    now.checked_add_signed(left).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_are_spread_and_regular() {
        let now = DateTime::UNIX_EPOCH + TimeDelta::milliseconds(123_456_789);
        let mut places: Vec<i64> = (1..=100).map(|id| (next_look(id, 100, now) - now).num_milliseconds()).collect();
        assert!(places.iter().all(|place| (1..=100_000).contains(place)));
        places.sort_unstable();
        let gaps = places.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(gaps.max().unwrap() < 5_000, "{places:?}");
        let first = next_look(7, 30, now);
        assert_eq!(next_look(7, 30, first), first + TimeDelta::seconds(30));
        assert_eq!(next_look(7, 30, first - TimeDelta::milliseconds(1)), first, "whoever asks");
        assert!(next_look(7, u64::MAX, now) > now);
        assert!(next_look(7, 0, now) > now);
    }
}
