//! Connections of well-behaved front ends: what is negotiated, and what happens to the rings when connections, memory and settings come and go.

use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tempfile::{TempDir, tempdir};
use tests::driver::{Event, F_EVENT_IDX, F_MRG_RXBUF, F_VERSION_1};
use tests::frontend::{Connection, F_ALL, F_PROTOCOL_FEATURES, Guest, Options, PROTOCOL_ALL};
use tests::hub::Hub;
use vhost::vhost_user::message::{FrontendReq, VhostUserProtocolFeatures as Protocol};

fn hub(ports: usize, queue_pairs: u16) -> (TempDir, Hub) {
    let directory = tempdir().expect("a directory");
    let hub = Hub::new(directory.path(), ports, queue_pairs);
    (directory, hub)
}

/// Sends a frame through each queue pair in use from one guest to the other and back, and expects each to arrive, once.
fn check_traffic(hub: &mut Hub, guests: &mut [Guest; 2], pairs: usize) {
    for (from, to) in [(0, 1), (1, 0)] {
        for pair in 0..pairs {
            let frames: Vec<Vec<u8>> =
                (0..40u8).map(|i| [&[i; 12][..], &[8, 0, pair as u8], &vec![i; 50 + 20 * usize::from(i)]].concat()).collect();
            assert_eq!(guests[from].send(pair, frames.iter().map(Vec::as_slice)), frames.len());
            let mut taken = 0;
            while taken < frames.len() {
                let (count, transmitted) = hub.breathe();
                assert!(count > 0, "{taken} of {} frames came in", frames.len());
                assert_eq!(transmitted.frames, count as u64, "{transmitted:?}");
                taken += count;
            }
            let mut received: Vec<_> = (0..pairs).flat_map(|pair| guests[to].receive(pair)).collect();
            received.sort();
            assert_eq!(received, frames, "from {from} to {to} through queue pair {pair}");
        }
    }
}

fn two_guests(hub: &Hub, options: Options) -> [Guest; 2] {
    [0, 1].map(|port| Guest::connect(&hub.socket(port), options).expect("a guest"))
}

#[test]
fn a_guest_negotiates_as_under_qemu() {
    let (_directory, mut hub) = hub(2, 1);
    let mut guests = two_guests(&hub, Options::default());
    assert_eq!(guests[0].features(), F_ALL);
    assert_eq!(guests[0].protocol_features().bits(), PROTOCOL_ALL);
    for port in [0, 1] {
        hub.tale(port).wait(|told| told.link);
        assert!(matches!(hub.tale(port).told().kicks[..], [Some(Some(_))]));
    }
    check_traffic(&mut hub, &mut guests, 1);
}

#[test]
fn a_guest_may_take_little() {
    let (_directory, mut hub) = hub(2, 1);
    for features in [F_VERSION_1, F_VERSION_1 | F_EVENT_IDX, F_VERSION_1 | F_MRG_RXBUF | F_PROTOCOL_FEATURES] {
        let options = Options { features, protocol_features: 0, early_enable: false, ..Options::default() };
        let mut guests = two_guests(&hub, options);
        assert_eq!(guests[0].features(), features);
        check_traffic(&mut hub, &mut guests, 1);
        drop(guests);
        hub.tale(0).wait(|told| !told.link);
        hub.tale(1).wait(|told| !told.link);
    }
}

#[test]
fn enabling_comes_before_anything_else() {
    let (_directory, hub) = hub(1, 1);
    let connection = Connection::connect(&hub.socket(0)).expect("a connection");
    connection.set_vring(FrontendReq::SET_VRING_ENABLE, 0, 1).expect("sent");
    connection.set_vring(FrontendReq::SET_VRING_ENABLE, 1, 1).expect("sent");
    connection.sync().expect("the connection is open");
}

#[test]
fn messages_that_the_handler_does_not_know_are_answered() {
    let (_directory, hub) = hub(1, 1);
    let mut guest = Guest::new(Options::default());
    guest.reconnect(&hub.socket(0)).expect("a guest");
    let connection = guest.connection.as_ref().expect("connected");
    connection.set(FrontendReq::SEND_RARP, &[2, 0, 0, 0, 0, 7, 0, 0], &[]).expect("accepted");
    connection.set(FrontendReq::NET_SET_MTU, &1500u64.to_ne_bytes(), &[]).expect("accepted");
    connection.sync().expect("the connection is open");
    assert_eq!(connection.get(FrontendReq::GET_STATUS).expect("a status"), 15);
    assert_eq!(hub.tale(0).told().announced, [[2, 0, 0, 0, 0, 7]]);
}

#[test]
fn a_refused_message_is_answered_before_the_connection_ends() {
    let (_directory, hub) = hub(1, 1);
    let mut guest = Guest::connect(&hub.socket(0), Options::default()).expect("a guest");
    let connection = guest.connection.as_ref().expect("connected");
    let refusal = connection.set(FrontendReq::NET_SET_MTU, &67u64.to_ne_bytes(), &[]).expect_err("refused");
    assert!(refusal.to_string().contains("refused with 1"), "{refusal}");
    hub.tale(0).wait(|told| told.closed == 1);
    guest.reconnect(&hub.socket(0)).expect("the port is open again");
}

#[test]
fn guests_come_and_go_while_others_stay() {
    let (_directory, mut hub) = hub(2, 1);
    let mut guests = two_guests(&hub, Options::default());
    for round in 1..=30 {
        guests[0].disconnect();
        hub.tale(0).wait(|told| told.closed == round && !told.link);
        assert!(matches!(hub.tale(0).told().kicks[..], [None]));
        let socket = hub.socket(0);
        guests[0].reconnect(&socket).expect("connected again");
        check_traffic(&mut hub, &mut guests, 1);
    }
    assert_eq!(hub.tale(1).told().closed, 0);
    assert_eq!(hub.tale(1).told().ups, 1);
}

#[test]
fn another_guest_may_come_instead() {
    let (_directory, mut hub) = hub(2, 1);
    let mut guests = two_guests(&hub, Options::default());
    check_traffic(&mut hub, &mut guests, 1);
    guests[0].disconnect();
    hub.tale(0).wait(|told| told.closed == 1);
    guests[0] = Guest::connect(&hub.socket(0), Options { ring_size: 1024, features: F_VERSION_1, ..Options::default() }).expect("a guest");
    check_traffic(&mut hub, &mut guests, 1);
}

#[test]
fn one_front_end_at_a_time() {
    let (_directory, mut hub) = hub(2, 1);
    let mut guests = two_guests(&hub, Options::default());
    assert!(Guest::connect(&hub.socket(0), Options::default()).is_err());
    check_traffic(&mut hub, &mut guests, 1);
}

#[test]
fn a_port_may_connect_itself() {
    let directory = tempdir().expect("a directory");
    let mut hub = Hub::with(directory.path(), 2, false, |_| ());
    let mut guests = [0, 1].map(|port| {
        let path = directory.path().join(format!("qemu{port}"));
        let listener = UnixListener::bind(&path).expect("a listener");
        assert!(hub.attach(port, UnixStream::connect(&path).expect("a connection")));
        assert!(!hub.attach(port, UnixStream::connect(&path).expect("a connection")), "one at a time");
        let mut guest = Guest::new(Options::default());
        guest.accept(&listener).expect("a guest");
        guest
    });
    check_traffic(&mut hub, &mut guests, 1);
}

#[test]
fn a_stopped_driver_goes_on_where_it_was() {
    let (_directory, mut hub) = hub(2, 1);
    let mut guests = two_guests(&hub, Options::default());
    for _ in 0..3 {
        check_traffic(&mut hub, &mut guests, 1);
        guests[0].stop().expect("stopped");
        assert!(!hub.tale(0).told().link);
        guests[0].start().expect("started");
        assert!(hub.tale(0).told().link);
    }
}

#[test]
fn rings_are_taken_back_under_traffic() {
    let (_directory, mut hub) = hub(2, 1);
    let mut guests = two_guests(&hub, Options { ring_size: 1024, ..Options::default() });
    let done = AtomicBool::new(false);
    let (mut sent, mut received) = (0u32, Vec::new());
    let mut receive = |guest: &mut Guest, count: u32| {
        let patience = Instant::now() + Duration::from_secs(30);
        while received.len() < count as usize && Instant::now() < patience {
            received.extend(guest.receive(0));
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| hub.run_until(|| done.load(Ordering::Relaxed)));
        for round in 0..200 {
            let frames: Vec<Vec<u8>> = (sent..sent + 50).map(|i| [&[0; 60][..], &i.to_be_bytes()].concat()).collect();
            assert_eq!(guests[0].send(0, frames.iter().map(Vec::as_slice)), frames.len());
            sent += frames.len() as u32;
            match round % 4 {
                0 => {
                    guests[0].stop().expect("stopped");
                    guests[0].start().expect("started");
                }
                1 => {
                    let (ram, connection) = (guests[0].ram(), guests[0].connection.as_ref().expect("connected"));
                    connection.rem_mem_reg(&ram.regions()[1]).expect("removed");
                    connection.add_mem_reg(&ram.regions()[1], &ram.file()).expect("added");
                }
                2 => {
                    // As when a guest masks and unmasks an interrupt.
                    let call = guests[1].receiver(0).ring.call.file();
                    let connection = guests[1].connection.as_ref().expect("connected");
                    connection.set_vring_fd(FrontendReq::SET_VRING_CALL, 0, Some(&Event::default().file())).expect("masked");
                    connection.set_vring_fd(FrontendReq::SET_VRING_CALL, 0, Some(&call)).expect("unmasked");
                }
                _ => {}
            }
            // No more under way than either ring holds.
            receive(&mut guests[1], sent.saturating_sub(500));
        }
        receive(&mut guests[1], sent);
        done.store(true, Ordering::Relaxed);
    });
    let numbers: Vec<u32> = received.iter().map(|frame| u32::from_be_bytes(frame[60..].try_into().expect("four bytes"))).collect();
    assert!(numbers.iter().copied().eq(0..sent), "{} of {sent} frames, or in another order", numbers.len());
}

#[test]
fn a_killed_switch_loses_and_doubles_nothing() {
    let (directory, mut hub) = hub(2, 1);
    let mut guests = two_guests(&hub, Options::default());
    check_traffic(&mut hub, &mut guests, 1);
    let frames: Vec<Vec<u8>> = (0..100u8).map(|i| vec![i; 100]).collect();
    guests[0].send(0, frames.iter().map(Vec::as_slice));
    hub.breathe();
    hub.breathe();
    // 64 frames were forwarded; their sender has 36 in its ring, and the kick was for somebody who is dead.
    drop(hub);
    let mut hub = Hub::new(directory.path(), 2, 1);
    for (port, guest) in guests.iter_mut().enumerate() {
        guest.reconnect(&hub.socket(port)).expect("connected again");
    }
    assert_eq!((hub.breathe().0, hub.breathe().0, hub.breathe().0), (32, 4, 0));
    assert_eq!(guests[1].receive(0), frames);
    check_traffic(&mut hub, &mut guests, 1);
}

#[test]
fn a_started_ring_notifies_its_driver_once() {
    let (_directory, hub) = hub(1, 1);
    let mut guest = Guest::connect(&hub.socket(0), Options::default()).expect("a guest");
    assert!(guest.receiver(0).ring.call.take() > 0);
    assert!(guest.transmitter(0).ring.call.take() > 0);
}

#[test]
fn queue_pairs_are_enabled_and_disabled() {
    let (_directory, mut hub) = hub(2, 4);
    let mut guests = two_guests(&hub, Options { queue_pairs: 4, ..Options::default() });
    check_traffic(&mut hub, &mut guests, 4);
    guests[1].set_queue_pairs(2).expect("done");
    let frames: Vec<Vec<u8>> = (0..100u8).map(|i| vec![i; 60]).collect();
    guests[0].send(3, frames.iter().map(Vec::as_slice));
    while hub.breathe().0 > 0 {}
    let received = [0, 1, 2, 3].map(|pair| guests[1].receive(pair).len());
    assert_eq!(received.iter().sum::<usize>(), 100);
    assert!(received[0] > 0 && received[1] > 0, "{received:?}");
    assert_eq!(received[2..], [0, 0]);
    // What is sent through a disabled queue is taken, and goes nowhere.
    assert_eq!(guests[1].send(3, frames.iter().map(Vec::as_slice)), 100);
    while hub.breathe().0 > 0 {}
    assert_eq!(hub.rejected[datapath::drops::DropReason::QueueDisabled as usize], 100);
    assert_eq!(guests[1].transmitter(3).reclaim(), 100);
    assert_eq!((0..4).map(|pair| guests[0].receive(pair).len()).sum::<usize>(), 0);
    guests[1].set_queue_pairs(0).expect("done");
    assert!(!hub.tale(1).told().link);
    guests[1].set_queue_pairs(4).expect("done");
    assert!(hub.tale(1).told().link);
    check_traffic(&mut hub, &mut guests, 4);
}

#[test]
fn too_many_queue_pairs_are_refused_by_the_front_end() {
    let (_directory, hub) = hub(1, 2);
    assert!(Guest::connect(&hub.socket(0), Options { queue_pairs: 3, ..Options::default() }).is_err());
}

#[test]
fn memory_is_added_and_removed_under_running_rings() {
    let (_directory, mut hub) = hub(2, 1);
    let mut guests = two_guests(&hub, Options::default());
    let regions = guests[0].ram().regions().to_vec();
    let file = guests[0].ram().file();
    for _ in 0..5 {
        check_traffic(&mut hub, &mut guests, 1);
        let connection = guests[0].connection.as_ref().expect("connected");
        // The rings do not lie in the first region.
        connection.rem_mem_reg(&regions[0]).expect("removed");
        assert!(hub.tale(0).told().link);
        connection.rem_mem_reg(&regions[1]).expect("removed");
        assert!(!hub.tale(0).told().link);
        connection.add_mem_reg(&regions[1], &file).expect("added");
        assert!(hub.tale(0).told().link);
        connection.add_mem_reg(&regions[0], &file).expect("added");
    }
    check_traffic(&mut hub, &mut guests, 1);
}

#[test]
fn memory_comes_as_a_table_too() {
    let (_directory, mut hub) = hub(2, 1);
    let protocol_features = PROTOCOL_ALL & !Protocol::CONFIGURE_MEM_SLOTS.bits();
    let mut guests = two_guests(&hub, Options { protocol_features, ..Options::default() });
    check_traffic(&mut hub, &mut guests, 1);
    let connection = guests[0].connection.as_ref().expect("connected");
    connection.set_mem_table(guests[0].ram().regions(), &guests[0].ram().file()).expect("set again");
    check_traffic(&mut hub, &mut guests, 1);
}

#[test]
fn a_reset_device_is_as_new() {
    let (_directory, mut hub) = hub(2, 1);
    let mut guests = two_guests(&hub, Options::default());
    for _ in 0..3 {
        let connection = guests[0].connection.as_ref().expect("connected");
        connection.set(FrontendReq::RESET_DEVICE, &[], &[]).expect("reset");
        assert!(!hub.tale(0).told().link);
        assert_eq!(connection.get(FrontendReq::GET_STATUS).expect("a status"), 0);
        guests[0].start().expect("started");
        check_traffic(&mut hub, &mut guests, 1);
    }
}

#[test]
fn a_frame_beyond_the_mtu_is_dropped() {
    let directory = tempdir().expect("a directory");
    let mut hub = Hub::with(directory.path(), 2, true, |settings| settings.mtu = Some(1400));
    let mut guests = two_guests(&hub, Options::default());
    let connection = guests[1].connection.as_ref().expect("connected");
    connection.set(FrontendReq::NET_SET_MTU, &1300u64.to_ne_bytes(), &[]).expect("accepted");
    guests[0].send(0, [&[0; 1314][..], &[0; 1315]]);
    let (count, transmitted) = hub.breathe();
    assert_eq!((count, transmitted.frames), (2, 1));
    assert_eq!(transmitted.drops[datapath::drops::TxDrop::TooLong as usize], 1);
    // The other guest did not say less than the operator did.
    guests[1].send(0, [&[0; 1414][..], &[0; 1415]]);
    assert_eq!(hub.breathe().1.frames, 1);
    assert_eq!(guests[0].receive(0).len(), 1);
}

#[test]
fn a_queue_is_kicked_only_when_armed() {
    let (_directory, mut hub) = hub(2, 1);
    let mut guests = two_guests(&hub, Options::default());
    hub.disarm();
    guests[0].transmitter(0).ring.kick.take();
    guests[0].send(0, [&[1; 60][..]]);
    assert_eq!(guests[0].transmitter(0).ring.kick.take(), 0);
    assert!(hub.arm(), "a frame came before the queue was armed");
    assert_eq!(hub.breathe().0, 1);
    assert!(!hub.arm());
    guests[0].send(0, [&[1; 60][..]]);
    assert_eq!(guests[0].transmitter(0).ring.kick.take(), 1);
    assert_eq!(hub.breathe().0, 1);
}

#[test]
fn a_queue_with_a_frame_in_it_is_never_left_to_sleep() {
    let (_directory, mut hub) = hub(1, 1);
    let mut guest = Guest::connect(&hub.socket(0), Options::default()).expect("a guest");
    guest.send(0, [&[1; 60][..]]);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let arming = scope.spawn(|| {
            let mut missed = 0;
            while !done.load(Ordering::Relaxed) {
                missed += u32::from(!hub.arm());
            }
            missed
        });
        let (call, connection) = (guest.transmitter(0).ring.call.file(), guest.connection.as_ref().expect("connected"));
        for _ in 0..10_000 {
            connection.set_vring_fd(FrontendReq::SET_VRING_CALL, 1, Some(&call)).expect("sent");
        }
        connection.sync().expect("the connection is open");
        done.store(true, Ordering::Relaxed);
        assert_eq!(arming.join().expect("no panic"), 0);
    });
}
