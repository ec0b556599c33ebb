//! Spans of time as settings of Postgres have them.

/// The milliseconds that `text` means: a number of them, or a number with a unit (`30s`, `5min`); none if it means nothing.
///
/// Source: <https://www.postgresql.org/docs/current/config-setting.html#CONFIG-SETTING-NAMES-VALUES>.
pub fn milliseconds(text: &str) -> Option<u64> {
    let text = text.trim();
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let unit = match text[number.len()..].trim() {
        "" | "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::milliseconds;

    #[test]
    fn spans_have_units() {
        let cases =
            [("5000", 5_000), (" 5s ", 5_000), ("2 min", 120_000), ("1h", 3_600_000), ("1d", 86_400_000), ("0", 0)];
        for (text, expect) in cases {
            assert_eq!(milliseconds(text), Some(expect), "{text}");
        }
        for text in ["", "s", "soon", "5 weeks", "-1", "1.5s", "99999999999999999999", "999999999999999999d"] {
            assert_eq!(milliseconds(text), None, "{text}");
        }
    }
}
