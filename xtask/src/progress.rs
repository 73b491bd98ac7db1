//! Progress lines in cargo's layout. They go to stderr: stdout belongs to the program that is run.

use std::{fmt::Display, time::Instant};

/// One line, the verb right-aligned as cargo does it.
pub(crate) fn say(verb: &str, what: impl Display) {
    eprintln!("{verb:>12} {what}");
}

/// One line that ends with the seconds since `started`.
pub(crate) fn say_timed(verb: &str, what: impl Display, started: Instant) {
    say(verb, format_args!("{what} in {:.1} s", started.elapsed().as_secs_f64()));
}
