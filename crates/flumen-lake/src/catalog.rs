//! The catalog of a lake: what its tables are called, what else there is to know of them, and which environments there are.
//!
//! It lives in the lake itself, as a small log of commits (`log.rs`), so that it needs no database and goes where the lake
//! goes. What always holds:
//!
//! - A commit is one file, written only if nobody else wrote it first: all of its actions are seen, or none.
//! - What is decided upon is the version directly before the one that is written, as with tables.
//! - Nothing has to be registered: a folder with a Delta log that no entry claims is the table of that name.
//!
//! `state.rs` has what a catalog holds, `action.rs` what may happen to it, `names.rs` what a name means and how names move,
//! `environments.rs` the sets of tables beside `prod`, `copy.rs` how a table is copied for one of them.

mod action;
mod copy;
mod environments;
mod log;
mod names;
mod state;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use flumen_core::boxed;
use flumen_core::clock::{Clock, Ids};
use flumen_core::dataset::TableName;
use flumen_core::limits::COMMIT_TRIES;
use flumen_core::load::LoadId;
use flumen_core::{Error, Result};
use futures::future::BoxFuture;
use uuid::Uuid;

pub use action::Action;
pub use copy::Copied;
pub use environments::{Change, Difference, Published};
pub use log::Commit;
pub use names::Writable;
pub(crate) use names::not_writable;
pub use state::*;

use crate::lake::{Lake, QUARANTINE, Table, location_of};
use log::Log;
use names::Meaning;
pub(crate) use names::Place;

/// Says what is to happen to a state of the catalog.
type Decide<'a> = Box<dyn FnMut(&State) -> Result<Vec<Action>> + Send + 'a>;

/// The catalog of one lake. Cheap to clone; clones share what they have read.
#[derive(Clone)]
pub struct Catalog {
    inner: Arc<Inner>,
}

struct Inner {
    lake: Lake,
    log: Log,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn Ids>,
    latest: Mutex<Option<Arc<State>>>,
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Catalog({})", self.inner.lake.url())
    }
}

/// What a name means.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "there is one at a time, and mostly it is a table")]
pub enum Located {
    /// A Delta table of the lake. It may not be there yet: its snapshot tells.
    Table {
        /// Its place.
        table: Table,
        /// The version that is to be read, if not the latest.
        version: Option<u64>,
        /// What the catalog says of it, if anything.
        entry: Option<TableEntry>,
    },
    /// A query.
    View(ViewEntry),
    /// Files, or a table, that somebody else keeps.
    External(ExternalEntry),
}

/// A name that is in use, and what kind of thing it means.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// The name.
    pub name: TableName,
    /// The kind.
    pub kind: Kind,
}

impl Catalog {
    /// The catalog of `lake`. Nothing is read yet.
    pub fn new(lake: Lake, clock: Arc<dyn Clock>, ids: Arc<dyn Ids>) -> Self {
        let log = Log::new(lake.clone());
        Self { inner: Arc::new(Inner { lake, log, clock, ids, latest: Mutex::default() }) }
    }

    /// The lake.
    pub fn lake(&self) -> &Lake {
        &self.inner.lake
    }

    /// Where the present comes from.
    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.inner.clock
    }

    /// Where ids come from.
    pub(crate) fn ids(&self) -> &Arc<dyn Ids> {
        &self.inner.ids
    }

    /// The latest state. One small request where nothing has changed since it was last read.
    ///
    /// Errors: `Data` if the log is broken; `Invalid` if a newer Flumen wrote it; those of the store.
    #[boxed]
    pub async fn read(&self) -> Result<Arc<State>> {
        let known = self.inner.latest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let state = self.inner.log.latest(known).await?;
        self.remember(&state);
        Ok(state)
    }

    /// The state at `version`.
    ///
    /// Errors: `NotFound` if there is none, and as [`Catalog::read`].
    #[boxed]
    pub async fn read_at(&self, version: u64) -> Result<Arc<State>> {
        self.inner.log.at(version).await
    }

    /// The commits, the latest first, no more than `limit`.
    #[boxed]
    pub async fn history(&self, limit: usize) -> Result<Vec<Commit>> {
        let latest = self.read().await?.version;
        let mut commits = Vec::new();
        for version in (1..=latest).rev().take(limit) {
            match self.inner.log.commit(version).await? {
                Some(commit) => commits.push(commit),
                // Older ones were cleaned up.
                None => break,
            }
        }
        Ok(commits)
    }

    /// The commit that made `version`, if it is there.
    pub(crate) async fn commit(&self, version: u64) -> Result<Option<Commit>> {
        self.inner.log.commit(version).await
    }

    fn remember(&self, state: &Arc<State>) {
        let mut latest = self.inner.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if latest.as_ref().is_none_or(|known| known.version < state.version) {
            *latest = Some(Arc::clone(state));
        }
    }

    /// Commits what `decide` says is to happen to the latest state, for `reason` (for people); gives the state after it.
    /// `decide` is asked again if another writer was faster. Where it says nothing, nothing is written.
    ///
    /// Errors: those of `decide`; `Conflict` if others were faster [`COMMIT_TRIES`] times; those of the store.
    pub fn change<'a>(
        &'a self,
        reason: &'a str,
        decide: impl FnMut(&State) -> Result<Vec<Action>> + Send + 'a,
    ) -> BoxFuture<'a, Result<Arc<State>>> {
        self.change_as(reason, Box::new(decide))
    }

    #[boxed]
    async fn change_as<'a>(&'a self, reason: &'a str, mut decide: Decide<'a>) -> Result<Arc<State>> {
        let id = self.inner.ids.next();
        for _ in 0..COMMIT_TRIES {
            let state = self.read().await?;
            let actions = decide(&state)?;
            if actions.is_empty() {
                return Ok(state);
            }
            let next = Arc::new(state.apply(&actions)?);
            let commit = Commit::after(&state, id, self.inner.clock.now(), reason, actions);
            if self.inner.log.write(&commit).await? {
                self.inner.log.summarize(&next).await;
                self.remember(&next);
                return Ok(next);
            }
            tokio::task::yield_now().await;
        }
        Err(Error::conflict(format!(
            "{}: other writers of the catalog were faster {COMMIT_TRIES} times",
            self.lake().url()
        ))
        .hint("run the same command again"))
    }

    /// What `name` means in `environment`, or `None` if it means nothing. No request is made: a table that the catalog does
    /// not know may turn out not to be there.
    ///
    /// Errors: `NotFound` if there is no such environment.
    pub fn locate(&self, state: &State, environment: &str, name: &TableName) -> Result<Option<Located>> {
        let lake = self.lake();
        let table = |entry: &TableEntry| -> Result<Located> {
            let table = lake.table_at(&entry.location, name)?;
            Ok(Located::Table { table, version: entry.pinned, entry: Some(entry.clone()) })
        };
        match state.meaning(environment, name)? {
            Meaning::Table(entry) => table(entry).map(Some),
            Meaning::View(view) => Ok(Some(Located::View(view.clone()))),
            Meaning::External(external) => Ok(Some(Located::External(external.clone()))),
            Meaning::Beside(location) => {
                let table = lake.table_at(&location, name)?;
                Ok(Some(Located::Table { table, version: None, entry: None }))
            }
            Meaning::Folder => Ok(Some(Located::Table { table: lake.table(name)?, version: None, entry: None })),
            Meaning::Nothing => Ok(None),
        }
    }

    /// The names that are in use in `environment`, sorted: those of the catalog, and in `prod` the folders with a Delta log
    /// that nothing in the catalog claims.
    ///
    /// Errors: `NotFound` if there is no such environment.
    #[boxed]
    pub async fn list(&self, state: &State, environment: &str) -> Result<Vec<Listed>> {
        let mut listed: BTreeSet<Listed> = state.known(environment)?;
        if environment == PROD {
            let taken = state.places();
            for namespace in self.lake().namespaces().await? {
                let location = |folder: &str| format!("{namespace}/{folder}");
                let skip = |folder: &str| is_made(folder) || taken.contains_key(location(folder).as_str());
                for folder in self.lake().tables_in(&namespace, skip).await? {
                    let beside = folder.table.strip_suffix(QUARANTINE).map(location);
                    let name = match beside.and_then(|of| taken.get(of.as_str())) {
                        None => folder,
                        Some(Place::Table(owner)) => owner.quarantine(),
                        Some(_) => continue,
                    };
                    // An entry with the name of the folder, but elsewhere, comes first.
                    if !listed.iter().any(|known| known.name == name) {
                        listed.insert(Listed { name, kind: Kind::Table });
                    }
                }
            }
        }
        Ok(listed.into_iter().collect())
    }

    /// The namespaces, sorted: those of the catalog, and the folders that tables are in.
    #[boxed]
    pub async fn namespaces(&self, state: &State) -> Result<Vec<String>> {
        let mut names: BTreeSet<String> = self.lake().namespaces().await?.into_iter().collect();
        names.extend(state.namespaces.keys().cloned());
        names.extend(state.entries.keys().map(|name| name.namespace.clone()));
        Ok(names.into_iter().collect())
    }

    /// The folder for a new table called `name`: `<namespace>/<table>`, unless that is claimed by another (one that was
    /// renamed, dropped or copied). A table in any other folder needs an entry.
    pub fn create_place(&self, state: &State, name: &TableName) -> String {
        let natural = location_of(name);
        if is_made(&name.table) || state.places().contains_key(natural.as_str()) {
            self.made_place(name)
        } else {
            natural
        }
    }

    /// That what is written to `table` would be seen: it was not dropped, or published over, since a writer began.
    ///
    /// Errors: `Conflict` if it was.
    pub(crate) async fn check_live(&self, table: &Table) -> Result<()> {
        let state = self.read().await?;
        match state.places().get(table.location()) {
            Some(Place::Dropped) => Err(Error::conflict(format!(
                "{}: the table was dropped, or another was published in its place, while this was written",
                table.address()
            ))
            .hint("run the same command again: it writes to what has that name now")),
            _ => Ok(()),
        }
    }

    /// A folder for `name` that nobody else has, or will have.
    pub(crate) fn made_place(&self, name: &TableName) -> String {
        let id: Uuid = self.inner.ids.next();
        let digits = LoadId::derive(["place", &id.to_string()]);
        format!("{}__{}", location_of(name), digits.short())
    }

    /// An entry for a table in the folder `location`.
    pub fn new_entry(&self, location: impl Into<String>) -> TableEntry {
        TableEntry::new(self.inner.ids.next(), location, self.inner.clock.now())
    }
}

/// Whether the name of a folder was made by [`Catalog::made_place`]. Such a folder is a table only if the catalog says so:
/// it may be half a copy.
pub(crate) fn is_made(folder: &str) -> bool {
    folder.rsplit_once("__").is_some_and(|(_, digits)| {
        digits.len() == 12 && digits.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    })
}
