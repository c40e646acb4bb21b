//! Two real guests on one switch: the stage of most scenarios.

use crate::guest::{Guest, Options};
use crate::switch::Switch;

/// Guests `a` (10.0.0.1, fd00::1) and `b` (10.0.0.2, fd00::2), on the ports `vm1` and `vm2` of a switch.
#[derive(Debug)]
pub struct Pair {
    // The guests end before the switch.
    /// The guest on `vm1`.
    pub a: Guest,
    /// The guest on `vm2`.
    pub b: Guest,
    /// Their switch.
    pub switch: Switch,
}

impl Pair {
    /// A pair on a switch with default settings.
    pub fn start() -> Pair {
        Pair::with("", |_| ())
    }

    /// A pair whose ports have `words` more in their specification, such as `,queues=2`, and whose guests' options were changed by
    /// `change`.
    pub fn with(words: &str, change: impl Fn(&mut Options)) -> Pair {
        let port = |number| format!("vm{number}=vhost-user:{{}}/vm{number}.sock{words}");
        let switch = Switch::start(&["--port", &port(1), "--port", &port(2)]);
        let guest = |number| {
            let mut options = Options::new(switch.path(&format!("vm{number}.sock")), number);
            change(&mut options);
            let mut guest = Guest::start(&options);
            connect(&mut guest, number);
            guest
        };
        Pair { a: guest(1), b: guest(2), switch }
    }
}

/// Gives the guest's card its addresses, and waits for the link.
pub fn connect(guest: &mut Guest, number: u8) {
    guest.run("echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad");
    guest.run(&format!("ip addr add 10.0.0.{number}/24 dev eth0; ip addr add fd00::{number}/64 dev eth0; ip link set eth0 up"));
    wait_for_link(guest);
}

/// Waits until the guest sees its link up.
pub fn wait_for_link(guest: &mut Guest) {
    guest.run("until [ \"$(cat /sys/class/net/eth0/carrier)\" = 1 ]; do usleep 10000; done");
}

/// Waits until an address answers the guest's pings. Right after a link came up, the first frames may find the peer not ready.
pub fn wait_for_answer(guest: &mut Guest, address: &str) {
    guest.run(&format!("until ping -c 1 -W 1 {address}; do usleep 10000; done"));
}

/// How many answers the guest gets to `count` pings, 20 ms apart; `options` come before the address.
pub fn answers(guest: &mut Guest, count: u32, options: &str) -> u32 {
    let output = guest.try_run(&format!("ping -q -c {count} -i 0.02 -W 2 {options}"));
    let words: Vec<&str> = output.text.split_whitespace().collect();
    let received = words.windows(3).find(|words| words[1..] == ["packets", "received,"]).map(|words| words[0].parse());
    received.unwrap_or_else(|| panic!("ping wrote:\n{}", output.text)).expect("ping writes numbers")
}

/// Fetches a file of `megabytes` random megabytes from `server` at `address`, and compares the SHA-256 of what was sent and what came.
///
/// # Panics
///
/// Panics if they differ.
pub fn transfer(client: &mut Guest, server: &mut Guest, address: &str, megabytes: u32) {
    offer(server, megabytes);
    let fetching = client.begin(&fetch(address));
    let received = client.finish(fetching);
    assert_eq!(received, server.run("sha256sum </tmp/www/file"), "the file did not arrive as it was sent");
}

/// Makes the guest offer a file of random bytes by HTTP.
pub fn offer(server: &mut Guest, megabytes: u32) {
    server.run(&format!("mkdir -p /tmp/www; dd if=/dev/urandom of=/tmp/www/file bs=64k count={} 2>/dev/null", megabytes * 16));
    server.run("pidof httpd || httpd -h /tmp/www");
}

/// The command that fetches the file that [`offer`] offers, and writes its SHA-256.
pub fn fetch(address: &str) -> String {
    format!("set -o pipefail; wget -q -O - http://{address}/file | sha256sum")
}

/// What one of the counters of the guest's network stack says, such as `("Tcp", "InCsumErrors")`.
pub fn counter(guest: &mut Guest, protocol: &str, name: &str) -> u64 {
    let text = guest.run(&format!("grep ^{protocol}: /proc/net/snmp"));
    let (names, values) = text.split_once('\n').unwrap_or_else(|| panic!("two lines expected: {text}"));
    let found = names.split_whitespace().zip(values.split_whitespace()).find(|(this, _)| *this == name);
    found.and_then(|(_, value)| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {text}"))
}

/// Runs iperf3 over TCP from `client` to `server` at `address`, or back with `-R` among the options. Returns received megabits per
/// second.
pub fn iperf(client: &mut Guest, server: &mut Guest, address: &str, options: &str) -> f64 {
    // A server for each run: one that stays closes its socket between two runs, and resets who connects meanwhile.
    server.run(
        "while pidof iperf3; do usleep 10000; done; iperf3 -s -1 -D >/dev/null; until netstat -ltn | grep -q :5201; do usleep 10000; done",
    );
    let report = client.run(&format!("iperf3 -J -c {address} {options}"));
    let report: serde_json::Value =
        serde_json::from_str(&report).unwrap_or_else(|error| panic!("iperf3 wrote no JSON ({error}):\n{report}"));
    let rate = report["end"]["sum_received"]["bits_per_second"].as_f64();
    rate.unwrap_or_else(|| panic!("iperf3 reports no rate: {report}")) / 1e6
}
