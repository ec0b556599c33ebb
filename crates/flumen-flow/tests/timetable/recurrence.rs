use chrono::{DateTime, NaiveDateTime, Utc};
use chrono_tz::Tz;
use flumen_flow::timetable::{Rule, Timetable};

use crate::{at, bounded, firings, schedule, told};

/// Random rules, each with its first firings as python-dateutil 2.9 finds them; `end` after the last one of a rule that ends.
/// None is weekly with BYSETPOS: there dateutil counts in the first week from DTSTART on, and RFC 5545 from its first day on.
const RECURRENCES: &str = include_str!("recurrences.txt");

fn timetable(text: &str, zone: Tz) -> Timetable {
    Timetable::new(schedule(zone, Rule::recurrence(text, zone, None).unwrap())).unwrap()
}

fn check(zone: Tz, text: &str, from: &str, expect: &[&str]) {
    assert_eq!(firings(&timetable(text, zone), from, expect.len()), expect, "{text}");
}

fn moment(text: &str) -> DateTime<Utc> {
    NaiveDateTime::parse_from_str(text, "%Y%m%dT%H%M%S").unwrap().and_utc()
}

#[test]
fn random_rules_fire_as_dateutil_has_it() {
    let lines: Vec<&str> = RECURRENCES.lines().collect();
    for pair in lines.chunks(2) {
        let timetable = timetable(pair[0], Tz::UTC);
        let ends = pair[1].ends_with(" end");
        let expect: Vec<_> = pair[1].split_whitespace().filter(|word| *word != "end").map(moment).collect();
        let mut last = moment("19000102T000000");
        for (place, wanted) in expect.iter().enumerate() {
            assert_eq!(timetable.firing_after(last), Some(*wanted), "{} after {last}", pair[0]);
            let before = place.checked_sub(1).map(|before| expect[before]);
            assert_eq!(timetable.firing_before(*wanted), before, "{} before {wanted}", pair[0]);
            last = *wanted;
        }
        if ends && last < moment("21940101T000000") {
            assert_eq!(
                timetable.firing_after(last).filter(|next| *next < moment("21950101T000000")),
                None,
                "{}",
                pair[0]
            );
        }
    }
}

#[test]
fn lists_of_dates_beside_rules() {
    let text = "DTSTART:20210101T090000Z\nRRULE:FREQ=DAILY;COUNT=4\nEXDATE:20210102T090000Z,20210103T090000Z\nRDATE:20210110T120000Z";
    check(Tz::Europe__Berlin, text, "2021-01-01", &["2021-01-01 09:00", "2021-01-04 09:00", "2021-01-10 12:00"]);
    let two = "DTSTART:20210101T090000Z RRULE:FREQ=MONTHLY RRULE:FREQ=MONTHLY;BYMONTHDAY=-1";
    check(Tz::UTC, two, "2021-01-01", &["2021-01-01 09:00", "2021-01-31 09:00", "2021-02-01 09:00"]);
}

#[test]
fn zones_and_changes_of_clocks() {
    check(
        Tz::UTC,
        "DTSTART;TZID=Europe/Berlin:20210327T023000 RRULE:FREQ=DAILY",
        "2021-03-27",
        &["2021-03-27 01:30", "2021-03-28 01:00", "2021-03-29 00:30"],
    );
    check(
        Tz::Europe__Berlin,
        "DTSTART:20211030T023000 RRULE:FREQ=DAILY",
        "2021-10-30",
        &["2021-10-30 00:30", "2021-10-31 00:30", "2021-11-01 01:30"],
    );
    // Hours follow elapsed time: the repeated one fires twice.
    check(
        Tz::Europe__Berlin,
        "DTSTART:20211031T010000 RRULE:FREQ=HOURLY",
        "2021-10-30 22:30",
        &["2021-10-30 23:00", "2021-10-31 00:00", "2021-10-31 01:00", "2021-10-31 02:00"],
    );
    check(
        Tz::Europe__Berlin,
        "DTSTART:20210301T000000 RRULE:FREQ=HOURLY;BYHOUR=2;BYMINUTE=0,30",
        "2021-03-27 02:00",
        &["2021-03-29 00:00", "2021-03-29 00:30"],
    );
    check(
        Tz::Pacific__Apia,
        "DTSTART:20111229T120000 RRULE:FREQ=DAILY",
        "2011-12-29",
        &["2011-12-29 22:00", "2011-12-30 10:00", "2011-12-30 22:00"],
    );
}

#[test]
fn without_dtstart_the_schedule_says_when_it_begins() {
    let start = flumen_flow::timetable::dates::Stretch::parse("2021-01-05T06:00", Tz::UTC).unwrap();
    let rule = Rule::recurrence("FREQ=WEEKLY;BYDAY=MO,FR", Tz::UTC, Some(&start)).unwrap();
    let timetable = bounded(rule, "2021-01-05T06:00", "");
    assert_eq!(firings(&timetable, "2021-01-01", 2), ["2021-01-08 06:00", "2021-01-11 06:00"]);
}

#[test]
fn the_next_firing_of_an_old_rule_is_no_work() {
    let secondly = timetable("DTSTART:19000102T000000Z RRULE:FREQ=SECONDLY;INTERVAL=7", Tz::UTC);
    for day in 0..1000 {
        let from = at("2021-01-01") + chrono::TimeDelta::days(day);
        assert!(secondly.firing_after(from).unwrap() - from <= chrono::TimeDelta::seconds(7));
        assert!(from - secondly.firing_before(from).unwrap() <= chrono::TimeDelta::seconds(7));
    }
}

#[test]
fn mistakes_name_the_part() {
    fn wrong(text: &str, expect: &str) {
        assert_eq!(told(Rule::recurrence(text, Tz::UTC, None).unwrap_err()), expect);
    }
    let start = "DTSTART:20210101T060000 RRULE:";
    wrong(
        "FREQ=DAILY",
        "the recurrence 'FREQ=DAILY' does not say when it begins; put DTSTART:20210102T060000 on a line before RRULE, or give the schedule a 'start'",
    );
    wrong(&format!("{start}FREQ=DAYLY"), "the FREQ 'DAYLY' is not known; did you mean 'DAILY'?");
    wrong(
        &format!("{start}FREQ=DAILY;INTERVALL=2"),
        "the RRULE 'FREQ=DAILY;INTERVALL=2' has no part 'INTERVALL'; did you mean 'INTERVAL'?",
    );
    wrong(
        &format!("{start}INTERVAL=2"),
        "the RRULE 'INTERVAL=2' has no FREQ; write FREQ= and one of SECONDLY, MINUTELY, HOURLY, DAILY, WEEKLY, MONTHLY, YEARLY",
    );
    wrong(&format!("{start}FREQ=DAILY;BYHOUR=24"), "the BYHOUR '24' is not between 0 and 23; the nearest is 23");
    wrong(&format!("{start}FREQ=DAILY;BYDAY=MON"), "the BYDAY 'MON' is not a day of the week; did you mean MO?");
    wrong(
        &format!("{start}FREQ=DAILY;BYDAY=2MO"),
        "the RRULE 'FREQ=DAILY;BYDAY=2MO' has a number before a day of the week, but is not monthly or yearly; write FREQ=MONTHLY, or BYDAY=MO",
    );
    wrong(
        &format!("{start}FREQ=DAILY;COUNT=2;UNTIL=20220101"),
        "the RRULE 'FREQ=DAILY;COUNT=2;UNTIL=20220101' has both UNTIL and COUNT; leave out one of them",
    );
    wrong(
        &format!("{start}FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30"),
        "the recurrence 'DTSTART:20210101T060000 RRULE:FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30' never fires; some parts of it leave out what the others describe, or UNTIL is before DTSTART",
    );
    wrong(
        &format!("{start}FREQ=SECONDLY;INTERVAL=60;BYSECOND=30"),
        "the recurrence 'DTSTART:20210101T060000 RRULE:FREQ=SECONDLY;INTERVAL=60;BYSECOND=30' never fires; some parts of it leave out what the others describe, or UNTIL is before DTSTART",
    );
    wrong("DTSTRAT:20210101T060000", "'DTSTRAT' is no part of a recurrence; did you mean 'DTSTART'?");
    wrong(
        "DTSTART:2021-01-01",
        "the DTSTART '2021-01-01' is not a date or a time; write 20210102T060000, 20210102T060000Z for UTC, or ;TZID=Europe/Berlin:20210102T060000 with a time zone",
    );
    wrong(
        "DTSTART;TZID=Europe/Berln:20210101T060000",
        "there is no time zone 'Europe/Berln'; did you mean 'Europe/Berlin'?",
    );
}
