//! The Debian package as dpkg, systemd and lintian see it: installed, started, reloaded, upgraded, removed and purged.
//!
//! The packages are made by `cargo xtask dist` of the `weir` under test; the machine is `machine.rs`.

#[path = "../../../xtask/src/links.rs"]
mod links;
mod machine;

use machine::Machine;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};
use tempfile::TempDir;

/// A configuration that an operator writes: one backend, small tables.
const CONFIG: &str = r#"# mine
[balancer]
interface = "eth0"

[limits]
tokens = 4096
joined_flows = 4096
moved_flows = 4096
pinned_flows = 4096
pending_handshakes = 4096
embryonic_flows = 4096
datagram_flows = 4096
fragmented_datagrams = 4096

[metrics]
listen = "127.0.0.1:9107"

[[pool]]
name = "web"

[[pool.backend]]
name = "web1"
address = "10.77.0.2"

[[vip]]
address = "192.0.2.1"
protocol = "tcp"
port = 443
pool = "web"
"#;
/// That of an agent, on the other end of the machine's link.
const AGENT: &str = r#"[agent]
backend = "web1"
interface = "far0"
balancers = ["10.77.0.1"]

[[vip]]
address = "192.0.2.1"
port = 443
pool = "web"
"#;
/// What `systemd-analyze security` may say of a unit, in tenths.
const EXPOSURE: &str = "20";

const MAINTAINER: &str = "Erika Mustermann <erika@example.org>";

/// A package of the `weir` under test, with a Debian revision.
fn pack(folder: &Path, revision: u32) -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["run", "--quiet", "--package", "xtask", "--", "dist", "--quick"]);
    cargo
        .args([
            "--revision",
            &revision.to_string(),
            "--maintainer",
            MAINTAINER,
            "--binary",
            env!("CARGO_BIN_EXE_weir"),
            "--out",
        ])
        .arg(folder);
    let output = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    folder.join(format!("weir_{}-{revision}_amd64.deb", env!("CARGO_PKG_VERSION")))
}

/// The first revision, which several tests look at.
static FIRST: LazyLock<(TempDir, PathBuf)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder");
    let package = pack(folder.path(), 1);
    (folder, package)
});

/// What a program says on both ways, and whether it is content.
fn judged_by(program: &str, arguments: &[&str]) -> (String, bool) {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    (said, output.status.success())
}

fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn lintian_finds_no_fault() {
    let (said, is_good) =
        judged_by("lintian", &["--allow-root", "--display-info", "--fail-on", "error,warning,info", path(&FIRST.1)]);
    assert!(is_good && said.trim().is_empty(), "{said}");
}

#[test]
fn whoever_gives_it_to_others_answers_for_it() {
    let (said, is_good) = judged_by("dpkg-deb", &["--field", path(&FIRST.1), "Maintainer"]);
    assert!(is_good && said.trim() == MAINTAINER, "{said}");
}

#[test]
fn the_same_is_packed_the_same() {
    let again = tempfile::tempdir().expect("a folder");
    let again = fs::read(pack(again.path(), 1)).expect("a package");
    assert!(again == fs::read(&FIRST.1).expect("a package"), "the two differ: diffoscope says where");
}

/// The files of the first revision.
fn extracted() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let (said, is_good) = judged_by("dpkg-deb", &["--extract", path(&FIRST.1), path(folder.path())]);
    assert!(is_good, "{said}");
    folder
}

#[test]
fn every_page_is_there_and_its_links_lead_to_what_is_there() {
    let folder = extracted();
    let root = folder.path().join("usr/share/doc/weir");
    let of_repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    assert_eq!(links::pages_below(&root.join("docs")), links::pages_below(&of_repository));
    let pages = links::pages_below(&root);
    assert!(pages.contains(&"README.md".to_owned()), "{pages:?}");
    assert_eq!(links::broken(&root, &pages), Vec::<String>::new());
}

#[test]
fn the_units_are_closed() {
    let folder = extracted();
    for unit in ["weir.service", "weir-agent.service", "weir-announce.service"] {
        let unit = folder.path().join("lib/systemd/system").join(unit);
        let arguments = ["security", "--offline=yes", &format!("--threshold={EXPOSURE}"), path(&unit)];
        let (said, is_good) = judged_by("systemd-analyze", &arguments);
        assert!(is_good && said.contains("Overall exposure level"), "{said}");
    }
}

#[test]
fn a_machine_has_it_from_installation_to_purge() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::copy(&FIRST.1, folder.path().join("first.deb")).expect("copied");
    fs::rename(pack(folder.path(), 2), folder.path().join("second.deb")).expect("renamed");
    let machine = Machine::start(folder.path());
    installed(&machine);
    started(&machine);
    reloaded(&machine);
    detached(&machine);
    served(&machine);
    announced(&machine);
    upgraded(&machine);
    removed(&machine);
    purged(&machine);
}

/// Everything is in its place, and nothing has started.
fn installed(machine: &Machine) {
    machine.run("dpkg --force-unsafe-io --install /srv/first.deb");
    assert_eq!(machine.run("dpkg --verify weir"), "");
    assert_eq!(
        machine.run("systemd-analyze verify --man=no weir.service weir-agent.service weir-announce.service"),
        ""
    );
    assert_eq!(machine.run("stat --format '%U %G %a' /run/weir"), "weir weir 755");
    for unit in ["weir", "weir-agent", "weir-announce"] {
        assert_eq!(machine.ask(&format!("systemctl is-active {unit}")).0, "inactive");
        assert_eq!(machine.ask(&format!("systemctl is-enabled {unit}")).0, "disabled");
    }
    assert_eq!(machine.run("id --user --name weir"), "weir");
    machine.run("weir check");
    let examples = machine.run("ls /usr/share/doc/weir/examples/monitoring");
    assert_eq!(examples, "weir-dashboard.json\nweir.rules.test.yml\nweir.rules.yml");
}

fn write_config(machine: &Machine, text: &str) {
    machine.run(&format!("cat > /etc/weir/weir.toml <<'END'\n{text}END"));
}

fn has_xdp(machine: &Machine) -> bool {
    machine.run("ip -json link show dev eth0").contains("\"xdp\"")
}

/// The kernel ends a link some time after its last pin and process have gone.
fn loses_xdp(machine: &Machine, interface: &str) {
    machine.wait_for(&format!("! ip -json link show dev {interface} | grep '\"xdp\"'"));
}

fn started(machine: &Machine) {
    write_config(machine, CONFIG);
    machine.run("echo 000102030405060708090a0b0c0d0e0f > /etc/weir/cluster.key");
    machine.run("systemctl enable weir && systemctl start weir");
    assert_eq!(machine.run("systemctl is-active weir"), "active");
    assert!(has_xdp(machine));
    let pid = main_pid(machine);
    assert_eq!(machine.run(&format!("stat --format %U /proc/{pid}")), "weir");
    dumps_no_core(machine, "weir");
    assert!(machine.run("weir status").contains("web1"));
}

/// What is in its memory comes into no file, as the kernel has it.
fn dumps_no_core(machine: &Machine, unit: &str) {
    let pid = property(machine, unit, "MainPID");
    let limits = machine.run(&format!("grep 'core file size' /proc/{pid}/limits"));
    assert_eq!(limits.split_whitespace().collect::<Vec<_>>(), ["Max", "core", "file", "size", "0", "0", "bytes"]);
}

fn main_pid(machine: &Machine) -> String {
    property(machine, "weir", "MainPID")
}

fn property(machine: &Machine, unit: &str, name: &str) -> String {
    machine.run(&format!("systemctl show --property {name} --value {unit}"))
}

/// A reload has happened when `systemctl` returns, and one that is refused fails there.
fn reloaded(machine: &Machine) {
    let pid = main_pid(machine);
    write_config(machine, &CONFIG.replace("web1", "web9"));
    machine.run("systemctl reload weir");
    assert!(machine.run("weir status").contains("web9"));
    write_config(machine, "nonsense\n");
    assert!(!machine.ask("systemctl reload weir").1, "a bad file is refused");
    assert!(machine.run("weir status").contains("web9"));
    write_config(machine, CONFIG);
    machine.run("systemctl reload weir");
    assert_eq!(machine.run("systemctl is-active weir"), "active");
    assert_eq!(main_pid(machine), pid);
}

/// A balancer that is told to take the data path down at its end may do so.
fn detached(machine: &Machine) {
    write_config(machine, &CONFIG.replace("[limits]", "on_stop = \"detach\"\n[limits]"));
    machine.run("systemctl restart weir && systemctl stop weir");
    assert_eq!(machine.run("systemctl show --property Result --value weir"), "success");
    loses_xdp(machine, "eth0");
    write_config(machine, CONFIG);
    machine.run("systemctl start weir");
}

/// An agent starts, and what it has put into the kernel ends as its package says.
fn served(machine: &Machine) {
    machine.run(&format!("cat > /etc/weir/agent.toml <<'END'\n{AGENT}END"));
    machine.run("systemctl start weir-agent && systemctl reload weir-agent");
    assert!(machine.run("ip -json link show dev far0").contains("\"xdp\""));
    dumps_no_core(machine, "weir-agent");
    machine.run("systemctl stop weir-agent && weir agent --detach");
    loses_xdp(machine, "far0");
}

/// The VIP is in the table that BGP daemons read while somebody is there who looks whether the balancer is well: one that is
/// killed or hangs leaves it to systemd to withdraw it.
fn announced(machine: &Machine) {
    machine.run("systemctl enable weir-announce && systemctl start weir-announce");
    becomes(machine, "blackhole 192.0.2.1 proto 87");
    dumps_no_core(machine, "weir-announce");
    for signal in ["KILL", "STOP"] {
        machine.run(&format!("systemctl kill --signal {signal} weir-announce"));
        becomes(machine, "");
        becomes(machine, "blackhole 192.0.2.1 proto 87");
    }
    machine.run("weir drain-self --force");
    becomes(machine, "");
    machine.run("weir drain-self --undo");
    becomes(machine, "blackhole 192.0.2.1 proto 87");
}

/// Waits until this is all that the table holds.
fn becomes(machine: &Machine, routes: &str) {
    machine.run(&format!(
        "timeout 120 sh -c 'until [ \"$(echo $(ip route show table 87 2>/dev/null))\" = \"{routes}\" ]; do sleep 0.05; done'"
    ));
}

/// The new version runs with the operator's file, and what was not running still is not.
fn upgraded(machine: &Machine) {
    let (pid, announcing) = (main_pid(machine), property(machine, "weir-announce", "MainPID"));
    machine.run("dpkg --force-unsafe-io --install /srv/second.deb");
    assert!(machine.run("dpkg-query --show weir").ends_with("-2"));
    assert_eq!(machine.run("cat /etc/weir/weir.toml"), CONFIG.trim());
    assert_eq!(machine.run("systemctl is-active weir"), "active");
    assert_ne!(main_pid(machine), pid);
    assert!(has_xdp(machine));
    assert_eq!(machine.ask("systemctl is-active weir-agent").0, "inactive");
    assert_eq!(machine.run("systemctl is-enabled weir"), "enabled");
    assert_eq!(property(machine, "weir-announce", "MainPID"), announcing, "its restart would withdraw the VIP");
}

/// The service has stopped; what steers goes on, and ends as the package has said.
fn removed(machine: &Machine) {
    let said = machine.run("dpkg --remove weir");
    assert!(said.contains("pinned under /sys/fs/bpf/weir ") && said.contains("weir detach"), "{said}");
    assert!(!said.contains("weir-agent"), "no agent has run: {said}");
    assert!(!machine.ask("systemctl is-active weir").1 && !machine.ask("systemctl is-active weir-announce").1);
    becomes(machine, "");
    assert!(!machine.ask("command -v weir").1);
    assert_eq!(machine.run("cat /etc/weir/weir.toml"), CONFIG.trim());
    assert!(has_xdp(machine));
    machine.run("rm -r /sys/fs/bpf/weir");
    loses_xdp(machine, "eth0");
}

/// What the package has brought is gone; the operator's own files and the user who has them are not.
fn purged(machine: &Machine) {
    machine.run("dpkg --purge weir");
    assert_eq!(machine.run("ls -A /etc/weir"), "cluster.key");
    assert!(!machine.ask("ls /run/weir").1);
    assert!(!machine.ask("ls -d /etc/systemd/system/*/weir.service").1, "it is not enabled any more");
    assert!(!machine.ask("dpkg-query --show weir").1);
    assert_eq!(machine.run("id --user --name weir"), "weir");
}
