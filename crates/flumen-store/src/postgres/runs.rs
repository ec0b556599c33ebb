//! Runs: made, told, stepped, forgotten.

use std::collections::{BTreeMap, HashSet};

use chrono::{DateTime, Utc};
use flumen_core::flow::store::{Advance, Commit, Created, NewRun, Taken, no_run, run_changed};
use flumen_core::flow::{FlowName, Origin, RunId, Signal, TaskKey, Timer, Wait};
use flumen_core::{Error, ErrorKind, Result};
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use sqlx::types::Uuid;

use super::PostgresStore;
use super::reads::letters;
use super::sessions::{Failure, first};
use crate::columns::{json, most, number, positive, us};

/// Texts as one value.
fn all<T: serde::Serialize>(values: &[T]) -> Result<Vec<String>> {
    values.iter().map(json).collect()
}

/// Text that Postgres can keep outside of JSON.
pub(super) fn plain(text: &str) -> String {
    text.replace('\0', " ")
}

/// New runs, column by column.
struct NewRows {
    ids: Vec<Uuid>,
    flows: Vec<String>,
    deployments: Vec<String>,
    versions: Vec<String>,
    starts: Vec<i64>,
    texts: Vec<Option<String>>,
    backfills: Vec<Option<String>>,
    begun: Vec<bool>,
    bodies: Vec<String>,
}

impl NewRows {
    fn of(new: &[NewRun], now: DateTime<Utc>) -> Result<Self> {
        let backfill = |new: &NewRun| match &new.origin {
            Origin::Backfill { id } => Some(id.clone()),
            _ => None,
        };
        Ok(Self {
            ids: new.iter().map(|new| new.id.uuid()).collect(),
            flows: new.iter().map(|new| new.flow.to_string()).collect(),
            deployments: new.iter().map(|new| new.deployment.clone().unwrap_or_default()).collect(),
            versions: new.iter().map(|new| new.version.to_string()).collect(),
            starts: new.iter().map(|new| us(new.interval.start)).collect(),
            texts: new.iter().map(|new| new.unique.clone()).collect(),
            backfills: new.iter().map(backfill).collect(),
            begun: new.iter().map(|new| new.start).collect(),
            bodies: new.iter().map(|new| json(&crate::first_record(new, now))).collect::<Result<_>>()?,
        })
    }
}

impl PostgresStore {
    pub(super) async fn make_runs(&self, new: &[NewRun], now: DateTime<Utc>) -> Result<Vec<Created>> {
        if new.is_empty() {
            return Ok(Vec::new());
        }
        self.make(None, new, now).await.map_err(Error::from)?.ok_or_else(gone)
    }

    pub(super) async fn move_on(&self, advance: &Advance, now: DateTime<Utc>) -> Result<Vec<Created>> {
        match self.make(Some(advance), &advance.runs, now).await {
            Ok(created) => created.ok_or_else(gone),
            Err(Failure::Refused(code, _)) if code == "FL409" => {
                let message = format!("schedule '{}' was moved on meanwhile", advance.schedule);
                Err(Error::new(ErrorKind::Conflict, message))
            }
            Err(failure) => Err(failure.into()),
        }
    }

    /// Makes runs and moves a cursor on, if there is one; `None` where one of the runs was there and is not any more.
    async fn make(
        &self,
        advance: Option<&Advance>,
        new: &[NewRun],
        now: DateTime<Utc>,
    ) -> Result<Option<Vec<Created>>, Failure> {
        let rows = NewRows::of(new, now).map_err(Failure::Error)?;
        let letter = json(&Signal::Start).map_err(Failure::Error)?;
        let ask = || {
            sqlx::query("select run, made from make_runs($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)")
                .bind(advance.map(|advance| &advance.schedule))
                .bind(advance.and_then(|advance| advance.from.as_ref()))
                .bind(advance.map(|advance| &advance.to))
                .bind(&rows.ids)
                .bind(&rows.flows)
                .bind(&rows.deployments)
                .bind(&rows.versions)
                .bind(&rows.starts)
                .bind(&rows.texts)
                .bind(&rows.backfills)
                .bind(&rows.begun)
                .bind(&rows.bodies)
                .bind(&letter)
                .bind(&*self.channel)
        };
        let answer = self.sessions.write(ask).await?;
        let failed = |error| Failure::Error(self.sessions.failed(error));
        let (mut made, mut there) = (HashSet::new(), Vec::new());
        for row in &answer {
            let id: Option<Uuid> = first(row).map_err(failed)?;
            match (row.try_get::<bool, _>(1).map_err(failed)?, id) {
                (true, Some(id)) => drop(made.insert(id)),
                (_, id) => there.push(id),
            }
        }
        if there.is_empty() {
            return Ok(Some(new.iter().map(|new| Created { id: new.id, new: true }).collect()));
        }
        let created = there.into_iter().map(|id| id.map(|id| Created { id: RunId::new(id), new: made.remove(&id) }));
        Ok(created.collect())
    }

    /// Begins runs of a flow that wait for their turn.
    pub(super) async fn begin(&self, flow: &FlowName, limit: u32) -> Result<Vec<RunId>> {
        let letter = json(&Signal::Start)?;
        let ask = || {
            sqlx::query("select * from start_runs($1, $2, $3, $4)")
                .bind(flow.as_str())
                .bind(i64::from(limit))
                .bind(&letter)
                .bind(&*self.channel)
        };
        let rows = self.sessions.write_if(ask, |rows| !rows.is_empty()).await?;
        rows.iter().map(|row| first(row).map(RunId::new).map_err(|error| self.sessions.failed(error))).collect()
    }

    pub(super) async fn post(&self, run: RunId, signal: &Signal) -> Result<()> {
        let letter = json(signal)?;
        let ask = || {
            sqlx::query("select post(array[seq], array[$2]), pg_notify($3, 'i') from runs where id = $1")
                .bind(run.uuid())
                .bind(&letter)
                .bind(&*self.channel)
        };
        let posted = self.sessions.write_if(ask, |rows| !rows.is_empty()).await?;
        if posted.is_empty() { Err(no_run(run)) } else { Ok(()) }
    }

    pub(super) async fn take(&self, now: DateTime<Utc>, until: DateTime<Utc>, limit: usize) -> Result<Vec<Taken>> {
        // Whoever has locked one takes it, or wakes those who listen when it lets go of it. After a loss of power a run may be given
        // again. Whoever has it waits for the disk when it commits.
        let ask = || {
            sqlx::query(
                "with taken as (
                    update inboxes set taken_us = $1 where ctid = any(array(
                        select ctid from inboxes where taken_us is null or taken_us <= $2 order by first limit $3
                        for update skip locked
                    )) returning run, first
                 )
                 select id, step, array(select id from letters where run = seq order by id),
                    array(select body from letters where run = seq order by id)
                 from taken join runs on seq = run order by first",
            )
            .bind(us(until))
            .bind(us(now))
            .bind(most(limit))
        };
        let rows = self.sessions.hint(ask).await?;
        // A run that was forgotten while somebody wrote to it is none any more.
        let taken = |row: &PgRow| {
            let run = RunId::new(self.get::<Uuid>(row, 0)?);
            let inbox = letters(&self.get::<Vec<i64>>(row, 2)?, &self.get::<Vec<String>>(row, 3)?);
            let version = positive(self.get(row, 1)?);
            Ok(Taken { run, inbox: inbox.ok().map(|letters| (version, letters)) })
        };
        rows.iter().map(taken).collect()
    }

    pub(super) async fn step(&self, commit: &Commit) -> Result<u64> {
        let parts = Parts::of(commit)?;
        match self.sessions.write(|| parts.ask(commit, &self.channel)).await {
            Ok(_) => Ok(commit.version + 1),
            Err(Failure::Refused(code, said)) => Err(match code.as_str() {
                "FL404" => no_run(commit.run),
                "FL409" => run_changed(commit.run),
                "FL500" => Error::internal(format!("run {}: task '{said}' was to be queued a second time", commit.run)),
                _ => Failure::Refused(code, said).into(),
            }),
            Err(failure) => Err(failure.into()),
        }
    }

    pub(super) async fn forget(&self, before: DateTime<Utc>, limit: usize) -> Result<usize> {
        let ask = || sqlx::query("select prune_runs($1, $2)").bind(us(before)).bind(most(limit));
        self.count(&self.sessions.write(ask).await?)
    }

    /// The number that is the answer to a change.
    pub(super) fn count(&self, rows: &[PgRow]) -> Result<usize> {
        let count: i64 = rows.first().map_or(Ok(0), first).map_err(|error| self.sessions.failed(error))?;
        Ok(usize::try_from(count).unwrap_or_default())
    }
}

fn gone() -> Error {
    Error::new(ErrorKind::Unavailable, "a run that was there was forgotten meanwhile")
}

/// What a commit changes, column by column.
struct Parts {
    body: String,
    read: Vec<i64>,
    tasks: (Vec<String>, Vec<String>, Vec<String>),
    events: Vec<String>,
    dequeue: Vec<String>,
    queued: Vec<String>,
    keys: Vec<String>,
    pools: Vec<String>,
    priorities: Vec<i32>,
    slots: Vec<i64>,
    timers: (Vec<String>, Vec<Option<i64>>, Vec<Option<String>>),
    stops: (Vec<String>, Vec<i64>, Vec<String>),
    waits: (Vec<String>, Vec<Option<i64>>, Vec<Option<String>>),
    notices: Vec<String>,
    touched: Vec<String>,
    next: Vec<String>,
}

impl Parts {
    fn of(commit: &Commit) -> Result<Self> {
        let mut parts = Self {
            body: json(&commit.record)?,
            read: commit.read.iter().map(|letter| number(*letter)).collect(),
            tasks: Default::default(),
            events: all(&commit.events)?,
            dequeue: commit.dequeue.iter().map(TaskKey::to_string).collect(),
            queued: all(&commit.enqueue)?,
            keys: commit.enqueue.iter().map(|queued| queued.key.to_string()).collect(),
            pools: commit.enqueue.iter().map(|queued| queued.pool.clone()).collect(),
            priorities: commit.enqueue.iter().map(|queued| queued.priority).collect(),
            slots: commit.enqueue.iter().map(|queued| i64::from(queued.slots)).collect(),
            timers: Default::default(),
            stops: Default::default(),
            waits: Default::default(),
            notices: all(&commit.notices)?,
            touched: all(&commit.touched)?,
            next: all(&commit.to_next)?,
        };
        // Of what is there twice, the last counts.
        let tasks: BTreeMap<&TaskKey, _> = commit.tasks.iter().map(|task| (&task.key, task)).collect();
        for (key, task) in tasks {
            parts.tasks.0.push(key.to_string());
            parts.tasks.1.push(task.state.name().to_owned());
            parts.tasks.2.push(json(task)?);
        }
        let timers: BTreeMap<&Timer, _> = commit.timers.iter().map(|(timer, at)| (timer, *at)).collect();
        for (timer, at) in timers {
            parts.timers.0.push(json(timer)?);
            parts.timers.1.push(at.map(us));
            parts.timers.2.push(at.map(|at| json(&Signal::Due { timer: timer.clone(), at })).transpose()?);
        }
        for (key, lease, cause) in &commit.stops {
            parts.stops.0.push(key.to_string());
            parts.stops.1.push(number(*lease));
            parts.stops.2.push(plain(cause));
        }
        // In the order in which they come: their ids are in it.
        let last: BTreeMap<&TaskKey, usize> =
            commit.waits.iter().enumerate().map(|(place, (key, _))| (key, place)).collect();
        for (place, (key, wait)) in commit.waits.iter().enumerate() {
            if last.get(key) == Some(&place) {
                parts.waits.0.push(key.to_string());
                parts.waits.1.push(wait.as_ref().map(|(of, _): &(u64, Wait)| number(*of)));
                parts.waits.2.push(wait.as_ref().map(|(_, wait)| json(wait)).transpose()?);
            }
        }
        Ok(parts)
    }

    fn ask<'q>(&'q self, commit: &'q Commit, channel: &'q str) -> super::sessions::Ask<'q> {
        let sql = "select commit_step($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21,
            $22, $23, $24, $25, $26, $27, $28, $29, $30)";
        sqlx::query(sql)
            .bind(commit.run.uuid())
            .bind(number(commit.version))
            .bind(commit.record.state.name())
            .bind(commit.record.ended.map(us))
            .bind(commit.record.version.as_str())
            .bind(&self.body)
            .bind(&self.read)
            .bind(&self.tasks.0)
            .bind(&self.tasks.1)
            .bind(&self.tasks.2)
            .bind(&self.events)
            .bind(&self.dequeue)
            .bind(&self.keys)
            .bind(&self.pools)
            .bind(&self.priorities)
            .bind(&self.slots)
            .bind(&self.queued)
            .bind(&self.timers.0)
            .bind(&self.timers.1)
            .bind(&self.timers.2)
            .bind(&self.stops.0)
            .bind(&self.stops.1)
            .bind(&self.stops.2)
            .bind(&self.waits.0)
            .bind(&self.waits.1)
            .bind(&self.waits.2)
            .bind(&self.notices)
            .bind(&self.touched)
            .bind(&self.next)
            .bind(channel)
    }
}
