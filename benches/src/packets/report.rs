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
    /// The same where the backend is on the link, and needs no tunnel.
    pub on_link: Vec<OnLink>,
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
    /// That come back in a tunnel, from a program that decides nothing.
    pub tunnel_pps: u64,
    /// That Weir steers.
    pub weir_pps: u64,
    /// Weir's by the reflector's: the median of each round's quotient.
    pub of_reflector: f64,
    /// Weir's by the tunnel's, likewise.
    pub of_tunnel: f64,
    /// Nanoseconds a packet: the reflector's, what the tunnel adds, what Weir adds to that.
    pub ns: [f64; 3],
    /// That the generator made for each, in this order: no rate can be higher.
    pub offered_pps: [u64; 3],
    /// That came back to where packets end.
    pub returned_pps: [u64; 3],
}

impl Rate {
    /// Of the reflector, the tunnel and Weir.
    pub(super) fn of(packets: &'static str, seen: [Seen; 3], of_reflector: f64, of_tunnel: f64) -> Self {
        let [reflector_pps, tunnel_pps, weir_pps] = seen.map(|seen| whole(seen.rate));
        let [reflector, tunnel, weir] = seen.map(|seen| 1e9 / seen.rate);
        Self {
            packets,
            reflector_pps,
            tunnel_pps,
            weir_pps,
            of_reflector: rounded(of_reflector),
            of_tunnel: rounded(of_tunnel),
            ns: [reflector, tunnel - reflector, weir - tunnel].map(f64::round),
            offered_pps: seen.map(|seen| whole(seen.offered)),
            returned_pps: seen.map(|seen| whole(seen.returned)),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { packets, of_reflector, of_tunnel, ns: [link, tunnel, decision], offered_pps, .. } = self;
        let [reflector, tunnels, weir] = [self.reflector_pps, self.tunnel_pps, self.weir_pps].map(thousands);
        let offered = offered_pps.map(thousands).join(", ");
        write!(
            f,
            "{packets:<10} reflector {reflector:>10}, tunnel alone {tunnels:>10}, Weir {weir:>10} packets a second: \
             {of_reflector:.3} of the reflector, {of_tunnel:.3} of the tunnel alone; {link:.0} ns the link, {tunnel:+.0} the \
             tunnel, {decision:+.0} the decision (offered {offered})"
        )
    }
}

/// Medians over the rounds, in packets a second on one CPU, where Weir puts on another Ethernet address and no tunnel.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct OnLink {
    /// Their kind.
    pub packets: &'static str,
    /// That the reflector sends back.
    pub reflector_pps: u64,
    /// That Weir steers.
    pub weir_pps: u64,
    /// Weir's by the reflector's: the median of each round's quotient.
    pub of_reflector: f64,
}

impl OnLink {
    /// Of the reflector and Weir.
    pub(super) fn of(packets: &'static str, seen: [Seen; 2], of_reflector: f64) -> Self {
        let [reflector_pps, weir_pps] = seen.map(|seen| whole(seen.rate));
        Self { packets, reflector_pps, weir_pps, of_reflector: rounded(of_reflector) }
    }
}

impl fmt::Display for OnLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { packets, reflector_pps, weir_pps, of_reflector } = self;
        let [reflector, weir] = [*reflector_pps, *weir_pps].map(thousands);
        write!(
            f,
            "{packets:<10} reflector {reflector:>10}, Weir on the link {weir:>10} packets a second: {of_reflector:.3} of the \
             reflector"
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

fn rounded(ratio: f64) -> f64 {
    (ratio * 1000.0).round() / 1000.0
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
