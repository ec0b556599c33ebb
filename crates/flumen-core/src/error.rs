//! The one error type: sorted by how the caller should react, worded for the person who reads it.
//!
//! A message is one sentence that says what failed and where (file, line, table); the hint is the remedy.

use std::fmt;

/// How a caller reacts to an [`Error`]: retries, exit codes and HTTP statuses are decided by this alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request itself is wrong: an option, a file of settings, a query. Doing it again changes nothing.
    Invalid,
    /// A thing that was named is not there.
    NotFound,
    /// Somebody else was there first: a lock, a newer version, a load that runs already.
    Conflict,
    /// A system did not answer, or answered that it cannot now. The only kind that is worth a retry.
    Unavailable,
    /// The data does not fit: a bad row, a broken file.
    Data,
    /// What was asked for was done, and did not end well: a run of a flow.
    Failed,
    /// The person who runs the command asked to stop.
    Cancelled,
    /// Our own promise was broken.
    Internal,
}

impl ErrorKind {
    /// The process exit code for this kind, as documented in `docs/cli.md`.
    pub fn exit_code(self) -> u8 {
        match self {
            ErrorKind::Failed => 1,
            ErrorKind::Invalid => 2,
            ErrorKind::NotFound => 3,
            ErrorKind::Conflict => 4,
            ErrorKind::Unavailable => 5,
            ErrorKind::Data => 6,
            ErrorKind::Internal => 70,
            ErrorKind::Cancelled => 130,
        }
    }

    /// The name that `--json` prints.
    pub fn name(self) -> &'static str {
        match self {
            ErrorKind::Invalid => "invalid",
            ErrorKind::NotFound => "not_found",
            ErrorKind::Conflict => "conflict",
            ErrorKind::Unavailable => "unavailable",
            ErrorKind::Data => "data",
            ErrorKind::Failed => "failed",
            ErrorKind::Cancelled => "cancelled",
            ErrorKind::Internal => "internal",
        }
    }
}

/// What went wrong, in words for a person, with a remedy where one is known.
#[derive(Debug, thiserror::Error)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The result of everything in Flumen that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $kind:ident),* $(,)?) => {
        impl Error {
            $($(#[$doc])* pub fn $name(message: impl Into<String>) -> Self { Self::new(ErrorKind::$kind, message) })*
        }
    };
}

constructors! {
    /// An error of kind [`ErrorKind::Invalid`].
    invalid => Invalid,
    /// An error of kind [`ErrorKind::NotFound`].
    not_found => NotFound,
    /// An error of kind [`ErrorKind::Conflict`].
    conflict => Conflict,
    /// An error of kind [`ErrorKind::Unavailable`].
    unavailable => Unavailable,
    /// An error of kind [`ErrorKind::Data`].
    data => Data,
    /// An error of kind [`ErrorKind::Internal`].
    internal => Internal,
}

impl Error {
    /// An error of `kind` with `message`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, source: None }
    }

    /// The answer to Ctrl-C.
    pub fn cancelled() -> Self {
        Self::new(ErrorKind::Cancelled, "cancelled; nothing was changed")
    }

    /// Adds the remedy: what the reader should do now.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Keeps the cause, for `--verbose` and logs.
    pub fn caused_by(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Puts `context` and a colon before the message: `yellow.csv: line 7 has 3 fields …`.
    pub fn within(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    /// How to react.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The sentence, without the hint.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The remedy, if one is known.
    pub fn remedy(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// From an I/O error at `place` (a path or an address), with the kind and the remedy that fit its cause.
    pub fn io(place: impl fmt::Display, error: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let (kind, what, hint) = match error.kind() {
            Io::NotFound => (ErrorKind::NotFound, "no such file or folder".to_owned(), Some("check the path")),
            Io::PermissionDenied => (
                ErrorKind::Invalid,
                "permission denied".to_owned(),
                Some("give the user who runs flumen access to it, or choose another place"),
            ),
            Io::StorageFull | Io::QuotaExceeded => (
                ErrorKind::Unavailable,
                "the disk is full".to_owned(),
                Some("free some space and run the same command again"),
            ),
            Io::FileTooLarge => (
                ErrorKind::Unavailable,
                "a file would grow too large".to_owned(),
                Some("choose another place, or raise the limit on the size of files ('ulimit -f' shows it)"),
            ),
            Io::ReadOnlyFilesystem => {
                (ErrorKind::Invalid, "the disk can only be read".to_owned(), Some("choose another place"))
            }
            Io::IsADirectory => (
                ErrorKind::Invalid,
                "this is a folder, not a file".to_owned(),
                Some("name the files in it, for example with '/*.csv'"),
            ),
            Io::NotADirectory => (
                ErrorKind::Invalid,
                "a part of this path is a file, not a folder".to_owned(),
                Some("choose another place"),
            ),
            Io::Interrupted => (ErrorKind::Cancelled, "interrupted".to_owned(), None),
            _ => (ErrorKind::Unavailable, error.to_string(), None),
        };
        let mut made = Self::new(kind, format!("{place}: {what}")).caused_by(error);
        made.hint = hint.map(str::to_owned);
        made
    }

    /// `nearest` of `candidates` to a `wrong` name, as a hint such as "did you mean 'trips'?".
    pub fn did_you_mean<'a>(self, wrong: &str, candidates: impl IntoIterator<Item = &'a str>) -> Self {
        match nearest(wrong, candidates) {
            Some(right) => self.hint(format!("did you mean '{right}'?")),
            None => self,
        }
    }
}

/// The candidate that a person most likely meant by `wrong`, if any is close.
pub fn nearest<'a>(wrong: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wrong = wrong.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&wrong, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.chars().count().min(wrong.chars().count()) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(error: arrow::error::ArrowError) -> Self {
        use arrow::error::ArrowError as A;
        match error {
            A::IoError(message, io) => Self::io(message, io),
            A::ExternalError(inner) => match inner.downcast::<Error>() {
                Ok(ours) => *ours,
                Err(other) => Self::data(other.to_string()).caused_by(other),
            },
            other => Self::data(other.to_string()).caused_by(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_near() {
        assert_eq!(nearest("trps", ["zones", "trips"]), Some("trips"));
        assert_eq!(nearest("Fare_Amount", ["fare_amount", "tip_amount"]), Some("fare_amount"));
        assert_eq!(nearest("x", ["trips", "zones"]), None);
    }

    #[test]
    fn a_full_disk_is_worth_a_retry_and_says_what_to_do() {
        let error = Error::io("/tmp/x", std::io::Error::from(std::io::ErrorKind::StorageFull));
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(error.to_string(), "/tmp/x: the disk is full");
        assert!(error.remedy().is_some_and(|hint| hint.contains("free some space")));
    }
}
