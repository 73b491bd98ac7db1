//! The programs of a backend: the one that takes tunnels off what comes in, the one that clamps what leaves, and the two
//! that mint. Their links are pinned, so that none ends with the process; a later agent's programs take their places from
//! one packet to the next.

use super::{
    LoadError, MintTables, PerCpuTable, PinError, Pins, PrefixTable,
    balancer::{load, per_cpu, prefix, program},
    decap::{self, PROGRAM as DECAP},
    mint::{MINT, PLAIN},
    pins, verified,
};
use crate::config::Prefix;
use aya::{
    Ebpf,
    maps::MapError,
    programs::{
        LinkOrder, SchedClassifier, TcAttachType, XdpMode,
        links::{FdLink, PinnedLink},
        tc::{SchedClassifierLink, TcAttachOptions},
        xdp::XdpLink,
    },
};
use lb_common::{
    clamp::{Clamp, Rule},
    decap::Decap,
};
use nix::errno::Errno;
use std::{fs, path::Path};

/// The name of the clamping program.
const CLAMP: &str = "weir_clamp";

/// The programs, loaded, and what they know.
pub struct AgentPrograms {
    ebpf: Ebpf,
    mint: Option<MintTables>,
    balancers: PrefixTable<u32>,
    vips: PrefixTable<Rule>,
    counters: AgentCounters,
}

/// How often each thing happened to a packet, since the programs were loaded.
pub struct AgentCounters {
    decaps: PerCpuTable<u64>,
    clamps: PerCpuTable<u64>,
}

impl AgentPrograms {
    /// Loads them; they take no tunnel, clamp nothing and mint nothing yet. Those that mint are there only if they have
    /// `keys` to hold.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn load(keys: Option<u32>) -> Result<Self, LoadError> {
        let mut ebpf = decap::open(keys)?;
        load(&mut ebpf, DECAP)?;
        let minting: &[&str] = if keys.is_some() { &[MINT, PLAIN] } else { &[] };
        for name in [CLAMP].iter().chain(minting).copied() {
            let program = classifier(&mut ebpf, name)?;
            verified(|| program.load()).map_err(|error| LoadError::program(name, error))?;
        }
        Ok(Self {
            mint: keys.map(|_| MintTables::of(&mut ebpf)).transpose()?,
            balancers: prefix(&mut ebpf, "weir_balancers")?,
            vips: prefix(&mut ebpf, "weir_clamp_vips")?,
            counters: AgentCounters {
                decaps: per_cpu(&mut ebpf, "weir_decaps")?,
                clamps: per_cpu(&mut ebpf, "weir_clamps")?,
            },
            ebpf,
        })
    }

    /// Takes tunnels from these addresses; GUE at this port, at none where it is 0.
    ///
    /// # Errors
    /// There are more than [`lb_common::limits::BALANCERS_MAX`].
    pub fn accept(&mut self, balancers: Prefix, gue_port: u16) -> Result<(), MapError> {
        self.balancers.write(balancers.len_v6(), balancers.address().into(), gue_port.into())
    }

    /// Has a rule hold for the SYNs from these addresses.
    ///
    /// # Errors
    /// There are more than [`lb_common::limits::VIPS_MAX`].
    pub fn clamp(&mut self, vips: Prefix, rule: Rule) -> Result<(), MapError> {
        self.vips.write(vips.len_v6(), vips.address().into(), rule)
    }

    /// What minting knows, if it is wanted.
    pub fn mint(&mut self) -> Option<&mut MintTables> {
        self.mint.as_mut()
    }

    /// Puts the programs on these interfaces, the clamp only if it is wanted, and takes them off all others that `pins` tell
    /// of.
    ///
    /// # Errors
    /// Another XDP program is there, the driver has no XDP of this mode, or the kernel refuses.
    pub fn attach<'i>(
        &mut self,
        interfaces: impl Iterator<Item = &'i str>,
        mode: XdpMode,
        clamps: bool,
        pins: &Pins,
    ) -> Result<(), LoadError> {
        let interfaces: Vec<_> = interfaces.collect();
        let mut classifiers = if clamps { vec![CLAMP_ON] } else { Vec::new() };
        if self.mint.is_some() {
            // Nothing may be minted where what is not minted would leave as MPTCP.
            classifiers.extend([PLAIN_ON, MINT_ON]);
        }
        let links = |interface: &&str| {
            let classifiers: Vec<_> = classifiers.iter().map(|on| pins.link_of(on.link, interface)).collect();
            [pins.link(interface, mode)].into_iter().chain(classifiers)
        };
        let current: Vec<_> = interfaces.iter().flat_map(links).collect();
        // An interface has one mode at a time.
        pins.retire_links(&current)?;
        for interface in interfaces {
            self.attach_decap(interface, mode, &pins.link(interface, mode))?;
            for on in &classifiers {
                self.attach_classifier(on, interface, &pins.link_of(on.link, interface))?;
            }
        }
        Ok(())
    }

    /// A program of TC's, for a test run.
    ///
    /// # Errors
    /// There is no such program.
    pub fn program(&mut self, name: &'static str) -> Result<&mut SchedClassifier, LoadError> {
        classifier(&mut self.ebpf, name)
    }

    /// The counters, and what minting knows, for who reads and writes them.
    pub fn into_parts(self) -> (AgentCounters, Option<MintTables>) {
        (self.counters, self.mint)
    }

    fn attach_decap(&mut self, interface: &str, mode: XdpMode, path: &Path) -> Result<(), LoadError> {
        let program = program(&mut self.ebpf, DECAP)?;
        if let Some(link) = pinned(path)? {
            let link = XdpLink::try_from(link).map_err(|error| PinError::Link { path: path.to_owned(), error })?;
            match program.attach_to_link(link) {
                // Its pin holds it.
                Ok(id) => return program.take_link(id).map(drop).map_err(|error| LoadError::program(DECAP, error)),
                Err(error) if LoadError::errno(&error) == Some(Errno::ENOLINK) => unpin(path)?,
                Err(error) => return Err(LoadError::program(DECAP, error)),
            }
        }
        let id = program.attach(interface, mode).map_err(|error| LoadError::attach(interface, error))?;
        let link = program.take_link(id).map_err(|error| LoadError::program(DECAP, error))?;
        let link = FdLink::try_from(link).map_err(|error| PinError::Link { path: path.to_owned(), error })?;
        link.pin(path).map(drop).map_err(|error| LoadError::pin(path, error))
    }

    fn attach_classifier(&mut self, on: &On, interface: &str, path: &Path) -> Result<(), LoadError> {
        let program = classifier(&mut self.ebpf, on.program)?;
        let failed = |error| LoadError::program(on.program, error);
        if let Some(link) = pinned(path)? {
            let link =
                SchedClassifierLink::try_from(link).map_err(|error| PinError::Link { path: path.to_owned(), error })?;
            match program.attach_to_link(link) {
                Ok(id) => return program.take_link(id).map(drop).map_err(failed),
                Err(error) if LoadError::errno(&error) == Some(Errno::ENOLINK) => unpin(path)?,
                Err(error) => return Err(failed(error)),
            }
        }
        let options = TcAttachOptions::TcxOrder(LinkOrder::default());
        let id = program
            .attach_with_options(interface, on.way, options)
            .map_err(|error| LoadError::attach_classifier(on.purpose, on.without, interface, &error))?;
        let link = program.take_link(id).map_err(failed)?;
        let link = FdLink::try_from(link).map_err(|error| PinError::Link { path: path.to_owned(), error })?;
        link.pin(path).map(drop).map_err(|error| LoadError::pin(path, error))
    }
}

impl AgentCounters {
    /// Frames by what became of their tunnel.
    ///
    /// # Errors
    /// The kernel refuses to tell.
    pub fn decaps(&self) -> Result<Vec<(&'static str, u64)>, MapError> {
        let count = |outcome: Decap| Ok((outcome.as_str(), self.decaps.read(outcome as u32)?.iter().sum()));
        Decap::ALL.into_iter().map(count).collect()
    }

    /// SYNs of VIPs by what became of their MSS.
    ///
    /// # Errors
    /// The kernel refuses to tell.
    pub fn clamps(&self) -> Result<Vec<(&'static str, u64)>, MapError> {
        let count = |outcome: Clamp| Ok((outcome.as_str(), self.clamps.read(outcome as u32)?.iter().sum()));
        Clamp::ALL.into_iter().map(count).collect()
    }
}

/// Where a program of TC's goes.
struct On {
    program: &'static str,
    /// What stands for a mode in the names of its links.
    link: &'static str,
    way: TcAttachType,
    /// What it does, and how to do without it.
    purpose: &'static str,
    without: &'static str,
}

const CLAMP_ON: On = On {
    program: CLAMP,
    link: "clamp",
    way: TcAttachType::Egress,
    purpose: "clamps the MSS",
    without: "set `mss_clamp = false`",
};
const PLAIN_ON: On = On {
    program: PLAIN,
    link: pins::PLAIN,
    way: TcAttachType::Egress,
    purpose: "keeps keys that are not minted at home",
    without: "remove [token]",
};
const MINT_ON: On =
    On { program: MINT, link: "mint", way: TcAttachType::Ingress, purpose: "mints", without: "remove [token]" };

fn classifier<'e>(ebpf: &'e mut Ebpf, name: &'static str) -> Result<&'e mut SchedClassifier, LoadError> {
    let program = ebpf.program_mut(name).ok_or(LoadError::Missing(name))?;
    program.try_into().map_err(|error| LoadError::program(name, error))
}

/// The link that is pinned at a path, if one is.
fn pinned(path: &Path) -> Result<Option<FdLink>, LoadError> {
    if !path.exists() {
        return Ok(None);
    }
    let link = PinnedLink::from_pin(path).map_err(|error| PinError::Link { path: path.to_owned(), error })?;
    Ok(Some(FdLink::from(link)))
}

fn unpin(path: &Path) -> Result<(), LoadError> {
    fs::remove_file(path).map_err(|error| LoadError::pin(path, error))
}
