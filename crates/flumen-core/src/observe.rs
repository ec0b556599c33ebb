//! What a load tells while it runs. Whoever watches (a terminal, a log, a test) implements [`Observer`].

/// Something worth showing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The inputs were found: address and size of each.
    Found(Vec<(String, Option<u64>)>),
    /// Bytes (as stored) and rows read of one input so far.
    Progress {
        /// The input's place in [`Event::Found`].
        input: usize,
        /// Bytes, in all.
        bytes: u64,
        /// Rows, in all.
        rows: u64,
    },
    /// An input has been read to its end.
    Finished {
        /// The input's place in [`Event::Found`].
        input: usize,
        /// Its rows.
        rows: u64,
    },
    /// An input was left out, and why.
    Skipped {
        /// The input's address.
        address: String,
        /// Why.
        why: String,
    },
    /// What goes on now, in a few words: `types widened, reading again`.
    Note(String),
    /// Something that the user should look at.
    Warning(String),
}

/// Watches a load. Called from several threads.
pub trait Observer: Send + Sync {
    /// Something happened.
    fn observe(&self, event: Event);
}

/// Watches nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn observe(&self, _: Event) {}
}
