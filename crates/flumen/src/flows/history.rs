//! Old runs, which are forgotten: on request, or by a server where the project says how long they are kept.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use flumen_core::Result;
use flumen_core::clock::Clock;
use tokio_util::sync::CancellationToken;

use super::roster::ProjectRoster;
use super::runtime::Flowing;
use crate::output::Output;

/// Runs that are forgotten in one transaction.
const TOGETHER: usize = 500;
/// How often a server looks for runs that are old.
const EVERY: Duration = Duration::from_secs(60 * 60);

/// Forgets runs that ended before `before`, with what is kept of them; how many.
///
/// Errors: those of the store and of the lake's root.
pub async fn forget(
    flowing: &Flowing,
    roster: &ProjectRoster,
    before: DateTime<Utc>,
    cancel: &CancellationToken,
) -> Result<u64> {
    let old = flowing.store.ended_before(before).await?;
    // Their logs go first: a run that is there without them is tried again, logs without a run never are.
    for run in &old {
        if cancel.is_cancelled() {
            return Ok(0);
        }
        flowing.kept.forget(*run).await?;
    }
    // Versions without runs go too: not those of flows that are there and may run any time.
    flowing.library.save_again();
    roster.read().await?;
    flowing.store.forget_workers(before).await?;
    let mut forgotten = 0;
    while !cancel.is_cancelled() {
        let gone = flowing.store.prune(before, TOGETHER).await?;
        forgotten += gone as u64;
        if gone < TOGETHER {
            break;
        }
    }
    Ok(forgotten)
}

/// Forgets runs that are older than `age`, again and again, until `stop`.
pub async fn forget_by_and_by(
    flowing: Arc<Flowing>,
    roster: Arc<ProjectRoster>,
    age: Duration,
    clock: Arc<dyn Clock>,
    output: Output,
    stop: CancellationToken,
) {
    // An age before time began leaves everything.
    let Ok(age) = TimeDelta::from_std(age) else { return };
    loop {
        if let Some(before) = clock.now().checked_sub_signed(age)
            && let Err(error) = forget(&flowing, &roster, before, &stop).await
        {
            output.warning(format_args!("old runs could not be forgotten: {error}"));
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}
