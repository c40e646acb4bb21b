use super::*;
use crate::cli::{Cli, Command};
use clap::Parser;

fn host() -> Host {
    let run_dir = RunDir::find(Some(Path::new("/run/test"))).expect("given");
    Host { run_dir, cpus: vec![0, 1, 4], machine_id: "machine".into() }
}

fn flags(line: &str) -> RunArgs {
    let cli = Cli::try_parse_from(["vswitch", "run"].into_iter().chain(line.split_whitespace())).expect("valid flags");
    match cli.command {
        Command::Run(run) => run,
        Command::Ctl(_) | Command::Open(_) => unreachable!("the line says run"),
    }
}

fn file(text: &str) -> ConfigFile {
    ConfigFile::parse(Path::new("/etc/c.toml"), text.into()).expect("a valid file")
}

fn config(line: &str, text: &str) -> Config {
    Config::new(&flags(line), Some(&file(text)), &host()).expect("a valid config")
}

fn error(line: &str, text: &str) -> String {
    Config::new(&flags(line), Some(&file(text)), &host()).expect_err("not a valid config").to_string()
}

const FULL: &str = r#"
[switch]
name = "br1"
fail-mode = "secure"
datapath-id = "0000000000000001"
[workers]
cpus = [1]
poll = "busy"
idle-us = 70
[openflow]
listen = ["punix:br0.mgmt", "ptcp:6653:127.0.0.1"]
controllers = ["tcp:127.0.0.1:6633"]
versions = ["1.3"]
[[port]]
name = "vm1"
spec = "vhost-user:vm1.sock,queues=2,vlan=10"
[[port]]
name = "vm2"
spec = "vhost-user:/tmp/vm2.sock"
"#;

#[test]
fn nothing_given_is_a_working_config() {
    let config = Config::new(&RunArgs::default(), None, &host()).expect("valid");
    assert_eq!(config.name.as_str(), "br0");
    assert_eq!(config.cpus, [4]);
    assert_eq!(config.polling, Polling { poll: Poll::Adaptive, idle: Duration::from_micros(50) });
    assert_eq!(config.fail_mode, FailMode::Standalone);
    assert_eq!(config.listen, [ListenTarget::Unix("/run/test/br0.mgmt".into())]);
    assert!(config.controllers.is_empty() && config.ports.is_empty());
    // Stable, and a locally administered unicast address in its low 48 bits.
    assert_eq!(config.datapath_id, Config::new(&RunArgs::default(), None, &host()).expect("valid").datapath_id);
    assert_eq!((config.datapath_id.0 >> 48, config.datapath_id.0 >> 40 & 3), (0, 2));
}

#[test]
fn the_file_says_all_and_flags_win() {
    let from_file = config("", FULL);
    assert_eq!((from_file.name.as_str(), from_file.fail_mode, from_file.datapath_id), ("br1", FailMode::Secure, DatapathId(1)));
    assert_eq!(from_file.polling, Polling { poll: Poll::Busy, idle: Duration::from_micros(70) });
    assert_eq!((from_file.listen.len(), from_file.controllers.len(), from_file.ports.len()), (2, 1, 2));
    let PortKind::VhostUser(vhost_user) = &from_file.ports[0].spec.kind else { panic!("{from_file:?}") };
    assert_eq!(vhost_user.socket, Path::new("/run/test/vm1.sock"));

    let won = config(
        "--cpus 0,4 --poll interrupt --fail-mode standalone --datapath-id 0000000000000002 --listen ptcp: --controller unix:c \
         --port vm2=vhost-user:other --port vm3=vhost-user:vm3",
        FULL,
    );
    assert_eq!(
        (won.cpus.as_slice(), won.polling.poll, won.fail_mode, won.datapath_id.0),
        (&[0, 4][..], Poll::Interrupt, FailMode::Standalone, 2)
    );
    assert_eq!(won.listen, ["ptcp:".parse().expect("valid")]);
    assert_eq!(won.controllers, [ControllerTarget::Unix("/run/test/c".into())]);
    let names: Vec<_> = won.ports.iter().map(|port| port.name.as_str()).collect();
    assert_eq!(names, ["vm1", "vm2", "vm3"]);
    let PortKind::VhostUser(vhost_user) = &won.ports[1].spec.kind else { panic!("{won:?}") };
    assert_eq!(vhost_user.socket, Path::new("/run/test/other"));
}

#[test]
fn malformed_files_are_refused_with_the_line() {
    for (text, line, says) in [
        ("[switch]\nnam = 'x'", "line 2", "unknown field `nam`"),
        ("\n\n[wrong]", "line 3", "unknown field `wrong`"),
        ("[[port]]\nname = 'vm1'\nspec = 'tap:x,client'", "line 3", "there is no option `client` for a port of kind tap"),
        ("[[port]]\nname = 'vm 1'\nspec = 'vhost-user:x'", "line 2", "name `vm 1` must have"),
        ("[workers]\npoll = 'often'", "line 2", "use adaptive, busy or interrupt"),
        ("[openflow]\nversions = ['1.1']", "line 2", "OpenFlow 1.1 is not available"),
        ("[switch", "line 1", ""),
    ] {
        let error = ConfigFile::parse(Path::new("/etc/c.toml"), text.into()).expect_err(text).to_string();
        assert!(error.contains("/etc/c.toml") && error.contains(line) && error.contains(says), "{error}");
    }
}

#[test]
fn contradictions_are_refused_with_their_place() {
    let two = |first: &str, second: &str| {
        format!("[[port]]\nname = 'a'\nspec = 'vhost-user:{first}'\n[[port]]\nname = 'b'\nspec = 'vhost-user:{second}'")
    };
    assert_eq!(
        error("", &two("x,ofport=3", "y,ofport=3")),
        "config file /etc/c.toml, line 5: ports a and b both want the OpenFlow port number 3; give each a number of its own"
    );
    assert_eq!(
        error("", &two("x", "/run/test/x")),
        "config file /etc/c.toml, line 5: port b wants the socket /run/test/x of port a; give each a socket of its own"
    );
    assert!(error("", &two("vswitch.sock", "y")).contains("of the control socket"));
    assert!(error("", &two("br0.mgmt", "y")).contains("of punix:/run/test/br0.mgmt"));
    assert!(error("", &two(&"x".repeat(100), "y")).contains("is 110 bytes long; 107 are possible"));
    assert!(error("", "[workers]\n\ncpus = [1, 1]").contains("line 3: CPU 1 is given twice"));
    assert_eq!(error("--cpus 2", ""), "--cpus: CPU 2 is not one that this process may use; use some of 0,1,4");
    assert!(error("", "[workers]\ncpus = []").contains("no CPU is given"));
    assert!(error("", "[workers]\nidle-us = 1000001").contains("too long"));
    assert!(
        error("", "[[port]]\nname='a'\nspec='vhost-user:x'\n[[port]]\nname='a'\nspec='vhost-user:y'").contains("line 5: port a is given")
    );
    let usage = Config::new(&flags("--port a=vhost-user:x --port a=vhost-user:y"), None, &host()).expect_err("twice");
    assert!(usage.is_usage());
}

#[test]
fn a_port_is_added_only_where_there_is_room() {
    let config = config("", FULL);
    let dir = host().run_dir;
    let add = |text: &str| {
        let (name, spec) = parse_port(text).expect("valid");
        config.check_addition(&PortConfig::new(&name, &spec, Origin::Ctl, &dir), &dir)
    };
    assert_eq!(add("vm3=vhost-user:vm3.sock"), Ok(()));
    assert_eq!(add("vm1=vhost-user:vm3.sock"), Err("port vm1 is given twice; give each port a name of its own".into()));
    assert!(add("vm3=vhost-user:vm1.sock").is_err());
    assert_eq!(add("host=tap:vm1"), Ok(()));
    assert!(add("vm3=vhost-user:br0.mgmt").is_err());
}

#[test]
fn a_reload_touches_only_what_differs() {
    let running = config("", FULL);
    assert_eq!(steps(&running, &running), []);

    let wanted =
        config("", &FULL.replace("vlan=10", "vlan=11").replace("\"secure\"", "\"standalone\"").replace("idle-us = 70", "idle-us = 0"));
    let vm1: Name = "vm1".parse().expect("valid");
    assert_eq!(
        steps(&running, &wanted),
        [Step::SetVlan(vm1.clone(), VlanSpec::Access(11)), Step::SetFailMode(FailMode::Standalone), Step::SetPolling(wanted.polling)]
    );

    let wanted =
        config("", &FULL.replace("queues=2", "queues=3").replace("name = \"vm2\"", "name = \"vm9\"").replace("ptcp:6653", "ptcp:6654"));
    let vm2: Name = "vm2".parse().expect("valid");
    assert_eq!(
        steps(&running, &wanted),
        [
            Step::RemovePort(vm1),
            Step::RemovePort(vm2),
            Step::StopListening("ptcp:6653:127.0.0.1".parse().expect("valid")),
            Step::AddPort(wanted.ports[0].clone()),
            Step::AddPort(wanted.ports[1].clone()),
            Step::Listen("ptcp:6654:127.0.0.1".parse().expect("valid")),
        ]
    );

    let wanted = config("", &FULL.replace("br1", "br2").replace("[1]", "[0]"));
    assert_eq!(steps(&running, &wanted), [Step::NeedsRestart("the switch's name"), Step::NeedsRestart("the workers' CPUs")]);
}

#[test]
fn a_reload_leaves_what_ctl_added() {
    let mut running = config("", FULL);
    let (name, spec) = parse_port("vm3=vhost-user:vm3.sock").expect("valid");
    running.ports.push(PortConfig::new(&name, &spec, Origin::Ctl, &host().run_dir));
    let wanted = config("", FULL);
    assert_eq!(steps(&running, &wanted), []);

    // One that was deleted comes back, and one that the file now has otherwise is replaced.
    running.ports.remove(0);
    let wanted = config("", &format!("{FULL}\n[[port]]\nname = 'vm3'\nspec = 'vhost-user:new'"));
    assert_eq!(
        steps(&running, &wanted),
        [Step::RemovePort(name), Step::AddPort(wanted.ports[0].clone()), Step::AddPort(wanted.ports[2].clone())]
    );
}

#[test]
fn controllers_are_dealt_with_as_the_file_says() {
    let openflow = |text: &str| config("", &format!("[openflow]\n{text}")).openflow;
    assert_eq!(openflow(""), OpenFlow::default());
    let all = openflow("inactivity-probe-s = 1\nmax-backoff-s = 60\npacket-in-rate = 1000\npacket-in-burst = 10");
    assert_eq!((all.inactivity_probe, all.max_backoff), (Some(Duration::from_secs(1)), Duration::from_secs(60)));
    assert_eq!(all.packet_ins, Some(Rate { per_second: 1000, burst: 10 }));
    assert_eq!(openflow("inactivity-probe-s = 0").inactivity_probe, None);
    assert_eq!(openflow("packet-in-rate = 100").packet_ins, Some(Rate { per_second: 100, burst: 25 }));
    assert_eq!(openflow("packet-in-rate = 1").packet_ins, Some(Rate { per_second: 1, burst: 1 }));
    assert_eq!(openflow("packet-in-rate = 0\npacket-in-burst = 10").packet_ins, None);
    for (text, says) in [
        ("inactivity-probe-s = 3601", "inactivity-probe-s is 3601; give a number from 0 to 3600"),
        ("max-backoff-s = 0", "max-backoff-s is 0; give a number from 1 to 3600"),
        ("packet-in-rate = 1000001", "packet-in-rate is 1000001; give a number from 0 to 1000000"),
        ("packet-in-burst = 0", "packet-in-burst is 0; give a number from 1 to 1000000"),
        ("versions = []", "no OpenFlow version is given"),
    ] {
        let error = error("", &format!("[openflow]\n{text}"));
        assert!(error.contains("line 2: ") && error.contains(says), "{error}");
    }
    let running = config("", FULL);
    let wanted = config("", &FULL.replace("versions = [\"1.3\"]", "packet-in-rate = 8"));
    assert_eq!(steps(&running, &wanted), [Step::SetOpenFlow(wanted.openflow)]);
    assert_eq!(
        steps(&running, &wanted)[0].to_string(),
        format!(
            "OpenFlow set to versions {}, inactivity-probe-s 5, max-backoff-s 8, packet-in-rate 8, packet-in-burst 2",
            Versions::SPOKEN
        )
    );
}

#[test]
fn tls_has_its_three_files() {
    let files = |private_key: &str, certificate: &str, ca_cert: &str| {
        Some(TlsFiles { private_key: private_key.into(), certificate: certificate.into(), ca_cert: ca_cert.into() })
    };
    let all = "[openflow]\nprivate-key = 'k.pem'\ncertificate = '/c.pem'\nca-cert = 'pki/a.pem'\n";
    // Relative to the file that names them, or to the working directory.
    assert_eq!(config("", all).tls, files("/etc/k.pem", "/c.pem", "/etc/pki/a.pem"));
    assert_eq!(config("--private-key k --ca-cert /a", all).tls, files("k", "/c.pem", "/a"));
    assert_eq!(config("--private-key k --certificate c --ca-cert a --listen pssl:", "").tls, files("k", "c", "a"));
    assert_eq!(config("--controller tcp:h", "").tls, None);

    let needs = "needs a private key, a certificate and a CA certificate; give the";
    for (flags, text, says) in [
        ("--controller ssl:h", "", format!("--controller: ssl:h:6653 {needs} private-key with --private-key FILE, or in [openflow]")),
        ("--listen pssl:1:127.0.0.1 --private-key k", "", format!("--listen: pssl:1:127.0.0.1 {needs} certificate with --certificate")),
        ("", "[openflow]\nlisten = ['pssl:']\ncertificate = 'c'", format!("line 2: pssl:6653:0.0.0.0 {needs} private-key with")),
        ("--ca-cert a", "", format!("--ca-cert: TLS {needs} private-key with")),
        ("", "[openflow]\n\nca-cert = 'a'\nprivate-key = 'k'", format!("line 4: TLS {needs} certificate with")),
    ] {
        let error = error(flags, text);
        assert!(error.contains(&says), "{error}");
    }
}
