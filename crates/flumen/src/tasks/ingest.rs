//! `ingest`.

use flumen_core::Result;
use flumen_core::dataset::Dataset;
use flumen_core::load::{LoadId, LoadRecord};
use flumen_worker::attempt::{Done, Job};
use flumen_worker::kinds::OneOrMore;
use flumen_worker::kinds::ingest::{Fields, IngestMode};
use serde_json::json;

use crate::commands::ingest::{FlowLoad, FormatOptions, IngestCommand};
use crate::context::Context;
use crate::destination::{self, DestinationOptions};

pub(super) async fn run(job: &Job, context: &Context) -> Result<Done> {
    let fields: Fields = super::fields(job)?;
    let to = fields.to.clone();
    let command = command(fields, job)?;
    let reads = command
        .sources
        .iter()
        .filter(|source| matches!(source.parse(), Ok(Dataset::Connection { .. })))
        .cloned()
        .collect();
    let load = super::load_id(job, &to);
    let mut receipt = command.load(context).await?;
    let is_new = receipt.committed.is_some();
    if !is_new && let Some(done) = done_before(&load, &to, context).await? {
        receipt.record = done;
    }
    let record = &receipt.record;
    let output = json!({
        "rows": record.rows_written,
        "rows_read": record.rows_read,
        "rows_quarantined": record.rows_quarantined,
        "rows_skipped": record.rows_skipped,
        "files": record.files.len(),
        "files_skipped": receipt.skipped.len(),
        "bytes_read": record.bytes_read,
        "dataset": record.dataset,
        "load": (record.load == load).then_some(record.load.as_str()),
        "version": receipt.committed.as_ref().and_then(|committed| committed.version),
    });
    // What was not changed is no update for those who wait for one.
    let writes = if is_new { vec![to] } else { Vec::new() };
    Ok(Done { output, reads, writes })
}

/// What an earlier attempt loaded, that was lost after its commit.
async fn done_before(load: &LoadId, to: &str, context: &Context) -> Result<Option<LoadRecord>> {
    let sink = destination::open(&to.parse()?, &DestinationOptions::default(), context).await?;
    if sink.times_loaded(load).await? == 0 {
        return Ok(None);
    }
    let loads = sink.loads(usize::MAX).await?;
    Ok(loads.into_iter().find(|entry| entry.record.load == *load && !entry.undone).map(|entry| entry.record))
}

/// The command that does the same.
fn command(fields: Fields, job: &Job) -> Result<IngestCommand> {
    let list = |one: Option<OneOrMore<String>>| one.map(OneOrMore::into_list).unwrap_or_default();
    let names = |one: Option<OneOrMore<String>>| one.map(OneOrMore::names).unwrap_or_default();
    let by_slot = fields.mode == Some(IngestMode::ReplaceWhere) && fields.predicate.is_none();
    let default = IngestCommand::default();
    Ok(IngestCommand {
        sources: fields.from.into_list(),
        mode: fields.mode.map(|mode| mode.name().to_owned()),
        key: names(fields.key),
        delete_flag: fields.delete_flag,
        valid_from: fields.valid_from.unwrap_or_else(|| "valid_from".to_owned()),
        valid_to: fields.valid_to.unwrap_or_else(|| "valid_to".to_owned()),
        predicate: fields.predicate,
        slot: by_slot.then(|| job.slot.clone()),
        contract: fields.contract,
        types: fields.types.unwrap_or_default().into_iter().collect(),
        select: names(fields.select),
        rename: fields.rename.unwrap_or_default().into_iter().collect(),
        column_case: fields.column_case.unwrap_or_else(|| "keep".to_owned()),
        lineage: fields.lineage,
        max_bad: fields.max_bad.unwrap_or_default(),
        limit: fields.limit,
        force: fields.force.unwrap_or_default(),
        partition_by: names(fields.partition_by),
        reencode: fields.reencode.unwrap_or_default(),
        index: list(fields.index),
        primary_key: names(fields.primary_key),
        format: FormatOptions {
            format: fields.format,
            compression: fields.compression,
            encoding: fields.encoding,
            delimiter: fields.delimiter,
            quote: fields.quote,
            header: fields.header,
            skip_lines: fields.skip_lines.unwrap_or_default(),
            null: list(fields.null),
            date_format: fields.date_format,
            decimal_comma: fields.decimal_comma.unwrap_or_default(),
            trim: fields.trim.unwrap_or_default(),
            flatten: fields.flatten.unwrap_or_default(),
            sheet: fields.sheet,
            query: fields.query,
            cursor: fields.cursor,
            lag: fields.lag,
        },
        flow: Some(FlowLoad {
            scope: job.scope.clone(),
            load: super::load_id(job, &fields.to),
            fence: super::fence(job),
        }),
        to: Some(fields.to),
        ..default
    })
}
