//! MPLS (RFC 3032).

view! {
    /// An entry of a label stack.
    Mpls [4] {
        /// Label (20 bits), traffic class (3), bottom of stack (1), TTL (8).
        entry, set_entry: u32 at 0;
    }
}

/// In an entry: whether it is the last one.
pub const BOTTOM_OF_STACK: u32 = 1 << 8;
