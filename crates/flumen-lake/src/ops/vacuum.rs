//! Vacuum: removes the files that nobody needs any more. What always holds:
//!
//! - A file of the latest version, or of a version that a pin names, stays.
//! - A file that was removed from its table stays as long as the retention says: until then earlier versions can be read,
//!   and a load can be taken back.
//! - A file that no log names stays while it may belong to a load that runs: as long as the load's lock is held, and where
//!   there are no locks, until it is older than any load is.
//! - The folder of a dropped table stays as long as the retention says, and as long as a pin names one of its versions.
//!
//! The files are listed before the log is read: a file that a load commits in between is in the log then.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use chrono::{DateTime, Utc};
use deltalake_core::table::state::DeltaTableState;
use flumen_core::boxed;
use flumen_core::dataset::TableName;
use flumen_core::limits::{LAKE_RETENTION, ORPHAN_AGE};
use flumen_core::{Error, Result};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};
use serde::Serialize;
use uuid::Uuid;

use super::survey::{Role, Site, sites};
use crate::catalog::{Action, Catalog, State};
use crate::lake::{Lake, Table, delete_files, file_path, store_error};
use crate::sink::LoadLock;

/// What is to be vacuumed, and how.
#[derive(Debug, Clone, Default)]
pub struct VacuumOptions {
    /// Only these tables; the whole lake, if none.
    pub only: Vec<TableName>,
    /// How long what was removed is kept, in seconds, in place of what the tables and the default say.
    pub retain_s: Option<u64>,
    /// Only tell what would go.
    pub dry_run: bool,
}

/// What went from one place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Vacuumed {
    /// The place: a table, by its name, or a folder.
    pub place: String,
    /// What was there: `removed rows`, `orphans`, `dropped table`, `broken-off copy`, `volume`.
    pub what: &'static str,
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Vacuumed {
    fn of(place: impl ToString, what: &'static str, files: &[ObjectMeta]) -> Option<Self> {
        let bytes = files.iter().map(|file| file.size).sum();
        (!files.is_empty()).then(|| Self { place: place.to_string(), what, files: files.len() as u64, bytes })
    }
}

/// Vacuums the lake of `catalog`.
///
/// Errors: those of the first log that cannot be read; what was removed before stays removed.
#[boxed]
pub async fn vacuum(catalog: &Catalog, options: &VacuumOptions) -> Result<Vec<Vacuumed>> {
    let state = catalog.read().await?;
    let now = catalog.clock().now();
    let mut done = Vec::new();
    let run = Run { catalog, options, now };
    let mut going: BTreeMap<Uuid, (TableName, Vec<Site>)> = BTreeMap::new();
    for site in sites(catalog, &state).await? {
        if !options.only.is_empty() && !options.only.contains(&site.name) {
            continue;
        }
        match site.role {
            Role::Live => done.extend(run.table(&site).await?),
            Role::Stray => done.extend(run.stray(&site).await?),
            Role::Dropped { id, at } if run.expired(at, site.keep_s) && site.pins.is_empty() => {
                going.entry(id).or_insert_with(|| (site.name.clone(), Vec::new())).1.push(site);
            }
            // Somebody may want it back, or looks at it still.
            Role::Dropped { .. } => {}
        }
    }
    for (id, (name, sites)) in going {
        done.extend(run.dropped(id, &name, &sites).await?);
    }
    if options.only.is_empty() {
        done.extend(run.volumes(&state).await?);
        run.forget_gone(&state).await?;
        if !options.dry_run {
            remove_staged(catalog.lake(), now);
        }
    }
    Ok(done)
}

struct Run<'a> {
    catalog: &'a Catalog,
    options: &'a VacuumOptions,
    now: DateTime<Utc>,
}

impl Run<'_> {
    fn keep_s(&self, of_table: Option<u64>) -> u64 {
        self.options.retain_s.or(of_table).unwrap_or(LAKE_RETENTION.as_secs())
    }

    fn expired(&self, at: DateTime<Utc>, of_table: Option<u64>) -> bool {
        older(self.now, at, self.keep_s(of_table))
    }

    async fn table(&self, site: &Site) -> Result<Vec<Vacuumed>> {
        let table = self.catalog.lake().table_at(&site.location, &site.name)?;
        let listed = list(&table).await?;
        let Needed { files, removed } = needed(&table, site).await?;
        let keep_s = self.keep_s(site.keep_s.or(property_s(&table).await?));
        let mut locks = Locks::default();
        let (mut expired, mut orphans) = (Vec::new(), Vec::new());
        for file in listed {
            let path = file.location.as_ref();
            if files.contains(path) || !is_data(path) {
                continue;
            }
            match removed.get(path) {
                Some(at) if older(self.now, *at, keep_s) => expired.push(file),
                Some(_) => {}
                None if self.is_orphan(&table, &file, keep_s, &mut locks)? => orphans.push(file),
                None => {}
            }
        }
        let mut done = Vec::new();
        for (what, files) in [("removed rows", expired), ("orphans", orphans)] {
            done.extend(Vacuumed::of(table.address(), what, &files));
            if !self.options.dry_run {
                delete_files(&table, files.into_iter().map(|file| file.location).collect()).await?;
            }
        }
        if !self.options.dry_run {
            locks.remove_dead(&table);
        }
        Ok(done)
    }

    /// Whether no load can be writing the file, which no log names.
    fn is_orphan(&self, table: &Table, file: &ObjectMeta, keep_s: u64, locks: &mut Locks) -> Result<bool> {
        match locks.of(table, &file.location)? {
            Lock::Held => Ok(false),
            Lock::Dead => Ok(true),
            Lock::None => Ok(older(self.now, file.last_modified, keep_s.max(ORPHAN_AGE.as_secs()))),
        }
    }

    /// A copy that came to nothing.
    async fn stray(&self, site: &Site) -> Result<Option<Vacuumed>> {
        let table = self.catalog.lake().table_at(&site.location, &site.name)?;
        let files = list(&table).await?;
        let dead = match Locks::default().of(&table, &Path::from(".lock"))? {
            Lock::Held => false,
            Lock::Dead => true,
            Lock::None => files.iter().all(|file| older(self.now, file.last_modified, ORPHAN_AGE.as_secs())),
        };
        // The catalog may have come to know it since it was read.
        if !dead || self.catalog.read().await?.places().contains_key(site.location.as_str()) {
            return Ok(None);
        }
        if !self.options.dry_run {
            delete_folder(&table, &files).await?;
        }
        Ok(Vacuumed::of(&site.location, "broken-off copy", &files))
    }

    /// What was a table. Its entry is marked first, so that nobody brings half of it back, and goes last, so that nobody
    /// takes the rest for a table.
    async fn dropped(&self, id: Uuid, name: &TableName, sites: &[Site]) -> Result<Vec<Vacuumed>> {
        if !self.options.dry_run {
            let marked = self
                .catalog
                .change(&format!("vacuum {name}"), |state| {
                    let dropped = state.dropped.iter().find(|dropped| dropped.entry.id() == id);
                    Ok(match dropped {
                        Some(dropped) if !dropped.removing => {
                            vec![Action::PutDropped(crate::catalog::Dropped { removing: true, ..dropped.clone() })]
                        }
                        _ => Vec::new(),
                    })
                })
                .await?;
            // Brought back, or pinned, since it was looked at.
            if !marked.dropped.iter().any(|dropped| dropped.entry.id() == id) {
                return Ok(Vec::new());
            }
        }
        let mut done = Vec::new();
        for site in sites {
            let table = self.catalog.lake().table_at(&site.location, &site.name)?;
            let files = list(&table).await?;
            done.extend(Vacuumed::of(format!("lake.{}", site.name), "dropped table", &files));
            if !self.options.dry_run {
                delete_folder(&table, &files).await?;
            }
        }
        if !self.options.dry_run {
            self.forget(id, name).await?;
        }
        Ok(done)
    }

    async fn forget(&self, id: Uuid, name: &TableName) -> Result<()> {
        let forget = |state: &State| {
            let there = state.dropped.iter().any(|dropped| dropped.entry.id() == id);
            Ok(if there { vec![Action::RemoveDropped { id }] } else { Vec::new() })
        };
        self.catalog.change(&format!("vacuumed {name}"), forget).await.map(drop)
    }

    /// Forgets what was dropped and has no folder: views, and tables whose folder is gone.
    async fn forget_gone(&self, state: &State) -> Result<()> {
        if self.options.dry_run {
            return Ok(());
        }
        for dropped in state.dropped.iter().filter(|dropped| self.expired(dropped.at, None)) {
            let gone = match dropped.entry.as_table() {
                None => true,
                Some(table) => {
                    let table = self.catalog.lake().table_at(&table.location, &dropped.name)?;
                    list(&table).await?.is_empty()
                }
            };
            if gone {
                self.forget(dropped.entry.id(), &dropped.name).await?;
            }
        }
        Ok(())
    }

    /// Objects of volumes that no entry names: those of files that were replaced, or taken out, or never came to be.
    async fn volumes(&self, state: &State) -> Result<Vec<Vacuumed>> {
        let mut done = Vec::new();
        for (name, volume) in &state.volumes {
            let place = self.catalog.lake().table_at(&volume.location, name)?;
            let known: HashSet<&str> = volume.files.values().map(|file| file.object.as_str()).collect();
            let mut files = list(&place).await?;
            files.retain(|file| {
                !known.contains(file.location.as_ref()) && older(self.now, file.last_modified, ORPHAN_AGE.as_secs())
            });
            done.extend(Vacuumed::of(format!("lake.{name}"), "volume", &files));
            if !self.options.dry_run {
                delete_files(&place, files.into_iter().map(|file| file.location).collect()).await?;
            }
        }
        Ok(done)
    }
}

/// What a table's log says about its files.
struct Needed {
    /// The files of the latest version and of those that are pinned.
    files: HashSet<String>,
    /// Other files that the log knows, and when they were removed.
    removed: HashMap<String, DateTime<Utc>>,
}

async fn needed(table: &Table, site: &Site) -> Result<Needed> {
    let mut needed = Needed { files: HashSet::new(), removed: HashMap::new() };
    let Some(snapshot) = table.snapshot().await? else { return Ok(needed) };
    let versions: BTreeSet<u64> = site.pins.iter().copied().filter(|pin| *pin != snapshot.version()).collect();
    let mut snapshots = vec![snapshot.clone()];
    for version in versions {
        let pinned = table.snapshot_at(Some(version)).await.map_err(|error| {
            Error::new(
                error.kind(),
                format!("{}: version {version} is pinned, and cannot be read: {error}", table.address()),
            )
            .hint("'flumen lake check' tells more; nothing was removed from this table")
        })?;
        snapshots.extend(pinned);
    }
    for snapshot in &snapshots {
        needed.files.extend(snapshot.files()?.into_iter().map(|file| file_path(&file.path).to_string()));
    }
    let state = DeltaTableState::new(snapshot.state);
    let mut removed = state.all_tombstones(table.log.as_ref());
    while let Some(file) = removed.try_next().await.map_err(|error| table.error(error))? {
        // Another tool need not say when: then it is as if it were now.
        let at =
            file.deletion_timestamp().and_then(DateTime::from_timestamp_millis).unwrap_or(DateTime::<Utc>::MAX_UTC);
        needed.removed.insert(file_path(&file.path()).to_string(), at);
    }
    Ok(needed)
}

/// Whether a file may hold rows, or is what writing rows leaves behind. Everything else is left alone.
pub(crate) fn is_data(path: &str) -> bool {
    path.ends_with(".parquet") && !path.starts_with("_delta_log/") && !path.starts_with("_flumen")
}

fn older(now: DateTime<Utc>, at: DateTime<Utc>, seconds: u64) -> bool {
    (now - at).num_seconds() >= i64::try_from(seconds).unwrap_or(i64::MAX)
}

/// The retention that the table's own properties ask for, in seconds.
async fn property_s(table: &Table) -> Result<Option<u64>> {
    let snapshot = table.snapshot().await?;
    let text = snapshot.as_ref().and_then(|snapshot| snapshot.property("delta.deletedFileRetentionDuration"));
    Ok(text.and_then(interval_s))
}

/// `interval 2 weeks`, as Delta writes it.
fn interval_s(text: &str) -> Option<u64> {
    let mut words = text.trim().trim_start_matches("interval").split_whitespace();
    let number: u64 = words.next()?.parse().ok()?;
    let unit = match words.next()?.trim_end_matches('s') {
        "second" => 1,
        "minute" => 60,
        "hour" => 3_600,
        "day" => 86_400,
        "week" => 604_800,
        _ => return None,
    };
    number.checked_mul(unit)
}

pub(crate) async fn list(table: &Table) -> Result<Vec<ObjectMeta>> {
    match table.store().list(None).try_collect().await {
        Ok(listed) => Ok(listed),
        Err(object_store::Error::NotFound { .. }) => Ok(Vec::new()),
        Err(error) => Err(table.store_error(error)),
    }
}

async fn delete_folder(table: &Table, files: &[ObjectMeta]) -> Result<()> {
    delete_files(table, files.iter().map(|file| file.location.clone()).collect()).await?;
    if let Some(folder) = table.folder() {
        // Empty folders, and what a listing does not show.
        match std::fs::remove_dir_all(folder) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io(folder.display(), error)),
        }
    }
    Ok(())
}

/// What is known of whoever writes into a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lock {
    /// Somebody does.
    Held,
    /// Somebody did, and is gone.
    Dead,
    /// Nothing.
    None,
}

/// The locks of the folders of one table, each looked at once.
#[derive(Default)]
struct Locks {
    known: HashMap<String, Lock>,
}

impl Locks {
    fn of(&mut self, table: &Table, file: &Path) -> Result<Lock> {
        let top = file.parts().next().map(|part| part.as_ref().to_owned()).unwrap_or_default();
        let folder = if file.parts().count() > 1 { top } else { String::new() };
        if let Some(known) = self.known.get(&folder) {
            return Ok(*known);
        }
        let lock = match table.folder().map(|root| root.join(&folder)) {
            Some(place) => match LoadLock::state(&place) {
                Ok(Some(true)) => Lock::Held,
                Ok(Some(false)) => Lock::Dead,
                Ok(None) => Lock::None,
                Err(error) => return Err(Error::io(place.display(), error)),
            },
            None => Lock::None,
        };
        self.known.insert(folder, lock);
        Ok(lock)
    }

    /// Removes the locks that nobody holds, with the folders that are empty now.
    fn remove_dead(&self, table: &Table) {
        let Some(root) = table.folder() else { return };
        for (folder, lock) in &self.known {
            if *lock == Lock::Dead && !folder.is_empty() {
                // What stays is there the next time.
                let _ = LoadLock::remove_dead(&root.join(folder));
            }
        }
    }
}

/// Removes what a killed writer of a log left on a local disk: files that it had not given their name yet.
fn remove_staged(lake: &Lake, now: DateTime<Utc>) {
    for file in staged(lake) {
        let age = std::fs::metadata(&file).and_then(|metadata| metadata.modified()).map(DateTime::<Utc>::from);
        if age.is_ok_and(|at| older(now, at, ORPHAN_AGE.as_secs())) {
            let _ = std::fs::remove_file(file);
        }
    }
}

/// The files in the logs of a lake on a local disk that a killed writer left there.
pub(crate) fn staged(lake: &Lake) -> Vec<std::path::PathBuf> {
    let Some(root) = lake.folder() else { return Vec::new() };
    let folders = |path: &std::path::Path| -> Vec<std::path::PathBuf> {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
    };
    let tables = folders(root).into_iter().flat_map(|namespace| folders(&namespace));
    let logs = tables.map(|table| table.join("_delta_log")).chain([root.join("_flumen").join("catalog")]);
    let mut staged = Vec::new();
    for log in logs {
        let entries = std::fs::read_dir(log).into_iter().flatten().flatten();
        // The local store writes `NAME#1` and then gives it its name.
        let unnamed = entries.filter(|entry| entry.file_name().to_string_lossy().contains('#'));
        staged.extend(unnamed.map(|entry| entry.path()));
    }
    staged
}

/// Whether an object is there. Gives its bytes.
pub(crate) async fn head(table: &Table, path: &str) -> Result<Option<u64>> {
    match table.store().head(&file_path(path)).await {
        Ok(found) => Ok(Some(found.size)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(store_error(table.address(), error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_read_as_delta_writes_them() {
        assert_eq!(interval_s("interval 2 weeks"), Some(1_209_600));
        assert_eq!(interval_s("interval 1 hour"), Some(3_600));
        assert_eq!(interval_s("7 days"), Some(604_800));
        assert_eq!(interval_s("sometime"), None);
    }
}
