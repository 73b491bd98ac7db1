//! The files in bpffs by which tables, programs and links outlive the controller: `DIRECTORY/vABI/...`.
//!
//! One controller at a time has them. Nothing here removes a file that is not Weir's, and no table is used whose shape is
//! not the expected one.

use super::{error::with_cause, shape};
use aya::{
    maps::MapError,
    programs::{XdpMode, links::LinkError},
};
use lb_common::tables::ABI;
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use std::{
    fmt,
    fs::{self, DirBuilder, File, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

/// Maps of the object that a controller leaves to the next. The others hold nothing from one packet to the next, or go
/// with the programs.
pub const TABLES: [&str; 28] = [
    "weir_globals",
    "weir_addresses",
    "weir_prefixes",
    "weir_services",
    "weir_owners",
    "weir_previous",
    "weir_backends",
    "weir_joined",
    "weir_moved",
    "weir_pinned",
    "weir_tokens",
    "weir_pending",
    "weir_embryonic",
    "weir_closing",
    "weir_datagrams",
    "weir_fragments",
    "weir_quic",
    "weir_codecs",
    "weir_bearers",
    "weir_networks",
    "weir_joins",
    "weir_errors",
    "weir_counters",
    "weir_sent",
    "weir_filter",
    "weir_marks",
    "weir_events",
    "weir_lost",
];
/// What only controllers read.
pub(super) const LEDGER: &str = "weir_ledger";
/// What the tables of programs are called, each with a time of its own: a program of each set may be running at once.
const PROGRAMS: &str = "weir_programs-";
const LINK: &str = "link-";
/// The word for links of the program that keeps keys at home.
pub(super) const PLAIN: &str = "plain";
const MOMENT: &str = "weir_syncookies-";
/// What all else that is Weir's begins with.
const OWN: &str = "weir_";

/// Why pins cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// The directory is on a disk, or nowhere.
    #[error(
        "{} is not on a BPF file system, where Weir's tables outlive it: `mount -t bpf bpf /sys/fs/bpf`, or name a \
         directory below one as `pins` in [balancer]", .0.display()
    )]
    NoBpffs(PathBuf),
    /// The directory above it is missing.
    #[error(
        "{} cannot be made, for there is no {above}: `mkdir --parents {above}`, or name a directory that is right below a \
         BPF file system as `pins` in [balancer]", directory.display(), above = above.display()
    )]
    NoParent {
        /// The directory.
        directory: PathBuf,
        /// The one that it should be in.
        above: PathBuf,
    },
    /// Somebody named a directory that no controller has had.
    #[error("{} is no directory of pins: {why}; name that of `pins` in the configuration", path.display())]
    NotPins {
        /// The directory.
        path: PathBuf,
        /// How that is known.
        why: &'static str,
    },
    /// The directory is another user's, or could not be made.
    #[error(
        "this user may not use {dir}: as root, `chmod a+x {parent}; install --directory --owner=USER --mode=0700 {dir}`, as \
         `weir.service` does, or name a directory of his own below a BPF file system as `pins` in [balancer]",
        dir = .0.display(), parent = .0.parent().unwrap_or(.0).display()
    )]
    Denied(PathBuf),
    /// Another controller runs.
    #[error(
        "another weir has the tables under {}: stop it first, or give this one a directory of its own as `pins` in \
         [balancer]", .0.display()
    )]
    InUse(PathBuf),
    /// Tables of another version.
    #[error(
        "the tables under {} are of another version of Weir (layout {found}, this one has {ABI}): run the version that \
         made them, or give them up with `weir detach`, tokens and entries included, and start again", .root.display()
    )]
    OtherAbi {
        /// The directory.
        root: PathBuf,
        /// Their version.
        found: u32,
    },
    /// A table of another size.
    #[error(
        "the pinned table {table} has {what}: put [limits] back as they were, or give the tables up with `weir detach`, \
         tokens and entries included, and start again"
    )]
    Shape {
        /// The table.
        table: &'static str,
        /// How it differs.
        what: String,
    },
    /// A program steers, and nobody knows what its tables mean.
    #[error(
        "the tables under {} are in use, but what they mean is lost: give them up with `weir detach`, tokens and entries \
         included, and start again", .0.display()
    )]
    NoLedger(PathBuf),
    /// The file system refuses.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A pinned table cannot be opened.
    #[error(
        "the pinned table {table} cannot be used: {}; mend that, or give all of them up with `weir detach`, tokens and \
         entries included",
        with_cause(error)
    )]
    Map {
        /// The table.
        table: &'static str,
        /// What the kernel said.
        error: MapError,
    },
    /// A pinned link cannot be opened.
    #[error(
        "the pinned link {} cannot be used: {}; mend that, or give it up with `weir detach`, or an agent's with `weir agent \
         --detach`", path.display(), with_cause(error)
    )]
    Link {
        /// Its file.
        path: PathBuf,
        /// What the kernel said.
        error: LinkError,
    },
}

impl PinError {
    /// A directory that has nothing to be in.
    fn nowhere(directory: &Path) -> Self {
        let (directory, above) = (directory.to_owned(), directory.parent().unwrap_or(directory).to_owned());
        let on_bpffs = above.ancestors().find(|path| path.exists()).is_some_and(is_on_bpffs);
        if on_bpffs { Self::NoParent { directory, above } } else { Self::NoBpffs(directory) }
    }

    fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }
}

/// The pins, while this controller has them.
#[derive(Debug)]
pub struct Pins {
    root: PathBuf,
    directory: PathBuf,
    /// The directory itself, locked: the kernel lets go of the lock with the process, however that ends.
    lock: File,
}

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Interfaces that the program was on.
    pub interfaces: Vec<String>,
    /// Pinned tables, programs and links.
    pub pins: usize,
    /// Files that are not Weir's, and stay.
    pub foreign: Vec<PathBuf>,
    /// Whether keys that the kernel chose were kept at home.
    pub minted: bool,
}

/// Pins that somebody else has removed while a controller had them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostPins {
    /// The directory that they were in.
    pub directory: PathBuf,
    /// Their files.
    pub gone: Vec<PathBuf>,
    /// Whether what steers outlives the controller all the same.
    pub steers_on: bool,
}

impl fmt::Display for LostPins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { directory, gone, steers_on } = self;
        let (directory, many) = (directory.display(), gone.len());
        let first = gone.first().and_then(|path| path.file_name()).unwrap_or_default().display();
        let pins = if many == 1 { "pin" } else { "pins" };
        let so =
            if *steers_on { "no other weir can take over its tables" } else { "nothing steers after this process" };
        write!(f, "somebody has removed {many} {pins} under {directory}, {first} for one: {so}")
    }
}

impl Pins {
    /// Takes the directory `root`, making it if need be.
    ///
    /// # Errors
    /// It is not in bpffs, another controller has it, or what is there is of another version.
    pub fn open(root: &Path) -> Result<Self, PinError> {
        make(root)?;
        let lock = lock(root)?;
        let own = format!("v{ABI}");
        if let Some(found) = names(root)?.iter().filter_map(|name| version(name)).find(|abi| *abi != ABI) {
            return Err(PinError::OtherAbi { root: root.to_owned(), found });
        }
        let directory = root.join(own);
        make(&directory)?;
        Ok(Self { root: root.to_owned(), directory, lock })
    }

    /// Where a table is, or is to be.
    pub(super) fn table(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Whether there are tables of an earlier controller.
    pub fn have_tables(&self) -> bool {
        self.table(LEDGER).exists()
    }

    /// Checks that all tables are there, each of the shape that `object` and `sizes` ask for.
    ///
    /// # Errors
    /// One is not.
    pub(super) fn check_shapes(&self, expected: &[shape::Shape]) -> Result<(), PinError> {
        expected.iter().try_for_each(|shape| shape.check(&self.table(shape.table)))
    }

    /// A file for a new table of programs; see [`Self::retire_programs`].
    pub(super) fn new_programs(&self) -> PathBuf {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.directory.join(format!("{PROGRAMS}{}", now.as_nanos()))
    }

    /// Removes every table of programs but this one: no link leads to theirs any more.
    pub(super) fn retire_programs(&self, current: &Path) -> Result<(), PinError> {
        for name in names(&self.directory)?.iter().filter(|name| name.starts_with(PROGRAMS)) {
            let path = self.directory.join(name);
            if path != current {
                remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// Where the link to an interface is. A bpffs name has no dot, and an interface's no colon.
    pub(super) fn link(&self, interface: &str, mode: XdpMode) -> PathBuf {
        self.link_of(mode_word(mode), interface)
    }

    /// The same of another kind of link, by the word for it.
    pub(super) fn link_of(&self, kind: &str, interface: &str) -> PathBuf {
        self.directory.join(format!("{LINK}{kind}-{}", interface.replace('.', ":")))
    }

    /// Whether a program keeps keys at home that are not minted.
    pub fn keep_keys(&self) -> bool {
        let begins = format!("{LINK}{PLAIN}-");
        names(&self.directory).is_ok_and(|names| names.iter().any(|name| name.starts_with(&begins)))
    }

    /// Where it is noted that `net.ipv4.tcp_syncookies` is to go back to a value.
    pub(crate) fn moment(&self, former: u32) -> PathBuf {
        self.directory.join(format!("{MOMENT}{former}"))
    }

    /// The value that it is to go back to, if a process was killed meanwhile; and where that is noted.
    pub(crate) fn noted_moment(&self) -> Option<(u32, PathBuf)> {
        moment_in(&self.directory)
    }

    /// Removes the links to other interfaces than these, or in another mode: the program is no longer on them.
    pub(super) fn retire_links(&self, current: &[PathBuf]) -> Result<(), PinError> {
        for name in names(&self.directory)?.iter().filter(|name| name.starts_with(LINK)) {
            let path = self.directory.join(name);
            if !current.contains(&path) {
                remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// Removes what an earlier controller has left before it had brought anything up.
    ///
    /// # Errors
    /// A program is on an interface all the same.
    pub(super) fn clear_unused(&self) -> Result<(), PinError> {
        if names(&self.directory)?.iter().any(|name| name.starts_with(LINK)) {
            return Err(PinError::NoLedger(self.directory.clone()));
        }
        remove_own(&self.directory, &mut Removed::default())
    }

    /// Those of the tables and of these further files that somebody else has removed. Behind another directory of the same
    /// name there is nothing of this one's.
    pub(super) fn lost<'p>(&self, further: impl Iterator<Item = &'p Path>) -> Vec<PathBuf> {
        let is_here = self.is_here();
        let tables = TABLES.into_iter().chain([LEDGER]).map(|table| self.table(table));
        tables.chain(further.map(Path::to_owned)).filter(|path| !is_here || !path.exists()).collect()
    }

    fn is_here(&self) -> bool {
        let (Ok(own), Ok(found)) = (self.lock.metadata(), fs::metadata(&self.root)) else { return false };
        (own.dev(), own.ino()) == (found.dev(), found.ino())
    }

    /// The directory that the configuration names.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Takes the program off every interface and removes all that is Weir's, of every version; what is not, stays. Of a
    /// directory that is gone or is another's by now, nothing is Weir's.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn remove(&self) -> Result<Removed, PinError> {
        if self.is_here() { remove_all(&self.root) } else { Ok(Removed::default()) }
    }
}

/// What [`Pins::remove`] does, where there need not be anything.
///
/// # Errors
/// Another controller has the pins, it is no directory of pins, or the file system refuses.
pub fn detach(root: &Path) -> Result<Removed, PinError> {
    if !root.exists() {
        return Ok(Removed::default());
    }
    if !is_on_bpffs(root) {
        return Err(PinError::NotPins { path: root.to_owned(), why: "it is not on a BPF file system" });
    }
    let _lock = lock(root)?;
    let names = names(root)?;
    if !names.is_empty() && !names.iter().any(|name| version(name).is_some()) {
        return Err(PinError::NotPins { path: root.to_owned(), why: "what is in it is not Weir's" });
    }
    remove_all(root)
}

fn remove_all(root: &Path) -> Result<Removed, PinError> {
    let mut removed = Removed::default();
    for name in names(root)? {
        let directory = root.join(&name);
        if version(&name).is_none() || !directory.is_dir() {
            removed.foreign.push(directory);
            continue;
        }
        remove_own(&directory, &mut removed)?;
        remove_if_empty(&directory)?;
    }
    remove_if_empty(root)?;
    Ok(removed)
}

/// What an agent whose pins are under `root` has left to be restored: the value of `net.ipv4.tcp_syncookies`, and where that
/// is noted.
pub fn noted_moment(root: &Path) -> Option<(u32, PathBuf)> {
    moment_in(&root.join(format!("v{ABI}")))
}

fn moment_in(directory: &Path) -> Option<(u32, PathBuf)> {
    let names = names(directory).ok()?;
    names.iter().find_map(|name| Some((name.strip_prefix(MOMENT)?.parse().ok()?, directory.join(name))))
}

/// The ABI that a directory is of.
fn version(name: &str) -> Option<u32> {
    name.strip_prefix('v')?.parse().ok()
}

/// Removes Weir's files of a directory, links first: without its tables no program may go on.
fn remove_own(directory: &Path, removed: &mut Removed) -> Result<(), PinError> {
    let (links, others): (Vec<_>, Vec<_>) = names(directory)?.into_iter().partition(|name| name.starts_with(LINK));
    if let Some((former, _)) = moment_in(directory) {
        let path = Path::new("/proc/sys/net/ipv4/tcp_syncookies");
        fs::write(path, former.to_string()).map_err(PinError::file("write", path))?;
    }
    for name in links.iter().chain(&others) {
        let path = directory.join(name);
        if let Some(link) = name.strip_prefix(LINK) {
            let (kind, interface) = link.split_once('-').unwrap_or(("", link));
            removed.minted |= kind == PLAIN;
            let interface = interface.replace(':', ".");
            if !removed.interfaces.contains(&interface) {
                removed.interfaces.push(interface);
            }
        } else if !name.starts_with(OWN) {
            removed.foreign.push(path);
            continue;
        }
        remove_file(&path)?;
        removed.pins += 1;
    }
    Ok(())
}

/// The word for a mode in the names of links.
const fn mode_word(mode: XdpMode) -> &'static str {
    match mode {
        XdpMode::Skb => "generic",
        _ => "native",
    }
}

fn make(directory: &Path) -> Result<(), PinError> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(PinError::nowhere(directory)),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(PinError::Denied(directory.to_owned()));
        }
        Err(error) => return Err(PinError::file("make", directory)(error)),
    }
    if is_on_bpffs(directory) {
        return Ok(());
    }
    // What has just been made on a disk is empty.
    let _ = fs::remove_dir(directory);
    Err(PinError::NoBpffs(directory.to_owned()))
}

fn is_on_bpffs(directory: &Path) -> bool {
    statfs(directory).is_ok_and(|status| status.filesystem_type() == BPF_FS_MAGIC)
}

fn lock(root: &Path) -> Result<File, PinError> {
    let file = File::open(root).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => PinError::Denied(root.to_owned()),
        _ => PinError::file("open", root)(error),
    })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(PinError::InUse(root.to_owned())),
        Err(TryLockError::Error(error)) => Err(PinError::file("lock", root)(error)),
    }
}

fn names(directory: &Path) -> Result<Vec<String>, PinError> {
    let listing = fs::read_dir(directory).map_err(PinError::file("list", directory))?;
    let mut names: Vec<_> = listing.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}

fn remove_file(path: &Path) -> Result<(), PinError> {
    fs::remove_file(path).map_err(PinError::file("remove", path))
}

fn remove_if_empty(directory: &Path) -> Result<(), PinError> {
    match fs::remove_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        // It was made for this user by another, who may have left it nothing else to write to.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::ResourceBusy
            ) =>
        {
            Ok(())
        }
        result => result.map_err(PinError::file("remove", directory)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::OBJECT;

    /// Maps that say nothing from one packet to the next, or go with the programs, or are a backend's.
    const OTHERS: [&str; 17] = [
        "weir_programs",
        "weir_due",
        "weir_arrival",
        "weir_schedule",
        "weir_balancers",
        "weir_decaps",
        "weir_probes",
        "weir_probe_mark",
        "weir_probe_heard",
        "weir_clamp_vips",
        "weir_clamps",
        "weir_mint_keys",
        "weir_mint_out",
        "weir_mint_listeners",
        "weir_mint_vips",
        "weir_mints",
        "weir_mint_scratch",
    ];

    #[test]
    fn every_map_of_the_object_is_pinned_or_known_to_need_no_pin() {
        let object = aya_obj::Object::parse(OBJECT).expect("an object");
        let mut maps: Vec<_> = object.maps.keys().filter(|name| name.starts_with(OWN)).collect();
        let mut known: Vec<_> = TABLES.into_iter().chain(OTHERS).collect();
        maps.sort();
        known.sort_unstable();
        assert_eq!(maps, known);
    }

    #[test]
    fn the_kernels_answer_is_told_before_anything_is_given_up() {
        let (call, io_error) = ("BPF_OBJ_GET", io::Error::from_raw_os_error(nix::libc::EACCES));
        let error = MapError::SyscallError(aya::sys::SyscallError { call, io_error });
        let said = PinError::Map { table: "weir_tokens", error }.to_string();
        assert!(said.contains("`BPF_OBJ_GET` failed: Permission denied (os error 13); mend that"), "{said}");
    }

    #[test]
    fn an_interface_is_found_again_in_the_name_of_its_link() {
        let directory = PathBuf::from("/sys/fs/bpf/weir/v0");
        let lock = File::open("/").expect("a directory");
        let pins = Pins { root: directory.clone(), directory: directory.clone(), lock };
        let link = pins.link("bond0.100", XdpMode::Skb);
        assert_eq!(link, directory.join("link-generic-bond0:100"));
    }
}
