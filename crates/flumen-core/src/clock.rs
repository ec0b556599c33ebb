//! Time and ids come in from outside: nothing below the binary reads a clock or rolls dice by itself.

use chrono::{DateTime, Utc};
use uuid::Uuid;

/// Where the present comes from.
pub trait Clock: Send + Sync {
    /// The present instant, in whole microseconds: as precise as stores keep it.
    fn now(&self) -> DateTime<Utc>;
}

/// Where ids that must differ from all others come from.
pub trait Ids: Send + Sync {
    /// An id that nobody has.
    fn next(&self) -> Uuid;
}
