//! What one round says of one in the middle, and what many rounds say together.

use serde::Serialize;

use crate::{
    bench::median,
    load::{real, sample::Ticks},
    ticks,
};

/// Time of processors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Cpu {
    /// All that the machine did, whoever asked for it.
    pub machine: f64,
    /// Of that the kernel's softirqs: most of what packets cost, of all namespaces together. A softirq is in the time of the
    /// process that it interrupts too.
    pub softirq: f64,
    /// Of that the processes in the middle. What XDP and nftables do is in the softirqs.
    pub middle: f64,
    /// Of that the client, which is this program.
    pub client: f64,
    /// Of that the servers.
    pub servers: f64,
}

impl Cpu {
    /// What went by between two moments, in seconds, for each of so many.
    pub(super) fn each(before: &Ticks, after: &Ticks, count: f64) -> Self {
        let each = |of: fn(&Ticks) -> u64| real(of(after).saturating_sub(of(before))) / ticks::per_second() / count;
        Self {
            machine: each(|ticks| ticks.machine),
            softirq: each(|ticks| ticks.softirq),
            middle: each(|ticks| ticks.middle),
            client: each(|ticks| ticks.client),
            servers: each(|ticks| ticks.servers),
        }
    }
}

/// What a round says, or the medians of several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Long transfers over several connections, in megabytes a second.
    pub mb_per_s: f64,
    /// What they cost, in seconds a gigabyte.
    pub cpu_s_per_gb: Cpu,
    /// Connections with one small request each, a second.
    pub connections_per_s: f64,
    /// What they cost, in seconds for a thousand.
    pub cpu_s_per_1000: Cpu,
    /// Small requests one after the other, on one connection: half were faster.
    pub request_ms_p50: f64,
    /// 99 of 100 were faster.
    pub request_ms_p99: f64,
}

impl Figures {
    /// The medians of several.
    pub(super) fn medians(rounds: &[Self]) -> Self {
        let of = |figure: &dyn Fn(&Self) -> f64| median(rounds.iter().map(figure).collect());
        let cpu = |of_whom: fn(&Self) -> &Cpu| Cpu {
            machine: of(&|round| of_whom(round).machine),
            softirq: of(&|round| of_whom(round).softirq),
            middle: of(&|round| of_whom(round).middle),
            client: of(&|round| of_whom(round).client),
            servers: of(&|round| of_whom(round).servers),
        };
        Self {
            mb_per_s: of(&|round| round.mb_per_s),
            cpu_s_per_gb: cpu(|round| &round.cpu_s_per_gb),
            connections_per_s: of(&|round| round.connections_per_s),
            cpu_s_per_1000: cpu(|round| &round.cpu_s_per_1000),
            request_ms_p50: of(&|round| round.request_ms_p50),
            request_ms_p99: of(&|round| round.request_ms_p99),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_the_median_of_its_own_rounds() {
        let round = |mb_per_s, middle| Figures {
            mb_per_s,
            cpu_s_per_gb: Cpu { middle, ..Cpu::default() },
            ..Figures::default()
        };
        let rounds = [round(3.0, 10.0), round(1.0, 30.0), round(2.0, 20.0)];
        assert_eq!(Figures::medians(&rounds), round(2.0, 20.0));
    }
}
