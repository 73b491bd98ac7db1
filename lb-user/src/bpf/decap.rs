//! The decapsulation program of a backend.

use super::{
    LoadError, PerCpuTable, PrefixTable, TABLES,
    balancer::{load, per_cpu, prefix},
    mint,
};
use crate::{config::Prefix, object::OBJECT};
use aya::{
    Ebpf, EbpfLoader,
    maps::MapError,
    programs::{Xdp, XdpMode},
};
use lb_common::{decap::Decap, limits::MINTED_OUT_MAX};

/// Its name, as the kernel tells it.
pub const PROGRAM: &str = "weir_decap";

/// The decapsulation program, loaded into the kernel; its links end with it.
pub struct Decapsulator {
    ebpf: Ebpf,
    balancers: PrefixTable<u32>,
    counters: PerCpuTable<u64>,
}

impl Decapsulator {
    /// Loads the program; it takes no tunnel yet.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn load() -> Result<Self, LoadError> {
        let mut ebpf = open(None)?;
        load(&mut ebpf, PROGRAM)?;
        Ok(Self { balancers: prefix(&mut ebpf, "weir_balancers")?, counters: per_cpu(&mut ebpf, "weir_decaps")?, ebpf })
    }

    /// Takes tunnels from a balancer, or from all addresses of a prefix that its tunnels are spread over; GUE at this port.
    ///
    /// # Errors
    /// There are more than [`lb_common::limits::BALANCERS_MAX`].
    pub fn accept(&mut self, balancers: Prefix, gue_port: u16) -> Result<(), MapError> {
        self.balancers.write(balancers.len_v6(), balancers.address().into(), gue_port.into())
    }

    /// Attaches the program to an interface for as long as this lives.
    ///
    /// # Errors
    /// Another program is there, the driver has no XDP of this mode, or the kernel refuses.
    pub fn attach(&mut self, interface: &str, mode: XdpMode) -> Result<(), LoadError> {
        self.program()?.attach(interface, mode).map_err(|error| LoadError::attach(interface, error))?;
        Ok(())
    }

    /// The program itself, for a test run.
    ///
    /// # Errors
    /// None once it is loaded.
    pub fn program(&mut self) -> Result<&mut Xdp, LoadError> {
        program(&mut self.ebpf)
    }

    /// How many frames had each outcome so far.
    ///
    /// # Errors
    /// The kernel refuses to tell.
    pub fn counts(&self) -> Result<Vec<(Decap, u64)>, MapError> {
        let count = |outcome: Decap| Ok((outcome, self.counters.read(outcome as u32)?.iter().sum()));
        Decap::ALL.into_iter().map(count).collect()
    }
}

/// Makes the object's maps. Those of the balancer are as small as they can be: nothing on a backend uses them. Those of
/// minting hold so many keys, if there is any.
pub(super) fn open(keys: Option<u32>) -> Result<Ebpf, LoadError> {
    if OBJECT.is_empty() {
        return Err(LoadError::NoObject);
    }
    let mut loader = EbpfLoader::new();
    for table in TABLES {
        loader.map_max_entries(table, 1);
    }
    if let Some(keys) = keys {
        loader.map_max_entries(mint::KEYS, keys).map_max_entries(mint::OUT, MINTED_OUT_MAX);
    }
    loader.load(OBJECT).map_err(LoadError::object)
}

fn program(ebpf: &mut Ebpf) -> Result<&mut Xdp, LoadError> {
    let program = ebpf.program_mut(PROGRAM).ok_or(LoadError::Missing(PROGRAM))?;
    program.try_into().map_err(|error| LoadError::program(PROGRAM, error))
}
