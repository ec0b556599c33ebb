//! LIKE and regular expressions.

use regex::{Regex, RegexBuilder};

use super::Context;
use super::value::Value;
use crate::failure::Failure;

/// What a pattern is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Like { ignore_case: bool },
    Regex { ignore_case: bool },
}

/// Whether `text` fits `pattern`; none where one is null.
pub(super) fn matches(kind: Kind, text: &Value, pattern: &Value, context: &Context) -> Result<Option<bool>, Failure> {
    let (Some(text), Some(pattern)) = (text.shown(&context.snapshot), pattern.shown(&context.snapshot)) else {
        return Ok(None);
    };
    let mut patterns = context.patterns.borrow_mut();
    if let Some(regex) = patterns.get(&(kind, pattern.clone())) {
        return Ok(Some(regex.is_match(&text)));
    }
    let regex = compiled(kind, &pattern)?;
    let found = regex.is_match(&text);
    patterns.insert((kind, pattern), regex);
    Ok(Some(found))
}

/// The regular expression that `pattern` is.
pub(super) fn compiled(kind: Kind, pattern: &str) -> Result<Regex, Failure> {
    let (text, ignore_case) = match kind {
        Kind::Like { ignore_case } => (like(pattern), ignore_case),
        Kind::Regex { ignore_case } => (pattern.to_owned(), ignore_case),
    };
    RegexBuilder::new(&text)
        .case_insensitive(ignore_case)
        .dot_matches_new_line(true)
        .build()
        .map_err(|_| Failure::new("2201B", format!("invalid regular expression: '{pattern}'")))
}

fn like(pattern: &str) -> String {
    let mut text = "^".to_owned();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '%' => text.push_str(".*"),
            '_' => text.push('.'),
            '\\' => text.push_str(&regex::escape(&chars.next().map(String::from).unwrap_or_default())),
            c => text.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
        }
    }
    text + "$"
}
