//! What can go wrong in the lab, in words that say what to do about it.

use std::{io, net::SocketAddr, path::PathBuf};

/// An error of the lab.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The lab makes namespaces and attaches programs, which only root may do.
    #[error("the lab needs root: it makes network namespaces and attaches XDP; run it with sudo")]
    NotRoot,
    /// A program that the lab uses is not installed.
    #[error("cannot run `{program}`: {source}; `cargo xtask setup` installs what the lab needs")]
    Spawn {
        /// The program.
        program: String,
        /// Why it did not start.
        source: io::Error,
    },
    /// A program or a part of one that the lab uses is not where it should be.
    #[error("`{tool}` is not installed (Debian's package `{package}`); `cargo xtask setup` puts it there")]
    NoTool {
        /// What is missing.
        tool: &'static str,
        /// Where it is from.
        package: &'static str,
    },
    /// A program that the lab uses refused.
    #[error("`{command}` failed: {output}")]
    Command {
        /// The command line, with its standard input if it had one.
        command: String,
        /// What it said.
        output: String,
    },
    /// A file, directory or kernel setting could not be used.
    #[error("cannot {action} {path}: {source}")]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A system call on a socket or namespace failed.
    #[error("cannot {action}: {source}")]
    System {
        /// What was tried, and where.
        action: String,
        /// Why not.
        source: io::Error,
    },
    /// Something that should happen did not, in time.
    #[error("{what}: not within {limit_ms} ms")]
    Deadline {
        /// What was waited for.
        what: String,
        /// How long, in milliseconds.
        limit_ms: u128,
    },
    /// A process of the lab ended although it should run.
    #[error("{what} ended early ({status}); it said:\n{log}")]
    Ended {
        /// Which process.
        what: String,
        /// Its exit status.
        status: String,
        /// The end of its log.
        log: String,
    },
    /// The `weir` command is neither where `WEIR_BIN` says nor beside this program.
    #[error("no `weir` command at {0}; build it with `cargo build --package lb-user --bin weir`, or set WEIR_BIN")]
    NoWeir(PathBuf),
    /// The eBPF object is missing, damaged, or the kernel refuses it.
    #[error("cannot attach the XDP program `{program}` to {interface}: {reason}")]
    Xdp {
        /// Its name.
        program: &'static str,
        /// The interface, and the namespace that it is in.
        interface: String,
        /// Why not.
        reason: String,
    },
    /// The output of `ss`, `nstat` or a metrics page is not what it should be.
    #[error("{program} printed something unexpected: {line:?}")]
    Output {
        /// The program.
        program: &'static str,
        /// The line.
        line: String,
    },
    /// A connection that should be MPTCP is plain TCP, or gone.
    #[error(
        "no backend has an MPTCP subflow from {client} ({backend} answered it): it fell back to plain TCP, or ended"
    )]
    NotMptcp {
        /// The client's end of the first subflow.
        client: SocketAddr,
        /// The backend that answered.
        backend: String,
    },
    /// Outside the lab's size.
    #[error("a lab has 1 to {max} backends, not {asked}", max = crate::addresses::BACKENDS_MAX)]
    BackendCount {
        /// What was asked for.
        asked: u8,
    },
    /// SIGINT or SIGTERM came.
    #[error("interrupted")]
    Interrupted,
}

impl LabError {
    /// A file error.
    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }

    /// A system call error.
    pub(crate) fn system<E: Into<io::Error>>(action: impl Into<String>) -> impl FnOnce(E) -> Self {
        let action = action.into();
        move |source| Self::System { action, source: source.into() }
    }
}
