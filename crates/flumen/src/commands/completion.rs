//! `flumen completion SHELL`: the script that makes a shell complete Flumen's commands and options.

use clap_complete::Shell;
use flumen_core::Result;

use crate::cli;
use crate::context::Context;

/// Print the completion script of a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bash:  flumen completion bash > ~/.local/share/bash-completion/completions/flumen
  zsh:   flumen completion zsh > \"${fpath[1]}/_flumen\"
  fish:  flumen completion fish > ~/.config/fish/completions/flumen.fish
")]
pub struct CompletionCommand {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

impl CompletionCommand {
    /// Prints the script to standard output.
    pub async fn run(self, context: &Context) -> Result<()> {
        // Made in memory first: clap_complete panics when the reader of a pipe goes away.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut cli::definition(), "flumen", &mut script);
        context.output.bytes(&script)
    }
}
