//! Maintain: what a lake needs now and then, for whoever runs all the time: rows past their retention go, and tables with many
//! small files are compacted, within a budget. A table that is being written to is left alone until it is quiet, or has
//! very many of them.

use flumen_core::Result;
use flumen_core::boxed;
use flumen_core::limits::{MAINTAIN_QUIET, MAINTAIN_SMALL_FILES, OPTIMIZE_BIN_BYTES};
use serde::Serialize;

use super::expire::expire;
use super::history::history;
use super::optimize::{OptimizeOptions, Optimized, is_small, optimize};
use super::survey::{Role, entry_at, sites};
use crate::catalog::Catalog;
use crate::lake::Table;

/// How many times as many small files a table may have that is written to all the time.
const BUSY: usize = 8;

/// What was done to one table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Maintained {
    /// The table.
    pub table: String,
    /// Files with rows that were too old.
    pub expired_files: u64,
    /// What became of small files.
    pub optimized: Optimized,
    /// What went wrong: the other tables are looked after all the same.
    pub problem: Option<String>,
}

/// Looks after the whole lake once, rewriting no more than `budget_bytes`. Gives the tables to which something was done.
///
/// Errors: those of the catalog. What goes wrong with one table is told beside what was done to the others.
#[boxed]
pub async fn maintain(catalog: &Catalog, budget_bytes: u64) -> Result<Vec<Maintained>> {
    let state = catalog.read().await?;
    let mut left = budget_bytes;
    let mut all = Vec::new();
    for site in sites(catalog, &state).await? {
        if site.role != Role::Live {
            continue;
        }
        let table = catalog.lake().table_at(&site.location, &site.name)?;
        let entry = entry_at(&state, &site.location);
        let mut done = Maintained { table: table.address(), ..Maintained::default() };
        let retention = entry.and_then(|entry| entry.retention.as_ref());
        let by = retention.and_then(|retention| Some((retention.column.as_deref()?, retention.keep_s)));
        let clustering = entry.map(|entry| entry.clustering.clone()).unwrap_or_default();
        if let Err(error) = look_after(catalog, &table, by, clustering, &mut left, &mut done).await {
            done.problem = Some(error.to_string());
        }
        if done != (Maintained { table: table.address(), ..Maintained::default() }) {
            all.push(done);
        }
    }
    Ok(all)
}

async fn look_after(
    catalog: &Catalog,
    table: &Table,
    by: Option<(&str, u64)>,
    cluster_by: Vec<String>,
    left: &mut u64,
    done: &mut Maintained,
) -> Result<()> {
    if let Some((column, keep_s)) = by {
        done.expired_files = expire(catalog, table, column, keep_s).await?.files;
    }
    if *left == 0 {
        return Ok(());
    }
    let Some(snapshot) = table.snapshot().await? else { return Ok(()) };
    let files = snapshot.files()?;
    let small = files.iter().filter(|file| is_small(file)).count();
    // A rewrite costs what it reads: a few small files are cheaper left alone. One that is never quiet waits for more of them.
    if small < MAINTAIN_SMALL_FILES || small < BUSY * MAINTAIN_SMALL_FILES && !is_quiet(catalog, table).await? {
        return Ok(());
    }
    // Whole tables are sorted anew only when somebody asks for that.
    let size: u64 = files.iter().map(|file| file.size).sum();
    let cluster_by = if size <= OPTIMIZE_BIN_BYTES.min(*left) { cluster_by } else { Vec::new() };
    let options = OptimizeOptions { cluster_by, budget_bytes: Some(*left), dry_run: false };
    done.optimized = optimize(catalog, table, &options).await?;
    *left = left.saturating_sub(done.optimized.bytes_before);
    Ok(())
}

/// Whether nobody has written for a while.
async fn is_quiet(catalog: &Catalog, table: &Table) -> Result<bool> {
    let last = history(table, 1).await?.into_iter().next().and_then(|last| last.at);
    let quiet = i64::try_from(MAINTAIN_QUIET.as_secs()).unwrap_or(i64::MAX);
    Ok(last.is_none_or(|at| (catalog.clock().now() - at).num_seconds() >= quiet))
}
