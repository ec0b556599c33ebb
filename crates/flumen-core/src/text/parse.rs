//! Single values out of text. Every function takes the whole of its input or says no.

use chrono::{Datelike, NaiveDate, NaiveDateTime};

pub(super) const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];
pub(super) const MICROS_A_DAY: i64 = 86_400_000_000;

/// Whether all of `value` is digits, after an optional sign.
pub fn is_digits(value: &[u8]) -> bool {
    let digits = unsigned(value);
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

/// Whether `value` begins with a zero that a number would not have: `007`, `-01.5`.
pub fn has_leading_zero(value: &[u8]) -> bool {
    matches!(unsigned(value), [b'0', b'0'..=b'9', ..])
}

fn unsigned(value: &[u8]) -> &[u8] {
    match value {
        [b'-' | b'+', rest @ ..] => rest,
        _ => value,
    }
}

/// A whole number.
#[inline]
pub fn int64(value: &[u8]) -> Option<i64> {
    let (negative, digits) = match value {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, value),
    };
    if digits.is_empty() || digits.len() > 19 {
        return if digits.len() > 19 { lexical_core::parse(value).ok() } else { None };
    }
    let mut sum: u64 = 0;
    for &byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        sum = sum * 10 + u64::from(digit);
    }
    // Nineteen digits are at most 9,999,999,999,999,999,999, which fits a u64.
    if negative { 0i64.checked_sub_unsigned(sum) } else { i64::try_from(sum).ok() }
}

/// A whole number, also where it is written as `3.0`.
#[inline]
pub fn integral(value: &[u8]) -> Option<i64> {
    if let Some(int) = int64(value) {
        return Some(int);
    }
    let dot = memchr::memchr(b'.', value)?;
    let zeros = &value[dot + 1..];
    if zeros.iter().all(|&byte| byte == b'0') { int64(&value[..dot]) } else { None }
}

/// A floating-point number: the nearest one.
#[inline]
pub fn float64(value: &[u8]) -> Option<f64> {
    // Up to 15 digits and a power of ten up to 22 are both exact as doubles, and one division rounds once (Clinger,
    // "How to read floating point numbers accurately", 1990). That is nearly every number in nearly every file.
    let (negative, rest) = match value {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, value),
    };
    let (mut mantissa, mut digits, mut fraction, mut dots) = (0u64, 0usize, 0usize, 0usize);
    for &byte in rest {
        let digit = byte.wrapping_sub(b'0');
        if digit <= 9 {
            mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit));
            digits += 1;
            fraction += dots;
        } else if byte == b'.' {
            dots += 1;
        } else {
            return slow_float(value);
        }
    }
    if digits == 0 || dots > 1 {
        return None;
    }
    if digits > 15 {
        return slow_float(value);
    }
    let number = mantissa as f64 / POWERS[fraction];
    Some(if negative { -number } else { number })
}

#[cold]
fn slow_float(value: &[u8]) -> Option<f64> {
    let value = value.strip_prefix(b"+").unwrap_or(value);
    fast_float2::parse(value).ok()
}

/// A decimal of `precision` digits, `scale` of them after the point, as an integer of 10^-scale. Digits that would be
/// cut off must be zeros.
pub fn decimal(value: &[u8], precision: u8, scale: i8) -> Option<i128> {
    let scale = usize::try_from(scale).ok()?;
    let negative = value.first() == Some(&b'-');
    let digits = unsigned(value);
    let (whole, fraction) = match memchr::memchr(b'.', digits) {
        Some(dot) => (&digits[..dot], &digits[dot + 1..]),
        None => (digits, &digits[..0]),
    };
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let kept = fraction.len().min(scale);
    if fraction[kept..].iter().any(|&byte| byte != b'0') {
        return None;
    }
    let mut number: i128 = 0;
    for &byte in whole.iter().chain(&fraction[..kept]) {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number = number.checked_mul(10)?.checked_add(i128::from(digit))?;
    }
    for _ in kept..scale {
        number = number.checked_mul(10)?;
    }
    let most = 10i128.checked_pow(u32::from(precision))?;
    if number >= most { None } else { Some(if negative { -number } else { number }) }
}

/// `1.234,56` as `1234.56`, put together in `plain`.
pub fn from_decimal_comma<'a>(value: &[u8], plain: &'a mut Vec<u8>) -> &'a [u8] {
    plain.clear();
    plain.extend(value.iter().filter(|&&byte| byte != b'.').map(|&byte| if byte == b',' { b'.' } else { byte }));
    plain
}

/// True or false, in the words that people use for them.
pub fn boolean(value: &[u8]) -> Option<bool> {
    let is = |words: &[&str]| words.iter().any(|word| value.eq_ignore_ascii_case(word.as_bytes()));
    if is(&["true", "t", "yes", "y", "1"]) {
        Some(true)
    } else if is(&["false", "f", "no", "n", "0"]) {
        Some(false)
    } else {
        None
    }
}

#[inline]
fn two(value: &[u8], at: usize) -> Option<u32> {
    let (tens, ones) = (value[at].wrapping_sub(b'0'), value[at + 1].wrapping_sub(b'0'));
    if tens > 9 || ones > 9 { None } else { Some(u32::from(tens) * 10 + u32::from(ones)) }
}

/// Days since 1970 of a date in the proleptic Gregorian calendar (Hinnant, "chrono-compatible low-level date
/// algorithms"), or `None` if there is no such day.
#[inline]
fn days(year: i32, month: u32, day: u32) -> Option<i32> {
    const LENGTHS: [u32; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = *LENGTHS.get(month.wrapping_sub(1) as usize)? + u32::from(leap && month == 2);
    if day == 0 || day > length {
        return None;
    }
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let year_of_era = y.rem_euclid(400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year as i32;
    Some(era * 146_097 + day_of_era - 719_468)
}

/// Days since 1970 of `YYYY-MM-DD` (or with slashes).
#[inline]
pub fn date32(value: &[u8]) -> Option<i32> {
    if value.len() != 10 || value[4] != value[7] || !matches!(value[4], b'-' | b'/') {
        return None;
    }
    days((two(value, 0)? * 100 + two(value, 2)?) as i32, two(value, 5)?, two(value, 8)?)
}

/// A date in `format`, or as ISO 8601; a timestamp at midnight counts.
pub fn date_in(value: &[u8], format: Option<&str>) -> Option<i32> {
    if let Some((micros, _)) = format.and_then(|format| formatted(value, format)) {
        return whole_days(micros);
    }
    date32(value)
        .or_else(|| timestamp(value).and_then(|(micros, zone)| if zone.is_none() { whole_days(micros) } else { None }))
}

fn whole_days(micros: i64) -> Option<i32> {
    if micros.rem_euclid(MICROS_A_DAY) == 0 { i32::try_from(micros.div_euclid(MICROS_A_DAY)).ok() } else { None }
}

/// Microseconds since midnight of `HH:MM[:SS[.ffffff]]`.
#[inline]
pub fn time64(value: &[u8]) -> Option<i64> {
    if value.len() < 5 || value[2] != b':' {
        return None;
    }
    let (hour, minute) = (two(value, 0)?, two(value, 3)?);
    let (mut second, mut micros) = (0, 0);
    if value.len() > 5 {
        if value.len() < 8 || value[5] != b':' {
            return None;
        }
        second = two(value, 6)?;
        if value.len() > 8 {
            micros = fraction(&value[8..])?;
        }
    }
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    Some(i64::from(hour * 3600 + minute * 60 + second) * 1_000_000 + micros)
}

/// Microseconds of `.fff…`. The finest unit that the lake and Postgres keep is the microsecond: digits beyond are cut.
fn fraction(value: &[u8]) -> Option<i64> {
    let [b'.', digits @ ..] = value else { return None };
    if digits.is_empty() || digits.len() > 9 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let six = (0..6).map(|place| digits.get(place).map_or(0, |digit| i64::from(digit - b'0')));
    Some(six.fold(0, |sum, digit| sum * 10 + digit))
}

/// Microseconds since 1970 of `YYYY-MM-DD HH:MM[:SS[.f]][zone]` (or with a `T`), in UTC if there is a zone, and the zone's
/// distance from UTC in seconds.
#[inline]
pub fn timestamp(value: &[u8]) -> Option<(i64, Option<i32>)> {
    if value.len() < 16 || !matches!(value[10], b' ' | b'T') {
        return None;
    }
    let date = date32(&value[..10])?;
    let rest = &value[11..];
    let (time, zone) = if rest.len() == 8 { (rest, None) } else { split_zone(rest)? };
    let micros = i64::from(date) * MICROS_A_DAY + time64(time)?;
    Some((micros - i64::from(zone.unwrap_or(0)) * 1_000_000, zone))
}

fn split_zone(value: &[u8]) -> Option<(&[u8], Option<i32>)> {
    if let Some(time) = value.strip_suffix(b"Z").or_else(|| value.strip_suffix(b" UTC")) {
        return Some((time, Some(0)));
    }
    let Some(at) = value.iter().rposition(|byte| matches!(byte, b'+' | b'-')) else { return Some((value, None)) };
    let (hours, minutes) = match &value[at + 1..] {
        hh @ [_, _] => (two(hh, 0)?, 0),
        hhmm @ [_, _, _, _] => (two(hhmm, 0)?, two(hhmm, 2)?),
        hh_mm @ [_, _, b':', _, _] => (two(hh_mm, 0)?, two(hh_mm, 3)?),
        _ => return None,
    };
    let seconds = (hours * 3600 + minutes * 60) as i32;
    Some((value[..at].trim_ascii_end(), Some(if value[at] == b'-' { -seconds } else { seconds })))
}

/// Microseconds since 1970 of a timestamp or date, in `format` or as ISO 8601. With `zoned`, a value without a zone is in
/// UTC; without it, one with a zone is refused.
#[inline]
pub fn timestamp_in(value: &[u8], format: Option<&str>, zoned: bool) -> Option<i64> {
    if let Some((micros, _)) = format.and_then(|format| formatted(value, format)) {
        return Some(micros);
    }
    match timestamp(value) {
        Some((micros, zone)) if zoned || zone.is_none() => Some(micros),
        Some(_) => None,
        None => date32(value).map(|date| i64::from(date) * MICROS_A_DAY),
    }
}

/// Microseconds since 1970 of `value` in a `strftime` format, and whether the format has a time of day.
pub fn formatted(value: &[u8], format: &str) -> Option<(i64, bool)> {
    let text = std::str::from_utf8(value).ok()?;
    if let Ok(time) = NaiveDateTime::parse_from_str(text, format) {
        return Some((time.and_utc().timestamp_micros(), true));
    }
    let date = NaiveDate::parse_from_str(text, format).ok()?;
    let day = i64::from(date.num_days_from_ce() - 719_163);
    Some((day * MICROS_A_DAY, false))
}
