//! `flumen pool`: slots that task runs share.

use flumen_core::flow::store::{Pool, PoolUse, Rate};
use flumen_core::task_kind::units::Period;
use flumen_core::{Error, Result};
use serde_json::json;

use crate::context::Context;
use crate::flows::runtime::{Flowing, rate};
use crate::output::{Table, count};

/// Pools: how many task runs may be at work at once, and how often they begin
#[derive(Debug, clap::Args)]
#[command(
    arg_required_else_help = true,
    subcommand_required = true,
    after_help = "\
A pool that nobody has made has no limits. Those that 'pools:' in flumen.yml names are made by themselves.
"
)]
pub struct PoolCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// All pools, and what they are used for now
    List,
    /// Make a pool, or change it
    Set {
        /// Its name
        name: String,
        /// How many slots it has [default: as many as anybody wants]
        #[arg(long)]
        slots: Option<u32>,
        /// How often task runs may begin, such as 10/min
        #[arg(long, value_parser = |text: &str| rate(text).map_err(|error| error.to_string()))]
        rate: Option<Rate>,
    },
    /// Forget a pool: its tasks have no limits then
    Remove {
        /// Its name
        name: String,
    },
}

impl PoolCommand {
    pub async fn run(self, context: &Context) -> Result<()> {
        let flowing = Flowing::open(context).await?;
        match self.action {
            Action::List => list(flowing.store.pools().await?, context),
            Action::Set { name, slots, rate } => {
                if name.trim().is_empty() {
                    return Err(Error::invalid("a pool has to have a name"));
                }
                if flowing.project.settings().pools.contains_key(&name) {
                    return Err(Error::invalid(format!("flumen.yml says what pool '{name}' is"))
                        .hint("change it there, under 'pools'"));
                }
                let pool = Pool { name, slots, rate };
                flowing.store.save_pool(&pool).await?;
                let text = format!("pool '{}' has {}", pool.name, limits(&pool));
                let value = json!({ "name": pool.name, "slots": pool.slots, "rate": pool.rate.map(rate_text) });
                context.output.done(&value, text)
            }
            Action::Remove { name } => {
                flowing.store.remove_pool(&name).await?;
                let text = format!("pool '{name}' has no limits any more");
                context.output.done(&json!({ "name": name, "removed": true }), text)
            }
        }
    }
}

fn list(pools: Vec<PoolUse>, context: &Context) -> Result<()> {
    if context.output.json {
        let one = |one: &PoolUse| {
            let rate = one.pool.rate.map(rate_text);
            json!({ "name": one.pool.name, "slots": one.pool.slots, "rate": rate, "used": one.used, "queued": one.queued })
        };
        return context.output.json(&pools.iter().map(one).collect::<Vec<_>>());
    }
    if pools.is_empty() {
        context.output.note("there are no pools, and nothing waits");
        return Ok(());
    }
    let mut table = Table::new(["pool", "limits", "slots in use", "waiting"]);
    for one in pools {
        table.row([one.pool.name.clone(), limits(&one.pool), one.used.to_string(), count(one.queued)]);
    }
    context.output.table(&table)
}

/// A rate as one writes it.
fn rate_text(rate: Rate) -> String {
    format!("{}/{}", rate.count, Period(rate.per))
}

fn limits(pool: &Pool) -> String {
    let slots = match pool.slots {
        None => "any number of slots".to_owned(),
        Some(1) => "1 slot".to_owned(),
        Some(slots) => format!("{slots} slots"),
    };
    match pool.rate {
        Some(rate) => format!("{slots}, {} per {}", rate.count, Period(rate.per)),
        None => slots,
    }
}
