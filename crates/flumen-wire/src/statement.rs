//! What a statement is, as far as a session has to know: what is about the session itself, what the catalog answers, and what
//! is for the engine. What it does to the lake is for the engine to know.

use datafusion::sql::sqlparser::ast::{Query, Statement as Ast};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;

use crate::copy::Copy;
use crate::failure::{Failure, code};
use crate::scan::{self, Kind as PieceKind, Piece};

/// How deep expressions may be nested.
const DEPTH: usize = 200;

/// One statement.
#[derive(Debug, Clone)]
pub(crate) struct Statement {
    /// Its text.
    pub text: String,
    /// What it is.
    pub kind: Kind,
}

/// What a statement is.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Begin {
        read_only: bool,
    },
    Commit,
    Rollback,
    Savepoint,
    Release,
    RollbackTo,
    Set {
        name: String,
        value: Option<String>,
        local: bool,
    },
    /// `SET TRANSACTION …`: how this transaction shall be.
    SetTransaction {
        read_only: bool,
    },
    Show(String),
    ResetAll,
    Copy(Box<Copy>),
    Declare {
        name: String,
        query: String,
        hold: bool,
        binary: bool,
    },
    Fetch {
        cursor: String,
        rows: Option<usize>,
        skip: bool,
    },
    Close(Option<String>),
    DiscardAll,
    Deallocate(Option<String>),
    Unlisten,
    /// A query that may be about the catalog.
    Query(Box<Query>),
    /// Anything else. It answers rows, or says what it did; `word` is what is said where it does not say so itself.
    Other {
        rows: bool,
        word: String,
    },
}

/// Understands `text`, one statement.
///
/// Errors: what is not possible here at all.
pub(crate) fn understand(text: &str) -> Result<Statement, Failure> {
    let pieces = scan::pieces(text);
    let words = Words { text, pieces: &pieces, place: 0 };
    let kind = kind(words)?;
    Ok(Statement { text: text.to_owned(), kind })
}

/// The words of a statement, one after the other.
#[derive(Clone)]
pub(crate) struct Words<'a> {
    pub text: &'a str,
    pub pieces: &'a [Piece],
    pub place: usize,
}

impl<'a> Words<'a> {
    /// The next piece.
    pub fn next(&mut self) -> Option<&'a Piece> {
        let piece = self.pieces.get(self.place)?;
        self.place += 1;
        Some(piece)
    }

    /// The next piece, which stays.
    pub fn peek(&self) -> Option<&'a Piece> {
        self.pieces.get(self.place)
    }

    /// Its text in lower case.
    pub fn peek_word(&self) -> String {
        self.peek().map(|piece| self.text[piece.at.clone()].to_lowercase()).unwrap_or_default()
    }

    /// Takes the next piece if it is one of `words`.
    pub fn take(&mut self, words: &[&str]) -> bool {
        let found = words.contains(&self.peek_word().as_str());
        self.place += usize::from(found);
        found
    }

    /// Takes a name.
    pub fn name(&mut self) -> Result<String, Failure> {
        let name = self.next().and_then(|piece| scan::name(self.text, piece));
        name.ok_or_else(|| Failure::new(code::SYNTAX_ERROR, "a name is missing"))
    }

    /// The text from here to the end.
    pub fn rest(&self) -> &'a str {
        self.peek().map_or("", |piece| self.text[piece.at.start..].trim_end())
    }

    /// What is at its end.
    pub fn end(&self) -> Result<(), Failure> {
        match self.peek() {
            None => Ok(()),
            Some(piece) => {
                let mut failure = Failure::new(
                    code::SYNTAX_ERROR,
                    format!("syntax error at or near \"{}\"", &self.text[piece.at.clone()]),
                );
                failure.position = Some(self.text[..piece.at.start].chars().count() + 1);
                Err(failure)
            }
        }
    }
}

fn kind(mut words: Words<'_>) -> Result<Kind, Failure> {
    let whole = words.clone();
    let first = words.peek_word();
    words.place += 1;
    let second = words.peek_word();
    let other = |rows: bool, word: &str| Kind::Other { rows, word: word.to_owned() };
    Ok(match (first.as_str(), second.as_str()) {
        ("begin", _) | ("start", "transaction") => Kind::Begin { read_only: is_read_only(&words) },
        ("commit" | "end", _) => Kind::Commit,
        ("rollback", _) if contains(&words, &["to"]) => Kind::RollbackTo,
        ("rollback" | "abort", _) => Kind::Rollback,
        ("savepoint", _) => Kind::Savepoint,
        ("release", _) => Kind::Release,
        ("set", _) => set(words)?,
        ("show", _) => show(words),
        ("reset", "all") => Kind::ResetAll,
        ("reset", _) => Kind::Set { name: dotted(&mut words)?, value: None, local: false },
        ("copy", _) => Kind::Copy(Box::new(Copy::parse(whole)?)),
        ("declare", _) => declare(words)?,
        ("fetch", _) => fetch(words, false)?,
        ("move", _) => fetch(words, true)?,
        ("close", "all") => Kind::Close(None),
        ("close", _) => Kind::Close(Some(words.name()?)),
        ("discard", _) => Kind::DiscardAll,
        ("deallocate", _) => {
            words.take(&["prepare"]);
            if words.take(&["all"]) { Kind::Deallocate(None) } else { Kind::Deallocate(Some(words.name()?)) }
        }
        ("unlisten", _) => Kind::Unlisten,
        ("listen" | "notify", _) => {
            return Err(Failure::new(code::FEATURE_NOT_SUPPORTED, "there are no notifications here"));
        }
        ("select" | "with" | "values" | "table" | "(", _) => match parse(whole.text) {
            Some(query) => Kind::Query(Box::new(query)),
            None => other(true, "SELECT"),
        },
        ("explain", _) => other(true, "EXPLAIN"),
        ("describe" | "desc", _) => other(true, "DESCRIBE"),
        ("execute", _) => other(true, "SELECT"),
        ("insert" | "update" | "delete", _) => other(contains(&words, &["returning"]), &first.to_uppercase()),
        _ => other(false, &first.to_uppercase()),
    })
}

fn contains(words: &Words<'_>, wanted: &[&str]) -> bool {
    let is = |piece: &Piece| {
        piece.kind == PieceKind::Word && wanted.contains(&words.text[piece.at.clone()].to_lowercase().as_str())
    };
    words.pieces[words.place.min(words.pieces.len())..].iter().any(is)
}

fn is_read_only(words: &Words<'_>) -> bool {
    contains(words, &["read"]) && contains(words, &["only"])
}

/// The query that `sql` is, for Postgres' parser; none if it is not.
pub(crate) fn parse(sql: &str) -> Option<Query> {
    let mut parser = Parser::new(&PostgreSqlDialect {}).with_recursion_limit(DEPTH).try_with_sql(sql).ok()?;
    let [statement]: [Ast; 1] = parser.parse_statements().ok()?.try_into().ok()?;
    match statement {
        Ast::Query(query) => Some(*query),
        _ => None,
    }
}

/// `flumen.env`, `statement_timeout`.
fn dotted(words: &mut Words<'_>) -> Result<String, Failure> {
    let mut name = words.name()?;
    while words.take(&["."]) {
        name = format!("{name}.{}", words.name()?);
    }
    Ok(name)
}

fn set(mut words: Words<'_>) -> Result<Kind, Failure> {
    if words.take(&["transaction"]) {
        return Ok(Kind::SetTransaction { read_only: is_read_only(&words) });
    }
    let local = words.take(&["local"]);
    if words.take(&["session"]) {
        if words.take(&["characteristics"]) {
            let value = if is_read_only(&words) { "on" } else { "off" };
            let name = "default_transaction_read_only".to_owned();
            return Ok(Kind::Set { name, value: Some(value.to_owned()), local: false });
        }
        if words.take(&["authorization"]) {
            let name = "session_authorization".to_owned();
            return Ok(Kind::Set { name, value: Some(value(&words)), local });
        }
    }
    if words.take(&["time"]) {
        words.take(&["zone"]);
        return Ok(Kind::Set { name: "timezone".to_owned(), value: Some(value(&words)), local });
    }
    if words.take(&["names"]) {
        return Ok(Kind::Set { name: "client_encoding".to_owned(), value: Some(value(&words)), local });
    }
    let name = dotted(&mut words)?;
    if !words.take(&["=", "to"]) && name != "role" {
        words.end()?;
        return Err(Failure::new(code::SYNTAX_ERROR, format!("'set {name}' has no value")));
    }
    Ok(Kind::Set { name, value: Some(value(&words)), local })
}

/// The rest as the value of a setting: without the quotes.
fn value(words: &Words<'_>) -> String {
    match &words.pieces[words.place.min(words.pieces.len())..] {
        [piece] => {
            let text = &words.text[piece.at.clone()];
            scan::unquoted(text).or_else(|| scan::name(words.text, piece)).unwrap_or_else(|| text.to_owned())
        }
        _ => words.rest().to_owned(),
    }
}

fn show(mut words: Words<'_>) -> Kind {
    let whole = words.rest().to_lowercase();
    let name = match whole.as_str() {
        "transaction isolation level" => "transaction_isolation".to_owned(),
        "time zone" => "timezone".to_owned(),
        _ => match dotted(&mut words) {
            Ok(name) if words.peek().is_none() => name,
            _ => return Kind::Other { rows: true, word: "SHOW".to_owned() },
        },
    };
    match name.as_str() {
        "tables" | "columns" | "functions" | "databases" | "schemas" | "views" | "catalogs" => {
            Kind::Other { rows: true, word: "SHOW".to_owned() }
        }
        _ => Kind::Show(name),
    }
}

fn declare(mut words: Words<'_>) -> Result<Kind, Failure> {
    let name = words.name()?;
    let (mut hold, mut binary) = (false, false);
    loop {
        if words.take(&["binary"]) {
            binary = true;
        } else if words.take(&["insensitive", "asensitive"]) {
        } else if words.take(&["no"]) {
            words.take(&["scroll"]);
        } else if words.take(&["scroll"]) {
            return Err(Failure::new(code::FEATURE_NOT_SUPPORTED, "a cursor goes forward only"));
        } else if words.take(&["with"]) {
            hold = words.take(&["hold"]);
        } else if words.take(&["without"]) {
            words.take(&["hold"]);
        } else if words.take(&["cursor"]) {
        } else if words.take(&["for"]) {
            return Ok(Kind::Declare { name, query: words.rest().to_owned(), hold, binary });
        } else {
            words.end()?;
            return Err(Failure::new(code::SYNTAX_ERROR, "the query of the cursor is missing"));
        }
    }
}

fn fetch(mut words: Words<'_>, skip: bool) -> Result<Kind, Failure> {
    let forward = words.take(&["forward"]);
    let number = words.peek().filter(|piece| piece.kind == PieceKind::Number);
    let rows = if let Some(piece) = number {
        words.place += 1;
        let rows = words.text[piece.at.clone()].parse();
        Some(rows.map_err(|_| Failure::new(code::SYNTAX_ERROR, "the number of rows is too great"))?)
    } else if words.take(&["all"]) {
        None
    } else if words.take(&["prior", "first", "last", "absolute", "relative", "backward", "-"]) {
        return Err(Failure::new(code::FEATURE_NOT_SUPPORTED, "a cursor goes forward only"));
    } else {
        if !forward {
            words.take(&["next"]);
        }
        Some(1)
    };
    words.take(&["from", "in"]);
    let cursor = words.name()?;
    words.end()?;
    Ok(Kind::Fetch { cursor, rows, skip })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_about_the_session() {
        let check = |sql: &str, expect: &str| assert_eq!(format!("{:?}", understand(sql).expect(sql).kind), expect);
        check(
            "SET SESSION statement_timeout TO '5s'",
            r#"Set { name: "statement_timeout", value: Some("5s"), local: false }"#,
        );
        check("set search_path = a, b", r#"Set { name: "search_path", value: Some("a, b"), local: false }"#);
        check("SHOW TRANSACTION ISOLATION LEVEL", r#"Show("transaction_isolation")"#);
        check("START TRANSACTION READ ONLY", "Begin { read_only: true }");
        check("fetch forward 5 from \"C\"", r#"Fetch { cursor: "C", rows: Some(5), skip: false }"#);
        check("FETCH ALL IN c", r#"Fetch { cursor: "c", rows: None, skip: false }"#);
        check(
            "declare \"c\" no scroll cursor with hold for select 1",
            r#"Declare { name: "c", query: "select 1", hold: true, binary: false }"#,
        );
        check("create or replace temp table x (a int)", r#"Other { rows: false, word: "CREATE" }"#);
        check("rollback work to savepoint a", "RollbackTo");
        assert!(understand("fetch prior from c").is_err());
    }
}
