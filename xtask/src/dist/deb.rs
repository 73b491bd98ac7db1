//! The Debian package, by dpkg-deb from a folder. Its control files are in `deploy/debian`.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result, anyhow, ensure};

use super::{
    Pack, machine, materials, payload,
    tree::{Kind, Tree},
};
use crate::child;

const CONTROL: &str = "deploy/debian";
const UNITS: [&str; 3] = ["weir.service", "weir-agent.service", "weir-announce.service"];
const CONFIGURATIONS: [&str; 2] = ["weir.toml", "agent.toml"];
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];
/// Where documents lie, by their own paths, so that the links between them lead somewhere.
const DOCUMENTS: &str = "usr/share/doc/weir";
/// What the repository and Debian call what is there to be copied from.
const EXAMPLES: (&str, &str) = ("deploy", "examples");

/// Whom a package names that nobody has put a name to; such an address leads nowhere (RFC 2606, 2).
pub(super) const NOBODY: &str = "The Weir authors <weir@packages.invalid>";

/// Somebody as the field `Maintainer` has it (Debian Policy, 5.6.2).
pub(super) fn maintainer(written: &str) -> Result<String> {
    let parts = written.strip_suffix('>').and_then(|rest| rest.split_once(" <"));
    let is_well = |(name, address): (&str, &str)| {
        !name.trim().is_empty() && address.contains('@') && !address.contains(['<', '>', ' ', ','])
    };
    ensure!(parts.is_some_and(is_well) && !written.contains('\n'), "it is written `Name <address@host>`");
    Ok(written.to_owned())
}

/// Builds the package, and returns the name of its file.
pub(super) fn build(weir: &Path, revision: Option<u32>, pack: &Pack) -> Result<String> {
    let changelog = payload::text(&format!("{CONTROL}/changelog"))?;
    let version = version(&changelog, revision)?;
    let name = format!("weir_{version}_{}.deb", machine()?);
    let tree = Tree::new(pack.out.join("weir.tree"))?;
    payload::program(weir, &tree, "usr/bin/weir")?;
    payload::pages(weir, &tree, "usr/")?;
    put_files(&tree, &changelog)?;
    put_control(&tree, &version, &pack.maintainer)?;
    let mut pack_it = Command::new("dpkg-deb");
    pack_it.env("SOURCE_DATE_EPOCH", pack.epoch.to_string()).arg("--root-owner-group");
    pack_it.args(if pack.quick { ["-Zgzip", "-z1"] } else { ["-Zxz", "-z6"] });
    pack_it.arg("--build").arg(tree.root()).arg(pack.out.join(&name)).stdout(std::io::stderr());
    child::run(&mut pack_it)?;
    Ok(name)
}

fn put_files(tree: &Tree, changelog: &str) -> Result<()> {
    for unit in UNITS {
        tree.put(&format!("lib/systemd/system/{unit}"), payload::unit(unit)?.as_bytes(), Kind::Data)?;
    }
    for file in CONFIGURATIONS {
        tree.put(&format!("etc/weir/{file}"), &payload::source(&format!("deploy/{file}"))?, Kind::Data)?;
    }
    tree.put("usr/lib/sysusers.d/weir.conf", &payload::source("deploy/weir.sysusers")?, Kind::Data)?;
    tree.put("usr/lib/tmpfiles.d/weir.conf", &payload::source("deploy/weir.tmpfiles")?, Kind::Data)?;
    let overrides = payload::source(&format!("{CONTROL}/lintian-overrides"))?;
    tree.put("usr/share/lintian/overrides/weir", &overrides, Kind::Data)?;
    put_documents(tree)?;
    tree.put(&format!("{DOCUMENTS}/changelog.Debian"), changelog.as_bytes(), Kind::Compressed)?;
    let bill = materials::bill()?;
    tree.put(&format!("{DOCUMENTS}/weir.cdx.json"), bill.as_bytes(), Kind::Compressed)?;
    tree.put(&format!("{DOCUMENTS}/licences.txt"), materials::licences()?.as_bytes(), Kind::Compressed)?;
    tree.put(&format!("{DOCUMENTS}/copyright"), copyright()?.as_bytes(), Kind::Data)
}

/// Pages are not compressed: no link leads into an archive.
fn put_documents(tree: &Tree) -> Result<()> {
    let (ours, debians) = EXAMPLES;
    for path in payload::documents()?.iter().filter(|path| !path.starts_with(CONTROL)) {
        match path.strip_prefix(ours) {
            Some(example) => tree.put(&format!("{DOCUMENTS}/{debians}{example}"), &example_of(path)?, Kind::Data)?,
            None => tree.put(&format!("{DOCUMENTS}/{path}"), &payload::source(path)?, Kind::Data)?,
        }
    }
    tree.link(&format!("{DOCUMENTS}/{ours}"), debians)
}

/// An example as it is with this package. A page says what is typed without it.
fn example_of(path: &str) -> Result<Vec<u8>> {
    let is_page = Path::new(path).extension().is_some_and(|kind| kind == "md");
    if is_page { payload::source(path) } else { Ok(payload::packaged(path)?.into_bytes()) }
}

fn put_control(tree: &Tree, version: &str, maintainer: &str) -> Result<()> {
    let depends = libraries(tree)?;
    let sums = sums(tree)?;
    let control = payload::text(&format!("{CONTROL}/control"))?
        .replace("@VERSION@", version)
        .replace("@MAINTAINER@", maintainer)
        .replace("@ARCHITECTURE@", machine()?)
        .replace("@INSTALLED_SIZE@", &kibibytes(tree)?)
        .replace("@DEPENDS@", &depends);
    tree.put("DEBIAN/control", control.as_bytes(), Kind::Data)?;
    tree.put("DEBIAN/md5sums", sums.as_bytes(), Kind::Data)?;
    tree.put("DEBIAN/conffiles", &payload::source(&format!("{CONTROL}/conffiles"))?, Kind::Data)?;
    for script in SCRIPTS {
        tree.put(&format!("DEBIAN/{script}"), &payload::source(&format!("{CONTROL}/{script}"))?, Kind::Program)?;
    }
    Ok(())
}

/// The version of the changelog's first entry, which is of this release of Weir.
fn version(changelog: &str, revision: Option<u32>) -> Result<String> {
    let (_, rest) = changelog.split_once('(').context("the changelog has no entry")?;
    let (version, _) = rest.split_once(')').context("the changelog's entry has no version")?;
    let (upstream, _) = version.rsplit_once('-').context("the changelog's version has no revision")?;
    let ours = env!("CARGO_PKG_VERSION");
    ensure!(upstream == ours, "{CONTROL}/changelog is of {upstream}, and this is {ours}: write an entry");
    Ok(revision.map_or_else(|| version.to_owned(), |revision| format!("{upstream}-{revision}")))
}

/// `deploy/debian/copyright`, with the text of the MIT licence in it.
fn copyright() -> Result<String> {
    let licence = payload::text("LICENSE-MIT")?;
    let (_, text) = licence.split_once("\n\n").ok_or_else(|| anyhow!("LICENSE-MIT has no text"))?;
    let lines: Vec<String> = text
        .trim_end()
        .lines()
        .map(|line| if line.is_empty() { " .".to_owned() } else { format!(" {line}") })
        .collect();
    Ok(payload::text(&format!("{CONTROL}/copyright"))?.replace("@MIT@", &lines.join("\n")))
}

/// The packages of the libraries that the program is linked with, as Debian reads them from it.
fn libraries(tree: &Tree) -> Result<String> {
    let scratch = Tree::new(tree.root().with_extension("shlibs"))?;
    scratch.put("debian/control", b"Source: weir\n\nPackage: weir\nArchitecture: any\n", Kind::Data)?;
    let mut ask = Command::new("dpkg-shlibdeps");
    ask.arg("-O").arg("-e").arg(tree.root().join("usr/bin/weir")).current_dir(scratch.root());
    let said = child::output(&mut ask)?;
    let depends = said.trim().strip_prefix("shlibs:Depends=");
    depends.map(str::to_owned).with_context(|| format!("dpkg-shlibdeps said `{}`", said.trim()))
}

/// The checksums of all files but the conffiles, as `dpkg --verify` reads them.
fn sums(tree: &Tree) -> Result<String> {
    let line = "find usr lib -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum";
    child::output(Command::new("sh").args(["-c", line]).current_dir(tree.root()))
}

fn kibibytes(tree: &Tree) -> Result<String> {
    let said = child::output(Command::new("du").args(["--summarize", "--apparent-size", "-k"]).arg(tree.root()))?;
    said.split_whitespace().next().map(str::to_owned).context("du says nothing")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::links;

    #[test]
    fn the_changelog_is_of_this_release() {
        let changelog = payload::text("deploy/debian/changelog").expect("there is one");
        assert!(version(&changelog, None).expect("of this release").starts_with(env!("CARGO_PKG_VERSION")));
        assert!(version(&changelog, Some(77)).expect("likewise").ends_with("-77"));
        let error = version("weir (9.9.9-1) bookworm; urgency=low\n", None).expect_err("of another");
        assert!(error.to_string().contains("9.9.9"), "{error}");
    }

    #[test]
    fn a_maintainer_has_a_name_and_an_address() {
        assert_eq!(maintainer(NOBODY).expect("the default"), NOBODY);
        for written in ["", "erika@example.org", "Erika", "Erika <example.org>", "Erika <a@b>, Max <c@d>", " <a@b>"] {
            maintainer(written).expect_err(written);
        }
    }

    #[test]
    fn the_copyright_has_the_licence_in_the_form_of_the_format() {
        let text = copyright().expect("made");
        assert!(text.contains("\nLicense: MIT\n Permission is hereby granted"), "{text}");
        assert!(!text.contains('@') && !text.contains("\n\n\n"), "{text}");
    }

    #[test]
    fn every_link_of_a_page_leads_to_what_is_packed() {
        let folder = tempfile::tempdir().expect("a folder");
        let tree = Tree::new(folder.path().join("tree")).expect("empty");
        put_documents(&tree).expect("put");
        let root = tree.root().join(DOCUMENTS);
        let pages = links::pages_below(&root);
        assert!(pages.contains(&"README.md".to_owned()), "{pages:?}");
        assert_eq!(links::broken(&root, &pages), Vec::<String>::new());
    }
}
