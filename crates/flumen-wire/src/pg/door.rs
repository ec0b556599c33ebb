//! Who comes to the door: TLS, login, and a session for whoever may have one.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use flumen_core::boxed;
use flumen_core::limits;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::connection::Connection;
use super::messages::{self, Frontend, Opening};
use super::wire::{Broken, Wire};
use crate::catalog::Catalog;
use crate::failure::{Failure, code};
use crate::login::Account;
use crate::settings::SessionSettings;
use crate::{Held, Opened, Shared};

/// The first byte of a client that speaks TLS from the start.
const TLS_HANDSHAKE: u8 = 0x16;

/// Serves whoever comes to `listener`, until `stop`. Sessions that are open go on.
#[boxed]
pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken, held: Held) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        // A client that has gone already, or no more files to open: the next one may fare better.
        let Ok((stream, address)) = accepted else {
            tokio::task::yield_now().await;
            continue;
        };
        // Small answers are not to wait for more.
        let _ = stream.set_nodelay(true);
        let (shared, held) = (Arc::clone(&shared), held.clone());
        tokio::spawn(async move {
            connection(stream, address, shared).await;
            drop(held);
        });
    }
}

async fn connection(stream: TcpStream, address: SocketAddr, shared: Arc<Shared>) {
    let opened = tokio::time::timeout(limits::LOGIN_TIMEOUT, open(stream, address, &shared)).await;
    let Ok(Ok(Some((wire, startup)))) = opened else { return };
    let mut wire = wire;
    let logged_in = tokio::time::timeout(limits::LOGIN_TIMEOUT, login(&mut wire, &startup, &address, &shared)).await;
    let account = match logged_in {
        Ok(Ok(account)) => account,
        Ok(Err(Broken::Failure(failure))) => return refuse(wire, failure).await,
        Ok(Err(Broken::Gone)) | Err(_) => return,
    };
    wire.known = true;
    if let Err(failure) = session(&mut Some(wire), startup, account, address, shared).await {
        let (wire, failure) = failure;
        refuse(wire, failure).await;
    }
}

async fn refuse(mut wire: Wire, failure: Failure) {
    wire.out.error(&Failure { fatal: true, ..failure });
    wire.close().await;
}

async fn session(
    wire: &mut Option<Wire>,
    startup: Startup,
    account: Account,
    address: SocketAddr,
    shared: Arc<Shared>,
) -> Result<(), (Wire, Failure)> {
    let Some(mut wire) = wire.take() else { return Ok(()) };
    let mut settings = SessionSettings::new(&account.name, !account.read_only);
    for (name, value) in startup.settings() {
        // The zone of a client's machine may have a name that is not known here: values have their offset with them.
        let optional = name.eq_ignore_ascii_case("timezone");
        if let Err(failure) = settings.set(&name, Some(&value))
            && !optional
        {
            return Err((wire, failure));
        }
    }
    let opened = match shared.open(&startup.database, &account, &startup.application(), address).await {
        Ok(opened) => opened,
        Err(failure) => return Err((wire, failure)),
    };
    let Opened { engine, guard } = opened;
    let (session, engine, settings) = (Arc::clone(&guard.session), Arc::new(engine), Arc::new(Mutex::new(settings)));
    let catalog = match Catalog::new(shared, Arc::clone(&session), Arc::clone(&engine), Arc::clone(&settings)) {
        Ok(catalog) => catalog,
        Err(error) => return Err((wire, Failure { fatal: true, ..Failure::from(error) })),
    };
    wire.out.authentication(0, b"");
    Connection::new(wire, session, engine, catalog, settings).serve().await;
    Ok(())
}

/// What a client wants of its session.
struct Startup {
    user: String,
    database: String,
    parameters: Vec<(String, String)>,
}

impl Startup {
    fn new(parameters: Vec<(String, String)>) -> Result<Self, Failure> {
        let find = |name: &str| {
            let found = parameters.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
        };
        let user = find("user").ok_or_else(|| {
            Failure::fatal(code::INVALID_AUTHORIZATION, "no PostgreSQL user name specified in startup packet")
        })?;
        if find("replication").is_some_and(|value| !matches!(value.as_str(), "false" | "off" | "no" | "0")) {
            return Err(Failure::fatal(code::FEATURE_NOT_SUPPORTED, "there is no replication here"));
        }
        Ok(Self { database: find("database").unwrap_or_else(|| user.clone()), user, parameters })
    }

    fn application(&self) -> String {
        let found = self.parameters.iter().find(|(name, _)| name == "application_name");
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    }

    /// The settings that it gives, also those in `options`.
    fn settings(&self) -> Vec<(String, String)> {
        let mut settings = Vec::new();
        for (name, value) in &self.parameters {
            match name.as_str() {
                "user" | "database" | "replication" => {}
                "options" => settings.extend(options(value)),
                name if name.starts_with("_pq_.") => {}
                name => settings.push((name.to_owned(), value.clone())),
            }
        }
        settings
    }
}

/// `-c a=b --c=d` as settings.
fn options(text: &str) -> Vec<(String, String)> {
    let mut settings = Vec::new();
    let mut words = text.split_whitespace();
    while let Some(word) = words.next() {
        let setting = match word {
            "-c" => words.next(),
            word => word.strip_prefix("-c").or_else(|| word.strip_prefix("--")),
        };
        if let Some((name, value)) = setting.and_then(|setting| setting.split_once('=')) {
            settings.push((name.replace('-', "_"), value.to_owned()));
        }
    }
    settings
}

/// The way to a startup message. None if the client wanted something else, which is done.
async fn open(stream: TcpStream, address: SocketAddr, shared: &Arc<Shared>) -> Result<Option<(Wire, Startup)>, Broken> {
    let mut first = [0];
    let direct = stream.peek(&mut first).await? == 1 && first == [TLS_HANDSHAKE];
    let mut secure = false;
    let mut wire = match (&shared.tls, direct) {
        (Some(tls), true) => {
            secure = true;
            Wire::new(Box::new(tls.acceptor("postgresql").accept(stream).await?))
        }
        (None, true) => return Err(Broken::Gone),
        (_, false) => Wire::new(Box::new(stream)),
    };
    loop {
        let failure = match wire.opening().await {
            Ok(Opening::Tls) if !secure => match &shared.tls {
                Some(tls) => {
                    wire.out.0.extend_from_slice(b"S");
                    wire.flush().await?;
                    let transport = tls.acceptor("postgresql").accept(wire.into_transport()?).await?;
                    (wire, secure) = (Wire::new(Box::new(transport)), true);
                    continue;
                }
                None => {
                    wire.out.0.extend_from_slice(b"N");
                    wire.flush().await?;
                    continue;
                }
            },
            Ok(Opening::Tls | Opening::Gss) => {
                wire.out.0.extend_from_slice(b"N");
                wire.flush().await?;
                continue;
            }
            Ok(Opening::Cancel { pid, key }) => {
                if let Some(session) = shared.sessions.find(pid).filter(|session| session.key == key) {
                    session.cancel();
                }
                return Ok(None);
            }
            Ok(Opening::Startup { major: 3, minor, parameters }) => {
                let unknown: Vec<&str> =
                    parameters.iter().map(|(name, _)| name.as_str()).filter(|name| name.starts_with("_pq_.")).collect();
                if minor > 0 || !unknown.is_empty() {
                    wire.out.negotiate(&unknown);
                }
                if shared.tls.is_some() && !secure {
                    Failure::fatal(code::INVALID_AUTHORIZATION, format!("{address} must use TLS"))
                        .hint("connect with sslmode=require")
                } else {
                    match Startup::new(parameters) {
                        Ok(startup) => return Ok(Some((wire, startup))),
                        Err(failure) => failure,
                    }
                }
            }
            Ok(Opening::Startup { major, minor, .. }) => Failure::fatal(
                code::FEATURE_NOT_SUPPORTED,
                format!("unsupported frontend protocol {major}.{minor}: server supports 3.0"),
            ),
            Err(Broken::Failure(failure)) => failure,
            Err(Broken::Gone) => return Err(Broken::Gone),
        };
        refuse(wire, failure).await;
        return Ok(None);
    }
}

/// Who the client is.
async fn login(wire: &mut Wire, startup: &Startup, address: &SocketAddr, shared: &Shared) -> Result<Account, Broken> {
    if shared.login.is_open().await.map_err(Failure::from)? {
        if address.ip().is_loopback() {
            return Ok(Account { name: startup.user.clone(), read_only: false });
        }
        return Err(Failure::fatal(
            code::INVALID_AUTHORIZATION,
            "there are no users, so nobody can log in from elsewhere",
        )
        .hint("add one with 'flumen user add NAME'")
        .into());
    }
    let mut exchange = shared.login.exchange(&startup.user).await.map_err(Failure::from)?;
    wire.out.authentication(10, b"SCRAM-SHA-256\0\0");
    let (mechanism, first) = messages::sasl_initial(password(wire).await?)?;
    if mechanism != "SCRAM-SHA-256" {
        return Err(Failure::fatal(code::INVALID_AUTHORIZATION, format!("'{mechanism}' is not spoken here")).into());
    }
    let answer = exchange.first(&first)?;
    wire.out.authentication(11, answer.as_bytes());
    let last = password(wire).await?;
    let (answer, account) = exchange.last(&last)?;
    wire.out.authentication(12, answer.as_bytes());
    Ok(account)
}

async fn password(wire: &mut Wire) -> Result<bytes::Bytes, Broken> {
    wire.flush().await?;
    match wire.read().await? {
        Frontend::Password(body) => Ok(body),
        Frontend::Terminate => Err(Broken::Gone),
        _ => Err(Failure::fatal(code::PROTOCOL_VIOLATION, "expected SASL response").into()),
    }
}
