//! The text of statements, cut into pieces as Postgres cuts it: enough to find where a statement ends, which words it
//! begins with, and where its parameters stand. What the pieces mean together is for parsers.

use std::ops::Range;

/// What a piece of text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A word that is not quoted.
    Word,
    /// A name in double quotes.
    Name,
    /// A text in single quotes or between dollars, with what stands before its first quote.
    Text,
    /// A number.
    Number,
    /// `$1`: the number of a parameter.
    Parameter(usize),
    /// A semicolon.
    Semicolon,
    /// Anything else, one character.
    Symbol,
}

/// A piece, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    /// What it is.
    pub kind: Kind,
    /// Its bytes.
    pub at: Range<usize>,
}

/// The pieces of `sql`, without spaces and comments.
pub(crate) fn pieces(sql: &str) -> Vec<Piece> {
    let bytes = sql.as_bytes();
    let mut pieces = Vec::new();
    let mut place = 0;
    while let Some(byte) = bytes.get(place).copied() {
        let rest = &bytes[place..];
        let start = place;
        let kind = match byte {
            byte if byte.is_ascii_whitespace() => {
                place += 1;
                continue;
            }
            b'-' if rest.starts_with(b"--") => {
                place += rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
                continue;
            }
            b'/' if rest.starts_with(b"/*") => {
                place += comment(rest);
                continue;
            }
            b'\'' => {
                place += quoted(rest, b'\'', false);
                Kind::Text
            }
            b'"' => {
                place += quoted(rest, b'"', false);
                Kind::Name
            }
            b'$' => match dollar(rest) {
                Some((length, kind)) => {
                    place += length;
                    kind
                }
                None => {
                    place += 1;
                    Kind::Symbol
                }
            },
            b';' => {
                place += 1;
                Kind::Semicolon
            }
            byte if byte.is_ascii_digit() => {
                place += rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'.').count();
                Kind::Number
            }
            byte if is_word(byte) => {
                place +=
                    rest.iter().take_while(|byte| is_word(**byte) || byte.is_ascii_digit() || **byte == b'$').count();
                let escapes = matches!(&sql[start..place], "e" | "E");
                let prefix = escapes || matches!(&sql[start..place], "b" | "B" | "x" | "X" | "n" | "N");
                if prefix && bytes.get(place) == Some(&b'\'') {
                    place += quoted(&bytes[place..], b'\'', escapes);
                    Kind::Text
                } else {
                    Kind::Word
                }
            }
            _ => {
                place += 1;
                Kind::Symbol
            }
        };
        pieces.push(Piece { kind, at: start..place });
    }
    pieces
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

/// How long the quoted text at the start is; to the end, where its quote is missing.
fn quoted(rest: &[u8], quote: u8, escapes: bool) -> usize {
    let mut place = 1;
    while let Some(byte) = rest.get(place) {
        place += match byte {
            b'\\' if escapes => 2,
            byte if *byte == quote && rest.get(place + 1) == Some(&quote) => 2,
            byte if *byte == quote => return place + 1,
            _ => 1,
        };
    }
    rest.len()
}

/// How long the comment at the start is. Comments may be nested.
fn comment(rest: &[u8]) -> usize {
    let (mut place, mut depth) = (2, 1);
    while place < rest.len() && depth > 0 {
        let two = &rest[place..];
        let step = match two {
            two if two.starts_with(b"/*") => {
                depth += 1;
                2
            }
            two if two.starts_with(b"*/") => {
                depth -= 1;
                2
            }
            _ => 1,
        };
        place += step;
    }
    place.min(rest.len())
}

/// The parameter, or the text between dollars, at the start.
fn dollar(rest: &[u8]) -> Option<(usize, Kind)> {
    let digits = rest[1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits > 0 {
        let number = std::str::from_utf8(&rest[1..1 + digits]).ok()?.parse().ok()?;
        return Some((1 + digits, Kind::Parameter(number)));
    }
    let tag = rest[1..].iter().take_while(|byte| is_word(**byte) || byte.is_ascii_digit()).count();
    if rest.get(1 + tag) != Some(&b'$') {
        return None;
    }
    let tag = &rest[..tag + 2];
    let end = rest[tag.len()..].windows(tag.len()).position(|window| window == tag);
    Some((end.map_or(rest.len(), |end| end + 2 * tag.len()), Kind::Text))
}

/// Cuts `sql` at its semicolons. Each statement keeps its place: what was before it is left as blank space. Pieces
/// without a word are left out.
pub(crate) fn split(sql: &str) -> Vec<String> {
    let mut statements = Vec::new();
    let (mut start, mut words) = (0, 0);
    let mut cut = |start: usize, end: usize, words: usize| {
        if words > 0 {
            let blank = |c: char| if c == '\n' { '\n' } else { ' ' };
            let before: String = sql[..start].chars().map(blank).collect();
            statements.push(format!("{before}{}", &sql[start..end]));
        }
    };
    for piece in pieces(sql) {
        if piece.kind == Kind::Semicolon {
            cut(start, piece.at.start, words);
            (start, words) = (piece.at.end, 0);
        } else {
            words += 1;
        }
    }
    cut(start, sql.len(), words);
    statements
}

/// A name as it is used: in lower case, unless it is quoted.
pub(crate) fn name(sql: &str, piece: &Piece) -> Option<String> {
    let text = &sql[piece.at.clone()];
    match piece.kind {
        Kind::Word => Some(text.to_lowercase()),
        Kind::Name => Some(text.strip_prefix('"')?.strip_suffix('"')?.replace("\"\"", "\"")),
        _ => None,
    }
}

/// What a text in quotes says.
pub(crate) fn unquoted(text: &str) -> Option<String> {
    if let Some(inner) = text.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
        return Some(inner.replace("''", "'"));
    }
    if let Some(inner) = text.strip_prefix(['e', 'E']).and_then(|rest| rest.strip_prefix('\'')?.strip_suffix('\'')) {
        return Some(unescaped(&inner.replace("''", "'")));
    }
    let tag = text.strip_prefix('$')?.find('$')? + 2;
    text.get(tag..text.len().checked_sub(tag)?).map(str::to_owned)
}

fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some('r') => out.push('\r'),
                Some('b') => out.push('\u{8}'),
                Some('f') => out.push('\u{c}'),
                Some(other) => out.push(other),
                None => {}
            },
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_end_at_semicolons_outside_of_quotes_and_comments() {
        let sql = "select ';', E'\\';', \";\", $a$;$a$ -- ;\n/* ; /* ; */ ; */ ; select 2;;\n";
        assert_eq!(
            split(sql).iter().map(|one| one.trim()).collect::<Vec<_>>(),
            ["select ';', E'\\';', \";\", $a$;$a$ -- ;\n/* ; /* ; */ ; */", "select 2"]
        );
        assert_eq!(split("select 1;\n select 2")[1], "         \n select 2");
        assert_eq!(split(" ; -- nothing\n;"), Vec::<String>::new());
    }

    #[test]
    fn parameters_are_found_where_they_are_some() {
        let sql = "select $1, '$2', \"$3\", $x$ $4 $x$, a$5, $12::int -- $6";
        let found = pieces(sql).into_iter().filter_map(|piece| match piece.kind {
            Kind::Parameter(number) => Some((number, sql[piece.at].to_owned())),
            _ => None,
        });
        assert_eq!(found.collect::<Vec<_>>(), [(1, "$1".to_owned()), (12, "$12".to_owned())]);
    }

    #[test]
    fn what_has_no_end_ends_with_the_text() {
        for sql in ["'", "\"", "$a$ x", "/* x", "E'\\", "$", "select 'é"] {
            drop(pieces(sql));
            drop(split(sql));
        }
        assert_eq!(unquoted("'it''s'").as_deref(), Some("it's"));
        assert_eq!(unquoted("$x$it's$x$").as_deref(), Some("it's"));
        assert_eq!(unquoted("E'a\\'\\n'").as_deref(), Some("a'\n"));
    }
}
