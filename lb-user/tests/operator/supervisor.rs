//! What `weir run` tells the service manager. The test is the service manager: a datagram socket.

use crate::stage::{DEADLINE, Running, Stage, WEIR, until, word};
use nix::{
    libc,
    sys::{
        ptrace,
        signal::Signal,
        wait::{WaitPidFlag, waitpid},
    },
    time::{ClockId, clock_gettime},
    unistd::Pid,
};
use std::{fs, io::ErrorKind, os::unix::net::UnixDatagram, time::Duration};

/// Short, so that a test need not wait long for a sign of life.
const PATIENCE: Duration = Duration::from_millis(100);

struct Manager {
    socket: UnixDatagram,
}

impl Manager {
    /// Listens, and says what a service needs to know of it.
    fn listen(stage: &Stage) -> (Self, Vec<(&'static str, String)>) {
        let path = stage.folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_read_timeout(Some(DEADLINE)).expect("a deadline");
        let environment = vec![("NOTIFY_SOCKET", word(&path)), ("WATCHDOG_USEC", PATIENCE.as_micros().to_string())];
        (Self { socket }, environment)
    }

    fn hear(&self) -> std::io::Result<String> {
        let mut message = [0; 1024];
        let len = self.socket.recv(&mut message)?;
        Ok(String::from_utf8(message[..len].to_vec()).expect("text"))
    }

    /// The next message that begins with this.
    fn wait_for(&self, beginning: &str) -> String {
        loop {
            let message = self.hear().unwrap_or_else(|error| panic!("never heard {beginning}: {error}"));
            if message.starts_with(beginning) {
                return message;
            }
        }
    }

    /// Whether a message comes within this time.
    fn hears_within(&self, time: Duration) -> bool {
        self.socket.set_read_timeout(Some(time)).expect("a timeout");
        let heard = match self.hear() {
            Ok(_) => true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(error) => panic!("{error}"),
        };
        self.socket.set_read_timeout(Some(DEADLINE)).expect("a deadline");
        heard
    }

    /// Takes all that has been said so far.
    fn forget(&self) {
        self.socket.set_nonblocking(true).expect("a socket");
        while self.hear().is_ok() {}
        self.socket.set_nonblocking(false).expect("a socket");
    }
}

fn monotonic_usec() -> i64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("a clock");
    now.tv_sec() * 1_000_000 + now.tv_nsec() / 1000
}

#[test]
fn a_service_manager_hears_of_start_reload_and_end() {
    let stage = Stage::new();
    let (manager, environment) = Manager::listen(&stage);
    let weir = stage.start(WEIR, &stage.run_arguments(), &environment);
    assert_eq!(manager.wait_for("STATUS="), "STATUS=steering on weir0; 1 of 1 backends are reached\n");
    manager.wait_for("READY=1");
    manager.wait_for("WATCHDOG=1");
    manager.wait_for("WATCHDOG=1");

    let before = monotonic_usec();
    weir.signal(Signal::SIGHUP);
    let reloading = manager.wait_for("RELOADING=1\n");
    let since: i64 = reloading.trim_end().split_once("\nMONOTONIC_USEC=").expect("a time").1.parse().expect("a number");
    assert!(before <= since && since <= monotonic_usec(), "{before} {since}");
    manager.wait_for("READY=1");

    fs::write(stage.config(), "nonsense").expect("a bad configuration");
    weir.signal(Signal::SIGHUP);
    manager.wait_for("RELOADING=1\n");
    manager.wait_for("READY=1");

    weir.signal(Signal::SIGTERM);
    manager.wait_for("STOPPING=1");
    let (code, log) = weir.ended();
    assert_eq!(code, Some(0), "{log}");
}

#[test]
fn a_loop_that_hangs_gives_no_sign_of_life() {
    let stage = Stage::new();
    let (manager, environment) = Manager::listen(&stage);
    let weir = stage.start(WEIR, &stage.run_arguments(), &environment);
    manager.wait_for("WATCHDOG=1");

    let hanging = Hanging::of(&weir);
    manager.forget();
    assert!(!manager.hears_within(PATIENCE * 10), "{}", weir.log());

    drop(hanging);
    manager.wait_for("WATCHDOG=1");
}

/// A Weir whose loop is held. Its other threads go on: only the loop may give a sign of life.
pub(crate) struct Hanging(Pid);

impl Hanging {
    pub(crate) fn of(weir: &Running) -> Self {
        let main_loop = Pid::from_raw(weir.pid().cast_signed());
        ptrace::seize(main_loop, ptrace::Options::empty()).expect("traced");
        // One that does not wait may have a lock that its other threads need.
        until("it is held where it waits", || {
            ptrace::interrupt(main_loop).expect("interrupted");
            waitpid(main_loop, Some(WaitPidFlag::__WALL)).expect("stopped");
            waits(main_loop) || {
                ptrace::cont(main_loop, None).expect("let go on");
                false
            }
        });
        Self(main_loop)
    }
}

/// Whether a thread that is held is asleep, as its system call tells.
fn waits(thread: Pid) -> bool {
    let call = fs::read_to_string(format!("/proc/{thread}/syscall")).expect("it is there");
    let number = call.split_whitespace().next().and_then(|number| number.parse().ok());
    [libc::SYS_futex, libc::SYS_epoll_wait, libc::SYS_epoll_pwait].map(Some).contains(&number)
}

impl Drop for Hanging {
    fn drop(&mut self) {
        ptrace::detach(self.0, None).expect("let go");
    }
}

#[test]
fn decap_is_ready_and_alive_and_ends() {
    let stage = Stage::new();
    let (manager, environment) = Manager::listen(&stage);
    let arguments = ["decap", "--interface", "weir0", "--from", "10.77.0.2"].map(str::to_owned);
    let weir = stage.start(WEIR, &arguments, &environment);
    manager.wait_for("STATUS=taking tunnels off on weir0");
    manager.wait_for("READY=1");
    manager.wait_for("WATCHDOG=1");
    weir.signal(Signal::SIGTERM);
    manager.wait_for("STOPPING=1");
    assert_eq!(weir.ended().0, Some(0));
}
