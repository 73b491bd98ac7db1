//! Children: run one, run one into a log file, or become one.
//!
//! Ctrl-C reaches the whole process group: a child ends and cleans up in its own way, and xtask
//! waits for it, then starts no other. xtask must never die before its child.

use std::{
    env,
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context as _, Error, Result, anyhow, bail, ensure};

/// Lines of a log file that an error shows.
const LOG_TAIL_LINES: usize = 20;
/// Bytes at the end of a log file in which those lines are looked for.
const LOG_TAIL_BYTES: u64 = 8 * 1024;

static INTERRUPTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// From now on Ctrl-C ends the running child, not xtask.
pub(crate) fn outlive_ctrl_c() -> Result<()> {
    // A handler is reset by exec, unlike "ignore": children get the default again.
    signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::clone(&INTERRUPTED))
        .context("cannot handle Ctrl-C")?;
    Ok(())
}

/// Whether Ctrl-C was pressed.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Runs to the end.
///
/// # Errors
///
/// It cannot be started, it fails, or Ctrl-C was pressed.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let mut child = spawn(command)?;
    wait(&mut child, command)
}

/// PATH, and after it the directories of administration that `su` may leave out.
pub(crate) fn search_path() -> OsString {
    let mut path = env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/local/sbin:/usr/sbin:/sbin");
    path
}

/// Starts a child, unless Ctrl-C was pressed.
pub(crate) fn spawn(command: &mut Command) -> Result<Child> {
    ensure!(!interrupted(), "interrupted by Ctrl-C");
    command.env("PATH", search_path()).spawn().with_context(|| format!("cannot start `{}`", words(command)))
}

/// Waits for a child that `command` started, and wants success.
pub(crate) fn wait(child: &mut Child, command: &Command) -> Result<()> {
    let status = child.wait().with_context(|| format!("lost `{}`", words(command)))?;
    ensure!(!interrupted(), "interrupted by Ctrl-C");
    ensure!(status.success(), "`{}` failed: {status}", words(command));
    Ok(())
}

/// Runs to the end, with everything it prints appended to a log file.
///
/// # Errors
///
/// As [`run`]; the error shows the last lines and the path of the log.
pub(crate) fn run_logged(command: &mut Command, log: &Path) -> Result<()> {
    let mut file = append_to(log)?;
    writeln!(file, "\n$ {}", words(command))?;
    let stderr = file.try_clone().context("cannot share the log file")?;
    command.stdin(std::process::Stdio::null());
    run(command.stdout(file).stderr(stderr))
        .map_err(|error| anyhow!("{error:#}\n{}\n(all of it: {})", tail(log), log.display()))
}

/// Becomes the command; returns only if that cannot be.
pub(crate) fn replace_self(command: &mut Command) -> Error {
    if interrupted() {
        return anyhow!("interrupted by Ctrl-C");
    }
    let error = command.env("PATH", search_path()).exec();
    anyhow!("cannot start `{}`: {error}", words(command))
}

/// What a command prints on stdout.
///
/// # Errors
///
/// It cannot be started, fails, or prints something that is not UTF-8.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start `{}`", words(command)))?;
    if !output.status.success() {
        bail!("`{}` failed: {}\n{}", words(command), output.status, String::from_utf8_lossy(&output.stderr).trim_end());
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("`{}` printed something that is not UTF-8", words(command)))
}

fn append_to(log: &Path) -> Result<File> {
    if let Some(dir) = log.parent() {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    OpenOptions::new().create(true).append(true).open(log).with_context(|| format!("cannot write {}", log.display()))
}

/// The last lines of the last command in a log, each indented.
fn tail(log: &Path) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let last_command = text.rfind("\n$ ").map_or(0, |at| at + 1);
    let lines: Vec<&str> = text[last_command..].lines().collect();
    let first = lines.len().saturating_sub(LOG_TAIL_LINES);
    lines[first..].iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

/// A command as one would type it.
fn words(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn failure_names_the_command_and_its_status() {
        let error = run(&mut shell("exit 7")).expect_err("it exits 7");
        assert_eq!(error.to_string(), "`sh -c exit 7` failed: exit status: 7");
    }

    #[test]
    fn logged_failure_shows_the_last_lines_and_the_path() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let log = dir.path().join("deep/apt.log");
        let error =
            run_logged(&mut shell("seq 100; echo oops >&2; false"), &log).expect_err("it ends with false").to_string();
        assert!(error.contains("    100\n    oops\n"), "{error}");
        assert!(error.contains(&log.display().to_string()), "{error}");
    }

    #[test]
    fn logged_success_keeps_earlier_output() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let log = dir.path().join("log");
        for word in ["first", "second"] {
            run_logged(&mut shell(&format!("echo {word}")), &log).expect("echo succeeds");
        }
        let text = fs::read_to_string(&log).expect("the log is there");
        assert!(text.contains("\nfirst\n") && text.contains("\nsecond\n"));
        assert_eq!(tail(&log), "    $ sh -c echo second\n    second");
    }

    #[test]
    fn output_of_a_failure_carries_stderr() {
        let error = output(&mut shell("echo because >&2; false")).expect_err("it fails");
        assert!(error.to_string().ends_with("because"), "{error}");
    }
}
