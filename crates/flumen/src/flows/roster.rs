//! The flows and deployments of a project as they are now, for whoever makes runs of them. Files are watched: a change is there
//! within a second, and a file with mistakes leaves its flow as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use flumen_core::flow::{FlowName, FlowVersion};
use flumen_core::{Error, Result};
use flumen_flow::compiled::Compiled;
use flumen_flow::definition::params::Resolved;
use flumen_flow::definition::{Deployment, Flow};
use flumen_project::PROJECT_FILE;
use flumen_scheduler::{Entry, Roster};
use flumen_worker::library::Variant;
use flumen_worker::project_flows::{DEPLOYMENTS_FOLDER, FLOWS_FOLDER, ProjectFlows};
use flumen_worker::templates::render_defaults;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use notify::{RecursiveMode, Watcher as _};
use serde_json::{Map, Value};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::runtime::Flowing;
use crate::context::Context;

/// How long files must be quiet before they are read.
const QUIET: Duration = Duration::from_millis(100);

/// Flows that are saved at once.
const TOGETHER: usize = 64;

/// What there is to run, by the flow and its deployment.
type Entries = BTreeMap<(FlowName, Option<String>), Arc<Entry>>;

/// The flows and deployments of a project.
pub struct ProjectRoster {
    flowing: Arc<Flowing>,
    clock: Arc<dyn flumen_core::clock::Clock>,
    entries: RwLock<Entries>,
    changed: watch::Sender<u64>,
    /// What was wrong when the files were read last.
    told: Mutex<Vec<String>>,
}

/// What became of reading the files.
#[derive(Debug, Default)]
pub struct Reading {
    /// Flows that are new or changed.
    pub changed: Vec<String>,
    /// What is wrong, a sentence each.
    pub problems: Vec<String>,
    /// Files that flows name.
    files: BTreeSet<PathBuf>,
    /// Whether anything is wrong, told or not.
    is_broken: bool,
}

/// The files on which flows depend.
struct Sources {
    /// The project's folder.
    project: PathBuf,
    /// The folders all of whose files do.
    folders: [PathBuf; 2],
    /// Other files.
    files: BTreeSet<PathBuf>,
    /// Whether a flow has mistakes: which files it names is not known then, and any may mend it.
    is_broken: bool,
}

impl Sources {
    fn of(project: &Path) -> Self {
        Self {
            project: project.to_owned(),
            is_broken: true,
            folders: [FLOWS_FOLDER, DEPLOYMENTS_FOLDER].map(|folder| project.join(folder)),
            files: BTreeSet::from([project.join(PROJECT_FILE)]),
        }
    }

    /// Whether an event may have changed one of them. The project's folder may have others in it, such as a log that grows.
    fn are_in(&self, event: &notify::Event) -> bool {
        let is_other = |path: &PathBuf| {
            // A folder of theirs may have been moved.
            let mut ours = self.files.iter().chain(&self.folders);
            path.parent() == Some(&self.project) && !ours.any(|one| one.starts_with(path))
        };
        let matters = self.is_broken || event.need_rescan() || !event.paths.iter().all(is_other);
        !event.kind.is_access() && matters
    }

    /// The folders that are to be watched, besides the project's.
    fn places(&self) -> BTreeSet<PathBuf> {
        let parents = self.files.iter().filter_map(|file| Some(file.parent()?.to_owned()));
        self.folders.iter().cloned().chain(parents).collect()
    }
}

impl ProjectRoster {
    /// An empty one.
    pub fn new(flowing: Arc<Flowing>, context: &Context) -> Self {
        let changed = watch::Sender::new(0);
        Self { flowing, clock: Arc::clone(&context.clock), entries: RwLock::default(), changed, told: Mutex::default() }
    }

    /// Reads all files.
    ///
    /// Errors: those of the store. What is wrong with a file is told.
    pub async fn read(&self) -> Result<Reading> {
        let found = self.flowing.flows().await?;
        let mut reading = Reading::default();
        let dir = self.flowing.project.dir();
        for mistakes in found.mistakes.values() {
            reading.problems.extend(mistakes.iter().map(ToString::to_string));
            reading.is_broken = true;
        }
        reading.problems.extend(found.unread.iter().map(ToString::to_string));
        let mut entries = BTreeMap::new();
        // What is new of them is saved together: the disk is waited for once for many.
        let made = futures::stream::iter(found.flows.values().cloned())
            .map(|flow| async move { (Arc::clone(&flow), self.entry(&flow, None).await) })
            .buffered(TOGETHER)
            .collect::<Vec<_>>()
            .await;
        for (flow, entry) in made {
            reading.files.extend(flow.files().iter().map(|file| dir.join(file)));
            match entry {
                Ok(entry) => drop(entries.insert((entry.name(), None), entry)),
                Err(error) => reading.problems.push(error.within(&flow.file).to_string()),
            }
        }
        for deployment in found.deployments.values() {
            let Some(flow) = found.flows.get(&deployment.flow) else { continue };
            match self.deployed(flow, deployment).await {
                Ok(entry) => drop(entries.insert((entry.name(), entry.deployment.clone()), entry)),
                Err(error) => reading.problems.push(error.within(&deployment.file).to_string()),
            }
        }
        let mut kept = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        // A flow whose file is broken stays as it was.
        for (key, entry) in kept.iter().filter(|((name, _), _)| found.is_broken(name.as_str())) {
            entries.entry(key.clone()).or_insert_with(|| Arc::clone(entry));
        }
        for (key, entry) in &mut entries {
            match kept.get(key) {
                Some(before) if before == entry => *entry = Arc::clone(before),
                _ => reading.changed.push(entry.label()),
            }
        }
        let has_changed = !reading.changed.is_empty() || kept.len() != entries.len();
        *kept = entries;
        drop(kept);
        // Each is told once in a row: who reads what is told in a file of the project would make us read again.
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if *told == reading.problems {
            reading.problems.clear();
        } else {
            told.clone_from(&reading.problems);
        }
        drop(told);
        if has_changed {
            self.changed.send_modify(|count| *count += 1);
        }
        Ok(reading)
    }

    async fn entry(&self, flow: &Flow, pool: Option<&str>) -> Result<Arc<Entry>> {
        let flowing = &self.flowing;
        let variant = Variant { pool: pool.map(str::to_owned), ..Variant::default() };
        let version =
            flowing.library.keep(flow, &variant, flowing.project.dir(), &*flowing.store, self.clock.now()).await?;
        let compiled = Compiled::new(flow.clone())?;
        Ok(Arc::new(Entry::of(Arc::new(compiled), version.id.clone())))
    }

    async fn deployed(&self, flow: &Flow, deployment: &Deployment) -> Result<Arc<Entry>> {
        let of = self.entry(flow, deployment.pool.as_deref()).await?;
        let Deployment { name, params, schedule, .. } = deployment.clone();
        Ok(Arc::new(Entry::deployed(Arc::clone(&of.flow), of.version.clone(), name, params, schedule)?))
    }

    /// Reads files again whenever they change, until `stop`. `told` is called with what came of it.
    ///
    /// Errors: those of watching.
    pub async fn watch(&self, stop: &CancellationToken, told: impl Fn(Result<Reading>)) -> Result<()> {
        let (sender, mut events) = mpsc::channel(64);
        let dir = self.flowing.project.dir();
        let sources = Arc::new(RwLock::new(Sources::of(dir)));
        let known = Arc::clone(&sources);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // A full channel holds a change already.
            let known = known.read().unwrap_or_else(PoisonError::into_inner);
            if event.is_ok_and(|event| known.are_in(&event)) {
                let _ = sender.try_send(());
            }
        })
        .map_err(watch_error)?;
        let mut watched = BTreeSet::new();
        watcher.watch(dir, RecursiveMode::NonRecursive).map_err(watch_error)?;
        let mut reading = self.read().await;
        loop {
            if let Ok(reading) = &reading {
                let places = {
                    let mut sources = sources.write().unwrap_or_else(PoisonError::into_inner);
                    sources.files.extend(reading.files.iter().cloned());
                    sources.is_broken = reading.is_broken;
                    sources.places()
                };
                for folder in places.into_iter().filter(|folder| folder.is_dir()) {
                    if folder != dir && watched.insert(folder.clone()) {
                        let is_flows = folder == dir.join(FLOWS_FOLDER);
                        let mode = if is_flows { RecursiveMode::Recursive } else { RecursiveMode::NonRecursive };
                        watcher.watch(&folder, mode).map_err(watch_error)?;
                    }
                }
            }
            told(reading);
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                event = events.recv() => if event.is_none() { return Ok(()) },
            }
            // Editors write a file in several steps.
            while tokio::time::timeout(QUIET, events.recv()).await.is_ok_and(|event| event.is_some()) {}
            watched.retain(|folder: &PathBuf| folder.is_dir());
            reading = self.read().await;
        }
    }
}

fn watch_error(error: notify::Error) -> Error {
    Error::unavailable(format!("the project's files cannot be watched: {error}"))
        .hint("raise fs.inotify.max_user_watches, or restart the server after a change")
        .caused_by(error)
}

#[async_trait]
impl Roster for ProjectRoster {
    fn entries(&self) -> Vec<Arc<Entry>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn find(&self, flow: &FlowName, deployment: Option<&str>) -> Option<Arc<Entry>> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.get(&(flow.clone(), deployment.map(str::to_owned))).cloned()
    }

    fn changes(&self) -> BoxStream<'static, ()> {
        let changes = self.changed.subscribe();
        futures::stream::unfold(
            changes,
            |mut changes| async move { changes.changed().await.ok().map(|()| ((), changes)) },
        )
        .boxed()
    }

    async fn render(&self, entry: &Entry, resolved: Resolved) -> Result<Map<String, Value>> {
        let mut values = resolved.values;
        let project = &self.flowing.project;
        render_defaults(&entry.flow.flow, project, &mut values, &resolved.templates, self.clock.now())?;
        Ok(values)
    }
}

/// The flows that tasks start, as they were read once: for a process that lives as long as a run, and begins no others.
pub struct FixedRoster {
    flows: ProjectFlows,
    flowing: Arc<Flowing>,
    clock: Arc<dyn flumen_core::clock::Clock>,
}

impl FixedRoster {
    /// These flows.
    pub fn new(flows: ProjectFlows, flowing: &Arc<Flowing>, context: &Context) -> Self {
        Self { flows, flowing: Arc::clone(flowing), clock: Arc::clone(&context.clock) }
    }
}

#[async_trait]
impl Roster for FixedRoster {
    fn entries(&self) -> Vec<Arc<Entry>> {
        Vec::new()
    }

    fn find(&self, flow: &FlowName, deployment: Option<&str>) -> Option<Arc<Entry>> {
        let flow = self.flows.flows.get(flow.as_str())?;
        let starts = |other: &Arc<Flow>| {
            other
                .tasks
                .iter()
                .flat_map(|task| &task.uses.flows)
                .any(|named| named.name.is_template() || named.name.text == flow.name)
        };
        // Runs that wait for a server go on waiting for it.
        if !self.flows.flows.values().any(starts) {
            return None;
        }
        let compiled = Arc::new(Compiled::new(flow.as_ref().clone()).ok()?);
        // Nobody makes a run of this version: how many there may be is all that is asked for.
        let version = FlowVersion::of(flow.source.as_bytes());
        match deployment.and_then(|name| self.flows.deployments.get(name)) {
            None => Some(Arc::new(Entry::of(compiled, version))),
            Some(Deployment { name, params, schedule, .. }) => {
                Entry::deployed(compiled, version, name, params.clone(), schedule.clone()).ok().map(Arc::new)
            }
        }
    }

    fn changes(&self) -> BoxStream<'static, ()> {
        futures::stream::pending().boxed()
    }

    async fn render(&self, entry: &Entry, resolved: Resolved) -> Result<Map<String, Value>> {
        let mut values = resolved.values;
        render_defaults(&entry.flow.flow, &self.flowing.project, &mut values, &resolved.templates, self.clock.now())?;
        Ok(values)
    }
}
