//! Calibration: fits the first grids, those of activations to the values observed in the float network, those of
//! weights to the constants of the graph.
//!
//! ```
//! use qdrop::calibrate::Watch;
//! use qdrop::plan::{GridSpec, Observer, Plan, Site, SiteId};
//!
//! let grid = GridSpec { bits: 4, symmetric: false, observer: Observer::Mse, percentile: 99.99 };
//! let site = Site { name: "relu".into(), value: qdrop::graph::ValueId(0), readers: None, grid };
//! let plan = Plan { sites: vec![site], ..Plan::default() };
//! let mut watch = Watch::new(&plan);
//! watch.observe(SiteId(0), &[0.0, 0.5, 1.5]);
//! let grids = watch.fit(&plan)?;
//! assert!((grids[0].scale[0] - 0.1).abs() < 1e-6);
//! # Ok::<(), qdrop::Error>(())
//! ```

mod factors;
#[cfg(test)]
mod factors_tests;

pub use factors::{Channels, Factors, factors, fold, insert};

use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::plan::{GridSpec, LayerId, Observer, Plan, SiteId};
use crate::quant::{Distribution, Grid, Observation, QuantizedWeight, RangeSpec, Search, fit, fit_weight, rounding};
use rayon::prelude::*;
use std::borrow::Cow;
use std::f32::consts::{FRAC_1_SQRT_2, SQRT_2};

/// Most times that a step is multiplied or divided by √2.
const MOST_CORRECTIONS: usize = 16;
/// What a distance must be divided by for another step to be taken.
const WORTHWHILE: f64 = 1.1;
/// Worse steps in a row after which no better one is expected.
const PATIENCE: usize = 3;

/// What was seen at each site of a plan; at most 1 MiB a site, however many samples pass.
#[derive(Debug, Clone)]
pub struct Watch {
    sites: Vec<Observation>,
    /// Per site: the samples with its smallest and its largest value, where they are known.
    extremes: Vec<[Option<usize>; 2]>,
}

impl Watch {
    /// Nothing seen yet.
    pub fn new(plan: &Plan) -> Self {
        Watch::of(vec![(Observation::new(), [None; 2]); plan.sites.len()])
    }

    /// What was seen of every site, in the plan's order, and the samples with its smallest and its largest value.
    pub fn of(seen: Vec<(Observation, [Option<usize>; 2])>) -> Self {
        let (sites, extremes) = seen.into_iter().unzip();
        Watch { sites, extremes }
    }

    /// The samples with the smallest and with the largest value of `site`, where they are known.
    pub fn extremes(&self, site: SiteId) -> [Option<usize>; 2] {
        self.extremes.get(site.index()).copied().unwrap_or_default()
    }

    /// Takes in float values of `site`, in the plan's range of sites (others are ignored).
    pub fn observe(&mut self, site: SiteId, values: &[f32]) {
        if let Some(seen) = self.sites.get_mut(site.index()) {
            seen.observe(values);
        }
    }

    /// Takes in values of all sites at once, in the plan's order, sites in parallel. The result does not depend on
    /// the number of threads.
    pub fn observe_all(&mut self, values: &[&[f32]]) {
        self.sites.par_iter_mut().zip(values.par_iter()).for_each(|(seen, v)| seen.observe(v));
    }

    /// Takes in everything `other` has seen. Equal calls in equal order give equal bits.
    pub fn merge(&mut self, other: &Watch) {
        self.sites.par_iter_mut().zip(&other.sites).for_each(|(seen, o)| seen.merge(o));
    }

    /// What is kept of every site, in the plan's order.
    pub fn distributions(&self) -> Vec<Distribution> {
        self.sites.par_iter().map(Distribution::new).collect()
    }

    /// The grid of every site, in the plan's order; an error names the site that saw no finite number.
    pub fn fit(&self, plan: &Plan) -> Result<Vec<Grid>> {
        let fit_site = |(seen, site): (&Observation, &crate::plan::Site)| {
            fit(seen, &range_spec(&site.grid)).map_err(|e| e.at(format!("activation `{}`", site.name)))
        };
        self.sites.par_iter().zip(&plan.sites).map(fit_site).collect()
    }
}

/// What [`refine_step`] found.
#[derive(Debug, Clone, PartialEq)]
pub struct Refined {
    /// The grid to take.
    pub grid: Grid,
    /// Distance of the grid before.
    pub before: f64,
    /// Distance of the grid to take.
    pub after: f64,
}

/// `grid` with its step multiplied or divided by √2 as often as lowers `distance` most; the zero point stays. The
/// distance of a grid, 0 or more, says how far the network's outputs are from the float ones when it alone is in use.
/// Unless `grid`'s is a tenth larger than the least, `grid` stays: small differences on a few samples say nothing.
pub fn refine_step(grid: &Grid, mut distance: impl FnMut(&Grid) -> Result<f64>) -> Result<Refined> {
    let first = distance(grid)?;
    let (mut best, mut least) = (grid.clone(), first);
    for factor in [FRAC_1_SQRT_2, SQRT_2] {
        let (before, mut next, mut worse) = (least, best.clone(), 0);
        for _ in 0..MOST_CORRECTIONS {
            next = scaled(&next, factor);
            let error = distance(&next)?;
            if error < least {
                (best, least, worse) = (next.clone(), error, 0);
            } else if error != least {
                // Steps so wide that they erase everything are equally bad, and the first that do not may be worse.
                worse += 1;
                if worse == PATIENCE {
                    break;
                }
            }
        }
        if least < before {
            break;
        }
    }
    Ok(match worthwhile(first, least) {
        true => Refined { grid: best, before: first, after: least },
        false => Refined { grid: grid.clone(), before: first, after: first },
    })
}

/// `grid` with its step multiplied by `factor`.
pub fn scaled(grid: &Grid, factor: f32) -> Grid {
    let scale = grid.scale.iter().map(|s| (s * factor).max(f32::MIN_POSITIVE)).collect();
    Grid { scale, ..grid.clone() }
}

/// Whether the distance `after` is so much less than `before` that another step should be taken.
pub fn worthwhile(before: f64, after: f64) -> bool {
    WORTHWHILE * after <= before
}

/// How `quant` is asked for the grid that a plan wants.
pub fn range_spec(spec: &GridSpec) -> RangeSpec {
    let search = match spec.observer {
        Observer::Mse => Search::Mse,
        Observer::MinMax => Search::MinMax,
        Observer::Percentile => Search::Percentile(spec.percentile),
    };
    RangeSpec { bits: spec.bits, symmetric: spec.symmetric, search }
}

/// The grid of every weight, in the plan's order; an error names the layer.
pub fn fit_weights(graph: &Graph, plan: &Plan) -> Result<Vec<Grid>> {
    let fit_layer = |id: LayerId| {
        let (layer, weight) = (plan.layer(id), weight_of(graph, plan, id)?);
        fit_weight(&weight, &layer.shape, layer.axis, &range_spec(&layer.grid))
            .map_err(|e| e.at(format!("weight of `{}`", layer.name)))
    };
    plan.layer_ids().map(fit_layer).collect()
}

/// Every weight rounded to nearest on `grids` (in the plan's order).
pub fn round_to_nearest(graph: &Graph, plan: &Plan, grids: &[Grid]) -> Result<Vec<QuantizedWeight>> {
    let round = |(id, grid): (LayerId, &Grid)| {
        let weight = weight_of(graph, plan, id)?;
        rounding::nearest(id, &weight, &plan.layer(id).shape, grid)
    };
    plan.layer_ids().zip(grids).map(round).collect()
}

/// The elements of a layer's weight, row-major.
pub fn weight_of<'a>(graph: &'a Graph, plan: &Plan, layer: LayerId) -> Result<Cow<'a, [f32]>> {
    let layer = plan.layer(layer);
    let tensor = graph
        .constant(layer.weight)
        .ok_or_else(|| Error::internal("the weight is not constant").at(format!("layer `{}`", layer.name)))?;
    match tensor.as_f32() {
        Some(values) => Ok(Cow::Borrowed(values)),
        None => Ok(Cow::Owned(tensor.to_f32()?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::ValueId;
    use crate::plan::{Layer, Site};
    use crate::tensor::Tensor;

    fn plan() -> (Graph, Plan) {
        let mut graph = Graph { opset: 13, ..Graph::default() };
        let weight = graph.add_constant("w", Tensor::f32(&[2, 3], vec![0.1, -0.2, 0.3, 4.0, 5.0, -6.0]));
        let grid = GridSpec { bits: 8, symmetric: false, observer: Observer::MinMax, percentile: 99.99 };
        let layers = vec![Layer { name: "fc".into(), weight, nodes: vec![], grid, axis: Some(0), shape: vec![2, 3] }];
        let site = |name: &str| Site { name: name.into(), value: ValueId(0), readers: None, grid };
        (graph, Plan { layers, sites: vec![site("a"), site("b")], ..Plan::default() })
    }

    #[test]
    fn sites_are_fitted_in_order_and_errors_name_them() {
        let (_, plan) = plan();
        let mut watch = Watch::new(&plan);
        watch.observe_all(&[&[0.0, 2.55], &[-1.0, 1.55]]);
        let mut more = Watch::new(&plan);
        more.observe_all(&[&[5.1], &[0.0]]);
        watch.merge(&more);
        let grids = watch.fit(&plan).unwrap();
        assert!((grids[0].scale[0] - 0.02).abs() < 1e-7 && (grids[1].scale[0] - 0.01).abs() < 1e-7);
        assert_eq!((grids[0].zero_point[0], grids[1].zero_point[0]), (0, 100));
        watch.observe(SiteId(1), &[f32::NAN]);
        assert_eq!(watch.fit(&plan).unwrap(), grids, "what is no number is left out");
        let mut strange = Watch::new(&plan);
        strange.observe_all(&[&[1.0], &[f32::NAN]]);
        let message = strange.fit(&plan).unwrap_err().to_string();
        assert_eq!(message, "activation `b`: expected finite numbers, all 1 are NaN or infinite");
    }

    #[test]
    fn steps_follow_the_distance_both_ways() {
        let grid = Grid::per_tensor(4, 1.0, 3).unwrap();
        let toward = |best: f32| {
            let refined = refine_step(&grid, |g| Ok(f64::from((g.scale[0] / best).ln().powi(2)))).unwrap();
            assert!(refined.after <= refined.before);
            let refined = refined.grid;
            assert_eq!((refined.zero_point[0], refined.bits()), (3, 4));
            refined.scale[0]
        };
        for best in [0.06, 0.5, 1.0, 11.0] {
            assert!((toward(best) / best).ln().abs() <= SQRT_2.ln() / 2.0 + 1e-5, "{best}: {}", toward(best));
        }
        let little = refine_step(&grid, |g| Ok(20.0 + f64::from(g.scale[0]))).unwrap();
        assert_eq!(little, Refined { grid: grid.clone(), before: 21.0, after: 21.0 });
        assert_eq!(refine_step(&grid, |_| Ok(f64::NAN)).unwrap().grid, grid);
        assert_eq!(refine_step(&grid, |_| Ok(0.0)).unwrap().grid, grid);
        assert!(refine_step(&grid, |_| Err(Error::internal("no"))).is_err());
    }

    #[test]
    fn weights_are_fitted_and_rounded() {
        let (graph, plan) = plan();
        let grids = fit_weights(&graph, &plan).unwrap();
        let rounded = round_to_nearest(&graph, &plan, &grids).unwrap();
        assert_eq!((rounded[0].layer, rounded[0].integers.len()), (LayerId(0), 6));
        let real = rounded[0].grid.dequantize_u8(&[2, 3], &rounded[0].integers).unwrap();
        for (a, b) in real.iter().zip([0.1, -0.2, 0.3, 4.0, 5.0, -6.0]) {
            assert!((a - b).abs() <= grids[0].scale[1]);
        }
    }
}
