//! What a load prints when it is done.

use flumen_connect::ingest::Receipt;
use flumen_core::Result;
use flumen_core::contract::type_name;
use serde_json::json;

use crate::context::Context;
use crate::output::{Table, bytes, count, counted, duration};

/// Prints the receipt: for a person on standard error, with `--json` on standard output.
pub fn print(receipt: &Receipt, dry_run: bool, context: &Context) -> Result<()> {
    let output = &context.output;
    let record = &receipt.record;
    let took = (receipt.ended - record.started).to_std().unwrap_or_default();
    if output.json {
        return output.json(&json!({
            "dry_run": dry_run,
            "load": receipt.committed.as_ref().filter(|_| !dry_run).map(|_| record.load.as_str()),
            "dataset": record.dataset,
            "mode": record.mode.name(),
            "version": receipt.committed.as_ref().and_then(|committed| committed.version),
            "files": record.files,
            "rows_read": record.rows_read,
            "rows_written": record.rows_written,
            "rows_quarantined": record.rows_quarantined,
            "rows_skipped": record.rows_skipped,
            "files_skipped": receipt.skipped,
            "bytes_read": record.bytes_read,
            "bytes_written": receipt.committed.as_ref().map(|committed| committed.bytes_written),
            "seconds": took.as_secs_f64(),
            "columns": receipt.schema.fields().iter()
                .map(|field| json!({"name": field.name(), "type": type_name(field.data_type())})).collect::<Vec<_>>(),
            "drift": record.drift,
            "warnings": receipt.warnings,
        }));
    }
    if record.files.is_empty() {
        output.note(format_args!("nothing to load: {} is up to date (--force loads again)", record.dataset));
        return Ok(());
    }
    if dry_run {
        return plan(receipt, context);
    }
    let rate = record.rows_read as f64 / took.as_secs_f64().max(1e-3);
    let files = counted(record.files.len() as u64, "file");
    let Some(committed) = &receipt.committed else { return Ok(()) };
    let version = committed.version.map(|version| format!(", version {version}")).unwrap_or_default();
    output.note(format_args!(
        "{} ← {} from {files} ({}) in {}: {} rows/s{version}",
        record.dataset,
        counted(record.rows_written, "row"),
        bytes(record.bytes_read),
        duration(took),
        count(rate as u64),
    ));
    let mut rest = Vec::new();
    if record.rows_quarantined > 0 || record.rows_skipped > 0 {
        rest.push(format!("read {}", count(record.rows_read)));
    }
    if record.rows_quarantined > 0 {
        rest.push(format!("quarantined {}", count(record.rows_quarantined)));
    }
    if record.rows_skipped > 0 {
        rest.push(format!("skipped {}", count(record.rows_skipped)));
    }
    if !receipt.skipped.is_empty() {
        rest.push(format!("files left out {}", count(receipt.skipped.len() as u64)));
    }
    if receipt.read_twice {
        rest.push("read twice, because types turned out wider".to_owned());
    }
    rest.push(format!("load {}", record.load.short()));
    output.note(format_args!("  {}", rest.join(" · ")));
    let changed = record.drift.iter().filter(|drift| drift.action != "cast" && drift.action != "missing: null").count();
    if changed > 0 {
        output.note(format_args!(
            "  {changed} changes of columns between files (flumen load show {})",
            record.load.short()
        ));
    }
    Ok(())
}

/// What a dry run found: the columns, and what would become of the rows.
fn plan(receipt: &Receipt, context: &Context) -> Result<()> {
    let output = &context.output;
    let record = &receipt.record;
    let mut table = Table::new(["column", "type", "null"]);
    for field in receipt.schema.fields() {
        let null = if field.is_nullable() { "yes" } else { "no" };
        table.row([field.name().clone(), type_name(field.data_type()), null.to_owned()]);
    }
    output.table(&table)?;
    for (file, row) in &receipt.bad {
        let place = row.line.map_or_else(|| format!("row {}", row.row), |line| format!("line {line}"));
        output.note(format_args!("bad row: {file}, {place}: {}", row.reason));
    }
    output.note(format_args!(
        "dry run: of {}, {} would go to {} ({}), {} to quarantine; nothing was written",
        counted(record.rows_read, "row"),
        count(record.rows_written),
        record.dataset,
        record.mode.name(),
        count(record.rows_quarantined),
    ));
    Ok(())
}
