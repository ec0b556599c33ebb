//! Flow files in, flows or everything that is wrong with them out.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should fail")]

use std::collections::BTreeMap;

use flumen_core::Result;
use flumen_core::flow::TriggerRule;
use flumen_core::task_kind::shape::{self, Templates};
use flumen_core::task_kind::{Path, units::Period};
use flumen_flow::compiled::Compiled;
use flumen_flow::definition::params::{Bound, ParamSpec, ParamType};
use flumen_flow::definition::{
    Checker, DatasetRule, FailureName, Flow, ForEachSource, KnownFlow, Meanings, Mistakes, PlainTexts, ProjectFile,
    References, RuleSpec, ScheduleSpec, Surroundings, SyntaxProblem, Texts, version,
};
use serde_json::{Value, json};

#[path = "definition/kinds.rs"]
mod kinds;

/// The flow of `flows.md`'s beginning.
const TAXI: &str = r#"flow: yellow_taxi
description: Monthly yellow-taxi trips into the lake
tags: [nyc]
params:
  color: { type: string, default: yellow, enum: [yellow, green] }
schedule: { cron: "0 6 2 * *", timezone: UTC, start: 2019-01-01, end: 2021-07-01, catchup: all }
max_active_runs: 3
defaults: { retries: 3, retry_delay: 10s, timeout: 10m }
tasks:
  load:
    ingest:
      from: "https://…/{{ params.color }}_tripdata_{{ execution_date.strftime('%Y-%m') }}.parquet"
      to: lake.raw.{{ params.color }}_tripdata
      mode: replace-where
      by: load
  fresh:
    needs: [load]
    check: { table: lake.raw.{{ params.color }}_tripdata, rows: "> 0", columns: { total_amount: { nulls: 0 } } }
  busiest:
    needs: [fresh]
    sql: { into: lake.marts.busiest_zones, file: sql/busiest.sql }
  report:
    needs: [busiest]
    trigger_rule: none_failed
    shell: "echo {{ outputs.busiest.rows }} zones"
"#;

fn surroundings() -> Surroundings {
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let child = KnownFlow {
        file: "flows/child.yml".into(),
        params: Some(vec![
            ParamSpec { name: "day".into(), kind: ParamType::Date, required: true, ..ParamSpec::default() },
            ParamSpec {
                name: "size".into(),
                kind: ParamType::Int,
                max: Some(Bound::Number(9.0)),
                ..ParamSpec::default()
            },
        ]),
    };
    Surroundings {
        connections: set(&["pg", "slack", "tlc"]),
        vars: set(&["bucket"]),
        pools: set(&["heavy", "light"]),
        flows: [("child".to_owned(), child)].into(),
        datasets: set(&["lake.raw.yellow_tripdata", "lake.raw.green_tripdata"]),
        trusting: false,
        ..Surroundings::default()
    }
}

/// Plain texts with some files.
struct WithFiles(BTreeMap<&'static str, &'static str>);

impl Texts for WithFiles {
    fn references(&self, template: &str) -> Result<References, SyntaxProblem> {
        PlainTexts.references(template)
    }

    fn rule(&self, rule: &RuleSpec, around: &ScheduleSpec) -> Result<()> {
        PlainTexts.rule(rule, around)
    }

    fn zone(&self, name: &str) -> Result<()> {
        PlainTexts.zone(name)
    }

    fn moment(&self, text: &str) -> Result<()> {
        PlainTexts.moment(text)
    }

    fn file(&self, path: &str) -> ProjectFile {
        self.0.get(path).map_or(ProjectFile::Missing, |text| ProjectFile::Text((*text).to_owned()))
    }
}

fn read(text: &str) -> Result<Flow, Mistakes> {
    Checker::new(kinds::kinds()).check("f.yml", text, &surroundings(), &PlainTexts)
}

#[track_caller]
fn flow(text: &str) -> Flow {
    read(text).unwrap_or_else(|mistakes| panic!("{text}\n{mistakes}"))
}

#[track_caller]
fn check(text: &str, expect: &str) {
    let got = match read(text) {
        Ok(_) => String::new(),
        Err(mistakes) => mistakes.to_string().replace("f.yml:", ""),
    };
    assert_eq!(got, expect, "{text}");
}

/// The mistakes of a flow whose first lines are "flow: f" and "tasks:", then these.
#[track_caller]
fn check_tasks(tasks: &str, expect: &str) {
    check(&format!("flow: f\ntasks:\n{tasks}"), expect);
}

fn period(text: &str) -> Period {
    text.parse().unwrap()
}

#[test]
fn the_taxi_flow_reads_as_it_is_written() {
    let flow = flow(TAXI);
    assert_eq!((flow.name.as_str(), flow.tags.as_slice()), ("yellow_taxi", ["nyc".to_owned()].as_slice()));
    assert_eq!(flow.max_active_runs, 3);
    let color = &flow.params[0];
    assert_eq!((color.name.as_str(), color.kind, &color.default), ("color", ParamType::String, &Some("yellow".into())));
    assert_eq!(color.choices, ["yellow", "green"]);
    let schedule = serde_json::to_value(&flow.schedule).unwrap();
    let expect = json!({
        "rules": [{ "cron": "0 6 2 * *" }], "datasets": null, "timezone": "UTC", "start": "2019-01-01", "end": "2021-07-01",
        "catchup": "all", "interval": "data", "params": {},
    });
    assert_eq!(schedule, expect);
    let told: Vec<_> =
        flow.tasks.iter().map(|task| format!("{} {} {}", task.id, task.kind, task.needs.join(","))).collect();
    assert_eq!(told, ["load ingest ", "fresh check load", "busiest sql fresh", "report shell busiest"]);
    let load = flow.task("load").unwrap();
    assert_eq!(load.config["to"], "lake.raw.{{ params.color }}_tripdata");
    assert_eq!((load.retry.retries, &load.retry.delays, load.timeout), (3, &vec![period("10s")], Some(period("10m"))));
    assert_eq!(load.trigger_rule, TriggerRule::AllSuccess);
    let report = flow.task("report").unwrap();
    assert_eq!(report.trigger_rule, TriggerRule::NoneFailed);
    assert_eq!(report.config, json!({ "command": "echo {{ outputs.busiest.rows }} zones" }));
    assert_eq!(flow.task("fresh").unwrap().config["columns"], json!({ "total_amount": { "nulls": 0 } }));
    assert_eq!(flow.files(), ["sql/busiest.sql"]);
    assert!(flow.warnings.is_empty(), "{:?}", flow.warnings);
}

#[test]
fn later_errors_find_their_place() {
    let flow = flow(TAXI);
    let load = flow.task("load").unwrap();
    assert_eq!(flow.place_in(load, &Path::of(["to"])), "f.yml:13:11");
    let fresh = flow.task("fresh").unwrap();
    assert_eq!(flow.place_in(fresh, &Path::of(["columns", "total_amount", "nulls"])), "f.yml:18:106");
    let report = flow.task("report").unwrap();
    assert_eq!(flow.place_in(report, &Path::of(["command"])), "f.yml:25:12");
}

#[test]
fn twenty_mistakes_are_twenty() {
    let text = r#"flow: 1taxi
descripton: x
params:
  color: { type: enum }
  n: { type: int, default: many }
schedule: { cron: "6 2", timezone: Europe/Berln, start: tomorrow, catchup: lst }
max_active_runs: 0
defaults: { retires: 3, timeout: soon, pool: hevy }
tasks:
  load:
    ingest: { form: a, to: pgg.public.t, mode: apend }
    needs: [frsh]
    trigger_rule: none_faild
  fresh:
    chek: { table: lake.raw.x }
  report:
    needs: load
    shell: "echo {{ params.colour }} {{ outputs.fresh.rows }} {{ exection_date }}"
    sql: select 1
"#;
    let mistakes = read(text).unwrap_err();
    let expect = "\
f.yml:1:7: '1taxi' cannot be the name of a flow (use a letter or '_', then letters, digits, '_' and '-', 128 at most)
f.yml:2:1: unknown key 'descripton' (did you mean 'description'?)
f.yml:4:3: parameter 'color': a parameter of type enum needs its values (write them: enum: [a, b])
f.yml:5:28: parameter 'n': its default must be a whole number, not 'many'
f.yml:6:19: '6 2' is not a cron expression (write 5 or 6 fields such as '0 6 * * *', or a name such as @daily)
f.yml:6:36: there is no time zone 'Europe/Berln' (did you mean 'Europe/Berlin'?)
f.yml:6:57: 'tomorrow' is not a date (write it such as 2021-01-31 or 2021-01-31T06:00)
f.yml:6:76: 'schedule.catchup' must be all, last or none, not 'lst' (did you mean 'last'?)
f.yml:7:18: 'max_active_runs' must be at least 1, not 0
f.yml:8:13: unknown key 'retires' in 'defaults' (did you mean 'retries'?)
f.yml:8:34: 'defaults.timeout': 'soon' is not a length of time (write it such as 10s, 5m, 1h30m or 2d)
f.yml:8:46: there is no pool 'hevy' (did you mean 'heavy'?)
f.yml:11:5: ingest of task 'load': 'from' is missing (where the rows come from)
f.yml:11:15: ingest of task 'load': unknown key 'form' (did you mean 'from'?)
f.yml:11:28: task 'load': there is no connection 'pgg' (did you mean 'pg'?)
f.yml:11:48: ingest of task 'load': 'mode' must be append, replace, merge or replace-where, not 'apend' (did you mean 'append'?)
f.yml:12:13: task 'load' needs 'frsh', which is not there (did you mean 'fresh'?)
f.yml:13:19: task 'load': 'trigger_rule' must be all_success, all_failed, all_done, all_done_min_one_success, one_success, one_failed, one_done, none_failed, none_failed_min_one_success, none_skipped, all_skipped or always, not 'none_faild' (did you mean 'none_failed'?)
f.yml:15:5: task 'fresh': unknown key 'chek' (did you mean 'check'?)
f.yml:18:12: task 'report': templates have no 'exection_date' (did you mean 'execution_date'?)
f.yml:18:12: task 'report': 'outputs.fresh' is not known here: task 'fresh' does not come before (add 'fresh' to its 'needs')
f.yml:18:12: task 'report': there is no parameter 'colour' (did you mean 'color'?)
f.yml:19:5: task 'report': the task is of two kinds, 'shell' and 'sql' (keep one of them)";
    assert_eq!(mistakes.to_string(), expect);
    let error = flumen_core::Error::from(mistakes);
    assert!(error.to_string().starts_with("f.yml has 23 mistakes\n  f.yml:1:7: "), "{error}");
}

#[test]
fn a_flow_needs_a_name_and_tasks() {
    check(
        "",
        "1:1: the flow has no name (write flow: NAME in the first line)\n1:1: the flow has no tasks (write them under 'tasks', each with a name)",
    );
    check("[a]", "1:1: the value must be keys and values, not a list");
    check("flow:\ntasks: { a: { shell: x } }", "1:1: the flow has no name (write flow: NAME in the first line)");
    check(
        "flow: child\ntasks: { a: { shell: x } }",
        "1:7: flows/child.yml is flow 'child' too (give one of them another name)",
    );
    check("flow: f\ntasks: []", "2:8: 'tasks' must be keys and values, not a list");
    check("flow: f\nx-mine: { anything: [1] }\ntasks: { a: { shell: x } }", "");
}

#[test]
fn broken_yaml_is_one_mistake_beside_double_keys() {
    check(
        "flow: f\nflow: g\ntasks:\n  a: \"x\n",
        "2:1: the key 'flow' is here a second time; the first is in line 1 (keep one of them)\n\
         5:1: this is not YAML: invalid indentation in multiline quoted scalar (check the indentation and the quotes in this line and the one above)",
    );
    check_tasks(
        "  a: { shell: x }\n  a: { shell: y }\n",
        "4:3: the key 'a' is here a second time; the first is in line 3 (keep one of them)",
    );
}

#[test]
fn anchors_and_merge_keys_are_for_what_tasks_share() {
    let text = "\
flow: f
x-load: &load
  retries: 7
  ingest: &ingest { from: a.csv, to: lake.raw.a }
tasks:
  a: { <<: *load }
  b: { <<: *load, retries: 1, ingest: { <<: *ingest, to: lake.raw.b } }
";
    let flow = flow(text);
    assert_eq!(flow.tasks[0].retry.retries, 7);
    assert_eq!((flow.tasks[1].retry.retries, &flow.tasks[1].config["to"]), (1, &json!("lake.raw.b")));
    // A mistake in what is shared is told once, where it stands.
    check(
        &text.replace("from: a.csv, to: lake.raw.a", "from: a.csv, to: pg2.raw.a"),
        "4:38: task 'a': there is no connection 'pg2' (did you mean 'pg'?)",
    );
}

#[test]
fn a_task_has_one_kind() {
    check_tasks(
        "  a:\n    needs: []\n",
        "3:3: task 'a': the task does not say what to do (give it one of the kinds: check, flow, http, ingest, notify, python, sensor, shell, sql)",
    );
    check_tasks(
        "  a:\n  b: 3\n",
        "3:4: task 'a': nothing is written here\n4:6: task 'b': the value must be keys and values, not 3",
    );
    check_tasks("  a: { sql: }\n", "3:11: task 'a': 'sql' has no value");
    check_tasks(
        "  a b: { shell: x }\n",
        "3:3: 'a b' cannot be the name of a task (use a letter or '_', then letters, digits, '_' and '-', 128 at most)",
    );
    check_tasks("  a: { shell: [x] }\n", "3:15: shell of task 'a': 'command' must be text, not a list");
    check_tasks("  a: { sql: { into: lake.a.b } }\n", "3:8: sql of task 'a': give either 'query' or 'file'");
    check_tasks(
        "  a: { ingest: { from: x.csv, to: lake.a, mode: merge } }\n",
        "3:35: task 'a': 'lake.a' lacks a namespace (write lake.raw.a)\n3:49: ingest of task 'a': mode 'merge' needs a 'key' (name the columns that tell rows apart)",
    );
}

#[test]
fn texts_keep_their_letters_and_numbers_their_meaning() {
    let flow = flow(
        "flow: f\ntasks:\n  a:\n    env: { PORT: 5432, ZIP: 007, ON: yes }\n    http: { url: https://x/, headers: { X-Version: 1.10 } }\n  b: { check: { table: lake.a.b, rows: 5, columns: { x: { nulls: 3, min: 1e3 } } } }\n",
    );
    let a = flow.task("a").unwrap();
    assert_eq!(
        a.env.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>(),
        ["ON=yes", "PORT=5432", "ZIP=007"]
    );
    assert_eq!(a.config["headers"]["X-Version"], "1.10");
    assert_eq!(
        flow.task("b").unwrap().config,
        json!({ "table": "lake.a.b", "rows": "5", "columns": { "x": { "nulls": 3, "min": 1000.0 } } })
    );
}

#[test]
fn circles_are_told_with_the_whole_way() {
    check_tasks(
        "  a: { needs: [c], shell: x }\n  b: { needs: [a], shell: x }\n  c: { needs: b, shell: x }\n  d: { needs: [d, a], shell: x }\n",
        "4:16: tasks wait for each other in a circle: a → b → c → a (take one of the 'needs' out)\n\
         6:16: task 'd' needs itself (leave it out)",
    );
    check_tasks(
        "  a: { needs: [b], shell: x }\n  b: { needs: [a], shell: x }\n  c: { needs: [d], shell: x }\n  d: { needs: [c], shell: x }\n",
        "4:16: tasks wait for each other in a circle: a → b → a (take one of the 'needs' out)\n\
         6:16: tasks wait for each other in a circle: c → d → c (take one of the 'needs' out)",
    );
}

#[test]
fn long_chains_do_no_harm() {
    let tasks: String = (1..5000).map(|n| format!("  t{n}: {{ needs: [t{}], shell: x }}\n", n - 1)).collect();
    assert_eq!(flow(&format!("flow: f\ntasks:\n  t0: {{ shell: x }}\n{tasks}")).tasks.len(), 5000);
}

#[test]
fn no_file_is_too_broken() {
    let checker = Checker::new(kinds::kinds());
    let read =
        |text: &str| checker.check("f.yml", text, &surroundings(), &PlainTexts).map_or_else(|bad| bad.count(), |_| 0);
    for (text, _) in examples() {
        let lines: Vec<&str> = text.lines().collect();
        for left_out in 0..lines.len() {
            let rest = lines.iter().enumerate().filter(|(number, _)| *number != left_out);
            read(&rest.map(|(_, line)| format!("{line}\n")).collect::<String>());
        }
        for (end, _) in text.char_indices().step_by(7) {
            read(&text[..end]);
        }
        for (letter, with) in [
            (":", ""),
            (":", ": ["),
            ("{", "["),
            ("}", ""),
            ("[", "{"),
            ("\"", ""),
            (" ", "\t"),
            ("- ", "-"),
            ("a", "*a"),
            ("1", "null"),
        ] {
            read(&text.replace(letter, with));
        }
    }
    for text in [
        "\0",
        "---",
        "...",
        "- - -",
        "flow: &a *a",
        "&a [*a]",
        "? ",
        "{",
        "%YAML 1.2",
        "{{ x }}",
        "flow: {{ x }}",
        "tasks: {a: {for_each: {}, needs: {}}}",
        "\u{feff}flow: f",
    ] {
        read(text);
    }
}

#[test]
fn groups_share_needs_defaults_and_a_prefix() {
    let flow = flow(
        "\
flow: f
defaults: { retries: 1, pool: light, env: { A: flow, B: flow } }
tasks:
  first: { shell: x }
  last: { needs: [marts], shell: x }
  stray: { group: marts, needs: [first], retries: 9, shell: x }
groups:
  marts:
    needs: [first]
    prefix: mart_
    defaults: { retries: 2, env: { A: group } }
    tasks:
      one: { shell: x }
      two: { needs: [one, first], shell: x }
  inner:
    group: marts
    defaults: { priority: 5 }
    tasks: { deep: { env: { C: task }, shell: x } }
",
    );
    let told: Vec<_> = flow
        .tasks
        .iter()
        .map(|task| {
            format!("{} [{}] {} {} {}", task.id, task.needs.join(","), task.retry.retries, task.pool, task.priority)
        })
        .collect();
    assert_eq!(
        told,
        [
            "first [] 1 light 0",
            "last [stray,mart_two,deep] 1 light 0",
            "stray [first] 9 light 0",
            "mart_one [first] 2 light 0",
            "mart_two [first,mart_one] 2 light 0",
            "deep [first] 2 light 5",
        ]
    );
    let env = &flow.task("deep").unwrap().env;
    assert_eq!(env.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>(), ["A=group", "B=flow", "C=task"]);
    assert_eq!(flow.task("deep").unwrap().group.as_deref(), Some("inner"));
}

#[test]
fn what_is_wrong_with_groups() {
    check(
        "\
flow: f
tasks:
  a: { group: mart, shell: x }
  b: { group: marts, needs: [marts], shell: x }
  dup: { shell: x }
groups:
  marts: { needs: [nix, b], defaults: { pool: heave } }
  empty: {}
  dup: { tasks: { dup: { shell: x } } }
  in1: { group: in2, tasks: { c: { shell: x } } }
  in2: { group: in1 }
  lost: { group: nowhere, tasks: { d: { shell: x } } }
",
        "\
3:15: task 'a': there is no group 'mart' (did you mean 'marts'?)
4:30: task 'b' needs the group 'marts' that it is in
7:20: group 'marts' needs 'nix', which is not there (the tasks are a, b, dup, dup, c, d)
7:25: group 'marts' needs a task of its own, 'b'
7:47: group 'marts': there is no pool 'heave' (did you mean 'heavy'?)
8:3: group 'empty' has no tasks
9:3: 'dup' is the name of a task and of a group (rename one of them)
9:19: another task is called 'dup' already (give one of them another name, or its group a 'prefix')
10:17: group 'in1' is in itself
11:17: group 'in2' is in itself
12:18: group 'lost': there is no group 'nowhere' (the groups are marts, empty, dup, in1, in2, lost)",
    );
}

#[test]
fn everything_that_a_task_can_say() {
    let flow = flow(
        "\
flow: f
params: { color: yellow }
tasks:
  up: { setup: true, shell: x }
  find: { needs: [up], python: { code: 'return [\"{{ not a template }\"]' } }
  each:
    needs: find
    description: For each
    when: \"{{ params.color == 'yellow' }}\"
    for_each: { items: \"{{ outputs.find }}\", max_active: 4, limit: 50 }
    retries: 2
    retry_delay: [1s, 5s, 30]
    retry_exponential_backoff: true
    max_retry_delay: 1h
    retry_jitter: 0.5
    retry_on: [unavailable, 75]
    no_retry_on: timeout
    max_infra_retries: 9
    timeout: 5m
    pool_slots: 2
    priority: -3
    rate: 10/min
    depends_on_past: true
    deadline: 2h
    warn_after: 1h
    cache: { inputs: [\"s3://{{ var.bucket }}/x\"], params: [color], expires: 1d }
    env: { ITEM: \"{{ item }}\" }
    memory: 2GiB
    on_failure: { notify: { webhook: slack, text: \"{{ task }}: {{ error }} {{ item }}\" } }
    on_success: [{ shell: echo, timeout: 5s, retries: 0 }]
    shell: \"echo {{ item.name }} {{ map_index }}\"
  choose: { needs: [each], branch: [good], python: { file: choose.py } }
  good: { needs: [choose], when: params.color, for_each: [a, \"{{ ds }}\"], cache: 1h, shell: x }
  other: { needs: [choose], for_each: { query: select 1, connection: pg }, rate: { limit: 1, per: 1h, key: api }, shell: x }
  glob: { for_each: { glob: \"s3://x/{{ ds }}/*.csv\" }, when: false, cache: true, shell: x }
  down: { needs: [good, other], teardown: up, shell: x }
",
    );
    let each = serde_json::to_value(flow.task("each").unwrap()).unwrap();
    let expect = json!({
        "id": "each", "description": "For each", "kind": "shell", "config": { "command": "echo {{ item.name }} {{ map_index }}" },
        "needs": ["find"], "trigger_rule": "all_success", "when": "params.color == 'yellow'",
        "for_each": { "source": { "expression": "outputs.find" }, "max_active": 4, "limit": 50 },
        "group": null, "setup": false, "teardown": null, "branch": null,
        "retry": { "retries": 2, "delays": ["1s", "5s", "30s"], "backoff": 2.0, "max_delay": "1h", "jitter": 0.5,
            "on": ["unavailable", 75], "not_on": ["timeout"], "max_infra": 9 },
        "timeout": "5m", "pool": "default", "pool_slots": 2, "priority": -3,
        "rate": { "limit": 10, "per": "1m", "key": null }, "depends_on_past": true, "deadline": "2h", "warn_after": "1h",
        "cache": { "inputs": ["s3://{{ var.bucket }}/x"], "source": true, "params": ["color"], "expires": "1d" },
        "env": { "ITEM": "{{ item }}" }, "memory": "2147483648B",
        "hooks": {
            "on_failure": [{ "kind": "notify", "config": { "webhook": "slack", "text": "{{ task }}: {{ error }} {{ item }}" },
                "timeout": "1m", "retries": 2, "retry_delay": "10s" }],
            "on_success": [{ "kind": "shell", "config": { "command": "echo" }, "timeout": "5s", "retries": 0, "retry_delay": "10s" }],
            "on_retry": [], "on_late": [],
        },
    });
    assert_eq!(each, expect);
    let task = |id: &str| flow.task(id).unwrap();
    assert_eq!(task("choose").branch, Some(vec!["good".to_owned()]));
    assert_eq!((task("good").when.as_deref(), task("glob").when.as_deref()), (Some("params.color"), Some("false")));
    assert!(matches!(&task("good").for_each.as_ref().unwrap().source, ForEachSource::Items(items) if items.len() == 2));
    assert!(
        matches!(&task("other").for_each.as_ref().unwrap().source, ForEachSource::Query { connection: Some(c), .. } if c == "pg")
    );
    assert_eq!(
        (task("down").teardown.as_deref(), task("down").needs.join(",")),
        (Some(&["up".to_owned()][..]), "up,good,other".to_owned())
    );
    assert_eq!(task("each").retry.on, [FailureName::Kind("unavailable".into()), FailureName::Exit(75)]);
}

#[test]
fn what_is_wrong_with_rates() {
    check_tasks(
        "  a: { rate: 1/s, pool: heavy, shell: x }\n  b: { rate: { limit: 1, per: 1h, key: a/b }, pool: default, shell: x }\n  c: { rate: { limit: 1, per: 1h, key: k }, shell: x }\n  d: { rate: { limit: 2, per: 1h, key: k }, shell: x }\n  e: { rate: { limit: 1, per: 60m, key: k }, shell: x }\n",
        "3:6: task 'a': it has both a rate and the pool 'heavy' (give the pool the rate ('flumen pool set'), or write pool: default)\n\
         4:40: task 'b': 'a/b' is not the key of a rate (write a name, without slashes)\n\
         6:14: task 'd': the rate 'k' is 1/1h in task 'c' (tasks that share a rate have the same one)",
    );
}

#[test]
fn tasks_with_a_rate_wait_in_its_pool() {
    let flow = flow(
        "flow: polite\ndefaults: { rate: 10/min }\ntasks:\n  a: { shell: x }\n  b: { rate: { limit: 1, per: 1h, key: api }, shell: x }\n  c: { rate: { limit: 1, per: 1h, key: api }, shell: x }\n",
    );
    let rates: Vec<String> =
        flow.rates().iter().map(|(pool, rate)| format!("{pool} {}/{}", rate.limit, rate.per)).collect();
    assert_eq!(rates, ["rate:api 1/1h", "rate:polite/a 10/1m"]);
    let compiled = Compiled::new(flow).unwrap();
    let pools: Vec<&str> = compiled.graph.nodes().iter().map(|node| node.pool.as_str()).collect();
    assert_eq!(pools, ["rate:polite/a", "rate:api", "rate:api"]);
}

#[test]
fn what_is_wrong_in_what_a_task_says() {
    check_tasks(
        "  a: { retry_on: [unavailble, 3], no_retry_on: nix, rate: fast, retry_jitter: 2, pool_slots: 0, shell: x }\n",
        "3:19: task 'a': there is no kind of failure 'unavailble' (did you mean 'unavailable'?)\n\
         3:48: task 'a': there is no kind of failure 'nix' (an exit code, or one of invalid, not_found, conflict, unavailable, data, internal, exit, timeout, lost, out_of_memory)\n\
         3:59: task 'a': 'fast' is not a rate (write it such as 10/min, 100/h or 5/s)\n\
         3:79: task 'a': 'retry_jitter' must be at most 1, not 2\n\
         3:94: task 'a': 'pool_slots' must be at least 1, not 0",
    );
    check_tasks(
        "  a: { for_each: { items: [1], glob: x }, shell: x }\n  b: { for_each: { query: x, connection: pq }, branch: true, shell: x }\n  c: { for_each: { glob: x, connection: pg, max: 3 }, shell: x }\n",
        "3:8: task 'a': 'for_each' must have one of 'items', 'query' and 'glob'\n\
         4:42: task 'b': there is no connection 'pq' (did you mean 'pg'?)\n\
         4:48: task 'b': 'branch' and 'for_each' exclude each other (let a task after it choose)\n\
         4:48: task 'b': no task needs it, so that it has nothing to choose\n\
         5:29: task 'c': 'for_each.connection' is for a query\n\
         5:45: task 'c': unknown key 'max' in 'for_each' (there are: connection, glob, items, limit, max_active, query)",
    );
    check_tasks(
        "  up: { shell: x }\n  down: { teardown: [up, upp], trigger_rule: all_done, shell: x }\n  both: { setup: true, teardown: true, shell: x }\n",
        "4:22: task 'down': task 'up' is no setup task (write 'setup: true' in task 'up')\n\
         4:26: task 'down': there is no task 'upp' (did you mean 'up'?)\n\
         4:32: task 'down': a teardown has no trigger rule (it runs when what it takes down was set up, and all before it ended)\n\
         5:24: task 'both': a task cannot be both setup and teardown",
    );
    check_tasks(
        "  a: { branch: [b, d], shell: x }\n  b: { needs: [a], shell: x }\n  c: { needs: [b], cache: { params: [colr] }, shell: x }\n",
        "3:20: task 'a': no task 'd' needs it, so that it cannot be chosen (did you mean 'b'?)\n\
         5:38: task 'c': there is no parameter 'colr'",
    );
    check_tasks(
        "  a: { on_failure: { notfy: {} }, on_retry: [{ shell: x, retires: 1 }, x], shell: x }\n",
        "3:22: on_failure of task 'a': unknown key 'notfy' (did you mean 'notify'?)\n\
         3:58: on_retry of task 'a': unknown key 'retires' (did you mean 'retries'?)\n\
         3:72: on_retry of task 'a': the value must be keys and values, not 'x'",
    );
}

#[test]
fn the_names_in_templates_are_checked() {
    let text = "\
flow: f
params: { color: yellow }
on_failure: { shell: \"{{ outputs.b.x }} {{ state }} {{ item }}\" }
tasks:
  a: { shell: \"{{ conn.pg.host }} {{ conn.pgg.host }} {{ var.bucket }} {{ var.buckett }} {{ var('x') }}\" }
  b: { needs: [a], when: \"outputs.a.rows > parms.color\", shell: \"{{ outputs.c.rows }} {{ outputs.aa }} {{ outputs.b }}\" }
  c: { shell: \"{{ item }} {{ color }} {{ a.rows }} {{ error }} {{ zzzzzzzzzzzz }}\" }
  d: { for_each: \"[item]\", shell: \"{% for x in outputs %}{{ x }}{{ item }}{% endfor %} {{ macros.ds_add(ds, 1) }} {{ ds | upper }}\" }
  e: { env: { X: \"{{ params.\" }, shell: \"{% if %}\", on_failure: { shell: \"{{ outputs.e.x }} {{ outputs.a.x }}\" } }
";
    check(
        text,
        "\
3:22: a hook of the flow: 'item' is only there in a task with 'for_each'
5:15: task 'a': there is no connection 'pgg' (did you mean 'pg'?)
5:15: task 'a': there is no var 'buckett' (did you mean 'bucket'?)
6:26: task 'b': templates have no 'parms' (did you mean 'params'?)
6:65: task 'b': there is no task 'aa' (did you mean 'a'?)
6:65: task 'b': 'outputs.b' is not known here: task 'b' does not come before (add 'b' to its 'needs')
6:65: task 'b': 'outputs.c' is not known here: task 'c' does not come before (add 'c' to its 'needs')
7:15: task 'c': templates have no 'a' (write outputs.a)
7:15: task 'c': templates have no 'color' (write params.color)
7:15: task 'c': templates have no 'error'
7:15: task 'c': 'item' is only there in a task with 'for_each'
7:15: task 'c': templates have no 'zzzzzzzzzzzz'
8:18: task 'd': 'item' is only there in a task with 'for_each'
9:18: task 'e': the template is broken: unexpected end of input, expected identifier or integer
9:41: task 'e': the template is broken: unexpected end of block
9:74: a hook of task 'e': 'outputs.a' is not known here: task 'a' does not come before (add 'a' to its 'needs')",
    );
}

#[test]
fn files_are_looked_into() {
    let texts =
        WithFiles([("sql/a.sql", "select *\nfrom {{ params.tabel }}\nwhere x = '{{ ds }}'"), ("b.py", "{{")].into());
    let text = "flow: f\nparams: { table: t }\ntasks:\n  a: { sql: { file: sql/a.sql } }\n  b: { python: { file: b.py } }\n  c: { sql: { file: sql/c.sql } }\n  d: { sql: { file: \"{{ ds }}.sql\" } }\n";
    let mistakes = Checker::new(kinds::kinds()).check("f.yml", text, &surroundings(), &texts).unwrap_err();
    assert_eq!(
        mistakes.to_string(),
        "f.yml:6:21: task 'c': there is no file 'sql/c.sql' (paths start in the project's folder)\n\
         sql/a.sql:2:9: task 'a': there is no parameter 'tabel' (did you mean 'table'?)"
    );
}

#[test]
fn params_say_what_they_are() {
    let flow = flow(
        "\
flow: f
params:
  color: yellow
  n: 3
  share: 0.5
  fast: true
  since: 2019-01-01
  text: \"2019-01-01\"
  list: [1, 2]
  zip: { type: string, default: 007, enum: [007, 008] }
  vendor: { enum: [1, 2] }
  token: { type: secret, default: \"{{ secret_env('TOKEN') }}\" }
  maybe: { type: int, required: false, min: 1, max: 9, description: Perhaps }
  dates: { type: list, items: date, default: [2019-01-01] }
tasks: { a: { shell: x } }
",
    );
    let told: Vec<_> = flow
        .params
        .iter()
        .map(|spec| {
            let kind = serde_json::to_value(spec.kind).unwrap();
            let default = spec.default.as_ref().map_or("-".to_owned(), Value::to_string);
            format!(
                "{} {} {default}{}",
                spec.name,
                kind.as_str().unwrap(),
                if spec.required { " required" } else { "" }
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            "color string \"yellow\"",
            "n int 3",
            "share float 0.5",
            "fast bool true",
            "since date \"2019-01-01\"",
            "text string \"2019-01-01\"",
            "list list [1,2]",
            "zip string \"007\"",
            "vendor int - required",
            "token secret \"{{ secret_env('TOKEN') }}\"",
            "maybe int -",
            "dates list [\"2019-01-01\"]",
        ]
    );
}

#[test]
fn what_is_wrong_with_params() {
    check(
        "\
flow: f
params:
  a:
  b: { type: strng }
  c: { type: int, min: 2019-01-01, items: int }
  d: { default: 5, max: 3 }
  e: { type: secret, default: hunter2 }
  f: { enum: [x, y], default: z }
  g: { type: int, enum: [1, two] }
  h: { default: \"{{ ds }}\" }
  i: { default: 1, required: true }
  j j: 1
  k: { type: date }
schedule: \"@daily\"
tasks: { a: { shell: x } }
",
        "\
3:3: parameter 'a': it has neither a value nor a type (write its default, or { type: string } if it has none)
4:14: parameter 'b': 'type' must be string, int, float, bool, date, enum, list, object, secret or file, not 'strng' (did you mean 'string'?)
5:24: parameter 'c': 'min' does not fit a parameter that is a whole number
5:36: parameter 'c': 'items' is for parameters of type list
6:17: parameter 'd': its default must be at most 3, not 5
7:31: parameter 'e': a secret does not belong in this file (write default: \"{{ secret_env('NAME') }}\")
8:31: parameter 'f': its default must be x or y, not 'z' (did you mean 'x'?)
9:29: parameter 'g': 'two' is not a whole number
10:17: parameter 'h': a default cannot use 'ds' (it can use var, env_var, secret or secret_env)
11:20: parameter 'i': it has a default, and so is never required (leave out 'required' or 'default')
12:3: 'j j' cannot be the name of a parameter (use a letter or '_', then letters, digits, '_' and '-', 128 at most)
13:3: parameter 'k' has no value in scheduled runs (give it a default, write 'required: false', or give it under 'params' of the schedule)",
    );
}

#[test]
fn schedules_can_be_many_things() {
    let rules = |text: &str| {
        let flow = flow(&format!("flow: f\nschedule: {text}\ntasks: {{ a: {{ shell: x }} }}"));
        flow.schedule.unwrap()
    };
    assert_eq!(rules("\"@daily\"").rules, [RuleSpec::Cron("@daily".into())]);
    let several = rules("[\"0 6 * * *\", { every: 1h }, { datasets: lake.raw.yellow_tripdata }]");
    assert_eq!(several.rules, [RuleSpec::Cron("0 6 * * *".into()), RuleSpec::Every("1h".into())]);
    assert_eq!(several.datasets, Some(DatasetRule::One("lake.raw.yellow_tripdata".into())));
    let full = rules(
        "{ cron: [0 6 * * *, 0 18 * * *], rrule: FREQ=DAILY, dates: [2021-01-01, 2021-03], timezone: Europe/Berlin, interval: trigger, catchup: none }",
    );
    assert_eq!(full.rules.len(), 4);
    assert_eq!(full.rules[3], RuleSpec::Dates(vec!["2021-01-01".into(), "2021-03".into()]));
    let sets =
        rules("{ datasets: { any: [lake.raw.yellow_tripdata, { all: [lake.raw.green_tripdata, pg.public.zones] }] } }");
    assert_eq!(
        sets.datasets.unwrap().names(),
        ["lake.raw.yellow_tripdata", "lake.raw.green_tripdata", "pg.public.zones"]
    );
    let sets = rules("{ datasets: [lake.raw.yellow_tripdata, lake.raw.green_tripdata] }");
    assert!(matches!(sets.datasets, Some(DatasetRule::All(all)) if all.len() == 2));
}

#[test]
fn what_is_wrong_with_schedules() {
    let check = |schedule: &str, expect: &str| {
        check(&format!("flow: f\nparams: {{ n: 1 }}\ntasks: {{ a: {{ shell: x }} }}\nschedule: {schedule}"), expect);
    };
    check(
        "{ timezone: UTC }",
        "4:1: the schedule does not say when (give one of cron, every, rrule, dates and datasets)",
    );
    check(
        "3",
        "4:11: '3' is not a cron expression (write 5 or 6 fields such as '0 6 * * *', or a name such as @daily)",
    );
    check("{ corn: '@daily' }", "4:13: unknown key 'corn' in 'schedule' (did you mean 'cron'?)");
    check(
        "[\"@daily\", { every: 1h, timezone: UTC }]",
        "4:35: unknown key 'timezone' in 'schedule.1' (there are: cron, datasets, dates, every, rrule)",
    );
    check(
        "{ dates: [2021-01-01, soon] }",
        "4:20: 'soon' is not a date (write it such as 2021-01-31 or 2021-01-31T06:00)",
    );
    check(
        "{ datasets: { any: [lake.x], all: [pq.a.b] } }",
        "4:23: data sets are either 'all' or 'any' of a list (write { any: [a, b] }; the two can stand in each other)\n\
         4:31: 'lake.x' lacks a namespace (write lake.raw.x)\n\
         4:46: there is no connection 'pq' (did you mean 'pg'?)",
    );
    check(
        "{ cron: '@daily', params: { n: x, m: 2 } }",
        "4:42: parameter 'n' must be a whole number, not 'x'\n4:45: there is no parameter 'm' (did you mean 'n'?)",
    );
}

#[test]
fn a_data_set_that_no_flow_writes_is_only_a_warning() {
    let flow = flow("flow: f\nschedule: { datasets: [lake.raw.yelow_tripdata] }\ntasks: { a: { shell: x } }");
    let told: Vec<_> = flow.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "f.yml:2:24: no flow writes the data set 'lake.raw.yelow_tripdata' (did you mean 'lake.raw.yellow_tripdata'?)"
        ]
    );
}

#[test]
fn flows_in_flows_are_checked() {
    check_tasks(
        "  a: { flow: { name: child, params: { day: \"{{ ds }}\", size: 3 } } }\n  b: { flow: \"{{ params }}\" }\n",
        "",
    );
    check_tasks(
        "  a: { flow: chld }\n  b: { flow: child }\n  c: { flow: { name: child, params: { size: 10, dya: 1 } } }\n",
        "3:14: task 'a': there is no flow 'chld' (did you mean 'child'?)\n\
         4:14: task 'b': flow 'child' has to be given its parameter 'day'\n\
         5:37: task 'c': flow 'child' has to be given its parameter 'day'\n\
         5:45: task 'c': parameter 'size' must be at most 9, not 10\n\
         5:49: task 'c': there is no parameter 'dya' (did you mean 'day'?)",
    );
}

#[test]
fn a_project_has_hooks_too() {
    let checker = Checker::new(kinds::kinds());
    let text = "name: taxi\non_failure: { notify: { webhook: slack, text: \"{{ flow }}: {{ error }}\" } }\n";
    let hooks = checker.project_hooks("flumen.yml", text, &surroundings(), &PlainTexts).unwrap();
    assert_eq!((hooks.on_failure.len(), hooks.on_success.len()), (1, 0));
    let text = "on_failure: { notify: { webhok: slack, text: \"{{ outputs.a }}\" } }\non_late: [{}]\n";
    let mistakes = checker.project_hooks("flumen.yml", text, &surroundings(), &PlainTexts).unwrap_err();
    assert_eq!(
        mistakes.to_string(),
        "flumen.yml:1:15: notify of on_failure: 'webhook' is missing (the connection that it goes through)\n\
         flumen.yml:1:25: notify of on_failure: unknown key 'webhok' (did you mean 'webhook'?)\n\
         flumen.yml:1:46: a hook of the project: there is no task 'a'\n\
         flumen.yml:2:11: on_late: the hook does not say what to do (give it one of the kinds: check, flow, http, ingest, notify, python, sensor, shell, sql)"
    );
}

#[test]
fn a_version_is_of_the_text_and_its_files() {
    let files = [("a.sql", &b"select 1"[..]), ("b.sql", b"select 2")];
    let base = version(TAXI.as_bytes(), files);
    assert_eq!(base.len(), 64);
    assert_eq!(base, version(TAXI.as_bytes(), [files[1], files[0]]));
    assert_ne!(base, version(b"other", files));
    assert_ne!(base, version(TAXI.as_bytes(), [files[0], ("b.sql", b"select 3")]));
    assert_ne!(version(b"ab", []), version(b"a", [("b", &b""[..])]));
}

/// A flow file's value as editors see it, for whom a template in braces needs quotes.
fn plain(text: &str) -> Value {
    let text =
        text.replace("table: lake.raw.{{ params.color }}_tripdata,", "table: 'lake.raw.{{ params.color }}_tripdata',");
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{text}\n{error}"))
}

#[test]
fn the_schema_for_editors_fits_what_the_checker_takes() {
    let schema = Checker::new(kinds::kinds()).editor_schema();
    for (text, _) in examples() {
        let problems = shape::check(&schema, &plain(&text), Templates::InTexts);
        assert!(problems.is_empty(), "{text}\n{problems:?}");
    }
    let problems = shape::check(
        &schema,
        &plain("flow: f\ntasks: { a: { retires: 1, shell: { comand: x } } }"),
        Templates::InTexts,
    );
    assert!(problems.iter().any(|problem| problem.message.contains("'retires'")), "{problems:?}");
    for definition in ["task", "hook", "group", "param"] {
        assert!(schema["$defs"][definition].is_object(), "{definition}");
    }
    let ingest = &schema["$defs"]["task"]["properties"]["ingest"];
    assert_eq!(ingest["properties"]["to"]["description"], "Where they go.");
}

/// The YAML in the documentation that is a whole flow, and the line where it begins.
fn examples() -> Vec<(String, usize)> {
    let page = include_str!("../../../docs/flows.md");
    let mut found = vec![(TAXI.to_owned(), 0)];
    let mut open: Option<(String, usize)> = None;
    for (number, line) in page.lines().enumerate() {
        match (&mut open, line) {
            (None, "```yaml") => open = Some((String::new(), number + 2)),
            (Some(_), "```") => found.extend(open.take()),
            (Some((text, _)), line) => {
                text.push_str(line);
                text.push('\n');
            }
            _ => {}
        }
    }
    found
}

#[test]
fn every_example_in_the_documentation_is_right() {
    let mut around = surroundings();
    around.connections.extend(["warehouse".to_owned(), "alerts".to_owned()]);
    around.pools.insert("api".to_owned());
    let examples = examples();
    assert!(examples.len() > 8, "{}", examples.len());
    for (text, line) in examples {
        let texts = Meanings::new(&|_| ProjectFile::Unread);
        let checked = Checker::new(kinds::kinds()).check("flows.md", &text, &around, &texts);
        let flow = checked.unwrap_or_else(|mistakes| panic!("in line {line} of flows.md:\n{text}\n{mistakes}"));
        Compiled::new(flow).unwrap_or_else(|error| panic!("in line {line} of flows.md:\n{text}\n{error}"));
    }
}

#[test]
fn the_taxi_flow_is_compiled() {
    let texts = Meanings::new(&|_| ProjectFile::Unread);
    let flow = Checker::new(kinds::kinds()).check("f.yml", TAXI, &surroundings(), &texts).unwrap();
    let Compiled { graph, timetable, .. } = Compiled::new(flow).unwrap();
    let needs: Vec<&[usize]> = graph.nodes().iter().map(|node| node.needs.as_slice()).collect();
    assert_eq!(needs, [&[][..], &[0], &[1], &[2]]);
    assert_eq!(graph.node(3).rule, TriggerRule::NoneFailed);
    assert_eq!((graph.node(0).retry.retries, graph.node(0).timeout), (3, Some(period("10m").0)));
    let months: Vec<String> =
        timetable.all().map(|interval| interval.start.format("%Y-%m-%d %H").to_string()).collect();
    assert_eq!((months.len(), months[0].as_str(), months[29].as_str()), (30, "2019-01-02 06", "2021-06-02 06"));
    // What timetables and templates know is told with its place.
    let wrong = TAXI.replace("0 6 2 * *", "0 25 2 * *").replace("strftime('%Y-%m')", "year | upcase");
    let mistakes =
        Checker::new(kinds::kinds()).check("f.yml", &wrong, &surroundings(), &texts).unwrap_err().to_string();
    assert!(mistakes.contains("f.yml:6:") && mistakes.contains("25") && mistakes.contains("upcase"), "{mistakes}");
}

/// What the checker lets through is there when it is rendered, and the other way round.
#[test]
fn the_checker_and_the_templates_know_the_same_names() {
    let flow = |name: &str| format!("flow: f\ntasks:\n  a:\n    shell: \"{{{{ {name} }}}}\"\n");
    let texts = Meanings::new(&|_| ProjectFile::Unread);
    let checker = Checker::new(kinds::kinds());
    for name in ["now", "prev_execution_date", "prev_ds_nodash", "run_id"] {
        let checked = checker.check("f.yml", &flow(name), &surroundings(), &texts);
        assert!(checked.is_ok(), "{name}: {}", checked.unwrap_err());
    }
    // Jinja has it, and it would show secrets.
    assert!(checker.check("f.yml", &flow("debug()"), &surroundings(), &texts).is_err());
}

#[test]
fn the_documentation_names_every_field() {
    let page = include_str!("../../../docs/flows.md");
    let schema = Checker::new(kinds::kinds()).editor_schema();
    let kinds: Vec<_> = kinds::kinds().names().collect();
    let mut missing = Vec::new();
    for part in [
        &schema,
        &schema["$defs"]["task"],
        &schema["$defs"]["group"],
        &schema["$defs"]["param"]["anyOf"][0],
        &schema["$defs"]["hook"],
    ] {
        for name in part["properties"].as_object().unwrap().keys() {
            if !kinds.contains(&name.as_str()) && !page.contains(&format!("`{name}`")) {
                missing.push(name.clone());
            }
        }
    }
    assert!(missing.is_empty(), "flows.md says nothing about {missing:?}");
}
