//! Errors as Postgres' clients know them: a code, the message, and where in the statement.

use flumen_core::{Error, ErrorKind};

/// Codes of errors, by the names that Postgres' documentation gives them.
pub(crate) mod code {
    pub const WARNING: &str = "01000";
    pub const PROTOCOL_VIOLATION: &str = "08P01";
    pub const FEATURE_NOT_SUPPORTED: &str = "0A000";
    pub const DATA_EXCEPTION: &str = "22000";
    pub const INVALID_TEXT: &str = "22P02";
    pub const INVALID_PARAMETER_VALUE: &str = "22023";
    pub const NOT_NULL_VIOLATION: &str = "23502";
    pub const CHECK_VIOLATION: &str = "23514";
    pub const ACTIVE_TRANSACTION: &str = "25001";
    pub const READ_ONLY: &str = "25006";
    pub const NO_ACTIVE_TRANSACTION: &str = "25P01";
    pub const IN_FAILED_TRANSACTION: &str = "25P02";
    pub const INVALID_AUTHORIZATION: &str = "28000";
    pub const INVALID_PASSWORD: &str = "28P01";
    pub const UNDEFINED_CURSOR: &str = "34000";
    pub const UNDEFINED_STATEMENT: &str = "26000";
    pub const UNDEFINED_SAVEPOINT: &str = "3B001";
    pub const UNDEFINED_DATABASE: &str = "3D000";
    pub const SERIALIZATION_FAILURE: &str = "40001";
    pub const SYNTAX_ERROR: &str = "42601";
    pub const INSUFFICIENT_PRIVILEGE: &str = "42501";
    pub const UNDEFINED_COLUMN: &str = "42703";
    pub const UNDEFINED_FUNCTION: &str = "42883";
    pub const UNDEFINED_TABLE: &str = "42P01";
    pub const UNDEFINED_PARAMETER: &str = "42P02";
    pub const UNDEFINED_OBJECT: &str = "42704";
    pub const DUPLICATE_CURSOR: &str = "42P03";
    pub const DUPLICATE_STATEMENT: &str = "42P05";
    pub const DUPLICATE_TABLE: &str = "42P07";
    pub const TOO_MANY_CONNECTIONS: &str = "53300";
    pub const OUT_OF_MEMORY: &str = "53200";
    pub const LIMIT_EXCEEDED: &str = "54000";
    pub const QUERY_CANCELED: &str = "57014";
    pub const ADMIN_SHUTDOWN: &str = "57P01";
    pub const IO_ERROR: &str = "58030";
    pub const INTERNAL: &str = "XX000";
}

/// Why a statement, or a login, came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Whether the connection ends with it.
    pub fatal: bool,
    /// The code.
    pub code: &'static str,
    /// The message.
    pub message: String,
    /// The remedy.
    pub hint: Option<String>,
    /// The character of the statement that is meant, from 1.
    pub position: Option<usize>,
}

impl Failure {
    /// An error with `code`.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { fatal: false, code, message: message.into(), hint: None, position: None }
    }

    /// An error with which the connection ends.
    pub fn fatal(code: &'static str, message: impl Into<String>) -> Self {
        Self { fatal: true, ..Self::new(code, message) }
    }

    /// Adds the remedy.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Our own error about `sql`: its place in the text becomes the position that clients show.
    pub fn about(error: &Error, sql: &str) -> Self {
        let text = error.message();
        let (place, message) = match place(text) {
            Some((line, column, rest)) => (position(sql, line, column), rest),
            None => (None, text),
        };
        // The excerpt of the statement below the message is the client's to show.
        let message = match (place, message.find("\n  ")) {
            (Some(_), Some(end)) => &message[..end],
            _ => message,
        };
        let mut made = Self::new(code_of(error, message), message);
        made.hint = remedy(error);
        made.position = place;
        made
    }

    /// Whether it says that a language lacks something: another may have it.
    pub fn is_about_language(&self) -> bool {
        matches!(self.code, code::FEATURE_NOT_SUPPORTED | code::UNDEFINED_FUNCTION | code::LIMIT_EXCEEDED)
    }

    /// Whether it has nothing to do with what the statement says: it was stopped.
    pub fn is_stop(&self) -> bool {
        self.fatal || self.code == code::QUERY_CANCELED
    }

    /// The fields of the message to the client.
    pub fn fields(&self) -> Vec<(u8, String)> {
        let severity = if self.fatal { "FATAL" } else { "ERROR" };
        let mut fields = vec![
            (b'S', severity.to_owned()),
            (b'V', severity.to_owned()),
            (b'C', self.code.to_owned()),
            (b'M', self.message.clone()),
        ];
        fields.extend(self.hint.iter().map(|hint| (b'H', hint.clone())));
        fields.extend(self.position.iter().map(|position| (b'P', position.to_string())));
        fields
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::about(&error, "")
    }
}

/// The remedy, as somebody needs it who is not at the command line.
pub(crate) fn remedy(error: &Error) -> Option<String> {
    let about_memory = error.kind() == ErrorKind::Unavailable && error.message().contains("needs more memory");
    if !about_memory {
        return error.remedy().map(str::to_owned);
    }
    let option = if error.message().contains("this session uses") { "--session-memory" } else { "--memory" };
    Some(format!("ask for fewer rows or groups; whoever runs the server can give more with {option}"))
}

fn code_of(error: &Error, message: &str) -> &'static str {
    let says = |words: &str| message.contains(words);
    match error.kind() {
        ErrorKind::NotFound if says("savepoint") => code::UNDEFINED_SAVEPOINT,
        ErrorKind::NotFound if says("column") => code::UNDEFINED_COLUMN,
        ErrorKind::NotFound | ErrorKind::Invalid if says("no function") => code::UNDEFINED_FUNCTION,
        ErrorKind::NotFound => code::UNDEFINED_TABLE,
        ErrorKind::Invalid if says("may only read") || says("read-only transaction") => code::READ_ONLY,
        ErrorKind::Invalid if says("can only be used in a block") => code::NO_ACTIVE_TRANSACTION,
        ErrorKind::Invalid if says("this block has failed") => code::IN_FAILED_TRANSACTION,
        ErrorKind::Invalid if says("no column") => code::UNDEFINED_COLUMN,
        ErrorKind::Invalid if says("no table") => code::UNDEFINED_TABLE,
        ErrorKind::Invalid if says("is not run here") => code::FEATURE_NOT_SUPPORTED,
        ErrorKind::Invalid if says("clients may") || says("by this session") || says("in this session") => {
            code::INSUFFICIENT_PRIVILEGE
        }
        ErrorKind::Invalid if says("this block writes to") => code::FEATURE_NOT_SUPPORTED,
        ErrorKind::Invalid => code::SYNTAX_ERROR,
        ErrorKind::Conflict if says("already") => code::DUPLICATE_TABLE,
        ErrorKind::Conflict => code::SERIALIZATION_FAILURE,
        ErrorKind::Unavailable if says("memory") => code::OUT_OF_MEMORY,
        ErrorKind::Unavailable => code::IO_ERROR,
        ErrorKind::Data if says("breaks the constraint") => code::CHECK_VIOLATION,
        ErrorKind::Data if says("has a null, which the table does not allow") => code::NOT_NULL_VIOLATION,
        ErrorKind::Failed => code::DATA_EXCEPTION,
        ErrorKind::Data => code::DATA_EXCEPTION,
        ErrorKind::Cancelled => code::QUERY_CANCELED,
        ErrorKind::Internal => code::INTERNAL,
    }
}

/// `line 1, column 8: …`, taken apart.
fn place(message: &str) -> Option<(usize, usize, &str)> {
    let rest = message.strip_prefix("line ")?;
    let (line, rest) = rest.split_once(", column ")?;
    let (column, rest) = rest.split_once(": ")?;
    Some((line.parse().ok()?, column.parse().ok()?, rest))
}

/// The character of `sql` that is at `line` and `column`, all from 1.
fn position(sql: &str, line: usize, column: usize) -> Option<usize> {
    let before: usize = sql.split('\n').take(line.checked_sub(1)?).map(|line| line.chars().count() + 1).sum();
    let place = before + column;
    (place <= sql.chars().count() + 1).then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_remedies_are_those_of_a_door() {
        for (error, expect) in [
            (Error::data("lake.a.b: column 'id' has a null, which the table does not allow"), "23502"),
            (Error::data("lake.a.b: a row breaks the constraint 'c' (a > 0): a = -1"), "23514"),
            (Error::invalid("this block writes to lake.a.b; it cannot write to lake.a.c too"), "0A000"),
            (Error::invalid("'x.csv' is a file, and clients may read none here"), "42501"),
        ] {
            assert_eq!(Failure::from(error).code, expect);
        }
        let memory = |what: &str| {
            let message = format!("the query needs more memory than it may have: {what}");
            Failure::from(Error::unavailable(message).hint("give it more with --memory")).hint.unwrap_or_default()
        };
        assert!(memory("Sort needs 9 bytes more, and this session uses 1 of its 2 bytes").contains("--session-memory"));
        assert!(memory("additional allocation failed for Sort").contains("--memory"));
    }

    #[test]
    fn the_place_of_an_error_becomes_a_position() {
        let error =
            Error::not_found("line 2, column 3: there is no column 'x'\n  select x\n         ^").hint("did you?");
        let failure = Failure::about(&error, "select\n  x from t");
        assert_eq!(failure.position, Some(10));
        assert_eq!(failure.message, "there is no column 'x'");
        assert_eq!((failure.code, failure.hint.as_deref()), (code::UNDEFINED_COLUMN, Some("did you?")));
        assert_eq!(Failure::from(Error::invalid("no")).position, None);
    }
}
