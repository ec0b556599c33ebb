//! The flows of a project as its files are now, all checked.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flumen_core::{Error, Result};
use flumen_flow::definition::{
    Checker, Deployment, Flow, Hooks, KnownFlow, Meanings, Mistakes, ProjectFile, Surroundings,
};
use flumen_project::{PROJECT_FILE, Project};

use crate::circles;

/// The folder of a project with its flows.
pub const FLOWS_FOLDER: &str = "flows";
/// The folder of a project with its deployments.
pub const DEPLOYMENTS_FOLDER: &str = "deployments";
/// Bytes of a file that is read for the names in it.
const FILE_BYTES: u64 = 4 << 20;

/// The flows of a project.
#[derive(Debug, Default)]
pub struct ProjectFlows {
    /// Those without mistakes, by name.
    pub flows: BTreeMap<String, Arc<Flow>>,
    /// Named copies of them without mistakes, by name.
    pub deployments: BTreeMap<String, Deployment>,
    /// The mistakes of the others, by file.
    pub mistakes: BTreeMap<String, Mistakes>,
    /// What could be read of flows with mistakes, by file: to be looked at, and not to be run.
    pub partly: BTreeMap<String, Arc<Flow>>,
    /// Files that could not be read.
    pub unread: Vec<Error>,
    /// What is done for all flows when something happened: the hooks in `flumen.yml`.
    pub hooks: Hooks,
    /// Files that flows name, with mistakes or not, whether they are there or not: paths in the project.
    pub named: BTreeSet<String>,
}

impl ProjectFlows {
    /// Reads and checks all flows of `project`. `pools` are those that were made.
    ///
    /// Errors: those of the folder. What is wrong with one flow is told of it, and stops no other.
    pub fn read(project: &Project, pools: &BTreeSet<String>, checker: &Checker) -> Result<Self> {
        let mut found = Self::default();
        let texts = found.texts(project, FLOWS_FOLDER)?;
        let named = RefCell::new(BTreeSet::new());
        let lookup = |name: &str| {
            named.borrow_mut().insert(name.to_owned());
            file_of(project.dir(), name)
        };
        let meanings = Meanings::new(&lookup);
        let around = surroundings(project, pools, &texts, checker, &meanings);
        for (file, text) in &texts {
            match checker.check_partly(file, text, &around, &meanings) {
                (flow, None) => drop(found.flows.insert(flow.name.clone(), Arc::new(flow))),
                (flow, Some(mistakes)) => {
                    found.mistakes.insert(file.clone(), mistakes);
                    found.partly.insert(file.clone(), Arc::new(flow));
                }
            }
        }
        circles::warn(&mut found.flows);
        for (file, text) in &found.texts(project, DEPLOYMENTS_FOLDER)? {
            match checker.deployment(file, text, &around, &meanings) {
                Ok(deployment) => drop(found.deployments.insert(deployment.name.clone(), deployment)),
                Err(mistakes) => drop(found.mistakes.insert(file.clone(), mistakes)),
            }
        }
        let settings = std::fs::read_to_string(project.dir().join(PROJECT_FILE)).unwrap_or_default();
        match checker.project_hooks(PROJECT_FILE, &settings, &around, &meanings) {
            Ok(hooks) => found.hooks = hooks,
            Err(mistakes) => drop(found.mistakes.insert(PROJECT_FILE.to_owned(), mistakes)),
        }
        found.named = named.into_inner();
        Ok(found)
    }

    /// The texts of the files in a folder, by their paths in the project.
    fn texts(&mut self, project: &Project, folder: &str) -> Result<BTreeMap<String, String>> {
        let mut texts = BTreeMap::new();
        for path in files(&project.dir().join(folder))? {
            let name = path.strip_prefix(project.dir()).unwrap_or(&path).to_string_lossy().into_owned();
            match std::fs::read_to_string(&path) {
                Ok(text) => drop(texts.insert(name, text)),
                Err(error) => self.unread.push(Error::io(name, error)),
            }
        }
        Ok(texts)
    }

    /// Whether the file of a flow has mistakes: by the name of the file.
    pub fn is_broken(&self, flow: &str) -> bool {
        self.mistakes.keys().any(|file| Path::new(file).file_stem().is_some_and(|stem| stem == flow))
    }

    /// The deployment called `name`.
    ///
    /// Errors: `Invalid` with the mistakes of its file; `NotFound`, with the nearest name.
    pub fn deployment(&self, name: &str) -> Result<&Deployment> {
        let of_name = |file: &&String| {
            let path = Path::new(file.as_str());
            path.starts_with(DEPLOYMENTS_FOLDER) && path.file_stem().is_some_and(|stem| stem == name)
        };
        if !self.deployments.contains_key(name)
            && let Some(mistakes) = self.mistakes.keys().find(of_name).and_then(|file| self.mistakes.get(file))
        {
            return Err(Error::from(mistakes.clone()));
        }
        self.deployments.get(name).ok_or_else(|| {
            Error::not_found(format!("there is no deployment '{name}' in {DEPLOYMENTS_FOLDER}/"))
                .hint("'flumen deploy list' shows them")
                .did_you_mean(name, self.deployments.keys().map(String::as_str))
        })
    }

    /// The flow called `name`.
    ///
    /// Errors: `Invalid` with its mistakes; `NotFound`, with the nearest name.
    pub fn flow(&self, name: &str) -> Result<&Arc<Flow>> {
        if let Some(flow) = self.flows.get(name) {
            return Ok(flow);
        }
        let stem = |file: &&String| {
            let path = Path::new(file.as_str());
            path.starts_with(FLOWS_FOLDER) && path.file_stem().is_some_and(|stem| stem == name)
        };
        if let Some(file) = self.mistakes.keys().find(stem) {
            return Err(Error::from(self.mistakes[file].clone()));
        }
        let names: Vec<&str> = self.flows.keys().map(String::as_str).collect();
        let error = Error::not_found(format!("there is no flow '{name}' in {FLOWS_FOLDER}/"));
        Err(match (names.as_slice(), self.mistakes.is_empty()) {
            ([], true) => error.hint(format!("write one: {FLOWS_FOLDER}/{name}.yml")),
            (_, false) => error.hint("'flumen check' tells which files have mistakes").did_you_mean(name, names),
            (many, true) => error.hint(format!("the flows are {}", many.join(", "))).did_you_mean(name, names),
        })
    }
}

/// The hooks that `flumen.yml` has for all flows; none where they have mistakes, which [`ProjectFlows::read`] tells.
pub fn project_hooks(project: &Project, checker: &Checker) -> Hooks {
    let lookup = |name: &str| file_of(project.dir(), name);
    let settings = std::fs::read_to_string(project.dir().join(PROJECT_FILE)).unwrap_or_default();
    let hooks = checker.project_hooks(PROJECT_FILE, &settings, &Surroundings::trusting(), &Meanings::new(&lookup));
    hooks.unwrap_or_default()
}

/// A deployment in `text`, checked against the flows that the project has.
///
/// Errors: its mistakes; those of the folder.
pub fn check_deployment(
    project: &Project,
    pools: &BTreeSet<String>,
    checker: &Checker,
    file: &str,
    text: &str,
) -> Result<Deployment> {
    let texts = ProjectFlows::default().texts(project, FLOWS_FOLDER)?;
    let lookup = |name: &str| file_of(project.dir(), name);
    let meanings = Meanings::new(&lookup);
    let around = surroundings(project, pools, &texts, checker, &meanings);
    Ok(checker.deployment(file, text, &around, &meanings)?)
}

/// What the project has that flows may name.
fn surroundings(
    project: &Project,
    pools: &BTreeSet<String>,
    texts: &BTreeMap<String, String>,
    checker: &Checker,
    meanings: &Meanings<'_>,
) -> Surroundings {
    let mut around = Surroundings {
        connections: project.connections().map(|connection| connection.name().to_owned()).collect(),
        connection_fields: project
            .settings()
            .connections
            .iter()
            .map(|one| (one.name.clone(), one.fields.iter().map(|(name, _)| name.clone()).collect()))
            .collect(),
        vars: project.variable_names(),
        pools: pools.iter().chain(project.settings().pools.keys()).cloned().collect(),
        ..Surroundings::default()
    };
    // Flows name each other: each is read once without looking at the others.
    for (file, text) in texts {
        let known = match checker.check(file, text, &Surroundings::trusting(), meanings) {
            Ok(flow) => {
                let writes = flow.tasks.iter().flat_map(|task| &task.uses.writes);
                around.datasets.extend(writes.filter(|named| !named.is_template()).map(|named| named.text.clone()));
                Some((flow.name, Some(flow.params)))
            }
            Err(_) => {
                text.lines().find_map(|line| line.strip_prefix("flow:")).map(|name| (name.trim().to_owned(), None))
            }
        };
        if let Some((name, params)) = known {
            around.flows.entry(name).or_insert(KnownFlow { file: file.clone(), params });
        }
    }
    // A template among them may be any.
    if texts.values().any(|text| text.contains("to: lake.") && text.contains("{{")) {
        around.datasets.clear();
    }
    around
}

/// The files of flows in a folder, in its folders too, sorted. None where there is no folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io(folder.display(), error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| Error::io(folder.display(), error))?.path();
        let is_hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if is_hidden {
            continue;
        }
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "yml" || extension == "yaml") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// A file that a task names.
fn file_of(project: &Path, name: &str) -> ProjectFile {
    let path = project.join(name);
    match std::fs::metadata(&path) {
        Err(_) => ProjectFile::Missing,
        Ok(meta) if !meta.is_file() => ProjectFile::Missing,
        Ok(meta) if meta.len() > FILE_BYTES => ProjectFile::Unread,
        Ok(_) => std::fs::read_to_string(&path).map_or(ProjectFile::Unread, ProjectFile::Text),
    }
}
