//! Front ends that mean harm. Each ends its own connection at most: another port goes on, and the port itself takes the next connection.

use std::fs::File;
use std::io::Write;
use std::os::unix::net::UnixStream;

use tempfile::tempdir;
use tests::driver::{Event, F_VERSION_1, Ram};
use tests::frontend::{Connection, Guest, Options, PROTOCOL_ALL, header};
use tests::hub::Hub;
use vhost::vhost_user::message::FrontendReq;
use vhost_backend::memory::{RegionSpec, RingAddresses};

/// Lets `attack` do its worst on a fresh connection, which must be closed then; and expects everything else to work after it.
fn expect_closed(attack: impl FnOnce(&Connection)) {
    let directory = tempdir().expect("a directory");
    let mut hub = Hub::new(directory.path(), 3, 1);
    let mut bystander = Guest::connect(&hub.socket(1), Options::default()).expect("a guest");
    let mut other = Guest::connect(&hub.socket(2), Options::default()).expect("a guest");
    attack(&Connection::connect(&hub.socket(0)).expect("a connection"));
    hub.tale(0).wait(|told| told.closed == 1);
    assert!(!hub.tale(0).told().link);
    bystander.send(0, [&[7; 60][..]]);
    hub.breathe();
    assert_eq!(other.receive(0), [[7; 60]]);
    assert_eq!((hub.tale(1).told().closed, hub.tale(2).told().closed), (0, 0));
    let mut late = Guest::connect(&hub.socket(0), Options::default()).expect("the port takes the next connection");
    bystander.send(0, [&[8; 60][..]]);
    hub.breathe();
    assert_eq!(late.receive(0), [[8; 60]]);
}

/// What comes before rings are set up. The memory is one region of 1 MiB at guest address 0.
fn negotiate(connection: &Connection) -> std::sync::Arc<Ram> {
    connection.get(FrontendReq::GET_FEATURES).expect("features");
    connection.set(FrontendReq::SET_PROTOCOL_FEATURES, &PROTOCOL_ALL.to_ne_bytes(), &[]).expect("sent");
    connection.set(FrontendReq::SET_FEATURES, &(F_VERSION_1 | 1 << 30).to_ne_bytes(), &[]).expect("sent");
    let ram = Ram::new(&[(0, 0x10_0000)]);
    connection.add_mem_reg(&ram.regions()[0], &ram.file()).expect("sent");
    ram
}

#[test]
fn rubbish_is_not_a_message() {
    for bytes in [
        header(0, 1, 0),
        header(45, 1, 0),
        header(u32::MAX, 1, 0),
        // No version, another version, a reply, reserved flags.
        header(1, 0, 0),
        header(1, 2, 0),
        header(1, 5, 0),
        header(1, 0x11, 0),
        header(1, 1, 4097),
        header(2, 1, usize::MAX),
        [0xff; 12],
    ] {
        expect_closed(|connection| drop(connection.send_raw(&bytes, &[])));
    }
}

#[test]
fn random_bytes_are_survived() {
    // Heads that are right and payloads that are not, for every request and many sizes.
    let directory = tempdir().expect("a directory");
    let hub = Hub::new(directory.path(), 1, 2);
    let mut seed = 1u64;
    let mut random = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let event = Event::default().file();
    for round in 0..2000 {
        let connection = Connection::connect(&hub.socket(0)).expect("a connection");
        negotiate(&connection);
        for _ in 0..4 {
            let size = [0, 4, 8, 8, 12, 40, 40, 41, 136][random() as usize % 9];
            let small = random() % 2 == 0;
            let payload: Vec<u8> = (0..size).map(|_| if small { random() as u8 & random() as u8 & 3 } else { random() as u8 }).collect();
            let request = random() as u32 % 46;
            let files: &[&File] = if random() % 2 == 0 { &[&event] } else { &[] };
            let flags = 1 | (random() as u32 & 8);
            let _ = connection.send_raw(&[&header(request, flags, payload.len())[..], &payload].concat(), files);
        }
        drop(connection);
        hub.tale(0).wait(|told| told.closed == round + 1);
    }
    Guest::connect(&hub.socket(0), Options::default()).expect("the port takes the next connection");
}

#[test]
fn a_partial_message_holds_nobody_up() {
    let directory = tempdir().expect("a directory");
    let mut hub = Hub::new(directory.path(), 3, 1);
    let mut guests = [1, 2].map(|port| Guest::connect(&hub.socket(port), Options::default()).expect("a guest"));
    for (round, len) in [5, 12, 15].into_iter().enumerate() {
        let connection = Connection::connect(&hub.socket(0)).expect("a connection");
        let message = [&header(FrontendReq::SET_FEATURES.into(), 1, 8)[..], &[0; 8]].concat();
        connection.send_raw(&message[..len], &[]).expect("sent");
        guests[0].stop().expect("stopped");
        guests[0].start().expect("started");
        guests[0].send(0, [&[7; 60][..]]);
        hub.breathe();
        assert_eq!(guests[1].receive(0), [[7; 60]]);
        // The rest comes late, and then the message counts.
        connection.send_raw(&message[len..], &[]).expect("sent");
        connection.sync().expect("the connection is open");
        drop(connection);
        hub.tale(0).wait(|told| told.closed == round + 1);
    }
}

#[test]
fn a_message_may_come_byte_by_byte() {
    let directory = tempdir().expect("a directory");
    let hub = Hub::new(directory.path(), 1, 1);
    let connection = Connection::connect(&hub.socket(0)).expect("a connection");
    for byte in [&header(FrontendReq::SET_VRING_ENABLE.into(), 1, 8)[..], &[0; 8], &header(FrontendReq::SET_OWNER.into(), 1, 0)].concat() {
        connection.send_raw(&[byte], &[]).expect("sent");
    }
    connection.sync().expect("the connection is open");
}

#[test]
fn an_end_in_the_midst_of_a_message_is_an_end() {
    expect_closed(|connection| connection.send_raw(&header(2, 1, 8), &[]).expect("sent"));
}

#[test]
fn descriptors_in_the_midst_of_a_message_end_the_connection() {
    let event = Event::default().file();
    for request in [FrontendReq::SET_VRING_KICK, FrontendReq::SET_VRING_ENABLE] {
        expect_closed(|connection| {
            let message = [&header(request.into(), 1, 8)[..], &[0; 8]].concat();
            connection.send_raw(&message[..16], &[]).expect("sent");
            connection.send_raw(&message[16..], &[&event]).expect("sent");
        });
    }
}

#[test]
fn replies_that_are_not_read_do_not_block() {
    expect_closed(|connection| {
        // Each asks for a reply of 20 bytes; the socket's buffer holds fewer than these.
        let many = header(FrontendReq::GET_FEATURES.into(), 1, 0).repeat(1000);
        while connection.send_raw(&many, &[]).is_ok() {}
    });
}

#[test]
fn a_flood_of_messages_leaves_others_their_turn() {
    let directory = tempdir().expect("a directory");
    let hub = Hub::new(directory.path(), 2, 1);
    let mut flood = UnixStream::connect(hub.socket(0)).expect("a connection");
    let end = flood.try_clone().expect("a descriptor");
    let messages = header(FrontendReq::SET_OWNER.into(), 1, 0).repeat(1000);
    let flooding = std::thread::spawn(move || while flood.write_all(&messages).is_ok() {});
    for _ in 0..20 {
        Guest::connect(&hub.socket(1), Options::default()).expect("a guest").stop().expect("stopped");
        hub.tale(1).wait(|told| !told.link);
    }
    assert_eq!(hub.tale(0).told().closed, 0);
    end.shutdown(std::net::Shutdown::Both).expect("a connection");
    flooding.join().expect("the flood ended");
}

#[test]
fn refused_messages_end_the_connection() {
    type Attack = fn(&Connection) -> std::io::Result<()>;
    let attacks: &[Attack] = &[
        // Features that were not offered.
        |c| c.set(FrontendReq::SET_FEATURES, &(1u64 << 34).to_ne_bytes(), &[]),
        |c| c.set(FrontendReq::SET_PROTOCOL_FEATURES, &(1u64 << 12).to_ne_bytes(), &[]),
        // Rings that are not there, or can't be.
        |c| c.set_vring(FrontendReq::SET_VRING_NUM, 2, 256),
        |c| c.set_vring(FrontendReq::SET_VRING_ENABLE, 2, 1),
        |c| c.set_vring(FrontendReq::SET_VRING_ENABLE, u32::MAX as usize, 1),
        |c| c.set_vring(FrontendReq::SET_VRING_ENABLE, 0, 2),
        |c| c.set_vring(FrontendReq::SET_VRING_NUM, 0, 0),
        |c| c.set_vring(FrontendReq::SET_VRING_NUM, 0, 3),
        |c| c.set_vring(FrontendReq::SET_VRING_NUM, 0, 0x10000),
        |c| c.set_vring(FrontendReq::SET_VRING_BASE, 0, 0x10000),
        |c| c.set_vring_addr(2, RingAddresses { descriptors: 0, available: 0, used: 0 }),
        |c| c.set_vring_addr(0, RingAddresses { descriptors: 8, available: 0, used: 0 }),
        |c| c.get_vring_base(7).map(drop),
        // Descriptors that are missing, or are not eventfds.
        |c| c.set(FrontendReq::SET_VRING_KICK, &0u64.to_ne_bytes(), &[]),
        |c| c.set(FrontendReq::SET_VRING_KICK, &0x100u64.to_ne_bytes(), &[&Event::default().file()]),
        |c| c.set(FrontendReq::SET_VRING_KICK, &2u64.to_ne_bytes(), &[&Event::default().file()]),
        |c| c.set_vring_fd(FrontendReq::SET_VRING_CALL, 0, Some(&UnixStream::pair()?.0.into_file())),
        |c| c.set_vring_fd(FrontendReq::SET_VRING_ERR, 0, Some(&File::open("/dev/null")?)),
        |c| c.set_vring_fd(FrontendReq::SET_VRING_KICK, 0, Some(&tempfile::tempfile()?)),
        |c| c.set(FrontendReq::SET_OWNER, &[], &[&Event::default().file()]),
        // Memory that is not there.
        |c| c.set(FrontendReq::SET_MEM_TABLE, &[1, 0, 0, 0, 0, 0, 0, 0], &[]),
        |c| c.set_mem_table(&[region(0, 0)], &tempfile::tempfile()?),
        |c| c.set_mem_table(&[region(0, 4096)], &tempfile::tempfile()?),
        |c| c.set_mem_table(&[region(u64::MAX - 100, 4096)], &Ram::new(&[(0, 4096)]).file()),
        |c| c.set_mem_table(&[region(0, 4096), region(4095, 4096)], &Ram::new(&[(0, 8192)]).file()),
        |c| c.set_mem_table(&vec![region(0, 1); 33], &Ram::new(&[(0, 4096)]).file()),
        |c| c.set(FrontendReq::ADD_MEM_REG, &[0; 40], &[]),
        |c| c.rem_mem_reg(&region(0, 4096)),
        |c| c.add_mem_reg(&region(0, 4096), &Ram::new(&[(0, 4096)]).file()),
        // What was not negotiated, or is not known.
        |c| c.set(FrontendReq::SET_LOG_BASE, &[0; 16], &[&tempfile::tempfile()?]),
        |c| c.set(FrontendReq::GET_INFLIGHT_FD, &[0; 24], &[]),
        |c| c.set(FrontendReq::GET_CONFIG, &[0; 12], &[]),
        |c| c.set(FrontendReq::IOTLB_MSG, &[0; 8], &[]),
        |c| c.set(FrontendReq::GPU_SET_SOCKET, &[], &[&UnixStream::pair()?.0.into_file()]),
        |c| c.set(FrontendReq::CHECK_DEVICE_STATE, &[], &[]).and_then(|()| c.set(FrontendReq::IOTLB_MSG, &[], &[])),
        // The wrong size.
        |c| c.set(FrontendReq::GET_FEATURES, &[0; 8], &[]),
        |c| c.set(FrontendReq::SET_FEATURES, &[], &[]),
        |c| c.set(FrontendReq::SET_STATUS, &[0; 4], &[]),
        |c| c.set(FrontendReq::SET_STATUS, &256u64.to_ne_bytes(), &[]),
        |c| c.set(FrontendReq::GET_STATUS, &[0; 8], &[]),
    ];
    for attack in attacks {
        expect_closed(|connection| {
            negotiate(connection);
            // Whatever the error: the connection may be closed already.
            let _ = attack(connection);
            let _ = connection.receive(FrontendReq::SET_OWNER);
        });
    }
}

#[test]
fn what_was_not_negotiated_is_refused() {
    for request in [FrontendReq::SEND_RARP, FrontendReq::NET_SET_MTU, FrontendReq::SET_STATUS] {
        expect_closed(|connection| drop(connection.set(request, &1500u64.to_ne_bytes(), &[])));
    }
    expect_closed(|connection| drop(connection.get(FrontendReq::GET_STATUS)));
    expect_closed(|connection| drop(connection.set(FrontendReq::RESET_DEVICE, &[], &[])));
}

#[test]
fn a_ring_outside_memory_does_not_run() {
    let directory = tempdir().expect("a directory");
    let hub = Hub::new(directory.path(), 1, 1);
    let connection = Connection::connect(&hub.socket(0)).expect("a connection");
    let ram = negotiate(&connection);
    // A blocking error descriptor that is full.
    let full = blocking_eventfd();
    (&full).write_all(&(u64::MAX - 1).to_ne_bytes()).expect("an empty eventfd");
    connection.set_vring_fd(FrontendReq::SET_VRING_ERR, 1, Some(&full)).expect("sent");
    connection.set_vring_fd(FrontendReq::SET_VRING_KICK, 1, Some(&Event::default().file())).expect("sent");
    connection.set_vring(FrontendReq::SET_VRING_NUM, 1, 256).expect("sent");
    connection.set_vring_addr(1, RingAddresses { descriptors: 0, available: 0, used: 0 }).expect("sent");
    connection.sync().expect("the connection is open");
    let start = ram.user(0);
    let (end, error) = (start + 0x10_0000, Event::default());
    connection.set_vring_fd(FrontendReq::SET_VRING_ERR, 0, Some(&error.file())).expect("sent");
    connection.set_vring(FrontendReq::SET_VRING_ENABLE, 0, 1).expect("sent");
    connection.set_vring(FrontendReq::SET_VRING_NUM, 0, 256).expect("sent");
    connection.set_vring_fd(FrontendReq::SET_VRING_KICK, 0, Some(&Event::default().file())).expect("sent");
    for (descriptors, available, used) in [
        (0, start, start),
        (start, 0, start),
        (start, start, !3),
        (end - 256 * 16 + 16, start, start),
        (start, end - 516, start),
        (start, start, end - 2052),
        (start - 16, start, start),
    ] {
        error.take();
        connection.set_vring_addr(0, RingAddresses { descriptors, available, used }).expect("sent");
        connection.sync().expect("the connection is open");
        assert!(!hub.tale(0).told().link, "{descriptors:#x} {available:#x} {used:#x}");
        assert_eq!(error.take(), 1, "the front end is told");
    }
    connection.set_vring_addr(0, RingAddresses { descriptors: end - 4096, available: end - 518, used: end - 2056 }).expect("sent");
    connection.sync().expect("the connection is open");
    assert!(hub.tale(0).told().link, "a ring that just fits");
}

#[test]
fn nothing_is_left_of_the_last_front_end() {
    let directory = tempdir().expect("a directory");
    let hub = Hub::new(directory.path(), 1, 1);
    let mut guest = Guest::connect(&hub.socket(0), Options::default()).expect("a guest");
    guest.disconnect();
    hub.tale(0).wait(|told| told.closed == 1);
    // The same memory, features and kicks, but not a word of where the rings are.
    let connection = Connection::connect(&hub.socket(0)).expect("a connection");
    negotiate(&connection);
    let ram = guest.ram();
    connection.add_mem_reg(&ram.regions()[1], &ram.file()).expect("sent");
    for index in 0..2 {
        connection.set_vring(FrontendReq::SET_VRING_ENABLE, index, 1).expect("sent");
        connection.set_vring_fd(FrontendReq::SET_VRING_KICK, index, Some(&Event::default().file())).expect("sent");
    }
    connection.sync().expect("the connection is open");
    assert!(!hub.tale(0).told().link);
    assert!(matches!(hub.tale(0).told().kicks[..], [None]));
}

#[test]
fn a_full_eventfd_stalls_nobody() {
    let directory = tempdir().expect("a directory");
    let mut hub = Hub::new(directory.path(), 2, 1);
    let mut guests = [0, 1].map(|port| Guest::connect(&hub.socket(port), Options::default()).expect("a guest"));
    let full = blocking_eventfd();
    guests[1].connection.as_ref().expect("connected").set_vring_fd(FrontendReq::SET_VRING_CALL, 0, Some(&full)).expect("sent");
    guests[1].connection.as_ref().expect("connected").sync().expect("the connection is open");
    (&full).write_all(&(u64::MAX - 1).to_ne_bytes()).expect("an empty eventfd");
    guests[0].send(0, [&[7; 60][..]]);
    assert_eq!(hub.breathe().1.frames, 1);
    assert_eq!(guests[1].receive(0), [[7; 60]]);
}

fn blocking_eventfd() -> File {
    File::from(rustix::event::eventfd(0, rustix::event::EventfdFlags::empty()).expect("an eventfd"))
}

fn region(guest_address: u64, size: u64) -> RegionSpec {
    RegionSpec { guest_address, size, user_address: 0x10_0000_0000 + (guest_address & 0xffff), offset: 0 }
}

/// A socket as a file, to be passed where no socket belongs.
trait IntoFile {
    fn into_file(self) -> File;
}

impl IntoFile for UnixStream {
    fn into_file(self) -> File {
        File::from(std::os::fd::OwnedFd::from(self))
    }
}
