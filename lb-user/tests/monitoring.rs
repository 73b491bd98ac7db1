//! What operators are given to watch Weir by: the alerts are judged by promtool, and all that alerts and dashboard name is
//! held against what Weir exports. That the dashboard's queries have data is for `benches/tests/monitoring.rs`.

use lb_common::reason::{Action, Reason};
use lb_user::{
    bus::Refusal,
    metrics::{self, FAMILIES},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const RULES: &str = "deploy/monitoring/weir.rules.yml";
const TESTS: &str = "deploy/monitoring/weir.rules.test.yml";
const DASHBOARD: &str = "deploy/monitoring/weir-dashboard.json";

#[derive(Deserialize)]
struct Rules {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    alert: Option<String>,
    record: Option<String>,
    expr: String,
    #[serde(default)]
    r#for: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Tests {
    tests: Vec<Test>,
}

#[derive(Deserialize)]
struct Test {
    input_series: Vec<Series>,
    promql_expr_test: Vec<Expectation>,
}

#[derive(Deserialize)]
struct Series {
    series: String,
}

#[derive(Deserialize)]
struct Expectation {
    expr: String,
    exp_samples: Vec<Value>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn read<T: DeserializeOwned>(path: &str) -> T {
    serde_yaml_ng::from_str(&text(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn rules() -> Vec<Rule> {
    read::<Rules>(RULES).groups.into_iter().flat_map(|group| group.rules).collect()
}

/// The alerts by their names.
fn alerts() -> Vec<(String, Rule)> {
    rules().into_iter().filter_map(|mut rule| Some((rule.alert.take()?, rule))).collect()
}

fn dashboard() -> Value {
    serde_json::from_str(&text(DASHBOARD)).unwrap_or_else(|error| panic!("{DASHBOARD}: {error}"))
}

/// The panels that show something.
fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    dashboard["panels"].as_array().expect("panels").iter().filter(|panel| panel["type"] != "row")
}

fn targets(panel: &Value) -> &[Value] {
    panel["targets"].as_array().expect("queries")
}

fn word<'v>(value: &'v Value, field: &str) -> &'v str {
    value[field].as_str().unwrap_or_default()
}

/// All queries: of rules, of panels, and of the dashboard's variables.
fn queries() -> Vec<String> {
    let dashboard = dashboard();
    let of_panels = panels(&dashboard).flat_map(targets).map(|target| word(target, "expr").to_owned());
    let variables = dashboard["templating"]["list"].as_array().expect("variables");
    let of_variables = variables.iter().map(|variable| word(&variable["query"], "query").to_owned());
    rules().into_iter().map(|rule| rule.expr).chain(of_panels).chain(of_variables).collect()
}

/// The names of a query that begin so, outside of its strings.
fn names<'q>(query: &'q str, beginning: &str) -> Vec<&'q str> {
    let outside = query.split('"').step_by(2);
    let words = outside.flat_map(|text| text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':'));
    words.filter(|name| name.starts_with(beginning)).collect()
}

/// The words that a query asks of a label.
fn asked<'q>(query: &'q str, label: &str) -> Vec<&'q str> {
    let mut words = Vec::new();
    for operator in ["=\"", "=~\"", "!=\"", "!~\""] {
        let begins = format!("{label}{operator}");
        for found in query.split(&begins).skip(1) {
            words.extend(found.split('"').next().unwrap_or_default().split('|'));
        }
    }
    words
}

fn promtool(arguments: &[&str]) -> String {
    let output = Command::new("promtool")
        .args(arguments)
        .current_dir(root())
        .output()
        .expect("promtool is installed: `cargo xtask setup` does it");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}");
    said
}

#[test]
fn promtool_finds_no_fault_in_the_rules_and_their_tests_pass() {
    let said = promtool(&["check", "rules", "--lint-fatal", RULES]);
    assert!(said.contains(&format!("SUCCESS: {} rules found", rules().len())), "{said}");
    let said = promtool(&["test", "rules", TESTS]);
    assert!(said.contains("SUCCESS"), "{said}");
}

#[test]
fn every_alert_has_a_test_that_fires_it_and_one_that_does_not() {
    let tests = read::<Tests>(TESTS).tests;
    for (alert, _) in alerts() {
        let wanted = format!("ALERTS{{alertname=\"{alert}\",alertstate=\"firing\"}}");
        let of_alert = |test: &&Test| test.promql_expr_test.iter().any(|expected| expected.expr.contains(&wanted));
        let tests: Vec<_> = tests.iter().filter(of_alert).collect();
        let expectations = || tests.iter().flat_map(|test| &test.promql_expr_test);
        assert!(expectations().any(|expected| !expected.exp_samples.is_empty()), "no test fires {alert}");
        assert!(expectations().any(|expected| expected.exp_samples.is_empty()), "{alert} always fires");
        let is_near = |series: &Series| series.series.contains("instance=\"near\"");
        assert!(tests.iter().all(|test| test.input_series.iter().any(is_near)), "{alert} has no near case");
    }
}

#[test]
fn every_alert_says_how_bad_it_is_what_it_means_and_what_to_type() {
    for (alert, rule) in alerts() {
        assert!(["critical", "warning"].contains(&rule.labels["severity"].as_str()), "{alert}");
        assert!(!rule.r#for.is_empty(), "{alert} fires at once");
        assert!(rule.annotations.keys().eq(["description", "summary"]), "{alert}: {:?}", rule.annotations);
        let commands = commands(&rule.annotations["description"]);
        assert!(!commands.is_empty(), "{alert} names no command of weir");
        for command in commands {
            assert_is_one(command, &alert);
        }
    }
    for panel in panels(&dashboard()) {
        for command in commands(word(panel, "description")) {
            assert_is_one(command, word(panel, "title"));
        }
    }
}

/// What follows `weir` between backticks.
fn commands(prose: &str) -> Vec<&str> {
    prose.split('`').skip(1).step_by(2).filter_map(|code| code.strip_prefix("weir ")).collect()
}

/// `weir` reads a command up to the question for help at its end, and refuses what it does not know.
fn assert_is_one(command: &str, named_by: &str) {
    let mut weir = Command::new(env!("CARGO_BIN_EXE_weir"));
    let output = weir.args(command.split_whitespace()).arg("--help").output().expect("weir starts");
    assert!(output.status.success(), "{named_by}: `weir {command}`: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn every_metric_that_is_asked_for_is_exported_or_recorded() {
    let exported: BTreeSet<_> = FAMILIES.iter().chain(metrics::agent::FAMILIES).map(|family| family.name).collect();
    let recorded: BTreeSet<_> = rules().into_iter().filter_map(|rule| rule.record).collect();
    let queries = queries();
    for query in &queries {
        let unknown: Vec<_> = names(query, "weir_").into_iter().filter(|name| !exported.contains(name)).collect();
        assert!(unknown.is_empty(), "{unknown:?} in {query}");
        let unknown: Vec<_> = names(query, "weir:").into_iter().filter(|name| !recorded.contains(*name)).collect();
        assert!(unknown.is_empty(), "no rule records {unknown:?} of {query}");
    }
    let shown: BTreeSet<_> = queries.iter().flat_map(|query| names(query, "weir_")).collect();
    let unused: Vec<_> = exported.into_iter().filter(|name| !shown.contains(name)).collect();
    assert!(unused.is_empty(), "neither an alert nor a panel has {unused:?}");
}

#[test]
fn every_reason_that_is_asked_for_is_one_and_none_is_left_out() {
    let known: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    let refusals: BTreeSet<_> = Refusal::ALL.iter().map(|refusal| refusal.as_str()).collect();
    let queries = queries();
    for query in &queries {
        let known = if query.contains("weir_bus_entries_refused_total") { &refusals } else { &known };
        let unknown: Vec<_> = asked(query, "reason").into_iter().filter(|word| !known.contains(word)).collect();
        assert!(unknown.is_empty(), "{unknown:?} in {query}");
    }
    for action in [Action::Forward, Action::Reply, Action::Drop, Action::Pass] {
        let all: BTreeSet<_> =
            Reason::ALL.iter().filter(|reason| reason.action() == action).map(|reason| reason.as_str()).collect();
        let names_all = |query: &&String| asked(query, "reason").into_iter().collect::<BTreeSet<_>>() == all;
        let places = if action == Action::Drop { 3 } else { 1 };
        let found = queries.iter().filter(names_all).count();
        assert!(found >= places, "{action:?}: {found} queries have exactly {all:?}");
    }
}

#[test]
fn the_dashboard_can_be_read_by_a_person() {
    let dashboard = dashboard();
    let mut ids = BTreeSet::new();
    let mut places = BTreeSet::new();
    for panel in panels(&dashboard) {
        let title = word(panel, "title");
        assert!(ids.insert(panel["id"].as_u64()), "{title}: another panel has its id");
        for field in ["title", "description"] {
            assert!(!word(panel, field).is_empty(), "{title} has no {field}");
        }
        assert!(!word(&panel["fieldConfig"]["defaults"], "unit").is_empty(), "{title} has no unit");
        for target in targets(panel) {
            assert!(!word(target, "legendFormat").is_empty(), "{title}: a query has no legend");
            assert_eq!(word(&target["datasource"], "uid"), "${datasource}", "{title}");
        }
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().expect("a place"));
        for cell in (x..x + w).flat_map(|column| (y..y + h).map(move |line| (column, line))) {
            assert!(cell.0 < 24 && places.insert(cell), "{title} lies over another panel, or beyond the edge");
        }
    }
    let rows = dashboard["panels"].as_array().expect("panels").iter().filter(|panel| panel["type"] == "row");
    let rows: Vec<_> = rows.map(|row| word(row, "title")).collect();
    assert_eq!(rows, ["Overview", "Joins", "Backends", "Tables", "Controller and bus", "Agents"]);
}
