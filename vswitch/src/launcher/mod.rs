//! `vswitch run`: the launcher.
//!
//! The launcher keeps whatever privilege it was started with and touches no frame and no message. It starts the switch, a second process of the
//! same binary, and opens for it what the switch itself will not be allowed to open: listening and outgoing sockets, network devices, the config file, keys
//! and certificates. Each descriptor is asked for over a socket pair ([`channel`]) and passed back over it, at the start and for ports added later. Which files
//! are opened is not the switch's to say: they are those that the command line names, and the config file, which the launcher reads for them.
//!
//! - The two live and die together: if the switch ends, the launcher removes the socket files and ends with the switch's status; if
//!   the launcher is killed, the kernel kills the switch.
//! - SIGTERM, SIGINT and SIGHUP end the switch in peace; if it does not follow within seconds, it is killed.
//! - A lock on the run directory, held by both processes, keeps a second switch away, and tells a new one that the sockets it finds there were left
//!   behind.
//!
//! It is single-threaded but for name look-ups, which may take long; a thread of their own answers them.

pub mod channel;
mod notify;
mod sockets;

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::cli::RunArgs;
use crate::config::{ConfigFile, RunDir, TlsFile};
use crate::uplink::handed::Inherited;
use crate::uplink::{self, links::Links};
use channel::{Answer, Asked, Channel, Given, Request};
use sockets::SocketFiles;

/// How long a dying predecessor may hold the run directory.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
/// How long the switch may take to end in peace.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// Why there is no switch any more, or never was.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum LauncherError {
    #[error("the run directory {} can't be used: {source}; choose another with --run-dir", path.display())]
    RunDir { path: PathBuf, source: io::Error },
    #[error("another switch is running in {}; end it or choose another run directory with --run-dir", .0.display())]
    Running(PathBuf),
    #[error("the switch process can't be started: {0}")]
    Start(io::Error),
    #[error("waiting for the switch process failed: {0}")]
    Wait(#[from] io::Error),
    #[error("the switch process was killed by signal {0}; the socket files are removed")]
    Killed(i32),
}

/// Runs a switch until it ends. Returns its exit status.
pub fn run(args: &RunArgs, run_dir: &RunDir) -> Result<u8, LauncherError> {
    let inherited = Inherited::find();
    // Held until both processes have ended: the switch inherits it.
    let _lock = lock(run_dir.path())?;
    let stop = stop_signals().map_err(LauncherError::Start)?;
    let (channel, far) = Channel::pair().map_err(LauncherError::Start)?;
    let child = start(far).map_err(LauncherError::Start)?;
    let status = Launcher { args, files: SocketFiles::default(), inherited, channel, child, stop }.serve()?;
    match (status.code(), status.signal()) {
        (Some(code), _) => Ok(u8::try_from(code).unwrap_or(1)),
        (None, signal) => Err(LauncherError::Killed(signal.unwrap_or_default())),
    }
}

/// Makes the run directory and locks it.
fn lock(path: &Path) -> Result<File, LauncherError> {
    let failed = |source| LauncherError::RunDir { path: path.to_owned(), source };
    std::fs::create_dir_all(path).map_err(failed)?;
    let directory = File::open(path).map_err(failed)?;
    let start = Instant::now();
    loop {
        match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(rustix::io::Errno::WOULDBLOCK) if start.elapsed() < LOCK_PATIENCE => std::thread::sleep(Duration::from_millis(10)),
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(LauncherError::Running(path.to_owned())),
            Err(error) => return Err(failed(error.into())),
        }
    }
    rustix::io::fcntl_setfd(&directory, rustix::io::FdFlags::empty()).map_err(|error| failed(error.into()))?;
    Ok(directory)
}

/// A socket that becomes readable when the process is asked to end.
pub fn stop_signals() -> io::Result<UnixStream> {
    let (near, far) = UnixStream::pair()?;
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        signal_hook::low_level::pipe::register(signal, far.try_clone()?)?;
    }
    near.set_nonblocking(true)?;
    Ok(near)
}

/// Starts the switch: this program again, with the same flags, and its end of the channel as standard input.
fn start(channel: OwnedFd) -> io::Result<Child> {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| "vswitch".into());
    Command::new("/proc/self/exe")
        .arg0(name)
        .args(arguments)
        .arg("--as-switch")
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::from(channel))
        .spawn()
}

struct Launcher<'a> {
    args: &'a RunArgs,
    files: SocketFiles,
    inherited: Inherited,
    channel: Channel,
    child: Child,
    stop: UnixStream,
}

impl Launcher<'_> {
    /// Answers requests until the switch has ended.
    fn serve(mut self) -> io::Result<ExitStatus> {
        let pid = Pid::from_child(&self.child);
        let ended = pidfd_open(pid, PidfdFlags::empty())?;
        let mut deadline: Option<Instant> = None;
        let mut channel_open = true;
        loop {
            let wait = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let timeout = wait.and_then(|wait| Timespec::try_from(wait).ok());
            let mut fds =
                [&ended.as_fd(), &self.stop.as_fd(), &self.channel.as_fd()].map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN));
            let watched = if channel_open { 3 } else { 2 };
            match poll(&mut fds[..watched], timeout.as_ref()) {
                Ok(0) if deadline.is_some() => {
                    let _ = pidfd_send_signal(&ended, Signal::KILL);
                    deadline = None;
                }
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let [has_ended, stop, asked] = fds.map(|fd| !fd.revents().is_empty());
            if has_ended {
                return self.child.wait();
            }
            if stop && drain(&self.stop) {
                notify::notify("STOPPING=1");
                // It fails only if the switch has just ended.
                let _ = pidfd_send_signal(&ended, Signal::TERM);
                deadline = Some(Instant::now() + END_PATIENCE);
            }
            if asked {
                match self.channel.receive() {
                    Ok(Some((asked, _))) => self.answer(asked),
                    Ok(None) => {}
                    Err(_) => channel_open = false,
                }
            }
        }
    }

    fn answer(&mut self, Asked { id, request }: Asked) {
        let result = match request {
            Request::OpenConfig => self.open_config().map(Given::from),
            Request::OpenTls(what) => self.open_tls(what).map(Given::from),
            Request::ListenUnix { path, private } => self.files.listen(&path, private).map(Given::from),
            Request::ListenTcp(address) => sockets::listen_tcp(address).map(Given::from),
            Request::Unlink(path) => {
                self.files.unlink(&path);
                Ok(Given::default())
            }
            Request::ConnectUnix(path) => match sockets::connect_unix(&path) {
                Ok(socket) => Ok(socket.into()),
                Err(error) => Err(format!("can't connect to {}: {error}", path.display())),
            },
            Request::ConnectTcp { host, port, attempt } => match self.channel.try_clone() {
                Ok(channel) => {
                    let look_up = move || reply(&channel, id, sockets::connect_tcp(&host, port, attempt).map(Given::from));
                    match std::thread::Builder::new().spawn(look_up) {
                        Ok(_) => return,
                        Err(error) => Err(error.to_string()),
                    }
                }
                Err(error) => Err(error.to_string()),
            },
            Request::OpenDevice(device) => {
                uplink::open(&device, &mut self.inherited).map(|(opened, descriptors)| Given { descriptors, device: Some(opened) })
            }
            Request::WatchDevices => Links::open().map(Given::from).map_err(|error| error.to_string()),
            Request::Ready => {
                announce_ready();
                Ok(Given::default())
            }
        };
        reply(&self.channel, id, result);
    }

    fn open_config(&self) -> Result<OwnedFd, String> {
        let path = self.args.config.as_deref().ok_or("no config file was given with --config")?;
        match File::open(path) {
            Ok(file) => Ok(file.into()),
            Err(error) => Err(format!("config file {}: can't be read: {error}", path.display())),
        }
    }

    fn open_tls(&self, what: TlsFile) -> Result<OwnedFd, String> {
        let file = self.args.config.as_deref().map(ConfigFile::read).transpose().map_err(|error| error.to_string())?;
        let path = what.path(self.args, file.as_ref()).ok_or_else(|| format!("no {what} is given"))?;
        open_tls_file(what, &path).map(OwnedFd::from)
    }
}

/// Opens a file that TLS needs for reading, unless it is of a kind that makes its reader wait.
pub fn open_tls_file(what: TlsFile, path: &Path) -> Result<File, String> {
    let open = || {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is not a file")) }
    };
    open().map_err(|error| format!("{what} {}: can't be read: {error}", path.display()))
}

fn reply(channel: &Channel, id: u64, result: Result<Given, String>) {
    let (given, error) = match result {
        Ok(given) => (given, None),
        Err(error) => (Given::default(), Some(error)),
    };
    // It fails only if the switch has ended, which is noticed anyway.
    let _ = channel.send(&Answer { id, error, device: given.device }, &given.descriptors);
}

fn announce_ready() {
    // Nobody may be reading; the switch works all the same.
    let mut out = io::stdout();
    let _ = out.write_all(b"ready\n").and_then(|()| out.flush());
    notify::notify("READY=1");
}

/// Empties the signals' socket. False if nothing was in it.
pub fn drain(stop: &UnixStream) -> bool {
    let mut bytes = [0; 64];
    matches!(io::Read::read(&mut &*stop, &mut bytes), Ok(count) if count > 0)
}
