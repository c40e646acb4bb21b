//! Real guests on the vhost-user back end alone: what QEMU and Linux make of it, without the rest of the switch.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::tempdir;
use tests::guest::{Guest, Options};
use tests::hub::Hub;

/// Runs `scenario` while the frames of two ports with `queue_pairs` queue pairs each are passed on.
fn with_hub<T>(directory: &Path, queue_pairs: u16, scenario: impl FnOnce() -> T) -> T {
    let mut hub = Hub::new(directory, 2, queue_pairs);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| hub.run_until(|| done.load(Ordering::Relaxed)));
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(scenario));
        done.store(true, Ordering::Relaxed);
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn two_guests(directory: &Path, queues: u16) -> [Guest; 2] {
    [0, 1].map(|port| {
        let socket = directory.join(format!("vm{port}.sock"));
        let mut guest = Guest::start(&Options { queues, ..Options::new(socket, port as u8 + 1) });
        guest.run(&format!("ip addr add 10.0.0.{}/24 dev eth0; ip link set eth0 up", port + 1));
        guest
    })
}

#[test]
fn guests_reach_each_other_and_survive_the_switch() {
    let directory = tempdir().expect("a directory");
    let mut guests = with_hub(directory.path(), 2, || {
        let mut guests = two_guests(directory.path(), 2);
        guests[0].run("ping -c 5 -i 0.2 -A 10.0.0.2");
        guests
    });
    for round in 0..3 {
        with_hub(directory.path(), 2, || {
            guests[round % 2].run(&format!("ping -c 20 -A -w 20 10.0.0.{}", 2 - round % 2));
            guests[0].reboot();
            guests[0].run("ip addr add 10.0.0.1/24 dev eth0; ip link set eth0 up; ping -c 5 -A 10.0.0.2");
        });
    }
}
