//! The router of a fleet: Linux multipath routes, whose hash is over addresses and ports. It knows nothing of MPTCP, and
//! when its next hops change it moves flows, as routers do.

use std::{fmt::Write as _, net::SocketAddr};

use super::destinations;
use crate::{
    LabError,
    addresses::{DualAddress, Path},
    command,
    namespace::Namespace,
};

/// Where path two's routes are.
const PATH_TWO_TABLE: u8 = 102;
/// On one path the balancers with odd numbers have this weight, on the other those with even ones: so nearly nine joins in
/// ten go through another balancer than the first subflow, and a run of few has more than half of them too.
const HEAVY: u8 = 16;

/// A TCP flow by its two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TcpFlow {
    /// The client's end.
    pub client: SocketAddr,
    /// The service's end.
    pub service: SocketAddr,
}

/// Makes the router ready for routes with several next hops.
pub(super) fn set_up(router: &Namespace) -> Result<(), LabError> {
    router.write_settings(&[("ipv4/fib_multipath_hash_policy", "1"), ("ipv6/fib_multipath_hash_policy", "1")])?;
    for family in ["-4", "-6"] {
        let table = PATH_TWO_TABLE.to_string();
        router.output("ip", &[family, "rule", "add", "iif", interface(Path::Two), "table", &table])?;
    }
    Ok(())
}

/// Sends what is for the service to these balancers alone, by their numbers and addresses.
pub(super) fn announce(router: &Namespace, hops: &[(u8, DualAddress)]) -> Result<(), LabError> {
    let mut commands = String::new();
    for path in Path::ALL {
        let table = match path {
            Path::One => "main".to_owned(),
            Path::Two => PATH_TWO_TABLE.to_string(),
        };
        for destination in destinations() {
            let _ = write!(commands, "route replace {destination} table {table}");
            for (number, address) in hops {
                let [v4, v6] = address.both();
                let hop = if destination.contains(':') { v6 } else { v4 };
                let _ = write!(commands, " nexthop via {hop} weight {}", weight(path, *number));
            }
            commands.push('\n');
        }
    }
    router.ip_batch(&commands)
}

/// The interface by which each flow's packets leave the router, if they come from the client's path.
pub(super) fn choices(router: &Namespace, flows: &[TcpFlow]) -> Result<Vec<String>, LabError> {
    let mut questions = String::new();
    for TcpFlow { client, service } in flows {
        let path = Path::of(client.ip()).unwrap_or(Path::One);
        let _ = writeln!(
            questions,
            "route get {} from {} iif {} ipproto tcp sport {} dport {}",
            service.ip(),
            client.ip(),
            interface(path),
            client.port(),
            service.port()
        );
    }
    let answers = router.run(|| command::output("ip", &["-json", "-batch", "-"], &questions))??;
    let interface = |line: &str| {
        let answer: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(answer[0]["dev"].as_str()?.to_owned())
    };
    let lines = answers.lines();
    let choices =
        lines.map(|line| interface(line).ok_or_else(|| LabError::Output { program: "ip", line: line.to_owned() }));
    let choices: Vec<_> = choices.collect::<Result<_, _>>()?;
    if choices.len() == flows.len() { Ok(choices) } else { Err(LabError::Output { program: "ip", line: answers }) }
}

/// The router's interface on a path.
const fn interface(path: Path) -> &'static str {
    match path {
        Path::One => "path1",
        Path::Two => "path2",
    }
}

const fn weight(path: Path, number: u8) -> u8 {
    match (path, number % 2) {
        (Path::One, 1) | (Path::Two, 0) => HEAVY,
        _ => 1,
    }
}
