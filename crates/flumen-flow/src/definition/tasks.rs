//! Tasks and hooks: from their fields in a file to what they are.

use std::collections::BTreeMap;

use std::time::Duration;

use flumen_core::task_kind::shape::Shape;
use flumen_core::task_kind::units::Period;
use flumen_core::task_kind::{Path, Problem};
use serde_json::{Map, Value};

use super::checker::Checker;
use super::fields::{
    Backoff, Branch, CacheField, CacheInputs, CacheParams, Delays, FailureName, FailureNames, ForEachField, HookFields,
    Items, OneOrMore, RateField, Shared, TaskFields, Teardown, When,
};
use super::flow::{Cache, DEFAULT_POOL, ForEach, ForEachSource, Hook, Hooks, Rate, Retry};
use super::params::ParamSpec;
use super::reading::{Reading, those_of, unknown_connection};
use super::surroundings::Surroundings;

/// The longest name.
const NAME_CHARS: usize = 128;
/// How many items a `for_each` may have unless it says otherwise.
const FOR_EACH_LIMIT: u32 = 1_000;
/// How long a hook may take unless it says otherwise.
const HOOK_TIMEOUT: Period = Period(Duration::from_secs(60));
/// How often a hook is tried again unless it says otherwise.
const HOOK_RETRIES: u32 = 2;
/// The wait before another attempt, unless a task or hook says otherwise.
const RETRY_DELAY: Period = Period(Duration::from_secs(10));
/// The free attempts after lost workers, unless a task says otherwise.
const INFRA_RETRIES: u32 = 3;

/// A task as it stands in the file, before its place among the others is known.
#[derive(Debug)]
pub(super) struct Draft {
    pub id: String,
    pub path: Path,
    pub group: Option<String>,
    /// What the names of the tasks beside it begin with.
    pub prefix: String,
    pub kind: String,
    pub config: Value,
    /// The names that it needs, each with its place.
    pub needs: Vec<(String, Path)>,
    /// The tasks that it takes down, each with its place.
    pub teardown: Option<Vec<(String, Path)>>,
    pub branch: Option<Vec<(String, Path)>>,
    pub fields: TaskFields,
    pub shared: Shared,
    pub for_each: Option<ForEach>,
    pub hooks: Hooks,
}

/// Whether something may have this name; if not, that is noted.
pub(super) fn check_name(what: &str, name: &str, path: &Path, reading: &mut Reading<'_>) {
    let good = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
        && name.len() <= NAME_CHARS;
    if !good {
        // The name of a flow is a value, all others are keys.
        let at_key = path.keys().len() > 1;
        let message = format!("'{name}' cannot be the name of {what}");
        let problem = Problem { path: path.clone(), at_key, message, hint: None };
        let hint = format!("use a letter or '_', then letters, digits, '_' and '-', {NAME_CHARS} at most");
        reading.note("", &Path::top(), problem.hint(hint));
    }
}

/// The task at `path`.
pub(super) fn read(
    checker: &Checker,
    id: String,
    path: Path,
    group: Option<String>,
    prefix: &str,
    reading: &mut Reading<'_>,
) -> Draft {
    let context = format!("task '{id}'");
    check_name("a task", &id, &path, reading);
    let value = reading.shaped(&context, &path, &checker.schemas.task);
    let empty = Map::new();
    let map = value.as_object().unwrap_or(&empty);
    let mut fields: TaskFields = reading.typed(&context, &path, those_of(map, &checker.schemas.task_fields));
    let shared: Shared = reading.typed(&context, &path, those_of(map, &checker.schemas.shared));
    let (kind, config) = kind_and_config(checker, "the task", &context, &path, reading);
    let needs = named(fields.needs.take(), &path.key("needs"));
    let teardown = match fields.teardown.take() {
        None | Some(Teardown::Flag(false)) => None,
        Some(Teardown::Flag(true)) => Some(Vec::new()),
        Some(Teardown::One(name)) => Some(vec![(name, path.key("teardown"))]),
        Some(Teardown::More(names)) => Some(named(Some(OneOrMore::More(names)), &path.key("teardown"))),
    };
    let branch = match fields.branch.take() {
        None | Some(Branch::Flag(false)) => None,
        Some(Branch::Flag(true)) => Some(Vec::new()),
        Some(Branch::Among(names)) => Some(named(Some(OneOrMore::More(names)), &path.key("branch"))),
    };
    let for_each = fields.for_each.take().and_then(|field| for_each(field, &context, &path, reading));
    let lists = [fields.on_failure.take(), fields.on_success.take(), fields.on_retry.take(), fields.on_late.take()];
    let hooks = hooks(checker, lists, &context, &path, reading);
    let group = fields.group.take().or(group);
    let prefix = prefix.to_owned();
    Draft { id, path, group, prefix, kind, config, needs, teardown, branch, fields, shared, for_each, hooks }
}

fn named(names: Option<OneOrMore<String>>, path: &Path) -> Vec<(String, Path)> {
    match names {
        None => Vec::new(),
        Some(OneOrMore::One(name)) => vec![(name, path.clone())],
        Some(OneOrMore::More(names)) => {
            names.into_iter().enumerate().map(|(index, name)| (name, path.index(index))).collect()
        }
    }
}

/// The names that a group needs, each with its place.
pub(super) fn needs_of_group(names: Option<OneOrMore<String>>, path: &Path) -> Vec<(String, Path)> {
    named(names, &path.key("needs"))
}

/// The kind of a task or hook at `path`, and the fields of it. `what` says what it is where it has none.
fn kind_and_config(
    checker: &Checker,
    what: &str,
    context: &str,
    path: &Path,
    reading: &mut Reading<'_>,
) -> (String, Value) {
    let Some(node) = reading.root.find(path) else { return Default::default() };
    let mut kinds = node.entries().iter().filter(|entry| checker.kinds.get(&entry.key).is_some());
    let Some(entry) = kinds.next() else {
        // A key that is not known is told already, with the nearest kind.
        if !reading.is_damaged(path) {
            let names: Vec<&str> = checker.kinds.names().collect();
            let problem = Problem::at_key(Path::top(), format!("{what} does not say what to do"));
            reading.note(context, path, problem.hint(format!("give it one of the kinds: {}", names.join(", "))));
        }
        return Default::default();
    };
    for other in kinds {
        let message = format!("{what} is of two kinds, '{}' and '{}'", entry.key, other.key);
        reading.note(context, path, Problem::at_key(Path::of([other.key.as_str()]), message).hint("keep one of them"));
    }
    let kind = entry.key.clone();
    let shape = checker.kinds.schema(&kind).map(Shape::of);
    let at = path.key(&kind);
    let bare = checker.kinds.get(&kind).and_then(|kind| kind.bare_field());
    let config = match bare.filter(|_| entry.value.entries().is_empty() && !entry.value.is_null()) {
        Some(field) => {
            let value = entry.value.json(shape.and_then(|shape| shape.property(field)));
            Value::Object(Map::from_iter([(field.to_owned(), value)]))
        }
        None => entry.value.json(shape),
    };
    if config.is_null() {
        reading.note(context, &at, Problem::new(Path::top(), format!("'{kind}' has no value")));
    } else {
        for problem in checker.kinds.check(&kind, &config) {
            reading.note(&format!("{kind} of {context}"), &at, problem);
        }
    }
    (kind, config)
}

/// The hooks at `path`, from the fields on_failure, on_success, on_retry and on_late.
pub(super) fn hooks(
    checker: &Checker,
    lists: [Option<OneOrMore<Value>>; 4],
    context: &str,
    path: &Path,
    reading: &mut Reading<'_>,
) -> Hooks {
    let mut read = |key: &str, list: &Option<OneOrMore<Value>>| {
        let at = path.key(key);
        let places = match list {
            None => Vec::new(),
            Some(OneOrMore::One(_)) => vec![at],
            Some(OneOrMore::More(items)) => (0..items.len()).map(|index| at.index(index)).collect(),
        };
        let context = if context.is_empty() { key.to_owned() } else { format!("{key} of {context}") };
        places.into_iter().map(|path| hook(checker, &context, path, reading)).collect()
    };
    let [failure, success, retry, late] = lists;
    Hooks {
        on_failure: read("on_failure", &failure),
        on_success: read("on_success", &success),
        on_retry: read("on_retry", &retry),
        on_late: read("on_late", &late),
    }
}

fn hook(checker: &Checker, context: &str, path: Path, reading: &mut Reading<'_>) -> Hook {
    let value = reading.shaped(context, &path, &checker.schemas.hook);
    let known = value.as_object().map(|map| those_of(map, &checker.schemas.hook_fields)).unwrap_or_default();
    let fields: HookFields = reading.typed(context, &path, known);
    let (kind, config) = kind_and_config(checker, "the hook", context, &path, reading);
    Hook {
        kind,
        config,
        timeout: fields.timeout.unwrap_or(HOOK_TIMEOUT),
        retries: fields.retries.unwrap_or(HOOK_RETRIES),
        retry_delay: fields.retry_delay.unwrap_or(RETRY_DELAY),
        path,
    }
}

fn for_each(field: ForEachField, context: &str, path: &Path, reading: &mut Reading<'_>) -> Option<ForEach> {
    let with = |source| ForEach { source, max_active: None, limit: FOR_EACH_LIMIT };
    let full = match field {
        ForEachField::List(items) => return Some(with(ForEachSource::Items(items))),
        ForEachField::Expression(text) => {
            let text = bare_expression(&text);
            check_list(&text, &path.key("for_each"), context, reading);
            return Some(with(ForEachSource::Expression(text)));
        }
        ForEachField::Full(full) => full,
    };
    let at = path.key("for_each");
    let given =
        [full.items.is_some(), full.query.is_some(), full.glob.is_some()].iter().filter(|given| **given).count();
    if given != 1 && !reading.is_damaged(&at) {
        let problem = Problem::at_key(at.clone(), "'for_each' must have one of 'items', 'query' and 'glob'");
        reading.note(context, &Path::top(), problem);
    }
    if full.connection.is_some() && full.query.is_none() {
        let problem = Problem::at_key(at.key("connection"), "'for_each.connection' is for a query");
        reading.note(context, &Path::top(), problem);
    }
    let source = match (full.items, full.query, full.glob) {
        (Some(Items::List(items)), ..) => ForEachSource::Items(items),
        (Some(Items::Expression(text)), ..) => {
            let text = bare_expression(&text);
            check_list(&text, &at.key("items"), context, reading);
            ForEachSource::Expression(text)
        }
        (_, Some(query), _) => ForEachSource::Query { query, connection: full.connection },
        (.., Some(glob)) => ForEachSource::Glob(glob),
        (None, None, None) => return None,
    };
    Some(ForEach { source, max_active: full.max_active, limit: full.limit.unwrap_or(FOR_EACH_LIMIT) })
}

/// Notes an expression that is a number or a text, and so never a list.
fn check_list(expression: &str, at: &Path, context: &str, reading: &mut Reading<'_>) {
    let quoted = ['\'', '"'].iter().any(|quote| {
        let inner = expression.strip_prefix(*quote).and_then(|rest| rest.strip_suffix(*quote));
        inner.is_some_and(|inner| !inner.contains(*quote))
    });
    if quoted || expression.parse::<f64>().is_ok() || matches!(expression, "true" | "false") {
        let problem = Problem::new(at.clone(), format!("{expression} is no list"));
        let hint = "write a list, such as [1, 2, 3] or {{ range(5) }}, or an expression that gives one";
        reading.note(context, &Path::top(), problem.hint(hint));
    }
}

/// The expression in a text that may have it in `{{ }}`.
pub(super) fn bare_expression(text: &str) -> String {
    let text = text.trim();
    let inner = text.strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}"));
    let inner = inner.filter(|inner| !inner.contains("{{") && !inner.contains("}}"));
    inner.map_or(text, |inner| inner.trim_matches('-').trim()).to_owned()
}

/// The expression of a condition. Always is none.
pub(super) fn condition(when: Option<When>) -> Option<String> {
    match when? {
        When::Flag(true) => None,
        When::Flag(false) => Some("false".to_owned()),
        When::Expression(text) => Some(bare_expression(&text)),
    }
}

/// What holds for a task: what it says itself, else the nearest of its groups, else the flow.
pub(super) fn merged(own: Shared, outer: &[&Shared]) -> Shared {
    let mut merged = own;
    for shared in outer {
        macro_rules! fill {
            ($($field:ident),* $(,)?) => { $(if merged.$field.is_none() { merged.$field.clone_from(&shared.$field); })* };
        }
        fill!(
            retries,
            retry_delay,
            retry_exponential_backoff,
            max_retry_delay,
            retry_jitter,
            retry_on,
            no_retry_on,
            max_infra_retries,
            timeout,
            pool,
            pool_slots,
            priority,
            rate,
            depends_on_past,
            memory,
        );
        for (name, value) in shared.env.iter().flatten() {
            merged.env.get_or_insert_default().entry(name.clone()).or_insert_with(|| value.clone());
        }
    }
    merged
}

/// What becomes of a task's failures.
pub(super) fn retry(shared: &Shared) -> Retry {
    let failures = |names: &Option<FailureNames>| match names {
        None => Vec::new(),
        Some(FailureNames::One(name)) => vec![name.clone()],
        Some(FailureNames::More(names)) => names.clone(),
    };
    Retry {
        retries: shared.retries.unwrap_or(0),
        delays: match &shared.retry_delay {
            None => vec![RETRY_DELAY],
            Some(Delays::Same(delay)) => vec![*delay],
            Some(Delays::Each(delays)) => delays.clone(),
        },
        backoff: match shared.retry_exponential_backoff {
            None | Some(Backoff::Flag(false)) => None,
            Some(Backoff::Flag(true)) => Some(2.0),
            Some(Backoff::Factor(factor)) => Some(factor),
        },
        max_delay: shared.max_retry_delay,
        jitter: shared.retry_jitter.unwrap_or(0.0),
        on: failures(&shared.retry_on),
        not_on: failures(&shared.no_retry_on),
        max_infra: shared.max_infra_retries.unwrap_or(INFRA_RETRIES),
    }
}

/// How often a task may start.
pub(super) fn rate(field: &Option<RateField>) -> Option<Rate> {
    match field.as_ref()? {
        RateField::Full(full) => Some(Rate { limit: full.limit, per: full.per, key: full.key.clone() }),
        RateField::Short(text) => short_rate(text),
    }
}

fn short_rate(text: &str) -> Option<Rate> {
    let (limit, unit) = text.split_once('/')?;
    let limit = limit.trim().parse().ok().filter(|limit| *limit > 0)?;
    let unit = unit.trim();
    let per = unit.parse::<Period>().or_else(|_| format!("1{unit}").parse()).ok()?;
    Some(Rate { limit, per, key: None })
}

/// Notes rates that cannot be kept. A task with a rate waits in the pool of the rate, and so in no other one; and tasks that share
/// a rate must agree on it. `outer` gives the defaults round a task.
pub(super) fn check_rates<'a>(drafts: &[Draft], outer: impl Fn(&Draft) -> Vec<&'a Shared>, reading: &mut Reading<'_>) {
    let mut known: BTreeMap<String, (Rate, &str)> = BTreeMap::new();
    for draft in drafts {
        let shared = merged(draft.shared.clone(), &outer(draft));
        let Some(rate) = rate(&shared.rate) else { continue };
        let context = format!("task '{}'", draft.id);
        let mut note = |problem: Problem| reading.note(&context, &draft.path, problem);
        if let Some(pool) = shared.pool.filter(|pool| pool != DEFAULT_POOL) {
            let problem = Problem::new(Path::top(), format!("it has both a rate and the pool '{pool}'"));
            note(problem.hint(format!("give the pool the rate ('flumen pool set'), or write pool: {DEFAULT_POOL}")));
        }
        let Some(key) = &rate.key else { continue };
        if key.is_empty() || key.contains('/') {
            let problem = Problem::new(Path::of(["rate", "key"]), format!("'{key}' is not the key of a rate"));
            note(problem.hint("write a name, without slashes"));
        }
        match known.get(key) {
            Some((other, task)) if (other.limit, other.per) != (rate.limit, rate.per) => {
                let same = format!("{}/{}", other.limit, other.per);
                let problem = Problem::new(Path::of(["rate"]), format!("the rate '{key}' is {same} in task '{task}'"));
                note(problem.hint("tasks that share a rate have the same one"));
            }
            Some(_) => {}
            None => drop(known.insert(key.clone(), (rate, draft.id.as_str()))),
        }
    }
}

/// When an earlier output is used again.
pub(super) fn cache(field: Option<CacheField>) -> Option<Cache> {
    let all = Cache { inputs: CacheInputs::Flag(true), source: true, params: CacheParams::Flag(true), expires: None };
    match field? {
        CacheField::Flag(false) => None,
        CacheField::Flag(true) => Some(all),
        CacheField::For(expires) => Some(Cache { expires: Some(expires), ..all }),
        CacheField::Full(full) => Some(Cache {
            inputs: full.inputs.unwrap_or(all.inputs),
            source: full.source.unwrap_or(true),
            params: full.params.unwrap_or(all.params),
            expires: full.expires,
        }),
    }
}

/// Notes what is wrong with the values in `shared`, which stand at `path`.
pub(super) fn check_shared(
    context: &str,
    path: &Path,
    shared: &Shared,
    around: &Surroundings,
    reading: &mut Reading<'_>,
) {
    if !around.trusting && shared.timeout == Some(Period(Duration::ZERO)) {
        let problem = Problem::new(Path::of(["timeout"]), "an attempt with a timeout of 0s would end before it begins");
        reading.note(context, path, problem.hint("leave 'timeout' out where it may take any time"));
    }
    if let Some(pool) = shared.pool.as_ref().filter(|pool| !around.has_pool(pool)) {
        let pools = around.pools.iter().map(String::as_str).chain([DEFAULT_POOL]);
        let problem = Problem::new(Path::of(["pool"]), format!("there is no pool '{pool}'"));
        reading.note(context, path, problem.nearest(pool, pools, "the pools are"));
    }
    if let Some(RateField::Short(text)) =
        shared.rate.as_ref().filter(|rate| self::rate(&Some((*rate).clone())).is_none())
    {
        let problem = Problem::new(Path::of(["rate"]), format!("'{text}' is not a rate"));
        reading.note(context, path, problem.hint("write it such as 10/min, 100/h or 5/s"));
    }
    for (key, names) in [("retry_on", &shared.retry_on), ("no_retry_on", &shared.no_retry_on)] {
        let single;
        let list: &[FailureName] = match names {
            None => &[],
            Some(FailureNames::More(names)) => names,
            Some(FailureNames::One(name)) => {
                single = [name.clone()];
                &single
            }
        };
        for (index, name) in list.iter().enumerate() {
            if let FailureName::Kind(kind) = name {
                check_failure(kind, context, &path.key(key).index(index), reading);
            }
        }
    }
}

/// The kinds of failures by which retries are decided: of errors, and those that only tasks have.
pub const FAILURES: [&str; 10] =
    ["invalid", "not_found", "conflict", "unavailable", "data", "internal", "exit", "timeout", "lost", "out_of_memory"];

fn check_failure(kind: &str, context: &str, path: &Path, reading: &mut Reading<'_>) {
    if !FAILURES.contains(&kind) {
        let problem = Problem::new(path.clone(), format!("there is no kind of failure '{kind}'"));
        let problem = problem.nearest(kind, FAILURES, "an exit code, or one of");
        reading.note(context, &Path::top(), problem);
    }
}

/// Notes what is wrong with the fields of one task that only depend on what the project and the flow have.
pub(super) fn check_fields(draft: &Draft, params: &[ParamSpec], around: &Surroundings, reading: &mut Reading<'_>) {
    let context = format!("task '{}'", draft.id);
    check_shared(&context, &draft.path, &draft.shared, around, reading);
    if let Some(ForEach { source: ForEachSource::Query { connection: Some(name), .. }, .. }) = &draft.for_each {
        let is_known = around.has_connection(name);
        if !is_known && !flumen_core::task_kind::is_template(name) {
            let problem = unknown_connection(&Path::of(["for_each", "connection"]), name, around);
            reading.note(&context, &draft.path, problem);
        }
    }
    if let Some(CacheField::Full(full)) = &draft.fields.cache
        && let Some(CacheParams::These(names)) = &full.params
    {
        for (index, name) in names.iter().enumerate().filter(|(_, name)| params.iter().all(|spec| spec.name != **name))
        {
            let path = Path::of(["cache", "params"]).index(index);
            let problem = Problem::new(path, format!("there is no parameter '{name}'"));
            let known = params.iter().map(|spec| spec.name.as_str());
            reading.note(&context, &draft.path, problem.nearest(name, known, "the parameters are"));
        }
    }
    if draft.branch.is_some() && draft.for_each.is_some() {
        let problem = Problem::at_key(Path::of(["branch"]), "'branch' and 'for_each' exclude each other");
        reading.note(&context, &draft.path, problem.hint("let a task after it choose"));
    }
    if draft.fields.setup == Some(true) && draft.teardown.is_some() {
        let problem = Problem::at_key(Path::of(["teardown"]), "a task cannot be both setup and teardown");
        reading.note(&context, &draft.path, problem);
    }
    if draft.teardown.is_some() && draft.fields.trigger_rule.is_some() {
        let problem = Problem::at_key(Path::of(["trigger_rule"]), "a teardown has no trigger rule");
        let hint = "it runs when what it takes down was set up, and all before it ended";
        reading.note(&context, &draft.path, problem.hint(hint));
    }
}
