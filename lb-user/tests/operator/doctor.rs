//! `weir doctor` on a machine that is sick for real: each finding is seen, what it says is typed, and it is gone.

use crate::stage::{CONFIG, Running, Stage, WEIR, sh, text, until, word};
use lb_user::object::OBJECT;
use serde_json::Value;
use std::{fs, process::Command};

/// A report.
struct Report {
    code: Option<i32>,
    json: Value,
}

impl Report {
    fn of(command: &mut Command) -> Self {
        let output = command.args(["--output", "json"]).output().expect("weir starts");
        let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!("{error}: {} {}", text(&output.stdout), text(&output.stderr));
        });
        Self { code: output.status.code(), json }
    }

    fn balancer(stage: &Stage) -> Self {
        let (config, socket) = (word(&stage.config()), word(&stage.socket()));
        Self::of(Command::new(WEIR).args(["doctor", "--config", &config, "--socket", &socket]))
    }

    fn backend(stage: &Stage, further: &[&str]) -> Self {
        Self::of(stage.inside_peer(WEIR).args(["doctor", "--backend"]).args(further))
    }

    /// What is found of a check, if it is not good: how bad, what, and what to type.
    fn trouble(&self, check: &str) -> Vec<(&str, &str, Option<&str>)> {
        let findings = self.json["findings"].as_array().expect("findings").iter();
        let bad = findings.filter(|finding| finding["check"] == check && finding["verdict"] != "good");
        let word = |finding: &'_ Value, key: &str| finding[key].as_str().map(str::to_owned);
        bad.map(|finding| {
            assert!(word(finding, "command").or(word(finding, "advice")).is_some(), "{finding}");
            let of = |key: &str| finding[key].as_str();
            (of("verdict").expect("a verdict"), of("what").expect("words"), of("command"))
        })
        .collect()
    }

    fn has(&self, check: &str) -> bool {
        self.json["findings"].as_array().expect("findings").iter().any(|finding| finding["check"] == check)
    }
}

/// Sees one finding, types what it says, and sees it gone.
fn heal(look: impl Fn() -> Report, check: &str, verdict: &str, words: &str, kind: impl Fn(&str) -> String) {
    let sick = look();
    let found = sick.trouble(check);
    let &[(how, what, Some(command))] = &found[..] else { panic!("{check}: {found:?} in {}", sick.json) };
    assert_eq!(how, verdict, "{what}");
    assert!(what.contains(words), "{what}");
    assert_eq!(sick.code, Some(i32::from(sick.json["faults"] != 0)), "{}", sick.json);
    kind(command);
    // A carrier, for one, takes the kernel a while.
    until(&format!("no {check} trouble after `{command}`"), || look().trouble(check).is_empty());
    assert!(look().has(check) || check == "mtu", "{check} was looked at");
}

#[test]
fn a_balancers_machine_is_healed_by_what_it_says() {
    let stage = Stage::new();
    let look = || Report::balancer(&stage);
    heal(look, "offload", "warning", "takes VLAN tags off", sh);
    let healthy = look();
    assert_eq!(
        (healthy.code, &healthy.json["faults"], &healthy.json["warnings"]),
        (Some(0), &0.into(), &0.into()),
        "{}",
        healthy.json
    );

    sh("ip link set dev weir0 mtu 1500");
    heal(look, "mtu", "warning", "1520 with the tunnel to b1", sh);
    sh("ip route change 10.77.0.0/24 dev weir0 src 10.77.0.1 mtu lock 1400");
    let narrow = look();
    let [("warning", _, command)] = narrow.trouble("mtu")[..] else { panic!("{}", narrow.json) };
    assert_eq!(command, Some("ip route show dev weir0"));
    assert!(sh("ip route show dev weir0").contains("mtu lock 1400"));
    sh("ip route change 10.77.0.0/24 dev weir0 src 10.77.0.1");
    assert_eq!(look().trouble("mtu"), []);

    sh("ip address add 192.0.2.1/32 dev lo");
    heal(look, "vip", "warning", "VIP 192.0.2.1 is an address of lo", sh);

    assert_eq!(look().trouble("source"), []);
    let config = fs::read_to_string(stage.config()).expect("the configuration");
    let spread = |prefix: &str| config.replace("[balancer]\n", &format!("[balancer]\nsource_v4 = {prefix:?}\n"));
    fs::write(stage.config(), spread("10.77.0.0/24")).expect("written");
    let shared = look();
    let [("warning", words, None)] = shared.trouble("source")[..] else { panic!("{}", shared.json) };
    assert!(words.starts_with("source_v4 = \"10.77.0.0/24\" holds 10.77.0.1 of weir0: "), "{words}");
    fs::write(stage.config(), spread("10.78.0.0/24")).expect("written");
    assert_eq!(look().trouble("source"), []);
    fs::write(stage.config(), config).expect("written");

    sh("ip link set dev weir0 down");
    heal(look, "interface", "fault", "weir0 is down", sh);

    stage.in_peer("ip link set dev peer0 down");
    until("the kernel notes it", || !look().trouble("interface").is_empty());
    let alone = look();
    assert_eq!(alone.code, Some(1));
    assert!(alone.trouble("interface")[0].1.contains("weir0 has no carrier"), "{}", alone.json);
    assert_eq!(alone.trouble("neighbour")[0].0, "fault");
    stage.in_peer("ip link set dev peer0 up");
    until("the neighbour answers", || look().code == Some(0));
    assert_eq!(look().trouble("neighbour"), []);
}

#[test]
fn who_sits_on_the_interface_is_told_and_how() {
    let stage = Stage::new();
    let look = || Report::balancer(&stage);
    // A file system of programs that ends with its shell; the interface keeps the program.
    let object = stage.folder.path().join("weir.bpf.o");
    fs::write(&object, OBJECT).expect("the object");
    let folder = word(stage.folder.path());
    let script = format!(
        "mkdir {folder}/pins && mount -t bpf bpf {folder}/pins && \
         bpftool prog loadall {folder}/weir.bpf.o {folder}/pins/all && \
         bpftool net attach xdp pinned {folder}/pins/all/weir_pass dev weir0"
    );
    sh(&format!("unshare --mount --propagation private sh -c '{script}'"));
    let id = sh("ip -json link show dev weir0");
    let id: Value = serde_json::from_str(&id).expect("JSON");
    let id = &id[0]["xdp"]["prog"]["id"];
    heal(look, "xdp", "fault", &format!("another program is on weir0: weir_pass (program {id})"), sh);

    let weir = stage.run();
    let found = look();
    assert_eq!(found.trouble("xdp"), []);
    assert!(found.json.to_string().contains("is on weir0, native"), "{}", found.json);
    assert_eq!(weir.end().0, Some(0));

    fs::write(stage.config(), CONFIG.replace("[balancer]", "[balancer]\nxdp_mode = \"generic\"")).expect("written");
    let weir: Running = stage.run();
    let slow = look();
    let [("warning", what, _)] = slow.trouble("xdp")[..] else { panic!("{}", slow.json) };
    assert!(what.contains("is on weir0, generic: slower"), "{what}");
    assert_eq!(weir.end().0, Some(0));

    fs::write(stage.config(), CONFIG.replace("weir0", "weir7")).expect("written");
    let nowhere = look();
    assert_eq!(nowhere.trouble("interface")[0].1, "there is no interface weir7");
    assert_eq!(nowhere.code, Some(1));
}

#[test]
fn a_pool_that_takes_nobody_is_found_as_it_runs_and_as_it_is_configured() {
    let stage = Stage::new();
    let look = || Report::balancer(&stage);
    let at_the_socket = |command: &str| sh(&format!("{command} --socket {}", word(&stage.socket())));
    let said = "no backend of pool web takes new connections: each is dropped";
    let drained = CONFIG.replace("10.77.0.2\"\n", "10.77.0.2\"\nstate = \"drain\"\n");

    fs::write(stage.config(), &drained).expect("written");
    let configured = look();
    assert_eq!((configured.code, configured.trouble("pool")), (Some(1), vec![("fault", said, None)]));
    fs::write(stage.config(), CONFIG).expect("written");
    assert_eq!(look().trouble("pool"), []);

    let weir = stage.run();
    at_the_socket(&format!("{WEIR} backend drain b1"));
    heal(look, "pool", "fault", said, |command| at_the_socket(&command.replacen("weir", WEIR, 1)));
    fs::write(stage.config(), &drained).expect("written");
    assert_eq!(look().trouble("pool"), [], "it is not in force");
    at_the_socket(&format!("{WEIR} reload"));
    let reloaded = look();
    assert_eq!(reloaded.trouble("pool"), [("fault", said, None)]);
    assert!(reloaded.json.to_string().contains("then `weir reload`"), "{}", reloaded.json);

    // One whose checks fail is out where the pool does not fail open.
    let health = "[pool.health]\ncheck = \"tcp\"\nfail_open = false\ninterval_ms = 100\ntimeout_ms = 100\n";
    fs::write(stage.config(), CONFIG.replace("[[pool.backend]]", &format!("{health}[[pool.backend]]")))
        .expect("written");
    at_the_socket(&format!("{WEIR} reload"));
    let by_checks = vec![("fault", said, Some("weir backend show web/b1"))];
    until("its checks fail", || look().trouble("pool") == by_checks);
    assert_eq!(weir.end().0, Some(0));
}

#[test]
fn an_interface_that_packets_leave_by_without_a_program_is_found() {
    let stage = Stage::new();
    let peer = stage.peer_pid();
    sh(&format!("ip link add out0 type veth peer name out1 netns {peer}"));
    sh("ip addr add 10.78.0.1/24 dev out0; ip link set out0 up");
    stage.in_peer("ip addr add 10.78.0.2/24 dev out1; ip link set out1 up");
    let second = "[[pool.backend]]\nname = \"b2\"\naddress = \"10.78.0.2\"\n[[vip]]";
    let config = CONFIG.replace("[[vip]]", second);
    fs::write(stage.config(), &config).expect("written");
    let look = || Report::balancer(&stage);
    until("b2 is reached", || look().trouble("neighbour").is_empty());

    let sick = look();
    let [("warning", what, None)] = sick.trouble("outgoing")[..] else { panic!("{}", sick.json) };
    assert!(what.contains("packets leave by out0, which has no program of Weir's"), "{what}");
    let both = config.replace("interface = \"weir0\"", "interface = [\"weir0\", \"out0\"]");
    fs::write(stage.config(), both).expect("written");
    assert_eq!(look().trouble("outgoing"), []);
}

#[test]
fn a_missing_file_system_for_pins_is_found() {
    let stage = Stage::new();
    let config = word(&stage.config());
    let doctor = format!("{WEIR} doctor --config {config}");
    let script = format!(
        "umount -l /sys/fs/bpf; {doctor} --output json; {doctor} | sed -n 's/^ *type: //p' | sh; {doctor} --output json"
    );
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", &script])
        .output()
        .expect("unshare starts");
    let reports: Vec<Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let verdicts = reports.iter().map(|report| {
        let findings = report["findings"].as_array().expect("findings");
        &findings.iter().find(|finding| finding["check"] == "bpffs").expect("looked at")["verdict"]
    });
    assert_eq!(verdicts.collect::<Vec<_>>(), ["fault", "good"], "{}", text(&output.stderr));
}

#[test]
fn without_privilege_it_says_what_it_lacks() {
    let stage = Stage::new();
    fs::set_permissions(stage.folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("for all");
    let nobody = ["--reuid", "54321", "--regid", "54321", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all"];
    let output = Command::new("setpriv")
        .args(nobody)
        .args(["--", &word(&stage.copy_of_weir()), "doctor", "--config", &word(&stage.config())])
        .output()
        .expect("setpriv starts");
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said} {}", text(&output.stderr));
    assert!(said.contains("FAULT    privilege  this process lacks CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON"), "{said}");
}

#[test]
fn a_backends_machine_is_healed_by_what_it_says() {
    let stage = Stage::new();
    let look = || Report::backend(&stage, &["--vip", "192.0.2.1", "--vip", "2001:db8::1"]);
    let kind = |command: &str| stage.in_peer(command);
    stage.in_peer("ip link set lo up");

    let sick = look();
    assert_eq!(sick.code, Some(1));
    let vips = sick.trouble("vip");
    assert_eq!(vips.len(), 2, "{vips:?}");
    for (_, _, command) in vips {
        kind(command.expect("a command"));
    }
    assert_eq!(look().trouble("vip"), []);
    assert_eq!(Report::backend(&stage, &[]).trouble("vip"), [], "those on lo are the VIPs");

    stage.in_peer("sysctl -w net.mptcp.enabled=0");
    heal(look, "mptcp", "warning", "MPTCP is switched off", kind);
    heal(look, "arp", "warning", "answers ARP for a VIP on lo", kind);
    let l2 = || Report::backend(&stage, &["--forward", "l2", "--vip", "192.0.2.1"]);
    stage.in_peer("sysctl -w net.ipv4.conf.peer0.arp_ignore=0");
    heal(l2, "arp", "fault", "answers ARP for a VIP on lo", kind);

    let joined = || Report::backend(&stage, &["--vip", "192.0.2.1", "--join-endpoint", "192.0.2.1:4501"]);
    stage.in_peer("sysctl -w net.mptcp.allow_join_initial_addr_port=0");
    heal(joined, "endpoint", "fault", "clients are not told that they can join at 192.0.2.1 port 4501", kind);
    stage.in_peer("sysctl -w net.mptcp.allow_join_initial_addr_port=1");
    heal(joined, "endpoint", "warning", "clients also join at the VIP", kind);
    stage.in_peer("ip mptcp endpoint flush");
    heal(look, "endpoint", "warning", "and of nowhere else", kind);

    let lost = look();
    assert_eq!(lost.trouble("answers").len(), 2, "{}", lost.json);
    for (_, _, command) in lost.trouble("answers") {
        let command = command.expect("a command");
        let gateway = if command.contains("-6") { "fd77::1" } else { "10.77.0.1" };
        kind(&command.replace("GATEWAY", gateway));
    }
    assert_eq!(look().trouble("answers"), []);

    stage.in_peer("sysctl -w net.ipv4.conf.peer0.rp_filter=1");
    heal(look, "rp_filter", "warning", "strict reverse-path filter of peer0", kind);
    // The way back is another interface.
    stage.in_peer("ip link add other0 type veth peer name other1");
    stage.in_peer("ip address add 10.78.0.1/24 dev other0");
    stage.in_peer("ip link set other0 up");
    stage.in_peer("ip route replace default via 10.78.0.2 dev other0");
    stage.in_peer("sysctl -w net.ipv4.conf.peer0.rp_filter=1");
    let by_peer0 = || Report::backend(&stage, &["--vip", "192.0.2.1", "--interface", "peer0"]);
    heal(by_peer0, "rp_filter", "fault", "whose way back is another interface", kind);

    stage.in_peer("ip link set dev peer0 mtu 1500");
    heal(by_peer0, "mtu", "warning", "peer0 takes 1500 bytes", kind);
    stage.in_peer("ip link set dev peer0 mtu 1600");

    let nobody = by_peer0();
    let [("fault", _, Some(command))] = nobody.trouble("xdp")[..] else { panic!("{}", nobody.json) };
    assert_eq!(command, "weir decap --interface peer0 --from BALANCER");
    let pid = stage.peer_pid().to_string();
    let decap = ["--net", "--target", &pid, WEIR, "decap", "--interface", "peer0", "--from", "10.77.0.1"];
    let mut decap = stage.start("nsenter", &decap.map(str::to_owned), &[]);
    decap.wait_for(" ready");
    let well = by_peer0();
    assert_eq!((well.code, well.trouble("xdp")), (Some(0), vec![]), "{}", well.json);
    assert!(well.json.to_string().contains("weir_decap (program "), "{}", well.json);
}
