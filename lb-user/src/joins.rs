//! The joins among the reasons: by which way each found its backend, or did not, and what became of it.

use lb_common::reason::Reason;

/// A kind of packet that belongs to a join.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Join {
    /// One of [`WAYS`].
    pub way: &'static str,
    /// What became of the packet.
    pub outcome: &'static str,
}

/// The words for how a join's connection was known, and what each means.
pub const WAYS: [(&str, &str); 5] = [
    ("table", "its token is in the table, be it learned here, learned by another balancer or reported by an agent"),
    ("token", "its token names the backend"),
    ("endpoint", "it came to a port or an address of the backend's own"),
    ("any", "one of these; for this packet it does not matter which"),
    ("none", "nothing is known of it"),
];

/// What a reason says of a join; nothing where it is about other packets.
pub const fn of(reason: Reason) -> Option<Join> {
    let (way, outcome) = match reason {
        Reason::JoinToken => ("table", "forwarded"),
        Reason::JoinAmbiguous => ("table", "ambiguous"),
        Reason::Joined => ("any", "entry_made"),
        Reason::JoinedFull => ("any", "entry_refused"),
        Reason::JoinStateless => ("token", "forwarded"),
        Reason::JoinStatelessGone => ("token", "backend_gone"),
        Reason::JoinOverBudget => ("any", "over_budget"),
        Reason::JoinEndpoint => ("endpoint", "forwarded"),
        Reason::JoinUnknown => ("none", "dropped"),
        Reason::JoinUnknownHashed => ("none", "hashed"),
        Reason::JoinUnknownReset => ("none", "reset"),
        _ => return None,
    };
    Some(Join { way, outcome })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_reason_about_joins_is_one_and_no_two_are_the_same() {
        let joins: Vec<_> = Reason::ALL.iter().filter_map(|&reason| Some((reason, of(reason)?))).collect();
        let named = Reason::ALL.iter().filter(|reason| reason.as_str().starts_with("join"));
        assert_eq!(joins.len(), named.count());
        assert!(joins.iter().all(|(reason, _)| reason.as_str().starts_with("join")));
        assert_eq!(joins.iter().map(|(_, join)| join).collect::<BTreeSet<_>>().len(), joins.len());
        let ways: BTreeSet<_> = joins.iter().map(|(_, join)| join.way).collect();
        assert_eq!(ways, WAYS.map(|(way, _)| way).into());
    }
}
