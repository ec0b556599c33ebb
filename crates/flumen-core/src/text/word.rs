//! Short values read as one 64-bit word, without a loop or a branch that depends on their length: in a column of mixed
//! lengths, what a wrong guess of the processor costs is more than the parsing itself.
//!
//! Each function takes what it knows and says `None` to everything else, also to what `parse` would take: the caller asks
//! there then.

use super::parse::{MICROS_A_DAY, POWERS};

const ONES: u64 = 0x0101_0101_0101_0101;
const TOPS: u64 = 0x80 * ONES;

/// A value, and what follows it in memory: eight bytes can be read at once where it is shorter.
#[derive(Clone, Copy)]
pub struct Piece<'a> {
    from: &'a [u8],
    length: usize,
}

impl<'a> Piece<'a> {
    /// The bytes of `text` in `from..to`.
    #[inline(always)]
    pub fn new(text: &'a [u8], from: usize, to: usize) -> Self {
        Self { from: &text[from..], length: to - from }
    }

    /// The value.
    #[inline(always)]
    pub fn bytes(self) -> &'a [u8] {
        &self.from[..self.length]
    }

    /// Whether there is none.
    #[inline(always)]
    pub fn is_empty(self) -> bool {
        self.length == 0
    }

    /// The first eight bytes, the value's and others, if the value has one to eight.
    #[inline(always)]
    fn word(self) -> Option<u64> {
        let bytes = self.from.first_chunk::<8>()?;
        if self.length.wrapping_sub(1) < 8 { Some(u64::from_le_bytes(*bytes)) } else { None }
    }
}

/// The number that the first `length` (at most 8) bytes of `word` spell, if they are digits. None of them is 0.
#[inline(always)]
fn digits(word: u64, length: usize) -> Option<u64> {
    // The digits move to the end of the word, what lies beyond them moves out, and zeros fill the room before them.
    let missing = 64 - 8 * length as u32;
    let word = word << missing | (0x30 * ONES) & !(u64::MAX << missing);
    let word = word ^ (0x30 * ONES);
    if (word | word.wrapping_add(0x76 * ONES)) & TOPS != 0 {
        return None;
    }
    // Pairs, then fours, then all eight.
    let word = word.wrapping_mul(10).wrapping_add(word >> 8);
    const EVEN: u64 = 0x0000_00ff_0000_00ff;
    let high = (word & EVEN).wrapping_mul(100 + (1_000_000 << 32));
    let low = ((word >> 16) & EVEN).wrapping_mul(1 + (10_000 << 32));
    Some(high.wrapping_add(low) >> 32)
}

/// Takes a minus off.
#[inline(always)]
fn sign(word: u64, length: usize) -> (bool, u64, usize) {
    let negative = word as u8 == b'-';
    (negative, word >> (8 * u32::from(negative)), length - usize::from(negative))
}

/// A whole number.
#[inline(always)]
pub(super) fn int64(piece: Piece<'_>) -> Option<i64> {
    let (negative, word, length) = sign(piece.word()?, piece.length);
    if length == 0 {
        return None;
    }
    let number = digits(word, length)? as i64;
    Some(if negative { -number } else { number })
}

/// A floating-point number: the nearest one, as up to eight digits and the power of ten are exact.
#[inline(always)]
pub(super) fn float64(piece: Piece<'_>) -> Option<f64> {
    let (negative, word, length) = sign(piece.word()?, piece.length);
    // The lowest zero byte of this is the first point; what lies beyond the value is blotted out.
    let points = word ^ (u64::from(b'.') * ONES);
    let beyond = u64::MAX.unbounded_shl(8 * length as u32);
    let zeros = points.wrapping_sub(ONES) & !points & TOPS & !beyond;
    let point = (zeros & zeros.wrapping_neg()) >> 7;
    let has_point = usize::from(point != 0);
    // What stands before the point stays, what follows moves up. Without a point, all stays.
    let before = point.wrapping_sub(1);
    let word = word & before | (word >> 8) & !before;
    let count = length - has_point;
    if count == 0 {
        return None;
    }
    let fraction = count.wrapping_sub(zeros.trailing_zeros() as usize / 8).wrapping_mul(has_point);
    let number = digits(word, count)?.cast_signed() as f64 / POWERS[fraction];
    Some(f64::from_bits(number.to_bits() | u64::from(negative) << 63))
}

/// The digits in eight bytes of the shape of `template`, as numbers of two digits: byte i is that of bytes i and i + 1.
#[inline(always)]
fn pairs(bytes: [u8; 8], template: [u8; 8], most: [u8; 8]) -> Option<u64> {
    let word = u64::from_le_bytes(bytes) ^ u64::from_le_bytes(template);
    if (word | word.wrapping_add(u64::from_le_bytes(most))) & TOPS != 0 {
        return None;
    }
    Some(word.wrapping_mul(10).wrapping_add(word >> 8))
}

/// Added to the difference from a template, these carry into the top bit where a digit is none, or a mark another.
const D: u8 = 0x76;
const M: u8 = 0x7f;
/// Days in a common year before each month, counted from 1.
const BEFORE_MONTH: [i32; 16] = [0, 0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 0, 0, 0];
const LENGTHS: [u32; 16] = [0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 0, 0, 0];

/// Days since 1970 of the `YYYY-MM-DD` that 10 bytes begin with.
#[inline(always)]
fn days(year_month: [u8; 8], day: [u8; 2]) -> Option<i32> {
    let word = pairs(year_month, *b"0000-00-", [D, D, D, D, M, D, D, M])?;
    let byte = |at: u32| (word >> (8 * at)) as u32 & 0xff;
    let (year, month) = (byte(0) * 100 + byte(2), byte(5));
    let (tens, ones) = (u32::from(day[0].wrapping_sub(b'0')), u32::from(day[1].wrapping_sub(b'0')));
    let day = tens * 10 + ones;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = LENGTHS[(month & 15) as usize] + u32::from(leap && month == 2);
    if tens > 9 || ones > 9 || month > 12 || day == 0 || day > length {
        return None;
    }
    // Leap days from the year -399 to the last one: 96 of them are before the year 0.
    let past = year + 399;
    let leaps = (past / 4 - past / 100 + past / 400) as i32 - 96 + i32::from(leap && month > 2);
    // 1970 begins 719,528 days after the year 0.
    Some(year as i32 * 365 + leaps + BEFORE_MONTH[(month & 15) as usize] + day as i32 - 1 - 719_528)
}

/// Days since 1970 of `YYYY-MM-DD`.
#[inline(always)]
pub(super) fn date32(piece: Piece<'_>) -> Option<i32> {
    let bytes: &[u8; 10] = piece.bytes().try_into().ok()?;
    let [y0, y1, y2, y3, m0, m1, m2, m3, d0, d1] = *bytes;
    days([y0, y1, y2, y3, m0, m1, m2, m3], [d0, d1])
}

/// Microseconds since 1970 of `YYYY-MM-DD HH:MM:SS`, or with a `T`.
#[inline(always)]
pub(super) fn timestamp(piece: Piece<'_>) -> Option<i64> {
    let bytes: &[u8; 19] = piece.bytes().try_into().ok()?;
    let (date, time) = (bytes.first_chunk::<8>()?, bytes.last_chunk::<8>()?);
    let days = days(*date, [bytes[8], bytes[9]])?;
    let word = pairs(*time, *b"00:00:00", [D, D, M, D, D, M, D, D])?;
    let byte = |at: u32| (word >> (8 * at)) as u32 & 0xff;
    let (hour, minute, second) = (byte(0), byte(3), byte(6));
    if hour > 23 || minute > 59 || second > 59 || !matches!(bytes[10], b' ' | b'T') {
        return None;
    }
    Some(i64::from(days) * MICROS_A_DAY + i64::from(hour * 3600 + minute * 60 + second) * 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::parse;

    fn piece(text: &str, after: &str) -> String {
        format!("{text}{after}")
    }

    fn check_all(texts: impl IntoIterator<Item = String>) -> usize {
        let mut known = 0;
        for text in texts {
            for after in ["", ",12345678", "\n........", "99999999"] {
                let bytes = piece(&text, after);
                let short = Piece::new(bytes.as_bytes(), 0, text.len());
                let value = text.as_bytes();
                if let Some(number) = int64(short) {
                    assert_eq!(Some(number), parse::int64(value), "{text}");
                    known += 1;
                }
                if let Some(number) = float64(short) {
                    assert_eq!(Some(number.to_bits()), parse::float64(value).map(f64::to_bits), "{text}");
                    known += 1;
                }
                if let Some(date) = date32(short) {
                    assert_eq!(Some(date), parse::date32(value), "{text}");
                    known += 1;
                }
                if let Some(micros) = timestamp(short) {
                    assert_eq!(Some((micros, None)), parse::timestamp(value), "{text}");
                    known += 1;
                }
            }
        }
        known
    }

    #[test]
    fn what_a_word_says_is_what_the_parser_says() {
        let mut texts: Vec<String> = Vec::new();
        // Everything up to four characters out of these.
        let letters = ['0', '1', '9', '.', '-', '+', ' ', 'e', ':', '/', '\u{ff}'];
        let mut all = vec![String::new()];
        for _ in 0..4 {
            all = all.iter().flat_map(|text| letters.iter().map(move |letter| format!("{text}{letter}"))).collect();
            texts.extend(all.iter().cloned());
        }
        for number in [0u32, 7, 10, 99, 101, 12345, 1234567, 9999999, 99999999] {
            for point in 0..=8 {
                let mut text = number.to_string();
                if point <= text.len() {
                    text.insert(point, '.');
                }
                texts.push(format!("-{text}"));
                texts.push(text);
            }
        }
        assert!(check_all(texts) > 1000);
    }

    #[test]
    fn short_numbers_are_known() {
        let known = |text: &str| {
            let bytes = piece(text, ",........");
            let short = Piece::new(bytes.as_bytes(), 0, text.len());
            (int64(short), float64(short))
        };
        assert_eq!(known("-265"), (Some(-265), Some(-265.0)));
        assert_eq!(known("12345678"), (Some(12345678), Some(12345678.0)));
        assert_eq!(known(".75"), (None, Some(0.75)));
        assert_eq!(known("-12345.6"), (None, Some(-12345.6)));
        assert_eq!(known("5."), (None, Some(5.0)));
        assert_eq!(known("-"), (None, None));
        assert_eq!(known("."), (None, None));
        assert_eq!(known("1.2.3"), (None, None));
    }

    #[test]
    fn days_and_times() {
        let mut texts = Vec::new();
        for year in [0, 1, 4, 100, 400, 1582, 1899, 1900, 1969, 1970, 2000, 2019, 2020, 2100, 9999] {
            for month in 0..=13 {
                for day in [0, 1, 28, 29, 30, 31, 32, 99] {
                    texts.push(format!("{year:04}-{month:02}-{day:02}"));
                    texts.push(format!("{year:04}-{month:02}-{day:02} 23:59:{day:02}"));
                    texts.push(format!("{year:04}-{month:02}-{day:02}T{day:02}:{day:02}:00"));
                }
            }
        }
        texts.extend(["2019-01/01", "2019-01-01x00:00:00", "2019-01-01 0a:00:00", "2019:01-01"].map(str::to_owned));
        let known = check_all(texts);
        assert!(known > 4 * 15 * 12 * 4 * 2, "{known}");
    }
}
