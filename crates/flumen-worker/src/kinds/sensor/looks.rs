//! What a sensor looks at, but files and data sets.

use chrono::{DateTime, TimeDelta, Utc};
use flumen_core::flow::store::RunFilter;
use flumen_core::flow::{FlowName, Outcome, RunRecord, RunState, WaitFor};
use flumen_core::task_kind::units::Period;
use flumen_core::{Error, ErrorKind, Result};
use flumen_flow::template::{Context, Renderer};
use flumen_flow::timetable::dates::Stretch;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{Fields, HttpCondition, Look, RunCondition, RunField, SqlCondition, delta};
use crate::attempt::{Attempt, OwnProcess};
use crate::kinds::flow::end_of;
use crate::kinds::http::{Web, refused};

/// The most bytes of an answer that is looked at.
const ANSWER_BYTES: usize = 16 << 20;
/// Characters of an answer that are told of.
const SHOWN: usize = 200;
/// The most runs of an interval that are looked at.
const RUNS: usize = 100;

/// The moment that a sensor waits for, if it is one of a time.
pub(super) async fn moment(attempt: &Attempt<'_>, fields: &Fields) -> Result<Option<DateTime<Utc>>> {
    if let Some(text) = &fields.time {
        let zone = attempt.version.compiled.timetable.zone();
        return Ok(Some(Stretch::parse(text, zone).map_err(|error| error.within("time"))?.first));
    }
    let Some(Period(delay)) = fields.delay else { return Ok(None) };
    Ok(attempt.began().await?.checked_add_signed(delta(delay)))
}

/// Whether a web server answers as it should.
pub(super) async fn http(attempt: &Attempt<'_>, condition: &HttpCondition) -> Result<Look> {
    let mut web = Web::of(&attempt.host.project, &condition.url, condition.connection.as_deref())?;
    web.add_params(&condition.params.clone().unwrap_or_default());
    let method = condition.method.as_deref().unwrap_or("GET");
    let request = web.with_headers(web.request(method)?, &condition.headers.clone().unwrap_or_default())?;
    let mut answer = request.send().await.map_err(|error| web.error(error))?;
    let status = answer.status();
    let is_wanted = match &condition.status {
        Some(codes) => codes.clone().into_list().contains(&status.as_u16()),
        None => status.is_success(),
    };
    if !is_wanted {
        // To be kept out is no state that passes.
        if condition.status.is_none() && matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(refused(&web, method, answer).await);
        }
        return Ok(Look::NotYet(None, format!("the answer is {status}")));
    }
    let mut bytes = Vec::new();
    let reads = condition.contains.is_some() || condition.when.is_some();
    while reads && let Some(chunk) = answer.chunk().await.map_err(|error| web.error(error))? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > ANSWER_BYTES {
            return Err(Error::invalid(format!("{}: the answer is too large to be looked at", web.place()))
                .hint("ask for less of it"));
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    if condition.contains.as_ref().is_some_and(|wanted| !text.contains(wanted.as_str())) {
        return Ok(Look::NotYet(None, format!("the answer is {status}, without the text")));
    }
    let read: Option<Value> = serde_json::from_str(&text).ok();
    if let Some(expression) = &condition.when {
        // What is no JSON yet may be later.
        let Some(answer) = &read else {
            return Ok(Look::NotYet(None, format!("the answer is {status}, and no JSON")));
        };
        if !holds(attempt, expression, answer, status)? {
            return Ok(Look::NotYet(None, format!("the answer is {status}: {}", short(answer))));
        }
    }
    Ok(Look::There(json!({ "status": status.as_u16(), "body": read })))
}

/// A value, as much of it as fits a line.
fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Whether an expression over an answer is true.
fn holds(attempt: &Attempt<'_>, expression: &str, answer: &Value, status: StatusCode) -> Result<bool> {
    let run = &attempt.work.run;
    let zone = attempt.version.compiled.timetable.zone();
    let mut context = Context::new(run.flow.as_str(), attempt.task.id.as_str(), run.interval, zone);
    context.more =
        [("answer".to_owned(), answer.clone()), ("status".to_owned(), status.as_u16().into())].into_iter().collect();
    // An answer that lacks a part may have it later.
    Renderer::new(context).truth_so_far("sensor.http.when", expression)
}

/// Whether the first value of a query is true.
pub(super) async fn sql(attempt: &Attempt<'_>, condition: &SqlCondition) -> Result<Look> {
    let config = json!({ "query": condition.query, "connection": condition.connection });
    match attempt.in_own_process(config).await? {
        OwnProcess::Done(done) if is_true(&done.output) => Ok(Look::There(done.output)),
        OwnProcess::Done(done) => Ok(Look::NotYet(None, format!("the query gives {}", short(&done.output)))),
        OwnProcess::Ended(ended) => Ok(Look::Never(attempt.ended_badly(ended))),
    }
}

/// Whether a value of a query stands for yes.
fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(is) => *is,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !["", "0", "f", "false", "no", "off"].contains(&text.trim().to_lowercase().as_str()),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// Whether a run of another flow has ended well.
pub(super) async fn run(attempt: &Attempt<'_>, field: &RunField) -> Result<Look> {
    let found = match field {
        RunField::Flow(flow) => by_interval(attempt, flow, None, None).await?,
        RunField::Run(RunCondition { id: Some(id), .. }) => match attempt.host.store.run(id.parse()?).await {
            Ok(run) => Some(run),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        },
        RunField::Run(RunCondition { flow, deployment, interval, id: None }) => {
            let flow = flow.as_deref().ok_or_else(|| Error::invalid("run: give either 'flow' or 'id'"))?;
            by_interval(attempt, flow, deployment.as_deref(), interval.as_deref()).await?
        }
    };
    let Some(run) = found else { return Ok(Look::NotYet(None, "there is no such run yet".to_owned())) };
    Ok(match end_of(&run) {
        Some(Outcome::Success { output, .. }) => Look::There(output),
        Some(outcome) => Look::Never(outcome),
        None => Look::NotYet(Some(WaitFor::Run { run: run.id }), format!("run {} is {}", run.id, run.state)),
    })
}

/// The run of a flow whose interval begins when that of this run does, or in `interval`: one that succeeded, else the last one.
async fn by_interval(
    attempt: &Attempt<'_>,
    flow: &str,
    deployment: Option<&str>,
    interval: Option<&str>,
) -> Result<Option<RunRecord>> {
    let (from, to) = match interval {
        None => (attempt.work.run.interval.start, attempt.work.run.interval.start),
        Some(text) => {
            let zone = attempt.version.compiled.timetable.zone();
            let stretch = Stretch::parse(text, zone).map_err(|error| error.within("run.interval"))?;
            (stretch.first, stretch.after - TimeDelta::microseconds(1))
        }
    };
    let filter = RunFilter {
        flow: Some(FlowName::from(flow)),
        deployment: deployment.map(str::to_owned),
        from: Some(from),
        to: Some(to),
        limit: Some(RUNS),
        ..RunFilter::default()
    };
    let mut runs = attempt.host.store.runs(&filter).await?;
    runs.retain(|run| run.deployment.as_deref() == deployment && run.id != attempt.work.run.id);
    let best = runs.iter().position(|run| run.state == RunState::Success).unwrap_or(0);
    Ok(runs.into_iter().nth(best))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_stand_for_yes() {
        for (value, expect) in [
            (json!(null), false),
            (json!(false), false),
            (json!(true), true),
            (json!(0), false),
            (json!(0.0), false),
            (json!(-1), true),
            (json!(""), false),
            (json!("f"), false),
            (json!("0"), false),
            (json!("yes"), true),
        ] {
            assert_eq!(is_true(&value), expect, "{value}");
        }
    }
}
