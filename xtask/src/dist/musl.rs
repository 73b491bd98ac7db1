//! A `weir` that is linked with nothing of the machine: musl, with the standard library compiled for it.
//!
//! Debian has musl and the standard library's source, as for BPF; the unwinder is that of the LLVM of its rustc.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, Result};

use crate::{child, progress::say_timed, setup, workspace};

/// The commands of it, and their Debian packages.
pub(super) const TOOLS: [(&str, &str); 2] = [("musl-gcc", "musl-tools"), ("ar", "binutils")];
const TARGET: &str = "x86_64-unknown-linux-musl";

/// Builds it, and returns where it is.
pub(super) fn build() -> Result<PathBuf> {
    let started = Instant::now();
    let (mut cargo, llvm) = setup::toolchain::debian_cargo()?;
    let libraries = unwinder(llvm)?;
    // Its own target directory: it is another rustc than the one of the other builds.
    let target = workspace::target().join("musl");
    // Position independent it would name musl's loader, which is where musl is.
    let flags = format!(
        "-Clink-self-contained=no\u{1f}-Ctarget-feature=+crt-static\u{1f}-Crelocation-model=static\u{1f}-Lnative={}",
        libraries.display()
    );
    cargo
        .args(["build", "--release", "--package", "lb-user", "--bin", "weir", "--target", TARGET])
        .arg("-Zbuild-std=std,panic_unwind")
        .arg("--target-dir")
        .arg(&target)
        .env("CARGO_ENCODED_RUSTFLAGS", flags)
        .env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_LINKER", "musl-gcc");
    child::run(&mut cargo)?;
    say_timed("Built", "a static weir", started);
    Ok(target.join(TARGET).join("release/weir"))
}

/// A folder with the static unwinder that the standard library links.
fn unwinder(llvm: u64) -> Result<PathBuf> {
    let folder = workspace::target().join("setup/musl");
    let library = folder.join("libunwind.a");
    if library.exists() {
        return Ok(folder);
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let plain = folder.join("debian.a");
    setup::extract(&format!("libunwind-{llvm}-dev"), &format!("usr/lib/llvm-{llvm}/lib/libunwind.a"), &plain)?;
    let object = folder.join("fortify.o");
    let source = workspace::root().join("xtask/src/dist/fortify.c");
    child::run(Command::new("musl-gcc").args(["-O2", "-c"]).arg(source).arg("-o").arg(&object))?;
    child::run(Command::new("ar").arg("r").arg(&plain).arg(&object))?;
    rename(&plain, &library)?;
    Ok(folder)
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).with_context(|| format!("cannot rename {} to {}", from.display(), to.display()))
}
