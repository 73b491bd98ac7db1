//! `weir drain-self`: hands over to the other balancers and withdraws, before this machine is worked on.

use super::{Output, finish, put, put_json};
use crate::admin::{self, Client, withdraw::Withdrawal};
use anyhow::Result;
use std::{path::PathBuf, process::ExitCode};

/// What `weir drain-self` is told.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Take the order back.
    #[arg(long, conflicts_with = "force")]
    undo: bool,
    /// Withdraw even if no other balancer knows what this one knows: subflows that joined here may break.
    #[arg(long)]
    force: bool,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = Output::Human)]
    output: Output,
    /// The admin socket.
    #[arg(long, value_name = "PATH", default_value = admin::SOCKET)]
    socket: PathBuf,
}

/// Orders it, by the balancer behind a socket.
pub fn drain_self(args: &Args) -> ExitCode {
    finish(order(args))
}

async fn order(args: &Args) -> Result<()> {
    let path = match (args.undo, args.force) {
        (true, _) => "/v1/self/enable",
        (false, true) => "/v1/self/drain?force=true",
        (false, false) => "/v1/self/drain",
    };
    let withdrawal: Withdrawal = Client::new(&args.socket).post(path).await?;
    match args.output {
        Output::Human => put(&story(&withdrawal)),
        Output::Json => put_json(&withdrawal),
    }
}

fn story(withdrawal: &Withdrawal) -> String {
    let Withdrawal { is_withdrawn, members, tokens, joined_flows, not_handed_over } = withdrawal;
    if !is_withdrawn {
        return "no longer withdrawn: /healthz answers 200 if packets are steered\n".to_owned();
    }
    let handed_over = match not_handed_over {
        Some(why) => format!("nothing is handed over: {why}"),
        None => format!("{} has {tokens} tokens and {joined_flows} joined flows", members.join(" and ")),
    };
    format!(
        "{handed_over}\nwithdrawn: /healthz answers 503. What still comes is steered; when `weir top` shows no more packets, \
         stop weir.\n`weir drain-self --undo` takes it back.\n"
    )
}
