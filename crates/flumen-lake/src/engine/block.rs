//! Blocks of statements between BEGIN and COMMIT.
//!
//! A block reads every table as it was when the block began, and its own writes. It writes to one table: what it does there
//! waits in a [`Draft`] and is committed as one, or not at all. A second table is refused, since a lake has no commit over
//! two of them. After an error nothing but ROLLBACK is taken, as in Postgres; ROLLBACK TO a savepoint makes the block what it
//! was then.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use flumen_core::{Error, ErrorKind, Result};

use super::Engine;
use super::lake_table::Contents;
use super::time_travel::version_at;
use super::write::{Draft, Mark, Refusal, Staged, Write, Writers, new_draft};
use crate::catalog::{Action, Catalog, State};
use crate::lake::{Snapshot, Table};

/// A block that has begun.
pub(super) struct Block {
    began: DateTime<Utc>,
    pinned: HashMap<String, Option<Snapshot>>,
    draft: Option<Draft>,
    catalog: Option<Pinned>,
    failed: bool,
    savepoints: Vec<Savepoint>,
}

/// A block as it was at one moment, to which it can be rolled back.
struct Savepoint {
    name: String,
    draft: Option<Mark>,
    catalog: Option<Pinned>,
}

/// The catalog as a block sees it.
#[derive(Clone)]
struct Pinned {
    /// As it was when the block first looked.
    version: u64,
    /// With what the block has changed.
    state: Arc<State>,
    actions: Vec<Action>,
}

impl Block {
    /// A block that begins now.
    pub fn new(began: DateTime<Utc>) -> Self {
        let (pinned, savepoints) = (HashMap::new(), Vec::new());
        Self { began, pinned, draft: None, catalog: None, failed: false, savepoints }
    }

    /// Notes that a statement of the block failed.
    pub fn fail(&mut self) {
        self.failed = true;
    }

    /// Whether a statement of the block failed.
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// The catalog, with what the block has changed.
    pub async fn state(&mut self, catalog: &Catalog) -> Result<Arc<State>> {
        if let Some(pinned) = &self.catalog {
            return Ok(Arc::clone(&pinned.state));
        }
        let state = catalog.read().await?;
        self.catalog = Some(Pinned { version: state.version, state: Arc::clone(&state), actions: Vec::new() });
        Ok(state)
    }

    /// Changes the catalog, for the block alone until it is committed.
    ///
    /// Errors: `Invalid` if the block writes to a table that was there before; those of the actions.
    pub async fn change(&mut self, catalog: &Catalog, actions: Vec<Action>) -> Result<()> {
        if actions.is_empty() {
            return Ok(());
        }
        if let Some(draft) = self.draft.as_ref().filter(|draft| !draft.is_new()) {
            return Err(mixed(draft));
        }
        self.state(catalog).await?;
        let Some(pinned) = &mut self.catalog else { return Err(Error::internal("a block lost its catalog")) };
        pinned.state = Arc::new(pinned.state.apply(&actions)?);
        pinned.actions.extend(actions);
        Ok(())
    }

    /// What the block sees of `table`; none if there is no such table.
    pub async fn contents(&mut self, table: &Table) -> Result<Option<Contents>> {
        if let Some(draft) = self.draft.as_ref().filter(|draft| draft.table().url() == table.url()) {
            return if draft.exists() { draft.contents().map(Some) } else { Ok(None) };
        }
        let snapshot = self.snapshot(table).await?;
        snapshot.as_ref().map(Contents::of).transpose()
    }

    /// `table` as it was when the block began.
    async fn snapshot(&mut self, table: &Table) -> Result<Option<Snapshot>> {
        if let Some(known) = self.pinned.get(table.location()) {
            return Ok(known.clone());
        }
        let mut snapshot = table.snapshot().await?;
        if let Some(latest) = &snapshot {
            snapshot = match version_at(table, latest.version(), self.began).await? {
                Some(version) if version == latest.version() => snapshot,
                Some(version) => table.snapshot_at(Some(version)).await?,
                None => None,
            };
        }
        self.pinned.insert(table.location().to_owned(), snapshot.clone());
        Ok(snapshot)
    }

    /// The draft of `table`, begun if there is none yet.
    ///
    /// Errors: `Invalid` if the block writes to another table already.
    pub async fn draft(&mut self, table: &Table, writers: &Writers) -> Result<Draft> {
        match self.draft.take() {
            Some(draft) if draft.table().url() == table.url() => Ok(draft),
            Some(draft) => {
                let first = draft.table().address();
                self.draft = Some(draft);
                Err(Error::invalid(format!("this block writes to {first}; it cannot write to {} too", table.address()))
                    .hint("commit first: a block writes to one table of the lake"))
            }
            None => {
                let snapshot = self.snapshot(table).await?;
                let draft = new_draft(writers, table, snapshot)?;
                let changed = self.catalog.as_ref().is_some_and(|pinned| !pinned.actions.is_empty());
                if changed && !draft.is_new() { Err(mixed(&draft)) } else { Ok(draft) }
            }
        }
    }

    /// Where the savepoint called `name` is: the latest of that name.
    ///
    /// Errors: `NotFound` if there is none.
    fn savepoint(&self, name: &str) -> Result<usize> {
        let place = self.savepoints.iter().rposition(|savepoint| savepoint.name == name);
        place.ok_or_else(|| {
            let known = self.savepoints.iter().map(|savepoint| savepoint.name.as_str());
            Error::not_found(format!("savepoint '{name}' does not exist")).did_you_mean(name, known)
        })
    }

    /// Makes the block again what it was at the savepoint called `name`, which stays.
    ///
    /// Errors: `NotFound` if there is none.
    async fn return_to(&mut self, name: &str) -> Result<()> {
        let place = self.savepoint(name)?;
        self.savepoints.truncate(place + 1);
        let Savepoint { draft: mark, catalog, .. } = &self.savepoints[place];
        self.catalog = catalog.clone();
        if mark.is_some() && self.draft.is_none() {
            return Err(Error::invalid("a statement was broken off while it wrote, and took what was before it along")
                .hint("roll the whole block back"));
        }
        self.failed = false;
        match (self.draft.take(), mark.clone()) {
            (Some(mut draft), Some(mark)) => {
                let returned = draft.return_to(mark).await;
                self.draft = Some(draft);
                returned
            }
            (Some(draft), None) => draft.discard().await,
            (None, _) => Ok(()),
        }
    }

    /// Keeps what a statement made of `draft`.
    pub fn keep(&mut self, draft: Draft) {
        self.draft = Some(draft);
    }
}

impl Engine {
    /// Begins a block. A second BEGIN within one changes nothing, as in Postgres.
    pub(super) async fn begin(&self) {
        let mut block = self.tables.block.lock().await;
        if block.is_none() {
            *block = Some(Block::new(self.writers.clock.now()));
        }
    }

    /// Commits the block; gives whether it was committed: one in which a statement failed is rolled back.
    ///
    /// Errors: `Conflict` if the table has changed since the block began.
    pub(super) async fn commit(&self) -> Result<bool> {
        let Some(block) = self.tables.block.lock().await.take() else { return Ok(true) };
        if block.failed {
            if let Some(draft) = block.draft {
                draft.discard().await?;
            }
            return Ok(false);
        }
        let Some(mut draft) = block.draft else {
            if let Some(pinned) = block.catalog {
                self.commit_catalog(pinned).await?;
            }
            return Ok(true);
        };
        match draft.commit(&self.writers).await {
            // A new table is seen once the catalog names it: it may come first.
            Ok(_) => match block.catalog {
                Some(pinned) => self.commit_catalog(pinned).await.map(|()| true),
                None => Ok(true),
            },
            Err(refusal) => {
                let table = draft.table().address();
                let _ = draft.discard().await;
                Err(match refusal {
                    Refusal::Failed(error) => error,
                    Refusal::Stale => Error::conflict(format!(
                        "{table}: somebody else has changed the table since this block began; nothing of the block is committed"
                    ))
                    .hint("run the block again"),
                })
            }
        }
    }

    async fn commit_catalog(&self, pinned: Pinned) -> Result<()> {
        let (Some(catalog), false) = (&self.tables.catalog, pinned.actions.is_empty()) else { return Ok(()) };
        let decide = |state: &State| {
            // What the block decided upon what it saw; if others changed other things, that still holds.
            state.apply(&pinned.actions).map(|_| pinned.actions.clone())
        };
        let committed = catalog.change("a block of statements", decide).await;
        committed.map(drop).map_err(|error| {
            let changed = catalog_changed(&error, pinned.version);
            changed.unwrap_or(error)
        })
    }

    /// Rolls the block back: nothing of it was ever visible.
    pub(super) async fn rollback(&self) -> Result<()> {
        match self.tables.block.lock().await.take().and_then(|block| block.draft) {
            Some(draft) => draft.discard().await,
            None => Ok(()),
        }
    }

    /// Remembers the block as it is now, under `name`.
    ///
    /// Errors: `Invalid` if there is no block.
    pub(super) async fn set_savepoint(&self, name: &str) -> Result<()> {
        let mut guard = self.tables.block.lock().await;
        let block = guard.as_mut().ok_or_else(|| no_block("SAVEPOINT"))?;
        let draft = block.draft.as_ref().map(Draft::mark);
        block.savepoints.push(Savepoint { name: name.to_owned(), draft, catalog: block.catalog.clone() });
        Ok(())
    }

    /// Forgets the savepoint called `name`, and those after it.
    ///
    /// Errors: `Invalid` if there is no block; `NotFound` if there is no such savepoint.
    pub(super) async fn release_savepoint(&self, name: &str) -> Result<()> {
        let mut guard = self.tables.block.lock().await;
        let block = guard.as_mut().ok_or_else(|| no_block("RELEASE SAVEPOINT"))?;
        let place = block.savepoint(name)?;
        block.savepoints.truncate(place);
        Ok(())
    }

    /// Takes back what the block did since the savepoint called `name`.
    ///
    /// Errors: as for [`Engine::release_savepoint`].
    pub(super) async fn rollback_to_savepoint(&self, name: &str) -> Result<()> {
        let mut guard = self.tables.block.lock().await;
        guard.as_mut().ok_or_else(|| no_block("ROLLBACK TO SAVEPOINT"))?.return_to(name).await
    }

    /// Stages `write` in the block that has begun; none if there is no block.
    pub(super) async fn stage_in_block(&self, sql: &str, write: &Write<'_>, table: &Table) -> Result<Option<Staged>> {
        let mut guard = self.tables.block.lock().await;
        let Some(block) = guard.as_mut() else { return Ok(None) };
        let mut draft = block.draft(table, &self.writers).await?;
        // If this is broken off, the draft is gone, and the block cannot be committed.
        block.failed = true;
        // The statement reads tables, and those are seen as the block sees them.
        drop(guard);
        let staged = write.stage(self, sql, &mut draft).await;
        let mut guard = self.tables.block.lock().await;
        match guard.as_mut() {
            Some(block) => {
                block.failed = staged.is_err();
                block.keep(draft);
            }
            None => draft.discard().await?,
        }
        staged.map(Some)
    }

    /// Whether a block has begun, and whether a statement of it failed: what Postgres tells its clients.
    pub async fn block_state(&self) -> BlockState {
        match self.tables.block.lock().await.as_ref() {
            None => BlockState::None,
            Some(block) if block.failed => BlockState::Failed,
            Some(_) => BlockState::Begun,
        }
    }
}

fn no_block(command: &str) -> Error {
    Error::invalid(format!("{command} can only be used in a block")).hint("begin one with: begin")
}

fn mixed(draft: &Draft) -> Error {
    let table = draft.table().address();
    Error::invalid(format!("this block changes rows of {table}; it cannot change the catalog too"))
        .hint("commit first: the rows of a table and the catalog are not committed as one")
}

fn catalog_changed(error: &Error, seen: u64) -> Option<Error> {
    (error.kind() == ErrorKind::Conflict).then(|| {
        Error::conflict(format!(
            "somebody else has changed the catalog since this block saw version {seen} of it ({error}); nothing of the block is committed"
        ))
        .hint("run the block again")
    })
}

/// Where a session stands between BEGIN and COMMIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockState {
    /// There is no block: every statement is committed by itself.
    None,
    /// A block has begun.
    Begun,
    /// A statement of the block failed: it can only be rolled back.
    Failed,
}
