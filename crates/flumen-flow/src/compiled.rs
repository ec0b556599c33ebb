//! A flow, ready to run: what the file says, as the machine and the timetable need it.

use std::collections::HashMap;

use flumen_core::Result;
use flumen_core::task_kind::units::Period;
use serde_json::Value;

use crate::definition::{self, DEFAULT_POOL, FailureName, Flow, ForEachSource, RuleSpec, ScheduleSpec, Task};
use crate::machine::retry::MAX_RETRY_DELAY;
use crate::machine::{Graph, Hooks, Map, Match, Node, Retry};
use crate::timetable::dates::Stretch;
use crate::timetable::{Rule, Schedule, Timetable, zone};

/// A flow, and what follows from it. Made once for a version, and shared by its runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Compiled {
    /// What the file says.
    pub flow: Flow,
    /// Its tasks, as the machine sees them.
    pub graph: Graph,
    /// When it runs by itself.
    pub timetable: Timetable,
}

impl Compiled {
    /// Compiles a flow that was checked.
    ///
    /// Errors: `Invalid` for what a check would have told, had it known all.
    pub fn new(flow: Flow) -> Result<Self> {
        Self::within(flow, &definition::Hooks::default())
    }

    /// Compiles a flow that was checked, in a project that has hooks for all of its flows.
    ///
    /// Errors: as [`new`](Self::new).
    pub fn within(flow: Flow, project: &definition::Hooks) -> Result<Self> {
        let numbers: HashMap<&str, usize> =
            flow.tasks.iter().enumerate().map(|(number, task)| (task.id.as_str(), number)).collect();
        let outer = hooks(&flow.hooks).or(hooks(project));
        let node = |task: &Task| {
            let mut node = node(&flow, task, &numbers);
            // A hook of the flow for retries is one for those of each task.
            node.hooks.retry |= outer.retry;
            node
        };
        let mut graph = Graph::new(flow.name.as_str(), flow.tasks.iter().map(node).collect::<Vec<_>>())?;
        graph.hooks = outer;
        graph.late = flow.deadline.map(|Period(time)| time);
        graph.long = flow.warn_after.map(|Period(time)| time);
        graph.timeout = flow.timeout.map(|Period(time)| time);
        let timetable = timetable_of(flow.schedule.as_ref())?;
        Ok(Self { flow, graph, timetable })
    }
}

/// The timetable of a schedule; that of a flow without one never fires.
///
/// Errors: `Invalid` for a text that cannot be read, and for parts that contradict each other.
pub fn timetable_of(spec: Option<&ScheduleSpec>) -> Result<Timetable> {
    let none = ScheduleSpec { timezone: "UTC".to_owned(), ..ScheduleSpec::default() };
    let spec = spec.unwrap_or(&none);
    let zone = zone::parse(&spec.timezone)?;
    let stretch = |text: &Option<String>| text.as_deref().map(|text| Stretch::parse(text, zone)).transpose();
    let (start, end) = (stretch(&spec.start)?, stretch(&spec.end)?);
    let rule = |rule: &RuleSpec| match rule {
        RuleSpec::Cron(text) => Rule::cron(text),
        RuleSpec::Every(text) => Rule::every(text),
        RuleSpec::Rrule(text) => Rule::recurrence(text, zone, start.as_ref()),
        RuleSpec::Dates(dates) => Rule::dates(dates.iter().map(String::as_str), zone),
    };
    let rules = spec.rules.iter().map(rule).collect::<Result<_>>()?;
    Timetable::new(Schedule { zone, rules, start, end, covers: spec.interval })
}

fn node(flow: &Flow, task: &Task, numbers: &HashMap<&str, usize>) -> Node {
    let known = |names: &[String]| names.iter().filter_map(|name| numbers.get(name.as_str()).copied()).collect();
    Node {
        rule: task.trigger_rule,
        retry: retry(&task.retry),
        timeout: task.timeout.map(|Period(time)| time),
        late: task.deadline.map(|Period(time)| time),
        long: task.warn_after.map(|Period(time)| time),
        pool: task.queue(&flow.name),
        slots: task.pool_slots,
        priority: task.priority,
        when: task.when.is_some(),
        depends_on_past: task.depends_on_past,
        map: task.for_each.as_ref().map(|each| Map {
            by_worker: matches!(each.source, ForEachSource::Query { .. } | ForEachSource::Glob(_)),
            at_once: each.max_active,
            limit: Some(each.limit),
        }),
        branch: task.branch.is_some(),
        tears_down: task.teardown.as_deref().map(known).unwrap_or_default(),
        group: task.group.clone(),
        hooks: hooks(&task.hooks),
        given: given(task),
        ..Node::new(task.id.as_str(), known(&task.needs))
    }
}

/// The output of a task that needs no worker: one that asks for nothing else that only a worker or the queue can give.
fn given(task: &Task) -> Option<Value> {
    let waits_its_turn = task.pool != DEFAULT_POOL || task.rate.is_some();
    let is_prepared = task.cache.is_some() || !task.env.is_empty();
    task.given.clone().filter(|_| !waits_its_turn && !is_prepared)
}

fn hooks(hooks: &definition::Hooks) -> Hooks {
    Hooks {
        failure: !hooks.on_failure.is_empty(),
        success: !hooks.on_success.is_empty(),
        retry: !hooks.on_retry.is_empty(),
    }
}

fn retry(retry: &definition::Retry) -> Retry {
    let matches = |names: &[FailureName]| {
        let one = |name: &FailureName| match name {
            FailureName::Exit(code) => Match::Exit(*code..=*code),
            FailureName::Kind(kind) => Match::Kind(kind.clone()),
        };
        names.iter().map(one).collect()
    };
    Retry {
        retries: retry.retries,
        delays: retry.delays.iter().map(|Period(delay)| *delay).collect(),
        factor: retry.backoff.unwrap_or(1.0),
        max_delay: retry.max_delay.map_or(MAX_RETRY_DELAY, |Period(delay)| delay),
        jitter: retry.jitter,
        on: matches(&retry.on),
        not_on: matches(&retry.not_on),
        infra: Some(retry.max_infra),
    }
}
