//! A shell to type a page's commands into: bash as root of namespaces of its own, with no network but what is made there.
//! `/run`, the BPF file system and what is written below `/etc` are its own, too. All of it ends with the test, killed or
//! not: the shell is the first process of its namespaces, and dies with the thread that started it.

use std::{
    env,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

/// Far above what any block of commands takes.
pub(crate) const DEADLINE: Duration = Duration::from_mins(2);
/// What follows the last line that a block of commands prints.
const END: &str = "-- that was all, with exit status ";
/// What makes the places its own. Nothing is left on a disk.
const PREPARE: &str = "\
exec 2>&1
mount -t tmpfs -o mode=0755 tmpfs /run
mkdir /run/etc /run/work /run/bin /run/here
mount -t overlay -o lowerdir=/etc,upperdir=/run/etc,workdir=/run/work overlay /etc
rm -rf /etc/weir
mount -t bpf -o mode=0700 bpf /sys/fs/bpf
ip link set lo up
cd /run/here
";

/// A running shell.
pub(crate) struct Shell {
    bash: Child,
    typed: ChildStdin,
    lines: Receiver<String>,
}

/// What a block of commands has printed, and how it ended.
pub(crate) struct Answer {
    pub(crate) said: String,
    pub(crate) status: String,
}

impl Shell {
    /// Starts one whose `weir` is the one that is tested.
    pub(crate) fn start() -> Self {
        let weir = Path::new(env!("CARGO_BIN_EXE_weir")).parent().expect("it is in a folder");
        let path = env::var("PATH").unwrap_or_default();
        let mut bash = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", "unshare", "--kill-child", "--fork", "--propagation", "private"])
            .args(["--mount-proc", "--mount", "--pid", "--net", "bash", "--noprofile", "--norc", "-s"])
            .env_clear()
            .env("PATH", format!("/run/bin:{}:{path}", weir.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("setpriv starts");
        let typed = bash.stdin.take().expect("piped");
        let printed = BufReader::new(bash.stdout.take().expect("piped"));
        let (teller, lines) = mpsc::channel();
        thread::spawn(move || printed.lines().map_while(Result::ok).try_for_each(|line| teller.send(line)));
        let mut shell = Self { bash, typed, lines };
        shell.must(PREPARE);
        shell
    }

    /// Types a block of commands, and waits for its end. Commands find no standard input.
    pub(crate) fn ask(&mut self, block: &str) -> Answer {
        let typed = format!("{{\n{block}\n}} </dev/null\nprintf '\\n{END}%s\\n' $?\n");
        self.typed.write_all(typed.as_bytes()).expect("the shell reads");
        let mut said = Vec::new();
        loop {
            let line = self.lines.recv_timeout(DEADLINE);
            let line = line.unwrap_or_else(|error| panic!("{error} behind\n{block}\nwhich said\n{}", said.join("\n")));
            match line.strip_prefix(END) {
                Some(status) => {
                    return Answer { said: said.join("\n").trim_end().to_owned(), status: status.to_owned() };
                }
                None => said.push(line),
            }
        }
    }

    /// What a block of commands prints that has to succeed.
    pub(crate) fn must(&mut self, block: &str) -> String {
        let Answer { said, status } = self.ask(block);
        assert_eq!(status, "0", "these tests need root: run them by `cargo xtask test`\n{block}\nsaid\n{said}");
        said
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.bash.kill();
        let _ = self.bash.wait();
    }
}
