//! Leases and timers: renewed, ended, run out.

use chrono::{DateTime, Utc};
use flumen_core::Result;
use flumen_core::flow::store::{Held, Renewal, Rung, not_held};
use flumen_core::flow::{Outcome, RunId, Signal, TaskKey, WorkerId};
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use sqlx::types::Uuid;

use super::PostgresStore;
use super::runs::plain;
use super::sessions::first;
use crate::columns::{json, moment, most, number, us};

/// Whether there was anything to end.
fn is_some(rows: &[PgRow]) -> bool {
    rows.first().is_some_and(|row| first::<i64>(row).is_ok_and(|count| count > 0))
}

impl PostgresStore {
    pub(super) async fn renew_leases(
        &self,
        worker: &WorkerId,
        held: &[Held],
        expires: DateTime<Utc>,
    ) -> Result<Vec<Renewal>> {
        let runs: Vec<Uuid> = held.iter().map(|held| held.run.uuid()).collect();
        let keys: Vec<String> = held.iter().map(|held| held.key.to_string()).collect();
        let numbers: Vec<i64> = held.iter().map(|held| number(held.number)).collect();
        let ask = || {
            sqlx::query("select held, stop from renew_leases($1, $2, $3, $4, $5)")
                .bind(worker.as_str())
                .bind(&runs)
                .bind(&keys)
                .bind(&numbers)
                .bind(us(expires))
        };
        let rows = self.sessions.write(ask).await?;
        let renewal = |row: &PgRow| {
            Ok(match (row.try_get::<bool, _>(0)?, row.try_get::<Option<String>, _>(1)?) {
                (false, _) => Renewal::Gone,
                (true, None) => Renewal::Held,
                (true, Some(cause)) => Renewal::Stop { cause },
            })
        };
        rows.iter().map(|row| renewal(row).map_err(|error| self.sessions.failed(error))).collect()
    }

    pub(super) async fn finish_lease(&self, held: &Held, outcome: &Outcome, now: DateTime<Utc>) -> Result<()> {
        let signal = Signal::Ended { key: held.key.clone(), number: held.number, outcome: outcome.clone(), at: now };
        let (key, letter) = (held.key.to_string(), json(&signal)?);
        let ask = || {
            sqlx::query("select finish_lease($1, $2, $3, $4, $5)")
                .bind(held.run.uuid())
                .bind(&key)
                .bind(number(held.number))
                .bind(&letter)
                .bind(&*self.channel)
        };
        let ended = |rows: &[PgRow]| rows.first().is_some_and(|row| first::<bool>(row).unwrap_or_default());
        let rows = self.sessions.write_if(ask, ended).await?;
        if ended(&rows) { Ok(()) } else { Err(not_held(held)) }
    }

    /// Takes back the leases of a worker, for a cause; or where none is named up to `limit` of those whose time is over.
    async fn lose(
        &self,
        worker: Option<&WorkerId>,
        cause: Option<&str>,
        now: DateTime<Utc>,
        limit: Option<usize>,
    ) -> Result<Rung> {
        // The task, the number, the worker and the cause are filled in where they are known.
        let lost = Outcome::Lost { worker: "?".into(), cause: String::new() };
        let letter = json(&Signal::Ended { key: TaskKey::new("?"), number: 0, outcome: lost, at: now })?;
        let cause = cause.map(plain);
        let ask = || {
            sqlx::query("select lost, next_us from lose_leases($1, $2, $3, $4, $5::text::jsonb, $6)")
                .bind(worker.map(WorkerId::as_str))
                .bind(&cause)
                .bind(us(now))
                .bind(limit.map(most))
                .bind(&letter)
                .bind(&*self.channel)
        };
        self.rung(&self.sessions.write_if(ask, is_some).await?)
    }

    pub(super) async fn keep_runs(&self, worker: &WorkerId, runs: &[RunId]) -> Result<()> {
        let runs: Vec<Uuid> = runs.iter().map(|run| run.uuid()).collect();
        let ask = || {
            sqlx::query(
                "insert into kept_runs (run, worker) select unnest($1::uuid[]), $2
                 on conflict (run) do update set worker = excluded.worker",
            )
            .bind(&runs)
            .bind(worker.as_str())
        };
        Ok(self.sessions.write(ask).await.map(drop)?)
    }

    pub(super) async fn lose_all(&self, worker: &WorkerId, cause: &str, now: DateTime<Utc>) -> Result<usize> {
        self.lose(Some(worker), Some(cause), now, None).await.map(|lost| lost.count)
    }

    pub(super) async fn expire(&self, now: DateTime<Utc>, limit: usize) -> Result<Rung> {
        self.lose(None, None, now, Some(limit)).await
    }

    pub(super) async fn ring(&self, now: DateTime<Utc>, limit: usize) -> Result<Rung> {
        let ask = || {
            sqlx::query("select rung, next_us from ring_timers($1, $2, $3)")
                .bind(us(now))
                .bind(most(limit))
                .bind(&*self.channel)
        };
        self.rung(&self.sessions.write_if(ask, is_some).await?)
    }

    /// How many there were, and when the next one's time comes.
    fn rung(&self, rows: &[PgRow]) -> Result<Rung> {
        let next: Option<i64> =
            rows.first().map_or(Ok(None), |row| row.try_get(1)).map_err(|error| self.sessions.failed(error))?;
        Ok(Rung { count: self.count(rows)?, next: next.map(moment) })
    }
}
