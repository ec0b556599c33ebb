//! Parameters of prepared statements. A value takes the place of its `$n` as a literal of its type, so that every
//! statement can have parameters, whatever runs it.

use std::fmt::Write as _;

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use bytes::{Buf as _, Bytes, BytesMut};
use postgres_types::{Kind as TypeKind, Type};

use super::encode::{self, array_element, numbers, times};
use super::types;
use crate::failure::{Failure, code};
use crate::scan::{self, Kind};
use crate::settings::UTC;

/// The types of the parameters of a statement: what the client says, else what the statement tells, else text.
pub(super) fn types(declared: &[u32], inferred: &[Option<DataType>], count: usize) -> Vec<Type> {
    let known = |oid: &u32| Type::from_oid(*oid).filter(|kind| *kind != Type::UNKNOWN);
    let one = |index: usize| {
        let declared = declared.get(index).and_then(known);
        let told = || inferred.get(index).and_then(Option::as_ref).map(types::pg_type);
        declared.or_else(told).unwrap_or(Type::TEXT)
    };
    (0..count).map(one).collect()
}

/// The greatest number of a parameter in `sql`.
pub(crate) fn count(sql: &str) -> usize {
    let numbers = scan::pieces(sql).into_iter().filter_map(|piece| match piece.kind {
        Kind::Parameter(number) => Some(number),
        _ => None,
    });
    numbers.max().unwrap_or_default()
}

/// The types of parameters that are cast where they stand: `$1::date`, `cast($1 as date)`.
pub(super) fn casts(sql: &str) -> Vec<(usize, Type)> {
    let pieces = scan::pieces(sql);
    let word = |place: usize| pieces.get(place).map_or("", |piece| &sql[piece.at.clone()]);
    let mut found = Vec::new();
    for (place, piece) in pieces.iter().enumerate() {
        let Kind::Parameter(number) = piece.kind else { continue };
        let first = match (word(place + 1), word(place + 2)) {
            (":", ":") => place + 3,
            (next, _) if next.eq_ignore_ascii_case("as") => place + 2,
            _ => continue,
        };
        let two = format!("{} {}", word(first), word(first + 1));
        let kind = crate::catalog::type_named(&two).or_else(|| crate::catalog::type_named(word(first)));
        let is_array = |from: usize| word(from) == "[" && word(from + 1) == "]";
        let kind = kind.map(|kind| if is_array(first + 1) { types::array_of(&kind).unwrap_or(kind) } else { kind });
        found.extend(kind.map(|kind| (number, kind)));
    }
    found
}

/// Which parameters stand where a number of rows is expected.
pub(super) fn counts_of_rows(sql: &str) -> Vec<usize> {
    let pieces = scan::pieces(sql);
    let before = |words: &[scan::Piece]| {
        let [word, parameter] = words else { return None };
        let limits = matches!(scan::name(sql, word)?.as_str(), "limit" | "offset");
        match parameter.kind {
            Kind::Parameter(number) if limits && word.kind == Kind::Word => Some(number),
            _ => None,
        }
    };
    pieces.windows(2).filter_map(before).collect()
}

/// `sql` with `literals` in the places of its parameters.
pub(crate) fn substitute(sql: &str, literals: &[String]) -> Result<String, Failure> {
    let mut out = String::with_capacity(sql.len());
    let mut done = 0;
    for piece in scan::pieces(sql) {
        let Kind::Parameter(number) = piece.kind else { continue };
        let literal = number
            .checked_sub(1)
            .and_then(|index| literals.get(index))
            .ok_or_else(|| Failure::new(code::UNDEFINED_PARAMETER, format!("there is no parameter ${number}")))?;
        out.push_str(&sql[done..piece.at.start]);
        out.push_str(literal);
        done = piece.at.end;
    }
    out.push_str(&sql[done..]);
    Ok(out)
}

/// `sql` with `$1`, `$2`, … in place of its question marks, if those are its parameters.
pub(crate) fn numbered(sql: &str) -> String {
    let pieces = scan::pieces(sql);
    let mut out = String::with_capacity(sql.len());
    if pieces.iter().any(|piece| matches!(piece.kind, Kind::Parameter(_))) {
        return sql.to_owned();
    }
    let (mut done, mut number) = (0, 0);
    for piece in pieces.iter().filter(|piece| piece.kind == Kind::Symbol && &sql[piece.at.clone()] == "?") {
        number += 1;
        out.push_str(&sql[done..piece.at.start]);
        // Writing to memory does not fail.
        let _ = write!(out, "${number}");
        done = piece.at.end;
    }
    out.push_str(&sql[done..]);
    out
}

/// The rows of `batch` as literals of the types of its columns.
///
/// Errors: a value that Postgres' types do not hold.
pub(crate) fn literals(batch: &RecordBatch) -> Result<Vec<Vec<String>>, Failure> {
    let kinds: Vec<Type> = batch.schema().fields().iter().map(|field| types::pg_type(field.data_type())).collect();
    let cells = encode::columns(batch, &times::Zone::default())?;
    let row = |row: usize| {
        let values = cells.iter().zip(&kinds).enumerate().map(|(index, (cells, kind))| {
            if cells.is_null(row) {
                return literal(kind, 0, None, index + 1, UTC);
            }
            let mut text = BytesMut::new();
            cells.text(row, &mut text);
            literal(kind, 0, Some(&text.freeze()), index + 1, UTC)
        });
        values.collect::<Result<Vec<_>, Failure>>()
    };
    (0..batch.num_rows()).map(row).collect()
}

/// A value of `kind` as a literal. A time without an offset is one of `zone`.
pub(super) fn literal(
    kind: &Type,
    format: i16,
    value: Option<&Bytes>,
    number: usize,
    zone: &str,
) -> Result<String, Failure> {
    let Some(value) = value else { return Ok("NULL".to_owned()) };
    let wrong = || Failure::new(code::INVALID_TEXT, format!("the value of parameter ${number} is no {}", kind.name()));
    if let TypeKind::Array(element) = kind.kind() {
        let elements = match format {
            0 => array_text(std::str::from_utf8(value).map_err(|_| wrong())?),
            _ => array_binary(value.clone()),
        };
        let elements = elements.ok_or_else(wrong)?.into_iter();
        let literals = elements.map(|value| literal(element, format, value.as_ref(), number, zone));
        return Ok(format!("ARRAY[{}]", literals.collect::<Result<Vec<_>, _>>()?.join(", ")));
    }
    let text = match format {
        0 => String::from_utf8(value.to_vec()).ok(),
        1 => binary_text(kind, value.clone()),
        _ => None,
    };
    written(kind, &text.ok_or_else(wrong)?, zone).ok_or_else(wrong)
}

/// A value that is given as text, as a literal.
fn written(kind: &Type, text: &str, zone: &str) -> Option<String> {
    let trimmed = text.trim();
    Some(match *kind {
        Type::BOOL => match trimmed.to_ascii_lowercase().as_str() {
            "t" | "true" | "y" | "yes" | "on" | "1" => "TRUE".to_owned(),
            "f" | "false" | "n" | "no" | "off" | "0" => "FALSE".to_owned(),
            _ => return None,
        },
        Type::INT2 | Type::INT4 | Type::INT8 | Type::OID => {
            let value: i64 = trimmed.parse().ok()?;
            if value == i64::MIN {
                format!("CAST('{value}' AS BIGINT)")
            } else if value < 0 {
                format!("({value})")
            } else {
                value.to_string()
            }
        }
        Type::FLOAT4 | Type::FLOAT8 => {
            trimmed.parse::<f64>().ok()?;
            format!("CAST('{trimmed}' AS {})", if *kind == Type::FLOAT4 { "REAL" } else { "DOUBLE PRECISION" })
        }
        Type::NUMERIC => numeric(trimmed)?,
        Type::DATE => format!("CAST({} AS DATE)", quoted(trimmed)),
        Type::TIMESTAMP => format!("arrow_cast({}, 'Timestamp(Microsecond, None)')", quoted(trimmed)),
        Type::TIMESTAMPTZ => {
            let zone = if zone == UTC { "+00:00" } else { zone };
            format!("arrow_cast({}, 'Timestamp(Microsecond, Some(\"{zone}\"))')", quoted(trimmed))
        }
        Type::TIME => format!("CAST({} AS TIME)", quoted(trimmed)),
        Type::INTERVAL => format!("CAST({} AS INTERVAL)", quoted(trimmed)),
        Type::BYTEA => match text.strip_prefix("\\x") {
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_hexdigit()) && digits.len() % 2 == 0 => {
                format!("X'{digits}'")
            }
            _ => return None,
        },
        _ => quoted(text),
    })
}

fn numeric(text: &str) -> Option<String> {
    // `1e3` is a number, too.
    let plain = if text.contains(['e', 'E']) { format!("{}", text.parse::<f64>().ok()?) } else { text.to_owned() };
    let digits = plain.trim_start_matches(['+', '-']);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all = whole.len() + fraction.len();
    if all == 0 || !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) || all > 76 {
        return None;
    }
    Some(format!("CAST('{plain}' AS DECIMAL({}, {}))", all.max(1), fraction.len()))
}

/// A text in quotes.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A value in binary, as text.
pub(super) fn binary_text(kind: &Type, mut value: Bytes) -> Option<String> {
    if let TypeKind::Array(element) = kind.kind() {
        return array_binary_text(element, value);
    }
    let length = usize::try_from(types::size(kind)).ok();
    if length.is_some_and(|length| length != value.len()) && *kind != Type::NAME {
        return None;
    }
    let mut out = BytesMut::new();
    match *kind {
        Type::BOOL => return Some(if value.get_u8() != 0 { "t" } else { "f" }.to_owned()),
        Type::INT2 => numbers::integer(value.get_i16().into(), &mut out),
        Type::INT4 => numbers::integer(value.get_i32().into(), &mut out),
        Type::OID | Type::REGCLASS | Type::REGTYPE | Type::REGPROC => {
            numbers::integer(value.get_u32().into(), &mut out);
        }
        Type::INT8 => numbers::integer(value.get_i64(), &mut out),
        Type::FLOAT4 => numbers::real(value.get_f32(), &mut out),
        Type::FLOAT8 => numbers::double(value.get_f64(), &mut out),
        Type::NUMERIC => return numbers::numeric_text(&value),
        Type::DATE => times::date(i64::from(value.get_i32()) + i64::from(times::EPOCH_DAYS), &mut out),
        Type::TIMESTAMP => times::timestamp(value.get_i64().checked_add(times::EPOCH_MICROS)?, None, &mut out),
        Type::TIMESTAMPTZ => {
            let utc = times::Zone::default();
            times::timestamp(value.get_i64().checked_add(times::EPOCH_MICROS)?, Some(&utc), &mut out);
        }
        Type::TIME => times::time(value.get_i64(), &mut out),
        Type::INTERVAL => {
            let (micros, days, months) = (value.get_i64(), value.get_i32(), value.get_i32());
            return Some(format!(
                "{months} months {days} days {}.{:06} seconds",
                micros / 1_000_000,
                (micros % 1_000_000).abs()
            ));
        }
        Type::BYTEA => {
            let mut text = "\\x".to_owned();
            for byte in &value {
                // Writing to memory does not fail.
                let _ = write!(text, "{byte:02x}");
            }
            return Some(text);
        }
        Type::UUID => return Some(uuid::Uuid::from_slice(&value).ok()?.to_string()),
        Type::JSONB => {
            // The version comes first.
            return String::from_utf8(value.strip_prefix(&[1])?.to_vec()).ok();
        }
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::JSON | Type::UNKNOWN | Type::CHAR => {
            return String::from_utf8(value.to_vec()).ok();
        }
        _ => return None,
    }
    String::from_utf8(out.to_vec()).ok()
}

/// The elements of `{1,NULL,"a b"}`.
pub(crate) fn array_text(text: &str) -> Option<Vec<Option<Bytes>>> {
    let inner = text.trim().strip_prefix('{')?.strip_suffix('}')?;
    let mut elements = Vec::new();
    let mut chars = inner.chars().peekable();
    if inner.trim().is_empty() {
        return Some(elements);
    }
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        let mut element = String::new();
        let quoted = chars.next_if_eq(&'"').is_some();
        loop {
            match chars.next() {
                Some('\\') => element.push(chars.next()?),
                Some('"') if quoted => break,
                Some(',') if !quoted => {
                    elements.push(unquoted_element(element));
                    element = String::new();
                    while chars.next_if(|c| c.is_whitespace()).is_some() {}
                    if chars.peek() == Some(&'"') {
                        break;
                    }
                }
                // An array in an array.
                Some('{' | '}') if !quoted => return None,
                Some(c) => element.push(c),
                None if quoted => return None,
                None => {
                    elements.push(unquoted_element(element));
                    return Some(elements);
                }
            }
        }
        if quoted {
            elements.push(Some(Bytes::from(element)));
            while chars.next_if(|c| c.is_whitespace()).is_some() {}
            match chars.next() {
                Some(',') => {}
                None => return Some(elements),
                Some(_) => return None,
            }
        }
    }
}

fn unquoted_element(element: String) -> Option<Bytes> {
    let element = element.trim_end();
    (!element.eq_ignore_ascii_case("null")).then(|| Bytes::from(element.to_owned()))
}

fn array_binary(mut value: Bytes) -> Option<Vec<Option<Bytes>>> {
    let word = |value: &mut Bytes| (value.len() >= 4).then(|| value.get_i32());
    let dimensions = word(&mut value)?;
    let (_has_null, _element) = (word(&mut value)?, word(&mut value)?);
    match dimensions {
        0 => return Some(Vec::new()),
        1 => {}
        _ => return None,
    }
    let (length, _first) = (word(&mut value)?, word(&mut value)?);
    let mut elements = Vec::new();
    for _ in 0..length {
        let element = match usize::try_from(word(&mut value)?) {
            Ok(bytes) if bytes <= value.len() => Some(value.split_to(bytes)),
            Ok(_) => return None,
            Err(_) => None,
        };
        elements.push(element);
    }
    Some(elements)
}

/// An array in binary, as text.
fn array_binary_text(element: &Type, value: Bytes) -> Option<String> {
    let mut out = BytesMut::from("{");
    for (index, value) in array_binary(value)?.into_iter().enumerate() {
        if index > 0 {
            out.extend_from_slice(b",");
        }
        match value {
            Some(value) => array_element(binary_text(element, value)?.as_bytes(), &mut out),
            None => out.extend_from_slice(b"NULL"),
        }
    }
    out.extend_from_slice(b"}");
    String::from_utf8(out.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: Type, text: &str, expect: &str) {
        let value = Bytes::from(text.to_owned());
        assert_eq!(literal(&kind, 0, Some(&value), 1, UTC).expect(text), expect);
    }

    #[test]
    fn values_become_literals_and_nothing_else() {
        check(Type::INT4, "-5", "(-5)");
        check(Type::TEXT, "it's; drop table t --", "'it''s; drop table t --'");
        check(Type::NUMERIC, "-1.50", "CAST('-1.50' AS DECIMAL(3, 2))");
        check(Type::BOOL, "t", "TRUE");
        check(Type::BYTEA, "\\x00ff", "X'00ff'");
        let time = Bytes::from("2020-01-01 12:00:00");
        let expect = "arrow_cast('2020-01-01 12:00:00', 'Timestamp(Microsecond, Some(\"Asia/Tokyo\"))')";
        assert_eq!(literal(&Type::TIMESTAMPTZ, 0, Some(&time), 1, "Asia/Tokyo").expect("read"), expect);
        check(Type::INT4_ARRAY, "{1,NULL, 3}", "ARRAY[1, NULL, 3]");
        check(Type::TEXT_ARRAY, r#"{a,"b \"c\"",NULL,"NULL", d}"#, r#"ARRAY['a', 'b "c"', NULL, 'NULL', 'd']"#);
        for (kind, text) in [
            (Type::INT4, "1; drop"),
            (Type::FLOAT8, "1' OR '1"),
            (Type::NUMERIC, "1'"),
            (Type::BOOL, "perhaps"),
            (Type::BYTEA, "\\x0'"),
            (Type::INT4_ARRAY, "{1,{2}}"),
        ] {
            assert!(literal(&kind, 0, Some(&Bytes::from(text)), 1, UTC).is_err(), "{text}");
        }
        assert_eq!(literal(&Type::INT8, 1, Some(&Bytes::from_static(&[255; 8])), 1, UTC).expect("read"), "(-1)");
        assert!(literal(&Type::INT8, 1, Some(&Bytes::from_static(&[255; 4])), 1, UTC).is_err());
        assert_eq!(literal(&Type::INT8, 1, None, 1, UTC).expect("null"), "NULL");
    }

    #[test]
    fn literals_take_the_places_of_parameters() {
        let literals = ["'a'".to_owned(), "2".to_owned()];
        let sql = "select $2, '$1', $1 -- $9";
        assert_eq!(substitute(sql, &literals).expect("done"), "select 2, '$1', 'a' -- $9");
        assert_eq!(count(sql), 2);
        assert_eq!(
            casts("select $1::int + cast($2 as double precision), $3::text[], $4"),
            [(1, Type::INT4), (2, Type::FLOAT8), (3, Type::TEXT_ARRAY)]
        );
        assert!(substitute("select $3", &literals).is_err());
        assert_eq!(numbered("select ?, '?' from t where a = ?"), "select $1, '?' from t where a = $2");
        assert_eq!(numbered("select $1, ?"), "select $1, ?");
        assert_eq!(counts_of_rows("select a from t where b = $1 limit $2 offset $3"), [2, 3]);
    }
}
