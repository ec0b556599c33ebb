//! The one connection that writes, in a thread of its own.
//!
//! Changes that come while a transaction is being written wait, and then share the next one: the disk is waited for once for all
//! of them (group commit). A change that fails takes nothing of the others with it. Who asked is answered when the transaction is
//! on the disk, and those who listen are woken then.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::Arc;

use flumen_core::flow::store::Wake;
use flumen_core::{Error, ErrorKind, Result};
use tokio::sync::{mpsc, oneshot};

use super::db::Db;
use crate::bell::Bell;

/// Changes that share a transaction at most.
const TOGETHER: usize = 256;
/// Changes that wait at most; who comes after that waits to be let in.
const WAITING: usize = 4_096;

/// What a change works with.
pub(super) struct Tx {
    db: Db,
    wakes: BTreeSet<Wake>,
    /// Whether commits wait for the disk.
    waits: bool,
}

impl Deref for Tx {
    type Target = Db;

    fn deref(&self) -> &Db {
        &self.db
    }
}

impl Tx {
    /// Somebody is woken when the change is on the disk.
    pub fn wake(&mut self, wake: Wake) {
        self.wakes.insert(wake);
    }

    /// Whether the next commits wait for the disk. After some that did not, one that does brings all of them there.
    fn wait_for_the_disk(&mut self, waits: bool) -> Result<()> {
        if self.waits != waits {
            let level = if waits { "full" } else { "normal" };
            let set = self.db.connection.pragma_update(None, "synchronous", level);
            set.map_err(|error| self.db.failed(error))?;
            self.waits = waits;
        }
        Ok(())
    }
}

type Reply = Box<dyn FnOnce(Option<Error>) + Send>;
/// Makes the change, if there is a transaction for it; says whether it is good, and how to answer who asked.
type Make = Box<dyn FnOnce(Option<&mut Tx>) -> (bool, Reply) + Send>;

struct Change {
    make: Make,
    /// Whether nobody is harmed where it is lost.
    is_hint: bool,
}

/// Hands changes to the connection.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    changes: mpsc::Sender<Change>,
}

impl Writer {
    /// Begins to write by this connection. The thread ends when nobody has the writer any more, and what was asked for is done.
    ///
    /// Errors: where there can be no thread.
    pub fn start(db: Db, bell: Arc<Bell>) -> Result<Self> {
        let (changes, receiver) = mpsc::channel(WAITING);
        let tx = Tx { db, wakes: BTreeSet::new(), waits: true };
        let thread = std::thread::Builder::new().name("store".to_owned()).spawn(move || write_all(tx, receiver, &bell));
        thread.map_err(|error| Error::io("a thread for the store", error))?;
        Ok(Self { changes })
    }

    /// Makes a change; returns when it is on the disk.
    ///
    /// Errors: its own; `Unavailable` if the transaction cannot be written: then nothing was changed.
    pub async fn write<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Tx) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.change(change, false).await
    }

    /// Makes a change that may be lost with the power without harm: it waits for no disk.
    ///
    /// Errors: as of [`write`](Self::write).
    pub async fn hint<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Tx) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.change(change, true).await
    }

    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Tx) -> Result<T> + Send + 'static,
        is_hint: bool,
    ) -> Result<T> {
        let (sender, answer) = oneshot::channel();
        let make: Make = Box::new(move |tx| {
            let result = tx.map(change);
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
        });
        self.changes.send(Change { make, is_hint }).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Unavailable, "the store is closed")
}

fn write_all(mut tx: Tx, mut changes: mpsc::Receiver<Change>, bell: &Bell) {
    let mut batch = Vec::new();
    while changes.blocking_recv_many(&mut batch, TOGETHER) > 0 {
        let (replies, failure) = write_some(&mut tx, std::mem::take(&mut batch));
        let wakes = std::mem::take(&mut tx.wakes);
        if failure.is_none() {
            bell.ring(&wakes);
        }
        for reply in replies {
            reply(failure.as_ref().map(copied));
        }
    }
}

/// What went wrong for several of those who asked.
fn copied(error: &Error) -> Error {
    let copy = Error::new(error.kind(), error.message());
    match error.remedy() {
        Some(remedy) => copy.hint(remedy),
        None => copy,
    }
}

/// Makes changes in one transaction: those who asked, and what went wrong for all of them.
fn write_some(tx: &mut Tx, mut changes: Vec<Change>) -> (Vec<Reply>, Option<Error>) {
    let mut replies = Vec::with_capacity(changes.len());
    let may_be_lost = changes.iter().all(|change| change.is_hint);
    let begun = tx.wait_for_the_disk(!may_be_lost).and_then(|()| tx.execute("begin immediate", ()));
    let written = match (begun, changes.pop()) {
        (Ok(_), Some(change)) if changes.is_empty() => write_one(tx, change, &mut replies),
        (begun, last) => {
            changes.extend(last);
            write_many(tx, begun.map(drop), changes, &mut replies)
        }
    };
    if written.is_err() {
        // SQLite may have rolled back by itself, as when the disk is full.
        let _ = tx.execute("rollback", ());
    }
    (replies, written.err())
}

/// Makes the only change of a transaction, and ends it.
fn write_one(tx: &mut Tx, change: Change, replies: &mut Vec<Reply>) -> Result<()> {
    let (good, reply) = (change.make)(Some(&mut *tx));
    replies.push(reply);
    if good {
        return tx.execute("commit", ()).map(drop);
    }
    tx.wakes.clear();
    // What fails here was rolled back by SQLite before.
    let _ = tx.execute("rollback", ());
    Ok(())
}

/// Makes several changes in a transaction that has begun, each of which fails alone, and ends it.
fn write_many(tx: &mut Tx, begun: Result<()>, changes: Vec<Change>, replies: &mut Vec<Reply>) -> Result<()> {
    let mut failure = begun.err();
    for change in changes {
        let before = tx.wakes.clone();
        if failure.is_none() {
            failure = tx.execute("savepoint change", ()).err();
        }
        let (good, reply) = (change.make)(if failure.is_none() { Some(&mut *tx) } else { None });
        replies.push(reply);
        if !good && failure.is_none() {
            tx.wakes = before;
            failure = tx.execute("rollback to change", ()).err();
        }
        if failure.is_none() {
            failure = tx.execute("release change", ()).err();
        }
    }
    match failure {
        None => tx.execute("commit", ()).map(drop),
        Some(failure) => Err(failure),
    }
}
