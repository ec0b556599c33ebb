//! Who may come in. Both doors ask here.
//!
//! While there are no users, whoever reaches a door on loopback is let in; doors on any other address let nobody in.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use flumen_core::clock::Ids;
use flumen_core::user::UserStore;
use flumen_core::user::scram::ScramVerifier;
use flumen_core::{Error, Result};

use crate::failure::{Failure, code};

/// Somebody who has come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    /// The name.
    pub name: String,
    /// Whether the user may only read.
    pub read_only: bool,
}

/// Looks at who comes.
pub(crate) struct Login {
    users: Arc<dyn UserStore>,
    ids: Arc<dyn Ids>,
    secret: [u8; 16],
}

impl Login {
    /// For the users of `users`.
    pub fn new(users: Arc<dyn UserStore>, ids: Arc<dyn Ids>) -> Self {
        let secret = *ids.next().as_bytes();
        Self { users, ids, secret }
    }

    /// Whether nobody has to log in, since there are no users.
    pub async fn is_open(&self) -> Result<bool> {
        Ok(self.users.list().await?.is_empty())
    }

    /// A word that nobody can guess.
    pub fn token(&self) -> String {
        [self.ids.next(), self.ids.next()].map(|id| id.simple().to_string()).concat()
    }

    /// All names, for `pg_roles`.
    pub async fn accounts(&self) -> Result<Vec<Account>> {
        let users = self.users.list().await?;
        Ok(users.into_iter().map(|user| Account { name: user.name, read_only: user.read_only }).collect())
    }

    /// Begins the exchange with somebody who says to be `name`.
    pub async fn exchange(&self, name: &str) -> Result<Exchange> {
        let found = self.users.find(name).await?;
        let verifier = match &found {
            Some((_, verifiers)) => ScramVerifier::parse(&verifiers.scram)?,
            None => ScramVerifier::of_nobody(name, &self.secret),
        };
        let account = found.map(|(user, _)| Account { name: user.name, read_only: user.read_only });
        let nonce = [self.ids.next(), self.ids.next()].map(|id| BASE64.encode(id.as_bytes())).concat();
        Ok(Exchange { name: name.to_owned(), account, verifier, nonce, bare: String::new(), first: String::new() })
    }

    /// Whoever has the name and the password.
    ///
    /// Errors: the password is wrong, or there is no such user: one cannot tell which.
    pub async fn check(&self, name: &str, password: &str) -> Result<Account, Failure> {
        let Exchange { account, verifier, .. } = self.exchange(name).await?;
        // The sums are done for a user who is not there, too: they take as long.
        let right = verifier.accepts(password);
        account.filter(|_| right).ok_or_else(|| refused(name))
    }
}

fn refused(name: &str) -> Failure {
    Failure::fatal(code::INVALID_PASSWORD, format!("password authentication failed for user \"{name}\""))
}

/// The server's side of SCRAM-SHA-256.
pub(crate) struct Exchange {
    name: String,
    account: Option<Account>,
    verifier: ScramVerifier,
    nonce: String,
    bare: String,
    first: String,
}

impl Exchange {
    /// The answer to the client's first message.
    pub fn first(&mut self, message: &[u8]) -> Result<String, Failure> {
        let text = std::str::from_utf8(message).map_err(|_| malformed())?;
        let mut parts = text.splitn(3, ',');
        let (binding, _authorization) = (parts.next(), parts.next());
        let bare = parts.next().ok_or_else(malformed)?;
        if !matches!(binding, Some("n" | "y")) {
            return Err(malformed());
        }
        let client = bare.split(',').find_map(|part| part.strip_prefix("r=")).ok_or_else(malformed)?;
        self.nonce = format!("{client}{}", self.nonce);
        self.bare = bare.to_owned();
        let salt = BASE64.encode(self.verifier.salt());
        self.first = format!("r={},s={salt},i={}", self.nonce, self.verifier.iterations());
        Ok(self.first.clone())
    }

    /// The answer to the client's last message, and who it is.
    pub fn last(self, message: &[u8]) -> Result<(String, Account), Failure> {
        let text = std::str::from_utf8(message).map_err(|_| malformed())?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or_else(malformed)?;
        let proof = BASE64.decode(proof).map_err(|_| malformed())?;
        let part = |name: &str| without_proof.split(',').find_map(|part| part.strip_prefix(name));
        // `n,,` or `y,,`: there is no channel to bind to.
        if part("r=") != Some(&self.nonce) || !matches!(part("c="), Some("biws" | "eSws")) {
            return Err(malformed());
        }
        let signed = format!("{},{},{without_proof}", self.bare, self.first);
        let right = self.verifier.accepts_proof(signed.as_bytes(), &proof);
        let account = self.account.filter(|_| right).ok_or_else(|| refused(&self.name))?;
        let signature = BASE64.encode(self.verifier.server_signature(signed.as_bytes()));
        Ok((format!("v={signature}"), account))
    }
}

fn malformed() -> Failure {
    Failure::fatal(code::PROTOCOL_VIOLATION, "the client's part of the login makes no sense")
}

/// What is wrong with listening on `address`, if something is.
///
/// Errors: `Invalid` for an address that others can reach while there are no users.
pub(crate) async fn check_address(login: &Login, address: &std::net::SocketAddr) -> Result<()> {
    if address.ip().is_loopback() || !login.is_open().await? {
        return Ok(());
    }
    Err(Error::invalid(format!("{address} can be reached from other machines, and there are no users"))
        .hint("add one with 'flumen user add NAME', or listen on 127.0.0.1"))
}
