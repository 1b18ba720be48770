//! Which server is the right one: by the fingerprint in the address, by a file of authorities, or by those of the system.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use tokio_rustls::rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme, version,
};

use crate::store::open::OpenError;

const SCHEME: &str = "sha256:";

/// SHA-256 of a certificate, as `openssl x509 -fingerprint -sha256` computes it. Prints as an address has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of a certificate in DER.
    pub fn of(certificate: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, certificate).as_ref());
        Self(hash)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SCHEME)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Text that is no fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint is sha256: and 64 hexadecimal digits")]
pub struct ParseFingerprintError;

impl FromStr for Fingerprint {
    type Err = ParseFingerprintError;

    /// Takes colons between the digits, too, as `openssl` prints them.
    fn from_str(text: &str) -> Result<Self, ParseFingerprintError> {
        let scheme = text.get(..SCHEME.len()).filter(|scheme| scheme.eq_ignore_ascii_case(SCHEME));
        scheme.ok_or(ParseFingerprintError)?;
        let digits: Vec<char> = text[SCHEME.len()..].chars().filter(|c| *c != ':').collect();
        let mut hash = [0; 32];
        if digits.len() != 2 * hash.len() {
            return Err(ParseFingerprintError);
        }
        for (byte, pair) in hash.iter_mut().zip(digits.chunks(2)) {
            let value = pair.iter().try_fold(0, |sum, c| Some(sum * 16 + c.to_digit(16)?));
            *byte = value.and_then(|value| u8::try_from(value).ok()).ok_or(ParseFingerprintError)?;
        }
        Ok(Self(hash))
    }
}

/// Whom to believe that a server is the right one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) enum Roots {
    /// The certificate itself is known.
    Pinned(Fingerprint),
    /// Authorities in a file, and no others.
    File(PathBuf),
    /// The authorities of the system.
    System,
}

/// How a server is spoken to, and what it showed last.
pub(in crate::store) struct Trust {
    pub(super) config: Arc<ClientConfig>,
    seen: Seen,
}

type Seen = Arc<Mutex<Option<Fingerprint>>>;

impl Trust {
    pub(in crate::store) fn new(roots: &Roots) -> Result<Self, OpenError> {
        let mut provider = default_provider();
        // A recording of today must not open to a quantum computer.
        provider.kx_groups.retain(|group| group.name() != kx_group::X25519MLKEM768.name());
        provider.kx_groups.insert(0, kx_group::X25519MLKEM768);
        let (provider, seen) = (Arc::new(provider), Seen::default());
        let how = match roots {
            Roots::Pinned(fingerprint) => How::Pinned(*fingerprint),
            Roots::File(path) => How::Chain(chain(of_file(path)?, &provider)?),
            Roots::System => How::Chain(chain(of_system()?, &provider)?),
        };
        let verifier = Verifier { how, provider: Arc::clone(&provider), seen: Arc::clone(&seen) };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])
            .map_err(settings)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), seen })
    }

    /// Of the certificate that was shown last.
    pub(super) fn seen(&self) -> Option<Fingerprint> {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn settings(error: impl std::error::Error + Send + Sync + 'static) -> OpenError {
    OpenError::Settings { source: Box::new(error) }
}

fn chain(
    roots: RootCertStore,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, OpenError> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(settings)
}

fn of_file(path: &Path) -> Result<RootCertStore, OpenError> {
    let none = || OpenError::NoCertificates { path: path.to_owned() };
    let bytes = std::fs::read(path).map_err(|source| OpenError::File { path: path.to_owned(), source })?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        roots.add(certificate.map_err(|_| none())?).map_err(|_| none())?;
    }
    if roots.is_empty() { Err(none()) } else { Ok(roots) }
}

fn of_system() -> Result<RootCertStore, OpenError> {
    // What is damaged among them is left out; what then is missing shows at the server.
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() { Err(OpenError::NoRoots) } else { Ok(roots) }
}

#[derive(Debug)]
enum How {
    Pinned(Fingerprint),
    Chain(Arc<WebPkiServerVerifier>),
}

/// Notes what is shown, and judges it.
#[derive(Debug)]
struct Verifier {
    how: How,
    provider: Arc<CryptoProvider>,
    seen: Seen,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let found = Fingerprint::of(end_entity);
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
        match &self.how {
            // Neither names nor dates: it is this very certificate, and whoever has its key.
            How::Pinned(wanted) if *wanted == found => Ok(ServerCertVerified::assertion()),
            How::Pinned(_) => Err(CertificateError::ApplicationVerificationFailure.into()),
            How::Chain(chain) => {
                chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_read_as_openssl_prints_it_and_printed_as_an_address_has_it() {
        let fingerprint = Fingerprint::of(b"x");
        let text = fingerprint.to_string();
        assert_eq!(text.parse(), Ok(fingerprint));
        let pairs: Vec<String> =
            text.as_bytes()[7..].chunks(2).map(|p| String::from_utf8_lossy(p).to_uppercase()).collect();
        assert_eq!(format!("SHA256:{}", pairs.join(":")).parse(), Ok(fingerprint));
        for bad in [
            "",
            "sha256:",
            "sha1:00",
            &text[7..],
            &text[..70],
            &format!("{text}0"),
            "sha256:é",
            &text.replace(&text[7..8], "x"),
        ] {
            assert_eq!(bad.parse::<Fingerprint>(), Err(ParseFingerprintError), "{bad}");
        }
    }
}
