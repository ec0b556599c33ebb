//! Virtual environments with the packages that tasks ask for: made once, kept in the project, shared by all who ask for the same.
//!
//! Whoever makes one holds a lock on a file beside it, across processes too; one that was not finished is made anew.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flumen_core::flow::{Failure, FlowVersion, Outcome};
use flumen_core::{Error, Result};
use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::attempt::Attempt;
use crate::process::{Ended, Program};

/// The folder in the project with the environments.
const FOLDER: &str = ".flumen/venvs";
/// The file in an environment that says that it is finished.
const READY: &str = ".ready";
/// How long to wait before looking again whether somebody else has finished.
const LOOK: Duration = Duration::from_millis(100);
/// How environment variables begin that say how packages are found.
const INSTALLER_VARIABLES: [&str; 2] = ["PIP_", "UV_"];

/// The packages that a task needs.
pub(super) enum Requirements {
    /// As written in the flow.
    List(Vec<String>),
    /// In a file.
    File(PathBuf),
}

impl Requirements {
    fn text(&self) -> Result<String> {
        match self {
            Requirements::List(packages) => Ok(packages.join("\n")),
            Requirements::File(path) => std::fs::read_to_string(path).map_err(|error| Error::io(path.display(), error)),
        }
    }
}

/// The folder of the environment with `requirements`, made if need be; how making it ended, where that was not well.
pub(super) async fn venv(
    attempt: &Attempt<'_>,
    python: &Path,
    requirements: &Requirements,
) -> Result<Result<PathBuf, Outcome>> {
    let folder = attempt.host.project.dir().join(FOLDER);
    std::fs::create_dir_all(&folder).map_err(|error| Error::io(folder.display(), error))?;
    let text = requirements.text()?;
    let name = FlowVersion::of(format!("{}\n{text}", python.display()).as_bytes());
    let venv = folder.join(name.short());
    if is_ready(&venv) {
        return Ok(Ok(venv));
    }
    let Some(_lock) = lock(attempt, &folder.join(format!("{}.lock", name.short()))).await? else {
        return Ok(Err(Outcome::Cancelled));
    };
    if is_ready(&venv) {
        return Ok(Ok(venv));
    }
    attempt.note(&format!("makes a virtual environment with {}", text.trim().replace('\n', ", ")));
    let maker = Maker { attempt, environment: installer_environment(attempt), venv: &venv };
    let list = match requirements {
        Requirements::File(path) => path.clone(),
        Requirements::List(_) => {
            let path = attempt.scratch.join("requirements.txt");
            std::fs::write(&path, &text).map_err(|error| Error::io(path.display(), error))?;
            path
        }
    };
    let ended = maker.make(python, &list).await?;
    if ended != Ended::Exited(0) {
        return Ok(Err(match attempt.ended_badly(ended) {
            Outcome::Failure(failure) => Outcome::Failure(Failure {
                message: "the packages that it needs cannot be installed: see the log".to_owned(),
                ..failure
            }),
            other => other,
        }));
    }
    std::fs::write(venv.join(READY), "").map_err(|error| Error::io(venv.display(), error))?;
    Ok(Ok(venv))
}

/// Whether an environment is finished, and its interpreter is still where it was.
fn is_ready(venv: &Path) -> bool {
    venv.join(READY).exists() && venv.join("bin/python").exists()
}

/// Locks a file, once nobody else has it locked; none where the attempt is cancelled meanwhile. It is free again when the file is
/// closed.
async fn lock(attempt: &Attempt<'_>, path: &Path) -> Result<Option<File>> {
    let failed = |error: std::io::Error| Error::io(path.display(), error);
    let file = File::options().create(true).truncate(false).write(true).open(path).map_err(failed)?;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some(file)),
            Err(Errno::WOULDBLOCK) => {}
            Err(error) => return Err(failed(error.into())),
        }
        tokio::select! {
            () = attempt.cancel.cancelled() => return Ok(None),
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

fn installer_environment(attempt: &Attempt<'_>) -> BTreeMap<OsString, OsString> {
    let is_for_it = |name: &OsString| {
        name.to_str().is_some_and(|name| INSTALLER_VARIABLES.iter().any(|start| name.starts_with(start)))
    };
    let mut environment = attempt.environment.clone();
    environment.extend(std::env::vars_os().filter(|(name, _)| is_for_it(name)));
    environment.insert("PIP_DISABLE_PIP_VERSION_CHECK".into(), "1".into());
    environment
}

/// Makes one environment.
struct Maker<'a> {
    attempt: &'a Attempt<'a>,
    environment: BTreeMap<OsString, OsString>,
    venv: &'a Path,
}

impl Maker<'_> {
    /// With `uv`, if that is there; else with what Python brings.
    async fn make(&self, python: &Path, list: &Path) -> Result<Ended> {
        let (venv, list): (OsString, OsString) = (self.venv.into(), list.into());
        let own: OsString = self.venv.join("bin/python").into();
        let (make, install) = match self.has_uv() {
            true => (
                self.program("uv", ["venv".into(), "--clear".into(), "--python".into(), python.into(), venv]),
                self.program("uv", ["pip".into(), "install".into(), "--python".into(), own, "-r".into(), list]),
            ),
            false => (
                self.program(python, ["-m".into(), "venv".into(), "--clear".into(), venv]),
                self.program(own, ["-m".into(), "pip".into(), "install".into(), "-r".into(), list]),
            ),
        };
        for program in [make, install] {
            let ended = self.attempt.watched(self.attempt.log).program(&program).await?;
            if ended != Ended::Exited(0) {
                return Ok(ended);
            }
        }
        Ok(Ended::Exited(0))
    }

    fn has_uv(&self) -> bool {
        let path = self.environment.get::<OsString>(&"PATH".into());
        path.is_some_and(|path| std::env::split_paths(path).any(|folder| folder.join("uv").is_file()))
    }

    fn program<const N: usize>(&self, program: impl Into<OsString>, arguments: [OsString; N]) -> Program {
        Program {
            program: program.into(),
            arguments: arguments.into(),
            folder: self.attempt.scratch.to_owned(),
            environment: self.environment.clone(),
            input: None,
            memory_bytes: None,
        }
    }
}
