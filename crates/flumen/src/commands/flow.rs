//! `flumen flow`: the flows of a project.

use flumen_core::flow::FlowName;
use flumen_core::flow::store::RunFilter;
use flumen_core::{Error, Result};
use flumen_flow::compiled::timetable_of;
use flumen_flow::definition::Flow;
use serde_json::json;

use crate::context::Context;
use crate::flows::runtime::Flowing;
use crate::flows::show;
use crate::flows::tree::{self, Branch};
use crate::output::Table;

/// The flows of the project: list, show, pause
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true, subcommand_required = true)]
pub struct FlowCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// All flows, with their schedules and latest runs
    List {
        /// Only those with this tag
        #[arg(long)]
        tag: Option<String>,
    },
    /// A flow: parameters, schedule, tasks
    Show {
        /// The flow
        flow: String,
    },
    /// What comes before what in a flow
    Graph {
        /// The flow
        flow: String,
        /// As a graph for Mermaid or Graphviz, in place of a tree
        #[arg(long, value_enum)]
        format: Option<GraphFormat>,
    },
    /// Begin no more scheduled runs of a flow
    Pause {
        /// The flow
        flow: String,
    },
    /// Begin scheduled runs of a flow again
    Resume {
        /// The flow
        flow: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum GraphFormat {
    Mermaid,
    Dot,
}

impl FlowCommand {
    pub async fn run(self, context: &Context) -> Result<()> {
        let flowing = Flowing::open(context).await?;
        match self.action {
            Action::List { tag } => list(&flowing, tag.as_deref(), context).await,
            Action::Show { flow } => {
                let paused = flowing.store.paused().await?;
                let flows = flowing.flows().await?;
                let flow = flows.flow(&flow)?;
                show_flow(flow, paused.iter().any(|name| name.as_str() == flow.name), context)
            }
            Action::Graph { flow, format } => graph(flowing.flows().await?.flow(&flow)?, format, context),
            Action::Pause { flow } => set_paused(&flowing, &flow, true, context).await,
            Action::Resume { flow } => set_paused(&flowing, &flow, false, context).await,
        }
    }
}

async fn list(flowing: &Flowing, tag: Option<&str>, context: &Context) -> Result<()> {
    let flows = flowing.flows().await?;
    let paused = flowing.store.paused().await?;
    let mut rows = Vec::new();
    for flow in flows.flows.values().filter(|flow| tag.is_none_or(|tag| flow.tags.iter().any(|own| own == tag))) {
        let filter = RunFilter { flow: Some(FlowName::from(&flow.name)), limit: Some(1), ..RunFilter::default() };
        let last = flowing.store.runs(&filter).await?.pop();
        let is_paused = paused.iter().any(|name| name.as_str() == flow.name);
        rows.push((flow, is_paused, last));
    }
    let output = &context.output;
    if output.json {
        let one = |(flow, is_paused, last): &(&std::sync::Arc<Flow>, bool, Option<flumen_core::flow::RunRecord>)| {
            json!({
                "flow": flow.name, "description": flow.description, "tags": flow.tags, "file": flow.file,
                "schedule": flow.schedule, "paused": is_paused, "tasks": flow.tasks.len(),
                "last_run": last.as_ref().map(|run| json!({ "id": run.id, "state": run.state })),
            })
        };
        return output.json(&json!({ "flows": rows.iter().map(one).collect::<Vec<_>>(), "broken": flows.mistakes.keys().collect::<Vec<_>>() }));
    }
    if rows.is_empty() && flows.mistakes.is_empty() {
        output.note("there are no flows: write one in flows/");
        return Ok(());
    }
    let mut table = Table::new(["flow", "schedule", "tasks", "latest run", "description"]);
    for (flow, is_paused, last) in rows {
        let schedule = flow.schedule.as_ref().map(|schedule| schedule.to_string()).unwrap_or_default();
        table.row([
            flow.name.clone(),
            if is_paused { format!("{schedule} (paused)") } else { schedule },
            flow.tasks.len().to_string(),
            last.map(|run| format!("{} {}", run.state, show::moment(run.created))).unwrap_or_default(),
            flow.description.clone().unwrap_or_default(),
        ]);
    }
    output.table(&table)?;
    for file in flows.mistakes.keys() {
        output.warning(format_args!("{file} has mistakes: flumen check"));
    }
    Ok(())
}

fn show_flow(flow: &Flow, is_paused: bool, context: &Context) -> Result<()> {
    let output = &context.output;
    let timetable = timetable_of(flow.schedule.as_ref())?;
    // A run is due at the end of its interval.
    let next = timetable.upcoming(context.clock.now()).next().map(|interval| interval.end).filter(|_| !is_paused);
    if output.json {
        let mut value =
            serde_json::to_value(flow).map_err(|error| Error::internal("a flow cannot be shown").caused_by(error))?;
        value["paused"] = is_paused.into();
        value["next"] = next.map(show::iso).into();
        return output.json(&value);
    }
    output.line(format_args!("{}: {}", flow.name, flow.description.as_deref().unwrap_or(&flow.file)))?;
    if let Some(schedule) = &flow.schedule {
        output.line(format_args!("schedule: {schedule}"))?;
        let bounds = [("start", schedule.start.as_deref()), ("end", schedule.end.as_deref())];
        for (name, text) in bounds.into_iter().filter_map(|(name, text)| Some((name, text?))) {
            output.line(format_args!("{name}: {text}"))?;
        }
        output.line(format_args!("catchup: {}", word(&schedule.catchup)))?;
        match (is_paused, next) {
            (true, _) => output
                .line(format_args!("next: none, since the flow is paused ('flumen flow resume {}')", flow.name))?,
            (false, Some(next)) => output.line(format_args!("next: {}", timetable.shown(next)))?,
            (false, None) if timetable.is_scheduled() && !timetable.is_continuous() => {
                output.line("next: none, since the schedule has ended")?
            }
            (false, None) => {}
        }
    } else if is_paused {
        output.line("paused: no scheduled run begins")?;
    }
    output.line(format_args!("max_active_runs: {} (on_overlap: {})", flow.max_active_runs, word(&flow.on_overlap)))?;
    if !flow.params.is_empty() {
        let mut table = Table::new(["parameter", "type", "default", "description"]);
        for param in &flow.params {
            let default =
                param.default.as_ref().map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
            table.row([
                param.name.clone(),
                serde_json::to_value(param.kind)
                    .ok()
                    .and_then(|kind| kind.as_str().map(str::to_owned))
                    .unwrap_or_default(),
                default.unwrap_or_else(|| if param.required { "(required)".to_owned() } else { String::new() }),
                param.description.clone().unwrap_or_default(),
            ]);
        }
        output.table(&table)?;
    }
    let mut table = Table::new(["task", "kind", "needs", "description"]);
    for task in &flow.tasks {
        table.row([
            task.id.clone(),
            task.kind.clone(),
            task.needs.join(", "),
            task.description.clone().unwrap_or_default(),
        ]);
    }
    output.table(&table)
}

fn graph(flow: &Flow, format: Option<GraphFormat>, context: &Context) -> Result<()> {
    let output = &context.output;
    if output.json {
        let edges = flow.tasks.iter().flat_map(|task| task.needs.iter().map(|need| [need.clone(), task.id.clone()]));
        let nodes: Vec<&str> = flow.tasks.iter().map(|task| task.id.as_str()).collect();
        return output.json(&json!({ "tasks": nodes, "edges": edges.collect::<Vec<_>>() }));
    }
    match format {
        Some(GraphFormat::Mermaid) => {
            output.line("graph LR")?;
            for task in &flow.tasks {
                output.line(format_args!("  {}[\"{}: {}\"]", plain(&task.id), task.id, task.kind))?;
                for need in &task.needs {
                    output.line(format_args!("  {} --> {}", plain(need), plain(&task.id)))?;
                }
            }
            Ok(())
        }
        Some(GraphFormat::Dot) => {
            output.line(format_args!("digraph \"{}\" {{", flow.name))?;
            for task in &flow.tasks {
                output.line(format_args!("  \"{}\" [label=\"{}\\n{}\"];", task.id, task.id, task.kind))?;
                for need in &task.needs {
                    output.line(format_args!("  \"{need}\" -> \"{}\";", task.id))?;
                }
            }
            output.line("}")
        }
        None => print_tree(flow, context),
    }
}

/// A tree; what else a task needs than the one above it stands beside it.
fn print_tree(flow: &Flow, context: &Context) -> Result<()> {
    for Branch { task, lead } in tree::of(flow) {
        let others = task.needs.len().saturating_sub(1);
        let others = if others > 0 { format!("  (needs {})", task.needs.join(", ")) } else { String::new() };
        context.output.line(format_args!("{lead}{}  {}{others}", task.id, task.kind))?;
    }
    Ok(())
}

/// The word for something in a flow's file.
fn word(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default()
}

/// A name as Mermaid takes it.
fn plain(name: &str) -> String {
    name.chars().map(|c| if c.is_alphanumeric() { c } else { '_' }).collect()
}

async fn set_paused(flowing: &Flowing, name: &str, paused: bool, context: &Context) -> Result<()> {
    let flow = flowing.flows().await?.flow(name)?.name.clone();
    flowing.store.set_paused(&FlowName::from(&flow), paused).await?;
    let text = match paused {
        true => format!("{flow} is paused: no scheduled run begins"),
        false => format!("{flow} goes on by its schedule"),
    };
    context.output.done(&json!({ "flow": flow, "paused": paused }), text)
}
