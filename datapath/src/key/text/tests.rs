//! The text form against itself, and against `ovs-ofctl`.

use super::*;
use crate::key::{FlowKey, KeyMask, ParseMatchError, Words};
use proptest::prelude::*;
use std::io::Write;
use std::process::{Command, Stdio};

fn parse(text: &str) -> Match {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Texts and what they are printed as. Each is checked against `ovs-ofctl` too, if there is one.
const EXAMPLES: &[(&str, &str)] = &[
    ("", ""),
    ("in_port=1", "in_port=1"),
    ("in_port=local", "in_port=LOCAL"),
    ("in_port=CONTROLLER", "in_port=CONTROLLER"),
    ("dl_vlan=5", "dl_vlan=5"),
    ("dl_vlan=0xffff", "vlan_tci=0x0000/0x1fff"),
    ("dl_vlan_pcp=3,dl_vlan=5", "dl_vlan=5,dl_vlan_pcp=3"),
    ("dl_vlan_pcp=3", "dl_vlan_pcp=3"),
    ("vlan_pcp=3,vlan_vid=0x1000/0x1000", "dl_vlan_pcp=3"),
    ("vlan_vid=0x1005", "dl_vlan=5"),
    ("vlan_vid=0x1000/0x1000", "vlan_tci=0x1000/0x1000"),
    ("vlan_vid=0", "vlan_tci=0x0000/0x1fff"),
    ("vlan_vid=0x1005/0x100f,vlan_pcp=2", "vlan_tci=0x5005/0xf00f"),
    ("vlan_tci=0x5005", "dl_vlan=5,dl_vlan_pcp=2"),
    ("vlan_tci=0", "vlan_tci=0x0000/0x1fff"),
    ("vlan_tci=0/0xf000", "vlan_tci=0x0000/0x1000"),
    ("vlan_tci=0x7005/0xf005", "vlan_tci=0x7005/0xf005"),
    (
        "dl_src=1:2:3:4:5:6,dl_dst=01:00:00:00:00:00/01:00:00:00:00:00",
        "dl_src=01:02:03:04:05:06,dl_dst=01:00:00:00:00:00/01:00:00:00:00:00",
    ),
    ("eth_dst=ff:ff:ff:ff:ff:ff/ff:ff:ff:ff:ff:ff", "dl_dst=ff:ff:ff:ff:ff:ff"),
    ("dl_type=0x800", "ip"),
    ("eth_type=1234", "dl_type=0x04d2"),
    ("dl_type=0x05ff", "dl_type=0x05ff"),
    ("arp,arp_op=1", "arp,arp_op=1"),
    ("arp,nw_src=1.2.3.4,nw_proto=2", "arp,arp_spa=1.2.3.4,arp_op=2"),
    (
        "rarp,arp_tha=01:02:03:04:05:06,arp_tpa=1.2.0.0/16,arp_sha=01:02:03:04:05:06",
        "rarp,arp_tpa=1.2.0.0/16,arp_sha=01:02:03:04:05:06,arp_tha=01:02:03:04:05:06",
    ),
    ("ip,nw_src=10.0.0.1/24,nw_dst=10.0.1.0/255.255.0.255", "ip,nw_src=10.0.0.0/24,nw_dst=10.0.0.0/255.255.0.255"),
    ("ip,nw_src=*,nw_dst=0.0.0.0/0", "ip"),
    ("ip,nw_proto=47", "ip,nw_proto=47"),
    ("nw_proto=6,ip", "tcp"),
    ("tcp,tp_dst=80", "tcp,tp_dst=80"),
    ("tp_src=5,tcp", "tcp,tp_src=5"),
    ("tcp,tcp_dst=0x50/0xfff0,tcp_src=0/0xff", "tcp,tp_src=0x0/0xff,tp_dst=0x50/0xfff0"),
    ("udp6 udp_src=53", "udp6,tp_src=53"),
    ("sctp,sctp_dst=1", "sctp,tp_dst=1"),
    ("icmp,icmp_type=8,icmp_code=0", "icmp,icmp_type=8,icmp_code=0"),
    (
        "icmp6,icmp_type=135,icmp_code=0,nd_target=fe80::1,nd_sll=01:02:03:04:05:06",
        "icmp6,icmp_type=135,icmp_code=0,nd_target=fe80::1,nd_sll=01:02:03:04:05:06",
    ),
    ("icmp6,icmpv6_type=136,icmpv6_code=0,nd_target=fe80::/64", "icmp6,icmp_type=136,icmp_code=0,nd_target=fe80::/64"),
    ("mpls,mpls_label=5,mpls_tc=1,mpls_bos=1,mpls_ttl=3", "mpls,mpls_label=5,mpls_tc=1,mpls_ttl=3,mpls_bos=1"),
    ("ipv6,ipv6_src=fe80::/10,ipv6_dst=::1,ipv6_label=0x300/0xf00", "ipv6,ipv6_src=fe80::/10,ipv6_dst=::1,ipv6_label=0x00300/0x00f00"),
    ("ipv6,ipv6_src=fe80::1/ffff::ffff,ipv6_dst=::1.2.3.4", "ipv6,ipv6_src=fe80::1/ffff::ffff,ipv6_dst=::1.2.3.4"),
    ("ip,ip_dscp=46,nw_ecn=2,nw_ttl=64", "ip,nw_tos=184,nw_ecn=2,nw_ttl=64"),
    ("ip,nw_tos=187", "ip,nw_tos=184"),
    ("ip,nw_frag=no", "ip,nw_frag=no"),
    ("ip,nw_frag=yes", "ip,nw_frag=yes"),
    ("ip,ip_frag=first", "ip,nw_frag=first"),
    ("ip,nw_frag=later", "ip,nw_frag=later"),
    ("ip,nw_frag=not_later", "ip,nw_frag=not_later"),
    ("tcp,tcp_flags=+syn-ack", "tcp,tcp_flags=+syn-ack"),
    ("tcp,tcp_flags=0x2/0xff", "tcp,tcp_flags=-fin+syn-rst-psh-ack-urg-ece-cwr"),
    ("tcp,tcp_flags=syn|ack", "tcp,tcp_flags=syn|ack"),
    ("tcp,tcp_flags=0x802", "tcp,tcp_flags=syn|[800]"),
    ("tcp,tcp_flags=+[200]-ns", "tcp,tcp_flags=-ns+[200]"),
    ("tcp,tcp_flags=0", "tcp,tcp_flags=0"),
    ("metadata=0x500/0xff00,tun_id=5", "tun_id=0x5,metadata=0x500/0xff00"),
    ("metadata=0,tunnel_id=0/0xff", "tun_id=0/0xff,metadata=0"),
    ("reg15=0x100/0xff00,reg0=0,in_port=3,tcp", "tcp,reg0=0,reg15=0x100/0xff00,in_port=3"),
    ("xreg0=0x123456789", "reg0=0x1,reg1=0x23456789"),
    ("xxreg1=0x11112222333344445555666677778888", "reg4=0x11112222,reg5=0x33334444,reg6=0x55556666,reg7=0x77778888"),
];

#[test]
fn examples() {
    for (text, printed) in EXAMPLES {
        assert_eq!(parse(text).to_string(), *printed, "{text}");
        assert_eq!(parse(printed), parse(text), "{text}");
    }
}

#[test]
fn what_open_vswitch_has_no_name_for() {
    let pbb = parse("dl_type=0x88e7,pbb_isid=0x10/0xff,pbb_uca=1");
    assert_eq!(pbb.to_string(), "dl_type=0x88e7,pbb_isid=0x10/0xff,pbb_uca=1");
    assert_eq!(parse("tcp6,ipv6_exthdr=0/0x10").to_string(), "tcp6,ipv6_exthdr=0/0x10");
    assert_eq!(parse("in_port=4,in_phy_port=4").to_string(), "in_port=4");
}

#[test]
fn ports_have_names() {
    let matching = Match::parse("in_port=vm2", |name| (name == "vm2").then_some(PortNo(2)));
    assert_eq!(matching, Ok(parse("in_port=2")));
    let unknown = "in_port=vm2".parse::<Match>();
    assert_eq!(unknown.expect_err("no names").to_string(), "`vm2` is no value of `in_port`; write the name or number of a port");
}

#[test]
fn errors_say_what_is_wrong() {
    use ParseMatchError::*;
    let error = |text: &str| text.parse::<Match>().expect_err(text);
    assert_eq!(error("ip,foo=1"), UnknownField("foo".into()));
    assert_eq!(error("tcp,tp_dst"), NoValue("tp_dst".into()));
    assert_eq!(error("tcp,tp_dst="), NoValue("tp_dst".into()));
    assert_eq!(error("ip,nw_proto=1/1"), NotMaskable("nw_proto".into()));
    for bad in [
        "icmp,icmp_type=300",
        "tcp,tp_dst=65536",
        "tcp,tp_dst=-1",
        "tcp,tp_dst=+1",
        "tcp,tp_dst=0x",
        "tcp,tp_dst=80/0x10000",
        "dl_vlan=4096",
        "dl_vlan_pcp=8",
        "dl_src=1:2:3:4:5",
        "dl_src=1:2:3:4:5:6:7",
        "dl_src=1:2:3:4:5:+6",
        "ip,nw_src=10.0.0",
        "ip,nw_src=10.0.0.0/33",
        "ip,nw_src=10.0.0.0/",
        "ipv6,ipv6_src=fe80::/129",
        "tcp,tcp_flags=+foo",
        "tcp,tcp_flags=+",
        "tcp,tcp_flags=0x1002",
        "ip,nw_tos=256",
        "metadata=0x10000000000000000",
        "in_port=1/0xff",
    ] {
        assert!(matches!(error(bad), BadValue { .. }), "{bad}: {:?}", error(bad));
    }
    for (lonely, wants) in [
        ("nw_src=10.0.0.1", "`ip` or `arp`"),
        ("ip,tp_dst=80", "`tcp`, `udp`, `sctp`, `tcp6`, `udp6` or `sctp6`"),
        ("ip,ipv6_src=::1", "`ipv6`"),
        ("tcp,udp_dst=53", "`udp` or `udp6`"),
        ("icmp6,icmp_type=136,icmp_code=0,nd_sll=1:2:3:4:5:6", "`icmp6,icmp_type=135,icmp_code=0`"),
        ("icmp6,icmp_type=135,icmp_code=0,nd_sll=1:2:3:4:5:6,icmp_type=1", "`icmp6,icmp_type=135,icmp_code=0`"),
        ("dl_vlan=0xffff,dl_vlan_pcp=1", "`dl_vlan`"),
    ] {
        assert!(matches!(error(lonely), NoPrerequisite { wants: found, .. } if found == wants), "{lonely}: {:?}", error(lonely));
    }
}

#[test]
fn a_cached_flow_shows_every_bit_that_it_depends_on() {
    let mut key = FlowKey::ZERO;
    key.0[3] = 0x1007_2100_0000_0000;
    let mut mask = KeyMask::ZERO;
    mask.0[1] = 0xff00;
    mask.0[3] = 0xffff_ff00_0000_0000;
    mask.0[4] = 0xffff_0000_0000_0000;
    mask.0[15] = 0xff;
    let text = Match::of_key(&key, &mask).to_string();
    assert_eq!(text, "dl_type=0x0000/0xff00,nw_src=0.0.0.0/16,vlan_tpid=0x2,vlan_tci1=0x1007,vlan_tpid1=0x1,mpls_lse1=0x0/0xff");
    // The bits that nothing shows are those that no key uses.
    let all = KeyMask::from_all_ones();
    let going_on = FlowKey::with_word(0, 0x5007);
    let mut list = Match::of_key(&going_on, &all).to_string();
    list.retain(|char| char != ' ');
    for name in [
        "in_port",
        "continuation",
        "choice",
        "vlan_tci",
        "vlan_tci1",
        "nw_ttl",
        "tp_src",
        "arp_op",
        "mpls_lse2",
        "nd_target",
        "tun_id",
        "pbb_isid",
    ] {
        assert!(list.split(',').any(|item| item.starts_with(&format!("{name}="))), "{name} in {list}");
    }
}

impl KeyMask {
    fn from_all_ones() -> Self {
        Words([u64::MAX; crate::key::KEY_WORDS])
    }
}

/// Matches of fields whose prerequisites are asked for: some of those that a random flow allows.
fn matches() -> impl Strategy<Value = Match> {
    let kinds = prop::sample::select(SHORTHANDS.to_vec());
    let kind = prop_oneof![kinds.prop_map(|(_, eth_type, proto)| (Some(eth_type), proto)), Just((None, None)), Just((Some(0x1234), None))];
    let fields = prop::collection::vec((prop::sample::select(Field::ALL), any::<u128>(), any::<u128>(), 0..4u8), 0..8);
    (kind, fields, 0..4u128, 0..5u32).prop_map(|((eth_type, proto), mut fields, nd, tag)| {
        let mut matching = Match::ANY;
        for (field, value) in [(Field::EthType, eth_type), (Field::IpProto, proto)] {
            if let Some(value) = value {
                matching = matching.with(field, value);
            }
        }
        if proto == Some(58) && nd > 1 {
            matching = matching.with(Field::Icmpv6Type, 133 + nd).with(Field::Icmpv6Code, 0);
        }
        if tag == 0 {
            matching = matching.with_masked(Field::VlanVid, 0x1000, 0x1000);
        }
        fields.sort_by_key(|(field, ..)| *field);
        for (field, value, mask, choice) in fields {
            let mask = match choice {
                0 if field.info().maskable => mask & field.ones(),
                1 if field.info().maskable => (field.ones() << (mask % u128::from(field.bits()))) & field.ones(),
                _ => field.ones(),
            };
            let (value, mask) = match field {
                // Open vSwitch has no ports of later fragments.
                Field::IpFrag => {
                    let (_, value, mask) = FRAGMENTS[value as usize % if proto.is_some() { 4 } else { 5 }];
                    (value, mask)
                }
                // ovs-ofctl keeps eight bits of it.
                Field::ArpOp => (value & 0xff, mask),
                // ovs-ofctl takes an IPv6 mask that begins with a digit for the length of a prefix.
                _ if field.info().format == Format::Ipv6 => (value, mask | 0xf << 124),
                _ => (value, mask),
            };
            let value = if field.info().format == Format::Port { value % 0xff00 } else { value };
            let what_is_asked = matching.get(field).is_some() || field == Field::EthType || field == Field::IpProto;
            if matching.permits(field) && !what_is_asked && mask != 0 && !(field.info().view && field.name().starts_with("vlan")) {
                matching = matching.with_masked(field, value, mask);
            }
        }
        matching
    })
}

/// What `ovs-ofctl` prints for flows with these matches. `None` if it is not installed.
fn by_ovs_ofctl(texts: &[String]) -> Option<Vec<String>> {
    let child =
        Command::new("ovs-ofctl").args(["-O", "OpenFlow13", "parse-flows", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("SKIPPED: ovs-ofctl is not installed, so the text form was not compared with it");
            return None;
        }
        Err(error) => panic!("ovs-ofctl: {error}"),
    };
    let mut stdin = child.stdin.take().expect("it is piped");
    let input: String = texts.iter().map(|text| format!("{text}{}actions=drop\n", if text.is_empty() { "" } else { "," })).collect();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().expect("it runs");
    writer.join().expect("no panic").expect("it reads");
    assert!(output.status.success(), "ovs-ofctl failed: {}", output.status);
    let stdout = String::from_utf8(output.stdout).expect("text");
    let flows = stdout.lines().filter(|line| line.contains("OFPT_FLOW_MOD"));
    Some(
        flows
            .map(|line| line.split(": ADD ").nth(1).and_then(|flow| flow.strip_suffix("actions=drop")).expect(line).trim().to_string())
            .collect(),
    )
}

#[test]
fn examples_are_those_of_ovs_ofctl() {
    let texts: Vec<String> = EXAMPLES.iter().map(|(text, _)| text.to_string()).collect();
    if let Some(flows) = by_ovs_ofctl(&texts) {
        assert_eq!(flows.len(), EXAMPLES.len());
        for (flow, (text, printed)) in flows.iter().zip(EXAMPLES) {
            assert_eq!(flow, printed, "{text}");
        }
    }
}

#[test]
fn random_matches_are_printed_as_by_ovs_ofctl() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let unknown = [Field::PbbIsid, Field::PbbUca, Field::Ipv6Exthdr];
    let printable = matches().prop_filter("fields it knows", move |matching| unknown.iter().all(|field| matching.get(*field).is_none()));
    let texts: Vec<String> =
        (0..2000).map(|_| printable.new_tree(&mut runner).expect("not all are filtered").current().to_string()).collect();
    if let Some(flows) = by_ovs_ofctl(&texts) {
        assert_eq!(flows.len(), texts.len());
        for (flow, text) in flows.iter().zip(&texts) {
            assert_eq!(flow, text);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn what_is_printed_is_read_back(matching in matches()) {
        prop_assert_eq!(matching.to_string().parse(), Ok(matching));
    }

    #[test]
    fn rubbish_is_refused_without_panic(text in "([a-z_0-9]{1,12}[=,/:.+|-]{1,2}){0,4}") {
        let _ = text.parse::<Match>();
    }

    #[test]
    fn rubbish_values_are_refused_without_panic(row in prop::sample::select(ROWS.to_vec()), value in "[-+0-9a-fx:./|*]{0,12}", kind in prop::sample::select(SHORTHANDS.to_vec())) {
        let _ = format!("{},{}={value}", kind.0, row.1).parse::<Match>();
    }
}
