//! The rule sets of the cases, as `ovs-ofctl add-flows` reads them.

/// A rule set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    /// One rule for each direction.
    Ports,
    /// The learning switch.
    Normal,
    /// Ten tables, as a logical router with port security, access lists, marking, address translation, routing and address resolution has them: 800
    /// rules.
    Pipeline,
    /// One rule for each class of [`crate::frames::Vary::Classes`], each of which looks at one bit more: a megaflow of class N has a mask of its own.
    Masks(u32),
    /// A rule that copies both ports to registers: each flow needs a megaflow of its own.
    Unique,
}

impl Rules {
    /// The rules, one to a line.
    pub fn text(self) -> String {
        let rules = match self {
            Rules::Ports => vec!["in_port=1,actions=output:2".into(), "in_port=2,actions=output:1".into()],
            Rules::Normal => vec!["actions=NORMAL".into()],
            Rules::Pipeline => pipeline(),
            Rules::Masks(classes) => masks(classes),
            Rules::Unique => vec![
                BACK.into(),
                "priority=100,in_port=1,udp,actions=move:NXM_OF_UDP_SRC[]->NXM_NX_REG0[0..15],\
                 move:NXM_OF_UDP_DST[]->NXM_NX_REG0[16..31],output:2"
                    .into(),
            ],
        };
        rules.join("\n") + "\n"
    }
}

/// What the second guest sends reaches the first one.
const BACK: &str = "priority=10,in_port=2,actions=output:1";

fn masks(classes: u32) -> Vec<String> {
    let rule = |class: u32| {
        let field = if class < 32 { "nw_dst" } else { "nw_src" };
        let bit = std::net::Ipv4Addr::from(1u32 << (class % 32));
        format!("priority={},in_port=1,udp,{field}={bit}/{bit},actions=output:2", 1000 - class)
    };
    std::iter::once(BACK.to_owned()).chain((0..classes).map(rule)).collect()
}

fn pipeline() -> Vec<String> {
    const ROUTER: &str = "02:00:00:00:ff:02";
    const GROUPS: &str = "01:00:00:00:00:00/01:00:00:00:00:00";
    let [first, second] = ["02:00:00:00:00:01", "02:00:00:00:00:02"];
    let mut rules = Vec::new();
    let mut add = |table: u32, priority: u32, matching: &str, actions: &str| {
        rules.push(format!("table={table},priority={priority},{matching}{}actions={actions}", if matching.is_empty() { "" } else { "," }));
    };
    // 0: which logical port
    add(0, 100, "in_port=1", "set_field:1->metadata,resubmit(,1)");
    add(0, 100, "in_port=2", "output:1");
    // 1 and 2: port security, by Ethernet and by IP addresses
    add(1, 100, &format!("metadata=1,dl_src={GROUPS}"), "drop");
    add(1, 50, &format!("metadata=1,dl_src={first}"), "resubmit(,2)");
    add(1, 0, "", "drop");
    add(2, 90, &format!("ip,metadata=1,dl_src={first},nw_src=10.0.0.0/16"), "resubmit(,3)");
    add(2, 80, "ip,metadata=1", "drop");
    add(2, 0, "", "resubmit(,3)");
    // 3: what has to be tracked
    add(3, 100, "ip,metadata=1", "set_field:1->reg0,resubmit(,4)");
    add(3, 0, "", "resubmit(,4)");
    // 4: access lists
    for i in 0..200 {
        add(4, 2001, &format!("udp,metadata=1,nw_src=10.0.{i}.0/24,tp_dst={}", 7000 + i), "drop");
    }
    for i in 0..50 {
        add(4, 2002, &format!("ip,metadata=1,nw_dst=10.9.{i}.0/24"), "drop");
    }
    for port in [80, 443, 8080, 53, 5432, 6379, 9092, 3306] {
        add(4, 1500, &format!("udp,metadata=1,tp_dst={port}"), "resubmit(,5)");
    }
    add(4, 0, "", "drop");
    // 5: marking
    add(5, 100, "udp,metadata=1,tp_dst=53", "set_field:46->ip_dscp,resubmit(,6)");
    add(5, 0, "", "resubmit(,6)");
    // 6: virtual addresses
    for i in 0..32 {
        add(6, 120, &format!("udp,metadata=1,nw_dst=10.2.0.{i},tp_dst=80"), &format!("set_field:10.3.0.{i}->ip_dst,resubmit(,7)"));
    }
    add(6, 0, "", "resubmit(,7)");
    // 7: routes, and 8: the next hop's address
    for i in 0..256 {
        let actions = format!("dec_ttl,set_field:{ROUTER}->eth_src,set_field:{}->reg1,resubmit(,8)", i + 1);
        add(7, 48, &format!("ip,metadata=1,nw_dst=10.1.{i}.0/24"), &actions);
        add(8, 100, &format!("reg1={},metadata=1,ip", i + 1), &format!("set_field:{second}->eth_dst,resubmit(,9)"));
    }
    add(7, 32, "ip,metadata=1,nw_dst=10.1.0.0/16", "drop");
    add(7, 0, "", "drop");
    add(8, 0, "", "drop");
    // 9: where the destination is
    add(9, 100, &format!("dl_dst={GROUPS}"), "drop");
    add(9, 50, &format!("metadata=1,dl_dst={second}"), "output:2");
    add(9, 50, &format!("metadata=1,dl_dst={first}"), "output:1");
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_has_a_rule_of_its_own() {
        let text = Rules::Masks(64).text();
        assert!(text.contains("priority=1000,in_port=1,udp,nw_dst=0.0.0.1/0.0.0.1,actions=output:2"));
        assert!(text.contains("priority=937,in_port=1,udp,nw_src=128.0.0.0/128.0.0.0,actions=output:2"));
        assert_eq!(text.lines().count(), 65);
    }

    #[test]
    fn the_pipeline_has_ten_tables() {
        let text = Rules::Pipeline.text();
        for table in 0..10 {
            assert!(text.contains(&format!("table={table},")));
        }
        assert_eq!(text.lines().count(), 822);
    }
}
