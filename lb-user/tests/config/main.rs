//! The configuration: good files become what they say, bad ones the exact message.
//!
//! Each `config/NAME.toml` is bad, and `config/NAME.expected` is what the operator reads. What is long or needs a key
//! file is made here, and what an agent mints for in `agent_token.rs`.

mod agent_token;

use lb_common::{ids::Token, stateless::TokenId};
use lb_user::config::{
    Affinity, BackendState, Config, ConfigErrors, Forward, Join, Oddity, PoolIndex, Ports, Protocol, TcpFragments,
    UnknownJoin, Way, XdpMode,
};
use proptest::prelude::*;
use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

const SMALL: &str = r#"
[balancer]
interface = "eth0"
[[pool]]
name = "web"
[[pool.backend]]
name = "b1"
address = "10.0.1.1"
[[vip]]
address = "192.0.2.1"
protocol = "tcp"
port = 443
pool = "web"
"#;

const FULL: &str = r#"
[balancer]
interface = ["eth0", "eth1"]
xdp_mode = "generic"
source_v4 = "10.0.0.5"
source_v6 = "2001:db8:5::/96"
gue_port = 6081
[metrics]
listen = "127.0.0.1:9107"
[limits]
tokens = 1024
joined_flows = 2048
pending_handshakes = 4096
embryonic_flows = 8192
datagram_flows = 16384
fragmented_datagrams = 1025
entries_per_network = 1
joins_per_token = 2
icmp_errors_per_cpu = 0
[[pool]]
name = "web"
join = "off"
unknown_join = "reset"
learn_unseen = true
forward = "l2"
affinity = "source"
tcp_fragments = "forward"
udp_transition_s = 0
quic_rotation = [0, 3]
drain_timeout_s = 60
slow_start_s = 30
[[pool.backend]]
name = "b1"
address = "10.0.1.1"
weight = 0
state = "down"
quic_server_id = "0a1b"
[[pool.backend]]
name = "b2"
address = "2001:db8:1::2"
weight = 10000
quic_server_id = "0A1C"
[[pool]]
name = "spare"
[[pool.backend]]
name = "b1"
address = "10.0.1.1"
[[vip]]
name = "web-v4"
address = "192.0.2.1"
protocol = "tcp"
port = 443
pool = "web"
[[vip]]
address = "2001:db8::1"
protocol = "tcp"
port = 443
pool = "web"
[[vip]]
address = "192.0.2.0/24"
protocol = "udp"
port = "any"
pool = "web"
[[vip]]
address = "192.0.2.1"
protocol = "tcp"
port = "8000-8010"
pool = "web"
"#;

fn refusal(text: &str) -> String {
    match Config::parse(text, "weir.toml") {
        Ok(config) => panic!("accepted: {config:#?}"),
        Err(errors) => errors.to_string(),
    }
}

#[test]
fn bad_files_are_refused_in_the_expected_words() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config");
    let mut cases = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let expected = fs::read_to_string(path.with_extension("expected")).unwrap_or_default();
        assert_eq!(refusal(&text), expected.trim_end(), "{}", path.display());
        cases += 1;
    }
    assert_eq!(cases, 50, "a case was added or lost");
}

#[test]
fn a_small_file_gets_the_defaults() {
    let config = Config::parse(SMALL, "weir.toml").unwrap();
    assert_eq!(config.summary(), "1 VIP, 1 pool, 1 backend");
    assert_eq!(config.balancer.interfaces, ["eth0".parse().unwrap()]);
    assert_eq!((config.balancer.source_v4, config.balancer.gue_port), (None, 6080));
    assert_eq!(config.balancer.xdp_mode, XdpMode::Native);
    assert!(config.balancer.cluster_key.is_none());
    assert_eq!(config.metrics, None);
    assert_eq!(config.limits.tokens, 1_048_576);
    assert_eq!(config.limits.joined_flows, 262_144);
    assert_eq!(config.limits.pending_handshakes, 262_144);
    assert_eq!(config.limits.embryonic_flows, 65_536);
    assert_eq!((config.limits.datagram_flows, config.limits.fragmented_datagrams), (262_144, 16_384));
    let limits = &config.limits;
    assert_eq!((limits.entries_per_network, limits.joins_per_token, limits.icmp_errors_per_cpu), (4096, 16, 1000));
    let [pool] = &config.pools[..] else {
        panic!("one pool");
    };
    assert_eq!(pool.join, Join::By(vec![Way::Learn]));
    assert_eq!(pool.unknown_join, UnknownJoin::Drop);
    assert_eq!(pool.forward, Forward::Ipip);
    assert!(!pool.learn_unseen);
    assert_eq!((pool.drain_timeout.as_secs(), pool.slow_start.as_secs()), (3600, 0));
    assert_eq!((pool.affinity, pool.tcp_fragments), (Affinity::Flow, TcpFragments::Drop));
    assert_eq!((pool.udp_transition.as_secs(), &pool.quic_rotations[..]), (60, &[0][..]));
    assert_eq!((pool.backends[0].weight, pool.backends[0].state), (100, BackendState::Up));
    assert_eq!(pool.backends[0].quic_server_id, None);
    assert_eq!(config.vips[0].name, "192.0.2.1:443/tcp");
    assert!(config.warnings.is_empty());
}

#[test]
fn a_full_file_becomes_what_it_says() {
    let config = Config::parse(FULL, "weir.toml").unwrap();
    assert_eq!(config.summary(), "4 VIPs, 2 pools, 3 backends");
    assert_eq!(config.balancer.interfaces, ["eth0", "eth1"].map(|name| name.parse().unwrap()));
    assert_eq!(config.balancer.gue_port, 6081);
    assert_eq!(config.balancer.xdp_mode, XdpMode::Generic);
    assert_eq!(config.balancer.source_v4, "10.0.0.5".parse().ok());
    assert_eq!(config.balancer.source_v6, "2001:db8:5::/96".parse().ok());
    assert_eq!(config.metrics.unwrap().listen.port(), 9107);
    assert_eq!(config.limits.tokens, 1024);
    assert_eq!(config.limits.joined_flows, 2048);
    assert_eq!(config.limits.pending_handshakes, 4096);
    assert_eq!(config.limits.embryonic_flows, 8192);
    assert_eq!((config.limits.datagram_flows, config.limits.fragmented_datagrams), (16_384, 1025));
    let limits = &config.limits;
    assert_eq!((limits.entries_per_network, limits.joins_per_token, limits.icmp_errors_per_cpu), (1, 2, 0));
    let web = config.pool_of(&config.vips[1]);
    assert_eq!(web.name.as_str(), "web");
    assert_eq!(web.join, Join::Off);
    assert_eq!(web.unknown_join, UnknownJoin::Reset);
    assert_eq!(web.forward, Forward::L2);
    assert!(web.learn_unseen);
    assert_eq!((web.drain_timeout.as_secs(), web.slow_start.as_secs()), (60, 30));
    assert_eq!((web.backends[0].weight, web.backends[0].state), (0, BackendState::Down));
    assert_eq!(web.backends[1].weight, 10_000);
    assert_eq!((web.affinity, web.tcp_fragments), (Affinity::Source, TcpFragments::Forward));
    assert_eq!((web.udp_transition.as_secs(), &web.quic_rotations[..]), (0, &[0, 3][..]));
    assert_eq!(web.backends[1].quic_server_id.as_ref().unwrap().bytes(), [0x0a, 0x1c]);
    assert_eq!(config.vips[0].name, "web-v4");
    assert_eq!(config.vips[1].name, "[2001:db8::1]:443/tcp");
    assert_eq!(config.vips[1].pool, PoolIndex(0));
    assert_eq!((config.vips[2].address.ports, config.vips[2].address.protocol), (Ports::ANY, Protocol::Udp));
    assert_eq!(config.vips[2].name, "192.0.2.0/24:any/udp");
    assert_eq!(config.vips[3].name, "192.0.2.1:8000-8010/tcp");
}

#[test]
fn a_pool_is_checked_at_a_vip_of_each_family_unless_an_address_is_said() {
    let targets = |second_vip: &str, health: &str| {
        let vip = format!("[[vip]]\n{second_vip}\npool = \"web\"\n");
        let text = format!("{SMALL}{vip}[pool.health]\ncheck = \"tcp\"\n{health}");
        let config = Config::parse(&text, "weir.toml").unwrap_or_else(|errors| panic!("{errors}"));
        config.pools[0].health.as_ref().expect("it is checked").targets_words()
    };
    let v6 = "address = \"2001:db8::1\"\nprotocol = \"tcp\"\nport = 8443";
    assert_eq!(targets(v6, ""), "192.0.2.1:443, [2001:db8::1]:8443");
    assert_eq!(targets(v6, "port = 80"), "192.0.2.1:80, [2001:db8::1]:80");
    assert_eq!(targets(v6, "address = \"2001:db8::1\""), "[2001:db8::1]:8443");
    // What leaves a choice is not checked beside what leaves none.
    assert_eq!(targets(&v6.replace("8443", "\"any\""), ""), "192.0.2.1:443");
    assert_eq!(targets(&v6.replace("::1", "::/64"), "port = 80"), "192.0.2.1:80");
    assert_eq!(targets(&v6.replace("2001:db8::1", "192.0.2.2"), ""), "192.0.2.1:443");
}

#[test]
fn an_unused_pool_and_no_vip_are_warnings() {
    let config = Config::parse(FULL, "weir.toml").unwrap();
    let [warning] = &config.warnings[..] else {
        panic!("one warning: {:?}", config.warnings);
    };
    assert_eq!(warning.what, Oddity::UnusedPool);
    assert_eq!(warning.to_string(), "weir.toml:43:1: pool \"spare\": no VIP uses this pool");

    let without_vip = SMALL.split("[[vip]]").next().unwrap();
    let config = Config::parse(without_vip, "weir.toml").unwrap();
    let oddities: Vec<_> = config.warnings.iter().map(|warning| warning.what.clone()).collect();
    assert_eq!(oddities, [Oddity::NoVip, Oddity::UnusedPool]);
}

#[test]
fn a_pool_of_which_no_backend_is_up_is_a_warning() {
    for (state, odd) in [("up", false), ("drain", true), ("down", true)] {
        let text = SMALL.replace("address = \"10.0.1.1\"", &format!("address = \"10.0.1.1\"\nstate = \"{state}\""));
        let config = Config::parse(&text, "weir.toml").unwrap();
        let oddities: Vec<_> = config.warnings.iter().map(|warning| warning.what.clone()).collect();
        assert_eq!(oddities == [Oddity::NoneUp], odd, "{state}: {oddities:?}");
        assert_eq!(config.pools[0].backends[0].state.as_str(), state);
    }
}

#[test]
fn an_error_names_its_field_by_path() {
    let text = SMALL.replace("address = \"10.0.1.1\"", "address = \"10.0.1.1\"\nweight = 20000");
    let Err(ConfigErrors::Wrong(errors)) = Config::parse(&text, "weir.toml") else {
        panic!("refused");
    };
    assert_eq!(errors[0].field(), "pool[0].backend[0].weight");
    assert_eq!((errors[0].line(), errors[0].column()), (9, 10));
}

#[test]
fn numbers_of_things_are_limited() {
    let backends = |range: std::ops::Range<u32>| {
        range.fold(String::new(), |mut text, i| {
            let address = std::net::Ipv4Addr::from_bits(0x0a00_0001 + i);
            writeln!(text, "[[pool.backend]]\nname = \"b{i}\"\naddress = \"{address}\"").unwrap();
            text
        })
    };
    let vips = |range: std::ops::Range<u32>, ports: u32| {
        range.fold(String::new(), |mut text, i| {
            let (address, port) = (std::net::Ipv4Addr::from_bits(0xc000_0201 + i / ports), 1 + i % ports);
            writeln!(text, "[[vip]]\naddress = \"{address}\"\nprotocol = \"tcp\"\nport = {port}\npool = \"p0\"")
                .unwrap();
            text
        })
    };
    let pools = |range: std::ops::Range<u32>| {
        range.fold(String::new(), |mut text, i| {
            write!(text, "[[pool]]\nname = \"p{i}\"\n{}", backends(0..1)).unwrap();
            text
        })
    };
    let prefixes = |range: std::ops::Range<u32>| {
        range.fold(String::new(), |mut text, i| {
            let address = std::net::Ipv4Addr::from_bits(0xc000_0000 + i * 2);
            writeln!(text, "[[vip]]\naddress = \"{address}/31\"\nprotocol = \"tcp\"\nport = 1\npool = \"p0\"").unwrap();
            text
        })
    };
    let endpoints = |count: u32| {
        let backends = (0..count).fold(String::new(), |mut text, i| {
            let address = std::net::Ipv4Addr::from_bits(0x0a00_0001 + i);
            writeln!(text, "[[pool.backend]]\nname = \"b{i}\"\naddress = \"{address}\"\njoin_port = {}", 4000 + i)
                .unwrap();
            text
        });
        format!("[[pool]]\nname = \"p0\"\njoin = [\"endpoint\"]\n{backends}")
    };
    let servers = |range: std::ops::Range<u32>, rotations: &str| {
        let backends = range.fold(String::new(), |mut text, i| {
            let address = std::net::Ipv4Addr::from_bits(0x0a00_0001 + i);
            writeln!(text, "[[pool.backend]]\nname = \"b{i}\"\naddress = \"{address}\"\nquic_server_id = \"{i:04x}\"")
                .unwrap();
            text
        });
        format!("[[pool]]\nname = \"p0\"\nquic_rotation = {rotations}\n{backends}")
    };
    let balancer = "[balancer]\ninterface = \"eth0\"\n";
    let one_pool = "[[pool]]\nname = \"p0\"\n";

    for (at_limit, above, message) in [
        (
            format!("{balancer}{one_pool}{}{}", backends(0..4096), vips(0..1, 1)),
            format!("{balancer}{one_pool}{}{}", backends(0..4097), vips(0..1, 1)),
            "weir.toml:12293:1: pool \"p0\": backend \"b4096\": there are 4097 backends, and 4096 are the most that one balancer serves; split them over balancers",
        ),
        (
            format!("{balancer}{}{}", pools(0..64), vips(0..1, 1)),
            format!("{balancer}{}{}", pools(0..65), vips(0..1, 1)),
            "weir.toml:323:1: pool \"p64\": there are 65 pools, and 64 are the most that one balancer serves; split them over balancers",
        ),
        (
            format!("{balancer}{}{}", pools(0..1), vips(0..1024, 64)),
            format!("{balancer}{}{}", pools(0..1), vips(0..1025, 64)),
            "weir.toml:5128:1: vip[1024]: there are 1025 VIPs, and 1024 are the most that one balancer serves; split them over balancers",
        ),
        (
            format!("{balancer}{}{}", endpoints(1023), vips(0..1, 1)),
            format!("{balancer}{}{}", endpoints(1024), vips(0..1, 1)),
            "weir.toml:4098:1: pool \"p0\": backend \"b1023\": there are 1025 VIPs and join ports with this address, and 1024 are the most that one balancer serves; split them over balancers",
        ),
        (
            format!("{balancer}{}{}", pools(0..1), prefixes(0..256)),
            format!("{balancer}{}{}", pools(0..1), prefixes(0..257)),
            "weir.toml:1288:1: vip[256]: there are 257 prefixes, and 256 are the most that one balancer serves; split them over balancers",
        ),
        (
            format!("{balancer}{}{}", servers(0..1024, "[0, 1, 2, 3]"), vips(0..1, 1)),
            format!("{balancer}{}{}", servers(0..1025, "[0, 1, 2, 3]"), vips(0..1, 1)),
            "weir.toml:3:1: pool \"p0\": there are 4100 QUIC server ids (one for each backend and rotation), and 4096 are the most that one balancer serves; split them over balancers",
        ),
    ] {
        assert!(Config::parse(&at_limit, "weir.toml").is_ok(), "{message}");
        assert_eq!(refusal(&above), message);
    }
}

#[test]
fn the_cluster_key_is_its_owners_alone_and_never_printed() {
    const KEY: &str = "00112233445566778899aabbccddeeff";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cluster.key");
    let shown = path.display().to_string();
    let text = SMALL.replace("\"eth0\"", &format!("\"eth0\"\ncluster_key_file = {shown:?}"));
    let refused = |content: &str, mode: u32| {
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let message = refusal(&text);
        assert!(!message.contains("0011"), "{message}");
        message.replace(&shown, "KEY")
    };
    let place = "weir.toml:4:20: balancer.cluster_key_file: ";

    let missing = refusal(&text).replace(&shown, "KEY");
    assert!(missing.starts_with(&format!("{place}KEY: No such file or directory")), "{missing}");
    for mode in [0o640, 0o604, 0o620, 0o666] {
        let wrong = format!(
            "{place}KEY has the rights {mode:04o}, so others may read the secret; `chmod 0600 KEY`, and change the secret if they did"
        );
        assert_eq!(refused(KEY, mode), wrong);
    }
    let malformed = format!(
        "{place}KEY does not hold exactly 32 hexadecimal digits (and in a second line those of the former key, while it is changed); write them with `openssl rand -hex 16`"
    );
    for content in ["", &KEY[1..], &format!("{KEY}0"), &format!("+{}", &KEY[1..]), &format!("{KEY}\n{KEY}\n{KEY}")] {
        assert_eq!(refused(content, 0o600), malformed, "{content:?}");
    }

    fs::write(&path, format!("{KEY}\n")).unwrap();
    for mode in [0o600, 0o400] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let config = Config::parse(&text, "weir.toml").unwrap();
        let printed = format!("{config:?}");
        assert!(printed.contains("ClusterKey(secret)"), "{printed}");
        let key = config.balancer.cluster_key.unwrap();
        assert_eq!(u128::from_be_bytes(*key.bytes()), 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
        assert_eq!(key.former(), None);
    }

    let former = "ffeeddccbbaa99887766554433221100";
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    for (second, expected) in [(former, Some(0xffee_ddcc_bbaa_9988_7766_5544_3322_1100)), (KEY, None)] {
        fs::write(&path, format!("{KEY}\n {second}\n")).unwrap();
        let key = Config::parse(&text, "weir.toml").unwrap().balancer.cluster_key.unwrap();
        assert_eq!(key.former().map(|former| u128::from_be_bytes(*former)), expected);
    }
}

#[test]
fn tokens_that_name_backends_have_a_secret_and_ids_of_their_own() {
    const KEY: &str = "00112233445566778899aabbccddeeff";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token.secret");
    fs::write(&path, format!("[[epoch]]\nnumber = 2\nminted_from = 2026-01-02T03:04:05Z\nkey = \"{KEY}\"\n")).unwrap();
    let pool =
        format!("name = \"web\"\njoin = [\"learn\", \"token\"]\n[pool.token]\nsecret = {path:?}\nmax_backends = 16\n");
    let text = SMALL.replace("name = \"web\"\n", &pool);
    let text = text.replace("\"10.0.1.1\"", "\"10.0.1.1\"\ntoken_id = 15");
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    assert!(refusal(&text).contains("token.secret: ") && refusal(&text).contains("has the rights 0644"));

    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    let config = Config::parse(&text, "weir.toml").unwrap();
    let printed = format!("{config:?}");
    assert!(!printed.contains("00112233") && !printed.contains("ccddeeff"), "{printed}");
    let [pool] = &config.pools[..] else { panic!("one pool") };
    assert_eq!(pool.join, Join::By(vec![Way::Learn, Way::Token]));
    assert_eq!(pool.backends[0].token_id, Some(TokenId(15)));
    let token = pool.token.as_ref().unwrap();
    assert_eq!((token.bits.count(), token.secret.epochs().len()), (4, 1));
    // By hand: SipHash-1-3 of the token's bytes under the key of its epoch, of which four bits count.
    let key = u128::from_str_radix(KEY, 16).unwrap().to_be_bytes();
    for wire in [[0x80, 0, 0, 1], [0x9a, 0xbc, 0xde, 0xf0], [0xbf, 0xff, 0xff, 0xff]] {
        let id = siphasher::sip::SipHasher13::new_with_key(&key).hash(&wire) % 16;
        assert_eq!(token.codec().decode(Token::from_wire(wire)).map(|TokenId(id)| u64::from(id)), Some(id));
    }
    assert_eq!(token.codec().decode(Token::from_wire([0x40, 0, 0, 1])), None, "an epoch without a key");
}

const BUS: &str = "[bus]\nservers = [\"nats://10.0.0.9:4222\", \"tls://nats.example:4222\"]\ncluster = \"edge1\"\n";

#[test]
fn a_bus_is_what_its_table_says_and_wants_a_cluster_key() {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let config = Config::parse(&format!("{SMALL}{BUS}"), "weir.toml").unwrap();
    let oddities: Vec<_> = config.warnings.iter().map(|warning| warning.what.clone()).collect();
    assert_eq!(oddities, [Oddity::BusWithoutKey]);
    let bus = config.bus.unwrap();
    assert_eq!(bus.servers, ["nats://10.0.0.9:4222", "tls://nats.example:4222"]);
    assert_eq!((bus.cluster.as_str(), bus.name.as_str()), ("edge1", host.trim()));
    assert_eq!((bus.credentials.is_none(), bus.ca), (true, None));

    let folder = tempfile::tempdir().unwrap();
    let [key, ca] = ["cluster.key", "ca.pem"].map(|name| folder.path().join(name));
    fs::write(&key, "00112233445566778899aabbccddeeff").unwrap();
    fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls/cert.pem"), &ca).unwrap();
    let text = SMALL.replace("\"eth0\"", &format!("\"eth0\"\ncluster_key_file = {key:?}"));
    let text = format!("{text}{BUS}name = \"lb1\"\nca = {ca:?}\n");
    let config = Config::parse(&text, "weir.toml").unwrap();
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    let bus = config.bus.unwrap();
    assert_eq!((bus.name.as_str(), bus.ca), ("lb1", Some(ca)));
}

#[test]
fn the_credentials_of_the_bus_are_its_owners_alone_bounded_and_never_printed() {
    const SECRET: &str = "SUAIBDPBAUTWCWBKIO6XHQNINK5FWJW4OHLXC3HQ2KFE4PEJUA44CNHTC4";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nats.creds");
    let text = format!("{SMALL}{BUS}credentials = {path:?}\n");
    let write = |content: &str, mode: u32| {
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    };
    let refused = |content: &str, mode: u32| {
        write(content, mode);
        let message = refusal(&text);
        assert!(message.contains("bus.credentials: ") && !message.contains(SECRET), "{message}");
        message
    };
    assert!(refused(SECRET, 0o640).contains("has the rights 0640, so others may read the secret; `chmod 0600 "));
    let longest = SECRET.repeat(65_536 / SECRET.len() + 1);
    assert!(
        refused(&longest[..65_537], 0o600).contains("it has 65537 bytes, and a file of credentials has at most 65536")
    );
    write(&longest[..65_536], 0o600);
    assert!(Config::parse(&text, "weir.toml").is_ok());

    write(SECRET, 0o600);
    let config = Config::parse(&text, "weir.toml").unwrap();
    let printed = format!("{config:?}");
    assert!(printed.contains("Credentials(secret)") && !printed.contains(SECRET), "{printed}");
    assert_eq!(config.bus.unwrap().credentials.unwrap().text(), SECRET);

    fs::remove_file(&path).unwrap();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).unwrap();
    assert!(refusal(&text).contains("is not a plain file; name a NATS credentials file"));
}

#[test]
fn a_key_file_that_is_no_plain_file_does_not_hang_the_check() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).unwrap();
    for path in [&fifo, folder.path()] {
        let text = SMALL.replace("\"eth0\"", &format!("\"eth0\"\ncluster_key_file = {path:?}"));
        assert!(refusal(&text).contains("is not a plain file; name a file with 32 hexadecimal digits"));
    }
    let relative = SMALL.replace("\"eth0\"", "\"eth0\"\ncluster_key_file = \"weir.key\"");
    assert_eq!(
        refusal(&relative),
        "weir.toml:4:20: balancer.cluster_key_file: weir.key is not an absolute path; write it from / on"
    );
}

#[test]
fn certificates_are_read_from_a_plain_file_of_a_sane_size() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    let texts = [
        format!("{SMALL}[pool.health]\ncheck = \"https\"\nca_file = {path:?}\n"),
        format!("{SMALL}{BUS}ca = {path:?}\n"),
    ];
    let refused = |words: &str| {
        for text in &texts {
            assert!(refusal(text).contains(words), "{}", refusal(text));
        }
    };
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).unwrap();
    refused("ca.pem: it is no regular file; copy what it says to one; name a file of PEM");
    fs::remove_file(&path).unwrap();
    fs::File::create(&path).unwrap().set_len(1 << 30).unwrap();
    refused("ca.pem: it has 1073741824 bytes, and a file of certificates has at most 4194304;");
    fs::write(&path, "nonsense").unwrap();
    refused("ca.pem holds no PEM certificate");
}

#[test]
fn an_unreadable_file_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("weir.toml");
    let error = Config::load(&missing).unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "{}: No such file or directory (os error 2); write it, or name another with --config",
            missing.display()
        )
    );
    fs::write(&missing, [0xff, 0xfe]).unwrap();
    let error = Config::load(&missing).unwrap_err().to_string();
    assert!(error.ends_with("save it as UTF-8 text"), "{error}");
}

proptest! {
    /// Any text gives a configuration or errors that have a place in it.
    #[test]
    fn any_text_is_judged(text in any::<String>()) {
        judge(&text)?;
    }

    /// A good text with a piece replaced gets further into the checks.
    #[test]
    fn any_damage_is_judged(
        from in 0..FULL.len(),
        length in 0..40usize,
        piece in prop_oneof![
            Just("\"\"".to_owned()), Just("-1".to_owned()), Just("[]".to_owned()), Just("{}".to_owned()),
            Just("\n[[pool]]\n".to_owned()), Just("\n[[vip]]\n".to_owned()), "[\\PC\n]{0,12}",
        ],
    ) {
        let to = (from + length).min(FULL.len());
        judge(&format!("{}{piece}{}", &FULL[..from], &FULL[to..]))?;
    }
}

fn judge(text: &str) -> Result<(), TestCaseError> {
    let Err(ConfigErrors::Wrong(errors)) = Config::parse(text, "weir.toml") else {
        return Ok(());
    };
    prop_assert!(!errors.is_empty());
    for error in errors {
        let line = text.split('\n').nth(error.line() - 1);
        let Some(line) = line else {
            return Err(TestCaseError::fail(format!("no such line: {error}")));
        };
        prop_assert!(error.column() <= line.chars().count() + 1, "no such column: {}", error);
    }
    Ok(())
}
