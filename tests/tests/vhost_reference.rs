//! The same guests, on our back end and on one built from `vhost-user-backend` and `virtio-queue`, which send every frame back.

use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::tempdir;
use tests::driver::{F_EVENT_IDX, F_MRG_RXBUF, F_VERSION_1};
use tests::frontend::{F_ALL, F_PROTOCOL_FEATURES, Guest, Options, PROTOCOL_ALL};
use tests::hub::Hub;
use tests::reference::Reference;
use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;

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
