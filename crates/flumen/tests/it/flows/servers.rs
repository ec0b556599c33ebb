//! `flumen up`, `flumen scheduler` and `flumen worker`.

use serde_json::json;

use super::{Server, json, project, succeed, wait_until};

fn runs(sandbox: &crate::sandbox::Sandbox, options: &str) -> Vec<serde_json::Value> {
    json(sandbox, &format!("run list -n 0 {options}")).as_array().unwrap().clone()
}

#[test]
fn schedules_make_runs_and_files_are_read_again() {
    let sandbox = project(&[(
        "flows/tick.yml",
        "flow: tick\nschedule: { every: 1s, start: 2021-01-01, catchup: none }\ntasks:\n  say: { shell: \"echo {{ data_interval_start }}\" }\n",
    )]);
    let mut server = Server::start(&sandbox, &["up"]);
    wait_until(|| runs(&sandbox, "--flow tick --state success").len() >= 2);
    // A second server is refused, and a run is handed over to the first.
    let second = sandbox.sh("flumen up");
    assert!(second.code == 4 && second.stderr.contains("a server works on this project already"), "{}", second.stderr);
    sandbox.write("flows/new.yml", "flow: new\ntasks:\n  say: { shell: \"echo new\" }\n");
    let run = json(&sandbox, "run new");
    assert_eq!((run["state"].as_str(), run["flow"].as_str()), (Some("success"), Some("new")));
    let id = succeed(&sandbox, "flumen run new --detach").stdout;
    wait_until(|| json(&sandbox, &format!("run show {}", id.trim()))["state"] == "success");
    // A broken file stops nothing: the flow stays as it was.
    sandbox.write("flows/tick.yml", "flow: tick\nschedule: [\n");
    let before = runs(&sandbox, "--flow tick").len();
    wait_until(|| runs(&sandbox, "--flow tick").len() > before);
    assert_eq!(succeed(&sandbox, "flumen flow pause new").code, 0);
    let status = succeed(&sandbox, "flumen status").stdout;
    assert!(status.contains("server: process") && status.contains("workers: 1"), "{status}");
    assert_eq!(server.stop(), 0);
    assert!(succeed(&sandbox, "flumen status").stdout.contains("server: none"));
    // Each interval has one run.
    let mut starts: Vec<String> =
        runs(&sandbox, "--flow tick").iter().map(|run| run["interval"]["start"].to_string()).collect();
    let count = starts.len();
    starts.sort();
    starts.dedup();
    assert_eq!(starts.len(), count);
}

#[test]
fn a_server_that_ends_lets_tasks_end() {
    let sandbox = project(&[(
        "flows/slow.yml",
        "flow: slow\ntasks:\n  a: { shell: \"touch $FLUMEN_PROJECT/begun; while [ ! -e $FLUMEN_PROJECT/go ]; do sleep 0.05; done; touch $FLUMEN_PROJECT/ended\" }\n  b: { needs: [a], shell: \"true\" }\n",
    )]);
    let mut server = Server::start(&sandbox, &["up"]);
    let id = succeed(&sandbox, "flumen run slow --detach").stdout;
    super::wait_for(&sandbox.path().join("begun"));
    server.signal("TERM");
    wait_until(|| sandbox.sh("cat server.log").stdout.contains("draining"));
    sandbox.write("go", "");
    assert_eq!(server.0.wait().unwrap().code(), Some(0));
    assert!(sandbox.path().join("ended").exists());
    let _ = &mut server;
    // What was left is done by the next one.
    let _next = Server::start(&sandbox, &["up"]);
    wait_until(|| json(&sandbox, &format!("run show {}", id.trim()))["state"] == "success");
}

#[test]
fn parts_run_alone_and_pools_are_kept_apart() {
    let sandbox = project(&[
        ("flumen.yml", "name: test\npools: { heavy: 1, light: { slots: 4 } }\n"),
        (
            "flows/pools.yml",
            "flow: pools\ntasks:\n  a: { pool: heavy, shell: \"true\" }\n  b: { pool: heavy, shell: \"true\" }\n  c: { pool: light, shell: \"true\" }\n",
        ),
    ]);
    let mut scheduler = Server::start(&sandbox, &["scheduler"]);
    let mut light = Server::start(&sandbox, &["worker", "--pool", "light"]);
    let id = succeed(&sandbox, "flumen run pools --detach").stdout;
    let id = id.trim();
    let state = |task: &str| {
        let run = json(&sandbox, &format!("run show {id}"));
        let tasks = run["tasks"].as_array().unwrap().clone();
        tasks
            .iter()
            .find(|one| one["task"] == task)
            .map(|one| one["state"].as_str().unwrap().to_owned())
            .unwrap_or_default()
    };
    wait_until(|| state("c") == "success");
    assert_eq!((state("a"), state("b")), ("queued".to_owned(), "queued".to_owned()));
    let why = succeed(&sandbox, &format!("flumen why {id}/a")).stdout;
    assert!(why.contains("Pool 'heavy': slots taken 0 of 1, tasks waiting 2."), "{why}");
    assert!(why.contains("No worker takes tasks of pool 'heavy': 'flumen worker --pool heavy' starts one."), "{why}");
    let pools = json(&sandbox, "pool list");
    assert_eq!(pools[0], json!({ "name": "heavy", "slots": 1, "rate": null, "used": 0, "queued": 2 }));
    let _heavy = Server::start(&sandbox, &["worker", "--pool", "heavy", "--slots", "4"]);
    wait_until(|| json(&sandbox, &format!("run show {id}"))["state"] == "success");
    assert_eq!(json(&sandbox, "worker list").as_array().unwrap().len(), 2);
    assert_eq!((light.stop(), scheduler.stop()), (0, 0));
}

#[test]
fn a_backfill_fills_what_is_missing() {
    let sandbox = project(&[(
        "flows/monthly.yml",
        "flow: monthly\nschedule: { cron: \"@monthly\", start: 2021-01-01, end: 2021-06-01, catchup: none }\nmax_active_runs: 2\ntasks:\n  say: { shell: \"echo {{ ds }} >> $FLUMEN_PROJECT/days; test {{ ds }} != 2021-02-01 -o -e $FLUMEN_PROJECT/good\" }\n",
    )]);
    let plan = json(&sandbox, "backfill monthly --from 2021-01 --to 2021-03 --dry-run");
    assert_eq!((plan["runs"].as_u64(), plan["first"][0]["start"].as_str()), (Some(3), Some("2021-01-01T00:00:00Z")));
    assert_eq!(runs(&sandbox, "").len(), 0);
    let ran = sandbox.sh("flumen backfill monthly --from 2021-01 --to 2021-03");
    assert!(ran.code == 1 && ran.stderr.contains("1 of 3 runs failed"), "{}", ran.stderr);
    sandbox.write("good", "");
    succeed(&sandbox, "flumen backfill monthly --from 2021-01 --to 2021-03 --reprocess failed");
    succeed(&sandbox, "flumen backfill monthly --from 2021-01 --to 2021-04");
    let mut days: Vec<String> =
        std::fs::read_to_string(sandbox.path().join("days")).unwrap().lines().map(str::to_owned).collect();
    days.sort();
    assert_eq!(days, ["2021-01-01", "2021-02-01", "2021-02-01", "2021-03-01", "2021-04-01"]);
    // The same by a server, from the end.
    let _server = Server::start(&sandbox, &["up"]);
    succeed(&sandbox, "flumen backfill monthly --reprocess all --reverse --max-active 1");
    let list = json(&sandbox, "backfill list");
    assert_eq!((list[0]["state"].as_str(), list[0]["total"].as_u64()), (Some("done"), Some(6)));
}

#[test]
fn a_server_forgets_runs_that_are_older_than_the_project_keeps_them() {
    let sandbox = project(&[("flows/a.yml", "flow: a\ntasks:\n  say: { shell: \"echo said\" }\n")]);
    sandbox.write("flumen.yml", "name: test\nstore: { keep: 30d }\n");
    succeed(&sandbox, "flumen run a");
    let old = json(&sandbox, "run list")[0]["id"].as_str().unwrap().to_owned();
    let kept = |id: &str| sandbox.sh(&format!("find . -name '{id}*'")).stdout;
    assert!(!kept(&old).is_empty(), "there are logs");
    let age = "import sqlite3
store = sqlite3.connect('.flumen/flumen.db')
store.execute('update runs set ended_us = ended_us - 60 * 86400 * 1000000')
store.commit()";
    succeed(&sandbox, &format!("python3 -c \"{age}\""));
    succeed(&sandbox, "flumen run a");
    let mut server = Server::start(&sandbox, &["up"]);
    wait_until(|| json(&sandbox, "run list").as_array().unwrap().len() == 1);
    assert_eq!(kept(&old), "", "its logs went first");
    assert_eq!(json(&sandbox, "run a")["state"], "success", "the flow can be run as before");
    assert_eq!(server.stop(), 0);
    sandbox.write("flumen.yml", "name: test\nstore: { keep: 5m }\n");
    let wrong = sandbox.sh("flumen status");
    assert!(wrong.code == 2 && wrong.stderr.contains("'5m' is no time of a day or more"), "{}", wrong.stderr);
}

/// A system that watches no files: in a namespace with users of its own one may say so.
const UNWATCHED: &str = r#"
set -eu
echo 0 > /proc/sys/user/max_inotify_instances
flumen up --ready-file ready > /dev/null 2> server.log &
server=$!
until [ -e ready ]; do :; done
until grep -q 'looked at every second' server.log; do :; done
mkdir sql
echo 'select 1' > sql/one.sql
until flumen --json run list --flow one | grep -q '"state": *"success"'; do :; done
printf 'flow: two\nschedule: { every: 1s, start: 2021-01-01, catchup: none }\ntasks:\n  a: { empty: {} }\n' > flows/two.yml
until flumen --json run list --flow two | grep -q '"state": *"success"'; do :; done
kill $server
wait $server
"#;

#[test]
fn files_are_looked_at_where_the_system_tells_of_no_changes() {
    let flow = "flow: one\nschedule: { every: 1s, start: 2021-01-01, catchup: none }\ntasks:\n  a: { sql: { file: sql/one.sql } }\n";
    let sandbox = project(&[("flows/one.yml", flow), ("script.sh", UNWATCHED)]);
    let ran = sandbox.sh("timeout 600 unshare -rU sh script.sh");
    let said = std::fs::read_to_string(sandbox.path().join("server.log")).unwrap();
    assert_eq!(ran.code, 0, "{}\n{}\n{said}", ran.stdout, ran.stderr);
    assert_eq!(said.matches("looked at every second").count(), 1, "{said}");
}

#[test]
fn a_file_that_was_missing_mends_its_flow() {
    let flow = |name: &str, task: &str| {
        format!(
            "flow: {name}\nschedule: {{ every: 1s, start: 2021-01-01, catchup: none }}\ntasks:\n  only: {{ {task} }}\n"
        )
    };
    let sandbox = project(&[
        ("flows/good.yml", "flow: good\ntasks:\n  only: { sql: { file: sql/good.sql } }\n"),
        ("flows/beside.yml", &flow("beside", "sql: { file: sql/beside.sql }")),
        ("flows/above.yml", &flow("above", "python: { file: work.py }")),
        ("flows/below.yml", &flow("below", "sql: { file: made/later/below.sql }")),
        ("sql/good.sql", "select 1"),
    ]);
    let _server = Server::start(&sandbox, &["up"]);
    sandbox.write("sql/beside.sql", "select 1");
    wait_until(|| !runs(&sandbox, "--flow beside --state success").is_empty());
    let said = std::fs::read_to_string(sandbox.path().join("server.log")).unwrap();
    assert_eq!(said.matches("sql/beside.sql").count(), 1, "it is told once: {said}");
    sandbox.write("work.py", "print(1)");
    wait_until(|| !runs(&sandbox, "--flow above --state success").is_empty());
    // Its folders are not there either.
    sandbox.write("made/later/below.sql", "select 1");
    wait_until(|| !runs(&sandbox, "--flow below --state success").is_empty());
    // With nothing broken a file that a flow names is still heard of, wherever it is.
    sandbox.write("work.py", "import sys; sys.exit(1)");
    wait_until(|| !runs(&sandbox, "--flow above --state failed").is_empty());
}
