//! Tables as they were: `FROM t VERSION AS OF 3`, `FROM t TIMESTAMP AS OF '…'`, `SET flumen.as_of = '…'`.

use chrono::{DateTime, NaiveDate, NaiveDateTime, Utc};
use deltalake_core::kernel::Action;
use flumen_core::{Error, Result};

use crate::lake::Table;
use crate::ledger::read_commit;

/// The version that `table`, whose latest is `latest`, had at `time`; none if it was not there yet.
///
/// Errors: `NotFound` if the log does not reach back so far.
pub(super) async fn version_at(table: &Table, latest: u64, time: DateTime<Utc>) -> Result<Option<u64>> {
    // Most often it is the latest.
    if committed(table, latest).await?.is_none_or(|at| at <= time) {
        return Ok(Some(latest));
    }
    // Commits stand in the order of their time: the last one that is not later is wanted.
    let (mut low, mut high) = (0, latest);
    let mut known = None;
    while low < high {
        let middle = low + (high - low) / 2;
        match committed(table, middle).await? {
            // What is gone from the log is older than what is there.
            None => low = middle + 1,
            Some(at) if at <= time => {
                known = Some(middle);
                low = middle + 1;
            }
            Some(_) => high = middle,
        }
    }
    if known.is_none() && committed(table, 0).await?.is_none() {
        return Err(Error::not_found(format!(
            "{}: the log of the table does not reach back to {}",
            table.address(),
            time.format("%Y-%m-%d %H:%M:%S UTC")
        ))
        .hint("ask for a later time; 'flumen lake history' lists the versions that are kept"));
    }
    Ok(known)
}

/// When a version was committed; none if the log no longer has it.
async fn committed(table: &Table, version: u64) -> Result<Option<DateTime<Utc>>> {
    let Some(actions) = read_commit(table, version).await? else { return Ok(None) };
    let said = actions.iter().find_map(|action| match action {
        Action::CommitInfo(info) => info.timestamp.and_then(DateTime::from_timestamp_millis),
        _ => None,
    });
    Ok(Some(said.unwrap_or(DateTime::UNIX_EPOCH)))
}

/// A point in time as people write it: RFC 3339, or a date with or without a time, in UTC.
///
/// Errors: `Invalid`, with the forms that are understood.
pub(super) fn point_in_time(text: &str) -> Result<DateTime<Utc>> {
    let text = text.trim();
    let zoned =
        DateTime::parse_from_rfc3339(text).or_else(|_| DateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f%#z"));
    if let Ok(time) = zoned {
        return Ok(time.with_timezone(&Utc));
    }
    for form in ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M"] {
        if let Ok(time) = NaiveDateTime::parse_from_str(text, form) {
            return Ok(time.and_utc());
        }
    }
    if let Some(time) = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().and_then(|day| day.and_hms_opt(0, 0, 0)) {
        return Ok(time.and_utc());
    }
    Err(Error::invalid(format!("'{text}' is not a point in time"))
        .hint("write 2026-03-01, 2026-03-01 12:30:00 or 2026-03-01T12:30:00+01:00; without a zone it is UTC"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_people_write_them() {
        for (text, expect) in [
            ("2026-03-01", "2026-03-01T00:00:00+00:00"),
            ("2026-03-01 12:30", "2026-03-01T12:30:00+00:00"),
            ("2026-03-01 12:30:05.5", "2026-03-01T12:30:05.500+00:00"),
            ("2026-03-01T12:30:00+02:00", "2026-03-01T10:30:00+00:00"),
            ("2026-03-01 12:30:00+02", "2026-03-01T10:30:00+00:00"),
        ] {
            assert_eq!(point_in_time(text).unwrap().to_rfc3339(), expect, "{text}");
        }
        assert!(point_in_time("yesterday").is_err());
    }
}
