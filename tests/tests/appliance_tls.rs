//! OpenFlow over TLS through the running program, with Open vSwitch's tools and OpenSSL at the other end.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;
use tests::frontend::{Guest, Options};
use tests::pki::{Authority, KeyFiles, ovs_pki};
use tests::process::{PATIENCE, Process, until};
use tests::switch::Switch;
use tests::target;

const LISTEN: [&str; 4] = ["--listen", "pssl:0:127.0.0.1", "--listen", "punix:br0.mgmt"];

/// Two CAs that don't know each other, in a directory.
fn authorities() -> (TempDir, Authority, Authority) {
    let dir = tempfile::tempdir().expect("a directory");
    let [ours, theirs] = ["ours", "theirs"].map(|name| Authority::new(dir.path(), name));
    (dir, ours, theirs)
}

/// A switch that listens over TLS, and its port.
fn listening(files: &KeyFiles, more: &[&str]) -> (Switch, u16) {
    let switch = Switch::start(&[&LISTEN[..], &files.options(), more].concat());
    let port = until(PATIENCE, "it says where it listens", || {
        let log = switch.log();
        let (_, port) = log.split_once("over TLS on TCP address 127.0.0.1:")?;
        port.split_whitespace().next()?.parse().ok()
    });
    (switch, port)
}

/// `ovs-ofctl` over TLS.
fn ofctl(files: &KeyFiles, port: u16, args: &[&str]) -> Output {
    let target = format!("ssl:127.0.0.1:{port}");
    let mut ofctl = Command::new("ovs-ofctl");
    ofctl.args(["-O", "OpenFlow13", "-t", "60"]).args(files.options());
    ofctl.args(args.iter().map(|arg| if *arg == "SWITCH" { target.as_str() } else { arg }));
    ofctl.output().unwrap_or_else(|error| panic!("ovs-ofctl does not start ({error}): run scripts/setup"))
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
fn logged(switch: &Switch, says: &str) {
    until(PATIENCE, says, || switch.log().contains(says).then_some(()));
}

#[test]
fn ofctl_works_over_tls() {
    let dir = tempfile::tempdir().expect("a directory");
    // Real-world files: RSA keys, and one CA for switches and another for controllers.
    let [ours, theirs] = ovs_pki(dir.path());
    let (switch, port) = listening(&ours, &["--datapath-id", "00000000000000ab"]);
    let shown = text(&ofctl(&theirs, port, &["show", "SWITCH"]));
    assert!(shown.contains("dpid:00000000000000ab"), "{shown}");
    let flows: String = (0..20_000).map(|n| format!("priority={n},in_port={},actions=drop\n", 1 + n % 100)).collect();
    let file = dir.path().join("flows").display().to_string();
    std::fs::write(&file, flows).expect("written");
    text(&ofctl(&theirs, port, &["add-flows", "SWITCH", &file]));
    let dumped = text(&ofctl(&theirs, port, &["dump-flows", "SWITCH"]));
    // With the one that a switch without controllers begins with.
    assert_eq!(dumped.lines().filter(|line| line.contains("actions=")).count(), 20_001);
    switch.stop();
}

#[test]
fn strangers_are_refused_and_named_in_the_log() {
    let (_dir, ours, theirs) = authorities();
    let files = ours.sign("switch", 10);
    let (switch, port) = listening(&files, &[]);

    let wrong_ca = KeyFiles { ca_cert: files.ca_cert.clone(), ..theirs.sign("stranger", 10) };
    assert!(!ofctl(&wrong_ca, port, &["show", "SWITCH"]).status.success());
    logged(&switch, "the peer's certificate is not signed by a CA of ca-cert");

    assert!(!ofctl(&ours.sign("late", -1), port, &["show", "SWITCH"]).status.success());
    logged(&switch, "the peer's certificate is expired");

    // One that does not trust the switch.
    let wary = KeyFiles { ca_cert: theirs.certificate(), ..ours.sign("wary", 10) };
    assert!(!ofctl(&wary, port, &["show", "SWITCH"]).status.success());
    logged(&switch, "the peer refused: it does not trust the CA that signed our certificate");

    // One without a certificate.
    for version in ["-tls1_2", "-tls1_3"] {
        let mut client = Command::new("openssl");
        client.args(["s_client", "-connect", &format!("127.0.0.1:{port}"), "-CAfile", &files.ca_cert, version]);
        let output = client.stdin(Stdio::null()).output().expect("openssl starts: run scripts/setup");
        assert!(!String::from_utf8_lossy(&output.stdout).contains("OFPT"), "{output:?}");
        let says = "the peer showed no certificate; it needs one that a CA of ca-cert has signed";
        let times = if version == "-tls1_2" { 1 } else { 2 };
        until(PATIENCE, says, || (switch.log().matches(says).count() == times).then_some(()));
    }

    // One that does not speak TLS; each line says whom it is about.
    let mut plain = TcpStream::connect(("127.0.0.1", port)).expect("connected");
    let address = plain.local_addr().expect("an address");
    plain.write_all(&[4, 0, 0, 8, 0, 0, 0, 1]).expect("written");
    let _ = plain.read_to_end(&mut Vec::new());
    logged(&switch, &format!("no OpenFlow connection from ssl:{address}: TLS: the peer does not speak TLS"));

    // Whoever is right still gets in.
    assert!(text(&ofctl(&ours.sign("controller", 10), port, &["show", "SWITCH"])).contains("dpid:"));
    switch.stop();
}

#[test]
fn a_reload_takes_up_new_files() {
    let (dir, ours, theirs) = authorities();
    let files = ours.sign("switch", 10);
    let path = |name: &str| dir.path().join(name);
    let config = path("config.toml").display().to_string();
    for (name, from) in [("key", &files.private_key), ("certificate", &files.certificate), ("ca", &files.ca_cert)] {
        std::fs::copy(from, path(name)).expect("copied");
    }
    let keys = "private-key = 'key'\ncertificate = 'certificate'\nca-cert = 'ca'\n";
    std::fs::write(&config, format!("[openflow]\nlisten = ['pssl:0:127.0.0.1', 'punix:br0.mgmt']\n{keys}")).expect("written");
    let switch = Switch::start(&["--config", &config]);
    let port = until(PATIENCE, "it says where it listens", || {
        let log = switch.log();
        log.split_once("over TLS on TCP address 127.0.0.1:")?.1.split_whitespace().next()?.parse().ok()
    });
    assert_eq!(switch.ctl_json(&["reload"]), serde_json::json!([]));
    let friend = KeyFiles { ca_cert: files.ca_cert.clone(), ..theirs.sign("friend", 10) };
    assert!(!ofctl(&friend, port, &["show", "SWITCH"]).status.success());
    std::fs::copy(theirs.certificate(), path("ca")).expect("copied");
    assert_eq!(switch.ctl_json(&["reload"]), serde_json::json!(["TLS key and certificates changed, for new connections"]));
    text(&ofctl(&friend, port, &["show", "SWITCH"]));

    // Bad ones change nothing, and are named.
    std::fs::write(path("ca"), "rubbish").expect("written");
    let ctl = |args: &[&str]| {
        let mut command = Command::new(target::vswitch());
        let output = command.args(["ctl", "--run-dir"]).arg(switch.path("")).args(args).output().expect("vswitch starts");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let says = format!("vswitch: ca-cert {}: holds no certificate; give it as PEM\n", path("ca").display());
    assert_eq!(ctl(&["reload"]), (Some(1), says.clone()));
    assert_eq!(ctl(&["config", "check", &config]), (Some(1), says));
    text(&ofctl(&friend, port, &["show", "SWITCH"]));
    switch.stop();
}

#[test]
fn without_good_files_it_does_not_start() {
    let (dir, ours, _) = authorities();
    let (files, other) = (ours.sign("switch", 10), ours.sign("other", 10));
    let rubbish = dir.path().join("rubbish").display().to_string();
    std::fs::write(&rubbish, "rubbish").expect("written");
    let run = |args: &[&str]| {
        let run_dir = dir.path().join("run").display().to_string();
        let args = [&["run", "--run-dir", &run_dir, "--listen", "pssl:0:127.0.0.1"], args].concat();
        let output = Command::new(target::vswitch()).args(args).output().expect("vswitch starts");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.stdout.len(), text.lines().count()), (0, 1), "{text}");
        (output.status.code(), text)
    };
    let with = |private_key: &str, certificate: &str, ca_cert: &str| KeyFiles {
        private_key: private_key.into(),
        certificate: certificate.into(),
        ca_cert: ca_cert.into(),
    };
    let KeyFiles { private_key, certificate, ca_cert } = &files;
    for (files, says) in [
        (with(&rubbish, certificate, ca_cert), format!("private-key {rubbish}: holds no private key")),
        (with(private_key, "/nonexistent", ca_cert), "certificate /nonexistent: can't be read: No such file".to_owned()),
        (with(private_key, certificate, "/dev/zero"), "ca-cert /dev/zero: can't be read: it is not a file".to_owned()),
        (
            with(&other.private_key, certificate, ca_cert),
            format!("private-key {} does not fit certificate {certificate}; give the key", other.private_key),
        ),
    ] {
        let (status, text) = run(&files.options());
        assert!(status == Some(1) && text.starts_with(&format!("vswitch: {says}")), "{text}");
    }
    let (status, text) = run(&["--private-key", private_key]);
    assert_eq!(status, Some(2));
    assert!(
        text.starts_with("vswitch: --listen: pssl:0:127.0.0.1 needs a private key, a certificate and a CA certificate; give the"),
        "{text}"
    );
}

/// `ovs-testcontroller`, which listens over TLS.
fn test_controller(dir: &Path, files: &KeyFiles) -> (Process, u16) {
    // The port is free until somebody else takes it just now.
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port();
    let control = format!("--unixctl={}", dir.join("controller.ctl").display());
    let options = ["-O", "OpenFlow13", "--no-chdir", &control];
    let target = format!("pssl:{port}:127.0.0.1");
    let controller = Process::start(dir, "controller", "ovs-testcontroller", [&options[..], &files.options(), &[&target]].concat());
    (controller, port)
}

#[test]
fn a_controller_is_connected_to_over_tls() {
    let dir = tempfile::tempdir().expect("a directory");
    let [ours, theirs] = ovs_pki(dir.path());
    let (mut controller, port) = test_controller(dir.path(), &theirs);
    let target = format!("ssl:127.0.0.1:{port}");
    let ports = ["--fail-mode", "secure", "--port", "vm1=vhost-user:vm1.sock", "--port", "vm2=vhost-user:vm2.sock"];
    let switch = Switch::start(&[&["--controller", &target][..], &ours.options(), &ports].concat());
    let [mut one, mut two] = ["vm1.sock", "vm2.sock"].map(|name| Guest::connect(&switch.path(name), Options::default()).expect("a guest"));
    // The controller makes a learning switch of it, frame by frame.
    let frame = |to: u8, from: u8| [&[2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from, 0x88, 0xb5][..], &[from; 60]].concat();
    let (there, back) = (frame(2, 1), frame(1, 2));
    until(PATIENCE, "a frame gets through", || {
        one.send(0, [there.as_slice()]);
        (!two.receive(0).is_empty()).then_some(())
    });
    until(PATIENCE, "a frame comes back", || {
        two.send(0, [back.as_slice()]);
        one.receive(0).contains(&back).then_some(())
    });
    until(PATIENCE, "the controller adds rules", || switch.ofctl("dump-flows", &[]).contains("dl_src=02:00:00:00:00:02").then_some(()));

    // One that is expired, at the same place: the switch says so and goes on trying.
    controller.kill();
    let authority = Authority::new(dir.path(), "theirs");
    let expired = KeyFiles { ca_cert: theirs.ca_cert.clone(), ..authority.sign("late", -1) };
    let control = format!("--unixctl={}", dir.path().join("second.ctl").display());
    let listen = format!("pssl:{port}:127.0.0.1");
    let options = [&["-O", "OpenFlow13", "--no-chdir", &control][..], &expired.options(), &[&listen]].concat();
    let _second = Process::start(dir.path(), "second", "ovs-testcontroller", options);
    logged(&switch, &format!("no OpenFlow connection to {target}: TLS: the peer's certificate is expired"));
    switch.stop();
}
