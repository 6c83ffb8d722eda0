//! The memory as a picture (pure): how turns went as time passed, and what episodes are worth.

use std::fmt::Write as _;

use super::value::Reward;

/// Turns that one point of the curve is the mean of.
const WINDOW: usize = 20;
/// Bars of the distribution.
const BARS: usize = 20;
/// The size of one of the two drawings, and the room around it.
const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 240.0;
const ROOM: f64 = 48.0;

/// The part of turns that went well, each point over the last `WINDOW` that were judged.
pub fn curve(rewards: &[Reward]) -> Vec<f64> {
    let went_well: Vec<f64> =
        rewards.iter().map(|reward| if reward.amount > 0.0 { 1.0 } else { 0.0 }).collect();
    let last = |end: usize| &went_well[end.saturating_sub(WINDOW)..end];
    (1..=went_well.len()).map(last).map(|last| last.iter().sum::<f64>() / last.len() as f64).collect()
}

/// How many values are in each bar from −1 to 1.
pub fn distribution(values: &[f64]) -> [usize; BARS] {
    let mut bars = [0; BARS];
    for value in values {
        let bar = ((value.clamp(-1.0, 1.0) + 1.0) / 2.0 * BARS as f64) as usize;
        bars[bar.min(BARS - 1)] += 1;
    }
    bars
}

/// Both, side by side, as SVG.
pub fn svg(rewards: &[Reward], values: &[f64]) -> String {
    let (width, height) = (2.0 * (WIDTH + 2.0 * ROOM), HEIGHT + 2.0 * ROOM);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    learned(&mut svg, &curve(rewards));
    worth(&mut svg, &distribution(values), values.len());
    svg.push_str("</svg>\n");
    svg
}

fn learned(svg: &mut String, curve: &[f64]) {
    let title = format!("turns that went well, mean of {WINDOW}");
    let count = curve.len().to_string();
    frame(svg, ROOM, &title, ["1", &count], ["0 %", "100 %"]);
    let step = WIDTH / (curve.len().max(2) - 1) as f64;
    let points = curve.iter().enumerate().map(|(place, part)| {
        format!("{:.1},{:.1}", ROOM + place as f64 * step, ROOM + HEIGHT * (1.0 - part))
    });
    let points = points.collect::<Vec<_>>().join(" ");
    line(
        svg,
        format_args!("<polyline points=\"{points}\" fill=\"none\" stroke=\"#1f6feb\" stroke-width=\"2\"/>"),
    );
}

fn worth(svg: &mut String, bars: &[usize; BARS], count: usize) {
    let left = WIDTH + 3.0 * ROOM;
    let highest = bars.iter().copied().max().unwrap_or_default().max(1);
    let (title, most) = (format!("values of {count} memories"), highest.to_string());
    frame(svg, left, &title, ["−1", "1"], ["0", &most]);
    let wide = WIDTH / BARS as f64;
    for (place, count) in bars.iter().enumerate().filter(|(_, count)| **count > 0) {
        let high = HEIGHT * *count as f64 / highest as f64;
        let colour = if place < BARS / 2 { "#cf222e" } else { "#2da44e" };
        line(
            svg,
            format_args!(
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{high:.1}\" fill=\"{colour}\"/>",
                left + place as f64 * wide + 1.0,
                ROOM + HEIGHT - high,
                wide - 2.0,
            ),
        );
    }
}

/// Axes with the names of their ends.
fn frame(svg: &mut String, left: f64, title: &str, x: [&str; 2], y: [&str; 2]) {
    let (right, bottom) = (left + WIDTH, ROOM + HEIGHT);
    line(svg, format_args!("<text x=\"{left}\" y=\"{}\" font-size=\"14\">{title}</text>", ROOM - 16.0));
    line(svg, format_args!("<path d=\"M{left} {ROOM}V{bottom}H{right}\" fill=\"none\" stroke=\"#57606a\"/>"));
    let mut name = |x: f64, y: f64, anchor: &str, text: &str| {
        line(svg, format_args!("<text x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\">{text}</text>"));
    };
    name(left, bottom + 18.0, "start", x[0]);
    name(right, bottom + 18.0, "end", x[1]);
    name(left - 6.0, bottom, "end", y[0]);
    name(left - 6.0, ROOM + 10.0, "end", y[1]);
}

fn line(svg: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(svg, "{text}").expect("a text takes all that is written");
}
