//! Minted handshakes beside normal ones, on one backend: what it costs to have clients' keys chosen. One agent runs all the
//! time; it mints for the port of the service, and lets a second port of the same server alone. Many short rounds of both
//! take turns, and a round is over when the agent has as many keys ready as at the start.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::SocketAddr,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use nix::{time::ClockId, unistd::Pid};
use serde::Serialize;

use crate::{
    Lab, LabError,
    addresses::{BALANCER, SERVICE_PORT, VIP},
    bench::median,
    oracle::Counters,
    server::Server,
    sockets, wait,
    weir::{
        Agent,
        agent::{self, KEYS},
    },
};

/// The port that nobody mints for.
const NORMAL_PORT: u16 = SERVICE_PORT + 1;
/// Clients that open connections at once: enough that the processors are never idle.
const CLIENTS: usize = 8;
const CHUNK: usize = 1 << 16;
const STEP_LIMIT: Duration = Duration::from_secs(20);
const REFILL_LIMIT: Duration = Duration::from_mins(2);
/// How often it is looked at whether the agent still searches.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// The agent's thread that searches.
const SEARCH: &str = "keys";
const LINE: &[u8] = b"ping\n";
/// What the client's kernel counts for a connection that is MPTCP, and for one that the server answered as plain TCP.
const SPEAKS_MPTCP: &str = "MPTcpExtMPCapableSYNACKRX";
const FALLBACKS: &str = "MPTcpExtMPCapableFallbackSYNACK";

/// What to run.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Options {
    /// How many connections are opened in each round of a kind
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=4000))]
    pub connections: u32,
    /// How many rounds of each kind: the more, the less the figures scatter
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// Ids that tokens have room for: each doubling doubles the work of the search for keys
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(2..=256))]
    pub max_backends: u32,
    /// Megabytes that go there and back over one connection in each round
    #[arg(long, value_name = "MB", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub megabytes: u32,
    /// Print one JSON object and nothing else on standard output
    #[arg(long)]
    pub json: bool,
}

/// Figures of a kind of handshakes, over all its rounds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Connections opened, used and closed, a second; the agent's keys are then what they were. The median round.
    pub connections_per_s: f64,
    /// Of one connection, each way. The median round.
    pub mbit_per_s: f64,
    /// Of processors for a connection, in microseconds: client, server and agent, and the kernel's work for their packets,
    /// nearly all of which it does in their time.
    pub cpu_us: f64,
    /// Of that the agent, which searches for keys meanwhile.
    pub agent_us: f64,
}

/// The one object that `--json` prints.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// `mint`.
    pub drill: &'static str,
    /// Connections of each kind, those of the transfers included.
    pub connections: u64,
    /// Ids that tokens have room for.
    pub max_backends: u32,
    /// With keys that the agent has chosen.
    pub minted: Figures,
    /// With keys that the kernel has chosen.
    pub normal: Figures,
    /// Minted by normal: 1 is as fast.
    pub connections_ratio: f64,
    /// Minted by normal: 1 is as fast.
    pub throughput_ratio: f64,
    /// Normal by minted: 1 is as cheap.
    pub cpu_ratio: f64,
    /// The same without the agent's search.
    pub cpu_ratio_without_search: f64,
    /// Keys that were ready before the first round.
    pub keys_ready_before: u64,
    /// After the last.
    pub keys_ready_after: u64,
    /// Handshakes that the agent's program has minted, in rounds of the first and of the second kind.
    pub minted_handshakes: [u64; 2],
    /// MPTCP connections by the client's kernel, likewise.
    pub mptcp_connections: [u64; 2],
    /// Connections that became plain TCP.
    pub plain: u64,
}

/// One round of a kind.
#[derive(Debug, Clone, Copy)]
struct Round {
    connections_per_s: f64,
    mbit_per_s: f64,
    cpu: Duration,
    agent_cpu: Duration,
    /// Handshakes that the agent's program has minted, and connections that are MPTCP by the client's kernel.
    minted: u64,
    mptcp: u64,
    plain: u64,
}

struct Drill {
    options: Options,
    agent: Agent,
    _normal: Server,
    keys: u64,
    /// Last, so that all that runs in it is gone before.
    lab: Lab,
}

/// Runs it, telling `step` what happens; returns the figures, and what did not go as it should.
///
/// # Errors
///
/// If the lab cannot be built, a connection cannot be used, or a signal asks for the end.
pub fn run(options: Options, step: &dyn Fn(&str)) -> Result<(Report, Vec<String>), LabError> {
    sockets::allow_many()?;
    let drill = Drill::set_up(options)?;
    let mut rounds = [Vec::new(), Vec::new()];
    for number in 0..options.rounds {
        // What drifts is the same for both.
        for kind in if number % 2 == 0 { [0, 1] } else { [1, 0] } {
            rounds[kind].push(drill.round([SERVICE_PORT, NORMAL_PORT][kind])?);
        }
        step(&format!(
            "{} of {}: minted {:.0}, normal {:.0} connections a second",
            number + 1,
            options.rounds,
            rounds[0].last().map_or(0.0, |round| round.connections_per_s),
            rounds[1].last().map_or(0.0, |round| round.connections_per_s),
        ));
    }
    let sum = |of: fn(&Round) -> u64| rounds.each_ref().map(|rounds| rounds.iter().map(of).sum::<u64>());
    let (minted_handshakes, mptcp_connections) = (sum(|round| round.minted), sum(|round| round.mptcp));
    let plain = sum(|round| round.plain).iter().sum();
    let [minted, normal] = rounds.each_ref().map(|rounds| Figures::of(rounds, options));
    let report = Report {
        drill: "mint",
        connections: u64::from(options.rounds) * (u64::from(options.connections) + 1),
        max_backends: options.max_backends,
        minted,
        normal,
        connections_ratio: minted.connections_per_s / normal.connections_per_s,
        throughput_ratio: minted.mbit_per_s / normal.mbit_per_s,
        cpu_ratio: normal.cpu_us / minted.cpu_us,
        cpu_ratio_without_search: normal.cpu_us / (minted.cpu_us - minted.agent_us),
        keys_ready_before: drill.keys,
        keys_ready_after: drill.keys_ready()?,
        minted_handshakes,
        mptcp_connections,
        plain,
    };
    let failures = report.objections();
    Ok((report, failures))
}

impl Drill {
    fn set_up(options: Options) -> Result<Self, LabError> {
        let lab = Lab::builder().backends(1.try_into()?).build()?;
        let backend = &lab.backends[0];
        lab.router.bypass_balancer(backend)?;
        // No joins: what is measured is the first handshake.
        lab.client.namespace.ip_batch("mptcp limits set subflow 0 add_addr_accepted 0\n")?;
        agent::make_secret(&lab)?;
        let sources = BALANCER.both().map(|address| address.to_string());
        let sources = sources.each_ref().map(String::as_str);
        let agent = agent::run_minting(&lab, backend, &sources, options.max_backends)?;
        let normal = Server::start_on(&backend.namespace, &backend.name, NORMAL_PORT)?;
        let mut drill = Self { options, agent, _normal: normal, keys: KEYS.into(), lab };
        drill.refill()?;
        drill.keys = drill.keys_ready()?;
        Ok(drill)
    }

    /// Opens connections to a port, and has one of them carry much.
    fn round(&self, port: u16) -> Result<Round, LabError> {
        let service = SocketAddr::from((VIP.v4, port));
        let cannot = || LabError::system(format!("use connections to {service}"));
        let before = Tally::of(self)?;
        let begun = Instant::now();
        self.lab.client.namespace.run(|| open_many(service, self.options.connections))?.map_err(cannot())?;
        self.refill()?;
        let took = begun.elapsed();
        let used = Tally::of(self)?;
        let bytes = u64::from(self.options.megabytes) * 1_000_000;
        let carried = self.lab.client.namespace.run(|| carry(service, bytes))?.map_err(cannot())?;
        self.refill()?;
        let after = Tally::of(self)?;
        let agent_cpu = used.agent_cpu.saturating_sub(before.agent_cpu);
        Ok(Round {
            connections_per_s: f64::from(self.options.connections) / took.as_secs_f64(),
            mbit_per_s: f64::from(self.options.megabytes) * 8.0 / carried.as_secs_f64(),
            cpu: used.own_cpu.saturating_sub(before.own_cpu) + agent_cpu,
            agent_cpu,
            minted: after.minted - before.minted,
            mptcp: after.mptcp - before.mptcp,
            plain: after.plain - before.plain,
        })
    }

    /// Waits until all keys that were given out are replaced, those too that the search has in store: then it rests.
    fn refill(&self) -> Result<(), LabError> {
        wait::until("the agent has its keys ready", REFILL_LIMIT, || {
            // To ask the agent costs it more than to look at its thread costs anybody.
            if !self.is_search_at_rest()? {
                thread::sleep(LOOK_INTERVAL);
                return Ok(None);
            }
            let count = |name, label| self.count(name, label);
            let got = count("weir_agent_keys_found_total", "")? + count("weir_agent_keys_recycled_total", "")?;
            let is_full = self.keys_ready()? >= self.keys
                && got >= self.keys + count("weir_agent_mints_total", "minted")?
                && self.is_search_at_rest()?;
            Ok(is_full.then_some(()))
        })
    }

    /// Whether the thread sleeps: it does only where nobody wants more keys.
    fn is_search_at_rest(&self) -> Result<bool, LabError> {
        let folder = PathBuf::from(format!("/proc/{}/task", self.agent.process_id()));
        let entries = fs::read_dir(&folder).map_err(LabError::file("list", &folder))?;
        // One may have ended meanwhile.
        let read = |entry: io::Result<fs::DirEntry>| fs::read_to_string(entry.ok()?.path().join("stat")).ok();
        let named = format!("({SEARCH}) ");
        let mut threads = entries
            .filter_map(read)
            .filter_map(|stat| stat.split_once(&named).map(|(_, state)| state.starts_with('S')));
        Ok(threads.next().unwrap_or(false))
    }

    fn keys_ready(&self) -> Result<u64, LabError> {
        self.count("weir_agent_keys", "ready")
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts")]
    fn count(&self, name: &str, label: &str) -> Result<u64, LabError> {
        let samples = self.agent.metrics()?;
        let has_it = |(_, value): &(String, String)| value == label;
        let is = |labels: &[(String, String)]| label.is_empty() || labels.iter().any(has_it);
        let found = samples.iter().find(|sample| sample.name == name && is(&sample.labels));
        Ok(found.map_or(0, |sample| sample.value as u64))
    }
}

/// What was used and counted so far.
struct Tally {
    own_cpu: Duration,
    agent_cpu: Duration,
    minted: u64,
    mptcp: u64,
    plain: u64,
}

impl Tally {
    fn of(drill: &Drill) -> Result<Self, LabError> {
        let minted = drill.count("weir_agent_mints_total", "minted")?;
        let client = Counters::read(&drill.lab.client.namespace)?;
        let agent = Pid::from_raw(drill.agent.process_id().cast_signed());
        let agent = ClockId::pid_cpu_clock_id(agent).map_err(LabError::system("find the agent's CPU clock"))?;
        Ok(Self {
            own_cpu: cpu(ClockId::CLOCK_PROCESS_CPUTIME_ID)?,
            agent_cpu: cpu(agent)?,
            minted,
            mptcp: client.value(SPEAKS_MPTCP),
            plain: client.value(FALLBACKS),
        })
    }
}

fn cpu(clock: ClockId) -> Result<Duration, LabError> {
    clock.now().map(Duration::from).map_err(LabError::system("read a CPU clock"))
}

/// Some clients at once, of which each opens a connection, exchanges a line, closes it and opens the next.
fn open_many(service: SocketAddr, connections: u32) -> io::Result<()> {
    let one = || -> io::Result<()> {
        let mut stream = sockets::connect(service, STEP_LIMIT)?;
        read_line(&mut stream)?;
        stream.write_all(LINE)?;
        read_line(&mut stream)
    };
    let client =
        |number: usize| -> io::Result<()> { (number..connections as usize).step_by(CLIENTS).try_for_each(|_| one()) };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|number| scope.spawn(move || client(number))).collect();
        let ended =
            clients.into_iter().map(|client| client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        ended.collect()
    })
}

/// How long so many bytes take there and back, on the way both at once.
fn carry(service: SocketAddr, bytes: u64) -> io::Result<Duration> {
    let mut stream = sockets::connect(service, STEP_LIMIT)?;
    read_line(&mut stream)?;
    let (begun, mut sender) = (Instant::now(), stream.try_clone()?);
    thread::scope(|scope| {
        let sending = scope.spawn(move || {
            let mut sender = io::BufWriter::with_capacity(CHUNK, &mut sender);
            io::copy(&mut io::repeat(0x5a).take(bytes), &mut sender).map(drop)
        });
        let mut buffer = vec![0; CHUNK];
        let mut received = 0;
        while received < bytes {
            match stream.read(&mut buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                some => received += some as u64,
            }
        }
        sending.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok(begun.elapsed())
    })
}

/// A greeting or an echo.
fn read_line(stream: &mut impl io::Read) -> io::Result<()> {
    let mut byte = [0];
    while byte != *b"\n" {
        stream.read_exact(&mut byte)?;
    }
    Ok(())
}

impl Figures {
    fn of(rounds: &[Round], options: Options) -> Self {
        let connections = f64::from(options.connections) * f64::from(options.rounds);
        let micros =
            |cpu: fn(&Round) -> Duration| rounds.iter().map(cpu).sum::<Duration>().as_secs_f64() * 1e6 / connections;
        let median = |of: fn(&Round) -> f64| median(rounds.iter().map(of).collect());
        Self {
            connections_per_s: median(|round| round.connections_per_s),
            mbit_per_s: median(|round| round.mbit_per_s),
            cpu_us: micros(|round| round.cpu),
            agent_us: micros(|round| round.agent_cpu),
        }
    }
}

impl Report {
    /// What should not be; how fast it was is for who reads the figures.
    fn objections(&self) -> Vec<String> {
        let mut objections = Vec::new();
        let mut object = |is_so: bool, what: String| objections.extend(is_so.then_some(what));
        object(self.plain > 0, format!("{} connections became plain TCP", self.plain));
        let ([minted, strangers], of) = (self.minted_handshakes, self.connections);
        // A SYN that is sent again is minted again.
        object(minted < of, format!("{minted} handshakes were minted, of {of} that should be"));
        object(strangers > 0, format!("{strangers} handshakes were minted where none should be"));
        let mptcp: u64 = self.mptcp_connections.iter().sum();
        object(mptcp != 2 * of, format!("{mptcp} of {} connections were MPTCP", 2 * of));
        let (before, after) = (self.keys_ready_before, self.keys_ready_after);
        object(after < before, format!("{after} keys are ready, of {before} at the start"));
        objections
    }
}
