//! What happens to flows when processes are killed.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use serde_json::Value;

use crate::web::{reply, serve};

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
    assert!(events.contains("ended without a word"), "{events}");
    let run = json(&sandbox, &format!("run show {id}"));
    assert_eq!(run["tasks"][0]["attempt"], 1, "a lost worker costs no attempt");
}

/// Gates in front of the answers of a web server, by the number of the request.
pub(super) type Gates = Arc<(Mutex<Vec<bool>>, Condvar)>;

/// How many there are.
pub(super) const GATES: usize = 16;

pub(super) fn open(gates: &Gates, number: usize) {
    gates.0.lock().unwrap()[number] = true;
    gates.1.notify_all();
}

/// A web server with one file, whose answers wait for their gates; and how many were asked for.
pub(super) fn gated(body: &'static str) -> (String, Gates, Arc<AtomicUsize>) {
    let gates: Gates = Arc::new((Mutex::new(vec![false; GATES]), Condvar::new()));
    let asked = Arc::new(AtomicUsize::new(0));
    let url = serve({
        let (gates, asked) = (Arc::clone(&gates), Arc::clone(&asked));
        move |request, stream| {
            asked.fetch_add(1, Ordering::SeqCst);
            let open = gates.0.lock().unwrap();
            drop(gates.1.wait_while(open, |open| !open[request.number]).unwrap());
            reply(stream, "200 OK", "", body.len(), body.as_bytes());
        }
    });
    (url, gates, asked)
}

/// A worker is cut off in the middle of a load: it does not run, so nobody hears of it, and its lease ends. Its load goes on, and
/// another worker does the task too. `late` says whether the first load comes to its end after the other one, or before. The database is
/// Postgres: a process that is stopped in the middle of a change to a SQLite file holds all others up.
async fn cut_off(late: bool) {
    let database = flumen_testkit::postgres::server().database().await;
    let settings = format!(
        "name: cut\nconnections:\n  meta: {{ kind: postgres, url: \"{}\" }}\nstore: {{ connection: meta }}\n",
        database.url
    );
    let (url, gates, asked) = gated("n\n1\n2\n");
    let flow = format!("flow: load\ntasks:\n  a: {{ ingest: {{ from: \"{url}\", to: lake.raw.t }} }}\n");
    let sandbox = project(&[("flumen.yml", &settings), ("flows/load.yml", &flow)]);
    let _scheduler = Server::start(&sandbox, &["scheduler"]);
    let mut first = Server::start(&sandbox, &["worker", "--lease", "1s", "--slots", "1"]);
    let id = succeed(&sandbox, "flumen run load --detach").stdout;
    let id = id.trim().to_owned();
    wait_until(|| asked.load(Ordering::SeqCst) == 1);
    first.signal("STOP");
    let _second = Server::start(&sandbox, &["worker", "--lease", "2s", "--slots", "2"]);
    wait_until(|| asked.load(Ordering::SeqCst) == 2);
    let order = if late { [1, 0] } else { [0, 1] };
    open(&gates, order[0]);
    if late {
        wait_until(|| json(&sandbox, &format!("run show {id}"))["state"] == "success");
    } else {
        // There is no table before.
        wait_until(|| sandbox.sh("flumen sql \"select count(*) as n from lake.raw.t\"").code == 0);
    }
    open(&gates, order[1]);
    // Whatever the first one asks for more is answered.
    (2..GATES).for_each(|number| open(&gates, number));
    wait_until(|| json(&sandbox, &format!("run show {id}"))["state"] == "success");
    first.signal("CONT");
    wait_until(|| json(&sandbox, "pool list").as_array().unwrap().is_empty());
    assert_eq!(first.stop(), 0, "it ends when its task has");
    assert_eq!(json(&sandbox, "sql \"select count(*) as n from lake.raw.t\"")[0]["n"], 2);
    assert_eq!(json(&sandbox, "load list lake.raw.t").as_array().unwrap().len(), 1);
    assert_eq!(json(&sandbox, &format!("run show {id}"))["tasks"][0]["state"], "success");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_was_cut_off_comes_back_after_its_successor() {
    cut_off(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_was_cut_off_comes_back_before_its_successor() {
    cut_off(false).await;
}

/// A task does not fail because its worker's session with the database ends while its flow is being read: it is read again.
#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_waits_for_a_database_that_goes_away() {
    let database = flumen_testkit::postgres::server().database().await;
    let settings = format!(
        "name: away\nconnections:\n  meta: {{ kind: postgres, url: \"{}\" }}\nstore: {{ connection: meta }}\n",
        database.url
    );
    let flow = "flow: short\ntasks:\n  a: { shell: \"echo done\" }\n";
    let sandbox = project(&[("flumen.yml", &settings), ("flows/short.yml", flow)]);
    let _scheduler = Server::start(&sandbox, &["scheduler"]);
    let id = succeed(&sandbox, "flumen run short --detach").stdout;
    wait_until(|| json(&sandbox, &format!("run show {}", id.trim()))["tasks"][0]["state"] == "queued");
    database.run("begin; lock table flumen.versions in access exclusive mode").await;
    let _worker = Server::start(&sandbox, &["worker"]);
    let other = flumen_testkit::postgres::connect(&database.url).await;
    let end = "select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock' and query like '%from versions%'";
    while other.query(end, &[]).await.unwrap().is_empty() {}
    database.run("rollback").await;
    wait_until(|| json(&sandbox, &format!("run show {}", id.trim()))["state"] != "running");
    let run = json(&sandbox, &format!("run show {}", id.trim()));
    assert_eq!((&run["state"], &run["tasks"][0]["attempt"]), (&"success".into(), &1.into()), "{run}");
}

/// Two schedulers and three workers over Postgres: some are killed, and Postgres itself goes away and comes back, more than once.
#[tokio::test(flavor = "multi_thread")]
async fn many_processes_share_a_database_that_goes_away() {
    let postgres = flumen_testkit::postgres::Server::start().expect("Postgres starts");
    let database = postgres.database().await;
    let settings = format!(
        "name: many\nconnections:\n  meta: {{ kind: postgres, url: \"{}\" }}\nstore: {{ connection: meta }}\n",
        database.url
    );
    let flow = r#"
flow: many
schedule: { cron: "@monthly", start: 2019-01-01, end: 2019-12-31, catchup: none }
max_active_runs: 4
defaults: { max_infra_retries: 100000 }
tasks:
  a: { shell: "echo {{ ds }}" }
  b: { needs: [a], for_each: [1, 2, 3], shell: "sleep 0.05; echo {{ item }}" }
  c: { needs: [b], empty: {} }
"#;
    let sandbox = project(&[("flumen.yml", &settings), ("flows/many.yml", flow)]);
    let mut schedulers: Vec<Server> = (0..2).map(|_| Server::start(&sandbox, &["scheduler"])).collect();
    let worker = || Server::start(&sandbox, &["worker", "--lease", "2s", "--slots", "2"]);
    let mut workers: Vec<Server> = (0..3).map(|_| worker()).collect();
    succeed(&sandbox, "flumen backfill many --detach");
    let ended = |at_least: usize| {
        let ran = sandbox.sh("flumen --json run list -n 0 --state success");
        serde_json::from_str::<Value>(&ran.stdout).is_ok_and(|runs| runs.as_array().unwrap().len() >= at_least)
    };
    wait_until(|| ended(2));
    workers[0].kill();
    schedulers[0].kill();
    workers[0] = worker();
    for some in [4, 6, 8, 10] {
        wait_until(|| ended(some));
        postgres.stop();
        postgres.restart();
    }
    wait_until(|| ended(12));
    let runs = json(&sandbox, "run list -n 0");
    assert_eq!(runs.as_array().unwrap().len(), 12);
    for run in runs.as_array().unwrap() {
        let run = json(&sandbox, &format!("run show {}", run["id"].as_str().unwrap()));
        assert!(run["tasks"].as_array().unwrap().iter().all(|task| task["state"] == "success"), "{run}");
    }
    assert!(succeed(&sandbox, "flumen status").stdout.contains("runs: 0 active"));
}

/// A way to a server that can be shut: then no byte passes, and nobody is told.
pub(super) struct Line {
    pub(super) port: u16,
    open: Arc<(Mutex<bool>, Condvar)>,
}

impl Line {
    /// To this port of this machine.
    pub(super) fn to(port: u16) -> Self {
        Self::at("127.0.0.1", port)
    }

    /// The same, from this address.
    pub(super) fn at(address: &str, port: u16) -> Self {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let line =
            Self { port: listener.local_addr().unwrap().port(), open: Arc::new((Mutex::new(true), Condvar::new())) };
        let open = Arc::clone(&line.open);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server) = (client.unwrap(), TcpStream::connect(("127.0.0.1", port)).unwrap());
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to, open) = (from.try_clone().unwrap(), to.try_clone().unwrap(), Arc::clone(&open));
                    std::thread::spawn(move || pass_on(from, to, &open));
                }
            }
        });
        line
    }

    pub(super) fn set_open(&self, is_open: bool) {
        *self.open.0.lock().unwrap() = is_open;
        self.open.1.notify_all();
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, open: &(Mutex<bool>, Condvar)) {
    let mut buffer = [0; 16 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        drop(open.1.wait_while(open.0.lock().unwrap(), |is_open| !*is_open).unwrap());
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

/// A worker runs, and cannot reach the database: it gives its task up when its lease has ended, and another one does it. `late` says
/// whether it is back after that one has ended, or before.
async fn without_a_line(late: bool) {
    let postgres = flumen_testkit::postgres::server();
    let database = postgres.database().await;
    let line = Line::to(postgres.port);
    let (address, name) = database.url.rsplit_once('/').unwrap();
    let address = address.strip_suffix(&format!(":{}", postgres.port)).unwrap();
    let settings = format!(
        "name: cut\nconnections:\n  meta: {{ kind: postgres, url: \"{address}:{{{{ env_var('META_PORT', '{}') }}}}/{name}\" }}\n\
         store: {{ connection: meta }}\n",
        postgres.port
    );
    let flow = "flow: slow\ntasks:\n  a:\n    shell: |\n      echo $$ >> $FLUMEN_PROJECT/pids\n      \
        while [ ! -e $FLUMEN_PROJECT/go ]; do sleep 0.05; done\n      echo $$ >> $FLUMEN_PROJECT/done\n";
    let sandbox = project(&[("flumen.yml", &settings), ("flows/slow.yml", flow)]);
    let lines = |name: &str| {
        let text = std::fs::read_to_string(sandbox.path().join(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let _scheduler = Server::start(&sandbox, &["scheduler"]);
    let cut_off = ["worker", "--lease", "3s", "--slots", "1"];
    let mut first = Server::start_with(&sandbox, &cut_off, &[("META_PORT", &line.port.to_string())]);
    let id = succeed(&sandbox, "flumen run slow --detach").stdout;
    wait_until(|| lines("pids").len() == 1);
    line.set_open(false);
    let mut second = Server::start(&sandbox, &["worker", "--lease", "3s", "--slots", "2"]);
    wait_until(|| lines("pids").len() == 2);
    let pids = lines("pids");
    wait_until(|| !super::is_alive(&pids[0]));
    let is_done = || json(&sandbox, &format!("run show {}", id.trim()))["state"] == "success";
    if late {
        sandbox.write("go", "");
        wait_until(is_done);
        line.set_open(true);
    } else {
        let seen = || {
            let workers = json(&sandbox, "worker list");
            let first = workers.as_array().unwrap().iter().find(|worker| worker["slots"] == 1).cloned();
            first.unwrap()["seen"].clone()
        };
        let before = seen();
        line.set_open(true);
        wait_until(|| seen() != before);
        sandbox.write("go", "");
        wait_until(is_done);
    }
    assert_eq!(lines("done"), [pids[1].clone()], "one of them did it");
    let events = succeed(&sandbox, &format!("flumen run show {} --events", id.trim())).stdout;
    assert!(events.contains("the lease of worker"), "{events}");
    // The one that was cut off works as before.
    second.kill();
    assert_eq!(json(&sandbox, "run slow")["state"], "success");
    assert_eq!(lines("done").len(), 2);
    assert_eq!(first.stop(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_a_line_is_back_after_its_successor_has_ended() {
    without_a_line(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_a_line_is_back_before_its_successor_has_ended() {
    without_a_line(false).await;
}
