//! `kind: s3`: a bucket of S3, or of a server that speaks like it (MinIO, R2, Ceph).
//!
//! Credentials come from the connection, else from `AWS_*` variables, else from `~/.aws` (profile `AWS_PROFILE` or
//! `default`), else from the machine (web identity, container, instance).

use std::path::PathBuf;
use std::sync::Arc;

use flumen_core::secret::{ExposeSecret as _, Secret};
use flumen_core::{Error, Result};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path;
use url::Url;

use super::{Config, Field, Kind, Takes, Values};
use crate::environment::Environment;
use crate::store::{StoreAt, bucket_and_path, client_options, prefix_path, retries};

/// See the module.
pub const KIND: Kind = Kind {
    name: "s3",
    about: "a bucket of S3, or of a server that speaks like it",
    fields: &[
        Field::required("bucket", Takes::Text, "the name of the bucket"),
        Field::optional("prefix", Takes::Text, "the path in the bucket that all paths start from"),
        Field::optional("region", Takes::Text, "the region, such as eu-central-1; us-east-1 by default"),
        Field::optional("endpoint", Takes::Url, "the server, for one that is not Amazon's"),
        Field::optional("access_key_id", Takes::Text, "the key's id"),
        Field::optional("secret_access_key", Takes::Secret, "the key's secret"),
        Field::optional("session_token", Takes::Secret, "the token of a temporary key"),
        Field::optional("anonymous", Takes::Flag, "for a public bucket: requests are not signed"),
        Field::optional("allow_http", Takes::Flag, "let the endpoint be http"),
    ],
    configure,
};

/// A bucket of S3.
#[derive(Debug, Clone, Default)]
pub struct S3Config {
    /// The bucket.
    pub bucket: String,
    /// The path in it.
    pub path: Path,
    /// The region.
    pub region: Option<String>,
    /// The server.
    pub endpoint: Option<String>,
    /// The key's id.
    pub access_key_id: Option<String>,
    /// The key's secret.
    pub secret_access_key: Option<Secret>,
    /// The token of a temporary key.
    pub session_token: Option<Secret>,
    /// Requests are not signed.
    pub anonymous: bool,
    /// The endpoint may be http.
    pub allow_http: bool,
}

fn configure(values: &Values) -> Result<Config> {
    let config = S3Config {
        bucket: values.required("bucket")?,
        path: prefix_path(values.text("prefix").as_deref())?,
        region: values.text("region"),
        endpoint: values.text("endpoint"),
        access_key_id: values.text("access_key_id"),
        secret_access_key: values.secret("secret_access_key"),
        session_token: values.secret("session_token"),
        anonymous: values.flag("anonymous")?,
        allow_http: values.flag("allow_http")?,
    };
    if config.access_key_id.is_some() != config.secret_access_key.is_some() {
        return Err(Error::invalid("access_key_id and secret_access_key belong together, and one of them is missing")
            .hint("give both, or neither to take them from the environment"));
    }
    Ok(Config::S3(config))
}

impl S3Config {
    /// The bucket of an `s3:` URL, with what the environment has.
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
        let mut builder = AmazonS3Builder::new().with_retry(retries()).with_client_options(client_options());
        // Parts of two different keys are never mixed: the connection's, the environment's, that of the shared files.
        let own_key = self.access_key_id.is_some();
        if !own_key && !self.anonymous && environment.get("AWS_ACCESS_KEY_ID").is_none() {
            for (key, value) in shared_files(environment) {
                builder = builder.with_config(key, value);
            }
        }
        for (name, value) in environment.starting_with("AWS_") {
            match name.to_ascii_lowercase().parse() {
                Ok(AmazonS3ConfigKey::Token) if own_key => {}
                Ok(key) => builder = builder.with_config(key, value),
                Err(_) => {}
            }
        }
        builder = builder.with_bucket_name(&self.bucket);
        if let Some(region) = &self.region {
            builder = builder.with_region(region);
        }
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        if let (Some(id), Some(secret)) = (&self.access_key_id, &self.secret_access_key) {
            builder = builder.with_access_key_id(id).with_secret_access_key(secret.expose_secret());
            if let Some(token) = &self.session_token {
                builder = builder.with_token(token.expose_secret());
            }
        }
        if self.anonymous {
            builder = builder.with_skip_signature(true);
        }
        if self.allow_http {
            builder = builder.with_allow_http(true);
        }
        let store = builder.build().map_err(|error| {
            Error::invalid(format!("no client for the bucket '{}': {error}", self.bucket)).caused_by(error)
        })?;
        let url = format!("s3://{}/{}", self.bucket, self.path);
        let url = Url::parse(&url).map_err(|error| {
            Error::invalid(format!("'{}' is not the name of a bucket", self.bucket)).caused_by(error)
        })?;
        Ok(StoreAt { url, store: Arc::new(store), path: self.path.clone() })
    }
}

/// What `~/.aws/credentials` and `~/.aws/config` say about the profile, as far as an object store can use it.
fn shared_files(environment: &Environment) -> Vec<(AmazonS3ConfigKey, String)> {
    let home = environment.get("HOME").or_else(|| environment.get("USERPROFILE")).map(PathBuf::from);
    let file = |variable: &str, name: &str| {
        let given = environment.get(variable).map(PathBuf::from);
        let path = given.or_else(|| Some(home.as_ref()?.join(".aws").join(name)))?;
        std::fs::read_to_string(path).ok()
    };
    let profile = environment.get("AWS_PROFILE").unwrap_or("default");
    let mut found = Vec::new();
    for (text, section) in [
        (
            file("AWS_CONFIG_FILE", "config"),
            if profile == "default" { profile.to_owned() } else { format!("profile {profile}") },
        ),
        (file("AWS_SHARED_CREDENTIALS_FILE", "credentials"), profile.to_owned()),
    ] {
        for (name, value) in section_of(&text.unwrap_or_default(), &section) {
            let key = match name.as_str() {
                "aws_access_key_id" => AmazonS3ConfigKey::AccessKeyId,
                "aws_secret_access_key" => AmazonS3ConfigKey::SecretAccessKey,
                "aws_session_token" => AmazonS3ConfigKey::Token,
                "region" => AmazonS3ConfigKey::Region,
                "endpoint_url" => AmazonS3ConfigKey::Endpoint,
                _ => continue,
            };
            found.push((key, value));
        }
    }
    found
}

/// The keys and values of one section of an ini file.
fn section_of(text: &str, section: &str) -> Vec<(String, String)> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            inside = name.trim() == section;
        } else if let (true, false, Some((key, value))) = (inside, line.starts_with(['#', ';']), line.split_once('=')) {
            found.push((key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    found
}
