//! Instructions (OpenFlow 1.3.5, 7.2.4).

use super::action::{decode_actions, encoded_length, put_actions};
use super::bytes::{Put, Reader};
use super::error::{BadAction, BadInstruction, ErrorCode, Onf};
use super::oxm::MAX_MATCH;
use datapath::tables::instruction::{Instructions, OfAction};

// OFPIT_*
pub(super) const GOTO_TABLE: u16 = 1;
const WRITE_METADATA: u16 = 2;
const WRITE_ACTIONS: u16 = 3;
const APPLY_ACTIONS: u16 = 4;
const CLEAR_ACTIONS: u16 = 5;
const METER: u16 = 6;
const EXPERIMENTER: u16 = 0xffff;

/// The types of the instructions that are carried out.
pub const SUPPORTED: [u16; 6] = [GOTO_TABLE, WRITE_METADATA, WRITE_ACTIONS, APPLY_ACTIONS, CLEAR_ACTIONS, METER];

/// The most bytes of a rule's instructions, so that they can be sent back in one flow statistics message, whose headers are longer than those of a
/// flow-mod, as the match may be. (What was read is never longer when it is sent back.)
pub const MAX_INSTRUCTIONS: usize = 60_000;
const _: () = assert!(16 + 48 + MAX_MATCH.next_multiple_of(8) + MAX_INSTRUCTIONS <= u16::MAX as usize);

/// Whether instructions that did not come as these bytes (but as a learned rule's, say) are short enough to be sent in one message.
pub fn can_be_sent(instructions: &Instructions) -> bool {
    // Of each instruction but those with actions, and the heads of those.
    const OTHERS: usize = 8 + 8 + 8 + 8 + 24 + 8;
    OTHERS + encoded_length(&instructions.apply) + encoded_length(&instructions.write) <= MAX_INSTRUCTIONS
}

/// Reads instructions to the end of `reader`.
pub(super) fn decode_instructions(mut reader: Reader) -> Result<Instructions, ErrorCode> {
    if reader.len() > MAX_INSTRUCTIONS {
        return Err(BadAction::TooMany.into());
    }
    let mut instructions = Instructions::default();
    let mut seen = 0u8;
    while !reader.is_empty() {
        let mut head = reader.part(4, BadInstruction::BadLen)?;
        let (kind, length) = (head.u16()?, usize::from(head.u16()?));
        if length < 8 || !length.is_multiple_of(8) {
            return Err(BadInstruction::BadLen.into());
        }
        let mut body = reader.part(length - 4, BadInstruction::BadLen)?;
        match kind {
            GOTO_TABLE => {
                instructions.goto = Some(body.u8()?);
                body.skip(3)?;
            }
            WRITE_METADATA => {
                body.skip(4)?;
                let (value, mask) = (body.u64()?, body.u64()?);
                instructions.metadata = Some((value, mask));
            }
            WRITE_ACTIONS | APPLY_ACTIONS => {
                body.skip(4)?;
                let actions = decode_actions(body.part(body.len(), BadAction::BadLen)?)?;
                *(if kind == APPLY_ACTIONS { &mut instructions.apply } else { &mut instructions.write }) = actions;
            }
            CLEAR_ACTIONS => {
                body.skip(4)?;
                instructions.clear = true;
            }
            METER => instructions.meter = Some(body.u32()?),
            EXPERIMENTER => return Err(BadInstruction::BadExperimenter.into()),
            _ => return Err(BadInstruction::UnknownInst.into()),
        }
        body.finish()?;
        if seen & 1 << kind != 0 {
            return Err(Onf::DupInst.into());
        }
        seen |= 1 << kind;
    }
    Ok(instructions)
}

/// Appends instructions.
pub(super) fn put_instructions(out: &mut Vec<u8>, instructions: &Instructions) {
    let put = |out: &mut Vec<u8>, kind: u16, body: &dyn Fn(&mut Vec<u8>)| {
        let start = out.len();
        out.put_u16(kind);
        out.put_u16(0);
        body(out);
        out.pad_from(start);
        out.set_length(start, 2);
    };
    let actions = |out: &mut Vec<u8>, kind: u16, actions: &[OfAction]| {
        if !actions.is_empty() {
            put(out, kind, &|out| {
                out.put_zeros(4);
                put_actions(out, actions);
            });
        }
    };
    if let Some(meter) = instructions.meter {
        put(out, METER, &|out| out.put_u32(meter));
    }
    actions(out, APPLY_ACTIONS, &instructions.apply);
    if instructions.clear {
        put(out, CLEAR_ACTIONS, &|out| out.put_zeros(4));
    }
    actions(out, WRITE_ACTIONS, &instructions.write);
    if let Some((value, mask)) = instructions.metadata {
        put(out, WRITE_METADATA, &|out| {
            out.put_zeros(4);
            out.put_u64(value);
            out.put_u64(mask);
        });
    }
    if let Some(table) = instructions.goto {
        put(out, GOTO_TABLE, &|out| out.put_u8(table));
    }
}
