//! Sample data: taxi trips made up on the spot, with the exact columns and types of New York's public trip records.
//!
//! What always holds: the same [`Taxi`] gives the same bytes, on any number of cores and in any order of files, because
//! every row is a function of (seed, kind, month, row) alone, all arithmetic is on integers, and blocks are joined in
//! order. Nothing here reads a clock, rolls dice or touches the network.
//!
//! Read [`mod@layout`] for the columns and how they changed over the years, [`mod@trips`] for what a row looks like and
//! why, [`mod@text`] and [`mod@columns`] for the two ways of writing it down, [`mod@folder`] for files on disk. The list of
//! zones (`sample/taxi_zone_lookup.csv`) is the one that the NYC Taxi & Limousine Commission publishes as open data
//! ("Taxi Zone Lookup Table", on its page "TLC Trip Record Data").

use std::fmt;
use std::io::Write;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arrow::datatypes::SchemaRef;
use flumen_core::{Error, Result};

mod columns;
mod draw;
pub mod folder;
mod layout;
mod month;
mod ordered;
#[cfg(test)]
mod tests;
mod text;
mod trips;

pub use month::{Month, parse_months};

/// Changes whenever the same arguments give other bytes, so that older files are not taken for current ones.
const GENERATION: u32 = 1;

/// The zone lookup, as it is written to `taxi_zone_lookup.csv`.
pub const ZONES_CSV: &str = include_str!("sample/taxi_zone_lookup.csv");
/// The name of the zone lookup's file.
pub const ZONES_FILE: &str = "taxi_zone_lookup.csv";
/// The most rows that one file may have.
pub const ROWS_PER_FILE: u64 = 1_000_000_000;
/// Rows a month where nobody says otherwise: about what yellow cabs drove in a month of 2021.
pub const DEFAULT_ROWS_PER_MONTH: u64 = 1_400_000;

/// A kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Yellow cabs.
    Yellow,
    /// Green cabs: about 8 % of the trips of the yellow ones.
    Green,
    /// For-hire vehicles.
    Fhv,
    /// The lookup of the 265 zones: one file, always CSV.
    Zones,
}

impl Kind {
    /// Every kind, in the order in which files are made.
    pub const ALL: [Kind; 4] = [Kind::Yellow, Kind::Green, Kind::Fhv, Kind::Zones];

    /// The name, as in options and file names.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Yellow => "yellow",
            Kind::Green => "green",
            Kind::Fhv => "fhv",
            Kind::Zones => "zones",
        }
    }

    /// Rows of a month of this kind when yellow has `rows`; never zero unless `rows` is.
    pub fn rows_of(self, rows: u64) -> u64 {
        match self {
            Kind::Yellow | Kind::Fhv => rows,
            Kind::Green => (rows * 8).div_ceil(100),
            Kind::Zones => ZONES_CSV.lines().count().saturating_sub(1) as u64,
        }
    }
}

impl FromStr for Kind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wanted = text.trim().to_ascii_lowercase();
        Self::ALL.into_iter().find(|kind| kind.name() == wanted).ok_or_else(|| {
            Error::invalid(format!("there is no kind of sample file '{text}'"))
                .hint("the kinds are yellow, green, fhv and zones, separated by commas")
                .did_you_mean(text, Self::ALL.map(Kind::name))
        })
    }
}

/// How files are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Parquet, packed with snappy as TLC does.
    Parquet,
    /// Plain CSV.
    Csv,
    /// CSV packed with gzip, as one member.
    CsvGz,
}

impl Format {
    /// The end of file names, and the option's value.
    pub fn extension(self) -> &'static str {
        match self {
            Format::Parquet => "parquet",
            Format::Csv => "csv",
            Format::CsvGz => "csv.gz",
        }
    }

    /// The media type that a server gives.
    pub fn media_type(self) -> &'static str {
        match self {
            Format::Parquet => "application/vnd.apache.parquet",
            Format::Csv => "text/csv; charset=utf-8",
            Format::CsvGz => "application/gzip",
        }
    }
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.trim().to_ascii_lowercase().as_str() {
            "parquet" => Ok(Format::Parquet),
            "csv" => Ok(Format::Csv),
            "csv.gz" | "csv.gzip" | "gz" => Ok(Format::CsvGz),
            _ => Err(Error::invalid(format!("sample files cannot be written as '{text}'"))
                .hint("the formats are parquet, csv and csv.gz")),
        }
    }
}

/// A data set of taxi trips: which files, and how big.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taxi {
    /// One file a month and kind.
    pub months: Vec<Month>,
    /// Rows of a yellow month; the other kinds follow from it ([`Kind::rows_of`]).
    pub rows_per_month: u64,
    /// How trips are written.
    pub format: Format,
    /// Which kinds.
    pub kinds: Vec<Kind>,
    /// Rows of each CSV file that have a field too few or too many. They count among the file's rows.
    pub bad_rows: u64,
    /// Another seed gives other trips.
    pub seed: u64,
}

impl Taxi {
    /// The files of this data set, month by month, the zones last.
    ///
    /// # Errors
    /// [`flumen_core::ErrorKind::Invalid`] when the arguments contradict each other or go beyond a limit.
    pub fn files(&self) -> Result<Vec<SampleFile>> {
        let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| self.kinds.contains(kind)).collect();
        if kinds.is_empty() {
            return Err(
                Error::invalid("no kind of sample file was asked for").hint("for example: --kinds yellow,zones")
            );
        }
        if self.rows_per_month > ROWS_PER_FILE {
            return Err(Error::invalid(format!("{} rows a month are too many", self.rows_per_month))
                .hint(format!("at most {ROWS_PER_FILE} rows fit into one file; spread them over more months")));
        }
        if self.bad_rows > 0 && self.format == Format::Parquet {
            return Err(Error::invalid("a Parquet file cannot hold bad rows")
                .hint("choose --format csv or csv.gz, or leave out --bad-rows"));
        }
        let mut files = Vec::new();
        for &month in &self.months {
            for &kind in kinds.iter().filter(|kind| **kind != Kind::Zones) {
                files.push(self.file(kind, month)?);
            }
        }
        if kinds.contains(&Kind::Zones) {
            files.push(SampleFile { content: Content::Zones });
        }
        if files.is_empty() {
            return Err(Error::invalid("no month was asked for").hint("for example: --months 2019-01..2019-06"));
        }
        Ok(files)
    }

    fn file(&self, kind: Kind, month: Month) -> Result<SampleFile> {
        let rows = kind.rows_of(self.rows_per_month);
        if self.bad_rows > rows {
            return Err(Error::invalid(format!(
                "{} bad rows do not fit into the {rows} rows of {} {month}",
                self.bad_rows,
                kind.name()
            ))
            .hint("ask for fewer bad rows, or for more rows a month"));
        }
        let trips = Trips { kind, month, rows, bad_rows: self.bad_rows, seed: self.seed };
        Ok(SampleFile { content: Content::Trips(trips, self.format) })
    }
}

/// The trips of one kind in one month.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trips {
    kind: Kind,
    month: Month,
    rows: u64,
    bad_rows: u64,
    seed: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Content {
    Trips(Trips, Format),
    Zones,
}

/// One file of a data set. It holds no data: [`SampleFile::write`] makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleFile {
    content: Content,
}

impl SampleFile {
    /// The name, such as `yellow_tripdata_2019-01.parquet`.
    pub fn name(&self) -> String {
        match &self.content {
            Content::Trips(trips, format) => {
                format!("{}_tripdata_{}.{}", trips.kind.name(), trips.month, format.extension())
            }
            Content::Zones => ZONES_FILE.to_owned(),
        }
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        match &self.content {
            Content::Trips(trips, _) => trips.kind,
            Content::Zones => Kind::Zones,
        }
    }

    /// Rows in it, bad ones included, the header not.
    pub fn rows(&self) -> u64 {
        match &self.content {
            Content::Trips(trips, _) => trips.rows,
            Content::Zones => Kind::Zones.rows_of(0),
        }
    }

    /// How it is written.
    pub fn format(&self) -> Format {
        match &self.content {
            Content::Trips(_, format) => *format,
            Content::Zones => Format::Csv,
        }
    }

    /// Its columns and their types, as in Parquet; none for the zones.
    pub fn schema(&self) -> Option<SchemaRef> {
        match &self.content {
            Content::Trips(trips, _) => Some(layout::schema(trips.kind, trips.month)),
            Content::Zones => None,
        }
    }

    /// Everything that its bytes depend on, as text: two files with the same key are the same.
    pub fn key(&self) -> String {
        match &self.content {
            Content::Trips(trips, format) => format!(
                "taxi/{GENERATION} {} {} {} rows={} bad={} seed={}",
                trips.kind.name(),
                trips.month,
                format.extension(),
                trips.rows,
                trips.bad_rows,
                trips.seed
            ),
            Content::Zones => format!("taxi/{GENERATION} zones"),
        }
    }

    /// Makes the file's bytes on `workers` threads and writes them to `out`, in order, telling `watch` as it goes.
    ///
    /// # Errors
    /// What writing to `out` says, with `place` before it; [`flumen_core::ErrorKind::Cancelled`] soon after
    /// [`Watch::cancel`].
    pub fn write<W: Write + Send>(&self, place: &str, out: W, workers: usize, watch: &Watch) -> Result<Written> {
        let mut out = Tally { out, bytes: 0, hash: blake3::Hasher::new() };
        let done = match &self.content {
            Content::Trips(trips, Format::Parquet) => columns::write(trips, &mut out, workers, watch),
            Content::Trips(trips, format) => text::write(trips, *format == Format::CsvGz, &mut out, workers, watch),
            Content::Zones => out.write_all(ZONES_CSV.as_bytes()).map_err(Failure::Io),
        };
        done.and_then(|()| out.flush().map_err(Failure::Io)).map_err(|failure| failure.at(place))?;
        if self.kind() == Kind::Zones {
            watch.add_rows(self.rows());
        }
        Ok(Written { rows: self.rows(), bytes: out.bytes, blake3: out.hash.finalize().to_hex().to_string() })
    }
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Rows, bad ones included.
    pub rows: u64,
    /// Bytes, as stored.
    pub bytes: u64,
    /// The BLAKE3 hash of the bytes, in hexadecimal.
    pub blake3: String,
}

/// How far the making of files has come, and the wish to stop it. Shared between threads.
#[derive(Debug, Default)]
pub struct Watch {
    rows: AtomicU64,
    cancelled: AtomicBool,
}

impl Watch {
    /// Rows made so far, over all files.
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// Asks for an end: whoever writes stops at the next block.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether an end was asked for.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    fn add_rows(&self, rows: u64) {
        self.rows.fetch_add(rows, Ordering::Relaxed);
    }
}

/// Why a file was not finished, before it is known which file it is.
#[derive(Debug)]
pub(crate) enum Failure {
    Io(std::io::Error),
    Ours(Error),
    Cancelled,
}

impl Failure {
    fn at(self, place: &str) -> Error {
        match self {
            Failure::Io(error) => Error::io(place, error),
            Failure::Ours(error) => error.within(place),
            Failure::Cancelled => Error::cancelled(),
        }
    }
}

impl From<parquet::errors::ParquetError> for Failure {
    fn from(error: parquet::errors::ParquetError) -> Self {
        match error {
            parquet::errors::ParquetError::External(inner) => match inner.downcast::<std::io::Error>() {
                Ok(io) => Failure::Io(*io),
                Err(other) => Failure::Ours(Error::internal(other.to_string()).caused_by(other)),
            },
            other => Failure::Ours(Error::internal(other.to_string()).caused_by(other)),
        }
    }
}

/// Counts and hashes what passes.
struct Tally<W> {
    out: W,
    bytes: u64,
    hash: blake3::Hasher,
}

impl<W: Write> Write for Tally<W> {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        let written = self.out.write(buffer)?;
        self.bytes += written as u64;
        self.hash.update(&buffer[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A number of rows as people write it: `1_400_000`, `1.4M`, `100k`, `2e6` is not one.
///
/// # Errors
/// [`flumen_core::ErrorKind::Invalid`] when it is not a whole number of rows.
pub fn parse_count(text: &str) -> Result<u64> {
    let wrong = || {
        Error::invalid(format!("'{text}' is not a number of rows")).hint("write it as 1400000, 1_400_000, 1.4M or 100k")
    };
    let clean: String = text.trim().chars().filter(|c| *c != '_' && *c != ',').collect();
    let (digits, unit) = match clean.chars().last() {
        Some('k' | 'K') => (&clean[..clean.len() - 1], 1_000_u64),
        Some('m' | 'M') => (&clean[..clean.len() - 1], 1_000_000),
        Some('g' | 'G' | 'b' | 'B') => (&clean[..clean.len() - 1], 1_000_000_000),
        _ => (clean.as_str(), 1),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() || !(whole.bytes().chain(fraction.bytes())).all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let scale = 10_u64.checked_pow(fraction.len() as u32).ok_or_else(wrong)?;
    let digits: u64 = format!("{whole}{fraction}").parse().map_err(|_| wrong())?;
    let scaled = digits.checked_mul(unit).ok_or_else(wrong)?;
    if scaled.is_multiple_of(scale) { Ok(scaled / scale) } else { Err(wrong()) }
}
