//! The cases: which packets, with how many flows, and what the design wants of them.

use lb_common::{bench::Varies, reason::Reason};
use lb_user::bpf::Sizes;

use super::{
    BenchError, Effort,
    agent::Program,
    farm::{Farm, Outer},
    load::{Baseline, Load},
    measure::{Bench, Cost},
    packet::{self, To},
};

/// Flows that take turns.
const FLOWS: [u32; 4] = [1, 65_536, 524_288, 10_000_000];
/// Connections whose token the balancer has learned, at most.
const TOKENS: u32 = 1 << 20;
/// Subflows in the table of joined flows, at most.
const TRACKED: u32 = 1_000_000;
/// Clients of tracked subflows that the measured packets are not of.
pub(super) const OTHER_CLIENTS: u32 = 0xc633_0000;

/// A case by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Case {
    /// An ACK of a connection that the ring answers.
    Ack,
    /// A SYN of plain TCP.
    Syn,
    /// A SYN with `MP_JOIN` whose token was learned.
    JoinTable,
    /// A SYN with `MP_JOIN` whose token itself names the backend.
    JoinToken,
    /// A third packet that teaches its token.
    Learn,
    /// A packet for no VIP.
    Pass,
    /// A UDP datagram.
    Udp,
    /// An ACK over IPv6, in an IPv6 tunnel.
    Ack6,
    /// An ACK, in a tunnel of UDP.
    AckGue,
    /// An ACK of a joined subflow that the ring does not answer.
    AckTracked,
    /// A packet that `weir_decap` of a backend's agent does not touch.
    DecapPass,
    /// The same of `weir_mint`.
    MintPass,
    /// The same of `weir_clamp`.
    ClampPass,
    /// The same of `weir_plain`.
    PlainPass,
}

/// A case with so many flows that take turns, and so many subflows in the table of joined flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// The case.
    pub case: Case,
    /// How many flows take turns.
    pub flows: u32,
    /// How many subflows have an entry.
    pub tracked: u32,
}

impl Case {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Ack,
        Self::Syn,
        Self::JoinTable,
        Self::JoinToken,
        Self::Learn,
        Self::Pass,
        Self::Udp,
        Self::Ack6,
        Self::AckGue,
        Self::AckTracked,
        Self::DecapPass,
        Self::MintPass,
        Self::ClampPass,
        Self::PlainPass,
    ];

    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ack => "ack",
            Self::Syn => "syn",
            Self::JoinTable => "join_table",
            Self::JoinToken => "join_token",
            Self::Learn => "learn",
            Self::Pass => "pass",
            Self::Udp => "udp",
            Self::Ack6 => "ack6",
            Self::AckGue => "ack_gue",
            Self::AckTracked => "ack_tracked",
            Self::DecapPass => "decap_pass",
            Self::MintPass => "mint_pass",
            Self::ClampPass => "clamp_pass",
            Self::PlainPass => "plain_pass",
        }
    }

    /// Whether an IPv4 tunnel's stub is what is subtracted.
    pub(super) fn is_over_ipv4_stub(self) -> bool {
        self.load().is_some_and(|load| load.baseline == Baseline::Push(Outer::V4))
    }

    /// Nanoseconds that the design wants on a machine whose stub takes [`super::DESIGN_STUB_NS`].
    pub const fn target_ns(self) -> Option<u32> {
        match self {
            Self::Ack | Self::Syn | Self::Udp => Some(40),
            Self::JoinTable => Some(90),
            Self::Learn => Some(350),
            Self::Pass => Some(8),
            Self::Ack6 => Some(50),
            Self::AckGue | Self::JoinToken => Some(60),
            Self::DecapPass | Self::MintPass | Self::ClampPass | Self::PlainPass => Some(15),
            Self::AckTracked => None,
        }
    }

    /// The points at which it is measured, those without joined subflows first: a table that was never filled costs less
    /// than one that was emptied.
    pub fn points(self) -> Vec<Point> {
        let point = |flows, tracked| Point { case: self, flows, tracked };
        if self.program().is_some() {
            return vec![point(1, 0)];
        }
        if self == Self::AckTracked {
            return FLOWS.map(|flows| flows.min(TRACKED)).map(|flows| point(flows, flows)).to_vec();
        }
        let tracked: &[u32] = if self == Self::Ack { &[0, 65_536, TRACKED] } else { &[0, TRACKED] };
        tracked.iter().flat_map(|&tracked| FLOWS.map(|flows| point(flows, tracked))).collect()
    }

    /// Measures all of its points, on one balancer.
    pub(super) fn measure(self, effort: Effort, mut each: impl FnMut(Point, Cost)) -> Result<(), BenchError> {
        if let Some(program) = self.program() {
            return self
                .points()
                .into_iter()
                .try_for_each(|point| program.measure(effort).map(|cost| each(point, cost)));
        }
        let Some(load) = self.load() else { return Ok(()) };
        let sizes = Sizes {
            pools: 1,
            tokens: TOKENS,
            entries_per_network: u32::MAX,
            joins_per_token: u32::MAX,
            joined_flows: TRACKED,
            ..Sizes::default()
        };
        let mut bench = Bench::open(Farm::USUAL, &sizes, self.outer(), effort)?;
        for point in self.points() {
            each(point, point.measure(&load, &mut bench)?);
        }
        Ok(())
    }

    /// The agent's program that it is about, if it is about one.
    const fn program(self) -> Option<Program> {
        match self {
            Self::DecapPass => Some(Program::Decap),
            Self::MintPass => Some(Program::Mint),
            Self::ClampPass => Some(Program::Clamp),
            Self::PlainPass => Some(Program::Plain),
            _ => None,
        }
    }

    const fn outer(self) -> Outer {
        match self {
            Self::Ack6 => Outer::V6,
            Self::AckGue => Outer::Gue,
            _ => Outer::V4,
        }
    }

    /// Its packets; `None` if it is about a program of the agent's.
    pub(super) fn load(self) -> Option<Load> {
        Some(match self {
            Self::Ack => Load::of(packet::ack(To::V4), &[Reason::Ring]),
            Self::Syn => Load::of(packet::syn(To::V4), &[Reason::RingNew]),
            Self::JoinTable => {
                let load = Load::of(packet::joining_syn(), &[Reason::JoinToken]);
                Load { varies: Varies::TOKEN, ..load }
            }
            Self::JoinToken => {
                let load = Load::of(packet::joining_syn(), &[Reason::JoinStateless]);
                Load { varies: Varies::TOKEN, ..load }
            }
            Self::Learn => Load::pair(
                &[packet::capable_syn(), packet::third_ack()],
                &[Reason::RingNew, Reason::Learned],
                Varies::KEY,
            ),
            Self::Pass => {
                let load = Load::of(packet::ack(To::Elsewhere), &[Reason::NotVip]);
                Load { baseline: Baseline::Empty, ..load }
            }
            Self::Ack6 => {
                let load = Load::of(packet::ack(To::V6), &[Reason::Ring]);
                Load { ipv6: true, baseline: Baseline::Push(Outer::V6), ..load }
            }
            Self::Udp => Load::of(packet::datagram(), &[Reason::Ring]),
            Self::AckGue => {
                let load = Load::of(packet::ack(To::V4), &[Reason::Ring]);
                Load { baseline: Baseline::Push(Outer::Gue), ..load }
            }
            Self::AckTracked => tracked(),
            Self::DecapPass | Self::MintPass | Self::ClampPass | Self::PlainPass => return None,
        })
    }
}

/// ACKs of joined subflows.
pub(super) fn tracked() -> Load {
    Load::of(packet::ack(To::V4), &[Reason::Flow])
}

impl Point {
    /// Measures it, on a balancer whose tables already hold what the points before it needed.
    fn measure(self, load: &Load, bench: &mut Bench) -> Result<Cost, BenchError> {
        let client = if self.case == Case::AckTracked { load.first_client() } else { OTHER_CLIENTS };
        bench.track(&tracked(), client, self.tracked)?;
        match self.case {
            Case::JoinTable => {
                let tokens = self.flows.next_power_of_two().min(TOKENS);
                bench.learn(tokens)?;
                bench.measure(load, self.flows, tokens)
            }
            Case::JoinToken => {
                bench.name_by_tokens()?;
                bench.measure(load, self.flows, self.flows.next_power_of_two().min(TOKENS))
            }
            Case::Learn => self.measure_third_packets(bench, load),
            _ => bench.measure(load, self.flows, 1),
        }
    }

    /// The SYN and its third packet together, without the SYN.
    fn measure_third_packets(self, bench: &mut Bench, pair: &Load) -> Result<Cost, BenchError> {
        let syns = Load::pair(&[packet::capable_syn(), packet::capable_syn()], &[Reason::RingNew], Varies::NOTHING);
        let syn = bench.measure(&syns, self.flows, 1)?;
        let both = bench.measure(pair, self.flows, 1)?;
        Ok(Cost { net: 2.0 * both.net - syn.net, ..both })
    }
}
