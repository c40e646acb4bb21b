//! ARP for IPv4 over Ethernet (RFC 826), and RARP (RFC 903), whose format is the same.

view! {
    /// An ARP message.
    Arp [28] {
        /// Hardware type (16 bits), protocol type (16), their addresses' lengths (8 each): [`Arp::ETHERNET_IPV4`] if the other accessors mean anything.
        kind, set_kind: mac at 0;
        /// 1 is a request, 2 a reply.
        op, set_op: u16 at 6;
        /// The sender's Ethernet address.
        sha, set_sha: mac at 8;
        /// The sender's IPv4 address.
        spa, set_spa: u32 at 14;
        /// The target's Ethernet address.
        tha, set_tha: mac at 18;
        /// The target's IPv4 address.
        tpa, set_tpa: u32 at 24;
    }
}

impl Arp<()> {
    /// The kind of a message about IPv4 addresses on Ethernet.
    pub const ETHERNET_IPV4: u64 = 0x0001_0800_0604;
}
