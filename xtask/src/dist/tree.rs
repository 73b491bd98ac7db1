//! A folder that becomes a package: files with the modes and dates that they shall have, whatever the umask is.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::child;

/// What a file is for.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// Read.
    Data,
    /// Run.
    Program,
    /// Read, and stored compressed by gzip.
    Compressed,
}

/// The folder; gone when dropped.
pub(super) struct Tree(PathBuf);

impl Tree {
    /// An empty one.
    pub(super) fn new(root: PathBuf) -> Result<Self> {
        if root.exists() {
            fs::remove_dir_all(&root).with_context(|| format!("cannot clear {}", root.display()))?;
        }
        fs::create_dir_all(&root).with_context(|| format!("cannot create {}", root.display()))?;
        mode(&root, 0o755)?;
        Ok(Self(root))
    }

    pub(super) fn root(&self) -> &Path {
        &self.0
    }

    /// Writes a file; `path` is below the root.
    pub(super) fn put(&self, path: &str, content: &[u8], kind: Kind) -> Result<()> {
        let file = self.place(path)?;
        fs::write(&file, content).with_context(|| format!("cannot write {}", file.display()))?;
        mode(&file, if let Kind::Program = kind { 0o755 } else { 0o644 })?;
        match kind {
            Kind::Compressed => child::run(Command::new("gzip").args(["-9", "--no-name"]).arg(&file)),
            Kind::Data | Kind::Program => Ok(()),
        }
    }

    /// Makes a link to what lies beside it.
    pub(super) fn link(&self, path: &str, to: &str) -> Result<()> {
        let link = self.place(path)?;
        symlink(to, &link).with_context(|| format!("cannot make the link {}", link.display()))
    }

    /// A path whose folders are there.
    pub(super) fn place(&self, path: &str) -> Result<PathBuf> {
        let file = self.0.join(path);
        let folders: Vec<&Path> = file.ancestors().skip(1).take_while(|folder| *folder != self.0).collect();
        for folder in folders.into_iter().rev() {
            if !folder.exists() {
                fs::create_dir(folder).with_context(|| format!("cannot create {}", folder.display()))?;
                mode(folder, 0o755)?;
            }
        }
        Ok(file)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        // Below target/, and cleared before it is used again.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("cannot set the mode of {}", path.display()))
}
