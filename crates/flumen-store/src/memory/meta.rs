//! The seam, over the data in [`runs`](super::runs).

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use flumen_core::flow::store::{
    Advance, Backfill, Claim, Claimed, Commit, Created, Held, Letter, Loaded, MetaStore, NewRun, PendingNotice,
    PendingWait, Pool, PoolUse, Renewal, RunFilter, Rung, Taken, Wake, WorkerRecord, is_active,
};
use flumen_core::flow::{
    Event, FlowName, FlowVersion, Lease, Origin, Outcome, RunId, RunRecord, RunState, Signal, TaskId, TaskKey, TaskRun,
    TaskState, Touched, WorkerId,
};
use flumen_core::{Error, ErrorKind, Result};
use futures::stream::BoxStream;

use super::MemoryStore;

#[async_trait]
impl MetaStore for MemoryStore {
    async fn create_runs(&self, runs: &[NewRun], now: DateTime<Utc>) -> Result<Vec<Created>> {
        let mut kept = self.kept_runs();
        Ok(runs.iter().map(|new| kept.create(new, now)).collect())
    }

    async fn start_runs(&self, flow: &FlowName, limit: u32) -> Result<Vec<RunId>> {
        Ok(self.kept_runs().start(flow, limit))
    }

    async fn send(&self, run: RunId, signal: &Signal) -> Result<()> {
        let mut kept = self.kept_runs();
        kept.kept(run)?;
        kept.post(run, signal.clone());
        Ok(())
    }

    async fn take_runs(&self, now: DateTime<Utc>, until: DateTime<Utc>, limit: usize) -> Result<Vec<Taken>> {
        Ok(self.kept_runs().take_runs(now, until, limit))
    }

    async fn load(&self, run: RunId) -> Result<Loaded> {
        self.kept_runs().load(run)
    }

    async fn inbox(&self, run: RunId) -> Result<(u64, Vec<Letter>)> {
        self.kept_runs().inbox(run)
    }

    async fn commit(&self, commit: &Commit) -> Result<u64> {
        self.kept_runs().commit(commit)
    }

    async fn claim(&self, claim: &Claim) -> Result<Claimed> {
        Ok(self.kept_runs().claim(claim))
    }

    async fn renew(&self, worker: &WorkerId, held: &[Held], expires: DateTime<Utc>) -> Result<Vec<Renewal>> {
        let mut kept = self.kept_runs();
        let renewal = |held| match kept.renew(worker, held, expires) {
            None => Renewal::Gone,
            Some(None) => Renewal::Held,
            Some(Some(cause)) => Renewal::Stop { cause },
        };
        Ok(held.iter().map(renewal).collect())
    }

    async fn finish(&self, held: &Held, outcome: &Outcome, now: DateTime<Utc>) -> Result<()> {
        self.kept_runs().finish(held, outcome, now)
    }

    async fn keep_for(&self, worker: &WorkerId, runs: &[RunId]) -> Result<()> {
        let mut kept = self.kept_runs();
        kept.kept_for.extend(runs.iter().map(|run| (*run, worker.clone())));
        Ok(())
    }

    async fn lose_worker(&self, worker: &WorkerId, cause: &str, now: DateTime<Utc>) -> Result<usize> {
        self.kept_runs().lose_worker(worker, cause, now)
    }

    async fn expire_leases(&self, now: DateTime<Utc>, limit: usize) -> Result<Rung> {
        self.kept_runs().expire(now, limit)
    }

    async fn ring_timers(&self, now: DateTime<Utc>, limit: usize) -> Result<Rung> {
        Ok(self.kept_runs().ring(now, limit))
    }

    async fn leases(&self, run: RunId) -> Result<Vec<Lease>> {
        Ok(self.kept_runs().leases(run))
    }

    async fn waits(&self, after: u64, limit: usize) -> Result<Vec<PendingWait>> {
        let kept = self.kept_runs();
        let waits = kept.waits.range(after.saturating_add(1)..).take(limit);
        Ok(waits
            .map(|(id, (run, key, number, wait))| PendingWait {
                id: *id,
                run: *run,
                key: key.clone(),
                number: *number,
                wait: wait.clone(),
            })
            .collect())
    }

    async fn take_notices(&self, now: DateTime<Utc>, until: DateTime<Utc>, limit: usize) -> Result<Vec<PendingNotice>> {
        let mut kept = self.kept_runs();
        let free = kept.notices.iter_mut().filter(|(_, (_, held))| held.is_none_or(|held| held <= now)).take(limit);
        Ok(free
            .map(|(id, (notice, held))| {
                *held = Some(until);
                PendingNotice { id: *id, notice: notice.clone() }
            })
            .collect())
    }

    async fn note(&self, event: &Event) -> Result<()> {
        self.kept_runs().note(event)
    }

    async fn settle_notice(&self, id: u64) -> Result<()> {
        self.kept_runs().notices.remove(&id);
        Ok(())
    }

    async fn touched(&self, after: u64, limit: usize) -> Result<Vec<(u64, RunId, Touched)>> {
        let kept = self.kept_runs();
        let touched = kept.touched.range(after.saturating_add(1)..).take(limit);
        Ok(touched.map(|(id, (run, touched))| (*id, *run, touched.clone())).collect())
    }

    async fn touched_by(&self, run: RunId) -> Result<Vec<Touched>> {
        let kept = self.kept_runs();
        Ok(kept.touched.values().filter(|(of, _)| *of == run).map(|(_, touched)| touched.clone()).collect())
    }

    fn wakes(&self) -> BoxStream<'static, Wake> {
        self.kept_runs().wakes.listen()
    }

    async fn run(&self, run: RunId) -> Result<RunRecord> {
        Ok(self.kept_runs().kept(run)?.record.clone())
    }

    async fn runs(&self, filter: &RunFilter) -> Result<Vec<RunRecord>> {
        let kept = self.kept_runs();
        let mut order: Vec<RunId> = kept.order.values().copied().collect();
        if !filter.oldest_first {
            order.reverse();
        }
        let skipped = filter.after.map_or(0, |after| order.iter().take_while(|run| **run != after).count() + 1);
        let records = order.iter().skip(skipped).filter_map(|run| Some(&kept.runs.get(run)?.record));
        let wanted = records.filter(|record| {
            filter.flow.as_ref().is_none_or(|flow| *flow == record.flow)
                && filter
                    .deployment
                    .as_deref()
                    .is_none_or(|name| name == record.deployment.as_deref().unwrap_or_default())
                && (filter.states.is_empty() || filter.states.contains(&record.state))
                && filter.prefix.as_ref().is_none_or(|prefix| record.id.to_string().starts_with(prefix))
                && filter
                    .backfill
                    .as_ref()
                    .is_none_or(|wanted| matches!(&record.origin, Origin::Backfill { id } if id == wanted))
                && filter.from.is_none_or(|from| record.interval.start >= from)
                && filter.to.is_none_or(|to| record.interval.start <= to)
        });
        Ok(wanted.take(filter.limit.unwrap_or(usize::MAX)).cloned().collect())
    }

    async fn active_runs(&self, flow: &FlowName) -> Result<u64> {
        let kept = self.kept_runs();
        let is_wanted = |record: &&RunRecord| record.flow == *flow && is_active(record.state);
        Ok(kept.runs.values().map(|run| &run.record).filter(is_wanted).count() as u64)
    }

    async fn tasks(&self, run: RunId) -> Result<Vec<TaskRun>> {
        Ok(self.kept_runs().kept(run)?.tasks.values().cloned().collect())
    }

    async fn tasks_of(&self, run: RunId, tasks: &[TaskId]) -> Result<Vec<TaskRun>> {
        let kept = self.kept_runs();
        let all = kept.kept(run)?.tasks.values();
        Ok(all.filter(|task| tasks.contains(&task.key.task)).cloned().collect())
    }

    async fn events(&self, run: RunId, after: u64, limit: usize) -> Result<Vec<(u64, Event)>> {
        let kept = self.kept_runs();
        let events = kept.kept(run)?.events.range(after.saturating_add(1)..).take(limit);
        Ok(events.map(|(id, event)| (*id, event.clone())).collect())
    }

    async fn past(&self, run: RunId, task: &TaskId) -> Result<Option<TaskState>> {
        let kept = self.kept_runs();
        let Some(previous) = kept.runs_before(run)?.next() else { return Ok(None) };
        let key = TaskKey { task: task.clone(), index: None };
        Ok(Some(kept.kept(previous.id)?.tasks.get(&key).map_or(TaskState::None, |task| task.state)))
    }

    async fn last_success(&self, run: RunId) -> Result<Option<RunRecord>> {
        let kept = self.kept_runs();
        Ok(kept.runs_before(run)?.find(|record| record.state == RunState::Success).cloned())
    }

    async fn cursor(&self, schedule: &str) -> Result<Option<String>> {
        Ok(self.kept_runs().cursors.get(schedule).cloned())
    }

    async fn advance(&self, advance: &Advance, now: DateTime<Utc>) -> Result<Vec<Created>> {
        let mut kept = self.kept_runs();
        if kept.cursors.get(&advance.schedule) != advance.from.as_ref() {
            let message = format!("schedule '{}' was moved on meanwhile", advance.schedule);
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        kept.cursors.insert(advance.schedule.clone(), advance.to.clone());
        Ok(advance.runs.iter().map(|new| kept.create(new, now)).collect())
    }

    async fn save_backfill(&self, backfill: &Backfill) -> Result<()> {
        let mut kept = self.kept_runs();
        kept.backfills.insert(backfill.id.clone(), backfill.clone());
        kept.wakes.wake(Wake::Run);
        Ok(())
    }

    async fn backfills(&self) -> Result<Vec<Backfill>> {
        let mut backfills: Vec<Backfill> = self.kept_runs().backfills.values().cloned().collect();
        backfills.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| b.id.cmp(&a.id)));
        Ok(backfills)
    }

    async fn save_version(
        &self,
        _: &FlowName,
        version: &FlowVersion,
        content: &Bytes,
        now: DateTime<Utc>,
    ) -> Result<()> {
        self.kept_runs().versions.insert(version.clone(), (content.clone(), now));
        Ok(())
    }

    async fn version(&self, version: &FlowVersion) -> Result<Bytes> {
        let kept = self.kept_runs();
        let content = kept.versions.get(version).map(|(content, _)| content.clone());
        content.ok_or_else(|| Error::not_found(format!("there is no version '{}' of a flow", version.short())))
    }

    async fn set_paused(&self, flow: &FlowName, paused: bool) -> Result<()> {
        let mut kept = self.kept_runs();
        if paused {
            kept.paused.insert(flow.clone());
        } else {
            kept.paused.remove(flow);
        }
        kept.wakes.wake(Wake::Run);
        Ok(())
    }

    async fn paused(&self) -> Result<Vec<FlowName>> {
        Ok(self.kept_runs().paused.iter().cloned().collect())
    }

    async fn set_variable(&self, name: &str, value: Option<&str>) -> Result<bool> {
        let variables = &mut self.kept_runs().variables;
        Ok(match value {
            Some(value) => variables.insert(name.to_owned(), value.to_owned()),
            None => variables.remove(name),
        }
        .is_some())
    }

    async fn variables(&self) -> Result<BTreeMap<String, String>> {
        Ok(self.kept_runs().variables.clone())
    }

    async fn save_pool(&self, pool: &Pool) -> Result<()> {
        let mut kept = self.kept_runs();
        kept.queue.set_limits(pool);
        kept.wakes.wake(Wake::Queue);
        Ok(())
    }

    async fn remove_pool(&self, name: &str) -> Result<()> {
        if self.kept_runs().queue.drop_limits(name) {
            return Ok(());
        }
        Err(Error::not_found(format!("there is no pool '{name}'")).hint("'flumen pool list' shows them"))
    }

    async fn pools(&self) -> Result<Vec<PoolUse>> {
        Ok(self.kept_runs().queue.pools())
    }

    async fn beat(&self, worker: &WorkerRecord) -> Result<()> {
        self.kept_runs().workers.insert(worker.id.clone(), worker.clone());
        Ok(())
    }

    async fn workers(&self) -> Result<Vec<WorkerRecord>> {
        Ok(self.kept_runs().workers.values().cloned().collect())
    }

    async fn forget_workers(&self, before: DateTime<Utc>) -> Result<usize> {
        let mut kept = self.kept_runs();
        let count = kept.workers.len();
        kept.workers.retain(|_, worker| worker.seen >= before);
        Ok(count - kept.workers.len())
    }

    async fn ended_before(&self, before: DateTime<Utc>) -> Result<Vec<RunId>> {
        Ok(self.kept_runs().ended_before(before))
    }

    async fn prune(&self, before: DateTime<Utc>, limit: usize) -> Result<usize> {
        Ok(self.kept_runs().prune(before, limit))
    }
}
