//! A request to a web server, with the connection that it lies below; and what its answer means where it is not the wanted one.

use std::collections::BTreeMap;

use flumen_core::{Error, ErrorKind, Result};
use flumen_project::Project;
use flumen_project::connections::http::http_error;
use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::{Map, Value};
use url::Url;

use crate::log::Masks;

/// Bytes of an answer that a message quotes.
const QUOTED_BYTES: usize = 500;

/// An address, and the client that is let in there.
pub(crate) struct Web {
    client: Client,
    url: Url,
    place: String,
    masks: Masks,
}

impl Web {
    /// The address `url`, or the path below that of a connection.
    pub(crate) fn of(project: &Project, url: &str, connection: Option<&str>) -> Result<Self> {
        let (client, url) = match connection {
            Some(name) => {
                let config = project.connection(name)?.http()?;
                (config.client()?, if url.is_empty() { config.url.clone() } else { config.address(url)? })
            }
            None => {
                let parsed = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
                let url = parsed.ok_or_else(|| {
                    Error::invalid(format!("'{url}' is not a web address"))
                        .hint("write it as https://example.org/x, or name the 'connection' that it is a path of")
                })?;
                (project.http_client_for(&url)?, url)
            }
        };
        let place = shown(&url);
        Ok(Self { client, url, place, masks: secrets(project) })
    }

    /// Lets no message show more of the address than its server: the rest of it lets anyone in.
    pub(crate) fn hide_path(&mut self) {
        self.place = self.url.origin().ascii_serialization();
    }

    /// The address as messages show it.
    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    /// `text` without the secrets of connections.
    pub(crate) fn masked(&self, text: &str) -> String {
        self.masks.apply(text).into_owned()
    }

    /// Adds to the address.
    pub(crate) fn add_params(&mut self, params: &Map<String, Value>) {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let given = params.iter().filter(|(_, value)| !value.is_null());
        let pairs: Vec<(&String, String)> = given
            .flat_map(|(name, value)| match value {
                Value::Array(items) => items.iter().map(|item| (name, text(item))).collect(),
                one => vec![(name, text(one))],
            })
            .collect();
        if !pairs.is_empty() {
            self.url.query_pairs_mut().extend_pairs(pairs);
        }
    }

    /// A request.
    pub(crate) fn request(&self, method: &str) -> Result<RequestBuilder> {
        let parsed = Method::from_bytes(method.to_ascii_uppercase().as_bytes())
            .map_err(|_| Error::invalid(format!("'{method}' is not a method")).hint("write it as GET or POST"))?;
        Ok(self.client.request(parsed, self.url.clone()))
    }

    /// A request with these headers too.
    pub(crate) fn with_headers(
        &self,
        mut request: RequestBuilder,
        headers: &BTreeMap<String, String>,
    ) -> Result<RequestBuilder> {
        for (name, value) in headers {
            let wrong = |what: &str| Error::invalid(format!("headers: '{name}' {what}"));
            let parsed: HeaderName = name.parse().map_err(|_| wrong("is not the name of a header"))?;
            let value: HeaderValue = value.parse().map_err(|_| wrong("has a value that a header cannot have"))?;
            request = request.header(parsed, value);
        }
        Ok(request)
    }

    /// A request with a body of JSON, unless its headers say that it is something else.
    pub(crate) fn with_json(&self, request: RequestBuilder, body: &Value) -> RequestBuilder {
        let has_type = request
            .try_clone()
            .and_then(|request| request.build().ok())
            .is_some_and(|request| request.headers().contains_key(CONTENT_TYPE));
        let request = if has_type { request } else { request.header(CONTENT_TYPE, "application/json") };
        request.body(body.to_string())
    }

    /// What an error of the client means.
    pub(crate) fn error(&self, error: reqwest::Error) -> Error {
        let shown: Result<Url, _> = self.place.parse();
        let error = http_error(shown.as_ref().unwrap_or(&self.url), error);
        let masked = Error::new(error.kind(), self.masked(error.message()));
        match error.remedy() {
            Some(remedy) => masked.hint(remedy),
            None => masked,
        }
    }
}

/// An address without what it asks for: that may be a secret.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // Only addresses that have no host cannot have a password.
    let _ = url.set_password(None).and_then(|()| url.set_username(""));
    url.to_string()
}

/// What connections of the project let us in with. One that cannot be read is not used, or fails where it is.
fn secrets(project: &Project) -> Masks {
    let fields = project.connections().filter_map(|connection| connection.fields().ok());
    let secrets: Vec<String> = fields
        .flat_map(|fields| fields.into_values())
        .filter(|field| field.secret && !field.text.contains("://"))
        .map(|field| field.text)
        .collect();
    Masks::new(secrets.iter().map(String::as_str))
}

/// The error of an answer that is not the wanted one.
pub(crate) async fn refused(web: &Web, method: &str, answer: Response) -> Error {
    let status = answer.status();
    let text = quoted(answer).await;
    let said = if text.is_empty() { String::new() } else { format!(": {text}") };
    let message = format!("{method} {}: the server answers {status}{said}", web.place());
    let error = Error::new(kind_of(status), web.masked(&message));
    match status.as_u16() {
        401 | 403 => error.hint("check the credentials in the connection, or in 'headers'"),
        404 | 410 => error.hint("check the address"),
        200..=299 => error.hint("name the status codes that are right with 'expect'"),
        _ => error,
    }
}

/// What an answer means for another attempt.
fn kind_of(status: StatusCode) -> ErrorKind {
    match status.as_u16() {
        408 | 425 | 429 | 500..=599 => ErrorKind::Unavailable,
        404 | 410 => ErrorKind::NotFound,
        409 | 412 | 423 => ErrorKind::Conflict,
        300..=499 => ErrorKind::Invalid,
        _ => ErrorKind::Data,
    }
}

/// The beginning of an answer, on one line.
async fn quoted(mut answer: Response) -> String {
    let mut bytes = Vec::new();
    // What can be had of it is enough.
    while bytes.len() < QUOTED_BYTES
        && let Ok(Some(chunk)) = answer.chunk().await
    {
        bytes.extend_from_slice(&chunk);
    }
    bytes.truncate(QUOTED_BYTES);
    let text = String::from_utf8_lossy(&bytes);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
