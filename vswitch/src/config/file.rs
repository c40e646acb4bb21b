//! The config file, as TOML sees it. What each value must look like is checked by its type, so that an error comes with its line.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use super::{ControllerTarget, DatapathId, FailMode, ListenTarget, Name, Poll, PortSpec, Version};

/// The most bytes of a config file.
const SIZE_MAX: u64 = 1 << 20;

/// A config file: where it is, its text, and what it says.
#[derive(Debug)]
pub struct ConfigFile {
    path: PathBuf,
    text: String,
    pub(super) sections: Sections,
}

/// A file that is not a config file.
#[derive(Debug, thiserror::Error)]
#[error("config file {}: {message}", path.display())]
pub struct FileError {
    path: PathBuf,
    message: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Sections {
    pub switch: SwitchSection,
    pub workers: WorkersSection,
    pub openflow: OpenFlowSection,
    pub port: Vec<PortSection>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(super) struct SwitchSection {
    pub name: Option<Name>,
    pub fail_mode: Option<FailMode>,
    pub datapath_id: Option<DatapathId>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(super) struct WorkersSection {
    pub cpus: Option<Spanned<Vec<u16>>>,
    pub poll: Option<Poll>,
    pub idle_us: Option<Spanned<u64>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(super) struct OpenFlowSection {
    pub listen: Option<Vec<Spanned<ListenTarget>>>,
    pub controllers: Option<Vec<Spanned<ControllerTarget>>>,
    pub private_key: Option<Spanned<PathBuf>>,
    pub certificate: Option<Spanned<PathBuf>>,
    pub ca_cert: Option<Spanned<PathBuf>>,
    pub versions: Option<Spanned<Vec<Version>>>,
    pub inactivity_probe_s: Option<Spanned<u64>>,
    pub max_backoff_s: Option<Spanned<u64>>,
    pub packet_in_rate: Option<Spanned<u64>>,
    pub packet_in_burst: Option<Spanned<u64>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PortSection {
    pub name: Spanned<Name>,
    pub spec: Spanned<PortSpec>,
}

impl ConfigFile {
    /// Parses `text`, which was read from `path`.
    pub fn parse(path: &Path, text: String) -> Result<Self, FileError> {
        match toml::from_str(&text) {
            Ok(sections) => Ok(Self { path: path.to_owned(), text, sections }),
            Err(error) => Err(FileError { path: path.to_owned(), message: error.to_string().trim_end().to_owned() }),
        }
    }

    /// Reads and parses the file at `path`.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        match File::open(path) {
            Ok(file) => Self::from_open(path, file),
            Err(error) => Err(FileError { path: path.to_owned(), message: format!("can't be read: {error}") }),
        }
    }

    /// Reads and parses `file`, which was opened at `path`.
    pub fn from_open(path: &Path, file: File) -> Result<Self, FileError> {
        let mut text = String::new();
        match file.take(SIZE_MAX + 1).read_to_string(&mut text) {
            Ok(size) if size as u64 <= SIZE_MAX => Self::parse(path, text),
            Ok(_) => {
                Err(FileError { path: path.to_owned(), message: format!("is longer than {SIZE_MAX} bytes: it can't be a config file") })
            }
            Err(error) => Err(FileError { path: path.to_owned(), message: format!("can't be read: {error}") }),
        }
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The line, counted from 1, in which a value starts.
    pub(super) fn line(&self, span: &Range<usize>) -> usize {
        let before = self.text.as_bytes().get(..span.start).unwrap_or(self.text.as_bytes());
        1 + before.iter().filter(|byte| **byte == b'\n').count()
    }
}
