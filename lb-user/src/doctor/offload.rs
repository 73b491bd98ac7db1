//! What the driver does to packets before XDP sees them, and how many it can hold: by ethtool's netlink.

use super::{Finding, links::Link, machine::Programs};
use ethtool::{EthtoolAttr, EthtoolFeatureAttr, EthtoolHandle, EthtoolRingAttr};
use futures_util::TryStreamExt as _;

/// A receive ring shorter than this loses packets in bursts of a few hundred microseconds at 10 Gbit/s.
const RING_MIN: u32 = 1024;

/// An offload that is in Weir's way: as the kernel calls it, and as ethtool's command line does.
struct Offload {
    feature: &'static str,
    option: &'static str,
    harm: &'static str,
}

/// Merged packets are longer than any path, and are no client's packets any more.
const MERGING: [Offload; 2] = [
    Offload { feature: "rx-lro", option: "lro", harm: "merges packets (LRO) into ones too long for a tunnel" },
    Offload {
        feature: "rx-gro-hw",
        option: "rx-gro-hw",
        harm: "merges packets (GRO-HW) into ones too long for a tunnel",
    },
];
const VLAN: Offload = Offload {
    feature: "rx-vlan-hw-parse",
    option: "rxvlan",
    harm: "takes VLAN tags off before XDP sees them, so tagged packets are answered without their tag",
};

/// What the offloads and rings of an interface mean for these programs.
pub(super) async fn findings(link: Link<'_>, programs: Programs) -> Vec<Finding> {
    let name = link.name();
    let Ok((connection, mut ethtool, _)) = ethtool::new_connection() else { return Vec::new() };
    let task = tokio::spawn(connection);
    let active = active(&mut ethtool, name).await;
    let ring = ring(&mut ethtool, name).await;
    task.abort();

    let Some(active) = active else {
        return vec![
            Finding::warning("offload", format!("the kernel does not tell the offloads of {name}"))
                .mend(format!("ethtool --show-features {name}")),
        ];
    };
    let mut findings = judge(name, &active, link.vlans().next().is_some(), programs);
    findings.extend(ring.and_then(|ring| ring.finding(name)));
    findings
}

/// What these features mean that are on, on an interface that VLAN devices are on or not.
fn judge(name: &str, active: &[String], tagged: bool, programs: Programs) -> Vec<Finding> {
    let is_on = |offload: &Offload| active.iter().any(|feature| feature == offload.feature);
    let mut findings: Vec<_> =
        MERGING.iter().filter(|offload| is_on(offload)).map(|offload| offload.off(name, Finding::fault)).collect();
    if programs == Programs::Balancer && is_on(&VLAN) {
        findings.push(VLAN.off(name, if tagged { Finding::fault } else { Finding::warning }));
    }
    if findings.is_empty() {
        findings.push(Finding::good("offload", format!("the driver of {name} hands packets over as they came")));
    }
    findings
}

impl Offload {
    fn off(&self, interface: &str, finding: fn(&'static str, String) -> Finding) -> Finding {
        finding("offload", format!("the driver of {interface} {}", self.harm))
            .mend(format!("ethtool -K {interface} {} off", self.option))
    }
}

/// The features that are on; none where the kernel does not tell.
async fn active(ethtool: &mut EthtoolHandle, interface: &str) -> Option<Vec<String>> {
    let answers: Vec<_> = ethtool.feature().get(Some(interface)).execute().await.ok()?.try_collect().await.ok()?;
    let attributes = answers.into_iter().flat_map(|answer| answer.payload.nlas);
    let mut bits = attributes.filter_map(|attribute| match attribute {
        EthtoolAttr::Feature(EthtoolFeatureAttr::Active(bits)) => Some(bits),
        _ => None,
    });
    Some(bits.next()?.into_iter().filter(|bit| bit.value).map(|bit| bit.name).collect())
}

/// A receive ring: how long it is, and how long it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ring {
    now: u32,
    max: u32,
}

impl Ring {
    fn finding(self, interface: &str) -> Option<Finding> {
        let Self { now, max } = self;
        let short = now < RING_MIN && now < max;
        short.then(|| {
            let longer = max.min(4 * RING_MIN);
            Finding::warning("ring", format!("the receive ring of {interface} holds {now} packets, and could {max}"))
                .mend(format!("ethtool -G {interface} rx {longer}"))
        })
    }
}

async fn ring(ethtool: &mut EthtoolHandle, interface: &str) -> Option<Ring> {
    let answers: Vec<_> = ethtool.ring().get(Some(interface)).execute().await.ok()?.try_collect().await.ok()?;
    let attributes: Vec<_> = answers.into_iter().flat_map(|answer| answer.payload.nlas).collect();
    let find = |wanted: fn(&EthtoolRingAttr) -> Option<u32>| {
        attributes.iter().find_map(|attribute| match attribute {
            EthtoolAttr::Ring(ring) => wanted(ring),
            _ => None,
        })
    };
    let now = find(|ring| if let EthtoolRingAttr::Rx(len) = ring { Some(*len) } else { None })?;
    let max = find(|ring| if let EthtoolRingAttr::RxMax(len) = ring { Some(*len) } else { None })?;
    Some(Ring { now, max })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn merged_packets_are_a_fault_and_tags_are_one_where_they_are_used() {
        let said = |active: &[&str], tagged, programs| -> Vec<_> {
            let active: Vec<_> = active.iter().map(ToString::to_string).collect();
            let findings = judge("eth0", &active, tagged, programs);
            findings.into_iter().map(|finding| (finding.verdict, finding.command.unwrap_or_default())).collect()
        };
        let off = |option: &str| format!("ethtool -K eth0 {option} off");
        for programs in [Programs::Balancer, Programs::Decapsulator] {
            assert_eq!(said(&["rx-checksum", "rx-gro"], true, programs), [(Verdict::Good, String::new())]);
            assert_eq!(said(&["rx-lro"], false, programs), [(Verdict::Fault, off("lro"))]);
            assert_eq!(said(&["rx-gro-hw"], false, programs), [(Verdict::Fault, off("rx-gro-hw"))]);
        }
        let tags = ["rx-vlan-hw-parse"];
        assert_eq!(said(&tags, false, Programs::Balancer), [(Verdict::Warning, off("rxvlan"))]);
        assert_eq!(said(&tags, true, Programs::Balancer), [(Verdict::Fault, off("rxvlan"))]);
        assert_eq!(said(&tags, true, Programs::Decapsulator), [(Verdict::Good, String::new())]);
    }

    #[test]
    fn only_a_short_ring_that_can_grow_is_worth_a_word() {
        assert_eq!(Ring { now: 1024, max: 8192 }.finding("eth0"), None);
        assert_eq!(Ring { now: 256, max: 256 }.finding("eth0"), None);
        let command = |now, max| Ring { now, max }.finding("eth0").and_then(|finding| finding.command);
        assert_eq!(command(512, 8192).as_deref(), Some("ethtool -G eth0 rx 4096"));
        assert_eq!(command(256, 512).as_deref(), Some("ethtool -G eth0 rx 512"));
    }
}
