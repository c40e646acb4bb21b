//! The codec against itself, against hostile bytes and against `ovs-ofctl`.

pub(super) mod differential;
pub(super) mod generate;
pub(super) mod hostile;
pub(super) mod ofctl;
mod round_trip;
pub(super) mod text;

use super::*;
use datapath::key::{Field, FieldRange, Match};
use datapath::tables::group::{BucketSpec, GROUP_ANY, GroupCommand, GroupKind};
use datapath::tables::instruction::{
    Bundle, BundleAlgorithm, CONTROLLER_WHOLE, HashFields, Instructions, Learn, LearnSource, LearnSpec, LearnTarget, Multipath,
    MultipathAlgorithm, OfAction,
};
use datapath::tables::meter::{BandKind, BandSpec, MeterCommand, MeterFlags};
use datapath::tables::{FlowMod, FlowModCommand, PortConfig, RemovedReason, RuleFilter, RuleFlags};

/// The bytes of one message.
fn bytes(message: &Message, xid: u32) -> Vec<u8> {
    let mut out = Vec::new();
    encode(message, xid, &mut out);
    out
}

/// Messages that follow each other in `stream`.
pub(super) fn split(mut stream: &[u8]) -> Vec<&[u8]> {
    let mut messages = Vec::new();
    while let Some(header) = Header::decode(stream) {
        let (message, rest) = stream.split_at(header.length.into());
        messages.push(message);
        stream = rest;
    }
    assert!(stream.is_empty());
    messages
}

fn http() -> Match {
    Match::ANY.with(Field::InPort, 1).with(Field::EthType, 0x0800).with(Field::IpProto, 6).with(Field::TcpDst, 80)
}

fn port_desc() -> PortDesc {
    PortDesc {
        number: PortNo(1),
        hw_addr: [2, 0, 0, 0, 0, 1],
        name: "vm1".into(),
        config: PortConfig::NO_FWD,
        state: LINK_DOWN,
        features: [0x2040, 0, 0, 0],
        current_speed: 10_000_000,
        max_speed: 10_000_000,
    }
}

fn range(field: Field, offset: u8, bits: u8) -> FieldRange {
    FieldRange { field, offset, bits }
}

fn whole(field: Field) -> FieldRange {
    range(field, 0, field.bits())
}

/// Every action that OpenFlow 1.3 or Nicira has, so that it comes back as it was. A clause of a conjunction is not among them: it can stand beside no other.
fn every_action() -> Vec<OfAction> {
    let output = |port| OfAction::Output { port, max_len: 0 };
    let learn = |specs: Vec<LearnSpec>| {
        OfAction::Learn(
            Learn {
                table: 1,
                priority: 0x8000,
                cookie: 0xfeed,
                idle_timeout: 10,
                hard_timeout: 20,
                send_flow_removed: true,
                delete_learned: true,
                specs: specs.into(),
            }
            .into(),
        )
    };
    vec![
        output(PortNo(2)),
        OfAction::Output { port: PortNo::CONTROLLER, max_len: 128 },
        output(PortNo::NORMAL),
        OfAction::OutputField { source: range(Field::Reg2, 0, 16), max_len: 0 },
        OfAction::SetField { field: Field::EthDst, value: 0x0200_0000_0002, mask: Field::EthDst.ones() },
        OfAction::SetField { field: Field::Ipv4Src, value: 0x0a00_0000, mask: 0xff00_0000 },
        OfAction::SetField { field: Field::Reg3, value: 5, mask: Field::Reg3.ones() },
        OfAction::SetField { field: Field::TunnelId, value: 7, mask: Field::TunnelId.ones() },
        OfAction::SetField { field: Field::PktMark, value: 9, mask: 0xff },
        OfAction::Move { source: range(Field::EthSrc, 0, 16), destination: range(Field::Reg0, 16, 16) },
        OfAction::Load { destination: range(Field::Reg1, 4, 8), value: 0xab },
        OfAction::StackPush(whole(Field::Reg4)),
        OfAction::StackPop(range(Field::Reg5, 8, 8)),
        OfAction::PushVlan(0x8100),
        OfAction::PopVlan,
        OfAction::SetNwTtl(9),
        OfAction::DecNwTtl,
        OfAction::DecNwTtlFor([1, 2, 3].into()),
        OfAction::PushMpls(0x8847),
        OfAction::SetMplsTtl(64),
        OfAction::DecMplsTtl,
        OfAction::PopMpls(0x0800),
        OfAction::Resubmit { port: PortNo::IN_PORT, table: Some(7) },
        OfAction::Resubmit { port: PortNo(3), table: None },
        OfAction::Resubmit { port: PortNo(3), table: Some(1) },
        OfAction::Controller { max_len: CONTROLLER_WHOLE, controller_id: 4, reason: 2, userdata: Default::default() },
        OfAction::Controller { max_len: 100, controller_id: 4, reason: 0, userdata: [1, 2, 3].into() },
        OfAction::Controller { max_len: CONTROLLER_WHOLE, controller_id: 0, reason: 1, userdata: [0xff; 9].into() },
        OfAction::SetQueue(6),
        OfAction::PopQueue,
        OfAction::Group(8),
        OfAction::Note([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14].into()),
        OfAction::Multipath(
            Multipath {
                fields: HashFields::SymmetricL4,
                basis: 50,
                algorithm: MultipathAlgorithm::HighestRandomWeight,
                max_link: 11,
                argument: 0,
                destination: range(Field::Reg0, 0, 16),
            }
            .into(),
        ),
        OfAction::Bundle(
            Bundle {
                algorithm: BundleAlgorithm::HighestRandomWeight,
                fields: HashFields::EthSrc,
                basis: 0,
                members: [PortNo(1), PortNo(2), PortNo(4)].into(),
                destination: None,
            }
            .into(),
        ),
        OfAction::Bundle(
            Bundle {
                algorithm: BundleAlgorithm::ActiveBackup,
                fields: HashFields::NwDst,
                basis: 3,
                members: [PortNo(1), PortNo(2)].into(),
                destination: Some(range(Field::Reg6, 0, 16)),
            }
            .into(),
        ),
        learn(vec![
            LearnSpec {
                source: LearnSource::Field(range(Field::VlanTci, 0, 12)),
                target: LearnTarget::Match(range(Field::VlanTci, 0, 12)),
                bits: 12,
            },
            LearnSpec { source: LearnSource::Field(whole(Field::EthSrc)), target: LearnTarget::Match(whole(Field::EthDst)), bits: 48 },
            LearnSpec { source: LearnSource::Value(99), target: LearnTarget::Match(whole(Field::InPortNxm)), bits: 16 },
            LearnSpec {
                source: LearnSource::Field(whole(Field::InPortNxm)),
                target: LearnTarget::Load(range(Field::Reg1, 16, 16)),
                bits: 16,
            },
            LearnSpec { source: LearnSource::Value(5), target: LearnTarget::Load(range(Field::Reg2, 0, 5)), bits: 5 },
            LearnSpec { source: LearnSource::Field(whole(Field::InPortNxm)), target: LearnTarget::Output, bits: 16 },
        ]),
        learn(vec![]),
        OfAction::Clone([output(PortNo(1)), OfAction::Clone([OfAction::DecNwTtl, output(PortNo(2))].into())].into()),
        OfAction::Clone([].into()),
        OfAction::Exit,
    ]
}

/// The standard's actions that Open vSwitch doesn't have, so that `ovs-ofctl` can't say what they are.
fn actions_of_the_standard_only() -> Vec<OfAction> {
    vec![OfAction::CopyTtlOut, OfAction::CopyTtlIn, OfAction::PushPbb, OfAction::PopPbb]
}

fn clause() -> OfAction {
    OfAction::Conjunction { id: 7, clause: 1, clauses: 3 }
}

fn bucket(weight: u16, watch_port: u32, watch_group: u32, actions: &[OfAction]) -> BucketSpec {
    BucketSpec { weight, watch_port: PortNo(watch_port), watch_group, actions: actions.into() }
}

fn buckets() -> Vec<BucketSpec> {
    let output = |port| OfAction::Output { port: PortNo(port), max_len: 0 };
    let any = PortNo::ANY.0;
    vec![
        bucket(3, any, GROUP_ANY, &[OfAction::DecNwTtl, output(1)]),
        bucket(5, any, GROUP_ANY, &[output(2)]),
        bucket(0, any, GROUP_ANY, &[]),
    ]
}

fn failover() -> Vec<BucketSpec> {
    let output = |port| OfAction::Output { port: PortNo(port), max_len: 0 };
    vec![bucket(0, 1, GROUP_ANY, &[output(1)]), bucket(0, PortNo::ANY.0, 8, &[OfAction::Group(8)])]
}

fn bands() -> Vec<BandSpec> {
    vec![BandSpec { kind: BandKind::Drop, rate: 1000, burst: 200 }, BandSpec { kind: BandKind::DscpRemark(1), rate: 500, burst: 100 }]
}

fn packet_in(format: PacketInFormat) -> Message {
    Message::PacketIn(Box::new(PacketIn {
        format,
        total_len: 60,
        reason: 1,
        table: 2,
        cookie: 0xc0,
        matching: Match::ANY.with(Field::InPort, 3).with(Field::Metadata, 0x77),
        data: vec![0; 20],
        userdata: if format == PacketInFormat::Nicira2 { vec![1, 2, 3] } else { vec![] },
    }))
}

/// Everything that can be asked of an IPv6 frame with a solicitation, and of the state that it has.
fn longest_match() -> Match {
    let base = Match::ANY.with(Field::EthType, 0x86dd).with(Field::VlanVid, 0x1005).with(Field::IpProto, 58).with(Field::Icmpv6Type, 135);
    Field::ALL.iter().filter(|field| !field.info().view).fold(base, |matching, field| match matching.get(*field) {
        None if matching.permits(*field) && field.info().maskable => matching.with_masked(*field, 1, 1),
        None if matching.permits(*field) => matching.with(*field, 1),
        _ => matching,
    })
}

fn full_update(event: RuleEvent, instructions: Instructions) -> RuleUpdate {
    RuleUpdate::Full(Box::new(FullUpdate {
        event,
        table: 4,
        priority: 0x8000,
        idle_timeout: 5,
        hard_timeout: 0,
        cookie: 0x1234,
        matching: http(),
        instructions,
    }))
}

fn flow_stats(instructions: Instructions) -> FlowStats {
    FlowStats {
        table: 3,
        age: Age { seconds: 12, nanoseconds: 345_000_000 },
        idle_age: None,
        change_age: None,
        priority: 100,
        idle_timeout: 10,
        hard_timeout: 0,
        flags: RuleFlags::SEND_FLOW_REM,
        cookie: 0x1234,
        frames: 7,
        bytes: 700,
        matching: http(),
        instructions,
    }
}

fn all_instructions() -> Instructions {
    Instructions {
        meter: Some(3),
        apply: [OfAction::PushVlan(0x8100), OfAction::Output { port: PortNo(2), max_len: 0 }].into(),
        clear: true,
        write: [OfAction::Output { port: PortNo(3), max_len: 0 }].into(),
        metadata: Some((0x12, 0xff)),
        goto: Some(9),
    }
}

/// The xid that a message in a bundle has to share with the one that brings it.
const BUNDLED_XID: u32 = 0xb0;

fn meter_flags() -> MeterFlags {
    MeterFlags(MeterFlags::KBPS.0 | MeterFlags::BURST.0 | MeterFlags::STATS.0)
}

/// The xid that a sample is to be sent with.
fn xid_for(sample: &Message, xid: u32) -> u32 {
    if matches!(sample, Message::BundleAdd(_)) { BUNDLED_XID } else { xid }
}

/// A message of each kind; `ofctl.txt` has what `ovs-ofctl` says of them.
fn samples() -> Vec<Message> {
    let flow_mod = |command, matching, instructions| {
        let flow_mod = FlowMod { command, matching, instructions, ..FlowMod::default() };
        Message::FlowMod(Box::new(FlowModMessage { flow_mod, buffer_id: NO_BUFFER }))
    };
    let bundled = bytes(&flow_mod(FlowModCommand::Delete, Match::ANY, Instructions::default()), BUNDLED_XID);
    let group_mod = |command, kind, buckets| Message::GroupMod(GroupMod { command, group: 5, kind, buckets });
    let queue = |queue, min_rate, max_rate| QueueDesc { port: PortNo(1), queue, min_rate, max_rate };
    let age = Age { seconds: 3, nanoseconds: 500_000_000 };
    let reply = |body| Message::MultipartReply(MultipartReply { body, more: false });
    let request = |request| Message::MultipartRequest(Box::new(request));
    vec![
        Message::Hello(Hello::of(4)),
        Message::Error(Error::new(BadRequest::BadType.into(), &bytes(&Message::FeaturesRequest, 7))),
        Message::EchoRequest(b"ping".to_vec()),
        Message::EchoReply(vec![]),
        Message::FeaturesRequest,
        Message::FeaturesReply(Features {
            datapath_id: 0x0000_0200_0000_0001,
            buffers: 0,
            tables: 254,
            auxiliary_id: 0,
            capabilities: CAPABILITIES,
            ports: vec![],
        }),
        Message::GetConfigRequest,
        Message::GetConfigReply(Config { flags: 0, miss_send_len: 128 }),
        Message::SetConfig(Config { flags: 0, miss_send_len: 0xffff }),
        packet_in(PacketInFormat::Standard),
        packet_in(PacketInFormat::Nicira),
        packet_in(PacketInFormat::Nicira2),
        Message::FlowRemoved(Box::new(FlowRemoved {
            cookie: 0xc0,
            priority: 100,
            reason: RemovedReason::IdleTimeout,
            table: 5,
            age: Age { seconds: 3, nanoseconds: 500_000_000 },
            idle_timeout: 3,
            hard_timeout: 30,
            frames: 2,
            bytes: 120,
            matching: http(),
        })),
        Message::PortStatus(PortStatus { reason: PortReason::Modify, port: port_desc() }),
        Message::PacketOut(PacketOut {
            buffer_id: NO_BUFFER,
            in_port: PortNo::CONTROLLER,
            actions: [OfAction::Output { port: PortNo::TABLE, max_len: 0 }].into(),
            data: vec![0xff; 16],
        }),
        flow_mod(FlowModCommand::Add, http(), Instructions { apply: every_action().into(), ..Instructions::default() }),
        flow_mod(FlowModCommand::Add, http(), all_instructions()),
        flow_mod(FlowModCommand::Add, Match::ANY, Instructions { apply: [clause()].into(), ..Instructions::default() }),
        flow_mod(FlowModCommand::Add, Match::ANY.with(Field::ConjId, 7).with(Field::PktMark, 5), Instructions::default()),
        flow_mod(FlowModCommand::DeleteStrict, Match::ANY, Instructions::default()),
        group_mod(GroupCommand::Delete, GroupKind::All, vec![]),
        group_mod(GroupCommand::Add, GroupKind::Select, buckets()),
        group_mod(GroupCommand::Modify, GroupKind::FastFailover, failover()),
        group_mod(GroupCommand::AddOrModify, GroupKind::Indirect, vec![bucket(0, PortNo::ANY.0, GROUP_ANY, &[])]),
        Message::PortMod(PortMod {
            number: PortNo(1),
            hw_addr: [2, 0, 0, 0, 0, 1],
            config: PortConfig::PORT_DOWN,
            mask: PortConfig::PORT_DOWN,
            advertise: 0,
        }),
        Message::TableMod(TableMod { table: 1, config: 3 }),
        Message::BarrierRequest,
        Message::BarrierReply,
        Message::QueueGetConfigRequest(PortNo(1)),
        Message::QueueGetConfigReply(QueueConfig { port: PortNo(1), queues: vec![queue(0, None, None), queue(1, Some(500), Some(900))] }),
        Message::RoleRequest(RoleMessage { role: Some(Role::Master), generation_id: Some(5) }),
        Message::RoleReply(RoleMessage { role: Some(Role::Slave), generation_id: Some(5) }),
        Message::GetAsyncRequest,
        Message::GetAsyncReply(Async::DEFAULT),
        Message::SetAsync(Async::DEFAULT),
        Message::MeterMod(MeterMod { command: MeterCommand::Delete, flags: MeterFlags::default(), meter: 3, bands: vec![] }),
        Message::MeterMod(MeterMod { command: MeterCommand::Add, flags: meter_flags(), meter: 3, bands: bands() }),
        request(MultipartRequest::Desc),
        request(MultipartRequest::Flow(RuleFilter { matching: http(), table: 2, out_port: PortNo(4), ..RuleFilter::ALL })),
        request(MultipartRequest::Aggregate(RuleFilter { cookie: 1, cookie_mask: 3, ..RuleFilter::ALL })),
        request(MultipartRequest::Table),
        request(MultipartRequest::Port(PortNo::ANY)),
        request(MultipartRequest::Queue(PortNo::ANY, 0xffff_ffff)),
        request(MultipartRequest::Group(5)),
        request(MultipartRequest::GroupDesc),
        request(MultipartRequest::GroupFeatures),
        request(MultipartRequest::Meter(5)),
        request(MultipartRequest::MeterConfig(0xffff_ffff)),
        request(MultipartRequest::MeterFeatures),
        request(MultipartRequest::TableFeatures(vec![])),
        request(MultipartRequest::TableFeatures(vec![TableFeatures::of_switch(0, "first", 1000, 254)])),
        request(MultipartRequest::PortDesc),
        request(MultipartRequest::FlowMonitor(vec![MonitorRequest {
            id: 5,
            flags: MonitorFlags(0x3f),
            out_port: PortNo(2),
            table: 1,
            matching: http(),
        }])),
        reply(MultipartBody::Desc(Box::new(Desc {
            manufacturer: "nobody".into(),
            hardware: "none".into(),
            software: "0.1.0".into(),
            serial_number: "None".into(),
            datapath: "br0".into(),
        }))),
        reply(MultipartBody::Flow(vec![flow_stats(all_instructions()), flow_stats(Instructions::default())])),
        reply(MultipartBody::Aggregate(Aggregate { frames: 4, bytes: 400, rules: 2 })),
        reply(MultipartBody::Table(vec![TableStats { table: 0, active: 1, lookups: 5, matches: 4 }])),
        reply(MultipartBody::Port(vec![PortStats {
            number: PortNo(1),
            rx_frames: 1,
            tx_frames: 2,
            rx_bytes: 3,
            tx_bytes: 4,
            rx_dropped: 5,
            tx_dropped: 6,
            rx_errors: 7,
            tx_errors: 8,
            rx_frame_overrun_crc: [u64::MAX; 3],
            collisions: u64::MAX,
            age: Age { seconds: 9, nanoseconds: 0 },
        }])),
        reply(MultipartBody::Queue(vec![QueueStats { port: PortNo(1), queue: 2, bytes: 300, frames: 4, errors: 5, age }])),
        reply(MultipartBody::Group(vec![
            GroupStats { group: 1, references: 2, frames: 30, bytes: 400, age, buckets: vec![(10, 100), (20, 300)] },
            GroupStats { group: 2, references: 0, frames: 0, bytes: 0, age, buckets: vec![] },
        ])),
        reply(MultipartBody::GroupDesc(vec![
            GroupDesc { group: 1, kind: GroupKind::Select, buckets: buckets() },
            GroupDesc { group: 2, kind: GroupKind::FastFailover, buckets: failover() },
        ])),
        reply(MultipartBody::GroupFeatures(GroupFeatures::SUPPORTED)),
        reply(MultipartBody::Meter(vec![MeterStats { meter: 3, rules: 2, frames: 30, bytes: 400, age, bands: vec![(1, 10), (2, 20)] }])),
        reply(MultipartBody::MeterConfig(vec![MeterConfig { meter: 3, flags: meter_flags(), bands: bands() }])),
        reply(MultipartBody::MeterFeatures(MeterFeatures::SUPPORTED)),
        reply(MultipartBody::TableFeatures(vec![TableFeatures::of_switch(0, "table0", 1_000_000, 254)])),
        reply(MultipartBody::FlowMonitor(vec![
            full_update(RuleEvent::Added, all_instructions()),
            full_update(RuleEvent::Deleted(RemovedReason::HardTimeout), Instructions::default()),
            full_update(RuleEvent::Modified, Instructions::default()),
            RuleUpdate::Abbreviated(0x1234),
        ])),
        reply(MultipartBody::PortDesc(vec![port_desc()])),
        Message::SetPacketInFormat(PacketInFormat::Nicira2),
        Message::SetControllerId(7),
        Message::BundleControl(BundleControl { bundle: 3, kind: BundleControlType::CommitRequest, flags: ATOMIC | ORDERED }),
        Message::BundleAdd(BundleAdd { bundle: 3, flags: ATOMIC, message: bundled }),
        Message::FlowMonitorCancel(5),
        Message::FlowMonitorPaused,
        Message::FlowMonitorResumed,
        Message::FlowModTableId(true),
        Message::FlowAge,
    ]
}
