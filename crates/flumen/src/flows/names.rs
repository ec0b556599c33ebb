//! How runs and tasks are named on the command line.

use flumen_core::flow::store::{MetaStore, RunFilter};
use flumen_core::flow::{FlowName, RunId, RunRecord, TaskKey};
use flumen_core::{Error, Result};

/// What runs are filed under in which a task is tried out alone; the flow's name does not mean them.
pub const TEST: &str = "test";
/// So many of them in a row are passed over.
const TESTS: usize = 50;
/// The word for the latest run.
const LAST: &str = "last";

/// The run that `text` names: its id, a flow for its latest run, the beginning of an id, or `last` for the latest of all.
///
/// Errors: `NotFound`; `Invalid` for a beginning that several runs share.
pub async fn run(store: &dyn MetaStore, text: &str) -> Result<RunRecord> {
    if let Ok(id) = text.parse::<RunId>() {
        return store.run(id).await;
    }
    let latest = |flow: Option<FlowName>| RunFilter { flow, limit: Some(1), ..RunFilter::default() };
    if text == LAST {
        let found = store.runs(&latest(None)).await?.pop();
        return found.ok_or_else(|| Error::not_found("there are no runs yet").hint("begin one: flumen run FLOW"));
    }
    // A flow may be called as an id begins.
    let of_flow = RunFilter { limit: Some(TESTS), ..latest(Some(FlowName::from(text))) };
    let is_real = |run: &RunRecord| run.deployment.as_deref() != Some(TEST);
    if let Some(found) = store.runs(&of_flow).await?.into_iter().find(is_real) {
        return Ok(found);
    }
    if text.len() >= 2 && text.chars().all(|c| c.is_ascii_hexdigit()) {
        let filter = RunFilter { prefix: Some(text.to_ascii_lowercase()), limit: Some(2), ..RunFilter::default() };
        let mut found = store.runs(&filter).await?;
        if found.len() > 1 {
            return Err(Error::invalid(format!("several runs begin with '{text}'")).hint("write more of the id"));
        }
        if let Some(only) = found.pop() {
            return Ok(only);
        }
    }
    Err(Error::not_found(format!("there is no run '{text}'")).hint(
        "write the beginning of its id, the name of a flow for its latest run, or 'last'; 'flumen run list' shows them",
    ))
}

/// A run and a task of it: `RUN/TASK`, `RUN/TASK[3]`.
///
/// Errors: as [`run`]; `Invalid` where there is no slash.
pub async fn run_and_task(store: &dyn MetaStore, text: &str) -> Result<(RunRecord, TaskKey)> {
    let (name, task) = text
        .split_once('/')
        .ok_or_else(|| Error::invalid(format!("'{text}' names no task")).hint("write RUN/TASK, such as last/load"))?;
    Ok((run(store, name).await?, task.parse()?))
}

/// Who asks: the user of this computer.
pub fn person() -> String {
    let named = |name| std::env::var(name).ok().filter(|name| !name.is_empty());
    let named = named("FLUMEN_USER").or_else(|| named("USER")).or_else(|| named("LOGNAME"));
    named.or_else(account).unwrap_or_else(|| "somebody".to_owned())
}

/// The name of the account under which this process runs, as this machine has it.
fn account() -> Option<String> {
    let accounts = std::fs::read_to_string("/etc/passwd").ok()?;
    let own = rustix::process::getuid().as_raw().to_string();
    accounts.lines().find_map(|line| {
        // Name, password, number.
        let mut parts = line.split(':');
        let name = parts.next()?;
        (parts.nth(1)? == own).then(|| name.to_owned())
    })
}
