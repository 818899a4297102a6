//! Losses of a unit as a report shows them.

use super::loss::Distance;
use super::solve::Settings;
use crate::engine::train::Losses;
use crate::report::{Curve, UnitReport, short};
use std::time::Instant;

/// Points of a curve at most.
const POINTS: usize = 100;

/// The report of what was solved from `start` on, whose outputs were as far as `first` and are as far as `last`.
pub(crate) fn report(
    name: &str,
    unit: Option<usize>,
    layers: Vec<String>,
    [first, last]: [Distance; 2],
    losses: &[Losses],
    settings: &Settings,
    start: Instant,
) -> UnitReport {
    UnitReport {
        name: name.into(),
        unit,
        layers,
        loss_before: first.loss,
        loss_after: last.loss,
        snr_before: first.snr,
        snr_after: last.snr,
        iterations: losses.len(),
        planned: settings.iterations,
        reverted: false,
        curve: curve(losses, settings),
        resumed: false,
        seconds: start.elapsed().as_secs_f64(),
    }
}

/// Means of `losses`, one an iteration, over stretches of equal length.
fn curve(losses: &[Losses], settings: &Settings) -> Curve {
    let mut curve = Curve::default();
    let stretch = losses.len().div_ceil(POINTS).max(1);
    for (i, some) in losses.chunks(stretch).enumerate() {
        let mean = |of: &dyn Fn(&Losses) -> f64| short(some.iter().map(of).sum::<f64>() / some.len() as f64);
        let last = i * stretch + some.len();
        curve.iteration.push(last);
        curve.reconstruction.push(mean(&|l| l.reconstruction));
        // The stretch in which it begins counts from there.
        let active = some.iter().filter(|l| l.total > l.reconstruction).count().max(1);
        let rounding: f64 = some.iter().map(|l| l.total - l.reconstruction).sum();
        curve.rounding.push(short(rounding / active as f64));
        curve.beta.push(short(settings.beta(last)));
    }
    curve
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_are_means_of_stretches() {
        let settings = Settings {
            iterations: 250,
            rounding_lr: 0.0,
            bias_lr: 0.0,
            scale_lr: 0.0,
            scaled_lr: 0.0,
            lambda: 0.1,
            warmup: 0.2,
            beta_start: 20.0,
            beta_end: 2.0,
            stop_settled: false,
        };
        let losses: Vec<Losses> =
            (1..=250).map(|i| Losses { reconstruction: f64::from(i), total: f64::from(i) + 0.5 }).collect();
        let curve = curve(&losses, &settings);
        assert_eq!((curve.iteration.len(), curve.iteration[83]), (84, 250));
        assert_eq!((curve.reconstruction[0], curve.reconstruction[83]), (2.0, 250.0));
        assert!(curve.rounding.iter().all(|&r| r == 0.5));
        assert_eq!((curve.beta[0], curve.beta[83]), (20.0, 2.0));
        assert_eq!(super::curve(&[], &settings), Curve::default());
    }
}
