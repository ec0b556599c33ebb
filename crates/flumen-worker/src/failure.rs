//! From errors to the failures of attempts, and back. `retry_on` in a flow names them by the words of [`ErrorKind::name`].

use flumen_core::flow::Failure;
use flumen_core::{Error, ErrorKind};

/// The kind of error that a word stands for.
pub fn kind_named(name: &str) -> ErrorKind {
    use ErrorKind as E;
    let all = [E::Invalid, E::NotFound, E::Conflict, E::Unavailable, E::Data, E::Cancelled];
    all.into_iter().find(|kind| kind.name() == name).unwrap_or(E::Internal)
}

/// The failure of an attempt that ended with `error`. A request that is wrong is not made better by trying again.
pub fn of(error: &Error) -> Failure {
    let message = match error.remedy() {
        Some(remedy) => format!("{}; {remedy}", error.message()),
        None => error.message().to_owned(),
    };
    let failure = Failure::new(error.kind().name(), message);
    Failure { retryable: error.kind() != ErrorKind::Invalid, ..failure }
}
