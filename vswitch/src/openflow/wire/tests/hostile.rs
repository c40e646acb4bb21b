//! Messages that are too short, too long, of a wrong type or simply noise.

use super::*;
use crate::openflow::wire::error::*;
use proptest::prelude::*;

/// `message` with its length field set to what it is.
fn relength(mut message: Vec<u8>) -> Vec<u8> {
    let length = (message.len() as u16).to_be_bytes();
    message[2..4].copy_from_slice(&length);
    message
}

#[test]
fn a_message_cut_anywhere_is_read_or_refused_but_never_more_than_it_was() {
    for sample in samples() {
        let whole = bytes(&sample, 1);
        for length in HEADER..whole.len() {
            // What is cut at the boundary of a list's element is a shorter list; all else is an error.
            if let Ok(message) = decode(&relength(whole[..length].to_vec())) {
                assert!(bytes(&message, 1).len() <= length + 8, "{sample:?} cut to {length}: {message:?}");
            }
            // A length that says more than there is is never believed.
            assert_eq!(decode(&whole[..length]).unwrap_err(), BadRequest::BadLen.into());
        }
    }
}

#[test]
fn messages_of_fixed_length_are_refused_if_cut_or_overlong() {
    let lengths = samples().into_iter().filter(|sample| {
        !matches!(
            sample,
            // Bodies that end in data or a list.
            Message::Hello(_)
                | Message::Error(_)
                | Message::EchoRequest(_)
                | Message::EchoReply(_)
                | Message::PacketIn(_)
                | Message::PacketOut(_)
                | Message::FlowMod(_)
                | Message::GroupMod(_)
                | Message::MeterMod(_)
                | Message::MultipartReply(_)
        )
    });
    for sample in lengths {
        let whole = bytes(&sample, 1);
        let overlong = decode(&relength([whole.as_slice(), &[0; 8]].concat()));
        if matches!(&sample, Message::MultipartRequest(request) if matches!(**request, MultipartRequest::TableFeatures)) {
            // There a body means to set the features.
            assert_eq!(overlong.unwrap_err(), TableFeaturesFailed::Eperm.into());
            continue;
        }
        assert_eq!(overlong.unwrap_err(), BadRequest::BadLen.into(), "{sample:?}");
        if whole.len() > HEADER {
            let error = decode(&relength(whole[..whole.len() - 1].to_vec())).unwrap_err();
            assert!(error == BadRequest::BadLen.into() || error == BadMatch::BadLen.into(), "{sample:?}: {error}");
        }
    }
}

#[test]
fn types_and_versions_that_are_not_ours_are_refused() {
    let error = |message: &[u8]| decode(message).unwrap_err();
    assert_eq!(error(&[4, 30, 0, 8, 0, 0, 0, 1]), BadRequest::BadType.into());
    assert_eq!(error(&[1, 5, 0, 8, 0, 0, 0, 1]), BadRequest::BadVersion.into());
    assert_eq!(error(&[4, 5, 0, 7, 0, 0, 0, 1]), BadRequest::BadLen.into());
    assert_eq!(error(&[4, 5, 0]), BadRequest::BadLen.into());
    assert_eq!(error(&[4, 18, 0, 16, 0, 0, 0, 1, 0, 14, 0, 0, 0, 0, 0, 0]), BadRequest::BadMultipart.into());
    assert_eq!(error(&[4, 18, 0, 16, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0]), BadRequest::MultipartBufferOverflow.into());
    // Experimenters: Nicira's flow monitor, and one that nobody knows.
    assert_eq!(error(&[4, 4, 0, 16, 0, 0, 0, 1, 0, 0, 0x23, 0x20, 0, 0, 0, 9]), BadRequest::BadExpType.into());
    assert_eq!(error(&[4, 4, 0, 16, 0, 0, 0, 1, 0, 0, 0x23, 0x21, 0, 0, 0, 9]), BadRequest::BadExperimenter.into());
    // A packet-in format of no bytes, and of too many.
    assert_eq!(error(&[4, 4, 0, 16, 0, 0, 0, 1, 0, 0, 0x23, 0x20, 0, 0, 0, 16]), BadRequest::BadLen.into());
    assert_eq!(error(&[4, 4, 0, 24, 0, 0, 0, 1, 0, 0, 0x23, 0x20, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0]), BadRequest::BadLen.into());
}

/// A flow-mod with these bytes as its match's fields and as its instructions.
fn flow_mod(fields: &[u8], instructions: &[u8]) -> Vec<u8> {
    let mut message = bytes(&Message::FlowMod(Box::new(FlowModMessage { flow_mod: FlowMod::default(), buffer_id: NO_BUFFER })), 1);
    message.truncate(message.len() - 8);
    let start = message.len();
    message.put_u16(1);
    message.put_u16(4 + fields.len() as u16);
    message.extend_from_slice(fields);
    message.pad_from(start);
    message.extend_from_slice(instructions);
    relength(message)
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b' ').collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

#[test]
fn each_fault_of_a_match_has_its_error() {
    let cases = [
        ("80003e04 00000001", BadMatch::BadLen),                  // number 31 is known, and is 16 bytes long
        ("80005804 00000001", BadMatch::BadField),                // basic field 44
        ("00024004 00000001", BadMatch::BadField),                // an unknown class
        ("ffff5406 12345678 0001", BadMatch::BadField),           // an unknown experimenter
        ("ffff5402 0001", BadMatch::BadLen),                      // an experimenter's field without an id
        ("80000003 000001", BadMatch::BadLen),                    // in_port of three bytes
        ("80000004 0000", BadMatch::BadLen),                      // value cut
        ("8000", BadMatch::BadLen),                               // header cut
        ("80000706 02000000 0001", BadMatch::BadLen),             // a mask announced and missing
        ("80000108 00000001 0000000f", BadMatch::BadMask),        // in_port can't be masked
        ("80000d04 10000fff", BadMatch::BadWildcards),            // a value outside its mask
        ("80000d04 1000f000", BadMatch::BadMask),                 // a mask beyond the field
        ("80000c02 2001", BadMatch::BadValue),                    // a value beyond the field
        ("80000c02 0005", BadMatch::BadValue),                    // a VLAN id that is not said to be present
        ("80000e01 03", BadMatch::BadPrereq),                     // vlan_pcp without a VLAN
        ("80001604 0a000001", BadMatch::BadPrereq),               // ip_src without eth_type
        ("80001604 0a000001 80000a02 0800", BadMatch::BadPrereq), // and with it too late
        ("80000a02 86dd 80001604 0a000001", BadMatch::BadPrereq), // and with the wrong one
        ("80000004 00000001 80000004 00000001", BadMatch::DupField),
        ("80000004 00000001 00000002 0001", BadMatch::DupField), // in OXM and in NXM
        ("00010004 00000001 80010008 00000001 00000001", BadMatch::DupField), // reg0 in xreg0
        ("80000004 00000001 80000204 00000002", BadMatch::BadValue), // in_phy_port that is not in_port
    ];
    for (fields, expected) in cases {
        assert_eq!(decode(&flow_mod(&hex(fields), &[])).unwrap_err(), expected.into(), "{fields}");
    }
    let mut standard = flow_mod(&[], &[]);
    standard[48 + 1] = 0;
    assert_eq!(decode(&standard).unwrap_err(), BadMatch::BadType.into());
    standard[48..52].copy_from_slice(&[0, 1, 0, 3]);
    assert_eq!(decode(&standard).unwrap_err(), BadMatch::BadLen.into());
    standard[48..52].copy_from_slice(&[0, 1, 0, 9]);
    assert_eq!(decode(&standard).unwrap_err(), BadMatch::BadLen.into());
}

#[test]
fn matches_that_are_in_order_are_taken() {
    let cases = [
        ("80000108 00000001 ffffffff", "a mask of ones where none may be"),
        ("80000d04 10001000", "any VLAN"),
        ("80000d04 00000000", "a mask of zeros"),
        ("80000c02 0000", "no VLAN"),
        ("80000004 00000001 80000204 00000001", "in_phy_port that is in_port"),
        ("00000602 0800 00000e04 0a000001", "NXM"),
    ];
    for (fields, what) in cases {
        decode(&flow_mod(&hex(fields), &[])).unwrap_or_else(|error| panic!("{what}: {error}"));
    }
}

#[test]
fn each_fault_of_an_instruction_has_its_error() {
    let cases = [
        ("0001000c 01000000 00000000", BadInstruction::BadLen), // not a multiple of eight
        ("00010004", BadInstruction::BadLen),
        ("00010010 01000000", BadInstruction::BadLen), // longer than the message
        ("0001", BadInstruction::BadLen),
        ("00010010 01000000 00000000 00000000", BadInstruction::BadLen), // longer than a goto-table
        ("00020010 00000000 00000000 00000000", BadInstruction::BadLen), // shorter than a write-metadata
        ("00070008 00000000", BadInstruction::UnknownInst),
        ("00000008 00000000", BadInstruction::UnknownInst),
        ("ffff0008 00002320", BadInstruction::BadExperimenter),
        ("00010008 01000000 00010008 02000000", BadInstruction::UnsupInst), // twice
    ];
    for (instructions, expected) in cases {
        assert_eq!(decode(&flow_mod(&[], &hex(instructions))).unwrap_err(), expected.into(), "{instructions}");
    }
}

#[test]
fn each_fault_of_an_action_has_its_error() {
    let cases = [
        ("00000004", BadAction::BadLen),
        ("0012000c 00000000 00000000", BadAction::BadLen), // not a multiple of eight
        ("00000008 00000001", BadAction::BadLen),          // an output without its length
        ("00000018 00000001 00000000 00000000 00000000 00000000", BadAction::BadLen),
        ("00120010 00000000 00000000 00000000", BadAction::BadLen), // pop_vlan, too long
        ("00000010 00000000 00000000 00000000", BadAction::BadOutPort), // port 0
        ("00000010 ffffffff 00000000 00000000", BadAction::BadOutPort), // ANY
        ("00000010 ffffff01 00000000 00000000", BadAction::BadOutPort), // between MAX and the reserved ones
        ("00000010 fffffff9 00000000 00000000", BadAction::BadOutPort), // TABLE, not in a packet-out
        ("00110008 88470000", BadAction::BadArgument),              // push_vlan of an MPLS type
        ("001a0008 88e70000", BadAction::BadType),                  // push_pbb
        ("00ff0008 00000000", BadAction::BadType),
        ("ffff0008 00002321", BadAction::BadExperimenter),
        ("ffff0010 00002320 00ff0000 00000000", BadAction::BadExpType),
        ("ffff0008 00002320", BadAction::BadLen), // an experimenter's action without a subtype
        ("00190010 80000706 02000000 00010000", BadAction::BadSetLen), // set_field with a mask that is missing
        ("00190018 80000708 00000000 00000000 00000000 00000000", BadAction::BadSetLen),
        ("00190010 80005804 00000000 00000000", BadAction::BadSetType), // an unknown field
        ("00190010 80000a02 08000000 00000000", BadAction::BadSetType), // eth_type can't be set
        ("00190010 80000e01 08000000 00000000", BadAction::BadSetArgument), // a PCP of 8
        ("00190010 80000d04 10001000 00000000", BadAction::BadSetArgument), // with a mask
        ("00190018 80000c02 10050000 00000000 00000000 00000000", BadAction::BadLen), // padding of more than seven bytes
        ("ffff0018 00002320 00060000 00000000 00010004 00010204", BadAction::BadArgument), // move of no bits
        ("ffff0018 00002320 00060020 00010000 00010004 00010204", BadAction::BadArgument), // of bits 1 to 32
        ("ffff0018 00002320 00060010 00000000 00010004 00000602", BadAction::BadSetArgument), // to eth_type
        ("ffff0018 00002320 0007001f 00010104 00000000 00000000", BadAction::BadSetType), // load into a masked header
        ("ffff0018 00002320 00070007 00010004 00000000 00000100", BadAction::BadArgument), // load of more than eight bits
        ("ffff0018 00002320 0007003f 00010004 00000000 00000000", BadAction::BadArgument), // into 64 bits of reg0
    ];
    for (action, expected) in cases {
        let action = hex(action);
        let mut apply = vec![0, 4, 0, 8 + action.len() as u8, 0, 0, 0, 0];
        apply.extend_from_slice(&action);
        apply.pad_from(0);
        apply[3] = apply.len() as u8;
        assert_eq!(decode(&flow_mod(&[], &apply)).unwrap_err(), expected.into(), "{action:x?}");
    }
}

#[test]
fn faults_of_flow_mods_groups_meters_and_roles_have_their_errors() {
    let mut unknown_command = flow_mod(&[], &[]);
    unknown_command[25] = 5;
    assert_eq!(decode(&unknown_command).unwrap_err(), FlowModFailed::BadCommand.into());
    let mut unknown_flag = flow_mod(&[], &[]);
    unknown_flag[45] = 0x20;
    assert_eq!(decode(&unknown_flag).unwrap_err(), FlowModFailed::BadFlags.into());
    let too_many = vec![[0, 24, 0, 8, 0, 0, 0, 0]; 7600].concat();
    let mut apply = vec![0, 4];
    apply.put_u16(8 + too_many.len() as u16);
    apply.put_zeros(4);
    apply.extend_from_slice(&too_many);
    assert_eq!(decode(&flow_mod(&[], &apply)).unwrap_err(), BadAction::TooMany.into());

    // The longest that are taken can be sent back, though each move is longer then: it came with Nicira's id of tcp_flags.
    let moves = hex("ffff0018 00002320 00060008 00000000 00014402 00010004").repeat(1850);
    let mut apply = vec![0, 4];
    apply.put_u16(8 + moves.len() as u16);
    apply.put_zeros(4);
    apply.extend_from_slice(&moves);
    let Ok(Message::FlowMod(taken)) = decode(&flow_mod(&[], &apply)) else { panic!() };
    let stats = flow_stats(taken.flow_mod.instructions);
    let reply = MultipartReply { body: MultipartBody::Flow(vec![stats.clone(), stats]), more: false };
    let stream = bytes(&Message::MultipartReply(reply), 1);
    let lengths: Vec<_> = split(&stream).iter().map(|part| part.len()).collect();
    assert!(lengths.len() == 2 && lengths.iter().all(|length| *length > 32 * 1850), "{lengths:?}");

    let refused = |kind: u8, body: &str| {
        let body = hex(body);
        decode(&relength([&[4, kind, 0, 0, 0, 0, 0, 1], body.as_slice()].concat())).unwrap_err()
    };
    assert_eq!(refused(15, "0003 00 00 00000001"), GroupModFailed::BadCommand.into());
    assert_eq!(refused(15, "0000 04 00 00000001"), GroupModFailed::BadType.into());
    assert_eq!(refused(15, "0000 00 00 ffffff01"), GroupModFailed::InvalidGroup.into());
    assert_eq!(refused(15, "0000 00 00 00000001 0018"), GroupModFailed::BadBucket.into());
    assert_eq!(refused(15, "0000 00 00 00000001 0010 0000 00000000 00000000 00000000 00"), GroupModFailed::BadBucket.into());
    assert_eq!(refused(15, "0000 00 00 00000001 0018 0000 00000000 00000000 00000000 00ff0008 00000000"), BadAction::BadType.into());
    assert_eq!(refused(29, "0003 0000 00000001"), MeterModFailed::BadCommand.into());
    assert_eq!(refused(29, "0000 0010 00000001"), MeterModFailed::BadFlags.into());
    assert_eq!(refused(29, "0000 0001 00000001 0001 0003"), MeterModFailed::BadBand.into());
    assert_eq!(refused(24, "00000004 00000000 0000000000000000"), RoleRequestFailed::BadRole.into());
    assert_eq!(refused(13, "ffffffff 00000000 0000 000000000000"), BadRequest::BadPort.into());
    assert_eq!(refused(13, "ffffffff 00000001 0010 000000000000"), BadRequest::BadLen.into());
}

#[test]
fn an_error_carries_what_it_answers() {
    let long = bytes(&Message::EchoRequest(vec![7; 0xffff - HEADER]), 9);
    let error = Error::new(BadRequest::BadLen.into(), &long);
    assert_eq!(bytes(&Message::Error(error.clone()), 9).len(), 0xffff);
    assert_eq!(((error.kind, error.code), error.data.as_slice()), ((1, 6), &long[..ERROR_DATA]));
    assert_eq!(ErrorCode::from_numbers((error.kind, error.code)), Some(BadRequest::BadLen.into()));
    assert_eq!(Error::new(BadRequest::BadLen.into(), &long[..8]).data, &long[..8]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn noise_of_every_type_is_read_or_refused(kind in 0u8..31, body in proptest::collection::vec(any::<u8>(), 0..256)) {
        let _ = decode(&relength([&[4, kind, 0, 0, 0, 0, 0, 1], body.as_slice()].concat()));
    }

    #[test]
    fn messages_with_flipped_bytes_are_read_or_refused(which in 0..samples().len(), flips in proptest::collection::vec((8usize..400, any::<u8>()), 1..6)) {
        let mut message = bytes(&samples()[which], 1);
        for (at, with) in flips {
            let length = message.len();
            if length > HEADER {
                message[HEADER + at % (length - HEADER)] = with;
            }
        }
        // What is read can be written, and read again.
        if let Ok(message) = decode(&message) {
            let again = bytes(&message, 1);
            prop_assert!(split(&again).into_iter().all(|part| decode(part).is_ok()), "{message:?}");
        }
    }
}
