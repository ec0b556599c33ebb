//! The last outputs of each task: a file each in the lake's root, whose name is never used again. So two attempts that end at
//! the same time keep both, and nobody reads half of one.

use chrono::{DateTime, Utc};
use flumen_core::flow::RunId;
use flumen_core::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Inputs;
use super::parts::{Parts, hash};
use crate::attempt::Attempt;
use crate::kept::{Kept, cache_folder};
use crate::outputs::MOST_BYTES;

/// How many outputs of a task, or of one of its items, are kept.
const ENTRIES: usize = 5;
/// How the names of entries end.
const ENTRY: &str = ".entry.json";
/// How the names of their outputs end.
const OUTPUT: &str = ".output.json";

/// An output that may be used again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Entry {
    /// The run that it is of.
    pub run: RunId,
    /// Since when there is it.
    pub at: DateTime<Utc>,
    /// What it depends on.
    pub parts: Parts,
    /// How what the task reads was.
    pub inputs: Inputs,
    /// Where it is.
    pub output: Option<String>,
}

/// The place of a task's outputs.
pub(super) struct Shelf<'a> {
    kept: &'a Kept,
    folder: String,
    /// The number of the attempt's lease, which no other has.
    number: u64,
}

impl<'a> Shelf<'a> {
    /// That of the task of an attempt; each item of a list has its own, wherever in the list it is.
    pub fn of(attempt: &'a Attempt<'_>) -> Self {
        let item = attempt.work.queued.item.as_ref().map(|item| hash(item.to_string().as_bytes()));
        let folder = cache_folder(&attempt.work.run.flow, &attempt.task.id, item.as_deref());
        Self { kept: &attempt.host.kept, folder, number: attempt.work.lease.number }
    }

    /// The entries, the newest first. One that cannot be read is left out: it may have been removed meanwhile.
    ///
    /// Errors: those of the lake's root.
    pub async fn entries(&self) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for name in self.names().await?.iter().rev().take(ENTRIES) {
            let text = self.kept.get(&format!("{}/{name}{ENTRY}", self.folder)).await?;
            entries.extend(text.and_then(|text| serde_json::from_slice::<Entry>(&text).ok()));
        }
        Ok(entries)
    }

    /// The names of entries, without their ends, the oldest first.
    async fn names(&self) -> Result<Vec<String>> {
        let below = format!("{}/", self.folder);
        let names = self.kept.list(&self.folder).await?;
        let name = |path: &String| Some(path.strip_prefix(&below)?.strip_suffix(ENTRY)?.to_owned());
        Ok(names.iter().filter_map(name).collect())
    }

    /// The output of an entry.
    ///
    /// Errors: `NotFound` where it was removed meanwhile; those of the lake's root.
    pub async fn output(&self, entry: &Entry) -> Result<Value> {
        let gone = || Error::not_found(format!("the output of run {} is not kept any more", entry.run));
        let path = entry.output.as_ref().ok_or_else(gone)?;
        let text = self.kept.get(path).await?.ok_or_else(gone)?;
        serde_json::from_slice(&text)
            .map_err(|error| Error::data(format!("the output of run {} cannot be read", entry.run)).caused_by(error))
    }

    /// Keeps an output, and lets the oldest go. One that is too large is not kept: it fails the task.
    ///
    /// Errors: those of the lake's root.
    pub async fn keep(&self, mut entry: Entry, output: &Value) -> Result<()> {
        let text = output.to_string();
        if text.len() > MOST_BYTES {
            return Ok(());
        }
        let name = format!("{:016}-{}", entry.at.timestamp_micros().max(0), self.number);
        let path = format!("{}/{name}{OUTPUT}", self.folder);
        self.kept.put(&path, text.into()).await?;
        entry.output = Some(path);
        let body = serde_json::to_vec(&entry)
            .map_err(|error| Error::internal("an entry of a cache cannot be written as JSON").caused_by(error))?;
        self.kept.put(&format!("{}/{name}{ENTRY}", self.folder), body.into()).await?;
        let names = self.names().await?;
        for old in names.iter().take(names.len().saturating_sub(ENTRIES)) {
            for end in [ENTRY, OUTPUT] {
                self.kept.remove(&format!("{}/{old}{end}", self.folder)).await?;
            }
        }
        Ok(())
    }
}
