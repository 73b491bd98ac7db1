//! A page's commands, typed as a reader would, in their order. What a command prints is what the `text` block below it shows;
//! where there is none, it prints nothing. How a block is marked behind `sh` says what becomes of it:
//!
//! - `sh`: it is typed once.
//! - `sh again`: it only looks, and is typed again until it shows what it should.
//! - `sh elsewhere`: another machine would have to be there. It is not typed; its commands are only read, as those of all
//!   documents are.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    page::{blocks, document, fits},
    shell::{Answer, DEADLINE, Shell},
};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// Types all of a page; how many blocks that were.
pub(crate) fn follow(path: &str, shell: &mut Shell) -> usize {
    let blocks = blocks(&document(path));
    let mut typed = 0;
    for (index, block) in blocks.iter().enumerate() {
        if !block.is("sh") || block.is_marked("elsewhere") {
            continue;
        }
        let shown = blocks.get(index + 1).filter(|next| next.is("text")).map_or("", |next| &next.text);
        if block.is_marked("again") {
            see(&block.text, shown, shell);
        } else {
            let answer = shell.ask(&block.text);
            assert!(is_shown(&answer, shown), "{path}:{}: {}", block.line, difference(&block.text, &answer, shown));
        }
        typed += 1;
    }
    typed
}

/// Types a look again until it shows this.
pub(crate) fn see(look: &str, shown: &str, shell: &mut Shell) {
    let begun = Instant::now();
    loop {
        let answer = shell.ask(look);
        if is_shown(&answer, shown) {
            return;
        }
        assert!(begun.elapsed() < DEADLINE, "it never came: {}", difference(look, &answer, shown));
        thread::sleep(PAUSE);
    }
}

fn is_shown(answer: &Answer, shown: &str) -> bool {
    answer.status == "0" && fits(shown, &answer.said)
}

fn difference(typed: &str, Answer { said, status }: &Answer, shown: &str) -> String {
    format!("\n{typed}\nended with {status} and said\n{said}\nwhere the page shows\n{shown}")
}
