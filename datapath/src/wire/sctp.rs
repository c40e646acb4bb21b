//! SCTP (RFC 9260).

view! {
    /// An SCTP common header.
    Sctp [12] {
        /// Source port.
        src, set_src: u16 at 0;
        /// Destination port.
        dst, set_dst: u16 at 2;
        /// Verification tag.
        tag, set_tag: u32 at 4;
        /// The CRC32c of header and chunks. SCTP sends its least significant byte first: as a number, its bytes are swapped (RFC 9260, appendix A).
        checksum, set_checksum: u32 at 8;
    }
}
