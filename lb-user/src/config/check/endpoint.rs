//! Checks of the join endpoints: who has one, and that no two things are found at one address and port.

use super::super::words::host_address;
use super::super::{Join, Pool, Ports, Prefix, Problem, Protocol, Vip, Way, file, file::File};
use super::Findings;
use lb_common::limits::{ADDRESSES_MAX, ENDPOINTS_MAX, SERVICES_OF_CONFIG_MAX, SERVICES_PER_ADDRESS_MAX};
use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::Range;
use toml::Spanned;

/// The join port and the join address of a backend.
type Endpoint = (Option<u16>, Option<IpAddr>);

/// The endpoint of each backend of a pool, in the order of the file.
pub(super) fn endpoints(written: &[Spanned<file::Backend>], findings: &mut Findings<'_>) -> Vec<Option<Endpoint>> {
    let mut endpoint = |backend: &file::Backend| {
        let port = match &backend.join_port {
            None => Some(None),
            Some(port) => findings.port(*port.get_ref(), port.span()).map(Some),
        };
        let address = findings.parse_optional(backend.join_address.as_ref(), host_address);
        Some((port?, address?))
    };
    written.iter().map(|backend| endpoint(backend.get_ref())).collect()
}

/// Whether the backends of a pool have endpoints where its ways say so, and only there.
pub(super) fn fit_ways(written: &[Spanned<file::Backend>], join: Option<&Join>, findings: &mut Findings<'_>) {
    let Some(join) = join else { return };
    let wanted = matches!(join, Join::By(ways) if ways.contains(&Way::Endpoint));
    for backend in written {
        let has = backend.get_ref().join_port.is_some() || backend.get_ref().join_address.is_some();
        match (wanted, has) {
            (true, false) => findings.problem(backend.span(), Problem::EndpointMissing),
            (false, true) => findings.problem(backend.span(), Problem::EndpointUnused),
            _ => {}
        }
    }
}

/// Whether each address and port of all VIPs and endpoints is one thing.
pub(super) fn overlaps(written: &File, pools: &[Pool], vips: &[Vip], findings: &mut Findings<'_>) {
    let mut taken: HashMap<Prefix, Vec<(Ports, Range<usize>)>> = HashMap::new();
    for (vip, written) in vips.iter().zip(&written.vip) {
        if vip.address.protocol == Protocol::Tcp {
            taken.entry(vip.address.prefix).or_default().push((vip.address.ports, written.span()));
        }
    }
    for (index, (pool, written_pool)) in pools.iter().zip(&written.pool).enumerate() {
        for (backend, written_backend) in pool.backends.iter().zip(&written_pool.get_ref().backend) {
            let of_pool = vips.iter().filter(|vip| vip.pool.0 == index);
            match backend.told_endpoints(of_pool.clone()).len() {
                0 if backend.join_port.is_some() || backend.join_address.is_some() => {
                    findings.problem(written_backend.span(), Problem::EndpointUntold);
                }
                told if told > ENDPOINTS_MAX => {
                    let problem = Problem::TooManyEndpoints { told, max: ENDPOINTS_MAX };
                    findings.problem(written_backend.span(), problem);
                }
                _ => {}
            }
            if let Some(address) = backend.join_address
                && let Some((prefix, vip)) =
                    vips.iter().map(|vip| vip.address.prefix).zip(&written.vip).find(|(vip, _)| vip.contains(address))
            {
                let problem = Problem::EndpointIsVip { address, prefix, line: findings.line(&vip.span()) };
                findings.problem(written_backend.span(), problem);
                continue;
            }
            for place in backend.join_places(of_pool) {
                let others = taken.entry(place.prefix).or_default();
                if let Some((_, other)) = others.iter().find(|(ports, _)| ports.overlap(place.ports)) {
                    let problem = Problem::EndpointTaken { endpoint: place.to_string(), line: findings.line(other) };
                    findings.problem(written_backend.span(), problem);
                    break;
                }
                others.push((place.ports, written_backend.span()));
            }
        }
    }
    let of_addresses = taken.iter().filter(|(prefix, _)| prefix.is_host());
    let first_of_each = of_addresses.filter_map(|(_, rules)| Some(rules.first()?.1.clone()));
    findings.count(first_of_each, "addresses of VIPs and for joins", ADDRESSES_MAX);
    let all = taken.values().flatten().map(|(_, span)| span.clone());
    findings.count(all, "VIPs and join endpoints", SERVICES_OF_CONFIG_MAX);
    for ports in taken.values() {
        let spans = ports.iter().map(|(_, span)| span.clone());
        findings.count(spans, "VIPs and join ports with this address", SERVICES_PER_ADDRESS_MAX);
    }
}
