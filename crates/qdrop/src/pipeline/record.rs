//! What a report holds about units, layers and sites, from what a run has at hand anyway.

use crate::calibrate;
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::plan::{Layer, LayerId, LeftFloat, Plan, SiteId};
use crate::probe::{ActivationGrids, Widths};
use crate::quant::{Distribution, Grid, QuantizedWeight, quantize_one};
use crate::report::{
    Effect, FloatNode, Histogram, LayerReport, Oddity, PlannedUnit, SiteGrid, SiteReport, decibels, short,
};
use rayon::prelude::*;

/// Bins of a histogram at most.
const BINS: usize = 128;
/// Values other than 0 among which one can be an outlier.
const FEW: u64 = 100;

/// Bins in which `n` values show more than noise.
fn bins(n: usize) -> usize {
    ((n as f64).sqrt() * 2.0).clamp(16.0, BINS as f64) as usize
}

/// The units of `plan`, and what stays float.
pub(super) fn plan(graph: &Graph, plan: &Plan) -> (Vec<PlannedUnit>, Vec<FloatNode>) {
    let names = |values: &[ValueId]| values.iter().map(|&v| graph.value(v).name.clone()).collect();
    let unit = |u: &crate::plan::Unit| PlannedUnit {
        name: u.name.clone(),
        inputs: names(&u.inputs),
        outputs: names(&u.outputs),
        nodes: u.nodes.len(),
        parameters: u.parameters,
        multiply_adds: u.multiply_adds,
    };
    let float = |f: &LeftFloat| FloatNode { node: f.node.clone(), reason: f.reason.clone() };
    (plan.units.iter().map(unit).collect(), plan.float.iter().map(float).collect())
}

/// Every layer of `plan` as it is written: `weights` in the plan's order. `learns` says whether units were solved.
pub(super) fn layers(
    graph: &Graph,
    plan: &Plan,
    weights: &[QuantizedWeight],
    learns: bool,
) -> Result<Vec<LayerReport>> {
    let one = |(id, weight): (LayerId, &QuantizedWeight)| {
        let solved = plan.units.iter().position(|u| u.layers.contains(&id));
        let unit = solved.or_else(|| plan.units.iter().position(|u| u.fixed.contains(&id)));
        let learned = learns && solved.is_some();
        let float = calibrate::weight_of(graph, plan, id)?;
        layer_report(plan.layer(id), weight, &float).map(|report| LayerReport { unit, learned, ..report })
    };
    (0..plan.layers.len() as u32).into_par_iter().map(LayerId).zip(weights).map(one).collect()
}

fn layer_report(layer: &Layer, weight: &QuantizedWeight, float: &[f32]) -> Result<LayerReport> {
    let grid = &weight.grid;
    let (least, most) = (f64::from(grid.qmin), f64::from(grid.qmax));
    let (mut clipped, mut moved) = (0u64, 0u64);
    let (mut signal, mut noise, mut noise_nearest) = (0.0, 0.0, 0.0);
    let channels = grid.channels(&layer.shape)?;
    let place = |w: f32, c: usize| f64::from(w / grid.scale[c]) + f64::from(grid.zero_point[c]);
    let mut range = (least, most);
    // Per channel: whether a weight is not 0 before, and after.
    let mut alive = vec![[false; 2]; grid.scale.len()];
    for ((&w, &q), c) in float.iter().zip(&weight.integers).zip(channels) {
        let (s, z) = (grid.scale[c], grid.zero_point[c]);
        let nearest = quantize_one(w, s, z, grid.qmin, grid.qmax);
        moved += u64::from(i32::from(q) != nearest);
        let place = place(w, c);
        clipped += u64::from(place < least - 0.5 || place > most + 0.5);
        range = (range.0.min(place), range.1.max(place));
        alive[c] = [alive[c][0] || w != 0.0, alive[c][1] || i32::from(q) != z];
        let error = |q: i32| f64::from((q - z) as f32 * s - w).powi(2);
        signal += f64::from(w).powi(2);
        noise += error(i32::from(q));
        noise_nearest += error(nearest);
    }
    let (low, high) = window(range, (least - 0.5, most + 0.5));
    let bins = bins(float.len());
    let (mut counts, mut below, mut above) = (vec![0.0; bins], 0.0, 0.0);
    for (&w, c) in float.iter().zip(grid.channels(&layer.shape)?) {
        match (place(w, c) - low) / (high - low) * bins as f64 {
            bin if bin < 0.0 => below += 1.0,
            bin if bin > bins as f64 => above += 1.0,
            bin => counts[(bin as usize).min(bins - 1)] += 1.0,
        }
    }
    let all = float.len().max(1) as f64;
    let mut steps: Vec<f64> = grid.scale.iter().map(|&s| f64::from(s)).collect();
    steps.sort_by(f64::total_cmp);
    let step = |share: usize| short(steps.get((steps.len() - 1) * share / 2).copied().unwrap_or_default());
    Ok(LayerReport {
        name: layer.name.clone(),
        unit: None,
        learned: false,
        shape: layer.shape.clone(),
        bits: layer.grid.bits,
        symmetric: layer.grid.symmetric,
        channels: grid.scale.len(),
        steps: [step(0), step(1), step(2)],
        histogram: histogram((low, high), counts, below, above, all),
        clipped: short(clipped as f64 / all),
        vanished: alive.iter().filter(|&&a| a == [true, false]).count(),
        moved: short(moved as f64 / all),
        snr_nearest: decibels(signal, noise_nearest),
        snr: decibels(signal, noise),
    })
}

/// At most as much beyond both ends of what counts, from `least` to `most`, as lies between them.
fn window((low, high): (f64, f64), (least, most): (f64, f64)) -> (f64, f64) {
    let width = most - least;
    let (low, high) = (low.clamp(least - width, least), high.clamp(most, most + width));
    (low, high)
}

fn histogram((low, high): (f64, f64), counts: Vec<f64>, below: f64, above: f64, all: f64) -> Histogram {
    let share = |n: f64| short(n / all.max(1.0));
    let shares = counts.into_iter().map(share).collect();
    Histogram { low: short(low), high: short(high), shares, below: share(below), above: share(above) }
}

/// What is odd about the values of an activation.
fn oddity(of: &Distribution) -> Option<Oddity> {
    let (min, max) = of.range();
    let far = f64::from(min.abs().max(max.abs())) / Oddity::FAR;
    let (below, above) = of.outside(-far, far);
    let nonzero = of.count() - of.zeros();
    match nonzero {
        0 => (of.count() > 0).then_some(Oddity::Zero),
        _ if min == max => Some(Oddity::Constant),
        // Of a few values, each may be what counts.
        FEW.. if below + above <= (nonzero as f64 / 1000.0).max(1.5) => Some(Oddity::Outlier),
        _ => None,
    }
}

/// Every site of `plan`, with what `activations` says of it and the `grids` that are written.
pub(super) fn sites(
    graph: &Graph,
    plan: &Plan,
    activations: &ActivationGrids,
    widths: &[Widths],
    grids: &[Grid],
) -> Vec<SiteReport> {
    let one = |id: SiteId| {
        let i = id.index();
        let (site, of) = (plan.site(id), &activations.distributions[i]);
        let grid = |grid: &Grid| {
            let ((low, high), (below, above)) = (grid.range(0), of.clipped(grid));
            SiteGrid {
                step: short(grid.scale[0].into()),
                zero_point: grid.zero_point[0],
                low: short(low.into()),
                high: short(high.into()),
                below: short(below),
                above: short(above),
            }
        };
        let (first, refined, learned) = (grid(&activations.first[i]), grid(&activations.refined[i]), grid(&grids[i]));
        let (min, max) = of.range();
        let (min, max, all) = (f64::from(min), f64::from(max), of.count() as f64);
        let (low, high) = window((min, max), (learned.low.min(first.low), learned.high.max(first.high)));
        // Nobody needs room for values that were never seen.
        let (low, high) = (low.max(min.min(learned.low)), high.min(max.max(learned.high)));
        let counts = of.histogram(low, high, bins(of.count() as usize));
        let (below, above) = of.outside(low, high);
        let [channels, narrow] = widths.get(i).map_or([0, 0], Widths::narrow);
        let readers = |r: &Vec<_>| r.iter().map(|&(n, _)| graph.node_name(n).to_string()).collect();
        SiteReport {
            name: site.name.clone(),
            unit: plan.units.iter().position(|u| u.sites.contains(&id)),
            readers: site.readers.as_ref().map(readers),
            bits: site.grid.bits,
            symmetric: site.grid.symmetric,
            oddity: oddity(of),
            channels,
            narrow,
            values: of.count(),
            min: short(min),
            max: short(max),
            zeros: short(of.zeros() as f64 / all.max(1.0)),
            histogram: histogram((low, high), counts, below, above, all),
            first,
            refined,
            learned,
            effect: activations
                .effects
                .get(i)
                .copied()
                .flatten()
                .map(|(a, b)| Effect { first: short(a), refined: short(b) }),
        }
    };
    (0..plan.sites.len() as u32).into_par_iter().map(SiteId).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Fact;
    use crate::plan::{GridSpec, Observer, Site};
    use crate::quant::Observation;

    const SPEC: GridSpec = GridSpec { bits: 2, symmetric: false, observer: Observer::Mse, percentile: 99.99 };

    #[test]
    fn a_layer_tells_what_was_clipped_and_moved() {
        let float = [0.4f32, 1.0, 9.0, -3.0, 0.6, 2.0, 4.0, 0.0];
        let layer = Layer {
            name: "fc".into(),
            weight: ValueId(0),
            nodes: vec![],
            grid: SPEC,
            axis: Some(0),
            shape: vec![2, 4],
        };
        let grid = Grid::per_channel(2, vec![1.0, 2.0], vec![1, 0], 0).unwrap();
        // Nearest: 1 2 3 0, 0 1 2 0; the first and the fifth are moved.
        let weight = QuantizedWeight { layer: LayerId(0), grid, integers: vec![2, 2, 3, 0, 1, 1, 2, 0] };
        let report = layer_report(&layer, &weight, &float).unwrap();
        assert_eq!((report.moved, report.clipped, report.channels), (0.25, 0.25, 2));
        assert_eq!(report.steps, [1.0, 1.0, 2.0]);
        assert!(report.snr < report.snr_nearest, "{report:?}");
        let h = &report.histogram;
        // 9 lies at 10, beyond one more width of the grid; -3 at -2.
        assert_eq!((h.low, h.high, h.below, h.above), (-2.0, 7.5, 0.0, 0.125));
        assert!((h.shares.iter().sum::<f64>() - 0.875).abs() < 1e-6, "{h:?}");
    }

    #[test]
    fn a_site_tells_what_its_grids_clip() {
        let mut graph = Graph::default();
        let value = graph.add_value("v", Fact::default());
        let site = Site { name: "v".into(), value, readers: None, grid: SPEC };
        let plan = Plan { sites: vec![site], ..Plan::default() };
        let mut observation = Observation::new();
        observation.observe(&(0..1000).map(|i| if i < 500 { 0.0 } else { i as f32 / 100.0 }).collect::<Vec<_>>());
        let grid = |scale| Grid::per_tensor(2, scale, 0).unwrap();
        let activations = ActivationGrids {
            distributions: vec![Distribution::new(&observation)],
            first: vec![grid(2.0)],
            effects: vec![Some((0.5, 0.25))],
            refined: vec![grid(2.5)],
        };
        let site = sites(&graph, &plan, &activations, &[], &[grid(3.0)]).remove(0);
        assert_eq!((site.values, site.zeros, site.max), (1000, 0.5, 9.99));
        assert!((site.first.above - 0.3).abs() < 2e-3 && (site.refined.above - 0.125).abs() < 2e-3, "{site:?}");
        assert_eq!((site.learned.above, site.learned.high, site.first.below), (0.0, 9.0, 0.0));
        assert_eq!(site.effect, Some(Effect { first: 0.5, refined: 0.25 }));
        let h = &site.histogram;
        assert!((h.low, h.high) == (0.0, 9.99) && (h.shares.iter().sum::<f64>() - 0.5).abs() < 1e-3, "{h:?}");
    }

    #[test]
    fn odd_activations_are_told() {
        let odd = |values: &[f32]| {
            let mut seen = Observation::new();
            seen.observe(values);
            oddity(&Distribution::new(&seen))
        };
        let ramp: Vec<f32> = (0..5000).map(|i| i as f32 / 1000.0).collect();
        assert_eq!(odd(&ramp), None);
        assert_eq!((odd(&[]), odd(&[0.0; 9]), odd(&[-0.5; 9])), (None, Some(Oddity::Zero), Some(Oddity::Constant)));
        assert_eq!(odd(&[&ramp[..], &[1e5]].concat()), Some(Oddity::Outlier));
        assert_eq!(odd(&[&ramp[..], &[-1e5]].concat()), Some(Oddity::Outlier));
        assert_eq!(odd(&[&ramp[..], &[4e4]].concat()), None, "not far enough");
        assert_eq!(odd(&[&ramp[..], &[1e5; 20]].concat()), None, "they are many");
        assert_eq!(odd(&[&ramp[..50], &[1e5]].concat()), None, "others are few");
    }

    #[test]
    fn channels_whose_weights_vanish_are_counted() {
        let layer = Layer {
            name: "fc".into(),
            weight: ValueId(0),
            nodes: vec![],
            grid: SPEC,
            axis: Some(0),
            shape: vec![3, 2],
        };
        let grid = Grid::per_channel(2, vec![1.0; 3], vec![1, 1, 1], 0).unwrap();
        // The first vanishes, the second was 0 before, the third stays.
        let weight = QuantizedWeight { layer: LayerId(0), grid, integers: vec![1, 1, 1, 1, 1, 2] };
        let report = layer_report(&layer, &weight, &[0.1, -0.2, 0.0, 0.0, 0.1, 1.0]).unwrap();
        assert_eq!((report.vanished, report.channels), (1, 3));
    }
}
