//! Provider backbone bridges (IEEE 802.1Q, 9.7; once 802.1ah).

view! {
    /// What an I-TAG begins with, behind its Ethernet type. The customer's addresses and its Ethernet type follow.
    Pbb [4] {
        /// Priority (3 bits), drop eligible (1), use customer addresses (1), reserved (3), I-SID (24).
        tci, set_tci: u32 at 0;
    }
}

/// In the I-TAG: use customer addresses.
pub const UCA: u32 = 1 << 27;
/// In the I-TAG: the I-SID.
pub const ISID: u32 = 0x00ff_ffff;
