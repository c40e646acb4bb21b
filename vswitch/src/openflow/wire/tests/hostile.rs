//! Messages that are too short, too long, of a wrong type or simply noise.

use super::*;
use crate::openflow::wire::EXPERIMENTER;
use crate::openflow::wire::error::*;
use proptest::prelude::*;

/// `message` with its length field set to what it is.
fn relength(mut message: Vec<u8>) -> Vec<u8> {
    let length = (message.len() as u16).to_be_bytes();
    message[2..4].copy_from_slice(&length);
    message
}

/// What of a message's body may be longer or shorter.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    /// Nothing.
    Fixed,
    /// Behind so many bytes, any others may come.
    Data(usize),
    /// Behind so many bytes comes a list, whose elements have lengths of their own.
    List(usize),
}
use Shape::*;

/// Says of each kind of something which shape it has. What is new does not compile until it stands here, and then its sample is missed.
macro_rules! kinds {
    ($kinds:ident, $kind_of:ident($type:ty) { $($pattern:pat $(if $guard:expr)? => $kind:ident $shape:expr;)* }) => {
        const $kinds: &[&str] = &[$(stringify!($kind)),*];

        fn $kind_of(of: &$type) -> (&'static str, Shape) {
            match of { $($pattern $(if $guard)? => (stringify!($kind), $shape),)* }
        }
    };
}

use Message as M;
use MultipartBody as Reply;
use MultipartRequest as Request;

kinds! { MESSAGES, message_kind(Message) {
    M::Hello(_) => Hello List(0);
    M::Error(_) => Error Data(4);
    M::EchoRequest(_) => EchoRequest Data(0);
    M::EchoReply(_) => EchoReply Data(0);
    M::FeaturesRequest => FeaturesRequest Fixed;
    M::FeaturesReply(_) => FeaturesReply Fixed;
    M::GetConfigRequest => GetConfigRequest Fixed;
    M::GetConfigReply(_) => GetConfigReply Fixed;
    M::SetConfig(_) => SetConfig Fixed;
    M::PacketIn(packet_in) if packet_in.format == PacketInFormat::Nicira => NiciraPacketIn Data(34);
    M::PacketIn(packet_in) if packet_in.format == PacketInFormat::Nicira2 => NiciraPacketIn2 List(8);
    M::PacketIn(_) => PacketIn Data(26);
    M::FlowRemoved(_) => FlowRemoved Fixed;
    M::PortStatus(_) => PortStatus Fixed;
    M::PacketOut(_) => PacketOut Data(16);
    M::FlowMod(_) => FlowMod List(48);
    M::GroupMod(_) => GroupMod List(8);
    M::PortMod(_) => PortMod Fixed;
    M::TableMod(_) => TableMod Fixed;
    M::MultipartRequest(_) => MultipartRequest List(8);
    M::MultipartReply(_) => MultipartReply List(8);
    M::BarrierRequest => BarrierRequest Fixed;
    M::BarrierReply => BarrierReply Fixed;
    M::QueueGetConfigRequest(_) => QueueGetConfigRequest Fixed;
    M::QueueGetConfigReply(_) => QueueGetConfigReply List(8);
    M::RoleRequest(_) => RoleRequest Fixed;
    M::RoleReply(_) => RoleReply Fixed;
    M::GetAsyncRequest => GetAsyncRequest Fixed;
    M::GetAsyncReply(_) => GetAsyncReply Fixed;
    M::SetAsync(_) => SetAsync Fixed;
    M::MeterMod(_) => MeterMod List(8);
    M::SetPacketInFormat(_) => SetPacketInFormat Fixed;
    M::SetControllerId(_) => SetControllerId Fixed;
    M::SetFlowFormat(_) => SetFlowFormat Fixed;
    M::FlowModTableId(_) => FlowModTableId Fixed;
    M::FlowAge => FlowAge Fixed;
    M::BundleControl(_) => BundleControl Fixed;
    // Properties may follow the message.
    M::BundleAdd(_) => BundleAdd Data(24);
    M::FlowMonitorCancel(_) => FlowMonitorCancel Fixed;
    M::FlowMonitorPaused => FlowMonitorPaused Fixed;
    M::FlowMonitorResumed => FlowMonitorResumed Fixed;
} }

kinds! { REQUESTS, request_kind(MultipartRequest) {
    Request::Desc => Desc Fixed;
    Request::Flow(_) => Flow Fixed;
    Request::Aggregate(_) => Aggregate Fixed;
    Request::Table => Table Fixed;
    Request::Port(_) => Port Fixed;
    Request::Queue(..) => Queue Fixed;
    Request::Group(_) => Group Fixed;
    Request::GroupDesc => GroupDesc Fixed;
    Request::GroupFeatures => GroupFeatures Fixed;
    Request::Meter(_) => Meter Fixed;
    Request::MeterConfig(_) => MeterConfig Fixed;
    Request::MeterFeatures => MeterFeatures Fixed;
    Request::TableFeatures(_) => TableFeatures List(8);
    Request::PortDesc => PortDesc Fixed;
    Request::FlowMonitor(_) => FlowMonitor List(16);
} }

kinds! { REPLIES, reply_kind(MultipartBody) {
    Reply::Desc(_) => Desc Fixed;
    Reply::Flow(_) => Flow List(8);
    Reply::Aggregate(_) => Aggregate Fixed;
    Reply::Table(_) => Table List(8);
    Reply::Port(_) => Port List(8);
    Reply::Queue(_) => Queue List(8);
    Reply::Group(_) => Group List(8);
    Reply::GroupDesc(_) => GroupDesc List(8);
    Reply::GroupFeatures(_) => GroupFeatures Fixed;
    Reply::Meter(_) => Meter List(8);
    Reply::MeterConfig(_) => MeterConfig List(8);
    Reply::MeterFeatures(_) => MeterFeatures Fixed;
    Reply::TableFeatures(_) => TableFeatures List(8);
    Reply::PortDesc(_) => PortDesc List(8);
    Reply::FlowMonitor(_) => FlowMonitor List(16);
} }

fn shape(message: &Message) -> Shape {
    match message {
        Message::MultipartRequest(request) => request_kind(request).1,
        Message::MultipartReply(reply) => reply_kind(&reply.body).1,
        message => message_kind(message).1,
    }
}

/// The kinds of messages, and of multipart requests and replies, that have no sample.
pub fn kinds_without_sample(samples: &[Message]) -> Vec<String> {
    let found: Vec<_> = samples
        .iter()
        .map(|sample| match sample {
            Message::MultipartRequest(request) => format!("request {}", request_kind(request).0),
            Message::MultipartReply(reply) => format!("reply {}", reply_kind(&reply.body).0),
            message => message_kind(message).0.to_owned(),
        })
        .collect();
    let multipart = ["MultipartRequest", "MultipartReply"];
    let messages = MESSAGES.iter().filter(|kind| !multipart.contains(kind)).map(|kind| (*kind).to_owned());
    let requests = REQUESTS.iter().map(|kind| format!("request {kind}"));
    let replies = REPLIES.iter().map(|kind| format!("reply {kind}"));
    messages.chain(requests).chain(replies).filter(|kind| !found.contains(kind)).collect()
}

#[test]
fn every_kind_of_message_has_a_sample() {
    // Of OpenFlow 1.0 only.
    assert_eq!(kinds_without_sample(&samples()), ["SetFlowFormat"]);
}

#[test]
fn a_message_cut_anywhere_is_read_or_refused_but_never_more_than_it_was() {
    for sample in samples() {
        let xid = xid_for(&sample, 1);
        let whole = bytes(&sample, xid);
        let least = match shape(&sample) {
            Fixed => whole.len(),
            Data(least) | List(least) => HEADER + least,
        };
        for length in HEADER..whole.len() {
            match decode(&relength(whole[..length].to_vec())) {
                // What is cut at the boundary of a list's element is a shorter list.
                Ok(message) => {
                    assert!(length >= least, "{sample:?} cut to {length} is read as {message:?}");
                    // But for what is always said, or padded.
                    assert!(bytes(&message, xid).len() <= length + 32, "{sample:?} cut to {length}: {message:?}");
                }
                Err(error) => assert!(!matches!(error, ErrorCode::BadRequest(BadRequest::BadType)), "{sample:?} cut to {length}: {error}"),
            }
            // A length that says more than there is is never believed.
            assert_eq!(decode(&whole[..length]).unwrap_err(), BadRequest::BadLen.into());
        }
        let cut = (whole.len() > HEADER).then(|| decode(&relength(whole[..whole.len() - 1].to_vec())));
        let may_be_cut = matches!(shape(&sample), Data(_)) && whole.len() > least;
        assert!(cut.is_none_or(|cut| cut.is_err() || may_be_cut), "{sample:?} is read without its last byte");
    }
}

#[test]
fn a_message_with_more_behind_it_is_refused_unless_it_ends_in_data() {
    for sample in samples() {
        let whole = bytes(&sample, xid_for(&sample, 1));
        let longer = |by: usize| decode(&relength([whole.as_slice(), &vec![0; by]].concat()));
        match shape(&sample) {
            Fixed => [1, 4, 8, 64].into_iter().for_each(|by| {
                let error = longer(by).expect_err(&format!("{sample:?} is read with {by} bytes more"));
                assert_eq!(error, BadRequest::BadLen.into(), "{sample:?}");
            }),
            List(_) => assert!(longer(1).is_err(), "{sample:?} is read with a byte more"),
            Data(_) => assert!(longer(1).is_ok(), "{sample:?} is not read with a byte more: {:?}", longer(1)),
        }
    }
}

#[test]
fn a_message_of_a_type_that_is_unknown_is_refused_as_that() {
    for sample in samples() {
        let whole = bytes(&sample, xid_for(&sample, 1));
        let with = |at: usize, value: &[u8]| {
            let mut message = whole.clone();
            message[at..at + value.len()].copy_from_slice(value);
            decode(&message).expect_err("it has another type")
        };
        assert_eq!(with(1, &[30]), BadRequest::BadType.into(), "{sample:?}");
        if !matches!(sample, Message::Hello(_) | Message::Error(_)) {
            assert_eq!(with(0, &[3]), BadRequest::BadVersion.into(), "{sample:?}");
        }
        let experimenter = match whole[1] {
            EXPERIMENTER => 8,
            MULTIPART_REQUEST | MULTIPART_REPLY => {
                assert_eq!(with(8, &[0, 14]), BadRequest::BadMultipart.into(), "{sample:?}");
                if whole[8..10] != [0xff, 0xff] {
                    continue;
                }
                16
            }
            _ => continue,
        };
        assert_eq!(with(experimenter, &[0, 0, 0x23, 0x21]), BadRequest::BadExperimenter.into(), "{sample:?}");
        assert_eq!(with(experimenter + 4, &[0, 0, 0x99, 0x99]), BadRequest::BadExpType.into(), "{sample:?}");
    }
}

#[test]
fn types_and_versions_that_are_not_ours_are_refused() {
    let error = |message: &[u8]| decode(message).unwrap_err();
    assert_eq!(error(&[1, 5, 0, 8, 0, 0, 0, 1]), BadRequest::BadVersion.into());
    assert_eq!(error(&[4, 5, 0, 7, 0, 0, 0, 1]), BadRequest::BadLen.into());
    assert_eq!(error(&[4, 5, 0]), BadRequest::BadLen.into());
    // One message of several can't be read alone.
    assert_eq!(error(&[4, 18, 0, 16, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0]), BadRequest::MultipartBufferOverflow.into());
    // An experimenter's message without a type.
    assert_eq!(error(&[4, 4, 0, 12, 0, 0, 0, 1, 0, 0, 0x23, 0x20]), BadRequest::BadLen.into());
    // A packet-in format that there is not, as Open vSwitch answers; a frame to go on with.
    assert_eq!(error(&[4, 4, 0, 20, 0, 0, 0, 1, 0, 0, 0x23, 0x20, 0, 0, 0, 16, 0, 0, 0, 3]), BadRequest::Eperm.into());
    assert_eq!(error(&[4, 4, 0, 16, 0, 0, 0, 1, 0, 0, 0x23, 0x20, 0, 0, 0, 28]), Nicira::ResumeNotSupported.into());
    assert_eq!(error(&hex("04040018 00000001 00002320 00000014 01000000 00000007")), Nicira::MustBeZero.into());
}

#[test]
fn faults_of_bundles_and_monitors_have_their_errors() {
    let bundle =
        |kind: &str, body: &str| decode(&relength(hex(&format!("04040000 00000001 4f4e4600 {kind} {body}")))).expect_err("it is wrong");
    assert_eq!(bundle("000008fc", "00000001 0008 0000"), BundleFailed::BadType.into());
    // Messages to be bundled: cut short, shorter than a header, longer than there is, of another version, and with another xid.
    for (message, error) in [
        ("04140008", BundleFailed::MsgBadLen),
        ("04140007 00000001", BundleFailed::MsgBadLen),
        ("04140009 00000001", BundleFailed::MsgBadLen),
        ("01140008 00000001", BundleFailed::MsgUnsup),
        ("04140008 00000002", BundleFailed::MsgBadXid),
    ] {
        assert_eq!(bundle("000008fd", &format!("00000001 0000 0000 {message}")), error.into(), "{message}");
    }
    let monitor = |flags: &str| {
        decode(&relength(hex(&format!(
            "04120000 00000001 ffff0000 00000000 4f4e4600 0000074e 00000001 {flags} 0000 ffffffff ff000000 00010004 00000000"
        ))))
    };
    // One that tells nothing, one that tells what is unknown, and one that is in order.
    assert_eq!(monitor("0031").unwrap_err(), Nicira::BadMonitorFlags.into());
    assert_eq!(monitor("0042").unwrap_err(), Nicira::BadMonitorFlags.into());
    assert!(monitor("0002").is_ok());
    let update = |length: &str| {
        let update = format!("04130028 00000000 ffff0000 00000000 4f4e4600 0000074e {length} 0004 0000 0000 0000 0000 0000 0000");
        decode(&hex(&update)).unwrap_err()
    };
    assert_eq!(update("0010"), Nicira::BadEvent.into());
    for length in ["0001", "0011", "ffff"] {
        assert_eq!(update(length), BadRequest::BadLen.into());
    }
}

#[test]
fn faults_of_table_features_have_their_errors() {
    let sample =
        bytes(&Message::MultipartRequest(Box::new(MultipartRequest::TableFeatures(vec![TableFeatures::of_switch(0, "", 1, 9)]))), 1);
    let with = |at: usize, value: &[u8]| {
        let mut message = sample.clone();
        message[at..at + value.len()].copy_from_slice(value);
        decode(&message).unwrap_err()
    };
    // A table that is longer than the message, and shorter than its head; a property that is shorter than a head, and one of an unknown type.
    assert_eq!(with(16, &[0xff, 0xff]), TableFeaturesFailed::BadLen.into());
    assert_eq!(with(16, &[0, 1]), TableFeaturesFailed::BadLen.into());
    assert_eq!(with(16 + 64 + 2, &[0, 3]), TableFeaturesFailed::BadLen.into());
    assert_eq!(with(16 + 64, &[0, 9]), TableFeaturesFailed::BadType.into());
    // An instruction's id of less than four bytes.
    assert_eq!(with(16 + 64 + 4 + 2, &[0, 3]), TableFeaturesFailed::BadLen.into());
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
    ];
    for (instructions, expected) in cases {
        assert_eq!(decode(&flow_mod(&[], &hex(instructions))).unwrap_err(), expected.into(), "{instructions}");
    }
    let twice = hex("00010008 01000000 00010008 02000000");
    assert_eq!(decode(&flow_mod(&[], &twice)).unwrap_err(), Onf::DupInst.into());
}

/// A clone of actions.
fn clone_of(actions: &[u8]) -> Vec<u8> {
    let mut action = hex("ffff0000 00002320 002a0000 00000000");
    action.extend_from_slice(actions);
    let length = (action.len() as u16).to_be_bytes();
    action[2..4].copy_from_slice(&length);
    action
}

/// The instruction that applies actions.
fn apply_of(actions: &[u8]) -> Vec<u8> {
    let mut apply = hex("00040000 00000000");
    apply.extend_from_slice(actions);
    let length = (apply.len() as u16).to_be_bytes();
    apply[2..4].copy_from_slice(&length);
    apply
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
        ("00110008 88470000", BadAction::BadArgument),              // push_vlan of an MPLS type
        ("00130008 81000000", BadAction::BadArgument),              // push_mpls of a VLAN's type
        ("001a0008 88a80000", BadAction::BadArgument),              // push_pbb of a VLAN's type
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
        ("ffff0018 00002320 00060000 00000000 00010004 00010204", BadAction::BadSetLen), // move of no bits
        ("ffff0018 00002320 00060020 00010000 00010004 00010204", BadAction::BadSetLen), // of bits 1 to 32
        ("ffff0018 00002320 00060010 00000000 00010004 00000602", BadAction::BadSetArgument), // to eth_type
        ("ffff0018 00002320 0007001f 00010104 00000000 00000000", BadAction::BadSetType), // load into a masked header
        ("ffff0018 00002320 00070007 00010004 00000000 00000100", BadAction::BadArgument), // load of more than eight bits
        ("ffff0018 00002320 0007003f 00010004 00000000 00000000", BadAction::BadSetLen), // into 64 bits of reg0
        ("ffff0010 4f4e4600 0c810000 00000000", BadAction::BadExpType), // an action of the ONF that is unknown
        ("ffff0010 00002320 001e0000 00100000", BadAction::BadSetArgument), // set_mpls_label of 21 bits
        ("ffff0010 00002320 001f0800 00000000", BadAction::BadSetArgument), // set_mpls_tc of 8
        ("ffff0010 00002320 00170800 00000000", BadAction::BadArgument), // Nicira's push_mpls of IPv4's type
        ("ffff0018 00002320 001c0000 00000602 00080000 00000000", BadAction::BadSetArgument), // pop into eth_type
        ("ffff0018 00002320 001b0000 00010004 00210000 00000000", BadAction::BadSetLen), // push 33 bits of reg0
        ("ffff0010 00002320 00150004 00000000", BadAction::BadLen),     // dec_ttl for four controllers, of which none is there
        ("ffff0020 00002320 000a0007 00000000 00000000 00000000 0000000f 00010004", BadAction::BadArgument), // multipath of an unknown hash
        ("ffff0020 00002320 000a0000 00000000 00040000 00000000 0000000f 00010004", BadAction::BadArgument), // by an unknown algorithm
        ("ffff0020 00002320 000a0000 00000000 00000010 00000000 00000003 00010004", BadAction::BadArgument), // of 17 links into four bits
        ("ffff0020 00002320 000c0002 00000000 00000002 00000000 00000000 00000000", BadAction::BadArgument), // bundle by an unknown algorithm
        ("ffff0020 00002320 000c0000 00000000 00000004 00000000 00000000 00000000", BadAction::BadArgument), // of members of four bytes
        ("ffff0020 00002320 000c0000 00000000 00000002 00010000 00000000 00000000", BadAction::BadLen), // of a member that is not there
        ("ffff0020 00002320 000d0000 00000000 00000002 00000007 00010004 00000000", BadAction::BadArgument), // into eight bits
        ("ffff0020 00002320 00100000 00000000 00000000 00000000 00040000 00000000", BadAction::BadArgument), // learn with an unknown flag
        ("ffff0020 00002320 00100000 00000000 00000000 00000000 00000000 00010000", BadAction::BadArgument), // with a timeout after FIN
        ("ffff0020 00002320 00100000 00000000 00000000 00000000 0000ff00 00000000", BadAction::BadArgument), // into table 255
        ("ffff0028 00002320 00100000 00000000 00000000 00000000 00000000 00000000 00100000 00020000", BadAction::BadLen), // a part cut short
        ("ffff0028 00002320 00100000 00000000 00000000 00000000 00000000 00000000 30080005 00000000", BadAction::BadArgument), // output of a value
        ("ffff0028 00002320 00100000 00000000 00000000 00000000 00000000 00000000 80100000 00020000", BadAction::BadArgument), // an unknown bit
        ("ffff0028 00002320 00100000 00000000 00000000 00000000 00000000 00000000 00000000 00000001", BadAction::BadArgument), // padding that is none
        ("ffff0018 00002320 002a0000 00000000 00ff0008 00000000", BadAction::BadType), // clone of something unknown
        ("ffff0010 00002320 00130005 00050000", BadAction::BadExpType),                // fin_timeout
        ("00190010 80000004 00000001 00000000", BadAction::BadSetType),                // set_field of in_port
        ("00190010 80000c02 10050001 00000000", BadAction::BadSetArgument),            // padding that is none
        ("ffff0010 00002320 000e0003 07000001", BadAction::BadArgument),
        ("ffff0018 00002320 000f000f 00010004 00000000 00000001", BadAction::BadArgument),
        ("ffff0028 00002320 000c0001 00000000 00000002 00010000 00000000 00000001 00010000 00000000", BadAction::BadArgument),
        ("ffff0020 00002320 00100000 00000000 00000000 00000000 00000001 00000000", BadAction::BadArgument),
        ("ffff0028 00002320 000c0001 00000000 00000002 00010000 00000000 00000000 fffd0000 00000000", BadAction::BadOutPort), // bundle of CONTROLLER
        ("ffff0028 00002320 000c0001 00000000 00000002 00010000 00000000 00000000 ff000000 00000000", BadAction::BadOutPort),
    ];
    let refused = |action: &[u8]| {
        let mut action = action.to_vec();
        action.pad_from(0);
        decode(&flow_mod(&[], &apply_of(&action))).unwrap_err()
    };
    for (action, expected) in cases {
        assert_eq!(refused(&hex(action)), expected.into(), "{action}");
    }
    let with_errors_of_others: [(&str, ErrorCode); 10] = [
        ("ffff0018 00002320 00250000 00000000 00040004 00000000", TableFeaturesFailed::BadType.into()), // controller, and pause
        ("ffff0018 00002320 00250000 00000000 00030003 00000000", TableFeaturesFailed::BadLen.into()),  // a property shorter than its head
        ("ffff0020 00002320 00160000 00000000 00000000 00000005 00000000 000000ff", BadInstruction::UnsupInst.into()), // write_metadata
        ("ffff0020 00002320 00160000 00000001 00000000 00000005 00000000 000000ff", Nicira::MustBeZero.into()),
        ("ffff0018 00002320 001b0000 00010004 00200000 00000001", Nicira::MustBeZero.into()),
        ("ffff0018 00002320 0020000f 00000001 00040000 00000001", Nicira::MustBeZero.into()),
        ("ffff0010 00002320 00250000 00000001", Nicira::MustBeZero.into()),
        ("ffff0010 00002320 00150000 00000001", Nicira::MustBeZero.into()),
        ("ffff0020 4f4e4600 0c800000 00100000 00000000 00010004 00010204 00000001", Nicira::MustBeZero.into()),
        ("ffff0018 00002320 00060010 00000000 00010004 00017e04", BadMatch::BadField.into()),
    ];
    for (action, expected) in with_errors_of_others {
        assert_eq!(refused(&hex(action)), expected, "{action}");
    }
    // Room for more ports and controllers than there are, and a port to set by Nicira's action.
    for action in [
        "ffff0030 00002320 000c0001 00000000 00000002 00010000 00000000 00000000 00010000 00000000 00000000 00000000",
        "ffff0018 00002320 00150000 00000000 00000000 00000000",
        "ffff0018 00002320 00218000 00040000 00010000 00000000",
    ] {
        assert!(decode(&flow_mod(&[], &apply_of(&hex(action)))).is_ok(), "{action}");
    }
    for clause in ["0201", "0041", "0302"] {
        assert_eq!(refused(&hex(&format!("ffff0010 00002320 0022 {clause} 00000001"))), Nicira::BadConjunction.into());
    }
    // Clones in clones have an end.
    let nest = |depth: usize| (0..depth).fold(vec![], |inner, _| clone_of(&inner));
    assert!(matches!(decode(&flow_mod(&[], &apply_of(&nest(16)))), Ok(Message::FlowMod(_))));
    assert_eq!(refused(&nest(18)), BadAction::TooMany.into());
    assert_eq!(refused(&nest(3000)), BadAction::TooMany.into());
}

#[test]
fn faults_of_flow_mods_groups_meters_and_roles_have_their_errors() {
    let mut unknown_command = flow_mod(&[], &[]);
    unknown_command[25] = 5;
    assert_eq!(decode(&unknown_command).unwrap_err(), FlowModFailed::BadCommand.into());
    let mut unknown_flag = flow_mod(&[], &[]);
    unknown_flag[45] = 0x20;
    assert_eq!(decode(&unknown_flag).unwrap_err(), FlowModFailed::BadFlags.into());
    let too_many = [0, 24, 0, 8, 0, 0, 0, 0].repeat(7600);
    let mut apply = vec![0, 4];
    apply.put_u16(8 + too_many.len() as u16);
    apply.put_zeros(4);
    apply.extend_from_slice(&too_many);
    assert_eq!(decode(&flow_mod(&[], &apply)).unwrap_err(), BadAction::TooMany.into());

    // The longest that are taken can be sent back, with the longest match.
    let moves = hex("ffff0018 00002320 00060008 00000000 80005402 00010004").repeat(2490);
    let Ok(Message::FlowMod(taken)) = decode(&flow_mod(&[], &apply_of(&moves))) else { panic!() };
    let stats = FlowStats { matching: longest_match(), ..flow_stats(taken.flow_mod.instructions) };
    let reply = MultipartReply { body: MultipartBody::Flow(vec![stats.clone(), stats]), more: false };
    let stream = bytes(&Message::MultipartReply(reply), 1);
    let lengths: Vec<_> = split(&stream).iter().map(|part| part.len()).collect();
    assert!(lengths.len() == 2 && lengths.iter().all(|length| *length > 24 * 2490), "{lengths:?}");

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
    for band in
        ["0001 0003", "0001 0010 00000001 00000000 000000", "0001 0018 00000001 00000000 00000000", "0003 0010 00000001 00000000 00000000"]
    {
        assert_eq!(refused(29, &format!("0000 0001 00000001 {band}")), MeterModFailed::BadBand.into(), "{band}");
    }
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
    assert_eq!(error.error_code(), Some(BadRequest::BadLen.into()));
    // An experimenter's error begins with its id.
    let error = Error::new(BundleFailed::Timeout.into(), &long);
    assert_eq!(bytes(&Message::Error(error.clone()), 9).len(), 0xffff);
    assert_eq!((error.kind, error.code, &error.data[..4]), (0xffff, 2314, &b"ONF\0"[..]));
    assert_eq!(error.error_code(), Some(BundleFailed::Timeout.into()));
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
