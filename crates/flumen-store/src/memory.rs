//! Users and runs in memory. They live as long as the store.

mod meta;
mod queue;
mod runs;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use flumen_core::Result;
use flumen_core::user::{User, UserStore, Verifiers, name_taken, no_user};

use runs::Runs;

/// A store without a file.
#[derive(Debug, Default)]
pub struct MemoryStore {
    users: Mutex<BTreeMap<String, (User, Verifiers)>>,
    runs: Mutex<Runs>,
}

impl MemoryStore {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    fn users(&self) -> MutexGuard<'_, BTreeMap<String, (User, Verifiers)>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept_runs(&self) -> MutexGuard<'_, Runs> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut (User, Verifiers))) -> Result<()> {
        self.users().get_mut(name).map(change).ok_or_else(|| no_user(name))
    }
}

#[async_trait]
impl UserStore for MemoryStore {
    async fn add(&self, user: &User, verifiers: &Verifiers) -> Result<()> {
        let mut users = self.users();
        if users.contains_key(&user.name) {
            return Err(name_taken(&user.name));
        }
        users.insert(user.name.clone(), (user.clone(), verifiers.clone()));
        Ok(())
    }

    async fn set_verifiers(&self, name: &str, verifiers: &Verifiers) -> Result<()> {
        self.change(name, |(_, kept)| *kept = verifiers.clone())
    }

    async fn set_read_only(&self, name: &str, read_only: bool) -> Result<()> {
        self.change(name, |(user, _)| user.read_only = read_only)
    }

    async fn list(&self) -> Result<Vec<User>> {
        Ok(self.users().values().map(|(user, _)| user.clone()).collect())
    }

    async fn find(&self, name: &str) -> Result<Option<(User, Verifiers)>> {
        Ok(self.users().get(name).cloned())
    }

    async fn remove(&self, name: &str) -> Result<()> {
        self.users().remove(name).map(drop).ok_or_else(|| no_user(name))
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use flumen_core::flow::FlowVersion;
    use flumen_core::flow::store::{Backfill, BackfillState, MetaStore as _, Wake};
    use futures::{FutureExt as _, StreamExt as _};

    use super::MemoryStore;

    #[tokio::test]
    async fn it_keeps_the_contract() {
        let store = MemoryStore::new();
        flumen_core::testkit::user_store(&store, &store).await;
        flumen_core::testkit::meta_store(&store, &store).await;
    }

    #[tokio::test]
    async fn whoever_makes_runs_is_woken_by_what_people_change() {
        let store = MemoryStore::new();
        let mut wakes = store.wakes();
        store.set_paused(&"flow".into(), true).await.unwrap();
        assert_eq!(wakes.next().now_or_never(), Some(Some(Wake::Run)));
        store.set_paused(&"flow".into(), false).await.unwrap();
        assert_eq!(wakes.next().now_or_never(), Some(Some(Wake::Run)));
        let backfill = Backfill {
            id: "one".to_owned(),
            flow: "flow".into(),
            version: FlowVersion::of(b""),
            deployment: None,
            from: DateTime::UNIX_EPOCH,
            to: DateTime::UNIX_EPOCH,
            reprocess: "none".to_owned(),
            reverse: false,
            max_active: 1,
            params: serde_json::Map::new(),
            state: BackfillState::Running,
            total: 1,
            by: "ann".to_owned(),
            created: DateTime::UNIX_EPOCH,
        };
        store.save_backfill(&backfill).await.unwrap();
        assert_eq!(wakes.next().now_or_never(), Some(Some(Wake::Run)));
        assert_eq!(wakes.next().now_or_never(), None);
    }
}
