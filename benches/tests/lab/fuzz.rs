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

/// A seed, and how many of its sequences have every reason that there is.
const SEED: u64 = 1;
const SEQUENCES: u64 = 30_000;
/// How many are played of a seed that nobody has seen before.
const FRESH: u64 = 2000;

#[test]
fn host_and_kernel_agree_over_random_sequences() {
    let fresh = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    println!("a fresh seed: {fresh}");
    let [known, _] = [(SEED, SEQUENCES), (fresh, FRESH)].map(|(seed, sequences)| {
        let report = fuzz::run(Options { seed, sequences: Some(sequences), time: None }, |_, _| {});
        assert!(report.difference.is_none(), "{report}");
        assert_eq!(report.sequences, sequences);
        report
    });
    for (reason, times) in known.reasons {
        assert!(times > 0, "no frame had the reason {}", reason.as_str());
    }
}

#[test]
fn what_once_differed_agrees() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/fuzz");
    for fixture in fs::read_dir(folder).expect("the fixtures") {
        let path = fixture.expect("a fixture").path();
        let text = fs::read_to_string(&path).expect("a text");
        let sequence: Sequence = text.parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(sequence.frames() > 0, "{} has no frame", path.display());
        assert_eq!(fuzz::replay(&sequence), None, "{}", path.display());
    }
}
