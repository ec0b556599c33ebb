//! SCRAM-SHA-256 (RFC 5802, RFC 7677): the verifier, and the server's side of the sums.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};

/// How often a password is hashed. What Postgres does by default.
pub const ITERATIONS: u32 = 4096;
/// Bytes of a salt.
pub const SALT_BYTES: usize = 16;

const MECHANISM: &str = "SCRAM-SHA-256";

type Key = [u8; 32];

/// What a login is held against. It is written as Postgres writes it: `SCRAM-SHA-256$4096:salt$stored:server`.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramVerifier {
    iterations: u32,
    salt: Vec<u8>,
    stored_key: Key,
    server_key: Key,
}

impl fmt::Debug for ScramVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScramVerifier(…)")
    }
}

impl ScramVerifier {
    /// The verifier of `password` with a salt that nobody else has.
    pub fn new(password: &str, salt: &[u8]) -> Self {
        let salted = salted(password, salt, ITERATIONS);
        Self {
            iterations: ITERATIONS,
            salt: salt.to_vec(),
            stored_key: Sha256::digest(hmac(&salted, b"Client Key")).into(),
            server_key: hmac(&salted, b"Server Key"),
        }
    }

    /// A verifier that no password fits, with a salt that stays the same for one `name`: whoever tries to log in by a
    /// name that is not there learns nothing from the exchange.
    pub fn of_nobody(name: &str, secret: &[u8]) -> Self {
        let salt = hmac(secret, name.as_bytes());
        let key = hmac(&salt, secret);
        Self { iterations: ITERATIONS, salt: salt[..SALT_BYTES].to_vec(), stored_key: key, server_key: key }
    }

    /// What [`ToString`] wrote.
    ///
    /// Errors: `Internal`.
    pub fn parse(text: &str) -> Result<Self> {
        let parsed = || {
            let [mechanism, salting, keys]: [&str; 3] = text.split('$').collect::<Vec<_>>().try_into().ok()?;
            let (iterations, salt) = salting.split_once(':')?;
            let (stored, server) = keys.split_once(':')?;
            let key = |text: &str| Key::try_from(BASE64.decode(text).ok()?).ok();
            (mechanism == MECHANISM).then_some(())?;
            Some(Self {
                iterations: iterations.parse().ok()?,
                salt: BASE64.decode(salt).ok()?,
                stored_key: key(stored)?,
                server_key: key(server)?,
            })
        };
        parsed().ok_or_else(|| Error::internal("the verifier of a user's password is damaged"))
    }

    /// The salt.
    pub fn salt(&self) -> &[u8] {
        &self.salt
    }

    /// How often the password is hashed.
    pub fn iterations(&self) -> u32 {
        self.iterations
    }

    /// Whether `proof` shows that the client knows the password; `message` is the whole exchange that it signs.
    pub fn accepts_proof(&self, message: &[u8], proof: &[u8]) -> bool {
        let signature = hmac(&self.stored_key, message);
        let Ok(proof) = Key::try_from(proof) else { return false };
        let mut client_key = signature;
        client_key.iter_mut().zip(proof).for_each(|(key, proof)| *key ^= proof);
        same(&Sha256::digest(client_key), &self.stored_key)
    }

    /// What shows the client that the server knows the verifier.
    pub fn server_signature(&self, message: &[u8]) -> Key {
        hmac(&self.server_key, message)
    }

    /// Whether this is the verifier of `password`.
    pub fn accepts(&self, password: &str) -> bool {
        let salted = salted(password, &self.salt, self.iterations);
        same(&Sha256::digest(hmac(&salted, b"Client Key")), &self.stored_key)
    }
}

impl fmt::Display for ScramVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { iterations, salt, stored_key, server_key } = self;
        let [salt, stored, server] = [salt.as_slice(), stored_key, server_key].map(|bytes| BASE64.encode(bytes));
        write!(f, "{MECHANISM}${iterations}:{salt}${stored}:{server}")
    }
}

/// PBKDF2 with HMAC-SHA-256, one block.
fn salted(password: &str, salt: &[u8], iterations: u32) -> Key {
    // A password that SASLprep refuses is used as it is; clients do the same.
    let prepared = stringprep::saslprep(password);
    let keyed = keyed(prepared.as_deref().unwrap_or(password).as_bytes());
    let mut block: Key =
        keyed.clone().chain_update(salt).chain_update(1u32.to_be_bytes()).finalize().into_bytes().into();
    let mut sum = block;
    for _ in 1..iterations {
        block = keyed.clone().chain_update(block).finalize().into_bytes().into();
        sum.iter_mut().zip(block).for_each(|(sum, byte)| *sum ^= byte);
    }
    sum
}

#[allow(clippy::expect_used, reason = "HMAC takes keys of any length")]
fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("a key of any length")
}

fn hmac(key: &[u8], message: &[u8]) -> Key {
    keyed(key).chain_update(message).finalize().into_bytes().into()
}

/// Compares in a time that does not tell where the first difference is.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677.
    #[test]
    fn the_example_of_the_standard() {
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").expect("base64");
        let verifier = ScramVerifier::new("pencil", &salt);
        let message = b"n=user,r=rOprNGfwEbeRWgbNEkqO,\
            r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,\
            c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let proof = BASE64.decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=").expect("base64");
        assert!(verifier.accepts_proof(message, &proof));
        assert!(!verifier.accepts_proof(b"another", &proof));
        assert_eq!(BASE64.encode(verifier.server_signature(message)), "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        assert!(verifier.accepts("pencil") && !verifier.accepts("Pencil"));
        assert_eq!(ScramVerifier::parse(&verifier.to_string()).expect("parsed"), verifier);
        assert!(ScramVerifier::parse("md5abc").is_err());
    }
}
