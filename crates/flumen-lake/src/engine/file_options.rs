//! What statements say about files, in `OPTIONS (…)` of an external table and behind COPY: as words and values, whatever the
//! dialect, and from there to what readers and sinks know.

use flumen_core::read::ReadOptions;
use flumen_core::write::WriteOptions;
use flumen_core::{Error, Result};

/// What readers know.
const READING: &str = "there are: format, compression, header, delimiter, quote, null, encoding, skip_lines, sheet, date_format, \
                       decimal_comma, flatten";
/// The option that external tables keep for columns that folders give and that were declared as text.
pub(super) const FOLDER_TEXT: &str = "folder_text";
/// What sinks know.
const WRITING: &str = "there are: format, compression, header, delimiter, quote, null";

/// How files are to be read.
///
/// Errors: `Invalid` for an option that is not known, or a value that it does not have.
pub(super) fn reading<'a>(
    format: Option<&str>,
    options: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> Result<ReadOptions> {
    let mut read = ReadOptions { format: format.map(str::to_owned), ..ReadOptions::default() };
    let mut escape = None;
    for (key, value) in options {
        match word(key).as_str() {
            "format" => read.format = Some(value.to_lowercase()),
            "delimiter" | "delim" | "sep" => read.delimiter = Some(letter(key, value)?),
            "quote" if matches!(value.as_str(), "" | "none") => read.quote = Some(None),
            "quote" => read.quote = Some(Some(letter(key, value)?)),
            "escape" => escape = Some(letter(key, value)?),
            "header" | "has_header" => read.header = Some(flag(key, value)?),
            "null" | "nullstr" | "null_value" => read.text.nulls.push(value.clone()),
            "date_format" | "dateformat" | "timestampformat" => read.text.date_format = Some(value.clone()),
            // It is about how Postgres keeps rows.
            "freeze" => {}
            "decimal_comma" => read.text.decimal_comma = flag(key, value)?,
            "compression" => read.compression = Some(packing(value)),
            "encoding" => read.encoding = Some(value.to_lowercase()),
            "skip_lines" | "skip" => read.skip_lines = value.parse().map_err(|_| wrong(key, value, "a number"))?,
            "sheet" => read.sheet = Some(value.clone()),
            "flatten" => read.flatten = flag(key, value)?,
            // It is so in any case.
            "auto_detect" | "hive_partitioning" | "union_by_name" => {
                if !flag(key, value)? {
                    return Err(Error::invalid(format!("the option '{key}' cannot be false"))
                        .hint("leave it out, and select the columns that are wanted"));
                }
            }
            FOLDER_TEXT => read.folder_text = value.split(',').map(|name| name.trim().to_owned()).collect(),
            _ => return Err(unknown(key, READING)),
        }
    }
    check_escape(escape, read.quote.flatten())?;
    Ok(read)
}

/// How a file is to be written. `stored_as` is what stands before the options.
///
/// Errors: as [`reading`].
pub(super) fn writing(stored_as: Option<&str>, options: &[(String, String)]) -> Result<WriteOptions> {
    let mut write = WriteOptions { format: stored_as.map(str::to_lowercase), ..WriteOptions::default() };
    let mut escape = None;
    for (key, value) in options {
        match word(key).as_str() {
            "format" => write.format = Some(value.to_lowercase()),
            "delimiter" | "sep" => write.delimiter = Some(letter(key, value)?),
            "quote" => write.quote = Some(letter(key, value)?),
            "escape" => escape = Some(letter(key, value)?),
            "header" | "has_header" => write.header = Some(flag(key, value)?),
            "null" | "nullstr" | "null_value" => write.null = Some(value.clone()),
            "compression" | "codec" => write.compression = Some(packing(value)),
            "encoding" if matches!(value.to_lowercase().as_str(), "utf8" | "utf-8") => {}
            _ => return Err(unknown(key, WRITING)),
        }
    }
    check_escape(escape, write.quote)?;
    Ok(write)
}

/// Errors: `Invalid` for an escape that is not the quote: within quotes, a quote is written twice here.
fn check_escape(escape: Option<u8>, quote: Option<u8>) -> Result<()> {
    match escape {
        Some(escape) if escape != quote.unwrap_or(b'"') => {
            Err(Error::invalid(format!("'{}' cannot be the escape of a CSV", char::from(escape)))
                .hint("within quotes, a quote is written twice: leave the option out"))
        }
        _ => Ok(()),
    }
}

/// An option's name: DataFusion writes `format.` before some.
fn word(key: &str) -> String {
    key.to_lowercase().trim_start_matches("format.").to_owned()
}

fn letter(key: &str, value: &str) -> Result<u8> {
    match value.as_bytes() {
        [letter] => Ok(*letter),
        b"\\t" => Ok(b'\t'),
        _ => Err(wrong(key, value, "one character")),
    }
}

fn flag(key: &str, value: &str) -> Result<bool> {
    match value.to_lowercase().as_str() {
        "true" | "on" | "1" => Ok(true),
        "false" | "off" | "0" => Ok(false),
        _ => Err(wrong(key, value, "true or false")),
    }
}

fn packing(value: &str) -> String {
    match value.to_lowercase().as_str() {
        "uncompressed" => "none".to_owned(),
        other => other.to_owned(),
    }
}

fn wrong(key: &str, value: &str, what: &str) -> Error {
    Error::invalid(format!("the option '{key}' should be {what}, not '{value}'"))
}

fn unknown(key: &str, known: &str) -> Error {
    Error::invalid(format!("files have no option '{key}'")).hint(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Vec<(String, String)> {
        let pairs = text.split(' ').filter_map(|pair| pair.split_once('='));
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn words_are_those_of_several_dialects() {
        let options = said("format.has_header=off sep=\\t nullstr=NA skip=2 compression=uncompressed");
        let read = reading(Some("csv"), options.iter().map(|(key, value)| (key, value))).unwrap();
        assert_eq!((read.header, read.delimiter, read.skip_lines), (Some(false), Some(b'\t'), 2));
        assert_eq!((read.text.nulls, read.compression.as_deref()), (vec!["NA".to_owned()], Some("none")));
        let written = writing(Some("CSV"), &said("header=TRUE delimiter=| escape=' quote=' codec=GZIP")).unwrap();
        let expect = WriteOptions {
            format: Some("csv".to_owned()),
            compression: Some("gzip".to_owned()),
            delimiter: Some(b'|'),
            quote: Some(b'\''),
            header: Some(true),
            null: None,
        };
        assert_eq!(written, expect);
    }

    #[test]
    fn what_is_not_known_is_said() {
        for (text, expect) in [
            ("delimiter=ab", "the option 'delimiter' should be one character, not 'ab'"),
            ("header=maybe", "the option 'header' should be true or false, not 'maybe'"),
            ("colour=red", "files have no option 'colour'"),
            ("encoding=latin-1", "files have no option 'encoding'"),
            ("quote=' escape=\\", "'\\' cannot be the escape of a CSV"),
        ] {
            assert_eq!(writing(None, &said(text)).unwrap_err().message(), expect, "{text}");
        }
    }
}
