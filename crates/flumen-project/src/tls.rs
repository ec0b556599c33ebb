//! TLS. Two cryptographic providers are in the build, so rustls has no default: ours is named wherever one is needed.

use std::sync::Arc;

use flumen_core::{Error, Result};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// How much of a server's certificate is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Nothing: the connection is encrypted, and could be to anyone.
    Anyone,
    /// That an authority signed it.
    Authority,
    /// That an authority signed it, and for this host.
    Host,
}

/// Makes our provider the process's default, for crates that take the default. To be called once, at the start.
pub fn install_default_provider() {
    // Fails only when there is a default already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// A configuration for a TLS client. `authorities` is the PEM file of those who are trusted; by default the system's.
///
/// Errors: `Invalid` when the file has no certificates, or the system has none.
pub fn client_config(trust: Trust, authorities: Option<&std::path::Path>) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::internal("no TLS version is available").caused_by(error))?;
    Ok(match trust {
        Trust::Host => builder.with_root_certificates(roots(authorities)?).with_no_client_auth(),
        Trust::Authority => {
            let verifier = AuthorityVerifier { roots: roots(authorities)?, provider };
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()
        }
        Trust::Anyone => {
            let verifier = AnyoneVerifier { provider };
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()
        }
    })
}

fn roots(authorities: Option<&std::path::Path>) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    match authorities {
        Some(path) => {
            let pem = std::fs::read(path).map_err(|error| Error::io(path.display(), error))?;
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                let added = certificate.map(|certificate| roots.add(certificate));
                if !matches!(added, Ok(Ok(()))) {
                    return Err(Error::invalid(format!("{}: this is not a PEM file of certificates", path.display())));
                }
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        let place = authorities.map_or_else(|| "this system".to_owned(), |path| path.display().to_string());
        return Err(Error::invalid(format!("{place} has no certificates of authorities"))
            .hint("install the package ca-certificates, or name a file with sslrootcert"));
    }
    Ok(roots)
}

/// Checks who signed, not for which host: what Postgres calls `verify-ca`.
#[derive(Debug)]
struct AuthorityVerifier {
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AuthorityVerifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = ParsedCertificate::try_from(certificate)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, algorithms)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Checks nothing but that the other side has the key of the certificate it shows: what Postgres calls `require`.
#[derive(Debug)]
struct AnyoneVerifier {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyoneVerifier {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
