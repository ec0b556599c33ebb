//! Finds out how a CSV file is written: its delimiter, its quote, whether it has a header, and its columns' names.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

use flumen_core::read::ReadOptions;
use flumen_core::text::{TypeSet, classify};
use flumen_core::{Error, Result, limits};
use memchr::memchr_iter;

use super::scan::{Marks, is_blank};

/// The delimiters that are looked for, the likeliest first.
const DELIMITERS: [u8; 4] = [b',', b'\t', b';', b'|'];
/// Records that are enough to find the delimiter.
const RECORDS: usize = 200;

/// How a file is written.
#[derive(Debug, Clone)]
pub(super) struct Dialect {
    pub marks: Marks,
    pub header: bool,
    /// One a column, none twice.
    pub names: Vec<String>,
    /// What was done to names that occur twice, one sentence each.
    pub renamed: Vec<String>,
    /// The fields that most rows have.
    pub usual_width: usize,
    /// Where the data begins: the byte, from 0, and the line, from 1.
    pub data_from: usize,
    pub data_line: u64,
}

impl Dialect {
    /// The dialect of a file that begins with `head`. `None`: more of it is needed.
    ///
    /// Errors: `Data` for an empty file, for too many columns, and for names that are no text.
    pub fn find(address: &str, name: &str, head: &[u8], ended: bool, options: &ReadOptions) -> Result<Option<Self>> {
        check(options)?;
        let Some(mut begin) = beginning(head, options.skip_lines) else {
            return if ended { Err(empty(address, options.skip_lines)) } else { Ok(None) };
        };
        // What Excel writes and reads in front of the header.
        let mut announced = None;
        if let [b's', b'e', b'p', b'=', delimiter, rest @ ..] = &head[begin..]
            && let [b'\r', b'\n', ..] | [b'\n', ..] = rest
        {
            announced = Some(*delimiter);
            begin += 6 + usize::from(rest[0] == b'\r');
        }
        let line = 1 + memchr_iter(b'\n', &head[..begin]).count() as u64;
        let text = &head[begin..];
        if !ended && memchr::memchr(b'\n', text).is_none() {
            return Ok(None);
        }
        let quote = options.quote.unwrap_or_else(|| Some(find_quote(text)));
        let delimiter =
            options.delimiter.or(announced).unwrap_or_else(|| find_delimiter(text, ended, quote, name, options));
        let marks = Marks { delimiter, quote };

        let mut first: Option<(Vec<Vec<u8>>, usize)> = None;
        let end = record_end(text, ended, marks);
        let Some(end) = end else { return Ok(None) };
        records(&text[..end], true, marks, |fields| {
            first = Some((fields.iter().map(|field| unquoted(field, quote).into_owned()).collect(), fields.len()));
            false
        });
        let Some((first, width)) = first else { return Ok(None) };
        if width > limits::COLUMNS {
            let most = limits::COLUMNS;
            return Err(Error::data(format!(
                "{address}: line {line} has {width} fields; a table has at most {most} columns"
            ))
            .hint("is the delimiter right? Say it with --delimiter, in SQL with read_csv(…, delimiter => ';')"));
        }
        let rest = &text[end..];
        let header = match options.header {
            Some(said) => said,
            None => is_header(&first, rest, ended, marks, options),
        };
        let (names, renamed) =
            if header { unique_names(address, line, &first)? } else { (numbered(width), Vec::new()) };
        let (data_from, data_line) =
            if header { (begin + end, line + memchr_iter(b'\n', &text[..end]).count() as u64) } else { (begin, line) };
        let usual_width = usual_width(&head[data_from..], ended, marks).unwrap_or(width);
        Ok(Some(Self { marks, header, names, renamed, usual_width, data_from, data_line }))
    }
}

/// Whether the marks that the user named can be told apart.
fn check(options: &ReadOptions) -> Result<()> {
    let quote = options.quote.unwrap_or(Some(b'"'));
    for (option, mark) in [("--delimiter", options.delimiter), ("--quote", quote)] {
        if mark.is_some_and(|mark| matches!(mark, b'\n' | b'\r' | 0) || !mark.is_ascii()) {
            return Err(Error::invalid(format!("{option} cannot be a line end or a byte beyond ASCII"))
                .hint("use a character such as ';' or '|'"));
        }
    }
    if options.delimiter.is_some() && options.delimiter == quote {
        return Err(Error::invalid("--delimiter and --quote are the same character").hint("change one of them"));
    }
    Ok(())
}

/// Where the first line that is not blank begins, after `skip` lines.
fn beginning(head: &[u8], skip: usize) -> Option<usize> {
    let mut at = 0;
    for _ in 0..skip {
        at += memchr::memchr(b'\n', &head[at..])? + 1;
    }
    loop {
        let rest = &head[at..];
        let Some(end) = memchr::memchr(b'\n', rest) else { return if is_blank(rest) { None } else { Some(at) } };
        if !is_blank(&rest[..end]) {
            return Some(at);
        }
        at += end + 1;
    }
}

fn empty(address: &str, skipped: usize) -> Error {
    match skipped {
        0 => Error::data(format!("{address} is empty")).hint("check how the file was made"),
        n => Error::data(format!("{address} is empty after the {n} lines that are skipped")).hint("skip fewer lines"),
    }
}

/// The end of the record that `text` begins with, after its newline.
fn record_end(text: &[u8], ended: bool, marks: Marks) -> Option<usize> {
    let mut end = None;
    marks.walk(text, |at, newline| {
        end = newline.then_some(at + 1);
        !newline
    });
    end.or(ended.then_some(text.len()))
}

/// Calls `each` with the fields of every record in `text` (quotes and all) that is not a blank line, while it says true.
/// The last one is left out unless the text `ended`.
pub(super) fn records(text: &[u8], ended: bool, marks: Marks, mut each: impl FnMut(&[&[u8]]) -> bool) {
    let (mut fields, mut from, mut more) = (Vec::new(), 0, true);
    let mut take = |fields: &mut Vec<&[u8]>, last: bool| {
        if last {
            if let Some(field) = fields.last_mut() {
                *field = field.strip_suffix(b"\r").unwrap_or(field);
            }
            if more && !(fields.len() == 1 && fields[0].is_empty()) {
                more = each(fields);
            }
            fields.clear();
        }
        more
    };
    marks.walk(text, |at, newline| {
        fields.push(&text[from..at]);
        from = at + 1;
        take(&mut fields, newline)
    });
    if ended && (from < text.len() || !fields.is_empty()) {
        fields.push(&text[from..]);
        take(&mut fields, true);
    }
}

/// A field's value: without its quotes.
pub(super) fn unquoted(field: &[u8], quote: Option<u8>) -> Cow<'_, [u8]> {
    let Some(quote) = quote else { return Cow::Borrowed(field) };
    let [first, inner @ ..] = field else { return Cow::Borrowed(field) };
    if *first != quote {
        return Cow::Borrowed(field);
    }
    let inner = inner.trim_ascii_end();
    let inner = inner.strip_suffix(&[quote]).unwrap_or(inner);
    if !inner.contains(&quote) {
        return Cow::Borrowed(inner);
    }
    let mut value = Vec::with_capacity(inner.len());
    let mut at = 0;
    while at < inner.len() {
        value.push(inner[at]);
        at += if inner[at] == quote && inner.get(at + 1) == Some(&quote) { 2 } else { 1 };
    }
    Cow::Owned(value)
}

/// The double quote, unless the file uses single ones: around fields, and no double ones.
fn find_quote(text: &[u8]) -> u8 {
    let edge = |byte: Option<&u8>| byte.is_none_or(|byte| DELIMITERS.contains(byte) || matches!(byte, b'\n' | b'\r'));
    let single = |text: &[u8]| {
        let (mut opening, mut closing) = (0, 0);
        for at in memchr_iter(b'\'', text) {
            opening += usize::from(at == 0 || edge(text.get(at - 1)));
            closing += usize::from(edge(text.get(at + 1)));
        }
        opening > 1 && opening == closing
    };
    if !text.contains(&b'"') && single(text) { b'\'' } else { b'"' }
}

/// The delimiter that cuts most records into the same number of fields, more than one.
fn find_delimiter(text: &[u8], ended: bool, quote: Option<u8>, name: &str, options: &ReadOptions) -> u8 {
    let name = name.to_ascii_lowercase();
    if name.ends_with(".tsv") || name.contains(".tsv.") {
        return b'\t';
    }
    let mut best = (0.0, b',');
    for delimiter in DELIMITERS {
        if options.text.decimal_comma && delimiter == b',' {
            continue;
        }
        let widths = widths(text, ended, Marks { delimiter, quote });
        let rows: usize = widths.values().sum();
        let Some((&width, &count)) = widths.iter().max_by_key(|(width, count)| (**count, **width)) else { continue };
        if width < 2 {
            continue;
        }
        // Consistency first; among equals, more columns.
        let score = count as f64 / rows as f64 + width.min(1000) as f64 / 1e5;
        if score > best.0 {
            best = (score, delimiter);
        }
    }
    if best.0 == 0.0 && options.text.decimal_comma { b';' } else { best.1 }
}

fn widths(text: &[u8], ended: bool, marks: Marks) -> BTreeMap<usize, usize> {
    let (mut widths, mut seen) = (BTreeMap::new(), 0);
    records(text, ended, marks, |fields| {
        *widths.entry(fields.len()).or_insert(0) += 1;
        seen += 1;
        seen < RECORDS
    });
    widths
}

fn usual_width(text: &[u8], ended: bool, marks: Marks) -> Option<usize> {
    widths(text, ended, marks).into_iter().max_by_key(|(_, count)| *count).map(|(width, _)| width)
}

/// Whether the `first` record has names: nothing in it but text, where the rows below (`rest`) are not against it.
fn is_header(first: &[Vec<u8>], rest: &[u8], ended: bool, marks: Marks, options: &ReadOptions) -> bool {
    let filled = first.iter().filter(|name| !name.trim_ascii().is_empty());
    let is_text = |value: &[u8]| classify(value, &options.text) == TypeSet::TEXT;
    if filled.clone().count() == 0 || !filled.clone().all(|name| is_text(name.trim_ascii())) {
        return false;
    }
    // All text below as well: names are hardly ever empty, and never stand below their own column.
    let (mut rows, mut repeated, mut typed) = (0usize, false, false);
    records(rest, ended, marks, |fields| {
        rows += 1;
        for (name, field) in first.iter().zip(fields) {
            let value = unquoted(field, marks.quote);
            typed |= !options.text.is_null(value.trim_ascii()) && !is_text(value.trim_ascii());
            repeated |= !name.is_empty() && name[..] == value[..];
        }
        rows < RECORDS && !typed
    });
    typed || rows == 0 || !(repeated && filled.count() < first.len())
}

fn numbered(width: usize) -> Vec<String> {
    (1..=width).map(|number| format!("column_{number}")).collect()
}

/// The names of the header on `line`: trimmed, the empty ones numbered, none twice.
fn unique_names(address: &str, line: u64, header: &[Vec<u8>]) -> Result<(Vec<String>, Vec<String>)> {
    let mut names: Vec<String> = Vec::with_capacity(header.len());
    for (index, bytes) in header.iter().enumerate() {
        let Ok(name) = std::str::from_utf8(bytes) else {
            let (number, shown) = (index + 1, String::from_utf8_lossy(bytes));
            return Err(Error::data(format!(
                "{address}: line {line}: the name of column {number} ('{shown}') is not valid UTF-8"
            ))
            .hint("if the file is in Latin-1, add --encoding latin-1, in SQL read_csv(…, encoding => 'latin-1')"));
        };
        let name = name.trim();
        names.push(if name.is_empty() { format!("column_{}", index + 1) } else { name.to_owned() });
    }
    let all: HashSet<String> = names.iter().cloned().collect();
    let (mut taken, mut renamed) = (HashSet::new(), Vec::new());
    for name in &mut names {
        if taken.insert(name.clone()) {
            continue;
        }
        let free = |number: &usize| {
            let candidate = format!("{name}_{number}");
            !all.contains(&candidate) && !taken.contains(&candidate)
        };
        let number = (2..).find(free).unwrap_or_default();
        let unique = format!("{name}_{number}");
        renamed.push(format!("the header has '{name}' more than once: this one is called '{unique}'"));
        taken.insert(unique.clone());
        *name = unique;
    }
    Ok((names, renamed))
}
