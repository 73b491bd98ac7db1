//! What minting asks of a backend, as far as it can be seen from beside: the kernel's settings, and what an agent that was
//! killed at a bad moment has left.

use super::{Finding, sysctl};
use crate::{agent::mint::Unfit, bpf, config::AgentConfig};

/// What is to be said where an agent's configuration mints.
pub(super) fn findings(agent: &AgentConfig) -> Vec<Finding> {
    let Some(token) = &agent.token else { return Vec::new() };
    let mut findings = vec![match Unfit::found() {
        None => Finding::good("mint", format!("the kernel's settings are fit for minting for {}", token.pool)),
        Some(unfit) => {
            Finding::fault("mint", format!("connections of {} are plain TCP: {unfit}", token.pool)).mend(unfit.remedy())
        }
    }];
    if let Some((former, note)) = bpf::noted_moment(&agent.pins) {
        let what = "an agent was killed while every SYN was answered with a cookie, and still is: joins are lost that come \
                    together";
        findings.push(
            Finding::warning("cookies", what)
                .mend(format!("sysctl -w net.ipv4.tcp_syncookies={former}; rm {}", note.display()))
                .advise("the agent's next start does it as well"),
        );
    } else if sysctl::read("net.ipv4.tcp_syncookies").as_deref() == Some("2") {
        findings.push(
            Finding::warning("cookies", "every SYN is answered with a cookie: joins are lost that come together")
                .mend("sysctl -w net.ipv4.tcp_syncookies=1"),
        );
    }
    for vip in agent.minted_vips().filter(|vip| !vip.prefix.is_host()) {
        let what =
            format!("{} is no single address: nothing is minted for it, and its connections are plain TCP", vip.prefix);
        findings.push(Finding::warning("mint", what).advise("name each address in a [[vip]] of its own"));
    }
    findings
}
