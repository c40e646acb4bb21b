//! Nicira's actions.
//!
//! Those that OpenFlow 1.3 has too are taken in either form, and sent in the standard's.

use super::super::action::{SET_ERRORS, decode_move, known_field, mention, range, set_field, skip_padding, writable};
use super::super::bytes::{Put, Reader};
use super::super::error::{BadAction, BadInstruction, ErrorCode, Nicira, TableFeaturesFailed};
use super::super::oxm::{FieldValue, Ids, put_field, put_header};
use super::{NICIRA, learn};
use datapath::key::{Field, FieldRange};
use datapath::port::PortNo;
use datapath::tables::instruction::{
    Bundle, BundleAlgorithm, CONTROLLER_WHOLE, HashFields, Multipath, MultipathAlgorithm, OfAction, OfActions,
};

// NXAST_*
const RESUBMIT: u16 = 1;
const SET_TUNNEL: u16 = 2;
const SET_QUEUE: u16 = 4;
const POP_QUEUE: u16 = 5;
const REG_MOVE: u16 = 6;
const REG_LOAD: u16 = 7;
const NOTE: u16 = 8;
const SET_TUNNEL64: u16 = 9;
const MULTIPATH: u16 = 10;
const BUNDLE: u16 = 12;
const BUNDLE_LOAD: u16 = 13;
const RESUBMIT_TABLE: u16 = 14;
const OUTPUT_REG: u16 = 15;
const LEARN: u16 = 16;
const EXIT: u16 = 17;
const DEC_TTL: u16 = 18;
const CONTROLLER: u16 = 20;
const DEC_TTL_CNT_IDS: u16 = 21;
const WRITE_METADATA: u16 = 22;
const PUSH_MPLS: u16 = 23;
const POP_MPLS: u16 = 24;
const SET_MPLS_TTL: u16 = 25;
const DEC_MPLS_TTL: u16 = 26;
const STACK_PUSH: u16 = 27;
const STACK_POP: u16 = 28;
const SET_MPLS_LABEL: u16 = 30;
const SET_MPLS_TC: u16 = 31;
const OUTPUT_REG2: u16 = 32;
const REG_LOAD2: u16 = 33;
const CONJUNCTION: u16 = 34;
const CONTROLLER2: u16 = 37;
const GROUP: u16 = 40;
const CLONE: u16 = 42;

// NXAC2PT_*: properties of NXAST_CONTROLLER2.
const MAX_LEN: u16 = 0;
const CONTROLLER_ID: u16 = 1;
const REASON: u16 = 2;
const USERDATA: u16 = 3;

/// `OFPR_ACTION`, the reason of a packet-in that an action asks for without giving one.
const OFPR_ACTION: u8 = 1;
/// The table number of NXAST_RESUBMIT_TABLE that means the current one.
const CURRENT_TABLE: u8 = 0xff;
/// The only type of a bundle's members: NXM_OF_IN_PORT, two bytes.
const MEMBER_TYPE: u32 = 0x0000_0002;
/// The most members of a bundle.
const MAX_MEMBERS: u16 = 2048;

/// Reads an action from its subtype on. `clone` reads the actions in a clone.
pub(in super::super) fn decode_action(
    body: &mut Reader,
    clone: impl FnOnce(Reader) -> Result<OfActions, ErrorCode>,
) -> Result<OfAction, ErrorCode> {
    let subtype = body.u16()?;
    let plain = |body: &mut Reader, action: OfAction| body.skip(6).map(|()| action);
    Ok(match subtype {
        RESUBMIT | RESUBMIT_TABLE => {
            let (port, table) = (widen(body.u16()?), body.u8()?);
            match subtype {
                RESUBMIT => body.skip(3)?,
                _ => body.zeros(3, BadAction::BadArgument)?,
            }
            OfAction::Resubmit { port, table: (subtype == RESUBMIT_TABLE && table != CURRENT_TABLE).then_some(table) }
        }
        SET_TUNNEL | SET_QUEUE | GROUP | SET_MPLS_LABEL => {
            body.skip(2)?;
            let value = body.u32()?;
            match subtype {
                SET_TUNNEL => whole_field(Field::TunnelId, value.into())?,
                SET_QUEUE => OfAction::SetQueue(value),
                GROUP => OfAction::Group(value),
                _ => whole_field(Field::MplsLabel, value.into())?,
            }
        }
        SET_TUNNEL64 => {
            body.skip(6)?;
            whole_field(Field::TunnelId, body.u64()?.into())?
        }
        WRITE_METADATA => {
            body.zeros(6, Nicira::MustBeZero)?;
            // OpenFlow 1.0 takes it as an instruction. Among actions it is none.
            return Err(BadInstruction::UnsupInst.into());
        }
        POP_QUEUE => plain(body, OfAction::PopQueue)?,
        EXIT => plain(body, OfAction::Exit)?,
        DEC_TTL => plain(body, OfAction::DecNwTtl)?,
        DEC_MPLS_TTL => plain(body, OfAction::DecMplsTtl)?,
        PUSH_MPLS | POP_MPLS => {
            let eth_type = body.u16()?;
            body.skip(4)?;
            match (subtype, eth_type) {
                (PUSH_MPLS, 0x8847 | 0x8848) => OfAction::PushMpls(eth_type),
                (PUSH_MPLS, _) => return Err(BadAction::BadArgument.into()),
                _ => OfAction::PopMpls(eth_type),
            }
        }
        SET_MPLS_TTL | SET_MPLS_TC => {
            let value = body.u8()?;
            body.skip(5)?;
            if subtype == SET_MPLS_TTL { OfAction::SetMplsTtl(value) } else { whole_field(Field::MplsTc, value.into())? }
        }
        REG_MOVE => {
            let (bits, source, destination) = (body.u16()?, body.u16()?, body.u16()?);
            decode_move(body, bits, source, destination)?
        }
        REG_LOAD => {
            let place = body.u16()?;
            let destination = writable(unpack_range(mention(body)?, place)?)?;
            let value = body.u64()?;
            if value.checked_shr(destination.bits.into()).is_some_and(|beyond| beyond != 0) {
                return Err(BadAction::BadArgument.into());
            }
            OfAction::Load { destination, value }
        }
        REG_LOAD2 => {
            let set = FieldValue::decode(body, &SET_ERRORS)?;
            skip_padding(body, BadAction::BadSetArgument)?;
            set_field(set)?
        }
        NOTE => OfAction::Note(body.rest().into()),
        STACK_PUSH | STACK_POP => {
            let (offset, field, bits) = (body.u16()?, known_field(body)?, body.u16()?);
            skip_padding(body, Nicira::MustBeZero)?;
            let range = range(field, offset, bits)?;
            if subtype == STACK_PUSH { OfAction::StackPush(range) } else { OfAction::StackPop(writable(range)?) }
        }
        OUTPUT_REG | OUTPUT_REG2 => {
            let place = body.u16()?;
            let (field, max_len) = if subtype == OUTPUT_REG {
                let found = (mention(body)?, body.u16()?);
                skip_padding(body, BadAction::BadArgument)?;
                found
            } else {
                let max_len = body.u16()?;
                let field = known_field(body)?;
                skip_padding(body, Nicira::MustBeZero)?;
                (field, max_len)
            };
            OfAction::OutputField { source: unpack_range(field, place)?, max_len }
        }
        MULTIPATH => decode_multipath(body)?,
        BUNDLE | BUNDLE_LOAD => decode_bundle(body, subtype == BUNDLE_LOAD)?,
        LEARN => learn::decode(body)?,
        CONTROLLER => {
            let (max_len, controller_id, reason) = (body.u16()?, body.u16()?, body.u8()?);
            body.skip(1)?;
            OfAction::Controller { max_len, controller_id, reason, userdata: Default::default() }
        }
        CONTROLLER2 => decode_controller(body)?,
        DEC_TTL_CNT_IDS => {
            let count = usize::from(body.u16()?);
            body.zeros(4, Nicira::MustBeZero)?;
            let ids = body.part(2 * count, BadAction::BadLen)?.rest();
            // There may be room for more.
            body.rest();
            OfAction::DecNwTtlFor(numbers(ids).collect())
        }
        CONJUNCTION => {
            let (clause, clauses, id) = (body.u8()?, body.u8()?, body.u32()?);
            if !(2..=64).contains(&clauses) || clause >= clauses {
                return Err(Nicira::BadConjunction.into());
            }
            OfAction::Conjunction { id, clause, clauses }
        }
        CLONE => {
            body.skip(6)?;
            OfAction::Clone(clone(body.part(body.len(), BadAction::BadLen)?)?)
        }
        _ => return Err(BadAction::BadExpType.into()),
    })
}

fn decode_multipath(body: &mut Reader) -> Result<OfAction, ErrorCode> {
    let (fields, basis) = (hash_fields(body.u16()?)?, body.u16()?);
    body.skip(2)?;
    let algorithm = {
        use MultipathAlgorithm::*;
        one_of(&[Modulo, HashThreshold, HighestRandomWeight, IterativeHash], |algorithm| algorithm as u16, body.u16()?)?
    };
    let (max_link, argument) = (body.u16()?, body.u32()?);
    body.skip(2)?;
    let place = body.u16()?;
    let destination = writable(unpack_range(mention(body)?, place)?)?;
    if u32::from(max_link).checked_shr(destination.bits.into()).is_some_and(|beyond| beyond != 0) {
        return Err(BadAction::BadArgument.into());
    }
    Ok(OfAction::Multipath(Multipath { fields, basis, algorithm, max_link, argument, destination }.into()))
}

fn decode_bundle(body: &mut Reader, load: bool) -> Result<OfAction, ErrorCode> {
    let algorithm =
        one_of(&[BundleAlgorithm::ActiveBackup, BundleAlgorithm::HighestRandomWeight], |algorithm| algorithm as u16, body.u16()?)?;
    let (fields, basis) = (hash_fields(body.u16()?)?, body.u16()?);
    let (member_type, count, place) = (body.u32()?, body.u16()?, body.u16()?);
    let destination = if load {
        Some(writable(unpack_range(mention(body)?, place)?)?)
    } else {
        body.zeros(4, BadAction::BadArgument)?;
        None
    };
    match load {
        true => body.skip(4)?,
        false => body.zeros(4, BadAction::BadArgument)?,
    }
    if !load && place != 0 {
        return Err(BadAction::BadArgument.into());
    }
    if member_type != MEMBER_TYPE || count > MAX_MEMBERS || destination.is_some_and(|range| range.bits < 16) {
        return Err(BadAction::BadArgument.into());
    }
    let members: Box<[_]> = numbers(body.part(2 * usize::from(count), BadAction::BadLen)?.rest()).map(widen).collect();
    // There may be room for more.
    body.rest();
    if members.iter().any(|port| *port == PortNo::CONTROLLER || (PortNo(0xffff_ff00)..PortNo::IN_PORT).contains(port)) {
        return Err(BadAction::BadOutPort.into());
    }
    Ok(OfAction::Bundle(Bundle { algorithm, fields, basis, members, destination }.into()))
}

/// Reads NXAST_CONTROLLER2. Pausing is refused: it would need the frame's way through the tables to be sent to the controller and to be believed when it
/// comes back.
fn decode_controller(body: &mut Reader) -> Result<OfAction, ErrorCode> {
    body.zeros(6, Nicira::MustBeZero)?;
    let (mut max_len, mut controller_id, mut reason, mut userdata) = (CONTROLLER_WHOLE, 0, OFPR_ACTION, Default::default());
    while !body.is_empty() {
        let mut head = body.part(4, BadAction::BadLen)?;
        let (kind, length) = (head.u16()?, usize::from(head.u16()?));
        // The errors are those that properties have in Open vSwitch.
        let bad_length = TableFeaturesFailed::BadLen;
        let mut property = body.part(length.checked_sub(4).ok_or(bad_length)?, bad_length)?;
        body.part(length.next_multiple_of(8) - length, bad_length)?;
        match kind {
            MAX_LEN => max_len = property.u16()?,
            CONTROLLER_ID => controller_id = property.u16()?,
            REASON => reason = property.u8()?,
            USERDATA => userdata = property.rest().into(),
            _ => return Err(TableFeaturesFailed::BadType.into()),
        }
    }
    Ok(OfAction::Controller { max_len, controller_id, reason, userdata })
}

/// An action that writes all of a field.
fn whole_field(field: Field, value: u128) -> Result<OfAction, ErrorCode> {
    if value & !field.ones() != 0 {
        return Err(BadAction::BadSetArgument.into());
    }
    Ok(OfAction::SetField { field, value, mask: field.ones() })
}

/// Bits of a field, their place given in 16 bits: the offset, and in the low six the number less one.
fn unpack_range(field: Field, place: u16) -> Result<FieldRange, ErrorCode> {
    range(field, place >> 6, (place & 0x3f) + 1)
}

fn pack_range(range: FieldRange) -> u16 {
    u16::from(range.offset) << 6 | (u16::from(range.bits) - 1)
}

fn hash_fields(number: u16) -> Result<HashFields, ErrorCode> {
    use HashFields::*;
    one_of(&[EthSrc, SymmetricL4, SymmetricL3L4, SymmetricL3L4Udp, NwSrc, NwDst, SymmetricL3], |fields| fields as u16, number)
}

/// The one of `all` that has this number.
fn one_of<T: Copy>(all: &[T], number_of: impl Fn(T) -> u16, number: u16) -> Result<T, ErrorCode> {
    all.iter().copied().find(|one| number_of(*one) == number).ok_or(BadAction::BadArgument.into())
}

/// Numbers of two bytes.
fn numbers(bytes: &[u8]) -> impl Iterator<Item = u16> {
    bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
}

/// A port number of Nicira's 16 bits: the reserved ones, from 0xff00, move up.
fn widen(port: u16) -> PortNo {
    PortNo(if port >= 0xff00 { u32::from(port) | 0xffff_0000 } else { port.into() })
}

/// Appends an action from the experimenter's id on, without its padding. `put_actions` appends those in a clone. What is not one of Nicira's is not asked for.
pub(in super::super) fn put_action(out: &mut Vec<u8>, action: &OfAction, put_actions: impl Fn(&mut Vec<u8>, &[OfAction])) {
    let start = |out: &mut Vec<u8>, subtype: u16| {
        out.put_u32(NICIRA);
        out.put_u16(subtype);
    };
    let plain = |out: &mut Vec<u8>, subtype: u16| {
        start(out, subtype);
        out.put_zeros(6);
    };
    let mention = |out: &mut Vec<u8>, field: Field| put_header(out, Ids::Nxm, field, false);
    match action {
        OfAction::Resubmit { port, table } => {
            start(out, if table.is_some() { RESUBMIT_TABLE } else { RESUBMIT });
            out.put_u16(port.0 as u16);
            out.put_u8(table.unwrap_or(0));
            out.put_zeros(3);
        }
        OfAction::SetField { field, value, mask } => {
            start(out, REG_LOAD2);
            put_field(out, Ids::Nxm, *field, *value, *mask);
        }
        OfAction::Move { source, destination } => {
            start(out, REG_MOVE);
            out.put_u16(source.bits.into());
            out.put_u16(source.offset.into());
            out.put_u16(destination.offset.into());
            mention(out, source.field);
            mention(out, destination.field);
        }
        OfAction::Load { destination, value } => {
            start(out, REG_LOAD);
            out.put_u16(pack_range(*destination));
            mention(out, destination.field);
            out.put_u64(*value);
        }
        OfAction::StackPush(range) | OfAction::StackPop(range) => {
            start(out, if matches!(action, OfAction::StackPush(_)) { STACK_PUSH } else { STACK_POP });
            out.put_u16(range.offset.into());
            mention(out, range.field);
            out.put_u16(range.bits.into());
            out.put_zeros(6);
        }
        OfAction::OutputField { source, max_len } => {
            start(out, OUTPUT_REG);
            out.put_u16(pack_range(*source));
            mention(out, source.field);
            out.put_u16(*max_len);
            out.put_zeros(6);
        }
        OfAction::PopQueue => plain(out, POP_QUEUE),
        OfAction::Exit => plain(out, EXIT),
        OfAction::Note(note) => {
            start(out, NOTE);
            out.extend_from_slice(note);
            out.put_zeros(6usize.saturating_sub(note.len()));
        }
        OfAction::Multipath(multipath) => {
            start(out, MULTIPATH);
            out.put_u16(multipath.fields as u16);
            out.put_u16(multipath.basis);
            out.put_zeros(2);
            out.put_u16(multipath.algorithm as u16);
            out.put_u16(multipath.max_link);
            out.put_u32(multipath.argument);
            out.put_zeros(2);
            out.put_u16(pack_range(multipath.destination));
            mention(out, multipath.destination.field);
        }
        OfAction::Bundle(bundle) => {
            start(out, if bundle.destination.is_some() { BUNDLE_LOAD } else { BUNDLE });
            out.put_u16(bundle.algorithm as u16);
            out.put_u16(bundle.fields as u16);
            out.put_u16(bundle.basis);
            out.put_u32(MEMBER_TYPE);
            out.put_u16(bundle.members.len() as u16);
            match bundle.destination {
                Some(destination) => {
                    out.put_u16(pack_range(destination));
                    mention(out, destination.field);
                }
                None => out.put_zeros(6),
            }
            out.put_zeros(4);
            bundle.members.iter().for_each(|port| out.put_u16(port.0 as u16));
        }
        OfAction::Learn(learned) => {
            start(out, LEARN);
            learn::put(out, learned);
        }
        OfAction::Controller { max_len, controller_id, reason, userdata } if userdata.is_empty() => {
            start(out, CONTROLLER);
            out.put_u16(*max_len);
            out.put_u16(*controller_id);
            out.put_u8(*reason);
            out.put_zeros(1);
        }
        OfAction::Controller { max_len, controller_id, reason, userdata } => {
            plain(out, CONTROLLER2);
            let property = |out: &mut Vec<u8>, kind: u16, value: &[u8]| {
                let start = out.len();
                out.put_u16(kind);
                out.put_u16(0);
                out.extend_from_slice(value);
                out.set_length(start, 2);
                out.pad_from(start);
            };
            for (kind, value, default) in [(MAX_LEN, *max_len, CONTROLLER_WHOLE), (CONTROLLER_ID, *controller_id, 0)] {
                if value != default {
                    let [high, low] = value.to_be_bytes();
                    property(out, kind, &[high, low, 0, 0]);
                }
            }
            if *reason != OFPR_ACTION {
                property(out, REASON, &[*reason]);
            }
            property(out, USERDATA, userdata);
        }
        OfAction::DecNwTtlFor(ids) => {
            start(out, DEC_TTL_CNT_IDS);
            out.put_u16(ids.len() as u16);
            out.put_zeros(4);
            ids.iter().for_each(|id| out.put_u16(*id));
        }
        OfAction::Conjunction { id, clause, clauses } => {
            start(out, CONJUNCTION);
            out.put_u8(*clause);
            out.put_u8(*clauses);
            out.put_u32(*id);
        }
        OfAction::Clone(actions) => {
            plain(out, CLONE);
            put_actions(out, actions);
        }
        OfAction::DecNwTtl => plain(out, DEC_TTL),
        OfAction::DecMplsTtl => plain(out, DEC_MPLS_TTL),
        OfAction::SetMplsTtl(ttl) => {
            start(out, SET_MPLS_TTL);
            out.put_u8(*ttl);
            out.put_zeros(5);
        }
        OfAction::PushMpls(eth_type) | OfAction::PopMpls(eth_type) => {
            start(out, if matches!(action, OfAction::PushMpls(_)) { PUSH_MPLS } else { POP_MPLS });
            out.put_u16(*eth_type);
            out.put_zeros(4);
        }
        OfAction::SetQueue(number) | OfAction::Group(number) => {
            start(out, if matches!(action, OfAction::SetQueue(_)) { SET_QUEUE } else { GROUP });
            out.put_zeros(2);
            out.put_u32(*number);
        }
        OfAction::SetNwTtl(ttl) => {
            let destination = FieldRange { field: Field::NwTtl, offset: 0, bits: Field::NwTtl.bits() };
            put_action(out, &OfAction::Load { destination, value: (*ttl).into() }, put_actions);
        }
        // Nicira has nothing for these. A version that hasn't either shows them as an empty note.
        OfAction::Output { .. }
        | OfAction::Enqueue { .. }
        | OfAction::PushVlan(_)
        | OfAction::PopVlan
        | OfAction::SetVlanVid(_)
        | OfAction::SetVlanPcp(_)
        | OfAction::PushPbb
        | OfAction::PopPbb
        | OfAction::CopyTtlOut
        | OfAction::CopyTtlIn => plain(out, NOTE),
    }
}
