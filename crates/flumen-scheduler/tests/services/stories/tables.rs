//! Random timetables, and a second reading of them that looks at every minute.

use chrono::{DateTime, NaiveDateTime, TimeDelta, Timelike, Utc};
use flumen_core::flow::Interval;
use flumen_core::testkit::seeds::Random;
use flumen_flow::definition::{Catchup, Covers, RuleSpec, ScheduleSpec};
use flumen_flow::timetable::zone;

pub type Moment = DateTime<Utc>;

/// Days on which something happens to clocks, and zones in which it does.
const PLACES: &[(&str, &[&str])] = &[
    ("2024-10-04T00:00:00Z", &["UTC", "Europe/Berlin", "America/New_York"]),
    ("2024-10-26T20:00:00Z", &["UTC", "Europe/Berlin"]),
    ("2025-03-29T20:00:00Z", &["Europe/Berlin", "America/New_York"]),
    ("2024-11-03T02:00:00Z", &["America/New_York", "UTC"]),
    ("2024-10-05T12:00:00Z", &["Australia/Lord_Howe", "UTC"]),
];

const CRONS: &[&str] = &[
    "*/15 * * * *",
    "*/20 * * * *",
    "*/7 * * * *",
    "5,35 * * * *",
    "0 * * * *",
    "30 * * * *",
    "0 */2 * * *",
    "10 */3 * * *",
    "*/20 2 * * *",
    "30 0-5 * * *",
    "15 1-3 * * *",
    "45 1,2,13 * * *",
    "0,30 0-23 * * *",
    "30 2 * * *",
    "0 0 * * *",
];

/// Fixed intervals, in minutes.
const SPANS: &[i64] = &[10, 15, 25, 45, 90, 120];

#[derive(Debug, Clone, PartialEq)]
enum Rule {
    Cron(&'static str),
    Every(i64),
    Dates(Vec<Moment>),
}

/// When a flow runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    zone: &'static str,
    rules: Vec<Rule>,
    pub start: Option<Moment>,
    pub end: Option<Moment>,
    trigger: bool,
}

/// Where a story takes place: when it begins, and a zone for each of its timetables.
pub struct Place {
    pub base: Moment,
    zones: &'static [&'static str],
}

impl Place {
    pub fn random(random: &mut Random) -> Self {
        let (base, zones) = *random.pick(PLACES);
        Self { base: base.parse().unwrap(), zones }
    }
}

impl Table {
    pub fn random(random: &mut Random, place: &Place) -> Self {
        let base = place.base;
        let cron = |random: &mut Random| Rule::Cron(CRONS[random.below(CRONS.len())]);
        let every = |random: &mut Random| Rule::Every(*random.pick(SPANS));
        let rules = match random.below(10) {
            0..=4 => vec![cron(random)],
            5..=6 => vec![every(random)],
            7 => {
                let dates = (0..random.between(2, 8)).map(|_| base + TimeDelta::minutes(random.between(-600, 600)));
                let mut dates: Vec<Moment> = dates.collect();
                dates.sort_unstable();
                dates.dedup();
                vec![Rule::Dates(dates)]
            }
            8 => vec![cron(random), every(random)],
            _ => vec![cron(random), cron(random), every(random)],
        };
        let mut table =
            Self { zone: *random.pick(place.zones), rules, start: None, end: None, trigger: random.percent(15) };
        if random.percent(50) {
            table.start = Some(base + TimeDelta::minutes(random.between(-600, 120)));
        }
        if random.percent(35) {
            // Most of all, where an interval starts.
            let from = table.start.unwrap_or(base).max(base);
            let starts = table.intervals(from, from + TimeDelta::hours(8));
            table.end = Some(match starts.is_empty() || random.percent(30) {
                true => from + TimeDelta::minutes(random.between(0, 480)),
                false => random.pick(&starts).start.max(from),
            });
        }
        table
    }

    /// What a flow's file says.
    pub fn spec(&self, catchup: Catchup) -> ScheduleSpec {
        let shown = |moment: &Moment| moment.format("%Y-%m-%dT%H:%MZ").to_string();
        let rule = |rule: &Rule| match rule {
            Rule::Cron(text) => RuleSpec::Cron((*text).to_owned()),
            Rule::Every(minutes) => RuleSpec::Every(format!("{minutes}m")),
            Rule::Dates(dates) => RuleSpec::Dates(dates.iter().map(shown).collect()),
        };
        ScheduleSpec {
            rules: self.rules.iter().map(rule).collect(),
            timezone: self.zone.to_owned(),
            start: self.start.as_ref().map(shown),
            end: self.end.as_ref().map(shown),
            catchup,
            interval: if self.trigger { Covers::Trigger } else { Covers::Interval },
            ..ScheduleSpec::default()
        }
    }

    /// The intervals that end from `from` to `to`.
    pub fn intervals(&self, from: Moment, to: Moment) -> Vec<Interval> {
        // Whatever the rule, something fires within a day, or it is a list.
        let firings = self.firings(from.min(self.start.unwrap_or(from)) - TimeDelta::hours(27), to);
        let is_list = matches!(self.rules[..], [Rule::Dates(_)]);
        let mut intervals = Vec::new();
        for (place, firing) in firings.iter().enumerate() {
            let before = match place {
                0 if !is_list => continue,
                0 => self.start.filter(|start| start < firing).unwrap_or(*firing),
                place => firings[place - 1],
            };
            let start = if self.trigger { *firing } else { before };
            intervals.push(Interval { start, end: *firing });
        }
        intervals.retain(|interval| {
            self.start.is_none_or(|start| start <= interval.start)
                && self.end.is_none_or(|end| interval.start <= end)
                && from <= interval.end
        });
        intervals
    }

    fn firings(&self, from: Moment, to: Moment) -> Vec<Moment> {
        let mut firings = Vec::new();
        for rule in &self.rules {
            match rule {
                Rule::Cron(text) => firings.extend(cron_firings(text, self.zone, from, to)),
                Rule::Every(minutes) => {
                    let step = TimeDelta::minutes(*minutes);
                    let mut firing = self.start.unwrap_or_else(|| epoch(self.zone));
                    firing += step * ((from - firing).num_minutes() / *minutes - 1) as i32;
                    while firing <= to {
                        firings.push(firing);
                        firing += step;
                    }
                }
                Rule::Dates(dates) => firings.extend(dates.iter().filter(|date| **date <= to)),
            }
        }
        firings.sort_unstable();
        firings.dedup();
        firings
    }
}

/// When the clocks of a zone showed the first moment of 1970.
fn epoch(name: &str) -> Moment {
    let (zone, epoch) = (zone::parse(name).unwrap(), DateTime::UNIX_EPOCH);
    let shows =
        |minutes: &i64| (epoch + TimeDelta::minutes(*minutes)).with_timezone(&zone).naive_local() == epoch.naive_utc();
    epoch + TimeDelta::minutes((-1_440..1_440).find(shows).unwrap())
}

/// Which numbers a field has, made of `*`, numbers, lists, ranges and steps.
fn numbers(field: &str) -> [bool; 60] {
    std::array::from_fn(|value| has(field, value as u32))
}

fn has(field: &str, value: u32) -> bool {
    field.split(',').any(|part| {
        let (range, step) = part.split_once('/').map_or((part, 1), |(range, step)| (range, step.parse().unwrap()));
        let (first, last) = match range.split_once('-') {
            Some((first, last)) => (first.parse().unwrap(), last.parse().unwrap()),
            None if range == "*" => (0, 59),
            None => (range.parse().unwrap(), range.parse().unwrap()),
        };
        (first..=last).contains(&value) && (value - first).is_multiple_of(step)
    })
}

fn cron_firings(text: &str, zone: &str, from: Moment, to: Moment) -> Vec<Moment> {
    let fields: Vec<&str> = text.split(' ').collect();
    let zone = zone::parse(zone).unwrap();
    let (in_hour, in_day) = (numbers(fields[0]), numbers(fields[1]));
    let fits = |local: NaiveDateTime| in_hour[local.minute() as usize] && in_day[local.hour() as usize];
    let from = from - TimeDelta::seconds(i64::from(from.second()));
    let minutes = std::iter::successors(Some(from), |minute| Some(*minute + TimeDelta::minutes(1)));
    let minutes =
        minutes.take_while(|minute| *minute <= to).map(|minute| (minute, minute.with_timezone(&zone).naive_local()));
    if fields[0].starts_with('*') || fields[1].starts_with('*') {
        return minutes.filter(|(_, local)| fits(*local)).map(|(minute, _)| minute).collect();
    }
    // Each time of the wall clock fires when it is first shown, or passed.
    let mut firings = Vec::new();
    let mut latest = from.with_timezone(&zone).naive_local() - TimeDelta::minutes(1);
    for (minute, local) in minutes {
        while latest < local {
            latest += TimeDelta::minutes(1);
            if fits(latest) {
                firings.push(minute);
            }
        }
    }
    firings
}
