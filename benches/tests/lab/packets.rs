//! The packet generator, in a short run: that its packets come to Weir and to the programs beside it, and that connections live in
//! its floods. How fast is for the command itself. Needs root, two CPUs and the `weir` command.

use weir_lab::packets::{self, Options};

#[test]
fn packets_come_through_and_floods_take_no_connection_down() {
    let backends = 2.try_into().expect("two");
    let options = Options { flows: 1000, rounds: 1, span: 50, connections: 5, backends, json: true };
    let (report, failures) = packets::run(options, &|_| {}).expect("a run");
    assert_eq!(failures, Vec::<String>::new());
    for rate in &report.rates {
        assert!(rate.reflector_pps > 0 && rate.tunnel_pps > 0 && rate.weir_pps > 0, "{rate}");
        // What nobody knows is dropped, everything else comes back.
        let comes_back = rate.packets != "join";
        assert_eq!(rate.returned_pps.map(|pps| pps > 0), [true, true, comes_back], "{rate}");
    }
    assert_eq!(report.calm.joins_established, 5);
    let floods: Vec<_> = report.floods.iter().map(|flood| (flood.packets, flood.quality.joins_established)).collect();
    assert_eq!(floods, [("syn", 5), ("join", 5), ("third_ack", 5)]);
    assert!(report.floods.iter().all(|flood| flood.steered_pps > 0));
}
