//! Environments: sets of tables beside `prod`, made and published by moving pointers.
//!
//! A new environment pins every table of the one it is made from: that costs one look at each log and one commit of the
//! catalog. A table that is written to in an environment becomes its own copy; publishing makes `prod` mean that copy, all
//! tables in one commit, and refuses where somebody has written to the table of `prod` since.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use flumen_core::boxed;
use flumen_core::dataset::{LAKE, TableName};
use flumen_core::limits::LAKE_LISTINGS;
use flumen_core::{Error, Result};
use futures::{StreamExt, TryStreamExt};
use serde::Serialize;

use super::action::Action;
use super::names::not_there;
use super::state::{Base, Dropped, Entry, EnvEntry, Environment, Kind, Own, PROD, State, TableEntry};
use super::{Catalog, Located};
use crate::lake::QUARANTINE;

/// How a name differs between two environments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The namespace.
    pub namespace: String,
    /// The name within it.
    pub table: String,
    /// What kind of thing it is.
    pub kind: Kind,
    /// How it differs.
    #[serde(flatten)]
    pub change: Change,
}

/// One difference, seen from the second of two environments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    /// Only in the second.
    Added,
    /// Only in the first.
    Missing,
    /// The same table at different versions.
    Version {
        /// In the first.
        from: u64,
        /// In the second.
        to: u64,
    },
    /// The second has a copy of its own.
    Copy {
        /// The version it is a copy of.
        of: u64,
        /// The version it is at.
        version: u64,
    },
    /// Something else: another query, another place.
    Other,
}

/// What publishing did to one name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Published {
    /// The namespace.
    pub namespace: String,
    /// The name within it.
    pub table: String,
    /// `added`, `replaced` or `dropped`.
    pub what: &'static str,
}

/// A place and a version.
type Pointer = (String, u64);

impl Catalog {
    /// Makes the environment `name` out of what `from` is now. `reserved` are names that mean something else where an
    /// environment may be named: those of connections.
    ///
    /// Errors: `Conflict` if the name is taken; `Invalid` if it is no name.
    #[boxed]
    pub async fn create_environment(&self, name: &str, from: &str, reserved: &[String]) -> Result<usize> {
        check_name(name, reserved)?;
        let state = self.read().await?;
        if state.environments.contains_key(name) {
            return Err(exists(name));
        }
        let entries = self.pins(&state, from).await?;
        let count = entries.len();
        let environment = Environment { created: self.clock().now(), from: from.to_owned(), entries };
        self.change(&format!("create environment {name} from {from}"), |state| {
            if state.environments.contains_key(name) {
                return Err(exists(name));
            }
            Ok(vec![Action::PutEnvironment { name: name.to_owned(), environment: environment.clone() }])
        })
        .await?;
        Ok(count)
    }

    /// Everything in `environment`, as it is now.
    async fn pins(&self, state: &State, environment: &str) -> Result<BTreeMap<TableName, EnvEntry>> {
        let listed = self.list(state, environment).await?;
        let names: BTreeSet<&TableName> = listed.iter().map(|listed| &listed.name).collect();
        // A quarantine goes with its table.
        let with_table = |name: &TableName| {
            let of = name.table.strip_suffix(QUARANTINE);
            of.is_some_and(|of| names.iter().any(|other| other.namespace == name.namespace && other.table == of))
        };
        let names: Vec<TableName> = names.iter().filter(|name| !with_table(name)).map(|name| (*name).clone()).collect();
        let mut pins = BTreeMap::new();
        let mut floating = Vec::new();
        for name in names {
            match self.locate(state, environment, &name)? {
                None => {}
                Some(Located::View(view)) => drop(pins.insert(name, EnvEntry::View(view))),
                Some(Located::External(external)) => drop(pins.insert(name, EnvEntry::External(external))),
                Some(Located::Table { table, version, entry }) => {
                    let entry = entry.unwrap_or_else(|| self.new_entry(table.location()));
                    match version {
                        Some(_) => drop(pins.insert(name, EnvEntry::Pinned(entry))),
                        None => floating.push((table, entry)),
                    }
                }
            }
        }
        let latest = floating.into_iter().map(|(table, entry)| async move {
            let version = table.latest_version().await?;
            Ok::<_, Error>((table, TableEntry { pinned: version, ..entry }))
        });
        let mut latest = futures::stream::iter(latest).buffer_unordered(LAKE_LISTINGS);
        while let Some((table, entry)) = latest.try_next().await? {
            // An entry whose table never came to be is none.
            if entry.pinned.is_some() {
                pins.insert(table.name().clone(), EnvEntry::Pinned(entry));
            }
        }
        Ok(pins)
    }

    /// Forgets the environment `name`. Its own tables stay on the disk until vacuum finds that nobody may want them back.
    ///
    /// Errors: `NotFound` if there is none; `Invalid` for `prod`.
    #[boxed]
    pub async fn drop_environment(&self, name: &str) -> Result<()> {
        if name == PROD {
            return Err(Error::invalid(format!(
                "'{PROD}' cannot be dropped: it is where everybody is who says nothing else"
            )));
        }
        let at = self.clock().now();
        self.change(&format!("drop environment {name}"), |state| {
            let environment = state.environment(name)?;
            let own = environment.into_iter().flat_map(|environment| &environment.entries);
            let mut actions: Vec<Action> = own
                .filter_map(|(table, entry)| match entry {
                    EnvEntry::Own(own) => Some(Action::PutDropped(Dropped {
                        name: table.clone(),
                        entry: Entry::Table(own.table.clone()),
                        environment: name.to_owned(),
                        at,
                        why: "environment dropped".to_owned(),
                        removing: false,
                    })),
                    _ => None,
                })
                .collect();
            actions.push(Action::RemoveEnvironment { name: name.to_owned() });
            Ok(actions)
        })
        .await
        .map(drop)
    }

    /// How `second` differs from `first`, by name.
    ///
    /// Errors: `NotFound` if there is no such environment.
    #[boxed]
    pub async fn diff_environments(&self, first: &str, second: &str) -> Result<Vec<Difference>> {
        let state = self.read().await?;
        let (left, right) = (self.pins(&state, first).await?, self.pins(&state, second).await?);
        let names: BTreeSet<&TableName> = left.keys().chain(right.keys()).collect();
        let base = |name: &TableName| match state.environments.get(second).and_then(|env| env.entries.get(name)) {
            Some(EnvEntry::Own(Own { base: Some(base), .. })) => Some(base.version),
            _ => None,
        };
        let mut differences = Vec::new();
        for name in names {
            let change = match (left.get(name), right.get(name)) {
                (None, Some(_)) => Change::Added,
                (Some(_), None) => Change::Missing,
                (Some(left), Some(right)) => match (pointer(left), pointer(right)) {
                    (Some(from), Some(to)) if from == to => continue,
                    (Some(from), Some(to)) if from.0 == to.0 => Change::Version { from: from.1, to: to.1 },
                    (Some(_), Some(to)) => match base(name) {
                        Some(of) => Change::Copy { of, version: to.1 },
                        None => Change::Other,
                    },
                    _ if left == right => continue,
                    _ => Change::Other,
                },
                (None, None) => continue,
            };
            let kind = right.get(name).or_else(|| left.get(name)).map_or(Kind::Table, kind_of);
            let (namespace, table) = (name.namespace.clone(), name.table.clone());
            differences.push(Difference { namespace, table, kind, change });
        }
        Ok(differences)
    }

    /// Makes `prod` mean what the environment `name` has of its own, all in one commit; the environment then pins what it
    /// has published. With `force` also where `prod` has changed since the environment was made.
    ///
    /// Errors: `Conflict`, naming every table that has changed, and nothing is published.
    #[boxed]
    pub async fn publish(&self, name: &str, force: bool) -> Result<Vec<Published>> {
        let state = self.read().await?;
        let Some(environment) = state.environment(name)? else {
            return Err(Error::invalid(format!("'{PROD}' is what others are published to")));
        };
        if !force {
            self.check_bases(&state, name, environment).await?;
        }
        let mut versions: HashMap<String, u64> = HashMap::new();
        for (table, entry) in &environment.entries {
            if let EnvEntry::Own(own) = entry {
                let at = self.lake().table_at(&own.table.location, table)?.latest_version().await?;
                versions.insert(own.table.location.clone(), at.unwrap_or(0));
            }
        }
        let at = self.clock().now();
        let mut published = Vec::new();
        let mut missing = Vec::new();
        for (table, entry) in &environment.entries {
            if let EnvEntry::Own(_) | EnvEntry::Dropped(_) = entry
                && !state.entries.contains_key(table)
                && let Some(Located::Table { table: there, entry: None, .. }) = self.locate(&state, PROD, table)?
                && there.latest_version().await?.is_some()
            {
                missing.push((table.clone(), self.new_entry(there.location())));
            }
        }
        let unregistered: HashMap<TableName, TableEntry> = missing.into_iter().collect();
        self.change(&format!("publish {name}"), |now| {
            let there = now.environment(name)?;
            if there != Some(environment) {
                return Err(Error::conflict(format!("the environment '{name}' has changed meanwhile"))
                    .hint("run the same command again"));
            }
            let plan = Plan { environment: name, now, unregistered: &unregistered, versions: &versions, at };
            let (actions, done) = plan.actions(environment);
            published = done;
            Ok(actions)
        })
        .await?;
        Ok(published)
    }

    /// That what the environment's own tables are copies of is still what `prod` has.
    async fn check_bases(&self, state: &State, name: &str, environment: &Environment) -> Result<()> {
        let mut changed = Vec::new();
        for (table, entry) in &environment.entries {
            let base = match entry {
                EnvEntry::Own(own) => own.base.as_ref(),
                EnvEntry::Dropped(base) => Some(base),
                _ => continue,
            };
            let there = match self.locate(state, PROD, table)? {
                Some(Located::Table { table, version, .. }) => {
                    let version = match version {
                        Some(version) => Some(version),
                        None => table.latest_version().await?,
                    };
                    version.map(|version| Base { location: table.location().to_owned(), version })
                }
                Some(_) => Some(Base { location: String::new(), version: 0 }),
                None => None,
            };
            if there.as_ref() != base && !(there.is_none() && matches!(entry, EnvEntry::Dropped(_))) {
                changed.push(table.to_string());
            }
        }
        if changed.is_empty() {
            return Ok(());
        }
        Err(Error::conflict(format!(
            "{} changed in '{PROD}' since '{name}' was made from it: {}",
            if changed.len() == 1 { "a table has" } else { "tables have" },
            changed.join(", ")
        ))
        .hint("make the environment anew, or publish with --force, which leaves these changes behind"))
    }

    /// Pins `name` in `environment` to `version` (the latest, if none), or lets it float. Gives the version.
    ///
    /// Errors: `NotFound` if there is no such table or version; `Invalid` if it is no table, or the environment's own.
    #[boxed]
    pub async fn pin(&self, environment: &str, name: &TableName, version: Option<u64>) -> Result<u64> {
        let state = self.read().await?;
        let Some(Located::Table { table, .. }) = self.locate(&state, environment, name)? else {
            return Err(not_there(name));
        };
        let snapshot = table.snapshot_at(version).await?.ok_or_else(|| not_there(name))?;
        let version = snapshot.version();
        self.edit(environment, name, &format!("pin {name} to {version} in {environment}"), |entry| {
            let Entry::Table(table) = entry else { return Err(not_there(name)) };
            if environment != PROD && table.pinned.is_none() {
                return Err(Error::invalid(format!("'{name}' is a table of the environment's own: it is not pinned")));
            }
            table.pinned = Some(version);
            Ok(())
        })
        .await?;
        Ok(version)
    }

    /// Lets `name` float in `prod`.
    ///
    /// Errors: `NotFound` if there is no such table.
    #[boxed]
    pub async fn unpin(&self, name: &TableName) -> Result<()> {
        self.edit(PROD, name, &format!("unpin {name}"), |entry| {
            let Entry::Table(table) = entry else { return Err(not_there(name)) };
            table.pinned = None;
            Ok(())
        })
        .await
    }
}

/// One publication, decided on one state of the catalog.
struct Plan<'a> {
    environment: &'a str,
    now: &'a State,
    /// Tables of `prod` that the catalog does not know yet.
    unregistered: &'a HashMap<TableName, TableEntry>,
    /// The versions of the environment's own tables, by place.
    versions: &'a HashMap<String, u64>,
    at: chrono::DateTime<chrono::Utc>,
}

impl Plan<'_> {
    fn actions(&self, environment: &Environment) -> (Vec<Action>, Vec<Published>) {
        let mut actions = Vec::new();
        let mut published = Vec::new();
        let mut leaving = Vec::new();
        for (name, entry) in &environment.entries {
            let before = self.now.entries.get(name);
            let there = before.is_some() || self.unregistered.contains_key(name);
            let after = match entry {
                EnvEntry::Pinned(pin) => match before {
                    // Only where the environment has given it another name.
                    Some(Entry::Table(table)) if table.location == pin.location => continue,
                    None if crate::lake::location_of(name) == pin.location => continue,
                    _ => Some(Entry::Table(TableEntry { pinned: None, ..pin.clone() })),
                },
                EnvEntry::Own(own) => Some(Entry::Table(own.table.clone())),
                EnvEntry::View(view) => Some(Entry::View(view.clone())),
                EnvEntry::External(external) => Some(Entry::External(external.clone())),
                EnvEntry::Dropped(_) => None,
            };
            if after.as_ref() == before && after.is_some() {
                continue;
            }
            let what = match (&after, there) {
                (None, false) => {
                    actions.push(self.forget(name));
                    continue;
                }
                (None, true) => "dropped",
                (Some(_), true) => "replaced",
                (Some(_), false) => "added",
            };
            leaving.extend(self.leaving(name, before));
            match &after {
                Some(entry) => actions.push(Action::PutEntry { name: name.clone(), entry: entry.clone() }),
                None if before.is_some() => actions.push(Action::RemoveEntry { name: name.clone() }),
                None => {}
            }
            actions.push(match entry {
                EnvEntry::Own(own) => self.pinned(name, own),
                EnvEntry::Dropped(_) => self.forget(name),
                other => self.put(name, other.clone()),
            });
            published.push(Published { namespace: name.namespace.clone(), table: name.table.clone(), what });
        }
        // A table that has only got another name is not gone.
        let stays: BTreeSet<String> = actions
            .iter()
            .filter_map(|action| match action {
                Action::PutEntry { entry: Entry::Table(table), .. } => Some(table.location.clone()),
                _ => None,
            })
            .collect();
        leaving
            .retain(|dropped: &Dropped| dropped.entry.as_table().is_none_or(|table| !stays.contains(&table.location)));
        actions.extend(leaving.into_iter().map(Action::PutDropped));
        (actions, published)
    }

    /// What `prod` loses under `name`.
    fn leaving(&self, name: &TableName, before: Option<&Entry>) -> Option<Dropped> {
        let unregistered = self.unregistered.get(name).cloned().map(Entry::Table);
        let entry = before.cloned().or(unregistered)?;
        let why = format!("published over by {}", self.environment);
        Some(Dropped { name: name.clone(), entry, environment: PROD.to_owned(), at: self.at, why, removing: false })
    }

    /// The environment goes on with a pin on what it has published.
    fn pinned(&self, name: &TableName, own: &Own) -> Action {
        let version = self.versions.get(&own.table.location).copied();
        self.put(name, EnvEntry::Pinned(TableEntry { pinned: version, ..own.table.clone() }))
    }

    fn put(&self, name: &TableName, entry: EnvEntry) -> Action {
        Action::PutEnvEntry { environment: self.environment.to_owned(), name: name.clone(), entry }
    }

    fn forget(&self, name: &TableName) -> Action {
        Action::RemoveEnvEntry { environment: self.environment.to_owned(), name: name.clone() }
    }
}

fn pointer(entry: &EnvEntry) -> Option<Pointer> {
    match entry {
        EnvEntry::Pinned(table) => Some((table.location.clone(), table.pinned?)),
        _ => None,
    }
}

fn kind_of(entry: &EnvEntry) -> Kind {
    match entry {
        EnvEntry::View(_) => Kind::View,
        EnvEntry::External(_) => Kind::External,
        _ => Kind::Table,
    }
}

fn exists(name: &str) -> Error {
    Error::conflict(format!("there is an environment '{name}' already"))
        .hint("choose another name, or drop that one first with 'flumen env drop'")
}

/// Names of environments, of connections and of the lake stand at the same place in SQL.
fn check_name(name: &str, reserved: &[String]) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if name.is_empty()
        || name.len() > 100
        || !name.chars().all(plain)
        || !name.starts_with(|c: char| c.is_ascii_alphabetic())
    {
        return Err(Error::invalid(format!("'{name}' cannot be the name of an environment"))
            .hint("use letters, digits, dashes and underscores, and begin with a letter"));
    }
    let taken = match name {
        PROD => "it is the environment that everybody is in who says nothing else",
        LAKE => "it stands for the lake",
        "flumen" | "information_schema" | "pg_catalog" => "it stands for tables about the lake itself",
        _ if reserved.iter().any(|taken| taken == name) => "a connection has it",
        _ => return Ok(()),
    };
    Err(Error::conflict(format!("an environment cannot be called '{name}': {taken}")).hint("choose another name"))
}
