//! The configurations in documents, each held against `weir check`, or `weir agent --check` where the block is marked `agent`.
//! One that is only a part of a configuration is completed with what it does not say.

use crate::{
    page::{blocks, document, documents::pages},
    shell::Shell,
};
use toml::Table;

/// The files that configurations name.
const FILES: &str = "\
mkdir --mode 0755 /etc/weir
(umask 077; openssl rand -hex 16 >/etc/weir/cluster.key; echo credentials >/etc/weir/nats.creds)
weir secret new /etc/weir/web.secret >/dev/null
openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=ca -keyout /run/ca.key -out /etc/weir/ca.pem 2>/dev/null";

const BALANCER: &str = "[balancer]\ninterface = \"eth0\"\ncluster_key_file = \"/etc/weir/cluster.key\"\n";
const POOL: &str = "[[pool]]\nname = \"web\"\n";
const BACKEND: &str = "[[pool.backend]]\nname = \"web1\"\naddress = \"10.0.1.1\"\n";
const AGENT: &str = "[agent]\nbackend = \"web1\"\ninterface = \"eth0\"\nbalancers = [\"10.0.0.5\"]\n";
const AGENT_VIP: &str = "[[vip]]\naddress = \"192.0.2.1\"\nport = 443\npool = \"web\"\n";

/// A whole configuration of a balancer.
fn completed(snippet: &str) -> String {
    let of_a_pool = ["[pool.", "[[pool."].iter().any(|begin| snippet.starts_with(begin));
    let is_bare = !snippet.lines().any(|line| line.starts_with('['));
    let begun = if of_a_pool || is_bare { format!("{POOL}{snippet}") } else { snippet.to_owned() };
    let written: Table = begun.parse().unwrap_or_else(|error| panic!("{error}\n{begun}"));
    let pools = written.get("pool").and_then(|pools| pools.as_array()).cloned().unwrap_or_default();
    let mut parts = vec![begun];
    if pools.is_empty() {
        parts.extend([POOL, BACKEND].map(str::to_owned));
    } else if pools.iter().all(|pool| pool.get("backend").is_none()) {
        parts.push(BACKEND.to_owned());
    }
    if !written.contains_key("balancer") {
        parts.push(BALANCER.to_owned());
    }
    if !written.contains_key("vip") {
        let name = pools.first().and_then(|pool| pool.get("name")?.as_str().map(str::to_owned));
        parts.push(AGENT_VIP.replace("web", name.as_deref().unwrap_or("web")) + "protocol = \"tcp\"\n");
    }
    parts.join("\n")
}

/// A whole configuration of an agent.
fn completed_agent(snippet: &str) -> String {
    let written: Table = snippet.parse().unwrap_or_else(|error| panic!("{error}\n{snippet}"));
    let agent = if written.contains_key("agent") { "" } else { AGENT };
    let vip = if written.contains_key("vip") { "" } else { AGENT_VIP };
    format!("{snippet}\n{agent}\n{vip}")
}

#[test]
fn every_configuration_in_a_document_is_good() {
    let mut shell = Shell::start();
    shell.must(FILES);
    let mut held = 0;
    for page in pages() {
        for block in blocks(&document(&page)).iter().filter(|block| block.is("toml")) {
            let (whole, check) = if block.is_marked("agent") {
                (completed_agent(&block.text), "weir agent --check")
            } else {
                (completed(&block.text), "weir check")
            };
            let name = format!("{}:{}", page.replace('/', "."), block.line);
            let said = shell.ask(&format!("cat >'{name}' <<'END'\n{whole}\nEND\n{check} --config '{name}'"));
            assert_eq!(said.status, "0", "{page}:{}:\n{}\nin\n{whole}", block.line, said.said);
            assert!(said.said.starts_with(&format!("{name} is good: ")), "{page}:{}: {}", block.line, said.said);
            held += 1;
        }
    }
    assert!(held >= 5, "only {held} configurations");
}
