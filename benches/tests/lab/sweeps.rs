//! `weir-lab load sweeps` as a program that reads it sees it, at a few small points: every axis has its figures, tables take
//! what they are sized for, and the page needs nothing else. What it measures is not judged, but that packets take the path
//! that they are measured for, and that a reload is in force when it is answered: the sweeps themselves check both. Needs
//! root and the `weir` command.

use std::{fs, path::Path, process::Command};

use serde_json::Value;

/// Bytes that the kernel needs for a token's key and entry, at least.
const TOKEN_BYTES: u64 = 40;

fn figures<'r>(report: &'r Value, axis: &str) -> &'r [Value] {
    report["sweeps"][axis].as_array().unwrap_or_else(|| panic!("{axis} in {report}"))
}

fn bytes(figure: &Value) -> u64 {
    figure["bytes"].as_u64().unwrap_or_else(|| panic!("{figure}"))
}

#[test]
fn a_quick_run_has_every_axis_and_a_page_that_needs_nothing_else() {
    let page = Path::new(env!("CARGO_TARGET_TMPDIR")).join("load-sweeps.html");
    let output = Command::new(env!("CARGO_BIN_EXE_weir-lab"))
        .args(["load", "sweeps", "--quick", "--json", "--report", &page.to_string_lossy()])
        .output()
        .expect("weir-lab starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");

    for axis in ["flows", "backends", "vips", "joined"] {
        assert!(!figures(&report, axis).is_empty(), "{axis}");
        for figure in figures(&report, axis) {
            assert!(figure[axis].is_u64(), "{figure}");
            for name in ["ns", "stubs", "join_ns", "apply_ms", "told_ms"] {
                assert!(figure[name].is_f64(), "{name} in {figure}");
            }
            assert!(figure["rss_bytes"].as_u64() > Some(0) && bytes(figure) > 0, "{figure}");
            assert!(figure["rss_peak_bytes"].as_u64() >= figure["rss_bytes"].as_u64(), "{figure}");
        }
    }
    assert!(figures(&report, "joined").iter().all(|figure| figure["joined_ns"].is_f64()), "{report}");

    let [few, many] = figures(&report, "flows") else { panic!("two points: {report}") };
    let more = many["flows"].as_u64().expect("a number") - 1024;
    assert!(bytes(many) > bytes(few) + more * TOKEN_BYTES, "each connection's token takes memory: {report}");
    let growing = |figure: &Value| figure["growing"].as_object().expect("maps").keys().cloned().collect::<Vec<_>>();
    assert_eq!([growing(few), growing(many)], [["weir_tokens"], ["weir_tokens"]]);

    let elements = crate::page::elements_of_self_contained(&fs::read_to_string(page).expect("the page is written"));
    let count = |name: &str| elements.iter().filter(|element| *element == name).count();
    assert_eq!(count("svg"), 12, "three plots for each axis");
    // At each of five points, and what grows along flows.
    assert_eq!(count("circle"), 5 * 9 + 2);
}
