//! Leaves the eBPF object that `weir` carries in `OUT_DIR/weir.bpf.o`.

#[path = "../lb-ebpf/compile.rs"]
mod compile;

fn main() {
    compile::compile(&[], "weir.bpf.o");
}
