//! Runs one short command and returns what it printed. Never for anything that stays.

use std::{
    env,
    io::Write,
    process::{Command, Stdio},
};

use crate::LabError;

/// Sees that a program is on `PATH`; Debian has it in `package`.
pub(crate) fn look_for(program: &'static str, package: &'static str) -> Result<(), LabError> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).any(|place| place.join(program).is_file());
    if found { Ok(()) } else { Err(LabError::NoTool { tool: program, package }) }
}

/// Runs `program` with `args`, feeds it `input`, returns its standard output.
pub(crate) fn output(program: &str, args: &[&str], input: &str) -> Result<String, LabError> {
    let cannot_run = |source| LabError::Spawn { program: program.to_owned(), source };
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(cannot_run)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that has read enough closes the pipe; its exit status tells the rest.
        let _ = stdin.write_all(input.as_bytes());
    }
    let finished = child.wait_with_output().map_err(cannot_run)?;
    if finished.status.success() {
        return Ok(String::from_utf8_lossy(&finished.stdout).into_owned());
    }
    Err(LabError::Command {
        command: format!("{program} {} {input}", args.join(" ")),
        output: String::from_utf8_lossy(&finished.stderr).trim().to_owned(),
    })
}
