//! The transcripts. A new one is a file in `tests/cli/` and a line here.

use crate::sandbox::{Sandbox, check_transcript};

#[test]
fn init() {
    check_transcript("init");
}

#[test]
fn connections() {
    check_transcript("connections");
}

#[test]
fn doctor() {
    check_transcript("doctor");
}

#[test]
fn errors() {
    check_transcript("errors");
}

#[test]
fn folders_give_columns_and_files_have_options() {
    check_transcript("sql_folders");
}

#[test]
fn a_star_leaves_out_what_a_load_adds() {
    check_transcript("sql_star");
}

#[test]
fn a_closed_pipe_ends_quietly() {
    // `true` reads nothing; the script is far larger than a pipe holds.
    let ran = Sandbox::new().sh("flumen completion bash | true; flumen completion zsh | head -1");
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    assert_eq!(ran.stdout, "#compdef flumen\n");
}

#[test]
fn every_shell_has_a_completion() {
    let sandbox = Sandbox::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = sandbox.flumen(["completion", shell]);
        assert_eq!(ran.code, 0, "{shell}");
        assert!(ran.stdout.contains("connection"), "{shell}");
    }
}

#[test]
fn every_command_has_help_with_examples() {
    let sandbox = Sandbox::new();
    let help = sandbox.flumen(["--help"]);
    assert_eq!(help.code, 0);
    for command in ["init", "connection", "doctor", "completion"] {
        assert!(help.stdout.contains(&format!("\n  {command} ")), "{command}");
        let ran = sandbox.flumen([command, "--help"]);
        assert_eq!(ran.code, 0, "{command}");
    }
    assert_eq!(sandbox.flumen(["--version"]).stdout, "flumen [VERSION]\n");
}
