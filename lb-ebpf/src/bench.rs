//! Packet benchmarks in the kernel.
