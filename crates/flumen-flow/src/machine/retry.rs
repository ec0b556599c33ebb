//! Whether a failure is tried again, and when.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use flumen_core::flow::{Failure, FlowName, TaskKey};
use flumen_core::{Error, Result};

/// Lost workers that cost a task no attempt, where it does not say otherwise.
pub const INFRA_RETRIES: u32 = 3;
/// The longest delay, where none is said: retries that back off stop growing here.
pub const MAX_RETRY_DELAY: Duration = Duration::from_secs(24 * 3600);

/// What becomes of failures.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    /// Attempts after the first.
    pub retries: u32,
    /// The delay before each of them; the last one holds for all that follow.
    pub delays: Vec<Duration>,
    /// By what the delay grows from one to the next.
    pub factor: f64,
    /// The longest delay.
    pub max_delay: Duration,
    /// Up to which part of itself the delay grows by chance, 0 to 1.
    pub jitter: f64,
    /// What is tried again; everything that may get better, where it is not said.
    pub on: Vec<Match>,
    /// What is not.
    pub not_on: Vec<Match>,
    /// Lost workers that cost no attempt; any number, where it is `None`.
    pub infra: Option<u32>,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            retries: 0,
            delays: Vec::new(),
            factor: 1.0,
            max_delay: MAX_RETRY_DELAY,
            jitter: 0.0,
            on: Vec::new(),
            not_on: Vec::new(),
            infra: Some(INFRA_RETRIES),
        }
    }
}

impl Retry {
    /// Whether `failure` is one that another attempt may mend.
    pub fn covers(&self, failure: &Failure) -> bool {
        let matches = |list: &[Match]| list.iter().any(|one| one.matches(failure));
        if matches(&self.not_on) {
            false
        } else if self.on.is_empty() {
            failure.retryable
        } else {
            matches(&self.on)
        }
    }

    /// How long after the failure of attempt `tried` (from 1) the next one begins. The same task run of the same interval always
    /// waits as long.
    pub fn delay(&self, tried: u32, flow: &FlowName, key: &TaskKey, logical_date: DateTime<Utc>) -> TimeDelta {
        let before = tried.saturating_sub(1);
        let place = usize::try_from(before).unwrap_or(usize::MAX).min(self.delays.len().saturating_sub(1));
        let first = self.delays.get(place).copied().unwrap_or_default().as_secs_f64();
        let grown = first * self.factor.powi(i32::try_from(before).unwrap_or(i32::MAX));
        let delay = grown.min(self.max_delay.as_secs_f64());
        let chance = if self.jitter > 0.0 { chance(flow, key, logical_date, tried) } else { 0.0 };
        let micros = delay * (1.0 + self.jitter * chance) * 1e6;
        // Beyond a century a float says nothing new.
        TimeDelta::microseconds(micros.clamp(0.0, 3.2e15).round() as i64)
    }
}

/// A number from 0 to just under 1 that belongs to an attempt.
fn chance(flow: &FlowName, key: &TaskKey, logical_date: DateTime<Utc>, tried: u32) -> f64 {
    let text = format!("{flow}\n{key}\n{}\n{tried}", logical_date.timestamp_micros());
    // FNV-1a, and the last step of SplitMix64: the same on every machine and in every version.
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in text.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^= hash >> 31;
    (hash >> 11) as f64 / (1u64 << 53) as f64
}

/// What `retry_on` and `no_retry_on` name: a kind of failure, or exit codes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// A kind, such as `timeout`.
    Kind(String),
    /// Exit codes, such as `137` or `64-78`.
    Exit(RangeInclusive<i32>),
}

impl Match {
    /// Whether `failure` is one of these.
    pub fn matches(&self, failure: &Failure) -> bool {
        match self {
            Match::Kind(kind) => *kind == failure.kind,
            Match::Exit(codes) => failure.exit_code.is_some_and(|code| codes.contains(&code)),
        }
    }
}

impl FromStr for Match {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::invalid(format!("'{text}' is neither a kind of failure nor an exit code"))
                .hint("write 'timeout', 137 or 64-78")
        };
        if !text.starts_with(|c: char| c.is_ascii_digit()) {
            return if text.is_empty() { Err(wrong()) } else { Ok(Match::Kind(text.to_owned())) };
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (first.trim().parse(), last.trim().parse()) {
            (Ok(first), Ok(last)) if first <= last => Ok(Match::Exit(first..=last)),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Match::Kind(kind) => f.write_str(kind),
            Match::Exit(codes) if codes.start() == codes.end() => write!(f, "{}", codes.start()),
            Match::Exit(codes) => write!(f, "{}-{}", codes.start(), codes.end()),
        }
    }
}
