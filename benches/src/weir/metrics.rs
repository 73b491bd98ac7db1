//! Reads Weir's metrics page (Prometheus text format 0.0.4) from inside its namespace.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    time::Duration,
};

use crate::{LabError, namespace::Namespace};

use super::config::METRICS_LISTEN;

const LIMIT: Duration = Duration::from_secs(5);

/// One line of a metrics page.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The metric's name.
    pub name: String,
    /// Label names and values, in the page's order.
    pub labels: Vec<(String, String)>,
    /// The value.
    pub value: f64,
}

impl Sample {
    /// The value of a label.
    pub fn label(&self, name: &str) -> Option<&str> {
        let (_, value) = self.labels.iter().find(|(label, _)| label == name)?;
        Some(value)
    }

    /// Reads one line. Weir's label values (names of the configuration) need no escapes.
    fn parse(line: &str) -> Option<Self> {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}')?),
            None => (series, ""),
        };
        let labels = labels
            .split_terminator(',')
            .map(|label| {
                let (label, value) = label.split_once('=')?;
                let value = value.strip_prefix('"')?.strip_suffix('"')?;
                Some((label.to_owned(), value.to_owned()))
            })
            .collect::<Option<_>>()?;
        Some(Self { name: name.to_owned(), labels, value: value.parse().ok()? })
    }
}

/// The samples on the page of the Weir in `namespace`.
pub(super) fn scrape(namespace: &Namespace) -> Result<Vec<Sample>, LabError> {
    let page = namespace
        .run(fetch)?
        .map_err(LabError::system(format!("read http://{METRICS_LISTEN}/metrics in {}", namespace.name())))?;
    let lines = page.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            Sample::parse(line)
                .ok_or_else(|| LabError::Output { program: "weir's metrics page", line: line.to_owned() })
        })
        .collect()
}

/// Whether the Weir in `namespace` says that it is well.
pub(super) fn is_well(namespace: &Namespace) -> Result<bool, LabError> {
    let cannot = format!("read http://{METRICS_LISTEN}/healthz in {}", namespace.name());
    let (status, _) = namespace.run(|| get("/healthz"))?.map_err(LabError::system(cannot))?;
    Ok(is_ok(&status))
}

fn fetch() -> io::Result<String> {
    let (status, body) = get("/metrics")?;
    if is_ok(&status) { Ok(body) } else { Err(io::Error::other(format!("the answer was not 200 OK: {status:?}"))) }
}

fn is_ok(status: &str) -> bool {
    status.contains(" 200 ")
}

/// The line of the status, and the body. HTTP/1.0, so that the answer ends with the connection and is never chunked.
fn get(page: &str) -> io::Result<(String, String)> {
    let mut stream = TcpStream::connect(METRICS_LISTEN)?;
    stream.set_read_timeout(Some(LIMIT))?;
    write!(stream, "GET {page} HTTP/1.0\r\nHost: weir\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok((head.lines().next().unwrap_or_default().to_owned(), body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_labels_and_a_value() {
        let sample = Sample::parse(r#"weir_packets_total{vip="web4",reason="ring"} 12"#).expect("a good line");
        assert_eq!(sample.name, "weir_packets_total");
        assert_eq!(sample.label("reason"), Some("ring"));
        assert!((sample.value - 12.0).abs() < f64::EPSILON);
    }

    #[test]
    fn a_line_that_is_no_sample_is_refused() {
        for line in ["", "up", "up{a} 1", r#"up{a="b" 1"#, "up x"] {
            assert_eq!(Sample::parse(line), None, "{line}");
        }
    }
}
