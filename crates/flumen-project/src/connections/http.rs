//! `kind: http`: a web server, with what it asks for to let us in.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use flumen_core::limits::READ_TIMEOUT;
use flumen_core::secret::{ExposeSecret as _, Secret};
use flumen_core::{Error, ErrorKind, Result};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use url::Url;

use super::{Check, Config, Field, Kind, Takes, Values, looks_secret, masked_url};
use crate::store::innermost;

/// See the module.
pub const KIND: Kind = Kind {
    name: "http",
    about: "a web server",
    fields: &[
        Field::required("url", Takes::Url, "the address that all addresses of the connection begin with"),
        Field::optional("user", Takes::Text, "the user, for basic authentication"),
        Field::optional("password", Takes::Secret, "the password, for basic authentication"),
        Field::optional("token", Takes::Secret, "the token, for bearer authentication"),
        Field::optional("headers", Takes::Map, "headers to send with each request"),
        Field::optional("proxy", Takes::Url, "the proxy to go through"),
    ],
    configure,
};

/// How long a server may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The most redirects that are followed.
const REDIRECTS: usize = 10;
/// What we call ourselves.
const USER_AGENT: &str = concat!("flumen/", env!("CARGO_PKG_VERSION"));

/// A web server, and how to be let in.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// The address that all addresses of the connection begin with.
    pub url: Url,
    /// How to be let in.
    pub auth: HttpAuth,
    /// Headers to send with each request.
    pub headers: Vec<(String, Secret)>,
    /// The proxy; by default what `HTTPS_PROXY` and the like say.
    pub proxy: Option<Secret>,
}

/// How to be let in.
#[derive(Debug, Clone)]
pub enum HttpAuth {
    /// Everyone is.
    None,
    /// By user and password.
    Basic {
        /// The user.
        user: String,
        /// The password.
        password: Option<Secret>,
    },
    /// By a token.
    Bearer(Secret),
}

fn configure(values: &Values) -> Result<Config> {
    let text = values.required("url")?;
    let mut url =
        Url::parse(&text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host()).ok_or_else(
            || Error::invalid("url: this is not a web address").hint("write it as https://example.org/data/"),
        )?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err(Error::invalid("url: addresses cannot begin with one that has a '?' or a '#'")
            .hint("leave out that part, and give it with each address"));
    }
    let (url_user, url_password) = (decoded(url.username()), url.password().map(decoded));
    // Credentials go into a header, and so never into a message that shows the address.
    let _ = url.set_username("").and_then(|()| url.set_password(None));
    let user = values.text("user").or(Some(url_user).filter(|user| !user.is_empty()));
    let password = values.secret("password").or(url_password.map(Secret::from));
    let auth = match (user, password, values.secret("token")) {
        (Some(user), password, None) => HttpAuth::Basic { user, password },
        (None, None, Some(token)) => HttpAuth::Bearer(token),
        (None, None, None) => HttpAuth::None,
        (None, Some(_), None) => return Err(Error::invalid("there is a password and no user")),
        (.., Some(_)) => {
            return Err(Error::invalid("user and password are given, and a token too").hint("keep one of the two"));
        }
    };
    Ok(Config::Http(HttpConfig { url, auth, headers: values.map("headers"), proxy: values.secret("proxy") }))
}

pub(super) fn decoded(text: &str) -> String {
    // The crate that encodes URLs decodes them in queries alone, where a plus means a blank.
    let query = format!("x={}", text.replace('+', "%2B"));
    url::form_urlencoded::parse(query.as_bytes()).next().map(|(_, value)| value.into_owned()).unwrap_or_default()
}

impl HttpConfig {
    /// Whether `url` lies below this connection's.
    pub(crate) fn covers(&self, url: &Url) -> bool {
        let base = self.url.path().trim_end_matches('/');
        let below = url.path().strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        self.url.origin() == url.origin() && below
    }

    /// The address of `path` on this server.
    ///
    /// Errors: `Invalid` if it is an address elsewhere.
    pub fn address(&self, path: &str) -> Result<Url> {
        let mut base = self.url.clone();
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let url = base.join(path.trim_start_matches('/'));
        url.ok().filter(|url| url.origin() == self.url.origin()).ok_or_else(|| {
            Error::invalid(format!("'{path}' is not a path on {}", self.url))
                .hint("give the path below the connection's url")
        })
    }

    /// A client that sends the credentials and the headers with each request to this server. They do not go along
    /// when the server redirects elsewhere; if that cannot be helped, the redirect is not followed.
    pub fn client(&self) -> Result<reqwest::Client> {
        let (headers, private) = self.default_headers()?;
        let origin = self.url.origin();
        let policy = reqwest::redirect::Policy::custom(move |attempt| {
            if attempt.previous().len() > REDIRECTS {
                attempt.error("too many redirects")
            } else if private && attempt.url().origin() != origin {
                attempt.error("the server redirects elsewhere, where the connection's headers must not go")
            } else {
                attempt.follow()
            }
        });
        let mut builder = client_builder().default_headers(headers).redirect(policy);
        if let Some(proxy) = &self.proxy {
            let proxy = reqwest::Proxy::all(proxy.expose_secret());
            builder = builder.proxy(proxy.map_err(|_| Error::invalid("proxy: this is not the address of a proxy"))?);
        }
        build(builder)
    }

    /// The headers, and whether there are private ones that the client would not hold back by itself.
    fn default_headers(&self) -> Result<(HeaderMap, bool)> {
        let mut headers = HeaderMap::new();
        let mut private = false;
        for (name, value) in &self.headers {
            let wrong = |what: &str| Error::invalid(format!("headers: '{name}' {what}"));
            let parsed: HeaderName = name.parse().map_err(|_| wrong("is not the name of a header"))?;
            let mut value = HeaderValue::from_str(value.expose_secret())
                .map_err(|_| wrong("has a value that a header cannot have"))?;
            value.set_sensitive(true);
            private |= looks_secret(name) && parsed != AUTHORIZATION;
            headers.insert(parsed, value);
        }
        let authorization = match &self.auth {
            HttpAuth::None => return Ok((headers, private)),
            HttpAuth::Basic { user, password } => {
                let password = password.as_ref().map(|secret| secret.expose_secret()).unwrap_or_default();
                format!("Basic {}", BASE64.encode(format!("{user}:{password}")))
            }
            HttpAuth::Bearer(token) => format!("Bearer {}", token.expose_secret()),
        };
        let mut value = HeaderValue::from_str(&authorization)
            .map_err(|_| Error::invalid("the token has a character that no token can have"))?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
        Ok((headers, private))
    }

    /// Asks for the address itself.
    pub(super) async fn test(&self) -> Vec<Check> {
        vec![Check { what: format!("get {}", self.url), outcome: self.get_root().await }]
    }

    async fn get_root(&self) -> Result<String> {
        let answer = self.client()?.get(self.url.clone()).send().await.map_err(|error| http_error(&self.url, error))?;
        let status = answer.status();
        match status.as_u16() {
            200..=399 => Ok(format!("the server answers: {status}")),
            401 => Err(Error::invalid(format!("{}: the server asks for credentials ({status})", self.url))
                .hint("set user and password, or token, in the connection")),
            403 => Err(Error::invalid(format!("{}: the server refuses ({status})", self.url))
                .hint("check the credentials; some servers refuse the address itself and allow those below it")),
            404 | 405 => {
                Ok(format!("the server answers ({status} for the address itself; those below it may be there)"))
            }
            429 => {
                Err(Error::unavailable(format!("{}: too many requests ({status})", self.url)).hint("try again later"))
            }
            _ => Err(Error::unavailable(format!("{}: the server answers {status}", self.url)).hint("try again later")),
        }
    }
}

/// A client for addresses that no connection covers. Redirects are followed.
pub fn plain_client() -> Result<reqwest::Client> {
    build(client_builder().redirect(reqwest::redirect::Policy::limited(REDIRECTS)))
}

/// A client that times out when a server is silent, however long the whole takes.
fn client_builder() -> reqwest::ClientBuilder {
    reqwest::Client::builder().user_agent(USER_AGENT).connect_timeout(CONNECT_TIMEOUT).read_timeout(READ_TIMEOUT)
}

fn build(builder: reqwest::ClientBuilder) -> Result<reqwest::Client> {
    builder.build().map_err(|error| {
        Error::new(ErrorKind::Invalid, format!("no HTTP client can be made: {}", innermost(&error))).caused_by(error)
    })
}

/// What an error of the client at `url` means. (An answer of the server, such as 404, is none.)
pub fn http_error(url: &Url, error: reqwest::Error) -> Error {
    let error = error.without_url();
    let place = masked_url(url).unwrap_or_else(|| url.to_string());
    let cause = innermost(&error);
    if error.is_redirect() {
        return Error::invalid(format!("{place}: {cause}"))
            .hint("use the address that the server redirects to")
            .caused_by(error);
    }
    let (what, hint) = if error.is_timeout() {
        ("the server does not answer in time".to_owned(), "check the address and the network, then try again")
    } else if cause.contains("dns") || cause.contains("lookup") || cause.contains("Name or service") {
        ("there is no server of this name".to_owned(), "check the address and the network")
    } else if cause.to_lowercase().contains("certificate") {
        (
            format!("the server's certificate is not trusted ({cause})"),
            "check the address and the clock of this machine",
        )
    } else if error.is_connect() {
        (format!("no connection ({cause})"), "check the address, and that the server runs")
    } else {
        (cause, "try again")
    };
    Error::unavailable(format!("{place}: {what}")).hint(hint).caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(url: &str) -> HttpConfig {
        let url = url.parse().expect("a URL");
        HttpConfig { url, auth: HttpAuth::None, headers: Vec::new(), proxy: None }
    }

    #[test]
    fn addresses_stay_on_the_server() {
        let config = config("https://example.org/data");
        assert_eq!(config.address("a/b.csv").expect("a path").as_str(), "https://example.org/data/a/b.csv");
        assert_eq!(config.address("/a.csv").expect("a path").as_str(), "https://example.org/data/a.csv");
        assert!(config.address("https://elsewhere.org/x").is_err());
        let covers = |url: &str| config.covers(&url.parse().expect("a URL"));
        assert!(covers("https://example.org/data/x.csv"));
        assert!(!covers("https://example.org/database/x.csv"));
        assert!(!covers("http://example.org/data/x.csv"));
    }
}
