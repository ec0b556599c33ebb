//! Numbers as Postgres writes them.

use std::fmt::Write as _;

use bytes::{BufMut as _, BytesMut};

/// Digits in a digit of Postgres' numeric.
const GROUP: usize = 4;

/// A whole number.
pub(in crate::pg) fn integer(value: i64, out: &mut BytesMut) {
    let mut buffer = [0; 20];
    let mut start = buffer.len();
    let mut rest = value.unsigned_abs();
    loop {
        start -= 1;
        buffer[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        out.put_u8(b'-');
    }
    out.put_slice(&buffer[start..]);
}

/// A double, in the fewest digits that lead back to it.
pub(in crate::pg) fn double(value: f64, out: &mut BytesMut) {
    if let Some(hundredths) = as_hundredths(value) {
        return put_hundredths(hundredths, out);
    }
    match special(value) {
        Some(text) => out.put_slice(text),
        None => shortest(&format!("{value:e}"), 15, out),
    }
}

/// How many hundredths `value` is, if it is the double that is nearest to so many of them.
///
/// Amounts of money are, and most measurements. Of numbers with up to fifteen digits no two are nearest to the same double, so what
/// is written of it is then the shortest that leads back.
fn as_hundredths(value: f64) -> Option<i64> {
    const LARGEST: f64 = 1e13;
    let negative_zero = value == 0.0 && value.is_sign_negative();
    if value.is_nan() || value.abs() >= LARGEST || negative_zero {
        return None;
    }
    let hundredths = (value * 100.0).round();
    // Division is exact to the last bit; the multiplication before need not be.
    (hundredths / 100.0 == value).then_some(hundredths as i64)
}

fn put_hundredths(value: i64, out: &mut BytesMut) {
    let positive = value.unsigned_abs();
    if value < 0 {
        out.put_u8(b'-');
    }
    integer((positive / 100) as i64, out);
    let (tenths, rest) = ((positive / 10 % 10) as u8, (positive % 10) as u8);
    match (tenths, rest) {
        (0, 0) => {}
        (_, 0) => out.put_slice(&[b'.', b'0' + tenths]),
        _ => out.put_slice(&[b'.', b'0' + tenths, b'0' + rest]),
    }
}

/// A real, in the fewest digits that lead back to it.
pub(in crate::pg) fn real(value: f32, out: &mut BytesMut) {
    match special(f64::from(value)) {
        Some(text) => out.put_slice(text),
        None => shortest(&format!("{value:e}"), 6, out),
    }
}

fn special(value: f64) -> Option<&'static [u8]> {
    if value.is_nan() {
        Some(b"NaN")
    } else if value.is_infinite() {
        Some(if value > 0.0 { b"Infinity" } else { b"-Infinity" })
    } else {
        None
    }
}

/// `1.5e3` as it is laid out: with an exponent only where the number would be long, that is from `digits` on.
fn shortest(scientific: &str, digits: i32, out: &mut BytesMut) {
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", mantissa),
    };
    out.put_slice(sign.as_bytes());
    if !(-4..digits).contains(&exponent) {
        // Writing to memory does not fail.
        let _ = write!(out, "{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs());
        return;
    }
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    if exponent < 0 {
        out.put_slice(b"0.");
        out.put_bytes(b'0', (-exponent - 1) as usize);
        out.put_slice(all.as_bytes());
        return;
    }
    let point = exponent as usize + 1;
    out.put_slice(&all.as_bytes()[..point.min(all.len())]);
    out.put_bytes(b'0', point.saturating_sub(all.len()));
    if point < all.len() {
        out.put_u8(b'.');
        out.put_slice(&all.as_bytes()[point..]);
    }
}

/// A decimal with `scale` digits after the point.
pub(in crate::pg) fn decimal(value: i128, scale: i32, out: &mut BytesMut) {
    let digits = value.unsigned_abs().to_string();
    if value < 0 {
        out.put_u8(b'-');
    }
    let Ok(scale) = usize::try_from(scale) else {
        out.put_slice(digits.as_bytes());
        if value != 0 {
            out.put_bytes(b'0', scale.unsigned_abs() as usize);
        }
        return;
    };
    if scale == 0 {
        out.put_slice(digits.as_bytes());
    } else if digits.len() > scale {
        let (whole, fraction) = digits.split_at(digits.len() - scale);
        out.put_slice(whole.as_bytes());
        out.put_u8(b'.');
        out.put_slice(fraction.as_bytes());
    } else {
        out.put_slice(b"0.");
        out.put_bytes(b'0', scale - digits.len());
        out.put_slice(digits.as_bytes());
    }
}

/// The binary form of a number that is written in digits.
pub(in crate::pg) fn numeric_binary(text: &[u8], out: &mut BytesMut) {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let point = text.iter().position(|byte| *byte == b'.');
    let (whole, fraction) = match point {
        Some(point) => (&text[..point], &text[point + 1..]),
        None => (text, &[][..]),
    };
    let whole_groups = whole.len().div_ceil(GROUP);
    let digit = |byte: u8| i16::from(byte.wrapping_sub(b'0'));
    let mut groups = vec![0i16; whole_groups + fraction.len().div_ceil(GROUP)];
    for (place, byte) in whole.iter().rev().enumerate() {
        groups[whole_groups - 1 - place / GROUP] += digit(*byte) * 10i16.pow((place % GROUP) as u32);
    }
    for (place, byte) in fraction.iter().enumerate() {
        groups[whole_groups + place / GROUP] += digit(*byte) * 10i16.pow((GROUP - 1 - place % GROUP) as u32);
    }
    let leading = groups.iter().take_while(|group| **group == 0).count();
    let trailing = groups.iter().rev().take_while(|group| **group == 0).count();
    let kept = if leading == groups.len() { &[][..] } else { &groups[leading..groups.len() - trailing] };
    out.put_i16(kept.len() as i16);
    out.put_i16(if kept.is_empty() { 0 } else { whole_groups as i16 - leading as i16 - 1 });
    out.put_u16(if negative && !kept.is_empty() { 0x4000 } else { 0 });
    out.put_u16(fraction.len() as u16);
    kept.iter().for_each(|group| out.put_i16(*group));
}

/// The digits of a number in its binary form.
pub(in crate::pg) fn numeric_text(bytes: &[u8]) -> Option<String> {
    let mut words = bytes.chunks_exact(2).map(|word| i16::from_be_bytes([word[0], word[1]]));
    let (count, weight, sign, scale) = (words.next()?, words.next()?, words.next()? as u16, words.next()?);
    let groups: Vec<i16> = words.collect();
    if groups.len() != usize::try_from(count).ok()? || groups.iter().any(|group| !(0..10_000).contains(group)) {
        return None;
    }
    let mut text = match sign {
        0 => String::new(),
        0x4000 => "-".to_owned(),
        0xC000 => return Some("NaN".to_owned()),
        _ => return None,
    };
    let group = |place: i32| usize::try_from(place).ok().and_then(|place| groups.get(place)).copied().unwrap_or(0);
    if weight < 0 {
        text.push('0');
    }
    for place in 0..=i32::from(weight) {
        let _ = if place == 0 { write!(text, "{}", group(0)) } else { write!(text, "{:04}", group(place)) };
    }
    let scale = usize::try_from(scale).ok()?;
    if scale > 0 {
        let mut fraction = String::new();
        let first = i32::from(weight) + 1;
        for place in 0..scale.div_ceil(GROUP) as i32 {
            let _ = write!(fraction, "{:04}", group(first + place));
        }
        text.push('.');
        text.push_str(&fraction[..scale]);
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(write: impl FnOnce(&mut BytesMut)) -> String {
        let mut out = BytesMut::new();
        write(&mut out);
        String::from_utf8(out.to_vec()).expect("ASCII")
    }

    #[test]
    fn numbers_as_postgres_writes_them() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.5, "1.5"),
            (100.0, "100"),
            (1e14, "100000000000000"),
            (1e15, "1e+15"),
            (1.25e-4, "0.000125"),
            (1e-5, "1e-05"),
            (0.1, "0.1"),
            (-0.07, "-0.07"),
            (17.3, "17.3"),
            (-52.80, "-52.8"),
            (0.1 + 0.2, "0.30000000000000004"),
            (9_999_999_999_999.99, "9999999999999.99"),
            (123_456_789_012_345.67, "123456789012345.67"),
            (0.29 * 100.0, "28.999999999999996"),
            (1.0 / 3.0, "0.3333333333333333"),
            (f64::INFINITY, "Infinity"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(shown(|out| double(value, out)), text);
        }
        assert_eq!(shown(|out| real(0.1, out)), "0.1");
        assert_eq!(shown(|out| real(1e6, out)), "1e+06");
        assert_eq!(shown(|out| integer(i64::MIN, out)), i64::MIN.to_string());
        for (value, scale, text) in
            [(12345, 2, "123.45"), (-5, 3, "-0.005"), (5, 0, "5"), (5, -2, "500"), (0, 2, "0.00")]
        {
            assert_eq!(shown(|out| decimal(value, scale, out)), text);
        }
    }

    #[test]
    fn doubles_are_the_shortest_that_lead_back() {
        for hundredths in (-30_000_i64..30_000).chain((0_i64..2_000).map(|n| n * 498_713_337_913)) {
            let value = hundredths as f64 / 100.0;
            for value in [value, value.next_up(), value * 1.1] {
                let mut slow = BytesMut::new();
                shortest(&format!("{value:e}"), 15, &mut slow);
                assert_eq!(shown(|out| double(value, out)).as_bytes(), &slow[..], "{value:?}");
            }
        }
    }

    #[test]
    fn numerics_lead_back_from_their_binary_form() {
        for text in ["0", "1", "-1", "10000", "123456.789", "0.00001", "-0.5", "99999999999999999999.9900", "0.00"] {
            let mut out = BytesMut::new();
            numeric_binary(text.as_bytes(), &mut out);
            assert_eq!(numeric_text(&out).as_deref(), Some(text));
        }
        // What Postgres sends for 1.5.
        let mut out = BytesMut::new();
        numeric_binary(b"1.5", &mut out);
        assert_eq!(&out[..], [0, 2, 0, 0, 0, 0, 0, 1, 0, 1, 0x13, 0x88]);
        assert_eq!(numeric_text(&[0, 9, 0]), None);
    }
}
