//! `/healthz` and the log say when no packet is steered, and why: whoever announces the VIPs goes by it.

use crate::{
    stage::{CONFIG, Running, Stage, WEIR, sh, text, until},
    supervisor::Hanging,
};
use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    process::Command,
    time::Duration,
};

const PAGE_LIMIT: Duration = Duration::from_mins(2);

/// The status and the text of `/healthz`.
pub(crate) fn health() -> (String, String) {
    get("/healthz")
}

pub(crate) fn get(page: &str) -> (String, String) {
    get_from(9107, page).expect("it listens")
}

/// The status and the text of a page at a local port, if somebody listens there.
pub(crate) fn get_from(port: u16, page: &str) -> Option<(String, String)> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    // Whoever does not answer at all is not waited for without an end.
    stream.set_read_timeout(Some(PAGE_LIMIT)).expect("a setting");
    let request = format!("GET {page} HTTP/1.1\r\nhost: weir\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it is sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let status = answer.split_whitespace().nth(1).unwrap_or_default().to_owned();
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    Some((status, body.to_owned()))
}

pub(crate) fn becomes(status: &str, words: &str) {
    until(&format!("{status} {words:?}"), || health() == (status.to_owned(), words.to_owned()));
}

fn order(stage: &Stage, order: &str) {
    let socket = stage.socket();
    let done = Command::new(WEIR).args(["backend", order, "b1", "--socket"]).arg(socket).output().expect("weir starts");
    assert!(done.status.success(), "{}", text(&done.stderr));
}

#[test]
fn health_tells_that_and_why_no_packet_is_steered() {
    let stage = Stage::new();
    fs::write(stage.config(), format!("{CONFIG}[metrics]\nlisten = \"127.0.0.1:9107\"\n")).expect("written");
    let mut weir: Running = stage.run();
    becomes("200", "ok\n");

    // Its connections go on, so packets are steered: but new ones are not.
    order(&stage, "drain");
    weir.wait_for("takes new connections: each is dropped");
    assert_eq!(health().0, "200");
    order(&stage, "enable");

    sh("ip neigh flush dev weir0");
    stage.in_peer("ip link set peer0 down");
    becomes("503", "no backend can be reached\n");
    weir.wait_for("no packet is steered: no backend can be reached");
    stage.in_peer("ip link set peer0 up");
    becomes("200", "ok\n");
    weir.wait_for("packets are steered again");

    sh("ip link del weir0");
    becomes("503", "there is no XDP program on weir0\n");
}

/// Runs a line of shell where a running Weir has its BPF file system.
fn beside(weir: &Running, line: &str) {
    let target = weir.pid().to_string();
    let done = Command::new("nsenter").args(["--mount", "--target", &target, "sh", "-c", line]).output();
    let done = done.expect("nsenter starts");
    assert!(done.status.success(), "{line}: {}", text(&done.stderr));
}

/// A balancer whose data path is to outlive it.
fn staying(stage: &Stage) -> Running {
    let staying = CONFIG.replace("on_stop = \"detach\"", "");
    fs::write(stage.config(), format!("{staying}[metrics]\nlisten = \"127.0.0.1:9107\"\n")).expect("written");
    stage.run()
}

#[test]
fn pins_that_somebody_removes_are_missed_at_once_and_at_the_end() {
    let stage = Stage::new();
    let mut weir = staying(&stage);
    becomes("200", "ok\n");
    assert!(get("/metrics").1.contains("\nweir_pins_lost 0\n"));

    // What steers goes on, but nobody will take it over.
    beside(&weir, "rm /sys/fs/bpf/weir/v*/weir_tokens");
    weir.wait_for(
        "somebody has removed 1 pin under /sys/fs/bpf/weir, weir_tokens for one: no other weir can take over",
    );
    assert!(get("/metrics").1.contains("\nweir_pins_lost 1\n"));
    assert_eq!(health().0, "200");

    beside(&weir, "rm -r /sys/fs/bpf/weir");
    becomes("503", "there is no XDP program on weir0\n");
    weir.wait_for(
        "weir_globals for one: nothing steers after this process; to mend it, stop weir, `weir detach --pins",
    );
    let (code, log) = weir.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("ending; somebody has removed") && !log.contains("goes on steering"), "{log}");

    let again = staying(&stage);
    becomes("200", "ok\n");
    let (_, log) = again.end();
    assert!(log.contains("ending; weir0 goes on steering, until `weir detach`"), "{log}");
}

#[test]
fn a_loop_that_hangs_is_not_well() {
    let stage = Stage::new();
    let weir = staying(&stage);
    becomes("200", "ok\n");
    let hanging = Hanging::of(&weir);
    until("it is missed", || health().1.starts_with("weir has hung for "));
    assert_eq!(health().0, "503");
    assert_eq!(get("/livez").0, "503");
    let (_, metrics) = get("/metrics");
    let silence = metrics.lines().find_map(|line| line.strip_prefix("weir_loop_silence_seconds "));
    assert!(silence.is_some_and(|seconds| seconds.parse::<u64>().is_ok_and(|seconds| seconds >= 20)), "{silence:?}");
    assert!(metrics.contains("\nweir_ready 0\n"));
    drop(hanging);
    becomes("200", "ok\n");
    assert_eq!(weir.end().0, Some(0));
}

#[test]
fn an_agent_tells_that_its_interface_has_been_made_anew_and_takes_no_tunnel_off() {
    let stage = Stage::new();
    let agent = "[agent]\nbackend = \"b1\"\ninterface = \"weir0\"\nxdp_mode = \"generic\"\nbalancers = [\"10.77.0.9\"]\n\
                 [metrics]\nlisten = \"127.0.0.1:9107\"\n\
                 [[vip]]\naddress = \"192.0.2.1\"\nport = 443\npool = \"web\"\n";
    fs::write(stage.config(), agent).expect("written");
    let config = stage.config().display().to_string();
    let mut running = stage.start(WEIR, &["agent".to_owned(), "--config".to_owned(), config], &[]);
    running.wait_for("ready");
    becomes("200", "ok\n");
    let xdp_modes = || {
        let (_, metrics) = get("/metrics");
        metrics.lines().filter(|line| line.starts_with("weir_agent_xdp_mode")).map(str::to_owned).collect::<Vec<_>>()
    };
    until("the metrics say it", || xdp_modes() == ["weir_agent_xdp_mode{interface=\"weir0\",mode=\"generic\"} 1"]);

    sh("ip link del weir0; ip link add weir0 type veth peer name other0; ip link set weir0 up");
    becomes("503", "there is no XDP program on weir0\n");
    running.wait_for("no tunnel is taken off: there is no XDP program on weir0 any more");
    assert_eq!(get("/livez").0, "200");
    until("the metrics say it", || xdp_modes() == ["weir_agent_xdp_mode{interface=\"weir0\",mode=\"none\"} 1"]);
}

/// The only source port that there is, is somebody else's.
#[test]
fn checks_that_this_machine_cannot_make_are_told_and_counted() {
    let stage = Stage::new();
    sh("ip route add 192.0.2.1 via 10.77.0.2");
    let taken = TcpListener::bind("0.0.0.0:40000").expect("a port");
    sh("sysctl -w net.ipv4.ip_local_port_range='40000 40000'");
    let checked = "[pool.health]\ncheck = \"tcp\"\ninterval_ms = 100\ntimeout_ms = 50\n[[pool.backend]]";
    let config = CONFIG.replace("[[pool.backend]]", checked);
    fs::write(stage.config(), format!("{config}[metrics]\nlisten = \"127.0.0.1:9107\"\n")).expect("written");
    let mut weir = stage.run();
    weir.wait_for("backend b1 of pool web cannot be checked, and stays what it is: no socket for the check");

    sh("sysctl -w net.ipv4.ip_local_port_range='32768 60999'");
    drop(taken);
    let count = |name: &str| {
        let (_, metrics) = get("/metrics");
        let value = metrics.lines().find_map(|line| line.strip_prefix(&format!("{name} ")).map(str::to_owned));
        value.and_then(|value| value.parse::<u64>().ok()).expect("a count")
    };
    assert!(count("weir_health_checks_unmade_total{pool=\"web\",backend=\"b1\"}") > 0);
    let failed = "weir_health_checks_total{pool=\"web\",backend=\"b1\",result=\"failed\"}";
    until("checks are made again", || count(failed) > 0);
    assert_eq!(weir.end().0, Some(0));
}

#[test]
fn checks_keep_to_their_tunnels_when_the_interface_of_the_route_to_the_vip_is_made_anew() {
    let stage = Stage::new();
    let make = "ip link add out0 type veth peer name out1 && ip addr add 10.88.0.1/24 dev out0 && ip link set out1 up && \
                ip link set out0 up && ip neigh add 10.88.0.2 lladdr 02:00:00:00:00:03 dev out0 nud permanent && \
                ip route add 192.0.2.1 via 10.88.0.2";
    sh(make);
    let checked = "[pool.health]\ncheck = \"tcp\"\ninterval_ms = 100\ntimeout_ms = 50\n[[pool.backend]]";
    fs::write(stage.config(), CONFIG.replace("[[pool.backend]]", checked)).expect("written");
    let weir = stage.run();
    let checks_arrive = || stage.in_peer("timeout 100 tcpdump -i peer0 -c 3 'ip proto 4 and dst 10.77.0.2'");
    checks_arrive();

    sh(&format!("ip link del out0 && {make}"));
    checks_arrive();
    let files = || fs::read_dir(format!("/proc/{}/fd", weir.pid())).expect("it runs").count();
    let before = files();
    for _ in 0..10 {
        sh(&format!("ip link del out0 && {make}"));
        checks_arrive();
    }
    // A check may be under way or not.
    assert!(files() < before + 5, "{before} files before, {} after", files());
    let (code, log) = weir.end();
    assert_eq!(code, Some(0), "{log}");
}
