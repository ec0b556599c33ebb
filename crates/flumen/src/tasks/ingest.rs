//! `ingest`.

use flumen_core::Result;
use flumen_core::dataset::Dataset;
use flumen_worker::attempt::{Done, Job};
use flumen_worker::kinds::ingest::{Fields, IngestMode, OneOrMore};
use serde_json::json;

use crate::commands::ingest::{FlowLoad, FormatOptions, IngestCommand};
use crate::context::Context;

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
    let receipt = command.load(context).await?;
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
        "load": receipt.committed.as_ref().map(|_| record.load.as_str()),
        "version": receipt.committed.as_ref().and_then(|committed| committed.version),
    });
    // What was not changed is no update for those who wait for one.
    let writes = if receipt.committed.is_some() { vec![to] } else { Vec::new() };
    Ok(Done { output, reads, writes })
}

/// The command that does the same.
fn command(fields: Fields, job: &Job) -> Result<IngestCommand> {
    let list = |one: Option<OneOrMore>| one.map(OneOrMore::list).unwrap_or_default();
    let names = |one: Option<OneOrMore>| one.map(OneOrMore::names).unwrap_or_default();
    let by_slot = fields.mode == Some(IngestMode::ReplaceWhere) && fields.predicate.is_none();
    let default = IngestCommand::default();
    Ok(IngestCommand {
        sources: fields.from.list(),
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
            scope: job.load.join("/"),
            load: super::load_id(job, &fields.to),
            fence: super::fence(job),
        }),
        to: Some(fields.to),
        ..default
    })
}
