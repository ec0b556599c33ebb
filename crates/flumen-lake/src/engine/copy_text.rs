//! The text of COPY over files, with options in the words of Postgres, DuckDB and DataFusion: `(format csv, header)`, `with csv
//! header`, `stored as csv options (delimiter ';')`. No parser at hand takes all of them, so what stands behind the file is
//! read here, for any words: which of them mean something is for `file_options.rs` to say.

use datafusion::sql::parser::{CopyToSource, CopyToStatement, Statement};
use datafusion::sql::sqlparser::ast::{Statement as Sql, Value};
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use flumen_core::{Error, Result};

use super::dialect::FlumenDialect;
use super::statements;

/// The option that names the columns by which files are put into folders.
const PARTITION_BY: &str = "partition_by";

/// Words and values.
pub(super) type Options = Vec<(String, String)>;

/// The COPY to or from a file that `sql` is; none if it is none, or is wrong before its options.
///
/// Errors: `Invalid` for what is no option.
pub(super) fn parse(sql: &str) -> Option<Result<Statement>> {
    let tokens = Tokenizer::new(&FlumenDialect, sql).tokenize().ok()?;
    let tokens: Vec<Token> = tokens.into_iter().filter(|token| !matches!(token, Token::EOF)).collect();
    let copy = tokens.iter().position(|token| !matches!(token, Token::Whitespace(_)))?;
    if !is(&tokens[copy], "copy") {
        return None;
    }
    let mut depth = 0;
    let direction = tokens.iter().position(|token| {
        match token {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            _ => {}
        }
        depth == 0 && (is(token, "to") || is(token, "from"))
    })?;
    let behind: Vec<&Token> =
        tokens[direction + 1..].iter().filter(|token| !matches!(token, Token::Whitespace(_))).collect();
    let (Token::SingleQuotedString(file), rest) = behind.split_first()? else { return None };
    let source: String = tokens[copy + 1..direction].iter().map(ToString::to_string).collect();
    let options = match options(rest) {
        Ok(options) => options,
        Err(error) => return Some(Err(error)),
    };
    let made = match is(&tokens[direction], "to") {
        true => copied_to(source.trim(), file, options),
        false => copied_from(source.trim(), file, options),
    };
    made.map(Ok)
}

fn is(token: &Token, word: &str) -> bool {
    matches!(token, Token::Word(found) if found.quote_style.is_none() && found.value.eq_ignore_ascii_case(word))
}

fn copied_to(source: &str, file: &str, options: Options) -> Option<Statement> {
    // A table, some columns of one, or a query.
    let query = match source.strip_suffix(')').and_then(|inner| inner.split_once('(')) {
        Some(("", query)) => query.to_owned(),
        Some((table, columns)) => format!("SELECT {columns} FROM {table}"),
        None => format!("SELECT * FROM {source}"),
    };
    let Statement::Statement(parsed) = statements::parse_any(&query).ok()? else { return None };
    let Sql::Query(query) = *parsed else { return None };
    let (by, options): (Options, Options) = options.into_iter().partition(|(key, _)| key == PARTITION_BY);
    let options = options.into_iter().map(|(key, value)| (key, Value::SingleQuotedString(value))).collect();
    let columns = by.iter().flat_map(|(_, names)| names.split(','));
    let partitioned_by = columns.map(|name| name.trim().trim_matches('"').to_owned()).collect();
    let (target, stored_as) = (file.to_owned(), None);
    Some(Statement::CopyTo(CopyToStatement {
        source: CopyToSource::Query(query),
        target,
        partitioned_by,
        stored_as,
        options,
    }))
}

fn copied_from(table: &str, file: &str, options: Options) -> Option<Statement> {
    // Rows from standard input would follow the semicolon.
    let text = format!("COPY {table} FROM '{}';", file.replace('\'', "''"));
    let parser = Parser::new(&FlumenDialect).try_with_sql(&text);
    let mut statements = parser.and_then(|mut parser| parser.parse_statements()).ok()?;
    let mut statement = statements.pop()?;
    let Sql::Copy { values, .. } = &mut statement else { return None };
    // The rows that only standard input has leave room for words that the parser does not know.
    *values = options.into_iter().flat_map(|(key, value)| [Some(key), Some(value)]).collect();
    Some(Statement::Statement(Box::new(statement)))
}

/// The options that [`parse`] has put into a COPY from a file.
pub(super) fn options_of(values: &[Option<String>]) -> Options {
    let pairs = values.chunks_exact(2);
    pairs.filter_map(|pair| Some((pair[0].clone()?, pair[1].clone()?))).collect()
}

/// The options in `tokens`, which stand behind the file.
fn options(tokens: &[&Token]) -> Result<Options> {
    let mut found = Vec::new();
    let mut rest = tokens.iter().copied().peekable();
    while let Some(token) = rest.next() {
        let word = match token {
            Token::LParen => {
                listed(&mut rest, &mut found)?;
                continue;
            }
            Token::SemiColon => continue,
            Token::Word(word) => word.value.to_lowercase(),
            other => return Err(unknown(&other.to_string())),
        };
        match word.as_str() {
            "with" | "options" => {}
            "csv" | "text" | "binary" | "parquet" | "json" => found.push(("format".to_owned(), word)),
            "header" => found.push((word, "true".to_owned())),
            "stored" if rest.next_if(|next| is(next, "as")).is_some() => {
                let format = rest.next().and_then(value).ok_or_else(|| unknown("stored as"))?;
                found.push(("format".to_owned(), format));
            }
            "partitioned" if rest.next_if(|next| is(next, "by")).is_some() => match rest.next() {
                Some(Token::LParen) => found.push((PARTITION_BY.to_owned(), inside(&mut rest))),
                _ => return Err(unknown("partitioned by")),
            },
            "delimiter" | "delimiters" | "null" | "quote" | "escape" | "encoding" => {
                let _ = rest.next_if(|next| is(next, "as"));
                let given = rest.next().and_then(value).ok_or_else(|| unknown(&word))?;
                found.push((word.replace("delimiters", "delimiter"), given));
            }
            _ => return Err(unknown(&word)),
        }
    }
    Ok(found)
}

/// Reads options up to the parenthesis that ends them.
fn listed<'a>(rest: &mut std::iter::Peekable<impl Iterator<Item = &'a Token>>, found: &mut Options) -> Result<()> {
    loop {
        let mut key = match rest.next() {
            Some(Token::RParen) => return Ok(()),
            Some(Token::Comma) => continue,
            Some(token) => value(token).ok_or_else(|| unknown(&token.to_string()))?,
            None => return Err(Error::invalid("the options of copy have no end").hint("a parenthesis is missing")),
        };
        while rest.next_if(|next| matches!(next, Token::Period)).is_some() {
            key = format!("{key}.{}", rest.next().and_then(value).unwrap_or_default());
        }
        let _ = rest.next_if(|next| matches!(next, Token::Eq));
        let given = match rest.peek() {
            None | Some(Token::Comma | Token::RParen) => "true".to_owned(),
            Some(Token::LParen) => {
                rest.next();
                inside(rest)
            }
            Some(_) => rest.next().and_then(value).ok_or_else(|| unknown(&key))?,
        };
        found.push((key.to_lowercase(), given));
    }
}

/// The text up to the parenthesis that ends it.
fn inside<'a>(rest: &mut impl Iterator<Item = &'a Token>) -> String {
    rest.take_while(|next| !matches!(next, Token::RParen)).map(ToString::to_string).collect()
}

/// The text of a word, a name, a text or a number.
fn value(token: &Token) -> Option<String> {
    match token {
        Token::Word(word) => Some(word.value.clone()),
        Token::SingleQuotedString(text) | Token::DoubleQuotedString(text) | Token::EscapedStringLiteral(text) => {
            Some(text.clone())
        }
        Token::Number(digits, _) => Some(digits.clone()),
        Token::Mul => Some("*".to_owned()),
        _ => None,
    }
}

fn unknown(what: &str) -> Error {
    Error::invalid(format!("'{what}' is not understood behind the file of copy"))
        .hint("write options in parentheses: (format csv, header, delimiter ';')")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sql: &str, expect: &str) {
        let shown = |options: Options| {
            options.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
        };
        let got = match parse(sql) {
            Some(Ok(Statement::CopyTo(copy))) => {
                let options =
                    copy.options.into_iter().map(|(key, value)| (key, value.into_string().unwrap_or_default()));
                let by = copy.partitioned_by.iter().map(|column| format!(" by {column}")).collect::<String>();
                format!("{} > {}: {}{by}", copy.source, copy.target, shown(options.collect()))
            }
            Some(Ok(Statement::Statement(inner))) => match *inner {
                Sql::Copy { source, target, values, .. } => {
                    let source = match source {
                        datafusion::sql::sqlparser::ast::CopySource::Table { table_name, columns } => {
                            format!("{table_name} {}", columns.len())
                        }
                        _ => "?".to_owned(),
                    };
                    format!("{source} < {target}: {}", shown(options_of(&values)))
                }
                other => other.to_string(),
            },
            Some(Ok(other)) => other.to_string(),
            Some(Err(error)) => error.message().to_owned(),
            None => "none".to_owned(),
        };
        assert_eq!(got, expect, "{sql}");
    }

    #[test]
    fn options_come_in_several_words() {
        check(
            "copy m.t to 'x' (format csv, header false, delimiter ';')",
            "(SELECT * FROM m.t) > x: format=csv header=false delimiter=;",
        );
        check(
            "COPY (select 1) TO 'x.csv' WITH (header, null 'NA', quote '''')",
            "(SELECT 1) > x.csv: header=true null=NA quote='",
        );
        check(
            "copy t to 'x' with csv header delimiter as '|'",
            "(SELECT * FROM t) > x: format=csv header=true delimiter=|",
        );
        check(
            "copy t (id, name) to 'x' (format parquet, compression zstd)",
            "(SELECT id, name FROM t) > x: format=parquet compression=zstd",
        );
        check(
            "copy t to 'x' stored as csv options ('format.has_header' 'off')",
            "(SELECT * FROM t) > x: format=csv format.has_header=off",
        );
        check(
            "copy t from 'x' (date_format '%d/%m/%Y', skip_lines 2);",
            "t 0 < 'x': date_format=%d/%m/%Y skip_lines=2",
        );
    }

    #[test]
    fn folders_are_by_columns() {
        check(
            "copy t to 'x' (format csv, partition_by (year, \"Month\"))",
            "(SELECT * FROM t) > x: format=csv by year by Month",
        );
        check("copy t to 'x' (partition_by year, header)", "(SELECT * FROM t) > x: header=true by year");
        check(
            "copy t to 'x' stored as parquet partitioned by (a, b)",
            "(SELECT * FROM t) > x: format=parquet by a by b",
        );
        check("copy t to 'x' partitioned by a", "'partitioned by' is not understood behind the file of copy");
    }

    #[test]
    fn what_is_no_option_is_said() {
        check("copy t to 'x' nonsense", "'nonsense' is not understood behind the file of copy");
        check("copy t to 'x' (header", "the options of copy have no end");
        check("copy t from stdin", "none");
        check("select 1", "none");
    }
}
