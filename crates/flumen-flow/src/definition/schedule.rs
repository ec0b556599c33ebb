//! The schedule of a flow, as data. What its texts mean is known to timetables.

use std::collections::BTreeMap;
use std::fmt;

use flumen_core::task_kind::{Path, Problem};
use serde::Serialize;
use serde_json::{Map, Value};

pub use crate::timetable::{Catchup, Covers};

use super::fields::{DatasetsField, DatasetsFields, OneOrMore, RuleField, RuleFields, ScheduleField, ScheduleFields};
use super::params::ParamSpec;
use super::reading::Reading;
use super::surroundings::{Surroundings, Texts};

/// When a flow runs by itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ScheduleSpec {
    /// When it fires; each of them.
    pub rules: Vec<RuleSpec>,
    /// The data sets whose updates start a run.
    pub datasets: Option<DatasetRule>,
    /// The time zone of all times.
    pub timezone: String,
    /// The first start of an interval.
    pub start: Option<String>,
    /// The last one.
    pub end: Option<String>,
    /// What happens to intervals that were missed.
    pub catchup: Catchup,
    /// What a run is about.
    pub interval: Covers,
    /// Parameters of the runs that it starts.
    pub params: Map<String, Value>,
}

/// One way to say when a flow fires, in the words of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleSpec {
    /// A cron expression, or a name such as `@daily`.
    Cron(String),
    /// A fixed interval.
    Every(String),
    /// A recurrence of RFC 5545.
    Rrule(String),
    /// A list of dates.
    Dates(Vec<String>),
}

/// Which data sets have to be updated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DatasetRule {
    /// This one.
    One(String),
    /// Each of these, since the last run.
    All(Vec<DatasetRule>),
    /// One of these.
    Any(Vec<DatasetRule>),
}

impl DatasetRule {
    /// The data sets that it names.
    pub fn names(&self) -> Vec<&str> {
        match self {
            DatasetRule::One(name) => vec![name],
            DatasetRule::All(rules) | DatasetRule::Any(rules) => rules.iter().flat_map(DatasetRule::names).collect(),
        }
    }
}

impl fmt::Display for ScheduleSpec {
    /// As a person says it, in a line: `0 6 * * * (Europe/Berlin)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<String> = self.rules.iter().map(ToString::to_string).collect();
        parts.extend(self.datasets.as_ref().map(|rule| format!("when {rule} is updated")));
        f.write_str(&parts.join(", "))?;
        if !self.rules.is_empty() && self.timezone != "UTC" {
            write!(f, " ({})", self.timezone)?;
        }
        Ok(())
    }
}

impl fmt::Display for RuleSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RuleSpec::Cron(text) | RuleSpec::Rrule(text) => f.write_str(text),
            RuleSpec::Every(text) => write!(f, "every {text}"),
            RuleSpec::Dates(dates) => write!(f, "{} dates", dates.len()),
        }
    }
}

impl fmt::Display for DatasetRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joined =
            |rules: &[DatasetRule], word: &str| rules.iter().map(ToString::to_string).collect::<Vec<_>>().join(word);
        match self {
            DatasetRule::One(name) => f.write_str(name),
            DatasetRule::All(rules) => f.write_str(&joined(rules, " and ")),
            DatasetRule::Any(rules) => write!(f, "({})", joined(rules, " or ")),
        }
    }
}

/// Stands for a start that cannot be read.
const SOME_DAY: &str = "1970-01-01";

/// A text of a rule with its place.
type Placed<T> = (Path, T);

/// The schedule that `field` says, and everything that is wrong with it.
pub(super) fn read(
    field: ScheduleField,
    params: &[ParamSpec],
    around: &Surroundings,
    texts: &dyn Texts,
    reading: &mut Reading<'_>,
) -> ScheduleSpec {
    let at = Path::of(["schedule"]);
    let mut rules: Vec<Placed<RuleSpec>> = Vec::new();
    let mut datasets: Vec<Placed<DatasetsField>> = Vec::new();
    let mut spec = ScheduleSpec { timezone: "UTC".to_owned(), ..ScheduleSpec::default() };
    match field {
        ScheduleField::Cron(text) => rules.push((at.clone(), RuleSpec::Cron(text))),
        ScheduleField::Several(several) => {
            for (index, rule) in several.into_iter().enumerate() {
                let at = at.index(index);
                match rule {
                    RuleField::Cron(text) => rules.push((at, RuleSpec::Cron(text))),
                    RuleField::Rules(fields) => gather(&at, fields, &mut rules, &mut datasets),
                }
            }
        }
        ScheduleField::Full(full) => {
            let ScheduleFields { cron, every, rrule, dates, datasets: sets, .. } = &*full;
            let fields = RuleFields {
                cron: cron.clone(),
                every: every.clone(),
                rrule: rrule.clone(),
                dates: dates.clone(),
                datasets: sets.clone(),
            };
            gather(&at, fields, &mut rules, &mut datasets);
            spec.catchup = full.catchup.unwrap_or_default();
            spec.interval = full.interval.unwrap_or_default();
            spec.params = full.params.unwrap_or_default();
            spec.timezone = full.timezone.unwrap_or(spec.timezone);
            (spec.start, spec.end) = (full.start, full.end);
        }
    }
    if rules.is_empty() && datasets.is_empty() && !reading.is_damaged(&at) {
        let problem = Problem::at_key(at.clone(), "the schedule does not say when");
        reading.note("", &Path::top(), problem.hint("give one of cron, every, rrule, dates and datasets"));
    }
    check_texts(&spec, &rules, texts, reading);
    for (path, field) in &datasets {
        check_datasets(path, field, around, reading);
    }
    check_params(&at.key("params"), &spec.params, params, reading);
    spec.rules = rules.into_iter().map(|(_, rule)| rule).collect();
    let mut sets: Vec<DatasetRule> = datasets.into_iter().map(|(_, field)| dataset_rule(field)).collect();
    // Several entries of a list are several ways, each of which is enough.
    spec.datasets = if sets.len() > 1 { Some(DatasetRule::Any(sets)) } else { sets.pop() };
    if !reading.is_damaged(&at)
        && let Err(error) = texts.schedule(&spec)
    {
        reading.note_error(&at, &error);
    }
    spec
}

fn gather(at: &Path, fields: RuleFields, rules: &mut Vec<Placed<RuleSpec>>, datasets: &mut Vec<Placed<DatasetsField>>) {
    let mut each = |key: &str, texts: Option<OneOrMore<String>>, make: fn(String) -> RuleSpec| match texts {
        Some(OneOrMore::One(text)) => rules.push((at.key(key), make(text))),
        Some(OneOrMore::More(list)) => {
            rules.extend(list.into_iter().enumerate().map(|(index, text)| (at.key(key).index(index), make(text))));
        }
        None => {}
    };
    each("cron", fields.cron, RuleSpec::Cron);
    each("every", fields.every, RuleSpec::Every);
    each("rrule", fields.rrule, RuleSpec::Rrule);
    if let Some(dates) = fields.dates {
        rules.push((at.key("dates"), RuleSpec::Dates(dates.into_vec())));
    }
    if let Some(field) = fields.datasets {
        datasets.push((at.key("datasets"), field));
    }
}

fn check_texts(spec: &ScheduleSpec, rules: &[Placed<RuleSpec>], texts: &dyn Texts, reading: &mut Reading<'_>) {
    let at = Path::of(["schedule"]);
    let zone = match texts.zone(&spec.timezone) {
        Ok(()) => spec.timezone.as_str(),
        Err(error) => {
            reading.note_error(&at.key("timezone"), &error);
            "UTC"
        }
    };
    // A start that cannot be read is told once, and not again by every rule that begins there.
    let mut start = spec.start.clone();
    for (key, text) in [("start", &spec.start), ("end", &spec.end)] {
        if let Some(Err(error)) = text.as_deref().map(|text| texts.moment(text)) {
            reading.note_error(&at.key(key), &error);
            if key == "start" {
                start = Some(SOME_DAY.to_owned());
            }
        }
    }
    let around = ScheduleSpec { timezone: zone.to_owned(), start, ..ScheduleSpec::default() };
    for (path, rule) in rules {
        if let Err(error) = texts.rule(rule, &around) {
            reading.note_error(path, &error);
        }
    }
}

fn check_datasets(path: &Path, field: &DatasetsField, around: &Surroundings, reading: &mut Reading<'_>) {
    match field {
        DatasetsField::One(name) => {
            if !reading.check_dataset("", path, name, around) {
                return;
            }
            if !around.datasets.is_empty() && !around.datasets.contains(name) {
                let problem = Problem::new(path.clone(), format!("no flow writes the data set '{name}'"));
                let known = around.datasets.iter().map(String::as_str);
                reading.warn("", &Path::top(), problem.nearest(name, known, "flows write"));
            }
        }
        DatasetsField::List(list) => {
            for (index, field) in list.iter().enumerate() {
                check_datasets(&path.index(index), field, around, reading);
            }
        }
        DatasetsField::Rule(DatasetsFields { all, any }) => {
            if all.is_some() == any.is_some() && !reading.is_damaged(path) {
                let problem = Problem::new(path.clone(), "data sets are either 'all' or 'any' of a list");
                reading.note("", &Path::top(), problem.hint("write { any: [a, b] }; the two can stand in each other"));
            }
            for (key, list) in [("all", all), ("any", any)] {
                for (index, field) in list.iter().flatten().enumerate() {
                    check_datasets(&path.key(key).index(index), field, around, reading);
                }
            }
        }
    }
}

fn dataset_rule(field: DatasetsField) -> DatasetRule {
    let each = |list: Vec<DatasetsField>| list.into_iter().map(dataset_rule).collect();
    match field {
        DatasetsField::One(name) => DatasetRule::One(name),
        DatasetsField::List(list) => DatasetRule::All(each(list)),
        DatasetsField::Rule(DatasetsFields { any: Some(any), .. }) => DatasetRule::Any(each(any)),
        DatasetsField::Rule(DatasetsFields { all, .. }) => DatasetRule::All(each(all.unwrap_or_default())),
    }
}

fn check_params(at: &Path, given: &Map<String, Value>, params: &[ParamSpec], reading: &mut Reading<'_>) {
    let given: BTreeMap<_, _> =
        given.iter().map(|(name, value)| (name.clone(), super::params::Given::Value(value.clone()))).collect();
    for problem in super::params::resolve(params, &given).err().unwrap_or_default() {
        let is_given = problem.path.keys().first().is_some_and(|name| given.contains_key(name));
        if is_given {
            reading.note("", at, problem);
        } else if !reading.is_damaged(&Path::of(["params"]).join(&problem.path)) {
            let hint = "give it a default, write 'required: false', or give it under 'params' of the schedule";
            let name = problem.path.clone();
            let message = format!("{} in scheduled runs", problem.message);
            reading.note("", &Path::of(["params"]), Problem::at_key(name, message).hint(hint));
        }
    }
}
