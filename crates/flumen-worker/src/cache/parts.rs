//! What an output depends on besides what the task reads.

use std::collections::BTreeMap;

use flumen_core::Result;
use flumen_core::task_kind::Path;
use flumen_flow::definition::params::ParamType;
use flumen_flow::definition::{Cache, CacheParams};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::attempt::Attempt;
use crate::kinds::Kind;

/// What an output depends on, in words, and how each of it was: a short value, or the hash of one that is long or secret.
pub(super) type Parts = BTreeMap<String, String>;

/// The longest value that is kept as it is.
const SHORT_CHARS: usize = 60;
/// What the names of parameters begin with.
const PARAMETER: &str = "parameter ";
/// What the names of files begin with.
const FILE: &str = "file ";
/// The fields as they are written.
const SOURCE: &str = "source";
/// What hashes begin with: no JSON does.
const HASHED: &str = "sha256:";

/// The parts of an attempt.
///
/// Errors: those of templates in files.
pub(super) fn of(attempt: &Attempt<'_>, kind: &dyn Kind, cache: &Cache) -> Result<Parts> {
    let mut parts = Parts::from([("kind".to_owned(), kind.name().to_owned())]);
    match attempt.config {
        Value::Object(fields) => {
            parts.extend(fields.iter().map(|(name, value)| (format!("field {name}"), hash_of(value))));
        }
        other => drop(parts.insert("fields".to_owned(), hash_of(other))),
    }
    for name in attempt.task.env.keys() {
        let value = attempt.environment.get(std::ffi::OsStr::new(name));
        let value = value.map(|value| hash(value.as_encoded_bytes()));
        parts.extend(value.map(|value| (format!("variable {name}"), value)));
    }
    parts.extend(attempt.work.queued.item.as_ref().map(|item| ("item".to_owned(), hash_of(item))));
    add_files(attempt, cache, &mut parts)?;
    if cache.source {
        let written = (&attempt.task.config, &attempt.task.env);
        parts.insert(SOURCE.to_owned(), hash(format!("{}{:?}", written.0, written.1).as_bytes()));
    }
    add_params(attempt, cache, &mut parts);
    Ok(parts)
}

/// Adds the files that the task names. What their templates become always counts.
fn add_files(attempt: &Attempt<'_>, cache: &Cache, parts: &mut Parts) -> Result<()> {
    for file in &attempt.task.uses.files {
        let Some(name) = at(attempt.config, &file.name.path).and_then(Value::as_str) else { continue };
        if file.is_template {
            parts.insert(format!("text of {name}"), hash(attempt.file_text(name)?.as_bytes()));
        }
        if cache.source {
            let bytes = match attempt.version.files.get(name) {
                Some(bytes) => Some(bytes.clone()),
                // One that is not there fails the task where it is used.
                None => std::fs::read(attempt.host.project.dir().join(name)).ok().map(Into::into),
            };
            parts.extend(bytes.map(|bytes| (format!("{FILE}{name}"), hash(&bytes))));
        }
    }
    Ok(())
}

fn add_params(attempt: &Attempt<'_>, cache: &Cache, parts: &mut Parts) {
    let counts = |name: &str| match &cache.params {
        CacheParams::Flag(all) => *all,
        CacheParams::These(names) => names.iter().any(|wanted| wanted == name),
    };
    for (name, value) in attempt.work.run.params.iter().filter(|(name, _)| counts(name)) {
        let spec = attempt.flow().params.iter().find(|spec| spec.name == *name);
        let text = value.to_string();
        let is_secret = spec.is_some_and(|spec| spec.kind == ParamType::Secret) || attempt.masks.apply(&text) != text;
        let is_short = text.chars().count() <= SHORT_CHARS;
        let kept = if is_secret || !is_short { hash_of(value) } else { text };
        parts.insert(format!("{PARAMETER}{name}"), kept);
    }
}

/// The value to which `path` leads.
fn at<'a>(value: &'a Value, path: &Path) -> Option<&'a Value> {
    path.keys().iter().try_fold(value, |value, key| match value {
        Value::Array(items) => items.get(key.parse::<usize>().ok()?),
        value => value.get(key),
    })
}

fn hash_of(value: &Value) -> String {
    hash(value.to_string().as_bytes())
}

pub(super) fn hash(bytes: &[u8]) -> String {
    let digits: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{HASHED}{digits}")
}

/// What has changed, from those parts to these.
pub(super) fn difference(old: &Parts, new: &Parts) -> String {
    let names = old.keys().chain(new.keys().filter(|name| !old.contains_key(*name)));
    let mut changed: Vec<&String> = names.filter(|name| old.get(*name) != new.get(*name)).collect();
    // What fields became follows from these.
    let is_cause = |name: &str| name == SOURCE || name.starts_with(FILE) || name.starts_with(PARAMETER);
    if changed.iter().any(|name| is_cause(name)) {
        changed.retain(|name| is_cause(name));
    }
    let one = |name: &String| match (old.get(name), new.get(name)) {
        (Some(from), Some(to)) if !from.starts_with(HASHED) && !to.starts_with(HASHED) => {
            format!("{name} changed from {} to {}", plain(from), plain(to))
        }
        (None, _) => format!("{name} is new"),
        (_, None) => format!("{name} counts no more"),
        _ => format!("{name} changed"),
    };
    changed.into_iter().map(one).collect::<Vec<_>>().join(", ")
}

/// A JSON text without quotation marks.
fn plain(text: &str) -> &str {
    text.trim_matches('"')
}
