//! What `ovs-ofctl` says that groups and meters have counted.

use crate::switch::Switch;

/// The frames of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupFrames {
    /// Those that it processed.
    pub all: u64,
    /// Those that each bucket got.
    pub buckets: Vec<u64>,
}

/// The frames of a meter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeterFrames {
    /// Those that it measured.
    pub all: u64,
    /// Those that were too many for each band.
    pub bands: Vec<u64>,
}

/// The frames of a group.
///
/// # Panics
///
/// Panics if there is no such group.
pub fn group(switch: &Switch, group: u32) -> GroupFrames {
    let text = switch.ofctl("dump-group-stats", &[&format!("group_id={group}")]);
    let mut counts = numbers(&text, "packet_count=").into_iter();
    let all = counts.next().unwrap_or_else(|| panic!("no group {group} in {text}"));
    GroupFrames { all, buckets: counts.collect() }
}

/// The frames of a meter.
///
/// # Panics
///
/// Panics if there is no such meter.
pub fn meter(switch: &Switch, meter: u32) -> MeterFrames {
    let text = switch.ofctl("meter-stats", &[&format!("meter={meter}")]);
    let all = *numbers(&text, "packet_in_count:").first().unwrap_or_else(|| panic!("no meter {meter} in {text}"));
    MeterFrames { all, bands: numbers(&text, " packet_count:") }
}

/// The numbers behind each `name` in a text.
fn numbers(text: &str, name: &str) -> Vec<u64> {
    let digits = |rest: &str| rest.chars().take_while(char::is_ascii_digit).collect::<String>();
    text.split(name).skip(1).map(|rest| digits(rest).parse().unwrap_or_else(|_| panic!("no number behind {name} in {text}"))).collect()
}
