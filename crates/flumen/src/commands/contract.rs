//! `flumen contract`: write a first contract from data, and check one.

use std::path::{Path, PathBuf};

use flumen_core::contract::{Contract, ContractColumn, TypeName};
use flumen_core::text::join;
use flumen_core::{Error, Result};

use super::ingest::FormatOptions;
use crate::context::Context;
use crate::origin::Origins;
use crate::output::counted;

/// Contracts: infer one from files, check one
#[derive(Debug, clap::Args)]
pub struct ContractCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Write a first contract for these files: names, types, and the names that differ only in case as aliases
    Infer {
        /// The files
        #[arg(required = true, value_name = "SOURCE")]
        sources: Vec<String>,
        /// Where to write it [default: standard output]
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
        #[command(flatten)]
        format: Box<FormatOptions>,
    },
    /// Check contracts for mistakes that can be seen without data
    Check {
        /// The files
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

impl ContractCommand {
    /// Does it.
    pub async fn run(self, context: &Context) -> Result<()> {
        match self.action {
            Action::Infer { sources, output, format } => infer(&sources, output.as_deref(), &format, context).await,
            Action::Check { files } => check(&files, context),
        }
    }
}

/// The contract in `path`; a bare name means a file in the project's `contracts/`.
///
/// Errors: `NotFound`, and `Invalid` with the place of every mistake.
pub fn read(path: &Path, context: &Context) -> Result<Contract> {
    let path = find(path, context)?;
    let text = std::fs::read_to_string(&path).map_err(|error| Error::io(path.display(), error))?;
    flumen_project::contracts::parse(&path.display().to_string(), &text)
}

fn find(path: &Path, context: &Context) -> Result<PathBuf> {
    if path.exists() {
        return Ok(path.to_owned());
    }
    if let Some(project) = context.maybe_project()? {
        for name in [path.to_owned(), path.with_extension("yml"), path.with_extension("yaml")] {
            let inside = project.dir().join("contracts").join(name);
            if inside.exists() {
                return Ok(inside);
            }
        }
    }
    Err(Error::not_found(format!("there is no contract {}", path.display()))
        .hint("'flumen contract infer FILE' writes a first one"))
}

async fn infer(sources: &[String], output: Option<&Path>, format: &FormatOptions, context: &Context) -> Result<()> {
    let origins = Origins::new(context)?;
    let options = format.read_options()?;
    let mut contract = Contract::default();
    for source in sources {
        for input in origins.open(source, &options).await? {
            for field in input.schema().fields() {
                let name = field.name().trim();
                let column = contract.column_mut(name);
                if column.name != name && !column.aliases.iter().any(|alias| alias == name) {
                    column.aliases.push(name.to_owned());
                }
                let known = column.data_type.take().map_or(arrow::datatypes::DataType::Null, |known| known.0);
                column.data_type = Some(TypeName(join(&known, field.data_type())));
            }
        }
    }
    for column in &mut contract.columns {
        // Without a value there is no type to promise.
        let unknown = |name: &TypeName| name.0 == arrow::datatypes::DataType::Null;
        if column.data_type.as_ref().is_some_and(unknown) {
            column.data_type = None;
        }
    }
    if context.output.json {
        return context.output.json(&contract);
    }
    let text = as_yaml(&contract);
    match output {
        None => context.output.bytes(text.as_bytes()),
        Some(path) => {
            if path.exists() {
                return Err(Error::conflict(format!("{} is there already", path.display()))
                    .hint("choose another name, or remove it"));
            }
            std::fs::write(path, text).map_err(|error| Error::io(path.display(), error))?;
            context.output.note(format_args!(
                "wrote {}: {}",
                path.display(),
                counted(contract.columns.len() as u64, "column")
            ));
            Ok(())
        }
    }
}

/// A contract as a person would write it: one line a column.
fn as_yaml(contract: &Contract) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut text = String::from(
        "# A first contract, inferred from data. docs/contracts.md says what else it can hold.\nmode: evolve\ncolumns:\n",
    );
    let line = |column: &ContractColumn| {
        let mut parts = vec![format!("name: {}", quoted(&column.name))];
        if let Some(data_type) = &column.data_type {
            parts.push(format!("type: {}", quoted(&String::from(data_type.clone()))));
        }
        if !column.aliases.is_empty() {
            let aliases: Vec<String> = column.aliases.iter().map(|alias| quoted(alias)).collect();
            parts.push(format!("aliases: [{}]", aliases.join(", ")));
        }
        format!("  - {{ {} }}\n", parts.join(", "))
    };
    text.extend(contract.columns.iter().map(line));
    text
}

fn check(files: &[PathBuf], context: &Context) -> Result<()> {
    for file in files {
        let contract = read(file, context)?;
        context.output.note(format_args!(
            "{}: {}, no mistakes",
            file.display(),
            counted(contract.columns.len() as u64, "column")
        ));
    }
    Ok(())
}
