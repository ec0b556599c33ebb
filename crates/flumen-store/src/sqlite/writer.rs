//! The one connection that writes.
//!
//! Changes that come while a transaction is being written wait, and then share the next one: the disk is waited for once for all
//! of them (group commit). A change that fails takes nothing of the others with it. Who asked is answered when the transaction is
//! on the disk, and those who listen are woken then.

use std::collections::BTreeSet;
use std::sync::Arc;

use flumen_core::flow::store::Wake;
use flumen_core::{Error, ErrorKind, Result};
use futures::future::BoxFuture;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::sync::{mpsc, oneshot};

use crate::bell::Bell;

/// Changes that share a transaction at most.
const TOGETHER: usize = 256;
/// Changes that wait at most; who comes after that waits to be let in.
const WAITING: usize = 4_096;

/// What a change works with.
pub(super) struct Tx {
    pub connection: SqliteConnection,
    place: Arc<str>,
    wakes: BTreeSet<Wake>,
}

impl Tx {
    /// Somebody is woken when the change is on the disk.
    pub fn wake(&mut self, wake: Wake) {
        self.wakes.insert(wake);
    }

    pub fn failed(&self, error: sqlx::Error) -> Error {
        super::failed(&self.place, error)
    }
}

type Reply = Box<dyn FnOnce(Option<Error>) + Send>;
/// Makes the change, if there is a transaction for it; says whether it is good, and how to answer who asked.
type Change = Box<dyn for<'t> FnOnce(Option<&'t mut Tx>) -> BoxFuture<'t, (bool, Reply)> + Send>;

/// Hands changes to the connection.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    changes: mpsc::Sender<Change>,
}

impl Writer {
    /// Opens the connection.
    ///
    /// Errors: those of the file.
    pub async fn start(options: &SqliteConnectOptions, place: Arc<str>, bell: Arc<Bell>) -> Result<Self> {
        let connection = options.connect().await.map_err(|error| super::failed(&place, error))?;
        let (changes, receiver) = mpsc::channel(WAITING);
        tokio::spawn(write_all(Tx { connection, place, wakes: BTreeSet::new() }, receiver, bell));
        Ok(Self { changes })
    }

    /// Makes a change; returns when it is on the disk.
    ///
    /// Errors: its own; `Unavailable` if the transaction cannot be written: then nothing was changed.
    pub async fn write<T: Send + 'static>(
        &self,
        change: impl for<'t> FnOnce(&'t mut Tx) -> BoxFuture<'t, Result<T>> + Send + 'static,
    ) -> Result<T> {
        let (sender, answer) = oneshot::channel();
        let change: Change = Box::new(move |tx| {
            Box::pin(async move {
                let result = match tx {
                    Some(tx) => Some(change(tx).await),
                    None => None,
                };
                let good = matches!(result, Some(Ok(_)));
                let reply: Reply = Box::new(move |failure| {
                    // Whoever asked may have given up.
                    let _ = sender.send(match (result, failure) {
                        (Some(result), None) => result,
                        (_, Some(failure)) => Err(failure),
                        (None, None) => Err(closed()),
                    });
                });
                (good, reply)
            })
        });
        self.changes.send(change).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Unavailable, "the store is closed")
}

async fn write_all(mut tx: Tx, mut changes: mpsc::Receiver<Change>, bell: Arc<Bell>) {
    let mut batch = Vec::new();
    while changes.recv_many(&mut batch, TOGETHER).await > 0 {
        let (replies, failure) = write_some(&mut tx, std::mem::take(&mut batch)).await;
        let wakes = std::mem::take(&mut tx.wakes);
        if failure.is_none() {
            bell.ring(&wakes);
        }
        for reply in replies {
            reply(failure.as_ref().map(|(kind, message)| Error::new(*kind, message.clone())));
        }
    }
    // Nothing is lost if this fails: what was acknowledged is on the disk.
    let _ = tx.connection.close().await;
}

/// Makes several changes in one transaction: those who asked, and what went wrong for all of them.
async fn write_some(tx: &mut Tx, changes: Vec<Change>) -> (Vec<Reply>, Option<(ErrorKind, String)>) {
    let mut replies = Vec::with_capacity(changes.len());
    let mut failure = execute(tx, "begin immediate").await.err();
    for change in changes {
        let before = tx.wakes.clone();
        if failure.is_none() {
            failure = execute(tx, "savepoint change").await.err();
        }
        let (good, reply) = change(if failure.is_none() { Some(&mut *tx) } else { None }).await;
        replies.push(reply);
        if !good && failure.is_none() {
            tx.wakes = before;
            failure = execute(tx, "rollback to change").await.err();
        }
        if failure.is_none() {
            failure = execute(tx, "release change").await.err();
        }
    }
    if failure.is_none() {
        failure = execute(tx, "commit").await.err();
    }
    if failure.is_some() {
        // SQLite may have rolled back by itself, as when the disk is full.
        let _ = execute(tx, "rollback").await;
    }
    (replies, failure.map(|error| (error.kind(), error.message().to_owned())))
}

async fn execute(tx: &mut Tx, sql: &'static str) -> Result<()> {
    match sqlx::query(sql).execute(&mut tx.connection).await {
        Ok(_) => Ok(()),
        Err(error) => Err(tx.failed(error)),
    }
}
