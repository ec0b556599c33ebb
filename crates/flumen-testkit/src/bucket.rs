//! A bucket in the test's process that speaks as S3 or as Google Cloud Storage does: listing in pages, ranges, conditional
//! writes, copies, uploads in parts, deletion (of many at once in S3). Signatures are looked at no further than the name of
//! the key.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard};

use object_store::ObjectStore;
use object_store::aws::AmazonS3Builder;
use object_store::gcp::{GcpCredential, GoogleCloudStorageBuilder};
use object_store::{ClientOptions, StaticCredentialProvider};

pub use crate::http::Request;
use crate::http::{Answer, decoded, serve};

/// The name of the one bucket.
pub const NAME: &str = "data";
/// The id of the key that is let in to S3.
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

/// Whose protocol a bucket speaks. They have much in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Amazon's S3.
    S3,
    /// Google Cloud Storage, by its XML API.
    Gcs,
}

/// A bucket, on a port of its own.
pub struct Bucket {
    /// The endpoint.
    pub endpoint: String,
    dialect: Dialect,
    contents: Arc<Mutex<Contents>>,
}

struct Contents {
    dialect: Dialect,
    objects: BTreeMap<String, Object>,
    uploads: HashMap<String, BTreeMap<u32, Vec<u8>>>,
    begun: usize,
    /// Counts writes: Google's generation of an object.
    written: u64,
}

#[derive(Clone)]
struct Object {
    content: Arc<Vec<u8>>,
    generation: u64,
}

impl Bucket {
    /// An empty one that speaks as S3 does.
    pub fn s3() -> Self {
        Self::with_faults(Dialect::S3, |_| None)
    }

    /// An empty one that speaks as Google Cloud Storage does.
    pub fn gcs() -> Self {
        Self::with_faults(Dialect::Gcs, |_| None)
    }

    /// An empty one that does not always do as it should.
    pub fn with_faults(dialect: Dialect, fault: impl Fn(&Request) -> Option<Fault> + Send + Sync + 'static) -> Self {
        let contents = Contents { dialect, objects: BTreeMap::new(), uploads: HashMap::new(), begun: 0, written: 0 };
        let contents = Arc::new(Mutex::new(contents));
        let shared = Arc::clone(&contents);
        let endpoint = serve(move |request| match fault(request) {
            Some(Fault::Refuse(status)) => Some(Answer::error(status, "SlowDown")),
            Some(Fault::LoseAnswer) => {
                shared.lock().unwrap().answer(request);
                None
            }
            None => Some(shared.lock().unwrap().answer(request)),
        });
        Self { endpoint, dialect, contents }
    }

    /// The fields of a connection to it, for `flumen.yml`.
    pub fn connection(&self) -> String {
        let who = match self.dialect {
            Dialect::S3 => format!("kind: s3, access_key_id: {KEY}, secret_access_key: abc"),
            Dialect::Gcs => "kind: gcs, anonymous: true".to_owned(),
        };
        format!("{{ {who}, bucket: {NAME}, endpoint: '{}', allow_http: true }}", self.endpoint)
    }

    /// The URL of the bucket.
    pub fn url(&self) -> String {
        match self.dialect {
            Dialect::S3 => format!("s3://{NAME}"),
            Dialect::Gcs => format!("gs://{NAME}"),
        }
    }

    /// The whole bucket as a store.
    pub fn store(&self) -> Arc<dyn ObjectStore> {
        match self.dialect {
            Dialect::S3 => {
                let builder = AmazonS3Builder::new().with_bucket_name(NAME).with_endpoint(&self.endpoint);
                let builder = builder.with_allow_http(true).with_access_key_id(KEY).with_secret_access_key("abc");
                Arc::new(builder.build().unwrap())
            }
            Dialect::Gcs => {
                let nobody = Arc::new(StaticCredentialProvider::new(GcpCredential { bearer: String::new() }));
                let builder = GoogleCloudStorageBuilder::new().with_bucket_name(NAME).with_base_url(&self.endpoint);
                let builder = builder.with_skip_signature(true).with_credentials(nobody);
                Arc::new(builder.with_client_options(ClientOptions::new().with_allow_http(true)).build().unwrap())
            }
        }
    }

    /// Puts an object into it.
    pub fn put(&self, key: &str, content: impl Into<Vec<u8>>) {
        self.lock().write(key, content.into());
    }

    /// The content of an object.
    pub fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.lock().objects.get(key).map(|object| object.content.to_vec())
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

/// A strong ETag, which follows from the content.
fn etag(content: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    format!("\"{:016x}\"", hasher.finish())
}

impl Contents {
    fn answer(&mut self, request: &Request) -> Answer {
        let signed = request.header("authorization").is_some_and(|text| text.contains(&format!("={KEY}/")));
        if self.dialect == Dialect::S3 && !signed {
            return Answer::error(403, "AccessDenied");
        }
        if request.bucket != NAME {
            return Answer::error(404, "NoSuchBucket");
        }
        let upload = request.query.get("uploadId");
        match (request.method.as_str(), request.key.as_str(), upload) {
            ("GET", "", _) => self.list(&request.query),
            ("POST", "", _) if self.dialect == Dialect::S3 => self.delete_many(&request.body),
            ("GET" | "HEAD", _, _) => self.read(request),
            ("PUT", _, Some(upload)) => {
                let Some(parts) = self.uploads.get_mut(upload) else { return Answer::error(404, "NoSuchUpload") };
                parts.insert(request.query["partNumber"].parse().unwrap(), request.body.clone());
                Answer::new(200, format!("ETag: {}\r\n", etag(&request.body)), "")
            }
            ("PUT", key, None) => self.put(key, request),
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
                let tag = etag(&whole).replace('"', "&quot;");
                let about = self.write(key, whole);
                let body = format!("<CompleteMultipartUploadResult><ETag>{tag}</ETag></CompleteMultipartUploadResult>");
                Answer::new(200, about, body)
            }
            ("DELETE", _, Some(upload)) => {
                self.uploads.remove(upload);
                Answer::new(204, "", "")
            }
            ("DELETE", key, None) => {
                let was_there = self.objects.remove(key).is_some();
                match self.dialect {
                    // What is not there counts as deleted.
                    Dialect::S3 => Answer::new(204, "", ""),
                    Dialect::Gcs if was_there => Answer::new(204, "", ""),
                    Dialect::Gcs => Answer::error(404, "NoSuchKey"),
                }
            }
            _ => Answer::error(501, "NotImplemented"),
        }
    }

    /// Writes an object, and gives the headers that tell of it.
    fn write(&mut self, key: &str, content: Vec<u8>) -> String {
        self.written += 1;
        let object = Object { content: Arc::new(content), generation: self.written };
        let about = self.about(&object);
        self.objects.insert(key.to_owned(), object);
        about
    }

    fn about(&self, object: &Object) -> String {
        let tag = format!("ETag: {}\r\n", etag(&object.content));
        match self.dialect {
            Dialect::S3 => tag,
            Dialect::Gcs => format!("{tag}x-goog-generation: {}\r\n", object.generation),
        }
    }

    /// Whether the conditions of a write are met.
    fn allows(&self, key: &str, request: &Request) -> bool {
        let there = self.objects.get(key);
        match self.dialect {
            Dialect::S3 => {
                let none = request.header("if-none-match").is_none_or(|tag| tag != "*" || there.is_none());
                let same = |tag: &str| {
                    there.is_some_and(|object| etag(&object.content).trim_matches('"') == tag.trim_matches('"'))
                };
                none && request.header("if-match").is_none_or(same)
            }
            Dialect::Gcs => request
                .header("x-goog-if-generation-match")
                .is_none_or(|wanted| wanted.parse() == Ok(there.map_or(0, |object| object.generation))),
        }
    }

    fn put(&mut self, key: &str, request: &Request) -> Answer {
        if !self.allows(key, request) {
            return Answer::error(412, "PreconditionFailed");
        }
        let source = match self.dialect {
            Dialect::S3 => request.header("x-amz-copy-source"),
            Dialect::Gcs => request.header("x-goog-copy-source"),
        };
        let Some(source) = source else {
            return Answer::new(200, self.write(key, request.body.clone()), "");
        };
        let source = decoded(source);
        let from =
            source.trim_start_matches('/').strip_prefix(&format!("{NAME}/")).and_then(|key| self.objects.get(key));
        let Some(from) = from else { return Answer::error(404, "NoSuchKey") };
        let (content, tag) = (from.content.to_vec(), etag(&from.content).replace('"', "&quot;"));
        let about = self.write(key, content);
        Answer::new(200, about, format!("<CopyObjectResult><ETag>{tag}</ETag></CopyObjectResult>"))
    }

    fn read(&self, request: &Request) -> Answer {
        let Some(object) = self.objects.get(&request.key) else { return Answer::error(404, "NoSuchKey") };
        if request.query.get("generation").is_some_and(|wanted| *wanted != object.generation.to_string()) {
            return Answer::error(404, "NoSuchKey");
        }
        let tag = etag(&object.content);
        if request.header("if-match").is_some_and(|wanted| wanted != tag) {
            return Answer::error(412, "PreconditionFailed");
        }
        let size = object.content.len();
        let about = self.about(object);
        let about = format!("{about}Last-Modified: Sat, 01 Jan 2022 00:00:00 GMT\r\nAccept-Ranges: bytes\r\n");
        let Some(range) = request.header("range").and_then(|range| range.strip_prefix("bytes=")) else {
            return Answer::new(200, about, object.content.to_vec());
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
        Answer::new(206, about, object.content[from..to].to_vec())
    }

    fn list(&self, query: &HashMap<String, String>) -> Answer {
        let text = |name: &str| query.get(name).cloned().unwrap_or_default();
        let (prefix, delimiter) = (text("prefix"), text("delimiter"));
        let after = text("start-after").max(text("continuation-token"));
        let limit = query.get("max-keys").map_or(PAGE, |limit| limit.parse::<usize>().unwrap().min(PAGE));
        let (mut entries, mut folders) = (String::new(), BTreeSet::new());
        let (mut count, mut last, mut more) = (0, String::new(), false);
        for (key, object) in self.objects.iter().filter(|(key, _)| key.starts_with(&prefix)) {
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
                    etag(&object.content).replace('"', "&quot;"),
                    object.content.len()
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
