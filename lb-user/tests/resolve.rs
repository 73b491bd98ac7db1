//! The resolver against the kernel, in network namespaces of its own: what `ip` says is what it must say.
//!
//! Needs root. Each test moves its own thread into a new namespace, joined by a veth pair to a second one that lives as
//! long as a child process, so nothing is left behind.

use lb_user::resolve::{Changes, Mac, NextHop, Reach, ResolveError, Resolver, Target};
use nix::sched::{CloneFlags, unshare};
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::time::timeout;

/// Far above what any step takes; only a broken resolver waits so long.
const DEADLINE: Duration = Duration::from_secs(30);

/// `weir0` (10.77.0.1, `fd77::1`) here, `peer0` (2) in the namespace of `peer`.
struct Network {
    peer: Child,
}

impl Network {
    fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root: run them by `cargo xtask test`");
        let mut peer = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo ready; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare starts");
        let mut ready = [0; 6];
        let stdout = peer.stdout.as_mut().expect("piped");
        stdout.read_exact(&mut ready).expect("the peer says it is ready");

        let network = Self { peer };
        let pid = network.peer.id();
        ip("link set lo up");
        ip(&format!("link add weir0 type veth peer name peer0 netns {pid}"));
        ip("addr add 10.77.0.1/24 dev weir0");
        ip("addr add fd77::1/64 dev weir0 nodad");
        ip("link set weir0 mtu 1480 up");
        network.peer_ip("addr add 10.77.0.2/24 dev peer0");
        network.peer_ip("addr add fd77::2/64 dev peer0 nodad");
        network.peer_ip("link set peer0 up");
        network
    }

    fn peer_ip(&self, arguments: &str) -> String {
        self.in_peer(&format!("ip {arguments}"))
    }

    fn in_peer(&self, command: &str) -> String {
        run(&format!("nsenter --net --target {} {command}", self.peer.id()))
    }

    fn peer_mac(&self) -> Mac {
        mac(&self.peer_ip("-o link show peer0"))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        drop(self.peer.stdin.take());
        let _ = self.peer.wait();
    }
}

fn ip(arguments: &str) -> String {
    run(&format!("ip {arguments}"))
}

fn run(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().expect("sh starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {errors}");
    String::from_utf8(output.stdout).expect("text")
}

/// The address after `link/ether` in the output of `ip link show`.
fn mac(link: &str) -> Mac {
    let text = link.split("link/ether ").nth(1).expect("an Ethernet link");
    let mut bytes = text[..17].split(':').map(|byte| u8::from_str_radix(byte, 16).expect("hexadecimal"));
    std::array::from_fn(|_| bytes.next().expect("six bytes"))
}

fn target(address: &str, reach: Reach) -> Target {
    Target { backend: "b1".to_owned(), address: address.parse().expect("an address"), reach }
}

async fn resolve(resolver: &Resolver, address: &str, reach: Reach) -> Result<NextHop, ResolveError> {
    let target = target(address, reach);
    timeout(DEADLINE, resolver.next_hop(&target)).await.expect("an answer in time")
}

async fn routed(resolver: &Resolver, address: &str) -> NextHop {
    resolve(resolver, address, Reach::Routed).await.expect("a way")
}

async fn refusal(resolver: &Resolver, address: &str, reach: Reach) -> String {
    resolve(resolver, address, reach).await.expect_err("no way").to_string()
}

/// Resolves after each change until the way is as wanted: the way an owner of a resolver works.
async fn until(changes: &mut Changes, resolver: &Resolver, address: &str, wanted: impl Fn(&NextHop) -> bool) {
    let followed = async {
        loop {
            changes.next().await.expect("the resolver lives");
            if let Ok(hop) = resolver.next_hop(&target(address, Reach::Routed)).await
                && wanted(&hop)
            {
                return;
            }
        }
    };
    timeout(DEADLINE, followed).await.expect("the change is seen in time");
}

#[tokio::test]
async fn an_on_link_backend_is_reached_by_its_own_mac() {
    let network = Network::new();
    let resolver = Resolver::connect().expect("netlink");
    for (backend, source) in [("10.77.0.2", "10.77.0.1"), ("fd77::2", "fd77::1")] {
        for reach in [Reach::Routed, Reach::OnLink] {
            let hop = resolve(&resolver, backend, reach).await.expect("a way");
            assert_eq!(hop.interface_name, "weir0");
            assert_eq!(hop.source, source.parse::<IpAddr>().unwrap());
            assert_eq!(hop.source_mac, mac(&ip("-o link show weir0")));
            assert_eq!(hop.next_hop_mac, network.peer_mac());
            assert_eq!(hop.mtu, 1480);
        }
    }
}

#[tokio::test]
async fn a_backend_behind_a_gateway_is_reached_by_the_gateways_mac() {
    let network = Network::new();
    ip("route add 10.78.0.0/16 via 10.77.0.2 mtu 1400 src 10.77.0.1");
    ip("route add fd78::/64 via fd77::2");
    ip("route add 10.79.0.0/16 via inet6 fd77::2 src 10.77.0.1");
    let resolver = Resolver::connect().expect("netlink");
    for (backend, mtu) in [("10.78.0.9", 1400), ("fd78::9", 1480), ("10.79.0.9", 1480)] {
        let hop = routed(&resolver, backend).await;
        assert_eq!((hop.next_hop_mac, hop.mtu), (network.peer_mac(), mtu), "{backend}");
    }
    assert_eq!(
        refusal(&resolver, "10.78.0.9", Reach::OnLink).await,
        "backend \"b1\" 10.78.0.9 is behind the gateway 10.77.0.2 on weir0, where forward = \"l2\" cannot reach; use \"ipip\" or \"gue\""
    );
}

#[tokio::test]
async fn a_backend_without_a_way_is_refused_in_an_operators_words() {
    let _network = Network::new();
    ip("route add blackhole 10.80.0.0/16");
    let resolver = Resolver::connect().expect("netlink");
    assert_eq!(
        refusal(&resolver, "192.0.2.9", Reach::Routed).await,
        "no route to backend \"b1\" 192.0.2.9: Network is unreachable (os error 101); `ip route get 192.0.2.9` shows the same, add a route"
    );
    let blackhole = refusal(&resolver, "10.80.0.9", Reach::Routed).await;
    assert!(blackhole.starts_with("no route to backend \"b1\" 10.80.0.9: "), "{blackhole}");
    assert_eq!(
        refusal(&resolver, "10.77.0.1", Reach::Routed).await,
        "backend \"b1\" 10.77.0.1 is this machine itself; a backend must be another one"
    );
    for silent in ["10.77.0.99", "fd77::99"] {
        assert_eq!(
            refusal(&resolver, silent, Reach::Routed).await,
            format!(
                "no way to backend \"b1\" {silent}: {silent} does not answer on weir0; is it up? `ip neigh show {silent}` follows it"
            )
        );
    }
}

#[tokio::test]
async fn an_interface_is_found_by_name() {
    let _network = Network::new();
    let resolver = Resolver::connect().expect("netlink");
    let interface = resolver.interface("weir0").await.expect("it exists");
    let link = ip("-o link show weir0");
    assert_eq!(interface.index.to_string(), link.split(':').next().unwrap());
    assert_eq!((interface.mac, interface.mtu), (mac(&link), 1480));

    let missing = resolver.interface("weir9").await.unwrap_err().to_string();
    assert_eq!(missing, "there is no interface \"weir9\"; there are lo, weir0");
    let loopback = resolver.interface("lo").await.unwrap_err().to_string();
    assert_eq!(
        loopback,
        "interface lo is not Ethernet, so nothing can be sent by it to a MAC address; route by another"
    );
}

#[tokio::test]
async fn a_neighbours_new_mac_is_seen() {
    let network = Network::new();
    network.in_peer("sysctl -qw net.ipv4.conf.all.arp_notify=1");
    let resolver = Resolver::connect().expect("netlink");
    let old = routed(&resolver, "10.77.0.2").await;
    let mut changes = resolver.watch();

    network.peer_ip("link set peer0 address 02:00:00:00:00:77");
    until(&mut changes, &resolver, "10.77.0.2", |hop| hop.next_hop_mac == [2, 0, 0, 0, 0, 0x77]).await;
    assert_ne!(old.next_hop_mac, network.peer_mac());
}

#[tokio::test]
async fn a_silent_neighbour_is_asked_until_it_answers() {
    let network = Network::new();
    let resolver = Resolver::connect().expect("netlink");
    let mut changes = resolver.watch();
    refusal(&resolver, "10.77.0.3", Reach::Routed).await;

    network.peer_ip("addr add 10.77.0.3/24 dev peer0");
    until(&mut changes, &resolver, "10.77.0.3", |hop| hop.next_hop_mac == network.peer_mac()).await;
}

#[tokio::test]
async fn a_route_change_is_seen() {
    let network = Network::new();
    ip("link add weir1 type veth peer name other1");
    ip("addr add 10.81.0.1/24 dev weir1");
    ip("link set other1 up");
    ip("link set weir1 up");
    ip("neigh add 10.81.0.2 lladdr 02:00:00:00:00:81 dev weir1");
    ip("route add 10.82.0.0/16 via 10.77.0.2");
    let resolver = Resolver::connect().expect("netlink");
    assert_eq!(routed(&resolver, "10.82.0.9").await.next_hop_mac, network.peer_mac());
    let mut changes = resolver.watch();

    ip("route replace 10.82.0.0/16 via 10.81.0.2");
    until(&mut changes, &resolver, "10.82.0.9", |hop| hop.interface_name == "weir1").await;
    let hop = routed(&resolver, "10.82.0.9").await;
    assert_eq!(hop.next_hop_mac, [2, 0, 0, 0, 0, 0x81]);
    assert!(ip("neigh show 10.81.0.2").contains("PERMANENT"), "an operator's entry stays as it is");
}

#[tokio::test]
async fn a_stale_neighbour_is_confirmed_again() {
    let _network = Network::new();
    // An entry that was used within the delay is confirmed unasked; reachable lasts 0.5 to 1.5 of its base.
    for (key, value) in [("base_reachable_time_ms", 3000), ("delay_first_probe_time", 1)] {
        run(&format!("sysctl -qw net.ipv4.neigh.weir0.{key}={value}"));
    }
    let mut monitor = Command::new("ip").args(["monitor", "neigh"]).stdout(Stdio::piped()).spawn().expect("ip starts");
    let resolver = Resolver::connect().expect("netlink");
    routed(&resolver, "10.77.0.2").await;

    let seen = BufReader::new(monitor.stdout.take().expect("piped"));
    let confirmed = tokio::task::spawn_blocking(move || {
        let lines = seen.lines().map_while(Result::ok);
        let mut ours = lines.filter(|line| line.starts_with("10.77.0.2 "));
        ours.any(|line| line.contains("STALE")) && ours.any(|line| line.contains("REACHABLE"))
    });
    let confirmed = timeout(DEADLINE, confirmed).await;
    monitor.kill().expect("it runs");
    monitor.wait().expect("it ends");
    assert!(confirmed.expect("confirmed in time").expect("no panic"));
}
