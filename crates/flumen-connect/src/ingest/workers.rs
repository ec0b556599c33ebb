//! The threads that read, convert and write.
//!
//! Each takes the next piece of the current input, turns it into rows of the table, and gives them to a writer of its own.
//! What they share is small: the place in the list of inputs, counters, and the quarantine.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use chrono::{DateTime, Utc};
use flumen_core::contract::{Applied, InputPlan, Plan, Verdict};
use flumen_core::error::{Error, ErrorKind, Result};
use flumen_core::limits::BAD_ROWS_SHOWN;
use flumen_core::load::{LoadId, Mode};
use flumen_core::observe::{Event, Observer};
use flumen_core::read::{BadRow, Input, RawBatch, Splits};
use flumen_core::text::join;
use flumen_core::write::{BatchWriter, LoadSession};
use tokio_util::sync::CancellationToken;

use super::lineage::Lineage;
use super::quarantine::{Collector, Refused};
use super::{Around, Ingest};

/// One reading of all inputs.
pub struct Work {
    inputs: Vec<WorkInput>,
    schema: SchemaRef,
    lineage: bool,
    take_over: bool,
    load: LoadId,
    max_bad: u64,
    limit: Option<u64>,
    threads: usize,
    observer: Arc<dyn Observer>,
    cancel: CancellationToken,
    counts: Counts,
    place: Mutex<Place>,
    stop: AtomicBool,
    /// Set once a type was found too narrow: from then on rows are read to learn types, and not written.
    learning: AtomicBool,
    shared: Mutex<Shared>,
}

struct WorkInput {
    input: Arc<dyn Input>,
    address: Arc<str>,
    plan: InputPlan,
    rows: AtomicU64,
    /// Pieces being worked on, and one more until all have been handed out: whoever takes it to zero has seen the end.
    open: AtomicUsize,
}

#[derive(Default)]
struct Counts {
    read: AtomicU64,
    written: AtomicU64,
    quarantined: AtomicU64,
    bad: AtomicU64,
}

/// Which input is being read.
struct Place {
    next: usize,
    current: Option<(usize, Arc<dyn Splits>)>,
    opened: Vec<(usize, Arc<dyn Splits>)>,
}

/// What the workers find out.
struct Shared {
    collector: Option<Collector>,
    bad: Vec<(String, BadRow)>,
    widen: BTreeMap<String, DataType>,
    error: Option<Error>,
    warnings: Vec<(usize, String)>,
    bytes: u64,
}

/// What came of a reading.
pub struct Done {
    /// Rows read of each input.
    pub rows: Vec<u64>,
    /// Rows written.
    pub written: u64,
    /// Rows put into quarantine.
    pub quarantined: u64,
    /// Rows read and left out because of a limit.
    pub skipped: u64,
    /// Bytes read, as stored.
    pub bytes: u64,
    /// Rows for the quarantine.
    pub quarantine: Refused,
    /// The first bad rows.
    pub bad: Vec<(String, BadRow)>,
    /// Sentences for the user.
    pub warnings: Vec<String>,
    /// Of each file, what was put right on the way.
    pub drift: Vec<(String, String)>,
    /// Types that were too narrow, and what would do. If there are any, nothing else counts.
    pub widen: BTreeMap<String, DataType>,
}

/// Why a reading failed.
pub struct Failed {
    /// The reason.
    pub error: Error,
    /// Rows for the quarantine.
    pub quarantine: Refused,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A thread that panicked while it held the lock has failed the load; what it left is good enough to clean up with.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Work {
    /// A reading of `inputs` by `plan`, for rows of `schema`.
    pub fn new(
        ingest: &Ingest,
        inputs: Vec<Arc<dyn Input>>,
        plan: &Plan,
        schema: &SchemaRef,
        load: &LoadId,
        started: DateTime<Utc>,
        around: &Around<'_>,
    ) -> Self {
        let input = |(input, plan): (Arc<dyn Input>, &InputPlan)| WorkInput {
            address: input.address().into(),
            input,
            plan: plan.clone(),
            rows: AtomicU64::new(0),
            open: AtomicUsize::new(1),
        };
        Self {
            inputs: inputs.into_iter().zip(&plan.inputs).map(input).collect(),
            schema: Arc::clone(schema),
            lineage: schema.fields().len() > plan.schema.fields().len(),
            take_over: ingest.take_over
                && ingest.limit.is_none()
                && matches!(ingest.mode, Mode::Append | Mode::Replace),
            load: load.clone(),
            max_bad: ingest.max_bad,
            limit: ingest.limit,
            threads: ingest.threads.max(1),
            observer: Arc::clone(&around.observer),
            cancel: around.cancel.clone(),
            counts: Counts::default(),
            place: Mutex::new(Place { next: 0, current: None, opened: Vec::new() }),
            stop: AtomicBool::new(false),
            learning: AtomicBool::new(false),
            shared: Mutex::new(Shared {
                collector: Some(Collector::new(load, started, Arc::clone(&ingest.spool))),
                bad: Vec::new(),
                widen: BTreeMap::new(),
                error: None,
                warnings: Vec::new(),
                bytes: 0,
            }),
        }
    }

    /// Reads everything, by as many threads as were asked for. Blocks.
    pub fn run(self, session: &dyn LoadSession) -> std::result::Result<Done, Failed> {
        std::thread::scope(|scope| {
            for number in 0..self.threads {
                let work = &self;
                let started =
                    std::thread::Builder::new().name(format!("ingest-{number}")).spawn_scoped(scope, move || {
                        // A panic below is a defect; it must not look like a file that was read to its end.
                        let end = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work.work(session)));
                        match end {
                            Ok(Ok(())) => {}
                            Ok(Err(error)) => work.fail(error),
                            Err(_) => work.fail(Error::internal("a worker thread crashed; nothing was committed")),
                        }
                    });
                if let Err(error) = started {
                    self.fail(Error::unavailable("no thread could be started").caused_by(error));
                }
            }
        });
        self.end()
    }

    fn fail(&self, error: Error) {
        // First the reason, then the signal: whoever stops because of it must not be taken for the reason.
        lock(&self.shared).error.get_or_insert(error);
        self.stop.store(true, Ordering::Release);
    }

    /// What one thread does.
    fn work(&self, session: &dyn LoadSession) -> Result<()> {
        let mut writer: Option<Box<dyn BatchWriter>> = None;
        let mut lineage: Option<(usize, Lineage)> = None;
        while let Some((at, splits)) = self.current(session)? {
            let input = &self.inputs[at];
            input.open.fetch_add(1, Ordering::AcqRel);
            let Some(mut split) = splits.next()? else {
                self.advance(at);
                self.close(at);
                continue;
            };
            while let Some(raw) = split.next_batch()? {
                self.check_stop()?;
                let Some(raw) = self.cut(raw) else { break };
                let rows = input.rows.fetch_add(raw.rows_read(), Ordering::Relaxed) + raw.rows_read();
                let applied = input.plan.apply(raw).map_err(|error| error.within(&input.address))?;
                self.observer.observe(Event::Progress { input: at, bytes: splits.bytes_read(), rows });
                let batch = self.sort_out(input, applied)?;
                let Some((batch, numbers)) = batch else { continue };
                if batch.num_rows() == 0 {
                    continue;
                }
                let batch = if self.lineage {
                    if lineage.as_ref().is_none_or(|(of, _)| *of != at) {
                        lineage =
                            Some((at, Lineage::new(Arc::clone(&self.schema), self.load.as_str(), &input.address)));
                    }
                    match &mut lineage {
                        Some((_, lineage)) => lineage.add(&batch, &numbers)?,
                        None => batch,
                    }
                } else {
                    batch
                };
                let writer = match &mut writer {
                    Some(writer) => writer,
                    None => writer.insert(session.writer()?),
                };
                writer.write(&batch)?;
                self.counts.written.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
            }
            self.close(at);
        }
        match writer {
            Some(writer) if !self.learning.load(Ordering::Relaxed) => writer.finish(),
            _ => Ok(()),
        }
    }

    /// The input to read from; the next one is opened when it is needed. `None` when all have been read.
    fn current(&self, session: &dyn LoadSession) -> Result<Option<(usize, Arc<dyn Splits>)>> {
        let mut place = lock(&self.place);
        loop {
            self.check_stop()?;
            if self.limit.is_some_and(|limit| self.counts.read.load(Ordering::Relaxed) >= limit) {
                return Ok(None);
            }
            if let Some((at, splits)) = &place.current {
                return Ok(Some((*at, Arc::clone(splits))));
            }
            let at = place.next;
            let Some(input) = self.inputs.get(at) else { return Ok(None) };
            place.next += 1;
            if self.taken_over(at, input, session)? {
                continue;
            }
            let splits = input.input.read(&input.plan.request)?;
            place.opened.push((at, Arc::clone(&splits)));
            place.current = Some((at, splits));
        }
    }

    /// Takes the input over as it is, if it is a Parquet file that fits.
    fn taken_over(&self, at: usize, input: &WorkInput, session: &dyn LoadSession) -> Result<bool> {
        let has_all = input.input.folder_values().is_empty();
        if !self.take_over || !has_all || !input.plan.is_identity(input.input.schema()) {
            return Ok(false);
        }
        let Some(path) = input.input.parquet_file() else { return Ok(false) };
        if !session.takes_over(input.input.schema()) {
            return Ok(false);
        }
        let rows = session.take_over(&path).map_err(|error| error.within(&input.address))?;
        input.rows.store(rows, Ordering::Relaxed);
        self.counts.read.fetch_add(rows, Ordering::Relaxed);
        self.counts.written.fetch_add(rows, Ordering::Relaxed);
        let bytes = input.input.bytes().unwrap_or_default();
        lock(&self.shared).bytes += bytes;
        self.observer.observe(Event::Progress { input: at, bytes, rows });
        self.observer.observe(Event::Finished { input: at, rows });
        Ok(true)
    }

    /// The current input has no more pieces; others may still be busy with its last ones.
    fn advance(&self, at: usize) {
        let mut place = lock(&self.place);
        if place.current.as_ref().is_some_and(|(current, _)| *current == at) {
            place.current = None;
            drop(place);
            self.close(at);
        }
    }

    /// One piece of an input less is being worked on.
    fn close(&self, at: usize) {
        let input = &self.inputs[at];
        if input.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.observer.observe(Event::Finished { input: at, rows: input.rows.load(Ordering::Relaxed) });
        }
    }

    fn check_stop(&self) -> Result<()> {
        if self.cancel.is_cancelled() {
            return Err(Error::cancelled());
        }
        if self.stop.load(Ordering::Acquire) {
            // The error that stopped the others is the one that is reported: see `fail`.
            return Err(Error::cancelled());
        }
        Ok(())
    }

    /// Keeps to the limit: a batch that goes beyond it is cut, one that begins beyond it is left out.
    fn cut(&self, mut raw: RawBatch) -> Option<RawBatch> {
        let Some(limit) = self.limit else {
            self.counts.read.fetch_add(raw.rows_read(), Ordering::Relaxed);
            return Some(raw);
        };
        let before = self.counts.read.fetch_add(raw.rows_read(), Ordering::Relaxed);
        let left = limit.checked_sub(before).filter(|left| *left > 0)?;
        if raw.rows_read() > left {
            let left = usize::try_from(left).unwrap_or(usize::MAX);
            let keep = left.min(raw.batch.num_rows());
            raw.batch = raw.batch.slice(0, keep);
            raw.misfits.retain(|misfit| misfit.row < keep);
            raw.bad.truncate(left - keep);
        }
        Some(raw)
    }

    /// Counts, and puts aside what was refused. `None` while types are being learnt.
    fn sort_out(
        &self,
        input: &WorkInput,
        applied: Applied,
    ) -> Result<Option<(RecordBatch, flumen_core::read::RowNumbers)>> {
        if !applied.widen.is_empty() {
            let mut shared = lock(&self.shared);
            for (name, data_type) in applied.widen {
                let wider = join(shared.widen.get(&name).unwrap_or(&DataType::Null), &data_type);
                shared.widen.insert(name, wider);
            }
            self.learning.store(true, Ordering::Relaxed);
        }
        if self.learning.load(Ordering::Relaxed) {
            return Ok(None);
        }
        if !applied.quarantined.is_empty() {
            let mut shared = lock(&self.shared);
            for entry in applied.quarantined {
                if entry.verdict != Verdict::DiscardValue {
                    self.counts.quarantined.fetch_add(1, Ordering::Relaxed);
                }
                if entry.verdict == Verdict::Bad {
                    self.counts.bad.fetch_add(1, Ordering::Relaxed);
                    show(&mut shared.bad, &input.address, &entry.row);
                }
                if let Some(collector) = &mut shared.collector {
                    collector.add(&input.address, entry)?;
                }
            }
            let bad = self.counts.bad.load(Ordering::Relaxed);
            if bad > self.max_bad && (bad >= BAD_ROWS_SHOWN as u64 || self.max_bad > 0) {
                drop(shared);
                return Err(Error::cancelled());
            }
        }
        Ok(Some((applied.batch, applied.rows)))
    }

    fn end(self) -> std::result::Result<Done, Failed> {
        let Self { inputs, counts, place, shared, max_bad, cancel, .. } = self;
        let place = place.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut shared = shared.into_inner().unwrap_or_else(PoisonError::into_inner);
        let quarantine = match shared.collector.take().map(Collector::finish) {
            Some(Ok(refused)) => refused,
            Some(Err(error)) => {
                shared.error.get_or_insert(error);
                Refused::default()
            }
            None => Refused::default(),
        };
        shared.bad.sort_by(|(a, x), (b, y)| (a, x.row).cmp(&(b, y.row)));
        let bad = counts.bad.into_inner();
        if cancel.is_cancelled() {
            return Err(Failed { error: Error::cancelled(), quarantine: Refused::default() });
        }
        // What is odd about a file that was written to meanwhile is so because of that.
        if shared.error.as_ref().is_none_or(|error| matches!(error.kind(), ErrorKind::Data | ErrorKind::Cancelled))
            && let Some(error) = inputs.iter().find_map(|input| input.input.check_unchanged().err())
        {
            return Err(Failed { error, quarantine: Refused::default() });
        }
        if bad > max_bad && shared.widen.is_empty() {
            return Err(Failed { error: too_many_bad(bad, max_bad, &shared.bad), quarantine });
        }
        if let Some(error) = shared.error {
            return Err(Failed { error, quarantine });
        }
        let (mut warnings, mut drift, mut bytes) = (Vec::new(), Vec::new(), shared.bytes);
        for (at, splits) in place.opened {
            bytes += splits.bytes_read();
            shared.warnings.extend(splits.warnings().into_iter().map(|warning| (at, warning)));
        }
        for (at, input) in inputs.iter().enumerate() {
            warnings.extend(input.input.warnings());
            for (_, warning) in shared.warnings.iter().filter(|(of, _)| *of == at) {
                drift.push((input.address.to_string(), warning.clone()));
                warnings.push(warning.clone());
            }
        }
        let rows: Vec<u64> = inputs.iter().map(|input| input.rows.load(Ordering::Relaxed)).collect();
        Ok(Done {
            written: counts.written.into_inner(),
            quarantined: counts.quarantined.into_inner(),
            skipped: 0,
            rows,
            bytes,
            quarantine,
            bad: shared.bad,
            warnings,
            drift,
            widen: shared.widen,
        })
    }
}

/// Keeps a bad row among those to be shown, if it is one of the first: threads meet them in any order.
fn show(shown: &mut Vec<(String, BadRow)>, address: &str, row: &BadRow) {
    if shown.len() < BAD_ROWS_SHOWN {
        return shown.push((address.to_owned(), row.clone()));
    }
    let last = shown.iter_mut().max_by(|(a, x), (b, y)| (a, x.row).cmp(&(b, y.row)));
    if let Some(last) = last.filter(|(of, last)| (address, row.row) < (of.as_str(), last.row)) {
        *last = (address.to_owned(), row.clone());
    }
}

/// The error of a load with too many bad rows: it shows the first ones.
fn too_many_bad(bad: u64, max_bad: u64, shown: &[(String, BadRow)]) -> Error {
    let count = match (bad, max_bad) {
        (1, 0) => "1 row does not fit".to_owned(),
        (_, 0) => format!("{bad} rows or more do not fit"),
        _ => format!("more than {max_bad} rows do not fit"),
    };
    let mut message = format!("{count}; nothing was loaded");
    for (file, row) in shown {
        let place = row.line.map_or_else(|| format!("row {}", row.row), |line| format!("line {line}"));
        let column = row.column.as_ref().map(|column| format!("column '{column}': ")).unwrap_or_default();
        message.push_str(&format!("\n  {file}, {place}: {column}{}", row.reason));
    }
    Error::data(message).hint(
        "mend the file, or load the others with --max-bad N; the refused rows are in the quarantine of the destination",
    )
}
