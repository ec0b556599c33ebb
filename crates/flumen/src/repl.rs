//! The prompt of `flumen sql`, and scripts in its language: SQL up to a semicolon, and commands that begin with `\`.

mod complete;

use std::path::PathBuf;

use flumen_core::contract::type_name;
use flumen_core::sql::SqlEngine as _;
use flumen_core::{Error, ErrorKind, Result};
use flumen_lake::engine::{BlockState, Engine};
use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;
use rustyline::{CompletionType, Config, Editor};

use crate::commands::sql::Session;
use crate::output::Table;
use complete::PromptHelper;

const HELP: &str = "\
Statements end with a semicolon.
  \\d           tables and views        \\d TABLE     the columns of a table or a file
  \\dt+         quarantine tables too   \\dt NAME     the tables of a Postgres connection
  \\x           a line a value, or not  \\timing      tell rows and time, or not
  \\i FILE      run the statements in a file
  \\?           this help               \\q           leave (also Ctrl-D)
Ctrl-C stops the query that runs. Tab completes keywords, tables, columns and files.";

/// Runs the statements in `text`, and its commands (on lines of their own), until one fails.
pub async fn script(mut session: Session<'_>, text: &str) -> Result<()> {
    for item in items(text) {
        match item {
            Item::Statement(sql) => {
                let stop = stop(&session);
                session.run(&sql, stop).await?;
            }
            Item::Command(line) => {
                if command(&mut session, &line).await? {
                    break;
                }
            }
        }
    }
    leave(&session).await
}

/// Says so if a block is left that was not committed.
async fn leave(session: &Session<'_>) -> Result<()> {
    if session.engine.block_state().await != BlockState::None {
        session.engine.query("rollback").await?;
        session.context.output.warning("the block that was begun was not committed: nothing of it is kept");
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
enum Item {
    Statement(String),
    Command(String),
}

/// The statements and commands of a script. Statements keep their lines and columns.
fn items(text: &str) -> Vec<Item> {
    let mut items = Vec::new();
    let mut pending = String::new();
    let flush = |pending: &mut String, line: usize, items: &mut Vec<Item>| {
        items.extend(Engine::statements(pending).into_iter().map(Item::Statement));
        *pending = "\n".repeat(line);
    };
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with('\\') && (pending.trim().is_empty() || Engine::is_complete(&pending)) {
            flush(&mut pending, number + 1, &mut items);
            items.push(Item::Command(line.trim().to_owned()));
        } else {
            pending.push_str(line);
            pending.push('\n');
        }
    }
    flush(&mut pending, 0, &mut items);
    items
}

/// Runs a command. True: leave.
async fn command(session: &mut Session<'_>, line: &str) -> Result<bool> {
    let line = line.trim().trim_end_matches(';').trim();
    let (name, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let argument = argument.trim();
    let output = session.context.output;
    let switch = |now: bool| match argument {
        "on" => true,
        "off" => false,
        _ => !now,
    };
    match name {
        "\\q" | "\\quit" => return Ok(true),
        "\\?" | "\\h" | "\\help" => output.note(HELP),
        "\\timing" => {
            session.timing = switch(session.timing);
            output.note(if session.timing { "Rows and time are told." } else { "Rows and time are not told." });
        }
        "\\x" => {
            session.style.expanded = switch(session.style.expanded);
            output.note(if session.style.expanded { "A line a value." } else { "A line a row." });
        }
        "\\d" if !argument.is_empty() => describe(session, argument).await?,
        "\\dt" if !argument.is_empty() => list_database(session, argument).await?,
        "\\d" | "\\dt" => list(session, false).await?,
        "\\d+" | "\\dt+" => list(session, true).await?,
        "\\i" if !argument.is_empty() => {
            let path = argument.trim_matches('\'');
            let text = std::fs::read_to_string(path).map_err(|error| Error::io(path, error))?;
            for sql in Engine::statements(&text) {
                let stop = stop(session);
                session.run(&sql, stop).await.map_err(|error| error.within(path))?;
            }
        }
        _ => return Err(Error::invalid(format!("there is no command '{name}'")).hint("\\? shows the commands")),
    }
    Ok(false)
}

/// Lists the tables of a database.
async fn list_database(session: &Session<'_>, connection: &str) -> Result<()> {
    let mut table = Table::new(["schema", "table"]);
    for name in session.engine.database_tables(connection).await? {
        table.row([name.namespace, name.table]);
    }
    session.context.output.table(&table)
}

/// Lists the tables. `all`: those too in which loads keep what they refused, and those about the lake itself.
async fn list(session: &Session<'_>, all: bool) -> Result<()> {
    let (lake, own) = (session.engine.lake_tables().await?, session.engine.session_tables());
    let mut table = Table::new(["namespace", "table"]);
    let none = lake.is_empty() && own.is_empty();
    let refused: Vec<_> = if all { Vec::new() } else { lake.iter().map(|name| name.quarantine()).collect() };
    for name in lake.into_iter().filter(|name| !refused.contains(name)) {
        table.row([name.namespace, name.table]);
    }
    for name in own {
        table.row(["(this session)".to_owned(), name]);
    }
    if all {
        for name in session.engine.system_tables() {
            table.row([name.namespace, name.table]);
        }
    }
    if none && !all {
        session.context.output.note("There are no tables. Files are read in place: select * from 'trips.csv';");
        return Ok(());
    }
    session.context.output.table(&table)
}

async fn describe(session: &Session<'_>, name: &str) -> Result<()> {
    let mut table = Table::new(["column", "type"]);
    for field in session.engine.columns(name).await?.fields() {
        table.row([field.name().clone(), type_name(field.data_type())]);
    }
    session.context.output.table(&table)
}

/// Asks for statements on the terminal until the person leaves.
pub async fn prompt(mut session: Session<'_>) -> Result<()> {
    let config = Config::builder().completion_type(CompletionType::List).auto_add_history(true).build();
    let failed = |error: ReadlineError| match error {
        ReadlineError::Io(io) => Error::io("the terminal", io),
        other => Error::internal("the prompt failed").caused_by(other),
    };
    let mut editor = Editor::<PromptHelper, DefaultHistory>::with_config(config).map_err(failed)?;
    editor.set_helper(Some(PromptHelper::new(session.engine.clone(), tokio::runtime::Handle::current())));
    let history = history_file();
    if let Some(history) = &history {
        // A first run has none.
        let _ = editor.load_history(history);
    }
    session.context.output.note("Statements end with a semicolon; \\? shows the commands, \\q leaves.");
    loop {
        match editor.readline("flumen> ") {
            Ok(text) => {
                if let Some(history) = &history {
                    // Not worth an error: the statement runs all the same.
                    let _ = editor.append_history(history).or_else(|_| editor.save_history(history));
                }
                match turn(&mut session, &text).await {
                    Ok(true) => return leave(&session).await,
                    Ok(false) => {}
                    Err(error) if error.kind() == ErrorKind::Cancelled => session.context.output.note("Cancelled."),
                    Err(error) => session.context.output.error(&error),
                }
            }
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => return leave(&session).await,
            Err(error) => return Err(failed(error)),
        }
    }
}

/// Runs what was typed. True: leave.
async fn turn(session: &mut Session<'_>, text: &str) -> Result<bool> {
    if text.trim_start().starts_with('\\') {
        return command(session, text.trim()).await;
    }
    if matches!(text.trim().trim_end_matches(';').to_ascii_lowercase().as_str(), "quit" | "exit") {
        return Ok(true);
    }
    for sql in Engine::statements(text) {
        let stop = stop(session);
        session.run(&sql, stop).await?;
    }
    Ok(false)
}

/// Ends when the person wants the statement that runs to stop: at Ctrl-C, which at the prompt ends nothing else.
fn stop(session: &Session<'_>) -> impl Future<Output = ()> + use<> {
    let cancel = session.context.cancel.clone();
    async move {
        tokio::select! {
            () = cancel.cancelled() => {}
            // A signal that cannot be waited for never comes.
            Ok(()) = tokio::signal::ctrl_c() => {}
            else => std::future::pending().await,
        }
    }
}

/// Where the prompt's history is kept: `$XDG_STATE_HOME/flumen/history`, by default below `~/.local/state`.
fn history_file() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let state = set("XDG_STATE_HOME").or_else(|| Some(set("HOME")?.join(".local/state")))?;
    let folder = state.join("flumen");
    std::fs::create_dir_all(&folder).ok()?;
    Some(folder.join("history"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_mix_statements_and_commands() {
        let statement = |text: &str| Item::Statement(text.to_owned());
        assert_eq!(
            items("select 1; select\n2;\n\\d\n\\x on\nselect '\n\\q'"),
            [
                statement("select 1"),
                statement("          select\n2"),
                Item::Command("\\d".into()),
                Item::Command("\\x on".into()),
                statement("\n\n\n\nselect '\n\\q'\n"),
            ]
        );
        assert_eq!(items(""), []);
    }
}
