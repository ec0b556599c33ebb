//! Functions on texts, numbers and arrays.

use std::sync::Arc;

use postgres_types::Type;

use super::{Context, Gives, Spec, Value, at, int, plain, plain_null, text};
use crate::catalog::patterns;
use crate::catalog::value::sorted;
use crate::failure::{Failure, code};

pub(super) const FUNCTIONS: &[Spec] = &[
    plain_null("coalesce", Gives::Argument(0), |a, _| {
        Ok(a.iter().find(|v| !v.is_null()).cloned().unwrap_or(Value::Null))
    }),
    plain_null("nullif", Gives::Argument(0), |a, _| {
        let same = a.len() == 2 && at(a, 0).compare(at(a, 1)).is_some_and(|ordering| ordering.is_eq());
        Ok(if same { Value::Null } else { a.first().cloned().unwrap_or(Value::Null) })
    }),
    plain_null("greatest", Gives::Argument(0), |a, _| {
        Ok(a.iter().filter(|v| !v.is_null()).max_by(|a, b| sorted(a, b)).cloned().unwrap_or(Value::Null))
    }),
    plain_null("least", Gives::Argument(0), |a, _| {
        Ok(a.iter().filter(|v| !v.is_null()).min_by(|a, b| sorted(a, b)).cloned().unwrap_or(Value::Null))
    }),
    plain("bpchar", Type::TEXT, |a, c| Ok(Value::text(text(a, 0, c)))),
    plain("to_char", Type::TEXT, to_char),
    plain("lower", Type::TEXT, |a, c| Ok(Value::text(text(a, 0, c).to_lowercase()))),
    plain("upper", Type::TEXT, |a, c| Ok(Value::text(text(a, 0, c).to_uppercase()))),
    plain("length", Type::INT4, |a, c| Ok(Value::Int(text(a, 0, c).chars().count() as i64))),
    plain("char_length", Type::INT4, |a, c| Ok(Value::Int(text(a, 0, c).chars().count() as i64))),
    plain("octet_length", Type::INT4, |a, c| Ok(Value::Int(text(a, 0, c).len() as i64))),
    plain("substring", Type::TEXT, substring),
    plain("substr", Type::TEXT, substring),
    plain("left", Type::TEXT, |a, c| {
        let whole = text(a, 0, c);
        let most = int(a, 1);
        let most = if most < 0 { whole.chars().count() as i64 + most } else { most };
        Ok(Value::text(whole.chars().take(usize::try_from(most).unwrap_or_default()).collect::<String>()))
    }),
    plain("right", Type::TEXT, |a, c| {
        let whole = text(a, 0, c);
        let skipped = whole.chars().count().saturating_sub(usize::try_from(int(a, 1)).unwrap_or_default());
        Ok(Value::text(whole.chars().skip(skipped).collect::<String>()))
    }),
    plain("btrim", Type::TEXT, |a, c| Ok(Value::text(text(a, 0, c).trim_matches(set(a, c).as_slice())))),
    plain("trim", Type::TEXT, |a, c| Ok(Value::text(text(a, 0, c).trim_matches(set(a, c).as_slice())))),
    plain("ltrim", Type::TEXT, |a, c| Ok(Value::text(text(a, 0, c).trim_start_matches(set(a, c).as_slice())))),
    plain("rtrim", Type::TEXT, |a, c| Ok(Value::text(text(a, 0, c).trim_end_matches(set(a, c).as_slice())))),
    plain("replace", Type::TEXT, |a, c| Ok(Value::text(text(a, 0, c).replace(&text(a, 1, c), &text(a, 2, c))))),
    plain("split_part", Type::TEXT, |a, c| {
        let (whole, between) = (text(a, 0, c), text(a, 1, c));
        let place = usize::try_from(int(a, 2) - 1).unwrap_or(usize::MAX);
        Ok(Value::text(whole.split(between.as_str()).nth(place).unwrap_or_default()))
    }),
    plain("strpos", Type::INT4, |a, c| {
        let whole = text(a, 0, c);
        Ok(Value::Int(whole.find(&text(a, 1, c)).map_or(0, |byte| whole[..byte].chars().count() as i64 + 1)))
    }),
    plain("starts_with", Type::BOOL, |a, c| Ok(Value::Bool(text(a, 0, c).starts_with(&text(a, 1, c))))),
    plain_null("concat", Gives::This(Type::TEXT), |a, c| {
        Ok(Value::text((0..a.len()).map(|place| text(a, place, c)).collect::<String>()))
    }),
    plain_null("concat_ws", Gives::This(Type::TEXT), |a, c| {
        let parts = a.iter().skip(1).filter_map(|value| value.shown(&c.snapshot)).collect::<Vec<_>>();
        Ok(Value::text(parts.join(&text(a, 0, c))))
    }),
    plain_null("json_build_object", Gives::This(Type::JSON), |a, c| {
        let member = |pair: &[Value]| {
            let name = serde_json::Value::from(pair[0].shown(&c.snapshot).unwrap_or_default());
            format!("{name} : {}", pair.get(1).map_or(serde_json::Value::Null, |value| json(value, c)))
        };
        Ok(Value::text(format!("{{{}}}", a.chunks(2).map(member).collect::<Vec<_>>().join(", "))))
    }),
    plain_null("format", Gives::This(Type::TEXT), format),
    plain("quote_ident", Type::TEXT, |a, c| Ok(Value::text(crate::catalog::listing::quoted(&text(a, 0, c))))),
    plain("quote_literal", Type::TEXT, |a, c| Ok(Value::text(format!("'{}'", text(a, 0, c).replace('\'', "''"))))),
    plain_null("quote_nullable", Gives::This(Type::TEXT), |a, c| {
        let shown = a.first().and_then(|value| value.shown(&c.snapshot));
        Ok(Value::text(shown.map_or("NULL".to_owned(), |text| format!("'{}'", text.replace('\'', "''")))))
    }),
    plain("regexp_replace", Type::TEXT, |a, c| {
        let ignore_case = text(a, 3, c).contains('i');
        let regex = patterns::compiled(patterns::Kind::Regex { ignore_case }, &text(a, 1, c))?;
        // Postgres writes \1 for what is $1 elsewhere.
        let with = text(a, 2, c).replace('$', "$$").replace('\\', "$");
        let whole = text(a, 0, c);
        let times = usize::from(!text(a, 3, c).contains('g'));
        Ok(Value::text(regex.replacen(&whole, times, with.as_str())))
    }),
    plain("abs", Type::INT8, |a, _| {
        Ok(match at(a, 0) {
            Value::Float(number) => Value::Float(number.abs()),
            other => Value::Int(other.int().unwrap_or_default().saturating_abs()),
        })
    }),
    plain("floor", Type::FLOAT8, |a, _| {
        Ok(at(a, 0).float().map_or(Value::Null, |number| Value::Float(number.floor())))
    }),
    plain("ceil", Type::FLOAT8, |a, _| Ok(at(a, 0).float().map_or(Value::Null, |number| Value::Float(number.ceil())))),
    plain("round", Type::FLOAT8, |a, _| {
        let scale = 10f64.powi(int(a, 1) as i32);
        Ok(at(a, 0).float().map_or(Value::Null, |number| Value::Float((number * scale).round() / scale)))
    }),
    plain("array_to_string", Type::TEXT, |a, c| {
        let Value::Array(values) = at(a, 0) else { return Ok(Value::Null) };
        let shown = values.iter().filter_map(|value| value.shown(&c.snapshot)).collect::<Vec<_>>();
        Ok(Value::text(shown.join(&text(a, 1, c))))
    }),
    plain("string_to_array", Type::TEXT_ARRAY, |a, c| {
        let (whole, between) = (text(a, 0, c), text(a, 1, c));
        if whole.is_empty() {
            return Ok(Value::array(Vec::new()));
        }
        Ok(Value::array(whole.split(between.as_str()).map(Value::text).collect()))
    }),
    plain("array_length", Type::INT4, length),
    plain("array_upper", Type::INT4, length),
    plain("array_lower", Type::INT4, |a, _| {
        Ok(match at(a, 0) {
            Value::Array(values) if !values.is_empty() => Value::Int(1),
            _ => Value::Null,
        })
    }),
    plain("cardinality", Type::INT4, |a, _| {
        Ok(match at(a, 0) {
            Value::Array(values) => Value::Int(values.len() as i64),
            _ => Value::Null,
        })
    }),
    plain_null("array_append", Gives::Argument(0), |a, _| {
        Ok(match a {
            [Value::Array(values), one] => Value::array(values.iter().cloned().chain([one.clone()]).collect()),
            [_, one] => Value::array(vec![one.clone()]),
            _ => Value::Null,
        })
    }),
    plain_null("array_remove", Gives::Argument(0), |a, _| {
        Ok(match a {
            [Value::Array(values), one] => {
                Value::array(values.iter().filter(|value| value.key() != one.key()).cloned().collect())
            }
            _ => Value::Null,
        })
    }),
    plain("array_position", Type::INT4, |a, _| {
        Ok(match a {
            [Value::Array(values), one, ..] => {
                let place = values.iter().position(|value| value.key() == one.key());
                place.map_or(Value::Null, |place| Value::Int(place as i64 + 1))
            }
            _ => Value::Null,
        })
    }),
    plain("date_part", Type::FLOAT8, |a, c| {
        let (field, Value::Time(micros)) = (text(a, 0, c), at(a, 1)) else {
            // An interval counts in microseconds.
            return Ok(at(a, 1).int().map_or(Value::Null, |micros| Value::Float(micros as f64 / 1e6)));
        };
        match field.as_str() {
            "epoch" => Ok(Value::Float(*micros as f64 / 1e6)),
            other => Err(Failure::new(code::FEATURE_NOT_SUPPORTED, format!("'{other}' of a time of the catalog"))),
        }
    }),
];

/// A time in one of the forms in which it is asked for here.
fn to_char(arguments: &[Value], context: &Context) -> Result<Value, Failure> {
    const PATTERNS: [(&str, &str); 7] =
        [("YYYY", "%Y"), ("HH24", "%H"), ("MM", "%m"), ("DD", "%d"), ("MI", "%M"), ("SS", "%S"), ("TZ", "UTC")];
    let Value::Time(micros) = at(arguments, 0) else { return Ok(Value::text(text(arguments, 0, context))) };
    let mut pattern = text(arguments, 1, context).replace('%', "%%");
    for (postgres, ours) in PATTERNS {
        pattern = pattern.replace(postgres, ours);
    }
    let time = chrono::DateTime::from_timestamp_micros(*micros).unwrap_or_default();
    Ok(Value::text(time.format(&pattern).to_string()))
}

fn json(value: &Value, context: &Context) -> serde_json::Value {
    match value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(value) => (*value).into(),
        Value::Int(value) => (*value).into(),
        Value::Float(value) => (*value).into(),
        Value::Array(values) => values.iter().map(|value| json(value, context)).collect(),
        other => other.shown(&context.snapshot).unwrap_or_default().into(),
    }
}

fn set(arguments: &[Value], context: &Context) -> Vec<char> {
    if arguments.len() > 1 { text(arguments, 1, context).chars().collect() } else { vec![' '] }
}

fn length(arguments: &[Value], _context: &Context) -> Result<Value, Failure> {
    Ok(match at(arguments, 0) {
        Value::Array(values) if !values.is_empty() && int(arguments, 1) == 1 => Value::Int(values.len() as i64),
        _ => Value::Null,
    })
}

fn substring(arguments: &[Value], context: &Context) -> Result<Value, Failure> {
    let whole = text(arguments, 0, context);
    // With a pattern in place of a number.
    if let Some(Value::Text(pattern)) = arguments.get(1)
        && pattern.parse::<i64>().is_err()
    {
        let regex = patterns::compiled(patterns::Kind::Regex { ignore_case: false }, pattern)?;
        let Some(found) = regex.captures(&whole) else { return Ok(Value::Null) };
        let part = found.get(1).or_else(|| found.get(0));
        return Ok(part.map_or(Value::Null, |part| Value::text(part.as_str())));
    }
    let from = int(arguments, 1);
    let end = arguments.get(2).and_then(Value::int).map_or(i64::MAX, |length| from.saturating_add(length));
    let places = whole.chars().zip(1i64..).filter(|(_, place)| *place >= from && *place < end);
    Ok(Value::text(places.map(|(c, _)| c).collect::<String>()))
}

/// `%s`, `%I`, `%L`.
fn format(arguments: &[Value], context: &Context) -> Result<Value, Failure> {
    let pattern = text(arguments, 0, context);
    let mut values = arguments.iter().skip(1);
    let mut out = String::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut value = || values.next().and_then(|value| value.shown(&context.snapshot));
        match chars.next() {
            Some('%') => out.push('%'),
            Some('s') => out.push_str(&value().unwrap_or_default()),
            Some('I') => out.push_str(&crate::catalog::listing::quoted(&value().unwrap_or_default())),
            Some('L') => {
                out.push_str(&value().map_or("NULL".to_owned(), |text| format!("'{}'", text.replace('\'', "''"))))
            }
            other => {
                let shown: String = other.into_iter().collect();
                return Err(Failure::new(code::FEATURE_NOT_SUPPORTED, format!("%{shown} in format()")));
            }
        }
    }
    Ok(Value::Text(Arc::from(out)))
}
