//! Loads: what one write of rows into a data set is called, what it must hold, and the receipt that it leaves.
//!
//! A load's id is derived from what it loads, where to, and how: the same load run twice has the same id, which is how
//! a destination knows that it is done already. See `docs/ingest.md`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{Error, Result};

/// The column that names the load of a row.
pub const LOAD_COLUMN: &str = "_flumen_load";
/// The column that names the file of a row.
pub const FILE_COLUMN: &str = "_flumen_file";
/// The column that numbers a row within its file, from 1, blank lines and header not counted.
pub const ROW_COLUMN: &str = "_flumen_row";

/// The id of a load: 32 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LoadId(String);

impl LoadId {
    /// The id that belongs to `parts` (in this order) and to no other.
    pub fn derive<'a>(parts: impl IntoIterator<Item = &'a str>) -> Self {
        // UUID v5 hashes with SHA-1; the lengths keep ("ab", "c") and ("a", "bc") apart.
        let mut text = String::new();
        for part in parts {
            text.push_str(&format!("{}:{part}\n", part.len()));
        }
        Self(Uuid::new_v5(&Uuid::NAMESPACE_URL, text.as_bytes()).simple().to_string())
    }

    /// An id that was made elsewhere: a fresh one, or one that the user gave with `--load-id`.
    pub fn from_uuid(id: Uuid) -> Self {
        Self(id.simple().to_string())
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first twelve digits: enough for a person.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl fmt::Display for LoadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for LoadId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match Uuid::try_parse(text) {
            Ok(id) => Ok(Self::from_uuid(id)),
            Err(_) => {
                Err(Error::invalid(format!("'{text}' is not the id of a load")).hint("`flumen load list` shows them"))
            }
        }
    }
}

/// What a load does with the rows that its destination holds already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "kebab-case")]
pub enum Mode {
    /// Adds the rows.
    Append,
    /// The table holds these rows and no others, afterwards.
    Replace,
    /// A row whose key is there replaces it; other rows are added.
    Merge {
        /// The columns that identify a row.
        keys: Vec<String>,
        /// A boolean column: a row in which it is true deletes the row with its key.
        delete_flag: Option<String>,
    },
    /// Slowly changing dimension, type 2: a changed row closes the one before and opens a new one.
    Scd2 {
        /// The columns that identify a thing over time.
        keys: Vec<String>,
        /// The column that says since when a row holds.
        valid_from: String,
        /// The column that says until when it held; null in the row that holds now.
        valid_to: String,
    },
    /// Replaces the rows for which `predicate` holds; a row of the load for which it does not hold fails the load.
    ReplaceWhere {
        /// A SQL condition on the table's columns.
        predicate: String,
    },
    /// Replaces exactly the rows that an earlier load with the same `slot` wrote.
    ReplaceLoad {
        /// Who writes here: the same flow, task and interval have the same slot.
        slot: String,
    },
}

impl Mode {
    /// The name on the command line.
    pub fn name(&self) -> &'static str {
        match self {
            Mode::Append => "append",
            Mode::Replace => "replace",
            Mode::Merge { .. } => "merge",
            Mode::Scd2 { .. } => "scd2",
            Mode::ReplaceWhere { .. } | Mode::ReplaceLoad { .. } => "replace-where",
        }
    }

    /// Everything about the mode that makes one load differ from another, as text.
    pub fn identity(&self) -> String {
        // Serialising an enum of strings cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// One file (or table, query, stream) of a load, and how it is told from another with the same address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileIdentity {
    /// The path or URL, without credentials.
    pub address: String,
    /// A checksum or strong ETag from the server, else a hash of the content, with its kind before it: `blake3:…`.
    /// `None` where there is no identity (standard input, a query): such a file always loads.
    pub validator: Option<String>,
}

impl FileIdentity {
    /// The id under which a destination's ledger knows this file, or `None` if it has no identity.
    pub fn ledger_id(&self, destination: &str, mode: &Mode, contract: &str) -> Option<LoadId> {
        let validator = self.validator.as_deref()?;
        Some(LoadId::derive(["file", &self.address, validator, destination, &mode.identity(), contract]))
    }
}

/// A fencing number: who holds a load. It only grows; a commit with an older one than the claim is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fence(pub i64);

/// What a load is to do, as its destination needs to know it before the first row.
#[derive(Debug, Clone)]
pub struct LoadRequest {
    /// The load.
    pub load: LoadId,
    /// What happens to the rows that are there.
    pub mode: Mode,
    /// The columns of the rows that will be written, `_flumen_*` columns included.
    pub schema: arrow::datatypes::SchemaRef,
    /// Whether columns may be added to a table that exists.
    pub evolve: bool,
    /// The files, with the ids under which the ledger will know them.
    pub files: Vec<(FileIdentity, Option<LoadId>)>,
    /// The attempt's fencing number; 0 where nobody competes (a command typed by a person).
    pub fence: Fence,
    /// When the load began.
    pub started: DateTime<Utc>,
    /// How many workers will write at once.
    pub writers: usize,
    /// Partition columns, for a table that is made now.
    pub partition_by: Vec<String>,
    /// Index columns, for a Postgres table: one index for each inner list.
    pub indexes: Vec<Vec<String>>,
    /// The primary key, for a Postgres table that is made now.
    pub primary_key: Vec<String>,
}

/// What the ledger of a destination says about one load: written in the commit of its rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadRecord {
    /// The load.
    pub load: LoadId,
    /// The destination's address.
    pub dataset: String,
    /// The mode.
    pub mode: Mode,
    /// When it began.
    pub started: DateTime<Utc>,
    /// The files, with what was read of each.
    pub files: Vec<FileRecord>,
    /// Rows in the files: always `written + quarantined + skipped`.
    pub rows_read: u64,
    /// Rows written.
    pub rows_written: u64,
    /// Rows put into quarantine.
    pub rows_quarantined: u64,
    /// Rows left out because they were asked to be (a limit, a cursor).
    pub rows_skipped: u64,
    /// Bytes read, as stored (packed, if the file is).
    pub bytes_read: u64,
    /// What changed between the files and the table: the drift ledger.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drift: Vec<Drift>,
    /// The cursor's highest value, for an incremental load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Cursor>,
    /// How to do the load again: the options of the command, for `flumen load replay`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, serde_json::Value>,
    /// The load that this one takes back, if it is an undo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undoes: Option<LoadId>,
}

impl LoadRecord {
    /// A load of nothing into `dataset`: no files, no rows.
    pub fn new(load: LoadId, dataset: impl Into<String>, mode: Mode, started: DateTime<Utc>) -> Self {
        Self {
            load,
            dataset: dataset.into(),
            mode,
            started,
            files: Vec::new(),
            rows_read: 0,
            rows_written: 0,
            rows_quarantined: 0,
            rows_skipped: 0,
            bytes_read: 0,
            drift: Vec::new(),
            cursor: None,
            options: BTreeMap::new(),
            undoes: None,
        }
    }
}

/// What was read of one file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Which file.
    #[serde(flatten)]
    pub identity: FileIdentity,
    /// Under which id the ledger knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger_id: Option<LoadId>,
    /// Rows read.
    pub rows: u64,
}

/// How far an incremental load came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The column.
    pub column: String,
    /// The highest value that was loaded, as text.
    pub value: String,
}

/// One change between a file and its table, and what was done about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    /// The file.
    pub file: String,
    /// The column.
    pub column: String,
    /// What it was (a name or a type), if it was there.
    pub from: Option<String>,
    /// What it is now, if it is there.
    pub to: Option<String>,
    /// What was done: `added`, `missing: null`, `widened`, `renamed`, `cast`, `surplus fields dropped`, …
    pub action: String,
}

/// What a destination gives back when a load is committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// The version of the table that the commit made, where the destination counts versions.
    pub version: Option<u64>,
    /// Bytes written, where the destination knows.
    pub bytes_written: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_from_what_is_loaded() {
        let file = FileIdentity { address: "a.csv".into(), validator: Some("blake3:00".into()) };
        let id = |mode: &Mode| file.ledger_id("lake.raw.a", mode, "");
        assert_eq!(id(&Mode::Append), id(&Mode::Append));
        assert_ne!(id(&Mode::Append), id(&Mode::Replace));
        assert_ne!(LoadId::derive(["ab", "c"]), LoadId::derive(["a", "bc"]));
        assert_eq!(FileIdentity { address: "-".into(), validator: None }.ledger_id("x", &Mode::Append, ""), None);
    }

    #[test]
    fn an_id_reads_back() {
        let id = LoadId::derive(["x"]);
        assert_eq!(id.to_string().parse::<LoadId>().unwrap(), id);
        assert!("zzz".parse::<LoadId>().is_err());
    }
}
