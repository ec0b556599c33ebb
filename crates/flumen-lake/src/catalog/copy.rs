//! A copy of one version of a table, for an environment that is about to write to it.
//!
//! Files of a table never change, so on a local disk the copy is made of hard links; in a bucket the store copies, and the
//! bytes do not pass through here. The log is copied up to that version: the copy has the same loads, versions and history.
//! Until the catalog names the folder nobody takes it for a table; one that was left half done is swept by vacuum.

use std::io;
use std::path::Path as FsPath;

use flumen_core::boxed;
use flumen_core::dataset::TableName;
use flumen_core::limits::LAKE_COPIES;
use flumen_core::load::Fence;
use flumen_core::{Error, Result};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};

use super::action::Action;
use super::names::{Writable, not_there};
use super::state::{Base, EnvEntry, Own, TableEntry};
use super::{Catalog, Located};
use crate::lake::{Table, delete_files, file_path};
use crate::ledger::version_in;
use crate::sink::LoadLock;

/// What was copied so that a table can be written to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copied {
    /// Data files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Whether they are links: then they take no space of their own.
    pub linked: bool,
}

impl Catalog {
    /// Gives `environment` a copy of `version` of `table` for its own, under `name`.
    #[boxed]
    pub(super) async fn copy_for(
        &self,
        environment: &str,
        name: &TableName,
        table: &Table,
        version: u64,
        entry: TableEntry,
    ) -> Result<Writable> {
        let base = Base { location: table.location().to_owned(), version };
        let copy = self.lake().table_at(&self.made_place(name), name)?;
        // Links are as old as what they link to: the lock tells vacuum that the copy is being made.
        let lock = copy.folder().map(|folder| LoadLock::take(folder, "copy", Fence(0), &copy.address())).transpose()?;
        let made = copy_table(table, version, &copy).await;
        let copied = match made {
            Ok(copied) => copied,
            Err(error) => {
                discard(&copy).await;
                return Err(error);
            }
        };
        let own = TableEntry { id: self.ids().next(), location: copy.location().to_owned(), pinned: None, ..entry };
        let state = self
            .change(&format!("copy {name} for {environment}"), |state| {
                let there = state.environment(environment)?.and_then(|there| there.entries.get(name));
                match there {
                    Some(EnvEntry::Pinned(pin)) if pin.location == base.location && pin.pinned == Some(version) => {
                        let own = Own { table: own.clone(), base: Some(base.clone()) };
                        Ok(vec![Action::PutEnvEntry {
                            environment: environment.to_owned(),
                            name: name.clone(),
                            entry: EnvEntry::Own(own),
                        }])
                    }
                    // Another writer has made a copy meanwhile.
                    Some(EnvEntry::Own(_)) => Ok(Vec::new()),
                    _ => Err(Error::conflict(format!(
                        "'{name}' has changed in the environment '{environment}' meanwhile"
                    ))
                    .hint("run the same command again")),
                }
            })
            .await;
        drop(lock);
        let located = match state {
            Ok(state) => self.locate(&state, environment, name),
            Err(error) => Err(error),
        };
        match located {
            Ok(Some(Located::Table { table, .. })) if table.location() == copy.location() => {
                Ok(Writable { table, copied: Some(copied) })
            }
            other => {
                discard(&copy).await;
                match other? {
                    Some(Located::Table { table, .. }) => Ok(Writable { table, copied: None }),
                    _ => Err(not_there(name)),
                }
            }
        }
    }
}

/// Copies `version` of `from` to the empty place `to`.
async fn copy_table(from: &Table, version: u64, to: &Table) -> Result<Copied> {
    let snapshot = from.snapshot_at(Some(version)).await?;
    let snapshot = snapshot.ok_or_else(|| not_there(from.name()))?;
    let files = snapshot.files()?;
    if let Some(file) = files.iter().find(|file| file.path.contains("://") || file.deletion_vector.is_some()) {
        return Err(Error::invalid(format!(
            "{}: the table cannot be copied, since another tool has made it in a way that a copy cannot keep ({})",
            from.address(),
            file.path
        ))
        .hint("copy its rows instead: create table … as select …"));
    }
    let mut copied = Copied { linked: from.folder().is_some(), ..Copied::default() };
    for file in &files {
        copied.files += 1;
        copied.bytes += file.size;
    }
    let data = files.iter().map(|file| file_path(&file.path));
    let log: Vec<ObjectMeta> = from
        .store()
        .list(Some(&Path::from("_delta_log")))
        .try_collect()
        .await
        .map_err(|error| from.store_error(error))?;
    let log = log.into_iter().map(|meta| meta.location).filter(|path| {
        let sidecar = path.as_ref().contains("/_sidecars/");
        sidecar || path.filename().and_then(version_in).is_some_and(|of| of <= version)
    });
    // The log comes last: until then there is nothing that could be taken for a table.
    for paths in [data.collect::<Vec<_>>(), log.collect()] {
        let copies = paths.into_iter().map(|path| copy_file(from.clone(), to.clone(), path));
        let linked = futures::stream::iter(copies).buffer_unordered(LAKE_COPIES).try_collect::<Vec<bool>>().await?;
        copied.linked &= linked.into_iter().all(|linked| linked);
    }
    match to.snapshot().await? {
        Some(copy) if copy.version() == version => Ok(copied),
        _ => Err(Error::internal(format!("{}: the copy of version {version} is not complete", from.address()))),
    }
}

/// Copies one file. Gives whether it is a link.
async fn copy_file(from: Table, to: Table, path: Path) -> Result<bool> {
    if let (Some(source), Some(target)) = (from.local_path(&path), to.local_path(&path)) {
        let work = tokio::task::spawn_blocking(move || {
            link(&source, &target).map_err(|error| Error::io(target.display(), error))
        });
        return work.await.map_err(|error| Error::internal("copying a file broke off").caused_by(error))?;
    }
    let (source, target) = (from.path_in_lake(&path)?, to.path_in_lake(&path)?);
    from.lake().store().copy(&source, &target).await.map_err(|error| from.store_error(error))?;
    Ok(false)
}

/// Links `target` to `source`, or copies it where the file system knows no links.
fn link(source: &FsPath, target: &FsPath) -> io::Result<bool> {
    if let Some(folder) = target.parent() {
        std::fs::create_dir_all(folder)?;
    }
    match std::fs::hard_link(source, target) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(error),
        Err(_) => std::fs::copy(source, target).map(|_| false),
    }
}

/// Removes a copy that is of no use. What stays behind is swept by vacuum.
async fn discard(copy: &Table) {
    let listed = copy.store().list(None).map_ok(|meta| meta.location).try_collect::<Vec<Path>>().await;
    if let Ok(listed) = listed {
        let _ = delete_files(copy, listed).await;
    }
    if let Some(folder) = copy.folder() {
        let _ = std::fs::remove_dir_all(folder);
    }
}
