//! Downloads: one file on its way from a server into the spool, while readers already read its beginning.
//!
//! What always holds: the bytes that readers see are those of one version of the file, in order, without a gap. A connection
//! that breaks is taken up again where it broke if the server can do that; if it cannot, the bytes that are there already
//! are compared with those that come again. A file that changes meanwhile, ends early or fails its checksum is an error.
//! Waits between tries double, with a jitter that follows from the address: nothing here rolls dice.

use std::io::Read;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use flumen_core::load::FileIdentity;
use flumen_core::{Error, Result, limits};
use futures::StreamExt;
use futures::stream::BoxStream;
use md5::{Digest, Md5};
use tokio::task::AbortHandle;

use crate::blob::{self, Blob};
use crate::sources::local;
use crate::spool::{Spool, SpoolFile, SpoolReader};

/// Bytes that are fetched before a reader has asked for more: enough to find out what the file is. So the files of a
/// long list do not all come at once.
const HEAD_BYTES: u64 = 1 << 20;

/// A file that can be fetched, from its first byte or a later one.
#[async_trait]
pub trait Remote: Send + Sync + 'static {
    /// Its address, without credentials.
    fn address(&self) -> &str;

    /// Begins to fetch it from byte `from` on, if it is still `version`; the answer may begin earlier, or be of another
    /// version, and says so.
    async fn get(&self, from: u64, version: Option<&Version>) -> Result<Answer, Failure>;
}

/// What a server answers.
pub struct Answer {
    /// Which byte of the file the body begins with.
    pub start: u64,
    /// The size of the whole file, if the server says it.
    pub size: Option<u64>,
    /// Which version it is.
    pub version: Version,
    /// The bytes.
    pub body: BoxStream<'static, Result<Bytes, Failure>>,
}

/// What a server says about a version of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Version {
    /// A checksum or a strong ETag, with its kind before it: `etag:"…"`.
    pub validator: Option<String>,
    /// The ETag, if it is a strong one: to ask for the rest of the same version.
    pub etag: Option<String>,
    /// Whether the server gives parts of the file.
    pub ranges: bool,
    /// The MD5 of the content.
    pub md5: Option<[u8; 16]>,
    /// The CRC-32C of the content.
    pub crc32c: Option<u32>,
}

impl Version {
    /// Whether the rest can be asked for once the beginning is there.
    fn is_resumable(&self) -> bool {
        self.ranges && self.etag.is_some()
    }

    /// Whether `other` is surely another version.
    fn differs(&self, other: &Version) -> bool {
        fn differ<T: PartialEq>(one: &Option<T>, other: &Option<T>) -> bool {
            matches!((one, other), (Some(one), Some(other)) if one != other)
        }
        differ(&self.etag, &other.etag) || differ(&self.md5, &other.md5) || differ(&self.crc32c, &other.crc32c)
    }
}

/// Why a request failed.
#[derive(Debug)]
pub enum Failure {
    /// It may go well the next time.
    Again {
        /// What went wrong.
        error: Error,
        /// How long the server asks us to wait.
        after: Option<Duration>,
    },
    /// Trying again would not help.
    Final(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Final(error)
    }
}

impl Failure {
    /// One that may pass.
    pub fn again(error: Error) -> Self {
        Failure::Again { error, after: None }
    }
}

/// How often and how fast requests are tried again.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    /// Tries without a new byte, in all.
    pub tries: u32,
    /// The wait before the second try; it doubles from there.
    pub delay: Duration,
    /// The longest wait.
    pub longest: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { tries: limits::REQUEST_TRIES, delay: limits::RETRY_DELAY, longest: limits::RETRY_DELAY_MAX }
    }
}

impl Retry {
    /// The wait after `failures` failures: doubled each time, and lengthened by up to a quarter so that many clients do not come
    /// back at once.
    fn wait(&self, failures: u32, asked: Option<Duration>, address: &str) -> Duration {
        let doubled = self.delay.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(self.longest);
        let hash = blake3::hash(format!("{address} {failures}").as_bytes());
        let jitter = doubled / 4 * u32::from(hash.as_bytes()[0]) / 256;
        let longest_asked = self.longest * 4;
        asked.map_or(doubled + jitter, |asked| asked.min(longest_asked).max(doubled.min(asked)))
    }
}

/// Begins to download `remote`. Returns as soon as the server has answered.
///
/// Errors: those of the server's first answer, once it has been asked often enough.
pub async fn begin(remote: Arc<dyn Remote>, spool: Arc<Spool>, retry: Retry) -> Result<Arc<dyn Blob>> {
    let mut failures = 0;
    let first = loop {
        match remote.get(0, None).await {
            Ok(answer) => break answer,
            Err(failure) => wait_or_give_up(failure, &mut failures, &retry, remote.address()).await?,
        }
    };
    let file = spool.file(remote.address())?;
    let state = Arc::new(Mutex::new(Known { size: first.size, version: first.version.clone() }));
    let transfer = Transfer {
        remote: Arc::clone(&remote),
        file: Arc::clone(&file),
        known: Arc::clone(&state),
        retry,
        digest: Digests::default(),
        is_wanted: false,
    };
    let handle = tokio::spawn(transfer.run(first)).abort_handle();
    let task = Arc::new(Task { handle, file: Arc::clone(&file) });
    Ok(Arc::new(Download { address: remote.address().to_owned(), file, known: state, task }))
}

async fn wait_or_give_up(failure: Failure, failures: &mut u32, retry: &Retry, address: &str) -> Result<()> {
    match failure {
        Failure::Final(error) => Err(error),
        Failure::Again { error, after } => {
            *failures += 1;
            if *failures >= retry.tries {
                return Err(error);
            }
            tokio::time::sleep(retry.wait(*failures, after, address)).await;
            Ok(())
        }
    }
}

/// What is known of the file so far.
struct Known {
    size: Option<u64>,
    version: Version,
}

/// The digests of the bytes so far, of those that the server gave.
#[derive(Default)]
struct Digests {
    md5: Md5,
    crc32c: u32,
}

/// The task that fetches.
struct Transfer {
    remote: Arc<dyn Remote>,
    file: Arc<SpoolFile>,
    known: Arc<Mutex<Known>>,
    retry: Retry,
    digest: Digests,
    /// Whether somebody wants more than the beginning.
    is_wanted: bool,
}

impl Transfer {
    async fn run(mut self, first: Answer) {
        let mut answer = Some(first);
        let mut failures = 0;
        let ended = loop {
            let before = self.file.written();
            match self.attempt(answer.take()).await {
                Ok(()) => break self.check(),
                Err(failure) => {
                    if self.file.written() > before {
                        failures = 0;
                    }
                    if let Err(error) =
                        wait_or_give_up(failure, &mut failures, &self.retry, self.remote.address()).await
                    {
                        break Err(error);
                    }
                }
            }
        };
        match ended {
            Ok(()) => self.file.finish(),
            Err(error) => self.file.fail(&error),
        }
    }

    /// Fetches what is missing, to the end.
    async fn attempt(&mut self, answer: Option<Answer>) -> Result<(), Failure> {
        let answer = match answer {
            Some(answer) => answer,
            None => {
                let version = lock(&self.known).version.clone();
                let from = if version.is_resumable() { self.file.written() } else { 0 };
                self.remote.get(from, Some(&version)).await?
            }
        };
        self.agree_on_version(&answer)?;
        let Answer { start: mut at, mut body, .. } = answer;
        if at > self.file.written() {
            let error = Error::unavailable(format!("{}: the server sent the wrong part", self.remote.address()))
                .hint("try again later");
            return Err(Failure::again(error));
        }
        loop {
            if !self.is_wanted && self.file.written() >= HEAD_BYTES {
                self.file.wanted_beyond(self.file.written()).await;
                self.is_wanted = true;
            }
            let next = tokio::time::timeout(limits::READ_TIMEOUT, body.next()).await;
            let chunk = match next {
                Ok(Some(chunk)) => chunk?,
                Ok(None) => break,
                Err(_) => {
                    let error = format!("{}: the server has stopped sending", self.remote.address());
                    return Err(Failure::again(Error::unavailable(error).hint("check the network, then try again")));
                }
            };
            self.take(at, &chunk)?;
            at += chunk.len() as u64;
        }
        self.check_length()
    }

    /// Notes what the answer says. Another version than before can only be taken while nobody has seen a byte.
    fn agree_on_version(&mut self, answer: &Answer) -> Result<(), Failure> {
        let mut known = lock(&self.known);
        let other_size = matches!((known.size, answer.size), (Some(old), Some(new)) if old != new);
        if !known.version.differs(&answer.version) && !other_size {
            return Ok(());
        }
        if !self.file.restart()? {
            return Err(changed(self.remote.address()).into());
        }
        self.digest = Digests::default();
        *known = Known { size: answer.size, version: answer.version.clone() };
        Ok(())
    }

    /// Takes the bytes `chunk`, which begin at `at`. Those that are there already must be the same.
    fn take(&mut self, at: u64, chunk: &[u8]) -> Result<(), Failure> {
        let there = self.file.written().saturating_sub(at).min(chunk.len() as u64) as usize;
        if there > 0 && !self.file.holds(at, &chunk[..there])? {
            return Err(changed(self.remote.address()).into());
        }
        let new = &chunk[there..];
        let version = &lock(&self.known).version;
        if version.md5.is_some() {
            self.digest.md5.update(new);
        }
        if version.crc32c.is_some() {
            self.digest.crc32c = crc32c::crc32c_append(self.digest.crc32c, new);
        }
        self.file.append(new)?;
        Ok(())
    }

    fn check_length(&self) -> Result<(), Failure> {
        let (got, expected) = (self.file.written(), lock(&self.known).size);
        match expected {
            Some(expected) if got < expected => Err(Failure::again(ends_early(self.remote.address(), got, expected))),
            Some(expected) if got > expected => Err(Failure::Final(Error::data(format!(
                "{}: the server sent {got} bytes and said {expected}",
                self.remote.address()
            )))),
            _ => Ok(()),
        }
    }

    /// Holds what came against the server's checksums.
    fn check(&self) -> Result<()> {
        let known = lock(&self.known);
        let md5: [u8; 16] = self.digest.md5.clone().finalize().into();
        let failed = match &known.version {
            Version { md5: Some(expected), .. } if *expected != md5 => "MD5",
            Version { crc32c: Some(expected), .. } if *expected != self.digest.crc32c => "CRC-32C",
            _ => return Ok(()),
        };
        Err(Error::data(format!(
            "{} arrived damaged: the {failed} of its bytes is not the one that the server gave",
            self.remote.address()
        ))
        .hint("run the same command again"))
    }
}

fn changed(address: &str) -> Error {
    Error::conflict(format!("{address} changed on the server while it was being read"))
        .hint("run the same command again")
}

/// The error of a body that ends before its end.
pub fn ends_early(address: &str, got: u64, expected: u64) -> Error {
    Error::unavailable(format!("{address} ends early: {got} of {expected} bytes arrived"))
        .hint("check the network and the server, then run the same command again")
}

/// A file that is on its way, or has arrived.
struct Download {
    address: String,
    file: Arc<SpoolFile>,
    known: Arc<Mutex<Known>>,
    task: Arc<Task>,
}

/// The fetching, which ends when nobody can want the file any more.
struct Task {
    handle: AbortHandle,
    file: Arc<SpoolFile>,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.handle.abort();
        if !self.file.is_complete() {
            self.file.fail(&Error::cancelled());
        }
    }
}

/// Reads a download, and keeps it going meanwhile.
struct Reader {
    reader: SpoolReader,
    _task: Arc<Task>,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.reader.read(buffer)
    }
}

impl Blob for Download {
    fn address(&self) -> &str {
        &self.address
    }

    fn size(&self) -> Option<u64> {
        lock(&self.known).size.or_else(|| self.file.is_complete().then(|| self.file.written()))
    }

    fn open(&self) -> Result<Box<dyn Read + Send>> {
        Ok(Box::new(Reader { reader: self.file.reader(), _task: Arc::clone(&self.task) }))
    }

    fn local_file(&self) -> Result<PathBuf> {
        self.file.wait()
    }

    fn identity(&self) -> Result<FileIdentity> {
        let validator = lock(&self.known).version.validator.clone();
        let validator = match validator {
            Some(validator) => validator,
            None => {
                let hash = local::hash(&self.file.wait()?).map_err(|error| Error::io(&self.address, error))?;
                blob::content_hash(&hash)
            }
        };
        Ok(FileIdentity { address: self.address.clone(), validator: Some(validator) })
    }

    fn check_unchanged(&self) -> Result<()> {
        // The transfer holds every answer against the first, and fails its readers when another version comes.
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
