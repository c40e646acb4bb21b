//! Where things lie in cargo's target directory: the switch under test, the guest image and the controllers.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The directory of the profile that this program was built with, such as `target/debug`, and the target directory above it.
fn profile_dir() -> &'static (PathBuf, PathBuf) {
    static DIRS: OnceLock<(PathBuf, PathBuf)> = OnceLock::new();
    DIRS.get_or_init(|| {
        let exe = std::env::current_exe().expect("the running program has a path");
        let dir = exe.parent().expect("a program lies in a directory");
        let profile = if dir.ends_with("deps") || dir.ends_with("examples") { dir.parent().expect("deps lies in a profile") } else { dir };
        let target = profile.parent().expect("a profile lies in a target directory");
        (profile.to_owned(), target.to_owned())
    })
}

/// The `vswitch` program, built from the current sources in the profile that the calling test was built in.
pub fn vswitch() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let (profile, target) = profile_dir();
        // The whole workspace, so that its dependencies are built with the same features as for the caller, and once.
        let name = if profile.ends_with("release") { "release" } else { "test" };
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        cargo.args(["build", "--quiet", "--workspace", "--bins", "--profile", name, "--target-dir"]).arg(target);
        cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
        let status = cargo.status().unwrap_or_else(|error| panic!("cargo does not start: {error}"));
        assert!(status.success(), "the workspace does not build");
        profile.join("vswitch")
    })
}

/// The Python environment of the controllers, if `tests/controllers/setup` made it.
pub fn controllers() -> PathBuf {
    profile_dir().1.join("controllers")
}

/// The directory of the guest image: `vmlinux`, `initramfs.cpio`, and boot snapshots.
pub fn guest_image() -> PathBuf {
    let image = profile_dir().1.join("guest-image");
    assert!(
        image.join("initramfs.cpio").exists(),
        "there is no guest image in {}: run scripts/setup, then guest-images/build",
        image.display()
    );
    image
}
