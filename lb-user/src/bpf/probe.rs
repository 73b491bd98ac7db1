//! The program that puts the packets of health checks on their way, on the interfaces that they would leave by.
//!
//! It lives in the same object as the balancer, and so shares its key; it ends with the process.

use super::{Balancer, LoadError};
use aya::programs::{ProgramError, SchedClassifier, TcAttachType, tc};

const PROGRAM: &str = "weir_probe";

impl Balancer {
    /// Attaches the program to an interface, behind those that are there.
    ///
    /// # Errors
    /// The kernel refuses the program, or has no such interface.
    pub fn attach_probe(&mut self, interface: &str) -> Result<(), LoadError> {
        let failed = |error| LoadError::program(PROGRAM, error);
        let program = self.object().program_mut(PROGRAM).ok_or(LoadError::Missing(PROGRAM))?;
        let program: &mut SchedClassifier = program.try_into().map_err(failed)?;
        match program.load() {
            Ok(()) | Err(ProgramError::AlreadyLoaded) => {}
            Err(error) => return Err(failed(error)),
        }
        let attached = program.attach(interface, TcAttachType::Egress).or_else(|_| {
            // Before Linux 6.6 there has to be a place for it first, which may be there already, and a filter of a
            // controller that was killed stays until somebody takes it off.
            let _ = tc::qdisc_add_clsact(interface);
            let _ = tc::qdisc_detach_program(interface, TcAttachType::Egress, PROGRAM);
            program.attach(interface, TcAttachType::Egress)
        });
        let failed = |error| LoadError::AttachProbe { interface: interface.to_owned(), reason: reason(&error) };
        attached.map(drop).map_err(failed)
    }
}

/// What the kernel said, which aya's own words leave out.
fn reason(error: &ProgramError) -> String {
    match error {
        ProgramError::SyscallError(call) => call.io_error.to_string(),
        error => error.to_string(),
    }
}
