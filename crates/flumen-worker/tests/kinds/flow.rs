//! `flow`: another flow's run, begun once, waited for, and gone on with.

use chrono::TimeDelta;
use flumen_core::clock::Clock as _;
use flumen_core::flow::store::MetaStore as _;
use flumen_core::flow::{Origin, Outcome, RunState, Signal, Wait, WaitFor};
use serde_json::json;

use crate::support::{Fixture, start};

const CHILD: &str = "\
flow: child
schedule: \"@monthly\"
params:
  color: yellow
  rows: { type: int, required: false }
  day: \"{{ var('day') }}\"
tasks:
  say: { shell: \"true\" }
";

fn fixture() -> Fixture {
    Fixture::new(
        &[
            ("flows/child.yml", CHILD),
            ("flows/a_day.yml", "flow: a_day\ntasks: { a: { shell: \"true\" } }"),
            ("flumen.yml", "vars: { day: monday }"),
        ],
        &[],
    )
}

#[tokio::test]
async fn a_run_is_begun_once_and_waited_for() {
    let fixture = fixture();
    let parent = fixture.begin("one: { flow: { name: child, params: { rows: \"{{ 3 * 2 }}\" } } }").await;
    let work = fixture.work(&parent, "one", 1);
    let Outcome::Deferred { wait: Wait { on: WaitFor::Run { run: id }, until: None } } = fixture.execute(&work).await
    else {
        panic!("{:?}", fixture.lines())
    };
    let child = fixture.store.run(id).await.unwrap();
    assert_eq!(child.interval, parent.interval);
    assert_eq!(json!(child.params), json!({ "color": "yellow", "rows": 6, "day": "monday" }));
    assert_eq!(child.origin, Origin::Task { run: parent.id, task: work.queued.key.clone() });
    assert_eq!(child.state, RunState::Queued);
    assert!(fixture.store.load(id).await.unwrap().inbox.iter().any(|letter| letter.signal == Signal::Start));
    assert_eq!(fixture.seen.children(), [id]);
    // Another look, and another attempt, find the same run; and its end.
    let again = fixture.execute(&fixture.work(&parent, "one", 2)).await;
    assert_eq!(again, Outcome::Deferred { wait: Wait { on: WaitFor::Run { run: id }, until: None } });
    fixture.commit(id, |run| run.state = RunState::Success, Vec::new()).await;
    assert_eq!(fixture.execute(&work).await, Outcome::success(json!({ "run_id": id, "state": "success" })));
    // A task that was cleared has a new one.
    let cleared = fixture.work(&parent, "one", 3);
    let mut task = fixture.begun(&cleared);
    task.spared = 2;
    fixture.commit(parent.id, |_| {}, vec![task]).await;
    assert!(matches!(fixture.execute(&cleared).await,
        Outcome::Deferred { wait: Wait { on: WaitFor::Run { run }, .. } } if run != id));
}

#[tokio::test]
async fn a_run_that_failed_fails_the_task_and_goes_on_with_the_next_attempt() {
    let fixture = fixture();
    let parent = fixture.begin("one: { flow: { name: child, params: { rows: 1 } } }").await;
    let first = fixture.work(&parent, "one", 1);
    let task = fixture.begun(&first);
    fixture.commit(parent.id, |_| {}, vec![task]).await;
    let Outcome::Deferred { wait: Wait { on: WaitFor::Run { run: id }, .. } } = fixture.execute(&first).await else {
        panic!("{:?}", fixture.lines())
    };
    fixture.clock.advance(60);
    let ended = fixture.clock.now();
    let fail = move |run: &mut flumen_core::flow::RunRecord| {
        run.state = RunState::Failed;
        run.cause = "last task 'say' is failed: exit code 1".to_owned();
        run.ended = Some(ended);
    };
    fixture.commit(id, fail, Vec::new()).await;
    let Outcome::Failure(failure) = fixture.execute(&first).await else { panic!() };
    assert_eq!(failure.kind, "exit");
    assert_eq!(failure.message, format!("run {id} of flow 'child' failed: last task 'say' is failed: exit code 1"));
    // The next attempt asks the run to go on; a scheduler does what it asks.
    fixture.clock.advance(60);
    let second = fixture.work(&parent, "one", 2);
    let task = fixture.begun(&second);
    fixture.commit(parent.id, |_| {}, vec![task]).await;
    let scheduler = async {
        loop {
            let asked = fixture.store.inbox(id).await.unwrap().1;
            if asked.iter().any(|letter| matches!(&letter.signal, Signal::Retry { by } if by.contains("task one"))) {
                break fixture.commit(id, |run| run.state = RunState::Running, Vec::new()).await;
            }
            tokio::task::yield_now().await;
        }
    };
    let (outcome, ()) = tokio::join!(fixture.execute(&second), scheduler);
    assert_eq!(outcome, Outcome::Deferred { wait: Wait { on: WaitFor::Run { run: id }, until: None } });
}

#[tokio::test]
async fn intervals_named_copies_and_mistakes() {
    let fixture = fixture();
    let tasks =
        "one: { flow: { name: child, wait: false, deployment: green, interval: 2020-11, params: { rows: 1 } } }";
    let output = fixture.output(tasks).await;
    let id = output["run_id"].as_str().unwrap().parse().unwrap();
    let child = fixture.store.run(id).await.unwrap();
    assert_eq!((child.deployment.as_deref(), &child.params["color"]), (Some("green"), &json!("green")));
    assert_eq!(child.interval.start, "2020-11-01T00:00:00Z".parse::<chrono::DateTime<chrono::Utc>>().unwrap());
    assert_eq!(child.interval.length(), TimeDelta::days(30));
    assert!(child.interval.start < start());
    // A template that becomes a number is a text where one is wanted.
    let output =
        fixture.output("one: { flow: { name: a_day, wait: false, interval: \"{{ execution_date.year }}\" } }").await;
    let a_year = fixture.store.run(output["run_id"].as_str().unwrap().parse().unwrap()).await.unwrap();
    assert_eq!(a_year.interval.length(), TimeDelta::days(365));
    let (kind, message) = fixture.failure("one: { flow: { name: \"{{ 'chidl' }}\" } }").await;
    assert!(kind == "not_found" && message.contains("did you mean 'child'?"), "{message}");
    let (kind, message) = fixture.failure("one: { flow: { name: \"{{ 'child' }}\", params: { rows: many } } }").await;
    assert!(kind == "invalid" && message.contains("parameter 'rows' must be a whole number"), "{message}");
}
