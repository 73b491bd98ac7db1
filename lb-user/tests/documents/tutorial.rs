//! The tutorial, from its first command to its last.

use crate::{
    shell::Shell,
    typed::{follow, see},
};

/// Whatever the tutorial makes.
const LEFT: &str = "\
ip netns list
ip -brief link show type veth
find /run/here /sys/fs/bpf -mindepth 1 ! -name '*.debug'
pgrep --list-name 'weir|socat' || true";

#[test]
fn the_tutorial_does_what_it_shows_and_clears_what_it_made() {
    let mut shell = Shell::start();
    let typed = follow("docs/tutorial.md", &mut shell);
    assert!(typed > 10, "only {typed} blocks");
    see(LEFT, "", &mut shell);
}
