//! The machine itself: root, a kernel with MPTCP, and bpffs. Only bpffs is ever changed.

use std::{fs, io, path::Path};

use anyhow::{Context as _, Error, Result, bail, ensure};
use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
    unistd::geteuid,
};

use crate::progress;

const BPFFS: &str = "/sys/fs/bpf";
const MPTCP_ENABLED: &str = "/proc/sys/net/mptcp/enabled";

/// Looks at the machine, and mounts bpffs where it is missing; what is wrong comes back.
pub(crate) fn set_up() -> Vec<Error> {
    [root(), mptcp(), bpffs()].into_iter().filter_map(Result::err).collect()
}

fn root() -> Result<()> {
    ensure!(
        geteuid().is_root(),
        "not root: the lab makes network namespaces and loads XDP programs; \
         repeat as root (`sudo -s`, then the same command)"
    );
    Ok(())
}

fn mptcp() -> Result<()> {
    judge_mptcp(fs::read_to_string(MPTCP_ENABLED))?;
    progress::say("Found", "MPTCP in this kernel");
    Ok(())
}

/// Judges what `net.mptcp.enabled` reads as.
fn judge_mptcp(sysctl: io::Result<String>) -> Result<()> {
    let enabled = match sysctl {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!(
                "this kernel has no MPTCP ({MPTCP_ENABLED} is missing): \
                 boot one with CONFIG_MPTCP=y, as Debian's own kernels have"
            )
        }
        read => read.with_context(|| format!("cannot read {MPTCP_ENABLED}"))?,
    };
    ensure!(enabled.trim() != "0", "MPTCP is switched off: type `sysctl -w net.mptcp.enabled=1`");
    Ok(())
}

fn bpffs() -> Result<()> {
    if is_bpffs(Path::new(BPFFS)) {
        progress::say("Found", format_args!("bpffs on {BPFFS}"));
        return Ok(());
    }
    mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("cannot mount bpffs: as root, type `mount -t bpf bpf {BPFFS}`"))?;
    progress::say("Mounted", format_args!("bpffs on {BPFFS}"));
    Ok(())
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mptcp_on_is_accepted() {
        judge_mptcp(Ok("1\n".to_owned())).expect("it is on");
    }

    #[test]
    fn mptcp_off_says_how_to_switch_it_on() {
        let error = judge_mptcp(Ok("0\n".to_owned())).expect_err("it is off");
        assert!(error.to_string().contains("sysctl -w net.mptcp.enabled=1"));
    }

    #[test]
    fn kernel_without_mptcp_names_its_option() {
        let missing = Err(io::ErrorKind::NotFound.into());
        let error = judge_mptcp(missing).expect_err("there is none");
        assert!(error.to_string().contains("CONFIG_MPTCP=y"));
    }

    #[test]
    fn proc_is_not_bpffs() {
        assert!(!is_bpffs(Path::new("/proc")));
    }
}
