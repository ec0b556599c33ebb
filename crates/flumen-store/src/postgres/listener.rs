//! Wakes of all processes, by LISTEN and NOTIFY: a statement that changes something sends them when it commits.
//!
//! One connection listens for the whole process, from the first who wants to know on. Whenever it is made, also anew, everybody is
//! woken for everything: something may have been missed.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use flumen_core::flow::store::Wake;
use futures::stream::BoxStream;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use crate::wakes::{LETTERS, Wakes};

/// How long a connection may be silent before it is asked whether it is still there: a line that was cut says nothing.
const SILENCE: Duration = Duration::from_secs(15);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The pause before a connection is made anew, the first time and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Those who listen, here.
pub(super) struct Listener {
    options: PgConnectOptions,
    channel: Arc<str>,
    here: Arc<Mutex<Wakes>>,
    /// The task that hears others, once somebody listens.
    task: Mutex<Option<AbortHandle>>,
}

impl fmt::Debug for Listener {
    /// Shows the channel alone: the options have the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Listener").field(&self.channel).finish()
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Listener {
    pub fn new(options: PgConnectOptions, channel: Arc<str>) -> Self {
        Self { options, channel, here: Arc::default(), task: Mutex::default() }
    }

    /// Wakes from now on. Must be called within a Tokio runtime.
    pub fn listen(&self) -> BoxStream<'static, Wake> {
        let stream = lock(&self.here).listen();
        lock(&self.task).get_or_insert_with(|| {
            let hear = hear(self.options.clone(), Arc::clone(&self.channel), Arc::downgrade(&self.here));
            tokio::spawn(hear).abort_handle()
        });
        stream
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(task) = lock(&self.task).take() {
            task.abort();
        }
    }
}

/// Hears others until the store ends.
async fn hear(options: PgConnectOptions, channel: Arc<str>, here: Weak<Mutex<Wakes>>) {
    let mut pause = PAUSES.0;
    while here.strong_count() > 0 {
        if let Ok(listener) = connect(&options, &channel).await {
            pause = PAUSES.0;
            wake(&here, |_| true);
            hear_until_lost(listener, &here).await;
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

async fn connect(options: &PgConnectOptions, channel: &str) -> sqlx::Result<PgListener> {
    // It lives as long as its one connection, and keeps nobody waiting for one that was lost.
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .max_lifetime(None)
        .idle_timeout(None)
        .acquire_timeout(PATIENCE)
        .connect_lazy_with(options.clone());
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.eager_reconnect(false);
    match timeout(PATIENCE, listener.listen(channel)).await {
        Ok(listens) => listens.map(|()| listener),
        Err(_) => Err(sqlx::Error::PoolTimedOut),
    }
}

async fn hear_until_lost(mut listener: PgListener, here: &Weak<Mutex<Wakes>>) {
    loop {
        match timeout(SILENCE, listener.try_recv()).await {
            Ok(Ok(Some(heard))) => {
                let letters = heard.payload();
                wake(here, |letter| letters.as_bytes().contains(&letter));
            }
            Ok(_) => return,
            Err(_) => {
                let there = sqlx::query("select").execute(&mut listener);
                if !matches!(timeout(PATIENCE, there).await, Ok(Ok(_))) {
                    return;
                }
            }
        }
    }
}

fn wake(here: &Weak<Mutex<Wakes>>, is_told: impl Fn(u8) -> bool) {
    let Some(here) = here.upgrade() else { return };
    let mut here = lock(&here);
    for (_, kind) in LETTERS.iter().filter(|(letter, _)| is_told(*letter)) {
        here.wake(*kind);
    }
}
