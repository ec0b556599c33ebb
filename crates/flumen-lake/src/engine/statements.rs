//! The text of statements: cut at semicolons, parsed, and refused where they would pretend to do what is not done.

use datafusion::common::TableReference;
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::planner::object_name_to_table_reference;
use datafusion::sql::sqlparser::ast::{ObjectName, ObjectType, Statement as Sql, TableObject};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use flumen_core::{Error, Result};

use super::errors;

/// How deep expressions may be nested.
const DEPTH: usize = 200;

/// Cuts `text` at its semicolons. Each piece keeps its lines and columns: what was before it is left as blank space, so
/// that errors name the place in the whole text. Pieces without a word are left out.
pub(super) fn split(text: &str) -> Vec<String> {
    let Ok(tokens) = Tokenizer::new(&GenericDialect {}, text).tokenize_with_location() else {
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
    match Tokenizer::new(&GenericDialect {}, text).tokenize() {
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
/// Errors: `Invalid`, with the place, where it is none, or more than one, or one that is not run here.
pub(super) fn parse(sql: &str) -> Result<Statement> {
    let explained = |error| errors::explain(error, sql);
    let parser = DFParserBuilder::new(sql).with_dialect(&GenericDialect {}).with_recursion_limit(DEPTH).build();
    let mut statements = parser.and_then(|mut parser| parser.parse_statements()).map_err(explained)?;
    let statement = statements.pop_front().ok_or_else(|| Error::invalid("there is no SQL to run"))?;
    if !statements.is_empty() {
        return Err(Error::invalid("there are several statements where one is expected"));
    }
    check(&statement)?;
    Ok(statement)
}

/// What a statement may do: read anything, and change what lives as long as the session.
fn check(statement: &Statement) -> Result<()> {
    let inner = match statement {
        Statement::Statement(inner) => inner.as_ref(),
        Statement::Explain(explain) => return check(&explain.statement),
        Statement::Reset(_) => return Ok(()),
        Statement::CopyTo(_) => {
            return Err(refused("copy … to").hint("write the result of a query with: flumen sql -o FILE \"select …\""));
        }
        Statement::CreateExternalTable(_) => {
            return Err(refused("create external table")
                .hint("files are read in place: create view trips as select * from 'trips.parquet'"));
        }
    };
    match inner {
        Sql::Query(query) if query.to_string().is_empty() => Ok(()),
        Sql::Query(_)
        | Sql::Explain { .. }
        | Sql::ExplainTable { .. }
        | Sql::ShowTables { .. }
        | Sql::ShowColumns { .. }
        | Sql::ShowFunctions { .. }
        | Sql::ShowVariable { .. }
        | Sql::ShowVariables { .. }
        | Sql::Set(_)
        | Sql::Prepare { .. }
        | Sql::Execute { .. }
        | Sql::Deallocate { .. } => Ok(()),
        Sql::CreateTable(create) => of_session(&create.name, "create table"),
        Sql::CreateView(create) => of_session(&create.name, "create view"),
        Sql::Drop { object_type: ObjectType::Table | ObjectType::View, names, .. } => {
            names.iter().try_for_each(|name| of_session(name, "drop"))
        }
        Sql::Insert(insert) => match &insert.table {
            TableObject::TableName(name) => of_session(name, "insert"),
            _ => Err(refused("insert into a function")),
        },
        other => {
            let text = other.to_string();
            let words: Vec<&str> = text.split_whitespace().take(2).collect();
            Err(refused(&words.join(" ").to_lowercase()).hint(WRITING))
        }
    }
}

const WRITING: &str = "SQL reads the lake; 'flumen ingest' writes it. 'create table t as select …' and 'create view' make \
    tables that live as long as the session";

fn refused(what: &str) -> Error {
    Error::invalid(format!("'{what}' is not run here"))
}

/// Only a bare name that is no file's means a table of the session.
fn of_session(name: &ObjectName, what: &str) -> Result<()> {
    match object_name_to_table_reference(name.clone(), true) {
        Ok(TableReference::Bare { table }) if !super::tables::looks_like_file(&table) => Ok(()),
        _ => Err(Error::invalid(format!("'{what}' would write to '{name}', which is not a table of this session"))
            .hint(WRITING)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn what_would_pretend_is_refused() {
        for sql in [
            "insert into lake.raw.trips values (1)",
            "create table raw.trips as select 1",
            "drop table lake.raw.trips",
            "delete from raw.trips",
            "update raw.trips set a = 1",
            "copy (select 1) to 'x.parquet'",
            "create external table t stored as csv location 'x.csv'",
            "create table 'x.csv' as select 1",
            "explain analyze insert into raw.trips values (1)",
            "truncate table t",
        ] {
            let error = parse(sql).expect_err(sql);
            assert_eq!(error.kind(), flumen_core::ErrorKind::Invalid, "{sql}");
        }
        for sql in
            ["select 1", "explain select 1", "create view v as select 1", "create table t as select 1", "set a.b = 1"]
        {
            parse(sql).expect(sql);
        }
    }
}
