//! The links of the documents: each leads to a file that there is, and to a heading in it.

use crate::documents::{document, pages, root};
use std::path::Path;

/// The index, which leads to every page of its folder.
const INDEX: &str = "docs/README.md";

/// What the links of a page lead to, as it is written there.
fn targets(text: &str) -> Vec<&str> {
    let prose = text.split("\n```").step_by(2);
    let rests = prose.flat_map(|part| part.split("](").skip(1));
    rests.filter_map(|rest| rest.split_once(')')).map(|(target, _)| target).collect()
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

/// Where a link leads to, from the root; none where that is no place of the repository.
fn destination(page: &str, path: &str) -> Option<String> {
    let folder = Path::new(page).parent()?;
    let place = root().join(folder).join(path).canonicalize().ok()?;
    let from_root = place.strip_prefix(root().canonicalize().ok()?).ok()?;
    Some(from_root.to_string_lossy().into_owned())
}

#[test]
fn every_link_leads_somewhere() {
    let mut broken = Vec::new();
    for page in pages() {
        let text = document(&page);
        for target in targets(&text).into_iter().filter(|target| !target.contains("://")) {
            let (path, heading) = target.split_once('#').unwrap_or((target, ""));
            let destination = if path.is_empty() { Some(page.clone()) } else { destination(&page, path) };
            let leads = destination.is_some_and(|file| heading.is_empty() || has_heading(&document(&file), heading));
            if !leads {
                broken.push(format!("{page}: {target}"));
            }
        }
    }
    assert_eq!(broken, Vec::<String>::new());
}

#[test]
fn the_index_leads_to_every_page() {
    let text = document(INDEX);
    let linked: Vec<_> = targets(&text).into_iter().filter_map(|target| destination(INDEX, target)).collect();
    let missing: Vec<_> = pages()
        .into_iter()
        .filter(|page| page.starts_with("docs/") && page != INDEX && !linked.contains(page))
        .collect();
    assert_eq!(missing, Vec::<String>::new(), "{INDEX} leads to none of these");
}

#[test]
fn an_anchor_is_as_forges_make_it() {
    assert_eq!(anchor("## 4. Start the balancer"), "4-start-the-balancer");
    assert_eq!(anchor("### `[[pool.backend]]`"), "poolbackend");
    assert_eq!(targets("[a](b.md), and\n```sh\n[c](d)\n```\n[e](f#g)"), ["b.md", "f#g"]);
}
