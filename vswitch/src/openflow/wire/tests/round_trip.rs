//! What is written is read back as it was.

use super::*;
use proptest::prelude::*;

/// What `message` says, and what its bytes say.
fn there_and_back(message: &Message) -> (String, String) {
    let xid = xid_for(message, 0xfeed);
    let bytes = bytes(message, xid);
    assert_eq!(Header::decode(&bytes).unwrap().xid, xid);
    (format!("{message:?}"), format!("{:?}", decode(&bytes).unwrap_or_else(|error| panic!("{error} {message:?}"))))
}

#[test]
fn every_sample_comes_back() {
    for sample in samples() {
        let (before, after) = there_and_back(&sample);
        assert_eq!(before, after);
    }
}

#[test]
fn what_open_vswitch_does_not_have_comes_back_too() {
    let instructions = Instructions { apply: actions_of_the_standard_only().into(), ..Instructions::default() };
    let matching = Match::ANY.with(Field::EthType, 0x88e7).with(Field::PbbIsid, 0x12_3456).with(Field::PbbUca, 1);
    let extensions = Match::ANY.with(Field::EthType, 0x86dd).with_masked(Field::Ipv6Exthdr, 0x01, 0x41);
    for matching in [matching, extensions] {
        let flow_mod = FlowMod { matching, instructions: instructions.clone(), ..FlowMod::default() };
        let (before, after) = there_and_back(&Message::FlowMod(Box::new(FlowModMessage { flow_mod, buffer_id: NO_BUFFER })));
        assert_eq!(before, after);
    }
}

#[test]
fn actions_of_openflow_10_are_sent_as_what_amounts_to_the_same() {
    let tci = |offset, bits, value| OfAction::Load { destination: super::range(Field::VlanTci, offset, bits), value };
    let output = OfAction::Output { port: PortNo(3), max_len: CONTROLLER_WHOLE };
    let actions = [OfAction::SetVlanVid(5), OfAction::SetVlanPcp(6), OfAction::Enqueue { port: PortNo(3), queue: 2 }];
    let expected = [tci(0, 13, 0x1005), tci(12, 4, 0xd), OfAction::SetQueue(2), output, OfAction::PopQueue];
    let instructions = Instructions { apply: actions.into(), ..Instructions::default() };
    let flow_mod = FlowMod { instructions, ..FlowMod::default() };
    let sent = bytes(&Message::FlowMod(Box::new(FlowModMessage { flow_mod, buffer_id: NO_BUFFER })), 1);
    let Ok(Message::FlowMod(read)) = decode(&sent) else { panic!() };
    assert_eq!(*read.flow_mod.instructions.apply, expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn messages_come_back((message, xid) in generate::messages()) {
        let bytes = bytes(&message, xid);
        let parts = split(&bytes);
        prop_assert_eq!(parts.len(), 1);
        prop_assert_eq!(Header::decode(&bytes).map(|header| header.xid), Some(xid));
        let read = decode(&bytes);
        prop_assert_eq!(format!("{read:?}"), format!("{:?}", Ok::<_, ErrorCode>(message)));
    }
}

#[test]
fn a_long_reply_is_sent_in_parts_that_add_up() {
    let rule = flow_stats(Instructions { apply: every_action().into(), ..Instructions::default() });
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
    let matching = longest_match();
    for (format, length) in [
        (PacketInFormat::Standard, MAX_PACKET_IN_DATA),
        (PacketInFormat::Nicira, MAX_PACKET_IN_DATA),
        (PacketInFormat::Nicira2, MAX_PACKET_IN_DATA - 64 - 3000),
    ] {
        let userdata = if format == PacketInFormat::Nicira2 { vec![2; 3000] } else { vec![] };
        let (data, matching) = (vec![1; 0xffff], matching);
        let packet_in = PacketIn { format, total_len: 0xffff, reason: 0, table: 0, cookie: 0, matching, data, userdata };
        let bytes = bytes(&Message::PacketIn(Box::new(packet_in)), 0);
        assert!(bytes.len() <= 0xffff);
        let Ok(Message::PacketIn(read)) = decode(&bytes) else { panic!() };
        assert_eq!((read.data.len(), read.total_len), (length, 0xffff));
    }
}
