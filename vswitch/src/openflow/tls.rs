//! TLS for OpenFlow connections, as Open vSwitch has it: both sides show a certificate, and each checks that a CA which it trusts has signed the
//! other's. The name in the certificate is not checked: whoever has a certificate of that CA may be controller.
//!
//! No session is ever resumed, so every connection is checked against the CA certificates that are in use when it begins.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore, ServerConfig,
    ServerConnection, SignatureScheme,
};

use super::stream::Stream;
use crate::config::{TlsFile, TlsFiles};

/// The most bytes of a file.
const SIZE_MAX: u64 = 1 << 20;

/// The switch's key and certificate, and whom it trusts.
#[derive(Clone, Debug)]
pub struct Tls {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    /// What the files held.
    contents: Arc<[Vec<u8>; 3]>,
}

/// A file that TLS can't be done with.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum TlsError {
    /// It could not be opened; the message names it.
    #[error("{0}")]
    Open(String),
    #[error("{what} {}: can't be read: {source}", path.display())]
    Read { what: TlsFile, path: PathBuf, source: io::Error },
    #[error("{what} {}: is longer than {SIZE_MAX} bytes: it can't be one", path.display())]
    Long { what: TlsFile, path: PathBuf },
    #[error("private-key {}: holds no private key; give one as PEM (PKCS #8, PKCS #1 or SEC 1), not encrypted", .0.display())]
    NoKey(PathBuf),
    #[error("private-key {}: is of a kind that can't be used; give an RSA key of at least 2048 bits, an ECDSA key (P-256 or P-384) or an Ed25519 key", .0.display())]
    BadKey(PathBuf),
    #[error("{what} {}: holds no certificate; give it as PEM", path.display())]
    NoCertificate { what: TlsFile, path: PathBuf },
    #[error("{what} {}: the certificate {}", path.display(), explain_own(source))]
    BadCertificate { what: TlsFile, path: PathBuf, source: Error },
    #[error("private-key {} does not fit certificate {}; give the key that the certificate was made for", key.display(), certificate.display())]
    Mismatch { key: PathBuf, certificate: PathBuf },
    #[error("TLS can't be set up: {0}")]
    Setup(String),
}

impl Tls {
    /// Reads the files, each opened by `open`, which says in one line why it can't.
    pub fn load(files: &TlsFiles, mut open: impl FnMut(TlsFile) -> Result<File, String>) -> Result<Self, TlsError> {
        let mut read = |what| {
            let (file, path) = (open(what).map_err(TlsError::Open)?, files.path(what).to_owned());
            let mut bytes = Vec::new();
            match file.take(SIZE_MAX + 1).read_to_end(&mut bytes) {
                Ok(size) if size as u64 <= SIZE_MAX => Ok(bytes),
                Ok(_) => Err(TlsError::Long { what, path }),
                Err(source) => Err(TlsError::Read { what, path, source }),
            }
        };
        Self::new(files, [read(TlsFile::PrivateKey)?, read(TlsFile::Certificate)?, read(TlsFile::CaCert)?])
    }

    fn new(files: &TlsFiles, contents: [Vec<u8>; 3]) -> Result<Self, TlsError> {
        let [key, certificate, ca_cert] = &contents;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key_pair = key_pair(files, key, certificate, &provider)?;
        let mut roots = RootCertStore::empty();
        for root in certificates(files, TlsFile::CaCert, ca_cert)? {
            let bad = |source| TlsError::BadCertificate { what: TlsFile::CaCert, path: files.ca_cert.clone(), source };
            roots.add(root).map_err(bad)?;
        }
        let roots = Arc::new(roots);
        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build().map_err(setup)?;
        let server = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
        let mut server = server.map_err(setup)?.with_client_cert_verifier(clients).with_cert_resolver(key_pair.clone());
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;

        let servers = Arc::new(SignedByCa { roots, algorithms: provider.signature_verification_algorithms });
        let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let client = client.map_err(setup)?.dangerous().with_custom_certificate_verifier(servers);
        let mut client = client.with_client_cert_resolver(key_pair);
        client.resumption = Resumption::disabled();
        Ok(Self { server: Arc::new(server), client: Arc::new(client), contents: Arc::new(contents) })
    }

    /// Whether the files held the same.
    pub fn is_same(&self, other: &Self) -> bool {
        self.contents == other.contents
    }

    /// Waits for the handshake of whoever connected with this socket.
    pub fn accept(&self, socket: OwnedFd) -> Result<Stream, TlsError> {
        let tls = ServerConnection::new(self.server.clone()).map_err(setup)?;
        Ok(Stream::tls(socket, tls.into()))
    }

    /// Begins the handshake with `host`, an address or a name, over a connected socket.
    pub fn connect(&self, host: &str, socket: OwnedFd) -> Result<Stream, TlsError> {
        let name = ServerName::try_from(host.to_owned()).map_err(setup)?;
        let tls = ClientConnection::new(self.client.clone(), name).map_err(setup)?;
        Ok(Stream::tls(socket, tls.into()))
    }
}

fn setup(error: impl std::fmt::Display) -> TlsError {
    TlsError::Setup(error.to_string())
}

/// A private key and its certificate, which fit.
fn key_pair(
    files: &TlsFiles,
    key: &[u8],
    certificate: &[u8],
    provider: &CryptoProvider,
) -> Result<Arc<rustls::sign::SingleCertAndKey>, TlsError> {
    // What the parser says may quote the file, which is not for the log.
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsError::NoKey(files.private_key.clone()))?;
    let key = provider.key_provider.load_private_key(key).map_err(|_| TlsError::BadKey(files.private_key.clone()))?;
    let chain = certificates(files, TlsFile::Certificate, certificate)?;
    let pair = CertifiedKey::new(chain, key);
    match pair.keys_match() {
        Ok(()) => Ok(Arc::new(pair.into())),
        Err(Error::InconsistentKeys(_)) => {
            Err(TlsError::Mismatch { key: files.private_key.clone(), certificate: files.certificate.clone() })
        }
        Err(source) => Err(TlsError::BadCertificate { what: TlsFile::Certificate, path: files.certificate.clone(), source }),
    }
}

/// All certificates of a file, at least one.
fn certificates(files: &TlsFiles, what: TlsFile, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let some = certificates.ok().filter(|certificates| !certificates.is_empty());
    some.ok_or_else(|| TlsError::NoCertificate { what, path: files.path(what).to_owned() })
}

/// Trusts a server that a CA has signed, whatever it is called.
#[derive(Debug)]
struct SignedByCa {
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for SignedByCa {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, self.algorithms.all)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// What went wrong with a peer, in the words of whoever has to mend it.
pub(super) fn explain(error: &Error) -> String {
    match error {
        Error::NoCertificatesPresented => "the peer showed no certificate; it needs one that a CA of ca-cert has signed".to_owned(),
        Error::InvalidCertificate(error) => format!("the peer's certificate {}", explain_certificate(error)),
        Error::AlertReceived(alert) => format!("the peer refused: {}", explain_alert(*alert)),
        Error::InvalidMessage(_) => format!("the peer does not speak TLS ({error})"),
        Error::PeerIncompatible(why) => format!("the peer's TLS is not compatible ({why:?})"),
        error => error.to_string(),
    }
}

fn explain_own(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(error) => explain_certificate(error),
        error => format!("can't be used ({error})"),
    }
}

fn explain_certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::ExpiredContext { time, not_after } => {
            let days = time.as_secs().saturating_sub(not_after.as_secs()) / (24 * 3600);
            format!("is expired, for {days} days")
        }
        CertificateError::Expired => "is expired".to_owned(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "is not valid yet; check both clocks".to_owned(),
        CertificateError::UnknownIssuer | CertificateError::BadSignature => "is not signed by a CA of ca-cert".to_owned(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "is not for this use (extended key usage)".to_owned()
        }
        // These are known by their names only: they are another crate's.
        CertificateError::Other(why) => match why.to_string().as_str() {
            "UnsupportedCertVersion" => "is not of X.509 version 3; sign it with extensions (openssl x509 -req -extfile FILE)".to_owned(),
            "CaUsedAsEndEntity" => "is a CA's own; sign one for the peer with it".to_owned(),
            why => format!("can't be used ({why})"),
        },
        error => format!("can't be used ({error})"),
    }
}

fn explain_alert(alert: AlertDescription) -> String {
    match alert {
        // The latter when a CA of the same name has another key.
        AlertDescription::UnknownCA | AlertDescription::DecryptError => "it does not trust the CA that signed our certificate".to_owned(),
        AlertDescription::CertificateExpired => "our certificate is expired".to_owned(),
        AlertDescription::CertificateRequired => "it wants a certificate and got none".to_owned(),
        AlertDescription::BadCertificate | AlertDescription::UnsupportedCertificate | AlertDescription::CertificateUnknown => {
            format!("it does not accept our certificate ({alert:?})")
        }
        AlertDescription::HandshakeFailure => "it found no cipher that both sides know, or misses our certificate".to_owned(),
        alert => format!("{alert:?}"),
    }
}
