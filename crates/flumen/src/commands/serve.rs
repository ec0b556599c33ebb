//! `flumen serve`: the doors for SQL clients.

use std::net::SocketAddr;
use std::path::PathBuf;

use flumen_core::{Error, Result};

use crate::context::Context;
use crate::doors::{DoorOptions, announce};
use crate::memory;

/// Serve the lake to SQL clients: psql, SQLAlchemy, JDBC, pandas and whatever else speaks Postgres
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Without users ('flumen user add') nobody has to log in, and only this computer is listened to. With --tls-cert, every
client must use TLS. 'flumen up' opens the doors too, and runs flows besides.

Examples:
  flumen serve
  flumen serve --flight 127.0.0.1:5440
  flumen serve --pg 0.0.0.0:5439 --tls-cert server.crt --tls-key server.key
  psql -h 127.0.0.1 -p 5439 lake
")]
pub struct ServeCommand {
    /// Where Postgres' clients come to; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:5439", help_heading = "Doors")]
    pg: SocketAddr,
    #[command(flatten)]
    doors: DoorOptions,
    /// Write the addresses to this file as soon as they can be reached; removed at the end
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

impl ServeCommand {
    /// Serves until it is cancelled, which is its normal end.
    pub async fn run(self, context: &Context) -> Result<()> {
        // What an earlier server left behind when it was killed must not be taken for this one's addresses.
        if let Some(stale) = self.ready_file.as_deref().filter(|path| path.is_file()) {
            std::fs::remove_file(stale).map_err(|error| Error::io(stale.display(), error))?;
        }
        memory::for_queries();
        let doors = self.doors.open(Some(self.pg), self.doors.flight, context).await?;
        if let Some(path) = &self.ready_file {
            announce(path, &doors.addresses.lines())?;
        }
        let output = &context.output;
        if output.json {
            output.json(&doors.addresses.json())?;
        } else {
            output.line(doors.addresses.lines().trim_end())?;
            if let Some(pg) = &doors.addresses.pg {
                output.note(format_args!("connect with: psql {pg}; Ctrl-C ends the server"));
            }
        }
        if doors.is_open_to_all {
            output.note("there are no users: nobody has to log in, and only this computer is listened to");
        }
        let (served, maintained) =
            tokio::join!(doors.serve(context.cancel.clone()), self.doors.maintain(&context.cancel, context));
        let () = served;
        maintained?;
        if let Some(path) = &self.ready_file {
            std::fs::remove_file(path).map_err(|error| Error::io(path.display(), error))?;
        }
        Ok(())
    }
}
