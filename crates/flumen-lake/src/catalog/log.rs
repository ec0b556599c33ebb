//! The catalog's log: one file a commit, written only if it is not there yet, so that one writer of each version wins.
//!
//! | file in `<root>/_flumen/catalog/` | what |
//! | --- | --- |
//! | `00000000000000000007.json` | the seventh commit: its actions, when, why, by what id |
//! | `00000000000000000020.checkpoint.json` | the whole state after the twentieth |
//! | `_latest` | the version of the latest checkpoint: a hint, which may be old or missing |
//!
//! Versions are contiguous: who writes one has read the one before. So a reader who knows a version asks for the next ones
//! until there is none, and needs no listing.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use flumen_core::limits::{CATALOG_CHECKPOINT_COMMITS, CATALOG_READ_AHEAD};
use flumen_core::{Error, Result};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutMode, PutOptions, PutPayload};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::action::Action;
use super::state::State;
use crate::lake::{Lake, store_error};

/// The form of the files. One that is newer than this is refused: what it says cannot be known.
const FORMAT: u32 = 1;
/// Where the log is, within the root of the lake.
pub(crate) const FOLDER: &str = "_flumen/catalog";
/// The hint.
const LATEST: &str = "_latest";

/// One commit of the catalog.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Commit {
    /// The form of the file.
    pub format: u32,
    /// The version that it makes.
    pub version: u64,
    /// An id that no other commit has: by it a commit is recognized whose answer was lost.
    pub id: Uuid,
    /// When.
    pub at: DateTime<Utc>,
    /// Why, for people.
    pub reason: String,
    /// The program that made it.
    pub by: String,
    /// What it changes.
    pub actions: Vec<Action>,
}

impl Commit {
    /// The commit that makes the version after `state`.
    pub(super) fn after(state: &State, id: Uuid, at: DateTime<Utc>, reason: &str, actions: Vec<Action>) -> Self {
        let by = concat!("flumen/", env!("CARGO_PKG_VERSION")).to_owned();
        Self { format: FORMAT, version: state.version + 1, id, at, reason: reason.to_owned(), by, actions }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Checkpoint<S> {
    format: u32,
    state: S,
}

#[derive(Serialize, Deserialize)]
struct Hint {
    version: u64,
}

/// Only what every version of the format has.
#[derive(Deserialize)]
struct Envelope {
    format: u32,
}

/// The log of one lake's catalog.
#[derive(Debug, Clone)]
pub(super) struct Log {
    lake: Lake,
    folder: Path,
}

impl Log {
    pub(super) fn new(lake: Lake) -> Self {
        let folder = FOLDER.split('/').fold(lake.prefix().clone(), |path, part| path.join(part));
        Self { lake, folder }
    }

    /// The latest state. `known` is one that was read before: only what came after it is read.
    pub(super) async fn latest(&self, known: Option<Arc<State>>) -> Result<Arc<State>> {
        let state = match known {
            Some(known) => known,
            None => Arc::new(self.latest_checkpoint().await?.unwrap_or_default()),
        };
        self.forward(state, u64::MAX).await
    }

    /// The state at `version`.
    ///
    /// Errors: `NotFound` if the log has no such version, or no longer.
    pub(super) async fn at(&self, version: u64) -> Result<Arc<State>> {
        let mut from = version - version % CATALOG_CHECKPOINT_COMMITS;
        let start = loop {
            if from == 0 {
                break State::default();
            }
            if let Some(state) = self.checkpoint(from).await? {
                break state;
            }
            from -= CATALOG_CHECKPOINT_COMMITS;
        };
        let state = self.forward(Arc::new(start), version).await?;
        if state.version == version {
            return Ok(state);
        }
        Err(Error::not_found(format!("the catalog has no version {version}"))
            .hint("'flumen lake history' shows those it has"))
    }

    /// Applies the commits after `state`, up to `last`.
    async fn forward(&self, mut state: Arc<State>, last: u64) -> Result<Arc<State>> {
        loop {
            let to = state.version.saturating_add(CATALOG_READ_AHEAD).min(last);
            // Where nothing is new, one question is enough to know it.
            let Some(commit) = (if state.version < to { self.commit(state.version + 1).await? } else { None }) else {
                return Ok(state);
            };
            state = self.applied(&state, &commit)?;
            let mut commits = futures::stream::iter(state.version + 1..=to)
                .map(|version| self.commit(version))
                .buffered(CATALOG_READ_AHEAD as usize);
            while let Some(commit) = commits.try_next().await? {
                let Some(commit) = commit else { return Ok(state) };
                state = self.applied(&state, &commit)?;
            }
        }
    }

    fn applied(&self, state: &State, commit: &Commit) -> Result<Arc<State>> {
        state.apply(&commit.actions).map(Arc::new).map_err(|error| {
            Error::data(format!(
                "{}: version {} of the catalog cannot follow the one before: {error}",
                self.lake.url(),
                commit.version
            ))
        })
    }

    /// The commit that made `version`, if it is there.
    pub(super) async fn commit(&self, version: u64) -> Result<Option<Commit>> {
        let Some(bytes) = self.get(&format!("{version:020}.json")).await? else { return Ok(None) };
        self.parse(&format!("version {version}"), &bytes).map(Some)
    }

    async fn checkpoint(&self, version: u64) -> Result<Option<State>> {
        let Some(bytes) = self.get(&checkpoint_name(version)).await? else { return Ok(None) };
        let read: Checkpoint<State> = self.parse(&format!("the checkpoint of version {version}"), &bytes)?;
        Ok(Some(read.state))
    }

    /// The latest checkpoint that the hint knows, or else the latest that is there.
    async fn latest_checkpoint(&self) -> Result<Option<State>> {
        let hint = self.get(LATEST).await?.and_then(|bytes| serde_json::from_slice::<Hint>(&bytes).ok());
        if let Some(hint) = hint
            && let Some(state) = self.checkpoint(hint.version).await?
        {
            return Ok(Some(state));
        }
        let versions = self.files().await?.into_iter().filter_map(|file| match file {
            FileKind::Checkpoint(version) => Some(version),
            _ => None,
        });
        match versions.max() {
            Some(version) => self.checkpoint(version).await,
            None => Ok(None),
        }
    }

    /// Writes `commit`. False: another commit has that version.
    pub(super) async fn write(&self, commit: &Commit) -> Result<bool> {
        let name = format!("{:020}.json", commit.version);
        let bytes = serde_json::to_vec(commit)
            .map_err(|error| Error::internal(format!("a commit of the catalog cannot be written: {error}")))?;
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let put = self.lake.store().put_opts(&self.folder.clone().join(name), bytes.into(), options).await;
        let error = match put {
            Ok(_) => return Ok(true),
            Err(error) => error,
        };
        // An answer may have been lost on its way: what stands there tells.
        match self.commit(commit.version).await {
            Ok(Some(there)) => Ok(there.id == commit.id),
            _ => Err(self.error(error)),
        }
    }

    /// Writes down the whole state now and then. It is only a summary: one that fails is none.
    pub(super) async fn summarize(&self, state: &State) {
        if !state.version.is_multiple_of(CATALOG_CHECKPOINT_COMMITS) {
            return;
        }
        let Ok(bytes) = serde_json::to_vec(&Checkpoint { format: FORMAT, state }) else { return };
        let place = self.folder.clone().join(checkpoint_name(state.version));
        if self.lake.store().put(&place, bytes.into()).await.is_err() {
            return;
        }
        let Ok(hint) = serde_json::to_vec(&Hint { version: state.version }) else { return };
        let _ = self.lake.store().put(&self.folder.clone().join(LATEST), PutPayload::from(hint)).await;
    }

    /// What lies in the folder.
    async fn files(&self) -> Result<Vec<FileKind>> {
        let listed: Vec<_> =
            self.lake.store().list(Some(&self.folder)).try_collect().await.map_err(|error| self.error(error))?;
        Ok(listed.into_iter().map(|file| kind_of(file.location.filename())).collect())
    }

    async fn get(&self, name: &str) -> Result<Option<bytes::Bytes>> {
        match self.lake.store().get(&self.folder.clone().join(name)).await {
            Ok(found) => found.bytes().await.map(Some).map_err(|error| self.error(error)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.error(error)),
        }
    }

    fn parse<'a, T: Deserialize<'a>>(&self, what: &str, bytes: &'a [u8]) -> Result<T> {
        let broken = |error: serde_json::Error| {
            Error::data(format!("{}: {what} of the catalog cannot be read: {error}", self.lake.url()))
                .hint("'flumen lake check' looks through the whole catalog")
                .caused_by(error)
        };
        let envelope: Envelope = serde_json::from_slice(bytes).map_err(broken)?;
        if envelope.format > FORMAT {
            return Err(newer(format!("{}: {what} of the catalog", self.lake.url())));
        }
        serde_json::from_slice(bytes).map_err(|error| match error.to_string() {
            // What is well formed and unknown has come with a later version.
            text if text.contains("unknown field") || text.contains("unknown variant") => {
                newer(format!("{}: {what} of the catalog", self.lake.url())).caused_by(error)
            }
            _ => broken(error),
        })
    }

    fn error(&self, error: object_store::Error) -> Error {
        store_error(format!("{}{FOLDER}", self.lake.url()), error)
    }
}

fn newer(what: String) -> Error {
    Error::invalid(format!("{what} was written by a newer flumen")).hint("use that one, or a newer one still")
}

fn checkpoint_name(version: u64) -> String {
    format!("{version:020}.checkpoint.json")
}

/// What a file of the log's folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FileKind {
    /// The commit of a version.
    Commit(u64),
    /// The state at a version.
    Checkpoint(u64),
    /// The hint.
    Hint,
    /// Something else: what a writer left that was killed, say.
    Other,
}

fn kind_of(name: Option<&str>) -> FileKind {
    let parts: Vec<&str> = name.unwrap_or_default().split('.').collect();
    let version = parts.first().filter(|digits| digits.len() == 20).and_then(|digits| digits.parse().ok());
    match (version, parts.as_slice()) {
        (Some(version), [_, "json"]) => FileKind::Commit(version),
        (Some(version), [_, "checkpoint", "json"]) => FileKind::Checkpoint(version),
        (_, [LATEST]) => FileKind::Hint,
        _ => FileKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_name() {
        assert_eq!(kind_of(Some("00000000000000000007.json")), FileKind::Commit(7));
        assert_eq!(kind_of(Some("00000000000000000020.checkpoint.json")), FileKind::Checkpoint(20));
        assert_eq!(kind_of(Some("_latest")), FileKind::Hint);
        assert_eq!(kind_of(Some("00000000000000000007.json#1")), FileKind::Other);
    }
}
