//! Many flows, told apart by their numbers: UDP over IPv4, which says in its payload what it is.

use etherparse::PacketBuilder;

use crate::frontend::Guest;
use crate::process::{PATIENCE, until};

/// Where the payload begins.
const PAYLOAD: usize = 14 + 20 + 8;
/// The length of the shortest frame.
pub const SHORTEST: usize = PAYLOAD + 16;

/// A frame of `len` bytes of a flow, with a number of its own. The flows of up to 65,536 numbers differ in their source port, others in their addresses, too.
pub fn udp(flow: u32, serial: u64, len: usize) -> Vec<u8> {
    let mut payload = vec![0; len.max(SHORTEST) - PAYLOAD];
    payload[..8].copy_from_slice(&u64::from(flow).to_be_bytes());
    payload[8..16].copy_from_slice(&serial.to_be_bytes());
    let source = [10, 0, (flow >> 24) as u8, (flow >> 16) as u8];
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]).ipv4(source, [10, 1, 0, 1], 64);
    builder.udp(flow as u16, 2000).write(&mut frame, &payload).expect("a vector takes all");
    frame
}

/// The flow that a frame of [`udp`] is of, and its number.
pub fn numbers(frame: &[u8]) -> (u32, u64) {
    let number = |at: usize| u64::from_be_bytes(frame[at..at + 8].try_into().expect("eight bytes"));
    (number(PAYLOAD) as u32, number(PAYLOAD + 8))
}

/// Sends one frame of each of `flows` flows, and says which of `receivers` got it; `None` if none did. It is up to the caller that nothing else is under way.
///
/// # Panics
///
/// Panics if a frame comes twice.
pub fn destinations(sender: &mut Guest, receivers: &mut [Guest], flows: u32) -> Vec<Option<usize>> {
    let mut found = vec![None; flows as usize];
    let mut take = |sender: &mut Guest| {
        // A buffer is given back when its frame has been sent.
        all_taken(sender);
        for (at, receiver) in receivers.iter_mut().enumerate() {
            for frame in receiver.receive(0) {
                let (flow, _) = numbers(&frame);
                assert_eq!(found[flow as usize].replace(at), None, "flow {flow} came twice");
            }
        }
    };
    for flow in 0..flows {
        let frame = udp(flow, 0, SHORTEST);
        until(PATIENCE, "the switch takes a frame", || (sender.send(0, [&frame[..]]) == 1).then_some(()));
        if flow % 64 == 0 {
            // No receiver's ring runs over.
            take(sender);
        }
    }
    take(sender);
    found
}

/// Waits until the switch has given back all that a guest sent through its first queue.
pub fn all_taken(sender: &mut Guest) {
    let transmitter = sender.transmitter(0);
    let size = usize::from(transmitter.ring.size());
    until(PATIENCE, "the switch takes all frames", || {
        transmitter.reclaim();
        (transmitter.ring.free() == size).then_some(())
    });
}
