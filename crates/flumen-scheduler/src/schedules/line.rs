//! One schedule: how far it has come, and since when it is watched.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use flumen_core::flow::{FlowName, Interval, RunId};
use flumen_core::{Error, Result};
use flumen_flow::definition::{OnOverlap, ScheduleSpec};
use flumen_flow::timetable::{Catchup, Watch};
use serde::{Deserialize, Serialize};

use crate::roster::Entry;

/// How far a schedule has come: what its cursor in the store says, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    /// Since when the flow is known.
    pub known: DateTime<Utc>,
    /// The last interval that was decided.
    #[serde(default)]
    pub last: Option<Interval>,
    /// Runs that have to make room for that one, and may not know it yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub displaced: Vec<RunId>,
}

/// What a schedule that has something due waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    /// Nothing.
    No,
    /// The end of a run.
    Room,
    /// That its flow is no longer paused.
    Paused,
    /// That its flow is changed.
    Failed,
}

/// A schedule.
#[derive(Debug)]
pub(super) struct Line {
    pub entry: Arc<Entry>,
    /// The name of its cursor.
    pub name: String,
    /// The cursor's text, where it is known.
    pub cursor: Option<String>,
    /// What it says.
    pub at: Option<Position>,
    /// Since when it is watched without a pause.
    pub watched: DateTime<Utc>,
    /// When something is due.
    pub due: Option<DateTime<Utc>>,
    pub held: Held,
}

impl Line {
    pub fn new(entry: Arc<Entry>, now: DateTime<Utc>) -> Self {
        let name = name_of(&entry);
        Self { entry, name, cursor: None, at: None, watched: now, due: None, held: Held::No }
    }

    pub fn flow(&self) -> FlowName {
        self.entry.name()
    }

    pub fn schedule(&self) -> Option<&ScheduleSpec> {
        self.entry.schedule.as_ref()
    }

    pub fn policy(&self) -> Catchup {
        self.schedule().map_or(Catchup::default(), |schedule| schedule.catchup)
    }

    pub fn overlap(&self) -> OnOverlap {
        self.entry.flow.flow.on_overlap
    }

    pub fn limit(&self) -> usize {
        self.entry.flow.flow.max_active_runs.max(1) as usize
    }

    /// What the timetable is asked with.
    pub fn watch(&self, at: &Position) -> Watch {
        Watch { last: at.last, known_since: at.known, watched_since: self.watched }
    }
}

/// The name of an entry's cursor.
pub(super) fn name_of(entry: &Entry) -> String {
    format!("schedule:{}", entry.label())
}

/// The text of a cursor.
pub(crate) fn text<T: Serialize>(position: &T) -> Result<String> {
    serde_json::to_string(position).map_err(|error| Error::internal("a cursor cannot be written").caused_by(error))
}

/// What the text of a cursor says.
pub(crate) fn read<T: for<'de> Deserialize<'de>>(schedule: &str, text: &str) -> Result<T> {
    serde_json::from_str(text)
        .map_err(|error| Error::data(format!("the cursor '{schedule}' cannot be read")).caused_by(error))
}

/// The text of which there is one run: what it is about.
pub(crate) fn unique(interval: &Interval) -> String {
    format!("{}/{}", interval.start.format("%+"), interval.end.format("%+"))
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn a_cursor_is_what_it_was_written_as() {
        let known = DateTime::UNIX_EPOCH + TimeDelta::microseconds(1_500_001);
        let run = RunId::new("0190a1b2-0000-7000-8000-000000000001".parse().unwrap());
        let last = Interval { start: known, end: known + TimeDelta::days(1) };
        for (last, displaced) in [(None, Vec::new()), (Some(last), Vec::new()), (Some(last), vec![run])] {
            let position = Position { known, last, displaced };
            assert_eq!(read::<Position>("x", &text(&position).unwrap()).unwrap(), position);
        }
        assert!(read::<Position>("x", "y").unwrap_err().to_string().contains("cursor 'x'"));
        assert_eq!(unique(&Interval::at(known)), "1970-01-01T00:00:01.500001+00:00/1970-01-01T00:00:01.500001+00:00");
    }
}
