//! Hears of files that change: from the system, or by looking.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use flumen_core::{Error, Result};
use notify::{Config, EventHandler, PollWatcher, RecommendedWatcher, RecursiveMode, Watcher};

/// How often files are looked at where the system does not tell of changes.
pub const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

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

fn unwatched(error: notify::Error) -> Error {
    Error::unavailable(format!("the project's files cannot be watched: {error}"))
        .hint("restart the server after a change")
        .caused_by(error)
}
