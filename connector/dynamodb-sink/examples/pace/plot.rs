//! A plot of a run as SVG.

use std::fmt::Write as _;

use crate::drive::{Course, Second};
use crate::runs::Run;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 64.0;
const TOP: f64 = 40.0;
const RIGHT: f64 = 16.0;
const BOTTOM: f64 = 44.0;

/// Seconds that are averaged to one point.
const POINT: usize = 5;

/// Offered, consumed and throttled units and the limit over time.
pub fn svg(run: &Run, course: &Course) -> String {
    let series: [(&str, &str, Vec<f64>); 4] = [
        ("offered", "#8a8a8a", points(course, |s| s.offered)),
        ("consumed", "#1f6fb4", points(course, |s| s.consumed)),
        ("throttled", "#c8372d", points(course, |s| s.throttled)),
        ("limit", "#222222", limit(course)),
    ];
    let highest = series.iter().flat_map(|(_, _, points)| points);
    let top = round_up(highest.copied().fold(1.0, f64::max));
    let (wide, high) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
    let x = |second: f64| LEFT + wide * second / run.seconds as f64;
    let y = |units: f64| TOP + high * (1.0 - units / top);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n"
    );
    for step in 0..=4 {
        let units = top * f64::from(step) / 4.0;
        line(&mut svg, [x(0.0), y(units), WIDTH - RIGHT, y(units)]);
        text(
            &mut svg,
            [LEFT - 6.0, y(units) + 4.0],
            "end",
            &format!("{units:.0}"),
        );
    }
    for step in 0..=6 {
        let second = run.seconds as f64 * f64::from(step) / 6.0;
        let label = format!("{second:.0} s");
        text(
            &mut svg,
            [x(second), HEIGHT - BOTTOM + 18.0],
            "middle",
            &label,
        );
    }
    for (number, (name, colour, values)) in series.iter().enumerate() {
        let dash = if *name == "limit" {
            " stroke-dasharray=\"5 4\""
        } else {
            ""
        };
        let _ = write!(
            svg,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\"{dash} points=\""
        );
        for (at, units) in values.iter().enumerate() {
            let second = (at * POINT) as f64 + POINT as f64 / 2.0;
            let _ = write!(svg, "{:.1},{:.1} ", x(second), y(*units));
        }
        svg.push_str("\"/>\n");
        let from = LEFT + 120.0 * number as f64;
        let _ = writeln!(
            svg,
            "<path d=\"M{from} 18h22\" stroke=\"{colour}\" stroke-width=\"3\"{dash}/>"
        );
        text(&mut svg, [from + 28.0, 22.0], "start", name);
    }
    let note = format!(
        "{:.2}% of {} requests throttled",
        100.0 * course.throttled(),
        course.requests()
    );
    text(&mut svg, [WIDTH - RIGHT, 22.0], "end", &note);
    text(
        &mut svg,
        [LEFT, HEIGHT - 8.0],
        "start",
        "write units a second, averages of 5 s",
    );
    svg.push_str("</svg>\n");
    svg
}

fn points(course: &Course, of: impl Fn(&Second) -> f64) -> Vec<f64> {
    let averages = course.seconds.chunks(POINT);
    averages
        .map(|chunk| chunk.iter().map(&of).sum::<f64>() / chunk.len() as f64)
        .collect()
}

fn limit(course: &Course) -> Vec<f64> {
    course.limits.chunks(POINT).map(|chunk| chunk[0]).collect()
}

/// A round number that is not below.
fn round_up(value: f64) -> f64 {
    let power = 10.0_f64.powf(value.log10().floor());
    let steps = [1.0, 1.6, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0];
    let step = steps.into_iter().find(|step| step * power >= value);
    step.unwrap_or(10.0) * power
}

fn line(svg: &mut String, [x1, y1, x2, y2]: [f64; 4]) {
    let _ = writeln!(
        svg,
        "<path d=\"M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}\" stroke=\"#e2e2e2\"/>"
    );
}

fn text(svg: &mut String, [x, y]: [f64; 2], anchor: &str, text: &str) {
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
    );
}
