//! What may happen to the catalog, and what then is. Pure: the log in `log.rs` keeps these actions, one commit a file.

use std::collections::HashMap;

use flumen_core::dataset::TableName;
use flumen_core::{Error, Result};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::state::{Dropped, Entry, EnvEntry, Environment, Namespace, State, Volume, VolumeFile, one_name};
use crate::lake::check_location;

/// One change. What it names is put in place of what was there, or taken away; taking away what is not there is an error,
/// since whoever decided so saw something else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[allow(missing_docs, reason = "the fields are named after what they are")]
pub enum Action {
    /// Makes or describes a namespace.
    PutNamespace { name: String, namespace: Namespace },
    /// Forgets a namespace.
    RemoveNamespace { name: String },
    /// Says what a name means in `prod`.
    PutEntry {
        #[serde(with = "one_name")]
        name: TableName,
        entry: Entry,
    },
    /// Forgets what a name means in `prod`.
    RemoveEntry {
        #[serde(with = "one_name")]
        name: TableName,
    },
    /// Remembers a place that holds what was a table.
    PutDropped(Dropped),
    /// Forgets such a place: what was there is gone, or is a table again.
    RemoveDropped { id: Uuid },
    /// Makes or describes a volume.
    PutVolume {
        #[serde(with = "one_name")]
        name: TableName,
        volume: Volume,
    },
    /// Forgets a volume with all its files.
    RemoveVolume {
        #[serde(with = "one_name")]
        name: TableName,
    },
    /// Puts a file into a volume.
    PutFile {
        #[serde(with = "one_name")]
        volume: TableName,
        path: String,
        file: VolumeFile,
    },
    /// Takes a file out of a volume.
    RemoveFile {
        #[serde(with = "one_name")]
        volume: TableName,
        path: String,
    },
    /// Makes an environment.
    PutEnvironment { name: String, environment: Environment },
    /// Forgets an environment.
    RemoveEnvironment { name: String },
    /// Says what a name means in an environment.
    PutEnvEntry {
        environment: String,
        #[serde(with = "one_name")]
        name: TableName,
        entry: EnvEntry,
    },
    /// Forgets what a name means in an environment.
    RemoveEnvEntry {
        environment: String,
        #[serde(with = "one_name")]
        name: TableName,
    },
}

impl State {
    /// What is after `actions`, one version later.
    ///
    /// Errors: `Conflict` if an action takes away what is not there; `Invalid` if two tables would share a folder, or a
    /// folder lies outside of the lake.
    pub fn apply(&self, actions: &[Action]) -> Result<Self> {
        let mut next = self.clone();
        for action in actions {
            next.apply_one(action)?;
        }
        next.check_places()?;
        next.version += 1;
        Ok(next)
    }

    fn apply_one(&mut self, action: &Action) -> Result<()> {
        match action.clone() {
            Action::PutNamespace { name, namespace } => {
                self.namespaces.insert(name, namespace);
            }
            Action::RemoveNamespace { name } => {
                self.namespaces.remove(&name).ok_or_else(|| gone(format!("the namespace '{name}'")))?;
            }
            Action::PutEntry { name, entry } => {
                self.entries.insert(name, entry);
            }
            Action::RemoveEntry { name } => {
                self.entries.remove(&name).ok_or_else(|| gone(format!("'{name}'")))?;
            }
            Action::PutDropped(dropped) => {
                self.dropped.retain(|known| known.entry.id() != dropped.entry.id());
                self.dropped.push(dropped);
            }
            Action::RemoveDropped { id } => {
                let place = self.dropped.iter().position(|dropped| dropped.entry.id() == id);
                self.dropped.remove(place.ok_or_else(|| gone("a dropped table".to_owned()))?);
            }
            Action::PutVolume { name, volume } => {
                self.volumes.insert(name, volume);
            }
            Action::RemoveVolume { name } => {
                self.volumes.remove(&name).ok_or_else(|| gone(format!("the volume '{name}'")))?;
            }
            Action::PutFile { volume, path, file } => {
                let volume = self.volumes.get_mut(&volume).ok_or_else(|| gone(format!("the volume '{volume}'")))?;
                volume.files.insert(path, file);
            }
            Action::RemoveFile { volume, path } => {
                let there = self.volumes.get_mut(&volume).and_then(|volume| volume.files.remove(&path));
                there.ok_or_else(|| gone(format!("the file '{path}' of the volume '{volume}'")))?;
            }
            Action::PutEnvironment { name, environment } => {
                self.environments.insert(name, environment);
            }
            Action::RemoveEnvironment { name } => {
                self.environments.remove(&name).ok_or_else(|| gone(format!("the environment '{name}'")))?;
            }
            Action::PutEnvEntry { environment, name, entry } => {
                self.environment_mut(&environment)?.entries.insert(name, entry);
            }
            Action::RemoveEnvEntry { environment, name } => {
                let there = self.environment_mut(&environment)?.entries.remove(&name);
                there.ok_or_else(|| gone(format!("'{name}' in the environment '{environment}'")))?;
            }
        }
        Ok(())
    }

    fn environment_mut(&mut self, name: &str) -> Result<&mut Environment> {
        self.environments.get_mut(name).ok_or_else(|| gone(format!("the environment '{name}'")))
    }

    /// That every folder is within the lake, and no two tables that may be written share one.
    fn check_places(&self) -> Result<()> {
        let mut owners: HashMap<&str, &TableName> = HashMap::new();
        let tables = self.entries.iter().filter_map(|(name, entry)| Some((name, entry.as_table()?)));
        let own = self.environments.values().flat_map(|environment| &environment.entries);
        let own = own.filter_map(|(name, entry)| match entry {
            EnvEntry::Own(own) => Some((name, &own.table)),
            _ => None,
        });
        for (name, table) in tables.chain(own) {
            check_location(&table.location)?;
            if let Some(other) = owners.insert(&table.location, name) {
                return Err(Error::conflict(format!(
                    "'{name}' and '{other}' would share the folder {}",
                    table.location
                )));
            }
        }
        for volume in self.volumes.values() {
            check_location(&volume.location)?;
        }
        Ok(())
    }
}

fn gone(what: String) -> Error {
    Error::conflict(format!("{what} is not in the catalog any more")).hint("run the same command again")
}
