//! `weir explain`: what becomes of frames, and why, by a configuration or as the running balancer would have it.

use super::{Output, complain, finish};
use crate::{
    admin::{
        self, Client,
        explain::{Asked, ExplainAnswer, ExplainRequest, FRAMES_MAX},
    },
    bpf::LoadError,
    config::Config,
    explain::{
        Engine, Explainer, KernelError, Plan,
        flow::{Flow, Moment},
        frames::{self, Fitted},
        line::Told,
    },
};
use anyhow::{Context as _, Result, bail};
use std::{
    io::{self, BufWriter, ErrorKind, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

/// What `weir explain` is told.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("frames").required(true).args(["flow", "pcap", "packet"])))]
pub struct Args {
    /// A flow, by its ends, such as 198.51.100.7:40000,192.0.2.1:443: where a packet of it goes; for UDP with `udp,` in front.
    /// Once for each.
    #[arg(long, value_name = "CLIENT:PORT,VIP:PORT")]
    flow: Vec<Flow>,
    /// With --flow: as a connection that is about to begin, not as one that is open.
    #[arg(long, requires = "flow")]
    new: bool,
    /// A capture, pcap or pcapng.
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
    /// An Ethernet frame in hexadecimal; once for each.
    #[arg(long, value_name = "HEX")]
    packet: Vec<String>,
    /// Explain by this configuration, as a balancer would that has just started; otherwise as the running one would.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Who decides: by default the kernel's program, or the host's decision where that may not be loaded.
    #[arg(long, value_enum)]
    engine: Option<Engine>,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = Output::Human)]
    output: Output,
    /// The admin socket of the running balancer.
    #[arg(long, value_name = "PATH", default_value = admin::SOCKET, conflicts_with = "config")]
    socket: PathBuf,
}

/// Explains frames; a configuration that does not hold ends with its own status.
pub fn explain(args: &Args) -> ExitCode {
    let Some(path) = &args.config else { return finish(by_the_running(args)) };
    match Config::load(path) {
        Ok(config) => finish(async { by_config(args, &config) }),
        Err(errors) => {
            complain(&errors);
            ExitCode::from(super::BAD_CONFIG)
        }
    }
}

fn frames_of(args: &Args) -> Result<Vec<Fitted>> {
    let moment = if args.new { Moment::Opening } else { Moment::Open };
    Ok(match &args.pcap {
        Some(path) => frames::of_capture(path)?,
        None if args.flow.is_empty() => frames::of_packets(&args.packet)?,
        None => args.flow.iter().map(|flow| flow.frame(moment)).collect(),
    })
}

fn by_config(args: &Args, config: &Config) -> Result<()> {
    let frames = frames_of(args)?;
    let mut explainer = start(args.engine, || Ok(Plan::of_config(config)?))?;
    let mut printer = Printer::new(args);
    printer.begin(explainer.notes())?;
    for frame in &frames {
        let told = explainer.explain(frame)?;
        if printer.print(&told)?.is_none() {
            return Ok(());
        }
    }
    printer.end()
}

/// The explainer with the engine that is asked for, or with the host's where the kernel's may not be had and nobody asked
/// for it.
fn start(engine: Option<Engine>, plan: impl Fn() -> Result<Plan>) -> Result<Explainer> {
    match (engine, Explainer::new(plan()?, None, engine.unwrap_or(Engine::Kernel))) {
        (_, Ok(explainer)) => Ok(explainer),
        (None, Err(KernelError::Load(error @ (LoadError::Privilege { .. } | LoadError::NoObject)))) => {
            complain(format_args!("weir: {error}"));
            complain(
                "weir: explained by the host's decision: the same code, but not the kernel's program (--engine host)",
            );
            Ok(Explainer::new(plan()?, None, Engine::Host)?)
        }
        (_, Err(error)) => Err(error).context("nothing can be explained; --engine host needs no privilege"),
    }
}

async fn by_the_running(args: &Args) -> Result<()> {
    let frames = frames_of(args)?;
    if frames.len() > FRAMES_MAX {
        bail!(
            "{} frames are more than the {FRAMES_MAX} that a running balancer explains at once; take a part of the \
             capture (`editcap -r`), or explain it with --config",
            frames.len()
        );
    }
    let asked = frames.into_iter().map(|frame| match frame {
        Ok(frame) => Asked::Frame(frame),
        Err(error) => Asked::Unfit { error },
    });
    let request = ExplainRequest { engine: args.engine, frames: asked.collect() };
    let answer = ask(&args.socket, &request).await?;
    if args.engine.is_none() && answer.engine == Engine::Host {
        complain("weir: the balancer may not load its program again: explained by the host's decision");
    }
    let mut printer = Printer::new(args);
    printer.begin(&answer.notes)?;
    for told in &answer.frames {
        if printer.print(told)?.is_none() {
            return Ok(());
        }
    }
    printer.end()
}

async fn ask(socket: &Path, request: &ExplainRequest) -> Result<ExplainAnswer> {
    let answer = Client::new(socket).post_with("/v1/explain", request).await;
    answer.context("nothing can be explained; --config FILE explains without a running balancer")
}

/// Prints what is told, until nobody reads it any more.
struct Printer {
    output: Output,
    /// Where the frames are from.
    source: String,
    to: BufWriter<io::Stdout>,
    explained: u64,
    unfit: u64,
}

impl Printer {
    fn new(args: &Args) -> Self {
        let source = match &args.pcap {
            Some(path) => path.display().to_string(),
            None if args.flow.is_empty() => "--packet".to_owned(),
            None => "--flow".to_owned(),
        };
        Self { output: args.output, source, to: BufWriter::new(io::stdout()), explained: 0, unfit: 0 }
    }

    fn begin(&mut self, notes: &[String]) -> Result<()> {
        if self.output == Output::Human {
            for note in notes {
                written(writeln!(self.to, "note: {note}"))?;
            }
        }
        Ok(())
    }

    /// Nothing where nobody reads any more.
    fn print(&mut self, told: &Told) -> Result<Option<()>> {
        *(if told.line.error.is_some() { &mut self.unfit } else { &mut self.explained }) += 1;
        let printed = match self.output {
            Output::Json => writeln!(self.to, "{}", serde_json::to_string(&told.line)?),
            Output::Human => writeln!(self.to, "\n{}", told.story.join("\n    ")),
        };
        written(printed)
    }

    fn end(mut self) -> Result<()> {
        written(self.to.flush())?;
        match (self.explained, self.unfit) {
            (_, 0) => {}
            (0, unfit) => bail!(
                "{}: 0 of {unfit} frames could be explained; each says why. What is explained are whole Ethernet frames or IP \
                 packets, as `tcpdump -i INTERFACE -s 0 -w FILE` captures them",
                self.source
            ),
            (_, unfit) => complain(format_args!(
                "weir: {unfit} frames could not be explained; each says why, and those behind it lack what it would have taught"
            )),
        }
        Ok(())
    }
}

fn written(result: io::Result<()>) -> Result<Option<()>> {
    match result {
        Ok(()) => Ok(Some(())),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(None),
        Err(error) => Err(error.into()),
    }
}
