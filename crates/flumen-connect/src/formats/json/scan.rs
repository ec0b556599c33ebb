//! The grammar of JSON: where a value ends, and what is wrong with it. Nothing is built here but slices of the text.

use std::borrow::Cow;

/// Objects and arrays within each other, at most.
const DEPTH: usize = 128;

/// Where the text is no JSON, and why.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    at: usize,
    what: &'static str,
}

fn fault<T>(at: usize, what: &'static str) -> Result<T, Fault> {
    Err(Fault { at, what })
}

/// Calls `each` with the keys and values of a record. With `flatten`, those of objects within it are named after both:
/// `a_b`.
///
/// Errors: what is wrong with the record, for [`flumen_core::read::BadRow::reason`].
pub(super) fn record<'a>(text: &'a [u8], flatten: bool, each: &mut dyn FnMut(&str, &'a [u8])) -> Result<(), String> {
    let begin = skip_space(text, 0);
    if simdutf8::basic::from_utf8(text).is_err() {
        return Err("is not valid UTF-8".to_owned());
    }
    let end =
        value(text, begin, 0).map_err(|fault| format!("is not valid JSON: {} at byte {}", fault.what, fault.at + 1))?;
    if skip_space(text, end) != text.len() {
        return Err(format!("is not valid JSON: more text after the value at byte {}", end + 1));
    }
    if text.get(begin) != Some(&b'{') {
        return Err("is not a JSON object".to_owned());
    }
    let mut twice = None;
    walk(&text[begin..end], "", flatten, &mut Vec::new(), &mut twice, each);
    twice.map_or(Ok(()), |key: String| Err(format!("has the key '{key}' twice")))
}

fn walk<'a>(
    object: &'a [u8],
    prefix: &str,
    flatten: bool,
    seen: &mut Vec<String>,
    twice: &mut Option<String>,
    each: &mut dyn FnMut(&str, &'a [u8]),
) {
    members(object, &mut |key, value| {
        let name: Cow<'_, str> = if prefix.is_empty() { key } else { Cow::Owned(format!("{prefix}_{key}")) };
        if flatten && value.first() == Some(&b'{') {
            walk(value, &name, flatten, seen, twice, each);
            return;
        }
        if seen.iter().any(|other| *other == name) {
            *twice = Some(name.to_string());
        }
        each(&name, value);
        seen.push(name.into_owned());
    });
}

/// Calls `each` with the keys and values of `object`, whose grammar is right.
pub(super) fn members<'a>(object: &'a [u8], each: &mut dyn FnMut(Cow<'a, str>, &'a [u8])) {
    let mut at = skip_space(object, 1);
    while object.get(at) == Some(&b'"') {
        let Ok(key_end) = string(object, at) else { return };
        let key = text(&object[at..key_end]);
        let begin = skip_space(object, skip_space(object, key_end) + 1);
        let Ok(end) = value(object, begin, 0) else { return };
        each(key, &object[begin..end]);
        at = skip_space(object, skip_space(object, end) + 1);
    }
}

/// Calls `each` with the elements of `array`, whose grammar is right.
pub(super) fn elements<'a>(array: &'a [u8], each: &mut dyn FnMut(&'a [u8])) {
    let mut at = skip_space(array, 1);
    while at < array.len() && array[at] != b']' {
        let Ok(end) = value(array, at, 0) else { return };
        each(&array[at..end]);
        at = skip_space(array, skip_space(array, end) + 1);
    }
}

/// The first place from `at` on that is no white space.
pub(super) fn skip_space(text: &[u8], mut at: usize) -> usize {
    while matches!(text.get(at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
        at += 1;
    }
    at
}

/// The end of the value that begins at `at`.
pub(super) fn value(text: &[u8], at: usize, depth: usize) -> Result<usize, Fault> {
    match text.get(at) {
        None => fault(at, "the value is missing"),
        Some(b'"') => string(text, at),
        Some(b'{' | b'[') if depth == DEPTH => fault(at, "it is nested too deep"),
        Some(b'{') => object(text, at, depth),
        Some(b'[') => array(text, at, depth),
        Some(b't') => literal(text, at, b"true"),
        Some(b'f') => literal(text, at, b"false"),
        Some(b'n') => literal(text, at, b"null"),
        Some(b'-' | b'0'..=b'9') => number(text, at),
        Some(_) => fault(at, "no value begins like this"),
    }
}

fn literal(text: &[u8], at: usize, word: &[u8]) -> Result<usize, Fault> {
    if text[at..].starts_with(word) { Ok(at + word.len()) } else { fault(at, "no value begins like this") }
}

fn object(text: &[u8], at: usize, depth: usize) -> Result<usize, Fault> {
    let mut at = skip_space(text, at + 1);
    if text.get(at) == Some(&b'}') {
        return Ok(at + 1);
    }
    loop {
        if text.get(at) != Some(&b'"') {
            return fault(at, "a key is missing");
        }
        at = skip_space(text, string(text, at)?);
        if text.get(at) != Some(&b':') {
            return fault(at, "a colon is missing");
        }
        at = skip_space(text, value(text, skip_space(text, at + 1), depth + 1)?);
        match text.get(at) {
            Some(b',') => at = skip_space(text, at + 1),
            Some(b'}') => return Ok(at + 1),
            _ => return fault(at, "a comma or a closing brace is missing"),
        }
    }
}

fn array(text: &[u8], at: usize, depth: usize) -> Result<usize, Fault> {
    let mut at = skip_space(text, at + 1);
    if text.get(at) == Some(&b']') {
        return Ok(at + 1);
    }
    loop {
        at = skip_space(text, value(text, at, depth + 1)?);
        match text.get(at) {
            Some(b',') => at = skip_space(text, at + 1),
            Some(b']') => return Ok(at + 1),
            _ => return fault(at, "a comma or a closing bracket is missing"),
        }
    }
}

fn string(text: &[u8], begin: usize) -> Result<usize, Fault> {
    let mut at = begin + 1;
    loop {
        let Some(found) = text[at..].iter().position(|byte| *byte == b'"' || *byte == b'\\' || *byte < 0x20) else {
            return fault(begin, "a text has no end");
        };
        at += found;
        match text[at] {
            b'"' => return Ok(at + 1),
            b'\\' => match text.get(at + 1) {
                Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => at += 2,
                Some(b'u') if text.len() >= at + 6 && text[at + 2..at + 6].iter().all(u8::is_ascii_hexdigit) => at += 6,
                _ => return fault(at, "a backslash means nothing"),
            },
            _ => return fault(at, "a text has a control character"),
        }
    }
}

fn number(text: &[u8], at: usize) -> Result<usize, Fault> {
    let digits = |mut at: usize| {
        let begin = at;
        while text.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        if at == begin { fault(at, "a digit is missing") } else { Ok(at) }
    };
    let begin = at + usize::from(text[at] == b'-');
    let mut at = digits(begin)?;
    if text[begin] == b'0' && at > begin + 1 {
        return fault(begin, "a number begins with a zero");
    }
    if text.get(at) == Some(&b'.') {
        at = digits(at + 1)?;
    }
    if matches!(text.get(at), Some(b'e' | b'E')) {
        at = digits(at + 1 + usize::from(matches!(text.get(at + 1), Some(b'+' | b'-'))))?;
    }
    Ok(at)
}

/// What a string (with its quotes, and of the right grammar) says.
pub(super) fn text(quoted: &[u8]) -> Cow<'_, str> {
    let inner = &quoted[1..quoted.len() - 1];
    if !inner.contains(&b'\\') {
        return String::from_utf8_lossy(inner);
    }
    // Half of a pair of surrogates means nothing: it becomes the sign for that.
    match serde_json::from_slice::<String>(quoted) {
        Ok(text) => Cow::Owned(text),
        Err(_) => String::from_utf8_lossy(inner),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, flatten: bool) -> String {
        let mut found = Vec::new();
        let read = record(text.as_bytes(), flatten, &mut |key, value| {
            found.push(format!("{key}={}", String::from_utf8_lossy(value)));
        });
        read.map_or_else(|reason| reason, |()| found.join("; "))
    }

    #[test]
    fn records_are_taken_apart() {
        assert_eq!(
            check(r#" {"a": 1, "b":{"c":[1, {"d":null}]},"e":"x\"y"} "#, false),
            r#"a=1; b={"c":[1, {"d":null}]}; e="x\"y""#
        );
        assert_eq!(check(r#"{"a":{"b":{"c":1},"d":2},"e":{}}"#, true), "a_b_c=1; a_d=2");
        assert_eq!(check("{}", false), "");
        assert_eq!(check(r#"{"\u00e4\n":true}"#, false), "ä\n=true");
    }

    #[test]
    fn what_is_no_record_says_why() {
        for (text, why) in [
            ("[1]", "is not a JSON object"),
            ("", "is not valid JSON: the value is missing at byte 1"),
            (r#"{"a":1"#, "is not valid JSON: a comma or a closing brace is missing at byte 7"),
            (r#"{"a":01}"#, "is not valid JSON: a number begins with a zero at byte 6"),
            (r#"{"a":1.}"#, "is not valid JSON: a digit is missing at byte 8"),
            (r#"{"a":1,}"#, "is not valid JSON: a key is missing at byte 8"),
            (r#"{"a" 1}"#, "is not valid JSON: a colon is missing at byte 6"),
            (r#"{"a":tru}"#, "is not valid JSON: no value begins like this at byte 6"),
            (r#"{"a":"\x"}"#, "is not valid JSON: a backslash means nothing at byte 7"),
            (r#"{"a":"x"#, "is not valid JSON: a text has no end at byte 6"),
            (r#"{"a":1} {"#, "is not valid JSON: more text after the value at byte 8"),
            (r#"{"a":1,"a":2}"#, "has the key 'a' twice"),
        ] {
            assert_eq!(check(text, false), why, "{text}");
        }
        assert_eq!(
            check(&format!("{{\"a\":{}", "[".repeat(1000)), false),
            "is not valid JSON: it is nested too deep at byte 133"
        );
        assert_eq!(check(r#"{"a_b":1,"a":{"b":2}}"#, true), "has the key 'a_b' twice");
    }

    #[test]
    fn it_agrees_with_another_reader_of_json() {
        let pieces = ["{", "}", "[", "]", "\"a\"", ":", ",", "1", "-0.5e3", "null", "true", " ", "\"\\n\""];
        let mut state: u64 = 7;
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..(state >> 60) {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                text.push_str(pieces[(state >> 33) as usize % pieces.len()]);
            }
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let theirs = serde_json::from_str::<serde_json::Value>(&text).is_ok();
            let begin = skip_space(text.as_bytes(), 0);
            let ours = value(text.as_bytes(), begin, 0).is_ok_and(|end| skip_space(text.as_bytes(), end) == text.len());
            assert_eq!(ours, theirs, "{text}");
        }
    }
}
