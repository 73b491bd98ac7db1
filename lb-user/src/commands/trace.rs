//! `weir trace`: what is decided for packets, as it happens. Two builds of the data path share its tables; the one that
//! tells is there for the time of this command only.

use super::{Output, finish};
use crate::admin::{self, Client, trace::TraceLine};
use anyhow::{Context as _, Result, bail};
use std::{
    io::{self, Write as _},
    num::NonZeroU64,
    path::PathBuf,
    process::ExitCode,
};

/// What `weir trace` is told.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Tell of one packet in N.
    #[arg(long, value_name = "1/N", default_value = "1/1000", value_parser = one_in)]
    sample: u32,
    /// End after so many seconds, 600 at most.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// End after so many packets.
    #[arg(long, value_name = "N")]
    count: Option<NonZeroU64>,
    /// How to print it: as a table, or as a JSON document a line.
    #[arg(long, value_enum, default_value_t = Output::Human)]
    output: Output,
    /// The admin socket.
    #[arg(long, value_name = "PATH", default_value = admin::SOCKET)]
    socket: PathBuf,
}

/// Prints what is decided, until it ends or is ended.
pub fn trace(args: &Args) -> ExitCode {
    finish(print(args))
}

async fn print(args: &Args) -> Result<()> {
    let count = args.count.map(|count| format!("&count={count}")).unwrap_or_default();
    let path = format!("/v1/trace?one_in={}&seconds={}{count}", args.sample, args.seconds);
    let mut lines = Client::new(&args.socket).lines(&path).await?;
    while let Some(line) = lines.next::<TraceLine>().await? {
        let text = match args.output {
            Output::Human => line.to_string(),
            Output::Json => serde_json::to_string(&line)?,
        };
        match writeln!(io::stdout(), "{text}") {
            // Whoever reads has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written.context("the lines cannot be printed")?,
        }
        if matches!(line, TraceLine::End(_)) {
            return Ok(());
        }
    }
    bail!("weir has ended, and the trace with it")
}

/// N of `1/N`.
fn one_in(text: &str) -> Result<u32, String> {
    let number = text.strip_prefix("1/").and_then(|number| number.parse().ok()).filter(|&number| number > 0);
    let spelled = number.filter(|number: &u32| text == format!("1/{number}"));
    spelled.ok_or_else(|| "a sample is 1/N, such as 1/1000; 1/1 is every packet".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_one_in_a_number() {
        assert_eq!((one_in("1/1"), one_in("1/1000"), one_in("1/4294967295")), (Ok(1), Ok(1000), Ok(u32::MAX)));
        for wrong in ["", "1", "1/", "1/0", "2/3", "0.1", "1/-1", "1/+5", "1/010", "1/4294967296", " 1/2", "1/2 ", "1%"]
        {
            assert!(one_in(wrong).is_err_and(|said| said.contains("1/1000")), "{wrong:?}");
        }
    }
}
