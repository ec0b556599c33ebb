//! The state of data sets: what tells whether something was changed since it was last read.

use std::collections::BTreeMap;

use flumen_connect::postgres::{Connect as _, ProjectConnector};
use flumen_core::Result;
use flumen_core::dataset::Dataset;
use flumen_worker::attempt::{Done, Job};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::context::Context;
use crate::destination::{self, DestinationOptions};

#[derive(Debug, Deserialize)]
struct Fields {
    datasets: Vec<String>,
}

/// A text for each data set, or null for one that is not there.
pub(super) async fn run(job: &Job, context: &Context) -> Result<Done> {
    let fields: Fields = super::fields(job)?;
    let mut states: BTreeMap<String, Value> = BTreeMap::new();
    for name in fields.datasets {
        let state = context.unless_cancelled(state(&name, context)).await?;
        states.insert(name, state);
    }
    Ok(Done { output: json!(states), ..Done::default() })
}

async fn state(name: &str, context: &Context) -> Result<Value> {
    let dataset: Dataset = name.parse()?;
    match &dataset {
        // Versions are counted there.
        Dataset::Lake(_) => {
            let sink = destination::open(&dataset, &DestinationOptions::default(), context).await?;
            let state = sink.state().await?;
            Ok(state.map_or(Value::Null, |state| json!(format!("version {}", state.version.unwrap_or_default()))))
        }
        Dataset::Connection { connection, table } => in_database(connection, &table.to_string(), context).await,
        Dataset::Files(_) => Ok(Value::Null),
    }
}

/// What a database counts of a table's changes: rows that were written, changed and removed since its statistics began.
async fn in_database(connection: &str, table: &str, context: &Context) -> Result<Value> {
    let connector = ProjectConnector::new(context.project()?.connection(connection)?.postgres()?);
    let client = connector.connect().await?;
    let query = "select concat(pg_relation_size(to_regclass($1)), ' bytes, ', n_tup_ins, ' inserted, ', n_tup_upd, \
                 ' changed, ', n_tup_del, ' removed') from pg_stat_all_tables where relid = to_regclass($1)";
    let found =
        client.query_opt(query, &[&table]).await.map_err(flumen_connect::postgres::error::at(connector.place()))?;
    Ok(found.map_or(Value::Null, |row| Value::from(row.get::<_, String>(0))))
}
