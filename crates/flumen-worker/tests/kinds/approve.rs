//! `approve`: it waits for a person, for as long as it says.

use chrono::TimeDelta;
use flumen_core::clock::Clock as _;
use flumen_core::flow::{Outcome, Wait, WaitFor};

use crate::support::Fixture;

#[tokio::test]
async fn it_asks_and_waits() {
    let fixture = Fixture::new(&[], &[]);
    let (outcome, _) = fixture.run("one: { approve: \"Load {{ ds }}?\" }").await;
    let on = WaitFor::Person { question: "Load 2021-01-05?".to_owned() };
    assert_eq!(outcome, Outcome::Deferred { wait: Wait { on: on.clone(), until: None } });
    let (outcome, _) = fixture.run("one: { approve: { question: \"Load {{ ds }}?\", patience: 2h } }").await;
    let until = Some(fixture.clock.now() + TimeDelta::hours(2));
    assert_eq!(outcome, Outcome::Deferred { wait: Wait { on, until } });
}
