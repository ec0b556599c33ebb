//! `http`: a request to a web server.

mod web;

use std::collections::BTreeMap;
use std::path::Path as FilePath;

use async_trait::async_trait;
use flumen_core::flow::Outcome;
use flumen_core::task_kind::units::{Bytes, Period};
use flumen_core::task_kind::{Named, Path, Problem, TaskKind, Uses, is_template, schema_of};
use flumen_core::{Error, Result};
use reqwest::header::{CONTENT_TYPE, HeaderMap, SET_COOKIE};
use reqwest::{Response, StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::io::AsyncWriteExt as _;

use super::{Kind, OneOrMore};
use crate::attempt::Attempt;
pub(crate) use web::Web;
pub(super) use web::refused;

/// The most bytes of a body that becomes an output, unless told otherwise.
const BODY_BYTES: u64 = 1 << 20;

/// The kind `http`.
#[derive(Debug)]
pub struct Http;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Fields {
    /// The address; with `connection`, the path below its url.
    url: String,
    /// The connection of kind http that is used. By default the first one whose url the address begins with.
    connection: Option<String>,
    /// The method: `GET` by default, `POST` with a body.
    method: Option<String>,
    /// Headers.
    headers: Option<BTreeMap<String, String>>,
    /// What is added to the address after '?'. A list stands for several with the same name.
    params: Option<Map<String, Value>>,
    /// What is sent, as text.
    body: Option<String>,
    /// What is sent, as JSON.
    json: Option<Value>,
    /// The status codes that are a success: those from 200 to 299 by default.
    expect: Option<OneOrMore<u16>>,
    /// The file into which the body is written, from the project's folder; it is not part of the output then.
    save: Option<String>,
    /// How long the whole may take. A server that is silent for 30 s fails in any case.
    timeout: Option<Period>,
    /// The most bytes of a body that becomes an output: 1 MiB by default.
    limit: Option<Bytes>,
}

/// What is wrong with the `url` of a request, where no connection says what it is below.
pub(super) fn no_address(config: &Value) -> Option<Problem> {
    let url = config["url"].as_str().filter(|url| config["connection"].is_null() && !is_template(url))?;
    let is_address = url::Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    let problem = Problem::new(Path::of(["url"]), format!("'{url}' is no address of a web server"));
    (!is_address).then(|| problem.hint("write https://…, or name a connection of kind http"))
}

impl TaskKind for Http {
    fn name(&self) -> &'static str {
        "http"
    }

    fn about(&self) -> &'static str {
        "Asks a web server. Its output is the status, the headers, and the body: read, where it is JSON."
    }

    fn schema(&self) -> Value {
        schema_of::<Fields>()
    }

    fn bare_field(&self) -> Option<&'static str> {
        Some("url")
    }

    fn check(&self, config: &Value) -> Vec<Problem> {
        let mut problems: Vec<Problem> = no_address(config).into_iter().collect();
        if !config["body"].is_null() && !config["json"].is_null() {
            problems.push(Problem::at_key(Path::of(["json"]), "there is a 'body' too").hint("keep one of the two"));
        }
        problems
    }

    fn uses(&self, config: &Value) -> Uses {
        Uses { connections: Named::at(config, Path::of(["connection"])).into_iter().collect(), ..Uses::default() }
    }
}

#[async_trait]
impl Kind for Http {
    async fn run(&self, attempt: &Attempt<'_>) -> Result<Outcome> {
        let fields: Fields = attempt.fields()?;
        tokio::select! {
            answer = ask(attempt, fields) => answer.map(Outcome::success),
            () = attempt.cancel.cancelled() => Ok(Outcome::Cancelled),
        }
    }

    fn starts_programs(&self) -> bool {
        false
    }
}

async fn ask(attempt: &Attempt<'_>, fields: Fields) -> Result<Value> {
    let mut web = Web::of(&attempt.host.project, &fields.url, fields.connection.as_deref())?;
    web.add_params(&fields.params.unwrap_or_default());
    let has_body = fields.body.is_some() || fields.json.is_some();
    let method = fields.method.unwrap_or_else(|| if has_body { "POST" } else { "GET" }.to_owned());
    let mut request = web.request(&method)?;
    request = web.with_headers(request, &fields.headers.unwrap_or_default())?;
    if let Some(json) = &fields.json {
        request = web.with_json(request, json);
    } else if let Some(body) = fields.body {
        request = request.body(body);
    }
    if let Some(Period(timeout)) = fields.timeout {
        request = request.timeout(timeout);
    }
    let answer = request.send().await.map_err(|error| web.error(error))?;
    let status = answer.status();
    attempt.note(&web.masked(&format!("{method} {}: {status}", web.place())));
    let is_expected = match fields.expect {
        Some(codes) => codes.into_list().contains(&status.as_u16()),
        None => status.is_success(),
    };
    if !is_expected {
        return Err(refused(&web, &method, answer).await);
    }
    let headers = shown(answer.headers());
    match fields.save {
        Some(file) => {
            let bytes = save(&web, answer, &attempt.host.project.dir().join(&file)).await?;
            Ok(json!({ "status": status.as_u16(), "headers": headers, "file": file, "bytes": bytes }))
        }
        None => {
            let limit = fields.limit.map_or(BODY_BYTES, |limit| limit.0);
            let body = body(&web, answer, limit).await?;
            Ok(json!({ "status": status.as_u16(), "headers": headers, "body": body }))
        }
    }
}

/// The headers of an answer, but those that let somebody in.
fn shown(headers: &HeaderMap) -> Map<String, Value> {
    let mut shown: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in headers.iter().filter(|(name, _)| **name != SET_COOKIE) {
        let value = String::from_utf8_lossy(value.as_bytes());
        shown
            .entry(name.as_str().to_owned())
            .and_modify(|all| *all = format!("{all}, {value}"))
            .or_insert_with(|| value.into_owned());
    }
    shown.into_iter().map(|(name, value)| (name, Value::from(value))).collect()
}

/// The body of an answer as a value.
async fn body(web: &Web, mut answer: Response, limit: u64) -> Result<Value> {
    let is_json = answer.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).is_some_and(|kind| {
        let kind = kind.split(';').next().unwrap_or_default().trim();
        kind.eq_ignore_ascii_case("application/json") || kind.to_ascii_lowercase().ends_with("+json")
    });
    let status = answer.status();
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| web.error(error))? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() as u64 > limit {
            return Err(Error::invalid(format!("{}: the answer has more than {limit} bytes", web.place())).hint(
                "write it to a file with 'save', load it with a task of kind ingest, or set 'limit' (16 MB at most)",
            ));
        }
    }
    if bytes.is_empty() || status == StatusCode::NO_CONTENT {
        return Ok(Value::Null);
    }
    if is_json {
        return serde_json::from_slice(&bytes).map_err(|error| {
            Error::data(format!("{}: the answer says that it is JSON, and is not ({error})", web.place()))
                .caused_by(error)
        });
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        Error::data(format!("{}: the answer is not text", web.place()))
            .hint("write it to a file with 'save'")
            .caused_by(error)
    })?;
    // Some servers give JSON without saying so.
    Ok(match text.trim_start().starts_with(['{', '[']) {
        true => serde_json::from_str(&text).unwrap_or(Value::String(text)),
        false => Value::String(text),
    })
}

/// Writes the body of an answer into a file, which is there whole or not at all.
async fn save(web: &Web, mut answer: Response, file: &FilePath) -> Result<u64> {
    let failed = |error: std::io::Error| Error::io(file.display(), error);
    let folder = file.parent().unwrap_or(FilePath::new("."));
    std::fs::create_dir_all(folder).map_err(failed)?;
    let (part, path) = tempfile::Builder::new().prefix(".part-").tempfile_in(folder).map_err(failed)?.into_parts();
    let mut part = tokio::fs::File::from_std(part);
    let mut bytes = 0;
    while let Some(chunk) = answer.chunk().await.map_err(|error| web.error(error))? {
        part.write_all(&chunk).await.map_err(failed)?;
        bytes += chunk.len() as u64;
    }
    part.sync_all().await.map_err(failed)?;
    path.persist(file).map_err(|error| failed(error.error))?;
    Ok(bytes)
}
