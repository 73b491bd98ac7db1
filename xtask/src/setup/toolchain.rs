//! The compilers: a rustc that can build `core` for BPF, and the lints of both worlds.
//!
//! Debian's packages serve on Debian, a rustup nightly with `rust-src` elsewhere. The choice
//! between them must be the one that `lb-user/build.rs` makes.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use semver::{Version, VersionReq};

use crate::{
    child, progress,
    setup::{Scope, apt::Apt, linker},
    workspace,
};

const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CORE: &str = "/usr/lib/rustlib/src/rust/library/core";
/// Debian keeps its newest rustc, the one that builds the browsers, under these names.
const DEBIAN_PACKAGES: [&str; 3] = ["cargo-web", "rustc-web", "rust-web-src"];
const DEBIAN_CLIPPY: (&str, &str) = ("/usr/bin/cargo-clippy", "rust-web-clippy");

const NIGHTLY_ADVICE: &str = "to build `core` for BPF with a rustup nightly instead, type\n  \
    rustup toolchain install nightly --component rust-src --component clippy";

/// A cargo that can build `core` for BPF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// `/usr/bin/cargo` and `/usr/bin/rustc`.
    Debian,
    /// `rustup run nightly cargo`.
    Nightly,
}

impl Toolchain {
    /// The one that is here.
    pub(crate) fn find() -> Option<Self> {
        let debian = [DEBIAN_CARGO, DEBIAN_RUSTC, DEBIAN_CORE];
        if debian.iter().all(|path| Path::new(path).exists()) {
            return Some(Self::Debian);
        }
        nightly_core().ok()?.exists().then_some(Self::Nightly)
    }

    /// Its `cargo clippy`, at the root of the workspace.
    pub(crate) fn clippy(self) -> Command {
        let mut clippy = match self {
            // By its path: cargo would look in ~/.cargo/bin first, and find rustup's.
            Self::Debian => {
                let mut clippy = Command::new(DEBIAN_CLIPPY.0);
                clippy.env("CARGO", DEBIAN_CARGO).env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
                clippy
            }
            Self::Nightly => {
                let mut rustup = Command::new("rustup");
                rustup.args(["run", "nightly", "cargo"]).env_remove("CARGO").env_remove("RUSTC");
                rustup
            }
        };
        clippy.arg("clippy").env_remove("RUSTUP_TOOLCHAIN").current_dir(workspace::root());
        clippy
    }

    fn rustc(self) -> Result<Rustc> {
        let mut rustc = match self {
            Self::Debian => Command::new(DEBIAN_RUSTC),
            Self::Nightly => {
                let mut rustup = Command::new("rustup");
                rustup.args(["run", "nightly", "rustc"]);
                rustup
            }
        };
        let printed = child::output(rustc.arg("-vV"))?;
        Rustc::parse(&printed).ok_or_else(|| anyhow!("cannot read rustc's version from:\n{printed}"))
    }
}

/// What `rustc -vV` says.
#[derive(Debug, PartialEq, Eq)]
struct Rustc {
    release: Version,
    llvm_major: u64,
}

impl Rustc {
    fn parse(printed: &str) -> Option<Self> {
        let field = |name| printed.lines().find_map(|line| line.strip_prefix(name));
        Some(Self {
            release: Version::parse(field("release: ")?).ok()?,
            llvm_major: field("LLVM version: ")?.split('.').next()?.parse().ok()?,
        })
    }

    /// The workspace's `rust-version`; a nightly of that release counts as it.
    fn builds_weir(&self) -> bool {
        let needed = env!("CARGO_PKG_RUST_VERSION");
        let Ok(needed) = VersionReq::parse(&format!(">={needed}")) else {
            return false;
        };
        let Version { major, minor, patch, .. } = self.release;
        needed.matches(&Version::new(major, minor, patch))
    }
}

/// Debian's cargo with what unstable options it takes, at the root of the workspace, and the LLVM of its rustc.
///
/// # Errors
///
/// It is not here.
pub(crate) fn debian_cargo() -> Result<(Command, u64)> {
    ensure!(
        Toolchain::find() == Some(Toolchain::Debian),
        "a static `weir` is built by Debian's rustc, which is not here: `apt install {}`",
        DEBIAN_PACKAGES.join(" ")
    );
    let mut cargo = Command::new(DEBIAN_CARGO);
    cargo.env("CARGO", DEBIAN_CARGO).env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
    cargo.env_remove("RUSTUP_TOOLCHAIN").current_dir(workspace::root());
    Ok((cargo, Toolchain::Debian.rustc()?.llvm_major))
}

/// Sees to a BPF toolchain, and in the scope of tests to rustfmt and clippy.
///
/// # Errors
///
/// What is missing, and what to type.
pub(crate) fn set_up(scope: Scope, apt: &mut Apt) -> Result<()> {
    let (toolchain, rustc) = compiler(apt)?;
    progress::say("Found", format_args!("rustc {} for BPF ({toolchain:?}, LLVM {})", rustc.release, rustc.llvm_major));
    linker::set_up(toolchain, rustc.llvm_major, apt)?;
    if scope >= Scope::Tests {
        bpf_clippy(toolchain, apt)?;
        rustup_components()?;
    }
    Ok(())
}

fn compiler(apt: &mut Apt) -> Result<(Toolchain, Rustc)> {
    if let Some(found) = Toolchain::find() {
        let rustc = found.rustc()?;
        if rustc.builds_weir() {
            return Ok((found, rustc));
        }
        progress::say("Outdated", format_args!("rustc {} ({found:?})", rustc.release));
    } else {
        progress::say("Missing", "a rustc that can build `core` for BPF");
    }
    apt.install(&BTreeSet::from(DEBIAN_PACKAGES)).map_err(|error| anyhow!("{error:#}\n{NIGHTLY_ADVICE}"))?;
    let rustc = Toolchain::Debian.rustc()?;
    ensure!(
        rustc.builds_weir(),
        "{DEBIAN_RUSTC} is {}, and Weir needs {}: add Debian's security updates to /etc/apt, \
         or remove the packages that it comes from (`dpkg -S {DEBIAN_RUSTC}`)",
        rustc.release,
        env!("CARGO_PKG_RUST_VERSION")
    );
    Ok((Toolchain::Debian, rustc))
}

/// Clippy for lb-ebpf must be of the release that compiles it.
fn bpf_clippy(toolchain: Toolchain, apt: &mut Apt) -> Result<()> {
    let (clippy, package) = DEBIAN_CLIPPY;
    if toolchain == Toolchain::Nightly || Path::new(clippy).exists() {
        return Ok(());
    }
    progress::say("Missing", clippy);
    apt.install(&BTreeSet::from([package]))
}

/// Rustfmt and clippy lie beside the cargo that runs us; rustup's minimal profile lacks them.
fn rustup_components() -> Result<()> {
    let cargo = workspace::cargo_path();
    let beside = |name| cargo.with_file_name(name).exists();
    if beside("rustfmt") && beside("cargo-clippy") {
        return Ok(());
    }
    progress::say("Installing", "rustfmt and clippy");
    child::run_logged(
        Command::new("rustup").args(["component", "add", "rustfmt", "clippy"]),
        &workspace::setup_log("rustup"),
    )
    .context("rustfmt and clippy are missing, and rustup could not add them")
}

/// Where the nightly's source of `core` is, or would be.
fn nightly_core() -> Result<PathBuf> {
    let mut rustc = Command::new("rustup");
    rustc.args(["run", "nightly", "rustc", "--print", "sysroot"]);
    let sysroot = child::output(&mut rustc)?;
    Ok(Path::new(sysroot.trim_end()).join("lib/rustlib/src/rust/library/core"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rustc(release: &str) -> Rustc {
        let printed = format!("rustc\nbinary: rustc\nrelease: {release}\nLLVM version: 22.1.8\n");
        Rustc::parse(&printed).expect("well formed")
    }

    #[test]
    fn the_rustc_that_compiles_this_test_is_understood() {
        let cargo = workspace::cargo_path();
        let printed =
            child::output(Command::new(cargo.with_file_name("rustc")).arg("-vV")).expect("rustc lies beside cargo");
        assert!(Rustc::parse(&printed).expect("readable").builds_weir());
    }

    #[test]
    fn llvm_is_read_beside_the_release() {
        let expected = Rustc { release: Version::new(1, 96, 0), llvm_major: 22 };
        assert_eq!(rustc("1.96.0"), expected);
    }

    #[test]
    fn older_than_the_workspace_is_refused() {
        assert!(!rustc("1.63.0").builds_weir());
        assert!(!rustc("1.94.1").builds_weir());
        assert!(rustc("1.95.0").builds_weir());
        assert!(rustc("1.97.0-nightly").builds_weir());
    }

    #[test]
    fn garbage_is_no_version() {
        assert_eq!(Rustc::parse("release: yes\nLLVM version: no\n"), None);
        assert_eq!(Rustc::parse(""), None);
    }
}
