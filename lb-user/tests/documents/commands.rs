//! The documents show no command of `weir` that there is not.

use std::process::Command;

use crate::page::documents;

/// What `weir` says of a command of its own; nothing where there is none of these words.
fn help(words: &[String]) -> Option<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_weir")).args(words).arg("--help").output().expect("weir starts");
    output.status.success().then(|| String::from_utf8(output.stdout).expect("text"))
}

/// The help of a command, or of the command below it that its second word names.
fn help_of(arguments: &[String]) -> Option<String> {
    let words = arguments.iter().take_while(|word| !word.starts_with('-')).count();
    let below = if words >= 2 { help(&arguments[..2]) } else { None };
    below.or_else(|| help(&arguments[..words.min(1)]))
}

#[test]
fn every_command_and_option_of_weir_that_the_documents_name_is_one() {
    let named = documents::arguments_of("weir");
    for arguments in &named {
        let line = format!("a document names `weir {}`", arguments.join(" "));
        let help = help_of(arguments).unwrap_or_else(|| panic!("{line}"));
        for option in arguments.iter().filter(|argument| argument.starts_with("--")) {
            assert!(help.contains(&format!("{option} ")) || help.contains(&format!("{option}\n")), "{line}");
        }
    }
    for command in ["run", "check", "status", "explain", "flows", "tokens", "agent", "decap"] {
        assert!(named.iter().any(|arguments| arguments[0] == command), "no document shows `weir {command}`");
    }
}
