//! The tarball: a static `weir`, its pages, the units and the configurations, for any Linux of the machine's kind.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};

use super::{
    Pack, materials, payload,
    tree::{Kind, Tree},
};
use crate::child;

/// Files of the repository that go along by their own paths.
const FILES: [&str; 16] = [
    "README.md",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "deploy/README.md",
    "deploy/agent.toml",
    "deploy/monitoring/weir-dashboard.json",
    "deploy/monitoring/weir.rules.test.yml",
    "deploy/monitoring/weir.rules.yml",
    "deploy/weir-agent.service",
    "deploy/weir.service",
    "deploy/weir.sysusers",
    "deploy/weir.tmpfiles",
    "deploy/weir.toml",
    "docs/monitoring.md",
    "docs/reference/metrics.md",
    "docs/ways.md",
];

/// Builds it, and returns the name of its file.
pub(super) fn build(weir: &Path, pack: &Pack) -> Result<String> {
    static_program(weir)?;
    let name = format!("weir-{}-{}-linux-musl", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
    let tree = Tree::new(pack.out.join(&name))?;
    payload::program(weir, &tree, "bin/weir")?;
    payload::pages(weir, &tree, "")?;
    for file in FILES {
        tree.put(file, &payload::source(file)?, Kind::Data)?;
    }
    tree.put("licences.txt", materials::licences()?.as_bytes(), Kind::Data)?;
    let file = format!("{name}.tar.gz");
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "--owner=root:0", "--group=root:0", "--numeric-owner", "--format=gnu"]);
    tar.arg(format!("--mtime=@{}", pack.epoch));
    tar.arg(format!("--use-compress-program=gzip --no-name -{}", if pack.quick { 1 } else { 9 }));
    tar.arg("--directory").arg(&pack.out).arg("--create").arg("--file").arg(pack.out.join(&file)).arg(&name);
    child::run(&mut tar)?;
    Ok(file)
}

/// A program that asks for a loader runs only where that one is.
fn static_program(weir: &Path) -> Result<()> {
    let mut ask = Command::new("readelf");
    let said = child::output(ask.args(["--program-headers", "--wide"]).arg(weir))
        .with_context(|| format!("{} is no program", weir.display()))?;
    ensure!(!said.contains("INTERP"), "{} is not static: it asks for a loader", weir.display());
    Ok(())
}
