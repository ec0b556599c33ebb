//! `connection test` against servers that speak like a store, and refuse in all the ways that stores do.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};

use crate::sandbox::Sandbox;

/// A web server on a free port of this machine that gives every request the same answer, until the test ends.
pub struct Server {
    /// Its host and port.
    pub address: String,
}

impl Server {
    /// One that answers with a status and a body.
    pub fn answering(status: &'static str, body: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        // The thread ends with the process of the test.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || answer(stream, status, body));
            }
        });
        Self { address }
    }
}

fn answer(mut stream: TcpStream, status: &str, body: &str) {
    let Ok(reader) = stream.try_clone() else { return };
    for line in BufReader::new(reader).lines().map_while(Result::ok) {
        if line.is_empty() {
            break;
        }
    }
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/xml\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    // A client that has gone away wants no answer.
    let _ = stream.write_all(format!("{head}{body}").as_bytes());
}

const EMPTY_BUCKET: &str = "<?xml version=\"1.0\"?><ListBucketResult><Name>b</Name><KeyCount>0</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated></ListBucketResult>";

/// Runs `connection test x`, with a connection of these fields, and `ADDRESS` in them replaced by the server's.
fn tested(fields: &str, server: &Server) -> String {
    let sandbox = Sandbox::new();
    let fields = fields.replace("ADDRESS", &server.address);
    sandbox.write("flumen.yml", format!("connections:\n  x: {{ {fields} }}\n"));
    let ran = sandbox.flumen(["connection", "test", "x"]);
    format!("{}\n{}{}", ran.code, ran.stdout, ran.stderr)
}

const S3: &str = "kind: s3, bucket: b, prefix: raw, endpoint: 'http://ADDRESS', allow_http: true, access_key_id: a, secret_access_key: b";
const GCS: &str = "kind: gcs, bucket: b, endpoint: 'http://ADDRESS', allow_http: true, anonymous: true";
const AZURE: &str =
    "kind: azure, container: c, account: me, endpoint: 'http://ADDRESS', allow_http: true, access_key: aHVudGVyMg==";

#[test]
fn an_empty_bucket_is_reached() {
    let said = tested(S3, &Server::answering("200 OK", EMPTY_BUCKET));
    assert_eq!(said, "0\nok  list s3://b/raw: it is empty\n");
    let said = tested(GCS, &Server::answering("200 OK", EMPTY_BUCKET));
    assert_eq!(said, "0\nok  list gs://b/: it is empty\n");
}

#[test]
fn access_denied_says_what_to_do() {
    for fields in [S3, GCS, AZURE] {
        let said = tested(fields, &Server::answering("403 Forbidden", "<Error><Code>AccessDenied</Code></Error>"));
        assert!(said.starts_with("2\nfailed  list "), "{said}");
        assert!(said.contains(": access denied (403)\n  hint: check the credentials"), "{said}");
    }
}

#[test]
fn a_bucket_that_is_not_there_is_not_found() {
    for fields in [S3, GCS, AZURE] {
        let said = tested(fields, &Server::answering("404 Not Found", "<Error><Code>NoSuchBucket</Code></Error>"));
        assert!(said.starts_with("3\nfailed  list "), "{said}");
        assert!(said.contains("hint: check the bucket"), "{said}");
    }
}

#[test]
fn an_endpoint_that_is_not_https_must_be_meant() {
    let fields = S3.replace("allow_http: true, ", "");
    let said = tested(&fields, &Server::answering("200 OK", EMPTY_BUCKET));
    assert!(said.starts_with("2\n") && said.contains("hint: set 'allow_http: true'"), "{said}");
}

#[test]
fn a_web_server_tells_by_its_status() {
    let web = "kind: http, url: 'http://ADDRESS/data', token: hunter2";
    let said = tested(web, &Server::answering("200 OK", "hello"));
    assert_eq!(said, "0\nok  get http://127.0.0.1:[PORT]/data: the server answers: 200 OK\n");
    let said = tested(web, &Server::answering("401 Unauthorized", ""));
    assert!(said.starts_with("2\n") && said.contains("the server asks for credentials"), "{said}");
    let said = tested(web, &Server::answering("503 Service Unavailable", ""));
    assert!(said.starts_with("5\n") && said.contains("hint: try again later"), "{said}");
}
