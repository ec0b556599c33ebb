//! A container engine, as far as tasks need it: the part of Docker's API that Podman speaks too.

use std::collections::BTreeMap;
use std::time::Duration;

use flumen_core::{Error, ErrorKind, Result};
use reqwest::{Client, Method, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::log::{Lines, Log, Masks, Stream};

/// How long an engine may take to answer what it can answer at once.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes before each piece of a container's output: which stream it is of, and how long.
const HEADER_BYTES: usize = 8;

/// A client of an engine.
pub(super) struct Engine {
    client: Client,
    base: String,
    place: String,
}

/// How a container ended.
#[derive(Debug)]
pub(super) struct Exit {
    /// Its exit code.
    pub code: i64,
    /// Whether the kernel ended it since it took too much memory.
    pub out_of_memory: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    state: State,
}

#[derive(Debug, Deserialize)]
struct State {
    #[serde(rename = "ExitCode")]
    code: i64,
    #[serde(rename = "OOMKilled", default)]
    out_of_memory: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    id: String,
}

impl Engine {
    /// The engine at `place`: `unix:///run/docker.sock`, a path, or `tcp://host:port`.
    pub(super) fn at(place: &str) -> Result<Self> {
        let builder = Client::builder().no_proxy();
        let (builder, base) = if let Some(host) = place.strip_prefix("tcp://").or(place.strip_prefix("http://")) {
            (builder, format!("http://{}", host.trim_end_matches('/')))
        } else if let Some(path) = place.strip_prefix("unix://").or(Some(place).filter(|place| place.starts_with('/')))
        {
            // The name of a host is asked for, and means nothing.
            (builder.unix_socket(path), "http://engine".to_owned())
        } else {
            return Err(Error::invalid(format!("'{place}' is not the place of a container engine"))
                .hint("write it as unix:///run/docker.sock or tcp://host:2375"));
        };
        let client = builder.build().map_err(|error| Error::internal("no HTTP client can be made").caused_by(error))?;
        Ok(Self { client, base, place: place.to_owned() })
    }

    async fn ask(&self, method: Method, path: &str, query: &[(&str, &str)], body: Option<&Value>) -> Result<Response> {
        let mut request = self.client.request(method, format!("{}{path}", self.base)).query(query);
        if let Some(body) = body {
            request = request.header(reqwest::header::CONTENT_TYPE, "application/json").body(body.to_string());
        }
        request.send().await.map_err(|error| self.away(error))
    }

    /// The same, for what is answered at once.
    async fn quick(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Response> {
        tokio::time::timeout(ANSWER_TIMEOUT, self.ask(method, path, query, body)).await.unwrap_or_else(|_| {
            Err(Error::unavailable(format!("the container engine at {} does not answer in time", self.place))
                .hint("check that it is well"))
        })
    }

    fn away(&self, error: reqwest::Error) -> Error {
        let error = error.without_url();
        let mut cause: &dyn std::error::Error = &error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        let message = format!("the container engine at {} cannot be talked to: {cause}", self.place);
        let hint = "start Docker or Podman, and let this user use its socket; 'socket' or DOCKER_HOST say where it is";
        Error::unavailable(message).hint(hint).caused_by(error)
    }

    /// The answer, if the engine did what it was asked; else what it says.
    async fn done(&self, what: &str, answer: Response) -> Result<Response> {
        let status = answer.status();
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            return Ok(answer);
        }
        let said: Option<Value> = answer.bytes().await.ok().and_then(|text| serde_json::from_slice(&text).ok());
        let said = said.and_then(|said| Some(said["message"].as_str()?.to_owned())).unwrap_or_default();
        let kind = match status.as_u16() {
            404 => ErrorKind::NotFound,
            409 => ErrorKind::Conflict,
            400..=499 => ErrorKind::Invalid,
            _ => ErrorKind::Unavailable,
        };
        Err(Error::new(kind, format!("{what}: the container engine answers {status}: {said}")))
    }

    async fn json<T: serde::de::DeserializeOwned>(&self, what: &str, answer: Response) -> Result<T> {
        let bytes = answer.bytes().await.map_err(|error| self.away(error))?;
        serde_json::from_slice(&bytes).map_err(|error| {
            Error::data(format!("{what}: the container engine's answer makes no sense")).caused_by(error)
        })
    }

    /// Removes the containers that have these labels.
    pub(super) async fn remove_labelled(&self, labels: &BTreeMap<String, String>) -> Result<()> {
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let filters = json!({ "label": labels }).to_string();
        let query = [("all", "true"), ("filters", filters.as_str())];
        let answer = self.quick(Method::GET, "/containers/json", &query, None).await?;
        let answer = self.done("look for containers", answer).await?;
        for Listed { id } in self.json::<Vec<Listed>>("look for containers", answer).await? {
            self.remove(&id).await?;
        }
        Ok(())
    }

    /// Whether an image is there.
    pub(super) async fn has_image(&self, image: &str) -> Result<bool> {
        let answer = self.quick(Method::GET, &format!("/images/{image}/json"), &[], None).await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(false);
        }
        self.done(&format!("image {image}"), answer).await.map(|_| true)
    }

    /// Pulls an image.
    pub(super) async fn pull(&self, image: &str) -> Result<()> {
        // A name without a tag would pull all of them.
        let last = image.rsplit('/').next().unwrap_or(image);
        let whole = if last.contains([':', '@']) { image.to_owned() } else { format!("{image}:latest") };
        let what = format!("pull {image}");
        let answer = self.ask(Method::POST, "/images/create", &[("fromImage", &whole)], None).await?;
        let mut answer = self.done(&what, answer).await?;
        // It tells how far it is, line by line; what went wrong is one of the lines.
        let mut lines = Lines::new(Masks::default());
        let mut problem = None;
        let mut read = |line: &str| {
            let said: Value = serde_json::from_str(line).unwrap_or_default();
            if let Some(error) = said["error"].as_str() {
                problem = Some(error.to_owned());
            }
        };
        while let Some(chunk) = answer.chunk().await.map_err(|error| self.away(error))? {
            lines.push(&chunk, &mut read);
        }
        lines.finish(&mut read);
        match problem {
            None => Ok(()),
            Some(problem) => {
                let is_unknown = ["not found", "manifest unknown", "does not exist", "denied"];
                let kind = match is_unknown.iter().any(|words| problem.contains(words)) {
                    true => ErrorKind::NotFound,
                    false => ErrorKind::Unavailable,
                };
                Err(Error::new(kind, format!("{what}: {problem}")).hint("check the name of the image"))
            }
        }
    }

    /// Makes a container, and gives its id.
    pub(super) async fn create(&self, name: &str, wanted: &Value) -> Result<String> {
        let answer = self.quick(Method::POST, "/containers/create", &[("name", name)], Some(wanted)).await?;
        let answer = self.done("make the container", answer).await?;
        self.json::<Listed>("make the container", answer).await.map(|made| made.id)
    }

    /// Starts a container.
    pub(super) async fn start(&self, id: &str) -> Result<()> {
        let answer = self.quick(Method::POST, &format!("/containers/{id}/start"), &[], None).await?;
        match self.done("start the container", answer).await {
            Ok(_) => Ok(()),
            // It has the image, and not the program in it: that is a mistake in the flow.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Invalid) => {
                Err(Error::invalid(error.message()).hint("check 'command', 'entrypoint', 'workdir' and 'mounts'"))
            }
            Err(error) => Err(error),
        }
    }

    /// Passes on what a container prints, to its end.
    pub(super) async fn follow(&self, id: &str, log: &dyn Log, masks: &Masks) -> Result<()> {
        let query = [("follow", "true"), ("stdout", "true"), ("stderr", "true")];
        let answer = self.quick(Method::GET, &format!("/containers/{id}/logs"), &query, None).await?;
        let mut answer = self.done("read what the container prints", answer).await?;
        let mut printed = Printed::new(masks);
        while let Some(chunk) = answer.chunk().await.map_err(|error| self.away(error))? {
            printed.push(&chunk, log);
        }
        printed.finish(log);
        Ok(())
    }

    /// Waits for the end of a container.
    pub(super) async fn wait(&self, id: &str) -> Result<Exit> {
        let answer = self.ask(Method::POST, &format!("/containers/{id}/wait"), &[], None).await?;
        // It answers when there is something to say.
        let answer = self.done("wait for the container", answer).await?;
        answer.bytes().await.map_err(|error| self.away(error))?;
        let what = "look at the container";
        let answer = self.quick(Method::GET, &format!("/containers/{id}/json"), &[], None).await?;
        let answer = self.done(what, answer).await?;
        let State { code, out_of_memory } = self.json::<Inspected>(what, answer).await?.state;
        Ok(Exit { code, out_of_memory })
    }

    /// Asks a container to end, and ends it when it does not.
    pub(super) async fn stop(&self, id: &str, grace: Duration) -> Result<()> {
        let seconds = grace.as_secs().to_string();
        let answer = self.ask(Method::POST, &format!("/containers/{id}/stop"), &[("t", &seconds)], None).await?;
        self.done("stop the container", answer).await.map(drop)
    }

    /// Removes a container, whatever it does. One that is gone is none.
    pub(super) async fn remove(&self, id: &str) -> Result<()> {
        let query = [("force", "true"), ("v", "true")];
        let answer = self.quick(Method::DELETE, &format!("/containers/{id}"), &query, None).await?;
        // Somebody else may be removing it.
        if matches!(answer.status(), StatusCode::NOT_FOUND | StatusCode::CONFLICT) {
            return Ok(());
        }
        self.done("remove the container", answer).await.map(drop)
    }
}

/// Takes apart what a container prints: pieces of two streams, each with a header.
struct Printed {
    rest: Vec<u8>,
    out: Lines,
    err: Lines,
}

impl Printed {
    fn new(masks: &Masks) -> Self {
        Self { rest: Vec::new(), out: Lines::new(masks.clone()), err: Lines::new(masks.clone()) }
    }

    fn push(&mut self, bytes: &[u8], log: &dyn Log) {
        self.rest.extend_from_slice(bytes);
        let mut begin = 0;
        while let Some((header, more)) = self.rest[begin..].split_first_chunk::<HEADER_BYTES>() {
            let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
            let Some(piece) = more.get(..length) else { break };
            match header[0] {
                2 => self.err.push(piece, |line| log.line(Stream::Err, line)),
                _ => self.out.push(piece, |line| log.line(Stream::Out, line)),
            }
            begin += HEADER_BYTES + length;
        }
        self.rest.drain(..begin);
    }

    fn finish(&mut self, log: &dyn Log) {
        self.out.finish(|line| log.line(Stream::Out, line));
        self.err.finish(|line| log.line(Stream::Err, line));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::tests::Kept;

    #[test]
    fn what_containers_print_is_taken_apart_wherever_it_is_cut() {
        let piece = |stream: u8, text: &str| {
            let length = u32::try_from(text.len()).unwrap().to_be_bytes();
            [&[stream, 0, 0, 0], length.as_slice(), text.as_bytes()].concat()
        };
        let all = [piece(1, "one\ntw"), piece(2, "bad s3cret\n"), piece(1, "o\n"), piece(1, "end")].concat();
        for size in [1, 3, 7, 100] {
            let (log, masks) = (Kept::default(), Masks::new(["s3cret"]));
            let mut printed = Printed::new(&masks);
            all.chunks(size).for_each(|chunk| printed.push(chunk, &log));
            printed.finish(&log);
            assert_eq!(log.lines(), ["Out one", "Err bad ***", "Out two", "Out end"], "{size}");
        }
    }
}
