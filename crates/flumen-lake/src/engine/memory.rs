//! Memory for many sessions: a limit for all, and one for each.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::common::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::memory_pool::{
    FairSpillPool, MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation, TrackConsumersPool,
};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use flumen_core::{Error, Result};

use super::known::KnownTables;
use super::{Engine, EngineSettings, session};

/// What the sessions of one server share: memory, what is known about tables and files, the folder for what does not fit.
#[derive(Debug, Clone)]
pub struct Shared {
    runtime: Arc<RuntimeEnv>,
    session_bytes: usize,
    known: Arc<KnownTables>,
}

impl Shared {
    /// Room for `bytes` in all, and `session_bytes` for one session.
    ///
    /// Errors: `Internal`.
    pub fn new(bytes: usize, session_bytes: usize) -> Result<Self> {
        let pool = TrackConsumersPool::new(FairSpillPool::new(bytes), session::CONSUMERS_NAMED);
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(pool))
            .build_arc()
            .map_err(|error| Error::internal("the SQL engine did not start").caused_by(error))?;
        Ok(Self { runtime, session_bytes, known: Arc::default() })
    }
}

impl Engine {
    /// An engine that shares what it uses with other sessions.
    ///
    /// Errors: those of [`Engine::new`].
    pub fn sharing(settings: EngineSettings, shared: &Shared) -> Result<Self> {
        let engine = Self::knowing(settings, Arc::clone(&shared.known))?;
        {
            let pool = SessionPool {
                shared: Arc::clone(&shared.runtime.memory_pool),
                limit: shared.session_bytes,
                used: AtomicUsize::new(0),
            };
            let runtime = RuntimeEnv { memory_pool: Arc::new(pool), ..shared.runtime.as_ref().clone() };
            engine.change_state(|state| {
                let before = SessionStateBuilder::new_from_existing(state.clone());
                *state = before.with_runtime_env(Arc::new(runtime)).build();
            });
        }
        Ok(engine)
    }
}

/// The part of a shared pool that one session may use.
struct SessionPool {
    shared: Arc<dyn MemoryPool>,
    limit: usize,
    used: AtomicUsize,
}

impl fmt::Debug for SessionPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionPool({} of {} bytes)", self.used.load(Ordering::Relaxed), self.limit)
    }
}

impl fmt::Display for SessionPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl MemoryPool for SessionPool {
    fn name(&self) -> &str {
        "session"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.shared.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.shared.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.used.fetch_add(additional, Ordering::Relaxed);
        self.shared.grow(reservation, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.used.fetch_sub(shrink, Ordering::Relaxed);
        self.shared.shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> DataFusionResult<()> {
        let within = |used: usize| used.checked_add(additional).filter(|all| *all <= self.limit);
        if let Err(used) = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within) {
            return Err(DataFusionError::ResourcesExhausted(format!(
                "{} needs {additional} bytes more, and this session uses {used} of its {} bytes",
                reservation.consumer().name(),
                self.limit
            )));
        }
        self.shared.try_grow(reservation, additional).inspect_err(|_| {
            self.used.fetch_sub(additional, Ordering::Relaxed);
        })
    }

    fn reserved(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.limit)
    }
}
