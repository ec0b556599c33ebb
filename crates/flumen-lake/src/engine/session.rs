//! How DataFusion is set up: as many partitions as cores, Parquet read with its statistics, memory bounded, the rest on
//! disk.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::execution::FunctionRegistry;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::memory_pool::{FairSpillPool, TrackConsumersPool};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::SessionState;
use datafusion::prelude::SessionConfig;
use flumen_core::{Error, Result};

use super::{functions, rules};

/// The catalog that stands for the lake.
pub(super) const LAKE_CATALOG: &str = flumen_core::dataset::LAKE;
/// The schema of tables that live as long as the session. No namespace of the lake can be called so.
pub(super) const SESSION_SCHEMA: &str = "_flumen_session";
/// How many users of memory are named when it runs out.
pub(super) const CONSUMERS_NAMED: NonZeroUsize = NonZeroUsize::MIN.saturating_add(2);

/// Rows of the smaller side of a join that are kept whole, for each thread that there is not: the more threads, the sooner
/// they share the work.
const KEPT_ROWS: usize = 4 << 20;
/// The same in bytes.
const KEPT_BYTES: usize = 256 << 20;

/// A session's state, which each query starts from and some change.
///
/// The engine holds it as this for the compiler's sake: a state has whole plans in it, and whether those may go to another thread
/// is asked anew for every async method of a trait that has an engine in reach, for seconds each time. What is behind a trait is
/// not looked into.
pub(super) trait Held: Send + Sync {
    /// A copy of it.
    fn get(&self) -> SessionState;

    /// Changes it.
    fn change(&self, change: &mut dyn FnMut(&mut SessionState));
}

impl Held for Mutex<SessionState> {
    fn get(&self) -> SessionState {
        self.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: &mut dyn FnMut(&mut SessionState)) {
        change(&mut self.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The state from which each query starts.
pub(super) fn state(memory_bytes: usize, threads: Option<usize>) -> Result<SessionState> {
    let mut config = SessionConfig::new()
        .with_default_catalog_and_schema(LAKE_CATALOG, SESSION_SCHEMA)
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(true);
    if let Some(threads) = threads {
        config = config.with_target_partitions(threads);
    }
    // A join that keeps its smaller side whole saves spreading both sides over the threads, for one thread's work on it.
    let partitions = config.target_partitions().max(1);
    let options = config.options_mut();
    let optimizer = &mut options.optimizer;
    let (rows, bytes) = (KEPT_ROWS / partitions, KEPT_BYTES / partitions);
    optimizer.hash_join_single_partition_threshold_rows = optimizer.hash_join_single_partition_threshold_rows.max(rows);
    optimizer.hash_join_single_partition_threshold = optimizer.hash_join_single_partition_threshold.max(bytes);
    options.sql_parser.collect_spans = true;
    // Without a zone, a `timestamptz` would lose its own.
    options.execution.time_zone = Some("UTC".to_owned());
    options.execution.collect_statistics = true;
    // Old writers (Spark, Impala) have timestamps of 96 bits. The lake's unit is the microsecond.
    options.execution.parquet.coerce_int96 = Some("us".to_owned());
    let pool = TrackConsumersPool::new(FairSpillPool::new(memory_bytes), CONSUMERS_NAMED);
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(pool))
        .build_arc()
        .map_err(|error| Error::internal("the SQL engine did not start").caused_by(error))?;
    let mut state = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(runtime)
        .with_default_features()
        .with_optimizer_rules(rules::logical())
        .with_physical_optimizer_rules(rules::physical())
        .build();
    let failed = |error| Error::internal("the SQL engine did not start").caused_by(error);
    for function in rules::aggregates() {
        state.register_udaf(function).map_err(failed)?;
    }
    functions::register(&mut state).map_err(failed)?;
    Ok(state)
}
