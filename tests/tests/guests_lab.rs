//! Real guests on two hosts reach each other through both switches, and AF_XDP between them.

use tests::guest::{Guest, Options};
use tests::lab::Lab;
use tests::pair::{answers, connect, counter, iperf, transfer, wait_for_answer};

/// A guest on each of the lab's hosts, in VLAN 10.
fn guests(lab: &Lab, mtu: u16) -> [Guest; 2] {
    [("a", 1), ("b", 2)].map(|(host, number)| {
        let socket = lab.run_dir(host).join("vm.sock");
        lab.ctl(host, &["port", "add", &format!("vm=vhost-user:{},vlan=10,mtu={mtu}", socket.display())]);
        let mut guest = Guest::start(&Options { mtu: Some(mtu), ..Options::new(socket, number) });
        connect(&mut guest, number);
        guest
    })
}

fn exchange(mode: &str, mtu: u16) {
    let lab = Lab::up(&["--mode", mode, "--mtu", &mtu.to_string()]);
    let [mut a, mut b] = guests(&lab, mtu);
    for address in ["10.0.0.2", "fd00::2"] {
        wait_for_answer(&mut a, address);
    }
    let size = format!("-s {} 10.0.0.2", mtu - 28);
    let answered = answers(&mut a, 50, &size);
    assert_eq!(answered, 50, "what the switches dropped: {} {}", lab.ctl("a", &["drops"]), lab.ctl("b", &["drops"]));
    assert_eq!(counter(&mut b, "Ip", "ReasmReqds"), 0, "the frames came in fragments");
    for offloads in ["on", "off"] {
        for guest in [&mut a, &mut b] {
            guest.run(&format!("ethtool -K eth0 tx {offloads} sg {offloads} tso {offloads} gso {offloads} gro {offloads}"));
        }
        for options in ["-t 3", "-t 3 -R"] {
            let rate = iperf(&mut a, &mut b, "10.0.0.2", options);
            println!("{mode}, MTU {mtu}, offloads {offloads}, iperf3 {options}: {rate:.0} Mb/s");
        }
        for (from_a, from_b) in [("10.0.0.2", "10.0.0.1"), ("[fd00::2]", "[fd00::1]")] {
            transfer(&mut a, &mut b, from_a, 4);
            transfer(&mut b, &mut a, from_b, 4);
        }
    }
    assert_eq!(counter(&mut a, "Tcp", "InCsumErrors") + counter(&mut b, "Tcp", "InCsumErrors"), 0);
}

#[test]
fn guests_of_two_hosts_exchange_files() {
    // One after the other: four guests at once are many for a small machine.
    exchange("native", 1500);
    exchange("generic", 9000);
}
