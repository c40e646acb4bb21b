//! The text of requests and replies that come in parts.

use super::*;

pub fn request_text(request: &MultipartRequest) -> Result<(&'static str, String), Refusal> {
    use MultipartRequest as R;
    let nothing = String::new;
    let numbered = |number: u32| match number {
        u32::MAX => "all".into(),
        METER_CONTROLLER => "controller".into(),
        METER_SLOWPATH => "slowpath".into(),
        number => number.to_string(),
    };
    Ok(match request {
        R::Desc => ("OFPST_DESC request", nothing()),
        R::Flow(filter) => ("OFPST_FLOW request", self::filter(filter)?),
        R::Aggregate(filter) => ("OFPST_AGGREGATE request", self::filter(filter)?),
        R::Table => ("OFPST_TABLE request", nothing()),
        R::Port(number) => ("OFPST_PORT request", format!("port_no={}", port(*number)?)),
        R::Queue(number, queue) => {
            let queue = if *queue == QUEUE_ALL { "ALL".into() } else { queue.to_string() };
            ("OFPST_QUEUE request", format!("port={} queue={queue}", port(*number)?))
        }
        R::Group(group) => ("OFPST_GROUP request", format!("group_id={}", group_number(*group))),
        R::GroupDesc => ("OFPST_GROUP_DESC request", "group_id=ALL".into()),
        R::GroupFeatures => ("OFPST_GROUP_FEATURES request", nothing()),
        R::Meter(meter) => ("OFPST_METER request", format!("meter={}", numbered(*meter))),
        R::MeterConfig(meter) => ("OFPST_METER_CONFIG request", format!("meter={}", numbered(*meter))),
        R::MeterFeatures => ("OFPST_METER_FEATURES request", nothing()),
        R::TableFeatures(tables) if tables.iter().any(|features| features.table == 0xff) => return Err("OFPTFFC_BAD_TABLE"),
        R::TableFeatures(tables) => ("OFPST_TABLE_FEATURES request", table_features(tables)),
        R::PortDesc => ("OFPST_PORT_DESC request", "port=ANY".into()),
        R::FlowMonitor(monitors) => {
            let mut text = nothing();
            for monitor in monitors {
                let names =
                    [(0, "initial"), (1, "add"), (2, "delete"), (3, "modify"), (4, "actions"), (5, "own")].map(|(bit, name)| (bit, name));
                _ = write!(text, "\n id={} flags={}", monitor.id, flags(monitor.flags.0.into(), &names).replace(' ', ","));
                if monitor.out_port != PortNo::ANY {
                    _ = write!(text, " out_port={}", port(monitor.out_port)?);
                }
                if monitor.table != 0xff {
                    _ = write!(text, " table={}", monitor.table);
                }
                let matching = matching(&monitor.matching, 0x8000)?;
                if !matching.is_empty() {
                    _ = write!(text, " {matching}");
                }
            }
            ("ONFST_FLOW_MONITOR request", text)
        }
    })
}

pub fn reply_text(body: &MultipartBody) -> Result<(&'static str, String), Refusal> {
    use MultipartBody as B;
    let mut text = String::new();
    let name = match body {
        B::Desc(desc) => {
            let Desc { manufacturer, hardware, software, serial_number, datapath } = &**desc;
            _ = write!(text, "\nManufacturer: {manufacturer}\nHardware: {hardware}\nSoftware: {software}\nSerial Num: {serial_number}");
            _ = write!(text, "\nDP Description: {datapath}");
            "OFPST_DESC reply"
        }
        B::Flow(rules) => {
            for rule in rules {
                text += &flow_stats_text(rule)?;
            }
            "OFPST_FLOW reply"
        }
        B::Aggregate(Aggregate { frames, bytes, rules }) => {
            _ = write!(text, "packet_count={frames} byte_count={bytes} flow_count={rules}");
            "OFPST_AGGREGATE reply"
        }
        B::Table(tables) => {
            for TableStats { table, active, lookups, matches } in tables {
                _ = write!(text, "\n  table {table}:\n    active={active}, lookup={lookups}, matched={matches}");
            }
            "OFPST_TABLE reply"
        }
        B::Port(ports) => {
            _ = write!(text, "{} ports", ports.len());
            for stats in ports {
                text += &port_stats(stats)?;
            }
            "OFPST_PORT reply"
        }
        B::Queue(queues) => {
            _ = write!(text, "{} queues", queues.len());
            for stats in queues {
                let counts = [("bytes", stats.bytes), ("pkts", stats.frames), ("errors", stats.errors)].map(count).join(", ");
                _ = write!(text, "\n  port {} queue {}: {counts}, duration={}", port(stats.port)?, stats.queue, duration(stats.age));
            }
            "OFPST_QUEUE reply"
        }
        B::Group(groups) => {
            for stats in groups {
                let GroupStats { group, references, frames, bytes, age, buckets } = stats;
                _ = write!(text, "\n group_id={group},duration={},ref_count={references}", duration(*age));
                _ = write!(text, ",packet_count={frames},byte_count={bytes}");
                for (i, (frames, bytes)) in buckets.iter().enumerate() {
                    _ = write!(text, ",bucket{i}:packet_count={frames},byte_count={bytes}");
                }
            }
            "OFPST_GROUP reply"
        }
        B::GroupDesc(groups) => {
            for desc in groups {
                _ = write!(text, "\n {}", group(desc.group, desc.kind, &desc.buckets)?);
            }
            "OFPST_GROUP_DESC reply"
        }
        B::GroupFeatures(features) => {
            let hex = |value: u32| if value == 0 { "0".into() } else { format!("{value:#x}") };
            _ = write!(text, "\n Group table:\n    Types:  {}\n    Capabilities:  {}", hex(features.kinds), hex(features.capabilities));
            for (i, kind) in ["all", "select", "indirect", "fast failover"].into_iter().enumerate() {
                if features.kinds >> i & 1 != 0 {
                    _ = write!(text, "\n    {kind} group:\n       max_groups={:#x}", features.max_groups[i]);
                    _ = write!(text, "\n       actions: {}", action_types(features.actions[i]));
                }
            }
            "OFPST_GROUP_FEATURES reply"
        }
        B::Meter(meters) => {
            for stats in meters {
                let MeterStats { meter, rules, frames, bytes, age, bands } = stats;
                _ = write!(text, "\nmeter:{meter} flow_count:{rules} packet_in_count:{frames} byte_in_count:{bytes}");
                _ = write!(text, " duration:{} bands:", duration(*age));
                for (i, (frames, bytes)) in bands.iter().enumerate() {
                    _ = write!(text, "\n{i}: packet_count:{frames} byte_count:{bytes}");
                }
            }
            "OFPST_METER reply"
        }
        B::MeterConfig(meters) => {
            for config in meters {
                _ = write!(text, "\n{}", meter(config.meter, config.flags, &config.bands));
            }
            "OFPST_METER_CONFIG reply"
        }
        B::MeterFeatures(features) => {
            let MeterFeatures { max_meters, band_types, capabilities, max_bands, max_color } = *features;
            let bands = flags(band_types.into(), &[(1, "drop"), (2, "dscp_remark")]);
            let capabilities = flags(capabilities.0.into(), &METER_FLAGS);
            _ = write!(text, "\nmax_meter:{max_meters} max_bands:{max_bands} max_color:{max_color}");
            _ = write!(text, "\nband_types: {bands}\ncapabilities: {capabilities}");
            "OFPST_METER_FEATURES reply"
        }
        B::TableFeatures(tables) if tables.iter().any(|features| features.table == 0xff) => return Err("OFPTFFC_BAD_TABLE"),
        B::TableFeatures(tables) if tables.is_empty() => return Err("OFPBRC_BAD_LEN"),
        B::TableFeatures(tables) => {
            text = table_features(tables);
            "OFPST_TABLE_FEATURES reply"
        }
        B::PortDesc(ports) => {
            // They are listed in the order of their numbers.
            let mut ports: Vec<_> = ports.iter().collect();
            ports.sort_by_key(|desc| desc.number);
            for desc in ports {
                text += "\n";
                text += &port_desc(desc)?;
            }
            "OFPST_PORT_DESC reply"
        }
        B::FlowMonitor(updates) => {
            for update in updates {
                text += &rule_update(update)?;
            }
            "ONFST_FLOW_MONITOR reply"
        }
    };
    Ok((name, text))
}
