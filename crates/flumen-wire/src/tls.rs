//! The certificate of the doors. A bad one keeps a server from starting; nothing falls back to plain text.

use std::path::Path;
use std::sync::Arc;

use flumen_core::{Error, Result};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// What a server shows to its clients.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ServerConfig>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls(…)")
    }
}

impl Tls {
    /// The certificate (with those between it and a root) and its key, from PEM files.
    ///
    /// Errors: those of the file system; `Invalid` for files that hold something else, or that do not belong together.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self> {
        let read = |path: &Path| std::fs::read(path).map_err(|error| Error::io(path.display(), error));
        let no_pem = |path: &Path, what: &str, error: rustls::pki_types::pem::Error| {
            Error::invalid(format!("{}: there is no {what} in this file", path.display()))
                .hint("it should be a PEM file")
                .caused_by(error)
        };
        let certificates = CertificateDer::pem_slice_iter(&read(certificate)?)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| no_pem(certificate, "certificate", error))?;
        if certificates.is_empty() {
            return Err(no_pem(certificate, "certificate", rustls::pki_types::pem::Error::NoItemsFound));
        }
        let private = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|error| no_pem(key, "private key", error))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::internal("TLS did not start").caused_by(error))?
            .with_no_client_auth()
            .with_single_cert(certificates, private)
            .map_err(|error| {
                Error::invalid(format!("{}: the certificate and its key do not go together: {error}", key.display()))
                    .hint("check --tls-cert and --tls-key")
                    .caused_by(error)
            })?;
        Ok(Self { config: Arc::new(config) })
    }

    /// For a door that speaks one protocol only, named as TLS names it.
    pub(crate) fn acceptor(&self, protocol: &str) -> tokio_rustls::TlsAcceptor {
        let mut config = self.config.as_ref().clone();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        tokio_rustls::TlsAcceptor::from(Arc::new(config))
    }
}
