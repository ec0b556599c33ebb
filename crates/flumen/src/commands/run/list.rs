//! `flumen run list`.

use flumen_core::Result;
use flumen_core::flow::store::RunFilter;
use flumen_core::flow::{FlowName, RunState};

use crate::context::Context;
use crate::flows::runtime::Flowing;
use crate::flows::show;
use crate::output::{Table, duration};

/// Runs that are shown, unless told otherwise.
const RUNS: usize = 20;

/// The latest runs
#[derive(Debug, clap::Args)]
pub struct ListCommand {
    /// Only those of this flow
    #[arg(long)]
    flow: Option<String>,
    /// Only those in one of these states: queued, running, success, failed, cancelled, paused
    #[arg(long, value_name = "STATE", value_delimiter = ',')]
    state: Vec<String>,
    /// Only those of this backfill
    #[arg(long, value_name = "ID")]
    backfill: Option<String>,
    /// Only those of this deployment
    #[arg(long, value_name = "NAME")]
    deployment: Option<String>,
    /// How many; 0 for all
    #[arg(long, short = 'n', value_name = "N", default_value_t = RUNS)]
    limit: usize,
}

impl ListCommand {
    pub async fn run(self, context: &Context) -> Result<()> {
        let flowing = Flowing::open(context).await?;
        let filter = RunFilter {
            flow: self.flow.map(FlowName::from),
            states: self.state.iter().map(|state| state.parse()).collect::<Result<Vec<RunState>>>()?,
            backfill: self.backfill,
            deployment: self.deployment,
            limit: (self.limit > 0).then_some(self.limit),
            ..RunFilter::default()
        };
        let runs = flowing.store.runs(&filter).await?;
        if context.output.json {
            let mut rows = Vec::with_capacity(runs.len());
            for run in &runs {
                rows.push(show::run_json(run, &flowing.secret_params(run).await));
            }
            return context.output.json(&rows);
        }
        if runs.is_empty() {
            context.output.note("there are no such runs");
            return Ok(());
        }
        let mut table = Table::new(["run", "flow", "interval (UTC)", "state", "took", "began (UTC)", "by"]);
        for run in runs {
            let end = run.ended.unwrap_or_else(|| context.clock.now());
            let took = run.started.map(|began| duration((end - began).to_std().unwrap_or_default()));
            let began = run.started.map(|at| at.format("%Y-%m-%d %H:%M:%S").to_string());
            table.row([
                show::short(run.id),
                run.deployment.map_or(run.flow.to_string(), |name| format!("{} ({name})", run.flow)),
                show::interval(&run.interval),
                run.state.to_string(),
                took.unwrap_or_default(),
                began.unwrap_or_default(),
                show::origin(&run.origin),
            ]);
        }
        context.output.table(&table)
    }
}
