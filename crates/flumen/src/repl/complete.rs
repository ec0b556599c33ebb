//! What Tab offers at the prompt: keywords, tables, the columns of the tables that the statement names, and files within
//! quotes.

use std::collections::HashMap;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flumen_lake::engine::Engine;
use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Helper};

/// How long Tab waits for the lake.
const PATIENCE: Duration = Duration::from_millis(1500);

const KEYWORDS: &[&str] = &[
    "all",
    "and",
    "as",
    "asc",
    "between",
    "by",
    "case",
    "cast",
    "count",
    "create",
    "cross",
    "date_trunc",
    "desc",
    "describe",
    "distinct",
    "else",
    "end",
    "except",
    "exists",
    "explain",
    "extract",
    "false",
    "from",
    "full",
    "group",
    "having",
    "ilike",
    "in",
    "inner",
    "intersect",
    "interval",
    "is",
    "join",
    "left",
    "like",
    "limit",
    "not",
    "null",
    "offset",
    "on",
    "or",
    "order",
    "outer",
    "over",
    "partition",
    "right",
    "round",
    "select",
    "show",
    "sum",
    "table",
    "tables",
    "then",
    "true",
    "try_cast",
    "union",
    "using",
    "values",
    "view",
    "when",
    "where",
    "with",
];

/// Completes, and knows when a statement is whole.
pub struct PromptHelper {
    engine: Arc<Engine>,
    runtime: tokio::runtime::Handle,
    files: FilenameCompleter,
    columns: Mutex<HashMap<String, Vec<String>>>,
}

impl PromptHelper {
    /// Asks `engine` for names, on `runtime`.
    pub fn new(engine: Arc<Engine>, runtime: tokio::runtime::Handle) -> Self {
        Self { engine, runtime, files: FilenameCompleter::new(), columns: Mutex::default() }
    }

    /// What `work` gives, or nothing where it fails or takes too long: Tab never complains.
    fn ask<T: Send + Default + 'static>(&self, work: impl Future<Output = Option<T>> + Send + 'static) -> T {
        let (sender, receiver) = mpsc::channel();
        self.runtime.spawn(async move {
            let answer = work.await;
            // Nobody waits any more when it took too long.
            let _ = sender.send(answer);
        });
        receiver.recv_timeout(PATIENCE).ok().flatten().unwrap_or_default()
    }

    fn tables(&self) -> Vec<String> {
        let engine = Arc::clone(&self.engine);
        let mut names: Vec<String> = self
            .ask(async move { Some(engine.lake_tables().await.ok()?.iter().map(|name| name.to_string()).collect()) });
        names.extend(self.engine.system_tables().iter().map(ToString::to_string));
        names.extend(self.engine.session_tables());
        names
    }

    fn columns_of(&self, table: &str) -> Vec<String> {
        if let Some(known) = self.columns.lock().unwrap_or_else(PoisonError::into_inner).get(table) {
            return known.clone();
        }
        let (engine, name) = (Arc::clone(&self.engine), table.to_owned());
        let columns: Vec<String> = self.ask(async move {
            Some(engine.columns(&name).await.ok()?.fields().iter().map(|field| field.name().clone()).collect())
        });
        if !columns.is_empty() {
            let mut known = self.columns.lock().unwrap_or_else(PoisonError::into_inner);
            known.insert(table.to_owned(), columns.clone());
        }
        columns
    }
}

/// The names that stand where tables stand: after `from` and `join`.
fn named_tables(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut expected = false;
    for word in text.split(|c: char| c.is_whitespace() || matches!(c, '(' | ')' | ';')) {
        match word.to_ascii_lowercase().as_str() {
            "" => {}
            "from" | "join" => expected = true,
            _ if expected => {
                expected = word.ends_with(',');
                names.push(word.trim_end_matches(',').to_owned());
            }
            _ => {}
        }
    }
    names
}

/// Where the word at the cursor begins, and the word before it in lower case.
fn word_at(line: &str, position: usize) -> (usize, String) {
    let before = &line[..position];
    let start = before
        .char_indices()
        .rev()
        .find(|(_, c)| !(c.is_alphanumeric() || matches!(c, '_' | '.' | '\\')))
        .map_or(0, |(index, c)| index + c.len_utf8());
    let previous = before[..start].split_whitespace().next_back().unwrap_or_default().to_ascii_lowercase();
    (start, previous)
}

impl Completer for PromptHelper {
    type Candidate = Pair;

    fn complete(&self, line: &str, position: usize, context: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        if line[..position].matches('\'').count() % 2 == 1 {
            return self.files.complete(line, position, context);
        }
        let (start, previous) = word_at(line, position);
        let word = line[start..position].to_lowercase();
        let mut candidates = if matches!(previous.as_str(), "from" | "join" | "\\d" | "describe") {
            self.tables()
        } else {
            let columns = named_tables(line).iter().flat_map(|table| self.columns_of(table)).collect::<Vec<_>>();
            columns.into_iter().chain(KEYWORDS.iter().map(|&keyword| keyword.to_owned())).collect()
        };
        candidates.retain(|name| name.to_lowercase().starts_with(&word));
        candidates.dedup();
        let pair = |name: String| Pair { display: name.clone(), replacement: name };
        Ok((start, candidates.into_iter().map(pair).collect()))
    }
}

impl Validator for PromptHelper {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let text = context.input();
        let leaves = matches!(text.trim().to_ascii_lowercase().as_str(), "quit" | "exit");
        let whole = leaves || text.trim_start().starts_with('\\') || Engine::is_complete(text);
        Ok(if whole { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

impl Hinter for PromptHelper {
    type Hint = String;
}

impl Highlighter for PromptHelper {}

impl Helper for PromptHelper {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_found_after_from_and_join() {
        assert_eq!(
            named_tables("select a from raw.trips t join 'x y.csv' on (a) where b in (select c from z)"),
            ["raw.trips", "'x", "z"]
        );
        assert_eq!(named_tables("select a from x, y"), ["x", "y"]);
    }

    #[test]
    fn the_word_at_the_cursor() {
        assert_eq!(word_at("select a from raw.tr", 20), (14, "from".to_owned()));
        assert_eq!(word_at("\\d ra", 5), (3, "\\d".to_owned()));
        assert_eq!(word_at("", 0), (0, String::new()));
    }
}
