//! `docker`: against an engine that says what it is told to, and against a real one.
//!
//! The real one is Debian's `docker.io`, which needs root, with an image that holds Debian's `busybox-static` and nothing else:
//! `scripts/setup.sh test` installs both.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use flumen_core::flow::Outcome;
use flumen_worker::execute;
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::support::{Answer, Fixture, Request, WebServer};

/// A piece of what a container prints.
fn piece(stream: u8, text: &str) -> Vec<u8> {
    let length = u32::try_from(text.len()).unwrap().to_be_bytes();
    [&[stream, 0, 0, 0], length.as_slice(), text.as_bytes()].concat()
}

/// What an engine answers that has the image and runs a container without trouble.
fn well(request: &Request) -> Answer {
    match (request.method.as_str(), request.path.split('?').next().unwrap()) {
        ("GET", "/containers/json") => Answer::json(200, "[{\"Id\": \"left\"}]"),
        ("GET", "/images/demo/json") => Answer::json(200, "{}"),
        ("POST", "/containers/create") => Answer::json(201, "{\"Id\": \"c1\", \"Warnings\": []}"),
        ("GET", "/containers/c1/logs") => {
            let body = [piece(1, "one\n"), piece(2, "to err hunter2\n"), piece(1, "last\n")].concat();
            Answer { body, ..Answer::text(200, "") }
        }
        ("POST", "/containers/c1/wait") => Answer::json(200, "{\"StatusCode\": 0}"),
        ("GET", "/containers/c1/json") => Answer::json(200, "{\"State\": {\"ExitCode\": 0, \"OOMKilled\": false}}"),
        ("POST" | "DELETE", _) => Answer::text(204, ""),
        _ => Answer::json(404, "{\"message\": \"no such thing\"}"),
    }
}

/// A project whose engine answers like this, in the places where it says something.
fn engine(answer: impl Fn(&Request) -> Option<Answer> + Send + Sync + 'static) -> (Fixture, WebServer) {
    let fixture = Fixture::new(&[], &[("TOKEN", "hunter2")]);
    let socket = fixture.dir().join("engine.sock");
    let server = WebServer::start_at(&socket, move |request| answer(request).unwrap_or_else(|| well(request)));
    (fixture, server)
}

fn task(server: &WebServer, more: &str) -> String {
    format!(
        "one:\n  env: {{ TOKEN: \"{{{{ secret_env('TOKEN') }}}}\" }}\n  memory: 64MB\n  docker: {{ socket: \"{}\", image: demo{more} }}",
        server.url
    )
}

/// What was asked of an engine, without what is asked for.
fn asked(server: &WebServer) -> (Vec<String>, Vec<Request>) {
    let requests = server.requests();
    let short = |request: &Request| format!("{} {}", request.method, request.path.split('?').next().unwrap());
    (requests.iter().map(short).collect(), requests)
}

#[tokio::test]
async fn a_container_is_made_followed_and_removed() {
    let (fixture, server) = engine(|_| None);
    let more = ", command: \"echo {{ ds }}\", entrypoint: [/bin/busybox], env: { A: 1 }, mounts: [\"data/../in:/in:ro\", \".:/p\"], network: none, user: \"1:1\", workdir: /in";
    let (outcome, lines) = fixture.run(&task(&server, more)).await;
    assert_eq!(outcome, Outcome::success("last".into()), "{lines:?}");
    assert_eq!(lines, ["Out one", "Err to err ***", "Out last"]);
    let (asked, requests) = asked(&server);
    assert_eq!(
        asked,
        [
            "GET /containers/json",
            "DELETE /containers/left",
            "GET /images/demo/json",
            "POST /containers/create",
            "POST /containers/c1/start",
            "GET /containers/c1/logs",
            "POST /containers/c1/wait",
            "GET /containers/c1/json",
            "DELETE /containers/c1",
        ]
    );
    assert!(requests[0].path.contains("flumen.run%3D") && requests[8].path.contains("force=true"), "{requests:?}");
    let wanted: Value = serde_json::from_str(&requests[3].body).unwrap();
    assert_eq!((&wanted["Image"], &wanted["Cmd"]), (&json!("demo"), &json!(["sh", "-c", "echo 2021-01-05"])));
    assert_eq!(
        (&wanted["Entrypoint"], &wanted["User"], &wanted["WorkingDir"]),
        (&json!(["/bin/busybox"]), &json!("1:1"), &json!("/in"))
    );
    let project = fixture.dir().display();
    assert_eq!(wanted["HostConfig"]["Binds"][1], format!("{project}/in:/in:ro"));
    assert_eq!(wanted["HostConfig"]["Binds"][2], format!("{project}:/p"));
    assert_eq!(
        (&wanted["HostConfig"]["Memory"], &wanted["HostConfig"]["NetworkMode"]),
        (&json!(64_000_000), &json!("none"))
    );
    assert_eq!(wanted["Labels"]["flumen.task"], "one");
    let env: Vec<&str> = wanted["Env"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
    for variable in ["A=1", "TOKEN=hunter2", "FLUMEN_FLOW=test", "FLUMEN_OUTPUT=/flumen/output.json"] {
        assert!(env.contains(&variable), "{env:?}");
    }
    assert!(!env.iter().any(|one| one.starts_with("PATH=") || one.starts_with("FLUMEN_PROJECT=")), "{env:?}");
}

#[tokio::test]
async fn images_are_pulled_when_they_are_missing() {
    let (fixture, server) = engine(|request| match request.path.as_str() {
        path if path.starts_with("/images/demo/json") => Some(Answer::json(404, "{\"message\": \"no\"}")),
        path if path.starts_with("/images/create") && path.contains("demo%3Alatest") => {
            Some(Answer::json(200, "{\"status\": \"Pulling\"}\r\n{\"status\": \"done\"}\r\n"))
        }
        path if path.starts_with("/images/create") => {
            let said =
                "{\"status\": \"Pulling\"}\r\n{\"error\": \"manifest for demo:2 not found: manifest unknown\"}\r\n";
            Some(Answer::json(200, said))
        }
        _ => None,
    });
    let (outcome, lines) = fixture.run(&task(&server, "")).await;
    assert!(matches!(outcome, Outcome::Success { .. }) && lines[0] == "Note pulls the image demo", "{lines:?}");
    let two = task(&server, "").replace("image: demo", "image: \"demo:2\", pull: always");
    let (kind, message) = fixture.failure(&two).await;
    assert!(kind == "not_found" && message.contains("pull demo:2: manifest for demo:2 not found"), "{message}");
    server.requests();
    let (kind, message) = fixture.failure(&task(&server, ", pull: never")).await;
    assert!(kind == "not_found" && message.contains("no image 'demo'"), "{message}");
    assert!(!asked(&server).0.iter().any(|asked| asked.contains("create")));
}

#[tokio::test]
async fn whatever_goes_wrong_the_container_is_removed() {
    type Say = fn(&Request) -> Option<Answer>;
    let cases: [(&str, Say, &str, &str, bool); 6] = [
        (
            "create",
            |request| at(request, "/containers/create", Answer::json(500, "{\"message\": \"disk\"}")),
            "unavailable",
            "disk",
            false,
        ),
        (
            "start",
            |request| at(request, "/start", Answer::json(404, "{\"message\": \"exec: sh: not found\"}")),
            "invalid",
            "sh: not found",
            true,
        ),
        (
            "logs",
            |request| at(request, "/logs", Answer { cut: true, ..Answer::text(200, "x") }),
            "unavailable",
            "cannot be talked to",
            true,
        ),
        (
            "exit",
            |request| at(request, "/c1/json", Answer::json(200, "{\"State\": {\"ExitCode\": 3}}")),
            "exit",
            "the command failed",
            true,
        ),
        (
            "memory",
            |request| {
                at(request, "/c1/json", Answer::json(200, "{\"State\": {\"ExitCode\": 137, \"OOMKilled\": true}}"))
            },
            "out_of_memory",
            "ran out of memory",
            true,
        ),
        ("nonsense", |request| at(request, "/c1/json", Answer::text(200, "<html>")), "data", "makes no sense", true),
    ];
    for (name, say, expect, words, removed) in cases {
        let (fixture, server) = engine(say);
        let (kind, message) = fixture.failure(&task(&server, "")).await;
        assert!(kind == expect && message.contains(words), "{name}: {kind} {message}");
        let was_removed = asked(&server).0.iter().any(|asked| asked == "DELETE /containers/c1");
        assert_eq!(was_removed, removed, "{name}");
    }
    let (fixture, _server) =
        engine(|request| at(request, "/c1/json", Answer::json(200, "{\"State\": {\"ExitCode\": 99}}")));
    assert!(matches!(fixture.run(&task(&_server, "")).await.0, Outcome::Skipped { .. }));
    let (kind, message) =
        fixture.failure("one: { docker: { image: x, socket: \"unix:///nowhere/engine.sock\" } }").await;
    assert!(
        kind == "unavailable" && message.contains("/nowhere/engine.sock") && message.contains("DOCKER_HOST"),
        "{message}"
    );
    let (kind, _) = fixture.failure("one: { docker: { image: x, socket: \"ssh://me\" } }").await;
    assert_eq!(kind, "invalid");
}

fn at(request: &Request, place: &str, answer: Answer) -> Option<Answer> {
    request.path.split('?').next().unwrap().ends_with(place).then_some(answer)
}

/// A container engine of the test's own: its data, its socket, and nothing of the machine's network.
struct RealEngine {
    folder: tempfile::TempDir,
    daemon: Child,
    /// Keeps the pipe open into which the engine writes what it does.
    said: Option<std::thread::JoinHandle<()>>,
}

impl RealEngine {
    fn start() -> Self {
        // The way to a socket must be short.
        let folder = tempfile::Builder::new().prefix("fl").tempdir_in("/tmp").unwrap();
        let at = |name: &str| folder.path().join(name);
        let mut daemon = Command::new("dockerd")
            .arg("--data-root")
            .arg(at("data"))
            .arg("--exec-root")
            .arg(at("exec"))
            .arg("--pidfile")
            .arg(at("pid"))
            .arg("--host")
            .arg(format!("unix://{}", at("sock").display()))
            .args(["--bridge=none", "--iptables=false", "--ip6tables=false", "--storage-driver=vfs"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| {
                panic!("dockerd does not start ({error}): run scripts/setup.sh test, which installs docker.io")
            });
        let mut lines = BufReader::new(daemon.stderr.take().unwrap()).lines();
        let mut seen = Vec::new();
        loop {
            match lines.next() {
                Some(Ok(line)) if line.contains("API listen on") => break,
                Some(Ok(line)) => seen.push(line),
                _ => panic!("dockerd ended; it needs root, and control groups:\n{}", seen.join("\n")),
            }
        }
        let said = std::thread::spawn(move || lines.for_each(drop));
        Self { folder, daemon, said: Some(said) }
    }

    fn socket(&self) -> String {
        format!("unix://{}", self.folder.path().join("sock").display())
    }

    async fn ask(&self, method: reqwest::Method, path: &str, body: Vec<u8>) -> Value {
        let client = reqwest::Client::builder().unix_socket(self.folder.path().join("sock")).build().unwrap();
        let kind = if body.starts_with(b"{") { "application/json" } else { "application/x-tar" };
        let request = client.request(method, format!("http://engine{path}")).header("content-type", kind).body(body);
        let answer = request.send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Makes an image that has nothing in it but busybox.
    async fn make_image(&self, name: &str) {
        let root = self.folder.path().join("root");
        std::fs::create_dir_all(root.join("bin")).unwrap();
        std::fs::create_dir_all(root.join("tmp")).unwrap();
        std::fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox: run scripts/setup.sh test");
        for applet in ["sh", "cat", "head", "id", "ls", "pwd", "sleep", "tail"] {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        let tar = Command::new("tar").arg("-C").arg(&root).args(["-c", "."]).output().unwrap();
        assert!(tar.status.success());
        let path = format!("/images/create?fromSrc=-&repo={name}&tag=latest");
        self.ask(reqwest::Method::POST, &path, tar.stdout).await;
    }

    async fn containers(&self) -> Vec<String> {
        let all = self.ask(reqwest::Method::GET, "/containers/json?all=true", Vec::new()).await;
        all.as_array().unwrap().iter().map(|one| one["Id"].as_str().unwrap().to_owned()).collect()
    }
}

impl Drop for RealEngine {
    fn drop(&mut self) {
        let id = Pid::from_child(&self.daemon);
        // It takes what it has started with it.
        let _ = rustix::process::kill_process(id, Signal::TERM);
        let _ = self.daemon.wait();
        if let Some(said) = self.said.take() {
            let _ = said.join();
        }
    }
}

fn has_no_processes_in(folder: &Path) -> bool {
    let names = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        std::fs::read(entry.path().join("cmdline")).ok().map(|line| String::from_utf8_lossy(&line).into_owned())
    });
    let place = folder.display().to_string();
    !names.into_iter().any(|line| line.contains(&place))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_engine_runs_containers() {
    if !rustix::process::geteuid().is_root() {
        // An engine needs root; an ordinary user has the tests above, with an engine that is played.
        eprintln!("not root: no engine can be started here");
        return;
    }
    let engine = RealEngine::start();
    engine.make_image("demo").await;
    let fixture = Fixture::new(
        &[("data/in.txt", "from the project\n")],
        &[("TOKEN", "hunter2"), ("DOCKER_HOST", &engine.socket())],
    );
    let task = |more: &str| {
        format!(
            "one:\n  env: {{ TOKEN: \"{{{{ secret_env('TOKEN') }}}}\" }}\n  docker: {{ image: demo, network: none, pull: never, {more} }}"
        )
    };
    // What it prints, and its output.
    let (outcome, lines) = fixture.run(&task("command: \"echo $TOKEN >&2; cat /data/in.txt; echo $FLUMEN_TASK; pwd\", mounts: [\"data:/data:ro\"], workdir: /tmp")).await;
    assert_eq!(outcome, Outcome::success("/tmp".into()), "{lines:?}");
    let of = |stream: &str| lines.iter().filter(|line| line.starts_with(stream)).cloned().collect::<Vec<_>>();
    assert_eq!(
        (of("Err"), of("Out")),
        (vec!["Err ***".to_owned()], ["Out from the project", "Out one", "Out /tmp"].map(str::to_owned).to_vec())
    );
    let output = fixture
        .output(&task("user: \"1000:1000\", command: \"id -u; echo '{\\\"rows\\\": 3}' > $FLUMEN_OUTPUT\""))
        .await;
    assert_eq!(output, json!({ "rows": 3 }));
    assert_eq!(fixture.output(&task("entrypoint: [/bin/busybox], command: [echo, \"a  b\"]")).await, json!("a  b"));
    let refused = fixture.failure(&task("command: \"echo x > /data/y\", mounts: [\"data:/data:ro\"]")).await;
    assert_eq!(refused.0, "exit");
    // How it ends.
    let (outcome, _) = fixture.run(&task("command: exit 3")).await;
    assert!(
        matches!(&outcome, Outcome::Failure(failure) if failure.exit_code == Some(3) && failure.kind == "exit"),
        "{outcome:?}"
    );
    assert!(matches!(fixture.run(&task("command: exit 99")).await.0, Outcome::Skipped { .. }));
    let (kind, message) = fixture.failure(&task("command: [/bin/nothing]")).await;
    assert!(kind == "invalid" && message.contains("/bin/nothing"), "{message}");
    let greedy = task("command: \"head -c 200000000 /dev/zero | tail -c 200000000 > /dev/null\"")
        .replace("docker:", "memory: 32MB\n  docker:");
    assert_eq!(fixture.failure(&greedy).await.0, "out_of_memory");
    let (kind, _) = fixture.failure(&task("command: x").replace("image: demo", "image: nothing-like-it")).await;
    assert_eq!(kind, "not_found");
    assert_eq!(engine.containers().await, Vec::<String>::new());
    // A container that was left by a worker that was killed goes, one of another task stays.
    let run = fixture.begin(&task("command: \"trap 'exit 0' TERM; echo begun; sleep 1000 & wait\"")).await;
    let left = |task: &str| {
        let labels = json!({ "flumen.run": run.id, "flumen.task": task });
        json!({ "Image": "demo", "Cmd": ["sleep", "1000"], "Labels": labels, "HostConfig": { "NetworkMode": "none" } })
    };
    let mut ids = Vec::new();
    for task in ["one", "two"] {
        let made = engine.ask(reqwest::Method::POST, "/containers/create", left(task).to_string().into_bytes()).await;
        ids.push(made["Id"].as_str().unwrap().to_owned());
        engine.ask(reqwest::Method::POST, &format!("/containers/{}/start", ids.last().unwrap()), Vec::new()).await;
    }
    // One that is cancelled is stopped and removed.
    let (work, cancel) = (fixture.work(&run, "one", 2), CancellationToken::new());
    let stop = async {
        fixture.seen.wait_for("Out begun").await;
        let there = engine.containers().await;
        assert!(there.len() == 2 && !there.contains(&ids[0]), "{there:?}");
        cancel.cancel();
    };
    let (outcome, ()) = tokio::join!(execute(&fixture.host, &work, &cancel), stop);
    assert_eq!(outcome, Outcome::Cancelled, "{:?}", fixture.lines());
    assert_eq!(engine.containers().await, [ids.remove(1)]);
    engine
        .ask(reqwest::Method::DELETE, &format!("/containers/{}?force=true", engine.containers().await[0]), Vec::new())
        .await;
    let folder = engine.folder.path().to_owned();
    drop(engine);
    assert!(has_no_processes_in(&folder));
}
