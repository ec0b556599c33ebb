//! `flumen serve`, for tests that connect to it.

use std::process::{Child, Command, Stdio};

use tokio_postgres::NoTls;

use crate::sandbox::Sandbox;

/// A server, which ends with this.
pub struct Server {
    child: Child,
    /// Its project.
    pub sandbox: Sandbox,
    /// The address of its Postgres door.
    pub pg: String,
    /// The address of its Flight SQL door.
    pub flight: String,
}

impl Server {
    /// A server of a project with two tables, with `options`.
    pub fn start(sandbox: Sandbox, options: &[&str]) -> Self {
        let ready = sandbox.path().join("ready");
        let mut command = sandbox.command(env!("CARGO_BIN_EXE_flumen"));
        command.args(["serve", "--pg", "127.0.0.1:0", "--flight", "127.0.0.1:0", "--ready-file", "ready"]);
        let mut child = command.args(options).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        while !ready.is_file() {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("the server ended: {status}");
            }
            std::thread::yield_now();
        }
        let text = std::fs::read_to_string(&ready).unwrap();
        let (pg, flight) = text.trim().split_once('\n').unwrap();
        Self { child, pg: pg.to_owned(), flight: flight.to_owned(), sandbox }
    }

    /// The address with a user in it.
    pub fn pg_as(&self, user: &str) -> String {
        self.pg.replace("postgres://", &format!("postgres://{user}@"))
    }

    pub async fn connect(&self, user: &str) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::connect(&self.pg_as(user), NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// What a line of psql prints.
    pub fn psql(&self, user: &str, commands: &str) -> String {
        let mut command = Command::new("psql");
        command.args(["-X", "-q", &self.pg_as(user)]).env("LC_ALL", "C.UTF-8").stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), commands.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    }

    /// The project of a server that has ended.
    pub fn into_sandbox(mut self) -> Sandbox {
        std::mem::replace(&mut self.sandbox, Sandbox::new())
    }

    /// Asks the server to end, and waits until it has.
    pub fn stop(&mut self) -> i32 {
        assert!(Command::new("kill").arg(self.child.id().to_string()).status().unwrap().success());
        self.child.wait().unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
