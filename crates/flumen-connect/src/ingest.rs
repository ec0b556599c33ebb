//! The pipeline: inputs → contract → sink, in bounded memory, on all cores, committed as one.
//!
//! A load goes through these steps, and nothing is visible before the last:
//!
//! 1. identify the inputs, and leave out those that the destination's ledger has;
//! 2. plan: compare columns with contract and table ([`flumen_core::contract::plan`]);
//! 3. read, convert and write, by several threads ([`workers`]). When a guessed type turns out too narrow, the rest is read
//!    only to learn which types would do, and the step is done once more with those: twice at most;
//! 4. write what was refused into quarantine;
//! 5. commit rows and ledger together.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use chrono::{DateTime, Utc};
use flumen_core::clock::{Clock, Ids};
use flumen_core::contract::{Case, Contract, Offer, Plan, plan};
use flumen_core::error::{Error, ErrorKind, Result};
use flumen_core::load::{Committed, Drift, Fence, FileIdentity, FileRecord, LoadId, LoadRecord, LoadRequest, Mode};
use flumen_core::observe::{Event, Observer};
use flumen_core::read::{BadRow, Input};
use flumen_core::text::{TextOptions, join};
use flumen_core::write::{LoadSession, Sink, TableState};
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::spool::Spool;

mod dry_run;
mod lineage;
mod quarantine;
mod workers;

pub use dry_run::DryRun;

/// What to load, where to, and how.
pub struct Ingest {
    /// The inputs, in order.
    pub inputs: Vec<Arc<dyn Input>>,
    /// The destination.
    pub sink: Arc<dyn Sink>,
    /// What happens to the rows that are there.
    pub mode: Mode,
    /// What the columns must be.
    pub contract: Contract,
    /// How new columns are named.
    pub case: Case,
    /// The columns that are wanted; all, if empty.
    pub select: Vec<String>,
    /// What text means.
    pub text: TextOptions,
    /// How many bad rows are put up with.
    pub max_bad: u64,
    /// Stop after so many rows.
    pub limit: Option<u64>,
    /// Load what the ledger has, too.
    pub force: bool,
    /// The load's id, for inputs that have no identity of their own.
    pub load_id: Option<LoadId>,
    /// What tells the files of this load from the same files in loads of others, such as other runs of a flow; nothing by default.
    pub scope: String,
    /// Whether rows carry `_flumen_*` columns; the destination's habit if not given.
    pub lineage: Option<bool>,
    /// Whether a Parquet file that fits may be taken over as it is.
    pub take_over: bool,
    /// Partition columns of a table that is made now.
    pub partition_by: Vec<String>,
    /// Index columns (Postgres).
    pub indexes: Vec<Vec<String>>,
    /// Primary key of a table that is made now (Postgres).
    pub primary_key: Vec<String>,
    /// Where refused rows wait that are more than fit in memory.
    pub spool: Arc<Spool>,
    /// The fencing number of the attempt.
    pub fence: Fence,
    /// When the command began: inputs may have been on their way since.
    pub started: DateTime<Utc>,
    /// Threads that read, convert and write.
    pub threads: usize,
    /// How to do the load again: kept in the ledger for `flumen load replay`.
    pub options: BTreeMap<String, serde_json::Value>,
}

/// What came of a load.
#[derive(Debug, Clone)]
pub struct Receipt {
    /// What the ledger says about it.
    pub record: LoadRecord,
    /// The commit; `None` if there was nothing to do (or it was a dry run).
    pub committed: Option<Committed>,
    /// The columns that were written.
    pub schema: SchemaRef,
    /// Inputs that were left out because the ledger has them.
    pub skipped: Vec<String>,
    /// What the user should look at.
    pub warnings: Vec<String>,
    /// The first bad rows, with their files.
    pub bad: Vec<(String, BadRow)>,
    /// Whether the inputs were read twice, because types turned out wider.
    pub read_twice: bool,
    /// When it ended.
    pub ended: DateTime<Utc>,
}

/// The surroundings of a load.
pub struct Around<'a> {
    /// Where the present comes from.
    pub clock: &'a dyn Clock,
    /// Where fresh ids come from.
    pub ids: &'a dyn Ids,
    /// Who watches.
    pub observer: Arc<dyn Observer>,
    /// Who may stop it.
    pub cancel: CancellationToken,
}

/// One input, with what the ledger calls it.
struct Candidate {
    input: Arc<dyn Input>,
    identity: FileIdentity,
    ledger_id: Option<LoadId>,
}

/// Does the load.
///
/// Errors: `Data` when more rows are bad than `max_bad` (they are in quarantine then, and nothing else was written),
/// `Cancelled`, and whatever inputs and sink report. After any error the destination is as it was.
pub fn ingest(ingest: Ingest, around: Around<'_>) -> BoxFuture<'_, Result<Receipt>> {
    Box::pin(load(ingest, around))
}

async fn load(ingest: Ingest, around: Around<'_>) -> Result<Receipt> {
    let started = ingest.started;
    let wrong = ingest.contract.check();
    if !wrong.is_empty() {
        return Err(Error::invalid(format!("the contract contradicts itself: {}", wrong.join("; "))));
    }
    let looking = async {
        let state = ingest.sink.state().await?;
        let candidates = identify(&ingest, &around).await?;
        let (todo, skipped) = if state.is_some() && is_loaded(&ingest).await? {
            (Vec::new(), candidates.into_iter().map(|candidate| skip(candidate, "its load is done", &around)).collect())
        } else {
            leave_out_known(&ingest, candidates, &around).await?
        };
        Ok((state, todo, skipped))
    };
    // Until here nothing was changed: it may stop wherever it is.
    let looked = around.cancel.run_until_cancelled(looking).await;
    let (state, todo, skipped) = looked.unwrap_or_else(|| Err(Error::cancelled()))?;
    if todo.is_empty() {
        return Ok(nothing_to_do(&ingest, started, skipped, state, &around));
    }
    let load = load_id(&ingest, &todo, &around).await?;
    let (todo, empty) = without_empty(todo)?;
    let found = todo.iter().map(|c| (c.input.address().to_owned(), c.input.bytes())).collect();
    around.observer.observe(Event::Found(found));

    let mut learnt = BTreeMap::new();
    let mut read_twice = false;
    let (plan, schema, session, done) = loop {
        let plan = make_plan(&ingest, &todo, state.as_ref(), &learnt)?;
        let (request, schema) = request(&ingest, &load, &todo, &plan, started);
        let session = match ingest.sink.begin(request).await {
            Ok(session) => session,
            Err(error) => return done_meanwhile(&ingest, error, todo, skipped, started, &around).await,
        };
        let inputs = todo.iter().map(|c| Arc::clone(&c.input)).collect();
        let work = workers::Work::new(&ingest, inputs, &plan, &schema, &load, started, &around);
        let working = tokio::task::spawn_blocking(move || {
            let done = work.run(session.as_ref());
            (session, done)
        });
        let (session, done) = working.await.map_err(crashed)?;
        match done {
            Ok(done) if done.widen.is_empty() => break (plan, schema, session, done),
            Ok(done) => {
                session.abort().await?;
                let columns: Vec<&str> = done.widen.keys().map(String::as_str).collect();
                around
                    .observer
                    .observe(Event::Note(format!("wider types found for {}: reading again", columns.join(", "))));
                for (name, data_type) in done.widen {
                    let wider = join(learnt.get(&name).unwrap_or(&DataType::Null), &data_type);
                    learnt.insert(name, wider);
                }
                read_twice = true;
            }
            Err(failed) => {
                return Err(fail(session, failed, &around).await);
            }
        }
    };
    let mut receipt = Receipt {
        record: record(&ingest, &load, &todo, &plan, &done, started),
        committed: None,
        schema,
        skipped,
        warnings: done.warnings.clone(),
        bad: done.bad.clone(),
        read_twice,
        ended: started,
    };
    receipt.warnings.splice(0..0, empty);
    for warning in &receipt.warnings {
        around.observer.observe(Event::Warning(warning.clone()));
    }
    if let Err(error) = finish(session, &mut receipt, done, &around).await {
        return done_meanwhile(&ingest, error, todo, receipt.skipped, started, &around).await;
    }
    receipt.ended = around.clock.now();
    Ok(receipt)
}

/// A load that gave way to another one has nothing to do if that one has brought all of its files: the process that was
/// killed while it committed, say, or one that was started twice.
async fn done_meanwhile(
    ingest: &Ingest,
    error: Error,
    todo: Vec<Candidate>,
    mut skipped: Vec<String>,
    started: DateTime<Utc>,
    around: &Around<'_>,
) -> Result<Receipt> {
    if error.kind() != ErrorKind::Conflict {
        return Err(error);
    }
    let ids: Option<Vec<LoadId>> = todo.iter().map(|c| c.ledger_id.clone()).collect();
    let Some(ids) = ids else { return Err(error) };
    let known = match ingest.mode {
        Mode::Append | Mode::Merge { .. } | Mode::Scd2 { .. } => ingest.sink.known(&ids).await?,
        _ => Vec::new(),
    };
    if known.is_empty() || known.contains(&false) {
        return Err(error);
    }
    skipped.extend(todo.into_iter().map(|candidate| skip(candidate, "it is loaded already", around)));
    let state = ingest.sink.state().await?;
    Ok(nothing_to_do(ingest, started, skipped, state, around))
}

/// Quarantine, then commit.
async fn finish(
    session: Box<dyn LoadSession>,
    receipt: &mut Receipt,
    done: workers::Done,
    around: &Around<'_>,
) -> Result<()> {
    let record = &receipt.record;
    if record.rows_read != record.rows_written + record.rows_quarantined + record.rows_skipped {
        session.abort().await?;
        return Err(Error::internal(format!(
            "{} rows were read, but {} written, {} quarantined and {} skipped: nothing was committed",
            record.rows_read, record.rows_written, record.rows_quarantined, record.rows_skipped
        ))
        .hint("this is a defect in Flumen; please report it with the file"));
    }
    if around.cancel.is_cancelled() {
        session.abort().await?;
        return Err(Error::cancelled());
    }
    if !done.quarantine.is_empty() {
        quarantine(session.as_ref(), done.quarantine).await?;
    }
    receipt.committed = Some(session.commit(&receipt.record).await?);
    Ok(())
}

/// Ends a load that failed: quarantine rows are kept all the same, so that they can be looked at.
async fn fail(session: Box<dyn LoadSession>, failed: workers::Failed, around: &Around<'_>) -> Error {
    let mut error = failed.error;
    if !failed.quarantine.is_empty()
        && !around.cancel.is_cancelled()
        && let Err(also) = quarantine(session.as_ref(), failed.quarantine).await
    {
        error = error.hint(format!("the bad rows could not be put into quarantine either: {also}"));
    }
    if let Err(also) = session.abort().await {
        around.observer.observe(Event::Warning(format!("what was written could not be removed: {also}")));
    }
    error
}

async fn quarantine(session: &dyn LoadSession, refused: quarantine::Refused) -> Result<()> {
    session.quarantine(refused.into_rows()?).await
}

fn crashed(error: tokio::task::JoinError) -> Error {
    Error::internal("a worker thread crashed; nothing was committed").caused_by(error)
}

/// Finds out who the inputs are: this may hash whole files, so it is done by as many threads as there are.
async fn identify(ingest: &Ingest, around: &Around<'_>) -> Result<Vec<Candidate>> {
    let destination = ingest.sink.address();
    let version = contract_version(ingest);
    let mode = ingest.mode.clone();
    let mut candidates = Vec::with_capacity(ingest.inputs.len());
    for chunk in ingest.inputs.chunks(ingest.threads.max(1)) {
        if around.cancel.is_cancelled() {
            return Err(Error::cancelled());
        }
        let tasks: Vec<_> = chunk
            .iter()
            .map(|input| {
                let input = Arc::clone(input);
                tokio::task::spawn_blocking(move || input.identity().map(|identity| (input, identity)))
            })
            .collect();
        for task in tasks {
            let (input, identity) = task.await.map_err(crashed)??;
            let ledger_id = if ingest.force { None } else { identity.ledger_id(&destination, &mode, &version) };
            candidates.push(Candidate { input, identity, ledger_id });
        }
    }
    Ok(candidates)
}

/// Everything besides files, destination and mode that makes one load differ from another.
fn contract_version(ingest: &Ingest) -> String {
    let mut version = ingest.contract.version();
    if !ingest.select.is_empty() {
        version.push_str(&format!(";select={}", ingest.select.join(",")));
    }
    if ingest.case != Case::Keep {
        version.push_str(&format!(";case={:?}", ingest.case));
    }
    if !ingest.scope.is_empty() {
        version.push_str(&format!(";for={}", ingest.scope));
    }
    if let Some(limit) = ingest.limit {
        version.push_str(&format!(";limit={limit}"));
    }
    version
}

/// Whether the load that was named by its id is in the ledger, and was not taken back.
async fn is_loaded(ingest: &Ingest) -> Result<bool> {
    let Some(load) = ingest.load_id.as_ref().filter(|_| !ingest.force) else { return Ok(false) };
    if ingest.sink.times_loaded(load).await? == 0 {
        return Ok(false);
    }
    let loads = ingest.sink.loads(usize::MAX).await?;
    Ok(loads.iter().any(|entry| entry.record.load == *load && !entry.undone))
}

/// Says that an input is left out, and why. Returns its address.
fn skip(candidate: Candidate, why: &str, around: &Around<'_>) -> String {
    let address = candidate.identity.address;
    around.observer.observe(Event::Skipped { address: address.clone(), why: why.to_owned() });
    address
}

/// Leaves out the inputs that are loaded already.
async fn leave_out_known(
    ingest: &Ingest,
    candidates: Vec<Candidate>,
    around: &Around<'_>,
) -> Result<(Vec<Candidate>, Vec<String>)> {
    let ids: Vec<LoadId> = candidates.iter().filter_map(|c| c.ledger_id.clone()).collect();
    let mut skipped = Vec::new();
    if ids.is_empty() {
        return Ok((candidates, skipped));
    }
    let known = match ingest.mode {
        Mode::Append | Mode::Merge { .. } | Mode::Scd2 { .. } => {
            let known = ingest.sink.known(&ids).await?;
            ids.into_iter().zip(known).filter_map(|(id, known)| known.then_some(id)).collect()
        }
        // These say what the table holds afterwards: they have nothing to do only if it holds that already.
        Mode::Replace | Mode::ReplaceWhere { .. } | Mode::ReplaceLoad { .. } => {
            let latest = ingest.sink.loads(1).await?.into_iter().find(|entry| !entry.undone);
            let mut loaded: Vec<LoadId> = latest
                .map(|entry| entry.record.files.into_iter().filter_map(|f| f.ledger_id).collect())
                .unwrap_or_default();
            let mut wanted = ids;
            loaded.sort();
            wanted.sort();
            if loaded == wanted && wanted.len() == candidates.len() { loaded } else { Vec::new() }
        }
    };
    let mut todo = Vec::new();
    let mut seen = Vec::new();
    for candidate in candidates {
        let id = candidate.ledger_id.clone();
        let why = match &id {
            Some(id) if known.contains(id) => Some("it is loaded already"),
            Some(id) if seen.contains(id) => Some("it is named twice"),
            _ => None,
        };
        seen.extend(id);
        match why {
            Some(why) => skipped.push(skip(candidate, why, around)),
            None => todo.push(candidate),
        }
    }
    Ok((todo, skipped))
}

fn nothing_to_do(
    ingest: &Ingest,
    started: DateTime<Utc>,
    skipped: Vec<String>,
    state: Option<TableState>,
    around: &Around<'_>,
) -> Receipt {
    let nothing = LoadId::derive(["nothing"]);
    let record = LoadRecord::new(nothing, ingest.sink.address(), ingest.mode.clone(), started);
    let schema = state.map_or_else(|| Arc::new(Schema::empty()), |state| state.schema);
    Receipt {
        record,
        committed: None,
        schema,
        skipped,
        warnings: Vec::new(),
        bad: Vec::new(),
        read_twice: false,
        ended: around.clock.now(),
    }
}

/// The load's id: it follows from the files, unless one of them has no identity.
async fn load_id(ingest: &Ingest, todo: &[Candidate], around: &Around<'_>) -> Result<LoadId> {
    if let Some(given) = &ingest.load_id {
        return Ok(given.clone());
    }
    let ids: Option<Vec<&str>> = todo.iter().map(|c| c.ledger_id.as_ref().map(LoadId::as_str)).collect();
    let Some(mut ids) = ids else { return Ok(LoadId::from_uuid(around.ids.next())) };
    ids.sort_unstable();
    let derived = LoadId::derive(std::iter::once("load").chain(ids.iter().copied()));
    // A load that was taken back and is done again is another load: what the first wrote is still in older versions.
    match ingest.sink.times_loaded(&derived).await? {
        0 => Ok(derived),
        times => Ok(LoadId::derive([derived.as_str(), &times.to_string()])),
    }
}

/// Among several files an empty one is worth a warning; alone, it is a mistake.
fn without_empty(todo: Vec<Candidate>) -> Result<(Vec<Candidate>, Vec<String>)> {
    let is_empty = |candidate: &Candidate| candidate.input.schema().fields().is_empty();
    let warnings: Vec<String> =
        todo.iter().filter(|c| is_empty(c)).map(|c| format!("{} is empty: no rows", c.input.address())).collect();
    if let [only] = todo.as_slice()
        && is_empty(only)
    {
        return Err(Error::data(format!("{} is empty", only.input.address())).hint("check where it comes from"));
    }
    if warnings.len() == todo.len() {
        return Err(Error::data(format!("all {} files are empty", todo.len())).hint("check where they come from"));
    }
    Ok((todo, warnings))
}

fn make_plan(
    ingest: &Ingest,
    todo: &[Candidate],
    state: Option<&TableState>,
    learnt: &BTreeMap<String, DataType>,
) -> Result<Plan> {
    let offers: Vec<Offer> = todo
        .iter()
        .map(|c| Offer {
            address: c.input.address().to_owned(),
            schema: Arc::clone(c.input.schema()),
            is_text: c.input.is_text(),
        })
        .collect();
    // A replaced table takes the types that fit the new data, as a new one does.
    let existing = match ingest.mode {
        Mode::Replace => None,
        _ => state.map(|state| state.schema.as_ref()),
    };
    let stored = |data_type: &DataType| ingest.sink.stored_type(data_type);
    plan(&offers, &ingest.contract, ingest.case, &ingest.select, existing, learnt, &stored, &ingest.text)
}

fn request(
    ingest: &Ingest,
    load: &LoadId,
    todo: &[Candidate],
    plan: &Plan,
    started: DateTime<Utc>,
) -> (LoadRequest, SchemaRef) {
    let lineage = ingest.lineage.unwrap_or_else(|| ingest.sink.lineage_by_default());
    let schema = if lineage { lineage::with_columns(&plan.schema) } else { Arc::clone(&plan.schema) };
    let request = LoadRequest {
        load: load.clone(),
        mode: ingest.mode.clone(),
        schema: Arc::clone(&schema),
        evolve: true,
        files: todo.iter().map(|c| (c.identity.clone(), c.ledger_id.clone())).collect(),
        fence: ingest.fence,
        started,
        writers: ingest.threads.max(1),
        partition_by: ingest.partition_by.clone(),
        indexes: ingest.indexes.clone(),
        primary_key: ingest.primary_key.clone(),
    };
    (request, schema)
}

fn record(
    ingest: &Ingest,
    load: &LoadId,
    todo: &[Candidate],
    plan: &Plan,
    done: &workers::Done,
    started: DateTime<Utc>,
) -> LoadRecord {
    let files = todo
        .iter()
        .zip(&done.rows)
        .map(|(c, rows)| FileRecord { identity: c.identity.clone(), ledger_id: c.ledger_id.clone(), rows: *rows })
        .collect();
    let mut drift = plan.drift.clone();
    drift.extend(done.drift.iter().map(|(file, what)| Drift {
        file: file.clone(),
        column: "*".to_owned(),
        from: None,
        to: None,
        action: what.clone(),
    }));
    LoadRecord {
        load: load.clone(),
        dataset: ingest.sink.address(),
        mode: ingest.mode.clone(),
        started,
        files,
        rows_read: done.rows.iter().sum(),
        rows_written: done.written,
        rows_quarantined: done.quarantined,
        rows_skipped: done.skipped,
        bytes_read: done.bytes,
        drift,
        cursor: todo.iter().filter_map(|c| c.input.cursor()).next_back(),
        options: ingest.options.clone(),
        undoes: None,
    }
}

#[cfg(test)]
mod tests;
