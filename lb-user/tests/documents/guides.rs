//! The how-to guides, each on a machine of its own: a balancer that runs, with its backends beside it.

use crate::{shell::Shell, typed::follow};

fn typed(page: &str) {
    let mut shell = Shell::start();
    shell.must(include_str!("stage.sh"));
    assert!(follow(&format!("docs/how-to/{page}.md"), &mut shell) > 0, "nothing of {page} is typed");
}

#[test]
fn a_backend_is_added() {
    typed("add-a-backend");
}

#[test]
fn a_vip_is_added_and_taken_back() {
    typed("add-a-vip");
}

#[test]
fn a_client_is_found() {
    typed("find-a-flow");
}

#[test]
fn memory_is_counted() {
    typed("plan");
}

#[test]
fn a_backend_drains() {
    typed("drain");
}

#[test]
fn secrets_are_rotated() {
    typed("rotate-secrets");
}

#[test]
fn a_balancer_is_upgraded() {
    typed("upgrade");
}

#[test]
fn a_balancer_of_a_fleet_is_asked_whether_it_is_well() {
    typed("fleet");
}
