//! Cuts a stream of JSON text into records, and those into blocks. It finds where records end, not what is in them.

use std::io::Read;

use flumen_core::{Error, Result, limits};

use super::scan::{self, skip_space};
use crate::blob;

/// How records stand in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// One a line.
    Lines,
    /// In one array.
    Array,
    /// One after the other, over several lines each.
    Free,
}

impl Layout {
    /// The layout of a file that begins with `head`. `lines`: its name says that there is one record a line.
    pub(super) fn of(head: &[u8], lines: bool) -> Self {
        let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
        let begin = skip_space(text, 0);
        if lines {
            return Layout::Lines;
        }
        if text.get(begin) == Some(&b'[') {
            return Layout::Array;
        }
        // One record a line shows in the first lines, even if one of them is broken.
        let is_record = |line: &[u8]| {
            let line = line.trim_ascii();
            line.first() == Some(&b'{') && scan::value(line, 0, 0).is_ok_and(|end| end == line.len())
        };
        let mut lines = text[begin..].split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
        if lines.by_ref().take(3).any(is_record) { Layout::Lines } else { Layout::Free }
    }
}

/// A record's place in its block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) start: usize,
    pub(super) end: usize,
    /// The line in the file on which it begins, from 1.
    pub(super) line: u64,
}

/// Some records, one after the other.
pub(super) struct Block {
    pub(super) text: Vec<u8>,
    pub(super) records: Vec<Place>,
    /// The number of the first of them, from 1.
    pub(super) first_row: u64,
}

/// The records of one file.
pub(super) struct Records {
    reader: Box<dyn Read + Send>,
    layout: Layout,
    address: String,
    /// Text that has been read and not handed out.
    buffer: Vec<u8>,
    /// Whether the reader has come to its end.
    ended: bool,
    /// Whether the array has been opened, and closed.
    opened: bool,
    closed: bool,
    next_row: u64,
    /// The line on which the buffer begins.
    line: u64,
}

impl Records {
    pub(super) fn new(reader: Box<dyn Read + Send>, layout: Layout, address: &str) -> Self {
        let address = address.to_owned();
        let buffer = Vec::new();
        Self { reader, layout, address, buffer, ended: false, opened: false, closed: false, next_row: 1, line: 1 }
    }

    /// The next block, or `None` at the end.
    ///
    /// Errors: `Data` for a file that ends within its array or a record, and for a record that is too long.
    pub(super) fn next(&mut self) -> Result<Option<Block>> {
        let mut wanted = limits::TEXT_BLOCK_BYTES;
        loop {
            self.fill(wanted)?;
            let (records, taken) = match self.layout {
                Layout::Lines => self.lines(),
                Layout::Array | Layout::Free => self.values()?,
            };
            if records.is_empty() && !self.ended {
                if self.buffer.len() - taken > limits::JSON_VALUE_BYTES {
                    let error = format!(
                        "{}: the record on line {} is longer than {} MB",
                        self.address,
                        self.line,
                        limits::JSON_VALUE_BYTES >> 20
                    );
                    return Err(Error::data(error).hint("check that its quotes and brackets are closed"));
                }
                self.drop_front(taken);
                wanted = (2 * self.buffer.len()).max(limits::TEXT_BLOCK_BYTES);
                continue;
            }
            if records.is_empty() {
                return Ok(None);
            }
            let first_row = self.next_row;
            self.next_row += records.len() as u64;
            let rest = self.buffer.split_off(taken);
            let text = std::mem::replace(&mut self.buffer, rest);
            self.line += memchr::memchr_iter(b'\n', &text).count() as u64;
            return Ok(Some(Block { text, records, first_row }));
        }
    }

    fn drop_front(&mut self, bytes: usize) {
        self.line += memchr::memchr_iter(b'\n', &self.buffer[..bytes]).count() as u64;
        self.buffer.drain(..bytes);
    }

    /// Reads until there are `bytes` bytes, or the end has come.
    fn fill(&mut self, bytes: usize) -> Result<()> {
        let missing = bytes.saturating_sub(self.buffer.len());
        if self.ended || missing == 0 {
            return Ok(());
        }
        let begin = self.next_row == 1 && self.buffer.is_empty();
        let read = self.reader.by_ref().take(missing as u64).read_to_end(&mut self.buffer);
        let read = read.map_err(|error| blob::error(&self.address, error))?;
        self.ended = read < missing;
        if begin && self.buffer.starts_with(b"\xef\xbb\xbf") {
            self.buffer.drain(..3);
        }
        Ok(())
    }

    /// The whole lines in the buffer that are not blank, and how many bytes they take.
    fn lines(&self) -> (Vec<Place>, usize) {
        let taken = match memchr::memrchr(b'\n', &self.buffer) {
            _ if self.ended => self.buffer.len(),
            Some(last) => last + 1,
            None => 0,
        };
        let mut records = Vec::new();
        let (mut start, mut line) = (0, self.line);
        while start < taken {
            let end = memchr::memchr(b'\n', &self.buffer[start..taken]).map_or(taken, |at| start + at);
            if !self.buffer[start..end].trim_ascii().is_empty() {
                records.push(Place { start, end, line });
            }
            (start, line) = (end + 1, line + 1);
        }
        (records, taken)
    }

    /// The whole values in the buffer, and how many bytes they take.
    fn values(&mut self) -> Result<(Vec<Place>, usize)> {
        let mut records = Vec::new();
        let (mut at, mut counted, mut line) = (0, 0, self.line);
        loop {
            let mut next = skip_space(&self.buffer, at);
            match self.buffer.get(next) {
                Some(_) if self.closed => {
                    return Err(Error::data(format!("{}: there is more text after the array", self.address))
                        .hint("keep one array a file, or write one record a line"));
                }
                Some(b'[') if self.layout == Layout::Array && !self.opened => {
                    self.opened = true;
                    at = next + 1;
                    continue;
                }
                Some(b']') if self.layout == Layout::Array => {
                    self.closed = true;
                    at = next + 1;
                    continue;
                }
                Some(b',') => {
                    at = next + 1;
                    continue;
                }
                Some(_) => {}
                None if self.ended && self.layout == Layout::Array && !self.closed => return Err(self.ends_early()),
                None => return Ok((records, next)),
            }
            let Some(end) = end_of(&self.buffer[next..], self.ended).map(|length| next + length) else {
                return if self.ended { Err(self.ends_early()) } else { Ok((records, at)) };
            };
            line += memchr::memchr_iter(b'\n', &self.buffer[counted..next]).count() as u64;
            counted = next;
            records.push(Place { start: next, end, line });
            next = end;
            at = next;
        }
    }

    fn ends_early(&self) -> Error {
        Error::data(format!("{} ends early: its last value or its array is not closed", self.address))
            .hint("download or copy the file again")
    }
}

/// The length of the value that `text` begins with, by brackets and quotes alone; `None` if it does not end here.
fn end_of(text: &[u8], ended: bool) -> Option<usize> {
    let (mut depth, mut at) = (0usize, 0);
    while at < text.len() {
        match text[at] {
            b'"' => {
                at += 1;
                loop {
                    at += memchr::memchr2(b'"', b'\\', text.get(at..)?)?;
                    if text[at] == b'"' {
                        break;
                    }
                    at += 2;
                }
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            b',' | b' ' | b'\t' | b'\n' | b'\r' if depth == 0 => return Some(at),
            _ if depth == 0 && matches!(text.get(at + 1), Some(b']' | b'[' | b'{' | b'"')) => return Some(at + 1),
            _ => {}
        }
        at += 1;
    }
    (ended && depth == 0).then_some(at)
}
