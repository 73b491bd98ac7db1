//! What is to be run on a backend so that it fits its pool: a shell script that can be run again. Pure: from the
//! balancer's configuration to text.

use crate::config::{Backend, Config, Forward, Join, Pool, Protocol, Vip, Way};
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

/// Backends that are named to whoever asked for another.
const SHOWN: usize = 8;

/// A backend, with everything that says what it needs.
pub struct Setup<'c> {
    pool: &'c Pool,
    backend: &'c Backend,
    vips: Vec<&'c Vip>,
}

/// Why there is no script.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoBackend {
    /// There is none of this name.
    #[error("no pool has a backend {name:?}; {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// There are several.
    #[error("pools {pools} have a backend {name:?}; write POOL/{name}")]
    Several {
        /// What was asked for.
        name: String,
        /// The pools.
        pools: String,
    },
}

impl<'c> Setup<'c> {
    /// Of a backend of a configuration, named `NAME` or `POOL/NAME`.
    ///
    /// # Errors
    /// There is no such backend, or more than one.
    pub fn of(config: &'c Config, name: &str) -> Result<Self, NoBackend> {
        let all = || config.pools.iter().enumerate().flat_map(|(at, pool)| pool.backends.iter().map(move |b| (at, b)));
        let is_meant = |&(at, backend): &(usize, &Backend)| {
            let pool = &config.pools[at].name;
            backend.name.as_str() == name || format!("{pool}/{}", backend.name) == name
        };
        let found: Vec<_> = all().filter(is_meant).collect();
        match found[..] {
            [(at, backend)] => Ok(Self {
                pool: &config.pools[at],
                backend,
                vips: config.vips.iter().filter(|vip| vip.pool.0 == at).collect(),
            }),
            [] => {
                let names: Vec<_> = all().map(|(_, backend)| backend.name.as_str()).take(SHOWN).collect();
                Err(NoBackend::Unknown { name: name.to_owned(), known: format!("there are {}", names.join(", ")) })
            }
            _ => {
                let pools: Vec<_> = found.iter().map(|&(at, _)| config.pools[at].name.as_str()).collect();
                Err(NoBackend::Several { name: name.to_owned(), pools: pools.join(" and ") })
            }
        }
    }

    fn has_endpoints(&self) -> bool {
        matches!(&self.pool.join, Join::By(ways) if ways.contains(&Way::Endpoint))
    }

    /// The VIPs' own addresses, each once; prefixes are not among them.
    fn addresses(&self, protocols: &[Protocol]) -> Vec<IpAddr> {
        let mut addresses = Vec::new();
        for vip in self.vips.iter().map(|vip| vip.address) {
            let address = vip.prefix.address();
            if vip.prefix.is_host() && protocols.contains(&vip.protocol) && !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses
    }

    fn endpoints(&self) -> Vec<(IpAddr, Option<u16>)> {
        self.backend.told_endpoints(self.vips.iter().copied())
    }

    /// What `weir doctor` is to be told of the endpoints.
    fn doctor_options(&self) -> String {
        if !self.has_endpoints() {
            return String::new();
        }
        let option = |(address, port)| match port {
            Some(port) => format!(" --join-endpoint {}", SocketAddr::new(address, port)),
            None => format!(" --join-endpoint {address}"),
        };
        self.endpoints().into_iter().map(option).collect::<Vec<_>>().concat()
    }

    fn write_vips(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pool.forward != Forward::L2 {
            writeln!(f, "\n# `weir agent` takes the tunnels off, as a service of its own.")?;
        }
        writeln!(f, "\n# The VIPs: this machine answers for them, and tells nobody on the link of them.")?;
        writeln!(f, "sysctl -q -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2")?;
        for address in self.addresses(&[Protocol::Tcp, Protocol::Udp]) {
            write_address(f, address)?;
        }
        for vip in self.vips.iter().filter(|vip| !vip.address.prefix.is_host()) {
            writeln!(f, "ip route replace local {} dev lo", vip.address.prefix)?;
        }
        Ok(())
    }

    fn write_endpoints(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n# Clients join here, and not at the VIPs' own ports: clients before Linux 6.18 do not join then."
        )?;
        writeln!(f, "sysctl -q -w net.mptcp.allow_join_initial_addr_port=0")?;
        if let Some(address) = self.backend.join_address {
            write_address(f, address)?;
        }
        for (address, port) in self.endpoints() {
            let endpoint = port.map_or_else(|| address.to_string(), |port| format!("{address} port {port}"));
            writeln!(
                f,
                "ip mptcp endpoint show | grep -qF '{endpoint} ' || ip mptcp endpoint add {endpoint} dev lo signal"
            )?;
        }
        if self.backend.join_address.is_none_or(|address| address.is_ipv4())
            && self.addresses(&[Protocol::Tcp]).iter().any(IpAddr::is_ipv6)
        {
            writeln!(
                f,
                "# A port cannot be told to clients over IPv6 (the option does not fit beside timestamps): give this\n\
                 # backend a join_address of IPv6 in the balancers' configuration, or its IPv6 clients have one path."
            )?;
        }
        Ok(())
    }
}

/// MPTCP itself.
fn write_mptcp(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "\n# MPTCP, with as many further subflows as the kernel lets a connection have.")?;
    writeln!(f, "sysctl -q -w net.mptcp.enabled=1")?;
    writeln!(f, "ip mptcp limits set subflows 8 add_addr_accepted 8")
}

fn write_address(f: &mut fmt::Formatter<'_>, address: IpAddr) -> fmt::Result {
    match address {
        IpAddr::V4(address) => writeln!(f, "ip address replace {address}/32 dev lo"),
        IpAddr::V6(address) => writeln!(f, "ip address replace {address}/128 dev lo nodad"),
    }
}

/// The script.
impl fmt::Display for Setup<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, address, pool) = (&self.backend.name, self.backend.address, &self.pool.name);
        writeln!(f, "#!/bin/sh")?;
        writeln!(
            f,
            "# Sets {name} ({address}) up as a backend of pool {pool}. Run it there as root, again after each boot;"
        )?;
        writeln!(f, "# `weir doctor --backend{}` says what is missing.\nset -e", self.doctor_options())?;
        self.write_vips(f)?;
        if self.pool.join != Join::Off {
            write_mptcp(f)?;
        }
        if self.has_endpoints() {
            self.write_endpoints(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"
        balancer = { interface = "eth0" }
        vip = [
            { address = "192.0.2.1", protocol = "tcp", port = 443, pool = "web" },
            { address = "2001:db8::1", protocol = "tcp", port = 443, pool = "web" },
            { address = "192.0.2.1", protocol = "tcp", port = 25, pool = "mail" },
        ]
        [[pool]]
        name = "web"
        join = ["endpoint"]
        backend = [
            { name = "b1", address = "10.0.0.1", join_port = 4501, join_address = "2001:db8::1001" },
            { name = "b2", address = "10.0.0.2", join_port = 4502 },
        ]
        [[pool]]
        name = "mail"
        join = "off"
        forward = "l2"
        backend = [{ name = "b1", address = "10.0.0.3" }]
    "#;

    fn commands(name: &str) -> Vec<String> {
        let config = Config::parse(CONFIG, "weir.toml").expect("a good configuration");
        let script = Setup::of(&config, name).expect("it is there").to_string();
        let commands = script.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        commands.map(ToOwned::to_owned).collect()
    }

    #[test]
    fn a_backend_with_endpoints_has_its_vips_and_announces_its_own() {
        assert_eq!(
            commands("web/b1"),
            [
                "set -e",
                "sysctl -q -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2",
                "ip address replace 192.0.2.1/32 dev lo",
                "ip address replace 2001:db8::1/128 dev lo nodad",
                "sysctl -q -w net.mptcp.enabled=1",
                "ip mptcp limits set subflows 8 add_addr_accepted 8",
                "sysctl -q -w net.mptcp.allow_join_initial_addr_port=0",
                "ip address replace 2001:db8::1001/128 dev lo nodad",
                "ip mptcp endpoint show | grep -qF '192.0.2.1 port 4501 ' || ip mptcp endpoint add 192.0.2.1 port 4501 dev lo signal",
                "ip mptcp endpoint show | grep -qF '2001:db8::1001 ' || ip mptcp endpoint add 2001:db8::1001 dev lo signal",
            ]
        );
    }

    #[test]
    fn a_blind_backend_on_the_link_answers_no_arp_for_a_vip() {
        assert_eq!(
            commands("mail/b1"),
            [
                "set -e",
                "sysctl -q -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2",
                "ip address replace 192.0.2.1/32 dev lo",
            ]
        );
    }

    #[test]
    fn a_backend_with_only_a_port_is_told_what_ipv6_clients_miss() {
        let config = Config::parse(CONFIG, "weir.toml").expect("a good configuration");
        let script = |name| Setup::of(&config, name).expect("it is there").to_string();
        assert!(script("b2").contains("join_address of IPv6"));
        assert!(!script("web/b1").contains("join_address of IPv6"));
    }

    #[test]
    fn a_name_that_is_none_or_two_is_refused() {
        let config = Config::parse(CONFIG, "weir.toml").expect("a good configuration");
        let error = |name| Setup::of(&config, name).err().map(|error| error.to_string());
        assert_eq!(error("b3"), Some("no pool has a backend \"b3\"; there are b1, b2, b1".to_owned()));
        assert_eq!(error("b1"), Some("pools web and mail have a backend \"b1\"; write POOL/b1".to_owned()));
    }
}
