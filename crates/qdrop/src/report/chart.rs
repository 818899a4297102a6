//! Charts of a page: lines, histograms, points with error bars, as SVG inside the page.
//!
//! There are few, fixed colours; the page's style (`page::STYLE`) maps each of them to a colour of the theme, so that a
//! chart is legible on a light and on a dark background.

use maud::{Markup, PreEscaped, html};
use plotters::coord::Shift;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::prelude::*;
use plotters::style::Color as _;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::ops::Range;

/// Units of the drawing per pixel of the page: drawings have whole coordinates, and lines shall be smooth.
const FINE: u32 = 2;
/// Height of text, in pixels of the page.
const TEXT: f64 = 11.0;
/// Least width on a narrow page, in percent of the drawing's: below it text is too small to be read, and the drawing is
/// scrolled instead.
const LEAST: u32 = 60;
/// Width of a character of a label as a share of its height, about.
const CHARACTER: f64 = 0.56;
/// Numbers as large as this are not shown, nor are infinities and NaN.
const MOST: f64 = 1e100;
/// Share of a number by which rounding may have moved it.
const SLACK: f64 = 1e-9;
/// Colours of axes' text and of the lines behind the data.
const INK: (&str, RGBColor) = ("ink", RGBColor(0x5B, 0x61, 0x6B));
const MESH: (&str, RGBColor) = ("mesh", RGBColor(0xDF, 0xE2, 0xE7));

/// Colours of data. Their names in the page's style are `one`, `two`, ...
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Color {
    /// Blue.
    One,
    /// Orange.
    Two,
    /// Green.
    Three,
    /// Purple.
    Four,
    /// Grey, for data that is shown for comparison only.
    Quiet,
}

impl Color {
    /// All of them.
    pub const ALL: [Color; 5] = [Color::One, Color::Two, Color::Three, Color::Four, Color::Quiet];

    /// Its name in the page's style.
    pub fn name(self) -> &'static str {
        ["one", "two", "three", "four", "quiet"][self as usize]
    }

    fn rgb(self) -> RGBColor {
        [
            RGBColor(0x1F, 0x6F, 0xB5),
            RGBColor(0xC8, 0x55, 0x1B),
            RGBColor(0x2A, 0x85, 0x53),
            RGBColor(0x85, 0x4A, 0xBC),
            RGBColor(0x8B, 0x92, 0x9C),
        ][self as usize]
    }
}

/// Rules that give every colour of charts the page's colour of the same name.
pub(super) fn style() -> String {
    let data = Color::ALL.map(|c| (c.name(), c.rgb()));
    let rule = |(name, RGBColor(r, g, b)): &(&str, RGBColor)| {
        let hex = format!("#{r:02X}{g:02X}{b:02X}");
        format!("svg [stroke=\"{hex}\"]{{stroke:var(--{name})}}svg [fill=\"{hex}\"]{{fill:var(--{name})}}")
    };
    data.iter().chain(&[INK, MESH]).map(rule).collect()
}

/// An axis of a chart.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    /// Its label, with the unit.
    pub name: String,
    /// Whether it is logarithmic; values that are not above 0 are then left out.
    pub log: bool,
    /// Its ends; by default those of the data.
    pub ends: Option<(f64, f64)>,
}

impl Axis {
    /// A linear axis.
    pub fn linear(name: impl Into<String>) -> Self {
        Axis { name: name.into(), log: false, ends: None }
    }

    /// A logarithmic axis.
    pub fn log(name: impl Into<String>) -> Self {
        Axis { name: name.into(), log: true, ends: None }
    }

    /// Sets the ends to `low` and `high`, independent of the data.
    pub fn from_to(self, low: f64, high: f64) -> Self {
        Axis { ends: Some((low, high)), ..self }
    }

    /// The scale that shows `values`; `room` is the share of their width that is added at both ends.
    fn scale(&self, values: impl Iterator<Item = f64>, room: f64) -> Scale {
        let along = |v: f64| if self.log { v.ln() } else { v };
        let (low, high) = match self.ends {
            Some((low, high)) => (along(low), along(high)),
            None => {
                let finite = values.filter(|v| v.abs() < MOST).map(along).filter(|v| v.is_finite());
                let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
                let room = (high - low) * room;
                (low - room, high + room)
            }
        };
        let (low, high) = match (low.is_finite() && high.is_finite(), low < high) {
            // What lies closer than floats can tell apart is one value.
            (true, true) if high - low > SLACK * high.abs().max(low.abs()) => (low, high),
            (true, _) => (low - low.abs().max(1.0) * 0.1, low + low.abs().max(1.0) * 0.1),
            _ => (0.0, 1.0),
        };
        Scale { log: self.log, along: (low, high) }
    }
}

/// Where a value lies on an axis.
#[derive(Debug, Clone)]
struct Scale {
    log: bool,
    /// Ends; of their logarithms where equal steps are equal factors.
    along: (f64, f64),
}

impl Scale {
    fn ends(&self) -> (f64, f64) {
        let value = |v: f64| if self.log { v.exp() } else { v };
        (value(self.along.0), value(self.along.1))
    }

    fn shows(&self, v: f64) -> bool {
        v.abs() < MOST && (!self.log || v > 0.0)
    }

    /// At most `most` values to write at the axis.
    fn ticks(&self, most: usize) -> Vec<f64> {
        let (low, high) = self.ends();
        if self.log {
            let decades = (low.log10().floor() as i32)..=(high.log10().ceil() as i32);
            let within = |digits: &[f64], step: usize| -> Vec<f64> {
                let powers = decades.clone().step_by(step);
                let all = powers.flat_map(|p| digits.iter().map(move |d| d * 10f64.powi(p)));
                all.filter(|v| (low * (1.0 - SLACK)..=high * (1.0 + SLACK)).contains(v)).collect()
            };
            let sparse = (2..).map(|step| within(&[1.0], step)).take(10);
            let mut dense = vec![within(&[1.0, 2.0, 5.0], 1), within(&[1.0, 3.0], 1), within(&[1.0], 1)];
            dense.extend(sparse);
            if let Some(ticks) = dense.into_iter().find(|t| t.len() <= most)
                && ticks.len() > 1
            {
                return ticks;
            }
        }
        // The least step of 1, 2 or 5 times a power of ten that does not give too many.
        let power = 10f64.powf(((high - low) / most.max(1) as f64).log10().floor());
        let multiples = |step: f64| (low / step - SLACK).ceil() as i64..=(high / step + SLACK).floor() as i64;
        let steps = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0].map(|digit| digit * power);
        let fits = |step: &f64| multiples(*step).count() <= most;
        steps.into_iter().find(fits).map_or(Vec::new(), |step| multiples(step).map(|k| k as f64 * step).collect())
    }
}

impl Ranged for Scale {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        let value = if self.log { value.ln() } else { *value };
        let share = (value - self.along.0) / (self.along.1 - self.along.0);
        // Far outside is as good as outside; a cast saturates, the sum must not overflow.
        from + (f64::from(to - from) * share.clamp(-10.0, 10.0)).round() as i32
    }

    fn key_points<H: KeyPointHint>(&self, hint: H) -> Vec<f64> {
        // Lines without a label would only be in the way.
        if hint.weight().allow_light_points() { Vec::new() } else { self.ticks(hint.max_num_points()) }
    }

    fn range(&self) -> Range<f64> {
        let (low, high) = self.ends();
        low..high
    }
}

impl ValueFormatter<f64> for Scale {
    fn format(value: &f64) -> String {
        tick(*value)
    }
}

/// A number at an axis: as short as it can be said.
fn tick(value: f64) -> String {
    let size = value.abs();
    if value != 0.0 && !(1e-3..1e6).contains(&size) {
        let short: f64 = format!("{value:.2e}").parse().unwrap_or(value);
        return format!("{short:e}");
    }
    if size >= 1e4 {
        return format!("{}k", (value / 100.0).round() / 10.0);
    }
    format!("{}", (value * 1e6).round() / 1e6)
}

/// A point of a scatter chart.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Its position on the x axis.
    pub x: f64,
    /// Its position on the y axis.
    pub y: f64,
    /// The ends of its error bar.
    pub range: Option<(f64, f64)>,
    /// Its label; may be empty.
    pub label: String,
}

#[derive(Debug, Clone)]
enum Mark {
    Line(Vec<(f64, f64)>),
    /// Left end of the first bin, width of each, heights.
    Histogram(f64, f64, Vec<f64>),
    Points(Vec<Point>),
    /// Places on the x axis.
    Rules(Vec<f64>),
}

/// A chart that is built from lines, histograms, points and rules.
///
/// ```
/// use qdrop::report::chart::{Axis, Chart, Color};
///
/// let chart = Chart::new("Loss", Axis::linear("iteration"), Axis::log("loss"))
///     .line("reconstruction", Color::One, [(1.0, 0.5), (2.0, 0.25)]);
/// assert!(chart.draw().into_string().contains("<svg"));
/// ```
#[derive(Debug, Clone)]
pub struct Chart {
    title: String,
    x: Axis,
    y: Axis,
    size: (u32, u32),
    marks: Vec<(String, Color, Mark)>,
}

impl Chart {
    /// An empty chart with a title and axes.
    pub fn new(title: impl Into<String>, x: Axis, y: Axis) -> Self {
        Chart { title: title.into(), x, y, size: (340, 190), marks: Vec::new() }
    }

    /// Sets the size in pixels, which applies if the page is wide enough.
    pub fn size(self, width: u32, height: u32) -> Self {
        Chart { size: (width.max(80), height.max(20)), ..self }
    }

    /// Adds a line through `points`. `name` appears in the legend unless it is empty, as for the methods below.
    pub fn line(self, name: &str, color: Color, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        self.mark(name, color, Mark::Line(points.into_iter().collect()))
    }

    /// Adds a histogram with bins of equal width from `low` to `high` and the given heights.
    pub fn histogram(self, name: &str, color: Color, (low, high): (f64, f64), heights: Vec<f64>) -> Self {
        let width = (high - low) / heights.len().max(1) as f64;
        self.mark(name, color, Mark::Histogram(low, width, heights))
    }

    /// Adds points with error bars and labels.
    pub fn points(self, name: &str, color: Color, points: Vec<Point>) -> Self {
        self.mark(name, color, Mark::Points(points))
    }

    /// Adds vertical lines at the positions `at` of the x axis, as high as the chart.
    pub fn rules(self, name: &str, color: Color, at: impl IntoIterator<Item = f64>) -> Self {
        self.mark(name, color, Mark::Rules(at.into_iter().collect()))
    }

    fn mark(mut self, name: &str, color: Color, mark: Mark) -> Self {
        self.marks.push((name.into(), color, mark));
        self
    }

    /// Draws the chart with its title and legend.
    pub fn draw(&self) -> Markup {
        let legend = || self.marks.iter().filter(|m| !m.0.is_empty());
        html! {
            figure {
                @if !self.title.is_empty() || legend().count() > 0 {
                    figcaption {
                        span class="title" { (self.title) }
                        @for (name, color, _) in legend() { " " span class={ "key " (color.name()) } { (name) } }
                    }
                }
                (svg(self.size, &self.title, |root| self.content(root)))
            }
        }
    }

    fn content(&self, root: &Area) -> Drawn {
        let (x, y) = self.scales();
        let label = font(TEXT).color(&INK.1);
        let (left, bottom) = (FINE * 48, FINE * 36);
        let mut builder = ChartBuilder::on(root);
        builder.margin_top(FINE * 6).margin_right(FINE * 10).x_label_area_size(bottom).y_label_area_size(left);
        let mut chart = builder.build_cartesian_2d(x.clone(), y.clone())?;
        let (width, height) = self.size;
        let mut mesh = chart.configure_mesh();
        mesh.axis_style(MESH.1.stroke_width(FINE)).bold_line_style(MESH.1.stroke_width(FINE)).max_light_lines(0);
        mesh.label_style(label.clone()).axis_desc_style(label.clone()).x_desc(&self.x.name).y_desc(&self.y.name);
        mesh.x_labels((width / 60) as usize).y_labels((height / 32).max(2) as usize);
        mesh.set_all_tick_mark_size(FINE * 3).draw()?;
        let shown = |points: &[(f64, f64)]| -> Vec<(f64, f64)> {
            points.iter().copied().filter(|p| x.shows(p.0) && y.shows(p.1)).collect()
        };
        let mut labels = Labels::new(self.size);
        for (_, color, mark) in &self.marks {
            let rgb = color.rgb();
            let thin = rgb.stroke_width(FINE * 3 / 2);
            match mark {
                Mark::Line(points) => {
                    chart.draw_series([PathElement::new(shown(points), thin)])?;
                }
                Mark::Histogram(low, width, heights) => {
                    // Nothing lies at 0 of a logarithmic axis; bins stand on its lower end.
                    let floor = if self.y.log { y.ends().0 } else { 0.0 };
                    let outline = shown(&steps(*low, *width, heights, floor));
                    chart.draw_series([Polygon::new(outline, rgb.mix(0.6))])?;
                }
                Mark::Rules(at) => {
                    let (low, high) = y.ends();
                    let rule = |&v: &f64| PathElement::new(vec![(v, low), (v, high)], rgb.stroke_width(FINE));
                    chart.draw_series(at.iter().filter(|v| x.shows(**v)).map(rule))?;
                }
                Mark::Points(points) => {
                    for p in points.iter().filter(|p| x.shows(p.x) && y.shows(p.y)) {
                        if let Some((low, high)) = p.range.filter(|r| y.shows(r.0) && y.shows(r.1)) {
                            chart.draw_series([ErrorBar::new_vertical(p.x, low, p.y, high, thin, FINE * 8)])?;
                        }
                        chart.draw_series([Circle::new((p.x, p.y), FINE * 4, rgb.filled())])?;
                        labels.add(&p.label, chart.backend_coord(&(p.x, p.y)));
                    }
                }
            }
        }
        labels.draw(root)
    }

    fn scales(&self) -> (Scale, Scale) {
        let (mut xs, mut ys, mut floor) = (Vec::new(), Vec::new(), false);
        for (_, _, mark) in &self.marks {
            match mark {
                Mark::Line(points) => {
                    xs.extend(points.iter().map(|p| p.0));
                    ys.extend(points.iter().map(|p| p.1));
                }
                Mark::Histogram(low, width, heights) => {
                    xs.extend([*low, low + width * heights.len() as f64]);
                    ys.extend(heights);
                    floor = true;
                }
                Mark::Points(points) => {
                    xs.extend(points.iter().map(|p| p.x));
                    ys.extend(points.iter().flat_map(|p| p.range.map_or([p.y; 2], |r| [r.0, r.1])));
                }
                Mark::Rules(at) => xs.extend(at),
            }
        }
        let points = self.marks.iter().any(|m| matches!(m.2, Mark::Points(_)));
        let x = self.x.scale(xs.into_iter(), if points { 0.06 } else { 0.0 });
        let mut y = self.y.scale(ys.into_iter(), if points { 0.1 } else { 0.05 });
        if floor && !self.y.log && self.y.ends.is_none() {
            y.along.0 = 0.0;
        }
        (x, y)
    }
}

/// A small line without axes, for a cell of a table; `name` says what it shows.
pub fn spark(name: &str, color: Color, points: &[(f64, f64)]) -> Markup {
    let finite: Vec<(f64, f64)> = points.iter().copied().filter(|p| p.0.is_finite() && p.1.is_finite()).collect();
    svg((110, 22), name, |root| {
        let scale = |values: Vec<f64>| Axis::linear("").scale(values.into_iter(), 0.0);
        let (x, y) = (scale(finite.iter().map(|p| p.0).collect()), scale(finite.iter().map(|p| p.1).collect()));
        let mut chart = ChartBuilder::on(root).margin(FINE * 2).build_cartesian_2d(x, y)?;
        chart.draw_series([PathElement::new(finite.clone(), color.rgb().stroke_width(FINE))])?;
        Ok(())
    })
}

/// Corners of the outline of a histogram that stands on `floor`.
fn steps(low: f64, width: f64, heights: &[f64], floor: f64) -> Vec<(f64, f64)> {
    let at = |i: usize| low + width * i as f64;
    let mut outline = vec![(low, floor)];
    for (i, height) in heights.iter().map(|h| h.max(floor)).enumerate() {
        // Equal neighbours need no corner.
        if i > 0 && outline.last().is_some_and(|p| p.1 == height) {
            outline.pop();
            outline.push((at(i + 1), height));
        } else {
            outline.extend([(at(i), height), (at(i + 1), height)]);
        }
    }
    outline.push((at(heights.len()), floor));
    outline
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

/// Text of `height` pixels of the page; the backend divides sizes by 1.24.
fn font(height: f64) -> TextStyle<'static> {
    ("sans-serif", height * f64::from(FINE) * 1.24).into_text_style(&(1, 1))
}

/// Draws on an area of `size` pixels of the page; `name` is read out to those who do not see it.
fn svg(size: (u32, u32), name: &str, draw: impl FnOnce(&Area) -> Drawn) -> Markup {
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, (size.0 * FINE, size.1 * FINE)).into_drawing_area();
        // Drawing into a string cannot fail.
        let _ = draw(&root).and_then(|()| root.present());
    }
    // Behind the backend's own head. Quotes inside texts are escaped, so only attributes are shortened.
    let content = text.split_once('>').map_or("", |(_, rest)| rest).replace(" opacity=\"1\"", "");
    let content = content.replace(" font-family=\"sans-serif\"", "").replace(">\n", ">");
    let content = content.strip_suffix("</svg>").unwrap_or(&content).to_string();
    let (width, height) = size;
    html! {
        svg role="img" aria-label=(name) width=(width) height=(height) style=(format!("min-width:{}px", width * LEAST / 100))
            viewBox=(format!("0 0 {} {}", width * FINE, height * FINE)) { (PreEscaped(content)) }
    }
}

/// Labels of points, each where it covers no other.
struct Labels {
    /// Of the drawing.
    size: (f64, f64),
    points: Vec<(f64, f64)>,
    texts: Vec<String>,
}

impl Labels {
    fn new((width, height): (u32, u32)) -> Self {
        Labels { size: (f64::from(width * FINE), f64::from(height * FINE)), points: vec![], texts: vec![] }
    }

    fn add(&mut self, text: &str, (x, y): (i32, i32)) {
        self.points.push((f64::from(x), f64::from(y)));
        self.texts.push(text.into());
    }

    fn draw(&self, root: &Area) -> Drawn {
        let height = TEXT * f64::from(FINE);
        let gap = f64::from(FINE) * 7.0;
        let mut taken: Vec<[f64; 4]> = self.points.iter().map(|p| around(*p, gap, gap)).collect();
        for (&(x, y), text) in self.points.iter().zip(&self.texts).filter(|p| !p.1.is_empty()) {
            let width = text.chars().count() as f64 * height * CHARACTER;
            let (across, up) = (gap + width / 2.0, gap + height / 2.0);
            let places = [(across, 0.0), (-across, 0.0), (0.0, -up), (0.0, up), (across, -up), (across, up)];
            let places = places.map(|(dx, dy)| (x + dx, y + dy));
            let cost = |&(x, y): &(f64, f64)| {
                let own = around((x, y), width / 2.0, height / 2.0);
                let outside = (0.0f64.max(-own[0]) + 0.0f64.max(own[2] - self.size.0)) * height;
                outside + taken.iter().map(|other| overlap(&own, other)).sum::<f64>()
            };
            let Some(place) = places.into_iter().min_by(|a, b| cost(a).total_cmp(&cost(b))) else { continue };
            taken.push(around(place, width / 2.0, height / 2.0));
            let style = font(TEXT).color(&INK.1).pos(Pos::new(HPos::Center, VPos::Center));
            root.draw(&Text::new(text.clone(), (place.0 as i32, place.1 as i32), style))?;
        }
        Ok(())
    }
}

/// Left, top, right, bottom of what reaches `dx` and `dy` to both sides of a point.
fn around((x, y): (f64, f64), dx: f64, dy: f64) -> [f64; 4] {
    [x - dx, y - dy, x + dx, y + dy]
}

fn overlap(a: &[f64; 4], b: &[f64; 4]) -> f64 {
    let along = |i: usize| (a[i + 2].min(b[i + 2]) - a[i].max(b[i])).max(0.0);
    along(0) * along(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(chart: &Chart) -> String {
        chart.draw().into_string()
    }

    #[test]
    fn axes_carry_round_numbers() {
        let ticks = |axis: Axis, low: f64, high: f64| {
            let scale = axis.from_to(low, high).scale(std::iter::empty(), 0.0);
            scale.ticks(6).into_iter().map(tick).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(ticks(Axis::linear(""), 0.0, 2000.0), "0 500 1000 1500 2000");
        assert_eq!(ticks(Axis::log(""), 0.05, 3.0), "0.05 0.1 0.2 0.5 1 2");
        assert_eq!(ticks(Axis::log(""), 1e-8, 1.0), "1e-8 1e-6 1e-4 0.01 1");
        assert_eq!(ticks(Axis::log(""), 2.2, 2.9), "2.2 2.4 2.6 2.8");
        assert_eq!(tick(25_000.0), "25k");
    }

    #[test]
    fn every_mark_is_drawn_and_names_are_text() {
        let chart = Chart::new("<b>&", Axis::linear("x<y"), Axis::log("y"))
            .line("a\"b", Color::One, [(0.0, 1.0), (1.0, 10.0), (2.0, f64::NAN), (3.0, 0.0)])
            .rules("levels", Color::Quiet, [0.25, 0.75])
            .points(
                "runs",
                Color::Two,
                vec![Point { x: 0.5, y: 2.0, range: Some((1.0, 3.0)), label: "<i>W4A4".into() }],
            );
        let drawn = text(&chart);
        assert!(drawn.contains("&lt;b&gt;&amp;") && drawn.contains("x&lt;y") && drawn.contains("&lt;i&gt;W4A4"));
        assert!(!drawn.contains("<b>") && !drawn.contains("<i>") && !drawn.contains("NaN"), "{drawn}");
        assert!(drawn.contains("<circle") && drawn.contains("key one") && !drawn.contains("http"), "{drawn}");
        let bars = Chart::new("", Axis::linear(""), Axis::linear(""));
        let bars = text(&bars.histogram("", Color::Three, (-1.0, 1.0), vec![1.0, 3.0, 3.0, 0.0]));
        assert!(bars.contains("<polygon"), "{bars}");
        for empty in [Chart::new("", Axis::linear(""), Axis::log("")), chart.size(0, 0)] {
            assert!(text(&empty).ends_with("</svg></figure>"));
        }
    }

    #[test]
    fn odd_numbers_are_survived() {
        for v in [0.0, -1.0, 1e-300, 1e300, f64::MAX, f64::NAN, f64::INFINITY] {
            for axis in [Axis::linear("x"), Axis::log("x")] {
                let chart = Chart::new("", axis.clone(), axis).line("", Color::One, [(v, v), (1.0, 2.0)]);
                let drawn = text(&chart.histogram("", Color::One, (0.0, v), vec![v, 1.0]));
                assert!(drawn.contains("</svg>") && !drawn.contains("NaN"), "{v}: {drawn}");
            }
            assert!(spark("s", Color::Four, &[(0.0, v), (1.0, 1.0)]).into_string().contains("</svg>"));
        }
    }

    #[test]
    fn outlines_have_no_needless_corners() {
        assert_eq!(steps(0.0, 1.0, &[2.0, 2.0, 0.0], 0.0).len(), 6);
        assert_eq!(steps(0.0, 1.0, &[], 0.0), [(0.0, 0.0), (0.0, 0.0)]);
    }

    #[test]
    fn labels_keep_off_each_other() {
        let mut labels = Labels::new((340, 190));
        for x in [100, 110, 120] {
            labels.add("label", (x, 100));
        }
        let mut text = String::new();
        let root = SVGBackend::with_string(&mut text, (680, 380)).into_drawing_area();
        labels.draw(&root).unwrap();
        drop(root);
        let mut places: Vec<&str> = text.split("<text ").skip(1).map(|t| t.split(" dy").next().unwrap()).collect();
        places.dedup();
        assert_eq!(places.len(), 3, "{text}");
    }

    #[test]
    fn every_colour_has_its_rule() {
        let style = style();
        for color in Color::ALL {
            assert!(style.contains(&format!("stroke:var(--{})", color.name())), "{style}");
        }
    }
}
