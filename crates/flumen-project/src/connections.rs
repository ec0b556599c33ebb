//! Connections: named external systems with their credentials. A kind costs its own file under `connections/`, a variant
//! of [`Config`] and a line in [`KINDS`].
//!
//! A connection's values are rendered when it is used, never before: a list of connections needs no secrets.

pub mod azure;
pub mod gcs;
pub mod http;
pub mod local;
pub mod postgres;
pub mod s3;
pub mod smtp;

use std::path::PathBuf;

use flumen_core::boxed;
use flumen_core::error::nearest;
use flumen_core::secret::{MASK, Secret};
use flumen_core::{Error, Result};
use url::Url;

use crate::settings::{ConnectionSettings, RawField, kinds};
use crate::store::StoreAt;
use crate::template::{Rendered, Templates, uses_secret};

/// The kinds of connections.
pub const KINDS: &[&Kind] =
    &[&local::KIND, &http::KIND, &s3::KIND, &gcs::KIND, &azure::KIND, &postgres::KIND, &smtp::KIND];

/// A kind of connection.
#[derive(Debug)]
pub struct Kind {
    /// Its name in `flumen.yml`.
    pub name: &'static str,
    /// What it is, in a few words.
    pub about: &'static str,
    /// Its fields, in the order in which they are shown.
    pub fields: &'static [Field],
    /// Makes the configuration from rendered values.
    pub(crate) configure: fn(&Values) -> Result<Config>,
}

/// A field of a kind of connection.
#[derive(Debug)]
pub struct Field {
    /// Its key in `flumen.yml`.
    pub name: &'static str,
    /// What it takes.
    pub takes: Takes,
    /// Whether a connection must have it.
    pub required: bool,
    /// What it means.
    pub about: &'static str,
}

/// What a field takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// Text.
    Text,
    /// Text that is never shown.
    Secret,
    /// A URL, in which a password is never shown.
    Url,
    /// A number.
    Number,
    /// Yes or no.
    Flag,
    /// Values by name, of which those that look like credentials are never shown.
    Map,
}

impl Field {
    pub(crate) const fn optional(name: &'static str, takes: Takes, about: &'static str) -> Self {
        Self { name, takes, required: false, about }
    }

    pub(crate) const fn required(name: &'static str, takes: Takes, about: &'static str) -> Self {
        Self { name, takes, required: true, about }
    }

    /// Whether its value is a map.
    pub fn takes_map(&self) -> bool {
        self.takes == Takes::Map
    }
}

/// The kind called `name`.
///
/// Errors: `Invalid`, with the nearest name.
pub fn kind_named(name: &str) -> Result<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name).copied().ok_or_else(|| {
        let hint = match nearest(name, KINDS.iter().map(|kind| kind.name)) {
            Some(right) => format!("did you mean '{right}'?"),
            None => kinds(),
        };
        Error::invalid(format!("there is no kind '{name}' of connection")).hint(hint)
    })
}

/// A configuration that is ready for use. `Debug` shows no secrets.
#[derive(Debug, Clone)]
pub enum Config {
    /// A folder.
    Local(local::LocalConfig),
    /// A web server.
    Http(http::HttpConfig),
    /// A bucket of S3, or of what speaks like it.
    S3(s3::S3Config),
    /// A bucket of Google Cloud Storage.
    Gcs(gcs::GcsConfig),
    /// A container of Azure Blob Storage.
    Azure(azure::AzureConfig),
    /// A Postgres database.
    Postgres(postgres::PostgresConfig),
    /// A mail server.
    Smtp(smtp::SmtpConfig),
}

/// A connection of a project.
#[derive(Debug, Clone)]
pub struct Connection {
    settings: ConnectionSettings,
    templates: Templates,
    project_dir: PathBuf,
}

/// A field of a connection, fit to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownField {
    /// Its key; `headers.X` for one of a map.
    pub name: String,
    /// Its value with secrets masked, or `None` when a variable it needs is not set.
    pub value: Option<String>,
    /// Whether something of it is masked.
    pub secret: bool,
    /// The template, if its value is one.
    pub template: Option<String>,
    /// Why there is no value.
    pub problem: Option<String>,
}

/// One thing that was tried, and what came of it.
#[derive(Debug)]
pub struct Check {
    /// What was tried: `list s3://bucket/raw/`.
    pub what: String,
    /// What came back.
    pub outcome: Result<String>,
}

impl Connection {
    pub(crate) fn new(settings: ConnectionSettings, templates: Templates, project_dir: PathBuf) -> Self {
        Self { settings, templates, project_dir }
    }

    /// Its name in `flumen.yml`.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// Its kind.
    pub fn kind(&self) -> &'static Kind {
        self.settings.kind
    }

    /// Its configuration, with all templates rendered.
    ///
    /// Errors: `Invalid`, naming the connection, the field and the variable that is not set or the value that is wrong.
    pub fn config(&self) -> Result<Config> {
        let values = self.values()?;
        (self.settings.kind.configure)(&values).map_err(|error| error.within(self.place()))
    }

    /// The object store behind it, and the place in it that all paths start from.
    ///
    /// Errors: `Invalid` for a kind that stores no files, and those of [`Connection::config`].
    pub fn object_store(&self) -> Result<StoreAt> {
        let store = match self.config()? {
            Config::Local(config) => config.object_store(),
            Config::S3(config) => config.object_store(self.templates.environment()),
            Config::Gcs(config) => config.object_store(self.templates.environment()),
            Config::Azure(config) => config.object_store(self.templates.environment()),
            Config::Http(_) | Config::Postgres(_) | Config::Smtp(_) => return Err(self.wrong_kind("a store of files")),
        };
        store.map_err(|error| error.within(self.place()))
    }

    /// Its configuration as that of a Postgres database.
    ///
    /// Errors: `Invalid` if it is of another kind, and those of [`Connection::config`].
    pub fn postgres(&self) -> Result<postgres::PostgresConfig> {
        match self.config()? {
            Config::Postgres(config) => Ok(config),
            _ => Err(self.wrong_kind("a Postgres database")),
        }
    }

    /// Its configuration as that of a web server.
    ///
    /// Errors: `Invalid` if it is of another kind, and those of [`Connection::config`].
    pub fn http(&self) -> Result<http::HttpConfig> {
        match self.config()? {
            Config::Http(config) => Ok(config),
            _ => Err(self.wrong_kind("a web server")),
        }
    }

    /// Its configuration as that of a mail server.
    ///
    /// Errors: `Invalid` if it is of another kind, and those of [`Connection::config`].
    pub fn smtp(&self) -> Result<smtp::SmtpConfig> {
        match self.config()? {
            Config::Smtp(config) => Ok(config),
            _ => Err(self.wrong_kind("a mail server")),
        }
    }

    /// Whether `url` lies in what the connection reaches. Not to know (a variable is not set) means no.
    pub(crate) fn covers(&self, url: &Url) -> bool {
        let kinds: &[&str] = match url.scheme() {
            "s3" | "s3a" => &["s3"],
            "gs" | "gcs" => &["gcs"],
            "az" | "azure" | "abfs" | "abfss" | "wasb" | "wasbs" => &["azure"],
            "http" | "https" => &["http"],
            _ => &[],
        };
        kinds.contains(&self.settings.kind.name)
            && match self.config() {
                Ok(Config::S3(config)) => config.covers(url),
                Ok(Config::Gcs(config)) => config.covers(url),
                Ok(Config::Azure(config)) => config.covers(url),
                Ok(Config::Http(config)) => config.covers(url),
                _ => false,
            }
    }

    /// Tries to reach the system, step by step; the steps end with the first that fails. Must run within tokio.
    #[boxed]
    pub async fn test(&self) -> Vec<Check> {
        let config = match self.config() {
            Ok(config) => config,
            Err(error) => return vec![Check { what: "read its settings".to_owned(), outcome: Err(error) }],
        };
        match &config {
            Config::Postgres(config) => config.test().await,
            Config::Http(config) => config.test().await,
            Config::Smtp(config) => config.test().await,
            Config::Local(config) => config.test(),
            Config::S3(_) | Config::Gcs(_) | Config::Azure(_) => match self.object_store() {
                Ok(store) => vec![store.test().await],
                Err(error) => vec![Check { what: "make a client".to_owned(), outcome: Err(error) }],
            },
        }
    }

    /// Its fields, with secrets masked.
    pub fn show(&self) -> Vec<ShownField> {
        let mut shown = Vec::new();
        for field in self.settings.kind.fields {
            match self.settings.fields.iter().find(|(name, _)| name == field.name) {
                Some((name, RawField::Text(source))) => shown.push(self.shown(name.clone(), field.takes, source)),
                Some((name, RawField::Map(values))) => {
                    shown.extend(values.iter().map(|(key, source)| {
                        let takes = if looks_secret(key) { Takes::Secret } else { Takes::Text };
                        self.shown(format!("{name}.{key}"), takes, source)
                    }));
                }
                None => {}
            }
        }
        shown
    }

    /// The names of fields whose secret stands in `flumen.yml` in clear.
    pub fn secrets_in_clear(&self) -> Vec<&'static str> {
        let fields = self.settings.kind.fields.iter().filter(|field| {
            let raw = self.settings.fields.iter().find(|(name, _)| name == field.name).map(|(_, raw)| raw);
            match raw {
                Some(RawField::Text(text)) if field.takes == Takes::Secret => !crate::template::is_template(text),
                Some(RawField::Text(text)) if field.takes == Takes::Url => {
                    Url::parse(text).is_ok_and(|url| url.password().is_some_and(|text| !text.contains("{{")))
                        && !uses_secret(text)
                }
                _ => false,
            }
        });
        fields.map(|field| field.name).collect()
    }

    fn shown(&self, name: String, takes: Takes, source: &str) -> ShownField {
        let is_template = crate::template::is_template(source);
        let (value, secret, problem) = match self.templates.render(source) {
            Ok(rendered) => {
                let (text, secret) = mask(&rendered, takes);
                (Some(text), secret, None)
            }
            Err(error) => (None, takes == Takes::Secret || uses_secret(source), Some(error.message().to_owned())),
        };
        let private = takes == Takes::Secret || uses_secret(source);
        let template = (is_template && (!private || names_only(source))).then(|| source.to_owned());
        ShownField { name, value, secret, template, problem }
    }

    /// Its fields as they are used, `headers.X` for one of a map. A password is marked as a secret.
    ///
    /// Errors: `Invalid`, for a template that cannot be rendered.
    pub fn fields(&self) -> Result<std::collections::BTreeMap<String, Rendered>> {
        let takes_secret = |name: &str| {
            self.settings
                .kind
                .fields
                .iter()
                .any(|field| field.name == name && matches!(field.takes, Takes::Secret | Takes::Url))
        };
        let named = |(name, key, mut rendered): (String, Option<String>, Rendered)| {
            rendered.secret |= takes_secret(&name) || key.as_deref().is_some_and(looks_secret);
            (key.map_or(name.clone(), |key| format!("{name}.{key}")), rendered)
        };
        Ok(self.values()?.fields.into_iter().map(named).collect())
    }

    fn values(&self) -> Result<Values> {
        let mut values = Values { project_dir: self.project_dir.clone(), fields: Vec::new() };
        for (name, raw) in &self.settings.fields {
            let render = |name: &str, source: &str| {
                self.templates.render(source).map_err(|error| error.within(format!("{}: {name}", self.place())))
            };
            match raw {
                RawField::Text(source) => {
                    values.fields.push((name.clone(), None, render(name, source)?));
                }
                RawField::Map(entries) => {
                    for (key, source) in entries {
                        let rendered = render(&format!("{name}.{key}"), source)?;
                        values.fields.push((name.clone(), Some(key.clone()), rendered));
                    }
                }
            }
        }
        Ok(values)
    }

    fn place(&self) -> String {
        format!("connection '{}'", self.settings.name)
    }

    fn wrong_kind(&self, wanted: &str) -> Error {
        Error::invalid(format!("connection '{}' is of kind {}, not {wanted}", self.name(), self.settings.kind.name))
            .hint("'flumen connection list' shows the connections and their kinds")
    }
}

/// Whether a template does nothing but name a variable: one with text round it, or with a default, may hold the secret.
fn names_only(source: &str) -> bool {
    let source = source.trim();
    source.starts_with("{{") && source.ends_with("}}") && source.matches("{{").count() == 1 && !source.contains(',')
}

/// What may be shown of a value, and whether something is masked.
fn mask(rendered: &Rendered, takes: Takes) -> (String, bool) {
    if rendered.secret || takes == Takes::Secret {
        return (MASK.to_owned(), true);
    }
    match (takes, Url::parse(&rendered.text)) {
        (Takes::Url, Ok(url)) => match masked_url(&url) {
            Some(masked) => (masked, true),
            None => (rendered.text.clone(), false),
        },
        (Takes::Url, Err(_)) => (MASK.to_owned(), true),
        _ => (rendered.text.clone(), false),
    }
}

/// The URL without its credentials, if it has some.
pub(crate) fn masked_url(url: &Url) -> Option<String> {
    let query_secret = |key: &str| looks_secret(key) || key.eq_ignore_ascii_case("sig");
    let in_query = url.query_pairs().any(|(key, _)| query_secret(&key));
    if url.password().is_none() && !in_query {
        return None;
    }
    let mut masked = url.clone();
    if url.password().is_some() && masked.set_password(Some(MASK)).is_err() {
        return Some(MASK.to_owned());
    }
    if in_query {
        let pairs: Vec<(String, String)> = url
            .query_pairs()
            .map(|(key, value)| {
                let value = if query_secret(&key) { MASK.to_owned() } else { value.into_owned() };
                (key.into_owned(), value)
            })
            .collect();
        masked.query_pairs_mut().clear().extend_pairs(pairs);
    }
    Some(masked.to_string())
}

/// Whether a header or parameter with this name carries a credential.
pub(crate) fn looks_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["auth", "token", "key", "secret", "password", "cookie", "signature", "credential"]
        .iter()
        .any(|part| name.contains(part))
}

/// The rendered values of a connection, for the kind to make its configuration from.
pub(crate) struct Values {
    project_dir: PathBuf,
    /// Field, key within a map, value.
    fields: Vec<(String, Option<String>, Rendered)>,
}

impl Values {
    /// The project's folder, which relative paths start from.
    pub(crate) fn project_dir(&self) -> &std::path::Path {
        &self.project_dir
    }

    /// The text of a field. An empty one, as from a variable that is set to nothing, is none.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        let found = self.fields.iter().find(|(field, key, _)| field == name && key.is_none());
        found.map(|(.., value)| value.text.clone()).filter(|text| !text.is_empty())
    }

    /// The text of a field that must be there.
    pub(crate) fn required(&self, name: &str) -> Result<String> {
        self.text(name).ok_or_else(|| Error::invalid(format!("{name} is empty")).hint("give it a value in flumen.yml"))
    }

    /// The secret of a field.
    pub(crate) fn secret(&self, name: &str) -> Option<Secret> {
        self.text(name).map(Secret::from)
    }

    /// The number of a field.
    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match text.trim().parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(Error::invalid(format!("{name}: '{text}' is not a number that fits"))),
        }
    }

    /// The flag of a field; false if it is not given.
    pub(crate) fn flag(&self, name: &str) -> Result<bool> {
        let Some(text) = self.text(name) else { return Ok(false) };
        crate::yaml::flag(text.trim())
            .ok_or_else(|| Error::invalid(format!("{name}: '{text}' is neither true nor false")))
    }

    /// The entries of a field that is a map.
    pub(crate) fn map(&self, name: &str) -> Vec<(String, Secret)> {
        let entries = self.fields.iter().filter(|(field, ..)| field == name);
        entries.filter_map(|(_, key, value)| Some((key.clone()?, Secret::from(value.text.clone())))).collect()
    }
}
