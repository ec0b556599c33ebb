//! `azurite`, from npm: the blob service of Azure, as its maker emulates it.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use object_store::azure::{AzureAccessKey, AzureAuthorizer, AzureCredential, MicrosoftAzureBuilder};
use object_store::client::{HttpConnector, HttpRequest, HttpRequestBody, ReqwestConnector};
use object_store::{ClientOptions, ObjectStore};

use crate::process::{Server, tool};

/// The emulator's one account, and its key. Both are public: its documentation has them.
const ACCOUNT: &str = "devstoreaccount1";
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

const PROGRAM: &str = "\
process.stdin.on('end', () => process.exit(0)).resume();
process.argv = [process.argv[0], 'azurite-blob', '--blobHost', '127.0.0.1', '--blobPort', '0', '--inMemoryPersistence',
  '--skipApiVersionCheck', '--disableTelemetry'];
require('azurite/dist/src/blob/main.js');
";

/// An empty container on the one server of this process.
pub struct Container {
    /// Its name.
    pub name: String,
    /// The endpoint, with the account.
    pub endpoint: String,
}

impl Container {
    /// A new one.
    #[allow(clippy::new_without_default, reason = "it starts a server")]
    pub fn new() -> Self {
        static SERVER: OnceLock<Server> = OnceLock::new();
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let server = SERVER.get_or_init(|| {
            // Modules are looked for from the current folder on.
            Server::start(Command::new("node").args(["-e", PROGRAM]).current_dir(tool("azurite")))
        });
        let name = format!("container-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let endpoint = format!("{}/{ACCOUNT}", server.url);
        put(&format!("{endpoint}/{name}?restype=container"), Some((ACCOUNT, KEY)));
        Self { name, endpoint }
    }

    /// The fields of a connection to it, for `flumen.yml`.
    pub fn connection(&self) -> String {
        format!(
            "{{ kind: azure, container: {}, account: {ACCOUNT}, endpoint: '{}', allow_http: true, access_key: '{KEY}' }}",
            self.name, self.endpoint
        )
    }

    /// The URL of the container.
    pub fn url(&self) -> String {
        format!("az://{}", self.name)
    }

    /// The whole container as a store.
    pub fn store(&self) -> Arc<dyn ObjectStore> {
        let builder = MicrosoftAzureBuilder::new().with_account(ACCOUNT).with_access_key(KEY).with_allow_http(true);
        let builder = builder.with_container_name(&self.name).with_endpoint(self.endpoint.clone());
        Arc::new(builder.build().unwrap())
    }
}

/// Makes the container or bucket at `url`, in the name of the account whose key is given.
pub(crate) fn put(url: &str, account: Option<(&str, &str)>) {
    let mut request = HttpRequest::new(HttpRequestBody::empty());
    *request.method_mut() = "PUT".parse().unwrap();
    *request.uri_mut() = url.parse().unwrap();
    request.headers_mut().insert("content-length", "0".parse().unwrap());
    if let Some((account, key)) = account {
        let credential = AzureCredential::AccessKey(AzureAccessKey::try_new(key).unwrap());
        AzureAuthorizer::new(&credential, account).authorize(&mut request);
    }
    let client = ReqwestConnector::default().connect(&ClientOptions::new().with_allow_http(true)).unwrap();
    // A thread of its own: the test may be within a runtime already.
    let answered = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(client.execute(request)).unwrap().status()
    });
    let status = answered.join().unwrap();
    assert!(status.is_success(), "{url}: {status}");
}
