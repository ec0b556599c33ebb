//! Tables that were read before: while none has a newer commit, its log is not read again.
//!
//! A table is kept from its second use on, so that who asks one question pays for nothing. What is kept is never trusted by itself: the
//! store is asked for the newest commit first, and it must be the one that was the newest before the table was read.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flumen_core::Result;

use super::lake_table::{Contents, LakeTable};
use crate::lake::{NewestCommit, Table};

/// How much is kept, in columns of files: each has its bounds, some hundred bytes.
const ROOM: usize = 200_000;

/// What the sessions over one lake know of its tables.
#[derive(Debug, Default)]
pub(super) struct KnownTables {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    tables: HashMap<Key, Entry>,
    /// What all tables take of the room.
    weight: usize,
    /// Counts uses, so that the table that was not used for the longest time is known.
    uses: u64,
}

/// Which table, and whether it shows the columns that Flumen adds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    /// The same folder may have had another name.
    address: String,
    location: String,
    shows_own: bool,
}

#[derive(Debug, Clone)]
struct Entry {
    /// The version that was read last.
    version: u64,
    /// What was read, where it is known which commit that was.
    table: Option<(NewestCommit, Arc<LakeTable>)>,
    used: u64,
}

impl Entry {
    fn weight(&self) -> usize {
        self.table.as_ref().map_or(1, |(_, table)| table.weight())
    }
}

impl KnownTables {
    /// The latest version of `table`, with the columns that Flumen adds or without; none if there is no such table. `read` reads it.
    ///
    /// Errors: those of the store, and of `read`.
    pub async fn latest(
        &self,
        table: &Table,
        shows_own: bool,
        read: impl Future<Output = Result<Option<Contents>>>,
    ) -> Result<Option<Arc<LakeTable>>> {
        let key = Key { address: table.address(), location: table.location().to_owned(), shows_own };
        let before = self.used(&key);
        let newest = match &before {
            Some(entry) => table.newest_commit(entry.version).await?,
            None => None,
        };
        if let Some(Entry { table: Some((commit, known)), .. }) = before
            && newest.as_ref() == Some(&commit)
        {
            return Ok(Some(known));
        }
        let Some(contents) = read.await? else {
            self.kept().remove(&key);
            return Ok(None);
        };
        let version = contents.version;
        let read = Arc::new(LakeTable::new(if shows_own { contents } else { contents.without_own() })?);
        if let Some(version) = version {
            // Another commit may have come before it was read, or another table: then that is what is known, next time.
            let commit = newest.filter(|newest| newest.version == version);
            let table = commit.map(|commit| (commit, Arc::clone(&read)));
            self.kept().insert(key, Entry { version, table, used: 0 });
        }
        Ok(Some(read))
    }

    fn used(&self, key: &Key) -> Option<Entry> {
        let mut kept = self.kept();
        kept.uses += 1;
        let now = kept.uses;
        let entry = kept.tables.get_mut(key)?;
        entry.used = now;
        Some(entry.clone())
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.tables.remove(key) {
            self.weight -= entry.weight();
        }
    }

    /// Keeps `entry`, and lets go of those that were not used for the longest time until there is room.
    fn insert(&mut self, key: Key, mut entry: Entry) {
        self.remove(&key);
        if entry.weight() > ROOM {
            entry.table = None;
        }
        while self.weight + entry.weight() > ROOM
            && let Some(oldest) = self.tables.iter().min_by_key(|(_, entry)| entry.used).map(|(key, _)| key.clone())
        {
            self.remove(&oldest);
        }
        self.weight += entry.weight();
        entry.used = self.uses;
        self.tables.insert(key, entry);
    }
}
