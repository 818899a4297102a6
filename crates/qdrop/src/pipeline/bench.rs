//! Measures how fast this machine learns the units of a network, on random input.

use crate::calibrate;
use crate::data::Samples;
use crate::engine::device::{Device, beside, processors};
use crate::engine::facts;
use crate::engine::heap::peak;
use crate::engine::philox::Stream;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::plan::Recipe;
use crate::probe::{self, Cache, Calibration, Contents, Weights, input_shapes};
use crate::recon::{NetworkSolution, Units, measure};
use crate::report::{Event, Sink, Stage};
use crate::tensor::{DType, RowStore, Tensor};
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// Least time that a unit is measured for, in seconds, and least iterations.
const LEAST: (f64, usize) = (1.0, 3);
/// Values of noise between its ends.
const LEVELS: usize = 1 << 16;

/// Speed of one unit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UnitSpeed {
    /// The unit's name.
    pub name: String,
    /// Number of its weight layers.
    pub layers: usize,
    /// Time of an iteration, in seconds: the median.
    pub seconds: f64,
    /// Share of that time in forward passes, 0 to 1; losses, masks and mixing included.
    pub forward: f64,
    /// Share in backward passes.
    pub backward: f64,
    /// Share in updates of rounding variables, biases, steps and their optimisers.
    pub update: f64,
    /// Speed in 10⁹ operations per second over the whole iteration, with convolutions counted as direct sums.
    pub gflops: f64,
}

/// Speed of this machine on one network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bench {
    /// Samples per iteration.
    pub batch: usize,
    /// Number of threads.
    pub threads: usize,
    /// Speed of one large matrix product on every thread, in 10⁹ operations per second.
    pub ceiling_gflops: f64,
    /// Units with weight layers, in network order.
    pub units: Vec<UnitSpeed>,
    /// Time of one iteration of every unit, in seconds.
    pub seconds: f64,
    /// Speed of calibration, in samples per second.
    pub calibrate: f64,
    /// Speed at which samples pass through all units, in the float and in the quantized network, in samples per second.
    pub advance: f64,
    /// Peak memory of the process, in bytes, if the system provides it.
    pub peak_bytes: Option<u64>,
}

/// Measures `graph` (simplified) as `recipe` would have it quantized, on as many samples of noise as a batch;
/// `sample_shapes` are those of one sample, one per graph input, without the batch axis.
pub fn bench(
    graph: &Graph,
    recipe: &Recipe,
    sample_shapes: Option<&[Vec<usize>]>,
    sink: &mut dyn Sink,
) -> Result<Bench> {
    if !recipe.resolved().learns {
        return Err(Error::recipe("expected a method that learns, got rtn").hint("choose another with --method"));
    }
    let device = &processors(recipe.method.threads)?;
    let store = RowStore::memory();
    let shapes = input_shapes(graph, sample_shapes)?;
    let facts = facts::infer(graph, &shapes)?;
    let plan = super::plan(graph, recipe, sample_shapes)?;
    let samples = Noise {
        len: recipe.method.batch,
        inputs: graph
            .inputs
            .iter()
            .zip(crate::probe::sample_shapes(graph, &shapes))
            .map(|(&v, shape)| (graph.value(v).fact.dtype.unwrap_or(DType::F32), shape))
            .collect(),
    };
    let start = Instant::now();
    let calibration =
        Calibration { graph, facts: &facts, plan: &plan, recipe, samples: &samples, device, store: &store };
    let grids = calibration.observe(sink)?.sites.fit(&plan)?;
    let calibrate = samples.len as f64 / start.elapsed().as_secs_f64();
    let weight_grids = beside(device, || calibrate::fit_weights(graph, &plan))?;
    let weights = calibrate::round_to_nearest(graph, &plan, &weight_grids)?;
    let found = NetworkSolution { weights, constants: Contents::new(), grids };

    let mut float = probe::load(graph, &samples, device, &store, sink)?;
    let mut quantized: Cache = float.clone();
    let (mut units, mut advancing) = (Vec::new(), 0.0);
    let total = plan.units.len();
    for (number, unit) in plan.units.iter().enumerate() {
        probe::go_on(sink)?;
        let effective = recipe.resolved();
        let (learn_biases, learn_factors) = (effective.learn_biases, effective.learn_weight_scales);
        let context = Units { graph, facts: &facts, plan: &plan, learn_biases, learn_factors, device };
        let compiled = context.compile(unit, &Weights::new(), Some(&found))?;
        let start = Instant::now();
        let targets = compiled.float_outputs(&float, &store, sink)?;
        let (_, next) = compiled.quantized(&quantized, &found, true, &targets, Some(&store), sink)?;
        advancing += start.elapsed().as_secs_f64();
        if !unit.layers.is_empty() {
            let problem = compiled.problem(&weight_grids, &found.grids, &float, &quantized, targets.clone())?;
            let speed = measure(&problem, recipe, LEAST, device, sink)?;
            let [forward, backward, update] = speed.shares;
            let (name, layers) = (unit.name.clone(), unit.layers.len());
            let (seconds, gflops) = (speed.seconds, speed.flops / speed.seconds / 1e9);
            units.push(UnitSpeed { name, layers, seconds, forward, backward, update, gflops });
        }
        compiled.store(&mut float, targets);
        compiled.store(&mut quantized, next);
        for cache in [&mut float, &mut quantized] {
            cache.retain(|v, _| plan.units[number + 1..].iter().any(|u| u.inputs.contains(v)));
        }
        sink.event(&Event::StageProgress { stage: Stage::Bench, done: number + 1, total });
    }
    Ok(Bench {
        batch: samples.len,
        threads: device.parallel(),
        ceiling_gflops: device.ceiling(),
        seconds: units.iter().map(|u| u.seconds).sum(),
        units,
        calibrate,
        advance: samples.len as f64 / advancing,
        peak_bytes: peak(),
    })
}

/// Samples of noise between -1.7 and 1.7; zeros where integers are wanted.
struct Noise {
    len: usize,
    inputs: Vec<(DType, Vec<usize>)>,
}

impl Samples for Noise {
    fn len(&self) -> usize {
        self.len
    }

    fn get(&self, index: usize) -> Result<Vec<Tensor>> {
        let one = |(i, (dtype, shape)): (usize, &(DType, Vec<usize>))| {
            let numel = shape.iter().product();
            let level = |l: usize| (l as f64 / (LEVELS - 1) as f64 - 0.5) * 3.4;
            let values: Vec<f64> = match dtype.is_float() {
                true => Stream::new(0, index as u32, i as u32, 0).below(numel, LEVELS).into_iter().map(level).collect(),
                false => vec![0.0; numel],
            };
            Tensor::from_f64(*dtype, shape, &values)
        };
        self.inputs.iter().enumerate().map(one).collect()
    }

    fn label(&self, _: usize) -> Option<usize> {
        None
    }

    fn name(&self, index: usize) -> String {
        format!("noise {index}")
    }
}
