//! The example configurations, read for what they say of each field: its table, its default or an example, and what its
//! comment tells. What stands behind a `#` and one blank is a default; further in is an example of what has none.

/// A table of a configuration.
#[derive(Debug)]
pub(super) struct Table {
    /// As it is written, `[[pool.backend]]` for one.
    pub(super) heading: String,
    pub(super) about: String,
    pub(super) fields: Vec<Field>,
}

/// A field of a table.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: String,
    /// A default, or an example.
    pub(super) value: String,
    pub(super) is_default: bool,
    pub(super) about: String,
}

/// What a line of an example is.
enum Line<'l> {
    Heading(&'l str),
    Field { name: &'l str, value: &'l str, is_default: bool },
    Comment(&'l str),
    Empty,
}

/// The tables of an example, each once, in the order in which they come first.
pub(super) fn tables(example: &str) -> Vec<Table> {
    let mut tables: Vec<Table> = Vec::new();
    let mut current = 0;
    let (mut comment, mut is_of_field_before) = (String::new(), false);
    for line in example.lines().map(read) {
        match line {
            Line::Comment(text) => {
                if is_of_field_before {
                    (comment, is_of_field_before) = (String::new(), false);
                }
                comment = format!("{comment} {text}");
            }
            Line::Empty => (comment, is_of_field_before) = (String::new(), false),
            Line::Heading(heading) => {
                let about = if is_of_field_before { String::new() } else { comment.trim().to_owned() };
                current = place(&mut tables, heading, about);
                (comment, is_of_field_before) = (String::new(), false);
            }
            Line::Field { name, value, is_default } => {
                // Fields that stand together share the comment in front of them.
                is_of_field_before = true;
                let Some(table) = tables.get_mut(current) else { continue };
                if table.fields.iter().all(|field| field.name != name) {
                    let (name, value) = (name.to_owned(), value.to_owned());
                    table.fields.push(Field { name, value, is_default, about: comment.trim().to_owned() });
                }
            }
        }
    }
    tables
}

fn place(tables: &mut Vec<Table>, heading: &str, about: String) -> usize {
    tables.iter().position(|table| table.heading == heading).unwrap_or_else(|| {
        tables.push(Table { heading: heading.to_owned(), about, fields: Vec::new() });
        tables.len() - 1
    })
}

fn read(line: &str) -> Line<'_> {
    let (content, behind_hash) = match line.strip_prefix('#') {
        Some(content) => (content.trim_start(), Some(content.len() - content.trim_start().len())),
        None => (line, None),
    };
    if content.is_empty() {
        // A line of a comment that says nothing is of the comment.
        return if behind_hash.is_some() { Line::Comment("") } else { Line::Empty };
    }
    let is_heading = content.starts_with('[') && content.ends_with(']');
    match (behind_hash, content.split_once(" = ")) {
        _ if is_heading => Line::Heading(content),
        (_, Some((name, value))) if is_name(name) => {
            Line::Field { name, value, is_default: behind_hash.is_some_and(|blanks| blanks == 1) }
        }
        _ => Line::Comment(content),
    }
}

fn is_name(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "\
# About the file.

# About the table.
[balancer]
# About one and two.
one = 1
# two = 2
# About three.
#     three = \"3\"

[other]
[balancer]
one = 7
four = [4]
";

    #[test]
    fn fields_have_the_comment_in_front_of_them() {
        let tables = tables(EXAMPLE);
        let headings: Vec<_> = tables.iter().map(|table| (table.heading.as_str(), table.about.as_str())).collect();
        assert_eq!(headings, [("[balancer]", "About the table."), ("[other]", "")]);
        let fields: Vec<_> = tables[0]
            .fields
            .iter()
            .map(|field| (field.name.as_str(), field.value.as_str(), field.is_default, field.about.as_str()))
            .collect();
        assert_eq!(
            fields,
            [
                ("one", "1", false, "About one and two."),
                ("two", "2", true, "About one and two."),
                ("three", "\"3\"", false, "About three."),
                ("four", "[4]", false, ""),
            ]
        );
    }
}
