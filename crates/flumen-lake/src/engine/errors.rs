//! DataFusion's errors in our words: the right kind, one sentence, the place in the query, the nearest name.

use datafusion::common::{Column, DataFusionError, SchemaError};
use flumen_core::error::nearest;
use flumen_core::{Error, ErrorKind};

use super::files::TooNarrow;
use super::references;

/// A place in the text of a query. Line and column count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// The line.
    pub line: u64,
    /// The column, in characters.
    pub column: u64,
    /// How many characters are meant.
    pub width: u64,
}

/// `error`, which `sql` led to, for the person who wrote it.
pub(super) fn explain(error: DataFusionError, sql: &str) -> Error {
    match placed(error, sql) {
        (made, Some(place)) => at(made, place, sql),
        (made, None) => made,
    }
}

/// `error`, which the statement `sql` led to, and its place there.
pub(super) fn placed(error: DataFusionError, sql: &str) -> (Error, Option<Place>) {
    if let Some(ours) = ours(&error) {
        return (ours, None);
    }
    let place = place_of(&error, sql);
    (plain(error), place)
}

/// `error`, which a query made from the statement `sql` led to: its places are not those of `sql`, its names are.
pub(super) fn explain_part(error: DataFusionError, sql: &str) -> Error {
    if let Some(ours) = ours(&error) {
        return ours;
    }
    let place = named_place(&error, sql);
    let made = plain(error);
    match place {
        Some(place) => at(made, place, sql),
        None => made,
    }
}

/// `error` with its place before the sentence, and the line of the query with a mark below it.
pub(super) fn at(error: Error, place: Place, sql: &str) -> Error {
    let line = sql.lines().nth(usize::try_from(place.line.saturating_sub(1)).unwrap_or(usize::MAX));
    let Some(line) = line else { return error };
    // A tab stays one, so that the mark stands where the eye expects it.
    let before = line.chars().take(usize::try_from(place.column.saturating_sub(1)).unwrap_or(usize::MAX));
    let indent: String = before.map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
    let mark = "^".repeat(usize::try_from(place.width.max(1)).unwrap_or(1));
    let message =
        format!("line {}, column {}: {}\n  {line}\n  {indent}{mark}", place.line, place.column, error.message());
    let made = Error::new(error.kind(), message);
    match error.remedy() {
        Some(hint) => made.hint(hint),
        None => made,
    }
}

/// The error of ours that travelled through DataFusion, if `error` is one.
pub(super) fn ours(error: &DataFusionError) -> Option<Error> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(ours) = error.downcast_ref::<Error>() {
            let copy = Error::new(ours.kind(), ours.message());
            let copy = match std::error::Error::source(ours).and_then(|cause| cause.downcast_ref::<TooNarrow>()) {
                Some(narrow) => copy.caused_by(narrow.clone()),
                None => copy,
            };
            return Some(match ours.remedy() {
                Some(hint) => copy.hint(hint),
                None => copy,
            });
        }
        cause = match error.downcast_ref::<DataFusionError>() {
            Some(DataFusionError::External(inner)) => Some(inner.as_ref()),
            Some(DataFusionError::Shared(inner)) => Some(inner.as_ref()),
            _ => error.source(),
        };
    }
    None
}

fn place_of(error: &DataFusionError, sql: &str) -> Option<Place> {
    if let Some(span) = error.diagnostic().and_then(|diagnostic| diagnostic.span)
        && span.start.line > 0
    {
        let width =
            if span.end.line == span.start.line { span.end.column.saturating_sub(span.start.column) } else { 1 };
        return Some(Place { line: span.start.line, column: span.start.column, width });
    }
    match error.find_root() {
        DataFusionError::SQL(parser, _) => parser_place(&parser.to_string(), sql),
        _ => named_place(error, sql),
    }
}

/// Where the name stands that an error is about.
fn named_place(error: &DataFusionError, sql: &str) -> Option<Place> {
    match error.find_root() {
        DataFusionError::SchemaError(schema, _) => match schema.as_ref() {
            SchemaError::FieldNotFound { field, .. } => find_word(sql, field.name()),
            SchemaError::AmbiguousReference { field } => find_word(sql, field.name()),
            _ => None,
        },
        DataFusionError::Plan(message) => quoted(message).and_then(|name| find_word(sql, name)),
        _ => None,
    }
}

/// The place that the parser's message ends with; the end of the text, where it ran out of it.
fn parser_place(message: &str, sql: &str) -> Option<Place> {
    if let Some((_, place)) = message.rsplit_once(" at Line: ") {
        let (line, column) = place.split_once(", Column: ")?;
        let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok();
        let (line, column): (u64, u64) = (digits(line)?, digits(column)?);
        if line > 0 {
            let width = width_of_word(sql, line, column);
            return Some(Place { line, column, width });
        }
    }
    let trimmed = sql.trim_end();
    let line = trimmed.lines().count().max(1) as u64;
    let column = trimmed.lines().last().map_or(0, |line| line.chars().count()) as u64 + 1;
    message.contains("found: EOF").then_some(Place { line, column, width: 1 })
}

fn width_of_word(sql: &str, line: u64, column: u64) -> u64 {
    let line = sql.lines().nth(usize::try_from(line.saturating_sub(1)).unwrap_or(usize::MAX)).unwrap_or_default();
    let rest = line.chars().skip(usize::try_from(column.saturating_sub(1)).unwrap_or(usize::MAX));
    rest.take_while(|c| c.is_alphanumeric() || *c == '_').count().max(1) as u64
}

/// Where `word` stands in `sql` as a word of its own, if it stands there.
pub(super) fn find_word(sql: &str, word: &str) -> Option<Place> {
    if word.is_empty() {
        return None;
    }
    let in_word = |c: char| c.is_alphanumeric() || c == '_';
    for (number, line) in sql.lines().enumerate() {
        let lower = line.to_lowercase();
        for (start, found) in lower.match_indices(&word.to_lowercase()) {
            let before = lower[..start].chars().next_back().is_some_and(in_word);
            let after = lower[start + found.len()..].chars().next().is_some_and(in_word);
            if !before && !after {
                return Some(Place {
                    line: number as u64 + 1,
                    column: lower[..start].chars().count() as u64 + 1,
                    width: word.chars().count() as u64,
                });
            }
        }
    }
    None
}

/// The first text in single quotes.
fn quoted(message: &str) -> Option<&str> {
    message.split('\'').nth(1)
}

/// The error without its place.
fn plain(error: DataFusionError) -> Error {
    let root = error.find_root();
    let made = match root {
        DataFusionError::SQL(parser, _) => syntax(&parser.to_string()),
        DataFusionError::SchemaError(schema, _) => schema_error(schema),
        other if no_signature(&other.strip_backtrace()).is_some() => {
            no_signature(&other.strip_backtrace()).unwrap_or_else(|| Error::invalid("a function is called wrongly"))
        }
        DataFusionError::Plan(message) => planning(message),
        DataFusionError::NotImplemented(message) if message.contains("does not support logical expression") => {
            Error::invalid("a query within cannot stand there")
                .hint("have what it answers as a column first: from (select *, x in (select …) as y from …)")
        }
        DataFusionError::NotImplemented(message) => {
            Error::invalid(format!("this is not supported: {}", sentence(message)))
        }
        DataFusionError::Configuration(message) => Error::invalid(sentence(message)),
        DataFusionError::ResourcesExhausted(message) => out_of_memory(message),
        DataFusionError::ArrowError(arrow, _) => value_error(&arrow.to_string()),
        DataFusionError::Execution(message) => value_error(message),
        DataFusionError::ParquetError(parquet) => missing_file(&parquet.to_string()).unwrap_or_else(|| {
            Error::data(format!("a Parquet file cannot be read: {}", sentence(&parquet.to_string())))
        }),
        DataFusionError::ObjectStore(store) => store_error(store),
        DataFusionError::IoError(io) => io_error(io),
        other => Error::internal(format!("the SQL engine failed: {}", sentence(&other.strip_backtrace()))),
    };
    made.caused_by(error)
}

fn syntax(message: &str) -> Error {
    let message = message.trim_start_matches("sql parser error: ").trim_start_matches("ParserError(\"");
    let message = message.split(" at Line: ").next().unwrap_or(message);
    let message = message.strip_prefix("Expected: ").map_or_else(
        || sentence(message),
        |rest| match rest.rsplit_once(", found: ") {
            Some((expected, "EOF")) => format!("the query ends where {expected} should be"),
            Some((expected, found)) => format!("there should be {expected}, not '{found}'"),
            None => format!("there should be {rest}"),
        },
    );
    Error::invalid(message)
}

/// The name that `error` says means two columns.
pub(super) fn meant_twice(error: &DataFusionError) -> Option<&str> {
    match error.find_root() {
        DataFusionError::SchemaError(schema, _) => match schema.as_ref() {
            SchemaError::AmbiguousReference { field } => Some(field.name()),
            SchemaError::DuplicateUnqualifiedField { name } | SchemaError::DuplicateQualifiedField { name, .. } => {
                Some(name)
            }
            SchemaError::FieldNotFound { .. } => None,
        },
        _ => None,
    }
}

/// The column that `error` says is not there, and those that are.
pub(super) fn missing(error: &DataFusionError) -> Option<(&Column, &[Column])> {
    match error.find_root() {
        DataFusionError::SchemaError(schema, _) => match schema.as_ref() {
            SchemaError::FieldNotFound { field, valid_fields } => Some((field, valid_fields)),
            _ => None,
        },
        _ => None,
    }
}

fn schema_error(error: &SchemaError) -> Error {
    match error {
        // What stands for the query within `x in (select …)`.
        SchemaError::FieldNotFound { field, .. }
            if field.relation.as_ref().is_some_and(|relation| relation.table() == super::shapes::WITHIN) =>
        {
            Error::invalid("'x in (select …)' cannot stand among the columns here").hint(
                "where rows are grouped, have it as a column of a subquery first; where the query within looks outside, say \
                of which table x is: t.x in (select …)",
            )
        }
        SchemaError::FieldNotFound { field, valid_fields } => {
            let mut made = Error::invalid(format!("there is no column '{}'", field.flat_name().replace('"', "")));
            let mut names: Vec<&str> = Vec::new();
            for column in valid_fields {
                if !names.contains(&column.name()) && !column.name().starts_with("_flumen_") {
                    names.push(column.name());
                }
            }
            if let Some(right) = nearest(field.name(), names.iter().copied()) {
                made = made.hint(format!("did you mean '{right}'?"));
            } else if !names.is_empty() {
                made = made.hint(format!("there are: {}", list(&names)));
            }
            Error::new(ErrorKind::NotFound, made.message())
                .hint(made.remedy().unwrap_or("see the table's columns with \\d"))
        }
        SchemaError::AmbiguousReference { field } => {
            Error::invalid(format!("'{}' could be any of several columns", field.name()))
                .hint(format!(
                    "write which one is meant: table.{0}; beside a star that has it as well: * exclude ({0})",
                    field.name()
                ))
        }
        SchemaError::DuplicateUnqualifiedField { name } | SchemaError::DuplicateQualifiedField { name, .. } => {
            Error::invalid(format!("the column '{name}' would be there twice")).hint("rename one with 'as'")
        }
    }
}

/// Names for a hint: as many as one takes in at a glance.
pub(super) fn list(names: &[&str]) -> String {
    const SHOWN: usize = 12;
    let mut text = names.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text.push_str(&format!(" and {} more", names.len() - SHOWN));
    }
    text
}

/// The error of a function that does not take what it is given, if `message` says so.
fn no_signature(message: &str) -> Option<Error> {
    let (before, _) = message.split_once("failed to match any signature")?;
    let function = before.rsplit('\'').nth(1)?;
    Some(Error::invalid(format!("{function} does not take values of this type")).hint(format!(
        "cast them: {function}(x::double); text such as '1,5' becomes a number by replace(x, ',', '.')::double"
    )))
}

fn planning(message: &str) -> Error {
    let mut lines = message.lines();
    let first = sentence(lines.next().unwrap_or(message));
    if let Some(function) = first.strip_prefix("invalid function '").and_then(|rest| rest.split('\'').next()) {
        let made = Error::not_found(format!("there is no function '{function}'"));
        if references::is_function(function) {
            return made.hint(format!("it gives a table: select … from {function}(…)"));
        }
        let suggested = message.split("Did you mean '").nth(1).and_then(|rest| rest.split('\'').next());
        return match suggested.filter(|right| nearest(function, [*right]).is_some()) {
            Some(right) => made.hint(format!("did you mean '{right}'?")),
            None => made,
        };
    }
    let made = Error::invalid(first);
    match lines.map(str::trim).find(|line| !line.is_empty()) {
        Some(more) => made.hint(more),
        None => made,
    }
}

fn value_error(message: &str) -> Error {
    let text = sentence(message);
    let made = Error::data(text.clone());
    if text.starts_with("cannot cast") || text.starts_with("error parsing") || text.contains("parse") {
        made.hint("use try_cast(… as …), which gives null for a value that does not fit")
    } else if text.starts_with("divide by zero") {
        made.hint("use nullif(x, 0) as the divisor, which gives null instead")
    } else {
        made
    }
}

/// Whether `error` says that a join keeps more rows for looking up than memory has room for.
pub(super) fn is_join_too_large(error: &Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<DataFusionError>());
    cause.is_some_and(|cause| {
        matches!(cause.find_root(), DataFusionError::ResourcesExhausted(message) if message.contains("HashJoinInput"))
    })
}

fn out_of_memory(message: &str) -> Error {
    let what = sentence(message.lines().next().unwrap_or(message));
    // The users that were counted come a line each.
    let what = match what.split_once(" with top memory consumers") {
        Some((what, _)) => {
            let users = message.lines().skip(1).take_while(|line| line.starts_with(' '));
            let users: Vec<&str> = users.map(|line| line.trim().trim_end_matches([',', '.'])).collect();
            format!("{what}; the most is used by {}", users.join(", "))
        }
        None => what,
    };
    Error::new(ErrorKind::Unavailable, format!("the query needs more memory than it may have: {what}"))
        .hint("give it more with --memory (such as --memory 4GB), or ask for fewer rows or groups")
}

/// The Parquet reader tells by its text alone that a file is not there.
fn missing_file(message: &str) -> Option<Error> {
    let (path, rest) = message.split_once("Object at location ")?.1.split_once(' ')?;
    rest.starts_with("not found").then(|| gone(path))
}

fn gone(path: &str) -> Error {
    Error::not_found(format!("the file {path} is gone")).hint("was it deleted while the query ran? try again")
}

fn store_error(error: &object_store::Error) -> Error {
    match error {
        object_store::Error::NotFound { path, .. } => gone(path),
        other => Error::new(ErrorKind::Unavailable, sentence(&other.to_string())),
    }
}

fn io_error(error: &std::io::Error) -> Error {
    Error::io("a file that the query uses", std::io::Error::from(error.kind()))
}

/// The message as a sentence of ours: no prefixes of layers, a small first letter, no dot at the end.
fn sentence(message: &str) -> String {
    const PREFIXES: &[&str] = &[
        "Error during planning: ",
        "Execution error: ",
        "Arrow error: ",
        "Parquet error: ",
        "External error: ",
        "Schema error: ",
        "Cast error: ",
        "Parser error: ",
        "Compute error: ",
        "Invalid argument error: ",
        "Optimizer rule ",
    ];
    let mut text = message.trim();
    while let Some(rest) = PREFIXES.iter().find_map(|prefix| text.strip_prefix(prefix)) {
        text = rest.trim_start();
    }
    let text = text.split("\n\nThis issue was likely caused by a bug").next().unwrap_or(text);
    let text = text.split(".\nThis issue was likely caused by a bug").next().unwrap_or(text);
    let text = text.trim_end().trim_end_matches('.');
    let mut letters = text.chars();
    match (letters.next(), letters.next()) {
        // An abbreviation keeps its capitals.
        (Some(first), Some(second)) if first.is_uppercase() && !second.is_uppercase() => {
            first.to_lowercase().chain(text.chars().skip(1)).collect()
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_stands_below_the_word() {
        let sql = "select a,\n\tfarre from t";
        let place = find_word(sql, "farre").expect("it is there");
        let error = at(Error::invalid("there is no column 'farre'").hint("did you mean 'fare'?"), place, sql);
        assert_eq!(error.message(), "line 2, column 2: there is no column 'farre'\n  \tfarre from t\n  \t^^^^^");
        assert_eq!(error.remedy(), Some("did you mean 'fare'?"));
    }

    #[test]
    fn words_are_found_as_words() {
        assert_eq!(find_word("select fares, fare", "fare"), Some(Place { line: 1, column: 15, width: 4 }));
        assert_eq!(find_word("select fares", "fare"), None);
        assert_eq!(find_word("select 1", ""), None);
    }

    #[test]
    fn who_uses_memory_is_told_whole() {
        let message = "Additional allocation failed for Sort[0] with top memory consumers (across reservations) as:\n  \
            Sort[0]#3(can spill: true) consumed 9.0 MB, peak 9.0 MB,\n  Join[1]#4(can spill: false) consumed 1.0 MB, peak \
            2.0 MB.\nError: Failed to allocate";
        assert_eq!(
            out_of_memory(message).message(),
            "the query needs more memory than it may have: additional allocation failed for Sort[0]; the most is used by \
             Sort[0]#3(can spill: true) consumed 9.0 MB, peak 9.0 MB, Join[1]#4(can spill: false) consumed 1.0 MB, peak \
             2.0 MB"
        );
    }

    #[test]
    fn a_function_that_does_not_fit_is_no_fault_of_ours() {
        let message = "Internal error: Function 'sum' failed to match any signature, errors: …\nThis issue was likely caused by \
            a bug in DataFusion's code.";
        let error = plain(DataFusionError::Internal(message.to_owned()));
        assert_eq!((error.kind(), error.message()), (ErrorKind::Invalid, "sum does not take values of this type"));
    }

    #[test]
    fn messages_become_sentences() {
        assert_eq!(sentence("Error during planning: Inconsistent data type."), "inconsistent data type");
        assert_eq!(sentence("SQL is hard"), "SQL is hard");
        assert_eq!(
            syntax("sql parser error: Expected: an expression, found: EOF").message(),
            "the query ends where an expression should be"
        );
    }
}
