//! `flumen sql`: queries over the lake and over files, from the command line, a file, a pipe or a prompt.

use std::fs::File;
use std::future::Future;
use std::io::{self, BufWriter, IsTerminal as _, Read as _, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use flumen_connect::postgres::database::ProjectDatabases;
use flumen_core::database::Databases;
use flumen_core::sql::SqlEngine as _;
use flumen_core::{Error, ErrorKind, Result};
use flumen_lake::engine::{DEFAULT_MEMORY_BYTES, Engine, EngineSettings};
use futures::StreamExt as _;

use crate::context::Context;
use crate::destination;
use crate::memory;
use crate::output::{counted, duration};
use crate::render::{Format, Renderer, Style, Written};
use crate::repl;

/// Rows of a table that a terminal shows.
const TERMINAL_ROWS: usize = 100;
/// The least memory a query can work with.
const LEAST_MEMORY_BYTES: usize = 16 << 20;

/// Query the lake, and files in place, with SQL
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  flumen sql 'select count(*) from lake.raw.trips'
  flumen sql \"select * from 'data/*.parquet' limit 5\"
  flumen sql -o busiest.parquet \"select zone, count(*) from 'trips.csv.gz' group by zone\"
  flumen sql -f report.sql --format csv
  flumen sql                          a prompt; \\? there tells more

A file is named in single quotes. Tables of the lake are lake.NAMESPACE.TABLE, NAMESPACE.TABLE, or TABLE where that is
enough; those of a Postgres connection are CONNECTION.SCHEMA.TABLE. Statements that write (create table … as, insert,
update, delete, merge, alter, drop) are one commit each, or one for all between begin and commit.
")]
pub struct SqlCommand {
    /// The query; several may be separated by semicolons. Without one: standard input, or a prompt on a terminal
    #[arg(conflicts_with = "file")]
    query: Option<String>,
    /// Run the statements in this file
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// How to write the result [default: from the name of FILE in -o, else table]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Write the result to this file; it is there once it is whole
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Show at most so many rows of a table; 0 for all [default: 100 on a terminal, else all]
    #[arg(long, value_name = "N")]
    max_rows: Option<usize>,
    /// Memory that sorting, joining and grouping may use before they go to disk, such as 4GB [default: half of what is
    /// free, at least 1 GB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory: Option<usize>,
    /// Give up on a statement that takes longer, such as 30s or 5min
    #[arg(long, value_name = "SPAN")]
    timeout: Option<String>,
    /// Cores to use [default: all]
    #[arg(long, value_name = "N")]
    threads: Option<std::num::NonZeroUsize>,
}

impl SqlCommand {
    /// The command that writes the answer of `query` to `output`.
    pub fn to_file(query: String, output: PathBuf) -> Self {
        Self {
            query: Some(query),
            file: None,
            format: None,
            output: Some(output),
            max_rows: None,
            memory: None,
            timeout: None,
            threads: None,
        }
    }

    /// Whether it will ask for statements on the terminal.
    pub fn is_prompt(&self) -> bool {
        self.query.is_none() && self.file.is_none() && io::stdin().is_terminal()
    }

    /// Runs the statements, or the prompt.
    pub async fn run(self, context: &Context) -> Result<()> {
        memory::for_queries();
        let prompt = self.is_prompt();
        let session = Session::new(&self, context)?;
        if let Some(timeout) = &self.timeout {
            session.engine.query(&format!("set statement_timeout = '{}'", timeout.replace('\'', "''"))).await?;
        }
        if prompt {
            return repl::prompt(session).await;
        }
        let (text, place) = match (&self.query, &self.file) {
            (Some(query), _) if query != "-" => (query.clone(), None),
            (_, Some(file)) => {
                let text = std::fs::read_to_string(file).map_err(|error| Error::io(file.display(), error))?;
                (text, Some(file.display().to_string()))
            }
            _ => {
                let mut text = String::new();
                io::stdin().read_to_string(&mut text).map_err(|error| Error::io("standard input", error))?;
                (text, None)
            }
        };
        let ran = repl::script(session, &text).await;
        ran.map_err(|error| match place {
            Some(place) => error.within_quietly(&place),
            None => error,
        })
    }
}

/// Adds a place to errors that are not silent by their cause.
trait Within {
    fn within_quietly(self, place: &str) -> Self;
}

impl Within for Error {
    fn within_quietly(self, place: &str) -> Self {
        if crate::output::reader_has_gone(&self) { self } else { self.within(place) }
    }
}

/// Ends when a statement has taken as long as it may.
async fn after(limit: Option<Duration>) {
    match limit {
        Some(limit) => tokio::time::sleep(limit).await,
        None => std::future::pending().await,
    }
}

fn took_too_long(limit: Option<Duration>) -> Error {
    let limit = limit.map(duration).unwrap_or_default();
    Error::new(ErrorKind::Unavailable, format!("the statement took longer than {limit}, and was given up"))
        .hint("give it longer with --timeout, or set statement_timeout = 0")
}

/// An engine, and how its answers are written.
pub struct Session<'a> {
    /// What the command was given.
    pub context: &'a Context,
    /// What runs the queries.
    pub engine: Arc<Engine>,
    /// How tables are shown.
    pub style: Style,
    /// Whether the time that each statement took is told.
    pub timing: bool,
    output: Option<PathBuf>,
    answered: bool,
}

impl<'a> Session<'a> {
    fn new(command: &SqlCommand, context: &'a Context) -> Result<Self> {
        let named = command.output.as_ref().map(|path| path.to_string_lossy().into_owned());
        let format = match (command.format, context.output.json, &named) {
            (Some(format), ..) => format,
            (None, _, Some(name)) => Format::of_file(name).ok_or_else(|| {
                Error::invalid(format!("{name}: the name does not tell the format"))
                    .hint("add --format csv, or end it in .csv, .json, .ndjson, .md or .parquet")
            })?,
            (None, true, None) => Format::Json,
            (None, false, None) => Format::Table,
        };
        let terminal = io::stdout().is_terminal() && command.output.is_none();
        if format == Format::Parquet && terminal {
            return Err(Error::invalid("Parquet is nothing for a terminal").hint("add -o FILE.parquet"));
        }
        let max_rows = match command.max_rows {
            Some(0) => None,
            Some(rows) => Some(rows),
            None => terminal.then_some(TERMINAL_ROWS),
        };
        let style = Style {
            format,
            colors: context.output.stdout_colors && command.output.is_none(),
            terminal_width: terminal.then(|| usize::from(console::Term::stdout().size().1)),
            max_rows,
            expanded: false,
        };
        let interactive = terminal && io::stderr().is_terminal();
        let engine = Arc::new(engine(context, command.memory, command.threads.map(usize::from))?);
        Ok(Self { context, engine, style, timing: interactive, output: command.output.clone(), answered: false })
    }

    /// Runs one statement and writes its answer. Ends with `Cancelled` when `cancel` does first.
    pub async fn run(&mut self, sql: &str, cancel: impl Future<Output = ()>) -> Result<()> {
        let began = self.context.clock.now();
        // Those of names that Tab looked up.
        self.engine.take_warnings();
        let limit = self.engine.statement_timeout();
        let written = tokio::select! {
            biased;
            () = cancel => return Err(Error::cancelled()),
            () = after(limit) => return Err(took_too_long(limit)),
            written = self.answer(sql) => written,
        };
        for warning in self.engine.take_warnings() {
            self.context.output.warning(warning);
        }
        let written = written?;
        if let Some(written) = written
            && written.more
        {
            self.context.output.note(format!(
                "only the first {} shown: there are more (--max-rows 0 shows all, --format csv writes all)",
                counted(written.rows, "row")
            ));
        }
        if self.timing {
            let took = (self.context.clock.now() - began).to_std().unwrap_or_default().as_secs_f64();
            let rows = match written {
                Some(written) => format!("{}, ", counted(written.rows, "row")),
                None => String::new(),
            };
            self.context.output.note(format!("({rows}{took:.3} s)"));
        }
        Ok(())
    }

    /// Writes the answer to one statement; none if it answers nothing.
    async fn answer(&mut self, sql: &str) -> Result<Option<Written>> {
        let held = self.output.is_some() || self.style.format.is_held();
        loop {
            let answered = self.answered;
            match self.answer_once(sql).await {
                // Nobody has seen anything of the answer.
                Err(error) if held && self.engine.learn_types(&error).await? => self.answered = answered,
                ended => return ended,
            }
        }
    }

    async fn answer_once(&mut self, sql: &str) -> Result<Option<Written>> {
        let mut answer = self.engine.query(sql).await?;
        if answer.schema.fields().is_empty() {
            // It runs as it is read.
            while let Some(batch) = answer.batches.next().await {
                batch?;
            }
            // A person wants to see that anything was done, a log only what was.
            if let Some(done) = answer.done.filter(|done| self.timing || done.rows.is_some()) {
                self.context.output.note(match done.rows {
                    Some(rows) => format!("{}, {}", done.command, counted(rows, "row")),
                    None => done.command.to_owned(),
                });
            }
            return Ok(None);
        }
        let target = self.target()?;
        let mut renderer = Renderer::new(&self.style, &answer.schema, target.writer()?)?;
        while let Some(batch) = answer.batches.next().await {
            if !renderer.write(&batch?)? {
                break;
            }
        }
        let written = renderer.finish()?;
        target.done()?;
        Ok(Some(written))
    }

    fn target(&mut self) -> Result<Target> {
        let Some(path) = &self.output else { return Ok(Target::Stdout) };
        if std::mem::replace(&mut self.answered, true) {
            return Err(Error::invalid(format!("{}: there is a second result, and room for one", path.display()))
                .hint("run one query at a time with -o"));
        }
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = name.ok_or_else(|| Error::invalid(format!("{}: this is not the name of a file", path.display())))?;
        Ok(Target::File { path: path.clone(), partial: path.with_file_name(format!(".{name}.partial")) })
    }
}

/// Where a result goes. A file has another name until it is whole.
enum Target {
    Stdout,
    File { path: PathBuf, partial: PathBuf },
}

impl Target {
    fn writer(&self) -> Result<Box<dyn Write + Send>> {
        Ok(match self {
            Target::Stdout => Box::new(BufWriter::new(io::stdout())),
            Target::File { path, partial } => {
                let file = File::create(partial).map_err(|error| Error::io(path.display(), error))?;
                Box::new(BufWriter::new(file))
            }
        })
    }

    fn done(mut self) -> Result<()> {
        if let Target::File { path, partial } = &self {
            std::fs::rename(partial, path).map_err(|error| Error::io(path.display(), error))?;
            self = Target::Stdout;
        }
        drop(self);
        Ok(())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Target::File { partial, .. } = self {
            // It is not whole; if it cannot be removed, its name says what it is.
            let _ = std::fs::remove_file(partial);
        }
    }
}

/// The engine over the project's lake, if there is a project, and over files.
pub fn engine(context: &Context, memory: Option<usize>, threads: Option<usize>) -> Result<Engine> {
    let catalog = context.maybe_project()?.map(|_| destination::catalog(context)).transpose()?;
    let files = crate::origin::files(context)?;
    let memory_bytes = memory.unwrap_or_else(default_memory);
    Engine::new(EngineSettings {
        catalog,
        environment: context.environment.clone(),
        files: Arc::new(files),
        memory_bytes,
        threads,
        clock: Arc::clone(&context.clock),
        ids: Arc::clone(&context.ids),
        read_only: false,
        files_allowed: true,
        external_tables: true,
        destinations: Some(Arc::new(destination::Anywhere::new(context)?)),
        databases: context
            .maybe_project()?
            .map(|project| Arc::new(ProjectDatabases::new(project)) as Arc<dyn Databases>),
    })
}

/// `4GB`, `512 MB` or a number of bytes.
pub fn size(text: &str) -> std::result::Result<usize, String> {
    let text = text.trim().to_ascii_uppercase();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let unit = match text[digits.len()..].trim() {
        "" | "B" => 1.0,
        "K" | "KB" | "KIB" => 1024.0,
        "M" | "MB" | "MIB" => 1024.0 * 1024.0,
        "G" | "GB" | "GIB" => 1024.0 * 1024.0 * 1024.0,
        other => return Err(format!("'{other}' is no unit: write for example 4GB or 512MB")),
    };
    let number: f64 = digits.parse().map_err(|_| "write for example 4GB or 512MB".to_owned())?;
    let bytes = number * unit;
    if bytes.is_nan() || bytes < LEAST_MEMORY_BYTES as f64 {
        return Err("a query needs 16MB at least".to_owned());
    }
    Ok(bytes as usize)
}

/// Half of what is free.
pub fn default_memory() -> usize {
    let free = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| available(&text));
    free.map_or(DEFAULT_MEMORY_BYTES, |bytes| (bytes / 2).max(DEFAULT_MEMORY_BYTES))
}

fn available(meminfo: &str) -> Option<usize> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(size("4GB"), Ok(4 << 30));
        assert_eq!(size("512 mb"), Ok(512 << 20));
        assert_eq!(size("1.5g"), Ok(3 << 29));
        assert!(size("4").is_err());
        assert!(size("x").is_err());
        assert!(size("4TBX").is_err());
    }

    #[test]
    fn free_memory_is_read_from_the_system() {
        assert_eq!(available("MemTotal: 5 kB\nMemAvailable:   2048 kB\n"), Some(2 << 20));
        assert_eq!(available(""), None);
    }
}
