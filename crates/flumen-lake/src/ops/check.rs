//! Check: looks for whatever is not as it should be in a lake, and changes nothing.

use std::collections::{BTreeSet, HashMap};

use flumen_core::boxed;
use flumen_core::dataset::TableName;
use flumen_core::words::counted;
use flumen_core::{Error, Result};
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use serde::Serialize;

use super::read::footer;
use super::survey::{Role, Site, sites};
use super::vacuum::{head, is_data, list, staged};
use crate::catalog::{Catalog, Entry, State};
use crate::lake::{DataFile, Table, file_path};
use crate::ledger::version_in;

/// What is to be checked.
#[derive(Debug, Clone, Default)]
pub struct CheckOptions {
    /// Only these tables; the whole lake, if none.
    pub only: Vec<TableName>,
    /// Also read the end of every data file, and every file of a volume.
    pub deep: bool,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Rows cannot be read, or may be lost.
    Broken,
    /// Something is left over; vacuum removes it in time.
    Leftover,
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Where: a table, by its name, or a folder.
    pub place: String,
    /// What, in one sentence.
    pub what: String,
}

/// What a check looked at, and found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Tables.
    pub tables: u64,
    /// Data files.
    pub files: u64,
    /// What is not as it should be.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether something is broken.
    pub fn is_broken(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Broken)
    }

    fn broken(&mut self, place: impl ToString, what: impl Into<String>) {
        self.findings.push(Finding { severity: Severity::Broken, place: place.to_string(), what: what.into() });
    }

    fn leftover(&mut self, place: impl ToString, what: impl Into<String>) {
        self.findings.push(Finding { severity: Severity::Leftover, place: place.to_string(), what: what.into() });
    }
}

/// Checks the lake of `catalog`.
///
/// Errors: only those of the store itself; what cannot be understood is a finding.
#[boxed]
pub async fn check(catalog: &Catalog, options: &CheckOptions) -> Result<Report> {
    let mut report = Report::default();
    let state = match catalog.read().await {
        Ok(state) => state,
        Err(error) if is_of_store(&error) => return Err(error),
        Err(error) => {
            report.broken("catalog", error.message());
            return Ok(report);
        }
    };
    let sites = sites(catalog, &state).await?;
    for site in &sites {
        if options.only.is_empty() || options.only.contains(&site.name) {
            check_site(catalog, site, options, &mut report).await?;
        }
    }
    if options.only.is_empty() {
        check_catalog(catalog, &state, &sites, &mut report).await?;
        check_volumes(catalog, &state, options, &mut report).await?;
        for file in staged(catalog.lake()) {
            report.leftover(file.display(), "a writer was killed before it gave this file its name");
        }
    }
    report.findings.sort_by(|a, b| (a.severity, &a.place).cmp(&(b.severity, &b.place)));
    Ok(report)
}

fn is_of_store(error: &Error) -> bool {
    error.kind() == flumen_core::ErrorKind::Unavailable
}

async fn check_site(catalog: &Catalog, site: &Site, options: &CheckOptions, report: &mut Report) -> Result<()> {
    let table = catalog.lake().table_at(&site.location, &site.name)?;
    match site.role {
        Role::Stray => {
            report.leftover(&site.location, "a copy of a table was broken off here, or is being made");
            return Ok(());
        }
        Role::Dropped { .. } if site.pins.is_empty() => return Ok(()),
        _ => {}
    }
    report.tables += 1;
    let there: HashMap<String, u64> =
        list(&table).await?.into_iter().map(|file| (file.location.to_string(), file.size)).collect();
    check_log(&table, &there, report);
    let snapshot = match table.snapshot().await {
        Ok(snapshot) => snapshot,
        Err(error) if is_of_store(&error) => return Err(error),
        Err(error) => {
            report.broken(table.address(), error.message());
            return Ok(());
        }
    };
    let mut known = BTreeSet::new();
    let mut versions = vec![None];
    versions.extend(site.pins.iter().copied().map(Some));
    if let Some(snapshot) = snapshot {
        for version in versions {
            let pinned = match version {
                None => Ok(Some(snapshot.clone())),
                Some(_) => table.snapshot_at(version).await,
            };
            let files = match pinned {
                Ok(Some(pinned)) => pinned.files(),
                Ok(None) => continue,
                Err(error) => Err(error),
            };
            match files {
                Ok(files) => check_files(&table, files, &there, options, &mut known, report).await?,
                Err(error) => report.broken(
                    table.address(),
                    match version {
                        Some(version) => format!("version {version} is pinned, and cannot be read: {error}"),
                        None => error.to_string(),
                    },
                ),
            }
        }
        let state = deltalake_core::table::state::DeltaTableState::new(snapshot.state);
        let mut removed = state.all_tombstones(table.log.as_ref());
        while let Some(file) = removed.try_next().await.map_err(|error| table.error(error))? {
            known.insert(file_path(&file.path()).to_string());
        }
    }
    let orphans: Vec<u64> = there
        .iter()
        .filter(|(path, _)| is_data(path) && !known.contains(path.as_str()))
        .map(|(_, size)| *size)
        .collect();
    if !orphans.is_empty() {
        let (files, bytes) = (counted(orphans.len() as u64, "file"), counted(orphans.iter().sum(), "byte"));
        let are = if orphans.len() == 1 { "is" } else { "are" };
        let what = format!("{files} of {bytes} {are} of no version: a load left them, or is running");
        report.leftover(table.address(), what);
    }
    Ok(())
}

/// That the files of one version are there, and whole.
async fn check_files(
    table: &Table,
    files: Vec<DataFile>,
    there: &HashMap<String, u64>,
    options: &CheckOptions,
    known: &mut BTreeSet<String>,
    report: &mut Report,
) -> Result<()> {
    for file in files {
        if file.path.contains("://") || !known.insert(file_path(&file.path).to_string()) {
            continue;
        }
        report.files += 1;
        match there.get(file_path(&file.path).as_ref()) {
            // A load may have committed it after the folder was listed.
            None => match head(table, &file.path).await? {
                Some(size) if size == file.size => {}
                Some(size) => report.broken(table.address(), wrong_size(&file, size)),
                None => report.broken(table.address(), format!("the file {} is missing", file.path)),
            },
            Some(size) if *size != file.size => report.broken(table.address(), wrong_size(&file, *size)),
            Some(_) if options.deep => match footer(table, &file.path, file.size).await {
                Ok(_) => {}
                Err(error) if is_of_store(&error) => return Err(error),
                Err(error) => report.broken(table.address(), error.message()),
            },
            Some(_) => {}
        }
    }
    Ok(())
}

fn wrong_size(file: &DataFile, size: u64) -> String {
    format!("the file {} has {size} bytes, where the log says {}", file.path, file.size)
}

/// That the log has no gap.
fn check_log(table: &Table, there: &HashMap<String, u64>, report: &mut Report) {
    let of = |ending: &str| -> BTreeSet<u64> {
        let names = there.keys().filter_map(|path| path.strip_prefix("_delta_log/"));
        names.filter(|name| name.get(20..) == Some(ending)).filter_map(version_in).collect()
    };
    let commits = of(".json");
    let checkpoints: BTreeSet<u64> = there
        .keys()
        .filter_map(|path| path.strip_prefix("_delta_log/"))
        .filter(|name| name.contains(".checkpoint."))
        .filter_map(version_in)
        .collect();
    let Some(latest) = commits.last() else { return };
    let from = checkpoints.last().map_or(0, |version| version + 1);
    if let Some(missing) = (from..=*latest).find(|version| !commits.contains(version)) {
        report.broken(table.address(), format!("the log lacks version {missing}"));
    }
}

/// That what the catalog names is there.
async fn check_catalog(catalog: &Catalog, state: &State, sites: &[Site], report: &mut Report) -> Result<()> {
    for version in 1..=state.version {
        match catalog.commit(version).await {
            Ok(_) => {}
            Err(error) if is_of_store(&error) => return Err(error),
            Err(error) => report.broken("catalog", error.message()),
        }
    }
    let there: BTreeSet<&str> = sites.iter().map(|site| site.location.as_str()).collect();
    for (name, entry) in &state.entries {
        match entry {
            Entry::Table(table) if !there.contains(table.location.as_str()) => {
                report.leftover(
                    format!("lake.{name}"),
                    "the catalog has an entry, but nothing was loaded yet, or its folder is gone",
                );
            }
            _ => {}
        }
        let natural = crate::lake::location_of(name);
        let shadowed = entry.as_table().is_none_or(|table| table.location != natural)
            && there.contains(natural.as_str())
            && !state.places().contains_key(natural.as_str());
        if shadowed {
            report.broken(
                &natural,
                format!(
                    "the folder holds a table that cannot be named, since '{name}' means something else; rename that"
                ),
            );
        }
    }
    for dropped in &state.dropped {
        if let Some(table) = dropped.entry.as_table()
            && !there.contains(table.location.as_str())
        {
            report.leftover(&table.location, "a table was dropped here, and its folder is gone");
        }
    }
    Ok(())
}

async fn check_volumes(catalog: &Catalog, state: &State, options: &CheckOptions, report: &mut Report) -> Result<()> {
    for (name, volume) in &state.volumes {
        let place = catalog.lake().table_at(&volume.location, name)?;
        let there: HashMap<String, u64> =
            list(&place).await?.into_iter().map(|file| (file.location.to_string(), file.size)).collect();
        for (path, file) in &volume.files {
            report.files += 1;
            let address = format!("lake.{name}/{path}");
            match there.get(&file.object) {
                None => report.broken(address, "the file is missing"),
                Some(size) if *size != file.size => {
                    report.broken(address, format!("the file has {size} bytes, where the catalog says {}", file.size));
                }
                Some(_) if options.deep => {
                    let bytes = place.store().get(&Path::from(file.object.as_str())).await;
                    let mut stream = bytes.map_err(|error| place.store_error(error))?.into_stream();
                    let mut hasher = blake3::Hasher::new();
                    while let Some(bytes) = stream.try_next().await.map_err(|error| place.store_error(error))? {
                        hasher.update(&bytes);
                    }
                    if super::volume::checksum(&hasher) != file.checksum {
                        report.broken(address, "the file has other contents than when it was put there");
                    }
                }
                Some(_) => {}
            }
        }
        let known: BTreeSet<&str> = volume.files.values().map(|file| file.object.as_str()).collect();
        let orphans = there.keys().filter(|path| !known.contains(path.as_str())).count();
        if orphans > 0 {
            report.leftover(format!("lake.{name}"), format!("{} of no entry", counted(orphans as u64, "file")));
        }
    }
    Ok(())
}
