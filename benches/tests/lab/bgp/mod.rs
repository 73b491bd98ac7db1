//! VIPs that are announced by BGP while their balancer is well: by BIRD and by ExaBGP, to a router that runs BIRD. Its
//! kernel's routes judge, and connections through it. Needs root, both daemons and the `weir` command.

mod stage;

use std::fs;

use nix::sys::signal::Signal;
use stage::{BY_BIRD, BY_EXABGP, LIMIT, Stage};
use weir_lab::oracle::open_joined;

/// How soon a balancer is believed to be well, and not to be, where a test is not about that.
const SOON: [&str; 4] = ["--rise", "1", "--silence", "2"];
const BOTH: [&str; 2] = [BY_BIRD, BY_EXABGP];

fn other(name: &str) -> &'static str {
    if name == BY_BIRD { BY_EXABGP } else { BY_BIRD }
}

/// Nothing goes through a balancer that has withdrawn: connections of both families, and their joins, work by the other.
fn only(stage: &Stage, name: &str) {
    stage.wait_for(&[name]);
    let (mut connections, joins) = open_joined(&stage.fleet.lab, 4, LIMIT).expect("connections");
    let attempted: u64 = connections.iter().map(|connection| connection.mix.joins()).sum();
    assert_eq!((joins.established(), joins.lost()), (attempted, 0), "by {name}");
    for connection in &mut connections {
        connection.exchange().expect("it works");
    }
}

#[test]
fn a_balancer_that_is_not_well_is_not_announced() {
    let mut stage = Stage::start(&SOON);
    for name in BOTH {
        stage.weir(name).ask(&["drain-self", "--force"]).expect("an order");
        only(&stage, other(name));
        stage.weir(name).ask(&["drain-self", "--undo"]).expect("an order");
        stage.wait_for(&BOTH);

        stage.weir(name).signal(Signal::SIGSTOP).expect("it hangs");
        only(&stage, other(name));
        stage.weir(name).signal(Signal::SIGCONT).expect("it goes on");
        stage.wait_for(&BOTH);

        stage.weir(name).end_by(Signal::SIGKILL).expect("it dies");
        only(&stage, other(name));
        stage.weir(name).start_again().expect("another runs");
        stage.wait_for(&BOTH);

        // Whoever removes the pins takes the program off the interface: the controller lives, and steers nothing.
        fs::remove_dir_all(stage.fleet.lab.pins().join(name)).expect("its pins");
        only(&stage, other(name));
        let weir = stage.weir(name);
        weir.end_by(Signal::SIGTERM).expect("it ends");
        weir.start_again().expect("another runs");
        stage.wait_for(&BOTH);
    }
}

#[test]
fn who_announces_is_watched_too() {
    let mut stage = Stage::start(&SOON);
    // What a router sees of a machine that hangs.
    for name in BOTH {
        stage.daemon(name).signal(Signal::SIGSTOP).expect("it hangs");
        only(&stage, other(name));
        stage.daemon(name).signal(Signal::SIGCONT).expect("it goes on");
        stage.wait_for(&BOTH);
    }
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        stage.end_bridge(signal);
        only(&stage, BY_EXABGP);
        stage.start_bridge();
        stage.wait_for(&BOTH);
    }
    stage.kill_bridge_of_exabgp();
    stage.wait_for(&BOTH);
    // While the balancer is not well, the next bridge has nothing to announce, and forgets what the former one has.
    for name in BOTH {
        stage.weir(name).signal(Signal::SIGSTOP).expect("it hangs");
        if name == BY_BIRD {
            stage.replace_bridge();
        } else {
            stage.kill_bridge_of_exabgp();
        }
        only(&stage, other(name));
        stage.weir(name).signal(Signal::SIGCONT).expect("it goes on");
        stage.wait_for(&BOTH);
    }
    stage.daemon(BY_EXABGP).end_by(Signal::SIGTERM).expect("it ends");
    only(&stage, BY_BIRD);
}

#[test]
fn what_is_announced_follows_the_configuration() {
    const FURTHER: &str = "\n[[vip]]\nname = \"further\"\naddress = \"192.0.2.128/25\"\nprotocol = \"udp\"\nport = \"any\"\npool = \"web\"\n\
                           [[vip]]\nname = \"further6\"\naddress = \"2001:db8:1::/48\"\nprotocol = \"udp\"\nport = \"any\"\npool = \"web\"\n";
    let mut stage = Stage::start(&SOON);
    for name in BOTH {
        let weir = stage.weir(name);
        let file = weir.config();
        let before = fs::read_to_string(&file).expect("a configuration");
        fs::write(&file, format!("{before}{FURTHER}")).expect("it is written");
        weir.ask(&["reload"]).expect("it holds");
        for prefix in ["192.0.2.128/25", "2001:db8:1::/48"] {
            stage.wait_for_route(prefix, &[name]);
        }
        fs::write(&file, before).expect("it is written");
        stage.weir(name).ask(&["reload"]).expect("it holds");
        for prefix in ["192.0.2.128/25", "2001:db8:1::/48"] {
            stage.wait_for_route(prefix, &[]);
        }
        stage.wait_for(&BOTH);
    }
}

/// What steers goes on while a controller is restarted, and so does the announcement.
#[test]
fn a_restart_withdraws_nothing() {
    let mut stage = Stage::start(&["--rise", "1", "--silence", "60"]);
    let drained_and_back = |stage: &mut Stage| {
        for (order, hops) in [("--force", &[BY_EXABGP][..]), ("--undo", &BOTH)] {
            stage.weir(BY_BIRD).ask(&["drain-self", order]).expect("an order");
            stage.wait_for(hops);
        }
    };
    let begun = stage.changes();
    drained_and_back(&mut stage);
    let changes = stage.changes() - begun;
    assert!(changes >= 2, "withdrawn and announced");
    for name in BOTH {
        stage.weir(name).end_by(Signal::SIGTERM).expect("it ends");
        stage.wait_for_silence(name);
        stage.weir(name).start_again().expect("another runs");
    }
    drained_and_back(&mut stage);
    assert_eq!(stage.changes() - begun, 2 * changes, "the restarts have changed nothing");
}
