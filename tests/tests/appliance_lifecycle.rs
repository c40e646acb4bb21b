//! The program as an operator meets it: start and end, what it leaves behind, and what it says when it is used wrongly.

use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};
use tests::process::{PATIENCE, Process, until};
use tests::target;

/// A run directory, and what is done in it.
struct Room(TempDir);

impl Room {
    fn new() -> Self {
        Self(tempdir().expect("a directory"))
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().expect("a plain name").to_owned()
    }

    /// `vswitch run` in this run directory. Relative sockets lie there, too.
    fn start(&self, name: &str, args: &[&str]) -> Process {
        let dir = self.path("run");
        let args = [&["run", "--run-dir", &dir], args].concat();
        Process::start(self.0.path(), name, target::vswitch(), args)
    }

    fn start_ready(&self, name: &str, args: &[&str]) -> Process {
        let mut process = self.start(name, args);
        until(PATIENCE, "the switch is ready", || {
            assert_eq!(process.exited(), None, "{}", process.stderr());
            (process.stdout() == "ready\n").then_some(())
        });
        process
    }

    fn ctl(&self, args: &[&str]) -> Output {
        let mut command = Command::new(target::vswitch());
        command.args(["ctl", "--run-dir", &self.path("run")]).args(args).output().expect("vswitch starts")
    }

    fn ctl_json(&self, args: &[&str]) -> Value {
        let output = self.ctl(&[&["--json"], args].concat());
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).expect("one JSON document")
    }

    /// The one line that a failing `ctl` says.
    fn ctl_error(&self, args: &[&str]) -> String {
        error(&self.ctl(args))
    }

    fn is_socket(&self, name: &str) -> bool {
        Path::new(&self.path(name)).exists()
    }
}

/// Status 1 and one line.
fn error(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), output.stdout.len(), text.lines().count()), (Some(1), 0, 1), "{output:?}");
    text.trim_end().to_owned()
}

fn vswitch(args: &[&str]) -> Output {
    Command::new(target::vswitch()).args(args).output().expect("vswitch starts")
}

/// The switch process that a launcher started.
fn switch_process(launcher: &Process) -> Pid {
    let id = launcher.id();
    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).expect("the launcher is there");
    Pid::from_raw(children.split_whitespace().next().expect("the launcher has a child").parse().expect("a number")).expect("a process id")
}

const SOCKETS: [&str; 4] = ["run/vswitch.sock", "run/br0.mgmt", "run/vm1.sock", "vm2.sock"];

#[test]
fn it_starts_and_ends_cleanly() {
    let room = Room::new();
    let far = format!("vm2=vhost-user:{}", room.path("vm2.sock"));
    for signal in [Signal::TERM, Signal::INT] {
        let mut switch = room.start_ready("switch", &["--port", "vm1=vhost-user:vm1.sock", "--port", &far]);
        assert!(SOCKETS.iter().all(|name| room.is_socket(name)));
        kill_process(Pid::from_raw(switch.id() as i32).expect("a process id"), signal).expect("it is there");
        let status = until(PATIENCE, "the switch ends", || switch.exited());
        assert!(status.success(), "{status}, {}", switch.stderr());
        assert!(!SOCKETS.iter().any(|name| room.is_socket(name)));
    }
}

#[test]
fn systemd_is_told() {
    let room = Room::new();
    let socket = UnixDatagram::bind(room.path("notify")).expect("bound");
    let dir = room.path("run");
    let mut child = Command::new(target::vswitch())
        .args(["run", "--run-dir", &dir])
        .env("NOTIFY_SOCKET", room.path("notify"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("started");
    let told = || {
        let mut bytes = [0; 100];
        socket.set_read_timeout(Some(PATIENCE)).expect("set");
        let count = socket.recv(&mut bytes).expect("told");
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    };
    assert_eq!(told(), "READY=1");
    kill_process(Pid::from_child(&child), Signal::TERM).expect("it is there");
    assert_eq!(told(), "STOPPING=1");
    assert!(child.wait().expect("it ends").success());
}

#[test]
fn a_killed_switch_leaves_nothing_that_stands_in_the_way() {
    let room = Room::new();
    let far = format!("vm2=vhost-user:{}", room.path("vm2.sock"));
    let args = ["--port", "vm1=vhost-user:vm1.sock", "--port", &far];
    let mut first = room.start_ready("first", &args);
    first.kill();
    assert!(SOCKETS.iter().all(|name| room.is_socket(name)), "nobody was left to remove them");
    let mut second = room.start_ready("second", &args);
    assert_eq!(room.ctl_json(&["port", "list"]).as_array().map(Vec::len), Some(2));
    assert!(second.terminate(PATIENCE).success());
    assert!(!SOCKETS.iter().any(|name| room.is_socket(name)));
}

#[test]
fn launcher_and_switch_end_together() {
    let room = Room::new();
    let mut launcher = room.start_ready("first", &["--port", "vm1=vhost-user:vm1.sock"]);
    kill_process(switch_process(&launcher), Signal::KILL).expect("it is there");
    let status = until(PATIENCE, "the launcher ends", || launcher.exited());
    assert_eq!(status.code(), Some(1));
    assert!(launcher.stderr().contains("was killed by signal 9"), "{}", launcher.stderr());
    assert!(!room.is_socket("run/vm1.sock"));

    let launcher = room.start_ready("second", &[]);
    let switch = switch_process(&launcher);
    kill_process(Pid::from_raw(launcher.id() as i32).expect("a process id"), Signal::KILL).expect("it is there");
    // The new one waits for the old switch's end.
    let mut third = room.start_ready("third", &[]);
    assert!(
        !Path::new(&format!("/proc/{}/task/{}/status", switch.as_raw_nonzero(), switch.as_raw_nonzero())).exists() || is_zombie(switch)
    );
    assert!(third.terminate(PATIENCE).success());
}

fn is_zombie(process: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero())).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z'))
}

#[test]
fn a_second_switch_is_kept_away() {
    let room = Room::new();
    let _switch = room.start_ready("first", &[]);
    let mut second = room.start("second", &[]);
    let status = until(PATIENCE, "the second ends", || second.exited());
    assert_eq!((status.code(), second.stdout().as_str()), (Some(1), ""));
    assert!(second.stderr().contains("another switch is running in"), "{}", second.stderr());
    assert_eq!(room.ctl_json(&["port", "list"]), json!([]));
}

#[test]
fn a_socket_of_another_process_is_left_alone() {
    let room = Room::new();
    let path = room.path("theirs.sock");
    let theirs = UnixListener::bind(&path).expect("bound");
    let mut switch = room.start("switch", &["--port", &format!("vm1=vhost-user:{path}")]);
    let status = until(PATIENCE, "it ends", || switch.exited());
    assert_eq!((status.code(), switch.stdout().as_str()), (Some(1), ""));
    let says = format!("vswitch: port vm1: can't listen on {path}: another process listens there; end it or choose another path");
    assert!(switch.stderr().contains(&says), "{}", switch.stderr());
    assert!(Path::new(&path).exists());
    drop(theirs);
}

#[test]
fn bad_usage_has_its_own_status() {
    let run = |args: &[&str]| vswitch(&[&["run", "--run-dir", "/nonexistent/run"], args].concat());
    for (args, says) in [
        (&["--port", "vm1"][..], "`vm1` is not NAME=SPEC"),
        (&["--port", "vm1=tap:t,client"], "there is no option `client` for a port of kind tap"),
        (&["--port", "vm1=vhost-user:s,queues=0"], "queues=0 is not a number from 1 to 128"),
        (&["--listen", "tcp:1"], "is not a target to listen on"),
        (&["--cpus", "one"], "invalid value 'one' for '--cpus"),
        (&["--poll", "sometimes"], "use adaptive, busy or interrupt"),
        (&["--wrong"], "unexpected argument '--wrong'"),
    ] {
        let output = run(args);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {text}");
        assert!(text.contains(says), "{args:?}: {text}");
    }
    assert_eq!(vswitch(&["ctl", "capture"]).status.code(), Some(2));

    // What contradicts itself is found by the switch process.
    let room = Room::new();
    let mut switch = room.start("switch", &["--port", "a=vhost-user:s", "--port", "a=vhost-user:t"]);
    let status = until(PATIENCE, "it ends", || switch.exited());
    assert_eq!(status.code(), Some(2));
    assert!(switch.stderr().contains("--port: port a is given twice"), "{}", switch.stderr());
}

#[test]
fn ports_come_and_go() {
    let room = Room::new();
    let _switch = room.start_ready("switch", &["--port", "vm1=vhost-user:vm1.sock", "--port", "vm2=vhost-user:vm2.sock,ofport=7"]);
    let list = room.ctl_json(&["port", "list"]);
    let port = |name, ofport| {
        json!({"name": name, "ofport": ofport, "kind": "vhost-user", "link": "down",
               "rx_frames": 0, "rx_bytes": 0, "tx_frames": 0, "tx_bytes": 0, "drops": {}})
    };
    assert_eq!(list, json!([port("vm1", 1), port("vm2", 7)]));

    let added = room.ctl_json(&["port", "add", "vm3=vhost-user:vm3.sock,queues=2,vlan=10"]);
    assert_eq!((&added["ofport"], &added["queues"], &added["vlan"]), (&json!(2), &json!(2), &json!("access 10")));
    assert!(room.is_socket("run/vm3.sock"));
    assert_eq!(room.ctl_json(&["port", "show", "vm3"]), added);

    assert!(room.ctl_error(&["port", "add", "vm3=vhost-user:other.sock"]).contains("port vm3 is given twice"));
    assert!(room.ctl_error(&["port", "add", "vm4=vhost-user:vm3.sock"]).contains("wants the socket"));
    assert!(room.ctl_error(&["port", "add", "vm4=vhost-user:vm4.sock,ofport=7"]).contains("number"));
    assert!(room.ctl_error(&["port", "add", "vm4=vhost-user:no/such/dir.sock"]).contains("the directory does not exist; create it"));
    assert!(room.ctl_error(&["port", "add", "vm4=veth:x"]).contains("there is no port kind `veth`"));
    assert!(room.ctl_error(&["port", "show", "vm4"]).contains("there is no port vm4"));
    assert!(room.ctl_error(&["port", "del", "vm4"]).contains("there is no port vm4"));

    assert_eq!(room.ctl_json(&["port", "del", "vm1"])["name"], "vm1");
    assert!(!room.is_socket("run/vm1.sock"));
    // The lowest number that is free; also the socket is free again.
    assert_eq!(room.ctl_json(&["port", "add", "vm5=vhost-user:vm1.sock"])["ofport"], 1);
    let table = room.ctl(&["port", "list"]);
    let text = String::from_utf8_lossy(&table.stdout);
    let names: Vec<_> = text.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names, ["NAME", "vm5", "vm3", "vm2"], "{text}");
}

#[test]
fn a_reload_applies_the_difference() {
    let room = Room::new();
    let file = room.path("config.toml");
    let write = |ports: &[(&str, &str)], poll: &str| {
        let port = |(name, options): &(&str, &str)| format!("[[port]]\nname = '{name}'\nspec = 'vhost-user:{name}.sock{options}'\n");
        let text = format!("[workers]\npoll = '{poll}'\n{}", ports.iter().map(port).collect::<String>());
        std::fs::write(&file, text).expect("written");
    };
    write(&[("vm1", ""), ("vm2", "")], "adaptive");
    let _switch = room.start_ready("switch", &["--config", &file]);
    assert_eq!(room.ctl_json(&["reload"]), json!([]));
    room.ctl_json(&["port", "add", "extra=vhost-user:extra.sock"]);

    write(&[("vm1", ",vlan=10"), ("vm3", "")], "interrupt");
    let done = room.ctl_json(&["reload"]);
    assert_eq!(
        done,
        json!(["port vm2 removed", "port vm1 changed: VLANs", "polling set to interrupt, idle-us 50", "port vm3 added"]),
        "{done}"
    );
    let list = room.ctl_json(&["port", "list"]);
    let names: Vec<_> = list.as_array().expect("a list").iter().map(|port| port["name"].as_str().expect("a name")).collect();
    assert_eq!(names, ["vm1", "vm3", "extra"]);
    assert_eq!(room.ctl_json(&["port", "show", "vm1"])["vlan"], "access 10");

    std::fs::write(&file, "[[port]]\nname = 'vm1'\nspec = 'tap:t,client'").expect("written");
    let output = room.ctl(&["reload"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("line 3") && text.contains("there is no option `client`"), "{text}");
    assert_eq!(room.ctl_json(&["port", "list"]), list);

    let check = room.ctl(&["config", "check", &file]);
    assert_eq!(check.status.code(), Some(1));
    write(&[("vm1", "")], "busy");
    assert!(room.ctl(&["config", "check", &file]).status.success());
}

#[test]
fn ctl_says_when_nobody_is_there() {
    let room = Room::new();
    assert!(room.ctl_error(&["port", "list"]).contains("no switch is running in"));
}

#[test]
fn rubbish_at_the_control_socket_harms_nobody() {
    use std::io::{Read, Write};
    let room = Room::new();
    let _switch = room.start_ready("switch", &[]);
    let connect = || std::os::unix::net::UnixStream::connect(room.path("run/vswitch.sock")).expect("connected");
    let mut stream = connect();
    stream.write_all(b"rubbish\n{\"request\":\"port-list\"}\n{\"request\":\"fly\"}\n").expect("written");
    stream.shutdown(std::net::Shutdown::Write).expect("shut down");
    let mut answers = String::new();
    // The switch may close as soon as nothing more can come.
    let _ = stream.read_to_string(&mut answers);
    assert!(answers.starts_with("{\"error\":\"not a request"), "{answers}");

    // Requests one after another, the first of which takes a while.
    let mut stream = connect();
    let add = "{\"request\":\"port-add\",\"port\":\"vm1=vhost-user:vm1.sock\"}\n{\"request\":\"port-del\",\"name\":\"vm1\"}\n";
    stream.write_all(add.as_bytes()).expect("written");
    let mut answers = String::new();
    while answers.lines().count() < 2 || !answers.ends_with('\n') {
        let mut bytes = [0; 4096];
        let count = stream.read(&mut bytes).expect("the switch answers");
        assert!(count > 0, "{answers}");
        answers += &String::from_utf8_lossy(&bytes[..count]);
    }
    assert!(answers.lines().all(|line| line.starts_with("{\"document\":{")), "{answers}");

    let mut endless = connect();
    let mut closed = false;
    for _ in 0..1000 {
        closed |= endless.write_all(&[b'x'; 4096]).is_err();
    }
    assert!(closed, "a line without an end is cut off");
    assert_eq!(room.ctl_json(&["port", "list"]), json!([]));
}
