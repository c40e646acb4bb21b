//! A back end of other people's making: the `vhost-user-backend` and `virtio-queue` crates, with a device that sends every frame back to its guest.
//!
//! What passes here with the front end of [`crate::frontend`] shows that the front end is right, and so that a failure with our back end is ours.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use vhost::vhost_user::Listener;
use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;
use vhost_user_backend::{VhostUserBackend, VhostUserDaemon, VringMutex, VringT};
use virtio_queue::{QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier};

use crate::driver::{F_EVENT_IDX, F_INDIRECT, F_MRG_RXBUF, F_VERSION_1, NetHeader};
use crate::frontend::F_PROTOCOL_FEATURES;

type Memory = GuestMemoryAtomic<GuestMemoryMmap<()>>;

/// A device of one queue pair.
#[derive(Default)]
struct Reflector {
    memory: Mutex<Option<Memory>>,
}

impl Reflector {
    /// Moves frames from the guest's transmit ring to its receive ring while there are frames and buffers.
    fn reflect(&self, receive: &VringMutex, transmit: &VringMutex) -> io::Result<()> {
        let Some(memory) = self.memory.lock().expect("no panic").clone() else { return Ok(()) };
        let memory = memory.memory();
        let mut frames = 0;
        loop {
            let Some(frame) = transmit.get_mut().get_queue_mut().pop_descriptor_chain(memory.clone()) else { break };
            let Some(room) = receive.get_mut().get_queue_mut().pop_descriptor_chain(memory.clone()) else {
                transmit.get_mut().get_queue_mut().go_to_previous_position();
                break;
            };
            let mut bytes = Vec::new();
            for descriptor in frame.clone().readable() {
                let start = bytes.len();
                bytes.resize(start + descriptor.len() as usize, 0);
                memory.read_slice(&mut bytes[start..], descriptor.addr()).map_err(io::Error::other)?;
            }
            bytes[..NetHeader::LEN].copy_from_slice(&NetHeader { num_buffers: 1, ..NetHeader::default() }.to_bytes());
            let mut rest = &bytes[..];
            for descriptor in room.clone().writable() {
                let (now, later) = rest.split_at(rest.len().min(descriptor.len() as usize));
                memory.write_slice(now, descriptor.addr()).map_err(io::Error::other)?;
                rest = later;
            }
            transmit.add_used(frame.head_index(), 0).map_err(io::Error::other)?;
            receive.add_used(room.head_index(), (bytes.len() - rest.len()) as u32).map_err(io::Error::other)?;
            frames += 1;
        }
        for vring in [receive, transmit] {
            if frames > 0 && vring.needs_notification().map_err(io::Error::other)? {
                vring.signal_used_queue()?;
            }
        }
        Ok(())
    }
}

impl VhostUserBackend for Reflector {
    type Bitmap = ();
    type Vring = VringMutex;

    fn num_queues(&self) -> usize {
        2
    }

    fn max_queue_size(&self) -> usize {
        1024
    }

    fn features(&self) -> u64 {
        F_VERSION_1 | F_MRG_RXBUF | F_EVENT_IDX | F_INDIRECT | F_PROTOCOL_FEATURES
    }

    fn protocol_features(&self) -> Protocol {
        Protocol::MQ | Protocol::REPLY_ACK | Protocol::CONFIGURE_MEM_SLOTS
    }

    fn set_event_idx(&self, _enabled: bool) {}

    fn update_memory(&self, memory: Memory) -> io::Result<()> {
        *self.memory.lock().expect("no panic") = Some(memory);
        Ok(())
    }

    fn exit_event(&self, _thread: usize) -> Option<(EventConsumer, EventNotifier)> {
        Some(new_event_consumer_and_notifier(EventFlag::NONBLOCK).expect("an eventfd"))
    }

    fn handle_event(&self, _event: u16, _set: EventSet, vrings: &[VringMutex], _thread: usize) -> io::Result<()> {
        let [receive, transmit] = vrings else { return Err(io::Error::other("the device has two rings")) };
        // Asking for notifications may find that one was missed.
        loop {
            self.reflect(receive, transmit)?;
            let more = transmit.enable_notification().map_err(io::Error::other)?;
            let room = receive.enable_notification().map_err(io::Error::other)?;
            if !(more && room) {
                return Ok(());
            }
        }
    }
}

/// The daemon, which serves one connection. Ends when that does.
pub struct Reference(Option<JoinHandle<()>>);

impl Reference {
    /// Listens at `path`.
    pub fn listen(path: &Path) -> Self {
        let mut listener = Listener::new(path, true).expect("a listening socket");
        Self(Some(std::thread::spawn(move || {
            let memory = GuestMemoryAtomic::new(GuestMemoryMmap::<()>::new());
            let mut daemon = VhostUserDaemon::new("reference".into(), Arc::new(Reflector::default()), memory).expect("a daemon");
            daemon.start(&mut listener).expect("a connection");
            // How the connection ends is for the tests to see from its other end.
            let _ = daemon.wait();
            daemon.get_epoll_handlers().iter().for_each(|handler| handler.send_exit_event());
        })))
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        let ended = self.0.take().expect("dropped once").join();
        if !std::thread::panicking() {
            ended.expect("the daemon did not panic");
        }
    }
}
