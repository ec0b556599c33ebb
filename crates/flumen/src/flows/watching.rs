//! Hears of files that change: from the system, or by looking.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use flumen_core::{Error, Result};
use flumen_project::{Changes, ENV_FILE, PROJECT_FILE, Project};
use notify::{Config, EventHandler, PollWatcher, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// How often files are looked at where the system does not tell of changes.
pub const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// How long files must be quiet before they are read.
pub const QUIET: Duration = Duration::from_millis(100);

/// Folders that are watched, and how.
pub type Places = BTreeMap<PathBuf, RecursiveMode>;

/// Watches folders.
pub struct Watching<H> {
    hear: H,
    watcher: Option<Box<dyn Watcher + Send>>,
    is_looking: bool,
}

impl<H: EventHandler + Clone> Watching<H> {
    /// Tells `hear` what changes.
    pub fn new(hear: H) -> Self {
        Self { hear, watcher: None, is_looking: false }
    }

    /// Watches `places`, besides those that are watched already. Where the system has no more to watch with, or a file system is none
    /// that it can watch, files are looked at from then on: why is given back, once.
    ///
    /// Errors: those of looking.
    pub fn watch(&mut self, places: &Places) -> Result<Option<Error>> {
        match self.try_to_watch(places) {
            Ok(()) => Ok(None),
            Err(error) if self.is_looking => Err(unwatched(error)),
            Err(cause) => {
                self.is_looking = true;
                self.watcher = None;
                self.try_to_watch(places).map_err(unwatched)?;
                let told =
                    format!("the system does not tell when files change ({cause}): they are looked at every second");
                Ok(Some(
                    Error::unavailable(told)
                        .hint("raise fs.inotify.max_user_instances and fs.inotify.max_user_watches"),
                ))
            }
        }
    }

    fn try_to_watch(&mut self, places: &Places) -> notify::Result<()> {
        let watcher = match &mut self.watcher {
            Some(watcher) => watcher,
            none => none.insert(if self.is_looking {
                let every = Config::default().with_poll_interval(BETWEEN_LOOKS);
                Box::new(PollWatcher::new(self.hear.clone(), every)?)
            } else {
                Box::new(RecommendedWatcher::new(self.hear.clone(), Config::default())?)
            }),
        };
        for (folder, mode) in places {
            // Also those that are watched: another folder may be there by now.
            match watcher.watch(folder, *mode) {
                Err(_) if !folder.exists() => (),
                watched => watched?,
            }
        }
        Ok(())
    }
}

/// Reads the settings of a project again whenever its files change, until `stop`; `told` hears what came of it. For a process that reads
/// no flows.
///
/// Errors: those of watching.
pub async fn follow_settings(
    project: &Project,
    stop: &CancellationToken,
    told: impl Fn(Result<Changes>),
) -> Result<()> {
    let (sender, mut events) = mpsc::channel(1);
    let hear = move |event: notify::Result<notify::Event>| {
        let is_ours = |path: &PathBuf| path.file_name().is_some_and(|name| name == PROJECT_FILE || name == ENV_FILE);
        if event.is_ok_and(|event| event.need_rescan() || (!event.kind.is_access() && event.paths.iter().any(is_ours)))
        {
            // A full channel holds a change already.
            let _ = sender.try_send(());
        }
    };
    let mut watching = Watching::new(hear);
    let places = Places::from([(project.dir().to_owned(), RecursiveMode::NonRecursive)]);
    let is_looking = watching.watch(&places)?.is_some();
    // Of what changes twice in a second only that is known where files are looked at.
    let quiet = if is_looking { BETWEEN_LOOKS + QUIET } else { QUIET };
    loop {
        told(project.read_again());
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            event = events.recv() => if event.is_none() { return Ok(()) },
        }
        while tokio::time::timeout(quiet, events.recv()).await.is_ok_and(|event| event.is_some()) {}
    }
}

fn unwatched(error: notify::Error) -> Error {
    Error::unavailable(format!("the project's files cannot be watched: {error}"))
        .hint("restart the server after a change")
        .caused_by(error)
}
