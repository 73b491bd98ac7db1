//! The configuration file as it is written: every value with its place, none judged yet.
//!
//! Fields are as permissive as TOML's own types, so that `check` can say what is wrong with a value in an operator's
//! words. Nothing outside `config` sees these types.

use super::either::{Interfaces, Port, Ways, Words};
use serde::Deserialize;
use std::path::PathBuf;
use toml::Spanned;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) balancer: Balancer,
    pub(super) metrics: Option<Metrics>,
    #[serde(default)]
    pub(super) admin: Admin,
    pub(super) bus: Option<Bus>,
    #[serde(default)]
    pub(super) limits: Limits,
    #[serde(default)]
    pub(super) pool: Vec<Spanned<Pool>>,
    #[serde(default)]
    pub(super) vip: Vec<Spanned<Vip>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Balancer {
    pub(super) interface: Spanned<Words<Interfaces>>,
    pub(super) xdp_mode: Option<Spanned<String>>,
    pub(super) source_v4: Option<Spanned<String>>,
    pub(super) source_v6: Option<Spanned<String>>,
    pub(super) gue_port: Option<Spanned<i64>>,
    pub(super) transition_s: Option<Spanned<i64>>,
    pub(super) cluster_key_file: Option<Spanned<PathBuf>>,
    pub(super) probe_mark: Option<Spanned<i64>>,
    pub(super) pins: Option<Spanned<PathBuf>>,
    pub(super) on_stop: Option<Spanned<String>>,
}

/// The file of an agent.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AgentFile {
    pub(super) agent: Agent,
    pub(super) bus: Option<Bus>,
    pub(super) metrics: Option<Metrics>,
    pub(super) token: Option<Spanned<AgentToken>>,
    #[serde(default)]
    pub(super) vip: Vec<Spanned<AgentVip>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AgentToken {
    pub(super) pool: Option<Spanned<String>>,
    pub(super) secret: Spanned<PathBuf>,
    pub(super) id: Spanned<i64>,
    pub(super) max_backends: Option<Spanned<i64>>,
    pub(super) connections: Option<Spanned<i64>>,
    pub(super) keys: Option<Spanned<i64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Agent {
    pub(super) backend: Option<Spanned<String>>,
    pub(super) interface: Spanned<Words<Interfaces>>,
    pub(super) xdp_mode: Option<Spanned<String>>,
    pub(super) balancers: Spanned<Vec<Spanned<String>>>,
    pub(super) gue_port: Option<Spanned<i64>>,
    #[serde(default = "yes")]
    pub(super) mss_clamp: bool,
    pub(super) mss_max: Option<Spanned<i64>>,
    pub(super) pins: Option<Spanned<PathBuf>>,
    pub(super) event_buffer_bytes: Option<Spanned<i64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AgentVip {
    pub(super) address: Spanned<String>,
    pub(super) port: Spanned<Port>,
    pub(super) pool: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Metrics {
    pub(super) listen: Spanned<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Admin {
    pub(super) group: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Bus {
    pub(super) servers: Spanned<Vec<Spanned<String>>>,
    pub(super) cluster: Spanned<String>,
    pub(super) name: Option<Spanned<String>>,
    pub(super) credentials: Option<Spanned<PathBuf>>,
    pub(super) ca: Option<Spanned<PathBuf>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Limits {
    pub(super) tokens: Option<Spanned<i64>>,
    pub(super) joined_flows: Option<Spanned<i64>>,
    pub(super) pending_handshakes: Option<Spanned<i64>>,
    pub(super) embryonic_flows: Option<Spanned<i64>>,
    pub(super) moved_flows: Option<Spanned<i64>>,
    pub(super) pinned_flows: Option<Spanned<i64>>,
    pub(super) datagram_flows: Option<Spanned<i64>>,
    pub(super) fragmented_datagrams: Option<Spanned<i64>>,
    pub(super) entries_per_network: Option<Spanned<i64>>,
    pub(super) joins_per_token: Option<Spanned<i64>>,
    pub(super) icmp_errors_per_cpu: Option<Spanned<i64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pool {
    pub(super) name: Spanned<String>,
    pub(super) join: Option<Spanned<Words<Ways>>>,
    pub(super) unknown_join: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) learn_unseen: bool,
    pub(super) forward: Option<Spanned<String>>,
    pub(super) affinity: Option<Spanned<String>>,
    pub(super) tcp_fragments: Option<Spanned<String>>,
    pub(super) drain_timeout_s: Option<Spanned<i64>>,
    pub(super) slow_start_s: Option<Spanned<i64>>,
    pub(super) udp_transition_s: Option<Spanned<i64>>,
    pub(super) quic_rotation: Option<Spanned<Vec<Spanned<i64>>>>,
    pub(super) token: Option<Spanned<Token>>,
    pub(super) health: Option<Spanned<Health>>,
    #[serde(default)]
    pub(super) backend: Vec<Spanned<Backend>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Token {
    pub(super) secret: Spanned<PathBuf>,
    pub(super) max_backends: Option<Spanned<i64>>,
    pub(super) connections: Option<Spanned<i64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Health {
    pub(super) check: Spanned<String>,
    pub(super) address: Option<Spanned<String>>,
    pub(super) port: Option<Spanned<i64>>,
    pub(super) interval_ms: Option<Spanned<i64>>,
    pub(super) timeout_ms: Option<Spanned<i64>>,
    pub(super) jitter_percent: Option<Spanned<i64>>,
    pub(super) rise: Option<Spanned<i64>>,
    pub(super) fall: Option<Spanned<i64>>,
    #[serde(default = "yes")]
    pub(super) fail_open: bool,
    pub(super) host: Option<Spanned<String>>,
    pub(super) path: Option<Spanned<String>>,
    pub(super) status: Option<Spanned<Vec<Spanned<i64>>>>,
    pub(super) body: Option<Spanned<String>>,
    pub(super) ca_file: Option<Spanned<PathBuf>>,
}

const fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Backend {
    pub(super) name: Spanned<String>,
    pub(super) address: Spanned<String>,
    pub(super) weight: Option<Spanned<i64>>,
    pub(super) state: Option<Spanned<String>>,
    pub(super) quic_server_id: Option<Spanned<String>>,
    pub(super) join_port: Option<Spanned<i64>>,
    pub(super) join_address: Option<Spanned<String>>,
    pub(super) token_id: Option<Spanned<i64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Vip {
    pub(super) name: Option<Spanned<String>>,
    pub(super) address: Spanned<String>,
    pub(super) protocol: Spanned<String>,
    pub(super) port: Spanned<Port>,
    pub(super) pool: Spanned<String>,
}
