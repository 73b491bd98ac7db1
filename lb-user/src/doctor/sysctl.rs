//! Kernel settings of this network namespace, by their names as `sysctl` writes them.

use std::{fs, path::PathBuf};

/// The value of a setting; none where the kernel has no such setting.
pub(super) fn read(name: &str) -> Option<String> {
    let path: PathBuf = ["/proc/sys", &name.replace('.', "/")].iter().collect();
    fs::read_to_string(path).ok().map(|value| value.trim().to_owned())
}

/// The name of a setting of one interface. A dot in an interface's name is a slash to `sysctl`.
pub(super) fn of_interface(family: &str, interface: &str, setting: &str) -> String {
    format!("net.{family}.conf.{}.{setting}", interface.replace('.', "/"))
}

/// A setting that holds where either all interfaces or this one has the higher value.
pub(super) fn highest(interface: &str, setting: &str) -> u32 {
    let value = |interface: &str| {
        let path = format!("/proc/sys/net/ipv4/conf/{interface}/{setting}");
        fs::read_to_string(path).ok().and_then(|value| value.trim().parse().ok()).unwrap_or(0)
    };
    value("all").max(value(interface))
}
