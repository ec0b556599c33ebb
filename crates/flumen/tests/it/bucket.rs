//! A bucket that speaks as S3 does, in the test's process: listing in pages, ranges, conditional PUT, copies, uploads in parts,
//! deletion of many at once. Signatures are looked at no further than the name of the key.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{Hash, Hasher};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

/// The name of the one bucket.
pub const NAME: &str = "data";
/// The id of the key that is let in.
pub const KEY: &str = "testkey";
/// Keys in one page of a listing: few, so that there are several pages.
const PAGE: usize = 3;

/// What the server does instead of answering as it should.
pub enum Fault {
    /// It answers with this status, and does nothing.
    Refuse(u16),
    /// It does what it was asked for, and closes the connection without an answer.
    LoseAnswer,
}

/// A bucket, on a port of its own.
pub struct Bucket {
    /// The endpoint.
    pub endpoint: String,
    contents: Arc<Mutex<Contents>>,
}

#[derive(Default)]
struct Contents {
    objects: BTreeMap<String, Arc<Vec<u8>>>,
    uploads: HashMap<String, BTreeMap<u32, Vec<u8>>>,
    begun: usize,
}

/// A request.
pub struct Request {
    /// Its method.
    pub method: String,
    /// The key of the object; empty for the bucket itself.
    pub key: String,
    bucket: String,
    query: HashMap<String, String>,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

struct Answer {
    status: u16,
    headers: String,
    body: Vec<u8>,
}

impl Answer {
    fn new(status: u16, headers: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: headers.into(), body: body.into() }
    }

    fn error(status: u16, code: &str) -> Self {
        Self::new(status, "", format!("<Error><Code>{code}</Code><Message>{code}</Message></Error>"))
    }
}

impl Bucket {
    /// An empty one.
    pub fn new() -> Self {
        Self::with_faults(|_| None)
    }

    /// An empty one that does not always do as it should.
    pub fn with_faults(fault: impl Fn(&Request) -> Option<Fault> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let contents = Arc::new(Mutex::new(Contents::default()));
        let shared = Arc::clone(&contents);
        let fault = Arc::new(fault);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(stream), contents, fault) = (stream, Arc::clone(&shared), Arc::clone(&fault)) else { continue };
                std::thread::spawn(move || while serve(&stream, &contents, fault.as_ref()).is_some() {});
            }
        });
        Self { endpoint, contents }
    }

    /// Puts an object into it.
    pub fn put(&self, key: &str, content: impl Into<Vec<u8>>) {
        self.lock().objects.insert(key.to_owned(), Arc::new(content.into()));
    }

    /// The content of an object.
    pub fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.lock().objects.get(key).map(|content| content.to_vec())
    }

    /// The keys of the objects that begin with `prefix`.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        self.lock().objects.keys().filter(|key| key.starts_with(prefix)).cloned().collect()
    }

    /// Uploads in parts that were begun and neither completed nor aborted.
    pub fn open_uploads(&self) -> usize {
        self.lock().uploads.len()
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap()
    }
}

/// Answers one request. `None`: there are no more.
fn serve(mut stream: &TcpStream, contents: &Mutex<Contents>, fault: &dyn Fn(&Request) -> Option<Fault>) -> Option<()> {
    let request = read(stream)?;
    let answer = match fault(&request) {
        Some(Fault::Refuse(status)) => Answer::error(status, "SlowDown"),
        Some(Fault::LoseAnswer) => {
            contents.lock().unwrap().answer(&request);
            return None;
        }
        None => contents.lock().unwrap().answer(&request),
    };
    let Answer { status, headers, body } = answer;
    let length = if status == 204 { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    stream.write_all(format!("HTTP/1.1 {status} -\r\n{length}{headers}\r\n").as_bytes()).ok()?;
    if request.method != "HEAD" {
        stream.write_all(&body).ok()?;
    }
    stream.flush().ok()
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let mut words = first.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let (bucket, key) = path.trim_start_matches('/').split_once('/').unwrap_or((path.trim_start_matches('/'), ""));
    let query = query.split('&').filter(|pair| !pair.is_empty());
    let query = query.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let query = query.map(|(name, value)| (name.to_owned(), decoded(&value.replace('+', " ")))).collect();
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.insert(name.to_lowercase(), value.trim().to_owned()),
            None => break,
        };
    }
    let length = headers.get("content-length").map_or(0, |length: &String| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { method, key: decoded(key), bucket: bucket.to_owned(), query, headers, body })
}

/// `%2F` as `/`.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                let digits = String::from_utf8(vec![*high, *low]).unwrap();
                bytes.push(u8::from_str_radix(&digits, 16).unwrap());
                rest = after;
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).unwrap()
}

/// A strong ETag, which follows from the content.
fn etag(content: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    format!("\"{:016x}\"", hasher.finish())
}

impl Contents {
    fn answer(&mut self, request: &Request) -> Answer {
        let signed = request.headers.get("authorization").is_some_and(|text| text.contains(&format!("={KEY}/")));
        if !signed {
            return Answer::error(403, "AccessDenied");
        }
        if request.bucket != NAME {
            return Answer::error(404, "NoSuchBucket");
        }
        let upload = request.query.get("uploadId");
        match (request.method.as_str(), request.key.as_str(), upload) {
            ("GET", "", _) => self.list(&request.query),
            ("POST", "", _) => self.delete_many(&request.body),
            ("GET" | "HEAD", key, _) => self.read(key, &request.headers),
            ("PUT", _, Some(upload)) => {
                let Some(parts) = self.uploads.get_mut(upload) else { return Answer::error(404, "NoSuchUpload") };
                parts.insert(request.query["partNumber"].parse().unwrap(), request.body.clone());
                Answer::new(200, format!("ETag: {}\r\n", etag(&request.body)), "")
            }
            ("PUT", key, None) if request.headers.contains_key("x-amz-copy-source") => {
                let source = decoded(request.headers["x-amz-copy-source"].trim_start_matches('/'));
                let source = source.strip_prefix(NAME).map(|source| source.trim_start_matches('/'));
                let Some(content) = source.and_then(|source| self.objects.get(source)).cloned() else {
                    return Answer::error(404, "NoSuchKey");
                };
                let tag = etag(&content).replace('"', "&quot;");
                self.objects.insert(key.to_owned(), content);
                Answer::new(200, "", format!("<CopyObjectResult><ETag>{tag}</ETag></CopyObjectResult>"))
            }
            ("PUT", key, None) => {
                let is_there = self.objects.contains_key(key);
                if is_there && request.headers.get("if-none-match").is_some_and(|tag| tag == "*") {
                    return Answer::error(412, "PreconditionFailed");
                }
                self.objects.insert(key.to_owned(), Arc::new(request.body.clone()));
                Answer::new(200, format!("ETag: {}\r\n", etag(&request.body)), "")
            }
            ("POST", _, None) => {
                self.begun += 1;
                let id = self.begun.to_string();
                self.uploads.insert(id.clone(), BTreeMap::new());
                let body =
                    format!("<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>");
                Answer::new(200, "", body)
            }
            ("POST", key, Some(upload)) => {
                let Some(parts) = self.uploads.remove(upload) else { return Answer::error(404, "NoSuchUpload") };
                let whole: Vec<u8> = parts.into_values().flatten().collect();
                let tag = etag(&whole);
                self.objects.insert(key.to_owned(), Arc::new(whole));
                let tag = tag.replace('"', "&quot;");
                let body = format!("<CompleteMultipartUploadResult><ETag>{tag}</ETag></CompleteMultipartUploadResult>");
                Answer::new(200, "", body)
            }
            ("DELETE", _, Some(upload)) => {
                self.uploads.remove(upload);
                Answer::new(204, "", "")
            }
            ("DELETE", key, None) => {
                self.objects.remove(key);
                Answer::new(204, "", "")
            }
            _ => Answer::error(501, "NotImplemented"),
        }
    }

    fn read(&self, key: &str, headers: &HashMap<String, String>) -> Answer {
        let Some(content) = self.objects.get(key) else { return Answer::error(404, "NoSuchKey") };
        let tag = etag(content);
        if headers.get("if-match").is_some_and(|wanted| *wanted != tag) {
            return Answer::error(412, "PreconditionFailed");
        }
        let size = content.len();
        let about = format!("ETag: {tag}\r\nLast-Modified: Sat, 01 Jan 2022 00:00:00 GMT\r\nAccept-Ranges: bytes\r\n");
        let Some(range) = headers.get("range").and_then(|range| range.strip_prefix("bytes=")) else {
            return Answer::new(200, about, content.to_vec());
        };
        let (from, to) = match range.split_once('-').unwrap() {
            ("", last) => (size - last.parse::<usize>().unwrap().min(size), size),
            (from, "") => (from.parse().unwrap(), size),
            (from, to) => (from.parse().unwrap(), size.min(to.parse::<usize>().unwrap() + 1)),
        };
        if from >= to {
            return Answer::error(416, "InvalidRange");
        }
        let about = format!("{about}Content-Range: bytes {from}-{}/{size}\r\n", to - 1);
        Answer::new(206, about, content[from..to].to_vec())
    }

    fn list(&self, query: &HashMap<String, String>) -> Answer {
        let text = |name: &str| query.get(name).cloned().unwrap_or_default();
        let (prefix, delimiter) = (text("prefix"), text("delimiter"));
        let after = text("start-after").max(text("continuation-token"));
        let limit = query.get("max-keys").map_or(PAGE, |limit| limit.parse::<usize>().unwrap().min(PAGE));
        let (mut entries, mut folders) = (String::new(), BTreeSet::new());
        let (mut count, mut last, mut more) = (0, String::new(), false);
        for (key, content) in self.objects.iter().filter(|(key, _)| key.starts_with(&prefix)) {
            let below = &key[prefix.len()..];
            let folder = match below.find(delimiter.as_str()) {
                Some(at) if !delimiter.is_empty() => Some(format!("{prefix}{}", &below[..=at])),
                _ => None,
            };
            // A folder stands for all keys in it, also for where the next page begins.
            let name = folder.clone().unwrap_or_else(|| key.clone());
            if name <= after || folder.as_ref().is_some_and(|folder| folders.contains(folder)) {
                continue;
            }
            if count == limit {
                more = true;
                break;
            }
            count += 1;
            last = name;
            match folder {
                Some(folder) => drop(folders.insert(folder)),
                None => entries.push_str(&format!(
                    "<Contents><Key>{key}</Key><LastModified>2022-01-01T00:00:00.000Z</LastModified>\
                     <ETag>{}</ETag><Size>{}</Size></Contents>",
                    etag(content).replace('"', "&quot;"),
                    content.len()
                )),
            }
        }
        for folder in folders {
            entries.push_str(&format!("<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>"));
        }
        if more {
            entries.push_str(&format!("<NextContinuationToken>{last}</NextContinuationToken>"));
        }
        Answer::new(200, "", format!("<ListBucketResult><IsTruncated>{more}</IsTruncated>{entries}</ListBucketResult>"))
    }

    fn delete_many(&mut self, body: &[u8]) -> Answer {
        let text = String::from_utf8(body.to_vec()).unwrap();
        let mut deleted = String::new();
        for part in text.split("<Key>").skip(1) {
            let key = part.split("</Key>").next().unwrap();
            // What is not there counts as deleted.
            self.objects.remove(key);
            deleted.push_str(&format!("<Deleted><Key>{key}</Key></Deleted>"));
        }
        Answer::new(200, "", format!("<DeleteResult>{deleted}</DeleteResult>"))
    }
}
