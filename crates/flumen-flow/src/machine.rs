//! The state machine of a run: what happens next.
