//! The stretch of time whose data a run processes.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

/// A data interval: from `start`, to just before `end`. Where both are the same, a run is about a moment and not about data of a
/// stretch of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Interval {
    /// Its first moment: the logical date of a run.
    pub start: DateTime<Utc>,
    /// The first moment after it: when a scheduled run of it is due.
    pub end: DateTime<Utc>,
}

impl Interval {
    /// The interval that is only a moment.
    pub fn at(moment: DateTime<Utc>) -> Self {
        Self { start: moment, end: moment }
    }

    /// Whether it is only a moment.
    pub fn is_moment(&self) -> bool {
        self.start == self.end
    }

    /// How long it is.
    pub fn length(&self) -> TimeDelta {
        self.end - self.start
    }

    /// The smallest interval that holds both: what a run covers that several updates of datasets caused.
    pub fn union(&self, other: &Interval) -> Interval {
        Interval { start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}
