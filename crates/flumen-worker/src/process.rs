//! Programs that tasks start. Each leads a process group of its own, which ends with it: when it exits, when its time is up, when
//! it is cancelled, and (see `watchdog.rs`) when the worker is killed.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use flumen_core::limits::{LOG_DRAIN, TERMINATION_GRACE};
use flumen_core::{Error, Result};
use rustix::process::{Pid, Resource, Rlimit, Signal};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use crate::log::{Lines, Log, Masks, Stream};
use crate::watchdog::Watchdog;

/// What to run.
#[derive(Debug, Clone)]
pub struct Program {
    /// The program, found by the `PATH` in `environment`.
    pub program: OsString,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Where it runs.
    pub folder: PathBuf,
    /// All environment variables that it sees.
    pub environment: BTreeMap<OsString, OsString>,
    /// What it reads; nothing where none.
    pub input: Option<Vec<u8>>,
    /// The address space that each of its processes may have (`RLIMIT_AS`).
    pub memory_bytes: Option<u64>,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this exit code.
    Exited(i32),
    /// By a signal that nobody here sent: 9 is how the kernel ends what takes too much memory.
    Signalled(i32),
    /// Its time was up.
    TimedOut,
    /// It was cancelled.
    Cancelled,
}

/// What is common to the programs of an attempt.
pub struct Run<'a> {
    /// Where its lines go.
    pub log: &'a dyn Log,
    /// What is masked in them.
    pub masks: Masks,
    /// The time that it may take.
    pub timeout: Option<Duration>,
    /// Ends it.
    pub cancel: &'a CancellationToken,
    /// Ends it when the worker is killed.
    pub watchdog: Option<&'a Watchdog>,
}

impl Run<'_> {
    /// Runs `program` to its end.
    ///
    /// Errors: `NotFound` if there is no such program; those of starting it. How it ended is no error.
    pub async fn program(&self, program: &Program) -> Result<Ended> {
        let mut command = tokio::process::Command::new(program.found());
        command
            .arg0(&program.program)
            .args(&program.arguments)
            .current_dir(&program.folder)
            .env_clear()
            .envs(&program.environment)
            .envs(self.watchdog.map(Watchdog::variable))
            .stdin(if program.input.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        if let Some(bytes) = program.memory_bytes {
            limit_memory(&mut command, bytes);
        }
        let mut child = command.spawn().map_err(|error| not_started(program, error))?;
        let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let group = id.ok_or_else(|| Error::internal("a process that has just begun has no id"))?;
        let started = Started { group, out: child.stdout.take(), err: child.stderr.take() };
        let input = child.stdin.take();
        let feeding = async {
            if let (Some(mut pipe), Some(bytes)) = (input, &program.input) {
                // A program need not read what it is given.
                let _ = pipe.write_all(bytes).await;
            }
        };
        let ended = async { child.wait().await.map(Ended::of).map_err(|error| Error::io("a process", error)) };
        self.to_end(started, ended, feeding).await
    }

    /// Sees what has started through to its end: its output is read, its time is counted, its group is watched over.
    pub(crate) async fn to_end<R: AsyncRead + Unpin, S: AsyncRead + Unpin>(
        &self,
        started: Started<R, S>,
        ended: impl Future<Output = Result<Ended>>,
        feeding: impl Future<Output = ()>,
    ) -> Result<Ended> {
        let group = Group(started.group);
        let _guard = self.watchdog.map(|watchdog| watchdog.guard(group.0)).transpose()?;
        let reading = async {
            tokio::join!(self.read(Stream::Out, started.out), self.read(Stream::Err, started.err), feeding);
        };
        let waiting = self.wait(ended, &group);
        tokio::pin!(reading, waiting);
        let mut read = false;
        let ended = loop {
            tokio::select! {
                ended = &mut waiting => break ended,
                // A program may close its pipes before it ends.
                () = &mut reading, if !read => read = true,
            }
        };
        // Whatever it has left running ends with it; then the pipes end too, unless somebody has left the group.
        group.signal(Signal::KILL);
        if !read {
            let _ = tokio::time::timeout(LOG_DRAIN, reading).await;
        }
        ended
    }

    async fn wait(&self, ended: impl Future<Output = Result<Ended>>, group: &Group) -> Result<Ended> {
        let time_is_up = async {
            match self.timeout {
                Some(timeout) => tokio::time::sleep(timeout).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(ended);
        let why = tokio::select! {
            biased;
            ended = &mut ended => return ended,
            () = self.cancel.cancelled() => Ended::Cancelled,
            () = time_is_up => Ended::TimedOut,
        };
        group.signal(Signal::TERM);
        if tokio::time::timeout(TERMINATION_GRACE, &mut ended).await.is_err() {
            group.signal(Signal::KILL);
            ended.await?;
        }
        Ok(why)
    }

    async fn read(&self, stream: Stream, pipe: Option<impl AsyncRead + Unpin>) {
        let Some(mut pipe) = pipe else { return };
        let mut lines = Lines::new(self.masks.clone());
        let mut buffer = vec![0; 16 << 10];
        while let Ok(read @ 1..) = pipe.read(&mut buffer).await {
            lines.push(&buffer[..read], |line| self.log.line(stream, line));
        }
        lines.finish(|line| self.log.line(stream, line));
    }
}

impl Program {
    /// The program's path, where the `PATH` leads to one. With a bare name and another `PATH` than ours the standard library has to fork,
    /// which copies the tables of all our memory; with a path it need not.
    fn found(&self) -> OsString {
        let path =
            self.environment.get(OsStr::new("PATH")).filter(|_| !self.program.as_encoded_bytes().contains(&b'/'));
        let places = path.into_iter().flat_map(std::env::split_paths).map(|folder| folder.join(&self.program));
        let is_program = |path: &PathBuf| {
            path.is_absolute() && path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
        };
        places.into_iter().find(is_program).map_or_else(|| self.program.clone(), PathBuf::into_os_string)
    }
}

/// Limits the memory of a program before it begins: afterwards it may have taken more already.
fn limit_memory(command: &mut tokio::process::Command, bytes: u64) {
    let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
    let set = move || Ok(rustix::process::setrlimit(Resource::As, limit)?);
    // SAFETY: between fork and exec only what is async-signal-safe may be called, and nothing may allocate: this is one system call.
    #[allow(unsafe_code, reason = "there is no other way to do something between fork and exec")]
    unsafe {
        command.pre_exec(set);
    }
}

/// A process that has started, and leads its group.
pub(crate) struct Started<R, S> {
    pub group: Pid,
    pub out: Option<R>,
    pub err: Option<S>,
}

impl Ended {
    fn of(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Exited(code),
            (None, signal) => Self::Signalled(signal.unwrap_or_default()),
        }
    }
}

/// A process group; all that is in it ends when this goes, also where whoever waits is dropped.
struct Group(Pid);

impl Group {
    fn signal(&self, signal: Signal) {
        // There may be nobody left in it.
        let _ = rustix::process::kill_process_group(self.0, signal);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

fn not_started(program: &Program, error: std::io::Error) -> Error {
    let name = program.program.to_string_lossy().into_owned();
    match error.kind() {
        std::io::ErrorKind::NotFound if program.folder.is_dir() => {
            Error::not_found(format!("there is no program '{name}' on the PATH"))
                .hint("install it, or write its whole path")
        }
        _ => Error::io(name, error),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    pub(crate) struct Kept(Mutex<Vec<(Stream, String)>>);

    impl Log for Kept {
        fn line(&self, stream: Stream, text: &str) {
            self.0.lock().unwrap().push((stream, text.to_owned()));
        }
    }

    impl Kept {
        pub(crate) fn lines(self) -> Vec<String> {
            let lines = self.0.into_inner().unwrap();
            lines.into_iter().map(|(stream, text)| format!("{stream:?} {text}")).collect()
        }
    }

    fn shell(script: &str) -> Program {
        let path = std::env::var_os("PATH").unwrap();
        Program {
            program: "sh".into(),
            arguments: vec!["-c".into(), script.into()],
            folder: std::env::temp_dir(),
            environment: BTreeMap::from([("PATH".into(), path), ("TOKEN".into(), "s3cret".into())]),
            input: Some(b"given\n".to_vec()),
            memory_bytes: None,
        }
    }

    async fn run(
        program: &Program,
        timeout: Option<Duration>,
        cancel: &CancellationToken,
    ) -> (Result<Ended>, Vec<String>) {
        let log = Kept::default();
        let run = Run { log: &log, masks: Masks::new(["s3cret"]), timeout, cancel, watchdog: None };
        let ended = run.program(program).await;
        (ended, log.lines())
    }

    #[tokio::test]
    async fn lines_codes_and_signals() {
        let never = CancellationToken::new();
        let (ended, mut lines) = run(&shell("cat; echo $TOKEN >&2; pwd > /dev/null; exit 3"), None, &never).await;
        lines.sort();
        assert_eq!((ended.unwrap(), lines), (Ended::Exited(3), vec!["Err ***".to_owned(), "Out given".to_owned()]));
        let (ended, _) = run(&shell("kill -9 $$"), None, &never).await;
        assert_eq!(ended.unwrap(), Ended::Signalled(9));
        let missing = Program { program: "no-such-program".into(), ..shell("") };
        assert!(run(&missing, None, &never).await.0.unwrap_err().to_string().contains("no-such-program"));
    }

    #[tokio::test]
    async fn the_whole_group_ends() {
        let folder = tempfile::tempdir().unwrap();
        let never = CancellationToken::new();
        // A child that outlives its parent would hold the pipe, and write its file.
        let left = format!("(trap '' TERM; sleep 1000; touch {}/late) & echo $!", folder.path().display());
        let (ended, lines) = run(&shell(&left), None, &never).await;
        assert_eq!(ended.unwrap(), Ended::Exited(0));
        gone(lines[0].trim_start_matches("Out ")).await;
        // Time that is up, and a cancellation, with a group that does not listen.
        let stubborn = "trap '' TERM; sleep 1000 & echo $!; wait; wait; wait";
        let (ended, lines) = run(&shell(stubborn), Some(Duration::from_millis(200)), &never).await;
        assert_eq!(ended.unwrap(), Ended::TimedOut);
        gone(lines[0].trim_start_matches("Out ")).await;
        let cancelled = CancellationToken::new();
        cancelled.cancel();
        assert_eq!(run(&shell("sleep 1000"), None, &cancelled).await.0.unwrap(), Ended::Cancelled);
    }

    #[tokio::test]
    async fn memory_is_limited() {
        let never = CancellationToken::new();
        let greedy = Program {
            memory_bytes: Some(64 << 20),
            ..shell("sleep 0.05; head -c 200000000 /dev/zero | tail -n 1 > /dev/null")
        };
        let (ended, lines) = run(&greedy, None, &never).await;
        assert!(matches!(ended.unwrap(), Ended::Exited(1..)), "{lines:?}");
    }

    /// Waits until nothing with this id runs.
    async fn gone(id: &str) {
        let status = format!("/proc/{id}/stat");
        // A zombie that nobody has reaped yet has ended too.
        while std::fs::read_to_string(&status).is_ok_and(|stat| !stat.contains(") Z ")) {
            tokio::task::yield_now().await;
        }
    }
}
