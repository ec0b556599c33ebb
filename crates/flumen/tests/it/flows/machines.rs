//! Machines in a network of the test's own: some are cut off from it, and come back.

use std::process::Command;
use std::sync::atomic::Ordering;

use super::faults::{GATES, Line, gated, open};
use super::{Server, json, project, succeed, wait_until};
use crate::sandbox::Sandbox;

/// How many networks of tests there can be at once.
const NETS: u32 = 250;

fn ip(arguments: &str) -> bool {
    let ran = Command::new("ip").args(arguments.split(' ')).output();
    ran.is_ok_and(|ran| ran.status.success())
}

/// A machine.
enum Machine {
    /// A network namespace with a wire to this one. Making one takes root.
    Namespace { name: String, wire: String },
    /// This one: its way to the database can be shut.
    Line(Line),
}

impl Machine {
    /// The one with this number in a network; its database is at `port`.
    fn new(net: u32, number: usize, port: u16) -> Self {
        let (name, wire) = (format!("flumen-{net}-{number}"), format!("fl{net}-{number}"));
        let (here, there) = (format!("10.231.{net}.{}", 4 * number + 1), format!("10.231.{net}.{}", 4 * number + 2));
        // One that a test left behind that was killed.
        ip(&format!("netns del {name}"));
        if !ip(&format!("netns add {name}")) {
            return Self::Line(Line::to(port));
        }
        let machine = Self::Namespace { name: name.clone(), wire: wire.clone() };
        for command in [
            format!("link add {wire} type veth peer name eth0 netns {name}"),
            format!("addr add {here}/30 dev {wire}"),
            format!("link set {wire} up"),
            format!("-n {name} addr add {there}/30 dev eth0"),
            format!("-n {name} link set lo up"),
            format!("-n {name} link set eth0 up"),
            format!("-n {name} route add default via {here}"),
        ] {
            assert!(ip(&command), "ip {command}");
        }
        machine
    }

    fn server(&self, sandbox: &Sandbox, arguments: &[&str]) -> Server {
        match self {
            Self::Namespace { name, .. } => Server::start_by(sandbox, &["ip", "netns", "exec", name], arguments, &[]),
            Self::Line(line) => {
                let at = format!("127.0.0.1:{}", line.port);
                Server::start_with(sandbox, arguments, &[("META_AT", &at)])
            }
        }
    }

    /// Nothing passes from now on, and nobody is told.
    fn cut(&self) {
        match self {
            Self::Namespace { wire, .. } => assert!(ip(&format!("link set {wire} down"))),
            Self::Line(line) => line.set_open(false),
        }
    }

    fn join(&self) {
        match self {
            Self::Namespace { wire, .. } => assert!(ip(&format!("link set {wire} up"))),
            Self::Line(line) => line.set_open(true),
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Self::Namespace { name, .. } = self {
            ip(&format!("netns del {name}"));
        }
    }
}

/// The address that machines share, as long as this is kept.
struct Shared(Option<String>);

impl Shared {
    /// In a network of namespaces that nobody else has, where there can be one; its number. Who has the address has the network.
    fn new() -> (Self, u32) {
        let first = std::process::id();
        for net in (0..NETS).map(|number| (first + number) % NETS) {
            let address = format!("10.231.{net}.254");
            if ip(&format!("addr add {address}/32 dev lo")) {
                return (Self(Some(address)), net);
            }
        }
        (Self(None), 0)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Self(Some(address)) = self {
            ip(&format!("addr del {address}/32 dev lo"));
        }
    }
}

/// Two schedulers and three workers, each on a machine of its own. The one that has a load is cut off, and comes back after its
/// successor has committed (`late`), or before. The load is there once.
async fn cut_off(late: bool) {
    let postgres = flumen_testkit::postgres::server();
    let database = postgres.database().await;
    let (there, net) = Shared::new();
    let (web, gates, asked) = gated("n\n1\n2\n");
    let (web_port, file) = web.strip_prefix("http://127.0.0.1:").and_then(|rest| rest.split_once('/')).unwrap();
    // Servers of this machine are heard on the address that machines share.
    let (web, meta) = match &there.0 {
        Some(address) => {
            let to_web = Line::at(address, web_port.parse().unwrap());
            let to_meta = Line::at(address, postgres.port);
            (format!("http://{address}:{}/{file}", to_web.port), format!("{address}:{}", to_meta.port))
        }
        None => (web.clone(), format!("127.0.0.1:{}", postgres.port)),
    };
    let here = format!("127.0.0.1:{}", postgres.port);
    let url = database.url.replace(&here, &format!("{{{{ env_var('META_AT', '{meta}') }}}}"));
    assert_ne!(url, database.url);
    let settings = format!(
        "name: many\nconnections:\n  meta: {{ kind: postgres, url: \"{url}\" }}\nstore: {{ connection: meta }}\n"
    );
    let flow = format!("flow: load\ntasks:\n  a: {{ ingest: {{ from: \"{web}\", to: lake.raw.t }} }}\n");
    let sandbox = project(&[("flumen.yml", &settings), ("flows/load.yml", &flow)]);
    let machines: Vec<Machine> = (0..5).map(|number| Machine::new(net, number, postgres.port)).collect();
    let _schedulers: Vec<Server> = machines[..2].iter().map(|one| one.server(&sandbox, &["scheduler"])).collect();
    let worker = |one: &Machine| one.server(&sandbox, &["worker", "--lease", "3s", "--slots", "2"]);
    let mut workers: Vec<Server> = machines[2..].iter().map(worker).collect();
    // Which machine has the task now: the process is part of the name of its worker.
    let ids: Vec<u32> = workers.iter().map(Server::id).collect();
    let id = succeed(&sandbox, "flumen run load --detach").stdout.trim().to_owned();
    let holder = || {
        let tasks = json(&sandbox, &format!("run show {id}"))["tasks"].clone();
        let worker = tasks[0]["worker"].as_str().unwrap_or_default().to_owned();
        ids.iter().position(|process| worker.contains(&format!("-{process}-")))
    };
    wait_until(|| asked.load(Ordering::SeqCst) > 0 && holder().is_some());
    let lost = holder().unwrap();
    machines[2 + lost].cut();
    wait_until(|| asked.load(Ordering::SeqCst) > 1);
    let is_done = || json(&sandbox, &format!("run show {id}"))["state"] == "success";
    let open_from = |number| (number..GATES).for_each(|number| open(&gates, number));
    if late {
        open_from(1);
        wait_until(is_done);
        machines[2 + lost].join();
        open_from(0);
    } else {
        machines[2 + lost].join();
        open_from(0);
        wait_until(is_done);
    }
    let events = succeed(&sandbox, &format!("flumen run show {id} --events")).stdout;
    assert!(events.contains("the lease of worker"), "{events}");
    assert_eq!(json(&sandbox, "load list lake.raw.t").as_array().unwrap().len(), 1);
    assert_eq!(json(&sandbox, "sql \"select count(*) as n from lake.raw.t\"")[0]["n"], 2);
    // It works as before: with the others gone it is the one that does the next run.
    let mut back = workers.remove(lost);
    workers.iter_mut().for_each(Server::kill);
    assert_eq!(json(&sandbox, "run load")["state"], "success");
    assert_eq!(back.stop(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_was_cut_off_is_back_after_its_successor_has_committed() {
    cut_off(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_was_cut_off_is_back_before_its_successor_has_committed() {
    cut_off(false).await;
}
