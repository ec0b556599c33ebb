//! Downloads from a server that does what servers do on bad days.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use flumen_connect::Retry;
use flumen_connect::sources::Files;
use flumen_connect::spool::Spool;
use flumen_core::read::{FileReader, Input, ReadOptions};
use futures::channel::mpsc;
use futures::{SinkExt, StreamExt};

use crate::formats::show_input;

/// A server on a free port of loopback. It answers the n-th request, counted from 0, as its function says.
struct Server {
    url: String,
    requests: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn new(answer: impl Fn(usize, &HeaderMap) -> Response + Clone + Send + Sync + 'static) -> Self {
        let requests = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&requests);
        let app = axum::Router::new().fallback(move |request: Request| {
            let answer = answer(count.fetch_add(1, Ordering::SeqCst), request.headers());
            async move { answer }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, requests, task }
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

fn files() -> (tempfile::TempDir, Files) {
    let dir = tempfile::tempdir().unwrap();
    let retry = Retry { tries: 4, delay: Duration::ZERO, longest: Duration::ZERO };
    let files = Files::new().with_spool(Spool::within(dir.path())).with_retry(retry);
    (dir, files)
}

async fn open(files: &Files, address: &str) -> flumen_core::Result<Vec<Arc<dyn Input>>> {
    FileReader::open(files, address, &ReadOptions::default()).await
}

/// All that there is to see of the file `name` on `server`, with the server's address left out. Afterwards nothing is left.
async fn check(server: &Server, name: &str) -> String {
    let (dir, files) = files();
    let shown = match open(&files, &format!("{}/{name}", server.url)).await {
        Ok(inputs) => tokio::task::spawn_blocking(move || {
            inputs.iter().map(|input| show_input(input.as_ref())).collect::<Vec<_>>().join("\n--\n")
        })
        .await
        .unwrap(),
        Err(error) => format!("{error} [{}]", error.remedy().unwrap_or_default()),
    };
    drop(files);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "the spool is swept");
    shown.replace(&server.url, "")
}

const CSV: &[u8] = b"a,b\n1,x\n2,y\n3,z\n";
const ROWS: &str = "a: Int64, b: Utf8\n1: 1 | x\n2: 2 | y\n3: 3 | z";

/// `content`, and then the connection breaks.
fn cut(content: impl Into<Bytes>) -> Body {
    let content = content.into();
    let broken = futures::stream::once(async {
        // The server sends what it has whenever the body has nothing for it.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        Err(std::io::Error::other("cut"))
    });
    Body::from_stream(futures::stream::iter([Ok(content)]).chain(broken))
}

fn with(headers: &[(&'static str, &str)], status: u16, body: impl Into<Body>) -> Response {
    let mut answer = Response::builder().status(status);
    for (name, value) in headers {
        answer = answer.header(*name, *value);
    }
    answer.body(body.into()).unwrap()
}

#[tokio::test]
async fn a_server_that_is_busy_is_asked_again() {
    let server = Server::new(|n, _| match n {
        0 => StatusCode::FORBIDDEN.into_response(),
        1 => with(&[("retry-after", "0")], 429, ""),
        2 => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        _ => CSV.into_response(),
    })
    .await;
    assert_eq!(check(&server, "t.csv").await, ROWS);
    assert_eq!(server.requests(), 4);
}

#[tokio::test]
async fn a_server_that_stays_busy_is_an_error() {
    let server = Server::new(|_, _| StatusCode::SERVICE_UNAVAILABLE.into_response()).await;
    assert_eq!(check(&server, "t.csv").await, "/t.csv: the server answers 503 Service Unavailable [try again later]");
    assert_eq!(server.requests(), 4);
}

#[tokio::test]
async fn what_is_not_there_is_not_asked_for_twice() {
    let server = Server::new(|_, _| StatusCode::NOT_FOUND.into_response()).await;
    assert_eq!(check(&server, "t.csv").await, "there is nothing at /t.csv (404) [check the address]");
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable() {
    let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (_dir, files) = files();
    let error = open(&files, &format!("http://{port}/t.csv")).await.err().unwrap();
    assert_eq!(error.kind(), flumen_core::ErrorKind::Unavailable);
    assert!(error.message().contains("no connection"), "{error}");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_taken_up_where_it_broke() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    let server = Server::new(move |n, headers| {
        let header = |name: &str| headers.get(name).map_or("-".to_owned(), |value| value.to_str().unwrap().to_owned());
        seen.lock().unwrap().push(format!("{} {}", header("range"), header("if-range")));
        let common = [("etag", "\"v1\""), ("accept-ranges", "bytes")];
        match n {
            0 => with(&[common[0], common[1], ("content-length", "16")], 200, cut(&CSV[..5])),
            1 => with(&[common[0], ("content-range", "bytes 5-15/16"), ("content-length", "11")], 206, cut(&CSV[5..9])),
            _ => with(&[common[0], ("content-range", "bytes 9-15/16")], 206, &CSV[9..]),
        }
    })
    .await;
    assert_eq!(check(&server, "t.csv").await, ROWS);
    assert_eq!(*asked.lock().unwrap(), ["- -", "bytes=5- \"v1\"", "bytes=9- \"v1\""]);
}

#[tokio::test]
async fn a_server_that_sends_all_again_is_compared_with_what_is_there() {
    for headers in [&[("etag", "\"v1\""), ("accept-ranges", "bytes")][..], &[]] {
        let server = Server::new(move |n, _| match n {
            0 => with(&[headers, &[("content-length", "16")]].concat(), 200, cut(&CSV[..5])),
            _ => with(headers, 200, CSV),
        })
        .await;
        assert_eq!(check(&server, "t.csv").await, ROWS);
    }
}

#[tokio::test]
async fn a_body_that_always_ends_early_is_an_error_with_both_numbers() {
    let server = Server::new(|_, _| with(&[("content-length", "16")], 200, cut(&CSV[..5]))).await;
    assert_eq!(
        check(&server, "t.csv").await,
        "/t.csv ends early: 5 of 16 bytes arrived [check the network and the server, then run the same command again]"
    );
    assert_eq!(server.requests(), 4);
}

/// More than the beginning that is looked at on opening.
fn long_csv(cell: &str) -> Vec<u8> {
    let mut text = "a\n".to_owned();
    while text.len() < 900_000 {
        text.push_str(cell);
        text.push('\n');
    }
    text.into_bytes()
}

#[tokio::test]
async fn a_file_that_changes_meanwhile_is_an_error() {
    for (etags, second) in [(["\"v1\"", "\"v2\""], "1"), (["W/\"v1\"", "W/\"v1\""], "2")] {
        let (old, new) = (long_csv("1"), long_csv(second));
        let length = old.len().to_string();
        let (mut send, body) = mpsc::channel::<Result<Bytes, std::io::Error>>(1);
        let body = Arc::new(Mutex::new(Some(body)));
        let server = Server::new(move |n, _| {
            let etag = [("etag", etags[n.min(1)]), ("accept-ranges", "bytes")];
            match body.lock().unwrap().take() {
                Some(body) => with(&[etag[0], etag[1], ("content-length", &length)], 200, Body::from_stream(body)),
                None => with(&etag, 200, new.clone()),
            }
        })
        .await;
        send.send(Ok(Bytes::from(old[..800_000].to_vec()))).await.unwrap();
        let (_dir, files) = files();
        let inputs = open(&files, &server.url).await.unwrap();
        // Its beginning has been seen; now the connection breaks.
        send.send(Err(std::io::Error::other("cut"))).await.unwrap();
        let shown = tokio::task::spawn_blocking(move || show_input(inputs[0].as_ref())).await.unwrap();
        let expect =
            format!("{}/ changed on the server while it was being read [run the same command again]", server.url);
        assert_eq!(shown.lines().last(), Some(expect.as_str()));
    }
}

#[tokio::test]
async fn a_wrong_checksum_is_an_error() {
    for (name, value) in [
        ("content-md5", "XrY7u+Ae7tCTyyK7j1rNww=="),
        ("x-goog-hash", "crc32c=yZRlqg=="),
        ("x-goog-hash", "md5=XrY7u+Ae7tCTyyK7j1rNww=="),
    ] {
        let server = Server::new(move |_, _| with(&[(name, value)], 200, CSV)).await;
        let shown = check(&server, "t.csv").await;
        assert!(shown.starts_with("/t.csv arrived damaged: the "), "{shown}");
    }
    // The MD5 of what was sent.
    let server = Server::new(|_, _| with(&[("content-md5", "XrY7u+Ae7tCTyyK7j1rNww==")], 200, "hello world")).await;
    assert!(check(&server, "t.csv").await.contains("hello world"));
}

#[tokio::test]
async fn rows_can_be_read_before_the_end_has_come() {
    let (mut send, body) = mpsc::channel::<Result<Bytes, std::io::Error>>(1);
    let body = Arc::new(Mutex::new(Some(body)));
    let server = Server::new(move |_, _| Body::from_stream(body.lock().unwrap().take().unwrap()).into_response()).await;
    let (_dir, files) = files();
    let address = format!("{}/t.csv", server.url);
    let opening = tokio::spawn(async move { (open(&files, &address).await, files) });
    send.send(Ok(Bytes::from(long_csv("1")))).await.unwrap();
    // The server still holds back the end, and the columns are known.
    let (inputs, _files) = opening.await.unwrap();
    let inputs = inputs.unwrap();
    assert_eq!(inputs[0].schema().field(0).name(), "a");
    let reading = tokio::task::spawn_blocking(move || show_input(inputs[0].as_ref()));
    send.send(Ok(Bytes::from_static(b"77\n"))).await.unwrap();
    send.close_channel();
    assert!(reading.await.unwrap().ends_with(": 77"));
}

#[tokio::test]
async fn a_long_list_is_not_fetched_before_it_is_wanted() {
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    let server = Server::new(move |_, _| {
        let counted = Arc::clone(&counted);
        let chunk = Bytes::from(long_csv("1"));
        let chunks = futures::stream::iter(0..200).map(move |_| {
            counted.fetch_add(chunk.len(), Ordering::SeqCst);
            Ok::<_, std::io::Error>(chunk.clone())
        });
        Body::from_stream(chunks).into_response()
    })
    .await;
    let (_dir, files) = files();
    let inputs = open(&files, &format!("{}/t_{{1..9}}.csv", server.url)).await.unwrap();
    assert_eq!(inputs.len(), 9);
    assert_eq!(inputs[8].address(), format!("{}/t_9.csv", server.url));
    // All of them would be 540 MB; what the sockets between us hold is far less.
    assert!(sent.load(Ordering::SeqCst) < 250 << 20);
}

#[tokio::test]
async fn the_identity_is_known_from_the_headers() {
    let validator = async |headers: &'static [(&'static str, &'static str)]| {
        let server = Server::new(move |_, _| with(headers, 200, CSV)).await;
        let (_dir, files) = files();
        let inputs = open(&files, &server.url.replace("http://", "http://me:secret@")).await.unwrap();
        let identity = tokio::task::spawn_blocking(move || inputs[0].identity().unwrap()).await.unwrap();
        assert_eq!(identity.address, format!("{}/", server.url));
        identity.validator.unwrap()
    };
    assert_eq!(validator(&[("etag", "\"v1\"")]).await, "etag:\"v1\"");
    assert_eq!(validator(&[("etag", "W/\"v1\"")]).await, format!("blake3:{}", blake3::hash(CSV).to_hex()));
}
