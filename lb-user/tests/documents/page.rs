//! What a page shows: its blocks of code, and whether what a command has printed is what stands there.

#[path = "../../../xtask/src/documents.rs"]
pub(crate) mod documents;

pub(crate) use documents::document;

/// A block of code.
#[derive(Debug)]
pub(crate) struct Block {
    /// The words behind the three backticks: the language, and how it is to be taken.
    pub(crate) words: Vec<String>,
    pub(crate) text: String,
    /// Where it begins.
    pub(crate) line: usize,
}

impl Block {
    /// Whether it is of a language.
    pub(crate) fn is(&self, language: &str) -> bool {
        self.words.first().is_some_and(|word| word == language)
    }

    /// Whether it is to be taken in this way.
    pub(crate) fn is_marked(&self, word: &str) -> bool {
        self.words.iter().skip(1).any(|marked| marked == word)
    }
}

/// The blocks of a page, in their order.
pub(crate) fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (index, line) in page.lines().enumerate() {
        match (open.take(), line.strip_prefix("```")) {
            (None, Some(words)) => {
                let words = words.split_whitespace().map(str::to_owned).collect();
                open = Some(Block { words, text: String::new(), line: index + 1 });
            }
            (Some(block), Some(_)) => blocks.push(block),
            (Some(mut block), None) => {
                block.text += line;
                block.text.push('\n');
                open = Some(block);
            }
            (None, None) => {}
        }
    }
    blocks
}

/// Whether what was printed is what is shown. `…` stands for any text within a line, and alone in one for any lines; how many
/// blanks there are between words does not matter.
pub(crate) fn fits(shown: &str, said: &str) -> bool {
    let lines = |text: &str| -> Vec<String> {
        text.trim().lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    };
    lines_fit(&lines(shown), &lines(said))
}

fn lines_fit(shown: &[String], said: &[String]) -> bool {
    match shown.split_first() {
        None => said.is_empty(),
        Some((first, rest)) if first == "…" => (0..=said.len()).any(|skipped| lines_fit(rest, &said[skipped..])),
        Some((first, rest)) => {
            said.split_first().is_some_and(|(line, more)| line_fits(first, line) && lines_fit(rest, more))
        }
    }
}

fn line_fits(shown: &str, said: &str) -> bool {
    let Some((begin, rest)) = shown.split_once('…') else { return shown == said };
    let Some(said) = said.strip_prefix(begin) else { return false };
    let ends = said.char_indices().map(|(at, _)| at).chain([said.len()]);
    ends.into_iter().any(|at| line_fits(rest, &said[at..]))
}

#[test]
fn what_differs_from_machine_to_machine_is_left_out() {
    let shown = "weir … on eth0\n…\nweb1  up   …\n";
    assert!(fits(shown, "weir 0.1.0 on eth0\nweb1 up 50 %\n"));
    assert!(fits(shown, "weir 0.1.0 on eth0\n\nBACKEND STATE\nweb1    up 50 %"));
    assert!(!fits(shown, "weir 0.1.0 on eth0\nweb1 down 50 %\n"));
    assert!(!fits(shown, "weir 0.1.0 on eth0\nweb1 up 50 %\nweb2 up 50 %\n"));
    assert!(fits("", "") && !fits("", "a word"));
}
