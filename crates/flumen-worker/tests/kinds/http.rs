//! `http`: requests as they are meant, answers as values, and failures that say what another attempt would do.

use flumen_core::flow::Outcome;
use serde_json::json;

use crate::support::{Answer, Fixture, WebServer};

fn project(url: &str) -> Fixture {
    let settings = format!(
        "connections:\n  api: {{ kind: http, url: \"{url}/v1\", token: \"{{{{ secret_env('TOKEN') }}}}\", headers: {{ X-Team: data }} }}\n"
    );
    Fixture::new(&[("flumen.yml", &settings)], &[("TOKEN", "hunter2-token"), ("KEY", "k-e-y-0815")])
}

#[tokio::test]
async fn a_request_has_all_it_says_and_the_answer_is_a_value() {
    let server = WebServer::start(|request| match request.path.as_str() {
        "/text" => Answer::text(200, "plain"),
        "/empty" => Answer::text(204, ""),
        _ => Answer {
            headers: vec![
                ("content-type", "application/json".to_owned()),
                ("set-cookie", "id=1".to_owned()),
                ("x-a", "1".to_owned()),
            ],
            ..Answer::text(201, "{\"id\": 7}")
        },
    })
    .await;
    let fixture = project(&server.url);
    let output = fixture
        .output(
            "one:\n  http:\n    connection: api\n    url: jobs\n    params: { day: \"{{ ds }}\", tag: [a, b c] }\n    headers: { X-Key: \"{{ secret_env('KEY') }}\" }\n    json: { rows: \"{{ 2 + 2 }}\" }\n    expect: [200, 201]",
        )
        .await;
    assert_eq!((&output["status"], &output["body"]), (&json!(201), &json!({ "id": 7 })));
    assert_eq!((&output["headers"]["x-a"], &output["headers"]["set-cookie"]), (&json!("1"), &json!(null)));
    let request = server.requests().remove(0);
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/v1/jobs?day=2021-01-05&tag=a&tag=b+c"));
    assert_eq!(
        (request.headers["authorization"].as_str(), request.headers["x-team"].as_str()),
        ("Bearer hunter2-token", "data")
    );
    assert_eq!(
        (request.headers["x-key"].as_str(), request.headers["content-type"].as_str()),
        ("k-e-y-0815", "application/json")
    );
    assert_eq!(request.body, "{\"rows\":4}");
    // The short form; the connection is found by the address.
    assert_eq!(fixture.output(&format!("one: {{ http: \"{}/text\" }}", server.url)).await["body"], "plain");
    assert_eq!(fixture.output(&format!("one: {{ http: \"{}/v1/x\" }}", server.url)).await["status"], 201);
    let requests = server.requests();
    assert!(!requests[0].headers.contains_key("authorization") && requests[1].headers.contains_key("authorization"));
    assert_eq!(
        fixture.output(&format!("one: {{ http: {{ url: \"{}/empty\", method: delete, body: x }} }}", server.url)).await
            ["body"],
        json!(null)
    );
    assert_eq!(server.requests()[0].method, "DELETE");
}

#[tokio::test]
async fn statuses_say_what_another_attempt_would_do() {
    let server = WebServer::start(|request| {
        let status: u16 = request.path.trim_start_matches("/v1/").parse().unwrap();
        let said = request.headers.get("authorization").cloned().unwrap_or_default();
        Answer {
            headers: vec![("location", "http://127.0.0.1:1/".to_owned())],
            ..Answer::text(status, &format!("you said\n {said}"))
        }
    })
    .await;
    let fixture = project(&server.url);
    for (status, expect, retried) in [
        (500, "unavailable", true),
        (503, "unavailable", true),
        (429, "unavailable", true),
        (408, "unavailable", true),
        (404, "not_found", true),
        (409, "conflict", true),
        (400, "invalid", false),
        (401, "invalid", false),
        (422, "invalid", false),
    ] {
        let (outcome, lines) = fixture.run(&format!("one: {{ http: {{ connection: api, url: \"{status}\" }} }}")).await;
        let Outcome::Failure(failure) = outcome else { panic!("{status} {outcome:?}") };
        assert_eq!((failure.kind.as_str(), failure.retryable), (expect, retried), "{status}");
        let whole = format!("{} {lines:?}", failure.message);
        assert!(
            whole.contains(&format!("the server answers {status}")) && whole.contains("you said Bearer ***"),
            "{whole}"
        );
        assert!(!whole.contains("hunter2"), "{whole}");
    }
    // One that is expected is none; one that is not, is.
    let output = fixture.output("one: { http: { connection: api, url: \"404\", expect: 404 } }").await;
    assert_eq!(output["status"], 404);
    let (kind, message) = fixture.failure("one: { http: { connection: api, url: \"200\", expect: [201] } }").await;
    assert!(kind == "data" && message.contains("expect"), "{message}");
    // Nobody there.
    let (kind, message) = fixture.failure("one: { http: { url: \"http://127.0.0.1:1/x?token=s3\" } }").await;
    assert!(kind == "unavailable" && !message.contains("s3"), "{kind} {message}");
}

#[tokio::test]
async fn a_server_that_is_silent_is_given_up() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let fixture = project("http://127.0.0.1:1");
    let (kind, message) = fixture.failure(&format!("one: {{ http: {{ url: \"{url}\", timeout: 50ms }} }}")).await;
    assert!(kind == "unavailable" && message.contains("does not answer in time"), "{message}");
}

#[tokio::test]
async fn bodies_are_read_within_a_limit_or_saved() {
    let server = WebServer::start(|request| match request.path.as_str() {
        "/broken" => Answer::json(200, "{"),
        "/bytes" => Answer { status: 200, body: vec![0xff, 0xfe, 0x00], ..Answer::default() },
        "/json" => Answer::text(200, " [1, 2]"),
        _ => Answer::text(200, &"x".repeat(5000)),
    })
    .await;
    let fixture = project(&server.url);
    let of = |path: &str, more: &str| format!("one: {{ http: {{ url: \"{}/{path}\"{more} }} }}", server.url);
    let (kind, message) = fixture.failure(&of("large", ", limit: 4kB")).await;
    assert!(kind == "invalid" && message.contains("more than 4000 bytes") && message.contains("'save'"), "{message}");
    let (kind, message) = fixture.failure(&of("broken", "")).await;
    assert!(kind == "data" && message.contains("says that it is JSON"), "{message}");
    let (kind, message) = fixture.failure(&of("bytes", "")).await;
    assert!(kind == "data" && message.contains("not text"), "{message}");
    assert_eq!(fixture.output(&of("json", "")).await["body"], json!([1, 2]));
    let output = fixture.output(&of("bytes", ", save: \"data/{{ ds }}.bin\"")).await;
    assert_eq!((&output["file"], &output["bytes"]), (&json!("data/2021-01-05.bin"), &json!(3)));
    assert_eq!(std::fs::read(fixture.dir().join("data/2021-01-05.bin")).unwrap(), [0xff, 0xfe, 0x00]);
    assert_eq!(std::fs::read_dir(fixture.dir().join("data")).unwrap().count(), 1);
}
