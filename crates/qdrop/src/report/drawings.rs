//! Charts for single units, weights and activations.

use super::chart::{Axis, Chart, Color};
use super::table::{bits, shape, share};
use super::{LayerReport, SiteGrid, SiteReport, UnitReport, figure};
use maud::{Markup, html};

/// Maximum number of levels that are drawn one by one; of finer grids only the ends are drawn.
const LEVELS: u32 = 16;
/// The smallest share that an activation's histogram shows.
const LEAST_SHARE: f64 = 1e-6;

/// The losses of a unit while it was learned: the reconstruction loss and, if roundings were learned, the regulariser.
pub fn losses(u: &UnitReport) -> Vec<Markup> {
    let c = &u.curve;
    if c.iteration.is_empty() {
        return Vec::new();
    }
    let line = |values: &[f64]| -> Vec<(f64, f64)> {
        c.iteration.iter().map(|&i| i as f64).zip(values.iter().copied()).collect()
    };
    let chart = |title: &str, y: &str| {
        let x = Axis::linear("iteration").from_to(0.0, u.planned.max(c.iteration.len()) as f64);
        Chart::new(title, x, Axis::log(y)).size(340, 170)
    };
    let mut charts = vec![chart("Reconstruction loss", "loss").line("", Color::One, line(&c.reconstruction)).draw()];
    if c.rounding.iter().any(|&r| r > 0.0) {
        let rounding = chart("Rounding", "loss, β").line("loss", Color::Two, line(&c.rounding));
        charts.push(rounding.line("β", Color::Quiet, line(&c.beta)).draw());
    }
    charts
}

/// A layer's weight on its grid.
pub fn layer(l: &LayerReport) -> Markup {
    let h = &l.histogram;
    let levels = 1u32.checked_shl(l.bits).unwrap_or(0);
    let chart = Chart::new(&l.name, Axis::linear("weight / step + zero point"), Axis::linear("share %"));
    let chart = chart.size(340, 170).histogram("", Color::Three, (h.low, h.high), per_cent(&h.shares));
    let chart = match levels {
        0 => chart,
        1..=LEVELS => chart.rules("levels", Color::Two, (0..levels).map(f64::from)),
        _ => chart.rules("range", Color::Two, [-0.5, f64::from(levels) - 0.5]),
    };
    let steps = match l.channels {
        1 => format!("step {}", figure(l.steps[0])),
        n => format!("{n} steps, {} to {}", figure(l.steps[0]), figure(l.steps[2])),
    };
    let moved = match l.learned {
        true => format!(", {} not rounded to nearest", share(l.moved)),
        false => ", rounded to nearest".into(),
    };
    html! {
        div {
            (chart.draw())
            p class="note" { (bits(l.bits)) ", " (shape(&l.shape)) ", " (steps) ", " (share(l.clipped)) " clipped" (moved) }
        }
    }
}

/// An activation's values on its first grid and the one in the file.
pub fn site(s: &SiteReport) -> Markup {
    let h = &s.histogram;
    let levels = 1u32.checked_shl(s.bits).unwrap_or(0);
    let ends = |g: &SiteGrid| [g.low - g.step / 2.0, g.high + g.step / 2.0];
    let chart = Chart::new(&s.name, Axis::linear("value"), Axis::log("share %").from_to(LEAST_SHARE * 1e2, 100.0));
    let chart = chart.size(340, 170).histogram("", Color::One, (h.low, h.high), per_cent(&h.shares));
    let chart = chart.rules("first range", Color::Quiet, ends(&s.first));
    let chart = match levels {
        1..=LEVELS => {
            let level = |i: u32| s.learned.low + f64::from(i) * s.learned.step;
            chart.rules("levels", Color::Two, (0..levels).map(level))
        }
        _ => chart.rules("range", Color::Two, ends(&s.learned)),
    };
    let change = |show: &dyn Fn(f64) -> String, of: &dyn Fn(&SiteGrid) -> f64| {
        let (first, last) = (show(of(&s.first)), show(of(&s.learned)));
        if first == last { last } else { format!("{first} → {last}") }
    };
    let clipped = |side: &str, of: &dyn Fn(&SiteGrid) -> f64| match of(&s.first).max(of(&s.learned)) {
        0.0 => String::new(),
        _ => format!(", {} clipped {side}", change(&share, of)),
    };
    html! {
        div {
            (chart.draw())
            p class="note" {
                (bits(s.bits)) ", step " (change(&figure, &|g| g.step)) ", zero point " (s.learned.zero_point)
                (clipped("below", &|g| g.below)) (clipped("above", &|g| g.above)) ", values from " (figure(s.min)) " to " (figure(s.max))
                @if s.zeros > 0.0 { ", " (share(s.zeros)) " zeros (not drawn)" }
            }
        }
    }
}

fn per_cent(shares: &[f64]) -> Vec<f64> {
    shares.iter().map(|s| s * 100.0).collect()
}
