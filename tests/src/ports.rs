//! The vhost-user ports of a switch under test, and their control loop, which runs until they are dropped.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use datapath::port::{Output, PortNo, RxQueue};
use rustix::event::epoll::{self, EventData, EventFlags};
use vhost_backend::{Events, Port, Progress, Settings};

use crate::driver::Event;

/// What a port has told its owner so far.
#[derive(Debug, Default)]
pub struct Told {
    /// Whether the link is up.
    pub link: bool,
    /// How often it went up.
    pub ups: usize,
    /// The kick of each receive queue that has a ring; the inner option is missing if the front end gave none.
    pub kicks: Vec<Option<Option<Arc<OwnedFd>>>>,
    /// The addresses that moved here.
    pub announced: Vec<[u8; 6]>,
    /// How many connections ended.
    pub closed: usize,
}

/// What a port has told, and a way to wait for more.
#[derive(Debug, Default)]
pub struct Tale {
    told: Mutex<Told>,
    more: Condvar,
}

impl Tale {
    fn add(&self, change: impl FnOnce(&mut Told)) {
        change(&mut self.told());
        self.more.notify_all();
    }

    /// All of it.
    pub fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().expect("no test holds it while it panics")
    }

    /// Waits until it holds, half a minute at most.
    pub fn wait(&self, holds: impl Fn(&Told) -> bool) {
        let (told, timeout) = self
            .more
            .wait_timeout_while(self.told(), Duration::from_secs(30), |told| !holds(told))
            .expect("no test holds it while it panics");
        assert!(!timeout.timed_out(), "waited in vain, while {:?}", *told);
    }
}

struct Recorder(Arc<Tale>);

impl Events for Recorder {
    fn link(&mut self, up: bool) {
        self.0.add(|told| {
            told.link = up;
            told.ups += usize::from(up);
        });
    }

    fn rx_started(&mut self, queue: usize, kick: Option<Arc<OwnedFd>>) {
        self.0.add(|told| {
            let kicks = told.kicks.len().max(queue + 1);
            told.kicks.resize(kicks, None);
            assert!(told.kicks[queue].replace(kick).is_none(), "rx queue {queue} was started twice");
        });
    }

    fn rx_stopped(&mut self, queue: usize) {
        self.0.add(|told| assert!(told.kicks[queue].take().is_some(), "rx queue {queue} was stopped, but did not run"));
    }

    fn announce(&mut self, mac: [u8; 6]) {
        self.0.add(|told| told.announced.push(mac));
    }
}

struct Member {
    port: Mutex<Port>,
    listener: Option<UnixListener>,
    tale: Arc<Tale>,
}

/// See the module.
pub struct Ports {
    members: Arc<Vec<Member>>,
    epoll: Arc<OwnedFd>,
    stop: Arc<Event>,
    control: Option<JoinHandle<()>>,
    directory: PathBuf,
}

const STOP: u64 = u64::MAX;

impl Ports {
    /// `ports` ports, which listen in `directory` or are to be given connections, with settings that `adjust` changes.
    pub fn new(directory: &Path, ports: usize, listen: bool, adjust: impl Fn(&mut Settings)) -> Self {
        let epoll = Arc::new(epoll::create(epoll::CreateFlags::CLOEXEC).expect("an epoll descriptor"));
        let stop = Arc::new(Event::default());
        epoll::add(&*epoll, stop.file(), EventData::new_u64(STOP), EventFlags::IN).expect("the loop's own eventfd");
        let members = (0..ports).map(|index| {
            let mut settings = Settings { name: format!("vm{index}"), number: PortNo(index as u32 + 1), queue_pairs: 1, mtu: None };
            adjust(&mut settings);
            let tale = Arc::<Tale>::default();
            let port = Port::new(settings, Box::new(Recorder(tale.clone())));
            let listener = listen.then(|| {
                let path = socket(directory, index);
                // What a switch that was killed leaves behind.
                let _ = std::fs::remove_file(&path);
                let listener = UnixListener::bind(path).expect("a listening socket");
                listener.set_nonblocking(true).expect("a socket that does not block");
                epoll::add(&*epoll, &listener, EventData::new_u64(2 * index as u64), EventFlags::IN).expect("a listener to be watched");
                listener
            });
            Member { port: Mutex::new(port), listener, tale }
        });
        let members: Arc<Vec<Member>> = Arc::new(members.collect());
        let control = std::thread::spawn({
            let (members, epoll) = (members.clone(), epoll.clone());
            move || control(&members, &epoll)
        });
        Self { members, epoll, stop, control: Some(control), directory: directory.into() }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.members.len()
    }

    /// Where a port listens.
    pub fn socket(&self, port: usize) -> PathBuf {
        socket(&self.directory, port)
    }

    /// What a port has told.
    pub fn tale(&self, port: usize) -> &Tale {
        &self.members[port].tale
    }

    /// A port, while its control loop waits.
    pub fn port(&self, port: usize) -> MutexGuard<'_, Port> {
        self.members[port].port.lock().expect("the control loop did not panic")
    }

    /// The receive queues of a port; to be asked for once.
    pub fn rx_queues(&self, port: usize) -> Vec<Box<dyn RxQueue>> {
        self.port(port).rx_queues()
    }

    /// The transmit side of a port.
    pub fn output(&self, port: usize) -> Arc<dyn Output> {
        self.port(port).output()
    }

    /// Gives a port a connection.
    pub fn attach(&self, port: usize, stream: UnixStream) -> bool {
        let mut it = self.port(port);
        let attached = it.attach(stream).expect("a usable socket");
        if attached {
            watch(&self.epoll, port, &it);
        }
        attached
    }
}

impl Drop for Ports {
    fn drop(&mut self) {
        self.stop.signal();
        let control = self.control.take().expect("dropped once").join();
        if !std::thread::panicking() {
            control.expect("the control loop did not panic");
        }
    }
}

fn socket(directory: &Path, port: usize) -> PathBuf {
    directory.join(format!("vm{port}.sock"))
}

fn watch(epoll: &OwnedFd, index: usize, port: &Port) {
    let connection = port.connection().expect("a connection has begun");
    let data = EventData::new_u64(2 * index as u64 + 1);
    epoll::add(epoll, connection, data, EventFlags::IN | EventFlags::ET).expect("a connection to be watched");
}

fn control(members: &[Member], epoll: &OwnedFd) {
    let mut events = Vec::with_capacity(16);
    let mut more = Vec::new();
    loop {
        let patience = if more.is_empty() { None } else { Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 }) };
        events.clear();
        epoll::wait(epoll, rustix::buffer::spare_capacity(&mut events), patience).expect("events");
        let ready: Vec<u64> = events.iter().map(|event| event.data.u64()).chain(std::mem::take(&mut more)).collect();
        for event in ready {
            if event == STOP {
                return;
            }
            let (index, member) = (event as usize / 2, &members[event as usize / 2]);
            let mut port = member.port.lock().expect("no test panics while it holds the port");
            if event % 2 == 0 {
                let listener = member.listener.as_ref().expect("the port listens");
                if port.accept(listener).expect("a connection") {
                    watch(epoll, index, &port);
                }
                continue;
            }
            match port.on_readable() {
                Progress::Idle => {}
                Progress::More => more.push(event),
                Progress::Closed(session) => {
                    epoll::delete(epoll, session.as_fd()).expect("it was watched");
                    drop(session);
                    member.tale.add(|told| told.closed += 1);
                }
            }
        }
    }
}
