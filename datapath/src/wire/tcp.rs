//! TCP (RFC 9293).

view! {
    /// A TCP header without its options.
    Tcp [20] {
        /// Source port.
        src, set_src: u16 at 0;
        /// Destination port.
        dst, set_dst: u16 at 2;
        /// Sequence number.
        seq, set_seq: u32 at 4;
        /// Acknowledgement number.
        ack, set_ack: u32 at 8;
        /// The header's length in units of four bytes (4 bits), and the flags (12 bits): [`FLAGS`].
        offset_flags, set_offset_flags: u16 at 12;
        /// Window.
        window, set_window: u16 at 14;
        /// The checksum of pseudo header, header and data.
        checksum, set_checksum: u16 at 16;
        /// Urgent pointer.
        urgent, set_urgent: u16 at 18;
    }
}

/// The flags in `offset_flags`, reserved ones included; FIN is the least significant.
pub const FLAGS: u16 = 0xfff;
