//! Matches, actions and instructions.

use super::*;
use datapath::key::FieldMatch;
use datapath::key::field::{Format, NXM_NX, NXM_OF, OXM_EXPERIMENTER, OXM_REGISTERS};

/// A port that Open vSwitch has a number for.
pub fn port(port: PortNo) -> Text {
    match port.0 {
        0..0xff00 | 0xffff_fff8.. => Ok(port.to_string()),
        _ => Err("OFPBAC_BAD_OUT_PORT"),
    }
}

/// A port of 16 bits, of which the last are the reserved ones.
fn widen(port: u32) -> PortNo {
    PortNo(if port >= 0xff00 { port | 0xffff_0000 } else { port })
}

/// A field that Open vSwitch has.
fn known(field: Field) -> Result<Field, Refusal> {
    match field {
        Field::Ipv6Exthdr | Field::PbbIsid | Field::PbbUca | Field::InPhyPort => Err("OFPBMC_BAD_FIELD"),
        field => Ok(field),
    }
}

/// The name of a field in actions.
fn short_name(field: Field) -> Result<&'static str, Refusal> {
    Ok(match known(field)? {
        Field::IpEcn => "nw_ecn",
        Field::IpProto => "nw_proto",
        Field::InPortNxm => "in_port",
        Field::InPort => "in_port_oxm",
        field => field.name(),
    })
}

/// The name of a field in Nicira's extensible match, or else in OpenFlow's.
fn long_name(field: Field) -> Text {
    let ids = known(field)?.info().oxm;
    let id = ids.iter().find(|id| [NXM_OF, NXM_NX].contains(&id.class)).or(ids.iter().find(|id| id.class != OXM_EXPERIMENTER)).unwrap();
    let name = match field {
        Field::InPort | Field::InPortNxm => "in_port".into(),
        Field::Ipv4Src => "ip_src".into(),
        Field::Ipv4Dst => "ip_dst".into(),
        Field::NwTos => "ip_tos".into(),
        Field::NwTtl => "ip_ttl".into(),
        _ if id.class == OXM_REGISTERS => field.name().replace("xreg", "pkt_reg"),
        field => field.name().to_owned(),
    };
    let class = match id.class {
        NXM_OF => "NXM_OF",
        NXM_NX => "NXM_NX",
        _ => "OXM_OF",
    };
    Ok(format!("{class}_{}", name.to_uppercase()))
}

/// The bits of a field. Where parts of fields are concerned, Open vSwitch leaves out the one that says that there is a tag.
fn width(field: Field) -> u8 {
    if field == Field::VlanVid { 12 } else { field.bits() }
}

/// Bits of a field.
fn bits(range: FieldRange) -> Text {
    if range.offset + range.bits > width(range.field) { Err("OFPBAC_BAD_SET_LEN") } else { any_bits(range) }
}

/// Bits of a field, whether there are so many or not.
fn any_bits(range: FieldRange) -> Text {
    let name = long_name(range.field)?;
    Ok(match (range.offset, range.bits) {
        (0, bits) if bits == width(range.field) => format!("{name}[]"),
        (offset, 1) => format!("{name}[{offset}]"),
        (offset, bits) => format!("{name}[{offset}..{}]", offset + bits - 1),
    })
}

/// A value in an action.
fn field_value(field: Field, value: u128, mask: u128) -> String {
    let exact = mask == field.ones();
    match field.info().format {
        // A port that Open vSwitch has no number for is none there.
        Format::Port if field == Field::InPort => port(PortNo(value as u32)).unwrap_or("ANY".into()),
        Format::Fragment if (value, mask) == (2, 3) => "<error>".into(),
        Format::Port => port(widen(value as u32)).unwrap_or(value.to_string()),
        _ if field == Field::VlanVid && exact => value.to_string(),
        Format::Decimal if !exact => format!("{value}/{mask:#x}"),
        _ if field == Field::VlanVid => format!("{value}/{mask:#x}"),
        Format::Hex(_) if exact => hex(value),
        Format::Hex(_) => format!("{}/{mask:#x}", hex(value)),
        _ => FieldMatch { field, value, mask }.text().to_string(),
    }
}

/// A number as C's `%#x` has it.
fn hex(value: u128) -> String {
    if value == 0 { "0".into() } else { format!("{value:#x}") }
}

/// The conditions of a match, with a priority that is not the usual one.
pub fn matching(matching: &Match, priority: u16) -> Text {
    for found in matching.fields() {
        known(found.field)?;
        match found.field {
            Field::InPort => drop(port(PortNo(found.value as u32)).map_err(|_| "OFPBMC_BAD_VALUE")?),
            Field::ArpOp if found.value > 0xff => return Err("OFPBMC_BAD_VALUE"),
            _ => {}
        }
    }
    let matching = matching.to_string().replace("nw_frag=0x0/0x1", "nw_frag=no").replace("nw_frag=0x2/0x3", "nw_frag=<error>");
    Ok(match (priority, matching.as_str()) {
        (0x8000, _) => matching,
        (_, "") => format!("priority={priority}"),
        _ => format!("priority={priority},{matching}"),
    })
}

/// Whatever a rule says to do.
pub fn instructions(instructions: &Instructions) -> Text {
    let mut list = Vec::new();
    if !instructions.write.iter().all(may_be_written) {
        return Err("OFPBAC_BAD_TYPE");
    }
    let alone = *instructions == Instructions { apply: instructions.apply.clone(), ..Instructions::default() };
    let clauses = |actions: &[OfAction]| actions.iter().filter(|action| matches!(action, OfAction::Conjunction { .. })).count();
    if clauses(&instructions.apply) > 0 && !alone {
        return Err("NXBAC_BAD_CONJUNCTION");
    }
    list.extend(instructions.meter.map(|meter| format!("meter:{meter}")));
    if !instructions.apply.is_empty() {
        list.push(actions(&instructions.apply)?);
    }
    if instructions.clear {
        list.push("clear_actions".into());
    }
    if !instructions.write.is_empty() {
        list.push(format!("write_actions({})", actions(&instructions.write)?));
    }
    if let Some((value, mask)) = instructions.metadata {
        list.push(if mask == u64::MAX { format!("write_metadata:{value:#x}") } else { format!("write_metadata:{value:#x}/{mask:#x}") });
    }
    list.extend(instructions.goto.map(|table| format!("goto_table:{table}")));
    Ok(if list.is_empty() { "drop".into() } else { list.join(",") })
}

/// Whether Open vSwitch takes it in an action set.
fn may_be_written(action: &OfAction) -> bool {
    use OfAction as A;
    matches!(
        action,
        A::Output { .. }
            | A::Group(_)
            | A::SetQueue(_)
            | A::SetField { .. }
            | A::Move { .. }
            | A::Load { .. }
            | A::PushVlan(_)
            | A::PopVlan
            | A::PushMpls(_)
            | A::PopMpls(_)
            | A::SetNwTtl(_)
            | A::SetMplsTtl(_)
            | A::DecNwTtl
            | A::DecNwTtlFor(_)
            | A::DecMplsTtl
            | A::Resubmit { .. }
    )
}

/// A list of actions, or that there are none. The clauses of a conjunction stand beside each other and notes only.
pub fn actions(actions: &[OfAction]) -> Text {
    let clauses = actions.iter().any(|action| matches!(action, OfAction::Conjunction { .. }));
    if clauses && !actions.iter().all(|action| matches!(action, OfAction::Conjunction { .. } | OfAction::Note(_))) {
        return Err("NXBAC_BAD_CONJUNCTION");
    }
    match actions {
        [] => Ok("drop".into()),
        actions => Ok(actions.iter().map(action).collect::<Result<Vec<_>, _>>()?.join(",")),
    }
}

fn action(action: &OfAction) -> Text {
    Ok(match action {
        OfAction::Output { port: PortNo::CONTROLLER, max_len } => format!("CONTROLLER:{max_len}"),
        OfAction::Output { port: to, .. } if to.0 < 0xff00 => format!("output:{to}"),
        OfAction::Output { port: to, .. } => port(*to)?,
        OfAction::OutputField { source, .. } => format!("output:{}", bits(*source)?),
        OfAction::SetField { field, value, mask } => {
            let name = short_name(*field).map_err(|_| "OFPBAC_BAD_SET_")?;
            let untags = *field == Field::VlanVid && *mask == field.ones() && value & 0x1000 == 0;
            if untags || *field == Field::ArpOp && *value > 0xff {
                return Err("OFPBAC_BAD_SET_ARGUMENT");
            }
            format!("set_field:{}->{name}", field_value(*field, *value, *mask))
        }
        OfAction::Move { source, destination } => format!("move:{}->{}", bits(*source)?, bits(*destination)?),
        OfAction::Load { destination, value } => format!("load:{}->{}", hex((*value).into()), bits(*destination)?),
        OfAction::StackPush(range) => format!("push:{}", bits(*range)?),
        OfAction::StackPop(range) => format!("pop:{}", bits(*range)?),
        OfAction::PushVlan(tpid) => format!("push_vlan:{tpid:#06x}"),
        OfAction::PopVlan => "pop_vlan".into(),
        OfAction::PushMpls(eth_type) => format!("push_mpls:{eth_type:#06x}"),
        OfAction::PopMpls(eth_type) => format!("pop_mpls:{eth_type:#06x}"),
        OfAction::SetNwTtl(ttl) => format!("mod_nw_ttl:{ttl}"),
        OfAction::SetMplsTtl(ttl) => format!("set_mpls_ttl({ttl})"),
        OfAction::DecNwTtl => "dec_ttl".into(),
        OfAction::DecNwTtlFor(ids) => format!("dec_ttl({})", list(ids)),
        OfAction::DecMplsTtl => "dec_mpls_ttl".into(),
        OfAction::PopQueue => "pop_queue".into(),
        OfAction::Exit => "exit".into(),
        OfAction::SetQueue(queue) => format!("set_queue:{queue}"),
        OfAction::Group(group) => format!("group:{group}"),
        OfAction::Resubmit { port: to, table: None } if *to != PortNo::IN_PORT => format!("resubmit:{to}"),
        OfAction::Resubmit { port: to, table } => {
            let to = if *to == PortNo::IN_PORT { String::new() } else { to.to_string() };
            format!("resubmit({to},{})", table.map_or(String::new(), |table| table.to_string()))
        }
        OfAction::Controller { max_len, controller_id: 0, reason: 1, userdata } if userdata.is_empty() => format!("CONTROLLER:{max_len}"),
        OfAction::Controller { max_len, controller_id, reason, userdata } => {
            let mut list = Vec::new();
            if *reason != 1 {
                list.push(format!("reason={}", packet_in_reason(*reason)));
            }
            if *max_len != CONTROLLER_WHOLE {
                list.push(format!("max_len={max_len}"));
            }
            if *controller_id != 0 {
                list.push(format!("id={controller_id}"));
            }
            if !userdata.is_empty() {
                list.push(format!("userdata={}", dotted(userdata)));
            }
            format!("controller({})", list.join(","))
        }
        OfAction::Note(note) => format!("note:{}", dotted(note)),
        OfAction::Multipath(m) => {
            let algorithm = match m.algorithm {
                MultipathAlgorithm::Modulo => "modulo_n",
                MultipathAlgorithm::HashThreshold => "hash_threshold",
                MultipathAlgorithm::HighestRandomWeight => "hrw",
                MultipathAlgorithm::IterativeHash => "iter_hash",
            };
            let links = u32::from(m.max_link) + 1;
            format!("multipath({},{},{algorithm},{links},{},{})", hashed(m.fields), m.basis, m.argument, bits(m.destination)?)
        }
        OfAction::Bundle(bundle) => {
            let algorithm = match bundle.algorithm {
                BundleAlgorithm::ActiveBackup => "active_backup",
                BundleAlgorithm::HighestRandomWeight => "hrw",
            };
            let head = format!("{},{},{algorithm},ofport", hashed(bundle.fields), bundle.basis);
            let members = list(&bundle.members);
            match bundle.destination {
                Some(destination) => format!("bundle_load({head},{},members:{members})", bits(destination)?),
                None => format!("bundle({head},members:{members})"),
            }
        }
        OfAction::Learn(learn) => learned(learn)?,
        OfAction::Conjunction { id, clause, clauses } => format!("conjunction({id},{}/{clauses})", clause + 1),
        OfAction::Clone(inner) => format!("clone({})", actions(inner)?),
        OfAction::PushPbb | OfAction::PopPbb | OfAction::CopyTtlOut | OfAction::CopyTtlIn => return Err("OFPBAC_BAD_TYPE"),
        OfAction::Enqueue { port, queue } => format!("enqueue:{port}:{queue}"),
        OfAction::SetVlanVid(vid) => format!("mod_vlan_vid:{vid}"),
        OfAction::SetVlanPcp(pcp) => format!("mod_vlan_pcp:{pcp}"),
    })
}

fn hashed(fields: HashFields) -> &'static str {
    match fields {
        HashFields::EthSrc => "eth_src",
        HashFields::SymmetricL4 => "symmetric_l4",
        HashFields::SymmetricL3L4 => "symmetric_l3l4",
        HashFields::SymmetricL3L4Udp => "symmetric_l3l4+udp",
        HashFields::NwSrc => "nw_src",
        HashFields::NwDst => "nw_dst",
        HashFields::SymmetricL3 => "symmetric_l3",
    }
}

fn learned(learn: &Learn) -> Text {
    let mut text = format!("learn(table={}", learn.table);
    let mut say = |when: bool, what: String| {
        if when {
            text += ",";
            text += &what;
        }
    };
    say(learn.idle_timeout != 0, format!("idle_timeout={}", learn.idle_timeout));
    say(learn.hard_timeout != 0, format!("hard_timeout={}", learn.hard_timeout));
    say(learn.priority != 0x8000, format!("priority={}", learn.priority));
    say(learn.send_flow_removed, "send_flow_rem".into());
    say(learn.delete_learned, "delete_learned".into());
    say(learn.cookie != 0, format!("cookie={}", hex(learn.cookie.into())));
    for LearnSpec { source, target, .. } in &learn.specs {
        let part = match (*source, *target) {
            (LearnSource::Field(from), LearnTarget::Match(to)) if from == to => any_bits(to)?,
            (LearnSource::Field(from), LearnTarget::Match(to)) => format!("{}={}", any_bits(to)?, any_bits(from)?),
            (LearnSource::Value(value), LearnTarget::Match(to)) if to.offset == 0 && to.bits == width(to.field) => {
                format!("{}={}", short_name(to.field)?, field_value(to.field, value, to.field.ones()))
            }
            (LearnSource::Value(value), LearnTarget::Match(to)) => format!("{}={}", any_bits(to)?, hex(value)),
            (LearnSource::Field(from), LearnTarget::Load(to)) => format!("load:{}->{}", any_bits(from)?, any_bits(to)?),
            (LearnSource::Value(value), LearnTarget::Load(to)) => format!("load:{}->{}", hex(value), any_bits(to)?),
            (LearnSource::Field(from), LearnTarget::Output) => format!("output:{}", any_bits(from)?),
            (LearnSource::Value(_), LearnTarget::Output) => return Err("OFPBAC_BAD_ARGUMENT"),
        };
        say(true, part);
    }
    Ok(text + ")")
}
