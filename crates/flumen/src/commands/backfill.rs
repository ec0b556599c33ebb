//! `flumen backfill`: runs for many intervals.

use std::sync::Arc;

use flumen_core::flow::RunState;
use flumen_core::flow::store::{Backfill, BackfillState, RunFilter, Wake};
use flumen_core::{Error, ErrorKind, Result};
use flumen_flow::definition::params::Given;
use flumen_flow::timetable::dates::Stretch;
use flumen_scheduler::backfill::{self, Reprocess, Wish};
use flumen_scheduler::{Entry, Roster as _};
use flumen_worker::host::Unwatched;
use flumen_worker::worker::Only;
use futures::StreamExt as _;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::flows::names::person;
use crate::flows::roster::ProjectRoster;
use crate::flows::runtime::{DRAIN, Flowing, Wishes, WorkerOptions, services, worker};
use crate::flows::{show, situation};
use crate::output::{Table, count, counted};

/// Run a flow for many intervals, as if its schedule had always been there
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    arg_required_else_help = true,
    after_help = "\
Examples:
  flumen backfill yellow_taxi --from 2019-01 --to 2019-12 --dry-run
  flumen backfill yellow_taxi --from 2019-01 --to 2021-07 --max-active 4
  flumen backfill yellow_taxi --from 2020-01 --to 2020-03 --reprocess failed
  flumen backfill list

A server that works on the project does it; else it is done here.
"
)]
pub struct BackfillCommand {
    #[command(subcommand)]
    action: Option<Action>,
    /// The flow
    #[arg(required = true)]
    flow: Option<String>,
    /// The first start of an interval [default: that of the schedule]
    #[arg(long, value_name = "DATE")]
    from: Option<String>,
    /// The last start of an interval [default: the last that is complete]
    #[arg(long, value_name = "DATE")]
    to: Option<String>,
    /// What of the intervals that have a run already is run again: none, failed, all
    #[arg(long, value_name = "WHICH", default_value = "none")]
    reprocess: String,
    /// The last interval first
    #[arg(long)]
    reverse: bool,
    /// How many runs are active at once [default: as many as the flow allows]
    #[arg(long, value_name = "N")]
    max_active: Option<u32>,
    /// A parameter, as NAME=VALUE
    #[arg(short = 'p', long = "param", value_name = "NAME=VALUE", value_parser = crate::flows::start::parameter)]
    params: Vec<(String, String)>,
    /// The named copy of the flow that is run
    #[arg(long, value_name = "NAME")]
    deployment: Option<String>,
    /// Only tell what would be run
    #[arg(long)]
    dry_run: bool,
    /// Leave it to the server, and do not wait for its end
    #[arg(long)]
    detach: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// All backfills
    List,
    /// A backfill and its runs
    Show {
        /// The backfill: the beginning of its id
        id: String,
    },
    /// Begin no more runs of a backfill for now
    Pause {
        /// The backfill: the beginning of its id
        id: String,
    },
    /// Let a backfill go on
    Resume {
        /// The backfill: the beginning of its id
        id: String,
    },
    /// Stop a backfill and its runs
    Cancel {
        /// The backfill: the beginning of its id
        id: String,
    },
}

impl BackfillCommand {
    pub async fn run(self, context: &Context) -> Result<()> {
        let flowing = Flowing::open(context).await?;
        let store = &*flowing.store;
        match &self.action {
            Some(Action::List) => return list(&flowing, context).await,
            Some(Action::Show { id }) => return shown(&flowing, &backfill::find(store, id).await?, context).await,
            Some(Action::Pause { id }) => return said(&backfill::pause(store, id).await?, context),
            Some(Action::Resume { id }) => return said(&backfill::resume(store, id).await?, context),
            Some(Action::Cancel { id }) => {
                let now = context.clock.now();
                return said(&backfill::cancel(store, id, &person(), now).await?, context);
            }
            None => {}
        }
        flowing.apply_pools().await?;
        let roster = Arc::new(ProjectRoster::new(Arc::clone(&flowing), context));
        roster.read().await?;
        let name = self.flow.clone().unwrap_or_default();
        let flow = flowing.flows().await?.flow(&name)?.name.clone();
        if let Some(deployment) = &self.deployment {
            // What is wrong with its file, or the nearest name.
            flowing.flows().await?.deployment(deployment)?;
        }
        let entry = roster.find(&flow.as_str().into(), self.deployment.as_deref()).ok_or_else(|| {
            let deployment = self.deployment.as_deref().unwrap_or_default();
            Error::not_found(format!("flow '{flow}' has no deployment '{deployment}'"))
                .hint("'flumen deploy list' shows them")
        })?;
        let wish = self.wish(&entry, context)?;
        if self.dry_run {
            let plan = backfill::plan(store, &*roster, &entry, &wish, context.clock.now()).await?;
            return planned(&plan, wish.reprocess, &entry, context);
        }
        let made = backfill::create(store, &*roster, &*context.ids, &entry, &wish, context.clock.now()).await?;
        context.output.note(format_args!("backfill {}: {}", short(&made), counted(made.total, "run")));
        if made.total == 0 {
            let plan = backfill::plan(store, &*roster, &entry, &wish, context.clock.now()).await?;
            context.output.note(nothing_to_do(&plan, wish.reprocess));
        }
        if self.detach || situation::server(&flowing, context.clock.now()).await?.is_some() {
            if self.detach {
                return match context.output.json {
                    true => context.output.json(&made),
                    false => context.output.line(&made.id),
                };
            }
            return follow(&flowing, made, &Only::default(), context).await;
        }
        let only = Arc::new(Only::default());
        let host = flowing.host(context, Arc::new(Unwatched), Wishes::default())?;
        let services = services(&host, roster, context.output);
        let options = WorkerOptions {
            pools: Vec::new(),
            only: Arc::clone(&only),
            announced: false,
            schedules: false,
            commanded: true,
            slots: None,
            lease: None,
            drain: DRAIN,
        };
        // Nothing is taken before a run of the backfill is there.
        only.add(flumen_core::flow::RunId::fresh(context.ids.next()));
        let worker = worker(&host, options, context);
        let stop = CancellationToken::new();
        let scheduling = tokio::spawn({
            let stop = stop.clone();
            async move { services.run_backfills(&stop).await }
        });
        let working = tokio::spawn({
            let stop = stop.clone();
            async move { worker.run(&stop).await }
        });
        let followed = follow(&flowing, made, &only, context).await;
        stop.cancel();
        // What they wanted to do is in the store.
        let _ = tokio::join!(scheduling, working);
        followed
    }

    fn wish(&self, entry: &Entry, context: &Context) -> Result<Wish> {
        let zone = entry.timetable.zone();
        let stretch =
            |text: &str, option: &str| Stretch::parse(text, zone).map_err(|error| error.within(option.to_owned()));
        let from = match &self.from {
            Some(text) => stretch(text, "--from")?.first,
            None => entry.timetable.all().next().map(|first| first.start).ok_or_else(|| {
                Error::invalid(format!("the schedule of '{}' has no beginning", entry.label())).hint("give --from")
            })?,
        };
        let to = match &self.to {
            Some(text) => stretch(text, "--to")?.after - chrono::TimeDelta::microseconds(1),
            None => context.clock.now(),
        };
        let given: Vec<(String, Given)> =
            self.params.iter().map(|(name, value)| (name.clone(), Given::Text(value.clone()))).collect();
        let mut params = Map::new();
        for (name, value) in given {
            let spec = entry.flow.flow.params.iter().find(|spec| spec.name == name);
            let read = match (spec, value) {
                (Some(spec), Given::Text(text)) => spec.read(&text).map_err(|problem| {
                    flumen_flow::definition::params::explain(&format!("flow '{}'", entry.label()), &[problem])
                })?,
                (_, Given::Text(text)) => Value::from(text),
                (_, Given::Value(value)) => value,
            };
            params.insert(name, read);
        }
        if from > to {
            return Err(
                Error::invalid("--to is before --from").hint("both are starts of intervals: the first, and the last")
            );
        }
        if self.max_active == Some(0) {
            return Err(Error::invalid("--max-active 0 would run nothing")
                .hint("pause the backfill instead: flumen backfill pause ID"));
        }
        Ok(Wish {
            from,
            to,
            reprocess: Reprocess::parse(&self.reprocess)?,
            reverse: self.reverse,
            max_active: self.max_active,
            params,
            by: person(),
        })
    }
}

fn short(backfill: &Backfill) -> String {
    backfill.id.chars().take(12).collect()
}

fn word(state: BackfillState) -> &'static str {
    match state {
        BackfillState::Running => "running",
        BackfillState::Paused => "paused",
        BackfillState::Done => "done",
        BackfillState::Cancelled => "cancelled",
    }
}

fn said(backfill: &Backfill, context: &Context) -> Result<()> {
    if context.output.json {
        return context.output.json(backfill);
    }
    context.output.note(format_args!("backfill {} is {}", short(backfill), word(backfill.state)));
    Ok(())
}

/// Why a backfill has no runs.
fn nothing_to_do(plan: &backfill::Plan, reprocess: Reprocess) -> String {
    match (plan.intervals, reprocess) {
        (0, _) => "no complete interval of the schedule starts from --from to --to: 'flumen schedule preview' shows which there are".to_owned(),
        (1, Reprocess::None) => "the interval has a run already: --reprocess failed or all runs it again".to_owned(),
        (many, Reprocess::None) => {
            format!("all {} intervals have runs already: --reprocess failed or all runs them again", count(many))
        }
        (many, _) => format!("none of the {} intervals has a run that failed", count(many)),
    }
}

fn planned(plan: &backfill::Plan, reprocess: Reprocess, entry: &Entry, context: &Context) -> Result<()> {
    let output = &context.output;
    if output.json {
        let one = |interval: &flumen_core::flow::Interval| json!({ "start": show::iso(interval.start), "end": show::iso(interval.end) });
        return output.json(&json!({
            "flow": entry.label(), "intervals": plan.intervals, "runs": plan.runs, "params": plan.params,
            "first": plan.first.iter().map(one).collect::<Vec<_>>(),
        }));
    }
    output.line(format_args!(
        "{}: {}, {}",
        entry.label(),
        counted(plan.intervals, "interval"),
        counted(plan.runs, "run")
    ))?;
    if plan.runs == 0 {
        output.note(nothing_to_do(plan, reprocess));
    }
    for interval in &plan.first {
        output.line(format_args!("  {}", show::interval(interval)))?;
    }
    let more = plan.runs.saturating_sub(plan.first.len() as u64);
    if more > 0 {
        output.line(format_args!("  and {} more", count(more)))?;
    }
    Ok(())
}

/// How the runs of a backfill are.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Progress {
    succeeded: u64,
    failed: u64,
    cancelled: u64,
    open: u64,
}

async fn progress(flowing: &Flowing, backfill: &Backfill, only: &Only) -> Result<Progress> {
    let mut progress = Progress::default();
    let mut after = None;
    loop {
        let filter = RunFilter {
            backfill: Some(backfill.id.clone()),
            oldest_first: true,
            after,
            limit: Some(1_000),
            ..RunFilter::default()
        };
        let runs = flowing.store.runs(&filter).await?;
        for run in &runs {
            only.add(run.id);
            match run.state {
                RunState::Success => progress.succeeded += 1,
                RunState::Failed => progress.failed += 1,
                RunState::Cancelled => progress.cancelled += 1,
                _ => progress.open += 1,
            }
        }
        after = runs.last().map(|run| run.id);
        if runs.len() < 1_000 {
            return Ok(progress);
        }
    }
}

/// Follows a backfill to its end. Ctrl-C cancels it.
async fn follow(flowing: &Arc<Flowing>, made: Backfill, only: &Only, context: &Context) -> Result<()> {
    let mut wakes = flowing.store.wakes();
    let mut last = Progress::default();
    let mut told_to_stop = false;
    loop {
        let backfill = backfill::find(&*flowing.store, &made.id).await?;
        let now = progress(flowing, &backfill, only).await?;
        let ended = |progress: &Progress| progress.succeeded + progress.failed + progress.cancelled;
        if ended(&now) != ended(&last) {
            context.output.note(format_args!(
                "{} of {}: {} succeeded, {} failed",
                count(ended(&now)),
                counted(made.total, "run"),
                count(now.succeeded),
                count(now.failed)
            ));
            last = now;
        }
        let is_over = matches!(backfill.state, BackfillState::Done | BackfillState::Cancelled) && now.open == 0;
        if is_over {
            return over(&backfill, now, context);
        }
        tokio::select! {
            wake = async { loop { match wakes.next().await { Some(Wake::Run) | None => break, Some(_) => {} } } } => wake,
            () = tokio::time::sleep(std::time::Duration::from_secs(5)) => {}
            () = context.cancel.cancelled(), if !told_to_stop => {
                told_to_stop = true;
                context.output.note("stopping the backfill and its runs; Ctrl-C once more leaves them");
                backfill::cancel(&*flowing.store, &made.id, &person(), context.clock.now()).await?;
            }
        }
    }
}

fn over(backfill: &Backfill, progress: Progress, context: &Context) -> Result<()> {
    if context.output.json {
        context.output.json(&json!({
            "id": backfill.id, "state": word(backfill.state), "runs": backfill.total,
            "succeeded": progress.succeeded, "failed": progress.failed, "cancelled": progress.cancelled,
        }))?;
    } else {
        context.output.note(format_args!("backfill {} is {}", short(backfill), word(backfill.state)));
    }
    match (backfill.state, progress.failed) {
        (BackfillState::Cancelled, _) => {
            Err(Error::new(ErrorKind::Cancelled, format!("backfill {} was cancelled", short(backfill))))
        }
        (_, 0) => Ok(()),
        (_, failed) => Err(Error::new(
            ErrorKind::Failed,
            format!("{} of {} failed", count(failed), counted(backfill.total, "run")),
        )
        .hint(format!("'flumen run list --backfill {}' shows them; --reprocess failed does them again", backfill.id))),
    }
}

async fn list(flowing: &Flowing, context: &Context) -> Result<()> {
    let backfills = flowing.store.backfills().await?;
    if context.output.json {
        return context.output.json(&backfills);
    }
    if backfills.is_empty() {
        context.output.note("there are no backfills");
        return Ok(());
    }
    let mut table = Table::new(["backfill", "flow", "from", "to", "state", "runs", "made", "by"]);
    for backfill in backfills {
        let made = backfill::made(&*flowing.store, &backfill).await?;
        table.row([
            short(&backfill),
            backfill.flow.to_string(),
            show::moment(backfill.from),
            show::moment(backfill.to),
            word(backfill.state).to_owned(),
            count(backfill.total),
            count(made),
            backfill.by.clone(),
        ]);
    }
    context.output.table(&table)
}

async fn shown(flowing: &Flowing, backfill: &Backfill, context: &Context) -> Result<()> {
    let now = progress(flowing, backfill, &Only::default()).await?;
    let made = backfill::made(&*flowing.store, backfill).await?;
    if context.output.json {
        return context.output.json(&json!({
            "backfill": backfill, "made": made, "succeeded": now.succeeded, "failed": now.failed,
            "cancelled": now.cancelled, "open": now.open,
        }));
    }
    let output = &context.output;
    output.line(format_args!("backfill {} of {}: {}", backfill.id, backfill.flow, word(backfill.state)))?;
    output.line(format_args!(
        "{} of {} runs made: {} succeeded, {} failed, {} cancelled, {} open",
        count(made),
        count(backfill.total),
        count(now.succeeded),
        count(now.failed),
        count(now.cancelled),
        count(now.open)
    ))
}
