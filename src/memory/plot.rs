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
const ROOM: f64 = 64.0;
/// Colours.
const TEXT: &str = "#24292f";
const FAINT: &str = "#8c959f";
const GRID: &str = "#eaeef2";
const CURVE: &str = "#1f6feb";
const GOOD: &str = "#2da44e";
const BAD: &str = "#cf222e";

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
         viewBox=\"0 0 {width} {height}\" font-family=\"system-ui, sans-serif\" font-size=\"12\" fill=\"{TEXT}\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    learned(&mut svg, &curve(rewards));
    worth(&mut svg, values);
    svg.push_str("</svg>\n");
    svg
}

fn learned(svg: &mut String, curve: &[f64]) {
    let now =
        curve.last().map_or("none was judged yet".to_owned(), |now| format!("now {:.0} %", 100.0 * now));
    let frame = Frame { left: ROOM };
    frame.title(svg, "Turns that went well", &format!("mean of the last {WINDOW}; {now}"));
    for quarter in 0..=4 {
        let part = f64::from(quarter) / 4.0;
        frame.level(svg, part, &format!("{} %", quarter * 25));
    }
    let last = curve.len().max(2) - 1;
    let x = |place: usize| place as f64 / last as f64;
    for quarter in 0..=4 {
        let place = last * quarter / 4;
        frame.mark(svg, x(place), &(place + 1).to_string());
    }
    let points = |from: usize, to: usize| {
        let points = (from..to).map(|place| frame.point(x(place), curve[place]));
        points.collect::<Vec<_>>().join(" ")
    };
    // The mean of a few turns jumps, and says little.
    let sure = WINDOW.min(curve.len().saturating_sub(1));
    for (from, to, colour, wide) in [(0, sure + 1, FAINT, 1.5), (sure, curve.len(), CURVE, 2.5)] {
        if from < to.min(curve.len()) {
            let points = points(from, to.min(curve.len()));
            line(
                svg,
                format_args!(
                    "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{wide}\" \
                     stroke-linejoin=\"round\"/>"
                ),
            );
        }
    }
}

fn worth(svg: &mut String, values: &[f64]) {
    let bars = distribution(values);
    let (good, bad) = (
        values.iter().filter(|value| **value > 0.0).count(),
        values.iter().filter(|value| **value < 0.0).count(),
    );
    let frame = Frame { left: WIDTH + 3.0 * ROOM };
    let told = format!("{good} have helped, {bad} have not; 0 is unknown");
    frame.title(svg, &format!("Values of {} memories", values.len()), &told);
    let step = (bars.iter().copied().max().unwrap_or_default()).div_ceil(4).max(1);
    for level in 0..=4 {
        frame.level(svg, level as f64 / 4.0, &(level * step).to_string());
    }
    for (place, name) in ["−1", "−0.5", "0", "0.5", "1"].iter().enumerate() {
        frame.mark(svg, place as f64 / 4.0, name);
    }
    let unknown = values.len() - good - bad;
    for (place, count) in bars.into_iter().enumerate() {
        // What nobody has judged is neither.
        let unknown = if place == BARS / 2 { unknown } else { 0 };
        let colour = if place < BARS / 2 { BAD } else { GOOD };
        frame.bar(svg, place, [0, unknown], 4 * step, FAINT);
        frame.bar(svg, place, [unknown, count], 4 * step, colour);
    }
}

/// One of the two drawings: where it begins.
struct Frame {
    left: f64,
}

impl Frame {
    /// What it shows, and what there is to say of it.
    fn title(&self, svg: &mut String, title: &str, told: &str) {
        let (left, top) = (self.left, ROOM - 34.0);
        line(
            svg,
            format_args!(
                "<text x=\"{left}\" y=\"{top}\" font-size=\"15\" font-weight=\"600\">{title}</text>"
            ),
        );
        line(svg, format_args!("<text x=\"{left}\" y=\"{}\" fill=\"{FAINT}\">{told}</text>", top + 18.0));
    }

    /// A line across, at a part of the height, with its name.
    fn level(&self, svg: &mut String, part: f64, name: &str) {
        let (left, y) = (self.left, ROOM + HEIGHT * (1.0 - part));
        let colour = if part == 0.0 { TEXT } else { GRID };
        line(svg, format_args!("<path d=\"M{left} {y}h{WIDTH}\" stroke=\"{colour}\"/>"));
        line(
            svg,
            format_args!("<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{name}</text>", left - 8.0, y + 4.0),
        );
    }

    /// A name under a part of the width.
    fn mark(&self, svg: &mut String, part: f64, name: &str) {
        let (x, y) = (self.left + WIDTH * part, ROOM + HEIGHT);
        line(svg, format_args!("<path d=\"M{x:.1} {y}v4\" stroke=\"{TEXT}\"/>"));
        line(svg, format_args!("<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{name}</text>", y + 18.0));
    }

    /// A part of a bar, from one count to another of `most`.
    fn bar(&self, svg: &mut String, place: usize, [from, to]: [usize; 2], most: usize, colour: &str) {
        if from == to {
            return;
        }
        let (wide, high) = (WIDTH / BARS as f64, |count: usize| HEIGHT * count as f64 / most as f64);
        let (x, y) = (self.left + place as f64 * wide + 1.0, ROOM + HEIGHT - high(to));
        let (wide, high) = (wide - 2.0, high(to) - high(from));
        line(
            svg,
            format_args!(
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{wide:.1}\" height=\"{high:.1}\" fill=\"{colour}\"/>"
            ),
        );
    }

    fn point(&self, x: f64, y: f64) -> String {
        format!("{:.1},{:.1}", self.left + WIDTH * x, ROOM + HEIGHT * (1.0 - y))
    }
}

fn line(svg: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(svg, "{text}").expect("a text takes all that is written");
}
