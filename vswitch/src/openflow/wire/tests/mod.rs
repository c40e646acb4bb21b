//! The codec against itself, against hostile bytes and against `ovs-ofctl`.

mod hostile;
mod ofctl;
mod round_trip;

use super::*;
use datapath::key::{Field, FieldRange, Match};
use datapath::tables::instruction::{CONTROLLER_WHOLE, Instructions, OfAction};
use datapath::tables::{FlowMod, FlowModCommand, PortConfig, RemovedReason, RuleFilter, RuleFlags};

/// The bytes of one message.
fn bytes(message: &Message, xid: u32) -> Vec<u8> {
    let mut out = Vec::new();
    encode(message, xid, &mut out);
    out
}

/// Messages that follow each other in `stream`.
fn split(mut stream: &[u8]) -> Vec<&[u8]> {
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

fn every_action() -> Vec<OfAction> {
    let range = |field, offset, bits| FieldRange { field, offset, bits };
    vec![
        OfAction::Output { port: PortNo(2), max_len: 0 },
        OfAction::Output { port: PortNo::CONTROLLER, max_len: 128 },
        OfAction::Output { port: PortNo::NORMAL, max_len: 0 },
        OfAction::SetField { field: Field::EthDst, value: 0x0200_0000_0002, mask: Field::EthDst.ones() },
        OfAction::SetField { field: Field::Ipv4Src, value: 0x0a00_0000, mask: 0xff00_0000 },
        OfAction::SetField { field: Field::Reg3, value: 5, mask: Field::Reg3.ones() },
        OfAction::Move { source: range(Field::EthSrc, 0, 16), destination: range(Field::Reg0, 16, 16) },
        OfAction::Load { destination: range(Field::Reg1, 4, 8), value: 0xab },
        OfAction::PushVlan(0x8100),
        OfAction::PopVlan,
        OfAction::SetNwTtl(9),
        OfAction::DecNwTtl,
        OfAction::Resubmit { port: PortNo::IN_PORT, table: Some(7) },
        OfAction::Resubmit { port: PortNo(3), table: None },
        OfAction::Resubmit { port: PortNo(3), table: Some(1) },
        OfAction::Controller { max_len: CONTROLLER_WHOLE, controller_id: 4, reason: 2 },
        OfAction::SetQueue(6),
        OfAction::Group(8),
    ]
}

fn flow_stats(instructions: Instructions) -> FlowStats {
    FlowStats {
        table: 3,
        age: Age { seconds: 12, nanoseconds: 345_000_000 },
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
        meter: None,
        apply: vec![OfAction::PushVlan(0x8100), OfAction::Output { port: PortNo(2), max_len: 0 }],
        clear: true,
        write: vec![OfAction::Output { port: PortNo(3), max_len: 0 }],
        metadata: Some((0x12, 0xff)),
        goto: Some(9),
    }
}

/// A message of each kind; `ofctl.txt` has what `ovs-ofctl` says of them.
fn samples() -> Vec<Message> {
    let flow_mod = |command, matching, instructions| {
        let flow_mod = FlowMod { command, matching, instructions, ..FlowMod::default() };
        Message::FlowMod(Box::new(FlowModMessage { flow_mod, buffer_id: NO_BUFFER }))
    };
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
        }),
        Message::GetConfigRequest,
        Message::GetConfigReply(Config { flags: 0, miss_send_len: 128 }),
        Message::SetConfig(Config { flags: 0, miss_send_len: 0xffff }),
        Message::PacketIn(Box::new(PacketIn {
            total_len: 60,
            reason: 1,
            table: 2,
            cookie: 0xc0,
            matching: Match::ANY.with(Field::InPort, 3).with(Field::Metadata, 0x77),
            data: vec![0; 20],
        })),
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
            actions: vec![OfAction::Output { port: PortNo::TABLE, max_len: 0 }],
            data: vec![0xff; 16],
        }),
        flow_mod(FlowModCommand::Add, http(), Instructions { apply: every_action(), ..Instructions::default() }),
        flow_mod(FlowModCommand::Add, http(), all_instructions()),
        flow_mod(FlowModCommand::DeleteStrict, Match::ANY, Instructions::default()),
        Message::GroupMod(GroupMod { command: ModCommand::Delete, kind: 0, group: 5 }),
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
        Message::QueueGetConfigReply(PortNo(1)),
        Message::RoleRequest(RoleMessage { role: Some(Role::Master), generation_id: 5 }),
        Message::RoleReply(RoleMessage { role: Some(Role::Slave), generation_id: 5 }),
        Message::GetAsyncRequest,
        Message::GetAsyncReply(Async::DEFAULT),
        Message::SetAsync(Async::DEFAULT),
        Message::MeterMod(MeterMod { command: ModCommand::Delete, flags: 0, meter: 3 }),
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
        request(MultipartRequest::TableFeatures),
        request(MultipartRequest::PortDesc),
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
        reply(MultipartBody::Queue),
        reply(MultipartBody::Group),
        reply(MultipartBody::GroupDesc),
        reply(MultipartBody::GroupFeatures),
        reply(MultipartBody::Meter),
        reply(MultipartBody::MeterConfig),
        reply(MultipartBody::MeterFeatures),
        reply(MultipartBody::TableFeatures(vec![TableFeatures { table: 0, name: "table0".into(), max_entries: 1_000_000, tables: 254 }])),
        reply(MultipartBody::PortDesc(vec![port_desc()])),
        Message::SetPacketInFormat(PACKET_IN_STANDARD),
    ]
}
