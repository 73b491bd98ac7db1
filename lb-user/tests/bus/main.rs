//! Balancers and an agent on a real NATS server: what one tells, the others have in their kernel's tables. Packets need
//! none of it.

mod stage;
mod takeover;

use lb_user::bus::{
    HandedOver, HandoverError, Refusal,
    wire::{Notice, Op},
};
use stage::{Balancer, Member, Server, until};
use std::sync::atomic::Ordering::Relaxed;

const TOKEN: u32 = 0x0102_0304;
const OTHER: u32 = 0x0a0b_0c0d;

fn learned(backend: &str, pool: &str, token: u32) -> Notice {
    Notice { pool: pool.to_owned(), backend: backend.to_owned(), op: Op::Hold, value: token, flow: 77 }
}

fn reported(op: Op, backend: &str) -> Notice {
    let (pool, backend) = ("safe".to_owned(), backend.to_owned());
    Notice { pool, backend, op, value: TOKEN, flow: Notice::BY_AGENT }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_told_by_one_is_known_to_all_and_is_never_taken_over() {
    let server = Server::start();
    let (one, two) = (Balancer::start(&server, "lb1").await, Balancer::start(&server, "lb2").await);
    let agent = Member::start(&server, "web1").await;
    agent.bus.publisher.tell(reported(Op::Hold, "b1"));
    agent.bus.publisher.tell(learned("b1", "web", OTHER));
    for balancer in [&one, &two] {
        until(|| balancer.holders("safe", TOKEN) == ["b1"]).await;
        until(|| balancer.holders("web", OTHER) == ["b1"]).await;
    }

    // What a client may have taught a balancer says nothing to a pool that believes agents alone.
    agent.bus.publisher.tell(learned("b2", "safe", TOKEN));
    // Elsewhere it makes the token ambiguous, as it does in the data path.
    agent.bus.publisher.tell(learned("b2", "web", OTHER));
    agent.bus.publisher.tell(learned("b9", "web", OTHER));
    for balancer in [&one, &two] {
        until(|| balancer.holders("web", OTHER) == ["b1", "b2"]).await;
        until(|| balancer.refused(Refusal::Unknown) == 1).await;
        assert_eq!(balancer.holders("safe", TOKEN), ["b1"]);
        assert_eq!(balancer.refused(Refusal::Unwanted), 1);
        assert_eq!(balancer.refused(Refusal::Held), 1);
    }

    agent.bus.publisher.tell(reported(Op::Close, "b2"));
    agent.bus.publisher.tell(reported(Op::Close, "b1"));
    until(|| one.holders("safe", TOKEN).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_starts_later_knows_it_before_it_is_ready() {
    let server = Server::start();
    let one = Balancer::start(&server, "lb1").await;
    let agent = Member::start(&server, "web1").await;
    agent.bus.publisher.tell(reported(Op::Hold, "b1"));
    agent.bus.publisher.tell(Notice { op: Op::Join, ..learned("b2", "web", 9) });
    until(|| one.holders("safe", TOKEN) == ["b1"] && one.joined() == [77]).await;
    agent.bus.end().await;

    let late = Balancer::start(&server, "lb2").await;
    assert_eq!(late.holders("safe", TOKEN), ["b1"]);
    assert_eq!(late.joined(), [77]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_while_the_bus_is_down_arrives_when_it_is_back() {
    let mut server = Server::start();
    let one = Balancer::start(&server, "lb1").await;
    let agent = Member::start(&server, "web1").await;
    server.kill();
    until(|| !agent.bus.counts.connected.load(Relaxed)).await;
    // Whoever is back first tells nobody: what it knows is what the others ask it for.
    let created = Notice { flow: 0, ..learned("b1", "safe", TOKEN) };
    agent.known.0.lock().expect("no panic").push(created.clone());
    agent.bus.publisher.tell(created);
    server.start_again();
    until(|| one.holders("safe", TOKEN) == ["b1"]).await;
    assert_eq!(agent.bus.counts.lost.load(Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_server_a_balancer_goes_on_alone() {
    let mut server = Server::start();
    server.kill();
    let alone = Balancer::start(&server, "lb1").await;
    assert_eq!(alone.holders("safe", TOKEN), [""; 0]);
}

/// When the others have said so, they have it: nothing is waited for.
#[tokio::test(flavor = "multi_thread")]
async fn who_goes_hands_over_first() {
    let mut server = Server::start();
    let going = Member::start(&server, "lb9").await;
    assert_eq!(going.bus.handover().hand_over().await, Err(HandoverError::Alone));

    let (one, two) = (Balancer::start(&server, "lb1").await, Balancer::start(&server, "lb2").await);
    let joined = Notice { op: Op::Join, ..learned("b2", "web", 9) };
    going.known.0.lock().expect("no panic").extend([reported(Op::Recall, "b1"), joined]);
    let members = vec!["lb1".to_owned(), "lb2".to_owned()];
    assert_eq!(going.bus.handover().hand_over().await, Ok(HandedOver { members, tokens: 1, flows: 1 }));
    for balancer in [&one, &two] {
        assert_eq!(balancer.holders("safe", TOKEN), ["b1"]);
        assert_eq!(balancer.joined(), [77]);
    }

    server.kill();
    until(|| !going.bus.counts.connected.load(Relaxed)).await;
    assert_eq!(going.bus.handover().hand_over().await, Err(HandoverError::Unreached));
}
