//! Makes a sequence over which the worlds differ as short as it can be: fewer steps, shorter frames, more zeros.

use super::{
    Fuzz, Look,
    sequence::{Sequence, Step},
};
use std::panic;

/// Bytes of a frame below which none is taken away: its Ethernet header.
const FRAME_MIN: usize = 14;

impl Fuzz {
    /// The shortest that was found, and what differs over it.
    pub(super) fn shrink(&mut self, mut sequence: Sequence) -> (Sequence, String) {
        let loud = panic::take_hook();
        panic::set_hook(Box::new(|_| {}));
        let mut what = self.difference(&sequence, Look::Everywhere);
        if what.is_some() {
            self.drop_steps(&mut sequence);
            self.shorten_frames(&mut sequence);
            what = self.difference(&sequence, Look::Everywhere).or(what);
        }
        panic::set_hook(loud);
        (sequence, what.unwrap_or_else(|| "it differed once, and not again".to_owned()))
    }

    fn differs(&mut self, sequence: &Sequence) -> bool {
        self.difference(sequence, Look::Everywhere).is_some()
    }

    fn drop_steps(&mut self, sequence: &mut Sequence) {
        let mut run = sequence.steps.len().div_ceil(2);
        while run > 0 {
            let mut at = 0;
            while at < sequence.steps.len() {
                let mut fewer = sequence.clone();
                fewer.steps.drain(at..(at + run).min(sequence.steps.len()));
                if self.differs(&fewer) {
                    *sequence = fewer;
                } else {
                    at += run;
                }
            }
            run /= 2;
        }
    }

    fn shorten_frames(&mut self, sequence: &mut Sequence) {
        for step in 0..sequence.steps.len() {
            let Step::Frame(frame) = &sequence.steps[step] else { continue };
            let len = frame.len();
            for kept in [FRAME_MIN, len / 2, len - len / 4, len - len.min(8)] {
                self.try_frame(sequence, step, |frame| frame.truncate(kept.max(FRAME_MIN)));
            }
            for at in (0..len).step_by(4) {
                self.try_frame(sequence, step, |frame| {
                    let end = frame.len().min(at + 4);
                    frame.get_mut(at..end).into_iter().for_each(|bytes| bytes.fill(0));
                });
            }
        }
    }

    fn try_frame(&mut self, sequence: &mut Sequence, step: usize, change: impl FnOnce(&mut Vec<u8>)) {
        let mut changed = sequence.clone();
        let Step::Frame(frame) = &mut changed.steps[step] else { return };
        change(frame);
        if changed != *sequence && self.differs(&changed) {
            *sequence = changed;
        }
    }
}
