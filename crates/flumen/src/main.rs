//! The binary: it reads the command line, wires the parts together, and prints. It has no rules of its own.
//!
//! Start at `commands.rs` for what it can do, `context.rs` for what every command is given, `output.rs` for how it prints.

mod cli;
mod commands;
mod context;
mod destination;
mod door_files;
mod doors;
mod flows;
mod memory;
mod metadata;
mod origin;
mod output;
mod render;
mod repl;
mod sample_server;
mod tasks;

use std::process::ExitCode;

use clap::Parser as _;
use flumen_core::Error;
use flumen_worker::watchdog;

use crate::cli::Cli;
use crate::context::Context;
use crate::output::Output;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Bytes of stack for a worker thread: deep queries recurse, and debug builds need several times as much as release ones.
const THREAD_STACK_BYTES: usize = 8 << 20;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == watchdog::ARGUMENT) {
        watch_over(&arguments.next().unwrap_or_default().to_string_lossy());
        return ExitCode::SUCCESS;
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    flumen_project::tls::install_default_provider();
    let output = Output::new(&cli.global);
    match run(cli, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&error, &output),
    }
}

/// What a worker starts to end its processes should it be killed: it lives as long as the worker, in as little memory as may be, and so
/// without the command line's parser and the runtime.
fn watch_over(mark: &str) {
    memory::in_small_pages();
    memory::give_back();
    memory::forget_the_start();
    watchdog::watch(std::io::stdin().lock(), mark);
}

fn run(cli: Cli, output: Output) -> flumen_core::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(THREAD_STACK_BYTES)
        .build()
        .map_err(|error| Error::io("the threads of the runtime", error))?;
    let context = Context::new(cli.global, output);
    let result = runtime.block_on(async {
        if !cli.command.is_prompt() {
            context.cancel_on_signals();
        }
        cli.command.run(&context).await
    });
    // Downloads that nobody wants any more may still be running.
    context.close();
    // A thread that blocks in a read of the terminal or of a slow disk must not keep a finished command from ending.
    runtime.shutdown_background();
    result
}

/// Prints an error and gives the exit code of its kind. A reader of our output that has gone away is not an error.
fn report(error: &Error, output: &Output) -> ExitCode {
    if output::reader_has_gone(error) {
        return ExitCode::SUCCESS;
    }
    output.error(error);
    ExitCode::from(error.kind().exit_code())
}

/// Prints the help or the version that was asked for, or says what is wrong with the command line.
fn usage(error: &clap::Error) -> ExitCode {
    let wants_json = std::env::args_os().take_while(|argument| argument != "--").any(|argument| argument == "--json");
    if error.use_stderr() && wants_json {
        output::print_error_json(&cli::usage_error(error));
    } else {
        // Nothing can be done about a help text that nobody reads.
        let _ = error.print();
    }
    ExitCode::from(if error.use_stderr() { flumen_core::ErrorKind::Invalid.exit_code() } else { 0 })
}
