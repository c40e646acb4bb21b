//! `ovs-ofctl` as the controller.

use std::io::Read;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use datapath::action::ToController;
use tempfile::TempDir;

use super::*;

/// A bench with a listener for `ovs-ofctl`.
struct Listening {
    bench: Bench,
    listener: UnixListener,
    directory: TempDir,
    /// As `ovs-ofctl` calls it.
    version: &'static str,
}

/// What a run of `ovs-ofctl` gave.
#[derive(Debug)]
struct Ran {
    status: i32,
    out: String,
    err: String,
}

impl Ran {
    /// What it printed, if it succeeded.
    #[track_caller]
    fn ok(self) -> String {
        assert_eq!((self.status, self.err.as_str()), (0, ""), "{}", self.out);
        self.out
    }

    /// What it complained of.
    #[track_caller]
    fn err(self) -> String {
        assert_ne!(self.status, 0, "{}", self.out);
        self.err
    }
}

impl Listening {
    /// `None`, loudly, if `ovs-ofctl` is not installed.
    fn new() -> Option<Self> {
        if Command::new("ovs-ofctl").arg("--version").stdout(Stdio::null()).status().is_err() {
            eprintln!("SKIPPED: ovs-ofctl is not installed (Debian package openvswitch-common)");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("mgmt")).unwrap();
        listener.set_nonblocking(true).unwrap();
        Some(Self { bench: Bench::new(FailMode::Secure, false), listener, directory, version: "OpenFlow13" })
    }

    /// One where OpenFlow 1.0 is spoken, and one like others.
    fn in_each_version() -> Vec<Self> {
        let older = Self::new().map(|listening| Self { version: "OpenFlow10", ..listening });
        older.into_iter().chain(Self::new()).collect()
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("mgmt")
    }

    fn spawn(&self, arguments: &[&str]) -> Child {
        let target = format!("unix:{}", self.socket().display());
        // It waits for no answer that does not come.
        let mut command = Command::new("ovs-ofctl");
        command.args(["-O", self.version, "--timeout=30"]);
        command.args(arguments.iter().map(|argument| if *argument == "SWITCH" { target.as_str() } else { argument }));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn turn(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            self.bench.connect(stream, Origin::Listener).unwrap();
        }
        self.bench.turn();
    }

    /// Runs `ovs-ofctl`, in whose arguments `SWITCH` stands for the switch, and serves it until it ends.
    fn run(&mut self, arguments: &[&str]) -> Ran {
        let mut child = self.spawn(arguments);
        let drain = |mut from: Box<dyn Read + Send>| {
            std::thread::spawn(move || {
                let mut text = String::new();
                from.read_to_string(&mut text).unwrap();
                text
            })
        };
        let out = drain(Box::new(child.stdout.take().unwrap()));
        let err = drain(Box::new(child.stderr.take().unwrap()));
        let status = loop {
            self.turn();
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            std::thread::sleep(Duration::from_micros(500));
        };
        Ran { status: status.code().unwrap_or(-1), out: out.join().unwrap(), err: err.join().unwrap() }
    }

    fn flows(&mut self) -> Vec<String> {
        let text = self.run(&["--no-stats", "--sort", "dump-flows", "SWITCH"]).ok();
        text.lines().map(|line| line.trim().to_owned()).collect()
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path: &Path = self.directory.path();
        std::fs::write(path.join(name), text).unwrap();
        path.join(name).display().to_string()
    }
}

#[test]
fn the_switch_and_its_ports_are_shown() {
    let Some(mut switch) = Listening::new() else { return };
    let shown = switch.run(&["show", "SWITCH"]).ok();
    for line in [
        "OFPT_FEATURES_REPLY (OF1.3) (xid=0x2): dpid:0000000000000abc",
        "n_tables:254, n_buffers:0",
        " 1(vm1): addr:02:00:00:00:00:01",
        " 2(vm2): addr:02:00:00:00:00:02",
        "     state:      LIVE",
        "OFPT_GET_CONFIG_REPLY (OF1.3) (xid=0x5): frags=normal miss_send_len=0",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line} is missing in {shown}");
    }
    let described = switch.run(&["dump-desc", "SWITCH"]).ok();
    assert!(described.contains("DP Description: br0\n"), "{described}");

    switch.bench.now = 3 * SECOND;
    switch.bench.agent.tables().ports().get(PortNo(2)).unwrap().counters.stripe(0).received(3, 180);
    let ports = switch.run(&["dump-ports", "SWITCH", "vm2"]).ok();
    assert!(ports.contains("port  2: rx pkts=3, bytes=180, drop=0, errs=0"), "{ports}");
    assert!(ports.contains("duration=3s"), "{ports}");
    assert!(switch.run(&["dump-ports", "SWITCH"]).ok().contains("2 ports"));
    assert!(switch.run(&["dump-ports", "SWITCH", "3"]).out.contains("OFPBRC_BAD_PORT"));

    switch.run(&["mod-port", "SWITCH", "vm1", "down"]).ok();
    assert!(switch.run(&["dump-ports-desc", "SWITCH", "vm1"]).ok().contains("config:     PORT_DOWN"));
    assert!(switch.bench.agent.tables().ports().get(PortNo(1)).unwrap().config.intersects(PortConfig::PORT_DOWN));
    switch.run(&["mod-port", "SWITCH", "vm1", "up"]).ok();
    switch.run(&["mod-port", "SWITCH", "vm1", "no-forward"]).ok();
    assert_eq!(switch.bench.agent.tables().ports().get(PortNo(1)).unwrap().config, PortConfig::NO_FWD);
}

#[test]
fn tables_and_their_features_are_shown() {
    let Some(mut switch) = Listening::new() else { return };
    switch.run(&["add-flow", "SWITCH", "table=7,actions=drop"]).ok();
    switch.bench.agent.tables().counters(7).credit(5, 3);
    let tables = switch.run(&["dump-tables", "SWITCH"]).ok();
    assert!(tables.contains("table 7:\n    active=1, lookup=5, matched=3\n"), "{tables}");
    assert!(tables.contains("tables 9...253: ditto"), "{tables}");
    let features = switch.run(&["dump-table-features", "SWITCH"]).ok();
    assert!(features.contains("next tables: 1-253") && features.contains("tables 1...252: ditto"), "{features}");
}

#[test]
fn what_open_vswitch_lists_is_listed() {
    let Some(mut switch) = Listening::new() else { return };
    // The flows, and what `ovs-ofctl` lists of them when they are in Open vSwitch 3.1.
    let (flows, listed) = (include_str!("flows.txt"), include_str!("flows_listed.txt"));
    let file = switch.file("flows", flows);
    switch.run(&["add-flows", "SWITCH", &file]).ok();
    let flows = switch.flows();
    for expected in listed.lines() {
        assert!(flows.contains(&expected.to_owned()), "missing: {expected}\n{flows:#?}");
    }
    assert_eq!(flows.len(), listed.lines().count(), "{flows:#?}");
    // What is listed can be given back, and then nothing differs.
    let file = switch.file("listed", listed);
    switch.run(&["diff-flows", "SWITCH", &file]).ok();
    switch.run(&["replace-flows", "SWITCH", &file]).ok();
    assert_eq!(switch.flows(), flows);
}

#[test]
fn flows_are_changed_and_deleted() {
    let Some(mut switch) = Listening::new() else { return };
    switch.run(&["add-flow", "SWITCH", "priority=1,ip,nw_src=10.0.0.0/8,cookie=5,actions=vm2"]).ok();
    switch.run(&["add-flow", "SWITCH", "priority=2,ip,nw_src=10.0.0.0/8,actions=vm1"]).ok();
    switch.run(&["add-flow", "SWITCH", "table=1,arp,actions=NORMAL"]).ok();
    switch.run(&["mod-flows", "SWITCH", "cookie=5/-1,ip,actions=drop"]).ok();
    switch.run(&["--strict", "mod-flows", "SWITCH", "priority=2,ip,nw_src=10.0.0.0/8,actions=IN_PORT"]).ok();
    assert_eq!(
        switch.flows(),
        [
            "cookie=0x5, priority=1,ip,nw_src=10.0.0.0/8 actions=drop",
            "priority=2,ip,nw_src=10.0.0.0/8 actions=IN_PORT",
            "table=1, arp actions=NORMAL"
        ]
    );
    switch.bench.datapath.unsettled = 7;
    let aggregate = switch.run(&["dump-aggregate", "SWITCH", "ip"]).ok();
    assert!(aggregate.contains("packet_count=14 byte_count=840 flow_count=2"), "{aggregate}");
    let counted = switch.run(&["dump-flows", "SWITCH", "arp"]).ok();
    assert!(counted.contains("n_packets=7, n_bytes=420"), "{counted}");

    let file = switch.file("flows", "priority=2,ip,nw_src=10.0.0.0/8,actions=IN_PORT\nudp,actions=2\n");
    let differ = switch.run(&["diff-flows", "SWITCH", &file]);
    assert!(differ.out.contains("+udp actions=output:2"), "{differ:?}");
    switch.run(&["replace-flows", "SWITCH", &file]).ok();
    assert_eq!(switch.flows(), ["priority=2,ip,nw_src=10.0.0.0/8 actions=IN_PORT", "udp actions=output:2"]);
    assert_eq!(switch.run(&["diff-flows", "SWITCH", &file]).ok(), "");

    switch.run(&["--strict", "del-flows", "SWITCH", "priority=3,ip,nw_src=10.0.0.0/8"]).ok();
    switch.run(&["del-flows", "SWITCH", "out_port=vm1"]).ok();
    assert_eq!(switch.flows().len(), 2);
    switch.run(&["del-flows", "SWITCH", "out_port=vm2"]).ok();
    assert_eq!(switch.flows().len(), 1);
    switch.run(&["del-flows", "SWITCH"]).ok();
    assert_eq!(switch.rules(), 0);
}

#[test]
fn what_is_refused_is_refused_by_the_right_error() {
    let Some(mut switch) = Listening::new() else { return };
    for (flow, error) in [
        ("actions=group:1", "OFPBAC_BAD_OUT_GROUP"),
        ("actions=set_queue:8,2", "OFPBAC_BAD_QUEUE"),
        ("actions=meter:1,2", "OFPMMFC_UNKNOWN_METER"),
        ("table=5,actions=goto_table:5", "OFPBIC_BAD_TABLE_ID"),
        ("actions=TABLE", "OFPBAC_BAD_OUT_PORT"),
        ("actions=controller(pause)", "OFPBAC_BAD_ARGUMENT"),
        ("ip,actions=ct(commit)", "OFPBAC_BAD_VENDOR_TYPE"),
        ("tcp,actions=fin_timeout(idle_timeout=5)", "OFPBAC_BAD_VENDOR_TYPE"),
        ("actions=sample(probability=1)", "OFPBAC_BAD_VENDOR_TYPE"),
        ("actions=output(port=1,max_len=100)", "OFPBAC_BAD_VENDOR_TYPE"),
        ("ct_state=+new,actions=2", "OFPBMC_BAD_FIELD"),
        ("table=254,actions=2", "OFPFMFC_BAD_TABLE_ID"),
    ] {
        let said = switch.run(&["add-flow", "SWITCH", flow]).err();
        assert!(said.contains(error), "{flow}: {said}");
    }
    switch.run(&["add-flow", "SWITCH", "priority=9,ip,actions=2"]).ok();
    let overlap = switch.run(&["add-flow", "SWITCH", "priority=9,check_overlap,tcp,actions=2"]).err();
    assert!(overlap.contains("OFPFMFC_OVERLAP"), "{overlap}");
    for (request, error) in [
        (&["add-group", "SWITCH", "group_id=1,type=ff,bucket=watch_group:3,actions=1"][..], "OFPGMFC_BAD_WATCH"),
        (&["mod-group", "SWITCH", "group_id=1,type=all"], "OFPGMFC_UNKNOWN_GROUP"),
        (&["mod-meter", "SWITCH", "meter=1,kbps,band=type=drop,rate=1"], "OFPMMFC_UNKNOWN_METER"),
        (&["set-frags", "SWITCH", "reassemble"], "OFPSCFC_BAD_FLAGS"),
    ] {
        let said = switch.run(request).err();
        assert!(said.contains(error), "{request:?}: {said}");
    }
    assert_eq!(switch.rules(), 1);
}

#[test]
fn a_frame_is_sent_out() {
    let Some(mut switch) = Listening::new() else { return };
    let frame = "ffffffffffff02000000000108060001080006040001020000000001c0a80001000000000000c0a80002";
    switch.run(&["packet-out", "SWITCH", &format!("in_port=vm1 packet={frame} actions=FLOOD")]).ok();
    switch.run(&["packet-out", "SWITCH", &format!("packet={frame} actions=TABLE")]).ok();
    let injected = |in_port, port| Told::Inject {
        in_port,
        frame: (0..frame.len()).step_by(2).map(|i| u8::from_str_radix(&frame[i..i + 2], 16).unwrap()).collect(),
        actions: [OfAction::Output { port, max_len: 0 }].into(),
    };
    assert!(switch.bench.datapath.told.contains(&injected(PortNo(1), PortNo::FLOOD)));
    assert!(switch.bench.datapath.told.contains(&injected(PortNo::CONTROLLER, PortNo::TABLE)));
    switch.run(&["packet-out", "SWITCH", "none", "NORMAL", frame]).ok();
    assert!(switch.bench.datapath.told.contains(&injected(PortNo::CONTROLLER, PortNo::NORMAL)));
}

#[test]
fn a_monitor_sees_frames_ports_and_removals() {
    let Some(mut switch) = Listening::new() else { return };
    let control = format!("--unixctl={}", switch.directory.path().join("control").display());
    let mut child = switch.spawn(&[&control, "-Pstandard", "monitor", "SWITCH", "65534"]);
    while !switch.bench.agent.wants_packet_ins() {
        switch.turn();
        std::thread::sleep(Duration::from_micros(500));
    }
    switch.run(&["add-flow", "SWITCH", "cookie=9,send_flow_rem,arp,actions=CONTROLLER"]).ok();
    let mut state = [0; datapath::key::STATE_WORDS];
    state[0] = 0x55;
    let to = ToController { max_len: 0xffff, reason: 1, table: 3, cookie: 9, state, ..ToController::default() };
    let frame = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1, 0x12, 0x34], &[0; 46]].concat();
    switch.bench.packet_in(2, &to, frame);
    switch.bench.agent.set_link(PortNo(1), false).unwrap();
    switch.run(&["del-flows", "SWITCH", "arp"]).ok();

    // It prints what it sees as errors. What is asked for last is printed last.
    let shown = read_until(&mut child, "OFPT_FLOW_REMOVED");
    assert!(shown.contains("table_id=3 cookie=0x9 total_len=60 metadata=0x55,in_port=2 (via action) data_len=60 (unbuffered)"), "{shown}");
    assert!(shown.contains("MOD: 1(vm1): addr:02:00:00:00:00:01"), "{shown}");
    assert!(shown.contains("state:      LINK_DOWN"), "{shown}");
    assert!(shown.contains("arp reason=delete table_id=0 cookie:0x9"), "{shown}");
}

#[test]
fn groups_meters_queues_and_fragments_are_listed() {
    let Some(mut switch) = Listening::new() else { return };
    let buckets = "bucket=weight:3,actions=dec_ttl,output:1,bucket=weight:5,actions=output:2";
    switch.run(&["add-group", "SWITCH", &format!("group_id=5,type=select,{buckets}")]).ok();
    switch
        .run(&["add-group", "SWITCH", "group_id=6,type=ff,bucket=watch_port:1,actions=output:1,bucket=watch_group:5,actions=group:5"])
        .ok();
    switch.run(&["--may-create", "mod-group", "SWITCH", "group_id=7,type=indirect,bucket=actions=drop"]).ok();
    let groups = switch.run(&["--no-names", "dump-groups", "SWITCH"]).ok();
    for line in [
        " group_id=5,type=select,bucket=weight:3,actions=dec_ttl,output:1,bucket=weight:5,actions=output:2",
        " group_id=6,type=ff,bucket=watch_port:1,actions=output:1,bucket=watch_group:5,actions=group:5",
        " group_id=7,type=indirect,bucket=actions=drop",
    ] {
        assert!(groups.lines().any(|shown| shown == line), "{line} is missing in {groups}");
    }
    switch.run(&["add-flow", "SWITCH", "actions=group:5"]).ok();
    let stats = switch.run(&["dump-group-stats", "SWITCH", "group_id=5"]).ok();
    assert!(stats.contains("group_id=5,duration=0s,ref_count=2,packet_count=0"), "{stats}");
    assert!(switch.run(&["dump-group-features", "SWITCH"]).ok().contains("Capabilities:  0xf"));

    switch.run(&["add-meter", "SWITCH", "meter=3,kbps,burst,stats,band=type=drop,rate=1000,burst_size=200"]).ok();
    switch.run(&["add-flow", "SWITCH", "priority=7,actions=meter:3,goto_table:1"]).ok();
    let meters = switch.run(&["dump-meters", "SWITCH"]).ok();
    assert!(meters.contains("meter=3 kbps burst stats bands=\ntype=drop rate=1000 burst_size=200"), "{meters}");
    let stats = switch.run(&["meter-stats", "SWITCH"]).ok();
    assert!(stats.contains("meter:3 flow_count:1 packet_in_count:0"), "{stats}");
    assert!(switch.run(&["meter-features", "SWITCH"]).ok().contains("band_types: drop dscp_remark"));

    let queues = switch.run(&["queue-stats", "SWITCH", "vm1", "3"]).ok();
    assert!(queues.contains("queue 3: bytes=0, pkts=0, errors=0"), "{queues}");
    assert!(switch.run(&["queue-get-config", "SWITCH", "vm2"]).ok().contains("queue 7:"));
    switch.run(&["add-flow", "SWITCH", "priority=8,actions=set_queue:4,output:1"]).ok();

    switch.run(&["set-frags", "SWITCH", "drop"]).ok();
    assert_eq!(switch.run(&["get-frags", "SWITCH"]).ok(), "drop\n");
    switch.run(&["set-frags", "SWITCH", "nx-match"]).ok();
    switch.run(&["del-groups", "SWITCH"]).ok();
    switch.run(&["del-meters", "SWITCH"]).ok();
    assert_eq!(switch.flows(), ["priority=8 actions=set_queue:4,output:1"]);
}

#[test]
fn a_bundle_of_flows_and_groups_is_added_whole_or_not_at_all() {
    let Some(mut switch) = Listening::new() else { return };
    let file = switch.file(
        "bundle",
        "group add group_id=1,type=all,bucket=actions=1\nflow add priority=5,actions=group:1\nflow add table=1,actions=2\n",
    );
    switch.run(&["bundle", "SWITCH", &file]).ok();
    assert_eq!(switch.flows(), ["priority=5 actions=group:1", "table=1, actions=output:2"]);
    let file = switch.file("flows", "priority=6,actions=1\npriority=7,actions=group:9\npriority=8,actions=1\n");
    let refused = switch.run(&["--bundle", "add-flows", "SWITCH", &file]).err();
    assert!(refused.contains("OFPBAC_BAD_OUT_GROUP") && refused.contains("priority=7"), "{refused}");
    assert!(refused.contains("OFPBFC_MSG_FAILED"), "{refused}");
    assert_eq!(switch.flows().len(), 2);
    let file = switch.file("flows", "priority=6,actions=1\n");
    switch.run(&["--bundle", "replace-flows", "SWITCH", &file]).ok();
    assert_eq!(switch.flows(), ["priority=6 actions=output:1"]);
}

/// Reads what a monitor prints until it says `last`.
fn read_until(child: &mut Child, last: &str) -> String {
    let mut shown = String::new();
    let mut err = child.stderr.take().unwrap();
    while !shown.contains(last) {
        let mut piece = [0; 4096];
        let count = err.read(&mut piece).unwrap();
        assert_ne!(count, 0, "the monitor ended: {shown}");
        shown.push_str(std::str::from_utf8(&piece[..count]).unwrap());
    }
    child.kill().unwrap();
    child.wait().unwrap();
    shown
}

#[test]
fn a_monitor_gets_niciras_formats() {
    for mut switch in Listening::in_each_version() {
        for (format, shows) in [("nxt_packet_in", "NXT_PACKET_IN"), ("nxt_packet_in2", "userdata=01.02")] {
            let control = format!("--unixctl={}", switch.directory.path().join(format).display());
            let mut child = switch.spawn(&[&control, &format!("-P{format}"), "monitor", "SWITCH", "65534"]);
            while !switch.bench.agent.wants_packet_ins() {
                switch.turn();
                std::thread::sleep(Duration::from_micros(500));
            }
            // What the monitor asks for comes before it listens.
            std::thread::sleep(Duration::from_millis(50));
            switch.turn();
            let to = ToController { reason: 1, table: 3, cookie: 9, userdata: [1, 2].into(), ..ToController::default() };
            switch.bench.packet_in(2, &to, [&[0xff; 12][..], &[0x12, 0x34], &[0; 46]].concat());
            switch.turn();
            let shown = read_until(&mut child, "dl_type=0x1234");
            assert!(shown.contains("table_id=3 cookie=0x9 total_len=60 in_port=2 (via action) data_len=60 (unbuffered)"), "{shown}");
            assert!(shown.contains(shows), "{shown}");
            while switch.bench.agent.wants_packet_ins() {
                switch.turn();
            }
        }
    }
}

#[test]
fn a_monitor_watches_flows() {
    for mut switch in Listening::in_each_version() {
        switch.run(&["add-flow", "SWITCH", "cookie=1,tcp,tp_dst=80,actions=2"]).ok();
        let control = format!("--unixctl={}", switch.directory.path().join("control").display());
        let mut child = switch.spawn(&[&control, "-vconsole:off", "monitor", "SWITCH", "watch:"]);
        let served = std::time::Instant::now();
        // Until it has been told of what is there, and waits for more.
        while served.elapsed() < Duration::from_millis(500) {
            switch.turn();
            std::thread::sleep(Duration::from_micros(500));
        }
        switch.run(&["add-flow", "SWITCH", "table=3,udp,actions=1"]).ok();
        switch.run(&["mod-flows", "SWITCH", "table=3,udp,actions=set_field:5->reg0,1"]).ok();
        switch.run(&["del-flows", "SWITCH", "tcp"]).ok();
        switch.turn();
        let mut shown = read_until(&mut child, "event=DELETED");
        // What there is at first is an answer, and no surprise.
        child.stdout.take().unwrap().read_to_string(&mut shown).unwrap();
        let set = if switch.version == "OpenFlow10" { "load:0x5->NXM_NX_REG0[]" } else { "set_field:0x5->reg0" };
        for line in [
            " event=ADDED table=0 cookie=0x1 tcp,tp_dst=80 actions=output:2",
            " event=ADDED table=3 cookie=0 udp actions=output:1",
            &format!(" event=MODIFIED table=3 cookie=0 udp actions={set},output:1"),
            " event=DELETED reason=delete table=0 cookie=0x1 tcp,tp_dst=80",
        ] {
            assert!(shown.lines().any(|shown| shown == line), "{line} is missing in {shown}");
        }
    }
}

#[test]
fn many_flows_go_in_and_come_out() {
    let Some(mut switch) = Listening::new() else { return };
    let flows: String =
        (0..20_000).map(|i| format!("priority={},in_port={},actions=output:{}\n", i % 5000, i / 5000, i % 60_000 + 1)).collect();
    let file = switch.file("flows", &flows);
    switch.run(&["add-flows", "SWITCH", &file]).ok();
    assert_eq!(switch.rules(), 20_000);
    let listed = switch.run(&["--no-stats", "dump-flows", "SWITCH"]).ok();
    assert_eq!(listed.lines().filter(|line| line.contains("actions=")).count(), 20_000);
    assert_eq!(switch.run(&["diff-flows", "SWITCH", &file]).ok(), "");
}

impl Listening {
    fn rules(&self) -> usize {
        self.bench.rules()
    }
}
