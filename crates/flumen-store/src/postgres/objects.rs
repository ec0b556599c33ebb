//! What is kept besides runs: backfills, versions of flows, pools, workers, notices.

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use flumen_core::flow::store::{Backfill, PendingNotice, Pool, PoolUse, Rate, WorkerRecord, no_run};
use flumen_core::flow::{Event, FlowName, FlowVersion};
use flumen_core::{Error, Result};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::PostgresStore;
use super::sessions::first;
use crate::columns::{body, json, most, number, positive, us};

/// Whether a row was changed, where the statement answers with those that were.
fn any(rows: &[PgRow]) -> bool {
    !rows.is_empty()
}

impl PostgresStore {
    pub(super) async fn keep_backfill(&self, backfill: &Backfill) -> Result<()> {
        let text = json(backfill)?;
        let ask = || {
            sqlx::query(
                "insert into backfills (id, created_us, body) values ($1, $2, $3)
                 on conflict (id) do update set created_us = excluded.created_us, body = excluded.body
                 returning pg_notify($4, 'r')",
            )
            .bind(&backfill.id)
            .bind(us(backfill.created))
            .bind(&text)
            .bind(&*self.channel)
        };
        Ok(self.sessions.write(ask).await.map(drop)?)
    }

    pub(super) async fn keep_version(
        &self,
        flow: &FlowName,
        version: &FlowVersion,
        content: &Bytes,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let ask = || {
            sqlx::query(
                "insert into versions (hash, flow, saved_us, content) values ($1, $2, $3, $4)
                 on conflict (hash) do update set flow = excluded.flow, saved_us = excluded.saved_us",
            )
            .bind(version.as_str())
            .bind(flow.as_str())
            .bind(us(now))
            .bind(content.as_ref())
        };
        Ok(self.sessions.write(ask).await.map(drop)?)
    }

    pub(super) async fn pause(&self, flow: &FlowName, paused: bool) -> Result<()> {
        let sql = match paused {
            true => "insert into paused (flow) values ($1) on conflict do nothing returning pg_notify($2, 'r')",
            false => "delete from paused where flow = $1 returning pg_notify($2, 'r')",
        };
        let ask = || sqlx::query(sql).bind(flow.as_str()).bind(&*self.channel);
        Ok(self.sessions.write_if(ask, any).await.map(drop)?)
    }

    pub(super) async fn keep_pool(&self, pool: &Pool) -> Result<()> {
        let per = |rate: Rate| i64::try_from(rate.per.as_micros()).unwrap_or(i64::MAX);
        let ask = || {
            sqlx::query(
                "insert into pools (name, slots, rate_count, rate_us) values ($1, $2, $3, $4)
                 on conflict (name) do update set slots = $2, rate_count = $3, rate_us = $4
                 returning pg_notify($5, 'q')",
            )
            .bind(&pool.name)
            .bind(pool.slots.map(i64::from))
            .bind(pool.rate.map(|rate| i64::from(rate.count)))
            .bind(pool.rate.map(per))
            .bind(&*self.channel)
        };
        Ok(self.sessions.write(ask).await.map(drop)?)
    }

    pub(super) async fn drop_pool(&self, name: &str) -> Result<()> {
        let ask = || {
            sqlx::query("delete from pools where name = $1 returning pg_notify($2, 'q')")
                .bind(name)
                .bind(&*self.channel)
        };
        if self.sessions.write_if(ask, any).await?.is_empty() {
            return Err(Error::not_found(format!("there is no pool '{name}'")).hint("'flumen pool list' shows them"));
        }
        Ok(())
    }

    pub(super) async fn keep_variable(&self, name: &str, value: Option<&str>) -> Result<bool> {
        let Some(value) = value else {
            let ask = || sqlx::query("delete from variables where name = $1 returning name").bind(name);
            return Ok(!self.sessions.write_if(ask, any).await?.is_empty());
        };
        let ask = || {
            sqlx::query(
                "with was as (select name from variables where name = $1),
                    put as (insert into variables (name, value) values ($1, $2)
                        on conflict (name) do update set value = excluded.value)
                 select exists (select from was)",
            )
            .bind(name)
            .bind(value)
        };
        let rows = self.sessions.write(ask).await?;
        rows.first().map_or(Ok(false), |row| row.try_get(0).map_err(|error| self.sessions.failed(error)))
    }

    pub(super) async fn read_pools(&self) -> Result<Vec<PoolUse>> {
        let ask = || {
            sqlx::query(
                "with names as (select name from pools union select pool from leases union select pool from queue)
                 select names.name, slots, rate_count, rate_us,
                    (select coalesce(sum(slots), 0)::bigint from leases where pool = names.name) as used,
                    (select count(*) from queue where pool = names.name) as queued
                 from names left join pools on pools.name = names.name order by names.name",
            )
        };
        let rows = self.sessions.read(ask).await?;
        rows.iter().map(pool_use).collect::<sqlx::Result<_>>().map_err(|error| self.sessions.failed(error))
    }

    pub(super) async fn keep_worker(&self, worker: &WorkerRecord) -> Result<()> {
        let text = json(worker)?;
        let ask = || {
            sqlx::query(
                "insert into workers (id, seen_us, body) values ($1, $2, $3)
                 on conflict (id) do update set seen_us = excluded.seen_us, body = excluded.body",
            )
            .bind(worker.id.as_str())
            .bind(us(worker.seen))
            .bind(&text)
        };
        Ok(self.sessions.write(ask).await.map(drop)?)
    }

    pub(super) async fn drop_workers(&self, before: DateTime<Utc>) -> Result<usize> {
        let ask = || sqlx::query("delete from workers where seen_us < $1 returning id").bind(us(before));
        Ok(self.sessions.write_if(ask, any).await?.len())
    }

    pub(super) async fn hand_out_notices(
        &self,
        now: DateTime<Utc>,
        until: DateTime<Utc>,
        limit: usize,
    ) -> Result<Vec<PendingNotice>> {
        let ask = || {
            sqlx::query(
                "update notices set held_us = $1 where id = any(array(
                    select id from notices where held_us is null or held_us <= $2 order by id limit $3 for update skip locked
                 )) returning id, body",
            )
            .bind(us(until))
            .bind(us(now))
            .bind(most(limit))
        };
        let mut taken = Vec::new();
        for row in &self.sessions.write_if(ask, any).await? {
            let failed = |error| self.sessions.failed(error);
            let text: String = row.try_get(1).map_err(failed)?;
            taken.push(PendingNotice { id: positive(first(row).map_err(failed)?), notice: body(&text)? });
        }
        taken.sort_by_key(|notice| notice.id);
        Ok(taken)
    }

    /// Behind all that is on its way for the run: whoever reads on by ids would miss what comes with a lower one.
    pub(super) async fn keep_event(&self, event: &Event) -> Result<()> {
        let text = json(event)?;
        let ask = || {
            sqlx::query(
                "with held as (select seq from runs where id = $1 for update)
                 insert into events (run, body) select seq, $2 from held returning pg_notify($3, 'r')",
            )
            .bind(event.run.uuid())
            .bind(&text)
            .bind(&*self.channel)
        };
        match self.sessions.write_if(ask, any).await?.is_empty() {
            true => Err(no_run(event.run)),
            false => Ok(()),
        }
    }

    pub(super) async fn drop_notice(&self, id: u64) -> Result<()> {
        let ask = || sqlx::query("delete from notices where id = $1 returning id").bind(number(id));
        Ok(self.sessions.write_if(ask, any).await.map(drop)?)
    }
}

fn pool_use(row: &PgRow) -> sqlx::Result<PoolUse> {
    let small = |value: i64| u32::try_from(value).unwrap_or(u32::MAX);
    let rate = row.try_get::<Option<i64>, _>("rate_count")?.zip(row.try_get::<Option<i64>, _>("rate_us")?);
    let rate = rate.map(|(count, per)| Rate { count: small(count), per: Duration::from_micros(positive(per)) });
    let slots = row.try_get::<Option<i64>, _>("slots")?.map(small);
    Ok(PoolUse {
        pool: Pool { name: row.try_get("name")?, slots, rate },
        used: small(row.try_get("used")?),
        queued: positive(row.try_get("queued")?),
    })
}
