//! What becomes of the intervals that are due: which are run now, which wait, which are left out.

use chrono::{DateTime, Utc};
use flumen_core::flow::Interval;
use flumen_flow::definition::OnOverlap;
use flumen_flow::timetable::{Catchup, Due};

/// Runs of a flow that are made ahead of their turn, so that the next one is there when another ends.
pub(crate) const BUFFER: usize = 16;
/// Intervals that are decided in one transaction.
const BATCH: usize = 256;

/// How much room a flow has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    /// How many of its runs may be active.
    pub limit: usize,
    /// How many are there and have not ended. Those that are being cancelled do not count.
    pub open: usize,
}

/// What is done about some of the intervals that are due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decision {
    /// These are run.
    pub run: Vec<Interval>,
    /// The first and the last of those that were missed.
    pub missed: Option<(Interval, Interval)>,
    /// The first and the last of those that are left out.
    pub left_out: Option<(Interval, Interval)>,
    /// How many of the oldest runs make room.
    pub cancel: usize,
    /// The last interval of all these.
    pub last: Interval,
}

/// What is due after a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// Nothing more.
    Done,
    /// More, at once.
    More,
    /// More, as soon as a run has ended.
    Full,
}

/// Decides about `due`. An interval that ended at `watched` or later ended while somebody watched.
pub(crate) fn decide(
    due: Due<'_>,
    policy: Catchup,
    overlap: OnOverlap,
    room: Room,
    watched: DateTime<Utc>,
) -> (Option<Decision>, Rest) {
    let Due { missed, run } = due;
    let mut run = run.peekable();
    let free = room.limit.saturating_sub(room.open);
    let is_live = |interval: &Interval| interval.end >= watched;
    let (mut cancel, mut left_out) = (0, None);
    let taken: Vec<Interval> = match overlap {
        // Where not all are caught up with, there is one: it waits however many do.
        OnOverlap::Queue if policy != Catchup::All => run.by_ref().collect(),
        OnOverlap::Queue => {
            let free = (room.limit + BUFFER).saturating_sub(room.open);
            run.by_ref().take(free.min(BATCH)).collect()
        }
        OnOverlap::Skip => run.by_ref().take(free.min(BATCH)).collect(),
        OnOverlap::CancelRunning if run.peek().is_some_and(is_live) => {
            cancel = (room.open + 1).saturating_sub(room.limit);
            run.next().into_iter().collect()
        }
        // What was missed displaces nothing.
        OnOverlap::CancelRunning => {
            std::iter::from_fn(|| run.next_if(|next| !is_live(next))).take(free.min(BATCH)).collect()
        }
    };
    if overlap == OnOverlap::Skip
        && taken.len() == free
        && let Some(first) = run.next()
    {
        left_out = Some((first, run.next_back().unwrap_or(first)));
    }
    let rest = match run.peek() {
        None => Rest::Done,
        Some(_) if left_out.is_some() => Rest::Done,
        Some(_) if taken.is_empty() => Rest::Full,
        Some(_) => Rest::More,
    };
    let missed = ends(missed);
    let last = left_out.map(|(_, last)| last).or(taken.last().copied()).or(missed.map(|(_, last)| last));
    let decision = last.map(|last| Decision { run: taken, missed, left_out, cancel, last });
    (decision, rest)
}

/// The first and the last.
fn ends(mut intervals: impl DoubleEndedIterator<Item = Interval> + Clone) -> Option<(Interval, Interval)> {
    let last = intervals.clone().next_back()?;
    Some((intervals.next().unwrap_or(last), last))
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use flumen_flow::definition::{RuleSpec, ScheduleSpec};
    use flumen_flow::timetable::Watch;

    use super::*;

    fn day(number: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::days(number)
    }

    /// What is decided on day 10 about a daily flow that was last run on day `last`, and is watched since day `watched`.
    fn check(policy: Catchup, overlap: OnOverlap, limit: usize, open: usize, last: i64, watched: i64) -> String {
        let spec = ScheduleSpec {
            rules: vec![RuleSpec::Cron("@daily".to_owned())],
            timezone: "UTC".to_owned(),
            ..ScheduleSpec::default()
        };
        let timetable = flumen_flow::compiled::timetable_of(Some(&spec)).unwrap();
        let last = Some(Interval { start: day(last - 1), end: day(last) });
        let watch = Watch { last, known_since: day(0), watched_since: day(watched) };
        let due = timetable.due(policy, &watch, day(10));
        let (decision, rest) = decide(due, policy, overlap, Room { limit, open }, day(watched));
        let number = |interval: Interval| (interval.end - DateTime::UNIX_EPOCH).num_days();
        let Some(Decision { run, missed, left_out, cancel, last }) = decision else { return format!("{rest:?}") };
        let mut text = format!("run {:?}", run.into_iter().map(number).collect::<Vec<_>>());
        for (word, part) in [("missed", missed), ("left out", left_out)] {
            if let Some((first, last)) = part {
                text += &format!(", {word} {}..{}", number(first), number(last));
            }
        }
        if cancel > 0 {
            text += &format!(", cancel {cancel}");
        }
        format!("{text}, to {}, {rest:?}", number(last))
    }

    #[test]
    fn what_is_due_waits_is_left_out_or_makes_room() {
        use Catchup::{All, Last, None};
        use OnOverlap::{CancelRunning, Queue, Skip};
        for (policy, overlap, limit, open, last, watched, expect) in [
            (Last, Queue, 1, 0, 10, 0, "Done"),
            (Last, Queue, 1, 0, 9, 0, "run [10], to 10, Done"),
            (Last, Queue, 1, 99, 9, 0, "run [10], to 10, Done"),
            (Last, Queue, 1, 0, 6, 10, "run [10], missed 7..9, to 10, Done"),
            (None, Queue, 1, 0, 6, 10, "run [10], missed 7..9, to 10, Done"),
            (None, Queue, 1, 0, 6, 11, "run [], missed 7..10, to 10, Done"),
            (All, Queue, 1, 0, 6, 10, "run [7, 8, 9, 10], to 10, Done"),
            (All, Queue, 1, 15, 6, 10, "run [7, 8], to 8, More"),
            (All, Queue, 1, 17, 6, 10, "Full"),
            (Last, Skip, 1, 1, 9, 0, "run [], left out 10..10, to 10, Done"),
            (Last, Skip, 2, 1, 9, 0, "run [10], to 10, Done"),
            (Last, Skip, 1, 1, 6, 11, "run [], missed 7..9, left out 10..10, to 10, Done"),
            (All, Skip, 3, 1, 5, 11, "run [6, 7], left out 8..10, to 10, Done"),
            (Last, CancelRunning, 1, 1, 9, 0, "run [10], cancel 1, to 10, Done"),
            (Last, CancelRunning, 2, 1, 9, 0, "run [10], to 10, Done"),
            (Last, CancelRunning, 2, 4, 9, 0, "run [10], cancel 3, to 10, Done"),
            (Last, CancelRunning, 1, 1, 6, 11, "run [], missed 7..9, to 9, Full"),
            (All, CancelRunning, 1, 0, 7, 10, "run [8], to 8, More"),
            (All, CancelRunning, 1, 1, 7, 10, "Full"),
            (All, CancelRunning, 3, 0, 7, 10, "run [8, 9], to 9, More"),
            (All, CancelRunning, 1, 1, 9, 10, "run [10], cancel 1, to 10, Done"),
        ] {
            let got = check(policy, overlap, limit, open, last, watched);
            assert_eq!(got, expect, "{policy:?} {overlap:?} {limit} {open} {last} {watched}");
        }
    }
}
