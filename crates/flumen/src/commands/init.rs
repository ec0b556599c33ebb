//! `flumen init [DIR]`: makes a project.

use std::path::PathBuf;

use flumen_core::Result;
use flumen_project::scaffold::create_project;
use flumen_project::{PROJECT_FILE, Project};

use crate::context::{Context, current_dir};

/// Make a project: flumen.yml, and folders for contracts and flows
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Files that are there already are left as they are. In a folder that holds a project nothing is changed.

Examples:
  flumen init            a project in this folder
  flumen init taxi       a project in the folder taxi, which is made if need be
")]
pub struct InitCommand {
    /// The folder [default: this one]
    dir: Option<PathBuf>,
}

impl InitCommand {
    /// Makes it, and says what was made.
    pub async fn run(self, context: &Context) -> Result<()> {
        let here = current_dir()?;
        let dir = self.dir.map_or_else(|| here.clone(), |dir| here.join(dir));
        let above = Project::find(&dir)?;
        let files = create_project(&dir)?;
        let created = !files.is_empty();
        if context.output.json {
            return context.output.json(&serde_json::json!({ "dir": dir, "created": created, "files": files }));
        }
        if !created {
            return context.output.line(format!("{} is a project already; nothing was changed", dir.display()));
        }
        if let Some(above) = above {
            context.output.warning(format!(
                "this project is inside another, that of {}; commands in this folder use the inner one",
                above.join(PROJECT_FILE).display()
            ));
        }
        context.output.line(format!("made a project in {}", dir.display()))?;
        for file in files.iter().filter(|file| !file.ends_with(".gitkeep")) {
            context.output.line(format!("  {file}"))?;
        }
        context.output.line("  contracts/")?;
        let go = if dir == here { String::new() } else { format!("cd {} && ", shown(&dir, &here)) };
        context
            .output
            .note(format!("try next: {go}flumen ingest FILE --to lake.raw.TABLE, or the example in flows/taxi.yml"));
        Ok(())
    }
}

/// The folder as one would type it from `here`.
fn shown(dir: &std::path::Path, here: &std::path::Path) -> String {
    dir.strip_prefix(here).unwrap_or(dir).display().to_string()
}
