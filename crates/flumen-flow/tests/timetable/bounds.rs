use chrono::{TimeDelta, Utc};
use chrono_tz::Tz;
use flumen_flow::interval::Interval;
use flumen_flow::timetable::dates::Stretch;
use flumen_flow::timetable::{Covers, Rule, Schedule, Timetable};

use crate::{at, bounded, cron, firings, schedule, shown, shown_interval, told};

fn every(text: &str, zone: Tz, start: &str) -> Timetable {
    let start = (!start.is_empty()).then(|| Stretch::parse(start, zone).unwrap());
    Timetable::new(Schedule { start, ..schedule(zone, Rule::every(text).unwrap()) }).unwrap()
}

fn utc(text: &str) -> Stretch {
    Stretch::parse(text, Tz::UTC).unwrap()
}

fn all(timetable: &Timetable, from: &str, to: &str) -> Vec<String> {
    let bound = |text: &str| (!text.is_empty()).then(|| utc(text));
    let forth: Vec<Interval> = timetable.between(bound(from).as_ref(), bound(to).as_ref()).collect();
    let mut back: Vec<Interval> = timetable.between(bound(from).as_ref(), bound(to).as_ref()).rev().collect();
    back.reverse();
    assert_eq!(forth, back);
    forth.into_iter().map(shown_interval).collect()
}

#[test]
fn fixed_intervals() {
    let check = |text: &str, zone: Tz, start: &str, from: &str, expect: &[&str]| {
        assert_eq!(firings(&every(text, zone, start), from, expect.len()), expect, "{text} from {start}");
    };
    check("1h", Tz::UTC, "", "2021-01-05 06:30", &["2021-01-05 07:00", "2021-01-05 08:00"]);
    check("1d", Tz::UTC, "", "2021-01-05 06:30", &["2021-01-06 00:00", "2021-01-07 00:00"]);
    check("1w", Tz::UTC, "", "2021-01-05", &["2021-01-11 00:00", "2021-01-18 00:00"]);
    check(
        "1 month",
        Tz::UTC,
        "2021-01-31",
        "2021-01-01",
        &["2021-01-31 00:00", "2021-02-28 00:00", "2021-03-31 00:00", "2021-04-30 00:00"],
    );
    check("1 quarter", Tz::UTC, "", "2021-01-05", &["2021-04-01 00:00", "2021-07-01 00:00"]);
    check("36h", Tz::UTC, "2021-01-01T06", "2021-01-01", &["2021-01-01 06:00", "2021-01-02 18:00"]);
    // Days follow the wall clock, hours elapsed time.
    check(
        "1d",
        Tz::Europe__Berlin,
        "2021-03-27T06:00",
        "2021-03-26 12:00",
        &["2021-03-27 05:00", "2021-03-28 04:00", "2021-03-29 04:00"],
    );
    check(
        "12h",
        Tz::Europe__Berlin,
        "2021-03-27T06:00",
        "2021-03-26 22:00",
        &["2021-03-27 05:00", "2021-03-27 17:00", "2021-03-28 05:00"],
    );
    // A day that was skipped has no firing of its own.
    check(
        "1d",
        Tz::Pacific__Apia,
        "2011-12-28",
        "2011-12-29",
        &["2011-12-29 10:00", "2011-12-30 10:00", "2011-12-31 10:00"],
    );
}

#[test]
fn a_run_covers_from_one_firing_to_the_next() {
    let taxi = bounded(Rule::cron("0 6 2 * *").unwrap(), "2019-01-01", "2021-07-01");
    let intervals: Vec<Interval> = taxi.all().collect();
    assert_eq!(shown_interval(intervals[0]), "2019-01-02 06:00 .. 2019-02-02 06:00");
    assert_eq!(shown_interval(intervals[29]), "2021-06-02 06:00 .. 2021-07-02 06:00");
    assert_eq!(intervals.len(), 30);
    let (before, after) = taxi.neighbours(&intervals[1]);
    assert_eq!((before, after), (Some(intervals[0]), Some(intervals[2])));
}

#[test]
fn starts_are_bounded_inclusively() {
    let daily = bounded(Rule::cron("@daily").unwrap(), "2021-01-02", "2021-01-04");
    assert_eq!(
        all(&daily, "", ""),
        [
            "2021-01-02 00:00 .. 2021-01-03 00:00",
            "2021-01-03 00:00 .. 2021-01-04 00:00",
            "2021-01-04 00:00 .. 2021-01-05 00:00",
        ]
    );
    assert_eq!(all(&daily, "2021-01-03", "2021-01-03"), ["2021-01-03 00:00 .. 2021-01-04 00:00"]);
    assert_eq!(all(&daily, "2021-01-04", "2021-02"), ["2021-01-04 00:00 .. 2021-01-05 00:00"]);
    assert_eq!(all(&daily, "2020", "2021-01-01"), [""; 0]);
    // A day as the end is all of the day.
    let six = bounded(Rule::cron("0 6 * * *").unwrap(), "2021-01-02", "2021-01-02");
    assert_eq!(all(&six, "", ""), ["2021-01-02 06:00 .. 2021-01-03 06:00"]);
    let hourly = bounded(Rule::every("6h").unwrap(), "2021-01-02T06:00", "");
    assert_eq!(
        all(&hourly, "2021-01-02", "2021-01-02T12:00"),
        ["2021-01-02 06:00 .. 2021-01-02 12:00", "2021-01-02 12:00 .. 2021-01-02 18:00"]
    );
}

#[test]
fn a_trigger_covers_only_its_moment() {
    let rules = vec![Rule::cron("0 6 * * *").unwrap()];
    let (start, end) = (Some(utc("2021-01-02")), Some(utc("2021-01-03")));
    let timetable = Timetable::new(Schedule { zone: Tz::UTC, rules, start, end, covers: Covers::Trigger }).unwrap();
    assert_eq!(
        all(&timetable, "", ""),
        ["2021-01-02 06:00 .. 2021-01-02 06:00", "2021-01-03 06:00 .. 2021-01-03 06:00"]
    );
    assert_eq!(timetable.manual(at("2021-05-01 12:00")), Interval::at(at("2021-05-01 12:00")));
}

#[test]
fn dates_cover_from_the_one_before() {
    let dates = || Rule::dates(["2021-03-01", "2021-01-15", "2021-02-01T06:00"], Tz::UTC).unwrap();
    assert_eq!(
        all(&bounded(dates(), "", ""), "", ""),
        [
            "2021-01-15 00:00 .. 2021-01-15 00:00",
            "2021-01-15 00:00 .. 2021-02-01 06:00",
            "2021-02-01 06:00 .. 2021-03-01 00:00",
        ]
    );
    assert_eq!(
        all(&bounded(dates(), "2021", "2021-01-20"), "", ""),
        ["2021-01-01 00:00 .. 2021-01-15 00:00", "2021-01-15 00:00 .. 2021-02-01 06:00",]
    );
    assert_eq!(
        all(&bounded(dates(), "2021", ""), "2021-01-10", "2021-01-20"),
        ["2021-01-15 00:00 .. 2021-02-01 06:00"]
    );
}

#[test]
fn several_schedules_are_one() {
    let rules = vec![
        Rule::cron("0 6 * * MON-FRI").unwrap(),
        Rule::cron("0 9 * * SAT,SUN").unwrap(),
        Rule::dates(["2021-01-08T12:00"], Tz::UTC).unwrap(),
    ];
    let timetable = Timetable::new(Schedule { rules, ..schedule(Tz::UTC, Rule::Once) }).unwrap();
    assert_eq!(
        all(&timetable, "2021-01-07", "2021-01-09"),
        [
            "2021-01-07 06:00 .. 2021-01-08 06:00",
            "2021-01-08 06:00 .. 2021-01-08 12:00",
            "2021-01-08 12:00 .. 2021-01-09 09:00",
            "2021-01-09 09:00 .. 2021-01-10 09:00",
        ]
    );
}

#[test]
fn what_contradicts_itself() {
    let wrong = |rules: Vec<Rule>, start: Option<&str>, end: Option<&str>| {
        let schedule =
            Schedule { zone: Tz::UTC, rules, start: start.map(utc), end: end.map(utc), covers: Covers::Interval };
        told(Timetable::new(schedule).unwrap_err())
    };
    assert_eq!(
        wrong(vec![], Some("2021-02"), Some("2021-01")),
        "the schedule ends with 2021-01, before it starts with 2021-02; exchange 'start' and 'end'"
    );
    let daily = Rule::cron("@daily").unwrap();
    assert!(
        wrong(vec![daily.clone(), Rule::Once], None, None).contains("does not say when; give the schedule a 'start'")
    );
    assert!(wrong(vec![daily, Rule::Continuous], None, None).contains("@continuous cannot be one of several"));
}

#[test]
fn intervals_by_their_names() {
    let check = |timetable: &Timetable, name: &str, expect: &str| {
        let got = timetable.named(&utc(name)).map_or_else(told, shown_interval);
        assert_eq!(got, expect, "{name}");
    };
    let taxi = bounded(Rule::cron("0 6 2 * *").unwrap(), "2019-01-01", "2021-07-01");
    check(&taxi, "2021-01", "2021-01-02 06:00 .. 2021-02-02 06:00");
    check(&taxi, "2021-01-02", "2021-01-02 06:00 .. 2021-02-02 06:00");
    check(&taxi, "2021-01-02T06:00", "2021-01-02 06:00 .. 2021-02-02 06:00");
    check(
        &taxi,
        "2021-01-05",
        "no interval of the schedule starts in 2021-01-05; the nearest is from 2021-01-02T06:00 to 2021-02-02T06:00: write 2021-01-02T06:00",
    );
    check(
        &taxi,
        "2020",
        "several intervals of the schedule start in 2020; name one of them, such as 2020-01-02T06:00 or 2020-02-02T06:00, or backfill all of them",
    );
    check(&taxi, "2018-12", "no interval of the schedule starts in 2018-12; the schedule starts with 2019-01-01T00:00");
    check(&taxi, "2021-08", "no interval of the schedule starts in 2021-08; the schedule ends before 2021-07-02T00:00");
    let unscheduled = Timetable::new(Schedule { rules: vec![], ..schedule(Tz::UTC, Rule::Once) }).unwrap();
    check(&unscheduled, "2021-01", "2021-01-01 00:00 .. 2021-02-01 00:00");
    assert!(!unscheduled.is_scheduled());
}

#[test]
fn a_manual_run_covers_the_last_complete_interval() {
    let check = |timetable: &Timetable, now: &str, expect: &str| {
        assert_eq!(shown_interval(timetable.manual(at(now))), expect, "{now}");
    };
    let daily = bounded(Rule::cron("@daily").unwrap(), "2021-01-02", "2021-01-04");
    check(&daily, "2021-01-04 12:00", "2021-01-03 00:00 .. 2021-01-04 00:00");
    check(&daily, "2021-01-04", "2021-01-03 00:00 .. 2021-01-04 00:00");
    check(&daily, "2022-01-01", "2021-01-04 00:00 .. 2021-01-05 00:00");
    check(&daily, "2021-01-02 12:00", "2021-01-02 12:00 .. 2021-01-02 12:00");
    check(&cron("*/5 * * * *", Tz::UTC), "2021-01-02 12:01", "2021-01-02 11:55 .. 2021-01-02 12:00");
    for rule in [Rule::Once, Rule::Continuous] {
        let timetable = Timetable::new(schedule(Tz::UTC, rule)).unwrap();
        check(&timetable, "2021-01-02 12:01", "2021-01-02 12:01 .. 2021-01-02 12:01");
    }
}

#[test]
fn a_preview_begins_with_what_is_due_next() {
    let daily = cron("0 6 * * *", Tz::UTC);
    let next: Vec<String> = daily.upcoming(at("2021-01-05 06:00")).take(2).map(shown_interval).collect();
    assert_eq!(next, ["2021-01-05 06:00 .. 2021-01-06 06:00", "2021-01-06 06:00 .. 2021-01-07 06:00"]);
    let later = bounded(Rule::cron("0 6 * * *").unwrap(), "2021-03-01", "2021-03-01");
    let next: Vec<String> = later.upcoming(at("2021-01-05 06:00")).map(shown_interval).collect();
    assert_eq!(next, ["2021-03-01 06:00 .. 2021-03-02 06:00"]);
    assert_eq!(later.upcoming(at("2022-01-01")).next(), None);
}

#[test]
fn what_is_shown_can_be_read_again() {
    let berlin = cron("0 * * * *", Tz::Europe__Berlin);
    for (moment, text) in [
        ("2021-10-31 00:00", "2021-10-31T02:00"),
        ("2021-10-31 01:00", "2021-10-31T02:00+01:00"),
        ("2021-06-01 12:00:01", "2021-06-01T14:00:01"),
    ] {
        assert_eq!(berlin.shown(at(moment)), text);
        assert_eq!(Stretch::parse(text, Tz::Europe__Berlin).unwrap().first, at(moment));
    }
}

#[test]
fn a_hundred_thousand_intervals_are_no_work() {
    let hourly = bounded(Rule::cron("0 * * * *").unwrap(), "2000-01-01", "");
    let last = hourly.between(None, None).nth(99_999).unwrap();
    assert_eq!(shown(last.start), "2011-05-29 15:00");
    let daily = bounded(Rule::cron("30 2 * * *").unwrap(), "1900-01-02", "");
    assert_eq!(daily.all().count(), 109_571);
    assert_eq!(daily.all().rev().take(50_000).count(), 50_000);
}

#[test]
fn moments_out_of_all_reason_do_no_harm() {
    let timetable = cron("* * * * *", Tz::Europe__Berlin);
    let (first, last) = (chrono::DateTime::<Utc>::MIN_UTC, chrono::DateTime::<Utc>::MAX_UTC);
    assert_eq!(timetable.firing_after(last), None);
    assert_eq!(timetable.firing_before(first), None);
    assert!(timetable.firing_after(first).is_some() && timetable.firing_before(last).is_some());
    for moment in [first, last] {
        timetable.last_complete(moment);
        timetable.manual(moment);
        timetable.upcoming(moment).next();
    }
    let every = every("1 month", Tz::UTC, "2021-01-31");
    assert!(every.firing_after(at("1900-01-01") + TimeDelta::days(1)).is_some());
}
