//! `weir top` on a terminal of 80 columns and 24 lines, which is tmux's, and for scripts.

use crate::stage::{Stage, WEIR, until, word};
use serde_json::Value;
use std::{fs, process::Command};

struct Tmux {
    socket: String,
}

impl Tmux {
    fn does(&self, arguments: &[&str]) -> String {
        let output = Command::new("tmux").args(["-S", &self.socket]).args(arguments).output().expect("tmux starts");
        String::from_utf8(output.stdout).expect("text")
    }

    fn screen(&self) -> String {
        self.does(&["capture-pane", "-p"])
    }
}

#[test]
fn it_shows_the_present_on_a_terminal_until_q() {
    let stage = Stage::new();
    let weir = stage.run();
    let tmux = Tmux { socket: word(&stage.folder.path().join("tmux")) };
    let script = stage.folder.path().join("tmux.conf");
    let socket = word(&stage.socket());
    let ended = stage.folder.path().join("ended");
    let pane = format!("{WEIR} top --socket {socket}; stty -a > {}", word(&ended));
    fs::write(&script, format!("new-session -d -x 80 -y 24 \"{pane}\"\n")).expect("written");
    let _server = stage.start_beside("tmux", &["-D", "-S", &tmux.socket, "-f", &word(&script)].map(str::to_owned));
    until("the screen", || tmux.screen().contains("b1"));

    // The peer is client and backend at once: what it sends to the VIP comes back in a tunnel.
    stage.in_peer("ip route add 192.0.2.1 via 10.77.0.1");
    until("the rate of the VIP is no longer 0", || {
        stage.in_peer("bash -c 'for i in 1 2 3 4 5 6; do (: > /dev/tcp/192.0.2.1/443) & done; sleep 0.2; kill $(jobs -p)' 2>/dev/null; true");
        let screen = tmux.screen();
        screen.lines().any(|line| line.starts_with("site") && !line.contains(" 0          0           0"))
    });
    let screen = tmux.screen();
    let lines: Vec<&str> = screen.lines().collect();
    assert!(lines.len() <= 24 && lines.iter().all(|line| line.chars().count() <= 80), "{screen}");
    for words in ["weir0 (native XDP)", "VIP ", "BACKEND ", "JOINS ", "DROPS ", "POOL ", "TABLE ", "q quits"] {
        assert!(screen.contains(words), "{words} in\n{screen}");
    }
    tmux.does(&["send-keys", "q"]);
    until("it ends by q", || ended.exists() && fs::read_to_string(&ended).is_ok_and(|text| text.contains("icanon")));
    assert!(fs::read_to_string(&ended).expect("settings").contains(" icanon"), "the terminal is as it was");
    assert_eq!(weir.end().0, Some(0));
}

#[test]
fn scripts_get_one_view_and_an_end() {
    let stage = Stage::new();
    let weir = stage.run();
    let socket = word(&stage.socket());
    let top = |arguments: &[&str]| {
        Command::new(WEIR).args(["top", "--socket", &socket]).args(arguments).output().expect("it runs")
    };
    let json = top(&["--once", "--output", "json"]);
    let view: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!((&view["vips"][0]["name"], &view["backends"][0]["state"]), (&"site".into(), &"up".into()));
    assert!(view["interval_s"].as_f64().is_some_and(|seconds| seconds >= 1.0), "{view}");
    let plain = top(&["--once"]);
    let text = String::from_utf8(plain.stdout).expect("text");
    assert!(text.contains("site") && text.lines().all(|line| line.chars().count() <= 80), "{text}");
    let refused = top(&[]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("weir top --once"), "{refused:?}");
    assert_eq!(weir.end().0, Some(0));
}
