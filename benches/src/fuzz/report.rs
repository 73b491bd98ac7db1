//! What came of a run.

use super::Sequence;
use lb_common::reason::Reason;
use serde_json::{Value, json};
use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What all sequences followed from.
    pub seed: u64,
    /// How many were played.
    pub sequences: u64,
    /// How many frames they had.
    pub frames: u64,
    /// How long it took.
    pub took: Duration,
    /// Every reason that a frame can have, and how often one had it.
    pub reasons: Vec<(Reason, u64)>,
    /// Over what the worlds differed. The run ended there.
    pub difference: Option<Difference>,
}

/// Over what the worlds differed.
#[derive(Clone, Debug)]
pub struct Difference {
    /// Which sequence of the run it was.
    pub number: u64,
    /// What differed.
    pub what: String,
    /// The sequence, as short as it could be made.
    pub sequence: Sequence,
}

impl Report {
    /// The reasons that no frame had.
    pub fn unseen(&self) -> impl Iterator<Item = Reason> {
        self.reasons.iter().filter(|(_, times)| *times == 0).map(|&(reason, _)| reason)
    }

    /// The same as an object.
    pub fn json(&self) -> Value {
        let reasons = self.reasons.iter().map(|(reason, times)| (reason.as_str().to_owned(), json!(times)));
        json!({
            "seed": self.seed,
            "sequences": self.sequences,
            "frames": self.frames,
            "seconds": self.took.as_secs_f64(),
            "reasons": Value::Object(reasons.collect()),
            "unseen": self.unseen().map(Reason::as_str).collect::<Vec<_>>(),
            "differences": u8::from(self.difference.is_some()),
            "difference": self.difference.as_ref().map(|difference| json!({
                "number": difference.number,
                "what": difference.what,
                "steps": difference.sequence.to_string().lines().collect::<Vec<_>>(),
            })),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (reason, times) in &self.reasons {
            writeln!(f, "{times:>12} {}", reason.as_str())?;
        }
        let unseen: Vec<_> = self.unseen().map(Reason::as_str).collect();
        writeln!(f, "never seen: {}", if unseen.is_empty() { "none".to_owned() } else { unseen.join(", ") })?;
        if let Some(Difference { number, what, sequence }) = &self.difference {
            writeln!(f, "sequence {number}: {what}\n{sequence}")?;
        }
        let seconds = self.took.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let rate = self.sequences as f64 / seconds.max(f64::MIN_POSITIVE);
        write!(
            f,
            "seed {}: {} sequences, {} frames in {seconds:.0} s ({rate:.0} sequences a second), {} differences",
            self.seed,
            self.sequences,
            self.frames,
            u8::from(self.difference.is_some()),
        )
    }
}

impl Difference {
    /// Where fixtures lie, seen from the workspace.
    pub const FIXTURES: &str = "benches/tests/lab/fuzz";

    /// Writes the sequence down as a fixture, which a test plays from then on; the file's path.
    ///
    /// # Errors
    /// The folder or the file cannot be written.
    pub fn save(&self, folder: &Path, seed: u64) -> io::Result<PathBuf> {
        fs::create_dir_all(folder)?;
        let path = folder.join(format!("seed-{seed}-sequence-{}.txt", self.number));
        let what = self.what.lines().fold(String::new(), |text, line| text + "# " + line + "\n");
        fs::write(&path, format!("{what}{}", self.sequence))?;
        Ok(path)
    }
}
