//! What can go wrong.

use std::io;

/// Why a run, or the whole of it, failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused something.
    #[error("{0}: {1}")]
    Io(String, #[source] io::Error),
    /// Something was not as it has to be.
    #[error("{0}")]
    Failed(String),
    /// Ctrl-C or SIGTERM.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// The system refused `what`.
    pub fn io(what: impl Into<String>, error: impl Into<io::Error>) -> Self {
        Self::Io(what.into(), error.into())
    }

    /// This happened.
    pub fn failed(what: impl Into<String>) -> Self {
        Self::Failed(what.into())
    }
}

/// What most functions here return.
pub type Result<T> = std::result::Result<T, Error>;
