//! The names by which flows, runs, tasks and workers are known.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::error::{Error, Result};

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
            pub struct $name(Arc<str>);

            impl $name {
                /// The name as text.
                pub fn as_str(&self) -> &str {
                    &self.0
                }
            }

            impl<T: AsRef<str>> From<T> for $name {
                fn from(text: T) -> Self {
                    Self(Arc::from(text.as_ref()))
                }
            }

            impl Borrow<str> for $name {
                fn borrow(&self) -> &str {
                    &self.0
                }
            }

            impl fmt::Display for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str(&self.0)
                }
            }

            impl Serialize for $name {
                fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    serializer.serialize_str(&self.0)
                }
            }

            impl<'de> Deserialize<'de> for $name {
                fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    Ok(Self::from(String::deserialize(deserializer)?))
                }
            }
        )*
    };
}

names! {
    /// The name of a flow, which its file gives it.
    FlowName,
    /// One version of a flow: a hash of its file and of every file that it names.
    FlowVersion,
    /// The name of a task within its flow.
    TaskId,
    /// A worker process.
    WorkerId,
}

impl FlowVersion {
    /// The version that has this `content`, and no other.
    pub fn of(content: &[u8]) -> Self {
        let digest = Sha256::digest(content);
        let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Self::from(digits)
    }

    /// The first twelve digits: enough for a person.
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

/// The id of a run: 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(#[serde(with = "uuid::serde::simple")] Uuid);

impl RunId {
    /// The run with this id.
    pub fn new(id: Uuid) -> Self {
        Self(id)
    }

    /// The id of a run that is new, made of an id that nobody has. Ids that are made one after another begin alike; these do not,
    /// so that a person can type the beginning.
    pub fn fresh(id: Uuid) -> Self {
        let (first, last) = id.as_u64_pair();
        Self(Uuid::from_u64_pair(last.reverse_bits(), first))
    }

    /// The id.
    pub fn uuid(self) -> Uuid {
        self.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.simple().fmt(f)
    }
}

impl FromStr for RunId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Uuid::try_parse(text).map(Self).map_err(|_| {
            Error::invalid(format!("'{text}' is not the id of a run")).hint("`flumen run list` shows them")
        })
    }
}

/// A task run within its run: a task, or one item of a task that runs for each of a list. Written `load` or `load[3]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskKey {
    /// The task.
    pub task: TaskId,
    /// Which item of the task's list; `None` for the task as a whole.
    pub index: Option<u32>,
}

impl TaskKey {
    /// The task as a whole.
    pub fn new(task: impl Into<TaskId>) -> Self {
        Self { task: task.into(), index: None }
    }

    /// The item at `index` of a task that runs for each of a list.
    pub fn item(task: impl Into<TaskId>, index: u32) -> Self {
        Self { task: task.into(), index: Some(index) }
    }
}

impl fmt::Display for TaskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.index {
            None => self.task.fmt(f),
            Some(index) => write!(f, "{}[{index}]", self.task),
        }
    }
}

impl FromStr for TaskKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::invalid(format!("'{text}' is not the name of a task")).hint("write 'load', or 'load[3]'");
        match text.strip_suffix(']').and_then(|rest| rest.rsplit_once('[')) {
            Some((task, index)) if !task.is_empty() => Ok(Self::item(task, index.parse().map_err(|_| wrong())?)),
            None if !text.is_empty() && !text.contains(['[', ']']) => Ok(Self::new(text)),
            _ => Err(wrong()),
        }
    }
}

impl Serialize for TaskKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TaskKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_key_is_what_it_is_written_as() {
        for text in ["load", "load[0]", "extract.load[12]"] {
            let key: TaskKey = text.parse().expect("a key");
            assert_eq!(key.to_string(), text);
            let json = serde_json::to_string(&key).expect("text");
            assert_eq!(serde_json::from_str::<TaskKey>(&json).expect("a key"), key);
        }
        for text in ["", "[3]", "load[", "load[x]", "load[-1]", "load]"] {
            assert!(text.parse::<TaskKey>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_version_is_its_content() {
        assert_eq!(FlowVersion::of(b"a"), FlowVersion::of(b"a"));
        assert_ne!(FlowVersion::of(b"a"), FlowVersion::of(b"b"));
        assert_eq!(FlowVersion::of(b"a").short().len(), 12);
    }
}
