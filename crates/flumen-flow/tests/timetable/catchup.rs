use chrono_tz::Tz;
use flumen_flow::interval::Interval;
use flumen_flow::timetable::{Catchup, Intervals, Rule, Timetable, Watch};
use proptest::prelude::*;

use crate::{at, bounded, cron, schedule, shown};

/// The logical dates of intervals.
fn starts(intervals: Intervals<'_>) -> Vec<String> {
    intervals.map(|interval| shown(interval.start)).collect()
}

fn watch(last: Option<(&str, &str)>, known_since: &str, watched_since: &str) -> Watch {
    let last = last.map(|(start, end)| Interval { start: at(start), end: at(end) });
    Watch { last, known_since: at(known_since), watched_since: at(watched_since) }
}

fn check(timetable: &Timetable, policy: Catchup, watch: Watch, now: &str, missed: &[&str], run: &[&str]) {
    let due = timetable.due(policy, &watch, at(now));
    assert_eq!(
        (starts(due.missed), starts(due.run)),
        (missed.iter().map(|it| (*it).to_owned()).collect(), run.iter().map(|it| (*it).to_owned()).collect()),
        "{policy:?} at {now}"
    );
}

#[test]
fn after_being_down_for_days() {
    let daily = cron("@daily", Tz::UTC);
    let down = watch(Some(("2021-01-01", "2021-01-02")), "2020-01-01", "2021-01-05 12:00");
    let all = ["2021-01-02 00:00", "2021-01-03 00:00", "2021-01-04 00:00"];
    check(&daily, Catchup::All, down, "2021-01-05 12:00", &[], &all);
    check(&daily, Catchup::Last, down, "2021-01-05 12:00", &all[..2], &all[2..]);
    check(&daily, Catchup::None, down, "2021-01-05 12:00", &all, &[]);
    // What ends while somebody watches is run under each policy.
    let up = watch(Some(("2021-01-04", "2021-01-05")), "2020-01-01", "2021-01-05 12:00");
    for policy in [Catchup::All, Catchup::Last, Catchup::None] {
        check(&daily, policy, up, "2021-01-05 23:59", &[], &[]);
        check(&daily, policy, up, "2021-01-06", &[], &["2021-01-05 00:00"]);
    }
}

#[test]
fn a_flow_that_is_new() {
    // Without a start, nothing before was its own.
    let fresh = watch(None, "2021-01-05 12:00", "2021-01-05 12:00");
    let daily = cron("@daily", Tz::UTC);
    for policy in [Catchup::All, Catchup::Last, Catchup::None] {
        check(&daily, policy, fresh, "2021-01-05 12:00", &[], &[]);
        check(&daily, policy, fresh, "2021-01-06", &[], &["2021-01-05 00:00"]);
    }
    let since = bounded(Rule::cron("@daily").unwrap(), "2021-01-03", "");
    check(&since, Catchup::All, fresh, "2021-01-05 12:00", &[], &["2021-01-03 00:00", "2021-01-04 00:00"]);
    check(&since, Catchup::Last, fresh, "2021-01-05 12:00", &["2021-01-03 00:00"], &["2021-01-04 00:00"]);
    check(&since, Catchup::None, fresh, "2021-01-05 12:00", &["2021-01-03 00:00", "2021-01-04 00:00"], &[]);
    let over = bounded(Rule::cron("@daily").unwrap(), "2021-01-01", "2021-01-02");
    check(&over, Catchup::Last, fresh, "2021-01-05 12:00", &["2021-01-01 00:00"], &["2021-01-02 00:00"]);
}

#[test]
fn a_clock_that_goes_back_does_no_harm() {
    let done = watch(Some(("2021-01-04", "2021-01-05")), "2020-01-01", "2021-01-05 12:00");
    check(&cron("@daily", Tz::UTC), Catchup::All, done, "2020-12-01", &[], &[]);
}

#[test]
fn once_and_always() {
    let fresh = watch(None, "2021-01-05 12:00", "2021-01-05 12:00");
    let once = Timetable::new(schedule(Tz::UTC, Rule::cron("@once").unwrap())).unwrap();
    check(&once, Catchup::Last, fresh, "2021-01-05 12:00", &[], &["2021-01-05 12:00"]);
    let done = watch(Some(("2021-01-05 12:00", "2021-01-05 12:00")), "2021-01-05 12:00", "2021-01-05 12:00");
    check(&once, Catchup::Last, done, "2021-01-06", &[], &[]);
    let dated = bounded(Rule::Once, "2021-01-06", "");
    check(&dated, Catchup::Last, fresh, "2021-01-05 12:00", &[], &[]);
    check(&dated, Catchup::Last, fresh, "2021-01-07", &[], &["2021-01-06 00:00"]);
    let always = bounded(Rule::Continuous, "2021-01-01", "");
    assert!(always.is_continuous());
    let due = always.due(Catchup::Last, &fresh, at("2021-01-05 12:00")).run.next().unwrap();
    assert_eq!((shown(due.start), shown(due.end)), ("2021-01-01 00:00".to_owned(), "2021-01-05 12:00".to_owned()));
    let again =
        always.due(Catchup::Last, &Watch { last: Some(due), ..fresh }, at("2021-01-05 12:10")).run.next().unwrap();
    assert_eq!((again.start, again.end), (due.end, at("2021-01-05 12:10")));
    let unscheduled =
        Timetable::new(flumen_flow::timetable::Schedule { rules: vec![], ..schedule(Tz::UTC, Rule::Once) }).unwrap();
    check(&unscheduled, Catchup::All, fresh, "2021-02-01", &[], &[]);
}

#[test]
fn the_next_moment_at_which_something_is_due() {
    let fresh = watch(None, "2021-01-05 12:00", "2021-01-05 12:00");
    let done = watch(Some(("2021-01-04", "2021-01-05")), "2021-01-01", "2021-01-01");
    let special = |text: &str| Timetable::new(schedule(Tz::UTC, Rule::cron(text).unwrap())).unwrap();
    let none = flumen_flow::timetable::Schedule { rules: vec![], ..schedule(Tz::UTC, Rule::Once) };
    for (timetable, watch, expect) in [
        (cron("@daily", Tz::UTC), fresh, Some("2021-01-06 00:00")),
        (cron("@daily", Tz::UTC), done, Some("2021-01-06 00:00")),
        (bounded(Rule::cron("@daily").unwrap(), "2021-01-01", ""), fresh, Some("2021-01-05 12:00")),
        (bounded(Rule::cron("@daily").unwrap(), "2021-01-01", "2021-01-04"), done, None),
        (special("@once"), fresh, Some("2021-01-05 12:00")),
        (special("@once"), done, None),
        (bounded(Rule::Continuous, "2021-01-07", ""), fresh, Some("2021-01-07 00:00")),
        (bounded(Rule::Continuous, "2021-01-01", ""), done, Some("2021-01-05 12:00")),
        (Timetable::new(none).unwrap(), fresh, None),
    ] {
        assert_eq!(timetable.next_due(&watch, at("2021-01-05 12:00")).map(shown).as_deref(), expect, "{timetable:?}");
    }
}

#[test]
fn a_schedule_that_was_changed_goes_on_with_what_ends_later() {
    let monthly = cron("@monthly", Tz::UTC);
    let daily_before = watch(Some(("2021-01-14", "2021-01-15")), "2020-01-01", "2021-01-01");
    check(&monthly, Catchup::All, daily_before, "2021-02-01", &[], &["2021-01-01 00:00"]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    /// However often one asks: each interval is decided once, in order, and none is left out.
    #[test]
    fn every_interval_is_decided_once(policy in 0..3_usize, steps in prop::collection::vec(1_i64..4000, 1..40)) {
        let policy = [Catchup::All, Catchup::Last, Catchup::None][policy];
        let timetable = cron("*/20 * * * *", Tz::Europe__Berlin);
        let mut now = at("2021-03-27 20:00");
        let mut watch = Watch { last: None, known_since: now, watched_since: now };
        let mut decided = Vec::new();
        for minutes in steps {
            now += chrono::TimeDelta::minutes(minutes % 700);
            let due = timetable.due(policy, &watch, now);
            let (missed, run): (Vec<_>, Vec<_>) = (due.missed.collect(), due.run.collect());
            prop_assert!(policy == Catchup::All || run.len() <= 1);
            prop_assert!(policy != Catchup::All || missed.is_empty());
            decided.extend(missed);
            decided.extend(run);
            watch.last = decided.last().copied();
        }
        let expect: Vec<_> = timetable.upcoming(at("2021-03-27 20:00")).ended_by(now).collect();
        prop_assert_eq!(decided, expect);
    }
}
