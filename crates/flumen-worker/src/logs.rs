//! Logs of attempts, kept in the lake's root: in chunks, written while the attempt runs, so that any machine can follow them.
//!
//! A chunk is lines of a time, the stream (`O`, `E`, or `N` for what Flumen says), and the text, with tabs between.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use flumen_core::Result;
use flumen_core::flow::store::Work;
use flumen_core::flow::{RunId, TaskKey};
use tokio::sync::Notify;

use crate::host::Host;
use crate::kept::{Kept, attempt_folder, key_of_folder, log_folder};
use crate::log::{Log, Stream};

/// Bytes of a chunk at which it is written without waiting.
const CHUNK_BYTES: usize = 256 << 10;
/// How long a line may wait until it can be read elsewhere.
const CHUNK_WAIT: Duration = Duration::from_secs(1);
/// Bytes that are kept of one attempt; the rest is counted, not kept.
const ATTEMPT_BYTES: usize = 32 << 20;

/// The log of an attempt.
pub(crate) struct AttemptLog<'a> {
    host: &'a Host,
    work: &'a Work,
    /// What the names of its chunks begin with.
    prefix: String,
    lines: Mutex<Lines>,
    changed: Notify,
}

#[derive(Default)]
struct Lines {
    text: String,
    /// What stays of a look that saw nothing new.
    news: String,
    written: usize,
    dropped: u64,
    chunks: u32,
    closed: bool,
}

impl<'a> AttemptLog<'a> {
    pub(crate) fn new(host: &'a Host, work: &'a Work) -> Self {
        Self { host, work, prefix: String::new(), lines: Mutex::default(), changed: Notify::new() }
    }

    /// The log of a look that an attempt takes after it began to wait: it goes on where the attempt's ends.
    pub(crate) fn of_look(host: &'a Host, work: &'a Work) -> Self {
        // Letters come after digits.
        let prefix = format!("look-{:016}-", host.clock.now().timestamp_micros());
        Self { prefix, ..Self::new(host, work) }
    }

    pub(crate) fn is_look(&self) -> bool {
        !self.prefix.is_empty()
    }

    /// Drops what was not written yet, but news.
    pub(crate) fn forget(&self) {
        let mut lines = self.lines();
        lines.text = std::mem::take(&mut lines.news);
    }

    /// Nothing more comes.
    pub(crate) fn close(&self) {
        self.lines().closed = true;
        self.changed.notify_one();
    }

    /// Writes what is printed, chunk by chunk, until the log is closed.
    pub(crate) async fn keep(&self) {
        loop {
            self.changed.notified().await;
            if !self.is_pressing() {
                // More may come soon: it is written together.
                let _ = tokio::time::timeout(CHUNK_WAIT, async {
                    while !self.is_pressing() {
                        self.changed.notified().await;
                    }
                })
                .await;
            }
            self.write().await;
            if self.lines().closed {
                return;
            }
        }
    }

    fn is_pressing(&self) -> bool {
        let lines = self.lines();
        lines.closed || lines.text.len() >= CHUNK_BYTES
    }

    async fn write(&self) {
        let (text, number) = {
            let mut lines = self.lines();
            let mut text = std::mem::take(&mut lines.text);
            if lines.closed && lines.dropped > 0 {
                let note = format!(
                    "{} more lines are not kept: the log has {} MB already",
                    lines.dropped,
                    ATTEMPT_BYTES >> 20
                );
                text.push_str(&line_of(self.host.clock.now(), Stream::Note, &note));
            }
            if text.is_empty() {
                return;
            }
            lines.chunks += 1;
            (text, lines.chunks)
        };
        let work = self.work;
        let folder = attempt_folder(work.run.id, &work.queued.key, work.queued.attempt, work.lease.number);
        // A log that cannot be written is no reason to fail the task.
        if let Err(error) = self.host.kept.put(&format!("{folder}/{}{number:06}.log", self.prefix), text.into()).await {
            self.host.watcher.store_fails(&error);
        }
    }

    fn lines(&self) -> std::sync::MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log for AttemptLog<'_> {
    fn news(&self, text: &str) {
        let line = line_of(self.host.clock.now(), Stream::Note, text);
        self.lines().news.push_str(&line);
        self.line(Stream::Note, text);
    }

    fn line(&self, stream: Stream, text: &str) {
        self.host.watcher.line(self.work, stream, text);
        let mut lines = self.lines();
        if lines.written > ATTEMPT_BYTES {
            lines.dropped += 1;
            return;
        }
        let line = line_of(self.host.clock.now(), stream, text);
        lines.written += line.len();
        let wakes =
            lines.text.is_empty() || lines.text.len() < CHUNK_BYTES && lines.text.len() + line.len() >= CHUNK_BYTES;
        lines.text.push_str(&line);
        if wakes {
            self.changed.notify_one();
        }
    }
}

fn line_of(at: DateTime<Utc>, stream: Stream, text: &str) -> String {
    let letter = match stream {
        Stream::Out => 'O',
        Stream::Err => 'E',
        Stream::Note => 'N',
    };
    format!("{}\t{letter}\t{text}\n", at.to_rfc3339_opts(SecondsFormat::Millis, true))
}

/// A line of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// The task run.
    pub key: TaskKey,
    /// The attempt.
    pub attempt: u32,
    /// The number of its lease.
    pub number: u64,
    /// When.
    pub at: DateTime<Utc>,
    /// Where it was printed.
    pub stream: Stream,
    /// The line.
    pub text: String,
}

/// Reads the logs of a run, a part at a time.
#[derive(Debug)]
pub struct LogReader {
    kept: Kept,
    run: RunId,
    seen: BTreeSet<String>,
}

impl LogReader {
    /// Begins at the beginning.
    pub fn new(kept: Kept, run: RunId) -> Self {
        Self { kept, run, seen: BTreeSet::new() }
    }

    /// The lines that have come since the last time, of task runs for which `wanted` says so, in the order of attempts.
    ///
    /// Errors: those of the lake's root.
    pub async fn more(&mut self, wanted: impl Fn(&TaskKey, u32) -> bool) -> Result<Vec<LogLine>> {
        let mut lines = Vec::new();
        for path in self.kept.list(&log_folder(self.run)).await? {
            let Some((key, attempt, number)) = named(&path) else { continue };
            if self.seen.contains(&path) || !wanted(&key, attempt) {
                continue;
            }
            if let Some(bytes) = self.kept.get(&path).await? {
                let text = String::from_utf8_lossy(&bytes);
                lines.extend(text.lines().filter_map(|line| parse(line, &key, attempt, number)));
            }
            self.seen.insert(path);
        }
        Ok(lines)
    }
}

/// Whose chunk a file is: `logs/RUN/load/0001-123/000001.log`, `logs/RUN/load.7/…` of an item.
fn named(path: &str) -> Option<(TaskKey, u32, u64)> {
    let mut parts = path.split('/').rev();
    let (_, attempt, key) = (parts.next()?, parts.next()?, parts.next()?);
    let (attempt, number) = attempt.split_once('-')?;
    Some((key_of_folder(key)?, attempt.parse().ok()?, number.parse().ok()?))
}

fn parse(line: &str, key: &TaskKey, attempt: u32, number: u64) -> Option<LogLine> {
    let mut parts = line.splitn(3, '\t');
    let at = DateTime::parse_from_rfc3339(parts.next()?).ok()?.with_timezone(&Utc);
    let stream = match parts.next()? {
        "E" => Stream::Err,
        "N" => Stream::Note,
        _ => Stream::Out,
    };
    Some(LogLine { key: key.clone(), attempt, number, at, stream, text: parts.next()?.to_owned() })
}
