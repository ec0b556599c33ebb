//! Runs the real binary in a folder of its own, and holds what it says against what was written down.
//!
//! A transcript (`tests/cli/<name>.txt`) is shell commands with what they print. `check_transcript` runs them all in one
//! empty folder, in order:
//!
//! ```text
//! ## a comment
//! $ flumen init taxi
//! made a project in [DIR]/taxi        <- standard output
//! ! try next: …                       <- standard error
//! [exit 2]                            <- an exit code other than 0
//! $ cat > x.csv <<END                 <- lines after the first begin with '> '
//! > a,b
//! > END
//! ```
//!
//! What changes from run to run is replaced: the folder by `[DIR]`, ids by `[ID]`, durations by `[TIME]`, sizes of the free
//! disk by `[SIZE]`. `UPDATE_EXPECT=1 cargo nextest run -p flumen` writes the transcripts anew; read them before you commit.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// An empty folder, with an environment in which nothing of the machine's shows.
pub struct Sandbox {
    dir: tempfile::TempDir,
    variables: Vec<(String, String)>,
}

/// What a command printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// Its exit code; -1 if a signal ended it.
    pub code: i32,
    /// Its standard output, filtered.
    pub stdout: String,
    /// Its standard error, filtered.
    pub stderr: String,
}

impl Sandbox {
    /// A new one.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(dir.path().join("work")).expect("a folder in it");
        Self { dir, variables: Vec::new() }
    }

    /// Sets an environment variable for all commands.
    #[allow(dead_code, reason = "for the tests that need it")]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The folder in which commands run.
    pub fn path(&self) -> PathBuf {
        // Resolved, as the program sees it.
        self.dir.path().join("work").canonicalize().expect("it is there")
    }

    /// Writes a file, and the folders it needs.
    #[allow(dead_code, reason = "for the tests that need it")]
    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        std::fs::write(path, contents).expect("written");
    }

    /// A command of the program, to be given arguments and whatever else it needs.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let bin = Path::new(env!("CARGO_BIN_EXE_flumen")).parent().expect("a folder");
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .current_dir(self.path())
            .env_clear()
            .env("PATH", format!("{}:{path}", bin.display()))
            .env("HOME", self.dir.path())
            .env("LC_ALL", "C.UTF-8")
            .env("TMPDIR", std::env::temp_dir())
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    /// Runs the program with `arguments`.
    #[allow(dead_code, reason = "for the tests that need it")]
    pub fn flumen<const N: usize>(&self, arguments: [&str; N]) -> Ran {
        let mut command = self.command(env!("CARGO_BIN_EXE_flumen"));
        self.ran(command.args(arguments))
    }

    /// Runs a line of shell, in which `flumen` is the program.
    pub fn sh(&self, line: &str) -> Ran {
        let mut command = self.command("sh");
        self.ran(command.args(["-c", line]))
    }

    fn ran(&self, command: &mut Command) -> Ran {
        let output = command.output().expect("it starts");
        let filtered = |bytes: &[u8]| self.filtered(&String::from_utf8_lossy(bytes));
        Ran {
            code: output.status.code().unwrap_or(-1),
            stdout: filtered(&output.stdout),
            stderr: filtered(&output.stderr),
        }
    }

    /// The text without what changes from run to run.
    fn filtered(&self, text: &str) -> String {
        let text = text.replace(&self.path().display().to_string(), "[DIR]");
        let text = text.replace(&format!(" {}", std::env::temp_dir().display()), " [TMP]");
        let text = text.replace(&format!("\"{} ", std::env::temp_dir().display()), "\"[TMP] ");
        let text = text.replace(env!("CARGO_PKG_VERSION"), "[VERSION]");
        FILTERS.with(|filters| {
            filters.iter().fold(text, |text, (pattern, with)| pattern.replace_all(&text, *with).into_owned())
        })
    }
}

thread_local! {
    static FILTERS: Vec<(regex::Regex, &'static str)> = [
        (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "[ID]"),
        (r"\b[0-9]+ min [0-9]{2} s\b|\b[0-9.]+ (ms|s)\b", "[TIME]"),
        (r"[0-9.]+ [kMGTPE]?B free", "[SIZE] free"),
        (r"127\.0\.0\.1:[0-9]+", "127.0.0.1:[PORT]"),
        (r"[0-9]+ cores, [a-z]+ [a-z0-9_]+", "[CORES] cores, [MACHINE]"),
    ]
    .into_iter()
    .map(|(pattern, with)| (regex::Regex::new(pattern).expect("a pattern"), with))
    .collect();
}

/// Runs the transcript `tests/cli/<name>.txt` in an empty folder.
pub fn check_transcript(name: &str) {
    check_transcript_in(name, &Sandbox::new());
}

/// Runs the transcript in a folder that was prepared.
pub fn check_transcript_in(name: &str, sandbox: &Sandbox) {
    let path = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("tests/cli").join(format!("{name}.txt"));
    let expect = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let got = replay(&expect, sandbox);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, &got).expect("written");
    } else {
        assert!(got == expect, "{} differs.\n--- expected\n{expect}\n--- got\n{got}", path.display());
    }
}

/// The transcript with what its commands print now.
fn replay(transcript: &str, sandbox: &Sandbox) -> String {
    let mut got = String::new();
    let mut lines = transcript.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(first) = line.strip_prefix("$ ") else {
            // Comments, and the blank lines before them, stay; what was printed is printed anew.
            let before_comment = line.is_empty() && lines.peek().is_some_and(|next| next.starts_with("## "));
            if line.starts_with("## ") || before_comment {
                got.push_str(&format!("{line}\n"));
            }
            continue;
        };
        let mut script = first.to_owned();
        got.push_str(&format!("{line}\n"));
        while let Some(more) = lines.next_if(|line| line.starts_with("> ") || *line == ">") {
            script.push('\n');
            script.push_str(more.strip_prefix("> ").unwrap_or_default());
            got.push_str(&format!("{more}\n"));
        }
        let ran = sandbox.sh(&script);
        got.push_str(&ran.stdout);
        if !ran.stdout.is_empty() && !ran.stdout.ends_with('\n') {
            got.push_str("[no newline]\n");
        }
        for line in ran.stderr.lines() {
            got.push_str(format!("! {line}").trim_end());
            got.push('\n');
        }
        if ran.code != 0 {
            got.push_str(&format!("[exit {}]\n", ran.code));
        }
    }
    got
}
