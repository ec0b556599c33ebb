//! What is kept in place of a password.

use argon2::Argon2;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use flumen_core::user::Verifiers;
use flumen_core::user::scram::{SALT_BYTES, ScramVerifier};
use flumen_core::{Error, Result};

/// The verifiers of `password`, one for each way to log in, each salted with `salt`, which nobody else may have.
///
/// Takes some tens of milliseconds, on purpose.
///
/// Errors: `Invalid` for an empty password.
pub fn verifiers(password: &str, salt: &[u8; SALT_BYTES]) -> Result<Verifiers> {
    if password.is_empty() {
        return Err(Error::invalid("the password is empty"));
    }
    let failed = |error: argon2::password_hash::Error| {
        Error::internal("the password could not be hashed").caused_by(error.to_string())
    };
    let web = Argon2::default().hash_password_with_salt(password.as_bytes(), salt).map_err(failed)?;
    Ok(Verifiers { scram: ScramVerifier::new(password, salt).to_string(), web: web.to_string() })
}

/// Whether `password` is the one that `verifiers` were made of, by the verifier for the web.
pub fn accepts(verifiers: &Verifiers, password: &str) -> bool {
    Argon2::default().verify_password(password.as_bytes(), verifiers.web.as_str()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_verifiers_fit_the_password_and_no_other() {
        let made = verifiers("s3cret", &[7; SALT_BYTES]).expect("made");
        assert!(made.scram.starts_with("SCRAM-SHA-256$4096:") && made.web.starts_with("$argon2id$"));
        assert!(accepts(&made, "s3cret") && !accepts(&made, "S3cret") && !accepts(&made, ""));
        let scram = ScramVerifier::parse(&made.scram).expect("parsed");
        assert!(scram.accepts("s3cret") && !scram.accepts("S3cret"));
        assert_ne!(verifiers("s3cret", &[8; SALT_BYTES]).expect("made"), made);
        assert!(verifiers("", &[7; SALT_BYTES]).is_err());
        assert!(!format!("{made:?}").contains("argon"));
    }
}
