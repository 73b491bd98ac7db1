//! What is checked without running anything: formatting, clippy in both worlds, documentation.
//!
//! Host crates and lb-ebpf need a clippy run each: in one they would bring two panic handlers.

use anyhow::{Context as _, Result};

use crate::{child, setup::toolchain::Toolchain, workspace};

/// Every crate but lb-ebpf, which only the BPF target can link.
pub(super) const HOST_CRATES: [&str; 3] = ["--workspace", "--exclude", "lb-ebpf"];
/// Lints need no eBPF object inside lb-user.
const SKIP_EBPF: (&str, &str) = ("WEIR_SKIP_EBPF", "1");

/// Rustfmt, all crates.
pub(super) fn formatting() -> Result<()> {
    child::run(workspace::cargo().args(["fmt", "--all", "--check"])).context("type `cargo fmt --all`")
}

/// Clippy on the host crates, with their tests.
pub(super) fn host_clippy() -> Result<()> {
    let (name, value) = SKIP_EBPF;
    child::run(workspace::cargo().env(name, value).arg("clippy").args(HOST_CRATES).args([
        "--all-targets",
        "--",
        "--deny",
        "warnings",
    ]))
}

/// Clippy on lb-ebpf, by the toolchain that compiles it.
pub(super) fn bpf_clippy() -> Result<()> {
    let toolchain = Toolchain::find().context("no BPF toolchain: `cargo xtask setup` says what is missing")?;
    ["bench", "log"].into_iter().try_for_each(|feature| {
        child::run(
            toolchain
                .clippy()
                .args(["--package", "lb-ebpf", "--no-deps", "--features", feature])
                .args(["--target", "bpfel-unknown-none", "-Zbuild-std=core"])
                .arg("--target-dir")
                .arg(workspace::target().join("bpf-clippy"))
                .env("CARGO_ENCODED_RUSTFLAGS", "--cfg=bpf_target_arch=\"x86_64\"")
                .args(["--", "--deny", "warnings"]),
        )
    })
}

/// Rustdoc on the host crates, where a broken link is an error.
pub(super) fn documentation() -> Result<()> {
    let (name, value) = SKIP_EBPF;
    child::run(
        workspace::cargo()
            .env(name, value)
            .env("RUSTDOCFLAGS", "--deny warnings")
            .args(["doc", "--no-deps"])
            .args(HOST_CRATES),
    )
}
