//! The plots of reports, as SVG that stands inside a page. They show figures of the report and nothing else.

use std::io;

use plotters::{
    chart::MeshStyle,
    coord::{Shift, ranged1d::ValueFormatter, types::RangedCoordf64},
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use super::{Run, Sample, real};
use crate::{LabError, screen::thousands};

const SIZE: (u32, u32) = (620, 300);
const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(0x33, 0x3d, 0x4b);
const FAINT: RGBColor = RGBColor(0xe4, 0xe7, 0xec);
const CHANGE: RGBColor = RGBColor(0xc2, 0xc8, 0xd2);
const COLOURS: [RGBColor; 5] = [
    RGBColor(0x2f, 0x6f, 0xde),
    RGBColor(0xe0, 0x7b, 0x1a),
    RGBColor(0x1f, 0x9d, 0x68),
    RGBColor(0xc0, 0x3c, 0x5e),
    RGBColor(0x7d, 0x5b, 0xc9),
];
/// How many nines of the percentiles are shown.
const NINES_MAX: f64 = 5.0;

type Drawn<T = ()> = Result<T, DrawingAreaErrorKind<io::Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Points = Vec<(f64, f64)>;

/// A line, and its name.
pub(crate) struct Line {
    pub(crate) name: &'static str,
    pub(crate) points: Points,
}

/// How long things took: percentiles, with the same room for each further nine.
pub(super) fn latencies(run: &Run) -> Result<String, LabError> {
    let lines: Vec<Line> = run
        .latencies
        .iter()
        .map(|latency| Line {
            name: latency.of,
            points: latency.percentiles.iter().map(|told| (nines(told.percent), told.ms.max(0.01))).collect(),
        })
        .collect();
    let times = || lines.iter().flat_map(|line| line.points.iter().map(|(_, ms)| *ms));
    let (least, most) = (times().fold(1.0, f64::min), times().fold(10.0, f64::max));
    svg("Latency percentiles", &legend(&lines), |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .margin_right(30)
            .x_label_area_size(40)
            .y_label_area_size(62)
            .build_cartesian_2d(0.0..NINES_MAX, (least / 1.5..most * 1.5).log_scale())?;
        plain(&mut chart)
            .x_labels(6)
            .x_label_formatter(&|nines| percent_of(*nines))
            .y_label_formatter(&|ms| format!("{ms}"))
            .x_desc("percentile")
            .y_desc("ms")
            .draw()?;
        draw_lines(&mut chart, &lines)
    })
}

/// What became of the joins, on a scale on which one of a million can be seen.
pub(super) fn joins(run: &Run) -> Result<String, LabError> {
    let totals = &run.totals;
    let bars = [
        ("attempted", totals.joins_attempted, COLOURS[0]),
        ("established", totals.joins_established, COLOURS[2]),
        ("unfinished", totals.joins_unfinished, COLOURS[1]),
        ("refused", totals.joins_refused, COLOURS[4]),
        ("misrouted", totals.joins_misrouted, COLOURS[3]),
    ];
    let height = |count: u64| real(count).max(0.0).ln_1p() / std::f64::consts::LN_10;
    let most = height(totals.joins_attempted).max(1.0);
    svg("Joins by outcome", &[], |area| {
        let mut chart =
            bar_chart(area, bars.len(), most * 1.15, "joins (logarithmic)", &|at| bars[at].0.to_owned(), &|log| {
                axis_count(*log)
            })?;
        for (place, (_, count, colour)) in bars.iter().enumerate() {
            let (left, top) = (real(place as u64), height(*count));
            chart.draw_series([Rectangle::new([(left + 0.2, 0.0), (left + 0.8, top)], colour.filled())])?;
            let style = (FONT, 13, &INK).into_text_style(area).pos(Pos::new(HPos::Center, VPos::Bottom));
            chart.draw_series([Text::new(thousands(*count), (left + 0.5, top + most * 0.02), style)])?;
        }
        Ok(())
    })
}

/// One figure of each of several.
pub(super) fn bars(title: &str, unit: &str, bars: &[(&'static str, f64)]) -> Result<String, LabError> {
    let most = bars.iter().map(|(_, height)| *height).fold(f64::MIN_POSITIVE, f64::max) * 1.15;
    let told = |height: f64| if most < 10.0 { format!("{height:.2}") } else { whole(height) };
    svg(title, &[], |area| {
        let mut chart = bar_chart(area, bars.len(), most, unit, &|at| bars[at].0.to_owned(), &|height| told(*height))?;
        for (place, ((_, height), colour)) in bars.iter().zip(COLOURS.iter().cycle()).enumerate() {
            let left = real(place as u64);
            chart.draw_series([Rectangle::new([(left + 0.2, 0.0), (left + 0.8, *height)], colour.filled())])?;
            let style = (FONT, 13, &INK).into_text_style(area).pos(Pos::new(HPos::Center, VPos::Bottom));
            chart.draw_series([Text::new(told(*height), (left + 0.5, height + most * 0.02), style)])?;
        }
        Ok(())
    })
}

/// Connections and joins a second.
pub(super) fn rates(run: &Run) -> Result<String, LabError> {
    let line = |name, of: fn(&Sample) -> f64| Line { name, points: over_time(run, of) };
    let lines = [
        line("connections opened", |sample| sample.connections_per_s),
        line("joins attempted", |sample| sample.joins_attempted_per_s),
        line("joins established", |sample| sample.joins_established_per_s),
        line("joins misrouted", |sample| sample.joins_misrouted_per_s),
    ];
    time_plot(run, "Rates over time", "a second", &lines)
}

/// Bodies, both ways together.
pub(super) fn throughput(run: &Run) -> Result<String, LabError> {
    let line = |name, of: fn(&Sample) -> f64| Line { name, points: over_time(run, of) };
    let lines =
        [line("bodies, Mbit/s", |sample| sample.mbit_per_s), line("connections open", |sample| real(sample.open))];
    time_plot(run, "Throughput over time", "Mbit/s, connections", &lines)
}

/// Whose time it was.
pub(super) fn cpu(run: &Run) -> Result<String, LabError> {
    let line = |name, of: fn(&Sample) -> f64| Line { name, points: over_time(run, of) };
    let lines = [
        line("client", |sample| sample.cpu.client),
        line("servers", |sample| sample.cpu.servers),
        line("softirqs", |sample| sample.cpu.softirq),
        line("controller", |sample| sample.cpu.middle),
        line("machine", |sample| sample.cpu.machine),
    ];
    time_plot(run, "CPU over time", "% of one processor", &lines)
}

/// Connections beside what the weights let expect.
pub(super) fn load(run: &Run) -> Result<String, LabError> {
    let backends = &run.backends;
    let most = backends.iter().map(|load| load.connections_expected.max(real(load.connections))).fold(1.0, f64::max);
    svg("Load per backend against weight", &[("by weight", CHANGE), ("came", COLOURS[0])], |area| {
        let mut chart =
            bar_chart(area, backends.len(), most * 1.08, "connections", &|at| backends[at].name.clone(), &|count| {
                whole(*count)
            })?;
        let mut draw = |colour: RGBColor, offset: f64, height: &dyn Fn(usize) -> f64| {
            let bar = |at: usize| {
                let left = real(at as u64) + offset;
                Rectangle::new([(left, 0.0), (left + 0.34, height(at))], colour.filled())
            };
            chart.draw_series((0..backends.len()).map(bar)).map(drop)
        };
        draw(CHANGE, 0.14, &|at| backends[at].connections_expected)?;
        draw(COLOURS[0], 0.5, &|at| real(backends[at].connections))
    })
}

fn over_time(run: &Run, of: fn(&Sample) -> f64) -> Points {
    run.samples.iter().map(|sample| (sample.at_s, of(sample))).collect()
}

/// Lines over seconds, and a mark at each change of the pool.
fn time_plot(run: &Run, title: &str, unit: &str, lines: &[Line]) -> Result<String, LabError> {
    let most = lines.iter().flat_map(|line| line.points.iter().map(|(_, y)| *y)).fold(1.0, f64::max) * 1.08;
    let end = run.samples.last().map_or(1.0, |sample| sample.at_s);
    svg(title, &legend(lines), |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .margin_right(30)
            .x_label_area_size(40)
            .y_label_area_size(62)
            .build_cartesian_2d(0.0..end, 0.0..most)?;
        plain(&mut chart)
            .x_label_formatter(&|at| format!("{at:.0}"))
            .y_label_formatter(&|value| whole(*value))
            .x_desc(if run.changes.is_empty() { "seconds" } else { "seconds; grey lines: the pool changes" })
            .y_desc(unit)
            .draw()?;
        let changes =
            run.changes.iter().map(|change| PathElement::new([(change.at_s, 0.0), (change.at_s, most)], CHANGE));
        chart.draw_series(changes)?;
        draw_lines(&mut chart, lines)
    })
}

/// Lines over a size that grows by factors; 0 stands at a power of ten below all others.
pub(crate) fn over_scale(title: &str, size: &str, unit: &str, lines: &[Line]) -> Result<String, LabError> {
    let points = || lines.iter().flat_map(|line| line.points.iter().copied());
    let logs = || points().map(|(size, _)| size.log10()).filter(|log| log.is_finite());
    let (least, most) = (logs().fold(f64::INFINITY, f64::min).min(9.0), logs().fold(1.0, f64::max));
    let zero = least.floor() - 1.0;
    let has_zero = points().any(|(size, _)| size < 1.0);
    let place = |size: f64| if size < 1.0 { zero } else { size.log10() };
    let placed: Vec<Line> = lines
        .iter()
        .map(|Line { name, points }| Line { name, points: points.iter().map(|&(size, y)| (place(size), y)).collect() })
        .collect();
    let begin = if has_zero { zero } else { least };
    let highest = points().map(|(_, y)| y).fold(1.0, f64::max) * 1.08;
    svg(title, &legend(lines), |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .margin_right(30)
            .x_label_area_size(40)
            .y_label_area_size(62)
            .build_cartesian_2d(begin - 0.1..most + 0.1, 0.0..highest)?;
        plain(&mut chart)
            .x_labels(9)
            .x_label_formatter(&|log| if has_zero && *log < zero + 0.01 { "0".to_owned() } else { power_of_ten(*log) })
            .y_label_formatter(&|value| whole(*value))
            .x_desc(size)
            .y_desc(unit)
            .draw()?;
        draw_lines(&mut chart, &placed)?;
        for (line, colour) in placed.iter().zip(COLOURS) {
            chart.draw_series(line.points.iter().map(|&point| Circle::new(point, 3, colour.filled())))?;
        }
        Ok(())
    })
}

type Chart<'a, 'b, X, Y> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<X, Y>>;

fn draw_lines<'a, 'b: 'a, X, Y>(chart: &mut Chart<'a, 'b, X, Y>, lines: &[Line]) -> Drawn
where
    X: Ranged<ValueType = f64>,
    Y: Ranged<ValueType = f64>,
{
    for (line, colour) in lines.iter().zip(COLOURS) {
        chart.draw_series(LineSeries::new(line.points.iter().copied(), colour.stroke_width(2)))?;
    }
    Ok(())
}

/// Axes and grid as all charts have them.
fn plain<'a, 'b, 'm, X, Y>(chart: &'m mut Chart<'a, 'b, X, Y>) -> MeshStyle<'a, 'm, X, Y, SVGBackend<'b>>
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let mut mesh = chart.configure_mesh();
    mesh.bold_line_style(FAINT)
        .light_line_style(WHITE)
        .axis_style(INK)
        .label_style((FONT, 12, &INK))
        .axis_desc_style((FONT, 13, &INK));
    mesh
}

/// The colours of lines.
fn legend(lines: &[Line]) -> Vec<(&'static str, RGBColor)> {
    let keys = lines.iter().zip(COLOURS).filter(|(line, _)| !line.points.is_empty());
    keys.map(|(line, colour)| (line.name, colour)).collect()
}

/// An empty chart for so many bars, each one wide.
fn bar_chart<'a, 'b>(
    area: &'a Area<'b>,
    bars: usize,
    most: f64,
    unit: &str,
    name: &dyn Fn(usize) -> String,
    label: &dyn Fn(&f64) -> String,
) -> Drawn<Chart<'a, 'b, RangedCoordf64, RangedCoordf64>> {
    let width = real(bars as u64);
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .margin_right(30)
        .x_label_area_size(40)
        .y_label_area_size(62)
        .build_cartesian_2d(0.0..width, 0.0..most)?;
    plain(&mut chart).disable_x_mesh().disable_x_axis().y_label_formatter(label).y_desc(unit).draw()?;
    let style = (FONT, 13, &INK).into_text_style(area).pos(Pos::new(HPos::Center, VPos::Top));
    let every = bars.div_ceil(16);
    for at in (0..bars).step_by(every) {
        let (x, y) = chart.backend_coord(&(real(at as u64) + 0.5, 0.0));
        area.draw_text(&name(at), &style, (x, y + 8))?;
    }
    Ok(chart)
}

/// A number of an axis.
fn whole(value: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "axes begin at 0")]
    let value = value.round() as u64;
    thousands(value)
}

/// The count at such a height of a plot of joins.
fn axis_count(height: f64) -> String {
    if height.abs() < 0.01 { "0".to_owned() } else { power_of_ten(height) }
}

/// The count with such a logarithm; nothing between powers of ten.
fn power_of_ten(log: f64) -> String {
    if (log - log.round()).abs() > 0.01 { String::new() } else { whole(10_f64.powf(log)) }
}

fn nines(percent: f64) -> f64 {
    (-(1.0 - percent / 100.0).log10()).min(NINES_MAX)
}

fn percent_of(nines: f64) -> String {
    if nines >= NINES_MAX {
        return "100 %".to_owned();
    }
    let percent = 100.0 * (1.0 - 10_f64.powf(-nines));
    let rounded = (percent * 1000.0).round() / 1000.0;
    format!("{rounded} %")
}

/// Draws, and leaves out of the picture's head what only a file of its own needs.
fn svg(
    title: &str,
    legend: &[(&str, RGBColor)],
    draw: impl for<'b> Fn(&Area<'b>) -> Drawn,
) -> Result<String, LabError> {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        draw(&area)
            .and_then(|()| area.present())
            .map_err(|error| LabError::system("draw a plot")(io::Error::other(error.to_string())))?;
    }
    let (_, drawing) = text.split_once('>').unwrap_or_default();
    let (width, height) = SIZE;
    let key = |(name, RGBColor(red, green, blue)): &(&str, RGBColor)| {
        format!("<span><i style=\"background: rgb({red} {green} {blue})\"></i>{name}</span>")
    };
    let legend: String = legend.iter().map(key).collect();
    Ok(format!(
        "<figure><figcaption>{title}{legend}</figcaption><svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{title}\">{drawing}</figure>"
    ))
}
