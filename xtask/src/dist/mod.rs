//! `cargo xtask dist`: a Debian package, a tarball with a static `weir`, their bill of materials, and checksums.
//!
//! What is packed is the same for the same commit: every time in it is that of the commit, every owner root. It must never
//! take a file that is not of this repository or made by the `weir` that is packed.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    child,
    progress::{say, say_timed},
    setup::{self, Scope},
    workspace::{self, Profile},
};

mod deb;
mod materials;
mod musl;
mod payload;
mod tarball;
mod tree;

/// What packing calls beside the compilers, and the Debian packages of it.
const TOOLS: [(&str, &str); 4] =
    [("dpkg-deb", "dpkg"), ("dpkg-shlibdeps", "dpkg-dev"), ("strip", "binutils"), ("lintian", "lintian")];

/// What `cargo xtask dist` is told.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where to
    #[arg(long, value_name = "DIRECTORY")]
    out: Option<PathBuf>,
    /// Only the Debian package, of a `weir` that is built already
    #[arg(long, value_name = "WEIR")]
    binary: Option<PathBuf>,
    /// Only the tarball, of a static `weir` that is built already
    #[arg(long, value_name = "WEIR")]
    static_binary: Option<PathBuf>,
    /// The Debian revision, instead of the changelog's; with --binary
    #[arg(long, requires = "binary")]
    revision: Option<u32>,
    /// Who answers for the Debian package, as `Name <address>`: whoever gives it to others
    #[arg(long, value_name = "NAME <ADDRESS>", default_value = deb::NOBODY, value_parser = deb::maintainer)]
    maintainer: String,
    /// Compress little, as a test wants it
    #[arg(long)]
    quick: bool,
}

/// Packs.
///
/// # Errors
///
/// Something cannot be built, packed or written, or lintian finds fault.
pub(crate) fn dist(args: &Args) -> Result<()> {
    let out = args.out.clone().unwrap_or_else(|| workspace::target().join("dist"));
    fs::create_dir_all(&out).with_context(|| format!("cannot create {}", out.display()))?;
    let epoch = epoch()?;
    let pack = Pack { out, epoch, maintainer: args.maintainer.clone(), quick: args.quick };
    if args.binary.is_none() && args.static_binary.is_none() {
        return everything(&pack);
    }
    if let Some(weir) = &args.binary {
        pack.told(deb::build(weir, args.revision, &pack)?);
    }
    if let Some(weir) = &args.static_binary {
        pack.told(tarball::build(weir, &pack)?);
    }
    Ok(())
}

/// What each kind of package is made with.
struct Pack {
    out: PathBuf,
    /// Seconds since 1970 that every file is dated.
    epoch: u64,
    maintainer: String,
    quick: bool,
}

impl Pack {
    fn told(&self, made: impl AsRef<Path>) {
        say("Packed", self.out.join(made).display());
    }
}

fn everything(pack: &Pack) -> Result<()> {
    setup::set_up(Scope::Build)?;
    setup::have(&TOOLS)?;
    setup::have(&musl::TOOLS)?;
    workspace::build(Profile::Release)?;
    let weir = workspace::target().join("release/weir");
    let made = [deb::build(&weir, None, pack)?, tarball::build(&musl::build()?, pack)?, materials::write(pack)?];
    judge(&pack.out.join(&made[0]))?;
    let mut sums = Command::new("sha256sum");
    sums.args(&made).current_dir(&pack.out);
    let sums = child::output(&mut sums)?;
    fs::write(pack.out.join("SHA256SUMS"), sums).context("cannot write SHA256SUMS")?;
    made.iter().map(String::as_str).chain(["SHA256SUMS"]).for_each(|name| pack.told(name));
    Ok(())
}

/// Debian's own judge of packages.
fn judge(deb: &Path) -> Result<()> {
    let started = Instant::now();
    child::run(Command::new("lintian").args(["--display-info", "--fail-on", "error,warning,info"]).arg(deb))?;
    say_timed("Judged", "the package, by lintian", started);
    Ok(())
}

/// The time of the commit, or what `SOURCE_DATE_EPOCH` says.
fn epoch() -> Result<u64> {
    let said = match env::var("SOURCE_DATE_EPOCH") {
        Ok(said) => said,
        Err(_) => child::output(Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(workspace::root()))
            .context("no commit says how old this is: set SOURCE_DATE_EPOCH to seconds since 1970")?,
    };
    said.trim().parse().with_context(|| format!("`{}` is no number of seconds since 1970", said.trim()))
}

/// What Debian calls this kind of machine.
fn machine() -> Result<&'static str> {
    match env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        other => bail!("packages are made on x86_64 only so far, and this is {other}"),
    }
}
