//! Addresses of data sets: `lake.raw.trips`, `pg.public.trips`, `s3://bucket/x.parquet`, `out/*.csv`.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// The name that stands for the project's lake in an address. No connection may be called so.
pub const LAKE: &str = "lake";

/// Where rows are, or go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Dataset {
    /// `lake.<namespace>.<table>`
    Lake(TableName),
    /// `<connection>.<schema>.<table>`
    Connection {
        /// The name of the connection in `flumen.yml`.
        connection: String,
        /// The table there.
        table: TableName,
    },
    /// A path or an URL of a file, or of several.
    Files(String),
}

/// A table within a namespace (in Postgres: a schema).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableName {
    /// The namespace; `public` or `raw`, say.
    pub namespace: String,
    /// The table.
    pub table: String,
}

impl TableName {
    /// The name, checked: not empty, not a path, nothing that a file system or a shell would take for something else.
    pub fn new(namespace: impl Into<String>, table: impl Into<String>) -> Result<Self> {
        let name = Self { namespace: namespace.into(), table: table.into() };
        for part in [&name.namespace, &name.table] {
            check_part(part)?;
        }
        Ok(name)
    }

    /// The table in which rows that were refused are kept: `<table>__quarantine`.
    pub fn quarantine(&self) -> Self {
        Self { namespace: self.namespace.clone(), table: format!("{}__quarantine", self.table) }
    }
}

fn check_part(part: &str) -> Result<()> {
    let wrong = if part.is_empty() {
        "is empty"
    } else if part.len() > 200 {
        "is longer than 200 bytes"
    } else if part.starts_with(['.', '-']) || part.starts_with("_delta_log") || part.starts_with("_flumen") {
        "begins with a character that is kept for Flumen's own files"
    } else if part.contains(|c: char| {
        c.is_control() || matches!(c, '/' | '\\' | '*' | '?' | '"' | '\'' | '<' | '>' | '|' | ':' | '%')
    }) {
        "has a character that no file system likes"
    } else {
        return Ok(());
    };
    Err(Error::invalid(format!("the name '{part}' {wrong}")).hint("use letters, digits and underscores"))
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.namespace, self.table)
    }
}

impl fmt::Display for Dataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dataset::Lake(table) => write!(f, "{LAKE}.{table}"),
            Dataset::Connection { connection, table } => write!(f, "{connection}.{table}"),
            Dataset::Files(address) => f.write_str(address),
        }
    }
}

impl FromStr for Dataset {
    type Err = Error;

    /// An address with a slash, a wildcard or a file's ending means files; three names with dots a table.
    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim();
        if text.is_empty() {
            return Err(Error::invalid("the address of the data set is empty").hint(FORMS));
        }
        let parts: Vec<&str> = text.split('.').collect();
        if text == "-" || text.contains(['/', '\\', '*']) || parts.len() < 3 && looks_like_file(text) {
            return Ok(Dataset::Files(text.to_owned()));
        }
        match parts.as_slice() {
            [LAKE, namespace, table] => Ok(Dataset::Lake(TableName::new(*namespace, *table)?)),
            [connection, namespace, table] if !looks_like_file(text) => Ok(Dataset::Connection {
                connection: (*connection).to_owned(),
                table: TableName::new(*namespace, *table)?,
            }),
            _ if looks_like_file(text) => Ok(Dataset::Files(text.to_owned())),
            [LAKE, table] => {
                Err(Error::invalid(format!("'{text}' lacks a namespace")).hint(format!("write lake.raw.{table}")))
            }
            _ => Err(Error::invalid(format!("'{text}' is not the address of a data set")).hint(FORMS)),
        }
    }
}

const FORMS: &str =
    "write lake.<namespace>.<table>, <connection>.<schema>.<table>, or a file such as out/trips.parquet";

/// The endings by which a bare name is taken for a file.
const FILE_ENDINGS: &[&str] = &[
    "csv", "tsv", "txt", "json", "ndjson", "jsonl", "parquet", "arrow", "ipc", "feather", "avro", "xlsx", "xls",
    "xlsb", "ods", "gz", "zst", "bz2", "xz", "zip",
];

fn looks_like_file(text: &str) -> bool {
    text.rsplit_once('.').is_some_and(|(_, ending)| FILE_ENDINGS.contains(&ending.to_lowercase().as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &str) {
        let got = match text.parse::<Dataset>() {
            Ok(Dataset::Lake(table)) => format!("lake {table}"),
            Ok(Dataset::Connection { connection, table }) => format!("connection {connection} {table}"),
            Ok(Dataset::Files(address)) => format!("files {address}"),
            Err(error) => format!("error {error}"),
        };
        assert_eq!(got, expect, "{text}");
    }

    #[test]
    fn addresses() {
        check("lake.raw.trips", "lake raw.trips");
        check("pg.public.trips", "connection pg public.trips");
        check("s3://bucket/x.parquet", "files s3://bucket/x.parquet");
        check("out/*.parquet", "files out/*.parquet");
        check("trips.csv", "files trips.csv");
        check("trips.2019.csv", "files trips.2019.csv");
        check("trips.csv.gz", "files trips.csv.gz");
        check("lake.trips", "error 'lake.trips' lacks a namespace");
        check("trips", "error 'trips' is not the address of a data set");
        check("lake.raw.", "error the name '' is empty");
    }

    #[test]
    fn names_never_leave_the_lake() {
        for bad in ["..", "../x", ".hidden", "a/b", "a\\b", "a\0b", "_delta_log/x"] {
            assert!(TableName::new("raw", bad).is_err(), "{bad}");
        }
        assert!(TableName::new("raw", "trips 2019").is_ok());
    }
}
