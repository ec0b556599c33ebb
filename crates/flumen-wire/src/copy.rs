//! What a COPY statement says.

use crate::failure::{Failure, code};
use crate::scan::{self, Kind as PieceKind};
use crate::statement::Words;

/// A COPY statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Copy {
    /// What is copied: a table as it is written, with its columns, or a query.
    pub what: What,
    /// Whether rows come in.
    pub incoming: bool,
    /// A file of the server, where it is not the client.
    pub file: Option<String>,
    /// Whether that is a program.
    pub program: bool,
    /// How the rows are written.
    pub format: Format,
}

/// What is copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// A table, and some of its columns; all, if none are named.
    Table { name: String, columns: Vec<String> },
    /// The rows of a query.
    Query(String),
}

/// How rows are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Format {
    /// A line for a row, with escapes.
    Text { delimiter: u8, null: String, header: bool },
    /// CSV.
    Csv { delimiter: u8, null: String, header: bool, quote: u8, escape: u8, force_quote: ForceQuote },
    /// Postgres' own.
    Binary,
}

/// Columns that are quoted whatever they hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ForceQuote {
    /// These.
    Columns(Vec<String>),
    /// All.
    All,
}

impl Copy {
    /// Understands the words of a COPY.
    ///
    /// Errors: it is not one, or has options that are not known.
    pub fn parse(mut words: Words<'_>) -> Result<Self, Failure> {
        words.take(&["copy"]);
        let binary = words.take(&["binary"]);
        let what = if words.peek_word() == "(" { query(&mut words)? } else { table(&mut words)? };
        let incoming = match words.peek_word().as_str() {
            "from" => true,
            "to" => false,
            _ => return Err(words.end().err().unwrap_or_else(|| syntax("'from' or 'to' is missing"))),
        };
        words.place += 1;
        if incoming && matches!(what, What::Query(_)) {
            return Err(syntax("rows cannot be copied into a query"));
        }
        let program = words.take(&["program"]);
        let file = if !program && words.take(&["stdin", "stdout"]) { None } else { Some(text(&mut words)?) };
        words.take(&["with"]);
        let mut options = Options::default();
        if binary {
            options.format = Some("binary".to_owned());
        }
        if words.take(&["("]) {
            options.listed(&mut words)?
        } else {
            options.old(&mut words)?
        }
        words.end()?;
        Ok(Self { what, incoming, file, program, format: options.format()? })
    }
}

fn syntax(message: impl Into<String>) -> Failure {
    Failure::new(code::SYNTAX_ERROR, message)
}

/// The query between parentheses.
fn query(words: &mut Words<'_>) -> Result<What, Failure> {
    let start = words.next().map_or(0, |piece| piece.at.end);
    let mut depth = 1;
    while let Some(piece) = words.next() {
        match &words.text[piece.at.clone()] {
            "(" => depth += 1,
            ")" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Ok(What::Query(words.text[start..piece.at.start].trim().to_owned()));
        }
    }
    Err(syntax("a parenthesis is missing"))
}

fn table(words: &mut Words<'_>) -> Result<What, Failure> {
    let start = words.peek().map_or(0, |piece| piece.at.start);
    // A name, and more of them after dots; a file in quotes is one too, for the engine to judge.
    let mut end = start;
    while let Some(piece) =
        words.next().filter(|piece| matches!(piece.kind, PieceKind::Word | PieceKind::Name | PieceKind::Text))
    {
        end = piece.at.end;
        if !words.take(&["."]) {
            break;
        }
    }
    let name = words.text[start..end].to_owned();
    let mut columns = Vec::new();
    if words.take(&["("]) {
        loop {
            columns.push(words.name()?);
            if words.take(&[")"]) {
                break;
            }
            if !words.take(&[","]) {
                return Err(syntax("a parenthesis is missing"));
            }
        }
    }
    if name.is_empty() { Err(syntax("the table is missing")) } else { Ok(What::Table { name, columns }) }
}

/// A text in quotes.
fn text(words: &mut Words<'_>) -> Result<String, Failure> {
    let piece = words.next().filter(|piece| piece.kind == PieceKind::Text);
    let text = piece.and_then(|piece| scan::unquoted(&words.text[piece.at.clone()]));
    text.ok_or_else(|| syntax("a text in quotes is missing"))
}

#[derive(Default)]
struct Options {
    format: Option<String>,
    delimiter: Option<String>,
    null: Option<String>,
    header: bool,
    quote: Option<String>,
    escape: Option<String>,
    force_quote: Option<ForceQuote>,
}

impl Options {
    /// `(format csv, header true)`.
    fn listed(&mut self, words: &mut Words<'_>) -> Result<(), Failure> {
        loop {
            let name = words.name()?;
            match name.as_str() {
                "format" => {
                    let quoted = words.peek().is_some_and(|piece| piece.kind == PieceKind::Text);
                    let format = if quoted { text(words)? } else { words.name()? };
                    self.format = Some(format.to_lowercase());
                }
                "delimiter" => self.delimiter = Some(text(words)?),
                "null" => self.null = Some(text(words)?),
                "quote" => self.quote = Some(text(words)?),
                "escape" => self.escape = Some(text(words)?),
                "header" => self.header = flag(words)?,
                "force_quote" => self.force_quote = Some(force_quote(words)?),
                "freeze" => drop(flag(words)?),
                "encoding" => encoding(words)?,
                other => return Err(unknown(other)),
            }
            if words.take(&[")"]) {
                return Ok(());
            }
            if !words.take(&[","]) {
                return Err(words.end().err().unwrap_or_else(|| syntax("a parenthesis is missing")));
            }
        }
    }

    /// `csv header delimiter ';'`.
    fn old(&mut self, words: &mut Words<'_>) -> Result<(), Failure> {
        while words.peek().is_some() {
            let name = words.name()?;
            match name.as_str() {
                "csv" | "binary" | "text" => self.format = Some(name),
                "header" => self.header = true,
                "delimiter" | "delimiters" => {
                    words.take(&["as"]);
                    self.delimiter = Some(text(words)?);
                }
                "null" => {
                    words.take(&["as"]);
                    self.null = Some(text(words)?);
                }
                "quote" => {
                    words.take(&["as"]);
                    self.quote = Some(text(words)?);
                }
                "escape" => {
                    words.take(&["as"]);
                    self.escape = Some(text(words)?);
                }
                "force" => {
                    words.take(&["quote"]);
                    self.force_quote = Some(force_quote(words)?);
                }
                "encoding" => encoding(words)?,
                other => return Err(unknown(other)),
            }
        }
        Ok(())
    }

    fn format(self) -> Result<Format, Failure> {
        let one = |name: &str, text: Option<String>, default: u8| match text.as_deref().map(str::as_bytes) {
            None => Ok(default),
            Some([byte]) if byte.is_ascii() && !matches!(byte, b'\n' | b'\r') => Ok(*byte),
            Some(_) => Err(syntax(format!("{name} must be one character"))),
        };
        let csv_only = self.quote.is_some() || self.escape.is_some() || self.force_quote.is_some();
        match self.format.as_deref() {
            None | Some("text") if !csv_only => Ok(Format::Text {
                delimiter: one("the delimiter", self.delimiter, b'\t')?,
                null: self.null.unwrap_or_else(|| "\\N".to_owned()),
                header: self.header,
            }),
            Some("csv") => {
                let quote = one("the quote", self.quote, b'"')?;
                Ok(Format::Csv {
                    delimiter: one("the delimiter", self.delimiter, b',')?,
                    null: self.null.unwrap_or_default(),
                    header: self.header,
                    quote,
                    escape: one("the escape", self.escape, quote)?,
                    force_quote: self.force_quote.unwrap_or(ForceQuote::Columns(Vec::new())),
                })
            }
            Some("binary") if !csv_only && !self.header && self.delimiter.is_none() && self.null.is_none() => {
                Ok(Format::Binary)
            }
            Some("binary") | Some("text") | None => Err(syntax("this option is not for this format")),
            Some(other) => Err(syntax(format!("COPY format \"{other}\" not recognized"))),
        }
    }
}

fn unknown(option: &str) -> Failure {
    Failure::new(code::FEATURE_NOT_SUPPORTED, format!("the option '{option}' of COPY is not known here"))
}

fn flag(words: &mut Words<'_>) -> Result<bool, Failure> {
    match words.peek_word().as_str() {
        "true" | "on" | "1" | "'true'" => {
            words.place += 1;
            Ok(true)
        }
        "false" | "off" | "0" | "'false'" => {
            words.place += 1;
            Ok(false)
        }
        "match" => Err(unknown("header match")),
        _ => Ok(true),
    }
}

fn encoding(words: &mut Words<'_>) -> Result<(), Failure> {
    let name = text(words)?.to_lowercase();
    match name.as_str() {
        "utf8" | "utf-8" | "unicode" => Ok(()),
        other => Err(Failure::new(code::FEATURE_NOT_SUPPORTED, format!("text is UTF-8 here, and not {other}"))),
    }
}

fn force_quote(words: &mut Words<'_>) -> Result<ForceQuote, Failure> {
    if words.take(&["*"]) {
        return Ok(ForceQuote::All);
    }
    let listed = words.take(&["("]);
    let mut columns = vec![words.name()?];
    while words.take(&[","]) {
        columns.push(words.name()?);
    }
    if listed && !words.take(&[")"]) {
        return Err(syntax("a parenthesis is missing"));
    }
    Ok(ForceQuote::Columns(columns))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(sql: &str) -> Result<Copy, Failure> {
        Copy::parse(Words { text: sql, pieces: &scan::pieces(sql), place: 0 })
    }

    #[test]
    fn old_and_new_words_say_the_same() {
        let new =
            parsed("COPY raw.\"T\" (a, \"B\") FROM STDIN WITH (FORMAT csv, HEADER true, DELIMITER ';', NULL 'x')");
        let old = parsed("copy raw.\"T\"(a,\"B\") from stdin with csv header delimiter as ';' null 'x'");
        let new = new.expect("understood");
        assert_eq!(Ok(new.clone()), old);
        assert_eq!(
            new.what,
            What::Table { name: "raw.\"T\"".to_owned(), columns: vec!["a".to_owned(), "B".to_owned()] }
        );
        let out = parsed("copy (select (1), ')' from t) to stdout (format binary)").expect("understood");
        assert_eq!((out.what, out.format), (What::Query("select (1), ')' from t".to_owned()), Format::Binary));
        assert!(!out.incoming);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for sql in [
            "copy t",
            "copy (select 1) from stdin",
            "copy t to stdout (format xml)",
            "copy t to stdout (format csv, delimiter 'ab')",
            "copy t to stdout (nothing)",
            "copy t to stdout (quote '\"')",
            "copy t from stdin (format csv",
        ] {
            assert!(parsed(sql).is_err(), "{sql}");
        }
        assert_eq!(parsed("copy t to '/etc/x'").expect("understood").file.as_deref(), Some("/etc/x"));
    }
}
