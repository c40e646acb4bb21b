//! Messages at random: everything that the types can say, and OpenFlow 1.3 too.

use super::*;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

/// Matches of all kinds of frames, with prerequisites met.
pub fn matches() -> impl Strategy<Value = Match> {
    let types = (any::<bool>(), prop_oneof![Just(None), select(&[0x0800, 0x86dd, 0x0806, 0x8847, 0x88e7, 0x1234]).prop_map(Some)]);
    let protocols = prop_oneof![Just(None), select(&[1, 6, 17, 58, 132, 99]).prop_map(Some)];
    let icmp = prop_oneof![Just(None), Just(Some(135)), Just(Some(136))];
    let parts = vec((any::<u128>(), any::<u128>(), 0u8..4), Field::ALL.len());
    (types, protocols, icmp, parts).prop_map(|((vlan, eth_type), protocol, icmp, parts)| {
        let mut matching = Match::ANY;
        let (eth_type, protocol, icmp): (Option<u128>, Option<u128>, Option<u128>) = (eth_type, protocol, icmp);
        for (field, (value, mask, how)) in Field::ALL.iter().copied().zip(parts) {
            if field.info().view || !matching.permits(field) {
                continue;
            }
            let fixed = match field {
                Field::EthType => eth_type,
                Field::IpProto => protocol,
                Field::Icmpv6Type => icmp,
                Field::Icmpv6Code if icmp.is_some() => Some(0),
                Field::VlanVid if vlan => Some(value | 0x1000),
                Field::VlanVid => None,
                _ => {
                    match how {
                        0 => matching = matching.with(field, value),
                        1 if field.info().maskable => matching = matching.with_masked(field, value, mask),
                        _ => {}
                    }
                    None
                }
            };
            if let Some(value) = fixed {
                matching = matching.with(field, value);
            }
        }
        matching
    })
}

fn writable() -> impl Strategy<Value = Field> {
    let fields: Vec<_> = Field::ALL.iter().copied().filter(|field| field.info().writable).collect();
    select(fields)
}

fn any_field() -> impl Strategy<Value = Field> {
    select(Field::ALL)
}

/// Bits of a field.
fn bits_of(field: impl Strategy<Value = Field>) -> impl Strategy<Value = FieldRange> {
    (field, any::<u8>(), any::<u8>(), 0u8..3).prop_map(|(field, offset, bits, how)| {
        let offset = if how == 0 { 0 } else { offset % field.bits() };
        let left = field.bits() - offset;
        FieldRange { field, offset, bits: if how == 0 { left } else { 1 + bits % left } }
    })
}

fn destination() -> impl Strategy<Value = FieldRange> {
    bits_of(writable())
}

/// The same range, of `bits` bits at most.
fn shorten(range: FieldRange, bits: u8) -> FieldRange {
    FieldRange { bits: range.bits.min(bits), ..range }
}

fn ones(bits: u8) -> u128 {
    u128::MAX >> (128 - bits)
}

fn port() -> impl Strategy<Value = PortNo> {
    prop_oneof![1u32..70_000, 0xffff_fffau32..0xffff_ffff].prop_map(PortNo)
}

/// A port made of any number: most of them can be said in 16 bits.
fn some_port(random: u32) -> PortNo {
    match random >> 28 {
        0..12 => PortNo(1 + random % 0xfeff),
        12..15 => PortNo(0xffff_fff8 | random & 7),
        _ => PortNo(random),
    }
}

/// A port that can be said in 16 bits.
fn short_port() -> impl Strategy<Value = PortNo> {
    prop_oneof![1u32..0xff00, 0xffff_fff8u32..=0xffff_ffff].prop_map(PortNo)
}

fn hash_fields() -> impl Strategy<Value = HashFields> {
    use HashFields::*;
    select(&[EthSrc, SymmetricL4, SymmetricL3L4, SymmetricL3L4Udp, NwSrc, NwDst, SymmetricL3])
}

fn multipath() -> impl Strategy<Value = Multipath> {
    use MultipathAlgorithm::*;
    let algorithm = select(&[Modulo, HashThreshold, HighestRandomWeight, IterativeHash]);
    (hash_fields(), any::<u16>(), algorithm, any::<u16>(), any::<u32>(), destination()).prop_map(
        |(fields, basis, algorithm, max_link, argument, destination)| {
            let destination = shorten(destination, 64);
            let max_link = (u128::from(max_link) & ones(destination.bits)) as u16;
            Multipath { fields, basis, algorithm, max_link, argument, destination }
        },
    )
}

fn bundle() -> impl Strategy<Value = Bundle> {
    let algorithm = select(&[BundleAlgorithm::ActiveBackup, BundleAlgorithm::HighestRandomWeight]);
    (algorithm, hash_fields(), any::<u16>(), vec(short_port(), 0..9), of(destination())).prop_map(
        |(algorithm, fields, basis, mut members, destination)| {
            members.retain(|port| *port != PortNo::CONTROLLER);
            let destination = destination.map(|destination| shorten(destination, 64)).filter(|destination| destination.bits >= 16);
            Bundle { algorithm, fields, basis, members: members.into(), destination }
        },
    )
}

fn learn() -> impl Strategy<Value = Learn> {
    let spec = (any::<u128>(), bits_of(any_field()), bits_of(any_field()), destination(), 0u8..5).prop_map(
        |(value, source, matched, load, how)| {
            let (source, matched, load) = match how {
                0 => (source, shorten(matched, source.bits), load),
                2 => (source, matched, shorten(load, source.bits)),
                _ => (source, matched, load),
            };
            let (source, target, bits) = match how {
                0 => (LearnSource::Field(shorten(source, matched.bits)), LearnTarget::Match(matched), matched.bits),
                1 => (LearnSource::Value(value & ones(matched.bits)), LearnTarget::Match(matched), matched.bits),
                2 => (LearnSource::Field(shorten(source, load.bits)), LearnTarget::Load(load), load.bits),
                3 => (LearnSource::Value(value & ones(load.bits)), LearnTarget::Load(load), load.bits),
                _ => (LearnSource::Field(shorten(source, 32)), LearnTarget::Output, source.bits.min(32)),
            };
            LearnSpec { source, target, bits: bits.into() }
        },
    );
    let numbers = (0u8..254, any::<u16>(), any::<u64>(), any::<u16>(), any::<u16>(), any::<bool>(), any::<bool>());
    (numbers, vec(spec, 0..6)).prop_map(
        |((table, priority, cookie, idle_timeout, hard_timeout, send_flow_removed, delete_learned), specs)| Learn {
            table,
            priority,
            cookie,
            idle_timeout,
            hard_timeout,
            send_flow_removed,
            delete_learned,
            specs: specs.into(),
        },
    )
}

/// A note of a length that needs no padding.
fn note() -> impl Strategy<Value = OfAction> {
    (0usize..4).prop_flat_map(|words| vec(any::<u8>(), 6 + 8 * words)).prop_map(|note| OfAction::Note(note.into()))
}

/// Any action that OpenFlow 1.3 or Nicira has.
pub fn action() -> impl Strategy<Value = OfAction> {
    let leaf = prop_oneof![
        4 => (port(), any::<u16>()).prop_map(|(port, max_len)| OfAction::Output { port, max_len }),
        1 => (bits_of(any_field()), any::<u16>()).prop_map(|(source, max_len)| OfAction::OutputField { source: shorten(source, 64), max_len }),
        4 => (writable(), any::<u128>(), any::<u128>(), any::<bool>()).prop_map(|(field, value, mask, part)| {
            let mask = if part && field.info().maskable && mask & field.ones() != 0 { mask & field.ones() } else { field.ones() };
            OfAction::SetField { field, value: value & mask, mask }
        }),
        2 => (bits_of(any_field()), destination()).prop_map(|(source, destination)| {
            let bits = source.bits.min(destination.bits);
            OfAction::Move { source: shorten(source, bits), destination: shorten(destination, bits) }
        }),
        2 => (destination(), any::<u64>()).prop_map(|(destination, value)| {
            let destination = shorten(destination, 64);
            OfAction::Load { destination, value: value & ones(destination.bits) as u64 }
        }),
        1 => bits_of(any_field()).prop_map(OfAction::StackPush),
        1 => destination().prop_map(OfAction::StackPop),
        1 => select(&[0x8100, 0x88a8]).prop_map(OfAction::PushVlan),
        1 => select(&[0x8847, 0x8848]).prop_map(OfAction::PushMpls),
        1 => any::<u16>().prop_map(OfAction::PopMpls),
        2 => select(vec![
            OfAction::PopVlan,
            OfAction::PushPbb,
            OfAction::PopPbb,
            OfAction::DecNwTtl,
            OfAction::DecMplsTtl,
            OfAction::CopyTtlOut,
            OfAction::CopyTtlIn,
            OfAction::PopQueue,
            OfAction::Exit,
        ]),
        1 => any::<u8>().prop_map(OfAction::SetNwTtl),
        1 => any::<u8>().prop_map(OfAction::SetMplsTtl),
        1 => vec(any::<u16>(), 0..9).prop_map(|ids| OfAction::DecNwTtlFor(ids.into())),
        1 => (short_port(), of(0u8..254)).prop_map(|(port, table)| OfAction::Resubmit { port, table }),
        1 => (any::<u16>(), any::<u16>(), any::<u8>(), vec(any::<u8>(), 0..20)).prop_map(|(max_len, controller_id, reason, userdata)| {
            OfAction::Controller { max_len, controller_id, reason, userdata: userdata.into() }
        }),
        1 => any::<u32>().prop_map(OfAction::SetQueue),
        1 => any::<u32>().prop_map(OfAction::Group),
        1 => note(),
        1 => multipath().prop_map(|multipath| OfAction::Multipath(multipath.into())),
        1 => bundle().prop_map(|bundle| OfAction::Bundle(bundle.into())),
        1 => learn().prop_map(|learn| OfAction::Learn(learn.into())),
        1 => (any::<u32>(), 2u8..=64, any::<u8>()).prop_map(|(id, clauses, clause)| OfAction::Conjunction { id, clause: clause % clauses, clauses }),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| vec(inner, 0..4).prop_map(|actions| OfAction::Clone(actions.into())))
}

pub fn actions() -> impl Strategy<Value = Vec<OfAction>> {
    vec(action(), 0..8)
}

pub fn instructions() -> impl Strategy<Value = Instructions> {
    (of(any::<u32>()), actions(), any::<bool>(), actions(), of(any::<(u64, u64)>()), of(any::<u8>())).prop_map(
        |(meter, apply, clear, write, metadata, goto)| Instructions {
            meter,
            apply: apply.into(),
            clear,
            write: write.into(),
            metadata: metadata.map(|(value, mask)| (value & mask, mask)),
            goto,
        },
    )
}

pub fn flow_mods() -> impl Strategy<Value = FlowMod> {
    use FlowModCommand::*;
    let numbers = any::<(u8, u16, u64, u64, u16, u16, u32, u32)>();
    let command = select(&[Add, Modify, ModifyStrict, Delete, DeleteStrict]);
    (command, matches(), instructions(), numbers, 0u16..32).prop_map(|(command, matching, instructions, numbers, flags)| {
        let (table, priority, cookie, cookie_mask, idle_timeout, hard_timeout, out_port, out_group) = numbers;
        let flags = RuleFlags(flags);
        FlowMod {
            command,
            table,
            matching,
            priority,
            cookie,
            cookie_mask,
            idle_timeout,
            hard_timeout,
            flags,
            instructions,
            out_port: some_port(out_port),
            out_group,
            ..FlowMod::default()
        }
    })
}

pub fn buckets() -> impl Strategy<Value = Vec<BucketSpec>> {
    let bucket = (any::<u16>(), any::<u32>(), any::<u32>(), actions()).prop_map(|(weight, watch_port, watch_group, actions)| BucketSpec {
        weight,
        watch_port: some_port(watch_port),
        watch_group,
        actions: actions.into(),
    });
    vec(bucket, 0..5)
}

fn group_kinds() -> impl Strategy<Value = GroupKind> {
    select(&[GroupKind::All, GroupKind::Select, GroupKind::Indirect, GroupKind::FastFailover])
}

pub fn group_mods() -> impl Strategy<Value = GroupMod> {
    use GroupCommand::*;
    (select(&[Add, Modify, Delete, AddOrModify]), 0u32..0xffff_ff00, group_kinds(), buckets())
        .prop_map(|(command, group, kind, buckets)| GroupMod { command, group, kind, buckets })
}

pub fn bands() -> impl Strategy<Value = Vec<BandSpec>> {
    let kind = prop_oneof![Just(BandKind::Drop), any::<u8>().prop_map(BandKind::DscpRemark)];
    vec((kind, any::<u32>(), any::<u32>()).prop_map(|(kind, rate, burst)| BandSpec { kind, rate, burst }), 0..9)
}

pub fn meter_mods() -> impl Strategy<Value = MeterMod> {
    let command = select(&[MeterCommand::Add, MeterCommand::Modify, MeterCommand::Delete]);
    (command, any::<u32>(), 0u16..16, bands()).prop_map(|(command, meter, flags, bands)| MeterMod {
        command,
        meter,
        flags: MeterFlags(flags),
        bands,
    })
}

fn ages() -> impl Strategy<Value = Age> {
    (any::<u32>(), 0u32..1_000_000_000).prop_map(|(seconds, nanoseconds)| Age { seconds, nanoseconds })
}

fn reasons() -> impl Strategy<Value = RemovedReason> {
    use RemovedReason::*;
    select(&[IdleTimeout, HardTimeout, Delete, GroupDelete])
}

fn filters() -> impl Strategy<Value = RuleFilter> {
    (matches(), any::<(u8, u64, u64, u32, u32)>()).prop_map(|(matching, (table, cookie, cookie_mask, out_port, out_group))| RuleFilter {
        table,
        matching,
        priority: None,
        cookie,
        cookie_mask,
        out_port: some_port(out_port),
        out_group,
    })
}

fn names(most: usize) -> impl Strategy<Value = String> {
    proptest::string::string_regex(&format!("[a-z0-9-]{{0,{most}}}")).expect("an expression")
}

fn table_features() -> impl Strategy<Value = TableFeatures> {
    (any::<u8>(), names(31), any::<(u64, u64, u32, u32)>(), any::<u8>(), any::<usize>()).prop_map(|(table, name, numbers, tables, kept)| {
        let mut features = TableFeatures::of_switch(table, &name, numbers.3, tables);
        (features.metadata_match, features.metadata_write, features.config) = (numbers.0, numbers.1, numbers.2);
        features.properties.truncate(kept % 9);
        features
    })
}

fn monitor_requests() -> impl Strategy<Value = MonitorRequest> {
    (any::<(u32, u32, u8)>(), 0u16..64, matches()).prop_map(|((id, out_port, table), flags, matching)| MonitorRequest {
        id,
        flags: MonitorFlags(flags | MonitorFlags::ADD.0),
        out_port: some_port(out_port),
        table,
        matching,
    })
}

pub fn requests() -> impl Strategy<Value = MultipartRequest> {
    use MultipartRequest::*;
    prop_oneof![
        select(vec![Desc, Table, GroupDesc, GroupFeatures, MeterFeatures, PortDesc]),
        filters().prop_map(Flow),
        filters().prop_map(Aggregate),
        any::<u32>().prop_map(|port| Port(some_port(port))),
        any::<(u32, u32)>().prop_map(|(port, queue)| Queue(some_port(port), queue)),
        any::<u32>().prop_map(Group),
        any::<u32>().prop_map(Meter),
        any::<u32>().prop_map(MeterConfig),
        vec(table_features(), 0..3).prop_map(TableFeatures),
        vec(monitor_requests(), 0..4).prop_map(FlowMonitor),
    ]
}

fn port_descs() -> impl Strategy<Value = PortDesc> {
    (any::<(u32, [u8; 6], u32, u32, [u32; 4], u32, u32)>(), names(15)).prop_map(|(numbers, name)| {
        let (number, hw_addr, config, state, features, current_speed, max_speed) = numbers;
        let (number, config) = (some_port(number), PortConfig(config));
        PortDesc { number, hw_addr, name, config, state, features, current_speed, max_speed }
    })
}

fn rule_stats() -> impl Strategy<Value = FlowStats> {
    let numbers = any::<(u8, u16, u16, u16, u16, u64, u64, u64)>();
    (numbers, ages(), matches(), instructions()).prop_map(|(numbers, age, matching, instructions)| {
        let (table, priority, idle_timeout, hard_timeout, flags, cookie, frames, bytes) = numbers;
        let flags = RuleFlags(flags & RuleFlags::ALL.0);
        let (idle_age, change_age) = (None, None);
        FlowStats {
            table,
            age,
            idle_age,
            change_age,
            priority,
            idle_timeout,
            hard_timeout,
            flags,
            cookie,
            frames,
            bytes,
            matching,
            instructions,
        }
    })
}

fn port_stats() -> impl Strategy<Value = PortStats> {
    (any::<u32>(), any::<[u64; 12]>(), ages()).prop_map(|(number, n, age)| PortStats {
        number: some_port(number),
        rx_frames: n[0],
        tx_frames: n[1],
        rx_bytes: n[2],
        tx_bytes: n[3],
        rx_dropped: n[4],
        tx_dropped: n[5],
        rx_errors: n[6],
        tx_errors: n[7],
        rx_frame_overrun_crc: [n[8], n[9], n[10]],
        collisions: n[11],
        age,
    })
}

fn updates() -> impl Strategy<Value = RuleUpdate> {
    let event = prop_oneof![Just(RuleEvent::Added), Just(RuleEvent::Modified), reasons().prop_map(RuleEvent::Deleted)];
    let full =
        (event, any::<(u8, u16, u16, u16, u64)>(), matches(), instructions()).prop_map(|(event, numbers, matching, instructions)| {
            let (table, priority, idle_timeout, hard_timeout, cookie) = numbers;
            RuleUpdate::Full(Box::new(FullUpdate { event, table, priority, idle_timeout, hard_timeout, cookie, matching, instructions }))
        });
    prop_oneof![any::<u32>().prop_map(RuleUpdate::Abbreviated), full]
}

pub fn replies() -> impl Strategy<Value = MultipartBody> {
    use MultipartBody as M;
    let counts = || vec(any::<(u64, u64)>(), 0..5);
    let desc = (names(255), names(255), names(255), names(31), names(255)).prop_map(
        |(manufacturer, hardware, software, serial_number, datapath)| {
            M::Desc(Box::new(Desc { manufacturer, hardware, software, serial_number, datapath }))
        },
    );
    let table = any::<(u8, u32, u64, u64)>().prop_map(|(table, active, lookups, matches)| TableStats { table, active, lookups, matches });
    let queue = (any::<(u32, u32, u64, u64, u64)>(), ages()).prop_map(|((port, queue, bytes, frames, errors), age)| {
        let port = some_port(port);
        QueueStats { port, queue, bytes, frames, errors, age }
    });
    let group = (any::<(u32, u32, u64, u64)>(), ages(), counts())
        .prop_map(|((group, references, frames, bytes), age, buckets)| GroupStats { group, references, frames, bytes, age, buckets });
    let group_desc = (any::<u32>(), group_kinds(), buckets()).prop_map(|(group, kind, buckets)| GroupDesc { group, kind, buckets });
    let meter = (any::<(u32, u32, u64, u64)>(), ages(), counts()).prop_map(|((meter, rules, frames, bytes), age, bands)| MeterStats {
        meter,
        rules,
        frames,
        bytes,
        age,
        bands,
    });
    let meter_config =
        (any::<u32>(), 0u16..16, bands()).prop_map(|(meter, flags, bands)| MeterConfig { meter, flags: MeterFlags(flags), bands });
    prop_oneof![
        desc,
        vec(rule_stats(), 0..4).prop_map(M::Flow),
        any::<(u64, u64, u32)>().prop_map(|(frames, bytes, rules)| M::Aggregate(Aggregate { frames, bytes, rules })),
        vec(table, 0..4).prop_map(M::Table),
        vec(port_stats(), 0..4).prop_map(M::Port),
        vec(queue, 0..4).prop_map(M::Queue),
        vec(group, 0..4).prop_map(M::Group),
        vec(group_desc, 0..4).prop_map(M::GroupDesc),
        any::<(u32, u32, [u32; 4], [u32; 4])>().prop_map(|(kinds, capabilities, max_groups, actions)| M::GroupFeatures(GroupFeatures {
            kinds,
            capabilities,
            max_groups,
            actions
        })),
        vec(meter, 0..4).prop_map(M::Meter),
        vec(meter_config, 0..4).prop_map(M::MeterConfig),
        any::<(u32, u32, u16, u8, u8)>().prop_map(|(max_meters, band_types, flags, max_bands, max_color)| {
            let capabilities = MeterFlags(flags);
            M::MeterFeatures(MeterFeatures { max_meters, band_types, capabilities, max_bands, max_color })
        }),
        vec(table_features(), 0..3).prop_map(M::TableFeatures),
        vec(port_descs(), 0..4).prop_map(M::PortDesc),
        vec(updates(), 0..4).prop_map(M::FlowMonitor),
    ]
}

fn packet_ins() -> impl Strategy<Value = PacketIn> {
    let format = select(&[PacketInFormat::Standard, PacketInFormat::Nicira, PacketInFormat::Nicira2]);
    (format, any::<(u16, u8, u8, u64)>(), matches(), vec(any::<u8>(), 1..300), vec(any::<u8>(), 0..20)).prop_map(
        |(format, (total_len, reason, table, cookie), matching, data, userdata)| {
            // Nicira's first format has fewer bits for some fields.
            let matching = if format == PacketInFormat::Nicira { Match::ANY.with(Field::InPort, 7).with(Field::Reg0, 5) } else { matching };
            let userdata = if format == PacketInFormat::Nicira2 { userdata } else { vec![] };
            PacketIn { format, total_len, reason, table, cookie, matching, data, userdata }
        },
    )
}

fn roles() -> impl Strategy<Value = RoleMessage> {
    (of(select(&[Role::Equal, Role::Master, Role::Slave])), any::<u64>())
        .prop_map(|(role, generation_id)| RoleMessage { role, generation_id: Some(generation_id) })
}

fn asyncs() -> impl Strategy<Value = Async> {
    any::<[[u32; 2]; 3]>().prop_map(|[packet_in, port_status, flow_removed]| Async { packet_in, port_status, flow_removed })
}

/// Any message, and the xid to send it with.
pub fn messages() -> impl Strategy<Value = (Message, u32)> {
    use Message::*;
    let data = || vec(any::<u8>(), 0..100);
    let in_port = prop_oneof![1u32..0xff00, Just(PortNo::CONTROLLER.0), Just(PortNo::ANY.0)].prop_map(PortNo);
    let switch =
        prop_oneof![
            any::<u32>().prop_map(|versions| Hello(super::Hello { versions })),
            (any::<(u16, u16)>(), data()).prop_map(|((kind, code), data)| Error(super::Error { kind, code, data })),
            data().prop_map(EchoRequest),
            data().prop_map(EchoReply),
            select(vec![
                FeaturesRequest,
                GetConfigRequest,
                BarrierRequest,
                BarrierReply,
                GetAsyncRequest,
                FlowMonitorPaused,
                FlowMonitorResumed
            ]),
            any::<(u64, u32, u8, u8, u32)>().prop_map(|(datapath_id, buffers, tables, auxiliary_id, capabilities)| FeaturesReply(
                Features { datapath_id, buffers, tables, auxiliary_id, capabilities, ports: Vec::new() }
            )),
            any::<(u16, u16)>().prop_map(|(flags, miss_send_len)| GetConfigReply(Config { flags, miss_send_len })),
            any::<(u16, u16)>().prop_map(|(flags, miss_send_len)| SetConfig(Config { flags, miss_send_len })),
            any::<u32>().prop_map(|port| QueueGetConfigRequest(some_port(port))),
            (any::<u32>(), vec(any::<(u32, u32, Option<u16>, Option<u16>)>(), 0..5)).prop_map(|(port, queues)| {
                let queue = |(port, queue, min_rate, max_rate)| QueueDesc { port: some_port(port), queue, min_rate, max_rate };
                QueueGetConfigReply(QueueConfig { port: some_port(port), queues: queues.into_iter().map(queue).collect() })
            }),
            roles().prop_map(RoleRequest),
            roles().prop_map(RoleReply),
            asyncs().prop_map(GetAsyncReply),
            asyncs().prop_map(SetAsync),
            any::<(u8, u32)>().prop_map(|(table, config)| TableMod(super::TableMod { table, config })),
            any::<(u32, [u8; 6], u32, u32, u32)>().prop_map(|(number, hw_addr, config, mask, advertise)| {
                let (config, mask) = (PortConfig(config), PortConfig(mask));
                PortMod(super::PortMod { number: some_port(number), hw_addr, config, mask, advertise })
            }),
            (select(&[PortReason::Add, PortReason::Delete, PortReason::Modify]), port_descs())
                .prop_map(|(reason, port)| PortStatus(super::PortStatus { reason, port })),
            select(&[PacketInFormat::Standard, PacketInFormat::Nicira, PacketInFormat::Nicira2]).prop_map(SetPacketInFormat),
            any::<u16>().prop_map(SetControllerId),
            any::<u32>().prop_map(FlowMonitorCancel),
            (any::<u32>(), select(&[BundleControlType::OpenRequest, BundleControlType::CommitReply]), any::<u16>())
                .prop_map(|(bundle, kind, flags)| BundleControl(super::BundleControl { bundle, kind, flags })),
        ];
    let removed =
        (any::<(u64, u16, u8, u16, u16, u64, u64)>(), reasons(), ages(), matches()).prop_map(|(numbers, reason, age, matching)| {
            let (cookie, priority, table, idle_timeout, hard_timeout, frames, bytes) = numbers;
            super::FlowRemoved { cookie, priority, reason, table, age, idle_timeout, hard_timeout, frames, bytes, matching }
        });
    let flow_mod =
        || (flow_mods(), any::<u32>()).prop_map(|(flow_mod, buffer_id)| FlowMod(Box::new(FlowModMessage { flow_mod, buffer_id })));
    let change = prop_oneof![
        3 => flow_mod(),
        1 => group_mods().prop_map(GroupMod),
        1 => meter_mods().prop_map(MeterMod),
        1 => (any::<u32>(), in_port, actions(), data()).prop_map(|(buffer_id, in_port, actions, data)| {
            PacketOut(super::PacketOut { buffer_id, in_port, actions: actions.into(), data })
        }),
    ];
    let message = prop_oneof![
        2 => switch,
        4 => change,
        1 => packet_ins().prop_map(|packet_in| PacketIn(Box::new(packet_in))),
        1 => removed.prop_map(|removed| FlowRemoved(Box::new(removed))),
        2 => requests().prop_map(|request| MultipartRequest(Box::new(request))),
        3 => (replies(), any::<bool>()).prop_map(|(body, more)| MultipartReply(super::MultipartReply { body, more })),
    ];
    let plain = (message, any::<u32>());
    let bundled = (any::<(u32, u16)>(), flow_mod(), any::<u32>())
        .prop_map(|((bundle, flags), message, xid)| (BundleAdd(super::BundleAdd { bundle, flags, message: bytes(&message, xid) }), xid));
    prop_oneof![12 => plain, 1 => bundled]
}
