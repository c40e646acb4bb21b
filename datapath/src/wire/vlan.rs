//! VLAN tags (IEEE 802.1Q, 9.3).

view! {
    /// A VLAN tag: it begins where an untagged frame has its Ethernet type.
    VlanTag [4] {
        /// The tag's own Ethernet type, 0x8100 or 0x88a8.
        tpid, set_tpid: u16 at 0;
        /// Priority (3 bits), drop eligible indicator (1 bit), VLAN id (12 bits).
        tci, set_tci: u16 at 2;
    }
}

/// The VLAN id of a TCI.
pub const VID: u16 = 0x0fff;
/// The drop eligible indicator of a TCI. In a flow key, this bit says that there is a tag.
pub const DEI: u16 = 0x1000;
