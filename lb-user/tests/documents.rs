//! The documents show no command of `weir` that there is not, and no configuration that does not hold.

#[path = "../../xtask/src/documents.rs"]
mod documents;

use lb_user::config::Config;
use std::process::Command;

/// What `weir` says of a command of its own; nothing where there is none of that name.
fn help(command: &str) -> Option<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_weir")).args([command, "--help"]).output().expect("weir starts");
    output.status.success().then(|| String::from_utf8(output.stdout).expect("text"))
}

#[test]
fn every_command_and_option_of_weir_that_the_documents_name_is_one() {
    let named = documents::arguments_of("weir");
    for arguments in &named {
        let line = format!("a document names `weir {}`", arguments.join(" "));
        let help = help(&arguments[0]).unwrap_or_else(|| panic!("{line}"));
        for option in arguments.iter().filter(|argument| argument.starts_with("--")) {
            assert!(help.contains(&format!("{option} ")) || help.contains(&format!("{option}\n")), "{line}");
        }
    }
    for command in ["run", "check", "status", "explain", "flows", "tokens", "agent", "decap"] {
        assert!(named.iter().any(|arguments| arguments[0] == command), "no document shows `weir {command}`");
    }
}

#[test]
fn the_configuration_in_the_readme_is_good() {
    let text = documents::document("README.md");
    let (_, rest) = text.split_once("\n```toml\n").expect("the README shows a configuration");
    let (configuration, _) = rest.split_once("```").expect("the block ends");
    let config = Config::parse(configuration, "README.md").unwrap_or_else(|errors| panic!("{errors}"));
    assert!(config.warnings.is_empty());
}
