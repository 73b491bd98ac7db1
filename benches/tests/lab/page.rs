//! What a page that needs nothing else may hold.

use roxmltree::{Document, Node, ParsingOptions};

/// The names of all elements of a page, by a parser that is not ours: it is well-formed, and has nothing in it that a browser
/// would fetch or run.
pub(crate) fn elements_of_self_contained(page: &str) -> Vec<String> {
    let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
    let document = Document::parse_with_options(page, options).unwrap_or_else(|error| panic!("{error}"));
    for element in document.descendants().filter(Node::is_element) {
        let name = element.tag_name().name();
        assert!(!["script", "link", "img", "iframe", "object", "use", "image"].contains(&name), "<{name}>");
        for attribute in element.attributes() {
            assert!(!["src", "href"].contains(&attribute.name()), "{attribute:?}");
        }
    }
    for other in ["http:", "https:", "url(", "@import"] {
        assert!(!page.contains(other), "{other}");
    }
    document.descendants().filter(Node::is_element).map(|element| element.tag_name().name().to_owned()).collect()
}
