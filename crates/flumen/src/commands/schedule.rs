//! `flumen schedule`: when flows run.

use flumen_core::{Error, Result};
use flumen_flow::compiled::timetable_of;
use flumen_flow::timetable::dates::Stretch;
use serde_json::json;

use crate::context::Context;
use crate::flows::runtime::Flowing;
use crate::flows::show;
use crate::output::Table;

/// When flows run by themselves
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true, subcommand_required = true)]
pub struct ScheduleCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// The next runs of a flow, or those of a time
    Preview {
        /// The flow
        flow: String,
        /// The first start of an interval [default: what is due next]
        #[arg(long, value_name = "DATE")]
        from: Option<String>,
        /// The last start of an interval
        #[arg(long, value_name = "DATE")]
        to: Option<String>,
        /// How many
        #[arg(long, short = 'n', value_name = "N", default_value_t = 10)]
        limit: usize,
    },
}

impl ScheduleCommand {
    pub async fn run(self, context: &Context) -> Result<()> {
        let Action::Preview { flow, from, to, limit } = self.action;
        let flowing = Flowing::open_files(context).await?;
        let flows = flowing.flows().await?;
        let flow = flows.flow(&flow)?;
        let timetable = timetable_of(flow.schedule.as_ref())?;
        if !timetable.is_scheduled() {
            return Err(Error::invalid(format!("flow '{}' has no times in its schedule", flow.name))
                .hint("add 'schedule' with a cron expression, such as schedule: \"0 6 * * *\""));
        }
        let stretch = |text: &Option<String>, option: &str| {
            let parse =
                |text: &String| Stretch::parse(text, timetable.zone()).map_err(|error| error.within(option.to_owned()));
            text.as_ref().map(parse).transpose()
        };
        let (from, to) = (stretch(&from, "--from")?, stretch(&to, "--to")?);
        let intervals: Vec<_> = match (&from, &to) {
            (None, None) => timetable.upcoming(context.clock.now()).take(limit).collect(),
            _ => timetable.between(from.as_ref(), to.as_ref()).take(limit).collect(),
        };
        if context.output.json {
            let one = |interval: &flumen_core::flow::Interval| json!({ "start": show::iso(interval.start), "end": show::iso(interval.end), "due": show::iso(interval.end) });
            return context.output.json(&intervals.iter().map(one).collect::<Vec<_>>());
        }
        if intervals.is_empty() {
            context.output.note("no run is due then");
            return Ok(());
        }
        let mut table = Table::new(["from", "to", "due"]);
        for interval in intervals {
            table.row([timetable.shown(interval.start), timetable.shown(interval.end), timetable.shown(interval.end)]);
        }
        context.output.table(&table)
    }
}
