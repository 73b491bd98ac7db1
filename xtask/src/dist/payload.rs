//! What every package has, and where: the program, what it writes of itself, the units, the configurations.
//!
//! Units name the program by the path of an installation by hand; in a package it is another.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};

use super::tree::{Kind, Tree};
use crate::{child, workspace};

/// Where the units of this repository expect the program.
const BY_HAND: &str = "/usr/local/bin/weir";
const PACKAGED: &str = "/usr/bin/weir";

/// Each shell, and where its completions lie.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "share/bash-completion/completions/weir"),
    ("zsh", "share/zsh/vendor-completions/_weir"),
    ("fish", "share/fish/vendor_completions.d/weir.fish"),
];

/// What people read, and what that leads to.
const DOCUMENTS: [&str; 9] = [
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "SECURITY.md",
    "benches/results/README.md",
    "deploy",
    "docs",
];

/// The paths of all documents, and of what they give as examples; not of what only lies there. Each link of a page leads to
/// another of them, so packages keep the paths.
pub(super) fn documents() -> Result<Vec<String>> {
    let mut git = Command::new("git");
    let listed = child::output(git.args(["ls-files", "--"]).args(DOCUMENTS).current_dir(workspace::root()))
        .context("only in a clone is it known which files are the repository's")?;
    Ok(listed.lines().map(str::to_owned).collect())
}

/// A file of this repository.
pub(super) fn source(path: &str) -> Result<Vec<u8>> {
    let path = workspace::root().join(path);
    fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// A text of this repository.
pub(super) fn text(path: &str) -> Result<String> {
    String::from_utf8(source(path)?).with_context(|| format!("{path} is not UTF-8"))
}

/// The program without what only debuggers read.
pub(super) fn program(weir: &Path, tree: &Tree, path: &str) -> Result<()> {
    let to = tree.place(path)?;
    let mut strip = Command::new("strip");
    strip.args(["--remove-section=.comment", "--remove-section=.note", "-o"]).arg(&to).arg(weir);
    child::run(&mut strip)
}

/// Man pages and the completions of each shell, below `usr/` or wherever it is.
pub(super) fn pages(weir: &Path, tree: &Tree, prefix: &str) -> Result<()> {
    let made = Tree::new(tree.root().with_extension("man"))?;
    child::run(Command::new(weir).args(["generate", "man"]).arg(made.root()))?;
    let pages = fs::read_dir(made.root()).context("no man pages")?;
    for page in pages {
        let page = page.context("no man pages")?;
        let content = fs::read(page.path()).with_context(|| format!("cannot read {}", page.path().display()))?;
        tree.put(
            &format!("{prefix}share/man/man1/{}", page.file_name().to_string_lossy()),
            &content,
            Kind::Compressed,
        )?;
    }
    for (shell, path) in COMPLETIONS {
        let script = child::output(Command::new(weir).args(["completions", shell]))?;
        tree.put(&format!("{prefix}{path}"), script.as_bytes(), Kind::Data)?;
    }
    Ok(())
}

/// A unit that starts the packaged program.
pub(super) fn unit(name: &str) -> Result<String> {
    let unit = text(&format!("deploy/{name}"))?;
    ensure!(unit.contains(BY_HAND), "deploy/{name} does not start {BY_HAND}");
    packaged(&format!("deploy/{name}"))
}

/// A text of this repository that may name the program, with the packaged one.
pub(super) fn packaged(path: &str) -> Result<String> {
    Ok(text(path)?.replace(BY_HAND, PACKAGED))
}
