//! `weir check` as an operator runs it: words on the right stream, and the exit code.

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
