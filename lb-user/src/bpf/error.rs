//! Why the kernel did not take a program, in words of the operator's.

use super::{LedgerError, PinError};
use crate::privilege;
use aya::{EbpfError, maps::MapError, programs::ProgramError};
use nix::errno::Errno;
use std::{
    io,
    path::{Path, PathBuf},
};

/// Why a program could not be loaded or attached.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The process lacks capabilities.
    #[error("the kernel lets this process load no XDP program: {}", remedy(.missing))]
    Privilege {
        /// Their names.
        missing: Vec<&'static str>,
    },
    /// This binary was built without the eBPF object.
    #[error("this binary was built without its eBPF object: build it again without WEIR_SKIP_EBPF")]
    NoObject,
    /// The object could not be taken apart, or a map could not be made.
    #[error("the kernel did not take Weir's maps: {0}")]
    Object(#[source] EbpfError),
    /// The verifier or the kernel refused a program.
    #[error("the kernel did not take the program {program}: {error}")]
    Program {
        /// Its name.
        program: &'static str,
        /// What the kernel said.
        #[source]
        error: ProgramError,
    },
    /// The object does not hold what this binary expects.
    #[error("the eBPF object has no {0}: the binary and its object are of different versions")]
    Missing(&'static str),
    /// A map is not of the expected kind.
    #[error("the map {map} is not what this binary expects: {error}")]
    Map {
        /// Its name.
        map: &'static str,
        /// What aya said.
        #[source]
        error: MapError,
    },
    /// Another program is on the interface.
    #[error("{interface} already has an XDP program: `ip -d link show {interface}` tells which; detach it first")]
    Busy {
        /// The interface.
        interface: String,
    },
    /// The pins are of no use.
    #[error(transparent)]
    Pins(#[from] PinError),
    /// The ledger is of no use.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// Something could not be pinned or unpinned.
    #[error("the kernel refused the pin {}: {reason}", path.display())]
    Pin {
        /// Its file.
        path: PathBuf,
        /// What was said.
        reason: String,
    },
    /// The driver has no XDP.
    #[error(
        "the driver of {interface} takes no native XDP program: set `xdp_mode = \"generic\"` (slower) or use another interface"
    )]
    NoNativeXdp {
        /// The interface.
        interface: String,
    },
    /// An interface refused the program for health checks.
    #[error("the program that sends health checks could not be attached to {interface}: {reason}")]
    AttachProbe {
        /// The interface.
        interface: String,
        /// What the kernel said.
        reason: String,
    },
    /// An interface refused a program of TC's.
    #[error(
        "the program that {purpose} could not be attached to {interface}: {reason}; it takes Linux 6.6, so before that {without}"
    )]
    AttachClassifier {
        /// What the program does.
        purpose: &'static str,
        /// How to do without it.
        without: &'static str,
        /// The interface.
        interface: String,
        /// What the kernel said.
        reason: String,
    },
    /// The interface refused the program for another reason.
    #[error("the XDP program could not be attached to {interface}: {error}")]
    Attach {
        /// The interface.
        interface: String,
        /// What the kernel said.
        #[source]
        error: ProgramError,
    },
}

/// An error and what is behind it, unless it says that itself: aya names the call, and the kernel's answer is behind it.
pub(super) fn with_cause(error: &dyn std::error::Error) -> String {
    let said = error.to_string();
    match error.source().map(ToString::to_string).filter(|cause| !said.contains(cause)) {
        Some(cause) => format!("{said}: {cause}"),
        None => said,
    }
}

impl LoadError {
    fn privilege() -> Self {
        Self::Privilege { missing: privilege::missing() }
    }

    pub(super) fn object(error: EbpfError) -> Self {
        if is_denied(&error) { Self::privilege() } else { Self::Object(error) }
    }

    pub(super) fn program(program: &'static str, error: ProgramError) -> Self {
        match &error {
            ProgramError::LoadError { io_error, verifier_log }
                if io_error.kind() == io::ErrorKind::PermissionDenied
                    && (verifier_log.to_string().is_empty() || !privilege::missing().is_empty()) =>
            {
                Self::privilege()
            }
            _ => Self::Program { program, error },
        }
    }

    pub(super) fn pin(path: &Path, error: impl std::error::Error) -> Self {
        Self::Pin { path: path.to_owned(), reason: with_cause(&error) }
    }

    /// The kernel's own number for an error of a program's, if it has one.
    pub(super) fn errno(error: &ProgramError) -> Option<Errno> {
        match error {
            ProgramError::SyscallError(call) => call.io_error.raw_os_error().map(Errno::from_raw),
            _ => None,
        }
    }

    pub(super) fn attach_classifier(
        purpose: &'static str,
        without: &'static str,
        interface: &str,
        error: &ProgramError,
    ) -> Self {
        let reason = Self::errno(error).map_or_else(|| error.to_string(), |errno| errno.desc().to_owned());
        Self::AttachClassifier { purpose, without, interface: interface.to_owned(), reason }
    }

    pub(super) fn attach(interface: &str, error: ProgramError) -> Self {
        let interface = interface.to_owned();
        match Self::errno(&error) {
            Some(Errno::EBUSY | Errno::EEXIST) => Self::Busy { interface },
            Some(Errno::EOPNOTSUPP) => Self::NoNativeXdp { interface },
            Some(Errno::EPERM | Errno::EACCES) => Self::privilege(),
            _ => Self::Attach { interface, error },
        }
    }
}

fn is_denied(error: &EbpfError) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied) {
            return true;
        }
        source = error.source();
    }
    false
}

/// What to do about missing capabilities.
fn remedy(missing: &[&str]) -> String {
    if missing.is_empty() {
        return "it has the capabilities for it, so look for a security module (`dmesg`) or a container's seccomp filter \
                that forbids the bpf system call"
            .to_owned();
    }
    format!(
        "it lacks {}; run it as root, or as a service with AmbientCapabilities={}",
        missing.join(", "),
        missing.join(" ")
    )
}
