//! `weir check` as an operator runs it: words on the right stream, and the exit code.

use lb_user::config::{AgentConfig, Config, Mss};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const GOOD: &str = r#"
[balancer]
interface = "eth0"
[[pool]]
name = "web"
[[pool.backend]]
name = "b1"
address = "10.0.1.1"
[[pool.backend]]
name = "b2"
address = "10.0.1.2"
[[vip]]
address = "192.0.2.1"
protocol = "tcp"
port = 443
pool = "web"
[[vip]]
address = "2001:db8::1"
protocol = "tcp"
port = 443
pool = "web"
"#;

fn check(path: &Path) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_weir")).args(["check", "--config"]).arg(path).output().expect("weir starts");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn a_good_file_is_summed_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weir.toml");
    let file = path.display();
    fs::write(&path, GOOD).unwrap();
    let words = format!("{file} is good: 2 VIPs, 1 pool, 2 backends\n");
    assert_eq!(check(&path), (Some(0), words, String::new()));

    let spare = "[[pool]]\nname = \"spare\"\n[[pool.backend]]\nname = \"b1\"\naddress = \"10.0.1.1\"\n";
    fs::write(&path, format!("{GOOD}{spare}")).unwrap();
    let words = format!("{file} is good: 2 VIPs, 2 pools, 3 backends\n");
    let warning = format!("warning: {file}:22:1: pool \"spare\": no VIP uses this pool\n");
    assert_eq!(check(&path), (Some(0), words, warning));
}

/// The fields of a table, as the refusal of another one lists them.
fn fields_of(table: &str) -> Vec<String> {
    let balancer = if table == "[balancer]" { "" } else { "[balancer]\ninterface = \"eth0\"\n" };
    let refused =
        Config::parse(&format!("{balancer}{table}\nno_such_field = 1\n"), "weir.toml").unwrap_err().to_string();
    let (_, fields) = refused.split_once("expected ").expect("it lists the fields");
    let fields: Vec<_> = fields.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    assert!(!fields.is_empty(), "{refused}");
    fields
}

/// Every field is in the example, and each that is commented out has its default there.
#[test]
fn the_example_is_good_and_complete() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/weir.toml");
    let file = path.display();
    let words = format!("{file} is good: 5 VIPs, 3 pools, 5 backends\n");
    assert_eq!(check(&path), (Some(0), words, String::new()));

    let folder = tempfile::tempdir().unwrap();
    let example = fs::read_to_string(&path).unwrap();
    let is_field = |line: &str| {
        line.split_once(" = ")
            .is_some_and(|(name, _)| name.bytes().all(|b| b.is_ascii_lowercase() || b"_46".contains(&b)))
    };
    let lines = example.lines().map(|line| line.strip_prefix("# ").filter(|field| is_field(field)).unwrap_or(line));
    let text = lines.collect::<Vec<_>>().join("\n");
    let written = folder.path().join("weir.toml");
    fs::write(&written, &text).unwrap();
    let words = format!("{} is good: 5 VIPs, 3 pools, 5 backends\n", written.display());
    assert_eq!(check(&written), (Some(0), words, String::new()));

    for table in [
        "[balancer]",
        "[metrics]",
        "[admin]",
        "[bus]",
        "[limits]",
        "[[pool]]",
        "[[pool]]\nname = \"p\"\n[pool.health]",
        "[[pool]]\nname = \"p\"\n[pool.token]",
        "[[pool]]\nname = \"p\"\n[[pool.backend]]",
        "[[vip]]",
    ] {
        for field in fields_of(table) {
            let there = text
                .lines()
                .map(|line| line.trim_start_matches(['#', ' ']))
                .any(|line| line.starts_with(&format!("{field} = ")) || line.contains(&format!(".{field}]")));
            assert!(there, "{table}: {field}");
        }
    }

    let [commented, plain] = [&written, &path].map(|path| {
        let Config { balancer, metrics, limits, pools, vips, .. } = Config::load(path).expect("a good file");
        format!("{:?}", (balancer, metrics, limits, pools, vips))
    });
    assert_eq!(commented, plain, "a field that is commented out has its default");
}

/// A pipe without a writer would keep a running balancer waiting, and a file without end would take its memory.
#[test]
fn only_a_file_of_a_sane_size_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weir.toml");
    let file = path.display();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let words = format!("{file}: it is no regular file; copy what it says to one\n");
    assert_eq!(check(&path), (Some(2), String::new(), words));

    fs::remove_file(&path).unwrap();
    fs::File::create(&path).unwrap().set_len(1 << 30).unwrap();
    let words = format!("{file}: it has 1073741824 bytes, and a configuration has at most 16777216\n");
    assert_eq!(check(&path), (Some(2), String::new(), words));
}

#[test]
fn a_bad_file_ends_with_2_and_every_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weir.toml");
    let file = path.display();
    fs::write(&path, GOOD.replace("eth0", "").replace("10.0.1.2", "10.0.1.1")).unwrap();
    let errors = format!(
        "{file}:3:13: balancer.interface: \"\" is not an interface name; use 1 to 15 characters without space, `/` or `:` (`ip link` lists them)\n\
         {file}:11:11: pool \"web\": backend \"b2\": address: 10.0.1.1 is already backend \"b1\" of this pool, at line 8; name each address once and use weight\n"
    );
    assert_eq!(check(&path), (Some(2), String::new(), errors));
}

#[test]
fn a_missing_file_ends_with_2() {
    let folder = tempfile::tempdir().unwrap();
    let (code, stdout, stderr) = check(&folder.path().join("weir.toml"));
    assert_eq!((code, stdout.as_str()), (Some(2), ""));
    assert!(stderr.ends_with("write it, or name another with --config\n"), "{stderr}");
}

/// Every field of an agent is in its example, and those that are commented out can be written.
#[test]
fn the_example_of_an_agent_is_good_and_complete() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/agent.toml");
    let text = fs::read_to_string(path).unwrap();
    let config = AgentConfig::parse(&text, "agent.toml").unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!((config.vips.len(), config.mss), (2, Mss::AtMost(1400)));
    let written = text.replace("# xdp_mode", "xdp_mode").replace("# gue_port", "gue_port").replace("# mss_", "mss_");
    let written = written.replace("# pins", "pins").replace("# event_", "event_");
    let all = AgentConfig::parse(&written, "agent.toml").unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(
        (all.xdp_mode, all.gue_port, &all.pins, all.event_buffer),
        (config.xdp_mode, config.gue_port, &config.pins, config.event_buffer)
    );
    let written =
        written + &text.lines().filter_map(|line| Some(line.strip_prefix("# ")?.to_owned() + "\n")).collect::<String>();
    for table in ["[agent]\nbackend = \"b\"", "[token]", "[[vip]]"] {
        let text = format!("{table}\nno_such_field = 1\n");
        let refused = AgentConfig::parse(&text, "agent.toml").unwrap_err().to_string();
        let fields: Vec<_> =
            refused.split_once("expected ").expect("it lists the fields").1.split('`').skip(1).step_by(2).collect();
        assert!(fields.iter().all(|field| written.contains(&format!("\n{field} = "))), "{table}: {fields:?}");
    }
}
