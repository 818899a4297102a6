//! Bits layer by layer on HTML pages: the measurements and the choice.

use super::chart::{Axis, Chart, Color};
use super::page::{self, cells, section, table};
use super::table::chosen_bits;
use super::{Report, Table, count};
use crate::plan::{Curve, Sensitivity};
use maud::{Markup, html};

/// Colours of the lines of a chart, for the fewest bits first; more bits have no line.
const COLORS: [Color; 5] = [Color::Two, Color::Four, Color::Three, Color::One, Color::Quiet];
/// Largest signal-to-noise ratio that a chart shows, in dB; above it the error does not matter.
const CALM: f64 = 60.0;

impl Sensitivity {
    /// The measurements as an HTML page: one file that loads nothing else.
    pub fn html(&self) -> String {
        let none = |_: &Curve| None;
        let content = html! {
            p {
                "Signal to noise of the network's outputs, in dB, when only one weight or one activation is quantized \
                 and everything else stays float, on " (self.samples) " samples. At 20 dB the error is a hundredth of \
                 the outputs' energy; higher is better."
                @if self.biases_corrected { " The shift of channels' means that rounding a weight causes is removed." }
            }
            (section("weights", "Weights", &measured("layer", &self.layers, &none)))
            @if !self.activations.is_empty() {
                (section("activations", "Activations", &measured("value", &self.activations, &none)))
            }
        };
        let file = self.model.rsplit(['/', '\\']).next().unwrap_or(&self.model);
        page::page(&format!("Sensitivity of {file}"), &content)
    }
}

impl Report {
    /// How bits were chosen, if they were.
    pub(super) fn bits(&self) -> Markup {
        let Some(mixed) = &self.mixed else { return html! {} };
        let along = |title: &str, what: &str, color: Color, bits: Vec<f64>| {
            let ends = (0.5, bits.len() as f64 + 0.5);
            let chart = Chart::new(title, Axis::linear(what), Axis::linear("bits").from_to(0.0, 8.0)).size(520, 160);
            (bits.len() > 1).then(|| chart.histogram("", color, ends, bits).draw())
        };
        let weights = self.layers.iter().map(|l| f64::from(l.bits)).collect();
        let sites = self.sites.iter().map(|s| f64::from(s.bits)).collect();
        let charts = [
            along("Bits of weights", "layer", Color::Three, weights),
            along("Bits of activations", "activation", Color::Two, sites),
        ];
        let layer = |c: &Curve| only(self.layers.iter().filter(|l| l.name == c.name).map(|l| l.bits));
        let site = |c: &Curve| only(self.sites.iter().filter(|s| s.name == c.value).map(|s| s.bits));
        let Sensitivity { samples, layers, activations, .. } = &mixed.sensitivity;
        html! {
            div class="pair" {
                div { (table(&Table { title: String::new(), ..chosen_bits(&mixed.chosen, mixed.reached_error) })) }
                div { @for chart in charts.iter().flatten() { (chart) } }
            }
            p class="quiet" {
                "The tables below give the signal to noise of the outputs, in dB, when only one weight or activation \
                 is quantized, on " (samples) " samples. The chosen bits are highlighted."
            }
            (page::fold(&html! { b { "Weights" } }, true, &measured("layer", layers, &layer)))
            @if !activations.is_empty() {
                (page::fold(&html! { b { "Activations" } }, false, &measured("value", activations, &site)))
            }
        }
    }
}

/// The one element, if there is only one.
fn only(mut all: impl Iterator<Item = u32>) -> Option<u32> {
    all.next().filter(|_| all.next().is_none())
}

/// `curves` as a chart and as a table in which the `chosen` bits are highlighted; `what` says of what they are curves.
fn measured(what: &str, curves: &[Curve], chosen: &dyn Fn(&Curve) -> Option<u32>) -> Markup {
    let mut bits: Vec<u32> = curves.iter().flat_map(|c| &c.errors).map(|e| e.bits).collect();
    bits.sort_unstable();
    bits.dedup();
    let snr = |curve: &Curve, bits: u32| curve.errors.iter().find(|e| e.bits == bits).map(|e| e.snr());
    let mut chart = Chart::new("", Axis::linear(what), Axis::linear("signal to noise, dB")).size(820, 220);
    for (&b, &color) in bits.iter().zip(&COLORS) {
        let points = curves.iter().enumerate().filter_map(|(i, c)| Some((i as f64 + 1.0, snr(c, b)?.min(CALM))));
        chart = chart.line(&format!("{b} bit"), color, points);
    }
    let columns: String = bits.iter().map(|b| format!("|>{b} bit")).collect();
    let head = Table::new("", &format!("{what}|>#|>elements{columns}"));
    let row = |(i, curve): (usize, &Curve)| {
        let first = [html! { (curve.name) }, html! { (i + 1) }, html! { (count(curve.elements)) }];
        let chosen = chosen(curve);
        let cell = |&b: &u32| {
            let text = snr(curve, b).map_or_else(|| "-".into(), |s| format!("{s:.1}"));
            if chosen == Some(b) {
                html! { mark { (text) } }
            } else {
                html! { (text) }
            }
        };
        first.into_iter().chain(bits.iter().map(cell)).collect()
    };
    html! {
        @if curves.len() > 1 { (chart.draw()) }
        (cells(&head, curves.iter().enumerate().map(row).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::BitError;

    #[test]
    fn sensitivities_have_a_page_of_their_own() {
        let curve = |name: &str, errors: &[(u32, f64)]| Curve {
            name: name.into(),
            value: name.into(),
            elements: 1000,
            errors: errors.iter().map(|&(bits, error)| BitError { bits, error, agreement: None }).collect(),
        };
        let mut found = Sensitivity {
            schema: Sensitivity::SCHEMA,
            model: "nets/<b>.onnx".into(),
            samples: 64,
            biases_corrected: true,
            share: None,
            layers: vec![curve("conv<1>", &[(2, 0.1), (8, 0.0)]), curve("unseen", &[])],
            activations: vec![],
        };
        let page = found.html();
        assert!(page.contains("Sensitivity of &lt;b&gt;.onnx") && page.contains("conv&lt;1&gt;"), "{page}");
        assert!(page.contains(">10.0<") && page.contains(">inf<") && page.contains(">-<"), "{page}");
        assert!(page.contains("<svg") && !page.contains("id=\"activations\"") && !page.contains("<mark>"));
        found.layers.truncate(1);
        assert!(!found.html().contains("<svg"), "one layer is no line");
        let marked = measured("layer", &found.layers, &|_| Some(2)).into_string();
        assert!(marked.contains("<mark>10.0</mark>") && marked.matches("<mark>").count() == 1);
    }
}
