//! What is written is read back as it was, or as what OpenFlow 1.0 has for it.

use super::super::super::bytes::Reader;
use super::super::super::tests::generate::matches;
use super::super::{action, matching};
use super::*;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

/// What `message` says, and what its bytes say.
fn there_and_back(dialect: &Dialect, message: &Message) -> (String, String) {
    let bytes = bytes(dialect, message, 0xfeed);
    let header = Header::decode(&bytes).unwrap();
    assert_eq!((header.version, header.xid), (1, 0xfeed));
    (format!("{message:?}"), format!("{:?}", decode(dialect, &bytes).unwrap_or_else(|error| panic!("{error} {message:?}"))))
}

#[test]
fn every_sample_comes_back() {
    for dialect in dialects() {
        for sample in samples(&dialect) {
            let (before, mut after) = there_and_back(&dialect, &sample);
            if before == "Hello(Hello { versions: 18 })" && after.starts_with("Hello") {
                // Its version in the header would be 4.
                after = before.clone();
            }
            assert_eq!(before, after);
        }
    }
}

#[test]
fn every_error_comes_back_that_has_a_number_of_its_own() {
    let [dialect, ..] = dialects();
    for error in ErrorCode::ALL {
        let message = Message::Error(Error::new(*error, b"what was wrong"));
        let Ok(Message::Error(after)) = decode(&dialect, &bytes(&dialect, &message, 1)) else { panic!() };
        match after.error_code() {
            Some(ErrorCode::BadRequest(BadRequest::Eperm)) => assert!(error.says().contains("ermission") || error.says().contains("slave")),
            Some(code) => assert_eq!((code, after.data.ends_with(b"what was wrong")), (*error, true)),
            // It is said that there was one, and nothing else.
            None => assert_eq!((after.kind, after.code, &after.data[..]), (0xb0c2, 0, &b"\0\0\x23\x20\0\x01\x02\x09what was wrong"[..])),
        }
    }
    let unknown = Message::Error(Error { kind: 77, code: 8, data: vec![1] });
    let (before, after) = there_and_back(&dialect, &unknown);
    assert_eq!(before, after);
}

/// The match that the bytes of `matching` say, and whether all of it matters.
fn standard(matching: &Match) -> (Match, bool) {
    let mut out = Vec::new();
    matching::put(&mut out, matching);
    assert_eq!(out.len(), matching::LENGTH);
    matching::decode(&mut Reader::new(&out, BadRequest::BadLen)).unwrap()
}

/// Matches that `struct ofp_match` can say.
pub fn standard_matches() -> impl Strategy<Value = Match> {
    let types =
        (of(prop_oneof![1u32..0xff00, 0xffff_fff8u32..0xffff_ffff]), select(&[0u16, 0x0800, 0x86dd, 0x0806, 0x8035, 0x8847, 0x1234]));
    let protocol = select(&[None, Some(1u8), Some(6), Some(17), Some(58), Some(132), Some(99)]);
    let vlan = select(&[None, Some((0u16, 0x1fffu16)), Some((0x1005, 0x1fff)), Some((0x6000 | 0x1000, 0xf000)), Some((0xf009, 0xffff))]);
    let addresses = (any::<(u64, u64)>(), any::<(u32, u32)>(), (0u32..33, 0u32..33));
    let rest = (any::<(u16, u16)>(), any::<u8>(), any::<[bool; 6]>());
    (types, protocol, vlan, addresses, rest).prop_map(
        |((in_port, eth_type), protocol, vlan, (eth, ip, prefixes), (ports, tos, [src, dst, with_tos, tp_src, tp_dst, op]))| {
            let mut matching = Match::ANY;
            let mut with = |when: bool, field: Field, value: u128, mask: u128| {
                if when && matching.permits(field) {
                    matching = matching.with_masked(field, value, mask);
                }
            };
            with(in_port.is_some(), Field::InPort, in_port.unwrap_or_default().into(), u128::MAX);
            with(src, Field::EthSrc, eth.0.into(), u128::MAX);
            with(dst, Field::EthDst, eth.1.into(), u128::MAX);
            with(eth_type != 0, Field::EthType, eth_type.into(), u128::MAX);
            let (tci, tci_mask) = vlan.unwrap_or_default();
            with(vlan.is_some(), Field::VlanTci, tci.into(), tci_mask.into());
            with(with_tos, Field::IpDscp, (tos >> 2).into(), u128::MAX);
            with(protocol.is_some(), Field::IpProto, protocol.unwrap_or_default().into(), u128::MAX);
            with(op, Field::ArpOp, tos.into(), u128::MAX);
            let prefix = |bits: u32| u128::from(u32::MAX.checked_shl(32 - bits).unwrap_or(0));
            for (fields, value, bits) in
                [([Field::Ipv4Src, Field::ArpSpa], ip.0, prefixes.0), ([Field::Ipv4Dst, Field::ArpTpa], ip.1, prefixes.1)]
            {
                fields.into_iter().for_each(|field| with(true, field, value.into(), prefix(bits)));
            }
            for field in matching::SOURCES {
                with(tp_src, field, ports.0.into(), u128::MAX);
            }
            for field in matching::DESTINATIONS {
                with(tp_dst, field, ports.1.into(), u128::MAX);
            }
            matching
        },
    )
}

/// Whether an action's meaning depends on what the match says of the protocol.
fn is_transport_port(action: &OfAction) -> bool {
    matches!(action, OfAction::SetField { field, .. } if TRANSPORT_PORTS.as_flattened().contains(field))
}

const TRANSPORT_PORTS: [[Field; 3]; 2] = [[Field::TcpSrc, Field::UdpSrc, Field::SctpSrc], [Field::TcpDst, Field::UdpDst, Field::SctpDst]];

/// Actions that OpenFlow 1.0 has.
pub fn actions() -> impl Strategy<Value = Vec<OfAction>> {
    let samples = every_action();
    let count = samples.len();
    let port = || prop_oneof![1u32..0xff00, 0xffff_fff8u32..0xffff_ffff].prop_map(PortNo);
    let action = prop_oneof![
        2 => (0..count).prop_map(move |which| vec![samples[which].clone()]),
        1 => (port(), any::<u16>()).prop_map(|(port, max_len)| vec![OfAction::Output { port, max_len }]),
        1 => (1u32..0xff00, any::<u32>()).prop_map(|(port, queue)| vec![OfAction::Enqueue { port: PortNo(port), queue }]),
        1 => (select(&[Field::EthSrc, Field::EthDst, Field::Ipv4Src, Field::Ipv4Dst, Field::IpDscp, Field::TunnelId]), any::<u128>())
            .prop_map(|(field, value)| vec![set(field, value & field.ones())]),
        // One for the transport protocols of any frame.
        1 => (select(&TRANSPORT_PORTS), any::<u16>()).prop_map(|(fields, value)| fields.map(|field| set(field, value.into())).to_vec()),
    ];
    // The samples have some for TCP only.
    let any_protocol = |list: &Vec<OfAction>| list.len() > 1 || !is_transport_port(&list[0]);
    vec(action, 0..8).prop_map(move |lists| lists.into_iter().filter(any_protocol).flatten().collect())
}

#[test]
fn what_openflow_10_has_no_words_for_is_left_out() {
    let instructions = Instructions {
        meter: Some(1),
        apply: [
            OfAction::PushVlan(0x8100),
            set(Field::VlanVid, 0x1005),
            OfAction::CopyTtlIn,
            OfAction::PushPbb,
            OfAction::Output { port: PortNo(70_000), max_len: 0 },
            OfAction::SetNwTtl(3),
            OfAction::Output { port: PortNo(2), max_len: 0 },
        ]
        .into(),
        clear: true,
        write: [OfAction::PopVlan].into(),
        metadata: Some((0x5, 0xf)),
        goto: Some(9),
    };
    let load = |field, offset, bits, value| OfAction::Load { destination: FieldRange { field, offset, bits }, value };
    let left = [
        OfAction::SetVlanVid(5),
        load(Field::NwTtl, 0, 8, 3),
        OfAction::Output { port: PortNo(2), max_len: 0 },
        load(Field::Metadata, 0, 4, 5),
        OfAction::Resubmit { port: PortNo::IN_PORT, table: Some(9) },
    ];
    let mut out = Vec::new();
    action::put_instructions(&mut out, &instructions, usize::MAX);
    let read = action::decode_instructions(Reader::new(&out, BadRequest::BadLen), &Match::ANY).unwrap();
    assert_eq!(read, apply(left));

    // Alone, the metadata stays what it is.
    out.clear();
    action::put_instructions(&mut out, &Instructions { goto: None, apply: [].into(), ..instructions }, usize::MAX);
    let read = action::decode_instructions(Reader::new(&out, BadRequest::BadLen), &Match::ANY).unwrap();
    assert_eq!(read, Instructions { metadata: Some((0x5, 0xf)), ..Instructions::default() });

    // And so are ports of which there is more than 16 bits.
    let [dialect, ..] = dialects();
    let far = PortDesc { number: PortNo(70_000), ..port_desc() };
    assert!(bytes(&dialect, &Message::PortStatus(PortStatus { reason: PortReason::Add, port: far.clone() }), 1).is_empty());
    let ports = vec![far, port_desc()];
    let reply = Message::MultipartReply(MultipartReply { body: MultipartBody::PortDesc(ports), more: false });
    let Ok(Message::MultipartReply(reply)) = decode(&dialect, &bytes(&dialect, &reply, 1)) else { panic!() };
    assert_eq!(reply.body, MultipartBody::PortDesc(vec![port_desc()]));
    assert!(bytes(&dialect, &Message::GetAsyncRequest, 1).is_empty());
}

#[test]
fn fields_that_are_written_in_part_or_wide_are_loaded() {
    let loads = |field: Field, value, mask| {
        let mut out = Vec::new();
        action::put_actions(&mut out, &[OfAction::SetField { field, value, mask }], usize::MAX);
        action::decode_actions(Reader::new(&out, BadRequest::BadLen)).unwrap()
    };
    let load = |field, offset, bits, value| OfAction::Load { destination: FieldRange { field, offset, bits }, value };
    let ones = Field::Ipv6Dst.ones();
    assert_eq!(loads(Field::Ipv6Dst, 7 << 64 | 9, ones), [load(Field::Ipv6Dst, 0, 64, 9), load(Field::Ipv6Dst, 64, 64, 7)]);
    assert_eq!(loads(Field::EthDst, 0x0200_0000_0001, 0xff00_0000_00ff), [load(Field::EthDst, 0, 8, 1), load(Field::EthDst, 40, 8, 2)]);
    assert_eq!(loads(Field::VlanVid, 0, 0x1fff), [load(Field::VlanVid, 0, 13, 0)]);
}

#[test]
fn a_rule_too_long_for_a_message_is_told_of_as_far_as_it_fits() {
    for dialect in dialects() {
        let set = |value: u128| OfAction::SetField { field: Field::Ipv6Src, value, mask: Field::Ipv6Src.ones() };
        let long = flow_stats(&dialect, apply((0..2000).map(set).collect::<Vec<_>>()));
        let short = flow_stats(&dialect, Instructions::default());
        let reply = MultipartReply { body: MultipartBody::Flow(vec![short.clone(), long, short]), more: false };
        let stream = bytes(&dialect, &Message::MultipartReply(reply), 1);
        let parts = split(&stream);
        assert_eq!(parts.len(), 3);
        let mut rules = Vec::new();
        for (i, part) in parts.into_iter().enumerate() {
            let Ok(Message::MultipartReply(MultipartReply { body: MultipartBody::Flow(some), more })) = decode(&dialect, part) else {
                panic!()
            };
            assert_eq!(more, i < 2);
            rules.extend(some);
        }
        let lengths: Vec<_> = rules.iter().map(|rule| rule.instructions.apply.len()).collect();
        assert!(lengths[0] == 0 && lengths[2] == 0 && (2600..2 * 2000).contains(&lengths[1]), "{lengths:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn matches_of_twelve_fields_come_back(matching in standard_matches()) {
        prop_assert_eq!(standard(&matching).0, matching);
    }

    #[test]
    fn of_any_match_what_twelve_fields_can_say_is_said(matching in matches()) {
        // Once said, it is said the same again.
        let (said, _) = standard(&matching);
        prop_assert_eq!(standard(&said).0, said);
        // Nothing is said of other fields than those of the match.
        for found in said.fields() {
            prop_assert!(matching.get(found.field).is_some(), "{}: {}", found.field.name(), matching);
        }
    }

    #[test]
    fn any_match_comes_back_in_niciras_form(matching in matches()) {
        let [_, nicira, _] = dialects();
        let message = flow_mod(FlowModCommand::Add, matching, Instructions::default());
        let (before, after) = there_and_back(&nicira, &message);
        prop_assert_eq!(before, after);
    }

    #[test]
    fn actions_come_back(actions in actions()) {
        let mut out = Vec::new();
        action::put_actions(&mut out, &actions, usize::MAX);
        let read = action::decode_actions(Reader::new(&out, BadRequest::BadLen)).unwrap();
        prop_assert_eq!(read, actions);
    }

    #[test]
    fn flow_mods_come_back(
        matching in standard_matches(), actions in actions(), command in 0usize..5, which in 0usize..3,
        numbers in any::<(u8, u16, u64, u16, u16, u32)>(), flags in 0u16..4, out_port in 1u32..0xff00, cookie in of(any::<(u64, u64)>()),
    ) {
        use FlowModCommand::*;
        let dialect = dialects()[which];
        let command = [Add, Modify, ModifyStrict, Delete, DeleteStrict][command];
        let (table, priority, own_cookie, idle_timeout, hard_timeout, buffer_id) = numbers;
        let actions: Vec<_> = actions.into_iter().filter(|action| !is_transport_port(action)).collect();
        let Message::FlowMod(base) = flow_mod(command, matching, apply(actions)) else { unreachable!() };
        let mut flow_mod = FlowMod { priority, idle_timeout, hard_timeout, out_port: PortNo(out_port), ..base.flow_mod };
        flow_mod.flags.0 |= flags;
        if dialect.table_ids {
            flow_mod.table = if command == Add && table == 0xff { 0 } else { table };
        }
        let modifies = matches!(command, Modify | ModifyStrict);
        match cookie {
            _ if command == Add => flow_mod.cookie = own_cookie,
            Some((value, mask)) if dialect.told == FlowFormat::Nxm && mask != 0 => {
                (flow_mod.cookie, flow_mod.cookie_mask) = (value & mask, mask);
            }
            _ if modifies => flow_mod.new_cookie = Some(own_cookie).filter(|cookie| *cookie != u64::MAX),
            _ => {}
        }
        if !dialect.table_ids && dialect.told == FlowFormat::OpenFlow10 && standard(&flow_mod.matching).1 {
            flow_mod.priority = 0xffff;
        }
        let message = Message::FlowMod(Box::new(FlowModMessage { flow_mod, buffer_id }));
        let (before, after) = there_and_back(&dialect, &message);
        prop_assert_eq!(before, after);
    }

    #[test]
    fn rules_come_back(matching in matches(), actions in actions(), numbers in any::<(u8, u16, u64, u64, u64, u16)>(), ages in (0u16..65534, 0u16..65534)) {
        let [_, nicira, _] = dialects();
        let (table, priority, cookie, frames, bytes, hard_timeout) = numbers;
        let instructions = apply(actions.into_iter().filter(|action| !is_transport_port(action)).collect::<Vec<_>>());
        let rule = FlowStats {
            table, priority, cookie, frames, bytes, hard_timeout, matching, instructions,
            idle_age: Some(ages.0), change_age: Some(ages.1), ..flow_stats(&nicira, Instructions::default())
        };
        let reply = Message::MultipartReply(MultipartReply { body: MultipartBody::Flow(vec![rule]), more: false });
        let (before, after) = there_and_back(&nicira, &reply);
        prop_assert_eq!(before, after);
    }
}
