//! `kind: azure`: a container of Azure Blob Storage.
//!
//! Credentials come from the connection, else from `AZURE_*` variables, else from the machine.

use std::sync::Arc;

use flumen_core::secret::{ExposeSecret as _, Secret};
use flumen_core::{Error, Result};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::path::Path;
use url::Url;

use super::{Config, Field, Kind, Takes, Values};
use crate::environment::Environment;
use crate::store::{StoreAt, bucket_and_path, client_options, prefix_path, retries};

/// See the module.
pub const KIND: Kind = Kind {
    name: "azure",
    about: "a container of Azure Blob Storage",
    fields: &[
        Field::required("container", Takes::Text, "the name of the container"),
        Field::optional("account", Takes::Text, "the storage account"),
        Field::optional("prefix", Takes::Text, "the path in the container that all paths start from"),
        Field::optional("access_key", Takes::Secret, "the account's key"),
        Field::optional("sas_token", Takes::Secret, "a shared access signature"),
        Field::optional("anonymous", Takes::Flag, "for a public container: requests are not signed"),
        Field::optional("emulator", Takes::Flag, "the container is in an Azurite on this machine"),
        Field::optional("endpoint", Takes::Url, "the server, for one that is not Microsoft's"),
        Field::optional("allow_http", Takes::Flag, "let the endpoint be http"),
    ],
    configure,
};

/// A container of Azure Blob Storage.
#[derive(Debug, Clone, Default)]
pub struct AzureConfig {
    /// The container.
    pub container: String,
    /// The storage account.
    pub account: Option<String>,
    /// The path in the container.
    pub path: Path,
    /// The account's key.
    pub access_key: Option<Secret>,
    /// A shared access signature.
    pub sas_token: Option<Secret>,
    /// Requests are not signed.
    pub anonymous: bool,
    /// The container is in an emulator.
    pub emulator: bool,
    /// The server.
    pub endpoint: Option<String>,
    /// The endpoint may be http.
    pub allow_http: bool,
}

fn configure(values: &Values) -> Result<Config> {
    Ok(Config::Azure(AzureConfig {
        container: values.required("container")?,
        account: values.text("account"),
        path: prefix_path(values.text("prefix").as_deref())?,
        access_key: values.secret("access_key"),
        sas_token: values.secret("sas_token"),
        anonymous: values.flag("anonymous")?,
        emulator: values.flag("emulator")?,
        endpoint: values.text("endpoint"),
        allow_http: values.flag("allow_http")?,
    }))
}

/// The container and the account of a URL: `az://container/…` names no account, `abfss://container@account.…/…` does.
fn container_and_account(url: &Url) -> Option<(String, Option<String>)> {
    let host = url.host_str()?;
    match url.username() {
        "" => Some((host.to_owned(), None)),
        container => Some((container.to_owned(), host.split('.').next().map(str::to_owned))),
    }
}

impl AzureConfig {
    /// The container of an `az:` or `abfss:` URL, with what the environment has.
    pub(crate) fn of_url(url: &Url, environment: &Environment) -> Result<Self> {
        let (_, path) = bucket_and_path(url)?;
        let (container, account) =
            container_and_account(url).ok_or_else(|| Error::invalid(format!("{url} names no container")))?;
        let emulator = environment.get("AZURE_STORAGE_USE_EMULATOR").and_then(crate::yaml::flag).unwrap_or(false);
        Ok(Self { container, account, path, emulator, ..Self::default() })
    }

    /// Whether `url` is in this container.
    pub(crate) fn covers(&self, url: &Url) -> bool {
        container_and_account(url).is_some_and(|(container, account)| {
            container == self.container && (account.is_none() || account == self.account)
        })
    }

    /// The container, and the path in it.
    pub fn object_store(&self, environment: &Environment) -> Result<StoreAt> {
        let own_key = self.access_key.is_some() || self.sas_token.is_some();
        let mut builder = MicrosoftAzureBuilder::new();
        for (name, value) in environment.starting_with("AZURE_") {
            match name.to_ascii_lowercase().parse() {
                Ok(AzureConfigKey::AccessKey | AzureConfigKey::SasKey | AzureConfigKey::Token) if own_key => {}
                Ok(key) => builder = builder.with_config(key, value),
                Err(_) => {}
            }
        }
        let options = client_options().with_allow_http(self.allow_http);
        builder = builder.with_retry(retries()).with_client_options(options).with_container_name(&self.container);
        if let Some(account) = &self.account {
            builder = builder.with_account(account);
        }
        if let Some(key) = &self.access_key {
            builder = builder.with_access_key(key.expose_secret());
        }
        if let Some(token) = &self.sas_token {
            builder = builder.with_config(AzureConfigKey::SasKey, token.expose_secret().trim_start_matches('?'));
        }
        if self.emulator {
            builder = builder.with_use_emulator(true);
        }
        if self.anonymous {
            builder = builder.with_skip_signature(true);
        }
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint.trim_end_matches('/').to_owned());
        }
        let account = builder.get_config_value(&AzureConfigKey::AccountName);
        if account.is_none() && !self.emulator {
            return Err(Error::invalid(format!("no storage account is given for the container '{}'", self.container))
                .hint("set 'account' in the connection, or AZURE_STORAGE_ACCOUNT_NAME in the environment"));
        }
        let store = builder.build().map_err(|error| {
            Error::invalid(format!("no client for the container '{}': {error}", self.container)).caused_by(error)
        })?;
        let url = Url::parse(&format!("az://{}/{}", self.container, self.path)).map_err(|error| {
            Error::invalid(format!("'{}' is not the name of a container", self.container)).caused_by(error)
        })?;
        Ok(StoreAt { url, store: Arc::new(store), path: self.path.clone() })
    }
}
