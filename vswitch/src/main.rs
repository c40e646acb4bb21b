//! The appliance: owns every thread and every file descriptor.

fn main() {}
