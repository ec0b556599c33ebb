//! Tests of SQL as text: the files of sqllogictest, run through whatever answers SQL.
//!
//! A file is made of records with a blank line between them:
//!
//! ```text
//! # a comment
//! statement ok
//! create table t as select 1 as a
//!
//! statement count 2
//! insert into t values (2), (3)
//!
//! query IT rowsort
//! select a, null from t
//! ----
//! 1 NULL
//! 2 NULL
//! 3 NULL
//!
//! statement error there is no column 'b'
//! select b from t
//! ```
//!
//! The letters behind `query` are one for each column, and otherwise not looked at. Values are as Postgres writes them as
//! text (`t` and `f`, `2026-01-02 03:04:05`), null is `NULL`, an empty text `(empty)`. `connection NAME` before a record sends
//! it over another connection to the same database; `skipif NAME` and `onlyif NAME` leave records to some drivers; `halt` ends
//! a file. `UPDATE_EXPECT=1` writes what is answered into the file; read it before you commit.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::future::Future;
use std::path::Path;

/// Something that answers SQL.
pub trait Database {
    /// Runs one statement over the connection of that name, which is opened if it is not there; `Err` has the error with its
    /// hint, as a user would read them.
    fn run(&mut self, connection: &str, sql: &str) -> impl Future<Output = Result<Reply, String>> + Send;
}

/// What a database answers.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The rows: each value as text, `None` for null.
    pub rows: Vec<Vec<Option<String>>>,
    /// How many rows a statement wrote, where it says so.
    pub count: Option<u64>,
}

/// The connection of records that name none.
const DEFAULT_CONNECTION: &str = "default";

/// What a record is to find.
enum Wanted {
    Ok,
    Count,
    Error(String),
    Rows { columns: usize, sorted: bool },
}

/// Runs the file at `path` over `database`, which is called `name` by `skipif` and `onlyif`.
///
/// Panics with all records that found something else, unless the file is written anew.
pub async fn run_file(path: &Path, name: &str, database: &mut impl Database) {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (got, wrong) = run_text(&text, name, database).await;
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(path, got).unwrap();
        return;
    }
    assert!(wrong.is_empty(), "{}:\n\n{}", path.display(), wrong.join("\n\n"));
}

/// Runs each file of `folder` over a database of its own, which `open` makes. All files are told about, not only the first that
/// is wrong.
pub async fn run_folder<D: Database + Send + 'static>(
    folder: &Path,
    name: &'static str,
    open: impl Fn() -> D + Send + Sync + Clone + 'static,
) {
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "slt"));
    files.sort();
    assert!(!files.is_empty());
    let mut failed = 0;
    for file in files {
        let open = open.clone();
        let ran = tokio::spawn(async move { run_file(&file, name, &mut open()).await });
        failed += usize::from(ran.await.is_err());
    }
    assert_eq!(failed, 0, "so many files say something else");
}

/// Runs the records of `text`; gives the text with what was found, and what was wrong.
pub async fn run_text(text: &str, name: &str, database: &mut impl Database) -> (String, Vec<String>) {
    let (mut got, mut wrong) = (String::new(), Vec::new());
    let mut lines = text.lines().enumerate().peekable();
    let (mut connection, mut skipped) = (DEFAULT_CONNECTION.to_owned(), false);
    while let Some((number, line)) = lines.next() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["connection", of] => (*of).clone_into(&mut connection),
            ["skipif", of] => skipped |= *of == name,
            ["onlyif", of] => skipped |= *of != name,
            ["halt"] => {
                let _ = writeln!(got, "{line}");
                for (_, line) in lines {
                    let _ = writeln!(got, "{line}");
                }
                break;
            }
            ["statement" | "query", ..] => {
                let wanted = wanted(line).unwrap_or_else(|| panic!("line {}: '{line}' is not understood", number + 1));
                let mut record = Vec::new();
                while let Some((_, line)) = lines.next_if(|(_, line)| !line.trim().is_empty()) {
                    record.push(line);
                }
                if skipped {
                    let _ = writeln!(got, "{line}\n{}", record.join("\n"));
                } else {
                    let ruler = record.iter().position(|line| *line == "----").unwrap_or(record.len());
                    let sql = record[..ruler].join("\n");
                    let expected = record.get(ruler + 1..).unwrap_or_default();
                    let reply = database.run(&connection, &sql).await;
                    let (head, rows) = found(line, &wanted, &reply);
                    let same = head == line && spaced(&rows) == spaced(expected);
                    if !same {
                        let hint = reply.as_ref().err().map(|error| format!("\n{error}")).unwrap_or_default();
                        let of = shown(line, &sql, &expected.join("\n"));
                        wrong.push(format!(
                            "line {}: expected\n{of}got\n{}{hint}",
                            number + 1,
                            shown(&head, &sql, &rows.join("\n"))
                        ));
                    }
                    let rows = if same { expected.join("\n") } else { rows.join("\n") };
                    got.push_str(&shown(&head, &sql, &rows));
                }
                DEFAULT_CONNECTION.clone_into(&mut connection);
                skipped = false;
                continue;
            }
            [] => {}
            [comment, ..] if comment.starts_with('#') => {}
            _ => panic!("line {}: '{line}' is not understood", number + 1),
        }
        let _ = writeln!(got, "{line}");
    }
    (got, wrong)
}

fn wanted(line: &str) -> Option<Wanted> {
    let words: Vec<&str> = line.split_whitespace().collect();
    Some(match words.as_slice() {
        ["statement", "ok"] => Wanted::Ok,
        ["statement", "count", count] if count.parse::<u64>().is_ok() => Wanted::Count,
        ["statement", "error", ..] => Wanted::Error(line.split_once("error")?.1.trim().to_owned()),
        ["query", types] | ["query", types, "nosort"] => Wanted::Rows { columns: types.len(), sorted: false },
        ["query", types, "rowsort"] => Wanted::Rows { columns: types.len(), sorted: true },
        _ => return None,
    })
}

/// The first line of the record that would have found `reply`, and the rows below it.
fn found(line: &str, wanted: &Wanted, reply: &Result<Reply, String>) -> (String, Vec<String>) {
    let error = |text: &str| (format!("statement error {}", text.lines().next().unwrap_or_default()), Vec::new());
    match (wanted, reply) {
        (Wanted::Error(part), Err(text)) if text.contains(part.as_str()) && !part.is_empty() => {
            (line.to_owned(), Vec::new())
        }
        (_, Err(text)) => error(text),
        (Wanted::Error(_) | Wanted::Ok, Ok(_)) => ("statement ok".to_owned(), Vec::new()),
        (Wanted::Count, Ok(reply)) => match reply.count {
            Some(count) => (format!("statement count {count}"), Vec::new()),
            None => ("statement ok".to_owned(), Vec::new()),
        },
        (Wanted::Rows { columns, sorted }, Ok(reply)) => {
            let mut rows: Vec<String> = reply.rows.iter().map(|row| row_text(row)).collect();
            if *sorted {
                rows.sort();
            }
            let given = reply.rows.first().map_or(*columns, Vec::len);
            let head = if given == *columns {
                line.to_owned()
            } else {
                format!("query {}{}", "T".repeat(given), if *sorted { " rowsort" } else { "" })
            };
            (head, rows)
        }
    }
}

fn row_text(row: &[Option<String>]) -> String {
    let text = |value: &Option<String>| match value.as_deref() {
        None => "NULL".to_owned(),
        Some("") => "(empty)".to_owned(),
        Some(text) => text.replace('\n', "\\n"),
    };
    row.iter().map(text).collect::<Vec<_>>().join(" ")
}

/// Lines, with one space where there are several.
fn spaced<T: AsRef<str>>(lines: &[T]) -> Vec<String> {
    lines.iter().map(|line| line.as_ref().split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

fn shown(head: &str, sql: &str, rows: &str) -> String {
    match (head.starts_with("query"), rows) {
        (false, _) => format!("{head}\n{sql}\n"),
        (true, "") => format!("{head}\n{sql}\n----\n"),
        (true, rows) => format!("{head}\n{sql}\n----\n{rows}\n"),
    }
}

/// The connections of one database, by name.
#[derive(Debug)]
pub struct Connections<T>(HashMap<String, T>);

impl<T> Default for Connections<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T> Connections<T> {
    /// The connection of this name, made by `open` if it is not there.
    pub async fn get<F: Future<Output = T>>(&mut self, name: &str, open: impl FnOnce() -> F) -> &mut T {
        if !self.0.contains_key(name) {
            let made = open().await;
            self.0.insert(name.to_owned(), made);
        }
        self.0.get_mut(name).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Knows three statements.
    struct Parrot;

    impl Database for Parrot {
        async fn run(&mut self, connection: &str, sql: &str) -> Result<Reply, String> {
            match sql {
                "rows" => Ok(Reply {
                    rows: vec![
                        vec![Some("2".into()), None],
                        vec![Some("1".into()), Some(String::new())],
                        vec![Some(connection.into()), Some("a b".into())],
                    ],
                    count: None,
                }),
                "write" => Ok(Reply { count: Some(2), ..Reply::default() }),
                _ => Err("there is no such thing\nhint: look elsewhere".to_owned()),
            }
        }
    }

    const RIGHT: &str = "# all that is known\nconnection other\nquery TT rowsort\nrows\n----\n1 (empty)\n2 NULL\nother a b\n\n\
        statement count 2\nwrite\n\nstatement error no such\nelse\n\nskipif parrot\nstatement ok\nelse\n\nstatement ok\nwrite\n\n\
        halt\n\nwhatever\n";

    #[tokio::test]
    async fn what_is_right_is_left_alone() {
        let (got, wrong) = run_text(RIGHT, "parrot", &mut Parrot).await;
        assert_eq!((got.as_str(), wrong), (RIGHT, Vec::new()));
    }

    #[tokio::test]
    async fn what_is_wrong_is_told_and_mended() {
        for (right, wrong) in [
            ("1 (empty)", "1 NULL"),
            ("query TT rowsort", "query T rowsort"),
            ("count 2", "count 3"),
            ("error no such", "error nothing"),
            ("statement error no such\nelse", "statement ok\nelse"),
            ("statement ok\nwrite", "statement error no such\nwrite"),
        ] {
            let text = RIGHT.replace(right, wrong);
            let (got, told) = run_text(&text, "parrot", &mut Parrot).await;
            assert_eq!(told.len(), 1, "{wrong}: {told:?}");
            let (_, told) = run_text(&got, "parrot", &mut Parrot).await;
            assert_eq!(told, Vec::<String>::new(), "{got}");
        }
    }
}
