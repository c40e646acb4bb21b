//! Choices that Nicira's actions make by a flow's hash: `multipath` and `bundle`.
//!
//! The bits that are hashed are examined, so each flow that may choose differently is a megaflow of its own. (A select group is different: it chooses for each
//! frame, and its flows share megaflows.)

use super::flow::{TrackedFlow, Unknown};
use crate::classifier::mix;
use crate::key::{Field, Prerequisite};
use crate::port::PortNo;
use crate::tables::Ports;
use crate::tables::instruction::{Bundle, BundleAlgorithm, HashFields, Multipath, MultipathAlgorithm};

/// The number that a flow gets.
pub(super) fn multipath(multipath: &Multipath, flow: &mut TrackedFlow) -> Result<u16, Unknown> {
    let hash = hash(multipath.fields, multipath.basis, flow)?;
    let count = u32::from(multipath.max_link) + 1;
    let number = match multipath.algorithm {
        MultipathAlgorithm::Modulo => hash as u32 % count,
        MultipathAlgorithm::HashThreshold => part(hash, count),
        MultipathAlgorithm::HighestRandomWeight => (0..count).max_by_key(|number| mix(hash, (*number).into())).unwrap_or(0),
        MultipathAlgorithm::IterativeHash => {
            let range = multipath.argument.max(count).next_power_of_two();
            // As many tries as make it unlikely that the last resort is needed.
            let tries = (0..64).map(|attempt| mix(hash, attempt) as u32 & (range - 1));
            tries.into_iter().find(|number| *number < count).unwrap_or_else(|| part(hash, count))
        }
    };
    Ok(number as u16)
}

/// The port that a flow goes to, if any is live.
pub(super) fn bundle(bundle: &Bundle, ports: &Ports, flow: &mut TrackedFlow) -> Result<Option<PortNo>, Unknown> {
    let live = |port: &&PortNo| ports.get(**port).is_some_and(|port| port.is_live());
    let mut members = bundle.members.iter().filter(live).copied();
    match bundle.algorithm {
        BundleAlgorithm::ActiveBackup => Ok(members.next()),
        BundleAlgorithm::HighestRandomWeight => {
            let hash = hash(bundle.fields, bundle.basis, flow)?;
            Ok(members.max_by_key(|port| mix(hash, port.0.into())))
        }
    }
}

/// Which of `count` equal parts of all hashes a hash is in.
fn part(hash: u64, count: u32) -> u32 {
    ((u128::from(hash) * u128::from(count)) >> 64) as u32
}

/// A hash of the fields that the flow has of these, all of which are examined.
fn hash(fields: HashFields, basis: u16, flow: &mut TrackedFlow) -> Result<u64, Unknown> {
    use Field::*;
    let mut hash = mix(0x6a09_e667_f3bc_c908, basis.into());
    let mut add = |value: u128| hash = mix(mix(hash, value as u64), (value >> 64) as u64);
    let both = |flow: &mut TrackedFlow, a: Field, b: Field| Ok::<_, Unknown>(flow.read(a, u128::MAX)? ^ flow.read(b, u128::MAX)?);
    let (ethernet, ports) = match fields {
        HashFields::EthSrc => {
            add(flow.read(EthSrc, u128::MAX)?);
            return Ok(hash);
        }
        HashFields::NwSrc | HashFields::NwDst => {
            let [v4, v6] = if fields == HashFields::NwSrc { [Ipv4Src, Ipv6Src] } else { [Ipv4Dst, Ipv6Dst] };
            if flow.meets(Prerequisite::Ipv4)? {
                add(flow.read(v4, u128::MAX)?);
            } else if flow.meets(Prerequisite::Ipv6)? {
                add(flow.read(v6, u128::MAX)?);
            }
            return Ok(hash);
        }
        HashFields::SymmetricL4 => (true, &[Prerequisite::Tcp, Prerequisite::Sctp][..]),
        HashFields::SymmetricL3L4 => (false, &[Prerequisite::Tcp, Prerequisite::Sctp][..]),
        HashFields::SymmetricL3L4Udp => (false, &[Prerequisite::Tcp, Prerequisite::Sctp, Prerequisite::Udp][..]),
        HashFields::SymmetricL3 => (false, &[][..]),
    };
    if ethernet {
        add(both(flow, EthSrc, EthDst)?);
        add(flow.read(EthType, u128::MAX)?);
        add(flow.read(VlanVid, 0x0fff)?);
    }
    if flow.meets(Prerequisite::Ipv4)? {
        add(both(flow, Ipv4Src, Ipv4Dst)?);
    } else if flow.meets(Prerequisite::Ipv6)? {
        add(both(flow, Ipv6Src, Ipv6Dst)?);
    } else {
        return Ok(hash);
    }
    add(flow.read(IpProto, u128::MAX)?);
    for prerequisite in ports {
        if flow.meets(*prerequisite)? {
            // The three protocols' ports lie in the same place.
            add(both(flow, TcpSrc, TcpDst)?);
        }
    }
    Ok(hash)
}
