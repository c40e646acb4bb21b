//! Other people's ends: the same guests on our back end and on one built from `vhost-user-backend` and `virtio-queue`, which send every frame
//! back; and our back end behind the front end of the `vhost` crate.

use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::tempdir;
use tests::driver::{F_EVENT_IDX, F_MRG_RXBUF, F_VERSION_1, Ram, Receiver, Transmitter};
use tests::frontend::{F_ALL, F_PROTOCOL_FEATURES, Guest, Options, PROTOCOL_ALL};
use tests::hub::Hub;
use tests::reference::Reference;
use vhost::vhost_user::message::{VhostUserHeaderFlag, VhostUserProtocolFeatures as Protocol};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::EventFd;

fn kinds() -> Vec<Options> {
    // The crates refuse to enable a ring before the features are set.
    let default = Options { early_enable: false, ..Options::default() };
    vec![
        default,
        Options { features: F_VERSION_1 | F_PROTOCOL_FEATURES, ..default },
        Options { features: F_VERSION_1 | F_EVENT_IDX | F_PROTOCOL_FEATURES, ring_size: 64, ..default },
        Options { features: F_VERSION_1 | F_MRG_RXBUF | F_PROTOCOL_FEATURES, ring_size: 1024, ..default },
        Options { buffer: 256, buffer_parts: 8, features: F_ALL & !F_MRG_RXBUF, ..default },
        Options { protocol_features: PROTOCOL_ALL & !Protocol::CONFIGURE_MEM_SLOTS.bits(), ..default },
        Options { protocol_features: Protocol::MQ.bits(), ..default },
    ]
}

/// Sends frames of many lengths and expects every one back, in order, unchanged.
fn exercise(path: &Path, options: Options, mut serve: impl FnMut()) {
    let mut guest = Guest::connect(path, options).expect("a guest");
    let frames: Vec<Vec<u8>> = (0..3000u32).map(|i| (0..60 + i % 1440).map(|at| (i + at) as u8).collect()).collect();
    let (mut sent, mut received) = (0, Vec::new());
    let patience = Instant::now() + Duration::from_secs(60);
    while received.len() < frames.len() {
        sent += guest.send(0, frames[sent..].iter().map(Vec::as_slice));
        serve();
        received.extend(guest.receive(0));
        assert!(Instant::now() < patience, "{} frames of {sent} came back", received.len());
    }
    assert!(received == frames, "the frames came back changed, or in another order");
    guest.stop().expect("stopped");
}

#[test]
fn the_reference_sends_every_frame_back() {
    let directory = tempdir().expect("a directory");
    let path = directory.path().join("reference.sock");
    for options in kinds() {
        let reference = Reference::listen(&path);
        exercise(&path, options, std::thread::yield_now);
        drop(reference);
    }
}

#[test]
fn our_back_end_sends_every_frame_back() {
    let directory = tempdir().expect("a directory");
    for options in kinds() {
        let mut hub = Hub::new(directory.path(), 1, 1);
        let path = hub.socket(0);
        exercise(&path, options, || {
            hub.breathe();
        });
    }
}

#[test]
fn the_crates_front_end_is_served() {
    let directory = tempdir().expect("a directory");
    let mut hub = Hub::new(directory.path(), 1, 1);
    let mut frontend = Frontend::connect(hub.socket(0), 2).expect("a connection");
    frontend.set_owner().expect("owner");
    let features = frontend.get_features().expect("features") & (F_VERSION_1 | F_MRG_RXBUF | F_PROTOCOL_FEATURES);
    frontend.set_features(features).expect("features");
    let protocol = frontend.get_protocol_features().expect("protocol features");
    frontend.set_protocol_features(protocol).expect("protocol features");
    assert_eq!(frontend.get_max_mem_slots().expect("slots"), vhost_backend::memory::MAX_REGIONS as u64);
    frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);

    let ram = Ram::new(&[(0, 0x20_0000)]);
    let file = ram.file();
    let region = ram.regions()[0];
    let info = VhostUserMemoryRegionInfo {
        guest_phys_addr: region.guest_address,
        memory_size: region.size,
        userspace_addr: region.user_address,
        mmap_offset: region.offset,
        mmap_handle: file.as_raw_fd(),
    };
    frontend.add_mem_region(&info).expect("a region");
    let mut receiver = Receiver::new(&ram, 0, 256, 2048, 1, false);
    let mut transmitter = Transmitter::new(&ram, 0x10_0000, 256, 2048, false);
    for (index, ring) in [&receiver.ring, &transmitter.ring].into_iter().enumerate() {
        let addresses = ring.addresses();
        let config = VringConfigData {
            queue_max_size: 256,
            queue_size: 256,
            flags: 0,
            desc_table_addr: addresses.descriptors,
            used_ring_addr: addresses.used,
            avail_ring_addr: addresses.available,
            log_addr: None,
        };
        frontend.set_vring_num(index, 256).expect("a size");
        frontend.set_vring_base(index, 0).expect("a base");
        frontend.set_vring_addr(index, &config).expect("addresses");
        let notifier = EventFd::new(0).expect("an eventfd");
        frontend.set_vring_kick(index, &notifier).expect("a kick");
        frontend.set_vring_call(index, &notifier).expect("a call");
        frontend.set_vring_err(index, &notifier).expect("an error");
        frontend.set_vring_enable(index, true).expect("enabled");
    }
    receiver.fill(usize::MAX);
    assert!(transmitter.send(&[7; 60]));
    hub.breathe();
    assert_eq!(receiver.receive().expect("a frame").1, [7; 60]);
    assert_eq!(frontend.get_vring_base(0).expect("a base"), 1);
    frontend.reset_device().expect("reset");
    frontend.remove_mem_region(&info).expect("removed");
}
