//! The sockets that the launcher opens for the switch.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with, sockopt};

/// How long a predecessor may take to die: one that was killed lets go of the run directory a moment before it lets go of its sockets.
const PATIENCE: Duration = Duration::from_millis(500);

/// Connections that may wait to be accepted: whoever connects again and again must not have others' attempts dropped.
const BACKLOG: i32 = 1024;

/// The socket files that were made here, and so are to be removed here, by path: device and inode, so that nobody else's file is ever removed.
#[derive(Debug, Default)]
pub struct SocketFiles {
    files: HashMap<PathBuf, (u64, u64)>,
}

impl SocketFiles {
    /// Listens at `path`. A socket there that nobody listens on any more is replaced.
    pub fn listen(&mut self, path: &Path, private: bool) -> Result<OwnedFd, String> {
        self.try_listen(path, private).map_err(|error| format!("can't listen on {}: {error}", path.display()))
    }

    fn try_listen(&mut self, path: &Path, private: bool) -> Result<OwnedFd, String> {
        let address = SocketAddrUnix::new(path).map_err(|_| "the path is too long".to_owned())?;
        let socket = stream(AddressFamily::UNIX).map_err(|error| error.to_string())?;
        let bind = || {
            // The mask is the process's, and the launcher makes files nowhere else at the same time.
            let others = private.then(|| rustix::process::umask(Mode::RWXG | Mode::RWXO));
            let bound = bind(&socket, &address);
            others.map(rustix::process::umask);
            bound
        };
        match bind() {
            Err(Errno::ADDRINUSE) => {
                remove_stale(path)?;
                bind().map_err(explain)?;
            }
            bound => bound.map_err(explain)?,
        }
        listen(&socket, BACKLOG).map_err(explain)?;
        let metadata = fs::symlink_metadata(path).map_err(|error| error.to_string())?;
        self.files.insert(path.to_owned(), (metadata.dev(), metadata.ino()));
        Ok(socket)
    }

    /// Removes the socket file at `path`, if it was made here.
    pub fn unlink(&mut self, path: &Path) {
        if let Some(made) = self.files.remove(path) {
            unlink_if(path, made);
        }
    }
}

impl Drop for SocketFiles {
    fn drop(&mut self) {
        self.files.drain().for_each(|(path, made)| unlink_if(&path, made));
    }
}

fn unlink_if(path: &Path, made: (u64, u64)) {
    if fs::symlink_metadata(path).is_ok_and(|now| (now.dev(), now.ino()) == made) {
        // It may be gone already, and at the end there is nobody left to tell.
        let _ = fs::remove_file(path);
    }
}

/// Removes a socket that nobody listens on; anything else at `path` stays.
fn remove_stale(path: &Path) -> Result<(), String> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => {}
        Ok(_) => return Err("something that is not a socket is there; remove it or choose another path".to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.to_string()),
    }
    let start = Instant::now();
    loop {
        match connect_unix(path) {
            Err(Errno::CONNREFUSED) => {
                return fs::remove_file(path).map_err(|error| format!("the stale socket there can't be removed: {error}"));
            }
            Err(Errno::NOENT) => return Ok(()),
            Err(error @ (Errno::ACCESS | Errno::PERM)) => return Err(format!("somebody's socket is there ({})", explain(error))),
            _ if start.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(10)),
            _ => return Err("another process listens there; end it or choose another path".to_owned()),
        }
    }
}

/// Connects to a Unix socket without waiting. The socket does not block.
pub fn connect_unix(path: &Path) -> Result<OwnedFd, Errno> {
    let socket = stream(AddressFamily::UNIX)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// Listens on a TCP port. The socket does not block.
pub fn listen_tcp(address: SocketAddr) -> Result<OwnedFd, String> {
    let open = || {
        let socket = stream(family(&address))?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        bind(&socket, &address)?;
        listen(&socket, BACKLOG)?;
        Ok(socket)
    };
    open().map_err(|error| format!("can't listen on TCP address {address}: {}", explain(error)))
}

/// Begins to connect to one of the addresses of `host`, a different one with each attempt. Blocks as long as the name takes to be resolved.
pub fn connect_tcp(host: &str, port: u16, attempt: u32) -> Result<OwnedFd, String> {
    let failed = |error: &dyn std::fmt::Display| format!("can't connect to {host} port {port}: {error}");
    let addresses: Vec<_> = (host, port).to_socket_addrs().map_err(|error| failed(&error))?.collect();
    let address = addresses.get(attempt as usize % addresses.len().max(1)).ok_or_else(|| failed(&"the name has no address"))?;
    let open = || {
        let socket = stream(family(address))?;
        match connect(&socket, address) {
            Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
            Err(error) => Err(error),
        }
    };
    open().map_err(|error| failed(&explain(error)))
}

fn stream(family: AddressFamily) -> Result<OwnedFd, Errno> {
    socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
}

fn family(address: &SocketAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 }
}

/// The error in words, without its number.
fn explain(error: Errno) -> String {
    match error {
        Errno::NOENT => "the directory does not exist; create it".to_owned(),
        Errno::ACCESS | Errno::PERM => "permission denied; choose a place where the switch's user may write".to_owned(),
        Errno::ADDRINUSE => "the address is in use; choose another".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("s");
        drop(UnixListener::bind(&path).expect("bound"));
        assert!(path.exists());
        let mut files = SocketFiles::default();
        let socket = files.listen(&path, true).expect("the stale one is replaced");
        assert_eq!(fs::symlink_metadata(&path).expect("there").permissions().mode() & 0o777, 0o700);

        let error = SocketFiles::default().listen(&path, false).expect_err("a live one");
        assert!(error.contains("another process listens there"), "{error}");
        connect_unix(&path).expect("the live one is still there");
        drop((socket, files));
        assert!(!path.exists());
    }

    #[test]
    fn nothing_but_own_sockets_is_removed() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("s");
        fs::write(&path, "precious").expect("written");
        let mut files = SocketFiles::default();
        let error = files.listen(&path, false).expect_err("a file is there");
        assert!(error.contains("not a socket"), "{error}");
        assert_eq!(fs::read(&path).expect("there"), b"precious");

        fs::remove_file(&path).expect("removed");
        let socket = files.listen(&path, false).expect("bound");
        fs::remove_file(&path).expect("removed");
        let other = UnixListener::bind(&path).expect("bound by somebody else");
        files.unlink(&path);
        assert!(path.exists());
        drop((socket, other));

        let error = files.listen(&dir.path().join("no/s"), false).expect_err("no directory");
        assert!(error.contains("the directory does not exist; create it"), "{error}");
    }

    #[test]
    fn tcp_listens_and_connects() {
        let socket = listen_tcp("127.0.0.1:0".parse().expect("valid")).expect("listening");
        let address = SocketAddr::try_from(rustix::net::getsockname(&socket).expect("a name")).expect("an address");
        connect_tcp("127.0.0.1", address.port(), 3).expect("connecting");
        let error = listen_tcp(address).expect_err("in use");
        assert!(error.contains("in use"), "{error}");
    }
}
