//! A project: the folder with a `flumen.yml`. Everything else is found from it.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use flumen_core::dataset::LAKE;
use flumen_core::{Error, Result};
use url::Url;

use crate::connections::Connection;
use crate::connections::http::plain_client;
use crate::connections::local::LocalConfig;
use crate::environment::{ENV_FILE, Environment};
use crate::settings::Settings;
use crate::store::{StoreAt, object_store_for};
use crate::template::{Rendered, Templates};

/// The name of the file that makes a folder a project.
pub const PROJECT_FILE: &str = "flumen.yml";

/// A folder with a `flumen.yml`, read and checked. Templates in it are rendered when their values are used.
#[derive(Debug, Clone)]
pub struct Project {
    dir: PathBuf,
    /// The variables without those of `.env`.
    process: Environment,
    first: Read,
    /// Variables of templates that somebody keeps elsewhere.
    kept: Arc<RwLock<Arc<BTreeMap<String, String>>>>,
}

/// What the project's files said when they were read. Those that were read later follow, and the last counts: whoever has something of
/// an earlier one keeps it.
#[derive(Debug, Clone)]
struct Read {
    /// Of the text of `flumen.yml`, which may have passwords in it.
    hash: u64,
    settings: Settings,
    templates: Templates,
    later: OnceLock<Box<Read>>,
}

impl Read {
    fn of(dir: &Path, process: &Environment) -> Result<Self> {
        let path = dir.join(PROJECT_FILE);
        let bytes = std::fs::read(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                Error::not_found(format!("{}: there is no {PROJECT_FILE} in this folder", dir.display()))
                    .hint("run 'flumen init' to make a project, or check --project")
            }
            _ => Error::io(path.display(), error),
        })?;
        let text = String::from_utf8(bytes).map_err(|error| {
            Error::invalid(format!("{}: this file is not UTF-8 text", path.display())).caused_by(error)
        })?;
        let settings = Settings::parse(PROJECT_FILE, &text)?;
        let environment = process.clone().with_file(dir)?;
        let templates = Templates::new(environment, settings.vars.clone());
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        Ok(Self { hash: hasher.finish(), settings, templates, later: OnceLock::new() })
    }

    fn last(&self) -> &Self {
        let mut last = self;
        while let Some(later) = last.later.get() {
            last = later;
        }
        last
    }
}

/// What has changed in the project's files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// The files that are other ones now.
    pub files: Vec<&'static str>,
    /// What is used as it was when the project was loaded, and says something else now.
    pub not_used: Vec<&'static str>,
}

impl Project {
    /// The nearest folder, from `start` upwards, that is a project.
    pub fn find(start: &Path) -> Result<Option<PathBuf>> {
        Ok(start.ancestors().find(|dir| dir.join(PROJECT_FILE).is_file()).map(Path::to_owned))
    }

    /// The project in `dir`, with the variables of this process and of its `.env`.
    ///
    /// Errors: `NotFound` when there is no `flumen.yml` in it, `Invalid` with every mistake that it has.
    pub fn load(dir: &Path) -> Result<Self> {
        Self::load_with(dir, Environment::of_process())
    }

    /// The same with other variables than those of this process.
    pub fn load_with(dir: &Path, environment: Environment) -> Result<Self> {
        let dir = std::path::absolute(dir).map_err(|error| Error::io(dir.display(), error))?;
        let first = Read::of(&dir, &environment)?;
        Ok(Self { dir, process: environment, first, kept: Arc::default() })
    }

    /// Reads `flumen.yml` and `.env` again. What they say counts from now on for all who have this project, but what servers open once:
    /// the answer names it.
    ///
    /// Errors: as [`load`](Self::load); then everything stays as it was.
    pub fn read_again(&self) -> Result<Changes> {
        let (new, last) = (Read::of(&self.dir, &self.process)?, self.first.last());
        let mut changes = Changes::default();
        if new.hash != last.hash {
            changes.files.push(PROJECT_FILE);
        }
        if new.templates.environment() != last.templates.environment() {
            changes.files.push(ENV_FILE);
        }
        if changes.files.is_empty() {
            return Ok(changes);
        }
        let (now, first) = (&new.settings, &self.first.settings);
        let opened_once = [
            ("lake", now.lake_root != first.lake_root),
            ("serve", now.serve != first.serve),
            ("store", now.store != first.store || now.keep_runs != first.keep_runs),
            ("defaults.spool", now.defaults.spool != first.defaults.spool),
        ];
        changes.not_used = opened_once.into_iter().filter_map(|(key, is_other)| is_other.then_some(key)).collect();
        // Where somebody else was faster, that one read the same files.
        let _ = last.later.set(Box::new(new));
        Ok(changes)
    }

    /// The project's folder, absolute.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its name: what `flumen.yml` says, else that of its folder.
    pub fn name(&self) -> String {
        let folder = || self.dir.file_name().map(|name| name.to_string_lossy().into_owned());
        self.settings().name.clone().or_else(folder).unwrap_or_else(|| "project".to_owned())
    }

    /// What `flumen.yml` says, templates not rendered.
    pub fn settings(&self) -> &Settings {
        &self.first.last().settings
    }

    /// Renders the templates of this project.
    pub fn templates(&self) -> &Templates {
        &self.first.last().templates
    }

    /// Variables that count before those of `flumen.yml`, from now on, in place of those that were given before.
    pub fn keep_variables(&self, variables: BTreeMap<String, String>) {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        if **kept != variables {
            *kept = Arc::new(variables);
        }
    }

    fn kept(&self) -> Arc<BTreeMap<String, String>> {
        Arc::clone(&self.kept.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The value that templates of flows have as `var.NAME`: one that is kept, else one of `vars` in `flumen.yml`, else one that `.env`
    /// names.
    ///
    /// Errors: those of a template in `flumen.yml`.
    pub fn variable(&self, name: &str) -> Result<Option<Rendered>> {
        if let Some(text) = self.kept().get(name) {
            return Ok(Some(Rendered { text: text.clone(), secret: false }));
        }
        if let Some(source) = self.settings().vars.get(name) {
            return self.templates().render(source).map(Some).map_err(|error| error.within(format!("vars.{name}")));
        }
        let environment = self.environment();
        let text = environment.file_names().find(|of_file| *of_file == name).and_then(|name| environment.get(name));
        Ok(text.map(|text| Rendered { text: text.to_owned(), secret: false }))
    }

    /// Where a variable comes from, if there is one.
    pub fn variable_place(&self, name: &str) -> Option<&'static str> {
        if self.kept().contains_key(name) {
            return Some("flumen var");
        }
        if self.settings().vars.contains_key(name) {
            return Some(PROJECT_FILE);
        }
        self.environment().file_names().any(|of_file| of_file == name).then_some(ENV_FILE)
    }

    /// The names of all variables, sorted.
    pub fn variable_names(&self) -> BTreeSet<String> {
        let kept = self.kept();
        let of_files = self.settings().vars.keys().map(String::as_str).chain(self.environment().file_names());
        kept.keys().map(String::as_str).chain(of_files).map(str::to_owned).collect()
    }

    /// The variables of this process and of `.env`.
    pub fn environment(&self) -> &Environment {
        self.templates().environment()
    }

    /// The connections, in the order of the file.
    pub fn connections(&self) -> impl Iterator<Item = Connection> {
        let connect = |settings: &crate::settings::ConnectionSettings| {
            Connection::new(settings.clone(), self.templates().clone(), self.dir.clone())
        };
        self.settings().connections.iter().map(connect)
    }

    /// The connection called `name`.
    ///
    /// Errors: `NotFound`, with the nearest name.
    pub fn connection(&self, name: &str) -> Result<Connection> {
        self.connections().find(|connection| connection.name() == name).ok_or_else(|| {
            let names: Vec<&str> =
                self.settings().connections.iter().map(|connection| connection.name.as_str()).collect();
            Error::not_found(format!("there is no connection '{name}' in {PROJECT_FILE}"))
                .hint(match names.as_slice() {
                    [] => format!("there are none yet; add it with 'flumen connection add {name} --kind KIND'"),
                    names => format!(
                        "there are {}; add it with 'flumen connection add {name} --kind KIND'",
                        names.join(", ")
                    ),
                })
                .did_you_mean(name, names)
        })
    }

    /// Where the lake is: a folder or a bucket, and its object store. The place need not exist yet.
    ///
    /// Errors: `Invalid` when its template or its address is wrong.
    pub fn lake(&self) -> Result<StoreAt> {
        let within = |error: Error| error.within("lake.root");
        let root = self.templates().render(&self.settings().lake_root).map_err(within)?.text;
        self.open(&root).map_err(within)
    }

    /// The URL of the lake's root, with a slash at its end.
    pub fn lake_root(&self) -> Result<Url> {
        let mut url = self.lake()?.url;
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        Ok(url)
    }

    /// The folder for temporary files, if the project names one.
    pub fn spool(&self) -> Result<Option<PathBuf>> {
        let Some(spool) = &self.settings().defaults.spool else { return Ok(None) };
        let rendered = self.templates().render(spool).map_err(|error| error.within("defaults.spool"))?;
        Ok(Some(self.dir.join(rendered.text)))
    }

    /// The folder whose files clients of a server may read, if the project allows one.
    pub fn served_files(&self) -> Result<Option<PathBuf>> {
        let Some(folder) = &self.settings().serve.files else { return Ok(None) };
        let rendered = self.templates().render(folder).map_err(|error| error.within("serve.files"))?;
        Ok(Some(self.dir.join(rendered.text)))
    }

    /// The place that `address` names: a URL of an object store, or a path from the project's folder.
    fn open(&self, address: &str) -> Result<StoreAt> {
        if address.trim().is_empty() {
            return Err(
                Error::invalid("the address is empty").hint(format!("give a folder, such as '{LAKE}', or a URL"))
            );
        }
        match Url::parse(address) {
            // A scheme of one letter is a drive of Windows.
            Ok(url) if url.scheme().len() > 1 => self.object_store_for(&url),
            _ => LocalConfig { root: self.dir.join(address) }.object_store(),
        }
    }

    /// The object store for `url`: by the first connection whose bucket it is in, else by what the environment has.
    ///
    /// Errors: those of [`object_store_for`] and [`Connection::object_store`].
    pub fn object_store_for(&self, url: &Url) -> Result<StoreAt> {
        match self.connections().find(|connection| connection.covers(url)) {
            Some(connection) => {
                let store = connection.object_store()?.store;
                let (_, path) = crate::store::bucket_and_path(url)?;
                let mut url = url.clone();
                url.set_query(None);
                Ok(StoreAt { url, store, path })
            }
            None => object_store_for(url, self.environment()),
        }
    }

    /// The client for a web address: that of the first connection that it lies below, else a plain one.
    pub fn http_client_for(&self, url: &Url) -> Result<reqwest::Client> {
        match self.connections().find(|connection| connection.covers(url)) {
            Some(connection) => connection.http()?.client(),
            None => plain_client(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(text: &str, variables: &[(&str, &str)]) -> (tempfile::TempDir, Project) {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join(PROJECT_FILE), text).expect("written");
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let project = Project::load_with(dir.path(), Environment::of(variables)).expect("a project");
        (dir, project)
    }

    #[test]
    fn found_from_below() {
        let (dir, _) = project("", &[]);
        let below = dir.path().join("a/b");
        std::fs::create_dir_all(&below).expect("made");
        assert_eq!(Project::find(&below).expect("looked"), Some(dir.path().to_owned()));
    }

    #[test]
    fn files_that_change_count_when_they_are_read_again() {
        let (dir, project) = project("vars: { a: one }\nconnections: { pg: { kind: postgres } }", &[("IN", "process")]);
        let read = |project: &Project| {
            let rendered = project.templates().render("{{ var('a') }} {{ env_var('B', 'none') }} {{ env_var('IN') }}");
            rendered.expect("a text").text
        };
        assert_eq!(project.read_again().expect("read"), Changes::default());
        let before = project.connection("pg").expect("there");
        std::fs::write(dir.path().join(PROJECT_FILE), "vars: { a: two }\nlake: { root: elsewhere }\n")
            .expect("written");
        assert_eq!(read(&project), "one none process");
        let changes = project.read_again().expect("read");
        assert_eq!(changes, Changes { files: vec![PROJECT_FILE], not_used: vec!["lake"] });
        std::fs::write(dir.path().join(ENV_FILE), "B=three\nIN=file\n").expect("written");
        assert_eq!(project.read_again().expect("read").files, [ENV_FILE]);
        assert_eq!(read(&project), "two three process");
        assert!(project.connection("pg").is_err());
        assert_eq!(before.name(), "pg");
        // What is broken changes nothing.
        std::fs::write(dir.path().join(PROJECT_FILE), "vars: [\n").expect("written");
        assert!(project.read_again().is_err());
        assert_eq!(read(&project), "two three process");
    }

    #[test]
    fn variables_come_from_three_places() {
        let (dir, project) = project("vars: { a: file, b: \"{{ env_var('IN') }}\" }", &[("IN", "process")]);
        std::fs::write(dir.path().join(ENV_FILE), "a=env\nc=env\nIN=env\n").expect("written");
        project.read_again().expect("read");
        project.keep_variables([("a".to_owned(), "kept".to_owned())].into());
        let said = |name: &str| {
            let value = project.variable(name).expect("a value").map(|value| value.text);
            value.zip(project.variable_place(name))
        };
        assert_eq!(said("a"), Some(("kept".to_owned(), "flumen var")));
        assert_eq!(said("b"), Some(("process".to_owned(), PROJECT_FILE)));
        assert_eq!(said("c"), Some(("env".to_owned(), ENV_FILE)));
        assert_eq!(said("IN"), Some(("process".to_owned(), ENV_FILE)));
        assert_eq!(said("d"), None);
        assert_eq!(project.variable_names().into_iter().collect::<Vec<_>>(), ["IN", "a", "b", "c"]);
        project.keep_variables(BTreeMap::new());
        assert_eq!(said("a"), Some(("file".to_owned(), PROJECT_FILE)));
    }

    #[test]
    fn the_lake_is_a_folder_in_the_project_by_default() {
        let (dir, project) = project("", &[]);
        let lake = project.lake().expect("a place");
        assert_eq!(lake.url.to_file_path().expect("a path"), dir.path().join("lake"));
        assert!(project.lake_root().expect("a root").as_str().ends_with("/lake/"));
        assert!(!dir.path().join("lake").exists(), "looking makes nothing");
    }

    #[test]
    fn a_lake_in_a_bucket_uses_the_connection_of_that_bucket() {
        let text = "
lake: { root: \"s3://{{ var('bucket') }}/lake\" }
vars: { bucket: trips }
connections:
  other: { kind: s3, bucket: other, secret_access_key: \"{{ secret_env('NOT_SET') }}\", access_key_id: a }
  mine: { kind: s3, bucket: trips, endpoint: 'http://127.0.0.1:9', allow_http: true, anonymous: true }
";
        let (_dir, project) = project(text, &[]);
        let lake = project.lake().expect("a place");
        assert_eq!((lake.url.as_str(), lake.path.as_ref()), ("s3://trips/lake", "lake"));
        assert!(format!("{:?}", lake.store).contains("127.0.0.1:9"));
        assert_eq!(project.lake_root().expect("a root").as_str(), "s3://trips/lake/");
    }

    #[test]
    fn environment_credentials_open_what_no_connection_covers() {
        let (_dir, project) = project(
            "",
            &[("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "hunter2"), ("AWS_REGION", "eu-west-3")],
        );
        let url = "s3://bucket/a/b%20c.parquet".parse().expect("a URL");
        let place = project.object_store_for(&url).expect("a place");
        assert_eq!(place.path.as_ref(), "a/b c.parquet");
        assert!(format!("{:?}", place.store).contains("eu-west-3"));
    }

    #[test]
    fn every_kind_of_url_opens() {
        let (_dir, project) = project("", &[("AZURE_STORAGE_ACCOUNT_NAME", "me")]);
        for (url, expect) in [
            ("s3://b/k", "s3://b/k"),
            ("gs://b/k", "gs://b/k"),
            ("az://c/k", "az://c/k"),
            ("azure://c/k", "az://c/k"),
            ("abfss://c@acc.dfs.core.windows.net/k", "az://c/k"),
            ("file:///tmp/x", "file:///tmp/x/"),
        ] {
            let place = project.object_store_for(&url.parse().expect("a URL")).expect(url);
            assert_eq!(place.url.as_str(), expect);
        }
        let error = project.object_store_for(&"ftp://x/y".parse().expect("a URL")).expect_err("not a store");
        assert!(error.remedy().is_some_and(|hint| hint.contains("s3://")));
    }

    #[test]
    fn secrets_are_asked_for_when_they_are_used() {
        let text = "
connections:
  pg:
    kind: postgres
    host: \"{{ env_var('PG_HOST', 'localhost') }}\"
    password: \"{{ secret_env('PG_PASSWORD') }}\"
";
        let (_dir, without) = project(text, &[]);
        assert_eq!(without.connections().count(), 1);
        let error = without.connection("pg").expect("there").config().expect_err("no password");
        assert_eq!(error.to_string(), "connection 'pg': password: the environment variable PG_PASSWORD is not set");
        let (_dir, with) = project(text, &[("PG_PASSWORD", "hunter2"), ("PG_HOST", "db1")]);
        let connection = with.connection("pg").expect("there");
        assert_eq!(connection.postgres().expect("a database").address(), "postgres@db1:5432/postgres");
        let shown = format!("{:?} {:?} {:?}", connection.show(), connection.config().expect("valid"), connection);
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("***"), "{shown}");
    }

    #[test]
    fn credentials_in_addresses_and_headers_are_masked() {
        let text = "
connections:
  web:
    kind: http
    url: https://me:hunter2@example.org/data
    headers: { X-Api-Key: hunter2, Accept: text/csv }
  pg: { kind: postgres, url: 'postgres://me:hunter2@db/x' }
";
        let (_dir, project) = project(text, &[]);
        for connection in project.connections() {
            let shown = format!("{:?} {:?}", connection.show(), connection.config().expect("valid"));
            assert!(!shown.contains("hunter2") && shown.contains("***"), "{shown}");
        }
        let connection = project.connection("pg").expect("there");
        assert_eq!(connection.secrets_in_clear(), ["url"]);
    }

    #[test]
    fn a_wrong_name_of_a_connection_gets_the_right_one() {
        let (_dir, project) = project("connections: { pg: { kind: postgres } }", &[]);
        let error = project.connection("pgg").expect_err("not there");
        assert_eq!(error.remedy(), Some("did you mean 'pg'?"));
        let error = project.connection("pg").expect("there").object_store().expect_err("no files");
        assert_eq!(error.to_string(), "connection 'pg' is of kind postgres, not a store of files");
    }
}
