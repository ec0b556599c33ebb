//! Reading cron expressions: each mistake names the field, and the nearest right form.

use flumen_core::error::nearest;
use flumen_core::{Error, Result};

use super::{Cron, Days, Weekdays, bit};

/// A field: its name, its values, and the names of some of them.
struct Field {
    name: &'static str,
    first: u32,
    last: u32,
    names: &'static [&'static str],
    /// The number of the first name.
    named_from: u32,
}

const SECOND: Field = Field { name: "second", first: 0, last: 59, names: &[], named_from: 0 };
const MINUTE: Field = Field { name: "minute", first: 0, last: 59, names: &[], named_from: 0 };
const HOUR: Field = Field { name: "hour", first: 0, last: 23, names: &[], named_from: 0 };
const DAY: Field = Field { name: "day of the month", first: 1, last: 31, names: &[], named_from: 0 };
const MONTH: Field = Field { name: "month", first: 1, last: 12, names: MONTHS, named_from: 1 };
const WEEKDAY: Field = Field { name: "day of the week", first: 0, last: 7, names: WEEKDAYS, named_from: 0 };

const MONTHS: &[&str] = &["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const WEEKDAYS: &[&str] = &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

/// Names for whole expressions.
const NAMED: &[(&str, &str)] = &[
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

pub(super) fn parse(text: &str) -> Result<Cron> {
    let text = text.trim();
    let expression = match text.strip_prefix('@') {
        None => text,
        Some(_) => named(text)?,
    };
    let fields: Vec<&str> = expression.split_whitespace().collect();
    let (seconds, rest) = match fields.len() {
        5 => ("0", fields.as_slice()),
        6 => (fields[0], &fields[1..]),
        count => return Err(miscounted(text, count)),
    };
    let numbers = |field: &Field, part: &str| field.set(part).map_err(|wrong| wrong.told(text));
    let cron = Cron {
        text: text.to_owned(),
        seconds: numbers(&SECOND, seconds)?,
        minutes: numbers(&MINUTE, rest[0])?,
        hours: numbers(&HOUR, rest[1])?,
        days: days(rest[2]).map_err(|wrong| wrong.told(text))?,
        months: numbers(&MONTH, rest[3])?,
        weekdays: weekdays(rest[4]).map_err(|wrong| wrong.told(text))?,
        real_time: rest[0].starts_with('*') || rest[1].starts_with('*'),
    };
    match cron.local_from(super::super::first_local()) {
        Some(_) => Ok(cron),
        None => {
            Err(Error::invalid(format!("the cron expression '{text}' never fires: none of its months has such a day"))
                .hint("write another day of the month, or L for the last one"))
        }
    }
}

fn named(text: &str) -> Result<&'static str> {
    let found = NAMED.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
    found.map(|(_, expression)| *expression).ok_or_else(|| {
        let names = || NAMED.iter().map(|(name, _)| *name).chain(["@once", "@continuous"]);
        let hint = names().collect::<Vec<_>>().join(", ");
        Error::invalid(format!("there is no schedule '{text}'"))
            .hint(format!("write one of {hint}"))
            .did_you_mean(text, names())
    })
}

fn miscounted(text: &str, count: usize) -> Error {
    let hint = match count {
        7 => "leave out the year; 'start' and 'end' of the schedule bound it",
        _ => "write for example '0 6 2 * *', or '30 0 6 2 * *' with seconds",
    };
    let fields = if count == 1 { "field" } else { "fields" };
    Error::invalid(format!(
        "the cron expression '{text}' has {count} {fields}, not 5 (minute, hour, day of the month, month, day of the week) or 6 (second first)"
    ))
    .hint(hint)
}

/// What is wrong with a field, before it is known in which expression.
struct Wrong {
    what: String,
    hint: String,
}

impl Wrong {
    fn new(what: String, hint: impl Into<String>) -> Self {
        Self { what, hint: hint.into() }
    }

    fn told(self, text: &str) -> Error {
        Error::invalid(format!("the cron expression '{text}' is wrong: {}", self.what)).hint(self.hint)
    }
}

impl Field {
    /// The values that a field describes.
    fn set(&self, text: &str) -> Result<u64, Wrong> {
        text.split(',').try_fold(0, |set, part| Ok(set | self.part(part)?))
    }

    /// The values of one part: `*`, `5`, `1-5`, `*/15`, `10-50/20`, `5/10`.
    fn part(&self, part: &str) -> Result<u64, Wrong> {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, self.step(part, step)?),
            None => (part, 1),
        };
        let (from, to) = match range.split_once('-') {
            _ if range == "*" || range == "?" => (self.first, self.last),
            Some((from, to)) => match (self.value(from)?, self.value(to)?) {
                // Sunday as the end of a week.
                (from, 0) if from > 0 && self.last == 7 => (from, 7),
                pair => pair,
            },
            None if part.contains('/') => (self.value(range)?, self.last),
            None => (self.value(range)?, self.value(range)?),
        };
        if from > to {
            return Err(self.backwards(range, from, to));
        }
        Ok((from..=to).step_by(step as usize).fold(0, |set, value| set | bit(value)))
    }

    fn step(&self, part: &str, step: &str) -> Result<u32, Wrong> {
        let name = self.name;
        match step.parse::<u32>() {
            Ok(0) | Err(_) => Err(Wrong::new(
                format!("the step of the {name} '{part}' is not a number from 1 on"),
                format!("write for example */{}", if self.last > 30 { 15 } else { 2 }),
            )),
            Ok(step) if step > self.last => Err(Wrong::new(
                format!("the step of the {name} '{part}' is larger than {}", self.last),
                format!("write {} for one firing, or a smaller step", self.first),
            )),
            Ok(step) => Ok(step),
        }
    }

    fn value(&self, text: &str) -> Result<u32, Wrong> {
        let name = self.name;
        if let Some(place) = self.names.iter().position(|known| known.eq_ignore_ascii_case(text)) {
            return Ok(self.named_from + place as u32);
        }
        if text.is_empty() {
            return Err(Wrong::new(format!("the {name} has a part that is empty"), self.example()));
        }
        match text.parse::<u32>() {
            Ok(value) if (self.first..=self.last).contains(&value) => Ok(value),
            Ok(value) => Err(Wrong::new(
                format!("the {name} '{text}' is not between {} and {}", self.first, self.last),
                match (value, self.last) {
                    (24, 23) | (60, 59) => "midnight is hour 0, and the full hour minute 0".to_owned(),
                    _ => format!("the nearest is {}", value.clamp(self.first, self.last)),
                },
            )),
            Err(_) => Err(Wrong::new(format!("the {name} '{text}' is not known"), self.meant(text))),
        }
    }

    fn backwards(&self, range: &str, from: u32, to: u32) -> Wrong {
        let last = if self.last == 7 { 6 } else { self.last };
        let word =
            |value: u32| match value.checked_sub(self.named_from).and_then(|place| self.names.get(place as usize)) {
                Some(name) if range.bytes().any(|byte| byte.is_ascii_alphabetic()) => (*name).to_owned(),
                _ => value.to_string(),
            };
        let side = |from: u32, to: u32| match from == to {
            true => word(from),
            false => format!("{}-{}", word(from), word(to)),
        };
        Wrong::new(
            format!("the {} '{range}' runs backwards", self.name),
            format!("write {},{}", side(from.min(last), last), side(self.first, to)),
        )
    }

    fn example(&self) -> String {
        format!(
            "write *, a number from {} to {}, a range such as {0}-{1}, or a step such as */2",
            self.first, self.last
        )
    }

    /// What was probably meant by `text`.
    fn meant(&self, text: &str) -> String {
        let short: String = text.chars().take(3).collect();
        let long = |name: &&&str| text.len() > 3 && name.eq_ignore_ascii_case(&short);
        match self.names.iter().find(long).copied().or_else(|| nearest(text, self.names.iter().copied())) {
            Some(name) => format!("did you mean {name}?"),
            None => self.example(),
        }
    }
}

/// Reads the day of the month.
fn days(text: &str) -> Result<Days, Wrong> {
    let mut days = Days { wildcard: is_wildcard(text), ..Days::default() };
    for part in text.split(',') {
        let upper = part.to_ascii_uppercase();
        if upper == "LW" || upper == "WL" {
            days.last_working_day = true;
        } else if upper == "L" {
            days.before_last |= bit(0);
        } else if let Some(before) = upper.strip_prefix("L-") {
            match before.parse::<u32>() {
                Ok(before) if before <= 30 => days.before_last |= bit(before),
                _ => {
                    return Err(Wrong::new(
                        format!("the day of the month '{part}' is not at most 30 days before the last"),
                        "write L, or L-1 to L-30",
                    ));
                }
            }
        } else if let Some(day) = upper.strip_suffix('W') {
            days.nearest |= bit(single(&DAY, part, day, "15W")?);
        } else {
            days.set |= DAY.part(part)?;
        }
    }
    Ok(days)
}

/// Reads the day of the week.
fn weekdays(text: &str) -> Result<Weekdays, Wrong> {
    let mut weekdays = Weekdays { wildcard: is_wildcard(text), ..Weekdays::default() };
    for part in text.split(',') {
        let upper = part.to_ascii_uppercase();
        if let Some((day, nth)) = upper.split_once('#') {
            let day = single(&WEEKDAY, part, day, "MON#2")? % 7;
            match nth.parse::<u32>() {
                Ok(nth @ 1..=5) => weekdays.nth[day as usize] |= 1 << nth,
                _ => {
                    return Err(Wrong::new(
                        format!("the day of the week '{part}' is not the first to fifth of a month"),
                        "write #1 to #5 after the day, or L for the last one",
                    ));
                }
            }
        } else if let Some(day) = upper.strip_suffix('L') {
            if day.is_empty() {
                return Err(Wrong::new(
                    format!("the day of the week '{part}' does not say the last of which day"),
                    "write 5L or FRIL for the last Friday of a month",
                ));
            }
            weekdays.last |= bit(single(&WEEKDAY, part, day, "5L")? % 7);
        } else {
            let set = WEEKDAY.part(part)?;
            // Sunday is 0 and 7.
            weekdays.set |= (set | set >> 7) & 0x7f;
        }
    }
    Ok(weekdays)
}

/// The one value that goes with a letter.
fn single(field: &Field, part: &str, value: &str, example: &str) -> Result<u32, Wrong> {
    if value.contains(['-', '/', '*']) || value.is_empty() {
        return Err(Wrong::new(
            format!("the {} '{part}' is not about one day", field.name),
            format!("write for example {example}"),
        ));
    }
    field.value(value)
}

fn is_wildcard(text: &str) -> bool {
    text.starts_with('*') || text == "?"
}
