//! Zip archives: every table in one is an input of its own, known as `x.zip#entry.csv`.
//!
//! Entries are read in place, as a stream, and checked against the checksum that the archive has of them.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use flumen_core::load::FileIdentity;
use flumen_core::read::{Input, ReadOptions};
use flumen_core::{Error, Result};
use zip::{CompressionMethod, ZipArchive};

use crate::blob::Blob;
use crate::formats;
use crate::spool::{self, Spool, SpoolFile};

/// Bytes read at a time.
const BUFFER_BYTES: usize = 256 << 10;

/// Whether a file that begins with `head` is an archive (also one without entries).
pub fn recognizes(head: &[u8]) -> bool {
    head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06")
}

/// Opens the tables in the archive `blob`, in the order in which they stand there.
pub fn open(blob: &Arc<dyn Blob>, options: &ReadOptions, spool: &Arc<Spool>) -> Result<Vec<Arc<dyn Input>>> {
    let entries = entries(blob, spool)?;
    let known: Vec<&Arc<Entry>> = entries.iter().filter(|entry| formats::knows(&entry.name)).collect();
    let chosen = match (known.is_empty(), entries.as_slice()) {
        (true, [only]) => vec![only],
        (true, many) if options.format.is_some() => many.iter().collect(),
        _ => known,
    };
    if chosen.is_empty() {
        let names: Vec<String> = entries.iter().map(|entry| entry.name.clone()).collect();
        return Err(Error::data(format!("{} holds no table", blob.address()))
            .hint(crate::address::holds(blob.name().as_ref(), &names)));
    }
    // The options speak about the tables, not about the archive; its entries say themselves how they are packed.
    let within = ReadOptions { compression: None, ..options.clone() };
    let mut inputs = Vec::new();
    for entry in chosen {
        if entry.is_encrypted {
            return Err(Error::invalid(format!("{} is encrypted", entry.address)).hint("unzip the archive first"));
        }
        let blob: Arc<dyn Blob> = Arc::clone(entry) as Arc<dyn Blob>;
        inputs.extend(formats::open(blob, &within, spool)?);
    }
    Ok(inputs)
}

fn entries(blob: &Arc<dyn Blob>, spool: &Arc<Spool>) -> Result<Vec<Arc<Entry>>> {
    let path = blob.local_file()?;
    let broken = |error: zip::result::ZipError| {
        Error::data(format!("{} is no whole zip archive: {error}", blob.address()))
            .hint("download or copy the file again")
            .caused_by(error)
    };
    let file = File::open(&path).map_err(|error| Error::io(blob.address(), error))?;
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(broken)?;
    let mut entries = Vec::new();
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(broken)?;
        let name = entry.name().map_err(broken)?.into_owned();
        let file_name = name.rsplit('/').next().unwrap_or(&name).to_owned();
        // What macOS adds is no part of what was packed.
        if entry.is_dir() || name.starts_with("__MACOSX/") || file_name.starts_with('.') {
            continue;
        }
        entries.push(Arc::new(Entry {
            address: format!("{}#{name}", blob.address()),
            name: file_name,
            archive: Arc::clone(blob),
            path: path.clone(),
            start: entry.data_start().unwrap_or(0),
            packed: entry.compressed_size(),
            size: entry.size(),
            method: entry.compression(),
            is_encrypted: entry.encrypted(),
            crc32: entry.crc32(),
            spool: Arc::clone(spool),
            unpacked: Mutex::new(None),
        }));
    }
    Ok(entries)
}

/// One file in an archive.
struct Entry {
    address: String,
    name: String,
    archive: Arc<dyn Blob>,
    path: PathBuf,
    /// Where its bytes begin in the archive, and how many there are.
    start: u64,
    packed: u64,
    size: u64,
    method: CompressionMethod,
    is_encrypted: bool,
    crc32: u32,
    spool: Arc<Spool>,
    unpacked: Mutex<Option<Arc<SpoolFile>>>,
}

impl Blob for Entry {
    fn address(&self) -> &str {
        &self.address
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn size(&self) -> Option<u64> {
        Some(self.size)
    }

    fn open(&self) -> Result<Box<dyn Read + Send>> {
        let failed = |error| Error::io(&self.address, error);
        let mut file = File::open(&self.path).map_err(failed)?;
        file.seek(SeekFrom::Start(self.start)).map_err(failed)?;
        let packed = BufReader::with_capacity(BUFFER_BYTES, file.take(self.packed));
        let reader: Box<dyn Read + Send> = match self.method {
            CompressionMethod::Stored => Box::new(packed),
            CompressionMethod::Deflated => Box::new(flate2::bufread::DeflateDecoder::new(packed)),
            CompressionMethod::ZSTD => Box::new(zstd::stream::read::Decoder::with_buffer(packed).map_err(failed)?),
            other => {
                return Err(Error::invalid(format!("{} is packed with {other}, which is not known", self.address))
                    .hint("unzip the archive first"));
            }
        };
        Ok(Box::new(Checked {
            reader,
            address: self.address.clone(),
            seen: flate2::Crc::new(),
            crc32: self.crc32,
            size: self.size,
        }))
    }

    fn local_file(&self) -> Result<PathBuf> {
        let mut unpacked = self.unpacked.lock().unwrap_or_else(PoisonError::into_inner);
        if unpacked.is_none() {
            let file = self.spool.file(&self.address)?;
            spool::fill(&file, self.open()?)?;
            *unpacked = Some(file);
        }
        unpacked.as_ref().map_or_else(|| Err(Error::internal("an entry was not unpacked")), |file| file.wait())
    }

    fn identity(&self) -> Result<FileIdentity> {
        // A checksum of 32 bits is too weak to tell versions apart: the entry is as old as its archive.
        let archive = self.archive.identity()?;
        let entry = self.address.strip_prefix(self.archive.address()).unwrap_or_default();
        Ok(FileIdentity { address: format!("{}{entry}", archive.address), validator: archive.validator })
    }

    fn check_unchanged(&self) -> Result<()> {
        self.archive.check_unchanged()
    }
}

/// An entry's bytes, held against its checksum at the end.
struct Checked {
    reader: Box<dyn Read + Send>,
    address: String,
    seen: flate2::Crc,
    crc32: u32,
    size: u64,
}

impl Read for Checked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let damaged = |why: String| {
            let error = Error::data(format!("{} is damaged: {why}", self.address));
            io::Error::other(error.hint("download or copy the archive again"))
        };
        let bytes = match self.reader.read(buffer) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(damaged(error.to_string())),
            other => other?,
        };
        self.seen.update(&buffer[..bytes]);
        // The checksum counts bytes modulo 2^32, which is as good as any digest of the length.
        let whole = self.seen.sum() == self.crc32 && self.seen.amount() == self.size as u32;
        if bytes == 0 && !buffer.is_empty() && !whole {
            return Err(damaged("its checksum is not the one that the archive has".to_owned()));
        }
        Ok(bytes)
    }
}
