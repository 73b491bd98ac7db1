//! XDP programs on the lab's links. A veth's peer must carry one before the other end may transmit from XDP; most do
//! nothing. Each goes away with the value that attached it, or with its process.

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::Array,
    programs::{Xdp, xdp::XdpMode},
};
use lb_common::bench::Hop;
use lb_user::{
    bpf::{Pod, verified},
    object::OBJECT,
};

use crate::{LabError, bench, namespace::Namespace, verifier::VerifierError};

/// A ring buffer: its size is in bytes, and whole pages.
const LOG_RING: &str = "AYA_LOGS";
/// Where the program that only tunnels finds its tunnel.
const HOP: &str = "weir_hop";

/// An attached program.
#[derive(Debug)]
pub(crate) struct Attached {
    /// Holds the link.
    _object: Ebpf,
}

impl Attached {
    /// The one that does nothing.
    pub(crate) fn passing(namespace: &Namespace, interface: &str) -> Result<Self, LabError> {
        Self::attach(namespace, interface, OBJECT, "weir_pass")
    }

    /// The one that puts a tunnel on, sends the packet back and decides nothing.
    pub(crate) fn wrapping(namespace: &Namespace, interface: &str, hop: Hop) -> Result<Self, LabError> {
        Self::attach_prepared(namespace, interface, bench::OBJECT, "weir_stub_wrap", |object| {
            let map = object.map_mut(HOP).ok_or("the eBPF object has no hop")?;
            let mut hops: Array<_, Pod<Hop>> = Array::try_from(map).map_err(|error| chain(&error))?;
            hops.set(0, Pod(hop), 0).map_err(|error| chain(&error))
        })
    }

    /// Attaches a program of an object, in native mode, to `interface` inside `namespace`.
    pub(crate) fn attach(
        namespace: &Namespace,
        interface: &str,
        object: &[u8],
        program: &'static str,
    ) -> Result<Self, LabError> {
        Self::attach_prepared(namespace, interface, object, program, |_| Ok(()))
    }

    /// The same after something has been done to the object, such as to fill a map.
    pub(crate) fn attach_prepared(
        namespace: &Namespace,
        interface: &str,
        object: &[u8],
        program: &'static str,
        prepare: impl FnOnce(&mut Ebpf) -> Result<(), String>,
    ) -> Result<Self, LabError> {
        let interface_there = || format!("{interface} in {}", namespace.name());
        let refused = |reason: String| LabError::Xdp { program, interface: interface_there(), reason };
        let mut object = small_object(object).map_err(|error| refused(chain(&error)))?;
        prepare(&mut object).map_err(&refused)?;
        namespace.run(|| attach(&mut object, program, interface))?.map_err(refused)?;
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

fn attach(object: &mut Ebpf, program: &str, interface: &str) -> Result<(), String> {
    let program = object.program_mut(program).ok_or("the eBPF object does not have it")?;
    let program: &mut Xdp = program.try_into().map_err(|error| chain(&error))?;
    verified(|| program.load()).map_err(|error| chain(&error))?;
    program.attach(interface, XdpMode::Driver).map_err(|error| chain(&error))?;
    Ok(())
}

/// An error and its causes: aya's own message often stops before the errno.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    words
}
