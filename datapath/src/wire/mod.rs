//! The formats of the protocols, one file each: views over bytes.
//!
//! A view is a reference to exactly the bytes of a header's fixed part. Making one checks that they are there, once; reading and writing through it
//! can't fail and needs no further check, because all offsets are constants within an array. A view promises nothing of the values: what a
//! guest wrote may contradict itself, and whoever uses a length or a version checks it.
//!
//! Numbers are in host order. An Ethernet address is a `u64` with the address in its low 48 bits, an IPv4 address a `u32`, an IPv6 address a `u128`,
//! as the values of [`crate::key::Field`]s.

/// Declares a view of a header of `$len` bytes with accessors for its fields: each a big-endian number at an offset.
macro_rules! view {
    ($(#[$meta:meta])* $name:ident [$len:literal] { $($(#[$doc:meta])* $get:ident, $set:ident: $type:ident at $at:literal;)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name<T>(T);

        impl $name<()> {
            /// The length of the header's fixed part, in bytes.
            pub const LEN: usize = $len;
        }

        impl<'a> $name<&'a [u8; $len]> {
            /// A view of the header that `bytes` begins with, if it is all there.
            #[inline(always)]
            pub fn new_checked(bytes: &'a [u8]) -> Option<Self> {
                bytes.first_chunk().map(Self)
            }
        }

        impl<'a> $name<&'a mut [u8; $len]> {
            /// A view, to write through, of the header that `bytes` begins with, if it is all there.
            #[inline(always)]
            pub fn new_checked_mut(bytes: &'a mut [u8]) -> Option<Self> {
                bytes.first_chunk_mut().map(Self)
            }
        }

        impl<T: std::ops::Deref<Target = [u8; $len]>> $name<T> {
            $($(#[$doc])* #[inline(always)] pub fn $get(&self) -> number!($type) { load!(self.0, $type, $at) })*
        }

        impl<T: std::ops::DerefMut<Target = [u8; $len]>> $name<T> {
            $(/// Writes it.
            #[inline(always)]
            pub fn $set(&mut self, value: number!($type)) { store!(self.0, $type, $at, value) })*
        }
    };
}

/// The Rust type of a number on the wire: `mac` is 48 bits wide.
macro_rules! number {
    (mac) => {
        u64
    };
    ($type:ident) => {
        $type
    };
}

/// Reads a big-endian number from an array.
macro_rules! load {
    ($bytes:expr, mac, $at:literal) => {
        u64::from(load!($bytes, u16, $at)) << 32 | u64::from(load!(&$bytes[2..], u32, $at))
    };
    ($bytes:expr, $type:ident, $at:literal) => {{
        let mut number = [0; size_of::<$type>()];
        number.copy_from_slice(&$bytes[$at..$at + size_of::<$type>()]);
        $type::from_be_bytes(number)
    }};
}

/// Writes a big-endian number into an array.
macro_rules! store {
    ($bytes:expr, mac, $at:literal, $value:expr) => {
        $bytes[$at..$at + 6].copy_from_slice(&$value.to_be_bytes()[2..])
    };
    ($bytes:expr, $type:ident, $at:literal, $value:expr) => {
        $bytes[$at..$at + size_of::<$type>()].copy_from_slice(&$value.to_be_bytes())
    };
}

pub mod arp;
pub mod checksum;
pub mod ethernet;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
pub mod mpls;
pub mod pbb;
pub mod sctp;
pub mod tcp;
pub mod udp;
pub mod vlan;

#[cfg(test)]
mod tests {
    use super::{ethernet::Ethernet, ipv6::Ipv6};

    #[test]
    fn numbers_are_read_as_they_are_written() {
        let mut bytes = [0u8; 40];
        let mut ethernet = Ethernet::new_checked_mut(&mut bytes).expect("there are 14 bytes");
        ethernet.set_dst(0x0102_0304_0506);
        ethernet.set_src(0xfffe_fdfc_fbfa);
        ethernet.set_ethertype(0x0800);
        assert_eq!(bytes[..14], [1, 2, 3, 4, 5, 6, 0xff, 0xfe, 0xfd, 0xfc, 0xfb, 0xfa, 8, 0]);
        let ethernet = Ethernet::new_checked(&bytes).expect("there are 14 bytes");
        assert_eq!((ethernet.dst(), ethernet.src(), ethernet.ethertype()), (0x0102_0304_0506, 0xfffe_fdfc_fbfa, 0x0800));
        let mut ipv6 = Ipv6::new_checked_mut(&mut bytes).expect("there are 40 bytes");
        ipv6.set_dst(u128::MAX - 1);
        assert_eq!((ipv6.dst(), ipv6.src()), (u128::MAX - 1, 0xfdfc_fbfa_0800 << 80));
        assert!(Ipv6::new_checked(&bytes[1..]).is_none());
    }
}
