//! The pages of the configurations: every field with its type, whether it must be there, its default and what it may be. What
//! it is for stands in the examples of `deploy/`; what it may be, the check of a configuration says.

use super::{
    GENERATED, cell,
    example::{self, Field, Table},
    probe::{self, Around, Checker},
};
use lb_common::limits::{self, Named};
use std::fmt::Write as _;

/// A kind of configuration.
pub(super) struct Kind {
    head: &'static str,
    example: &'static str,
    tables: &'static [Around],
}

const fn around(heading: &'static str, before: &'static str) -> Around {
    Around { heading, before }
}

const START: &str = "[balancer]\ninterface = \"eth0\"\n";
const IN_POOL: &str = "[balancer]\ninterface = \"eth0\"\n[[pool]]\nname = \"web\"\n";

/// A balancer's.
pub(super) const BALANCER: Kind = Kind {
    head: "\
# The configuration of a balancer

`/etc/weir/weir.toml`, in TOML; `weir run --config` names another. [deploy/weir.toml](../../deploy/weir.toml) is a whole one.
`weir check` says everything that is wrong with a file, and a field that is not here is refused.

",
    example: include_str!("../../../deploy/weir.toml"),
    tables: &[
        around("[balancer]", ""),
        around("[metrics]", START),
        around("[admin]", START),
        around("[bus]", START),
        around("[limits]", START),
        around("[[pool]]", START),
        around("[pool.token]", IN_POOL),
        around("[pool.health]", IN_POOL),
        around("[[pool.backend]]", IN_POOL),
        around("[[vip]]", START),
    ],
};

const AGENT_START: &str = "[agent]\nbackend = \"web1\"\ninterface = \"eth0\"\nbalancers = [\"10.0.0.5\"]\n";

/// An agent's.
pub(super) const AGENT: Kind = Kind {
    head: "\
# The configuration of an agent

`/etc/weir/agent.toml`, in TOML; `weir agent --config` names another. [deploy/agent.toml](../../deploy/agent.toml) is a whole one.
`weir agent --check` says everything that is wrong with a file, and a field that is not here is refused.

",
    example: include_str!("../../../deploy/agent.toml"),
    tables: &[
        around("[agent]", ""),
        around("[bus]", AGENT_START),
        around("[token]", AGENT_START),
        around("[metrics]", AGENT_START),
        around("[[vip]]", AGENT_START),
    ],
};

/// The page, in Markdown.
pub(super) fn page(kind: &Kind, checker: Checker) -> String {
    let mut page = format!("{}{GENERATED}", kind.head);
    for table in example::tables(kind.example) {
        let around = kind.tables.iter().find(|around| around.heading == table.heading);
        let around = around.unwrap_or_else(|| panic!("what {} needs around it is not said here", table.heading));
        describe(&mut page, &table, around, checker);
    }
    page
}

fn describe(page: &mut String, table: &Table, around: &Around, checker: Checker) {
    let _ = write!(page, "\n## `{}`\n\n", table.heading);
    if !table.about.is_empty() {
        let _ = write!(page, "{}\n\n", table.about);
    }
    page.push_str("| field | type | default, or an example | allowed | meaning |\n| --- | --- | --- | --- | --- |\n");
    let required = probe::required(checker, around, table);
    for field in &table.fields {
        let Field { name, value, is_default, about } = field;
        let default = match (required.contains(name), is_default) {
            (true, _) => format!("must be said, such as `{value}`"),
            (false, true) => format!("`{value}`"),
            (false, false) => format!("such as `{value}`"),
        };
        let allowed = probe::allowed(checker, around, &required, table, field);
        let about = if about.is_empty() { why(name) } else { about };
        let (kind, default, about) = (kind_of(value), cell(&default), cell(about));
        let _ = writeln!(page, "| `{name}` | {kind} | {default} | {} | {about} |", cell(&allowed));
    }
}

/// What is said of the limit that a field sets.
fn why(field: &str) -> &'static str {
    let of_field = |limit: &&Named| limit.name.eq_ignore_ascii_case(field);
    limits::ALL.iter().find(of_field).map_or("", |limit| limit.why)
}

fn kind_of(value: &str) -> &'static str {
    match value.as_bytes().first() {
        Some(b'"') => "text",
        Some(b'[') => "list",
        Some(b't' | b'f') => "boolean",
        _ => "number",
    }
}
