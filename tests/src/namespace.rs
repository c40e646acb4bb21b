//! Network namespaces: hosts on this machine, each with a network of its own. They take root, and `ip`.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::process::PATIENCE;
use crate::random::Random;

/// A network namespace, which goes when it is dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// A namespace with nothing in it but a loopback device that is up.
    pub fn new(what: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("vst-{}-{}-{what}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        succeed(Command::new("ip").args(["netns", "add", &name]));
        let namespace = Self { name };
        namespace.run("ip", &["link", "set", "lo", "up"]);
        // What a host says on its own account is nothing that a test counts on.
        namespace.run("sysctl", &["-qw", "net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0"]);
        namespace.run("sysctl", &["-qw", "net.ipv6.conf.default.router_solicitations=0"]);
        namespace
    }

    /// A namespace that somebody else made and removes, with this name.
    pub fn existing(name: &str) -> std::mem::ManuallyDrop<Self> {
        std::mem::ManuallyDrop::new(Self { name: name.to_owned() })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What a command writes that runs in it.
    ///
    /// # Panics
    ///
    /// Panics if the command fails.
    pub fn run(&self, program: &str, args: &[&str]) -> String {
        succeed(Command::new("ip").args(["netns", "exec", &self.name, program]).args(args))
    }

    /// Runs a command in it that may fail.
    pub fn try_run(&self, program: &str, args: &[&str]) -> Output {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]).args(args);
        command.output().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"))
    }

    /// Whether it has a network device of this name.
    pub fn has(&self, device: &str) -> bool {
        self.try_run("ip", &["link", "show", device]).status.success()
    }

    /// Gives a device an address, with the length of its prefix.
    pub fn address(&self, device: &str, address: &str) {
        self.run("ip", &["addr", "add", address, "dev", device]);
    }

    /// Moves one of its devices into another namespace, and brings it up there.
    pub fn give(&self, device: &str, to: &Namespace) {
        self.run("ip", &["link", "set", device, "netns", &to.name]);
        to.run("ip", &["link", "set", device, "up"]);
    }

    /// Has a thread do something in it.
    pub fn thread<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let file = File::open(Path::new("/run/netns").join(&self.name)).expect("the namespace has a file");
        std::thread::spawn(move || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("the namespace takes a thread");
            work()
        })
    }

    /// Whether an address answers pings.
    pub fn pings(&self, address: &str) -> bool {
        self.try_run("ping", &["-c", "1", "-W", "1", address]).status.success()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// Sends `megabytes` random megabytes over TCP from a process in `from` to one in `to`, which listens at `address`, and makes sure that they
/// arrive as they were sent.
///
/// # Panics
///
/// Panics if they do not.
pub fn transfer(from: &Namespace, to: &Namespace, address: IpAddr, megabytes: usize) {
    const CHUNK: usize = 1 << 20;
    let (port, receiver) = serve(to, address, move |mut stream| {
        let mut random = Random::new(7);
        let (mut chunk, mut expected) = (vec![0; CHUNK], vec![0; CHUNK]);
        for megabyte in 0..megabytes {
            stream.read_exact(&mut chunk).expect("the rest of the file");
            random.fill(&mut expected);
            assert!(chunk == expected, "megabyte {megabyte} did not arrive as it was sent");
        }
        assert_eq!(stream.read(&mut chunk).expect("the end"), 0, "more arrives than was sent");
    });
    let address = SocketAddr::new(address, port);
    let sender = from.thread(move || {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE).expect("connected");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        let mut random = Random::new(7);
        let mut chunk = vec![0; CHUNK];
        for _ in 0..megabytes {
            random.fill(&mut chunk);
            stream.write_all(&chunk).expect("the receiver takes all");
        }
    });
    sender.join().expect("the sender is done");
    receiver.join().expect("the receiver is content");
}

/// Has a process in a namespace listen at `address` and send `megabytes` random megabytes to who connects first. Returns its TCP port, and the SHA-256 of what it
/// sends.
pub fn send_to(namespace: &Namespace, address: IpAddr, megabytes: usize) -> (u16, JoinHandle<String>) {
    serve(namespace, address, move |mut stream| {
        let mut bytes = vec![0; megabytes << 20];
        Random::new(u64::from(std::process::id())).fill(&mut bytes);
        stream.write_all(&bytes).expect("the peer takes all");
        sha256(&bytes)
    })
}

/// Has a process in a namespace listen at `address` and take all that comes from who connects first. Returns its TCP port, and the SHA-256 of what came.
pub fn receive_from(namespace: &Namespace, address: IpAddr) -> (u16, JoinHandle<String>) {
    serve(namespace, address, |mut stream| {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("all of it");
        sha256(&bytes)
    })
}

fn serve<T: Send + 'static>(
    namespace: &Namespace,
    address: IpAddr,
    with: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> (u16, JoinHandle<T>) {
    let (ready, listening) = std::sync::mpsc::channel();
    let thread = namespace.thread(move || {
        let listener = TcpListener::bind((address, 0)).expect("the address is the namespace's");
        ready.send(listener.local_addr().expect("a bound socket has an address").port()).expect("the test waits");
        let (stream, _) = listener.accept().expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        with(stream)
    });
    (listening.recv_timeout(PATIENCE).expect("the process listens"), thread)
}

fn sha256(bytes: &[u8]) -> String {
    let mut child = Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("sha256sum starts");
    child.stdin.take().expect("a pipe").write_all(bytes).expect("sha256sum reads");
    let output = child.wait_with_output().expect("sha256sum ends");
    String::from_utf8_lossy(&output.stdout).split_whitespace().next().unwrap_or_default().to_owned()
}

fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    assert!(output.status.success(), "{command:?} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
