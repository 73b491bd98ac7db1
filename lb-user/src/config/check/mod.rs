//! From the file as written to a [`Config`]: every check that the configuration must pass.
//!
//! A check that fails notes its problem and the others go on, so that an operator sees all of them at once. A value
//! that failed is absent, never replaced by a default.

mod agent;
mod balancer;
mod bus;
mod endpoint;
mod health;
mod pool;
mod quic;
mod token;
mod vip;

use super::file::{AgentFile, File};
use super::place::Text;
use super::problem::{Oddity, Problem};
use super::{AgentConfig, Config, ConfigErrors};
use serde::de::DeserializeOwned;
use std::ops::Range;
use toml::Spanned;

pub(super) fn config(text: &str, file: &str) -> Result<Config, ConfigErrors> {
    let text_of_file = Text::new(file, text);
    let written: File = deserialize(text, &text_of_file)?;

    let mut findings = Findings::new(&text_of_file);
    let balancer = balancer::balancer(&written.balancer, &mut findings);
    let metrics = balancer::metrics(written.metrics.as_ref(), &mut findings);
    let admin = balancer::admin(&written.admin, &mut findings);
    let bus = bus::bus(written.bus.as_ref(), &mut findings);
    if let (Some(written), Some(_), None) = (&written.bus, &bus, &written.balancer.cluster_key_file) {
        findings.oddity(written.cluster.span(), Oddity::BusWithoutKey);
    }
    let limits = balancer::limits(&written.limits, &mut findings);
    let pools = pool::pools(&written, &mut findings);
    let vips = vip::vips(&written, &mut findings);

    if let (Some(pools), Some(vips)) = (&pools, &vips) {
        endpoint::overlaps(&written, pools, vips, &mut findings);
    }

    let Findings { problems, oddities, .. } = findings;
    if let (true, Some(balancer), Some(metrics), Some(admin), Some(bus), Some(limits), Some(pools), Some(vips)) =
        (problems.is_empty(), balancer, metrics, admin, bus, limits, pools, vips)
    {
        return Ok(Config {
            balancer,
            metrics,
            admin,
            bus,
            limits,
            pools,
            vips,
            warnings: text_of_file.locate(oddities),
        });
    }
    Err(ConfigErrors::Wrong(text_of_file.locate(problems)))
}

pub(super) fn agent(text: &str, file: &str) -> Result<AgentConfig, ConfigErrors> {
    let text_of_file = Text::new(file, text);
    let written: AgentFile = deserialize(text, &text_of_file)?;
    let mut findings = Findings::new(&text_of_file);
    let config = agent::agent(&written, &mut findings);
    let problems = findings.problems;
    config.filter(|_| problems.is_empty()).ok_or_else(|| ConfigErrors::Wrong(text_of_file.locate(problems)))
}

fn deserialize<T: DeserializeOwned>(text: &str, text_of_file: &Text<'_>) -> Result<T, ConfigErrors> {
    toml::from_str(text).map_err(|error| {
        let problem = Problem::Syntax(syntax_message(error.message()));
        let span = error.span().unwrap_or_default();
        ConfigErrors::Wrong(text_of_file.locate(vec![(span, problem)]))
    })
}

/// What the checks have found so far.
struct Findings<'t> {
    text: &'t Text<'t>,
    problems: Vec<(Range<usize>, Problem)>,
    oddities: Vec<(Range<usize>, Oddity)>,
}

impl<'t> Findings<'t> {
    fn new(text: &'t Text<'t>) -> Self {
        Self { text, problems: Vec::new(), oddities: Vec::new() }
    }

    fn problem(&mut self, at: Range<usize>, problem: Problem) {
        self.problems.push((at, problem));
    }

    fn oddity(&mut self, at: Range<usize>, oddity: Oddity) {
        self.oddities.push((at, oddity));
    }

    /// Parses a text that must be there.
    fn parse<T>(&mut self, written: &Spanned<String>, parse: impl Fn(&str) -> Result<T, Problem>) -> Option<T> {
        self.parse_at(written.get_ref(), written.span(), parse)
    }

    fn parse_at<T>(&mut self, text: &str, at: Range<usize>, parse: impl Fn(&str) -> Result<T, Problem>) -> Option<T> {
        parse(text).map_err(|problem| self.problem(at, problem)).ok()
    }

    /// Parses a text that may be absent: the outer `None` is a problem, the inner one is absence.
    #[expect(clippy::option_option, reason = "absent and wrong are different")]
    fn parse_optional<T>(
        &mut self,
        written: Option<&Spanned<String>>,
        parse: impl Fn(&str) -> Result<T, Problem>,
    ) -> Option<Option<T>> {
        match written {
            None => Some(None),
            Some(written) => self.parse(written, parse).map(Some),
        }
    }

    fn in_range(&mut self, written: &Spanned<i64>, min: i64, max: i64) -> Option<i64> {
        self.in_range_at(*written.get_ref(), written.span(), min, max)
    }

    fn in_range_at(&mut self, count: i64, at: Range<usize>, min: i64, max: i64) -> Option<i64> {
        if (min..=max).contains(&count) {
            return Some(count);
        }
        self.problem(at, Problem::OutOfRange { count, min, max });
        None
    }

    fn port(&mut self, port: i64, at: Range<usize>) -> Option<u16> {
        let port = self.in_range_at(port, at, 1, u16::MAX.into())?;
        u16::try_from(port).ok()
    }

    fn line(&self, span: &Range<usize>) -> usize {
        self.text.line(span)
    }

    /// Checks a number of things against its limit; the problem stands at the first one above it.
    fn count<'a>(&mut self, spans: impl Iterator<Item = Range<usize>> + Clone + 'a, things: &'static str, max: u32) {
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        if let Some(first_above) = spans.clone().nth(max) {
            let count = spans.count();
            self.problem(first_above, Problem::TooMany { count, things, max });
        }
    }
}

/// The TOML parser's message in one line, with what to do.
fn syntax_message(message: &str) -> String {
    let message = message.trim().replace('\n', ", ").replace("expected i64", "expected an integer");
    let message =
        message.replace("expected a map", "expected a table").replace("expected a sequence", "expected a list");
    let advice = if message.starts_with("unknown field") {
        "; correct or remove it"
    } else if message.starts_with("missing field") {
        "; add it"
    } else {
        ""
    };
    format!("{message}{advice}")
}
