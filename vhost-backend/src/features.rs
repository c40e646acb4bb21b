//! What a port offers its front end: virtio's feature bits, and the features of the vhost-user protocol itself.
//!
//! A feature is offered only if it is carried out. What belongs to the control queue (CTRL_VQ, MAC, STATUS, CTRL_GUEST_OFFLOADS) is the
//! front end's business and never offered: QEMU serves that queue itself.

use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_net::*;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

/// vhost-user's own bit among virtio's: the protocol features may be negotiated, and rings start disabled.
pub(crate) const PROTOCOL_FEATURES: u32 = 30;

/// The virtio features that are offered (virtio 1.2, 5.1.3 and 6).
///
/// Not offered: UFO, which virtio has deprecated in favour of USO; NOTIFY_ON_EMPTY, a legacy feature that no rate of traffic gains from.
pub const OFFERED: u64 = bits(&[
    VIRTIO_NET_F_CSUM,
    VIRTIO_NET_F_GUEST_CSUM,
    VIRTIO_NET_F_MTU,
    VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6,
    VIRTIO_NET_F_GUEST_ECN,
    VIRTIO_NET_F_HOST_TSO4,
    VIRTIO_NET_F_HOST_TSO6,
    VIRTIO_NET_F_HOST_ECN,
    VIRTIO_NET_F_MRG_RXBUF,
    VIRTIO_NET_F_GUEST_ANNOUNCE,
    VIRTIO_NET_F_MQ,
    VIRTIO_RING_F_INDIRECT_DESC,
    VIRTIO_RING_F_EVENT_IDX,
    PROTOCOL_FEATURES,
    VIRTIO_F_VERSION_1,
    VIRTIO_NET_F_GUEST_USO4,
    VIRTIO_NET_F_GUEST_USO6,
    VIRTIO_NET_F_HOST_USO,
]);

/// The features of the vhost-user protocol that are offered.
pub const OFFERED_PROTOCOL: Protocol = Protocol::MQ
    .union(Protocol::REPLY_ACK)
    .union(Protocol::CONFIGURE_MEM_SLOTS)
    .union(Protocol::RARP)
    .union(Protocol::MTU)
    .union(Protocol::STATUS)
    .union(Protocol::RESET_DEVICE);

/// Whether `features` holds the feature with this bit number.
pub(crate) const fn has(features: u64, bit: u32) -> bool {
    features & (1 << bit) != 0
}

const fn bits(numbers: &[u32]) -> u64 {
    let (mut features, mut at) = (0, 0);
    while at < numbers.len() {
        features |= 1 << numbers[at];
        at += 1;
    }
    features
}
