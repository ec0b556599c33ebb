//! Reading recurrences: each mistake names the part, and the nearest right form.

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Timelike, Utc, Weekday};
use chrono_tz::Tz;
use flumen_core::{Error, Result};

use super::{Frequency, Recurrence, Rule};
use crate::timetable::dates::Dates;
use crate::timetable::{FIRST_YEAR, LAST_YEAR, zone};

/// The most firings that COUNT may ask for: they are counted when a rule is read.
const MOST_COUNTED: u32 = 1_000_000;

const PROPERTIES: &[&str] = &["DTSTART", "RRULE", "RDATE", "EXDATE"];

const PARTS: &[&str] = &[
    "FREQ",
    "INTERVAL",
    "COUNT",
    "UNTIL",
    "BYMONTH",
    "BYWEEKNO",
    "BYYEARDAY",
    "BYMONTHDAY",
    "BYDAY",
    "BYHOUR",
    "BYMINUTE",
    "BYSECOND",
    "BYSETPOS",
    "WKST",
];

const FREQUENCIES: &[(&str, Frequency)] = &[
    ("SECONDLY", Frequency::Secondly),
    ("MINUTELY", Frequency::Minutely),
    ("HOURLY", Frequency::Hourly),
    ("DAILY", Frequency::Daily),
    ("WEEKLY", Frequency::Weekly),
    ("MONTHLY", Frequency::Monthly),
    ("YEARLY", Frequency::Yearly),
];

const WEEKDAYS: &[(&str, Weekday)] = &[
    ("MO", Weekday::Mon),
    ("TU", Weekday::Tue),
    ("WE", Weekday::Wed),
    ("TH", Weekday::Thu),
    ("FR", Weekday::Fri),
    ("SA", Weekday::Sat),
    ("SU", Weekday::Sun),
];

const TIME_FORMS: &str =
    "write 20210102T060000, 20210102T060000Z for UTC, or ;TZID=Europe/Berlin:20210102T060000 with a time zone";

/// When a rule begins, and in which zone it counts.
#[derive(Clone, Copy)]
struct Start {
    zone: Tz,
    moment: DateTime<Utc>,
}

pub(super) fn parse(text: &str, zone: Tz, start: Option<DateTime<Utc>>) -> Result<Recurrence> {
    let mut begins = None;
    let mut rules = Vec::new();
    let (mut also, mut except) = (Vec::new(), Vec::new());
    for line in text.split_whitespace() {
        let (property, value) = match line.split_once(':') {
            Some(pair) => pair,
            None if line.to_ascii_uppercase().starts_with("FREQ=") => ("RRULE", line),
            None => return Err(no_property(line)),
        };
        let (name, parameters) = property.split_once(';').unwrap_or((property, ""));
        match name.to_ascii_uppercase().as_str() {
            "RRULE" => rules.push(value),
            "DTSTART" => begins = Some(moment(value, zone_of(parameters, zone)?, "DTSTART")?),
            list @ ("RDATE" | "EXDATE") => {
                let zone = zone_of(parameters, zone)?;
                let into = if list == "RDATE" { &mut also } else { &mut except };
                for value in value.split(',') {
                    into.push(moment(value, zone, list)?.moment);
                }
            }
            _ => return Err(no_property(name)),
        }
    }
    let Some(begins) = begins.or(start.map(|moment| Start { zone, moment })) else {
        return Err(Error::invalid(format!("the recurrence '{text}' does not say when it begins"))
            .hint("put DTSTART:20210102T060000 on a line before RRULE, or give the schedule a 'start'"));
    };
    if rules.is_empty() && also.is_empty() {
        return Err(
            Error::invalid(format!("the recurrence '{text}' has no RRULE")).hint("write for example RRULE:FREQ=DAILY")
        );
    }
    let rules = rules.into_iter().map(|text| rule(text, begins)).collect::<Result<Vec<_>>>()?;
    let recurrence = Recurrence { rules, also: Dates::of(also), except: Dates::of(except) };
    match recurrence.after(begins.moment - TimeDelta::seconds(1)) {
        Some(_) => Ok(recurrence),
        None => Err(Error::invalid(format!("the recurrence '{text}' never fires"))
            .hint("some parts of it leave out what the others describe, or UNTIL is before DTSTART")),
    }
}

fn no_property(name: &str) -> Error {
    Error::invalid(format!("'{name}' is no part of a recurrence"))
        .hint("a recurrence has the lines DTSTART:…, RRULE:FREQ=…, RDATE:… and EXDATE:…")
        .did_you_mean(name, PROPERTIES.iter().copied())
}

/// The zone that parameters such as `TZID=Europe/Berlin;VALUE=DATE` name.
fn zone_of(parameters: &str, default: Tz) -> Result<Tz> {
    let mut parameters = parameters.split(';').filter_map(|parameter| parameter.split_once('='));
    match parameters.find(|(name, _)| name.eq_ignore_ascii_case("TZID")) {
        Some((_, name)) => zone::parse(name),
        None => Ok(default),
    }
}

/// Reads `20210102`, `20210102T060000` or `20210102T060000Z`.
fn moment(text: &str, zone: Tz, part: &str) -> Result<Start> {
    let (local, utc) = match text.strip_suffix(['Z', 'z']) {
        Some(local) => (local, true),
        None => (text, false),
    };
    let midnight = |date: NaiveDate| date.and_time(NaiveTime::MIN);
    let read = NaiveDateTime::parse_from_str(local, "%Y%m%dT%H%M%S")
        .or_else(|_| NaiveDate::parse_from_str(local, "%Y%m%d").map(midnight))
        .ok()
        .filter(|read| (FIRST_YEAR..LAST_YEAR).contains(&read.year()) && read.nanosecond() < 1_000_000_000);
    let local =
        read.ok_or_else(|| Error::invalid(format!("the {part} '{text}' is not a date or a time")).hint(TIME_FORMS))?;
    let zone = if utc { Tz::UTC } else { zone };
    Ok(Start { zone, moment: zone::instant_of(zone, local) })
}

fn rule(text: &str, start: Start) -> Result<Rule> {
    let mut parts: Vec<(String, &str)> = Vec::new();
    for part in text.trim_end_matches(';').split(';') {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let name = name.to_ascii_uppercase();
        if !PARTS.contains(&name.as_str()) {
            return Err(Error::invalid(format!("the RRULE '{text}' has no part '{name}'"))
                .hint(format!("the parts are {}", PARTS.join(", ")))
                .did_you_mean(&name, PARTS.iter().copied()));
        }
        if parts.iter().any(|(known, _)| *known == name) {
            return Err(
                Error::invalid(format!("the RRULE '{text}' has {name} twice")).hint("put the values into one list")
            );
        }
        parts.push((name, value));
    }
    let part = |name: &str| parts.iter().find(|(known, _)| known == name).map(|(_, value)| *value);
    let list = |name: &'static str, range: (i32, i32)| numbers(name, part(name), range);
    let local_start = zone::local_at(start.zone, start.moment);
    let mut rule = Rule {
        zone: start.zone,
        start: start.moment,
        local_start,
        frequency: frequency(text, part("FREQ"))?,
        interval: i64::from(list("INTERVAL", (1, 1_000_000))?.first().copied().unwrap_or(1)),
        until: None,
        months: list("BYMONTH", (1, 12))?,
        week_numbers: list("BYWEEKNO", (-53, 53))?,
        year_days: list("BYYEARDAY", (-366, 366))?,
        month_days: list("BYMONTHDAY", (-31, 31))?,
        weekdays: weekdays(part("BYDAY"))?,
        hours: list("BYHOUR", (0, 23))?,
        minutes: list("BYMINUTE", (0, 59))?,
        seconds: list("BYSECOND", (0, 60))?,
        positions: list("BYSETPOS", (-366, 366))?,
        week_start: match part("WKST") {
            Some(day) => weekday("WKST", day)?,
            None => Weekday::Mon,
        },
    };
    contradictions(text, &rule)?;
    fill_in(&mut rule);
    match (part("UNTIL"), part("COUNT")) {
        (Some(_), Some(_)) => {
            return Err(
                Error::invalid(format!("the RRULE '{text}' has both UNTIL and COUNT")).hint("leave out one of them")
            );
        }
        (Some(until), None) => rule.until = Some(end(until, start.zone)?),
        (None, Some(count)) => rule.limit(counted(count)?),
        (None, None) => {}
    }
    Ok(rule)
}

/// The moment of UNTIL. A date is all of its day.
fn end(until: &str, zone: Tz) -> Result<DateTime<Utc>> {
    let end = moment(until, zone, "UNTIL")?.moment;
    match until.len() {
        8 => Ok(end + TimeDelta::days(1) - TimeDelta::seconds(1)),
        _ => Ok(end),
    }
}

fn counted(text: &str) -> Result<u32> {
    match text.parse() {
        Ok(count @ 1..=MOST_COUNTED) => Ok(count),
        _ => Err(Error::invalid(format!("the COUNT '{text}' is not a number from 1 to {MOST_COUNTED}"))
            .hint("write UNTIL=20301231 for an end that is far away")),
    }
}

fn frequency(text: &str, value: Option<&str>) -> Result<Frequency> {
    let names = || FREQUENCIES.iter().map(|(name, _)| *name);
    let hint = || format!("write FREQ= and one of {}", names().collect::<Vec<_>>().join(", "));
    let Some(value) = value else {
        return Err(Error::invalid(format!("the RRULE '{text}' has no FREQ")).hint(hint()));
    };
    let found = FREQUENCIES.iter().find(|(name, _)| name.eq_ignore_ascii_case(value));
    found.map(|(_, frequency)| *frequency).ok_or_else(|| {
        Error::invalid(format!("the FREQ '{value}' is not known")).hint(hint()).did_you_mean(value, names())
    })
}

/// A list of numbers in a range that is sorted; 0 is only in ranges that are never negative.
fn numbers(name: &str, text: Option<&str>, (first, last): (i32, i32)) -> Result<Vec<i32>> {
    let Some(text) = text else { return Ok(Vec::new()) };
    let mut numbers = Vec::new();
    for part in text.split(',') {
        match part.strip_prefix('+').unwrap_or(part).parse::<i32>() {
            Ok(0) if first < 0 => {
                return Err(
                    Error::invalid(format!("the {name} '{text}' has 0")).hint("write 1 for the first, -1 for the last")
                );
            }
            Ok(number) if (first..=last).contains(&number) => numbers.push(number),
            Ok(number) => {
                return Err(Error::invalid(format!("the {name} '{number}' is not between {first} and {last}"))
                    .hint(format!("the nearest is {}", number.clamp(first, last))));
            }
            Err(_) => {
                return Err(Error::invalid(format!("the {name} '{part}' is not a number"))
                    .hint(format!("write numbers from {first} to {last}, with commas between them")));
            }
        }
    }
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers)
}

fn weekday(name: &str, text: &str) -> Result<Weekday> {
    let found = WEEKDAYS.iter().find(|(known, _)| known.eq_ignore_ascii_case(text));
    found.map(|(_, day)| *day).ok_or_else(|| {
        let short: String = text.chars().take(2).collect::<String>().to_ascii_uppercase();
        let error = Error::invalid(format!("the {name} '{text}' is not a day of the week"));
        match WEEKDAYS.iter().any(|(known, _)| *known == short) {
            true => error.hint(format!("did you mean {short}?")),
            false => error.hint("write MO, TU, WE, TH, FR, SA or SU"),
        }
    })
}

fn weekdays(text: Option<&str>) -> Result<Vec<(i32, Weekday)>> {
    let Some(text) = text else { return Ok(Vec::new()) };
    let one = |part: &str| {
        let letters = part.trim_start_matches(|c: char| c.is_ascii_digit() || c == '-' || c == '+');
        let number = &part[..part.len() - letters.len()];
        let nth = match number {
            "" => 0,
            number => *numbers("BYDAY", Some(number), (-53, 53))?.first().unwrap_or(&0),
        };
        Ok((nth, weekday("BYDAY", letters)?))
    };
    text.split(',').map(one).collect()
}

/// What RFC 5545 does not allow together.
fn contradictions(text: &str, rule: &Rule) -> Result<()> {
    let wrong =
        |what: &str, hint: &str| Err(Error::invalid(format!("the RRULE '{text}' {what}")).hint(hint.to_owned()));
    let numbered = rule.weekdays.iter().any(|(nth, _)| *nth != 0);
    if !rule.week_numbers.is_empty() && rule.frequency != Frequency::Yearly {
        return wrong("has BYWEEKNO without FREQ=YEARLY", "write FREQ=YEARLY");
    }
    if numbered && !matches!(rule.frequency, Frequency::Monthly | Frequency::Yearly) {
        return wrong(
            "has a number before a day of the week, but is not monthly or yearly",
            "write FREQ=MONTHLY, or BYDAY=MO",
        );
    }
    if numbered && !rule.week_numbers.is_empty() {
        return wrong("has both BYWEEKNO and a number before a day of the week", "leave out one of them");
    }
    if !rule.month_days.is_empty() && rule.frequency == Frequency::Weekly {
        return wrong("has BYMONTHDAY, but is weekly", "write FREQ=DAILY or FREQ=MONTHLY");
    }
    if !rule.year_days.is_empty() && matches!(rule.frequency, Frequency::Daily | Frequency::Weekly | Frequency::Monthly)
    {
        return wrong("has BYYEARDAY, but is daily, weekly or monthly", "write FREQ=YEARLY");
    }
    Ok(())
}

/// What a rule does not say, it takes from DTSTART.
fn fill_in(rule: &mut Rule) {
    let start = rule.local_start;
    let says_no_day = rule.week_numbers.is_empty()
        && rule.year_days.is_empty()
        && rule.month_days.is_empty()
        && rule.weekdays.is_empty();
    if says_no_day {
        match rule.frequency {
            Frequency::Yearly => {
                if rule.months.is_empty() {
                    rule.months.push(start.month() as i32);
                }
                rule.month_days.push(start.day() as i32);
            }
            Frequency::Monthly => rule.month_days.push(start.day() as i32),
            Frequency::Weekly => rule.weekdays.push((0, start.weekday())),
            _ => {}
        }
    }
    for (list, value, from) in [
        (&mut rule.hours, start.hour(), Frequency::Daily),
        (&mut rule.minutes, start.minute(), Frequency::Hourly),
        (&mut rule.seconds, start.second(), Frequency::Minutely),
    ] {
        if list.is_empty() && rule.frequency >= from {
            list.push(value as i32);
        }
    }
}
