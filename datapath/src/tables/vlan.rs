//! VLANs as ports carry them (IEEE 802.1Q).

/// A set of VLAN ids, 0 to 4095.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VlanSet(Box<[u64; 64]>);

impl VlanSet {
    /// Every VLAN.
    pub fn all() -> Self {
        Self(Box::new([u64::MAX; 64]))
    }

    /// No VLAN.
    pub fn none() -> Self {
        Self(Box::new([0; 64]))
    }

    /// Adds a VLAN id; only its low 12 bits count.
    pub fn insert(&mut self, vlan: u16) {
        self.0[usize::from(vlan >> 6 & 63)] |= 1 << (vlan & 63);
    }

    /// Whether it has this VLAN id, of which only the low 12 bits count.
    pub fn contains(&self, vlan: u16) -> bool {
        self.0[usize::from(vlan >> 6 & 63)] >> (vlan & 63) & 1 != 0
    }
}

impl FromIterator<u16> for VlanSet {
    fn from_iter<I: IntoIterator<Item = u16>>(vlans: I) -> Self {
        let mut set = Self::none();
        vlans.into_iter().for_each(|vlan| set.insert(vlan));
        set
    }
}

/// How a port carries VLANs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VlanMode {
    /// Frames come and go without a tag and belong to this VLAN. Tagged frames are refused, but for those that carry a priority only (VLAN id 0).
    Access(u16),
    /// Frames come and go with the tag of their VLAN.
    Trunk {
        /// The VLANs carried in tags.
        vlans: VlanSet,
        /// The VLAN of frames without a tag. If there is none, they belong to VLAN 0, which is always carried then.
        native: Option<u16>,
    },
}

impl Default for VlanMode {
    /// A trunk of all VLANs.
    fn default() -> Self {
        Self::Trunk { vlans: VlanSet::all(), native: None }
    }
}

impl VlanMode {
    /// The VLAN that a frame with the VLAN id `tag` in its outer tag, if it has a tag, belongs to when it comes in here. `None`: it is refused.
    pub fn ingress(&self, tag: Option<u16>) -> Option<u16> {
        match (self, tag.unwrap_or(0)) {
            (Self::Access(vlan), 0) => Some(*vlan),
            (Self::Access(_), _) => None,
            (Self::Trunk { native, .. }, 0) => Some(native.unwrap_or(0)),
            (Self::Trunk { .. }, vlan) => self.carries(vlan).then_some(vlan),
        }
    }

    /// Whether frames of `vlan` go out here.
    pub fn carries(&self, vlan: u16) -> bool {
        match self {
            Self::Access(own) => vlan == *own,
            Self::Trunk { vlans, native } if vlan != 0 => *native == Some(vlan) || vlans.contains(vlan),
            Self::Trunk { native, .. } => native.is_none(),
        }
    }

    /// Whether frames of `vlan` go out with a tag.
    pub fn tags(&self, vlan: u16) -> bool {
        match self {
            Self::Access(_) => false,
            Self::Trunk { native, .. } => vlan != 0 && *native != Some(vlan),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_access_port_has_one_vlan() {
        let access = VlanMode::Access(10);
        assert_eq!([access.ingress(None), access.ingress(Some(0)), access.ingress(Some(10))], [Some(10), Some(10), None]);
        assert!(access.carries(10) && !access.carries(0) && !access.carries(11) && !access.tags(10));
    }

    #[test]
    fn a_trunk_carries_its_vlans_and_untagged_frames() {
        let trunk = VlanMode::Trunk { vlans: (10..=20).collect(), native: None };
        assert_eq!(
            [trunk.ingress(None), trunk.ingress(Some(0)), trunk.ingress(Some(10)), trunk.ingress(Some(21))],
            [Some(0), Some(0), Some(10), None]
        );
        assert!(trunk.carries(0) && trunk.carries(20) && !trunk.carries(21));
        assert!(!trunk.tags(0) && trunk.tags(10));
        assert!((0..4096).all(|vlan| VlanMode::default().carries(vlan)));
    }

    #[test]
    fn a_native_vlan_takes_the_untagged_frames() {
        let trunk = VlanMode::Trunk { vlans: (10..=20).collect(), native: Some(5) };
        assert_eq!(
            [trunk.ingress(None), trunk.ingress(Some(0)), trunk.ingress(Some(5)), trunk.ingress(Some(6))],
            [Some(5), Some(5), Some(5), None]
        );
        assert!(!trunk.carries(0) && trunk.carries(5) && trunk.carries(10));
        assert!(!trunk.tags(5) && trunk.tags(10));
    }
}
