//! Text encodings: UTF-8, UTF-16 and Latin-1, found from a byte-order mark or said by the user, read as UTF-8.
//!
//! A file without a mark is UTF-8 until it is said otherwise, except where every other byte is zero: that is UTF-16.
//! Nothing is ever replaced in silence: a sequence that the encoding does not have is an error.

use std::io::{self, Cursor, Read};

use encoding_rs::{Decoder, DecoderResult, UTF_16BE, UTF_16LE, WINDOWS_1252};
use flumen_core::{Error, Result};

/// Bytes that are decoded at a time.
const BUFFER_BYTES: usize = 64 << 10;

/// How a file's bytes stand for text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// UTF-8; passed on as it is.
    Utf8,
    /// UTF-16, low byte first.
    Utf16Le,
    /// UTF-16, high byte first.
    Utf16Be,
    /// ISO 8859-1 as it is found in the wild: with the printable characters of Windows-1252 from 0x80 to 0x9F.
    Latin1,
}

impl Encoding {
    /// The encoding that `--encoding` names.
    ///
    /// Errors: `Invalid` for any other name.
    pub fn parse(name: &str) -> Result<Self> {
        match name.to_ascii_lowercase().replace('_', "-").as_str() {
            "utf-8" | "utf8" | "ascii" | "us-ascii" => Ok(Self::Utf8),
            "utf-16" | "utf16" | "utf-16le" | "utf16le" | "utf-16-le" => Ok(Self::Utf16Le),
            "utf-16be" | "utf16be" | "utf-16-be" => Ok(Self::Utf16Be),
            "latin-1" | "latin1" | "iso-8859-1" | "iso8859-1" | "windows-1252" | "cp1252" => Ok(Self::Latin1),
            _ => Err(Error::invalid(format!("'{name}' is no encoding that is known"))
                .hint("use utf-8, utf-16le, utf-16be or latin-1")),
        }
    }

    /// The encoding of a file that begins with `head`, and the length of its byte-order mark. A mark counts for more
    /// than what was `said`.
    pub fn find(head: &[u8], said: Option<&str>) -> Result<(Self, usize)> {
        let said = said.map(Self::parse).transpose()?;
        Ok(match head {
            [0xef, 0xbb, 0xbf, ..] => (Self::Utf8, 3),
            [0xff, 0xfe, ..] => (Self::Utf16Le, 2),
            [0xfe, 0xff, ..] => (Self::Utf16Be, 2),
            _ => (said.unwrap_or_else(|| Self::guess(head)), 0),
        })
    }

    fn guess(head: &[u8]) -> Self {
        let pairs = head.as_chunks::<2>().0;
        let zeros = |side: usize| pairs.iter().filter(|pair| pair[side] == 0 && pair[1 - side] != 0).count();
        let (high_first, low_first) = (zeros(0), zeros(1));
        // Text in the Latin alphabet, delimiters and digits have a zero in most pairs, always on the same side.
        if low_first > 2 * pairs.len() / 3 {
            Self::Utf16Le
        } else if high_first > 2 * pairs.len() / 3 {
            Self::Utf16Be
        } else {
            Self::Utf8
        }
    }

    /// What `reader` gives, as UTF-8, without the byte-order mark of `mark` bytes. (What should be UTF-8 is not checked.)
    ///
    /// Errors while reading carry a [`flumen_core::Error`] that names `address`.
    pub fn decode(self, mark: usize, address: &str, mut reader: Box<dyn Read + Send>) -> Result<Box<dyn Read + Send>> {
        let mut skipped = [0; 4];
        let skipped = &mut skipped[..mark];
        reader.read_exact(skipped).map_err(|error| crate::blob::error(address, error))?;
        let decoder = match self {
            Self::Utf8 => return Ok(reader),
            Self::Utf16Le => UTF_16LE.new_decoder_without_bom_handling(),
            Self::Utf16Be => UTF_16BE.new_decoder_without_bom_handling(),
            Self::Latin1 => WINDOWS_1252.new_decoder_without_bom_handling(),
        };
        Ok(Box::new(Decoding {
            reader,
            decoder,
            raw: vec![0; BUFFER_BYTES],
            text: Cursor::new(Vec::new()),
            address: address.to_owned(),
            encoding: self,
            before: mark as u64,
            done: false,
        }))
    }
}

struct Decoding {
    reader: Box<dyn Read + Send>,
    decoder: Decoder,
    raw: Vec<u8>,
    text: Cursor<Vec<u8>>,
    address: String,
    encoding: Encoding,
    /// Bytes decoded so far.
    before: u64,
    done: bool,
}

impl Read for Decoding {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.text.read(buffer)?;
            if read > 0 || self.done || buffer.is_empty() {
                return Ok(read);
            }
            let length = self.reader.read(&mut self.raw)?;
            self.done = length == 0;
            self.decode(length)?;
        }
    }
}

impl Decoding {
    fn decode(&mut self, length: usize) -> io::Result<()> {
        let raw = &self.raw[..length];
        let out = self.text.get_mut();
        // Three bytes of UTF-8 at most for two of UTF-16 or for one of Latin-1, and what the decoder holds back.
        out.resize(3 * length + 16, 0);
        let (result, read, written) = self.decoder.decode_to_utf8_without_replacement(raw, out, self.done);
        out.truncate(written);
        self.text.set_position(0);
        match result {
            DecoderResult::InputEmpty => {
                self.before += length as u64;
                Ok(())
            }
            _ => {
                let (address, at) = (&self.address, self.before + read as u64);
                let encoding = if self.encoding == Encoding::Latin1 { "Latin-1" } else { "UTF-16" };
                Err(io::Error::other(
                    Error::data(format!("{address}: not valid {encoding} near byte {at}"))
                        .hint("name the file's encoding with --encoding"),
                ))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], said: Option<&str>) -> String {
        let (encoding, mark) = Encoding::find(bytes, said).unwrap();
        let mut text = String::new();
        let mut reader = encoding.decode(mark, "x.csv", Box::new(Cursor::new(bytes.to_vec()))).unwrap();
        match reader.read_to_string(&mut text) {
            Ok(_) => text,
            Err(error) => error.to_string(),
        }
    }

    fn utf16(text: &str, order: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(order).collect()
    }

    #[test]
    fn every_encoding_becomes_utf_8() {
        let text = "name,größe\nMüller,1\n";
        let (little, big) = (utf16(text, u16::to_le_bytes), utf16(text, u16::to_be_bytes));
        assert_eq!(check(text.as_bytes(), None), text);
        assert_eq!(check(&[b"\xef\xbb\xbf", text.as_bytes()].concat(), None), text);
        assert_eq!(check(&little, None), text);
        assert_eq!(check(&big, None), text);
        assert_eq!(check(&[b"\xff\xfe", &little[..]].concat(), None), text);
        assert_eq!(check(&[b"\xfe\xff", &big[..]].concat(), None), text);
        assert_eq!(check(b"gr\xf6\xdfe,\x80", Some("latin-1")), "größe,€");
        let long = "a,ö,😀\n".repeat(50_000);
        assert_eq!(check(&utf16(&long, u16::to_le_bytes), None), long);
    }

    #[test]
    fn half_a_character_is_an_error() {
        let odd = [utf16("a,b\nc,d\n", u16::to_le_bytes), vec![b'x']].concat();
        assert_eq!(check(&odd, Some("utf-16le")), "x.csv: not valid UTF-16 near byte 17");
        assert!(Encoding::parse("ebcdic").is_err());
    }
}
