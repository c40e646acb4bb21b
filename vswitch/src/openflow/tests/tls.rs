//! Connections over TLS. The peers that are played here do TLS by the same library; that others understand it is shown with the program, against
//! Open vSwitch's tools.

use std::io::{Read, Write};

use rcgen::ExtendedKeyUsagePurpose;

use super::pki::{Authority, EXPIRED, VALID, load};
use super::*;
use crate::config::TlsFiles;
use crate::openflow::agent::Ended;
use crate::openflow::connection::{self, Connection};
use crate::openflow::tls::Tls;
use crate::openflow::wire::{Hello, Message, VERSION, decode};

/// A peer's end.
struct Far {
    id: ConnectionId,
    connection: Connection,
    ended: Option<connection::Ended>,
}

impl Far {
    /// Says hello over `stream`.
    fn new(id: ConnectionId, stream: Stream) -> Self {
        let mut far = Self { id, connection: Connection::new(stream), ended: None };
        far.send(&Message::Hello(Hello::of(VERSION)));
        far
    }

    fn send(&mut self, message: &Message) {
        self.connection.queue(message, 7);
    }

    /// Does what there is to do. Returns the messages that came.
    fn turn(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        loop {
            let moved = self.connection.write().and_then(|_| self.connection.read());
            while let Some(bytes) = self.connection.next_message() {
                messages.push(decode(&bytes).unwrap());
            }
            match moved {
                Ok(true) => {}
                Ok(false) => return messages,
                Err(why) => {
                    self.ended.get_or_insert(why);
                    return messages;
                }
            }
        }
    }
}

impl Bench {
    /// A switch that uses `ours`, with whom somebody talks who uses `theirs`: who connected to it, or to whom it connected.
    fn tls(&mut self, ours: &Tls, theirs: &Tls, origin: Origin) -> Far {
        let (near, far) = pair();
        let (near, far) = match origin {
            Origin::Listener => (ours.accept(near.into()).unwrap(), theirs.connect("switch.example", far.into()).unwrap()),
            Origin::Controller => (ours.connect("192.0.2.1", near.into()).unwrap(), theirs.accept(far.into()).unwrap()),
        };
        Far::new(self.take(near, origin), far)
    }

    fn take(&mut self, stream: Stream, origin: Origin) -> ConnectionId {
        let peer = Peer { origin, target: "pssl:test".into(), address: "ssl:test".into() };
        self.agent.connect(stream, peer, self.now).unwrap()
    }

    /// Turns until both sides have no more to do. Returns what the peer got.
    fn talk(&mut self, far: &mut Far) -> Vec<Message> {
        let mut messages = Vec::new();
        for _ in 0..10 {
            self.turn();
            messages.append(&mut far.turn());
        }
        messages
    }

    /// Why the only connection, to a controller, ended, if it did.
    fn why_ended(&mut self) -> Option<String> {
        let ended = self.agent.take_ended().pop();
        ended.map(|Ended { greeted, why, .. }| {
            assert!(!greeted);
            why
        })
    }
}

fn pair() -> (UnixStream, UnixStream) {
    let (near, far) = UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    far.set_nonblocking(true).unwrap();
    (near, far)
}

#[test]
fn both_sides_show_certificates_and_speak_openflow() {
    let [switches, controllers] = ["for switches", "for controllers"].map(Authority::new);
    let ours = load(&switches.sign(VALID, &controllers)).unwrap();
    let theirs = load(&controllers.sign(VALID, &switches)).unwrap();
    for origin in [Origin::Listener, Origin::Controller] {
        let mut bench = Bench::new(FailMode::Secure, true);
        let mut far = bench.tls(&ours, &theirs, origin);
        let messages = bench.talk(&mut far);
        assert!(matches!(messages[..], [Message::Hello(_)]), "{messages:?}, {:?}", far.ended);
        // Many records, both ways.
        let data = vec![7; 60_000];
        for _ in 0..20 {
            far.send(&Message::EchoRequest(data.clone()));
        }
        let mut answers = 0;
        while answers < 20 {
            answers += bench.talk(&mut far).iter().filter(|message| matches!(message, Message::EchoReply(back) if *back == data)).count();
            assert_eq!(far.ended, None);
        }
        // A peer that leaves says so.
        let id = far.id;
        drop(far);
        bench.turn();
        assert!(!bench.agent.is_connected(id));
    }
}

#[test]
fn peers_without_a_good_certificate_are_refused_with_the_reason() {
    let [switches, controllers, strangers, double] =
        ["for switches", "for controllers", "strangers", "for controllers"].map(Authority::new);
    let good = switches.sign(VALID, &controllers);
    let ours = load(&good).unwrap();
    let client_only = controllers.sign_for(VALID, &switches, &[ExtendedKeyUsagePurpose::ClientAuth]);
    let cases: [(TlsFiles, &str); 5] = [
        (strangers.sign(VALID, &switches), "the peer's certificate is not signed by a CA of ca-cert"),
        (double.sign(VALID, &switches), "the peer's certificate is not signed by a CA of ca-cert"),
        (controllers.sign(EXPIRED, &switches), "the peer's certificate is expired, for "),
        (controllers.as_its_own(&switches), "the peer's certificate is a CA's own; sign one for the peer with it"),
        (client_only, "the peer's certificate is not for this use"),
    ];
    for (theirs, says) in &cases {
        let mut bench = Bench::new(FailMode::Secure, true);
        let mut far = bench.tls(&ours, &load(theirs).unwrap(), Origin::Controller);
        bench.talk(&mut far);
        let why = bench.why_ended().expect("it ended");
        assert!(why.starts_with("TLS: ") && why.contains(says), "{why}");
        assert!(!bench.agent.is_connected(far.id));
    }
    // As listener, too; the peer hears why.
    for (theirs, heard) in
        [(&cases[0].0, "does not trust the CA"), (&cases[1].0, "does not trust the CA"), (&cases[2].0, "our certificate is expired")]
    {
        let mut bench = Bench::new(FailMode::Secure, true);
        let mut far = bench.tls(&ours, &load(theirs).unwrap(), Origin::Listener);
        let messages = bench.talk(&mut far);
        assert!(messages.is_empty() && !bench.agent.is_connected(far.id));
        let ended = far.ended.expect("it ended").to_string();
        assert!(ended.contains(heard), "{ended}");
    }
    // And when it's us whom the controller does not trust.
    let mut bench = Bench::new(FailMode::Secure, true);
    let wary = load(&controllers.sign(VALID, &strangers)).unwrap();
    let mut far = bench.tls(&ours, &wary, Origin::Controller);
    bench.talk(&mut far);
    assert_eq!(bench.why_ended().unwrap(), "TLS: the peer refused: it does not trust the CA that signed our certificate");
}

#[test]
fn garbage_and_plain_openflow_are_no_tls() {
    let authority = Authority::new("one");
    let ours = load(&authority.sign(VALID, &authority)).unwrap();
    let hello = [4, 0, 0, 8, 0, 0, 0, 1];
    for garbage in [&hello[..], &[0x16, 3, 1, 0xff, 0xff], &[0x16, 3, 1, 0, 4, 1, 0, 0, 0], &[0xff; 3000], b"GET / HTTP/1.0\r\n\r\n"] {
        let mut bench = Bench::new(FailMode::Secure, false);
        let (near, mut far) = pair();
        let id = bench.take(ours.accept(near.into()).unwrap(), Origin::Listener);
        far.write_all(garbage).unwrap();
        bench.turn();
        drop(far);
        bench.turn();
        assert!(!bench.agent.is_connected(id), "{garbage:?}");
    }
}

#[test]
fn a_peer_that_stalls_in_the_handshake_is_cut_off() {
    let authority = Authority::new("one");
    let ours = load(&authority.sign(VALID, &authority)).unwrap();
    let mut bench = Bench::new(FailMode::Secure, true);
    let (near, silent) = pair();
    let silent_id = bench.take(ours.connect("h", near.into()).unwrap(), Origin::Controller);
    // Another one sends its first flight a byte a second, so that it is never silent.
    let (near, mut slow) = pair();
    let slow_id = bench.take(ours.accept(near.into()).unwrap(), Origin::Listener);
    let (mut flight, rest) = pair();
    let mut other = Connection::new(ours.connect("h", rest.into()).unwrap());
    other.write().unwrap();
    let mut hello = vec![0; 4096];
    let count = flight.read(&mut hello).unwrap();
    assert!(count > 20);
    for (second, byte) in (0..).zip(&hello[..20]) {
        bench.now = second * SECOND;
        bench.tick();
        let connected = [silent_id, slow_id].map(|id| bench.agent.is_connected(id));
        assert_eq!(connected, [second < 10; 2], "after {second} s");
        let _ = slow.write(&[*byte]);
        bench.turn();
    }
    assert_eq!(bench.why_ended().unwrap(), "the peer takes too long for the TLS handshake");
    drop(silent);
}

#[test]
fn a_peer_that_does_not_read_is_kept_within_bounds() {
    let authority = Authority::new("one");
    let ours = load(&authority.sign(VALID, &authority)).unwrap();
    let mut bench = Bench::new(FailMode::Secure, false);
    let mut far = bench.tls(&ours, &ours, Origin::Listener);
    bench.talk(&mut far);
    let mut asked = 0;
    loop {
        far.send(&Message::EchoRequest(vec![0; 60_000]));
        let taken = far.connection.write().unwrap();
        bench.turn();
        asked += 1;
        if !taken {
            break;
        }
        assert!(asked < 100, "the switch reads without end");
    }
    assert!(bench.agent.is_connected(far.id));
    // It reads after all, and gets every answer.
    let mut answers = 0;
    while answers < asked {
        answers += bench.talk(&mut far).len();
        assert_eq!(far.ended, None);
    }
}

#[test]
fn files_that_are_no_good_are_named() {
    let [authority, other] = ["one", "other"].map(Authority::new);
    let good = authority.sign(VALID, &authority);
    let second = authority.sign(VALID, &other);
    let error = |files: &TlsFiles| load(files).expect_err("they are no good").to_string();
    let path = |path: &std::path::Path| path.display().to_string();

    let rubbish = authority.file("rubbish");
    let broken = authority.file("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let bad_key = authority.file("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    for (files, says) in [
        (TlsFiles { private_key: rubbish.clone(), ..good.clone() }, format!("private-key {}: holds no private key", path(&rubbish))),
        (TlsFiles { private_key: good.certificate.clone(), ..good.clone() }, "holds no private key".into()),
        (TlsFiles { private_key: bad_key, ..good.clone() }, "is of a kind that can't be used".into()),
        (TlsFiles { certificate: rubbish.clone(), ..good.clone() }, format!("certificate {}: holds no certificate", path(&rubbish))),
        (TlsFiles { certificate: broken.clone(), ..good.clone() }, ": the certificate can't be used (BadEncoding)".into()),
        (TlsFiles { ca_cert: rubbish.clone(), ..good.clone() }, format!("ca-cert {}: holds no certificate", path(&rubbish))),
        (TlsFiles { ca_cert: broken, ..good.clone() }, ": the certificate can't be used (BadEncoding)".into()),
        (
            TlsFiles { private_key: second.private_key.clone(), ..good.clone() },
            format!("private-key {} does not fit certificate {}; give", path(&second.private_key), path(&good.certificate)),
        ),
        (TlsFiles { ca_cert: "/nonexistent/ca.pem".into(), ..good.clone() }, "ca-cert can't be opened".into()),
        (TlsFiles { ca_cert: authority.file(&"x".repeat((1 << 20) + 1)), ..good.clone() }, "is longer than 1048576 bytes".into()),
    ] {
        let error = error(&files);
        assert!(error.contains(&says) && !error.contains('\n'), "{error}");
    }

    let loaded = load(&good).unwrap();
    assert!(loaded.is_same(&load(&good).unwrap()));
    assert!(!loaded.is_same(&load(&TlsFiles { ca_cert: second.ca_cert, ..good }).unwrap()));
}
