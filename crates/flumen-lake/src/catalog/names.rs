//! What a name means, and how names move: rename, drop, bring back.

use std::collections::{BTreeSet, HashMap};

use flumen_core::boxed;
use flumen_core::dataset::TableName;
use flumen_core::{Error, Result};
use futures::future::BoxFuture;
use uuid::Uuid;

use super::action::Action;
use super::copy::Copied;
use super::state::{
    Base, Dropped, Entry, EnvEntry, Environment, ExternalEntry, Kind, Own, PROD, State, TableEntry, ViewEntry,
};
use super::{Catalog, Listed, Located};
use crate::lake::{QUARANTINE, Table, location_of};

/// Changes what is said about a name.
type Edit<'a> = Box<dyn FnMut(&mut Entry) -> Result<()> + Send + 'a>;

/// What a name means, as far as the catalog knows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Meaning<'a> {
    /// A table with an entry.
    Table(&'a TableEntry),
    /// A view.
    View(&'a ViewEntry),
    /// Files, or a table, that somebody else keeps.
    External(&'a ExternalEntry),
    /// The quarantine of a table with an entry: the folder beside it.
    Beside(String),
    /// The folder of that name, if it is a table.
    Folder,
    /// Nothing.
    Nothing,
}

/// Who claims a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// A table of `prod`, by its name.
    Table(TableName),
    /// A table of an environment's own.
    Own,
    /// What was a table.
    Dropped,
    /// A volume.
    Volume,
}

impl State {
    /// The environment called `name`; `None` for `prod`.
    ///
    /// Errors: `NotFound`, with the nearest name.
    pub fn environment(&self, name: &str) -> Result<Option<&Environment>> {
        if name == PROD {
            return Ok(None);
        }
        self.environments.get(name).map(Some).ok_or_else(|| {
            Error::not_found(format!("there is no environment '{name}'"))
                .hint("'flumen env list' shows those there are; 'flumen env create' makes one")
                .did_you_mean(name, self.environments.keys().map(String::as_str).chain([PROD]))
        })
    }

    /// The entry of `name` in `environment`, if there is one.
    ///
    /// Errors: `NotFound` if there is no such environment.
    pub fn entry(&self, environment: &str, name: &TableName) -> Result<Option<Entry>> {
        Ok(match self.meaning(environment, name)? {
            Meaning::Table(table) => Some(Entry::Table(table.clone())),
            Meaning::View(view) => Some(Entry::View(view.clone())),
            Meaning::External(external) => Some(Entry::External(external.clone())),
            _ => None,
        })
    }

    pub(crate) fn meaning(&self, environment: &str, name: &TableName) -> Result<Meaning<'_>> {
        let known = |name: &TableName| -> Result<Option<Meaning<'_>>> {
            Ok(match self.environment(environment)? {
                None => self.entries.get(name).map(|entry| match entry {
                    Entry::Table(table) => Meaning::Table(table),
                    Entry::View(view) => Meaning::View(view),
                    Entry::External(external) => Meaning::External(external),
                }),
                Some(environment) => environment.entries.get(name).map(|entry| match entry {
                    EnvEntry::Pinned(table) | EnvEntry::Own(Own { table, .. }) => Meaning::Table(table),
                    EnvEntry::View(view) => Meaning::View(view),
                    EnvEntry::External(external) => Meaning::External(external),
                    EnvEntry::Dropped(_) => Meaning::Nothing,
                }),
            })
        };
        if let Some(meaning) = known(name)? {
            return Ok(meaning);
        }
        if let Some(of) = name.table.strip_suffix(QUARANTINE)
            && let Ok(of) = TableName::new(&name.namespace, of)
            && let Some(Meaning::Table(table)) = known(&of)?
        {
            return Ok(Meaning::Beside(format!("{}{QUARANTINE}", table.location)));
        }
        if environment != PROD || super::is_made(&name.table) {
            return Ok(Meaning::Nothing);
        }
        let places = self.places();
        let natural = location_of(name);
        let beside = natural.strip_suffix(QUARANTINE).unwrap_or(&natural);
        let claimed = places.contains_key(natural.as_str()) || places.contains_key(beside);
        Ok(if claimed { Meaning::Nothing } else { Meaning::Folder })
    }

    /// The names that the catalog itself knows in `environment`.
    pub(super) fn known(&self, environment: &str) -> Result<BTreeSet<Listed>> {
        let listed = |name: &TableName, kind| Listed { name: name.clone(), kind };
        Ok(match self.environment(environment)? {
            None => self.entries.iter().map(|(name, entry)| listed(name, entry.kind())).collect(),
            Some(environment) => environment
                .entries
                .iter()
                .filter_map(|(name, entry)| match entry {
                    EnvEntry::Pinned(_) | EnvEntry::Own(_) => Some(listed(name, Kind::Table)),
                    EnvEntry::View(_) => Some(listed(name, Kind::View)),
                    EnvEntry::External(_) => Some(listed(name, Kind::External)),
                    EnvEntry::Dropped(_) => None,
                })
                .collect(),
        })
    }

    /// The folders that somebody claims. A pin claims nothing: what it names is a table of `prod`, or was one.
    pub(crate) fn places(&self) -> HashMap<&str, Place> {
        let mut places = HashMap::new();
        for dropped in &self.dropped {
            if let Some(table) = dropped.entry.as_table() {
                places.insert(table.location.as_str(), Place::Dropped);
            }
        }
        for entry in self.environments.values().flat_map(|environment| environment.entries.values()) {
            if let EnvEntry::Own(own) = entry {
                places.insert(own.table.location.as_str(), Place::Own);
            }
        }
        for volume in self.volumes.values() {
            places.insert(volume.location.as_str(), Place::Volume);
        }
        for (name, entry) in &self.entries {
            if let Some(table) = entry.as_table() {
                places.insert(table.location.as_str(), Place::Table(name.clone()));
            }
        }
        places
    }

    /// The action by which `name` means `entry` in `environment` from now on.
    pub fn put(&self, environment: &str, name: &TableName, entry: Entry) -> Result<Action> {
        let Some(there) = self.environment(environment)? else {
            return Ok(Action::PutEntry { name: name.clone(), entry });
        };
        let base = there.entries.get(name).and_then(base_of);
        let entry = match (entry, there.entries.get(name)) {
            // What is said about a pinned table does not unpin it.
            (Entry::Table(table), Some(EnvEntry::Pinned(pin))) if pin.location == table.location => {
                EnvEntry::Pinned(table)
            }
            (Entry::Table(table), _) => EnvEntry::Own(Own { table, base }),
            (Entry::View(view), _) => EnvEntry::View(view),
            (Entry::External(external), _) => EnvEntry::External(external),
        };
        Ok(Action::PutEnvEntry { environment: environment.to_owned(), name: name.clone(), entry })
    }

    /// The actions by which `name` means nothing in `environment` from now on. What was its table can be brought back.
    /// `unregistered` is the entry for a table that the catalog does not know, but that is there.
    pub fn remove(
        &self,
        environment: &str,
        name: &TableName,
        unregistered: Option<&TableEntry>,
        at: chrono::DateTime<chrono::Utc>,
        why: &str,
    ) -> Result<Vec<Action>> {
        let dropped = |entry: Entry| {
            let environment = environment.to_owned();
            Action::PutDropped(Dropped {
                name: name.clone(),
                entry,
                environment,
                at,
                why: why.to_owned(),
                removing: false,
            })
        };
        let Some(there) = self.environment(environment)? else {
            return match self.entries.get(name) {
                Some(entry) => Ok(vec![Action::RemoveEntry { name: name.clone() }, dropped(entry.clone())]),
                None => match unregistered {
                    Some(entry) => Ok(vec![dropped(Entry::Table(entry.clone()))]),
                    None => Err(not_there(name)),
                },
            };
        };
        let entry = there.entries.get(name).ok_or_else(|| not_there(name))?;
        let mut actions = match base_of(entry).or_else(|| self.base_in_prod(name, entry)) {
            Some(base) => vec![Action::PutEnvEntry {
                environment: environment.to_owned(),
                name: name.clone(),
                entry: EnvEntry::Dropped(base),
            }],
            None => vec![Action::RemoveEnvEntry { environment: environment.to_owned(), name: name.clone() }],
        };
        if let EnvEntry::Own(own) = entry {
            actions.push(dropped(Entry::Table(own.table.clone())));
        }
        Ok(actions)
    }

    /// The actions by which what is called `from` is called `to`, and nothing else changes. `unregistered` as in
    /// [`State::remove`].
    ///
    /// Errors: `Conflict` if there is a `to` already; `NotFound` if there is no `from`.
    pub fn rename(
        &self,
        environment: &str,
        from: &TableName,
        to: &TableName,
        unregistered: Option<&TableEntry>,
    ) -> Result<Vec<Action>> {
        if self.entry(environment, to)?.is_some() {
            return Err(taken(to));
        }
        let Some(there) = self.environment(environment)? else {
            let entry = match (self.entries.get(from), unregistered) {
                (Some(entry), _) => entry.clone(),
                (None, Some(entry)) => Entry::Table(entry.clone()),
                (None, None) => return Err(not_there(from)),
            };
            let mut actions = Vec::new();
            if self.entries.contains_key(from) {
                actions.push(Action::RemoveEntry { name: from.clone() });
            }
            actions.push(Action::PutEntry { name: to.clone(), entry });
            return Ok(actions);
        };
        let entry = there.entries.get(from).ok_or_else(|| not_there(from))?;
        let environment = environment.to_owned();
        let left = match base_of(entry) {
            Some(base) => Action::PutEnvEntry {
                environment: environment.clone(),
                name: from.clone(),
                entry: EnvEntry::Dropped(base),
            },
            None => Action::RemoveEnvEntry { environment: environment.clone(), name: from.clone() },
        };
        Ok(vec![left, Action::PutEnvEntry { environment, name: to.clone(), entry: entry.clone() }])
    }

    /// Publishing an environment without a view of `prod` is to drop it there: what is no table has no place.
    fn base_in_prod(&self, name: &TableName, entry: &EnvEntry) -> Option<Base> {
        let id = match entry {
            EnvEntry::View(view) => view.id,
            EnvEntry::External(external) => external.id,
            _ => return None,
        };
        let same = self.entries.get(name).is_some_and(|there| there.id() == id);
        same.then(|| Base { location: String::new(), version: 0 })
    }

    /// What was dropped under `name`, the latest first.
    pub fn dropped_as<'a>(&'a self, name: &'a TableName) -> impl Iterator<Item = &'a Dropped> {
        self.dropped.iter().rev().filter(move |dropped| dropped.name == *name)
    }
}

/// Of which table of `prod` an entry of an environment tells.
fn base_of(entry: &EnvEntry) -> Option<Base> {
    match entry {
        EnvEntry::Pinned(table) => Some(Base { location: table.location.clone(), version: table.pinned.unwrap_or(0) }),
        EnvEntry::Own(own) => own.base.clone(),
        EnvEntry::Dropped(base) => Some(base.clone()),
        EnvEntry::View(_) | EnvEntry::External(_) => None,
    }
}

pub(super) fn not_there(name: &TableName) -> Error {
    Error::not_found(format!("there is no table '{name}'")).hint("'flumen lake list' shows those there are")
}

fn taken(name: &TableName) -> Error {
    Error::conflict(format!("there is a '{name}' already")).hint("choose another name, or drop that one first")
}

/// A table that may be written to.
#[derive(Debug, Clone)]
pub struct Writable {
    /// The table. It may not be there yet.
    pub table: Table,
    /// What had to be copied, so that others do not see what is written.
    pub copied: Option<Copied>,
}

impl Catalog {
    /// The table to write to when `name` is written in `environment`. In an environment, a pinned table is copied first;
    /// a new table gets its place.
    ///
    /// Errors: `Invalid` if `name` is a view or an external table, or is pinned in `prod`.
    #[boxed]
    pub async fn writable(&self, environment: &str, name: &TableName) -> Result<Writable> {
        let state = self.read().await?;
        let plain = |table| Writable { table, copied: None };
        match self.locate(&state, environment, name)? {
            Some(Located::View(_)) => Err(not_writable(name, "a view")),
            Some(Located::External(_)) => Err(not_writable(name, "an external table")),
            Some(Located::Table { table, version: None, .. }) => Ok(plain(table)),
            Some(Located::Table { version: Some(version), .. }) if environment == PROD => {
                Err(Error::invalid(format!("'{name}' is pinned to version {version}"))
                    .hint(format!("'flumen env unpin {name}' lets it float again")))
            }
            Some(Located::Table { table, version: Some(version), entry }) => {
                let entry = entry.unwrap_or_else(|| self.new_entry(table.location()));
                self.copy_for(environment, name, &table, version, entry).await
            }
            None => self.new_table(environment, name).await.map(plain),
        }
    }

    /// Makes a place for a table that is not there yet.
    async fn new_table(&self, environment: &str, name: &TableName) -> Result<Table> {
        let entry = self.new_entry(self.made_place(name));
        let reason = format!("place for {name}");
        let state = self
            .change(&reason, |state| match self.locate(state, environment, name)? {
                Some(_) => Ok(Vec::new()),
                None => Ok(vec![state.put(environment, name, Entry::Table(entry.clone()))?]),
            })
            .await?;
        match self.locate(&state, environment, name)? {
            Some(Located::Table { table, .. }) => Ok(table),
            _ => Err(taken(name)),
        }
    }

    /// The entry for a table that the catalog does not know, if it is there.
    async fn unregistered(&self, state: &State, environment: &str, name: &TableName) -> Result<Option<TableEntry>> {
        match self.locate(state, environment, name)? {
            Some(Located::Table { table, entry: None, .. }) if table.snapshot().await?.is_some() => {
                Ok(Some(self.new_entry(table.location())))
            }
            _ => Ok(None),
        }
    }

    /// Whether `name` means something that is there.
    #[boxed]
    pub async fn exists(&self, state: &State, environment: &str, name: &TableName) -> Result<bool> {
        Ok(match self.locate(state, environment, name)? {
            None => false,
            Some(Located::Table { table, entry: None, .. }) => table.snapshot().await?.is_some(),
            Some(_) => true,
        })
    }

    /// Gives tables, views and external tables other names, all in one commit.
    ///
    /// Errors: `NotFound` if one is not there; `Conflict` if a name is taken.
    #[boxed]
    pub async fn rename(&self, environment: &str, pairs: &[(TableName, TableName)]) -> Result<()> {
        let state = self.read().await?;
        let mut unregistered = HashMap::new();
        for (from, to) in pairs {
            unregistered.insert(from, self.unregistered(&state, environment, from).await?);
            let moves_away = pairs.iter().any(|(other, _)| other == to);
            if !moves_away && self.exists(&state, environment, to).await? {
                return Err(taken(to));
            }
        }
        let shown: Vec<String> = pairs.iter().map(|(from, to)| format!("{from} to {to}")).collect();
        self.change(&format!("rename {}", shown.join(", ")), |state| {
            let mut actions = Vec::new();
            let mut seen = state.clone();
            for (from, to) in pairs {
                let entry = unregistered.get(from).and_then(Option::as_ref);
                let step = seen.rename(environment, from, to, entry)?;
                seen = seen.apply(&step)?;
                actions.extend(step);
            }
            Ok(actions)
        })
        .await
        .map(drop)
    }

    /// Drops tables, views and external tables, all in one commit. The files stay until vacuum finds that nobody may want
    /// them back.
    ///
    /// Errors: `NotFound` if one is not there.
    #[boxed]
    pub async fn drop_entries(&self, environment: &str, names: &[TableName]) -> Result<()> {
        let state = self.read().await?;
        let mut unregistered = HashMap::new();
        for name in names {
            unregistered.insert(name, self.unregistered(&state, environment, name).await?);
        }
        let at = self.clock().now();
        let shown: Vec<String> = names.iter().map(ToString::to_string).collect();
        self.change(&format!("drop {}", shown.join(", ")), |state| {
            let mut actions = Vec::new();
            for name in names {
                let entry = unregistered.get(name).and_then(Option::as_ref);
                actions.extend(state.remove(environment, name, entry, at, "dropped")?);
            }
            Ok(actions)
        })
        .await
        .map(drop)
    }

    /// Brings back what was dropped last under `name`, as `to`, into the environment it was in.
    ///
    /// Errors: `NotFound` if nothing was dropped under that name, or it is vacuumed; `Conflict` if `to` is taken.
    #[boxed]
    pub async fn undrop(&self, name: &TableName, to: &TableName) -> Result<String> {
        let state = self.read().await?;
        let find = |state: &State| -> Result<Dropped> {
            state.dropped_as(name).find(|dropped| !dropped.removing).cloned().ok_or_else(|| {
                Error::not_found(format!("nothing was dropped as '{name}', or it is vacuumed"))
                    .hint("'flumen lake list --dropped' shows what can be brought back")
            })
        };
        let dropped = find(&state)?;
        let environment = match state.environments.contains_key(&dropped.environment) {
            true => dropped.environment.clone(),
            false => PROD.to_owned(),
        };
        if self.exists(&state, &environment, to).await? {
            return Err(taken(to));
        }
        self.change(&format!("undrop {name} as {to}"), |state| {
            let dropped = find(state)?;
            if state.entry(&environment, to)?.is_some() {
                return Err(taken(to));
            }
            let id: Uuid = dropped.entry.id();
            Ok(vec![Action::RemoveDropped { id }, state.put(&environment, to, dropped.entry)?])
        })
        .await?;
        Ok(environment)
    }

    /// Changes what is said about `name`: a table that has no entry yet gets one.
    ///
    /// Errors: `NotFound` if it is not there, and those of `edit`.
    pub fn edit<'a>(
        &'a self,
        environment: &'a str,
        name: &'a TableName,
        reason: &'a str,
        edit: impl FnMut(&mut Entry) -> Result<()> + Send + 'a,
    ) -> BoxFuture<'a, Result<()>> {
        self.edit_as(environment, name, reason, Box::new(edit))
    }

    #[boxed]
    async fn edit_as<'a>(
        &'a self,
        environment: &'a str,
        name: &'a TableName,
        reason: &'a str,
        mut edit: Edit<'a>,
    ) -> Result<()> {
        let state = self.read().await?;
        let unregistered = self.unregistered(&state, environment, name).await?;
        self.change(reason, |state| {
            let before = state.entry(environment, name)?;
            let mut entry = match (&before, &unregistered) {
                (Some(entry), _) => entry.clone(),
                (None, Some(entry)) => Entry::Table(entry.clone()),
                (None, None) => return Err(not_there(name)),
            };
            edit(&mut entry)?;
            if before.as_ref() == Some(&entry) {
                return Ok(Vec::new());
            }
            Ok(vec![state.put(environment, name, entry)?])
        })
        .await
        .map(drop)
    }
}

pub(crate) fn not_writable(name: &TableName, what: &str) -> Error {
    Error::invalid(format!("'{name}' is {what}: no rows can be written to it"))
        .hint("write to a table, or drop it first and make a table of that name")
}
