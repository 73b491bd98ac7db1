//! The page of the limits: how much there can be of everything, and why no more.

use super::{GENERATED, cell};
use lb_common::limits::{ALL, Bound, Named};
use std::fmt::Write as _;

const HEAD: &str = "\
# Limits

What can be configured has a smallest, a default and a largest value; [config.md](config.md) and
[agent-config.md](agent-config.md) say by which field. The others are fixed. A configuration that is beyond one is refused, with a
message that names it.

Most limits have the name of their field in capitals, with that of its table in front where that alone would not do: `TOKENS` is
`tokens` in `[limits]`, `HEALTH_RISE` is `rise` in `[pool.health]`.

";

/// The page, in Markdown.
pub(super) fn page() -> String {
    let mut page = format!("{HEAD}{GENERATED}\n## To be configured\n\n");
    page.push_str("| limit | least | default | most | why |\n| --- | ---: | ---: | ---: | --- |\n");
    for Named { name, bound, why } in ALL {
        if let Bound::Range(limit) = bound {
            let _ = writeln!(page, "| `{name}` | {} | {} | {} | {} |", limit.min, limit.default, limit.max, cell(why));
        }
    }
    page.push_str("\n## Fixed\n\n| limit | value | why |\n| --- | ---: | --- |\n");
    for Named { name, bound, why } in ALL {
        if let Bound::Fixed(value) = bound {
            let _ = writeln!(page, "| `{name}` | {value} | {} |", cell(why));
        }
    }
    page
}
