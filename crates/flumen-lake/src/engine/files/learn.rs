//! What a session finds out about files while it reads them: types that hold for every value, and what was odd.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::datatypes::DataType;
use flumen_core::Result;
use flumen_core::read::{Input, Splits};
use flumen_core::text::join;

use super::{FileTable, widen};

/// The cause of an error: the types of this table of text, which samples suggested, do not hold for all of its values.
#[derive(Debug, Clone)]
pub(in super::super) struct TooNarrow(pub Arc<FileTable>);

impl fmt::Display for TooNarrow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the types of the columns of {} are guesses from samples", self.0.key)
    }
}

impl std::error::Error for TooNarrow {}

/// The types of columns of text files, by what tells the files from others and the column. Types only grow.
#[derive(Default)]
pub(in super::super) struct Learnt(Mutex<HashMap<String, HashMap<String, DataType>>>);

impl Learnt {
    /// `table` with the types that are known to hold.
    pub fn applied_to(&self, table: FileTable) -> FileTable {
        let known = lock(&self.0);
        let Some(known) = known.get(&table.key) else { return table };
        let wider = |field: &Arc<arrow::datatypes::Field>| match known.get(field.name()) {
            Some(learnt) => join(learnt, field.data_type()),
            None => field.data_type().clone(),
        };
        let types: Vec<DataType> = table.schema.fields().iter().map(wider).collect();
        table.with_types(&types)
    }

    /// Reads all values of `table` and keeps the types that hold them. False: there is nothing to learn. Blocking.
    pub fn learn(&self, table: &FileTable) -> Result<bool> {
        let fields = table.schema.fields();
        let columns: Vec<usize> = (0..fields.len()).filter(|at| *fields[*at].data_type() != DataType::Utf8).collect();
        let before: Vec<DataType> = columns.iter().map(|at| fields[*at].data_type().clone()).collect();
        let types = Mutex::new(before.clone());
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        for index in (0..table.inputs.len()).filter(|index| table.inputs[*index].is_text()) {
            let reading = table.reading(index, &columns);
            let splits = table.inputs[index].read(&reading.request)?;
            let read_some = || -> Result<()> {
                while let Some(mut split) = splits.next()? {
                    while let Some(mut raw) = split.next_batch()? {
                        // Rows of a wrong shape are for the query to find.
                        raw.bad.clear();
                        if !raw.misfits.is_empty() {
                            widen(&reading, &raw, &mut lock(&types))?;
                        }
                    }
                }
                Ok(())
            };
            std::thread::scope(|scope| {
                let workers: Vec<_> = (1..threads).map(|_| scope.spawn(read_some)).collect();
                let mut ended = read_some();
                for worker in workers {
                    ended = ended.and(worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
                }
                ended
            })?;
        }
        let types = types.into_inner().unwrap_or_else(PoisonError::into_inner);
        if types == before {
            return Ok(false);
        }
        let mut known = lock(&self.0);
        let known = known.entry(table.key.clone()).or_default();
        known.extend(columns.iter().zip(types).map(|(at, data_type)| (fields[*at].name().clone(), data_type)));
        Ok(true)
    }
}

/// What was odd in the files of queries.
#[derive(Default)]
pub(in super::super) struct Notes(Mutex<Noted>);

#[derive(Default)]
struct Noted {
    warnings: Vec<String>,
    /// They know all of it when they have been read.
    readings: Vec<Arc<dyn Splits>>,
}

impl Notes {
    /// Keeps what was odd on opening `inputs`.
    pub fn opened(&self, inputs: &[Arc<dyn Input>]) {
        lock(&self.0).warnings.extend(inputs.iter().flat_map(|input| input.warnings()));
    }

    /// Keeps a reading, to be asked in the end.
    pub fn reading(&self, splits: &Arc<dyn Splits>) {
        lock(&self.0).readings.push(Arc::clone(splits));
    }

    /// Keeps a sentence.
    pub fn say(&self, sentence: impl Into<String>) {
        lock(&self.0).warnings.push(sentence.into());
    }

    /// Forgets what was noted.
    pub fn clear(&self) {
        *lock(&self.0) = Noted::default();
    }

    /// All that was noted, each sentence once, and forgets it.
    pub fn take(&self) -> Vec<String> {
        let noted = std::mem::take(&mut *lock(&self.0));
        let mut warnings = Vec::new();
        let late = noted.readings.iter().flat_map(|splits| splits.warnings());
        for warning in noted.warnings.into_iter().chain(late) {
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
        warnings
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
