//! The run directory: where a switch's sockets lie.

use std::path::{Path, PathBuf};

/// The most bytes of a Unix socket's path (`sun_path`, with its final zero, is 108 long).
pub const SOCKET_PATH_MAX: usize = 107;

/// The directory in which relative socket paths lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunDir(PathBuf);

/// The operator gave no run directory and there is no default.
#[derive(Debug, thiserror::Error)]
#[error("there is no default run directory: XDG_RUNTIME_DIR is not set and the user is not root; give one with --run-dir DIR")]
pub struct NoRunDir;

impl RunDir {
    /// `given`, or the default: `/run/vswitch` for root, else `$XDG_RUNTIME_DIR/vswitch`.
    pub fn find(given: Option<&Path>) -> Result<Self, NoRunDir> {
        let root = rustix::process::geteuid().is_root();
        Self::choose(given, root, std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from))
    }

    fn choose(given: Option<&Path>, root: bool, runtime: Option<PathBuf>) -> Result<Self, NoRunDir> {
        match (given, runtime) {
            (Some(given), _) => Ok(Self(std::path::absolute(given).unwrap_or_else(|_| given.to_owned()))),
            (None, _) if root => Ok(Self("/run/vswitch".into())),
            // The XDG specification has relative paths ignored.
            (None, Some(runtime)) if runtime.is_absolute() => Ok(Self(runtime.join("vswitch"))),
            (None, _) => Err(NoRunDir),
        }
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where a socket lies: `path` itself if it is absolute, else below the run directory.
    pub fn resolve(&self, path: &Path) -> PathBuf {
        self.0.join(path)
    }

    /// The control socket.
    pub fn control_socket(&self) -> PathBuf {
        self.0.join("vswitch.sock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_depends_on_the_user() {
        let path = |dir: Result<RunDir, NoRunDir>| dir.ok().map(|dir| dir.0);
        assert_eq!(path(RunDir::choose(None, true, Some("/x".into()))), Some("/run/vswitch".into()));
        assert_eq!(path(RunDir::choose(None, false, Some("/run/user/7".into()))), Some("/run/user/7/vswitch".into()));
        assert_eq!(path(RunDir::choose(None, false, Some("relative".into()))), None);
        assert_eq!(path(RunDir::choose(None, false, None)), None);
        assert_eq!(path(RunDir::choose(Some(Path::new("/here")), false, None)), Some("/here".into()));
    }

    #[test]
    fn relative_sockets_lie_in_the_run_directory() {
        let dir = RunDir("/run/vswitch".into());
        assert_eq!(dir.resolve(Path::new("vm1.sock")), Path::new("/run/vswitch/vm1.sock"));
        assert_eq!(dir.resolve(Path::new("/tmp/vm1.sock")), Path::new("/tmp/vm1.sock"));
    }
}
