//! Guests and switch come back after the other was gone; alone in its program, because it takes times.

use std::time::{Duration, Instant};

use tests::pair::{Pair, answers, connect, fetch, offer, wait_for_answer};
use tests::process::{PATIENCE, until};

#[test]
fn a_killed_switch_comes_back_without_a_reset_of_a_guest_and_a_guest_reboots() {
    let Pair { mut a, mut b, mut switch } = Pair::start();
    wait_for_answer(&mut a, "10.0.0.2");
    let boots = (a.boot_id(), b.boot_id());

    println!("the switch, idle, with two idle guests");
    std::thread::sleep(Duration::from_secs(3));
    let share = switch.cpu_share(Duration::from_secs(10));
    println!("uses {:.2} % of a processor", share * 100.0);
    assert!(share < 0.01, "an idle switch uses {share} of a processor");

    println!("killed and started again under pings");
    // By default, Linux forgets its neighbours' addresses with the link, and asks for one again only a second after it asked in vain.
    for guest in [&mut a, &mut b] {
        guest.run("echo 0 >/proc/sys/net/ipv4/conf/eth0/arp_evict_nocarrier");
    }
    a.run("ping -i 0.05 10.0.0.2 >/tmp/pings 2>&1 & echo $! >/tmp/pinging");
    let replies = "grep -c ttl= /tmp/pings; true";
    let mut waits = Vec::new();
    for _ in 0..3 {
        switch.kill();
        let before = a.run(replies);
        let start = Instant::now();
        switch.restart();
        until(PATIENCE, "a ping is answered again", || (a.run(replies) != before).then_some(()));
        waits.push(start.elapsed());
    }
    a.run("kill $(cat /tmp/pinging)");
    println!("a ping was answered {waits:?} after the start");
    // The quickest counts: the machine may have been busy.
    assert!(waits.iter().any(|wait| *wait < Duration::from_secs(1)), "{waits:?}");
    assert_eq!(answers(&mut a, 20, "10.0.0.2"), 20);

    println!("killed and started again under a transfer");
    offer(&mut b, 24);
    let fetching = a.begin(&fetch("10.0.0.2"));
    std::thread::sleep(Duration::from_millis(200));
    switch.kill();
    switch.restart();
    assert_eq!(a.finish(fetching), b.run("sha256sum </tmp/www/file"), "the file did not arrive as it was sent");
    assert_eq!((a.boot_id(), b.boot_id()), boots, "a guest was reset");

    println!("a guest reboots");
    b.reboot();
    connect(&mut b, 2);
    wait_for_answer(&mut a, "10.0.0.2");
    assert_eq!(answers(&mut b, 20, "10.0.0.1"), 20);
    switch.stop();
}
