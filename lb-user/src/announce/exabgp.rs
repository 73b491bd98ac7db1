//! ExaBGP's text API: commands on standard output, and what it answers, which nobody needs, on standard input.

use crate::config::Prefix;
use std::{
    collections::BTreeSet,
    fmt::Write as _,
    io::{self, Read as _, Write as _},
    thread,
};
use tokio::sync::oneshot;

/// The ExaBGP that has started this process.
#[derive(Debug)]
pub struct ExaBgp {
    /// What is said of each route, in ExaBGP's words.
    attributes: String,
    announced: BTreeSet<Prefix>,
    /// Ends with standard input.
    listens: oneshot::Receiver<()>,
}

impl ExaBgp {
    /// Has it forget what an earlier process has announced: none is left to withdraw that.
    ///
    /// # Errors
    /// It reads nothing.
    pub fn begin(attributes: &str) -> io::Result<Self> {
        let (alive, listens) = oneshot::channel();
        // Not a thread of the runtime, which would wait for it at the end.
        thread::spawn(move || {
            let mut answers = [0; 4096];
            while io::stdin().read(&mut answers).is_ok_and(|read| read > 0) {}
            drop(alive);
        });
        say("clear adj-rib out\n")?;
        Ok(Self { attributes: attributes.to_owned(), announced: BTreeSet::new(), listens })
    }

    /// Has these announced, and no others.
    pub(super) fn announce(&mut self, prefixes: &BTreeSet<Prefix>) -> io::Result<()> {
        say(&self.commands(prefixes))?;
        self.announced.clone_from(prefixes);
        Ok(())
    }

    /// Waits until it has ended, or closed the pipe to this process.
    pub(super) async fn gone(&mut self) {
        // Nobody sends: it is over when the sender is gone.
        let _ = (&mut self.listens).await;
    }

    fn commands(&self, prefixes: &BTreeSet<Prefix>) -> String {
        let Self { attributes, announced, .. } = self;
        let mut commands = String::new();
        for prefix in announced.difference(prefixes) {
            let _ = writeln!(commands, "withdraw route {} next-hop self", with_length(prefix));
        }
        for prefix in prefixes.difference(announced) {
            let line = format!("announce route {} next-hop self {attributes}", with_length(prefix));
            let _ = writeln!(commands, "{}", line.trim_end());
        }
        commands
    }
}

/// It takes no address without a length.
fn with_length(prefix: &Prefix) -> String {
    format!("{}/{}", prefix.address(), prefix.bits())
}

/// All of it at once: half a command would be another one.
fn say(commands: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(commands.as_bytes())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changes_is_said() {
        let prefixes = |list: &[&str]| list.iter().map(|prefix| prefix.parse().expect("a prefix")).collect();
        let exabgp = ExaBgp {
            attributes: "med 100".to_owned(),
            announced: prefixes(&["192.0.2.1", "192.0.2.2"]),
            listens: oneshot::channel().1,
        };
        assert_eq!(
            exabgp.commands(&prefixes(&["192.0.2.2", "198.51.100.0/24", "2001:db8::1"])),
            "withdraw route 192.0.2.1/32 next-hop self\n\
             announce route 198.51.100.0/24 next-hop self med 100\n\
             announce route 2001:db8::1/128 next-hop self med 100\n"
        );
    }
}
