//! The log of data sets that were updated, read from wherever somebody is.

use chrono::{DateTime, Utc};
use flumen_core::Result;
use flumen_core::flow::store::MetaStore;
use flumen_core::flow::{RunId, Touched};

/// Rows that are read at once.
pub(crate) const PAGE: usize = 1_000;

/// The id of the last row; 0 where there is none.
pub(crate) async fn end(store: &dyn MetaStore) -> Result<u64> {
    search(store, |_| false).await
}

/// The id after which the rows from `at` on come.
pub(crate) async fn before(store: &dyn MetaStore, at: DateTime<Utc>) -> Result<u64> {
    search(store, |touched| touched.at >= at).await
}

/// The rows after `after`: a page of them.
pub(crate) async fn page(store: &dyn MetaStore, after: u64) -> Result<Vec<(u64, RunId, Touched)>> {
    store.touched(after, PAGE).await
}

/// The least id after which every row is one that `is_later` says is later. A few looks at single rows, however long the log is.
async fn search(store: &dyn MetaStore, is_later: impl Fn(&Touched) -> bool) -> Result<u64> {
    // Every row up to `low` is earlier, every row after `high` is later.
    let (mut low, mut step) = (0_u64, 1_u64);
    let mut high = loop {
        let probe = low.saturating_add(step);
        match store.touched(probe, 1).await?.pop() {
            Some((id, _, touched)) if !is_later(&touched) => low = id,
            _ => break probe,
        }
        step = step.saturating_mul(2);
    };
    while low < high {
        let probe = low + (high - low) / 2;
        match store.touched(probe, 1).await?.pop() {
            Some((id, _, touched)) if !is_later(&touched) => low = id,
            _ => high = probe,
        }
    }
    Ok(low)
}
