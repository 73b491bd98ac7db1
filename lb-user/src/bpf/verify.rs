//! Having the kernel take a program.

use aya::programs::ProgramError;
use nix::errno::Errno;

/// As often as libbpf: signals may come more often than a program is verified.
const ATTEMPTS: usize = 5;

/// Loads a program into the kernel, by aya's `load` of it. A signal that comes while the kernel looks at a program ends that
/// with `EAGAIN` (kernel commit c3494801cd17): then it looks again.
///
/// # Errors
/// The kernel refuses, or signals came each time.
pub fn verified(mut load: impl FnMut() -> Result<(), ProgramError>) -> Result<(), ProgramError> {
    let interrupted = |outcome: &Result<(), ProgramError>| {
        matches!(outcome, Err(ProgramError::LoadError { io_error, .. })
            if io_error.raw_os_error() == Some(Errno::EAGAIN as i32))
    };
    let mut outcome = load();
    for _ in 1..ATTEMPTS {
        if !interrupted(&outcome) {
            break;
        }
        outcome = load();
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;
    use aya_obj::VerifierLog;
    use std::io;

    fn refused(errno: Errno) -> Result<(), ProgramError> {
        let error =
            ProgramError::LoadError { io_error: io::Error::from(errno), verifier_log: VerifierLog::new(String::new()) };
        Err(error)
    }

    #[test]
    fn a_signal_only_delays_it() {
        let mut outcomes = vec![Ok(()), refused(Errno::EAGAIN), refused(Errno::EAGAIN)];
        verified(|| outcomes.pop().expect("no more than that")).expect("it is taken in the end");
        assert!(outcomes.is_empty());
    }

    #[test]
    fn what_is_refused_stays_refused() {
        for (errno, times) in [(Errno::EINVAL, 1), (Errno::EAGAIN, ATTEMPTS)] {
            let mut tried = 0;
            let outcome = verified(|| {
                tried += 1;
                refused(errno)
            });
            outcome.expect_err("it is refused");
            assert_eq!(tried, times, "{errno}");
        }
    }
}
