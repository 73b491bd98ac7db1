//! How this crate is compiled for the BPF target. The build scripts that need its object include this file: a dependency
//! on it would be one on the BPF target.
//!
//! Two toolchains can do it: Debian's rustc with `rust-src` (its LLVM is the one that
//! `cargo xtask setup` builds bpf-linker against), or a rustup nightly with `rust-src`.

use std::{env, fs, path::Path, path::PathBuf, process::Command};

const TARGET: &str = "bpfel-unknown-none";
/// `cpu=v3` has 32-bit jumps and atomic operations that return a value.
const RUSTFLAGS: [&str; 6] = [
    "--cfg=bpf_target_arch=\"x86_64\"",
    // Packet fields lie at odd addresses; without it every load of one is a load per byte.
    "-Ctarget-feature=+allows-misaligned-mem-access",
    "-Ctarget-cpu=v3",
    "-Cdebuginfo=2",
    "-Clink-arg=--btf",
    "-Clink-arg=--disable-memory-builtins",
];

/// Compiles the object with these features of lb-ebpf into `OUT_DIR/object`; with `WEIR_SKIP_EBPF` it is empty.
pub(crate) fn compile(features: &[&str], object: &str) {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("..");
    for watched in ["lb-ebpf", "lb-common/src", "lb-common/Cargo.toml", "Cargo.toml", "Cargo.lock"] {
        println!("cargo:rerun-if-changed={}", root.join(watched).display());
    }
    println!("cargo:rerun-if-env-changed=WEIR_SKIP_EBPF");

    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let object = out.join(object);
    if env::var_os("WEIR_SKIP_EBPF").is_some() {
        fs::write(&object, []).expect("OUT_DIR is writable");
        return;
    }

    let mut cargo = compiler();
    cargo
        .current_dir(root.join("lb-ebpf"))
        .args(["build", "--quiet", "--profile", "bpf", "--package", "lb-ebpf"])
        .args(["--features", &features.join(",")])
        .args(["--target", TARGET, "-Zbuild-std=core", "--target-dir"])
        .arg(out.join("bpf"))
        .env("CARGO_ENCODED_RUSTFLAGS", RUSTFLAGS.join("\x1f"))
        .env_remove("RUSTC_WORKSPACE_WRAPPER");
    let status = cargo.status().expect("cargo starts");
    assert!(status.success(), "lb-ebpf did not build; `cargo xtask setup` installs what it needs");

    let built = out.join("bpf").join(TARGET).join("bpf/weir");
    fs::copy(&built, &object).expect("cargo built the object");
}

/// A cargo that can build `core` for BPF.
fn compiler() -> Command {
    let debian = Path::new("/usr/lib/rustlib/src/rust/library/core");
    if debian.exists() && Path::new("/usr/bin/cargo").exists() {
        let mut cargo = Command::new("/usr/bin/cargo");
        cargo.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
        return cargo;
    }
    let mut cargo = Command::new("rustup");
    cargo.args(["run", "nightly", "cargo"]).env_remove("RUSTC").env_remove("RUSTUP_TOOLCHAIN");
    cargo
}
