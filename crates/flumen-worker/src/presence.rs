//! By what others know whether a process is there: what it says of itself in the store, and what the system says of it to those who see
//! the same processes.

use std::time::Duration;

use chrono::{DateTime, Utc};
use flumen_core::flow::WorkerId;
use flumen_core::flow::store::WorkerRecord;

/// How often a worker or a scheduler says that it is there, at least.
pub const BEAT: Duration = Duration::from_secs(10);

/// What this process says of itself: one that takes no work yet.
pub fn this_process(id: WorkerId, host: String, started: DateTime<Utc>, now: DateTime<Utc>) -> WorkerRecord {
    let process = std::process::id();
    WorkerRecord {
        id,
        host,
        process,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pools: Vec::new(),
        slots: 0,
        started,
        seen: now,
        draining: false,
        schedules: false,
        commanded: false,
        boot: boot(),
        born: born(process).unwrap_or_default(),
    }
}

/// Whether the process of a worker is known to have ended: seen from a process on the same machine, called `machine`. Of others nothing
/// is known.
pub fn is_gone(worker: &WorkerRecord, machine: &str) -> bool {
    match worker.boot.is_empty() {
        // One of an older version says nothing else of itself.
        true => worker.host == machine && born(worker.process).is_none(),
        false => worker.boot == boot() && born(worker.process) != Some(worker.born),
    }
}

/// A text that is the same for all who see the same processes: until the machine starts anew, and within one namespace of processes.
fn boot() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    match boot.trim() {
        "" => String::new(),
        boot => format!("{boot} {}", namespace.display()),
    }
}

/// When a process began, as the system counts; none where there is no such process, or only what nobody has fetched of one.
fn born(process: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name comes first, and may have anything in it.
    let mut fields = stat.rsplit(')').next()?.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_gone_when_it_has_ended_or_when_another_one_has_its_number() {
        let now = DateTime::UNIX_EPOCH;
        let here = this_process("w".into(), "here".to_owned(), now, now);
        assert!(here.born > 0 && !here.boot.is_empty());
        assert!(!is_gone(&here, "here"));
        assert!(is_gone(&WorkerRecord { born: here.born + 1, ..here.clone() }, "here"));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let of_child = WorkerRecord { process: child.id(), born: 1, ..here.clone() };
        assert!(is_gone(&of_child, "here"), "one that nobody has waited for, or another one");
        child.wait().unwrap();
        // Elsewhere there are other processes.
        let elsewhere = WorkerRecord { boot: "another".to_owned(), process: 4_194_305, ..here.clone() };
        assert!(!is_gone(&elsewhere, "here"));
        let older = WorkerRecord { boot: String::new(), process: 4_194_305, ..here };
        assert!(is_gone(&older, "here") && !is_gone(&older, "there"));
    }
}
