//! A name for every frame that is not forwarded.
//!
//! A frame that comes in has exactly one outcome on its ingress port: forwarded (to one port or more), given to a controller only, or dropped
//! under one [`DropReason`]. A copy sent towards a port has exactly one outcome on that egress port: transmitted, or dropped under one
//! [`TxDrop`]. Errors are for control; outcomes are for frames.

/// Declares an enum of reasons with, for each, its name in the operator's output and one sentence for a person.
macro_rules! reasons {
    ($(#[$meta:meta])* $name:ident { $($variant:ident = $text:literal, $says:literal;)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name { $(#[doc = $says] $variant,)* }

        impl $name {
            /// Every reason, in the order of its counters.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];
            /// How many reasons there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The name in the operator's output.
            pub const fn name(self) -> &'static str { match self { $(Self::$variant => $text,)* } }

            /// One sentence for a person.
            pub const fn says(self) -> &'static str { match self { $(Self::$variant => $says,)* } }
        }
    };
}

reasons! {
    /// Why a frame that came in went nowhere. Counted on its ingress port.
    DropReason {
        NoMatch = "no-match", "No rule of an OpenFlow table matched and there is no table-miss rule.";
        Rule = "rule", "The rules that matched say to send the frame nowhere.";
        Truncated = "truncated", "The frame is shorter than an Ethernet header.";
        PortDown = "port-down", "The ingress port is configured down or not to receive (OFPPC_PORT_DOWN, OFPPC_NO_RECV).";
        VlanIngress = "vlan-ingress", "The frame's VLAN is not allowed on its ingress port.";
        Reserved = "reserved-address", "NORMAL does not forward frames to the reserved link-local group addresses (IEEE 802.1Q, 8.6.3).";
        NoDestination = "no-destination", "Every port that the frame would be sent to is its own ingress port, gone, or closed to it.";
        TtlExpired = "ttl-expired", "The TTL or hop limit ran out and no controller asked for such frames.";
        NotApplicable = "not-applicable", "An action can't be applied to a frame of this kind.";
        TooManyTables = "too-many-resubmits", "The rules send the frame through more tables or actions than one translation may take.";
        ControllerQueueFull = "controller-queue-full", "The ingress port's queue towards the controllers is full.";
        NoController = "no-controller", "The frame was meant for a controller and none is connected.";
        BadDescriptor = "bad-descriptor", "The guest gave a descriptor chain that can't be a frame.";
        QueueDisabled = "queue-disabled", "The guest sent the frame through a queue that it disabled.";
        TooLong = "too-long", "The frame is longer than the largest the switch takes.";
        Meter = "meter", "The frame came faster than a meter lets it through.";
        NoBucket = "no-live-bucket", "The group that was to process the frame has no live bucket for it, or is not there.";
        Fragment = "fragment", "The frame is an IP fragment, and a controller has asked for these to be dropped.";
        BadOffload = "bad-offload", "The guest's virtio-net header contradicts the frame.";
    }
}

reasons! {
    /// Why a copy of a frame was not transmitted. Counted on its egress port.
    TxDrop {
        RingFull = "tx-ring-full", "The guest, or the device, has no room for more frames.";
        LinkDown = "tx-link-down", "No guest is connected, or its driver is not ready, or has all its queues disabled; or the port's device is down or gone.";
        TooLong = "tx-too-long", "The frame does not fit the guest's buffers or the port's MTU.";
        BadDescriptor = "tx-bad-descriptor", "The guest gave a receive buffer that can't be written.";
        Offload = "tx-offload", "The frame's segmentation can't be carried out for this port.";
    }
}
