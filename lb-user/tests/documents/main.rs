//! The documents as their readers use them: what a page says to type is typed, in its order, on a machine of namespaces; what it
//! says to write into a configuration is a good one; and no page names a command that there is not. Needs root.

mod commands;
mod figures;
mod guides;
mod page;
mod shell;
mod snippets;
mod tokens;
mod tutorial;
mod typed;
