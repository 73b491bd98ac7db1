//! A sweep keeps nobody waiting: between two of its pieces a running balancer answers, as another thread finds.

use crate::{
    scrape::{learn_tokens, own_bpffs, tokens},
    stage::{CONFIG, DEADLINE, Stage, until},
};
use lb_user::{config::Config, metrics::Source as _, service::Service, sweep::PIECE};
use std::{
    sync::{Arc, mpsc},
    thread,
};

/// Asks as the admin socket does, in a thread of its own: who would wait for the sweep would wait for ever.
fn ask(service: &Arc<Service>) {
    let (answer, answered) = mpsc::channel();
    let service = Arc::clone(service);
    thread::spawn(move || {
        let told = service.status().is_ok() && service.tokens(1).is_ok() && service.advance().is_ok();
        // Who has asked may have given up.
        let _ = answer.send(told);
    });
    assert!(answered.recv_timeout(DEADLINE).expect("an answer before the sweep goes on"));
}

fn load() -> Service {
    Service::load(Config::parse(CONFIG, "weir.toml").expect("it is good")).expect("it loads")
}

#[test]
fn between_the_pieces_of_a_sweep_others_are_answered() {
    let stage = Stage::new();
    own_bpffs();
    let service = Arc::new(load());
    let entries = 3 * PIECE + 1;
    learn_tokens(0..entries.try_into().expect("few"));
    let (mut pieces, mut left) = (0, Vec::new());
    let between = || {
        ask(&service);
        pieces += 1;
        left.push(tokens().keys().count());
    };
    service.sweep_in_pieces(between).expect("the kernel lets it");

    // Its descriptors, four pieces of tokens whose pool is gone, the filter's descriptors, and what it tells.
    assert_eq!(pieces, 1 + 4 + 1 + 1);
    let after = |ended: usize| entries - ended * PIECE;
    assert_eq!(left, [entries, entries, after(1), after(2), after(3), 0, 0]);
    let told = service.tokens(1).expect("the kernel tells");
    assert_eq!((told.entries, told.samples.len()), (0, 0));
    drop(stage);
}

#[test]
fn the_metrics_tell_how_long_ago_the_last_sweep_ended() {
    let stage = Stage::new();
    own_bpffs();
    let service = load();
    until("nothing has been swept since the start", || service.snapshot().swept_s_ago >= 2);
    until("a sweep has just ended", || {
        service.sweep().expect("the kernel lets it");
        service.snapshot().swept_s_ago < 2
    });
    drop(stage);
}
