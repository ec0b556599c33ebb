//! Who works on a project: commands that keep their runs, servers elsewhere, workers that die.

use std::process::Stdio;

use serde_json::Value;

use super::{Server, json, project, succeed, wait_for, wait_until};
use crate::sandbox::Sandbox;

/// The workers that had the tasks of a run.
fn workers(run: &Value) -> Vec<String> {
    let tasks = run["tasks"].as_array().unwrap();
    tasks.iter().filter_map(|task| Some(task["worker"].as_str()?.to_owned())).collect()
}

fn is_of(worker: &str, server: &Server) -> bool {
    worker.contains(&format!("-{}-", server.id()))
}

/// The run that was made last, by its flow.
fn latest(sandbox: &Sandbox, flow: &str) -> Value {
    let runs = json(sandbox, &format!("run list --flow {flow}"));
    json(sandbox, &format!("run show {}", runs[0]["id"].as_str().unwrap()))
}

#[test]
fn a_run_that_is_to_be_done_here_is_done_here_beside_a_server() {
    let sandbox = project(&[
        (
            "flows/many.yml",
            "flow: many\ntasks:\n  each: { for_each: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], shell: \"true\" }\n  sub: { needs: [each], flow: sub }\n",
        ),
        ("flows/sub.yml", "flow: sub\ntasks:\n  each: { for_each: [1, 2, 3, 4, 5, 6], shell: \"true\" }\n"),
    ]);
    let server = Server::start(&sandbox, &["up", "--slots", "32"]);
    let mut ids = Vec::new();
    for command in ["task test many each", "run many --local", "run many --no-cache"] {
        let run = json(&sandbox, command);
        assert_eq!(run["state"], "success", "{command}: {run}");
        let there = workers(&run);
        assert!(!there.is_empty() && !there.iter().any(|one| is_of(one, &server)), "{command}: {there:?}");
        ids.push(run["id"].as_str().unwrap().to_owned());
    }
    let sub = workers(&latest(&sandbox, "sub"));
    assert!(sub.len() >= 6 && !sub.iter().any(|one| is_of(one, &server)), "{sub:?}");
    // Nothing is left of it: what is done again is the server's, and so is everything else.
    succeed(&sandbox, &format!("flumen run clear {}", ids[2]));
    let show = format!("run show {}", ids[2]);
    wait_until(|| json(&sandbox, &show)["state"] == "success");
    let again = workers(&json(&sandbox, &show));
    assert!(again.iter().all(|one| is_of(one, &server)), "{again:?}");
    assert_eq!(json(&sandbox, "worker list").as_array().unwrap().len(), 1);
}

#[test]
fn a_run_whose_command_was_killed_is_everybodys() {
    let wait = "touch $FLUMEN_PROJECT/begun; while [ ! -e $FLUMEN_PROJECT/go ]; do sleep 0.05; done";
    let sandbox = project(&[("flows/slow.yml", &format!("flow: slow\ntasks:\n  a: {{ shell: \"{wait}\" }}\n"))]);
    let server = Server::start(&sandbox, &["up"]);
    let mut local = sandbox.command(env!("CARGO_BIN_EXE_flumen"));
    let mut local = local.args(["run", "slow", "--local"]).stderr(Stdio::null()).spawn().unwrap();
    wait_for(&sandbox.path().join("begun"));
    assert!(!workers(&latest(&sandbox, "slow")).iter().any(|one| is_of(one, &server)));
    local.kill().unwrap();
    local.wait().unwrap();
    wait_until(|| workers(&latest(&sandbox, "slow")).iter().any(|one| is_of(one, &server)));
    sandbox.write("go", "");
    wait_until(|| latest(&sandbox, "slow")["state"] == "success");
}

#[test]
fn a_scheduler_sees_that_a_worker_beside_it_has_died() {
    let wait = "while [ ! -e $FLUMEN_PROJECT/go ]; do sleep 0.05; done";
    let sandbox = project(&[("flows/slow.yml", &format!("flow: slow\ntasks:\n  a: {{ shell: \"{wait}\" }}\n"))]);
    let _scheduler = Server::start(&sandbox, &["scheduler"]);
    // Nobody waits for the end of such a lease.
    let mut first = Server::start(&sandbox, &["worker", "--lease", "10h"]);
    let id = succeed(&sandbox, "flumen run slow --detach").stdout.trim().to_owned();
    let worker = || workers(&json(&sandbox, &format!("run show {id}"))).pop().unwrap_or_default();
    wait_until(|| is_of(&worker(), &first));
    let second = Server::start(&sandbox, &["worker", "--lease", "11h"]);
    first.kill();
    wait_until(|| is_of(&worker(), &second));
    let said = std::fs::read_to_string(sandbox.path().join("server.log")).unwrap();
    assert!(said.contains("ended without a word: its task is begun again"), "{said}");
    sandbox.write("go", "");
    wait_until(|| json(&sandbox, &format!("run show {id}"))["state"] == "success");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_elsewhere_is_known_by_the_store() {
    let database = flumen_testkit::postgres::server().database().await;
    let settings = format!(
        "name: both\nconnections:\n  meta: {{ kind: postgres, url: \"{}\" }}\nstore: {{ connection: meta }}\n",
        database.url
    );
    let files = [
        ("flumen.yml", settings.as_str()),
        ("flows/say.yml", "flow: say\ntasks:\n  ask: { approve: \"go?\" }\n  a: { needs: [ask], shell: \"true\" }\n"),
        (
            "flows/day.yml",
            "flow: day\nschedule: { every: 1d, start: 2021-01-01, end: 2021-01-02, catchup: none }\ntasks:\n  a: { shell: \"true\" }\n",
        ),
    ];
    let (there, here) = (project(&files), project(&files));
    assert!(succeed(&here, "flumen status").stdout.contains("server: none"));
    let mut scheduler = Server::start(&there, &["scheduler"]);
    let mut worker = Server::start(&there, &["worker"]);
    let host = succeed(&here, "uname -n").stdout.trim().to_owned();
    let expected = format!("server: process {} on {host}", scheduler.id());
    wait_until(|| succeed(&here, "flumen status").stdout.contains(&expected));
    let id = succeed(&here, "flumen run say --detach").stdout.trim().to_owned();
    wait_until(|| json(&here, &format!("run show {id}"))["tasks"][0]["state"] == "paused");
    // The answer is left to the server.
    succeed(&here, &format!("flumen run approve {id}/ask"));
    wait_until(|| json(&here, &format!("run show {id}"))["state"] == "success");
    succeed(&here, "flumen backfill day --from 2021-01-01 --to 2021-01-02");
    for run in [json(&here, &format!("run show {id}")), latest(&here, "day")] {
        let there = workers(&run);
        assert!(!there.is_empty() && there.iter().all(|one| is_of(one, &worker)), "{run}");
    }
    assert_eq!((worker.stop(), scheduler.stop()), (0, 0));
    assert!(succeed(&here, "flumen status").stdout.contains("server: none"));
}

#[test]
fn what_settings_say_counts_while_servers_run() {
    let sandbox = project(&[
        ("flumen.yml", "name: test\nvars: { a: one }\n"),
        (".env", "B=two\n"),
        ("flows/say.yml", "flow: say\ntasks:\n  a: { shell: \"echo {{ var.a }} {{ env_var('B') }}\" }\n"),
    ]);
    let said = |sandbox: &Sandbox| json(sandbox, "run say")["tasks"][0]["output"].clone();
    let log = || std::fs::read_to_string(sandbox.path().join("server.log")).unwrap();
    for parts in [vec!["up"], vec!["scheduler", "worker"]] {
        sandbox.write("flumen.yml", "name: test\nvars: { a: one }\n");
        sandbox.write(".env", "B=two\n");
        sandbox.write("server.log", "");
        let servers: Vec<Server> = parts.iter().map(|part| Server::start(&sandbox, &[part])).collect();
        assert_eq!(said(&sandbox), "one two");
        sandbox.write("flumen.yml", "name: test\nvars: { a: three }\n");
        wait_until(|| log().matches("read again: flumen.yml").count() == servers.len());
        assert_eq!(said(&sandbox), "three two");
        sandbox.write(".env", "B=four\n");
        wait_until(|| log().matches("read again: .env").count() == servers.len());
        assert_eq!(said(&sandbox), "three four");
        // What is broken changes nothing, and what is opened once is told of.
        sandbox.write("flumen.yml", "name: test\nvars: [\n");
        wait_until(|| log().matches("flumen.yml:").count() >= servers.len());
        sandbox.write("flumen.yml", "name: test\nvars: { a: five }\nserve: { pg: 127.0.0.1:1 }\n");
        wait_until(|| log().matches("'serve' changed: restart the server to use that").count() == servers.len());
        assert_eq!(said(&sandbox), "five four");
    }
}

#[test]
fn what_is_late_is_told_of_without_a_hook() {
    let wait = "while [ ! -e $FLUMEN_PROJECT/go ]; do sleep 0.05; done";
    let flow = format!(
        "flow: slow\nwarn_after: 100ms\ndeadline: 200ms\ntasks:\n  a: {{ warn_after: 100ms, shell: \"{wait}\" }}\n"
    );
    let sandbox = project(&[("flows/slow.yml", &flow)]);
    let _server = Server::start(&sandbox, &["up"]);
    let id = succeed(&sandbox, "flumen run slow --detach").stdout.trim().to_owned();
    let short = &id[..8];
    for told in [
        format!("run {short}: it takes longer than 100ms (warn_after)"),
        format!("run {short}: its deadline of 200ms is over: it should have been done by "),
        format!("run {short}, task a: it takes longer than 100ms (warn_after)"),
    ] {
        wait_until(|| std::fs::read_to_string(sandbox.path().join("server.log")).unwrap().contains(&told));
    }
    let events = succeed(&sandbox, &format!("flumen run show {id} --events")).stdout;
    assert!(events.contains("it takes longer than 100ms (warn_after)"), "{events}");
    assert!(events.contains("its deadline of 200ms is over"), "{events}");
    sandbox.write("go", "");
    wait_until(|| json(&sandbox, &format!("run show {id}"))["state"] == "success");
}

#[test]
fn a_flow_says_when_it_runs_next() {
    let flow =
        |name: &str, schedule: &str| format!("flow: {name}\nschedule: {schedule}\ntasks:\n  a: {{ empty: {{}} }}\n");
    let sandbox = project(&[
        (
            "flows/ended.yml",
            &flow(
                "ended",
                "{ cron: \"0 6 2 * *\", start: 2019-01-01, end: 2021-07-01, catchup: all }\nmax_active_runs: 3",
            ),
        ),
        ("flows/open.yml", &flow("open", "{ rrule: \"FREQ=MONTHLY;BYDAY=-1FR;BYHOUR=18\", start: 2021-01-01 }")),
        ("flows/wrong.yml", &flow("wrong", "{ rrule: \"FREQ=MONTHLY\" }")),
    ]);
    let ended = succeed(&sandbox, "flumen flow show ended").stdout;
    let lines = [
        "schedule: 0 6 2 * *\n",
        "start: 2019-01-01\n",
        "end: 2021-07-01\n",
        "catchup: all\n",
        "next: none, since the schedule has ended\n",
        "max_active_runs: 3 (on_overlap: queue)\n",
    ];
    for line in lines {
        assert!(ended.contains(line), "{line}: {ended}");
    }
    assert_eq!(json(&sandbox, "flow show ended")["next"], Value::Null);
    // A rule without DTSTART begins where the schedule does.
    assert_eq!(succeed(&sandbox, "flumen check open").code, 0);
    let preview = json(&sandbox, "schedule preview open --from 2021-01 -n 1");
    assert_eq!(preview[0]["end"], "2021-01-29T18:00:00Z");
    let next = || succeed(&sandbox, "flumen flow show open").stdout;
    assert!(next().contains("T18:00\n") && next().contains("catchup: last\n"), "{}", next());
    succeed(&sandbox, "flumen flow pause open");
    assert!(next().contains("next: none, since the flow is paused ('flumen flow resume open')"), "{}", next());
    assert_eq!(json(&sandbox, "flow show open")["paused"], true);
    let wrong = sandbox.sh("flumen check flows/wrong.yml");
    assert!(wrong.code == 2 && wrong.stdout.contains("give the schedule a 'start'"), "{}", wrong.stdout);
}
