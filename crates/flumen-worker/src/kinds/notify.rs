//! `notify`: tells people, by a webhook or by mail.

use std::collections::BTreeMap;
use std::path::PathBuf;

use async_trait::async_trait;
use flumen_core::flow::Outcome;
use flumen_core::secret::Secret;
use flumen_core::task_kind::{Named, Path, Problem, TaskKind, Uses, is_template, schema_of};
use flumen_core::{Error, Result};
use flumen_project::connections::smtp::{Mail, SmtpConfig, SmtpTls};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::http::{Web, refused};
use super::{Kind, OneOrMore};
use crate::attempt::Attempt;

/// The kind `notify`.
#[derive(Debug)]
pub struct Notify;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Fields {
    /// Where a message is posted to: an address, or a connection of kind http.
    webhook: Option<String>,
    /// What is said, posted as `{"text": …}`: what Slack, Mattermost and many others take.
    text: Option<String>,
    /// What is posted, as JSON, to webhooks that want something else.
    payload: Option<Value>,
    /// Headers of what is posted.
    headers: Option<BTreeMap<String, String>>,
    /// A mail.
    email: Option<Email>,
}

/// A mail.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Email {
    /// Whom it is for: an address or a list.
    to: OneOrMore<String>,
    /// Who gets a copy: an address or a list.
    cc: Option<OneOrMore<String>>,
    /// Whom it is from; by default what the connection says.
    from: Option<String>,
    /// What it is about.
    subject: String,
    /// What it says.
    body: Option<String>,
    /// The same for programs that show HTML.
    html: Option<String>,
    /// The connection of kind smtp; or the fields of one here.
    connection: Option<String>,
    /// The mail server.
    host: Option<String>,
    /// Its port.
    port: Option<u16>,
    /// The user.
    user: Option<String>,
    /// The password.
    password: Option<String>,
    /// How the connection is encrypted: `starttls` (the default), `tls` or `none`.
    tls: Option<String>,
    /// The file of an authority to trust, from the project's folder.
    sslrootcert: Option<PathBuf>,
}

impl TaskKind for Notify {
    fn name(&self) -> &'static str {
        "notify"
    }

    fn about(&self) -> &'static str {
        "Tells people, by a webhook such as Slack's, or by mail."
    }

    fn schema(&self) -> Value {
        schema_of::<Fields>()
    }

    fn check(&self, config: &Value) -> Vec<Problem> {
        let has = |key: &str| !config[key].is_null();
        let mut problems = Vec::new();
        if has("webhook") == has("email") {
            problems.push(Problem::at_key(Path::top(), "give either 'webhook' or 'email'"));
        }
        if has("webhook") && has("text") == has("payload") {
            let problem = Problem::at_key(Path::of(["webhook"]), "a webhook takes either 'text' or 'payload'");
            problems.push(problem.hint("text: \"{{ flow }} failed\""));
        }
        if has("email") {
            for key in ["text", "payload", "headers"].into_iter().filter(|key| has(key)) {
                let problem = Problem::at_key(Path::of([key]), format!("'{key}' is for a webhook"));
                problems.push(problem.hint("what a mail says is its 'body'"));
            }
        }
        let email = &config["email"];
        if email.is_object() {
            let path = Path::of(["email"]);
            if email["connection"].is_null() == email["host"].is_null() {
                problems.push(Problem::at_key(path.clone(), "a mail needs either a 'connection' or a 'host'"));
            }
            if email["from"].is_null() && !email["host"].is_null() {
                let problem = Problem::at_key(path.clone(), "the mail does not say whom it is from");
                problems.push(problem.hint("from: Flumen <flumen@example.org>"));
            }
            if email["body"].is_null() && email["html"].is_null() {
                problems.push(Problem::at_key(path.clone(), "'email.body' is missing").hint("what it says"));
            }
            let tls = email["tls"].as_str().filter(|text| !is_template(text));
            if let Some(Err(error)) = tls.map(|text| text.parse::<SmtpTls>()) {
                problems.push(Problem::new(path.key("tls"), error.message()).hint(error.remedy().unwrap_or_default()));
            }
        }
        problems
    }

    fn uses(&self, config: &Value) -> Uses {
        let webhook = Named::at(config, Path::of(["webhook"])).filter(|named| !is_address(&named.text));
        let connection = Named::at(config, Path::of(["email", "connection"]));
        Uses { connections: webhook.into_iter().chain(connection).collect(), ..Uses::default() }
    }
}

/// Whether a webhook is an address, and not the name of a connection.
fn is_address(webhook: &str) -> bool {
    webhook.contains("://") || is_template(webhook)
}

#[async_trait]
impl Kind for Notify {
    async fn run(&self, attempt: &Attempt<'_>) -> Result<Outcome> {
        let Fields { webhook, text, payload, headers, email } = attempt.fields()?;
        let tell = async {
            match (webhook, email) {
                (Some(webhook), None) => {
                    let payload = payload.unwrap_or_else(|| json!({ "text": text.unwrap_or_default() }));
                    post(attempt, &webhook, &payload, &headers.unwrap_or_default()).await
                }
                (None, Some(email)) => send(attempt, email).await,
                _ => Err(Error::invalid("give either 'webhook' or 'email'")),
            }
        };
        tokio::select! {
            told = tell => told.map(Outcome::success),
            () = attempt.cancel.cancelled() => Ok(Outcome::Cancelled),
        }
    }

    fn starts_programs(&self) -> bool {
        false
    }
}

async fn post(
    attempt: &Attempt<'_>,
    webhook: &str,
    payload: &Value,
    headers: &BTreeMap<String, String>,
) -> Result<Value> {
    let project = &attempt.host.project;
    let mut web = match webhook.contains("://") {
        true => Web::of(project, webhook, None)?,
        false => Web::of(project, "", Some(webhook))?,
    };
    // Whoever knows the address of a webhook may post to it.
    web.hide_path();
    let request = web.with_headers(web.request("POST")?, headers)?;
    let answer = web.with_json(request, payload).send().await.map_err(|error| web.error(error))?;
    let status = answer.status();
    if !status.is_success() {
        return Err(refused(&web, "POST", answer).await);
    }
    Ok(json!({ "status": status.as_u16() }))
}

async fn send(attempt: &Attempt<'_>, email: Email) -> Result<Value> {
    let project = &attempt.host.project;
    let config = match (email.connection, email.host) {
        (Some(name), None) => project.connection(&name)?.smtp()?,
        (None, Some(host)) => SmtpConfig {
            host,
            port: email.port,
            user: email.user,
            password: email.password.map(Secret::from),
            tls: email.tls.map(|text| text.parse()).transpose()?.unwrap_or_default(),
            sslrootcert: email.sslrootcert.map(|path| project.dir().join(path)),
            from: None,
        },
        _ => return Err(Error::invalid("email: give either 'connection' or 'host'")),
    };
    let mail = Mail {
        from: email.from,
        to: email.to.into_list(),
        cc: email.cc.map(OneOrMore::into_list).unwrap_or_default(),
        subject: email.subject,
        text: email.body.unwrap_or_default(),
        html: email.html,
    };
    config.send(&mail).await?;
    Ok(json!({ "to": mail.to }))
}
