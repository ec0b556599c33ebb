//! `flumen store`: looking after the metadata database.

use std::path::PathBuf;
use std::sync::Arc;

use chrono::TimeDelta;
use flumen_core::task_kind::units::Period;
use flumen_core::{Error, Result};
use serde_json::json;

use crate::context::Context;
use crate::flows::roster::ProjectRoster;
use crate::flows::runtime::Flowing;
use crate::flows::{history, server};
use crate::metadata;
use crate::output::count;

/// The metadata database: flows, runs, users
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true, subcommand_required = true)]
pub struct StoreCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Copy the database to a file, as it is at one moment, also while a server works
    Backup {
        /// The file
        file: PathBuf,
    },
    /// Put a backup in the place of the database
    Restore {
        /// The file
        file: PathBuf,
        /// Also where there is a database already: it is kept beside the new one
        #[arg(long)]
        force: bool,
    },
    /// Forget runs that ended long ago, with their logs
    Prune {
        /// How old a run must be, such as 30d
        #[arg(long, value_name = "AGE", default_value = "90d")]
        older_than: Period,
    },
    /// Bring the database to the form of this version of Flumen (other commands do it too)
    Migrate,
}

impl StoreCommand {
    pub async fn run(self, context: &Context) -> Result<()> {
        match self.action {
            Action::Backup { file } => {
                metadata::backup(context.project()?.as_ref(), &file).await?;
                let text = format!("the database is copied to {}", file.display());
                context.output.done(&json!({ "file": file.display().to_string() }), text)
            }
            Action::Restore { file, force } => {
                let project = context.project()?;
                if server::current(&project)?.is_some() {
                    return Err(Error::conflict("a server works on this project").hint("stop it first"));
                }
                let kept = metadata::restore(&project, &file, force).await?;
                let mut text = format!("the database is that of {}", file.display());
                if let Some(kept) = &kept {
                    text.push_str(&format!("\nwhat was there before is {}", kept.display()));
                }
                let kept = kept.map(|kept| kept.display().to_string());
                context.output.done(&json!({ "file": file.display().to_string(), "before": kept }), text)
            }
            Action::Prune { older_than } => prune(older_than, context).await,
            Action::Migrate => {
                Flowing::open(context).await?;
                context.output.done(&json!({ "migrated": true }), "the database has the form of this version")
            }
        }
    }
}

async fn prune(older_than: Period, context: &Context) -> Result<()> {
    let flowing = Flowing::open(context).await?;
    let age = TimeDelta::from_std(older_than.0).map_err(|_| Error::invalid(format!("{older_than} is too long")))?;
    let roster = ProjectRoster::new(Arc::clone(&flowing), context);
    let forgotten = history::forget(&flowing, &roster, context.clock.now() - age, &context.cancel).await?;
    let text = match forgotten {
        0 => "no run is that old".to_owned(),
        1 => "1 run is forgotten".to_owned(),
        many => format!("{} runs are forgotten", count(many)),
    };
    context.output.done(&json!({ "runs": forgotten }), text)
}
