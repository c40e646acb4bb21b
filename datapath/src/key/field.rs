//! The one table of fields. (The table itself is written next.)

/// A field of a flow: a run of bits that rules can match and actions can write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Field {
    /// The ingress port.
    InPort,
}

/// Part of a field: `bits` bits from bit `offset`, counted from the least significant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FieldRange {
    /// Of which field.
    pub field: Field,
    /// The lowest bit.
    pub offset: u8,
    /// How many bits, at least one.
    pub bits: u8,
}
