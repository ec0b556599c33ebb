//! Finds the structure of a text: where its fields and records end.
//!
//! What a quote means, everywhere in this reader: it opens a quoted field only where it is the first byte of the field;
//! inside, two of them stand for one, and a single one closes. What follows until the delimiter belongs to the field,
//! and quotes in it are plain bytes. A newline outside quotes ends a record.
//!
//! Two scanners agree on that. The fast one looks at 64 bytes at once and takes the parity of quotes for their meaning,
//! which is right as long as every quote that opens stands where a field begins; it notices where that is not so
//! ([`Survey::messy`]), and then the slow one, byte by byte, is used for the block.

use memchr::{memchr, memchr2};

/// The two or three bytes that make the structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Marks {
    pub delimiter: u8,
    pub quote: Option<u8>,
}

/// Sixty-four bytes, as bit sets.
struct Group {
    ends: u64,
    newlines: u64,
    quotes: u64,
    returns: u64,
}

const GROUP: usize = 64;

/// The bits of `bytes` that equal `needle`.
#[inline(always)]
fn equal(bytes: &[u8; GROUP], needle: u8) -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: SSE2 is part of every x86-64 processor.
        #[allow(unsafe_code, reason = "there is no other way to tell the compiler that SSE2 is always there")]
        unsafe {
            equal_sse2(bytes, needle)
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        equal_portable(bytes, needle)
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "sse2")]
fn equal_sse2(bytes: &[u8; GROUP], needle: u8) -> u64 {
    use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_movemask_epi8, _mm_set_epi64x, _mm_set1_epi8};
    let needles = _mm_set1_epi8(needle.cast_signed());
    let (words, _) = bytes.as_chunks::<8>();
    let mut bits = 0u64;
    for (index, pair) in words.as_chunks::<2>().0.iter().enumerate() {
        let lane = _mm_set_epi64x(i64::from_le_bytes(pair[1]), i64::from_le_bytes(pair[0]));
        let found = _mm_movemask_epi8(_mm_cmpeq_epi8(lane, needles)).cast_unsigned();
        bits |= u64::from(found) << (16 * index);
    }
    bits
}

/// The same, eight bytes at a time, for other processors.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn equal_portable(bytes: &[u8; GROUP], needle: u8) -> u64 {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let mut bits = 0u64;
    for (index, word) in bytes.as_chunks::<8>().0.iter().enumerate() {
        let word = u64::from_le_bytes(*word) ^ (u64::from(needle) * 0x0101_0101_0101_0101);
        // The top bit of every byte that is zero; no carry passes from byte to byte.
        let zeros = !(((word & LOW) + LOW) | word | LOW);
        // The eight top bits, gathered into one byte.
        bits |= ((zeros >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) << (8 * index);
    }
    bits
}

/// Bit i is the parity of the bits 0 to i.
#[inline(always)]
fn parity(mut bits: u64) -> u64 {
    for shift in [1, 2, 4, 8, 16, 32] {
        bits ^= bits << shift;
    }
    bits
}

/// Calls `each` with the 64 bytes at every multiple of 64 from `from` on, and how many of them are text (the last ones may
/// be fewer). Stops when `each` says so; returns where it stopped.
#[inline(always)]
fn groups(text: &[u8], from: usize, mut each: impl FnMut(usize, &[u8; GROUP], u64) -> bool) -> usize {
    let (whole, rest) = text[from..].as_chunks::<GROUP>();
    let mut at = from;
    for bytes in whole {
        let more = each(at, bytes, u64::MAX);
        at += GROUP;
        if !more {
            return at;
        }
    }
    if !rest.is_empty() {
        let mut bytes = [0u8; GROUP];
        bytes[..rest.len()].copy_from_slice(rest);
        each(at, &bytes, (1 << rest.len()) - 1);
    }
    text.len()
}

/// What the fast scanner carries from one group to the next.
#[derive(Debug, Clone, Copy)]
struct Quoting {
    /// All ones inside quotes.
    inside: u64,
    /// 1 if a quote may stand in the next byte without a mess.
    may_open: u64,
}

impl Quoting {
    const START: Self = Self { inside: 0, may_open: 1 };

    /// Takes what is inside quotes out of the group. False: a quote opens where no field begins.
    #[inline(always)]
    fn pass(&mut self, group: &mut Group) -> bool {
        let inside = parity(group.quotes) ^ self.inside;
        group.ends &= !inside;
        group.newlines &= !inside;
        let opening = group.quotes & inside;
        let closing = group.quotes & !inside;
        let before = group.ends | closing;
        let clean = opening & !(before << 1 | self.may_open) == 0;
        self.may_open = before >> 63;
        self.inside = ((inside.cast_signed()) >> 63).cast_unsigned();
        clean
    }
}

impl Marks {
    #[inline(always)]
    fn group(self, bytes: &[u8; GROUP], valid: u64) -> Group {
        let newlines = equal(bytes, b'\n') & valid;
        Group { ends: (equal(bytes, self.delimiter) & valid) | newlines, newlines, quotes: 0, returns: 0 }
    }
}

/// What a look over a piece of text found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Survey {
    /// Bytes up to and with the last newline outside quotes; 0 if there is none.
    pub whole: usize,
    /// Lines in those.
    pub lines: u64,
    /// Records in those; blank lines are none.
    pub records: u64,
    /// Whether there are quotes.
    pub quoted: bool,
    /// Whether a quote stands where only the slow scanner knows its meaning.
    pub messy: bool,
}

impl Marks {
    /// Looks `text` over, which begins with a record.
    pub fn survey(self, text: &[u8]) -> Survey {
        let mut survey = match self.quote {
            Some(quote) if memchr(quote, text).is_some() => self.survey_quoted(text, quote),
            _ => self.survey_plain(text),
        };
        if survey.messy {
            survey = self.survey_slowly(text);
        }
        survey.lines = memchr::memchr_iter(b'\n', &text[..survey.whole]).count() as u64;
        survey
    }

    fn survey_plain(self, text: &[u8]) -> Survey {
        let whole = memchr::memrchr(b'\n', text).map_or(0, |at| at + 1);
        let mut count = Count::default();
        groups(&text[..whole], 0, |_, bytes, valid| {
            let newlines = equal(bytes, b'\n') & valid;
            count.add(newlines, equal(bytes, b'\r'));
            true
        });
        Survey { whole, lines: 0, records: count.records, quoted: false, messy: false }
    }

    fn survey_quoted(self, text: &[u8], quote: u8) -> Survey {
        let (mut count, mut quoting) = (Count::default(), Quoting::START);
        let (mut whole, mut messy) = (0, false);
        groups(text, 0, |at, bytes, valid| {
            let mut group = self.group(bytes, valid);
            group.quotes = equal(bytes, quote) & valid;
            group.returns = equal(bytes, b'\r');
            messy |= !quoting.pass(&mut group);
            count.add(group.newlines, group.returns);
            if group.newlines != 0 {
                whole = at + GROUP - group.newlines.leading_zeros() as usize;
            }
            !messy
        });
        Survey { whole, lines: 0, records: count.records, quoted: true, messy }
    }

    fn survey_slowly(self, text: &[u8]) -> Survey {
        let mut survey = Survey { whole: 0, lines: 0, records: 0, quoted: true, messy: true };
        self.walk(text, |at, newline| {
            if newline {
                survey.records += u64::from(!is_blank(&text[survey.whole..at]));
                survey.whole = at + 1;
            }
            true
        });
        survey
    }

    /// The slow scanner: calls `end` with the place of every delimiter and newline outside quotes, and whether it is a
    /// newline, while it says true. Returns the place of the quote that is open at the end of the text, if one is.
    pub fn walk(self, text: &[u8], mut end: impl FnMut(usize, bool) -> bool) -> Option<usize> {
        let mut at = 0;
        while at < text.len() {
            if self.quote == Some(text[at]) {
                let opened = at;
                at += 1;
                loop {
                    let Some(next) = memchr(text[opened], &text[at..]) else { return Some(opened) };
                    at += next + 1;
                    if text.get(at) != Some(&text[opened]) {
                        break;
                    }
                    at += 1;
                }
            }
            let next = memchr2(self.delimiter, b'\n', &text[at..])?;
            at += next;
            if !end(at, text[at] == b'\n') {
                return None;
            }
            at += 1;
        }
        None
    }
}

/// Whether a line with these bytes (without its newline) is blank.
pub(super) fn is_blank(line: &[u8]) -> bool {
    matches!(line, b"" | b"\r")
}

/// Counts the records that are not blank lines.
struct Count {
    records: u64,
    /// 1 if the next byte begins a record.
    begins: u64,
    /// 1 if the next byte follows a `\r` that began a record.
    after_return: u64,
}

impl Default for Count {
    fn default() -> Self {
        Self { records: 0, begins: 1, after_return: 0 }
    }
}

impl Count {
    #[inline(always)]
    fn add(&mut self, newlines: u64, returns: u64) {
        let begins = newlines << 1 | self.begins;
        let lone_returns = returns & begins;
        let blank = newlines & (begins | lone_returns << 1 | self.after_return);
        self.records += u64::from((newlines & !blank).count_ones());
        self.begins = newlines >> 63;
        self.after_return = lone_returns >> 63;
    }
}

/// Walks over a block of whole records and gathers where its fields end, a chunk at a time.
pub(super) struct Scanner<'a> {
    text: &'a [u8],
    marks: Marks,
    quoted: bool,
    at: usize,
    quoting: Quoting,
    ends: Vec<u32>,
    filled: usize,
    /// For every record in `ends`, how many of them lie up to its own end.
    records: Vec<u32>,
    target: usize,
}

/// Field ends gathered before they are looked at: with the text between them, they fit a processor's nearest cache.
const CHUNK: usize = 2048;

impl<'a> Scanner<'a> {
    /// A scanner of `text`, which begins with a record and ends with a newline.
    pub fn new(text: &'a [u8], marks: Marks, survey: &Survey) -> Self {
        let mut scanner = Self {
            text,
            marks,
            quoted: survey.quoted,
            at: 0,
            quoting: Quoting::START,
            ends: Vec::new(),
            filled: 0,
            records: Vec::new(),
            target: CHUNK,
        };
        if survey.messy {
            scanner.scan_slowly();
        }
        scanner
    }

    fn scan_slowly(&mut self) {
        let (ends, records) = (&mut self.ends, &mut self.records);
        let open = self.marks.walk(self.text, |at, newline| {
            ends.push(at as u32);
            if newline {
                records.push(ends.len() as u32);
            }
            true
        });
        if open.is_some() {
            // A quote is open at the end of the file: the record ends there all the same.
            ends.push(self.text.len() as u32 - 1);
            records.push(ends.len() as u32);
        }
        self.filled = self.ends.len();
        self.at = self.text.len();
    }

    /// The next chunk: the ends of fields, and for each record how many of them lie up to its own end. `None` at the
    /// end of the text.
    pub fn next_chunk(&mut self) -> Option<(&[u32], &[u32])> {
        self.fill();
        if self.records.is_empty() { None } else { Some((&self.ends[..self.filled], &self.records)) }
    }

    /// Forgets the records of the last chunk.
    pub fn consume(&mut self) {
        let used = self.records.last().map_or(0, |&used| used as usize);
        self.ends.copy_within(used..self.filled, 0);
        self.filled -= used;
        self.records.clear();
    }

    fn fill(&mut self) {
        while self.at < self.text.len() && (self.filled < CHUNK || self.records.is_empty()) {
            self.target = self.filled + CHUNK;
            self.ends.resize(self.ends.len().max(self.target + GROUP), 0);
            match self.marks.quote.filter(|_| self.quoted) {
                Some(quote) => {
                    let (marks, mut quoting) = (self.marks, self.quoting);
                    self.gather(|bytes, valid| {
                        let mut group = marks.group(bytes, valid);
                        group.quotes = equal(bytes, quote) & valid;
                        quoting.pass(&mut group);
                        (group.ends, group.newlines)
                    });
                    self.quoting = quoting;
                }
                None => {
                    let marks = self.marks;
                    self.gather(|bytes, valid| {
                        let group = marks.group(bytes, valid);
                        (group.ends, group.newlines)
                    });
                }
            }
        }
    }

    #[inline(always)]
    fn gather(&mut self, mut masks: impl FnMut(&[u8; GROUP], u64) -> (u64, u64)) {
        let (ends, records, target) = (&mut self.ends, &mut self.records, self.target);
        let mut filled = self.filled;
        self.at = groups(self.text, self.at, |at, bytes, valid| {
            let (mut bits, mut newlines) = masks(bytes, valid);
            let count = bits.count_ones() as usize;
            while newlines != 0 {
                let lowest = newlines & newlines.wrapping_neg();
                records.push(filled as u32 + (bits & (lowest | (lowest - 1))).count_ones());
                newlines ^= lowest;
            }
            let Some(room) = ends.get_mut(filled..filled + GROUP) else { return false };
            // Eight at a time, whether there are eight or not: a loop that ends differently each time costs more.
            for eight in room.as_chunks_mut::<8>().0 {
                for end in eight {
                    *end = at as u32 + bits.trailing_zeros();
                    bits &= bits.wrapping_sub(1);
                }
                if bits == 0 {
                    break;
                }
            }
            filled += count;
            filled < target
        });
        self.filled = filled;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_to_find_a_byte_agree() {
        let mut bytes = [0u8; GROUP];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = (index * 37 % 256) as u8;
        }
        for needle in 0..=255 {
            assert_eq!(equal(&bytes, needle), equal_portable(&bytes, needle), "{needle}");
        }
        bytes.fill(b',');
        assert_eq!((equal(&bytes, b','), equal_portable(&bytes, b',')), (u64::MAX, u64::MAX));
    }
}
