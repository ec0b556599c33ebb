//! The flows and deployments of a project as they are now, for whoever makes runs of them. Files are watched: a change is there
//! within a second, and a file with mistakes leaves its flow as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use async_trait::async_trait;
use flumen_core::flow::{FlowName, FlowVersion};
use flumen_core::{Error, ErrorKind, Result};
use flumen_flow::compiled::Compiled;
use flumen_flow::definition::params::Resolved;
use flumen_flow::definition::{Deployment, Flow};
use flumen_project::{Changes, ENV_FILE, PROJECT_FILE};
use flumen_scheduler::{Entry, Roster};
use flumen_worker::library::Variant;
use flumen_worker::project_flows::{DEPLOYMENTS_FOLDER, FLOWS_FOLDER, ProjectFlows};
use flumen_worker::templates::render_defaults;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use serde_json::{Map, Value};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::runtime::Flowing;
use super::watching::{BETWEEN_LOOKS, Places, QUIET, Watching};
use crate::context::Context;

/// How many times as long files are waited for that are never quiet.
const UNQUIET: u32 = 5;

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
    /// What the flows depended on when the files were read last.
    sources: Arc<RwLock<Arc<Sources>>>,
}

/// What comes of watching files.
#[derive(Debug)]
pub enum Watched {
    /// They were read.
    Read(Result<Reading>),
    /// The system tells of no changes, which is why: files are looked at again and again.
    ByLooking(Error),
}

/// What became of reading the files.
#[derive(Debug, Default)]
pub struct Reading {
    /// Flows that are new or changed.
    pub changed: Vec<String>,
    /// What is wrong, a sentence each.
    pub problems: Vec<String>,
}

/// The files on which flows depend.
#[derive(Debug, PartialEq, Eq)]
struct Sources {
    /// The project's folder.
    project: PathBuf,
    /// The folders all of whose files do.
    folders: [PathBuf; 2],
    /// Other files, also those that are not there.
    files: BTreeSet<PathBuf>,
}

impl Sources {
    /// With the files that flows name, as paths in the project.
    fn of(project: &Path, named: &BTreeSet<String>) -> Self {
        Self {
            project: project.to_owned(),
            folders: [FLOWS_FOLDER, DEPLOYMENTS_FOLDER].map(|folder| project.join(folder)),
            files: named
                .iter()
                .map(String::as_str)
                .chain([PROJECT_FILE, ENV_FILE])
                .map(|name| project.join(name))
                .collect(),
        }
    }

    /// Whether an event may have changed one of them. The project's folder may have others in it, such as a log that grows.
    fn are_in(&self, event: &notify::Event) -> bool {
        let is_other = |path: &PathBuf| {
            // A folder of theirs may have been moved.
            let mut ours = self.files.iter().chain(&self.folders);
            path.parent() == Some(&self.project) && !ours.any(|one| one.starts_with(path))
        };
        let matters = event.need_rescan() || !event.paths.iter().all(is_other);
        !event.kind.is_access() && matters
    }

    /// The folders that are to be watched: those that are there, and for a file in one that is not the nearest above it.
    fn places(&self) -> Places {
        let nearest = |file: &PathBuf| {
            let above = file.ancestors().skip(1).find(|folder| folder.is_dir());
            above
                .filter(|folder| folder.starts_with(&self.project) || Some(*folder) == file.parent())
                .map(Path::to_owned)
        };
        let is_below = |folder: &PathBuf| self.folders.iter().any(|above| folder.starts_with(above));
        let around = self.files.iter().filter_map(nearest).filter(|folder| !is_below(folder));
        let mut places: Places = around.map(|folder| (folder, notify::RecursiveMode::NonRecursive)).collect();
        let whole = self.folders.iter().filter(|folder| folder.is_dir()).cloned();
        places.extend(whole.map(|folder| (folder, notify::RecursiveMode::Recursive)));
        places.insert(self.project.clone(), notify::RecursiveMode::NonRecursive);
        places
    }
}

impl ProjectRoster {
    /// An empty one.
    pub fn new(flowing: Arc<Flowing>, context: &Context) -> Self {
        let sources = Sources::of(flowing.project.dir(), &BTreeSet::new());
        Self {
            flowing,
            clock: Arc::clone(&context.clock),
            entries: RwLock::default(),
            changed: watch::Sender::new(0),
            told: Mutex::default(),
            sources: Arc::new(RwLock::new(Arc::new(sources))),
        }
    }

    /// Reads all files.
    ///
    /// Errors: those of the store. What is wrong with a file is told.
    pub async fn read(&self) -> Result<Reading> {
        let mut reading = Reading::default();
        self.read_settings(&mut reading).await?;
        let found = self.flowing.flows().await?;
        if !found.mistakes.contains_key(PROJECT_FILE) {
            self.flowing.library.set_project_hooks(found.hooks.clone());
        }
        let sources = Arc::new(Sources::of(self.flowing.project.dir(), &found.named));
        *self.sources.write().unwrap_or_else(PoisonError::into_inner) = sources;
        for mistakes in found.mistakes.values() {
            reading.problems.extend(mistakes.iter().map(ToString::to_string));
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

    /// Reads what is said for all flows. Where that is broken, everything stays as it was.
    ///
    /// Errors: those of the store.
    async fn read_settings(&self, reading: &mut Reading) -> Result<()> {
        let changes = match self.flowing.project.read_again() {
            Ok(changes) => changes,
            Err(error) => {
                reading.problems.push(error.to_string());
                return Ok(());
            }
        };
        reading.changed.extend(changes.files.iter().map(|file| (*file).to_owned()));
        reading.problems.extend(not_used(&changes));
        match self.flowing.apply_pools().await {
            Err(error) if error.kind() == ErrorKind::Invalid => reading.problems.push(error.to_string()),
            applied => applied?,
        }
        Ok(())
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
    pub async fn watch(&self, stop: &CancellationToken, told: impl Fn(Watched)) -> Result<()> {
        let (sender, mut events) = mpsc::channel(64);
        let sources = Arc::clone(&self.sources);
        let hear = move |event: notify::Result<notify::Event>| {
            let sources = Arc::clone(&sources.read().unwrap_or_else(PoisonError::into_inner));
            if event.is_ok_and(|event| sources.are_in(&event)) {
                // A full channel holds a change already.
                let _ = sender.try_send(());
            }
        };
        let mut quiet = QUIET;
        let mut watching = Watching::new(hear);
        loop {
            let sources = self.sources();
            let places = sources.places();
            if let Some(error) = watching.watch(&places)? {
                // It knows the seconds of changes, and no more: what changes twice in one is read when that is over.
                quiet = BETWEEN_LOOKS + QUIET;
                told(Watched::ByLooking(error));
            }
            told(Watched::Read(self.read().await));
            if *self.sources() != *sources {
                // What changed before its place was watched has not been heard of.
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                event = events.recv() => if event.is_none() { return Ok(()) },
            }
            // Editors write a file in several steps. A folder that is never quiet has files of flows in it too.
            let last = tokio::time::Instant::now() + quiet * UNQUIET;
            while tokio::time::Instant::now() < last
                && tokio::time::timeout(quiet, events.recv()).await.is_ok_and(|event| event.is_some())
            {}
        }
    }

    fn sources(&self) -> Arc<Sources> {
        Arc::clone(&self.sources.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What is said of changes that a server cannot use.
pub fn not_used(changes: &Changes) -> Option<String> {
    let keys: Vec<String> = changes.not_used.iter().map(|key| format!("'{key}'")).collect();
    let keys = keys.join(", ");
    (!keys.is_empty()).then(|| format!("{PROJECT_FILE}: {keys} changed: restart the server to use that"))
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
        self.flowing.read_variables().await?;
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
