//! The bench itself works: our own switch in some cases, for a moment each. It says nothing about how fast anything is.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bench::case::{CASES, Case};
use bench::host::Host;
use bench::peer::Peer;
use bench::report::{Measured, Report};
use bench::run::{Run, Timing, measure};

const TIMING: Timing = Timing { warm_up: Duration::from_millis(50), window: Duration::from_millis(200), windows: 1 };

fn case(name: &str) -> &'static Case {
    CASES.iter().find(|case| case.name == name).expect("a case")
}

#[test]
fn our_switch_is_measured() {
    let host = Host::new(None, &[], tests::target::vswitch().to_owned(), Arc::new(AtomicBool::new(false))).expect("a host");
    assert_eq!(Peer::Vswitch.missing(&host), None, "run scripts/setup");
    let run = |name: &str, peer: Peer| -> Run {
        measure(&host, case(name), peer, TIMING).unwrap_or_else(|error| panic!("{} in {name}: {error}", peer.name()))
    };

    let one_rule = run("inout1", Peer::Vswitch);
    assert!(one_rule.mpps > 0.0 && one_rule.spent.cycles_per_frame.is_some(), "{one_rule}");
    // Chains of descriptors and segments that nobody has cut up yet: as long as they were.
    let large = run("inout-tso", Peer::Vswitch);
    assert!((large.gbps * 1e9 / 8.0 / (large.mpps * 1e6) - 65_000.0).abs() < 1.0, "{large}");
    let masks = run("masks8", Peer::Vswitch);
    assert!(masks.spent.counters["masks"].as_u64() >= Some(8), "{:?}", masks.spent.counters);
    let ping = run("ping", Peer::VswitchAdaptive);
    assert!(ping.latency.is_some(), "{ping}");
    let many = run("idle-2", Peer::VswitchAdaptive);
    assert!(many.mpps == 0.0 && many.memory > Some(0), "{many}");

    let measured = Measured { case: case("inout1"), pairs: vec![[(Peer::Vswitch, one_rule)].into()] };
    let dir = tempfile::tempdir().expect("a directory");
    Report { measured: vec![measured], notes: Vec::new() }.write(&host, dir.path()).expect("a report");
    let page = std::fs::read_to_string(dir.path().join("report.md")).expect("the report");
    assert!(page.contains("`inout1`: one rule per direction | vswitch |"), "{page}");
    assert!(dir.path().join("rates.svg").exists());
}

#[test]
fn a_user_who_wants_to_stop_is_heard() {
    let host = Host::new(None, &[], tests::target::vswitch().to_owned(), Arc::new(AtomicBool::new(true))).expect("a host");
    let error = measure(&host, case("inout1"), Peer::Vswitch, TIMING).expect_err("nothing was measured");
    assert_eq!(error.to_string(), "interrupted");
}

#[test]
fn barriers_are_measured() {
    // It measures the program beside it.
    assert_eq!(tests::target::vswitch().parent(), Path::new(env!("CARGO_BIN_EXE_barrier")).parent());
    let args = ["--flows", "100", "--rounds", "4", "--turns", "1", "--switches", "vswitch-adaptive"];
    let output = Command::new(env!("CARGO_BIN_EXE_barrier")).args(args).output().expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let row = text.lines().nth(1).unwrap_or_default();
    assert!(row.contains("100  vswitch-adaptive") && row.contains("0, 0 of 128"), "{text}");
}
