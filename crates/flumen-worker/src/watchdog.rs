//! Ends what tasks have started when the worker itself is killed: another worker will start them again.
//!
//! A small process of its own reads from a pipe which process groups run. When the pipe ends, the worker has; the groups that are
//! left on the list are killed. It costs a line on a pipe for each program, and no process.

use std::collections::BTreeSet;
use std::io::{BufRead, Write};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use flumen_core::{Error, Result};
use rustix::process::{Pid, Signal};

/// The argument with which the binary becomes the watching process.
pub const ARGUMENT: &str = "__watch";

/// The process that watches over one worker.
#[derive(Debug)]
pub struct Watchdog {
    list: Mutex<Option<ChildStdin>>,
    child: Mutex<Child>,
}

impl Watchdog {
    /// Starts one: `binary` is this very program.
    ///
    /// Errors: those of starting a process.
    pub fn start(binary: &Path) -> Result<Self> {
        // A group of its own: what a terminal sends to the worker's is not for it.
        let mut child = Command::new(binary)
            .arg(ARGUMENT)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|error| Error::io("the process that watches over the worker", error))?;
        let list = child.stdin.take();
        Ok(Self { list: Mutex::new(list), child: Mutex::new(child) })
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

/// What the watching process does: reads the list from `input` to its end, then kills what is left on it.
pub fn watch(input: impl BufRead) {
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_on_the_list_is_killed() {
        let spawn = || Command::new("sleep").arg("1000").process_group(0).spawn().unwrap();
        let (mut left, mut finished) = (spawn(), spawn());
        watch(format!("+{}\n+{}\nnonsense\n-{}\n", left.id(), finished.id(), finished.id()).as_bytes());
        assert!(!left.wait().unwrap().success());
        assert!(finished.try_wait().unwrap().is_none());
        finished.kill().unwrap();
        finished.wait().unwrap();
    }
}
