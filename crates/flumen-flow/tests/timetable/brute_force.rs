//! Cron against a second reading of its rules that looks at every minute around the days on which clocks are changed.

use chrono::{DateTime, Datelike, NaiveDateTime, TimeDelta, Timelike, Utc};
use chrono_tz::Tz;
use proptest::prelude::*;

use crate::{at, cron};

/// Zones, and first days of stretches of five in which their clocks are changed.
const CHANGES: &[(Tz, &str)] = &[
    (Tz::Europe__Berlin, "2021-03-26"),
    (Tz::Europe__Berlin, "2021-10-29"),
    (Tz::America__New_York, "2021-03-12"),
    (Tz::America__New_York, "2021-11-05"),
    (Tz::Australia__Lord_Howe, "2021-04-01"),
    (Tz::Australia__Lord_Howe, "2021-09-30"),
    (Tz::Pacific__Apia, "2011-12-28"),
    (Tz::UTC, "2021-02-26"),
];

/// The numbers of a field made of `*`, numbers, lists, ranges and steps.
fn has(field: &str, value: u32) -> bool {
    field.split(',').any(|part| {
        let (range, step) = part.split_once('/').map_or((part, 1), |(range, step)| (range, step.parse().unwrap()));
        let (from, to) = match range.split_once('-') {
            Some((from, to)) => (from.parse().unwrap(), to.parse().unwrap()),
            None if range == "*" => (0, 99),
            None => (range.parse().unwrap(), range.parse().unwrap()),
        };
        (from..=to).contains(&value) && (value - from).is_multiple_of(step)
    })
}

fn describes(text: &str, local: NaiveDateTime) -> bool {
    let fields: Vec<&str> = text.split(' ').collect();
    let day = has(fields[2], local.day());
    let weekday = has(fields[4], local.weekday().num_days_from_sunday());
    let days = match fields[2].starts_with('*') || fields[4].starts_with('*') {
        true => day && weekday,
        false => day || weekday,
    };
    has(fields[0], local.minute()) && has(fields[1], local.hour()) && has(fields[3], local.month()) && days
}

/// All firings after `from` and before `until`, by looking at each minute.
fn expected(text: &str, zone: Tz, from: DateTime<Utc>, until: DateTime<Utc>) -> Vec<DateTime<Utc>> {
    let wide = (from - TimeDelta::days(2), until + TimeDelta::days(2));
    let minutes: Vec<_> = std::iter::successors(Some(wide.0), |minute| Some(*minute + TimeDelta::minutes(1)))
        .take_while(|minute| *minute < wide.1)
        .map(|minute| (minute, minute.with_timezone(&zone).naive_local()))
        .collect();
    let mut firings: Vec<DateTime<Utc>> = Vec::new();
    if text.starts_with('*') || text.split(' ').nth(1).unwrap().starts_with('*') {
        firings.extend(minutes.iter().filter(|(_, local)| describes(text, *local)).map(|(minute, _)| minute));
    } else {
        // Each time of the wall clock, by when it was first shown or passed.
        let mut latest = minutes[0].1;
        for (minute, local) in &minutes[1..] {
            while latest < *local {
                latest += TimeDelta::minutes(1);
                if describes(text, latest) {
                    firings.push(*minute);
                }
            }
        }
        firings.dedup();
    }
    firings.retain(|firing| from < *firing && *firing < until);
    firings
}

fn compare(text: &str, zone: Tz, first: &str) {
    let timetable = cron(text, zone);
    let (from, until) = (at(first), at(first) + TimeDelta::days(5));
    let expect = expected(text, zone, from, until);
    let forth = std::iter::successors(timetable.firing_after(from), |firing| timetable.firing_after(*firing));
    let forth: Vec<_> = forth.take_while(|firing| *firing < until).collect();
    assert_eq!(forth, expect, "{text} in {zone} from {first}");
    let back = std::iter::successors(timetable.firing_before(until), |firing| timetable.firing_before(*firing));
    let mut back: Vec<_> = back.take_while(|firing| *firing > from).collect();
    back.reverse();
    assert_eq!(back, expect, "{text} in {zone}, back from {until}");
}

#[test]
fn every_minute_around_changes_of_clocks() {
    let texts = [
        "* * * * *",
        "*/7 * * * *",
        "30 * * * *",
        "0 0 * * *",
        "30 2 * * *",
        "*/20 2 * * *",
        "15 1-3 * * *",
        "45 1 * * *",
        "0,30 0-23 * * *",
        "0 */3 * * *",
        "59 23 * * *",
        "15 2 28-31 * *",
        "15 2 * * 0",
        "5 2 30 * 0",
        "* 2 * * *",
        "10 * * * 0",
    ];
    for (zone, first) in CHANGES {
        for text in texts {
            compare(text, *zone, first);
        }
    }
}

fn field(first: u32, last: u32) -> impl Strategy<Value = String> {
    let number = move || first..=last;
    prop_oneof![
        2 => Just("*".to_owned()),
        1 => (2..=last).prop_map(|step| format!("*/{step}")),
        3 => number().prop_map(|number| number.to_string()),
        2 => (number(), number()).prop_map(|(one, other)| format!("{},{}", one, other)),
        2 => (number(), number(), 1..=5_u32).prop_map(|(one, other, step)| format!("{}-{}/{step}", one.min(other), one.max(other))),
    ]
}

fn text() -> impl Strategy<Value = String> {
    let hour = prop_oneof![field(0, 23), field(0, 4)];
    let day = prop_oneof![3 => Just("*".to_owned()), 1 => field(1, 31)];
    let weekday = prop_oneof![3 => Just("*".to_owned()), 1 => field(0, 6)];
    (field(0, 59), hour, day, weekday).prop_map(|(minute, hour, day, weekday)| {
        // The reading above counts steps of days from 0.
        let day = if day.starts_with("*/") { "*".to_owned() } else { day };
        format!("{minute} {hour} {day} * {weekday}")
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_expressions_around_changes_of_clocks(text in text(), place in 0..CHANGES.len()) {
        let (zone, first) = CHANGES[place];
        compare(&text, zone, first);
    }

    #[test]
    fn there_and_back_is_where_one_was(text in text(), place in 0..CHANGES.len(), seconds in 0_i64..60_000_000, nanos in 0_i64..2) {
        let zone = CHANGES[place].0;
        let timetable = cron(&text, zone);
        let moment = at("2020-06-01") + TimeDelta::seconds(seconds) + TimeDelta::nanoseconds(nanos);
        let (Some(after), Some(before)) = (timetable.firing_after(moment), timetable.firing_before(moment)) else {
            return Err(TestCaseError::fail("it never fires"));
        };
        prop_assert!(before < moment && moment < after);
        let between = timetable.firing_after(before);
        prop_assert!(between == Some(after) || between == Some(moment));
        prop_assert_eq!(timetable.firing_before(after), Some(if between == Some(moment) { moment } else { before }));
        let later = moment + TimeDelta::minutes(7);
        prop_assert!(timetable.firing_after(later) >= Some(after));
    }
}
