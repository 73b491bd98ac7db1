//! What the documents name: the commands and the files. Tests of several crates read it, so that no document goes stale.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Those that name commands.
const DOCUMENTS: [&str; 5] =
    ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "deploy/README.md", "docs/monitoring.md"];

/// A document of the repository, by its path there.
///
/// # Panics
/// It cannot be read.
pub(crate) fn document(path: &str) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The arguments of every command of a program that the documents show, in code blocks and between backticks.
pub(crate) fn arguments_of(program: &str) -> Vec<Vec<String>> {
    let documents = DOCUMENTS.map(document);
    documents.iter().flat_map(|text| code(text)).filter_map(|line| arguments(line, program)).collect()
}

/// Lines of code blocks, and what stands between backticks elsewhere.
pub(crate) fn code(text: &str) -> Vec<&str> {
    let blocks = text.split("\n```");
    blocks
        .enumerate()
        .flat_map(|(i, part)| if i % 2 == 1 { block_lines(part) } else { between_backticks(part) })
        .collect()
}

fn block_lines(block: &str) -> Vec<&str> {
    block.lines().skip(1).flat_map(|line| line.split(" && ")).collect()
}

fn between_backticks(prose: &str) -> Vec<&str> {
    prose.split('`').skip(1).step_by(2).collect()
}

/// The words of a command after the program's name, up to a comment.
fn arguments(line: &str, program: &str) -> Option<Vec<String>> {
    let arguments = line.trim_start().strip_prefix(program)?.strip_prefix(' ')?;
    let words = arguments.split_whitespace().take_while(|word| !word.starts_with('#'));
    Some(words.map(str::to_owned).collect())
}

/// The root of the repository: every crate lies right below it.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
