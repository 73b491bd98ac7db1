//! The eBPF objects that this binary was built with.

/// The ELF object with every program of Weir.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/weir.bpf.o"));

/// The same programs with the instructions by which they tell what they decide: for `weir trace`, while it lasts.
pub static TRACE_OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/weir-trace.bpf.o"));
