//! What the check of a configuration itself says of a field, when it is asked with a wrong one: whether it must be there, and
//! between what, or among which words, its value is.

use super::example::{Field, Table};

/// The check of a kind of configuration: what it says of a text that does not hold.
#[derive(Clone, Copy)]
pub(super) struct Checker {
    pub(super) check: fn(&str) -> Result<(), String>,
}

/// What else a configuration needs to be asked of one of its tables.
pub(super) struct Around {
    /// The table's heading.
    pub(super) heading: &'static str,
    /// What stands before it.
    pub(super) before: &'static str,
}

const MISSING: &str = "missing field `";

/// The names of the fields that a table must have.
pub(super) fn required(checker: Checker, around: &Around, table: &Table) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    loop {
        let written = lines(table.fields.iter().filter(|field| names.contains(&field.name)));
        let said =
            (checker.check)(&format!("{}{}\n{written}", around.before, around.heading)).err().unwrap_or_default();
        let missing = said.split_once(MISSING).and_then(|(_, rest)| rest.split_once('`'));
        match missing {
            Some((name, _)) if table.fields.iter().any(|field| field.name == name) => names.push(name.to_owned()),
            _ => return names,
        }
    }
}

/// What values a field may have, in the words of the message about a wrong one; nothing where it does not tell.
pub(super) fn allowed(checker: Checker, around: &Around, required: &[String], table: &Table, field: &Field) -> String {
    let Some(wrong) = wrong_value(&field.value) else { return String::new() };
    let others = table.fields.iter().filter(|other| required.contains(&other.name) && other.name != field.name);
    let written = lines(others);
    let text = format!("{}{}\n{} = {wrong}\n{written}", around.before, around.heading, field.name);
    let said = (checker.check)(&text).err().unwrap_or_default();
    let line = around.before.lines().count() + 2;
    let about = said.lines().find(|message| message.starts_with(&format!(":{line}:")));
    about.and_then(|message| message.split_once("; choose ")).map(|(_, choice)| choice.to_owned()).unwrap_or_default()
}

/// Fields as they are written.
fn lines<'f>(fields: impl Iterator<Item = &'f Field>) -> String {
    fields.fold(String::new(), |written, field| written + &field.name + " = " + &field.value + "\n")
}

/// A value of the same type that cannot be right.
fn wrong_value(value: &str) -> Option<&'static str> {
    match value.as_bytes().first()? {
        b'"' => Some("\"?\""),
        b'0'..=b'9' => Some("-1"),
        b'[' if value.starts_with("[\"") => Some("[\"?\"]"),
        b'[' => Some("[-1]"),
        _ => None,
    }
}
