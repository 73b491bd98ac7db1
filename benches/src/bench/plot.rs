//! Nanoseconds against flows, as SVG.

use std::path::Path;

use plotters::prelude::*;

use super::{BenchError, Case, Point, Report};

const SIZE: (u32, u32) = (900, 520);

impl Report {
    /// Draws the cases that were measured with several numbers of flows.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn plot(&self, path: &Path) -> Result<(), BenchError> {
        let root = SVGBackend::new(path, SIZE).into_drawing_area();
        self.draw(&root)
            .map_err(|error| BenchError::Plot { path: path.display().to_string(), reason: error.to_string() })
    }

    fn draw<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, plotters::coord::Shift>,
    ) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
        area.fill(&WHITE)?;
        let highest = self.figures.iter().map(|figure| figure.ns).fold(10.0, f64::max);
        let mut chart = ChartBuilder::on(area)
            .caption(
                "Weir: ns a packet, net of the wrapper (thin: 1 M joined subflows in the table)",
                ("sans-serif", 18),
            )
            .margin(16)
            .x_label_area_size(44)
            .y_label_area_size(60)
            .build_cartesian_2d((1_f64..2e7).log_scale(), 0.0..highest * 1.1)?;
        chart.configure_mesh().x_desc("flows").y_desc("ns").x_label_formatter(&|flows| format!("{flows:.0}")).draw()?;
        for (index, case) in Case::ALL.into_iter().enumerate() {
            let color = Palette99::pick(index).to_rgba();
            chart
                .draw_series(LineSeries::new(self.line(case, Joined::None), color.stroke_width(2)).point_size(3))?
                .label(case.name())
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], color.stroke_width(2)));
            chart.draw_series(LineSeries::new(self.line(case, Joined::Others), color.mix(0.5).stroke_width(1)))?;
        }
        chart.configure_series_labels().background_style(WHITE).border_style(BLACK).draw()?;
        area.present()
    }

    /// The case's figures by flows.
    fn line(&self, case: Case, joined: Joined) -> Vec<(f64, f64)> {
        let of_case = self.figures.iter().filter(|figure| figure.point.case == case);
        let of_line = of_case.filter(|figure| Joined::of(figure.point) == joined);
        of_line.map(|figure| (f64::from(figure.point.flows), figure.ns)).collect()
    }
}

/// Whose subflows are in the table of joined flows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Joined {
    /// Nobody's, or only those that are measured.
    None,
    /// Others' too.
    Others,
}

impl Joined {
    fn of(point: Point) -> Self {
        if point.tracked == 0 || point.case == Case::AckTracked { Self::None } else { Self::Others }
    }
}
