//! One unit of a plan, ready to be run and solved.

use crate::engine::cpu::{CpuTrainer, Runner};
use crate::engine::facts::Facts;
use crate::engine::program::{Program, Region, compile};
use crate::engine::train::{Losses, Step, Trainer, loss_rest};
use crate::error::{Error, Result};
use crate::graph::{Graph, ValueId};
use crate::plan::{Plan, SiteId, Unit};
use crate::quant::{Grid, QuantizedWeight};
use crate::recon::{Problem, Weight};
use crate::tensor::Rows;
use std::collections::BTreeMap;

/// Values of one stream (float or quantized) that units still to come read.
pub(super) type Cache = BTreeMap<ValueId, Rows>;

/// A unit compiled, with its float weights.
pub(super) struct Compiled<'a> {
    unit: &'a Unit,
    plan: &'a Plan,
    program: Program,
    runner: Runner,
    float: Vec<Vec<f32>>,
    /// Sites on values that it computes or reads for itself.
    pub sites: Vec<SiteId>,
}

impl<'a> Compiled<'a> {
    pub fn new(graph: &Graph, facts: &Facts, plan: &'a Plan, unit: &'a Unit) -> Result<Self> {
        let mut sites = unit.sites.clone();
        for (i, site) in plan.sites.iter().enumerate() {
            let read_here = |r: &Vec<_>| r.iter().any(|(n, _)| unit.nodes.contains(n));
            let id = SiteId(i as u32);
            if !sites.contains(&id) && unit.inputs.contains(&site.value) && site.readers.as_ref().is_some_and(read_here)
            {
                sites.push(id);
            }
        }
        let site = |s: &SiteId| &plan.sites[s.0 as usize];
        let layers = || unit.layers.iter().map(|l| &plan.layers[l.0 as usize]);
        let region = Region {
            nodes: unit.nodes.clone(),
            inputs: unit.inputs.clone(),
            outputs: unit.outputs.clone(),
            weights: layers().map(|l| l.weight).collect(),
            sites: sites.iter().map(|s| (site(s).value, site(s).readers.clone())).collect(),
        };
        let program = compile(graph, facts, &region)?;
        let content = |layer: &crate::plan::Layer| match graph.constant(layer.weight) {
            Some(tensor) => tensor.to_f32(),
            None => Err(Error::internal(format!("weight of `{}` is not constant", layer.name))),
        };
        let float = layers().map(content).collect::<Result<_>>()?;
        Ok(Compiled { unit, plan, runner: Runner::new(&program)?, program, float, sites })
    }

    fn inputs(&self, cache: &Cache) -> Result<Vec<Rows>> {
        let one = |v: &ValueId| cache.get(v).cloned().ok_or_else(|| Error::internal("a unit's input is not cached"));
        self.unit.inputs.iter().map(one).collect()
    }

    /// Outputs of the float unit for the inputs in `cache`.
    pub fn float_outputs(&self, cache: &Cache) -> Result<Vec<Rows>> {
        let weights: Vec<&[f32]> = self.float.iter().map(Vec::as_slice).collect();
        self.runner.run(&weights, &vec![None; self.sites.len()], &self.inputs(cache)?)
    }

    /// Outputs of the quantized unit for the inputs in `cache`; `weights` and `grids` are those of the whole plan.
    pub fn quantized_outputs(&self, cache: &Cache, weights: &[QuantizedWeight], grids: &[Grid]) -> Result<Vec<Rows>> {
        let one = |l: &crate::plan::LayerId| {
            let w = &weights[l.0 as usize];
            w.grid.dequantize_u8(&self.plan.layers[l.0 as usize].shape, &w.integers)
        };
        let weights = self.unit.layers.iter().map(one).collect::<Result<Vec<_>>>()?;
        let weights: Vec<&[f32]> = weights.iter().map(Vec::as_slice).collect();
        let grids: Vec<Option<&Grid>> = self.sites.iter().map(|s| Some(&grids[s.0 as usize])).collect();
        self.runner.run(&weights, &grids, &self.inputs(cache)?)
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
        let weight = |(l, float): (&crate::plan::LayerId, &Vec<f32>)| {
            let layer = l.0 as usize;
            let shape = self.plan.layers[layer].shape.clone();
            Weight { layer, float: float.clone(), shape, grid: weight_grids[layer].clone() }
        };
        Ok(Problem {
            program: self.program.clone(),
            weights: self.unit.layers.iter().zip(&self.float).map(weight).collect(),
            grids: self.sites.iter().map(|s| grids[s.0 as usize].clone()).collect(),
            float_inputs: self.inputs(float)?,
            quantized_inputs: self.inputs(quantized)?,
            targets,
        })
    }

    /// Reconstruction loss of `outputs` over all samples.
    pub fn loss(&self, outputs: &[Rows], targets: &[Rows]) -> f64 {
        let mut total = 0.0;
        for ((y, target), &slot) in outputs.iter().zip(targets).zip(&self.program.outputs) {
            let square = |(&a, &b): (&f32, &f32)| f64::from(a - b) * f64::from(a - b);
            let sample = |(y, t): (&[f32], &[f32])| y.iter().zip(t).map(square).sum::<f64>();
            let sum: f64 = y.iter().zip(target.iter()).map(sample).sum();
            total += sum / (loss_rest(&self.program.slots[slot].shape) * y.len()) as f64;
        }
        total
    }

    /// Adds `outputs` to `cache`.
    pub fn store(&self, cache: &mut Cache, outputs: Vec<Rows>) {
        cache.extend(self.unit.outputs.iter().copied().zip(outputs));
    }
}

/// A trainer whose iterations run on a pool of threads.
pub(super) struct Pooled<'a> {
    pub pool: &'a rayon::ThreadPool,
    pub trainer: CpuTrainer<'a>,
}

impl Trainer for Pooled<'_> {
    fn step(&mut self, step: &Step) -> Result<Losses> {
        self.pool.install(|| self.trainer.step(step))
    }

    fn alpha(&self) -> Vec<Vec<f32>> {
        self.trainer.alpha()
    }

    fn grids(&self) -> Vec<Grid> {
        self.trainer.grids()
    }
}
