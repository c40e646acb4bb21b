//! The frames that the guests send: one frame that all share, and the bytes in which flows differ.

use ::tests::driver::NetHeader;
use ::tests::random::Random;

/// How the flows of a workload differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vary {
    /// Source and destination address and both ports, as among many services behind a router: 256 source and 256 destination addresses and eight
    /// destination ports.
    Services,
    /// Both ports, in a way that a flow's number can be read from them.
    Ports,
    /// Flow number N is of class N modulo this number, which is the lowest bit that is set in its destination and source address. Within a class, the higher
    /// bits differ, and the ports.
    Classes(u32),
}

/// In which order flows come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Order {
    /// One after the other.
    InTurn,
    /// Each as likely as any other.
    Random,
    /// The Nth with a probability proportional to 1/N.
    Zipf,
    /// Flows that there were not before, each sent so many times: a row of flows, then the same row again, then the next.
    New(u32),
}

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Workload {
    /// How many flows, of which [`Order::New`] takes no notice.
    pub flows: u32,
    /// How they differ.
    pub vary: Vary,
    /// In which order they come.
    pub order: Order,
    /// The length of a frame in bytes, without a checksum.
    pub size: usize,
    /// Whether frames are TCP segments to be cut up by whoever sends them on a wire (TSO).
    pub tso: bool,
}

impl Workload {
    /// One flow of 64-byte frames.
    pub const PLAIN: Self = Self { flows: 1, vary: Vary::Services, order: Order::InTurn, size: 64, tso: false };
}

/// Which of the two guests sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the first port to the second.
    Forth,
    /// From the second port to the first.
    Back,
}

/// The Ethernet addresses of the first and the second guest.
pub const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];

/// Where the bytes are in which flows differ: the header checksum and the addresses of IPv4, the ports, and two bytes more which do not.
pub const FLOW_AT: usize = 24;
/// Those bytes.
pub type Flow = [u8; 16];

const MARK: u32 = 0x5649_524e;
const SERVICES: [u16; 8] = [80, 443, 8080, 53, 5432, 6379, 9092, 3306];

/// The unvarying bytes of a workload's frames.
#[derive(Clone, Debug)]
pub struct Template {
    /// What the guest leaves to be done.
    pub header: NetHeader,
    /// The first flow's frame.
    pub frame: Vec<u8>,
    mark_at: usize,
}

impl Template {
    /// The frames of a workload that are sent in a direction.
    pub fn new(workload: &Workload, direction: Direction) -> Self {
        let [from, to] = match direction {
            Direction::Forth => [0, 1],
            Direction::Back => [1, 0],
        };
        let len = |before: usize| ((workload.size - before) as u16).to_be_bytes();
        let mut frame =
            [&MACS[to][..], &MACS[from], &[8, 0, 0x45, 0], &len(14), &[0; 4], &[64, if workload.tso { 6 } else { 17 }]].concat();
        frame.resize(FLOW_AT, 0);
        frame.extend(flow(workload, 0, direction));
        if workload.tso {
            // Sequence numbers of no meaning, a header of 20 bytes, ACK, a window.
            frame.extend([0; 6]);
            frame.extend([0x50, 0x10, 4, 0, 0, 0, 0, 0]);
        } else {
            frame[38..40].copy_from_slice(&len(34));
            frame.extend([0, 0]);
        }
        let mark_at = frame.len();
        frame.extend(MARK.to_ne_bytes());
        frame.resize(workload.size, 0);
        let mut header = NetHeader::default();
        if workload.tso {
            let pseudo = [&frame[26..34], &[0, 6], &len(34)].concat();
            let sum = fold(words(&pseudo));
            frame[50..52].copy_from_slice(&sum.to_be_bytes());
            header = NetHeader { flags: 1, gso_type: 1, hdr_len: 54, gso_size: 1448, csum_start: 34, csum_offset: 16, num_buffers: 0 };
        }
        Self { header, frame, mark_at }
    }

    /// Where a frame says that it is one of ours, and those four bytes.
    pub fn mark(&self) -> (usize, [u8; 4]) {
        (self.mark_at, MARK.to_ne_bytes())
    }

    /// Where a frame may carry eight bytes of whatever its sender likes: not in the line of the flow, which is written for every frame.
    pub fn stamp_at(&self) -> usize {
        self.mark_at + 10
    }
}

fn words(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|two| u32::from(u16::from_be_bytes([two[0], two[1]]))).sum()
}

fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    (sum + (sum >> 16)) as u16
}

/// The bytes of a flow, by its number.
pub fn flow(workload: &Workload, number: u32, direction: Direction) -> Flow {
    let scattered = number.wrapping_mul(0x9e37_79b1);
    let (mut from, mut to, mut from_port, mut to_port) = match workload.vary {
        Vary::Services => {
            let from_port = 10_000 + ((scattered >> 16) % 40_000) as u16;
            let service = SERVICES[((number ^ number >> 8 ^ number >> 16) & 7) as usize];
            (0x0a00_0001 + (number & 0xff), 0x0a01_0001 + (number & 0xff00), from_port ^ (number >> 16) as u16, service)
        }
        // The factor is odd, so no two numbers become one.
        Vary::Ports => (0x0a00_0001, 0x0a01_0001, (scattered >> 16) as u16, scattered as u16),
        Vary::Classes(classes) => {
            let (class, within) = (number % classes, (number / classes).wrapping_mul(0x9e37_79b1));
            let higher = u64::from(within).wrapping_mul(0x9e37_79b9_7f4a_7c15) << class << 1;
            let bits = 1 << class | higher;
            ((bits >> 32) as u32, bits as u32, (within >> 16) as u16, within as u16)
        }
    };
    if direction == Direction::Back {
        (from, to, from_port, to_port) = (to, from, to_port, from_port);
    }
    let mut bytes = [0; 16];
    bytes[2..6].copy_from_slice(&from.to_be_bytes());
    bytes[6..10].copy_from_slice(&to.to_be_bytes());
    bytes[10..12].copy_from_slice(&from_port.to_be_bytes());
    bytes[12..14].copy_from_slice(&to_port.to_be_bytes());
    let protocol = if workload.tso { 6 } else { 17 };
    let sum = fold(0x4500 + (workload.size as u32 - 14) + (64 << 8 | protocol) + words(&bytes[2..10]));
    bytes[..2].copy_from_slice(&(!sum).to_be_bytes());
    if !workload.tso {
        bytes[14..].copy_from_slice(&(workload.size as u16 - 34).to_be_bytes());
    }
    bytes
}

/// The flows of a workload, in the order in which they are sent: without an end, but it may repeat after four million frames.
#[derive(Debug)]
pub enum Flows {
    /// These, again and again. A list in the order of sending, so that it is read ahead by the CPU.
    Listed(Vec<Flow>, usize),
    /// Rows of new flows, each row this many times; the last number is the next frame's.
    New(Workload, Direction, u32, u32),
}

impl Flows {
    /// The longest list.
    const LONGEST: usize = 1 << 22;
    /// New flows in a row. More than a switch takes at once: it has seen the whole row before any of it comes again.
    const ROW: u32 = 256;

    /// The flows of a workload that are sent in a direction.
    pub fn new(workload: &Workload, direction: Direction) -> Self {
        let count = workload.flows.max(1);
        let len = (4 * count as usize).clamp(1 << 16, Self::LONGEST);
        let mut random = Random::new(42);
        let numbers: Vec<u32> = match workload.order {
            Order::New(times) => return Self::New(*workload, direction, times, 0),
            Order::InTurn => (0..count).collect(),
            Order::Random => (0..len).map(|_| random.below(count.into()) as u32).collect(),
            Order::Zipf => {
                let zipf = Zipf::new(count);
                (0..len).map(|_| scattered(zipf.rank(random.below(1 << 32) as f64 / (1u64 << 32) as f64), count)).collect()
            }
        };
        Self::Listed(numbers.into_iter().map(|number| flow(workload, number, direction)).collect(), 0)
    }

    /// The flow of the next frame.
    #[inline(always)]
    pub fn next_flow(&mut self) -> Flow {
        match self {
            Self::Listed(flows, at) => {
                let flow = flows[*at];
                *at += 1;
                if *at == flows.len() {
                    *at = 0;
                }
                flow
            }
            Self::New(workload, direction, times, next) => {
                let frame = *next;
                *next = frame.wrapping_add(1);
                flow(workload, frame / (Self::ROW * *times) * Self::ROW + frame % Self::ROW, *direction)
            }
        }
    }
}

/// Spreads the popular flows over the addresses.
fn scattered(rank: u32, count: u32) -> u32 {
    (u64::from(rank) * 0x9e37_79b1 % u64::from(count)) as u32
}

/// Zipf's distribution with exponent 1.
struct Zipf {
    /// The probability of this rank or a lower one.
    cumulated: Vec<f64>,
}

impl Zipf {
    fn new(ranks: u32) -> Self {
        let mut sum = 0.0;
        let mut cumulated: Vec<f64> = (1..=ranks)
            .map(|rank| {
                sum += 1.0 / f64::from(rank);
                sum
            })
            .collect();
        cumulated.iter_mut().for_each(|p| *p /= sum);
        Self { cumulated }
    }

    /// The rank, from 0, that a number from 0 to 1 stands for.
    fn rank(&self, p: f64) -> u32 {
        self.cumulated.partition_point(|&up_to| up_to < p).min(self.cumulated.len() - 1) as u32
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn workload(vary: Vary, order: Order, flows: u32) -> Workload {
        Workload { flows, vary, order, ..Workload::PLAIN }
    }

    #[test]
    fn frames_are_right() {
        for (size, tso) in [(64, false), (1514, false), (65000, true)] {
            let template = Template::new(&Workload { size, tso, ..Workload::PLAIN }, Direction::Forth);
            let frame = &template.frame;
            assert_eq!(frame.len(), size);
            let sliced = etherparse::SlicedPacket::from_ethernet(frame).unwrap();
            let Some(etherparse::NetSlice::Ipv4(ip)) = sliced.net else { panic!("no IPv4") };
            assert_eq!(ip.header().header_checksum(), ip.header().to_header().calc_header_checksum());
            assert_eq!(usize::from(ip.header().total_len()), size - 14);
            match sliced.transport {
                Some(etherparse::TransportSlice::Udp(udp)) if !tso => assert_eq!(usize::from(udp.length()), size - 34),
                Some(etherparse::TransportSlice::Tcp(tcp)) if tso => {
                    // What the guest left to be done: the sum from `csum_start` on.
                    let completed = !fold(words(&frame[34..]));
                    let expected = tcp.to_header().calc_checksum_ipv4(&ip.header().to_header(), tcp.payload()).unwrap();
                    assert_eq!(completed, expected);
                }
                other => panic!("{other:?}"),
            }
            let (at, mark) = template.mark();
            assert_eq!(frame[at..at + 4], mark);
            assert!(template.stamp_at() + 8 <= size);
        }
    }

    #[test]
    fn a_flow_s_bytes_keep_the_checksum_right() {
        let workload = workload(Vary::Services, Order::InTurn, 1000);
        let mut frame = Template::new(&workload, Direction::Back).frame;
        frame[FLOW_AT..FLOW_AT + 16].copy_from_slice(&flow(&workload, 777, Direction::Back));
        assert_eq!(fold(words(&frame[14..34])), 0xffff);
    }

    #[test]
    fn flows_are_as_many_as_asked_for() {
        for (vary, count) in
            [(Vary::Services, 1_000_000), (Vary::Ports, 1_000_000), (Vary::Classes(64), 1_000_000), (Vary::Classes(8), 100_000)]
        {
            let workload = workload(vary, Order::InTurn, count);
            let different: HashSet<_> = (0..count).map(|number| flow(&workload, number, Direction::Forth)).collect();
            assert_eq!(different.len(), count as usize, "{vary:?}");
        }
    }

    #[test]
    fn a_class_has_a_lowest_bit() {
        let workload = workload(Vary::Classes(64), Order::InTurn, 1000);
        for number in 0..1000 {
            let flow = flow(&workload, number, Direction::Forth);
            let addresses = u64::from_be_bytes(flow[2..10].try_into().unwrap());
            assert_eq!(addresses.trailing_zeros(), number % 64);
        }
    }

    #[test]
    fn orders_are_what_they_say() {
        let mut in_turn = Flows::new(&workload(Vary::Ports, Order::InTurn, 3), Direction::Forth);
        let sent: Vec<_> = (0..6).map(|_| in_turn.next_flow()).collect();
        assert_eq!(sent[..3], sent[3..]);
        assert_eq!(HashSet::<_>::from_iter(&sent).len(), 3);

        let mut new = Flows::new(&workload(Vary::Ports, Order::New(1), 1), Direction::Forth);
        assert_eq!((0..100_000).map(|_| new.next_flow()).collect::<HashSet<_>>().len(), 100_000);

        let mut twice = Flows::new(&workload(Vary::Ports, Order::New(2), 1), Direction::Forth);
        let mut row = || -> Vec<_> { (0..Flows::ROW).map(|_| twice.next_flow()).collect() };
        let rows = [row(), row(), row(), row()];
        assert_eq!((&rows[0], &rows[2]), (&rows[1], &rows[3]));
        assert_eq!(rows.concat().iter().collect::<HashSet<_>>().len(), 2 * Flows::ROW as usize);

        let Flows::Listed(random, _) = Flows::new(&workload(Vary::Ports, Order::Random, 1000), Direction::Forth) else { panic!() };
        assert_eq!(HashSet::<_>::from_iter(&random).len(), 1000);
    }

    #[test]
    fn zipf_s_first_flow_is_the_most_popular_by_its_share() {
        let zipf = Zipf::new(1000);
        let harmonic: f64 = (1..=1000).map(|n| 1.0 / f64::from(n)).sum();
        let mut random = Random::new(1);
        let mut counts = [0u32; 1000];
        for _ in 0..100_000 {
            counts[zipf.rank(random.below(1 << 32) as f64 / (1u64 << 32) as f64) as usize] += 1;
        }
        for rank in [0, 1, 9] {
            let expected = 100_000.0 / harmonic / (rank as f64 + 1.0);
            assert!((f64::from(counts[rank]) - expected).abs() < 6.0 * expected.sqrt(), "rank {rank}: {} not {expected}", counts[rank]);
        }
        assert_eq!((zipf.rank(0.0), zipf.rank(1.0)), (0, 999));
    }
}
