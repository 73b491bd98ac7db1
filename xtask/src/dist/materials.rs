//! The bill of materials, in `CycloneDX`: every crate in the program, with version, licence, checksum and what it needs; and their licences.
//!
//! It is what cargo says, for the controller and for the programs of the kernel that are in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{Pack, payload};
use crate::{child, workspace};

/// The crates whose code is in `weir`.
const ROOTS: [&str; 2] = ["lb-user", "lb-ebpf"];

/// Writes it, and returns the name of its file.
pub(super) fn write(pack: &Pack) -> Result<String> {
    let name = format!("weir-{}.cdx.json", env!("CARGO_PKG_VERSION"));
    fs::write(pack.out.join(&name), bill()?).with_context(|| format!("cannot write {name}"))?;
    Ok(name)
}

/// Its text.
pub(super) fn bill() -> Result<String> {
    let bill = bill_of(&metadata()?, &checksums(&payload::text("Cargo.lock")?))?;
    Ok(serde_json::to_string_pretty(&bill)? + "\n")
}

/// The licences and notices that the crates bring, which have to go where the program goes.
pub(super) fn licences() -> Result<String> {
    let metadata = metadata()?;
    let (packages, _, inside) = inside(&metadata)?;
    let mut text = String::new();
    for package in inside.iter().filter_map(|id| packages.get(id)).filter(|package| !package["source"].is_null()) {
        let folder = Path::new(word(package, "manifest_path")).parent().context("a crate lies nowhere")?;
        let mut files: Vec<PathBuf> = fs::read_dir(folder)
            .with_context(|| format!("cannot list {}", folder.display()))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.is_file() && is_notice(path))
            .collect();
        files.sort();
        let (name, version, licence) = (word(package, "name"), word(package, "version"), word(package, "license"));
        writeln!(text, "==== {name} {version}: {licence}\n")?;
        for file in files {
            let notice = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            writeln!(text, "{}\n", String::from_utf8_lossy(&notice).trim_end())?;
        }
    }
    Ok(text)
}

fn is_notice(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
    ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"].iter().any(|word| name.starts_with(word))
}

fn metadata() -> Result<Value> {
    let mut cargo = workspace::cargo();
    cargo.args([
        "metadata",
        "--format-version",
        "1",
        "--locked",
        "--all-features",
        "--filter-platform",
        "x86_64-unknown-linux-gnu",
    ]);
    serde_json::from_str(&child::output(&mut cargo)?).context("cargo metadata is no JSON")
}

/// The checksum of each name and version in a `Cargo.lock`.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let field = |block: &str, name: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = \""))?;
        Some(line.trim_end_matches('"').to_owned())
    };
    lock.split("[[package]]")
        .filter_map(|block| Some(((field(block, "name")?, field(block, "version")?), field(block, "checksum")?)))
        .collect()
}

type Packages<'a> = BTreeMap<&'a str, &'a Value>;
type Needs<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

/// Every package, what each one needs, and those that are in the program.
fn inside(metadata: &Value) -> Result<(Packages<'_>, Needs<'_>, BTreeSet<&str>)> {
    let needs = needs(metadata)?;
    let packages: Packages<'_> =
        list(&metadata["packages"])?.iter().map(|package| (word(package, "id"), package)).collect();
    let is_root = |package: &Value| ROOTS.contains(&word(package, "name"));
    let mut next: Vec<&str> = packages.iter().filter(|(_, package)| is_root(package)).map(|(id, _)| *id).collect();
    let mut inside = BTreeSet::new();
    while let Some(id) = next.pop() {
        if inside.insert(id) {
            next.extend(needs.get(id).context("cargo metadata lacks a package")?);
        }
    }
    Ok((packages, needs, inside))
}

fn bill_of(metadata: &Value, checksums: &BTreeMap<(String, String), String>) -> Result<Value> {
    let (packages, needs, inside) = inside(metadata)?;
    let reference = |id: &str| packages.get(id).map(|package| purl(package)).context("cargo metadata lacks a package");
    let mut components = Vec::new();
    let mut dependencies = Vec::new();
    for id in &inside {
        let package = packages.get(id).context("cargo metadata lacks a package")?;
        components.push(component(package, checksums));
        let on = needs[id].iter().map(|id| reference(id)).collect::<Result<BTreeSet<_>>>()?;
        dependencies.push(json!({"ref": reference(id)?, "dependsOn": on}));
    }
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": "weir", "version": env!("CARGO_PKG_VERSION")}},
        "components": components,
        "dependencies": dependencies,
    }))
}

/// Which packages each one has in it; what only builds or tests need is not.
fn needs(metadata: &Value) -> Result<Needs<'_>> {
    let is_inside = |dependency: &&Value| {
        dependency["dep_kinds"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind["kind"].is_null()))
    };
    let nodes = list(&metadata["resolve"]["nodes"])?.iter();
    nodes
        .map(|node| {
            Ok((
                word(node, "id"),
                list(&node["deps"])?.iter().filter(is_inside).map(|dependency| word(dependency, "pkg")).collect(),
            ))
        })
        .collect()
}

fn component(package: &Value, checksums: &BTreeMap<(String, String), String>) -> Value {
    let (name, version) = (word(package, "name"), word(package, "version"));
    let mut component =
        json!({"type": "library", "bom-ref": purl(package), "name": name, "version": version, "purl": purl(package)});
    if let Some(licence) = package["license"].as_str() {
        // As crates wrote it before SPDX had a word for it.
        let expression = licence.replace(" / ", "/").replace('/', " OR ");
        component["licenses"] = json!([{"expression": expression}]);
    }
    if let Some(checksum) = checksums.get(&(name.to_owned(), version.to_owned())) {
        component["hashes"] = json!([{"alg": "SHA-256", "content": checksum}]);
    }
    component
}

fn purl(package: &Value) -> String {
    format!("pkg:cargo/{}@{}", word(package, "name"), word(package, "version"))
}

fn list(value: &Value) -> Result<&Vec<Value>> {
    value.as_array().context("cargo metadata is not as expected")
}

fn word<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_this_repository() -> Value {
        let lock = payload::text("Cargo.lock").expect("there is one");
        bill_of(&metadata().expect("cargo says"), &checksums(&lock)).expect("a bill")
    }

    /// The crates that cargo draws below a crate.
    fn drawn(root: &str) -> BTreeSet<String> {
        let mut cargo = workspace::cargo();
        cargo.args(["tree", "--locked", "--package", root, "--edges", "normal", "--prefix", "none", "--format", "{p}"]);
        cargo.args(["--all-features", "--target", "x86_64-unknown-linux-gnu"]);
        let lines = child::output(&mut cargo).expect("cargo draws");
        let named = |line: &str| {
            let mut words = line.split_whitespace();
            Some(format!("pkg:cargo/{}@{}", words.next()?, words.next()?.trim_start_matches('v')))
        };
        lines.lines().filter_map(named).collect()
    }

    #[test]
    fn every_crate_that_cargo_draws_is_in_the_bill() {
        let bill = of_this_repository();
        let components = bill["components"].as_array().expect("a list");
        let billed: BTreeSet<String> = components.iter().map(|one| word(one, "purl").to_owned()).collect();
        let drawn: BTreeSet<String> = ROOTS.iter().flat_map(|root| drawn(root)).collect();
        assert!(drawn.len() > 100, "{drawn:?}");
        assert_eq!(drawn.difference(&billed).collect::<Vec<_>>(), Vec::<&String>::new());
        assert_eq!(bill["dependencies"].as_array().map(Vec::len), Some(components.len()));
    }

    #[test]
    fn each_crate_has_a_licence_and_each_foreign_one_a_checksum() {
        let bill = of_this_repository();
        for component in bill["components"].as_array().expect("a list") {
            assert!(
                component["licenses"][0]["expression"].as_str().is_some_and(|licence| !licence.contains('/')),
                "{component}"
            );
            let is_ours = word(component, "name").starts_with("lb-");
            let checksum = component["hashes"][0]["content"].as_str().unwrap_or_default();
            assert_eq!(checksum.len(), if is_ours { 0 } else { 64 }, "{component}");
        }
    }
}
