//! The figures of the page on what tokens cost, as `benches/results` has them: what the commands of the table have printed in
//! one run each. A file that is not there has no rows.

use crate::{
    figures::{Row, row, whole},
    page::{document, documents::root},
};
use serde_json::Value;
use std::{fs, iter};

const PAGE: &str = "docs/explanation/what-tokens-cost.md";
const LOAD: &str = "cargo xtask load --ways learn,report,endpoint,token --rtt 0,10,50 --duration 15";
const KEYS: &str = "weir agent keys --seconds 10";
const MINT: &str = "cargo xtask drill mint";
const BENCH: &str = "cargo xtask bench";
/// The flows that there are beside the one that is measured, of the bench's points.
const FLOWS: u32 = 65_536;

#[test]
fn the_figures_of_the_page_on_tokens_are_those_that_were_measured() {
    let files = [("load", LOAD, by_load as fn(&Value) -> Vec<Row>), ("tokens-keys", KEYS, by_keys)]
        .into_iter()
        .chain([("tokens-mint", MINT, by_mint as fn(&Value) -> Vec<Row>), ("tokens-bench", BENCH, by_bench)]);
    let lines: Vec<_> = files
        .flat_map(|(file, command, rows)| {
            let rows = result(file).map_or_else(Vec::new, |result| rows(&result));
            let commands = iter::once(format!("`{command}`")).chain(iter::repeat("the same".to_owned()));
            rows.into_iter()
                .zip(commands)
                .map(|((what, figure), command)| format!("| {what} | {figure} | {command} |\n"))
        })
        .collect();
    let table = format!("| what | figure | command |\n|---|---|---|\n{}\n", lines.concat());
    println!("{table}");
    assert!(document(PAGE).contains(&table), "{PAGE} has another table than\n{table}");
}

/// What a command has printed, if it is there.
fn result(file: &str) -> Option<Value> {
    let text = fs::read_to_string(root().join(format!("benches/results/{file}.json"))).ok()?;
    Some(serde_json::from_str(&text).expect("JSON"))
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("{value} is no list"))
}

fn by_load(load: &Value) -> Vec<Row> {
    let of_way = |way: &str, field: &str| {
        let runs = list(&load["runs"]).iter().filter(|run| run["way"] == way);
        whole(runs.map(|run| number(&run[field])).sum())
    };
    ["token", "learn"]
        .into_iter()
        .flat_map(|way| {
            let joins = format!("{} of {}", of_way(way, "joins_established"), of_way(way, "joins_attempted"));
            [
                row(format!("joins established while the pool changes every 2 s, by `{way}`"), joins),
                row(format!("connections that failed meanwhile, by `{way}`"), of_way(way, "connections_failed")),
                row(format!("MPTCP connections meanwhile, by `{way}`"), of_way(way, "connections_mptcp")),
                row(format!("connections that were plain TCP, by `{way}`"), of_way(way, "connections_plain")),
            ]
        })
        .collect()
}

fn by_keys(keys: &Value) -> Vec<Row> {
    let rates = list(&keys["rates"]).iter();
    rates
        .map(|rate| {
            let backends = whole(number(&rate["id_bits"]).exp2());
            row(
                format!("keys that one processor finds in a second, of {backends} backends"),
                whole(number(&rate["keys_per_second"])),
            )
        })
        .collect()
}

fn by_mint(mint: &Value) -> Vec<Row> {
    [
        ("connections a second, chosen keys by the kernel's own (1 is as fast)", "connections_ratio"),
        ("throughput, likewise", "throughput_ratio"),
        ("processor time a connection, the kernel's own by chosen keys (1 is as cheap)", "cpu_ratio"),
        ("the same without the search for keys", "cpu_ratio_without_search"),
    ]
    .map(|(what, field)| row(what, format!("{:.2}", number(&mint[field]))))
    .into()
}

fn by_bench(bench: &Value) -> Vec<Row> {
    let at = |case: &str, flows: u32| {
        let found = |point: &&Value| point["name"] == case && point["flows"] == flows && point["tracked"] == 0;
        let point = list(&bench["cases"]).iter().find(found).unwrap_or_else(|| panic!("{case} is not in it"));
        format!("{:.0} ns", number(&point["ns"]))
    };
    let agents = ["decap_pass", "mint_pass", "clamp_pass", "plain_pass"];
    let mut rows =
        agents.map(|case| row(format!("a packet that a backend lets alone, `{case}`"), at(case, 1))).to_vec();
    rows.extend(["join_token", "join_table"].map(|case| {
        row(format!("a join at the balancer beside {} flows, `{case}`", whole(f64::from(FLOWS))), at(case, FLOWS))
    }));
    rows
}
