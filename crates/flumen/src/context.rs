//! What every command is given: the project, time and ids, how to print, and when to stop.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use chrono::{DateTime, SubsecRound as _, Utc};
use flumen_connect::spool::Spool;
use flumen_core::clock::{Clock, Ids};
use flumen_core::{Error, Result};
use flumen_project::Project;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::cli::GlobalOptions;
use crate::output::Output;

/// What every command is given. Shared by reference; nothing in it changes, but that the project is loaded when it is
/// first asked for.
pub struct Context {
    /// How to print.
    pub output: Output,
    /// Where the present comes from.
    pub clock: Arc<dyn Clock>,
    /// Where ids come from.
    pub ids: Arc<dyn Ids>,
    /// Cancelled by the first Ctrl-C (or SIGTERM). Await `cancel.cancelled()`; in blocking threads ask
    /// `cancel.is_cancelled()`. Whoever stops for it ends with [`Error::cancelled`].
    pub cancel: CancellationToken,
    /// The environment whose tables the names of the lake mean.
    pub environment: String,
    project_dir: Option<PathBuf>,
    project: OnceLock<Option<Arc<Project>>>,
    spool: Arc<OnceLock<Arc<Spool>>>,
}

impl Context {
    /// The context of one run of the program.
    pub fn new(options: GlobalOptions, output: Output) -> Self {
        Self {
            output,
            clock: Arc::new(SystemClock),
            ids: Arc::new(SystemIds),
            cancel: CancellationToken::new(),
            environment: options.environment,
            project_dir: options.project,
            project: OnceLock::new(),
            spool: Arc::default(),
        }
    }

    /// The project that the command runs in.
    ///
    /// Errors: `NotFound` outside a project, and whatever is wrong with its `flumen.yml`.
    pub fn project(&self) -> Result<Arc<Project>> {
        self.maybe_project()?.ok_or_else(|| {
            Error::not_found("this is not a project: there is no flumen.yml here or in a folder above")
                .hint("run 'flumen init' to make one here, or name one with --project DIR")
        })
    }

    /// The project that the command runs in, if it runs in one.
    ///
    /// Errors: whatever is wrong with its `flumen.yml`.
    pub fn maybe_project(&self) -> Result<Option<Arc<Project>>> {
        if let Some(project) = self.project.get() {
            return Ok(project.clone());
        }
        let dir = match &self.project_dir {
            Some(dir) => Some(dir.clone()),
            None => Project::find(&current_dir()?)?,
        };
        let project = dir.map(|dir| Project::load(&dir)).transpose()?.map(Arc::new);
        Ok(self.project.get_or_init(|| project).clone())
    }

    /// Where all that comes from elsewhere is kept while it is needed: in the project's folder for temporary files, or in
    /// the system's.
    ///
    /// Errors: `Invalid` if the project's settings about it are wrong.
    pub fn spool(&self) -> Result<Arc<Spool>> {
        if let Some(spool) = self.spool.get() {
            return Ok(Arc::clone(spool));
        }
        let folder = self.maybe_project()?.map_or(Ok(None), |project| project.spool())?;
        Ok(Arc::clone(self.spool.get_or_init(|| folder.map_or_else(Spool::new, Spool::within))))
    }

    /// Removes what the command kept for its own use. Threads that still work come to nothing.
    pub fn close(&self) {
        if let Some(spool) = self.spool.get() {
            spool.close();
        }
    }

    /// What comes of `work`, unless it is cancelled before; `work` must be such that it may stop at any point.
    ///
    /// Errors: `Cancelled`, and those of `work`.
    pub async fn unless_cancelled<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.cancel.run_until_cancelled(work).await.unwrap_or_else(|| Err(Error::cancelled()))
    }

    /// Lets Ctrl-C and SIGTERM cancel [`Context::cancel`], and whatever waits for bytes; a second Ctrl-C ends the program
    /// at once.
    ///
    /// Must be called within the runtime.
    pub fn cancel_on_signals(&self) {
        let (cancel, spool) = (self.cancel.clone(), Arc::clone(&self.spool));
        tokio::spawn(async move {
            stop_signal().await;
            cancel.cancel();
            if let Some(spool) = spool.get() {
                spool.stop();
            }
            stop_signal().await;
            if let Some(spool) = spool.get() {
                spool.close();
            }
            std::process::exit(i32::from(flumen_core::ErrorKind::Cancelled.exit_code()));
        });
    }
}

/// The folder that the program was started in.
pub fn current_dir() -> Result<PathBuf> {
    std::env::current_dir().map_err(|error| Error::io("the current folder", error))
}

#[cfg(unix)]
async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        },
        Err(_) => drop(tokio::signal::ctrl_c().await),
    }
}

#[cfg(not(unix))]
async fn stop_signal() {
    drop(tokio::signal::ctrl_c().await);
}

/// The computer's clock.
struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "the one place where the present is read")]
    fn now(&self) -> DateTime<Utc> {
        // As precise as stores keep it: what was read back is what was written.
        Utc::now().trunc_subsecs(6)
    }
}

/// Random ids that sort by time.
struct SystemIds;

impl Ids for SystemIds {
    #[allow(clippy::disallowed_methods, reason = "the one place where ids are made")]
    fn next(&self) -> Uuid {
        Uuid::now_v7()
    }
}
