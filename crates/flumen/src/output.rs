//! How the program prints: data to standard output, everything else to standard error, colours only from here.

use std::error::Error as _;
use std::fmt;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

pub use flumen_core::words::{count, counted};
use flumen_core::{Error, ErrorKind, Result};
use serde::Serialize;
use unicode_width::UnicodeWidthStr as _;

use crate::cli::{GlobalOptions, When};

/// How to print. A plain value: copy it to wherever something is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Output {
    /// Results as JSON.
    pub json: bool,
    /// Tell more.
    pub verbose: bool,
    /// No notes and no progress.
    pub quiet: bool,
    /// Whether standard output takes colours.
    pub stdout_colors: bool,
    /// Whether standard error takes colours.
    pub stderr_colors: bool,
}

impl Output {
    /// What the command line, the environment and the terminal say.
    pub fn new(options: &GlobalOptions) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        let colors = |terminal: bool| match options.color {
            When::Always => true,
            When::Never => false,
            When::Auto => terminal && !plain,
        };
        Self {
            json: options.json,
            verbose: options.verbose,
            quiet: options.quiet,
            stdout_colors: colors(io::stdout().is_terminal()),
            stderr_colors: colors(io::stderr().is_terminal()),
        }
    }

    /// Prints a line of result.
    pub fn line(&self, text: impl fmt::Display) -> Result<()> {
        self.bytes(format!("{text}\n").as_bytes())
    }

    /// Prints bytes of result as they are.
    pub fn bytes(&self, bytes: &[u8]) -> Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(stdout_error)
    }

    /// Prints a result as one line of JSON.
    pub fn json(&self, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string(value)
            .map_err(|error| Error::internal("a result cannot be written as JSON").caused_by(error))?;
        self.line(text)
    }

    /// Tells what was done: a sentence in passing or, where JSON is asked for, `value`.
    pub fn done(&self, value: &serde_json::Value, text: impl fmt::Display) -> Result<()> {
        if self.json {
            return self.json(value);
        }
        self.note(text);
        Ok(())
    }

    /// Prints a table of result.
    pub fn table(&self, table: &Table) -> Result<()> {
        self.bytes(table.render(self.stdout_colors).as_bytes())
    }

    /// Tells something in passing, on standard error. Silent with `--quiet`.
    pub fn note(&self, text: impl fmt::Display) {
        if !self.quiet {
            complain(format_args!("{text}\n"));
        }
    }

    /// Tells something only with `--verbose`, on standard error.
    pub fn detail(&self, text: impl fmt::Display) {
        if self.verbose {
            complain(format_args!("{text}\n"));
        }
    }

    /// Warns, on standard error.
    pub fn warning(&self, text: impl fmt::Display) {
        complain(format_args!("{} {text}\n", paint("warning:", Color::Yellow, self.stderr_colors)));
    }

    /// Prints an error with its remedy, and with `--verbose` its causes.
    pub fn error(&self, error: &Error) {
        if self.json {
            return print_error_json(error);
        }
        complain(format_args!("{} {error}\n", paint("error:", Color::Red, self.stderr_colors)));
        if self.verbose {
            let mut cause = error.source();
            while let Some(inner) = cause {
                complain(format_args!("  caused by: {inner}\n"));
                cause = inner.source();
            }
        }
        if let Some(hint) = error.remedy() {
            let hint = hint.replace('\n', "\n        ");
            complain(format_args!("  {} {hint}\n", paint("hint:", Color::Cyan, self.stderr_colors)));
        }
    }
}

/// Prints an error as one JSON object on standard error.
pub fn print_error_json(error: &Error) {
    let object = serde_json::json!({
        "error": { "kind": error.kind().name(), "message": error.message(), "hint": error.remedy() }
    });
    complain(format_args!("{object}\n"));
}

/// Writes to standard error. When even that cannot be written to, there is nobody left to tell.
fn complain(text: fmt::Arguments<'_>) {
    let _ = io::stderr().lock().write_fmt(text);
}

/// The reader of standard output has gone away, as `head` does.
#[derive(Debug)]
struct ReaderHasGone;

impl fmt::Display for ReaderHasGone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the reader of the output has gone away")
    }
}

impl std::error::Error for ReaderHasGone {}

/// What a failed write to standard output means. A closed pipe ends the program quietly, see [`reader_has_gone`].
pub fn stdout_error(error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::BrokenPipe {
        Error::new(ErrorKind::Cancelled, ReaderHasGone.to_string()).caused_by(ReaderHasGone)
    } else {
        Error::io("standard output", error)
    }
}

/// Whether `error` only says that nobody reads our output any more.
pub fn reader_has_gone(error: &Error) -> bool {
    error.source().is_some_and(|source| source.is::<ReaderHasGone>())
}

/// A colour of the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "colours say what they are")]
pub enum Color {
    Red,
    Green,
    Yellow,
    Cyan,
    Bold,
    Dim,
}

/// `text` in `color`, where colours are `on`. Never the only carrier of a meaning.
pub fn paint(text: &str, color: Color, on: bool) -> String {
    let code = match color {
        Color::Red => "1;31",
        Color::Green => "32",
        Color::Yellow => "1;33",
        Color::Cyan => "36",
        Color::Bold => "1",
        Color::Dim => "2",
    };
    if on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// A line that a program printed, without what would move the cursor or change the terminal: other control characters than tabs
/// and, where colours are `on`, colours (the sequences that ECMA-48 calls SGR).
pub fn printable(line: &str, on: bool) -> String {
    let mut text = String::with_capacity(line.len());
    // A bar that is drawn again and again stays as it was last.
    let line = line.trim_end_matches('\r');
    let mut rest = line.rsplit_once('\r').map_or(line, |(_, last)| last);
    while let Some(at) = rest.find(|c: char| c.is_control() && c != '\t') {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        let sequence = rest.strip_prefix("\x1b[").map(|after| {
            let parameters = after.bytes().take_while(|byte| (0x20..0x40).contains(byte)).count();
            (2 + parameters, after[parameters..].chars().next())
        });
        match sequence {
            Some((length, Some('m'))) => {
                text.push_str(if on { &rest[..=length] } else { "" });
                rest = &rest[length + 1..];
            }
            Some((length, last)) => rest = &rest[length + last.map_or(0, char::len_utf8)..],
            None => rest = &rest[rest.chars().next().map_or(0, char::len_utf8)..],
        }
    }
    text.push_str(rest);
    if on && text.contains('\x1b') {
        text.push_str("\x1b[0m");
    }
    text
}

/// A small table of strings, for lists of things. (Results of queries have their own.)
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these column names.
    pub fn new<const N: usize>(header: [&str; N]) -> Self {
        Self { header: header.iter().map(|&name| name.to_owned()).collect(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    /// The table as text: columns two spaces apart, numbers to the right.
    fn render(&self, colors: bool) -> String {
        let columns = self.header.len();
        let mut widths: Vec<usize> = self.header.iter().map(|name| name.width()).collect();
        let mut numeric = vec![!self.rows.is_empty(); columns];
        for row in &self.rows {
            for (index, cell) in row.iter().enumerate().take(columns) {
                widths[index] = widths[index].max(cell.width());
                numeric[index] &= cell.chars().all(|c| c.is_ascii_digit() || matches!(c, ',' | '.' | '-'));
            }
        }
        let line = |cells: &[String]| {
            let mut line = String::new();
            for (index, cell) in cells.iter().enumerate().take(columns) {
                let padding = " ".repeat(widths[index] - cell.width());
                let cell = if numeric[index] { format!("{padding}{cell}") } else { format!("{cell}{padding}") };
                line.push_str(if index == 0 { "" } else { "  " });
                line.push_str(&cell);
            }
            line.trim_end().to_owned()
        };
        let mut text = paint(&line(&self.header), Color::Bold, colors);
        text.push('\n');
        for row in &self.rows {
            text.push_str(&line(row));
            text.push('\n');
        }
        text
    }
}

/// Bytes in the unit that fits: `812 B`, `1.4 MB`. Units of a thousand, as disks and networks are sold.
pub fn bytes(number: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if number < 1000 {
        return format!("{number} B");
    }
    let mut value = number as f64 / 1000.0;
    let mut unit = 0;
    // 999.95 would be printed as 1000.0.
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if value < 99.95 { format!("{value:.1} {}", UNITS[unit]) } else { format!("{value:.0} {}", UNITS[unit]) }
}

/// A duration as a person says it: `12 ms`, `3.42 s`, `2 min 05 s`, `1 h 02 min`.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 0.9995 {
        format!("{} ms", (seconds * 1000.0).round())
    } else if seconds < 59.995 {
        format!("{seconds:.2} s")
    } else {
        let whole = seconds.round() as u64;
        if whole < 3600 {
            format!("{} min {:02} s", whole / 60, whole % 60)
        } else {
            format!("{} h {:02} min", whole / 3600, whole % 3600 / 60)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_programs_print_leaves_the_terminal_as_it_is() {
        for (line, plain, colored) in [
            ("a\tb ✓", "a\tb ✓", "a\tb ✓"),
            ("\x1b[1;31mred\x1b[0m", "red", "\x1b[1;31mred\x1b[0m\x1b[0m"),
            ("\x1b[32mleft open", "left open", "\x1b[32mleft open\x1b[0m"),
            ("\x1b[2J\x1b[Hgone\x1b[?25l", "gone", "gone"),
            ("\x1b]0;title\x07x", "]0;titlex", "]0;titlex"),
            ("10 %\r20 %\r", "20 %", "20 %"),
            ("bell\x07\x08 \u{9b}31m", "bell 31m", "bell 31m"),
            ("cut \x1b[3", "cut ", "cut "),
            ("cut \x1b", "cut ", "cut "),
            ("\x1b[é", "", ""),
        ] {
            assert_eq!((printable(line, false).as_str(), printable(line, true).as_str()), (plain, colored), "{line:?}");
        }
    }

    #[test]
    fn sizes_have_the_unit_that_fits() {
        let texts: Vec<String> = [0, 999, 1000, 1_449, 999_949, 999_950, 123_456_789].into_iter().map(bytes).collect();
        assert_eq!(texts, ["0 B", "999 B", "1.0 kB", "1.4 kB", "1000 kB", "1.0 MB", "123 MB"]);
        assert_eq!(bytes(u64::MAX), "18.4 EB");
    }

    #[test]
    fn durations_are_said_as_people_do() {
        let said = |ms| duration(Duration::from_millis(ms));
        assert_eq!(said(0), "0 ms");
        assert_eq!(said(999), "999 ms");
        assert_eq!(said(3_420), "3.42 s");
        assert_eq!(said(59_999), "1 min 00 s");
        assert_eq!(said(125_000), "2 min 05 s");
        assert_eq!(said(3_720_000), "1 h 02 min");
    }

    #[test]
    fn tables_align() {
        let mut table = Table::new(["name", "rows", "note"]);
        table.row(["trips".into(), "1,369,765".into(), "new".into()]);
        table.row(["zonen–größe".into(), "265".into(), String::new()]);
        assert_eq!(
            table.render(false),
            "name              rows  note\ntrips        1,369,765  new\nzonen–größe        265\n"
        );
    }

    #[test]
    fn only_a_closed_pipe_ends_quietly() {
        assert!(reader_has_gone(&stdout_error(io::Error::from(io::ErrorKind::BrokenPipe))));
        assert!(!reader_has_gone(&Error::io("server", io::Error::from(io::ErrorKind::BrokenPipe))));
    }
}
