//! Tasks that run for each item of a list.

use flumen_core::flow::{Failure, RunState, Stop, StopTo, TaskState};
use flumen_core::words::{count as shown, counted};
use serde_json::Value;

use super::Step;
use crate::machine::run::At;

/// The kind of a failure of a task whose list is wrong, or whose items failed.
pub(super) const ITEMS: &str = "items";
/// How many items of one task are at work at once, where the flow does not say less. The others are begun as these end: so the
/// queue stays small, however long the list is.
pub const ITEMS_AT_ONCE: u32 = 2_000;

impl Step<'_> {
    /// The list is there.
    pub(super) fn expand(&mut self, node: usize, items: Vec<Value>) {
        let at = At::whole(node);
        let limit = self.graph.node(node).map.and_then(|map| map.limit).unwrap_or(u32::MAX - 1);
        if items.is_empty() {
            return self.change(at, TaskState::Skipped, "the list that it runs for is empty".to_owned());
        }
        if items.len() > limit as usize {
            let message =
                format!("the list that it runs for has {}; its limit is {limit}", counted(items.len() as u64, "item"));
            self.run.at_mut(at).failure = Some(Failure::lasting(ITEMS, message.clone()));
            return self.change(at, TaskState::Failed, message);
        }
        let count = counted(items.len() as u64, "item");
        self.run.at_mut(at).items = Some(items);
        self.run.at_mut(at).failure = None;
        self.change(at, TaskState::Running, format!("runs for {count}"));
        // A task whose list a worker made began with that.
        if self.graph.node(node).map.is_some_and(|map| !map.by_worker) {
            self.watch_length(node);
        }
        self.woken.push_back(node);
    }

    /// Begins items as long as it may, and ends the task when all of them have ended.
    pub(super) fn tend(&mut self, node: usize) {
        let count = self.item_count(node);
        let excess = self.run.nodes[node].tally.idle.range(count..).copied().collect::<Vec<_>>();
        for kid in excess {
            self.change(
                At::item(node, kid),
                TaskState::Removed,
                format!("the list now has {}", counted(u64::from(count), "item")),
            );
        }
        if let Some(stop) = self.stop_of(node) {
            return self.wind_up(node, stop);
        }
        if self.run.record.state == RunState::Running {
            self.begin_items(node, count);
        }
        if self.is_done(node) {
            self.sum_up(node, count);
        }
    }

    fn stop_of(&self, node: usize) -> Option<Stop> {
        let cause = self.run.record.cancelling.clone().filter(|_| self.is_ending(node));
        let by = self.by.clone();
        let cancelled = cause.map(|cause| Stop { to: self.run.ending(), cause, by });
        self.run.nodes[node].task.stop.clone().or(cancelled)
    }

    /// Whether all items have ended.
    pub(super) fn is_done(&self, node: usize) -> bool {
        let run = &self.run.nodes[node];
        run.kids.len() >= self.item_count(node) as usize && run.tally.done as usize == run.kids.len()
    }

    /// Begins no more items, and ends the task when none is at work. The list is kept: it may be gone on with.
    fn wind_up(&mut self, node: usize, stop: Stop) {
        for kid in self.run.nodes[node].tally.idle.clone() {
            self.turn_into(At::item(node, kid), stop.to, stop.cause.clone());
        }
        let tally = &self.run.nodes[node].tally;
        if tally.active > 0 {
            return;
        }
        let came_too_late = match stop.to {
            StopTo::Cancelled => tally.cancelled == 0,
            StopTo::Timeout => tally.cancelled + tally.failed == 0,
            StopTo::Marked(_) | StopTo::Cleared => false,
        };
        self.run.nodes[node].task.stop = None;
        if came_too_late && self.is_done(node) {
            return self.sum_up(node, self.item_count(node));
        }
        let by = std::mem::replace(&mut self.by, stop.by);
        self.turn_into(At::whole(node), stop.to, stop.cause);
        self.by = by;
    }

    fn begin_items(&mut self, node: usize, count: u32) {
        let at_once = self.graph.node(node).map.and_then(|map| map.at_once).unwrap_or(ITEMS_AT_ONCE);
        while self.run.nodes[node].tally.active < at_once.clamp(1, ITEMS_AT_ONCE) {
            let run = &self.run.nodes[node];
            let at = match run.tally.idle.first() {
                Some(kid) => At::item(node, *kid),
                None if run.kids.len() < count as usize => self.run.add_item(node, self.now),
                None => return,
            };
            self.make_ready(at, "its turn came".to_owned());
        }
    }

    /// The task as a whole is what its items are.
    pub(super) fn sum_up(&mut self, node: usize, count: u32) {
        let at = At::whole(node);
        let tally = self.run.nodes[node].tally.clone();
        if tally.cancelled > 0 {
            self.change(at, TaskState::Cancelled, format!("{} cancelled", of(tally.cancelled, count)));
        } else if tally.failed > 0 {
            let message = format!("{} failed", of(tally.failed, count));
            self.run.at_mut(at).failure = Some(Failure::lasting(ITEMS, message.clone()));
            self.change(at, TaskState::Failed, message);
        } else if tally.skipped == count {
            self.change(at, TaskState::Skipped, format!("{} skipped", of(count, count)));
        } else {
            self.change(at, TaskState::Success, format!("{} done", of(count, count)));
        }
    }

    pub(super) fn item_count(&self, node: usize) -> u32 {
        let items = self.run.nodes[node].task.items.as_ref().map_or(0, Vec::len);
        u32::try_from(items).unwrap_or(u32::MAX)
    }
}

/// `2 of 3 items`.
fn of(some: u32, all: u32) -> String {
    format!("{} of {}", shown(u64::from(some)), counted(u64::from(all), "item"))
}
