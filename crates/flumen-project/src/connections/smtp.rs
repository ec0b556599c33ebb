//! `kind: smtp`: a mail server, and mail that goes through it.

use std::path::PathBuf;

use flumen_core::boxed;
use flumen_core::limits::READ_TIMEOUT;
use flumen_core::secret::{ExposeSecret as _, Secret};
use flumen_core::{Error, ErrorKind, Result};
use lettre::message::{Mailbox, MultiPart, SinglePart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};

use super::{Check, Config, Field, Kind, Takes, Values};
use crate::store::innermost;

/// See the module.
pub const KIND: Kind = Kind {
    name: "smtp",
    about: "a mail server",
    fields: &[
        Field::required("host", Takes::Text, "the host"),
        Field::optional("port", Takes::Number, "the port; by default 587, with tls 'tls' 465, with 'none' 25"),
        Field::optional("user", Takes::Text, "the user"),
        Field::optional("password", Takes::Secret, "the password"),
        Field::optional("tls", Takes::Text, "starttls (default), tls (from the first byte) or none"),
        Field::optional("sslrootcert", Takes::Text, "the file of the authorities to trust; relative to the project"),
        Field::optional(
            "from",
            Takes::Text,
            "whom mail is from, unless it says so itself: Flumen <flumen@example.org>",
        ),
    ],
    configure,
};

/// A mail server.
#[derive(Debug, Clone)]
pub struct SmtpConfig {
    /// The host.
    pub host: String,
    /// The port; by default that of `tls`.
    pub port: Option<u16>,
    /// The user.
    pub user: Option<String>,
    /// The password.
    pub password: Option<Secret>,
    /// How the connection is encrypted.
    pub tls: SmtpTls,
    /// The PEM file of the authorities to trust; by default the system's.
    pub sslrootcert: Option<PathBuf>,
    /// Whom mail is from, unless it says so itself.
    pub from: Option<String>,
}

/// How a connection to a mail server is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SmtpTls {
    /// Not at all.
    None,
    /// After the greeting, always.
    #[default]
    StartTls,
    /// From the first byte.
    Tls,
}

impl std::str::FromStr for SmtpTls {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "none" => Ok(SmtpTls::None),
            "starttls" => Ok(SmtpTls::StartTls),
            "tls" => Ok(SmtpTls::Tls),
            _ => {
                Err(Error::invalid(format!("tls: there is no mode '{text}'"))
                    .hint("the modes are starttls, tls and none"))
            }
        }
    }
}

/// A mail.
#[derive(Debug, Clone, Default)]
pub struct Mail {
    /// Whom it is from; the connection's sender by default.
    pub from: Option<String>,
    /// Whom it is for: `ann@example.org`, or `Ann <ann@example.org>`.
    pub to: Vec<String>,
    /// Who gets a copy.
    pub cc: Vec<String>,
    /// What it is about.
    pub subject: String,
    /// What it says.
    pub text: String,
    /// The same for programs that show HTML.
    pub html: Option<String>,
}

fn configure(values: &Values) -> Result<Config> {
    let (user, password) = (values.text("user"), values.secret("password"));
    if user.is_some() != password.is_some() {
        return Err(Error::invalid("user and password belong together").hint("give both, or none"));
    }
    Ok(Config::Smtp(SmtpConfig {
        host: values.required("host")?,
        port: values.number("port")?,
        user,
        password,
        tls: values.text("tls").map(|text| text.parse()).transpose()?.unwrap_or_default(),
        sslrootcert: values.text("sslrootcert").map(|path| values.project_dir().join(path)),
        from: values.text("from"),
    }))
}

impl SmtpConfig {
    /// Sends a mail.
    ///
    /// Errors: `Invalid` for an address that is none, and what the server refuses for good; `Unavailable` where it cannot be
    /// reached, or refuses for now.
    #[boxed]
    pub async fn send(&self, mail: &Mail) -> Result<()> {
        let message = self.message(mail)?;
        self.transport()?.send(message).await.map(drop).map_err(|error| self.failed(error))
    }

    fn message(&self, mail: &Mail) -> Result<Message> {
        let from = mail.from.as_ref().or(self.from.as_ref()).ok_or_else(|| {
            Error::invalid("the mail does not say whom it is from")
                .hint("give 'from' in the connection or with the mail")
        })?;
        let mut message = Message::builder().from(mailbox(from)?).subject(mail.subject.clone());
        for to in &mail.to {
            message = message.to(mailbox(to)?);
        }
        for cc in &mail.cc {
            message = message.cc(mailbox(cc)?);
        }
        let made = match &mail.html {
            Some(html) => message.multipart(MultiPart::alternative_plain_html(mail.text.clone(), html.clone())),
            None => message.singlepart(SinglePart::plain(mail.text.clone())),
        };
        made.map_err(|error| Error::invalid(format!("the mail cannot be made: {error}")).caused_by(error))
    }

    fn transport(&self) -> Result<AsyncSmtpTransport<Tokio1Executor>> {
        let (tls, port) = match self.tls {
            SmtpTls::None => (Tls::None, 25),
            SmtpTls::StartTls => (Tls::Required(self.parameters()?), 587),
            SmtpTls::Tls => (Tls::Wrapper(self.parameters()?), 465),
        };
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(self.host.clone())
            .port(self.port.unwrap_or(port))
            .timeout(Some(READ_TIMEOUT))
            .tls(tls);
        if let (Some(user), Some(password)) = (&self.user, &self.password) {
            builder = builder.credentials(Credentials::new(user.clone(), password.expose_secret().to_owned()));
        }
        Ok(builder.build())
    }

    fn parameters(&self) -> Result<TlsParameters> {
        let mut builder = TlsParameters::builder(self.host.clone());
        if let Some(path) = &self.sslrootcert {
            let pem = std::fs::read(path).map_err(|error| Error::io(path.display(), error))?;
            let certificate = Certificate::from_pem(&pem).map_err(|error| {
                Error::invalid(format!("{}: this is not a PEM file of certificates", path.display())).caused_by(error)
            })?;
            builder = builder.add_root_certificate(certificate);
        }
        builder.build_rustls().map_err(|error| Error::invalid(format!("{}: {error}", self.host)).caused_by(error))
    }

    fn failed(&self, error: lettre::transport::smtp::Error) -> Error {
        let (kind, what) = match error.status() {
            Some(code) if error.is_permanent() => (ErrorKind::Invalid, format!("refuses ({code})")),
            Some(code) => (ErrorKind::Unavailable, format!("refuses for now ({code})")),
            None if error.is_timeout() => (ErrorKind::Unavailable, "does not answer in time".to_owned()),
            None if error.is_client() => (ErrorKind::Invalid, "cannot be used like this".to_owned()),
            None => (ErrorKind::Unavailable, "cannot be talked to".to_owned()),
        };
        let message = format!("the mail server {} {what}: {}", self.host, innermost(&error));
        let made = Error::new(kind, message).caused_by(error);
        match kind {
            ErrorKind::Unavailable => made.hint("check host, port and tls, and that the server runs"),
            _ => made.hint("check the addresses, user and password"),
        }
    }

    /// Says hello to the server, and logs in.
    pub(super) async fn test(&self) -> Vec<Check> {
        let outcome = async {
            match self.transport()?.test_connection().await {
                Ok(true) => Ok("the server answers".to_owned()),
                Ok(false) => Err(Error::unavailable(format!("the mail server {} does not answer", self.host))),
                Err(error) => Err(self.failed(error)),
            }
        };
        vec![Check { what: format!("say hello to {}", self.host), outcome: outcome.await }]
    }
}

fn mailbox(text: &str) -> Result<Mailbox> {
    text.parse().map_err(|error: lettre::address::AddressError| {
        Error::invalid(format!("'{text}' is not an address for mail"))
            .hint("write it as ann@example.org or Ann <ann@example.org>")
            .caused_by(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(from: Option<&str>) -> SmtpConfig {
        SmtpConfig {
            host: "localhost".to_owned(),
            port: None,
            user: None,
            password: None,
            tls: SmtpTls::None,
            sslrootcert: None,
            from: from.map(str::to_owned),
        }
    }

    #[test]
    fn mail_is_made_or_told_what_it_lacks() {
        let mail = Mail {
            to: vec!["Ann <ann@example.org>".to_owned()],
            subject: "Grüße".to_owned(),
            text: "hello".to_owned(),
            ..Mail::default()
        };
        let made = config(Some("flumen@example.org")).message(&mail).expect("a mail");
        let text = String::from_utf8(made.formatted()).expect("text");
        assert!(text.contains("To: Ann <ann@example.org>") && text.contains("=?utf-8?"), "{text}");
        let error = config(None).message(&mail).expect_err("no sender");
        assert!(error.to_string().contains("whom it is from"), "{error}");
        let wrong = Mail { to: vec!["nobody".to_owned()], from: Some("a@b.org".to_owned()), ..mail };
        assert_eq!(
            config(None).message(&wrong).expect_err("no address").to_string(),
            "'nobody' is not an address for mail"
        );
    }
}
