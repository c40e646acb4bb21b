//! OpenFlow 1.0 as `ovs-ofctl` reads and writes it.

use super::super::super::bytes::Reader;
use super::super::super::tests::generate::matches;
use super::super::super::tests::ofctl::{many, ofctl, print, read_actions, text};
use super::super::super::tests::text::error_name;
use super::super::{action, matching};
use super::round_trip::{actions, standard_matches};
use super::*;
use proptest::prelude::{Strategy, any};

#[test]
fn every_message_is_read_as_it_was_meant() {
    let [standard, _, nicira] = dialects();
    let standard: Vec<_> = samples(&standard).iter().zip(0..).map(|(message, xid)| bytes(&standard, message, xid)).collect();
    let nicira = samples(&nicira).into_iter().zip(0..).map(|(message, xid)| bytes(&nicira, &message, xid));
    let others: Vec<_> = nicira.filter(|message| !standard.contains(message)).collect();
    let stream = [standard, others].concat().concat();
    let Some(text) = print(stream) else { return };
    let expected = include_str!("ofctl.txt");
    for (line, expected) in text.lines().zip(expected.lines()) {
        assert_eq!(line, expected);
    }
    assert_eq!(text.lines().count(), expected.lines().count());
}

#[test]
fn every_error_is_written_as_open_vswitch_writes_it() {
    let [dialect, ..] = dialects();
    let request = bytes(&dialect, &Message::FeaturesRequest, 9);
    for error in ErrorCode::ALL {
        let Some(dump) = ofctl(&["encode-error-reply", &error_name(*error), &text(&request)], String::new()) else { return };
        // A hex dump: the offset, the bytes, and their characters if they are all printable.
        let theirs: Vec<u8> = dump.lines().flat_map(|line| hex(&line[8..line.len().min(58)].replace('-', " "))).collect();
        assert_eq!(text(&theirs), text(&bytes(&dialect, &Message::Error(Error::new(*error, &request)), 9)), "{error:?}: {dump}");
    }
}

#[test]
fn random_structs_of_twelve_fields_are_read_alike() {
    // Bytes of all kinds, most of them with an Ethernet type and a protocol that mean something.
    let random = (any::<[u8; 40]>(), 0usize..8, 0usize..8, any::<u8>()).prop_map(|(mut bytes, eth_type, protocol, wildcards)| {
        if let Some(eth_type) = [0x0800u16, 0x0800, 0x86dd, 0x0806, 0x8035, 0x8847, 0x05ff].get(eth_type) {
            bytes[22..24].copy_from_slice(&eth_type.to_be_bytes());
        }
        if let Some(protocol) = [1, 6, 17, 58, 132, 0].get(protocol) {
            bytes[25] = *protocol;
        }
        // Few fields, or all that the random bytes say.
        if wildcards & 1 != 0 {
            bytes[3] |= 0x0d;
            bytes[3] &= !0x30;
        }
        bytes
    });
    let structs = many(10_000, random);
    let Some(output) = ofctl(&["parse-ofp10-match"], structs.iter().map(|bytes| text(bytes) + "\n").collect()) else { return };
    // For each: the match, then which bytes are others when it is written again, first as it was read, then without fields that its frames don't have.
    let mut lines = output.lines();
    let (mut compared, mut impossible) = (0, 0);
    for bytes in &structs {
        lines.next().unwrap();
        let mut theirs = *bytes;
        for line in lines.by_ref().take_while(|line| !line.is_empty()) {
            let (at, change) = line.trim_start_matches("normal:").trim().split_once(':').unwrap();
            let (_, to) = change.split_once("->").unwrap();
            theirs[at.parse::<usize>().unwrap()] = u8::from_str_radix(to.trim(), 16).unwrap();
        }
        match matching::decode(&mut Reader::new(bytes, BadRequest::BadLen)) {
            Ok((read, _)) => {
                let mut ours = Vec::new();
                matching::put(&mut ours, &read);
                assert_eq!(text(&ours), text(&theirs), "{read} of {}", text(bytes));
                compared += 1;
            }
            Err(_) => {
                // Types and codes of ICMP beyond a byte, which Open vSwitch takes.
                assert!([1, 58].contains(&bytes[25]) && (bytes[36] != 0 || bytes[38] != 0), "{}", text(bytes));
                impossible += 1;
            }
        }
    }
    assert!(compared > 7_000 && impossible < 3_000 && lines.next().is_none(), "{compared} {impossible}");
}

/// What Open vSwitch takes and this switch does not: actions and fields that are not there, values that do not fit, and fewer controllers than there is room for.
const NOT_HERE: [&str; 6] = ["fin_", "NXM_NX_TUN_", "ct_clear", "set_mpls_", "learn(", "dec_ttl()"];

#[test]
fn random_actions_are_read_and_written_alike() {
    // Actions that there are, half of the lists with a byte flipped.
    let random = (actions(), any::<bool>(), any::<proptest::sample::Index>(), any::<u8>()).prop_map(|(actions, flip, at, with)| {
        let mut out = Vec::new();
        action::put_actions(&mut out, &actions, usize::MAX);
        if flip && !out.is_empty() {
            let at = at.index(out.len());
            out[at] = with;
        }
        out
    });
    let lists: Vec<_> = many(20_000, random).into_iter().filter(|bytes| !bytes.is_empty()).collect();
    let Some(all_theirs) = read_actions("OpenFlow10", &lists) else { return };
    let (mut alike, mut paddings, mut others) = (0, Vec::new(), 0);
    for (bytes, theirs) in lists.iter().zip(all_theirs) {
        let ours = action::decode_actions(Reader::new(bytes, BadAction::BadLen)).map(|read| {
            let mut ours = Vec::new();
            action::put_actions(&mut ours, &read, usize::MAX);
            ours
        });
        match (ours, theirs) {
            (Ok(ours), Ok((said, theirs))) => {
                assert_eq!(text(&ours), text(&theirs), "{said}");
                alike += 1;
            }
            (Err(ours), Err(error)) if error_name(ours) == error => alike += 1,
            // Nicira's actions have more faults than errors.
            (Err(_), Err(_)) => others += 1,
            (Ok(ours), Err(error)) => {
                assert!(["NXBRC_MUST_BE_ZERO", "OFPBAC_BAD_ARGUMENT"].contains(&error.as_str()), "{error}: {}", text(bytes));
                paddings.push(ours);
            }
            (Err(ours), Ok((said, _))) => {
                assert!(NOT_HERE.iter().any(|what| said.contains(what)), "{}: {said}", error_name(ours));
                others += 1;
            }
        }
    }
    assert!(alike > 16_000 && others < 500, "{alike} {others}");
    // What only we have read differs in its padding: written by us, they read it.
    for theirs in read_actions("OpenFlow10", &paddings).unwrap() {
        theirs.unwrap();
    }
}

#[test]
fn random_rules_are_told_of_as_they_were_meant() {
    // Fields that Open vSwitch does not have, and values that it does not take.
    let known = |matching: &Match| {
        let unknown = [Field::Ipv6Exthdr, Field::PbbIsid, Field::PbbUca];
        !unknown.iter().any(|field| matching.get(*field).is_some()) && !matching.to_string().contains("nw_frag=0x")
    };
    let shorten = |matching: Match, field| match matching.get(field) {
        Some(found) => matching.with(field, 1 + found.value % 0xff),
        None => matching,
    };
    let any_matches: Vec<Match> =
        many(5_000, matches()).into_iter().filter(known).map(|matching| shorten(shorten(matching, Field::InPort), Field::ArpOp)).collect();
    let [standard, nicira, _] = dialects();
    for (dialect, matches) in [(nicira, any_matches), (standard, many(5_000, standard_matches()))] {
        let rules =
            matches.iter().map(|matching| FlowStats { matching: *matching, ..flow_stats(&dialect, Instructions::default()) }).collect();
        let mut stream = Vec::new();
        dialect.encode(&Message::MultipartReply(MultipartReply { body: MultipartBody::Flow(rules), more: false }), 0, &mut stream);
        let Some(text) = print(stream) else { return };
        let mut listed = text.lines().filter_map(|line| line.split_once(" priority=100"));
        for matching in &matches {
            let (_, text) = listed.next().unwrap();
            let (text, _) = text.split_once(" actions=").unwrap();
            // Without a tag, all of the TCI is zero.
            assert_eq!(text.trim_start_matches(','), matching.to_string().replace("vlan_tci=0x0000/0x1fff", "vlan_tci=0x0000"));
        }
        assert!(listed.next().is_none() && matches.len() > 3_000);
    }
}
