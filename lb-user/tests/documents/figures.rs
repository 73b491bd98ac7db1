//! The figures of the security page, worked out anew from the limits that the code has.

use lb_common::{
    limits::{
        ENTRIES_PER_NETWORK, JOIN_BUDGETS, JOINED_FLOWS, JOINS_PER_TOKEN, MOVED_FLOWS, PINNED_FLOWS,
        TOKEN_EPOCHS_LIVE_MAX, TOKENS,
    },
    recent,
    stateless::{EPOCHS, IdBits},
};

use crate::page::document;

/// Tokens that there are.
const TOKENS_OF_32_BITS: f64 = 4_294_967_296.0;
/// Values of the hash by which a flow's entry is found.
const FLOW_HASHES: f64 = TOKENS_OF_32_BITS * TOKENS_OF_32_BITS;

#[test]
fn the_figures_of_the_security_page_are_those_of_the_code() {
    let page = document("docs/security.md");
    let rows = [by_chance(), guessed(), chosen(256), chosen(4096), hashed(), budgets()].concat();
    let lines: Vec<_> = rows.into_iter().map(|(what, how_much)| format!("| {what} | {how_much} |\n")).collect();
    let table = lines.concat();
    println!("{table}");
    assert!(page.contains(&table), "docs/security.md has another table than\n{table}");
}

pub(crate) type Row = (String, String);

pub(crate) fn row(what: impl Into<String>, how_much: impl Into<String>) -> Row {
    (what.into(), how_much.into())
}

/// Two connections with one token, at most: those on one backend never have.
fn by_chance() -> Vec<Row> {
    let pairs = |connections: f64| connections * (connections - 1.0) / 2.0 / TOKENS_OF_32_BITS;
    vec![
        row("pairs of connections with one token, of 1,000,000 open (at most)", whole(pairs(1e6))),
        row("the same of 10,000,000", whole(pairs(1e7))),
        row("chance that a new connection's token is another's, 1,000,000 open", percent(1e6 / TOKENS_OF_32_BITS)),
    ]
}

fn guessed() -> Vec<Row> {
    let full = f64::from(TOKENS.default);
    let live_ids = |epochs: usize| percent(lossy(epochs) / lossy(EPOCHS) * 200.0 / 256.0);
    vec![
        row(
            format!(
                "tokens that one who fills the table ({}) with random ones makes ambiguous, of 1,000,000",
                whole(full)
            ),
            whole(full * 1e6 / TOKENS_OF_32_BITS),
        ),
        row("joins with random tokens that hit one of 1,000,000 connections", percent(1e6 / TOKENS_OF_32_BITS)),
        row("joins with random tokens that `token` forwards: 200 ids of 256, 1 live epoch", live_ids(1)),
        row(format!("the same with {TOKEN_EPOCHS_LIVE_MAX} live epochs, the most"), live_ids(TOKEN_EPOCHS_LIVE_MAX)),
    ]
}

/// What tokens that name one of so many backends leave.
fn chosen(backends: u32) -> Vec<Row> {
    let bits = IdBits::for_backends(backends).expect("so many there can be");
    let of = format!("of {} backends", whole(f64::from(backends)));
    let fixed = bits.count() + EPOCHS.ilog2();
    vec![
        row(format!("tokens that a backend has in an epoch, {of}"), whole(f64::from(bits.tokens()))),
        row(format!("connections that it may expect to have open, {of}"), whole(f64::from(bits.connections_max()))),
        row(format!("keys that are tried for one that fits, on average, {of}"), whole(f64::from(1_u32 << fixed))),
        row(format!("bits that remain of a key's 64 for who has the secret, {of}"), (64 - fixed).to_string()),
    ]
}

fn hashed() -> Vec<Row> {
    let entries = f64::from(JOINED_FLOWS.default + MOVED_FLOWS.default + PINNED_FLOWS.default);
    vec![
        row(
            format!(
                "chance that a flow is taken for one of {} with an entry, by 64 bits of keyed hash",
                whole(entries)
            ),
            format!("{:.1e}", entries / FLOW_HASHES),
        ),
        row(
            "chance that a packet finds a stranger's handshake in its bucket, before sequence numbers are compared",
            format!("{:.1e}", lossy(recent::WAYS) / TOKENS_OF_32_BITS),
        ),
    ]
}

fn budgets() -> Vec<Row> {
    let networks = f64::from(TOKENS.default) / f64::from(ENTRIES_PER_NETWORK.default);
    vec![
        row("joins to one connection that are let through in 1.07 s", JOINS_PER_TOKEN.default.to_string()),
        row("connections that share the budget of one: one in", whole(f64::from(JOIN_BUDGETS))),
        row("networks that a forger has to have addresses in, to fill the table of tokens in 1.07 s", whole(networks)),
    ]
}

#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn lossy(number: usize) -> f64 {
    number as f64
}

/// With a comma for each thousand.
pub(crate) fn whole(number: f64) -> String {
    let digits = format!("{number:.0}");
    let separated = digits.char_indices().map(|(index, digit)| {
        let comma = if index > 0 && (digits.len() - index) % 3 == 0 { "," } else { "" };
        format!("{comma}{digit}")
    });
    separated.collect()
}

fn percent(share: f64) -> String {
    let share = share * 100.0;
    if share < 1.0 { format!("{share:.3} %") } else { format!("{share:.0} %") }
}
