//! What a scheduler asks about flows: the graph of a run, whether a task's condition holds, and the list that it runs for.

use std::sync::Arc;

use flumen_core::Result;
use flumen_core::boxed;
use flumen_core::flow::{Answer, Ask, RunRecord, TaskKey};
use flumen_flow::definition::ForEachSource;
use flumen_flow::machine::{Graph, Run};
use flumen_flow::template::Renderer;
use serde_json::Value;

use crate::host::Host;
use crate::{outputs, templates};

/// The flow of a run, in the version that the run keeps.
///
/// Errors: `NotFound`; `Invalid` for a version that cannot be read here; those of the store.
#[boxed]
pub async fn graph(host: &Host, record: &RunRecord) -> Result<Arc<Graph>> {
    Ok(Arc::clone(&host.library.version(&record.version, &*host.store).await?.graph))
}

/// The answer to a question about a task; `None` where it has to be asked again, as the store or the lake's root cannot be read.
#[boxed]
pub async fn answer(host: &Host, run: &Run, graph: &Graph, key: &TaskKey, ask: Ask) -> Option<Answer> {
    match try_answer(host, run, graph, key, ask).await {
        Ok(answer) => Some(answer),
        Err(error) if error.kind() == flumen_core::ErrorKind::Unavailable => None,
        Err(error) => Some(Answer::Failed { message: error.to_string() }),
    }
}

async fn try_answer(host: &Host, run: &Run, graph: &Graph, key: &TaskKey, ask: Ask) -> Result<Answer> {
    let record = run.record();
    let version = host.library.version(&record.version, &*host.store).await?;
    let id = key.task.as_str();
    let task = version.compiled.flow.task(id).ok_or_else(|| templates::no_task(&version, id))?;
    let uses = version.uses(id);
    if uses.variables {
        host.read_variables().await?;
    }
    let mut values = version.outputs.clone();
    for other in version
        .compiled
        .flow
        .tasks
        .iter()
        .filter(|other| uses.outputs.as_ref().is_none_or(|names| names.contains(&other.id)))
    {
        if let Some(output) = run.output(graph, &other.id) {
            values.insert(other.id.clone(), outputs::read(&host.kept, &output).await?);
        }
    }
    let seen = templates::Seen { run: record, version: &version, project: &host.project, now: host.clock.now() };
    let mut context = seen.context(Some(key), 1, values)?;
    if uses.last_success {
        context.last_success = templates::last_success(&*host.store, record.id).await?;
    }
    let renderer = Renderer::new(context);
    match ask {
        Ask::When => {
            let holds = task.when.as_ref().map_or(Ok(true), |when| renderer.truth("when", when))?;
            Ok(Answer::When { holds })
        }
        Ask::Items => {
            let items = match task.for_each.as_ref().map(|each| &each.source) {
                Some(ForEachSource::Items(items)) => {
                    renderer.json("for_each", &Value::Array(items.clone()), true)?.value
                }
                Some(ForEachSource::Expression(text)) => Value::Array(renderer.list("for_each", text)?.value),
                _ => Value::Array(Vec::new()),
            };
            let Value::Array(items) = items else { return Ok(Answer::Items { items: vec![items] }) };
            Ok(Answer::Items { items })
        }
        // The store knows the run before.
        Ask::Past => Ok(Answer::Past { done: false }),
    }
}
