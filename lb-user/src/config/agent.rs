//! The configuration of an agent: a file of its own, in the same form and with the same messages as the balancer's.

use super::{Bus, ConfigErrors, InterfaceName, Metrics, Name, Ports, Prefix, XdpMode, check, count, read};
use lb_common::stateless::{IdBits, TokenId};
use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

/// A configuration of an agent that holds.
#[derive(Debug)]
pub struct AgentConfig {
    /// The name that the balancers' configuration has for this backend.
    pub backend: Name,
    /// The interfaces that tunnels come in by and answers leave by: at least one, each once.
    pub interfaces: Vec<InterfaceName>,
    /// How the decapsulating program is attached.
    pub xdp_mode: XdpMode,
    /// Where tunnels may come from: at least one.
    pub balancers: Vec<Prefix>,
    /// The UDP port of GUE tunnels; 0 for none.
    pub gue_port: u16,
    /// What becomes of the MSS in SYNs that leave from a VIP.
    pub mss: Mss,
    /// The directory in bpffs for what outlives the agent.
    pub pins: PathBuf,
    /// Bytes of events that the kernel keeps while the agent is busy.
    pub event_buffer: u32,
    /// Where the balancers hear what it reports; `None` where nobody does.
    pub bus: Option<Bus>,
    /// Where Prometheus may scrape; `None` where it may not.
    pub metrics: Option<Metrics>,
    /// What keys are minted for; `None` where none are.
    pub token: Option<AgentToken>,
    /// The VIPs that this backend serves, in the order of the file.
    pub vips: Vec<AgentVip>,
}

impl AgentConfig {
    /// Where pins are unless the operator says otherwise.
    pub const PINS: &str = "/sys/fs/bpf/weir-agent";

    /// Reads and checks a file.
    ///
    /// # Errors
    /// The file cannot be read, or something in it is wrong.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        let (text, file) = read(path)?;
        Self::parse(&text, &file)
    }

    /// Checks a text; `file` is what the messages call it.
    ///
    /// # Errors
    /// Something in the text is wrong.
    pub fn parse(text: &str, file: &str) -> Result<Self, ConfigErrors> {
        check::agent(text, file)
    }

    /// How much is configured, such as `2 VIPs, 1 balancer`.
    pub fn summary(&self) -> String {
        [count(self.vips.len(), "VIP"), count(self.balancers.len(), "balancer")].join(", ")
    }

    /// The pool that serves a local address, if it is a VIP's.
    pub fn pool_of(&self, local: SocketAddr) -> Option<&Name> {
        // The longest prefix has an address for itself.
        let holding = self.vips.iter().filter(|vip| vip.prefix.contains(local.ip()));
        let longest = holding.clone().map(|vip| vip.prefix.len_v6()).max()?;
        let mut theirs = holding.filter(|vip| vip.prefix.len_v6() == longest);
        theirs.find(|vip| (vip.ports.first()..=vip.ports.last()).contains(&local.port())).map(|vip| &vip.pool)
    }

    /// The VIPs that keys are minted for.
    pub fn minted_vips(&self) -> impl Iterator<Item = &AgentVip> {
        let pool = self.token.as_ref().map(|token| &token.pool);
        self.vips.iter().filter(move |vip| pool == Some(&vip.pool))
    }

    /// The outer headers of the longest tunnel that may come.
    pub fn tunnel_bytes(&self) -> u16 {
        const IPV4: u16 = 20;
        const IPV6: u16 = 40;
        const GUE: u16 = 12;
        let is_v6 = self.balancers.iter().any(|balancers| balancers.address().is_ipv6());
        let outer = if is_v6 { IPV6 } else { IPV4 };
        if self.gue_port == 0 { outer } else { outer + GUE }
    }

    /// The largest MSS for clients of an address, where the smallest packet limit of the interfaces is `mtu`; nothing where
    /// SYNs are left alone.
    pub fn mss(&self, vip: IpAddr, mtu: u16) -> Option<u16> {
        let most = match self.mss {
            Mss::Kept => return None,
            Mss::AtMost(most) => most,
            Mss::Fitting => u16::MAX,
        };
        let inner = if vip.is_ipv4() { 20 } else { 40 };
        Some(mtu.saturating_sub(self.tunnel_bytes() + inner + 20).max(Self::MSS_MIN).min(most))
    }

    /// No MSS is lowered below this: what every host takes (RFC 9293, 3.7.1).
    pub const MSS_MIN: u16 = 536;
}

/// What becomes of the MSS in SYNs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mss {
    /// It stays.
    Kept,
    /// It is lowered to what fits the tunnel.
    Fitting,
    /// The same, and to this.
    AtMost(u16),
}

/// The `[token]` of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentToken {
    /// The pool whose VIPs are minted for.
    pub pool: Name,
    /// The file with the secret that the pool's balancers have, too.
    pub secret: PathBuf,
    /// What tokens name this backend by.
    pub id: TokenId,
    /// How many bits ids have.
    pub bits: IdBits,
    /// How many keys are kept ready.
    pub keys: u32,
}

/// A `[[vip]]` of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentVip {
    /// Its address, or a prefix.
    pub prefix: Prefix,
    /// Its TCP ports.
    pub ports: Ports,
    /// The name that the balancers' configuration has for its pool.
    pub pool: Name,
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        [agent]
        backend = "web1"
        interface = "eth0"
        balancers = ["10.0.9.0/24"]
        gue_port = 0
        [[vip]]
        address = "192.0.2.0/24"
        port = "any"
        pool = "all"
        [[vip]]
        address = "192.0.2.1"
        port = 443
        pool = "web"
    "#;

    fn parse(text: &str) -> AgentConfig {
        AgentConfig::parse(text, "agent.toml").unwrap_or_else(|errors| panic!("{errors}"))
    }

    #[test]
    fn the_longest_prefix_has_an_address_for_itself() {
        let config = parse(TEXT);
        let pool = |local: &str| config.pool_of(local.parse().expect("an address")).map(Name::as_str);
        assert_eq!(pool("192.0.2.1:443"), Some("web"));
        assert_eq!(pool("192.0.2.1:80"), None);
        assert_eq!(pool("192.0.2.2:80"), Some("all"));
        assert_eq!(pool("192.0.3.1:443"), None);
    }

    #[test]
    fn the_mss_is_what_the_longest_tunnel_leaves() {
        let mss = |text: &str, vip: &str, mtu| parse(text).mss(vip.parse().expect("an address"), mtu);
        assert_eq!(mss(TEXT, "192.0.2.1", 1500), Some(1440));
        assert_eq!(mss(TEXT, "2001:db8::1", 1500), Some(1420));
        assert_eq!(mss(&TEXT.replace("gue_port = 0", ""), "192.0.2.1", 1500), Some(1428));
        assert_eq!(mss(&TEXT.replace("10.0.9.0/24", "2001:db8:9::/64"), "192.0.2.1", 1500), Some(1420));
        assert_eq!(mss(&TEXT.replace("gue_port", "mss_max = 1400\ngue_port"), "192.0.2.1", 1500), Some(1400));
        assert_eq!(mss(&TEXT.replace("gue_port", "mss_clamp = false\ngue_port"), "192.0.2.1", 1500), None);
        assert_eq!(mss(TEXT, "192.0.2.1", 400), Some(536));
    }
}
