//! Lengths of time and amounts of memory, as people write them: `10s`, `1h30m`, `512MB`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};

/// The longest length of time: a thousand years, which no sum of two overflows.
const LONGEST_SECONDS: f64 = 31_557_600_000.0;

/// A length of time: `250ms`, `10s`, `5m`, `1h30m`, `2d`, `1w`; a bare number is seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(pub Duration);

/// An amount of bytes: `512MB`, `2GiB`, `100000`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

const PERIODS: [(&str, f64); 18] = [
    ("ms", 0.001),
    ("s", 1.0),
    ("sec", 1.0),
    ("second", 1.0),
    ("seconds", 1.0),
    ("m", 60.0),
    ("min", 60.0),
    ("minute", 60.0),
    ("minutes", 60.0),
    ("h", 3600.0),
    ("hour", 3600.0),
    ("hours", 3600.0),
    ("d", 86400.0),
    ("day", 86400.0),
    ("days", 86400.0),
    ("w", 604_800.0),
    ("week", 604_800.0),
    ("weeks", 604_800.0),
];

const SIZES: [(&str, f64); 9] = [
    ("", 1.0),
    ("b", 1.0),
    ("kb", 1e3),
    ("mb", 1e6),
    ("gb", 1e9),
    ("tb", 1e12),
    ("kib", 1024.0),
    ("mib", 1_048_576.0),
    ("gib", 1_073_741_824.0),
];

impl FromStr for Period {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::invalid(format!("'{text}' is not a length of time")).hint("write it such as 10s, 5m, 1h30m or 2d")
        };
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(wrong());
        }
        if let Ok(seconds) = rest.parse::<f64>() {
            return Self::seconds(seconds).ok_or_else(wrong);
        }
        let mut seconds = 0.0;
        while !rest.is_empty() {
            let (number, unit, after) = amount(rest).ok_or_else(wrong)?;
            seconds += number * unit_named(&PERIODS, unit).ok_or_else(wrong)?;
            rest = after;
        }
        Self::seconds(seconds).ok_or_else(wrong)
    }
}

impl Period {
    /// So many seconds, unless that is no length of time.
    fn seconds(seconds: f64) -> Option<Self> {
        (0.0..=LONGEST_SECONDS).contains(&seconds).then(|| {
            let millis = (seconds * 1000.0).round();
            Self(Duration::from_millis(millis as u64))
        })
    }
}

impl FromStr for Bytes {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::invalid(format!("'{text}' is not an amount of bytes")).hint("write it such as 512MB, 2GB or 100000")
        };
        let (number, unit, after) = amount(text.trim()).ok_or_else(wrong)?;
        let bytes = number * unit_named(&SIZES, unit).ok_or_else(wrong)?;
        if !after.is_empty() || bytes > 1e18 {
            return Err(wrong());
        }
        Ok(Self(bytes.round() as u64))
    }
}

/// The number and the unit at the start of a text, and what comes then.
fn amount(text: &str) -> Option<(f64, &str, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    let rest = rest.trim_start();
    let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
    let (unit, after) = rest.split_at(letters);
    Some((number.parse().ok()?, unit, after.trim_start()))
}

fn unit_named(units: &[(&str, f64)], name: &str) -> Option<f64> {
    let name = name.to_ascii_lowercase();
    units.iter().find(|(unit, _)| *unit == name).map(|(_, factor)| *factor)
}

impl fmt::Display for Period {
    /// In the largest units that are exact: `1h30m`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut millis = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if millis == 0 {
            return f.write_str("0s");
        }
        for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)] {
            if millis >= size {
                write!(f, "{}{unit}", millis / size)?;
                millis %= size;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}B", self.0)
    }
}

/// What both look like in JSON: text or a number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written<'a> {
    Number(f64),
    #[serde(borrow)]
    Text(Cow<'a, str>),
}

macro_rules! as_text {
    ($type:ty, $name:literal, $about:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = match Written::deserialize(deserializer)? {
                    Written::Number(number) => Cow::from(number.to_string()),
                    Written::Text(text) => text,
                };
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": ["string", "number"], "format": $name, "description": $about })
            }
        }
    };
}

as_text!(Period, "duration", "A length of time, such as 10s, 5m, 1h30m or 2d; a bare number is seconds.");
as_text!(Bytes, "bytes", "An amount of bytes, such as 512MB or 2GiB.");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time() {
        for (text, expect) in [
            ("10s", "10s"),
            ("90", "1m30s"),
            ("1h30m", "1h30m"),
            ("1 h 30 min", "1h30m"),
            ("250ms", "250ms"),
            ("0.5s", "500ms"),
            ("36h", "1d12h"),
            ("2 weeks", "14d"),
            ("0", "0s"),
        ] {
            assert_eq!(text.parse::<Period>().unwrap().to_string(), expect, "{text}");
        }
        for text in ["", "s", "10x", "-5s", "1e300", "inf", "NaN", "10s5", "10 s,"] {
            assert!(text.parse::<Period>().is_err(), "{text}");
        }
    }

    #[test]
    fn amounts_of_bytes() {
        for (text, expect) in [("100000", 100_000), ("512MB", 512_000_000), ("2 GiB", 2_147_483_648), ("1.5kb", 1500)] {
            assert_eq!(text.parse::<Bytes>().unwrap().0, expect, "{text}");
        }
        for text in ["", "MB", "-1", "5 apples", "1MB 2MB", "9999999TB"] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
    }

    #[test]
    fn they_travel_as_text() {
        let period: Period = serde_json::from_str("90").unwrap();
        assert_eq!(serde_json::to_string(&period).unwrap(), "\"1m30s\"");
        let bytes: Bytes = serde_json::from_str("\"2kB\"").unwrap();
        assert_eq!(serde_json::to_string(&bytes).unwrap(), "\"2000B\"");
    }
}
