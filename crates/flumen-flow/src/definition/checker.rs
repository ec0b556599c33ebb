//! From the text of a flow's file to the flow, or to everything that is wrong with it.

use std::collections::BTreeMap;
use std::time::Duration;

use flumen_core::task_kind::units::Period;
use flumen_core::task_kind::{Kinds, NamedFlow, Path, Problem, Uses, is_template};
use serde_json::Value;

use super::fields::{FlowFields, GroupFields, OneOrMore, ParamFields, ParamType, Shared};
use super::flow::{DEFAULT_POOL, Flow, ForEachSource, Group, Hooks, Task};
use super::graph::{self, Order};
use super::mistake::{Mistake, Mistakes, Place};
use super::names::{self, Names, OF_HOOKS, Outputs, Scope};
use super::params::{self, Given, ParamSpec};
use super::reading::{Reading, those_of, unknown_connection};
use super::schedule;
use super::schemas::Schemas;
use super::surroundings::{ProjectFile, Surroundings, Texts};
use super::tasks::{self, Draft};
use super::yaml::{Broken, Content, Node};

/// The runs of a flow that may be active at once, unless it says otherwise.
const ACTIVE_RUNS: u32 = 16;

/// Checks flows against the kinds of tasks that there are. Made once.
#[derive(Debug)]
pub struct Checker {
    pub(super) kinds: Kinds,
    pub(super) schemas: Schemas,
}

impl Checker {
    /// A checker that knows `kinds`.
    pub fn new(kinds: Kinds) -> Self {
        Self { schemas: Schemas::of(&kinds), kinds }
    }

    /// The flow in `text`, the content of `file`.
    ///
    /// Errors: everything that is wrong with it.
    pub fn check(&self, file: &str, text: &str, around: &Surroundings, texts: &dyn Texts) -> Result<Flow, Mistakes> {
        match self.check_partly(file, text, around, texts) {
            (_, Some(mistakes)) => Err(mistakes),
            (flow, None) => Ok(flow),
        }
    }

    /// The flow in `text`, and everything that is wrong with it: what can be read of one with mistakes is not fit to run, but to be looked
    /// at.
    pub fn check_partly(
        &self,
        file: &str,
        text: &str,
        around: &Surroundings,
        texts: &dyn Texts,
    ) -> (Flow, Option<Mistakes>) {
        let mut broken = Vec::new();
        let root = match Node::parse(text, &mut broken) {
            Ok(root) => root,
            Err(last) => {
                broken.push(last);
                Node { place: Place::START, content: Content::Map(Vec::new()) }
            }
        };
        let mut reading = Reading::new(file, &root);
        for (place, message, hint) in &broken {
            reading.note_in(file, *place, message.clone(), hint.clone());
        }
        if root.entries().is_empty() && !broken.is_empty() {
            return (nothing(), Mistakes::of(reading.mistakes));
        }
        let mut flow = self.read(text, around, texts, &mut reading);
        flow.warnings = std::mem::take(&mut reading.warnings);
        (flow, Mistakes::of(reading.mistakes))
    }

    /// The hooks in the settings of a project: `on_failure`, `on_success`, `on_retry` and `on_late` at the top of `text`, the
    /// content of `file`. Its other keys are somebody else's.
    ///
    /// Errors: everything that is wrong with them.
    pub fn project_hooks(
        &self,
        file: &str,
        text: &str,
        around: &Surroundings,
        texts: &dyn Texts,
    ) -> Result<Hooks, Mistakes> {
        let mut broken: Vec<Broken> = Vec::new();
        let root = match Node::parse(text, &mut broken) {
            Ok(root) => root,
            Err((place, message, hint)) => {
                let mistake = Mistake { file: file.to_owned(), place, message, hint };
                return Mistakes::of(vec![mistake]).map_or_else(|| Ok(Hooks::default()), Err);
            }
        };
        let mut reading = Reading::new(file, &root);
        let lists = ["on_failure", "on_success", "on_retry", "on_late"].map(|key| {
            root.get(key).map(|node| match node.json(None) {
                Value::Array(items) => OneOrMore::More(items),
                value => OneOrMore::One(value),
            })
        });
        let hooks = tasks::hooks(self, lists, "", &Path::top(), &mut reading);
        // What outputs and parameters there are differs from flow to flow.
        let order = Order::of(&[], &[], &mut reading);
        let names = Names { texts, around, params: &[], drafts: &[], order: &order, source: text };
        let scope = Scope { context: "the project", has_item: false, more: OF_HOOKS, outputs: Outputs::None };
        self.check_hooks(&hooks, &scope, &names, &mut reading);
        Mistakes::of(reading.mistakes).map_or(Ok(hooks), Err)
    }

    fn read(&self, text: &str, around: &Surroundings, texts: &dyn Texts, reading: &mut Reading<'_>) -> Flow {
        let top = Path::top();
        let value = reading.shaped("", &top, &self.schemas.flow);
        let known = value.as_object().map(|map| those_of(map, &self.schemas.flow)).unwrap_or_default();
        let fields: FlowFields = reading.typed("", &top, known);
        let name = self.name(&fields, around, reading);
        let params = self.params(around, texts, reading);
        if !around.trusting && fields.timeout == Some(Period(Duration::ZERO)) {
            let problem = Problem::new(Path::of(["timeout"]), "a run with a timeout of 0s would end before it begins");
            reading.note("", &top, problem.hint("leave 'timeout' out where a run may take any time"));
        }
        let defaults = fields.defaults.unwrap_or_default();
        tasks::check_shared("", &Path::of(["defaults"]), &defaults, around, reading);
        let schedule = fields.schedule.map(|field| schedule::read(field, &params, around, texts, reading));
        let (groups, group_defaults, mut drafts) = self.drafts(fields.groups.unwrap_or_default(), around, reading);
        for draft in &drafts {
            tasks::check_fields(draft, &params, around, reading);
        }
        if drafts.is_empty() && !reading.is_damaged(&Path::of(["tasks"])) {
            let problem = Problem::at_key(Path::of(["tasks"]), "the flow has no tasks");
            reading.note("", &top, problem.hint("write them under 'tasks', each with a name"));
        }
        add_setups(&mut drafts, reading);
        let order = Order::of(&drafts, &groups, reading);
        check_branches(&drafts, &order, reading);
        let names = Names { texts, around, params: &params, drafts: &drafts, order: &order, source: text };
        let lists = [fields.on_failure, fields.on_success, fields.on_retry, fields.on_late];
        let hooks = tasks::hooks(self, lists, "the flow", &top, reading);
        let of_flow = Scope { context: "the flow", has_item: false, more: OF_HOOKS, outputs: Outputs::All };
        self.check_hooks(&hooks, &of_flow, &names, reading);
        let known: Vec<OfKind> = drafts
            .iter()
            .enumerate()
            .map(|(number, draft)| {
                self.check_templates(number, draft, &names, reading);
                self.check_uses(number, draft, &names, reading)
            })
            .collect();
        check_defaults_env(&defaults, &group_defaults, &names, reading);
        // A version that is kept is one that was checked.
        if !around.is_trusting() {
            let outer = |draft: &Draft| outer_defaults(draft.group.as_deref(), &groups, &group_defaults, &defaults);
            tasks::check_rates(&drafts, outer, reading);
        }
        let needs: Vec<Vec<String>> = needs_by_name(&drafts, &order);
        let tasks = drafts.into_iter().zip(needs).zip(known).map(|((draft, needs), known)| {
            let outer = outer_defaults(draft.group.as_deref(), &groups, &group_defaults, &defaults);
            task(draft, needs, known, &outer)
        });
        Flow {
            name,
            description: fields.description,
            tags: fields.tags.unwrap_or_default(),
            tasks: tasks.collect(),
            params,
            schedule,
            max_active_runs: fields.max_active_runs.unwrap_or(ACTIVE_RUNS),
            on_overlap: fields.on_overlap.unwrap_or_default(),
            timeout: fields.timeout,
            deadline: fields.deadline,
            warn_after: fields.warn_after,
            groups,
            hooks,
            file: reading.file.to_owned(),
            source: text.to_owned(),
            warnings: Vec::new(),
        }
    }

    fn name(&self, fields: &FlowFields, around: &Surroundings, reading: &mut Reading<'_>) -> String {
        let at = Path::of(["flow"]);
        let Some(name) = &fields.flow else {
            if !reading.is_damaged(&at) {
                let problem = Problem::at_key(at, "the flow has no name");
                reading.note("", &Path::top(), problem.hint("write flow: NAME in the first line"));
            }
            return String::new();
        };
        tasks::check_name("a flow", name, &at, reading);
        if let Some(other) = around.flows.get(name).filter(|other| other.file != reading.file) {
            let problem = Problem::new(at, format!("{} is flow '{name}' too", other.file));
            reading.note("", &Path::top(), problem.hint("give one of them another name"));
        }
        name.clone()
    }

    fn params(&self, around: &Surroundings, texts: &dyn Texts, reading: &mut Reading<'_>) -> Vec<ParamSpec> {
        let Some(node) = reading.root.get("params") else { return Vec::new() };
        let mut params = Vec::new();
        for entry in node.entries() {
            let spec = self.param(&entry.key, &entry.value, texts, reading);
            let default = spec.default.as_ref().and_then(Value::as_str);
            let default = default.filter(|name| spec.kind == ParamType::File && !is_template(name) && !around.trusting);
            if let Some(name) = default.filter(|name| texts.file(name) == ProjectFile::Missing) {
                let at = Path::of(["params", &entry.key]);
                let at = if entry.value.entries().is_empty() { at } else { at.key("default") };
                let problem = Problem::new(at, format!("there is no file '{name}'"));
                let context = format!("parameter '{}'", entry.key);
                reading.note(&context, &Path::top(), problem.hint("paths start in the project's folder"));
            }
            params.push(spec);
        }
        params
    }

    fn param(&self, name: &str, node: &Node, texts: &dyn Texts, reading: &mut Reading<'_>) -> ParamSpec {
        let at = Path::of(["params", name]);
        let context = format!("parameter '{name}'");
        tasks::check_name("a parameter", name, &at, reading);
        let mut spec = ParamSpec { name: name.to_owned(), ..ParamSpec::default() };
        let is_quoted = |node: &Node| matches!(node.content, Content::Quoted(_));
        if node.is_null() {
            let problem = Problem::at_key(Path::top(), "it has neither a value nor a type");
            reading.note(&context, &at, problem.hint("write its default, or { type: string } if it has none"));
            return spec;
        }
        if node.entries().is_empty() {
            let default = node.json(None);
            spec.kind = params::type_of(&default, is_quoted(node));
            spec.default = Some(default);
        } else {
            let value = reading.shaped(&context, &at, &self.schemas.param);
            let fields: ParamFields = reading.typed(&context, &at, value);
            let sample = node.get("default").or_else(|| match &node.get("enum")?.content {
                Content::List(items) => items.first(),
                _ => None,
            });
            spec.kind = fields.kind.unwrap_or_else(|| match sample {
                Some(sample) => params::type_of(&sample.json(None), is_quoted(sample)),
                None => ParamType::String,
            });
            // What is written without quotes is text where texts are wanted: 007.
            let written = |node: &Node, value: Value| match node.text() {
                Some(text) if params::is_text(spec.kind) && !node.is_null() => Value::from(text),
                _ => value,
            };
            spec.default = fields.default.filter(|value| !value.is_null());
            spec.default =
                spec.default.map(|value| node.get("default").map_or(Value::Null, |node| written(node, value)));
            let choice = |(index, value)| {
                let node = node.find(&Path::of(["enum"]).index(index));
                node.map_or(Value::Null, |node| written(node, value))
            };
            spec.choices = fields.choices.unwrap_or_default().into_iter().enumerate().map(choice).collect();
            (spec.min, spec.max, spec.items) = (fields.min, fields.max, fields.items);
            spec.description = fields.description;
            spec.required = spec.default.is_none() && fields.required.unwrap_or(true);
            if fields.required == Some(true) && spec.default.is_some() {
                let problem = Problem::at_key(Path::of(["required"]), "it has a default, and so is never required");
                reading.note(&context, &at, problem.hint("leave out 'required' or 'default'"));
            }
        }
        let is_short = node.entries().is_empty();
        for mut problem in spec.check() {
            if is_short {
                problem.path = Path::top();
            }
            reading.note(&context, &at, problem);
        }
        if let Some(text) = spec.default.as_ref().and_then(Value::as_str).filter(|text| is_template(text)) {
            let at = if is_short { at } else { at.key("default") };
            names::check_default(text, &at, &context, texts, reading);
        }
        spec
    }

    /// The groups, what they say for their tasks, and all tasks in the order of the file.
    fn drafts(
        &self,
        mut fields: BTreeMap<String, GroupFields>,
        around: &Surroundings,
        reading: &mut Reading<'_>,
    ) -> (Vec<Group>, BTreeMap<String, Shared>, Vec<Draft>) {
        let root = reading.root;
        let entries = |path: &Path| root.find(path).map(|node| node.entries()).unwrap_or_default();
        let mut groups = Vec::new();
        let mut defaults = BTreeMap::new();
        let mut drafts: Vec<(Place, Draft)> = Vec::new();
        let at = Path::of(["tasks"]);
        for entry in entries(&at) {
            drafts.push((entry.place, tasks::read(self, entry.key.clone(), at.key(&entry.key), None, "", reading)));
        }
        for entry in entries(&Path::of(["groups"])) {
            let at = Path::of(["groups", &entry.key]);
            let mut group = fields.remove(&entry.key).unwrap_or_default();
            let context = format!("group '{}'", entry.key);
            tasks::check_name("a group", &entry.key, &at, reading);
            let shared = group.defaults.take().unwrap_or_default();
            tasks::check_shared(&context, &at.key("defaults"), &shared, around, reading);
            defaults.insert(entry.key.clone(), shared);
            let prefix = group.prefix.unwrap_or_default();
            for task in entries(&at.key("tasks")) {
                let path = at.key("tasks").key(&task.key);
                let id = format!("{prefix}{}", task.key);
                let draft = tasks::read(self, id, path, Some(entry.key.clone()), &prefix, reading);
                drafts.push((task.place, draft));
            }
            let needs = tasks::needs_of_group(group.needs, &at);
            groups.push(Group { name: entry.key.clone(), description: group.description, group: group.group, needs });
        }
        drafts.sort_by_key(|(place, _)| *place);
        let drafts: Vec<Draft> = drafts.into_iter().map(|(_, draft)| draft).collect();
        check_groups(&groups, &drafts, reading);
        (groups, defaults, drafts)
    }

    fn check_templates(&self, number: usize, draft: &Draft, names: &Names<'_>, reading: &mut Reading<'_>) {
        let context = format!("task '{}'", draft.id);
        let before = Scope { context: &context, has_item: false, more: &[], outputs: Outputs::Before(number) };
        let scope = Scope { has_item: draft.for_each.is_some(), ..before };
        let kind = self.kinds.get(&draft.kind);
        let is_ours = |path: &Path| kind.is_none_or(|kind| kind.is_template(path));
        names.check_all(&draft.config, &draft.path.key(&draft.kind), &scope, &is_ours, reading);
        if let Some(text) = tasks::condition(draft.fields.when.clone()) {
            names.check_expression(&text, &draft.path.key("when"), &before, reading);
        }
        let at = draft.path.key("for_each");
        let nested = reading.root.find(&at).is_some_and(|node| !node.entries().is_empty());
        let of = |key: &str| if nested { at.key(key) } else { at.clone() };
        match draft.for_each.as_ref().map(|each| &each.source) {
            Some(ForEachSource::Items(items)) => {
                names.check_all(&Value::Array(items.clone()), &of("items"), &before, &|_| true, reading);
            }
            Some(ForEachSource::Expression(text)) => names.check_expression(text, &of("items"), &before, reading),
            Some(ForEachSource::Query { query, .. }) => names.check(query, &of("query"), &before, reading),
            Some(ForEachSource::Glob(glob)) => names.check(glob, &of("glob"), &before, reading),
            None => {}
        }
        for (name, text) in draft.shared.env.iter().flatten() {
            names.check(text, &draft.path.key("env").key(name), &scope, reading);
        }
        if let Some(super::fields::CacheField::Full(full)) = &draft.fields.cache
            && let Some(super::flow::CacheInputs::These(inputs)) = &full.inputs
        {
            for (index, text) in inputs.iter().enumerate() {
                names.check(text, &draft.path.key("cache").key("inputs").index(index), &scope, reading);
            }
        }
        let of_hooks = Scope { more: OF_HOOKS, outputs: Outputs::OfAndBefore(number), ..scope };
        self.check_hooks(&draft.hooks, &of_hooks, names, reading);
    }

    fn check_hooks(&self, hooks: &Hooks, scope: &Scope<'_>, names: &Names<'_>, reading: &mut Reading<'_>) {
        let context = format!("a hook of {}", scope.context);
        let scope = Scope { context: &context, ..*scope };
        for hook in hooks.all() {
            let Some(kind) = self.kinds.get(&hook.kind) else { continue };
            let at = hook.path.key(&hook.kind);
            let is_ours = |path: &Path| kind.is_template(path);
            names.check_all(&hook.config, &at, &scope, &is_ours, reading);
            check_named(&kind.uses(&hook.config), &at, &scope, names, reading);
        }
    }

    /// What a task uses; what is not there is noted.
    fn check_uses(&self, number: usize, draft: &Draft, names: &Names<'_>, reading: &mut Reading<'_>) -> OfKind {
        let Some(kind) = self.kinds.get(&draft.kind) else { return OfKind::default() };
        let uses = kind.uses(&draft.config);
        let context = format!("task '{}'", draft.id);
        let outputs = Outputs::Before(number);
        let scope = Scope { context: &context, has_item: draft.for_each.is_some(), more: &[], outputs };
        check_named(&uses, &draft.path.key(&draft.kind), &scope, names, reading);
        OfKind { uses, given: kind.given(&draft.config) }
    }

    /// The JSON Schema of flow files, for editors.
    pub fn editor_schema(&self) -> Value {
        super::schemas::editor(&self.kinds)
    }
}

fn nothing() -> Flow {
    Flow {
        name: String::new(),
        description: None,
        tags: Vec::new(),
        params: Vec::new(),
        schedule: None,
        max_active_runs: ACTIVE_RUNS,
        on_overlap: Default::default(),
        timeout: None,
        deadline: None,
        warn_after: None,
        tasks: Vec::new(),
        groups: Vec::new(),
        hooks: Hooks::default(),
        file: String::new(),
        warnings: Vec::new(),
        source: String::new(),
    }
}

/// Notes names in `uses` that the project does not have. Templates may be anything.
fn check_named(uses: &Uses, at: &Path, scope: &Scope<'_>, names: &Names<'_>, reading: &mut Reading<'_>) {
    for named in uses.reads.iter().chain(&uses.writes) {
        reading.check_dataset(scope.context, &at.join(&named.path), &named.text, names.around);
    }
    for named in uses.connections.iter().filter(|named| !named.is_template()) {
        let name = named.text.as_str();
        if !names.around.has_connection(name) {
            reading.note(scope.context, at, unknown_connection(&named.path, name, names.around));
        }
    }
    for file in uses.files.iter().filter(|file| !file.name.is_template()) {
        names.check_file(&file.name.text, file.is_template, &at.join(&file.name.path), scope, reading);
    }
    for flow in uses.flows.iter().filter(|flow| !names.around.trusting && !flow.name.is_template()) {
        check_named_flow(flow, at, scope, names, reading);
    }
}

/// Notes what is wrong with a flow that a task starts: that it is not there, or takes other parameters.
fn check_named_flow(flow: &NamedFlow, at: &Path, scope: &Scope<'_>, names: &Names<'_>, reading: &mut Reading<'_>) {
    let name = flow.name.text.as_str();
    let Some(known) = names.around.flows.get(name) else {
        let problem = Problem::new(flow.name.path.clone(), format!("there is no flow '{name}'"));
        let flows = names.around.flows.keys().map(String::as_str);
        return reading.note(scope.context, at, problem.nearest(name, flows, "the flows are"));
    };
    let Some(params) = &known.params else { return };
    let (path, given) = flow.params.clone().unwrap_or_else(|| (flow.name.path.clone(), Default::default()));
    let fixed = |value: &Value| !value.as_str().is_some_and(is_template);
    for (name, value) in &given {
        let problem = match params.iter().find(|spec| spec.name == *name) {
            Some(spec) if fixed(value) => spec.accept(value).err(),
            Some(_) => None,
            None => params::resolve(params, &[(name.clone(), Given::Value(Value::Null))].into())
                .err()
                .and_then(|problems| problems.into_iter().find(|problem| problem.at_key)),
        };
        if let Some(problem) = problem {
            reading.note(scope.context, &at.join(&path), problem);
        }
    }
    for spec in params.iter().filter(|spec| flow.told_all && spec.required && !given.contains_key(&spec.name)) {
        let message = format!("flow '{name}' has to be given its parameter '{}'", spec.name);
        reading.note(scope.context, at, Problem::new(path.clone(), message));
    }
}

fn check_groups(groups: &[Group], drafts: &[Draft], reading: &mut Reading<'_>) {
    let mut seen: BTreeMap<&str, &Path> = BTreeMap::new();
    for draft in drafts {
        if seen.insert(&draft.id, &draft.path).is_some() {
            let problem = Problem::at_key(draft.path.clone(), format!("another task is called '{}' already", draft.id));
            reading.note("", &Path::top(), problem.hint("give one of them another name, or its group a 'prefix'"));
        }
    }
    let names = || groups.iter().map(|group| group.name.as_str());
    let unknown = |name: &str, path: Path| {
        Problem::new(path, format!("there is no group '{name}'")).nearest(name, names(), "the groups are")
    };
    for draft in drafts {
        if let Some(name) = draft.group.as_deref().filter(|name| names().all(|known| known != *name)) {
            reading.note(&format!("task '{}'", draft.id), &Path::top(), unknown(name, draft.path.key("group")));
        }
    }
    for group in groups {
        let at = Path::of(["groups", &group.name]);
        if seen.contains_key(group.name.as_str()) {
            let message = format!("'{}' is the name of a task and of a group", group.name);
            reading.note("", &Path::top(), Problem::at_key(at.clone(), message).hint("rename one of them"));
        }
        match group.group.as_deref() {
            Some(outer) if names().all(|known| known != outer) => {
                reading.note(&format!("group '{}'", group.name), &Path::top(), unknown(outer, at.key("group")));
            }
            Some(outer) if graph::is_in(groups, Some(outer), &group.name) => {
                let problem = Problem::new(at.key("group"), format!("group '{}' is in itself", group.name));
                reading.note("", &Path::top(), problem);
            }
            _ => {}
        }
        if drafts.iter().all(|draft| !graph::is_in(groups, draft.group.as_deref(), &group.name))
            && !reading.is_damaged(&at)
        {
            let problem = Problem::at_key(at, format!("group '{}' has no tasks", group.name));
            reading.note("", &Path::top(), problem);
        }
    }
}

/// A teardown needs what it takes down; that must be a setup.
fn add_setups(drafts: &mut [Draft], reading: &mut Reading<'_>) {
    let setups: BTreeMap<String, bool> =
        drafts.iter().map(|draft| (draft.id.clone(), draft.fields.setup == Some(true))).collect();
    for draft in drafts {
        let context = format!("task '{}'", draft.id);
        for (name, path) in draft.teardown.iter_mut().flatten() {
            let own = format!("{}{name}", draft.prefix);
            if setups.contains_key(&own) {
                *name = own;
            }
            let problem = match setups.get(name.as_str()) {
                Some(true) => {
                    draft.needs.push((name.clone(), path.clone()));
                    continue;
                }
                Some(false) => Problem::new(path.clone(), format!("task '{name}' is no setup task"))
                    .hint(format!("write 'setup: true' in task '{name}'")),
                None => Problem::new(path.clone(), format!("there is no task '{name}'")).nearest(
                    name,
                    setups.keys().map(String::as_str),
                    "the tasks are",
                ),
            };
            reading.note(&context, &Path::top(), problem);
        }
    }
}

/// What is up for choice must need the task that chooses.
fn check_branches(drafts: &[Draft], order: &Order, reading: &mut Reading<'_>) {
    for (number, draft) in drafts.iter().enumerate() {
        let Some(choices) = &draft.branch else { continue };
        let context = format!("task '{}'", draft.id);
        let after: Vec<&str> = (0..drafts.len())
            .filter(|later| order.is_direct(*later, number))
            .map(|later| drafts[later].id.as_str())
            .collect();
        if after.is_empty() {
            let problem =
                Problem::at_key(draft.path.key("branch"), "no task needs it, so that it has nothing to choose");
            reading.note(&context, &Path::top(), problem);
            continue;
        }
        for (name, path) in choices {
            let is_after = order.find(&draft.prefix, name).is_some_and(|choice| order.is_direct(choice, number));
            if !is_after {
                let problem =
                    Problem::new(path.clone(), format!("no task '{name}' needs it, so that it cannot be chosen"));
                let problem = problem.nearest(name, after.iter().copied(), "these do:");
                reading.note(&context, &Path::top(), problem);
            }
        }
    }
}

fn needs_by_name(drafts: &[Draft], order: &Order) -> Vec<Vec<String>> {
    let names = |number: usize| {
        let mut needs: Vec<usize> = order.needs[number].iter().map(|(need, _)| *need).collect();
        needs.sort_unstable();
        needs.into_iter().map(|need| drafts[need].id.clone()).collect()
    };
    (0..drafts.len()).map(names).collect()
}

/// What groups and the flow say for a task in `group`, the nearest first.
fn outer_defaults<'a>(
    group: Option<&str>,
    groups: &[Group],
    of_groups: &'a BTreeMap<String, Shared>,
    of_flow: &'a Shared,
) -> Vec<&'a Shared> {
    let mut outer = Vec::new();
    let mut next = group;
    for _ in groups {
        let Some(name) = next else { break };
        outer.extend(of_groups.get(name));
        next = groups.iter().find(|group| group.name == name).and_then(|group| group.group.as_deref());
    }
    outer.push(of_flow);
    outer
}

/// The templates in the environment variables that groups and the flow set: they may use what every task has.
fn check_defaults_env(flow: &Shared, groups: &BTreeMap<String, Shared>, names: &Names<'_>, reading: &mut Reading<'_>) {
    let scope = Scope { context: "defaults", has_item: false, more: &[], outputs: Outputs::None };
    let of_groups = groups.iter().map(|(name, shared)| (Path::of(["groups", name, "defaults", "env"]), shared));
    for (at, shared) in of_groups.chain([(Path::of(["defaults", "env"]), flow)]) {
        for (name, text) in shared.env.iter().flatten() {
            names.check(text, &at.key(name), &scope, reading);
        }
    }
}

/// What the kind of a task says of its configuration.
#[derive(Default)]
struct OfKind {
    uses: Uses,
    given: Option<Value>,
}

fn task(draft: Draft, needs: Vec<String>, known: OfKind, outer: &[&Shared]) -> Task {
    let branch =
        draft.branch.map(|choices| choices.into_iter().map(|(name, _)| format!("{}{name}", draft.prefix)).collect());
    let shared = tasks::merged(draft.shared, outer);
    let fields = draft.fields;
    Task {
        retry: tasks::retry(&shared),
        rate: tasks::rate(&shared.rate),
        id: draft.id,
        description: fields.description,
        kind: draft.kind,
        config: draft.config,
        needs,
        trigger_rule: fields.trigger_rule.unwrap_or_default(),
        when: tasks::condition(fields.when),
        for_each: draft.for_each,
        group: draft.group,
        setup: fields.setup.unwrap_or(false),
        teardown: draft.teardown.map(|names| names.into_iter().map(|(name, _)| name).collect()),
        branch,
        timeout: shared.timeout,
        pool: shared.pool.unwrap_or_else(|| DEFAULT_POOL.to_owned()),
        pool_slots: shared.pool_slots.unwrap_or(1),
        priority: shared.priority.unwrap_or(0),
        depends_on_past: shared.depends_on_past.unwrap_or(false),
        deadline: fields.deadline,
        warn_after: fields.warn_after,
        cache: tasks::cache(fields.cache),
        env: shared.env.unwrap_or_default(),
        memory: shared.memory,
        hooks: draft.hooks,
        uses: known.uses,
        given: known.given,
        path: draft.path,
    }
}

#[cfg(test)]
mod tests {
    use flumen_core::task_kind::shape::Shape;

    use super::*;

    #[test]
    fn a_shape_knows_the_properties_of_a_task() {
        let checker = Checker::new(Kinds::default());
        let shape = Shape::of(&checker.schemas.task);
        assert!(shape.property("needs").is_some() && shape.property("retries").is_some());
        assert!(shape.property("env").and_then(|env| env.property("PORT")).is_some_and(|port| !port.allows("number")));
    }
}
