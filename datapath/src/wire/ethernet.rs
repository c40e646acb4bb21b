//! Ethernet (IEEE 802.3), with its LLC and SNAP headers (IEEE 802).

view! {
    /// An Ethernet header without tags.
    Ethernet [14] {
        /// Destination address.
        dst, set_dst: mac at 0;
        /// Source address.
        src, set_src: mac at 6;
        /// The type of what follows; below [`ethertype::MIN`] it is a length, and an LLC header follows.
        ethertype, set_ethertype: u16 at 12;
    }
}

view! {
    /// An LLC header with a SNAP header behind it.
    Snap [8] {
        /// LLC's DSAP, SSAP and control, and SNAP's organisation: [`Snap::RFC1042`] if an Ethernet type follows.
        llc_and_oui, set_llc_and_oui: mac at 0;
        /// The Ethernet type of what follows.
        ethertype, set_ethertype: u16 at 6;
    }
}

impl Snap<()> {
    /// The first six bytes of a header that carries an Ethernet type (RFC 1042).
    pub const RFC1042: u64 = 0xaaaa_0300_0000;
}

/// Ethernet types.
pub mod ethertype {
    /// The least value that is a type and not a length.
    pub const MIN: u16 = 0x0600;
    /// Stands in OpenFlow for a frame that has no Ethernet type (OpenFlow 1.3.5, 7.2.3.7, `OFP_DL_TYPE_NOT_ETH_TYPE`).
    pub const NONE: u16 = 0x05ff;
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// RARP.
    pub const RARP: u16 = 0x8035;
    /// An 802.1Q tag (C-TAG).
    pub const VLAN: u16 = 0x8100;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// MPLS, unicast.
    pub const MPLS: u16 = 0x8847;
    /// MPLS, multicast.
    pub const MPLS_MULTICAST: u16 = 0x8848;
    /// An 802.1ad tag (S-TAG).
    pub const SERVICE_VLAN: u16 = 0x88a8;
    /// An 802.1ah I-TAG (PBB).
    pub const PBB: u16 = 0x88e7;

    /// Whether a VLAN tag follows.
    #[inline(always)]
    pub const fn is_vlan(ethertype: u16) -> bool {
        matches!(ethertype, VLAN | SERVICE_VLAN)
    }

    /// Whether an MPLS entry follows.
    pub const fn is_mpls(ethertype: u16) -> bool {
        matches!(ethertype, MPLS | MPLS_MULTICAST)
    }
}
