//! The figures: the one object that `--json` prints.

use std::fmt;

use serde::Serialize;

use super::{Options, rate::Seen};
use crate::screen::thousands;

/// All that was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What was asked for.
    pub options: Asked,
    /// Packets a second, by their kind.
    pub rates: Vec<Rate>,
    /// Connections without a flood.
    pub calm: Quality,
    /// Connections in each flood.
    pub floods: Vec<Flood>,
}

/// What was asked for.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Asked {
    flows: u32,
    rounds: u32,
    span_ms: u64,
    connections: u32,
}

impl From<Options> for Asked {
    fn from(Options { flows, rounds, span, connections, .. }: Options) -> Self {
        Self { flows, rounds, span_ms: span, connections }
    }
}

/// Medians over the rounds, in packets a second on one CPU.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Rate {
    /// Their kind.
    pub packets: &'static str,
    /// That the reflector sends back.
    pub reflector_pps: u64,
    /// That Weir steers.
    pub weir_pps: u64,
    /// The median of each round's quotient.
    pub ratio: f64,
    /// That the generator made for the reflector and for Weir: no rate can be higher.
    pub offered_pps: [u64; 2],
    /// That came back to where packets end.
    pub returned_pps: [u64; 2],
}

impl Rate {
    pub(super) fn of(packets: &'static str, weir: Seen, reflector: Seen, ratio: f64) -> Self {
        Self {
            packets,
            reflector_pps: whole(reflector.rate),
            weir_pps: whole(weir.rate),
            ratio: (ratio * 1000.0).round() / 1000.0,
            offered_pps: [reflector, weir].map(|seen| whole(seen.offered)),
            returned_pps: [reflector, weir].map(|seen| whole(seen.returned)),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { packets, reflector_pps, weir_pps, ratio, offered_pps, .. } = self;
        write!(
            f,
            "{packets:<10} reflector {:>10}, Weir {:>10} packets a second: {ratio:.3} (offered {} and {})",
            thousands(*reflector_pps),
            thousands(*weir_pps),
            thousands(offered_pps[0]),
            thousands(offered_pps[1]),
        )
    }
}

/// What became of connections.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Quality {
    /// How many were to be opened.
    pub connections: u32,
    /// Those that answered.
    pub opened: u32,
    /// Joins that the client's kernel began.
    pub joins_attempted: u64,
    /// Joins that the right backend's kernel completed.
    pub joins_established: u64,
    /// Joins that came to a backend that does not have their connection.
    pub joins_misrouted: u64,
    /// From the SYN to the echo of a line, in milliseconds: half are faster.
    pub open_ms_p50: f64,
    /// 99 of 100 are faster.
    pub open_ms_p99: f64,
}

impl fmt::Display for Quality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, opened, joins_attempted, joins_established, open_ms_p50, open_ms_p99, .. } = self;
        write!(
            f,
            "{opened} of {connections} connections, {joins_established} of {joins_attempted} joins; opened in \
             {open_ms_p50:.1} ms, 99 of 100 in {open_ms_p99:.1} ms"
        )
    }
}

/// A flood, and what became of connections in it.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Flood {
    /// The kind of its packets.
    pub packets: &'static str,
    /// What was asked of the generator, in packets a second.
    pub rate_pps: u64,
    /// What it sent.
    pub sent_pps: u64,
    /// What came to Weir, with the connections' own.
    pub steered_pps: u64,
    /// Of the connections.
    #[serde(flatten)]
    pub quality: Quality,
}

impl fmt::Display for Flood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { packets, steered_pps, quality, .. } = self;
        write!(f, "in {} {packets} packets a second: {quality}", thousands(*steered_pps))
    }
}

impl Report {
    /// What should not be.
    pub fn objections(&self) -> Vec<String> {
        let floods = self.floods.iter().map(|flood| (format!("in the {} flood", flood.packets), flood.quality));
        let qualities = std::iter::once(("without a flood".to_owned(), self.calm)).chain(floods);
        qualities
            .flat_map(|(when, quality)| {
                let broken = u64::from(quality.connections - quality.opened);
                let lost = quality.joins_attempted.saturating_sub(quality.joins_established);
                let counts = [
                    (broken, "connections did not come about"),
                    (lost, "joins were not established"),
                    (quality.joins_misrouted, "joins came to a backend that does not have their connection"),
                ];
                counts.map(|(count, fate)| (count > 0).then(|| format!("{when} {count} {fate}")))
            })
            .flatten()
            .collect()
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "packets a second")]
fn whole(rate: f64) -> u64 {
    rate.round() as u64
}

/// The smallest figure that so many percent are not above; 0 of none.
pub(super) fn percentile(mut figures: Vec<f64>, percent: usize) -> f64 {
    figures.sort_by(f64::total_cmp);
    let place = (figures.len() * percent / 100).min(figures.len().saturating_sub(1));
    figures.get(place).copied().unwrap_or_default()
}
