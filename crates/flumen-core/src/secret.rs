//! Values that cannot be printed.

pub use secrecy::ExposeSecret;

/// A password, token or key. `Debug` shows nothing of it; [`ExposeSecret`] gives it out where it is used, and a search for
/// that word finds every such place.
pub type Secret = secrecy::SecretString;

/// What stands in the place of a secret wherever something is shown.
pub const MASK: &str = "***";
