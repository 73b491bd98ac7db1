//! The tarball: a static `weir`, its pages, the units and the configurations, for any Linux of the machine's kind.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};

use super::{
    Pack, materials, payload,
    tree::{Kind, Tree},
};
use crate::child;

/// Builds it, and returns the name of its file.
pub(super) fn build(weir: &Path, pack: &Pack) -> Result<String> {
    static_program(weir)?;
    let name = format!("weir-{}-{}-linux-musl", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
    let tree = Tree::new(pack.out.join(&name))?;
    payload::program(weir, &tree, "bin/weir")?;
    payload::pages(weir, &tree, "")?;
    put_documents(&tree)?;
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

fn put_documents(tree: &Tree) -> Result<()> {
    for file in payload::documents()? {
        tree.put(&file, &payload::source(&file)?, Kind::Data)?;
    }
    Ok(())
}

/// A program that asks for a loader runs only where that one is.
fn static_program(weir: &Path) -> Result<()> {
    let mut ask = Command::new("readelf");
    let said = child::output(ask.args(["--program-headers", "--wide"]).arg(weir))
        .with_context(|| format!("{} is no program", weir.display()))?;
    ensure!(!said.contains("INTERP"), "{} is not static: it asks for a loader", weir.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::links;

    #[test]
    fn every_link_of_a_page_leads_to_what_is_packed() {
        let folder = tempfile::tempdir().expect("a folder");
        let tree = Tree::new(folder.path().join("tree")).expect("empty");
        put_documents(&tree).expect("put");
        let pages = links::pages_below(tree.root());
        assert!(pages.contains(&"README.md".to_owned()), "{pages:?}");
        assert_eq!(links::broken(tree.root(), &pages), Vec::<String>::new());
    }
}
