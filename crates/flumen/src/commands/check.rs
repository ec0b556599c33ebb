//! `flumen check`: everything that is wrong with the flows of a project, and with the SQL and Python in them.

mod languages;

use flumen_core::{Error, Result};
use serde_json::json;

use crate::context::Context;
use crate::flows::runtime::Flowing;

/// Check all flows: every mistake with file, line and column
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The exit code is 0 if all is well, and 2 if anything is wrong: fit for a pipeline of tests.
")]
pub struct CheckCommand {
    /// Only these flows, by name or by file [default: all]
    flows: Vec<String>,
    /// Count warnings as mistakes
    #[arg(long)]
    strict: bool,
    /// Print the JSON Schema of flow files instead, for editors
    #[arg(long)]
    schema: bool,
}

impl CheckCommand {
    pub async fn run(self, context: &Context) -> Result<()> {
        if self.schema {
            let checker = flumen_flow::definition::Checker::new(flumen_worker::kinds::known());
            return context.output.json(&checker.editor_schema());
        }
        let flowing = Flowing::open_files(context).await?;
        let found = flowing.flows().await?;
        let wanted = |name: &str, file: &str| {
            self.flows.is_empty() || self.flows.iter().any(|one| one == name || file.ends_with(one.as_str()))
        };
        for one in &self.flows {
            let is_file = found.mistakes.keys().any(|file| wanted("", file));
            if !is_file && !found.flows.values().any(|flow| flow.name == *one || flow.file.ends_with(one.as_str())) {
                found.flow(one)?;
            }
        }
        let bad: Vec<_> = found.mistakes.iter().filter(|(file, _)| wanted("", file)).collect();
        let good: Vec<_> = found.flows.values().filter(|flow| wanted(&flow.name, &flow.file)).collect();
        // SQL and Python are read also where something else is wrong.
        let partly = found.partly.iter().filter(|(file, _)| wanted("", file)).map(|(_, flow)| flow);
        let read: Vec<_> = good.iter().copied().chain(partly).collect();
        let (inner, left_out) = languages::mistakes(&read, &flowing.project).await;
        let mut mistakes: Vec<_> = bad.iter().flat_map(|(_, mistakes)| mistakes.iter()).chain(&inner).collect();
        mistakes.sort_by(|a, b| (&a.file, a.place).cmp(&(&b.file, b.place)));
        let warnings: Vec<_> = good.iter().flat_map(|flow| &flow.warnings).collect();
        let unread: Vec<String> = found.unread.iter().map(ToString::to_string).collect();
        let output = &context.output;
        if output.json {
            output.json(&json!({
                "flows": good.iter().map(|flow| &flow.name).collect::<Vec<_>>(),
                "mistakes": mistakes, "warnings": warnings, "unread": unread, "left_out": left_out,
            }))?;
        } else {
            for line in unread.iter().map(ToString::to_string).chain(mistakes.iter().map(ToString::to_string)) {
                output.line(line)?;
            }
            for warning in &warnings {
                output.warning(warning);
            }
        }
        if let Some(why) = left_out {
            output.warning(&why);
        }
        let count = mistakes.len() + unread.len() + if self.strict { warnings.len() } else { 0 };
        match count {
            0 => {
                output.note(match good.len() {
                    0 => "there are no flows: write one in flows/".to_owned(),
                    1 => "1 flow, no mistakes".to_owned(),
                    many => format!("{many} flows, no mistakes"),
                });
                Ok(())
            }
            1 => Err(Error::invalid("there is 1 mistake")),
            many => Err(Error::invalid(format!("there are {many} mistakes"))),
        }
    }
}
