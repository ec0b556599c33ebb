//! Rewrites the files of a table of which an operation touches rows, and leaves the others alone.
//!
//! Rows stream: what is in memory is one batch, a row group in the making, and what the operation remembers of the load.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use flumen_core::write::BatchWriter;
use flumen_core::{Error, Result};
use object_store::path::Path;
use tokio::runtime::Handle;

use super::read::{FileRows, StoredFile};
use crate::lake::{DataFile, Snapshot, Table, delete_files, file_path};
use crate::sink::{LoadFiles, NewFile, RewriteTarget};

/// What becomes of the rows of a table. Everything blocks.
pub(crate) trait Operation: Send + Sync {
    /// Looks at rows of the load, which have the columns of the table.
    fn learn(&mut self, batch: &RecordBatch) -> Result<()>;

    /// Whether rows of the file at `path` may be touched at all.
    fn concerns(&self, path: &str) -> bool {
        let _ = path;
        true
    }

    /// The columns that [`Operation::touched`] needs.
    fn probe_columns(&self) -> Vec<String>;

    /// Forgets what it learned from rows of the table: they are looked at again.
    fn restart(&mut self) {}

    /// How many of these rows of the table are not to stay as they are. `batch` has the probe columns.
    fn touched(&mut self, batch: &RecordBatch) -> Result<usize>;

    /// Whether a touched row goes (rather than changes).
    fn removes_touched(&self) -> bool;

    /// The rows of the table that remain of `batch`, in their new form. `batch` has all columns of the table.
    fn rewrite(&self, batch: &RecordBatch) -> Result<RecordBatch>;

    /// Whether some rows of the load itself may have to go, or to change.
    fn rewrites_source(&self) -> bool {
        false
    }

    /// The rows of the load that remain of `batch`.
    fn rewrite_source(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        Ok(batch.clone())
    }
}

/// What an operation comes to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcome {
    /// The files that go.
    pub(crate) removed: Vec<String>,
    /// The files that come, those of the load included.
    pub(crate) added: Vec<NewFile>,
}

/// An operation on its way to a commit: done again if the table's files have changed since the last try.
pub(crate) struct Rewriting {
    operation: Option<Box<dyn Operation>>,
    learned: bool,
    last: Option<(BTreeSet<String>, Outcome)>,
    /// Files of earlier tries, and files of the load whose rows were written anew.
    pub(crate) superseded: Vec<Path>,
}

impl Rewriting {
    pub(crate) fn new(operation: Box<dyn Operation>) -> Self {
        Self { operation: Some(operation), learned: false, last: None, superseded: Vec::new() }
    }

    /// Gives the paths of all that was written, for the case that nothing comes of it.
    pub(crate) fn discard(self) -> Vec<Path> {
        let made = self.last.map(|(_, outcome)| outcome.added).unwrap_or_default();
        made.into_iter().map(|file| file_path(&file.path)).collect()
    }

    /// What the operation comes to on `snapshot`, for the rows of the load in `source`.
    pub(crate) async fn outcome(
        &mut self,
        snapshot: Option<&Snapshot>,
        table: &Table,
        target: &RewriteTarget,
        source: &[NewFile],
    ) -> Result<Outcome> {
        let files = snapshot.map(Snapshot::files).transpose()?.unwrap_or_default();
        let paths: BTreeSet<String> = files.iter().map(|file| file.path.clone()).collect();
        if let Some((seen, outcome)) = &self.last
            && *seen == paths
        {
            return Ok(outcome.clone());
        }
        if let Some((_, outcome)) = self.last.take() {
            let made = outcome.added.iter().filter(|file| !source.iter().any(|of| of.path == file.path));
            delete_files(table, made.map(|file| file_path(&file.path)).collect()).await?;
        }
        let Some(operation) = self.operation.take() else {
            return Err(Error::internal("an operation was lost when it failed"));
        };
        let mut run = Run {
            table: table.clone(),
            schema: target.schema(snapshot),
            files,
            source: source.to_vec(),
            target: target.files(snapshot)?,
            operation,
            learned: self.learned,
            runtime: Handle::current(),
        };
        let (run, outcome) = tokio::task::spawn_blocking(move || {
            let outcome = run.run();
            (run, outcome)
        })
        .await
        .map_err(|error| Error::internal(format!("the rows of the table were not rewritten: {error}")))?;
        self.operation = Some(run.operation);
        self.learned = true;
        if outcome.is_err() {
            delete_files(table, run.target.discard()).await?;
        }
        let outcome = outcome.map_err(|error| place(error, &table.address()))?;
        self.superseded = source
            .iter()
            .filter(|file| !outcome.added.iter().any(|added| added.path == file.path))
            .map(|file| file_path(&file.path))
            .collect();
        self.last = Some((paths, outcome.clone()));
        Ok(outcome)
    }
}

/// One run of an operation over a table.
struct Run {
    table: Table,
    schema: SchemaRef,
    files: Vec<DataFile>,
    source: Vec<NewFile>,
    target: Arc<LoadFiles>,
    operation: Box<dyn Operation>,
    learned: bool,
    runtime: Handle,
}

impl Run {
    fn run(&mut self) -> Result<Outcome> {
        if !self.learned {
            for file in self.source.clone() {
                for batch in self.rows(&StoredFile::from(&file), Arc::clone(&self.schema))? {
                    self.operation.learn(&batch?)?;
                }
            }
        }
        self.operation.restart();
        let mut outcome = Outcome::default();
        let mut rewritten = Vec::new();
        for file in self.files.clone() {
            if !self.operation.concerns(&file.path) {
                continue;
            }
            let stored = StoredFile::from(&file);
            let (rows, touched) = self.probe(&stored)?;
            if touched == 0 {
                continue;
            }
            outcome.removed.push(file.path);
            if touched < rows || !self.operation.removes_touched() {
                rewritten.push(stored);
            }
        }
        let mut writer = Box::new(self.target.writer());
        for file in rewritten {
            for batch in self.rows(&file, Arc::clone(&self.schema))? {
                writer.write(&self.operation.rewrite(&batch?)?)?;
            }
        }
        if self.operation.rewrites_source() {
            for file in self.source.clone() {
                for batch in self.rows(&StoredFile::from(&file), Arc::clone(&self.schema))? {
                    writer.write(&self.operation.rewrite_source(&batch?)?)?;
                }
            }
        } else {
            outcome.added.clone_from(&self.source);
        }
        writer.finish()?;
        outcome.added.extend(self.target.finish()?);
        Ok(outcome)
    }

    /// How many rows `file` has, and how many of them are touched.
    fn probe(&mut self, file: &StoredFile) -> Result<(usize, usize)> {
        let columns = self.operation.probe_columns();
        let fields = self.schema.fields().iter().filter(|field| columns.contains(field.name())).cloned();
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let (mut rows, mut touched) = (0, 0);
        for batch in self.rows(file, schema)? {
            let batch = batch?;
            rows += batch.num_rows();
            touched += self.operation.touched(&batch)?;
        }
        Ok((rows, touched))
    }

    fn rows(&self, file: &StoredFile, schema: SchemaRef) -> Result<FileRows> {
        FileRows::open(&self.table, file, schema, &self.runtime)
    }
}

/// Puts the table before a message that does not name it.
fn place(error: Error, table: &str) -> Error {
    if error.message().starts_with(table) { error } else { error.within(table) }
}
