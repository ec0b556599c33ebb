//! How rows get from worker threads into a COPY: encoded by the worker, through a bounded channel, to a task that feeds
//! the connection.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use bytes::Bytes;
use flumen_core::write::BatchWriter;
use flumen_core::{Error, Result};
use futures::SinkExt;
use tokio::sync::mpsc;
use tokio_postgres::{Client, CopyInSink};

use super::Target;
use crate::postgres::encode::{Encoder, HEADER, TRAILER};

/// Blocks that wait in a channel.
const BLOCKS: usize = 4;

/// What a worker hands to the task of its connection.
pub enum Message {
    /// Encoded rows, whole ones.
    Rows(Vec<u8>),
    /// That was all. A channel that closes without it was given up.
    End,
}

/// What the writers of a load have done together.
#[derive(Default)]
pub struct Tally {
    /// Bytes that were encoded.
    pub bytes: AtomicU64,
    /// Rows that Postgres confirmed.
    pub rows: AtomicU64,
    /// Writers that have not finished.
    open: AtomicU64,
    /// Whether a writer was dropped before its end.
    given_up: AtomicBool,
    failure: Mutex<Option<Error>>,
}

impl Tally {
    /// Checks that every writer finished.
    pub fn check(&self) -> Result<()> {
        if self.given_up.load(Ordering::Acquire) || self.open.load(Ordering::Acquire) > 0 {
            return Err(Error::internal("a load was to be committed before all of its writers were done"));
        }
        Ok(())
    }

    fn fail(&self, error: Error) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    /// The error that ended a connection; the first one to ask gets the cause.
    pub fn failure(&self, target: &Target) -> Error {
        let first = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        first.unwrap_or_else(|| Error::unavailable(format!("{}: the load failed on another connection", target.name())))
    }
}

/// Feeds one COPY from `receiver` to its end. Returns the rows that Postgres counted.
///
/// If the channel closes before [`Message::End`], the COPY is aborted and 0 returned.
async fn feed(
    client: &Client,
    target: &Target,
    statement: &str,
    receiver: &mut mpsc::Receiver<Message>,
) -> Result<u64> {
    let sink: CopyInSink<Bytes> = client.copy_in(statement).await.map_err(|error| target.failed(error))?;
    let mut sink = pin!(sink);
    let fed = async {
        sink.as_mut().feed(Bytes::from_static(HEADER)).await?;
        while let Some(message) = receiver.recv().await {
            match message {
                Message::Rows(rows) => sink.as_mut().feed(Bytes::from(rows)).await?,
                Message::End => {
                    sink.as_mut().feed(Bytes::from_static(TRAILER)).await?;
                    return Ok(true);
                }
            }
        }
        Ok(false)
    };
    match fed.await {
        Ok(true) => sink.as_mut().finish().await.map_err(|error| target.failed(error)),
        Ok(false) => Ok(0),
        Err(error) => {
            // The channel to the connection is closed; what the server said last is in the answer.
            let told = sink.as_mut().finish().await.err();
            Err(target.failed(told.filter(|told| told.as_db_error().is_some()).unwrap_or(error)))
        }
    }
}

/// A COPY in the open transaction of one connection, shared by all writers.
pub struct SharedCopy {
    sender: mpsc::Sender<Message>,
    task: tokio::task::JoinHandle<Option<Client>>,
}

impl SharedCopy {
    /// Begins the transaction and the COPY.
    pub async fn begin(client: Client, target: Arc<Target>, statement: String, tally: Arc<Tally>) -> Result<Self> {
        client.batch_execute("begin").await.map_err(|error| target.failed(error))?;
        let (sender, mut receiver) = mpsc::channel(BLOCKS);
        let task = tokio::spawn(async move {
            let fed = feed(&client, &target, &statement, &mut receiver).await;
            match fed {
                Ok(rows) => {
                    tally.rows.fetch_add(rows, Ordering::AcqRel);
                    Some(client)
                }
                Err(error) => {
                    // Stored before the channel closes: whoever finds it closed looks here.
                    tally.fail(error);
                    drop(receiver);
                    None
                }
            }
        });
        Ok(Self { sender, task })
    }

    /// Ends the COPY. The transaction on the connection that comes back is still open.
    pub async fn finish(self, target: &Target, tally: &Tally) -> Result<Client> {
        let _ = self.sender.send(Message::End).await;
        drop(self.sender);
        match self.task.await {
            Ok(Some(client)) => Ok(client),
            Ok(None) => Err(tally.failure(target)),
            Err(error) => Err(Error::internal("the task of a connection ended badly").caused_by(error)),
        }
    }

    /// A writer for one thread.
    pub fn writer(&self, target: Arc<Target>, encoder: Encoder, tally: Arc<Tally>) -> Writer {
        Writer::new(target, encoder, self.sender.clone(), tally, None)
    }
}

/// Begins a COPY on a connection of its own.
pub fn own_copy(
    runtime: &tokio::runtime::Handle,
    target: Arc<Target>,
    statement: String,
    encoder: Encoder,
    tally: Arc<Tally>,
) -> Writer {
    let (sender, mut receiver) = mpsc::channel(BLOCKS);
    let (answer, answered) = tokio::sync::oneshot::channel();
    let (copying, counted) = (Arc::clone(&target), Arc::clone(&tally));
    runtime.spawn(async move {
        let copied = async {
            let client = copying.connect(copying.options.patience).await?;
            // The commit of the load waits for the log to be on disk, and so for this too.
            client.batch_execute("set synchronous_commit = off").await.map_err(|error| copying.failed(error))?;
            feed(&client, &copying, &statement, &mut receiver).await
        };
        let copied = copied.await;
        if let Ok(rows) = &copied {
            counted.rows.fetch_add(*rows, Ordering::AcqRel);
        }
        let ended = copied.map_err(|error| counted.fail(error));
        drop(receiver);
        let _ = answer.send(ended.is_ok());
    });
    Writer::new(target, encoder, sender, tally, Some(answered))
}

/// Encodes the batches of one worker.
pub struct Writer {
    target: Arc<Target>,
    encoder: Encoder,
    sender: mpsc::Sender<Message>,
    tally: Arc<Tally>,
    /// Where the connection is this writer's own: whether its COPY went well.
    answer: Option<tokio::sync::oneshot::Receiver<bool>>,
    finished: bool,
}

impl Writer {
    fn new(
        target: Arc<Target>,
        encoder: Encoder,
        sender: mpsc::Sender<Message>,
        tally: Arc<Tally>,
        answer: Option<tokio::sync::oneshot::Receiver<bool>>,
    ) -> Self {
        tally.open.fetch_add(1, Ordering::AcqRel);
        Self { target, encoder, sender, tally, answer, finished: false }
    }
}

impl BatchWriter for Writer {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let (sender, tally, target) = (&self.sender, &self.tally, &self.target);
        let mut bytes = 0;
        let written = self.encoder.encode(batch, &mut |block| {
            bytes += block.len() as u64;
            sender.blocking_send(Message::Rows(block)).map_err(|_| tally.failure(target))
        });
        tally.bytes.fetch_add(bytes, Ordering::AcqRel);
        written.map_err(|error| match error.kind() {
            flumen_core::ErrorKind::Data => error.within(target.name()),
            _ => error,
        })
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        if let Some(answer) = self.answer.take() {
            let told = self.sender.blocking_send(Message::End).is_ok();
            let went_well = answer.blocking_recv().unwrap_or(false);
            if !told || !went_well {
                return Err(self.tally.failure(&self.target));
            }
        }
        self.finished = true;
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.finished {
            self.tally.given_up.store(true, Ordering::Release);
        }
        self.tally.open.fetch_sub(1, Ordering::AcqRel);
    }
}
