//! One run of the demonstration: a lab, Weir with one kind of `join`, and all the connections, kept
//! open until every one has been counted.

use std::time::{Duration, Instant};

use crate::{
    Lab, LabError,
    oracle::{Counters, JoinTally},
    traffic::Mix,
    weir::{Join, Sample, Weir, WeirConfig},
};

use super::{Figures, Options, Screen, connections::Outcome};

/// No run takes longer than this, plus [`LIMIT_PER_CONNECTION`] for each connection.
const LIMIT: Duration = Duration::from_mins(1);
const LIMIT_PER_CONNECTION: Duration = Duration::from_millis(500);

/// One run, when it is over.
#[derive(Debug)]
pub struct Phase {
    /// How Weir was configured.
    pub join: Join,
    /// Connections that worked to the end.
    pub connections: usize,
    /// One line for each connection that did not, or that was not joined as it should.
    pub failures: Vec<String>,
    /// Every join of the run, by the kernels' counters.
    pub joins: JoinTally,
    /// For each backend, b1 first, its name and the connections that its kernel accepted.
    pub accepted: Vec<(String, u64)>,
    /// What Weir's metrics page said at the end.
    pub weir: Vec<Sample>,
}

impl Phase {
    /// Builds a lab, runs Weir in it, opens the connections one after the other.
    pub(super) fn run(join: Join, options: Options, screen: Screen) -> Result<Self, LabError> {
        screen.begin(join, options);
        let lab = Lab::builder().backends(options.backends).build()?;
        let weir = Weir::start(&lab, &WeirConfig::for_lab(&lab, join))?;
        screen.ready();
        let before = JoinTally::read(&lab)?;
        let (mut outcomes, mut failures) = open_all(&lab, options, screen)?;
        let wanted: u64 = outcomes.iter().map(|outcome| outcome.connection.mix.joins()).sum();
        let mut working = 0;
        for outcome in &mut outcomes {
            match outcome.connection.exchange() {
                Ok(()) => working += 1,
                Err(error) => failures.push(format!("{}: {error}", outcome.connection.client)),
            }
        }
        let joins = &JoinTally::read(&lab)? - &before;
        if joins.attempted < wanted {
            let attempted = joins.attempted;
            failures.push(format!("the client's kernel attempted {attempted} joins, not {wanted}"));
        }
        Ok(Self { join, connections: working, failures, joins, accepted: accepted(&lab)?, weir: weir.metrics()? })
    }

    /// The figures that `--json` prints.
    pub fn figures(&self) -> Figures {
        Figures {
            connections: self.connections,
            joins_attempted: self.joins.attempted,
            joins_established: self.joins.established(),
            joins_misrouted: self.joins.misrouted(),
        }
    }

    /// The sum of Weir's samples of metric `name` whose `label` is `value`.
    pub(super) fn weir_total(&self, name: &str, label: &str, value: &str) -> f64 {
        let samples = self.weir.iter();
        samples
            .filter(|sample| sample.name == name && sample.label(label) == Some(value))
            .map(|sample| sample.value)
            .sum()
    }

    /// What is wrong with the joins of a run in which none may fail: one line each.
    pub(super) fn lost_joins(&self) -> Vec<String> {
        let counts = [
            (self.joins.misrouted(), "came to a backend that does not have their connection"),
            (self.joins.refused(), "were refused by the backend that has their connection"),
            (self.joins.lost(), "never arrived at a backend"),
        ];
        counts.iter().filter(|(count, _)| *count > 0).map(|(count, fate)| format!("{count} joins {fate}")).collect()
    }
}

fn open_all(lab: &Lab, options: Options, screen: Screen) -> Result<(Vec<Outcome>, Vec<String>), LabError> {
    let begun = Instant::now();
    let connections = u32::try_from(options.connections).unwrap_or(u32::MAX);
    let limit = LIMIT + LIMIT_PER_CONNECTION * connections;
    let (mut outcomes, mut failures) = (Vec::new(), Vec::new());
    for index in 0..options.connections {
        if begun.elapsed() > limit {
            return Err(LabError::Deadline {
                what: format!("{} connections are opened and joined", options.connections),
                limit_ms: limit.as_millis(),
            });
        }
        let number = index + 1;
        match Outcome::of_new_connection(lab, Mix::alternating(index)) {
            Ok(outcome) => {
                screen.connection(number, &outcome);
                outcomes.push(outcome);
            }
            Err(LabError::Interrupted) => return Err(LabError::Interrupted),
            Err(error) => {
                screen.failed_connection(number, &error);
                failures.push(format!("connection {number}: {error}"));
            }
        }
    }
    Ok((outcomes, failures))
}

fn accepted(lab: &Lab) -> Result<Vec<(String, u64)>, LabError> {
    lab.backends
        .iter()
        .map(|backend| {
            let counters = Counters::read(&backend.namespace)?;
            let accepted = counters.value("MPTcpExtMPCapableACKRX");
            Ok((backend.name.clone(), accepted))
        })
        .collect()
}
