//! From a [`Source`] to the text that Prometheus reads.
//!
//! The registry asks the collector, the collector the source: a metric has no state between two scrapes.

use super::families::{FAMILIES, Family, Kind, Row, rows};
use super::{Source, listener::Page, vital::Vital};
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Registry, TextEncoder};
use std::collections::HashMap;
use std::sync::Arc;

/// Renders a source's numbers.
pub(super) struct Exposition {
    registry: Registry,
}

impl Exposition {
    pub(super) fn new(source: Arc<dyn Source>, vital: Vital) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        registry.register(Box::new(SourceCollector::new(source, vital)?))?;
        Ok(Self { registry })
    }
}

impl Page for Exposition {
    fn render(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

struct SourceCollector {
    source: Arc<dyn Source>,
    vital: Vital,
    descriptions: Vec<Desc>,
}

impl SourceCollector {
    fn new(source: Arc<dyn Source>, vital: Vital) -> Result<Self, prometheus::Error> {
        let descriptions = FAMILIES.iter().map(describe).collect::<Result<_, _>>()?;
        Ok(Self { source, vital, descriptions })
    }
}

impl Collector for SourceCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let snapshot = self.source.snapshot();
        let families = rows(&snapshot).into_iter().chain(self.vital.rows());
        let families: Vec<_> = families.collect();
        families.iter().map(|(family, rows)| metric_family(family, rows)).collect()
    }
}

fn describe(family: &Family) -> Result<Desc, prometheus::Error> {
    let labels = family.labels.iter().map(ToString::to_string).collect();
    Desc::new(family.name.to_owned(), family.help.to_owned(), labels, HashMap::new())
}

pub(super) fn metric_family(family: &Family, rows: &[Row<'_>]) -> MetricFamily {
    let mut exposed = MetricFamily::default();
    exposed.set_name(family.name.to_owned());
    exposed.set_help(family.help.to_owned());
    exposed.set_field_type(match family.kind {
        Kind::Counter | Kind::Time => MetricType::COUNTER,
        Kind::Gauge => MetricType::GAUGE,
    });
    exposed.set_metric(rows.iter().map(|row| metric(family, row)).collect());
    exposed
}

fn metric(family: &Family, row: &Row<'_>) -> Metric {
    let labels = family.labels.iter().zip(&row.labels).map(|(name, value)| {
        let mut label = LabelPair::default();
        label.set_name((*name).to_owned());
        label.set_value((*value).to_owned());
        label
    });
    let mut metric = Metric::from_label(labels.collect());
    #[expect(clippy::cast_precision_loss, reason = "Prometheus has only doubles: exact up to 2^53")]
    let value = row.value as f64;
    match family.kind {
        Kind::Counter | Kind::Time => {
            let mut counter = Counter::default();
            counter.set_value(if family.kind == Kind::Time { value / 1e6 } else { value });
            metric.set_counter(counter);
        }
        Kind::Gauge => {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
    }
    metric
}
