//! Ends what tasks have started when the worker itself is killed: another worker will start them again.
//!
//! A small process of its own reads from a pipe which process groups run. When the pipe ends, the worker has; the groups that are
//! left on the list are killed. It costs a line on a pipe for each program, and no process.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{BufRead, Write};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use flumen_core::{Error, Result};
use rustix::process::{Pid, Signal};

/// The argument with which the binary becomes the watching process.
pub const ARGUMENT: &str = "__watch";

/// The environment variable by which processes of a worker are known that were not on the list yet when it was killed, or that have
/// left their group.
const MARK: &str = "FLUMEN_WORKER_MARK";
/// How often the processes of a worker are looked for, and the wait between: one may just be about to begin.
const LOOKS: usize = 5;
/// How often the processes of a dead worker are looked for until they have ended. One that waits for a disk ends late.
const LOOKS_FOR_AN_END: usize = 100;
/// The wait between two looks.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// The process that watches over one worker.
#[derive(Debug)]
pub struct Watchdog {
    mark: String,
    list: Mutex<Option<ChildStdin>>,
    child: Mutex<Child>,
}

impl Watchdog {
    /// Starts one: `binary` is this very program.
    ///
    /// Errors: those of starting a process.
    pub fn start(binary: &Path) -> Result<Self> {
        // A group of its own: what a terminal sends to the worker's is not for it.
        let mark = mark();
        let mut child = Command::new(binary)
            .arg(ARGUMENT)
            .arg(&mark)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|error| Error::io("the process that watches over the worker", error))?;
        let list = child.stdin.take();
        Ok(Self { mark, list: Mutex::new(list), child: Mutex::new(child) })
    }

    /// The environment variable that every program has to have.
    pub fn variable(&self) -> (OsString, OsString) {
        (MARK.into(), self.mark.clone().into())
    }

    /// Watches over a process group as long as what is given back is kept.
    ///
    /// Errors: `Unavailable` if the watching process is gone: nothing should run then.
    pub fn guard(&self, group: Pid) -> Result<Guard<'_>> {
        self.tell('+', group).map_err(|error| {
            Error::unavailable("the process that watches over the worker is gone")
                .hint("start the worker anew")
                .caused_by(error)
        })?;
        Ok(Guard { watchdog: self, group })
    }

    fn tell(&self, sign: char, group: Pid) -> std::io::Result<()> {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(pipe) = list.as_mut() else { return Ok(()) };
        pipe.write_all(format!("{sign}{}\n", group.as_raw_nonzero()).as_bytes())
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).take();
        let _ = self.child.lock().unwrap_or_else(PoisonError::into_inner).wait();
    }
}

/// A process group that is watched over.
#[derive(Debug)]
pub struct Guard<'a> {
    watchdog: &'a Watchdog,
    group: Pid,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        // If the watching process is gone, so is its list.
        let _ = self.watchdog.tell('-', self.group);
    }
}

/// A text that no other process has: two that have the same number did not begin at the same time.
fn mark() -> String {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let began = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(19)).unwrap_or_default().to_owned();
    format!("{}-{began}", std::process::id())
}

/// What the watching process does: reads the list from `input` to its end, then kills what is left on it, and whatever else bears the
/// `mark` of the worker.
pub fn watch(input: impl BufRead, mark: &str) {
    let mut groups = BTreeSet::new();
    for line in input.lines() {
        let Ok(line) = line else { break };
        let id = line.get(1..).and_then(|id| id.parse::<i32>().ok()).and_then(Pid::from_raw);
        match (line.as_bytes().first(), id) {
            (Some(b'+'), Some(id)) => drop(groups.insert(id.as_raw_nonzero())),
            (Some(b'-'), Some(id)) => drop(groups.remove(&id.as_raw_nonzero())),
            _ => {}
        }
    }
    for id in groups {
        if let Some(group) = Pid::from_raw(id.get()) {
            // It may have ended at the same moment.
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
    }
    for look in 0..LOOKS {
        if look > 0 {
            std::thread::sleep(BETWEEN_LOOKS);
        }
        kill_marked(|of| of == mark);
    }
}

/// Ends what is left of workers whose processes are gone, and waits until it has ended: their watching processes may not have come to it
/// yet. `workers` are the ids of their processes, and when each began, as the system counts; 0 where that is not known.
pub fn clear(workers: &BTreeSet<(u32, u64)>) {
    let is_theirs = |mark: &str| {
        let parts = mark.split_once('-').and_then(|(process, born)| Some((process.parse().ok()?, born.parse().ok()?)));
        parts.is_some_and(|(process, born)| workers.contains(&(process, born)) || workers.contains(&(process, 0)))
    };
    for _ in 0..LOOKS_FOR_AN_END {
        if kill_marked(is_theirs) == 0 {
            break;
        }
        std::thread::sleep(BETWEEN_LOOKS);
    }
}

/// Kills the processes that have a mark in their environment that `is_theirs`; how many there were.
fn kill_marked(is_theirs: impl Fn(&str) -> bool) -> usize {
    let has_it = |id: &str| {
        let environment = std::fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
        let mut marks = environment
            .split(|byte| *byte == 0)
            .filter_map(|variable| std::str::from_utf8(variable).ok()?.strip_prefix(MARK)?.strip_prefix('='));
        marks.any(&is_theirs)
    };
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = all.filter_map(|entry| entry.file_name().into_string().ok());
    ids.filter(|id| id.bytes().all(|byte| byte.is_ascii_digit()) && has_it(id))
        .filter_map(|id| id.parse().ok().and_then(Pid::from_raw))
        .filter(|process| rustix::process::kill_process(*process, Signal::KILL).is_ok())
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_a_worker_is_killed() {
        let spawn = || Command::new("sleep").arg("1000").process_group(0).spawn().unwrap();
        let (mut left, mut finished) = (spawn(), spawn());
        let mut unlisted = Command::new("sleep").arg("1000").env(MARK, "the-mark").process_group(0).spawn().unwrap();
        let list = format!("+{}\n+{}\nnonsense\n-{}\n", left.id(), finished.id(), finished.id());
        watch(list.as_bytes(), "the-mark");
        assert!(!left.wait().unwrap().success());
        assert!(!unlisted.wait().unwrap().success());
        assert!(finished.try_wait().unwrap().is_none());
        let mut of_the_dead =
            Command::new("sleep").arg("1000").env(MARK, "4194305-1").process_group(0).spawn().unwrap();
        // A program that has just begun has no environment yet.
        while of_the_dead.try_wait().unwrap().is_none() {
            clear(&BTreeSet::from([(4_194_305, 1)]));
        }
        assert!(finished.try_wait().unwrap().is_none());
        // Another process may have the number by now.
        let mut of_another = Command::new("sleep").arg("1000").env(MARK, "4194305-2").process_group(0).spawn().unwrap();
        clear(&BTreeSet::from([(4_194_305, 1)]));
        assert!(of_another.try_wait().unwrap().is_none());
        of_another.kill().unwrap();
        of_another.wait().unwrap();
        finished.kill().unwrap();
        finished.wait().unwrap();
    }
}
