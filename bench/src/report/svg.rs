//! Charts of bars, as SVG.

use std::fmt::Write;

/// A bar.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// Which series it belongs to: its colour.
    pub series: usize,
    /// How long it is.
    pub value: f64,
    /// The lowest and the highest value behind it.
    pub spread: (f64, f64),
}

/// A chart of horizontal bars in groups.
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    /// What it shows, with its unit.
    pub title: String,
    /// The names of the series.
    pub series: Vec<String>,
    /// The groups, from top to bottom, each with its name.
    pub groups: Vec<(String, Vec<Bar>)>,
}

const COLOURS: [&str; 6] = ["#1f6feb", "#8957e5", "#d97706", "#6b7280", "#0d9488", "#be123c"];
const WIDTH: f64 = 900.0;
const LEFT: f64 = 150.0;
const RIGHT: f64 = 60.0;
const TOP: f64 = 60.0;
const BAR: f64 = 14.0;
const GAP: f64 = 10.0;

impl Chart {
    /// The chart as an SVG document. It brings its own background, so that it can be read on any page.
    pub fn to_svg(&self) -> String {
        let bars: usize = self.groups.iter().map(|(_, bars)| bars.len()).sum();
        let height = TOP + BAR * bars as f64 + GAP * self.groups.len() as f64 + 30.0;
        let highest = self.groups.iter().flat_map(|(_, bars)| bars).map(|bar| bar.value.max(bar.spread.1)).fold(0.0, f64::max);
        let step = nice_step(highest);
        let scale = (WIDTH - LEFT - RIGHT) / highest.max(step);
        let x = |value: f64| LEFT + value * scale;

        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
        );
        let mut line = |text: String| {
            svg.push_str(&text);
            svg.push('\n');
        };
        line(format!("<text x=\"10\" y=\"20\" font-size=\"14\" font-weight=\"bold\">{}</text>", escaped(&self.title)));
        for (index, name) in self.series.iter().enumerate() {
            let at = 10.0 + 150.0 * index as f64;
            line(format!("<rect x=\"{at}\" y=\"30\" width=\"10\" height=\"10\" fill=\"{}\"/>", colour(index)));
            line(format!("<text x=\"{}\" y=\"39\">{}</text>", at + 15.0, escaped(name)));
        }
        for tick in (0..).map(|n| f64::from(n) * step).take_while(|&tick| tick <= highest) {
            let (x, bottom) = (x(tick), height - 25.0);
            line(format!("<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\" stroke=\"#e5e7eb\"/>"));
            line(format!("<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>", bottom + 14.0, number(tick)));
        }
        let mut y = TOP;
        for (name, bars) in &self.groups {
            let middle = y + BAR * bars.len() as f64 / 2.0 + 4.0;
            line(format!("<text x=\"{}\" y=\"{middle:.1}\" text-anchor=\"end\">{}</text>", LEFT - 8.0, escaped(name)));
            for bar in bars {
                let (low, high, middle) = (x(bar.spread.0), x(bar.spread.1), y + BAR / 2.0);
                let (width, thick) = (x(bar.value) - LEFT, BAR - 2.0);
                line(format!("<rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{thick}\" fill=\"{}\"/>", colour(bar.series)));
                line(format!("<line x1=\"{low:.1}\" x2=\"{high:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\" stroke=\"black\"/>"));
                line(format!("<text x=\"{:.1}\" y=\"{:.1}\">{}</text>", x(bar.value).max(high) + 4.0, y + 10.0, number(bar.value)));
                y += BAR;
            }
            y += GAP;
        }
        svg.push_str("</svg>\n");
        svg
    }
}

fn colour(series: usize) -> &'static str {
    COLOURS[series % COLOURS.len()]
}

/// A distance between lines such as 0.2, 0.5 or 1, so that there are some five to ten up to `highest`.
fn nice_step(highest: f64) -> f64 {
    let magnitude = 10f64.powf((highest.max(1e-9) / 10.0).log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|n| n * magnitude).into_iter().find(|step| highest / step <= 10.0).unwrap_or(magnitude)
}

/// A number with three digits that matter.
pub fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 || v == 0.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn escaped(text: &str) -> String {
    text.chars().fold(String::new(), |mut escaped, c| {
        match c {
            '&' | '<' | '>' | '"' => write!(escaped, "&#{};", c as u32).expect("a string takes all"),
            c => escaped.push(c),
        }
        escaped
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round() {
        assert_eq!(nice_step(12.3), 2.0);
        assert_eq!(nice_step(0.83), 0.1);
        assert_eq!(nice_step(450.0), 50.0);
        assert_eq!(nice_step(10.0), 1.0);
    }

    #[test]
    fn bars_are_as_long_as_their_values() {
        let bars = vec![Bar { series: 0, value: 10.0, spread: (9.0, 10.0) }, Bar { series: 1, value: 5.0, spread: (4.0, 6.0) }];
        let chart = Chart { title: "a < b".into(), series: vec!["one".into(), "two".into()], groups: vec![("case".into(), bars)] };
        let svg = chart.to_svg();
        let full = WIDTH - LEFT - RIGHT;
        assert!(svg.contains(&format!("width=\"{full:.1}\" height=\"12\" fill=\"{}\"", COLOURS[0])), "{svg}");
        assert!(svg.contains(&format!("width=\"{:.1}\" height=\"12\" fill=\"{}\"", full / 2.0, COLOURS[1])));
        assert!(svg.contains("a &#60; b"));
        assert_eq!(svg.matches("<rect").count(), 1 + 2 + 2);
    }

    #[test]
    fn a_chart_of_nothing_is_a_chart() {
        assert!(Chart { title: String::new(), series: Vec::new(), groups: Vec::new() }.to_svg().ends_with("</svg>\n"));
    }

    #[test]
    fn numbers_have_three_digits() {
        assert_eq!([0.0, 0.1234, 1.234, 12.34, 123.4].map(number), ["0", "0.123", "1.23", "12.3", "123"]);
    }
}
