//! The text of statements: cut at semicolons, and parsed.

use std::cell::Cell;

use datafusion::common::DataFusionError;
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast::Statement as Sql;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use flumen_core::{Error, Result};

use super::dialect::FlumenDialect;
use super::{copy_text, errors};

/// How deep expressions may be nested.
const DEPTH: usize = 200;

/// Cuts `text` at its semicolons. Each piece keeps its lines and columns: what was before it is left as blank space, so
/// that errors name the place in the whole text. Pieces without a word are left out.
pub(super) fn split(text: &str) -> Vec<String> {
    let Ok(tokens) = Tokenizer::new(&FlumenDialect, text).tokenize_with_location() else {
        // Let the parser say what is wrong.
        return vec![text.to_owned()];
    };
    let mut pieces = Vec::new();
    let mut offsets = Offsets { text, line: 1, column: 1, byte: 0 };
    let (mut start, mut blank) = (0, true);
    for token in &tokens {
        match token.token {
            Token::SemiColon => {
                let end = offsets.byte_of(token.span.start.line, token.span.start.column);
                if !blank {
                    pieces.push(padded(text, start, end));
                }
                (start, blank) = (end + 1, true);
            }
            Token::Whitespace(_) | Token::EOF => {}
            _ => blank = false,
        }
    }
    if !blank {
        pieces.push(padded(text, start, text.len()));
    }
    pieces
}

/// Whether `text` ends with a semicolon outside of quotes and comments, or has nothing to run: a prompt may take it.
pub(super) fn is_complete(text: &str) -> bool {
    match Tokenizer::new(&FlumenDialect, text).tokenize() {
        Ok(tokens) => {
            let last = tokens.iter().rev().find(|token| !matches!(token, Token::Whitespace(_) | Token::EOF));
            matches!(last, None | Some(Token::SemiColon))
        }
        Err(_) => false,
    }
}

fn padded(text: &str, start: usize, end: usize) -> String {
    let before = &text[..start];
    let newlines = before.matches('\n').count();
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count();
    format!("{}{}{}", "\n".repeat(newlines), " ".repeat(column), &text[start..end])
}

/// Walks from line and column to bytes, forwards only.
struct Offsets<'a> {
    text: &'a str,
    line: u64,
    column: u64,
    byte: usize,
}

impl Offsets<'_> {
    fn byte_of(&mut self, line: u64, column: u64) -> usize {
        for c in self.text[self.byte..].chars() {
            if (self.line, self.column) >= (line, column) {
                break;
            }
            self.byte += c.len_utf8();
            if c == '\n' {
                (self.line, self.column) = (self.line + 1, 1);
            } else {
                self.column += 1;
            }
        }
        self.byte
    }
}

/// The one statement in `sql`.
///
/// Errors: `Invalid`, with the place, where it is none, or more than one.
pub(super) fn parse(sql: &str) -> Result<Statement> {
    parse_one(sql, |error| errors::explain(error, sql))
}

/// Why `sql` is not one statement, and where.
pub(super) fn mistake(sql: &str) -> Option<(Error, Option<errors::Place>)> {
    let place = Cell::new(None);
    let explained = |error| {
        let (error, at) = errors::placed(error, sql);
        place.set(at);
        error
    };
    let error = parse_one(sql, explained).err()?;
    Some((error, place.take()))
}

/// The one statement in a text that was made from another.
///
/// Errors: `Invalid`, without a place.
pub(super) fn parse_any(text: &str) -> Result<Statement> {
    parse_one(text, |error| errors::explain_part(error, ""))
}

fn parse_one(sql: &str, explained: impl Fn(DataFusionError) -> Error) -> Result<Statement> {
    let parser = DFParserBuilder::new(sql).with_dialect(&FlumenDialect).with_recursion_limit(DEPTH).build();
    let mut statements = match parser.and_then(|mut parser| parser.parse_statements()) {
        Ok(statements) => statements,
        Err(error) => {
            if let Some(copy) = copy_text::parse(sql) {
                return copy;
            }
            return copy(sql).or_else(|| columns_like_keys(sql)).or_else(|| stars(sql)).ok_or_else(|| explained(error));
        }
    };
    let statement = statements.pop_front().ok_or_else(|| Error::invalid("there is no SQL to run"))?;
    if !statements.is_empty() {
        return Err(Error::invalid("there are several statements where one is expected"));
    }
    Ok(statement)
}

/// `COPY … FROM STDIN`, which DataFusion's parser does not know; sqlparser's does.
fn copy(sql: &str) -> Option<Statement> {
    let word = sql.split_whitespace().next()?;
    if !word.eq_ignore_ascii_case("copy") {
        return None;
    }
    // Rows from standard input would follow the semicolon.
    let text = format!("{sql};");
    let parser = Parser::new(&FlumenDialect).with_recursion_limit(DEPTH).try_with_sql(&text);
    let mut statements = parser.and_then(|mut parser| parser.parse_statements()).ok()?;
    match (statements.pop()?, statements.is_empty()) {
        (statement @ Sql::Copy { to: false, .. }, true) => Some(Statement::Statement(Box::new(statement))),
        _ => None,
    }
}

/// `CREATE TABLE` with columns called `index` or `key`, which the parser takes for MySQL's keys.
fn columns_like_keys(sql: &str) -> Option<Statement> {
    let tokens = Tokenizer::new(&FlumenDialect, sql).tokenize().ok()?;
    let plain = |token: &Token| match token {
        Token::Word(word) if word.quote_style.is_none() => Some(word.value.to_lowercase()),
        _ => None,
    };
    let is_space = |token: &Token| matches!(token, Token::Whitespace(_));
    if plain(tokens.iter().find(|token| !is_space(token))?)? != "create" {
        return None;
    }
    let (mut quoted, mut before) = (String::new(), None);
    for (place, token) in tokens.iter().enumerate() {
        let word = plain(token).filter(|word| matches!(word.as_str(), "index" | "key" | "fulltext" | "spatial"));
        let next = tokens[place + 1..].iter().find(|token| !is_space(token));
        let is_column = matches!(before, Some(Token::LParen | Token::Comma)) && matches!(next, Some(Token::Word(_)));
        match word.filter(|_| is_column) {
            Some(word) => quoted.push_str(&format!("\"{word}\"")),
            None => quoted.push_str(&token.to_string()),
        }
        if !is_space(token) {
            before = Some(token.clone());
        }
    }
    (quoted != sql).then(|| parse_any(&quoted).ok())?
}

/// What stands for the star of `UPDATE SET *`: the parser wants a column and a value.
pub(super) const ALL: &str = "_flumen_all";

/// `MERGE` with `UPDATE SET *` and `INSERT *`, as Delta Lake has them, in words that the parser knows.
/// Source: Delta Lake, "Table deletes, updates, and merges".
fn stars(sql: &str) -> Option<Statement> {
    let tokens = Tokenizer::new(&FlumenDialect, sql).tokenize().ok()?;
    let said: Vec<&Token> = tokens.iter().filter(|token| !matches!(token, Token::Whitespace(_))).collect();
    let is = |token: &Token, word: &str| matches!(token, Token::Word(found) if found.value.eq_ignore_ascii_case(word));
    if !said.first().is_some_and(|first| is(first, "merge")) {
        return None;
    }
    let (mut before, mut text) = (None, String::new());
    for token in &tokens {
        match token {
            Token::Mul if before.is_some_and(|before| is(before, "set")) => text.push_str(&format!("{ALL} = true")),
            Token::Mul if before.is_some_and(|before| is(before, "insert")) => text.push_str("ROW"),
            other => text.push_str(&other.to_string()),
        }
        if !matches!(token, Token::Whitespace(_)) {
            before = Some(token);
        }
    }
    (text != sql).then(|| parse_any(&text).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_from_files_are_understood() {
        for sql in ["copy t from 'x.csv'", " copy raw.t (a, b) from 'x.csv'", "COPY t FROM STDIN"] {
            let parsed = parse(sql).expect(sql);
            assert!(
                matches!(&parsed, Statement::Statement(inner) if matches!(inner.as_ref(), Sql::Copy { .. })),
                "{sql}"
            );
        }
        assert!(parse("copy t frm 'x.csv'").is_err());
        assert!(matches!(parse("copy t to 'x.csv'"), Ok(Statement::CopyTo(_))));
    }

    #[test]
    fn merges_have_stars() {
        let parsed = parse(
            "merge into t using s on t.a * 2 = s.a when matched then update set * when not matched then insert *",
        );
        let text = parsed.unwrap().to_string();
        assert!(text.contains("ON t.a * 2 = s.a"), "{text}");
        assert!(text.contains("UPDATE SET _flumen_all = true") && text.contains("INSERT ROW"), "{text}");
        assert!(parse("select set * from t where").is_err());
    }

    #[test]
    fn columns_may_be_called_like_keys() {
        let parsed = parse("create table m.t (index bigint, \"Key\" text, key text not null)").unwrap();
        assert!(parsed.to_string().contains("(\"index\" BIGINT, \"Key\" TEXT, \"key\" TEXT NOT NULL)"), "{parsed}");
        assert!(parse("create table t (index bigint").is_err());
    }

    #[test]
    fn statements_are_cut_at_semicolons_and_keep_their_places() {
        assert_eq!(split("select 1; select ';' -- ; no\n;\n;"), ["select 1", "          select ';' -- ; no\n"]);
        assert_eq!(split("select 1;\nselect é;select 2"), ["select 1", "         \nselect é", "\n         select 2"]);
        assert_eq!(split("  -- nothing\n"), Vec::<String>::new());
    }

    #[test]
    fn a_prompt_waits_for_the_semicolon() {
        for (text, complete) in [
            ("select 1;", true),
            ("select 1", false),
            ("select ';", false),
            ("select 1; -- done", true),
            ("", true),
            ("select 1 /* ; ", false),
        ] {
            assert_eq!(is_complete(text), complete, "{text}");
        }
    }
}
