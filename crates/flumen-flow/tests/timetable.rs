//! Timetables, from the outside: text in, times out.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should fail")]

mod timetable {
    mod bounds;
    mod brute_force;
    mod catchup;
    mod cron;
    mod recurrence;
}

use chrono::{DateTime, NaiveDateTime, Utc};
use chrono_tz::Tz;
use flumen_flow::interval::Interval;
use flumen_flow::timetable::dates::Stretch;
use flumen_flow::timetable::{Covers, Rule, Schedule, Timetable};

/// A moment in UTC.
fn at(text: &str) -> DateTime<Utc> {
    let forms = ["%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M"];
    let midnight = format!("{text} 00:00");
    let read = [text, &midnight]
        .into_iter()
        .find_map(|text| forms.iter().find_map(|form| NaiveDateTime::parse_from_str(text, form).ok()));
    read.unwrap().and_utc()
}

fn schedule(zone: Tz, rule: Rule) -> Schedule {
    Schedule { zone, rules: vec![rule], start: None, end: None, covers: Covers::Interval }
}

fn cron(text: &str, zone: Tz) -> Timetable {
    Timetable::new(schedule(zone, Rule::cron(text).unwrap())).unwrap()
}

/// A timetable in UTC with bounds, either of which may be empty.
fn bounded(rule: Rule, start: &str, end: &str) -> Timetable {
    let bound = |text: &str| (!text.is_empty()).then(|| Stretch::parse(text, Tz::UTC).unwrap());
    let (start, end) = (bound(start), bound(end));
    Timetable::new(Schedule { start, end, ..schedule(Tz::UTC, rule) }).unwrap()
}

fn told(error: flumen_core::Error) -> String {
    format!("{error}; {}", error.remedy().unwrap_or("-"))
}

/// `2021-01-02 06:00`, with seconds only where there are any.
fn shown(moment: DateTime<Utc>) -> String {
    let text = moment.format("%Y-%m-%d %H:%M:%S").to_string();
    text.strip_suffix(":00").map_or(text.clone(), str::to_owned)
}

fn shown_interval(interval: Interval) -> String {
    format!("{} .. {}", shown(interval.start), shown(interval.end))
}

/// The firings after `from`, up to `count`; the same ones come from the other end.
fn firings(timetable: &Timetable, from: &str, count: usize) -> Vec<String> {
    let mut moment = at(from);
    let mut found = Vec::new();
    while found.len() < count
        && let Some(next) = timetable.firing_after(moment)
    {
        assert!(next > moment);
        found.push(next);
        moment = next;
    }
    for pair in found.windows(2) {
        assert_eq!(timetable.firing_before(pair[1]), Some(pair[0]), "the way back");
    }
    found.into_iter().map(shown).collect()
}
