//! Leaves the eBPF object with the packet benchmarks in `OUT_DIR/weir-bench.bpf.o`.

#[path = "../lb-ebpf/compile.rs"]
mod compile;

fn main() {
    compile::compile(&["bench"], "weir-bench.bpf.o");
}
