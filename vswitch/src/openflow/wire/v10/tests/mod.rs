//! OpenFlow 1.0: against itself, against hostile bytes and against `ovs-ofctl`.

mod hostile;
mod ofctl;
mod round_trip;

use super::super::error::{BadAction, BadRequest, Nicira};
use super::super::tests::split;
use super::super::*;
use super::VERSION;
use datapath::key::{Field, FieldRange, Match};
use datapath::tables::instruction::{
    Bundle, BundleAlgorithm, CONTROLLER_WHOLE, HashFields, Instructions, Learn, LearnSource, LearnSpec, LearnTarget, Multipath,
    MultipathAlgorithm, OfAction,
};
use datapath::tables::{FlowMod, FlowModCommand, PortConfig, RemovedReason, RuleFilter, RuleFlags};

/// Dialects of OpenFlow 1.0: each form that rules are told of and asked for in, without and with tables in flow-mods.
fn dialects() -> [Dialect; 3] {
    let plain = Dialect::new(VERSION);
    let nicira = Dialect { told: FlowFormat::Nxm, asked: FlowFormat::Nxm, ..plain };
    [plain, nicira, Dialect { table_ids: true, ..nicira }]
}

/// The bytes of a message.
fn bytes(dialect: &Dialect, message: &Message, xid: u32) -> Vec<u8> {
    let mut out = Vec::new();
    dialect.encode(message, xid, &mut out);
    out
}

/// What a message of these bytes says.
fn decode(dialect: &Dialect, message: &[u8]) -> Result<Message, ErrorCode> {
    { *dialect }.decode(message)
}

/// `message` with its length field set to what it is.
fn relength(mut message: Vec<u8>) -> Vec<u8> {
    let length = (message.len() as u16).to_be_bytes();
    message[2..4].copy_from_slice(&length);
    message
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// A match that `struct ofp_match` can say.
fn http() -> Match {
    Match::ANY.with(Field::InPort, 1).with(Field::EthType, 0x0800).with(Field::IpProto, 6).with(Field::TcpDst, 80)
}

/// A port as OpenFlow 1.0 describes it.
fn port_desc() -> PortDesc {
    PortDesc {
        number: PortNo(1),
        hw_addr: [2, 0, 0, 0, 0, 1],
        name: "vm1".into(),
        config: PortConfig::NO_FWD,
        state: LINK_DOWN,
        features: [0x2040, 0, 0, 0],
        current_speed: 0,
        max_speed: 0,
    }
}

fn set(field: Field, value: u128) -> OfAction {
    OfAction::SetField { field, value, mask: field.ones() }
}

/// An action of each kind that OpenFlow 1.0 has.
fn every_action() -> Vec<OfAction> {
    let range = |field, offset, bits| FieldRange { field, offset, bits };
    let specs = [
        LearnSpec {
            source: LearnSource::Field(range(Field::EthSrc, 0, 48)),
            target: LearnTarget::Match(range(Field::EthDst, 0, 48)),
            bits: 48,
        },
        LearnSpec { source: LearnSource::Field(range(Field::InPortNxm, 0, 16)), target: LearnTarget::Output, bits: 16 },
    ];
    vec![
        OfAction::Output { port: PortNo(2), max_len: 0 },
        OfAction::Output { port: PortNo::CONTROLLER, max_len: 128 },
        OfAction::Output { port: PortNo::NORMAL, max_len: 0 },
        OfAction::SetVlanVid(5),
        OfAction::SetVlanPcp(3),
        OfAction::PopVlan,
        set(Field::EthSrc, 0x0200_0000_0001),
        set(Field::EthDst, 0x0200_0000_0002),
        set(Field::Ipv4Src, 0x0a00_0001),
        set(Field::Ipv4Dst, 0x0a00_0002),
        set(Field::IpDscp, 12),
        set(Field::TcpSrc, 1000),
        set(Field::TcpDst, 80),
        OfAction::Enqueue { port: PortNo(2), queue: 7 },
        set(Field::TunnelId, 5),
        set(Field::TunnelId, 0x1_0000_0005),
        set(Field::MplsLabel, 9),
        set(Field::MplsTc, 3),
        OfAction::Move { source: range(Field::EthSrc, 0, 16), destination: range(Field::Reg0, 16, 16) },
        OfAction::Load { destination: range(Field::Reg1, 4, 8), value: 0xab },
        OfAction::Load { destination: range(Field::NwTtl, 0, 8), value: 9 },
        OfAction::StackPush(range(Field::Reg1, 0, 32)),
        OfAction::StackPop(range(Field::Metadata, 32, 32)),
        OfAction::OutputField { source: range(Field::Reg3, 0, 16), max_len: 0 },
        OfAction::PushMpls(0x8847),
        OfAction::PopMpls(0x0800),
        OfAction::SetMplsTtl(64),
        OfAction::DecMplsTtl,
        OfAction::DecNwTtl,
        OfAction::DecNwTtlFor([1, 2].into()),
        OfAction::Resubmit { port: PortNo(3), table: None },
        OfAction::Resubmit { port: PortNo::IN_PORT, table: Some(7) },
        OfAction::Controller { max_len: CONTROLLER_WHOLE, controller_id: 4, reason: 2, userdata: Default::default() },
        OfAction::Controller { max_len: 100, controller_id: 0, reason: 1, userdata: [1, 2, 3].into() },
        OfAction::SetQueue(6),
        OfAction::PopQueue,
        OfAction::Group(8),
        OfAction::Clone([OfAction::SetVlanVid(1), OfAction::Output { port: PortNo(2), max_len: 0 }].into()),
        OfAction::Note([1, 2, 3, 4, 5, 6].into()),
        OfAction::Multipath(
            Multipath {
                fields: HashFields::SymmetricL4,
                basis: 50,
                algorithm: MultipathAlgorithm::HighestRandomWeight,
                max_link: 3,
                argument: 0,
                destination: range(Field::Reg0, 0, 16),
            }
            .into(),
        ),
        OfAction::Bundle(
            Bundle {
                algorithm: BundleAlgorithm::ActiveBackup,
                fields: HashFields::EthSrc,
                basis: 0,
                members: [PortNo(1), PortNo(2)].into(),
                destination: None,
            }
            .into(),
        ),
        OfAction::Learn(
            Learn {
                table: 2,
                priority: 100,
                cookie: 5,
                idle_timeout: 10,
                hard_timeout: 20,
                send_flow_removed: true,
                delete_learned: false,
                specs: specs.into(),
            }
            .into(),
        ),
        OfAction::Exit,
    ]
}

fn apply(actions: impl Into<datapath::tables::instruction::OfActions>) -> Instructions {
    Instructions { apply: actions.into(), ..Instructions::default() }
}

/// A flow-mod as it is read: the flags and filters that others have as well are set.
fn flow_mod(command: FlowModCommand, matching: Match, instructions: Instructions) -> Message {
    let adds = command == FlowModCommand::Add;
    let flow_mod = FlowMod {
        command,
        table: if adds { 0 } else { RuleFilter::ALL_TABLES },
        matching,
        instructions,
        flags: if adds { RuleFlags::RESET_COUNTS } else { RuleFlags::default() },
        or_add: matches!(command, FlowModCommand::Modify | FlowModCommand::ModifyStrict),
        lenient: true,
        ..FlowMod::default()
    };
    Message::FlowMod(Box::new(FlowModMessage { flow_mod, buffer_id: NO_BUFFER }))
}

fn flow_stats(dialect: &Dialect, instructions: Instructions) -> FlowStats {
    let nicira = dialect.asked == FlowFormat::Nxm;
    FlowStats {
        table: 3,
        age: Age { seconds: 12, nanoseconds: 345_000_000 },
        idle_age: nicira.then_some(4),
        change_age: nicira.then_some(8),
        priority: 100,
        idle_timeout: 10,
        hard_timeout: 0,
        flags: RuleFlags::default(),
        cookie: 0x1234,
        frames: 7,
        bytes: 700,
        matching: http(),
        instructions,
    }
}

/// A message of each kind, as it is read; `ofctl.txt` has what `ovs-ofctl` says of them, and of those that Nicira's settings make others.
fn samples(dialect: &Dialect) -> Vec<Message> {
    let nicira = dialect.told == FlowFormat::Nxm;
    let request = |request| Message::MultipartRequest(Box::new(request));
    let reply = |body| Message::MultipartReply(MultipartReply { body, more: false });
    let packet_in = |format, matching, userdata: &[u8]| {
        let standard = format == PacketInFormat::Standard;
        Message::PacketIn(Box::new(PacketIn {
            format,
            total_len: 60,
            reason: 1,
            table: if standard { 0 } else { 2 },
            cookie: if standard { u64::MAX } else { 0xc0 },
            matching,
            data: vec![0; 20],
            userdata: userdata.to_vec(),
        }))
    };
    let in_port = Match::ANY.with(Field::InPort, 3);
    let state = in_port.with(Field::Reg1, 0x77).with(Field::Metadata, 5);
    let monitor = MonitorRequest { id: 7, flags: MonitorFlags(0x3f), out_port: PortNo::ANY, table: 0xff, matching: http() };
    let update = FullUpdate {
        event: RuleEvent::Modified,
        table: 3,
        priority: 100,
        idle_timeout: 10,
        hard_timeout: 20,
        cookie: 0x1234,
        matching: http().with(Field::Reg0, 5),
        instructions: apply([OfAction::Output { port: PortNo(2), max_len: 0 }]),
    };
    let deleted = FullUpdate { event: RuleEvent::Deleted(RemovedReason::Delete), instructions: Instructions::default(), ..update.clone() };
    vec![
        Message::Hello(Hello { versions: 0b10 }),
        Message::Hello(Hello { versions: 0b1_0010 }),
        Message::Error(Error::new(BadRequest::BadType.into(), &bytes(dialect, &Message::FeaturesRequest, 7))),
        Message::Error(Error::new(Nicira::BadConjunction.into(), &bytes(dialect, &Message::FeaturesRequest, 7))),
        Message::EchoRequest(b"ping".to_vec()),
        Message::EchoReply(vec![]),
        Message::FeaturesRequest,
        Message::FeaturesReply(Features {
            datapath_id: 0x0000_0200_0000_0001,
            buffers: 0,
            tables: 254,
            auxiliary_id: 0,
            capabilities: 0b100_0111,
            ports: vec![port_desc(), PortDesc { number: PortNo::LOCAL, ..port_desc() }],
        }),
        Message::GetConfigRequest,
        Message::GetConfigReply(Config { flags: 1, miss_send_len: 128 }),
        Message::SetConfig(Config { flags: 4, miss_send_len: 0xffff }),
        packet_in(PacketInFormat::Standard, in_port, &[]),
        packet_in(PacketInFormat::Nicira, state, &[]),
        packet_in(PacketInFormat::Nicira2, state, &[1, 2, 3]),
        Message::FlowRemoved(Box::new(FlowRemoved {
            cookie: 0xc0,
            priority: 100,
            reason: RemovedReason::IdleTimeout,
            table: if nicira { 5 } else { 0 },
            age: Age { seconds: 3, nanoseconds: 500_000_000 },
            idle_timeout: 3,
            hard_timeout: 0,
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
        flow_mod(FlowModCommand::Add, http(), apply(every_action())),
        flow_mod(FlowModCommand::Modify, http(), Instructions { metadata: Some((0x12, 0xff)), ..apply([set(Field::TcpSrc, 5)]) }),
        flow_mod(FlowModCommand::DeleteStrict, Match::ANY, Instructions::default()),
        Message::PortMod(PortMod {
            number: PortNo(1),
            hw_addr: [2, 0, 0, 0, 0, 1],
            config: PortConfig::PORT_DOWN,
            mask: PortConfig::PORT_DOWN,
            advertise: 0x2000,
        }),
        Message::BarrierRequest,
        Message::BarrierReply,
        Message::QueueGetConfigRequest(PortNo(1)),
        Message::QueueGetConfigReply(QueueConfig {
            port: PortNo(1),
            queues: vec![
                QueueDesc { port: PortNo(1), queue: 0, min_rate: None, max_rate: None },
                QueueDesc { port: PortNo(1), queue: 3, min_rate: Some(500), max_rate: None },
            ],
        }),
        Message::RoleRequest(RoleMessage { role: Some(Role::Master), generation_id: None }),
        Message::RoleReply(RoleMessage { role: Some(Role::Slave), generation_id: None }),
        Message::SetAsync(Async::DEFAULT),
        Message::SetPacketInFormat(PacketInFormat::Nicira2),
        Message::SetControllerId(9),
        Message::SetFlowFormat(FlowFormat::Nxm),
        Message::FlowModTableId(true),
        Message::FlowAge,
        Message::FlowMonitorCancel(7),
        Message::FlowMonitorPaused,
        Message::FlowMonitorResumed,
        request(MultipartRequest::Desc),
        request(MultipartRequest::Flow(RuleFilter { matching: http(), table: 2, out_port: PortNo(4), ..RuleFilter::ALL })),
        request(MultipartRequest::Aggregate(RuleFilter {
            cookie: u64::from(nicira),
            cookie_mask: if nicira { 3 } else { 0 },
            ..RuleFilter::ALL
        })),
        request(MultipartRequest::Table),
        request(MultipartRequest::Port(PortNo::ANY)),
        request(MultipartRequest::Queue(PortNo::ANY, QUEUE_ALL)),
        request(MultipartRequest::PortDesc),
        request(MultipartRequest::FlowMonitor(vec![monitor])),
        reply(MultipartBody::Desc(Box::new(Desc {
            manufacturer: "nobody".into(),
            hardware: "none".into(),
            software: "0.1.0".into(),
            serial_number: "None".into(),
            datapath: "br0".into(),
        }))),
        reply(MultipartBody::Flow(vec![
            flow_stats(dialect, apply([OfAction::DecNwTtl, OfAction::Output { port: PortNo(2), max_len: 0 }])),
            flow_stats(dialect, Instructions::default()),
        ])),
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
            age: Age::default(),
        }])),
        reply(MultipartBody::Queue(vec![QueueStats { port: PortNo(1), queue: 2, bytes: 300, frames: 4, errors: 5, age: Age::default() }])),
        reply(MultipartBody::PortDesc(vec![port_desc()])),
        reply(MultipartBody::FlowMonitor(vec![
            RuleUpdate::Full(Box::new(update)),
            RuleUpdate::Full(Box::new(deleted)),
            RuleUpdate::Abbreviated(0x1234),
        ])),
    ]
}
