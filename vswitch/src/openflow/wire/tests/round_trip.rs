//! What is written is read back as it was.

use super::*;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

/// What `message` says, and what its bytes say.
fn there_and_back(message: &Message) -> (String, String) {
    let bytes = bytes(message, 0xfeed);
    assert_eq!(Header::decode(&bytes).unwrap().xid, 0xfeed);
    (format!("{message:?}"), format!("{:?}", decode(&bytes).unwrap_or_else(|error| panic!("{error} {message:?}"))))
}

#[test]
fn every_sample_comes_back() {
    for sample in samples() {
        let (before, after) = there_and_back(&sample);
        assert_eq!(before, after);
    }
}

/// Matches of all kinds of frames, with prerequisites met.
pub fn matches() -> impl Strategy<Value = Match> {
    let types = (any::<bool>(), prop_oneof![Just(None), select(&[0x0800, 0x86dd, 0x0806, 0x8847, 0x88e7, 0x1234]).prop_map(Some)]);
    let protocols = prop_oneof![Just(None), select(&[1, 6, 17, 58, 132, 99]).prop_map(Some)];
    let icmp = prop_oneof![Just(None), Just(Some(135)), Just(Some(136))];
    let parts = vec((any::<u128>(), any::<u128>(), 0u8..4), Field::ALL.len());
    (types, protocols, icmp, parts).prop_map(|((vlan, eth_type), protocol, icmp, parts)| {
        let mut matching = Match::ANY;
        let (eth_type, protocol, icmp): (Option<u128>, Option<u128>, Option<u128>) = (eth_type, protocol, icmp);
        for (field, (value, mask, how)) in Field::ALL.iter().copied().zip(parts) {
            if field.info().view || !matching.permits(field) {
                continue;
            }
            let fixed = match field {
                Field::EthType => eth_type,
                Field::IpProto => protocol,
                Field::Icmpv6Type => icmp,
                Field::Icmpv6Code if icmp.is_some() => Some(0),
                Field::VlanVid if vlan => Some(value | 0x1000),
                Field::VlanVid => None,
                _ => {
                    match how {
                        0 => matching = matching.with(field, value),
                        1 if field.info().maskable => matching = matching.with_masked(field, value, mask),
                        _ => {}
                    }
                    None
                }
            };
            if let Some(value) = fixed {
                matching = matching.with(field, value);
            }
        }
        matching
    })
}

fn writable() -> impl Strategy<Value = Field> {
    let fields: Vec<_> = Field::ALL.iter().copied().filter(|field| field.info().writable).collect();
    select(fields)
}

fn range() -> impl Strategy<Value = FieldRange> {
    (writable(), any::<u8>(), any::<u8>()).prop_map(|(field, offset, bits)| {
        let offset = offset % field.bits();
        FieldRange { field, offset, bits: 1 + bits % (field.bits() - offset) }
    })
}

pub fn actions() -> impl Strategy<Value = Vec<OfAction>> {
    let port = || prop_oneof![1u32..70_000, 0xffff_fffau32..0xffff_ffff].prop_map(PortNo);
    let action = prop_oneof![
        (port(), any::<u16>()).prop_map(|(port, max_len)| OfAction::Output { port, max_len }),
        (writable(), any::<u128>(), any::<u128>(), any::<bool>()).prop_map(|(field, value, mask, part)| {
            let mask = if part && field.info().maskable && mask & field.ones() != 0 { mask & field.ones() } else { field.ones() };
            OfAction::SetField { field, value: value & mask, mask }
        }),
        (range(), range()).prop_map(|(mut source, mut destination)| {
            source.bits = source.bits.min(destination.bits);
            destination.bits = source.bits;
            OfAction::Move { source, destination }
        }),
        (range(), any::<u64>()).prop_map(|(mut destination, value)| {
            destination.bits = destination.bits.min(64);
            OfAction::Load { destination, value: value & (u64::MAX >> (64 - destination.bits)) }
        }),
        prop_oneof![Just(0x8100), Just(0x88a8)].prop_map(OfAction::PushVlan),
        Just(OfAction::PopVlan),
        any::<u8>().prop_map(OfAction::SetNwTtl),
        Just(OfAction::DecNwTtl),
        (1u32..0xff00, of(0u8..254)).prop_map(|(port, table)| OfAction::Resubmit { port: PortNo(port), table }),
        any::<(u16, u16, u8)>().prop_map(|(max_len, controller_id, reason)| OfAction::Controller { max_len, controller_id, reason }),
        any::<u32>().prop_map(OfAction::SetQueue),
        any::<u32>().prop_map(OfAction::Group),
    ];
    vec(action, 0..8)
}

fn instructions() -> impl Strategy<Value = Instructions> {
    (of(any::<u32>()), actions(), any::<bool>(), actions(), of(any::<(u64, u64)>()), of(any::<u8>())).prop_map(
        |(meter, apply, clear, write, metadata, goto)| Instructions {
            meter,
            apply,
            clear,
            write,
            metadata: metadata.map(|(value, mask)| (value & mask, mask)),
            goto,
        },
    )
}

proptest! {
    #[test]
    fn flow_mods_come_back(matching in matches(), instructions in instructions(), numbers in any::<(u8, u16, u64, u64, u16, u16, u32, u32)>(), flags in 0u16..32) {
        let (table, priority, cookie, cookie_mask, idle_timeout, hard_timeout, out_port, out_group) = numbers;
        let flow_mod = FlowMod {
            command: FlowModCommand::ModifyStrict, table, matching, priority, cookie, cookie_mask, idle_timeout, hard_timeout,
            flags: RuleFlags(flags), instructions, out_port: PortNo(out_port), out_group,
        };
        let (before, after) = there_and_back(&Message::FlowMod(Box::new(FlowModMessage { flow_mod, buffer_id: 7 })));
        prop_assert_eq!(before, after);
    }

    #[test]
    fn packets_come_back(matching in matches(), actions in actions(), data in vec(any::<u8>(), 0..2000)) {
        let packet_in = PacketIn { total_len: 9000, reason: 2, table: 1, cookie: u64::MAX, matching, data: data.clone() };
        let packet_out = PacketOut { buffer_id: NO_BUFFER, in_port: PortNo::LOCAL, actions, data };
        for message in [Message::PacketIn(Box::new(packet_in)), Message::PacketOut(packet_out)] {
            let (before, after) = there_and_back(&message);
            prop_assert_eq!(before, after);
        }
    }
}

#[test]
fn a_long_reply_is_sent_in_parts_that_add_up() {
    let rule = flow_stats(Instructions { apply: every_action(), ..Instructions::default() });
    let rules: Vec<_> = (0..1000).map(|cookie| FlowStats { cookie, ..rule.clone() }).collect();
    let reply = MultipartReply { body: MultipartBody::Flow(rules.clone()), more: false };
    let stream = bytes(&Message::MultipartReply(reply), 5);
    let parts = split(&stream);
    assert!(parts.len() > 5);
    let mut received = Vec::new();
    for (i, part) in parts.iter().enumerate() {
        let Ok(Message::MultipartReply(MultipartReply { body: MultipartBody::Flow(some), more })) = decode(part) else { panic!() };
        assert_eq!(more, i + 1 < parts.len());
        assert!(part.len() > 60_000 || !more, "messages are filled");
        received.extend(some);
    }
    assert_eq!(received, rules);
}

#[test]
fn a_frame_too_long_for_a_packet_in_is_cut() {
    let all =
        Field::ALL.iter().filter(|field| !field.info().view && matches!(field.info().prerequisite, datapath::key::Prerequisite::None));
    let matching = all.fold(Match::ANY, |matching, field| match field.info().maskable {
        true => matching.with_masked(*field, 1, 1),
        false => matching.with(*field, 1),
    });
    let packet_in = PacketIn { total_len: 0xffff, reason: 0, table: 0, cookie: 0, matching, data: vec![1; 0xffff] };
    let bytes = bytes(&Message::PacketIn(Box::new(packet_in)), 0);
    assert!(bytes.len() <= 0xffff);
    let Ok(Message::PacketIn(read)) = decode(&bytes) else { panic!() };
    assert_eq!(read.data.len(), MAX_PACKET_IN_DATA);
}
