//! What `ovs-ofctl` prints for a message that means what ours does, written down anew: so that bytes that are read wrongly in the same way as they were written are
//! found out.

mod actions;
mod multipart;

use super::*;
use std::fmt::Write as _;

pub use actions::{actions, instructions, matching, port};

/// The error that Open vSwitch has for what it does not have, or does not take.
pub type Refusal = &'static str;
pub type Text = Result<String, Refusal>;

/// What is printed for a message, without the frame in a packet-in or packet-out, and its header line's end.
pub fn message(message: &Message, xid: u32) -> Text {
    let (name, text) = named(message)?;
    let more = matches!(message, Message::MultipartReply(reply) if reply.more);
    let more = if more { " flags=[more]" } else { "" };
    let separator = if text.is_empty() || text.starts_with('\n') { "" } else { " " };
    Ok(format!("{name} (OF1.3) (xid={xid:#x}):{more}{separator}{text}"))
}

fn named(message: &Message) -> Result<(&'static str, String), Refusal> {
    use Message as M;
    let nothing = String::new;
    Ok(match message {
        M::Hello(hello) => {
            let versions = (1..32).filter(|version| hello.versions >> version & 1 != 0).map(|version| format!("{version:#04x}"));
            ("OFPT_HELLO", format!("\n version bitmap: {}", versions.collect::<Vec<_>>().join(", ")))
        }
        M::Error(error) => {
            let code = error.error_code().ok_or("unknown")?;
            // An experimenter's error begins with its id.
            if let ErrorCode::HelloFailed(_) = code {
                return Ok(("OFPT_ERROR", format!("{}\n{}", error_name(code), String::from_utf8_lossy(&error.data))));
            }
            let data = if error.kind == 0xffff { &error.data[4..] } else { &error.data };
            let answered = super::decode(data).expect("a message");
            let xid = Header::decode(data).expect("a header").xid;
            ("OFPT_ERROR", format!("{}\n{}", error_name(code), self::message(&answered, xid)?.lines().next().unwrap_or_default()))
        }
        M::EchoRequest(data) => ("OFPT_ECHO_REQUEST", payload(data)),
        M::EchoReply(data) => ("OFPT_ECHO_REPLY", payload(data)),
        M::FeaturesRequest => ("OFPT_FEATURES_REQUEST", nothing()),
        M::FeaturesReply(features) => {
            let auxiliary = match features.auxiliary_id {
                0 => nothing(),
                id => format!(", auxiliary_id:{id}"),
            };
            let names = [
                (0, "FLOW_STATS"),
                (1, "TABLE_STATS"),
                (2, "PORT_STATS"),
                (3, "GROUP_STATS"),
                (5, "IP_REASM"),
                (6, "QUEUE_STATS"),
                (8, "PORT_BLOCKED"),
            ];
            let Features { datapath_id, buffers, tables, capabilities, .. } = features;
            let capabilities = flags((*capabilities & 0x16f).into(), &names);
            let head = format!("dpid:{datapath_id:016x}\nn_tables:{tables}, n_buffers:{buffers}{auxiliary}");
            ("OFPT_FEATURES_REPLY", format!("{head}\ncapabilities: {capabilities}"))
        }
        M::GetConfigRequest => ("OFPT_GET_CONFIG_REQUEST", nothing()),
        M::GetConfigReply(config) => ("OFPT_GET_CONFIG_REPLY", switch_config(config)),
        M::SetConfig(config) if config.flags > 3 => return Err("OFPSCFC_BAD_FLAGS"),
        M::SetConfig(config) => ("OFPT_SET_CONFIG", switch_config(config)),
        M::PacketIn(packet_in) => self::packet_in(packet_in)?,
        M::FlowRemoved(removed) => ("OFPT_FLOW_REMOVED", flow_removed(removed)?),
        M::PortStatus(status) => {
            let reason = match status.reason {
                PortReason::Add => "ADD",
                PortReason::Delete => "DEL",
                PortReason::Modify => "MOD",
            };
            ("OFPT_PORT_STATUS", format!("{reason}:{}", port_desc(&status.port)?))
        }
        M::PacketOut(out) => {
            let buffer = match out.buffer_id {
                NO_BUFFER => format!(" data_len={}", out.data.len()),
                id => format!(" buffer={id:#010x}"),
            };
            let in_port = port(out.in_port).map_err(|_| "OFPBRC_BAD_PORT")?;
            ("OFPT_PACKET_OUT", format!("in_port={in_port} actions={}{buffer}", actions(&out.actions)?))
        }
        M::FlowMod(body) => ("OFPT_FLOW_MOD", flow_mod(body)?),
        M::GroupMod(body) => {
            let command = match body.command {
                GroupCommand::Add => "ADD",
                GroupCommand::Modify => "MOD",
                GroupCommand::Delete => "DEL",
                GroupCommand::AddOrModify => "ADD_OR_MOD",
            };
            let is_delete = body.command == GroupCommand::Delete;
            let wants_one = body.kind == GroupKind::Indirect && !is_delete;
            if wants_one && body.buckets.len() != 1 || is_delete && !body.buckets.is_empty() {
                return Err("OFPGMFC_INVALID_GROUP");
            }
            for bucket in &body.buckets {
                let watches = bucket.watch_port != PortNo::ANY || bucket.watch_group != GROUP_ANY;
                match body.kind {
                    GroupKind::Select => {}
                    _ if bucket.weight != 0 => return Err("OFPGMFC_INVALID_GROUP"),
                    GroupKind::FastFailover if !watches => return Err("OFPGMFC_INVALID_GROUP"),
                    GroupKind::All | GroupKind::Indirect if watches => return Err("OFPGMFC_WATCH_UNSUPPORTED"),
                    _ => {}
                }
            }
            ("OFPT_GROUP_MOD", format!("\n {command} {}", group(body.group, body.kind, &body.buckets)?))
        }
        M::PortMod(body) => {
            let names = [(0, "PORT_DOWN"), (2, "NO_RECV"), (5, "NO_FWD"), (6, "NO_PACKET_IN")];
            let [config, mask] = [body.config.0 & body.mask.0, body.mask.0].map(|bits| flags((bits & 0x65).into(), &names));
            let advertise = match body.advertise & 0xffff {
                0 => "UNCHANGED".into(),
                features => link_features(features),
            };
            let head = format!("port: {}: addr:{}", port(body.number)?, mac(body.hw_addr));
            ("OFPT_PORT_MOD", format!("{head}\n     config: {config}\n     mask:   {mask}\n     advertise: {advertise}"))
        }
        M::TableMod(body) => {
            let text = if body.table == 0xff { "table_id: ALL_TABLES".into() } else { format!("table_id={}", body.table) };
            ("OFPT_TABLE_MOD", text)
        }
        M::MultipartRequest(request) => multipart::request_text(request)?,
        M::MultipartReply(reply) => multipart::reply_text(&reply.body)?,
        M::BarrierRequest => ("OFPT_BARRIER_REQUEST", nothing()),
        M::BarrierReply => ("OFPT_BARRIER_REPLY", nothing()),
        M::QueueGetConfigRequest(number) if number.0 >= 0xff00 && *number != PortNo::ANY => return Err("OFPQOFC_BAD_PORT"),
        M::QueueGetConfigRequest(number) => ("OFPT_QUEUE_GET_CONFIG_REQUEST", format!("port={number}")),
        M::QueueGetConfigReply(reply) => {
            // Each queue says its port, and without queues there is none.
            let number = port(reply.port).map_err(|_| "OFPQOFC_BAD_PORT");
            let mut text = if reply.queues.is_empty() { nothing() } else { format!("port={}", number?) };
            let mut queues = reply.queues.clone();
            queues.sort_by_key(|queue| queue.queue);
            for queue in queues {
                _ = write!(text, "\nqueue {}:", queue.queue);
                for (name, rate) in [("min_rate", queue.min_rate), ("max_rate", queue.max_rate)] {
                    match rate {
                        Some(rate) if rate <= 1000 => _ = write!(text, " {name}:{}.{}%", rate / 10, rate % 10),
                        Some(_) => _ = write!(text, " {name}:(disabled)"),
                        None => {}
                    }
                }
            }
            ("OFPT_QUEUE_GET_CONFIG_REPLY", text)
        }
        M::RoleRequest(RoleMessage { role: None, .. }) => ("OFPT_ROLE_REQUEST", "role=nochange".into()),
        M::RoleRequest(role) => ("OFPT_ROLE_REQUEST", role_text(role)),
        M::RoleReply(role) => ("OFPT_ROLE_REPLY", role_text(role)),
        M::GetAsyncRequest => ("OFPT_GET_ASYNC_REQUEST", nothing()),
        M::GetAsyncReply(wants) => ("OFPT_GET_ASYNC_REPLY", async_text(wants)),
        M::SetAsync(wants) => ("OFPT_SET_ASYNC", async_text(wants)),
        M::MeterMod(body) => {
            let command = match body.command {
                MeterCommand::Add => "ADD",
                MeterCommand::Modify => "MOD",
                MeterCommand::Delete => "DEL",
            };
            let is_delete = body.command == MeterCommand::Delete;
            if body.flags.contains(MeterFlags(MeterFlags::KBPS.0 | MeterFlags::PKTPS.0)) && !is_delete {
                return Err("OFPMMFC_BAD_FLAGS");
            }
            let (flags, bands) = if is_delete { (MeterFlags::default(), [].as_slice()) } else { (body.flags, body.bands.as_slice()) };
            ("OFPT_METER_MOD", format!("{command} {}", meter(body.meter, flags, bands)))
        }
        M::SetPacketInFormat(format) => {
            let name = match format {
                PacketInFormat::Standard => "standard",
                PacketInFormat::Nicira => "nxt_packet_in",
                PacketInFormat::Nicira2 => "nxt_packet_in2",
            };
            ("NXT_SET_PACKET_IN_FORMAT", format!("format={name}"))
        }
        M::SetControllerId(id) => ("NXT_SET_CONTROLLER_ID", format!("id={id}")),
        M::SetFlowFormat(_) => return Err("OFPBRC_BAD_VERSION"),
        M::FlowModTableId(set) => ("NXT_FLOW_MOD_TABLE_ID", if *set { "enable" } else { "disable" }.into()),
        M::FlowAge => ("NXT_FLOW_AGE", nothing()),
        M::BundleControl(control) => {
            use BundleControlType::*;
            let kind = match control.kind {
                OpenRequest => "OPEN_REQUEST",
                OpenReply => "OPEN_REPLY",
                CloseRequest => "CLOSE_REQUEST",
                CloseReply => "CLOSE_REPLY",
                CommitRequest => "COMMIT_REQUEST",
                CommitReply => "COMMIT_REPLY",
                DiscardRequest => "DISCARD_REQUEST",
                DiscardReply => "DISCARD_REPLY",
            };
            let text = format!("\n bundle_id={:#x} type={kind} flags={}", control.bundle, bundle_flags(control.flags));
            ("ONFT_BUNDLE_CONTROL", text)
        }
        M::BundleAdd(add) => {
            let inner = self::message(&super::decode(&add.message).expect("a message"), Header::decode(&add.message).unwrap().xid)?;
            ("ONFT_BUNDLE_ADD_MESSAGE", format!("\n bundle_id={:#x} flags={}\n{inner}", add.bundle, bundle_flags(add.flags)))
        }
        M::FlowMonitorCancel(id) => ("ONFT_FLOW_MONITOR_CANCEL", format!("id={id}")),
        M::FlowMonitorPaused => ("ONFT_FLOW_MONITOR_PAUSED", nothing()),
        M::FlowMonitorResumed => ("ONFT_FLOW_MONITOR_RESUMED", nothing()),
    })
}

const METER_SLOWPATH: u32 = 0xffff_fffd;
const METER_CONTROLLER: u32 = 0xffff_fffe;
const METER_FLAGS: [(u32, &str); 4] = [(0, "kbps"), (1, "pktps"), (2, "burst"), (3, "stats")];

/// The names of bits that are set, and the others as a number; or a zero.
fn flags(value: u64, names: &[(u32, &str)]) -> String {
    let mut set: Vec<_> = names.iter().filter(|(bit, _)| value >> bit & 1 != 0).map(|(_, name)| (*name).to_owned()).collect();
    let others = names.iter().fold(value, |value, (bit, _)| value & !(1 << bit));
    set.extend((others != 0).then(|| format!("{others:#x}")));
    if set.is_empty() { "0".into() } else { set.join(" ") }
}

fn list<T: ToString>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}

fn dotted(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(".")
}

fn mac(address: [u8; 6]) -> String {
    address.map(|byte| format!("{byte:02x}")).join(":")
}

fn duration(age: Age) -> String {
    match age {
        Age { seconds, nanoseconds: 0 } => format!("{seconds}s"),
        Age { seconds, nanoseconds } if nanoseconds % 1_000_000 == 0 => format!("{seconds}.{:03}s", nanoseconds / 1_000_000),
        Age { seconds, nanoseconds } => format!("{}s", format!("{seconds}.{nanoseconds:09}").trim_end_matches('0')),
    }
}

/// A counter, which may be unknown.
fn count((name, value): (&str, u64)) -> String {
    if value == u64::MAX { format!("{name}=?") } else { format!("{name}={value}") }
}

fn payload(data: &[u8]) -> String {
    let mut text = format!("{} bytes of payload", data.len());
    for (i, line) in data.chunks(16).enumerate() {
        let hex: Vec<_> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        let hex = [hex[..hex.len().min(8)].join(" "), hex[hex.len().min(8)..].join(" ")];
        let hex = if line.len() < 8 { hex[0].clone() } else { hex.join("-") };
        let characters: String = line.iter().map(|byte| if (0x20..0x7f).contains(byte) { char::from(*byte) } else { '.' }).collect();
        _ = write!(text, "\n{:08x}  {hex:47} |{characters:16}|", 16 * i);
    }
    text
}

fn switch_config(config: &Config) -> String {
    let fragments = ["normal", "drop", "reassemble", "nx-match"][usize::from(config.flags & 3)];
    format!("frags={fragments} miss_send_len={}", config.miss_send_len)
}

fn packet_in_reason(reason: u8) -> String {
    match ["no_match", "action", "invalid_ttl", "action_set", "group", "packet_out", "", ""].get(usize::from(reason)) {
        Some(name) => (*name).into(),
        None => reason.to_string(),
    }
}

fn removed_reason(reason: RemovedReason) -> &'static str {
    match reason {
        RemovedReason::IdleTimeout => "idle",
        RemovedReason::HardTimeout => "hard",
        RemovedReason::Delete => "delete",
        RemovedReason::GroupDelete => "group_delete",
    }
}

fn packet_in(packet_in: &PacketIn) -> Result<(&'static str, String), Refusal> {
    let name = match packet_in.format {
        PacketInFormat::Standard => "OFPT_PACKET_IN",
        PacketInFormat::Nicira => "NXT_PACKET_IN",
        PacketInFormat::Nicira2 => "NXT_PACKET_IN2",
    };
    if packet_in.format == PacketInFormat::Nicira2 && usize::from(packet_in.total_len) < packet_in.data.len() {
        return Err("OFPBRC_BAD_LEN");
    }
    let mut text = String::new();
    if packet_in.table != 0 {
        _ = write!(text, "table_id={} ", packet_in.table);
    }
    if packet_in.cookie != u64::MAX {
        _ = write!(text, "cookie={:#x} ", packet_in.cookie);
    }
    // What Open vSwitch does not know of a packet-in, it passes over.
    let unknown = [Field::Ipv6Exthdr, Field::PbbIsid, Field::PbbUca];
    let known = packet_in.matching.fields().filter(|found| !unknown.contains(&found.field));
    let known = known.fold(Match::ANY, |known, found| known.with_masked(found.field, found.value, found.mask));
    let matching = matching(&known, 0x8000)?;
    let length = packet_in.data.len();
    _ = write!(text, "total_len={} {matching} (via {})", packet_in.total_len, packet_in_reason(packet_in.reason));
    _ = write!(text, " data_len={length} (unbuffered)");
    if usize::from(packet_in.total_len) != length {
        text += " (***total_len != data_len***)";
    }
    if !packet_in.userdata.is_empty() {
        _ = write!(text, "\n userdata={}", dotted(&packet_in.userdata));
    }
    Ok((name, text))
}

fn flow_removed(removed: &FlowRemoved) -> Text {
    let mut text = matching(&removed.matching, removed.priority)?;
    if !text.is_empty() {
        text += " ";
    }
    _ = write!(text, "reason={}", removed_reason(removed.reason));
    if removed.table != 0xff {
        _ = write!(text, " table_id={}", removed.table);
    }
    if removed.cookie != 0 {
        _ = write!(text, " cookie:{:#x}", removed.cookie);
    }
    _ = write!(text, " duration{} idle{}", duration(removed.age), removed.idle_timeout);
    _ = write!(text, " hard{} pkts{} bytes{}", removed.hard_timeout, removed.frames, removed.bytes);
    Ok(text)
}

pub fn rule_flags(flags: RuleFlags) -> String {
    let names = ["send_flow_rem", "check_overlap", "reset_counts", "no_packet_counts", "no_byte_counts"];
    names.iter().enumerate().filter(|(bit, _)| flags.0 >> bit & 1 != 0).map(|(_, name)| format!("{name} ")).collect()
}

fn flow_mod(body: &FlowModMessage) -> Text {
    let flow_mod = &body.flow_mod;
    let mut text: String = match flow_mod.command {
        FlowModCommand::Add => "ADD",
        FlowModCommand::Modify => "MOD",
        FlowModCommand::ModifyStrict => "MOD_STRICT",
        FlowModCommand::Delete => "DEL",
        FlowModCommand::DeleteStrict => "DEL_STRICT",
    }
    .into();
    if flow_mod.table != 0 {
        _ = write!(text, " table:{}", flow_mod.table);
    }
    text += " ";
    let matching = matching(&flow_mod.matching, flow_mod.priority)?;
    if !matching.is_empty() {
        _ = write!(text, "{matching} ");
    }
    let adds = flow_mod.command == FlowModCommand::Add;
    if adds && flow_mod.cookie != 0 && flow_mod.cookie != u64::MAX {
        _ = write!(text, "cookie:{:#x} ", flow_mod.cookie);
    }
    if !adds && flow_mod.cookie_mask != 0 {
        _ = write!(text, "cookie:{:#x}/{:#x} ", flow_mod.cookie, flow_mod.cookie_mask);
    }
    for (name, timeout) in [("idle", flow_mod.idle_timeout), ("hard", flow_mod.hard_timeout)] {
        if timeout != 0 {
            _ = write!(text, "{name}:{timeout} ");
        }
    }
    if body.buffer_id != NO_BUFFER {
        _ = write!(text, "buf:{:#x} ", body.buffer_id);
    }
    let out_port = port(flow_mod.out_port)?;
    if flow_mod.out_port != PortNo::ANY {
        _ = write!(text, "out_port:{out_port} ");
    }
    text += &rule_flags(flow_mod.flags);
    Ok(text + "actions=" + &instructions(&flow_mod.instructions)?)
}

fn flow_stats_text(rule: &FlowStats) -> Text {
    let FlowStats { table, frames, bytes, .. } = rule;
    let mut text = format!("\n cookie={:#x}, duration={}, table={table}, ", rule.cookie, duration(rule.age));
    _ = write!(text, "n_packets={frames}, n_bytes={bytes}, ");
    for (name, timeout) in [("idle", rule.idle_timeout), ("hard", rule.hard_timeout)] {
        if timeout != 0 {
            _ = write!(text, "{name}_timeout={timeout}, ");
        }
    }
    text += &rule_flags(rule.flags);
    let matching = matching(&rule.matching, rule.priority)?;
    if !matching.is_empty() {
        _ = write!(text, "{matching} ");
    }
    Ok(text + "actions=" + &instructions(&rule.instructions)?)
}

fn group_number(group: u32) -> String {
    match group {
        0xffff_fffc => "ALL".into(),
        GROUP_ANY => "ANY".into(),
        group => group.to_string(),
    }
}

fn group(number: u32, kind: GroupKind, buckets: &[BucketSpec]) -> Text {
    let name = match kind {
        GroupKind::All => "all",
        GroupKind::Select => "select",
        GroupKind::Indirect => "indirect",
        GroupKind::FastFailover => "ff",
    };
    let mut text = format!("group_id={},type={name}", group_number(number));
    for bucket in buckets {
        text += ",bucket=";
        if bucket.weight != u16::from(kind == GroupKind::Select) {
            _ = write!(text, "weight:{},", bucket.weight);
        }
        if bucket.watch_port != PortNo::ANY {
            _ = write!(text, "watch_port:{},", port(bucket.watch_port).map_err(|_| "OFPGMFC_BAD_WATCH")?);
        }
        if bucket.watch_group != GROUP_ANY {
            _ = write!(text, "watch_group:{},", bucket.watch_group);
        }
        _ = write!(text, "actions={}", actions(&bucket.actions)?);
    }
    Ok(text)
}

fn meter(number: u32, flags: MeterFlags, bands: &[BandSpec]) -> String {
    let number = match number {
        u32::MAX => "all".into(),
        METER_CONTROLLER => "controller".into(),
        METER_SLOWPATH => "slowpath".into(),
        number => number.to_string(),
    };
    let names = if flags.0 == 0 { String::new() } else { self::flags(flags.0.into(), &METER_FLAGS) + " " };
    let mut text = format!("meter={number} {names}bands=");
    for band in bands {
        let kind = if let BandKind::DscpRemark(_) = band.kind { "dscp_remark" } else { "drop" };
        _ = write!(text, "\ntype={kind} rate={}", band.rate);
        if flags.0 & MeterFlags::BURST.0 != 0 {
            _ = write!(text, " burst_size={}", band.burst);
        }
        if let BandKind::DscpRemark(level) = band.kind {
            _ = write!(text, " prec_level={level}");
        }
    }
    text
}

const LINK_FEATURES: [&str; 16] = [
    "10MB-HD",
    "10MB-FD",
    "100MB-HD",
    "100MB-FD",
    "1GB-HD",
    "1GB-FD",
    "10GB-FD",
    "40GB-FD",
    "100GB-FD",
    "1TB-FD",
    "OTHER",
    "COPPER",
    "FIBER",
    "AUTO_NEG",
    "AUTO_PAUSE",
    "AUTO_PAUSE_ASYM",
];

fn link_features(features: u32) -> String {
    let names: Vec<_> = LINK_FEATURES.iter().enumerate().map(|(bit, name)| (bit as u32, *name)).collect();
    flags((features & 0xffff).into(), &names)
}

fn port_desc(desc: &PortDesc) -> Text {
    let config = [(0, "PORT_DOWN"), (2, "NO_RECV"), (5, "NO_FWD"), (6, "NO_PACKET_IN")];
    let state = [(0, "LINK_DOWN"), (1, "BLOCKED"), (2, "LIVE")];
    let mut text = format!(" {}({}): addr:{}", port(desc.number)?, desc.name, mac(desc.hw_addr));
    _ = write!(text, "\n     config:     {}", flags((desc.config.0 & 0x65).into(), &config));
    _ = write!(text, "\n     state:      {}", flags((desc.state & 7).into(), &state));
    for (name, features) in ["current:    ", "advertised: ", "supported:  ", "peer:       "].iter().zip(desc.features) {
        if features & 0xffff != 0 {
            _ = write!(text, "\n     {name}{}", link_features(features));
        }
    }
    _ = write!(text, "\n     speed: {} Mbps now, {} Mbps max", desc.current_speed / 1000, desc.max_speed / 1000);
    Ok(text)
}

fn port_stats(stats: &PortStats) -> Text {
    let [frame, overrun, crc] = stats.rx_frame_overrun_crc;
    let number = port(stats.number)?;
    let width = if stats.number.0 < 10 { " " } else { "" };
    let line = |counts: &[(&str, u64)]| counts.iter().copied().map(count).collect::<Vec<_>>().join(", ");
    let rx = line(&[
        ("pkts", stats.rx_frames),
        ("bytes", stats.rx_bytes),
        ("drop", stats.rx_dropped),
        ("errs", stats.rx_errors),
        ("frame", frame),
        ("over", overrun),
        ("crc", crc),
    ]);
    let tx = line(&[
        ("pkts", stats.tx_frames),
        ("bytes", stats.tx_bytes),
        ("drop", stats.tx_dropped),
        ("errs", stats.tx_errors),
        ("coll", stats.collisions),
    ]);
    Ok(format!("\n  port {width}{number}: rx {rx}\n           tx {tx}\n           duration={}", duration(stats.age)))
}

fn role_text(role: &RoleMessage) -> String {
    let name = match role.role {
        None => "nochange",
        Some(Role::Equal) => "equal",
        Some(Role::Master) => "primary",
        Some(Role::Slave) => "secondary",
    };
    match role.generation_id {
        Some(u64::MAX) | None => format!("role={name}"),
        Some(id) => format!("role={name} generation_id={id}"),
    }
}

fn bundle_flags(value: u16) -> String {
    flags(value.into(), &[(0, "atomic"), (1, "ordered")])
}

fn async_text(wants: &Async) -> String {
    let one = |index: usize| {
        let named = |names: &[&str], bits: u32| {
            let names: Vec<_> = names.iter().enumerate().map(|(bit, name)| (bit as u32, *name)).collect();
            match flags((bits & ((1 << names.len()) - 1)).into(), &names).as_str() {
                "0" => "(off)".to_owned(),
                names => names.to_owned(),
            }
        };
        let packet_in = named(&["no_match", "action", "invalid_ttl"], wants.packet_in[index]);
        let port_status = named(&["add", "delete", "modify"], wants.port_status[index]);
        let removed = named(&["idle", "hard", "delete", "group_delete", "meter_delete", "eviction"], wants.flow_removed[index]);
        format!(
            "       PACKET_IN: {packet_in}\n     PORT_STATUS: {port_status}\n    FLOW_REMOVED: {removed}\n     ROLE_STATUS: (off)\n    TABLE_STATUS: (off)\n  REQUESTFORWARD: (off)"
        )
    };
    format!("\n primary:\n{}\n\n secondary:\n{}", one(0), one(1))
}

fn filter(filter: &RuleFilter) -> Text {
    let mut list = Vec::new();
    if filter.table != 0xff {
        list.push(format!("table={}", filter.table));
    }
    let out_port = port(filter.out_port)?;
    if filter.out_port != PortNo::ANY {
        list.push(format!("out_port={out_port}"));
    }
    let matching = matching(&filter.matching, 0x8000)?;
    if !matching.is_empty() {
        list.push(matching);
    }
    Ok(list.join(" "))
}

fn rule_update(update: &RuleUpdate) -> Text {
    let full = match update {
        RuleUpdate::Abbreviated(xid) => return Ok(format!("\n event=ABBREV xid={xid:#x}")),
        RuleUpdate::Full(full) => full,
    };
    let mut text = match full.event {
        RuleEvent::Added => "\n event=ADDED".into(),
        RuleEvent::Modified => "\n event=MODIFIED".into(),
        RuleEvent::Deleted(reason) => format!("\n event=DELETED reason={}", removed_reason(reason)),
    };
    _ = write!(text, " table={}", full.table);
    for (name, timeout) in [("idle", full.idle_timeout), ("hard", full.hard_timeout)] {
        if timeout != 0 {
            _ = write!(text, " {name}_timeout={timeout}");
        }
    }
    _ = write!(text, " cookie={:#x}", full.cookie);
    let matching = matching(&full.matching, 0x8000)?;
    if !matching.is_empty() {
        _ = write!(text, " {matching}");
    }
    let instructions = instructions(&full.instructions)?;
    if instructions != "drop" {
        _ = write!(text, " actions={instructions}");
    }
    Ok(text)
}

/// The standard's actions in the order that Open vSwitch lists them in.
fn action_types(types: u32) -> String {
    let names = [
        (0, "output"),
        (22, "group"),
        (25, "set_field"),
        (18, "strip_vlan"),
        (17, "push_vlan"),
        (23, "mod_nw_ttl"),
        (24, "dec_ttl"),
        (15, "set_mpls_ttl"),
        (16, "dec_mpls_ttl"),
        (19, "push_mpls"),
        (20, "pop_mpls"),
        (21, "set_queue"),
    ];
    let known = names.iter().fold(0, |known, (bit, _)| known | 1 << bit);
    match flags((types & known).into(), &names).as_str() {
        "0" => "(none)".into(),
        names => names.into(),
    }
}

/// The head of each table's features; what follows is the same for all of ours.
fn table_features(tables: &[TableFeatures]) -> String {
    let mut text = String::new();
    for features in tables {
        let TableFeatures { table, name, metadata_match, metadata_write, max_entries, .. } = features;
        let name = if name.is_empty() { String::new() } else { format!(" (\"{name}\")") };
        _ = write!(text, "\n  table {table}{name}:\n    metadata: match={metadata_match:#x} write={metadata_write:#x}");
        _ = write!(text, "\n    max_entries={max_entries}");
    }
    text
}

/// What Open vSwitch calls an error.
pub fn error_name(error: ErrorCode) -> String {
    let debug = format!("{error:?}");
    let (kind, code) = debug.strip_suffix(')').unwrap().split_once('(').unwrap();
    let prefix = match kind {
        "HelloFailed" => "OFPHFC",
        "BadRequest" => "OFPBRC",
        "BadAction" => "OFPBAC",
        "BadInstruction" => "OFPBIC",
        "BadMatch" => "OFPBMC",
        "FlowModFailed" => "OFPFMFC",
        "GroupModFailed" => "OFPGMFC",
        "PortModFailed" => "OFPPMFC",
        "TableModFailed" => "OFPTMFC",
        "QueueOpFailed" => "OFPQOFC",
        "SwitchConfigFailed" => "OFPSCFC",
        "RoleRequestFailed" => "OFPRRFC",
        "MeterModFailed" => "OFPMMFC",
        "TableFeaturesFailed" => "OFPTFFC",
        "BundleFailed" => "OFPBFC",
        _ => "",
    };
    let mut words = String::new();
    for letter in code.chars() {
        if letter.is_uppercase() {
            words.push('_');
        }
        words.extend(letter.to_uppercase());
    }
    // Where names are others there.
    match format!("{prefix}{words}").as_str() {
        "OFPBRC_BAD_MULTIPART" => "OFPBRC_BAD_STAT".into(),
        "OFPBRC_BAD_EXPERIMENTER" => "OFPBRC_BAD_VENDOR".into(),
        "OFPBRC_BAD_EXP_TYPE" => "OFPBRC_BAD_SUBTYPE".into(),
        "OFPBRC_IS_SLAVE" => "OFPBRC_IS_SECONDARY".into(),
        "OFPBAC_BAD_EXPERIMENTER" => "OFPBAC_BAD_VENDOR".into(),
        "OFPBAC_BAD_EXP_TYPE" => "OFPBAC_BAD_VENDOR_TYPE".into(),
        "OFPTFFC_BAD_TYPE" => "OFPBPC_BAD_TYPE".into(),
        "OFPTFFC_BAD_LEN" => "OFPBPC_BAD_LEN".into(),
        "OFPTFFC_BAD_ARGUMENT" => "OFPBPC_BAD_VALUE".into(),
        "_MUST_BE_ZERO" => "NXBRC_MUST_BE_ZERO".into(),
        "_MONITOR_EXISTS" => "OFPMOFC_MONITOR_EXISTS".into(),
        "_BAD_MONITOR_FLAGS" => "OFPMOFC_BAD_FLAGS".into(),
        "_UNKNOWN_MONITOR" => "OFPMOFC_UNKNOWN_MONITOR".into(),
        "_BAD_EVENT" => "NXBRC_FM_BAD_EVENT".into(),
        "_BAD_CONJUNCTION" => "NXBAC_BAD_CONJUNCTION".into(),
        "_RESUME_NOT_SUPPORTED" => "NXR_NOT_SUPPORTED".into(),
        "_DUP_INST" => "OFPBIC_DUP_INST".into(),
        "_MULTIPART_REQUEST_TIMEOUT" => "OFPBRC_MULTIPART_REQUEST_TIMEOUT".into(),
        name => name.into(),
    }
}
