//! A flow that is asked for by its ends goes where its captured first packet goes, by ends that tshark has read.

use crate::{
    captured::{capture, tool},
    weir::{Place, lines},
};

const KEY: &str = "00112233445566778899aabbccddeeff";

/// The ends of the flows that clients open in a capture without joining, and the numbers of their first frames.
fn opened(capture: &str, family: &str) -> Vec<(usize, String)> {
    let (from, to) = (format!("{family}.src"), format!("{family}.dst"));
    let opens = "tcp.flags.syn == 1 && tcp.flags.ack == 0 && !(tcp.options.mptcp.subtype == 1)";
    let fields = ["frame.number", &from, "tcp.srcport", &to, "tcp.dstport"];
    let mut arguments = vec!["-r", capture, "-Y", opens, "-T", "fields", "-E", "separator=;"];
    arguments.extend(fields.iter().flat_map(|field| ["-e", field]));
    let printed = tool("tshark", &arguments);
    let rows = printed.lines().map(|line| line.split(';').collect::<Vec<_>>()).filter(|row| !row[1].is_empty());
    let ends = |row: Vec<&str>| {
        let end = |address: &str, port| {
            if family == "ip" { format!("{address}:{port}") } else { format!("[{address}]:{port}") }
        };
        (row[0].parse().expect("a number"), format!("{},{}", end(row[1], row[2]), end(row[3], row[4])))
    };
    rows.map(ends).collect()
}

#[test]
fn a_flow_goes_where_its_captured_packet_goes() {
    let place = Place::new(KEY);
    let mut asked = 0;
    for (name, family) in [("lab_v1_join_2paths", "ip"), ("lab_rmaddr", "ip"), ("lab_tfo", "ip")] {
        let path = capture(name);
        for engine in ["kernel", "host"] {
            let whole = place.explain(&path, engine);
            for (number, flow) in opened(&path.display().to_string(), family) {
                let captured = whole.iter().find(|line| line.frame == number).expect("it is in the capture");
                for (words, reason) in [(&["--new"][..], "ring_new"), (&[], "ring")] {
                    let arguments = [words, &["--flow", &flow, "--engine", engine, "--output", "json"]].concat();
                    let told = lines(&place.weir(&arguments)).remove(0);
                    assert_eq!(told.backend, captured.backend, "{name} {flow}");
                    assert_eq!(told.reason.as_deref(), Some(reason));
                    asked += 1;
                }
            }
        }
    }
    assert!(asked >= 12, "only {asked} were asked for");
}
