//! What tasks give to later ones: small values in the store, large ones in the lake's root.

use flumen_core::flow::store::Work;
use flumen_core::{Error, Result};
use serde_json::{Value, json};

use crate::kept::{Kept, output_folder};

/// Bytes of an output, as JSON, from which it is kept in the lake's root.
const LARGE_BYTES: usize = 64 << 10;
/// The most bytes of an output: what is larger is data, and belongs into a table or a file.
pub(crate) const MOST_BYTES: usize = 16 << 20;
/// The key of an object that stands for a large output.
const ELSEWHERE: &str = "_flumen_output";

/// The value to keep in the store for `output`: itself, or where it is.
///
/// Errors: `Invalid` for one that is too large; those of the lake's root.
pub(crate) async fn keep(kept: &Kept, work: &Work, output: Value) -> Result<Value> {
    let text = serde_json::to_vec(&output)
        .map_err(|error| Error::internal("an output cannot be written as JSON").caused_by(error))?;
    if text.len() <= LARGE_BYTES {
        return Ok(output);
    }
    if text.len() > MOST_BYTES {
        return Err(Error::invalid(format!(
            "the output has {} MB; {} MB are allowed",
            text.len() >> 20,
            MOST_BYTES >> 20
        ))
        .hint("write it to a table or a file, and give its name to the tasks that follow"));
    }
    let path = format!("{}/{}-{}.json", output_folder(work.run.id), work.queued.key, work.lease.number);
    kept.put(&path, text.into()).await?;
    Ok(json!({ ELSEWHERE: path }))
}

/// The output that `value` is, or stands for.
///
/// Errors: `NotFound` where the lake's root does not have it any more; those of the lake's root.
pub async fn read(kept: &Kept, value: &Value) -> Result<Value> {
    let Some(path) = value.get(ELSEWHERE).and_then(Value::as_str) else { return Ok(value.clone()) };
    let text = kept.get(path).await?.ok_or_else(|| {
        Error::not_found(format!("the output {path} is not in the lake's root any more"))
            .hint("clear the task that made it")
    })?;
    serde_json::from_slice(&text).map_err(|error| Error::data(format!("the output {path} is damaged")).caused_by(error))
}
