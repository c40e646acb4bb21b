//! Controllers that are hostile, broken or slow: guests' frames are forwarded all the same, others are served, and memory stays bounded.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::json;
use tests::frontend::{Guest, Options};
use tests::openflow::*;
use tests::pki::{Authority, KeyFiles};
use tests::process::{PATIENCE, until};
use tests::random::Random;
use tests::switch::Switch;

/// A switch with two guests, a controller that is well-behaved, and listeners for everybody.
struct Scene {
    switch: Switch,
    controllers: UnixListener,
    tcp: u16,
    tls: u16,
    files: KeyFiles,
    dir: tempfile::TempDir,
}

/// What hostile peers may make the switch keep for each of them, and what else may vary.
const PER_PEER: u64 = 1 << 20;
const SLACK: u64 = 32 << 20;

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let files = Authority::new(dir.path(), "authority").sign("switch", 10);
        let path = dir.path().join("controller.sock");
        let controllers = UnixListener::bind(&path).expect("bound");
        let target = format!("unix:{}", path.display());
        let listen = ["ptcp:0:127.0.0.1", "pssl:0:127.0.0.1", "punix:br0.mgmt"].map(|target| ["--listen", target]);
        let ports = ["vm1", "vm2"].map(|name| format!("{name}=vhost-user:{name}.sock")).map(|spec| ["--port".to_owned(), spec]);
        let ports: Vec<&str> = ports.iter().flatten().map(String::as_str).collect();
        let switch = Switch::start(&[&["--controller", &target], listen.as_flattened(), &files.options(), &ports].concat());
        let port = |over: &str| {
            until(PATIENCE, "it says where it listens", || {
                let log = switch.log();
                log.split_once(&format!("OpenFlow{over} on TCP address 127.0.0.1:"))?.1.split_whitespace().next()?.parse().ok()
            })
        };
        let (tcp, tls) = (port(""), port(" over TLS"));
        Self { switch, controllers, tcp, tls, files, dir }
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.tcp)).expect("connected")
    }

    /// Has guests talk while `hostile` does what it does, which can see to it that they do.
    fn during(&self, hostile: impl FnOnce(&dyn Fn())) {
        let stream = self.controllers.accept().expect("the switch connects").0;
        let leave = stream.try_clone().expect("a socket");
        let mut controller = Controller::greet(stream);
        self.switch.ofctl("add-flow", &["priority=0,actions=NORMAL"]);
        let [mut one, mut two] =
            ["vm1.sock", "vm2.sock"].map(|name| Guest::connect(&self.switch.path(name), Options::default()).expect("a guest"));
        let (done, arrived) = (AtomicBool::new(false), AtomicU64::new(0));
        let (memory, descriptors) = (self.switch.memory(), self.switch.descriptors());
        std::thread::scope(|scope| {
            // Whatever happens, the threads end.
            let _end = Defer(|| {
                done.store(true, Ordering::Relaxed);
                let _ = leave.shutdown(Shutdown::Both);
            });
            scope.spawn(|| {
                while let Some((kind, body)) = controller.receive() {
                    if kind == ECHO_REQUEST {
                        controller.send(ECHO_REQUEST + 1, &body);
                    }
                }
            });
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    one.send(0, std::iter::repeat_n([7; 100].as_slice(), 16));
                    one.transmitter(0).reclaim();
                    arrived.fetch_add(two.receive(0).len() as u64, Ordering::Relaxed);
                }
            });
            let forwards = || {
                let before = arrived.load(Ordering::Relaxed);
                until(PATIENCE, "frames get through", || (arrived.load(Ordering::Relaxed) > before + 1000).then_some(()));
                assert!(self.switch.memory() < memory + 64 * PER_PEER + SLACK, "{} bytes, {memory} before", self.switch.memory());
            };
            forwards();
            hostile(&forwards);
            forwards();
            // The well-behaved have been served all the time, and the others have left nothing behind.
            assert!(self.switch.ofctl("show", &[]).contains("vm1"));
            let controller = &self.switch.ctl_json(&["connections"])[0];
            assert_eq!((&controller["state"], &controller["last_error"]), (&json!("active"), &json!(null)));
            until(PATIENCE, "descriptors are closed", || (self.switch.descriptors() <= descriptors).then_some(()));
        });
        assert!(self.switch.log().lines().count() < 300, "the log is limited");
    }
}

struct Defer<F: Fn()>(F);

impl<F: Fn()> Drop for Defer<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Whether the switch has closed a connection.
fn is_closed(stream: &mut TcpStream) -> bool {
    let mut bytes = [0; 4096];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != ErrorKind::WouldBlock,
        }
    }
}

#[test]
fn peers_that_never_read() {
    let scene = Scene::new();
    scene.during(|forwards| {
        let echo = message(ECHO_REQUEST, &[0; 60_000]);
        let peers: Vec<_> = (0..32)
            .map(|_| {
                let mut peer = Controller::greet(scene.connect()).0;
                peer.set_nonblocking(true).expect("a socket");
                // Until nobody has read anything for a while.
                let mut at = 0;
                until(PATIENCE, "the switch reads no further", || {
                    let before = at;
                    while let Ok(count) = peer.write(&echo[at % echo.len()..]) {
                        at += count;
                    }
                    (at == before).then_some(())
                });
                peer
            })
            .collect();
        forwards();
        assert_eq!(scene.switch.ctl_json(&["connections"]).as_array().map(Vec::len), Some(33));
        drop(peers);
    });
}

#[test]
fn peers_that_send_garbage() {
    let scene = Scene::new();
    let mut random = Random::new(7);
    scene.during(|forwards| {
        for round in 0..200 {
            let mut peer = TcpStream::connect(("127.0.0.1", if round % 2 == 0 { scene.tcp } else { scene.tls })).expect("connected");
            if round % 4 == 0 {
                peer = Controller::greet(peer).0;
            }
            let garbage: Vec<u8> = (0..5000).map(|_| random.number() as u8).collect();
            // It may be cut off before it has said all.
            let _ = peer.write_all(&garbage);
        }
        forwards();
    });
}

#[test]
fn peers_that_stop_in_the_middle_of_a_message_and_keep_others_out() {
    let scene = Scene::new();
    scene.during(|forwards| {
        let half = [&[4, ECHO_REQUEST, 0xff, 0xff, 0, 0, 0, 1][..], &[0; 30_000]].concat();
        let peers: Vec<_> = (0..64)
            .map(|_| {
                let mut peer = Controller::greet(scene.connect()).0;
                peer.write_all(&half).expect("written");
                peer
            })
            .collect();
        forwards();
        // There is no room for more of their kind; by other ways there is.
        assert!(is_closed(&mut scene.connect()));
        scene.switch.ofctl("show", &[]);
        drop(peers);
        until(PATIENCE, "there is room again", || {
            let mut peer = scene.connect();
            peer.write_all(&message(HELLO, &[])).ok()?;
            let mut hello = [0; 8];
            peer.read_exact(&mut hello).ok()
        });
    });
}

#[test]
fn peers_that_stop_before_they_say_hello() {
    let scene = Scene::new();
    scene.during(|forwards| {
        let mut silent: Vec<_> =
            [scene.tcp, scene.tls].iter().flat_map(|port| (0..64).map(|_| TcpStream::connect(("127.0.0.1", *port)))).collect();
        forwards();
        assert!(is_closed(&mut scene.connect()), "they take all the room");
        // But not for long.
        for peer in silent.iter_mut().flatten() {
            assert!(is_closed(peer));
        }
        Controller::greet(scene.connect());
    });
}

#[test]
fn a_peer_that_sends_a_million_flow_mods() {
    let scene = Scene::new();
    scene.during(|forwards| {
        let mut peer = Controller::greet(scene.connect());
        for round in 0..1000u32 {
            let mut messages = Vec::new();
            for port in 0..1000u32 {
                messages.extend(add_drop(100 + port, round as u16 % 8 + 1));
            }
            peer.0.write_all(&messages).expect("the switch reads");
            if round % 250 == 0 {
                forwards();
            }
        }
        peer.send(BARRIER_REQUEST, &[]);
        peer.wait_for(BARRIER_REQUEST + 1);
        assert!(scene.switch.ofctl("dump-aggregate", &[]).contains("flow_count=8001"));
    });
}

/// OFPT_FLOW_MOD: the frames of a port that is not there are dropped.
fn add_drop(port: u32, priority: u16) -> Vec<u8> {
    let mut body = [0; 56];
    body[22..24].copy_from_slice(&priority.to_be_bytes());
    // No buffer, any output port and group.
    body[24..36].fill(0xff);
    // OFPMT_OXM with OXM_OF_IN_PORT.
    body[40..48].copy_from_slice(&[0, 1, 0, 12, 0x80, 0, 0, 4]);
    body[48..52].copy_from_slice(&port.to_be_bytes());
    message(FLOW_MOD, &body)
}

#[test]
fn peers_that_connect_and_leave() {
    let scene = Scene::new();
    scene.during(|forwards| {
        for round in 0..10_000 {
            let mut peer = match round % 10 {
                0 => TcpStream::connect(("127.0.0.1", scene.tls)).expect("connected"),
                _ => scene.connect(),
            };
            if round % 3 == 0 {
                let _ = peer.write_all(&message(HELLO, &[]));
            }
            if round % 2500 == 0 {
                forwards();
            }
        }
        for _ in 0..1000 {
            drop(UnixStream::connect(scene.switch.path("br0.mgmt")).expect("connected"));
        }
    });
}

#[test]
fn peers_that_never_read_what_comes_by_tls() {
    let scene = Scene::new();
    let asks = scene.dir.path().join("asks");
    let flood = [message(HELLO, &[]), message(ECHO_REQUEST, &[0; 60_000]).repeat(200)].concat();
    std::fs::write(&asks, flood).expect("written");
    scene.during(|forwards| {
        let client = || {
            let mut client = Command::new("openssl");
            client.args(["s_client", "-quiet", "-connect", &format!("127.0.0.1:{}", scene.tls), "-CAfile", &scene.files.ca_cert]);
            client.args(["-cert", &scene.files.certificate, "-key", &scene.files.private_key]);
            let asks = std::fs::File::open(&asks).expect("it is there");
            let child = client.stdin(asks).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
            Killed(child.expect("openssl starts: run scripts/setup"))
        };
        let clients: Vec<_> = (0..8).map(|_| client()).collect();
        until(PATIENCE, "they all ask", || {
            let connections = scene.switch.ctl_json(&["connections"]);
            let asking = |connection: &&serde_json::Value| connection["messages_in"].as_u64() > Some(3);
            (connections.as_array().expect("a list").iter().filter(asking).count() == 8).then_some(())
        });
        forwards();
        drop(clients);
    });
}

/// A program that is ended with its owner.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
