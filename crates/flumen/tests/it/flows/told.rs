//! What people are told of runs that wait, and of what does not fit.

use std::process::Stdio;

use serde_json::json;

use super::{Server, json, project, succeed, wait_for, wait_until};
use crate::sandbox::Sandbox;

/// A command in the background, which writes what it says into `FILE`.
fn in_background(sandbox: &Sandbox, line: &str, file: &str) -> std::process::Child {
    let mut command = sandbox.command("sh");
    command.args(["-c", &format!("exec flumen {line} > /dev/null 2> {file}")]).spawn().unwrap()
}

fn said(sandbox: &Sandbox, file: &str) -> String {
    std::fs::read_to_string(sandbox.path().join(file)).unwrap_or_default()
}

#[test]
fn why_says_what_a_run_waits_for() {
    let sandbox = project(&[(
        "flows/one.yml",
        "flow: one\ntasks:\n  wait: { sensor: { delay: 1h } }\n  after: { needs: [wait], shell: \"true\" }\n",
    )]);
    let run = succeed(&sandbox, "flumen run one --detach").stdout;
    let why = || succeed(&sandbox, &format!("flumen why {}", run.trim())).stdout;
    assert!(why().contains("Nobody works on this project now: 'flumen up' begins what waits."), "{}", why());
    let paused = json(&sandbox, "flow pause one");
    assert_eq!(paused, json!({ "flow": "one", "paused": true }));
}

#[test]
fn a_run_whose_command_was_killed_is_told_from_one_that_goes_on() {
    let sandbox = project(&[(
        "flows/one.yml",
        "flow: one\nmax_active_runs: 1\ntasks:\n  wait: { sensor: { delay: 1h } }\n  after: { needs: [wait], shell: \"true\" }\n",
    )]);
    let mut command = sandbox.command(env!("CARGO_BIN_EXE_flumen"));
    let mut run = command.args(["run", "one"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until(|| {
        let runs = json(&sandbox, "run list");
        runs[0]["state"] == "running" && json(&sandbox, "run show last")["tasks"][0]["state"] == "deferred"
    });
    let first = json(&sandbox, "run list")[0]["id"].as_str().unwrap().to_owned();
    let (first_why, status) = (&format!("flumen why {first}"), "flumen status");
    assert!(!succeed(&sandbox, first_why).stdout.contains("Nobody"));
    assert!(!succeed(&sandbox, status).stdout.contains("nobody"));
    let second = succeed(&sandbox, "flumen run one --detach").stdout;
    let full = succeed(&sandbox, &format!("flumen why {}", second.trim())).stdout;
    assert!(full.contains("1 of at most 1 runs of flow 'one' are active (max_active_runs)."), "{full}");
    run.kill().unwrap();
    run.wait().unwrap();
    assert!(succeed(&sandbox, first_why).stdout.contains("Nobody works on it now: 'flumen run resume "));
    assert!(succeed(&sandbox, status).stdout.contains("nobody works on them: 'flumen up' goes on"));
}

#[test]
fn what_does_not_fit_the_state_of_a_run_is_refused() {
    let sandbox =
        project(&[("flows/one.yml", "flow: one\ntasks:\n  a: { empty: 1 }\n  b: { needs: [a], shell: \"true\" }\n")]);
    succeed(&sandbox, "flumen run one");
    for (command, words) in [
        ("cancel", "there is nothing to cancel"),
        ("pause", "there is nothing to pause"),
        ("resume", "there is nothing to go on with"),
        ("retry", "there is nothing to try again"),
    ] {
        let ran = sandbox.sh(&format!("flumen run {command} last"));
        assert!(ran.code == 4 && ran.stderr.contains(words) && ran.stderr.contains("is success"), "{}", ran.stderr);
    }
    // A task with nothing to do is done without a worker.
    let history = succeed(&sandbox, "flumen why last/a").stdout;
    assert!(history.contains("none → success: there is nothing to do (scheduler)"), "{history}");
    let pool = json(&sandbox, "pool set heavy --slots 2 --rate 3/1m");
    assert_eq!(pool, json!({ "name": "heavy", "slots": 2, "rate": "3/1m" }));
    assert_eq!(json(&sandbox, "pool remove heavy"), json!({ "name": "heavy", "removed": true }));
    assert_eq!(json(&sandbox, "store backup copy.db"), json!({ "file": "copy.db" }));
}

#[test]
fn what_tasks_print_leaves_the_terminal_as_it_is() {
    let sandbox = project(&[(
        "flows/one.yml",
        "flow: one\ntasks:\n  a: { shell: \"printf '\\\\033[2J\\\\033[1;31mred\\\\033[0m\\\\n'; exit 3\" }\n",
    )]);
    let ran = sandbox.sh("flumen run one");
    assert!(ran.code == 1 && ran.stderr.contains("    red\n") && !ran.stderr.contains('\x1b'), "{:?}", ran.stderr);
    assert_eq!(succeed(&sandbox, "flumen run logs last/a").stdout.lines().next(), Some("red"));
    // Nothing is lost to programs.
    assert!(succeed(&sandbox, "flumen --json run logs last/a").stdout.contains("\\u001b[2J"));
}

#[test]
fn a_run_says_what_it_waits_for() {
    let wait = "touch $FLUMEN_PROJECT/begun; while [ ! -e $FLUMEN_PROJECT/go ]; do sleep 0.05; done";
    let sandbox = project(&[
        ("flows/pool.yml", "flow: pool\ntasks:\n  a: { pool: narrow, shell: \"true\" }\n"),
        (
            "flows/ask.yml",
            "flow: ask\ntasks:\n  ask: { approve: \"shall it go on?\" }\n  after: { needs: [ask], shell: \"true\" }\n",
        ),
        ("flows/full.yml", &format!("flow: full\nmax_active_runs: 1\ntasks:\n  a: {{ shell: \"{wait}\" }}\n")),
    ]);
    succeed(&sandbox, "flumen pool set narrow --slots 0");
    let mut run = in_background(&sandbox, "run pool", "pool.log");
    wait_until(|| said(&sandbox, "pool.log").contains("· Pool 'narrow' has no slots: nothing of it begins."));
    succeed(&sandbox, "flumen pool set narrow --slots 1");
    assert!(run.wait().unwrap().success());

    let mut run = in_background(&sandbox, "run ask", "ask.log");
    wait_until(|| said(&sandbox, "ask.log").contains("to answer: flumen run approve "));
    let shown = json(&sandbox, "run show ask");
    assert_eq!(super::states(&shown), ["ask paused", "after none"]);
    let status = succeed(&sandbox, "flumen status").stdout;
    assert!(status.contains("waiting for an answer (flumen run approve RUN/TASK):"), "{status}");
    assert!(status.contains("/ask  shall it go on?"), "{status}");
    let why = succeed(&sandbox, "flumen why ask").stdout;
    assert!(why.contains("Waiting: ask (paused: waits for somebody's answer to 'shall it go on?')."), "{why}");
    let approved = succeed(&sandbox, "flumen run approve ask/ask").stderr;
    assert!(approved.contains("ask is approved"), "{approved}");
    assert!(run.wait().unwrap().success());

    let _server = Server::start(&sandbox, &["up"]);
    let first = succeed(&sandbox, "flumen run full --detach").stdout.trim().to_owned();
    wait_for(&sandbox.path().join("begun"));
    let why = succeed(&sandbox, &format!("flumen why {first}")).stdout;
    assert!(why.contains("At work: a."), "{why}");
    let mut second = in_background(&sandbox, "run full", "full.log");
    wait_until(|| {
        said(&sandbox, "full.log").contains("1 of at most 1 runs of flow 'full' are active (max_active_runs).")
    });
    let third = succeed(&sandbox, "flumen run full --detach").stdout.trim().to_owned();
    let cancelled = succeed(&sandbox, &format!("flumen run cancel {third}")).stderr;
    assert!(cancelled.contains("the run is to stop; run "), "{cancelled}");
    sandbox.write("go", "");
    assert!(second.wait().unwrap().success());
}

#[test]
fn a_terminal_shows_a_tree_and_a_pipe_lines() {
    let sandbox = project(&[(
        "flows/one.yml",
        "flow: one\ntasks:\n  a: { shell: \"true\" }\n  b: { needs: [a], shell: \"true\" }\n",
    )]);
    let piped = succeed(&sandbox, "flumen run one").stderr;
    assert!(piped.contains("✓ a") && !piped.contains("└─") && !piped.contains('█'), "{piped}");
    let live = succeed(&sandbox, "TERM=xterm script -qec 'flumen run one' /dev/null").stdout;
    assert!(live.contains("└─ ") && live.contains("████████████████████ 2 of 2 tasks"), "{live}");
    assert!(live.contains("one succeeded in "), "{live}");
}

#[test]
fn a_run_shows_its_data_and_its_lines_in_order() {
    let sandbox = project(&[
        (
            "flows/load.yml",
            "flow: load\nschedule: { every: 1d, start: 2021-01-01, end: 2021-01-01, catchup: none }\ntasks:\n  load: { ingest: { from: data.csv, to: lake.raw.t } }\n  fresh: { needs: [load], check: { table: lake.raw.t, rows: \"> 0\" } }\n  copy: { needs: [load], sql: { into: lake.marts.t, query: \"select * from lake.raw.t\" } }\n",
        ),
        (
            "flows/two.yml",
            "flow: two\ntasks:\n  a: { shell: \"echo a1; touch $FLUMEN_PROJECT/a1; while [ ! -e $FLUMEN_PROJECT/b1 ]; do sleep 0.05; done; echo a2\" }\n  b: { shell: \"while [ ! -e $FLUMEN_PROJECT/a1 ]; do sleep 0.05; done; sleep 0.01; echo b1; sleep 0.01; touch $FLUMEN_PROJECT/b1\" }\n",
        ),
        ("data.csv", "n\n1\n"),
    ]);
    let ran = succeed(&sandbox, "flumen run load --interval 2021-01-01").stderr;
    assert!(ran.contains("  1 row\n"), "{ran}");
    let shown = succeed(&sandbox, "flumen run show load").stdout;
    for line in
        ["load wrote lake.raw.t\n", "fresh read lake.raw.t\n", "copy read lake.raw.t\n", "copy wrote lake.marts.t\n"]
    {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    let datasets = json(&sandbox, "run show load")["datasets"].clone();
    assert_eq!((&datasets[0]["task"], &datasets[0]["writes"]), (&json!("load"), &json!(["lake.raw.t"])));
    // The same file for the same interval is the same load.
    succeed(&sandbox, "flumen backfill load --from 2021-01-01 --to 2021-01-01 --reprocess all");
    let again = succeed(&sandbox, "flumen run load --interval 2021-01-01").stderr;
    assert!(again.contains("left out, loaded already"), "{again}");
    assert_eq!(json(&sandbox, "sql 'select count(*) as n from lake.raw.t'"), json!([{ "n": 1 }]));
    let nothing = succeed(&sandbox, "flumen backfill load --from 2021-01-01 --to 2021-01-01").stderr;
    assert!(nothing.contains("the interval has a run already: --reprocess failed or all runs it again"), "{nothing}");
    let nothing = succeed(&sandbox, "flumen backfill load --from 2022-01-01 --to 2022-02-01").stderr;
    assert!(nothing.contains("no complete interval of the schedule starts from --from to --to"), "{nothing}");

    succeed(&sandbox, "flumen run two");
    assert_eq!(succeed(&sandbox, "flumen run logs two").stdout, "a | a1\nb | b1\na | a2\n");
}

#[test]
fn a_sensor_says_what_it_waits_for_and_what_it_saw() {
    let sandbox =
        project(&[("flows/wait.yml", "flow: wait\ntasks:\n  there: { sensor: { file: data/x.csv, every: 1s } }\n")]);
    let _server = Server::start(&sandbox, &["up"]);
    let id = succeed(&sandbox, "flumen run wait --detach").stdout.trim().to_owned();
    let why = || succeed(&sandbox, &format!("flumen why {id}/there")).stdout;
    wait_until(|| why().contains("its looks say: there is no file data/x.csv."));
    assert!(why().contains("waits for file data/x.csv, looked at every "), "{}", why());
    sandbox.write("data/x.csv", "n\n");
    wait_until(|| json(&sandbox, &format!("run show {id}"))["state"] == "success");
}

#[test]
fn variables_are_kept_for_templates() {
    let sandbox = project(&[
        ("flumen.yml", "name: test\nvars: { a: file, b: file }\n"),
        (".env", "c=env\n"),
        ("flows/say.yml", "flow: say\ntasks:\n  a: { shell: \"echo {{ var.a }} {{ var.b }} {{ var.c }}\" }\n"),
        ("flows/new.yml", "flow: new\ntasks:\n  a: { shell: \"echo {{ var.new }}\" }\n"),
    ]);
    let output = |flow: &str| json(&sandbox, &format!("run {flow}"))["tasks"][0]["output"].clone();
    assert_eq!(output("say"), "file file env");
    let _server = Server::start(&sandbox, &["up"]);
    assert_eq!(sandbox.sh("flumen check new").code, 2);
    succeed(&sandbox, "flumen var set a kept && flumen var set new 'a value'");
    assert_eq!(output("say"), "kept file env");
    assert_eq!(output("new"), "a value");
    assert_eq!(succeed(&sandbox, "flumen var get a").stdout, "kept\n");
    let from = |name: &str| {
        let all = json(&sandbox, "var list");
        all.as_array().unwrap().iter().find(|one| one["name"] == name).map(|one| one["from"].clone())
    };
    assert_eq!(from("a"), Some(json!("flumen var")));
    assert_eq!((from("b"), from("c")), (Some(json!("flumen.yml")), Some(json!(".env"))));
    assert!(succeed(&sandbox, "flumen var unset a").stderr.contains("var.a is what flumen.yml says"));
    assert_eq!(output("say"), "file file env");
    let unset = sandbox.sh("flumen var unset a");
    assert!(unset.code == 3 && unset.stderr.contains("no variable 'a' was set here"), "{}", unset.stderr);
    let wrong = sandbox.sh("flumen var get nwe");
    assert!(wrong.code == 3 && wrong.stderr.contains("did you mean 'new'?"), "{}", wrong.stderr);
    assert_eq!(sandbox.sh("flumen var set a.b c").code, 2);
}

#[test]
fn what_goes_wrong_is_said_with_its_remedy() {
    let sandbox = project(&[
        (
            "flows/wrong.yml",
            "flow: wrong\nparams: { numbers: [1, 2], only: \"\", file: { type: file, required: false } }\ntasks:\n  \
             secret: { when: \"params.only == 'secret'\", shell: \"echo {{ secret('NOT_THERE') }}\" }\n  \
             killed: { when: \"params.only == 'killed'\", shell: \"kill -9 $$\" }\n  \
             nan: { when: \"params.only == 'nan'\", python: \"return float('nan')\" }\n  \
             sum: { when: \"params.only == ''\", shell: \"echo {{ params.numbers | sum }}\" }\n",
        ),
        ("deployments/broken.yml", "deployment: broken\nflow: wrong\nparms: {}\n"),
    ]);
    for (only, expected) in [
        ("secret", "write NOT_THERE=… into the file .env of the project"),
        ("killed", "the program was ended by signal 9"),
        ("nan", "an output cannot have nan or an infinite number in it"),
    ] {
        sandbox.sh(&format!("flumen run wrong -p only={only}"));
        let why = succeed(&sandbox, &format!("flumen why last/{only}; flumen run logs last/{only}")).stdout;
        assert!(why.contains(expected) && !why.contains("out of memory"), "{only}: {why}");
    }
    let run = json(&sandbox, "run wrong -p numbers=4,5");
    let sum = run["tasks"].as_array().unwrap().iter().find(|task| task["task"] == "sum").unwrap()["output"].to_string();
    assert_eq!(sum.trim_matches('"'), "9", "{run}");
    let deployed = sandbox.sh("flumen run wrong --deployment broken");
    assert!(deployed.stderr.contains("unknown key 'parms'"), "{}", deployed.stderr);
    succeed(&sandbox, "flumen deploy wrong --name green");
    let near = sandbox.sh("flumen run wrong --deployment gren");
    assert!(near.code == 3 && near.stderr.contains("did you mean 'green'?"), "{}", near.stderr);
    let file = sandbox.sh("flumen run wrong -p file=nowhere.csv");
    assert!(file.code == 2 && file.stderr.contains("there is no file 'nowhere.csv'"), "{}", file.stderr);
}
