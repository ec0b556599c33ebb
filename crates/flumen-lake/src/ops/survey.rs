//! What lies where in a lake: every folder, what it is to the catalog, and which of its versions somebody holds on to.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use flumen_core::Result;
use flumen_core::dataset::TableName;
use uuid::Uuid;

use crate::catalog::{Catalog, Entry, EnvEntry, Place, State, TableEntry, is_made};
use crate::lake::QUARANTINE;

/// A folder of a lake.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    /// What the table is called (or was); its folder, where it has no name.
    pub(crate) name: TableName,
    /// The folder within the root.
    pub(crate) location: String,
    /// What it is.
    pub(crate) role: Role,
    /// The versions that a pin holds on to.
    pub(crate) pins: BTreeSet<u64>,
    /// How long files of earlier versions are kept, if the catalog says so.
    pub(crate) keep_s: Option<u64>,
}

/// What a folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// A table, of `prod` or of an environment's own; or a place where one is about to be.
    Live,
    /// What was a table.
    Dropped {
        /// The id of its entry.
        id: Uuid,
        /// Since when.
        at: DateTime<Utc>,
    },
    /// What a copy left behind that came to nothing (or that is being made).
    Stray,
}

/// All folders of the lake of `catalog` that are, were or may become tables.
pub(crate) async fn sites(catalog: &Catalog, state: &State) -> Result<Vec<Site>> {
    let places = state.places();
    let pins = pins(state);
    let mut sites = BTreeMap::new();
    for namespace in catalog.lake().namespaces().await? {
        let root = catalog.lake().path(&namespace)?;
        for folder in catalog.lake().folders_in(&root).await? {
            let Ok(natural) = TableName::new(&namespace, &folder) else { continue };
            let location = format!("{namespace}/{folder}");
            // A quarantine is what its table is.
            let of = location.strip_suffix(QUARANTINE);
            let of = of.filter(|of| places.contains_key(of) && !places.contains_key(location.as_str()));
            let place = places.get(of.unwrap_or(&location));
            let name = |owner: &TableName| if of.is_some() { owner.quarantine() } else { owner.clone() };
            let (name, role) = match place {
                Some(Place::Volume) => continue,
                Some(Place::Table(owner)) => (name(owner), Role::Live),
                Some(Place::Own) => (natural, Role::Live),
                Some(Place::Dropped) => match dropped(state, of.unwrap_or(&location)) {
                    Some((owner, id, at)) => (name(&owner), Role::Dropped { id, at }),
                    None => continue,
                },
                None if is_made(of.unwrap_or(&folder)) || is_made(folder.trim_end_matches(QUARANTINE)) => {
                    (natural, Role::Stray)
                }
                None => (natural, Role::Live),
            };
            let pins = pins.get(location.as_str()).cloned().unwrap_or_default();
            let keep_s = entry_at(state, of.unwrap_or(&location)).and_then(|entry| match &entry.retention {
                Some(retention) if retention.column.is_none() => Some(retention.keep_s),
                _ => None,
            });
            sites.insert(location.clone(), Site { name, location, role, pins, keep_s });
        }
    }
    Ok(sites.into_values().collect())
}

fn dropped(state: &State, location: &str) -> Option<(TableName, Uuid, DateTime<Utc>)> {
    let found = state
        .dropped
        .iter()
        .find(|dropped| dropped.entry.as_table().is_some_and(|table| table.location == location))?;
    Some((found.name.clone(), found.entry.id(), found.at))
}

/// The entry of the table in the folder `location`.
pub(crate) fn entry_at<'a>(state: &'a State, location: &str) -> Option<&'a TableEntry> {
    let own = state.environments.values().flat_map(|environment| environment.entries.values());
    let own = own.filter_map(|entry| match entry {
        EnvEntry::Own(own) => Some(&own.table),
        _ => None,
    });
    state.entries.values().filter_map(Entry::as_table).chain(own).find(|table| table.location == location)
}

/// The versions that pins name, by folder.
fn pins(state: &State) -> BTreeMap<&str, BTreeSet<u64>> {
    let in_prod = state.entries.values().filter_map(Entry::as_table);
    let elsewhere = state.environments.values().flat_map(|environment| environment.entries.values());
    let elsewhere = elsewhere.filter_map(|entry| match entry {
        EnvEntry::Pinned(table) => Some(table),
        _ => None,
    });
    let mut pins: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    for table in in_prod.chain(elsewhere) {
        if let Some(version) = table.pinned {
            pins.entry(&table.location).or_default().insert(version);
        }
    }
    pins
}
