//! Outputs that are used again, and when they are not.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use flumen_core::clock::Clock as _;
use flumen_core::flow::store::MetaStore as _;
use flumen_core::flow::{Outcome, RunRecord};
use flumen_worker::host::Host;
use serde_json::{Value, json};

use crate::support::{Answer, Fixture, WebServer, start};

/// Counts how often it runs, and says so.
const COUNT: &str = "echo x >> $FLUMEN_PROJECT/count; wc -l < $FLUMEN_PROJECT/count";

/// A run of the flow `flow`, in which these parameters have these values.
async fn run_of(fixture: &Fixture, flow: &str, params: Value) -> RunRecord {
    let id = fixture.make_run(flow, start()).await;
    let mut record = fixture.store.run(id).await.unwrap();
    record.params.extend(params.as_object().unwrap().clone());
    record
}

/// How the task `one` of such a run ends: its output and whether that is an earlier one; and what was noted about the cache.
async fn once(fixture: &Fixture, params: Value) -> (Value, bool, String) {
    fixture.clock.advance(1);
    let run = run_of(fixture, "test", params).await;
    let (output, reused) = match fixture.execute(&fixture.work(&run, "one", 1)).await {
        Outcome::Success { output, .. } => (output, false),
        Outcome::Reused { output, .. } => (output, true),
        other => panic!("{other:?} {:?}", fixture.lines()),
    };
    (output, reused, notes(fixture))
}

fn notes(fixture: &Fixture) -> String {
    let lines = fixture.lines();
    let notes = lines.iter().filter_map(|line| line.strip_prefix("Note cache: "));
    notes.collect::<Vec<_>>().join("; ")
}

/// A project with the flow `test`, whose task `one` has these fields.
fn with(task: &str) -> Fixture {
    Fixture::new(&[("flows/test.yml", &flow_of(task))], &[("TOKEN", "very-secret")])
}

fn flow_of(task: &str) -> String {
    format!("flow: test\nparams: {{ color: yellow, verbose: false }}\ntasks:\n  one: {{ {task} }}\n")
}

fn counting(cache: &str) -> String {
    format!("cache: {cache}, shell: \"{COUNT}\"")
}

#[tokio::test]
async fn an_output_is_used_again_while_nothing_changes() {
    let fixture = with(&counting("true"));
    let run = run_of(&fixture, "test", json!({})).await;
    assert_eq!(fixture.execute(&fixture.work(&run, "one", 1)).await, Outcome::success(json!("1")));
    assert_eq!(notes(&fixture), "no earlier output is used: there is none");
    fixture.clock.advance(2 * 3_600 + 5);
    let again = run_of(&fixture, "test", json!({})).await;
    let cause = format!("used the output of run {} from 2 h ago", run.id);
    let outcome = fixture.execute(&fixture.work(&again, "one", 1)).await;
    assert_eq!(outcome, Outcome::Reused { output: json!("1"), cause: cause.clone() });
    assert_eq!(notes(&fixture), cause);
}

#[tokio::test]
async fn parameters_must_be_the_same_or_those_that_are_named() {
    let fixture = with(&counting("true"));
    once(&fixture, json!({})).await;
    let (output, _, note) = once(&fixture, json!({ "color": "green" })).await;
    let why = "no earlier output is used: parameter color changed from yellow to green";
    assert_eq!((output, note.as_str()), (json!("2"), why));
    // Both are kept.
    assert_eq!(once(&fixture, json!({})).await.0, json!("1"));
    assert_eq!(once(&fixture, json!({ "color": "green" })).await.0, json!("2"));
    for (cache, params, runs) in [
        ("{ params: [color] }", json!({ "verbose": true }), false),
        ("{ params: [color] }", json!({ "color": "red" }), true),
        ("{ params: false }", json!({ "color": "red" }), false),
    ] {
        let fixture = with(&counting(cache));
        once(&fixture, json!({})).await;
        assert_eq!(once(&fixture, params).await.1, !runs, "{cache}");
    }
    // What templates become always counts.
    let fixture = with("cache: { params: false }, shell: \"echo {{ params.color }}\"");
    once(&fixture, json!({})).await;
    let (output, _, note) = once(&fixture, json!({ "color": "red" })).await;
    assert_eq!((output, note.as_str()), (json!("red"), "no earlier output is used: field command changed"));
}

#[tokio::test]
async fn fields_and_files_must_be_the_same() {
    let fixture = with("cache: true, python: { file: one.py }");
    fixture.write("one.py", "return 1");
    let code = |number: u32| format!("import json, os\nopen(os.environ['FLUMEN_OUTPUT'], 'w').write('{number}')\n");
    fixture.write("one.py", &code(1));
    assert_eq!(once(&fixture, json!({})).await.0, json!(1));
    fixture.write("one.py", &code(2));
    let (output, _, note) = once(&fixture, json!({})).await;
    assert_eq!((output, note.as_str()), (json!(2), "no earlier output is used: file one.py changed"));
    fixture.write("flows/test.yml", &flow_of("cache: true, env: { A: b }, python: { file: one.py }"));
    assert_eq!(once(&fixture, json!({})).await.2, "no earlier output is used: source changed");
    // Unless that does not matter.
    let fixture = with("cache: { source: false }, python: { file: one.py }");
    fixture.write("one.py", &code(1));
    once(&fixture, json!({})).await;
    fixture.write("one.py", &code(2));
    assert_eq!(once(&fixture, json!({})).await.0, json!(1));
}

#[tokio::test]
async fn an_output_expires() {
    let fixture = with(&counting("1d"));
    once(&fixture, json!({})).await;
    fixture.clock.advance(86_399);
    assert!(once(&fixture, json!({})).await.1);
    let (output, _, note) = once(&fixture, json!({})).await;
    assert_eq!(output, json!("2"));
    assert_eq!(note, "no earlier output is used: the last one is 1 d old, and expires after 1d");
    assert_eq!(once(&fixture, json!({})).await.0, json!("2"));
}

#[tokio::test]
async fn files_that_are_named_must_be_as_they_were() {
    let fixture = with(&counting("{ inputs: [\"data/{{ params.color }}.csv\", \"more/*.csv\", folder] }"));
    fixture.write("data/yellow.csv", "a");
    fixture.write("more/a.csv", "a");
    fixture.write("folder/below/x", "a");
    once(&fixture, json!({})).await;
    let (_, reused, note) = once(&fixture, json!({})).await;
    assert!(reused, "{note}");
    for (file, name) in
        [("data/yellow.csv", "data/yellow.csv"), ("more/b.csv", "more/*.csv"), ("folder/below/x", "folder")]
    {
        fixture.write(file, "bb");
        let (_, reused, note) = once(&fixture, json!({})).await;
        assert!(!reused && note == format!("no earlier output is used: {name} has changed"), "{note}");
        assert!(once(&fixture, json!({})).await.1);
    }
    // What is not there cannot be told to be as it was.
    std::fs::remove_file(fixture.dir().join("data/yellow.csv")).unwrap();
    let (_, reused, note) = once(&fixture, json!({})).await;
    assert!(!reused && note.ends_with("it cannot be told whether data/yellow.csv has changed"), "{note}");
}

#[tokio::test]
async fn what_web_servers_have_is_told_by_their_tags() {
    let server = WebServer::start(|request| match request.path.as_str() {
        "/tagged" => Answer { status: 200, headers: vec![("etag", "\"1\"".to_owned())], ..Answer::default() },
        "/weak" => Answer { status: 200, headers: vec![("etag", "W/\"1\"".to_owned())], ..Answer::default() },
        _ => Answer::text(404, ""),
    })
    .await;
    for (path, expect) in [("tagged", true), ("weak", false), ("gone", false)] {
        let fixture = with(&counting(&format!("{{ inputs: [\"{}/{path}\"] }}", server.url)));
        once(&fixture, json!({})).await;
        assert_eq!(once(&fixture, json!({})).await.1, expect, "{path}");
    }
}

/// Stands for the binary: it tells the states of tables that a file has, and what a query read.
const BINARY: &str = "#!/usr/bin/env python3
import json, os, sys
job = json.load(sys.stdin)
states = json.load(open('states.json'))
if job['kind'] == 'state':
    if 'broken' in states:
        sys.exit(3)
    output = {name: states.get(name) for name in job['config']['datasets']}
    done = {'output': output}
else:
    done = {'output': states.get('lake.raw.x'), 'reads': ['lake.raw.x'], 'writes': []}
open(os.environ['FLUMEN_RESULT'], 'w').write(json.dumps({'done': done}))
";

fn with_binary(task: &str) -> Fixture {
    let fixture = with(task);
    fixture.write("flumen", BINARY);
    std::fs::set_permissions(fixture.dir().join("flumen"), std::fs::Permissions::from_mode(0o755)).unwrap();
    fixture.write("states.json", "{\"lake.raw.x\": \"1\"}");
    fixture
}

#[tokio::test]
async fn tables_must_be_as_they_were() {
    let fixture = with_binary("cache: { inputs: [lake.raw.x, lake.raw.y] }, sql: { query: \"select 1\" }");
    fixture.write("states.json", "{\"lake.raw.x\": \"1\", \"lake.raw.y\": \"1\"}");
    assert_eq!(once(&fixture, json!({})).await.0, json!("1"));
    assert!(once(&fixture, json!({})).await.1);
    fixture.write("states.json", "{\"lake.raw.x\": \"2\", \"lake.raw.y\": \"1\"}");
    let (output, _, note) = once(&fixture, json!({})).await;
    assert_eq!((output, note.as_str()), (json!("2"), "no earlier output is used: lake.raw.x has changed"));
    assert!(once(&fixture, json!({})).await.1);
    for states in ["{\"lake.raw.x\": \"2\"}", "{\"broken\": true}"] {
        fixture.write("states.json", states);
        let (_, reused, note) = once(&fixture, json!({})).await;
        assert!(!reused && note.contains("it cannot be told whether lake.raw."), "{note}");
    }
}

#[tokio::test]
async fn what_a_query_read_counts_from_the_next_run_on() {
    let fixture = with_binary("cache: true, sql: { query: \"select 1\" }");
    once(&fixture, json!({})).await;
    // It was read without anybody having looked at it before.
    let (_, reused, note) = once(&fixture, json!({})).await;
    assert!(!reused && note.ends_with("it is not known how lake.raw.x was when it was read"), "{note}");
    assert!(once(&fixture, json!({})).await.1);
    fixture.write("states.json", "{\"lake.raw.x\": \"2\"}");
    let (output, _, note) = once(&fixture, json!({})).await;
    assert_eq!((output, note.as_str()), (json!("2"), "no earlier output is used: lake.raw.x has changed"));
    // Where inputs do not matter, nobody is asked.
    let fixture = with_binary("cache: { inputs: false }, sql: { query: \"select 1\" }");
    once(&fixture, json!({})).await;
    fixture.write("states.json", "{\"lake.raw.x\": \"2\"}");
    assert_eq!(once(&fixture, json!({})).await.0, json!("1"));
}

#[tokio::test]
async fn secrets_are_not_kept() {
    let fixture = with(
        "cache: true, env: { KEY: \"{{ secret_env('TOKEN') }}\" }, shell: \"echo {{ secret_env('TOKEN') }} >/dev/null\"",
    );
    once(&fixture, json!({ "color": "very-secret" })).await;
    assert!(once(&fixture, json!({ "color": "very-secret" })).await.1);
    let folder = fixture.dir().join("lake/_flumen/cache/test/one");
    let kept: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    assert_eq!(kept.len(), 2, "an entry and its output: {kept:?}");
    assert!(!kept.iter().any(|text| text.contains("very-secret")), "{kept:?}");
}

#[tokio::test]
async fn items_are_cached_one_by_one() {
    let fixture = with(
        "for_each: [a, b, c], cache: true, shell: \"echo x >> $FLUMEN_PROJECT/{{ item }}; wc -l < $FLUMEN_PROJECT/{{ item }}\"",
    );
    let mut said = Vec::new();
    for (index, item) in [(0, "a"), (1, "b"), (2, "a"), (0, "b")] {
        let run = run_of(&fixture, "test", json!({})).await;
        let mut work = fixture.work(&run, &format!("one[{index}]"), 1);
        work.queued.item = Some(json!(item));
        let outcome = fixture.execute(&work).await;
        said.push(matches!(outcome, Outcome::Reused { .. }));
    }
    assert_eq!(said, [false, false, true, true], "an item is itself, wherever in the list it is");
}

#[tokio::test]
async fn failures_and_skips_are_not_kept() {
    let fixture = with("cache: true, shell: \"echo x >> $FLUMEN_PROJECT/count; exit $(cat $FLUMEN_PROJECT/code)\"");
    let mut said = Vec::new();
    for code in ["1", "99", "0", "1"] {
        fixture.write("code", code);
        let run = run_of(&fixture, "test", json!({})).await;
        said.push(match fixture.execute(&fixture.work(&run, "one", 1)).await {
            Outcome::Success { .. } => "success",
            Outcome::Reused { .. } => "reused",
            Outcome::Skipped { .. } => "skipped",
            Outcome::Failure(_) => "failure",
            _ => "other",
        });
    }
    assert_eq!(said, ["failure", "skipped", "success", "reused"]);
}

#[tokio::test]
async fn a_person_may_want_it_done_again() {
    let mut fixture = with(&counting("true"));
    once(&fixture, json!({})).await;
    // One that was cleared.
    let run = run_of(&fixture, "test", json!({})).await;
    let cleared = fixture.work(&run, "one", 2);
    let mut task = fixture.begun(&cleared);
    task.spared = 1;
    fixture.commit(run.id, |_| {}, vec![task]).await;
    assert_eq!(fixture.execute(&cleared).await, Outcome::success(json!("2")));
    // A worker that uses no earlier outputs; what comes of it is kept.
    let host: &mut Host = Arc::get_mut(&mut fixture.host).unwrap();
    host.use_cache = false;
    let (output, _, note) = once(&fixture, json!({})).await;
    assert_eq!((output, note.as_str()), (json!("3"), ""));
    Arc::get_mut(&mut fixture.host).unwrap().use_cache = true;
    assert_eq!(once(&fixture, json!({})).await.0, json!("3"));
}

#[tokio::test]
async fn what_is_damaged_costs_a_run_and_the_oldest_go() {
    let fixture = with(&counting("true"));
    let folder = fixture.dir().join("lake/_flumen/cache/test/one");
    let files = || {
        let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    };
    for color in 0..8 {
        fixture.clock.advance(1);
        once(&fixture, json!({ "color": color })).await;
    }
    assert_eq!(files().len(), 10, "five entries with their outputs");
    assert!(once(&fixture, json!({ "color": 3 })).await.1);
    assert!(!once(&fixture, json!({ "color": 2 })).await.1);
    for file in files() {
        std::fs::write(file, "{").unwrap();
    }
    let (output, _, note) = once(&fixture, json!({ "color": 7 })).await;
    assert_eq!((output, note.as_str()), (json!("10"), "no earlier output is used: there is none"));
    assert!(fixture.clock.now() > start());
}
