//! Packing: gzip, zstd, bzip2 and xz, found from a file's name and checked against its bytes.
//!
//! [`open`] gives the unpacked bytes, one after the other. Memory is bounded by the codec's window, whatever the size of
//! the file. A stream that ends early or is damaged is an error that names the file: half a file is never taken for a
//! whole one.

use std::io::{self, BufReader, Cursor, Read};

use flumen_core::read::ReadOptions;
use flumen_core::{Error, Result};

use crate::blob::{self, Blob};

/// Bytes that are read at a time from what is packed.
const BUFFER_BYTES: usize = 256 << 10;
/// Bytes that are enough to know every packing by.
const MAGIC_BYTES: usize = 64;
/// The largest window of a zstd or xz file that we make room for, as a power of two: what `zstd --long` makes by default.
const WINDOW_LOG: u32 = 27;

/// How a file's bytes are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// Not at all.
    None,
    /// gzip, also of several members one after the other.
    Gzip,
    /// Zstandard.
    Zstd,
    /// bzip2, also of several streams.
    Bzip2,
    /// xz.
    Xz,
}

/// The endings of packed files' names, with their codecs.
const ENDINGS: &[(&str, Codec)] = &[
    ("gz", Codec::Gzip),
    ("gzip", Codec::Gzip),
    ("zst", Codec::Zstd),
    ("zstd", Codec::Zstd),
    ("bz2", Codec::Bzip2),
    ("xz", Codec::Xz),
];

impl Codec {
    /// The name that `--compression` takes.
    pub fn name(self) -> &'static str {
        match self {
            Codec::None => "none",
            Codec::Gzip => "gzip",
            Codec::Zstd => "zstd",
            Codec::Bzip2 => "bzip2",
            Codec::Xz => "xz",
        }
    }

    /// The codec that `--compression` names.
    ///
    /// Errors: `Invalid` for any other name.
    pub fn parse(name: &str) -> Result<Self> {
        let all = [Codec::None, Codec::Gzip, Codec::Zstd, Codec::Bzip2, Codec::Xz];
        let lower = name.to_ascii_lowercase();
        match all.into_iter().find(|codec| codec.name() == lower) {
            Some(codec) => Ok(codec),
            None => match Self::of_name(&format!(".{lower}")) {
                Codec::None => Err(Error::invalid(format!("'{name}' is no compression that is known"))
                    .hint("use gzip, zstd, bzip2, xz or none")),
                codec => Ok(codec),
            },
        }
    }

    /// The codec that a file's name promises.
    pub fn of_name(name: &str) -> Self {
        split_name(name).1
    }

    /// The codec of a file that begins with `head`.
    pub fn of_bytes(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, 0x08, ..] => Codec::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Codec::Zstd,
            // A skippable frame, as pzstd and seekable zstd files begin.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Codec::Zstd,
            // Text may begin with `BZh`; the digits of pi that begin the first block (or of its root, the end) settle it.
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, ..] => Codec::Bzip2,
            [b'B', b'Z', b'h', b'1'..=b'9', 0x17, 0x72, 0x45, 0x38, 0x50, 0x90, ..] => Codec::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0x00, ..] => Codec::Xz,
            _ => Codec::None,
        }
    }
}

/// A file's name without the ending of its packing, and the packing: `x.csv.gz` is `x.csv` and gzip.
pub fn split_name(name: &str) -> (&str, Codec) {
    let Some((stem, ending)) = name.rsplit_once('.') else { return (name, Codec::None) };
    match ENDINGS.iter().find(|(known, _)| known.eq_ignore_ascii_case(ending)) {
        Some((_, codec)) => (stem, *codec),
        None => (name, Codec::None),
    }
}

/// The codec of a file with `name` that begins with `head`.
///
/// Errors: `Data` when the name (or the option) promises a packing that the bytes are not.
pub fn find(address: &str, name: &str, head: &[u8], options: &ReadOptions) -> Result<Codec> {
    let seen = Codec::of_bytes(head);
    let promised = match &options.compression {
        Some(name) => Codec::parse(name)?,
        None => Codec::of_name(name),
    };
    if promised == Codec::None {
        return Ok(if options.compression.is_some() { Codec::None } else { seen });
    }
    if promised == seen || head.is_empty() {
        return Ok(seen);
    }
    let what = describe(head);
    Err(Error::data(format!("{address} is not {}: it holds {what}", promised.name())).hint(match seen {
        Codec::None => "give --compression none if the file is right, or download it again".to_owned(),
        other => format!("give --compression {}, or rename the file", other.name()),
    }))
}

/// What a file that begins with `head` holds, in words: `a Parquet file`, `plain text`.
pub fn describe(head: &[u8]) -> &'static str {
    match Codec::of_bytes(head) {
        Codec::Gzip => return "gzip data",
        Codec::Zstd => return "zstd data",
        Codec::Bzip2 => return "bzip2 data",
        Codec::Xz => return "xz data",
        Codec::None => {}
    }
    let text = head.trim_ascii_start();
    let begins = |with: &[u8]| text.len() >= with.len() && text[..with.len()].eq_ignore_ascii_case(with);
    match head {
        [] => "nothing",
        [b'P', b'A', b'R', b'1', ..] => "a Parquet file",
        [b'A', b'R', b'R', b'O', b'W', b'1', ..] => "an Arrow file",
        [b'O', b'b', b'j', 1, ..] => "an Avro file",
        [b'P', b'K', 3, 4, ..] => "a zip archive",
        [0xd0, 0xcf, 0x11, 0xe0, ..] => "an old Office file",
        [b'%', b'P', b'D', b'F', ..] => "a PDF",
        _ if begins(b"<!doctype html") || begins(b"<html") => "a web page",
        _ if begins(b"<?xml") => "XML",
        _ if begins(b"{") || begins(b"[") => "JSON",
        _ if !head.contains(&0) && std::str::from_utf8(&head[..head.len().saturating_sub(4)]).is_ok() => "plain text",
        _ => "bytes of another kind",
    }
}

/// Begins to read the unpacked bytes of `blob`.
///
/// Errors while reading are `std::io::Error`s that carry a [`flumen_core::Error`] which names the file.
pub fn open(blob: &dyn Blob, options: &ReadOptions) -> Result<Box<dyn Read + Send>> {
    let mut packed = blob.open()?;
    let head = blob::read_head(packed.as_mut(), MAGIC_BYTES).map_err(|error| blob::error(blob.address(), error))?;
    let codec = find(blob.address(), blob.name(), &head, options)?;
    let whole = Cursor::new(head).chain(packed);
    if codec == Codec::None {
        return Ok(Box::new(whole));
    }
    unpack(codec, blob.address(), Box::new(whole))
}

/// The unpacked bytes of `packed`, which belong to the file at `address`.
pub fn unpack(codec: Codec, address: &str, packed: Box<dyn Read + Send>) -> Result<Box<dyn Read + Send>> {
    let packed = BufReader::with_capacity(BUFFER_BYTES, packed);
    let reader: Box<dyn Read + Send> = match codec {
        Codec::None => return Ok(Box::new(packed)),
        Codec::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(packed)),
        Codec::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(packed)),
        Codec::Xz => Box::new(liblzma::bufread::XzDecoder::new_multi_decoder(packed)),
        Codec::Zstd => {
            let io = |error| Error::io(address, error);
            let mut decoder = zstd::stream::read::Decoder::with_buffer(packed).map_err(io)?;
            decoder.window_log_max(WINDOW_LOG).map_err(io)?;
            Box::new(decoder)
        }
    };
    Ok(Box::new(Unpacked { reader, codec, address: address.to_owned() }))
}

/// The bytes that come out of a decoder, with its errors put into words.
struct Unpacked {
    reader: Box<dyn Read + Send>,
    codec: Codec,
    address: String,
}

impl Read for Unpacked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer).map_err(|error| self.explain(error))
    }
}

impl Unpacked {
    fn explain(&self, error: io::Error) -> io::Error {
        // What came from below (a server that went away) has its own words already.
        if error.get_ref().is_some_and(|inner| inner.is::<Error>()) {
            return error;
        }
        let codec = self.codec.name();
        let message = match error.kind() {
            io::ErrorKind::Interrupted | io::ErrorKind::PermissionDenied => return error,
            io::ErrorKind::UnexpectedEof => format!("{} ends early: the {codec} stream is cut short", self.address),
            _ => format!("{} is damaged: the {codec} stream cannot be unpacked ({error})", self.address),
        };
        io::Error::other(Error::data(message).hint("download or copy the file again").caused_by(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob::Memory;
    use std::io::Write;

    const TEXT: &[u8] = b"a,b\n1,2\n3,4\n";

    fn pack(codec: Codec, text: &[u8]) -> Vec<u8> {
        let mut packed = Vec::new();
        match codec {
            Codec::None => packed.extend_from_slice(text),
            Codec::Gzip => {
                flate2::write::GzEncoder::new(&mut packed, flate2::Compression::fast()).write_all(text).unwrap()
            }
            Codec::Bzip2 => {
                bzip2::write::BzEncoder::new(&mut packed, bzip2::Compression::fast()).write_all(text).unwrap()
            }
            Codec::Xz => liblzma::write::XzEncoder::new(&mut packed, 1).write_all(text).unwrap(),
            Codec::Zstd => packed = zstd::encode_all(text, 1).unwrap(),
        }
        packed
    }

    fn check(name: &str, bytes: &[u8], options: &ReadOptions) -> String {
        let mut text = String::new();
        let read = open(&Memory::new(name, bytes.to_vec()), options)
            .and_then(|mut reader| reader.read_to_string(&mut text).map_err(|error| blob::error(name, error)));
        match read {
            Ok(_) => text,
            Err(error) => format!("{error} [{}]", error.remedy().unwrap_or_default()),
        }
    }

    #[test]
    fn packed_files_are_unpacked_whatever_they_are_called() {
        let plain = ReadOptions::default();
        for codec in [Codec::None, Codec::Gzip, Codec::Zstd, Codec::Bzip2, Codec::Xz] {
            let packed = pack(codec, TEXT);
            assert_eq!(check("x.csv", &packed, &plain).as_bytes(), TEXT, "{codec:?}");
            let twice = [packed.clone(), packed].concat();
            assert_eq!(check("x", &twice, &plain).len(), 2 * TEXT.len(), "{codec:?}");
        }
    }

    #[test]
    fn a_stream_that_is_cut_short_is_an_error_at_every_byte() {
        for codec in [Codec::Gzip, Codec::Zstd, Codec::Bzip2, Codec::Xz] {
            let packed = pack(codec, TEXT);
            let name = format!("x.csv.{}", ENDINGS.iter().find(|(_, c)| *c == codec).unwrap().0);
            for end in 14..packed.len() {
                let answer = check(&name, &packed[..end], &ReadOptions::default());
                let expect = format!(
                    "{name} ends early: the {} stream is cut short [download or copy the file again]",
                    codec.name()
                );
                assert_eq!(answer, expect, "{end} of {}", packed.len());
            }
        }
    }

    #[test]
    fn a_damaged_stream_is_an_error() {
        let mut packed = pack(Codec::Gzip, &TEXT.repeat(100));
        let middle = packed.len() - 6;
        packed[middle] ^= 0xff;
        let answer = check("x.csv.gz", &packed, &ReadOptions::default());
        assert!(answer.starts_with("x.csv.gz is damaged: the gzip stream cannot be unpacked"), "{answer}");
    }

    #[test]
    fn a_name_that_lies_is_an_error_that_says_what_is_there() {
        let plain = ReadOptions::default();
        assert_eq!(
            check("x.csv.gz", TEXT, &plain),
            "x.csv.gz is not gzip: it holds plain text [give --compression none if the file is right, or download it again]"
        );
        assert_eq!(
            check("x.csv.gz", b"<!DOCTYPE html><html>", &plain),
            "x.csv.gz is not gzip: it holds a web page [give --compression none if the file is right, or download it again]"
        );
        assert_eq!(
            check("x.csv.gz", &pack(Codec::Zstd, TEXT), &plain),
            "x.csv.gz is not gzip: it holds zstd data [give --compression zstd, or rename the file]"
        );
        let none = ReadOptions { compression: Some("none".into()), ..plain.clone() };
        assert_eq!(check("x.csv.gz", TEXT, &none).as_bytes(), TEXT);
        let wrong = ReadOptions { compression: Some("rar".into()), ..plain };
        assert!(check("x.csv", TEXT, &wrong).starts_with("'rar' is no compression"));
    }
}
