//! `notify`: webhooks and mail, over real connections.

use std::sync::{Arc, Mutex};

use flumen_core::flow::Outcome;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio_rustls::TlsAcceptor;

use crate::support::{Answer, Fixture, WebServer};

/// A mail server that keeps what it gets. It refuses mail to `nobody@…` for good, and to `busy@…` for now.
pub struct MailServer {
    pub port: u16,
    got: Arc<Mutex<Vec<String>>>,
    serving: tokio::task::JoinHandle<()>,
}

impl MailServer {
    pub async fn start(tls: Option<TlsAcceptor>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let got = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&got);
        let serving = tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                // A client may go at any time.
                let _ = match &tls {
                    Some(tls) => match tls.accept(socket).await {
                        Ok(socket) => talk(socket, &kept).await,
                        Err(error) => Err(error),
                    },
                    None => talk(socket, &kept).await,
                };
            }
        });
        Self { port, got, serving }
    }

    fn got(&self) -> String {
        std::mem::take(&mut *self.got.lock().unwrap()).join("\n")
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn talk(socket: impl AsyncRead + AsyncWrite + Unpin, got: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut socket = BufReader::new(socket);
    socket.write_all(b"220 test\r\n").await?;
    let (mut line, mut in_data) = (String::new(), false);
    loop {
        line.clear();
        if socket.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let text = line.trim_end().to_owned();
        got.lock().unwrap().push(text.clone());
        let answer = match text.split([' ', ':']).next().unwrap_or_default() {
            "." if in_data => {
                in_data = false;
                "250 kept"
            }
            _ if in_data => continue,
            "EHLO" => "250-test\r\n250 AUTH PLAIN",
            // ann and hunter2
            "AUTH" if text.ends_with("AGFubgBodW50ZXIy") => "235 come in",
            "AUTH" => "535 wrong",
            "RCPT" if text.contains("nobody@") => "550 no such person",
            "RCPT" if text.contains("busy@") => "450 come again",
            "DATA" => {
                in_data = true;
                "354 go on"
            }
            "QUIT" => "221 bye",
            _ => "250 well",
        };
        socket.write_all(format!("{answer}\r\n").as_bytes()).await?;
        socket.flush().await?;
    }
}

fn project(settings: &str) -> Fixture {
    Fixture::new(&[("flumen.yml", settings)], &[("PASSWORD", "hunter2"), ("HOOK", "T0KEN-PATH")])
}

#[tokio::test]
async fn webhooks_get_text_or_a_payload() {
    let server = WebServer::start(|request| match request.path.as_str() {
        "/hooks/T0KEN-PATH" => Answer::text(200, "ok"),
        "/missing" => Answer::text(404, "no_team"),
        _ => Answer::text(500, "later"),
    })
    .await;
    let fixture = project(&format!(
        "connections:\n  alerts: {{ kind: http, url: \"{}/hooks/{{{{ secret_env('HOOK') }}}}\" }}\n",
        server.url
    ));
    let output = fixture.output("one: { notify: { webhook: alerts, text: \"{{ flow }} for {{ ds }}\" } }").await;
    assert_eq!(output, json!({ "status": 200 }));
    let request = server.requests().remove(0);
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/hooks/T0KEN-PATH"));
    assert_eq!(request.body, "{\"text\":\"test for 2021-01-05\"}");
    assert_eq!(request.headers["content-type"], "application/json");
    let payload = format!(
        "one: {{ notify: {{ webhook: \"{}/hooks/{{{{ secret_env('HOOK') }}}}\", headers: {{ X-A: b }}, payload: {{ day: \"{{{{ ds }}}}\", n: 3 }} }} }}",
        server.url
    );
    fixture.output(&payload).await;
    let request = server.requests().remove(0);
    assert_eq!((request.body.as_str(), request.headers["x-a"].as_str()), ("{\"day\":\"2021-01-05\",\"n\":3}", "b"));
    // The address of a webhook is a secret.
    let (outcome, lines) =
        fixture.run(&format!("one: {{ notify: {{ webhook: \"{}/missing\", text: x }} }}", server.url)).await;
    let Outcome::Failure(failure) = outcome else { panic!("{outcome:?}") };
    assert_eq!(failure.kind, "not_found");
    assert!(
        failure.message.contains("no_team") && !format!("{}{lines:?}", failure.message).contains("/missing"),
        "{lines:?}"
    );
    let (kind, _) = fixture.failure(&format!("one: {{ notify: {{ webhook: \"{}/x\", text: x }} }}", server.url)).await;
    assert_eq!(kind, "unavailable");
}

#[tokio::test]
async fn mail_goes_through_a_connection_or_a_server_named_in_the_task() {
    let server = MailServer::start(None).await;
    let port = server.port;
    let fixture = project(&format!(
        "connections:\n  mail: {{ kind: smtp, host: 127.0.0.1, port: {port}, tls: none, user: ann, password: \"{{{{ secret_env('PASSWORD') }}}}\", from: Flumen <flumen@example.org> }}\n"
    ));
    let output = fixture
        .output("one: { notify: { email: { connection: mail, to: [bob@example.org, Eve <eve@example.org>], cc: amy@example.org, subject: \"{{ flow }} failed\", body: Look at it. } } }")
        .await;
    assert_eq!(output, json!({ "to": ["bob@example.org", "Eve <eve@example.org>"] }));
    let got = server.got();
    for part in [
        "MAIL FROM:<flumen@example.org>",
        "RCPT TO:<bob@example.org>",
        "RCPT TO:<amy@example.org>",
        "From: Flumen <flumen@example.org>",
        "To: bob@example.org, Eve <eve@example.org>",
        "Subject: test failed",
        "Look at it.",
    ] {
        assert!(got.contains(part), "{part} in {got}");
    }
    let named = |more: &str| {
        format!(
            "one: {{ notify: {{ email: {{ host: 127.0.0.1, port: {port}, tls: none, from: a@example.org, subject: x, body: y, {more} }} }} }}"
        )
    };
    fixture.output(&named("to: bob@example.org, html: \"<b>y</b>\"")).await;
    assert!(server.got().contains("multipart/alternative"));
    // What another attempt may mend, and what not.
    let (outcome, _) = fixture.run(&named("to: nobody@example.org")).await;
    assert!(
        matches!(&outcome, Outcome::Failure(failure)
        if failure.kind == "invalid" && !failure.retryable && failure.message.contains("550")),
        "{outcome:?}"
    );
    let (kind, message) = fixture.failure(&named("to: busy@example.org")).await;
    assert!(kind == "unavailable" && message.contains("come again"), "{message}");
    let (kind, message) = fixture.failure(&named("to: bob@example.org, user: ann, password: wrong-one")).await;
    assert!(kind == "invalid" && !message.contains("wrong-one"), "{message}");
    let (kind, message) = fixture.failure(&named("to: bob")).await;
    assert!(kind == "invalid" && message.contains("'bob' is not an address"), "{message}");
    let gone = "one: { notify: { email: { host: 127.0.0.1, port: 1, tls: none, from: a@example.org, to: b@example.org, subject: x, body: y } } }";
    assert_eq!(fixture.failure(gone).await.0, "unavailable");
}

#[tokio::test]
async fn mail_is_encrypted_and_the_server_must_be_who_it_says() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let server = MailServer::start(Some(TlsAcceptor::from(Arc::new(config)))).await;
    let fixture = project("");
    fixture.write("authority.pem", &made.cert.pem());
    let mail = |more: &str| {
        format!(
            "one: {{ notify: {{ email: {{ host: localhost, port: {}, tls: tls, from: a@example.org, to: b@example.org, subject: x, body: y{more} }} }} }}",
            server.port
        )
    };
    fixture.output(&mail(", sslrootcert: authority.pem")).await;
    assert!(server.got().contains("RCPT TO:<b@example.org>"));
    let (kind, message) = fixture.failure(&mail("")).await;
    assert!(kind == "unavailable" && message.contains("certificate"), "{message}");
}
