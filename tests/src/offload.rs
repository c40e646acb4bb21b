//! Offloads in the plainest way: checksums left undone and completed, frames to be segmented and segments put together.

use etherparse::PacketBuilder;

use crate::driver::NetHeader;
use crate::linear::{correct_checksums, ip, sum, transport};
use crate::random::Random;

/// Computes a checksum that was left undone.
pub fn complete(bytes: &mut [u8], start: usize, offset: usize) {
    let checksum = !sum(&bytes[start..], 0);
    bytes[start + offset..start + offset + 2].copy_from_slice(&checksum.to_be_bytes());
}

/// The frame with the one form of a checksum that has two.
pub fn canonical(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some((start, offset)) = transport(&bytes)
        && let Some(checksum) = bytes.get_mut(start + offset..start + offset + 2)
        && checksum == [0xff, 0xff]
    {
        checksum.fill(0);
    }
    bytes
}

/// Replaces the transport checksum by the sum of the pseudo header, and says where.
pub fn undo_checksum(bytes: &mut [u8]) -> Option<(usize, usize)> {
    let (start, offset) = transport(bytes)?;
    // The sum of all words is zero, so without the transport header and payload what is left is the negative of theirs.
    bytes[start + offset..start + offset + 2].fill(0);
    let all = sum(&bytes[start..], 0);
    let mut right = bytes.to_vec();
    correct_checksums(&mut right);
    let checksum = u16::from_be_bytes([right[start + offset], right[start + offset + 1]]);
    let pseudo = sum(&[(!checksum).to_be_bytes(), (!all).to_be_bytes()].concat(), 0);
    bytes[start + offset..start + offset + 2].copy_from_slice(&pseudo.to_be_bytes());
    Some((start, offset))
}

/// A TCP frame that only a guest with segmentation offload can send, with one of these TTLs.
pub fn tcp(payload: &[u8], ttls: &[u8], random: &mut Random) -> Vec<u8> {
    let mut frame = Vec::new();
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, random.below(4) as u8]);
    let ttl = random.one_of(ttls);
    let written = if random.once_in(2) {
        ethernet.ipv4([10, 0, 0, 1], [10, 0, 0, 2], ttl).tcp(1000, 80, 1, 2).ack(7).psh().write(&mut frame, payload)
    } else {
        ethernet.ipv6([0xfd; 16], [0xfe; 16], ttl).tcp(1000, 80, 1, 2).ack(7).psh().write(&mut frame, payload)
    };
    written.expect("a vector takes all");
    frame
}

/// The frame with the checksum that its sender left to its receiver.
pub fn completed(header: NetHeader, mut bytes: Vec<u8>) -> Vec<u8> {
    if header.flags & 1 != 0 {
        complete(&mut bytes, header.csum_start.into(), header.csum_offset.into());
    }
    bytes
}

/// Where the payload of a TCP or UDP frame begins, and the serial number there.
pub fn payload(bytes: &[u8]) -> (usize, Option<u64>) {
    let start = transport(bytes).map_or(bytes.len(), |(start, offset)| if offset == 16 { start + 20 } else { start + 8 });
    (start, bytes.get(start..start + 8).map(|serial| u64::from_be_bytes(serial.try_into().expect("eight bytes"))))
}

fn sequence(bytes: &[u8]) -> u32 {
    let (start, _) = transport(bytes).expect("TCP");
    u32::from_be_bytes(bytes[start + 4..start + 8].try_into().expect("four bytes"))
}

/// Whether a segment is the one after `last`, which is as long as segments are.
pub fn follows(last: &[u8], next: &[u8]) -> bool {
    sequence(next) == sequence(last) + (last.len() - payload(last).0) as u32
}

/// Makes the first segment, to which the payload of the others was added, the frame that was cut.
pub fn put_together(whole: &mut [u8], last: &[u8]) {
    let (network, version, start) = ip(whole).expect("IP");
    let (at, counted) = if version == 4 { (network + 2, network) } else { (network + 4, start) };
    let len = (whole.len() - counted) as u16;
    whole[at..at + 2].copy_from_slice(&len.to_be_bytes());
    whole[start + 13] = last[start + 13];
    correct_checksums(whole);
}
