//! The links that packets are measured on, and which CPU does what: one makes packets, the other polls the balancer's end
//! of the link. What the balancer sends back is dropped at the other end on the same CPU: on the first one that would take
//! its time from the generator, more of it the slower the balancer is, and the quotient would be of something else.

use std::{collections::BTreeSet, fs};

use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use serde_json::Value;

use crate::{LabError, command, link_end::ethernet, namespace::Namespace};

/// Where packets are made, and end.
pub(crate) const GENERATOR_CPU: usize = 0;
/// Where the balancer's program runs.
pub(crate) const BALANCER_CPU: usize = 1;

/// An end of a link.
#[derive(Debug, Clone)]
pub(crate) struct End {
    pub(crate) namespace: Namespace,
    pub(crate) interface: &'static str,
}

/// What an end's counters say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Packets that its program has run for.
    pub(crate) received: u64,
    /// Those that the other end had no room for, or that were dropped here.
    pub(crate) dropped: u64,
}

impl End {
    /// Has a kernel thread of its own poll this end, on one CPU, before all that is not of real time: otherwise a packet is
    /// handled wherever it was sent. The end must carry an XDP program.
    pub(crate) fn poll_on(&self, cpu: usize) -> Result<(), LabError> {
        let Self { namespace, interface } = self;
        let before = pollers(interface)?;
        let switch = format!("echo 1 > /sys/class/net/{interface}/threaded");
        command::output("ip", &["netns", "exec", namespace.name(), "sh", "-c", &switch], "")?;
        for poller in pollers(interface)?.difference(&before) {
            let poller = poller.to_string();
            command::output("taskset", &["--cpu-list", "--pid", &cpu.to_string(), &poller], "")?;
            command::output("chrt", &["--fifo", "--pid", "1", &poller], "")?;
        }
        Ok(())
    }

    /// Its Ethernet address.
    pub(crate) fn ethernet(&self) -> Result<[u8; 6], LabError> {
        let shown = self.shown()?;
        shown[0]["address"].as_str().and_then(ethernet).ok_or_else(|| unexpected(&shown))
    }

    /// Its counters.
    pub(crate) fn counted(&self) -> Result<Counted, LabError> {
        let shown = self.shown()?;
        let count = |direction: &str, what: &str| {
            shown[0]["stats64"][direction][what].as_u64().ok_or_else(|| unexpected(&shown))
        };
        Ok(Counted { received: count("rx", "packets")?, dropped: count("rx", "dropped")? + count("tx", "dropped")? })
    }

    fn shown(&self) -> Result<Value, LabError> {
        let printed = self.namespace.output("ip", &["-json", "-stats", "link", "show", "dev", self.interface])?;
        serde_json::from_str(&printed).map_err(|_| LabError::Output { program: "ip", line: printed })
    }
}

fn unexpected(shown: &Value) -> LabError {
    LabError::Output { program: "ip", line: shown.to_string() }
}

/// Has the calling thread stay on a CPU.
pub(crate) fn stay_on(cpu: usize) -> Result<(), LabError> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &cpus))
        .map_err(|errno| LabError::system(format!("run on CPU {cpu}"))(errno))
}

/// The kernel threads that poll interfaces of this name.
fn pollers(interface: &str) -> Result<BTreeSet<i32>, LabError> {
    let prefix = format!("napi/{interface}-");
    let entries = fs::read_dir("/proc").map_err(LabError::file("list", "/proc"))?;
    let threads = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    // A process may end meanwhile.
    let name = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Ok(threads.filter(|pid| name(pid).starts_with(&prefix)).collect())
}
