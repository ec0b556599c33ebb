//! What is wrong with a file, all of it, each with its place.

use std::fmt;

use flumen_core::Error;
use serde::Serialize;

/// A place in a file. Line and column count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

impl Place {
    /// Where a file begins.
    pub const START: Place = Place { line: 1, column: 1 };
}

/// Something wrong in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mistake {
    /// The file.
    pub file: String,
    /// Where in it.
    #[serde(flatten)]
    pub place: Place,
    /// One sentence.
    pub message: String,
    /// The remedy, where one is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.place.line, self.place.column, self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

/// All that is wrong with a file, in order of its lines. There is at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes(Vec<Mistake>);

impl Mistakes {
    /// These, in order, each once; `None` if there are none.
    pub(super) fn of(mut list: Vec<Mistake>) -> Option<Self> {
        list.sort_by(|a, b| (&a.file, a.place).cmp(&(&b.file, b.place)));
        list.dedup();
        (!list.is_empty()).then_some(Self(list))
    }

    /// Each of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Mistake> {
        self.0.iter()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

impl IntoIterator for Mistakes {
    type Item = Mistake;
    type IntoIter = std::vec::IntoIter<Mistake>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl fmt::Display for Mistakes {
    /// One a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, mistake) in self.0.iter().enumerate() {
            if number > 0 {
                writeln!(f)?;
            }
            write!(f, "{mistake}")?;
        }
        Ok(())
    }
}

impl From<Mistakes> for Error {
    /// One error that tells them all.
    fn from(mistakes: Mistakes) -> Self {
        match mistakes.0.as_slice() {
            [only] => {
                let bare = Mistake { hint: None, ..only.clone() };
                let error = Error::invalid(bare.to_string());
                match &only.hint {
                    Some(hint) => error.hint(hint),
                    None => error,
                }
            }
            many => {
                let file = many.first().map_or("the file", |mistake| &mistake.file);
                let mut text = format!("{file} has {} mistakes", many.len());
                for mistake in many {
                    text.push_str(&format!("\n  {mistake}"));
                }
                Error::invalid(text)
            }
        }
    }
}
