//! Messages of OpenFlow 1.0 that are too short, too long, of a wrong type or simply noise.

use super::super::super::error::*;
use super::super::super::tests::hostile::kinds_without_sample;
use super::super::{STATS_REPLY, STATS_REQUEST, VENDOR};
use super::*;
use proptest::prelude::*;

#[test]
fn every_kind_of_message_has_a_sample() {
    let [dialect, ..] = dialects();
    // Those that OpenFlow 1.0 does not have.
    let others = [
        "GroupMod",
        "TableMod",
        "GetAsyncRequest",
        "GetAsyncReply",
        "MeterMod",
        "BundleControl",
        "BundleAdd",
        "request Group",
        "request GroupDesc",
        "request GroupFeatures",
        "request Meter",
        "request MeterConfig",
        "request MeterFeatures",
        "request TableFeatures",
        "reply Group",
        "reply GroupDesc",
        "reply GroupFeatures",
        "reply Meter",
        "reply MeterConfig",
        "reply MeterFeatures",
        "reply TableFeatures",
    ];
    assert_eq!(kinds_without_sample(&samples(&dialect)), others);
}

#[test]
fn a_message_of_a_type_that_is_unknown_is_refused_as_that() {
    for dialect in dialects() {
        for sample in samples(&dialect) {
            let whole = bytes(&dialect, &sample, 1);
            let with = |at: usize, value: &[u8]| {
                let mut message = whole.clone();
                message[at..at + value.len()].copy_from_slice(value);
                decode(&dialect, &message).expect_err("it has another type")
            };
            assert_eq!(with(1, &[22]), BadRequest::BadType.into(), "{sample:?}");
            if !matches!(sample, Message::Hello(_) | Message::Error(_)) {
                assert_eq!(with(0, &[4]), BadRequest::BadVersion.into(), "{sample:?}");
            }
            let vendor = match whole[1] {
                VENDOR => 8,
                STATS_REQUEST | STATS_REPLY => {
                    assert_eq!(with(8, &[0, 99]), BadRequest::BadMultipart.into(), "{sample:?}");
                    if whole[8..10] != [0xff, 0xff] {
                        continue;
                    }
                    12
                }
                _ => continue,
            };
            assert_eq!(with(vendor, &[0, 0, 0x23, 0x21]), BadRequest::BadExperimenter.into(), "{sample:?}");
            assert_eq!(with(vendor + 4, &[0, 0, 0, 99]), BadRequest::BadExpType.into(), "{sample:?}");
        }
    }
}

#[test]
fn a_message_cut_anywhere_is_read_or_refused_but_never_more_than_it_was() {
    for dialect in dialects() {
        for sample in samples(&dialect) {
            let whole = bytes(&dialect, &sample, 1);
            for length in HEADER..whole.len() {
                // What is cut at the boundary of a list's element is a shorter list; all else is an error. (What is missing of NXT_PACKET_IN2 has defaults.)
                let has_defaults = matches!(&sample, Message::PacketIn(packet_in) if packet_in.format == PacketInFormat::Nicira2);
                if has_defaults {
                    let _ = decode(&dialect, &relength(whole[..length].to_vec()));
                } else if let Ok(message) = decode(&dialect, &relength(whole[..length].to_vec())) {
                    assert!(bytes(&dialect, &message, 1).len() <= length + 8, "{sample:?} cut to {length}: {message:?}");
                }
                // A length that says more than there is is never believed.
                assert_eq!(decode(&dialect, &whole[..length]).unwrap_err(), BadRequest::BadLen.into());
            }
        }
    }
}

/// Whether a message ends in data or a list.
fn is_open_ended(message: &Message) -> bool {
    match message {
        Message::MultipartRequest(request) => matches!(**request, MultipartRequest::FlowMonitor(_)),
        Message::PacketIn(packet_in) => packet_in.format != PacketInFormat::Nicira2,
        _ => matches!(
            message,
            Message::Hello(_)
                | Message::Error(_)
                | Message::EchoRequest(_)
                | Message::EchoReply(_)
                | Message::FeaturesReply(_)
                | Message::PacketOut(_)
                | Message::FlowMod(_)
                | Message::QueueGetConfigReply(_)
                | Message::MultipartReply(_)
        ),
    }
}

#[test]
fn messages_of_fixed_length_are_refused_if_cut_or_overlong() {
    for dialect in dialects() {
        for sample in samples(&dialect).into_iter().filter(|sample| !is_open_ended(sample)) {
            let whole = bytes(&dialect, &sample, 1);
            let overlong = decode(&dialect, &relength([whole.as_slice(), &[0; 4]].concat())).unwrap_err();
            assert_eq!(overlong, BadRequest::BadLen.into(), "{sample:?}");
            if whole.len() > HEADER {
                let error = decode(&dialect, &relength(whole[..whole.len() - 1].to_vec())).unwrap_err();
                assert!([BadRequest::BadLen.into(), BadMatch::BadLen.into()].contains(&error), "{sample:?}: {error}");
            }
        }
    }
}

#[test]
fn lists_are_refused_if_an_element_is_cut_or_something_follows() {
    let [dialect, ..] = dialects();
    for sample in samples(&dialect) {
        let listed = matches!(
            &sample,
            Message::FeaturesReply(_) | Message::FlowMod(_) | Message::QueueGetConfigReply(_) | Message::MultipartReply(_)
        );
        let whole = bytes(&dialect, &sample, 1);
        if listed && whole.len() > HEADER + 24 {
            for wrong in [&whole[..whole.len() - 1], &[whole.as_slice(), &[0; 3]].concat()] {
                let error = decode(&dialect, &relength(wrong.to_vec())).unwrap_err();
                let lengths = [BadRequest::BadLen.into(), BadMatch::BadLen.into(), BadAction::BadLen.into()];
                assert!(lengths.contains(&error), "{sample:?}: {error}");
            }
        }
    }
}

#[test]
fn types_and_versions_that_are_not_ours_are_refused() {
    let [dialect, ..] = dialects();
    let error = |message: &str| decode(&dialect, &relength(hex(message))).unwrap_err();
    assert_eq!(error("01 16 0000 00000001"), BadRequest::BadType.into());
    assert_eq!(error("01 ff 0000 00000001"), BadRequest::BadType.into());
    assert_eq!(error("04 05 0000 00000001"), BadRequest::BadVersion.into());
    assert_eq!(decode(&dialect, &hex("01 05 00")).unwrap_err(), BadRequest::BadLen.into());
    assert_eq!(error("01 10 0000 00000001 0063 0000"), BadRequest::BadMultipart.into());
    assert_eq!(error("01 11 0000 00000001 0063 0000"), BadRequest::BadMultipart.into());
    // A request of more than one message.
    assert_eq!(error("01 10 0000 00000001 0000 0001"), BadRequest::BadMultipart.into());
    // Vendors: unknown ones, and messages, statistics and formats that Nicira has not.
    assert_eq!(error("01 04 0000 00000001 00002321 00000009"), BadRequest::BadExperimenter.into());
    assert_eq!(error("01 04 0000 00000001 00002320 00000063"), BadRequest::BadExpType.into());
    assert_eq!(error("01 04 0000 00000001 00002320"), BadRequest::BadLen.into());
    assert_eq!(error("01 10 0000 00000001 ffff 0000 00002321 00000000 00000000"), BadRequest::BadExperimenter.into());
    assert_eq!(error("01 10 0000 00000001 ffff 0000 00002320 00000063 00000000"), BadRequest::BadExpType.into());
    assert_eq!(error("01 04 0000 00000001 00002320 0000000c 00000001"), BadRequest::Eperm.into());
    assert_eq!(error("01 04 0000 00000001 00002320 00000010 00000003"), BadRequest::Eperm.into());
    assert_eq!(error("01 04 0000 00000001 00002320 0000000a 00000003"), RoleRequestFailed::BadRole.into());
    assert_eq!(error("01 04 0000 00000001 00002320 00000014 000000000001 0005"), Nicira::MustBeZero.into());
    // A flow monitor that tells nothing, and one that is not all zero where it must be.
    let monitor = "01 10 0000 00000001 ffff 0000 00002320 00000002 00000000 00000001";
    assert_eq!(error(&format!("{monitor} 0001 ffff 0000 ff 0000000000")), Nicira::BadMonitorFlags.into());
    assert_eq!(error(&format!("{monitor} 0003 ffff 0000 ff 0000000001")), Nicira::MustBeZero.into());
}

/// A flow-mod with this `struct ofp_match`, these fields behind it, and these actions.
fn flow_mod(matching: &str, fields: &str, actions: &str) -> Vec<u8> {
    relength(hex(&format!("01 0e 0000 00000001 {matching} {fields} {actions}")))
}

/// A match of all frames, and the other fields of an add.
const ANY: &str = "003820ff 0000 000000000000 000000000000 0000 00 00 0000 00 00 0000 00000000 00000000 0000 0000";
const ADD: &str = "0000000000000007 0000 0000 0000 0005 ffffffff ffff 0000";

#[test]
fn each_fault_of_a_flow_mod_has_its_error() {
    let [dialect, _, table_ids] = dialects();
    let fields = |command: &str, flags: &str| format!("0000000000000007 {command} 0000 0000 0005 ffffffff ffff {flags}");
    let error = |dialect: &Dialect, fields: &str| decode(dialect, &flow_mod(ANY, fields, "")).unwrap_err();
    assert_eq!(error(&dialect, &fields("0005", "0000")), FlowModFailed::BadCommand.into());
    assert_eq!(error(&dialect, &fields("0300", "0000")), FlowModFailed::BadCommand.into());
    assert_eq!(error(&table_ids, &fields("0307", "0000")), FlowModFailed::BadCommand.into());
    assert_eq!(error(&dialect, &fields("0000", "0008")), FlowModFailed::BadFlags.into());
    // There is no table for emergencies.
    assert_eq!(error(&dialect, &fields("0000", "0004")), FlowModFailed::TableFull.into());
    assert_eq!(error(&dialect, "0000000000000007 0000"), BadRequest::BadLen.into());
    let icmp = "00000000 0001 000000000000 000000000000 0005 07 00 0800 00 01 0000 0a000001 0a000002 0150 0000";
    assert_eq!(decode(&dialect, &flow_mod(icmp, ADD, "")).unwrap_err(), BadMatch::BadValue.into());

    let Message::FlowMod(read) = decode(&table_ids, &flow_mod(ANY, &fields("0300", "0003"), "")).unwrap() else { panic!() };
    assert_eq!((read.flow_mod.table, read.flow_mod.command, read.flow_mod.flags.0), (3, FlowModCommand::Add, 0b111));
    // A rule that looks at everything goes before all others.
    let exact = "00000000 0001 000000000000 000000000000 0005 07 00 0800 00 06 0000 0a000001 0a000002 0050 0051";
    let Message::FlowMod(read) = decode(&dialect, &flow_mod(exact, ADD, "")).unwrap() else { panic!() };
    assert_eq!(read.flow_mod.priority, 0xffff);
}

#[test]
fn each_fault_of_niciras_match_has_its_error() {
    let [dialect, ..] = dialects();
    let read = |command: &str, matching: &str| {
        let (length, padding) = (hex(matching).len(), "00".repeat(hex(matching).len().next_multiple_of(8) - hex(matching).len()));
        let fields = format!("0000000000000007 {command} 0000 0000 0005 ffffffff ffff 0000 {length:04x} 000000000000");
        decode(&dialect, &relength(hex(&format!("01 04 0000 00000001 00002320 0000000d {fields} {matching} {padding}"))))
    };
    let cases = [
        ("00003004 00000001", BadMatch::BadField),           // NXM_OF number 24
        ("00000002", BadMatch::BadLen),                      // in_port without its value
        ("00000003 000001", BadMatch::BadLen),               // of three bytes
        ("000000", BadMatch::BadLen),                        // header cut
        ("00000e04 0a000001", BadMatch::BadPrereq),          // ip_src without eth_type
        ("00000002 0001 00000002 0001", BadMatch::DupField), // in_port twice
        ("00000104 0001 00ff", BadMatch::BadMask),           // in_port with a mask
        ("00000904 1005 0fff", BadMatch::BadWildcards),      // a value outside its mask
        ("00000602 0800 00000a01 13", BadMatch::BadValue),   // a TOS with ECN
        // Cookies.
        ("00013c08 0000000000000007", BadMatch::BadField), // in an add
        ("00013c04 00000007", BadMatch::BadLen),           // of four bytes
    ];
    for (matching, expected) in cases {
        assert_eq!(read("0000", matching).unwrap_err(), expected.into(), "{matching}");
    }
    for (matching, expected) in [
        ("00013c08 0000000000000007 00013c08 0000000000000007", BadMatch::DupField),
        ("00013d10 0000000000000007 0000000000000003", BadMatch::BadWildcards),
        ("00013d10 0000000000000007", BadMatch::BadLen),
    ] {
        assert_eq!(read("0003", matching).unwrap_err(), expected.into(), "{matching}");
    }
    let Message::FlowMod(message) = read("0003", "00000002 fffe 00013d10 0000000000000001 0000000000000003 00000802 1005").unwrap() else {
        panic!()
    };
    let matching = Match::ANY.with(Field::InPort, PortNo::LOCAL.0.into()).with(Field::VlanTci, 0x1005);
    assert_eq!((message.flow_mod.cookie, message.flow_mod.cookie_mask, message.flow_mod.matching), (1, 3, matching));
}

#[test]
fn each_fault_of_an_action_has_its_error() {
    let [dialect, ..] = dialects();
    let cases = [
        ("00000004", BadAction::BadLen),
        ("0003000c 00000000 00000000", BadAction::BadLen), // not a multiple of eight
        ("00000010 00010000", BadAction::BadLen),          // longer than the message
        ("00000010 00010000 00000000 00000000", BadAction::BadLen), // an output, too long
        ("00040008 02000000", BadAction::BadLen),          // set_dl_src, too short
        ("000b0008 00010000", BadAction::BadLen),          // enqueue, too short
        ("00000008 00000000", BadAction::BadOutPort),      // port 0
        ("00000008 ffff0000", BadAction::BadOutPort),      // NONE
        ("00000008 ff000000", BadAction::BadOutPort),      // between the ports and the reserved ones
        ("000b0010 fffb0000 00000000 00000001", BadAction::BadOutPort), // enqueue to FLOOD
        ("00010008 10050000", BadAction::BadArgument),     // a VLAN of 13 bits
        ("00020008 08000000", BadAction::BadArgument),     // a priority of 8
        ("00080008 11000000", BadAction::BadArgument),     // a TOS with ECN
        ("000c0008 00000000", BadAction::BadType),
        ("00190010 80000606 02000000 00010000", BadAction::BadType), // OpenFlow 1.3's set_field
        ("ffff0008 00002321", BadAction::BadExperimenter),
        ("ffff0008 00002320", BadAction::BadLen),
        ("ffff0010 00002320 00ff0000 00000000", BadAction::BadExpType),
        ("ffff0018 00002320 00160000 00000000 00000000 00000000", BadAction::BadLen), // write_metadata, too short
        ("ffff0010 00002320 001e0000 00100000", BadAction::BadSetArgument),           // an MPLS label of 21 bits
        ("ffff0018 00002320 002a0000 00000000 00000008 00000000", BadAction::BadOutPort), // a clone that outputs to port 0
    ];
    for (action, expected) in cases {
        assert_eq!(decode(&dialect, &flow_mod(ANY, ADD, action)).unwrap_err(), expected.into(), "{action}");
    }
    // A clone in a clone in a clone...
    let mut deep = hex("00000008 00010000");
    for _ in 0..40 {
        deep = [hex(&format!("ffff{:04x} 00002320 002a0000 00000000", deep.len() + 16)), deep].concat();
    }
    let deep: String = deep.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(decode(&dialect, &flow_mod(ANY, ADD, &deep)).unwrap_err(), BadAction::TooMany.into());
    // So many that OpenFlow 1.3 could not tell of them.
    let many = "00090008 00500000".repeat(4000);
    assert_eq!(decode(&dialect, &flow_mod(ANY, ADD, &many)).unwrap_err(), BadAction::TooMany.into());
    let some = "00000008 00010000".repeat(3000);
    assert!(decode(&dialect, &flow_mod(ANY, ADD, &some)).is_ok());
}

#[test]
fn faults_of_packet_outs_and_ports_have_their_errors() {
    let [dialect, ..] = dialects();
    let error = |message: &str| decode(&dialect, &relength(hex(message))).unwrap_err();
    assert_eq!(error("01 0d 0000 00000001 ffffffff 0000 0000"), BadRequest::BadPort.into());
    assert_eq!(error("01 0d 0000 00000001 ffffffff ff00 0000"), BadRequest::BadPort.into());
    assert_eq!(error("01 0d 0000 00000001 ffffffff fffb 0000"), BadRequest::BadPort.into());
    assert_eq!(error("01 0d 0000 00000001 ffffffff 0001 0010 0000"), BadRequest::BadLen.into());
    assert_eq!(error("01 0d 0000 00000001 ffffffff 0001 0004 00000000"), BadAction::BadLen.into());
    let status = "00000000000000 0001 020000000001 766d3100000000000000000000000000 00000000 00000000 00000000 00000000 00000000 00000000";
    assert_eq!(error(&format!("01 0c 0000 00000001 03 {status}")), BadRequest::BadLen.into());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn noise_of_every_type_is_read_or_refused(kind in 0u8..24, body in proptest::collection::vec(any::<u8>(), 0..256), which in 0usize..3) {
        let _ = decode(&dialects()[which], &relength([&[1, kind, 0, 0, 0, 0, 0, 1], body.as_slice()].concat()));
    }

    #[test]
    fn noise_of_niciras_is_read_or_refused(subtype in 0u8..33, stats in any::<bool>(), body in proptest::collection::vec(any::<u8>(), 0..256)) {
        let head = if stats { hex("01 10 0000 00000001 ffff0000 00002320 000000") } else { hex("01 04 0000 00000001 00002320 000000") };
        let _ = decode(&dialects()[0], &relength([head.as_slice(), &[subtype], &body].concat()));
    }

    #[test]
    fn messages_with_flipped_bytes_are_read_or_refused(which in any::<u16>(), dialect in 0usize..3, flips in proptest::collection::vec((8usize..400, any::<u8>()), 1..6)) {
        let dialect = dialects()[dialect];
        let samples = samples(&dialect);
        let mut message = bytes(&dialect, &samples[usize::from(which) % samples.len()], 1);
        for (at, with) in flips {
            let length = message.len();
            if length > HEADER {
                message[HEADER + at % (length - HEADER)] = with;
            }
        }
        // What is read can be written, and read again.
        let mut dialect = dialect;
        if let Ok(message) = dialect.decode(&message) {
            let again = bytes(&dialect, &message, 1);
            prop_assert!(split(&again).into_iter().all(|part| decode(&dialect, part).is_ok()), "{message:?}");
        }
    }
}
