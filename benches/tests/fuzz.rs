//! Host and kernel agree over random sequences of frames. Needs root.
//!
//! `cargo xtask fuzz` plays them for as long as one likes; here are enough to find what is broken, and all that ever
//! differed.

use std::{
    fs,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};
use weir_lab::fuzz::{self, Options, Sequence};

/// Sequences of each seed.
const SEQUENCES: u64 = 2500;
const SEEDS: [u64; 3] = [1, 2, 3];

#[test]
fn host_and_kernel_agree_over_random_sequences() {
    let fresh = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    println!("a fresh seed: {fresh}");
    let mut times = Vec::new();
    for seed in SEEDS.into_iter().chain([fresh]) {
        let report = fuzz::run(Options { seed, sequences: Some(SEQUENCES), time: None }, |_, _| {});
        assert!(report.difference.is_none(), "{report}");
        assert_eq!(report.sequences, SEQUENCES);
        times.push(report.reasons);
    }
    for (index, (reason, _)) in times[0].iter().enumerate() {
        assert!(times.iter().any(|reasons| reasons[index].1 > 0), "no frame had the reason {}", reason.as_str());
    }
}

#[test]
fn what_once_differed_agrees() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz");
    for fixture in fs::read_dir(folder).expect("the fixtures") {
        let path = fixture.expect("a fixture").path();
        let text = fs::read_to_string(&path).expect("a text");
        let sequence: Sequence = text.parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(sequence.frames() > 0, "{} has no frame", path.display());
        assert_eq!(fuzz::replay(&sequence), None, "{}", path.display());
    }
}
