//! The page of the command line: every command with its arguments, as its own help has them.

use super::{GENERATED, cell};
use clap::{Arg, ArgAction, Command};
use std::fmt::Write as _;

const HEAD: &str = "\
# Commands

What each command says when it is asked by `--help`. It exits with 0 when it has done what it was asked; with 1, and a
line on standard error, when it has not; with 2 when it was asked wrongly or the configuration does not hold.

";

/// The page, in Markdown.
pub(super) fn page(mut weir: Command) -> String {
    weir.build();
    let mut page = format!("{HEAD}{GENERATED}");
    for command in weir.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help") {
        describe(&mut page, command, "##");
    }
    page
}

fn describe(page: &mut String, command: &Command, depth: &str) {
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let usage = command.clone().render_usage().to_string();
    let _ =
        write!(page, "\n{depth} {name}\n\n{about}.\n\n```text\n{usage}\n```\n", about = about.trim_end_matches('.'));
    let arguments = command.get_arguments().filter(|argument| !is_of_every_command(argument));
    let rows: String = arguments.map(row).collect();
    if !rows.is_empty() {
        let _ = write!(page, "\n| argument | default | meaning |\n| --- | --- | --- |\n{rows}");
    }
    for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
        describe(page, below, "###");
    }
}

fn is_of_every_command(argument: &Arg) -> bool {
    matches!(argument.get_action(), ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version)
}

fn row(argument: &Arg) -> String {
    let values: Vec<String> =
        argument.get_value_names().into_iter().flatten().map(|name| format!("<{name}>")).collect();
    let takes_value = argument.get_action().takes_values();
    let name = match argument.get_long() {
        Some(long) if takes_value => format!("--{long} {}", values.join(" ")),
        Some(long) => format!("--{long}"),
        None => values.join(" "),
    };
    let defaults: Vec<_> = argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    let default = if takes_value && !defaults.is_empty() { format!("`{}`", defaults.join(",")) } else { String::new() };
    let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
    format!("| `{name}` | {default} | {}{} |\n", cell(&help), possible_values(argument))
}

/// The words that may stand there, where there is a list of them.
fn possible_values(argument: &Arg) -> String {
    let values = if argument.get_action().takes_values() { argument.get_possible_values() } else { Vec::new() };
    let told: Vec<_> = values
        .iter()
        .map(|value| {
            let about = value.get_help().map(|help| format!(" ({})", cell(&help.to_string()))).unwrap_or_default();
            format!("`{}`{about}", value.get_name())
        })
        .collect();
    if told.is_empty() { String::new() } else { format!(": {}", told.join(", ")) }
}
