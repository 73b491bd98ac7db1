//! Whose processors' time it was, in the kernel's clock ticks, as `/proc` tells.

use std::fs;

use nix::unistd::{SysconfVar, sysconf};

use crate::LabError;

/// Ticks of a second.
pub(crate) fn per_second() -> f64 {
    let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|ticks| u32::try_from(ticks).ok());
    ticks.map_or(100.0, f64::from)
}

/// All that the machine did since it started, and of that the softirqs. The columns are user, nice, system, idle, iowait,
/// irq, softirq and what others took.
pub(crate) fn of_machine() -> Result<(u64, u64), LabError> {
    let text = fs::read_to_string("/proc/stat").map_err(LabError::file("read", "/proc/stat"))?;
    let line = text.lines().next().unwrap_or_default();
    let columns: Vec<u64> = line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    match columns[..] {
        [user, nice, system, _, _, irq, softirq, ..] => Ok((user + nice + system + irq + softirq, softirq)),
        _ => Err(LabError::Output { program: "/proc/stat", line: line.to_owned() }),
    }
}

/// User and system time of a process; nothing of one that is gone.
pub(crate) fn of_process(id: &str) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    // The name, in parentheses, may hold anything.
    let columns = stat.rsplit_once(") ").map_or("", |(_, columns)| columns).split(' ').skip(11);
    columns.take(2).filter_map(|word| word.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_taken_some_of_the_machines_time() {
        let begun = of_process("self");
        while of_process("self") < begun + 2 {
            std::hint::black_box(0);
        }
        let (machine, softirq) = of_machine().expect("a Linux machine");
        assert!(machine >= of_process("self") && softirq <= machine);
        assert_eq!(of_process("0"), 0);
    }
}
