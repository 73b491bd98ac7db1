//! Where in the file something is: line and column, and the field that stands there.
//!
//! A span comes from the TOML parser, a field's name from a second look at the text, so the checks need to carry only
//! spans. Nothing here judges a value.

use std::collections::HashMap;
use std::fmt::{self, Display, Write as _};
use std::ops::Range;
use toml::de::{DeTable, DeValue};

/// Something about a field of the configuration file, with its place.
#[derive(Debug, thiserror::Error)]
pub struct Located<T> {
    file: String,
    place: Place,
    field: Field,
    /// What there is to say.
    pub what: T,
}

impl<T> Located<T> {
    /// The line, from 1.
    pub const fn line(&self) -> usize {
        self.place.line
    }

    /// The column in characters, from 1.
    pub const fn column(&self) -> usize {
        self.place.column
    }

    /// The field's dotted path, such as `pool[0].backend[2].weight`; empty where no field is meant.
    pub fn field(&self) -> &str {
        &self.field.path
    }
}

/// `weir.toml:12:10: pool "web": backend "b2": weight: what is wrong`.
impl<T: Display> Display for Located<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { line, column } = self.place;
        write!(f, "{}:{line}:{column}: ", self.file)?;
        if !self.field.subject.is_empty() {
            write!(f, "{}: ", self.field.subject)?;
        }
        write!(f, "{}", self.what)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    line: usize,
    column: usize,
}

#[derive(Debug, Clone, Default)]
struct Field {
    /// `pool[0].backend[2].weight`
    path: String,
    /// `pool "web": backend "b2": weight`
    subject: String,
}

/// The text of a file, able to say where a span is.
pub(super) struct Text<'t> {
    file: &'t str,
    content: &'t str,
    line_starts: Vec<usize>,
}

impl<'t> Text<'t> {
    pub(super) fn new(file: &'t str, text: &'t str) -> Self {
        let after_newlines = text.match_indices('\n').map(|(at, _)| at + 1);
        let line_starts = std::iter::once(0).chain(after_newlines).collect();
        Self { file, content: text, line_starts }
    }

    pub(super) fn line(&self, span: &Range<usize>) -> usize {
        self.line_starts.partition_point(|start| *start <= span.start)
    }

    fn place(&self, span: &Range<usize>) -> Place {
        let line = self.line(span);
        let before = self.content.get(self.line_starts[line - 1]..span.start).unwrap_or_default();
        Place { line, column: before.chars().count() + 1 }
    }

    /// Gives each thing its place and field, in the order of the file.
    pub(super) fn locate<T>(&self, things: Vec<(Range<usize>, T)>) -> Vec<Located<T>> {
        if things.is_empty() {
            return Vec::new();
        }
        let fields = fields(self.content);
        let mut located: Vec<_> = things
            .into_iter()
            .map(|(span, what)| Located {
                file: self.file.to_owned(),
                place: self.place(&span),
                field: fields.get(&span).cloned().unwrap_or_default(),
                what,
            })
            .collect();
        located.sort_by_key(|found| found.place);
        located
    }
}

/// The field at every span of a key or value; empty when the text is no TOML.
fn fields(text: &str) -> HashMap<Range<usize>, Field> {
    let mut fields = HashMap::new();
    if let Ok(document) = DeTable::parse(text) {
        visit_table(document.get_ref(), &Field::default(), &mut fields);
    }
    fields
}

fn visit_table(table: &DeTable<'_>, parent: &Field, fields: &mut HashMap<Range<usize>, Field>) {
    for (key, value) in table {
        let field = parent.child(key.get_ref());
        fields.insert(key.span(), field.clone());
        fields.insert(value.span(), field.clone());
        match value.get_ref() {
            DeValue::Table(table) => visit_table(table, &field, fields),
            DeValue::Array(elements) => {
                for (index, element) in elements.iter().enumerate() {
                    let DeValue::Table(table) = element.get_ref() else {
                        fields.insert(element.span(), field.element(index, None));
                        continue;
                    };
                    let name = table.get("name").and_then(|name| name.get_ref().as_str());
                    let field = field.element(index, name);
                    fields.insert(element.span(), field.clone());
                    visit_table(table, &field, fields);
                }
            }
            _ => {}
        }
    }
}

impl Field {
    fn child(&self, key: &str) -> Self {
        if self.path.is_empty() {
            return Self { path: key.to_owned(), subject: key.to_owned() };
        }
        let separator = if self.path.ends_with(']') { ": " } else { "." };
        Self { path: format!("{}.{key}", self.path), subject: format!("{}{separator}{key}", self.subject) }
    }

    fn element(&self, index: usize, name: Option<&str>) -> Self {
        let mut subject = self.subject.clone();
        match name {
            Some(name) => write!(subject, " {name:?}"),
            None => write!(subject, "[{index}]"),
        }
        .expect("a String takes all");
        Self { path: format!("{}[{index}]", self.path), subject }
    }
}
