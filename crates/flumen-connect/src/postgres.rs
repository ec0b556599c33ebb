//! What source and sink share about Postgres: connecting, names, the catalog, types, the binary COPY format, and errors
//! in words.
//!
//! Nothing here decides what a load does; that is in [`crate::sinks::postgres`].

pub mod catalog;
pub mod connect;
pub mod database;
pub mod decode;
pub mod encode;
pub mod error;
pub mod numeric;
pub mod types;

pub use connect::{Connect, PlainConnector, ProjectConnector};

use flumen_core::{Error, Result};

/// The longest name that Postgres keeps; it cuts longer ones off in silence.
pub const NAME_BYTES: usize = 63;

/// `name` as an identifier in SQL, quoted always.
pub fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `text` as a string literal in SQL.
pub fn literal(text: &str) -> String {
    // The E form reads backslashes the same way under any setting of the server.
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// `names` quoted, with commas between.
pub fn quote_all<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(quote).collect::<Vec<_>>().join(", ")
}

/// Checks that Postgres can keep `name`.
///
/// Errors: `Invalid` if it is empty, too long, or holds a NUL.
pub fn check_name(what: &str, name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::invalid(format!("a {what} has an empty name")).hint("rename it with --rename"));
    }
    if name.len() > NAME_BYTES {
        return Err(Error::invalid(format!(
            "the {what} '{name}' has a name of {} bytes; Postgres keeps {NAME_BYTES}",
            name.len()
        ))
        .hint("give it a shorter name, a column with --rename"));
    }
    if name.contains('\0') {
        return Err(Error::invalid(format!("the {what} {name:?} has a NUL in its name")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_and_checked() {
        assert_eq!(quote("a\"b"), "\"a\"\"b\"");
        assert_eq!(literal("it's\\"), "E'it''s\\\\'");
        assert!(check_name("column", &"x".repeat(63)).is_ok());
        let error = check_name("column", &"é".repeat(32)).unwrap_err();
        assert!(error.message().ends_with("has a name of 64 bytes; Postgres keeps 63"), "{error}");
    }
}
