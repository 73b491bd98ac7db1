//! What is the same for a balancer and a backend: privilege, kernel, bpffs, and whether the kernel takes Weir's programs.

use super::{Finding, links::Link};
use crate::{
    bpf::{Balancer, Decapsulator, LoadError, Sizes},
    privilege,
};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use std::fs;
use tokio::task::spawn_blocking;

/// The oldest kernel that has all that Weir uses: XDP for frames of several buffers, with `bpf_xdp_get_buff_len`.
const OLDEST: (u32, u32) = (5, 18);
const BPFFS: &str = "/sys/fs/bpf";
/// Tables as small as they may be: only the programs are on trial.
const SMALL: u32 = 1024;

/// Which programs are to run here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Programs {
    Balancer,
    Decapsulator,
    /// None: layer 2 needs no decapsulation.
    None,
}

pub(super) async fn findings(programs: Programs) -> Vec<Finding> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut findings = vec![kernel(release.trim())];
    findings.extend(jit(super::sysctl::read("net.core.bpf_jit_enable").as_deref()));
    if programs == Programs::Balancer {
        findings.push(bpffs());
    }
    if programs == Programs::None {
        return findings;
    }
    let missing = privilege::missing();
    if missing.is_empty() {
        findings.push(trial(programs).await);
    } else {
        let what = format!("this process lacks {}: programs and neighbours could not be tried", missing.join(", "));
        findings.push(
            Finding::fault("privilege", what)
                .advise("run `weir doctor` as root, or as the service's user with its capabilities"),
        );
    }
    findings
}

fn kernel(release: &str) -> Finding {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let (major, minor) = OLDEST;
    if version >= OLDEST {
        return Finding::good("kernel", format!("Linux {release} has all that Weir uses"));
    }
    Finding::fault("kernel", format!("Linux {release} is older than {major}.{minor}, whose XDP Weir needs"))
        .advise("install a newer kernel")
}

/// Without its compiler the kernel interprets programs, many times slower. Only the first network namespace tells.
fn jit(enabled: Option<&str>) -> Option<Finding> {
    (enabled == Some("0")).then(|| {
        Finding::warning("jit", "the kernel interprets BPF programs instead of compiling them: many times slower")
            .mend("sysctl -w net.core.bpf_jit_enable=1")
    })
}

fn bpffs() -> Finding {
    let mounted = statfs(BPFFS).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC);
    if mounted {
        return Finding::good("bpffs", format!("mounted on {BPFFS}"));
    }
    Finding::fault("bpffs", format!("no BPF file system on {BPFFS}: what should outlive a restart has no place"))
        .mend(format!("mount -t bpf bpf {BPFFS}"))
}

/// Has the kernel verify the programs, with tables of their own, and forgets them again.
async fn trial(programs: Programs) -> Finding {
    let load = move || match programs {
        Programs::Balancer => Balancer::load(&small()).map(drop),
        Programs::Decapsulator => Decapsulator::load().map(drop),
        Programs::None => Ok(()),
    };
    let result: Result<(), LoadError> = match spawn_blocking(load).await {
        Ok(result) => result,
        Err(panicked) => return Finding::fault("program", format!("Weir's programs could not be tried: {panicked}")),
    };
    match result {
        Ok(()) => Finding::good("program", "the kernel takes Weir's programs"),
        Err(error) => Finding::fault("program", first_line(&error.to_string())).advise("`dmesg` may say more"),
    }
}

/// A verifier's log is long.
fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

fn small() -> Sizes {
    Sizes {
        pools: 1,
        tokens: SMALL,
        joined_flows: SMALL,
        moved_flows: SMALL,
        pinned_flows: SMALL,
        pending_handshakes: SMALL,
        embryonic_flows: SMALL,
        datagram_flows: SMALL,
        fragmented_datagrams: SMALL,
        ..Sizes::default()
    }
}

/// What an interface that is to carry a program of Weir's is.
pub(super) fn of_interface(name: &str, link: Option<Link<'_>>) -> Finding {
    match link {
        None => Finding::fault("interface", format!("there is no interface {name}")).mend("ip link"),
        Some(link) if !link.is_ethernet() => {
            Finding::fault("interface", format!("{name} is not an Ethernet interface")).mend("ip link")
        }
        Some(link) => link.state_finding(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn only_a_compiler_that_is_known_to_be_off_is_worth_a_word() {
        for enabled in [None, Some("1"), Some("2")] {
            assert_eq!(jit(enabled), None);
        }
        let off = jit(Some("0")).expect("a finding");
        assert_eq!(off.verdict, Verdict::Warning);
        assert_eq!(off.command.as_deref(), Some("sysctl -w net.core.bpf_jit_enable=1"));
    }

    #[test]
    fn kernels_before_5_18_are_too_old() {
        for (release, verdict) in [
            ("6.18.5-cloud", Verdict::Good),
            ("5.18.0", Verdict::Good),
            ("5.17.15-generic", Verdict::Fault),
            ("4.19.0", Verdict::Fault),
            ("10.0", Verdict::Good),
            ("", Verdict::Fault),
        ] {
            assert_eq!(kernel(release).verdict, verdict, "{release}");
        }
    }
}
