//! When data sets were last updated. The list of updates in the store is read on from where it was read last, so that a look costs
//! what is new.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use flumen_core::Result;
use flumen_core::flow::store::MetaStore;
use flumen_core::flow::{RunId, WaitFor};
use flumen_flow::timetable::dates::Stretch;
use serde_json::json;
use tokio::sync::Mutex;

use super::{DatasetCondition, DatasetField, Look};
use crate::attempt::Attempt;

/// Updates that are read at once.
const PAGE: usize = 1_000;

/// The last update of each data set.
#[derive(Debug, Default)]
pub(super) struct Updates(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    read: u64,
    last: HashMap<String, (DateTime<Utc>, RunId)>,
}

impl Updates {
    /// Whether a data set was updated since.
    pub(super) async fn look(&self, attempt: &Attempt<'_>, field: &DatasetField) -> Result<Look> {
        let (dataset, since) = match field {
            DatasetField::Name(name) => (name, None),
            DatasetField::Since(DatasetCondition { name, since }) => (name, since.as_deref()),
        };
        let since = match since {
            None => attempt.work.run.interval.start,
            Some(text) => {
                let zone = attempt.version.compiled.timetable.zone();
                Stretch::parse(text, zone).map_err(|error| error.within("dataset.since"))?.first
            }
        };
        Ok(match self.last(&*attempt.host.store, dataset).await? {
            Some((at, run)) if at >= since => Look::There(json!({ "dataset": dataset, "run": run, "at": at })),
            last => {
                let saw = match last {
                    Some((at, _)) => format!("{dataset} was updated last at {}", at.format("%Y-%m-%d %H:%M:%S UTC")),
                    None => format!("{dataset} was not updated yet"),
                };
                Look::NotYet(Some(WaitFor::Dataset { dataset: dataset.clone(), since }), saw)
            }
        })
    }

    async fn last(&self, store: &dyn MetaStore, dataset: &str) -> Result<Option<(DateTime<Utc>, RunId)>> {
        let mut known = self.0.lock().await;
        loop {
            let page = store.touched(known.read, PAGE).await?;
            let is_last = page.len() < PAGE;
            for (id, run, touched) in page {
                known.read = id;
                for name in touched.writes {
                    let last = known.last.entry(name).or_insert((touched.at, run));
                    *last = (touched.at, run).max(*last);
                }
            }
            if is_last {
                return Ok(known.last.get(dataset).copied());
            }
        }
    }
}
