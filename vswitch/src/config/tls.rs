//! The files that TLS needs, named as in Open vSwitch.
//!
//! A path that a flag gives is relative to the working directory, one that the config file gives to the directory of that file. The switch
//! process opens none of them: it asks the launcher by a file's *purpose*, and the launcher finds the path here, so that a
//! switch that was taken over can't have other files opened.

use std::fmt;
use std::path::{Path, PathBuf};

use super::ConfigFile;
use crate::cli::RunArgs;

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum TlsFile {
    /// The switch's private key.
    PrivateKey,
    /// The certificate of that key, and those between it and its CA's, if any.
    Certificate,
    /// The certificates of the CAs whose peers are trusted.
    CaCert,
}

/// Where they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The [`TlsFile::PrivateKey`].
    pub private_key: PathBuf,
    /// The [`TlsFile::Certificate`].
    pub certificate: PathBuf,
    /// The [`TlsFile::CaCert`].
    pub ca_cert: PathBuf,
}

impl TlsFile {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::PrivateKey, Self::Certificate, Self::CaCert];

    /// What it is called in the config file and, after two dashes, as a flag.
    pub const fn word(self) -> &'static str {
        match self {
            Self::PrivateKey => "private-key",
            Self::Certificate => "certificate",
            Self::CaCert => "ca-cert",
        }
    }

    /// Where it is, if that is given.
    pub fn path(self, flags: &RunArgs, file: Option<&ConfigFile>) -> Option<PathBuf> {
        let section = file.map(|file| &file.sections.openflow);
        let (flag, in_file) = match self {
            Self::PrivateKey => (&flags.private_key, section.map(|section| &section.private_key)),
            Self::Certificate => (&flags.certificate, section.map(|section| &section.certificate)),
            Self::CaCert => (&flags.ca_cert, section.map(|section| &section.ca_cert)),
        };
        let directory = file.and_then(|file| file.path().parent()).unwrap_or(Path::new(""));
        flag.clone().or_else(|| Some(directory.join(in_file?.as_ref()?.get_ref())))
    }
}

impl fmt::Display for TlsFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl TlsFiles {
    /// All three, or the first that is missing.
    pub fn find(flags: &RunArgs, file: Option<&ConfigFile>) -> Result<Self, TlsFile> {
        let path = |what: TlsFile| what.path(flags, file).ok_or(what);
        Ok(Self { private_key: path(TlsFile::PrivateKey)?, certificate: path(TlsFile::Certificate)?, ca_cert: path(TlsFile::CaCert)? })
    }

    /// Where one of them is.
    pub fn path(&self, what: TlsFile) -> &Path {
        match what {
            TlsFile::PrivateKey => &self.private_key,
            TlsFile::Certificate => &self.certificate,
            TlsFile::CaCert => &self.ca_cert,
        }
    }
}
