//! ICMP (RFC 792), ICMPv6 (RFC 4443) and neighbour discovery (RFC 4861, section 4).

view! {
    /// What all ICMP and ICMPv6 messages begin with.
    Icmp [4] {
        /// Type.
        kind, set_kind: u8 at 0;
        /// Code.
        code, set_code: u8 at 1;
        /// The checksum of the message; for ICMPv6, of a pseudo header too.
        checksum, set_checksum: u16 at 2;
    }
}

view! {
    /// A neighbour solicitation or advertisement without its options.
    Nd [24] {
        /// [`NEIGHBOR_SOLICITATION`] or [`NEIGHBOR_ADVERTISEMENT`].
        kind, set_kind: u8 at 0;
        /// Code, always zero.
        code, set_code: u8 at 1;
        /// The checksum of pseudo header and message.
        checksum, set_checksum: u16 at 2;
        /// Flags of an advertisement, in the top three bits.
        flags, set_flags: u32 at 4;
        /// The address in question.
        target, set_target: u128 at 8;
    }
}

view! {
    /// An option that carries an Ethernet address.
    LinkLayerAddress [8] {
        /// [`SOURCE_LINK_LAYER`] or [`TARGET_LINK_LAYER`].
        kind, set_kind: u8 at 0;
        /// The option's length in units of eight bytes: one.
        units, set_units: u8 at 1;
        /// The address.
        address, set_address: mac at 2;
    }
}

/// The shortest ICMP message for IPv4.
pub const ICMPV4_MIN: usize = 8;
/// ICMPv6 type of a neighbour solicitation.
pub const NEIGHBOR_SOLICITATION: u8 = 135;
/// ICMPv6 type of a neighbour advertisement.
pub const NEIGHBOR_ADVERTISEMENT: u8 = 136;
/// The type of the option with the sender's link-layer address.
pub const SOURCE_LINK_LAYER: u8 = 1;
/// The type of the option with the target's link-layer address.
pub const TARGET_LINK_LAYER: u8 = 2;

/// The offset of the first option of type `kind` that is an Ethernet address, in `options`, which follow an [`Nd`].
/// `None` if there is none, or an option before it is malformed.
pub fn find_link_layer(options: &[u8], kind: u8) -> Option<usize> {
    let mut at = 0;
    loop {
        let [found, units] = *options.get(at..)?.first_chunk()?;
        let len = usize::from(units) * 8;
        if len == 0 || at + len > options.len() {
            return None;
        }
        if found == kind && units == 1 {
            return Some(at);
        }
        at += len;
    }
}
