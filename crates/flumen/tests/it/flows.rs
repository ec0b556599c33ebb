//! Flows, run by the binary: here, by servers, and under faults.

mod chaos;
mod disk;
mod faults;
mod here;
mod languages;
mod machines;
mod servers;
mod there;
mod told;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::sandbox::{Ran, Sandbox};

/// A project with these files.
fn project(files: &[(&str, &str)]) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("flumen.yml", "name: test\n");
    for (name, text) in files {
        sandbox.write(name, text);
    }
    sandbox
}

/// What a command with `--json` printed.
#[track_caller]
fn json(sandbox: &Sandbox, line: &str) -> Value {
    let mut command = sandbox.command("sh");
    let output = command.args(["-c", &format!("flumen --json {line}")]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{line}: {error}: {text}\n{}", String::from_utf8_lossy(&output.stderr)))
}

/// A command that succeeds.
#[track_caller]
fn succeed(sandbox: &Sandbox, line: &str) -> Ran {
    let ran = sandbox.sh(line);
    assert_eq!(ran.code, 0, "{line}: {}\n{}", ran.stderr, ran.stdout);
    ran
}

/// The states of the tasks of a run, as `load success`.
fn states(run: &Value) -> Vec<String> {
    let tasks = run["tasks"].as_array().unwrap();
    tasks.iter().map(|task| format!("{} {}", task["task"].as_str().unwrap(), task["state"].as_str().unwrap())).collect()
}

/// A server of a project, which ends with this.
struct Server(Child);

impl Server {
    /// Starts `flumen ARGUMENTS`, and waits until it is ready.
    fn start(sandbox: &Sandbox, arguments: &[&str]) -> Self {
        Self::start_with(sandbox, arguments, &[])
    }

    /// The same, with environment variables.
    fn start_with(sandbox: &Sandbox, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::start_by(sandbox, &[], arguments, environment)
    }

    /// The same, by a program that becomes the one whose name and arguments follow its own.
    fn start_by(sandbox: &Sandbox, by: &[&str], arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let name = format!("ready-{}", arguments.join("-").replace(['/', ' ', ':'], "_"));
        let ready = sandbox.path().join(&name);
        let _ = std::fs::remove_file(&ready);
        let whole: Vec<&str> = by.iter().copied().chain([env!("CARGO_BIN_EXE_flumen")]).collect();
        let mut command = sandbox.command(whole[0]);
        command.args(&whole[1..]).args(arguments).args(["--ready-file", &name]).envs(environment.iter().copied());
        let log =
            std::fs::OpenOptions::new().create(true).append(true).open(sandbox.path().join("server.log")).unwrap();
        let mut child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        wait_until(|| {
            if let Some(status) = child.try_wait().unwrap() {
                let said = std::fs::read_to_string(sandbox.path().join("server.log")).unwrap_or_default();
                panic!("the server ended: {status}: {said}");
            }
            ready.is_file()
        });
        Self(child)
    }

    /// The number of its process.
    fn id(&self) -> u32 {
        self.0.id()
    }

    /// Sends a signal.
    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([&format!("-{name}"), &self.0.id().to_string()]).status().unwrap().success());
    }

    /// Asks it to end, and waits until it has; its exit code.
    fn stop(&mut self) -> i32 {
        self.signal("TERM");
        self.0.wait().unwrap().code().unwrap_or(-1)
    }

    /// Ends it at once.
    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How long something may take that nothing waits for but a test: a test that hangs would hold all others up.
const PATIENCE: Duration = Duration::from_secs(600);

/// Waits until there is a file.
#[track_caller]
fn wait_for(path: &Path) {
    wait_until(|| path.exists());
}

/// Waits until `condition` holds.
#[track_caller]
#[expect(clippy::disallowed_methods, reason = "processes take real time")]
fn wait_until(mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "what is waited for did not come");
        std::thread::yield_now();
    }
}

/// Whether a process runs. One that has ended, and that nobody has asked for, does not.
fn is_alive(process: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with(['Z', 'X']))
}
