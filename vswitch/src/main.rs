//! `vswitch`, a virtual switch for QEMU/KVM hosts.

// Changing rules is a matter of small allocations, which one thread makes and another may free.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    vswitch::main()
}
