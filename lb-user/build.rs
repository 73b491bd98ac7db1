//! Leaves the eBPF objects that `weir` carries in `OUT_DIR`: `weir.bpf.o`, and `weir-trace.bpf.o` for `weir trace`.

#[path = "../lb-ebpf/compile.rs"]
mod compile;

fn main() {
    compile::compile(&[], "weir.bpf.o");
    compile::compile(&["log"], "weir-trace.bpf.o");
}
