use chrono_tz::Tz;
use flumen_flow::timetable::Rule;

use crate::{cron, firings, told};

fn check(text: &str, from: &str, expect: &[&str]) {
    assert_eq!(firings(&cron(text, Tz::UTC), from, expect.len()), expect, "{text}");
}

fn check_in(zone: Tz, text: &str, from: &str, expect: &[&str]) {
    assert_eq!(firings(&cron(text, zone), from, expect.len()), expect, "{text}");
}

#[test]
fn fields() {
    check("0 6 2 * *", "2021-01-15", &["2021-02-02 06:00", "2021-03-02 06:00"]);
    check(
        "*/20 8-9 * * *",
        "2021-01-01 08:30",
        &["2021-01-01 08:40", "2021-01-01 09:00", "2021-01-01 09:20", "2021-01-01 09:40", "2021-01-02 08:00"],
    );
    check("30 0 6 2 * *", "2021-01-15", &["2021-02-02 06:00:30"]);
    check("*/20 * * * * *", "2021-01-15 00:00:30", &["2021-01-15 00:00:40", "2021-01-15 00:01"]);
    check("5/20 0 * * *", "2021-01-15", &["2021-01-15 00:05", "2021-01-15 00:25", "2021-01-15 00:45"]);
    check("0 0 1 JAN,jul *", "2021-01-15", &["2021-07-01 00:00", "2022-01-01 00:00"]);
    check("0 0 * * MON-FRI", "2021-01-15", &["2021-01-18 00:00", "2021-01-19 00:00"]);
    check("0 0 * * fri-sun", "2021-01-17", &["2021-01-22 00:00", "2021-01-23 00:00", "2021-01-24 00:00"]);
    check("0 0 * * 7", "2021-01-15", &["2021-01-17 00:00"]);
    check("0 0 ? * 0", "2021-01-15", &["2021-01-17 00:00"]);
    check("0 0 29 2 *", "2021-01-15", &["2024-02-29 00:00", "2028-02-29 00:00"]);
    check("0 0 29 2 *", "2096-03-01", &["2104-02-29 00:00"]);
}

#[test]
fn days_of_month_and_week_together() {
    // Either, where both are restricted.
    check("0 0 13 * FRI", "2021-08-01", &["2021-08-06 00:00", "2021-08-13 00:00", "2021-08-20 00:00"]);
    check("0 0 1 * MON", "2021-08-20", &["2021-08-23 00:00", "2021-08-30 00:00", "2021-09-01 00:00"]);
    // Both, where one begins with a star.
    check("0 0 */2 * MON", "2021-08-01", &["2021-08-09 00:00", "2021-08-23 00:00", "2021-09-13 00:00"]);
}

#[test]
fn last_days_and_working_days() {
    check("0 0 L * *", "2021-01-31", &["2021-02-28 00:00", "2021-03-31 00:00"]);
    check("0 0 L-3 * *", "2021-01-31", &["2021-02-25 00:00"]);
    check("0 0 1,L * *", "2021-01-15", &["2021-01-31 00:00", "2021-02-01 00:00"]);
    check("0 0 LW * *", "2021-01-15", &["2021-01-29 00:00", "2021-02-26 00:00"]);
    check(
        "0 0 15W * *",
        "2021-05-01",
        &["2021-05-14 00:00", "2021-06-15 00:00", "2021-07-15 00:00", "2021-08-16 00:00"],
    );
    check("0 0 1W * *", "2021-04-30", &["2021-05-03 00:00", "2021-06-01 00:00"]);
    check("0 0 31W * *", "2021-10-01", &["2021-10-29 00:00", "2021-12-31 00:00"]);
    check("0 0 * * 5L", "2021-01-15", &["2021-01-29 00:00", "2021-02-26 00:00"]);
    check("0 0 * * MON#2", "2021-01-15", &["2021-02-08 00:00", "2021-03-08 00:00"]);
    check("0 0 * * 1#5", "2021-01-15", &["2021-03-29 00:00", "2021-05-31 00:00"]);
    check("0 0 * * TUE#1,FRIL", "2021-01-15", &["2021-01-29 00:00", "2021-02-02 00:00"]);
}

#[test]
fn names() {
    check("@hourly", "2021-01-15 00:30", &["2021-01-15 01:00"]);
    check("@daily", "2021-01-15 00:30", &["2021-01-16 00:00"]);
    check("@weekly", "2021-01-15 00:30", &["2021-01-17 00:00"]);
    check("@monthly", "2021-01-15 00:30", &["2021-02-01 00:00"]);
    check("@yearly", "2021-01-15 00:30", &["2022-01-01 00:00"]);
}

#[test]
fn a_time_in_the_gap_runs_once_at_the_first_instant_after_it() {
    check_in(
        Tz::Europe__Berlin,
        "30 2 * * *",
        "2021-03-27",
        &["2021-03-27 01:30", "2021-03-28 01:00", "2021-03-29 00:30"],
    );
    // Two times of the same gap, and the one that the gap ends with.
    check_in(Tz::Europe__Berlin, "0 2,3 * * *", "2021-03-28", &["2021-03-28 01:00", "2021-03-29 00:00"]);
    check_in(Tz::America__New_York, "15,45 2 * * *", "2021-03-14", &["2021-03-14 07:00", "2021-03-15 06:15"]);
    check_in(
        Tz::Pacific__Apia,
        "0 12 * * *",
        "2011-12-29",
        &["2011-12-29 22:00", "2011-12-30 10:00", "2011-12-30 22:00"],
    );
    check_in(Tz::Pacific__Apia, "0 12 30 12 *", "2011-01-01", &["2011-12-30 10:00", "2012-12-29 22:00"]);
}

#[test]
fn a_time_that_comes_twice_runs_once_the_first_time() {
    check_in(Tz::Europe__Berlin, "30 2 * * *", "2021-10-30 12:00", &["2021-10-31 00:30", "2021-11-01 01:30"]);
    check_in(Tz::Australia__Lord_Howe, "45 1 * * *", "2021-04-03", &["2021-04-03 14:45", "2021-04-04 15:15"]);
}

#[test]
fn wildcards_run_on_every_real_hour_and_minute() {
    let hours = ["2021-10-31 00:00", "2021-10-31 01:00", "2021-10-31 02:00", "2021-10-31 03:00"];
    check_in(Tz::Europe__Berlin, "0 * * * *", "2021-10-30 23:30", &hours);
    check_in(Tz::Europe__Berlin, "0 * * * *", "2021-03-28 00:00", &["2021-03-28 01:00", "2021-03-28 02:00"]);
    check_in(
        Tz::Europe__Berlin,
        "*/30 2 * * *",
        "2021-10-31",
        &["2021-10-31 00:30", "2021-10-31 01:00", "2021-10-31 01:30", "2021-11-01 01:00"],
    );
    check_in(Tz::Europe__Berlin, "*/30 2 28 3 *", "2021-01-01", &["2022-03-28 00:00"]);
    check_in(
        Tz::Europe__Berlin,
        "*/30 2 31 10 *",
        "2021-10-31 00:40",
        &["2021-10-31 01:00", "2021-10-31 01:30", "2022-10-31 01:00"],
    );
}

#[test]
fn mistakes_name_the_field_and_the_nearest_right_form() {
    fn wrong(text: &str, expect: &str) {
        assert_eq!(told(Rule::cron(text).unwrap_err()), expect);
    }
    wrong(
        "0 25 * * *",
        "the cron expression '0 25 * * *' is wrong: the hour '25' is not between 0 and 23; the nearest is 23",
    );
    wrong(
        "0 24 * * *",
        "the cron expression '0 24 * * *' is wrong: the hour '24' is not between 0 and 23; midnight is hour 0, and the full hour minute 0",
    );
    wrong(
        "0 0 * * MNO",
        "the cron expression '0 0 * * MNO' is wrong: the day of the week 'MNO' is not known; did you mean MON?",
    );
    wrong(
        "0 0 * sept *",
        "the cron expression '0 0 * sept *' is wrong: the month 'sept' is not known; did you mean SEP?",
    );
    wrong(
        "0 0 * * FRI-MON",
        "the cron expression '0 0 * * FRI-MON' is wrong: the day of the week 'FRI-MON' runs backwards; write FRI-SAT,SUN-MON",
    );
    wrong(
        "0 22-2 * * *",
        "the cron expression '0 22-2 * * *' is wrong: the hour '22-2' runs backwards; write 22-23,0-2",
    );
    wrong(
        "*/0 * * * *",
        "the cron expression '*/0 * * * *' is wrong: the step of the minute '*/0' is not a number from 1 on; write for example */15",
    );
    wrong(
        "1,,2 * * * *",
        "the cron expression '1,,2 * * * *' is wrong: the minute has a part that is empty; write *, a number from 0 to 59, a range such as 0-59, or a step such as */2",
    );
    wrong(
        "0 0 30 2 *",
        "the cron expression '0 0 30 2 *' never fires: none of its months has such a day; write another day of the month, or L for the last one",
    );
    wrong(
        "0 0 * * L",
        "the cron expression '0 0 * * L' is wrong: the day of the week 'L' does not say the last of which day; write 5L or FRIL for the last Friday of a month",
    );
    wrong(
        "0 0 * * MON#6",
        "the cron expression '0 0 * * MON#6' is wrong: the day of the week 'MON#6' is not the first to fifth of a month; write #1 to #5 after the day, or L for the last one",
    );
    wrong(
        "0 0 1-5W * *",
        "the cron expression '0 0 1-5W * *' is wrong: the day of the month '1-5W' is not about one day; write for example 15W",
    );
    wrong(
        "0 6 2",
        "the cron expression '0 6 2' has 3 fields, not 5 (minute, hour, day of the month, month, day of the week) or 6 (second first); write for example '0 6 2 * *', or '30 0 6 2 * *' with seconds",
    );
    wrong(
        "0 0 6 2 * * 2021",
        "the cron expression '0 0 6 2 * * 2021' has 7 fields, not 5 (minute, hour, day of the month, month, day of the week) or 6 (second first); leave out the year; 'start' and 'end' of the schedule bound it",
    );
    wrong("@dayly", "there is no schedule '@dayly'; did you mean '@daily'?");
    wrong(
        "* * * * ☃",
        "the cron expression '* * * * ☃' is wrong: the day of the week '☃' is not known; write *, a number from 0 to 7, a range such as 0-7, or a step such as */2",
    );
}
