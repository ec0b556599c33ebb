//! `sensor`, where it looks at what a query gives.

use flumen_core::Result;
use flumen_core::dataset::LAKE;
use flumen_core::sql::SqlEngine as _;
use flumen_worker::attempt::{Done, Job};
use serde::Deserialize;
use serde_json::Value;

use super::rows;
use crate::commands::sql;
use crate::context::Context;

#[derive(Debug, Deserialize)]
struct Fields {
    query: String,
    connection: Option<String>,
}

/// The first value of the first row.
pub(super) async fn run(job: &Job, context: &Context) -> Result<Done> {
    let fields: Fields = super::fields(job)?;
    let output = match fields.connection.as_deref().filter(|name| *name != LAKE) {
        Some(connection) => super::sql::in_database(connection, &fields.query, 1, context).await?["value"].take(),
        None => {
            let answer = sql::engine(context, None, None)?.query(&fields.query).await?;
            let schema = answer.schema.clone();
            let (values, count) = rows::values(answer, 1, context).await?;
            rows::output(&schema, values, count)["value"].take()
        }
    };
    Ok(Done { output: if output.is_null() { Value::Null } else { output }, ..Done::default() })
}
