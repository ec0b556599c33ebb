//! `export`.

use flumen_core::dataset::Dataset;
use flumen_core::sql::SqlEngine as _;
use flumen_core::{Error, Result};
use flumen_worker::attempt::{Done, Job};
use flumen_worker::kinds::export::Fields;
use serde_json::json;

use super::rows::{self, Target};
use crate::commands::sql;
use crate::context::Context;
use crate::destination::{self, DestinationOptions};
use crate::output::counted;

pub(super) async fn run(job: &Job, context: &Context) -> Result<Done> {
    let fields: Fields = super::fields(job)?;
    let query = match (&fields.query, &fields.table) {
        (Some(query), _) => query.clone(),
        (None, Some(table)) => format!("select * from {table}"),
        (None, None) => return Err(Error::invalid("there is nothing to export").hint("give a 'table' or a 'query'")),
    };
    let engine = sql::engine(context, None, None)?;
    let answer = context.unless_cancelled(engine.query(&query)).await?;
    let dataset: Dataset = fields.to.parse()?;
    let target = Target {
        sink: destination::open(&dataset, &DestinationOptions::default(), context).await?,
        mode: super::mode(job, fields.mode, None, fields.key)?,
        load: super::load_id(job, &fields.to),
        fence: super::fence(job),
        partition_by: Vec::new(),
    };
    let (rows, _) = rows::write(answer, target, context).await?;
    context.output.note(format_args!("{} ← {}", fields.to, counted(rows, "row")));
    let mut reads = engine.used_tables();
    reads.extend(fields.table.filter(|table| !reads.contains(table)));
    Ok(Done { output: json!({ "rows": rows, "dataset": fields.to }), reads, writes: vec![fields.to] })
}
