//! The pages of the repository: each link leads to a file that there is, and to a heading in it; the index, to every page.

use crate::{
    documents::{document, pages, root},
    links,
};

/// The index, which leads to every page of its folder.
const INDEX: &str = "docs/README.md";

#[test]
fn every_link_leads_somewhere() {
    assert_eq!(links::broken(&root(), &pages()), Vec::<String>::new());
}

#[test]
fn the_index_leads_to_every_page() {
    let text = document(INDEX);
    let targets = links::targets(&text).into_iter();
    let linked: Vec<_> = targets.filter_map(|target| links::destination(&root(), INDEX, target)).collect();
    let missing: Vec<_> = pages()
        .into_iter()
        .filter(|page| page.starts_with("docs/") && page != INDEX && !linked.contains(page))
        .collect();
    assert_eq!(missing, Vec::<String>::new(), "{INDEX} leads to none of these");
}
