//! What somebody who typed an option of another tool's may have meant, beside clap's own guesses.

use clap::{
    Command, Error,
    error::{ContextKind, ContextValue, ErrorKind},
};
use std::path::Path;

const CONFIG: &str = "the configuration is named with '--config FILE'";

/// An error of the command line, with a tip where the command has what was meant under another name. `words` are those of the
/// command line behind the program's name.
pub fn with_tip(mut error: Error, command: &Command, words: &[String]) -> Error {
    let unknown = match (error.kind(), error.get(ContextKind::InvalidArg)) {
        (ErrorKind::UnknownArgument, Some(ContextValue::String(argument))) => argument.clone(),
        _ => return error,
    };
    let Some(asked) = words.first().and_then(|name| command.find_subcommand(name)) else { return error };
    if let Some(tip) = tip(&unknown, asked) {
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

fn tip(unknown: &str, asked: &Command) -> Option<&'static str> {
    let has = |id: &str| asked.get_arguments().any(|argument| argument.get_id() == id);
    match unknown {
        "--json" | "-j" | "-o" if has("output") => Some("JSON is printed with '--output json'"),
        "--json" | "-j" | "-o" if has("log_format") => Some("the log is JSON with '--log-format json'"),
        "-c" | "-f" if has("config") => Some(CONFIG),
        file if Path::new(file).extension().is_some_and(|extension| extension == "toml") && has("config") => {
            Some(CONFIG)
        }
        _ => None,
    }
}
