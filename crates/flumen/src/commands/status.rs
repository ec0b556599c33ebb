//! `flumen status`: what a project is doing.

use flumen_core::Result;
use flumen_core::flow::RunState;
use flumen_core::flow::store::RunFilter;
use serde_json::json;

use crate::context::Context;
use crate::flows::runtime::Flowing;
use crate::flows::{show, situation};
use crate::output::{count, duration};

/// Runs that are shown of each state.
const SHOWN: usize = 10;

/// What the project is doing now: server, workers, runs, pools
#[derive(Debug, clap::Args)]
pub struct StatusCommand {}

impl StatusCommand {
    pub async fn run(self, context: &Context) -> Result<()> {
        let flowing = Flowing::open(context).await?;
        let server = situation::server(&flowing, context.clock.now()).await?;
        let now = context.clock.now();
        let workers = situation::workers(&flowing, now).await?;
        let of_state = |states: Vec<RunState>, limit| RunFilter { states, limit, ..RunFilter::default() };
        let active = flowing.store.runs(&of_state(vec![RunState::Running, RunState::Paused], None)).await?;
        let queued = flowing.store.runs(&of_state(vec![RunState::Queued], Some(1_000))).await?;
        let failed = flowing.store.runs(&of_state(vec![RunState::Failed], Some(SHOWN))).await?;
        let pools = flowing.store.pools().await?;
        let asked = situation::asked(&flowing).await?;
        let output = &context.output;
        if output.json {
            let run = |run: &flumen_core::flow::RunRecord| json!({ "id": run.id, "flow": run.flow, "state": run.state, "cause": run.cause });
            return output.json(&json!({
                "server": server,
                "workers": workers.iter().map(|worker| json!({ "id": worker.id, "slots": worker.slots, "pools": worker.pools, "draining": worker.draining })).collect::<Vec<_>>(),
                "active": active.iter().map(run).collect::<Vec<_>>(),
                "queued": queued.len(),
                "failed": failed.iter().map(run).collect::<Vec<_>>(),
                "approvals": asked.iter().map(|asked| json!({ "run": asked.run, "task": asked.key, "question": asked.question })).collect::<Vec<_>>(),
                "disk_full": situation::disk_is_full(&flowing.project),
                "waiting_tasks": pools.iter().map(|pool| pool.queued).sum::<u64>(),
            }));
        }
        match &server {
            Some(server) if server.addresses.is_empty() => {
                let on = server.host.as_ref().map(|host| format!(" on {host}")).unwrap_or_default();
                output.line(format_args!("server: process {}{on}", server.process))?
            }
            Some(server) => {
                output.line(format_args!("server: process {}, at {}", server.process, server.addresses.join(", ")))?
            }
            None => output.line("server: none ('flumen up' starts one)")?,
        }
        output.line(format_args!("workers: {}", workers.len()))?;
        if situation::disk_is_full(&flowing.project) {
            output.line(situation::FULL)?;
        }
        output.line(format_args!(
            "runs: {} active, {} queued",
            count(active.len() as u64),
            count(queued.len() as u64)
        ))?;
        for run in active.iter().take(SHOWN) {
            let took =
                run.started.map(|began| duration((now - began).to_std().unwrap_or_default())).unwrap_or_default();
            output.line(format_args!(
                "  {}  {}  {}  {took}",
                show::short(run.id),
                run.flow,
                show::interval(&run.interval)
            ))?;
        }
        if !active.is_empty() && situation::is_forsaken(&flowing, now).await? {
            output.line("  nobody works on them: 'flumen up' goes on, or 'flumen run resume RUN'")?;
        }
        if !asked.is_empty() {
            output.line("waiting for an answer (flumen run approve RUN/TASK):")?;
            for asked in &asked {
                output.line(format_args!("  {}/{}  {}", show::short(asked.run), asked.key, asked.question))?;
            }
        }
        for pool in pools.iter().filter(|pool| pool.queued > 0) {
            output.line(format_args!(
                "pool {}: {} slots in use, {} waiting",
                pool.pool.name,
                pool.used,
                count(pool.queued)
            ))?;
        }
        if !failed.is_empty() {
            output.line("failed last:")?;
            for run in &failed {
                output.line(format_args!(
                    "  {}  {}  {}  {}",
                    show::short(run.id),
                    run.flow,
                    show::interval(&run.interval),
                    run.cause
                ))?;
            }
        }
        Ok(())
    }
}
