//! `sensor`: what is there, what is not yet, and how long it is waited for.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use chrono::{DateTime, TimeDelta, Utc};
use flumen_core::clock::Clock as _;
use flumen_core::flow::store::{Commit, MetaStore as _, PendingWait};
use flumen_core::flow::{Outcome, RunId, RunState, TaskId, Touched, Wait, WaitFor};
use flumen_worker::logs::LogReader;
use flumen_worker::{execute, look};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::support::{Answer, Fixture, WebServer, start};

fn look_every(seconds: u64, until: Option<DateTime<Utc>>) -> Outcome {
    Outcome::Deferred { wait: Wait { on: WaitFor::Check { every_seconds: seconds, what: json!({}) }, until } }
}

/// An outcome without what is said to a person.
fn bare(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Deferred { wait: Wait { on: WaitFor::Check { every_seconds, what }, until } } => {
            assert!(what["for"].as_str().is_some_and(|said| !said.is_empty()), "{what}");
            Outcome::Deferred { wait: Wait { on: WaitFor::Check { every_seconds, what: json!({}) }, until } }
        }
        other => other,
    }
}

#[tokio::test]
async fn files_by_name_and_by_pattern() {
    let fixture = Fixture::new(&[], &[]);
    let one = "one: { sensor: { file: \"in/{{ ds }}.csv\" } }";
    assert_eq!(bare(fixture.run(one).await.0), look_every(30, None));
    fixture.write("in/2021-01-05.csv", "x");
    fixture.write("in/a/b/c.csv", "x");
    fixture.write("in/.hidden.csv", "x");
    assert_eq!(fixture.output(one).await, json!({ "files": ["in/2021-01-05.csv"] }));
    assert_eq!(fixture.output("one: { sensor: { file: in/*.csv } }").await, json!({ "files": ["in/2021-01-05.csv"] }));
    assert_eq!(fixture.output("one: { sensor: { file: in/*/?/c.csv } }").await, json!({ "files": ["in/a/b/c.csv"] }));
    let all = json!({ "files": ["in/2021-01-05.csv", "in/a/b/c.csv"] });
    assert_eq!(fixture.output("one: { sensor: { file: \"in/**/*.csv\" } }").await, all);
    assert_eq!(bare(fixture.run("one: { sensor: { file: in/*.txt, every: 5s } }").await.0), look_every(5, None));
    assert_eq!(bare(fixture.run("one: { sensor: { file: nowhere/*/x } }").await.0), look_every(30, None));
    let url = format!("file://{}/in/*.csv", fixture.dir().display());
    let output = fixture.output(&format!("one: {{ sensor: {{ file: \"{url}\" }} }}")).await;
    assert!(output["files"][0].as_str().unwrap().ends_with("/in/2021-01-05.csv"), "{output}");
    let (kind, message) = fixture.failure("one: { sensor: { file: \"https://example.org/x\" } }").await;
    assert!(kind == "invalid" && message.contains("'http'"), "{message}");
}

#[tokio::test]
async fn patience_counts_from_the_beginning_of_the_attempt() {
    let fixture = Fixture::new(&[], &[]);
    for (mode, soft) in [("deferred", false), ("deferred", true), ("reschedule", false), ("reschedule", true)] {
        let run = fixture
            .begin(&format!("one: {{ sensor: {{ file: x, mode: {mode}, every: 40s, patience: 60s, soft: {soft} }} }}"))
            .await;
        let work = fixture.work(&run, "one", 1);
        let began = fixture.clock.now();
        let task = fixture.begun(&work);
        fixture.commit(run.id, |_| {}, vec![task]).await;
        let deadline = began + TimeDelta::seconds(60);
        let waits = |seconds| match mode {
            "deferred" if soft => look_every(40, None),
            "deferred" => look_every(40, Some(deadline)),
            _ => Outcome::Rescheduled { until: began + TimeDelta::seconds(seconds) },
        };
        assert_eq!(bare(fixture.execute(&work).await), waits(40), "{mode} {soft}");
        fixture.clock.advance(40);
        assert_eq!(bare(fixture.execute(&work).await), waits(60), "{mode} {soft}");
        fixture.clock.advance(20);
        match fixture.execute(&work).await {
            Outcome::Failure(failure) if !soft => {
                assert_eq!((failure.kind.as_str(), failure.retryable), ("timeout", true))
            }
            Outcome::Skipped { cause } if soft => assert!(cause.contains("as long as it may"), "{cause}"),
            other => panic!("{mode} {soft} {other:?}"),
        }
    }
}

#[tokio::test]
async fn one_that_pokes_waits_on_its_worker_and_stops_when_told() {
    let fixture = Fixture::new(&[], &[]);
    let answers = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&answers);
    let server = WebServer::start(move |_| {
        Answer::text(if counted.fetch_add(1, Ordering::SeqCst) == 0 { 503 } else { 200 }, "")
    })
    .await;
    let poke = format!("one: {{ sensor: {{ http: {{ url: \"{}\" }}, mode: poke, every: 1ms }} }}", server.url);
    assert_eq!(fixture.output(&poke).await, json!({ "status": 200, "body": null }));
    assert_eq!(answers.load(Ordering::SeqCst), 2);
    let run = fixture.begin("one: { sensor: { file: x, mode: poke, every: 1h } }").await;
    let (work, cancel) = (fixture.work(&run, "one", 1), CancellationToken::new());
    let stop = async {
        tokio::task::yield_now().await;
        cancel.cancel();
    };
    let (outcome, ()) = tokio::join!(execute(&fixture.host, &work, &cancel), stop);
    assert_eq!(outcome, Outcome::Cancelled);
}

#[tokio::test]
async fn answers_of_web_servers() {
    let fixture =
        Fixture::new(&[("flumen.yml", "connections: { down: { kind: http, url: \"http://127.0.0.1:1\" } }")], &[]);
    let server = WebServer::start(|request| match request.path.as_str() {
        "/job?id=7" => Answer::json(200, "{\"state\": \"done\", \"rows\": 5}"),
        "/missing" => Answer::text(404, ""),
        "/secret" => Answer::text(401, "who are you"),
        _ => Answer::text(200, "it is ready now"),
    })
    .await;
    let http = |more: &str| format!("one: {{ sensor: {{ http: {{ {} }} }} }}", more.replace("URL", &server.url));
    for there in [
        "url: \"URL/job\", params: { id: 7 }, when: \"answer.state == 'done' and answer.rows > 4\"",
        "url: \"URL/\", contains: ready",
        "url: \"URL/\"",
        "url: \"URL/missing\", status: [404, 410]",
    ] {
        fixture.output(&http(there)).await;
    }
    for not_yet in [
        "url: \"URL/job\", params: { id: 7 }, when: answer.rows > 5",
        "url: \"URL/\", contains: steady",
        "url: \"URL/job\", params: { id: 7 }, when: answer.sums",
        "url: \"URL/job\", params: { id: 7 }, when: answer.sums.of_all == 3",
        "url: \"URL/\", when: answer.x",
        "url: \"URL/missing\"",
        "connection: down, url: x",
    ] {
        assert_eq!(bare(fixture.run(&http(not_yet)).await.0), look_every(30, None), "{not_yet}");
    }
    let (kind, message) = fixture.failure(&http("url: \"URL/secret\"")).await;
    assert!(kind == "invalid" && message.contains("who are you"), "{message}");
    let (kind, message) = fixture.failure(&http("url: \"URL/job\", params: { id: 7 }, when: anwser.rows")).await;
    assert!(kind == "invalid" && message.contains("did you mean 'answer'?"), "{message}");
}

#[tokio::test]
async fn a_query_is_asked_in_a_process_of_its_own() {
    let fixture = Fixture::new(&[], &[]);
    // It stands for the binary: it answers with the query, which is a value here.
    let binary = "#!/usr/bin/env python3\nimport json, os, sys\njob = json.load(sys.stdin)\nassert job['kind'] == 'sensor', job\n\
                  value = json.loads(job['config']['query'])\n\
                  result = {'failed': {'kind': 'unavailable', 'message': 'away'}} if value == 'away' else {'done': {'output': value}}\n\
                  open(os.environ['FLUMEN_RESULT'], 'w').write(json.dumps(result))\n\
                  sys.exit(3 if value == 'die' else 0)\n";
    fixture.write("flumen", binary);
    std::fs::set_permissions(fixture.dir().join("flumen"), std::fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(fixture.output("one: { sensor: { sql: { query: \"3\", connection: lake } } }").await, json!(3));
    assert_eq!(bare(fixture.run("one: { sensor: { sql: { query: \"0\" } } }").await.0), look_every(30, None));
    assert_eq!(bare(fixture.run("one: { sensor: { sql: { query: '\"away\"' } } }").await.0), look_every(30, None));
    let (kind, message) = fixture.failure("one: { sensor: { sql: { query: '\"die\"' } } }").await;
    assert!(kind == "exit" && message == "the command failed", "{message}");
}

#[tokio::test]
async fn data_sets_that_were_updated() {
    let fixture = Fixture::new(&[], &[]);
    let since = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
    let waits = |since| {
        let on = WaitFor::Dataset { dataset: "lake.raw.trips".to_owned(), since };
        Outcome::Deferred { wait: Wait { on, until: None } }
    };
    let one = "one: { sensor: { dataset: lake.raw.trips } }";
    assert_eq!(fixture.run(one).await.0, waits(start()));
    let update = async |at: DateTime<Utc>, writes: &str| {
        let run = fixture.begin("one: { shell: \"true\" }").await;
        let mut commit = Commit::new(run.clone(), fixture.store.load(run.id).await.unwrap().version, at);
        commit.touched =
            vec![Touched { task: TaskId::from("one"), at, reads: Vec::new(), writes: vec![writes.to_owned()] }];
        fixture.store.commit(&commit).await.unwrap();
    };
    update(start() - TimeDelta::hours(1), "lake.raw.trips").await;
    update(start() + TimeDelta::hours(1), "lake.raw.zones").await;
    assert_eq!(fixture.run(one).await.0, waits(start()));
    let earlier = "one: { sensor: { dataset: { name: lake.raw.trips, since: \"{{ yesterday_ds }}\" } } }";
    assert_eq!(fixture.output(earlier).await["at"], "2021-01-04T23:00:00Z");
    let later = "one: { sensor: { dataset: { name: lake.raw.trips, since: 2021-02 }, mode: reschedule } }";
    let until = fixture.clock.now() + TimeDelta::seconds(30);
    assert_eq!(fixture.run(later).await.0, Outcome::Rescheduled { until });
    update(since("2021-02-03T00:00:00Z"), "lake.raw.trips").await;
    let output = fixture.output(later).await;
    assert_eq!((&output["dataset"], &output["at"]), (&json!("lake.raw.trips"), &json!("2021-02-03T00:00:00Z")));
}

#[tokio::test]
async fn runs_of_other_flows() {
    let other = "flow: other\nschedule: \"@daily\"\ntasks: { one: { shell: \"true\" } }";
    let fixture = Fixture::new(&[("flows/other.yml", other)], &[]);
    let one = "one: { sensor: { run: other } }";
    assert_eq!(bare(fixture.run(one).await.0), look_every(30, None));
    let another_day = fixture.make_run("other", start() + TimeDelta::days(1)).await;
    assert_eq!(bare(fixture.run(one).await.0), look_every(30, None));
    let id = fixture.make_run("other", start()).await;
    assert_eq!(
        fixture.run(one).await.0,
        Outcome::Deferred { wait: Wait { on: WaitFor::Run { run: id }, until: None } }
    );
    let soft = "one: { sensor: { run: other, patience: 1h, soft: true } }";
    assert_eq!(bare(fixture.run(soft).await.0), look_every(30, None));
    fixture.commit(id, |run| run.state = RunState::Failed, Vec::new()).await;
    let (kind, message) = fixture.failure(one).await;
    assert!(kind == "exit" && message.contains("of flow 'other' failed"), "{message}");
    // One that succeeded counts, whatever came after it.
    fixture.commit(id, |run| run.state = RunState::Success, Vec::new()).await;
    fixture.make_run("other", start()).await;
    assert_eq!(fixture.output(one).await["run_id"], json!(id));
    let by_interval = "one: { sensor: { run: { flow: other, interval: \"{{ tomorrow_ds }}\" } } }";
    let waits = Outcome::Deferred { wait: Wait { on: WaitFor::Run { run: another_day }, until: None } };
    assert_eq!(fixture.run(by_interval).await.0, waits);
    assert_eq!(fixture.run(&format!("one: {{ sensor: {{ run: {{ id: \"{another_day}\" }} }} }}")).await.0, waits);
    let unknown = "one: { sensor: { run: { id: 00000000000000000000000000000000 } } }";
    assert_eq!(bare(fixture.run(unknown).await.0), look_every(30, None));
}

#[tokio::test]
async fn times_and_delays() {
    let fixture = Fixture::new(&[], &[]);
    let now = fixture.clock.now();
    let at = |at| Outcome::Deferred { wait: Wait { on: WaitFor::Time { at }, until: None } };
    let (outcome, _) =
        fixture.run("one: { sensor: { time: \"{{ data_interval_end + macros.timedelta(days=2) }}\" } }").await;
    assert_eq!(outcome, at(start() + TimeDelta::days(3)));
    assert_eq!(fixture.output("one: { sensor: { time: \"{{ ds }}\" } }").await, json!(null));
    assert_eq!(fixture.run("one: { sensor: { delay: 90s } }").await.0, at(now + TimeDelta::seconds(90)));
    let (outcome, _) = fixture.run("one: { sensor: { delay: 90s, mode: reschedule } }").await;
    assert_eq!(outcome, Outcome::Rescheduled { until: now + TimeDelta::seconds(90) });
    assert_eq!(fixture.output("one: { sensor: { delay: 0 } }").await, json!(null));
    let (kind, message) = fixture.failure("one: { sensor: { time: \"{{ 'soon' }}\" } }").await;
    assert!(kind == "invalid" && message.contains("time: 'soon' is not a date"), "{message}");
}

#[tokio::test]
async fn a_wait_is_looked_at_until_it_is_over() {
    let answers = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&answers);
    let server = WebServer::start(move |_| match counted.fetch_add(1, Ordering::SeqCst) {
        0 | 2 => Answer { cut: true, ..Answer::text(200, "x") },
        1 => Answer::text(503, ""),
        _ => Answer::text(403, "no"),
    })
    .await;
    let fixture = Fixture::new(&[], &[]);
    let task = format!(
        "one: {{ for_each: [a, b], sensor: {{ http: {{ url: \"{}\", params: {{ item: \"{{{{ item }}}}\" }}, contains: x }}, patience: 1h }} }}",
        server.url
    );
    let run = fixture.begin(&task).await;
    let mut work = fixture.work(&run, "one[1]", 3);
    work.queued.item = Some("b".into());
    let mut whole = fixture.begun(&fixture.work(&run, "one", 1));
    whole.items = Some(vec!["a".into(), "b".into()]);
    let task = fixture.begun(&work);
    fixture.commit(run.id, |_| {}, vec![whole, task]).await;
    let outcome = fixture.execute(&work).await;
    let Outcome::Deferred { wait } = outcome else { panic!("{outcome:?}") };
    let wait = PendingWait { id: 1, run: run.id, key: work.queued.key.clone(), number: work.lease.number, wait };
    assert_eq!(look(&fixture.host, &wait).await.unwrap(), None);
    assert_eq!(look(&fixture.host, &wait).await.unwrap(), None);
    let Some(Outcome::Failure(failure)) = look(&fixture.host, &wait).await.unwrap() else { panic!() };
    assert_eq!(failure.kind, "invalid");
    assert!(server.requests().iter().all(|request| request.path == "/?item=b"));
    // What the attempt and its last look printed is there, in order; what others did is not.
    let lines = LogReader::new(fixture.host.kept.clone(), run.id).more(|_, _| true).await.unwrap();
    let texts: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
    assert!(
        texts.len() == 2 && texts[0].starts_with("not yet: it looks again later") && texts[1].contains("403"),
        "{texts:?}"
    );
    assert!(lines.iter().all(|line| line.attempt == 3 && line.number == work.lease.number));
    // A wait of a run that is not there any more cannot be looked at.
    let gone = PendingWait { run: RunId::new(uuid::Uuid::nil()), ..wait };
    assert!(look(&fixture.host, &gone).await.unwrap_err().to_string().contains("there is no run"));
}

#[tokio::test]
async fn objects_in_a_bucket() {
    let bucket = flumen_testkit::bucket::Bucket::s3();
    let settings = format!("connections:\n  trips: {}\n", bucket.connection());
    let fixture = Fixture::new(&[("flumen.yml", &settings)], &[]);
    let of = |path: &str| format!("one: {{ sensor: {{ file: \"{}/{path}\" }} }}", bucket.url());
    assert_eq!(bare(fixture.run(&of("raw/{{ ds }}.csv")).await.0), look_every(30, None));
    assert_eq!(bare(fixture.run(&of("raw/*/*.csv")).await.0), look_every(30, None));
    for key in ["raw/2021-01-05.csv", "raw/a/1.csv", "raw/a/2.csv", "raw/b/3.csv", "raw/b/c/4.csv", "raw/b/note.txt"] {
        bucket.put(key, "x");
    }
    let files = |keys: &[&str]| json!({ "files": keys.iter().map(|key| format!("{}/{key}", bucket.url())).collect::<Vec<_>>() });
    assert_eq!(fixture.output(&of("raw/{{ ds }}.csv")).await, files(&["raw/2021-01-05.csv"]));
    assert_eq!(fixture.output(&of("raw/*/*.csv")).await, files(&["raw/a/1.csv", "raw/a/2.csv", "raw/b/3.csv"]));
    assert_eq!(fixture.output(&of("raw/**/4.*")).await, files(&["raw/b/c/4.csv"]));
}
