//! What is seen of a load while it runs: bars on a terminal, a line a file elsewhere, nothing with `--quiet` or `--json`.

use std::io::IsTerminal as _;
use std::sync::{Arc, Mutex, PoisonError};

use flumen_core::observe::{Event, Observer};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::output::{Output, counted};

/// More files than this share one bar.
const BARS: usize = 8;

/// Shows a load.
pub trait Show: Observer {
    /// The load is over: what is left of the show is cleared away.
    fn end(&self);
}

/// The show that fits where standard error goes.
pub fn observer(output: &Output) -> Arc<dyn Show> {
    let output = *output;
    if output.quiet || output.json {
        Arc::new(Lines { output, addresses: Mutex::default(), silent: true })
    } else if std::io::stderr().is_terminal() {
        Arc::new(Bars { output, bars: MultiProgress::new(), files: Mutex::default() })
    } else {
        Arc::new(Lines { output, addresses: Mutex::default(), silent: false })
    }
}

fn name(address: &str) -> &str {
    address.rsplit('/').next().unwrap_or(address)
}

/// A line when a file is done.
struct Lines {
    output: Output,
    addresses: Mutex<Vec<String>>,
    silent: bool,
}

impl Observer for Lines {
    fn observe(&self, event: Event) {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Warning(text) => self.output.warning(text),
            _ if self.silent => {}
            Event::Found(found) => *addresses = found.into_iter().map(|(address, _)| address).collect(),
            Event::Finished { input, rows } => {
                let address = addresses.get(input).map_or("", String::as_str);
                self.output.note(format_args!("{}: {}", name(address), counted(rows, "row")));
            }
            Event::Skipped { address, why } => self.output.note(format_args!("{}: left out, {why}", name(&address))),
            Event::Note(text) => self.output.note(text),
            Event::Progress { .. } => {}
        }
    }
}

impl Show for Lines {
    fn end(&self) {}
}

/// A bar for each file, or one for all.
struct Bars {
    output: Output,
    bars: MultiProgress,
    files: Mutex<Files>,
}

#[derive(Default)]
struct Files {
    bars: Vec<ProgressBar>,
    seen: Vec<(u64, u64)>,
}

impl Bars {
    fn bar(&self, label: String, size: Option<u64>) -> ProgressBar {
        let template = match size {
            Some(_) => "{prefix:28!} {bar:24.cyan} {decimal_bytes:>10} {decimal_bytes_per_sec:>12} {eta:>4}  {msg}",
            None => "{prefix:28!} {spinner} {decimal_bytes:>10} {decimal_bytes_per_sec:>12}  {msg}",
        };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = size.map_or_else(ProgressBar::no_length, ProgressBar::new);
        let bar = self.bars.add(bar.with_style(style));
        bar.set_prefix(label);
        bar
    }
}

impl Observer for Bars {
    fn observe(&self, event: Event) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Found(found) => {
                files.seen = vec![(0, 0); found.len()];
                files.bars = if found.len() <= BARS {
                    found.iter().map(|(address, size)| self.bar(name(address).to_owned(), *size)).collect()
                } else {
                    let all: Option<u64> = found.iter().map(|(_, size)| *size).sum();
                    vec![self.bar(counted(found.len() as u64, "file"), all)]
                };
            }
            Event::Progress { input, bytes, rows } => {
                let Files { bars, seen } = &mut *files;
                let Some(entry) = seen.get_mut(input) else { return };
                // A file that had to wait for its turn is not slow.
                if *entry == (0, 0)
                    && let Some(bar) = bars.get(input)
                {
                    bar.reset_elapsed();
                    bar.reset_eta();
                }
                *entry = (bytes.max(entry.0), rows.max(entry.1));
                let (bytes, rows) = if bars.len() == seen.len() {
                    seen[input]
                } else {
                    seen.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
                };
                let bar = if bars.len() == seen.len() { bars.get(input) } else { bars.first() };
                if let Some(bar) = bar {
                    bar.set_position(bytes);
                    bar.set_message(counted(rows, "row"));
                }
            }
            Event::Finished { input, .. } if files.bars.len() == files.seen.len() => {
                if let Some(bar) = files.bars.get(input) {
                    bar.abandon();
                }
            }
            Event::Finished { .. } => {}
            Event::Skipped { address, why } => {
                self.bars.suspend(|| self.output.note(format_args!("{}: left out, {why}", name(&address))));
            }
            Event::Note(text) => self.bars.suspend(|| self.output.note(text)),
            Event::Warning(text) => self.bars.suspend(|| self.output.warning(text)),
        }
    }
}

impl Show for Bars {
    fn end(&self) {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        for bar in &files.bars {
            bar.finish_and_clear();
        }
    }
}
