//! The one way in which a table changes: look at the latest version, decide, try to write the next one; if somebody else
//! wrote it first, look and decide again.
//!
//! What is decided upon is thus always the version directly before the one that is written: no rule of conflict resolution
//! is needed beyond what each [`Change`] says itself. The store's conditional PUT makes one writer win.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use deltalake_core::DeltaTable;
use deltalake_core::checkpoints::create_checkpoint;
use deltalake_core::kernel::Action;
use deltalake_core::kernel::transaction::TransactionError;
use deltalake_core::logstore::CommitOrBytes;
use deltalake_core::table::state::DeltaTableState;
use flumen_core::boxed;
use flumen_core::limits::{COMMIT_TRIES, LAKE_CHECKPOINT_COMMITS};
use flumen_core::{Error, Result};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::lake::{Snapshot, Table};
use crate::ledger::Ledger;

/// What a table is, at the moment of a decision.
pub(crate) struct Current {
    /// The latest version; `None` if there is no table yet.
    pub(crate) snapshot: Option<Snapshot>,
    /// The ledger of that version.
    pub(crate) ledger: Ledger,
}

impl Current {
    /// Reads the log of `table`.
    pub(crate) async fn read(table: &Table) -> Result<Self> {
        let snapshot = table.snapshot().await?;
        let ledger = match &snapshot {
            Some(snapshot) => Ledger::read(table, snapshot.version()).await?,
            None => Ledger::default(),
        };
        Ok(Self { snapshot, ledger })
    }
}

/// A change that is to be committed.
#[async_trait]
pub(crate) trait Change: Send {
    /// The actions of the next version, given the latest. Called again if another writer was faster.
    ///
    /// Errors: `Conflict` if what others committed meanwhile leaves no room for this change.
    async fn actions(&mut self, current: &Current) -> Result<Vec<Value>>;
}

/// What a commit says about itself.
pub(crate) struct Note {
    /// Delta's name of the operation: `WRITE`, `MERGE`, `RESTORE`.
    pub(crate) operation: &'static str,
    /// Its parameters.
    pub(crate) parameters: Value,
    /// Further entries of `commitInfo`.
    pub(crate) entries: Map<String, Value>,
    /// When.
    pub(crate) at: DateTime<Utc>,
    /// An id that no other commit has: by it a commit is recognized whose answer was lost.
    pub(crate) id: Uuid,
}

/// An action of the Delta library as a line of the log.
pub(crate) fn line(action: impl Into<Action>) -> Result<Value> {
    serde_json::to_value(action.into())
        .map_err(|error| Error::internal(format!("an action cannot be written: {error}")))
}

/// Commits `change`; gives the version.
///
/// Errors: those of the change; `Conflict` if others were faster [`COMMIT_TRIES`] times; those of the store. After an
/// `Unavailable` of a store that is not the local disk it is not known whether the version is there, or still comes.
#[boxed]
pub(crate) async fn commit(table: &Table, change: &mut dyn Change, note: &Note) -> Result<u64> {
    for _ in 0..COMMIT_TRIES {
        let current = Current::read(table).await?;
        let actions = change.actions(&current).await?;
        let version = current.snapshot.as_ref().map_or(0, |snapshot| snapshot.version() + 1);
        let bytes = log_entry(note, &actions, current.snapshot.as_ref())?;
        match table.log.write_commit_entry(version, CommitOrBytes::LogBytes(bytes.into()), note.id).await {
            Ok(()) => {
                checkpoint(table, version).await;
                return Ok(version);
            }
            Err(TransactionError::VersionAlreadyExists(_)) if is_ours(table, version, note).await? => {
                return Ok(version);
            }
            Err(TransactionError::VersionAlreadyExists(_)) => tokio::task::yield_now().await,
            // It may have been written all the same, and only the answer was lost.
            Err(_) if is_ours(table, version, note).await.unwrap_or(false) => return Ok(version),
            Err(error) => return Err(table.error(error.into())),
        }
    }
    Err(Error::conflict(format!("{}: other writers were faster {COMMIT_TRIES} times", table.address()))
        .hint("run the same command again when fewer loads write to this table"))
}

fn log_entry(note: &Note, actions: &[Value], read: Option<&Snapshot>) -> Result<Vec<u8>> {
    let mut info = Map::from_iter([
        ("timestamp".to_owned(), json!(note.at.timestamp_millis())),
        ("operation".to_owned(), json!(note.operation)),
        ("operationParameters".to_owned(), note.parameters.clone()),
        ("engineInfo".to_owned(), json!(concat!("flumen/", env!("CARGO_PKG_VERSION")))),
        ("txnId".to_owned(), json!(note.id.to_string())),
        ("isBlindAppend".to_owned(), json!(!actions.iter().any(|action| action.get("remove").is_some()))),
    ]);
    if let Some(read) = read {
        info.insert("readVersion".to_owned(), json!(read.version()));
    }
    info.extend(note.entries.clone());
    let mut bytes = Vec::new();
    for line in std::iter::once(&json!({ "commitInfo": info })).chain(actions) {
        serde_json::to_writer(&mut bytes, line)
            .map_err(|error| Error::internal(format!("an entry of the log cannot be written: {error}")))?;
        bytes.push(b'\n');
    }
    Ok(bytes)
}

/// Whether `version` is our own commit: the store wrote it, but its answer was lost, and the repetition was refused.
async fn is_ours(table: &Table, version: u64, note: &Note) -> Result<bool> {
    let Some(bytes) = table.log.read_commit_entry(version).await.map_err(|error| table.error(error))? else {
        return Ok(false);
    };
    let id = note.id.to_string();
    Ok(bytes.windows(id.len()).any(|window| window == id.as_bytes()))
}

/// Writes a checkpoint now and then, so that the log stays fast to read. It is only a summary: one that fails is none.
async fn checkpoint(table: &Table, version: u64) {
    if version == 0 || !version.is_multiple_of(LAKE_CHECKPOINT_COMMITS) {
        return;
    }
    if let Ok(state) = DeltaTableState::try_new(table.log.as_ref(), Some(version)).await {
        let mut at = DeltaTable::new(table.log.clone());
        at.state = Some(state);
        let _ = create_checkpoint(&at, None).await;
    }
}
