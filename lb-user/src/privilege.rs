//! What this process may do, by the kernel's own word: the capabilities that Weir cannot do without.

use std::fs;

/// The capabilities that Weir needs, and their numbers in the kernel.
pub const NEEDED: [(&str, u32); 3] = [("CAP_BPF", 39), ("CAP_NET_ADMIN", 12), ("CAP_PERFMON", 38)];
/// Stands for the first and the last of them.
const CAP_SYS_ADMIN: u32 = 21;

/// Those that this process lacks; all, where the kernel does not tell.
pub fn missing() -> Vec<&'static str> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    missing_in(effective(&status).unwrap_or(0))
}

/// What the process that `status` in `/proc` tells of may do.
fn effective(status: &str) -> Option<u64> {
    let bits = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(bits.trim(), 16).ok()
}

fn missing_in(effective: u64) -> Vec<&'static str> {
    let holds = |number: u32| effective & 1 << number != 0;
    let lacks = |&&(name, number): &&(&str, u32)| !(holds(number) || name != "CAP_NET_ADMIN" && holds(CAP_SYS_ADMIN));
    NEEDED.iter().filter(lacks).map(|&(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_lacks_nothing_and_nobody_lacks_all() {
        let status = |bits: &str| format!("Name:\tweir\nCapPrm:\t0000000000000000\nCapEff:\t{bits}\nSeccomp:\t0\n");
        let missing = |bits: &str| missing_in(effective(&status(bits)).expect("a line of it"));
        assert_eq!(missing("000001ffffffffff"), Vec::<&str>::new());
        assert_eq!(missing("0000000000000000"), ["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"]);
        // The three, each without one of them, and CAP_SYS_ADMIN alone.
        assert_eq!(missing("000000c000001000"), Vec::<&str>::new());
        assert_eq!(missing("0000004000001000"), ["CAP_BPF"]);
        assert_eq!(missing("000000c000000000"), ["CAP_NET_ADMIN"]);
        assert_eq!(missing("0000008000001000"), ["CAP_PERFMON"]);
        assert_eq!(missing("0000000000200000"), ["CAP_NET_ADMIN"]);
    }
}
