//! Python that tasks run, by interpreters that are kept warm: starting one takes longer than most tasks do.
//!
//! An interpreter (`python/interpreter.py`) forks for each task, so that a task begins in a millisecond, in a process and a process
//! group of its own, and a fault in one does not touch the next.

use std::collections::{BTreeMap, HashMap};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use flumen_core::{Error, Result};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags,
    SocketType,
};
use rustix::process::Pid;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

use crate::process::{Ended, Run, Started};
use crate::watchdog::Watchdog;

/// The program that an interpreter runs.
const PROGRAM: &str = include_str!("python/interpreter.py");
/// Bytes of a message from an interpreter.
const MESSAGE_BYTES: usize = 4 << 10;
/// The most bytes of a message to an interpreter.
const REQUEST_BYTES: usize = 64 << 10;

/// What to call.
#[derive(Debug, Clone, Serialize)]
pub struct Call {
    /// The file.
    pub file: PathBuf,
    /// What is in it, and how it is run.
    #[serde(flatten)]
    pub way: Way,
    /// Folders, besides that of the file, in which it finds modules.
    pub paths: Vec<PathBuf>,
    /// The arguments of the function: `args` and `kwargs`; none where they are in a file.
    pub given: Option<Value>,
    /// That file, with the same as JSON.
    pub input: PathBuf,
    /// The file into which what the function returns is written, as JSON.
    pub result: PathBuf,
    /// The file into which what it raises is written: a [`Problem`], as JSON.
    pub problem: PathBuf,
    /// Where it runs.
    pub folder: PathBuf,
    /// All environment variables that it sees.
    pub environment: BTreeMap<String, String>,
    /// The address space that it may have.
    pub memory_bytes: Option<u64>,
}

/// How a file is run.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "way", rename_all = "snake_case")]
pub enum Way {
    /// As a program.
    File {
        /// Its arguments.
        arguments: Vec<String>,
    },
    /// By calling a function in it.
    Function {
        /// Which.
        function: String,
    },
    /// As the body of a function, whose parameters are the `kwargs`.
    Body,
}

/// What a task raised.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Problem {
    /// The class of the exception.
    pub kind: String,
    /// The last line of its traceback; of one that says that there is nothing to do, its message.
    pub message: String,
}

#[derive(Serialize)]
struct Request<'a> {
    id: u64,
    #[serde(flatten)]
    call: &'a Call,
}

#[derive(Debug, Deserialize)]
struct Message {
    id: u64,
    pid: Option<i32>,
    exit: Option<i32>,
    signal: Option<i32>,
}

/// Interpreters by their path. Each is started when it is first needed, and again when it has ended.
#[derive(Debug, Default)]
pub struct Interpreters {
    known: tokio::sync::Mutex<HashMap<PathBuf, Arc<Interpreter>>>,
}

type Waiting = Arc<Mutex<Option<HashMap<u64, mpsc::UnboundedSender<Message>>>>>;

/// One interpreter.
#[derive(Debug)]
struct Interpreter {
    door: Arc<AsyncFd<OwnedFd>>,
    /// Who waits for which task; none when the interpreter has ended.
    waiting: Waiting,
    next: AtomicU64,
}

impl Interpreters {
    /// Runs `call` with the interpreter at `python`, to its end.
    ///
    /// Errors: `NotFound` if there is no such interpreter; `Unavailable` if it ended meanwhile. How the task ended is no error.
    pub async fn call(&self, python: &Path, call: &Call, run: &Run<'_>) -> Result<Ended> {
        let interpreter = self.of(python, run).await?;
        interpreter.call(call, run).await
    }

    async fn of(&self, python: &Path, run: &Run<'_>) -> Result<Arc<Interpreter>> {
        let mut known = self.known.lock().await;
        if let Some(interpreter) = known.get(python).filter(|interpreter| interpreter.is_alive()) {
            return Ok(Arc::clone(interpreter));
        }
        let started = Arc::new(Interpreter::start(python, run)?);
        known.insert(python.to_owned(), Arc::clone(&started));
        Ok(started)
    }
}

impl Interpreter {
    fn start(python: &Path, run: &Run<'_>) -> Result<Self> {
        let failed = |error: std::io::Error| Error::io(python.display(), error);
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(|error| failed(error.into()))?;
        let mut child = tokio::process::Command::new(python)
            .args(["-u", "-c", PROGRAM])
            .envs(run.watchdog.map(Watchdog::variable))
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => {
                    Error::not_found(format!("there is no Python interpreter '{}'", python.display()))
                        .hint("install python3, or name another with 'interpreter:'")
                }
                _ => failed(error),
            })?;
        rustix::io::ioctl_fionbio(&ours, true).map_err(|error| failed(error.into()))?;
        // SAFETY: an `OwnedFd` is an open file and the same one until it is dropped, which is when the `AsyncFd` is.
        #[allow(unsafe_code, reason = "tokio has no other way to wait for a socket that it does not know")]
        let door = unsafe { AsyncFd::register(ours) }.map_err(|error| failed(error.into()))?;
        let door = Arc::new(door);
        let waiting: Waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        tokio::spawn({
            let (door, waiting) = (Arc::clone(&door), Arc::clone(&waiting));
            async move {
                while let Some(message) = receive(&door).await {
                    let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
                    let who = waiting.as_mut().and_then(|waiting| waiting.get(&message.id).cloned());
                    if let Some(who) = who {
                        // Whoever waited may have given up.
                        let _ = who.send(message);
                    }
                }
                // Those who wait see that nobody will tell them any more.
                waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
                let _ = child.wait().await;
            }
        });
        Ok(Self { door, waiting, next: AtomicU64::new(0) })
    }

    fn is_alive(&self) -> bool {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    async fn call(&self, call: &Call, run: &Run<'_>) -> Result<Ended> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, mut messages) = mpsc::unbounded_channel();
        match self.waiting.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            Some(waiting) => drop(waiting.insert(id, sender)),
            None => return Err(has_ended()),
        }
        let _known = Known { waiting: &self.waiting, id };
        let (out, out_of_task) = printed()?;
        let (err, err_of_task) = printed()?;
        let text = serde_json::to_vec(&Request { id, call })
            .map_err(|error| Error::internal("a call cannot be written as JSON").caused_by(error))?;
        if text.len() > REQUEST_BYTES {
            return Err(Error::invalid(format!(
                "the arguments and environment variables of a Python task have {} bytes; {REQUEST_BYTES} are allowed",
                text.len()
            ))
            .hint("give a function its values as 'args' or 'kwargs', which may be large"));
        }
        self.send(&text, [&out_of_task, &err_of_task]).await?;
        drop((out_of_task, err_of_task));
        let begun = messages.recv().await.and_then(|message| Pid::from_raw(message.pid?));
        let group = begun.ok_or_else(has_ended)?;
        let ended = async {
            let message = messages.recv().await.ok_or_else(has_ended)?;
            Ok(match message.signal {
                Some(signal) => Ended::Signalled(signal),
                None => Ended::Exited(message.exit.unwrap_or_default()),
            })
        };
        run.to_end(Started { group, out: Some(out), err: Some(err) }, ended, std::future::ready(())).await
    }

    async fn send(&self, text: &[u8], pipes: [&OwnedFd; 2]) -> Result<()> {
        let pipes = pipes.map(|pipe| pipe.as_fd());
        let sent = self.door.async_io(tokio::io::Interest::WRITABLE, |door| {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            ancillary.push(SendAncillaryMessage::ScmRights(&pipes));
            Ok(rustix::net::sendmsg(door, &[IoSlice::new(text)], &mut ancillary, SendFlags::NOSIGNAL)?)
        });
        sent.await.map(drop).map_err(|error| has_ended().caused_by(error))
    }
}

/// Takes a task off the list of those that are waited for.
struct Known<'a> {
    waiting: &'a Waiting,
    id: u64,
}

impl Drop for Known<'_> {
    fn drop(&mut self) {
        if let Some(waiting) = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            waiting.remove(&self.id);
        }
    }
}

fn has_ended() -> Error {
    Error::unavailable("the Python interpreter ended").hint("the next task starts it anew")
}

/// A pipe for what a task prints: the end that is read here, and the task's.
fn printed() -> Result<(pipe::Receiver, OwnedFd)> {
    let failed = |error: std::io::Error| Error::io("a pipe", error);
    let (read, write) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
    Ok((pipe::Receiver::from_owned_fd(read).map_err(failed)?, write))
}

/// The next message; none when the interpreter has ended.
async fn receive(door: &AsyncFd<OwnedFd>) -> Option<Message> {
    let mut buffer = vec![0; MESSAGE_BYTES];
    let length = door.async_io(tokio::io::Interest::READABLE, |door| {
        let mut none = RecvAncillaryBuffer::default();
        let received = rustix::net::recvmsg(door, &mut [IoSliceMut::new(&mut buffer)], &mut none, RecvFlags::empty())?;
        Ok(received.bytes)
    });
    match length.await {
        Ok(length @ 1..) => serde_json::from_slice(&buffer[..length]).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::log::Masks;
    use crate::process::tests::Kept;

    struct Fixture {
        folder: tempfile::TempDir,
        interpreters: Interpreters,
    }

    impl Fixture {
        fn new(source: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("tasks.py"), source).unwrap();
            Self { folder, interpreters: Interpreters::default() }
        }

        async fn call(&self, function: Option<&str>, input: &str) -> (Result<Ended>, Vec<String>, Option<String>) {
            let path = |name: &str| self.folder.path().join(name);
            std::fs::write(path("input.json"), input).unwrap();
            let _ = std::fs::remove_file(path("result.json"));
            let call = Call {
                file: path("tasks.py"),
                way: match function {
                    Some(name) => Way::Function { function: name.to_owned() },
                    None => Way::File { arguments: vec!["one".to_owned()] },
                },
                paths: Vec::new(),
                given: None,
                input: path("input.json"),
                result: path("result.json"),
                problem: path("problem.json"),
                folder: self.folder.path().to_owned(),
                environment: BTreeMap::from([("TOKEN".to_owned(), "s3cret".to_owned())]),
                memory_bytes: None,
            };
            let (log, cancel) = (Kept::default(), CancellationToken::new());
            let run = Run { log: &log, masks: Masks::new(["s3cret"]), timeout: None, cancel: &cancel, watchdog: None };
            let ended = self.interpreters.call(Path::new("python3"), &call, &run).await;
            (ended, log.lines(), std::fs::read_to_string(path("result.json")).ok())
        }
    }

    #[tokio::test]
    async fn functions_return_values_and_faults_stay_where_they_are() {
        let fixture = Fixture::new(
            "import os, datetime, sys\n\
             def add(a, b=1):\n    print('adding', os.environ['TOKEN'])\n    return {'sum': a + b, 'day': datetime.date(2021, 1, 2)}\n\
             def fail():\n    raise ValueError('no')\n\
             def crash():\n    os.kill(os.getpid(), 9)\n\
             def odd():\n    return object()\n\
             async def later():\n    return [1]\n\
             def leave():\n    sys.exit(4)\n\
             if __name__ == '__main__':\n    print('run', sys.argv[1])\n",
        );
        let (ended, lines, result) = fixture.call(Some("add"), r#"{"args": [2], "kwargs": {"b": 3}}"#).await;
        assert_eq!(ended.unwrap(), Ended::Exited(0), "{lines:?}");
        assert_eq!(lines, ["Out adding ***"]);
        assert_eq!(result.as_deref(), Some(r#"{"sum": 5, "day": "2021-01-02"}"#));
        let (ended, lines, result) = fixture.call(Some("fail"), "{}").await;
        assert_eq!((ended.unwrap(), result), (Ended::Exited(1), None));
        assert!(lines.iter().any(|line| line.contains("tasks.py\", line 6, in fail")), "{lines:?}");
        assert!(
            lines.last().unwrap().contains("ValueError: no") && !lines.iter().any(|line| line.contains("<string>"))
        );
        assert_eq!(fixture.call(Some("crash"), "{}").await.0.unwrap(), Ended::Signalled(9));
        let (ended, lines, _) = fixture.call(Some("odd"), "{}").await;
        assert!(ended.unwrap() == Ended::Exited(1) && lines.last().unwrap().contains("is no JSON"), "{lines:?}");
        assert_eq!(fixture.call(Some("later"), "{}").await.2.as_deref(), Some("[1]"));
        assert_eq!(fixture.call(Some("leave"), "{}").await.0.unwrap(), Ended::Exited(4));
        let (ended, lines, _) = fixture.call(Some("missing"), "{}").await;
        assert!(ended.unwrap() == Ended::Exited(1) && lines[0].contains("it has: add, fail"), "{lines:?}");
        let (ended, lines, _) = fixture.call(None, "{}").await;
        assert_eq!((ended.unwrap(), lines), (Ended::Exited(0), vec!["Out run one".to_owned()]));
    }

    #[tokio::test]
    async fn tasks_run_side_by_side_and_an_interpreter_that_ends_is_started_anew() {
        let fixture = Fixture::new(
            "import os, time\n\
             def end():\n    os.kill(os.getppid(), 9)\n    time.sleep(1000)\n\
             def one():\n    return 1\n",
        );
        let error = fixture.call(Some("end"), "{}").await.0.unwrap_err();
        assert!(error.to_string().contains("interpreter ended"), "{error}");
        assert_eq!(fixture.call(Some("one"), "{}").await.2.as_deref(), Some("1"));
    }
}
