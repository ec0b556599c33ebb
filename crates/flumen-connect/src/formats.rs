//! File formats: a registry of those we read, and how a file's format is found.
//!
//! A format is found from the name and checked against the bytes. Each has its own file below, and one line in [`ALL`].

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use flumen_core::load::FileIdentity;
use flumen_core::read::{Input, ReadOptions};
use flumen_core::{Error, Result, limits};

use crate::archive;
use crate::blob::{self, Blob};
use crate::codec::{self, Codec};
use crate::spool::{self, Spool, SpoolFile};

pub mod avro;
pub mod csv;
mod empty;
pub mod excel;
mod input;
pub mod ipc;
pub mod json;
pub mod parquet;
mod plain;
mod serial;

/// Every format, in the order in which the bytes of a file are held against them.
static ALL: &[&dyn Format] = &[&parquet::Parquet, &ipc::Ipc, &avro::Avro, &excel::Excel, &csv::Csv, &json::Json];

/// A file format that can be read.
pub trait Format: Send + Sync {
    /// Its name: `csv`, `parquet`.
    fn name(&self) -> &'static str;

    /// The endings of its files' names, in lower case, without the dot.
    fn endings(&self) -> &'static [&'static str];

    /// Whether a file that begins with `head` (unpacked) is certainly of this format. Text formats are never certain.
    fn recognizes(&self, head: &[u8]) -> bool;

    /// Whether its files are told by their first bytes, so that one which [`Format::recognizes`] denies is none.
    fn is_binary(&self) -> bool {
        false
    }

    /// Whether packed files of this format are read through a decompressor (`x.csv.gz`). The others are unpacked to a
    /// temporary file first.
    fn streams(&self) -> bool;

    /// Opens a file: finds its columns from its beginning (and, for text, from samples of it).
    ///
    /// Errors: `Data` when the bytes are not of this format; the message names the file and the place.
    fn open(&self, blob: Arc<dyn Blob>, options: &ReadOptions) -> Result<Vec<Arc<dyn Input>>>;
}

/// The format called `name`, or with that ending.
pub fn named(name: &str) -> Result<&'static dyn Format> {
    let lower = name.to_ascii_lowercase();
    match ALL.iter().find(|format| format.name() == lower).or_else(|| with_ending(&lower)) {
        Some(format) => Ok(*format),
        None => {
            let names: Vec<&str> = ALL.iter().map(|format| format.name()).collect();
            Err(Error::invalid(format!("'{name}' is no format that can be read"))
                .hint(format!("use one of {}", names.join(", "))))
        }
    }
}

/// Whether a file called `name` looks like one that can be read.
pub fn knows(name: &str) -> bool {
    of_name(codec::split_name(name).0).is_some()
}

fn with_ending(ending: &str) -> Option<&'static &'static dyn Format> {
    ALL.iter().find(|format| format.endings().contains(&ending))
}

fn of_name(name: &str) -> Option<&'static dyn Format> {
    let (_, ending) = name.rsplit_once('.')?;
    with_ending(&ending.to_ascii_lowercase()).copied()
}

/// Opens the file `blob`, whatever its format: one input, or several for an archive. Blocks.
///
/// Errors: `Data` when the file is not what its name says, `Invalid` for options that do not fit.
pub fn open(blob: Arc<dyn Blob>, options: &ReadOptions, spool: &Arc<Spool>) -> Result<Vec<Arc<dyn Input>>> {
    let mut unpacked = codec::open(blob.as_ref(), options)?;
    let head =
        blob::read_head(unpacked.as_mut(), limits::SNIFF_BYTES).map_err(|error| blob::error(blob.address(), error))?;
    drop(unpacked);
    let packed = is_packed(blob.as_ref(), options)?;
    let name = if packed { codec::split_name(blob.name()).0 } else { blob.name() };
    if head.is_empty() {
        return Ok(input::FileInput::only(empty::Empty::new(blob)));
    }
    match find(blob.address(), name, &head, options)? {
        Kind::Archive => archive::open(&blob, options, spool),
        Kind::Format(format) if packed && !format.streams() => {
            format.open(Arc::new(Unpacked::new(blob, options, spool)?), options)
        }
        Kind::Format(format) => format.open(blob, options),
    }
}

/// What a file turned out to be.
enum Kind {
    Format(&'static dyn Format),
    Archive,
}

/// What a file called `name` (without the ending of its packing) that begins with `head` is.
fn find(address: &str, name: &str, head: &[u8], options: &ReadOptions) -> Result<Kind> {
    let seen = ALL.iter().find(|format| format.recognizes(head)).copied();
    let named = match &options.format {
        Some(name) => Some(named(name)?),
        None => of_name(name),
    };
    match (named, seen) {
        (_, None) if archive::recognizes(head) && options.format.as_deref().is_none_or(|name| name != "excel") => {
            Ok(Kind::Archive)
        }
        (Some(named), None) if named.is_binary() => {
            Err(Error::data(format!("{address} is not {}: it holds {}", article(named.name()), codec::describe(head)))
                .hint("check the address, or name the format with --format"))
        }
        (Some(named), Some(seen)) if options.format.is_some() && named.name() != seen.name() => {
            Err(Error::data(format!("{address} is not {}: it holds {}", article(named.name()), codec::describe(head)))
                .hint(format!("give --format {}, or leave it out", seen.name())))
        }
        (_, Some(seen)) => Ok(Kind::Format(seen)),
        (_, None) if options.format.is_none() && is_web_page(head) => {
            Err(Error::data(format!("{address} holds a web page, not a table"))
                .hint("check the address: a page to log in or to look at often stands where the file should be"))
        }
        (Some(named), None) => Ok(Kind::Format(named)),
        (None, None) => text(head).map(Kind::Format),
    }
}

fn is_web_page(head: &[u8]) -> bool {
    codec::describe(head) == "a web page"
}

/// The format of text that no name tells about.
fn text(head: &[u8]) -> Result<&'static dyn Format> {
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    named(if matches!(head.trim_ascii_start(), [b'{' | b'[', ..]) { "json" } else { "csv" })
}

fn article(format: &str) -> String {
    match format {
        "parquet" => "a Parquet file".to_owned(),
        "arrow" => "an Arrow file".to_owned(),
        "avro" => "an Avro file".to_owned(),
        "excel" => "an Excel file".to_owned(),
        other => format!("a file of format {other}"),
    }
}

fn is_packed(blob: &dyn Blob, options: &ReadOptions) -> Result<bool> {
    let mut packed = blob.open()?;
    let head = blob::read_head(packed.as_mut(), 64).map_err(|error| blob::error(blob.address(), error))?;
    Ok(codec::find(blob.address(), blob.name(), &head, options)? != Codec::None)
}

/// A packed file, unpacked: for formats that need to jump about in it.
struct Unpacked {
    packed: Arc<dyn Blob>,
    name: String,
    file: Arc<SpoolFile>,
}

impl Unpacked {
    fn new(packed: Arc<dyn Blob>, options: &ReadOptions, spool: &Arc<Spool>) -> Result<Self> {
        let file = spool.file(packed.address())?;
        spool::fill(&file, codec::open(packed.as_ref(), options)?)?;
        let name = codec::split_name(packed.name()).0.to_owned();
        Ok(Self { packed, name, file })
    }
}

impl Blob for Unpacked {
    fn address(&self) -> &str {
        self.packed.address()
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn size(&self) -> Option<u64> {
        self.packed.size()
    }

    fn open(&self) -> Result<Box<dyn Read + Send>> {
        Ok(Box::new(self.file.reader()))
    }

    fn local_file(&self) -> Result<PathBuf> {
        self.file.wait()
    }

    fn identity(&self) -> Result<FileIdentity> {
        self.packed.identity()
    }

    fn check_unchanged(&self) -> Result<()> {
        self.packed.check_unchanged()
    }
}
