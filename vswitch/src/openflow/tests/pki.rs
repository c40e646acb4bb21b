//! Keys and certificates for tests.

use std::cell::Cell;
use std::fs::File;
use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd};
use tempfile::TempDir;

use crate::config::TlsFiles;
use crate::openflow::tls::{Tls, TlsError};

/// A CA, and where the files of those it signs lie.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: TempDir,
    files: Cell<usize>,
}

/// The year in which a certificate that is signed runs out.
pub const EXPIRED: i32 = 2001;
/// The same for one that is valid.
pub const VALID: i32 = 4000;

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer, directory: tempfile::tempdir().unwrap(), files: Cell::new(0) }
    }

    /// Writes a file, and says where it is.
    pub fn file(&self, text: &str) -> PathBuf {
        let path = self.directory.path().join(format!("{}.pem", self.files.replace(self.files.get() + 1)));
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A key and its certificate, signed by this CA, beside the certificate of the CA that the owner is to trust.
    pub fn sign(&self, until: i32, trusted: &Self) -> TlsFiles {
        self.sign_for(until, trusted, &[])
    }

    /// The key and the certificate of the CA itself.
    pub fn as_its_own(&self, trusted: &Self) -> TlsFiles {
        TlsFiles {
            private_key: self.file(&self.issuer.key().serialize_pem()),
            certificate: self.file(&self.issuer.pem()),
            ca_cert: self.file(&trusted.issuer.pem()),
        }
    }

    pub fn sign_for(&self, until: i32, trusted: &Self, purposes: &[ExtendedKeyUsagePurpose]) -> TlsFiles {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "some name");
        params.not_after = date_time_ymd(until, 1, 1);
        params.not_before = date_time_ymd(2000, 1, 1);
        params.extended_key_usages = purposes.to_vec();
        TlsFiles {
            private_key: self.file(&key.serialize_pem()),
            certificate: self.file(&params.signed_by(&key, &self.issuer).unwrap().pem()),
            ca_cert: self.file(&trusted.issuer.pem()),
        }
    }
}

/// TLS by these files.
pub fn load(files: &TlsFiles) -> Result<Tls, TlsError> {
    Tls::load(files, |what| File::open(files.path(what)).map_err(|error| format!("{what} can't be opened: {error}")))
}
