//! What records are in columns, in every database.

use chrono::{DateTime, Utc};
use flumen_core::flow::store::RunFilter;
use flumen_core::flow::{TaskKey, TaskRun};
use flumen_core::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What a moment is in a column.
pub(crate) fn us(at: DateTime<Utc>) -> i64 {
    at.timestamp_micros()
}

/// A moment from a column.
pub(crate) fn moment(us: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(us).unwrap_or_default()
}

/// What a body is in a column.
pub(crate) fn json<T: Serialize + ?Sized>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::internal("a record cannot be written as JSON").caused_by(error))
}

/// A body from a column.
pub(crate) fn body<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| Error::data("a record in the store cannot be read").caused_by(error))
}

/// What a column says a task run is.
pub(crate) fn task_key(text: &str) -> Result<TaskKey> {
    text.parse()
}

/// A number that is never below zero.
pub(crate) fn positive(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

/// A limit, or as much as there may be.
pub(crate) fn most(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// A number of a lease, an id, or the number of a commit.
pub(crate) fn number(of: u64) -> i64 {
    i64::try_from(of).unwrap_or(i64::MAX)
}

/// Task runs in the order of their names, and items in that of their numbers.
pub(crate) fn in_order(texts: &[String]) -> Result<Vec<TaskRun>> {
    let mut tasks = texts.iter().map(|text| body::<TaskRun>(text)).collect::<Result<Vec<_>>>()?;
    tasks.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(tasks)
}

/// The first and the last id whose digits begin like this.
pub(crate) fn ids_that_begin_with(prefix: &str) -> Option<([u8; 16], [u8; 16])> {
    if prefix.len() > 32 || !prefix.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let filled = |with: char| {
        let digits: String = prefix.chars().chain(std::iter::repeat(with)).take(32).collect();
        u128::from_str_radix(&digits, 16).ok().map(u128::to_be_bytes)
    };
    filled('0').zip(filled('f'))
}

/// Whether a filter asks for runs that have not ended only: they are few, and best found by their state.
pub(crate) fn are_open(filter: &RunFilter) -> bool {
    !filter.states.is_empty() && filter.states.iter().all(|state| !state.is_terminal())
}
