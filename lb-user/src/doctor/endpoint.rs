//! The join endpoints of a backend: what its kernel tells clients is what the balancers map to it.

use super::{Finding, sysctl};
use std::{fmt, io, net::IpAddr, process::Command, str::FromStr};

/// Where clients are to join a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinEndpoint {
    address: IpAddr,
    /// The service's where there is none.
    port: Option<u16>,
}

impl FromStr for JoinEndpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse() {
            return Ok(Self { address, port: None });
        }
        let with_port: std::net::SocketAddr =
            text.parse().map_err(|_| "write it like 192.0.2.1:4501 or 2001:db8::1001".to_owned())?;
        Ok(Self { address: with_port.ip(), port: Some(with_port.port()) })
    }
}

/// As `ip mptcp endpoint` takes it.
impl fmt::Display for JoinEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)?;
        self.port.map_or(Ok(()), |port| write!(f, " port {port}"))
    }
}

/// An endpoint as the kernel has it.
#[derive(serde::Deserialize)]
struct Known {
    address: IpAddr,
    port: Option<u16>,
    #[serde(default)]
    signal: bool,
}

/// What is to be said of these endpoints; of none, whether clients can join at all.
pub(super) fn findings(wanted: &[JoinEndpoint]) -> Vec<Finding> {
    let initial = sysctl::read("net.mptcp.allow_join_initial_addr_port");
    match known() {
        Ok(known) => judge(wanted, &known, initial.as_deref() == Some("0")),
        Err(error) => vec![
            Finding::warning("endpoint", format!("`ip mptcp endpoint show` does not tell the join endpoints: {error}"))
                .advise("install iproute2"),
        ],
    }
}

fn known() -> io::Result<Vec<Known>> {
    let output = Command::new("ip").args(["-json", "mptcp", "endpoint", "show"]).output()?;
    if !output.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn judge(wanted: &[JoinEndpoint], known: &[Known], only_endpoints: bool) -> Vec<Finding> {
    let told = |endpoint: &JoinEndpoint| {
        known.iter().any(|known| known.signal && known.address == endpoint.address && known.port == endpoint.port)
    };
    let mut findings: Vec<_> = wanted
        .iter()
        .map(|endpoint| {
            if told(endpoint) {
                return Finding::good("endpoint", format!("clients are told to join at {endpoint}"));
            }
            Finding::fault("endpoint", format!("clients are not told that they can join at {endpoint}"))
                .mend(format!("ip mptcp endpoint add {endpoint} dev lo signal"))
        })
        .collect();
    if !wanted.is_empty() && !only_endpoints {
        let what = "clients also join at the VIP, where the balancers may not know their connection";
        findings.push(Finding::warning("endpoint", what).mend("sysctl -w net.mptcp.allow_join_initial_addr_port=0"));
    }
    if wanted.is_empty() {
        findings.push(if !only_endpoints {
            Finding::good("endpoint", "clients may join at the VIP")
        } else if known.iter().any(|known| known.signal) {
            Finding::good("endpoint", "clients join only where they are told to")
        } else {
            let what = "clients are told not to join at the VIP, and of nowhere else: each connection has one path";
            Finding::warning("endpoint", what).mend("sysctl -w net.mptcp.allow_join_initial_addr_port=1")
        });
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_an_address_with_or_without_a_port() {
        let said = |text: &str| text.parse::<JoinEndpoint>().map(|endpoint| endpoint.to_string());
        assert_eq!(said("192.0.2.1:4501"), Ok("192.0.2.1 port 4501".to_owned()));
        assert_eq!(said("2001:db8::1001"), Ok("2001:db8::1001".to_owned()));
        assert_eq!(said("[2001:db8::1]:4501"), Ok("2001:db8::1 port 4501".to_owned()));
        assert!(said("b1").is_err());
    }
}
