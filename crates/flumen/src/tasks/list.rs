//! The list for whose items a task runs: the rows of a query, or the files that match a pattern.

use flumen_core::dataset::LAKE;
use flumen_core::sql::SqlEngine as _;
use flumen_core::{Error, Result};
use flumen_worker::attempt::{Done, Job};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::rows;
use crate::commands::sql;
use crate::context::Context;

#[derive(Debug, Deserialize)]
struct Fields {
    query: Option<String>,
    connection: Option<String>,
    glob: Option<String>,
    limit: u64,
}

pub(super) async fn run(job: &Job, context: &Context) -> Result<Done> {
    let fields: Fields = super::fields(job)?;
    let items = match (&fields.query, &fields.glob) {
        (Some(query), _) => of_query(query, &fields, context).await?,
        (None, Some(glob)) => of_glob(glob, context).await?,
        (None, None) => return Err(Error::internal("a list of nothing was asked for")),
    };
    Ok(Done { output: Value::Array(items), ..Done::default() })
}

/// Each row is an item; with one column, its value.
async fn of_query(query: &str, fields: &Fields, context: &Context) -> Result<Vec<Value>> {
    let rows = match fields.connection.as_deref().filter(|name| *name != LAKE) {
        Some(connection) => {
            let mut output = super::sql::in_database(connection, query, fields.limit, context).await?;
            match output["data"].take() {
                Value::Array(rows) => rows,
                _ => Vec::new(),
            }
        }
        None => {
            let answer = sql::engine(context, None, None)?.query(query).await?;
            rows::values(answer, fields.limit, context).await?.0
        }
    };
    let only = |row: Map<String, Value>| match row.len() {
        1 => row.into_iter().next().map_or(Value::Null, |(_, value)| value),
        _ => Value::Object(row),
    };
    Ok(rows.into_iter().map(|row| if let Value::Object(row) = row { only(row) } else { row }).collect())
}

async fn of_glob(glob: &str, context: &Context) -> Result<Vec<Value>> {
    let inputs = context.unless_cancelled(crate::origin::files(context)?.addresses(glob)).await;
    match inputs {
        Ok(addresses) => Ok(addresses.into_iter().map(Value::from).collect()),
        // No files are an empty list.
        Err(error) if error.kind() == flumen_core::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
