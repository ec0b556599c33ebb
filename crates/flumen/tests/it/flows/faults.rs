//! What happens to flows when processes are killed.

use super::{Server, json, project, succeed, wait_until};

#[test]
fn a_killed_server_loses_nothing_and_its_tasks_end_with_it() {
    let sandbox = project(&[(
        "flows/slow.yml",
        "flow: slow\ntasks:\n  a: { shell: \"echo $$ >> $FLUMEN_PROJECT/pids; while [ ! -e $FLUMEN_PROJECT/go ]; do sleep 0.05; done\" }\n  b: { needs: [a], shell: \"echo done\" }\n",
    )]);
    let mut server = Server::start(&sandbox, &["up", "--lease", "2s"]);
    let id = succeed(&sandbox, "flumen run slow --detach").stdout;
    let id = id.trim().to_owned();
    let pids = sandbox.path().join("pids");
    wait_until(|| std::fs::read_to_string(&pids).is_ok_and(|text| text.ends_with('\n')));
    server.kill();
    // The watching process ends what the worker had started.
    let first = std::fs::read_to_string(&pids).unwrap().trim().to_owned();
    wait_until(|| !super::is_alive(&first));
    let _next = Server::start(&sandbox, &["up", "--lease", "2s"]);
    wait_until(|| std::fs::read_to_string(&pids).is_ok_and(|text| text.lines().count() == 2));
    sandbox.write("go", "");
    wait_until(|| json(&sandbox, &format!("run show {id}"))["state"] == "success");
    let events = succeed(&sandbox, &format!("flumen run show {id} --events")).stdout;
    assert!(events.contains("expired"), "{events}");
    let run = json(&sandbox, &format!("run show {id}"));
    assert_eq!(run["tasks"][0]["attempt"], 1, "a lost worker costs no attempt");
}
