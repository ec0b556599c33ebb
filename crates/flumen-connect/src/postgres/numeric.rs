//! `numeric` in the binary format of Postgres: groups of four decimal digits.

use arrow::datatypes::i256;

const POSITIVE: u16 = 0x0000;
const NEGATIVE: u16 = 0x4000;
const NOT_A_NUMBER: u16 = 0xC000;
const INFINITE: u16 = 0xD000;
const MINUS_INFINITE: u16 = 0xF000;

fn header(out: &mut Vec<u8>, groups: usize, weight: i16, sign: u16, scale: u16) {
    out.extend_from_slice(&(groups as u16).to_be_bytes());
    out.extend_from_slice(&weight.to_be_bytes());
    out.extend_from_slice(&sign.to_be_bytes());
    out.extend_from_slice(&scale.to_be_bytes());
}

/// Appends `value / 10^scale`, for a scale from 0 to 38.
pub fn put_decimal128(out: &mut Vec<u8>, value: i128, scale: u8) {
    let sign = if value < 0 { NEGATIVE } else { POSITIVE };
    let power = 10u128.pow(u32::from(scale));
    let magnitude = value.unsigned_abs();
    let (whole, fraction) = match u64::try_from(magnitude) {
        // Divisions of 64 bits are several times faster, and most amounts fit.
        Ok(small) if scale <= 19 => {
            let power = power as u64;
            (u128::from(small / power), u128::from(small % power))
        }
        _ => (magnitude / power, magnitude % power),
    };
    // 39 digits: ten groups before the point, ten after it.
    let mut groups = [0u16; 20];
    let mut first = 10;
    let mut rest = whole;
    while rest > 0 {
        first -= 1;
        groups[first] = (rest % 10_000) as u16;
        rest /= 10_000;
    }
    let pad = (4 - scale % 4) % 4;
    let after = usize::from((scale + pad) / 4);
    // The last group is filled up with zeros on its right; 38 digits and two zeros do not fit 128 bits, so it goes first.
    let mut rest = fraction;
    if after > 0 {
        let unit = 10u128.pow(u32::from(4 - pad));
        groups[10 + after - 1] = (rest % unit) as u16 * 10u16.pow(u32::from(pad));
        rest /= unit;
        for place in (0..after - 1).rev() {
            groups[10 + place] = (rest % 10_000) as u16;
            rest /= 10_000;
        }
    }
    put_groups(out, &groups[first..10 + after], (10 - first) as i16 - 1, sign, u16::from(scale));
}

/// Appends `groups`, the first of which stands for multiples of 10000^weight, without zeros at either end.
fn put_groups(out: &mut Vec<u8>, groups: &[u16], weight: i16, sign: u16, scale: u16) {
    let leading = groups.iter().take_while(|&&group| group == 0).count();
    let groups = &groups[leading..];
    let weight = weight - leading as i16;
    let trailing = groups.iter().rev().take_while(|&&group| group == 0).count();
    let groups = &groups[..groups.len() - trailing];
    if groups.is_empty() {
        return header(out, 0, 0, POSITIVE, scale);
    }
    header(out, groups.len(), weight, sign, scale);
    for group in groups {
        out.extend_from_slice(&group.to_be_bytes());
    }
}

/// Appends `value / 10^scale`.
pub fn put_decimal256(out: &mut Vec<u8>, value: i256, scale: u8) -> bool {
    let mut text = value.to_string();
    if scale > 0 {
        text.push_str(&format!("e-{scale}"));
    }
    put_text(out, text.as_bytes())
}

/// Appends the number that `text` writes out. False, and nothing appended: it is none.
pub fn put_text(out: &mut Vec<u8>, text: &[u8]) -> bool {
    parse(out, text.trim_ascii()).is_some()
}

fn parse(out: &mut Vec<u8>, text: &[u8]) -> Option<()> {
    let (sign, digits) = match text {
        [b'-', rest @ ..] => (NEGATIVE, rest),
        [b'+', rest @ ..] => (POSITIVE, rest),
        rest => (POSITIVE, rest),
    };
    if digits.eq_ignore_ascii_case(b"nan") {
        header(out, 0, 0, NOT_A_NUMBER, 0);
        return Some(());
    }
    if digits.eq_ignore_ascii_case(b"inf") || digits.eq_ignore_ascii_case(b"infinity") {
        header(out, 0, 0, if sign == NEGATIVE { MINUS_INFINITE } else { INFINITE }, 0);
        return Some(());
    }
    let (mantissa, exponent) = match digits.iter().position(|byte| matches!(byte, b'e' | b'E')) {
        Some(place) => {
            let exponent: i32 = std::str::from_utf8(&digits[place + 1..]).ok()?.parse().ok()?;
            (&digits[..place], exponent)
        }
        None => (digits, 0),
    };
    let (whole, fraction) = match mantissa.iter().position(|&byte| byte == b'.') {
        Some(point) => (&mantissa[..point], &mantissa[point + 1..]),
        None => (mantissa, &b""[..]),
    };
    let all: Vec<u8> = whole.iter().chain(fraction).copied().collect();
    if all.is_empty() || !all.iter().all(u8::is_ascii_digit) || exponent.unsigned_abs() > 100_000 {
        return None;
    }
    // The decimal point stands after `point` digits of `all`.
    let point = whole.len() as i32 + exponent;
    let scale = (all.len() as i32 - point).max(0);
    let groups_before = point.div_euclid(4) + i32::from(point.rem_euclid(4) > 0);
    if scale > 16_383 || groups_before > 32_768 {
        return None;
    }
    let shift = (groups_before * 4 - point) as usize;
    let mut padded = vec![b'0'; shift];
    padded.extend_from_slice(&all);
    padded.resize(padded.len().div_ceil(4) * 4, b'0');
    let group = |four: &[u8]| four.iter().fold(0u16, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    let groups: Vec<u16> = padded.chunks(4).map(group).collect();
    let weight = i16::try_from(groups_before - 1).ok()?;
    put_groups(out, &groups, weight, sign, scale as u16);
    Some(())
}

/// The number in `bytes` as text, or `None` if they are not a number.
pub fn to_text(bytes: &[u8]) -> Option<String> {
    let word = |at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let (count, weight, sign, scale) = (usize::from(word(0)?), word(2)? as i16, word(4)?, usize::from(word(6)?));
    match sign {
        NOT_A_NUMBER => return Some("NaN".to_owned()),
        INFINITE => return Some("Infinity".to_owned()),
        MINUS_INFINITE => return Some("-Infinity".to_owned()),
        _ => {}
    }
    let group = |place: i32| -> Option<u16> {
        match usize::try_from(place) {
            Ok(place) if place < count => word(8 + place * 2),
            _ => Some(0),
        }
    };
    let mut text = String::new();
    if sign == NEGATIVE {
        text.push('-');
    }
    if weight < 0 {
        text.push('0');
    }
    for place in 0..=i32::from(weight) {
        let digits = group(place)?;
        text.push_str(&if place == 0 { digits.to_string() } else { format!("{digits:04}") });
    }
    if scale > 0 {
        text.push('.');
        let mut fraction = String::new();
        let mut place = i32::from(weight) + 1;
        // Groups between the point and the first one that is there are zero.
        for _ in 0..-(i32::from(weight) + 1) {
            fraction.push_str("0000");
        }
        if weight < 0 {
            place = 0;
        }
        while fraction.len() < scale {
            fraction.push_str(&format!("{:04}", group(place)?));
            place += 1;
        }
        fraction.truncate(scale);
        text.push_str(&fraction);
    }
    Some(text)
}

/// The number in `bytes` as a multiple of 10^-scale, or `None` if it has more digits than that or is not finite.
pub fn to_decimal128(bytes: &[u8], scale: u8) -> Option<i128> {
    let word = |at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let (count, weight, sign) = (usize::from(word(0)?), i32::from(word(2)? as i16), word(4)?);
    if sign != POSITIVE && sign != NEGATIVE {
        return None;
    }
    let mut value: i128 = 0;
    for place in 0..count {
        let group = i128::from(word(8 + place * 2)?);
        // This group counts multiples of 10^power.
        let power = (weight - place as i32) * 4 + i32::from(scale);
        let part = match u32::try_from(power) {
            Ok(power) => group.checked_mul(10i128.checked_pow(power)?)?,
            Err(_) => {
                let unit = 10i128.checked_pow(power.unsigned_abs())?;
                if group % unit != 0 {
                    return None;
                }
                group / unit
            }
        };
        value = value.checked_add(part)?;
    }
    Some(if sign == NEGATIVE { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(value: i128, scale: u8) -> String {
        let mut out = Vec::new();
        put_decimal128(&mut out, value, scale);
        let back = to_decimal128(&out, scale);
        assert_eq!(back, Some(value), "{value} {scale}");
        to_text(&out).unwrap()
    }

    #[test]
    fn decimals_there_and_back() {
        assert_eq!(decimal(0, 2), "0.00");
        assert_eq!(decimal(5, 0), "5");
        assert_eq!(decimal(-1_234_567, 2), "-12345.67");
        assert_eq!(decimal(1, 10), "0.0000000001");
        assert_eq!(decimal(100_000_000, 0), "100000000");
        assert_eq!(decimal(10i128.pow(38) - 1, 38), format!("0.{}", "9".repeat(38)));
        assert_eq!(decimal(10i128.pow(38) - 1, 0), "9".repeat(38));
        assert_eq!(decimal(-(10i128.pow(38) - 1), 5), format!("-{}.{}", "9".repeat(33), "9".repeat(5)));
        assert_eq!(decimal(100_010_000, 4), "10001.0000");
    }

    #[test]
    fn text_there_and_back() {
        for (text, expect) in [
            ("1", "1"),
            ("-0.00012300", "-0.00012300"),
            ("123456789012345678901234567890.5", "123456789012345678901234567890.5"),
            ("1e3", "1000"),
            ("1.5e-3", "0.0015"),
            (".5", "0.5"),
            ("+7.", "7"),
            ("NaN", "NaN"),
            ("-Infinity", "-Infinity"),
            ("0", "0"),
            ("10000", "10000"),
        ] {
            let mut out = Vec::new();
            assert!(put_text(&mut out, text.as_bytes()), "{text}");
            assert_eq!(to_text(&out).unwrap(), expect, "{text}");
        }
        for wrong in ["", "x", "1.2.3", "--1", "1e", "1 2", "."] {
            assert!(!put_text(&mut Vec::new(), wrong.as_bytes()), "{wrong}");
        }
        let mut out = Vec::new();
        assert!(put_decimal256(&mut out, i256::from_i128(-12_345), 3));
        assert_eq!(to_text(&out).unwrap(), "-12.345");
    }
}
