//! `flumen sample taxi`: taxi trips made up on the spot, into a folder, to standard output, or over HTTP.

use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use flumen_connect::sample::folder::{Folder, Made};
use flumen_connect::sample::{
    DEFAULT_ROWS_PER_MONTH, Format, Kind, Month, SampleFile, Taxi, Watch, Written, parse_count, parse_months,
};
use flumen_core::{Error, Result};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::context::Context;
use crate::output::{self, Table, counted};
use crate::sample_server::{SampleServer, Shelf};

/// How often a progress bar moves.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// Make sample data: taxi trips at any scale, as files or served over HTTP
#[derive(Debug, clap::Args)]
#[command(subcommand_value_name = "DATA SET")]
pub struct SampleCommand {
    #[command(subcommand)]
    of: DataSet,
}

#[derive(Debug, clap::Subcommand)]
enum DataSet {
    Taxi(TaxiCommand),
}

/// New York taxi trips (yellow, green, for-hire) and the taxi zones, made up but true to form
///
/// The columns and types are those of the public trip records; the trips are made up. The same options give the same
/// bytes everywhere, on any number of cores. Files that are there already and were made with the same options are kept.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  flumen sample taxi --months 2019-01..2019-03 --out data
  flumen sample taxi --months 2019-01 --rows-per-month 100k --format csv.gz --kinds yellow,zones --out data
  flumen sample taxi --months 2019-01 --kinds yellow --rows-per-month 1k --format csv --out - | flumen ingest - --to lake.raw.trips
  flumen sample taxi --months 2019-01..2019-12 --serve
")]
struct TaxiCommand {
    /// The months, 2011-01 to 2099-12: one, a range with both ends, or several with commas
    #[arg(long, value_name = "MONTHS", default_value = "2019-01..2019-03")]
    months: String,
    /// Rows of a yellow month and of a for-hire one; green has 8 % of it. 1_400_000, 1.4M and 100k are understood
    #[arg(long, value_name = "ROWS", default_value_t = DEFAULT_ROWS_PER_MONTH.to_string())]
    rows_per_month: String,
    /// parquet, csv or csv.gz [default: parquet; with --serve: each]
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Which files: yellow, green, fhv, zones, separated by commas
    #[arg(long, value_name = "KINDS", default_value = "yellow,green,fhv,zones")]
    kinds: String,
    /// The folder to write to; '-' writes a single file to standard output
    #[arg(long, short, value_name = "DIR", required_unless_present = "serve")]
    out: Option<PathBuf>,
    /// Make this many rows of each CSV file bad: by turns cut short and with a field too many
    #[arg(long, value_name = "ROWS", default_value = "0")]
    bad_rows: String,
    /// Another seed gives other trips
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    seed: u64,
    /// Write over different files of the same names
    #[arg(long)]
    force: bool,
    /// Threads to use [default: all cores]. The bytes do not depend on it
    #[arg(long, value_name = "NUMBER")]
    threads: Option<usize>,
    /// Serve the files over HTTP on this computer only, until Ctrl-C; each is made when it is first asked for
    #[arg(long)]
    serve: bool,
    /// The port to serve on; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 0, requires = "serve")]
    port: u16,
    /// Write the address to this file as soon as it can be reached; removed at the end
    #[arg(long, value_name = "FILE", requires = "serve")]
    ready_file: Option<PathBuf>,
}

impl SampleCommand {
    /// Makes or serves the files.
    pub async fn run(self, context: &Context) -> Result<()> {
        match self.of {
            DataSet::Taxi(command) => command.run(context).await,
        }
    }
}

impl TaxiCommand {
    async fn run(self, context: &Context) -> Result<()> {
        let request = Request::new(&self)?;
        let watch = Arc::new(Watch::default());
        let stop = (context.cancel.clone(), Arc::clone(&watch));
        tokio::spawn(async move {
            stop.0.cancelled().await;
            stop.1.cancel();
        });
        let threads = self.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        match self.out {
            out if self.serve => {
                if out.as_deref() == Some(Path::new("-")) {
                    return Err(Error::invalid("--serve cannot write to standard output")
                        .hint("leave out --out, or name the folder in which the files are to be kept"));
                }
                // What an earlier server left behind when it was killed must not be taken for this one's address.
                if let Some(stale) = self.ready_file.as_deref().filter(|path| path.is_file()) {
                    std::fs::remove_file(stale).map_err(|error| Error::io(stale.display(), error))?;
                }
                let folder = out.as_deref().map(Folder::open).transpose()?;
                if let Some(folder) = &folder {
                    folder.check(&request.served()?, self.force)?;
                }
                let shelf = Shelf::new(request.served()?, folder, self.force, threads, watch);
                SampleServer::bind(shelf, self.port).await?.serve(context, self.ready_file.as_deref()).await
            }
            Some(out) if out == Path::new("-") => to_stdout(context, request.only_file()?, threads, watch).await,
            Some(out) => to_folder(context, &out, request.files()?, self.force, threads, watch).await,
            None => Err(Error::invalid("there is nowhere to write to").hint("name a folder with --out")),
        }
    }
}

/// What the options say, understood.
struct Request {
    months: Vec<Month>,
    rows_per_month: u64,
    kinds: Vec<Kind>,
    format: Option<Format>,
    bad_rows: u64,
    seed: u64,
}

impl Request {
    fn new(command: &TaxiCommand) -> Result<Self> {
        let count = |option: &str, text: &str| parse_count(text).map_err(|error| error.within(option));
        Ok(Self {
            months: parse_months(&command.months).map_err(|error| error.within("--months"))?,
            rows_per_month: count("--rows-per-month", &command.rows_per_month)?,
            kinds: command.kinds.split(',').map(str::parse).collect::<Result<_>>()?,
            format: command.format.as_deref().map(str::parse).transpose()?,
            bad_rows: count("--bad-rows", &command.bad_rows)?,
            seed: command.seed,
        })
    }

    fn taxi(&self, format: Format) -> Taxi {
        Taxi {
            months: self.months.clone(),
            rows_per_month: self.rows_per_month,
            format,
            kinds: self.kinds.clone(),
            bad_rows: self.bad_rows,
            seed: self.seed,
        }
    }

    fn files(&self) -> Result<Vec<SampleFile>> {
        self.taxi(self.format.unwrap_or(Format::Parquet)).files()
    }

    /// The files to serve: in every format that can hold them, unless one was named.
    fn served(&self) -> Result<Vec<SampleFile>> {
        if self.format.is_some() {
            return self.files();
        }
        let formats = [Format::Parquet, Format::Csv, Format::CsvGz];
        let mut files: Vec<SampleFile> = Vec::new();
        for format in formats.into_iter().filter(|format| self.bad_rows == 0 || *format != Format::Parquet) {
            for file in self.taxi(format).files()? {
                if !files.contains(&file) {
                    files.push(file);
                }
            }
        }
        Ok(files)
    }

    fn only_file(&self) -> Result<SampleFile> {
        let files = self.files()?;
        let many = files.len();
        match <[SampleFile; 1]>::try_from(files) {
            Ok([file]) => Ok(file),
            Err(_) => Err(Error::invalid(format!("{many} files do not fit into standard output"))
                .hint("ask for one month and one kind, for example --months 2019-01 --kinds yellow")),
        }
    }
}

async fn to_stdout(context: &Context, file: SampleFile, threads: usize, watch: Arc<Watch>) -> Result<()> {
    if file.format() != Format::Csv && io::stdout().is_terminal() {
        return Err(Error::invalid(format!("{} is not text, and standard output is a terminal", file.name()))
            .hint("redirect it into a file, or choose --format csv"));
    }
    let started = context.clock.now();
    let name = file.name();
    let written = blocking(move || {
        let out = io::BufWriter::with_capacity(1 << 18, io::stdout());
        file.write("standard output", out, threads, &watch).map_err(|error| match broken_pipe(&error) {
            true => output::stdout_error(io::Error::from(io::ErrorKind::BrokenPipe)),
            false => error,
        })
    })
    .await?;
    let took = (context.clock.now() - started).to_std().unwrap_or_default();
    context.output.note(line(&name, &written, took));
    Ok(())
}

fn broken_pipe(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|source| source.kind() == io::ErrorKind::BrokenPipe)
}

async fn to_folder(
    context: &Context,
    out: &Path,
    files: Vec<SampleFile>,
    force: bool,
    threads: usize,
    watch: Arc<Watch>,
) -> Result<()> {
    let started = context.clock.now();
    let mut folder = Folder::open(out)?;
    folder.check(&files, force)?;
    let bar = Bar::start(context, files.iter().map(SampleFile::rows).sum(), Arc::clone(&watch));
    let mut all = Vec::with_capacity(files.len());
    for file in files {
        let began = context.clock.now();
        let watch = Arc::clone(&watch);
        let made;
        (folder, made) = blocking(move || {
            let made = folder.make(&file, force, threads, &watch)?;
            Ok((folder, made))
        })
        .await?;
        let took = (context.clock.now() - began).to_std().unwrap_or_default();
        let name = made.path.display().to_string();
        bar.note(context, if made.kept { format!("{name}: kept") } else { line(&name, &made.written, took) });
        all.push(made);
    }
    drop(bar);
    summary(context, &all, (context.clock.now() - started).to_std().unwrap_or_default())
}

/// Runs `work` where it may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(Error::internal("a thread that made sample rows ended early").caused_by(error)),
    }
}

fn line(name: &str, written: &Written, took: Duration) -> String {
    let (rows, bytes) = (counted(written.rows, "row"), output::bytes(written.bytes));
    format!("{name}: {rows}, {bytes}, {}", output::duration(took))
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    files: Vec<ReportFile>,
    rows: u64,
    bytes: u64,
    seconds: f64,
    /// Over the files that were made, not the ones that were kept.
    rows_per_second: u64,
}

#[derive(Serialize)]
struct ReportFile {
    path: String,
    rows: u64,
    bytes: u64,
    blake3: String,
    kept: bool,
}

fn summary(context: &Context, all: &[Made], took: Duration) -> Result<()> {
    let made_rows: u64 = all.iter().filter(|made| !made.kept).map(|made| made.written.rows).sum();
    let kept = all.iter().filter(|made| made.kept).count();
    let report = Report {
        files: all
            .iter()
            .map(|made| ReportFile {
                path: made.path.display().to_string(),
                rows: made.written.rows,
                bytes: made.written.bytes,
                blake3: made.written.blake3.clone(),
                kept: made.kept,
            })
            .collect(),
        rows: all.iter().map(|made| made.written.rows).sum(),
        bytes: all.iter().map(|made| made.written.bytes).sum(),
        seconds: took.as_secs_f64(),
        rows_per_second: (made_rows as f64 / took.as_secs_f64().max(0.001)) as u64,
    };
    if context.output.json {
        return context.output.json(&report);
    }
    let mut table = Table::new(["files", "kept", "rows", "bytes", "time", "rows/s"]);
    table.row([
        output::count(report.files.len() as u64),
        output::count(kept as u64),
        output::count(report.rows),
        output::bytes(report.bytes),
        output::duration(took),
        output::count(report.rows_per_second),
    ]);
    context.output.table(&table)
}

/// The progress bar on a terminal, nothing elsewhere.
struct Bar {
    bar: ProgressBar,
    mover: tokio::task::JoinHandle<()>,
}

impl Bar {
    fn start(context: &Context, rows: u64, watch: Arc<Watch>) -> Self {
        let shown = io::stderr().is_terminal() && !context.output.quiet && !context.output.json;
        let bar = if shown { ProgressBar::new(rows) } else { ProgressBar::hidden() };
        if let Ok(style) =
            ProgressStyle::with_template("{bar:30} {human_pos} of {human_len} rows, {per_sec}, {eta} left")
        {
            bar.set_style(style);
        }
        let moved = bar.clone();
        let mover = tokio::spawn(async move {
            let mut interval = tokio::time::interval(PROGRESS_INTERVAL);
            loop {
                interval.tick().await;
                moved.set_position(watch.rows());
            }
        });
        Self { bar, mover }
    }

    fn note(&self, context: &Context, text: String) {
        self.bar.suspend(|| context.output.note(text));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.mover.abort();
        self.bar.finish_and_clear();
    }
}
