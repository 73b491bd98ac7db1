//! The programs of a backend: the one that takes tunnels off what comes in, and the one that clamps what leaves. Their
//! links are pinned, so that neither ends with the process; a later agent's programs take their places from one packet to
//! the next.

use super::{
    LoadError, PerCpuTable, PinError, Pins, PrefixTable,
    balancer::{per_cpu, prefix, program},
    decap::{self, PROGRAM as DECAP},
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

/// Both programs, loaded, and what they know.
pub struct AgentPrograms {
    ebpf: Ebpf,
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
    /// Loads both; they take no tunnel and clamp nothing yet.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn load() -> Result<Self, LoadError> {
        let mut ebpf = decap::open()?;
        program(&mut ebpf, DECAP)?.load().map_err(|error| LoadError::program(DECAP, error))?;
        clamp(&mut ebpf)?.load().map_err(|error| LoadError::program(CLAMP, error))?;
        Ok(Self {
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
        let mut current: Vec<_> = interfaces.iter().map(|interface| pins.link(interface, mode)).collect();
        if clamps {
            current.extend(interfaces.iter().map(|interface| pins.link_of(CLAMP_LINK, interface)));
        }
        // An interface has one mode at a time.
        pins.retire_links(&current)?;
        for interface in interfaces {
            self.attach_decap(interface, mode, &pins.link(interface, mode))?;
            if clamps {
                self.attach_clamp(interface, &pins.link_of(CLAMP_LINK, interface))?;
            }
        }
        Ok(())
    }

    /// The counters, for who reads them.
    pub fn into_counters(self) -> AgentCounters {
        self.counters
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

    fn attach_clamp(&mut self, interface: &str, path: &Path) -> Result<(), LoadError> {
        let program = clamp(&mut self.ebpf)?;
        if let Some(link) = pinned(path)? {
            let link =
                SchedClassifierLink::try_from(link).map_err(|error| PinError::Link { path: path.to_owned(), error })?;
            match program.attach_to_link(link) {
                Ok(id) => return program.take_link(id).map(drop).map_err(|error| LoadError::program(CLAMP, error)),
                Err(error) if LoadError::errno(&error) == Some(Errno::ENOLINK) => unpin(path)?,
                Err(error) => return Err(LoadError::program(CLAMP, error)),
            }
        }
        let options = TcAttachOptions::TcxOrder(LinkOrder::default());
        let id = program
            .attach_with_options(interface, TcAttachType::Egress, options)
            .map_err(|error| LoadError::attach_clamp(interface, &error))?;
        let link = program.take_link(id).map_err(|error| LoadError::program(CLAMP, error))?;
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

/// What stands for a mode in the names of the clamp's links.
const CLAMP_LINK: &str = "clamp";

fn clamp(ebpf: &mut Ebpf) -> Result<&mut SchedClassifier, LoadError> {
    let program = ebpf.program_mut(CLAMP).ok_or(LoadError::Missing(CLAMP))?;
    program.try_into().map_err(|error| LoadError::program(CLAMP, error))
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
