//! The server's side of TLS.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, version};

use super::ListenError;
use crate::store::door::Fingerprint;

/// Where the certificate and its key lie, as PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, and those that lead to a root.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// How clients are spoken to, and the fingerprint of the certificate.
pub(super) struct Tls {
    pub(super) config: Arc<ServerConfig>,
    pub(super) fingerprint: Fingerprint,
}

fn read(path: &Path) -> Result<Vec<u8>, ListenError> {
    std::fs::read(path).map_err(|source| ListenError::File { path: path.to_owned(), source })
}

impl TlsFiles {
    pub(super) fn load(&self) -> Result<Tls, ListenError> {
        let bad = |path: &Path, what: String| ListenError::Pem { path: path.to_owned(), what };
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(&self.cert)?).collect();
        let chain = chain.map_err(|error| bad(&self.cert, error.to_string()))?;
        let first = chain.first().ok_or_else(|| bad(&self.cert, "no certificate is in it".to_owned()))?;
        let fingerprint = Fingerprint::of(first);
        let secret = zeroize::Zeroizing::new(read(&self.key)?);
        let key =
            PrivateKeyDer::from_pem_slice(&secret).map_err(|error| bad(&self.key, error.to_string()))?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
            .map_err(|error| bad(&self.key, error.to_string()))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Tls { config: Arc::new(config), fingerprint })
    }
}
