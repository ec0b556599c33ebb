//! Months are loaded into the lake and into Postgres while processes are killed at random moments: in the end each month is there once.
//!
//! `FLUMEN_CHAOS` says how many are killed, and `FLUMEN_SEED` begins another story.

use serde_json::Value;

use crate::sandbox::Sandbox;

use super::{Server, json, project, succeed, wait_until};

/// The months that are loaded.
const MONTHS: usize = 24;
const FLOW: &str = r#"
flow: months
schedule: { cron: "@monthly", start: 2019-01-01, end: 2020-12-31, catchup: none }
max_active_runs: 4
defaults: { max_infra_retries: 100000, retries: 100, retry_delay: 100ms }
tasks:
  make:
    shell: |
      mkdir -p "$FLUMEN_PROJECT/data"
      python3 -c "print('month,n'); [print('{{ ds }},' + str(n)) for n in range(500)]" > "$FLUMEN_PROJECT/data/{{ ds }}.csv.new"
      mv "$FLUMEN_PROJECT/data/{{ ds }}.csv.new" "$FLUMEN_PROJECT/data/{{ ds }}.csv"
  lake: { needs: [make], ingest: { from: "data/{{ ds }}.csv", to: lake.raw.months } }
  pg: { needs: [make], ingest: { from: "data/{{ ds }}.csv", to: pg.public.months } }
  sum: { needs: [lake], sql: { into: lake.marts.sums, mode: append, query: "select '{{ ds }}' as month, sum(n) as total from lake.raw.months where month = '{{ ds }}'" } }
"#;

/// What happens, as if by chance.
struct Story(u64);

impl Story {
    fn new() -> Self {
        Self(number("FLUMEN_SEED", 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    /// Lets some time pass. The moment of its end is one that nobody knows: so many looks later.
    fn pass(&mut self, sandbox: &Sandbox) {
        for _ in 0..self.below(16) {
            succeed(sandbox, "flumen run list");
        }
    }
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn kills() -> u64 {
    number("FLUMEN_CHAOS", 20)
}

/// A project whose months go into a database, too; `more` is what else its settings say.
fn months(database: &str, more: &str) -> Sandbox {
    let settings = format!("name: chaos\nconnections:\n  pg: {{ kind: postgres, url: \"{database}\" }}\n{more}");
    let sandbox = project(&[("flumen.yml", &settings), ("flows/months.yml", FLOW)]);
    succeed(&sandbox, "flumen backfill months --detach");
    sandbox
}

/// Every run has succeeded, and each month is there once.
fn check(sandbox: &Sandbox) {
    let runs = json(sandbox, "run list -n 0");
    let runs = runs.as_array().unwrap();
    let failed: Vec<_> = runs.iter().filter(|run| run["state"] != "success").collect();
    let said = |run: &Value| {
        let id = run["id"].as_str().unwrap();
        let all = sandbox.sh(&format!("flumen run show {id}; flumen why {id}; flumen run logs {id}"));
        format!("{}{}", all.stdout, all.stderr)
    };
    assert!(failed.is_empty(), "{}", failed.into_iter().map(said).collect::<Vec<_>>().join("\n"));
    assert_eq!(runs.len(), MONTHS, "{runs:?}");
    for (table, rows) in [("lake.raw.months", 500), ("pg.public.months", 500), ("lake.marts.sums", 1)] {
        let counted = json(sandbox, &format!("sql 'select month, count(*) as n from {table} group by month'"));
        let counted = counted.as_array().unwrap();
        assert!(counted.len() == MONTHS && counted.iter().all(|row| row["n"] == rows), "{table}: {counted:?}");
    }
    let loads = json(sandbox, "load list lake.raw.months --limit 1000");
    assert_eq!(loads.as_array().unwrap().len(), MONTHS, "{loads}");
}

#[tokio::test(flavor = "multi_thread")]
async fn months_are_loaded_once_whatever_is_killed() {
    let mut story = Story::new();
    let database = flumen_testkit::postgres::server().database().await;
    let sandbox = months(&database.url, "");
    let up = || Server::start(&sandbox, &["up", "--lease", "1s", "--slots", "4"]);
    for _ in 0..kills() {
        let mut server = up();
        story.pass(&sandbox);
        server.kill();
    }
    let _server = up();
    wait_until(|| json(&sandbox, "backfill list")[0]["state"] == "done");
    check(&sandbox);
}

/// Two schedulers and three workers over Postgres, which is also where the months go: one of the five is killed, or Postgres, again and
/// again.
#[tokio::test(flavor = "multi_thread")]
async fn months_are_loaded_once_by_many_processes_over_a_database_that_is_killed_too() {
    let mut story = Story::new();
    let postgres = flumen_testkit::postgres::Server::start().expect("Postgres starts");
    let database = postgres.database().await;
    let sandbox = months(&database.url, "store: { connection: pg }\n");
    let start = |number: usize| match number {
        0 | 1 => Server::start(&sandbox, &["scheduler"]),
        _ => Server::start(&sandbox, &["worker", "--lease", "1s", "--slots", "2"]),
    };
    let mut servers: Vec<Server> = (0..5).map(start).collect();
    for _ in 0..kills() {
        story.pass(&sandbox);
        match usize::try_from(story.below(6)).unwrap() {
            5 => {
                postgres.stop();
                postgres.restart();
            }
            number => {
                servers[number].kill();
                servers[number] = start(number);
            }
        }
    }
    wait_until(|| json(&sandbox, "backfill list")[0]["state"] == "done");
    check(&sandbox);
}
