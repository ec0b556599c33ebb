//! What people are told of runs that wait, and of what does not fit.

use std::process::Stdio;

use serde_json::json;

use super::{json, project, succeed, wait_until};

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
