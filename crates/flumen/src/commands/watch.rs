//! The hidden command that watches over a worker.

use flumen_core::Result;

/// Watch over a worker (started by it)
#[derive(Debug, clap::Args)]
pub struct WatchCommand {
    /// What the worker's processes are known by
    mark: String,
}

impl WatchCommand {
    /// Reads which process groups run from standard input, and ends them with it.
    pub fn run(self) -> Result<()> {
        crate::memory::in_small_pages();
        crate::memory::give_back();
        flumen_worker::watchdog::watch(std::io::stdin().lock(), &self.mark);
        Ok(())
    }
}
