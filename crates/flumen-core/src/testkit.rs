//! What every implementation of a seam is held to.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should fail")]

mod meta;
pub mod seeds;

pub use meta::meta_store;

use chrono::DateTime;

use crate::ErrorKind;
use crate::user::{User, UserStore, Verifiers};

/// Holds an empty `store` to the contract of [`UserStore`]. `again` is a second view of the same users, as another
/// process would have it.
pub async fn user_store(store: &dyn UserStore, again: &dyn UserStore) {
    let user = |name: &str, read_only| User {
        name: name.to_owned(),
        read_only,
        created: DateTime::from_timestamp_micros(1_700_000_000_123_456).unwrap(),
    };
    let verifiers = |text: &str| Verifiers { scram: format!("scram {text}"), web: format!("web {text}") };
    assert_eq!(store.list().await.unwrap(), []);
    assert_eq!(store.find("ann").await.unwrap(), None);

    store.add(&user("bob", true), &verifiers("b")).await.unwrap();
    store.add(&user("ann", false), &verifiers("a")).await.unwrap();
    store.add(&user("Ann", false), &verifiers("A")).await.unwrap();
    let taken = again.add(&user("ann", true), &verifiers("x")).await.unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::Conflict, "{taken}");
    assert_eq!(again.list().await.unwrap(), [user("Ann", false), user("ann", false), user("bob", true)]);
    assert_eq!(again.find("ann").await.unwrap(), Some((user("ann", false), verifiers("a"))));

    again.set_verifiers("ann", &verifiers("new")).await.unwrap();
    assert_eq!(store.find("ann").await.unwrap(), Some((user("ann", false), verifiers("new"))));
    assert_eq!(store.find("Ann").await.unwrap().unwrap().1, verifiers("A"));
    store.set_read_only("ann", true).await.unwrap();
    assert!(again.find("ann").await.unwrap().unwrap().0.read_only);

    store.remove("ann").await.unwrap();
    assert_eq!(again.find("ann").await.unwrap(), None);
    assert_eq!(again.list().await.unwrap(), [user("Ann", false), user("bob", true)]);
    for error in [
        store.remove("ann").await.unwrap_err(),
        store.set_verifiers("ann", &verifiers("x")).await.unwrap_err(),
        store.set_read_only("ann", true).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    }
    // A name is free again once its user is gone.
    store.add(&user("ann", true), &verifiers("a")).await.unwrap();
    assert!(again.find("ann").await.unwrap().unwrap().0.read_only);
}
