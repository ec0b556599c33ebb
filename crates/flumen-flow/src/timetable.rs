//! When a flow runs, and for which data interval.
