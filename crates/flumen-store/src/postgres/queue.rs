//! The queue, as workers see it.

use std::collections::HashMap;

use flumen_core::flow::store::{Claim, Claimed, Work};
use flumen_core::flow::{Lease, Queued, RunRecord, Signal, TaskKey};
use flumen_core::{Error, Result};
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use sqlx::types::Uuid;

use super::PostgresStore;
use super::runs::plain;
use crate::columns::{body, json, moment, most, positive, us};

impl PostgresStore {
    /// Takes rows for a worker.
    pub(super) async fn take_rows(&self, claim: &Claim) -> Result<Claimed> {
        let only: Vec<Uuid> = claim.only.iter().map(|run| run.uuid()).collect();
        // The task and the number are filled in where they are known.
        let letter = Signal::Claimed { key: TaskKey::new("?"), number: 0, worker: claim.worker.clone(), at: claim.now };
        let letter = plain(&json(&letter)?);
        let ask = || {
            sqlx::query(
                "select number, queued, run, again_us from claim_rows($1, $2, $3, $4, $5, $6, $7::text::jsonb, $8)",
            )
            .bind(claim.worker.as_str())
            .bind(&claim.pools)
            .bind(&only)
            .bind(most(claim.limit))
            .bind(us(claim.now))
            .bind(us(claim.expires))
            .bind(&letter)
            .bind(&*self.channel)
        };
        let has_work = |rows: &[PgRow]| rows.iter().any(|row| matches!(row.try_get::<Option<i64>, _>(0), Ok(Some(_))));
        let rows = self.sessions.write_if(ask, has_work).await?;
        let failed = |error| -> Error { self.sessions.failed(error) };
        let mut claimed = Claimed::default();
        let mut records: HashMap<String, RunRecord> = HashMap::new();
        for row in &rows {
            let Some(number) = row.try_get::<Option<i64>, _>(0).map_err(failed)? else {
                claimed.again = row.try_get::<Option<i64>, _>(3).map_err(failed)?.map(moment);
                continue;
            };
            let queued: Queued = body(&row.try_get::<String, _>(1).map_err(failed)?)?;
            let text: String = row.try_get(2).map_err(failed)?;
            let run = match records.get(&text) {
                Some(run) => run.clone(),
                None => {
                    let run: RunRecord = body(&text)?;
                    records.insert(text, run.clone());
                    run
                }
            };
            let lease = Lease {
                run: run.id,
                key: queued.key.clone(),
                number: positive(number),
                worker: claim.worker.clone(),
                expires: claim.expires,
            };
            claimed.work.push(Work { lease, queued, run });
        }
        Ok(claimed)
    }
}
