//! `flumen run` and its relatives, without a server.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::{json, project, states, succeed, wait_for};
use crate::sandbox::Sandbox;

const TRIPS: &str = "zone,fare\na,1.5\nb,2\na,3\n";

/// A flow over the kinds that work with data.
const TAXI: &str = r#"
flow: taxi
params:
  color: { type: string, default: yellow, enum: [yellow, green] }
schedule: { cron: "@monthly", start: 2021-01-01 }
tasks:
  load:
    ingest: { from: "data/{{ params.color }}_{{ ds_nodash }}.csv", to: lake.raw.trips, mode: replace-where, by: load }
  fresh:
    needs: [load]
    check: { table: lake.raw.trips, rows: "> 0", columns: { fare: { nulls: 0, min: 0 } }, unique: [zone, fare] }
  busiest:
    needs: [fresh]
    sql: { into: lake.marts.busiest, file: sql/busiest.sql }
  out:
    needs: [busiest]
    export: { table: lake.marts.busiest, to: "out/{{ ds }}.csv" }
  report:
    needs: [busiest]
    shell: "echo {{ outputs.busiest.rows }} zones on {{ ds }}"
"#;

fn taxi() -> Sandbox {
    project(&[
        ("flows/taxi.yml", TAXI),
        ("data/yellow_20210101.csv", TRIPS),
        ("data/yellow_20210201.csv", "zone,fare\nc,4\n"),
        ("sql/busiest.sql", "select zone, count(*) as n from lake.raw.trips where '{{ ds }}' <> '' group by zone\n"),
    ])
}

#[test]
fn data_goes_through_a_flow() {
    let sandbox = taxi();
    let run = json(&sandbox, "run taxi --interval 2021-01");
    assert_eq!(run["state"], "success", "{run}");
    let expected = ["busiest success", "fresh success", "load success", "out success", "report success"];
    assert_eq!(states(&run), expected);
    let output = |run: &Value, task: &str| {
        run["tasks"].as_array().unwrap().iter().find(|one| one["task"] == task).unwrap()["output"].clone()
    };
    assert_eq!(output(&run, "report"), "2 zones on 2021-01-01");
    assert_eq!(output(&run, "load")["rows"], 3);
    assert_eq!(std::fs::read_to_string(sandbox.path().join("out/2021-01-01.csv")).unwrap().lines().count(), 3);

    // Another interval adds its rows; the first one again replaces its own.
    assert_eq!(json(&sandbox, "run taxi --interval 2021-02")["state"], "success");
    sandbox.write("data/yellow_20210101.csv", "zone,fare\na,1.5\n");
    let again = json(&sandbox, "run taxi --interval 2021-01");
    assert_eq!(output(&again, "load")["rows"], 1, "{again}");
    let rows = json(&sandbox, "sql 'select zone, fare from lake.raw.trips order by fare'");
    assert_eq!(rows, json!([{ "zone": "a", "fare": 1.5 }, { "zone": "c", "fare": 4.0 }]));

    // A task that is cleared does its load once more.
    succeed(&sandbox, "flumen run clear last");
    assert_eq!(json(&sandbox, "run show last")["state"], "success");
    assert_eq!(json(&sandbox, "sql 'select count(*) as n from lake.raw.trips'"), json!([{ "n": 2 }]));

    let shown = succeed(
        &sandbox,
        "flumen run list; flumen run show last; flumen flow graph taxi; flumen flow list; flumen status",
    );
    for part in ["2021-01-01 to 2021-02-01", "load  ingest\n└─ fresh  check", "@monthly", "runs: 0 active"] {
        assert!(shown.stdout.contains(part), "{part}: {}", shown.stdout);
    }
    assert_eq!(succeed(&sandbox, "flumen run logs last/report --attempt 1").stdout, "2 zones on 2021-01-01\n");
    let rendered = succeed(&sandbox, "flumen render taxi --interval 2021-02 --task load").stdout;
    assert!(rendered.contains("from: data/yellow_20210201.csv"), "{rendered}");
    let rendered = json(&sandbox, "render taxi --interval 2021-02 --task busiest");
    let text = "select zone, count(*) as n from lake.raw.trips where '2021-02-01' <> '' group by zone\n";
    assert_eq!(rendered["busiest"]["sql"]["sql/busiest.sql"], text);
    let preview = json(&sandbox, "schedule preview taxi --from 2021-01 -n 2");
    assert_eq!(preview[1]["start"], "2021-02-01T00:00:00Z");
}

#[test]
fn bad_rows_fail_a_check_and_what_comes_after_it() {
    let sandbox = taxi();
    sandbox.write("data/yellow_20210101.csv", "zone,fare\na,-1.5\na,\nb,2\n");
    let run = json(&sandbox, "run taxi --interval 2021-01");
    assert_eq!(run["state"], "failed");
    let expected =
        ["busiest upstream_failed", "fresh failed", "load success", "out upstream_failed", "report upstream_failed"];
    assert_eq!(states(&run), expected);
    let why = succeed(&sandbox, "flumen why last/fresh").stdout;
    assert!(why.contains("column fare: 1 nulls, at most 0 are allowed"), "{why}");
    assert!(why.contains("column fare: the least value is -1.5"), "{why}");
    assert!(succeed(&sandbox, "flumen why last/out").stdout.contains("upstream_failed"));
    // What failed is done again, and what comes after it.
    sandbox.write("data/yellow_20210101.csv", TRIPS);
    succeed(&sandbox, "flumen run clear last/load");
    assert_eq!(json(&sandbox, "run show last")["state"], "success");
}

#[test]
fn every_mistake_is_told_with_its_place() {
    let sandbox = project(&[
        ("flows/good.yml", "flow: good\ntasks:\n  a: { shell: \"true\" }\n"),
        (
            "flows/bad.yml",
            "flow: bad\ntasks:\n  a: { shel: x }\n  b: { needs: [c], sql: \"select {{ outputs.a.x }} {{ parms.x }}\" }\n\
             \x20 d: { ingest: { from: x.csv, to: nope.x.y, mode: merge } }\n",
        ),
    ]);
    let ran = sandbox.sh("flumen check");
    assert_eq!(ran.code, 2);
    for part in [
        "flows/bad.yml:3:8: task 'a': unknown key 'shel' (did you mean 'shell'?)",
        "task 'b' needs 'c', which is not there",
        "task 'b': 'outputs.a' is not known here",
        "task 'b': templates have no 'parms' (did you mean 'params'?)",
        "there is no connection 'nope'",
        "mode 'merge' needs a 'key'",
    ] {
        assert!(ran.stdout.contains(part), "{part}: {}", ran.stdout);
    }
    assert!(ran.stderr.contains("there are 6 mistakes"), "{}", ran.stderr);
    // To look at files needs no database, and no right to write one.
    assert!(!sandbox.path().join(".flumen").exists());
    // One bad file stops no other.
    assert_eq!(json(&sandbox, "run good")["state"], "success");
    assert_eq!(succeed(&sandbox, "flumen check good").code, 0);
    let schema = json(&sandbox, "check --schema");
    assert!(schema["$defs"]["task"]["properties"]["ingest"].is_object());
    let unknown = sandbox.sh("flumen run goood");
    assert!(unknown.code == 3 && unknown.stderr.contains("did you mean 'good'?"), "{}", unknown.stderr);
}

#[test]
fn retries_lists_branches_and_conditions() {
    let sandbox = project(&[(
        "flows/graph.yml",
        r#"
flow: graph
params: { skip: true }
defaults: { retry_delay: 10ms }
tasks:
  flaky:
    retries: 3
    shell: 'test -e "$FLUMEN_PROJECT/marker-$FLUMEN_ATTEMPT" || { touch "$FLUMEN_PROJECT/marker-$((FLUMEN_ATTEMPT + 1))"; exit 3; }'
  never_again: { retries: 3, retry_on: [7], shell: "exit 3" }
  out_of_memory: { memory: 200MB, shell: "python3 -c 'x = bytearray(1 << 30)'" }
  list: { python: { code: "return [1, 2, 3]" } }
  each: { needs: [list], for_each: "outputs.list", shell: "echo $(({{ item }} * 2))" }
  sum: { needs: [each], shell: "echo {{ outputs.each | join('+') }}" }
  rows: { for_each: { query: "select * from (values (1), (2)) as t(n) order by n" }, shell: "echo {{ item }}" }
  nothing: { for_each: { glob: "none/*.csv" }, shell: "echo {{ item }}" }
  skipped: { when: "not params.skip", shell: "echo no" }
  choose: { branch: [left, right], shell: "echo left" }
  left: { needs: [choose], shell: "echo left" }
  right: { needs: [choose], shell: "echo right" }
  up: { setup: true, shell: "echo up" }
  work: { needs: [up], shell: "exit 1" }
  down: { needs: [work], teardown: up, shell: "touch \"$FLUMEN_PROJECT/torn-down\"" }
  nothing_to_do: { shell: "exit 99" }
"#,
    )]);
    let run = json(&sandbox, "run graph");
    assert_eq!(run["state"], "failed");
    let found: std::collections::BTreeMap<String, String> = run["tasks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|task| {
            (
                task["task"].as_str().unwrap().to_owned(),
                format!("{} {}", task["state"].as_str().unwrap(), task["attempt"]),
            )
        })
        .collect();
    for (task, state) in [
        ("flaky", "success 2"),
        ("never_again", "failed 1"),
        ("out_of_memory", "failed 1"),
        ("each", "success 0"),
        ("each[2]", "success 1"),
        ("rows[1]", "success 1"),
        ("nothing", "skipped 1"),
        ("skipped", "skipped 0"),
        ("left", "success 1"),
        ("right", "skipped 0"),
        ("work", "failed 1"),
        ("down", "success 1"),
        ("nothing_to_do", "skipped 1"),
    ] {
        assert_eq!(found.get(task).map(String::as_str), Some(state), "{task}: {found:?}");
    }
    assert!(sandbox.path().join("torn-down").exists());
    assert_eq!(succeed(&sandbox, "flumen run logs last/sum").stdout, "2+4+6\n");
    assert_eq!(
        std::fs::read_dir(sandbox.path().join(".flumen/work")).unwrap().count(),
        0,
        "folders of attempts are left"
    );
}

#[test]
fn secrets_are_masked_wherever_they_leave_a_task() {
    let sandbox = project(&[
        ("flumen.yml", "name: test\nvars: { token: \"{{ secret_env('TOKEN') }}\" }\n"),
        (
            "flows/secret.yml",
            r#"
flow: secret
params: { key: { type: secret } }
tasks:
  print: { env: { T: "{{ var.token }}" }, shell: "echo it is $T and {{ params.key }}; echo $T >&2; sh -c 'echo child $T'" }
  hand_on: { shell: "printf '{\"t\": \"{{ params.key }}\"}' > $FLUMEN_OUTPUT" }
  use: { needs: [hand_on], shell: "echo got {{ outputs.hand_on.t }}" }
  fail: { needs: [print, use], shell: "echo {{ params.key }}; exit 1" }
"#,
        ),
    ])
    .env("TOKEN", "hunter2-token");
    let ran = sandbox.sh("flumen run secret -p key=correct-horse --logs; flumen run logs last; flumen run show last; flumen --json run show last; flumen render secret -p key=correct-horse");
    let all = ran.stdout + &ran.stderr;
    assert!(all.contains("use | got ***"), "{all}");
    assert!(all.contains("print | it is *** and ***") && all.contains("print | child ***"), "{all}");
    assert!(!all.contains("hunter2") && !all.contains("correct-horse"), "{all}");
    let kept = sandbox.sh("grep -rl hunter2-token lake .flumen; grep -rl correct-horse lake");
    assert_eq!(kept.stdout, "", "a secret is kept in a file");
}

#[test]
fn hooks_tell_and_deployments_have_their_own_parameters() {
    let sandbox = project(&[
        (
            "flumen.yml",
            "name: test\non_failure: { shell: \"echo {{ flow }} {{ state }} >> $FLUMEN_PROJECT/project\" }\n",
        ),
        (
            "flows/watched.yml",
            r#"
flow: watched
params: { code: 0 }
on_success: { shell: "echo {{ hook }} > $FLUMEN_PROJECT/flow" }
tasks:
  work:
    on_failure: { shell: "echo '{{ task }}: {{ error }}' > $FLUMEN_PROJECT/task" }
    shell: "exit {{ params.code }}"
"#,
        ),
    ]);
    succeed(&sandbox, "flumen run watched");
    assert_eq!(std::fs::read_to_string(sandbox.path().join("flow")).unwrap(), "on_success\n");
    let made =
        succeed(&sandbox, "flumen deploy watched --name bad -p code=5 --cron '0 6 * * *' --timezone Europe/Berlin");
    assert!(made.stderr.contains("deployments/bad.yml"), "{}", made.stderr);
    assert!(succeed(&sandbox, "flumen deploy list").stdout.contains("0 6 * * * (Europe/Berlin)"));
    assert_eq!(sandbox.sh("flumen run watched --deployment bad").code, 1);
    let read = |name: &str| std::fs::read_to_string(sandbox.path().join(name)).unwrap();
    assert_eq!(read("task"), "work: exit code 5: the command failed\n");
    assert_eq!(read("project"), "watched failed\n");
    let wrong = sandbox.sh("flumen deploy watched --name worse -p cod=5");
    assert!(wrong.code == 2 && wrong.stderr.contains("did you mean 'code'?"), "{}", wrong.stderr);
    succeed(&sandbox, "flumen deploy remove bad");
    assert_eq!(json(&sandbox, "deploy list"), json!([]));
}

#[test]
fn sub_flows_approvals_and_single_tasks() {
    let sandbox = project(&[
        (
            "flows/parent.yml",
            r#"
flow: parent
tasks:
  each: { for_each: [1, 2], flow: { name: child, params: { n: "{{ item }}" } } }
  ask: { needs: [each], approve: { question: "go on?" } }
  last: { needs: [ask], shell: "echo {{ outputs.ask }}" }
"#,
        ),
        (
            "flows/child.yml",
            "flow: child\nparams: { n: { type: int } }\ntasks:\n  say: { shell: \"echo {{ params.n }} >> $FLUMEN_PROJECT/said\" }\n",
        ),
    ]);
    let mut parent = sandbox.command(env!("CARGO_BIN_EXE_flumen"));
    let mut parent =
        parent.args(["--json", "run", "parent"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    super::wait_until(|| sandbox.sh("flumen --json run show parent").stdout.contains("\"paused\""));
    let mut said: Vec<String> =
        std::fs::read_to_string(sandbox.path().join("said")).unwrap().lines().map(str::to_owned).collect();
    said.sort();
    assert_eq!(said, ["1", "2"]);
    // Somebody else's process says yes; the one that waits goes on.
    succeed(&sandbox, "flumen run approve parent/ask --note fine");
    assert!(parent.wait().unwrap().success());
    assert_eq!(json(&sandbox, "run show parent")["state"], "success");
    assert_eq!(json(&sandbox, "run list --flow child").as_array().unwrap().len(), 2);
    // One task alone: nothing before it is done, what that gave last is there, and it counts as no run of its interval.
    let before = std::fs::read_to_string(sandbox.path().join("said")).unwrap();
    let one = succeed(&sandbox, "flumen task test parent last");
    assert!(one.stderr.contains("parent succeeded") && one.stdout.contains("fine"), "{one:?}");
    assert_eq!(std::fs::read_to_string(sandbox.path().join("said")).unwrap(), before);
    let again = sandbox.sh("flumen run approve parent/ask --no");
    assert!(again.code == 4 && again.stderr.contains("waits for nobody"), "{again:?}");
    let unknown = sandbox.sh("flumen run logs parent/lst");
    assert!(unknown.code == 3 && unknown.stderr.contains("did you mean 'last'?"), "{unknown:?}");
}

#[test]
fn a_run_that_is_stopped_leaves_no_process() {
    let sandbox = project(&[(
        "flows/long.yml",
        "flow: long\ntasks:\n  a: { shell: \"sh -c 'echo $$ > $FLUMEN_PROJECT/pid; exec sleep 1000' & wait\" }\n  b: { needs: [a], shell: \"true\" }\n",
    )]);
    let mut command = sandbox.command(env!("CARGO_BIN_EXE_flumen"));
    let child = command.args(["run", "long"]).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let pid = sandbox.path().join("pid");
    wait_for(&pid);
    super::wait_until(|| std::fs::read_to_string(&pid).is_ok_and(|text| text.ends_with('\n')));
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    let run = json(&sandbox, "run show last");
    assert_eq!(states(&run), ["a cancelled", "b cancelled"]);
    let process = std::fs::read_to_string(&pid).unwrap();
    assert!(!super::is_alive(process.trim()), "it still runs");
}

#[test]
fn the_database_is_copied_restored_and_pruned() {
    let sandbox = project(&[("flows/a.yml", "flow: a\ntasks:\n  say: { shell: \"echo said\" }\n")]);
    succeed(&sandbox, "flumen run a");
    succeed(&sandbox, "flumen store backup copy.db");
    succeed(&sandbox, "flumen run a");
    assert_eq!(json(&sandbox, "run list").as_array().unwrap().len(), 2);
    let refused = sandbox.sh("flumen store restore copy.db");
    assert!(refused.code == 4 && refused.stderr.contains("--force"), "{}", refused.stderr);
    assert_eq!(sandbox.sh("flumen store restore flumen.yml --force").code, 2);
    assert_eq!(json(&sandbox, "run list").as_array().unwrap().len(), 2, "a wrong file changes nothing");
    succeed(&sandbox, "flumen store restore copy.db --force");
    assert_eq!(json(&sandbox, "run list").as_array().unwrap().len(), 1);
    assert_eq!(json(&sandbox, "store prune --older-than 0s"), json!({ "runs": 1 }));
    assert_eq!(json(&sandbox, "run list"), json!([]));
}

/// The examples of `docs/kinds.md` for the kinds that work with data; those of the others run with the worker's tests.
#[test]
fn examples_of_the_page_on_kinds_do_what_it_says() {
    let page = std::fs::read_to_string(std::env::var("CARGO_MANIFEST_DIR").unwrap() + "/../../docs/kinds.md").unwrap();
    let examples = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let sandbox = project(&[("sql/none.sql", "select 1")]);
    let data_kinds = ["ingest:", "sql:", "check:", "export:", "lake:"];
    let mut names = Vec::new();
    for example in examples.filter(|text| text.starts_with("flow: ")) {
        let name = example["flow: ".len()..].lines().next().unwrap().to_owned();
        let is_data = data_kinds
            .iter()
            .any(|kind| example.contains(&format!(" {kind} ")) || example.contains(&format!("    {kind}\n")));
        if is_data && !example.contains("sensor:") {
            sandbox.write(&format!("flows/{name}.yml"), example);
            names.push(name);
        }
    }
    names.sort();
    assert_eq!(names, ["asked", "checked", "exported", "loaded", "tidy"]);
    let today = sandbox.sh("date +%Y-%m-%d").stdout;
    let rows = format!(
        "zone,pickup,fare,payment\nA1,{0} 10:00:00,1.5,card\nB2,{0} 11:00:00,2,cash\nA1,{0} 12:00:00,3,\n",
        today.trim()
    );
    sandbox.write("data/trips_2021-01-01.csv", rows);
    for line in ["loaded --interval 2021-01", "asked", "checked", "exported", "tidy"] {
        succeed(&sandbox, &format!("flumen run {line}"));
    }
    assert_eq!(succeed(&sandbox, "flumen run logs asked/say").stdout, "the busiest zone has 2 trips\n");
    assert_eq!(std::fs::read_to_string(sandbox.path().join("out/top.csv")).unwrap(), "zone,n\nA1,2\nB2,1\n");
}
