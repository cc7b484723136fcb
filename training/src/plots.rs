//! The plots of a report, as SVG. Colours are told apart without red and green; values are written beside them.

use crate::analysis::calibration::Calibration;
use crate::analysis::errors::NOTHING;
use crate::checkpoint::Epoch;
use crate::report::{Report, columns};
use plotters::coord::Shift;
use plotters::prelude::*;
use std::collections::BTreeMap;

const SIZE: (u32, u32) = (720, 440);
const BLUE: RGBColor = RGBColor(0x1f, 0x6f, 0xb4);
const GREY: RGBColor = RGBColor(0xa8, 0xb4, 0xbe);
const ORANGE: RGBColor = RGBColor(0xe0, 0x7b, 0x1a);
const FONT: &str = "sans-serif";

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn<'a> = Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>;

/// Strict F1 of each type, the champion's beside it where there is one.
pub fn types(report: &Report) -> String {
    let strict = &report.metrics.strict;
    let mut rows: Vec<(&str, f64, Option<f64>)> = Vec::new();
    let champion = report.champion.as_ref().map(|champion| &champion.metrics.strict);
    rows.push(("micro", strict.micro.f1, champion.map(|scores| scores.micro.f1)));
    for (name, scores) in &strict.types {
        rows.push((name, scores.f1, champion.and_then(|champion| champion.types.get(name)).map(|scores| scores.f1)));
    }
    draw(|area| {
        let count = rows.len() as f64;
        let title = match &report.champion {
            Some(champion) => {
                format!("strict F1 by type: {} (blue), {} (grey)", report.model.version, champion.model.version)
            }
            None => "strict F1 by type".to_owned(),
        };
        let mut chart = ChartBuilder::on(area)
            .caption(title, (FONT, 18))
            .margin(16)
            .x_label_area_size(36)
            .y_label_area_size(48)
            .build_cartesian_2d(0.0..count, 0.0..100.0)?;
        let label = |x: &f64| match rows.get(x.floor() as usize) {
            // The ticks stand at the middle of each type's bars.
            Some((name, ..)) if (x.fract() - 0.5).abs() < 0.01 => (*name).to_owned(),
            _ => String::new(),
        };
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .disable_x_mesh()
            .x_labels(2 * rows.len() + 1)
            .x_label_formatter(&label)
            .y_desc("per cent")
            .label_style((FONT, 13))
            .draw()?;
        for (at, (_, new, old)) in rows.iter().enumerate() {
            let at = at as f64;
            let bars = [Some((at + 0.15, at + 0.5, *new, BLUE)), old.map(|old| (at + 0.5, at + 0.85, old, GREY))];
            for (left, right, value, colour) in bars.into_iter().flatten() {
                let value = 100.0 * value;
                chart.draw_series([Rectangle::new([(left, 0.0), (right, value)], colour.filled())])?;
                let above = (left + 0.02, (value + 5.0).min(99.5));
                chart.draw_series([Text::new(format!("{value:.1}"), above, (FONT, 12))])?;
            }
        }
        Ok(())
    })
}

/// Gold types against predicted ones; a cell's shade is its share of the row.
pub fn confusion(confusion: &BTreeMap<String, BTreeMap<String, u64>>) -> String {
    let names = columns(confusion);
    draw(|area| {
        let count = names.len() as f64;
        let mut chart = ChartBuilder::on(area)
            .caption("rows: what it is; columns: what it was taken for", (FONT, 18))
            .margin(16)
            .build_cartesian_2d(-1.2..count, -(count + 0.1)..0.6)?;
        for (row, gold) in names.iter().enumerate() {
            let y = -(row as f64);
            chart.draw_series([Text::new(shown(gold), (-1.15, y - 0.35), (FONT, 14))])?;
            chart.draw_series([Text::new(shown(gold), (row as f64 + 0.08, 0.4), (FONT, 14))])?;
            let counts: Vec<u64> = names
                .iter()
                .map(|predicted| confusion.get(*gold).and_then(|row| row.get(*predicted)).copied().unwrap_or(0))
                .collect();
            let total: u64 = counts.iter().sum::<u64>().max(1);
            for (column, count) in counts.into_iter().enumerate() {
                let (x, share) = (column as f64, count as f64 / total as f64);
                let cell = Rectangle::new([(x, y), (x + 1.0, y - 1.0)], BLUE.mix(share).filled());
                chart.draw_series([cell])?;
                chart.draw_series([Rectangle::new([(x, y), (x + 1.0, y - 1.0)], GREY.stroke_width(1))])?;
                if count > 0 {
                    let colour = if share > 0.5 { WHITE } else { BLACK };
                    let style = (FONT, 14).into_font().color(&colour);
                    chart.draw_series([Text::new(count.to_string(), (x + 0.3, y - 0.4), style)])?;
                }
            }
        }
        Ok(())
    })
}

fn shown(name: &str) -> String {
    if name == NOTHING { "(nothing)".to_owned() } else { name.to_owned() }
}

/// The share that is right against the mean score, bin by bin.
pub fn reliability(calibration: &Calibration) -> String {
    draw(|area| {
        let title = format!(
            "reliability of scores (expected calibration error {:.1} points)",
            100.0 * calibration.expected_error
        );
        let mut chart = ChartBuilder::on(area)
            .caption(title, (FONT, 18))
            .margin(16)
            .x_label_area_size(40)
            .y_label_area_size(48)
            .build_cartesian_2d(0.0..1.0, 0.0..1.05)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_desc("mean score")
            .y_desc("share correct")
            .label_style((FONT, 13))
            .draw()?;
        chart.draw_series([PathElement::new([(0.0, 0.0), (1.0, 1.0)], GREY.stroke_width(2))])?;
        let points = || {
            let bins = calibration.bins.iter().filter(|bin| bin.predictions > 0);
            bins.map(|bin| (bin.mean_score, bin.share_correct, bin.predictions))
        };
        chart.draw_series(LineSeries::new(points().map(|(x, y, _)| (x, y)), BLUE.stroke_width(2)))?;
        for (x, y, predictions) in points() {
            chart.draw_series([Circle::new((x, y), 4, BLUE.filled())])?;
            chart.draw_series([Text::new(predictions.to_string(), (x + 0.01, (y - 0.02).max(0.04)), (FONT, 12))])?;
        }
        Ok(())
    })
}

/// Each epoch's mean loss and development F1 at its last step.
pub fn training(epochs: &[Epoch]) -> String {
    draw(|area| {
        let steps = epochs.iter().map(|epoch| epoch.steps).max().unwrap_or(1) as f64;
        let highest = epochs.iter().map(|epoch| epoch.loss).fold(0.0, f64::max) * 1.1 + 1e-9;
        let mut chart = ChartBuilder::on(area)
            .caption("development F1 (blue, left), loss (orange, right)", (FONT, 18))
            .margin(16)
            .x_label_area_size(40)
            .y_label_area_size(48)
            .right_y_label_area_size(52)
            .build_cartesian_2d(0.0..steps * 1.03, 0.0..100.0)?
            .set_secondary_coord(0.0..steps * 1.03, 0.0..highest);
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_desc("step")
            .y_desc("per cent")
            .label_style((FONT, 13))
            .draw()?;
        chart.configure_secondary_axes().y_desc("loss a word").label_style((FONT, 13)).draw()?;
        let scores = || epochs.iter().map(|epoch| (epoch.steps as f64, 100.0 * epoch.dev.micro.f1));
        let losses = || epochs.iter().map(|epoch| (epoch.steps as f64, epoch.loss));
        chart.draw_series(LineSeries::new(scores(), BLUE.stroke_width(2)))?;
        chart.draw_series(scores().map(|point| Circle::new(point, 3, BLUE.filled())))?;
        chart.draw_secondary_series(LineSeries::new(losses(), ORANGE.stroke_width(2)))?;
        chart.draw_secondary_series(losses().map(|point| Circle::new(point, 3, ORANGE.filled())))?;
        Ok(())
    })
}

fn draw(plot: impl for<'a> FnOnce(&Area<'a>) -> Drawn<'a>) -> String {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE).and_then(|()| plot(&area)).and_then(|()| area.present()).expect("a string takes any drawing");
    }
    svg
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::testing::passage;
    use crate::analysis::{Metrics, Outcome, Training};
    use litflow::tagger::ModelRef;

    #[test]
    fn plots_are_svg_with_every_type_and_survive_emptiness_and_hostile_names() {
        let types = ["Gene".to_owned(), "<script>&".to_owned()];
        let passages = vec![passage(10, &[(0, 2, 0), (4, 5, 1)], &[(0, 2, 0, 0.9), (4, 6, 0, 0.6)])];
        for outcomes in [vec![], vec![Outcome { id: "1".into(), passages }]] {
            let metrics = Metrics::of(&outcomes, &types, &Training::default());
            let model = ModelRef { name: "m".into(), version: "1.0.0".into(), digest: String::new() };
            let report = Report { model, documents: outcomes.len(), metrics, champion: None };
            let plots = [
                super::types(&report),
                confusion(&report.metrics.errors.confusion),
                reliability(&report.metrics.calibration),
                training(&[]),
            ];
            for (at, svg) in plots.iter().enumerate() {
                assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>") && !svg.contains("NaN"), "{at}");
                assert!(!svg.contains("<script"), "{at}");
            }
            assert_eq!(plots[1].contains("Gene"), !outcomes.is_empty());
        }
    }
}
