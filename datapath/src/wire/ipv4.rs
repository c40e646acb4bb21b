//! IPv4 (RFC 791).

view! {
    /// An IPv4 header without its options.
    Ipv4 [20] {
        /// Version (4 bits), and the header's length in units of four bytes (4 bits).
        version_ihl, set_version_ihl: u8 at 0;
        /// DSCP (6 bits) and ECN (2 bits).
        tos, set_tos: u8 at 1;
        /// The length of the datagram, header included.
        total_len, set_total_len: u16 at 2;
        /// The id that a datagram's fragments have in common.
        id, set_id: u16 at 4;
        /// Reserved, don't-fragment and more-fragments (1 bit each), and the fragment's offset in units of eight bytes (13 bits).
        flags_offset, set_flags_offset: u16 at 6;
        /// Time to live.
        ttl, set_ttl: u8 at 8;
        /// What follows: see [`proto`].
        proto, set_proto: u8 at 9;
        /// The checksum of the header.
        checksum, set_checksum: u16 at 10;
        /// Source address.
        src, set_src: u32 at 12;
        /// Destination address.
        dst, set_dst: u32 at 16;
    }
}

/// In `flags_offset`: not to be fragmented.
pub const DONT_FRAGMENT: u16 = 0x4000;
/// In `flags_offset`: more fragments follow.
pub const MORE_FRAGMENTS: u16 = 0x2000;
/// In `flags_offset`: the offset.
pub const FRAGMENT_OFFSET: u16 = 0x1fff;

impl<T: std::ops::Deref<Target = [u8; 20]>> Ipv4<T> {
    /// The length of the header, options included, in bytes. `None` if it is no IPv4 header.
    #[inline(always)]
    pub fn header_len(&self) -> Option<usize> {
        match self.version_ihl() {
            version_ihl @ 0x45..=0x4f => Some(usize::from(version_ihl & 0xf) * 4),
            _ => None,
        }
    }
}

/// Protocol numbers, in IPv4 headers and in IPv6 ones.
pub mod proto {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// Encapsulating security payload.
    pub const ESP: u8 = 50;
    /// Authentication header.
    pub const AUTH: u8 = 51;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// Nothing follows.
    pub const NO_NEXT: u8 = 59;
    /// IPv6 destination options.
    pub const DESTINATION: u8 = 60;
    /// SCTP.
    pub const SCTP: u8 = 132;
}
