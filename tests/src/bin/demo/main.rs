//! The demo: two guests talk through the switch, and a rule comes between them. `scripts/demo` prepares what it needs.
//!
//! With `--interactive` it leaves the guests' consoles open at the end. The exit status is 0 only if every step held.

mod console;

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Instant;

use serde_json::Value;
use tests::guest::{Guest, Options};
use tests::pair;
use tests::switch::Switch;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let interactive = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => false,
        ["--interactive"] => true,
        _ => {
            eprintln!("usage: scripts/demo [--interactive]");
            return ExitCode::from(2);
        }
    };
    if interactive && !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
        eprintln!("--interactive needs a terminal to show the guests' consoles in");
        return ExitCode::from(2);
    }
    // The harness panics where a test would fail: say it as a sentence, and let the destructors clean up.
    std::panic::set_hook(Box::new(|info| {
        let message = info.payload_as_str().unwrap_or("for a reason unknown");
        eprintln!("\n{} {message}", paint("31;1", "The demo failed:"));
    }));
    match std::panic::catch_unwind(|| play(interactive)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn play(interactive: bool) {
    let start = Instant::now();
    title("A switch, and two guests on it");
    command("vswitch run --port vm1=vhost-user:vm1.sock --port vm2=vhost-user:vm2.sock");
    let switch = Switch::start(&["--port", "vm1=vhost-user:{}/vm1.sock", "--port", "vm2=vhost-user:{}/vm2.sock"]);
    done("the switch is ready");
    let [mut a, mut b] = [1, 2].map(|number| {
        let mut guest = Guest::start(&Options::new(switch.path(&format!("vm{number}.sock")), number));
        pair::connect(&mut guest, number);
        done(&format!("vm{number} is up: a Linux under QEMU, 10.0.0.{number}"));
        guest
    });

    title("They reach each other");
    pair::wait_for_answer(&mut a, "10.0.0.2");
    command("vm1# ping -c 3 10.0.0.2");
    show(&a.run("ping -c 3 10.0.0.2"));
    let answered = pair::answers(&mut a, 50, "10.0.0.2");
    assert_eq!(answered, 50, "pings were lost");
    done("50 more pings: none lost");
    for (what, options) in [("vm1 to vm2", "-t 5"), ("vm2 to vm1", "-t 5 -R")] {
        command(&format!("vm1# iperf3 -c 10.0.0.2 {options}"));
        let rate = pair::iperf(&mut a, &mut b, "10.0.0.2", options);
        done(&format!("{what}: {rate:.0} Mb/s of TCP (the guests are emulated: they are the limit, not the switch)"));
    }
    pair::transfer(&mut a, &mut b, "10.0.0.2", 8);
    done("a file of 8 MiB came through unchanged (SHA-256)");

    title("What the switch knows");
    for what in [&["port", "list"][..], &["flows"], &["workers"]] {
        command(&format!("vswitch ctl {}", what.join(" ")));
        show(&switch.ctl(what));
    }
    for port in switch.ctl_json(&["port", "list"]).as_array().expect("ctl lists the ports") {
        assert_eq!(port["link"], "up", "{port}");
        assert!(number(port, "rx_frames") > 0 && number(port, "tx_frames") > 0, "{port}");
    }
    for worker in switch.ctl_json(&["workers"]).as_array().expect("ctl lists the workers") {
        let of = |name| 100.0 * number(worker, name) as f64 / number(worker, "frames").max(1) as f64;
        let (micro, mega, upcalls) = (of("microflow_hits"), of("megaflow_hits"), of("upcalls"));
        let name = worker["name"].as_str().unwrap_or("worker");
        done(&format!(
            "{name}: of {} frames, the microflow cache knew {micro:.2} %, the megaflow cache {mega:.2} %; the tables were asked for {upcalls:.2} %",
            number(worker, "frames")
        ));
    }

    title("A rule comes between them");
    command("ovs-ofctl -O OpenFlow13 add-flow unix:br0.mgmt priority=100,icmp,actions=drop");
    switch.ofctl("add-flow", &["priority=100,icmp,actions=drop"]);
    assert_eq!(pair::answers(&mut a, 5, "10.0.0.2"), 0, "a ping went through");
    done("vm1 pings in vain");
    pair::transfer(&mut a, &mut b, "10.0.0.2", 1);
    done("TCP still passes");
    command("ovs-ofctl -O OpenFlow13 dump-flows unix:br0.mgmt");
    show(&switch.ofctl("dump-flows", &[]));
    command("ovs-ofctl -O OpenFlow13 del-flows unix:br0.mgmt icmp");
    switch.ofctl("del-flows", &["icmp"]);
    assert_eq!(pair::answers(&mut a, 5, "10.0.0.2"), 5, "pings were lost");
    done("vm1's pings are answered again");

    if interactive {
        title("Your turn");
        println!("  In another terminal, have a look at the switch:\n");
        println!("    {} ctl --run-dir {} workers", tests::target::vswitch().display(), switch.path("").display());
        println!("    ovs-ofctl -O OpenFlow13 dump-flows unix:{}\n", switch.path("br0.mgmt").display());
        console::open(&[("vm1", a.console()), ("vm2", b.console())]).unwrap_or_else(|error| panic!("the consoles can't be shown: {error}"));
    }
    drop((a, b));
    switch.stop();
    println!("\n{} in {} s; everything is cleaned up.", paint("32;1", "Every step held"), start.elapsed().as_secs());
}

fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_else(|| panic!("there is no number {name:?} in {value}"))
}

fn title(text: &str) {
    println!("\n{}", paint("1", text));
}

fn command(text: &str) {
    println!("  {}", paint("36", &format!("$ {text}")));
}

fn show(text: &str) {
    for line in text.lines().filter(|line| !line.is_empty()) {
        println!("    {line}");
    }
}

fn done(text: &str) {
    println!("  {} {text}", paint("32", "✔"));
}

/// The text in a colour, if somebody sees it.
fn paint(colour: &str, text: &str) -> String {
    if io::stdout().is_terminal() { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
}
