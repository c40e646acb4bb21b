//! Datapath actions as text: as rules would be written, where rules have the like.

use std::fmt::{self, Display, Formatter};

use super::Action;

impl Display for Action {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Output(port) => write!(f, "output:{port}"),
            Self::Enqueue(port, queue) => write!(f, "enqueue:{port}:{queue}"),
            Self::Set { field, value, mask } if *mask == field.ones() => write!(f, "set_field:{value:#x}->{}", field.name()),
            Self::Set { field, value, mask } => write!(f, "set_field:{value:#x}/{mask:#x}->{}", field.name()),
            Self::PushVlan(tpid) => write!(f, "push_vlan:{tpid:#06x}"),
            Self::PopVlan => f.write_str("pop_vlan"),
            Self::PushMpls(kind) => write!(f, "push_mpls:{kind:#06x}"),
            Self::PopMpls(kind) => write!(f, "pop_mpls:{kind:#06x}"),
            Self::PushPbb => f.write_str("push_pbb:0x88e7"),
            Self::PopPbb => f.write_str("pop_pbb"),
            Self::CopyTtlOut => f.write_str("copy_ttl_out"),
            Self::CopyTtlIn => f.write_str("copy_ttl_in"),
            Self::DecTtl { .. } => f.write_str("dec_ttl"),
            Self::DecMplsTtl { .. } => f.write_str("dec_mpls_ttl"),
            Self::Meter(meter) => write!(f, "meter:{}", meter.0.id),
            Self::Controller(to) => write!(f, "controller(reason={},max_len={})", to.reason, to.max_len),
            Self::Copy(actions) => write!(f, "copy({})", list(actions)),
            Self::Recirculate(continuation) => write!(f, "continue({})", continuation.0),
        }
    }
}

/// Actions separated by commas; `drop` if there are none.
pub fn list(actions: &[Action]) -> impl Display + '_ {
    fmt::from_fn(move |f| {
        if actions.is_empty() {
            return f.write_str("drop");
        }
        actions.iter().enumerate().try_for_each(|(i, action)| write!(f, "{}{action}", if i == 0 { "" } else { "," }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Field;
    use crate::port::PortNo;

    #[test]
    fn actions_read_like_rules() {
        let copy = Action::Copy([Action::PopVlan, Action::Enqueue(PortNo(3), 2)].into());
        let set = Action::Set { field: Field::VlanPcp, value: 5, mask: 7 };
        let part = Action::Set { field: Field::IpDscp, value: 2, mask: 3 };
        let actions = [set, part, copy, Action::PushMpls(0x8847), Action::Output(PortNo::LOCAL)];
        let text = "set_field:0x5->vlan_pcp,set_field:0x2/0x3->ip_dscp,copy(pop_vlan,enqueue:3:2),push_mpls:0x8847,output:LOCAL";
        assert_eq!(list(&actions).to_string(), text);
        assert_eq!(list(&[]).to_string(), "drop");
    }
}
