//! An HTTP server for sample files, on loopback only.
//!
//! A file is made when it is first asked for and then kept: in the folder that the user named, else in a file without a
//! name in the system's temporary folder, which vanishes with the process however that ends. Answers are what a static
//! file server gives: `Content-Length`, a strong `ETag` (the hash of the content), `HEAD`, single ranges with `If-Range`,
//! `If-Match` and `If-None-Match`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{
    ACCEPT_RANGES, ALLOW, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH, IF_RANGE, RANGE,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use flumen_connect::sample::folder::Folder;
use flumen_connect::sample::{SampleFile, Watch};
use flumen_core::{Error, ErrorKind, Result};
use futures::stream;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, OnceCell};

use crate::context::Context;
use crate::output::{self, Output};

/// Bytes read from a file at a time.
const CHUNK_BYTES: u64 = 256 << 10;

/// The files that a server has, or can make.
pub struct Shelf {
    items: BTreeMap<String, Item>,
    /// Held while a file is made, which takes all cores anyway.
    maker: Mutex<Maker>,
    watch: Arc<Watch>,
}

struct Item {
    file: SampleFile,
    stored: OnceCell<Arc<Stored>>,
}

/// A file that has been made.
struct Stored {
    file: File,
    bytes: u64,
    etag: HeaderValue,
}

struct Maker {
    folder: Option<Folder>,
    force: bool,
    threads: usize,
}

impl Shelf {
    /// A shelf with `files`, kept in `folder` if there is one. See [`Folder::make`] for `force`.
    pub fn new(files: Vec<SampleFile>, folder: Option<Folder>, force: bool, threads: usize, watch: Arc<Watch>) -> Self {
        let item = |file: SampleFile| (file.name(), Item { file, stored: OnceCell::new() });
        Self {
            items: files.into_iter().map(item).collect(),
            maker: Mutex::new(Maker { folder, force, threads }),
            watch,
        }
    }

    /// The file called `name`, made now if it was not yet.
    async fn get(self: &Arc<Self>, name: &str) -> Option<Result<Arc<Stored>>> {
        let item = self.items.get(name)?;
        let make = || async {
            let (shelf, file) = (Arc::clone(self), item.file.clone());
            let made = tokio::task::spawn_blocking(move || {
                let mut maker = shelf.maker.blocking_lock();
                maker.make(&file, &shelf.watch)
            });
            let made = made
                .await
                .map_err(|error| Error::internal("a thread that made sample rows ended early").caused_by(error))?;
            made.map(Arc::new)
        };
        Some(item.stored.get_or_try_init(make).await.map(Arc::clone))
    }
}

impl Maker {
    fn make(&mut self, file: &SampleFile, watch: &Watch) -> Result<Stored> {
        let (opened, written) = match &mut self.folder {
            Some(folder) => {
                let made = folder.make(file, self.force, self.threads, watch)?;
                let opened = File::open(&made.path).map_err(|error| Error::io(made.path.display(), error))?;
                (opened, made.written)
            }
            None => {
                let failed = |error| Error::io("the system's temporary folder", error);
                let made = tempfile::tempfile().map_err(failed)?;
                let out = io::BufWriter::with_capacity(CHUNK_BYTES as usize, &made);
                let written = file.write(&file.name(), out, self.threads, watch)?;
                (made, written)
            }
        };
        let etag = HeaderValue::try_from(format!("\"{}\"", written.blake3))
            .map_err(|error| Error::internal("a hash is no ETag").caused_by(error))?;
        Ok(Stored { file: opened, bytes: written.bytes, etag })
    }
}

/// A server that listens, and serves once [`SampleServer::serve`] is called.
pub struct SampleServer {
    listener: TcpListener,
    address: SocketAddr,
    shelf: Arc<Shelf>,
}

impl SampleServer {
    /// Listens on `port` of loopback; 0 takes a free one.
    ///
    /// Errors: `Conflict` when the port is taken.
    pub async fn bind(shelf: Shelf, port: u16) -> Result<Self> {
        let place = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let refused = |error: io::Error| match error.kind() {
            io::ErrorKind::AddrInUse => {
                Error::new(ErrorKind::Conflict, format!("port {port} is taken by another program"))
                    .hint("choose another with --port, or let --port 0 find a free one")
            }
            _ => Error::io(place, error),
        };
        let listener = TcpListener::bind(place).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        Ok(Self { listener, address, shelf: Arc::new(shelf) })
    }

    /// The address to ask, with a slash at its end.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Prints the address, writes it to `ready_file`, and serves until the command is cancelled, which is its normal end.
    pub async fn serve(self, context: &Context, ready_file: Option<&Path>) -> Result<()> {
        let url = self.url();
        let shelf = Arc::clone(&self.shelf);
        let served = Served { shelf: Arc::clone(&shelf), output: context.output };
        if let Some(path) = ready_file {
            announce(path, &url)?;
        }
        if context.output.json {
            context.output.json(&serde_json::json!({ "url": url, "files": shelf.items.keys().collect::<Vec<_>>() }))?;
        } else {
            context.output.line(&url)?;
        }
        context.output.note(format_args!("serving {} sample files; Ctrl-C ends it", shelf.items.len()));
        let app = Router::new().fallback(answer).with_state(served);
        let ended = tokio::select! {
            ended = axum::serve(self.listener, app) => ended.map_err(|error| Error::io(&url, error)),
            () = context.cancel.cancelled() => Ok(()),
        };
        shelf.watch.cancel();
        // Whoever still makes a file removes what it has begun before the process ends.
        drop(shelf.maker.lock().await);
        if let Some(path) = ready_file {
            std::fs::remove_file(path).map_err(|error| Error::io(path.display(), error))?;
        }
        ended
    }
}

/// Writes `url` to `path` in one step, so that whoever waits for the file never reads half an address.
fn announce(path: &Path, url: &str) -> Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    std::fs::write(&partial, format!("{url}\n"))
        .and_then(|()| std::fs::rename(&partial, path))
        .map_err(|error| Error::io(path.display(), error))
}

#[derive(Clone)]
struct Served {
    shelf: Arc<Shelf>,
    output: Output,
}

async fn answer(State(served): State<Served>, method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let response = respond(&served, &method, &uri, &headers).await;
    served.output.detail(format_args!("{method} {} {}", uri.path(), response.status().as_u16()));
    response
}

async fn respond(served: &Served, method: &Method, uri: &Uri, headers: &HeaderMap) -> Response {
    if method != Method::GET && method != Method::HEAD {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let name = uri.path().trim_start_matches('/');
    if name.is_empty() {
        return index(&served.shelf);
    }
    let Some(item) = served.shelf.items.get(name) else {
        return text(StatusCode::NOT_FOUND, "there is no such file; the list is at /\n");
    };
    match served.shelf.get(name).await {
        Some(Ok(stored)) => content(stored, item.file.format().media_type(), method, headers),
        Some(Err(error)) => {
            served.output.warning(format_args!("{name} could not be made: {error}"));
            text(StatusCode::SERVICE_UNAVAILABLE, &format!("{error}\n"))
        }
        None => text(StatusCode::NOT_FOUND, "there is no such file; the list is at /\n"),
    }
}

fn text(status: StatusCode, body: &str) -> Response {
    (status, body.to_owned()).into_response()
}

/// The page that lists the files.
fn index(shelf: &Shelf) -> Response {
    let mut rows = String::new();
    for (name, item) in &shelf.items {
        let size = item.stored.get().map_or_else(|| "made when asked for".to_owned(), |made| output::bytes(made.bytes));
        let count = output::count(item.file.rows());
        // Writing to a String cannot fail.
        let _ = writeln!(rows, "<tr><td><a href=\"/{name}\">{name}</a><td align=right>{count}<td align=right>{size}");
    }
    let page = format!(
        "<!doctype html>\n<meta charset=utf-8>\n<title>Sample taxi trips</title>\n<h1>Sample taxi trips</h1>\n\
         <table cellpadding=4>\n<tr><th align=left>file<th align=right>rows<th align=right>size\n{rows}</table>\n"
    );
    ([(CONTENT_TYPE, "text/html; charset=utf-8")], page).into_response()
}

/// The answer with the content of a file, or a part of it, as the headers ask.
fn content(stored: Arc<Stored>, media_type: &'static str, method: &Method, headers: &HeaderMap) -> Response {
    let decision = decide(headers, &stored.etag, stored.bytes);
    let (status, range) = match decision {
        Answer::Whole => (StatusCode::OK, 0..stored.bytes),
        Answer::Part(ref range) => (StatusCode::PARTIAL_CONTENT, range.clone()),
        Answer::NotModified => (StatusCode::NOT_MODIFIED, 0..0),
        Answer::Changed => (StatusCode::PRECONDITION_FAILED, 0..0),
        Answer::BeyondTheEnd => (StatusCode::RANGE_NOT_SATISFIABLE, 0..0),
    };
    let mut response = status.into_response();
    let length = range.end - range.start;
    let fields = response.headers_mut();
    fields.insert(ETAG, stored.etag.clone());
    fields.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    match decision {
        Answer::Whole | Answer::Part(_) => {
            fields.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
            fields.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        _ => {}
    }
    let content_range = match decision {
        Answer::Part(_) => Some(format!("bytes {}-{}/{}", range.start, range.end - 1, stored.bytes)),
        Answer::BeyondTheEnd => Some(format!("bytes */{}", stored.bytes)),
        _ => None,
    };
    if let Some(Ok(value)) = content_range.map(HeaderValue::try_from) {
        fields.insert(CONTENT_RANGE, value);
    }
    if method == Method::GET && length > 0 {
        *response.body_mut() = body(stored, range);
    }
    response
}

/// The bytes `range` of a file, read as the client takes them.
fn body(stored: Arc<Stored>, range: std::ops::Range<u64>) -> Body {
    Body::from_stream(stream::try_unfold(range, move |range| {
        let stored = Arc::clone(&stored);
        async move {
            if range.is_empty() {
                return Ok::<_, io::Error>(None);
            }
            let end = range.end.min(range.start + CHUNK_BYTES);
            let length = (end - range.start) as usize;
            let read = tokio::task::spawn_blocking(move || {
                let mut chunk = vec![0; length];
                read_exact_at(&stored.file, &mut chunk, range.start).map(|()| Bytes::from(chunk))
            });
            let chunk = read.await.map_err(io::Error::other)??;
            Ok(Some((chunk, end..range.end)))
        }
    }))
}

#[cfg(unix)]
fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while done < buffer.len() {
        match std::os::windows::fs::FileExt::seek_read(file, &mut buffer[done..], offset + done as u64)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => done += read,
        }
    }
    Ok(())
}

/// What a request for a file is answered with.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Whole,
    Part(std::ops::Range<u64>),
    NotModified,
    /// `If-Match` names another content.
    Changed,
    BeyondTheEnd,
}

/// Decides by the headers alone, in the order that HTTP prescribes: `If-Match`, `If-None-Match`, `If-Range`, `Range`.
fn decide(headers: &HeaderMap, etag: &HeaderValue, bytes: u64) -> Answer {
    let names = |list: &HeaderValue, weak: bool| {
        list.to_str().is_ok_and(|list| {
            list.split(',').map(str::trim).any(|one| {
                one == "*"
                    || one.as_bytes() == etag.as_bytes()
                    || weak && one.strip_prefix("W/").is_some_and(|one| one.as_bytes() == etag.as_bytes())
            })
        })
    };
    if headers.get(IF_MATCH).is_some_and(|list| !names(list, false)) {
        return Answer::Changed;
    }
    if headers.get(IF_NONE_MATCH).is_some_and(|list| names(list, true)) {
        return Answer::NotModified;
    }
    let Some(range) = headers.get(RANGE).and_then(|range| range.to_str().ok()) else { return Answer::Whole };
    if headers.get(IF_RANGE).is_some_and(|one| one != etag) {
        return Answer::Whole;
    }
    parse_range(range, bytes)
}

/// One range of bytes. What is not understood, several ranges among it, is ignored, as HTTP allows.
fn parse_range(text: &str, bytes: u64) -> Answer {
    let Some((first, last)) = text.strip_prefix("bytes=").and_then(|range| range.trim().split_once('-')) else {
        return Answer::Whole;
    };
    let number =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    let range = match (first.is_empty(), last.is_empty()) {
        (true, true) => return Answer::Whole,
        (true, false) => number(last).map(|length| bytes.saturating_sub(length)..bytes),
        (false, true) => number(first).map(|first| first..bytes),
        (false, false) => match (number(first), number(last)) {
            (Some(first), Some(last)) if last < first => return Answer::Whole,
            (Some(first), Some(last)) => Some(first..bytes.min(last.saturating_add(1))),
            _ => None,
        },
    };
    match range {
        None => Answer::Whole,
        Some(range) if range.start >= range.end => Answer::BeyondTheEnd,
        Some(range) => Answer::Part(range),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(headers: &[(&str, &str)], expect: Answer) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(axum::http::HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        assert_eq!(decide(&map, &HeaderValue::from_static("\"e\""), 100), expect, "{headers:?}");
    }

    #[test]
    fn headers_decide_what_is_sent() {
        check(&[], Answer::Whole);
        check(&[("range", "bytes=0-9")], Answer::Part(0..10));
        check(&[("range", "bytes=90-")], Answer::Part(90..100));
        check(&[("range", "bytes=-10")], Answer::Part(90..100));
        check(&[("range", "bytes=-1000")], Answer::Part(0..100));
        check(&[("range", "bytes=50-18446744073709551615")], Answer::Part(50..100));
        check(&[("range", "bytes=100-")], Answer::BeyondTheEnd);
        check(&[("range", "bytes=-0")], Answer::BeyondTheEnd);
        for ignored in ["bytes=9-0", "bytes=0-1,5-6", "bytes=-", "bytes=+1-2", "lines=0-1", "bytes=a-b"] {
            check(&[("range", ignored)], Answer::Whole);
        }
        check(&[("range", "bytes=0-9"), ("if-range", "\"e\"")], Answer::Part(0..10));
        check(&[("range", "bytes=0-9"), ("if-range", "\"other\"")], Answer::Whole);
        check(&[("range", "bytes=0-9"), ("if-range", "W/\"e\"")], Answer::Whole);
        check(&[("if-none-match", "\"x\", W/\"e\"")], Answer::NotModified);
        check(&[("if-none-match", "\"x\"")], Answer::Whole);
        check(&[("if-match", "\"x\"")], Answer::Changed);
        check(&[("if-match", "*"), ("range", "bytes=1-1")], Answer::Part(1..2));
    }
}
