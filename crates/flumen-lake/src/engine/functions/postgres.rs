//! What Postgres writes in another way than DataFusion: powers, bytes, arrays, names of types, and patterns for times.

use datafusion::sql::sqlparser::ast::{
    Array, ArrayElemTypeDef, BinaryOperator, DataType, ExactNumberInfo, Expr, Function, Value,
};
use flumen_core::{Error, Result};

use super::{arguments, filled, literal, set_arguments};

/// Gives an expression that is no call the form that is planned.
///
/// Errors: `Invalid` for a literal that is none of its type.
pub(super) fn spell(expr: &mut Expr) -> Result<()> {
    match expr {
        Expr::BinaryOp { left, op: BinaryOperator::BitwiseXor, right } => {
            let sides = [left.as_ref().clone(), right.as_ref().clone()];
            *expr = filled("power(CAST($1 AS DOUBLE), CAST($2 AS DOUBLE))", &sides)?;
        }
        Expr::Cast { expr: inner, data_type, .. } => {
            plain_type(data_type);
            let text = match inner.as_ref() {
                Expr::Value(value) => match &value.value {
                    Value::SingleQuotedString(text) => text.clone(),
                    _ => return Ok(()),
                },
                _ => return Ok(()),
            };
            match data_type {
                DataType::Bytea => *expr = bytes(&text)?,
                DataType::Array(_) if text.trim_start().starts_with('{') => **inner = array(&text)?,
                _ => {}
            }
        }
        _ => {}
    }
    Ok(())
}

/// The bytes that a text stands for: those that `\xdead` lists, else its own.
///
/// Errors: `Invalid` if its digits are not hexadecimal, or do not come in pairs.
pub(in crate::engine) fn bytes(text: &str) -> Result<Expr> {
    let Some(digits) = text.strip_prefix("\\x") else {
        let digits: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
        return Ok(Expr::Value(Value::HexStringLiteral(digits).into()));
    };
    if digits.len() % 2 != 0 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(Error::invalid(format!("'{text}' is no bytea: it takes pairs of hexadecimal digits"))
            .hint("write for example '\\xdeadbeef'"));
    }
    Ok(Expr::Value(Value::HexStringLiteral(digits.to_owned()).into()))
}

/// Gives a type of Postgres that is kept as another one that one's name.
pub(in crate::engine) fn plain_type(data_type: &mut DataType) {
    use DataType as T;
    let plain = match data_type {
        T::JSON | T::JSONB | T::Uuid => T::Text,
        T::CharacterVarying(_) | T::CharVarying(_) | T::Nvarchar(_) | T::Character(_) => T::Varchar(None),
        T::Blob(_) => T::Bytea,
        T::Array(ArrayElemTypeDef::SquareBracket(inner, _) | ArrayElemTypeDef::AngleBracket(inner)) => {
            return plain_type(inner);
        }
        T::Custom(name, modifiers) => match (name.to_string().to_lowercase().as_str(), modifiers.as_slice()) {
            ("name" | "citext", []) => T::Text,
            ("number", []) => T::Numeric(ExactNumberInfo::None),
            ("number", [precision]) => match precision.parse() {
                Ok(precision) => T::Numeric(ExactNumberInfo::Precision(precision)),
                Err(_) => return,
            },
            ("number", [precision, scale]) => match (precision.parse(), scale.parse()) {
                (Ok(precision), Ok(scale)) => T::Numeric(ExactNumberInfo::PrecisionAndScale(precision, scale)),
                _ => return,
            },
            (other, []) => match serial(other) {
                Some(of) => of,
                None => return,
            },
            _ => return,
        },
        _ => return,
    };
    *data_type = plain;
}

/// Whether a column of this type gets a number of its own in every row.
pub(in crate::engine) fn is_serial(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Custom(name, modifiers)
        if modifiers.is_empty() && serial(&name.to_string().to_lowercase()).is_some())
}

fn serial(name: &str) -> Option<DataType> {
    match name {
        "smallserial" | "serial2" => Some(DataType::SmallInt(None)),
        "serial" | "serial4" => Some(DataType::Integer(None)),
        "bigserial" | "serial8" => Some(DataType::BigInt(None)),
        _ => None,
    }
}

/// The array that a text such as `{1,2,NULL}` stands for, its elements as text.
///
/// Source: <https://www.postgresql.org/docs/current/arrays.html#ARRAYS-INPUT>.
///
/// Errors: `Invalid` for a text that is no array.
fn array(text: &str) -> Result<Expr> {
    let mut rest = text.trim().chars().peekable();
    let wrong =
        || Error::invalid(format!("'{text}' is no array")).hint("write for example '{1,2,3}', or array[1, 2, 3]");
    let made = elements(&mut rest).ok_or_else(wrong)?;
    if rest.next().is_some() { Err(wrong()) } else { Ok(made) }
}

fn elements(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Expr> {
    (rest.next()? == '{').then_some(())?;
    let mut elem = Vec::new();
    let skip =
        |rest: &mut std::iter::Peekable<std::str::Chars<'_>>| while rest.next_if(|c| c.is_whitespace()).is_some() {};
    skip(rest);
    if rest.next_if_eq(&'}').is_none() {
        loop {
            skip(rest);
            elem.push(match rest.peek()? {
                '{' => elements(rest)?,
                '"' => literal(&quoted(rest)?),
                _ => {
                    let mut word = String::new();
                    while let Some(c) = rest.next_if(|c| !matches!(c, ',' | '}' | '{' | '"')) {
                        word.push(if c == '\\' { rest.next()? } else { c });
                    }
                    match word.trim_end() {
                        "" => return None,
                        null if null.eq_ignore_ascii_case("null") => Expr::Value(Value::Null.into()),
                        word => literal(word),
                    }
                }
            });
            skip(rest);
            match rest.next()? {
                ',' => {}
                '}' => break,
                _ => return None,
            }
        }
    }
    Some(Expr::Array(Array { elem, named: true }))
}

fn quoted(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<String> {
    rest.next();
    let mut text = String::new();
    loop {
        match rest.next()? {
            '"' => return Some(text),
            '\\' => text.push(rest.next()?),
            c => text.push(c),
        }
    }
}

/// The words of Postgres' patterns for times, and what `strftime` calls them. Longer ones come before those that they begin with.
///
/// Source: <https://www.postgresql.org/docs/current/functions-formatting.html>.
const WORDS: &[(&str, &str)] = &[
    ("FMMonth", "%B"),
    ("FMMon", "%b"),
    ("FMDay", "%A"),
    ("FMDD", "%-d"),
    ("FMMM", "%-m"),
    ("FMHH24", "%-H"),
    ("FMHH12", "%-I"),
    ("YYYY", "%Y"),
    ("IYYY", "%G"),
    ("YY", "%y"),
    ("Month", "%B"),
    ("Mon", "%b"),
    ("MM", "%m"),
    ("MI", "%M"),
    ("MS", "%3f"),
    ("DDD", "%j"),
    ("DD", "%d"),
    ("Day", "%A"),
    ("Dy", "%a"),
    ("HH24", "%H"),
    ("HH12", "%I"),
    ("HH", "%I"),
    ("SS", "%S"),
    ("US", "%6f"),
    ("AM", "%p"),
    ("PM", "%p"),
    ("am", "%P"),
    ("pm", "%P"),
    ("IW", "%V"),
    ("ID", "%u"),
    ("TZH", "%z"),
];

/// Gives `to_char` and `to_timestamp` with a pattern of Postgres' the pattern that is planned.
///
/// Errors: `Invalid` for a word of a pattern that has no counterpart.
pub(super) fn patterns(name: &str, call: &mut Function) -> Result<()> {
    if !matches!(name, "to_char" | "to_timestamp" | "to_date") {
        return Ok(());
    }
    let Some(mut given) = arguments(call) else { return Ok(()) };
    let Some(Expr::Value(value)) = given.get(1) else { return Ok(()) };
    let Value::SingleQuotedString(pattern) = &value.value else { return Ok(()) };
    if pattern.contains('%') {
        return Ok(());
    }
    let made = pattern_of(pattern)?;
    given[1] = literal(&made);
    set_arguments(call, given);
    Ok(())
}

fn pattern_of(pattern: &str) -> Result<String> {
    let (mut made, mut rest) = (String::new(), pattern);
    while let Some(c) = rest.chars().next() {
        let word = WORDS.iter().find(|(word, _)| {
            // Lower case is as good as upper case, but where case says how the word is written out.
            let is_name = word.contains(|c: char| c.is_lowercase()) || matches!(*word, "AM" | "PM");
            rest.starts_with(word)
                || !is_name && rest.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
        });
        if let Some((word, format)) = word {
            made.push_str(format);
            rest = &rest[word.len()..];
        } else if let Some((text, after)) = rest.strip_prefix('"').and_then(|rest| rest.split_once('"')) {
            made.push_str(&text.replace('%', "%%"));
            rest = after;
        } else if c.is_ascii_alphabetic() && c != 'T' {
            let word: String = rest.chars().take_while(char::is_ascii_alphabetic).collect();
            return Err(Error::invalid(format!("'{word}' in the pattern '{pattern}' has no counterpart here"))
                .hint("words are YYYY, MM, DD, HH24, HH12, MI, SS, MS, US, Mon, Month, Dy, Day, AM, IYYY, IW, DDD; or use %Y, %m, …"));
        } else {
            made.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_translated() {
        let cases = [
            ("YYYY-MM-DD HH24:MI:SS", "%Y-%m-%d %H:%M:%S"),
            ("yyyy-mm-dd", "%Y-%m-%d"),
            ("DD Mon YYYY", "%d %b %Y"),
            ("YYYY-MM-DDTHH24:MI:SS.MS", "%Y-%m-%dT%H:%M:%S.%3f"),
            ("HH12:MI AM", "%I:%M %p"),
            ("\"week \"IW", "week %V"),
        ];
        for (pattern, expect) in cases {
            assert_eq!(pattern_of(pattern).expect(pattern), expect);
        }
        assert!(pattern_of("YYYY Q").unwrap_err().to_string().contains("'Q'"));
    }

    #[test]
    fn arrays_are_read() {
        let text = |text: &str| array(text).map(|array| array.to_string());
        assert_eq!(text("{1,2, NULL}").unwrap(), "ARRAY['1', '2', NULL]");
        assert_eq!(text(r#"{"a,b","c\"d",e f}"#).unwrap(), r#"ARRAY['a,b', 'c"d', 'e f']"#);
        assert_eq!(text("{{1,2},{3,4}}").unwrap(), "ARRAY[ARRAY['1', '2'], ARRAY['3', '4']]");
        assert_eq!(text("{}").unwrap(), "ARRAY[]");
        for wrong in ["{1,2", "{1,,2}", "{1}x", "{\"a}"] {
            assert!(array(wrong).is_err(), "{wrong}");
        }
    }
}
