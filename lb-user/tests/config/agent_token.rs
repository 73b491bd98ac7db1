//! The `[token]` of an agent: each mistake an operator can make in it, and the exact words that he reads then.

use lb_common::stateless::TokenId;
use lb_user::config::{AgentConfig, AgentToken};
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
};
use tempfile::TempDir;

const KEY: &str = "00112233445566778899aabbccddeeff";
/// `[token]` is its line 6.
const HEAD: &str = "[agent]\nbackend = \"web1\"\ninterface = \"eth0\"\nbalancers = [\"10.0.9.0/24\"]\n\n[token]\n";
const WEB: &str = "[[vip]]\naddress = \"192.0.2.1\"\nport = 443\npool = \"web\"\n";
const GOOD: &str = "secret = \"SECRET\"\nid = 1\n";

/// A secret of its owner's alone. What a file or a message calls SECRET is where it is.
struct Secret {
    _folder: TempDir,
    path: PathBuf,
}

impl Secret {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let secret = Self { path: folder.path().join("web.secret"), _folder: folder };
        secret.write(&format!("[[epoch]]\nnumber = 0\nminted_from = 2026-01-02T03:04:05Z\nkey = \"{KEY}\"\n"), 0o600);
        secret
    }

    fn write(&self, text: &str, mode: u32) {
        fs::write(&self.path, text).unwrap();
        fs::set_permissions(&self.path, Permissions::from_mode(mode)).unwrap();
    }

    fn parse(&self, token: &str, vips: &str) -> Result<AgentConfig, String> {
        let path = self.path.to_string_lossy();
        let text = format!("{HEAD}{token}{vips}").replace("SECRET", &path);
        AgentConfig::parse(&text, "agent.toml").map_err(|errors| errors.to_string().replace(&*path, "SECRET"))
    }

    fn good(&self, token: &str, vips: &str) -> AgentToken {
        let config = self.parse(token, vips).unwrap_or_else(|refusal| panic!("{token}: {refusal}"));
        assert!(!format!("{config:?}").contains(KEY));
        config.token.expect("keys are minted")
    }

    fn refused(&self, token: &str, vips: &str, lines: &[&str]) {
        let Err(refusal) = self.parse(token, vips) else { panic!("accepted: {token}{vips}") };
        assert_eq!(refusal.lines().collect::<Vec<_>>(), lines, "{token}{vips}");
        assert!(!refusal.contains(KEY), "a key is told");
    }
}

#[test]
fn what_is_not_written_has_its_default() {
    let secret = Secret::new();
    let AgentToken { pool, secret: path, id, bits, keys } = secret.good(GOOD, WEB);
    assert_eq!((pool.as_str(), path, id, bits.count(), keys), ("web", secret.path.clone(), TokenId(1), 8, 8192));
    let most =
        "secret = \"SECRET\"\nid = 4095\nmax_backends = 4096\nconnections = 2621\nkeys = 65536\npool = \"web\"\n";
    let AgentToken { id, bits, keys, .. } = secret.good(most, WEB);
    assert_eq!((id, bits.count(), keys), (TokenId(4095), 12, 65_536));
}

#[test]
fn a_field_is_there_and_means_something() {
    let secret = Secret::new();
    for (token, words) in [
        ("id = 1\n", "agent.toml:6:1: token: missing field `secret`; add it"),
        ("secret = \"SECRET\"\n", "agent.toml:6:1: token: missing field `id`; add it"),
        (
            "secret = \"SECRET\"\nid = 1\ntoken_id = 1\n",
            "agent.toml:9:1: token.token_id: unknown field `token_id`, expected one of `pool`, `secret`, `id`, `max_backends`, `connections`, `keys`; correct or remove it",
        ),
    ] {
        secret.refused(token, WEB, &[words]);
    }
}

#[test]
fn numbers_are_in_range_and_leave_tokens_enough() {
    let secret = Secret::new();
    for (fields, lines) in [
        ("id = 256\n", &["agent.toml:8:6: token.id: 256 is out of range; choose 0 to 255"][..]),
        ("id = -1\n", &["agent.toml:8:6: token.id: -1 is out of range; choose 0 to 255"]),
        // Eight bits would have room for it.
        ("id = 200\nmax_backends = 200\n", &["agent.toml:8:6: token.id: 200 is out of range; choose 0 to 199"]),
        // Of an id only what holds in any case is said beside a wrong number of backends.
        ("id = 7\nmax_backends = 0\n", &["agent.toml:9:16: token.max_backends: 0 is out of range; choose 1 to 4096"]),
        (
            "id = 4096\nmax_backends = 4097\n",
            &[
                "agent.toml:8:6: token.id: 4096 is out of range; choose 0 to 4095",
                "agent.toml:9:16: token.max_backends: 4097 is out of range; choose 1 to 4096",
            ],
        ),
        ("id = 1\nkeys = 63\n", &["agent.toml:9:8: token.keys: 63 is out of range; choose 64 to 1048576"]),
        ("id = 1\nkeys = 1048577\n", &["agent.toml:9:8: token.keys: 1048577 is out of range; choose 64 to 1048576"]),
        (
            "id = 1\nmax_backends = 4096\nconnections = 2000\nkeys = 65537\n",
            &[
                "agent.toml:11:8: token.keys: 65537 keys are more than the 65536 for which so many backends leave tokens; lower one of the two",
            ],
        ),
        (
            "id = 1\nconnections = 5000001\n",
            &["agent.toml:9:15: token.connections: 5000001 is out of range; choose 1 to 5000000"],
        ),
        (
            "id = 1\nconnections = 41944\n",
            &[
                "agent.toml:9:15: token.connections: 41944 connections are more than the 41943 for which so many backends leave tokens; lower one of the two",
            ],
        ),
        // Those that nobody has written are too many, too.
        (
            "id = 1\nmax_backends = 512\n",
            &[
                "agent.toml:6:1: token: 40000 connections are more than the 20971 for which so many backends leave tokens; lower one of the two",
            ],
        ),
    ] {
        secret.refused(&format!("secret = \"SECRET\"\n{fields}"), WEB, lines);
    }
}

#[test]
fn a_secret_is_a_good_file_of_its_owners_alone() {
    let secret = Secret::new();
    let refused = |words: &str| secret.refused(GOOD, WEB, &[&format!("agent.toml:7:10: token.secret: {words}")]);
    for mode in [0o640, 0o604, 0o620] {
        secret.write("", mode);
        refused(&format!(
            "SECRET has the rights {mode:04o}, so others may read the secret; `chmod 0600 SECRET`, and change the secret if they did"
        ));
    }
    secret.write("", 0o600);
    refused(
        "SECRET:1: this is not an [[epoch]] with number, minted_from and key; write the file with `weir secret` alone",
    );
    secret.write(KEY, 0o600);
    refused(
        "SECRET:1: this is not an [[epoch]] with number, minted_from and key; write the file with `weir secret` alone",
    );
    fs::remove_file(&secret.path).unwrap();
    refused("SECRET: No such file or directory (os error 2); write one with `weir secret new SECRET`");
    fs::create_dir(&secret.path).unwrap();
    refused("SECRET is not a plain file; name a file that `weir secret` has written");
    secret.refused(
        "secret = \"web.secret\"\nid = 1\n",
        WEB,
        &["agent.toml:7:10: token.secret: web.secret is not an absolute path; write it from / on"],
    );
}

#[test]
fn the_pool_is_one_whose_vips_are_here() {
    let secret = Secret::new();
    let mail = WEB.replace("web", "mail").replace("443", "25");
    let (both, wide) = (format!("{WEB}{mail}"), WEB.replace("192.0.2.1", "192.0.2.0/24"));
    let of_pool = |pool: &str| format!("{GOOD}pool = \"{pool}\"\n");
    secret.refused(
        GOOD,
        &both,
        &["agent.toml:6:1: token: the VIPs here are of several pools; name the one whose tokens are minted as `pool`"],
    );
    secret.refused(
        &of_pool("news"),
        &both,
        &["agent.toml:9:8: token.pool: no [[vip]] here is of the pool news; name the pool of one"],
    );
    secret.refused(
        &of_pool("a pool"),
        &both,
        &["agent.toml:9:8: token.pool: \"a pool\" is not a name; use 1 to 63 of the characters A-Z a-z 0-9 . _ -"],
    );
    secret.refused(
        GOOD,
        &wide,
        &[
            "agent.toml:6:1: token: keys are minted for VIPs that are one address, and each [[vip]] of the pool web is a prefix; write one for each address",
        ],
    );
    assert_eq!(secret.good(&of_pool("mail"), &both).pool.as_str(), "mail");
    assert_eq!(secret.good(GOOD, &format!("{WEB}{wide}")).pool.as_str(), "web");
}

#[test]
fn what_is_wrong_elsewhere_is_not_said_once_more_here() {
    let secret = Secret::new();
    let wrong = WEB.replace("443", "0");
    secret.refused(
        &format!("{GOOD}pool = \"web\"\n"),
        &wrong,
        &["agent.toml:12:8: vip[0]: port: 0 is out of range; choose 1 to 65535"],
    );
    let none =
        "agent.toml:1:1: there is no [[vip]]; name those of the balancers' configuration that this backend serves";
    secret.refused(GOOD, "", &[none]);
    // And all that is wrong is said at once.
    fs::remove_file(&secret.path).unwrap();
    secret.refused(
        "secret = \"SECRET\"\nid = -1\n",
        &wrong,
        &[
            "agent.toml:7:10: token.secret: SECRET: No such file or directory (os error 2); write one with `weir secret new SECRET`",
            "agent.toml:8:6: token.id: -1 is out of range; choose 0 to 255",
            "agent.toml:11:8: vip[0]: port: 0 is out of range; choose 1 to 65535",
        ],
    );
}
