//! The metadata in a SQLite file: for one machine, with any number of processes.
//!
//! - `db.rs`: connections, and those that read. `migrations.rs`: how the tables came to be.
//! - `writer.rs`: the one connection that writes: many changes in one durable transaction.
//! - `runs.rs`, `queue.rs`, `leases.rs`, `objects.rs`: what changes look like, by what they are about.
//! - `reads.rs`: looking. `meta.rs`: the seam, put together from these. `users.rs`: users.

mod db;
mod leases;
mod meta;
mod migrations;
mod objects;
mod queue;
mod reads;
mod runs;
mod users;
mod writer;

use std::path::Path;
use std::sync::Arc;

use flumen_core::boxed;
use flumen_core::{Error, Result};
use rusqlite::params;

use db::{Db, Readers};
use writer::Writer;

use crate::bell::Bell;

/// A store in a file. Clones are the same store.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    readers: Arc<Readers>,
    writer: Writer,
    bell: Arc<Bell>,
}

impl SqliteStore {
    /// The store in the file at `path`, which is made where it is missing, with its folder, for its owner's eyes only.
    ///
    /// Errors: those of the file system; `Invalid` for a file that a newer version of Flumen has changed.
    #[boxed]
    pub async fn open(path: &Path) -> Result<Self> {
        let path = path.to_owned();
        let opening = tokio::task::spawn_blocking(move || Self::open_here(&path));
        opening.await.map_err(|error| Error::internal("the store could not be opened").caused_by(error))?
    }

    /// Brings the file at `path` to this version, and closes it: all of it is in the one file then.
    ///
    /// Errors: as for [`SqliteStore::open`].
    #[boxed]
    pub async fn upgrade(path: &Path) -> Result<()> {
        let path = path.to_owned();
        let upgrading = tokio::task::spawn_blocking(move || Self::ready(&path).map(drop));
        upgrading.await.map_err(|error| Error::internal("the store could not be opened").caused_by(error))?
    }

    fn open_here(path: &Path) -> Result<Self> {
        let db = Self::ready(path)?;
        let bell = Arc::new(Bell::at(path));
        let writer = Writer::start(db, Arc::clone(&bell))?;
        let place: Arc<str> = path.display().to_string().into();
        Ok(Self { readers: Arc::new(Readers::new(path, &place)), writer, bell })
    }

    /// A connection to the file, which has the tables of this version.
    fn ready(path: &Path) -> Result<Db> {
        let place: Arc<str> = path.display().to_string().into();
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| Error::io(folder.display(), error))?;
        }
        // Those who make the tables of a new file take turns.
        let opening = opening(path)?;
        private(path)?;
        let db = Db::open(path, &place)?;
        migrations::migrate(&db, &place)?;
        drop(opening);
        Ok(db)
    }

    /// Copies the store to a file that is not there yet, as it is at one moment.
    ///
    /// Errors: those of the disk.
    #[boxed]
    pub async fn backup(&self, to: &Path) -> Result<()> {
        private(to)?;
        let to = to.to_string_lossy().into_owned();
        let copied = self.readers.read(move |db| db.execute("vacuum into ?", params![to])).await;
        copied.map(drop)
    }
}

/// A lock that is held while a store is opened, given back with the file.
fn opening(path: &Path) -> Result<std::fs::File> {
    let mut name = path.as_os_str().to_owned();
    // A file of its own: to close one of the store's would take back the locks that SQLite has on it.
    name.push("-opening");
    let file = std::fs::OpenOptions::new().create(true).append(true).open(&name);
    let locked = file.and_then(|file| file.lock().map(|()| file));
    locked.map_err(|error| Error::io(name.to_string_lossy(), error))
}

/// Makes the file readable for its owner only, before anything is in it.
#[cfg(unix)]
fn private(path: &Path) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let made = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path);
    made.map(drop).map_err(|error| Error::io(path.display(), error))
}

#[cfg(not(unix))]
fn private(_path: &Path) -> Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_keeps_the_contract() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("in/flumen.db");
        let store = SqliteStore::open(&path).await.expect("made");
        let again = SqliteStore::open(&path).await.expect("opened");
        flumen_core::testkit::user_store(&store, &again).await;
        flumen_core::testkit::meta_store(&store, &again).await;
    }

    #[tokio::test]
    async fn a_file_of_a_newer_version_is_left_alone() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("flumen.db");
        let store = SqliteStore::open(&path).await.expect("made");
        let newer = "insert into _sqlx_migrations (version, description, success, checksum, execution_time) \
                     values (99, 'x', true, x'00', 0)";
        store.writer.write(move |tx| tx.execute(newer, ())).await.expect("done");
        let error = SqliteStore::open(&path).await.expect_err("newer");
        assert!(error.to_string().contains("newer version"), "{error}");
    }

    #[tokio::test]
    async fn a_version_goes_on_beside_a_newer_one_that_only_adds_to_the_file() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("flumen.db");
        let store = SqliteStore::open(&path).await.expect("made");
        let of_ours = "select name from sqlite_master where type = 'table' and name not like 'sqlite%' and name not like '%sqlx%'";
        let tables = store.readers.read(move |db| db.rows(of_ours, (), |row| row.get::<_, String>(0))).await;
        let tables = tables.expect("read");
        assert!(tables.contains(&"runs".to_owned()), "{tables:?}");
        let columns = tables.iter().map(|table| format!("alter table {table} add column more_of_it text default 'x'"));
        let noted = "insert into _sqlx_migrations (version, description, success, checksum, execution_time) \
                     values (99, 'expand more', true, x'00', 0)";
        for change in columns.chain(["create table extra (more text)".to_owned(), noted.to_owned()]) {
            store.writer.write(move |tx| tx.execute(&change, ())).await.expect("done");
        }
        let again = SqliteStore::open(&path).await.expect("opened");
        flumen_core::testkit::user_store(&store, &again).await;
        flumen_core::testkit::meta_store(&store, &again).await;
    }

    #[tokio::test]
    async fn many_may_open_a_new_file_at_once() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("flumen.db");
        let opened = futures::future::join_all((0..16).map(|_| SqliteStore::open(&path))).await;
        assert_eq!(
            opened.into_iter().filter_map(Result::err).map(|error| error.to_string()).collect::<Vec<_>>(),
            [""; 0]
        );
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn nobody_else_can_read_the_file() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("flumen.db");
        SqliteStore::open(&path).await.expect("made");
        let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{mode:o}");
    }
}
