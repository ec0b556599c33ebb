//! Who may log in, and how a password is checked without being kept.
//!
//! [`scram`] has what a Postgres client's login is held against. [`testkit`](crate::testkit) holds every store to the
//! contract of [`UserStore`].

pub mod scram;

use std::fmt;

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use crate::error::{Error, Result};

/// The longest name of a user, in bytes: that of Postgres.
const NAME_BYTES: usize = 63;

/// Somebody who may log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The name, as it is typed to log in.
    pub name: String,
    /// Whether the user may read and not write.
    pub read_only: bool,
    /// When the user was added.
    pub created: DateTime<Utc>,
}

/// What is kept in place of a password: one value for each way to log in. Neither leads back to the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifiers {
    /// For SCRAM-SHA-256, in the form in which Postgres writes it.
    pub scram: String,
    /// For a password that arrives as it is typed, over TLS: a PHC string.
    pub web: String,
}

impl fmt::Debug for Verifiers {
    /// Shows nothing: weak passwords can be guessed from a verifier.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifiers(…)")
    }
}

/// Keeps users and their verifiers.
///
/// What one call has done, every later one sees, also from another process. Names are told apart by case.
#[async_trait]
pub trait UserStore: Send + Sync {
    /// Adds a user.
    ///
    /// Errors: `Conflict` when the name is taken.
    async fn add(&self, user: &User, verifiers: &Verifiers) -> Result<()>;

    /// Gives a user another password.
    ///
    /// Errors: `NotFound`.
    async fn set_verifiers(&self, name: &str, verifiers: &Verifiers) -> Result<()>;

    /// Lets a user write, or only read.
    ///
    /// Errors: `NotFound`.
    async fn set_read_only(&self, name: &str, read_only: bool) -> Result<()>;

    /// All users, sorted by name.
    async fn list(&self) -> Result<Vec<User>>;

    /// The user called `name`, with what the login is held against.
    async fn find(&self, name: &str) -> Result<Option<(User, Verifiers)>>;

    /// Removes a user.
    ///
    /// Errors: `NotFound`.
    async fn remove(&self, name: &str) -> Result<()>;
}

/// Whether a user may be called `name`.
///
/// Errors: `Invalid`.
pub fn check_name(name: &str) -> Result<()> {
    let good = name.starts_with(|c: char| c.is_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_alphanumeric() || "_-.@+".contains(c))
        && name.len() <= NAME_BYTES;
    if good {
        return Ok(());
    }
    Err(Error::invalid(format!("'{name}' cannot be the name of a user"))
        .hint("use a letter, then letters, digits and '_-.@+', 63 bytes at most"))
}

/// The answer where a user is not there.
pub fn no_user(name: &str) -> Error {
    Error::not_found(format!("there is no user '{name}'")).hint("'flumen user list' shows them")
}

/// The answer where a name is taken.
pub fn name_taken(name: &str) -> Error {
    Error::new(crate::ErrorKind::Conflict, format!("there is a user '{name}' already"))
        .hint(format!("'flumen user passwd {name}' gives another password"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["ann", "_x", "ann.b@example.org", "josé"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "1a", "a b", "a'b", "a\0", &"x".repeat(64)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
