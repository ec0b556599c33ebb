//! A server that is a process: started by a test, ended with it.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A server. It reads its standard input and ends when that does, so that it cannot outlive the process of the test.
pub(crate) struct Server {
    /// Where it listens.
    pub(crate) url: String,
    child: Child,
}

impl Server {
    /// Starts `command`, and waits until it has printed the URL on which it listens.
    pub(crate) fn start(command: &mut Command) -> Self {
        let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = started.unwrap_or_else(|error| panic!("{:?}: {error}; {REMEDY}", command.get_program()));
        // Passed on, not inherited: whoever waits for the test to close its output must not wait for the server.
        let said = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        std::thread::spawn(move || said.for_each(report));
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let url = lines.find_map(|line| line.find("listens on http://").map(|at| line[at + 11..].to_owned()));
        let url = url.unwrap_or_else(|| panic!("{:?} does not start; {REMEDY}", command.get_program()));
        // What it still prints must go somewhere.
        std::thread::spawn(move || lines.for_each(drop));
        Self { url, child }
    }
}

#[allow(clippy::print_stderr, reason = "for whoever reads why the tests failed")]
fn report(line: String) {
    eprintln!("{line}");
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const REMEDY: &str = "`scripts/setup.sh test` installs what the tests need";

/// The folder of an installed tool, as `scripts/setup.sh` knows it.
pub(crate) fn tool(name: &str) -> PathBuf {
    let tools = match std::env::var_os("FLUMEN_TEST_TOOLS") {
        Some(tools) => PathBuf::from(tools),
        None => {
            PathBuf::from(std::env::var_os("HOME").as_deref().unwrap_or(OsStr::new("/"))).join(".cache/flumen/tools")
        }
    };
    let folder = tools.join(name);
    assert!(folder.is_dir(), "{} is not there; {REMEDY}", folder.display());
    folder
}
