//! The gate: no program costs the kernel's verifier more than its budget. Needs root.

use std::path::Path;

use weir_lab::verifier::{Budget, KERNEL_LIMIT, verify};

#[test]
fn every_program_is_within_its_budget() {
    let budget = Budget::read(Path::new(Budget::PATH)).expect("the repository has a budget");
    let verified = verify().expect("the kernel takes every program");
    assert!(verified.iter().any(|program| program.name == "weir_balancer"), "{verified:?}");
    assert_eq!(budget.objections(&verified), Vec::<String>::new());
}

#[test]
fn no_budget_reaches_the_kernels_limit() {
    let budget = Budget::read(Path::new(Budget::PATH)).expect("the repository has a budget");
    let largest = budget.allowance("weir_balancer").expect("the balancer has a budget");
    assert!(largest.instructions < KERNEL_LIMIT);
}
