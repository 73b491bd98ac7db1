//! The links of pages below a folder, be it the repository or what is installed. Tests of several crates read it.

use std::{fs, path::Path};

/// The paths of all pages below a folder.
///
/// # Panics
/// A folder cannot be read.
pub(crate) fn pages_below(root: &Path) -> Vec<String> {
    let mut pages = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "md") {
                pages.push(path.strip_prefix(root).expect("below it").to_string_lossy().into_owned());
            }
        }
    }
    pages.sort();
    pages
}

/// The links of these pages that lead to no file below the root, or to no heading in it.
pub(crate) fn broken(root: &Path, pages: &[String]) -> Vec<String> {
    let mut broken = Vec::new();
    for page in pages {
        let text = read(root, page);
        for target in targets(&text).into_iter().filter(|target| !target.contains("://")) {
            let (path, heading) = target.split_once('#').unwrap_or((target, ""));
            let destination = if path.is_empty() { Some(page.clone()) } else { destination(root, page, path) };
            let leads = destination.is_some_and(|file| heading.is_empty() || has_heading(&read(root, &file), heading));
            if !leads {
                broken.push(format!("{page}: {target}"));
            }
        }
    }
    broken
}

/// What the links of a page lead to, as it is written there.
pub(crate) fn targets(text: &str) -> Vec<&str> {
    let prose = text.split("\n```").step_by(2);
    let rests = prose.flat_map(|part| part.split("](").skip(1));
    rests.filter_map(|rest| rest.split_once(')')).map(|(target, _)| target).collect()
}

/// Where a link leads to, from the root; none where that is no place below it.
pub(crate) fn destination(root: &Path, page: &str, path: &str) -> Option<String> {
    let folder = Path::new(page).parent()?;
    let place = root.join(folder).join(path).canonicalize().ok()?;
    let from_root = place.strip_prefix(root.canonicalize().ok()?).ok()?;
    Some(from_root.to_string_lossy().into_owned())
}

fn read(root: &Path, page: &str) -> String {
    fs::read_to_string(root.join(page)).unwrap_or_else(|error| panic!("{page}: {error}"))
}

/// What a link is to a heading by, as forges make it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

fn has_heading(text: &str, wanted: &str) -> bool {
    let prose = text.split("\n```").step_by(2);
    prose.flat_map(str::lines).any(|line| line.starts_with('#') && anchor(line) == wanted)
}

#[test]
fn an_anchor_is_as_forges_make_it() {
    assert_eq!(anchor("## 4. Start the balancer"), "4-start-the-balancer");
    assert_eq!(anchor("### `[[pool.backend]]`"), "poolbackend");
    assert_eq!(targets("[a](b.md), and\n```sh\n[c](d)\n```\n[e](f#g)"), ["b.md", "f#g"]);
}
