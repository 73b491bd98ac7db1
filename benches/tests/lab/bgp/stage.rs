//! Two balancers and a router that speak BGP: BIRD on `lb1`, ExaBGP on `lb2`, BIRD on the router, with the very files of
//! `deploy/bgp/`, but for the lab's addresses and short times. Nobody else gives the router a route to the VIPs.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use weir_lab::{
    Lab, LabError,
    addresses::{VIP, balancer},
    fleet::Fleet,
    namespace::Namespace,
    process::Process,
    wait,
    weir::{Join, Weir},
};

/// Far above what any step takes.
pub(crate) const LIMIT: Duration = Duration::from_mins(1);
/// The balancer whose VIPs BIRD announces.
pub(crate) const BY_BIRD: &str = "lb1";
/// The one whose VIPs ExaBGP announces.
pub(crate) const BY_EXABGP: &str = "lb2";
/// The router's interface to each, by which its routes tell the two apart.
const SIDES: [(&str, &str); 2] = [("weir", BY_BIRD), ("lb2", BY_EXABGP)];

/// A destination that nobody announces.
const MARK: &str = "203.0.113.1";

pub(crate) struct Stage {
    /// How soon `weir announce` believes what: options of it.
    times: &'static [&'static str],
    bridge: Process,
    bird: Process,
    exabgp: Process,
    router: Process,
    monitor: Process,
    /// Last, so that all that runs in it is gone before.
    pub(crate) fleet: Fleet,
}

impl Stage {
    /// Returns when the router's kernel has both next hops.
    pub(crate) fn start(times: &'static [&'static str]) -> Self {
        let lab = Lab::builder().backends(2.try_into().expect("a lab may have two")).round_trip(Duration::ZERO);
        let fleet = Fleet::start(lab.build().expect("a lab"), 2, Join::Learn, false).expect("a fleet");
        forget_static_routes(&fleet.lab.router.namespace);
        for vip in VIP.both() {
            let hops = next_hops(&fleet.lab.router.namespace, &vip.to_string()).expect("ip");
            assert!(hops.is_empty(), "{vip} by {hops:?}, though nobody has announced it");
        }
        let stage = Self {
            monitor: run(&fleet, &fleet.lab.router.namespace, "monitor", &["ip", "monitor", "route"]),
            router: bird(&fleet, &fleet.lab.router.namespace, "router.conf"),
            bird: bird(&fleet, weir(&fleet, BY_BIRD).namespace(), "bird.conf"),
            exabgp: exabgp(&fleet, times),
            bridge: bridge(&fleet, times),
            times,
            fleet,
        };
        stage.wait_for(&[BY_BIRD, BY_EXABGP]);
        stage
    }

    pub(crate) fn weir(&mut self, name: &str) -> &mut Weir {
        self.fleet.weir_mut(name).expect("a member")
    }

    /// The BGP daemon of a balancer.
    pub(crate) fn daemon(&mut self, name: &str) -> &mut Process {
        if name == BY_BIRD { &mut self.bird } else { &mut self.exabgp }
    }

    /// Waits until the router's kernel sends the VIPs of both families to these balancers, and to no others.
    pub(crate) fn wait_for(&self, names: &[&str]) {
        for destination in VIP.both() {
            self.wait_for_route(&destination.to_string(), names);
        }
    }

    /// The same with one destination.
    pub(crate) fn wait_for_route(&self, destination: &str, names: &[&str]) {
        let (mut hops, expected) = (BTreeSet::new(), names.iter().copied().collect::<BTreeSet<_>>());
        let reached = wait::until("the router's routes change", LIMIT, || {
            hops = next_hops(&self.fleet.lab.router.namespace, destination)?;
            Ok((hops == expected).then_some(()))
        });
        reached.unwrap_or_else(|error| panic!("{destination} to {names:?}, not {hops:?}: {error}\n{}", self.logs()));
    }

    /// Waits until a balancer's bridge has noticed that there is no answer, and goes on announcing.
    pub(crate) fn wait_for_silence(&mut self, name: &str) {
        let bridge = if name == BY_BIRD { &mut self.bridge } else { &mut self.exabgp };
        bridge.wait_until("notices", LIMIT, |bridge| Ok(bridge.log().contains("still announced: "))).expect("it asks");
    }

    /// How often the router's kernel has changed its routes to the IPv4 VIP so far.
    pub(crate) fn changes(&self) -> usize {
        let told_of = |address: &str| self.monitor.log().lines().filter(|line| line.contains(address)).count();
        let marks = told_of(MARK);
        for change in ["add", "delete"] {
            self.fleet.lab.router.namespace.output("ip", &["route", change, "blackhole", MARK]).expect("ip");
        }
        // The kernel tells in order: what was before the mark has been told of.
        let told = wait::until("the mark is told of", LIMIT, || Ok((told_of(MARK) == marks + 2).then_some(())));
        told.expect("`ip monitor` runs");
        told_of(&VIP.v4.to_string())
    }

    /// Ends the bridge to BIRD by a signal; what systemd does then, by the unit, is done.
    pub(crate) fn end_bridge(&mut self, signal: Signal) {
        self.bridge.end_by(signal).expect("it ends");
        let unit = read("../weir-announce.service");
        let afterwards: Vec<&str> = unit.lines().filter_map(|line| line.strip_prefix("ExecStopPost=-")).collect();
        assert_eq!(afterwards.len(), 2, "one for each family");
        for command in afterwards.iter().map(|line| line.split(' ').collect::<Vec<_>>()) {
            // As the unit says, it may fail: where a table is empty, it is none.
            let _ = weir(&self.fleet, BY_BIRD).namespace().output(command[0], &command[1..]);
        }
    }

    /// Kills it and starts another, with nobody between who withdraws what it had announced.
    pub(crate) fn replace_bridge(&mut self) {
        self.bridge.end_by(Signal::SIGKILL).expect("it ends");
        self.start_bridge();
    }

    /// Starts it again.
    pub(crate) fn start_bridge(&mut self) {
        self.bridge = bridge(&self.fleet, self.times);
    }

    /// Kills the bridge that ExaBGP has started; returns when it has started another.
    pub(crate) fn kill_bridge_of_exabgp(&self) {
        let killed = child_of(self.exabgp.id()).expect("it has a child");
        kill(killed, Signal::SIGKILL).expect("it runs");
        wait::until("ExaBGP starts another", LIMIT, || Ok(child_of(self.exabgp.id()).filter(|&child| child != killed)))
            .expect("another runs");
    }

    fn logs(&self) -> String {
        let logs = [&self.bridge, &self.bird, &self.exabgp, &self.router].map(Process::log);
        logs.join("\n----\n")
    }
}

fn weir<'f>(fleet: &'f Fleet, name: &str) -> &'f Weir {
    fleet.weir(name).expect("a member")
}

/// Those that the lab itself has made, also for what comes by the client's second path.
fn forget_static_routes(router: &Namespace) {
    for (family, vip) in ["-4", "-6"].into_iter().zip(VIP.both()) {
        router.output("ip", &[family, "route", "flush", "table", "102"]).expect("ip");
        router.output("ip", &[family, "route", "flush", "exact", &vip.to_string()]).expect("ip");
    }
}

/// The balancers that the router's kernel sends packets for a destination to.
fn next_hops(namespace: &Namespace, destination: &str) -> Result<BTreeSet<&'static str>, LabError> {
    let family = if destination.contains(':') { "-6" } else { "-4" };
    let printed = namespace.output("ip", &[family, "-json", "route", "show", "exact", destination])?;
    // Of no routes it prints nothing at all in some versions.
    let text = if printed.trim().is_empty() { "[]" } else { &printed };
    let routes: Vec<Value> = serde_json::from_str(text).expect("JSON");
    let hops = routes.iter().flat_map(|route| route["nexthops"].as_array().cloned().unwrap_or(vec![route.clone()]));
    let name = |hop: Value| {
        let side = SIDES.iter().find(|(side, _)| hop["dev"] == *side);
        side.map(|&(_, name)| name).ok_or(LabError::Output { program: "ip", line: hop.to_string() })
    };
    hops.map(name).collect()
}

fn child_of(parent: u32) -> Option<Pid> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok().map(Pid::from_raw)
}

fn bridge(fleet: &Fleet, times: &[&str]) -> Process {
    let weir = weir(fleet, BY_BIRD);
    let program = weir.program().display().to_string();
    run(fleet, weir.namespace(), "bridge", &[&[program.as_str(), "announce", "--table", "87"], times].concat())
}

fn bird(fleet: &Fleet, namespace: &Namespace, file: &str) -> Process {
    let text = with_addresses(&read(file)).replace("log syslog all;", "log stderr all;");
    let config = write(fleet, file, &text);
    let socket = fleet.lab.directory().join(file).with_extension("ctl").display().to_string();
    run(fleet, namespace, file, &["bird", "-f", "-c", &config, "-s", &socket])
}

fn exabgp(fleet: &Fleet, times: &[&str]) -> Process {
    const FILE: &str = "exabgp.conf";
    let weir = weir(fleet, BY_EXABGP);
    let run_by_hand = "run /usr/local/bin/weir announce --exabgp;";
    let run_here = format!("run {} announce --exabgp {};", weir.program().display(), times.join(" "));
    let text = with_addresses(&replaced(&read(FILE), run_by_hand, &run_here));
    let config = write(fleet, FILE, &text);
    // As whoever it is started, with no pipes for its command line.
    let environment = ["exabgp.daemon.drop=false", "exabgp.api.cli=false"];
    let command = [&["env"][..], &environment, &["python3-exabgp", &config]].concat();
    run(fleet, weir.namespace(), FILE, &command)
}

/// Starts a command whose log has a name.
fn run(fleet: &Fleet, namespace: &Namespace, name: &str, command: &[&str]) -> Process {
    let log = fleet.lab.directory().join(name).with_extension("log");
    Process::start(namespace, Path::new(command[0]), &command[1..], log).expect("`cargo xtask setup` installs it")
}

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/bgp").join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn write(fleet: &Fleet, file: &str, text: &str) -> String {
    let path = fleet.lab.directory().join(file);
    fs::write(&path, text).expect("it is written");
    path.display().to_string()
}

/// The addresses of a file of `deploy/bgp`, as they are in the lab, and its hold time as short as may be.
fn with_addresses(text: &str) -> String {
    let (first, second) = (balancer(1), balancer(2));
    // A balancer's file has one router, which is another address at each.
    let router = if text.contains("10.0.0.6") { second.router() } else { first.router() };
    let addresses = [
        ("10.0.0.1", router.v4.to_string()),
        ("fd00::1", router.v6.to_string()),
        ("10.0.0.5", first.v4.to_string()),
        ("fd00::5", first.v6.to_string()),
        ("10.0.0.6", second.v4.to_string()),
        ("fd00::6", second.v6.to_string()),
    ];
    let text = addresses.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
    // In words of either daemon; keepalives are a third of it unless said otherwise.
    text.replace("hold time 9;", "hold time 3;")
        .replace("keepalive time 3;", "")
        .replace("hold-time 9;", "hold-time 3;")
}

/// A text with a part of it replaced that it must have.
fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from} is not in\n{text}");
    text.replace(from, to)
}
