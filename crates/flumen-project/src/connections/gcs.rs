//! `kind: gcs`: a bucket of Google Cloud Storage.
//!
//! Credentials come from the connection, else from `GOOGLE_*` variables, else from `gcloud auth application-default login`,
//! else from the machine.

use std::sync::Arc;

use flumen_core::secret::{ExposeSecret as _, Secret};
use flumen_core::{Error, Result};
use object_store::StaticCredentialProvider;
use object_store::gcp::{GcpCredential, GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path;
use url::Url;

use super::{Config, Field, Kind, Takes, Values};
use crate::environment::Environment;
use crate::store::{StoreAt, bucket_and_path, client_options, prefix_path, retries};

/// See the module.
pub const KIND: Kind = Kind {
    name: "gcs",
    about: "a bucket of Google Cloud Storage",
    fields: &[
        Field::required("bucket", Takes::Text, "the name of the bucket"),
        Field::optional("prefix", Takes::Text, "the path in the bucket that all paths start from"),
        Field::optional(
            "service_account_path",
            Takes::Text,
            "the file with the service account's key; relative to the project",
        ),
        Field::optional("service_account_key", Takes::Secret, "the service account's key itself, as JSON"),
        Field::optional("anonymous", Takes::Flag, "for a public bucket: requests are not signed"),
        Field::optional("endpoint", Takes::Url, "the server, for one that is not Google's"),
        Field::optional("allow_http", Takes::Flag, "let the endpoint be http"),
    ],
    configure,
};

/// A bucket of Google Cloud Storage.
#[derive(Debug, Clone, Default)]
pub struct GcsConfig {
    /// The bucket.
    pub bucket: String,
    /// The path in it.
    pub path: Path,
    /// The file with the service account's key.
    pub service_account_path: Option<String>,
    /// The service account's key itself.
    pub service_account_key: Option<Secret>,
    /// Requests are not signed.
    pub anonymous: bool,
    /// The server.
    pub endpoint: Option<String>,
    /// The endpoint may be http.
    pub allow_http: bool,
}

fn configure(values: &Values) -> Result<Config> {
    let path = values.text("service_account_path");
    let config = GcsConfig {
        bucket: values.required("bucket")?,
        path: prefix_path(values.text("prefix").as_deref())?,
        service_account_path: path.map(|path| values.project_dir().join(path).to_string_lossy().into_owned()),
        service_account_key: values.secret("service_account_key"),
        anonymous: values.flag("anonymous")?,
        endpoint: values.text("endpoint"),
        allow_http: values.flag("allow_http")?,
    };
    if config.service_account_path.is_some() && config.service_account_key.is_some() {
        return Err(
            Error::invalid("service_account_path and service_account_key are both given").hint("keep one of them")
        );
    }
    Ok(Config::Gcs(config))
}

impl GcsConfig {
    /// The bucket of a `gs:` URL, with what the environment has.
    pub(crate) fn of_url(url: &Url) -> Result<Self> {
        let (bucket, path) = bucket_and_path(url)?;
        Ok(Self { bucket, path, ..Self::default() })
    }

    /// Whether `url` is in this bucket.
    pub(crate) fn covers(&self, url: &Url) -> bool {
        url.host_str() == Some(self.bucket.as_str())
    }

    /// The bucket, and the path in it.
    pub fn object_store(&self, environment: &Environment) -> Result<StoreAt> {
        let own_key = self.service_account_key.is_some() || self.service_account_path.is_some();
        let mut builder = GoogleCloudStorageBuilder::new();
        for (name, value) in environment.starting_with("GOOGLE_") {
            match name.to_ascii_lowercase().parse() {
                // Two keys at once are an error for the store; the connection's wins.
                Ok(GoogleConfigKey::ServiceAccount | GoogleConfigKey::ServiceAccountKey)
                    if own_key || self.anonymous => {}
                Ok(key) => builder = builder.with_config(key, value),
                Err(_) => {}
            }
        }
        let options = client_options().with_allow_http(self.allow_http);
        builder = builder.with_retry(retries()).with_client_options(options).with_bucket_name(&self.bucket);
        if let Some(path) = &self.service_account_path {
            builder = builder.with_service_account_path(path);
        }
        if let Some(key) = &self.service_account_key {
            builder = builder.with_service_account_key(key.expose_secret());
        }
        if self.anonymous {
            // Without credentials of its own the builder would look for a login on this machine, and fail on a broken one.
            let nobody = GcpCredential { bearer: String::new() };
            builder =
                builder.with_skip_signature(true).with_credentials(Arc::new(StaticCredentialProvider::new(nobody)));
        }
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_base_url(endpoint.trim_end_matches('/'));
        }
        let store = builder.build().map_err(|error| {
            Error::invalid(format!("no client for the bucket '{}': {error}", self.bucket)).caused_by(error)
        })?;
        let url = Url::parse(&format!("gs://{}/{}", self.bucket, self.path)).map_err(|error| {
            Error::invalid(format!("'{}' is not the name of a bucket", self.bucket)).caused_by(error)
        })?;
        Ok(StoreAt { url, store: Arc::new(store), path: self.path.clone() })
    }
}
