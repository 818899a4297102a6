//! The HTML page of a report: results, detections, largest losses, every unit with its layers and activations, how to repeat the
//! run.

use super::chart::{Axis, Chart, Color, spark};
use super::drawings::{layer, losses, site};
use super::page::{self, bar, cells, fold, section, side_by_side, table};
use super::pictures::ABREAST;
use super::table::{bits, decibels, shape, share};
use super::{Accuracy, LayerReport, PlannedUnit, Report, Score, SiteReport, UnitReport};
use super::{Table, bytes, count, duration, figure, metric};
use crate::plan::{MethodName, Preset};
use maud::{Markup, html};

/// Rows of each list of the largest losses.
const WORST: usize = 10;
/// Maximum number of charts on a page; on large networks only the units that lose most have charts.
const CHARTS: usize = 700;
/// Points of a line in a table.
const SPARK: usize = 40;

impl Report {
    /// The report as an HTML page: one file that loads nothing else.
    pub fn html(&self) -> String {
        let parts: [(&str, &str, Markup); 9] = [
            ("summary", "Summary", self.summary()),
            ("detections", "Detections", self.detections()),
            ("worst", "Largest losses", self.worst()),
            ("bits", "Bits chosen", self.bits()),
            ("units", "Units", self.units()),
            ("layers", "Layers", self.layers()),
            ("activations", "Activations", self.activations()),
            ("plan", "Plan", self.planned()),
            ("repeat", "How to repeat the run", self.repeat()),
        ];
        let shown = || parts.iter().filter(|p| !p.2.0.is_empty());
        let file = self.output.as_deref().unwrap_or(&self.model);
        page::page(
            file.rsplit(['/', '\\']).next().unwrap_or(file),
            &html! {
                nav { @for (id, name, _) in shown() { a href={ "#" (id) } { (name) } } }
                @for (id, name, content) in shown() { (section(id, name, content)) }
            },
        )
    }

    fn summary(&self) -> Markup {
        let method = self.method.to_string();
        let preset = match self.preset {
            Preset::Paper => "paper",
            Preset::Balanced => "balanced",
            Preset::Fast => "fast",
        };
        let learns = self.method != MethodName::Rtn;
        html! {
            div class="verdict" {
                @for line in self.verdict() { p { (line) } }
                @for remark in self.remarks() { p { b { (remark.kind()) ": " } (marked(&remark.text)) "." } }
            }
            p {
                @if let Some(file) = &self.output {
                    b { (file) }
                    @if let Some(encodings) = &self.encodings { " with " b { (encodings.file) } }
                    " from " b { (self.model) } ": "
                }
                @if self.mixed.is_some() { "bits " b { "chosen layer by layer" } }
                @else { "weights of " b { (bits(self.weight_bits)) } ", activations of " b { (bits(self.activation_bits)) } }
                " by " b { (method) } " on " (self.samples) " calibration samples"
                @if learns { ", preset " (preset) ", " (self.iterations) " iterations per unit" }
                ", seed " (self.seed) ". qdrop " (self.version) "."
            }
            (self.tiles())
            @if self.skipped > 0 { p { (self.skipped) " samples were skipped because they could not be read." } }
            div class="pair" { (self.accuracies()) (self.times()) }
        }
    }

    fn tiles(&self) -> Markup {
        let tile = |name: &str, value: String, note: String| {
            html! { div class="tile" { span { (name) } strong { (value) } small { (note) } } }
        };
        let taken = self.seconds();
        html! {
            div class="tiles" {
                @if let Some(a) = &self.accuracy {
                    @for (name, value) in a.result.metrics.iter().take(2) {
                        @let float = a.float.metrics.get(name).copied().unwrap_or(f64::NAN);
                        (tile(&metric(name), percent(*value), format!("float network: {}", percent(float))))
                    }
                }
                @if let (Some(before), Some(after)) = (self.bytes_before, self.bytes_after) {
                    @let share = after as f64 / before.max(1) as f64 * 100.0;
                    (tile("file", bytes(after), format!("{share:.1} % of {}", bytes(before))))
                }
                @if taken > 0.0 {
                    @let estimate = self.estimate.map(|s| format!("{} estimated", duration(s)));
                    (tile("time", duration(taken), estimate.unwrap_or_default()))
                }
                @if let Some(moved) = self.moved() {
                    (tile("rounding", share(moved), "of learned weights not rounded to nearest".into()))
                }
                @if let Some(q) = &self.quality {
                    (tile("outputs", decibels(q.snr_db), format!("signal to noise on {} samples", q.samples)))
                } @else if let Some(unit) = self.units.iter().rfind(|u| u.snr_after.is_some()) {
                    (tile("outputs", decibels(unit.snr_after), format!("signal to noise of {}", unit.name)))
                }
            }
        }
    }

    /// Share of the learned weights whose integer is not the nearest one.
    fn moved(&self) -> Option<f64> {
        let learned = || self.layers.iter().filter(|l| l.learned);
        let size = |l: &LayerReport| l.shape.iter().map(|&d| d as f64).product::<f64>();
        let all: f64 = learned().map(size).sum();
        (all > 0.0).then(|| learned().map(|l| l.moved * size(l)).sum::<f64>() / all)
    }

    fn seconds(&self) -> f64 {
        self.timings.iter().map(|t| t.seconds).sum()
    }

    fn accuracies(&self) -> Markup {
        let few = |a: &&Accuracy| a.result.metrics.len() <= ABREAST;
        let Some(a) = self.accuracy.as_ref().filter(few) else { return html! {} };
        let columns: String = a.result.metrics.keys().map(|m| format!("|>{} %", metric(m))).collect();
        let title = format!("Accuracy on {} samples", a.result.samples);
        let row = |name: &str, score: &Score| {
            let value = |v: &f64| bar(&format!("{v:.2}"), v / 100.0);
            [html! { (name) }].into_iter().chain(score.metrics.values().map(value)).collect()
        };
        let rows = a.rows().map(|(name, score)| row(name, score)).collect();
        cells(&Table::new(title, &format!("network{columns}")), rows)
    }

    fn times(&self) -> Markup {
        if self.timings.is_empty() {
            return html! {};
        }
        let longest = self.timings.iter().map(|t| t.seconds).fold(0.0, f64::max);
        let row = |name: String, seconds: f64| vec![html! { (name) }, bar(&duration(seconds), seconds / longest)];
        let stages = self.timings.iter().filter(|t| t.seconds > longest / 1000.0);
        let mut rows: Vec<_> = stages.map(|t| row(t.stage.to_string(), t.seconds)).collect();
        let plain = |name: &str, seconds: f64| vec![html! { (name) }, html! { (duration(seconds)) }];
        rows.push(plain("total", self.seconds()));
        rows.extend(self.estimate.map(|s| plain("estimate", s)));
        cells(&Table::new("Time", "stage|>time"), rows)
    }

    /// Units that were learned, those with the noisiest outputs first.
    fn noisiest(&self) -> Vec<&UnitReport> {
        let mut units: Vec<&UnitReport> = self.units.iter().filter(|u| u.unit.is_some()).collect();
        units.sort_by(|a, b| order(a.snr_after).total_cmp(&order(b.snr_after)));
        units
    }

    fn worst(&self) -> Markup {
        let units = self.noisiest().into_iter().take(WORST).map(|u| {
            let name = html! { a href={ "#unit" (u.unit.unwrap_or_default()) } { (u.name) } };
            vec![name, decibels_bar(u.snr_after), html! { (figure(u.loss_after)) }]
        });
        let mut sites: Vec<&SiteReport> = self.sites.iter().filter(|s| s.effect.is_some()).collect();
        let effect = |s: &SiteReport| s.effect.map_or(0.0, |e| e.refined);
        sites.sort_by(|a, b| effect(b).total_cmp(&effect(a)));
        let most = sites.first().map_or(0.0, |s| effect(s));
        let sites = sites
            .into_iter()
            .take(WORST)
            .map(|s| vec![self.named(&s.name, s.unit), html! { (s.bits) }, bar(&share(effect(s)), effect(s) / most)]);
        let mut layers: Vec<&LayerReport> = self.layers.iter().filter(|l| l.snr.is_some()).collect();
        layers.sort_by(|a, b| order(a.snr_nearest).total_cmp(&order(b.snr_nearest)));
        let layers = layers.into_iter().take(WORST).map(|l| {
            vec![
                self.named(&l.name, l.unit),
                html! { (l.bits) },
                decibels_bar(l.snr_nearest),
                html! { (share(l.clipped)) },
            ]
        });
        let list = |title: &str, header: &str, about: &str, rows: Vec<Vec<Markup>>| {
            html! { @if !rows.is_empty() { div { (cells(&Table::new(title, header), rows)) p class="quiet" { (about) } } } }
        };
        let lists = [
            list(
                "Units by the noise of their outputs",
                "unit|>signal to noise|>loss",
                "Outputs compared with those of the float network, with this and all earlier units quantized: the \
                 errors of earlier units are included.",
                units.collect(),
            ),
            list(
                "Activations by their effect alone",
                "value|>bits|>error of the outputs",
                "Error of the network's outputs, as a share of their energy, when only this value is quantized in the \
                 float network.",
                sites.collect(),
            ),
            list(
                "Weights by the noise of nearest rounding",
                "layer|>bits|>signal to noise|>clipped",
                "Before learning. Learned rounding has more noise in the weights, but less in the outputs.",
                layers.collect(),
            ),
        ];
        match lists.iter().all(|l| l.0.is_empty()) {
            true => html! {},
            false => html! { (self.along()) div class="pair" { @for l in &lists { (l) } } },
        }
    }

    /// Charts along the network, from input to output.
    fn along(&self) -> Markup {
        let units: Vec<&UnitReport> = self.units.iter().filter(|u| u.unit.is_some()).collect();
        let line = |of: &dyn Fn(&UnitReport) -> Option<f64>| -> Vec<(f64, f64)> {
            let point = |(i, u): (usize, &&UnitReport)| Some((i as f64 + 1.0, of(u)?));
            units.iter().enumerate().filter_map(point).collect()
        };
        let effects: Vec<f64> = self.sites.iter().filter_map(|s| s.effect).map(|e| e.refined * 100.0).collect();
        let mut charts = Vec::new();
        if units.len() > 1 {
            let chart =
                Chart::new("Noise along the network", Axis::linear("unit"), Axis::linear("signal to noise, dB"));
            let chart = chart.size(520, 200).line("unit rounded to nearest", Color::Quiet, line(&|u| u.snr_before));
            charts.push(chart.line("in the file", Color::One, line(&|u| u.snr_after)).draw());
        }
        if effects.len() > 1 {
            let chart = Chart::new(
                "Effect of each activation alone",
                Axis::linear("activation"),
                Axis::linear("error of the outputs, %"),
            );
            let ends = (0.5, effects.len() as f64 + 0.5);
            charts.push(chart.size(520, 200).histogram("", Color::Two, ends, effects).draw());
        }
        html! { @if !charts.is_empty() { div class="pair" { @for c in &charts { (c) } } } }
    }

    /// `name`, with a link to its unit.
    fn named(&self, name: &str, unit: Option<usize>) -> Markup {
        match unit.filter(|&u| u < self.plan.len()) {
            Some(unit) => html! { a href={ "#unit" (unit) } { (name) } },
            None => html! { (name) },
        }
    }

    fn units(&self) -> Markup {
        if self.plan.is_empty() && self.units.is_empty() {
            return html! {};
        }
        let mut head =
            Table::new("", "unit|>layers|loss while learning|>loss before|>after|>signal to noise before|>after");
        head.header.extend(["iterations", "time"].map(String::from));
        head.right.extend([7, 8]);
        let row = |u: &UnitReport| {
            let losses = &u.curve.reconstruction;
            let points =
                thinned(u.curve.iteration.iter().map(|&i| i as f64).zip(losses.iter().map(|l| l.ln())).collect());
            vec![
                self.named(&u.name, u.unit),
                html! { (u.layers.len()) },
                html! { @if points.len() > 1 { (spark("loss, logarithmic", Color::One, &points)) } },
                html! { (figure(u.loss_before)) },
                html! { (figure(u.loss_after)) },
                html! { (decibels(u.snr_before)) },
                html! { (decibels(u.snr_after)) },
                html! { (u.iterations) @if u.iterations < u.planned { " of " (u.planned) } @if u.reverted { ", undone" } },
                html! { @if u.resumed { "earlier run" } @else { (duration(u.seconds)) } },
            ]
        };
        let charts = self.units_with_charts();
        html! {
            @if !self.units.is_empty() {
                p class="quiet" {
                    "Losses are over all calibration samples: before with nearest rounding, after as in the file. "
                    "Iterations end early once all roundings are settled. Undone: learning raised the loss, so the earlier "
                    "solution was kept."
                }
                (cells(&head, self.units.iter().map(row).collect()))
            }
            @if charts.iter().any(|c| !c) { p { "Only the units that lose most have charts; the others are listed." } }
            @for (i, unit) in self.plan.iter().enumerate() { (self.unit(i, unit, charts[i])) }
            @for unit in self.units.iter().filter(|u| u.unit.is_none()) {
                (fold(&html! { b { (unit.name) } " " span class="quiet" { (outcome(unit)) } }, false, &side_by_side(losses(unit))))
            }
            (self.rest())
        }
    }

    fn inside(&self, unit: usize) -> (Vec<&LayerReport>, Vec<&SiteReport>) {
        let layers = self.layers.iter().filter(|l| l.unit == Some(unit)).collect();
        (layers, self.sites.iter().filter(|s| s.unit == Some(unit)).collect())
    }

    /// Per unit of the plan: whether its charts are shown.
    fn units_with_charts(&self) -> Vec<bool> {
        let mut shown = vec![false; self.plan.len()];
        let mut left = CHARTS;
        let learned = self.noisiest().into_iter().filter_map(|u| u.unit);
        for unit in learned.chain(0..self.plan.len()).filter(|&u| u < self.plan.len()) {
            let (layers, sites) = self.inside(unit);
            let charts = 2 + layers.len() + sites.len();
            if !shown[unit] && charts <= left {
                (shown[unit], left) = (true, left - charts);
            }
        }
        shown
    }

    fn unit(&self, number: usize, unit: &PlannedUnit, charts: bool) -> Markup {
        let learned = self.units.iter().find(|u| u.unit == Some(number));
        let (layers, sites) = self.inside(number);
        if layers.is_empty() && sites.is_empty() && learned.is_none() {
            return html! {};
        }
        let worst = self.noisiest().first().is_some_and(|w| w.unit == Some(number)) || self.plan.len() == 1;
        let summary = html! {
            b { (unit.name) } " "
            span class="quiet" {
                (plural(layers.len(), "layer")) ", " (plural(sites.len(), "activation"))
                @if let Some(u) = learned { ", " (outcome(u)) }
            }
        };
        let content = html! {
            @if let Some(u) = learned {
                @if u.reverted { p { "Learning raised the loss, so the earlier solution was kept." } }
                @if u.resumed { p { "Learned in an earlier run; the curves are from that run." } }
            }
            @if charts {
                @let losses = learned.map(losses).unwrap_or_default();
                (side_by_side(losses.into_iter().chain(layers.iter().map(|l| layer(l))).chain(sites.iter().map(|s| site(s)))))
            } @else {
                p { @for l in &layers { code { (l.name) } " " } @for s in &sites { code { (s.name) } " " } }
            }
        };
        html! { div id={ "unit" (number) } { (fold(&summary, worst, &content)) } }
    }

    /// Layers and sites that belong to no unit.
    fn rest(&self) -> Markup {
        let none = |unit: Option<usize>| unit.is_none_or(|u| u >= self.plan.len());
        let layers = self.layers.iter().filter(|l| none(l.unit)).map(layer);
        let charts: Vec<Markup> =
            layers.chain(self.sites.iter().filter(|s| none(s.unit)).map(site)).take(CHARTS).collect();
        match charts.is_empty() {
            true => html! {},
            false => fold(&html! { b { "Outside the units" } }, false, &side_by_side(charts)),
        }
    }

    fn layers(&self) -> Markup {
        if self.layers.is_empty() {
            return html! {};
        }
        let mut head =
            Table::new("", "layer|shape|>bits|>steps|>median step|>clipped|>not nearest|>signal to noise nearest");
        head.header.push("as written".into());
        head.right.push(8);
        let row = |l: &LayerReport| {
            vec![
                self.named(&l.name, l.unit),
                html! { (shape(&l.shape)) },
                html! { (l.bits) },
                html! { (l.channels) },
                html! { (figure(l.steps[1])) },
                html! { (share(l.clipped)) },
                html! { @if l.learned { (share(l.moved)) } @else { "-" } },
                html! { (decibels(l.snr_nearest)) },
                html! { (decibels(l.snr)) },
            ]
        };
        html! {
            p class="quiet" {
                "Clipped: share of the elements that are more than half a step outside the grid. Not nearest: share "
                "whose integer is not the nearest one. Layers with - are rounded to nearest."
            }
            (cells(&head, self.layers.iter().map(row).collect()))
        }
    }

    fn activations(&self) -> Markup {
        if self.sites.is_empty() {
            return html! {};
        }
        let mut head =
            Table::new("", "value|>bits|>first step|>refined|>learned|>zero point|>clipped below|>above|>zeros");
        head.header.push("effect alone".into());
        head.right.push(9);
        let row = |s: &SiteReport| {
            vec![
                self.named(&s.name, s.unit),
                html! { (s.bits) },
                html! { (figure(s.first.step)) },
                html! { (figure(s.refined.step)) },
                html! { (figure(s.learned.step)) },
                html! { (s.learned.zero_point) },
                html! { (share(s.learned.below)) },
                html! { (share(s.learned.above)) },
                html! { (share(s.zeros)) },
                html! { (s.effect.map_or("-".into(), |e| share(e.refined))) },
            ]
        };
        html! {
            p class="quiet" {
                "First: the step that the observer found. Refined: the step after it was checked against the network's "
                "outputs, with which learning began. Learned: the step in the file. Shares refer to the float "
                "network's values on the calibration samples."
            }
            (cells(&head, self.sites.iter().map(row).collect()))
        }
    }

    fn planned(&self) -> Markup {
        if self.plan.is_empty() {
            return html! {};
        }
        let mut units = Table::new("Units", ">#|unit|inputs|outputs|>operators|>parameters|>multiply-adds");
        for (i, u) in self.plan.iter().enumerate() {
            units.row([
                (i + 1).to_string(),
                u.name.clone(),
                u.inputs.join(" "),
                u.outputs.join(" "),
                u.nodes.to_string(),
                count(u.parameters),
                count(u.multiply_adds),
            ]);
        }
        let mut float = Table::new("Left float", "operator|reason");
        for f in &self.float {
            float.row([&f.node, &f.reason]);
        }
        let mut grids = Table::new("Grids", "what|name|unit|>bits|grid|read quantized by");
        let unit = |u: Option<usize>| u.and_then(|u| self.plan.get(u)).map_or("", |u| u.name.as_str());
        let middle = |symmetric: bool| if symmetric { "symmetric" } else { "asymmetric" };
        for l in &self.layers {
            let steps = if l.channels == 1 { "per tensor" } else { "per channel" };
            let how = if l.learned { "" } else { ", to nearest" };
            let grid = format!("{steps}, {}{how}", middle(l.symmetric));
            grids.row(["weight", &l.name, unit(l.unit), &l.bits.to_string(), &grid, ""]);
        }
        for s in &self.sites {
            let readers = s.readers.as_ref().map_or_else(|| "all".into(), |r| r.join(" "));
            grids.row(["activation", &s.name, unit(s.unit), &s.bits.to_string(), middle(s.symmetric), &readers]);
        }
        html! {
            (fold(&html! { (plural(self.plan.len(), "unit")) }, false, &table(&units)))
            (fold(&html! { (plural(self.layers.len(), "weight")) " and " (plural(self.sites.len(), "activation")) }, false, &table(&grids)))
            @if !self.float.is_empty() { (fold(&html! { (plural(self.float.len(), "operator")) " left float" }, true, &table(&float))) }
        }
    }

    fn repeat(&self) -> Markup {
        let command: Vec<String> = self.command.iter().map(|w| quoted(w)).collect();
        html! {
            p {
                "Made by qdrop " (self.version) ", seed " (self.seed) ". The same seed gives the same file, byte for \
                 byte, on any number of threads."
            }
            @if !command.is_empty() { pre class="command" { (command.join(" ")) } }
            @if !self.recipe.is_empty() {
                (fold(&html! { "The recipe, with every default written out" }, false, &html! { pre { (self.recipe) } }))
            }
        }
    }
}

/// The outcome of a unit, in one line.
fn outcome(u: &UnitReport) -> String {
    let (before, after) = (figure(u.loss_before), figure(u.loss_after));
    format!("loss {before} → {after}, signal to noise {} → {}", decibels(u.snr_before), decibels(u.snr_after))
}

/// At most [`SPARK`] of the points, evenly.
fn thinned(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    points.iter().copied().step_by(points.len().div_ceil(SPARK).max(1)).chain(points.last().copied()).collect()
}

/// Key for sorting by signal-to-noise ratio: units without noise come last.
fn order(snr: Option<f64>) -> f64 {
    snr.unwrap_or(f64::INFINITY)
}

/// A signal-to-noise ratio, with the share of the energy that is noise as a bar.
fn decibels_bar(snr: Option<f64>) -> Markup {
    bar(&decibels(snr), snr.map_or(0.0, |x| 10f64.powf(-x / 10.0)))
}

/// `text`, with the parts between backticks as code.
fn marked(text: &str) -> Markup {
    let parts = text.split('`').enumerate();
    html! { @for (i, part) in parts { @if i % 2 == 0 { (part) } @else { code { (part) } } } }
}

fn percent(value: f64) -> String {
    format!("{value:.2} %")
}

fn plural(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// `word` as a shell reads it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.into() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}
