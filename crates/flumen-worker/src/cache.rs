//! Outputs that are used again: a task with a `cache` does not run where an earlier success of it had the same parts and inputs.
//!
//! - `parts.rs`: what an output depends on besides what the task reads: its fields, its files, parameters.
//! - `states.rs`: whether data sets and files are as they were.
//! - `entries.rs`: the last outputs of each task, in the lake's root.
//!
//! What a task reads is looked at before it runs. So what it reads without having said so, and without having done so the last
//! time, counts as unknown until it has run once more. What cannot be told is never taken to be unchanged; and a cache that
//! cannot be read or written costs a run, and fails none.

mod entries;
mod parts;
mod states;

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use flumen_core::Result;
use flumen_core::boxed;
use flumen_core::flow::Outcome;
use flumen_core::task_kind::units::Period;
use flumen_flow::definition::{Cache, CacheInputs};

use crate::attempt::Attempt;
use crate::kinds::Kind;

use entries::{Entry, Shelf};
use parts::Parts;

/// The states of what a task reads, by name; `None` where one cannot be told.
type Inputs = BTreeMap<String, Option<String>>;

/// Runs an attempt of a task with a cache, unless an earlier output can be used.
///
/// Errors: those of the kind, and of templates.
#[boxed]
pub(crate) async fn run(attempt: &Attempt<'_>, kind: &dyn Kind, cache: &Cache) -> Result<Outcome> {
    let shelf = Shelf::of(attempt);
    let parts = parts::of(attempt, kind, cache)?;
    let entries = match shelf.entries().await {
        Ok(entries) => entries,
        Err(error) => {
            attempt.note(&format!("cache: {error}"));
            Vec::new()
        }
    };
    let mut names = named(attempt, kind, cache)?;
    if cache.inputs == CacheInputs::Flag(true) {
        let same = entries.iter().filter(|entry| entry.parts == parts);
        names.extend(same.flat_map(|entry| entry.inputs.keys()).map(|name| (name.clone(), name.clone())));
    }
    let inputs = states::of(attempt, &names).await?;
    let now = attempt.host.clock.now();
    // Whoever clears a task wants it to be done again.
    if attempt.host.use_cache && attempt.clears == 0 {
        let expires = cache.expires.map(|Period(expires)| expires);
        match pick(&entries, &parts, &inputs, expires, now) {
            Ok(entry) => match shelf.output(entry).await {
                Ok(output) => {
                    let ago = span((now - entry.at).to_std().unwrap_or_default());
                    let cause = format!("used the output of run {} from {ago} ago", entry.run);
                    attempt.note(&format!("cache: {cause}"));
                    return Ok(Outcome::Reused { output, cause });
                }
                Err(error) => attempt.note(&format!("cache: {error}")),
            },
            Err(why) => attempt.note(&format!("cache: no earlier output is used: {why}")),
        }
    }
    let outcome = kind.run(attempt).await?;
    if let Outcome::Success { output, reads, .. } = &outcome {
        let mut inputs = inputs;
        if cache.inputs == CacheInputs::Flag(true) {
            for read in reads {
                inputs.entry(read.clone()).or_default();
            }
        }
        let entry = Entry { run: attempt.work.run.id, at: attempt.host.clock.now(), parts, inputs, output: None };
        if let Err(error) = shelf.keep(entry, output).await {
            attempt.note(&format!("cache: the output is not kept: {error}"));
        }
    }
    Ok(outcome)
}

/// The data sets and files that must be unchanged, as they may be shown.
fn named(attempt: &Attempt<'_>, kind: &dyn Kind, cache: &Cache) -> Result<BTreeMap<String, String>> {
    match &cache.inputs {
        CacheInputs::Flag(false) => Ok(BTreeMap::new()),
        CacheInputs::Flag(true) => {
            let names = kind.inputs(attempt.config).into_iter();
            Ok(names.map(|name| (attempt.masks.apply(&name).into_owned(), name)).collect())
        }
        CacheInputs::These(texts) => {
            let render = |(index, text): (usize, &String)| {
                let name = attempt.renderer.text(&format!("cache.inputs[{index}]"), text)?;
                Ok((name.shown, name.value))
            };
            texts.iter().enumerate().map(render).collect()
        }
    }
}

/// The entry that can be used, of those that there are (the newest first); or why none can.
fn pick<'a>(
    entries: &'a [Entry],
    parts: &Parts,
    inputs: &Inputs,
    expires: Option<Duration>,
    now: DateTime<Utc>,
) -> std::result::Result<&'a Entry, String> {
    let mut why = None;
    for entry in entries.iter().filter(|entry| entry.parts == *parts) {
        match differs(entry, inputs, expires, now) {
            None => return Ok(entry),
            Some(reason) => drop(why.get_or_insert(reason)),
        }
    }
    Err(why.unwrap_or_else(|| match entries.first() {
        Some(newest) => parts::difference(&newest.parts, parts),
        None => "there is none".to_owned(),
    }))
}

/// Why an output with the same parts cannot be used.
fn differs(entry: &Entry, inputs: &Inputs, expires: Option<Duration>, now: DateTime<Utc>) -> Option<String> {
    let age = (now - entry.at).to_std().unwrap_or_default();
    if let Some(expires) = expires.filter(|expires| age > *expires) {
        return Some(format!("the last one is {} old, and expires after {}", span(age), Period(expires)));
    }
    for (name, state) in inputs {
        match (entry.inputs.get(name), state) {
            (_, None) => return Some(format!("it cannot be told whether {name} has changed")),
            (Some(Some(known)), Some(state)) if known == state => {}
            (Some(Some(_)), Some(_)) => return Some(format!("{name} has changed")),
            (Some(None), _) => return Some(format!("it is not known how {name} was when it was read")),
            (None, _) => return Some(format!("{name} is an input now")),
        }
    }
    let gone = entry.inputs.keys().find(|name| !inputs.contains_key(*name));
    gone.map(|name| format!("{name} is no input any more"))
}

/// A length of time, for a person.
fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}
