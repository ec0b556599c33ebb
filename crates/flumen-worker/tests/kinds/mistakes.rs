//! What the checker says about tasks that are wrong, before anything runs.

use flumen_flow::definition::params::{ParamSpec, ParamType};
use flumen_flow::definition::{Checker, KnownFlow, Meanings, ProjectFile, Surroundings};
use flumen_worker::kinds;

/// Whether the mistakes of a flow whose only task is this are those; if not, what they are.
fn check(task: &str, expect: &[&str]) -> Option<String> {
    let lookup = |name: &str| match name {
        "tasks.py" => ProjectFile::Text("def f(): pass".to_owned()),
        _ => ProjectFile::Missing,
    };
    let month = ParamSpec { name: "month".to_owned(), kind: ParamType::Int, required: true, ..ParamSpec::default() };
    let other = KnownFlow { file: "other.yml".to_owned(), params: Some(vec![month]) };
    let around = Surroundings {
        connections: ["api".to_owned()].into(),
        flows: [("other".to_owned(), other)].into(),
        ..Surroundings::default()
    };
    let text = format!("flow: f\ntasks:\n  one: {{ {task} }}\n");
    let checker = Checker::new(kinds::known());
    let told: Vec<String> = match checker.check("f.yml", &text, &around, &Meanings::new(&lookup)) {
        Ok(_) => Vec::new(),
        Err(mistakes) => mistakes.iter().map(|mistake| mistake.message.clone()).collect(),
    };
    let fits = told.len() == expect.len() && told.iter().zip(expect).all(|(told, words)| told.contains(words));
    (!fits).then(|| format!("{task}\n    {}", told.join("\n    ")))
}

#[test]
fn fields_that_are_missing_unknown_or_exclude_each_other() {
    let cases = [
        ("approve: { patience: 1h }", &["'question' is missing"] as &[&str]),
        ("approve: { question: x, patience: long }", &["'long' is not a length of time"]),
        ("docker: { image: x, mounts: [data] }", &["'data' is not a mount"]),
        ("docker: { image: x, pull: sometimes }", &["sometimes"]),
        ("docker: { imag: x }", &["'image' is missing", "unknown key 'imag'"]),
        ("http: { url: \"https://x/\", body: a, json: 1 }", &["there is a 'body' too"]),
        ("http: { url: x, connection: apj }", &["apj"]),
        ("http: { url: /x, connection: api, expect: [200, x] }", &["expect"]),
        ("notify: {}", &["give either 'webhook' or 'email'"]),
        ("notify: { webhook: api }", &["takes either 'text' or 'payload'"]),
        ("notify: { webhook: nowhere, text: x }", &["nowhere"]),
        ("notify: { webhook: \"https://example.org/x\", text: x }", &[]),
        (
            "notify: { text: y, email: { to: a, subject: x, host: h, tls: ssl } }",
            &["is for a webhook", "whom it is from", "'email.body'", "no mode 'ssl'"],
        ),
        ("http: not an address", &["'not an address' is no address of a web server"]),
        ("http: { url: \"ftp://x/y\" }", &["is no address of a web server"]),
        ("http: \"{{ params.x }}\"", &["there is no parameter 'x'"]),
        ("sensor: { time: teatime }", &["'teatime'"]),
        ("sensor: { http: { url: nowhere } }", &["is no address of a web server"]),
        ("ingest: { from: [], to: lake.raw.t }", &["names nothing to load"]),
        ("export: { table: lake.raw.t, to: x.csv, mode: merge }", &["mode 'merge' needs a 'key'"]),
        ("lake: { optimize: nothing }", &["'nothing' is not the name of a table"]),
        ("lake: { vacuum: [all, lake.raw.t, nix] }", &["'nix' is not the name of a table"]),
        ("notify: { email: { to: a, subject: x, body: y, host: h } }", &["whom it is from"]),
        ("notify: { email: { to: a, subject: x, body: y } }", &["either a 'connection' or a 'host'"]),
        ("python: { file: tasks.py, function: f }", &[]),
        ("python: { file: task.py }", &["task.py"]),
        ("python: { args: [1] }", &["give either 'file' or 'code'"]),
        ("python: { code: \"return 1\", function: f }", &["'code' is a function already"]),
        ("sensor: {}", &["waits for one thing"]),
        ("sensor: { file: x, delay: 1s }", &["waits for one thing"]),
        ("sensor: { file: x, soft: true }", &["never gives up"]),
        ("sensor: { time: 2021-01-01, every: 1s }", &["has no 'every'"]),
        ("sensor: { http: { url: \"http://x/\", when: \"a ==\" } }", &["not well formed"]),
        ("sensor: { run: { interval: 2021 } }", &["either 'flow' or 'id'"]),
        ("sensor: { run: g }", &["g"]),
        ("sensor: { file: x, mode: sleep }", &["sleep"]),
        ("sensor: { run: other }", &[]),
        ("flow: { name: g }", &["there is no flow 'g'"]),
        ("flow: other", &["has to be given its parameter 'month'"]),
        ("flow: { name: other, params: { month: 3 } }", &[]),
        ("flow: { name: other, deployment: here }", &[]),
        ("flow: { name: other, deployment: here, params: { mont: 3 } }", &["there is no parameter 'mont'"]),
    ];
    let wrong: Vec<String> = cases.into_iter().filter_map(|(task, expect)| check(task, expect)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
