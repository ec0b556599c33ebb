//! `flumen render`: what the templates of a flow become.

use flumen_core::Result;
use flumen_core::flow::{Origin, RunRecord, RunState, TaskKey};
use flumen_flow::template::Renderer;
use flumen_worker::templates::Seen;
use serde_json::{Map, Value, json};

use crate::context::Context;
use crate::flows::runtime::Flowing;
use crate::flows::start::{self, RunOptions};
use crate::output::{Color, paint};

/// Show what the templates of a flow become, without running it
#[derive(Debug, clap::Args)]
pub struct RenderCommand {
    /// The flow
    flow: String,
    /// Only this task
    #[arg(long, value_name = "TASK")]
    task: Option<String>,
    #[command(flatten)]
    options: RunOptions,
}

impl RenderCommand {
    pub async fn run(self, context: &Context) -> Result<()> {
        let flowing = Flowing::open_files(context).await?;
        let (new, flow) = start::new_run(&self.flow, &self.options, Default::default(), &flowing, context).await?;
        let now = context.clock.now();
        let record = RunRecord {
            id: new.id,
            flow: new.flow,
            version: new.version,
            deployment: new.deployment,
            interval: new.interval,
            params: new.params,
            origin: Origin::Person { name: String::new() },
            state: RunState::Queued,
            cause: String::new(),
            cancelling: None,
            timed_out: false,
            stop_at: None,
            created: now,
            started: None,
            ended: None,
        };
        let version = flowing.library.version(&record.version, &*flowing.store).await?;
        let seen = Seen { run: &record, version: &version, project: &flowing.project, now };
        let mut all = Map::new();
        if let Some(task) = self.task.as_deref().filter(|task| flow.task(task).is_none()) {
            return Err(flumen_core::Error::not_found(format!("flow '{}' has no task '{task}'", flow.name))
                .did_you_mean(task, flow.tasks.iter().map(|task| task.id.as_str())));
        }
        for task in flow.tasks.iter().filter(|task| self.task.as_deref().is_none_or(|wanted| wanted == task.id)) {
            let key = TaskKey::new(&task.id);
            let renderer = Renderer::new(seen.context(Some(&key), 1, Default::default())?);
            let kind = flowing.library.kind(&task.kind)?;
            // What comes from tasks before, or from the item of a list, is known only when it runs.
            let unknown = |error: flumen_core::Error| Value::from(error.message());
            let mut shown = match flumen_worker::render(&**kind, &renderer, task) {
                Ok(rendered) => rendered.shown,
                Err(error) => json!({ "not known before it runs": unknown(error) }),
            };
            for file in kind.uses(&shown).files.into_iter().filter(|file| file.is_template) {
                let name = file.name.text;
                let text = flumen_worker::render_file(&version, flowing.project.dir(), &renderer, &name);
                shown[&name] = text.map_or_else(unknown, |text| text.shown.into());
            }
            all.insert(task.id.clone(), json!({ task.kind.clone(): shown }));
        }
        let output = &context.output;
        if output.json {
            return output.json(&all);
        }
        output.line(format_args!("# {} for {}", flow.name, crate::flows::show::interval(&record.interval)))?;
        for (task, value) in &all {
            output.line(format_args!("{}:", paint(task, Color::Bold, output.stdout_colors)))?;
            lines(value, 1, context)?;
        }
        Ok(())
    }
}

/// A value as YAML would have it.
fn lines(value: &Value, depth: usize, context: &Context) -> Result<()> {
    let indent = "  ".repeat(depth);
    let entries: Vec<(String, &Value)> = match value {
        Value::Object(map) => map.iter().map(|(key, value)| (format!("{key}:"), value)).collect(),
        Value::Array(items) => items.iter().map(|item| ("-".to_owned(), item)).collect(),
        other => return context.output.line(format_args!("{indent}{other}")),
    };
    for (key, value) in entries {
        match value {
            Value::Object(_) | Value::Array(_) => {
                context.output.line(format_args!("{indent}{key}"))?;
                lines(value, depth + 1, context)?;
            }
            Value::String(text) if text.contains('\n') => {
                context.output.line(format_args!("{indent}{key} |"))?;
                for line in text.lines() {
                    context.output.line(format_args!("{indent}  {line}"))?;
                }
            }
            Value::String(text) => context.output.line(format_args!("{indent}{key} {text}"))?,
            other => context.output.line(format_args!("{indent}{key} {other}"))?,
        }
    }
    Ok(())
}
