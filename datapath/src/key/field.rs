//! The one table of fields.
//!
//! A field is a run of bits at a fixed place of a [`Flow`], with a name, ids in OpenFlow's match format, a condition on when it means something and
//! a way to write its values. Extracting, matching, setting, the text form and the OXM codec all go by this table. Values are `u128`,
//! right-aligned, whatever the width.
//!
//! Fields of different kinds of frame share a place (`tcp_src`, `udp_src`, `icmp_type`; `ip_src`, `arp_spa`): a frame has only one of them,
//! and their [`Prerequisite`]s tell which. Other fields are views: a wider or older way to see bits that other fields cover
//! (`xreg0` is `reg0` and `reg1`; `vlan_tci` is `vlan_vid` and `vlan_pcp`). A match never needs them to be described.

use super::{FLOW_WORDS, Flow, FlowMask, KEY_WORDS, Words};
use crate::classifier::set_bits;

/// OXM class of OpenFlow's own fields (`OFPXMC_OPENFLOW_BASIC`).
pub const OXM_BASIC: u16 = 0x8000;
/// OXM class of OpenFlow 1.5's packet registers (`OFPXMC_PACKET_REGS`).
pub const OXM_REGISTERS: u16 = 0x8001;
/// OXM class of experimenters' fields; here always those of the ONF, [`OXM_ONF`].
pub const OXM_EXPERIMENTER: u16 = 0xffff;
/// The ONF's experimenter id, which follows the OXM header of a field of class [`OXM_EXPERIMENTER`].
pub const OXM_ONF: u32 = 0x4f4e_4600;
/// OXM class `NXM_OF`: OpenFlow 1.0's fields in Nicira's extensible match.
pub const NXM_OF: u16 = 0x0000;
/// OXM class `NXM_NX`: Nicira's own fields.
pub const NXM_NX: u16 = 0x0001;

/// The id of a field in OpenFlow's match format (OpenFlow 1.3.5, 7.2.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OxmId {
    /// The class.
    pub class: u16,
    /// The number in the class, 0 to 127.
    pub number: u8,
}

/// What a match must say, or a frame must be, for a field to mean something (OpenFlow 1.3.5, table 12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Prerequisite {
    /// Nothing.
    None,
    /// `in_port`, whichever.
    InPort,
    /// A VLAN tag.
    Vlan,
    /// IPv4 or IPv6.
    Ip,
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
    /// ARP or RARP.
    Arp,
    /// An MPLS label.
    Mpls,
    /// A provider backbone bridge's I-TAG.
    Pbb,
    /// TCP over either IP.
    Tcp,
    /// UDP over either IP.
    Udp,
    /// SCTP over either IP.
    Sctp,
    /// ICMP for IPv4.
    Icmp4,
    /// ICMP for IPv6.
    Icmp6,
    /// A neighbour solicitation or advertisement.
    Nd,
    /// A neighbour solicitation.
    NdSolicitation,
    /// A neighbour advertisement.
    NdAdvertisement,
}

/// A part of a [`Prerequisite`]: these bits of this field must be one of the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// Which field.
    pub field: Field,
    /// Which of its bits.
    pub mask: u128,
    /// The values that will do; any if there are none.
    pub values: &'static [u128],
}

impl Prerequisite {
    /// What is required, all of it.
    pub const fn requirements(self) -> &'static [Requirement] {
        const fn exactly(field: Field, values: &'static [u128]) -> Requirement {
            Requirement { field, mask: field.ones(), values }
        }
        const IP: Requirement = exactly(Field::EthType, &[0x0800, 0x86dd]);
        const IPV4: Requirement = exactly(Field::EthType, &[0x0800]);
        const IPV6: Requirement = exactly(Field::EthType, &[0x86dd]);
        const ICMP6: Requirement = exactly(Field::IpProto, &[58]);
        match self {
            Self::None => &[],
            Self::InPort => const { &[exactly(Field::InPort, &[])] },
            Self::Vlan => &[Requirement { field: Field::VlanVid, mask: 0x1000, values: &[0x1000] }],
            Self::Ip => &[IP],
            Self::Ipv4 => &[IPV4],
            Self::Ipv6 => &[IPV6],
            Self::Arp => const { &[exactly(Field::EthType, &[0x0806, 0x8035])] },
            Self::Mpls => const { &[exactly(Field::EthType, &[0x8847, 0x8848])] },
            Self::Pbb => const { &[exactly(Field::EthType, &[0x88e7])] },
            Self::Tcp => const { &[IP, exactly(Field::IpProto, &[6])] },
            Self::Udp => const { &[IP, exactly(Field::IpProto, &[17])] },
            Self::Sctp => const { &[IP, exactly(Field::IpProto, &[132])] },
            Self::Icmp4 => const { &[IPV4, exactly(Field::IpProto, &[1])] },
            Self::Icmp6 => &[IPV6, ICMP6],
            Self::Nd => const { &[IPV6, ICMP6, exactly(Field::Icmpv6Type, &[135, 136])] },
            Self::NdSolicitation => const { &[IPV6, ICMP6, exactly(Field::Icmpv6Type, &[135])] },
            Self::NdAdvertisement => const { &[IPV6, ICMP6, exactly(Field::Icmpv6Type, &[136])] },
        }
    }

    /// Whether it is that of a field in a transport header, which a fragment other than the first does not have.
    pub const fn is_of_transport(self) -> bool {
        matches!(
            self,
            Self::Tcp | Self::Udp | Self::Sctp | Self::Icmp4 | Self::Icmp6 | Self::Nd | Self::NdSolicitation | Self::NdAdvertisement
        )
    }

    /// Whether `flow` meets it, of which only the bits of `known` are known. For a frame, everything is: see [`Field::applies_to`].
    pub fn is_met(self, flow: &Flow, known: &FlowMask) -> bool {
        self.requirements().iter().all(|required| {
            required.field.read(known) & required.mask == required.mask
                && (required.values.is_empty() || required.values.contains(&(required.field.read(flow) & required.mask)))
        })
    }
}

/// How values of a field are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// In decimal; in hexadecimal if masked.
    Decimal,
    /// In hexadecimal, with at least this many digits.
    Hex(u8),
    /// As an Ethernet address.
    Mac,
    /// As an IPv4 address.
    Ipv4,
    /// As an IPv6 address.
    Ipv6,
    /// As a port's name, or its number.
    Port,
    /// As `no`, `yes`, `first`, `later` or `not_later`: see [`super::fragment`].
    Fragment,
    /// As `+syn-ack`.
    TcpFlags,
}

/// What there is to know about a field.
#[derive(Clone, Copy, Debug)]
pub struct FieldInfo {
    /// Its name in actions.
    pub name: &'static str,
    /// Further names.
    pub aliases: &'static [&'static str],
    /// Its width in bits.
    pub bits: u8,
    /// Its largest value: a one in each bit that a value may have.
    pub ones: u128,
    /// The word that its most significant bit lies in. Fields wider than a word are two whole words.
    pub word: u8,
    /// How far it lies from the least significant end of the word.
    pub shift: u8,
    /// Its ids in OpenFlow's match format; the first is the one to send, the others are understood too.
    pub oxm: &'static [OxmId],
    /// When it means something.
    pub prerequisite: Prerequisite,
    /// How its values are written.
    pub format: Format,
    /// Whether a match may look at some of its bits only.
    pub maskable: bool,
    /// Whether actions may change it.
    pub writable: bool,
    /// Whether all its bits are covered by other fields, so that it is never needed to describe a match.
    pub view: bool,
}

const MASK: bool = true;
const EXACT: bool = false;
const WRITE: bool = true;
const READ: bool = false;
const VIEW: bool = true;
const OWN: bool = false;

macro_rules! fields {
    ($($field:ident $name:literal $aliases:tt $bits:literal ($word:literal, $shift:literal) [$($class:ident $number:literal),*]
       $prerequisite:ident $format:ident $(($digits:literal))? $maskable:ident $writable:ident $view:ident $says:literal;)*) => {
        /// A field of a flow: a run of bits that rules can match and actions can write. In an order in which what a [`Prerequisite`] asks for
        /// comes first.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Field { $(#[doc = $says] $field,)* }

        impl Field {
            /// Every field.
            pub const ALL: &'static [Self] = &[$(Self::$field),*];
        }

        static FIELDS: &[FieldInfo] = &[$(FieldInfo {
            name: $name,
            aliases: &$aliases,
            bits: $bits,
            ones: if matches!(Field::$field, Field::NwTos) { 0xfc } else { u128::MAX >> (128 - $bits) },
            word: $word,
            shift: $shift,
            oxm: &[$(OxmId { class: $class, number: $number }),*],
            prerequisite: Prerequisite::$prerequisite,
            format: Format::$format $(($digits))?,
            maskable: $maskable,
            writable: $writable,
            view: $view,
        }),*];
    };
}

// Variant, name and aliases; bits (word, shift); OXM ids, the preferred one first; prerequisite, text format; flags; what it is.
fields! {
    InPort "in_port" ["in_port_oxm"] 32 (0, 32) [OXM_BASIC 0] None Port EXACT WRITE OWN "The ingress port.";
    InPortNxm "in_port_nxm" ["NXM_OF_IN_PORT"] 16 (0, 32) [NXM_OF 0] None Port EXACT WRITE VIEW "The ingress port in OpenFlow 1.0's 16 bits.";
    InPhyPort "in_phy_port" [] 32 (0, 32) [OXM_BASIC 1] InPort Port EXACT READ VIEW "The physical ingress port: always the ingress port.";
    Metadata "metadata" [] 64 (18, 0) [OXM_BASIC 2] None Hex(1) MASK WRITE OWN "What tables tell each other.";
    EthDst "eth_dst" ["dl_dst"] 48 (1, 16) [OXM_BASIC 3, NXM_OF 1] None Mac MASK WRITE OWN "Ethernet destination address.";
    EthSrc "eth_src" ["dl_src"] 48 (2, 16) [OXM_BASIC 4, NXM_OF 2] None Mac MASK WRITE OWN "Ethernet source address.";
    EthType "eth_type" ["dl_type"] 16 (1, 0) [OXM_BASIC 5, NXM_OF 3] None Hex(4) EXACT READ OWN "Ethernet type behind VLAN tags; 0x05ff for none.";
    VlanVid "vlan_vid" [] 13 (2, 0) [OXM_BASIC 6] None Hex(4) MASK WRITE OWN "Bit 12: there is a VLAN tag. Bits 0 to 11: its VLAN id.";
    VlanPcp "vlan_pcp" ["dl_vlan_pcp"] 3 (2, 13) [OXM_BASIC 7] Vlan Decimal EXACT WRITE OWN "VLAN priority.";
    VlanTci "vlan_tci" [] 16 (2, 0) [NXM_OF 4] None Hex(4) MASK WRITE VIEW "VLAN tag, bit 12 as in `vlan_vid`.";
    IpDscp "ip_dscp" [] 6 (3, 10) [OXM_BASIC 8] Ip Decimal EXACT WRITE OWN "DSCP: bits 2 to 7 of IPv4's TOS or IPv6's traffic class.";
    NwTos "nw_tos" [] 8 (3, 8) [NXM_OF 5] Ip Decimal EXACT WRITE VIEW "DSCP in bits 2 to 7; the others are zero.";
    IpEcn "ip_ecn" ["nw_ecn"] 2 (3, 8) [OXM_BASIC 9, NXM_NX 28] Ip Decimal EXACT WRITE OWN "ECN: bits 0 and 1 of TOS or traffic class.";
    IpProto "ip_proto" ["nw_proto"] 8 (3, 16) [OXM_BASIC 10, NXM_OF 6] Ip Decimal EXACT READ OWN "IP protocol.";
    Ipv4Src "ip_src" ["nw_src", "ipv4_src"] 32 (4, 32) [OXM_BASIC 11, NXM_OF 7] Ipv4 Ipv4 MASK WRITE OWN "IPv4 source address.";
    Ipv4Dst "ip_dst" ["nw_dst", "ipv4_dst"] 32 (4, 0) [OXM_BASIC 12, NXM_OF 8] Ipv4 Ipv4 MASK WRITE OWN "IPv4 destination address.";
    TcpSrc "tcp_src" [] 16 (5, 48) [OXM_BASIC 13, NXM_OF 9] Tcp Decimal MASK WRITE OWN "TCP source port.";
    TcpDst "tcp_dst" [] 16 (5, 32) [OXM_BASIC 14, NXM_OF 10] Tcp Decimal MASK WRITE OWN "TCP destination port.";
    UdpSrc "udp_src" [] 16 (5, 48) [OXM_BASIC 15, NXM_OF 11] Udp Decimal MASK WRITE OWN "UDP source port.";
    UdpDst "udp_dst" [] 16 (5, 32) [OXM_BASIC 16, NXM_OF 12] Udp Decimal MASK WRITE OWN "UDP destination port.";
    SctpSrc "sctp_src" [] 16 (5, 48) [OXM_BASIC 17] Sctp Decimal MASK WRITE OWN "SCTP source port.";
    SctpDst "sctp_dst" [] 16 (5, 32) [OXM_BASIC 18] Sctp Decimal MASK WRITE OWN "SCTP destination port.";
    IcmpType "icmp_type" ["icmpv4_type"] 8 (5, 48) [OXM_BASIC 19, NXM_OF 13] Icmp4 Decimal EXACT WRITE OWN "ICMP type.";
    IcmpCode "icmp_code" ["icmpv4_code"] 8 (5, 32) [OXM_BASIC 20, NXM_OF 14] Icmp4 Decimal EXACT WRITE OWN "ICMP code.";
    ArpOp "arp_op" [] 16 (5, 0) [OXM_BASIC 21, NXM_OF 15] Arp Decimal EXACT WRITE OWN "ARP opcode.";
    ArpSpa "arp_spa" [] 32 (4, 32) [OXM_BASIC 22, NXM_OF 16] Arp Ipv4 MASK WRITE OWN "ARP sender's IPv4 address.";
    ArpTpa "arp_tpa" [] 32 (4, 0) [OXM_BASIC 23, NXM_OF 17] Arp Ipv4 MASK WRITE OWN "ARP target's IPv4 address.";
    ArpSha "arp_sha" [] 48 (6, 16) [OXM_BASIC 24, NXM_NX 17] Arp Mac MASK WRITE OWN "ARP sender's Ethernet address.";
    ArpTha "arp_tha" [] 48 (7, 16) [OXM_BASIC 25, NXM_NX 18] Arp Mac MASK WRITE OWN "ARP target's Ethernet address.";
    Ipv6Src "ipv6_src" [] 128 (8, 0) [OXM_BASIC 26, NXM_NX 19] Ipv6 Ipv6 MASK WRITE OWN "IPv6 source address.";
    Ipv6Dst "ipv6_dst" [] 128 (10, 0) [OXM_BASIC 27, NXM_NX 20] Ipv6 Ipv6 MASK WRITE OWN "IPv6 destination address.";
    Ipv6Label "ipv6_label" ["ipv6_flabel"] 20 (14, 32) [OXM_BASIC 28, NXM_NX 27] Ipv6 Hex(5) MASK WRITE OWN "IPv6 flow label.";
    Icmpv6Type "icmpv6_type" [] 8 (5, 48) [OXM_BASIC 29, NXM_NX 21] Icmp6 Decimal EXACT WRITE OWN "ICMPv6 type.";
    Icmpv6Code "icmpv6_code" [] 8 (5, 32) [OXM_BASIC 30, NXM_NX 22] Icmp6 Decimal EXACT WRITE OWN "ICMPv6 code.";
    NdTarget "nd_target" ["ipv6_nd_target"] 128 (12, 0) [OXM_BASIC 31, NXM_NX 23] Nd Ipv6 MASK WRITE OWN "Target of neighbour discovery.";
    NdSll "nd_sll" ["ipv6_nd_sll"] 48 (6, 16) [OXM_BASIC 32, NXM_NX 24] NdSolicitation Mac MASK WRITE OWN "Source link-layer address option.";
    NdTll "nd_tll" ["ipv6_nd_tll"] 48 (7, 16) [OXM_BASIC 33, NXM_NX 25] NdAdvertisement Mac MASK WRITE OWN "Target link-layer address option.";
    MplsLabel "mpls_label" [] 20 (15, 44) [OXM_BASIC 34] Mpls Decimal EXACT WRITE OWN "Label of the outermost MPLS entry.";
    MplsTc "mpls_tc" [] 3 (15, 41) [OXM_BASIC 35] Mpls Decimal EXACT WRITE OWN "Traffic class of the outermost MPLS entry.";
    MplsBos "mpls_bos" [] 1 (15, 40) [OXM_BASIC 36] Mpls Decimal EXACT READ OWN "Whether the outermost MPLS entry is the only one.";
    PbbIsid "pbb_isid" [] 24 (16, 0) [OXM_BASIC 37] Pbb Hex(1) MASK WRITE OWN "I-SID of the PBB I-TAG.";
    TunnelId "tun_id" ["tunnel_id"] 64 (17, 0) [OXM_BASIC 38, NXM_NX 16] None Hex(1) MASK WRITE OWN "Key of the tunnel.";
    Ipv6Exthdr "ipv6_exthdr" [] 9 (14, 16) [OXM_BASIC 39] Ipv6 Hex(1) MASK READ OWN "Which IPv6 extension headers there are: see [`super::exthdr`].";
    PbbUca "pbb_uca" [] 1 (16, 24) [OXM_BASIC 41] Pbb Decimal EXACT WRITE OWN "UCA bit of the PBB I-TAG.";
    TcpFlags "tcp_flags" [] 12 (5, 16) [OXM_EXPERIMENTER 42, NXM_NX 34, OXM_BASIC 42] Tcp TcpFlags MASK READ OWN "TCP flags.";
    IpFrag "ip_frag" ["nw_frag"] 2 (3, 24) [NXM_NX 26] Ip Fragment MASK READ OWN "Whether it is a fragment: see [`super::fragment`].";
    NwTtl "nw_ttl" [] 8 (3, 0) [NXM_NX 29] Ip Decimal EXACT WRITE OWN "IPv4's TTL or IPv6's hop limit.";
    MplsTtl "mpls_ttl" [] 8 (15, 32) [NXM_NX 30] Mpls Decimal EXACT WRITE OWN "TTL of the outermost MPLS entry.";
    Reg0 "reg0" [] 32 (19, 32) [NXM_NX 0] None Hex(1) MASK WRITE OWN "Register 0.";
    Reg1 "reg1" [] 32 (19, 0) [NXM_NX 1] None Hex(1) MASK WRITE OWN "Register 1.";
    Reg2 "reg2" [] 32 (20, 32) [NXM_NX 2] None Hex(1) MASK WRITE OWN "Register 2.";
    Reg3 "reg3" [] 32 (20, 0) [NXM_NX 3] None Hex(1) MASK WRITE OWN "Register 3.";
    Reg4 "reg4" [] 32 (21, 32) [NXM_NX 4] None Hex(1) MASK WRITE OWN "Register 4.";
    Reg5 "reg5" [] 32 (21, 0) [NXM_NX 5] None Hex(1) MASK WRITE OWN "Register 5.";
    Reg6 "reg6" [] 32 (22, 32) [NXM_NX 6] None Hex(1) MASK WRITE OWN "Register 6.";
    Reg7 "reg7" [] 32 (22, 0) [NXM_NX 7] None Hex(1) MASK WRITE OWN "Register 7.";
    Reg8 "reg8" [] 32 (23, 32) [NXM_NX 8] None Hex(1) MASK WRITE OWN "Register 8.";
    Reg9 "reg9" [] 32 (23, 0) [NXM_NX 9] None Hex(1) MASK WRITE OWN "Register 9.";
    Reg10 "reg10" [] 32 (24, 32) [NXM_NX 10] None Hex(1) MASK WRITE OWN "Register 10.";
    Reg11 "reg11" [] 32 (24, 0) [NXM_NX 11] None Hex(1) MASK WRITE OWN "Register 11.";
    Reg12 "reg12" [] 32 (25, 32) [NXM_NX 12] None Hex(1) MASK WRITE OWN "Register 12.";
    Reg13 "reg13" [] 32 (25, 0) [NXM_NX 13] None Hex(1) MASK WRITE OWN "Register 13.";
    Reg14 "reg14" [] 32 (26, 32) [NXM_NX 14] None Hex(1) MASK WRITE OWN "Register 14.";
    Reg15 "reg15" [] 32 (26, 0) [NXM_NX 15] None Hex(1) MASK WRITE OWN "Register 15.";
    PktMark "pkt_mark" [] 32 (27, 32) [NXM_NX 33] None Hex(1) MASK WRITE OWN "A mark that Linux would give the packet; here one more register.";
    ConjId "conj_id" [] 32 (27, 0) [NXM_NX 37] None Decimal EXACT READ OWN "The conjunction of which the flow meets all clauses.";
    Xreg0 "xreg0" [] 64 (19, 0) [OXM_REGISTERS 0] None Hex(1) MASK WRITE VIEW "Registers 0 and 1.";
    Xreg1 "xreg1" [] 64 (20, 0) [OXM_REGISTERS 1] None Hex(1) MASK WRITE VIEW "Registers 2 and 3.";
    Xreg2 "xreg2" [] 64 (21, 0) [OXM_REGISTERS 2] None Hex(1) MASK WRITE VIEW "Registers 4 and 5.";
    Xreg3 "xreg3" [] 64 (22, 0) [OXM_REGISTERS 3] None Hex(1) MASK WRITE VIEW "Registers 6 and 7.";
    Xreg4 "xreg4" [] 64 (23, 0) [OXM_REGISTERS 4] None Hex(1) MASK WRITE VIEW "Registers 8 and 9.";
    Xreg5 "xreg5" [] 64 (24, 0) [OXM_REGISTERS 5] None Hex(1) MASK WRITE VIEW "Registers 10 and 11.";
    Xreg6 "xreg6" [] 64 (25, 0) [OXM_REGISTERS 6] None Hex(1) MASK WRITE VIEW "Registers 12 and 13.";
    Xreg7 "xreg7" [] 64 (26, 0) [OXM_REGISTERS 7] None Hex(1) MASK WRITE VIEW "Registers 14 and 15.";
    Xxreg0 "xxreg0" [] 128 (19, 0) [NXM_NX 111] None Hex(1) MASK WRITE VIEW "Registers 0 to 3.";
    Xxreg1 "xxreg1" [] 128 (21, 0) [NXM_NX 112] None Hex(1) MASK WRITE VIEW "Registers 4 to 7.";
    Xxreg2 "xxreg2" [] 128 (23, 0) [NXM_NX 113] None Hex(1) MASK WRITE VIEW "Registers 8 to 11.";
    Xxreg3 "xxreg3" [] 128 (25, 0) [NXM_NX 114] None Hex(1) MASK WRITE VIEW "Registers 12 to 15.";
}

/// The fields that lie in each word, views left out: a bit for each, by its place in [`Field::ALL`].
static IN_WORD: [u128; FLOW_WORDS] = {
    let mut in_word = [0; FLOW_WORDS];
    let mut i = 0;
    while i < FIELDS.len() {
        let word = FIELDS[i].word as usize;
        if !FIELDS[i].view {
            in_word[word] |= 1 << i;
            if FIELDS[i].bits > 64 {
                in_word[word + 1] |= 1 << i;
            }
        }
        i += 1;
    }
    in_word
};

impl Field {
    /// The fields that lie in the words of the bitmap `words`, views left out, in the order of [`Field::ALL`].
    pub(super) fn in_words(words: u32) -> impl Iterator<Item = Self> {
        let mut fields = set_bits(words).fold(0, |fields, word| fields | IN_WORD[word]);
        std::iter::from_fn(move || {
            let field = Self::ALL.get(fields.trailing_zeros() as usize)?;
            fields &= fields - 1;
            Some(*field)
        })
    }

    /// What there is to know about it.
    pub const fn info(self) -> &'static FieldInfo {
        &FIELDS[self as usize]
    }

    /// Its name in actions.
    pub const fn name(self) -> &'static str {
        self.info().name
    }

    /// Its width in bits.
    pub const fn bits(self) -> u8 {
        self.info().bits
    }

    /// The bytes of a value in OpenFlow's match format: fields of 20 bits travel in four.
    pub const fn oxm_len(self) -> usize {
        match self.bits() {
            20 => 4,
            bits => bits.div_ceil(8) as usize,
        }
    }

    /// The largest value: a one in each bit that a value may have.
    pub const fn ones(self) -> u128 {
        self.info().ones
    }

    /// Whether it is part of the pipeline's state, not of the key.
    pub const fn is_state(self) -> bool {
        self.info().word as usize >= KEY_WORDS
    }

    /// Whether it lies in the headers behind the Ethernet header and its VLAN tags.
    pub const fn is_behind_ethernet(self) -> bool {
        matches!(self.info().word, 3..=16)
    }

    /// Whether a frame that meets the prerequisite may still have no place for it: ARP may be for other addresses than IPv4's, neighbour discovery cut
    /// short or without the option.
    pub const fn may_be_missing(self) -> bool {
        matches!(
            self.info().prerequisite,
            Prerequisite::Arp | Prerequisite::Nd | Prerequisite::NdSolicitation | Prerequisite::NdAdvertisement
        )
    }

    /// Its value.
    pub const fn read(self, flow: &Flow) -> u128 {
        let info = self.info();
        let word = info.word as usize;
        if info.bits > 64 {
            (flow.0[word] as u128) << 64 | flow.0[word + 1] as u128
        } else {
            (flow.0[word] >> info.shift & self.ones() as u64) as u128
        }
    }

    /// Sets its value. Bits beyond its width are ignored.
    pub const fn write(self, flow: &mut Flow, value: u128) {
        let info = self.info();
        let word = info.word as usize;
        if info.bits > 64 {
            flow.0[word] = (value >> 64) as u64;
            flow.0[word + 1] = value as u64;
        } else {
            let ones = self.ones() as u64;
            flow.0[word] = flow.0[word] & !(ones << info.shift) | (value as u64 & ones) << info.shift;
        }
    }

    /// Ones in its bits.
    pub const fn mask(self) -> FlowMask {
        let mut mask = Words([0; FLOW_WORDS]);
        self.write(&mut mask, u128::MAX);
        mask
    }

    /// Whether the frame and state of `flow` are such that the field means something.
    pub fn applies_to(self, flow: &Flow) -> bool {
        self.info().prerequisite.is_met(flow, &Words([u64::MAX; FLOW_WORDS]))
    }

    /// The field with this name or alias.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|field| field.name() == name || field.info().aliases.contains(&name))
    }

    /// The field with this OXM id.
    pub fn by_oxm(class: u16, number: u8) -> Option<Self> {
        Self::ALL.iter().copied().find(|field| field.info().oxm.contains(&OxmId { class, number }))
    }
}

/// Part of a field: `bits` bits from bit `offset`, counted from the least significant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FieldRange {
    /// Of which field.
    pub field: Field,
    /// The lowest bit.
    pub offset: u8,
    /// How many bits, at least one.
    pub bits: u8,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::STAGES;
    use std::collections::{HashMap, HashSet};

    fn overlap(a: Field, b: Field) -> bool {
        a.mask().masked(&b.mask()) != Words::ZERO
    }

    /// Whether no frame has both fields: some requirement of one contradicts one of the other.
    fn exclude(a: Field, b: Field) -> bool {
        let requirements = |field: Field| field.info().prerequisite.requirements();
        requirements(a)
            .iter()
            .any(|x| requirements(b).iter().any(|y| x.field == y.field && !x.values.iter().any(|value| y.values.contains(value))))
    }

    #[test]
    fn only_views_and_fields_of_different_frames_share_bits() {
        for (i, &a) in Field::ALL.iter().enumerate() {
            for &b in &Field::ALL[i + 1..] {
                assert!(!overlap(a, b) || a.info().view || b.info().view || exclude(a, b), "{a:?} and {b:?} overlap");
            }
        }
    }

    #[test]
    fn views_are_covered_by_other_fields() {
        for &view in Field::ALL.iter().filter(|field| field.info().view) {
            let mut covered = Flow::ZERO;
            Field::ALL.iter().filter(|field| !field.info().view).for_each(|field| covered.include(&field.mask()));
            assert!(view.mask().masked(&covered) == view.mask(), "{view:?}");
        }
    }

    #[test]
    fn fields_lie_within_their_words_and_read_back() {
        for &field in Field::ALL {
            let info = field.info();
            assert!(info.bits > 0 && usize::from(info.word) + usize::from(info.bits > 64) < FLOW_WORDS, "{field:?}");
            assert!(if info.bits > 64 { info.bits == 128 && info.shift == 0 } else { info.bits + info.shift <= 64 }, "{field:?}");
            let mut flow = Words([0x5555_5555_5555_5555; FLOW_WORDS]);
            let others = |flow: &Flow| -> Flow { Words(std::array::from_fn(|i| flow.0[i] & !field.mask().0[i])) };
            let outside = others(&flow);
            for value in [0, u128::MAX, 0x0123_4567_89ab_cdef_0246_8ace_1357_9bdf] {
                field.write(&mut flow, value);
                assert_eq!(field.read(&flow), value & field.ones(), "{field:?}");
                assert_eq!(others(&flow), outside, "{field:?}");
            }
        }
    }

    #[test]
    fn names_and_ids_are_unique() {
        let mut names = HashSet::new();
        let mut ids = HashMap::new();
        for &field in Field::ALL {
            for name in field.info().aliases.iter().chain([&field.name()]) {
                assert!(names.insert(*name), "{name}");
                assert_eq!(Field::by_name(name), Some(field));
            }
            for id in field.info().oxm {
                assert_eq!(ids.insert(*id, field), None, "{id:?}");
                assert_eq!(Field::by_oxm(id.class, id.number), Some(field));
            }
        }
        for number in 0..40 {
            assert!(ids.contains_key(&OxmId { class: OXM_BASIC, number }), "OpenFlow 1.3's field {number} is missing");
        }
    }

    #[test]
    fn prerequisites_come_before_what_needs_them() {
        for &field in Field::ALL {
            for required in field.info().prerequisite.requirements() {
                assert!(required.field < field, "{field:?}");
            }
        }
    }

    #[test]
    fn every_word_has_one_stage_and_fields_lie_in_theirs() {
        assert_eq!(STAGES.iter().map(|words| words.count_ones()).sum::<u32>(), FLOW_WORDS as u32);
        assert_eq!(STAGES.iter().fold(0, |all, words| all | words), (1 << FLOW_WORDS) - 1);
        for &field in Field::ALL {
            use Prerequisite::*;
            let stages: &[usize] = match (field, field.info().prerequisite) {
                (Field::EthDst | Field::EthSrc | Field::EthType | Field::VlanVid | Field::VlanPcp | Field::VlanTci, _) => &[1],
                (_, None | InPort) => &[0],
                (Field::ArpSpa | Field::ArpTpa, _) | (_, Vlan | Ip | Ipv4 | Ipv6 | Mpls | Pbb) => &[2],
                (_, Arp | Tcp | Udp | Sctp | Icmp4 | Icmp6 | Nd | NdSolicitation | NdAdvertisement) => &[3],
            };
            assert!(stages.iter().any(|&stage| field.mask().occupied() & !STAGES[stage] == 0), "{field:?}");
        }
    }

    /// The word map in the essay of `key` is what people read; it must be true.
    #[test]
    fn fields_lie_where_the_word_map_says() {
        let essay = include_str!("mod.rs");
        let map = essay.split("```").nth(1).expect("there is a map");
        let mut found = 0;
        for line in map.lines().filter_map(|line| line.strip_prefix("//!")) {
            let line = line.trim_start().trim_start_matches("word").trim_start();
            let Some((Ok(word), line)) = line.split_once(' ').map(|(word, rest)| (word.parse::<u8>(), rest.trim())) else { continue };
            let layout = line.split("  ").next().unwrap_or_default();
            let parts: Vec<(&str, u8)> = layout
                .split('|')
                .map(|part| part.split('(').next().unwrap_or_default().trim().rsplit_once(' ').expect(part))
                .map(|(name, bits)| (name, bits.parse().expect(name)))
                .collect();
            let mut left: u8 = parts.iter().map(|(_, bits)| bits).sum();
            assert!(matches!(left, 64 | 128), "word {word} has {left} bits");
            for (name, bits) in parts {
                left -= bits;
                if let Some(field) = Field::by_name(name) {
                    let info = field.info();
                    assert!(info.word == word && info.shift == left, "{field:?} is said to be at bit {left} of word {word}");
                    found += 1;
                }
            }
        }
        assert!(found >= 16, "only {found} fields were found in the map");
    }

    #[test]
    fn what_is_state_is_what_no_frame_says() {
        for &field in Field::ALL {
            let registers = field.name().starts_with("reg") || field.name().contains("xreg");
            let state = registers || matches!(field, Field::Metadata | Field::PktMark | Field::ConjId);
            assert_eq!(field.is_state(), state, "{field:?}");
        }
    }
}
