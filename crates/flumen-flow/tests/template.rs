//! Templates, from the outside: the folder `template/` holds templates with what they become.
//!
//! `> template`, then `= text`, or `! error; hint`. In templates `\n` is a line break.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should fail")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use flumen_flow::interval::Interval;
use flumen_flow::template::{
    Context, Given, Known, Param, ParamKind, Renderer, Success, Text, check, check_expression, names,
    names_in_expression,
};
use serde_json::{Value as Json, json};

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn text(text: &str, secret: bool) -> Text {
    Text { text: text.to_owned(), secret }
}

fn context() -> Context {
    let param = |value: Json, kind: ParamKind| Param { value, kind };
    let monthly = |start: &str, end: &str| Interval { start: at(start), end: at(end) };
    let connection = [("host", text("db1", false)), ("password", text("hunter22", true))];
    let given = Given {
        variables: [
            ("month".to_owned(), text("2019-01", false)),
            ("key".to_owned(), text("k3y-k3y", true)),
            ("config".to_owned(), text(r#"{"size": 3}"#, false)),
        ]
        .into(),
        connections: [("pg".to_owned(), connection.map(|(name, text)| (name.to_owned(), text)).into())].into(),
        environment: [("REGION".to_owned(), "eu".to_owned()), ("TOKEN".to_owned(), "t0ken".to_owned())].into(),
        secrets: [("api".to_owned(), "s3cret!".to_owned())].into(),
    };
    Context {
        run_id: "scheduled__2021-01-02".to_owned(),
        attempt: 2,
        previous: Some(monthly("2020-12-02T06:00:00Z", "2021-01-02T06:00:00Z")),
        next: Some(monthly("2021-02-02T06:00:00Z", "2021-03-02T06:00:00Z")),
        last_success: Some(Success {
            interval: monthly("2020-11-02T06:00:00Z", "2020-12-02T06:00:00Z"),
            started: at("2020-12-02T06:00:07Z"),
        }),
        params: BTreeMap::from([
            ("color".to_owned(), param(json!("yellow"), ParamKind::Plain)),
            ("count".to_owned(), param(json!(3), ParamKind::Plain)),
            ("sizes".to_owned(), param(json!([1, 2.5]), ParamKind::Plain)),
            ("day".to_owned(), param(json!("2021-01-31"), ParamKind::Date)),
            ("pin".to_owned(), param(json!("0815-pin"), ParamKind::Secret)),
        ]),
        conf: json!({ "reason": "again" }),
        outputs: BTreeMap::from([
            ("load".to_owned(), json!({ "rows": 5, "files": ["a", "b"], "deep": { "er": true } })),
            ("list".to_owned(), json!(["x", "y"])),
            ("nothing".to_owned(), json!(null)),
        ]),
        more: BTreeMap::from([("item".to_owned(), json!({ "name": "a" }))]),
        now: at("2021-02-02T06:00:03Z"),
        seed: 42,
        surroundings: Arc::new(given),
        ..Context::new("taxi", "load", monthly("2021-01-02T06:00:00Z", "2021-02-02T06:00:00Z"), Tz::UTC)
    }
}

fn told(error: flumen_core::Error) -> String {
    match error.remedy() {
        Some(hint) => format!("{error}; {hint}"),
        None => error.to_string(),
    }
}

fn check_cases(cases: &str, renderer: &Renderer) {
    let mut source = None;
    let mut wrong = Vec::new();
    for line in cases.lines() {
        if let Some(template) = line.strip_prefix("> ") {
            source = Some(template.replace("\\n", "\n"));
        } else if let Some(source) = source.as_ref().filter(|_| line.starts_with(['=', '!'])) {
            let got = match renderer.text("sql", source) {
                Ok(rendered) => format!("= {}", rendered.value.replace('\n', "\\n")),
                Err(error) => format!("! {}", told(error).trim_start_matches("task 'load', field 'sql': ")),
            };
            if got.trim_end() != line {
                wrong.push(format!("{source}\n   got {got}\n  want {line}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn airflow() {
    check_cases(include_str!("template/airflow.txt"), &Renderer::new(context()));
}

#[test]
fn dates() {
    check_cases(include_str!("template/dates.txt"), &Renderer::new(context()));
}

#[test]
fn formats() {
    check_cases(include_str!("template/formats.txt"), &Renderer::new(context()));
}

#[test]
fn mistakes() {
    check_cases(include_str!("template/mistakes.txt"), &Renderer::new(context()));
}

#[test]
fn errors_name_task_and_field() {
    let error = Renderer::new(context()).text("ingest.from", "{{ params.colr }}").unwrap_err();
    assert_eq!(error.message(), "task 'load', field 'ingest.from': there is no 'colr' in params");
    assert_eq!(error.remedy(), Some("did you mean 'color'?"));
}

#[test]
fn dates_are_on_the_wall_clock_of_the_flow() {
    let midnight = Interval { start: at("2021-01-31T23:00:00Z"), end: at("2021-02-28T23:00:00Z") };
    let renderer = Renderer::new(Context::new("f", "t", midnight, Tz::Europe__Berlin));
    let render = |source: &str| renderer.text("x", source).unwrap().value;
    assert_eq!(
        render("{{ ds }} {{ ts }} {{ ts_nodash_with_tz }}"),
        "2021-02-01 2021-02-01T00:00:00+01:00 20210201T000000+0100"
    );
    assert_eq!(render("{{ execution_date.strftime('%Y-%m %Z') }}"), "2021-02 CET");
    assert_eq!(render("{{ execution_date.in_timezone('UTC') }}"), "2021-01-31 23:00:00+00:00");
    // A day is a day on the wall clock, hours are elapsed.
    assert_eq!(
        render("{{ macros.datetime(2021, 3, 27, 12) + macros.timedelta(days=1) }}"),
        "2021-03-28 12:00:00+02:00"
    );
    assert_eq!(render("{{ macros.datetime(2021, 3, 28) + macros.timedelta(hours=3) }}"), "2021-03-28 04:00:00+02:00");
}

#[test]
fn what_is_secret_is_noted_and_masked() {
    let renderer = Renderer::new(context());
    let check = |source: &str, value: &str, shown: &str, secrets: &[&str]| {
        let rendered = renderer.text("x", source).unwrap();
        assert_eq!((rendered.value.as_str(), rendered.shown.as_str()), (value, shown), "{source}");
        assert_eq!(rendered.secrets, secrets, "{source}");
        assert!(secrets.iter().all(|secret| !format!("{rendered:?}").contains(secret)));
    };
    check("{{ conn.pg.host }}:{{ conn.pg.password }}", "db1:hunter22", "db1:***", &["hunter22"]);
    check(
        "{{ params.pin }} {{ var.key }} {{ var('key') }}",
        "0815-pin k3y-k3y k3y-k3y",
        "*** *** ***",
        &["0815-pin", "k3y-k3y"],
    );
    check(
        "{{ secret('api') }} {{ secret_env('TOKEN') }} {{ env_var('REGION') }}",
        "s3cret! t0ken eu",
        "*** *** eu",
        &["s3cret!", "t0ken"],
    );
    check("{{ conn.pg.password | upper }}", "HUNTER22", "***", &["hunter22"]);
    check("{{ params.color }}", "yellow", "yellow", &[]);
    check(
        "{{ params }}",
        &renderer.text("x", "{{ params }}").unwrap().value,
        &renderer.text("x", "{{ params }}").unwrap().shown,
        &["0815-pin"],
    );
    assert!(!renderer.text("x", "{{ params }}").unwrap().shown.contains("0815"));
    let error = renderer.text("x", "{{ conn.pg.password | ds }}").unwrap_err();
    assert!(error.message().contains("'***' is not a date"), "{error}");
    assert!(!renderer.text("x", "{{ conn.pg | tojson }}").unwrap().shown.contains("hunter22"));
}

#[test]
fn json_keeps_its_types() {
    let renderer = Renderer::new(context());
    let source = json!({ "n": "{{ params.count }}", "text": "{{ params.count }} rows", "list": ["{{ outputs.list }}", 1, null], "when": "{{ execution_date }}" });
    let typed = renderer.json("call", &source, true).unwrap().value;
    assert_eq!(
        typed,
        json!({ "n": 3, "text": "3 rows", "list": [["x", "y"], 1, null], "when": "2021-01-02 06:00:00+00:00" })
    );
    let texts = renderer.json("call", &json!(["{{ params.count }}", "{{ params.pin }}"]), false).unwrap();
    assert_eq!((texts.value, texts.shown), (json!(["3", "0815-pin"]), json!(["3", "***"])));
    let error = renderer.json("call", &json!({ "a": ["", "{{ params.cont }}"] }), true).unwrap_err();
    assert_eq!(told(error), "task 'load', field 'call.a[1]': there is no 'cont' in params; did you mean 'count'?");
}

#[test]
fn truth_as_jinja_has_it() {
    let renderer = Renderer::new(context());
    for (source, expect) in [
        ("params.count > 2", true),
        ("{{ params.count > 3 }}", false),
        ("outputs.load.rows and outputs.list | length == 2", true),
        ("outputs.nothing", false),
        ("''", false),
        ("[]", false),
        ("not outputs.load.deep.er", false),
        ("'a' in outputs.load.files", true),
        ("execution_date < macros.datetime(2021, 2, 1)", true),
        ("execution_date.month == 1 and 1 < params.count < 5", true),
        ("{{ true }}", true),
    ] {
        assert_eq!(renderer.truth("when", source).unwrap(), expect, "{source}");
    }
    let error = renderer.truth("when", "params.cout > 2").unwrap_err();
    assert_eq!(told(error), "task 'load', field 'when': there is no 'cout' in params; did you mean 'count'?");
}

#[test]
fn lists() {
    let renderer = Renderer::new(context());
    let list = |source: &str| match renderer.list("for_each", source) {
        Ok(list) => Json::Array(list.value).to_string(),
        Err(error) => told(error),
    };
    assert_eq!(list("outputs.load.files"), r#"["a","b"]"#);
    assert_eq!(list("{{ range(3) }}"), "[0,1,2]");
    assert_eq!(list("outputs.list + ['z']"), r#"["x","y","z"]"#);
    assert_eq!(
        list("outputs.load.rows"),
        "task 'load', field 'for_each': the expression is a number, not a list; write a list such as ['a', 'b'], range(3), or an output that is a list"
    );
}

#[test]
fn the_same_seed_gives_the_same() {
    let source = "{{ macros.uuid.uuid4() }} {{ macros.random() }} {{ macros.random.randint(1, 6) }}";
    let render =
        |seed: u64, field: &str| Renderer::new(Context { seed, ..context() }).text(field, source).unwrap().value;
    assert_eq!(render(1, "a"), render(1, "a"));
    assert_ne!(render(1, "a"), render(2, "a"));
    assert_ne!(render(1, "a"), render(1, "b"));
    let uuid = render(1, "a")[..36].to_owned();
    assert!(uuid.as_bytes()[14] == b'4' && matches!(uuid.as_bytes()[19], b'8' | b'9' | b'a' | b'b'), "{uuid}");
}

#[test]
fn names_that_are_referred_to() {
    let names = names("{% for x in outputs.load.files %}{{ x }} {{ params['color'] }} {{ conn.pg.host }}{% endfor %}\n{{ var('month') }}{{ var.value.key }}{{ ti.xcom_pull(task_ids=['a', 'b'], key='n') }}").unwrap();
    let set = |names: &[&'static str]| names.iter().copied().collect::<BTreeSet<&str>>();
    assert_eq!(names.outputs(), Some(set(&["load", "a", "b"])));
    assert_eq!(names.params(), set(&["color"]));
    assert_eq!(names.variables(), set(&["month", "key"]));
    assert_eq!(names.connections(), set(&["pg"]));
    assert_eq!(names.top_level(), set(&["outputs", "params", "conn", "var", "ti"]));
    assert!(!names.uses_secrets());
    assert_eq!(names_in_expression("outputs[params.color]").unwrap().outputs(), None);
    assert!(names_in_expression("{{ secret('x') }}").unwrap().uses_secrets());
}

#[test]
fn mistakes_are_found_before_anything_runs() {
    let known = Known {
        params: Some(["color".to_owned()].into()),
        outputs: Some(["load".to_owned()].into()),
        ..Known::default()
    };
    let found = |source: &str| -> Vec<String> {
        let mistakes = check(source, &known);
        mistakes
            .into_iter()
            .map(|it| format!("{}: {}; {}", it.place, it.message, it.hint.unwrap_or_default()))
            .collect()
    };
    assert_eq!(found("{{ params.color }} {{ outputs.load.rows }} {{ execution_date.strftime('%Y') }}"), [""; 0]);
    assert_eq!(
        found("a\n  {{ params.colr }} {{ outputs.lod.rows }}"),
        [
            "line 2, column 6: there is no 'colr' in params; did you mean 'color'?",
            "line 2, column 24: there is no 'lod' in outputs; did you mean 'load'?",
        ]
    );
    assert_eq!(
        found("{{ execution_dat }}{{ ds | uper }}{{ execution_date.strftim('%Y') }}{{ macros.timedeta(1) }}"),
        [
            "line 1, column 4: there is no name 'execution_dat'; did you mean 'execution_date'?",
            "line 1, column 28: there is no filter 'uper'; did you mean 'upper'?",
            "line 1, column 38: there is no 'strftim' in execution_date; did you mean 'strftime'?",
            "line 1, column 72: there is no 'timedeta' in macros; did you mean 'timedelta'?",
        ]
    );
    let broken = check("select 1\nfrom {{ x", &known);
    assert_eq!((broken.len(), broken[0].place.line), (1, 2), "{broken:?}");
    assert!(
        check_expression("params.color == 'x' and", &known)[0].message.starts_with("the template is not well formed")
    );
    assert_eq!(check("{% include 'x' %}", &known)[0].message, "a template in a flow cannot use another template");
}

#[test]
fn a_template_that_never_ends_is_ended() {
    let renderer = Renderer::new(context());
    let error = renderer
        .text("x", "{% for a in range(10000) %}{% for b in range(10000) %}{% endfor %}{% endfor %}")
        .unwrap_err();
    assert!(error.message().ends_with("the template does too much work"), "{error}");
}

#[test]
fn strange_templates_do_not_panic() {
    let renderer = Renderer::new(context());
    for source in [
        "{{",
        "}}",
        "{%",
        "{{ }}",
        "{{ 1/0 }}",
        "{{ '\\u12' }}",
        "{{ ☃ }}",
        "{% if %}",
        "{{ a.b.c.d() }}",
        "{{ execution_date.add(years=99999999) }}",
        "{{ execution_date.replace(day=31).replace(month=2) }}",
        "{{ execution_date + macros.timedelta(days=999999999999) }}",
        "{{ -execution_date }}",
        "{{ macros.timedelta(days=1) * 99999999999999 }}",
        "{{ self }}",
        "{{ loop }}",
    ] {
        let _ = renderer.text("x", source);
        let _ = renderer.value("x", source);
        let _ = check(source, &Known::default());
    }
    let huge =
        Interval { start: at("2021-01-01T00:00:00Z") - TimeDelta::days(900_000), end: at("2021-01-01T00:00:00Z") };
    let _ = Renderer::new(Context::new("f", "t", huge, Tz::UTC)).text("x", "{{ yesterday_ds }} {{ ts }}");
}
