//! `flumen doctor`: looks whether everything that commands need is in place.

use std::path::{Path, PathBuf};
use std::time::Duration;

use flumen_core::{Error, Result};
use flumen_project::store::store_error;
use flumen_project::{Check, PROJECT_FILE, Project, StoreAt};
use object_store::ObjectStoreExt as _;
use serde_json::json;

use crate::context::Context;
use crate::flows::situation;
use crate::output::{self, Color, paint};

/// Look whether everything is in place: project, lake, disk, connections
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The exit code is 0 if nothing failed; warnings do not count. Otherwise it is that of the first failure.

Examples:
  flumen doctor
  flumen doctor --json
")]
pub struct DoctorCommand {
    /// Leave out what needs the network: the connections, and a lake in a bucket
    #[arg(long)]
    offline: bool,
}

/// Less free disk than this is worth a warning, in bytes.
const LITTLE_DISK: u64 = 1_000_000_000;
/// How long one connection may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What was looked at, and what was found.
struct Finding {
    name: String,
    outcome: Outcome,
}

enum Outcome {
    Good(String),
    Warning(String, &'static str),
    Failed(Error),
}

impl From<Result<String>> for Outcome {
    fn from(result: Result<String>) -> Self {
        result.map_or_else(Outcome::Failed, Outcome::Good)
    }
}

impl DoctorCommand {
    /// Looks at everything, prints what it found, and ends with an error if something failed.
    pub async fn run(self, context: &Context) -> Result<()> {
        let mut findings = vec![program()];
        let project = self.project(context, &mut findings);
        let temporary = project.as_ref().map(|project| project.spool());
        let temporary = temporary.unwrap_or(Ok(None)).map(|folder| folder.unwrap_or_else(std::env::temp_dir));
        match temporary {
            Ok(folder) => findings.extend(folder_findings("temporary files", &folder, context)),
            Err(error) => {
                findings.push(Finding { name: "temporary files".to_owned(), outcome: Outcome::Failed(error) })
            }
        }
        if let Some(project) = &project {
            self.lake(project, context, &mut findings).await;
            self.connections(project, context, &mut findings).await?;
        }
        print(&findings, context)?;
        verdict(findings)
    }

    fn project(&self, context: &Context, findings: &mut Vec<Finding>) -> Option<std::sync::Arc<Project>> {
        let (project, outcome) = match context.maybe_project() {
            Ok(Some(project)) => {
                let said = format!("'{}' in {}", project.name(), project.dir().display());
                (Some(project), Outcome::Good(said))
            }
            Ok(None) => {
                let hint = "'flumen init' makes one; 'sql' and 'ingest' over files work without";
                (None, Outcome::Warning(format!("none: there is no {PROJECT_FILE} here or in a folder above"), hint))
            }
            Err(error) => (None, Outcome::Failed(error)),
        };
        findings.push(Finding { name: "project".to_owned(), outcome });
        project
    }

    async fn lake(&self, project: &Project, context: &Context, findings: &mut Vec<Finding>) {
        let name = "lake".to_owned();
        match project.lake() {
            Err(error) => findings.push(Finding { name, outcome: Outcome::Failed(error) }),
            Ok(lake) => match lake.url.to_file_path() {
                // Without the slash that a folder's URL ends with.
                Ok(folder) => {
                    findings.extend(folder_findings("lake", &folder.components().collect::<PathBuf>(), context))
                }
                Err(()) if self.offline => {}
                Err(()) => findings.push(Finding { name, outcome: bucket_is_writable(&lake, context).await.into() }),
            },
        }
    }

    async fn connections(&self, project: &Project, context: &Context, findings: &mut Vec<Finding>) -> Result<()> {
        for connection in project.connections() {
            let name = format!("connection {}", connection.name());
            if let Some(field) = connection.secrets_in_clear().first() {
                findings.push(Finding {
                    name: name.clone(),
                    outcome: Outcome::Warning(
                        format!("'{field}' is in {PROJECT_FILE} in clear"),
                        "write {{ secret_env('NAME') }} there, and put the secret into .env",
                    ),
                });
            }
            if self.offline {
                continue;
            }
            let checks = tokio::select! {
                checks = tokio::time::timeout(PATIENCE, connection.test()) => checks,
                () = context.cancel.cancelled() => return Err(Error::cancelled()),
            };
            let late = || {
                let error = Error::unavailable(format!("no answer within {} seconds", PATIENCE.as_secs()));
                vec![Check {
                    what: "reach it".to_owned(),
                    outcome: Err(error.hint("check its address and the network")),
                }]
            };
            for check in checks.unwrap_or_else(|_| late()) {
                let outcome = check.outcome.map(|said| format!("{}: {said}", check.what)).into();
                findings.push(Finding { name: name.clone(), outcome });
            }
        }
        Ok(())
    }
}

fn program() -> Finding {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let said =
        format!("{}, {} cores, {} {}", env!("CARGO_PKG_VERSION"), cores, std::env::consts::OS, std::env::consts::ARCH);
    Finding { name: "flumen".to_owned(), outcome: Outcome::Good(said) }
}

/// Whether files can be made in a folder (or in the nearest one above that is there), and how much room they have.
fn folder_findings(name: &str, folder: &Path, context: &Context) -> Vec<Finding> {
    let there = nearest_folder(folder);
    let probe = there.join(format!(".flumen-doctor-{}", context.ids.next()));
    let written = std::fs::File::create_new(&probe).and_then(|_| std::fs::remove_file(&probe));
    let outcome = match written {
        Ok(()) if there == folder => Outcome::Good(format!("{} can be written", folder.display())),
        Ok(()) => Outcome::Good(format!("{} can be made", folder.display())),
        Err(error) => Outcome::Failed(Error::io(there.display(), error)),
    };
    let mut findings = vec![Finding { name: name.to_owned(), outcome }];
    if let Some(free) = situation::free_bytes(&there) {
        let said = format!("{} free on the disk of {}", output::bytes(free), folder.display());
        let outcome = if free < LITTLE_DISK {
            Outcome::Warning(said, "free some space before large loads")
        } else {
            Outcome::Good(said)
        };
        findings.push(Finding { name: name.to_owned(), outcome });
    }
    findings
}

fn nearest_folder(folder: &Path) -> PathBuf {
    folder.ancestors().find(|folder| folder.is_dir()).unwrap_or(folder).to_owned()
}

/// Writes an object below the place, and removes it again.
async fn bucket_is_writable(place: &StoreAt, context: &Context) -> Result<String> {
    let probe = place.path.clone().join(format!("_flumen_doctor_{}", context.ids.next()));
    let failed = |error| store_error(place.url.as_str(), error);
    let write = async {
        place.store.put(&probe, "flumen doctor".into()).await.map_err(failed)?;
        place.store.delete(&probe).await.map_err(failed)?;
        Ok(format!("{} can be written", place.url))
    };
    tokio::select! {
        written = tokio::time::timeout(PATIENCE, write) => written.unwrap_or_else(|_| {
            Err(Error::unavailable(format!("{}: no answer within {} seconds", place.url, PATIENCE.as_secs())))
        }),
        () = context.cancel.cancelled() => Err(Error::cancelled()),
    }
}

fn print(findings: &[Finding], context: &Context) -> Result<()> {
    if context.output.json {
        let finding = |finding: &Finding| {
            let (status, message, hint) = match &finding.outcome {
                Outcome::Good(said) => ("ok", said.as_str(), None),
                Outcome::Warning(said, hint) => ("warning", said.as_str(), Some(*hint)),
                Outcome::Failed(error) => ("failed", error.message(), error.remedy()),
            };
            json!({ "name": finding.name, "status": status, "message": message, "hint": hint })
        };
        let ok = !findings.iter().any(|finding| matches!(finding.outcome, Outcome::Failed(_)));
        return context.output.json(&json!({ "ok": ok, "checks": findings.iter().map(finding).collect::<Vec<_>>() }));
    }
    let width = findings.iter().map(|finding| finding.name.len()).max().unwrap_or_default();
    for Finding { name, outcome } in findings {
        let (status, color, message, hint) = match outcome {
            Outcome::Good(said) => ("ok", Color::Green, said.as_str(), None),
            Outcome::Warning(said, hint) => ("warning", Color::Yellow, said.as_str(), Some(*hint)),
            Outcome::Failed(error) => ("failed", Color::Red, error.message(), error.remedy()),
        };
        let status = paint(&format!("{status:<7}"), color, context.output.stdout_colors);
        context.output.line(format!("{status}  {name:<width$}  {message}"))?;
        if let Some(hint) = hint {
            context.output.line(format!("{:9}{:width$}  hint: {hint}", "", ""))?;
        }
    }
    Ok(())
}

fn verdict(findings: Vec<Finding>) -> Result<()> {
    let all = findings.len();
    let failed: Vec<Error> = findings
        .into_iter()
        .filter_map(|finding| match finding.outcome {
            Outcome::Failed(error) => Some(error),
            _ => None,
        })
        .collect();
    match failed.first() {
        None => Ok(()),
        Some(first) => {
            let said = if failed.len() == 1 { "one".to_owned() } else { failed.len().to_string() };
            Err(Error::new(first.kind(), format!("{said} of {all} checks failed")).hint("see the lines above"))
        }
    }
}
