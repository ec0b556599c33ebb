//! A real Postgres server for tests: Debian's, in a folder of its own, on a port of its own, without the wish to survive.
//!
//! One server a test process, one database a test. A shell waits on a pipe that the test process holds open: when the
//! process ends, however it ends, the shell stops the server and removes its folder.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// A running server.
pub struct Server {
    /// Its port on loopback.
    pub port: u16,
    home: PathBuf,
    _watcher: Child,
}

/// The server of this process, started on first use.
pub fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::start().expect("Postgres starts: install Debian's package `postgresql`"))
}

/// The folder with `initdb` and `pg_ctl`.
fn binaries() -> PathBuf {
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .expect("/usr/lib/postgresql is there: install Debian's package `postgresql`")
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|folder| folder.join("initdb").exists())
        .collect();
    found.sort();
    found.pop().expect("a server is installed: Debian's package `postgresql`")
}

/// Postgres refuses to run as root: then it runs as another user.
fn as_other_user() -> Option<&'static str> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let is_root = status.lines().any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(2) == Some("0"));
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let has = |user: &str| users.lines().any(|line| line.split(':').next() == Some(user));
    is_root.then(|| if has("postgres") { "postgres" } else { "nobody" })
}

fn command(program: &Path) -> Command {
    match as_other_user() {
        Some(user) => {
            let mut command = Command::new("setpriv");
            command.args([
                "--reuid",
                user,
                "--regid",
                if user == "nobody" { "nogroup" } else { user },
                "--clear-groups",
            ]);
            command.arg(program);
            command
        }
        None => Command::new(program),
    }
}

fn run(command: &mut Command, log: &Path) -> bool {
    let log = std::fs::File::options().create(true).append(true).open(log).expect("a log");
    let errors = log.try_clone().expect("a log");
    command
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .status()
        .is_ok_and(|status| status.success())
}

impl Server {
    /// A new server, for a test that stops it.
    pub fn start() -> Option<Self> {
        let home = tempfile::Builder::new().prefix("flumen-pg").tempdir_in("/tmp").ok()?.keep();
        let (bin, data, log) = (binaries(), home.join("data"), home.join("log"));
        if let Some(user) = as_other_user() {
            Command::new("chown").arg(user).arg(&home).status().ok()?;
        }
        let mut watcher = Command::new("sh")
            .args(["-c", "read -r _; \"$@\" >/dev/null 2>&1; rm -rf \"$HOME_OF_SERVER\"", "sh"])
            .args(stop(&bin, &data))
            .env("HOME_OF_SERVER", &home)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Whoever kills the tests as a group must not kill it.
            .process_group(0)
            .spawn()
            .ok()?;
        if !make_data(&bin, &data, &log) {
            report(&log);
            return None;
        }
        // Another process may take the port between its choice and its use: then the next one.
        for _ in 0..10 {
            let port = std::net::TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port();
            if run(&mut start(&bin, &home, port), &log) {
                return Some(Self { port, home, _watcher: watcher });
            }
        }
        report(&home.join("server.log"));
        let _ = watcher.stdin.take().map(|mut pipe| pipe.write_all(b"\n"));
        None
    }

    /// Stops the server as a loss of power would.
    pub fn stop(&self) {
        let words = stop(&binaries(), &self.home.join("data"));
        assert!(run(Command::new(&words[0]).args(&words[1..]), &self.home.join("log")), "the server stops");
    }

    /// Starts the server that was stopped, on the same port.
    pub fn restart(&self) {
        assert!(run(&mut start(&binaries(), &self.home, self.port), &self.home.join("log")), "the server starts again");
    }

    /// Starts the server anew, with this certificate and its private key (PEM).
    pub async fn use_tls(&self, certificate: &str, key: &str) {
        let admin = connect(&self.url("postgres")).await;
        for (setting, name, text) in [("ssl_cert_file", "tls.crt", certificate), ("ssl_key_file", "tls.key", key)] {
            let path = self.home.join(name);
            std::fs::write(&path, text).expect("a file for the server");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))
                .expect("a file of the server's own");
            if let Some(user) = as_other_user() {
                assert!(Command::new("chown").arg(user).arg(&path).status().is_ok_and(|status| status.success()));
            }
            let set = format!("alter system set {setting} = '{}'", path.display());
            admin.batch_execute(&set).await.expect("a setting");
        }
        admin.batch_execute("alter system set ssl = on").await.expect("a setting");
        self.stop();
        self.restart();
    }

    /// A new, empty database, and the URL that reaches it.
    pub async fn database(&self) -> Database {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let admin = connect(&self.url("postgres")).await;
        admin.batch_execute(&format!("create database {name}")).await.expect("a database");
        Database { url: self.url(&name), client: connect(&self.url(&name)).await }
    }

    fn url(&self, database: &str) -> String {
        format!("postgresql://flumen@127.0.0.1:{}/{database}", self.port)
    }
}

/// Makes the folder of a new server. What `initdb` makes is kept beside the build, since copying is ten times faster.
fn make_data(bin: &Path, data: &Path, log: &Path) -> bool {
    let version = bin.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    let kept = beside_the_build().join(format!("postgres-{version}"));
    let copy = |from: &Path, to: &Path| run(Command::new("cp").arg("-a").arg(from).arg(to), log);
    if kept.join("PG_VERSION").exists() && copy(&kept, data) {
        return true;
    }
    let _ = std::fs::remove_dir_all(data);
    let mut init = command(&bin.join("initdb"));
    init.arg("-D").arg(data);
    init.args(["-U", "flumen", "-A", "trust", "-E", "UTF8", "--locale=C", "-N", "--no-instructions"]);
    if !run(&mut init, log) {
        return false;
    }
    // Other tests may do the same at the same time: the first to rename wins, and all are the same.
    let half = kept.with_extension(std::process::id().to_string());
    if !copy(data, &half) || std::fs::rename(&half, &kept).is_err() {
        let _ = std::fs::remove_dir_all(&half);
    }
    true
}

/// Shows what Postgres said.
#[allow(clippy::print_stderr, reason = "for whoever reads why the tests failed")]
fn report(log: &Path) {
    eprintln!("{}", std::fs::read_to_string(log).unwrap_or_default());
}

/// The folder for what tests keep from run to run: that of cargo, `target/tmp`, found from `target/debug/deps/it-…`.
fn beside_the_build() -> PathBuf {
    let program = std::env::current_exe().expect("a test has a program");
    let target = program.ancestors().nth(3).expect("a test is in the folder of the build");
    target.join("tmp")
}

/// The command that starts the server in `home`.
fn start(bin: &Path, home: &Path, port: u16) -> Command {
    let settings = format!(
        "-c port={port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={} -c fsync=off \
         -c full_page_writes=off -c synchronous_commit=off -c max_connections=200 -c shared_buffers=64MB \
         -c autovacuum=off -c logging_collector=off",
        home.display()
    );
    let mut start = command(&bin.join("pg_ctl"));
    start.arg("-D").arg(home.join("data")).arg("-l").arg(home.join("server.log"));
    start.arg("-o").arg(settings).args(["-w", "start"]);
    start
}

/// The command that stops the server at `data` at once.
fn stop(bin: &Path, data: &Path) -> Vec<std::ffi::OsString> {
    let mut stop = command(&bin.join("pg_ctl"));
    stop.arg("-D").arg(data).args(["-m", "immediate", "-w", "stop"]);
    std::iter::once(stop.get_program()).chain(stop.get_args()).map(Into::into).collect()
}

/// A connection to the database at `url`.
pub async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.expect("a connection");
    tokio::spawn(connection);
    client
}

/// A database of one test.
pub struct Database {
    /// How it is reached.
    pub url: String,
    /// A connection of the superuser.
    pub client: tokio_postgres::Client,
}

impl Database {
    /// Runs statements.
    pub async fn run(&self, sql: &str) {
        if let Err(error) = self.client.batch_execute(sql).await {
            panic!("{sql}: {error:?}");
        }
    }

    /// The answer to a query: a line a row, ` | ` between the values, `-` for null.
    pub async fn show(&self, sql: &str) -> String {
        let messages = match self.client.simple_query(sql).await {
            Ok(messages) => messages,
            Err(error) => panic!("{sql}: {error:?}"),
        };
        let line = |row: &tokio_postgres::SimpleQueryRow| {
            (0..row.len()).map(|i| row.get(i).unwrap_or("-").to_owned()).collect::<Vec<_>>().join(" | ")
        };
        let lines = messages.iter().filter_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => Some(line(row)),
            _ => None,
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}
