//! Addresses of several files at once: ranges and alternatives in braces, and wildcards.
//!
//! `{2019-01..2019-06}` counts months, `{2019-01-01..2019-01-31}` days, `{1..12}` and `{01..12}` numbers, `{a,b}` names
//! alternatives; `*`, `?` and `[a-z]` match within one part of a path, `**` matches any folders. What comes out is always in
//! the same order: that of the braces, and within a wildcard that of the names.

use std::path::{Path, PathBuf};

use chrono::{Datelike, Days, Months, NaiveDate};
use flumen_core::error::nearest;
use flumen_core::{Error, Result};

/// The most addresses that one pattern may stand for.
const ADDRESSES: usize = 100_000;
/// File names that a message shows.
const NAMES_SHOWN: usize = 5;

/// The addresses that `address` stands for, once its braces are written out. Braces that hold neither `..` nor a comma
/// stay as they are.
///
/// Errors: `Invalid` for a range whose ends do not fit each other.
pub fn expand(address: &str) -> Result<Vec<String>> {
    let mut done = vec![String::new()];
    let mut rest = address;
    while let Some((before, choices, after)) = next_braces(rest)? {
        if done.len().saturating_mul(choices.len()) > ADDRESSES {
            return Err(Error::invalid(format!("'{address}' stands for more than {ADDRESSES} files"))
                .hint("split it into several loads"));
        }
        let longer =
            |start: &String| choices.iter().map(|choice| format!("{start}{before}{choice}")).collect::<Vec<_>>();
        done = done.iter().flat_map(longer).collect();
        rest = after;
    }
    for start in &mut done {
        start.push_str(rest);
    }
    Ok(done)
}

/// The text before the first braces that mean something, their choices, and the text after them.
fn next_braces(text: &str) -> Result<Option<(&str, Vec<String>, &str)>> {
    let mut from = 0;
    while let Some(open) = text[from..].find('{').map(|at| at + from) {
        let Some(close) = text[open..].find('}').map(|at| at + open) else { return Ok(None) };
        let inner = &text[open + 1..close];
        let choices = match inner.split_once("..") {
            Some((first, last)) => range(first.trim(), last.trim())?,
            None if inner.contains(',') => inner.split(',').map(str::to_owned).collect(),
            None => {
                from = close;
                continue;
            }
        };
        return Ok(Some((&text[..open], choices, &text[close + 1..])));
    }
    Ok(None)
}

/// Everything from `first` to `last`, both included.
fn range(first: &str, last: &str) -> Result<Vec<String>> {
    let counted = match (days(first), days(last), months(first), months(last)) {
        (Some(from), Some(to), ..) => steps(from, to, |day| day.checked_add_days(Days::new(1)), "%Y-%m-%d"),
        (_, _, Some(from), Some(to)) => steps(from, to, |month| month.checked_add_months(Months::new(1)), "%Y-%m"),
        _ => numbers(first, last),
    };
    match counted {
        Some(found) if found.is_empty() => Err(Error::invalid(format!("the range {{{first}..{last}}} runs backwards"))
            .hint(format!("write {{{last}..{first}}}"))),
        Some(found) => Ok(found),
        None => Err(Error::invalid(format!("{{{first}..{last}}} is not a range")).hint(
            "write months as {2019-01..2019-06}, days as {2019-01-01..2019-01-31}, numbers as {1..12} or {01..12}",
        )),
    }
}

fn days(text: &str) -> Option<NaiveDate> {
    if text.len() == 10 { NaiveDate::parse_from_str(text, "%Y-%m-%d").ok() } else { None }
}

fn months(text: &str) -> Option<NaiveDate> {
    if text.len() == 7 { NaiveDate::parse_from_str(&format!("{text}-01"), "%Y-%m-%d").ok() } else { None }
}

fn steps(
    from: NaiveDate,
    to: NaiveDate,
    next: impl Fn(NaiveDate) -> Option<NaiveDate>,
    format: &str,
) -> Option<Vec<String>> {
    if from.year() < 0 || to.signed_duration_since(from).num_days() > 400 * ADDRESSES as i64 {
        return None;
    }
    let all = std::iter::successors(Some(from), |day| next(*day)).take_while(|day| *day <= to);
    Some(all.take(ADDRESSES + 1).map(|day| day.format(format).to_string()).collect())
}

fn numbers(first: &str, last: &str) -> Option<Vec<String>> {
    let number =
        |text: &str| if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse::<u64>().ok() } else { None };
    let (from, to) = (number(first)?, number(last)?);
    let padded = |text: &str| text.len() > 1 && text.starts_with('0');
    let width = if padded(first) || padded(last) { first.len().max(last.len()) } else { 0 };
    Some((from..=to).take(ADDRESSES + 1).map(|n| format!("{n:0width$}")).collect())
}

/// Whether `text` has wildcards.
pub fn has_wildcards(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// Whether `path` (with `/` between its parts) matches `pattern`.
pub fn matches(pattern: &str, path: &str) -> bool {
    fn parts(pattern: &[&str], path: &[&str]) -> bool {
        match (pattern, path) {
            ([], []) => true,
            (["**", rest @ ..], _) => {
                parts(rest, path)
                    || matches!(path, [first, more @ ..] if !first.starts_with('.') && parts(pattern, more))
            }
            ([first, rest @ ..], [name, more @ ..]) => part_matches(first, name) && parts(rest, more),
            _ => false,
        }
    }
    parts(&pattern.split('/').collect::<Vec<_>>(), &path.split('/').collect::<Vec<_>>())
}

/// Whether one part of a path matches one part of a pattern. A hidden file is only matched by a pattern that says so.
fn part_matches(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    wildcard(&pattern.chars().collect::<Vec<_>>(), &name.chars().collect::<Vec<_>>())
}

fn wildcard(pattern: &[char], name: &[char]) -> bool {
    // The last star, and where it was tried: on a mismatch it takes one character more. Linear but for the stars.
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        let step = match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
                continue;
            }
            Some('?') => Some(p + 1),
            Some('[') => class(&pattern[p..], name[n]).and_then(|(fits, length)| fits.then_some(p + length)),
            Some(other) if *other == name[n] => Some(p + 1),
            _ => None,
        };
        match (step, star) {
            (Some(next), _) => (p, n) = (next, n + 1),
            (None, Some((at, tried))) => {
                star = Some((at, tried + 1));
                (p, n) = (at + 1, tried + 1);
            }
            (None, None) => return false,
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// For a pattern that begins with `[`: whether `c` is in the class, and how long the class is. Without an end, `[` is a
/// plain character.
fn class(pattern: &[char], c: char) -> Option<(bool, usize)> {
    let negated = matches!(pattern.get(1), Some('!' | '^'));
    let first = if negated { 2 } else { 1 };
    let Some(end) = pattern.iter().skip(first + 1).position(|c| *c == ']').map(|at| at + first + 1) else {
        return Some((c == '[', 1));
    };
    let (mut fits, mut at) = (false, first);
    while at < end {
        if at + 2 < end && pattern[at + 1] == '-' {
            fits |= (pattern[at]..=pattern[at + 2]).contains(&c);
            at += 3;
        } else {
            fits |= pattern[at] == c;
            at += 1;
        }
    }
    Some((fits != negated, end + 1))
}

/// The files on the local disk that `pattern` (a path, perhaps with wildcards) stands for, in the order of their names.
///
/// Errors: `NotFound` if there is none, with the folder that was looked at; `Invalid` for a folder.
pub fn local_files(pattern: &str) -> Result<Vec<PathBuf>> {
    let path = Path::new(pattern);
    match path.metadata() {
        Ok(found) if found.is_dir() => return Err(is_a_folder(path)),
        Ok(_) => return Ok(vec![path.to_owned()]),
        Err(_) if has_wildcards(pattern) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(not_there(path)),
        Err(error) => return Err(Error::io(pattern, error)),
    }
    let root = if pattern.starts_with('/') { "/" } else { "" };
    let parts: Vec<&str> = pattern.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    let mut found = Vec::new();
    walk(Path::new(root), &parts, &mut found)?;
    found.sort();
    found.dedup();
    if found.is_empty() {
        return Err(nothing_matches(pattern, root, &parts));
    }
    Ok(found)
}

fn walk(folder: &Path, parts: &[&str], found: &mut Vec<PathBuf>) -> Result<()> {
    let Some((part, rest)) = parts.split_first() else { return Ok(()) };
    if !has_wildcards(part) {
        let next = folder.join(part);
        return if !rest.is_empty() {
            walk(&next, rest, found)
        } else {
            found.extend(next.is_file().then_some(next));
            Ok(())
        };
    }
    if *part == "**" {
        walk(folder, if rest.is_empty() { &["*"] } else { rest }, found)?;
    }
    for (name, path) in entries(folder)? {
        // A link to a folder is followed where it is named, but not by `**`, which might go round in circles.
        let fits = if *part == "**" { !name.starts_with('.') && !path.is_symlink() } else { part_matches(part, &name) };
        if !fits {
        } else if *part == "**" {
            if path.is_dir() {
                walk(&path, parts, found)?;
            }
        } else if !rest.is_empty() {
            if path.is_dir() {
                walk(&path, rest, found)?;
            }
        } else if !path.is_dir() {
            found.push(path);
        }
    }
    Ok(())
}

/// The names and paths in a folder; nothing for one that is not there.
fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let shown = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let listing = match std::fs::read_dir(shown) {
        Ok(listing) => listing,
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(Error::io(shown.display(), error)),
    };
    let mut all = Vec::new();
    for entry in listing {
        let entry = entry.map_err(|error| Error::io(shown.display(), error))?;
        // A name that is no UTF-8 cannot be matched by a pattern that is.
        if let Ok(name) = entry.file_name().into_string() {
            let path = folder.join(&name);
            all.push((name, path));
        }
    }
    all.sort();
    Ok(all)
}

fn is_a_folder(path: &Path) -> Error {
    let error = Error::invalid(format!("{} is a folder, not a file", path.display()));
    let names: Vec<String> = entries(path).unwrap_or_default().into_iter().map(|(name, _)| name).collect();
    if names.iter().any(|name| name == "_delta_log") {
        return error.hint("it holds a Delta table: read it with `flumen sql`");
    }
    // Where there is nothing but folders, what is in the first of them.
    let (mut names, mut at, mut deep) = (names, path.to_owned(), false);
    let plain = |name: &&String| !name.starts_with(['.', '_']);
    while let Some(first) = names.iter().find(plain).filter(|_| names.iter().all(|name| at.join(name).is_dir())) {
        at = at.join(first);
        deep = true;
        names = entries(&at).unwrap_or_default().into_iter().map(|(name, _)| name).collect();
    }
    let names = names.iter().filter(plain);
    let endings: Vec<&str> = names.filter_map(|name| name.split_once('.').map(|(_, ending)| ending)).collect();
    let common = endings.iter().max_by_key(|ending| endings.iter().filter(|other| other == ending).count());
    let pattern = common.map_or("*".to_owned(), |ending| format!("*.{ending}"));
    let below = if deep { path.join("**") } else { path.to_owned() };
    error.hint(format!("name the files in it: '{}'", below.join(pattern).display()))
}

fn not_there(path: &Path) -> Error {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if !parent.is_dir() {
        return Error::not_found(format!("{}: there is no folder {}", path.display(), parent.display()))
            .hint("check the path");
    }
    let error = Error::not_found(format!("there is no file {}", path.display()));
    let names: Vec<String> = entries(parent).unwrap_or_default().into_iter().map(|(name, _)| name).collect();
    let wanted = path.file_name().unwrap_or_default().to_string_lossy();
    match nearest(&wanted, names.iter().map(String::as_str)) {
        Some(near) => error.hint(format!("did you mean '{}'?", path.with_file_name(near).display())),
        None => error.hint(holds(parent, &names)),
    }
}

fn nothing_matches(pattern: &str, root: &str, parts: &[&str]) -> Error {
    let fixed: PathBuf = parts.iter().take(parts.len() - 1).take_while(|part| !has_wildcards(part)).collect();
    let folder = Path::new(root).join(fixed);
    let folder = if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder };
    let error = Error::not_found(format!("no file matches '{pattern}'"));
    if !folder.is_dir() {
        return error.hint(format!("there is no folder {}", folder.display()));
    }
    let names: Vec<String> = entries(&folder).unwrap_or_default().into_iter().map(|(name, _)| name).collect();
    error.hint(holds(&folder, &names))
}

/// `data holds a.csv, b.csv and 3 more`
pub(crate) fn holds(folder: &Path, names: &[String]) -> String {
    let folder = if folder == Path::new(".") { "this folder".to_owned() } else { folder.display().to_string() };
    let shown: Vec<&str> = names.iter().map(String::as_str).filter(|name| !name.starts_with('.')).collect();
    match shown.len() {
        0 => format!("{folder} holds no files"),
        count if count > NAMES_SHOWN => {
            format!("{folder} holds {} and {} more", shown[..NAMES_SHOWN].join(", "), count - NAMES_SHOWN)
        }
        _ => format!("{folder} holds {}", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(address: &str) -> String {
        match expand(address) {
            Ok(all) => all.join(" "),
            Err(error) => format!("{error}; {}", error.remedy().unwrap_or_default()),
        }
    }

    #[test]
    fn braces_are_written_out() {
        assert_eq!(check("t_{2018-11..2019-02}.csv"), "t_2018-11.csv t_2018-12.csv t_2019-01.csv t_2019-02.csv");
        assert_eq!(check("{2020-02-28..2020-03-01}"), "2020-02-28 2020-02-29 2020-03-01");
        assert_eq!(check("{8..11}"), "8 9 10 11");
        assert_eq!(check("{08..11}"), "08 09 10 11");
        assert_eq!(check("{yellow,green}_{1..2}"), "yellow_1 yellow_2 green_1 green_2");
        assert_eq!(check("a{b}c"), "a{b}c");
        assert_eq!(check("a{b}{1..2}"), "a{b}1 a{b}2");
        assert_eq!(check("plain"), "plain");
        assert_eq!(
            check("{2019-06..2019-01}"),
            "the range {2019-06..2019-01} runs backwards; write {2019-01..2019-06}"
        );
        assert!(check("{a..2}").starts_with("{a..2} is not a range; write months as"));
        assert!(check("{1..9999999}").contains("more than 100000"));
    }

    #[test]
    fn wildcards_match_within_a_part() {
        for (pattern, path, fits) in [
            ("*.csv", "a.csv", true),
            ("*.csv", "d/a.csv", false),
            ("**/*.csv", "a.csv", true),
            ("**/*.csv", "d/e/a.csv", true),
            ("d/**/a.csv", "d/a.csv", true),
            ("d/**", "d/e/a.csv", true),
            ("a?[0-9].csv", "ab7.csv", true),
            ("a[!0-9].csv", "a7.csv", false),
            ("a[b.csv", "a[b.csv", true),
            ("*a*b*c", "xxaxxbxxbxxc", true),
            ("*", ".hidden", false),
            (".*", ".hidden", true),
            ("**/x", ".git/x", false),
        ] {
            assert_eq!(matches(pattern, path), fits, "{pattern} {path}");
        }
    }

    #[test]
    fn files_are_found_in_order_or_the_folder_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| format!("{}/{path}", dir.path().display());
        for name in ["b.csv", "a.csv", "d/c.csv", "d/e/f.csv", ".h.csv", "z.txt"] {
            std::fs::create_dir_all(Path::new(&at(name)).parent().unwrap()).unwrap();
            std::fs::write(at(name), "x").unwrap();
        }
        let found = |pattern: &str| match local_files(&at(pattern)) {
            Ok(files) => files
                .iter()
                .map(|f| f.strip_prefix(dir.path()).unwrap().display().to_string())
                .collect::<Vec<_>>()
                .join(" "),
            Err(error) => format!("{error} [{}]", error.remedy().unwrap_or_default())
                .replace(&dir.path().display().to_string(), "T"),
        };
        assert_eq!(found("*.csv"), "a.csv b.csv");
        assert_eq!(found("**/*.csv"), "a.csv b.csv d/c.csv d/e/f.csv");
        assert_eq!(found("d/**"), "d/c.csv d/e/f.csv");
        assert_eq!(found("*/c.csv"), "d/c.csv");
        assert_eq!(found("[ab].csv"), "a.csv b.csv");
        assert_eq!(found("a.cvs"), "there is no file T/a.cvs [did you mean 'T/a.csv'?]");
        assert_eq!(found("x/a.csv"), "T/x/a.csv: there is no folder T/x [check the path]");
        assert_eq!(found("*.parquet"), "no file matches 'T/*.parquet' [T holds a.csv, b.csv, d, z.txt]");
        assert_eq!(found("x/*.csv"), "no file matches 'T/x/*.csv' [there is no folder T/x]");
        assert_eq!(found("d"), "T/d is a folder, not a file [name the files in it: 'T/d/*.csv']");
        std::fs::create_dir_all(at("y/year=2024/month=1")).unwrap();
        std::fs::write(at("y/year=2024/month=1/x.parquet"), "x").unwrap();
        assert_eq!(found("y"), "T/y is a folder, not a file [name the files in it: 'T/y/**/*.parquet']");
    }
}
