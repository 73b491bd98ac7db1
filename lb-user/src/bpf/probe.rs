//! The program that puts the packets of health checks on their way, on the interfaces that they would leave by.
//!
//! It lives in the same object as the balancer, and so shares its key; it ends with the process. An interface is known by its
//! number: one that is made anew has another, and no program; one that is renamed keeps both.

use super::{Balancer, LoadError, verified};
use aya::programs::{ProgramError, SchedClassifier, TcAttachType, tc, tc::SchedClassifierLinkId};
use nix::net::if_::{if_nameindex, if_nametoindex};
use std::{collections::BTreeMap, io};

const PROGRAM: &str = "weir_probe";

/// The interfaces that it is on, by their numbers.
pub(super) type Probed = BTreeMap<u32, SchedClassifierLinkId>;

impl Balancer {
    /// Has the program on an interface, behind those that are there.
    ///
    /// # Errors
    /// The kernel refuses the program, or has no such interface.
    pub fn attach_probe(&mut self, interface: &str) -> Result<(), LoadError> {
        loop {
            let index = if_nametoindex(interface).map_err(|errno| refused(interface, &io::Error::from(errno)))?;
            if self.probed.contains_key(&index) {
                return Ok(());
            }
            self.let_go_of_gone_interfaces()?;
            let attached = self.attach_probe_anew(interface);
            // It may have been made anew meanwhile.
            let is_same = if_nametoindex(interface) == Ok(index);
            match attached {
                Ok(link) if is_same => {
                    self.probed.insert(index, link);
                    return Ok(());
                }
                Err(error) if is_same => return Err(error),
                Ok(link) => drop(self.probe()?.detach(link)),
                Err(_) => {}
            }
        }
    }

    /// Of an interface that is gone a link remains, which leads nowhere and takes a file descriptor.
    fn let_go_of_gone_interfaces(&mut self) -> Result<(), LoadError> {
        // Not asked one by one: nix takes libc's null for a name.
        let Ok(interfaces) = if_nameindex() else { return Ok(()) };
        let is_there = |index: u32| interfaces.iter().any(|interface| interface.index() == index);
        let gone: Vec<_> = self.probed.keys().copied().filter(|&index| !is_there(index)).collect();
        for link in gone.iter().filter_map(|index| self.probed.remove(index)).collect::<Vec<_>>() {
            // The kernel has detached it already.
            let _ = self.probe()?.detach(link);
        }
        Ok(())
    }

    fn attach_probe_anew(&mut self, interface: &str) -> Result<SchedClassifierLinkId, LoadError> {
        let program = self.probe()?;
        match verified(|| program.load()) {
            Ok(()) | Err(ProgramError::AlreadyLoaded) => {}
            Err(error) => return Err(LoadError::program(PROGRAM, error)),
        }
        let attached = program.attach(interface, TcAttachType::Egress).or_else(|_| {
            // Before Linux 6.6 there has to be a place for it first, which may be there already, and a filter of a
            // controller that was killed stays until somebody takes it off.
            let _ = tc::qdisc_add_clsact(interface);
            let _ = tc::qdisc_detach_program(interface, TcAttachType::Egress, PROGRAM);
            program.attach(interface, TcAttachType::Egress)
        });
        attached.map_err(|error| refused(interface, &reason(&error)))
    }

    fn probe(&mut self) -> Result<&mut SchedClassifier, LoadError> {
        let program = self.object().program_mut(PROGRAM).ok_or(LoadError::Missing(PROGRAM))?;
        program.try_into().map_err(|error| LoadError::program(PROGRAM, error))
    }
}

fn refused(interface: &str, reason: &impl ToString) -> LoadError {
    LoadError::AttachProbe { interface: interface.to_owned(), reason: reason.to_string() }
}

/// What the kernel said, which aya's own words leave out.
fn reason(error: &ProgramError) -> String {
    match error {
        ProgramError::SyscallError(call) => call.io_error.to_string(),
        error => error.to_string(),
    }
}
