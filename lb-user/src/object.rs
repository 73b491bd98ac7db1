//! The eBPF object that this binary was built with.

/// The ELF object with every program of Weir.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/weir.bpf.o"));
