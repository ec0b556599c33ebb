//! Whether what a task reads is as it was: a short text for each data set and file, which is another one once it has changed.
//!
//! A file is known by what its store says of it: its size, its time, and its strong `ETag` (on the local disk, the number of its
//! inode). Tables are asked by a process of its own, which knows the lake and databases.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use flumen_core::dataset::Dataset;
use flumen_core::task_kind;
use flumen_core::{ErrorKind, Result};
use flumen_flow::definition::Task;
use reqwest::header::{CONTENT_LENGTH, ETAG, LAST_MODIFIED};
use serde_json::{Value, json};

use super::{Inputs, parts};
use crate::attempt::{Attempt, OwnProcess, RESULT};
use crate::files;
use crate::kinds::http::Web;

/// The kind of task with which a process of its own is asked for the states of tables.
const STATE: &str = "state";
/// The most files that a pattern may name. Those of one that names more are not looked at.
const FILES: usize = 10_000;

/// The states of what `names` names, by the names under which it is shown.
///
/// Errors: `Cancelled`. What cannot be told for another reason is `None`, and noted.
pub(super) async fn of(attempt: &Attempt<'_>, names: &BTreeMap<String, String>) -> Result<Inputs> {
    let mut inputs = Inputs::new();
    let mut tables = BTreeMap::new();
    for (shown, name) in names {
        match name.parse::<Dataset>() {
            Ok(Dataset::Lake(_) | Dataset::Connection { .. }) => drop(tables.insert(shown, name)),
            // The name of a folder alone is no address of a data set, and may be an input.
            Ok(Dataset::Files(_)) | Err(_) => {
                let state = match of_files(attempt, name).await {
                    Ok(state) => state,
                    Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
                    Err(error) => {
                        attempt.note(&format!("cache: {shown}: {error}"));
                        None
                    }
                };
                inputs.insert(shown.clone(), state);
            }
        }
    }
    if tables.is_empty() {
        return Ok(inputs);
    }
    let asked: Vec<&String> = tables.values().copied().collect();
    let said = match of_tables(attempt, &asked).await {
        Ok(said) => said,
        Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
        Err(error) => {
            attempt.note(&format!("cache: {error}"));
            Value::Null
        }
    };
    for (shown, name) in tables {
        if let Entry::Vacant(place) = inputs.entry(shown.clone()) {
            place.insert(said[name].as_str().map(str::to_owned));
        }
    }
    Ok(inputs)
}

/// Asks a process of its own: its output has the state of each table under its name, or null.
async fn of_tables(attempt: &Attempt<'_>, names: &[&String]) -> Result<Value> {
    let config = json!({ "datasets": names });
    let task = Task { kind: STATE.to_owned(), memory: None, ..attempt.task.clone() };
    let asking = Attempt {
        task: &task,
        config: &config,
        shown: &config,
        environment: attempt.environment.clone(),
        masks: attempt.masks.clone(),
        ..*attempt
    };
    let said = asking.in_own_process(config.clone()).await;
    // What the task itself says comes to the same place. It may be that nothing was said.
    let _ = std::fs::remove_file(attempt.scratch.join(RESULT));
    match said? {
        OwnProcess::Done(done) => Ok(done.output),
        OwnProcess::Ended(_) if attempt.cancel.is_cancelled() => {
            Err(flumen_core::Error::new(ErrorKind::Cancelled, "it was stopped"))
        }
        OwnProcess::Ended(_) => Ok(Value::Null),
    }
}

/// The state of the files that a path or a pattern names, or of all in a folder.
async fn of_files(attempt: &Attempt<'_>, address: &str) -> Result<Option<String>> {
    let project = &attempt.host.project;
    if address.starts_with("http://") || address.starts_with("https://") {
        return tokio::select! {
            state = of_address(attempt, address) => state,
            () = attempt.cancel.cancelled() => Err(flumen_core::Error::new(ErrorKind::Cancelled, "it was stopped")),
        };
    }
    // The name of a connection stands for whatever a query finds there.
    if task_kind::is_template(address) || project.connection(address).is_ok() {
        return Ok(None);
    }
    let mut found = files::find(project, address, FILES + 1).await?;
    if found.is_empty() {
        let all = format!("{}/**", address.trim_end_matches('/'));
        found = files::find(project, &all, FILES + 1).await?;
    }
    if found.is_empty() || found.len() > FILES {
        return Ok(None);
    }
    let one = |file: &files::Found| {
        let meta = &file.meta;
        let mark = meta.e_tag.as_ref().or(meta.version.as_ref());
        format!("{} {} {} {mark:?}\n", file.address, meta.size, meta.last_modified.timestamp_micros())
    };
    let all: String = found.iter().map(one).collect();
    Ok(Some(parts::hash(all.as_bytes())))
}

/// The state of what a web server has, if it tells.
async fn of_address(attempt: &Attempt<'_>, address: &str) -> Result<Option<String>> {
    let web = Web::of(&attempt.host.project, address, None)?;
    let answer = web.request("HEAD")?.send().await.map_err(|error| web.error(error))?;
    if !answer.status().is_success() {
        return Ok(None);
    }
    let header = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
    let told = match (header(ETAG), header(LAST_MODIFIED), header(CONTENT_LENGTH)) {
        (Some(tag), ..) if !tag.starts_with("W/") => Some(tag.to_owned()),
        (_, Some(modified), Some(length)) => Some(format!("{modified} {length}")),
        _ => None,
    };
    Ok(told.map(|told| parts::hash(told.as_bytes())))
}
