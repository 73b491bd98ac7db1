//! The `weir-lab` command.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use clap::{Parser, Subcommand, ValueEnum};
use lb_user::commands::in_one_line;
use serde::Serialize;
use weir_lab::{
    BackendCount, Lab, LabError,
    bench::{Case, DESIGN_STUB_NS, Effort, Report},
    churn::{self, Churn},
    demo::{self, Demo, Screen},
    drill,
    fuzz::{self, Difference},
    interrupt, leftovers, load, packets, sweeps,
    verifier::{Budget, comparison, verify},
    wait,
    weir::{Join, Weir, WeirConfig},
};

/// What a shell reports for a program that Ctrl-C ended.
const EXIT_INTERRUPTED: u8 = 130;

const FUZZ_TARGETS: &str = "\
Two targets for libFuzzer look at the host's side alone, the parsers and the decision:
  cargo install cargo-fuzz
  cd benches/fuzz
  RUSTC_BOOTSTRAP=1 cargo fuzz run parse corpus/parse seeds/parse
  RUSTC_BOOTSTRAP=1 cargo fuzz run steer corpus/steer seeds/steer";

/// Weir's lab: real MPTCP stacks in network namespaces around a balancer.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run MPTCP connections through a plain balancer and through Weir, and compare
    Demo {
        /// How many connections in each run
        #[arg(long, default_value_t = 60)]
        connections: usize,
        /// How many backends (1 to 64)
        #[arg(long, default_value_t, value_parser = backend_count)]
        backends: BackendCount,
        /// Print one JSON object and nothing else on standard output
        #[arg(long)]
        json: bool,
    },
    /// Hold connections open while the pool changes under them
    Churn {
        /// How many connections are held from the start
        #[arg(long, default_value_t = 2000)]
        connections: usize,
        /// How often the pool changes
        #[arg(long, default_value_t = 20)]
        changes: usize,
        /// How many backends (5 to 64)
        #[arg(long, default_value = "8", value_parser = churn_backend_count)]
        backends: BackendCount,
        /// What decides the changes
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// How long a slot stays in transition; every connection must show itself in the last eight ninths of it
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(10..=3600))]
        transition_s: u32,
        /// Print one JSON object and nothing else on standard output
        #[arg(long)]
        json: bool,
    },
    /// Do to Weir what operators do to it, or what befalls it, while traffic runs
    #[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
    Drill {
        #[command(subcommand)]
        fleet: Option<FleetDrill>,
        #[command(flatten)]
        drill: Option<drill::Options>,
    },
    /// Load Weir with very many connections of real programs, and write a report
    #[command(args_conflicts_with_subcommands = true)]
    Load {
        #[command(subcommand)]
        part: Option<LoadPart>,
        #[command(flatten)]
        options: load::Options,
    },
    /// Make a lab and keep it until Ctrl-C
    Up {
        /// How many backends (1 to 64)
        #[arg(long, default_value_t, value_parser = backend_count)]
        backends: BackendCount,
        /// What carries the service's packets
        #[arg(long, value_enum, default_value_t = Steering::Learn)]
        steering: Steering,
    },
    /// Clear what labs left whose process is gone
    Down,
    /// Measure what a packet costs the balancer
    Bench {
        /// A short run, to see that it works: its figures are rough
        #[arg(long)]
        quick: bool,
        /// Print one JSON object and nothing else on standard output
        #[arg(long)]
        json: bool,
        /// Draw nanoseconds against flows
        #[arg(long, value_name = "FILE")]
        svg: Option<PathBuf>,
        /// Only these cases, separated by commas
        #[arg(long, value_name = "CASE", value_delimiter = ',', value_enum, default_values_t = Case::ALL, hide_default_value = true)]
        cases: Vec<Case>,
    },
    /// Play random sequences of frames through the decision on the host and in the kernel: both must agree
    #[command(after_help = FUZZ_TARGETS)]
    Fuzz {
        /// How long, at most; without any bound ten minutes
        #[arg(long)]
        minutes: Option<u64>,
        /// How many sequences, at most
        #[arg(long)]
        sequences: Option<u64>,
        /// What the sequences follow from; without one it is new each time, and printed
        #[arg(long)]
        seed: Option<u64>,
        /// Print one JSON object and nothing else on standard output
        #[arg(long)]
        json: bool,
        /// Where a sequence is written down over which host and kernel differ
        #[arg(long, value_name = "FOLDER", default_value = Difference::FIXTURES)]
        fixtures: PathBuf,
    },
    /// Hold each BPF program against its verifier budget
    Verifier {
        /// Set the budget to what the programs cost now, and some room
        #[arg(long)]
        update: bool,
        /// The budget
        #[arg(long, value_name = "FILE", default_value = Budget::PATH)]
        budget: PathBuf,
    },
}

/// Drills of several balancers.
#[derive(Debug, Subcommand)]
enum FleetDrill {
    /// A balancer dies, another comes, one is drained, and the bus between them is restarted
    Fleet(drill::fleet::Options),
    /// Somebody forges handshakes, to take over the joins of others
    Poison(drill::poison::Options),
    /// All connections are joined at once, and only their tokens tell where they live
    TokenBurst {
        #[command(flatten)]
        options: drill::token::Options,
        #[command(flatten)]
        disturbance: drill::token::Disturbance,
    },
    /// Handshakes with chosen keys beside normal ones: how fast, how dear
    Mint(drill::mint::Options),
    /// The secret of tokens is rotated while connections live
    Rotate(drill::token::Options),
    /// The agents that choose tokens are killed, and started again
    AgentKill(drill::token::Options),
    /// Very many connections, and whose backend their tokens name
    Tokens(drill::token::Options),
}

/// Loads that sockets cannot make.
#[derive(Debug, Subcommand)]
enum LoadPart {
    /// Count packets a second through Weir and through the plainest balancer, and open connections in floods
    Packets(packets::Options),
    /// Put `HAProxy`, nginx, nftables and bare XDP programs in Weir's place, and compare
    Peers(load::peers::Options),
    /// Measure packets, memory and reloads of balancers from tiny to the largest, and write a report
    Sweeps(sweeps::Options),
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Steering {
    /// Weir, which learns the tokens
    Learn,
    /// Weir with `join = "off"`
    Off,
    /// No balancer: the router sends everything to b1
    Bypass,
}

fn main() -> ExitCode {
    match run(&Arguments::parse().command) {
        Ok(code) => code,
        Err(error) if interrupt::requested() => {
            eprintln!("weir-lab: {}; the lab is removed", in_one_line(&error));
            ExitCode::from(EXIT_INTERRUPTED)
        }
        Err(error) => {
            eprintln!("weir-lab: {}", in_one_line(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command) -> anyhow::Result<ExitCode> {
    interrupt::install().context("cannot handle SIGINT and SIGTERM")?;
    match *command {
        Command::Demo { connections, backends, json } => {
            let screen = if json { Screen::Quiet } else { Screen::Tables };
            let options = demo::Options { connections, backends };
            demonstrate(options, screen)
        }
        Command::Churn { connections, changes, backends, seed, transition_s, json } => {
            let screen = if json { churn::Screen::Quiet } else { churn::Screen::Table };
            churn_pool(churn::Options { connections, changes, backends, seed, transition_s }, screen)
        }
        Command::Drill { fleet: Some(FleetDrill::Fleet(options)), .. } => {
            conclude(options.json, drill::fleet::run(options, drill::Screen::of(options.json))?)
        }
        Command::Drill { fleet: Some(FleetDrill::Poison(options)), .. } => {
            conclude(options.json, drill::poison::run(options, drill::Screen::of(options.json))?)
        }
        Command::Drill { fleet: Some(FleetDrill::Mint(options)), .. } => {
            let step = |what: &str| if options.json { eprintln!("drill: {what}") } else { println!("{what}") };
            let (report, failures) = drill::mint::run(options, &step)?;
            if !options.json {
                println!("{}", serde_json::to_string_pretty(&report)?);
            }
            conclude(options.json, (report, failures))
        }
        Command::Drill { fleet: Some(FleetDrill::TokenBurst { options, disturbance }), .. } => {
            drill_tokens(drill::token::Kind::TokenBurst, options, disturbance)
        }
        Command::Drill { fleet: Some(FleetDrill::Rotate(options)), .. } => {
            drill_tokens(drill::token::Kind::Rotate, options, drill::token::Disturbance::default())
        }
        Command::Drill { fleet: Some(FleetDrill::AgentKill(options)), .. } => {
            drill_tokens(drill::token::Kind::AgentKill, options, drill::token::Disturbance::default())
        }
        Command::Drill { fleet: Some(FleetDrill::Tokens(options)), .. } => {
            drill_tokens(drill::token::Kind::Tokens, options, drill::token::Disturbance::default())
        }
        Command::Drill { fleet: None, drill: Some(options) } => {
            conclude(options.json, drill::run(options, drill::Screen::of(options.json))?)
        }
        Command::Drill { .. } => {
            anyhow::bail!("`weir-lab drill` needs to know what to do: see `weir-lab drill --help`")
        }
        Command::Load { part: Some(LoadPart::Packets(options)), .. } => {
            let step = |what: &str| if options.json { eprintln!("packets: {what}") } else { println!("{what}") };
            conclude(options.json, packets::run(options, &step)?)
        }
        Command::Load { part: Some(LoadPart::Peers(ref options)), .. } => load_peers(options),
        Command::Load { part: Some(LoadPart::Sweeps(ref options)), .. } => sweep(options),
        Command::Load { part: None, ref options } => load(options),
        Command::Up { backends, steering } => up(backends, steering),
        Command::Down => down(),
        Command::Verifier { update, ref budget } => hold_against_budget(budget, update),
        Command::Fuzz { minutes, sequences, seed, json, ref fixtures } => {
            let minutes = minutes.or_else(|| sequences.is_none().then_some(10));
            let time = minutes.map(|minutes| Duration::from_secs(60 * minutes));
            fuzz(fuzz::Options { seed: seed.unwrap_or_else(new_seed), sequences, time }, json, fixtures)
        }
        Command::Bench { quick, json, ref svg, ref cases } => {
            measure(if quick { Effort::QUICK } else { Effort::FULL }, cases, json, svg.as_deref())
        }
    }
}

fn demonstrate(options: demo::Options, screen: Screen) -> anyhow::Result<ExitCode> {
    let demo = Demo::run(options, screen)?;
    if screen == Screen::Quiet {
        println!("{}", serde_json::to_string(&demo.report())?);
    }
    let failures = demo.failures();
    for failure in &failures {
        eprintln!("weir-lab: {failure}");
    }
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn churn_pool(options: churn::Options, screen: churn::Screen) -> anyhow::Result<ExitCode> {
    let (report, failures) = Churn::run(options, screen)?;
    if screen == churn::Screen::Quiet {
        println!("{}", serde_json::to_string(&report)?);
    }
    for failure in &failures {
        eprintln!("weir-lab: {failure}");
    }
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn drill_tokens(
    kind: drill::token::Kind,
    options: drill::token::Options,
    disturbance: drill::token::Disturbance,
) -> anyhow::Result<ExitCode> {
    conclude(options.json, drill::token::run(kind, options, disturbance, drill::Screen::of(options.json))?)
}

fn conclude(json: bool, (report, failures): (impl Serialize, Vec<String>)) -> anyhow::Result<ExitCode> {
    if json {
        println!("{}", serde_json::to_string(&report)?);
    }
    for failure in &failures {
        eprintln!("weir-lab: {failure}");
    }
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn load(options: &load::Options) -> anyhow::Result<ExitCode> {
    let screen = load::Screen::of(options.json);
    let (report, stage) = load::run(options, &screen)?;
    report.write_page(&options.report)?;
    screen.conclude(&report, &options.report);
    if let Some(stage) = stage.filter(|_| options.keep) {
        eprintln!("weir-lab: the lab {} stays up; Ctrl-C takes it down. Its namespaces:", stage.lab.name());
        stage.lab.namespaces().for_each(|namespace| eprintln!("  {}", namespace.name()));
        if options.json {
            println!("{}", serde_json::to_string(&report)?);
        }
        wait::for_interrupt();
        return Ok(ExitCode::from(EXIT_INTERRUPTED));
    }
    conclude(options.json, (&report, report.objections()))
}

fn load_peers(options: &load::peers::Options) -> anyhow::Result<ExitCode> {
    let screen = load::peers::Screen::of(options.json);
    let report = load::peers::run(options, screen)?;
    report.write_page(&options.report)?;
    screen.conclude(&report, &options.report);
    conclude(options.json, (&report, report.objections()))
}

fn sweep(options: &sweeps::Options) -> anyhow::Result<ExitCode> {
    let report = sweeps::run(options, &|what| eprintln!("sweeps: {what}"))?;
    report.write_page(&options.report)?;
    if options.json {
        println!("{}", serde_json::to_string(&report)?);
        return Ok(ExitCode::SUCCESS);
    }
    for sweep in &report.sweeps {
        println!("{}", sweep.table());
    }
    println!("ACK, join: {}. The report is {}", report.method, options.report.display());
    Ok(ExitCode::SUCCESS)
}

fn measure(effort: Effort, cases: &[Case], json: bool, svg: Option<&Path>) -> anyhow::Result<ExitCode> {
    let report = Report::measure(effort, cases, |figure| {
        let point = figure.point;
        eprintln!("{}: {} flows, {} tracked: {:.0} ns", point.case.name(), point.flows, point.tracked, figure.ns);
    })?;
    if let Some(path) = svg {
        report.plot(path)?;
    }
    if json {
        println!("{}", report.json()?);
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "Nanoseconds a packet, {}, without the wrapper (the floor) and the stub\n\
         (room for a tunnel, and taking it off again), and as multiples of the IPv4 stub, which takes {:.0} ns here\n\
         and {DESIGN_STUB_NS} ns where the targets were set.\n{}\n\n\
         What the maps of a balancer of default sizes take\n{}",
        report.method(),
        report.stub_ns,
        report.table(),
        report.memory_table(),
    );
    Ok(ExitCode::SUCCESS)
}

fn fuzz(options: fuzz::Options, json: bool, fixtures: &Path) -> anyhow::Result<ExitCode> {
    eprintln!("weir-lab: seed {}", options.seed);
    let report = fuzz::run(options, |sequences, frames| {
        if !json && sequences.is_multiple_of(1 << 16) {
            eprintln!("weir-lab: {sequences} sequences, {frames} frames");
        }
    });
    if json {
        println!("{}", report.json());
    } else {
        println!("{report}");
    }
    let Some(difference) = report.difference else { return Ok(ExitCode::SUCCESS) };
    let path =
        difference.save(fixtures, report.seed).with_context(|| format!("cannot write to {}", fixtures.display()))?;
    eprintln!("weir-lab: host and kernel differ; the sequence is in {}", path.display());
    Ok(ExitCode::FAILURE)
}

/// A seed that nobody has had.
fn new_seed() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

fn hold_against_budget(path: &Path, update: bool) -> anyhow::Result<ExitCode> {
    let verified = verify()?;
    let mut budget = Budget::read(path)?;
    if update {
        budget = budget.updated(&verified);
        budget.write(path)?;
    }
    println!("{}", comparison(&verified, &budget));
    let objections = budget.objections(&verified);
    for objection in &objections {
        eprintln!("weir-lab: {objection}");
    }
    Ok(if objections.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn up(backends: BackendCount, steering: Steering) -> anyhow::Result<ExitCode> {
    let lab = Lab::builder().backends(backends).build()?;
    let start = |join| Weir::start(&lab, &WeirConfig::for_lab(&lab, join)).map(Some);
    let weir = match steering {
        Steering::Learn => start(Join::Learn)?,
        Steering::Off => start(Join::Off)?,
        Steering::Bypass => {
            lab.router.bypass_balancer(&lab.backends[0])?;
            None
        }
    };
    println!("The lab {} is up. Its namespaces:\n", lab.name());
    for namespace in lab.namespaces() {
        println!("  {}", namespace.name());
    }
    if let Some(weir) = &weir {
        let (config, socket) = (weir.config().display().to_string(), weir.socket().display().to_string());
        println!("\nWeir's file: {config}\nAsk it:      weir status --socket {socket}");
    }
    let client = lab.client.namespace.path();
    println!(
        "\nTo enter one:    nsenter --net={} bash\n\
         Try from there:  mptcpize run curl --max-time 2 telnet://192.0.2.10:8000\n\
         Ctrl-C takes the lab down.",
        client.display()
    );
    wait::for_interrupt();
    Ok(ExitCode::from(EXIT_INTERRUPTED))
}

fn down() -> anyhow::Result<ExitCode> {
    let cleared = leftovers::clear_dead()?;
    for lab in &cleared {
        println!("{lab}: cleared");
    }
    for lab in leftovers::labs()? {
        println!("{lab}: in use by process {pid}; end it with `kill {pid}`", pid = lab.owner().pid());
    }
    if cleared.is_empty() {
        println!("no lab was left behind");
    }
    Ok(ExitCode::SUCCESS)
}

/// With fewer backends most kinds of change would not be possible.
fn churn_backend_count(text: &str) -> Result<BackendCount, String> {
    match text.parse::<u8>() {
        Ok(5..) => backend_count(text),
        _ => Err("not a number from 5 to 64".to_owned()),
    }
}

fn backend_count(text: &str) -> Result<BackendCount, String> {
    let count: u8 = text.parse().map_err(|_| "not a number from 1 to 64".to_owned())?;
    BackendCount::try_from(count).map_err(|error: LabError| error.to_string())
}
