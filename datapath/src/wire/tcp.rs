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
        /// The header's length in units of four bytes (4 bits), and the flags (12 bits): see [`flags`].
        offset_flags, set_offset_flags: u16 at 12;
        /// Window.
        window, set_window: u16 at 14;
        /// The checksum of pseudo header, header and data.
        checksum, set_checksum: u16 at 16;
        /// Urgent pointer.
        urgent, set_urgent: u16 at 18;
    }
}

impl<T: std::ops::Deref<Target = [u8; 20]>> Tcp<T> {
    /// The length of the header, options included, in bytes; below 20 it is no TCP header.
    pub fn header_len(&self) -> usize {
        usize::from(self.offset_flags() >> 12) * 4
    }
}

/// The flags in `offset_flags`.
pub mod flags {
    /// No more data from the sender.
    pub const FIN: u16 = 1 << 0;
    /// Synchronise sequence numbers.
    pub const SYN: u16 = 1 << 1;
    /// Reset the connection.
    pub const RST: u16 = 1 << 2;
    /// Push.
    pub const PSH: u16 = 1 << 3;
    /// The acknowledgement number counts.
    pub const ACK: u16 = 1 << 4;
    /// The urgent pointer counts.
    pub const URG: u16 = 1 << 5;
    /// ECN echo.
    pub const ECE: u16 = 1 << 6;
    /// Congestion window reduced.
    pub const CWR: u16 = 1 << 7;
    /// All twelve bits, reserved ones included.
    pub const ALL: u16 = 0xfff;
}
