//! The program that a veth's peer must carry before the other end may transmit from XDP: one that
//! does nothing. It goes away with the value that attached it, or with its process.

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    programs::{Xdp, xdp::XdpMode},
};
use lb_user::object::OBJECT;

use crate::{LabError, namespace::Namespace, verifier::VerifierError};

const PROGRAM: &str = "weir_pass";
/// A ring buffer: its size is in bytes, and whole pages.
const LOG_RING: &str = "AYA_LOGS";

/// An attached `weir_pass`.
#[derive(Debug)]
pub(crate) struct PassProgram {
    /// Holds the link.
    _object: Ebpf,
}

impl PassProgram {
    /// Attaches it, in native mode, to `interface` inside `namespace`.
    pub(crate) fn attach(namespace: &Namespace, interface: &str) -> Result<Self, LabError> {
        let refused =
            |reason: String| LabError::Xdp { interface: format!("{interface} in {}", namespace.name()), reason };
        let mut object = small_object(OBJECT).map_err(|error| refused(chain(&error)))?;
        namespace.run(|| attach(&mut object, interface))?.map_err(refused)?;
        Ok(Self { _object: object })
    }
}

/// Opens an object with every map as small as can be: the balancer's real tables would take hundreds of megabytes for
/// each lab.
pub(crate) fn small_object(object: &[u8]) -> Result<Ebpf, VerifierError> {
    if object.is_empty() {
        return Err(VerifierError::NoObject);
    }
    let parsed = aya_obj::Object::parse(object).map_err(EbpfError::from)?;
    let mut loader = EbpfLoader::new();
    for map in parsed.maps.keys().filter(|map| *map != LOG_RING) {
        loader.map_max_entries(map, 1);
    }
    Ok(loader.load(object)?)
}

fn attach(object: &mut Ebpf, interface: &str) -> Result<(), String> {
    let program = object.program_mut(PROGRAM).ok_or_else(|| format!("the eBPF object has no program {PROGRAM}"))?;
    let program: &mut Xdp = program.try_into().map_err(|error| chain(&error))?;
    program.load().map_err(|error| chain(&error))?;
    program.attach(interface, XdpMode::Driver).map_err(|error| chain(&error))?;
    Ok(())
}

/// An error and its causes: aya's own message often stops before the errno.
fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    words
}
