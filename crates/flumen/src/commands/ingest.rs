//! `flumen ingest`: files, streams and tables into a lake table, a Postgres table, or other files.

use arrow::datatypes::DataType;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use flumen_connect::ingest::{Around, DryRun, Ingest, Receipt};
use flumen_core::contract::{Case, Contract, TypeName, parse_type};
use flumen_core::dataset::Dataset;
use flumen_core::load::{Fence, LoadId, Mode};
use flumen_core::read::{Input, ReadOptions};
use flumen_core::text::TextOptions;
use flumen_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::destination::{self, DestinationOptions};
use crate::origin::Origins;

mod classic;
mod progress;
mod receipt;

/// Bring data in: any file, URL or table, into the lake, Postgres or files
#[derive(Debug, Clone, Default, clap::Args, Serialize, Deserialize)]
#[command(after_help = EXAMPLES)]
#[serde(default)]
pub struct IngestCommand {
    /// What to load: paths, patterns, '-' for standard input, http(s), s3, gs or az URLs, CONNECTION.SCHEMA.TABLE; ranges
    /// such as {2019-01..2019-06} are counted out
    #[arg(value_name = "SOURCE")]
    pub sources: Vec<String>,

    /// Where to: lake.NAMESPACE.TABLE, CONNECTION.SCHEMA.TABLE, or files (out/trips.parquet, s3://bucket/x.csv)
    #[arg(long, value_name = "DATASET")]
    pub to: Option<String>,

    /// What happens to the rows that are there: append, replace, merge, scd2, replace-where [default: append; replace for
    /// files]
    #[arg(long, help_heading = "Mode")]
    pub mode: Option<String>,
    /// merge, scd2: the columns that identify a row
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',', help_heading = "Mode")]
    pub key: Vec<String>,
    /// merge: a boolean column; a row in which it is true deletes the row with its key
    #[arg(long, value_name = "COLUMN", help_heading = "Mode")]
    pub delete_flag: Option<String>,
    /// scd2: the column that says since when a row holds
    #[arg(long, value_name = "COLUMN", default_value = "valid_from", help_heading = "Mode")]
    pub valid_from: String,
    /// scd2: the column that says until when it held
    #[arg(long, value_name = "COLUMN", default_value = "valid_to", help_heading = "Mode")]
    pub valid_to: String,
    /// replace-where: the rows to replace, as a SQL condition; a new row outside it fails the load
    #[arg(long = "where", value_name = "CONDITION", help_heading = "Mode")]
    #[serde(rename = "where")]
    pub predicate: Option<String>,
    /// replace-where: replace what earlier loads under this name wrote
    #[arg(long, value_name = "NAME", conflicts_with = "predicate", help_heading = "Mode")]
    pub slot: Option<String>,

    /// A contract: columns with types, aliases, codes (see 'flumen contract infer')
    #[arg(long, value_name = "FILE", help_heading = "Columns")]
    pub contract: Option<PathBuf>,
    /// Types of columns
    #[arg(long, value_name = "NAME=TYPE", value_parser = pair, value_delimiter = ',', help_heading = "Columns")]
    pub types: Vec<(String, String)>,
    /// The columns to load
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',', help_heading = "Columns")]
    pub select: Vec<String>,
    /// Other names for columns
    #[arg(long, value_name = "OLD=NEW", value_parser = pair, value_delimiter = ',', help_heading = "Columns")]
    pub rename: Vec<(String, String)>,
    /// How new columns are named: keep, snake, lower
    #[arg(long, value_name = "CASE", default_value = "keep", help_heading = "Columns")]
    pub column_case: String,
    /// Whether rows carry _flumen_load, _flumen_file and _flumen_row [default: yes in the lake, no elsewhere]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", help_heading = "Columns")]
    pub lineage: Option<bool>,

    /// How many bad rows to put up with; they go to quarantine
    #[arg(long, value_name = "ROWS", default_value_t = 0, help_heading = "Load")]
    pub max_bad: u64,
    /// Load no more than the first rows
    #[arg(long, value_name = "ROWS", help_heading = "Load")]
    pub limit: Option<u64>,
    /// Read everything, write nothing, and show what would be loaded
    #[arg(long, help_heading = "Load")]
    pub dry_run: bool,
    /// Load again what is loaded already
    #[arg(long, help_heading = "Load")]
    pub force: bool,
    /// The load's id, for input that has no identity of its own: the same id loads once
    #[arg(long, value_name = "ID", help_heading = "Load")]
    pub load_id: Option<String>,
    /// Threads [default: one a core]
    #[arg(long, value_name = "N", help_heading = "Load")]
    #[serde(skip)]
    pub threads: Option<usize>,

    /// Partition columns of a new lake table, or of files (out/*.parquet)
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',', help_heading = "Destination")]
    pub partition_by: Vec<String>,
    /// Lake: encode Parquet files again, also where they could be taken over as they are
    #[arg(long, help_heading = "Destination")]
    pub reencode: bool,
    /// Postgres: an index on these columns (give it several times for several)
    #[arg(long, value_name = "COLUMNS", help_heading = "Destination")]
    pub index: Vec<String>,
    /// Postgres: the primary key of a new table
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',', help_heading = "Destination")]
    pub primary_key: Vec<String>,
    /// Postgres: keep no ledger: the same file would be loaded twice, and no load can be undone
    #[arg(long, help_heading = "Destination")]
    pub no_ledger: bool,

    /// Postgres: do not renew the table's statistics (ANALYZE) when the load is done; autovacuum will, in its time
    #[arg(long, help_heading = "Destination")]
    pub no_analyze: bool,

    /// How the files are to be read
    #[command(flatten)]
    pub format: FormatOptions,

    /// What a flow adds
    #[arg(skip)]
    #[serde(skip)]
    pub flow: Option<FlowLoad>,

    /// The flags of the classic script
    #[command(flatten)]
    #[serde(skip)]
    pub classic: classic::ClassicOptions,
}

/// What a flow adds to a load: who it is for, so that a retry is the same load and another run is another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowLoad {
    /// What tells the files of this task run from the same files of others.
    pub scope: String,
    /// The id of the load.
    pub load: LoadId,
    /// The fencing number of the attempt.
    pub fence: Fence,
}

/// How files are to be read, where they do not say it themselves.
#[derive(Debug, Clone, Default, clap::Args, Serialize, Deserialize)]
#[serde(default)]
pub struct FormatOptions {
    /// csv, tsv, json, ndjson, parquet, arrow, avro, excel
    #[arg(long, help_heading = "Format (found out by default)")]
    pub format: Option<String>,
    /// gzip, zstd, bzip2, xz, none
    #[arg(long, help_heading = "Format (found out by default)")]
    pub compression: Option<String>,
    /// utf-8, utf-16le, utf-16be, latin-1
    #[arg(long, help_heading = "Format (found out by default)")]
    pub encoding: Option<String>,
    /// CSV: the character between fields (\t for a tab)
    #[arg(long, value_name = "CHAR", help_heading = "Format (found out by default)")]
    pub delimiter: Option<String>,
    /// CSV: the character round fields; 'none' if there is none
    #[arg(long, value_name = "CHAR", help_heading = "Format (found out by default)")]
    pub quote: Option<String>,
    /// CSV: whether the first row has the names
    #[arg(long, value_name = "BOOL", help_heading = "Format (found out by default)")]
    pub header: Option<bool>,
    /// CSV: lines before the header
    #[arg(long, value_name = "LINES", default_value_t = 0, help_heading = "Format (found out by default)")]
    pub skip_lines: usize,
    /// Text: values that mean null, besides the empty one
    #[arg(long, value_name = "VALUES", value_delimiter = ',', help_heading = "Format (found out by default)")]
    pub null: Vec<String>,
    /// Text: the format of dates, such as %d.%m.%Y
    #[arg(long, value_name = "STRFTIME", help_heading = "Format (found out by default)")]
    pub date_format: Option<String>,
    /// Text: numbers are written 1.234,56
    #[arg(long, help_heading = "Format (found out by default)")]
    pub decimal_comma: bool,
    /// Text: cut off white space round values
    #[arg(long, help_heading = "Format (found out by default)")]
    pub trim: bool,
    /// JSON: nested values become columns: a.b as a_b
    #[arg(long, help_heading = "Format (found out by default)")]
    pub flatten: bool,
    /// Excel: the sheet
    #[arg(long, value_name = "NAME", help_heading = "Format (found out by default)")]
    pub sheet: Option<String>,
    /// Postgres: a query in place of a table (the source is then the connection alone)
    #[arg(long, value_name = "SQL", help_heading = "Postgres source")]
    pub query: Option<String>,
    /// Postgres: load only rows in which this column is above what was loaded last
    #[arg(long, value_name = "COLUMN", help_heading = "Postgres source")]
    pub cursor: Option<String>,
    /// Postgres: read again so much before the cursor ('1 day', 100)
    #[arg(long, value_name = "INTERVAL", requires = "cursor", help_heading = "Postgres source")]
    pub lag: Option<String>,
}

const EXAMPLES: &str = "Examples:
  flumen ingest trips.csv --to lake.raw.trips
  flumen ingest 'https://example.org/yellow_tripdata_{2019-01..2019-06}.csv.gz' --to lake.raw.yellow
  flumen ingest 'data/*.parquet' --to pg.public.trips --mode replace --index pickup_datetime
  flumen ingest pg.public.orders --cursor updated_at --to lake.raw.orders --mode merge --key id
  flumen ingest s3://bucket/x.csv --to out/x.parquet
  flumen ingest trips.csv --to lake.raw.trips --dry-run";

fn pair(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((left, right)) if !left.trim().is_empty() && !right.trim().is_empty() => {
            Ok((left.trim().to_owned(), right.trim().to_owned()))
        }
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

impl IngestCommand {
    /// Does the load and prints the receipt.
    pub async fn run(self, context: &Context) -> Result<()> {
        let dry_run = self.dry_run;
        let receipt = self.load(context).await?;
        receipt::print(&receipt, dry_run, context)
    }

    /// Does the load.
    pub async fn load(mut self, context: &Context) -> Result<Receipt> {
        let started = context.clock.now();
        let connection = self.classic.clone().apply(&mut self, context)?;
        if self.sources.is_empty() {
            return Err(Error::invalid("nothing to load was named").hint("flumen ingest FILE --to lake.raw.NAME"));
        }
        let Some(to) = &self.to else {
            return Err(Error::invalid("--to is missing: where shall the rows go?")
                .hint("for example --to lake.raw.trips, --to pg.public.trips, or --to trips.parquet"));
        };
        let dataset: Dataset = to.parse()?;
        let options = DestinationOptions { ledger: !self.no_ledger, analyze: !self.no_analyze, connection };
        let mut read = self.format.read_options()?;
        let is_text = |(_, data_type): &&(String, String)| parse_type(data_type).is_ok_and(|of| of == DataType::Utf8);
        read.folder_text = self.types.iter().filter(is_text).map(|(name, _)| name.clone()).collect();
        let opening = async {
            let sink = destination::open(&dataset, &options, context).await?;
            self.resume_cursor(&mut read, sink.as_ref()).await?;
            Ok((sink, self.inputs(&read, context).await?))
        };
        let (sink, inputs) = context.unless_cancelled(opening).await?;
        let observer = progress::observer(&context.output);
        let around = Around {
            clock: context.clock.as_ref(),
            ids: context.ids.as_ref(),
            observer: Arc::clone(&observer) as _,
            cancel: context.cancel.clone(),
        };
        let sink = if self.dry_run { Arc::new(DryRun(sink)) as _ } else { sink };
        let ingest = Ingest {
            inputs,
            sink,
            mode: self.mode(&dataset)?,
            contract: self.contract(context)?,
            case: self.column_case.parse::<Case>()?,
            select: self.select.clone(),
            text: read.text,
            max_bad: self.max_bad,
            limit: self.limit,
            force: self.force,
            load_id: match &self.flow {
                Some(flow) => Some(flow.load.clone()),
                None => self.load_id.as_deref().map(load_id),
            },
            scope: self.flow.as_ref().map(|flow| flow.scope.clone()).unwrap_or_default(),
            lineage: match self.lineage {
                Some(lineage) => Some(lineage),
                None => context.maybe_project()?.and_then(|project| project.settings().defaults.lineage),
            },
            take_over: !self.reencode,
            partition_by: self.partition_by.clone(),
            indexes: self
                .index
                .iter()
                .map(|columns| columns.split(',').map(|c| c.trim().to_owned()).collect())
                .collect(),
            primary_key: self.primary_key.clone(),
            spool: context.spool()?,
            fence: self.flow.as_ref().map_or(Fence(0), |flow| flow.fence),
            started,
            threads: self.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(2, usize::from)),
            options: self.as_options()?,
        };
        let result = flumen_connect::ingest::ingest(ingest, around).await;
        observer.end();
        // Whatever broke because of it, it was asked for.
        if context.cancel.is_cancelled() { result.map_err(|_| Error::cancelled()) } else { result }
    }

    async fn inputs(&self, read: &ReadOptions, context: &Context) -> Result<Vec<Arc<dyn Input>>> {
        let origins = Origins::new(context)?;
        let mut inputs = Vec::new();
        for source in &self.sources {
            inputs.extend(origins.open(source, read).await?);
        }
        Ok(inputs)
    }

    /// An incremental load goes on where the last one stopped.
    async fn resume_cursor(&self, read: &mut ReadOptions, sink: &dyn flumen_core::write::Sink) -> Result<()> {
        let Some(column) = &self.format.cursor else { return Ok(()) };
        let last = sink
            .loads(usize::MAX)
            .await?
            .into_iter()
            .filter(|entry| !entry.undone)
            .find_map(|entry| entry.record.cursor.filter(|cursor| cursor.column.eq_ignore_ascii_case(column)));
        read.cursor =
            Some(last.unwrap_or_else(|| flumen_core::load::Cursor { column: column.clone(), value: String::new() }));
        Ok(())
    }

    fn mode(&self, dataset: &Dataset) -> Result<Mode> {
        let mode = match (&self.mode, dataset) {
            (Some(mode), _) => mode.as_str(),
            (None, Dataset::Files(_)) => "replace",
            (None, _) => "append",
        };
        let keys = || {
            if self.key.is_empty() {
                return Err(Error::invalid(format!("--mode {mode} needs the columns that identify a row"))
                    .hint("give them with --key a,b"));
            }
            Ok(self.key.clone())
        };
        match mode {
            "append" => Ok(Mode::Append),
            "replace" => Ok(Mode::Replace),
            "merge" => Ok(Mode::Merge { keys: keys()?, delete_flag: self.delete_flag.clone() }),
            "scd2" => {
                Ok(Mode::Scd2 { keys: keys()?, valid_from: self.valid_from.clone(), valid_to: self.valid_to.clone() })
            }
            "replace-where" => match (&self.predicate, &self.slot) {
                (Some(predicate), _) => Ok(Mode::ReplaceWhere { predicate: predicate.clone() }),
                (None, Some(slot)) => Ok(Mode::ReplaceLoad { slot: slot.clone() }),
                (None, None) => Err(Error::invalid("--mode replace-where does not say what to replace").hint(
                    "give --where \"month = '2019-01'\", or --slot NAME for what earlier loads under that name wrote",
                )),
            },
            other => {
                const MODES: [&str; 5] = ["append", "replace", "merge", "scd2", "replace-where"];
                Err(Error::invalid(format!("'{other}' is not a mode"))
                    .hint(MODES.join(", "))
                    .did_you_mean(other, MODES))
            }
        }
    }

    /// The contract file, with what the command line adds to it.
    fn contract(&self, context: &Context) -> Result<Contract> {
        let mut contract = match &self.contract {
            Some(path) => crate::commands::contract::read(path, context)?,
            None => Contract::default(),
        };
        for (old, new) in &self.rename {
            contract.column_mut(new).aliases.push(old.clone());
        }
        for (name, data_type) in &self.types {
            let data_type = parse_type(data_type).map_err(|error| error.within(format!("--types {name}")))?;
            contract.column_mut(name).data_type = Some(TypeName(data_type));
        }
        Ok(contract)
    }

    /// The command as it is kept in the ledger.
    fn as_options(&self) -> Result<BTreeMap<String, serde_json::Value>> {
        let mut kept = self.clone();
        kept.sources = self.sources.iter().map(|source| absolute(source)).collect();
        kept.to = self.to.as_ref().map(|to| if to.contains('/') { absolute(to) } else { to.clone() });
        kept.contract = self.contract.as_ref().map(|path| PathBuf::from(absolute(&path.to_string_lossy())));
        let broken = |error| Error::internal("the command cannot be kept").caused_by(error);
        let value = serde_json::to_value(&kept).map_err(broken)?;
        let default = serde_json::to_value(Self::default()).map_err(broken)?;
        let serde_json::Value::Object(fields) = value else { return Ok(BTreeMap::new()) };
        Ok(fields.into_iter().filter(|(name, value)| default.get(name) != Some(value)).collect())
    }
}

/// A local path as it is from the root on, so that a replay finds it from anywhere; other addresses as they are, but for
/// a password.
fn absolute(address: &str) -> String {
    if let Ok(mut url) = url::Url::parse(address)
        && address.contains("://")
    {
        if url.password().is_some() && url.set_password(None).is_ok() {
            return url.to_string();
        }
        return address.to_owned();
    }
    let path = std::path::Path::new(address);
    if address == "-" || address.contains('{') || !address.contains('/') && !path.exists() {
        return address.to_owned();
    }
    std::path::absolute(path).map_or_else(|_| address.to_owned(), |path| path.to_string_lossy().into_owned())
}

/// The id that the user's name for a load stands for; an id stands for itself.
fn load_id(text: &str) -> LoadId {
    text.parse().unwrap_or_else(|_| LoadId::derive(["given", text]))
}

impl FormatOptions {
    /// As the readers want it.
    pub fn read_options(&self) -> Result<ReadOptions> {
        let character = |option: &str, text: &str| match text {
            "\\t" | "tab" => Ok(b'\t'),
            text if text.len() == 1 => Ok(text.as_bytes()[0]),
            _ => {
                Err(Error::invalid(format!("{option} '{text}' is not a single character")).hint("write \\t for a tab"))
            }
        };
        let quote = match self.quote.as_deref() {
            None => None,
            Some("none") => Some(None),
            Some(text) => Some(Some(character("--quote", text)?)),
        };
        Ok(ReadOptions {
            format: self.format.clone(),
            compression: self.compression.clone(),
            encoding: self.encoding.clone(),
            delimiter: self.delimiter.as_deref().map(|text| character("--delimiter", text)).transpose()?,
            quote,
            header: self.header,
            skip_lines: self.skip_lines,
            text: TextOptions {
                nulls: self.null.clone(),
                date_format: self.date_format.clone(),
                decimal_comma: self.decimal_comma,
                trim: self.trim,
            },
            flatten: self.flatten,
            folder_text: Vec::new(),
            sheet: self.sheet.clone(),
            cursor: None,
            lag: self.lag.clone(),
            query: self.query.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_comes_back_from_the_ledger() {
        let command = IngestCommand {
            sources: vec!["s3://bucket/x.csv".into()],
            to: Some("lake.raw.x".into()),
            mode: Some("merge".into()),
            max_bad: 3,
            types: vec![("a".into(), "text".into())],
            ..IngestCommand::default()
        };
        let kept = serde_json::to_value(command.as_options().unwrap()).unwrap();
        let back: IngestCommand = serde_json::from_value(kept).unwrap();
        assert_eq!(back.as_options().unwrap(), command.as_options().unwrap());
        assert_eq!((back.max_bad, back.types), (3, command.types));
    }

    #[test]
    fn passwords_do_not_reach_the_ledger() {
        assert_eq!(absolute("postgresql://u:secret@h/db"), "postgresql://u@h/db");
    }
}
