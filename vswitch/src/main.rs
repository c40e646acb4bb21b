//! `vswitch`, a virtual switch for QEMU/KVM hosts.

fn main() -> std::process::ExitCode {
    vswitch::main()
}
