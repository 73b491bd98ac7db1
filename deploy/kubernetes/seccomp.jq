# For a seccomp profile that lets nobody call bpf() but who has CAP_SYS_ADMIN: whoever has CAP_BPF may, too.
.syscalls |= (map(.names -= ["bpf"]) + [
  { names: ["bpf"], action: "SCMP_ACT_ALLOW", args: [], includes: { caps: ["CAP_BPF"] }, excludes: {} }
])
