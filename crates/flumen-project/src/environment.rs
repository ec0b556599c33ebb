//! Environment variables: those of the process, and below them those of the project's `.env`.

use std::collections::BTreeMap;
use std::path::Path;

use flumen_core::{Error, Result};

/// The name of the file with a project's own variables. It is not committed.
pub const ENV_FILE: &str = ".env";

/// Where `env_var` and `secret_env` look. The process comes first, so that `PG_HOST=x flumen …` always works.
///
/// `Debug` shows names, no values: most of them are secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment {
    process: BTreeMap<String, String>,
    file: BTreeMap<String, String>,
}

impl Environment {
    /// The variables of this process alone. Those that are not UTF-8 are left out.
    pub fn of_process() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self { process: std::env::vars_os().filter_map(text).collect(), file: BTreeMap::new() }
    }

    /// These variables and no others: for tests.
    pub fn of(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        Self { process: variables.into_iter().collect(), file: BTreeMap::new() }
    }

    /// Adds the variables of the `.env` in `dir`, if there is one.
    ///
    /// Errors: `Invalid`, with the line, when the file is not one of variables.
    pub fn with_file(mut self, dir: &Path) -> Result<Self> {
        let path = dir.join(ENV_FILE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(self),
            Err(error) => return Err(Error::io(path.display(), error)),
        };
        let mut variables = BTreeMap::new();
        for variable in dotenvy::from_read_iter(bytes.as_slice()) {
            // The error of the crate shows the line's text, which may be a secret: only its place may be told.
            let (name, value) = variable.map_err(|_| broken_line(&bytes, &path))?;
            variables.insert(name, value);
        }
        self.file = variables;
        Ok(self)
    }

    /// The value of a variable. One that is set to nothing counts as set.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.process.get(name).or_else(|| self.file.get(name)).map(String::as_str)
    }

    /// The variables whose names begin with `prefix`.
    pub fn starting_with<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let file = self.file.iter().filter(|(name, _)| !self.process.contains_key(*name));
        let all = file.chain(&self.process).filter(move |(name, _)| name.starts_with(prefix));
        all.map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The names of the variables in `.env`.
    pub fn file_names(&self) -> impl Iterator<Item = &str> {
        self.file.keys().map(String::as_str)
    }
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Environment").field("file", &self.file.keys()).finish_non_exhaustive()
    }
}

/// The error for a `.env` that cannot be read, with the first line that is at fault.
fn broken_line(bytes: &[u8], path: &Path) -> Error {
    let text = String::from_utf8_lossy(bytes);
    let mut good = 0;
    // A value in quotes may go over several lines, so the longest beginning that can be read ends before the fault.
    for (index, _) in text.lines().enumerate() {
        let beginning: String = text.split_inclusive('\n').take(index + 1).collect();
        if dotenvy::from_read_iter(beginning.as_bytes()).all(|variable| variable.is_ok()) {
            good = index + 1;
        }
    }
    Error::invalid(format!("{}:{}: this line is not of the form NAME=value", path.display(), good + 1))
        .hint("put a value with spaces, '#' or '$' in single quotes: NAME='va lue'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_comes_before_the_file() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join(ENV_FILE), "# comment\nA=file\nexport B='b $x # y'\nC=\n").expect("written");
        let environment = Environment::of([("A".to_owned(), "process".to_owned())]);
        let environment = environment.with_file(dir.path()).expect("read");
        assert_eq!(environment.get("A"), Some("process"));
        assert_eq!(environment.get("B"), Some("b $x # y"));
        assert_eq!(environment.get("C"), Some(""));
        assert_eq!(environment.get("D"), None);
        assert!(!format!("{environment:?}").contains("b $x"));
    }

    #[test]
    fn a_broken_line_is_named_and_not_shown() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join(ENV_FILE), "A=1\nB='two\nlines'\nhunter2 secret\nC=3\n").expect("written");
        let error = Environment::default().with_file(dir.path()).expect_err("a broken line");
        assert!(error.to_string().ends_with(".env:4: this line is not of the form NAME=value"), "{error}");
        assert!(!format!("{error:?}").contains("hunter2"));
    }
}
