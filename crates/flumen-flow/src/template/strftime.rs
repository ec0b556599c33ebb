//! Dates as text and back, with the directives of Python's `strftime` and `strptime`, in English.

use chrono::{DateTime, Datelike, FixedOffset, NaiveDate, NaiveDateTime, Offset, TimeDelta, Timelike, Weekday};
use chrono_tz::Tz;

pub(super) const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

const WEEKDAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// `moment` as `format` describes it.
///
/// Errors: what is wrong with the format.
pub(super) fn format(moment: &DateTime<Tz>, format: &str) -> Result<String, String> {
    let mut out = String::with_capacity(format.len() + 8);
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut flag = None;
        let mut directive = chars.next();
        if let Some(it @ ('-' | '_' | '0' | '^' | '#')) = directive {
            flag = Some(it);
            directive = chars.next();
        }
        let Some(directive) = directive else {
            return Err(format!("the format '{format}' ends in the middle of a directive; write %% for a %"));
        };
        let colon = directive == ':';
        let directive = match colon {
            true => chars.next().unwrap_or(' '),
            false => directive,
        };
        match write_one(moment, directive, colon) {
            Some(part) => out.push_str(&flagged(part, flag)),
            None => return Err(unknown(format, directive)),
        }
    }
    Ok(out)
}

/// What is wrong with a format, whatever the moment.
pub(super) fn check(format: &str) -> Option<String> {
    self::format(&DateTime::UNIX_EPOCH.with_timezone(&Tz::UTC), format).err()
}

fn unknown(format: &str, directive: char) -> String {
    format!("the format '{format}' has no directive that is known: '%{directive}'; write %% for a %")
}

/// What a directive stands for: text, and how wide it is padded with what.
enum Part {
    Text(String),
    Number(i64, usize, char),
}

fn flagged(part: Part, flag: Option<char>) -> String {
    match (part, flag) {
        (Part::Text(text), Some('^' | '#')) => text.to_uppercase(),
        (Part::Text(text), _) => text,
        (Part::Number(number, ..), Some('-')) => number.to_string(),
        (Part::Number(number, width, _), Some('_')) => format!("{number:>width$}"),
        (Part::Number(number, width, _), Some('0')) | (Part::Number(number, width, '0'), _) => {
            format!("{number:0width$}")
        }
        (Part::Number(number, width, _), _) => format!("{number:>width$}"),
    }
}

fn write_one(moment: &DateTime<Tz>, directive: char, colon: bool) -> Option<Part> {
    let number = |value: i64, width: usize| Some(Part::Number(value, width, '0'));
    let text = |text: String| Some(Part::Text(text));
    let whole = |format: &str| self::format(moment, format).ok().map(Part::Text);
    let (hour, pm) = (moment.hour(), moment.hour() >= 12);
    let twelve = i64::from(if hour % 12 == 0 { 12 } else { hour % 12 });
    let yday = i64::from(moment.ordinal0());
    match directive {
        'z' => text(offset(moment.offset().fix(), colon)),
        _ if colon => None,
        'Y' => number(moment.year().into(), 4),
        'y' => number((moment.year().rem_euclid(100)).into(), 2),
        'C' => number((moment.year().div_euclid(100)).into(), 2),
        'G' => number(moment.iso_week().year().into(), 4),
        'g' => number((moment.iso_week().year().rem_euclid(100)).into(), 2),
        'm' => number(moment.month().into(), 2),
        'B' => text(MONTHS[moment.month0() as usize].to_owned()),
        'b' | 'h' => text(MONTHS[moment.month0() as usize][..3].to_owned()),
        'd' => number(moment.day().into(), 2),
        'e' => Some(Part::Number(moment.day().into(), 2, ' ')),
        'j' => number(moment.ordinal().into(), 3),
        'U' => number((yday + 7 - i64::from(moment.weekday().num_days_from_sunday())) / 7, 2),
        'W' => number((yday + 7 - i64::from(moment.weekday().num_days_from_monday())) / 7, 2),
        'V' => number(moment.iso_week().week().into(), 2),
        'A' => text(weekday(moment.weekday()).to_owned()),
        'a' => text(weekday(moment.weekday())[..3].to_owned()),
        'w' => number(moment.weekday().num_days_from_sunday().into(), 1),
        'u' => number(moment.weekday().number_from_monday().into(), 1),
        'H' => number(hour.into(), 2),
        'k' => Some(Part::Number(hour.into(), 2, ' ')),
        'I' => number(twelve, 2),
        'l' => Some(Part::Number(twelve, 2, ' ')),
        'p' => text(if pm { "PM" } else { "AM" }.to_owned()),
        'P' => text(if pm { "pm" } else { "am" }.to_owned()),
        'M' => number(moment.minute().into(), 2),
        'S' => number(moment.second().into(), 2),
        'f' => number((moment.nanosecond() % 1_000_000_000 / 1000).into(), 6),
        's' => number(moment.timestamp(), 1),
        'Z' => text(moment.offset().to_string()),
        'c' => whole("%a %b %e %H:%M:%S %Y"),
        'x' | 'D' => whole("%m/%d/%y"),
        'X' | 'T' => whole("%H:%M:%S"),
        'R' => whole("%H:%M"),
        'r' => whole("%I:%M:%S %p"),
        'F' => whole("%Y-%m-%d"),
        'n' => text("\n".to_owned()),
        't' => text("\t".to_owned()),
        '%' => text("%".to_owned()),
        _ => None,
    }
}

fn weekday(day: Weekday) -> &'static str {
    WEEKDAYS[day.num_days_from_monday() as usize]
}

/// `+0100` or `+01:00`.
pub(super) fn offset(offset: FixedOffset, colon: bool) -> String {
    let seconds = offset.local_minus_utc();
    let (sign, rest) = if seconds < 0 { ('-', -seconds) } else { ('+', seconds) };
    let between = if colon { ":" } else { "" };
    let mut text = format!("{sign}{:02}{between}{:02}", rest / 3600, rest / 60 % 60);
    if rest % 60 != 0 {
        text.push_str(&format!("{between}{:02}", rest % 60));
    }
    text
}

/// What `parse` found in a text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parsed {
    pub local: NaiveDateTime,
    pub offset: Option<FixedOffset>,
}

/// The parts of a date, while it is read.
struct Reading {
    year: i32,
    month: u32,
    day: u32,
    day_of_year: Option<u32>,
    hour: u32,
    pm: Option<bool>,
    minute: u32,
    second: u32,
    micros: u32,
    offset: Option<FixedOffset>,
}

/// Reads a text as `format` describes it.
///
/// Errors: where the two do not fit.
pub(super) fn parse(text: &str, format: &str) -> Result<Parsed, String> {
    let unfit = || format!("'{text}' does not have the form '{format}'");
    let mut it = Reading {
        year: 1900,
        month: 1,
        day: 1,
        day_of_year: None,
        hour: 0,
        pm: None,
        minute: 0,
        second: 0,
        micros: 0,
        offset: None,
    };
    let rest = parse_part(&mut it, text, format)?.ok_or_else(unfit)?;
    if !rest.is_empty() {
        return Err(unfit());
    }
    let hour = match it.pm {
        None => it.hour,
        Some(_) if !(1..=12).contains(&it.hour) => return Err(unfit()),
        Some(pm) => it.hour % 12 + if pm { 12 } else { 0 },
    };
    let date = match it.day_of_year {
        Some(day) => NaiveDate::from_yo_opt(it.year, day),
        None => NaiveDate::from_ymd_opt(it.year, it.month, it.day),
    };
    let local =
        date.and_then(|date| date.and_hms_micro_opt(hour, it.minute, it.second, it.micros)).ok_or_else(unfit)?;
    Ok(Parsed { local, offset: it.offset })
}

/// Reads what `format` describes from the start of `text`: what is left of it, or nothing if it does not fit.
fn parse_part<'t>(it: &mut Reading, mut text: &'t str, format: &str) -> Result<Option<&'t str>, String> {
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        let rest = if c == '%' {
            let directive = chars.next().unwrap_or(' ');
            let whole = match directive {
                'F' => Some("%Y-%m-%d"),
                'T' | 'X' => Some("%H:%M:%S"),
                'R' => Some("%H:%M"),
                'D' | 'x' => Some("%m/%d/%y"),
                _ => None,
            };
            match whole {
                Some(whole) => parse_part(it, text, whole)?,
                None if "YymdjHIMSfpBbAaZz%".contains(directive) => parse_one(it, text, directive),
                None => return Err(unknown(format, directive)),
            }
        } else if c.is_whitespace() {
            Some(text.trim_start())
        } else {
            text.strip_prefix(c)
        };
        match rest {
            Some(rest) => text = rest,
            None => return Ok(None),
        }
    }
    Ok(Some(text))
}

fn parse_one<'t>(it: &mut Reading, text: &'t str, directive: char) -> Option<&'t str> {
    let number = |most: usize| {
        let digits = text.bytes().take(most).take_while(u8::is_ascii_digit).count();
        Some((text[..digits].parse::<u32>().ok()?, &text[digits..]))
    };
    let named = |names: &[&str], short: bool| {
        names.iter().enumerate().find_map(|(place, name)| {
            let name = if short { &name[..3] } else { name };
            let head = text.get(..name.len())?;
            head.eq_ignore_ascii_case(name).then(|| (place as u32, &text[name.len()..]))
        })
    };
    let (field, (value, rest)) = match directive {
        'Y' => {
            let (year, rest) = number(4).filter(|_| text.len() >= 4)?;
            it.year = year as i32;
            return Some(rest);
        }
        'y' => {
            let (year, rest) = number(2)?;
            it.year = if year < 69 { 2000 } else { 1900 } + year as i32;
            return Some(rest);
        }
        'f' => {
            let (fraction, rest) = number(6)?;
            it.micros = fraction * 10_u32.pow(6 - (text.len() - rest.len()) as u32);
            return Some(rest);
        }
        'j' => {
            let (day, rest) = number(3)?;
            it.day_of_year = Some(day);
            return Some(rest);
        }
        'p' => {
            let head = text.get(..2)?.to_ascii_lowercase();
            it.pm = Some(matches!(head.as_str(), "pm"));
            return matches!(head.as_str(), "am" | "pm").then(|| &text[2..]);
        }
        'z' => {
            let (offset, rest) = parse_offset(text)?;
            it.offset = Some(offset);
            return Some(rest);
        }
        'Z' => {
            let name = text.len() - text.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
            if matches!(&text[..name], "UTC" | "GMT") {
                it.offset = FixedOffset::east_opt(0);
            }
            return (name > 0).then(|| &text[name..]);
        }
        '%' => return text.strip_prefix('%'),
        'A' => return named(&WEEKDAYS, false).map(|(_, rest)| rest),
        'a' => return named(&WEEKDAYS, true).map(|(_, rest)| rest),
        'B' | 'b' => {
            let (month, rest) = named(&MONTHS, directive == 'b')?;
            (&mut it.month, (month + 1, rest))
        }
        'm' => (&mut it.month, number(2)?),
        'd' => (&mut it.day, number(2)?),
        'H' | 'I' => (&mut it.hour, number(2)?),
        'M' => (&mut it.minute, number(2)?),
        _ => (&mut it.second, number(2)?),
    };
    *field = value;
    Some(rest)
}

/// Reads `Z`, `+0100` or `+01:00`.
fn parse_offset(text: &str) -> Option<(FixedOffset, &str)> {
    if let Some(rest) = text.strip_prefix(['Z', 'z']) {
        return Some((FixedOffset::east_opt(0)?, rest));
    }
    let sign = match text.chars().next()? {
        '+' => 1,
        '-' => -1,
        _ => return None,
    };
    let hours: i32 = text.get(1..3)?.parse().ok()?;
    let rest = text.get(3..)?;
    let rest = rest.strip_prefix(':').unwrap_or(rest);
    let minutes: i32 = rest.get(..2)?.parse().ok()?;
    Some((FixedOffset::east_opt(sign * (hours * 3600 + minutes * 60))?, &rest[2..]))
}

/// Reads a date or a time as ISO 8601 has it, or with a space in the place of the T.
pub(super) fn parse_iso(text: &str) -> Result<Parsed, String> {
    let forms = [
        "%Y-%m-%d",
        "%Y-%m-%dT%H:%M",
        "%Y-%m-%d %H:%M",
        "%Y-%m-%dT%H:%M:%S",
        "%Y-%m-%d %H:%M:%S",
        "%Y-%m-%dT%H:%M:%S.%f",
        "%Y-%m-%d %H:%M:%S.%f",
        "%Y-%m-%dT%H:%M%z",
        "%Y-%m-%dT%H:%M:%S%z",
        "%Y-%m-%d %H:%M:%S%z",
        "%Y-%m-%dT%H:%M:%S.%f%z",
        "%Y-%m-%d %H:%M:%S.%f%z",
        "%Y%m%d",
        "%Y%m%dT%H%M%S",
        "%Y%m%dT%H%M%S%z",
    ];
    forms.iter().find_map(|form| parse(text, form).ok()).ok_or_else(|| {
        format!("'{text}' is not a date; write it as 2021-01-02 or 2021-01-02T06:00:00+00:00, or give its format")
    })
}

impl Parsed {
    /// The moment; without an offset, on a wall clock in `zone`.
    pub(super) fn moment(self, zone: Tz) -> DateTime<Tz> {
        match self.offset {
            Some(offset) => {
                let moment = self.local.and_utc() - TimeDelta::seconds(i64::from(offset.local_minus_utc()));
                moment.with_timezone(&if offset.local_minus_utc() == 0 { Tz::UTC } else { zone })
            }
            None => crate::timetable::zone::instant_of(zone, self.local).with_timezone(&zone),
        }
    }
}
