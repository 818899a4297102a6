//! One unit of a plan, ready to be run and solved.

use super::loss::{Distance, Loss};
use super::network_solution::NetworkSolution;
use super::solve::Solution;
use crate::engine::device::{Device, Footprint, Inference};
use crate::engine::facts::{self, Facts};
use crate::engine::program::{Program, Region, compile};
use crate::engine::train::{Bias, LossWeights, Problem, Scaled, Weight};
use crate::error::{Error, Result};
use crate::graph::{Graph, ValueId};
use crate::plan::{Layer, LayerId, Plan, SiteId, Unit, learned_biases, learned_factors};
use crate::probe::{self, Cache, Contents, Weights};
use crate::quant::{Grid, QuantizedWeight};
use crate::report::Sink;
use crate::tensor::{RowStore, Rows, RowsWriter, Tensor};
use std::sync::Arc;

/// Largest integer of the grids for which learning rates of steps were published.
const PUBLISHED_QMAX: f64 = 255.0;

/// A unit compiled, with its float weights.
pub(crate) struct Compiled<'a> {
    unit: &'a Unit,
    plan: &'a Plan,
    /// With the rounded content of weights that are known.
    program: Program,
    ready: Box<dyn Inference>,
    /// Where that content differs from the float one: what runs the float unit.
    float_ready: Option<Box<dyn Inference>>,
    float: Vec<Vec<f32>>,
    /// Biases that are learned: layer, value, float content.
    biases: Vec<(LayerId, ValueId, Vec<f32>)>,
    /// Channel factors that are learned: constants that divide activations in it, with their float content.
    factors: Vec<(ValueId, Scaled)>,
    /// Sites on values that it computes or reads for itself, in the order of the program's.
    pub sites: Vec<SiteId>,
    /// Per output: what its elements weigh in the loss.
    loss_weights: Vec<Option<LossWeights>>,
}

/// What units are compiled from, and for.
#[derive(Clone, Copy)]
pub(crate) struct Units<'a> {
    pub graph: &'a Graph,
    pub facts: &'a Facts,
    pub plan: &'a Plan,
    pub learn_biases: bool,
    pub learn_factors: bool,
    pub device: &'a dyn Device,
}

impl<'a> Units<'a> {
    /// `unit`, with what its outputs weigh. Layers that it only reads have the weights of `found`, where that is there.
    pub fn compile(
        &self,
        unit: &'a Unit,
        loss_weights: &Weights,
        found: Option<&NetworkSolution>,
    ) -> Result<Compiled<'a>> {
        let Units { graph, facts, plan, learn_biases, learn_factors, device } = *self;
        let mut sites = unit.sites.clone();
        for (id, site) in plan.site_ids().zip(&plan.sites) {
            let read_here = |r: &Vec<_>| r.iter().any(|(n, _)| unit.nodes.contains(n));
            if !sites.contains(&id) && unit.inputs.contains(&site.value) && site.readers.as_ref().is_some_and(read_here)
            {
                sites.push(id);
            }
        }
        let site = |&s: &SiteId| plan.site(s);
        let layers = || unit.layers.iter().map(|&l| plan.layer(l));
        let biases = if learn_biases { learned_biases(graph, plan, unit.layers.iter().copied())? } else { Vec::new() };
        let read_here = |v: &ValueId| unit.nodes.iter().any(|&n| graph.node(n).inputs.contains(&Some(*v)));
        let mut divisors = if learn_factors { learned_factors(graph, facts, plan, &sites) } else { Vec::new() };
        divisors.retain(read_here);
        let factors = divisors.into_iter().map(|v| Ok((v, divisor(graph, v)?))).collect::<Result<Vec<_>>>()?;
        let constants = biases.iter().map(|b| b.1).chain(factors.iter().map(|f| f.0));
        let region = Region {
            nodes: unit.nodes.clone(),
            inputs: unit.inputs.clone(),
            outputs: unit.outputs.clone(),
            weights: layers().map(|l| l.weight).chain(constants).collect(),
            sites: sites.iter().map(|s| (site(s).value, site(s).readers.clone())).collect(),
        };
        let float_program = compile(graph, facts, &region)?;
        let (program, float_ready) = match found {
            Some(found) if !unit.fixed.is_empty() => {
                let fixed = unit.fixed.iter().map(|l| &found.weights[l.index()]);
                let mut rounded = rounded(graph, plan, fixed)?;
                for (_, bias, _) in learned_biases(graph, plan, unit.fixed.iter().copied())? {
                    if let Some(content) = found.constants.get(&bias) {
                        let learned = Tensor::f32(&[content.len()], content.clone());
                        rounded.value_mut(bias).constant = Some(Arc::new(learned));
                    }
                }
                let shapes = probe::input_facts(graph, facts);
                let program = compile(&rounded, &facts::infer(&rounded, &shapes)?, &region)?;
                (program, Some(device.inference(&float_program)?))
            }
            _ => (float_program, None),
        };
        let content = |layer: &Layer| match graph.constant(layer.weight) {
            Some(tensor) => tensor.to_f32(),
            None => Err(Error::internal(format!("weight of `{}` is not constant", layer.name))),
        };
        let float = layers().map(content).collect::<Result<_>>()?;
        let ready = device.inference(&program)?;
        let loss_weights = unit.outputs.iter().map(|v| loss_weights.get(v).cloned()).collect();
        Ok(Compiled { unit, plan, float_ready, ready, program, float, biases, factors, sites, loss_weights })
    }
}

impl Compiled<'_> {
    /// What working on it takes.
    pub fn footprint(&self, samples: usize, batch: usize, device: &dyn Device) -> Result<Footprint> {
        device.footprint(&self.program, samples, batch)
    }

    /// What the program's biases and factors hold: what was `learned`, else what they hold in the float network.
    fn constants<'b>(&'b self, learned: &'b Contents) -> impl Iterator<Item = &'b [f32]> {
        let biases = self.biases.iter().map(|(_, v, float)| (v, float));
        let factors = self.factors.iter().map(|(v, float)| (v, &float.scale));
        biases.chain(factors).map(|(v, float)| learned.get(v).unwrap_or(float).as_slice())
    }

    fn inputs(&self, cache: &Cache) -> Result<Vec<Rows>> {
        let one = |v: &ValueId| cache.get(v).cloned().ok_or_else(|| Error::internal("a unit's input is not cached"));
        self.unit.inputs.iter().map(one).collect()
    }

    /// Outputs of the float unit for the inputs in `cache`, in `store`.
    pub fn float_outputs(&self, cache: &Cache, store: &RowStore, sink: &dyn Sink) -> Result<Vec<Rows>> {
        let none = Contents::new();
        let weights: Vec<&[f32]> = self.float.iter().map(Vec::as_slice).chain(self.constants(&none)).collect();
        self.float_ready.as_ref().unwrap_or(&self.ready).run_while(
            &weights,
            &vec![None; self.sites.len()],
            &self.inputs(cache)?,
            store,
            &mut || probe::go_on(sink),
        )
    }

    /// The reconstruction loss of the quantized unit over all samples in `cache`, whose float outputs are `targets`.
    /// `found` is that of the whole plan; without `activations` these stay float. The outputs go into `keep`.
    pub fn quantized(
        &self,
        cache: &Cache,
        found: &NetworkSolution,
        activations: bool,
        targets: &[Rows],
        keep: Option<&RowStore>,
        sink: &dyn Sink,
    ) -> Result<(Distance, Vec<Rows>)> {
        let one = |&l: &LayerId| {
            let w = &found.weights[l.index()];
            w.grid.dequantize_u8(&self.plan.layer(l).shape, &w.integers)
        };
        let weights = self.unit.layers.iter().map(one).collect::<Result<Vec<_>>>()?;
        let constants = self.constants(&found.constants);
        let weights: Vec<&[f32]> = weights.iter().map(Vec::as_slice).chain(constants).collect();
        let grids: Vec<Option<&Grid>> =
            self.sites.iter().map(|s| activations.then(|| &found.grids[s.index()])).collect();
        let rows =
            |store: &RowStore| targets.iter().map(|t| store.rows(t.len(), t.width())).collect::<Result<Vec<_>>>();
        let mut kept = keep.map(rows).transpose()?.unwrap_or_default();
        let mut loss = Loss::new(&self.program, targets, &self.loss_weights);
        self.ready.run_each(&weights, &grids, &self.inputs(cache)?, &mut |first, outputs| {
            kept.iter_mut().zip(outputs).try_for_each(|(to, part)| to.push(part))?;
            loss.add(first, outputs)?;
            probe::go_on(sink)
        })?;
        Ok((loss.distance(), kept.into_iter().map(RowsWriter::finish).collect()))
    }

    /// What the unit is solved from; `weight_grids` and `grids` are those of the whole plan.
    pub fn problem(
        &self,
        weight_grids: &[Grid],
        grids: &[Grid],
        float: &Cache,
        quantized: &Cache,
        targets: Vec<Rows>,
    ) -> Result<Problem> {
        let weight = |(&layer, float): (&LayerId, &Vec<f32>)| {
            let shape = self.plan.layer(layer).shape.clone();
            Weight { layer, float: float.clone(), shape, grid: weight_grids[layer.index()].clone() }
        };
        let bias = |(l, _, float): &(LayerId, ValueId, Vec<f32>)| bias(*l, float.clone(), weight_grids);
        Ok(Problem {
            program: self.program.clone(),
            weights: self.unit.layers.iter().zip(&self.float).map(weight).collect(),
            biases: self.biases.iter().map(bias).collect(),
            scaled: self.factors.iter().map(|f| f.1.clone()).collect(),
            scale_rates: self.sites.iter().map(|s| scale_rate(&grids[s.index()])).collect(),
            grids: self.sites.iter().map(|s| grids[s.index()].clone()).collect(),
            float_inputs: self.inputs(float)?,
            quantized_inputs: self.inputs(quantized)?,
            targets,
            loss_weights: self.loss_weights.clone(),
        })
    }

    /// Adds the biases and factors of `solution` to `learned`.
    pub fn keep_constants(&self, solution: &mut Solution, learned: &mut Contents) {
        learned.extend(self.biases.iter().map(|b| b.1).zip(solution.biases.drain(..).map(|(_, content)| content)));
        learned.extend(self.factors.iter().map(|f| f.0).zip(solution.scaled.drain(..)));
    }

    /// Adds `outputs` to `cache`.
    pub fn store(&self, cache: &mut Cache, outputs: Vec<Rows>) {
        cache.extend(self.unit.outputs.iter().copied().zip(outputs));
    }
}

/// `graph` with the content of `weights` rounded.
pub(crate) fn rounded<'a>(
    graph: &Graph,
    plan: &Plan,
    weights: impl Iterator<Item = &'a QuantizedWeight>,
) -> Result<Graph> {
    let mut rounded = graph.clone();
    for weight in weights {
        let layer = plan.layer(weight.layer);
        let content = weight.grid.dequantize_u8(&layer.shape, &weight.integers)?;
        rounded.value_mut(layer.weight).constant = Some(Arc::new(Tensor::f32(&layer.shape, content)));
    }
    Ok(rounded)
}

/// The bias of a layer before it is learned; `grids` are those of all weights of the plan.
pub(crate) fn bias(layer: LayerId, float: Vec<f32>, grids: &[Grid]) -> Bias {
    let scale = &grids[layer.index()].scale;
    let step = |c: usize| scale[if scale.len() == 1 { 0 } else { c }];
    Bias { layer, step: (0..float.len()).map(step).collect(), float }
}

/// What the learning rate of a site's step is multiplied by. A grid of 16 bits has steps 257 times as small as one of
/// 8 bits for the same range, and must not move them further in proportion.
fn scale_rate(grid: &Grid) -> f64 {
    (PUBLISHED_QMAX / f64::from(grid.qmax)).min(1.0)
}

/// What divides the channels of an activation, the constant `id`, as one that is learned.
pub(crate) fn divisor(graph: &Graph, id: ValueId) -> Result<Scaled> {
    let tensor = graph.constant(id).ok_or_else(|| Error::internal("what divides an activation is not constant"))?;
    let (shape, scale) = (tensor.shape().to_vec(), tensor.to_f32()?);
    Ok(Scaled { base: vec![1.0; scale.len()], axis: shape.iter().position(|&d| d > 1), shape, scale })
}
