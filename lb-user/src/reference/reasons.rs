//! The page of the reasons: what becomes of packets, and why.

use super::GENERATED;
use crate::joins;
use lb_common::reason::{Action, Reason};
use std::fmt::Write as _;

/// The groups, in the order of the page.
const GROUPS: [(Action, &str); 4] = [
    (Action::Forward, "Sent to a backend"),
    (Action::Reply, "Answered by Weir"),
    (Action::Drop, "Dropped"),
    (Action::Pass, "Left to the host"),
];

/// The page, in Markdown.
pub(super) fn page() -> String {
    let mut page = format!(
        "# Reasons\n\nEvery packet has exactly one: `reason` of `weir_packets_total` and `weir_bytes_total`, in `weir status`, and what \
         `weir explain` and `weir trace` tell.\n\n{GENERATED}"
    );
    for (action, words) in GROUPS {
        let _ = writeln!(page, "\n## {words}\n\n| reason | meaning |\n| --- | --- |");
        for reason in Reason::ALL.iter().filter(|reason| reason.action() == action) {
            let _ = writeln!(page, "| `{}` | {} |", reason.as_str(), reason.explanation().trim());
        }
    }
    page.push_str(
        "\n## Joins\n\n`way` and `outcome` of `weir_joins_total`, and the reason that they stand for.\n\n\
         | way | outcome | reason |\n| --- | --- | --- |\n",
    );
    for (reason, join) in Reason::ALL.iter().filter_map(|&reason| Some((reason, joins::of(reason)?))) {
        let _ = writeln!(page, "| `{}` | `{}` | `{}` |", join.way, join.outcome, reason.as_str());
    }
    page.push_str("\n| way | how the connection was known |\n| --- | --- |\n");
    for (way, meaning) in joins::WAYS {
        let _ = writeln!(page, "| `{way}` | {meaning} |");
    }
    page
}
