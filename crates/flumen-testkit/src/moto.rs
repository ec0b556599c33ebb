//! `moto`, from PyPI: an S3 that others made. It looks at no signature, but it knows conditional writes.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use object_store::ObjectStore;
use object_store::aws::AmazonS3Builder;

use crate::azurite;
use crate::process::{Server, tool};

const PROGRAM: &str = "\
import logging, os, sys
logging.getLogger('werkzeug').setLevel(logging.ERROR)
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer('127.0.0.1', 0, verbose=False)
server.start()
print('listens on http://%s:%s' % server.get_host_and_port(), flush=True)
sys.stdin.read()
os._exit(0)
";

/// An empty bucket on the one server of this process.
pub struct Bucket {
    /// Its name.
    pub name: String,
    /// The endpoint.
    pub endpoint: String,
}

impl Bucket {
    /// A new one.
    #[allow(clippy::new_without_default, reason = "it starts a server")]
    pub fn new() -> Self {
        static SERVER: OnceLock<Server> = OnceLock::new();
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let server = SERVER.get_or_init(|| {
            let packages = tool("moto").join("packages");
            Server::start(Command::new("python3").args(["-c", PROGRAM]).env("PYTHONPATH", packages))
        });
        let name = format!("bucket-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        azurite::put(&format!("{}/{name}", server.url), None);
        Self { name, endpoint: server.url.clone() }
    }

    /// The fields of a connection to it, for `flumen.yml`.
    pub fn connection(&self) -> String {
        format!(
            "{{ kind: s3, bucket: {}, endpoint: '{}', allow_http: true, access_key_id: test, secret_access_key: test }}",
            self.name, self.endpoint
        )
    }

    /// The URL of the bucket.
    pub fn url(&self) -> String {
        format!("s3://{}", self.name)
    }

    /// The whole bucket as a store.
    pub fn store(&self) -> Arc<dyn ObjectStore> {
        let builder = AmazonS3Builder::new().with_bucket_name(&self.name).with_endpoint(&self.endpoint);
        let builder = builder.with_allow_http(true).with_access_key_id("test").with_secret_access_key("test");
        Arc::new(builder.build().unwrap())
    }
}
