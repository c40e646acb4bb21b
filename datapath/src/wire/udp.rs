//! UDP (RFC 768).

view! {
    /// A UDP header.
    Udp [8] {
        /// Source port.
        src, set_src: u16 at 0;
        /// Destination port.
        dst, set_dst: u16 at 2;
        /// The length of header and data.
        datagram_len, set_datagram_len: u16 at 4;
        /// The checksum of pseudo header, header and data; zero if there is none.
        checksum, set_checksum: u16 at 6;
    }
}
