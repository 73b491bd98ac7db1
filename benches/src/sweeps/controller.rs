//! A real controller of some scale: how long it takes until a changed configuration is in force, and what it takes of memory.

use std::{
    fs,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use nix::sys::signal::Signal;

use super::tables::{Held, Tables};
use crate::{
    Lab, LabError,
    bench::{BenchError, MapMemory, Scale, median},
    wait,
    weir::{Alias, Join, Weir, WeirConfig},
};

/// Until a sweep has begun and ended.
const SWEEP_LIMIT: Duration = Duration::from_mins(3);
/// Microseconds of a day.
const DAY: u64 = 86_400_000_000;

/// What a controller took.
#[derive(Debug, Clone)]
pub(super) struct Taken {
    /// Its maps.
    pub(super) maps: Vec<MapMemory>,
    /// Its process's memory.
    pub(super) process: Resident,
    /// Milliseconds until `weir reload` had its answer.
    pub(super) answered_ms: f64,
    /// Milliseconds until the controller said in its log that it had reloaded.
    pub(super) told_ms: f64,
}

/// Bytes of a process that are in memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Resident {
    /// In the end.
    pub(super) now: u64,
    /// At most so far.
    pub(super) peak: u64,
}

/// What a reload changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// A backend goes, or comes.
    Backend,
    /// A VIP does.
    Vip,
}

impl Change {
    /// The scale after it: one less, or one more where there is only one.
    const fn applied_to(self, scale: Scale) -> Scale {
        const fn other(count: u16) -> u16 {
            if count > 1 { count - 1 } else { count + 1 }
        }
        match self {
            Self::Backend => Scale { backends: other(scale.backends), ..scale },
            Self::Vip => Scale { vips: other(scale.vips), ..scale },
        }
    }
}

/// How much is done for a figure.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reloads {
    /// How many there are.
    pub(super) count: u32,
    /// Whether they wait until the controller has gone through all entries.
    pub(super) after_sweep: bool,
}

/// Where controllers run, and backends that are there for them.
pub(super) struct Place {
    aliases: Vec<Alias>,
    /// Last, so that all else is gone before its namespaces.
    lab: Lab,
}

impl Place {
    /// A place for controllers with up to so many backends.
    pub(super) fn make(backends: u16) -> Result<Self, LabError> {
        let lab = Lab::builder().backends(1.try_into()?).build()?;
        Ok(Self { aliases: Alias::many(&lab, backends.into())?, lab })
    }

    /// Starts a controller of a scale with so many entries, and has it make a change and take it back.
    pub(super) fn measure(&self, scale: Scale, change: Change, effort: Reloads) -> Result<Taken, BenchError> {
        let mut weir = Weir::start_alone(&self.lab.balancer, &self.config(scale))?;
        let tables = Tables::of(&self.lab);
        tables.fill(scale)?;
        if effort.after_sweep {
            wait_for_sweep(&weir, scale)?;
        }
        let (mut answered, mut told) = (Vec::new(), Vec::new());
        let changed = change.applied_to(scale);
        for scale in [changed, scale].into_iter().cycle().take(effort.count as usize) {
            let begun = self.reload(&weir, scale)?;
            answered.push(begun.answered.as_secs_f64() * 1e3);
            told.push(begun.told.as_secs_f64() * 1e3);
            let wanted = Held { backends: scale.backends.into(), vips: scale.vips.into() };
            let held = tables.held()?;
            if held != wanted {
                return Err(BenchError::NotInForce { wanted: format!("{wanted:?}"), held: format!("{held:?}") });
            }
        }
        let taken = Taken {
            maps: tables.memory()?,
            process: Resident::of(weir.process_id())?,
            answered_ms: median(answered),
            told_ms: median(told),
        };
        weir.end_by(Signal::SIGTERM)?;
        weir.detach()?;
        Ok(taken)
    }

    /// Changes the file, and waits until the controller has answered.
    fn reload(&self, weir: &Weir, scale: Scale) -> Result<Reloaded, LabError> {
        weir.configure(&self.config(scale))?;
        let (begun, began_at) = (Instant::now(), micros_of_day_now());
        weir.ask(&["reload"])?;
        let answered = begun.elapsed();
        let line = weir.log().lines().rfind(|line| line.contains("reloaded: ")).unwrap_or_default().to_owned();
        let at = micros_of_day(&line).ok_or(LabError::Output { program: "weir", line })?;
        Ok(Reloaded { answered, told: Duration::from_micros((at + DAY - began_at) % DAY) })
    }

    fn config(&self, scale: Scale) -> WeirConfig {
        let backends = &self.aliases[..scale.backends.into()];
        WeirConfig::for_lab(&self.lab, Join::Learn)
            .with_backends(Vec::new())
            .with_aliases(backends)
            .with_vips(scale.vips)
            .with_room(scale.tokens(), scale.joined_flows())
    }
}

/// Waits until the controller says that it has as many entries as were made.
fn wait_for_sweep(weir: &Weir, scale: Scale) -> Result<(), LabError> {
    wait::until("weir has counted its entries", SWEEP_LIMIT, || {
        let status = weir.status()?;
        let (flows, joined) = (u64::from(scale.flows), u64::from(scale.joined));
        Ok((status.tokens == flows && status.joined_flows == joined).then_some(()))
    })
}

struct Reloaded {
    answered: Duration,
    told: Duration,
}

fn micros_of_day_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or_default() % DAY
}

/// The time of a line of the log, which begins with `2026-01-31T23:59:59.123456Z`.
fn micros_of_day(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once('T')?;
    let (time, _) = rest.split_once('Z')?;
    let mut parts = time.split([':', '.']).map(str::parse::<u64>);
    let mut part = || parts.next()?.ok();
    let (hours, minutes, seconds, micros) = (part()?, part()?, part()?, part()?);
    Some(((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + micros)
}

impl Resident {
    fn of(process: u32) -> Result<Self, LabError> {
        let path = format!("/proc/{process}/status");
        let text = fs::read_to_string(&path).map_err(LabError::file("read", &path))?;
        let bytes = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB")?.parse().ok());
            let kib: u64 = value.ok_or_else(|| LabError::Output { program: "the kernel", line: text.clone() })?;
            Ok::<_, LabError>(kib * 1024)
        };
        Ok(Self { now: bytes("VmRSS:")?, peak: bytes("VmHWM:")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_line_is_read() {
        let line = "2026-01-31T23:59:59.000012Z  INFO weir: reloaded: 1 backends joined, 0 left, 3 slots changed";
        assert_eq!(micros_of_day(line), Some(DAY - 1_000_000 + 12));
        for line in ["", "reloaded: ", "2026-01-31T23:59Z"] {
            assert_eq!(micros_of_day(line), None, "{line}");
        }
    }
}
