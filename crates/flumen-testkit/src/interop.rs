//! Programs that read and write Delta tables: the packages `deltalake`, `polars` and `pysail` of Python, installed by
//! `scripts/setup.sh test`, and the scripts in `tests/interop` that use them.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::tool;

/// Runs the script `tests/interop/<name>` in `folder`; gives what it printed.
///
/// Panics, with all that it said, if it fails.
#[track_caller]
pub fn run(name: &str, arguments: &[&str], folder: &Path) -> String {
    let script = scripts().join(name);
    let mut command = Command::new("python3");
    command.arg(&script).args(arguments).current_dir(folder);
    command
        .env("PYTHONPATH", tool("interop").join("packages"))
        .env("PYTHONWARNINGS", "ignore")
        .env("RUST_LOG", "error");
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    let output = command.output().expect("python3 is installed");
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name} {arguments:?}: {said}{complained}");
    said.into_owned()
}

fn scripts() -> PathBuf {
    Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../../tests/interop")
}
